//! The state of the pipeline: takes events and counts, returns the phase and what to publish.
//!
//! PURE: time is an argument, in ns. The shell passes each event to [`Reporter::handle`] and then calls [`Reporter::poll`], which
//! returns what to publish now and when to poll again at the latest.
//!
//! - `input` — what the shell passes in: moments, limits, counts
//! - `event` — the events
//! - `phase` — the rules of the phases
//! - `sinks` — the gcssinks behind the element, several as one
//! - `video` — rates and stalls
//! - `answers`, `publication` — when a command is answered, what was published and what is due
//! - `status` — the JSON status
//! - `reporter` — the state machine over all of these
//!
//! This file only declares and re-exports; the files import each other, never this one.

mod answers;
mod event;
mod input;
mod phase;
mod publication;
mod reporter;
mod sinks;
mod status;
#[cfg(test)]
mod tests;
mod video;

pub use event::{Answer, Chunk, Event, Gap, Problem, SinkSample, Telemetry};
pub use input::{Counts, Flow, Format, Limits, Now, Push};
pub use phase::{Feed, Phase, Reason};
pub use reporter::{Output, Reporter};
pub(super) use status::sha256_hex;
pub use status::{Config, Identity, Status, Upload, Video};
pub use video::Stalls;
