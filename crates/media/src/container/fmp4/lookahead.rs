//! Decides which fragment is a key unit and where it begins. Holds fragments back until that is known.
//!
//! PURE. `mp4mux` writes one track per fragment, and the fragments of other tracks before the video fragment of the same time.
//! A run of them directly before a key frame's fragment belongs to it if the middle of the run is at or after the time of
//! that picture; the key unit then begins with the run. Whether a video fragment is key is read from its first sample in the
//! `mdat` (see `nal`).

use std::sync::Arc;

use crate::container::fields::Fields;
use crate::container::nal::{self, MAX_PREFIX, Part, Picture, VideoCodec};
use crate::container::{Init, Key, Mark, MarkKind, Notice, StreamInfo, Track, Unit};

use super::moof::{Fragment, Sample, When};
use super::pending::{PendingVideo, PictureDetails};
use super::sample_entry::SampleEntry;

/// Most bytes held back: 8 MiB. Beyond that, the fragments of a run of other tracks become units of their own, and the flags
/// of a first sample that is farther into its fragment decide whether it is key.
pub(super) const MAX_HELD_BYTES: u64 = 8 << 20;
/// Most coded bytes of fragments without a slice that are read together with the picture after them: 64 KiB.
const MAX_LEAD: usize = 64 << 10;
/// Most fragments held back.
pub(super) const MAX_HELD_UNITS: usize = 256;

/// A fragment that waits for the next video fragment: of another track, or with only the start of a picture's access unit.
#[derive(Clone, Copy, Debug)]
struct WaitingFragment {
    at: u64,
    track: Track,
    when: When,
    /// It holds only what precedes a picture: delimiter, parameter sets, SEI.
    is_prefix: bool,
}

/// The fragments that are held back, and what is known of them.
#[derive(Debug, Default)]
pub(super) struct Lookahead {
    init: Init,
    has_video: bool,
    /// Whether the first unit has been emitted.
    pub(super) has_begun: bool,
    /// Where the last unit begins.
    pub(super) last_at: Option<u64>,
    run: Vec<WaitingFragment>,
    /// The coded bytes of those fragments in `run` that belong to the picture after it.
    lead: Vec<u8>,
    pending: Option<PendingVideo>,
    /// Hash of the last parameter sets in band.
    in_band: Option<u64>,
    /// Where the picture of the last key unit ends, until that offset has been reached.
    picture_end: Option<u64>,
    noticed: bool,
    /// Whether the last picture was a first field; `None` before the first picture.
    fields: Option<Fields>,
    /// Parameter sets of the head's first video track, and those in band; `None` before its first fragment.
    sets: Option<nal::SetsInForce>,
}

impl Lookahead {
    /// Puts another head in force.
    pub(super) fn configure(&mut self, init: Init) {
        self.has_video = init.info.has_video;
        self.init = init;
        self.in_band = None;
        self.fields = None;
        self.sets = None;
    }

    /// Drops what is held back, without a mark.
    pub(super) fn forget(&mut self) {
        self.run.clear();
        self.lead.clear();
        self.pending = None;
        self.picture_end = None;
    }

    /// Returns the first offset that is not decided; `None` if nothing is held back.
    pub(super) fn start(&self) -> Option<u64> {
        self.run
            .first()
            .map(|held| held.at)
            .or(self.pending.as_ref().map(|pending| pending.at))
    }

    /// Takes a fragment that holds no video, or no samples at all.
    pub(super) fn other(&mut self, at: u64, fragment: Option<Fragment>, marks: &mut Vec<Mark>) {
        let held = WaitingFragment {
            at,
            track: fragment.map_or(Track::Other, |f| f.track),
            when: fragment.map(|f| f.when).unwrap_or_default(),
            is_prefix: false,
        };
        // In a stream without video every fragment with samples is a key unit.
        if !self.has_video {
            let key = if fragment.is_some() { Key::Closed } else { Key::No };
            self.emit(held.at, held.track, key, held.when, false, marks);
            return;
        }
        if self.run.len() >= MAX_HELD_UNITS {
            self.flush(marks);
        }
        self.run.push(held);
    }

    /// Takes a fragment that begins at `at` and holds video; its `moof` is at `moof`.
    pub(super) fn video(
        &mut self,
        at: u64,
        moof: u64,
        fragment: &Fragment,
        sample: Sample,
        entry: &SampleEntry,
        marks: &mut Vec<Mark>,
    ) {
        // An offset outside of the input becomes 0: no sample is found there, and the fragment is no key unit.
        let from = moof.checked_add_signed(sample.offset).unwrap_or(0);
        if self.start().is_some_and(|start| from.saturating_sub(start) > MAX_HELD_BYTES) {
            self.flush(marks);
        }
        let pending = PendingVideo {
            at,
            when: fragment.when,
            codec: entry.codec,
            framing: entry.framing,
            has_parameter_sets: entry.has_parameter_sets,
            in_force: self.in_band.or(entry.parameter_sets),
            leads: sample.leads,
            from,
            size: sample.size,
            next: sample.next,
            fields: *self.fields.get_or_insert_with(|| {
                let mut fields = Fields::default();
                fields.configure(entry.sps.as_deref());
                fields
            }),
            sync: sample.sync,
            peek: Vec::new(),
            lead: std::mem::take(&mut self.lead),
            next_try: 0,
        };
        self.sets.get_or_insert_with(|| nal::SetsInForce::new(&entry.record));
        // Not more than that is held back for one picture: its flags decide at once.
        let deep = from.saturating_sub(at) > MAX_HELD_BYTES;
        let codec = if deep { VideoCodec::Unknown } else { pending.codec };
        // Without any bytes: a codec that is not parsed is decided by its flag at once.
        match nal::classify(codec, pending.framing, &[], false, sample.sync) {
            Some(picture) => self.resolve(&pending, picture, PictureDetails::default(), marks),
            None => self.pending = Some(pending),
        }
    }

    /// Limits what is held back when a box that ends at `end` begins. `is_content` means that it is an `mdat`, of which only the
    /// start of the pending picture is needed.
    pub(super) fn passing(&mut self, end: u64, is_content: bool, marks: &mut Vec<Mark>) {
        let needed = match &self.pending {
            Some(pending) if is_content => pending.from.saturating_add(MAX_PREFIX as u64).min(end),
            _ => end,
        };
        let Some(start) = self.start() else { return };
        if needed.saturating_sub(start) > MAX_HELD_BYTES {
            if is_content {
                self.flush(marks);
            } else {
                self.release(marks);
            }
        }
    }

    /// Takes bytes of an `mdat`; the first of them is at `at`.
    pub(super) fn content(&mut self, at: u64, data: &[u8], marks: &mut Vec<Mark>) {
        if let Some(mut pending) = self.pending.take() {
            match pending.read(at, data) {
                Some((picture, details)) => self.resolve(&pending, picture, details, marks),
                None => self.pending = Some(pending),
            }
        }
        let end = at.saturating_add(data.len() as u64);
        // An end at or before the start of the content is nonsense, and may be below `settled`.
        if let Some(picture_end) = self.picture_end.take_if(|p| *p <= end).filter(|p| *p > at) {
            marks.push(Mark {
                at: picture_end,
                kind: MarkKind::PictureEnd,
            });
        }
    }

    /// Decides the pending video fragment with the bytes that have come: its content has ended, or never came.
    pub(super) fn end_of_content(&mut self, marks: &mut Vec<Mark>) {
        if let Some(pending) = self.pending.take() {
            let (picture, details) = pending
                .classify(&pending.peek, true)
                .unwrap_or((Picture::plain(Key::No), PictureDetails::default()));
            self.resolve(&pending, picture, details, marks);
        }
        self.picture_end = None;
    }

    /// Decides everything that is held back: no key fragment follows the run.
    pub(super) fn release(&mut self, marks: &mut Vec<Mark>) {
        self.end_of_content(marks);
        self.flush(marks);
    }

    /// Decides the run of other tracks' fragments, unless a video fragment after it is being read.
    pub(super) fn flush_run(&mut self, marks: &mut Vec<Mark>) {
        if self.pending.is_none() {
            self.flush(marks);
        }
    }

    fn flush(&mut self, marks: &mut Vec<Mark>) {
        self.lead.clear();
        self.flush_to(self.run.len(), marks);
    }

    /// Emits the first `count` fragments of the run.
    fn flush_to(&mut self, count: usize, marks: &mut Vec<Mark>) {
        let mut run = std::mem::take(&mut self.run);
        for held in run.drain(..count) {
            self.emit(held.at, held.track, Key::No, held.when, false, marks);
        }
        // Reuse the allocation for the next run.
        self.run = run;
    }

    /// Holds back a fragment without a slice for the picture after it. Returns false, and does nothing, if that were too much.
    fn hold_prefix(&mut self, pending: &PendingVideo, details: &PictureDetails) -> bool {
        if pending.lead.len() + pending.peek.len() > MAX_LEAD || self.run.len() >= MAX_HELD_UNITS {
            return false;
        }
        if let Some(sets) = &mut self.sets {
            sets.take(&details.in_band, false);
        }
        self.lead.clone_from(&pending.lead);
        self.lead.extend_from_slice(&pending.peek);
        self.run.push(WaitingFragment {
            at: pending.at,
            track: Track::Video,
            when: pending.when,
            is_prefix: true,
        });
        true
    }

    /// Emits a video fragment whose kind is known, or holds it back if it has no slice.
    fn resolve(&mut self, pending: &PendingVideo, mut picture: Picture, details: PictureDetails, marks: &mut Vec<Mark>) {
        if picture.part == Part::Prefix && self.hold_prefix(pending, &details) {
            return;
        }
        self.fields = Some(details.fields);
        // The frame began with its first field in the previous fragment.
        if details.is_second_field {
            picture.key = Key::No;
        }
        let is_key = picture.key.is_key();
        if is_key {
            // Parameter sets in front of the picture belong to it whatever their time is.
            let others = self.run.iter().take_while(|held| !held.is_prefix).count();
            if !self.run_belongs_to(others, pending.when.start) {
                self.flush_to(others, marks);
            }
        } else {
            self.flush(marks);
        }
        let at = self.run.first().map_or(pending.at, |held| held.at);
        self.run.clear();
        let changed = pending.in_force.is_some() && picture.config.is_some() && pending.in_force != picture.config;
        self.in_band = picture.config.or(self.in_band);
        let lacks = self.sets.as_mut().is_some_and(|sets| sets.take(&details.in_band, is_key));
        if let Some(name) = details.name {
            // Before the unit is emitted, so that its header has the name.
            self.rename(&name);
        }
        // The first unit begins a chunk anyway.
        let is_new = changed && self.has_begun;
        self.emit(at, Track::Video, picture.key, pending.when, is_new, marks);
        if !is_key {
            return;
        }
        if picture.key == Key::Open && pending.leads {
            marks.push(Mark {
                at,
                kind: MarkKind::Notice(Notice::OpenGop),
            });
        }
        let bare = matches!(pending.codec, VideoCodec::H264 | VideoCodec::H265)
            && !pending.has_parameter_sets
            && !picture.has_parameter_sets;
        if (bare || lacks) && !self.noticed {
            self.noticed = true;
            marks.push(Mark {
                at,
                kind: MarkKind::Notice(Notice::NoParameterSets),
            });
        }
        if pending.size > 0 {
            // A preview that ends with the first field shows half a frame.
            let second = if details.is_first_field { pending.next } else { 0 };
            self.picture_end = pending.from.checked_add(u64::from(pending.size) + u64::from(second));
        }
    }

    /// Returns whether the middle of the first `count` fragments of the run is at or after `key`, ns.
    fn run_belongs_to(&self, count: usize, key: Option<u64>) -> bool {
        let run = || self.run.iter().take(count);
        let start = run().filter_map(|held| held.when.start).min();
        let end = run().filter_map(|held| held.when.end).max();
        match (start, end, key) {
            // Without the run, up to 0.93 s of audio were missing from a chunk (mp4mux, measured).
            (Some(start), Some(end), Some(key)) => start.midpoint(end) >= key,
            _ => false,
        }
    }

    fn emit(&mut self, at: u64, track: Track, key: Key, when: When, new_codec_config: bool, marks: &mut Vec<Mark>) {
        let unit = Unit {
            track,
            key,
            pts: when.start,
            end: when.end,
            decode: when.decode,
            sample_at: when.sample_at,
            new_codec_config,
            init: Some(self.init.clone()),
        };
        self.has_begun = true;
        self.last_at = Some(at);
        marks.push(Mark {
            at,
            kind: MarkKind::Unit(unit),
        });
    }

    /// Begins the first unit at `at`, where something other than a fragment ends the head: damage is payload. `head` is the
    /// incomplete head, if none is in force.
    pub(super) fn begin(&mut self, at: u64, head: Option<Vec<u8>>, marks: &mut Vec<Mark>) {
        if self.has_begun {
            return;
        }
        let in_force = self.init.clone();
        if let Some(head) = head {
            self.init.head = head.into();
        }
        self.emit(at, Track::Other, Key::No, When::default(), false, marks);
        // The incomplete head is for the first unit only.
        self.init = in_force;
    }

    /// Updates the codec name: the parameter sets in band differ from those in the init segment.
    fn rename(&mut self, name: &str) {
        let Some((old, rest)) = self.init.info.codecs.as_deref().filter(|_| self.has_video).map(|list| {
            let len = list.find(',').unwrap_or(list.len());
            list.split_at(len)
        }) else {
            return;
        };
        // Keep the four characters of the sample entry.
        let (Some((format, before)), Some((_, tail))) = (old.split_once('.'), name.split_once('.')) else {
            return;
        };
        if before != tail {
            self.init.info = Arc::new(StreamInfo {
                codecs: Some(format!("{format}.{tail}{rest}")),
                ..(*self.init.info).clone()
            });
        }
    }
}
