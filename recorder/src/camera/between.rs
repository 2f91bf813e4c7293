//! Moves parameter sets that stand between the slices of one picture. Some cameras repeat the sets before every slice of a key
//! frame (GStreamer's own payloader does). The parser would begin another picture there, without its first slices.
//!
//! Units that can begin a picture therefore wait for the slice that follows. Before the first slice of a picture they are passed
//! on with it; before any other slice they wait until the next picture. Nothing is missing meanwhile: the parser repeats the sets
//! that it knows.

use gcstreamer_media::container::nal::find_start_code;

use super::plan::Video;

/// What a NAL unit shows about the beginning of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The first slice of a picture.
    First,
    /// Another slice.
    Further,
    /// A unit that can only precede a picture: delimiter, parameter sets, SEI.
    Before,
    Other,
}

/// Returns the kind of the first NAL unit of a buffer, which begins with a start code. H.264 7.4.1.2.3 and 7.3.3; H.265 7.4.2.4.4
/// and 7.3.6.1.
fn kind(codec: Video, data: &[u8]) -> Kind {
    let zeros = data.iter().take_while(|byte| **byte == 0).count();
    let unit = match data.get(zeros..) {
        Some([1, unit @ ..]) if zeros >= 2 => unit,
        _ => return Kind::Other,
    };
    let slice = |payload: Option<&u8>| match payload {
        // first_mb_in_slice is 0, or first_slice_segment_in_pic_flag is set: both are one bit.
        Some(byte) if byte & 0x80 != 0 => Kind::First,
        Some(_) => Kind::Further,
        None => Kind::Other,
    };
    let Some(header) = unit.first() else { return Kind::Other };
    let number = match codec {
        Video::H264 => header & 0x1f,
        Video::H265 => header >> 1 & 0x3f,
    };
    match (codec, number) {
        (Video::H264, 1 | 2 | 5) => slice(unit.get(1)),
        // Some cameras put a whole picture into one unit, with start codes inside: it must not wait.
        (Video::H264, 6..=9 | 15..=18) | (Video::H265, 32..=35 | 39 | 41..=44 | 48..=55)
            if find_start_code(unit, 0).is_some() =>
        {
            Kind::Other
        }
        (Video::H264, 6..=9 | 15..=18) => Kind::Before,
        (Video::H265, 0..=31) => slice(unit.get(2)),
        (Video::H265, 32..=35 | 39 | 41..=44 | 48..=55) => Kind::Before,
        _ => Kind::Other,
    }
}

/// The most units that wait, which limits the memory if no slice follows.
const MOST: usize = 32;

/// The units of one stream that wait for a slice.
#[derive(Debug)]
pub(super) struct Between {
    codec: Video,
    waiting: Vec<gst::Buffer>,
    /// Whether this camera has sent such units between slices.
    is_usual: bool,
}

impl Between {
    pub(super) fn new(codec: Video) -> Self {
        Self {
            codec,
            waiting: Vec::new(),
            is_usual: false,
        }
    }

    /// Handles one NAL unit. Returns `false` if it waits. Otherwise the units that waited are now in front of it in `buffer`,
    /// unless it is a further slice.
    pub(super) fn pass(&mut self, buffer: &mut gst::Buffer) -> bool {
        let kind = buffer.map_readable().map_or(Kind::Other, |data| kind(self.codec, &data));
        match kind {
            Kind::Before if self.waiting.len() < MOST => {
                self.waiting.push(buffer.clone());
                return false;
            }
            Kind::Further => self.is_usual |= !self.waiting.is_empty(),
            Kind::First | Kind::Before | Kind::Other => {
                // As one memory: a buffer holds at most 16, and a camera may send more units.
                let waited: Vec<u8> = self
                    .waiting
                    .drain(..)
                    .filter_map(|unit| unit.map_readable().ok().map(|data| data.to_vec()))
                    .flatten()
                    .collect();
                if !waited.is_empty() {
                    buffer.make_mut().insert_memory(0, gst::Memory::from_mut_slice(waited));
                }
            }
        }
        true
    }

    /// Whether the waiting units show that the picture before them is complete. They do not if this camera sends them between
    /// slices.
    pub(super) fn ends_picture(&self) -> bool {
        !self.waiting.is_empty() && !self.is_usual
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPS: u8 = 0x67;
    const PPS: u8 = 0x68;
    const IDR: u8 = 0x65;

    /// Passes NAL units through [`Between`]. Returns the headers of the output, one list for each buffer.
    fn passed(units: &[(u8, bool)]) -> (Vec<Vec<u8>>, bool) {
        gst::init().unwrap();
        let mut between = Between::new(Video::H264);
        let mut out = Vec::new();
        for (header, is_first) in units {
            let byte = if *is_first { 0x88 } else { 0x41 };
            let mut buffer = gst::Buffer::from_mut_slice(vec![0, 0, 0, 1, *header, byte]);
            if between.pass(&mut buffer) {
                out.push(buffer.map_readable().unwrap().chunks(6).map(|unit| unit[4]).collect());
            }
        }
        (out, between.ends_picture())
    }

    #[test]
    fn sets_in_front_of_a_picture_go_with_it_and_those_between_its_slices_wait_for_the_next() {
        let picture = [
            (SPS, false),
            (PPS, false),
            (IDR, true),
            (SPS, false),
            (PPS, false),
            (IDR, false),
            (IDR, false),
        ];
        let (out, _) = passed(&[&picture[..], &[(0x41, true), (0x41, false)], &picture[..]].concat());
        let expected: [&[u8]; 8] = [
            &[SPS, PPS, IDR],
            &[IDR],
            &[IDR],
            &[SPS, PPS, 0x41],
            &[0x41],
            &[SPS, PPS, IDR],
            &[IDR],
            &[IDR],
        ];
        assert_eq!(out, expected);
    }

    #[test]
    fn sets_that_wait_at_the_end_say_that_a_picture_is_complete_unless_they_come_between_slices() {
        let picture = [(SPS, false), (PPS, false), (IDR, true), (IDR, false)];
        assert!(passed(&[&picture[..], &[(SPS, false)]].concat()).1);
        assert!(!passed(&picture).1);
        let mixed = [(SPS, false), (IDR, true), (SPS, false), (IDR, false), (SPS, false)];
        assert!(!passed(&mixed).1);
    }

    #[test]
    fn units_are_classified_by_their_first_bits_and_any_bytes_are_survived() {
        let h265 = |header: u8, byte: u8| kind(Video::H265, &[0, 0, 1, header, 1, byte]);
        assert_eq!(
            (h265(0x26, 0x80), h265(0x26, 0x7f), h265(0x42, 0)),
            (Kind::First, Kind::Further, Kind::Before)
        );
        let whole = [0, 0, 0, 1, SPS, 1, 0, 0, 0, 1, IDR, 0x88];
        assert_eq!(kind(Video::H264, &whole), Kind::Other, "a whole picture in one unit");
        assert_eq!(h265(0x50, 0), Kind::Other, "a suffix SEI belongs to the picture before");
        for data in [&[][..], &[0], &[0, 0, 1], &[0, 0, 1, 0x65], &[1, 0x65, 0x80]] {
            assert_eq!(kind(Video::H264, data), Kind::Other, "{data:?}");
            kind(Video::H265, data);
        }
        assert_eq!(passed(&[(SPS, false); MOST + 1]).0.len(), 1, "not without end");
    }
}
