//! Evaluates a plan.
//!
//! [`evaluate`] walks a plan's nodes from the first to the last. Each gives an [`Output`] for all of its
//! steps at once and takes those of the nodes it reads; an output goes when its last reader has taken it.
//!
//! ```text
//! sum by (job) (rate(http_requests_total[5m]))          4 steps
//!
//!   chunk of 256 series ─ read ─ windows ─ rate ─▶ rows ┐
//!   chunk of 256 series ─ read ─ windows ─ rate ─▶ rows ┼─ folded into {job="a"} [·][·][·][·]
//!   …                                                   ┘              {job="b"} [·][·][·][·]
//! ```
//!
//! Evaluation is series by series over dense rows ([`rows`]): labels are looked at once per query, and
//! what remains are loops over floats. Leaves are evaluated in parallel over chunks of series, put
//! together in the order of the chunks ([`context`]). Everything here is computation: what the store has
//! to answer was asked before ([`data`]), and only samples are still read and decoded, off the I/O threads.

pub mod aggregate;
pub mod binary;
pub mod call;
pub mod context;
pub mod data;
pub mod element;
pub mod info;
pub mod matching;
pub mod names;
pub mod order;
pub mod range;
pub mod rows;
pub mod select;
pub mod set;
pub mod subquery;
pub mod taken;

use foldhash::{HashMap, HashMapExt};
use xxhash_rust::xxh3::Xxh3;

use crate::{
    model::Labels,
    promql::{
        MatrixSeries, QueryError,
        annotations::{self, Annotations},
        functions::range::{Frame, RangeFunction},
        parse::Span,
        plan::{Aggregation, Counted, Node, NodeId, Operation, Plan, Source, Windows},
    },
};
use aggregate::{fold::Fold, group::Keys};
use context::{Context, Findings, weight};
use data::{LateSelects, SelectedSeries};
use element::Operator;
use names::Names;
use range::Windowed;
use rows::{Row, SeriesRow, Steps};
use taken::Taken;

/// What a node gives.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// A number per step.
    Scalar(Vec<f64>),
    /// A text.
    Text(String),
    /// A row per series.
    Vector(Vec<SeriesRow>),
    /// Samples as they are.
    Samples(Vec<MatrixSeries>),
}

impl Output {
    /// The numbers of a scalar.
    pub fn scalar(self) -> Result<Vec<f64>, QueryError> {
        match self {
            Self::Scalar(values) => Ok(values),
            Self::Text(_) | Self::Vector(_) | Self::Samples(_) => Err(unexpected("scalar")),
        }
    }

    /// The rows of an instant vector.
    pub fn vector(self) -> Result<Vec<SeriesRow>, QueryError> {
        match self {
            Self::Vector(rows) => Ok(rows),
            Self::Scalar(_) | Self::Text(_) | Self::Samples(_) => Err(unexpected("instant vector")),
        }
    }

    fn weight(&self) -> u64 {
        match self {
            // A number without labels or time takes half of what a sample does.
            Self::Scalar(values) => u64::try_from(values.len() / 2).unwrap_or(u64::MAX),
            Self::Text(_) | Self::Samples(_) => 0,
            Self::Vector(rows) => rows.iter().map(|row| weight(&row.row)).sum(),
        }
    }
}

/// The parser checks types; a plan that has them wrong was not made by it.
fn unexpected(wanted: &str) -> QueryError {
    QueryError::Execution(format!("expression does not evaluate to type {wanted}"))
}

/// A plan's result and what was found out on the way.
#[derive(Debug)]
pub struct Evaluated {
    /// The result.
    pub output: Output,
    /// What the user should know.
    pub notes: Annotations,
    /// Samples in the windows, per step of the query.
    pub queryable: Vec<u64>,
    /// Samples read from the store.
    pub samples_read: u64,
    /// The same per step of the query, if that is asked for.
    pub read: Vec<u64>,
    /// Which rows came to be aggregated, and in which order: a number that is the same for the same only.
    pub order: u128,
}

/// Evaluates a plan over the answers to its selections.
///
/// What the plan cannot know to be needed is asked for through `late`.
pub fn evaluate(
    context: &Context,
    plan: &Plan,
    data: &[SelectedSeries],
    late: &LateSelects,
) -> Result<Evaluated, QueryError> {
    let mut walk = Walk {
        context,
        plan,
        data,
        late,
        outputs: Vec::new(),
        done: Evaluated {
            output: Output::Vector(Vec::new()),
            notes: Annotations::default(),
            queryable: vec![0; plan.steps.count],
            samples_read: 0,
            read: context.settings.count_reads.map_or_else(Vec::new, |steps| vec![0; steps.count]),
            order: 0,
        },
    };
    for node in &plan.nodes {
        context.check()?;
        let output = if node.streamed || node.readers == 0 { None } else { Some(walk.node(node)?) };
        let held = output.as_ref().map_or(0, Output::weight);
        context.budget.hold(held)?;
        walk.outputs.push(Slot { output, held, readers: node.readers });
        if node.streamed {
            // Its inputs are read when the aggregation that it goes into is.
            continue;
        }
        for input in node.operation.inputs() {
            walk.let_go(input);
            if plan.nodes[input].streamed {
                for input in plan.nodes[input].operation.inputs() {
                    walk.let_go(input);
                }
            }
        }
    }
    let root = plan.nodes.len().saturating_sub(1);
    walk.done.output = match walk.take(root)? {
        Output::Vector(rows) if context.settings.delayed_names => {
            Output::Vector(names::settle(&context.budget, rows)?)
        }
        other => other,
    };
    Ok(walk.done)
}

/// A node's output until its last reader has been evaluated.
#[derive(Debug)]
struct Slot {
    output: Option<Output>,
    held: u64,
    readers: usize,
}

struct Walk<'a> {
    context: &'a Context,
    plan: &'a Plan,
    data: &'a [SelectedSeries],
    late: &'a LateSelects,
    outputs: Vec<Slot>,
    done: Evaluated,
}

impl<'w> Walk<'w> {
    /// The output of a node for a reader: the last one gets it, others a copy.
    fn take(&mut self, node: NodeId) -> Result<Output, QueryError> {
        let slot = &mut self.outputs[node];
        let output = if slot.readers == 1 { slot.output.take() } else { slot.output.clone() };
        output.ok_or_else(|| unexpected("anything"))
    }

    fn take_all(&mut self, nodes: &[NodeId]) -> Result<Vec<Output>, QueryError> {
        // A node read twice by the same reader is only given away the second time.
        let mut taken = Vec::with_capacity(nodes.len());
        for (i, node) in nodes.iter().enumerate() {
            let again = nodes[i + 1..].contains(node);
            taken.push(if again { self.copy(*node)? } else { self.take(*node)? });
        }
        Ok(taken)
    }

    fn copy(&self, node: NodeId) -> Result<Output, QueryError> {
        self.outputs[node].output.clone().ok_or_else(|| unexpected("anything"))
    }

    fn scalars(&mut self, nodes: &[NodeId]) -> Result<Vec<Vec<f64>>, QueryError> {
        nodes.iter().map(|node| self.copy(*node)?.scalar()).collect()
    }

    /// One reader of a node is done.
    fn let_go(&mut self, node: NodeId) {
        let slot = &mut self.outputs[node];
        slot.readers = slot.readers.saturating_sub(1);
        if slot.readers == 0 {
            slot.output = None;
            self.context.budget.release(std::mem::take(&mut slot.held));
        }
    }

    fn node(&mut self, node: &Node) -> Result<Output, QueryError> {
        let steps = node.steps;
        let context = self.context;
        Ok(match &node.operation {
            Operation::Number(value) => Output::Scalar(vec![*value; steps.count]),
            Operation::Text(text) => Output::Text(text.clone()),
            Operation::Time => {
                Output::Scalar((0..steps.count).map(|step| select::seconds(steps.at(step))).collect())
            }
            Operation::Instant { take, .. } => {
                let rows = self.leaf_rows(&node.operation, steps, &[])?;
                Output::Vector(if take.changes_meaning() {
                    names::merge_same(&context.budget, rows)?
                } else {
                    rows
                })
            }
            Operation::Samples(windows) => Output::Samples(self.samples(windows, &steps)?),
            Operation::Range { function, windows, params, span, param_span, counted } => {
                let params = self.scalars(params)?;
                let params: Vec<&[f64]> = params.iter().map(Vec::as_slice).collect();
                let windowed = Windowed {
                    function: *function,
                    reference: windows.reference,
                    range: windows.range,
                    edges: windows.edges,
                    params: &params,
                    steps,
                    span: *span,
                    param_span: *param_span,
                    counted: *counted,
                    names: Names::AsMeant,
                };
                Output::Vector(match windows.source {
                    Source::Selection(_) => self.range(&node.operation, &windowed)?,
                    Source::Subquery(input) => self.range_of_subquery(input, &windowed)?,
                })
            }
            Operation::AbsentOverTime { windows, labels, counted } => {
                Output::Vector(self.absent_over_time(windows, labels, *counted, steps)?)
            }
            Operation::Map { function, input, params } => {
                let params = self.scalars(params)?;
                let params: Vec<&[f64]> = params.iter().map(Vec::as_slice).collect();
                let rows = self.take(*input)?.vector()?;
                Output::Vector(call::map(context, *function, rows, &params)?)
            }
            Operation::Call { function, args, spans } => {
                let args = self.take_all(args)?;
                call::call(context, function, args, spans, steps, &mut self.done.notes)?
            }
            Operation::Info(described) => {
                let rows = self.take(described.input)?.vector()?;
                let mut findings = Findings::default();
                let rows = info::info(context, self.late, described, rows, &steps, &mut findings)?;
                self.count(findings, Counted::Nowhere);
                Output::Vector(rows)
            }
            Operation::Aggregate(aggregation) => {
                let param = match aggregation.param {
                    Some(param) => Some(self.copy(param)?.scalar()?),
                    None => None,
                };
                if self.plan.nodes[aggregation.input].streamed {
                    return Ok(Output::Vector(self.stream(aggregation)?));
                }
                let rows = self.take(aggregation.input)?.vector()?;
                Output::Vector(self.aggregate(aggregation, rows, param.as_deref(), &steps)?)
            }
            Operation::Binary { op, lhs, rhs, return_bool, matching, span } => {
                let operator = Operator { op: *op, return_bool: *return_bool, span: *span };
                let mut sides = self.take_all(&[*lhs, *rhs])?.into_iter();
                let (Some(lhs), Some(rhs)) = (sides.next(), sides.next()) else {
                    return Err(unexpected("anything"));
                };
                let notes = &mut self.done.notes;
                match (lhs, rhs) {
                    (Output::Scalar(lhs), Output::Scalar(rhs)) => {
                        Output::Scalar(binary::scalars(&operator, lhs, &rhs))
                    }
                    (Output::Vector(rows), Output::Scalar(scalar)) => {
                        Output::Vector(binary::with_scalar(context, &operator, rows, scalar, true, notes)?)
                    }
                    (Output::Scalar(scalar), Output::Vector(rows)) => {
                        Output::Vector(binary::with_scalar(context, &operator, rows, scalar, false, notes)?)
                    }
                    (lhs, rhs) => {
                        let (lhs, rhs) = (lhs.vector()?, rhs.vector()?);
                        let matching = matching.as_ref().ok_or_else(|| unexpected("scalar"))?;
                        Output::Vector(if op.is_set() {
                            set::evaluate(context, *op, lhs, rhs, matching, &steps)?
                        } else {
                            matching::vectors(context, &operator, &lhs, &rhs, matching, &steps, notes)?
                        })
                    }
                }
            }
            Operation::Negate(input) => match self.take(*input)? {
                Output::Scalar(values) => Output::Scalar(values.into_iter().map(|v| -v).collect()),
                other => Output::Vector(binary::negate(context, other.vector()?)?),
            },
            Operation::Invariant(input) => spread(context, self.take(*input)?, &steps)?,
        })
    }

    /// Evaluates an instant selector or a range function over the store's series, chunk by chunk.
    ///
    /// `shape` sees each chunk's rows on the thread that made them, `take` gets the results in order.
    fn leaf<T: Send>(
        &mut self,
        operation: &Operation,
        steps: Steps,
        params: &[&[f64]],
        names: Names,
        shape: impl Fn(Vec<SeriesRow>) -> T + Sync,
        take: impl FnMut(T) -> Result<(), QueryError>,
    ) -> Result<(), QueryError> {
        let context = self.context;
        if let Some((series, taken)) = self.taken(operation, &steps) {
            let work = |ordinals: std::ops::Range<usize>, findings: &mut Findings| {
                taken::chunk(context, series, ordinals, &taken, findings).map(&shape)
            };
            let findings = context.over_chunks(series.labels.len(), work, take)?;
            context.budget.release(findings.held);
            self.count(findings, taken.counted);
            return Ok(());
        }
        let (findings, counted) = match operation {
            Operation::Instant { selection, reference, lookback, take: taken, counted } => {
                let series = &self.data[*selection];
                let instant = select::Instant {
                    reference: *reference,
                    lookback: *lookback,
                    take: *taken,
                    counted: *counted,
                    names,
                };
                let work = |ordinals: std::ops::Range<usize>, findings: &mut Findings| {
                    select::chunk(context, series, ordinals, &instant, &steps, findings).map(&shape)
                };
                (context.over_chunks(series.labels.len(), work, take)?, *counted)
            }
            Operation::Range { function, windows, span, param_span, counted, .. } => {
                let Source::Selection(selection) = windows.source else {
                    return Err(unexpected("range vector"));
                };
                let series = &self.data[selection];
                let windowed = Windowed {
                    function: *function,
                    reference: windows.reference,
                    range: windows.range,
                    edges: windows.edges,
                    params,
                    steps,
                    span: *span,
                    param_span: *param_span,
                    counted: *counted,
                    names,
                };
                let work = |ordinals: std::ops::Range<usize>, findings: &mut Findings| {
                    range::chunk(context, series, ordinals, &windowed, findings).map(&shape)
                };
                (context.over_chunks(series.labels.len(), work, take)?, *counted)
            }
            _ => return Err(unexpected("instant vector")),
        };
        // What the rows weigh is counted where they go.
        context.budget.release(findings.held);
        self.count(findings, counted);
        Ok(())
    }

    /// The answer to a leaf's selection, if the store has evaluated the leaf.
    fn taken(&self, operation: &Operation, steps: &Steps) -> Option<(&'w SelectedSeries, Taken)> {
        let selection = selection_of(operation)?;
        let series = &self.data[selection];
        let taken = Taken::of(operation, steps.count)?;
        (series.taken > 0).then_some((series, taken))
    }

    /// All rows of a leaf.
    fn leaf_rows(
        &mut self,
        operation: &Operation,
        steps: Steps,
        params: &[&[f64]],
    ) -> Result<Vec<SeriesRow>, QueryError> {
        let mut rows = Vec::new();
        let take = |chunk: Vec<SeriesRow>| {
            rows.extend(chunk);
            Ok(())
        };
        self.leaf(operation, steps, params, Names::AsMeant, |chunk| chunk, take)?;
        Ok(rows)
    }

    /// Adds what workers found to the query's own.
    fn count(&mut self, findings: Findings, counted: Counted) {
        self.done.notes.merge(findings.notes);
        self.done.samples_read += findings.samples_read;
        for (sum, more) in self.done.read.iter_mut().zip(findings.read) {
            *sum += more;
        }
        match counted {
            Counted::PerStep => {
                for (sum, more) in self.done.queryable.iter_mut().zip(findings.queryable) {
                    *sum += more;
                }
            }
            Counted::ForAll => {
                let each = findings.queryable.iter().sum::<u64>();
                self.done.queryable.iter_mut().for_each(|sum| *sum += each);
            }
            Counted::Nowhere => {}
        }
    }

    /// A range function over the store's series.
    fn range(
        &mut self,
        operation: &Operation,
        windowed: &Windowed<'_>,
    ) -> Result<Vec<SeriesRow>, QueryError> {
        let rows = self.leaf_rows(operation, windowed.steps, windowed.params)?;
        if !windowed.function.keeps_name() && !self.context.settings.delayed_names {
            names::refuse_same(&self.context.budget, &rows)?;
        }
        Ok(rows)
    }

    /// A range function over the values of another expression.
    fn range_of_subquery(
        &mut self,
        input: NodeId,
        windowed: &Windowed<'_>,
    ) -> Result<Vec<SeriesRow>, QueryError> {
        let context = self.context;
        let delayed = context.settings.delayed_names;
        let keeps_name = windowed.function.keeps_name();
        let inner = self.take(input)?.vector()?;
        let inner_steps = self.plan.nodes[input].steps;
        let mut rows = Vec::with_capacity(inner.len());
        let work = |ordinals: std::ops::Range<usize>, findings: &mut Findings| {
            let (mut samples, mut frame) = (range::Samples::default(), Frame::default());
            let mut rows = Vec::with_capacity(ordinals.len());
            for series in &inner[ordinals] {
                context.check()?;
                subquery::load(&series.row, &inner_steps, &mut samples);
                let row = range::evaluate(context, &series.labels, &samples, windowed, &mut frame, findings)?;
                let Some(row) = row else { continue };
                let held = weight(&row);
                context.budget.hold(held)?;
                findings.held += held;
                let named = keeps_name || delayed;
                rows.push(SeriesRow {
                    labels: if named { series.labels.clone() } else { names::without_name(&series.labels) },
                    drop_name: delayed && (series.drop_name || !keeps_name),
                    row,
                });
            }
            Ok(rows)
        };
        let findings = context.over_chunks(inner.len(), work, |chunk: Vec<SeriesRow>| {
            rows.extend(chunk);
            Ok(())
        })?;
        // What the rows weigh is counted where they go.
        context.budget.release(findings.held);
        self.count(findings, windowed.counted);
        if !keeps_name && !delayed {
            names::refuse_same(&self.context.budget, &rows)?;
        }
        Ok(rows)
    }

    /// An aggregation of rows that are all there.
    fn aggregate(
        &mut self,
        aggregation: &Aggregation,
        rows: Vec<SeriesRow>,
        param: Option<&[f64]>,
        steps: &Steps,
    ) -> Result<Vec<SeriesRow>, QueryError> {
        let mut order = Order::after(self.done.order);
        rows.iter().for_each(|row| order.next(&row.labels));
        self.done.order = order.number();
        aggregate::aggregate(self.context, aggregation, rows, param, steps, &mut self.done.notes)
    }

    /// Folds a leaf's rows into groups as they come, so that they are never all held.
    fn stream(&mut self, aggregation: &Aggregation) -> Result<Vec<SeriesRow>, QueryError> {
        let plan = self.plan;
        let Node { operation, steps, .. } = &plan.nodes[aggregation.input];
        let params = match operation {
            Operation::Range { params, .. } => self.scalars(params)?,
            _ => Vec::new(),
        };
        let params: Vec<&[f64]> = params.iter().map(Vec::as_slice).collect();
        if let Some((groups, taken)) = self.taken(operation, steps).filter(|(series, _)| series.taken > 1) {
            return self.taken_groups(operation, groups, &taken);
        }
        if self.may_become_same(operation) {
            let rows = self.leaf_rows(operation, *steps, &params)?;
            names::refuse_same(&self.context.budget, &rows)?;
            return self.aggregate(aggregation, rows, None, steps);
        }
        let mut groups: Vec<(Labels, bool, Fold)> = Vec::new();
        let mut places: HashMap<Labels, usize> = HashMap::new();
        let mut notes = Annotations::default();
        let mut order = Order::after(self.done.order);
        let renamed = !self.context.settings.delayed_names && changes_meaning(operation);
        let shape = |rows: Vec<SeriesRow>| -> Vec<(Labels, SeriesRow)> {
            let mut keys = Keys::default();
            rows.into_iter().map(|row| (keys.of(&row.labels, aggregation, renamed), row)).collect()
        };
        let budget = &self.context.budget;
        self.leaf(operation, *steps, &params, Names::Kept, shape, |rows| {
            for (labels, row) in rows {
                order.next(&row.labels);
                let place = *places.entry(labels).or_insert_with_key(|labels| {
                    groups.push((labels.clone(), false, Fold::new(aggregation.op, steps.count)));
                    groups.len() - 1
                });
                let (_, drops, fold) = &mut groups[place];
                *drops |= row.drop_name;
                fold.add(&row.row, aggregation, &mut notes);
            }
            // Groups are as large as rows; a leaf that makes one of each series must not go unnoticed.
            budget.within(groups.len(), steps.count)
        })?;
        self.done.order = order.number();
        let mut rows = Vec::with_capacity(groups.len());
        for (labels, drop_name, fold) in groups {
            self.context.check()?;
            let row = fold.finish(aggregation, &mut notes);
            if !row.is_empty() {
                rows.push(SeriesRow { labels, drop_name, row });
            }
        }
        self.done.notes.merge(notes);
        Ok(rows)
    }

    /// The groups of a leaf, made by the store.
    fn taken_groups(
        &mut self,
        operation: &Operation,
        groups: &SelectedSeries,
        taken: &Taken,
    ) -> Result<Vec<SeriesRow>, QueryError> {
        let selection = selection_of(operation).ok_or_else(|| unexpected("instant vector"))?;
        let matchers = &self.plan.selections[selection].request.matchers;
        let mut findings = Findings::default();
        let rows = taken::groups(self.context, groups, matchers, taken, &mut findings)?;
        // What the rows weigh is counted where they go.
        self.context.budget.release(findings.held);
        self.count(findings, taken.counted);
        Ok(rows)
    }

    /// Whether series of one metric can become the same when `__type__` and `__unit__` go with the name.
    fn may_become_same(&self, operation: &Operation) -> bool {
        let (selection, drops) = match operation {
            Operation::Range {
                function,
                windows: Windows { source: Source::Selection(selection), .. },
                ..
            } => (*selection, !function.keeps_name()),
            Operation::Instant { selection, take, .. } => (*selection, take.changes_meaning()),
            _ => return false,
        };
        let described =
            |labels: &Labels| labels.get("__type__").is_some() || labels.get("__unit__").is_some();
        drops && !self.context.settings.delayed_names && self.data[selection].labels.iter().any(described)
    }

    /// 1 at the steps where no series has a sample in the window.
    fn absent_over_time(
        &mut self,
        windows: &Windows,
        labels: &Labels,
        counted: Counted,
        steps: Steps,
    ) -> Result<Vec<SeriesRow>, QueryError> {
        let windowed = Windowed {
            function: RangeFunction::PresentOverTime,
            reference: windows.reference,
            range: windows.range,
            edges: windows.edges,
            params: &[],
            steps,
            span: Span::default(),
            param_span: Span::default(),
            counted,
            names: Names::Kept,
        };
        let operation = Operation::Range {
            function: RangeFunction::PresentOverTime,
            windows: *windows,
            params: Vec::new(),
            span: Span::default(),
            param_span: Span::default(),
            counted,
        };
        let mut present = vec![false; steps.count];
        match windows.source {
            Source::Selection(_) => {
                let shape = |rows: Vec<SeriesRow>| {
                    let mut part = vec![false; steps.count];
                    rows.iter().for_each(|row| matching::mark_presence(&row.row, &mut part));
                    part
                };
                self.leaf(&operation, steps, &[], Names::Kept, shape, |part| {
                    present.iter_mut().zip(part).for_each(|(all, part)| *all |= part);
                    Ok(())
                })?;
            }
            Source::Subquery(input) => {
                let inner = self.take(input)?.vector()?;
                let inner_steps = self.plan.nodes[input].steps;
                let mut findings = Findings::default();
                let (mut samples, mut frame) = (range::Samples::default(), Frame::default());
                for series in &inner {
                    self.context.check()?;
                    subquery::load(&series.row, &inner_steps, &mut samples);
                    let (labels, found) = (&series.labels, &mut findings);
                    let row = range::evaluate(self.context, labels, &samples, &windowed, &mut frame, found)?;
                    row.iter().for_each(|row| matching::mark_presence(row, &mut present));
                }
                self.count(findings, counted);
            }
        }
        let floats: Vec<f64> =
            present.into_iter().map(|there| if there { rows::ABSENT } else { 1.0 }).collect();
        let row = Row { floats, histograms: Vec::new() };
        if row.is_empty() {
            return Ok(Vec::new());
        }
        Ok(vec![SeriesRow { labels: labels.clone(), drop_name: false, row }])
    }

    /// The samples of a range vector that is the whole query.
    fn samples(&mut self, windows: &Windows, steps: &Steps) -> Result<Vec<MatrixSeries>, QueryError> {
        let context = self.context;
        let (end, range) = (windows.reference.of(steps, 0), windows.range);
        let mut all = Vec::new();
        let mut findings = Findings::default();
        match windows.source {
            Source::Selection(selection) => {
                let series = &self.data[selection];
                let work = |ordinals: std::ops::Range<usize>, findings: &mut Findings| {
                    let mut scratch = crate::storage::SeriesSamples::default();
                    let mut samples = range::Samples::default();
                    let mut taken = Vec::new();
                    for ordinal in ordinals {
                        context.check()?;
                        let read = series.samples(ordinal, &mut scratch)?;
                        findings.count(read, windows.reference, &context.settings);
                        samples.load(read, false);
                        context.budget.hold(samples.weight())?;
                        findings.queryable =
                            vec![findings.queryable.first().unwrap_or(&0) + samples.weight()];
                        let labels = &series.labels[ordinal];
                        if !samples.gaps.is_empty() {
                            let name = labels.metric_name().unwrap_or_default();
                            findings.notes.info(annotations::downsampled_kept(name), Span::default());
                        }
                        taken.extend(range::raw(labels, &samples, end, range));
                    }
                    Ok(taken)
                };
                findings = context.over_chunks(series.labels.len(), work, |chunk| {
                    all.extend(chunk);
                    Ok(())
                })?;
            }
            Source::Subquery(input) => {
                let mut rows = self.take(input)?.vector()?;
                if context.settings.delayed_names {
                    rows = names::settle(&context.budget, rows)?;
                }
                let inner_steps = self.plan.nodes[input].steps;
                let mut samples = range::Samples::default();
                let mut count = 0;
                for series in &rows {
                    context.check()?;
                    subquery::load(&series.row, &inner_steps, &mut samples);
                    count += samples.weight();
                    all.extend(range::raw(&series.labels, &samples, end, range));
                }
                findings.queryable = vec![count];
            }
        }
        self.count(findings, Counted::PerStep);
        order::sort_by(&context.budget, all, |a, b| a.labels.cmp(&b.labels))
    }
}

/// The order in which rows come to an aggregation, after those of the aggregations before.
struct Order(Xxh3);

impl Order {
    fn after(before: u128) -> Self {
        let mut order = Xxh3::new();
        order.update(&before.to_le_bytes());
        Self(order)
    }

    fn next(&mut self, labels: &Labels) {
        let bytes = labels.as_canonical().as_bytes();
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
    }

    fn number(&self) -> u128 {
        self.0.digest128()
    }
}

/// Whether what a leaf gives is something else than the metric measured.
fn changes_meaning(operation: &Operation) -> bool {
    match operation {
        Operation::Instant { take, .. } => take.changes_meaning(),
        Operation::Range { function, .. } => !function.keeps_name(),
        _ => false,
    }
}

/// The selection that a leaf reads.
fn selection_of(operation: &Operation) -> Option<usize> {
    match operation {
        Operation::Instant { selection, .. }
        | Operation::Range { windows: Windows { source: Source::Selection(selection), .. }, .. } => {
            Some(*selection)
        }
        _ => None,
    }
}

/// One step's result at every step.
fn spread(context: &Context, output: Output, steps: &Steps) -> Result<Output, QueryError> {
    Ok(match output {
        Output::Scalar(values) => {
            Output::Scalar(vec![values.first().copied().unwrap_or(f64::NAN); steps.count])
        }
        Output::Vector(rows) => {
            context.budget.within(rows.len(), steps.count)?;
            let mut wide = Vec::with_capacity(rows.len());
            for row in rows {
                context.check()?;
                let value = row.row.floats.first().copied().unwrap_or(rows::ABSENT);
                let histograms = match row.row.histograms.first() {
                    Some((_, histogram)) => {
                        let count = u32::try_from(steps.count).unwrap_or(u32::MAX);
                        (0..count).map(|step| (step, std::sync::Arc::clone(histogram))).collect()
                    }
                    None => Vec::new(),
                };
                let spread = Row { floats: vec![value; steps.count], histograms };
                if !spread.is_empty() {
                    wide.push(SeriesRow { row: spread, ..row });
                }
            }
            Output::Vector(wide)
        }
        other @ (Output::Text(_) | Output::Samples(_)) => other,
    })
}
