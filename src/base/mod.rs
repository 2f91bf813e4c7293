//! The lowest floor of the plugin: clocks, locks, the tokio runtime. Imports nothing else of the plugin and no GStreamer.
//!
//! - [`clock`]: the clocks of the machine, which tests replace. [`boot`]: time since the machine's boot. `wall`: the wall clock as
//!   a number.
//! - [`lock`]: locks that a panic elsewhere does not close.
//! - `registry`: one of a kind for each key, for as long as anybody uses it.
//! - `runtime`: the one tokio runtime of the process.

pub mod boot;
pub mod clock;
pub mod lock;
pub(crate) mod registry;
pub(crate) mod runtime;
pub(crate) mod wall;
