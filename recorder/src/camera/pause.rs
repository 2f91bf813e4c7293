//! How long to wait between attempts to connect.
//!
//! PURE: chance is a seeded generator.

use std::time::Duration;

/// First pauses after a camera was unreachable, frozen or ended the connection; the last one goes on.
const SHORT: [u64; 4] = [1, 2, 4, 5];
/// Never longer, whatever chance adds.
pub(super) const LONGEST_SHORT: Duration = Duration::from_secs(5);
/// After refused credentials, doubled up to the longest: cameras lock accounts after a few attempts.
pub(super) const FIRST_REFUSED: Duration = Duration::from_secs(60);
/// See [`FIRST_REFUSED`].
pub(super) const LONGEST_REFUSED: Duration = Duration::from_secs(15 * 60);
/// The usual time after which a camera forgets a session (RFC 2326, 12.37: 60 s unless the server says otherwise).
pub(super) const SESSION_TIMEOUT: Duration = Duration::from_secs(60);
/// A stream that cannot be recorded changes only when somebody changes the camera.
const UNSUPPORTED: Duration = Duration::from_secs(60);
/// After pictures for this long a camera is well again, and its pauses start again.
const WELL_AFTER: Duration = Duration::from_secs(10);

/// A small generator (SplitMix64): spreads cameras apart, no secret depends on it.
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from 0 up to 1000.
    fn permille(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        u32::try_from((z ^ (z >> 31)) % 1001).unwrap_or(0)
    }
}

/// The pauses of one camera.
#[derive(Clone, Debug)]
pub(super) struct Pauses {
    rng: Rng,
    short: usize,
    refused: u32,
}

impl Pauses {
    pub(super) fn new(rng: Rng) -> Self {
        Self {
            rng,
            short: 0,
            refused: 0,
        }
    }

    /// Pictures have come for this long.
    pub(super) fn pictures(&mut self, lasting: Duration) {
        // The account is not locked, whatever else is wrong with the stream.
        self.refused = 0;
        if lasting >= WELL_AFTER {
            self.short = 0;
        }
    }

    /// Starts again.
    pub(super) fn reset(&mut self) {
        (self.short, self.refused) = (0, 0);
    }

    /// ± 20 %.
    fn spread(&mut self, pause: Duration) -> Duration {
        pause * (800 + self.rng.permille() * 2 / 5) / 1000
    }

    /// After a camera was unreachable, frozen or ended the connection.
    pub(super) fn short(&mut self) -> Duration {
        let pause = Duration::from_secs(SHORT[self.short.min(SHORT.len() - 1)]);
        self.short += 1;
        self.spread(pause).min(LONGEST_SHORT)
    }

    /// After refused credentials.
    pub(super) fn refused(&mut self) -> Duration {
        let pause = FIRST_REFUSED * 2u32.saturating_pow(self.refused.min(8));
        self.refused += 1;
        // Only later: an account that is locked after five attempts in five minutes must not be.
        let later = pause / 5 * self.rng.permille() / 1000;
        (pause + later).min(LONGEST_REFUSED)
    }

    /// After 453, 454, 503.
    pub(super) fn busy(&mut self) -> Duration {
        SESSION_TIMEOUT + Duration::from_millis(u64::from(self.rng.permille()))
    }

    /// After a stream that cannot be recorded.
    pub(super) fn unsupported(&mut self) -> Duration {
        self.spread(UNSUPPORTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(pause: Duration) -> f64 {
        pause.as_secs_f64()
    }

    #[test]
    fn short_pauses_are_one_two_four_and_then_at_most_five_seconds() {
        for seed in 0..200 {
            let mut pauses = Pauses::new(Rng::new(seed));
            for expected in [1.0, 2.0, 4.0, 5.0, 5.0, 5.0] {
                let pause = seconds(pauses.short());
                assert!(
                    pause >= expected * 0.8 && pause <= (expected * 1.2).min(5.0),
                    "{pause} for {expected}"
                );
            }
            pauses.pictures(Duration::from_secs(3));
            assert!(
                seconds(pauses.short()) >= 4.0,
                "a camera that dies every few seconds is not well"
            );
            pauses.pictures(Duration::from_secs(10));
            assert!(seconds(pauses.short()) <= 1.2);
        }
    }

    #[test]
    fn refused_credentials_are_tried_once_in_60_s_to_15_min() {
        for seed in 0..200 {
            let mut pauses = Pauses::new(Rng::new(seed));
            let all: Vec<f64> = (0..12).map(|_| seconds(pauses.refused())).collect();
            assert!(all.iter().all(|pause| (60.0..=900.0).contains(pause)), "{all:?}");
            assert!(all[0] <= 72.0 && all[1] >= 120.0, "{all:?}");
            assert!((all[11] - 900.0).abs() < 1e-9, "{all:?}");
            // Cameras lock an account after about five attempts in a few minutes.
            assert!(all[..4].iter().sum::<f64>() >= 900.0);
        }
    }

    #[test]
    fn cameras_do_not_come_back_in_step() {
        let pauses: std::collections::BTreeSet<Duration> = (0..64).map(|seed| Pauses::new(Rng::new(seed)).short()).collect();
        assert!(pauses.len() > 40, "{pauses:?}");
    }
}
