//! A disk in trouble: full, failing, or hanging. Decides what the queue does until it works again.
//!
//! PURE: time is an argument in ns. Chunks stay in memory, where `overflow-policy` applies; chunks on the disk are put off; the
//! spool writer tries the disk every [`TRY_AGAIN`]. The trouble is reported once when it begins, and once when it is over.

use super::chunk::Chunk;
use super::disk_state::{DiskHealth, Hang};
use super::ops::Touch;
use super::report::{DiskFault, Report};
use super::state::QueueState;
use crate::spool::SpoolError;

/// Time without trouble after which a disk that was full or failing counts as working again, ns.
const QUIET: u64 = 60_000_000_000;
/// Interval between probes of a disk that does not answer, ns.
const TRY_AGAIN: u64 = 10_000_000_000;

impl QueueState {
    /// Notes that the disk did not answer. Returns when it is tried again.
    pub(super) fn disk_hangs(&mut self, why: &str, now: u64) -> u64 {
        let retry_at = now.saturating_add(TRY_AGAIN);
        let Some(disk) = &mut self.disk else { return retry_at };
        let is_new = disk.hang.is_none();
        let hang = disk.hang.get_or_insert(Hang { retry_at });
        // A `retry_at` in the future stays: this is another call that was waiting when the hang began.
        if hang.retry_at <= now {
            hang.retry_at = retry_at;
        }
        let retry_at = hang.retry_at;
        self.health.set_disk_in_trouble(true);
        if is_new {
            self.reports.push_back(Report::Disk {
                fault: DiskFault::Hung,
                text: why.to_owned(),
            });
        }
        retry_at
    }

    /// Notes that the disk answers again.
    pub(super) fn disk_answers(&mut self) {
        let Some(disk) = &mut self.disk else { return };
        if disk.hang.take().is_some() {
            disk.health = DiskHealth::Works { quiet_since: None };
            disk.is_full = false;
            self.health.set_disk_in_trouble(false);
            self.reports.push_back(Report::DiskWorks);
        }
    }

    /// Notes the answer of the disk, which may be an error.
    pub(super) fn disk_answered(&mut self, trouble: Option<SpoolError>, now: u64) {
        let on_disk = self.bytes_on_disk();
        let Some(disk) = &mut self.disk else { return };
        // If others have filled the disk, dropping our chunks makes no room.
        disk.is_full = trouble.as_ref().is_some_and(|trouble| trouble.is_fixed_by(on_disk));
        let reported = disk.health.trouble_at();
        disk.health = match trouble {
            Some(_) => DiskHealth::Blocked { since: Some(now) },
            // A full disk accepts a little whenever a chunk leaves it: stay quiet about that.
            None => DiskHealth::Works {
                quiet_since: reported.filter(|&at| now.saturating_sub(at) < QUIET),
            },
        };
        self.health.set_disk_in_trouble(disk.health.trouble_at().is_some());
        match (trouble, reported) {
            (Some(trouble), None) => {
                let fault = if trouble.is_full() {
                    DiskFault::Full
                } else {
                    DiskFault::Fails
                };
                let text = trouble.to_string();
                self.reports.push_back(Report::Disk { fault, text });
            }
            (None, Some(at)) if now.saturating_sub(at) >= QUIET => self.reports.push_back(Report::DiskWorks),
            _ => {}
        }
        self.poll(now);
    }

    /// Returns until when the bytes of a chunk cannot be read; `None` if they can.
    pub(super) fn unread_until(&self, chunk: &Chunk, now: u64) -> Option<u64> {
        let hang = self.disk.as_ref()?.hang?;
        let is_there = chunk.is_on_disk() || chunk.part().is_some();
        // Later than now: otherwise the chunk would be chosen again at once.
        is_there.then_some(hang.retry_at.max(now + 1))
    }

    /// Returns which calls to the disk are allowed now. A due probe is returned once.
    pub(super) fn touch(&mut self, now: u64) -> Touch {
        let Some(hang) = self.disk.as_mut().and_then(|disk| disk.hang.as_mut()) else {
            return Touch::Free;
        };
        if now < hang.retry_at {
            return Touch::No;
        }
        hang.retry_at = now.saturating_add(TRY_AGAIN);
        Touch::Probe
    }

    /// Whether it does not answer.
    pub(super) fn is_disk_hung(&self) -> bool {
        self.disk.as_ref().is_some_and(|disk| disk.hang.is_some())
    }
}
