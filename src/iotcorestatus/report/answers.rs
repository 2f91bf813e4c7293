//! The answers to commands: each is published in a status of its own, even if the commands arrive together.

use std::collections::VecDeque;

use super::event::Answer;

/// Maximum number of waiting answers; more drop the oldest.
pub(super) const MAX_ANSWERS: usize = 64;

/// Answers in the order of their commands.
#[derive(Clone, Debug)]
pub(super) struct Answers {
    /// The last one published; every status repeats it.
    current: Option<Answer>,
    waiting: VecDeque<Answer>,
    /// The link has published everything: a new status does not replace one that still waits with its answer.
    link_settled: bool,
}

impl Default for Answers {
    fn default() -> Self {
        Self {
            current: None,
            waiting: VecDeque::new(),
            link_settled: true,
        }
    }
}

impl Answers {
    pub(super) fn push(&mut self, answer: Answer) {
        if self.waiting.len() >= MAX_ANSWERS {
            self.waiting.pop_front();
        }
        self.waiting.push_back(answer);
    }

    pub(super) fn set_link_settled(&mut self, settled: bool) {
        self.link_settled = settled;
    }

    /// Returns how many answers wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    /// Returns whether an answer can be published now.
    pub(super) fn is_due(&self) -> bool {
        self.link_settled && !self.waiting.is_empty()
    }

    /// Returns whether the answer that can be published now goes with the bare state.
    pub(super) fn asks_for_state(&self) -> bool {
        self.is_due() && self.waiting.front().is_some_and(|answer| answer.repeats_state)
    }

    /// Moves to the next answer, if one can be published now.
    pub(super) fn advance(&mut self) {
        if self.link_settled
            && let Some(answer) = self.waiting.pop_front()
        {
            self.current = Some(answer);
        }
    }

    /// Returns the answer for the current status.
    pub(super) fn current(&self) -> Option<&Answer> {
        self.current.as_ref()
    }
}
