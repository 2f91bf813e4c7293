//! `iotcorestatus`: reports to an IoT Core bridge, or to any MQTT broker, whether the pipeline works. An inline element that
//! passes any stream through.
//!
//! - `report` PURE: takes events and counts, returns the phase and what to publish; its `status` is the JSON
//! - `discovery` PURE: the message for Home Assistant; `commands` PURE: parses commands
//! - `settings` — the properties; `validated` — settings checked and converted
//! - `imp` — pads, states, properties, signals
//! - `counters` — what the streaming thread counts, without a lock
//! - `camera_clock` — the camera's clock, passed on to the sink
//! - `session` — what exists while the element runs: reporter, link, timer; `link_start` — starts the link in a thread of its own,
//!   since its files may be on a disk that hangs
//! - `link_listener`, `inbox`, `command_queue` — from the link's reports to the reporter and downstream
//! - `bus_watch` — the top-level bus; `downstream` — the gcssinks behind the element
//! - `messages` — what is posted or emitted; `debug` — the debug category
//!
//! Imports form no cycle, which `tests/imports.rs` checks: only `imp` names the element's type.

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
mod link_start;
mod messages;
pub mod report;
mod session;
mod settings;
mod validated;

glib::wrapper! {
    /// SECTION:element-iotcorestatus
    ///
    /// Passes buffers through unchanged and reports over MQTT whether the camera is recorded: `connected` while frames pass and
    /// every `gcssink` behind the element gets key units, otherwise `disconnected` with a phase and a reason.
    ///
    /// `protocol=mqtt` speaks to any broker, with last will, retained state and, on request, Home Assistant discovery.
    /// `protocol=iotcore` keeps to the device contract of IoT Core, which ClearBlade still serves.
    ///
    /// ## Example launch lines
    ///
    /// Report the state of a test picture to a broker, below `gcstreamer/cam1/`:
    ///
    /// ```sh
    /// gst-launch-1.0 -e videotestsrc is-live=true num-buffers=150 ! video/x-raw,format=I420 \
    ///   ! x264enc tune=zerolatency key-int-max=30 ! h264parse \
    ///   ! iotcorestatus protocol=mqtt host=BROKER device-id=cam1 \
    ///   ! flvmux streamable=true ! gcssink bucket=MY-BUCKET device-id=cam1
    /// ```
    ///
    /// Report the state of a camera to ClearBlade IoT Core:
    ///
    /// ```sh
    /// # needs a registry and a camera
    /// gst-launch-1.0 -e rtspsrc location=rtsp://CAMERA/stream latency=200 ! rtph264depay ! h264parse \
    ///   ! iotcorestatus host=us-central1-mqtt.clearblade.com project-id=MY-PROJECT region=us-central1 \
    ///     registry-id=MY-REGISTRY device-id=cam1 private-key-file=rsa_private.pem \
    ///   ! flvmux streamable=true ! gcssink bucket=MY-BUCKET device-id=cam1
    /// ```
    ///
    /// ## Limits
    ///
    /// - It belongs behind the parser and before the muxer: only there are buffers frames. It also belongs before `livesync` and
    ///   `fallbackswitch`, which keep buffers flowing when the camera sends none.
    /// - It watches every `gcssink` that its buffers can reach. Several are reported as one: all must be fed, and the worst status
    ///   counts.
    /// - Two states are at least one second apart. At most 16 events wait for the broker, none longer than 60 s.
    /// - `protocol=iotcore` has no last will: treat a state that is older than three times `state-interval` as unknown.
    /// - A camera with intra-refresh has no key units and is never reported as `connected`.
    ///
    /// ## Manners
    ///
    /// - The broker never stops or delays the pipeline. An outage is one WARNING, its end one INFO.
    /// - Going from PAUSED to READY waits up to `shutdown-timeout` (5 s) until the last state is acknowledged.
    /// - Commands are acted on only with `accept-commands=true`, and retained commands never. The signal `command` is emitted
    ///   in either case, except for retained ones.
    /// - The contents of password and key files never appear in a message or a log line.
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
