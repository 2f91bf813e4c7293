//! The engine between a buffer and a queued chunk. Names no GStreamer: the element is a shell around it, and `tests/outage.rs`
//! drives it without one, on virtual time.
//!
//! - `engine`: [`Engine`], one session. Called by the streaming thread, the timers and the state changes.
//! - [`stream`]: [`stream::Ingest`], from bytes to chunks: chunker, assembling, transfer to queue or spool.
//! - [`object`]: the object of a chunk: name, metadata, properties, and its entry in the spool.
//! - `push`: the path of a buffer, a large one in parts. `room`: what to do when the memory is full; `held`: how long the stream
//!   waits for that. `tick`: checks made once a second. `drain`: the two ends of a session, EOS and leaving PAUSED. `progress`:
//!   when the progress of an EOS is reported.
//! - [`message`]: the messages, and the traits that the shell implements: waiting and posting.
//!
//! Locks: the one around [`stream::Ingest`] is never held across a wait, I/O or a call into the shell other than
//! [`message::Poster::post`], and never taken while the settings' lock is held. Messages have their figures, so receivers need
//! not call back.
//!
//! Times: points of the stream and of the queue's clock, and the times in messages, are `u64` in ns, as in the media and schema
//! crates. `Duration` is for the waits of threads.

mod drain;
mod engine;
mod held;
pub mod message;
pub mod object;
mod progress;
mod push;
mod room;
pub mod stream;
#[cfg(test)]
mod tests;
mod tick;

pub use drain::{End, Ended, Unfinished};
pub use engine::{Config, Engine, Parts};
