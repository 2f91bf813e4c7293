//! `gcstreamer-recorder`: keeps many cameras recorded in Google Cloud Storage.
//!
//! - [`cli`]: the command line. [`app`]: the process from start to end. [`log`]: its log. [`logged`]: suppresses repeated log
//!   lines.
//! - [`config`]: the configuration, checked as a whole.
//! - [`camera`]: one camera: supervisor, pipelines, report. [`fleet`]: all cameras.
//! - [`leftovers`]: uploads chunks of the spool that no sink owns. [`memory`]: the default of `max-memory-bytes`.
//! - [`presence`]: the recorder's own availability at the broker.
//! - [`probe`]: measures what a camera sends, before it is recorded.
//! - [`http`], [`health`]: the HTTP server and the health checks. [`status`], [`metrics`] PURE: the texts that it serves.
//! - [`shard`] PURE: which process records a camera. [`spread`] PURE: when each camera starts.

pub mod app;
pub mod camera;
pub mod cli;
pub mod config;
pub mod fleet;
pub mod health;
pub mod http;
pub mod leftovers;
pub mod log;
mod logged;
pub mod memory;
pub mod metrics;
pub mod presence;
pub mod probe;
pub mod shard;
pub mod spread;
pub mod status;
