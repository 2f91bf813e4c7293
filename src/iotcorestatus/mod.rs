//! `iotcorestatus`: tells an IoT Core bridge, or any MQTT broker, how the pipeline is. Inline, anything passes through.
//!
//! ```text
//! gst-launch-1.0 -e rtspsrc location=rtsp://CAMERA/stream ! rtph264depay ! h264parse ! \
//!   iotcorestatus protocol=mqtt host=BROKER device-id=cam1 ! flvmux streamable=true ! gcssink bucket=MY-BUCKET device-id=cam1
//! ```
//!
//! - `report` PURE: what happened in, phase and what to publish out
//! - `status` PURE: the JSON; `discovery` PURE: Home Assistant's; `commands` PURE: what a command means
//! - `settings` — the properties; `plan` — settings checked and made usable
//! - `tally` — what the streaming thread counts, without a lock
//! - `clock` — the camera's clock, passed on to the sink
//! - `session` — what exists while the element runs: reporter, link, timer
//! - `watch` — the top-level bus; `downstream` — the gcssinks behind us
//! - `outbox` — what is posted or emitted

use gst::glib;
use gst::prelude::*;

mod clock;
pub mod commands;
pub mod discovery;
mod downstream;
mod imp;
mod outbox;
mod plan;
pub mod report;
mod session;
mod settings;
pub mod status;
mod tally;
mod watch;

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
