//! Parses SimpleBlock and Block: track, time, frames, and whether decoding can begin with them.
//!
//! PURE. Sources: RFC 9559 10.1 (Block structure), 10.2 (SimpleBlock structure), 10.3 (lacing).

use std::borrow::Cow;
use std::ops::Range;

use super::super::fields::Fields;
use super::super::nal::{self, Framing, MAX_PREFIX, Part, Picture, VideoCodec};
use super::super::{Key, work};
use super::ebml::{self, Read};
use super::tracks::TrackEntry;

/// SimpleBlock flag: all frames are key frames.
const KEYFRAME: u8 = 0x80;

/// Maximum number of coded bytes of parameter sets that came in blocks of their own and are joined with the next picture: 64 KiB.
pub(super) const MAX_LEAD: usize = 64 << 10;

/// The header of a block, up to the flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// Track number.
    pub(super) number: u64,
    /// Timestamp relative to the Cluster's.
    pub(super) relative: i16,
    /// The key frame flag of a SimpleBlock.
    pub(super) flagged: bool,
    lacing: Lacing,
    /// Octets of this header.
    len: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lacing {
    None,
    Xiph,
    Fixed,
    Ebml,
}

impl Block {
    /// Reads the header at the start of a block's data.
    pub(super) fn parse(body: &[u8]) -> Read<Self> {
        let (number, n) = match ebml::vint(body) {
            Read::Got(number) => number,
            Read::Need(n) => return Read::Need(n),
            Read::Bad => return Read::Bad,
        };
        let Some(&[high, low, flags]) = body.get(n..n + 3) else {
            return Read::Need(n + 3);
        };
        let lacing = match flags >> 1 & 3 {
            0 => Lacing::None,
            1 => Lacing::Xiph,
            2 => Lacing::Fixed,
            _ => Lacing::Ebml,
        };
        let relative = i16::from_be_bytes([high, low]);
        Read::Got(Self {
            number,
            relative,
            flagged: flags & KEYFRAME != 0,
            lacing,
            len: n + 3,
        })
    }

    /// Returns the number of frames; `None` if the byte with the count is missing.
    pub(super) fn frames(&self, body: &[u8]) -> Option<u64> {
        match self.lacing {
            Lacing::None => Some(1),
            _ => body.get(self.len).map(|&n| u64::from(n) + 1),
        }
    }

    /// Returns the position of the first frame in the block's data; `None` if more bytes are needed.
    fn first_frame(&self, body: &[u8]) -> Option<usize> {
        if self.lacing == Lacing::None {
            return Some(self.len);
        }
        let sizes = *body.get(self.len)?;
        let mut at = self.len + 1;
        match self.lacing {
            Lacing::None | Lacing::Fixed => {}
            Lacing::Xiph => {
                for _ in 0..sizes {
                    // 255 means that the size continues in the next byte (10.3.2).
                    while *body.get(at)? == 0xff {
                        at += 1;
                    }
                    at += 1;
                }
            }
            Lacing::Ebml => {
                for _ in 0..sizes {
                    at += body.get(at)?.leading_zeros() as usize + 1;
                }
            }
        }
        Some(at)
    }

    /// Returns the range of each frame in the block's data, which must be complete. Returns `None` if the laced sizes exceed it.
    pub(super) fn frames_in(&self, body: &[u8]) -> Option<Vec<Range<usize>>> {
        let count = usize::try_from(self.frames(body)?).ok()?;
        let first = self.first_frame(body)?;
        let mut at = self.len + 1;
        let mut sizes: Vec<usize> = Vec::with_capacity(count);
        match self.lacing {
            Lacing::None => {}
            Lacing::Fixed => sizes.resize(count - 1, body.len().checked_sub(first)?.checked_div(count)?),
            Lacing::Xiph => {
                for _ in 1..count {
                    let mut size = 0;
                    while *body.get(at)? == 0xff {
                        (size, at) = (size + 0xff, at + 1);
                    }
                    sizes.push(size + usize::from(*body.get(at)?));
                    at += 1;
                }
            }
            Lacing::Ebml => {
                for index in 1..count {
                    let Read::Got((value, len)) = ebml::vint(body.get(at..)?) else {
                        return None;
                    };
                    let value = i64::try_from(value).ok()?;
                    // The first is a size; the others are differences, biased to be positive (RFC 9559 10.3.3).
                    let size = match sizes.last() {
                        Some(last) if index > 1 => {
                            let bias = (1i64 << (7 * len - 1)) - 1;
                            i64::try_from(*last).ok()?.checked_add(value - bias)?
                        }
                        _ => value,
                    };
                    sizes.push(usize::try_from(size).ok()?);
                    at += len;
                }
            }
        }
        let mut ranges = Vec::with_capacity(count);
        let mut from = first;
        for size in sizes {
            let end = from.checked_add(size).filter(|end| *end <= body.len())?;
            ranges.push(from..end);
            from = end;
        }
        // The size of the last frame is not coded: it is the rest of the block.
        ranges.push(from..body.len().max(from));
        Some(ranges)
    }

    /// Classifies the first frame. `body` is the available part of the block's data; `is_all` means that it is complete. `lead`
    /// are coded bytes in front of the frame that came in blocks of their own. Returns `None` if more bytes are needed, but never
    /// if `is_all` or with [`MAX_PREFIX`] bytes.
    pub(super) fn classify(
        &self,
        entry: &TrackEntry,
        lead: &[u8],
        fields: &mut Fields,
        body: &[u8],
        (is_all, flagged): (bool, bool),
    ) -> Option<Classified> {
        let head = body.get(..MAX_PREFIX).unwrap_or(body);
        let frame = match self.first_frame(head) {
            Some(at) => body.get(at..).unwrap_or_default(),
            None if is_all || head.len() == MAX_PREFIX => &[],
            None => return None,
        };
        // Header stripping is undone only for codecs that are parsed.
        let stripped: &[u8] = if entry.codec == VideoCodec::Unknown {
            &[]
        } else {
            &entry.stripped
        };
        // Limited, so that the result does not depend on how many bytes are available.
        let most = MAX_PREFIX.saturating_sub(lead.len() + stripped.len());
        let rest = frame.get(..most).unwrap_or(frame);
        let complete = is_all && rest.len() == frame.len();
        let own = if stripped.is_empty() {
            Cow::Borrowed(rest)
        } else {
            Cow::Owned([stripped, rest].concat())
        };
        // Without `lead` first: many prefix blocks in a row would otherwise each be read together with all blocks before them,
        // which takes quadratic time.
        let framing = framing_of(entry, &own, complete)?;
        let alone = nal::classify(entry.codec, framing, &own, complete, flagged)?;
        if alone.part == Part::Prefix && own.len() <= MAX_LEAD {
            return Some(Classified {
                in_band: nal::parameter_sets(entry.codec, framing, &own),
                coded: own.into_owned(),
                picture: alone,
                ..Classified::no_key()
            });
        }
        if lead.is_empty() {
            return classify_frame(entry, framing, fields, &own, (alone, complete));
        }
        work::count(lead.len() + own.len());
        let joined = [lead, &own].concat();
        let picture = nal::classify(entry.codec, framing, &joined, complete, flagged)?;
        classify_frame(entry, framing, fields, &joined, (picture, complete))
    }
}

/// Result of [`Block::classify`].
#[derive(Clone, Debug)]
pub(super) struct Classified {
    pub(super) picture: Picture,
    /// The first bytes of the SPS of a key frame, if it has one in band.
    pub(super) sps: Vec<u8>,
    /// The parameter sets in band.
    pub(super) in_band: Vec<nal::ParameterSet>,
    /// Whether it is the second field of the previous picture.
    pub(super) is_second_field: bool,
    /// The coded bytes, if the frame contains only parameter sets, SEI or a delimiter; otherwise empty.
    pub(super) coded: Vec<u8>,
}

impl Classified {
    /// Returns the result for a frame that is too short to be classified.
    pub(super) fn no_key() -> Self {
        Self {
            picture: Picture::plain(Key::No),
            sps: Vec::new(),
            in_band: Vec::new(),
            is_second_field: false,
            coded: Vec::new(),
        }
    }
}

/// Returns how the NAL units of a frame are delimited; `None` if more bytes are needed.
fn framing_of(entry: &TrackEntry, frame: &[u8], complete: bool) -> Option<Framing> {
    match entry.framing {
        Some(framing) => Some(framing),
        // Without a configuration record: Annex B is not legal in Matroska, but some write it.
        None if matches!(entry.codec, VideoCodec::H264 | VideoCodec::H265) => match frame {
            [0, 0, 1, ..] | [0, 0, 0, 1, ..] => Some(Framing::AnnexB),
            [_, _, _, _, ..] => Some(Framing::Length(4)),
            _ if complete => Some(Framing::Length(4)),
            _ => None,
        },
        None => Some(Framing::Length(4)),
    }
}

/// Completes the result for a frame that has a slice, or that is too long to be a prefix. Returns `None` if more bytes are
/// needed.
fn classify_frame(
    entry: &TrackEntry,
    framing: Framing,
    fields: &mut Fields,
    frame: &[u8],
    (mut picture, complete): (Picture, bool),
) -> Option<Classified> {
    if !complete && frame.len() < MAX_PREFIX && fields.needs_more(entry.codec, frame, &picture) {
        return None;
    }
    // A prefix longer than `MAX_LEAD` is not held back for its picture: it is treated like any other block.
    if picture.part == Part::Prefix {
        picture.part = Part::Begins;
    }
    let is_second_field = fields.take(entry.codec, frame, &picture);
    let sps = picture
        .sps
        .filter(|_| picture.key.is_key())
        .and_then(|(at, len)| frame.get(at..at.checked_add(len)?));
    // The first 32 bytes contain profile, tier and level, which is all the RFC 6381 name needs.
    let sps = sps.map_or_else(Vec::new, |sps| sps.iter().take(32).copied().collect());
    Some(Classified {
        picture,
        sps,
        in_band: nal::parameter_sets(entry.codec, framing, frame),
        is_second_field,
        coded: Vec::new(),
    })
}
