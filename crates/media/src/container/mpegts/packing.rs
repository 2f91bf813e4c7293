//! Whether several pictures share a PES packet.
//!
//! PURE. Most muxers write one picture in each, and then its first bytes decide. A stream whose first packets show otherwise is
//! judged by all of each packet: a key frame may be the second in it.

use super::super::nal::{VideoCodec, find_start_code};
use super::super::work;
use super::mpeg4;
use super::stream::Video;

/// PES packets that are looked at.
const OBSERVED: u32 = 64;

/// Bytes from a start code on that show whether a picture begins: start code, NAL header of two bytes, first byte of the slice; of
/// MPEG-2 start code and `temporal_reference`.
const NEEDED: usize = 6;

/// What the PES packets of video hold.
#[derive(Debug, Default)]
pub(super) struct Packing {
    /// PES packets seen.
    packets: u32,
    /// Pictures that began in the one at hand.
    pictures: u32,
    /// The last picture of MPEG-2 in it, which both of its fields name.
    reference: Option<u16>,
    /// The last bytes of it.
    tail: Vec<u8>,
    is_shared: bool,
}

impl Packing {
    /// Returns whether a PES packet held more than one picture.
    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// A PES packet begins.
    pub(super) fn begin(&mut self) {
        self.packets = self.packets.saturating_add(1);
        self.pictures = 0;
        self.reference = None;
        self.tail.clear();
    }

    /// Looks at more bytes of the elementary stream.
    pub(super) fn observe(&mut self, video: Video, data: &[u8]) {
        if self.is_shared || self.packets > OBSERVED {
            return;
        }
        work::count(data.len());
        // Copied are only the few bytes around the border: a whole picture passes here for each of the first packets.
        let border = self.tail.len();
        self.tail
            .extend_from_slice(data.get(..data.len().min(NEEDED - 1)).unwrap_or_default());
        self.pictures += pictures(video, &self.tail, border, &mut self.reference);
        self.pictures += pictures(video, data, data.len(), &mut self.reference);
        if let Some(last) = data.len().checked_sub(NEEDED - 1) {
            self.tail.clear();
            self.tail.extend_from_slice(data.get(last..).unwrap_or_default());
        } else {
            self.tail.drain(..self.tail.len().saturating_sub(NEEDED - 1));
        }
        self.is_shared = self.pictures > 1;
    }
}

/// Returns how many pictures begin in front of `end`, of those that `data` holds enough of.
fn pictures(video: Video, data: &[u8], end: usize, reference: &mut Option<u16>) -> u32 {
    let (mut from, mut count) = (0, 0);
    while let Some(start) = find_start_code(data, from).filter(|start| *start < end)
        && let Some(&[code, second, third]) = data.get(start + 3..start + NEEDED)
    {
        count += u32::from(match video {
            Video::Mpeg2 => {
                let of = Some(u16::from_be_bytes([second, third]) >> 6);
                code == 0 && std::mem::replace(reference, of) != of
            }
            Video::Mpeg4 => code == mpeg4::VOP,
            // A first_mb_in_slice of 0 is a single bit of 1; H.265 has first_slice_segment_in_pic_flag there.
            Video::Nal(VideoCodec::H264) => matches!(code & 0x1f, 1 | 5) && second & 0x80 != 0,
            Video::Nal(_) => code >> 1 & 0x3f < 32 && third & 0x80 != 0,
        });
        from = start + 3;
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_shared(packets: &[&[u8]], slice: usize) -> bool {
        let mut packing = Packing::default();
        for packet in packets {
            packing.begin();
            packet
                .chunks(slice)
                .for_each(|data| packing.observe(Video::Nal(VideoCodec::H264), data));
        }
        packing.is_shared()
    }

    #[test]
    fn two_pictures_in_a_packet_are_seen_however_it_is_cut() {
        let picture: &[u8] = &[0, 0, 1, 9, 0xf0, 0, 0, 1, 0x41, 0x9a, 1, 2, 3];
        let slices: &[u8] = &[0, 0, 1, 0x41, 0x9a, 1, 2, 3, 0, 0, 1, 0x41, 0x40, 1, 2, 3];
        let two = [picture, picture].concat();
        for slice in 1..30 {
            assert!(is_shared(&[picture, &two], slice), "{slice}");
            assert!(!is_shared(&[picture, picture, slices], slice), "{slice}");
        }
        let late: Vec<&[u8]> = std::iter::repeat_n(picture, 100).chain([&two[..]]).collect();
        assert!(!is_shared(&late, 9), "nobody looks any more");
    }
}
