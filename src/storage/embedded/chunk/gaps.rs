//! What was put together between the samples of a chunk of floats, in columns.

use super::{
    Damaged, GAPS, VERSION,
    bytes::{Reader, put_length, put_varint},
    ended, floats, head,
    ints::{self, Shape},
};
use crate::storage::{
    Between, Gap,
    gap::{greatest, least},
};

/// The least on the way is that of its ends.
const MIN_AT_END: i64 = 1;
/// The greatest on the way is that of its ends.
const MAX_AT_END: i64 = 2;
/// A counter lost nothing.
const NOTHING_LOST: i64 = 4;

/// Writes gaps as a body; their ends are among the chunk's samples.
///
/// # Panics
///
/// If one of them is not.
pub(crate) fn encode_gaps(timestamps: &[i64], values: &[f64], gaps: &[Between], out: &mut Vec<u8>) {
    let (mut ends, mut reaches, mut counts, mut flags) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut sums, mut mins, mut maxs, mut losts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut resets, mut changes) = (Vec::new(), Vec::new());
    for Between { from, to, gap } in gaps {
        let number = |at: &i64| timestamps.binary_search(at).expect("the writer looked for it");
        let (from, to) = (number(from), number(to));
        let least_at_ends = least(values[from], values[to]);
        let greatest_at_ends = greatest(values[from], values[to]);
        let same = |a: f64, b: f64| a.to_bits() == b.to_bits();
        let mut flag = 0;
        let mut unless = |bit: i64, holds: bool, value: f64, column: &mut Vec<f64>| {
            if holds {
                flag |= bit;
            } else {
                column.push(value);
            }
        };
        unless(MIN_AT_END, same(gap.min, least_at_ends), gap.min, &mut mins);
        unless(MAX_AT_END, same(gap.max, greatest_at_ends), gap.max, &mut maxs);
        unless(NOTHING_LOST, same(gap.lost, 0.0), gap.lost, &mut losts);
        ends.push(to as i64);
        reaches.push((to - from) as i64);
        counts.push(gap.count.cast_signed());
        flags.push(flag);
        sums.push(gap.sum);
        resets.push(gap.resets.cast_signed());
        changes.push(gap.changes.cast_signed());
    }
    out.push(VERSION << 4 | GAPS);
    put_varint(out, gaps.len() as u64);
    for (column, shapes) in [
        (ends, &[Shape::Delta][..]),
        (reaches, &[Shape::Flat][..]),
        (counts, &[Shape::Flat, Shape::Delta][..]),
        (flags, &[Shape::Flat][..]),
        (resets, &[Shape::Flat][..]),
        (changes, &[Shape::Flat, Shape::Delta][..]),
    ] {
        let mut bytes = Vec::new();
        ints::encode(&column, shapes, &mut bytes);
        put_column(&bytes, out);
    }
    for column in [sums, mins, maxs, losts] {
        let mut bytes = Vec::new();
        floats::encode(&column, &mut bytes);
        put_column(&bytes, out);
    }
}

/// Reads the gaps of a chunk with these samples, and adds them; after an error `into` is as before.
pub(crate) fn decode_gaps(
    body: &[u8],
    timestamps: &[i64],
    values: &[f64],
    into: &mut Vec<Between>,
) -> Result<(), Damaged> {
    let before = into.len();
    let decoded = decode_columns(body, timestamps, values, into);
    if decoded.is_err() {
        into.truncate(before);
    }
    decoded
}

/// Reads the numbers of the samples at the ends of the gaps of a chunk of so many samples.
pub(crate) fn decode_gap_ends(body: &[u8], samples: usize) -> Result<Vec<(usize, usize)>, Damaged> {
    gap_ends(&mut Reader::new(body), samples)
}

fn gap_ends(reader: &mut Reader<'_>, samples: usize) -> Result<Vec<(usize, usize)>, Damaged> {
    if head(reader)? != GAPS {
        return Err(Damaged("chunk holds samples where gaps are expected"));
    }
    let count = reader.varint_usize()?;
    if count >= samples {
        return Err(Damaged("chunk has more gaps than samples"));
    }
    let (ends, reaches) = (unsigned(reader, count)?, unsigned(reader, count)?);
    let mut last = 0;
    let pair = |(to, reach): (u64, u64)| {
        let wrong = Damaged("gap lies between no two samples");
        let to = usize::try_from(to).ok().filter(|to| *to < samples).ok_or(wrong)?;
        let from = usize::try_from(reach).ok().and_then(|reach| to.checked_sub(reach)).ok_or(wrong)?;
        if from >= to || from < last {
            return Err(wrong);
        }
        last = to;
        Ok((from, to))
    };
    ends.into_iter().zip(reaches).map(pair).collect()
}

fn decode_columns(
    body: &[u8],
    timestamps: &[i64],
    values: &[f64],
    into: &mut Vec<Between>,
) -> Result<(), Damaged> {
    let mut reader = Reader::new(body);
    let ends = gap_ends(&mut reader, timestamps.len())?;
    let counts = unsigned(&mut reader, ends.len())?;
    if counts.contains(&0) {
        return Err(Damaged("gap stands for nothing"));
    }
    let flags = unsigned(&mut reader, ends.len())?;
    if flags.iter().any(|flag| flag & !(MIN_AT_END | MAX_AT_END | NOTHING_LOST).cast_unsigned() != 0) {
        return Err(Damaged("gap has an unknown flag"));
    }
    let without = |bit: i64| flags.iter().filter(|flag| *flag & bit.cast_unsigned() == 0).count();
    let resets = unsigned(&mut reader, ends.len())?;
    let changes = unsigned(&mut reader, ends.len())?;
    let sums = value_column(&mut reader, ends.len())?;
    let mut mins = value_column(&mut reader, without(MIN_AT_END))?.into_iter();
    let mut maxs = value_column(&mut reader, without(MAX_AT_END))?.into_iter();
    let mut losts = value_column(&mut reader, without(NOTHING_LOST))?.into_iter();
    ended(&reader)?;
    let few = Damaged("column is shorter than its gaps");
    for (at, (from, to)) in ends.into_iter().enumerate() {
        let has = |bit: i64| flags[at] & bit.cast_unsigned() != 0;
        let ends = (values[from], values[to]);
        let min = if has(MIN_AT_END) { least(ends.0, ends.1) } else { mins.next().ok_or(few)? };
        let max = if has(MAX_AT_END) { greatest(ends.0, ends.1) } else { maxs.next().ok_or(few)? };
        let lost = if has(NOTHING_LOST) { 0.0 } else { losts.next().ok_or(few)? };
        let (count, sum, resets, changes) = (counts[at], sums[at], resets[at], changes[at]);
        let gap = Gap { count, sum, min, max, lost, resets, changes };
        into.push(Between { from: timestamps[from], to: timestamps[to], gap });
    }
    Ok(())
}

fn put_column(bytes: &[u8], out: &mut Vec<u8>) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// Reads a column of numbers that are not negative.
fn unsigned(reader: &mut Reader<'_>, count: usize) -> Result<Vec<u64>, Damaged> {
    let length = reader.varint_usize()?;
    let mut column = Reader::new(reader.take(length)?);
    let mut numbers = Vec::new();
    ints::decode(&mut column, count, &mut numbers)?;
    ended(&column)?;
    let unsigned = |number: i64| u64::try_from(number).map_err(|_| Damaged("gap has a negative count"));
    numbers.into_iter().map(unsigned).collect()
}

fn value_column(reader: &mut Reader<'_>, count: usize) -> Result<Vec<f64>, Damaged> {
    let length = reader.varint_usize()?;
    let bytes = reader.take(length)?;
    if count == 0 && length > 0 {
        return Err(Damaged("column is longer than its gaps"));
    }
    let mut values = Vec::new();
    floats::decode(bytes, count, &mut values)?;
    Ok(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn bits(gap: &Gap) -> [u64; 7] {
        let floats = [gap.sum, gap.min, gap.max, gap.lost].map(f64::to_bits);
        [gap.count, floats[0], floats[1], floats[2], floats[3], gap.resets, gap.changes]
    }

    fn any_value() -> impl Strategy<Value = f64> {
        prop_oneof![
            (-1000_i64..1000).prop_map(|n| n as f64),
            (-1000_i64..1000).prop_map(|n| n as f64 / 100.0),
            any::<u64>().prop_map(f64::from_bits),
        ]
    }

    fn any_gap() -> impl Strategy<Value = Gap> {
        let values = (any_value(), any_value(), any_value(), any_value());
        let counts = (prop_oneof![Just(0), 1_u64..50], 0_u64..50, 0_u64..50);
        (counts, values).prop_map(|((count, resets, changes), (sum, min, max, lost))| {
            if count == 0 { Gap::default() } else { Gap { count, sum, min, max, lost, resets, changes } }
        })
    }

    #[test]
    fn what_follows_from_the_ends_takes_next_to_nothing() {
        let times: Vec<i64> = (0..200).map(|i| i * 1000).collect();
        let values: Vec<f64> = (0..200).map(|i| f64::from(i * 100)).collect();
        let gap = |i: usize| {
            let gap = Gap { count: 18, sum: 18.0, changes: 18, ..Gap::step(values[i - 1], values[i]) };
            Between { from: times[i - 1], to: times[i], gap }
        };
        let gaps: Vec<Between> = (1..200).step_by(2).map(gap).collect();
        let mut body = Vec::new();
        encode_gaps(&times, &values, &gaps, &mut body);
        assert!(body.len() < 100, "{}", body.len());
    }

    proptest! {
        #[test]
        fn gaps_come_back(all in prop::collection::vec((any_value(), any_gap(), 0_usize..4), 0..300)) {
            let times: Vec<i64> = (0..all.len() as i64).collect();
            let values: Vec<f64> = all.iter().map(|(value, ..)| *value).collect();
            let (mut gaps, mut from) = (Vec::new(), 0);
            for (to, (_, gap, over)) in all.iter().enumerate() {
                // With samples that came later in some of them.
                if to > from + over && gap.count > 0 {
                    gaps.push(Between { from: times[from], to: times[to], gap: *gap });
                    from = to;
                }
            }
            let (mut body, mut back) = (Vec::new(), Vec::new());
            encode_gaps(&times, &values, &gaps, &mut body);
            if times.is_empty() {
                prop_assert!(decode_gaps(&body, &times, &values, &mut back).is_err());
                return Ok(());
            }
            decode_gaps(&body, &times, &values, &mut back).unwrap();
            let all_of = |all: &[Between]| all.iter().map(|b| (b.from, b.to, bits(&b.gap))).collect::<Vec<_>>();
            prop_assert_eq!(all_of(&back), all_of(&gaps));
            let ends = decode_gap_ends(&body, times.len()).unwrap();
            prop_assert_eq!(ends.len(), gaps.len());
            prop_assert!(ends.iter().zip(&gaps).all(|((a, b), gap)| (times[*a], times[*b]) == (gap.from, gap.to)));
        }

        #[test]
        fn any_bytes_are_survived(mut body in prop::collection::vec(any::<u8>(), 1..300), count in 0_i64..2000) {
            body[0] = VERSION << 4 | GAPS;
            let mut into = Vec::new();
            let times: Vec<i64> = (0..count).collect();
            let decoded = decode_gaps(&body, &times, &vec![1.0; times.len()], &mut into);
            prop_assert!(decoded.is_ok() || into.is_empty());
            prop_assert!(into.windows(2).all(|pair| pair[0].to <= pair[1].from));
        }
    }
}
