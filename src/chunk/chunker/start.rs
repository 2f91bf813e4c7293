//! From the first byte, or from a pause, to a chunk.

use super::cuts::Cut;
use super::{Chunker, State, elapsed};
use crate::chunk::clock::Stamp;
use crate::chunk::{Event, GapReason, Warning};
use crate::container::{Init, Track, Unit};

/// What was left out before the first key unit.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dropping {
    pub(super) reason: GapReason,
    pub(super) start: u64,
    pub(super) pts: Option<u64>,
    pub(super) bytes: u64,
    /// Bytes of the head among them, which the next chunk has in front.
    pub(super) head: u64,
}

impl Dropping {
    /// As an event, with the last `bytes` of it.
    pub(super) fn into_gap(self, bytes: u64, duration: u64) -> Event {
        Event::Gap {
            reason: self.reason,
            start: self.start,
            duration,
            bytes: (self.bytes + bytes).saturating_sub(self.head),
        }
    }
}

impl Chunker {
    /// The first unit after a chunk was closed for want of data.
    pub(super) fn unit_while_idle(&mut self, at: u64, unit: &Unit, stamp: Stamp, events: &mut Vec<Event>) {
        let from = self.stash.base();
        if at > from && !std::mem::take(&mut self.closed_whole) {
            // The rest of a unit that was torn by the close: no chunk that plays can begin with it.
            self.begin(from, self.last_init.clone(), stamp, events);
            match &unit.init {
                Some(init) if unit.key.is_key() => self.cut(Cut::Key, at, init.clone(), stamp, events),
                _ => {}
            }
        } else {
            let init = unit.init.clone().unwrap_or_else(|| self.last_init.clone());
            self.begin(from, init, stamp, events);
        }
    }

    pub(super) fn unit_while_waiting(&mut self, at: u64, unit: &Unit, stamp: Stamp, events: &mut Vec<Event>) {
        if self.stopped {
            return;
        }
        let patience = self.limits.patience();
        let hard = self.limits.hard;
        let held = at - self.stash.base();
        if unit.new_codec_config && self.armed.is_some() {
            self.begin_before_head(at, unit, stamp, events);
        }
        let State::Waiting { first, since, dropping } = &mut self.state else {
            return;
        };
        let since = *since.get_or_insert(stamp);
        if first.is_none()
            && let Some(init) = &unit.init
        {
            *first = Some((at, init.clone()));
        }
        let waited = elapsed(&since, &stamp);
        let too_long = waited >= patience || (hard > 0 && held >= hard);
        if !unit.key.is_key() && !too_long {
            if unit.track == Track::Video {
                let pts = unit.pts;
                let start = self.clock.utc(&stamp, pts).0;
                let head = first.as_ref().map_or(0, |(at, _)| at - self.stash.base().min(*at));
                let gap = dropping.get_or_insert(Dropping {
                    reason: GapReason::Start,
                    start,
                    pts,
                    bytes: 0,
                    head,
                });
                // The first picture may lack its beginning, and its time with that.
                gap.pts = gap.pts.or(pts);
            }
            return;
        }
        let (from, init) = match (&dropping, &first, &unit.init) {
            (None, Some((first_at, first_init)), _) => (*first_at, first_init.clone()),
            (Some(_), _, Some(here)) => (at, here.clone()),
            // No chunk can begin here: at the next.
            _ => return,
        };
        let dropped = dropping.take();
        if !unit.key.is_key() {
            self.warn(Warning::NoKeyUnit { waited, interval: None }, events);
        }
        let bytes = self.stash.drop_below(from);
        events.push(Event::Discard(bytes));
        if let Some(gap) = dropped {
            let duration = match gap.reason {
                GapReason::RecordStopped => self.clock.peek(&stamp).0.saturating_sub(gap.start),
                _ => unit.pts.zip(gap.pts).map_or(waited, |(b, a)| b.saturating_sub(a)),
            };
            events.push(gap.into_gap(bytes, duration));
        } else if bytes > init.len() as u64 {
            // The head is the init of the first unit, save where another head has taken its place before anything came.
            let superseded = Dropping {
                reason: GapReason::Start,
                start: self.clock.utc(&stamp, unit.pts).0,
                pts: None,
                bytes: 0,
                head: 0,
            };
            events.push(superseded.into_gap(bytes - init.len() as u64, 0));
        }
        self.begin(from, init, stamp, events);
    }

    /// A head after damage: what came before it cannot be told with it, and is stored as a chunk of its own.
    fn begin_before_head(&mut self, at: u64, unit: &Unit, stamp: Stamp, events: &mut Vec<Event>) {
        let State::Waiting {
            first, dropping: None, ..
        } = &mut self.state
        else {
            return;
        };
        let Some((from, init)) = first.take().filter(|(from, _)| *from < at) else {
            return;
        };
        let here = unit.init.clone().unwrap_or_default();
        let before = self.stamp_at(from);
        let head = self.stash.drop_below(from);
        events.push(Event::Discard(head));
        self.begin(from, init, before, events);
        self.gap = Some(GapReason::Damage);
        self.cut(Cut::CodecConfig, at, here, stamp, events);
    }

    /// Begins a chunk with all that is held, though no key unit has come.
    pub(super) fn begin_without_key(&mut self, events: &mut Vec<Event>) {
        let base = self.stash.base();
        let first = match &mut self.state {
            State::Waiting { first, .. } => first.take(),
            _ => return,
        };
        let stamp = self.stamp_at(base);
        let waited = elapsed(&stamp, &self.stamps.back().map_or(stamp, |s| s.1));
        self.warn(Warning::NoKeyUnit { waited, interval: None }, events);
        let (from, init) = first.unwrap_or((base, Init::default()));
        let head = self.stash.drop_below(from);
        events.push(Event::Discard(head));
        self.begin(from, init, stamp, events);
        if let State::Open(open) = &mut self.state {
            open.any_track = true;
        }
    }
}
