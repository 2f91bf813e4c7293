//! Turns the messages on the bus of a recording into [`PipelineEvent`]. Runs on streaming threads, so it must not block.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use gcstreamer_schema::redact;
use gcstreamer_schema::structures::GCSSINK;
use gst::prelude::*;

use super::classify::{SourceError, classify};
use super::reach;
use super::recording::Recording;
use super::state::Failure;
use super::watch::{PipelineEvent, Stored};
use crate::config::Scheme;

/// Turns every message into news. Messages stay on the bus until [`drain`]: `iotcorestatus` listens there too, and would not see
/// what a handler drops.
pub(super) fn listen(recording: &Arc<Recording>) {
    let Some(bus) = recording.pipeline.bus() else { return };
    // Weak: the bus belongs to the pipeline, which the recording owns.
    let weak: Weak<Recording> = Arc::downgrade(recording);
    bus.set_sync_handler(move |_, message| {
        if let Some(recording) = weak.upgrade() {
            on_message(&recording, message);
        }
        gst::BusSyncReply::Pass
    });
}

/// The consequence of an ERROR of `iotcorestatus`, for example if a file of the broker cannot be read.
const NO_STATUS: &str = "the broker gets no status of this camera";

/// Removes all messages from the bus; the sync handler has already handled them.
pub(super) fn drain(recording: &Recording) {
    if let Some(bus) = recording.pipeline.bus() {
        // The queue of the bus has no limit: it would grow for as long as the camera is recorded.
        while bus.pop().is_some() {}
    }
}

/// The factory of the element that a message is from.
fn factory(message: &gst::MessageRef) -> Option<String> {
    let element = message.src()?.downcast_ref::<gst::Element>()?.factory()?;
    Some(element.name().to_string())
}

/// The element that reports to the broker.
const STATUS: &str = "iotcorestatus";

fn is_ours(factory: Option<&str>) -> bool {
    matches!(factory, Some(GCSSINK | STATUS))
}

fn on_message(recording: &Recording, message: &gst::MessageRef) {
    let send = |news| recording.event_sender.send(news);
    let ours = || is_ours(factory(message).as_deref());
    match message.view() {
        gst::MessageView::Element(element) => {
            if let Some(stored) = element.structure().and_then(Stored::of) {
                send(PipelineEvent::Stored(stored));
            }
        }
        gst::MessageView::Warning(warning) if ours() => send(PipelineEvent::Warning(redact(&warning.error().to_string()))),
        gst::MessageView::Warning(warning) if is_closed(warning) && recording.lost_before_pictures(message) => {
            send(PipelineEvent::Closing);
        }
        gst::MessageView::Info(info) if ours() => send(PipelineEvent::Info(redact(&info.error().to_string()))),
        // Not a failure of the attempt: the camera is recorded without a broker.
        gst::MessageView::Error(error) if factory(message).as_deref() == Some(STATUS) => {
            let text = redact(&error.error().to_string());
            send(PipelineEvent::Warning(format!(
                "{NO_STATUS}: {text}; it is recorded, and its next connection tries again"
            )));
        }
        gst::MessageView::Error(error) if ours() => {
            let text = redact(&error.error().to_string());
            match recording.is_ending() {
                // The attempt is over: what fails now concerns only its upload.
                true => send(PipelineEvent::Warning(text)),
                false => send(PipelineEvent::Failed(Failure::Setup(text))),
            }
        }
        gst::MessageView::Error(error) if !recording.is_ending() => on_error(recording, error),
        gst::MessageView::Progress(progress) => {
            let (kind, code, _) = progress.get();
            let is_source = message.src() == Some(recording.source.upcast_ref());
            match (kind, code) {
                (gst::ProgressType::Complete, "open") => recording.on_opened(),
                (gst::ProgressType::Complete, "request") if is_source => recording.login().note_playing(),
                // The source posts this before a new request, but not before it repeats one with credentials.
                (gst::ProgressType::Start | gst::ProgressType::Continue, _) if is_source => recording.login().note_next(),
                _ => {}
            }
        }
        _ => {}
    }
}

/// Handles an ERROR of the source, or of the elements behind it that only pass its streams on.
fn on_error(recording: &Recording, error: &gst::message::Error) {
    let is_source = error
        .src()
        .is_some_and(|src| src.has_as_ancestor(&recording.source) || src == recording.source.upcast_ref::<gst::Object>());
    // Later ERRORs of the source are consequences of the first.
    if is_source && recording.has_failed.swap(true, Ordering::Relaxed) {
        return;
    }
    let failure = match (is_source, classify(&taken_apart(error, recording))) {
        (false, Failure::Internal(text)) => Failure::Internal(text),
        (false, _) => Failure::Internal(format!("the pipeline failed: {}", redact(&error.error().to_string()))),
        // `rtspsrc` fails if no stream was selected. What the camera announced explains more.
        (true, Failure::Unsupported(text)) => recording.fault().unwrap_or(Failure::Unsupported(text)),
        (true, Failure::Internal(_)) if is_of_no_stream(recording, error) => recording.no_streams(),
        (true, Failure::Internal(text)) if is_without_answer(recording, error) => return ask(recording, text),
        (true, failure) => failure,
    };
    recording.event_sender.send(PipelineEvent::Failed(failure));
}

/// Whether data arrived outside RTSP and no stream was found in it.
fn is_of_no_stream(recording: &Recording, error: &gst::message::Error) -> bool {
    let is_type = matches!(
        error.error().kind::<gst::StreamError>(),
        Some(gst::StreamError::TypeNotFound | gst::StreamError::WrongType | gst::StreamError::CodecNotFound)
    );
    is_type && recording.has_no_pictures()
}

/// Whether an HTTP camera gave no answer and the source does not report why. Always `false` with a proxy: a direct connection of
/// our own would prove nothing about it.
fn is_without_answer(recording: &Recording, error: &gst::message::Error) -> bool {
    let proxy = || {
        let source = error.src()?.downcast_ref::<gst::Element>()?;
        source
            .has_property("proxy")
            .then(|| source.property::<Option<String>>("proxy"))?
    };
    recording.setup.camera.address.scheme() == Scheme::Http
        && error.error().matches(gst::StreamError::Failed)
        && !recording.watch.has_arrived()
        && proxy().is_none_or(|proxy| proxy.is_empty())
}

/// Finds out why a camera gave no answer, in a thread of its own. `otherwise`: the text if no thread can be started.
fn ask(recording: &Recording, otherwise: String) {
    let address = recording.setup.camera.address.clone();
    let (event_sender, ending) = (recording.event_sender.clone(), Arc::clone(&recording.ending));
    let asked = std::thread::Builder::new().name("ask".to_owned()).spawn(move || {
        if !ending.load(Ordering::Relaxed) {
            event_sender.send(PipelineEvent::Failed(reach::ask(&address)));
        }
    });
    if asked.is_err() {
        recording
            .event_sender
            .send(PipelineEvent::Failed(Failure::Internal(otherwise)));
    }
}

/// Whether `rtspsrc` reports that the server has closed the connection. It also sends an EOS, but before there are pads that
/// reaches no element.
fn is_closed(warning: &gst::message::Warning) -> bool {
    let is_read = warning.error().matches(gst::ResourceError::Read);
    is_read
        && warning
            .debug()
            .is_some_and(|debug| debug.contains("server closed the connection"))
}

fn taken_apart(error: &gst::message::Error, recording: &Recording) -> SourceError {
    let details = error.details();
    let number = |field| details.and_then(|details| details.get::<u32>(field).ok());
    let cause = error.error();
    let code = match cause.kind::<gst::ResourceError>() {
        Some(gst::ResourceError::NotAuthorized) => "NotAuthorized",
        Some(gst::ResourceError::NotFound) => "NotFound",
        _ => "",
    };
    SourceError {
        rtsp_status: number("rtsp-status-code"),
        http_status: number("http-status-code"),
        code: code.to_owned(),
        is_chosen: recording.fault().is_none(),
        misled: recording.misled(),
        is_encrypted: recording.setup.camera.address.is_encrypted(),
        scheme: Some(recording.setup.camera.address.scheme()),
        text: cause.message().to_owned(),
        debug: error.debug().map(|debug| debug.to_string()).unwrap_or_default(),
    }
}
