//! A pattern compiles or is refused; what compiles matches in linear time.
#![no_main]

use libfuzzer_sys::fuzz_target;
use luminate::model::regex::Regex;

fuzz_target!(|input: (&str, &str)| {
    let (pattern, text) = input;
    if let Ok(regex) = Regex::new(pattern) {
        let _ = regex.is_match(text);
    }
});
