//! One series in the head.
//!
//! Floats that arrive in time order, which is nearly all, go to a [`Stream`], cut into sealed blocks. Everything
//! else goes to `late`, sorted by time: floats behind the stream's end, and all histograms. An entry of `late`
//! was written after whatever the stream has at its time, so reading lays it over the stream.
//!
//! There are millions of series: what a stripe has for all of them together, the pieces of the streams and the labels,
//! is in the stripe, and comes along with whatever is done to a series.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    pieces::{List, Pieces},
    stream::{MOST_SAMPLES, Row, Stream, unpack},
};
use crate::{
    model::{Histogram, Labels, SeriesId, TimeRange, Timestamp},
    storage::{
        AppendPolicy, Estimate, HistogramSample, OnConflict, RejectReason, SeriesSamples,
        embedded::wal::record,
    },
};

/// A stream is sealed at this many samples: so many are unpacked to find one.
const BLOCK_SAMPLES: u32 = 256;
const _: () = assert!(BLOCK_SAMPLES < MOST_SAMPLES);

/// A series that takes writes.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) id: SeriesId,
    /// Which of the head's tenants.
    pub(crate) tenant: u32,
    /// The series' number in the log and in the index.
    pub(crate) number: u32,
    /// The numbers that its labels have in the tenant's index.
    pub(crate) labels: List,
    /// Whether the log of this epoch knows the number.
    pub(crate) logged: bool,
    /// The newest sample that it had in the heads before, and is still active for.
    pub(crate) carried: i64,
    stream: Stream,
    rest: Option<Box<Rest>>,
}

#[derive(Debug)]
struct Block {
    first: i64,
    last: i64,
    /// Samples in the blocks before.
    before: u32,
    bytes: Box<[u8]>,
}

/// What most series do not have.
#[derive(Debug, Default)]
struct Rest {
    /// Sealed, from the oldest to the newest.
    blocks: Vec<Block>,
    late: BTreeMap<i64, Late>,
    /// From which sample of the streams on which start timestamp holds.
    starts: Vec<(u32, i64)>,
    /// The newest sample outside the head, once it has been asked for.
    newest_before: Option<Option<i64>>,
}

#[derive(Debug)]
struct Late {
    start: i64,
    value: LateValue,
}

#[derive(Debug, PartialEq)]
enum LateValue {
    Float(u64),
    Histogram(Box<[u8]>),
}

/// A value on its way in: a float's bits, or an encoded histogram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NewValue<'a> {
    Float(u64),
    Histogram(&'a [u8]),
}

impl PartialEq<NewValue<'_>> for LateValue {
    fn eq(&self, other: &NewValue<'_>) -> bool {
        match (self, other) {
            (Self::Float(a), NewValue::Float(b)) => a == b,
            (Self::Histogram(a), NewValue::Histogram(b)) => **a == **b,
            (Self::Float(_), NewValue::Histogram(_)) | (Self::Histogram(_), NewValue::Float(_)) => false,
        }
    }
}

/// What became of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    InOrder,
    OutOfOrder,
    Duplicate,
}

/// A series' past: what the store has of it outside this head, by its labels.
#[derive(Clone, Copy)]
pub(crate) struct Past<'a> {
    pub(crate) before: &'a dyn Before,
    pub(crate) labels: &'a dyn Fn() -> Labels,
}

impl Past<'_> {
    /// None, or none that matters.
    pub(crate) const NOTHING: Self = Self { before: &Nothing, labels: &Labels::empty };
}

/// What the store has of a series outside this head.
pub(crate) trait Before {
    /// The time of its newest sample.
    fn newest(&self, labels: &Labels) -> Option<i64>;

    /// Whether there is a sample at a time, and whether it has the same bits.
    fn same_at(&self, labels: &Labels, at: i64, value: NewValue<'_>) -> Option<bool>;
}

/// Nothing.
#[derive(Debug)]
struct Nothing;

impl Before for Nothing {
    fn newest(&self, _labels: &Labels) -> Option<i64> {
        None
    }

    fn same_at(&self, _labels: &Labels, _at: i64, _value: NewValue<'_>) -> Option<bool> {
        None
    }
}

impl Series {
    pub(crate) fn new(id: SeriesId, tenant: u32, number: u32, labels: List) -> Self {
        Self {
            id,
            tenant,
            number,
            labels,
            logged: false,
            carried: i64::MIN,
            stream: Stream::default(),
            rest: None,
        }
    }

    /// Adds a sample, or says why not.
    pub(crate) fn append(
        &mut self,
        at: i64,
        value: NewValue<'_>,
        start: i64,
        policy: AppendPolicy,
        past: Past<'_>,
        pieces: &mut Pieces,
    ) -> Result<Taken, RejectReason> {
        let late = self.rest.as_ref().is_some_and(|rest| !rest.late.is_empty());
        let plain = policy.on_conflict == OnConflict::Last && policy.out_of_order_window.is_none();
        if plain
            && !late
            && let NewValue::Float(bits) = value
            && self.follows(at)
        {
            self.push(at, bits, start, pieces);
            return Ok(Taken::InOrder);
        }
        let same = self
            .same_at(at, value, pieces)
            .or_else(|| if plain { None } else { past.before.same_at(&(past.labels)(), at, value) });
        match same {
            Some(true) => return Ok(Taken::Duplicate),
            Some(false) if policy.on_conflict == OnConflict::Reject => return Err(RejectReason::Conflict),
            Some(false) | None => {}
        }
        if let Some(window) = policy.out_of_order_window
            && let Some(newest) = self.newest().max(self.newest_before(past))
            && Timestamp(at) < Timestamp(newest).minus(window)
        {
            return Err(RejectReason::OutOfOrder);
        }
        let newest = self.newest();
        match value {
            NewValue::Float(bits)
                if self.follows(at) && !self.rest.as_ref().is_some_and(|r| r.late.contains_key(&at)) =>
            {
                self.push(at, bits, start, pieces);
            }
            NewValue::Float(bits) => self.insert_late(at, start, LateValue::Float(bits)),
            NewValue::Histogram(bytes) => self.insert_late(at, start, LateValue::Histogram(bytes.into())),
        }
        Ok(if newest.is_none_or(|newest| newest < at) { Taken::InOrder } else { Taken::OutOfOrder })
    }

    /// Whether a time is behind the end of the stream.
    fn follows(&self, at: i64) -> bool {
        (self.stream.count() == 0 && self.blocks().is_empty()) || self.stream.last() < at
    }

    fn blocks(&self) -> &[Block] {
        self.rest.as_ref().map_or(&[], |rest| &rest.blocks)
    }

    fn push(&mut self, at: i64, bits: u64, start: i64, pieces: &mut Pieces) {
        let known = self.rest.as_ref().and_then(|rest| rest.starts.last()).map_or(0, |(_, start)| *start);
        if known != start {
            let from = self.streamed();
            self.rest.get_or_insert_default().starts.push((from, start));
        }
        self.stream.push(pieces, at, bits);
        if self.stream.count() >= BLOCK_SAMPLES {
            let before = self.streamed() - self.stream.count();
            let (first, last) = (self.stream.first(pieces), self.stream.last());
            let block = Block { first, last, before, bytes: self.stream.take(pieces) };
            self.rest.get_or_insert_default().blocks.push(block);
        }
    }

    fn insert_late(&mut self, at: i64, start: i64, value: LateValue) {
        self.rest.get_or_insert_default().late.insert(at, Late { start, value });
    }

    /// How many samples the streams have.
    fn streamed(&self) -> u32 {
        self.blocks().last().map_or(0, |b| b.before + BLOCK_SAMPLES) + self.stream.count()
    }

    fn same_at(&self, at: i64, value: NewValue<'_>, pieces: &Pieces) -> Option<bool> {
        if let Some(late) = self.rest.as_ref().and_then(|rest| rest.late.get(&at)) {
            return Some(late.value == value);
        }
        let bits = self.streamed_at(at, pieces)?;
        Some(value == NewValue::Float(bits))
    }

    fn streamed_at(&self, at: i64, pieces: &Pieces) -> Option<u64> {
        let row;
        let bytes = if self.stream.count() > 0 && self.stream.first(pieces) <= at {
            if at > self.stream.last() {
                return None;
            }
            if at == self.stream.last() {
                return Some(self.stream.last_bits());
            }
            row = self.stream.row(pieces);
            &row[..]
        } else {
            let blocks = self.blocks();
            let block = &blocks[..blocks.partition_point(|b| b.first <= at)].last()?;
            if at > block.last {
                return None;
            }
            &block.bytes
        };
        let mut found = None;
        unpack(bytes, |t, bits| {
            if t == at {
                found = Some(bits);
            }
            t < at
        });
        found
    }

    /// The time of the newest sample in the head.
    pub(crate) fn newest(&self) -> Option<i64> {
        let streamed = (self.streamed() > 0).then(|| self.stream.last());
        let late = self.rest.as_ref().and_then(|rest| rest.late.last_key_value()).map(|(at, _)| *at);
        streamed.max(late)
    }

    /// When it was last known to be active.
    pub(crate) fn last_active(&self) -> i64 {
        self.newest().unwrap_or(i64::MIN).max(self.carried)
    }

    /// The time of the oldest sample in the head.
    fn oldest(&self, pieces: &Pieces) -> Option<i64> {
        let streamed = match self.blocks().first() {
            Some(block) => Some(block.first),
            None => (self.stream.count() > 0).then(|| self.stream.first(pieces)),
        };
        let late = self.rest.as_ref().and_then(|rest| rest.late.first_key_value()).map(|(at, _)| *at);
        [streamed, late].into_iter().flatten().min()
    }

    /// The times between which the samples in the head lie.
    pub(crate) fn range(&self, pieces: &Pieces) -> Option<TimeRange> {
        TimeRange::new(Timestamp(self.oldest(pieces)?), Timestamp(self.newest()?))
    }

    /// How many chunks of memory the samples are in.
    pub(crate) fn chunks(&self) -> usize {
        let late = self.rest.as_ref().is_some_and(|rest| !rest.late.is_empty());
        self.blocks().len() + usize::from(self.stream.count() > 0) + usize::from(late)
    }

    fn newest_before(&mut self, past: Past<'_>) -> Option<i64> {
        let ask = || past.before.newest(&(past.labels)());
        *self.rest.get_or_insert_default().newest_before.get_or_insert_with(ask)
    }

    /// Adds the samples of a range to `into`, which is empty.
    pub(crate) fn read(&self, range: TimeRange, pieces: &Pieces, into: &mut SeriesSamples) {
        let (start, end) = (range.start().0, range.end().0);
        let late = self.rest.as_ref().map(|rest| rest.late.range(start..=end)).into_iter().flatten();
        let mut late = late.peekable();
        let starts: &[(u32, i64)] = self.rest.as_ref().map_or(&[], |rest| &rest.starts);
        let blocks = self.blocks().iter().map(|b| (b.first, b.last, b.before, &*b.bytes));
        let (first, last) = (self.stream.first(pieces), self.stream.last());
        let wanted = self.stream.count() > 0 && first <= end && start <= last;
        let row = wanted.then(|| self.stream.row(pieces));
        let open = row.as_deref().map(|row| (first, last, self.streamed() - self.stream.count(), row));
        for (first, last, before, bytes) in blocks.chain(open) {
            if last < start || end < first {
                continue;
            }
            let mut ordinal = before;
            unpack(bytes, |at, bits| {
                if at > end {
                    return false;
                }
                if at >= start {
                    while let Some((t, entry)) = late.next_if(|(t, _)| **t < at) {
                        put_late(into, *t, entry);
                    }
                    if late.peek().is_none_or(|(t, _)| **t != at) {
                        let change = starts.partition_point(|(from, _)| *from <= ordinal);
                        let begun = change.checked_sub(1).map_or(0, |i| starts[i].1);
                        into.push(at, f64::from_bits(bits), begun);
                    }
                }
                ordinal += 1;
                true
            });
        }
        for (at, entry) in late {
            put_late(into, *at, entry);
        }
    }
}

impl Series {
    /// How many samples of a range there are; one that replaces another counts as well.
    pub(crate) fn estimate(&self, range: TimeRange, pieces: &Pieces) -> Estimate {
        let (start, end) = (range.start().0, range.end().0);
        let mut found = Estimate::default();
        let blocks = self.blocks().iter().map(|b| (b.first, b.last, u64::from(BLOCK_SAMPLES), &*b.bytes));
        let (first, last) = (self.stream.first(pieces), self.stream.last());
        let cut = self.stream.count() > 0 && !(start <= first && last <= end);
        let row = if cut { self.stream.row(pieces) } else { Row::new() };
        let open = (self.stream.count() > 0).then(|| (first, last, u64::from(self.stream.count()), &row[..]));
        for (first, last, count, bytes) in blocks.chain(open) {
            if last < start || end < first {
                continue;
            }
            if start <= first && last <= end {
                found.floats += count;
                continue;
            }
            unpack(bytes, |at, _| {
                found.floats += u64::from(start <= at && at <= end);
                at < end
            });
        }
        let late = self.rest.as_ref().map(|rest| rest.late.range(start..=end)).into_iter().flatten();
        for (_, entry) in late {
            match &entry.value {
                LateValue::Float(_) => found.floats += 1,
                LateValue::Histogram(bytes) => {
                    found.histograms += 1;
                    found.histogram_bytes += unpacked_histograms(1, bytes.len());
                }
            }
        }
        found
    }
}

/// About the memory that histograms take which are so many bytes when they are packed: a byte for most buckets.
pub(crate) fn unpacked_histograms(count: u64, packed: usize) -> u64 {
    let fixed = count.saturating_mul(size_of::<Histogram>() as u64);
    fixed.saturating_add((packed as u64).saturating_mul(8))
}

fn put_late(into: &mut SeriesSamples, at: i64, late: &Late) {
    match &late.value {
        LateValue::Float(bits) => into.push(at, f64::from_bits(*bits), late.start),
        LateValue::Histogram(bytes) => {
            if let Some(histogram) = record::histogram(bytes) {
                let histogram = Arc::new(histogram);
                into.histograms.push(HistogramSample { timestamp: at, start: late.start, histogram });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Millis;

    const LAST: AppendPolicy = AppendPolicy { on_conflict: OnConflict::Last, out_of_order_window: None };

    /// A series by itself.
    struct Alone {
        series: Series,
        pieces: Pieces,
    }

    fn series() -> Alone {
        Alone { series: Series::new(SeriesId(7), 0, 0, List::NONE), pieces: Pieces::default() }
    }

    fn put(alone: &mut Alone, at: i64, value: f64, policy: AppendPolicy) -> Result<Taken, RejectReason> {
        let value = NewValue::Float(value.to_bits());
        alone.series.append(at, value, 0, policy, Past::NOTHING, &mut alone.pieces)
    }

    fn all(alone: &Alone, range: TimeRange) -> Vec<(i64, f64)> {
        let mut samples = SeriesSamples::default();
        alone.series.read(range, &alone.pieces, &mut samples);
        samples.timestamps.into_iter().zip(samples.values).collect()
    }

    #[test]
    fn samples_in_any_order_come_back_in_order_and_the_last_one_stays() {
        let mut s = series();
        let mut model = BTreeMap::new();
        let mut state = 12345_u64;
        for i in 0..5000_i64 {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let at = if state >> 60 == 0 { i64::from((state >> 40) as u32 % 60_000) } else { i * 10 };
            let value = f64::from((state >> 33) as u32 % 100) / 4.0;
            put(&mut s, at, value, LAST).unwrap();
            model.insert(at, value);
        }
        assert_eq!(all(&s, TimeRange::ALL), model.clone().into_iter().collect::<Vec<_>>());
        let range = TimeRange::new(Timestamp(777), Timestamp(33_333)).unwrap();
        assert_eq!(all(&s, range), model.range(777..=33_333).map(|(a, b)| (*a, *b)).collect::<Vec<_>>());
        assert_eq!(s.series.range(&s.pieces).unwrap().start().0, *model.first_key_value().unwrap().0);
        assert_eq!(s.series.range(&s.pieces).unwrap().end().0, *model.last_key_value().unwrap().0);
    }

    #[test]
    fn a_series_takes_little_besides_its_labels_and_samples() {
        assert!(size_of::<Series>() <= 80, "{}", size_of::<Series>());
    }

    #[test]
    fn duplicates_are_told_wherever_they_lie() {
        let mut s = series();
        for at in 0..1000 {
            assert_eq!(put(&mut s, at, 1.0, LAST), Ok(Taken::InOrder));
        }
        for at in [0, 1, 255, 256, 700, 999] {
            assert_eq!(put(&mut s, at, 1.0, LAST), Ok(Taken::Duplicate));
            assert_eq!(put(&mut s, at, 2.0, LAST), Ok(Taken::OutOfOrder));
            assert_eq!(put(&mut s, at, 2.0, LAST), Ok(Taken::Duplicate));
        }
        assert_eq!(all(&s, TimeRange::ALL).len(), 1000);
    }

    #[test]
    fn policies_reject() {
        let mut s = series();
        let reject = AppendPolicy { on_conflict: OnConflict::Reject, ..LAST };
        let window = AppendPolicy { out_of_order_window: Some(Millis(10)), ..LAST };
        put(&mut s, 100, 1.0, reject).unwrap();
        assert_eq!(put(&mut s, 100, 2.0, reject), Err(RejectReason::Conflict));
        assert_eq!(put(&mut s, 100, 1.0, reject), Ok(Taken::Duplicate));
        assert_eq!(put(&mut s, 89, 2.0, window), Err(RejectReason::OutOfOrder));
        assert_eq!(put(&mut s, 90, 2.0, window), Ok(Taken::OutOfOrder));
    }

    #[test]
    fn start_timestamps_hold_until_they_change() {
        let mut s = series();
        for at in 0..600_i64 {
            let value = NewValue::Float(1.0_f64.to_bits());
            s.series.append(at * 10, value, at / 100, LAST, Past::NOTHING, &mut s.pieces).unwrap();
        }
        s.series.append(5, NewValue::Float(0), 77, LAST, Past::NOTHING, &mut s.pieces).unwrap();
        let mut samples = SeriesSamples::default();
        s.series.read(TimeRange::ALL, &s.pieces, &mut samples);
        assert_eq!(samples.start(1), 77);
        assert!((2..601).all(|i| samples.start(i) == (i as i64 - 1) / 100));
    }
}
