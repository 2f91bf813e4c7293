//! `gcssink`: stores a muxed stream in Cloud Storage as objects that each play alone.
//!
//! A thin shell: it copies settings, feeds the chunker, hands chunks to the uploads and turns reports into messages. It holds
//! no decision of its own.
//!
//! - `settings` — the properties
//! - `plan` — settings checked and made usable, or an error that says what to do
//! - `session` — what exists while it runs: recorder, uploads, spool and their tasks
//! - `ending`, `together` — its two ends, EOS and leaving PAUSED; the sinks of a pipeline end side by side
//! - `recorder`, `object` — what the streaming thread and the timers share; what a chunk becomes
//! - `stream`, `stats` — what the element does with a buffer; what it says of itself in numbers
//! - `messages` — everything that is posted, through the outbox
//! - `blocks` — memory that is used again
//! - `caps`, `upstream` — small answers about the pipeline

use gst::glib;
use gst::prelude::*;

mod blocks;
mod caps;
mod ending;
mod imp;
mod messages;
mod object;
mod plan;
mod recorder;
mod session;
mod settings;
mod stats;
mod stream;
mod together;
mod upstream;

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
