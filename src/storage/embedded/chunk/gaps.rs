//! What was put together between the samples of a chunk of floats, in columns.

use super::{
    Damaged, GAPS, VERSION,
    bytes::{Reader, put_length},
    ended, floats, head,
    ints::{self, Shape},
};
use crate::storage::{
    Gap,
    gap::{greatest, least},
};

/// The least on the way is that of its ends.
const MIN_AT_END: i64 = 1;
/// The greatest on the way is that of its ends.
const MAX_AT_END: i64 = 2;
/// A counter lost nothing.
const NOTHING_LOST: i64 = 4;

/// Writes the gaps before each of a chunk's samples as a body. The first has none: no chunk is cut within a gap.
pub(crate) fn encode_gaps(values: &[f64], gaps: &[Gap], out: &mut Vec<u8>) {
    assert_eq!(values.len(), gaps.len(), "every sample has a gap before it, which may be none");
    assert!(gaps.first().is_none_or(|gap| gap.count == 0), "a chunk begins with no gap");
    let mut flags = Vec::new();
    let (mut sums, mut mins, mut maxs, mut losts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut resets, mut changes) = (Vec::new(), Vec::new());
    let there = || (1..gaps.len()).filter(|i| gaps[*i].count > 0);
    for i in there() {
        let (gap, [from, to]) = (&gaps[i], [values[i - 1], values[i]]);
        let same = |a: f64, b: f64| a.to_bits() == b.to_bits();
        let mut flag = 0;
        let mut unless = |bit: i64, holds: bool, value: f64, column: &mut Vec<f64>| {
            if holds {
                flag |= bit;
            } else {
                column.push(value);
            }
        };
        unless(MIN_AT_END, same(gap.min, least(from, to)), gap.min, &mut mins);
        unless(MAX_AT_END, same(gap.max, greatest(from, to)), gap.max, &mut maxs);
        unless(NOTHING_LOST, same(gap.lost, 0.0), gap.lost, &mut losts);
        flags.push(flag);
        sums.push(gap.sum);
        resets.push(gap.resets.cast_signed());
        changes.push(gap.changes.cast_signed());
    }
    let counts: Vec<i64> = gaps.iter().map(|gap| gap.count.cast_signed()).collect();
    out.push(VERSION << 4 | GAPS);
    for (column, shapes) in [
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

/// Reads the gaps of a chunk with these values, and adds one for each of them; after an error `into` is as before.
pub(crate) fn decode_gaps(body: &[u8], values: &[f64], into: &mut Vec<Gap>) -> Result<(), Damaged> {
    let before = into.len();
    let decoded = decode_columns(body, values, into);
    if decoded.is_err() {
        into.truncate(before);
    }
    decoded
}

fn decode_columns(body: &[u8], values: &[f64], into: &mut Vec<Gap>) -> Result<(), Damaged> {
    let mut reader = Reader::new(body);
    if head(&mut reader)? != GAPS {
        return Err(Damaged("chunk holds samples where gaps are expected"));
    }
    let counts = unsigned(&mut reader, values.len())?;
    if counts.first().is_some_and(|count| *count > 0) {
        return Err(Damaged("chunk begins with a gap"));
    }
    let gaps = counts.iter().filter(|count| **count > 0).count();
    let flags = unsigned(&mut reader, gaps)?;
    if flags.iter().any(|flag| flag & !(MIN_AT_END | MAX_AT_END | NOTHING_LOST).cast_unsigned() != 0) {
        return Err(Damaged("gap has an unknown flag"));
    }
    let without = |bit: i64| flags.iter().filter(|flag| *flag & bit.cast_unsigned() == 0).count();
    let resets = unsigned(&mut reader, gaps)?;
    let changes = unsigned(&mut reader, gaps)?;
    let sums = value_column(&mut reader, gaps)?;
    let mut mins = value_column(&mut reader, without(MIN_AT_END))?.into_iter();
    let mut maxs = value_column(&mut reader, without(MAX_AT_END))?.into_iter();
    let mut losts = value_column(&mut reader, without(NOTHING_LOST))?.into_iter();
    ended(&reader)?;
    let few = Damaged("column is shorter than its gaps");
    let mut at = 0;
    for (i, count) in counts.iter().enumerate() {
        if *count == 0 {
            into.push(Gap::default());
            continue;
        }
        let (from, to) = (values[i - 1], values[i]);
        let has = |bit: i64| flags[at] & bit.cast_unsigned() != 0;
        let min = if has(MIN_AT_END) { least(from, to) } else { mins.next().ok_or(few)? };
        let max = if has(MAX_AT_END) { greatest(from, to) } else { maxs.next().ok_or(few)? };
        let lost = if has(NOTHING_LOST) { 0.0 } else { losts.next().ok_or(few)? };
        let (sum, resets, changes) = (sums[at], resets[at], changes[at]);
        into.push(Gap { count: *count, sum, min, max, lost, resets, changes });
        at += 1;
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
        let values: Vec<f64> = (0..200).map(|i| f64::from(i * 100)).collect();
        let gap = |i: usize| match i % 2 {
            0 => Gap::default(),
            _ => Gap { count: 18, sum: 18.0, changes: 18, ..Gap::step(values[i - 1], values[i]) },
        };
        let gaps: Vec<Gap> = (0..200).map(gap).collect();
        let mut body = Vec::new();
        encode_gaps(&values, &gaps, &mut body);
        assert!(body.len() < 100, "{}", body.len());
    }

    proptest! {
        #[test]
        fn gaps_come_back(all in prop::collection::vec((any_value(), any_gap()), 0..300)) {
            let values: Vec<f64> = all.iter().map(|(value, _)| *value).collect();
            let mut gaps: Vec<Gap> = all.iter().map(|(_, gap)| *gap).collect();
            if let Some(first) = gaps.first_mut() {
                *first = Gap::default();
            }
            let (mut body, mut back) = (Vec::new(), Vec::new());
            encode_gaps(&values, &gaps, &mut body);
            decode_gaps(&body, &values, &mut back).unwrap();
            prop_assert_eq!(back.iter().map(bits).collect::<Vec<_>>(), gaps.iter().map(bits).collect::<Vec<_>>());
        }

        #[test]
        fn any_bytes_are_survived(mut body in prop::collection::vec(any::<u8>(), 1..300), count in 0_usize..2000) {
            body[0] = VERSION << 4 | GAPS;
            let mut into = Vec::new();
            let decoded = decode_gaps(&body, &vec![1.0; count], &mut into);
            prop_assert_eq!(into.len(), if decoded.is_ok() { count } else { 0 });
        }
    }
}
