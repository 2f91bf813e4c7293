//! Adoption: takes over the chunks of every session of an earlier process whose lock is free.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::Spool;
use super::destination::{Destination, DestinationId};
use super::disk::Listed;
use super::entry::Entry;
use super::error::{SpoolError, is_passing};
use super::folder::{END_ROOM, Folder};
use super::inspect::{Inspection, inspect};
use super::paths::{is_device_dir, is_session, sequence_of};
use super::quota::Charge;
use super::recovery::{Boots, Decision, FileState, Finding, Head, Summary, classify, plan};
use super::stored::{Partial, Stored};

/// Maximum number of chunks of one session that are taken over at once. A month without an uplink leaves 267,000 chunks, and each
/// takes a kilobyte of memory.
pub const MOST_AT_ONCE: usize = 1024;

/// The result of inspecting one session, or all of them.
#[derive(Debug, Default)]
pub struct Adoption {
    /// Sessions whose locks are now held by this process and that have chunks to store, the oldest first.
    pub sessions: Vec<Adopted>,
    /// Warnings for the user.
    pub notices: Vec<Notice>,
    /// Wall-clock times of this machine's boots, learned from the entries.
    pub boots: Boots,
    /// Destinations of the chunks, by [`Summary::destination`].
    pub destinations: BTreeMap<DestinationId, Destination>,
    /// Why the inspection was aborted: the disk does not answer, or the process has no descriptor left. If set, no session was
    /// taken.
    pub interrupted: Option<SpoolError>,
    /// Chunks of the session beyond [`MOST_AT_ONCE`]. They are taken over when the first ones are stored.
    pub beyond: Option<Beyond>,
}

/// The chunks of a session that are not taken over yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Beyond {
    /// Sequence number of the first of them.
    pub from: u64,
    /// Their number.
    pub chunks: u64,
    /// Their length in bytes.
    pub bytes: u64,
}

/// A session of an earlier process. Its lock is released when the last of its chunks is dropped.
#[derive(Debug)]
pub struct Adopted {
    /// Its id.
    pub session: String,
    /// Its chunks by sequence number.
    pub chunks: Vec<Found>,
}

/// A chunk of an earlier process.
#[derive(Debug)]
pub enum Found {
    /// It may be uploaded.
    Upload(Stored),
    /// It was open when the process ended: cut it to its last whole unit and close it.
    Rebuild(Partial),
}

/// A WARNING for the user.
#[derive(Debug)]
pub enum Notice {
    /// A chunk was set aside.
    Quarantined {
        /// Where it is now.
        path: PathBuf,
        /// Why.
        reason: String,
        /// The session of the chunk.
        session: String,
        /// Known values of the chunk; unknown fields are 0. Without an intact End record, `size` is the length of the file.
        chunk: Summary,
    },
    /// A file or a folder that could not be read or changed; it is left where it is until the next start.
    Left {
        /// Which.
        path: PathBuf,
        /// The system's error text.
        error: String,
    },
    /// The usage of the folder is not shared with other processes.
    Unshared {
        /// The folder.
        root: PathBuf,
        /// The system's error text.
        error: String,
    },
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Quarantined { path, reason, .. } => {
                write!(
                    f,
                    "a chunk of the spool cannot be used and was set aside as {}: {reason}",
                    path.display()
                )
            }
            Self::Left { path, error } => {
                write!(
                    f,
                    "{} in the spool is left as it is until the next start: {error}",
                    path.display()
                )
            }
            Self::Unshared { root, error } => {
                write!(
                    f,
                    "max-spool-bytes counts for this process alone, as other processes with spool-dir {} cannot be counted: {error}; run all of them as one user, or give each a spool-dir of its own",
                    root.display()
                )
            }
        }
    }
}

/// Takes over every session whose lock is free, all at once. Holds one lock, and so one descriptor, for each session with chunks.
pub fn adopt(spool: &Arc<Spool>) -> Adoption {
    let mut all = Adoption::default();
    let mut leftovers = match Leftovers::list(spool) {
        Ok((leftovers, notices)) => {
            all.notices = notices;
            leftovers
        }
        Err(e) => {
            all.interrupted = Some(e);
            return all;
        }
    };
    while let Some((_, adoption)) = leftovers.take_some(usize::MAX) {
        all.sessions.extend(adoption.sessions);
        all.notices.extend(adoption.notices);
        all.boots.merge(&adoption.boots);
        all.destinations.extend(adoption.destinations);
    }
    all
}

/// A session folder that is still to be inspected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    device_dir: String,
    /// The session.
    pub session: String,
    /// Sequence number of the first chunk to inspect; earlier ones were taken over before.
    pub from: u64,
    /// Number of chunk files in it when it was listed.
    pub chunks: u64,
    /// Their length in bytes.
    pub bytes: u64,
    /// It was taken once and put back because none of its chunks could be stored.
    pub is_second_turn: bool,
}

impl Leftover {
    /// Returns the rest of the session, after its first chunks were taken over.
    pub fn behind(self, Beyond { from, chunks, bytes }: Beyond) -> Self {
        Self {
            from,
            chunks,
            bytes,
            ..self
        }
    }
}

/// The sessions that earlier processes left, the oldest first. Each is taken by exactly one process, and by one spool of it. They
/// are not locked until their turn comes, because a lock costs a descriptor until the last chunk of the session is stored.
#[derive(Debug)]
pub struct Leftovers {
    spool: Arc<Spool>,
    waiting: VecDeque<Leftover>,
    /// Sessions that were locked at their turn, by their owner or by a process that is counting the disk usage.
    busy: Vec<Leftover>,
    /// Chunks and bytes in `waiting`.
    rest: (u64, u64),
}

impl Leftovers {
    /// Lists the sessions. Opens no file and takes no lock. A folder that cannot be listed is left as it is.
    ///
    /// # Errors
    /// The disk does not answer, or the process has no descriptor left. Both are temporary: try again.
    pub fn list(spool: &Arc<Spool>) -> Result<(Self, Vec<Notice>), SpoolError> {
        let mut adoption = Adoption::default();
        let mut waiting = Vec::new();
        for device_dir in adoption.folders(spool, spool.root.clone(), is_device_dir) {
            let dir = spool.root.join(&device_dir);
            for session in adoption.folders(spool, dir.clone(), is_session) {
                if spool.holds(&device_dir, &session) {
                    // This sink holds the lock itself: the session would be found busy at each turn.
                    continue;
                }
                let folder = dir.join(&session);
                let files = match spool.disk.list(&folder) {
                    Err(e) if is_passing(&e) => return Err(SpoolError::io("read", &folder, e)),
                    // A folder that cannot be read is listed all the same: its turn reports why.
                    files => files.unwrap_or_default(),
                };
                let lengths = files.iter().filter_map(|(name, listed)| match listed {
                    Listed::File(len) => sequence_of(name).map(|_| *len),
                    Listed::Dir | Listed::Other => None,
                });
                let (chunks, bytes) = lengths.fold((0, 0u64), |(n, sum), len| (n + 1, sum.saturating_add(len)));
                waiting.push(Leftover {
                    device_dir: device_dir.clone(),
                    session,
                    from: 0,
                    chunks,
                    bytes,
                    is_second_turn: false,
                });
            }
        }
        if let Some(interrupted) = adoption.interrupted {
            return Err(interrupted);
        }
        // A session id begins with the time of its start, so this order is by age across all devices.
        waiting.sort_by(|a, b| (&a.session, &a.device_dir).cmp(&(&b.session, &b.device_dir)));
        let mut leftovers = Self {
            spool: Arc::clone(spool),
            waiting: VecDeque::with_capacity(waiting.len()),
            busy: Vec::new(),
            rest: (0, 0),
        };
        waiting.into_iter().for_each(|left| leftovers.put_back(left));
        adoption.notices.extend(spool.take_unshared());
        Ok((leftovers, adoption.notices))
    }

    /// Returns the spool of these sessions.
    pub fn spool(&self) -> Arc<Spool> {
        Arc::clone(&self.spool)
    }

    /// Merges a newer listing. New sessions come first, known ones keep their place. Sessions that are in `parked` or no longer
    /// exist are left out.
    pub fn renew(&mut self, fresh: Self, parked: &[Leftover]) {
        let key = |left: &Leftover| (left.device_dir.clone(), left.session.clone());
        let parked: HashSet<_> = parked.iter().map(key).collect();
        let mut listed: HashMap<_, Leftover> = fresh.waiting.iter().map(|left| (key(left), left.clone())).collect();
        listed.retain(|key, _| !parked.contains(key));
        let known: Vec<Leftover> = self.waiting.drain(..).collect();
        let known_keys: HashSet<_> = known.iter().map(key).collect();
        self.rest = (0, 0);
        let new = fresh.waiting.iter().filter(|left| !known_keys.contains(&key(left)));
        let new: Vec<Leftover> = new.filter_map(|left| listed.get(&key(left)).cloned()).collect();
        let still = known.into_iter().filter_map(|old| {
            let left = listed.get(&key(&old))?.clone();
            // The new listing has `false` here. Without the old flag the session would be put back again and again.
            let is_second_turn = old.is_second_turn;
            Some(Leftover { is_second_turn, ..left })
        });
        new.into_iter().chain(still).for_each(|left| self.put_back(left));
    }

    /// Returns the number of chunks and of bytes in the sessions that are still to be taken.
    pub fn rest(&self) -> (u64, u64) {
        self.rest
    }

    /// Returns whether no session is left to be taken.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn count(&mut self, left: &Leftover, is_more: bool) {
        let (chunks, bytes) = self.rest;
        self.rest = match is_more {
            true => (chunks + left.chunks, bytes.saturating_add(left.bytes)),
            false => (chunks.saturating_sub(left.chunks), bytes.saturating_sub(left.bytes)),
        };
    }

    /// Takes the next session that is free and has content, and removes empty ones. Damaged and unreadable files do not delay the
    /// rest. Takes at most [`MOST_AT_ONCE`] chunks of a session. If the disk does not answer, or the process has no descriptor
    /// left, nothing is taken and the session stays the next one.
    pub fn take_next(&mut self) -> Option<(Leftover, Adoption)> {
        self.take_some(MOST_AT_ONCE)
    }

    fn take_some(&mut self, most: usize) -> Option<(Leftover, Adoption)> {
        while let Some(left) = self.waiting.pop_front() {
            self.count(&left, false);
            let mut adoption = Adoption::default();
            match Folder::take(&self.spool, &left.device_dir, &left.session) {
                Ok(Some(folder)) => adoption.session(&folder, left.from, most),
                Ok(None) => {
                    self.busy.push(left);
                    continue;
                }
                Err(e) => {
                    let path = self.spool.root.join(&left.device_dir).join(&left.session);
                    match is_passing(&e) {
                        true => adoption.interrupted = Some(SpoolError::io("open", &path, e)),
                        false => adoption.left(path, &e),
                    }
                }
            }
            if adoption.interrupted.is_some() {
                self.count(&left, true);
                self.waiting.push_front(left.clone());
                // Dropping the chunks releases the session's lock. The next turn takes the session from its beginning.
                adoption.sessions.clear();
                return Some((left, adoption));
            }
            if !adoption.sessions.is_empty() || !adoption.notices.is_empty() {
                return Some((left, adoption));
            }
        }
        None
    }

    /// Enqueues the rest of each session in `begun` in front of all others, if the session's lock is free again. Their first
    /// chunks were taken over before. Returns the sessions whose locks are still held.
    pub fn go_on(&mut self, begun: Vec<Leftover>) -> Vec<Leftover> {
        let is_held = |left: &Leftover| self.spool.holds(&left.device_dir, &left.session);
        let (held, free): (Vec<_>, Vec<_>) = begun.into_iter().partition(is_held);
        // `push_front` reverses the order.
        for left in free.into_iter().rev() {
            self.count(&left, true);
            self.waiting.push_front(left);
        }
        held
    }

    /// Enqueues again the sessions that were locked at their turn, if their folders still exist. Another process holds a
    /// session's lock briefly while it counts the disk usage of the spool. Returns whether any session is waiting.
    pub fn retry_busy(&mut self) -> bool {
        let spool = Arc::clone(&self.spool);
        let is_there = |left: &Leftover| {
            let dir = spool.root.join(&left.device_dir).join(&left.session);
            !spool.holds(&left.device_dir, &left.session) && spool.disk.list(&dir).is_ok()
        };
        for left in std::mem::take(&mut self.busy).into_iter().filter(is_there) {
            self.put_back(left);
        }
        !self.waiting.is_empty()
    }

    /// Enqueues a session behind all others. It was released because none of its chunks could be stored.
    pub fn put_back(&mut self, left: Leftover) {
        self.count(&left, true);
        self.waiting.push_back(left);
    }
}

/// An inspected file.
struct Seen {
    inspection: Option<Inspection>,
    len: u64,
    known: Summary,
}

/// Returns the known values of a chunk, damaged or not.
fn known(sequence: u64, inspection: &Inspection) -> Summary {
    match (&inspection.scan.closed, &inspection.scan.head) {
        (Some(closed), _) => Summary::of(closed),
        (None, Head::Entry(entry)) => Summary {
            sequence,
            size: inspection.file_len,
            start: entry.start,
            duration: entry.duration,
            suspect: entry.suspect(),
            ..Summary::default()
        },
        (None, Head::Missing | Head::Foreign(_)) => Summary {
            sequence,
            size: inspection.file_len,
            ..Summary::default()
        },
    }
}

impl Adoption {
    fn folders(&mut self, spool: &Spool, dir: PathBuf, ours: fn(&str) -> bool) -> Vec<String> {
        match spool.disk.list(&dir) {
            Ok(all) => {
                let dirs = all.into_iter().filter(|(name, listed)| *listed == Listed::Dir && ours(name));
                let mut names: Vec<String> = dirs.map(|(name, _)| name).collect();
                names.sort();
                names
            }
            // Removed since it was listed: another sink removes empty folders.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(e) => {
                match is_passing(&e) {
                    true => self.interrupted = Some(SpoolError::io("read", &dir, e)),
                    false => self.left(dir, &e),
                }
                Vec::new()
            }
        }
    }

    fn learn_destination(&mut self, entry: &Entry) {
        let known = self.destinations.entry(entry.destination_id());
        known.or_insert_with(|| entry.destination());
    }

    fn left(&mut self, path: PathBuf, error: &dyn fmt::Display) {
        let error = error.to_string();
        self.notices.push(Notice::Left { path, error });
    }

    /// Takes over at most `most` chunks of a session, from the sequence number `from` on.
    fn session(&mut self, folder: &Arc<Folder>, from: u64, most: usize) {
        let files = match folder.own_files() {
            Ok(files) => files,
            Err(e) if e.is_passing() => {
                self.interrupted = Some(e);
                return;
            }
            Err(e) => return self.left(folder.dir.clone(), &e),
        };
        let first = files.partition_point(|(sequence, _)| *sequence < from);
        let chunks = files.get(first..).unwrap_or_default();
        let beyond = chunks.get(most..).unwrap_or_default();
        self.beyond = beyond.first().map(|(from, _)| Beyond {
            from: *from,
            chunks: beyond.len() as u64,
            bytes: beyond.iter().map(|(_, len)| len).sum(),
        });
        self.look_at(folder, chunks, most);
    }

    /// Takes over the first chunks of `chunks` (sequence numbers and file lengths), at most `most`.
    pub(super) fn look_at(&mut self, folder: &Arc<Folder>, chunks: &[(u64, u64)], most: usize) {
        // One more than is taken: where an open chunk ends is known from the Head of the next one (P4).
        let chunks = chunks.iter().take(most.saturating_add(1));
        let (mut findings, mut seen) = (Vec::new(), Vec::new());
        for &(sequence, len) in chunks {
            let (finding, file) = self.see(folder, sequence, len);
            if self.interrupted.is_some() {
                return;
            }
            findings.push(finding);
            seen.push(file);
        }
        let sequences: Vec<u64> = findings.iter().map(|f| f.sequence).collect();
        let decisions = plan(findings);
        let mut found = Vec::new();
        // `take(most)` leaves out the extra chunk: only its Head was needed.
        for ((sequence, seen), decision) in sequences.into_iter().zip(seen).zip(decisions).take(most) {
            match perform(folder, sequence, &seen, decision) {
                Ok(Done::Found(chunk)) => found.push(chunk),
                Ok(Done::Aside(path, reason)) => self.notices.push(Notice::Quarantined {
                    path,
                    reason,
                    session: folder.session.clone(),
                    chunk: seen.known,
                }),
                Ok(Done::Nothing) => {}
                Err(e) if e.is_passing() => {
                    // Drops what was found so far. The files stay as they are for the next attempt.
                    self.interrupted = Some(e);
                    return;
                }
                Err(e) => self.left(folder.path(sequence), &e),
            }
        }
        if !found.is_empty() {
            let session = folder.session.clone();
            self.sessions.push(Adopted { session, chunks: found });
        }
    }

    fn see(&mut self, folder: &Folder, sequence: u64, len: u64) -> (Finding, Seen) {
        let path = folder.path(sequence);
        let inspected = folder
            .spool
            .disk
            .open(&path)
            .and_then(|file| inspect(&file, &folder.session, sequence));
        match inspected {
            Ok(mut inspected) => {
                match (&inspected.scan.closed, &inspected.scan.head) {
                    (Some(closed), _) => {
                        self.boots.learn_entry(&closed.entry);
                        self.learn_destination(&closed.entry);
                    }
                    (None, Head::Entry(entry)) => self.learn_destination(entry),
                    (None, Head::Missing | Head::Foreign(_)) => {}
                }
                let (len, known) = (inspected.file_len, known(sequence, &inspected));
                let finding = classify(sequence, inspected.scan.clone());
                // Up to `MOST_AT_ONCE` of these are alive at once, and an entry has all the metadata of its object. It is read
                // again before the upload.
                inspected.scan.closed = None;
                let seen = Seen {
                    inspection: Some(inspected),
                    len,
                    known,
                };
                (finding, seen)
            }
            Err(e) => {
                match is_passing(&e) {
                    true => self.interrupted = Some(SpoolError::io("open", &path, e)),
                    // Removed since it was listed.
                    false if e.kind() == io::ErrorKind::NotFound => {}
                    false => self.left(path, &e),
                }
                let finding = Finding {
                    sequence,
                    input_offset: None,
                    state: FileState::Unreadable,
                };
                let seen = Seen {
                    inspection: None,
                    len,
                    known: Summary::default(),
                };
                (finding, seen)
            }
        }
    }
}

enum Done {
    Found(Found),
    Aside(PathBuf, String),
    Nothing,
}

fn perform(folder: &Arc<Folder>, sequence: u64, seen: &Seen, decision: Decision) -> Result<Done, SpoolError> {
    // `own_files` has already charged the file to the quota.
    let mut charge = Charge::counted(seen.len);
    match (decision, &seen.inspection) {
        (Decision::Upload(summary), Some(inspection)) => {
            let stored = seal(folder, sequence, inspection, summary, charge)?;
            Ok(Done::Found(Found::Upload(stored)))
        }
        (Decision::Rebuild { entry, len, complete }, Some(inspection)) => {
            // The process that wrote it had reserved this room. Without it, a full spool could not close and upload the chunk.
            folder.spool.quota.keep(&mut charge, END_ROOM);
            let partial = Partial::new(folder.clone(), entry, (len, complete), &inspection.scan, charge);
            Ok(Done::Found(Found::Rebuild(partial)))
        }
        (Decision::Remove, _) => {
            // Not synced: a file that reappears after a power cut is removed by the next start.
            let path = folder.path(sequence);
            folder
                .spool
                .disk
                .remove_file(&path)
                .map_err(|e| SpoolError::io("remove", &path, e))?;
            folder.spool.quota.remove(&folder.key, &mut charge);
            Ok(Done::Nothing)
        }
        (Decision::Quarantine(reason), _) => Ok(Done::Aside(folder.quarantine(sequence, &mut charge)?, reason)),
        // A file that was not inspected is neither uploaded nor rebuilt.
        (Decision::Leave | Decision::Upload(_) | Decision::Rebuild { .. }, _) => Ok(Done::Nothing),
    }
}

/// Makes a closed chunk durable, as P1 requires before an upload. A Footer at the end proves that it is. Without one, everything
/// above the watermark is written again before the sync: an earlier sync may have failed, and the kernel reports that only once.
fn seal(
    folder: &Arc<Folder>,
    sequence: u64,
    inspection: &Inspection,
    summary: Summary,
    mut charge: Charge,
) -> Result<Stored, SpoolError> {
    let mut tail = inspection.scan.tail;
    let mut behind = Vec::new();
    if !inspection.scan.sealed || !inspection.scan.whole {
        let file = folder.open(sequence)?;
        // The next start looks for the Footer at the end of the file. Torn bytes behind it would hide it.
        if inspection.file_len > tail {
            let path = folder.path(sequence);
            file.set_len(tail).map_err(|e| SpoolError::io("cut", &path, e))?;
        }
        folder.rewrite(&file, sequence, inspection.scan.watermark.min(tail), tail)?;
        folder.sync(&*file, sequence)?;
        tail = folder.seal(&*file, sequence, inspection.end_at, tail);
        behind.clone_from(&inspection.scan.sent);
        // A refusal is ignored: the Footer is written already.
        let _ = folder.spool.quota.resize(&folder.key, &mut charge, tail, 0);
    }
    let mut stored = Stored::new(folder.clone(), summary, inspection.end_at, tail, charge);
    if behind.is_empty() {
        return Ok(stored.with_sent(inspection.scan.sent.clone()));
    }
    // Written again behind the new Footer, because a mark in front of it does not count.
    for mark in behind {
        let _ = stored.mark_sent(mark);
    }
    Ok(stored)
}
