//! How much disk the spool uses: one account for all sinks of the process that share a folder. Each of them may set a limit; the
//! smallest counts, and a limit goes with the sink that set it.
//!
//! Files count in blocks of 4 KiB, as a disk gives them out. Room that an open chunk will need to be closed is kept from
//! the moment it is created, so that a full spool can still close and confirm what it has.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

const BLOCK: u64 = 4096;

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

    fn held(self) -> u64 {
        blocks(self.len.saturating_add(self.slack))
    }

    /// Returns how much of the room already held lies behind an end at `len`, at most `want`.
    pub(super) fn slack_within(self, len: u64, want: u64) -> u64 {
        self.held().saturating_sub(len).min(want)
    }
}

#[derive(Debug, Default)]
struct State {
    /// The limits that users set, by sink.
    limits: BTreeMap<u64, u64>,
    /// Blocks of all files.
    used: u64,
    /// The same and the room that is kept.
    held: u64,
    /// Blocks by folder.
    folders: BTreeMap<String, u64>,
}

/// The account of one spool folder.
#[derive(Debug)]
pub(super) struct Account {
    state: Mutex<State>,
}

impl Account {
    /// Without a limit. `folders`: blocks of what is there already.
    pub(super) fn new(folders: BTreeMap<String, u64>) -> Self {
        let used = folders.values().sum();
        let state = State {
            limits: BTreeMap::new(),
            used,
            held: used,
            folders,
        };
        Self {
            state: Mutex::new(state),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes in use.
    pub(super) fn used(&self) -> u64 {
        self.lock().used
    }

    /// The smallest limit of all sinks, 0 = the file system's.
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
    }

    /// Returns how many bytes may still be written; `None` if no limit is set.
    pub(super) fn room(&self) -> Option<u64> {
        let state = self.lock();
        let max = state.max();
        (max > 0).then(|| max.saturating_sub(state.held))
    }

    /// By how much the disk in use would grow.
    pub(super) fn growth(charge: Charge, len: u64, slack: u64) -> u64 {
        Charge { len, slack }.held().saturating_sub(charge.held())
    }

    /// Counts another length of a file. `Err`: what is held, and the limit.
    pub(super) fn resize(&self, folder: &str, charge: &mut Charge, len: u64, slack: u64) -> Result<(), (u64, u64)> {
        let mut state = self.lock();
        let after = Charge { len, slack };
        let growth = Self::growth(*charge, len, slack);
        let max = state.max();
        if max > 0 && growth > 0 && state.held.saturating_add(growth) > max {
            return Err((state.held, max));
        }
        state.count(folder, blocks(charge.len), blocks(len));
        state.held = state.held.saturating_sub(charge.held()).saturating_add(after.held());
        *charge = after;
        Ok(())
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

    /// Counts a file that was moved to another folder.
    pub(super) fn moved(&self, from: &str, to: &str, charge: &mut Charge) {
        let len = charge.len;
        self.remove(from, charge);
        self.recount(to, |bytes| bytes.saturating_add(blocks(len)));
    }

    /// Replaces what is counted for a folder.
    pub(super) fn recount(&self, folder: &str, bytes: impl FnOnce(u64) -> u64) {
        let mut state = self.lock();
        let before = state.folders.get(folder).copied().unwrap_or(0);
        let after = bytes(before);
        state.count(folder, before, after);
        state.held = state.held.saturating_sub(before).saturating_add(after);
    }
}

impl State {
    fn max(&self) -> u64 {
        self.limits.values().min().copied().unwrap_or(0)
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
    use super::*;

    #[test]
    fn the_limit_counts_blocks_and_the_room_to_close_a_chunk() {
        let account = Account::new(BTreeMap::from([("old".into(), BLOCK)]));
        account.set_limit(0, 3 * BLOCK);
        let mut charge = Charge::default();
        account.resize("a", &mut charge, 10, 4000).unwrap();
        assert_eq!((account.used(), account.room()), (2 * BLOCK, Some(BLOCK)));
        account.resize("a", &mut charge, 4000, 4000).unwrap();
        assert_eq!(
            (account.used(), account.room()),
            (2 * BLOCK, Some(0)),
            "the second block is kept"
        );
        assert_eq!(account.resize("a", &mut charge, 5000, 4000), Err((3 * BLOCK, 3 * BLOCK)));
        let slack = charge.slack_within(7000, 4000);
        account.resize("a", &mut charge, 7000, slack).unwrap();
        assert_eq!(account.used(), 3 * BLOCK, "closing uses what was kept");
        account.remove("a", &mut charge);
        assert_eq!((account.used(), account.room()), (BLOCK, Some(2 * BLOCK)));
    }

    #[test]
    fn the_smallest_limit_that_a_sink_has_set_counts_as_long_as_it_has_it() {
        let account = Account::new(BTreeMap::new());
        let max_after = |sink, max| {
            account.set_limit(sink, max);
            account.max()
        };
        assert_eq!(max_after(1, 0), 0);
        assert_eq!(max_after(2, 5 * BLOCK), 5 * BLOCK);
        assert_eq!(max_after(3, 7 * BLOCK), 5 * BLOCK, "larger");
        assert_eq!(max_after(1, 0), 5 * BLOCK, "none of its own");
        assert_eq!(max_after(2, 9 * BLOCK), 7 * BLOCK, "its sink raises the smallest");
        assert_eq!(max_after(3, 0), 9 * BLOCK);
        assert_eq!(max_after(2, 0), 0);
        assert_eq!(account.room(), None);
    }

    #[test]
    fn a_lower_limit_lets_nothing_grow_and_everything_shrink() {
        let account = Account::new(BTreeMap::new());
        let mut charge = Charge::default();
        account.resize("a", &mut charge, 9 * BLOCK, 0).unwrap();
        account.set_limit(0, BLOCK);
        assert_eq!(account.room(), Some(0));
        assert!(account.resize("a", &mut charge, 10 * BLOCK, 0).is_err());
        account.resize("a", &mut charge, 5 * BLOCK, 0).unwrap();
        account.release(&mut charge);
        assert_eq!(account.used(), 5 * BLOCK);
    }

    #[test]
    fn a_fresh_look_replaces_what_was_counted() {
        let account = Account::new(BTreeMap::from([("a".into(), 7 * BLOCK)]));
        account.recount("a", |_| 2 * BLOCK);
        assert_eq!(account.used(), 2 * BLOCK);
        let mut charge = Charge::counted(BLOCK);
        account.moved("a", "quarantine", &mut charge);
        assert_eq!(account.used(), 2 * BLOCK);
    }
}
