//! The nouns: what a series, a sample, a matcher and a tenant are. No I/O, no clock, no serialisation.
//!
//! Everything above speaks in these types, and both backends store exactly what they hold: float
//! bits are never touched, labels are canonical from the moment a [`Labels`] exists, and a
//! [`TenantId`] has been checked once, at the door. [`quantity`] is how a person writes a size or a time.

pub mod digest;
pub mod exemplar;
pub mod feature;
pub mod histogram;
pub mod labels;
pub mod limits;
pub mod matcher;
pub mod metadata;
pub mod quantity;
pub mod regex;
pub mod sample;
pub mod secret;
pub mod tenant;
pub mod time;

pub use digest::{Checksum, Digest};
pub use exemplar::Exemplar;
pub use feature::{Feature, FeatureSwitches};
pub use histogram::Histogram;
pub use labels::{Labels, LabelsBuilder, LabelsError, METRIC_NAME, SeriesId};
pub use limits::{Limit, OnConflict, OverLimit, TenantLimits};
pub use matcher::{MatchOp, Matcher};
pub use metadata::{Metadata, MetricType};
pub use quantity::ByteSize;
pub use sample::{STALE_NAN_BITS, is_stale, stale_nan};
pub use secret::Secret;
pub use tenant::{TenantId, TenantIdError};
pub use time::{Millis, TimeRange, Timestamp};
