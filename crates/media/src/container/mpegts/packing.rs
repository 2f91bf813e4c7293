//! Finds out whether several pictures share a PES packet.
//!
//! PURE. Most muxers write one picture into each packet; then its first bytes are enough to classify it. If the first packets of
//! a stream contain several pictures, each packet is classified as a whole: a key frame may be the second picture in it.

use super::super::nal::{VideoCodec, find_start_code};
use super::super::work;
use super::mpeg4;
use super::stream::Video;

/// Number of PES packets that are observed.
const OBSERVED: u32 = 64;

/// Number of bytes, counted from a start code, that show whether a picture begins: start code, NAL header of two bytes, first
/// byte of the slice; for MPEG-2 the start code and `temporal_reference`.
const NEEDED: usize = 6;

/// Observes the PES packets of a video stream.
#[derive(Debug, Default)]
pub(super) struct Packing {
    /// Number of PES packets so far.
    packets: u32,
    /// Number of pictures that began in the current one.
    pictures: u32,
    /// `temporal_reference` of the last MPEG-2 picture in it, which both fields of a frame share.
    reference: Option<u16>,
    /// Its last bytes.
    tail: Vec<u8>,
    is_shared: bool,
}

impl Packing {
    /// Returns whether a PES packet contained more than one picture.
    pub(super) fn is_shared(&self) -> bool {
        self.is_shared
    }

    /// Starts a PES packet.
    pub(super) fn begin(&mut self) {
        self.packets = self.packets.saturating_add(1);
        self.pictures = 0;
        self.reference = None;
        self.tail.clear();
    }

    /// Observes more bytes of the elementary stream.
    pub(super) fn observe(&mut self, video: Video, data: &[u8]) {
        if self.is_shared || self.packets > OBSERVED {
            return;
        }
        work::count(data.len());
        // Copies only the few bytes around the border between two slices: all bytes of the first packets pass through here.
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

/// Returns how many pictures begin before `end`. Counts only those of which `data` contains [`NEEDED`] bytes.
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
            // first_mb_in_slice 0 is coded as a single 1 bit; in H.265 this bit is first_slice_segment_in_pic_flag.
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
