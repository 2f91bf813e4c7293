//! Sound whose pictures never come, or stop.
//!
//! PURE. A header may announce pictures that never come, and a camera may lose its picture and keep its sound. After
//! [`crate::chunk::Limits::patience`] of sound alone every unit of it is a key unit, as in a stream that announces no pictures.

use super::{ChunkState, Chunker, elapsed};
use crate::chunk::clock::Stamp;
use crate::chunk::{Event, Warning};
use crate::container::{Key, Track, Unit};

/// Most time that counts between two units of sound: 10 s. In a pause, or while upstream is blocked, time passes in which no
/// sound comes either.
const MAX_STEP: u64 = 10_000_000_000;

/// For how long sound has come without pictures.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AudioOnly {
    /// Time and stamp of the last unit of sound since the last picture.
    last: Option<(Option<u64>, Stamp)>,
    /// For how long it has come, ns.
    total: u64,
    /// `total` has reached [`crate::chunk::Limits::patience`].
    is_certain: bool,
}

impl Chunker {
    /// Makes a unit of sound a key unit once sound has come alone for the patience. The first picture afterwards requests a cut.
    pub(super) fn count_sound_alone(&mut self, at: u64, unit: &mut Unit, stamp: &Stamp, events: &mut Vec<Event>) {
        if unit.track == Track::Video {
            if std::mem::take(&mut self.sound).is_certain && self.has_begun() {
                self.next.cut_from.get_or_insert(at);
            }
            return;
        }
        // Sound of a stream that announces no pictures is key already.
        if unit.track != Track::Audio || unit.key.is_key() || self.limits.max_time == 0 || self.limits.single {
            return;
        }
        let step = self.sound.last.map_or(0, |(pts, last)| waited(pts, &last, unit, stamp));
        self.sound.last = Some((unit.pts, *stamp));
        self.sound.total = self.sound.total.saturating_add(step.min(MAX_STEP));
        let waited = self.sound.total;
        if !self.sound.is_certain && waited >= self.limits.patience() {
            self.sound.is_certain = true;
            self.warn(Warning::AudioOnly { waited }, events);
        }
        // Without a header no chunk could begin at it.
        if self.sound.is_certain && unit.init.is_some() {
            unit.key = Key::Closed;
        }
    }

    /// Makes the scanner decide about what it has held back for longer than the patience.
    pub(super) fn release_overdue(&mut self, stamp: &Stamp, events: &mut Vec<Event>) {
        let limits = self.limits;
        if limits.max_time == 0 || limits.single {
            return;
        }
        let Some(settled) = self.input.settled().filter(|&at| at < self.undecided.bytes.end()) else {
            return;
        };
        // Once sound is known to come alone, it is not held back for pictures at all.
        if !self.sound.is_certain && self.undecided.stamp_at(settled).arrived_before(stamp) < limits.patience() {
            return;
        }
        let mut marks = std::mem::take(&mut self.input.marks);
        if let Some(scanner) = &mut self.input.scanner {
            scanner.release(&mut marks);
        }
        self.apply(marks, events);
    }

    /// Returns whether the chunk has been open for the patience by arrival although its times (`elapsed`, ns) cover less, since
    /// they freeze or almost freeze. In a live stream arrival alone suffices at a key unit; elsewhere `elapsed` must be below a
    /// quarter of it, since a stall also makes arrival longer. In a stream that is not live it must be below a sixteenth: a slow
    /// sender, or our own uploads, are the likelier reason.
    pub(super) fn is_overdue(&self, stamp: &Stamp, elapsed: u64, is_key: bool) -> bool {
        let ChunkState::Open(open) = &self.state else { return false };
        let arrived = open.stamp.arrived_before(stamp);
        let is_slow = match (self.clock.is_live(), is_key) {
            (true, true) => true,
            (true, false) => elapsed.saturating_mul(4) < arrived,
            (false, _) => elapsed.saturating_mul(16) < arrived,
        };
        self.limits.max_time > 0 && arrived >= self.limits.patience() && is_slow
    }
}

/// Returns how long it is since a unit with that time and stamp, ns: by the times of the stream or by arrival, whichever is
/// longer.
pub(super) fn waited(pts: Option<u64>, since: &Stamp, unit: &Unit, stamp: &Stamp) -> u64 {
    let media = unit.pts.zip(pts).map_or(0, |(now, then)| now.saturating_sub(then));
    media.max(elapsed(since, stamp)).max(since.arrived_before(stamp))
}
