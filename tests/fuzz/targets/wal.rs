//! Any bytes are read as a segment of the log, or as a record, or refused.
#![no_main]

use libfuzzer_sys::fuzz_target;
use luminate::storage::embedded::wal;

fuzz_target!(|bytes: &[u8]| {
    let _ = wal::survey(bytes);
    if let Some((kind, payload)) = bytes.split_first() {
        let _ = wal::is_record(kind & 0x07, payload);
    }
});
