//! Any bytes decode as a chunk or are refused; what samples encode to decodes to the same bits.
#![no_main]

use libfuzzer_sys::fuzz_target;
use luminate::storage::{SeriesSamples, embedded::chunk};

fuzz_target!(|input: (&[u8], Vec<(i64, u64)>)| {
    let (bytes, samples) = input;
    let mut into = SeriesSamples::default();
    let _ = chunk::decode_floats(bytes, &mut into);
    into.clear();
    let _ = chunk::decode_histograms(bytes, &mut into);
    let mut samples = samples;
    samples.sort_unstable();
    samples.dedup_by_key(|(at, _)| *at);
    if samples.is_empty() {
        return;
    }
    let times: Vec<i64> = samples.iter().map(|(at, _)| *at).collect();
    let values: Vec<f64> = samples.iter().map(|(_, bits)| f64::from_bits(*bits)).collect();
    let mut encoded = Vec::new();
    chunk::encode_floats(&times, &values, &[], &mut encoded);
    into.clear();
    chunk::decode_floats(&encoded, &mut into).expect("what was encoded decodes");
    assert_eq!(into.timestamps, times);
    assert!(into.values.iter().zip(&values).all(|(a, b)| a.to_bits() == b.to_bits()));
});
