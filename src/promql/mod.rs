//! Text in, answer out: PromQL over any [`Storage`](crate::storage::Storage).

pub mod annotations;
pub mod error;
pub mod exec;
pub mod functions;
pub mod go_float;
pub mod histogram;
pub mod parse;
pub mod value;

pub use error::{ParseError, QueryError};
pub use value::{Answer, MatrixSeries, Point, QueryStats, Value, VectorElement};
