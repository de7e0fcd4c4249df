//! A query as a tree in JSON, as Prometheus' user interface takes it.
//!
//! Times and lengths are in milliseconds. A length that depends on the query (`[5m + step()]`) has no number: it is
//! told as 0, as Prometheus does, and as it is written in a member of its own (`rangeExpr`, `stepExpr`, `offsetExpr`).

use serde_json::{Value, json};

use crate::{
    model::Matcher,
    promql::{
        functions::Signature,
        parse::{
            Aggregate, At, Binary, Call, Cardinality, DurationExpr, Expr, Extended, MatrixSelector, Paren,
            Subquery, Unary, ValueType, VectorMatching, VectorSelector,
        },
    },
};

/// The tree below an expression.
///
/// It is no higher than [`MAX_HEIGHT`](crate::promql::parse::MAX_HEIGHT), as is the JSON of it.
pub fn tree(expr: &Expr) -> Value {
    // What the recursion passes by is small: one function for each kind of node.
    match expr {
        Expr::Number(number) => json!({"type": "numberLiteral", "val": number_text(number.value)}),
        Expr::String(string) => json!({"type": "stringLiteral", "val": string.value}),
        Expr::Paren(paren) => of_paren(paren),
        Expr::Unary(unary) => of_unary(unary),
        Expr::Vector(selector) => of_selector("vectorSelector", selector),
        Expr::Matrix(matrix) => of_matrix(matrix),
        Expr::Subquery(subquery) => of_subquery(subquery),
        Expr::Call(call) => of_call(call),
        Expr::Aggregate(aggregate) => of_aggregate(aggregate),
        Expr::Binary(binary) => of_binary(binary),
    }
}

#[inline(never)]
fn of_paren(paren: &Paren) -> Value {
    let expr = tree(&paren.expr);
    json!({"type": "parenExpr", "expr": expr})
}

#[inline(never)]
fn of_unary(unary: &Unary) -> Value {
    let expr = tree(&unary.expr);
    json!({"type": "unaryExpr", "op": if unary.negative { "-" } else { "+" }, "expr": expr})
}

fn of_matrix(matrix: &MatrixSelector) -> Value {
    let mut node = of_selector("matrixSelector", &matrix.selector);
    put_length(&mut node, "range", Some(&matrix.range));
    node
}

#[inline(never)]
fn of_subquery(subquery: &Subquery) -> Value {
    let expr = tree(&subquery.expr);
    let mut node = json!({"type": "subquery", "expr": expr});
    put_length(&mut node, "range", Some(&subquery.range));
    put_length(&mut node, "step", subquery.step.as_ref());
    put_length(&mut node, "offset", subquery.offset.as_ref());
    put_at(&mut node, subquery.at);
    node
}

#[inline(never)]
fn of_call(call: &Call) -> Value {
    let args: Vec<Value> = call.args.iter().map(tree).collect();
    json!({"type": "call", "func": of_function(call.function), "args": args})
}

fn of_function(function: &Signature) -> Value {
    let arg_types: Vec<&str> = function.args.iter().map(|of| type_name(*of)).collect();
    json!({
        "name": function.name,
        "argTypes": arg_types,
        "variadic": function.variadic,
        "returnType": type_name(function.returns),
    })
}

#[inline(never)]
fn of_aggregate(aggregate: &Aggregate) -> Value {
    let expr = tree(&aggregate.expr);
    let param = aggregate.param.as_deref().map(tree);
    json!({
        "type": "aggregation",
        "op": aggregate.op.as_str(),
        "expr": expr,
        "param": param,
        "grouping": aggregate.grouping,
        "without": aggregate.without,
    })
}

#[inline(never)]
fn of_binary(binary: &Binary) -> Value {
    let (lhs, rhs) = (tree(&binary.lhs), tree(&binary.rhs));
    json!({
        "type": "binaryExpr",
        "op": binary.op.as_str(),
        "lhs": lhs,
        "rhs": rhs,
        "matching": binary.matching.as_ref().map(of_matching),
        "bool": binary.return_bool,
    })
}

fn of_selector(kind: &str, selector: &VectorSelector) -> Value {
    let matchers: Vec<Value> = selector.matchers.iter().map(of_matcher).collect();
    let mut node = json!({
        "type": kind,
        "name": selector.name.as_deref().unwrap_or_default(),
        "matchers": matchers,
        "anchored": selector.extended == Some(Extended::Anchored),
        "smoothed": selector.extended == Some(Extended::Smoothed),
    });
    put_length(&mut node, "offset", selector.offset.as_ref());
    put_at(&mut node, selector.at);
    node
}

fn of_matcher(matcher: &Matcher) -> Value {
    json!({"name": matcher.name(), "value": matcher.value(), "type": matcher.op().to_string()})
}

fn of_matching(matching: &VectorMatching) -> Value {
    let card = match matching.card {
        Cardinality::OneToOne => "one-to-one",
        Cardinality::ManyToOne => "many-to-one",
        Cardinality::OneToMany => "one-to-many",
        Cardinality::ManyToMany => "many-to-many",
    };
    json!({
        "card": card,
        "labels": matching.labels,
        "on": matching.on,
        "include": matching.include,
        "fillValues": {"lhs": matching.fill_left.map(number), "rhs": matching.fill_right.map(number)},
    })
}

fn put_at(node: &mut Value, at: Option<At>) {
    let (timestamp, edge) = match at {
        None => (None, None),
        Some(At::Time(millis)) => (Some(millis), None),
        Some(At::Start) => (None, Some("start")),
        Some(At::End) => (None, Some("end")),
    };
    node["timestamp"] = timestamp.into();
    node["startOrEnd"] = edge.into();
}

fn put_length(node: &mut Value, name: &str, length: Option<&DurationExpr>) {
    node[name] = length.and_then(millis).unwrap_or(0).into();
    if let Some(written) = length.filter(|length| millis(length).is_none()) {
        node[format!("{name}Expr")] = written.to_string().into();
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the parser takes no length that does not fit")]
fn millis(length: &DurationExpr) -> Option<i64> {
    match length {
        DurationExpr::Literal { seconds, .. } => Some((seconds * 1000.0).round() as i64),
        DurationExpr::Step(_)
        | DurationExpr::Range(_)
        | DurationExpr::MinOf(..)
        | DurationExpr::MaxOf(..)
        | DurationExpr::Unary(..)
        | DurationExpr::Binary(..)
        | DurationExpr::Paren(..) => None,
    }
}

fn type_name(of: ValueType) -> &'static str {
    match of {
        ValueType::Scalar => "scalar",
        ValueType::String => "string",
        ValueType::InstantVector => "vector",
        ValueType::RangeVector => "matrix",
    }
}

/// A number, or its name where JSON has no number for it.
fn number(value: f64) -> Value {
    if value.is_finite() { value.into() } else { number_text(value).into() }
}

/// All digits of a number and no exponent.
fn number_text(value: f64) -> String {
    if value.is_infinite() {
        return if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned();
    }
    value.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promql::parse::{MAX_HEIGHT, MAX_NESTING, ParserFeatures, STACK_BYTES, parse};

    fn of(text: &str) -> Value {
        tree(&parse(text, &ParserFeatures::default()).unwrap())
    }

    fn name(value: &str) -> Value {
        json!({"name": "__name__", "value": value, "type": "="})
    }

    /// A selector of `up` without modifiers.
    fn up() -> Value {
        json!({
            "type": "vectorSelector", "name": "up", "matchers": [name("up")], "offset": 0,
            "timestamp": null, "startOrEnd": null, "anchored": false, "smoothed": false,
        })
    }

    #[test]
    fn literals_and_signs_are_as_written() {
        assert_eq!(of("1.50"), json!({"type": "numberLiteral", "val": "1.5"}));
        assert_eq!(of("1e21")["val"], "1000000000000000000000");
        assert_eq!(of("Inf")["val"], "+Inf");
        assert_eq!(of("nan")["val"], "NaN");
        assert_eq!(of("5m")["val"], "300");
        assert_eq!(of(r#""a\"b""#), json!({"type": "stringLiteral", "val": "a\"b"}));
        assert_eq!(of("-up"), json!({"type": "unaryExpr", "op": "-", "expr": up()}));
        assert_eq!(of("(up)"), json!({"type": "parenExpr", "expr": up()}));
    }

    #[test]
    fn selectors_have_their_matchers_and_modifiers() {
        assert_eq!(
            of(r#"{"http.status",a!="b",c=~"d.*",e!~""} offset -90s @ 1.5"#),
            json!({
                "type": "vectorSelector", "name": "http.status",
                "matchers": [
                    name("http.status"),
                    {"name": "a", "value": "b", "type": "!="},
                    {"name": "c", "value": "d.*", "type": "=~"},
                    {"name": "e", "value": "", "type": "!~"},
                ],
                "offset": -90_000, "timestamp": 1_500, "startOrEnd": null, "anchored": false, "smoothed": false,
            })
        );
        assert_eq!(
            of("up[5m] smoothed @ end()"),
            json!({
                "type": "matrixSelector", "name": "up", "matchers": [name("up")], "range": 300_000, "offset": 0,
                "timestamp": null, "startOrEnd": "end", "anchored": false, "smoothed": true,
            })
        );
        assert_eq!(of(r#"{a="b"}"#)["name"], "");
        assert_eq!(
            of("up[1h:] @ start() offset 1ms"),
            json!({
                "type": "subquery", "expr": up(), "range": 3_600_000, "step": 0, "offset": 1,
                "timestamp": null, "startOrEnd": "start",
            })
        );
        assert_eq!(of("up[1h:1m30s]")["step"], 90_000);
    }

    #[test]
    fn what_has_no_length_yet_is_told_as_written() {
        let node = of("up[5m + step()] offset -(range())");
        assert_eq!((&node["range"], &node["rangeExpr"]), (&json!(0), &json!("5m + step()")));
        assert_eq!((&node["offset"], &node["offsetExpr"]), (&json!(0), &json!("-(range())")));
        let node = of("up[step():max_of(1m, step())]");
        assert_eq!((&node["step"], &node["stepExpr"]), (&json!(0), &json!("max_of(1m, step())")));
    }

    #[test]
    fn calls_have_the_types_of_their_function() {
        assert_eq!(
            of("round(up, 5)"),
            json!({
                "type": "call",
                "func": {"name": "round", "argTypes": ["vector", "scalar"], "variadic": 1, "returnType": "vector"},
                "args": [up(), {"type": "numberLiteral", "val": "5"}],
            })
        );
        let rate = of("rate(up[1m])");
        assert_eq!((&rate["func"]["argTypes"], &rate["func"]["variadic"]), (&json!(["matrix"]), &json!(0)));
        assert_eq!(of("time()")["args"], json!([]));
    }

    #[test]
    fn aggregations_and_operators_have_their_clauses() {
        assert_eq!(
            of("topk without (a, b) (3, up)"),
            json!({
                "type": "aggregation", "op": "topk", "expr": up(), "grouping": ["a", "b"], "without": true,
                "param": {"type": "numberLiteral", "val": "3"},
            })
        );
        assert_eq!(of("sum(up)")["param"], Value::Null);
        assert_eq!(of("1 + 2")["matching"], Value::Null);
        assert_eq!(
            of("up == bool on (a) group_left (b) fill_right (0.5) up"),
            json!({
                "type": "binaryExpr", "op": "==", "lhs": up(), "rhs": up(), "bool": true,
                "matching": {
                    "card": "many-to-one", "labels": ["a"], "on": true, "include": ["b"],
                    "fillValues": {"lhs": null, "rhs": 0.5},
                },
            })
        );
        assert_eq!(of("up and up")["matching"]["card"], "many-to-many");
        assert_eq!(of("up + fill (NaN) up")["matching"]["fillValues"], json!({"lhs": "NaN", "rhs": "NaN"}));
    }

    #[test]
    fn the_highest_trees_are_told() {
        // As a thread that serves has it.
        let small = std::thread::Builder::new().stack_size(STACK_BYTES);
        let told = || {
            let depth = MAX_NESTING as usize - 1;
            let text = format!("{}1{}", "(".repeat(depth), ")".repeat(depth));
            assert_eq!(of(&text).to_string().matches("parenExpr").count(), depth);
            let text = format!("{}up", "up + ".repeat(MAX_HEIGHT as usize - 1));
            assert_eq!(of(&text).to_string().matches("binaryExpr").count(), MAX_HEIGHT as usize - 1);
        };
        small.spawn(told).unwrap().join().unwrap();
    }
}
