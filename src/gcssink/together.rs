//! The gcssinks of this process that are running. GStreamer stops the sinks of a pipeline one after the other, and they have one
//! deadline: when the first leaves PAUSED, the others begin their ends too, or the first could use up the time of all.

use std::sync::Mutex;

use gst::glib;
use gst::prelude::*;
use gst::subclass::prelude::*;

use super::GcsSink;
use crate::sync::lock;

/// By address. Never held across anything but the list itself.
static RUNNING: Mutex<Vec<(usize, glib::WeakRef<GcsSink>)>> = Mutex::new(Vec::new());

fn address(element: &GcsSink) -> usize {
    element.as_ptr() as usize
}

/// It has a session.
pub(super) fn add(element: &GcsSink) {
    lock(&RUNNING).push((address(element), element.downgrade()));
}

/// It has none any more.
pub(super) fn remove(element: &GcsSink) {
    lock(&RUNNING).retain(|(other, _)| *other != address(element));
}

/// This sink leaves PAUSED: those of its pipeline that will follow it begin to end.
pub(super) fn others_begin_to_end(element: &GcsSink) {
    let running = lock(&RUNNING).clone();
    let top = top_of(element.upcast_ref());
    let others = running
        .iter()
        .filter(|(other, _)| *other != address(element))
        .filter_map(|(_, other)| other.upgrade());
    for other in others.filter(|other| top_of(other.upcast_ref()) == top && is_going_down(other.upcast_ref())) {
        if let Some(session) = other.imp().session() {
            session.begin_to_end(other.imp().shutdown_timeout());
        }
    }
}

fn top_of(element: &gst::Element) -> gst::Element {
    let mut top = element.clone();
    while let Some(parent) = parent_of(&top) {
        top = parent;
    }
    top
}

fn parent_of(element: &gst::Element) -> Option<gst::Element> {
    element.parent()?.downcast().ok()
}

/// Whether it is on its way to READY or NULL, with a bin that it is in or by itself.
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
        // What is locked does not follow its bin.
        match parent_of(&at).filter(|_| !at.is_locked_state()) {
            Some(parent) => at = parent,
            None => return false,
        }
    }
}
