//! Listens on the bus of the top-level bin, beside the application's handler and never instead of it.
//!
//! A child's own bus is not it: bins forward to the top. The signal `sync-message` runs in the thread that posts, so nothing is
//! missed while an application does not look; it is blind only where the application's sync handler drops messages.

use gst::glib;
use gst::prelude::*;

use super::downstream;
use super::report::{Chunk, Gap, Input, Problem};
use crate::structures::{chunk_uploaded, gap};

/// A bus that is listened to, until it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    bus: gst::Bus,
    handler: Option<glib::SignalHandlerId>,
}

impl Watch {
    /// Listens on the bus of the pipeline that the element is in; `None` where there is none.
    pub(super) fn new(element: &gst::Element, hear: impl Fn(&gst::Message) + Send + Sync + 'static) -> Option<Self> {
        let bus = downstream::top_of(element).bus()?;
        bus.enable_sync_message_emission();
        let handler = bus.connect_sync_message(None, move |_, message| hear(message));
        Some(Self {
            bus,
            handler: Some(handler),
        })
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(handler) = self.handler.take() {
            self.bus.disconnect(handler);
        }
        self.bus.disable_sync_message_emission();
    }
}

/// What a message means to the reporter.
pub(super) fn understand(message: &gst::MessageRef) -> Option<Input> {
    match message.view() {
        gst::MessageView::Error(error) => Some(problem(message, &error.error(), true)),
        // Of the whole pipeline: bins keep those of their sinks to themselves until all have ended.
        gst::MessageView::Eos(_) => Some(Input::Eos),
        gst::MessageView::Warning(warning) => Some(problem(message, &warning.error(), false)),
        gst::MessageView::Element(element) => of_gcssink(element.structure()?),
        _ => None,
    }
}

fn problem(message: &gst::MessageRef, error: &glib::Error, is_error: bool) -> Input {
    let src = message.src();
    Input::Problem(Problem {
        src: src.map(|s| s.name().to_string()).unwrap_or_default(),
        domain: error.domain().as_str().to_string(),
        code: error.code(),
        msg: error.message().to_string(),
        is_source: src.is_some_and(is_source),
        is_error,
    })
}

/// Whether it is a source, or inside of one. Bins take the flag over from their children, so a plain bin says nothing.
fn is_source(object: &gst::Object) -> bool {
    let mut object = Some(object.clone());
    while let Some(current) = object {
        if let Some(element) = current.downcast_ref::<gst::Element>()
            && element.element_flags().contains(gst::ElementFlags::SOURCE)
            && !is_plain_bin(element)
        {
            return true;
        }
        object = current.parent();
    }
    false
}

fn is_plain_bin(element: &gst::Element) -> bool {
    element.factory().map_or_else(
        || element.is::<gst::Bin>(),
        |f| ["bin", "pipeline"].contains(&f.name().as_str()),
    )
}

/// The element messages of gcssink.
fn of_gcssink(structure: &gst::StructureRef) -> Option<Input> {
    let text = |name: &str| structure.get::<String>(name).unwrap_or_default();
    let number = |name: &str| structure.get::<u64>(name).unwrap_or(0);
    match structure.name().as_str() {
        chunk_uploaded::NAME => Some(Input::Chunk(Chunk {
            object: text(chunk_uploaded::OBJECT),
            session: text(chunk_uploaded::SESSION_ID),
            start_time: text(chunk_uploaded::START_TIME),
            sequence: number(chunk_uploaded::SEQUENCE),
            size: number(chunk_uploaded::SIZE),
            duration: number(chunk_uploaded::DURATION),
            latency: number(chunk_uploaded::LATENCY),
        })),
        gap::NAME => Some(Input::Gap(Gap {
            start_time: text(gap::START_TIME),
            reason: text(gap::REASON),
            duration: number(gap::DURATION),
            bytes: number(gap::BYTES),
            first_sequence: number(gap::FIRST_SEQUENCE),
            chunks: number(gap::CHUNKS),
        })),
        _ => None,
    }
}
