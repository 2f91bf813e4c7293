//! Delivers everything that an element posts, notifies and emits: in order, from GStreamer's thread pool and without a lock held,
//! so that a slow handler of the application stops neither the stream nor the network.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use gst::glib;
use gst::glib::object::ObjectType;
use gst::prelude::*;

use crate::base::lock::lock;

/// Source of further posts; read when the queue is empty.
type More<P> = Box<dyn Fn() -> Option<P> + Send>;

/// The queue of posts of one element. `E` is the element, `P` a post.
pub(crate) struct MessagePoster<E: ObjectType, P> {
    state: Mutex<PosterState<P>>,
    empty: Condvar,
    element: glib::WeakRef<E>,
    publish: fn(&E, P),
    /// Maximum number of posts that wait for a slow application; more are dropped.
    most: usize,
}

struct PosterState<P> {
    posts: VecDeque<P>,
    more: Option<More<P>>,
    busy: bool,
}

/// Posts an INFO. The text also goes into the debug string: gst-launch prints only that of an INFO.
pub(crate) fn post_info(element: &impl IsA<gst::Element>, code: gst::ResourceError, text: &str) {
    gst::element_info!(element, code, ("{text}"), ["{text}"]);
}

impl<E: IsA<gst::Element> + Send + Sync, P: Send + 'static> MessagePoster<E, P> {
    /// Creates the poster of an element; `publish` delivers one post.
    pub(crate) fn new(element: &E, publish: fn(&E, P), most: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(PosterState {
                posts: VecDeque::new(),
                more: None,
                busy: false,
            }),
            empty: Condvar::new(),
            element: element.downgrade(),
            publish,
            most,
        })
    }

    /// Attaches a further source of posts. Whoever fills it must call [`MessagePoster::wake`].
    pub(crate) fn attach(&self, more: Option<More<P>>) {
        let before = std::mem::replace(&mut self.lock().more, more);
        // Dropped after the statement above has released the lock: the closure may own the last reference to the upload queue.
        drop(before);
    }

    /// Enqueues a post.
    pub(crate) fn post(self: &Arc<Self>, post: P) {
        {
            let mut state = self.lock();
            if state.posts.len() >= self.most {
                return;
            }
            state.posts.push_back(post);
        }
        self.wake();
    }

    /// Wakes the posting thread to look for posts.
    pub(crate) fn wake(self: &Arc<Self>) {
        let Some(element) = self.element.upgrade() else { return };
        // One drain at a time: GStreamer's pool has several threads, and two drains would mix up the order.
        if std::mem::replace(&mut self.lock().busy, true) {
            return;
        }
        let this = Arc::clone(self);
        // On a thread of GStreamer: a handler of the application that blocks stops no upload.
        element.call_async(move |element| this.drain(element));
    }

    fn drain(&self, element: &E) {
        loop {
            let mut state = self.lock();
            let post = state.posts.pop_front();
            let Some(post) = post.or_else(|| state.more.as_ref().and_then(|more| more())) else {
                state.busy = false;
                drop(state);
                self.empty.notify_all();
                return;
            };
            // Without the lock: a handler of the application may block, or post again.
            drop(state);
            (self.publish)(element, post);
        }
    }

    /// Waits until all posts are delivered, at most until `until`.
    pub(crate) fn wait_empty(&self, until: Instant) {
        let mut state = self.lock();
        while state.busy {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.empty.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, PosterState<P>> {
        lock(&self.state)
    }
}
