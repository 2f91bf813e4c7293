//! A token bucket with debt: a piece leaves once all pieces before it have been paid for.
//!
//! PURE: time is an argument, ns on any monotonic scale. Idle time earns no credit, so no second sees more than the rate plus
//! one piece. A late wake-up may catch up by one piece, so that the whole rate can be used.

const SECOND: f64 = 1e9;

/// One limit.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    /// Units per second; 0 = no limit.
    rate: f64,
    /// When everything that has left is paid for.
    paid_at: u64,
}

impl Bucket {
    /// Creates a bucket with a rate in units per second; 0 = no limit.
    pub fn new(rate: f64) -> Self {
        Self { rate, paid_at: 0 }
    }

    /// Returns the rate in units per second; 0 = no limit.
    pub fn rate(&self) -> f64 {
        self.rate
    }

    /// Refunds a charge whose `amount` has not left and is no longer waited for.
    pub fn refund(&mut self, amount: f64, now: u64) {
        if self.rate > 0.0 {
            let paid_at = self.paid_at.saturating_sub(ns(amount / self.rate));
            // Not below now: a refund must not become credit.
            self.paid_at = paid_at.max(now.min(self.paid_at));
        }
    }

    /// Returns whether a charge would have to wait.
    pub fn is_busy(&self, now: u64) -> bool {
        self.rate > 0.0 && self.paid_at > now
    }

    /// Sets the rate from `now` on. Times returned earlier become invalid: callers that still wait must ask again.
    pub fn set_rate(&mut self, rate: f64, now: u64) {
        self.rate = rate;
        // Those that wait charge again at the new rate: with the old debt they would be charged twice.
        self.paid_at = self.paid_at.min(now);
    }

    /// Charges for `amount` and returns the time at which it may leave.
    pub fn take(&mut self, amount: f64, now: u64) -> u64 {
        if self.rate <= 0.0 {
            return now;
        }
        let cost = ns(amount / self.rate);
        // One piece of the past counts: otherwise each late wake-up would be lost, and the rate never reached.
        let leaves = self.paid_at.max(now.saturating_sub(cost));
        self.paid_at = leaves.saturating_add(cost);
        leaves.max(now)
    }
}

/// Returns the size of a piece for a rate in bytes per second: a tenth of a second, but between 4 and 256 KiB.
pub fn piece(rate: f64) -> usize {
    // Each piece costs an HTTP chunk and a lock: a fast limit gets large ones.
    const LARGEST: u32 = 256 << 10;
    if rate <= 0.0 {
        return LARGEST as usize;
    }
    let tenth = (rate / 10.0).min(f64::from(LARGEST));
    // Between 4096 and 262144.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let piece = tenth.max(4096.0) as usize;
    piece
}

fn ns(seconds: f64) -> u64 {
    // The cast saturates; u64 holds 584 years.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let ns = (seconds * SECOND) as u64;
    ns
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn the_rate_is_used_though_every_wake_is_a_millisecond_late() {
        let mut bucket = Bucket::new(20e6);
        let piece = piece(20e6);
        let (mut now, mut sent) = (0, 0);
        while now < 10 * S {
            now = bucket.take(piece as f64, now) + 1_000_000;
            sent += piece;
        }
        assert!(
            sent as f64 >= 0.97 * 200e6 && sent as f64 <= 200e6 + 2.0 * piece as f64,
            "{sent}"
        );
    }

    #[test]
    fn rest_gives_no_credit_but_one_piece() {
        let mut bucket = Bucket::new(1000.0);
        bucket.take(100.0, 0);
        let at: Vec<u64> = (0..4).map(|_| bucket.take(100.0, 3600 * S)).collect();
        assert_eq!(at, [3600 * S, 3600 * S, 3600 * S + S / 10, 3600 * S + S / 5]);
    }

    #[test]
    fn no_rate_is_no_wait_and_another_rate_counts_at_once() {
        assert_eq!(Bucket::new(0.0).take(1e9, 5), 5);
        let mut slow = Bucket::new(1.0);
        slow.take(1000.0, 0);
        slow.set_rate(1000.0, S);
        assert!(slow.take(1.0, S) <= S);
    }

    #[test]
    fn pieces_are_a_tenth_of_a_second_between_4_and_256_kib() {
        assert_eq!(piece(1000.0), 4096);
        assert_eq!(piece(1e6), 100_000);
        assert_eq!(piece(20e6), 256 << 10);
        assert_eq!(piece(0.0), 256 << 10);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn no_second_sees_more_than_the_rate_and_one_piece(waits in prop::collection::vec(0u64..200_000_000, 1..300), rate in 10_000u32..1_000_000) {
            let rate = f64::from(rate);
            let size = piece(rate) as f64;
            let mut bucket = Bucket::new(rate);
            let (mut now, mut sent) = (0u64, Vec::new());
            for wait in waits {
                now = bucket.take(size, now + wait);
                sent.push(now);
            }
            for (i, &from) in sent.iter().enumerate() {
                let within = sent[i..].iter().take_while(|&&t| t < from + S).count();
                prop_assert!(within as f64 * size <= rate + 2.0 * size + 1.0, "{within} pieces");
            }
        }
    }
}
