//! The two limits of the original: bytes a second, and requests a second.
//!
//! - [`bucket`] PURE: when the next piece or request may leave.
//! - [`group`]: all sinks of the process with the same `flow-group` share two buckets, as the original's limits were per client.
//! - [`site`]: a bucket at an endpoint. Its `Retry-After` holds all sinks that store there, and no other. [`hold`] PURE: for how
//!   long.
//! - [`outage`] PURE: who of a group speaks of an outage.
//!
//! Both are charged for each attempt, bytes as they leave, in pieces; a resting limit costs nothing.

pub mod bucket;
pub mod group;
pub mod hold;
pub mod outage;
pub mod site;
