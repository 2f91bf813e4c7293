//! Creates the source of a camera outside RTSP: `urisourcebin ! parsebin`.
//!
//! Credentials must go only to the host of `url`. `souphttpsrc` would send them wherever a redirect leads, even from `https` to
//! `http`, so with a user name it follows no redirect. `hlsdemux2` makes its own requests, which have the credentials only in
//! their address; libsoup drops them for another host.

use std::sync::Arc;

use gst::prelude::*;

use super::source::{Choice, authorities, missing};
use super::state::Failure;
use super::watch::{EventSender, PipelineEvent, Watch};
use crate::config::{Camera, Scheme};

/// The parsers of pictures that `parsebin` may create.
const PARSERS: [&str; 2] = ["h264parse", "h265parse"];

/// Creates the source. `watch` counts what arrives.
///
/// # Errors
/// An element is not installed, or certificates cannot be checked.
pub(super) fn make(
    camera: &Camera,
    password: Option<&str>,
    choice: &Arc<Choice>,
    event_sender: &EventSender,
    watch: &Arc<Watch>,
) -> Result<gst::Element, Failure> {
    let base = "gstreamer1.0-plugins-base";
    let bin = gst::parse::bin_from_description("urisourcebin name=uri ! parsebin name=parse", false)
        .map_err(|_| missing("urisourcebin or parsebin", base))?;
    let uri = bin.by_name("uri").ok_or_else(|| missing("urisourcebin", base))?;
    let parse = bin.by_name("parse").ok_or_else(|| missing("parsebin", base))?;
    let location = match (camera.address.scheme(), &camera.username, password) {
        (Scheme::Http, Some(name), Some(password)) => camera.address.with_login(name, password),
        _ => camera.address.secret().to_owned(),
    };
    uri.set_property("uri", location);
    set_up(&uri, camera, password)?;
    observe(&bin, &uri, choice, event_sender, watch);
    let outer = bin.downgrade();
    parse.connect_pad_added(move |_, pad| {
        let ghost = gst::GhostPad::builder_with_target(pad).map(gst::PadBuilder::build);
        if let (Some(bin), Ok(ghost)) = (outer.upgrade(), ghost) {
            // A pad that is added to a running element must be active, or it refuses data.
            let _ = ghost.set_active(true);
            let _ = bin.add_pad(&ghost);
        }
    });
    if camera.username.is_some() {
        bin.connect_deep_element_added(|_, _, element| {
            if element.has_property("automatic-redirect") {
                element.set_property("automatic-redirect", false);
            }
        });
    }
    Ok(bin.upcast())
}

/// Sets the credentials and certificates of the element that connects.
fn set_up(uri: &gst::Element, camera: &Camera, password: Option<&str>) -> Result<(), Failure> {
    let (username, password) = (camera.username.clone(), password.map(str::to_owned));
    // Read the certificates here to report an error, and again in the signal below, which cannot return one: a database is not
    // passed to another thread.
    camera.ca_file.as_deref().map(authorities).transpose()?;
    let ca_file = camera.ca_file.clone();
    uri.connect("source-setup", false, move |values| {
        let source = values.get(1)?.get::<gst::Element>().ok()?;
        let set = |names: [&str; 2], value: &Option<String>| {
            if let (Some(name), Some(value)) = (names.into_iter().find(|name| source.has_property(name)), value) {
                source.set_property(name, value);
            }
        };
        // `souphttpsrc` has `user-id`, `rtmp2src` has `username`.
        set(["user-id", "username"], &username);
        set(["user-pw", "password"], &password);
        if let Some(file) = ca_file.as_deref().filter(|_| source.has_property("tls-database")) {
            source.set_property("tls-database", authorities(file).ok());
        }
        None
    });
    Ok(())
}

/// Counts what arrives: bytes of the stream, and slices in front of the parsers. `parsebin` holds the latter back until it has
/// parameter sets, which come with a key frame.
fn observe(bin: &gst::Bin, uri: &gst::Element, choice: &Arc<Choice>, event_sender: &EventSender, watch: &Arc<Watch>) {
    let counting = Arc::clone(watch);
    bin.connect_deep_element_added(move |_, _, element| {
        let is_parser = element
            .factory()
            .is_some_and(|factory| PARSERS.contains(&factory.name().as_str()));
        if let Some(front) = element.static_pad("sink").filter(|_| is_parser) {
            let watch = Arc::clone(&counting);
            front.add_probe(gst::PadProbeType::BUFFER, move |_, _| {
                watch.on_slice();
                gst::PadProbeReturn::Ok
            });
        }
    });
    let (choice, event_sender, watch) = (Arc::clone(choice), event_sender.clone(), Arc::clone(watch));
    uri.connect_pad_added(move |_, pad| {
        // The pad has no current caps before its first data.
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        if let Some(structure) = caps.structure(0) {
            choice.note_container(structure.name());
        }
        let (event_sender, watch) = (event_sender.clone(), Arc::clone(&watch));
        pad.add_probe(
            gst::PadProbeType::BUFFER | gst::PadProbeType::EVENT_DOWNSTREAM,
            move |_, info| {
                match &info.data {
                    Some(gst::PadProbeData::Event(event)) if event.type_() == gst::EventType::Eos => {
                        event_sender.send(PipelineEvent::Closing)
                    }
                    Some(gst::PadProbeData::Buffer(_)) => watch.on_arrival(),
                    _ => {}
                }
                gst::PadProbeReturn::Ok
            },
        );
    });
}
