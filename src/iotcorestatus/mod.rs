//! `iotcorestatus`: tells an IoT Core bridge, or any MQTT broker, how the pipeline is. Inline, anything passes through.
//!
//! ```text
//! gst-launch-1.0 -e rtspsrc location=rtsp://CAMERA/stream ! rtph264depay ! h264parse ! \
//!   iotcorestatus protocol=mqtt host=BROKER device-id=cam1 ! flvmux streamable=true ! gcssink bucket=MY-BUCKET device-id=cam1
//! ```
//!
//! - `report` PURE: what happened in, phase and what to publish out; its `status`: the JSON
//! - `discovery` PURE: Home Assistant's; `commands` PURE: what a command means
//! - `settings` — the properties; `validated` — settings checked and made usable
//! - `counters` — what the streaming thread counts, without a lock
//! - `camera_clock` — the camera's clock, passed on to the sink
//! - `session` — what exists while the element runs: reporter, link, timer
//! - `bus_watch` — the top-level bus; `downstream` — the gcssinks behind us
//! - `messages` — what is posted or emitted

use gst::glib;
use gst::prelude::*;

mod bus_watch;
mod camera_clock;
pub mod commands;
mod counters;
pub mod discovery;
mod downstream;
mod imp;
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
/// What GStreamer says.
pub fn register(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
    gst::Element::register(Some(plugin), "iotcorestatus", gst::Rank::NONE, IotCoreStatus::static_type())
}
