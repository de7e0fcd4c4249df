//! Makes a plan of a tree.

use std::{collections::HashMap, fmt::Write};

use super::{
    Aggregation, Counted, Info, Node, NodeId, Operation, Plan, PlanOptions, Reference, Selection, Source,
    Take, VectorFunction, Windows,
    duration::{self, QueryTimes},
    invariant::{Invariance, bare, selector_within},
    names_one_metric,
};
use crate::{
    model::{METRIC_NAME, MatchOp, Matcher, Millis, TimeRange, Timestamp},
    promql::{
        QueryError,
        exec::rows::Steps,
        functions::{
            instant::{HistogramStat, InstantFunction},
            range::{Edges, RangeFunction},
            vector::absent_labels,
        },
        parse::{
            Aggregate, AggregateOp, At, Binary, BinaryOp, Call, Expr, Extended, MatrixSelector, Span,
            Subquery, ValueType, VectorSelector,
        },
    },
    storage::{Grid, Offer, SelectRequest},
};

/// Plans `expr`, which was parsed from `text`, for the steps of a query.
///
/// `max_steps` bounds the steps of any subquery: each takes memory for every series.
pub fn plan(
    expr: &Expr,
    text: &str,
    steps: Steps,
    end: i64,
    options: &PlanOptions,
    max_steps: u64,
) -> Result<Plan, QueryError> {
    let times = QueryTimes { text, step: steps.step, range: end.saturating_sub(steps.start) };
    let mut builder = Builder {
        invariance: Invariance::of(expr),
        times,
        start: steps.start,
        end,
        options,
        max_steps,
        nodes: Vec::new(),
        selections: Vec::new(),
        known_nodes: HashMap::new(),
        known_selections: HashMap::new(),
    };
    let root = builder.root(expr, steps)?;
    let mut nodes = builder.nodes;
    nodes.truncate(root + 1);
    for at in 0..nodes.len() {
        for input in nodes[at].operation.inputs() {
            nodes[input].readers += 1;
        }
    }
    if let Some(last) = nodes.last_mut() {
        last.readers += 1;
    }
    let mut plan = Plan { nodes, selections: builder.selections, steps };
    plan.stream_into_aggregations();
    plan.leave_out_values();
    Ok(plan)
}

impl Plan {
    /// Hands the leaves that only an aggregation reads over to it.
    fn stream_into_aggregations(&mut self) {
        for at in 0..self.nodes.len() {
            let Operation::Aggregate(aggregation) = &self.nodes[at].operation else { continue };
            let input = &self.nodes[aggregation.input];
            if input.readers == 1 && can_be_merged(aggregation.op) && self.can_be_streamed(&input.operation) {
                let input = aggregation.input;
                self.nodes[input].streamed = true;
            }
        }
    }

    fn can_be_streamed(&self, operation: &Operation) -> bool {
        match operation {
            // Elsewhere two series may become one when the name goes, which has to be looked for in all of them.
            Operation::Instant { selection, take, .. } => {
                !take.changes_meaning() || self.selections[*selection].one_name
            }
            Operation::Range { windows, .. } => match windows.source {
                Source::Selection(selection) => self.selections[selection].one_name,
                Source::Subquery(_) => false,
            },
            _ => false,
        }
    }
}

/// Whether parts of an aggregation can be put together.
fn can_be_merged(op: AggregateOp) -> bool {
    match op {
        AggregateOp::Sum
        | AggregateOp::Avg
        | AggregateOp::Count
        | AggregateOp::Min
        | AggregateOp::Max
        | AggregateOp::Group => true,
        AggregateOp::Stddev
        | AggregateOp::Stdvar
        | AggregateOp::Topk
        | AggregateOp::Bottomk
        | AggregateOp::CountValues
        | AggregateOp::Quantile
        | AggregateOp::Limitk
        | AggregateOp::LimitRatio => false,
    }
}

struct Builder<'a> {
    invariance: Invariance,
    times: QueryTimes<'a>,
    start: i64,
    end: i64,
    options: &'a PlanOptions,
    max_steps: u64,
    nodes: Vec<Node>,
    selections: Vec<Selection>,
    known_nodes: HashMap<String, NodeId>,
    known_selections: HashMap<String, usize>,
}

/// Where in the plan an expression is: what it is evaluated at, and for what its samples count.
#[derive(Clone, Copy)]
struct Scope {
    steps: Steps,
    counted: Counted,
}

/// How far before and after the instant looked at samples are wanted, in milliseconds.
#[derive(Clone, Copy)]
struct Reach {
    before: i64,
    after: i64,
}

impl Scope {
    /// The first step only, standing for all.
    fn one(self) -> Self {
        let counted = match self.counted {
            Counted::PerStep | Counted::ForAll => Counted::ForAll,
            Counted::Nowhere => Counted::Nowhere,
        };
        Self { steps: Steps { start: self.steps.start, step: 0, count: 1 }, counted }
    }
}

impl Builder<'_> {
    /// Plans the whole; a range vector gives its samples, which only an instant query asks for.
    fn root(&mut self, expr: &Expr, steps: Steps) -> Result<NodeId, QueryError> {
        let scope = Scope { steps, counted: Counted::PerStep };
        match bare(expr) {
            range @ (Expr::Matrix(_) | Expr::Subquery(_)) => {
                let windows = self.windows(range, scope)?;
                refuse_edges(&windows, None)?;
                Ok(self.add(Operation::Samples(windows), scope, ValueType::RangeVector))
            }
            other => self.expr(other, scope),
        }
    }

    /// Plans an expression; what is the same at every step is planned for one.
    fn expr(&mut self, expr: &Expr, scope: Scope) -> Result<NodeId, QueryError> {
        let expr = bare(expr);
        let literal = matches!(expr, Expr::Number(_) | Expr::String(_));
        if scope.steps.count > 1 && !literal && self.invariance.holds(expr) {
            let inner = self.expr(expr, scope.one())?;
            let output = self.nodes[inner].output;
            return Ok(self.add(Operation::Invariant(inner), scope, output));
        }
        match expr {
            Expr::Number(number) => Ok(self.add(Operation::Number(number.value), scope, ValueType::Scalar)),
            Expr::String(text) => Ok(self.add(Operation::Text(text.value.clone()), scope, ValueType::String)),
            Expr::Vector(selector) => self.instant(selector, Take::Value, scope),
            Expr::Matrix(matrix) => Err(misplaced_range(&matrix.span)),
            Expr::Subquery(subquery) => Err(misplaced_range(&subquery.span)),
            Expr::Call(call) => self.call(call, scope),
            Expr::Aggregate(aggregate) => self.aggregate(aggregate, scope),
            Expr::Binary(_) => self.chain(expr, scope),
            Expr::Unary(unary) if unary.negative => {
                let input = self.expr(&unary.expr, scope)?;
                if let Operation::Number(value) = self.nodes[input].operation {
                    return Ok(self.add(Operation::Number(-value), scope, ValueType::Scalar));
                }
                let output = self.nodes[input].output;
                Ok(self.add(Operation::Negate(input), scope, output))
            }
            Expr::Unary(unary) => self.expr(&unary.expr, scope),
            Expr::Paren(paren) => self.expr(&paren.expr, scope),
        }
    }

    /// Plans a chain of operators from its innermost left end outwards, in a loop.
    fn chain(&mut self, expr: &Expr, scope: Scope) -> Result<NodeId, QueryError> {
        let mut chain: Vec<&Binary> = Vec::new();
        let mut first = expr;
        while let Expr::Binary(binary) = first {
            let whole = chain.is_empty();
            if !whole && scope.steps.count > 1 && self.invariance.holds(first) {
                break;
            }
            chain.push(binary);
            first = &binary.lhs;
        }
        let mut left = self.expr(first, scope)?;
        for binary in chain.into_iter().rev() {
            let right = self.expr(&binary.rhs, scope)?;
            left = self.binary(binary, left, right, scope)?;
        }
        Ok(left)
    }

    fn binary(
        &mut self,
        binary: &Binary,
        lhs: NodeId,
        rhs: NodeId,
        scope: Scope,
    ) -> Result<NodeId, QueryError> {
        let scalars = [lhs, rhs].map(|side| self.nodes[side].output == ValueType::Scalar);
        if matches!(binary.op, BinaryOp::And | BinaryOp::Or | BinaryOp::Unless) && scalars != [false, false] {
            return Err(QueryError::BadData(format!(
                "set operator {:?} not allowed in binary scalar expression",
                binary.op.as_str()
            )));
        }
        if binary.op.is_trim() && scalars == [true, true] {
            return Err(QueryError::Execution(format!(
                "operator {:?} not allowed for Scalar operations",
                binary.op.as_str()
            )));
        }
        let output = if scalars == [true, true] { ValueType::Scalar } else { ValueType::InstantVector };
        let matching = if scalars == [false, false] { binary.matching.clone() } else { None };
        let operation = Operation::Binary {
            op: binary.op,
            lhs,
            rhs,
            return_bool: binary.return_bool,
            matching,
            span: binary.span,
        };
        Ok(self.add(operation, scope, output))
    }

    fn aggregate(&mut self, aggregate: &Aggregate, scope: Scope) -> Result<NodeId, QueryError> {
        let input = self.expr(&aggregate.expr, scope)?;
        let (mut param, mut label) = (None, None);
        match aggregate.param.as_deref().map(bare) {
            Some(Expr::String(text)) => label = Some(text.value.clone()),
            Some(expr) => param = Some(self.expr(expr, scope)?),
            None => {}
        }
        let mut grouping = aggregate.grouping.clone();
        grouping.sort();
        grouping.dedup();
        let aggregation = Aggregation {
            op: aggregate.op,
            input,
            param,
            label,
            grouping,
            without: aggregate.without,
            whole: aggregate.span,
            span: aggregate.expr.span(),
            param_span: aggregate.param.as_ref().map(|p| p.span()).unwrap_or_default(),
        };
        Ok(self.add(Operation::Aggregate(aggregation), scope, ValueType::InstantVector))
    }

    fn instant(&mut self, selector: &VectorSelector, take: Take, scope: Scope) -> Result<NodeId, QueryError> {
        let take = match (selector.extended, take) {
            (Some(Extended::Anchored), _) => {
                return Err(QueryError::Execution(
                    "anchored modifier can only be used with ranges".to_owned(),
                ));
            }
            (Some(Extended::Smoothed), Take::Value) => Take::Smoothed,
            (Some(Extended::Smoothed) | None, take) => take,
        };
        let reference = self.reference(selector.at.as_ref(), selector.offset.as_ref())?;
        let lookback = self.options.lookback.millis();
        let reach = Reach { before: lookback, after: if take == Take::Smoothed { lookback } else { 0 } };
        let selection = self.selection(selector, reference, reach, take == Take::Start, scope);
        let operation = Operation::Instant { selection, reference, lookback, take, counted: scope.counted };
        Ok(self.add(operation, scope, ValueType::InstantVector))
    }

    /// The windows of a range vector.
    fn windows(&mut self, expr: &Expr, scope: Scope) -> Result<Windows, QueryError> {
        match bare(expr) {
            Expr::Matrix(matrix) => self.matrix(matrix, scope),
            Expr::Subquery(subquery) => self.subquery(subquery, scope),
            other => Err(QueryError::BadData(format!(
                "expected type range vector, got {}",
                other.value_type().documented()
            ))),
        }
    }

    fn matrix(&mut self, matrix: &MatrixSelector, scope: Scope) -> Result<Windows, QueryError> {
        let selector = &matrix.selector;
        let lookback = self.options.lookback.millis();
        let edges = match selector.extended {
            None => Edges::Plain,
            Some(Extended::Anchored) => Edges::Anchored(lookback),
            Some(Extended::Smoothed) => Edges::Smoothed(lookback),
        };
        let range = duration::positive(&matrix.range, &self.times)?;
        let reference = self.reference(selector.at.as_ref(), selector.offset.as_ref())?;
        let reach = Reach { before: range.saturating_add(edges.before()), after: edges.after() };
        let selection = self.selection(selector, reference, reach, false, scope);
        Ok(Windows { source: Source::Selection(selection), reference, range, edges })
    }

    fn subquery(&mut self, subquery: &Subquery, scope: Scope) -> Result<Windows, QueryError> {
        let range = duration::positive(&subquery.range, &self.times)?;
        let step = match &subquery.step {
            Some(step) => duration::positive(step, &self.times)?,
            None => self.options.default_subquery_step.millis(),
        }
        .max(1);
        let reference = self.reference(subquery.at.as_ref(), subquery.offset.as_ref())?;
        let (first, last) = ends(reference, &scope.steps);
        let steps = aligned_steps(first.saturating_sub(range), last, step);
        if u64::try_from(steps.count).unwrap_or(u64::MAX) > self.max_steps {
            return Err(QueryError::TooManySamples);
        }
        let input = self.expr(&subquery.expr, Scope { steps, counted: Counted::Nowhere })?;
        Ok(Windows { source: Source::Subquery(input), reference, range, edges: Edges::Plain })
    }

    fn reference(
        &self,
        at: Option<&At>,
        offset: Option<&crate::promql::parse::DurationExpr>,
    ) -> Result<Reference, QueryError> {
        let offset = offset.map_or(Ok(0), |offset| duration::signed(offset, &self.times))?;
        let at = at.map(|at| match at {
            At::Time(time) => *time,
            At::Start => self.start,
            At::End => self.end,
        });
        Ok(Reference { at, offset })
    }

    fn selection(
        &mut self,
        selector: &VectorSelector,
        reference: Reference,
        reach: Reach,
        starts: bool,
        scope: Scope,
    ) -> usize {
        let request = self.request(selector.matchers.to_vec(), reference, reach, starts, scope);
        let key = format!("{request:?}");
        if let Some(known) = self.known_selections.get(&key) {
            return *known;
        }
        self.selections.push(Selection { request, one_name: names_one_metric(&selector.matchers) });
        self.known_selections.insert(key, self.selections.len() - 1);
        self.selections.len() - 1
    }

    fn request(
        &self,
        matchers: Vec<Matcher>,
        reference: Reference,
        reach: Reach,
        starts: bool,
        scope: Scope,
    ) -> SelectRequest {
        let (first, last) = ends(reference, &scope.steps);
        let earliest = first.saturating_sub(reach.before).saturating_add(1).min(last);
        let latest = last.saturating_add(reach.after);
        let range = TimeRange::new(Timestamp(earliest), Timestamp(latest))
            .expect("the earliest is no later than the latest");
        let step = if first < last { scope.steps.step.max(1) } else { 1 };
        SelectRequest {
            matchers,
            filters: Vec::new(),
            range,
            grid: Some(Grid { start: Timestamp(first), end: Timestamp(last), step: Millis(step) }),
            lookback: Millis(reach.before),
            start_timestamps: starts || self.options.start_timestamps,
            values: true,
            max_series: None,
            max_label_bytes: None,
            offer: Offer::default(),
        }
    }

    /// `info(v, {…})`: matchers of the name choose the info metrics, the others the labels to add.
    fn info(&mut self, call: &Call, scope: Scope) -> Result<NodeId, QueryError> {
        let base = call.args.first().ok_or_else(|| wrong_arguments(call))?;
        let given: &[Matcher] = match call.args.get(1).map(bare) {
            None => &[],
            Some(Expr::Vector(selector)) => &selector.matchers,
            Some(_) => return Err(wrong_arguments(call)),
        };
        let (mut names, labels): (Vec<Matcher>, Vec<Matcher>) =
            given.iter().cloned().partition(|matcher| matcher.name() == METRIC_NAME);
        let named = call.args.len() < 2 || !names.is_empty();
        if names.is_empty() {
            names.push(Matcher::equal(METRIC_NAME, "target_info"));
        } else if names.iter().all(|matcher| matches!(matcher.op(), MatchOp::NotEqual | MatchOp::NotMatches))
        {
            // To say what it is not leaves everything that is called an info metric.
            names.extend(Matcher::new(MatchOp::Matches, METRIC_NAME, ".+_info"));
        }
        let input = self.expr(base, scope)?;
        let reference = self.reference_within(base)?;
        let lookback = self.options.lookback.millis();
        let reach = Reach { before: lookback, after: 0 };
        let matchers = names.iter().chain(&labels).cloned().collect();
        let info = Info {
            input,
            request: self.request(matchers, reference, reach, false, scope),
            untouched: if named { names } else { Vec::new() },
            labels,
            reference,
            lookback,
        };
        Ok(self.add(Operation::Info(Box::new(info)), scope, ValueType::InstantVector))
    }

    /// When the first selector within an expression is evaluated, seen from the expression's own steps.
    fn reference_within(&self, expr: &Expr) -> Result<Reference, QueryError> {
        let mut todo = vec![(expr, Reference { at: None, offset: 0 })];
        while let Some((expr, outer)) = todo.pop() {
            let within = |inner: Reference| match inner.at {
                Some(_) => inner,
                None => Reference { at: outer.at, offset: outer.offset.saturating_add(inner.offset) },
            };
            let selector = match expr {
                Expr::Vector(selector) => selector,
                Expr::Matrix(matrix) => &matrix.selector,
                Expr::Subquery(subquery) => {
                    let inner = self.reference(subquery.at.as_ref(), subquery.offset.as_ref())?;
                    todo.push((&subquery.expr, within(inner)));
                    continue;
                }
                Expr::Call(call) => {
                    todo.extend(call.args.iter().rev().map(|arg| (arg, outer)));
                    continue;
                }
                Expr::Aggregate(aggregate) => {
                    todo.extend(aggregate.param.iter().map(|param| (&**param, outer)));
                    todo.push((&aggregate.expr, outer));
                    continue;
                }
                Expr::Binary(binary) => {
                    todo.extend([(&*binary.rhs, outer), (&*binary.lhs, outer)]);
                    continue;
                }
                Expr::Unary(unary) => {
                    todo.push((&unary.expr, outer));
                    continue;
                }
                Expr::Paren(paren) => {
                    todo.push((&paren.expr, outer));
                    continue;
                }
                Expr::Number(_) | Expr::String(_) => continue,
            };
            return Ok(within(self.reference(selector.at.as_ref(), selector.offset.as_ref())?));
        }
        Ok(Reference { at: None, offset: 0 })
    }

    fn call(&mut self, call: &Call, scope: Scope) -> Result<NodeId, QueryError> {
        let name = call.function.name;
        if let Some(folded) = self.folded(name) {
            return Ok(self.add(Operation::Number(folded), scope, ValueType::Scalar));
        }
        if let Some(function) = RangeFunction::by_name(name) {
            return self.range_call(function, call, scope);
        }
        if let Some(function) = InstantFunction::by_name(name) {
            return self.map_call(function, call, scope);
        }
        self.vector_call(call, scope)
    }

    /// The functions that are numbers once the query's times are known.
    #[expect(clippy::cast_precision_loss, reason = "times of queries fit a float's 53 bits")]
    fn folded(&self, name: &str) -> Option<f64> {
        match name {
            "pi" => Some(std::f64::consts::PI),
            "start" => Some(self.start as f64 / 1000.0),
            "end" => Some(self.end as f64 / 1000.0),
            "range" => Some(self.times.range as f64 / 1000.0),
            "step" => Some(self.times.step as f64 / 1000.0),
            _ => None,
        }
    }

    fn range_call(
        &mut self,
        function: RangeFunction,
        call: &Call,
        scope: Scope,
    ) -> Result<NodeId, QueryError> {
        let mut windows = None;
        let (mut span, mut param_span) = (call.span, call.span);
        let mut params = Vec::new();
        for arg in &call.args {
            if matches!(bare(arg), Expr::Matrix(_) | Expr::Subquery(_)) {
                windows = Some(self.windows(arg, scope)?);
                span = bare(arg).span();
            } else {
                if params.is_empty() {
                    param_span = bare(arg).span();
                }
                params.push(self.expr(arg, scope)?);
            }
        }
        let windows = windows.ok_or_else(|| wrong_arguments(call))?;
        refuse_edges(&windows, Some(call.function.name))?;
        let operation =
            Operation::Range { function, windows, params, span, param_span, counted: scope.counted };
        Ok(self.add(operation, scope, ValueType::InstantVector))
    }

    fn map_call(
        &mut self,
        function: InstantFunction,
        call: &Call,
        scope: Scope,
    ) -> Result<NodeId, QueryError> {
        let input = match call.args.first() {
            Some(arg) => self.expr(arg, scope)?,
            // The parts of a date are those of the step's own time.
            None => {
                let time = self.add(Operation::Time, scope, ValueType::Scalar);
                self.vector_function(
                    VectorFunction::Vector,
                    vec![time],
                    vec![call.span],
                    scope,
                    ValueType::InstantVector,
                )
            }
        };
        let mut params = Vec::new();
        for arg in call.args.iter().skip(1) {
            params.push(self.expr(arg, scope)?);
        }
        Ok(self.add(Operation::Map { function, input, params }, scope, ValueType::InstantVector))
    }

    fn vector_call(&mut self, call: &Call, scope: Scope) -> Result<NodeId, QueryError> {
        let name = call.function.name;
        let first = || call.args.first().ok_or_else(|| wrong_arguments(call));
        let function = match name {
            "time" => return Ok(self.add(Operation::Time, scope, ValueType::Scalar)),
            "info" => return self.info(call, scope),
            "timestamp" | "start_timestamp" => {
                let (take, otherwise) = if name == "timestamp" {
                    (Take::Timestamp, VectorFunction::Timestamp)
                } else {
                    (Take::Start, VectorFunction::StartTimestamp)
                };
                if let Some(selector) = selector_within(first()?) {
                    return self.instant(selector, take, scope);
                }
                otherwise
            }
            "absent_over_time" => {
                let windows = self.windows(first()?, scope)?;
                refuse_edges(&windows, Some(name))?;
                let labels = absent_labels(first()?);
                let operation = Operation::AbsentOverTime { windows, labels, counted: scope.counted };
                return Ok(self.add(operation, scope, ValueType::InstantVector));
            }
            "scalar" => VectorFunction::Scalar,
            "vector" => VectorFunction::Vector,
            "max_of" => VectorFunction::MaxOf,
            "min_of" => VectorFunction::MinOf,
            "absent" => VectorFunction::Absent(absent_labels(first()?)),
            "label_replace" => VectorFunction::LabelReplace {
                dst: text(call, 1)?,
                replacement: text(call, 2)?,
                src: text(call, 3)?,
                regex: text(call, 4)?,
            },
            "label_join" => VectorFunction::LabelJoin {
                dst: text(call, 1)?,
                separator: text(call, 2)?,
                src: texts(call, 3)?,
            },
            "sort" => VectorFunction::Sort { descending: false },
            "sort_desc" => VectorFunction::Sort { descending: true },
            "sort_by_label" => VectorFunction::SortByLabel { descending: false, labels: texts(call, 1)? },
            "sort_by_label_desc" => VectorFunction::SortByLabel { descending: true, labels: texts(call, 1)? },
            "histogram_quantile" => VectorFunction::HistogramQuantile,
            "histogram_fraction" => VectorFunction::HistogramFraction,
            "histogram_quantiles" => VectorFunction::HistogramQuantiles(text(call, 1)?),
            _ => match HistogramStat::by_name(name) {
                Some(stat) => VectorFunction::HistogramStat(stat),
                None => return Err(QueryError::Execution(format!("function {name:?} cannot be evaluated"))),
            },
        };
        let (mut args, mut spans) = (Vec::new(), Vec::new());
        for arg in call.args.iter().filter(|arg| !matches!(bare(arg), Expr::String(_))) {
            args.push(self.expr(arg, scope)?);
            // A remark is about what is in the parentheses.
            spans.push(bare(arg).span());
        }
        if args.is_empty() {
            return Err(wrong_arguments(call));
        }
        if matches!(function, VectorFunction::Sort { .. } | VectorFunction::SortByLabel { .. }) {
            // But that there is no order to give is about the call.
            spans = vec![call.span];
        }
        Ok(self.vector_function(function, args, spans, scope, call.function.returns))
    }

    fn vector_function(
        &mut self,
        function: VectorFunction,
        args: Vec<NodeId>,
        spans: Vec<Span>,
        scope: Scope,
        output: ValueType,
    ) -> NodeId {
        self.add(Operation::Call { function, args, spans }, scope, output)
    }

    /// Adds a node, or finds the equal one that is there.
    fn add(&mut self, operation: Operation, scope: Scope, output: ValueType) -> NodeId {
        let mut key = String::new();
        let steps = scope.steps;
        write!(key, "{:?} {} {} {}", operation.without_spans(), steps.start, steps.step, steps.count)
            .expect("a string takes what is written to it");
        if let Some(known) = self.known_nodes.get(&key) {
            return *known;
        }
        self.nodes.push(Node { operation, steps, output, readers: 0, streamed: false });
        self.known_nodes.insert(key, self.nodes.len() - 1);
        self.nodes.len() - 1
    }
}

impl Operation {
    /// The same wherever it stood in the text.
    fn without_spans(&self) -> Self {
        let mut bare = self.clone();
        match &mut bare {
            Self::Range { span, param_span, .. } => (*span, *param_span) = Default::default(),
            Self::Binary { span, .. } => *span = Span::default(),
            Self::Call { spans, .. } => spans.iter_mut().for_each(|span| *span = Span::default()),
            Self::Aggregate(aggregation) => {
                aggregation.whole = Span::default();
                aggregation.span = Span::default();
                aggregation.param_span = Span::default();
            }
            Self::Number(_)
            | Self::Text(_)
            | Self::Time
            | Self::Instant { .. }
            | Self::Samples(_)
            | Self::AbsentOverTime { .. }
            | Self::Map { .. }
            | Self::Info(_)
            | Self::Negate(_)
            | Self::Invariant(_) => {}
        }
        bare
    }
}

/// The first and the last instant that the steps look at.
fn ends(reference: Reference, steps: &Steps) -> (i64, i64) {
    (reference.of(steps, 0), reference.of(steps, steps.count.saturating_sub(1)))
}

/// The multiples of `step` after `after`, up to `last`.
fn aligned_steps(after: i64, last: i64, step: i64) -> Steps {
    let (after, last, wide) = (i128::from(after), i128::from(last), i128::from(step));
    let start = (after.div_euclid(wide) + 1) * wide;
    let count = if start > last { 0 } else { (last - start) / wide + 1 };
    Steps {
        start: i64::try_from(start).unwrap_or(i64::MAX),
        step,
        count: usize::try_from(count).unwrap_or(usize::MAX),
    }
}

fn text(call: &Call, at: usize) -> Result<String, QueryError> {
    match call.args.get(at).map(bare) {
        Some(Expr::String(text)) => Ok(text.value.clone()),
        _ => Err(wrong_arguments(call)),
    }
}

fn texts(call: &Call, from: usize) -> Result<Vec<String>, QueryError> {
    (from..call.args.len()).map(|at| text(call, at)).collect()
}

fn wrong_arguments(call: &Call) -> QueryError {
    QueryError::BadData(format!("wrong arguments in call to function {:?}", call.function.name))
}

fn misplaced_range(span: &Span) -> QueryError {
    QueryError::BadData(format!("a range vector is not expected at byte {}", span.start))
}

/// Fails if `function`, if any, cannot make sense of what lies beyond a window.
fn refuse_edges(windows: &Windows, function: Option<&str>) -> Result<(), QueryError> {
    let Some(takers) = RangeFunction::taking(windows.edges) else { return Ok(()) };
    if function.is_some_and(|name| takers.contains(&name)) {
        return Ok(());
    }
    let modifier = if matches!(windows.edges, Edges::Anchored(_)) { "anchored" } else { "smoothed" };
    let mut text = format!("{modifier} modifier can only be used with: {}", takers.join(", "));
    if let Some(name) = function {
        text.push_str(" - not with ");
        text.push_str(name);
    }
    Err(QueryError::Execution(text))
}
