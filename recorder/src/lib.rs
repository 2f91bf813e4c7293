//! `gcstreamer-recorder`: keeps many cameras recorded in Google Cloud Storage.
//!
//! - [`cli`]: the command line. [`app`]: the life of the process. [`log`]: its log; [`logged`] what was logged already.
//! - [`config`]: what is to be recorded, checked as a whole.
//! - [`camera`]: one camera: supervisor, pipelines, report. [`fleet`]: all of them.
//! - [`leftovers`]: what lies in the spool and has no owner. [`memory`]: the default of `max-memory-bytes`.
//! - [`presence`]: the recorder's own availability at the broker.
//! - [`probe`]: what a camera sends, before it is recorded.
//! - [`http`], [`health`]: what others ask. [`status`], [`metrics`] PURE: its texts. [`shard`] PURE: whose camera it is.
//!   [`spread`] PURE: when each begins.

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
