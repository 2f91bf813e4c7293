//! What is in force in a Matroska stream: header, tracks, time scale; and the units emitted with them.
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

/// A block whose place and meaning are known.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// Offset of its SimpleBlock or BlockGroup.
    pub(super) at: u64,
    /// Offset where that ends.
    pub(super) end_at: u64,
    pub(super) track: Track,
    pub(super) key: Key,
    pub(super) pts: Option<u64>,
    pub(super) end: Option<u64>,
    /// What of a picture is in it.
    pub(super) part: nal::Part,
    /// It is the rest of the picture before: another slice, or the second field.
    pub(super) is_rest: bool,
    /// Whether a key frame has parameter sets in band, and what they are.
    pub(super) sets: Option<Sets>,
    /// The parameter sets in band.
    pub(super) in_band: Vec<nal::ParameterSet>,
}

/// Parameter sets in band.
#[derive(Clone, Debug)]
pub(super) struct Sets {
    has_all: bool,
    config: Option<u64>,
    /// RFC 6381 name of the first SPS, where `config` was not in force when it was seen.
    name: Option<String>,
}

/// Where a unit is put.
#[derive(Clone, Debug)]
pub(super) enum CutPoint {
    /// At the start of a Cluster: the head alone goes before it.
    Cluster,
    /// In a Cluster of unknown size: a Cluster header follows the head.
    InCluster(Bytes),
    /// In a Cluster of known size, where no chunk can begin.
    Nowhere,
}

/// The configuration in force.
#[derive(Debug)]
pub(super) struct Stream {
    /// Key pictures lay where no chunk can begin, in Clusters that open with none; none has come since that a chunk can begin with.
    pub(super) encloses_keys: bool,
    /// The last Cluster opens with a key unit.
    opens_with_key: bool,
    pub(super) tracks: Tracks,
    pub(super) container: Container,
    /// `TimestampScale`, ns.
    pub(super) scale: u64,
    /// Offset at which a Segment of known size ends.
    pub(super) segment_end: Option<u64>,
    /// Bytes of the largest element so far whose size turned out to be right, or was not doubted.
    pub(super) largest: u64,
    /// The input has ended: what is there of a block is all there will be.
    pub(super) ended: bool,
    pub(super) fields: Fields,
    /// Time of the last picture.
    pub(super) picture_pts: Option<u64>,
    init: Init,
    /// Range of Tracks in the head.
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
        // The first picture behind other Tracks replaces no parameter sets: the chunk has just begun.
        self.video_seen = false;
        self.fields.configure(tracks.video().and_then(|v| v.sps.as_deref()));
        self.picture_pts = None;
        self.tracks = tracks;
    }

    /// Puts in force a Tracks element, in the place of the head's; a chunk that begins with it needs the returned header.
    pub(super) fn replace_tracks(&mut self, element: &[u8], tracks: Tracks) -> Init {
        let before = self.init.head.get(..self.tracks_at.start).unwrap_or_default();
        let after = self.init.head.get(self.tracks_at.end..).unwrap_or_default();
        // The payload of that chunk begins with the new Tracks: its header must have none.
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

    /// Octets of the head.
    pub(super) fn head_len(&self) -> usize {
        self.init.head.len()
    }

    /// The header of a chunk that begins at a Cluster.
    pub(super) fn init(&self) -> Init {
        self.init.clone()
    }

    /// The header of a chunk whose payload begins with a head of its own.
    pub(super) fn no_init(&self) -> Init {
        Init {
            head: Bytes::new(),
            ..self.init.clone()
        }
    }

    /// `ns` of a Cluster's timestamp and a block's; what is shown before 0 is taken for 0.
    pub(super) fn pts(&self, cluster: u64, relative: i16) -> Option<u64> {
        let ticks = i64::try_from(cluster).ok()?.checked_add(i64::from(relative))?;
        u64::try_from(ticks.max(0)).ok()?.checked_mul(self.scale)
    }

    /// What there is to remember of the parameter sets of a picture.
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

    /// Emits a unit, behind the end of the picture before it.
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
        // Sets in the header of every chunk make up for those that are not in band.
        let is_bare = frame.sets.as_ref().is_some_and(|s| !s.has_all);
        if is_bare && !self.noticed && self.tracks.video().is_some_and(|v| v.parameter_sets.is_none()) {
            self.noticed = true;
            marks.push(Mark {
                at,
                kind: MarkKind::Notice(Notice::NoParameterSets),
            });
        }
    }

    /// Whether parameter sets in band replace others; then they are in force. Where no chunk can begin they are put in
    /// force without a cut: the payload contains them.
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

    /// Returns where the last key frame ends, until that is emitted.
    pub(super) fn picture_end(&self) -> Option<u64> {
        self.picture_end
    }

    /// More of the last picture ends at `end`.
    pub(super) fn extend_picture(&mut self, end: u64) {
        self.picture_end = self.picture_end.map(|_| end);
    }

    /// The last key frame was cut off at `end`, whatever its size says.
    pub(super) fn end_picture_at(&mut self, end: u64, marks: &mut Vec<Mark>) {
        self.picture_end = self.picture_end.map(|at| at.min(end));
        self.passed(end, marks);
    }

    /// Tells of the end of the last key frame once `pos` has come there.
    pub(super) fn passed(&mut self, pos: u64, marks: &mut Vec<Mark>) {
        if let Some(at) = self.picture_end.take_if(|at| pos >= *at) {
            marks.push(Mark {
                at,
                kind: MarkKind::PictureEnd,
            });
        }
    }

    /// Bytes are missing, or too many: ends that were announced are nowhere now.
    pub(super) fn forget_ends(&mut self) {
        self.picture_end = None;
        self.segment_end = None;
        self.picture_pts = None;
        self.fields.restart();
    }
}
