//! How much disk the spool uses: one quota for all sinks of the process that share a folder. Each of them may set a limit; the
//! smallest counts, that of a sink of another process too ([`Usage`]), and a limit goes with the sink that set it.
//!
//! Files count in blocks of 4 KiB, as a disk gives them out. Room that an open chunk will need to be closed is kept from
//! the moment it is created, so that a full spool can still close and confirm what it has.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::usage::{Others, Usage};

const BLOCK: u64 = 4096;
/// Bytes that are claimed at once, at most.
const STEP: u64 = 1 << 20;
/// How often the others are asked although nothing has changed here, and how soon they learn what has.
const ASK_AGAIN: Duration = Duration::from_secs(30);
const NEWS: Duration = Duration::from_secs(1);
/// How often unowned files are counted again while the spool is full.
const COUNT_AGAIN: Duration = Duration::from_secs(30);

/// Bytes of disk that a file of this length takes.
pub(super) fn blocks(len: u64) -> u64 {
    len.div_ceil(BLOCK).saturating_mul(BLOCK)
}

/// What is counted for one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Charge {
    len: u64,
    /// Room kept behind its end.
    slack: u64,
}

impl Charge {
    /// Of a file that is already counted.
    pub(super) fn counted(len: u64) -> Self {
        Self { len, slack: 0 }
    }

    /// Of a file that is counted, with room behind its end.
    pub(super) fn with_slack(len: u64, slack: u64) -> Self {
        Self { len, slack }
    }

    /// The room behind the end of a file of that length; `None` if another length is counted.
    pub(super) fn slack_behind(self, len: u64) -> Option<u64> {
        (self.len == len).then_some(self.slack)
    }

    fn held(self) -> u64 {
        blocks(self.len.saturating_add(self.slack))
    }

    /// Returns how much of the room already held lies behind an end at `len`, at most `want`.
    pub(super) fn slack_within(self, len: u64, want: u64) -> u64 {
        self.held().saturating_sub(len).min(want)
    }
}

#[derive(Debug, Default)]
struct QuotaState {
    /// The limits that users set, by sink.
    limits: BTreeMap<u64, u64>,
    /// What each sink receives, bytes a second.
    inputs: BTreeMap<u64, u64>,
    /// Blocks of all files in the folders whose locks this process holds.
    used: u64,
    /// The same and the room that is kept.
    held: u64,
    /// Blocks by folder.
    folders: BTreeMap<String, u64>,
    /// Usage that this process has published to the others; never less than what is held, except for what it has just taken over.
    claimed: u64,
    /// Growth that is being asked for, of all threads: each must find its part in what is claimed.
    wanted: u64,
    /// Blocks that have become unowned since the last exchange, or ours (less than 0).
    moved: i64,
    /// What the others used when they were asked last.
    others: Others,
    /// A limit was set since.
    has_news: bool,
    asked_at: Option<Instant>,
    /// When unowned files were counted because the spool was full.
    counted_at: Option<Instant>,
    /// Why usage is not shared, until that is reported.
    unshared: Option<String>,
}

/// Why a file may not grow.
#[derive(Debug)]
pub(super) enum Refused {
    /// By the limit: what is held by all processes, and the limit.
    Full(u64, u64),
    /// The usage of the others cannot be asked for.
    Io(io::Error),
}

/// The quota of one spool folder.
#[derive(Debug)]
pub(super) struct Quota {
    state: Mutex<QuotaState>,
    /// Taken before `state`, and held while the other processes are asked.
    usage: Mutex<Option<Usage>>,
}

impl Quota {
    /// Without a limit. `others`: what is there already, and what other processes use.
    pub(super) fn new(others: Others, usage: Option<Usage>) -> Self {
        let state = QuotaState {
            others,
            ..QuotaState::default()
        };
        Self {
            state: Mutex::new(state),
            usage: Mutex::new(usage),
        }
    }

    /// The same if the usage of others cannot be known: `unowned` is all that is there.
    pub(super) fn alone(unowned: u64, why: String) -> Self {
        let others = Others {
            unowned,
            ..Others::default()
        };
        let quota = Self::new(others, None);
        quota.lock().unshared = Some(why);
        quota
    }

    /// Returns why usage is not shared with other processes, once.
    pub(super) fn take_unshared(&self) -> Option<String> {
        self.lock().unshared.take()
    }

    fn lock(&self) -> MutexGuard<'_, QuotaState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes in use by this process and by unowned files.
    pub(super) fn used(&self) -> u64 {
        let state = self.lock();
        state.used.saturating_add(state.unowned())
    }

    /// Bytes in use in these folders.
    pub(super) fn used_in<'a>(&self, folders: impl Iterator<Item = &'a str>) -> u64 {
        let state = self.lock();
        let bytes = folders.filter_map(|folder| state.folders.get(folder));
        bytes.fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// The smallest limit of all sinks, those of other processes included, 0 = the file system's.
    pub(super) fn max(&self) -> u64 {
        self.lock().max()
    }

    /// Sets the limit of one sink, in place of the one that it had. 0 = it has none.
    pub(super) fn set_limit(&self, sink: u64, max: u64) {
        let mut state = self.lock();
        if max > 0 {
            state.limits.insert(sink, max);
        } else {
            state.limits.remove(&sink);
        }
        state.has_news = true;
    }

    /// Sets how many bytes a second a sink receives, in place of what it has set before. 0 = it has ended.
    pub(super) fn set_input(&self, sink: u64, rate: u64) {
        let mut state = self.lock();
        if rate > 0 {
            state.inputs.insert(sink, rate);
        } else {
            state.inputs.remove(&sink);
        }
    }

    /// Returns how many bytes a second all sinks of this process receive.
    pub(super) fn input(&self) -> u64 {
        self.lock().inputs.values().fold(0, |sum, rate| sum.saturating_add(*rate))
    }

    /// Returns how many bytes may still be written; `None` if no limit is set.
    pub(super) fn room(&self) -> Option<u64> {
        let state = self.lock();
        let max = state.max();
        (max > 0).then(|| max.saturating_sub(state.all()))
    }

    /// By how much the disk in use would grow.
    pub(super) fn growth(charge: Charge, len: u64, slack: u64) -> u64 {
        Charge { len, slack }.held().saturating_sub(charge.held())
    }

    /// Counts another length of a file.
    pub(super) fn resize(&self, folder: &str, charge: &mut Charge, len: u64, slack: u64) -> Result<(), Refused> {
        let after = Charge { len, slack };
        let growth = Self::growth(*charge, len, slack);
        {
            let mut state = self.lock();
            // What shrinks is never refused, also above a limit that was lowered.
            if growth == 0 || state.may_grow(growth) {
                state.apply(folder, charge, after);
                return Ok(());
            }
        }
        // What the others use may have changed, and they have to know of ours first.
        self.lock().wanted += growth;
        let refused = self.ask();
        let mut state = self.lock();
        state.wanted = state.wanted.saturating_sub(growth);
        refused.map_err(Refused::Io)?;
        let max = state.max();
        if max > 0 && state.all().saturating_add(growth) > max {
            return Err(Refused::Full(state.all(), max));
        }
        state.apply(folder, charge, after);
        Ok(())
    }

    /// Tells the other processes what is used and wanted here, and asks what they use.
    pub(super) fn ask(&self) -> io::Result<()> {
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        let (limit, moved, used, held, wanted) = {
            let mut state = self.lock();
            // Before the exchange: a limit that is set during it is news again.
            state.has_news = false;
            state.asked_at = Some(Instant::now());
            (state.own_limit(), state.moved, state.used, state.held, state.wanted)
        };
        let mut claimed = 0;
        let asked = match &mut *usage {
            Some(usage) => usage.exchange(limit, used, moved, |others| {
                claimed = claim(limit, held, wanted, others);
                claimed
            }),
            None => {
                let mut state = self.lock();
                // Nobody else is known of.
                state.others.unowned = state.unowned();
                state.moved = 0;
                // Nobody reads it: no growth has to ask again.
                state.claimed = u64::MAX;
                return Ok(());
            }
        };
        let mut state = self.lock();
        match asked {
            Ok(others) => {
                // What has moved since this exchange began is for the next one.
                state.moved = state.moved.saturating_sub(moved);
                state.others = others;
                state.claimed = claimed;
                Ok(())
            }
            Err(e) if e.kind() == ErrorKind::TimedOut => Err(e),
            // The file cannot be written: our own figures have to do, as long as that is so.
            Err(_) => Ok(()),
        }
    }

    /// Exchanges usage with the other processes, if it has changed or the last exchange was long ago.
    pub(super) fn share(&self) {
        let is_due = {
            let state = self.lock();
            let is_old = state.asked_at.is_none_or(|at| at.elapsed() >= ASK_AGAIN);
            // What is claimed and not used is missing for the other processes.
            let has_too_much = state.claimed.saturating_sub(state.held) > 2 * step(state.max());
            let is_known = state.claimed == u64::MAX;
            is_old
                || (state.has_news || state.moved != 0 || has_too_much)
                    && !is_known
                    && state.asked_at.is_none_or(|at| at.elapsed() >= NEWS)
        };
        if is_due {
            let _ = self.ask();
        }
    }

    /// Keeps room behind a file's end, even above the limit: the room is then missing for all other files.
    pub(super) fn keep(&self, charge: &mut Charge, slack: u64) {
        let mut state = self.lock();
        let before = charge.held();
        charge.slack = slack;
        state.held = state.held.saturating_sub(before).saturating_add(charge.held());
    }

    /// Stops counting a file that was removed.
    pub(super) fn remove(&self, folder: &str, charge: &mut Charge) {
        let mut state = self.lock();
        state.count(folder, blocks(charge.len), 0);
        state.held = state.held.saturating_sub(charge.held());
        *charge = Charge::default();
    }

    /// Gives back the room kept behind the end of a file that is no longer written.
    pub(super) fn release(&self, charge: &mut Charge) {
        let mut state = self.lock();
        state.held = state.held.saturating_sub(charge.held() - blocks(charge.len));
        charge.slack = 0;
    }

    /// Counts a file as unowned after a move.
    pub(super) fn set_aside(&self, from: &str, charge: &mut Charge) {
        let len = charge.len;
        self.remove(from, charge);
        let mut state = self.lock();
        state.moved = state.moved.saturating_add_unsigned(blocks(len));
    }

    /// The lock of a folder that was unowned is ours, and so are these bytes.
    pub(super) fn own(&self, folder: &str, bytes: u64) {
        let mut state = self.lock();
        state.count(folder, 0, bytes);
        state.held = state.held.saturating_add(bytes);
        state.moved = state.moved.saturating_sub_unsigned(bytes);
    }

    /// The lock of a folder is given back: what is left in it is unowned.
    pub(super) fn disown(&self, folder: &str) {
        let mut state = self.lock();
        let bytes = state.folders.get(folder).copied().unwrap_or(0);
        state.count(folder, bytes, 0);
        state.held = state.held.saturating_sub(bytes);
        state.moved = state.moved.saturating_add_unsigned(bytes);
    }

    /// Whether unowned files are worth counting again before something is refused: the user may have removed some. True once in
    /// [`COUNT_AGAIN`].
    pub(super) fn take_recount(&self) -> bool {
        let mut state = self.lock();
        let is_due = state.unowned() > 0 && state.counted_at.is_none_or(|at| at.elapsed() >= COUNT_AGAIN);
        if is_due {
            state.counted_at = Some(Instant::now());
        }
        is_due
    }

    /// Sets the unowned usage that `count` has found, under the lock of all processes.
    pub(super) fn recount(&self, count: impl FnOnce() -> u64) {
        let usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = match &*usage {
            Some(usage) => usage.set_unowned(count),
            None => Ok(count()),
        };
        if let Ok(unowned) = counted {
            let mut state = self.lock();
            state.others.unowned = unowned;
            // The count includes what had moved.
            state.moved = 0;
        }
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let left = state.moved.saturating_add_unsigned(state.used);
        if let Some(usage) = self.usage.get_mut().unwrap_or_else(PoisonError::into_inner) {
            usage.leave(left);
        }
    }
}

/// How much more than is used is claimed at once, so that not every write has to ask.
fn step(max: u64) -> u64 {
    // With a small limit, a whole step of each process could be all of it.
    if max == 0 { STEP } else { (max / 64).min(STEP) }
}

/// What a process claims that holds `held` bytes and wants `growth` more.
fn claim(limit: u64, held: u64, growth: u64, others: Others) -> u64 {
    let max = smallest(limit, others.limit);
    let wanted = held.saturating_add(growth).saturating_add(step(max));
    if max == 0 {
        return wanted;
    }
    let room = max.saturating_sub(others.claimed.saturating_add(others.unowned));
    // What is there already is used, whatever the limit is.
    wanted.min(room).max(held)
}

/// The smaller of two limits of which 0 is none.
fn smallest(a: u64, b: u64) -> u64 {
    match (a, b) {
        (0, other) | (other, 0) => other,
        (a, b) => a.min(b),
    }
}

impl QuotaState {
    fn own_limit(&self) -> u64 {
        self.limits.values().min().copied().unwrap_or(0)
    }

    fn max(&self) -> u64 {
        smallest(self.own_limit(), self.others.limit)
    }

    fn unowned(&self) -> u64 {
        self.others.unowned.saturating_add_signed(self.moved)
    }

    /// What all processes hold, as far as is known here.
    fn all(&self) -> u64 {
        self.held.saturating_add(self.others.claimed).saturating_add(self.unowned())
    }

    /// Whether that much more is allowed by what is known.
    fn may_grow(&self, growth: u64) -> bool {
        let max = self.max();
        // Above its claim the other processes would not know of it.
        let is_claimed = self.held.saturating_add(growth) <= self.claimed;
        is_claimed && (max == 0 || self.all().saturating_add(growth) <= max)
    }

    fn apply(&mut self, folder: &str, charge: &mut Charge, after: Charge) {
        self.count(folder, blocks(charge.len), blocks(after.len));
        self.held = self.held.saturating_sub(charge.held()).saturating_add(after.held());
        *charge = after;
    }

    fn count(&mut self, folder: &str, before: u64, after: u64) {
        self.used = self.used.saturating_sub(before).saturating_add(after);
        let bytes = self.folders.get(folder).copied().unwrap_or(0);
        let bytes = bytes.saturating_sub(before).saturating_add(after);
        if bytes == 0 {
            self.folders.remove(folder);
        } else {
            self.folders.insert(folder.to_owned(), bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::disk::Disk;
    use super::super::sim::SimDisk;
    use super::*;
    use std::sync::Arc;

    fn quota(unowned: u64) -> Quota {
        let others = Others {
            unowned,
            ..Others::default()
        };
        Quota::new(others, None)
    }

    fn is_full(refused: Result<(), Refused>, used: u64, max: u64) -> bool {
        matches!(refused, Err(Refused::Full(u, m)) if (u, m) == (used, max))
    }

    #[test]
    fn the_limit_counts_blocks_and_the_room_to_close_a_chunk() {
        let quota = quota(BLOCK);
        quota.set_limit(0, 3 * BLOCK);
        let mut charge = Charge::default();
        quota.resize("a", &mut charge, 10, 4000).unwrap();
        assert_eq!((quota.used(), quota.room()), (2 * BLOCK, Some(BLOCK)));
        quota.resize("a", &mut charge, 4000, 4000).unwrap();
        assert_eq!((quota.used(), quota.room()), (2 * BLOCK, Some(0)), "the second block is kept");
        assert!(is_full(quota.resize("a", &mut charge, 5000, 4000), 3 * BLOCK, 3 * BLOCK));
        let slack = charge.slack_within(7000, 4000);
        quota.resize("a", &mut charge, 7000, slack).unwrap();
        assert_eq!(quota.used(), 3 * BLOCK, "closing uses what was kept");
        quota.remove("a", &mut charge);
        assert_eq!((quota.used(), quota.room()), (BLOCK, Some(2 * BLOCK)));
    }

    #[test]
    fn the_smallest_limit_that_a_sink_has_set_counts_as_long_as_it_has_it() {
        let quota = quota(0);
        let max_after = |sink, max| {
            quota.set_limit(sink, max);
            quota.max()
        };
        assert_eq!(max_after(1, 0), 0);
        assert_eq!(max_after(2, 5 * BLOCK), 5 * BLOCK);
        assert_eq!(max_after(3, 7 * BLOCK), 5 * BLOCK, "larger");
        assert_eq!(max_after(1, 0), 5 * BLOCK, "none of its own");
        assert_eq!(max_after(2, 9 * BLOCK), 7 * BLOCK, "its sink raises the smallest");
        assert_eq!(max_after(3, 0), 9 * BLOCK);
        assert_eq!(max_after(2, 0), 0);
        assert_eq!(quota.room(), None);
    }

    #[test]
    fn a_lower_limit_lets_nothing_grow_and_everything_shrink() {
        let quota = quota(0);
        let mut charge = Charge::default();
        quota.resize("a", &mut charge, 9 * BLOCK, 0).unwrap();
        quota.set_limit(0, BLOCK);
        assert_eq!(quota.room(), Some(0));
        assert!(quota.resize("a", &mut charge, 10 * BLOCK, 0).is_err());
        quota.resize("a", &mut charge, 5 * BLOCK, 0).unwrap();
        quota.release(&mut charge);
        assert_eq!(quota.used(), 5 * BLOCK);
    }

    #[test]
    fn what_is_taken_over_given_back_and_set_aside_stays_counted() {
        let quota = quota(7 * BLOCK);
        quota.own("a", 2 * BLOCK);
        assert_eq!(quota.used(), 7 * BLOCK);
        let mut charge = Charge::counted(BLOCK);
        quota.set_aside("a", &mut charge);
        assert_eq!(quota.used(), 7 * BLOCK);
        let mut gone = Charge::counted(BLOCK);
        quota.remove("a", &mut gone);
        assert_eq!(quota.used(), 6 * BLOCK);
        quota.disown("a");
        assert_eq!(quota.used(), 6 * BLOCK);
        quota.recount(|| 3 * BLOCK);
        assert_eq!(quota.used(), 3 * BLOCK, "a fresh look");
    }

    #[test]
    fn a_process_claims_a_bit_more_than_it_needs_and_never_what_the_others_have() {
        let others = |claimed, unowned, limit| Others { claimed, unowned, limit };
        assert_eq!(claim(0, 100, 20, Others::default()), 120 + STEP, "without a limit");
        assert_eq!(claim(64_000, 0, 500, others(10_000, 0, 0)), 1500);
        assert_eq!(claim(64_000, 0, 500, others(60_000, 3_800, 0)), 200, "what is left");
        assert_eq!(claim(0, 0, 500, others(60_000, 0, 60_100)), 100, "by the limit of another");
        assert_eq!(claim(1000, 5000, 500, others(0, 0, 0)), 5000, "what is there is there");
    }

    #[test]
    fn what_two_threads_ask_for_at_once_is_claimed_for_both() {
        let disk = SimDisk::new(1);
        disk.create_dir(disk.root()).unwrap();
        let shared: Arc<dyn Disk> = Arc::new(disk.clone());
        let (usage, others) = Usage::join(shared, disk.root(), || 0).unwrap();
        let quota = Quota::new(others, Some(usage));
        quota.set_limit(0, 1 << 30);
        // Another thread has asked and does not hold it yet.
        quota.lock().wanted += 64 << 20;
        quota.resize("a", &mut Charge::default(), 8 << 20, 0).unwrap();
        let state = quota.lock();
        assert!(state.claimed >= state.held + state.wanted, "{} {}", state.claimed, state.held);
        assert_eq!(state.wanted, 64 << 20);
    }
}
