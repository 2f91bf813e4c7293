//! The spool of a session: opened before the first byte, and what earlier sessions left taken over in the background.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::object::Maker;
use super::recorder::Keep;
use super::settings::{Settings, SpoolMode};
use crate::spool::disk::StdDisk;
use crate::spool::{Adoption, ClosedEntry, Found, Notice, Partial, Session, Spool, SpoolError, adopt};
use crate::upload::chunk::{Chunk, Place, Summary};
use crate::upload::desk::Desk;
use crate::upload::kept::{SpoolChunk, Times};
use crate::upload::spooler;
use crate::upload::uploads::Uploads;
use gcstreamer_media::chunk::replay::Replay;
use gcstreamer_schema::Container;
use gcstreamer_schema::metadata::{DURATION_MS, END_TIME, PREVIEW_BYTES};
use gcstreamer_schema::time::rfc3339_ms;

/// The spool of a session, ready to be used.
pub(super) struct SpoolPlan {
    pub spool: Arc<Spool>,
    pub keep: Keep,
    session: Session,
    /// Where this session's own chunks go.
    site: u64,
    interval: Duration,
}

/// Opens the folder and takes the session's lock in it.
///
/// # Errors
/// An error message that names the folder and what the system says.
pub(super) fn open(dir: &str, settings: &Settings, maker: &Maker) -> Result<SpoolPlan, gst::ErrorMessage> {
    let opened = || -> Result<(Arc<Spool>, Session), SpoolError> {
        let spool = Spool::open(Arc::new(StdDisk), Path::new(dir), settings.max_spool_bytes)?;
        let session = spool.session(&maker.plan.device, &maker.session)?;
        Ok((spool, session))
    };
    let (spool, session) = opened().map_err(|e| {
        gst::error_msg!(
            gst::ResourceError::Settings,
            ("{e}; spool-dir=\"{dir}\" has to be a folder that this user may write")
        )
    })?;
    Ok(SpoolPlan {
        spool,
        session,
        site: maker.site(),
        keep: match settings.spool_mode {
            SpoolMode::Always => Keep::Always,
            SpoolMode::Overflow => Keep::Overflow,
        },
        interval: Duration::from_nanos(settings.spool_sync_interval),
    })
}

/// Runs the spool of a session to its end.
pub(super) async fn run(uploads: Arc<Uploads>, plan: SpoolPlan, ahead: Box<dyn Fn() + Send + Sync>) {
    let times = Arc::new(Times::new(&uploads));
    let own = plan.session.leftovers();
    let own_site = plan.site;
    let adoption = {
        let (uploads, times, spool) = (Arc::clone(&uploads), Arc::clone(&times), Arc::clone(&plan.spool));
        tokio::task::spawn_blocking(move || {
            for found in [own, adopt(&spool)] {
                take_over(found, own_site, &uploads, &times);
            }
            uploads.adopt(Vec::new(), true);
        })
    };
    let desk = Desk::new(plan.session, times);
    spooler::run(Arc::clone(&uploads), desk, plan.interval, ahead).await;
    if adoption.await.is_err() {
        uploads.adopt(Vec::new(), true);
    }
}

/// Hands what was found to the uploads. Blocking.
fn take_over(adoption: Adoption, own_site: u64, uploads: &Uploads, times: &Arc<Times>) {
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
            chunks.push(Chunk {
                summary: Summary {
                    session: stored.session().into(),
                    sequence: summary.sequence,
                    start: summary.start,
                    duration: summary.duration,
                    running,
                    size: summary.size,
                },
                place: Place::Disk(SpoolChunk::new(stored, Arc::clone(times))),
                recovered: true,
                site: Some(summary.site).filter(|&site| site != own_site),
                renamed: None,
                closed_at: uploads.now(),
            });
        }
        uploads.adopt(chunks, false);
    }
}

/// Closes a half-written chunk at the end of its last whole unit. `None`: not one unit is whole, and it is removed.
fn rebuild(mut partial: Partial) -> Result<Option<(Option<u64>, crate::spool::Stored)>, SpoolError> {
    let mut entry = partial.entry().clone();
    let container = Container::from_name(&entry.container).unwrap_or(Container::Raw);
    let mut replay = Replay::new(container, entry.init_bytes);
    read(&partial, partial.len(), |bytes| replay.push(bytes))?;
    let found = replay.finish(partial.complete());
    if found.whole <= entry.init_bytes {
        partial.discard()?;
        return Ok(None);
    }
    let mut crc32c = 0;
    read(&partial, found.whole, |bytes| crc32c = crc32c::crc32c_append(crc32c, bytes))?;
    entry.duration = found.duration;
    entry.rebuilt = true;
    let mut put = |key: &str, value: String| entry.metadata.insert(key.to_owned(), value);
    put(DURATION_MS, (found.duration.saturating_add(500_000) / 1_000_000).to_string());
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

fn read(partial: &Partial, len: u64, mut take: impl FnMut(&[u8])) -> Result<(), SpoolError> {
    const BLOCK: usize = 1 << 20;
    let mut reader = partial.reader()?;
    let mut at = 0;
    while at < len {
        let most = usize::try_from(len - at).unwrap_or(BLOCK).min(BLOCK);
        let bytes = reader.read_at(at, most).map_err(|e| SpoolError::reading(partial.path(), e))?;
        if bytes.is_empty() {
            break;
        }
        take(&bytes);
        at += bytes.len() as u64;
    }
    Ok(())
}
