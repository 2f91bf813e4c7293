//! Reads a chunk whose end was lost, and finds how much of it is whole and how long that part lasts.
//!
//! PURE. The bytes of the object, header first, are fed once from front to end.

use super::frames::Frames;
use super::timeline::{TimeLine, Timed};
use crate::container::{Container, Mark, MarkKind, Scanner, Track, Unit, scanner_for};

/// The reading of one chunk, fed from front to end.
pub struct Replay {
    container: Container,
    scanner: Box<dyn Scanner>,
    init_bytes: u64,
    fed: u64,
    marks: Vec<Mark>,
    units: Vec<(u64, Unit)>,
    picture_end: Option<u64>,
    walk: Walk,
    /// Damage was found: sizes behind it cannot be trusted.
    damaged: bool,
    faulty: bool,
}

/// The whole part of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Replayed {
    /// Bytes of the object up to the end of its last whole unit.
    pub whole: u64,
    /// Duration of that part, ns.
    pub duration: u64,
    /// End of the first key frame, if all of it is present.
    pub preview_bytes: Option<u64>,
}

impl Replay {
    /// Returns a reader of an object of this container that begins with `init_bytes` bytes of header.
    pub fn new(container: Container, init_bytes: u64) -> Self {
        Self {
            container,
            scanner: scanner_for(container),
            init_bytes,
            fed: 0,
            marks: Vec::new(),
            units: Vec::new(),
            picture_end: None,
            walk: Walk::new(container),
            damaged: false,
            faulty: false,
        }
    }

    /// Takes the next bytes.
    pub fn push(&mut self, data: &[u8]) {
        self.fed += data.len() as u64;
        self.walk.push(data);
        if self.faulty {
            return;
        }
        // The stream could be cut when it was recorded. If the object cannot be read now, `finish` keeps all of it.
        self.faulty = self.scanner.push(data, &mut self.marks).is_err();
        let marks = std::mem::take(&mut self.marks);
        for mark in marks {
            match mark.kind {
                // Without their headers, which are not needed here.
                MarkKind::Unit(unit) => self.units.push((mark.at, Unit { init: None, ..unit })),
                MarkKind::PictureEnd => {
                    self.picture_end.get_or_insert(mark.at);
                }
                MarkKind::Damage => self.damaged = true,
                MarkKind::StreamsChanged | MarkKind::Notice(_) => {}
            }
        }
    }

    /// Returns where the last picture begins, or the last unit if there are no pictures.
    fn last_unit(&self) -> Option<u64> {
        let last = |wanted: fn(&Unit) -> bool| self.units.iter().rev().find(|(_, u)| wanted(u)).map(|(at, _)| *at);
        last(|u| u.track == Track::Video).or_else(|| last(|_| true))
    }

    /// Ends the object; `complete` means that nothing is missing at its end.
    pub fn finish(self, complete: bool) -> Replayed {
        let whole = match self.container {
            _ if complete || self.faulty => self.fed,
            Container::Raw => self.fed,
            // Sizes show where the last tag or fragment ends, so it counts although nothing follows it.
            Container::Fmp4 | Container::Flv if !self.walk.lost && !self.damaged => self.walk.whole,
            // Behind damage a size proves nothing, so the last fragment does not count.
            Container::Fmp4 => self.last_unit().unwrap_or(self.walk.whole),
            // A unit is known to have ended only once the next one begins, so the last one does not count.
            _ => self.last_unit().unwrap_or(self.init_bytes),
        };
        let (mut video, mut audio) = (Frames::default(), Frames::default());
        let mut first = None;
        let mut line = TimeLine::default();
        let has_video = self.units.iter().any(|(at, u)| u.track == Track::Video && *at < whole);
        for (_, unit) in self.units.iter().filter(|(at, _)| *at < whole) {
            let Some(pts) = unit.pts else { continue };
            let timed = Timed {
                track: unit.track,
                key: unit.key,
                pts,
                end: unit.end,
                decode: unit.decode,
            };
            // It is not known when the bytes arrived: only the times of the container count.
            let placed = line.place(timed, 0);
            let pts = placed.pts;
            match unit.track {
                Track::Video => video.add(pts, placed.end),
                Track::Audio => audio.add(pts, placed.end),
                Track::Other => continue,
            }
            if (unit.track == Track::Video) == has_video {
                first.get_or_insert(pts);
            }
        }
        let frames = if video.is_empty() { audio } else { video };
        Replayed {
            whole: whole.max(self.init_bytes.min(self.fed)),
            duration: first.map_or(0, |pts| frames.end(0).saturating_sub(pts)),
            preview_bytes: self.picture_end.filter(|&end| end <= whole),
        }
    }
}

/// Walks over the outermost items: boxes of an MP4 (ISO/IEC 14496-12 4.2), where a fragment is whole with its `mdat`, and tags
/// of an FLV (Video File Format 10.1 E.4.1).
#[derive(Debug)]
struct Walk {
    container: Container,
    head: Vec<u8>,
    /// Bytes of the current item that have not come.
    left: u64,
    at: u64,
    /// The end of the current item ends a whole fragment or tag.
    counts: bool,
    whole: u64,
    /// The sizes of the items make no sense: the walk has stopped.
    lost: bool,
}

impl Walk {
    fn new(container: Container) -> Self {
        Self {
            container,
            head: Vec::new(),
            left: 0,
            at: 0,
            counts: false,
            whole: 0,
            lost: !matches!(container, Container::Fmp4 | Container::Flv),
        }
    }

    fn push(&mut self, mut data: &[u8]) {
        while !data.is_empty() && !self.lost {
            if self.left > 0 {
                let n = usize::try_from(self.left).unwrap_or(usize::MAX).min(data.len());
                self.left -= n as u64;
                self.at += n as u64;
                data = data.get(n..).unwrap_or_default();
                self.note_end();
                continue;
            }
            // Byte by byte: the head of an item may lie in two slices.
            let (first, rest) = data.split_at(1);
            self.head.extend_from_slice(first);
            data = rest;
            let size = match self.container {
                Container::Flv => self.flv_item(),
                _ => self.mp4_box(),
            };
            let Some(size) = size else { continue };
            let head = self.head.len() as u64;
            self.head.clear();
            match size.checked_sub(head) {
                Some(left) => {
                    self.at += head;
                    self.left = left;
                    self.note_end();
                }
                // A box that extends to the end of the file (size 0), or nonsense: no end of anything whole is known behind it.
                None => self.lost = true,
            }
        }
    }

    fn note_end(&mut self) {
        if self.left == 0 && self.counts {
            self.whole = self.at;
        }
    }

    fn number(&self, range: std::ops::Range<usize>) -> u64 {
        let bytes = self.head.get(range).unwrap_or_default();
        bytes.iter().fold(0, |sum, &b| sum << 8 | u64::from(b))
    }

    /// Returns the size of the box whose header has come; `None` if more of the header is needed.
    fn mp4_box(&mut self) -> Option<u64> {
        let is_wide = self.head.len() >= 4 && self.number(0..4) == 1;
        if self.head.len() < if is_wide { 16 } else { 8 } {
            return None;
        }
        self.counts = self.head.get(4..8) == Some(b"mdat");
        Some(if is_wide { self.number(8..16) } else { self.number(0..4) })
    }

    /// Returns the size of the tag or file header whose start has come; `None` if more of it is needed.
    fn flv_item(&mut self) -> Option<u64> {
        self.counts = true;
        if self.head.first() == Some(&b'F') {
            // DataOffset (E.2), and the PreviousTagSize0 behind the header (E.3).
            return (self.head.len() >= 9).then(|| self.number(5..9).saturating_add(4));
        }
        if self.head.len() < 4 {
            return None;
        }
        // The low five bits are the TagType; Filter and reserved bits are above them (E.4.1).
        if matches!(self.head.first().map(|kind| kind & 0x1f), Some(8 | 9 | 18)) {
            // The tag header, and the PreviousTagSize behind the data.
            Some(self.number(1..4) + 11 + 4)
        } else {
            // Less than its head: `push` gives up here.
            Some(0)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mp4_box(kind: &[u8; 4], len: usize) -> Vec<u8> {
        let mut bytes = u32::try_from(len + 8).unwrap().to_be_bytes().to_vec();
        bytes.extend_from_slice(kind);
        bytes.resize(len + 8, 7);
        bytes
    }

    #[test]
    fn an_mp4_is_whole_up_to_its_last_complete_mdat_however_it_is_fed() {
        let mut stream = Vec::new();
        for (kind, len) in [(b"moov", 90), (b"moof", 30), (b"mdat", 500), (b"moof", 30)] {
            stream.extend(mp4_box(kind, len));
        }
        let whole = stream.len() as u64 - 38;
        stream.extend(mp4_box(b"mdat", 500));
        let full = stream.len() as u64;
        for step in [1, 7, 1000] {
            for (cut, expected) in [(0, full), (1, whole), (507, whole), (540, whole)] {
                let mut walk = Walk::new(Container::Fmp4);
                stream[..stream.len() - cut].chunks(step).for_each(|s| walk.push(s));
                assert_eq!(walk.whole, expected, "cut {cut}, step {step}");
            }
        }
        let mut wide = Walk::new(Container::Fmp4);
        let mut bytes = vec![0, 0, 0, 1];
        bytes.extend_from_slice(b"mdat");
        bytes.extend_from_slice(&20u64.to_be_bytes());
        bytes.extend_from_slice(&[1; 4]);
        bytes.chunks(3).for_each(|s| wide.push(s));
        assert_eq!(wide.whole, 20);
    }

    #[test]
    fn damage_in_front_of_what_was_torn_costs_nothing_behind_it() {
        let tag = |time: u8, len: u8| {
            let mut bytes = vec![9, 0, 0, len + 1, 0, 0, time, 0, 0, 0, 0, if time == 0 { 0x12 } else { 0x22 }];
            bytes.resize(bytes.len() + usize::from(len), 3);
            bytes.extend_from_slice(&(u32::from(len) + 12).to_be_bytes());
            bytes
        };
        let init = b"FLV\x01\x04\0\0\0\x09\0\0\0\0".to_vec();
        let mut object = init.clone();
        let mut places = Vec::new();
        for n in 0..60 {
            places.push(object.len());
            object.extend(tag(n * 4, 100));
        }
        // A size of one tag is wrong; the last tag is torn.
        object[places[5] + 2] = 0x40;
        object.truncate(object.len() - 30);
        let mut replay = Replay::new(Container::Flv, init.len() as u64);
        object.chunks(64).for_each(|s| replay.push(s));
        let found = replay.finish(false);
        assert!(
            found.whole >= places[57] as u64 && found.whole <= places[59] as u64,
            "{} of {}",
            found.whole,
            object.len()
        );
    }

    #[test]
    fn a_flv_that_was_torn_ends_with_its_last_whole_tag() {
        let tag = |kind: u8, time: u8, body: &[u8]| {
            let mut bytes = vec![kind, 0, 0, u8::try_from(body.len()).unwrap(), 0, 0, time, 0, 0, 0, 0];
            bytes.extend_from_slice(body);
            bytes.extend_from_slice(&u32::try_from(body.len() + 11).unwrap().to_be_bytes());
            bytes
        };
        let init = b"FLV\x01\x04\0\0\0\x09\0\0\0\0".to_vec();
        let mut object = init.clone();
        for time in [0, 40, 80] {
            // Sorenson pictures need no configuration.
            object.extend(tag(9, time, &[if time == 0 { 0x12 } else { 0x22 }, 1, 2, 3]));
        }
        let whole = object.len() as u64;
        object.extend_from_slice(&tag(9, 120, &[0x22, 1, 2, 3])[..17]);
        let mut replay = Replay::new(Container::Flv, init.len() as u64);
        object.chunks(5).for_each(|s| replay.push(s));
        let found = replay.finish(false);
        assert_eq!(found.whole, whole);
        assert_eq!(found.duration, 120_000_000);
    }
}
