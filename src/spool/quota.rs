//! Disk usage of the spool: one quota for all sinks of the process that share a folder. Each of them may set a limit. The
//! smallest limit applies, those of other processes included ([`Usage`]); a limit ends with the sink that set it.
//!
//! Files count in blocks of 4 KiB, as file systems allocate them. The room to close an open chunk is reserved when the chunk is
//! created, so that a full spool can still close and confirm its chunks.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::usage::{Others, Usage};

const BLOCK: u64 = 4096;
/// Maximum number of bytes that are claimed beyond what is used.
const STEP: u64 = 1 << 20;
/// Interval between two exchanges with the other processes: without a change here, and with one.
const ASK_AGAIN: Duration = Duration::from_secs(30);
const SHARE_WITHIN: Duration = Duration::from_secs(1);
/// Minimum interval between two counts of the unowned files while the spool is full.
const COUNT_AGAIN: Duration = Duration::from_secs(30);

/// Returns the bytes of disk that a file of this length occupies.
pub(super) fn blocks(len: u64) -> u64 {
    len.div_ceil(BLOCK).saturating_mul(BLOCK)
}

/// What the quota counts for one file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Charge {
    len: u64,
    /// Bytes reserved behind the end of the file.
    slack: u64,
}

impl Charge {
    /// The charge of a file that the quota has already counted.
    pub(super) fn counted(len: u64) -> Self {
        Self { len, slack: 0 }
    }

    /// The charge of a file that the quota has already counted, with `slack` bytes reserved behind its end.
    pub(super) fn with_slack(len: u64, slack: u64) -> Self {
        Self { len, slack }
    }

    /// Returns the bytes reserved behind the end of a file of length `len`; `None` if another length is counted.
    pub(super) fn slack_behind(self, len: u64) -> Option<u64> {
        (self.len == len).then_some(self.slack)
    }

    fn held(self) -> u64 {
        blocks(self.len.saturating_add(self.slack))
    }

    /// Returns how many of the counted bytes lie behind an end at `len`, at most `want`.
    pub(super) fn slack_within(self, len: u64, want: u64) -> u64 {
        self.held().saturating_sub(len).min(want)
    }
}

#[derive(Debug, Default)]
struct QuotaState {
    /// Property `max-spool-bytes` of each sink that has set it.
    limits: BTreeMap<u64, u64>,
    /// Input rate of each sink in bytes per second.
    inputs: BTreeMap<u64, u64>,
    /// Blocks of all files in the folders whose locks this process holds.
    used: u64,
    /// `used` and the reserved bytes.
    held: u64,
    /// Bytes in blocks, by folder.
    folders: BTreeMap<String, u64>,
    /// Usage that this process has published to the others. At least `held`, except for sessions that it has just taken over.
    claimed: u64,
    /// Sum of the growth that threads are waiting for. An exchange claims it for all of them, otherwise each thread would need
    /// its own.
    wanted: u64,
    /// Bytes that have become unowned since the last exchange; negative if more have become ours.
    moved: i64,
    /// Usage of the other processes at the last exchange.
    others: Others,
    /// A limit was set since the last exchange.
    has_news: bool,
    asked_at: Option<Instant>,
    /// Time of the last count of unowned files because the spool was full.
    counted_at: Option<Instant>,
    /// Why usage is not shared; `None` once that is reported.
    unshared: Option<String>,
}

/// Why a file may not grow.
#[derive(Debug)]
pub(super) enum Refused {
    /// The limit is reached: bytes held by all processes, and the limit.
    Full(u64, u64),
    /// The exchange with the other processes failed.
    Io(io::Error),
}

/// The quota of one spool folder.
#[derive(Debug)]
pub(super) struct Quota {
    state: Mutex<QuotaState>,
    /// Lock order: this one before `state`. Held during an exchange, which blocks on the disk; `state` is not.
    usage: Mutex<Option<Usage>>,
}

impl Quota {
    /// Creates a quota without a limit. `others`: existing files that no process owns, and the usage of other processes.
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

    /// Creates a quota that does not share its usage. `unowned`: all bytes that exist now. `why`: reported once to the user.
    pub(super) fn alone(unowned: u64, why: String) -> Self {
        let others = Others {
            unowned,
            ..Others::default()
        };
        let quota = Self::new(others, None);
        quota.lock().unshared = Some(why);
        quota
    }

    /// Returns why usage is not shared with other processes; `None` from the second call on.
    pub(super) fn take_unshared(&self) -> Option<String> {
        self.lock().unshared.take()
    }

    fn lock(&self) -> MutexGuard<'_, QuotaState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the bytes in use by this process and by unowned files.
    pub(super) fn used(&self) -> u64 {
        let state = self.lock();
        state.used.saturating_add(state.unowned())
    }

    /// Returns the bytes in use in these folders.
    pub(super) fn used_in<'a>(&self, folders: impl Iterator<Item = &'a str>) -> u64 {
        let state = self.lock();
        let bytes = folders.filter_map(|folder| state.folders.get(folder));
        bytes.fold(0, |sum, bytes| sum.saturating_add(*bytes))
    }

    /// Returns the smallest limit of all sinks of all processes; 0 = none, only the free room of the file system counts.
    pub(super) fn max(&self) -> u64 {
        self.lock().max()
    }

    /// Replaces the limit of one sink; 0 = it sets none.
    pub(super) fn set_limit(&self, sink: u64, max: u64) {
        let mut state = self.lock();
        if max > 0 {
            state.limits.insert(sink, max);
        } else {
            state.limits.remove(&sink);
        }
        state.has_news = true;
    }

    /// Replaces the input rate of one sink, bytes per second; 0 = it has ended.
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

    /// Returns by how many bytes the disk usage would grow.
    pub(super) fn growth(charge: Charge, len: u64, slack: u64) -> u64 {
        Charge { len, slack }.held().saturating_sub(charge.held())
    }

    /// Counts a new length of a file.
    ///
    /// # Errors
    /// See [`Refused`]; nothing is counted then. A file that does not grow is never refused.
    pub(super) fn resize(&self, folder: &str, charge: &mut Charge, len: u64, slack: u64) -> Result<(), Refused> {
        let after = Charge { len, slack };
        let growth = Self::growth(*charge, len, slack);
        {
            let mut state = self.lock();
            // Shrinking is never refused, even if the usage is above a limit that was lowered.
            if growth == 0 || state.may_grow(growth) {
                state.apply(folder, charge, after);
                return Ok(());
            }
        }
        // Others may have freed room since the last exchange, and this growth must be published before it is used.
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

    /// Runs one exchange: publishes the usage and the wanted growth of this process, and reads the usage of the others.
    ///
    /// # Errors
    /// `TimedOut`: the disk does not answer. Other errors are ignored, see below.
    pub(super) fn ask(&self) -> io::Result<()> {
        let mut usage = self.usage.lock().unwrap_or_else(PoisonError::into_inner);
        let (limit, moved, used, held, wanted) = {
            let mut state = self.lock();
            // Reset before the exchange, because a limit that is set during it needs another one.
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
                // Not shared: no other process is known.
                state.others.unowned = state.unowned();
                state.moved = 0;
                // The claim is not published, so growth never needs an exchange.
                state.claimed = u64::MAX;
                return Ok(());
            }
        };
        let mut state = self.lock();
        match asked {
            Ok(others) => {
                // Bytes that moved during the exchange are left for the next one.
                state.moved = state.moved.saturating_sub(moved);
                state.others = others;
                state.claimed = claimed;
                Ok(())
            }
            Err(e) if e.kind() == ErrorKind::TimedOut => Err(e),
            // The usage file cannot be written, for example on a full disk. Until it can, this process relies on its own figures:
            // a failed exchange must not stop the recording.
            Err(_) => Ok(()),
        }
    }

    /// Runs an exchange if the usage has changed or the last exchange was long ago.
    pub(super) fn share(&self) {
        let is_due = {
            let state = self.lock();
            let is_old = state.asked_at.is_none_or(|at| at.elapsed() >= ASK_AGAIN);
            // Other processes cannot use what is claimed here: return what is far more than needed.
            let has_too_much = state.claimed.saturating_sub(state.held) > 2 * step(state.max());
            let is_unshared = state.claimed == u64::MAX;
            is_old
                || (state.has_news || state.moved != 0 || has_too_much)
                    && !is_unshared
                    && state.asked_at.is_none_or(|at| at.elapsed() >= SHARE_WITHIN)
        };
        if is_due {
            // Fails only if the disk does not answer, which the next call for it reports.
            let _ = self.ask();
        }
    }

    /// Reserves room behind the end of a file, even above the limit. All other files then have less.
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

    /// Frees the room reserved behind the end of a file that is no longer written.
    pub(super) fn release(&self, charge: &mut Charge) {
        let mut state = self.lock();
        state.held = state.held.saturating_sub(charge.held() - blocks(charge.len));
        charge.slack = 0;
    }

    /// Counts a file as unowned after its move to the quarantine.
    pub(super) fn set_aside(&self, from: &str, charge: &mut Charge) {
        let len = charge.len;
        self.remove(from, charge);
        let mut state = self.lock();
        state.moved = state.moved.saturating_add_unsigned(blocks(len));
    }

    /// Counts `bytes` of an unowned folder as ours. Call it after taking the folder's lock.
    pub(super) fn own(&self, folder: &str, bytes: u64) {
        let mut state = self.lock();
        state.count(folder, 0, bytes);
        state.held = state.held.saturating_add(bytes);
        state.moved = state.moved.saturating_sub_unsigned(bytes);
    }

    /// Counts the rest of a folder as unowned. Call it when the folder's lock is released.
    pub(super) fn disown(&self, folder: &str) {
        let mut state = self.lock();
        let bytes = state.folders.get(folder).copied().unwrap_or(0);
        state.count(folder, bytes, 0);
        state.held = state.held.saturating_sub(bytes);
        state.moved = state.moved.saturating_add_unsigned(bytes);
    }

    /// Returns whether to count unowned files again before a growth is refused: the user may have removed some. True at most once
    /// in [`COUNT_AGAIN`].
    pub(super) fn take_recount(&self) -> bool {
        let mut state = self.lock();
        let is_due = state.unowned() > 0 && state.counted_at.is_none_or(|at| at.elapsed() >= COUNT_AGAIN);
        if is_due {
            state.counted_at = Some(Instant::now());
        }
        is_due
    }

    /// Runs `count` under the lock shared by all processes and sets the unowned usage to its result.
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

/// Returns how many bytes are claimed beyond the usage, so that not every write needs an exchange.
fn step(max: u64) -> u64 {
    // With a small limit, the unused claims of a few processes could otherwise take all of it.
    if max == 0 { STEP } else { (max / 64).min(STEP) }
}

/// Returns the claim of a process that holds `held` bytes and wants `growth` more.
fn claim(limit: u64, held: u64, growth: u64, others: Others) -> u64 {
    let max = smallest(limit, others.limit);
    let wanted = held.saturating_add(growth).saturating_add(step(max));
    if max == 0 {
        return wanted;
    }
    let room = max.saturating_sub(others.claimed.saturating_add(others.unowned));
    // Existing bytes are always claimed, even above the limit.
    wanted.min(room).max(held)
}

/// Returns the smaller of two limits; 0 = no limit.
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

    /// Returns the bytes held by all processes, as of the last exchange.
    fn all(&self) -> u64 {
        self.held.saturating_add(self.others.claimed).saturating_add(self.unowned())
    }

    /// Returns whether `growth` is allowed without another exchange.
    fn may_grow(&self, growth: u64) -> bool {
        let max = self.max();
        // Other processes do not know of usage beyond the claim: two of them could pass the limit together.
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
