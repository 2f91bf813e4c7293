//! Examines the first bytes of a PES packet.
//!
//! PURE.

use super::super::Key;
use super::super::fields::Fields;
use super::super::nal::{Picture, VideoCodec};
use super::packing::Packing;
use super::pes::Header;
use super::picture::{Hints, Verdict, classify_video, later_key};
use super::stream::{Kind, Video};

/// Flags of the first transport packet of a PES packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct Flags {
    pub(super) random_access: bool,
    pub(super) scrambled: bool,
}

/// Content of a PES packet.
pub(super) enum Found<'a> {
    /// No unit begins here.
    Nothing,
    /// The bytes are no PES packet.
    Broken,
    /// A unit begins here.
    Unit {
        pts: Option<u64>,
        data: &'a [u8],
        picture: Option<Picture>,
        /// Whether the rest of another picture is in front of it.
        is_behind_rest: bool,
    },
}

/// What decides on a PES packet of video, besides its bytes.
pub(super) struct Judging<'a> {
    fields: &'a Fields,
    is_shared: bool,
    is_complete: bool,
    lacks_headers: bool,
}

impl<'a> Judging<'a> {
    pub(super) fn of(fields: &'a Fields, packing: &Packing, lacks_headers: bool, is_complete: bool) -> Self {
        Self {
            fields,
            // Two fields of one frame look like two pictures, so in interlaced video the observation proves nothing.
            is_shared: packing.is_shared() && !fields.is_interlaced(),
            is_complete,
            lacks_headers,
        }
    }

    /// Returns a key frame behind the first picture if that is not key. Returns outer `None` if the whole packet is needed, and
    /// `Some(None)` if there is no such key frame.
    fn later(&self, verdict: &Verdict, video: Video, data: &[u8], has_pts: bool, hints: Hints) -> Option<Option<Picture>> {
        if !video.is_parsed() {
            return Some(None);
        }
        let may_follow = has_pts
            && match verdict {
                Verdict::Begins(picture) | Verdict::BeginsBehindRest(picture) => !picture.key.is_key() && self.is_shared,
                Verdict::Continues => false,
            };
        match (may_follow, self.is_complete) {
            (false, _) => Some(None),
            (true, false) => None,
            (true, true) => Some(later_key(video, data, hints)),
        }
    }
}

/// Examines the first bytes of a PES packet. Returns `None` if more bytes are needed, but never if it is complete.
pub(super) fn examine<'a>(kind: Kind, pes: &'a [u8], flags: Flags, judging: &Judging<'_>) -> Option<Found<'a>> {
    let complete = judging.is_complete;
    let by_flag = |key| Picture {
        has_parameter_sets: true,
        ..Picture::plain(key)
    };
    if flags.scrambled {
        // Only the transport header of a scrambled packet can be read, so its flag decides.
        let key = if flags.random_access { Key::Closed } else { Key::No };
        return Some(Found::Unit {
            pts: None,
            data: &[],
            picture: Some(by_flag(key)),
            is_behind_rest: false,
        });
    }
    let (pts, scrambled, data) = match Header::parse(pes) {
        Header::More if !complete => return None,
        Header::More => (None, false, &[][..]),
        // A private stream may contain tables, which are no PES packets: no damage.
        Header::Broken if kind == Kind::Other => return Some(Found::Nothing),
        Header::Broken => return Some(Found::Broken),
        // Scrambled data shows neither names, durations nor parameter sets.
        Header::Whole {
            pts, scrambled: true, ..
        } => (pts, true, &[][..]),
        Header::Whole { pts, scrambled, data } => (pts, scrambled, data),
    };
    let unit = |picture, is_behind_rest| Found::Unit {
        pts,
        data,
        picture,
        is_behind_rest,
    };
    let Kind::Video(video) = kind else {
        return Some(unit(None, false));
    };
    // The payload is ciphertext: again the flag decides, and no more bytes would help.
    let (video, complete) = if scrambled {
        (Video::Nal(VideoCodec::Unknown), true)
    } else {
        (video, complete)
    };
    let hints = Hints {
        is_flagged: flags.random_access,
        lacks_headers: judging.lacks_headers,
    };
    let verdict = classify_video(video, data, pts.is_some(), complete, hints)?;
    if let (Verdict::Begins(picture) | Verdict::BeginsBehindRest(picture), Video::Nal(codec)) = (&verdict, video)
        && !complete
        && judging.fields.needs_more(codec, data, picture)
    {
        return None;
    }
    let verdict = match judging.later(&verdict, video, data, pts.is_some(), hints)? {
        Some(key) => Verdict::BeginsBehindRest(key),
        None => verdict,
    };
    Some(match verdict {
        Verdict::Continues => Found::Nothing,
        // The container's flag proves nothing about parameter sets, so their absence is not reported. Nor does it exclude
        // pictures that are shown before this one and depend on earlier ones, so the key unit is open.
        Verdict::Begins(picture) if video == Video::Nal(VideoCodec::Unknown) => {
            let key = if picture.key.is_key() && !scrambled {
                Key::Open
            } else {
                picture.key
            };
            unit(Some(by_flag(key)), false)
        }
        Verdict::Begins(picture) => unit(Some(picture), false),
        Verdict::BeginsBehindRest(picture) => unit(Some(picture), true),
    })
}
