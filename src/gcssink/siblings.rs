//! The running gcssinks of this process. GStreamer stops the sinks of a pipeline one after the other, but they share one
//! deadline. So when the first leaves PAUSED the others start to drain too; otherwise the first could use up the time of all.

use std::sync::{Arc, Mutex, Weak};

use gst::glib;
use gst::prelude::*;

use super::session::Session;
use crate::base::lock::lock;
use crate::element::scope::{parent_of, top_of};

/// A running element. The address identifies it.
#[derive(Clone)]
struct Running {
    address: usize,
    element: glib::WeakRef<gst::Element>,
    session: Weak<Session>,
}

/// Locked for access to the list only.
static RUNNING: Mutex<Vec<Running>> = Mutex::new(Vec::new());

fn address(element: &gst::Element) -> usize {
    element.as_ptr() as usize
}

/// Registers an element whose session has begun.
pub(super) fn add(element: &gst::Element, session: &Arc<Session>) {
    lock(&RUNNING).push(Running {
        address: address(element),
        element: element.downgrade(),
        session: Arc::downgrade(session),
    });
}

/// Deregisters an element whose session ends.
pub(super) fn remove(element: &gst::Element) {
    lock(&RUNNING).retain(|other| other.address != address(element));
}

/// Starts the drain of all other sinks of the same pipeline that are also about to leave PAUSED.
pub(super) fn others_begin_to_end(element: &gst::Element) {
    // A copy of the list: the calls below take locks of elements and of the engine.
    let mut others = lock(&RUNNING).clone();
    others.retain(|other| other.address != address(element));
    let top = top_of(element);
    for other in others {
        let follows = |other: gst::Element| top_of(&other) == top && is_going_down(&other);
        if other.element.upgrade().is_some_and(follows)
            && let Some(session) = other.session.upgrade()
        {
            session.engine.begin_to_end(session.engine.config().shutdown_timeout);
        }
    }
}

/// Returns whether the element, or a bin that contains it, is on its way to READY or NULL.
fn is_going_down(element: &gst::Element) -> bool {
    let mut at = element.clone();
    loop {
        let goal = match at.pending_state() {
            gst::State::VoidPending => at.current_state(),
            pending => pending,
        };
        if goal <= gst::State::Ready {
            return true;
        }
        // An element with a locked state does not follow its bin.
        match parent_of(&at).filter(|_| !at.is_locked_state()) {
            Some(parent) => at = parent,
            None => return false,
        }
    }
}
