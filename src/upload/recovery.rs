//! The spool of a session: opened before the first byte. What earlier sessions left is adopted in the background.
//!
//! Blocks on the disk, at most for the time after which the disk counts as hanging; [`run`] does so on tokio's threads for
//! blocking work. Names no GStreamer.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::oneshot;

use super::adopter::Adopter;
use super::chunk::Keep;
use super::destination::Sorter;
use super::ops::Touch;
use super::queue::UploadQueue;
use super::spool_folder::SpoolFolder;
use super::spool_writer::SpoolWriter;
use super::spooler::{self, Jobs};
use crate::base::lock::lock;
use crate::spool::disk::{Disk, StdDisk};
use crate::spool::lane::Lane;
use crate::spool::watched::WatchedDisk;
use crate::spool::{DestinationId, EarlierChunks, Session, Spool, SpoolError};
use gcstreamer_storage::Endpoint;

/// The spool of a session: open, or to be opened as soon as the disk answers or has room.
pub struct SessionSpool {
    /// The folder and its limit.
    pub folder: Arc<SpoolFolder>,
    /// What is written to disk, and when.
    pub keep: Keep,
    plan: Plan,
    opened: Result<(Session, EarlierChunks), SpoolError>,
    jobs: Arc<Jobs>,
    /// Decides where found chunks go.
    sorter: Sorter,
    interval: Duration,
}

/// What is to be opened.
#[derive(Debug)]
struct Plan {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    device: String,
    session: String,
    /// The folder that the last attempt opened, if opening the session in it failed.
    refused: Mutex<Option<Arc<Spool>>>,
}

impl Plan {
    /// Opens the folder and the session. Returns the session, and what an earlier life of it left.
    fn open(&self, folder: &SpoolFolder) -> Result<(Session, EarlierChunks), SpoolError> {
        let spool = match folder.spool() {
            Some(spool) => spool,
            None => Spool::open(Arc::clone(&self.disk), &self.dir, folder.max())?,
        };
        let session = match spool.session(&self.device, &self.session) {
            Err(why) if why.is_full() => {
                // Chunks that others left there make room when they are stored, so the folder is opened without the session.
                folder.set(spool);
                return Err(why);
            }
            Err(why) => {
                // Kept alive for its quota: otherwise each attempt would count all files of the folder again.
                *lock(&self.refused) = Some(spool);
                return Err(why);
            }
            Ok(session) => session,
        };
        lock(&self.refused).take();
        // Listed before the first chunk is written: afterwards a leftover with the same sequence number would be missed.
        let left = session.earlier()?;
        folder.set(spool);
        Ok((session, left))
    }
}

/// The settings of a session's spool.
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
    /// No error of the disk ends the session: it starts in memory, just as it continues in memory when the disk refuses later.
    pub outlasts_refusals: bool,
}

/// Opens the folder and takes the lock of `session` in it. `endpoint` and `destination`: where the session's own chunks go. A
/// disk that does not answer or is full is no error: the folder is opened later.
///
/// # Errors
/// The folder cannot be created, read or written for another reason, or another process has that session. Never fails with
/// `outlasts_refusals`.
pub fn open(
    settings: SpoolSettings<'_>,
    device: &str,
    session: &str,
    endpoint: Endpoint,
    destination: DestinationId,
) -> Result<SessionSpool, SpoolError> {
    let dir = Path::new(settings.dir);
    let lane = Lane::of(dir);
    let plan = Plan {
        disk: Arc::new(WatchedDisk::new(Arc::new(StdDisk), lane.clone())),
        dir: dir.to_owned(),
        device: device.to_owned(),
        session: session.to_owned(),
        refused: Mutex::default(),
    };
    let folder = Arc::new(SpoolFolder::new(settings.max_bytes));
    let opened = match plan.open(&folder) {
        // A wrong path or a missing permission does not resolve itself, so the user has to act. With `outlasts_refusals` it
        // becomes a WARNING.
        Err(e) if !settings.outlasts_refusals && !e.is_hung() && !e.is_full() => return Err(e),
        opened => opened,
    };
    Ok(SessionSpool {
        folder,
        keep: settings.keep,
        plan,
        opened,
        jobs: Jobs::of(dir, lane),
        sorter: Sorter::new(endpoint, destination),
        interval: settings.interval,
    })
}

/// Runs the spool of a session until its end. `ahead` is called when bytes that are not assigned to a chunk are to be written
/// too.
pub async fn run(uploads: Arc<UploadQueue>, session: SessionSpool, ahead: Box<dyn Fn() + Send + Sync>) {
    let times = uploads.times();
    let (is_open, opened) = oneshot::channel();
    let (folder, plan, jobs) = (session.folder, session.plan, session.jobs);
    let writer = match session.opened {
        Ok((session, left)) => {
            let _ = is_open.send(left);
            SpoolWriter::new(session, Arc::clone(&times))
        }
        Err(why) => {
            if why.is_hung() {
                uploads.disk_hangs(&why);
            } else {
                uploads.disk_done(Touch::Free, Some(why));
            }
            let (folder, mut is_open) = (Arc::clone(&folder), Some(is_open));
            let opener = move || {
                let (session, left) = plan.open(&folder)?;
                if let Some(is_open) = is_open.take() {
                    let _ = is_open.send(left);
                }
                Ok(session)
            };
            SpoolWriter::not_yet(Box::new(opener), Arc::clone(&times))
        }
    };
    let adopter = Adopter::new(&uploads, session.sorter, times);
    // A task of its own: adopting may wait for hours for a place, and must not delay the writes of this session.
    let adoption = tokio::spawn(adopter.run(folder, opened, Arc::clone(&jobs)));
    spooler::run(Arc::clone(&uploads), writer, jobs, session.interval, ahead).await;
    // The adopter has panicked: an EOS must not wait for it.
    if adoption.await.is_err() {
        uploads.set_adopting(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::Leftovers;
    use crate::spool::sim::{Fault, SimDisk};

    #[test]
    fn a_disk_without_room_for_a_folder_is_opened_for_what_others_left_there() {
        // Whichever operation of the start finds it full.
        for at in 1..40 {
            let disk = SimDisk::new(5);
            let plan = Plan {
                disk: Arc::new(disk.clone()),
                dir: disk.root().to_owned(),
                device: "cam".to_owned(),
                session: "0a1b2c3d4e".to_owned(),
                refused: Mutex::default(),
            };
            disk.set_fault(Some(Fault::Once(at, rustix::io::Errno::NOSPC.raw_os_error())));
            let folder = SpoolFolder::new(0);
            let Err(why) = plan.open(&folder) else { continue };
            // Reading needs no room.
            if why.to_string().contains("cannot read") {
                continue;
            }
            assert!(why.is_full(), "{at}: {why}");
            // It can be looked through, and is opened once there is room.
            let spool = folder.spool().unwrap_or_else(|| panic!("{at}: {why}"));
            assert!(Leftovers::list(&spool).is_ok());
            assert!(plan.open(&folder).is_ok(), "{at}");
        }
    }
}
