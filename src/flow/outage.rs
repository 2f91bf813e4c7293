//! Decides which member of a group reports an outage: three hundred sinks share one uplink, and one WARNING is enough.
//!
//! PURE: time is an argument, ns on any monotonic scale.

use std::collections::BTreeSet;

/// Interval between two reports of the same outage.
const AGAIN: u64 = 3_600_000_000_000;
/// Each sink counts the hour from its own first failure: a reminder that is this much early counts as due.
const SLACK: u64 = 60_000_000_000;

/// The members whose uploads fail.
#[derive(Debug, Default)]
pub struct Outage {
    failing: BTreeSet<u64>,
    /// When the outage was reported last; `None` = no outage. `Some` without failing members: the last one left before it
    /// recovered, and the next success ends the outage.
    reported_at: Option<u64>,
    since: u64,
}

impl Outage {
    /// Records that a member's uploads fail, or still do. Returns whether it must report that.
    pub fn begins(&mut self, member: u64, now: u64) -> bool {
        if self.reported_at.is_none() {
            self.since = now;
        }
        self.failing.insert(member);
        let is_due = self.reported_at.is_none_or(|at| now.saturating_sub(at) >= AGAIN - SLACK);
        if is_due {
            self.reported_at = Some(now);
        }
        is_due
    }

    /// Removes a member. `has_successor`: another one continues its work, as the sink of the next fragment of a `splitmuxsink`
    /// does, so the outage goes on.
    pub fn leaves(&mut self, member: u64, has_successor: bool) {
        if has_successor {
            // `ends` would end the outage, and each fragment of a splitmuxsink would report it again.
            self.failing.remove(&member);
        } else {
            self.ends(member);
        }
    }

    /// Records that a member has stored a chunk. If the outage has no failing members left, ends it and returns its length in ns:
    /// this member must report the end.
    pub fn works(&mut self, now: u64) -> Option<u64> {
        // While others fail, the outage continues even if this member stores chunks.
        let is_left = self.failing.is_empty();
        is_left
            .then(|| self.reported_at.take())?
            .map(|_| now.saturating_sub(self.since))
    }

    /// Records that a member's uploads work again. Returns whether it must report the end of the outage.
    pub fn ends(&mut self, member: u64) -> bool {
        let is_last = self.failing.remove(&member) && self.failing.is_empty();
        if is_last {
            self.reported_at = None;
        }
        is_last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: u64 = 60_000_000_000;

    #[test]
    fn three_hundred_sinks_say_it_once_and_once_an_hour_and_once_at_the_end() {
        let mut outage = Outage::default();
        let reported = |outage: &mut Outage, now: u64| (0..300).filter(|&m| outage.begins(m, now + m)).count();
        assert_eq!(reported(&mut outage, 0), 1);
        assert_eq!(reported(&mut outage, 60 * MINUTE), 1);
        assert_eq!(reported(&mut outage, 120 * MINUTE), 1);
        assert_eq!((0..300).filter(|&m| outage.ends(m)).count(), 1);
        assert_eq!((0..300).filter(|&m| outage.ends(m)).count(), 0);
        assert_eq!(reported(&mut outage, 121 * MINUTE), 1, "another outage");
    }

    #[test]
    fn an_outage_that_outlives_many_sinks_one_after_the_other_is_one() {
        let mut outage = Outage::default();
        assert!(outage.begins(1, 0));
        for member in 2..100 {
            outage.leaves(member - 1, true);
            assert!(!outage.begins(member, member * 10_000_000_000));
        }
        assert_eq!(outage.works(17 * MINUTE), None, "others fail");
        outage.leaves(99, true);
        assert_eq!(outage.works(18 * MINUTE), Some(18 * MINUTE));
        assert_eq!(outage.works(18 * MINUTE), None);
        assert!(outage.begins(100, 30 * MINUTE), "another outage");
        outage.leaves(100, false);
        assert!(outage.begins(101, 31 * MINUTE), "nobody went on with the work");
    }

    #[test]
    fn a_sink_that_leaves_does_not_end_the_outage_of_the_others() {
        let mut outage = Outage::default();
        assert!(outage.begins(1, 0) && !outage.begins(2, 1));
        assert!(!outage.ends(1));
        assert!(!outage.begins(3, 2));
        assert!(!outage.ends(3) && outage.ends(2));
    }
}
