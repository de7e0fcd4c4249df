//! The server under what may happen to a machine for hours; `make torture` makes the long forms, and one table of all.

mod full;
mod soak;

use std::time::Duration;

/// One line of the table: what was tried how often, what was lost or changed, and what did not open.
pub fn tell(test: &str, tried: i64, lost: usize, failed: usize, took: Duration) {
    println!("torture\t{test}\t{tried}\t{lost}\t{failed}\t{} s", took.as_secs());
}

/// Something else to say of a test, below the table.
fn note(test: &str, text: &str) {
    println!("torture-note\t{test}: {text}");
}
