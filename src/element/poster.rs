//! Everything an element posts, notifies and emits, in order, from a thread of GStreamer's pool and without a lock held: a slow
//! handler of the application stops neither the stream nor the network.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use gst::glib;
use gst::glib::object::ObjectType;
use gst::prelude::*;

use crate::base::lock::lock;

/// Source of further posts, asked when the queue is empty.
type More<P> = Box<dyn Fn() -> Option<P> + Send>;

/// Posts for one element, in order. `E` is the element, `P` a post.
pub(crate) struct MessagePoster<E: ObjectType, P> {
    state: Mutex<State<P>>,
    empty: Condvar,
    element: glib::WeakRef<E>,
    say: fn(&E, P),
    /// So many wait for a slow application at most; more are dropped.
    most: usize,
}

struct State<P> {
    posts: VecDeque<P>,
    more: Option<More<P>>,
    busy: bool,
}

/// Posts an INFO. Its text goes into the debug string too: that is all that gst-launch shows of an INFO.
pub(crate) fn post_info(element: &impl IsA<gst::Element>, code: gst::ResourceError, text: &str) {
    gst::element_info!(element, code, ("{text}"), ["{text}"]);
}

impl<E: IsA<gst::Element> + Send + Sync, P: Send + 'static> MessagePoster<E, P> {
    /// Creates the poster of an element; `say` carries out one post.
    pub(crate) fn new(element: &E, say: fn(&E, P), most: usize) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                posts: VecDeque::new(),
                more: None,
                busy: false,
            }),
            empty: Condvar::new(),
            element: element.downgrade(),
            say,
            most,
        })
    }

    /// What comes from there is said too; whoever fills it calls [`MessagePoster::wake`].
    pub(crate) fn attach(&self, more: Option<More<P>>) {
        let before = std::mem::replace(&mut self.lock().more, more);
        drop(before);
    }

    /// Says this, after what is already there.
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

    /// Wakes the posting thread: there may be something to post.
    pub(crate) fn wake(self: &Arc<Self>) {
        let Some(element) = self.element.upgrade() else { return };
        if std::mem::replace(&mut self.lock().busy, true) {
            return;
        }
        let this = Arc::clone(self);
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
            drop(state);
            (self.say)(element, post);
        }
    }

    /// Waits until all is said, or `until`.
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

    fn lock(&self) -> MutexGuard<'_, State<P>> {
        lock(&self.state)
    }
}
