//! Stores what is in force in a Matroska stream (header, tracks, time scale) and emits the units that use it.
//!
//! PURE.

use std::sync::Arc;

use bytes::Bytes;

use super::super::codec;
use super::super::fields::Fields;
use super::super::nal::{self, VideoCodec};
use super::super::{Container, Init, Key, Mark, MarkKind, Notice, Track, Unit};
use super::block::Classified;
use super::head::{DEFAULT_SCALE, Head};
use super::tracks::{TrackEntry, Tracks};

/// A block that has been read and classified.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// Offset of its SimpleBlock or BlockGroup.
    pub(super) at: u64,
    /// Offset of its end.
    pub(super) end_at: u64,
    pub(super) track: Track,
    pub(super) key: Key,
    pub(super) pts: Option<u64>,
    pub(super) end: Option<u64>,
    /// Which part of a picture it contains.
    pub(super) part: nal::Part,
    /// Whether it is the rest of the previous picture: another slice, or the second field.
    pub(super) is_rest: bool,
    /// Summary of the parameter sets of a key frame of H.264 or H.265; `None` for every other frame.
    pub(super) sets: Option<Sets>,
    /// The parameter sets in band.
    pub(super) in_band: Vec<nal::ParameterSet>,
}

/// Summary of the in-band parameter sets of a key frame.
#[derive(Clone, Debug)]
pub(super) struct Sets {
    has_all: bool,
    config: Option<u64>,
    /// RFC 6381 name from the first SPS, if `config` was not in force when the frame was read.
    name: Option<String>,
}

/// The place of a unit, which determines the header of a chunk that begins there.
#[derive(Clone, Debug)]
pub(super) enum CutPoint {
    /// At the start of a Cluster: the header is the head alone.
    Cluster,
    /// In a Cluster of unknown size: the header is the head and this Cluster header.
    InCluster(Bytes),
    /// In a Cluster of known size, where no chunk can begin.
    Nowhere,
}

/// The configuration in force.
#[derive(Debug)]
pub(super) struct Stream {
    /// Whether key frames came only where no chunk can begin, in Clusters that do not open with one, since the last key unit at
    /// which a chunk can begin.
    pub(super) encloses_keys: bool,
    /// Whether the last place where a chunk can begin was a key unit.
    opens_with_key: bool,
    pub(super) tracks: Tracks,
    pub(super) container: Container,
    /// `TimestampScale`, ns.
    pub(super) scale: u64,
    /// Offset at which a Segment of known size ends.
    pub(super) segment_end: Option<u64>,
    /// Size in bytes of the largest element so far that was skipped because its size was in doubt, and whose size proved right.
    pub(super) largest: u64,
    /// Whether the input has ended, so that no more bytes of a block will come.
    pub(super) ended: bool,
    pub(super) fields: Fields,
    /// Time of the last picture in ns.
    pub(super) picture_pts: Option<u64>,
    init: Init,
    /// Range of the Tracks element in the head.
    tracks_at: std::ops::Range<usize>,
    sets: nal::SetsInForce,
    /// Hash of the parameter sets in force.
    parameter_sets: Option<u64>,
    video_seen: bool,
    /// Offset where the last key frame ends, until that mark is emitted.
    picture_end: Option<u64>,
    noticed: bool,
}

impl Stream {
    pub(super) fn new() -> Self {
        Self {
            encloses_keys: false,
            opens_with_key: false,
            tracks: Tracks::default(),
            container: Container::Matroska,
            scale: DEFAULT_SCALE,
            segment_end: None,
            largest: 0,
            ended: false,
            fields: Fields::default(),
            picture_pts: None,
            init: Init::default(),
            tracks_at: 0..0,
            sets: nal::SetsInForce::default(),
            parameter_sets: None,
            video_seen: false,
            picture_end: None,
            noticed: false,
        }
    }

    /// Puts a head in force.
    pub(super) fn adopt(&mut self, head: Head) {
        self.container = if head.is_webm { Container::WebM } else { Container::Matroska };
        self.scale = head.scale;
        self.segment_end = head.segment_end;
        self.init.head = Bytes::from(head.bytes);
        self.tracks_at = head.tracks_at;
        self.adopt_tracks(head.tracks.unwrap_or_default());
    }

    fn adopt_tracks(&mut self, tracks: Tracks) {
        self.init.info = Arc::new(tracks.info(None));
        self.parameter_sets = tracks.video().and_then(|v| v.parameter_sets);
        self.sets = nal::SetsInForce::new(tracks.video().map_or(&[], |v| &v.record));
        // The first picture behind new Tracks causes no cut for its parameter sets: the chunk has just begun.
        self.video_seen = false;
        self.fields.configure(tracks.video().and_then(|v| v.sps.as_deref()));
        self.picture_pts = None;
        self.tracks = tracks;
    }

    /// Replaces the Tracks element of the head. Returns the header of a chunk that begins with the new element.
    pub(super) fn replace_tracks(&mut self, element: &[u8], tracks: Tracks) -> Init {
        let before = self.init.head.get(..self.tracks_at.start).unwrap_or_default();
        let after = self.init.head.get(self.tracks_at.end..).unwrap_or_default();
        // The payload of that chunk begins with the new Tracks, so its header must not contain any.
        let without = [before, after].concat();
        let with = [before, element, after].concat();
        self.tracks_at = self.tracks_at.start..self.tracks_at.start.saturating_add(element.len());
        self.adopt_tracks(tracks);
        self.init.head = Bytes::from(with);
        Init {
            head: Bytes::from(without),
            ..self.init.clone()
        }
    }

    /// Returns the length of the head in octets.
    pub(super) fn head_len(&self) -> usize {
        self.init.head.len()
    }

    /// Returns the header of a chunk that begins at a Cluster.
    pub(super) fn init(&self) -> Init {
        self.init.clone()
    }

    /// Returns the empty header of a chunk whose payload begins with a head of its own.
    pub(super) fn no_init(&self) -> Init {
        Init {
            head: Bytes::new(),
            ..self.init.clone()
        }
    }

    /// Returns the time in ns for the timestamps of a Cluster and a block. A negative time becomes 0.
    pub(super) fn pts(&self, cluster: u64, relative: i16) -> Option<u64> {
        let ticks = i64::try_from(cluster).ok()?.checked_add(i64::from(relative))?;
        u64::try_from(ticks.max(0)).ok()?.checked_mul(self.scale)
    }

    /// Returns the summary of the parameter sets of a key frame; `None` for any other frame or codec.
    pub(super) fn sets(&self, entry: &TrackEntry, classified: &Classified) -> Option<Sets> {
        let picture = &classified.picture;
        if !picture.key.is_key() || !matches!(entry.codec, VideoCodec::H264 | VideoCodec::H265) {
            return None;
        }
        let name = match entry.codec {
            _ if picture.config.is_none() || picture.config == self.parameter_sets => None,
            VideoCodec::H264 => codec::avc_from_sps(&classified.sps),
            _ => codec::hevc_from_sps(&classified.sps),
        };
        Some(Sets {
            has_all: picture.has_parameter_sets,
            config: picture.config,
            name,
        })
    }

    /// Emits a unit, and before it the end of the previous picture if that is due.
    pub(super) fn unit(&mut self, at: u64, frame: &Frame, place: &CutPoint, marks: &mut Vec<Mark>) {
        self.passed(at, marks);
        let new_codec_config = self.is_new_codec_config(frame, place);
        let init = match place {
            CutPoint::Cluster => Some(self.init.clone()),
            CutPoint::InCluster(tail) => Some(Init {
                tail: tail.clone(),
                ..self.init.clone()
            }),
            CutPoint::Nowhere => None,
        };
        let Frame {
            track, key, pts, end, ..
        } = *frame;
        marks.push(Mark {
            at,
            kind: MarkKind::Unit(Unit {
                track,
                key,
                pts,
                end,
                decode: None,
                sample_at: None,
                new_codec_config,
                init,
            }),
        });
        if track != Track::Video {
            return;
        }
        match place {
            CutPoint::Nowhere => self.encloses_keys |= key.is_key() && !self.opens_with_key,
            CutPoint::Cluster | CutPoint::InCluster(_) => {
                self.opens_with_key = key.is_key();
                self.encloses_keys &= !key.is_key();
            }
        }
        self.video_seen = true;
        self.picture_end = key.is_key().then_some(frame.end_at);
        if self.sets.take(&frame.in_band, key.is_key()) && !self.noticed {
            self.noticed = true;
            marks.push(Mark {
                at,
                kind: MarkKind::Notice(Notice::NoParameterSets),
            });
        }
        // A key frame without parameter sets in band is no problem if the header of every chunk contains them.
        let is_bare = frame.sets.as_ref().is_some_and(|s| !s.has_all);
        if is_bare && !self.noticed && self.tracks.video().is_some_and(|v| v.parameter_sets.is_none()) {
            self.noticed = true;
            marks.push(Mark {
                at,
                kind: MarkKind::Notice(Notice::NoParameterSets),
            });
        }
    }

    /// Puts new in-band parameter sets in force. Returns whether they replace others and a chunk can begin here. Where no chunk
    /// can begin no cut is needed, because the payload contains the sets.
    fn is_new_codec_config(&mut self, frame: &Frame, place: &CutPoint) -> bool {
        let Some(sets) = frame.sets.as_ref() else { return false };
        if sets.config.is_none() || sets.config == self.parameter_sets {
            return false;
        }
        let replaces = self.parameter_sets.is_some() && self.video_seen;
        self.parameter_sets = sets.config;
        if let Some(name) = sets.name.as_deref() {
            self.init.info = Arc::new(self.tracks.info(Some(name)));
        }
        replaces && !matches!(place, CutPoint::Nowhere)
    }

    /// Returns the offset where the last key frame ends, until its mark has been emitted.
    pub(super) fn picture_end(&self) -> Option<u64> {
        self.picture_end
    }

    /// Moves the end of the last key frame to `end`, because more of the picture has come.
    pub(super) fn extend_picture(&mut self, end: u64) {
        self.picture_end = self.picture_end.map(|_| end);
    }

    /// Ends the last key frame at `end` at the latest, because its announced size was wrong.
    pub(super) fn end_picture_at(&mut self, end: u64, marks: &mut Vec<Mark>) {
        self.picture_end = self.picture_end.map(|at| at.min(end));
        self.passed(end, marks);
    }

    /// Emits the end of the last key frame if `pos` has reached it.
    pub(super) fn passed(&mut self, pos: u64, marks: &mut Vec<Mark>) {
        if let Some(at) = self.picture_end.take_if(|at| pos >= *at) {
            marks.push(Mark {
                at,
                kind: MarkKind::PictureEnd,
            });
        }
    }

    /// Forgets all announced ends: bytes are missing or inserted, so their offsets are no longer valid.
    pub(super) fn forget_ends(&mut self) {
        self.picture_end = None;
        self.segment_end = None;
        self.picture_pts = None;
        self.fields.restart();
    }
}
