//! Reads video tags: configurations, pictures and parts of pictures.
//!
//! PURE. Some writers put each NAL unit, each slice or each field into a tag of its own.

use super::super::feed::{Step, len64};
use super::super::nal::{self, Framing, VideoCodec};
use super::super::{Fault, Init, MAX_GATHER, Mark, MarkKind, Notice, Track, Unit, codec};
use super::prefix;
use super::tag::{self, TAG_HEADER, TagHeader, Video};
use super::{Flv, Part};

/// Duration of video in ns after which announced audio is no longer expected.
const SOUND_AWAITED: u64 = 5_000_000_000;

/// A tag with coded video.
#[derive(Clone, Copy, Debug)]
pub(super) struct PictureTag<'a> {
    pub(super) codec: VideoCodec,
    /// Its coded bytes, as far as they have been received.
    pub(super) coded: &'a [u8],
    /// Whether `coded` is complete, or has to be treated so.
    pub(super) complete: bool,
    pub(super) flagged: bool,
    pub(super) composition_ms: i32,
}

impl Flv {
    pub(super) fn read_video(
        &mut self,
        view: &[u8],
        data: &[u8],
        header: TagHeader,
        marks: &mut Vec<Mark>,
    ) -> Result<Step, Fault> {
        let total = header.total();
        let prefix = tag::prefix_len(header.kind, data).min(header.size);
        if data.len() < prefix {
            return Ok(Step::Need(TAG_HEADER + prefix));
        }
        let video = tag::video(data);
        if let Video::Config { track, .. } | Video::Picture { track, .. } = video
            && *self.video_track.get_or_insert(track) != track
        {
            let config = matches!(video, Video::Config { .. }).then_some(track);
            return self.read_further(view, header, config, marks);
        }
        match video {
            Video::Nothing => {
                self.release_prefix(marks);
                self.emit_picture_end(self.at, marks);
                Ok(Step::Pass(len64(total)))
            }
            Video::Config { codec, record, .. } => {
                let Some(bytes) = view.get(..total) else {
                    return Step::need_whole(total);
                };
                self.release_prefix(marks);
                self.emit_picture_end(self.at, marks);
                self.has_first_slice = false;
                let record = data.get(record..).unwrap_or_default();
                self.fields
                    .configure(codec::avc_first_sps(record).filter(|_| codec == VideoCodec::H264));
                self.video = codec;
                self.framing = tag::framing(codec, record);
                self.has_video = true;
                let sets = codec::parameter_sets(codec, record);
                self.sets = nal::SetsInForce::new(&codec::record_sets(codec, record));
                Ok(self.config(Part::Video, bytes, (tag::video_name(codec, record), sets), marks))
            }
            Video::Picture {
                codec,
                data: start,
                size,
                composition_ms,
                flagged,
                ..
            } => {
                let coded = data.get(start..).unwrap_or_default();
                let own = size.map_or(coded, |size| coded.get(..size).unwrap_or(coded));
                let complete = self.is_given_up || data.len() == header.size || own.len() < coded.len();
                let coded = own;
                let tag = PictureTag {
                    codec,
                    coded,
                    complete,
                    flagged,
                    composition_ms,
                };
                Ok(self.read_picture(&tag, header, marks).unwrap_or_else(|| {
                    // Doubled each time, so that the total number of bytes examined stays linear.
                    let more = (view.len() * 2).max(512).min(TAG_HEADER + header.size);
                    Step::Need(more)
                }))
            }
        }
    }

    /// Reads a tag of a further track. Such a track is recorded and gets its configuration into the header, but never decides on
    /// cuts. `config` is the track number if the tag is a configuration.
    pub(super) fn read_further(
        &mut self,
        view: &[u8],
        header: TagHeader,
        config: Option<u8>,
        marks: &mut Vec<Mark>,
    ) -> Result<Step, Fault> {
        let total = header.total();
        self.emit_picture_end(self.at, marks);
        if let Some(track) = config {
            let Some(bytes) = view.get(..total) else {
                return Step::need_whole(total);
            };
            let kind = view.first().copied().unwrap_or_default();
            let kept: usize = self.parts.iter().map(|(_, part)| part.len()).sum();
            // The writer is free to use any track number: without a limit each new one would make the header larger.
            if kept.saturating_add(total) > MAX_GATHER {
                return Ok(Step::Pass(len64(total)));
            }
            return Ok(self.config(Part::Further(kind, track), bytes, (None, None), marks));
        }
        let pts = self.time(header.time, 0);
        self.other_unit(Some(pts), marks);
        Ok(Step::Pass(len64(total)))
    }

    /// Reads a tag with coded video; returns `None` if more bytes of it are needed.
    pub(super) fn read_picture(&mut self, tag: &PictureTag<'_>, header: TagHeader, marks: &mut Vec<Mark>) -> Option<Step> {
        let end = self.at + len64(header.total());
        let done = Some(Step::Pass(len64(header.total())));
        // Without a configuration of this codec the size of the NAL length fields is unknown: nearly all writers use four bytes.
        let framing = if tag.codec == self.video {
            self.framing
        } else {
            Framing::Length(4)
        };
        let classify = |coded| nal::classify(tag.codec, framing, coded, tag.complete, tag.flagged);
        let mut picture = classify(tag.coded)?;
        if picture.part == nal::Part::Prefix && tag.coded.len() <= prefix::MOST {
            self.hold_prefix(tag, header, marks);
            return done;
        }
        let joined = self.prefix.as_ref().map(|prefix| prefix.join(tag.coded));
        let coded = joined.as_deref().unwrap_or(tag.coded);
        if joined.is_some() {
            // Classified again, with the parameter sets in front: they may make it a key frame of another configuration.
            picture = classify(coded)?;
        }
        if !tag.complete && self.fields.needs_more(tag.codec, coded, &picture) {
            return None;
        }
        let is_second_field = self.fields.take(tag.codec, coded, &picture);
        let is_same_time = self.picture_ms.replace(header.time) == Some(header.time);
        // Some parsers output one NAL unit at a time and give the later ones of a picture other timestamps.
        let is_later = || self.has_first_slice && !nal::opens_with_delimiter(tag.codec, framing, coded);
        if is_second_field || (picture.part == nal::Part::Continues && (is_same_time || is_later())) {
            // Another slice or the second field: the picture now ends with this tag.
            self.picture_end = self.picture_end.map(|_| end);
            if let Some(prefix) = self.prefix.take() {
                marks.extend(prefix.behind);
            }
            return done;
        }
        self.has_first_slice = picture.part == nal::Part::Begins;
        self.emit_picture_end(self.begin_of_picture(), marks);
        self.see_video();
        let pts = self.time(header.time, tag.composition_ms);
        // The first picture opens the first chunk anyway: its configuration replaces no other.
        let is_first = self.head.is_some() || self.prefix.as_ref().is_some_and(|prefix| prefix.head.is_some());
        let new_codec_config = self.take_in_band(tag.codec, &picture, coded) && !is_first;
        let in_band = nal::parameter_sets(tag.codec, framing, coded);
        self.emit_picture(&picture, pts, new_codec_config, &in_band, marks);
        self.report_bare(tag.codec, &picture, marks);
        self.give_up_sound(pts);
        if picture.key.is_key() {
            self.picture_end = Some(end);
        }
        done
    }

    /// Reports, once, a key unit without any parameter sets so far: neither in a sequence header nor in band.
    fn report_bare(&mut self, codec: VideoCodec, picture: &nal::Picture, marks: &mut Vec<Mark>) {
        let needs_sets = matches!(codec, VideoCodec::H264 | VideoCodec::H265);
        let is_bare = needs_sets && picture.key.is_key() && self.parameter_sets.is_none();
        if is_bare && !std::mem::replace(&mut self.bare_reported, true) {
            marks.push(Mark {
                at: self.at,
                kind: MarkKind::Notice(Notice::NoParameterSets),
            });
        }
    }

    /// Stops expecting audio that only the flags of the file header announce and that has not come for [`SOUND_AWAITED`].
    /// Otherwise the list of codecs would never become complete.
    fn give_up_sound(&mut self, pts: u64) {
        if !self.has_audio || self.has_sounded || self.audio_name.is_some() {
            return;
        }
        let since = *self.sound_awaited.get_or_insert(pts);
        if pts.saturating_sub(since) >= SOUND_AWAITED {
            self.has_audio = false;
            self.rebuild();
        }
    }

    /// Returns the offset where the current picture begins: its tag, or the prefix tag in front of it.
    pub(super) fn begin_of_picture(&self) -> u64 {
        self.prefix.as_ref().map_or(self.at, |prefix| prefix.at)
    }

    pub(super) fn see_video(&mut self) {
        if !self.has_video {
            self.has_video = true;
            self.rebuild();
        }
    }

    /// Emits the unit of a picture, then the units that were held back for it.
    pub(super) fn emit_picture(
        &mut self,
        picture: &nal::Picture,
        pts: u64,
        new_codec_config: bool,
        in_band: &[nal::ParameterSet],
        marks: &mut Vec<Mark>,
    ) {
        let at = self.begin_of_picture();
        let prefix = self.prefix.take();
        let head = prefix.as_ref().and_then(|prefix| prefix.head.clone());
        let init = match head {
            Some(head) => Init {
                head,
                ..self.init.clone()
            },
            None => self.init_here(),
        };
        let unit = Unit {
            track: Track::Video,
            key: picture.key,
            pts: Some(pts),
            end: None,
            decode: None,
            sample_at: None,
            new_codec_config,
            init: Some(init),
        };
        marks.push(Mark {
            at,
            kind: MarkKind::Unit(unit),
        });
        if self.sets.take(in_band, picture.key.is_key()) {
            marks.push(Mark {
                at,
                kind: MarkKind::Notice(Notice::NoParameterSets),
            });
        }
        marks.extend(prefix.into_iter().flat_map(|prefix| prefix.behind));
    }

    /// Puts the parameter sets of a key frame in force. Returns whether they replace others.
    pub(super) fn take_in_band(&mut self, codec: VideoCodec, picture: &nal::Picture, coded: &[u8]) -> bool {
        if !picture.key.is_key() || picture.config.is_none() || picture.config == self.parameter_sets {
            return false;
        }
        let replaces = std::mem::replace(&mut self.parameter_sets, picture.config).is_some();
        let sps = picture.sps.and_then(|(at, len)| coded.get(at..at.checked_add(len)?));
        let name = sps.and_then(|sps| codec::from_sps(codec, sps));
        if name.is_some() && name != self.video_name {
            self.video_name = name;
            self.rebuild();
        }
        replaces
    }
}
