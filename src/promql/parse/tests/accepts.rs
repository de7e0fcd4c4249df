//! Queries and how they print.

use super::*;

/// `text` parses, prints as `printed`, and `printed` prints as itself.
fn check(text: &str, printed: &str) {
    let expr = read(text);
    assert_eq!(expr.to_string(), printed, "{text}");
    assert_eq!(read(printed).to_string(), printed, "printed from {text}");
}

/// `text` prints as it is.
fn same(text: &str) {
    check(text, text);
}

#[test]
fn numbers_print_as_decimals() {
    for (text, printed) in [
        ("1", "1"),
        ("+Inf", "+Inf"),
        ("-inf", "-Inf"),
        ("NaN", "NaN"),
        (".5", "0.5"),
        ("5.", "5"),
        ("123.4567", "123.4567"),
        ("5e-3", "0.005"),
        ("5E3", "5000"),
        ("0xc", "12"),
        ("0755", "493"),
        ("08", "8"),
        ("+5.5e-3", "0.0055"),
        ("-0755", "-493"),
        ("1_000_000", "1000000"),
        ("-0", "-0"),
        ("1e30", "1000000000000000000000000000000"),
        ("--1", "1"),
        ("-+-+1", "1"),
        ("5m", "5m"),
        ("-1h30m", "-1h30m"),
        ("3600s", "1h"),
        ("90d", "90d"),
        ("14d", "2w"),
        ("365d", "1y"),
        ("1500ms", "1s500ms"),
    ] {
        check(text, printed);
    }
}

#[test]
fn strings_print_with_double_quotes() {
    for (text, printed) in [
        (r#""a""#, r#""a""#),
        (r"'a'", r#""a""#),
        (r"'a\'\n'", r#""a'\n""#),
        ("`a\\d\n\"`", "\"a\\\\d\\n\\\"\""),
        (r#""\x41\u00e4\t""#, "\"Aä\\t\""),
        (r#""\xff""#, "\"\u{fffd}\""),
        (r#"''"#, r#""""#),
    ] {
        check(text, printed);
    }
}

#[test]
fn selectors_print_with_sorted_matchers() {
    for (text, printed) in [
        ("foo", "foo"),
        ("foo{}", "foo"),
        ("min", "min"),
        ("a:b:c", "a:b:c"),
        (":a", ":a"),
        (r#"foo{b="1",a!="2",}"#, r#"foo{a!="2",b="1"}"#),
        (r#"{a=~"x.*" , b!~'y'}"#, r#"{a=~"x.*",b!~"y"}"#),
        (
            r#"foo{sum="1",by="2",offset="3",NaN="4",bool="5"}"#,
            r#"foo{NaN="4",bool="5",by="2",offset="3",sum="1"}"#,
        ),
        (r#"{"foo"}"#, "foo"),
        (r#"{"foo",a="b"}"#, r#"foo{a="b"}"#),
        (r#"{"my.metric"}"#, r#"{"my.metric"}"#),
        (r#"{a="b","my.metric"}"#, r#"{"my.metric",a="b"}"#),
        (r#"foo{"my.label"="x"}"#, r#"foo{"my.label"="x"}"#),
        (r#"{"bool"}"#, r#"{"bool"}"#),
        (r#"{__name__="foo"}"#, r#"{__name__="foo"}"#),
        (r#"{__name__=~"foo.*",__name__!="foobar"}"#, r#"{__name__!="foobar",__name__=~"foo.*"}"#),
        (r#"{"foo",__name__="bar"}"#, r#"{__name__="bar",__name__="foo"}"#),
        ("# a comment\nfoo # another\n{a='b'} # the last", r#"foo{a="b"}"#),
        ("foo\n\t{\r\n}", "foo"),
        ("sum", "sum"),
        ("by{a='b'}", r#"by{a="b"}"#),
        ("offset", "offset"),
        ("anchored{a='b'}", r#"anchored{a="b"}"#),
        ("start", "start"),
        ("step", "step"),
        ("range", "range"),
        ("fill", "fill"),
        ("or or or", "or or or"),
        ("foo and and", "foo and and"),
        ("min_of", "min_of"),
        ("NOT_a_keyword", "NOT_a_keyword"),
        ("histogram_quantile", "histogram_quantile"),
    ] {
        check(text, printed);
    }
}

#[test]
fn names_become_matchers_where_prometheus_puts_them() {
    let Expr::Vector(outside) = read(r#"foo{a="b"}"#) else { panic!("a selector") };
    assert_eq!(outside.name.as_deref(), Some("foo"));
    assert_eq!(format!("{:?}", outside.matchers), r#"[a="b", __name__="foo"]"#);
    let Expr::Vector(inside) = read(r#"{"foo",a="b"}"#) else { panic!("a selector") };
    assert_eq!(inside.name.as_deref(), Some("foo"));
    assert_eq!(format!("{:?}", inside.matchers), r#"[__name__="foo", a="b"]"#);
    let Expr::Vector(matched) = read(r#"{__name__="foo"}"#) else { panic!("a selector") };
    assert_eq!(matched.name, None);
}

#[test]
fn offsets_and_pins_print_in_one_order() {
    for (text, printed) in [
        ("foo offset 5m", "foo offset 5m"),
        ("foo offset 300", "foo offset 5m"),
        ("foo OFFSET -7d", "foo offset -1w"),
        ("foo offset +1m", "foo offset 1m"),
        ("foo offset 0s", "foo"),
        ("foo offset 1.5", "foo offset 1s500ms"),
        ("foo offset 0.0005", "foo offset 0.0005"),
        ("foo @ 0", "foo @ 0.000"),
        ("foo @ 1603774568.5", "foo @ 1603774568.500"),
        ("foo @ -100.5", "foo @ -100.500"),
        ("foo @ +3.3e1", "foo @ 33.000"),
        ("foo @ 5m", "foo @ 300.000"),
        ("foo @ start()", "foo @ start()"),
        ("foo offset 5m @ end()", "foo @ end() offset 5m"),
        ("foo @ 1 offset 5m", "foo @ 1.000 offset 5m"),
        ("foo{a='b'}[5m] @ 1 offset 5m", r#"foo{a="b"}[5m] @ 1.000 offset 5m"#),
        ("foo[5m] offset 1h @ start()", "foo[5m] @ start() offset 1h"),
        ("foo[300]", "foo[5m]"),
        ("foo[1001ms]", "foo[1s1ms]"),
        ("foo[1h:1m] @ 5 offset 10m", "foo[1h:1m] @ 5.000 offset 10m"),
        ("foo[1h:]", "foo[1h:]"),
        ("foo[ 1h : ]", "foo[1h:]"),
        ("foo offset 5m[1h:1m]", "foo offset 5m[1h:1m]"),
        ("rate(foo[5m])[1h:30s] offset -1m", "rate(foo[5m])[1h:30s] offset -1m"),
        ("foo anchored", "foo anchored"),
        ("foo[5m] smoothed offset 1m", "foo[5m] smoothed offset 1m"),
        ("foo[5m] offset 1m anchored @ 0", "foo[5m] anchored @ 0.000 offset 1m"),
        ("foo anchored[5m]", "foo[5m] anchored"),
        ("-foo offset 5m", "-foo offset 5m"),
        ("foo offset 1h + 3", "foo offset 1h + 3"),
        ("foo offset -2^2", "foo offset -2s ^ 2"),
        ("foo offset 2 * 2", "foo offset 2s * 2"),
    ] {
        check(text, printed);
    }
}

#[test]
fn durations_may_be_computed() {
    for (text, printed) in [
        ("foo[step()]", "foo[step()]"),
        ("foo[5m+step()*2:step()]", "foo[5m + step() * 2:step()]"),
        ("foo[STep():1m]", "foo[step():1m]"),
        ("foo[range()]", "foo[range()]"),
        ("foo[-5m+35m]", "foo[-5m + 35m]"),
        ("foo[60*30]", "foo[60 * 30]"),
        ("foo[2m*(10+5)]", "foo[2m * (10 + 5)]"),
        ("foo[(5s)]", "foo[5s]"),
        ("foo[((5s))]", "foo[5s]"),
        ("foo[((5s+1))]", "foo[(5s + 1)]"),
        ("foo[2^3^2]", "foo[2 ^ 3 ^ 2]"),
        ("foo[-2^2+5]", "foo[-2 ^ 2 + 5]"),
        ("foo[--5s]", "foo[5s]"),
        ("foo[+step()]", "foo[step()]"),
        ("foo[1h30m % 1h]", "foo[1h30m % 1h]"),
        ("foo[max_of(step(), 5m)]", "foo[max_of(step(), 5m)]"),
        ("foo[MIN_OF(step()+1,1h)]", "foo[min_of(step() + 1, 1h)]"),
        ("foo[5m*range()/range()]", "foo[5m * range() / range()]"),
        ("foo offset step()", "foo offset step()"),
        ("foo offset -step()*2", "foo offset -step() * 2"),
        ("foo offset (5m*2)", "foo offset (5m * 2)"),
        ("foo offset (5m)", "foo offset 5m"),
        ("foo offset -(5m*2) + 1", "foo offset -(5m * 2) + 1"),
        ("foo offset min_of(step(), 1s)+8000", "foo offset min_of(step(), 1s) + 8000"),
        ("foo offset -max_of(1, 2)^0", "foo offset -max_of(1, 2) ^ 0"),
        ("foo offset (-step())", "foo offset (-step())"),
    ] {
        check(text, printed);
    }
}

#[test]
fn operators_bind_as_in_the_manual() {
    /// Shows which operator binds what.
    fn tree(expr: &Expr) -> String {
        match expr {
            Expr::Binary(e) => format!("({} {} {})", tree(&e.lhs), e.op.as_str(), tree(&e.rhs)),
            Expr::Unary(e) => format!("(-{})", tree(&e.expr)),
            other => other.to_string(),
        }
    }
    for (text, shape) in [
        ("a + b * c", "(a + (b * c))"),
        ("a * b + c", "((a * b) + c)"),
        ("a - b - c", "((a - b) - c)"),
        ("a / b % c atan2 d", "(((a / b) % c) atan2 d)"),
        ("a ^ b ^ c", "(a ^ (b ^ c))"),
        ("-a ^ b", "(-(a ^ b))"),
        ("-a * b", "((-a) * b)"),
        ("a ^ -b * c", "((a ^ (-b)) * c)"),
        ("a ^ -b ^ c", "(a ^ (-(b ^ c)))"),
        ("a + b > c", "((a + b) > c)"),
        ("a > b == c", "((a > b) == c)"),
        ("a >/ b + c", "(a >/ (b + c))"),
        ("a </ 5 and b", "((a </ 5) and b)"),
        ("a or b and c unless d", "(a or ((b and c) unless d))"),
        ("a and b or c", "((a and b) or c)"),
        ("a == b or c != d", "((a == b) or (c != d))"),
        ("1 + 2 ^ 3 * -4", "(1 + ((2 ^ 3) * -4))"),
        ("-2 ^ 2", "(-(2 ^ 2))"),
    ] {
        assert_eq!(tree(&read(text)), shape, "{text}");
    }
}

#[test]
fn operators_print_with_their_modifiers() {
    for (text, printed) in [
        ("1 + 2/(3*1)", "1 + 2 / (3 * 1)"),
        ("1 < bool 2 - 1 * 2", "1 < bool 2 - 1 * 2"),
        ("-some_metric", "-some_metric"),
        ("+some_metric", "+some_metric"),
        ("- (a)", "-(a)"),
        ("foo * bar", "foo * bar"),
        ("foo == bool 1", "foo == bool 1"),
        ("foo AND bar", "foo and bar"),
        ("foo + on(a,b,) bar", "foo + on (a, b) bar"),
        ("foo + on() bar", "foo + on () bar"),
        ("foo + ignoring() bar", "foo + bar"),
        ("foo + ignoring() group_left bar", "foo + ignoring () group_left () bar"),
        ("foo * on(a) group_left bar", "foo * on (a) group_left () bar"),
        ("foo > bool ignoring(a) group_right(c, d) bar", "foo > bool ignoring (a) group_right (c, d) bar"),
        (r#"foo * on("my.label") group_left("x.y") bar"#, r#"foo * on ("my.label") group_left ("x.y") bar"#),
        ("foo + fill(5m) bar", "foo + fill (300) bar"),
        ("foo + on(a) fill_left(-1) bar", "foo + on (a) fill_left (-1) bar"),
        ("foo + fill_right(2) fill_left(1) bar", "foo + fill_left (1) fill_right (2) bar"),
        ("foo + fill_left (3) fill_right (3) bar", "foo + fill (3) bar"),
        ("foo * on(a) group_left fill(0) bar", "foo * on (a) group_left () fill (0) bar"),
        ("fill + fill_left", "fill + fill_left"),
        ("foo unless on(bar, sum, by, bool) baz", "foo unless on (bar, sum, by, bool) baz"),
        ("a >/5", "a >/ 5"),
        ("a</b", "a </ b"),
    ] {
        check(text, printed);
    }
}

#[test]
fn aggregations_print_with_their_grouping_first() {
    for (text, printed) in [
        ("sum(foo)", "sum(foo)"),
        ("SUM (foo)", "sum(foo)"),
        ("sum by (job)(rate(foo[5m]))", "sum by (job) (rate(foo[5m]))"),
        ("sum(foo) by (job, \"my.label\",)", "sum by (job, \"my.label\") (foo)"),
        ("sum by () (foo)", "sum(foo)"),
        ("sum without () (foo)", "sum without () (foo)"),
        ("avg(foo) without (a)", "avg without (a) (foo)"),
        (
            "count by (sum, by, start, group_left, atan2) (foo)",
            "count by (sum, by, start, group_left, atan2) (foo)",
        ),
        ("count by (a:b) (foo)", "count by (a:b) (foo)"),
        ("topk(5, foo)", "topk(5, foo)"),
        ("bottomk by (x) (5, foo)", "bottomk by (x) (5, foo)"),
        ("count_values('v', foo)", "count_values(\"v\", foo)"),
        ("quantile(0.9, foo) by (a)", "quantile by (a) (0.9, foo)"),
        ("limitk(2, foo)", "limitk(2, foo)"),
        ("limit_ratio(-0.5, foo)", "limit_ratio(-0.5, foo)"),
        ("sum(sum)", "sum(sum)"),
        ("sum + sum", "sum + sum"),
        ("group(foo) + stddev(foo) * stdvar(foo)", "group(foo) + stddev(foo) * stdvar(foo)"),
    ] {
        check(text, printed);
    }
}

#[test]
fn calls_print_their_arguments() {
    for text in [
        "time()",
        "rate(foo[5m])",
        "round(foo)",
        "round(foo, 0.5)",
        "hour()",
        "hour(foo)",
        "label_replace(foo, \"a\", \"$1\", \"b\", \"(.*)\")",
        "label_join(foo, \"a\", \"-\")",
        "label_join(foo, \"a\", \"-\", \"b\", \"c\", \"d\")",
        "histogram_quantile(0.9, sum by (le) (rate(foo_bucket[5m])))",
        "histogram_quantiles(foo, \"q\", 0.5, 0.9, 0.99)",
        "absent_over_time(foo[5m])",
        "info(foo)",
        "info(foo, {data=~\".*\"})",
        "start() + end() + step() + range()",
        "max_of(1, min_of(2, 3))",
        "vector(scalar(foo))",
        "sort_by_label(foo, \"a\", \"b\")",
        "sort_by_label(foo)",
        "rate(foo[5m] anchored)",
    ] {
        same(text);
    }
    check("STEP()", "step()");
    check("info(foo,{})", "info(foo, {})");
    check("info(foo,{'bar'})", "info(foo, {__name__=\"bar\"})");
}

#[test]
fn every_node_knows_its_place() {
    let text = "sum by (a) (rate(foo{x='y'}[5m] offset 1m)) / -bar @ 5";
    let Expr::Binary(division) = read(text) else { panic!("a division") };
    assert_eq!(at(text, division.span), text);
    assert_eq!(at(text, division.op_span), "/");
    let Expr::Aggregate(sum) = &*division.lhs else { panic!("a sum") };
    assert_eq!(at(text, sum.span), "sum by (a) (rate(foo{x='y'}[5m] offset 1m))");
    let Expr::Call(rate) = &*sum.expr else { panic!("a call") };
    assert_eq!(at(text, rate.span), "rate(foo{x='y'}[5m] offset 1m)");
    let Expr::Matrix(matrix) = &rate.args[0] else { panic!("a range") };
    assert_eq!(at(text, matrix.span), "foo{x='y'}[5m] offset 1m");
    assert_eq!(at(text, matrix.selector.span), "foo{x='y'}");
    assert_eq!(at(text, matrix.range.span()), "5m");
    let Expr::Unary(minus) = &*division.rhs else { panic!("a sign") };
    assert_eq!(at(text, minus.span), "-bar @ 5");

    let text = " (foo[1h:1m] offset 5m) ";
    let Expr::Paren(paren) = read(text) else { panic!("parentheses") };
    assert_eq!(at(text, paren.span), text.trim());
    assert_eq!(at(text, paren.expr.span()), "foo[1h:1m] offset 5m");
    assert_eq!(at("1 + -2", read("1 + -2").children().next_back().unwrap().span()), "-2");
}

#[test]
fn children_come_in_written_order() {
    let names = |text: &str| read(text).children().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names("topk(3, foo)"), ["3", "foo"]);
    assert_eq!(names("a + b"), ["a", "b"]);
    assert_eq!(names("round(a, 5)"), ["a", "5"]);
    assert_eq!(names("-a"), ["a"]);
    assert_eq!(names("a[5m:]"), ["a"]);
    assert!(names("a[5m]").is_empty());
}

#[test]
fn matching_is_settled_for_each_operator() {
    let card = |text: &str| match read(text) {
        Expr::Binary(e) => e.matching.map(|m| m.card),
        other => panic!("{other}"),
    };
    assert_eq!(card("a + b"), Some(Cardinality::OneToOne));
    assert_eq!(card("a and b"), Some(Cardinality::ManyToMany));
    assert_eq!(card("a + on(x) group_left b"), Some(Cardinality::ManyToOne));
    assert_eq!(card("a + on(x) group_right b"), Some(Cardinality::OneToMany));
    assert_eq!(card("a + 1"), None);
    assert_eq!(card("1 + a"), None);
}

#[test]
fn a_lone_selector_is_its_matchers() {
    let shown = |text: &str| format!("{:?}", parse_selector(text).unwrap());
    assert_eq!(shown(r#"up{job="api"}"#), r#"[job="api", __name__="up"]"#);
    assert_eq!(shown(" sum "), r#"[__name__="sum"]"#);
    assert_eq!(shown("{}"), "[]");
    assert!(matchers_all_match_empty(&parse_selector("{a='',b!='x'}").unwrap()));
    assert!(!matchers_all_match_empty(&parse_selector("{a='',b='x'}").unwrap()));
}

#[test]
fn long_queries_are_broken_into_lines() {
    let short = "sum by (job) (rate(http_requests_total[5m]))";
    assert_eq!(pretty::pretty(&read(short)), short);
    let long = "histogram_quantile(0.99, sum by (le, cluster, namespace) (rate(http_request_duration_seconds_bucket\
                {cluster='one'}[5m]))) / on(cluster, namespace) group_left(owner) -(avg(kube_namespace_owner_information_about_teams) \
                by (cluster, namespace, owner, another_label_name) + 1)";
    let expect = [
        "  histogram_quantile(",
        "    0.99,",
        "    sum by (le, cluster, namespace) (rate(http_request_duration_seconds_bucket{cluster=\"one\"}[5m]))",
        "  )",
        "/ on (cluster, namespace) group_left (owner)",
        "  -(",
        "      avg by (cluster, namespace, owner, another_label_name) (",
        "        kube_namespace_owner_information_about_teams",
        "      )",
        "    +",
        "      1",
        "  )",
    ]
    .join("\n");
    let printed = pretty::pretty(&read(long));
    assert_eq!(printed, expect);
    assert_eq!(read(&printed).to_string(), read(long).to_string());
}

#[test]
fn a_broken_subquery_keeps_its_suffix() {
    let (label, metric) = ("a".repeat(40), "b".repeat(60));
    let text = format!("max_over_time(avg by ({label}) ({metric}{{c=\"d\"}})[1h:1m] offset 5m)");
    let expect = [
        "max_over_time(".to_owned(),
        format!("  avg by ({label}) ("),
        format!("    {metric}{{c=\"d\"}}"),
        "  )[1h:1m] offset 5m".to_owned(),
        ")".to_owned(),
    ]
    .join("\n");
    assert_eq!(pretty::pretty(&read(&text)), expect);
}
