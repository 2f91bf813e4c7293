//! Chooses the audio stream that decides on times, and handles audio whose PES packet is still open where a key frame begins.
//!
//! PURE. A chunk that begins at the picture would split this PES packet, and a decoder would warn about both parts. If no bytes
//! of another picture are in between, the chunk begins with the audio packet instead.

use super::super::{MarkKind, Track};
use super::reorder::{Kinds, Reorder, Slot};
use super::stream::Kind;
use super::tables::StartPoint;
use super::units::{Stream, Units};
use crate::container::Mark;

/// Number of PES packets of other audio streams after which the chosen audio stream counts as stopped.
const MOST_OTHER_SOUND: u32 = 256;

/// A PES packet of audio that has not ended, and that only tables have followed.
#[derive(Debug)]
pub(super) struct OpenAudio {
    /// Index of its stream.
    index: usize,
    /// Number of bytes that are still missing.
    left: usize,
    slot: Slot,
    kinds: Kinds,
    place: StartPoint,
}

/// Where the marks of a picture are put.
pub(super) enum Target {
    /// At this offset.
    At(u64),
    /// Into a reserved slot.
    Slot(Slot),
}

impl Units {
    /// Emits the marks of a PES packet of audio. Delays them until it ends or something else begins, if `payload`, its bytes so
    /// far, is incomplete.
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
                self.sound = Some(OpenAudio {
                    index,
                    left,
                    slot,
                    kinds,
                    place,
                });
            }
        }
    }

    /// Takes the payload of a packet that continues a PES packet of any stream.
    pub(super) fn pass_sound(&mut self, index: usize, payload: &[u8], out: &mut Reorder, marks: &mut Vec<Mark>) {
        if let Some(sound) = &mut self.sound {
            sound.left = sound.left.saturating_sub(payload.len());
            // With bytes of another stream in between no chunk may begin at the audio: it would contain the rest of a picture.
            if sound.index != index || sound.left == 0 {
                self.flush_sound(out, marks);
            }
        }
    }

    /// Emits the marks of the open audio packet at its start, because no key frame follows it.
    pub(super) fn flush_sound(&mut self, out: &mut Reorder, marks: &mut Vec<Mark>) {
        if let Some(sound) = self.sound.take() {
            out.decide(sound.slot, sound.kinds, marks);
        }
    }

    /// Returns whether a PES packet belongs to the audio stream that decides on times, and chooses that stream. There is only
    /// one, because streams may have different clocks and each change between them would be a timestamp jump. If it stops,
    /// another stream replaces it.
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
            // A stream without timestamps is not chosen at first: another one may have them.
            self.sound_pid = if has_time || is_there { pid } else { self.sound_pid };
            return true;
        }
        false
    }

    /// Returns whether a stream of this kind counts as audio. Private streams (DTS as type 0x82, LATM without a descriptor, SMPTE
    /// 302M) count if there is no known video or audio stream: nothing else has times to cut by.
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

impl OpenAudio {
    pub(super) fn slot(&self) -> Slot {
        self.slot
    }

    /// Emits the marks of the audio packet and of the picture behind it. The picture comes first if a chunk can begin with it.
    pub(super) fn put_picture(self, target: Target, mut kinds: Kinds, out: &mut Reorder, marks: &mut Vec<Mark>) {
        let key = kinds.iter_mut().flatten().find_map(|kind| match kind {
            MarkKind::Unit(unit) if unit.track == Track::Video && unit.key.is_key() => Some(unit),
            _ => None,
        });
        if let Some(unit) = key {
            // The chunk begins at the audio packet, so it needs the header for that offset.
            if let Some(init) = &mut unit.init {
                init.head = self.place.head;
            }
            // The two swap places: the chunk begins at the audio packet, but its first unit is the picture.
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

/// Returns how many bytes of a PES packet are missing behind `payload`; 0 if its length is unknown.
fn bytes_left(payload: &[u8]) -> usize {
    match payload.get(4..6) {
        Some(&[high, low]) if high != 0 || low != 0 => {
            (6 + usize::from(u16::from_be_bytes([high, low]))).saturating_sub(payload.len())
        }
        _ => 0,
    }
}
