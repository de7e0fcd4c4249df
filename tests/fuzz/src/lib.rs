//! What several targets need: random expressions, random samples, and whether two answers are the same.

pub mod compare;
pub mod data;
pub mod expression;

/// One of `all`; the first when there are no more bytes to choose by.
pub fn one_of<'a, T>(bytes: &mut libfuzzer_sys::arbitrary::Unstructured<'_>, all: &'a [T]) -> &'a T {
    bytes.choose(all).unwrap_or(&all[0])
}

/// A number below `end`; 0 when there are no more bytes to choose by.
pub fn below(bytes: &mut libfuzzer_sys::arbitrary::Unstructured<'_>, end: u32) -> u32 {
    bytes.int_in_range(0..=end - 1).unwrap_or(0)
}
