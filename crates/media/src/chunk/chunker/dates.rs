//! When a unit and the chunk that it begins were captured.
//!
//! PURE.

use super::open::FirstUnit;
use super::{ChunkState, Chunker};
use crate::chunk::Event;
use crate::chunk::clock::Stamp;
use crate::container::{Key, Track, Unit};

/// A sample whose buffer has not come. Its unit came earlier: a `moof` precedes its samples.
#[derive(Clone, Copy, Debug)]
pub(super) struct AwaitedSample {
    /// Offset in the input.
    at: u64,
    /// Time of the unit.
    pts: Option<u64>,
}

impl Chunker {
    /// Returns the stamp of the unit at `at`: that of the buffer in which it begins. If that one has no time, as `moof` and the
    /// header of `mdat` in buffers of their own (`mp4mux`), the time is that of the buffer in which the unit's sample begins.
    pub(super) fn stamp_of(&self, at: u64, unit: &Unit) -> Stamp {
        let stamp = self.undecided.stamp_at(at);
        let has_come = |&sample: &u64| sample > at && sample < self.undecided.bytes.end();
        match unit.sample_at.filter(has_come).filter(|_| lacks_time(&stamp)) {
            Some(sample) => {
                let Stamp { running, reference, .. } = self.undecided.stamp_at(sample);
                Stamp {
                    running,
                    reference,
                    ..stamp
                }
            }
            None => stamp,
        }
    }

    /// Remembers where the sample of the unit at hand will come, if nothing else shows when it was captured.
    pub(super) fn await_sample(&mut self, unit: &Unit, stamp: &Stamp) {
        let end = self.undecided.bytes.end();
        let at = unit.sample_at.filter(|&at| at >= end && lacks_time(stamp));
        self.awaited_sample = at.map(|at| AwaitedSample { at, pts: unit.pts });
    }

    /// Corrects a guessed capture start once the sample of the last unit has come.
    #[inline]
    pub(super) fn take_awaited_sample(&mut self) {
        let end = self.undecided.bytes.end();
        let Some(sample) = self.awaited_sample.take_if(|sample| sample.at < end) else {
            return;
        };
        let stamp = self.undecided.stamp_at(sample.at);
        if let ChunkState::Open(open) = &mut self.state {
            open.correct_start(&mut self.clock, sample.pts, &stamp);
        }
    }

    /// Dates the open chunk by its first picture, and reports the chunk before, which lasts until then.
    pub(super) fn date_chunk(&mut self, at: u64, unit: &Unit, container_pts: Option<u64>, stamp: Stamp, events: &mut Vec<Event>) {
        let (mut utc, clock) = self.clock.utc(&stamp, unit.pts);
        if unit.pts.is_none() {
            utc = self.start_without_time(utc);
        }
        let before = self.closing.chunk.as_ref().filter(|_| unit.pts.is_none());
        let after = before.map_or(0, |(open, _)| open.end(self.closing.usual_frame));
        let ChunkState::Open(open) = &mut self.state else { return };
        open.after = after;
        open.first = Some(FirstUnit {
            at,
            // In a stream of no known format every unit is a place to cut, but none is known to be decodable.
            key: if unit.track == Track::Other { Key::No } else { unit.key },
            pts: unit.pts,
            container_pts,
            utc,
            clock,
        });
        // Arrival and running time count from this unit, not from the header before it.
        open.stamp = stamp;
        open.is_provisional = self.clock.is_provisional(&stamp);
        self.finish_closing(unit.pts, events);
        if !unit.key.is_key() {
            // The chunk does not play from its start: cut at the next key unit.
            self.next.cut_from.get_or_insert(at);
        }
    }

    /// Returns the start of a chunk without a time of its own that arrived at `arrival`, UTC in ns. If the source is not live,
    /// this is the end of the previous chunk, which may be hours ahead of arrival.
    pub(super) fn start_without_time(&self, arrival: u64) -> u64 {
        let before = match &self.closing.chunk {
            // Not a chunk that no unit has dated: `info` would call this function for its start again.
            Some((open, at)) if open.dated_by().is_some() => {
                let info = self.info(open, *at, None);
                Some((self.closing.end_of(&info), open.begins().is_some()))
            }
            _ => self.closing.last_end,
        };
        match before {
            Some((end, true)) if !self.clock.is_live() => end,
            // That end was computed from arrival too: take the later of the two, so that chunks do not overlap.
            Some((end, false)) => end.max(arrival),
            _ => arrival,
        }
    }
}

fn lacks_time(stamp: &Stamp) -> bool {
    stamp.running.is_none() && stamp.reference.is_none()
}
