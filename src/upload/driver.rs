//! The task of one sink that executes the scheduler's decisions. Never calls into GStreamer: it queues reports in
//! [`UploadQueue`].

use std::collections::HashMap;
use std::sync::Arc;

use tokio::task::{AbortHandle, JoinSet, spawn_blocking};

use super::attempt::{Attempted, attempt};
use super::chunk::{Chunk, Place, SpooledChunk, StoredAs, Unloaded};
use super::completion::{Confirmed, Due};
use super::marks::Marks;
use super::queue::UploadQueue;
use super::ticket::Ticket;
use crate::flow::member::{Member, Route};
use gcstreamer_storage::{Class, Endpoint, ObjectWriter, Stored, WriteError};

/// Provides the writers of one sink. Chunks of earlier sessions may belong to another endpoint than this sink's own.
pub trait Writers: Send + Sync {
    /// Returns the writer of this sink's own chunks.
    fn own(&self) -> Arc<dyn ObjectWriter>;
    /// Returns the writer to the endpoint that a chunk of the spool names; `None` = Google's. `anonymous` comes from the file and
    /// must not decide about credentials: anybody who can write to the spool may have written it.
    ///
    /// # Errors
    /// The endpoint cannot be used: the reason, for the user.
    fn to(&self, endpoint: Option<&str>, anonymous: bool) -> Result<Arc<dyn ObjectWriter>, String>;
}

/// Runs until [`UploadQueue::stop`]; then aborts the attempts in flight and closes their connections.
pub async fn run(uploads: Arc<UploadQueue>, writers: Arc<dyn Writers>, flow: Arc<Member>) {
    let mut attempts: JoinSet<(Ticket, Attempted, Confirmed)> = JoinSet::new();
    let mut running: HashMap<Ticket, AbortHandle> = HashMap::new();
    loop {
        let (chunks, aborts, wake, drain) = match uploads.due() {
            Due::Send {
                chunks,
                aborts,
                wake,
                drain,
            } => (chunks, aborts, wake, drain),
            // Dropping `attempts` aborts those in flight.
            Due::Stop => return,
        };
        for ticket in aborts {
            if let Some(attempt) = running.remove(&ticket) {
                attempt.abort();
            }
        }
        for (ticket, chunk) in chunks {
            let (writers, member, flow) = (Arc::clone(&writers), Arc::clone(&flow), Route::own(&flow, drain));
            let handle = attempts.spawn(async move {
                // A task of its own: a panic in a library must cost one attempt, not the recording.
                let inner = {
                    let chunk = Arc::clone(&chunk);
                    tokio::spawn(async move { send(&*writers, &chunk, &flow).await })
                };
                let mut inner = AbortOnDrop(inner);
                let (attempted, confirmed) = (&mut inner.0).await.unwrap_or_else(|panic| {
                    let (session, sequence) = (&chunk.summary.session, chunk.summary.sequence);
                    let what = format!("storing chunk {sequence} of session {session} failed by a panic: {panic}");
                    (failed(what), Confirmed::No)
                });
                // Storing a chunk elsewhere proves nothing about this sink's own bucket.
                if chunk.link_key.is_none() && matches!(attempted, Attempted::Stored { .. }) {
                    member.endpoint().note_stored();
                }
                (ticket, attempted, confirmed)
            });
            running.insert(ticket, handle);
        }
        let timer = async {
            match wake {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(joined) = attempts.join_next_with_id() => {
                // Ignore the result of an aborted attempt: another attempt of that chunk may run by now.
                if let Ok((id, (ticket, attempted, confirmed))) = joined
                    && running.get(&ticket).is_some_and(|attempt| attempt.id() == id)
                {
                    running.remove(&ticket);
                    uploads.finished(ticket, attempted, confirmed);
                }
            }
            () = uploads.woken() => {}
            () = timer => {}
        }
    }
}

/// Makes one attempt, from memory or from disk.
async fn send(writers: &dyn Writers, chunk: &Chunk, flow: &Route) -> (Attempted, Confirmed) {
    match &chunk.place {
        Place::Memory(held) => {
            let marks = Marks::new(
                Arc::clone(&held.sent),
                held.part.as_ref().map(|part| Arc::clone(&part.spooled) as _),
            );
            let name = chunk.renamed.as_deref();
            let attempted = attempt(&*writers.own(), &held.request, name, &held.naming, &marks, flow).await;
            let Some(part) = &held.part else {
                return (attempted, Confirmed::No);
            };
            match attempted {
                Attempted::Stored { .. } => {
                    let part = Arc::clone(&part.spooled);
                    let is_done = spawn_blocking(move || part.confirm()).await.unwrap_or(false);
                    (attempted, if is_done { Confirmed::Part } else { Confirmed::No })
                }
                // The disk is the cause, not the link: the chunk is put off until the disk answers.
                Attempted::Failed { error, .. } if part.spooled.take_hung() => {
                    (Attempted::Unread { why: error.message }, Confirmed::No)
                }
                _ => (attempted, Confirmed::No),
            }
        }
        Place::Disk(spooled) => send_from_disk(writers, spooled, chunk.renamed.as_deref(), flow).await,
    }
}

pub(super) async fn send_from_disk(
    writers: &dyn Writers,
    spooled: &Arc<dyn SpooledChunk>,
    name: Option<&str>,
    flow: &Route,
) -> (Attempted, Confirmed) {
    let mut attempted = try_from_disk(writers, spooled, name, flow).await;
    match &mut attempted {
        // Confirm before reporting: after a crash, the mark on disk keeps a chunk that was reported as stored from being sent
        // again.
        Attempted::Stored { .. } => {
            let spooled = Arc::clone(spooled);
            let is_done = spawn_blocking(move || spooled.confirm()).await.unwrap_or(false);
            (attempted, if is_done { Confirmed::File } else { Confirmed::No })
        }
        Attempted::Failed { error, .. } => {
            // The damage was found while the body was read; the server saw only a request that ended early.
            if let Some(why) = spooled.damage() {
                return (aside(spooled, why).await, Confirmed::No);
            }
            if spooled.take_hung() {
                let why = std::mem::take(&mut error.message);
                return (Attempted::Unread { why }, Confirmed::No);
            }
            (attempted, Confirmed::No)
        }
        Attempted::Held { .. } | Attempted::Unread { .. } | Attempted::Damaged { .. } => (attempted, Confirmed::No),
    }
}

async fn try_from_disk(writers: &dyn Writers, spooled: &Arc<dyn SpooledChunk>, name: Option<&str>, flow: &Route) -> Attempted {
    let reading = Arc::clone(spooled);
    let loaded = match spawn_blocking(move || reading.load()).await {
        Ok(Ok(loaded)) => loaded,
        Ok(Err(Unloaded::Damaged(why))) => return aside(spooled, why).await,
        Ok(Err(Unloaded::Hung(why))) => return Attempted::Unread { why },
        Ok(Err(Unloaded::Stored(known))) => {
            return Attempted::Stored {
                stored: known.generation.map(|generation| Stored {
                    generation,
                    size: known.size,
                    crc32c: Some(known.crc32c),
                    created: None,
                }),
                name: known.name,
                device: known.device,
                crc32c: known.crc32c,
                start: Some(known.start),
                warning: None,
            };
        }
        // Too many open files, or an I/O error: not a fault of the chunk, which stays where it is.
        Ok(Err(Unloaded::Unreadable(why))) => {
            return failed_by(
                Class::Local,
                format!("a chunk of the spool cannot be read now and stays there: {why}"),
            );
        }
        Err(panic) => return failed(format!("reading a chunk of the spool failed by a panic: {panic}")),
    };
    let writer = match writers.to(loaded.endpoint.as_deref(), loaded.anonymous) {
        Ok(writer) => writer,
        Err(why) => return failed(why),
    };
    // Route by the chunk's own bucket and endpoint: only their `Retry-After` holds it.
    let google = Endpoint::google();
    let endpoint = loaded.endpoint.as_deref().unwrap_or(google.as_str());
    let flow = flow.to(endpoint, &loaded.request.bucket);
    let marks = Marks::new(loaded.sent, Some(Arc::clone(spooled)));
    let mut attempted = attempt(&*writer, &loaded.request, name, &loaded.naming, &marks, &flow).await;
    if let Attempted::Stored {
        stored,
        name,
        device,
        crc32c,
        start,
        ..
    } = &mut attempted
    {
        *start = Some(loaded.start);
        // Recorded before the next await, where this attempt may be aborted; otherwise the chunk would be sent again.
        spooled.set_stored(StoredAs {
            name: name.clone(),
            device: device.clone(),
            generation: stored.as_ref().map(|s| s.generation),
            size: loaded.request.size,
            crc32c: *crc32c,
            start: loaded.start,
        });
    }
    attempted
}

async fn aside(spooled: &Arc<dyn SpooledChunk>, why: String) -> Attempted {
    let spooled = Arc::clone(spooled);
    match spawn_blocking(move || spooled.set_aside(&why)).await {
        Ok(why) => Attempted::Damaged { why },
        Err(panic) => failed(format!(
            "setting a damaged chunk of the spool aside failed by a panic: {panic}"
        )),
    }
}

fn failed(message: String) -> Attempted {
    failed_by(Class::Transient, message)
}

fn failed_by(class: Class, message: String) -> Attempted {
    Attempted::Failed {
        error: WriteError {
            class,
            http_status: None,
            reason: None,
            retry_after: None,
            server_date: None,
            bad_generation: None,
            may_be_stored: false,
            message,
        },
        name: None,
        warning: None,
    }
}

/// A task that is aborted when its handle is dropped.
struct AbortOnDrop<T>(tokio::task::JoinHandle<T>);

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        // tokio detaches a task whose handle is dropped, and its request would continue.
        self.0.abort();
    }
}
