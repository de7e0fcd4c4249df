//! Selections whose values nobody looks at.
//!
//! What counts samples or series, or only asks whether there are any, needs their times and which of them are stale
//! markers: `count(up)`, `absent(up)`, `count_over_time(up[1h])`, `timestamp(up)`. Such a selection asks for no
//! [values](crate::storage::SelectRequest::values), and the store need not decode them.

use super::{Node, NodeId, Operation, Plan, Source, Take, VectorFunction, Windows};
use crate::promql::{functions::range::RangeFunction, parse::AggregateOp};

impl Plan {
    /// Has selections ask for no values if no node looks at them.
    pub(super) fn leave_out_values(&mut self) {
        let mut seen = vec![false; self.nodes.len()];
        if let Some(root) = seen.last_mut() {
            *root = true;
        }
        for node in &self.nodes {
            for input in node.operation.inputs() {
                seen[input] |= !counts(&node.operation, input);
            }
        }
        let mut wanted = vec![false; self.selections.len()];
        for (node, seen) in self.nodes.iter().zip(seen) {
            if let Some(selection) = valued(node, seen) {
                wanted[selection] = true;
            }
        }
        for (selection, wanted) in self.selections.iter_mut().zip(wanted) {
            selection.request.values = wanted;
        }
    }
}

/// Whether an operation only asks where its input has values.
fn counts(operation: &Operation, input: NodeId) -> bool {
    match operation {
        Operation::Aggregate(aggregation) => {
            matches!(aggregation.op, AggregateOp::Count | AggregateOp::Group)
                && aggregation.param != Some(input)
        }
        Operation::Call { function: VectorFunction::Absent(_), .. } => true,
        _ => false,
    }
}

/// The selection whose values a node looks at, if its own are `seen`.
fn valued(node: &Node, seen: bool) -> Option<usize> {
    let of = |windows: &Windows| match windows.source {
        Source::Selection(selection) => Some(selection),
        Source::Subquery(_) => None,
    };
    match &node.operation {
        Operation::Instant { selection, take, .. } => match take {
            Take::Timestamp => None,
            Take::Value => seen.then_some(*selection),
            Take::Smoothed | Take::Start => Some(*selection),
        },
        Operation::Range { function, windows, .. } => match function {
            RangeFunction::CountOverTime | RangeFunction::PresentOverTime => None,
            _ => of(windows),
        },
        Operation::Samples(windows) => of(windows),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        model::Millis,
        promql::{
            exec::rows::Steps,
            parse::{ParserFeatures, parse},
            plan::{PlanOptions, plan},
        },
    };

    /// For each selection, whether its values are asked for.
    fn wanted(text: &str) -> Vec<bool> {
        let options = PlanOptions {
            lookback: Millis(300_000),
            default_subquery_step: Millis(60_000),
            start_timestamps: false,
        };
        let steps = Steps { start: 0, step: 60_000, count: 10 };
        let expr = parse(text, &ParserFeatures::default()).unwrap();
        let plan = plan(&expr, text, steps, 540_000, &options, 11_000).unwrap();
        plan.selections.iter().map(|selection| selection.request.values).collect()
    }

    #[test]
    fn values_are_left_out_where_only_their_presence_counts() {
        for text in [
            "count(up)",
            "count by (job) (up)",
            "group without (instance) (up offset 5m)",
            "absent(up)",
            "count(up @ 5)",
            "absent_over_time(up[5m])",
            "count_over_time(up[5m])",
            "sum(count_over_time(up[5m]))",
            "timestamp(up)",
            "count(up) + group(up)",
            "sum_over_time(count(up)[5m:1m])",
        ] {
            assert_eq!(wanted(text), [false], "{text}");
        }
    }

    #[test]
    fn values_are_asked_for_where_anybody_looks_at_them() {
        for text in [
            "up",
            "count(up > 0)",
            "count(abs(up))",
            "count_values(\"v\", up)",
            "count(rate(up[5m]))",
            "sum(up)",
            "sum(up) / count(up)",
            "limitk(1, up)",
            "topk(scalar(count(up)), up)",
            "changes(up[5m])",
            "last_over_time(up[5m])",
            "start_timestamp(up)",
            "count(up smoothed)",
        ] {
            assert!(wanted(text).contains(&true), "{text}");
        }
    }
}
