//! What the element posts, notifies and emits. The poster delivers it from GStreamer's thread pool, without a lock held.

use bytes::Bytes;
use gst::glib;
use gst::prelude::*;

use crate::element::poster::post_info;

/// Maximum number of posts that wait for a slow application; more are dropped.
pub(super) const MAX_POSTS: usize = 256;

/// One thing to deliver to the application.
#[derive(Clone, Debug)]
pub(super) enum Post {
    Warning(String),
    Info(String),
    /// Property `mqtt-connected` may have changed.
    Connected,
    /// Notify of the property with this name.
    Notify(&'static str),
    /// Signal `config`: the payload.
    Config(Bytes),
    /// Signal `command`: the rest of the topic and the payload.
    Command(String, Bytes),
}

/// The queue of posts of this element.
pub(super) type MessagePoster = crate::element::poster::MessagePoster<gst::Element, Post>;

/// Delivers one post. `notify_connected`: notifies of the property `mqtt-connected` if it has changed.
pub(super) fn deliver(element: &gst::Element, post: Post, notify_connected: impl FnOnce()) {
    match post {
        Post::Warning(text) => gst::element_warning!(element, gst::ResourceError::Write, ("{text}")),
        Post::Info(text) => post_info(element, gst::ResourceError::Write, &text),
        Post::Connected => notify_connected(),
        Post::Notify(name) => element.notify(name),
        Post::Config(payload) => element.emit_by_name::<()>("config", &[&glib::Bytes::from_owned(payload)]),
        Post::Command(tail, payload) => element.emit_by_name::<()>("command", &[&tail, &glib::Bytes::from_owned(payload)]),
    }
}
