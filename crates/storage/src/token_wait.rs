//! How long a token is waited for.
//!
//! The client crate fetches tokens in a task of its own and without a time limit. A single request that is never answered holds up all who
//! need a token, also those who come later, until another client is built.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, timeout};

/// How long a token server may take to answer. Independent of `request-timeout`: a server that is slower than that gives its token to the
/// next attempt.
pub(crate) const TOKEN_LIMIT: Duration = Duration::from_secs(30);

/// Since when a token is waited for. Those who wait may give up early, so the time counts from the first who waited in vain.
#[derive(Debug, Default)]
pub(crate) struct TokenWait(Mutex<Option<Instant>>);

/// No answer came within [`TOKEN_LIMIT`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NoAnswer;

impl TokenWait {
    /// Waits for an answer, whatever it is, at most [`TOKEN_LIMIT`].
    pub(crate) async fn answer<F: Future>(&self, call: F) -> Result<F::Output, NoAnswer> {
        self.since().get_or_insert_with(Instant::now);
        let answer = timeout(TOKEN_LIMIT, call).await.map_err(|_| NoAnswer)?;
        *self.since() = None;
        Ok(answer)
    }

    /// Returns whether no answer has come for [`TOKEN_LIMIT`]: none will, and whoever needs one has to ask anew.
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
    async fn an_answer_begins_the_time_anew() {
        let wait = TokenWait::default();
        assert!(timeout(TOKEN_LIMIT / 2, wait.answer(pending::<()>())).await.is_err());
        assert_eq!(wait.answer(ready(5)).await, Ok(5));
        tokio::time::sleep(TOKEN_LIMIT).await;
        assert!(!wait.is_over());
    }
}
