//! The lowest layer of the plugin: clocks, locks, the tokio runtime. Imports no other module of the plugin and no GStreamer.
//!
//! - [`clock`]: the clocks of the machine, which tests replace. [`boot`]: time since the machine's boot. `wall`: the wall clock
//!   as a number.
//! - [`lock`]: locks that stay usable after a panic in another holder.
//! - `registry`: one shared value per key, kept while it is in use.
//! - `runtime`: the tokio runtime of the process.

pub mod boot;
pub mod clock;
pub mod lock;
pub(crate) mod registry;
pub(crate) mod runtime;
pub(crate) mod wall;
