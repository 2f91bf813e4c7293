//! Events that wait for the next poll of the reporter: those that arrive on the link's task, which must return at once.

use std::sync::{Arc, Mutex};

use super::counters::Counters;
use super::report::Event;
use crate::base::lock::lock;

/// Maximum number of waiting events; more are dropped.
pub(super) const MAX_WAITING: usize = 64;

/// A bounded queue of events. Pushing wakes the timer.
#[derive(Debug)]
pub(super) struct Inbox {
    events: Mutex<Vec<Event>>,
    counters: Arc<Counters>,
}

impl Inbox {
    /// Creates an empty inbox that wakes the timer of these counters.
    pub(super) fn new(counters: Arc<Counters>) -> Self {
        Self {
            events: Mutex::default(),
            counters,
        }
    }

    /// Appends an event for the next poll; drops it if the inbox is full.
    pub(super) fn push(&self, event: Event) {
        let mut events = lock(&self.events);
        if events.len() < MAX_WAITING {
            events.push(event);
        }
        drop(events);
        self.counters.wake.notify_one();
    }

    /// Takes all waiting events, oldest first.
    pub(super) fn take(&self) -> Vec<Event> {
        std::mem::take(&mut *lock(&self.events))
    }
}
