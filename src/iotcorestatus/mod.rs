//! `iotcorestatus`: reports to an IoT Core bridge, or to any MQTT broker, whether the pipeline works. Inline; passes anything through.
//!
//! ```text
//! gst-launch-1.0 -e rtspsrc location=rtsp://CAMERA/stream ! rtph264depay ! h264parse ! \
//!   iotcorestatus protocol=mqtt host=BROKER device-id=cam1 ! flvmux streamable=true ! gcssink bucket=MY-BUCKET device-id=cam1
//! ```
//!
//! - `report` PURE: takes events and counts, returns the phase and what to publish; its `status` is the JSON
//! - `discovery` PURE: the message for Home Assistant; `commands` PURE: what a command means
//! - `settings` — the properties; `validated` — settings checked and converted
//! - `imp` — pads, states, properties, signals
//! - `counters` — what the streaming thread counts, without a lock
//! - `camera_clock` — the camera's clock, passed on to the sink
//! - `session` — what exists while the element runs: reporter, link, timer
//! - `link_listener`, `inbox`, `command_queue` — what the link reports, on its way to the reporter and downstream
//! - `bus_watch` — the top-level bus; `downstream` — the gcssinks behind the element
//! - `messages` — what is posted or emitted; `debug` — the debug category
//!
//! Imports run one way only, `tests/imports.rs` checks it: nothing but `imp` names the element's type.

use gst::glib;
use gst::prelude::*;

mod bus_watch;
mod camera_clock;
mod command_queue;
pub mod commands;
mod counters;
mod debug;
pub mod discovery;
mod downstream;
mod imp;
mod inbox;
mod link_listener;
mod messages;
pub mod report;
mod session;
mod settings;
mod validated;

glib::wrapper! {
    /// The element `iotcorestatus`.
    pub struct IotCoreStatus(ObjectSubclass<imp::IotCoreStatus>)
        @extends gst::Element, gst::Object;
}

/// Registers the element.
///
/// # Errors
/// Returns the error of GStreamer's registry.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "iotcorestatus", gst::Rank::NONE, IotCoreStatus::static_type())
}
