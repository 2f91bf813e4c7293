//! Listens on the bus of the top-level bin, in addition to the application's handler and never instead of it.
//!
//! The element's own bus does not suffice: bins forward messages to the top. The signal `sync-message` runs in the posting
//! thread, so nothing is missed while the application does not read its bus. Messages that the application's sync handler drops
//! are not seen.

use gst::glib;
use gst::prelude::*;

use super::report::{Chunk, Event, Gap, Problem};
use gcstreamer_schema::structures::{chunk_uploaded, gap};

/// The bus that a session listens to. Do not drop it while holding a lock that the handler takes.
#[derive(Debug, Default)]
pub(super) struct Watched {
    watch: Option<BusWatch>,
    has_ended: bool,
}

impl Watched {
    /// Switches to this bus if it is not the current one; `None` listens to nothing. Returns the previous watch, to be dropped
    /// without a lock held. Does nothing after [`Watched::end`].
    pub(super) fn follow(&mut self, bus: Option<gst::Bus>, on_message: impl Fn(&gst::Message) + Send + Sync + 'static) -> Self {
        let is_current = self.watch.as_ref().map(|watch| &watch.bus) == bus.as_ref();
        if is_current || self.has_ended {
            return Self::default();
        }
        let watch = bus.map(|bus| BusWatch::new(bus, on_message));
        std::mem::replace(self, Self { watch, has_ended: false })
    }

    /// Stops listening for good. Returns the last watch, to be dropped without a lock held.
    pub(super) fn end(&mut self) -> Self {
        let has_ended = true;
        std::mem::replace(self, Self { watch: None, has_ended })
    }
}

/// A connection to the bus; ends when dropped.
#[derive(Debug)]
struct BusWatch {
    bus: gst::Bus,
    handler: Option<glib::SignalHandlerId>,
}

impl BusWatch {
    /// Listens on this bus.
    fn new(bus: gst::Bus, on_message: impl Fn(&gst::Message) + Send + Sync + 'static) -> Self {
        bus.enable_sync_message_emission();
        let handler = bus.connect_sync_message(None, move |_, message| on_message(message));
        Self {
            bus,
            handler: Some(handler),
        }
    }
}

impl Drop for BusWatch {
    fn drop(&mut self) {
        if let Some(handler) = self.handler.take() {
            self.bus.disconnect(handler);
        }
        // The bus counts: other listeners keep their emission.
        self.bus.disable_sync_message_emission();
    }
}

/// Converts a message to an event for the reporter, if it is relevant.
pub(super) fn event_of(message: &gst::MessageRef) -> Option<Event> {
    match message.view() {
        gst::MessageView::Error(error) => Some(problem(message, &error.error(), true)),
        // The EOS of the whole pipeline: bins forward EOS only when all their sinks are at EOS.
        gst::MessageView::Eos(_) => Some(Event::Eos),
        gst::MessageView::Warning(warning) => Some(problem(message, &warning.error(), false)),
        gst::MessageView::Element(element) => of_gcssink(element.structure()?),
        _ => None,
    }
}

fn problem(message: &gst::MessageRef, error: &glib::Error, is_error: bool) -> Event {
    let src = message.src();
    Event::Problem(Problem {
        src: src.map(|s| s.name().to_string()).unwrap_or_default(),
        domain: error.domain().as_str().to_string(),
        code: error.code(),
        msg: error.message().to_string(),
        is_source: src.is_some_and(is_source),
        is_error,
        is_elsewhere: false,
    })
}

/// Returns whether the object is a source, or inside one. A plain bin does not count: bins copy the flag from their children.
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

/// Reads an element message of a gcssink.
fn of_gcssink(structure: &gst::StructureRef) -> Option<Event> {
    let text = |name: &str| structure.get::<String>(name).unwrap_or_default();
    let number = |name: &str| structure.get::<u64>(name).unwrap_or(0);
    match structure.name().as_str() {
        chunk_uploaded::NAME => Some(Event::Chunk(Chunk {
            object: text(chunk_uploaded::OBJECT),
            session: text(chunk_uploaded::SESSION_ID),
            start_time: text(chunk_uploaded::START_TIME),
            sequence: number(chunk_uploaded::SEQUENCE),
            size: number(chunk_uploaded::SIZE),
            duration: number(chunk_uploaded::DURATION),
            latency: number(chunk_uploaded::LATENCY),
        })),
        gap::NAME => Some(Event::Gap(Gap {
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
