//! The engine between a buffer and a queued chunk. Names no GStreamer: the element is a shell around it, and `tests/outage.rs`
//! drives it without one, on virtual time.
//!
//! - [`Engine`]: one session. What the streaming thread, the timers and the state changes call.
//! - [`stream`]: [`stream::Ingest`], from bytes to chunks: chunker, gathering, hand-over to queue or spool.
//! - [`object`]: what a chunk becomes: name, metadata, properties, and its entry in the spool.
//! - `room`: what to do when the memory is full. `tick`: what is looked at once a second. `drain`: the two ends of a session,
//!   EOS and leaving PAUSED. `progress`: what a person is told of the first of them.
//! - [`message`]: what it reports, and what it needs of the shell: waiting and posting.
//!
//! Locks: the one around [`stream::Ingest`] is never held across a wait, I/O or a call into the shell other than
//! [`message::Poster::post`], and never taken while the settings' lock is held. Messages carry their figures, so that nobody
//! has to ask back.

mod drain;
mod engine;
pub mod message;
pub mod object;
mod progress;
mod room;
pub mod stream;
#[cfg(test)]
mod tests;
mod tick;

pub use drain::{End, Ended, Unfinished};
pub use engine::{Config, Engine, Parts};
