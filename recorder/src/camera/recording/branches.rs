//! The left side of a recording: a branch for each stream of the camera, up to the queue that is blocked until the right side exists.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use gst::prelude::*;

use super::super::form::Form;
use super::super::latm;
use super::super::plan::{self, Sound, Video};
use super::super::source::{self, is_installed};
use super::super::state::Failure;
use super::super::timestamps;
use super::super::torn;
use super::super::watch::{EventSender, Picture, PipelineEvent, Watch};
use super::{Branch, ENDED, Recording, internal};
use crate::config::{Audio, Container};

impl Recording {
    /// Handles a new pad of the source, which is one stream of the camera.
    pub(super) fn on_pad(self: &Arc<Self>, pad: &gst::Pad) {
        if pad.direction() != gst::PadDirection::Src || self.is_ending() {
            return;
        }
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        let Some(structure) = caps.structure(0) else { return };
        let is_rtp = structure.name() == "application/x-rtp";
        let text = |field| structure.get::<String>(field).unwrap_or_default();
        let (media, encoding) = match is_rtp {
            true => (text("media"), text("encoding-name")),
            false => {
                let name = structure.name().to_string();
                (name.split('/').next().unwrap_or_default().to_owned(), name)
            }
        };
        let video = if is_rtp {
            Video::of_rtp(&encoding)
        } else {
            Video::of_media(&encoding)
        };
        match media.as_str() {
            _ if is_rtp => {}
            "audio" => self.choice.note_waiting(),
            _ => self.choice.note_pictures(video, &encoding),
        }
        let added = match (media.as_str(), video) {
            ("video", Some(video)) if self.parts().video.is_none() => self.add_video(pad, video, is_rtp),
            // `select-stream` chose one stream of each kind, so a second pad is the same stream from another source (SSRC).
            ("video", _) if is_rtp => self.replace_feed(pad, true),
            ("audio", _) if is_rtp && self.parts().sound.is_some() => self.replace_feed(pad, false),
            ("audio", _) if self.wants_sound() => {
                let version = structure.get::<i32>("mpegversion").ok();
                self.add_sound(pad, (&encoding, version), is_rtp)
            }
            _ => self.add_nothing(pad),
        };
        if let Err(failure) = added {
            self.event_sender.send(PipelineEvent::Failed(failure));
        }
    }

    /// Feeds the branch from this pad instead of its present one.
    fn replace_feed(&self, pad: &gst::Pad, is_video: bool) -> Result<(), Failure> {
        let (old, bin) = {
            let mut parts = self.parts();
            let branch = if is_video {
                parts.video.as_mut()
            } else {
                parts.sound.as_mut()
            };
            let Some(branch) = branch else { return Ok(()) };
            (std::mem::replace(&mut branch.feed, pad.clone()), branch.bin.clone())
        };
        let to = bin.static_pad("sink").ok_or_else(|| internal(&"a pad is missing"))?;
        if old.unlink(&to).is_ok() {
            self.add_nothing(&old)?;
        }
        let other = |_| Failure::Changed("the camera sends another stream on the same connection".to_owned());
        pad.link(&to).map(drop).map_err(other)
    }

    fn wants_sound(&self) -> bool {
        self.setup.camera.audio != Audio::Off && self.parts().sound.is_none()
    }

    /// Discards the data of a pad. Without a link, the pad would return NOT_LINKED to the element behind it.
    pub(super) fn add_nothing(&self, pad: &gst::Pad) -> Result<(), Failure> {
        // Not `async`: until its first buffer, such a sink would take the playing pipeline back to PAUSED.
        let sink = gst::ElementFactory::make("fakesink")
            .property("sync", false)
            .property("async", false)
            .build()
            .map_err(|e| internal(&e))?;
        self.pipeline.add(&sink).map_err(|e| internal(&e))?;
        sink.sync_state_with_parent().map_err(|e| internal(&e))?;
        let to = sink.static_pad("sink").ok_or_else(|| internal(&"a pad is missing"))?;
        pad.link(&to).map(drop).map_err(|e| internal(&e))
    }

    /// Adds a branch that ends in a blocked queue. Calls `observe` with the pad in front of the queue.
    fn add_branch(
        &self,
        pad: &gst::Pad,
        line: &str,
        (video, is_rtp): (Option<Video>, bool),
        observe: impl FnOnce(&gst::Pad),
    ) -> Result<Branch, Failure> {
        let bin = gst::parse::bin_from_description(line, true).map_err(|e| internal(&e))?;
        if let Some(timestamper) = bin.by_name("timestamper") {
            timestamps::align(&timestamper);
        }
        if let Some(parser) = bin.by_name("parser")
            && let (Some(front), Some(back)) = (parser.static_pad("sink"), parser.static_pad("src"))
        {
            if let Some(video) = video {
                if is_rtp {
                    self.watch_slices(&front, video);
                }
                torn::drop_torn(&front, &back, video, is_rtp);
            }
            timestamps::separate(&back, &self.event_sender);
        }
        if let Some(depayloader) = bin.by_name("latm") {
            latm::strip_first_length(&depayloader);
        }
        let queue = bin.by_name("queue").ok_or_else(|| internal(&"no queue"))?;
        let (Some(front), Some(gate)) = (queue.static_pad("sink"), queue.static_pad("src")) else {
            return Err(internal(&"a pad is missing"));
        };
        answer_allocation(&front);
        observe(&front);
        let block = gate.add_probe(gst::PadProbeType::BLOCK_DOWNSTREAM, |_, _| gst::PadProbeReturn::Ok);
        if let Some(to) = bin
            .static_pad("sink")
            .filter(|_| is_rtp && video.is_some() && self.setup.distrusts_sets)
        {
            source::without_fields(&to, &["sprop-parameter-sets", "sprop-vps", "sprop-sps", "sprop-pps"]);
        }
        self.pipeline.add(&bin).map_err(|e| internal(&e))?;
        let link = || {
            bin.sync_state_with_parent().map_err(|e| internal(&e))?;
            let to = bin.static_pad("sink").ok_or_else(|| internal(&"a pad is missing"))?;
            pad.link(&to).map_err(|e| internal(&e))
        };
        if let Err(failure) = link() {
            // Remove the bin again: an unlinked branch would keep the pipeline from its end.
            let _ = bin.set_state(gst::State::Null);
            let _ = self.pipeline.remove(&bin);
            return Err(failure);
        }
        Ok(Branch {
            bin,
            feed: pad.clone(),
            gate,
            block,
        })
    }

    pub(in crate::camera) fn add_video(&self, pad: &gst::Pad, video: Video, is_rtp: bool) -> Result<(), Failure> {
        let container = self.setup.camera.container;
        let line = video.line(is_rtp, container, &is_installed).map_err(Failure::Unsupported)?;
        let branch = self.add_branch(pad, &line, (Some(video), is_rtp), |front| self.watch_pictures(front, video))?;
        self.parts().video = Some(branch);
        if !is_rtp {
            self.event_sender.send(PipelineEvent::Opened);
        }
        Ok(())
    }

    /// Continues without sound and reports why.
    ///
    /// # Errors
    /// `audio = "require"` is set.
    fn leave_sound(&self, pad: &gst::Pad, why: String) -> Result<(), Failure> {
        if self.setup.camera.audio == Audio::Require {
            return Err(Failure::Unsupported(why));
        }
        self.event_sender.send(PipelineEvent::Soundless(why));
        self.add_nothing(pad)
    }

    fn add_sound(&self, pad: &gst::Pad, (encoding, version): (&str, Option<i32>), is_rtp: bool) -> Result<(), Failure> {
        let (line, label) = match plan::sound(encoding, version, is_rtp, self.setup.camera.container, &is_installed) {
            Sound::Recorded(line, label) => (line, label),
            Sound::Left(why) => return self.leave_sound(pad, why),
        };
        let branch = match self.add_branch(pad, &line, (None, is_rtp), |front| self.watch_sound(front)) {
            Ok(branch) => branch,
            Err(failure) => {
                let why = format!(
                    "the camera's sound is not recorded: {}; set the camera to AAC",
                    failure.text()
                );
                return self.leave_sound(pad, why);
            }
        };
        self.choice.note_sound();
        let outer = branch.bin.static_pad("src");
        let late = {
            let mut parts = self.parts();
            let late = parts.assembled;
            parts.sound_label = Some(label).filter(|_| !late);
            if late {
                self.watch.is_soundless.store(true, Ordering::Relaxed);
            }
            let branch = parts.sound.insert(branch);
            if late {
                branch.open();
            }
            late
        };
        match outer {
            // A muxer that runs accepts no new stream. The runner decides whether to start a recording with this sound.
            Some(outer) if late => self.add_nothing(&outer),
            _ => Ok(()),
        }
    }

    fn watch_sound(&self, front: &gst::Pad) {
        let (watch, event_sender, form) = (Arc::clone(&self.watch), self.event_sender.clone(), Form::default());
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        front.add_probe(kinds, move |_, info| {
            match &info.data {
                Some(gst::PadProbeData::Buffer(_)) if watch.closed.load(Ordering::Relaxed) => {
                    return gst::PadProbeReturn::Handled;
                }
                Some(gst::PadProbeData::Buffer(buffer)) if watch.on_sound(buffer.size() as u64) => {
                    event_sender.send(PipelineEvent::Flows)
                }
                Some(gst::PadProbeData::Event(event)) => {
                    if let gst::EventView::Caps(caps) = event.view()
                        && form.changes(caps.caps())
                        && !watch.is_soundless.load(Ordering::Relaxed)
                    {
                        watch.closed.store(true, Ordering::Relaxed);
                        event_sender.send(PipelineEvent::Failed(Failure::Changed(
                            "the camera's sound has changed".to_owned(),
                        )));
                        return gst::PadProbeReturn::Handled;
                    }
                }
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
    }

    /// Counts the slices in front of the parser. The parser holds back everything before the first parameter sets, so a camera
    /// that sends no key frame yet would look frozen behind it.
    fn watch_slices(&self, front: &gst::Pad, codec: Video) {
        let watch = Arc::clone(&self.watch);
        let on_buffer = move |buffer: &gst::BufferRef| {
            if buffer.map_readable().is_ok_and(|unit| torn::is_part(codec, &unit)) {
                watch.on_slice();
            }
        };
        front.add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, info| {
            match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => on_buffer(buffer),
                Some(gst::PadProbeData::BufferList(list)) => list.iter().for_each(&on_buffer),
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
    }

    fn watch_pictures(&self, front: &gst::Pad, codec: Video) {
        let (watch, event_sender, ending) = (Arc::clone(&self.watch), self.event_sender.clone(), Arc::clone(&self.ending));
        // MPEG-TS carries the parameter sets in the stream. The others store them in a header, which their muxer cannot change
        // later.
        let keeps_header_apart = self.setup.camera.container != Container::MpegTs;
        let kinds = gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM;
        front.add_probe(kinds, move |_, info| {
            // After `closed` nothing but the EOS may reach the muxer: pictures of another size would follow in the same track.
            let is_end = matches!(&info.data, Some(gst::PadProbeData::Event(event)) if event.type_() == gst::EventType::Eos);
            if watch.closed.load(Ordering::Relaxed) && !is_end {
                return gst::PadProbeReturn::Handled;
            }
            match &info.data {
                Some(gst::PadProbeData::Buffer(buffer)) => {
                    let is_key = !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
                    let time = buffer.pts().map(gst::ClockTime::nseconds);
                    if watch.on_picture(buffer.size() as u64, time, is_key) {
                        event_sender.send(PipelineEvent::Flows);
                    }
                }
                Some(gst::PadProbeData::Event(event)) => match event.view() {
                    gst::EventView::Caps(caps) => return on_caps(&watch, &event_sender, codec, caps.caps(), keeps_header_apart),
                    gst::EventView::Eos(_) if !ending.load(Ordering::Relaxed) => {
                        event_sender.send(PipelineEvent::Failed(Failure::Closed(ENDED.to_owned())));
                    }
                    _ => {}
                },
                _ => {}
            }
            gst::PadProbeReturn::Ok
        });
    }
}

/// Answers ALLOCATION queries in front of a queue. A queue handles them in order with its data, so the thread that asks would
/// block for as long as the queue is blocked.
fn answer_allocation(pad: &gst::Pad) {
    pad.add_probe(gst::PadProbeType::QUERY_DOWNSTREAM, |_, info| match &info.data {
        Some(gst::PadProbeData::Query(query)) if query.type_() == gst::QueryType::Allocation => gst::PadProbeReturn::Handled,
        _ => gst::PadProbeReturn::Ok,
    });
}

/// Handles new caps of the pictures. Another codec or size ends the attempt, because a muxer cannot change them in mid-stream.
/// Another header for the same pictures does not: the parser repeats the parameter sets in the stream.
// Returns `Handled`, not `Drop`: for a dropped event GStreamer 1.22 unrefs what the bindings have already taken.
fn on_caps(
    watch: &Watch,
    event_sender: &EventSender,
    codec: Video,
    caps: &gst::CapsRef,
    keeps_header_apart: bool,
) -> gst::PadProbeReturn {
    let number = |field| {
        let value = caps.structure(0).and_then(|s| s.get::<i32>(field).ok());
        value.and_then(|value| u32::try_from(value).ok()).unwrap_or(0)
    };
    let picture = Picture {
        codec,
        width: number("width"),
        height: number("height"),
    };
    if watch.picture() == Some(picture) && keeps_header_apart {
        return gst::PadProbeReturn::Handled;
    }
    if let Some(before) = watch.on_kind(picture) {
        watch.closed.store(true, Ordering::Relaxed);
        if !watch.has_key() {
            event_sender.send(PipelineEvent::StaleSets);
        }
        let text = format!(
            "the picture changed from {}×{} to {}×{}",
            before.width, before.height, picture.width, picture.height
        );
        event_sender.send(PipelineEvent::Failed(Failure::Changed(text)));
        return gst::PadProbeReturn::Handled;
    }
    gst::PadProbeReturn::Ok
}
