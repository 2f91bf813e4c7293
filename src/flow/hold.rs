//! How long a server's `Retry-After` keeps requests away from one [`BucketEndpoint`](super::bucket_endpoint::BucketEndpoint).
//!
//! PURE: time is an argument, ns on any monotonic scale.
//!
//! Rules:
//! 1. A hold lasts as long as the server asked, at most [`LONGEST`].
//! 2. A sink that drains has a deadline. It waits for at most half of the time that was left when the drain began, or when the
//!    server answered if that was later. A hold that fits into the drain applies in full; a longer one still leaves time for the
//!    next attempt, and each refusal halves what is left.
//! 3. An answer that comes after the deadline is no longer part of the drain: rule 1.

/// Longest hold. A server may ask for a day; one wrong answer must not stop a recording that long.
pub const LONGEST: u64 = 300_000_000_000;

/// One answer of a server that asked to wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    /// When it answered.
    pub since: u64,
    /// When requests may be made again.
    pub until: u64,
}

/// EOS, or leaving PAUSED: chunks have until a deadline to be stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Drain {
    /// When it began.
    pub began: u64,
    /// The deadline.
    pub until: u64,
}

impl Hold {
    /// Creates the hold of a server that asked at `now` to wait for `asked` ns.
    pub fn new(now: u64, asked: u64) -> Self {
        Self {
            since: now,
            until: now.saturating_add(asked.min(LONGEST)),
        }
    }

    /// Returns when a sink may make requests again; `drain` is set if the sink drains.
    pub fn ends(self, drain: Option<Drain>) -> u64 {
        let Some(drain) = drain else { return self.until };
        // A wait before the drain does not use up the drain's time.
        let from = self.since.max(drain.began);
        match drain.until.checked_sub(from) {
            Some(left) if left > 0 => self.until.min(from.saturating_add(left / 2)),
            _ => self.until,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_hold_lasts_as_long_as_the_server_asked_and_five_minutes_at_most() {
        assert_eq!(Hold::new(7 * S, 17 * S).ends(None), 24 * S);
        assert_eq!(Hold::new(7 * S, 86_400 * S).ends(None), 307 * S);
        assert_eq!(Hold::new(u64::MAX, u64::MAX).ends(None), u64::MAX);
    }

    #[test]
    fn a_drain_grants_a_wish_that_fits_and_halves_its_time_for_one_that_does_not() {
        let drain = Some(Drain {
            began: 100 * S,
            until: 130 * S,
        });
        assert_eq!(Hold::new(100 * S, 2 * S).ends(drain), 102 * S);
        let mut now = 60 * S;
        let mut attempts = Vec::new();
        // Held for an hour before the drain began, and again by each answer.
        for _ in 0..5 {
            now = Hold::new(now, 3600 * S).ends(drain);
            attempts.push(now / S);
        }
        assert_eq!(attempts, [115, 122, 126, 128, 129]);
        assert_eq!(Hold::new(130 * S, 60 * S).ends(drain), 190 * S, "the drain is over");
    }
}
