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

/// Returns whether the stream is muxed in this pipeline.
pub(super) fn is_muxed(pad: &gst::Pad) -> bool {
    muxer(pad).is_some_and(|element| is_muxer(&element))
}

/// Returns the muxer in front and the names of its sink pads that have received no data.
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

/// Returns the next element in front that is a muxer, or has several inputs. A queue has one sink pad; a muxer has any number, and
/// a factory of class muxer.
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
            // Out of a bin: what it shows of an element inside.
            Some(ghost) => ghost.target()?,
            // Into a bin: the inner side of the pad that the bin shows to those outside.
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

    /// Whether the sink of a line finds its muxer: one in a bin, a sink in a bin, or none at all.
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
