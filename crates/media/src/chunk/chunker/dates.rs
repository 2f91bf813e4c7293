//! When a unit and the chunk that it begins were captured.
//!
//! PURE.

use super::open::FirstUnit;
use super::{ChunkState, Chunker};
use crate::chunk::Event;
use crate::chunk::clock::Stamp;
use crate::container::{Key, Track, Unit};

/// A sample whose buffer has not come: its unit was announced before.
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
            // Of bytes that are no known stream every unit is a place to cut, and nothing that can be decoded.
            key: if unit.track == Track::Other { Key::No } else { unit.key },
            pts: unit.pts,
            container_pts,
            utc,
            clock,
        });
        // From here on, not from the header in front, arrival and running time count.
        open.stamp = stamp;
        open.is_provisional = self.clock.is_provisional(&stamp);
        self.finish_closing(unit.pts, events);
        if !unit.key.is_key() {
            // It does not play from its start: the next one should begin as soon as it can.
            self.next.cut_from.get_or_insert(at);
        }
    }

    /// Returns where a chunk starts that has no time of its own and arrived at `arrival`, UTC in ns: in a file where the one
    /// before ended, which may be hours ahead of arrival.
    pub(super) fn start_without_time(&self, arrival: u64) -> u64 {
        let before = match &self.closing.chunk {
            // One that no unit has dated would ask here again where it starts.
            Some((open, at)) if open.dated_by().is_some() => {
                let info = self.info(open, *at, None);
                Some((self.closing.end_of(&info), open.begins().is_some()))
            }
            _ => self.closing.last_end,
        };
        match before {
            Some((end, true)) if !self.clock.is_live() => end,
            // That end was itself reckoned by arrival: the later of the two, so that chunks do not overlap.
            Some((end, false)) => end.max(arrival),
            _ => arrival,
        }
    }
}

fn lacks_time(stamp: &Stamp) -> bool {
    stamp.running.is_none() && stamp.reference.is_none()
}
