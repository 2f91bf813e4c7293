//! The spool of a session: opened before the first byte, and what earlier sessions left taken over in the background.
//!
//! Blocks on the disk; [`run`] does so on tokio's threads for blocking work. Names no GStreamer.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::chunk::{Chunk, Keep, Place, Summary};
use super::destination::Sorter;
use super::queue::UploadQueue;
use super::spool_writer::SpoolWriter;
use super::spooled_chunk::{ChunkFile, Times};
use super::spooler;
use crate::spool::disk::StdDisk;
use crate::spool::{Adoption, ClosedEntry, Found, Notice, Partial, Session, Spool, SpoolError, Stored, adopt};
use gcstreamer_media::chunk::replay::Replay;
use gcstreamer_schema::Container;
use gcstreamer_schema::metadata::{DURATION_MS, END_TIME, PREVIEW_BYTES, duration_ms};
use gcstreamer_schema::time::rfc3339_ms;
use gcstreamer_storage::Endpoint;

/// The spool of a session, ready to be used.
pub struct SessionSpool {
    /// The folder and its limit.
    pub spool: Arc<Spool>,
    /// What is written to it, and when.
    pub keep: Keep,
    session: Session,
    /// Knows where this session's own chunks go.
    sorter: Sorter,
    interval: Duration,
}

/// What the spool of a session is to be. All of it comes from the settings.
#[derive(Clone, Copy, Debug)]
pub struct SpoolSettings<'a> {
    /// Property `spool-dir`.
    pub dir: &'a str,
    /// Property `max-spool-bytes`.
    pub max_bytes: u64,
    /// Property `spool-mode`.
    pub keep: Keep,
    /// Property `spool-sync-interval`.
    pub interval: Duration,
}

/// Opens the folder and takes the lock of `session` in it. `endpoint` and `site`: where
/// the session's own chunks go.
///
/// # Errors
/// The folder cannot be made, read or written, or another process has that session.
pub fn open(
    settings: SpoolSettings<'_>,
    device: &str,
    session: &str,
    endpoint: Endpoint,
    site: u64,
) -> Result<SessionSpool, SpoolError> {
    let spool = Spool::open(Arc::new(StdDisk), Path::new(settings.dir), settings.max_bytes)?;
    let session = spool.session(device, session)?;
    Ok(SessionSpool {
        spool,
        keep: settings.keep,
        session,
        sorter: Sorter::new(endpoint, site),
        interval: settings.interval,
    })
}

/// Runs the spool of a session to its end; `ahead` is called when what is not decided about is to be written too.
pub async fn run(uploads: Arc<UploadQueue>, plan: SessionSpool, ahead: Box<dyn Fn() + Send + Sync>) {
    let times = uploads.times();
    let own = plan.session.leftovers();
    let mut sorter = plan.sorter;
    let adoption = {
        let (uploads, times, spool) = (Arc::clone(&uploads), Arc::clone(&times), Arc::clone(&plan.spool));
        tokio::task::spawn_blocking(move || {
            for found in [own, adopt(&spool)] {
                take_over(found, &mut sorter, &uploads, &times);
            }
            uploads.adopt(Vec::new(), true);
        })
    };
    let desk = SpoolWriter::new(plan.session, times);
    spooler::run(Arc::clone(&uploads), desk, plan.interval, ahead).await;
    if adoption.await.is_err() {
        uploads.adopt(Vec::new(), true);
    }
}

/// Hands what was found to the uploads. Blocking.
fn take_over(adoption: Adoption, sorter: &mut Sorter, uploads: &UploadQueue, times: &Arc<Times>) {
    times.learn(&adoption.boots);
    for notice in adoption.notices {
        uploads.warn(notice.to_string());
        if let Notice::Quarantined { session, chunk, .. } = notice {
            uploads.lost(Summary {
                session: session.into(),
                sequence: chunk.sequence,
                start: chunk.start,
                duration: chunk.duration,
                running: None,
                size: chunk.size,
            });
        }
    }
    for session in adoption.sessions {
        let mut chunks = Vec::new();
        for found in session.chunks {
            let stored = match found {
                Found::Upload(stored) => Some((None, stored)),
                Found::Rebuild(partial) => match rebuild(partial) {
                    Ok(rebuilt) => rebuilt,
                    Err(e) => {
                        uploads.warn(format!("{e}; the half-written chunk is left for the next start"));
                        None
                    }
                },
            };
            let Some((running, stored)) = stored else { continue };
            let summary = stored.summary();
            let (site, warning) = sorter.sort(summary.site, adoption.destinations.get(&summary.site));
            warning.into_iter().for_each(|text| uploads.warn(text));
            chunks.push(Chunk {
                summary: Summary {
                    session: stored.session().into(),
                    sequence: summary.sequence,
                    start: summary.start,
                    duration: summary.duration,
                    running,
                    size: summary.size,
                },
                place: Place::Disk(ChunkFile::new(stored, Arc::clone(times))),
                recovered: true,
                site,
                renamed: None,
                closed_at: uploads.now(),
            });
        }
        uploads.adopt(chunks, false);
    }
}

/// Closes a half-written chunk at the end of its last whole unit. `None`: not one unit is whole, and it is removed.
fn rebuild(mut partial: Partial) -> Result<Option<(Option<u64>, Stored)>, SpoolError> {
    let mut entry = partial.entry().clone();
    let container = Container::from_name(&entry.container).unwrap_or(Container::Raw);
    let mut replay = Replay::new(container, entry.init_bytes);
    partial.reader()?.for_each(partial.len(), |bytes| {
        replay.push(&bytes);
        Ok(())
    })?;
    let found = replay.finish(partial.complete());
    if found.whole <= entry.init_bytes {
        partial.discard()?;
        return Ok(None);
    }
    let mut crc32c = 0;
    partial.reader()?.for_each(found.whole, |bytes| {
        crc32c = crc32c::crc32c_append(crc32c, &bytes);
        Ok(())
    })?;
    entry.duration = found.duration;
    entry.rebuilt = true;
    entry.attempted = partial.attempted();
    entry.sent = partial.was_sent(&entry.name);
    let mut put = |key: &str, value: String| entry.metadata.insert(key.to_owned(), value);
    put(DURATION_MS, duration_ms(found.duration));
    put(END_TIME, rfc3339_ms(entry.start.saturating_add(found.duration)));
    match found.preview_bytes {
        Some(end) => put(PREVIEW_BYTES, end.to_string()),
        None => entry.metadata.remove(PREVIEW_BYTES),
    };
    let running = entry.running;
    let closed = ClosedEntry {
        entry,
        size: found.whole,
        crc32c,
    };
    Ok(Some((running, partial.refinish(&closed)?)))
}
