//! Adopts what earlier sessions left in the spool, a few of them at a time.
//!
//! An earlier life of this sink's own session comes first, then the oldest session. The next one follows when a held session has
//! been stored. While none makes progress, other sinks of the process have their turn. A session recorded with an implausible
//! clock waits until all others have been read: one of them may tell when that boot of the machine was. Blocks on the disk, on
//! tokio's threads for blocking work. Names no GStreamer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::OwnedMutexGuard;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::task::spawn_blocking;

use super::chunk::{Chunk, Place, Summary};
use super::destination::Sorter;
use super::notices::Notices;
use super::queue::UploadQueue;
use super::spool_folder::{IsOpen, SpoolFolder};
use super::spooled_chunk::{ChunkFile, Times};
use super::spooler::Jobs;
use crate::spool::{
    Adoption, ClosedEntry, Destination, EarlierChunks, Found, Leftover, Leftovers, Notice, Partial, Spool, SpoolError, Stored,
};
use gcstreamer_media::chunk::replay::Replay;
use gcstreamer_schema::Container;
use gcstreamer_schema::metadata::{DURATION_MS, END_TIME, PREVIEW_BYTES, duration_ms};
use gcstreamer_schema::time::rfc3339_ms;

/// Interval between retries while sessions make no progress or the disk does not answer.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// Number of retries for sessions whose lock is busy, each after `BUSY_FOR`: another process takes a lock briefly while it counts
/// the usage of the spool. Few retries, because a session that another process records stays busy.
const BUSY_AGAIN: u32 = 4;
const BUSY_FOR: Duration = Duration::from_millis(500);
// As long as the scheduler's pause at such a destination: an earlier turn could send nothing.
/// Interval after which parked chunks get another turn.
const PARKED_AGAIN: Duration = Duration::from_secs(3600);

/// Adopts the sessions that earlier starts left in the spool. Every sink with a spool has one.
pub(super) struct Adopter {
    uploads: Arc<UploadQueue>,
    sorter: Sorter,
    times: Arc<Times>,
    notices: Notices,
    /// Sessions with parked chunks only, which have had their turn.
    parked: Vec<Leftover>,
    /// Sessions of which only the first chunks are adopted; the rest follows when those are stored.
    begun: Vec<Leftover>,
    /// Half-written chunks that could not be closed yet: the disk does not answer, or too many files are open.
    unclosed: Vec<Partial>,
    /// Chunks of an earlier life of this session that are not adopted yet.
    earlier: Option<EarlierChunks>,
}

/// The result of a step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AdoptStep {
    /// A session was adopted, or postponed.
    Went,
    /// The disk does not answer, or too many files are open.
    Interrupted,
}

impl Adopter {
    /// Creates the adopter of a sink; `sorter` knows where its own chunks go.
    pub(super) fn new(uploads: &Arc<UploadQueue>, sorter: Sorter, times: Arc<Times>) -> Self {
        Self {
            uploads: Arc::clone(uploads),
            sorter,
            times,
            notices: Notices::default(),
            parked: Vec::new(),
            begun: Vec::new(),
            unclosed: Vec::new(),
            earlier: None,
        }
    }

    /// Adds the chunks of an earlier life of this session.
    pub(super) fn with_earlier(mut self, earlier: Option<EarlierChunks>) -> Self {
        self.earlier = earlier.filter(|earlier| !earlier.is_empty());
        self
    }

    /// Runs until nothing is left to adopt, or the sink stops.
    pub(super) async fn run(self, folder: Arc<SpoolFolder>, mut is_open: IsOpen, jobs: Arc<Jobs>) {
        let uploads = Arc::clone(&self.uploads);
        if folder.spool().is_none() {
            // The folder cannot be read yet, so its contents are unknown: an EOS must not wait for them.
            uploads.set_adopting(false);
        }
        let earlier = match is_open.try_recv() {
            // The disk accepts no folder for this session. What an earlier life of it left there waits for the next start.
            Err(TryRecvError::Empty) if folder.spool().is_some() => None,
            Err(TryRecvError::Empty) => tokio::select! {
                earlier = is_open => earlier.ok(),
                () = uploads.has_stopped() => return,
            },
            earlier => earlier.ok(),
        };
        let Some(spool) = folder.spool() else { return };
        let Some((adopter, turn)) = self.with_earlier(earlier).turn(&jobs).await else {
            return;
        };
        uploads.set_adopting(true);
        adopter.walk(spool, &jobs, turn).await;
        uploads.set_rest((0, 0));
        uploads.set_adopting(false);
    }

    /// Waits for this sink's turn. One sink of the process adopts at a time, and the next continues with what it left. This
    /// sink's own session needs no turn. `None`: the sink stops.
    async fn turn(mut self, jobs: &Jobs) -> Option<(Self, OwnedMutexGuard<()>)> {
        let uploads = Arc::clone(&self.uploads);
        loop {
            let stepped = spawn_blocking(move || {
                let step = self.step_earlier();
                (self, step)
            });
            let step;
            (self, step) = stepped.await.ok()?;
            // Count this sink's own session only: the others are listed at its turn.
            self.set_rest((0, 0));
            if step == Some(AdoptStep::Went) {
                continue;
            }
            if let Some(turn) = jobs.try_adopting() {
                return Some((self, turn));
            }
            self.report_progress(false);
            // An EOS waits for this session's own leftovers, but not for the sink that has the turn.
            uploads.set_adopting(self.earlier.is_some());
            tokio::select! {
                turn = jobs.adopting() => return Some((self, turn)),
                () = uploads.place_is_free(), if step.is_none() && self.earlier.is_some() => {}
                () = tokio::time::sleep(LOOK_AGAIN), if step == Some(AdoptStep::Interrupted) => {}
                () = uploads.has_stopped() => return None,
            }
        }
    }

    async fn walk(mut self, spool: Arc<Spool>, jobs: &Jobs, mut turn: OwnedMutexGuard<()>) {
        let uploads = Arc::clone(&self.uploads);
        let Some(mut leftovers) = self.list(&spool).await else {
            return;
        };
        // Before the first step, so that all leftovers are in `chunks-pending` from the start.
        self.set_rest(leftovers.rest());
        let mut retries = BUSY_AGAIN;
        loop {
            if leftovers.is_empty() && self.is_done() && retries > 0 {
                retries -= 1;
                let inspected = spawn_blocking(move || {
                    let is_more = leftovers.retry_busy();
                    (leftovers, is_more)
                });
                let Ok((rest, is_more)) = inspected.await else { return };
                leftovers = rest;
                if is_more {
                    tokio::select! {
                        () = tokio::time::sleep(BUSY_FOR) => {}
                        () = uploads.has_stopped() => return,
                    }
                    continue;
                }
            }
            if leftovers.is_empty() && self.is_done() {
                self.report_progress(true);
                let spool = Arc::clone(&spool);
                // All free leftovers are adopted by now, so the estimate of unowned bytes may be too high.
                let _ = spawn_blocking(move || spool.recount()).await;
                if self.parked.is_empty() {
                    return;
                }
                let Some(next) = self.try_parked(&mut leftovers, jobs, turn).await else {
                    return;
                };
                turn = next;
            }
            let stepped = spawn_blocking(move || {
                let step = self.step(&mut leftovers);
                (self, leftovers, step)
            });
            let Ok((adopter, rest, step)) = stepped.await else { return };
            (self, leftovers) = (adopter, rest);
            self.set_rest(leftovers.rest());
            uploads.report_leftovers();
            if step == Some(AdoptStep::Went) {
                continue;
            }
            self.report_progress(false);
            let stands = tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => true,
                () = uploads.place_is_free(), if step.is_none() => false,
                () = uploads.has_stopped() => return,
            };
            if stands {
                // Another sink of this process may have leftovers that can make progress: pass the turn on.
                drop(turn);
                let Some(next) = self.next_turn(&mut leftovers, jobs).await else {
                    return;
                };
                turn = next;
            }
        }
    }

    /// Lists the sessions in the spool, retrying until the disk answers. `None`: the sink stops.
    async fn list(&mut self, spool: &Arc<Spool>) -> Option<Leftovers> {
        let uploads = Arc::clone(&self.uploads);
        loop {
            let listing = Arc::clone(spool);
            match spawn_blocking(move || Leftovers::list(&listing)).await.ok()? {
                Ok((leftovers, notices)) => {
                    self.notices.extend(notices);
                    return Some(leftovers);
                }
                Err(why) => self.interrupted(&why),
            }
            self.report_progress(false);
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = uploads.has_stopped() => return None,
            }
        }
    }

    /// Waits until parked sessions may be tried again, and then for this sink's turn. `None`: the sink stops.
    async fn try_parked(
        &mut self,
        leftovers: &mut Leftovers,
        jobs: &Jobs,
        turn: OwnedMutexGuard<()>,
    ) -> Option<OwnedMutexGuard<()>> {
        let uploads = Arc::clone(&self.uploads);
        // An EOS does not wait for parked chunks.
        uploads.set_adopting(false);
        // Pass the turn on for that hour: other sinks of the process wait for it.
        drop(turn);
        tokio::select! {
            () = tokio::time::sleep(PARKED_AGAIN) => {}
            () = uploads.has_stopped() => return None,
        }
        self.parked.drain(..).for_each(|left| leftovers.put_back(left));
        self.next_turn(leftovers, jobs).await
    }

    /// Waits for this sink's turn, and then lists the spool again. `None`: the sink stops.
    async fn next_turn(&mut self, leftovers: &mut Leftovers, jobs: &Jobs) -> Option<OwnedMutexGuard<()>> {
        let uploads = Arc::clone(&self.uploads);
        let turn = tokio::select! {
            turn = jobs.adopting() => turn,
            () = uploads.has_stopped() => return None,
        };
        let spool = leftovers.spool();
        // The list is out of date: the sink that had the turn has adopted some of it.
        match spawn_blocking(move || Leftovers::list(&spool)).await.ok()? {
            Ok((fresh, notices)) => {
                self.notices.extend(notices);
                leftovers.renew(fresh, &[&self.parked[..], &self.begun[..]].concat());
            }
            // Keep the old list: a session that was removed since is skipped at its turn.
            Err(why) => self.interrupted(&why),
        }
        Some(turn)
    }

    /// Whether everything that was begun is finished.
    pub(super) fn is_done(&self) -> bool {
        self.unclosed.is_empty() && self.begun.is_empty() && self.earlier.is_none()
    }

    /// Reports to the queue what is not adopted yet. `listed`: chunks and bytes of the sessions whose turn has not come.
    pub(super) fn set_rest(&self, listed: (u64, u64)) {
        let unclosed = self.unclosed.iter().map(|partial| (1, partial.len()));
        let begun = self.begun.iter().map(|left| (left.chunks, left.bytes));
        let earlier = self.earlier.iter().map(EarlierChunks::rest);
        let all = unclosed.chain(begun).chain(earlier);
        let sum = all.fold(listed, |sum, (chunks, bytes)| (sum.0 + chunks, sum.1.saturating_add(bytes)));
        self.uploads.set_rest(sum);
    }

    /// Reports why adopting was interrupted. A hang concerns everything in the spool, so it is a report about the disk; too many
    /// open files is a notice.
    fn interrupted(&mut self, why: &SpoolError) {
        match why.is_hung() {
            true => self.uploads.disk_hangs(why),
            false => self.notices.interrupted(&why.to_string()),
        }
    }

    /// Posts the pending reports and notices.
    fn report_progress(&mut self, is_last: bool) {
        self.uploads.report_leftovers();
        for text in self.notices.take(is_last) {
            self.uploads.warn(text);
        }
    }

    /// Adopts the next session. `None`: there is no place for it. Blocking.
    pub(super) fn step(&mut self, leftovers: &mut Leftovers) -> Option<AdoptStep> {
        if !self.unclosed.is_empty() {
            let unclosed = std::mem::take(&mut self.unclosed);
            let closed = unclosed.into_iter().filter_map(|partial| self.close(partial)).collect();
            self.uploads.adopt(closed, false);
        }
        if !self.unclosed.is_empty() {
            return Some(AdoptStep::Interrupted);
        }
        if let Some(step) = self.step_earlier() {
            return Some(step);
        }
        self.begun = leftovers.go_on(std::mem::take(&mut self.begun));
        if leftovers.is_empty() && !self.is_done() {
            return None;
        }
        if let Some(gave_way) = self.uploads.place_for_leftovers()? {
            // The rest of that session gives way with it; all of it gets another turn.
            self.begun.retain(|left| left.session != gave_way.left.session);
            match gave_way.is_parked {
                true => self.parked.push(gave_way.left),
                false => leftovers.put_back(gave_way.left),
            }
        }
        let Some((mut left, mut adoption)) = leftovers.take_next() else {
            return Some(AdoptStep::Went);
        };
        // Learn from a session even if it is put back below: its facts may date the chunks of another.
        self.times.learn(&adoption.boots);
        if let Some(why) = adoption.interrupted.take() {
            self.interrupted(&why);
            self.take_over(adoption);
            return Some(AdoptStep::Interrupted);
        }
        let is_suspect = |found: &Found| match found {
            Found::Upload(stored) => stored.summary().suspect,
            Found::Rebuild(partial) => partial.entry().suspect(),
        };
        let mut chunks = adoption.sessions.iter().flat_map(|session| &session.chunks);
        if !left.is_second_turn && !leftovers.is_empty() && chunks.any(is_suspect) {
            left.is_second_turn = true;
            adoption.sessions.clear();
            self.take_over(adoption);
            leftovers.put_back(left);
            return Some(AdoptStep::Went);
        }
        let beyond = adoption.beyond;
        self.take_over(adoption);
        self.uploads.hold_leftover(left.clone());
        self.begun.extend(beyond.map(|beyond| left.behind(beyond)));
        Some(AdoptStep::Went)
    }

    /// Adopts the next chunks of an earlier life of this session. `None`: there are none, or the ones before them are not stored
    /// yet. Blocking.
    fn step_earlier(&mut self) -> Option<AdoptStep> {
        let mut earlier = self.earlier.take()?;
        if self.uploads.awaits_leftovers_of(earlier.session()) {
            self.earlier = Some(earlier);
            return None;
        }
        let mut adoption = earlier.take_next();
        let interrupted = adoption.interrupted.take();
        self.take_over(adoption);
        self.earlier = Some(earlier).filter(|earlier| !earlier.is_empty());
        if let Some(why) = interrupted {
            self.interrupted(&why);
            return Some(AdoptStep::Interrupted);
        }
        Some(AdoptStep::Went)
    }

    /// Queues what was found, and closes half-written chunks. Blocking.
    fn take_over(&mut self, adoption: Adoption) {
        self.times.learn(&adoption.boots);
        for notice in adoption.notices {
            self.notices.add(&notice);
            if let Notice::Quarantined { session, chunk, .. } = notice {
                self.uploads.lost(Summary {
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
                chunks.extend(match found {
                    Found::Upload(stored) => {
                        let destination = adoption.destinations.get(&stored.summary().destination);
                        Some(self.chunk(None, stored, destination))
                    }
                    Found::Rebuild(partial) => self.close(partial),
                });
            }
            self.uploads.adopt(chunks, false);
        }
    }

    /// Closes a half-written chunk. `None`: there is nothing to store, or the chunk cannot be closed yet.
    fn close(&mut self, mut partial: Partial) -> Option<Chunk> {
        match rebuild(&mut partial) {
            Ok(Rebuilt::Chunk(running, stored)) => {
                let destination = partial.entry().destination();
                return Some(self.chunk(running, stored, Some(&destination)));
            }
            Ok(Rebuilt::Nothing) => {}
            Ok(Rebuilt::Lost(summary)) => self.uploads.lost(summary),
            Err(why) if why.is_passing() => {
                self.interrupted(&why);
                self.unclosed.push(partial);
            }
            Err(e) => self
                .notices
                .other(format!("{e}; the half-written chunk is left for the next start")),
        }
        None
    }

    fn chunk(&mut self, running: Option<u64>, stored: Stored, destination: Option<&Destination>) -> Chunk {
        let summary = stored.summary();
        let (link_key, warning) = self.sorter.sort(summary.destination, destination);
        warning.into_iter().for_each(|text| self.uploads.warn(text));
        Chunk {
            summary: Summary {
                session: stored.session().into(),
                sequence: summary.sequence,
                start: summary.start,
                duration: summary.duration,
                running,
                size: summary.size,
            },
            place: Place::Disk(ChunkFile::new(stored, Arc::clone(&self.times))),
            recovered: true,
            link_key,
            renamed: None,
            // The time at which it was closed is not on this sink's scale, so its latency counts from here.
            closed_at: self.uploads.now(),
        }
    }
}

/// The result of closing a half-written chunk.
enum Rebuilt {
    /// The chunk, which ends with its last whole unit, and its running time if that is known.
    Chunk(Option<u64>, Stored),
    /// It contained only a header and was removed.
    Nothing,
    /// It contained no whole unit and was removed.
    Lost(Summary),
}

/// Closes a half-written chunk at the end of its last whole unit.
fn rebuild(partial: &mut Partial) -> Result<Rebuilt, SpoolError> {
    let mut entry = partial.entry().clone();
    let container = Container::from_name(&entry.container).unwrap_or(Container::Raw);
    let mut replay = Replay::new(container, entry.init_bytes);
    partial.reader()?.for_each(partial.len(), |bytes| {
        replay.push(&bytes);
        Ok(())
    })?;
    // A complete payload ends with a whole unit, so nothing is cut off.
    let found = replay.finish(partial.complete());
    if found.whole <= entry.init_bytes {
        let size = partial.len().saturating_sub(entry.init_bytes);
        match partial.discard() {
            // A disk that hangs carries the removal out when it answers again.
            Err(e) if e.is_hung() => {}
            done => done?,
        }
        return Ok(match size {
            0 => Rebuilt::Nothing,
            _ => Rebuilt::Lost(Summary {
                session: entry.session.as_str().into(),
                sequence: entry.sequence,
                start: entry.start,
                duration: 0,
                running: entry.running,
                size,
            }),
        });
    }
    let mut crc32c = 0;
    // A second pass over the file: how much of it counts is known only after the first.
    partial.reader()?.for_each(found.whole, |bytes| {
        crc32c = crc32c::crc32c_append(crc32c, &bytes);
        Ok(())
    })?;
    entry.duration = found.duration;
    entry.rebuilt = true;
    // Both go into the entry: the new End follows the marks in the file, and marks before an End do not count.
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
    Ok(Rebuilt::Chunk(running, partial.refinish(&closed)?))
}
