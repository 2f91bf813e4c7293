//! Remembers when a client's states were last published, beyond the life of its link. A restarted element makes a new link, but
//! the broker's limit of one state a second applies to the client.
//!
//! There is one entry for each client of a broker in the process. It exists while a link uses it or its gap lasts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::shared::lock;

static INTERVALS: Mutex<BTreeMap<String, Arc<Mutex<LastPublish>>>> = Mutex::new(BTreeMap::new());

#[derive(Debug, Default)]
struct LastPublish {
    /// No state may be published before.
    free_at: Option<Instant>,
    /// Links that are not closed yet.
    links: usize,
}

/// The entry of one client at one broker.
#[derive(Clone, Debug)]
pub(super) struct PublishInterval(Arc<Mutex<LastPublish>>);

impl PublishInterval {
    /// Returns the entry of this client at this broker.
    pub(super) fn of(client: &str, address: &str) -> Self {
        let mut intervals = lock(&INTERVALS);
        let now = Instant::now();
        intervals.retain(|_, memory| {
            let kept = lock(memory);
            kept.links > 0 || kept.free_at.is_some_and(|at| at > now)
        });
        Self(Arc::clone(intervals.entry(format!("{client} {address}")).or_default()))
    }

    /// Registers a link. Returns how many others of this client there are.
    pub(super) fn register_link(&self) -> usize {
        let mut memory = lock(&self.0);
        memory.links = memory.links.saturating_add(1);
        memory.links.saturating_sub(1)
    }

    /// Deregisters a link that has ended.
    pub(super) fn deregister_link(&self) {
        let mut memory = lock(&self.0);
        memory.links = memory.links.saturating_sub(1);
    }

    /// Returns when the next state may be published; `None` for at once.
    pub(super) fn free_at(&self) -> Option<Instant> {
        lock(&self.0).free_at
    }

    /// Allows no state before `at`. Never shortens a delay that was set before.
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
        let first = PublishInterval::of("interval-test", "broker:1");
        assert_eq!((first.register_link(), first.free_at()), (0, None));
        first.not_before(soon);
        first.not_before(soon - Duration::from_secs(1));
        assert_eq!(
            PublishInterval::of("interval-test", "broker:1").register_link(),
            1,
            "two at a time evict each other"
        );
        first.deregister_link();
        first.deregister_link();
        assert_eq!(PublishInterval::of("interval-test", "broker:1").free_at(), Some(soon));
        assert_eq!(
            PublishInterval::of("interval-test", "broker:2").free_at(),
            None,
            "another broker"
        );
        assert_eq!(
            PublishInterval::of("interval-test-2", "broker:1").free_at(),
            None,
            "another client"
        );
    }
}
