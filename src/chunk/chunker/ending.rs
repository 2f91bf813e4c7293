//! Idle, stopped, at the end.

use super::open::LastUnit;
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
        if matches!(self.state, State::Open(_)) {
            self.torn = self.close_whole(events);
            self.gap = self.gap.or(Some(GapReason::Stalled));
        }
    }

    /// Closes the open chunk behind its last whole unit, as far as the beginning of the next is still here; that is returned.
    fn close_whole(&mut self, events: &mut Vec<Event>) -> Option<LastUnit> {
        let (State::Open(open), Some(scanner)) = (&mut self.state, &self.scanner) else {
            return None;
        };
        let settled = scanner.settled();
        let whole = scanner.whole();
        // A chunk of nothing but what goes before its first picture helps nobody.
        let is_worth_it = whole >= self.stash.base() && open.begin.is_some_and(|begin| begin.at < whole);
        self.closed_whole = whole < settled && is_worth_it;
        let mut torn = None;
        if self.closed_whole {
            torn = self.last.take_if(|last| last.at == whole);
            if torn.is_some() {
                (open.video, open.audio) = open.before_last;
            }
        }
        self.close(if self.closed_whole { whole } else { settled }, events);
        self.finish_closing(None, events);
        torn
    }

    /// Something comes again: the unit that was in progress begins the next chunk.
    pub(super) fn resume(&mut self, events: &mut Vec<Event>) {
        let Some(last) = self.torn.take().filter(|_| matches!(self.state, State::Idle)) else {
            return;
        };
        self.unit_while_idle(last.at, &last.unit, last.stamp, events);
        self.account(last.at, &last.unit, last.container_pts, last.stamp, events);
        if let (State::Open(open), true) = (&mut self.state, last.unit.key.is_key()) {
            open.preview_end = last.picture_end;
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
        self.close_whole(events);
        self.torn = None;
        let start = self.stamps.back().map_or(0, |(_, stamp)| self.clock.peek(stamp).0);
        self.state = State::Waiting {
            first: None,
            since: None,
            dropping: Some(Dropping {
                reason: GapReason::RecordStopped,
                start,
                pts: None,
                bytes: 0,
                head: 0,
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
        self.resume(events);
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
            // Where no chunk follows the head is lost too.
            let gap = dropping.take().map(|gap| Dropping { head: 0, ..gap });
            if let (None, Some((from, init))) = (gap, first.take()) {
                let stamp = self.stamp_at(from);
                let head = self.stash.drop_below(from);
                events.push(Event::Discard(head));
                self.begin(from, init, stamp, events);
            } else {
                let rest = self.stash.drop_below(end);
                events.push(Event::Discard(rest));
                let gap = gap.or_else(|| self.never_begun());
                events.extend(gap.filter(|gap| gap.bytes + rest > 0).map(|gap| gap.into_gap(rest, 0)));
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

    /// What is let go of where nothing came that a chunk could begin with.
    fn never_begun(&self) -> Option<Dropping> {
        let stamp = self.stamps.front()?.1;
        Some(Dropping {
            reason: self.gap.unwrap_or(GapReason::Start),
            start: self.clock.peek(&stamp).0,
            pts: None,
            bytes: 0,
            head: 0,
        })
    }
}
