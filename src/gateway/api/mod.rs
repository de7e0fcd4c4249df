//! What each endpoint does.

pub mod write;
