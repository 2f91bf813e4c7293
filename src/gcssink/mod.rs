//! `gcssink`: stores a muxed stream in Cloud Storage as objects that each play alone.
//!
//! The GStreamer shell around [`crate::ingest`] and [`crate::upload`]: it copies settings, hands buffers, events and states to
//! the engine, and turns its messages into GStreamer's.
//!
//! - `settings` — the properties
//! - `validate` — settings checked and made usable, or an error that says what to do
//! - `session` — what exists while it runs: the engine, and what of it is GStreamer's
//! - `stream` — what the element does with a buffer
//! - `siblings` — the sinks of a pipeline end side by side
//! - `compose`, `messages`, `stats` — what is posted and with which figures; its texts; the numbers
//! - `debug` — the debug category; the life of chunks in it
//! - `blocks` — memory that is used again
//! - `caps`, `upstream` — small answers about the pipeline

use gst::glib;
use gst::prelude::*;

mod blocks;
mod caps;
mod compose;
mod debug;
mod imp;
mod messages;
mod session;
mod settings;
mod siblings;
mod stats;
mod stream;
mod upstream;
mod validate;

glib::wrapper! {
    /// The element `gcssink`.
    pub struct GcsSink(ObjectSubclass<imp::GcsSink>)
        @extends gst_base::BaseSink, gst::Element, gst::Object,
        @implements gst::URIHandler;
}

/// Registers the element.
///
/// # Errors
/// What GStreamer says.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "gcssink", gst::Rank::NONE, GcsSink::static_type())
}
