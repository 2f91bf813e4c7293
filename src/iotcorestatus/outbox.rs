//! Everything the element posts, notifies and emits, in order, from a thread of GStreamer's pool and without a lock held: a
//! slow handler of the application stops neither the stream nor the link.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use gst::glib;
use gst::prelude::*;

use super::IotCoreStatus;

/// Signals that wait for a slow application, at most; more are dropped.
const MOST: usize = 256;

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

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    empty: Condvar,
    element: glib::WeakRef<IotCoreStatus>,
}

#[derive(Debug, Default)]
struct State {
    posts: VecDeque<Post>,
    busy: bool,
}

impl Outbox {
    /// For this element.
    pub(super) fn new(element: &IotCoreStatus) -> Arc<Self> {
        Arc::new(Self {
            element: element.downgrade(),
            ..Self::default()
        })
    }

    /// Says this, after what is already there.
    pub(super) fn post(self: &Arc<Self>, post: Post) {
        let Some(element) = self.element.upgrade() else { return };
        let mut state = self.lock();
        if state.posts.len() >= MOST {
            return;
        }
        state.posts.push_back(post);
        if std::mem::replace(&mut state.busy, true) {
            return;
        }
        drop(state);
        let this = Arc::clone(self);
        element.call_async(move |element| this.drain(element));
    }

    fn drain(&self, element: &IotCoreStatus) {
        loop {
            let mut state = self.lock();
            let Some(post) = state.posts.pop_front() else {
                state.busy = false;
                drop(state);
                self.empty.notify_all();
                return;
            };
            drop(state);
            say(element, post);
        }
    }

    /// Waits until all is said, or `until`.
    pub(super) fn wait_empty(&self, until: Instant) {
        let mut state = self.lock();
        while state.busy {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.empty.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn say(element: &IotCoreStatus, post: Post) {
    match post {
        Post::Warning(text) => gst::element_warning!(element, gst::ResourceError::Write, ("{text}")),
        Post::Info(text) => gst::element_info!(element, gst::ResourceError::Write, ("{text}")),
        Post::Notify(name) => element.notify(name),
        Post::Config(payload) => element.emit_by_name::<()>("config", &[&glib::Bytes::from_owned(payload)]),
        Post::Command(tail, payload) => element.emit_by_name::<()>("command", &[&tail, &glib::Bytes::from_owned(payload)]),
    }
}
