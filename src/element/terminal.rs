//! Warnings for programs that do not read the bus: `gst-launch-1.0` has left its loop before its elements leave PAUSED, and a
//! program that sets a property may have no bus at all. They go to GLib's log, which is standard error unless a program redirects
//! it.

use gst::glib;
use gst::prelude::*;

/// The domain in GLib's log.
const DOMAIN: &str = "GStreamer-gcstreamer";

/// Logs a warning about an element. Call it without a lock held: the program may have its own log handler.
pub(crate) fn warn(element: &impl IsA<gst::Object>, text: &str) {
    glib::g_warning!(DOMAIN, "{}: {text}", element.name());
}
