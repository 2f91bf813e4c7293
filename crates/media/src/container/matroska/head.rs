//! Gathers the head of a Matroska document: everything before its first Cluster, changed so that it fits before any Cluster.
//!
//! PURE. Sources: RFC 9559 5.1, RFC 8794 11. Elements that are valid only for the whole file are neutralised without moving a
//! byte: the Segment's size becomes unknown; SeekHead, Cues and Info's Duration become Void elements, and so does a CRC-32 that
//! is no longer correct. A streamable head has none of these and stays unchanged.

use std::ops::Range;

use super::super::MAX_GATHER;
use super::super::feed::len64;
use super::ebml::{self, Malformed, Read};
use super::tracks::Tracks;

/// `Segment` (RFC 9559 5.1).
pub(super) const SEGMENT: u32 = 0x1853_8067;
/// `SeekHead` (RFC 9559 5.1.1).
pub(super) const SEEK_HEAD: u32 = 0x114D_9B74;
/// `Info` (RFC 9559 5.1.2).
pub(super) const INFO: u32 = 0x1549_A966;
/// `Cluster` (RFC 9559 5.1.3).
pub(super) const CLUSTER: u32 = 0x1F43_B675;
/// `Tracks` (RFC 9559 5.1.4).
pub(super) const TRACKS: u32 = 0x1654_AE6B;
/// `Cues` (RFC 9559 5.1.5).
pub(super) const CUES: u32 = 0x1C53_BB6B;
/// `Attachments` (RFC 9559 5.1.6).
pub(super) const ATTACHMENTS: u32 = 0x1941_A469;
/// `Chapters` (RFC 9559 5.1.7).
pub(super) const CHAPTERS: u32 = 0x1043_A770;
/// `Tags` (RFC 9559 5.1.8).
pub(super) const TAGS: u32 = 0x1254_C367;

pub(super) const TIMESTAMP_SCALE: u32 = 0x2A_D7B1;
const DURATION: u32 = 0x4489;

/// Default of `TimestampScale` in ns: 1 ms.
pub(super) const DEFAULT_SCALE: u64 = 1_000_000;

/// Maximum size in bytes of an EBML header, which contains seven small numbers and a name.
pub(super) const MAX_EBML_HEADER: u64 = 64 << 10;

/// Returns whether `id` is a child element of a Segment other than Cluster.
pub(super) fn is_segment_level(id: u32) -> bool {
    matches!(id, SEEK_HEAD | INFO | TRACKS | CUES | ATTACHMENTS | CHAPTERS | TAGS)
}

/// Returns whether an element belongs into a Cluster: the children of a Segment have IDs of four octets, except Void and CRC-32,
/// which may be in both.
fn is_of_cluster(header: &ebml::Header) -> bool {
    header.id_len < 4 && !matches!(header.id, ebml::VOID | ebml::CRC_32)
}

/// Outcome of an attempt to read the next element of the head.
pub(super) enum Progress {
    /// At least this many bytes of the element are needed.
    Need(usize),
    /// This many bytes belong to the head.
    Took(u64),
    /// The first Cluster begins here.
    Ended,
    /// The rest of a Cluster begins here: a server sent the head to a client that joined in mid-stream.
    Joined,
    /// These bytes cannot be in a head.
    Damaged,
    /// The head would have this many bytes, which exceeds the limit.
    TooLarge(u64),
}

/// A head being gathered.
#[derive(Debug)]
pub(super) struct Head {
    /// Offset of its EBML header in the input.
    pub(super) start: u64,
    /// The neutralised bytes.
    pub(super) bytes: Vec<u8>,
    /// Range of the Tracks element in `bytes`.
    pub(super) tracks_at: Range<usize>,
    pub(super) tracks: Option<Tracks>,
    /// `TimestampScale`, ns.
    pub(super) scale: u64,
    pub(super) is_webm: bool,
    /// Offset in the input where a Segment of known size ends.
    pub(super) segment_end: Option<u64>,
    level: Level,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Level {
    /// Before the EBML header.
    Start,
    /// After it.
    Document,
    /// In the Segment.
    Segment,
}

impl Head {
    pub(super) fn new(start: u64) -> Self {
        Self {
            start,
            bytes: Vec::new(),
            tracks_at: 0..0,
            tracks: None,
            scale: DEFAULT_SCALE,
            is_webm: false,
            segment_end: None,
            level: Level::Start,
        }
    }

    /// Reads the element that begins with `view`, at offset `pos` of the input.
    pub(super) fn read(&mut self, pos: u64, view: &[u8]) -> Progress {
        let header = match ebml::header(view) {
            Read::Need(n) => return Progress::Need(n),
            Read::Bad => return Progress::Damaged,
            Read::Got(header) => header,
        };
        match (self.level, header.id) {
            (Level::Document, SEGMENT) => return self.segment(pos, view, &header),
            (Level::Segment, CLUSTER) => return Progress::Ended,
            (Level::Segment, _) if self.tracks.is_some() && is_of_cluster(&header) => return Progress::Joined,
            (Level::Start, ebml::EBML) if header.size.is_some_and(|s| s <= MAX_EBML_HEADER) => {}
            (Level::Start, _) | (_, ebml::EBML | SEGMENT) => return Progress::Damaged,
            (Level::Document, id) if id != ebml::VOID => return Progress::Damaged,
            _ => {}
        }
        let Some(total) = header.size.and_then(|size| size.checked_add(len64(header.len))) else {
            return Progress::Damaged;
        };
        if self
            .segment_end
            .is_some_and(|end| pos.checked_add(total).is_none_or(|at| at > end))
        {
            return Progress::Damaged;
        }
        let whole = match usize::try_from(total) {
            Ok(n) if n <= MAX_GATHER.saturating_sub(self.bytes.len()) => n,
            // A known element may really be this large, which the user has to know; any other is damage.
            _ if is_segment_level(header.id) || header.id == ebml::VOID => {
                return Progress::TooLarge(total.saturating_add(len64(self.bytes.len())));
            }
            _ => return Progress::Damaged,
        };
        match view.get(..whole) {
            None => Progress::Need(whole),
            Some(element) => match self.element(header.id, header.len, element) {
                Ok(()) => Progress::Took(total),
                Err(Malformed) => Progress::Damaged,
            },
        }
    }

    fn segment(&mut self, pos: u64, view: &[u8], header: &ebml::Header) -> Progress {
        let Some(octets) = view.get(..header.len) else {
            return Progress::Need(header.len);
        };
        let len = len64(header.len);
        // The copy gets an unknown size, but the announced size still limits the elements that are read here.
        self.segment_end = header.size.and_then(|size| pos.checked_add(len)?.checked_add(size));
        let at = self.bytes.len() + header.id_len;
        self.bytes.extend_from_slice(octets);
        ebml::make_size_unknown(self.bytes.get_mut(at..).unwrap_or_default());
        self.level = Level::Segment;
        Progress::Took(len)
    }

    /// Takes a complete element.
    fn element(&mut self, id: u32, header_len: usize, element: &[u8]) -> Result<(), Malformed> {
        let body = element.get(header_len..).unwrap_or_default();
        let at = self.bytes.len();
        match id {
            ebml::EBML => {
                self.is_webm = is_webm(body)?;
                self.bytes.extend_from_slice(element);
                self.level = Level::Document;
            }
            TRACKS => {
                self.tracks = Some(Tracks::parse(body)?);
                self.bytes.extend_from_slice(element);
                self.tracks_at = at..self.bytes.len();
            }
            INFO => {
                let info = Info::parse(body)?;
                self.scale = info.scale;
                self.bytes.extend_from_slice(element);
                for range in info.neutralise {
                    self.make_void(at + header_len + range.start..at + header_len + range.end);
                }
            }
            // A CRC-32 at this level covers the whole Segment, which no chunk contains.
            SEEK_HEAD | CUES | ebml::CRC_32 => {
                self.bytes.extend_from_slice(element);
                self.make_void(at..at + element.len());
            }
            _ => self.bytes.extend_from_slice(element),
        }
        Ok(())
    }

    fn make_void(&mut self, range: Range<usize>) {
        ebml::make_void(self.bytes.get_mut(range).unwrap_or_default());
    }
}

/// Reads `DocType`. Returns whether it is `webm`.
///
/// # Errors
/// [`Malformed`] if it is neither `webm` nor `matroska`.
fn is_webm(body: &[u8]) -> Result<bool, Malformed> {
    let mut is_webm = false;
    for child in ebml::children(body) {
        let child = child?;
        if child.id == ebml::DOC_TYPE {
            is_webm = match ebml::string(child.body) {
                b"webm" => true,
                b"matroska" => false,
                _ => return Err(Malformed),
            };
        }
    }
    Ok(is_webm)
}

/// The children of Info that are read here.
struct Info {
    scale: u64,
    /// Ranges in the data of Info to be overwritten with Void: Duration, and with it the CRC-32.
    neutralise: Vec<Range<usize>>,
}

impl Info {
    fn parse(body: &[u8]) -> Result<Self, Malformed> {
        let mut scale = DEFAULT_SCALE;
        let mut neutralise = Vec::new();
        let mut has_duration = false;
        for child in ebml::children(body) {
            let child = child?;
            match child.id {
                TIMESTAMP_SCALE => scale = ebml::uint(child.body).filter(|&s| s > 0).unwrap_or(DEFAULT_SCALE),
                DURATION | ebml::CRC_32 => {
                    has_duration |= child.id == DURATION;
                    neutralise.push(child.at..child.at + child.total);
                }
                _ => {}
            }
        }
        // Without a Duration nothing changes, so the CRC-32 stays correct.
        if !has_duration {
            neutralise.clear();
        }
        Ok(Self { scale, neutralise })
    }
}
