//! Queries and requests to the upstream elements.

use gst::prelude::*;

/// Returns whether the upstream pipeline is live, by its answer to a LATENCY query. The base sink's own answer is always "not
/// live" with `sync=false`.
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

/// Requests a key unit as soon as possible. Builds the event of `gst_video_event_new_upstream_force_key_unit` by hand, because
/// the plugin does not link GstVideo.
pub(super) fn request_key_unit(pad: &gst::Pad, count: u32) {
    let structure = gst::Structure::builder("GstForceKeyUnit")
        .field("running-time", gst::ClockTime::NONE)
        .field("all-headers", true)
        .field("count", count)
        .build();
    pad.push_event(gst::event::CustomUpstream::new(structure));
}

/// Returns whether the stream is muxed in this pipeline.
pub(super) fn is_muxed(pad: &gst::Pad) -> bool {
    muxer(pad).is_some_and(|element| is_muxer(&element))
}

/// Returns the upstream muxer and the names of its sink pads that have received no data.
pub(super) fn unfed_pads(pad: &gst::Pad) -> Option<(String, Vec<String>)> {
    let element = muxer(pad)?;
    let unfed = element
        .sink_pads()
        .iter()
        .filter(|p| p.current_caps().is_none() || p.sticky_event::<gst::event::Segment>(0).is_none())
        .map(|p| match p.pad_template() {
            Some(template) if template.name_template() != p.name() => {
                format!("{} ({})", p.name(), template.name_template())
            }
            _ => p.name().to_string(),
        })
        .collect();
    Some((element.name().to_string(), unfed))
}

fn is_muxer(element: &gst::Element) -> bool {
    element.factory().is_some_and(|f| f.has_type(gst::ElementFactoryType::MUXER))
}

/// Returns the nearest upstream element that is of class muxer or has several sink pads. A queue has one sink pad; a muxer has
/// any number.
fn muxer(pad: &gst::Pad) -> Option<gst::Element> {
    let mut pad = pad.clone();
    for _ in 0..16 {
        let source = source_of(&pad)?;
        let element = source.parent_element()?;
        let sinks = element.sink_pads();
        if is_muxer(&element) || sinks.len() > 1 {
            return Some(element);
        }
        pad = sinks.into_iter().next()?;
    }
    None
}

/// Returns the pad of an element that feeds this one, through the pads of bins.
fn source_of(pad: &gst::Pad) -> Option<gst::Pad> {
    let mut source = pad.peer()?;
    for _ in 0..16 {
        source = match source.downcast_ref::<gst::GhostPad>() {
            // The source pad of a bin: continue at the pad of the element inside.
            Some(ghost) => ghost.target()?,
            // The inner side of a bin's sink pad: continue outside of the bin.
            None => match source.parent().and_then(|parent| parent.downcast::<gst::GhostPad>().ok()) {
                Some(ghost) => ghost.peer()?,
                None => return Some(source),
            },
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns whether the sink of a pipeline description finds its muxer.
    fn finds(line: &str) -> bool {
        gst::init().unwrap();
        let pipeline = gst::parse::launch(line).unwrap().downcast::<gst::Bin>().unwrap();
        let sink = pipeline.by_name("sink").unwrap();
        is_muxed(&sink.static_pad("sink").unwrap())
    }

    #[test]
    fn a_muxer_is_found_through_the_pads_of_bins() {
        assert!(finds("pipeline. ( mpegtsmux ! tee ! queue ! fakesink name=sink )"));
        assert!(finds(
            "pipeline. ( bin. ( bin. ( flvmux ! queue ) ! queue ) ! bin. ( queue ! fakesink name=sink ) )"
        ));
        assert!(!finds(
            "pipeline. ( bin. ( appsrc ! queue ) ! bin. ( identity ! fakesink name=sink ) )"
        ));
        assert!(!finds("pipeline. ( funnel ! fakesink name=sink )"));
        assert!(!finds("pipeline. ( fakesink name=sink )"));
    }
}
