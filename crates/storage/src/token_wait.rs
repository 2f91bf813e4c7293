//! Limits the wait for a token.
//!
//! The client crate fetches tokens in a task of its own and without a timeout. A single request that is never answered blocks all
//! callers that need a token, later ones included, until another client is built.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

/// Timeout for an answer of the token server. Independent of `request-timeout`: if that is shorter and ends the attempt, the
/// token still arrives and serves the next attempt.
pub(crate) const TOKEN_LIMIT: Duration = Duration::from_secs(30);

/// Start of the current wait for a token. A caller may give up early, so the time counts from the first caller that got no
/// answer.
#[derive(Debug, Default)]
pub(crate) struct TokenWait(Mutex<Option<Instant>>);

/// No answer came within [`TOKEN_LIMIT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoAnswer;

impl TokenWait {
    /// Waits for the answer of `call`, a success or an error, at most [`TOKEN_LIMIT`].
    pub(crate) async fn answer<F: Future>(&self, call: F) -> Result<F::Output, NoAnswer> {
        self.since().get_or_insert_with(Instant::now);
        let answer = timeout(TOKEN_LIMIT, call).await.map_err(|_| NoAnswer)?;
        *self.since() = None;
        Ok(answer)
    }

    /// Returns whether no answer has arrived for [`TOKEN_LIMIT`]. None will arrive, so another client must be built.
    pub(crate) fn is_over(&self) -> bool {
        self.since().is_some_and(|since| since.elapsed() >= TOKEN_LIMIT)
    }

    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn those_who_give_up_early_wait_together_as_long_as_one_who_does_not() {
        let wait = TokenWait::default();
        let began = Instant::now();
        let short = Duration::from_secs(7);
        while !wait.is_over() {
            assert!(timeout(short, wait.answer(pending::<()>())).await.is_err());
        }
        assert!(began.elapsed() >= TOKEN_LIMIT && began.elapsed() < TOKEN_LIMIT + short);
        let wait = TokenWait::default();
        assert_eq!(wait.answer(pending::<()>()).await, Err(NoAnswer));
        assert!(wait.is_over());
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_begins_the_time_again() {
        let wait = TokenWait::default();
        assert!(timeout(TOKEN_LIMIT / 2, wait.answer(pending::<()>())).await.is_err());
        assert_eq!(wait.answer(ready(5)).await, Ok(5));
        tokio::time::sleep(TOKEN_LIMIT).await;
        assert!(!wait.is_over());
    }
}
