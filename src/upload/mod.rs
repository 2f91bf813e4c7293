//! From closed chunks to stored objects, off the streaming thread.
//!
//! - [`scheduler`] PURE: what to send next, when to try again, how many at once. Events in, actions out.
//! - [`health`] PURE: status, warnings, errors. [`rate`] PURE: how much comes in.
//! - [`attempt`]: one chunk, one attempt, and what a refusal means (412, a bad object, another name); [`marks`]: what it rests on.
//! - `hang` PURE: a disk that does not answer.
//! - [`queue`]: the shared side of one sink: memory, queue, counters; what the streaming thread waits on (`memory`, `drain`).
//!   `state`, `disk_state`: what is under its lock. `moves` PURE: which chunks move to disk.
//! - `shelf`, `shelving` PURE: the middle of a long backlog on disk, which is queued as the rest gets less.
//! - `leftovers`: few of the sessions that earlier processes left are held at once (`held`).
//! - `parked`: when the process last tried the destinations that get no credentials.
//! - [`driver`]: the task that carries the scheduler's actions out. It never calls into GStreamer.
//!
//! - [`chunk`], [`ticket`], [`report`], [`life`]: the types they share.
//! - [`spooler`]: the task that writes chunks to disk, [`spool_writer`] its blocking side. [`spooled_chunk`]: chunks of the spool as objects. [`redate`] PURE.
//!
//! - [`recovery`]: the spool of a session. `adopter`: takes over what earlier sessions left in it; `notices` PURE. [`writers`]: the ways to Cloud Storage.
//!
//! A chunk is in exactly one place: gathering → queued → (spooled) → in flight → uploaded | dropped.

mod adopter;
pub mod attempt;
#[cfg(test)]
mod attempt_tests;
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
