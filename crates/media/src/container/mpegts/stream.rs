//! Identifies an elementary stream by stream_type and descriptors of the PMT, and codec names by the first bytes.
//!
//! PURE. Sources: ISO/IEC 13818-1 table 2-34 and 2.6, ETSI EN 300 468 annex D (AC-3, DTS, AAC descriptors), ATSC A/52 annex A,
//! SMPTE RP 224 registrations, Blu-ray (`HDMV`), ISO/IEC 14496-3 1.A.2 (ADTS), ISO/IEC 11172-3 2.4.2.3, AOMedia's Carriage of AV1
//! in MPEG-2 TS (2.1, 2.2).

use super::super::codec;
use super::super::nal::VideoCodec;

/// How a video stream is parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Video {
    /// A codec that the shared module `nal` classifies.
    Nal(VideoCodec),
    /// MPEG-1 and MPEG-2 video.
    Mpeg2,
    /// MPEG-4 part 2.
    Mpeg4,
}

impl Video {
    /// Returns whether the bytes of the pictures are parsed. Otherwise the flag of the container decides.
    pub(super) fn is_parsed(self) -> bool {
        matches!(
            self,
            Self::Nal(VideoCodec::H264 | VideoCodec::H265) | Self::Mpeg2 | Self::Mpeg4
        )
    }
}

/// The coding of an audio stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audio {
    /// AAC in ADTS frames.
    Adts,
    /// MPEG-1 and MPEG-2 audio; the frames contain the layer.
    Mpeg,
    /// A coding whose name the PMT determines.
    Named(&'static str),
    /// Audio without a name in RFC 6381.
    Nameless,
}

/// The kind of an elementary stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Pictures.
    Video(Video),
    /// Sound.
    Audio(Audio),
    /// Subtitles, metadata and the like.
    Other,
    /// Sections, not PES packets.
    Sections,
}

impl Kind {
    /// Returns the kind for stream_type and the descriptors of the stream and of its program.
    pub(super) fn of(stream_type: u8, descriptors: &[u8], program: &[u8]) -> Self {
        let flagged = Self::Video(Video::Nal(VideoCodec::Unknown));
        match stream_type {
            0x01 | 0x02 => Self::Video(Video::Mpeg2),
            0x10 => Self::Video(Video::Mpeg4),
            0x1b => Self::Video(Video::Nal(VideoCodec::H264)),
            0x24 => Self::Video(Video::Nal(VideoCodec::H265)),
            // JPEG 2000, VVC, AVS, AVS2, Dirac, VC-1.
            0x21 | 0x33 | 0x42 | 0xd2 | 0xd1 | 0xea => flagged,
            0x03 | 0x04 => Self::Audio(Audio::Mpeg),
            0x0f => Self::Audio(Audio::Adts),
            0x11 | 0x1c => Self::Audio(Audio::Named("mp4a.40.2")),
            0x05 | 0x08 | 0x0a..=0x0d | 0x13 | 0x14 => Self::Sections,
            // Blu-ray defines private types of its own, without descriptors of the streams.
            0x80..=0x86 if registration(program) == Some(b"HDMV") => Self::Audio(match stream_type {
                0x81 => Audio::Named("ac-3"),
                0x84 => Audio::Named("ec-3"),
                0x82 => Audio::Named("dtsc"),
                _ => Audio::Nameless,
            }),
            0x06 | 0x80.. => Self::private(stream_type, descriptors),
            _ => Self::Other,
        }
    }

    /// Returns the kind of private data and user private types, which the descriptors distinguish.
    fn private(stream_type: u8, descriptors: &[u8]) -> Self {
        let named = |name| Self::Audio(Audio::Named(name));
        match registration(descriptors).map(|r| &r[..]) {
            Some(b"AC-3") => return named("ac-3"),
            Some(b"EAC3") => return named("ec-3"),
            Some(b"DTS1" | b"DTS2" | b"DTS3") => return named("dtsc"),
            Some(b"Opus") => return named("opus"),
            // SMPTE 302M, which has no name in RFC 6381.
            Some(b"BSSD") => return Self::Audio(Audio::Nameless),
            Some(b"HEVC") => return Self::Video(Video::Nal(VideoCodec::H265)),
            Some(b"AV01" | b"VC-1" | b"drac") => return Self::Video(Video::Nal(VideoCodec::Unknown)),
            // Splice information of SCTE 35: sections, no PES packets.
            Some(b"CUEI") => return Self::Sections,
            _ => {}
        }
        let tagged = Descriptors(descriptors).find_map(|(tag, _)| match tag {
            0x6a => Some(named("ac-3")),
            0x7a => Some(named("ec-3")),
            0x7b => Some(named("dtsc")),
            0x7c => Some(named("mp4a.40.2")),
            _ => None,
        });
        match (tagged, stream_type) {
            (Some(kind), _) => kind,
            // The types of ATSC, and 0x86 of SCTE 35, need no descriptor.
            (None, 0x81) => named("ac-3"),
            (None, 0x87) => named("ec-3"),
            (None, 0x8a) => named("dtsc"),
            (None, 0x86) => Self::Sections,
            _ => Self::Other,
        }
    }

    /// Returns the kind of a private stream whose PES packet has a stream_id of audio and begins with an audio frame.
    pub(super) fn of_sound(stream_id: u8, data: &[u8]) -> Option<Self> {
        if !matches!(stream_id, 0xc0..=0xdf) {
            return None;
        }
        let audio = match *data {
            // Layer 0 means ADTS. With a reserved version, bit rate or sampling rate it is no audio frame.
            [0xff, b1, b2, ..] if b1 & 0xf6 == 0xf0 && b2 >> 2 & 0xf < 13 => Audio::Adts,
            [0xff, b1, b2, ..] if b1 >> 5 == 7 && b1 >> 3 & 3 != 1 && b1 >> 1 & 3 != 0 && b2 >> 4 != 15 => Audio::Mpeg,
            [0x56, b1, ..] if b1 & 0xe0 == 0xe0 => Audio::Named("mp4a.40.2"),
            _ => return None,
        };
        Some(Self::Audio(audio))
    }

    /// Returns the RFC 6381 name if the PMT determines it. ADTS signals AAC LC even for HE-AAC; the frames show other profiles.
    pub(super) fn name(self) -> Option<String> {
        match self {
            Self::Audio(Audio::Named(name)) => Some(name.to_owned()),
            Self::Audio(Audio::Adts) => Some("mp4a.40.2".to_owned()),
            _ => None,
        }
    }

    /// Returns the RFC 6381 name from the first frame of an audio stream whose PMT does not determine it.
    pub(super) fn name_from_frame(self, frame: &[u8]) -> Option<String> {
        let &[0xff, b1, b2, ..] = frame else { return None };
        match (self, b1 >> 1 & 3) {
            (Self::Audio(Audio::Adts), 0) if b1 >> 4 == 0xf => Some(format!("mp4a.40.{}", (b2 >> 6) + 1)),
            // layer: 3 is I, 2 is II, 1 is III; the audio object types are 32, 33, 34.
            (Self::Audio(Audio::Mpeg), layer @ 1..=3) if b1 >> 5 == 7 => Some(format!("mp4a.40.{}", 35 - layer)),
            _ => None,
        }
    }
}

/// Returns the format_identifier of the first registration descriptor (2.6.8).
fn registration(descriptors: &[u8]) -> Option<&[u8; 4]> {
    Descriptors(descriptors).find_map(|(tag, body)| if tag == 5 { body.first_chunk::<4>() } else { None })
}

/// Returns `av01.P.LLT.DD` from the AV1 video descriptor, which has the layout of the configuration record.
pub(super) fn av1_name(descriptors: &[u8]) -> Option<String> {
    registration(descriptors).filter(|format| *format == b"AV01")?;
    Descriptors(descriptors).find_map(|(tag, body)| if tag == 0x80 { codec::av1_from_record(body) } else { None })
}

/// Iterates over the descriptors: tag and body of each.
struct Descriptors<'a>(&'a [u8]);

impl<'a> Iterator for Descriptors<'a> {
    type Item = (u8, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (&[tag, len], rest) = self.0.split_first_chunk::<2>()?;
        let (body, rest) = rest.split_at_checked(usize::from(len))?;
        self.0 = rest;
        Some((tag, body))
    }
}
