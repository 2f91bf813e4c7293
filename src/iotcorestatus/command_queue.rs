//! Commands on their way to the gcssinks: sent downstream one after the other as the custom event `gcssink-command`.
//!
//! They are sent from GStreamer's thread pool, because downstream may block an event for any length of time.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use gst::glib;
use gst::prelude::*;

use super::commands::Action;
use super::downstream::SinkList;
use super::inbox::MAX_WAITING;
use super::report::{Answer, Event};
use crate::base::lock::lock;
use gcstreamer_schema::structures::command;

/// Receives the outcome of a command. Called from GStreamer's thread pool.
type OnOutcome = Box<dyn Fn(Vec<Event>) + Send + Sync>;

/// The commands of one session.
pub(super) struct CommandQueue {
    element: glib::WeakRef<gst::Element>,
    src: glib::WeakRef<gst::Pad>,
    sinks: Arc<SinkList>,
    on_outcome: OnOutcome,
    pending: Mutex<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    commands: VecDeque<(Action, Answer)>,
    /// A thread of the pool is sending them.
    is_sending: bool,
}

impl CommandQueue {
    /// Creates a queue that sends through `src`, the source pad of `element`.
    pub(super) fn new(
        element: &gst::Element,
        src: &gst::Pad,
        sinks: Arc<SinkList>,
        on_outcome: impl Fn(Vec<Event>) + Send + Sync + 'static,
    ) -> Self {
        Self {
            element: element.downgrade(),
            src: src.downgrade(),
            sinks,
            on_outcome: Box::new(on_outcome),
            pending: Mutex::default(),
        }
    }

    /// Appends a command; `answer` is completed with its outcome.
    ///
    /// # Errors
    /// Returns the answer to send at once if too many commands wait.
    pub(super) fn enqueue(self: &Arc<Self>, action: Action, answer: Answer) -> Result<(), Answer> {
        let Some(element) = self.element.upgrade() else {
            // The status that would carry the answer is gone with the element.
            return Ok(());
        };
        let mut pending = lock(&self.pending);
        if pending.commands.len() >= MAX_WAITING {
            let msg = Some("too many commands wait for the pipeline to accept them".to_owned());
            return Err(Answer { msg, ..answer });
        }
        pending.commands.push_back((action, answer));
        if std::mem::replace(&mut pending.is_sending, true) {
            return Ok(());
        }
        drop(pending);
        let queue = Arc::clone(self);
        element.call_async(move |_| queue.send_all());
        Ok(())
    }

    fn send_all(&self) {
        loop {
            let next = {
                let mut pending = lock(&self.pending);
                let next = pending.commands.pop_front();
                // Cleared under the lock of the pop: a command that is enqueued afterwards starts another thread.
                pending.is_sending = next.is_some();
                next
            };
            let Some((action, answer)) = next else { return };
            let outcome = self.send(action, &answer);
            let mut events = Vec::new();
            if outcome.is_ok() && matches!(action, Action::RecordStart | Action::RecordStop) {
                events.push(Event::Record(action == Action::RecordStart));
            }
            events.push(Event::Answer(Answer {
                ok: outcome.is_ok(),
                msg: outcome.err().map(str::to_owned),
                ..answer
            }));
            (self.on_outcome)(events);
        }
    }

    fn send(&self, action: Action, answer: &Answer) -> Result<(), &'static str> {
        const REFUSED: &str = "the pipeline does not accept the command now: it is stopping, flushing or at EOS";
        // A sink may have been plugged in or taken out since the last walk.
        self.sinks.refresh();
        if !self.sinks.takes_commands() {
            return Err("there is no gcssink downstream of iotcorestatus in this pipeline");
        }
        let structure = gst::Structure::builder(command::NAME)
            .field(command::COMMAND, action.name())
            .field(command::ID, answer.id.as_deref().unwrap_or_default())
            .build();
        // The recording state must also reach sinks that appear later, such as those of the next fragments of a splitmuxsink.
        let event = match action {
            Action::RecordStart | Action::RecordStop => gst::event::CustomDownstreamSticky::new(structure),
            Action::Split | Action::Report => gst::event::CustomDownstream::new(structure),
        };
        let is_accepted = self.src.upgrade().is_some_and(|src| src.push_event(event));
        is_accepted.then_some(()).ok_or(REFUSED)
    }
}
