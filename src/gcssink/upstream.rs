//! Queries to the elements in front, and requests to them.

use gst::prelude::*;

/// Returns whether the pipeline in front is live, by its LATENCY answer: the base sink's own is always "no" with `sync=false`.
pub(super) fn is_live(pad: &gst::Pad) -> bool {
    let mut query = gst::query::Latency::new();
    pad.peer_query(&mut query) && query.result().0
}

/// Returns whether the pipeline is in PLAYING or on its way there. A sink reaches PLAYING only with its first buffer, so without
/// data its own state does not show it.
pub(super) fn is_meant_to_play(element: &gst::Element) -> bool {
    let mut top = element.clone();
    while let Some(parent) = top.parent().and_then(|p| p.downcast::<gst::Element>().ok()) {
        top = parent;
    }
    [top.current_state(), top.pending_state()].contains(&gst::State::Playing)
}

/// Returns the `splitmuxsink` whose fragments this sink stores.
pub(super) fn splitmuxsink_of(element: &gst::Element) -> Option<gst::Object> {
    let mut parent = element.parent();
    while let Some(object) = parent {
        if object.type_().name() == "GstSplitMuxSink" {
            return Some(object);
        }
        parent = object.parent();
    }
    None
}

/// Requests a key unit as soon as possible (`gst_video_event_new_upstream_force_key_unit` of GstVideo).
pub(super) fn request_key_unit(pad: &gst::Pad, count: u32) {
    let structure = gst::Structure::builder("GstForceKeyUnit")
        .field("running-time", gst::ClockTime::NONE)
        .field("all-headers", true)
        .field("count", count)
        .build();
    pad.push_event(gst::event::CustomUpstream::new(structure));
}

/// Returns the muxer in front and the names of its sink pads that have received no data.
pub(super) fn unfed_pads(pad: &gst::Pad) -> Option<(String, Vec<String>)> {
    let mut pad = pad.clone();
    // A queue has one sink pad; a muxer has any number, and a factory of class muxer.
    for _ in 0..16 {
        let element = pad.peer()?.parent_element()?;
        let is_muxer = element.factory().is_some_and(|f| f.has_type(gst::ElementFactoryType::MUXER));
        let sinks = element.sink_pads();
        if is_muxer || sinks.len() > 1 {
            let unfed = sinks
                .iter()
                .filter(|p| p.current_caps().is_none() || p.sticky_event::<gst::event::Segment>(0).is_none())
                .map(|p| match p.pad_template() {
                    Some(template) if template.name_template() != p.name() => {
                        format!("{} ({})", p.name(), template.name_template())
                    }
                    _ => p.name().to_string(),
                })
                .collect();
            return Some((element.name().to_string(), unfed));
        }
        pad = sinks.into_iter().next()?;
    }
    None
}
