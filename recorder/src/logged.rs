//! Suppresses repeated log lines: each attempt at a camera has new elements, which report the same again.
//!
//! PURE.

use std::collections::BTreeMap;
use std::time::Duration;

/// The texts without digits, and when each was logged, on the caller's clock.
#[derive(Default)]
pub(crate) struct Logged(BTreeMap<String, Duration>);

impl Logged {
    const AGAIN: Duration = Duration::from_secs(3600);
    const MOST: usize = 100;

    /// Returns whether to log a text, and notes that it is logged now. Returns `false` if the same text was logged within the
    /// last hour. Texts that differ only in digits are the same.
    pub(crate) fn is_new(&mut self, text: &str, now: Duration) -> bool {
        let words: String = text.chars().filter(|c| !c.is_ascii_digit()).collect();
        self.0.retain(|_, at| now.saturating_sub(*at) < Self::AGAIN);
        if self.0.contains_key(&words) {
            return false;
        }
        // Bounds the memory. Texts beyond this are logged each time.
        if self.0.len() < Self::MOST {
            self.0.insert(words, now);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_sink_of_every_attempt_says_is_logged_once_an_hour() {
        let (mut logged, now) = (Logged::default(), Duration::from_secs(10));
        assert!(logged.is_new("nothing to store after 30.0 s", now));
        assert!(!logged.is_new("nothing to store after 31.5 s", now + Duration::from_secs(60)));
        assert!(logged.is_new("another", now));
        assert!(logged.is_new("nothing to store after 30.0 s", now + Duration::from_secs(3601)));
    }
}
