//! A Redis that several gateways share.
//!
//! Nothing here stands or falls with it: a caller asks [`RedisLink::call`], which answers in time or fails, and knows
//! what to do without.
//!
//! ```text
//! call ──▶ breaker closed? ──▶ connection ──▶ answer, or a failure within its time
//!               │ no                ▲ lost, or 5 failures in a row
//!               ▼                   │
//!          failure at once       keeper: connects in the background, waits 1 s, 2 s, 4 s … 30 s between attempts
//! ```
//!
//! * [`answers`]: answers that are kept for all gateways.
//! * [`breaker`]: whether Redis is asked at all.
//! * [`connect`]: how a connection comes about.
//! * [`link`](mod@link): the connection that all calls share, and the keeper that renews it.
//! * [`memory`]: what Redis says of its memory.

pub mod answers;
pub mod breaker;
pub mod connect;
pub mod link;
pub mod memory;

pub use answers::RedisAnswers;
pub use breaker::LinkState;
pub use connect::{RedisConfig, RedisConfigError, RedisTlsConfig};
pub use link::{RedisCounters, RedisFailure, RedisLink};
pub use memory::RedisMemory;
