//! Any text is parsed or refused; what is parsed prints to a text that parses to the same print.
#![no_main]

use libfuzzer_sys::fuzz_target;
use luminate::promql::parse::{ParserFeatures, parse, parse_selector};

fuzz_target!(|text: &str| {
    let features = ParserFeatures::default();
    // A selector alone takes another path in.
    let _ = parse_selector(text);
    if let Ok(expr) = parse(text, &features) {
        let printed = expr.to_string();
        let again =
            parse(&printed, &features).unwrap_or_else(|e| panic!("{text:?} prints as {printed:?}: {e}"));
        assert_eq!(printed, again.to_string(), "{text:?}");
    }
});
