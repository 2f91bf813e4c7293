//! Who watches which camera live. A view is logged when it begins, not each time its playlist is loaded.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use crate::lock::lock;

/// A view whose playlist has not been loaded for this long is over.
const OVER: Duration = Duration::from_secs(60);
/// From this many entries on, views that are over are removed.
const MANY: usize = 1000;

/// When each viewer last loaded the playlist of each camera.
#[derive(Debug, Default)]
pub(super) struct Views(Mutex<HashMap<(String, String), Instant>>);

impl Views {
    /// Records that a viewer loads the live playlist of a camera. Returns whether a view begins with this.
    pub(super) fn begins(&self, who: &str, camera: &str, now: Instant) -> bool {
        let mut views = lock(&self.0);
        let is_over = |last: Instant| now.saturating_duration_since(last) >= OVER;
        if views.len() >= MANY {
            views.retain(|_, last| !is_over(*last));
        }
        let before = views.insert((who.to_owned(), camera.to_owned()), now);
        before.is_none_or(is_over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_view_begins_once_and_again_after_a_pause() {
        let (views, start) = (Views::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        let began: Vec<bool> = [0, 10, 60, 119, 200]
            .into_iter()
            .map(|s| views.begins("ann", "door", at(s)))
            .collect();
        assert_eq!(began, [true, false, false, false, true]);
        assert!(views.begins("bob", "door", at(201)) && views.begins("ann", "yard", at(201)));
        for i in 0..MANY {
            views.begins("all", &i.to_string(), at(1000));
        }
        views.begins("all", "one more", at(2000));
        assert!(lock(&views.0).len() <= MANY, "those that are over are forgotten");
    }
}
