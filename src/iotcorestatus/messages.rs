//! What the element posts, notifies and emits, through the outbox.

use bytes::Bytes;
use gst::glib;
use gst::prelude::*;

use super::IotCoreStatus;
use crate::outbox::post_info;

/// Signals that wait for a slow application, at most; more are dropped.
pub(super) const MOST: usize = 256;

/// Something to say.
#[derive(Clone, Debug)]
pub(super) enum Post {
    Warning(String),
    Info(String),
    Notify(&'static str),
    /// Signal `config`.
    Config(Bytes),
    /// Signal `command`.
    Command(String, Bytes),
}

/// Where it waits to be said.
pub(super) type Outbox = crate::outbox::Outbox<IotCoreStatus, Post>;

/// Says it.
pub(super) fn say(element: &IotCoreStatus, post: Post) {
    match post {
        Post::Warning(text) => gst::element_warning!(element, gst::ResourceError::Write, ("{text}")),
        Post::Info(text) => post_info(element, gst::ResourceError::Write, &text),
        Post::Notify(name) => element.notify(name),
        Post::Config(payload) => element.emit_by_name::<()>("config", &[&glib::Bytes::from_owned(payload)]),
        Post::Command(tail, payload) => element.emit_by_name::<()>("command", &[&tail, &glib::Bytes::from_owned(payload)]),
    }
}
