//! Parses the extended headers of Enhanced RTMP: packet type, FourCC and track, and the modifiers in front of them.
//!
//! PURE. Source: Enhanced RTMP v2 (ExVideoTagHeader, ExAudioTagHeader).

/// Packet types. A comment names audio or video if only that kind of tag has the type.
pub(super) mod packet {
    /// A decoder configuration.
    pub(in super::super) const START: u8 = 0;
    /// Coded frames.
    pub(in super::super) const FRAMES: u8 = 1;
    /// Coded frames of video without a composition time.
    pub(in super::super) const FRAMES_X: u8 = 3;
    /// Several tracks in one tag, audio.
    pub(in super::super) const AUDIO_TRACKS: u8 = 5;
    /// Several tracks in one tag, video.
    pub(in super::super) const VIDEO_TRACKS: u8 = 6;
    /// A modifier of the packet comes first; the real packet type follows it.
    pub(super) const MODIFIED: u8 = 7;
}

/// Maximum number of modifiers in front of a packet type. The specification defines only one, a timestamp offset.
const MOST_MODIFIERS: usize = 16;

/// The fields of an extended header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extended {
    /// See [`packet`].
    pub(super) packet: u8,
    pub(super) four_cc: [u8; 4],
    /// The first track in the tag; 0 if the tag names no track.
    pub(super) track: u8,
    /// Position of the packet in the tag's data.
    pub(super) body: usize,
    /// Length of the packet in bytes, if packets of other tracks may follow.
    pub(super) size: Option<usize>,
}

/// Outcome of reading an extended header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// At least this many bytes of the tag's data are needed.
    More(usize),
    /// The header is of an unknown form.
    Unknown,
    Got(Extended),
}

/// Reads the extended header at the start of a tag's data. `tracks` is the packet type for several tracks.
pub(super) fn read(data: &[u8], tracks: u8) -> Read {
    let mut bytes = Bytes { data, at: 0 };
    match bytes.header(tracks) {
        Ok(Some(header)) => Read::Got(header),
        Ok(None) => Read::Unknown,
        Err(needed) => Read::More(needed),
    }
}

struct Bytes<'a> {
    data: &'a [u8],
    at: usize,
}

impl Bytes<'_> {
    /// Takes the next `N` bytes.
    ///
    /// # Errors
    /// The number of bytes needed from the start of the data, if too few are available.
    fn take<const N: usize>(&mut self) -> Result<[u8; N], usize> {
        let end = self.at + N;
        let bytes = self.data.get(self.at..end).and_then(|bytes| bytes.first_chunk());
        self.at = end;
        bytes.copied().ok_or(end)
    }

    fn header(&mut self, tracks: u8) -> Result<Option<Extended>, usize> {
        let [first] = self.take()?;
        let mut packet = first & 0xf;
        for _ in 0..MOST_MODIFIERS {
            if packet != packet::MODIFIED {
                break;
            }
            let [less] = self.take()?;
            let size = match less {
                // The value 255 (a size of 256) is the escape: the real size follows in two bytes.
                255 => usize::from(u16::from_be_bytes(self.take()?)) + 1,
                less => usize::from(less) + 1,
            };
            // The content of a modifier is skipped: the packet type follows it.
            self.at += size;
            let [kinds] = self.take()?;
            packet = kinds & 0xf;
        }
        if packet == packet::MODIFIED {
            return Ok(None);
        }
        let (mut track, mut size) = (0, None);
        let four_cc;
        if packet == tracks {
            let [kinds] = self.take()?;
            packet = kinds & 0xf;
            four_cc = self.take()?;
            [track] = self.take()?;
            match kinds >> 4 {
                0 => {}
                // 1: tracks of one codec; 2: each track has its own FourCC. The first track has the same layout in both.
                1 | 2 => {
                    let [a, b, c] = self.take()?;
                    // Other tracks follow: without the size their bytes would be mistaken for those of this track.
                    size = Some(usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c));
                }
                _ => return Ok(None),
            }
        } else {
            four_cc = self.take()?;
        }
        Ok(Some(Extended {
            packet,
            four_cc,
            track,
            body: self.at,
            size,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_through_modifiers_and_tracks_and_ask_for_what_they_lack() {
        let modified = |size: &[u8], len: usize| [&[0x97][..], size, &vec![9; len], &[0x01], b"hvc1", &[5]].concat();
        let got = |body, track, size| {
            Read::Got(Extended {
                packet: packet::FRAMES,
                four_cc: *b"hvc1",
                track,
                body,
                size,
            })
        };
        for (data, expected) in [
            (b"\x91hvc1".to_vec(), got(5, 0, None)),
            (modified(&[2], 3), got(10, 0, None)),
            (modified(&[255, 1, 0], 257), got(266, 0, None)),
            (b"\x96\x01hvc1\x03rest".to_vec(), got(7, 3, None)),
            (b"\x96\x11hvc1\x03\x00\x01\x02rest".to_vec(), got(10, 3, Some(258))),
            (b"\x96\x21hvc1\x03\x00\x01\x02rest".to_vec(), got(10, 3, Some(258))),
            (b"\x97\x00\x09\x06\x01hvc1\x02rest".to_vec(), got(10, 2, None)),
        ] {
            assert_eq!(read(&data, packet::VIDEO_TRACKS), expected);
            let Read::Got(Extended { body, .. }) = expected else {
                continue;
            };
            for n in 0..body {
                let asked = read(&data[..n], packet::VIDEO_TRACKS);
                assert!(matches!(asked, Read::More(more) if n < more && more <= body), "{n} {asked:?}");
            }
        }
        let many = [&[0x97][..], &[0, 9, 7].repeat(20)].concat();
        assert_eq!(read(&many, packet::VIDEO_TRACKS), Read::Unknown);
    }
}
