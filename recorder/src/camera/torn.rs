//! Drops an incomplete last picture. A connection that ends in the middle of a picture leaves parameter sets without a picture,
//! or only some of the slices. Decoders report both, so the last unit of the parser is recorded only if it is a whole picture.
//!
//! The parser outputs each unit when the next one begins, and the last one at EOS. All units but the last are therefore whole,
//! and show what this camera's pictures look like: whether they end with the marker bit of RTP, which many cameras set wrongly,
//! and how many slices they have.
//!
//! [`Tail`] decides. [`drop_torn`] feeds it from the pads of a parser, and lets [`Between`] move the parameter sets between
//! slices.

use std::sync::{Arc, Mutex};

use gcstreamer_media::container::nal::find_start_code;
use gst::prelude::*;
use gstgcstreamer::base::lock::lock;

use super::between::Between;
use super::plan::Video;

/// After this many pictures in a row with a marker bit at the end and nowhere else, a picture without it is incomplete.
const BELIEVED: u32 = 8;

/// How the parser delimits NAL units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Framing {
    #[default]
    StartCodes,
    /// A big-endian length of 4 bytes.
    Lengths,
}

/// What is known of the units of a track.
#[derive(Debug, Default)]
struct Tail {
    framing: Framing,
    /// Whether these had the marker bit: the newest buffer, the one before it, and any earlier one of the same picture.
    newest: bool,
    before: bool,
    earlier: bool,
    /// Number of pictures in a row with a marker bit at the end and nowhere else.
    marked: u32,
    /// The fewest slices that a picture has had.
    fewest: Option<usize>,
    /// No more data will come.
    has_ended: bool,
    /// Whether the beginning of another picture came after the last one, which is whole then.
    is_followed: bool,
}

impl Tail {
    /// Notes a buffer that enters the parser.
    fn enter(&mut self, has_marker: bool) {
        self.earlier |= self.before;
        self.before = self.newest;
        self.newest = has_marker;
    }

    /// Notes a unit that leaves the parser. Returns whether to record it.
    fn leave(&mut self, slices: usize) -> bool {
        if slices == 0 {
            // Only the last unit can have no slice: the parser joins parameter sets with the picture that follows. It repeats
            // them before each key frame, so none is lost.
            return false;
        }
        if self.has_ended && self.is_followed {
            return true;
        }
        if self.has_ended {
            let has_marker = self.newest || self.marked < BELIEVED;
            return has_marker && self.fewest.is_none_or(|fewest| slices >= fewest);
        }
        // The newest buffer begins the next picture, so the one before it ended this one.
        self.marked = match self.before && !self.earlier {
            true => self.marked.saturating_add(1),
            false => 0,
        };
        (self.before, self.earlier) = (false, false);
        self.fewest = Some(self.fewest.map_or(slices, |fewest| fewest.min(slices)));
        true
    }
}

/// Whether a NAL unit with this first byte is a part of a picture (H.264 table 7-1, H.265 table 7-1: VCL).
fn is_slice(codec: Video, header: u8) -> bool {
    match codec {
        Video::H264 => matches!(header & 0x1f, 1..=5),
        Video::H265 => header >> 1 & 0x3f < 32,
    }
}

/// Whether a depayloaded NAL unit is a part of a picture.
pub(super) fn is_part(codec: Video, unit: &[u8]) -> bool {
    next(Framing::StartCodes, unit).is_some_and(|(header, _)| is_slice(codec, header))
}

/// Counts the slices of a unit.
fn slices(codec: Video, framing: Framing, unit: &[u8]) -> usize {
    let mut count = 0;
    let mut rest = unit;
    while let Some((header, after)) = next(framing, rest) {
        count += usize::from(is_slice(codec, header));
        rest = after;
    }
    count
}

/// Returns the first byte of the first NAL unit, and what follows that byte (start codes) or that unit (lengths).
fn next(framing: Framing, data: &[u8]) -> Option<(u8, &[u8])> {
    match framing {
        Framing::Lengths => {
            let (length, body) = data.split_first_chunk::<4>()?;
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?.max(1);
            Some((*body.first()?, body.get(length..).unwrap_or_default()))
        }
        Framing::StartCodes => {
            let begin = find_start_code(data, 0)?;
            let body = data.get(begin + 3..)?;
            Some((*body.first()?, body))
        }
    }
}

fn framing(caps: &gst::CapsRef) -> Framing {
    let format = caps.structure(0).and_then(|s| s.get::<String>("stream-format").ok());
    match format.as_deref() {
        Some("byte-stream") | None => Framing::StartCodes,
        Some(_) => Framing::Lengths,
    }
}

/// Drops the last unit of a parser if it is incomplete. The parser must output one access unit in each buffer; `by_units`: its
/// input is single NAL units.
///
/// Clears the marker flag of the input: the parser would end a picture there, and cameras set the flag on parameter sets, or
/// never.
pub(super) fn drop_torn(front: &gst::Pad, back: &gst::Pad, codec: Video, by_units: bool) {
    let tail: Arc<Mutex<Tail>> = Arc::default();
    let shared = Arc::clone(&tail);
    let between = by_units.then(|| Mutex::new(Between::new(codec)));
    let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST | gst::PadProbeType::EVENT_DOWNSTREAM;
    front.add_probe(kinds, move |_, info| {
        let mut tail = lock(&shared);
        let mut between = between.as_ref().map(lock);
        let mut passes = |buffer: &mut gst::Buffer| between.as_mut().is_none_or(|between| between.pass(buffer));
        match &mut info.data {
            Some(gst::PadProbeData::Buffer(buffer)) => match passes(buffer) {
                true => enter(&mut tail, buffer.make_mut()),
                false => return gst::PadProbeReturn::Handled,
            },
            Some(gst::PadProbeData::BufferList(list)) => {
                let mut passed = gst::BufferList::new();
                for mut buffer in list.iter_owned() {
                    if passes(&mut buffer) {
                        enter(&mut tail, buffer.make_mut());
                        passed.make_mut().add(buffer);
                    }
                }
                if passed.is_empty() {
                    return gst::PadProbeReturn::Handled;
                }
                *list = passed;
            }
            Some(gst::PadProbeData::Event(event)) if event.type_() == gst::EventType::Eos => {
                tail.has_ended = true;
                tail.is_followed = between.is_some_and(|between| between.ends_picture());
            }
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
    let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
    back.add_probe(kinds, move |_, info| {
        let mut tail = lock(&tail);
        match &info.data {
            Some(gst::PadProbeData::Event(event)) => {
                if let gst::EventView::Caps(caps) = event.view() {
                    tail.framing = framing(caps.caps());
                }
            }
            Some(gst::PadProbeData::Buffer(buffer)) => {
                let slices = buffer.map_readable().map(|unit| slices(codec, tail.framing, &unit));
                if slices.is_ok_and(|slices| !tail.leave(slices)) {
                    return gst::PadProbeReturn::Drop;
                }
            }
            _ => {}
        }
        gst::PadProbeReturn::Ok
    });
}

fn enter(tail: &mut Tail, buffer: &mut gst::BufferRef) {
    tail.enter(buffer.flags().contains(gst::BufferFlags::MARKER));
    buffer.unset_flags(gst::BufferFlags::MARKER);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds pictures whose NAL units are given as letters: `m` has the marker bit, `-` has not. Returns whether the last picture
    /// is recorded.
    fn keeps_last(pictures: &[&str]) -> bool {
        let mut tail = Tail::default();
        for (i, picture) in pictures.iter().enumerate() {
            for (n, unit) in picture.chars().enumerate() {
                tail.enter(unit == 'm');
                if n == 0 && i > 0 {
                    assert!(tail.leave(pictures[i - 1].len()), "a picture in between");
                }
            }
        }
        tail.has_ended = true;
        tail.leave(pictures.last().unwrap().len())
    }

    fn after(n: usize, picture: &'static str, last: &'static str) -> bool {
        keeps_last(&[vec![picture; n], vec![last]].concat())
    }

    #[test]
    fn a_picture_without_parameter_sets_is_seen_and_parameter_sets_are_no_picture() {
        for (codec, unit, is_picture) in [
            (Video::H264, [0, 0, 0, 1, 0x41, 0x9a], true),
            (Video::H264, [0, 0, 0, 1, 0x67, 0x42], false),
            (Video::H264, [0, 0, 0, 1, 0x06, 0x05], false),
            (Video::H265, [0, 0, 0, 1, 0x02, 0x01], true),
            (Video::H265, [0, 0, 0, 1, 0x42, 0x01], false),
        ] {
            assert_eq!(is_part(codec, &unit), is_picture, "{codec:?} {unit:?}");
        }
        assert!(!is_part(Video::H264, &[]));
    }

    #[test]
    fn the_last_picture_is_recorded_if_it_ends_as_the_others_did() {
        for (others, last, is_whole) in [
            ("m", "m", true),
            ("m", "-", false),
            ("---m", "---m", true),
            ("---m", "---", false),
            ("---m", "----", false),
            // The marker bit shows nothing.
            ("----", "----", true),
            ("----", "---", false),
            ("mmm-", "mmm-", true),
            ("mmm-", "mm", false),
            ("mmmm", "mmmm", true),
            ("-", "-", true),
        ] {
            assert_eq!(after(20, others, last), is_whole, "{others} {last}");
        }
        assert!(after(3, "m", "-") && after(0, "m", "-"), "too few pictures to know");
        assert!(keeps_last(&["--", "-", "---", "-"]), "slices as they come");
    }

    #[test]
    fn a_last_picture_that_the_beginning_of_another_follows_is_recorded_whatever_it_looks_like() {
        let mut tail = Tail {
            fewest: Some(4),
            marked: 20,
            has_ended: true,
            is_followed: true,
            ..Tail::default()
        };
        assert!(tail.leave(3) && !tail.leave(0));
    }

    #[test]
    fn a_unit_without_a_slice_is_not_recorded_wherever_it_is() {
        assert!(!Tail::default().leave(0));
        let mut tail = Tail {
            has_ended: true,
            ..Tail::default()
        };
        assert!(!tail.leave(0) && tail.leave(1));
    }

    #[test]
    fn slices_are_counted_by_the_bytes() {
        let units = |framing, kinds: &[u8]| -> Vec<u8> {
            let one = |kind: &u8| match framing {
                Framing::Lengths => vec![0, 0, 0, 3, *kind, 1, 2],
                Framing::StartCodes => vec![0, 0, 0, 1, *kind, 1, 2],
            };
            kinds.iter().flat_map(one).collect()
        };
        for framing in [Framing::Lengths, Framing::StartCodes] {
            let h264 = [0x09, 0x67, 0x68, 0x06, 0x65, 0x41, 0x0c];
            assert_eq!(slices(Video::H264, framing, &units(framing, &h264)), 2);
            assert_eq!(slices(Video::H264, framing, &units(framing, &h264[..4])), 0);
            let h265 = [0x40, 0x42, 0x44, 0x4e, 0x26, 0x02];
            assert_eq!(slices(Video::H265, framing, &units(framing, &h265)), 2);
            assert_eq!(slices(Video::H265, framing, &units(framing, &h265[..4])), 0);
            // Truncated at any byte.
            for end in 0..20 {
                slices(Video::H264, framing, &units(framing, &h264)[..end]);
            }
            assert_eq!(slices(Video::H264, framing, &[0; 64]), 0);
        }
    }
}
