//! What outlives a link: when its client's states were last published. An element that is stopped and started at once begins
//! a new session and a new link, and the broker's limit of one state a second does not know of either.
//!
//! One entry for each client of a broker in the process, for as long as a link uses it or its gap lasts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::shared::lock;

static PACES: Mutex<BTreeMap<String, Arc<Mutex<Memory>>>> = Mutex::new(BTreeMap::new());

#[derive(Debug, Default)]
struct Memory {
    /// No state before that.
    free_at: Option<Instant>,
    /// Links that are not closed yet.
    links: usize,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Pace(Arc<Mutex<Memory>>);

impl Pace {
    /// Of this client at this broker.
    pub(super) fn of(client: &str, place: &str) -> Self {
        let mut paces = lock(&PACES);
        let now = Instant::now();
        paces.retain(|_, memory| {
            let kept = lock(memory);
            kept.links > 0 || kept.free_at.is_some_and(|at| at > now)
        });
        Self(Arc::clone(paces.entry(format!("{client} {place}")).or_default()))
    }

    /// A link begins; how many others of this client there are.
    pub(super) fn enter(&self) -> usize {
        let mut memory = lock(&self.0);
        memory.links = memory.links.saturating_add(1);
        memory.links.saturating_sub(1)
    }

    /// A link has ended.
    pub(super) fn leave(&self) {
        let mut memory = lock(&self.0);
        memory.links = memory.links.saturating_sub(1);
    }

    /// When the next state may be published.
    pub(super) fn free_at(&self) -> Option<Instant> {
        lock(&self.0).free_at
    }

    /// Not before this moment. What was said before and is later stays.
    pub(super) fn not_before(&self, at: Instant) {
        let mut memory = lock(&self.0);
        memory.free_at = memory.free_at.max(Some(at));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_one_link_has_published_counts_for_the_next_of_the_same_client() {
        let soon = Instant::now() + Duration::from_secs(60);
        let first = Pace::of("pace-test", "broker:1");
        assert_eq!((first.enter(), first.free_at()), (0, None));
        first.not_before(soon);
        first.not_before(soon - Duration::from_secs(1));
        assert_eq!(Pace::of("pace-test", "broker:1").enter(), 1, "two at a time evict each other");
        first.leave();
        first.leave();
        assert_eq!(Pace::of("pace-test", "broker:1").free_at(), Some(soon));
        assert_eq!(Pace::of("pace-test", "broker:2").free_at(), None, "another broker");
        assert_eq!(Pace::of("pace-test-2", "broker:1").free_at(), None, "another client");
    }
}
