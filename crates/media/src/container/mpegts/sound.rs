//! Which sound counts, and sound whose PES packet is still open where a key frame begins.
//!
//! PURE. A chunk that began at the picture would tear that packet: a decoder warns of both parts. Where nothing
//! of another picture lies in between, the chunk begins with the packet of sound instead.

use super::super::{MarkKind, Track};
use super::reorder::{Kinds, Reorder, Slot};
use super::stream::Kind;
use super::tables::StartPoint;
use super::units::{Stream, Units};
use crate::container::Mark;

/// PES packets of other sound after which the sound that counts is taken to have stopped.
const MOST_OTHER_SOUND: u32 = 256;

/// A PES packet of sound that has not ended, and behind which only tables came.
#[derive(Debug)]
pub(super) struct OpenSound {
    /// Index of its stream.
    index: usize,
    /// Bytes that are to come.
    left: usize,
    slot: Slot,
    kinds: Kinds,
    place: StartPoint,
}

/// Where the marks of a picture go.
pub(super) enum Target {
    /// To an offset of their own.
    At(u64),
    /// To a slot that is reserved.
    Slot(Slot),
}

impl Units {
    /// Emits the marks of a PES packet of sound, once it has ended or something else begins. `payload` is what is there of it.
    pub(super) fn put_sound(
        &mut self,
        index: usize,
        payload: &[u8],
        (place, kinds): (StartPoint, Kinds),
        out: &mut Reorder,
        marks: &mut Vec<Mark>,
    ) {
        match bytes_left(payload) {
            0 => out.put(place.at, kinds, marks),
            left => {
                let slot = out.reserve(place.at);
                self.sound = Some(OpenSound {
                    index,
                    left,
                    slot,
                    kinds,
                    place,
                });
            }
        }
    }

    /// A packet that begins nothing goes on with a stream.
    pub(super) fn pass_sound(&mut self, index: usize, payload: &[u8], out: &mut Reorder, marks: &mut Vec<Mark>) {
        if let Some(sound) = &mut self.sound {
            sound.left = sound.left.saturating_sub(payload.len());
            // With other bytes in between no chunk may begin in front of the sound: it would open with the rest of a picture.
            if sound.index != index || sound.left == 0 {
                self.flush_sound(out, marks);
            }
        }
    }

    /// No key frame follows: emits the marks of open sound where it begins.
    pub(super) fn flush_sound(&mut self, out: &mut Reorder, marks: &mut Vec<Mark>) {
        if let Some(sound) = self.sound.take() {
            out.decide(sound.slot, sound.kinds, marks);
        }
    }

    /// Whether a PES packet of that stream of sound is one of the sound that counts: another may have a clock of its own, and
    /// each change from one to the other would be a jump. Where it stops, another takes its place.
    pub(super) fn choose_sound(&mut self, index: usize, has_time: bool) -> bool {
        let pid = self.streams.get(index).map(Stream::pid);
        let is_there = self
            .streams
            .iter()
            .any(|stream| Some(stream.pid()) == self.sound_pid && self.is_sound(stream.kind));
        if is_there && pid != self.sound_pid {
            self.other_sound += 1;
        }
        if pid == self.sound_pid || !is_there || self.other_sound > MOST_OTHER_SOUND {
            self.other_sound = 0;
            // Without a time it is no sound to cut by yet: another may bring the times.
            self.sound_pid = if has_time || is_there { pid } else { self.sound_pid };
            return true;
        }
        false
    }

    /// Whether that is sound: without a known stream of video or sound, what is private (DTS as type 0x82, LATM without a
    /// descriptor, SMPTE 302M) is all that has times to cut by.
    pub(super) fn is_sound(&self, kind: Kind) -> bool {
        match kind {
            Kind::Audio(_) => true,
            Kind::Other => self
                .streams
                .iter()
                .all(|stream| matches!(stream.kind, Kind::Other | Kind::Sections)),
            _ => false,
        }
    }
}

impl OpenSound {
    pub(super) fn slot(&self) -> Slot {
        self.slot
    }

    /// Emits the marks of the picture behind it, in front of it if a chunk can begin with them.
    pub(super) fn put_picture(self, target: Target, mut kinds: Kinds, out: &mut Reorder, marks: &mut Vec<Mark>) {
        let key = kinds.iter_mut().flatten().find_map(|kind| match kind {
            MarkKind::Unit(unit) if unit.track == Track::Video && unit.key.is_key() => Some(unit),
            _ => None,
        });
        if let Some(unit) = key {
            // The chunk begins with the sound, so its header is the one of that place.
            if let Some(init) = &mut unit.init {
                init.head = self.place.head;
            }
            // The two change places: the chunk begins with the sound, and its unit is the picture.
            out.decide(self.slot, kinds, marks);
            match target {
                Target::At(_) => out.put(self.place.at, self.kinds, marks),
                Target::Slot(slot) => out.decide_at(slot, self.place.at, self.kinds, marks),
            }
            return;
        }
        out.decide(self.slot, self.kinds, marks);
        match target {
            Target::At(at) => out.put(at, kinds, marks),
            Target::Slot(slot) => out.decide(slot, kinds, marks),
        }
    }
}

/// Bytes of a PES packet that are to come behind `payload`; 0 if its length is not known.
fn bytes_left(payload: &[u8]) -> usize {
    match payload.get(4..6) {
        Some(&[high, low]) if high != 0 || low != 0 => {
            (6 + usize::from(u16::from_be_bytes([high, low]))).saturating_sub(payload.len())
        }
        _ => 0,
    }
}
