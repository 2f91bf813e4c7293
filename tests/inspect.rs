//! The public surface of the elements, held against `tests/golden/inspect.txt`: names, types, defaults, flags, signals, pads.
//!
//! After a wanted change: `UPDATE_GOLDEN=1 cargo test --test inspect`, and read the difference.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/signals.rs"]
mod signals;

use std::fmt::Write as _;
use std::path::Path;

use gst::glib;
use gst::prelude::*;

/// GStreamer cannot serialize a structure that is not there.
fn text_of(value: &glib::Value) -> String {
    if value.type_() == gst::Structure::static_type() && value.get::<Option<gst::Structure>>().unwrap().is_none() {
        return "NULL".to_owned();
    }
    value.serialize().map_or_else(|_| "NULL".to_owned(), |v| v.to_string())
}

fn describe(name: &str) -> String {
    let factory = gst::ElementFactory::find(name).unwrap();
    let element = factory.create().build().unwrap();
    let mut text = format!(
        "{name}: {} | {} | rank {}\n",
        factory.metadata("long-name").unwrap(),
        factory.metadata("klass").unwrap(),
        i32::from(factory.rank())
    );
    for template in factory.static_pad_templates() {
        writeln!(
            text,
            "  pad {} {:?} {:?} {}",
            template.name_template(),
            template.direction(),
            template.presence(),
            template.caps()
        )
        .unwrap();
    }
    let mut specs: Vec<glib::ParamSpec> = element.list_properties().to_vec();
    specs.retain(|s| s.owner_type() == element.type_());
    specs.sort_by_key(|s| s.name().to_owned());
    for spec in specs {
        let flags = spec.flags();
        let mut words = Vec::new();
        for (flag, word) in [(glib::ParamFlags::READABLE, "r"), (glib::ParamFlags::WRITABLE, "w")] {
            if flags.contains(flag) {
                words.push(word);
            }
        }
        for (bit, word) in [
            (gst::PARAM_FLAG_MUTABLE_READY, "ready"),
            (gst::PARAM_FLAG_MUTABLE_PLAYING, "playing"),
        ] {
            if flags.contains(bit) {
                words.push(word);
            }
        }
        let default = text_of(spec.default_value());
        assert!(spec.blurb().is_some_and(|b| b.len() > 10), "{} needs a blurb", spec.name());
        writeln!(
            text,
            "  {} {} [{}] = {default}",
            spec.name(),
            spec.value_type().name(),
            words.join(" ")
        )
        .unwrap();
        // The default of the specification is the one the element has.
        if flags.contains(glib::ParamFlags::WRITABLE) && spec.name() != "uri" {
            let real = text_of(&element.property_value(spec.name()));
            assert_eq!(real, default, "{}", spec.name());
        }
    }
    for query in signals::of(element.type_()) {
        let types: Vec<&str> = query.param_types().iter().map(|t| t.type_().name()).collect();
        writeln!(
            text,
            "  signal {} {:?} ({})",
            query.signal_name(),
            query.flags(),
            types.join(", ")
        )
        .unwrap();
    }
    text
}

#[test]
fn the_public_surface_is_the_golden_one() {
    gst::init().unwrap();
    gstgcstreamer::plugin_register_static().unwrap();
    let text = describe("gcssink") + &describe("iotcorestatus");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/inspect.txt");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap();
    assert!(text == golden, "the surface is now:\n{text}\nand was:\n{golden}");
}

#[test]
fn null_and_empty_text_unset_a_property_or_are_kept_as_they_are() {
    gst::init().unwrap();
    gstgcstreamer::plugin_register_static().unwrap();
    const LOCATION: &str = "{device}/%Y/%m/%d/%Y%m%dT%H%M%S.%3fZ_{session}_{seq}.{ext}";
    // What NULL and the empty text read back as.
    for (name, property, null, empty) in [
        ("gcssink", "bucket", None, None),
        ("gcssink", "spool-dir", None, None),
        // A mistake that is reported at the start.
        ("gcssink", "device-id", None, Some("")),
        ("gcssink", "location", Some(LOCATION), Some("")),
        // A sink alone.
        ("gcssink", "flow-group", Some(""), Some("")),
        ("iotcorestatus", "device-id", None, None),
        (
            "iotcorestatus",
            "topic-prefix",
            Some("gcstreamer/{device}"),
            Some("gcstreamer/{device}"),
        ),
    ] {
        let element = gst::ElementFactory::make(name).build().unwrap();
        for (given, read) in [(None, null), (Some(""), empty)] {
            element.set_property(property, "something");
            element.set_property(property, given);
            let is = element.property::<Option<String>>(property);
            assert_eq!(is.as_deref(), read, "{name}: {property}={given:?}");
        }
    }
    let element = gst::ElementFactory::make("iotcorestatus").build().unwrap();
    element.set_property_from_str("protocol", "mqtt");
    assert!(!element.property::<bool>("tls"), "it follows the protocol until it is set");
    element.set_property("tls", true);
    assert!(element.property::<bool>("tls"));
}
