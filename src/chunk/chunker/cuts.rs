//! Where a chunk ends and the next begins.

use std::sync::Arc;

use super::open::OpenChunk;
use super::{Chunker, State, elapsed};
use crate::chunk::clock::Stamp;
use crate::chunk::frames::Frames;
use crate::chunk::{Event, GapReason, Warning};
use crate::container::{Init, Unit};

/// What decides that a chunk begins at a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    Key,
    Early,
    NoKey,
    CodecConfig,
}

impl Chunker {
    /// Whether a chunk begins at this unit, and with what in front.
    pub(super) fn decide(&mut self, at: u64, unit: &Unit, stamp: &Stamp, events: &mut Vec<Event>) -> Option<(Cut, Init)> {
        let resolution = self.scanner.as_ref().map_or(0, |s| s.resolution());
        let limits = self.limits;
        let State::Open(open) = &mut self.state else { return None };
        let init = unit.init.as_ref()?;
        let bytes = at - open.at + open.init_bytes;
        if limits.single {
            return None;
        }
        if unit.new_codec_config {
            if open.begin.is_some() {
                return Some((Cut::CodecConfig, init.clone()));
            }
            return None;
        }
        let begin = open.begin?;
        if at == open.at {
            return None;
        }
        let passed = match (begin.pts, unit.pts) {
            (Some(a), Some(b)) if b >= a => b - a,
            // Time went backwards: another time line, another chunk.
            (Some(a), Some(b)) if unit.key.is_key() && a - b > 1_000_000_000 => {
                self.clock.restart_media_time();
                u64::MAX
            }
            (Some(_), Some(_)) => 0,
            _ => elapsed(&open.stamp, stamp),
        };
        let is_due = self.armed.is_some_and(|offset| at >= offset)
            || passed == u64::MAX
            || (limits.max_bytes > 0 && bytes >= limits.max_bytes)
            || (limits.max_time > 0 && !limits.align && passed.saturating_add(resolution) >= limits.max_time)
            || (limits.max_time > 0 && limits.align && {
                // A start that a slewed clock puts a moment before a boundary belongs to that boundary.
                let tolerance = (limits.max_time / 8).min(250_000_000);
                let boundary = (begin.utc.saturating_add(tolerance) / limits.max_time + 1).saturating_mul(limits.max_time);
                self.clock.utc(stamp, unit.pts).0.saturating_add(resolution) >= boundary
            });
        let early = limits.soft > 0 && bytes >= limits.soft;
        if unit.key.is_key() {
            if early && !is_due {
                self.warn(Warning::EarlyCut { bytes, at_key: true }, events);
            }
            return (is_due || early).then(|| (Cut::Key, init.clone()));
        }
        if (is_due || early) && !open.asked_for_key {
            open.asked_for_key = true;
            events.push(Event::WantKeyUnit);
        }
        if limits.hard > 0 && bytes >= limits.hard {
            self.warn(Warning::EarlyCut { bytes, at_key: false }, events);
            return Some((Cut::Early, init.clone()));
        }
        if limits.max_time > 0 && passed != u64::MAX && passed >= limits.patience() {
            self.warn(
                Warning::NoKeyUnit {
                    waited: passed,
                    interval: self.key_interval,
                },
                events,
            );
            return Some((Cut::NoKey, init.clone()));
        }
        None
    }

    pub(super) fn cut(&mut self, cut: Cut, at: u64, init: Init, stamp: Stamp, events: &mut Vec<Event>) {
        self.close(at, events);
        if cut == Cut::Early {
            self.gap = self.gap.or(Some(GapReason::EarlyCut));
        }
        self.begin(at, init, stamp, events);
        if let (State::Open(open), Cut::Early | Cut::NoKey) = (&mut self.state, cut) {
            open.any_track = true;
        }
    }

    /// Ends the open chunk at `at`; its length becomes known later.
    pub(super) fn close(&mut self, at: u64, events: &mut Vec<Event>) {
        self.hand_over(at, false, events);
        if let State::Open(open) = std::mem::replace(&mut self.state, State::Idle) {
            self.finish_closing(None, events);
            self.closing = Some((open, at));
        }
    }

    pub(super) fn begin(&mut self, at: u64, init: Init, stamp: Stamp, events: &mut Vec<Event>) {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        self.armed = self.armed.filter(|&offset| offset > at);
        let step = if sequence == self.first_sequence {
            None
        } else {
            self.clock.compare(&self.stamps.back().map_or(stamp, |s| s.1))
        };
        let init_bytes = init.len() as u64;
        self.state = State::Open(Box::new(OpenChunk {
            sequence,
            at,
            init_bytes,
            gap: self.gap.take(),
            clock_step_ms: step,
            stamp,
            begin: None,
            preview_end: None,
            video: Frames::default(),
            audio: Frames::default(),
            before_last: <(Frames, Frames)>::default(),
            info: Arc::clone(&init.info),
            asked_for_key: false,
            provisional: false,
            any_track: false,
        }));
        events.push(Event::Begin { sequence, at, init });
    }

    /// Cuts where no unit begins. What is closed is not kept waiting for a picture that may never come.
    pub(super) fn cut_anywhere(&mut self, at: u64, events: &mut Vec<Event>) {
        let stamp = self.stamp_at(at);
        self.cut(Cut::Early, at, self.last_init.clone(), stamp, events);
        self.finish_closing(None, events);
        self.armed = Some(at);
    }

    /// The memory is full and holds nothing but the open chunk: it is closed here and now.
    pub fn make_room(&mut self, events: &mut Vec<Event>) {
        let Some(settled) = self.scanner.as_ref().map(|s| s.settled()) else {
            return;
        };
        if matches!(self.state, State::Waiting { dropping: None, .. }) {
            self.begin_without_key(events);
        }
        if let State::Open(open) = &self.state
            && !self.limits.single
        {
            let bytes = settled - open.at + open.init_bytes;
            self.warn(Warning::EarlyCut { bytes, at_key: false }, events);
            self.cut_anywhere(settled, events);
        }
    }

    pub(super) fn hand_over(&mut self, below: u64, only_finished: bool, events: &mut Vec<Event>) {
        let State::Open(open) = &self.state else { return };
        let sequence = open.sequence;
        let mut pieces = Vec::new();
        if only_finished {
            self.stash.take_finished_below(below, &mut pieces);
        } else {
            self.stash.take_below(below, &mut pieces);
        }
        events.extend(pieces.into_iter().map(|bytes| Event::Data { sequence, bytes }));
    }
}
