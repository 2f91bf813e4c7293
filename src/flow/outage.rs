//! Who of a group speaks of an outage: three hundred sinks of one site have one uplink, and say so once.
//!
//! PURE: time is an argument, ns on any monotonic scale.

use std::collections::BTreeSet;

/// How often a long outage is told again: an hour.
const AGAIN: u64 = 3_600_000_000_000;
/// Sinks remember the hour each for itself; a little early is the same hour.
const SLACK: u64 = 60_000_000_000;

/// The members whose uploads fail.
#[derive(Debug, Default)]
pub struct Outage {
    failing: BTreeSet<u64>,
    /// `None` = there is no outage. One that nobody is in any more was left behind by a member that went.
    told_at: Option<u64>,
    since: u64,
}

impl Outage {
    /// A member's uploads fail, or still do. Whether it is the one to say so.
    pub fn begins(&mut self, member: u64, now: u64) -> bool {
        if self.told_at.is_none() {
            self.since = now;
        }
        self.failing.insert(member);
        let is_due = self.told_at.is_none_or(|at| now.saturating_sub(at) >= AGAIN - SLACK);
        if is_due {
            self.told_at = Some(now);
        }
        is_due
    }

    /// A member has gone. `has_successor`: another one goes on with its work, as the next fragment's sink of a `splitmuxsink` does, so
    /// that the outage is not over.
    pub fn leaves(&mut self, member: u64, has_successor: bool) {
        if has_successor {
            self.failing.remove(&member);
        } else {
            self.ends(member);
        }
    }

    /// A member has stored a chunk. How long the outage was that another one left behind: this one is to say that it is over.
    pub fn works(&mut self, now: u64) -> Option<u64> {
        let is_left = self.failing.is_empty();
        is_left.then(|| self.told_at.take())?.map(|_| now.saturating_sub(self.since))
    }

    /// A member's uploads work again. Whether it is the one to say so.
    pub fn ends(&mut self, member: u64) -> bool {
        let is_last = self.failing.remove(&member) && self.failing.is_empty();
        if is_last {
            self.told_at = None;
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
        let told = |outage: &mut Outage, now: u64| (0..300).filter(|&m| outage.begins(m, now + m)).count();
        assert_eq!(told(&mut outage, 0), 1);
        assert_eq!(told(&mut outage, 60 * MINUTE), 1);
        assert_eq!(told(&mut outage, 120 * MINUTE), 1);
        assert_eq!((0..300).filter(|&m| outage.ends(m)).count(), 1);
        assert_eq!((0..300).filter(|&m| outage.ends(m)).count(), 0);
        assert_eq!(told(&mut outage, 121 * MINUTE), 1, "another outage");
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
