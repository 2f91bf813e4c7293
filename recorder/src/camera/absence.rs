//! Reports a camera to the broker while no recording does: it has never sent a picture, or it is unreachable.
//!
//! The reports come from `iotcorestatus` here too, in a pipeline of its own without data, so that topics, states and protocols
//! are the same. It uses the client id of the camera, and a broker accepts only one connection with the same id: it must end
//! before that of a recording begins, and begin after that one has ended.

use std::sync::Mutex;

use gst::prelude::*;

use super::sink::Storage;
use super::state::State;
use crate::config::Camera;
use gstgcstreamer::base::lock::lock;

/// The absence of one camera, shared by its runner and its recordings.
#[derive(Debug, Default)]
pub struct Absence {
    reporting: Mutex<Option<gst::Pipeline>>,
}

/// Why a camera is absent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Why {
    /// A fault of the camera, or `stopped` if the recorder is at fault.
    pub(super) state: State,
    /// The cause, for people.
    pub(super) reason: String,
}

impl Absence {
    /// Reports the camera as absent, unless a recording already reports it (`is_reported`). Blocks on files for a moment.
    // `is_reported` is asked under the lock: a recording calls `end` after it is assembled, so one of the two sees the other.
    pub(super) fn begin(&self, storage: &Storage, camera: &Camera, why: &Why, is_reported: impl Fn() -> bool) {
        let mut reporting = lock(&self.reporting);
        if is_reported() {
            return;
        }
        if let Some(before) = reporting.take() {
            let _ = before.set_state(gst::State::Null);
        }
        match report(storage, camera, why) {
            Ok(pipeline) => *reporting = pipeline,
            Err(error) => tracing::warn!(
                camera = camera.id,
                "the broker gets no status of a camera that is away: {error}"
            ),
        }
    }

    /// Ends the report of the absence: a recording reports the camera next, or it stays `stopped`. Blocks for some tenths of a
    /// second.
    pub fn end(&self) {
        if let Some(pipeline) = lock(&self.reporting).take() {
            let _ = pipeline.set_state(gst::State::Null);
        }
    }
}

impl Drop for Absence {
    fn drop(&mut self) {
        self.end();
    }
}

fn report(storage: &Storage, camera: &Camera, why: &Why) -> Result<Option<gst::Pipeline>, gst::glib::BoolError> {
    let Some(status) = storage.status(camera)? else {
        return Ok(None);
    };
    // Do not wait for the broker at the end: if it is unreachable, it publishes the will by itself.
    status.set_property("shutdown-timeout", 0u64);
    let source = gst::ElementFactory::make("appsrc")
        .name("camera")
        .property("is-live", true)
        .build()?;
    let sink = gst::ElementFactory::make("fakesink")
        .property("async", false)
        .property("sync", false)
        .build()?;
    let pipeline = gst::Pipeline::new();
    pipeline.add_many([&source, &status, &sink])?;
    gst::Element::link_many([&source, &status, &sink])?;
    if pipeline.set_state(gst::State::Playing).is_err() {
        let text = pipeline.bus().and_then(|bus| bus.pop_filtered(&[gst::MessageType::Error]));
        let _ = pipeline.set_state(gst::State::Null);
        let text = text.map_or_else(String::new, |message| match message.view() {
            gst::MessageView::Error(error) => error.error().to_string(),
            _ => String::new(),
        });
        return Err(gst::glib::bool_error!("{}", gcstreamer_schema::redact(&text)));
    }
    let bus = pipeline
        .bus()
        .ok_or_else(|| gst::glib::bool_error!("the pipeline has no bus"))?;
    // `iotcorestatus` reports `source-lost` for a WARNING of the source followed by EOS, and `error` for an ERROR of any other
    // element.
    match why.state {
        State::Stopped => {
            let error = gst::message::Error::builder(gst::CoreError::Failed, &why.reason).src(&status);
            bus.post(error.build())
                .map_err(|_| gst::glib::bool_error!("the bus takes no message"))?;
        }
        _ => {
            let warning = gst::message::Warning::builder(gst::ResourceError::Read, &why.reason).src(&source);
            bus.post(warning.build())
                .map_err(|_| gst::glib::bool_error!("the bus takes no message"))?;
            let _ = source.emit_by_name::<gst::FlowReturn>("end-of-stream", &[]);
        }
    }
    Ok(Some(pipeline))
}
