use proptest::prelude::*;

use super::*;

#[track_caller]
fn check(pattern: &str, matches: &[&str], not: &[&str]) {
    let regex = Regex::new(pattern).unwrap_or_else(|error| panic!("{pattern}: {error}"));
    for text in matches {
        assert!(regex.is_match(text), "{pattern} should match {text:?}");
        assert!(text.starts_with(regex.prefix()), "{pattern} has the wrong prefix {:?}", regex.prefix());
    }
    for text in not {
        assert!(!regex.is_match(text), "{pattern} should not match {text:?}");
    }
}

#[track_caller]
fn refuse(pattern: &str, what: &str) {
    match Regex::new(pattern) {
        Ok(_) => panic!("{pattern} should not compile"),
        Err(error) if pattern.len() < 100 => {
            assert_eq!(error.to_string(), format!("error parsing regexp: {what}"), "{pattern}");
        }
        Err(error) => assert!(error.to_string().ends_with(what), "{:.100}", error),
    }
}

#[test]
fn the_whole_text_has_to_match() {
    check("a", &["a"], &["", "ab", "ba"]);
    check("a|bc", &["a", "bc"], &["ac", "abc"]);
    check("", &[""], &["a"]);
    check("a*", &["", "aaa"], &["ab"]);
    check("(a|b)c.*", &["ac", "bcd"], &["c", "xac"]);
    check("^a$", &["a"], &["^a$", "a\n"]);
    check("(^a$)|^bc$", &["a", "bc"], &["a\n", ""]);
    check("a^b", &[], &["ab", "a", "b"]);
    check("\\Aab\\z", &["ab"], &["a"]);
}

#[test]
fn the_dialect_is_re2s() {
    // Classes are ASCII, and \s leaves out the vertical tab.
    check("\\d+", &["123"], &["٣"]);
    check("\\w", &["a", "_", "Z"], &["é", "-"]);
    check("\\W", &["é", "-"], &["a"]);
    check("\\s", &[" ", "\t", "\n", "\x0c", "\r"], &["\x0b", "\u{a0}"]);
    check("[[:space:]]", &["\x0b", " "], &["\u{a0}"]);
    check("é\\b.*a", &["éa"], &["é a"]);
    check("aé\\B", &["aé"], &[]);
    // `.` takes newlines, unless told otherwise.
    check("a.b", &["a\nb", "aéb"], &["ab"]);
    check("(?-s)a.b", &["axb"], &["a\nb"]);
    check("(?-s:a.)b.", &["axb\n"], &["a\nb\n"]);
    check("(?m)a$\\n^b", &["a\nb"], &["ab"]);
    check("a$\\n^b", &[], &["a\nb"]);
    // Quoting.
    check("\\Qa.b*\\E+", &["a.b*", "a.b**"], &["axb", "a.b"]);
    check("\\Q(a", &["(a"], &["a"]);
    check("a\\Q\\E*", &["", "aa"], &["a*"]);
    // Escapes.
    check("\\101\\x41\\x{41}\\0\\07\\a\\f\\t\\n\\r\\v", &["AAA\0\x07\x07\x0c\t\n\r\x0b"], &[]);
    check("\\_\\-\\.\\/", &["_-./"], &[]);
    check("\\x{1F600}", &["😀"], &[]);
    check("\\x{d800}|a", &["a"], &["\u{fffd}"]);
    check("[\\x{d000}-\\x{e001}]", &["\u{d7ff}", "\u{e000}"], &["\u{e002}"]);
    // Braces that count nothing.
    check("a{", &["a{"], &["a"]);
    check("a{,2}", &["a{,2}"], &["a", "aa"]);
    check("a{1,b}", &["a{1,b}"], &["a"]);
    check("a{01}", &["a{01}"], &["a"]);
    check("{", &["{"], &[]);
    check("a{2}", &["aa"], &["a", "aaa"]);
    check("a{2,}", &["aa", "aaaa"], &["a"]);
    check("a{2,3}?", &["aa", "aaa"], &["a", "aaaa"]);
    check("a{0}b", &["b"], &["ab"]);
    // What Rust gives a meaning and RE2 does not.
    check("\\<a\\>", &["<a>"], &["a"]);
    check("[a&&b]+", &["a&b"], &["c"]);
    check("[+--]", &["+", ",", "-"], &["a"]);
    check("[a[b]]", &["a]", "[]", "b]"], &["a", "[b]"]);
    check("[a~~b]+", &["a~b"], &[]);
    check("# a", &["# a"], &[]);
}

#[test]
fn classes() {
    check("[]a]+", &["]a"], &[""]);
    check("[^]a]", &["b", "\n"], &["]", "a"]);
    check("[a-]+", &["a-"], &["b"]);
    check("[-a]+", &["a-"], &["b"]);
    check("[a-c-e]+", &["abc-e"], &["d"]);
    check("[\\]\\-\\d]+", &["]-5"], &["a"]);
    check("[[:alpha:][:^digit:]]", &["a", "é"], &["1"]);
    check("[[:word:]-]+", &["a_1-"], &["é"]);
    check("[[:a]+", &["[:a"], &["b"]);
    check("[^\\w]", &["é"], &["a"]);
    check("[^\\x00-\\x{10FFFF}]|a", &["a"], &["b", ""]);
    check("\\pN+", &["1٣Ⅷ"], &["a"]);
    check("\\PN", &["a"], &["1"]);
    check("\\p{^N}", &["a"], &["1"]);
    check("\\P{^N}", &["1"], &["a"]);
    check("\\p{Greek}\\p{Lu}[\\p{Han}x]", &["αA漢", "αZx"], &["aA漢"]);
    check("\\p{Any}", &["a", "漢"], &[""]);
    check("\\p{Cs}|x", &["x"], &["a"]);
    check("\\p{uppercase letter}|\\p{Decimal_Number}", &["A", "1"], &["a"]);
}

#[test]
fn flags() {
    check("(?i)straße-K", &["STRAßE-k", "straße-\u{212a}"], &["straße"]);
    check("(?i:a)b", &["Ab", "ab"], &["AB"]);
    check("((?i)a)b", &["Ab"], &["aB"]);
    check("a(?i)b|c", &["aB", "C"], &["AB"]);
    check("(?i)[a-c]+", &["aBC"], &["d"]);
    check("(?i)[^a]", &["b"], &["a", "A"]);
    check("(?i)\\w", &["\u{17f}", "\u{212a}"], &["é"]);
    check("(?i)\\W", &["é"], &["\u{17f}"]);
    check("(?i)\\p{Lu}", &["a", "A"], &["1"]);
    check("(?i-i)a", &["a"], &["A"]);
    check("(?U)a+", &["aa"], &[]);
    check("(?)a", &["a"], &[]);
    check("(?is-m:a.)", &["A\n"], &[]);
}

#[test]
fn errors_are_gos() {
    refuse("a(", "missing closing ): `a(`");
    refuse("((a)", "missing closing ): `((a)`");
    refuse("a)", "unexpected ): `a)`");
    refuse("a)|(b", "unexpected ): `a)|(b`");
    refuse("[a", "missing closing ]: `[a`");
    refuse("x[", "missing closing ]: `[`");
    refuse("[]", "missing closing ]: `[]`");
    refuse("[^]", "missing closing ]: `[^]`");
    refuse("[a-", "missing closing ]: `[a-`");
    refuse("*", "missing argument to repetition operator: `*`");
    refuse("a|*", "missing argument to repetition operator: `*`");
    refuse("(+?b)", "missing argument to repetition operator: `+?`");
    refuse("{2}", "missing argument to repetition operator: `{2}`");
    refuse("(?i)?", "missing argument to repetition operator: `?`");
    refuse("a**", "invalid nested repetition operator: `**`");
    refuse("a*+b", "invalid nested repetition operator: `*+`");
    refuse("a??*", "invalid nested repetition operator: `??*`");
    refuse("a{2}{3}", "invalid nested repetition operator: `{2}{3}`");
    refuse("a{1001}", "invalid repeat count: `{1001}`");
    refuse("a{99999999999}", "invalid repeat count: `{99999999999}`");
    refuse("a{3,2}", "invalid repeat count: `{3,2}`");
    refuse("(a{100}){11}", "invalid repeat count: `{11}`");
    refuse("((a{10}){10}|b){11}?", "invalid repeat count: `{11}?`");
    refuse("a\\", "trailing backslash at end of expression: ``");
    refuse("\\y", "invalid escape sequence: `\\y`");
    refuse("\\Z", "invalid escape sequence: `\\Z`");
    refuse("\\C", "invalid escape sequence: `\\C`");
    refuse("\\1", "invalid escape sequence: `\\1`");
    refuse("\\8", "invalid escape sequence: `\\8`");
    refuse("\\é", "invalid escape sequence: `\\é`");
    refuse("\\x1z", "invalid escape sequence: `\\x1z`");
    refuse("\\x{}", "invalid escape sequence: `\\x{}`");
    refuse("\\x{110000}", "invalid escape sequence: `\\x{110000`");
    refuse("\\x{12", "invalid escape sequence: `\\x{12`");
    refuse("[\\b]", "invalid escape sequence: `\\b`");
    refuse("[a-\\d]", "invalid escape sequence: `\\d`");
    refuse("[z-a]", "invalid character class range: `z-a`");
    refuse("[[:foo:]]", "invalid character class range: `[:foo:]`");
    refuse("\\p{Foo}", "invalid character class range: `\\p{Foo}`");
    refuse("\\p{Alphabetic}", "invalid character class range: `\\p{Alphabetic}`");
    refuse("\\p{sc=Greek}", "invalid character class range: `\\p{sc=Greek}`");
    refuse("\\p{Greek", "invalid character class range: `\\p{Greek`");
    refuse("\\px", "invalid character class range: `\\px`");
    refuse("\\p", "invalid character class range: `\\p`");
    refuse("(?x)a", "invalid or unsupported Perl syntax: `(?x`");
    refuse("(?i", "invalid or unsupported Perl syntax: `(?i`");
    refuse("(?i-)", "invalid or unsupported Perl syntax: `(?i-)`");
    refuse("(?=a)", "invalid or unsupported Perl syntax: `(?=`");
    refuse("(?!a)", "invalid or unsupported Perl syntax: `(?!`");
    refuse("(?<=a)", "invalid named capture: `(?<=a)`");
    refuse("(?P<n", "invalid named capture: `(?P<n`");
    refuse("(?P<>a)", "invalid named capture: `(?P<>`");
    refuse("(?<é>a)", "invalid named capture: `(?<é>`");
    refuse("(?P=n)", "invalid or unsupported Perl syntax: `(?P`");
}

#[test]
fn patterns_of_death_are_refused_or_harmless() {
    let nested = |depth: usize| format!("{}a{}", "(".repeat(depth), ")".repeat(depth));
    check(&nested(990), &["a"], &["b"]);
    refuse(&nested(1000), &format!("expression nests too deeply: `{}`", nested(1000)));
    let open = "(".repeat(100_000);
    refuse(&open, &format!("missing closing ): `{open}`"));
    let starred = format!("{}a{}", "(?:".repeat(1000), ")*".repeat(1000));
    refuse(&starred, &format!("expression nests too deeply: `{starred}`"));
    // Groups that do not capture leave nothing to be high.
    check(&format!("{}a{}", "(?:".repeat(5000), ")".repeat(5000)), &["a"], &[]);

    let large = "(\\pL|\\pN){1000}";
    refuse(large, &format!("expression too large: `{large}`"));
    let large = "\\pL".repeat(1000);
    refuse(&large, &format!("expression too large: `{large}`"));
    let large = format!("[{}]", "\\pL".repeat(100_000));
    refuse(&large, &format!("expression too large: `{large}`"));
    let large = "()".repeat(200_000);
    refuse(&large, &format!("expression too large: `{large}`"));

    let text = "a".repeat(20_000);
    check("(a*)*b", &[], &[&text]);
    check("(a|a)*(a|aa)*c", &[], &[&text]);
    check("(x+x+)+y", &[], &[&"x".repeat(20_000)]);
    check("(.*)(.*)(.*)(.*)(.*)[^a]", &[], &[&text]);
    check("a{0,1000}a{1000}", &[&text[..1500]], &[&text[..999], &text[..2001]]);
}

#[test]
fn lists_are_found() {
    let set = |pattern: &str| Regex::new(pattern).unwrap().set_matches().map(<[String]>::to_vec);
    let list = |texts: &[&str]| Some(texts.iter().map(|&t| t.to_owned()).collect::<Vec<_>>());
    assert_eq!(set("a"), list(&["a"]));
    assert_eq!(set(""), list(&[""]));
    assert_eq!(set("c|a|b|a"), list(&["a", "b", "c"]));
    assert_eq!(set("a|"), list(&["", "a"]));
    assert_eq!(set("(a|b)c"), list(&["ac", "bc"]));
    assert_eq!(set("x(?:a|b)(c|d)?"), list(&["xa", "xac", "xad", "xb", "xbc", "xbd"]));
    assert_eq!(set("a\\.b|c\\-d"), list(&["a.b", "c-d"]));
    assert_eq!(set("^(?:a|^b$)$"), None);
    assert_eq!(set("^a|b$"), list(&["a", "b"]));
    assert_eq!(set("node[0-2]"), list(&["node0", "node1", "node2"]));
    assert_eq!(set("(?i)1|2"), list(&["1", "2"]));
    assert_eq!(set("(?i)a"), list(&["A", "a"]));
    assert_eq!(set("[0-9]{2}"), None);
    assert_eq!(set("a.*"), None);
    assert_eq!(set("\\w\\w"), None);
    assert_eq!(set("a+"), None);

    let many: Vec<String> = (0..10_000).map(|i| format!("node-{i}\\.example")).collect();
    let regex = Regex::new(&many.join("|")).unwrap();
    assert_eq!(regex.set_matches().unwrap().len(), 10_000);
    assert_eq!(regex.prefix(), "node-");
    assert!(regex.is_match("node-77.example") && !regex.is_match("node-77xexample"));
    // 2^20 texts are no list.
    assert_eq!(set(&"(a|b)".repeat(20)), None);
    assert_eq!(set(&vec!["[a-z]{1}[a-z]"; 2000].join("|")), None);
}

#[test]
fn gaps_are_found() {
    check(".*", &["", "a\nb"], &[]);
    check("(.*)", &["", "a"], &[]);
    check(".+", &["a", "é"], &[""]);
    check("prod-.*", &["prod-", "prod-é"], &["prod"]);
    check("prod-.+", &["prod-1"], &["prod-"]);
    check(".*_total", &["_total", "a_total"], &["a_totals"]);
    check(".*err.*", &["err", "an error"], &["er"]);
    check(".+err.+", &["xerrx", "errerrerr"], &["err", "xerr", "errx"]);
    check("a.*b.*c", &["abc", "a-b-b-c"], &["ac", "acb", "a-c"]);
    check("ab.*ba", &["abba", "ab-ba"], &["aba"]);
    check("a.+.*.+b", &["a12b", "aééb"], &["a1b", "aéb"]);
    check("a(?:.*)(b.*)?", &["a", "axb"], &["b"]);
    check("(?-s).*", &["a"], &["a\n"]);
    let regex = |pattern: &str| Regex::new(pattern).unwrap();
    assert!(regex(".*").is_match_all() && regex("^(.*)$").is_match_all() && regex(".*.*").is_match_all());
    assert!(!regex(".+").is_match_all() && !regex("(?-s).*").is_match_all() && !regex("a.*").is_match_all());
    assert!(regex(".+").is_match_non_empty() && regex(".*.+").is_match_non_empty());
    assert!(!regex("..+").is_match_non_empty() && !regex(".+.+").is_match_non_empty());
}

#[test]
fn prefixes_are_found() {
    let prefix = |pattern: &str| Regex::new(pattern).unwrap().prefix().to_owned();
    assert_eq!(prefix("prod-.*"), "prod-");
    assert_eq!(prefix("prod-[0-9]+"), "prod-");
    assert_eq!(prefix("^prod-[0-9]+$"), "prod-");
    assert_eq!(prefix("(foo|fob)x*"), "fo");
    assert_eq!(prefix("foo|fob"), "fo");
    assert_eq!(prefix("é1|é2"), "é");
    assert_eq!(prefix("(?:ab)+c*"), "ab");
    assert_eq!(prefix("(?:ab)*c*"), "");
    assert_eq!(prefix("(?i)abc.*x+"), "");
    assert_eq!(prefix("(?i)12abc.*"), "12");
    assert_eq!(prefix("\\d+"), "");
}

#[test]
fn templates_are_filled_in_as_go_does() {
    let expand =
        |pattern: &str, text: &str, template: &str| Regex::new(pattern).unwrap().expand(text, template);
    let is = |filled: &str| Some(filled.to_owned());
    assert_eq!(expand("(.*):(\\d+)", "host:80", "$1"), is("host"));
    assert_eq!(expand("(.*):(\\d+)", "host:80", "$2-$1-$0"), is("80-host-host:80"));
    assert_eq!(expand("(.*):(\\d+)", "host", "$1"), None);
    assert_eq!(expand("(.*)", "v", "$1x|${1}x|$$|$|$-|${|${1|${}"), is("|vx|$|$|$-|${|${1|${}"));
    assert_eq!(expand("(?P<a>.)(?<b>.)", "xy", "${b}$a $b_ ${c}"), is("yx  "));
    assert_eq!(expand("(?P<a>x)|(?P<a>y)", "y", "$a"), is("y"));
    assert_eq!(expand("(a)|(b)", "b", "[$1][$2][$3]"), is("[][b][]"));
    assert_eq!(expand("(a)", "a", "$01 $99999999999999999999 $1"), is("  a"));
    assert_eq!(expand("a|b", "b", "$0$1!"), is("b!"));
    assert_eq!(expand("", "", "x"), is("x"));
    assert_eq!(expand("(.*?)(.*)", "ab", "$1|$2"), is("|ab"));
    assert_eq!(expand("(?U)(.*)(.*)", "ab", "$1|$2"), is("|ab"));
    assert_eq!(expand("(a*)+", "b", ""), None);
    assert_eq!(expand("(?:(a)|b)*", "ab", "$1"), is("a"));
    assert_eq!(expand("(foo|bar)-(.*)", "bar-1", "${2}_${1}"), is("1_bar"));
}

#[test]
fn a_pattern_is_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Regex>();
}

proptest! {
    /// A shortcut says what the automaton says.
    #[test]
    fn shortcuts_agree_with_the_automaton(
        pattern in "(a|b|ab|\\.\\*|\\.\\+|\\(a\\|b\\)|\\[ab\\]|\\(b\\)\\?|\\||é|\\^|\\$|\\(\\?i\\)|c){0,8}",
        texts in prop::collection::vec("[abcéA\n]{0,7}", 1..20),
    ) {
        let Ok(regex) = Regex::new(&pattern) else { return Ok(()) };
        let parsed = parse::parse(&pattern).unwrap();
        let automaton = compile(&parsed.node, None).unwrap();
        for text in &texts {
            let expected = automaton.is_match(anchored(text));
            prop_assert_eq!(regex.is_match(text), expected, "{} on {:?}", pattern, text);
            if expected {
                prop_assert!(text.starts_with(regex.prefix()));
                if let Some(set) = regex.set_matches() {
                    prop_assert!(set.contains(text));
                }
            }
        }
        for text in regex.set_matches().unwrap_or_default() {
            prop_assert!(automaton.is_match(anchored(text)), "{} in {}", text, pattern);
        }
    }

    /// No pattern does harm.
    #[test]
    fn any_pattern_is_compiled_or_refused(
        pattern in "([a-c\\[\\](){}*+?|^$.,\\\\\\-:<>=&0-9dDwWsSbBpPQExiUmsAzLN]|\\PC){0,24}",
        text in "\\PC{0,8}",
    ) {
        if let Ok(regex) = Regex::new(&pattern) {
            regex.is_match(&text);
            regex.expand(&text, &pattern);
        }
    }

    /// What both dialects mean alike, both match alike.
    #[test]
    fn common_patterns_mean_what_they_mean_in_rust(
        pattern in "(a|b|\\(a\\|b\\)|\\[\\^a\\]|a\\*|b\\+\\?|\\(a\\?b\\)\\{1,3\\}|\\||\\.|\\.\\*|\\(\\?i:b\\)){0,8}",
        text in "[abB\n]{0,8}",
    ) {
        let rust = meta::Regex::new(&format!("^(?s:{pattern})$")).unwrap();
        prop_assert_eq!(Regex::new(&pattern).unwrap().is_match(&text), rust.is_match(&text));
    }
}

#[test]
fn a_walk_matches_what_the_pattern_matches_and_knows_early_what_cannot() {
    let walk = |regex: &Regex, text: &str| {
        let walker = regex.walker().unwrap();
        let mut at = walker.start();
        for byte in text.bytes() {
            at = walker.next(at, byte);
            if !walker.can_match(at) {
                return false;
            }
        }
        walker.is_match(at)
    };
    let patterns = [
        "(api|web)-[0-9]+",
        "a|ab+",
        "(a|b).*x",
        "(?i)é+x?",
        "[^a-c]*",
        "x{2,4}y",
        "(?m)a$\\n^b",
        "a\\b.+|b",
        "(|a)+b?",
    ];
    let texts = [
        "", "a", "ab", "abb", "b", "ba", "bax", "ax", "x", "api-1", "api-", "web-42", "webb-4", "é", "ÉX",
        "éx", "d", "dé", "xxy", "xxxxy", "xxxxxy", "a\nb", "a-", "aa",
    ];
    for pattern in patterns {
        let regex = Regex::new(pattern).unwrap();
        for text in texts {
            assert_eq!(walk(&regex, text), regex.is_match(text), "{pattern} {text:?}");
        }
    }
    let regex = Regex::new("(api|web)-[0-9]+").unwrap();
    let walker = regex.walker().unwrap();
    assert!(!walker.can_match(walker.next(walker.start(), b'b')));
    // Lists and gaps are looked up, and what would be large is not made.
    for pattern in ["a|b", "a.*", "(.*[a-z].{9}){2}"] {
        assert!(Regex::new(pattern).unwrap().walker().is_none(), "{pattern}");
    }
}

proptest! {
    #[test]
    fn a_walk_agrees_with_matching(pattern in "[ab.()|*+?]{1,8}", texts in prop::collection::vec("[abc]{0,5}", 1..8)) {
        let Ok(regex) = Regex::new(&pattern) else { return Ok(()) };
        let Some(walker) = regex.walker() else { return Ok(()) };
        for text in texts {
            let end = text.bytes().fold(walker.start(), |at, byte| walker.next(at, byte));
            prop_assert_eq!(walker.is_match(end), regex.is_match(&text), "{} {:?}", pattern, text);
            if walker.is_match(end) {
                let ends = (0..text.len()).map(|n| text.bytes().take(n).fold(walker.start(), |at, byte| walker.next(at, byte)));
                prop_assert!(ends.into_iter().all(|at| walker.can_match(at)));
            }
        }
    }
}
