//! Which chunk a histogram's bucket stands on.
//!
//! A bucket counts what the one below it counts, and more. Written as what it is off that one, a column is two to three
//! times smaller; the series of a family come one after the other, or nearly, so the writer remembers them for a while.
//!
//! Reading a bucket needs what it stands on. To need few, buckets do not all stand on their neighbour: those of a family are
//! ranked from the lowest on, and a rank, written to the base of eight, stands on the one whose last digit above 0 is
//! less by one.
//!
//! ```text
//! rank    0    1    2    3  …  7    8    9   10  …  16   17
//! on      ·    0    1    2     6    0    8    9      8   16
//! ```
//!
//! So a bucket of a dozen needs about three others, one of a hundred eight, and seven eighths of them are the
//! difference to their neighbour. What is total (`+Inf`) stands on nothing, unless it comes late.
//!
//! Series come in the order of their labels, in which `10` comes before `2`, so a rank is only that among those that came before.
//! This, and forgetting, only costs space: whether a difference is smaller is tried, and what it is off is written down.

use std::{collections::VecDeque, sync::Arc};

use hashbrown::HashMap;

use super::super::chunk::{self, Damaged};
use crate::model::Labels;

/// Others that a chunk stands on at most, one on the other.
pub(super) const MAX_DEPTH: u32 = 50;

/// The label that says up to where a bucket counts.
const BOUND: &str = "le";

/// Bytes of buckets remembered. A family's buckets are as far apart as there are families that differ only in
/// labels that sort behind `le`.
const MAX_REMEMBERED: usize = 32 << 20;

/// Buckets remembered of a family; no histogram has as many.
const MOST_BUCKETS: usize = 512;

/// What a remembered bucket takes besides its chunks.
const MEMBER_BYTES: usize = 160;

/// A chunk shorter than this does not become much shorter.
const MIN_BODY: usize = 12;

/// The families of which series are coming.
#[derive(Debug, Default)]
pub(super) struct Families {
    /// The labels before `le`, which all that are remembered share.
    before: String,
    /// By the labels behind `le`: buckets sorted by what they count up to.
    families: HashMap<Arc<str>, Vec<Arc<Bucket>>, foldhash::fast::RandomState>,
    /// From the first that came: family, series and bytes.
    queue: VecDeque<(Arc<str>, u32, usize)>,
    bytes: usize,
}

/// A bucket that was written.
#[derive(Debug)]
struct Bucket {
    bound: f64,
    ordinal: u32,
    rank: u32,
    base: Option<Arc<Bucket>>,
    chunks: Vec<Arc<Footing>>,
}

/// A chunk that others can stand on.
#[derive(Debug)]
pub(super) struct Footing {
    times: u32,
    count: usize,
    body: Box<[u8]>,
    base: Option<Arc<Footing>>,
    /// How many others it stands on.
    depth: u32,
}

/// Where a series stands in its family.
#[derive(Debug)]
pub(super) struct Place {
    family: Arc<str>,
    bound: f64,
    rank: u32,
    base: Option<Arc<Bucket>>,
}

/// What was done to a chunk.
#[derive(Debug, Default)]
pub(super) struct Stood {
    /// How many series before its own the one is that it stands on; 0 if it stands by itself.
    pub(super) distance: u32,
    /// It, for others to stand on.
    pub(super) footing: Option<Arc<Footing>>,
}

impl Families {
    /// Where a series belongs that comes next, if it is a bucket.
    pub(super) fn place(&mut self, labels: &Labels) -> Option<Place> {
        let bound: f64 = labels.get(BOUND)?.parse().ok().filter(|bound: &f64| !bound.is_nan())?;
        let (mut before, mut behind) = (String::new(), String::new());
        labels.write_only(|name| name < BOUND, &mut before);
        labels.write_only(|name| name > BOUND, &mut behind);
        if before != self.before {
            self.clear();
            self.before = before;
        }
        let Some((family, buckets)) = self.families.get_key_value(behind.as_str()) else {
            return Some(Place { family: Arc::from(behind), bound, rank: 0, base: None });
        };
        if buckets.len() >= MOST_BUCKETS {
            return None;
        }
        let family = Arc::clone(family);
        let at = buckets.partition_point(|bucket| bucket.bound <= bound);
        let below = at.checked_sub(1).and_then(|below| buckets.get(below));
        let neighbour = below.or_else(|| buckets.get(at));
        let place =
            |rank, base: Option<&Arc<Bucket>>| Place { family, bound, rank, base: base.map(Arc::clone) };
        Some(match neighbour {
            // The lowest bucket may hold all there is. Those that do stand by themselves, however they are spelled.
            Some(total) if total.bound.is_infinite() => place(0, (!bound.is_infinite()).then_some(total)),
            Some(neighbour) => {
                let rank = neighbour.rank + 1;
                let wanted = rank_below(rank);
                let mut base = Some(neighbour);
                while let Some(on) = base.filter(|on| on.rank > wanted) {
                    base = on.base.as_ref();
                }
                place(rank, base)
            }
            None => place(0, None),
        })
    }

    /// Remembers a series that was written.
    pub(super) fn remember(&mut self, place: Place, ordinal: u32, chunks: Vec<Arc<Footing>>) {
        if chunks.is_empty() {
            return;
        }
        let Place { family, bound, rank, base } = place;
        let bytes = MEMBER_BYTES + chunks.iter().map(|chunk| chunk.body.len() + 64).sum::<usize>();
        let buckets = self.families.entry(Arc::clone(&family)).or_default();
        let at = buckets.partition_point(|bucket| bucket.bound <= bound);
        buckets.insert(at, Arc::new(Bucket { bound, ordinal, rank, base, chunks }));
        self.queue.push_back((family, ordinal, bytes));
        self.bytes += bytes;
        while self.bytes > MAX_REMEMBERED {
            let Some((family, ordinal, bytes)) = self.queue.pop_front() else { break };
            self.bytes -= bytes;
            if let Some(buckets) = self.families.get_mut(&family) {
                buckets.retain(|bucket| bucket.ordinal != ordinal);
                if buckets.is_empty() {
                    self.families.remove(&family);
                }
            }
        }
    }

    /// Forgets all, for what comes next belongs to none.
    pub(super) fn clear(&mut self) {
        self.before.clear();
        self.families.clear();
        self.queue.clear();
        self.bytes = 0;
    }
}

impl Place {
    /// Puts a shorter body in place of `body`, that of a chunk of series number `ordinal` with these values, if one can be
    /// made of what it is off another chunk with the same times.
    pub(super) fn stand(
        &self,
        ordinal: u32,
        times: u32,
        values: &[f64],
        starts: &[i64],
        body: &mut Vec<u8>,
    ) -> Stood {
        let Some(whole) = chunk::whole(values) else { return Stood::default() };
        let base = self.base.as_ref().and_then(|base| Some((base, base.chunk(times, values.len())?)));
        let mut stood = Stood::default();
        let (mut on, mut depth) = (None, 0);
        if let Some((bucket, footing)) = base.filter(|(_, on)| body.len() >= MIN_BODY && on.depth < MAX_DEPTH)
            && let Ok(numbers) = footing.numbers()
        {
            let mut difference = Vec::with_capacity(body.len());
            chunk::encode_difference_body(values, starts, &whole, &numbers, &mut difference);
            let distance = ordinal.saturating_sub(bucket.ordinal);
            if difference.len() + chunk::bytes::varint_size(distance.into()) < body.len() && distance > 0 {
                *body = difference;
                stood.distance = distance;
                (on, depth) = (Some(Arc::clone(footing)), footing.depth + 1);
            }
        }
        let footing = Footing { times, count: values.len(), body: body.as_slice().into(), base: on, depth };
        stood.footing = Some(Arc::new(footing));
        stood
    }
}

impl Bucket {
    fn chunk(&self, times: u32, count: usize) -> Option<&Arc<Footing>> {
        self.chunks.iter().find(|chunk| chunk.times == times && chunk.count == count)
    }
}

impl Footing {
    /// A chunk that stands by itself.
    pub(super) fn alone(times: u32, count: usize, body: &[u8]) -> Arc<Self> {
        Arc::new(Self { times, count, body: body.into(), base: None, depth: 0 })
    }

    /// The whole numbers of the chunk; an error if it is written in a way that others cannot stand on.
    fn numbers(&self) -> Result<Vec<i64>, Damaged> {
        let mut numbers = Vec::with_capacity(self.count);
        chunk::decode_numbers(&self.body, self.count, &mut numbers)?;
        let (mut at, mut one) = (self, Vec::new());
        while let Some(base) = &at.base {
            one.clear();
            chunk::decode_numbers(&base.body, base.count, &mut one)?;
            for (number, below) in numbers.iter_mut().zip(&one) {
                *number = number.wrapping_add(*below);
            }
            at = base;
        }
        Ok(numbers)
    }
}

/// The rank that a rank above 0 stands on: its last digit above 0, to the base of eight, less by one.
fn rank_below(rank: u32) -> u32 {
    let digit = rank.trailing_zeros() / 3;
    rank.saturating_sub(1 << (3 * digit.min(10)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_ranks_lead_down() {
        let on: Vec<u32> = (1..=17).map(rank_below).collect();
        assert_eq!(on, [0, 1, 2, 3, 4, 5, 6, 0, 8, 9, 10, 11, 12, 13, 14, 8, 16]);
        let depth = |mut rank| {
            let mut depth = 0;
            while rank > 0 {
                rank = rank_below(rank);
                depth += 1;
            }
            depth
        };
        assert_eq!((0..12).map(depth).sum::<u32>(), 38);
        assert_eq!((0..64).map(depth).max(), Some(14));
        assert!((0..1 << 16).map(depth).max() <= Some(MAX_DEPTH));
        assert_eq!(rank_below(u32::MAX), u32::MAX - 1);
    }
}
