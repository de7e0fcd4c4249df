//! The scripts in `tests/promql`: that they are well-formed, and what they say.

use std::{collections::BTreeSet, path::PathBuf};

use luminate::promql::{
    functions::signature::TABLE,
    parse::{self, Expr, ParserFeatures},
};

use crate::script::{self, Action, Command, Text};

/// All scripts, by name.
pub(crate) fn scripts() -> Vec<(String, Vec<Command>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/promql");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|e| e.expect("an entry").path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|e| e == "test"));
    paths.sort();
    let read = |path: PathBuf| {
        let name = path.file_name().expect("a file has a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).expect("a script is text");
        let script = script::parse(&text).unwrap_or_else(|e| panic!("{name}: {e:#}"));
        (name, script)
    };
    paths.into_iter().map(read).collect()
}

#[test]
fn every_query_of_the_scripts_parses_unless_it_has_to_fail() {
    let mut evals = 0;
    for (name, script) in scripts() {
        for Command { line, action } in script {
            let Action::Eval(eval) = action else { continue };
            evals += 1;
            let error = parse::parse(&eval.query, &ParserFeatures::default()).err().map(|e| e.to_string());
            match (error, &eval.expect.fail) {
                (None, _) | (Some(_), Some(Text::Any | Text::Matches(_))) => {}
                (Some(error), Some(Text::Contains(part))) => {
                    assert!(error.contains(part), "{name}:{line}: {}: {error}", eval.query);
                }
                (Some(error), None) => panic!("{name}:{line}: {}: {error}", eval.query),
            }
        }
    }
    assert!(evals >= 300, "only {evals} evaluations");
}

#[test]
fn the_scripts_call_every_function_on_floats() {
    fn note(expr: &Expr, called: &mut BTreeSet<&'static str>) {
        if let Expr::Call(call) = expr {
            called.insert(call.function.name);
        }
        if let Expr::Aggregate(aggregate) = expr {
            called.insert(aggregate.op.as_str());
        }
        expr.children().for_each(|child| note(child, called));
    }
    let mut called = BTreeSet::new();
    for (_, script) in scripts() {
        for Command { action, .. } in script {
            if let Action::Eval(eval) = action
                && let Ok(expr) = parse::parse(&eval.query, &ParserFeatures::default())
            {
                note(&expr, &mut called);
            }
        }
    }
    // These need what a float sample does not have.
    const ELSEWHERE: [&str; 6] = [
        "histogram_avg",
        "histogram_count",
        "histogram_stddev",
        "histogram_stdvar",
        "histogram_sum",
        "start_timestamp",
    ];
    let functions = TABLE.iter().map(|f| f.name).filter(|name| !ELSEWHERE.contains(name));
    let aggregations = [
        "sum",
        "avg",
        "count",
        "min",
        "max",
        "group",
        "stddev",
        "stdvar",
        "topk",
        "bottomk",
        "count_values",
        "quantile",
        "limitk",
        "limit_ratio",
    ];
    let missing: Vec<_> = functions.chain(aggregations).filter(|name| !called.contains(name)).collect();
    assert!(missing.is_empty(), "no script calls {missing:?}");
}
