//! Checks whether the recorder itself works, regardless of cameras and uplink: for `/healthz`, `/readyz` and systemd's watchdog.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::camera::report::Board;

/// A camera's task that has not reported for this long hangs: it reports four times a second.
const HUNG: Duration = Duration::from_secs(10);
/// How long the threads that upload may take to respond. They respond at once unless they hang.
const ANSWER: Duration = Duration::from_secs(5);

/// The result of the last check.
#[derive(Debug, Default)]
pub struct Health {
    is_hung: AtomicBool,
    is_ready: AtomicBool,
}

impl Health {
    /// Checks everything. Blocks for up to 5 s if uploads hang.
    pub fn check(&self, board: &Board) {
        let moves = board.oldest() < HUNG && gstgcstreamer::uploads_respond(ANSWER);
        self.is_hung.store(!moves, Ordering::Relaxed);
        if board.all().iter().all(|report| report.was_tried) {
            self.is_ready.store(true, Ordering::Relaxed);
        }
    }

    /// Whether the tasks of all cameras and the uploads make progress.
    pub fn is_healthy(&self) -> bool {
        !self.is_hung.load(Ordering::Relaxed)
    }

    /// Whether every camera has had its first result. Stays `true`, also when cameras are added later.
    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::camera::report::Report;
    use crate::camera::state::State;

    #[test]
    fn it_is_ready_after_every_camera_had_a_result_and_stays_so() {
        let (health, board) = (Health::default(), Board::default());
        board.put(Report::new("a", None, "fmp4", State::Connecting, ""));
        board.put(Report::new("b", None, "fmp4", State::Stopped, "enabled = false"));
        health.check(&board);
        assert!(health.is_healthy() && !health.is_ready());
        board.put(Report {
            was_tried: true,
            ..Report::new("a", None, "fmp4", State::Unreachable, "")
        });
        health.check(&board);
        assert!(health.is_ready());
        board.put(Report::new("c", None, "fmp4", State::Connecting, ""));
        health.check(&board);
        assert!(health.is_ready(), "a camera that a reload added changes nothing");
    }
}
