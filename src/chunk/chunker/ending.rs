//! Idle, stopped, at the end.

use super::start::Dropping;
use super::{Chunker, State};
use crate::chunk::{Event, GapReason};
use crate::container::Fault;

impl Chunker {
    /// Nothing came for [`Limits::idle`], or the pipeline has been paused that long: the open chunk is closed.
    pub fn close_idle(&mut self, events: &mut Vec<Event>) {
        if self.limits.single {
            return;
        }
        if let (State::Open(_), Some(settled)) = (&self.state, self.scanner.as_ref().map(|s| s.settled())) {
            self.close(settled, events);
            self.finish_closing(None, events);
            self.gap = self.gap.or(Some(GapReason::Stalled));
        }
    }

    /// Stops or starts recording. Stopped: the open chunk is closed with the last whole unit, and what comes is let go of as
    /// a gap, until recording starts and a key unit comes.
    pub fn record(&mut self, on: bool, events: &mut Vec<Event>) {
        if on != self.stopped {
            return;
        }
        self.stopped = !on;
        if on {
            return;
        }
        if let (State::Open(_), Some(settled)) = (&self.state, self.scanner.as_ref().map(|s| s.settled())) {
            self.close(settled, events);
            self.finish_closing(None, events);
        }
        let start = self.stamps.back().map_or(0, |(_, stamp)| self.clock.peek(stamp).0);
        self.state = State::Waiting {
            first: None,
            since: None,
            dropping: Some(Dropping {
                reason: GapReason::RecordStopped,
                start,
                pts: None,
                bytes: 0,
            }),
        };
        self.gap = Some(GapReason::RecordStopped);
    }

    /// Whether recording is stopped.
    pub fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// The stream has ended: all that is left goes into the open chunk, which is closed.
    ///
    /// # Errors
    /// [`Fault`] where the container turns out to be one that cannot be cut.
    pub fn finish(&mut self, events: &mut Vec<Event>) -> Result<(), Fault> {
        let mut outcome = Ok(());
        if self.scanner.is_none() && !self.probe.is_empty() {
            outcome = self.detect(true, events);
        }
        if let Some(scanner) = &mut self.scanner {
            let mut marks = Vec::new();
            scanner.finish(&mut marks);
            for mark in marks {
                self.mark(mark, events);
            }
        }
        let end = self.stash.end();
        if let State::Waiting { first, dropping, .. } = &mut self.state {
            let gap = dropping.take();
            if let (None, Some((from, init))) = (gap, first.take()) {
                let stamp = self.stamp_at(from);
                let head = self.stash.drop_below(from);
                events.push(Event::Discard(head));
                self.begin(from, init, stamp, events);
            } else {
                let rest = self.stash.drop_below(end);
                events.push(Event::Discard(rest));
                events.extend(gap.map(|gap| gap.told(rest, 0)));
            }
        } else if matches!(self.state, State::Idle) && self.is_holding() {
            let from = self.stash.base();
            let stamp = self.stamp_at(from);
            self.begin(from, self.last_init.clone(), stamp, events);
        }
        self.close(end, events);
        self.finish_closing(None, events);
        outcome
    }
}
