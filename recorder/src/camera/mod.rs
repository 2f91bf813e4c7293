//! One camera: its supervisor, its task and its pipelines.
//!
//! - [`state`] PURE: states and failures. [`supervisor`] PURE: events in, actions out, on virtual time. `pause` PURE: how long to
//!   wait between attempts.
//! - `advice`, `plan`, `classify` PURE: what to change about a camera; which elements record a codec; what an ERROR means.
//! - [`runner`]: the task of a camera. [`report`]: its published state. `stats`: the counters of its sinks.
//! - [`recording`]: one pipeline, its branches and what is built behind them. `source`, `outside`, `sink`: its elements. `bus`: its
//!   messages. [`watch`]: its counters. [`ending`]: its end.
//! - [`files`]: the files that a connection needs. `login`: the requests that may be sent to a camera. `reach`: why an HTTP
//!   camera gives no answer.
//! - `between`, `torn`: keep pictures whole. `timestamps`: corrects their times. `latm`: corrects the first frame of sound.
//!   `form`: notices when the sound's format changes. `clock`: the error of the camera's clock.
//! - [`absence`]: reports to the broker without a recording. [`measure`]: measurements for `probe`.

pub mod absence;
pub mod advice;
mod between;
mod bus;
mod classify;
mod clock;
pub mod ending;
pub mod files;
mod form;
mod latm;
mod login;
pub mod measure;
mod outside;
mod pause;
pub mod plan;
mod reach;
pub mod recording;
pub mod report;
pub mod runner;
pub mod sink;
mod source;
pub mod state;
pub mod stats;
pub mod supervisor;
#[cfg(test)]
mod supervisor_tests;
mod timestamps;
mod torn;
pub mod watch;
