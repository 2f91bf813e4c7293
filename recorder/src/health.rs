//! Whether the recorder itself works, whatever cameras and uplink do: for `/healthz`, `/readyz` and systemd's watchdog.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::camera::report::Board;

/// A camera's task that has not reported for this long hangs: it does so four times a second.
const HUNG: Duration = Duration::from_secs(10);
/// The threads that upload answer at once unless they hang.
const ANSWER: Duration = Duration::from_secs(5);

/// The last look.
#[derive(Debug, Default)]
pub struct Health {
    is_hung: AtomicBool,
    is_ready: AtomicBool,
}

impl Health {
    /// Looks at everything. Blocks for some seconds if uploads hang.
    pub fn look(&self, board: &Board) {
        let moves = board.oldest() < HUNG && gstgcstreamer::uploads_respond(ANSWER);
        self.is_hung.store(!moves, Ordering::Relaxed);
        if board.all().iter().all(|report| report.was_tried) {
            self.is_ready.store(true, Ordering::Relaxed);
        }
    }

    /// Whether every camera's task and the uploads move.
    pub fn is_healthy(&self) -> bool {
        !self.is_hung.load(Ordering::Relaxed)
    }

    /// Whether every camera has been tried once since the start.
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
        health.look(&board);
        assert!(health.is_healthy() && !health.is_ready());
        board.put(Report {
            was_tried: true,
            ..Report::new("a", None, "fmp4", State::Unreachable, "")
        });
        health.look(&board);
        assert!(health.is_ready());
        board.put(Report::new("c", None, "fmp4", State::Connecting, ""));
        health.look(&board);
        assert!(health.is_ready(), "a camera that a reload added changes nothing");
    }
}
