//! The functions of PromQL, by family.

pub mod signature;

pub use signature::{Signature, lookup};
