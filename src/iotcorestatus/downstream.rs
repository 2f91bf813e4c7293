//! The gcssinks behind an element: found by walking the pads, through bins, and asked by their properties.
//!
//! A pipeline may hold several cameras: only the sinks that our buffers can reach say anything of this one. Called without a
//! lock held.

use std::collections::HashSet;

use gst::glib;
use gst::prelude::*;

use super::report::Sample;
use crate::structures::{GCSSINK, UploadStatus, health, properties, stats as names};

/// Pads that are looked at, at most: a walk is no place to get lost.
const MOST_PADS: usize = 4096;

/// All elements of the factory `gcssink` that can be reached from this source pad.
pub(super) fn sinks(from: &gst::Pad) -> Vec<gst::Element> {
    let mut found: Vec<gst::Element> = Vec::new();
    let mut seen = HashSet::new();
    let mut open = vec![from.clone()];
    while let Some(pad) = open.pop() {
        if seen.len() >= MOST_PADS || !seen.insert(pad.clone()) {
            continue;
        }
        let Some(sink) = behind(&pad) else { continue };
        let Some(element) = sink.parent_element() else { continue };
        if is_gcssink(&element) {
            if !found.contains(&element) {
                found.push(element);
            }
            continue;
        }
        // An element whose links change while it is asked is asked again at the next walk.
        let mut links = sink.iterate_internal_links();
        while let Ok(Some(next)) = links.next() {
            open.push(next);
        }
    }
    found
}

/// The element's own sink pad that a source pad leads to, through the borders of bins.
fn behind(pad: &gst::Pad) -> Option<gst::Pad> {
    let mut peer = pad.peer()?;
    for _ in 0..64 {
        peer = match peer.downcast::<gst::GhostPad>() {
            // Into a bin.
            Ok(ghost) => ghost.target()?,
            // Out of a bin: the inner side of its ghost pad is a pad whose parent is that ghost pad.
            Err(pad) => match pad.parent().and_then(|parent| parent.downcast::<gst::GhostPad>().ok()) {
                Some(ghost) => ghost.peer()?,
                None => return Some(pad),
            },
        };
    }
    None
}

fn is_gcssink(element: &gst::Element) -> bool {
    element.factory().is_some_and(|f| f.name() == GCSSINK)
}

/// What a gcssink says of itself now.
pub(super) fn sample(sink: &gst::Element) -> Sample {
    let status = sink.property_value(properties::STATUS);
    let status = glib::EnumValue::from_value(&status).and_then(|(_, value)| UploadStatus::from_name(value.nick()));
    let stats = sink.property::<Option<gst::Structure>>(properties::STATS);
    let known = stats.as_deref().map(of_structure).unwrap_or_default();
    Sample {
        name: sink.path_string().to_string(),
        status,
        session: sink.property::<Option<String>>(properties::SESSION_ID),
        ..known
    }
}

/// From `stats`, or from the upstream event `gcssink-health`.
pub(super) fn of_structure(stats: &gst::StructureRef) -> Sample {
    let get = |name: &str| stats.get::<u64>(name).unwrap_or(0);
    Sample {
        name: stats.name().to_string(),
        key_units: get(names::KEY_UNITS),
        bytes_received: get(names::BYTES_RECEIVED),
        bytes_held: get(names::BYTES_IN_MEMORY).saturating_add(get(names::BYTES_IN_SPOOL)),
        chunks_pending: get(names::CHUNKS_PENDING),
        oldest_pending: get(names::OLDEST_PENDING),
        bytes_dropped: get(names::BYTES_DROPPED),
        retries: get(names::RETRIES),
        status: stats.get::<&str>(health::STATUS).ok().and_then(UploadStatus::from_name),
        object: stats.get::<String>(health::OBJECT).ok(),
        session: stats.get::<String>(health::SESSION_ID).ok(),
    }
}

/// The top of the element's pipeline.
pub(super) fn top_of(element: &gst::Element) -> gst::Element {
    let mut top = element.clone();
    while let Some(parent) = top.parent().and_then(|p| p.downcast::<gst::Element>().ok()) {
        top = parent;
    }
    top
}

/// Where the pipeline is going: the state it was asked for, as far as it is not there yet.
pub(super) fn goal_of(element: &gst::Element) -> gst::State {
    let top = top_of(element);
    match top.pending_state() {
        gst::State::VoidPending => top.current_state(),
        pending => pending,
    }
}
