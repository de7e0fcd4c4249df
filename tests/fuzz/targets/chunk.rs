//! Any bytes decode as a chunk or are refused; what samples encode to decodes to the same bits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use luminate::storage::{SeriesSamples, embedded::chunk};

fuzz_target!(|input: (u16, &[u8], &[u8], Vec<(i64, u64)>)| {
    let (count, times, body, samples) = input;
    let mut into = SeriesSamples::default();
    let _ = decode(count.into(), times, body, &mut into);
    into.clear();
    // Times that any bytes give are rare; a body is tried against some of our own, too.
    let timestamps: Vec<i64> = (0..i64::from(count)).collect();
    let _ = chunk::decode_histogram_body(body, &timestamps, &mut into);
    into.clear();
    into.timestamps = timestamps;
    let _ = chunk::decode_float_body(body, 0, &mut into);

    let mut samples = samples;
    samples.sort_unstable();
    samples.dedup_by_key(|(at, _)| *at);
    if samples.is_empty() {
        return;
    }
    let timestamps: Vec<i64> = samples.iter().map(|(at, _)| *at).collect();
    let values: Vec<f64> = samples.iter().map(|(_, bits)| f64::from_bits(*bits)).collect();
    let (mut times, mut body) = (Vec::new(), Vec::new());
    chunk::encode_times(&timestamps, &mut times);
    chunk::encode_float_body(&values, &[], &mut body);
    into.clear();
    decode(samples.len(), &times, &body, &mut into).expect("what was encoded decodes");
    assert_eq!(into.timestamps, timestamps);
    assert!(into.values.iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits()));
});

fn decode(count: usize, times: &[u8], body: &[u8], into: &mut SeriesSamples) -> Result<(), chunk::Damaged> {
    chunk::decode_times(times, count, &mut into.timestamps)?;
    chunk::decode_float_body(body, 0, into)
}
