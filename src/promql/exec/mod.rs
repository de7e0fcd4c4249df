//! Evaluates a plan.
pub mod rows;
