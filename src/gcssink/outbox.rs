//! Everything the element posts, in order, from a thread of GStreamer's pool and without a lock held: a slow handler of the
//! application stops neither uploads nor streaming.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use gst::glib;
use gst::prelude::*;

use super::GcsSink;
use super::messages::{self, Post};
use crate::upload::uploads::Uploads;

/// See the module.
#[derive(Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    empty: Condvar,
    element: glib::WeakRef<GcsSink>,
}

#[derive(Default)]
struct State {
    posts: VecDeque<Post>,
    uploads: Option<Arc<Uploads>>,
    busy: bool,
}

impl Outbox {
    /// For this element.
    pub(super) fn new(element: &GcsSink) -> Arc<Self> {
        Arc::new(Self {
            element: element.downgrade(),
            ..Self::default()
        })
    }

    /// Reports of these uploads are posted too.
    pub(super) fn attach(&self, uploads: Option<Arc<Uploads>>) {
        self.lock().uploads = uploads;
    }

    /// Posts this, after what is already there.
    pub(super) fn post(self: &Arc<Self>, post: Post) {
        self.lock().posts.push_back(post);
        self.kick();
    }

    /// There may be something to post.
    pub(super) fn kick(self: &Arc<Self>) {
        let Some(element) = self.element.upgrade() else { return };
        if std::mem::replace(&mut self.lock().busy, true) {
            return;
        }
        let this = Arc::clone(self);
        element.call_async(move |element| this.drain(element));
    }

    fn drain(&self, element: &GcsSink) {
        loop {
            let mut state = self.lock();
            let post = match state.posts.pop_front() {
                Some(post) => Some(post),
                None => state.uploads.as_ref().and_then(|u| u.take_report()).map(Post::Report),
            };
            let Some(post) = post else {
                state.busy = false;
                drop(state);
                self.empty.notify_all();
                return;
            };
            drop(state);
            messages::post(element, post);
        }
    }

    /// Waits until all is posted, or `until`.
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

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
