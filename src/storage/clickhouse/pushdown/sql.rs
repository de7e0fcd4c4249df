//! The statements: a series' values over a grid, and groups of series.
//!
//! ```text
//! samples ─ where tenant, time, series ─ group by series ─ timeSeries…ToGrid ─▶ a row per series
//!                                                          └─ join labels ─ …ForEach by group ─▶ a row per group
//! ```
//!
//! Places without a value leave the servers as the stale marker, which is what we have there.

use super::{Plan, function_of};
use crate::{
    model::{Millis, STALE_NAN_BITS, TenantId},
    storage::{
        Combine, Operation, WindowFunction,
        clickhouse::{
            client::Statement,
            read::{
                series::{Found, SCOPE, days},
                units::Unit,
            },
        },
    },
};

/// The bits of -0.
const NEGATIVE_ZERO_BITS: u64 = 1 << 63;

/// A place without a value.
fn absent() -> String {
    format!("reinterpretAsFloat64(toUInt64({STALE_NAN_BITS}))")
}

/// Whether the function sees stale markers: only who looks for the newest sample does.
fn kept(operation: &Operation) -> String {
    match operation {
        Operation::Newest { .. } => String::new(),
        Operation::Window { .. } | Operation::Aggregate { .. } => {
            format!(" AND reinterpretAsUInt64(value) != {STALE_NAN_BITS}")
        }
    }
}

/// The aggregate that makes a series' values, of `ts` and `value`; a place without one is NULL.
pub(super) fn to_grid(operation: &Operation, ts: &str, value: &str) -> Option<String> {
    let function = function_of(operation)?;
    // From one zero to the other is no change.
    let positive_zero = matches!(operation, Operation::Window { function: WindowFunction::Changes, .. });
    let value = if positive_zero { format!("{value} + 0.") } else { value.to_owned() };
    let grid = format!(
        "{function}(fromUnixTimestamp64Milli({{grid_start:Int64}}), fromUnixTimestamp64Milli({{grid_end:Int64}}), \
         {{grid_step:Decimal64(3)}}, {{grid_window:Decimal64(3)}})({ts}, {value})"
    );
    Some(match operation {
        Operation::Window { function: WindowFunction::Present, .. } => {
            format!("arrayMap(x -> if(isNull(x), NULL, 1.), {grid})")
        }
        Operation::Newest { .. } | Operation::Window { .. } | Operation::Aggregate { .. } => grid,
    })
}

/// Binds what [`to_grid`] has.
pub(super) fn bind_grid(statement: Statement, plan: &Plan) -> Statement {
    let window = match plan.first {
        Operation::Newest { lookback } => lookback,
        Operation::Window { range, .. } => range,
        Operation::Aggregate { .. } => Millis(0),
    };
    let last = plan.grid.count().saturating_sub(1);
    let reach = plan.grid.step.0.saturating_mul(i64::try_from(last).unwrap_or(i64::MAX));
    statement
        .param("grid_start", plan.grid.start.0)
        .param("grid_end", plan.grid.start.0.saturating_add(reach))
        .param("grid_step", seconds(plan.grid.step))
        .param("grid_window", seconds(window))
        .setting(plan.setting, 1)
}

/// Milliseconds as the text of a Decimal64(3).
fn seconds(millis: Millis) -> String {
    format!("{}.{:03}", millis.0 / 1000, millis.0 % 1000)
}

/// A row of the values that an operation gives for samples of ours.
pub(super) fn trial(operation: &Operation) -> Option<String> {
    Some(format!(
        "SELECT arrayMap(x -> ifNull(x, {}), {}) FROM \
         (SELECT toInt64(p.1) AS ts, reinterpretAsFloat64(p.2) AS value FROM \
         (SELECT arrayJoin(arrayZip({{times:Array(UInt64)}}, {{bits:Array(UInt64)}})) AS p)) WHERE 1{}",
        absent(),
        to_grid(operation, "fromUnixTimestamp64Milli(ts)", "value")?,
        kept(operation),
    ))
}

/// Rows of `mid, sid, values` for the series of a unit.
pub(super) fn series(plan: &Plan, unit: &Unit, tenant: &TenantId) -> Option<Statement> {
    let sql = format!(
        "SELECT mid, sid, arrayMap(x -> ifNull(x, {}), {}) FROM samples WHERE {}{} GROUP BY mid, sid",
        absent(),
        to_grid(&plan.first, "fromUnixTimestamp64Milli(ts)", "value")?,
        unit.filter(),
        kept(&plan.first),
    );
    Some(unit.bind(bind_grid(Statement::new(sql), plan), tenant))
}

/// Rows of `key, odd, values` for the groups of a unit's series; the key has a value for each label of `by`.
///
/// `odd` says that a negative zero was among the values: which zero is the least of several depends on
/// an order that the servers do not know.
pub(super) fn groups(plan: &Plan, found: &Found, unit: &Unit, tenant: &TenantId) -> Option<Statement> {
    let (combine, by) = plan.combine.as_ref()?;
    let mut row = to_grid(&plan.first, "fromUnixTimestamp64Milli(ts)", "value")?;
    if let Operation::Newest { .. } = plan.first {
        row = format!(
            "arrayMap(x -> if(reinterpretAsUInt64(ifNull(x, 0.)) = {STALE_NAN_BITS}, NULL, x), {row})"
        );
    }
    let per_series = format!(
        "SELECT mid, sid, {row} AS row FROM samples WHERE {}{} GROUP BY mid, sid",
        unit.filter(),
        kept(&plan.first),
    );
    // Without labels there is one group, and nothing to look up.
    let (key, joined) = if by.is_empty() {
        ("emptyArrayString()", String::new())
    } else {
        let labels = format!(
            " INNER JOIN (SELECT mid, sid, any(arrayMap(l -> labels[l], {{by:Array(String)}})) AS key FROM series \
             WHERE {SCOPE} AND {} GROUP BY mid, sid) AS l USING (mid, sid)",
            found.condition.sql(),
        );
        ("l.key", labels)
    };
    let sql = format!(
        "SELECT {key} AS g, max(arrayExists(x -> reinterpretAsUInt64(ifNull(x, 0.)) = {NEGATIVE_ZERO_BITS}, row)) AS odd, \
         {} FROM ({per_series}) AS s{joined} GROUP BY g",
        combined(*combine),
    );
    let mut statement = unit.bind(bind_grid(Statement::new(sql), plan), tenant);
    if !by.is_empty() {
        statement = statement.param("by", by.clone());
        if !unit.asks_series() {
            let (from, to) = days(found.range);
            statement = statement.param("day_from", u64::from(from)).param("day_to", u64::from(to));
            statement = found.condition.bind(statement);
        }
    }
    Some(statement)
}

/// Whether a unit has samples between which the operation leaves to chance: a row if so.
pub(super) fn undecided(operation: &Operation, unit: &Unit, tenant: &TenantId) -> Option<Statement> {
    use WindowFunction as F;
    let bits = "reinterpretAsUInt64(value)";
    // At one time: zeros of different sign, and for who sees stale markers another NaN.
    let among = match operation {
        // At any time.
        Operation::Window { function: F::Min | F::Max, .. } => {
            let sql = format!(
                "SELECT toUInt8(1) FROM samples WHERE {} AND {bits} = {NEGATIVE_ZERO_BITS} LIMIT 1",
                unit.filter()
            );
            return Some(unit.bind(Statement::new(sql), tenant));
        }
        Operation::Newest { .. } => format!("({NEGATIVE_ZERO_BITS}, {STALE_NAN_BITS})"),
        Operation::Window { function: F::Last | F::Idelta, .. } => format!("({NEGATIVE_ZERO_BITS})"),
        Operation::Window { .. } | Operation::Aggregate { .. } => return None,
    };
    let sql = format!(
        "SELECT toUInt8(1) FROM samples WHERE {filter} AND ({bits} = 0 OR (isNaN(value) AND {bits} != {STALE_NAN_BITS})) \
         AND (mid, sid, ts, isNaN(value)) IN \
         (SELECT mid, sid, ts, isNaN(value) FROM samples WHERE {filter} AND {bits} IN {among}) LIMIT 1",
        filter = unit.filter()
    );
    Some(unit.bind(Statement::new(sql), tenant))
}

/// Whether a unit has a histogram: a row if so.
pub(super) fn histograms(unit: &Unit, tenant: &TenantId) -> Statement {
    let sql = format!("SELECT toUInt8(1) FROM histograms WHERE {} LIMIT 1", unit.filter());
    unit.bind(Statement::new(sql), tenant)
}

/// The rows of a group as one.
fn combined(combine: Combine) -> String {
    let absent = absent();
    match combine {
        Combine::Sum => format!("arrayMap(x -> ifNull(x, {absent}), sumKahanForEach(row))"),
        Combine::Avg => format!(
            "arrayMap((x, n) -> if(n = 0, {absent}, ifNull(x, 0.) / n), sumKahanForEach(row), countForEach(row))"
        ),
        // NaN is the least and the greatest only where there is nothing else.
        Combine::Min | Combine::Max => {
            let best = if combine == Combine::Min { "minForEach" } else { "maxForEach" };
            format!(
                "arrayMap((x, n) -> if(n = 0, {absent}, ifNull(x, nan)), \
                 {best}(arrayMap(x -> if(isNaN(x), NULL, x), row)), countForEach(row))"
            )
        }
        Combine::Count => {
            format!("arrayMap(n -> if(n = 0, {absent}, toFloat64(n)), countForEach(row))")
        }
        Combine::Group => format!("arrayMap(n -> if(n = 0, {absent}, 1.), countForEach(row))"),
    }
}
