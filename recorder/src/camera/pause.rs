//! Computes how long to wait between attempts to connect.
//!
//! PURE: random numbers come from a seeded generator.

use std::time::Duration;

/// Pauses in seconds after a camera was unreachable, frozen or ended the connection. The last one repeats.
const SHORT: [u64; 4] = [1, 2, 4, 5];
/// The longest of these pauses, including the random part.
pub(super) const LONGEST_SHORT: Duration = Duration::from_secs(5);
/// The first pause after refused credentials. Each further one is twice as long, up to [`LONGEST_REFUSED`]: cameras lock accounts
/// after a few attempts.
pub(super) const FIRST_REFUSED: Duration = Duration::from_secs(60);
/// The longest pause after refused credentials.
pub(super) const LONGEST_REFUSED: Duration = Duration::from_secs(15 * 60);
/// The usual time after which a camera forgets a session (RFC 2326, 12.37: 60 s unless the server says otherwise).
pub(super) const SESSION_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause after a stream that cannot be recorded. It changes only when somebody changes the camera.
const UNSUPPORTED: Duration = Duration::from_secs(60);
/// How long pictures must last until the short pauses start again with the first.
const WELL_AFTER: Duration = Duration::from_secs(10);

/// A small random number generator (SplitMix64). It only spreads the cameras; no secret depends on it.
#[derive(Clone, Debug)]
pub(super) struct Rng(u64);

impl Rng {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Returns a number from 0 to 1000, both included.
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

    /// Resets the pauses that pictures disprove, after they have arrived for `lasting`.
    pub(super) fn pictures(&mut self, lasting: Duration) {
        // The camera has accepted the login, even if the connection breaks again soon.
        self.refused = 0;
        if lasting >= WELL_AFTER {
            self.short = 0;
        }
    }

    /// Resets all pauses.
    pub(super) fn reset(&mut self) {
        (self.short, self.refused) = (0, 0);
    }

    /// Changes a pause by a random part of up to ± 20 %.
    fn spread(&mut self, pause: Duration) -> Duration {
        pause * (800 + self.rng.permille() * 2 / 5) / 1000
    }

    /// Returns the pause after a camera was unreachable, frozen or ended the connection.
    pub(super) fn short(&mut self) -> Duration {
        let pause = Duration::from_secs(SHORT[self.short.min(SHORT.len() - 1)]);
        self.short += 1;
        self.spread(pause).min(LONGEST_SHORT)
    }

    /// Returns the pause after refused credentials.
    pub(super) fn refused(&mut self) -> Duration {
        let pause = FIRST_REFUSED * 2u32.saturating_pow(self.refused.min(8));
        self.refused += 1;
        // The random part only lengthens the pause: a shorter one could reach the limit of cameras that lock an account after
        // about five attempts in a few minutes.
        let later = pause / 5 * self.rng.permille() / 1000;
        (pause + later).min(LONGEST_REFUSED)
    }

    /// Returns the pause after 453, 454 or 503.
    pub(super) fn busy(&mut self) -> Duration {
        SESSION_TIMEOUT + Duration::from_millis(u64::from(self.rng.permille()))
    }

    /// Returns the pause after a stream that cannot be recorded.
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
