//! Ends an attempt that makes no progress. Nothing else limits an upload in progress: the HTTP client's timeouts are for
//! connecting.
//!
//! Requests for bytes, taking them and waiting in the pacer count as progress. When all bytes are taken, many are still in this
//! machine's socket buffers: the answer may then take as long as sending took, plus the limit at most. The time before the first
//! byte (token, name look-up, connect, TLS) is limited too.

use std::future::Future;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Progress of an attempt.
#[derive(Debug)]
pub(crate) struct Progress(Mutex<WatchdogState>);

#[derive(Debug)]
struct WatchdogState {
    /// Time of the last progress.
    last: Instant,
    /// Pieces waiting in the pacer.
    waiting: u32,
    /// Time when the first byte was asked for.
    first: Option<Instant>,
    /// Time spent in the pacer; it does not count as sending.
    paused: Duration,
    offset: u64,
    /// Bytes that left in all tries.
    sent: u64,
    done: bool,
}

/// The attempt made no progress within the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stalled {
    /// Time without progress.
    pub(crate) idle: Duration,
    /// What the attempt was doing.
    pub(crate) phase: Phase,
}

/// Stage of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No byte was requested yet: token, look-up, connect, TLS.
    Starting,
    /// This many bytes were taken.
    Sending(u64),
    /// All bytes were taken; the answer is missing.
    Answer,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(WatchdogState {
            last: Instant::now(),
            waiting: 0,
            first: None,
            paused: Duration::ZERO,
            offset: 0,
            sent: 0,
            done: false,
        }))
    }

    fn state(&self) -> MutexGuard<'_, WatchdogState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn touch(&self) {
        let now = Instant::now();
        let mut state = self.state();
        state.last = now;
        state.first.get_or_insert(now);
    }

    pub(crate) fn taken(&self, bytes: u64) {
        self.touch();
        let mut state = self.state();
        state.offset = state.offset.saturating_add(bytes);
        state.sent = state.sent.saturating_add(bytes);
    }

    pub(crate) fn all_taken(&self) {
        self.touch();
        self.state().done = true;
    }

    pub(crate) fn restart_at(&self, offset: u64) {
        let mut state = self.state();
        state.offset = offset;
        state.done = false;
    }

    /// Returns how many bytes of the body have left, in all tries. If it is 0, the server cannot have received a complete
    /// request.
    pub(crate) fn sent(&self) -> u64 {
        self.state().sent
    }

    /// Marks a wait in the pacer until the returned guard is dropped.
    pub(crate) fn paced(&self) -> Pause<'_> {
        let mut state = self.state();
        state.waiting = state.waiting.saturating_add(1);
        Pause {
            progress: self,
            since: Instant::now(),
        }
    }

    /// Returns when to give up if no progress is made until then.
    fn deadline(&self, limit: Duration) -> Instant {
        let now = Instant::now();
        let state = self.state();
        // Waiting in the pacer counts as progress.
        if state.waiting > 0 {
            return now + limit;
        }
        // Sent bytes may still be in the socket buffers: the answer may take as long as sending took, without the pauses.
        let grace = match state.first {
            Some(first) if state.done => (state.last - first).saturating_sub(state.paused).min(limit),
            _ => Duration::ZERO,
        };
        state.last + limit + grace
    }

    fn stalled(&self) -> Stalled {
        let state = self.state();
        let phase = match state.first {
            _ if state.done => Phase::Answer,
            Some(_) => Phase::Sending(state.offset),
            None => Phase::Starting,
        };
        Stalled {
            idle: state.last.elapsed(),
            phase,
        }
    }
}

/// A wait in the pacer, see [`Progress::paced`].
pub(crate) struct Pause<'a> {
    progress: &'a Progress,
    since: Instant,
}

impl Drop for Pause<'_> {
    fn drop(&mut self) {
        let mut state = self.progress.state();
        state.waiting = state.waiting.saturating_sub(1);
        state.paused = state.paused.saturating_add(self.since.elapsed());
        state.last = Instant::now();
    }
}

/// Runs `attempt` to its end, or drops it after `limit` without progress (zero: no limit).
pub(crate) async fn watch<F: Future>(progress: &Progress, limit: Duration, attempt: F) -> Result<F::Output, Stalled> {
    if limit.is_zero() {
        return Ok(attempt.await);
    }
    // A limit of centuries exceeds the clock's range.
    let limit = limit.min(Duration::from_secs(365 * 86400));
    let mut attempt = pin!(attempt);
    loop {
        // `biased`: a result that is ready takes precedence over the timeout.
        let deadline = progress.deadline(limit);
        tokio::select! {
            biased;
            output = &mut attempt => return Ok(output),
            () = tokio::time::sleep_until(deadline) => {
                // Progress during the sleep has moved the deadline.
                if progress.deadline(limit) <= Instant::now() {
                    return Err(progress.stalled());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(60);

    async fn sleep(seconds: u64) {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_attempt_that_never_asks_for_a_byte_ends_after_the_limit() {
        let (progress, start) = (Progress::new(), Instant::now());
        let end = watch(&progress, LIMIT, std::future::pending::<()>()).await;
        assert_eq!(end.unwrap_err().phase, Phase::Starting);
        assert_eq!(start.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_attempt_that_moves_is_left_alone() {
        let progress = Progress::new();
        let attempt = async {
            for _ in 0..100 {
                sleep(59).await;
                progress.taken(1);
            }
        };
        assert_eq!(watch(&progress, LIMIT, attempt).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_in_the_pacer_is_progress_and_standing_still_afterwards_is_not() {
        let (progress, start) = (Progress::new(), Instant::now());
        let attempt = async {
            progress.touch();
            let pause = progress.paced();
            sleep(3600).await;
            drop(pause);
            progress.taken(5);
            std::future::pending::<()>().await;
        };
        let stalled = watch(&progress, LIMIT, attempt).await.unwrap_err();
        assert_eq!(stalled.phase, Phase::Sending(5));
        assert!(start.elapsed() >= Duration::from_secs(3660) && start.elapsed() <= Duration::from_secs(3720));
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_never_answers_is_given_up_and_paced_time_earns_no_extra_patience() {
        let (progress, start) = (Progress::new(), Instant::now());
        let attempt = async {
            progress.touch();
            let pause = progress.paced();
            sleep(1000).await;
            drop(pause);
            progress.taken(9);
            progress.all_taken();
            std::future::pending::<()>().await;
        };
        let stalled = watch(&progress, LIMIT, attempt).await.unwrap_err();
        assert_eq!(
            stalled,
            Stalled {
                idle: LIMIT,
                phase: Phase::Answer
            }
        );
        assert_eq!(start.elapsed(), Duration::from_secs(1060));
    }

    #[tokio::test(start_paused = true)]
    async fn the_answer_may_take_as_long_again_as_a_slow_link_took_to_send() {
        let progress = Progress::new();
        let attempt = async {
            progress.touch();
            sleep(50).await;
            progress.taken(9);
            progress.all_taken();
            sleep(100).await;
        };
        assert_eq!(watch(&progress, LIMIT, attempt).await, Ok(()));
    }

    #[tokio::test(start_paused = true)]
    async fn no_limit_means_no_limit() {
        let progress = Progress::new();
        assert_eq!(watch(&progress, Duration::ZERO, sleep(1_000_000)).await, Ok(()));
        assert_eq!(watch(&progress, Duration::MAX, sleep(1_000_000)).await, Ok(()));
    }
}
