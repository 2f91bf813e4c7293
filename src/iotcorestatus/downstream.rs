//! The gcssinks downstream of the element: found by walking the pads, through bins, and read by their properties.
//!
//! A pipeline may have several cameras: only the sinks that our buffers reach belong to this one. Call these functions without a
//! lock held: they take locks of other elements.

use std::collections::{HashSet, VecDeque};
use std::sync::Mutex;

use gst::glib;
use gst::prelude::*;

use super::report::SinkSample;
use crate::base::lock::lock;
use gcstreamer_schema::structures::{GCSSINK, UploadStatus, health, properties, stats as names};

/// Maximum number of pads visited by one walk.
const MAX_PADS: usize = 4096;
/// Maximum number of bin borders crossed from one pad to the next.
const MAX_NESTING: usize = 64;
/// Sequence numbers of health events that are remembered: a muxer sends one copy to each of its pads.
const MAX_SEQNUMS: usize = 16;

/// The gcssinks found by the last walk, and the last health event of one.
#[derive(Debug)]
pub(super) struct SinkList {
    src: glib::WeakRef<gst::Pad>,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    /// The sinks of the last walk.
    found: Vec<glib::WeakRef<gst::Element>>,
    /// Walks can find the sinks of this pipeline: a sink that they no longer find was removed.
    is_walkable: bool,
    /// When no sink was first found after walks had found some, ns.
    missing_since: Option<u64>,
    /// Sequence numbers of the last upstream events `gcssink-health`, to recognize copies.
    seqnums: VecDeque<gst::Seqnum>,
    /// Figures of the last of these events, for a sink that no walk finds or one that was replaced a moment ago.
    health: Option<SinkSample>,
}

impl Known {
    fn sinks(&self) -> Vec<gst::Element> {
        self.found.iter().filter_map(glib::WeakRef::upgrade).collect()
    }
}

impl SinkList {
    /// Creates an empty list of the sinks behind this source pad.
    pub(super) fn new(src: &gst::Pad) -> Self {
        Self {
            src: src.downgrade(),
            known: Mutex::default(),
        }
    }

    /// Walks the pads again.
    pub(super) fn refresh(&self) {
        let found = self.src.upgrade().map(|src| reachable(&src)).unwrap_or_default();
        let mut known = lock(&self.known);
        known.found = found.iter().map(ObjectExt::downgrade).collect();
        if !found.is_empty() {
            (known.is_walkable, known.missing_since) = (true, None);
        }
    }

    /// Returns whether the last walk found nothing.
    pub(super) fn is_empty(&self) -> bool {
        lock(&self.known).found.is_empty()
    }

    /// Returns whether a command can reach a sink, as of the last walk.
    pub(super) fn takes_commands(&self) -> bool {
        let known = lock(&self.known);
        !known.found.is_empty() || !known.is_walkable && known.health.is_some()
    }

    /// Reads every sink; if the walk found none, returns the figures of the last health event. If earlier walks found sinks,
    /// these figures are dropped `patience` ns after the last sink disappeared: between two fragments, a splitmuxsink has no
    /// sink for a moment.
    pub(super) fn samples(&self, now: u64, patience: u64) -> Vec<SinkSample> {
        let sinks = {
            let mut known = lock(&self.known);
            let sinks = known.sinks();
            if sinks.is_empty() {
                if known.is_walkable && now.saturating_sub(*known.missing_since.get_or_insert(now)) >= patience {
                    known.health = None;
                }
                return known.health.clone().into_iter().collect();
            }
            sinks
        };
        sinks.iter().map(sample).collect()
    }

    /// Returns whether this object is one of the sinks; walks the pads again if it is unknown.
    pub(super) fn contains(&self, object: &gst::Object) -> bool {
        let is_known = || {
            let sinks = lock(&self.known).sinks();
            sinks.iter().any(|s| s.upcast_ref::<gst::Object>() == object)
        };
        is_known() || {
            self.refresh();
            is_known()
        }
    }

    /// Takes the upstream event `gcssink-health`. Returns `false` for a copy of a known one.
    pub(super) fn on_health(&self, seqnum: gst::Seqnum, structure: &gst::StructureRef) -> bool {
        let mut known = lock(&self.known);
        // Muxers send a copy of the event on each of their sink pads.
        if known.seqnums.contains(&seqnum) {
            return false;
        }
        if known.seqnums.len() >= MAX_SEQNUMS {
            known.seqnums.pop_front();
        }
        known.seqnums.push_back(seqnum);
        known.health = Some(sample_of(structure));
        // A removed sink cannot send this event upstream: the sender is linked, although walks do not find it.
        if known.missing_since.take().is_some() {
            known.is_walkable = false;
        }
        true
    }
}

/// Returns all elements of the factory `gcssink` that can be reached from this source pad.
fn reachable(from: &gst::Pad) -> Vec<gst::Element> {
    let mut found: Vec<gst::Element> = Vec::new();
    let mut seen = HashSet::new();
    let mut open = vec![from.clone()];
    while let Some(pad) = open.pop() {
        if seen.len() >= MAX_PADS || !seen.insert(pad.clone()) {
            continue;
        }
        let Some(sink) = linked_pad(&pad) else { continue };
        let Some(element) = sink.parent_element() else { continue };
        if is_gcssink(&element) {
            if !found.contains(&element) {
                found.push(element);
            }
            continue;
        }
        // The iterator fails if the element changes its links meanwhile; the next walk finds them.
        let mut links = sink.iterate_internal_links();
        while let Ok(Some(next)) = links.next() {
            open.push(next);
        }
    }
    found
}

/// Whose stream an object of the pipeline belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Relation {
    /// The object is upstream or downstream of the element.
    Ours,
    /// It is not, and no other iotcorestatus reports on it.
    Elsewhere,
    /// Another iotcorestatus reports on it.
    AnothersCamera,
}

/// Returns whose stream an object belongs to. It is the element's own if the object is upstream or downstream of it, is a bin
/// around it, or shares a bin with such an element. An unlinked object counts as the element's own if a link upstream is missing:
/// a source that could not connect has not been linked yet.
pub(super) fn relation(element: &gst::Element, other: &gst::Object) -> Relation {
    let around: Vec<gst::Object> = ancestors(element.upcast_ref()).collect();
    if around.contains(other) {
        return Relation::Ours;
    }
    let unit_of = |object: &gst::Object| ancestors(object).take_while(|o| !around.contains(o)).last();
    let Some(unit) = unit_of(other) else {
        return Relation::Ours;
    };
    let (upstream, is_complete) = neighbours(element, gst::PadDirection::Sink);
    let (downstream, _) = neighbours(element, gst::PadDirection::Src);
    let mut on_the_way = upstream.iter().chain(&downstream);
    if on_the_way.any(|found| unit_of(found.upcast_ref()).as_ref() == Some(&unit)) {
        return Relation::Ours;
    }
    let Some(unit) = unit.downcast_ref::<gst::Element>() else {
        return Relation::Elsewhere;
    };
    if holds_another(unit, element) {
        return Relation::AnothersCamera;
    }
    let is_linked = unit.pads().iter().any(gst::prelude::PadExt::is_linked);
    if !is_linked && !is_complete {
        // Two cameras wait for their sources: the object may belong to either.
        return if another_waits(element, &around) {
            Relation::Elsewhere
        } else {
            Relation::Ours
        };
    }
    let sides = [gst::PadDirection::Sink, gst::PadDirection::Src];
    let mut chain = sides.into_iter().flat_map(|side| neighbours(unit, side).0);
    if chain.any(|found| found.factory() == element.factory()) {
        Relation::AnothersCamera
    } else {
        Relation::Elsewhere
    }
}

/// Returns whether another iotcorestatus of the pipeline also lacks a link upstream.
fn another_waits(element: &gst::Element, around: &[gst::Object]) -> bool {
    let Some(pipeline) = around.last().and_then(|outermost| outermost.downcast_ref::<gst::Bin>()) else {
        return false;
    };
    let mut all = pipeline.iterate_recurse().into_iter().map_while(Result::ok);
    all.any(|other| other != *element && other.factory() == element.factory() && !neighbours(&other, gst::PadDirection::Sink).1)
}

/// Returns whether the unit is a bin that contains another iotcorestatus.
fn holds_another(unit: &gst::Element, element: &gst::Element) -> bool {
    let Some(bin) = unit.downcast_ref::<gst::Bin>() else {
        return false;
    };
    // The iterator fails if elements are added or removed meanwhile. The elements seen until then decide.
    bin.iterate_recurse()
        .into_iter()
        .map_while(Result::ok)
        .any(|inner| inner.factory() == element.factory())
}

/// Returns an object and its ancestors, innermost first.
fn ancestors(object: &gst::Object) -> impl Iterator<Item = gst::Object> + use<> {
    std::iter::successors(Some(object.clone()), GstObjectExt::parent)
}

/// Returns the elements on one side of an element, and whether each of their pads there is linked.
fn neighbours(element: &gst::Element, side: gst::PadDirection) -> (HashSet<gst::Element>, bool) {
    let (mut found, mut is_complete) = (HashSet::new(), true);
    let mut open = vec![element.clone()];
    while let Some(current) = open.pop() {
        for pad in current.pads().into_iter().filter(|pad| pad.direction() == side) {
            let Some(peer) = linked_pad(&pad) else {
                is_complete = false;
                continue;
            };
            // rtspsrc feeds what it receives over TCP through pads that belong to no element.
            if let Some(next) = peer.parent_element().filter(|_| found.len() < MAX_PADS)
                && found.insert(next.clone())
            {
                open.push(next);
            }
        }
    }
    (found, is_complete)
}

/// Returns the pad of a plain element that a pad is linked to, across the borders of bins.
fn linked_pad(pad: &gst::Pad) -> Option<gst::Pad> {
    let mut peer = pad.peer()?;
    for _ in 0..MAX_NESTING {
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

/// Reads the properties of one gcssink.
fn sample(sink: &gst::Element) -> SinkSample {
    let status = sink.property_value(properties::STATUS);
    let status = glib::EnumValue::from_value(&status).and_then(|(_, value)| UploadStatus::from_name(value.nick()));
    let stats = sink.property::<Option<gst::Structure>>(properties::STATS);
    let known = stats.as_deref().map(sample_of).unwrap_or_default();
    SinkSample {
        name: sink.path_string().to_string(),
        status,
        session: sink.property::<Option<String>>(properties::SESSION_ID),
        ..known
    }
}

/// Reads `stats`, or the upstream event `gcssink-health`; missing fields count as 0 or unknown.
fn sample_of(stats: &gst::StructureRef) -> SinkSample {
    let get = |name: &str| stats.get::<u64>(name).unwrap_or(0);
    SinkSample {
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

/// Returns the top-level element that this element is in.
pub(super) fn top_of(element: &gst::Element) -> gst::Element {
    let mut top = element.clone();
    while let Some(parent) = top.parent().and_then(|p| p.downcast::<gst::Element>().ok()) {
        top = parent;
    }
    top
}

/// Returns whether the element leaves PLAYING to stop: the pipeline, a bin around the element, or the element itself is
/// changing to READY or NULL.
pub(super) fn is_stopping(element: &gst::Element) -> bool {
    let below_paused = [gst::State::Ready, gst::State::Null];
    ancestors(element.upcast_ref())
        .filter_map(|object| object.downcast::<gst::Element>().ok())
        .any(|element| below_paused.contains(&element.pending_state()))
}

/// Returns the state that the pipeline is in, or is changing to.
pub(super) fn target_state(element: &gst::Element) -> gst::State {
    let top = top_of(element);
    match top.pending_state() {
        gst::State::VoidPending => top.current_state(),
        pending => pending,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    fn health(list: &SinkList) {
        let structure = gst::Structure::builder(health::NAME).field(names::KEY_UNITS, 3u64).build();
        assert!(list.on_health(gst::Seqnum::next(), &structure));
    }

    #[test]
    fn the_figures_of_a_sink_that_was_taken_out_are_forgotten() {
        gst::init().unwrap();
        let src = gst::Pad::new(gst::PadDirection::Src);
        let list = SinkList::new(&src);
        list.refresh();
        assert!(!list.takes_commands(), "there is none");
        // A sink that no walk finds.
        health(&list);
        for now in [0, 60 * S, 600 * S] {
            assert_eq!(list.samples(now, 10 * S).len(), 1, "{now}");
            assert!(list.takes_commands());
        }
        // One that a walk found, and the next does not.
        lock(&list.known).is_walkable = true;
        list.refresh();
        assert!(!list.takes_commands());
        let seen: Vec<usize> = [700, 709, 710].map(|s| list.samples(s * S, 10 * S).len()).into();
        assert_eq!(seen, [1, 1, 0]);
        // Another one reports, and walks do not find it.
        health(&list);
        for now in [711, 800] {
            assert_eq!(list.samples(now * S, 10 * S).len(), 1, "{now}");
            assert!(list.takes_commands());
        }
    }
}
