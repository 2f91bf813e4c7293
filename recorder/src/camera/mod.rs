//! One camera: what is done about it, and the pipelines that do it.
//!
//! - [`state`] PURE: the words. [`supervisor`] PURE: events in, actions out, on virtual time. `pause` PURE: how long to wait.
//! - `advice`, `plan`, `classify` PURE: what to change about a camera; which elements record a codec; what an ERROR means.
//! - [`runner`]: the task of a camera. [`report`]: what is known of it from outside; `stats`: figures of its sinks.
//! - [`recording`]: one pipeline. `source`, `outside`, `sink`: its ends. [`files`]: what a connection reads first. `reach`: why an HTTP camera gives no answer. `login`: what may be sent to a camera. `bus`: its messages. `between`, `torn`: its pictures whole. `timestamps`: its running times. `latm`: its first frame of sound. `form`: whether sound keeps its form. [`absence`]: what the broker learns without one. [`measure`]: for `probe`. [`watch`]: what passes. [`ending`]: its end.

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
