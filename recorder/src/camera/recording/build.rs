//! The right side of a recording: muxer and sink, and the report to the broker in front of them. Built once.

use std::sync::atomic::Ordering;

use gst::prelude::*;

use super::super::plan;
use super::super::sink;
use super::super::state::Failure;
use super::super::watch::PipelineEvent;
use super::{Branch, Recording, internal};

impl Recording {
    /// Builds the right side and opens the queues. Blocks on the disk and on credentials, without holding a lock. Does nothing if
    /// it is already built, if there is no stream of pictures, or if the recording is ending.
    pub fn assemble(&self) {
        if let Some((video, sound)) = self.claim() {
            self.build_once(video.as_ref(), sound.as_ref());
        }
    }

    /// Claims the right to build the right side. Returns the source pads of the branches to the first caller, `None` to all later
    /// ones.
    pub(in crate::camera) fn claim(&self) -> Option<(Option<gst::Pad>, Option<gst::Pad>)> {
        let mut parts = self.parts();
        if parts.assembled || self.is_ending() || parts.video.is_none() {
            return None;
        }
        parts.assembled = true;
        let outer = |branch: &Branch| branch.bin.static_pad("src");
        Some((parts.video.as_ref().and_then(outer), parts.sound.as_ref().and_then(outer)))
    }

    pub(in crate::camera) fn build_once(&self, video: Option<&gst::Pad>, sound: Option<&gst::Pad>) {
        let build = || match video {
            Some(video) => self.build(video, sound),
            None => Err(internal(&"a pad is missing")),
        };
        // A panic must be reported as a failure: otherwise the queues stay blocked and the camera is reported as `no-key-frames`.
        let built = std::panic::catch_unwind(std::panic::AssertUnwindSafe(build));
        let built = built.unwrap_or_else(|_| Err(internal(&"a fault of the recorder itself, which standard error names")));
        self.built.set();
        if let Err(failure) = built {
            self.event_sender.send(PipelineEvent::Failed(failure));
        }
    }

    fn build(&self, video: &gst::Pad, sound: Option<&gst::Pad>) -> Result<(), Failure> {
        let (line, video_pad, sound_pad) = plan::muxer(self.setup.camera.container);
        let muxer = gst::parse::launch(line).map_err(|e| internal(&e))?;
        let sink = sink::make(&self.setup).map_err(|e| internal(&e))?;
        if let Some(pad) = sink.static_pad("sink") {
            self.closed.watch(&pad);
        }
        let status = self.make_status()?;
        self.pipeline.add_many([&muxer, &sink]).map_err(|e| internal(&e))?;
        muxer.link(&sink).map_err(|e| internal(&e))?;
        let request = |name: &str| {
            let pad = muxer.request_pad_simple(name);
            pad.ok_or_else(|| internal(&"the muxer takes no more streams"))
        };
        let into_video = request(video_pad)?;
        link_through(video, status.as_ref(), &into_video)?;
        // Link only sound that has already arrived: a muxer with a silent sound pad waits for it and outputs nothing.
        let mut into_muxer = None;
        match sound {
            Some(sound) if self.watch.sound_ages().is_some() => {
                let into = request(sound_pad)?;
                sound.link(&into).map_err(|e| internal(&e))?;
                into_muxer = Some(into);
            }
            Some(sound) => {
                self.watch.is_soundless.store(true, Ordering::Relaxed);
                self.add_nothing(sound)?;
            }
            None => {}
        }
        {
            let mut parts = self.parts();
            parts.sound_label = parts.sound_label.filter(|_| into_muxer.is_some());
            parts.sound_pad = into_muxer;
            parts.sink = Some(sink.clone());
            parts.status.clone_from(&status);
        }
        // Before the element below connects to the broker, which accepts only one connection with the same client id.
        self.setup.absence.end();
        for element in [&sink, &muxer] {
            // The element has posted an ERROR message with the cause, and the first failure of an attempt counts.
            let failed = |_| Failure::Internal("an element of the recorder does not start".to_owned());
            element.sync_state_with_parent().map_err(failed)?;
        }
        if let Some(status) = &status
            && status.sync_state_with_parent().is_err()
        {
            self.leave_status(status, video, &into_video)?;
        }
        let parts = &mut *self.parts();
        for branch in [&mut parts.video, &mut parts.sound].into_iter().flatten() {
            branch.open();
        }
        Ok(())
    }

    /// Creates the element that reports to the broker and adds it to the pipeline. Returns `None` if no broker is configured.
    fn make_status(&self) -> Result<Option<gst::Element>, Failure> {
        let status = self.setup.storage.status(&self.setup.camera).map_err(|e| internal(&e))?;
        if let Some(status) = &status {
            self.pipeline.add(status).map_err(|e| internal(&e))?;
        }
        Ok(status)
    }

    /// Removes the element that reports to the broker because it did not start; its own ERROR message gives the cause. The camera
    /// is recorded without it, and the next recording tries again.
    fn leave_status(&self, status: &gst::Element, video: &gst::Pad, into: &gst::Pad) -> Result<(), Failure> {
        self.parts().status = None;
        let _ = status.set_state(gst::State::Null);
        // Removing an element from its bin also unlinks its pads.
        self.pipeline.remove(status).map_err(|e| internal(&e))?;
        link_through(video, None, into)
    }
}

/// Links two pads, through `element` if there is one.
fn link_through(from: &gst::Pad, element: Option<&gst::Element>, into: &gst::Pad) -> Result<(), Failure> {
    let Some(element) = element else {
        return from.link(into).map(drop).map_err(|e| internal(&e));
    };
    let (Some(front), Some(back)) = (element.static_pad("sink"), element.static_pad("src")) else {
        return Err(internal(&"a pad is missing"));
    };
    from.link(&front).map_err(|e| internal(&e))?;
    back.link(into).map(drop).map_err(|e| internal(&e))
}
