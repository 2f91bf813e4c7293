//! Specifications of properties that both elements have: text that is set before the start, times that may change any time.

use gst::glib;
use gst::prelude::*;

/// A text, NULL by default, to be set before PAUSED.
pub(crate) fn string(name: &str, nick: &str, blurb: &str) -> glib::ParamSpec {
    glib::ParamSpecString::builder(name)
        .nick(nick)
        .blurb(blurb)
        .mutable_ready()
        .build()
}

/// A time in ns, to be set any time.
pub(crate) fn time(name: &str, nick: &str, blurb: &str, minimum: u64, default: u64) -> glib::ParamSpec {
    glib::ParamSpecUInt64::builder(name)
        .nick(nick)
        .blurb(blurb)
        .minimum(minimum)
        .default_value(default)
        .mutable_playing()
        .build()
}
