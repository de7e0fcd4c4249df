//! Mistakes, what is said about them, and where.

use super::*;

/// `text` fails with `message`, which starts with the place: `1:5: parse error: …`.
fn check(text: &str, place: &str, message: &str) {
    check_with(&ParserFeatures::default(), text, place, message);
}

fn check_with(features: &ParserFeatures, text: &str, place: &str, message: &str) {
    match parse(text, features) {
        Ok(expr) => panic!("{text} parsed as {expr}"),
        Err(e) => assert_eq!(e.to_string(), format!("{place}: parse error: {message}"), "{text}"),
    }
}

#[test]
fn text_that_is_no_token() {
    for (text, place, message) in [
        ("a & b", "1:3", "unexpected character: '&'"),
        ("a ! b", "1:3", "unexpected character after '!': ' '"),
        ("a !", "1:3", "unexpected character after '!': '\u{fffd}'"),
        ("a =~ b", "1:3", "unexpected character after '=': '~'"),
        ("ä", "1:1", "unexpected character: 'ä'"),
        ("\u{feff}up", "1:1", "unexpected character: '\\ufeff'"),
        ("(1", "1:3", "unclosed left parenthesis"),
        ("foo(bar", "1:8", "unclosed left parenthesis"),
        ("1)", "1:3", "unexpected right parenthesis ')'"),
        ("foo[5m", "1:7", "unclosed left bracket"),
        ("foo[", "1:5", "unexpected end of input in duration expression"),
        ("foo]", "1:4", "unexpected right bracket ']'"),
        ("foo[5m[", "1:7", "unexpected left bracket '['"),
        ("{", "1:2", "unexpected end of input inside braces"),
        ("some{", "1:6", "unexpected end of input inside braces"),
        ("some}", "1:5", "unexpected character: '}'"),
        ("foo{a>=\"b\"}", "1:6", "unexpected character inside braces: '>'"),
        ("foo{1}", "1:5", "unexpected character inside braces: '1'"),
        ("foo{a:b=\"c\"}", "1:6", "unexpected character inside braces: ':'"),
        ("foo{a!\"b\"}", "1:6", "unexpected character after '!' inside braces: '\"'"),
        ("foo{{}}", "1:5", "unexpected left brace '{'"),
        ("\"abc", "1:1", "unterminated quoted string"),
        ("'abc\n'", "1:1", "unterminated quoted string"),
        ("foo{a='b", "1:7", "unterminated quoted string"),
        ("`abc", "1:1", "unterminated raw string"),
        (r#""\c""#, "1:1", "unknown escape sequence U+0063 'c'"),
        (r#""\'""#, "1:1", "unknown escape sequence U+0027 '''"),
        (r#""\x4z""#, "1:1", "illegal character U+007A 'z' in escape sequence"),
        (r#""\ud800""#, "1:1", "escape sequence is an invalid Unicode code point"),
        (r#""\400""#, "1:1", "escape sequence is an invalid Unicode code point"),
        (r#""\U00110000""#, "1:1", "escape sequence is an invalid Unicode code point"),
        ("\"\\", "1:1", "escape sequence not terminated"),
        ("\"\\u12", "1:1", "escape sequence not terminated"),
        ("foo\n+\n  $", "3:3", "unexpected character: '$'"),
    ] {
        check(text, place, message);
    }
}

#[test]
fn numbers_and_durations_that_are_none() {
    for (text, place, message) in [
        ("1b", "1:1", "bad number or duration syntax: \"1\""),
        ("foo[5mm]", "1:5", "bad number or duration syntax: \"5mm\""),
        ("foo[5m1]", "1:5", "bad number or duration syntax: \"5m1\""),
        ("foo[5m:1m1]", "1:8", "bad number or duration syntax: \"1m1\""),
        ("1.2.3", "1:1", "bad number or duration syntax: \"1.2.\""),
        ("1e", "1:1", "bad number or duration syntax: \"1e\""),
        ("1__0", "1:1", "bad number or duration syntax: \"1__\""),
        ("0x1.5", "1:1", "bad number or duration syntax: \"0x1.\""),
        ("0x", "1:1", "error parsing number: strconv.ParseFloat: parsing \"0x\": invalid syntax"),
        ("1e+", "1:1", "bad number or duration syntax: \"1e+\""),
        ("1e400", "1:1", "error parsing number: strconv.ParseFloat: parsing \"1e400\": value out of range"),
        ("foo[5m1h]", "1:5", "not a valid duration string: \"5m1h\""),
        ("foo[5m1m]", "1:5", "not a valid duration string: \"5m1m\""),
        ("foo[5hs]", "1:5", "unknown unit \"hs\" in duration \"5hs\""),
        ("foo[1.5h]", "1:5", "unknown unit \".\" in duration \"1.5h\""),
        ("foo[999y]", "1:5", "duration out of range"),
        ("foo[0]", "1:5", "duration must be greater than 0"),
        ("foo[0s]", "1:5", "duration must be greater than 0"),
        ("foo[-1]", "1:5", "duration must be greater than 0"),
        ("foo[(0)]", "1:6", "duration must be greater than 0"),
        ("foo[5m:0s]", "1:8", "duration must be greater than 0"),
        ("foo[9.5e10]", "1:5", "duration out of range"),
        ("foo offset inf", "1:12", "duration out of range"),
        ("foo offset NaN", "1:12", "duration out of range"),
        ("foo[5m/0]", "1:7", "division by zero"),
        ("foo[5m%0s]", "1:7", "modulo by zero"),
    ] {
        check(text, place, message);
    }
}

#[test]
fn expressions_that_break_off_or_go_on() {
    for (text, place, message) in [
        ("", "unknown position", "no expression found in input"),
        ("  ", "1:1", "no expression found in input"),
        ("# just a comment", "1:1", "no expression found in input"),
        ("1+", "1:3", "unexpected end of input"),
        ("1 1", "1:3", "unexpected number \"1\""),
        ("1 5m", "1:3", "unexpected duration \"5m\""),
        ("*1", "1:1", "unexpected <op:*>"),
        ("a = b", "1:3", "unexpected \"=\""),
        ("a / / b", "1:5", "unexpected <op:/>"),
        ("a == == b", "1:6", "unexpected <op:==>"),
        ("()", "1:2", "unexpected \")\""),
        ("(1))", "1:5", "unexpected right parenthesis ')'"),
        ("foo \"bar\"", "1:5", "unexpected string \"\\\"bar\\\"\""),
        ("foo \"a long string\"", "1:5", "unexpected string \"\\\"a long st\"..."),
        ("foo a:b", "1:5", "unexpected metric identifier \"a:b\""),
        ("a b", "1:3", "unexpected identifier \"b\""),
        ("bool", "1:1", "unexpected <bool>"),
        ("atan2", "1:1", "unexpected <op:atan2>"),
        ("on(a)", "1:1", "unexpected <on>"),
        ("foo by (a)", "1:5", "unexpected <by>"),
        ("foo @@ 5", "1:6", "unexpected <op:@> in @, expected timestamp"),
        ("1,2", "1:2", "unexpected \",\""),
        ("foo{}{}", "1:6", "unexpected \"{\""),
        ("foo(1 2)", "1:7", "unexpected number \"2\""),
        ("rate(foo[5m],)", "1:13", "trailing commas not allowed in function call args"),
        ("rate(foo[5m], *)", "1:13", "trailing commas not allowed in function call args"),
        ("a:b(foo)", "1:4", "unexpected \"(\""),
        ("offset(5)", "1:7", "unexpected \"(\""),
        ("a + on(b) ignoring(c) d", "1:11", "unexpected <ignoring>"),
        ("a + on(b) bool c", "1:11", "unexpected <bool>"),
        ("a + group_left b", "1:5", "unexpected <group_left>"),
        ("a + bool bool b", "1:10", "unexpected <bool>"),
        ("a + fill(x) b", "1:10", "unexpected identifier \"x\""),
        ("a + fill(1) fill_left(2) b", "1:13", "unexpected <fill_left>"),
        ("fill(1)", "1:1", "unexpected <fill>"),
    ] {
        check(text, place, message);
    }
}

#[test]
fn mistakes_within_braces() {
    for (text, place, message) in [
        ("foo{a=b}", "1:7", "unexpected identifier \"b\" in label matching, expected string"),
        ("foo{a=}", "1:7", "unexpected \"}\" in label matching, expected string"),
        ("foo{a==\"b\"}", "1:7", "unexpected \"=\" in label matching, expected string"),
        ("foo{gibberish}", "1:14", "unexpected \"}\" in label matching, expected label matching operator"),
        ("foo{a,b='c'}", "1:6", "unexpected \",\" in label matching, expected label matching operator"),
        (
            "foo{a='b' c='d'}",
            "1:11",
            "unexpected identifier \"c\" in label matching, expected \",\" or \"}\"",
        ),
        ("foo{a='b',,}", "1:11", "unexpected \",\" in label matching, expected identifier or \"}\""),
        ("foo{,}", "1:5", "unexpected \",\" in label matching, expected identifier or \"}\""),
        ("foo{=~'x'}", "1:5", "unexpected <op:=~> in label matching, expected identifier or \"}\""),
        (
            "{\"a\" \"b\"}",
            "1:6",
            "unexpected string \"\\\"b\\\"\" in label matching, expected \",\" or \"}\"",
        ),
        ("{\"a\",\"b\"}", "1:6", "metric name must not be set twice: \"a\" or \"b\""),
    ] {
        check(text, place, message);
    }
}

#[test]
fn mistakes_in_aggregations_and_label_lists() {
    for (text, place, message) in [
        ("sum some_metric by (test)", "1:5", "unexpected identifier \"some_metric\""),
        ("sum by foo (x)", "1:8", "unexpected identifier \"foo\" in grouping opts, expected \"(\""),
        ("sum (x) by test", "1:12", "unexpected identifier \"test\" in grouping opts, expected \"(\""),
        ("sum (x) by ()by(test)", "1:14", "unexpected <by>"),
        ("sum by (a b) (x)", "1:11", "unexpected identifier \"b\" in grouping opts, expected \",\" or \")\""),
        ("sum by (,) (x)", "1:9", "unexpected \",\" in grouping opts, expected label"),
        ("sum by (a,,) (x)", "1:11", "unexpected \",\" in grouping opts, expected label"),
        ("sum by (1) (x)", "1:9", "unexpected number \"1\" in grouping opts, expected label"),
        ("sum by (without) (x)", "1:9", "unexpected <without> in grouping opts, expected label"),
        ("sum by (\"\") (x)", "1:9", "invalid label name for grouping: \"\""),
        ("sum by (a) x", "1:12", "unexpected identifier \"x\" in aggregation"),
        ("sum(1 + )", "1:9", "unexpected \")\" in aggregation"),
        ("sum(a, )", "1:6", "trailing commas not allowed in function call args"),
        ("sum()", "1:1", "no arguments for aggregate expression provided"),
        ("1 + sum by (a) ()", "1:5", "no arguments for aggregate expression provided"),
        (
            "sum(a, b)",
            "1:1",
            "wrong number of arguments for aggregate expression provided, expected 1, got 2",
        ),
        ("topk(a)", "1:1", "wrong number of arguments for aggregate expression provided, expected 2, got 1"),
        ("a * on(x) group_left ) b", "1:23", "unexpected right parenthesis ')'"),
        ("a * on(x) group_left , b", "1:22", "unexpected \",\" in grouping opts, expected \"(\""),
        (
            "a * on(x) group_left (b + c)",
            "1:25",
            "unexpected <op:+> in grouping opts, expected \",\" or \")\"",
        ),
        ("a + on b", "1:8", "unexpected identifier \"b\" in grouping opts, expected \"(\""),
    ] {
        check(text, place, message);
    }
}

#[test]
fn mistakes_behind_selectors() {
    for (text, place, message) in [
        (
            "foo[]",
            "1:5",
            "unexpected \"]\" in subquery or range selector, expected number, duration, step(), or range()",
        ),
        (
            "foo[5m+]",
            "1:8",
            "unexpected \"]\" in subquery or range selector, expected number, duration, step(), or range()",
        ),
        (
            "foo[step]",
            "1:9",
            "unexpected \"]\" in subquery or range selector, expected number, duration, step(), or range()",
        ),
        ("foo[\"5m\"]", "1:5", "unexpected character in duration expression: '\"'"),
        ("foo[foo]", "1:5", "unexpected character in duration expression: 'f'"),
        ("foo[5m foo]", "1:8", "unexpected character: 'f', expected ':'"),
        (
            "foo[5m \"x\"]",
            "1:8",
            "unexpected string \"\\\"x\\\"\" in subquery or range, expected \":\" or \"]\"",
        ),
        ("foo[5m 5m]", "1:8", "unexpected duration \"5m\" in subquery or range, expected \":\" or \"]\""),
        ("foo[5m::1m]", "1:7", "unexpected \"::\" in subquery or range, expected \":\" or \"]\""),
        ("foo[:5m]", "1:6", "unexpected colon before duration in duration expression"),
        ("foo[5m:1m:1m]", "1:10", "unexpected colon ':'"),
        (
            "foo[5m:*]",
            "1:8",
            "unexpected <op:*> in subquery selector, expected number, duration, step(), range(), or \"]\"",
        ),
        ("foo[5m:1m 1m]", "1:11", "unexpected duration \"1m\" in subquery selector, expected \"]\""),
        ("foo[5m)]", "1:8", "unexpected right parenthesis ')'"),
        ("1[5m]", "1:2", "ranges only allowed for vector selectors"),
        ("(foo + bar)[5m]", "1:12", "ranges only allowed for vector selectors"),
        ("foo[5m][5m]", "1:8", "ranges only allowed for vector selectors"),
        ("foo offset 5m[5m]", "1:14", "no offset modifiers allowed before range"),
        ("foo @ 5[5m]", "1:8", "no @ modifiers allowed before range"),
        (
            "foo offset",
            "1:11",
            "unexpected end of input in offset, expected number, duration, step(), or range()",
        ),
        (
            "foo offset bar",
            "1:12",
            "unexpected identifier \"bar\" in offset, expected number, duration, step(), or range()",
        ),
        (
            "foo offset (1+)",
            "1:15",
            "unexpected \")\" in offset, expected number, duration, step(), or range()",
        ),
        ("foo offset 5m offset 5m", "1:1", "offset may not be set multiple times"),
        (
            "1 offset 1d",
            "1:1",
            "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
        ),
        (
            "1 + (foo) offset 1d",
            "1:5",
            "offset modifier must be preceded by an instant vector selector or range vector selector or a subquery",
        ),
        (
            "rate(foo[5m]) @ 5",
            "1:1",
            "@ modifier must be preceded by an instant vector selector or range vector selector or a subquery",
        ),
        ("foo @", "1:6", "unexpected end of input in @, expected timestamp"),
        ("foo @ bar", "1:7", "unexpected identifier \"bar\" in @, expected timestamp"),
        ("foo @ start", "1:12", "unexpected end of input in @, expected timestamp"),
        ("foo @ end(1)", "1:11", "unexpected number \"1\" in @, expected timestamp"),
        ("foo @ 5 @ 6", "1:1", "@ <timestamp> may not be set multiple times"),
        ("foo @ start() @ 6", "1:1", "@ <timestamp> may not be set multiple times"),
        ("foo @ inf", "1:1", "timestamp out of bounds for @ modifier: +Inf"),
        ("foo @ -inf", "1:1", "timestamp out of bounds for @ modifier: -Inf"),
        ("foo @ nan", "1:1", "timestamp out of bounds for @ modifier: NaN"),
        (
            "foo @ 9223372036854775808",
            "1:1",
            "timestamp out of bounds for @ modifier: 9223372036854775808.000000",
        ),
        ("foo[5m:] anchored", "1:1", "anchored modifier is not supported for subqueries"),
        ("rate(foo[5m]) smoothed", "1:1", "smoothed modifier not implemented"),
        ("foo anchored smoothed", "1:1", "anchored and smoothed modifiers cannot be used together"),
    ] {
        check(text, place, message);
    }
}

#[test]
fn calls_that_do_not_fit_their_function() {
    for (text, place, message) in [
        ("nope(foo)", "1:1", "unknown function with name \"nope\""),
        ("Rate(foo[5m])", "1:1", "unknown function with name \"Rate\""),
        ("1 + nope(foo) $", "1:5", "unknown function with name \"nope\""),
        ("floor()", "1:1", "expected 1 argument(s) in call to \"floor\", got 0"),
        ("floor(a, b)", "1:1", "expected 1 argument(s) in call to \"floor\", got 2"),
        ("floor(1)", "1:7", "expected type instant vector in call to function \"floor\", got scalar"),
        ("round(1, a, b)", "1:1", "expected at most 2 argument(s) in call to \"round\", got 3"),
        ("round()", "1:1", "expected at least 1 argument(s) in call to \"round\", got 0"),
        ("hour(a, b)", "1:1", "expected at most 1 argument(s) in call to \"hour\", got 2"),
        ("label_join(a, \"b\")", "1:1", "expected at least 3 argument(s) in call to \"label_join\", got 2"),
        (
            "label_join(a, \"b\", \"c\", 1)",
            "1:25",
            "expected type string in call to function \"label_join\", got scalar",
        ),
        (
            "label_join(a, \"b\", \"c\", \"d\", e)",
            "1:30",
            "expected type string in call to function \"label_join\", got instant vector",
        ),
        ("rate(foo)", "1:6", "expected type range vector in call to function \"rate\", got instant vector"),
        ("abs(foo[5m])", "1:5", "expected type instant vector in call to function \"abs\", got range vector"),
        ("abs('x')", "1:5", "expected type instant vector in call to function \"abs\", got string"),
        ("vector(foo)", "1:8", "expected type scalar in call to function \"vector\", got instant vector"),
        ("time(1)", "1:1", "expected 0 argument(s) in call to \"time\", got 1"),
        ("info(foo, bar)", "1:11", "expected label selectors only, got vector selector instead"),
        ("info(foo, 1)", "1:1", "expected type instant vector in call to function \"info\", got scalar"),
        ("info(foo, abs({a=''}))", "1:11", "expected label selectors only"),
    ] {
        check(text, place, message);
    }
}

#[test]
fn operands_of_the_wrong_type() {
    for (text, place, message) in [
        ("1 and 1", "1:1", "set operator \"and\" not allowed in binary scalar expression"),
        ("foo or 1", "1:1", "set operator \"or\" not allowed in binary scalar expression"),
        ("2 + (1 unless foo)", "1:6", "set operator \"unless\" not allowed in binary scalar expression"),
        ("1 == 1", "1:3", "comparisons between scalars must use BOOL modifier"),
        ("(1)  >=  (1)", "1:6", "comparisons between scalars must use BOOL modifier"),
        ("foo + bool bar", "1:5", "bool modifier can only be used on comparison operators"),
        ("foo and bool 10", "1:5", "bool modifier can only be used on comparison operators"),
        ("foo </ bool 10", "1:5", "bool modifier can only be used on comparison operators"),
        ("foo + on(b) 10", "1:1", "vector matching only allowed between instant vectors"),
        ("10 + on(b) foo", "1:1", "vector matching only allowed between instant vectors"),
        ("foo + fill(1) 10", "1:1", "filling in missing series only allowed between instant vectors"),
        ("foo and fill(1) bar", "1:1", "filling in missing series not allowed for set operators"),
        ("foo and on(a) group_left bar", "1:1", "no grouping allowed for \"and\" operation"),
        ("foo + on(a) group_left(a) bar", "1:5", "label \"a\" must not occur in ON and GROUP clause at once"),
        ("1 + \"x\"", "1:5", "binary expression must contain only scalar and instant vector types"),
        ("foo[5m] + 1", "1:1", "binary expression must contain only scalar and instant vector types"),
        (
            "-foo[5m]",
            "1:1",
            "unary expression only allowed on expressions of type scalar or instant vector, got \"range vector\"",
        ),
        (
            "1 + -\"x\"",
            "1:5",
            "unary expression only allowed on expressions of type scalar or instant vector, got \"string\"",
        ),
        ("1[5m:]", "1:1", "subquery is only allowed on instant vector, got scalar instead"),
        ("foo[5m][5m:]", "1:1", "subquery is only allowed on instant vector, got matrix instead"),
        ("\"x\"[5m:]", "1:1", "subquery is only allowed on instant vector, got string instead"),
        ("sum(foo[5m])", "1:5", "expected type instant vector in aggregation expression, got range vector"),
        ("topk(foo, bar)", "1:6", "expected type scalar in aggregation parameter, got instant vector"),
        ("count_values(1, bar)", "1:14", "expected type string in aggregation parameter, got scalar"),
        ("quantile('a', bar)", "1:10", "expected type scalar in aggregation parameter, got string"),
        ("{}", "1:1", "vector selector must contain at least one non-empty matcher"),
        ("sum({a=\"\"})", "1:5", "vector selector must contain at least one non-empty matcher"),
        ("rate({a!=\"x\"}[5m])", "1:6", "vector selector must contain at least one non-empty matcher"),
        ("{\"\"}", "1:1", "vector selector must contain at least one non-empty matcher"),
        ("foo{__name__=\"bar\"}", "1:1", "metric name must not be set twice: \"foo\" or \"bar\""),
        ("foo{\"bar\"}", "1:1", "metric name must not be set twice: \"foo\" or \"bar\""),
        ("foo{__name__=~\"b.*\"}", "1:1", "metric name must not be set twice: \"foo\" or \"b.*\""),
    ] {
        check(text, place, message);
    }
}

#[test]
fn syntax_that_is_switched_off() {
    let off = ParserFeatures {
        experimental_functions: false,
        extended_range_selectors: false,
        fill_modifiers: false,
    };
    for (text, place, message) in [
        ("1 + mad_over_time(foo[5m])", "1:5", "function \"mad_over_time\" is not enabled"),
        (
            "limitk(1, foo)",
            "1:1",
            "limitk() is experimental and must be enabled with --enable-feature=promql-experimental-functions",
        ),
        ("foo anchored", "1:1", "anchored modifier is experimental and not enabled"),
        ("rate(foo[5m] smoothed)", "1:6", "smoothed modifier is experimental and not enabled"),
        ("foo + fill(1) bar", "1:1", "binop fill modifiers are experimental and not enabled"),
    ] {
        check_with(&off, text, place, message);
    }
    assert!(parse("first_over_time(foo[step()])", &off).is_ok());
}

#[test]
fn texts_that_are_more_than_a_selector() {
    let fails = |text: &str, expect: &str| {
        assert_eq!(parse_selector(text).unwrap_err().to_string(), expect, "{text}");
    };
    fails("", "unknown position: parse error: unexpected end of input");
    fails(" ", "1:2: parse error: unexpected end of input");
    fails("up[5m]", "1:3: parse error: unexpected \"[\"");
    fails("up offset 5m", "1:4: parse error: unexpected <offset>");
    fails("1", "1:1: parse error: unexpected number \"1\"");
    fails("a + b", "1:3: parse error: unexpected <op:+>");
    fails("a{b=}", "1:5: parse error: unexpected \"}\" in label matching, expected string");
}

#[test]
fn columns_count_bytes_and_lines_count_newlines() {
    check("\"ä\" + $", "1:8", "unexpected character: '$'");
    check("foo +\n# comment\n\t*", "3:2", "unexpected <op:*>");
    let error = parse("foo{a=b}", &ParserFeatures::default()).unwrap_err();
    assert_eq!((error.line, error.column), (1, 7));
    assert_eq!(error.span, Span { start: 6, end: 7 });
}
