//! What the store may do instead of us, leaf by leaf.
//!
//! A selection that one node alone reads is asked for with an [`Offer`]: the newest sample or a range
//! function over the node's own steps, and the aggregation that takes it over, if that cannot be told
//! from the rows. Whatever the store then leaves is done as always. Not offered is what needs more than
//! a row of floats can carry: start timestamps, times of samples, edges beyond the window, statistics
//! of samples that were never here.
//!
//! An aggregation is offered only where nobody above it could tell in which order its groups come: the
//! store does not know which series would have come first.

use super::{Aggregation, Node, NodeId, Operation, Plan, Source, Take};
use crate::{
    model::{METRIC_NAME, Millis},
    promql::{
        functions::range::{Edges, RangeFunction},
        parse::AggregateOp,
    },
    storage::offer::{self, Combine, Offer, WindowFunction},
};

/// Times beyond this are left to us, so that nobody has to think of the ends of time.
const FURTHEST: i64 = 1 << 52;

/// What decides about offers besides the plan.
#[derive(Clone, Copy, Debug)]
pub struct OfferRules {
    /// Whether names are dropped when the query is done.
    pub delayed_names: bool,
    /// Places that rows may have together.
    pub max_places: u64,
}

impl Plan {
    /// Adds offers to the plan's selections where the answer will be the same.
    pub fn offer(&mut self, rules: &OfferRules) {
        let above = self.aggregations_above();
        for id in 0..self.nodes.len() {
            let Some((selection, operation)) = self.leaf(id) else { continue };
            if self.readers_of(selection) != 1 {
                continue;
            }
            let mut operations = vec![operation];
            operations.extend(self.aggregation_over(id, selection, &above, rules));
            self.selections[selection].request.offer = Offer { operations, max_places: rules.max_places };
        }
    }

    /// What a node does with the samples of which selection, if rows can be made of it.
    fn leaf(&self, id: NodeId) -> Option<(usize, offer::Operation)> {
        let node = &self.nodes[id];
        let (selection, reference, back, operation) = match &node.operation {
            Operation::Instant { selection, reference, lookback, take: Take::Value, .. } => {
                (*selection, reference, *lookback, offer::Operation::Newest { lookback: Millis(*lookback) })
            }
            Operation::Range { function, windows, params, .. }
                if windows.edges == Edges::Plain && params.is_empty() =>
            {
                let Source::Selection(selection) = windows.source else { return None };
                let (function, range) = (offered(*function)?, Millis(windows.range));
                let operation = offer::Operation::Window { function, range };
                (selection, &windows.reference, windows.range, operation)
            }
            _ => return None,
        };
        let request = &self.selections[selection].request;
        let grid = request.grid?;
        let count = node.steps.count;
        let (first, last) =
            (reference.of(&node.steps, 0), reference.of(&node.steps, count.saturating_sub(1)));
        let usual = !request.start_timestamps
            && count > 0
            && (count == 1 || (reference.at.is_none() && grid.step.0 == node.steps.step))
            && (grid.start.0, grid.end.0, grid.count()) == (first, last, count)
            && back > 0
            && [first, last, back].iter().all(|time| (-FURTHEST..FURTHEST).contains(time));
        usual.then_some((selection, operation))
    }

    /// How many nodes read a selection.
    fn readers_of(&self, selection: usize) -> usize {
        let reads = |node: &&Node| match &node.operation {
            Operation::Instant { selection: read, .. } => *read == selection,
            Operation::Samples(windows)
            | Operation::Range { windows, .. }
            | Operation::AbsentOverTime { windows, .. } => windows.source == Source::Selection(selection),
            _ => false,
        };
        self.nodes.iter().filter(reads).count()
    }

    /// The aggregation that takes a leaf over, if it may be done elsewhere.
    fn aggregation_over(
        &self,
        leaf: NodeId,
        selection: usize,
        above: &[bool],
        rules: &OfferRules,
    ) -> Option<offer::Operation> {
        let reads_leaf = |node: &Node| match &node.operation {
            Operation::Aggregate(aggregation) => aggregation.input == leaf,
            _ => false,
        };
        let reader = self.nodes.iter().position(reads_leaf)?;
        let Operation::Aggregate(aggregation) = &self.nodes[reader].operation else { return None };
        let fits = self.nodes[leaf].streamed
            && self.selections[selection].one_name
            && self.nodes[leaf].steps.count > 1
            && !above[reader]
            && !rules.delayed_names
            && !aggregation.without
            && !aggregation.grouping.iter().any(|name| goes_with_the_name(name));
        if !fits {
            return None;
        }
        let by = aggregation.grouping.clone();
        Some(offer::Operation::Aggregate { combine: combined(aggregation)?, by })
    }

    /// For each node, whether its rows get into something that depends on their order.
    fn aggregations_above(&self) -> Vec<bool> {
        let mut above = vec![false; self.nodes.len()];
        for id in (0..self.nodes.len()).rev() {
            let operation = &self.nodes[id].operation;
            let ordered = match operation {
                Operation::Aggregate(_) | Operation::Info(_) => true,
                _ => above[id],
            };
            for input in operation.inputs() {
                above[input] |= ordered;
            }
        }
        above
    }
}

fn goes_with_the_name(label: &str) -> bool {
    [METRIC_NAME, "__type__", "__unit__"].contains(&label)
}

fn combined(aggregation: &Aggregation) -> Option<Combine> {
    Some(match aggregation.op {
        AggregateOp::Sum => Combine::Sum,
        AggregateOp::Avg => Combine::Avg,
        AggregateOp::Min => Combine::Min,
        AggregateOp::Max => Combine::Max,
        AggregateOp::Count => Combine::Count,
        AggregateOp::Group => Combine::Group,
        AggregateOp::Stddev
        | AggregateOp::Stdvar
        | AggregateOp::Topk
        | AggregateOp::Bottomk
        | AggregateOp::CountValues
        | AggregateOp::Quantile
        | AggregateOp::Limitk
        | AggregateOp::LimitRatio => return None,
    })
}

/// What a function is called in an offer; those that depend on more than values and times have no name.
pub fn offered(function: RangeFunction) -> Option<WindowFunction> {
    use RangeFunction as F;
    Some(match function {
        F::Rate => WindowFunction::Rate,
        F::Increase => WindowFunction::Increase,
        F::Delta => WindowFunction::Delta,
        F::Irate => WindowFunction::Irate,
        F::Idelta => WindowFunction::Idelta,
        F::Deriv => WindowFunction::Deriv,
        F::Changes => WindowFunction::Changes,
        F::Resets => WindowFunction::Resets,
        F::AvgOverTime => WindowFunction::Avg,
        F::SumOverTime => WindowFunction::Sum,
        F::MinOverTime => WindowFunction::Min,
        F::MaxOverTime => WindowFunction::Max,
        F::CountOverTime => WindowFunction::Count,
        F::LastOverTime => WindowFunction::Last,
        F::PresentOverTime => WindowFunction::Present,
        F::PredictLinear
        | F::DoubleExponentialSmoothing
        | F::StddevOverTime
        | F::StdvarOverTime
        | F::MadOverTime
        | F::QuantileOverTime
        | F::FirstOverTime
        | F::TsOfFirstOverTime
        | F::TsOfLastOverTime
        | F::TsOfMinOverTime
        | F::TsOfMaxOverTime => return None,
    })
}
