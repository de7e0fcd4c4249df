//! Texts that are too deep, too long or not PromQL at all.

use proptest::prelude::*;

use super::*;

fn error(text: &str) -> String {
    parse(text, &ParserFeatures::default()).unwrap_err().message
}

/// Runs where there is half the stack that a thread of the server has.
fn on_a_small_stack(run: impl FnOnce() + Send + 'static) {
    on_a_stack(STACK_BYTES / 2, run);
}

fn on_a_stack(bytes: usize, run: impl FnOnce() + Send + 'static) {
    let thread = std::thread::Builder::new().stack_size(bytes);
    thread.spawn(run).expect("a thread starts").join().expect("nothing overflows");
}

#[test]
fn nesting_has_an_end() {
    on_a_small_stack(|| {
        let too_deep = "expression is nested more than 500 levels deep";
        for (open, inner, close) in [
            ("(", "1", ")"),
            ("-", "a", ""),
            ("abs(", "a", ")"),
            ("sum(", "a", ")"),
            ("a[1h:", "", ""),
            ("1^", "1", ""),
        ] {
            let text = format!("{}{inner}{}", open.repeat(10_000), close.repeat(10_000));
            let message = error(&text);
            if open != "a[1h:" {
                assert_eq!(message, too_deep, "{open}");
            }
        }
        assert_eq!(error(&format!("a[{}1{}]", "(".repeat(10_000), ")".repeat(10_000))), too_deep);
        assert_eq!(error(&format!("a[{}1]", "-".repeat(10_000))), too_deep);
        assert_eq!(error(&format!("a offset {}1{}", "(1+".repeat(10_000), ")".repeat(10_000))), too_deep);
    });
}

#[test]
fn chains_have_an_end() {
    on_a_small_stack(|| {
        let too_long = "expression has more than 1000 operations in a row";
        assert_eq!(error(&vec!["a"; 100_000].join(" + ")), too_long);
        assert_eq!(error(&format!("a{}", "[1h:1m]".repeat(100_000))), too_long);
        assert_eq!(error(&format!("a[{}]", vec!["1"; 100_000].join(" + "))), too_long);
    });
}

#[test]
fn what_is_just_not_too_deep_can_be_walked() {
    on_a_small_stack(|| {
        let chain = vec!["a"; 1_000].join(" + ");
        let nested = format!("{}a{}", "abs(".repeat(498), ")".repeat(498));
        let parens = format!("{}a{}", "(".repeat(498), ")".repeat(498));
        for text in [chain, nested, parens] {
            let expr = read(&text);
            assert_eq!(expr.to_string(), text);
            assert_eq!(expr.clone(), expr);
            assert_eq!(expr.value_type(), ValueType::InstantVector);
            assert!(format!("{expr:?}").len() > text.len());
            assert!(pretty::pretty(&expr).len() >= text.len());
        }
    });
}

#[test]
fn long_chains_take_little_of_a_stack() {
    // Nothing nests here: it is the checks, and letting go of the tree, that go down to the first.
    on_a_stack(STACK_BYTES / 8, || {
        for text in [vec!["a"; 1_000].join(" + "), vec!["1"; 1_000].join(" - ")] {
            let kind = if text.starts_with('1') { ValueType::Scalar } else { ValueType::InstantVector };
            assert_eq!(read(&text).value_type(), kind);
        }
    });
}

#[test]
fn patterns_take_no_more_together_than_they_may() {
    let large = |count: usize| vec![r#"a=~"(\\pL{30}|x)+""#; count].join(",");
    assert!(parse(&format!("m{{{}}}", large(1)), &ParserFeatures::default()).is_ok());
    let together = [
        format!("m{{{}}}", large(500)),
        vec![format!("m{{{}}}", large(1)); 500].join(" or "),
        format!("m{{{}}}", vec![r#"a=~"[xy]+z""#; 5_000].join(",")),
    ];
    for text in together {
        assert_eq!(error(&text), "regular expressions take more than 32 MiB when compiled");
    }
    // Lists of values are not compiled.
    assert!(
        parse(&format!("m{{{}}}", vec![r#"a=~"x|y""#; 5_000].join(",")), &ParserFeatures::default()).is_ok()
    );
}

#[test]
fn a_long_flat_query_is_fine() {
    let args = vec!["\"x\""; 20_000].join(", ");
    assert!(parse(&format!("label_join(a, \"b\", \"c\", {args})"), &ParserFeatures::default()).is_ok());
    let matchers = vec!["a=\"x\""; 20_000].join(",");
    assert!(parse(&format!("a{{{matchers}}}"), &ParserFeatures::default()).is_ok());
    assert!(parse(&" ".repeat(1 << 20), &ParserFeatures::default()).is_err());
}

/// Words to make nonsense of.
const WORDS: &[&str] = &[
    "foo",
    "a:b",
    "sum",
    "topk",
    "rate",
    "by",
    "without",
    "on",
    "ignoring",
    "group_left",
    "group_right",
    "bool",
    "offset",
    "@",
    "start",
    "end",
    "step",
    "range",
    "min_of",
    "max_of",
    "anchored",
    "smoothed",
    "fill",
    "fill_left",
    "and",
    "or",
    "unless",
    "atan2",
    "(",
    ")",
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    "[5m]",
    "[1h:1m]",
    "(foo)",
    "()",
    ",",
    ":",
    "::",
    "=",
    "==",
    "!=",
    "=~",
    "!~",
    "<",
    "</",
    ">/",
    "<=",
    "+",
    "-",
    "*",
    "/",
    "%",
    "^",
    "1",
    "5m",
    "0x1f",
    "1e5",
    "Inf",
    "NaN",
    "\"s\"",
    "'t'",
    "`u`",
    "{a=\"b\"}",
    "{\"m.n\",c!='d'}",
    "#",
    "\n",
    " ",
    "é",
    "\\",
    "!",
    "$",
    "abs",
    "time",
    "vector",
    "label_join",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_text_is_answered(text in "\\PC*") {
        let _ = parse(&text, &ParserFeatures::default());
        let _ = parse_selector(&text);
    }

    #[test]
    fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let text = String::from_utf8_lossy(&bytes);
        let _ = parse(&text, &ParserFeatures::default());
    }

    #[test]
    fn any_words_are_answered_and_print_back(
        words in prop::collection::vec(prop::sample::select(WORDS), 0..12),
        spaced in any::<bool>(),
    ) {
        let text = words.join(if spaced { " " } else { "" });
        if let Ok(expr) = parse(&text, &ParserFeatures::default()) {
            let printed = expr.to_string();
            prop_assert_eq!(read(&printed).to_string(), printed.clone(), "from {}", text);
            prop_assert_eq!(read(&pretty::pretty(&expr)).to_string(), printed, "from {}", text);
        }
    }

    #[test]
    fn a_tree_prints_back(text in query(4)) {
        let printed = read(&text).to_string();
        prop_assert_eq!(read(&printed).to_string(), printed.clone(), "from {}", text);
        prop_assert_eq!(read(&pretty::pretty(&read(&text))).to_string(), printed, "from {}", text);
    }
}

/// A query that gives an instant vector.
fn query(depth: u32) -> impl Strategy<Value = String> {
    let duration = prop_oneof![
        Just("5m".to_owned()),
        (1_u32..100_000).prop_map(|n| format!("{n}")),
        (1_u32..100_000).prop_map(|n| format!("{n}ms")),
        (1_u32..50).prop_map(|n| format!("{n}d12h")),
        Just("(step()+1)*2".to_owned()),
        Just("max_of(range(),0x10)".to_owned()),
        (1_u32..1000).prop_map(|n| format!("0.{n:03}1")),
    ];
    let name = prop_oneof!["[a-z_:][a-z0-9_:]{0,6}x", Just("sum".to_owned()), Just("{\"é.x\"}".to_owned())];
    let series =
        (name, prop::option::of("[ -~é]{0,5}"), any::<bool>()).prop_map(|(name, value, regex)| match value {
            Some(value) if !name.starts_with('{') => {
                let value = value.replace('\\', "\\\\").replace('"', "\\\"");
                format!("{name}{{l{}\"{value}\"}}", if regex { "!=" } else { "=" })
            }
            _ => name,
        });
    let modifiers = (prop::option::of(-5000_i32..5000), prop::option::of(prop::option::of(-1e9..1e9_f64)))
        .prop_map(|(offset, at)| {
            let offset = offset.map_or(String::new(), |o| format!(" offset {o}s"));
            let at = at.map_or(String::new(), |at| at.map_or(" @ end()".to_owned(), |t| format!(" @ {t}")));
            format!("{offset}{at}")
        });
    let range = (series.clone(), duration.clone(), modifiers.clone())
        .prop_map(|(series, duration, modifiers)| format!("{series}[{duration}]{modifiers}"));
    let leaf = prop_oneof![
        (series, modifiers.clone()).prop_map(|(series, modifiers)| format!("{series}{modifiers}")),
        range.prop_map(|range| format!("rate({range})")),
        any::<f64>().prop_map(|v| format!("vector({v})")),
    ];
    leaf.prop_recursive(depth, 32, 3, move |inner| {
        let op = prop::sample::select(vec![
            "+", "-", "*", "/", "%", "^", "atan2", "==", "!=", "<", "<=", ">", ">=", "</", ">/", "and", "or",
            "unless",
        ]);
        prop_oneof![
            (inner.clone(), op, inner.clone()).prop_map(|(a, op, b)| format!("{a} {op} {b}")),
            (inner.clone(), inner.clone())
                .prop_map(|(a, b)| format!("{a} * on (x, \"y.z\") group_left (q) fill_right (-1) {b}")),
            inner.clone().prop_map(|a| format!("({a})")),
            inner.clone().prop_map(|a| format!("-{a}")),
            inner.clone().prop_map(|a| format!("sum by (a, \"b c\") ({a})")),
            inner.clone().prop_map(|a| format!("topk without (a) (3, {a})")),
            (inner, duration.clone(), modifiers.clone())
                .prop_map(|(a, d, m)| format!("max_over_time(({a})[{d}:{d}]{m})")),
        ]
    })
}
