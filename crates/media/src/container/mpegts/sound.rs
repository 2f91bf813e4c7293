//! Sound whose PES packet is still open where a key picture begins.
//!
//! PURE. A chunk that began at the picture would tear that packet: a decoder warns of both parts. Where nothing
//! of another picture lies in between, the chunk begins with the packet of sound instead.

use super::super::{MarkKind, Track};
use super::reorder::{Kinds, Reorder, Slot};
use super::tables::StartPoint;
use super::units::Units;
use crate::container::Mark;

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
            if sound.index != index || sound.left == 0 {
                self.flush_sound(out, marks);
            }
        }
    }

    /// No key picture follows: emits the marks of open sound where it begins.
    pub(super) fn flush_sound(&mut self, out: &mut Reorder, marks: &mut Vec<Mark>) {
        if let Some(sound) = self.sound.take() {
            out.decide(sound.slot, sound.kinds, marks);
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
            if let Some(init) = &mut unit.init {
                init.head = self.place.head;
            }
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
