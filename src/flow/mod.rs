//! Flow control: the original's two limits, bytes per second and requests per second.
//!
//! - [`bucket`] PURE: computes when the next piece or request may leave.
//! - [`group`]: all sinks of the process with the same `flow-group` share two buckets, because the original's limits were per
//!   client.
//! - [`member`]: one sink in its group, and the route of an attempt through the limits.
//! - [`bucket_endpoint`]: a bucket at an endpoint. Its `Retry-After` holds all sinks that store there, and no other. [`hold`] PURE: for how
//!   long.
//! - [`outage`] PURE: decides which member of a group reports an outage.
//! - [`pending`] PURE: what waits to be stored.
//! - [`shortage`] PURE: detects that a limit is too low for what the sinks receive.
//!
//! Every attempt is charged: one request, and its bytes piece by piece as they leave. An idle limit uses no CPU time.

pub mod bucket;
pub mod bucket_endpoint;
pub mod group;
pub mod hold;
pub mod member;
pub mod outage;
pub mod pending;
pub mod shortage;
