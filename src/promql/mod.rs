//! Text in, answer out: PromQL over any [`Storage`](crate::storage::Storage).
//!
//! The life of a query, `sum by (job) (rate(http_requests_total[5m]))` over an hour, a step a minute:
//!
//! 1. [`Engine::range`](engine::Engine::range) is given the tenant, the text and the times.
//! 2. [`parse`] makes a tree of the text, every node with its place in it, and checks its types.
//! 3. [`plan`] makes a list of operations of the tree: selectors are narrowed by what they will be matched with,
//!    durations become milliseconds, what is the same at every step is set apart, equal parts become one. Every operation has its steps, every selector its
//!    time range. Here: one selection, `rate` over it, and `sum`, which takes the rows of `rate` as they come.
//! 4. The query waits for a free place. The time waited counts against its timeout.
//! 5. Every selection is asked of the [`Storage`](crate::storage::Storage): before the query has a thread if the store has
//!    to be waited for, else on its thread. The labels of all series come first; samples are read later, or have come in
//!    time order and lie sorted by series. Only `info()` asks again, for what depends on the series it is given: the
//!    evaluation sends the request to the task that started it, and waits for the answer.
//! 6. [`exec`] evaluates the operations one after another, in turn with other queries, on one of the [`threads`]; where a
//!    few series are looked up and over in less time than a thread takes to wake, where it is asked for. Leaves go over
//!    their series in chunks, in parallel: a series is read, its windows are walked once for all 61 steps,
//!    and a dense [`Row`](exec::rows::Row) of 61 floats comes out. `sum` adds the rows to its groups in
//!    their order, so that the sums are the same however many threads there are.
//! 7. [`functions`] and [`histogram`] hold what is computed; [`annotations`] what the user should know,
//!    with places in the text.
//! 8. The rows become an [`Answer`]: series sorted by labels, warnings, and what the query cost.
//!
//! If the caller goes away the future is dropped; the evaluation sees it within a few series and ends. Whoever holds the
//! query's [`Ticket`] can end it, too, and see what it has cost so far. Evaluations take [`turns`], so that those of one
//! tenant do not keep another's waiting, and share one [`memory`].

pub mod annotations;
pub mod engine;
pub mod error;
pub mod exec;
pub mod functions;
pub mod go_float;
pub mod histogram;
pub mod memory;
pub mod parse;
pub mod plan;
pub mod threads;
pub mod ticket;
pub mod turns;
pub mod value;

pub use engine::{
    Engine, EngineOptions, Features, MadeOf, Piece, QueryOptions, Study,
    reads::{Reads, When},
};
pub use error::{ParseError, QueryError};
pub use ticket::Ticket;
pub use value::{Answer, MatrixSeries, Point, QueryStats, Value, VectorElement};
