//! Parses the `Tracks` element: what the streams are, and how their blocks are parsed.
//!
//! PURE. Sources: RFC 9559 5.1.4, the Matroska codec mappings (draft-ietf-cellar-codec), the codec
//! registrations for `vp09` (VP Codec ISO Media File Format Binding) and `av01` (AV1 Codec ISO Media File Format Binding 5).

use std::hash::{DefaultHasher, Hash, Hasher};

use super::super::codec;
use super::super::nal::{self, Framing, VideoCodec};
use super::super::{StreamInfo, Track, work};
use super::ebml::{self, Malformed};

pub(super) const TRACK_ENTRY: u32 = 0xAE;
pub(super) const TRACK_NUMBER: u32 = 0xD7;
const TRACK_TYPE: u32 = 0x83;
pub(super) const CODEC_ID: u32 = 0x86;
pub(super) const CODEC_PRIVATE: u32 = 0x63A2;
const DEFAULT_DURATION: u32 = 0x0023_E383;
pub(super) const VIDEO: u32 = 0xE0;
const AUDIO: u32 = 0xE1;
const CONTENT_ENCODINGS: u32 = 0x6D80;
const CONTENT_ENCODING: u32 = 0x6240;
const CONTENT_ENCODING_SCOPE: u32 = 0x5032;
const CONTENT_ENCODING_TYPE: u32 = 0x5033;
const CONTENT_COMPRESSION: u32 = 0x5034;
const CONTENT_COMP_ALGO: u32 = 0x4254;
const CONTENT_COMP_SETTINGS: u32 = 0x4255;

/// Maximum number of tracks of a Segment, so that finding the track of a block takes bounded time. Real files have far fewer:
/// track numbers over 127 do not occur in practice.
const MAX_TRACKS: usize = 256;

/// One `TrackEntry`.
#[derive(Clone, Debug)]
pub(super) struct TrackEntry {
    pub(super) number: u64,
    /// The track of its units: only the first video track is [`Track::Video`] and only the first audio track is
    /// [`Track::Audio`].
    pub(super) track: Track,
    /// What it contains, also if it is a further track of that kind.
    kind: Track,
    pub(super) codec: VideoCodec,
    pub(super) framing: Option<Framing>,
    /// Bytes that header stripping removed from the front of each frame.
    pub(super) stripped: Vec<u8>,
    /// `DefaultDuration` of a frame in ns.
    pub(super) default_duration: Option<u64>,
    /// Duration of an AAC frame in ns, from `CodecPrivate`.
    pub(super) frame_duration: Option<u64>,
    /// Hash of the parameter sets in `CodecPrivate`, comparable with [`nal::Picture::config`].
    pub(super) parameter_sets: Option<u64>,
    /// The parameter sets in `CodecPrivate`.
    pub(super) record: Vec<nal::ParameterSet>,
    /// The first SPS of H.264 in `CodecPrivate`.
    pub(super) sps: Option<Vec<u8>>,
    name: Option<String>,
}

/// All tracks of a segment.
#[derive(Clone, Debug, Default)]
pub(super) struct Tracks {
    pub(super) entries: Vec<TrackEntry>,
    /// Hash of the elements that configure a decoder: equal for two `Tracks` that differ only in names, languages or UIDs.
    pub(super) config: u64,
}

impl Tracks {
    /// Parses the data of a `Tracks` element.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Malformed> {
        work::count(body.len());
        let mut hasher = DefaultHasher::new();
        let mut entries: Vec<TrackEntry> = Vec::new();
        let mut has_video = false;
        let mut has_audio = false;
        for child in ebml::children(body) {
            let child = child?;
            if child.id == TRACK_ENTRY {
                let raw = RawEntry::parse(child.body)?;
                raw.hash(&mut hasher);
                if entries.len() >= MAX_TRACKS {
                    return Err(Malformed);
                }
                let entry = raw.entry(has_video, has_audio);
                has_video |= entry.track == Track::Video;
                has_audio |= entry.track == Track::Audio;
                entries.push(entry);
            }
        }
        Ok(Self {
            entries,
            config: hasher.finish(),
        })
    }

    pub(super) fn find(&self, number: u64) -> Option<&TrackEntry> {
        self.entries.iter().find(|e| e.number == number)
    }

    pub(super) fn has(&self, track: Track) -> bool {
        self.entries.iter().any(|e| e.track == track)
    }

    /// Returns the first video track, whose pictures decide on cuts.
    pub(super) fn video(&self) -> Option<&TrackEntry> {
        self.entries.iter().find(|e| e.track == Track::Video)
    }

    /// Returns the description of the streams. `video` replaces the name of the video codec if parameter sets in band differ.
    pub(super) fn info(&self, video: Option<&str>) -> StreamInfo {
        let of = |kind| self.entries.iter().filter(move |e| e.kind == kind);
        let video = of(Track::Video).map(|e| video.filter(|_| e.track == Track::Video).or(e.name.as_deref()));
        let mut names = Vec::new();
        for name in video.chain(of(Track::Audio).map(|e| e.name.as_deref())) {
            // Each name once: a file may have one audio track per language, all with the same codec.
            if !names.contains(&name) {
                names.push(name);
            }
        }
        StreamInfo {
            codecs: codec::join(names),
            has_video: self.has(Track::Video),
            has_audio: self.has(Track::Audio),
        }
    }
}

/// The elements of a `TrackEntry` that a decoder needs, unparsed.
#[derive(Default, Hash)]
struct RawEntry<'a> {
    number: u64,
    kind: u64,
    codec_id: &'a [u8],
    private: &'a [u8],
    video: &'a [u8],
    audio: &'a [u8],
    encodings: &'a [u8],
    default_duration: Option<u64>,
}

impl<'a> RawEntry<'a> {
    fn parse(body: &'a [u8]) -> Result<Self, Malformed> {
        let mut raw = Self::default();
        for child in ebml::children(body) {
            let child = child?;
            match child.id {
                TRACK_NUMBER => raw.number = ebml::uint(child.body).ok_or(Malformed)?,
                TRACK_TYPE => raw.kind = ebml::uint(child.body).ok_or(Malformed)?,
                CODEC_ID => raw.codec_id = ebml::string(child.body),
                CODEC_PRIVATE => raw.private = child.body,
                DEFAULT_DURATION => raw.default_duration = ebml::uint(child.body).filter(|&d| d > 0),
                VIDEO => raw.video = child.body,
                AUDIO => raw.audio = child.body,
                CONTENT_ENCODINGS => raw.encodings = child.body,
                _ => {}
            }
        }
        Ok(raw)
    }

    fn entry(&self, has_video: bool, has_audio: bool) -> TrackEntry {
        let encoding = Encoding::parse(self.encodings);
        let private = if encoding.is_private_plain { self.private } else { &[] };
        let kind = match self.kind {
            1 => Track::Video,
            2 => Track::Audio,
            _ => Track::Other,
        };
        let is_further = match kind {
            Track::Video => has_video,
            Track::Audio => has_audio,
            Track::Other => false,
        };
        let track = if is_further { Track::Other } else { kind };
        let codec = match (&encoding.stripped, self.codec_id) {
            (None, _) => VideoCodec::Unknown,
            (_, b"V_MPEG4/ISO/AVC") => VideoCodec::H264,
            (_, b"V_MPEGH/ISO/HEVC") => VideoCodec::H265,
            (_, b"V_VP8") => VideoCodec::Vp8,
            (_, b"V_VP9") => VideoCodec::Vp9,
            (_, b"V_AV1") => VideoCodec::Av1,
            _ => VideoCodec::Unknown,
        };
        TrackEntry {
            number: self.number,
            track,
            kind,
            codec,
            framing: framing(codec, private),
            stripped: encoding.stripped.unwrap_or_default(),
            default_duration: self.default_duration,
            frame_duration: Some(private)
                .filter(|_| self.codec_id == b"A_AAC")
                .and_then(codec::aac_frame_duration),
            parameter_sets: codec::parameter_sets(codec, private),
            record: codec::record_sets(codec, private),
            sps: codec::avc_first_sps(private)
                .filter(|_| codec == VideoCodec::H264)
                .map(<[u8]>::to_vec),
            name: name(self.codec_id, private),
        }
    }
}

/// Effect of `ContentEncodings` on frames and on `CodecPrivate`.
struct Encoding {
    /// Bytes to put back in front of frames; `None` if the frames cannot be parsed (compressed, encrypted).
    stripped: Option<Vec<u8>>,
    is_private_plain: bool,
}

impl Encoding {
    fn parse(body: &[u8]) -> Self {
        let mut all = Self {
            stripped: Some(Vec::new()),
            is_private_plain: true,
        };
        let mut count = 0usize;
        for child in ebml::children(body).flatten().filter(|c| c.id == CONTENT_ENCODING) {
            let (scope, stripped) = encoding(child.body);
            // The scope is a set of bits: 1 is all frames, 2 is CodecPrivate.
            all.is_private_plain &= scope & 2 == 0;
            if scope & 1 != 0 {
                count += 1;
                // Two encodings of the frames are legal but do not occur in practice: not supported.
                all.stripped = stripped.filter(|_| count == 1);
            }
        }
        all
    }
}

/// Returns the scope of one `ContentEncoding`, and the stripped bytes if header stripping is all it does (RFC 9559 5.1.4.1.31).
fn encoding(body: &[u8]) -> (u64, Option<Vec<u8>>) {
    // The defaults: all frames, compression, zlib. Unreadable values below count as the worst case, so that such frames are not
    // parsed.
    let (mut scope, mut kind, mut algo, mut settings) = (1, 0, 0, &[][..]);
    for child in ebml::children(body).flatten() {
        match child.id {
            CONTENT_ENCODING_SCOPE => scope = ebml::uint(child.body).unwrap_or(3),
            CONTENT_ENCODING_TYPE => kind = ebml::uint(child.body).unwrap_or(1),
            CONTENT_COMPRESSION => {
                for child in ebml::children(child.body).flatten() {
                    match child.id {
                        CONTENT_COMP_ALGO => algo = ebml::uint(child.body).unwrap_or(0),
                        CONTENT_COMP_SETTINGS => settings = child.body,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    // 3 is header stripping. Limited, because the bytes are copied in front of every frame.
    let strips = kind == 0 && algo == 3 && settings.len() <= 1024;
    (scope, strips.then(|| settings.to_vec()))
}

/// Returns how NAL units are delimited; `None` means that the first bytes of a frame decide.
fn framing(codec: VideoCodec, private: &[u8]) -> Option<Framing> {
    // configurationVersion is 1 in every record.
    if private.first() != Some(&1) {
        return None;
    }
    let size = match codec {
        VideoCodec::H264 => codec::avc_length_size(private),
        VideoCodec::H265 => codec::hevc_length_size(private),
        _ => None,
    };
    size.map(Framing::Length)
}

/// Returns the RFC 6381 name of a Matroska codec.
fn name(codec_id: &[u8], private: &[u8]) -> Option<String> {
    let fixed = match codec_id {
        b"V_MPEG4/ISO/AVC" => return codec::avc_from_record(private),
        b"V_MPEGH/ISO/HEVC" => return codec::hevc_from_record(private),
        b"V_VP9" => return Some(vp9_name(private).unwrap_or_else(|| "vp9".into())),
        b"V_MPEG2" if !private.is_empty() => return Some(codec::mpeg2_name(private)),
        b"V_AV1" => return Some(codec::av1_from_record(private).unwrap_or_else(|| "av01".into())),
        b"A_AAC" => return Some(codec::aac_from_config(private).unwrap_or_else(|| "mp4a.40.2".into())),
        // WAVEFORMATEX begins with wFormatTag, little endian.
        b"A_MS/ACM" => match private {
            [6, 0, ..] => "alaw",
            [7, 0, ..] => "ulaw",
            [0x55, 0, ..] => "mp4a.40.34",
            _ => return None,
        },
        b"V_VP8" => "vp8",
        b"V_THEORA" => "theora",
        b"V_MJPEG" => "mjpeg",
        b"A_OPUS" => "opus",
        b"A_VORBIS" => "vorbis",
        b"A_FLAC" => "flac",
        b"V_MPEG1" => "mp4v.6A",
        b"A_MPEG/L3" => "mp4a.40.34",
        b"A_MPEG/L2" => "mp4a.40.33",
        b"A_MPEG/L1" => "mp4a.40.32",
        b"A_AC3" => "ac-3",
        b"A_EAC3" => "ec-3",
        _ if codec_id.starts_with(b"A_AAC/MPEG4/LC") || codec_id.starts_with(b"A_AAC/MPEG2/LC") => "mp4a.40.2",
        _ => return None,
    };
    Some(fixed.into())
}

/// Returns `vp09.PP.LL.DD` from the VP9 CodecPrivate of WebM: a list of features, each with ID, length and value.
fn vp9_name(private: &[u8]) -> Option<String> {
    let feature = |id| {
        let mut rest = private;
        while let [this, 1, value, after @ ..] = rest {
            if *this == id {
                return Some(*value);
            }
            rest = after;
        }
        None
    };
    let (profile, level, depth) = (feature(1)?, feature(2)?, feature(3).unwrap_or(8));
    Some(format!("vp09.{profile:02}.{level:02}.{depth:02}"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::track;
    use super::*;

    #[test]
    fn codecs_are_named_from_their_private_data() {
        assert_eq!(name(b"V_VP9", &[]).as_deref(), Some("vp9"));
        assert_eq!(
            name(b"V_VP9", &[1, 1, 0, 2, 1, 31, 3, 1, 8, 4, 1, 1]).as_deref(),
            Some("vp09.00.31.08")
        );
        assert_eq!(name(b"V_AV1", &[0x81, 0x04, 0x0c, 0]).as_deref(), Some("av01.0.04M.08"));
        assert_eq!(name(b"V_AV1", &[0x81, 0x28, 0xcc, 0]).as_deref(), Some("av01.1.08H.10"));
        assert_eq!(name(b"A_MS/ACM", &[6, 0, 1, 0]).as_deref(), Some("alaw"));
        assert_eq!(name(b"A_AAC", &[0x2b, 0x10]).as_deref(), Some("mp4a.40.5"));
        assert_eq!(
            name(b"V_MPEG2", &[0, 0, 1, 0xb3, 0, 0, 0, 1, 0xb5, 0x14, 0]).as_deref(),
            Some("mp4v.61")
        );
        assert_eq!(name(b"A_MPEG/L2", &[]).as_deref(), Some("mp4a.40.33"));
        assert_eq!(name(b"V_UNCOMPRESSED", &[]), None);
    }

    #[test]
    fn the_codecs_of_all_tracks_are_named_or_none() {
        let aac = track(2, 2, "A_AAC", &[0x12, 0x10], &[]);
        let named = |further: &[Vec<u8>]| {
            let all = [&[track(1, 1, "V_VP8", &[], &[]), aac.clone()], further].concat().concat();
            Tracks::parse(&all).unwrap().info(None).codecs
        };
        let (opus, vp9) = (track(3, 2, "A_OPUS", &[], &[]), track(4, 1, "V_VP9", &[], &[]));
        let (text, unknown) = (track(5, 17, "S_TEXT/UTF8", &[], &[]), track(6, 2, "A_QUICKTIME", &[], &[]));
        assert_eq!(named(std::slice::from_ref(&text)).as_deref(), Some("vp8,mp4a.40.2"));
        assert_eq!(named(&[opus, vp9, text]).as_deref(), Some("vp8,vp9,mp4a.40.2,opus"));
        assert_eq!(named(&[unknown]), None);
    }

    #[test]
    fn the_parameter_sets_of_codec_private_hash_as_those_in_band() {
        let record = [1, 0x64, 0, 40, 0xff, 0xe1, 0, 4, 0x67, 0x64, 0, 40, 1, 0, 2, 0x68, 1];
        let in_band = [0, 0, 0, 4, 0x67, 0x64, 0, 40, 0, 0, 0, 2, 0x68, 1, 0, 0, 0, 2, 0x65, 1];
        let picture = nal::classify(VideoCodec::H264, Framing::Length(4), &in_band, true, false).unwrap();
        assert!(picture.config.is_some());
        assert_eq!(codec::parameter_sets(VideoCodec::H264, &record), picture.config);
        assert_eq!(codec::parameter_sets(VideoCodec::H264, &record[..10]), None);
    }
}
