//! HTTP: the only part that knows it.

pub mod api;
