//! From closed chunks to stored objects, off the streaming thread.
//!
//! - [`scheduler`] PURE: what to send next, when to retry, how many uploads at once. Events in, actions out.
//! - [`health`] PURE: status, warnings, errors. [`rate`] PURE: bytes received per second.
//! - [`attempt`]: one attempt to store one chunk, and what a refusal means (412, a damaged object, another name); [`marks`]: the
//!   evidence for that.
//! - `hang` PURE: a disk that does not answer.
//! - [`queue`]: the shared side of one sink: memory, queue, counters; what the streaming thread waits on (`memory`, `drain`), and
//!   the driver's side (`completion`).
//!   `state`, `charges`, `disk_state`: what is under its lock. `moves` PURE: which chunks move to disk.
//! - `shelf`, `shelving` PURE: the middle of a long backlog on disk, which is queued as the backlog shrinks.
//! - `leftovers`: only a few of the sessions that earlier processes left are held at once (`held`).
//! - [`destination`] PURE: whether a chunk of the spool gets this sink's credentials.
//! - `parked`: when the process last tried the destinations that get no credentials.
//! - [`driver`]: the task that executes the scheduler's actions. It never calls into GStreamer.
//!
//! - [`chunk`], [`ticket`], [`report`], [`life`]: the types they share.
//! - [`spooler`]: the task that writes chunks to disk, [`spool_writer`] its blocking side, [`ops`] what they exchange.
//!   [`spooled_chunk`]: chunks of the spool as objects. [`redate`] PURE: corrects dates.
//!
//! - [`recovery`]: the spool of a session. `adopter`: adopts what earlier sessions left in it; `notices` PURE: its warnings.
//!   [`spool_folder`]: the figures of its folder, open or not. [`writers`]: the connections to Cloud Storage.
//!
//! A chunk is in exactly one place: gathering → queued → (spooled) → in flight → uploaded | dropped.

mod adopter;
pub mod attempt;
#[cfg(test)]
mod attempt_tests;
mod charges;
pub mod chunk;
mod completion;
#[cfg(test)]
mod conflict_tests;
pub mod destination;
mod disk_state;
#[cfg(test)]
mod disk_tests;
mod drain;
pub mod driver;
mod hang;
pub mod health;
mod held;
#[cfg(test)]
mod hold_tests;
#[cfg(test)]
mod hooked_disk;
#[cfg(test)]
mod leftover_tests;
mod leftovers;
pub mod life;
#[cfg(test)]
mod life_tests;
pub mod marks;
mod memory;
mod moves;
mod notices;
pub mod ops;
mod parked;
pub mod queue;
pub mod rate;
pub mod recovery;
pub mod redate;
pub mod report;
pub mod scheduler;
mod shelf;
#[cfg(test)]
mod shelf_tests;
mod shelving;
pub mod spool_folder;
pub mod spool_writer;
pub mod spooled_chunk;
pub mod spooler;
mod state;
#[cfg(test)]
mod tests;
pub mod ticket;
#[cfg(test)]
mod trouble_tests;
pub mod writers;
