//! Settings that are hardly meant, and settings that cannot be changed now.

use std::time::Duration;

use gst::glib;
use gst::prelude::*;

use super::common::gcs_server::{Fault, GcsServer};
use super::common::*;
use super::process::launch;
use super::{SECOND, flv, glib_log, said};

/// The properties of an element that are times in ns, by their descriptions.
fn times(element: &gst::Element) -> Vec<String> {
    let own = element.list_properties().to_vec();
    own.iter()
        .filter(|spec| spec.owner_type() == element.type_() && spec.is::<glib::ParamSpecUInt64>())
        .filter(|spec| {
            let blurb = spec.blurb().unwrap_or_default();
            blurb.split(|c: char| !c.is_alphanumeric()).any(|word| word == "ns")
        })
        .map(|spec| spec.name().to_owned())
        .collect()
}

/// Starts `element` as the second of two and stops it again. Returns the WARNINGs about its times; at least one is waited for if
/// there is to be one.
fn doubts(element: &gst::Element, is_reported: bool) -> Vec<String> {
    let pipeline = gst::Pipeline::new();
    pipeline.set_auto_flush_bus(false);
    let source = gst::ElementFactory::make("fakesrc")
        .property("num-buffers", 0)
        .build()
        .unwrap();
    pipeline.add_many([&source, element]).unwrap();
    source.link(element).unwrap();
    pipeline.set_state(gst::State::Paused).unwrap();
    let bus = pipeline.bus().unwrap();
    let mut texts = Vec::new();
    let mut is_stopped = false;
    loop {
        let limit = if is_reported && texts.is_empty() { 20 } else { 0 };
        match bus.timed_pop_filtered(gst::ClockTime::from_seconds(limit), &[gst::MessageType::Warning]) {
            Some(message) => {
                if let gst::MessageView::Warning(warning) = message.view() {
                    let text = warning.error().message().to_owned();
                    texts.extend(Some(text).filter(|text| text.contains(" ns; ")));
                }
            }
            None if is_stopped => break,
            // The stop waits for what is still to be posted.
            None => is_stopped = pipeline.set_state(gst::State::Null).is_ok(),
        }
    }
    pipeline.remove(element).unwrap();
    texts
}

#[test]
fn seconds_typed_for_nanoseconds_are_a_warning_at_the_start_for_every_time_property() {
    init();
    let elements = [
        ("gcssink", 7, vec![("bucket", BUCKET), ("endpoint-uri", "http://127.0.0.1:9")]),
        ("iotcorestatus", 6, vec![("host", "127.0.0.1")]),
    ];
    for (factory, count, needed) in elements {
        let make = || {
            let element = gst::ElementFactory::make(factory).build().unwrap();
            needed.iter().for_each(|(name, value)| element.set_property(name, value));
            if factory == "iotcorestatus" {
                element.set_property("port", 9u32);
                element.set_property_from_str("protocol", "mqtt");
            }
            element
        };
        let names = times(&make());
        assert_eq!(names.len(), count, "{names:?}");
        for name in &names {
            for (typed, meant) in [(3600u64, 3600 * SECOND), (1, SECOND), (999_999, 999_999 * SECOND)] {
                let element = make();
                element.set_property(name, typed);
                let reported = doubts(&element, true);
                assert_eq!(reported.len(), 1, "{factory} {name}: {reported:?}");
                let wanted = format!("{name} is {typed} ns; {typed} s is {meant}");
                assert!(reported[0].starts_with(&wanted), "{}", reported[0]);
            }
        }
        // Neither the defaults nor a whole millisecond.
        let element = make();
        assert_eq!(doubts(&element, false), [""; 0], "{factory}");
        names.iter().for_each(|name| element.set_property(name, SECOND / 1000));
        assert_eq!(doubts(&element, false), [""; 0], "{factory}");
    }
}

#[test]
fn a_time_below_the_least_one_is_a_warning_and_the_default_is_used() {
    let server = GcsServer::spawn_thread();
    let line = Line::new(&flv(3), &server, "request-timeout=50000000 spool-sync-interval=0");
    line.play();
    let (end, words) = line.wait();
    assert_eq!(end, End::Eos, "{words:?}");
    assert_eq!(chunks(&server).len(), 1);
    let reported: Vec<_> = words
        .iter()
        .filter(|(kind, _)| *kind == "warning")
        .map(|(_, text)| text)
        .collect();
    assert_eq!(reported.len(), 2, "{words:?}");
    assert!(
        reported[0].contains("request-timeout is 50 ms")
            && reported[0].contains("at least 100 ms")
            && reported[0].contains("60 s")
    );
    assert!(reported[1].contains("spool-sync-interval is 0 s") && reported[1].contains("at least 20 ms"));
}

#[test]
fn seconds_typed_for_nanoseconds_while_it_runs_are_a_warning_too() {
    let server = GcsServer::spawn_thread();
    let line = Line::new(
        "fakesrc is-live=true do-timestamp=true sizetype=fixed sizemax=10",
        &server,
        "",
    );
    line.play();
    line.sink.set_property("drain-timeout", 30u64);
    let is_reported =
        |m: &gst::MessageRef| matches!(m.view(), gst::MessageView::Warning(w) if w.error().message().contains(" ns; "));
    let (_, words) = line.wait_for(Duration::from_secs(20), is_reported);
    let text = &words.last().unwrap().1;
    assert!(text.starts_with("drain-timeout is 30 ns; 30 s is 30000000000"), "{text}");
}

/// The texts of a line with a splitmuxsink that makes three fragments, by the kind of message.
fn said_over_three_fragments(server: &GcsServer, properties: &str) -> Vec<(gst::MessageType, String)> {
    init();
    let line = format!(
        "{} ! splitmuxsink async-finalize=true sink-factory=gcssink muxer-factory=mpegtsmux max-size-time=2000000000 location=frag%05d.ts \
         sink-properties=\"properties,bucket={BUCKET},device-id=split,endpoint-uri=(string)\\\"{}\\\"{properties}\"",
        h264(6),
        server.endpoint()
    );
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    pipeline.set_auto_flush_bus(false);
    pipeline.set_state(gst::State::Playing).unwrap();
    let bus = pipeline.bus().unwrap();
    let mut said = Vec::new();
    let mut is_stopped = false;
    loop {
        let limit = gst::ClockTime::from_seconds(if is_stopped { 0 } else { 60 });
        let Some(message) = bus.timed_pop(limit) else {
            assert!(is_stopped, "no EOS: {said:?}");
            return said;
        };
        match message.view() {
            gst::MessageView::Warning(w) => said.push((message.type_(), w.error().message().to_owned())),
            gst::MessageView::Info(i) => said.push((message.type_(), i.error().message().to_owned())),
            gst::MessageView::Error(e) => panic!("{e:?}"),
            gst::MessageView::Eos(_) => {
                pipeline.set_state(gst::State::Null).unwrap();
                is_stopped = true;
            }
            _ => {}
        }
    }
}

#[test]
fn what_is_said_once_is_said_once_for_all_fragments_of_a_splitmuxsink() {
    let server = GcsServer::spawn_thread();
    let said = said_over_three_fragments(&server, ",shutdown-timeout=(guint64)30");
    assert_eq!(chunks(&server).len(), 3);
    for text in ["shutdown-timeout is 30 ns; 30 s is 30000000000", "uploads work; "] {
        let count = said.iter().filter(|(_, reported)| reported.starts_with(text)).count();
        assert_eq!(count, 1, "{text}: {said:?}");
    }
}

#[test]
fn a_line_with_seconds_for_nanoseconds_says_so_on_the_terminal_and_what_it_lost() {
    let server = GcsServer::spawn_thread();
    (0..50).for_each(|_| server.push_fault(Fault::status(503)));
    let line = format!(
        "{} ! gcssink bucket={BUCKET} device-id=hour endpoint-uri={} retry-timeout=3600 max-size-time=1000000000",
        flv(4),
        server.endpoint()
    );
    let output = launch(&line, &[]).wait_with_output().unwrap();
    let text = said(&output);
    assert!(text.contains("retry-timeout is 3600 ns; 3600 s is 3600000000000"), "{text}");
    assert_eq!(
        text.matches("was given up after the retry-timeout of 3600 ns and is lost")
            .count(),
        1,
        "{text}"
    );
}

#[test]
fn the_first_chunk_that_is_given_up_is_a_warning_and_later_ones_are_gaps() {
    let server = GcsServer::spawn_thread();
    (0..200).for_each(|_| server.push_fault(Fault::status(503)));
    let line = Line::new(&flv(5), &server, "max-size-time=1000000000 retry-timeout=500000000");
    line.play();
    let (end, words) = line.wait();
    assert_eq!(end, End::Eos, "{words:?}");
    let given_up: Vec<_> = words.iter().filter(|(_, text)| text.contains("was given up")).collect();
    assert!(
        matches!(given_up[..], [("warning", text)] if text.contains("retry-timeout of 500 ms") && text.contains("503")),
        "{words:?}"
    );
    let gaps = words
        .iter()
        .filter(|(_, text)| text.starts_with("gcssink-gap") && text.contains("retry-timeout"));
    assert_eq!(gaps.count(), 5, "{words:?}");
}

/// Starts `element` behind a source that never ends.
fn run(element: &gst::Element) -> gst::Pipeline {
    let pipeline = gst::Pipeline::new();
    let source = gst::ElementFactory::make("fakesrc")
        .property("is-live", true)
        .property_from_str("sizetype", "fixed")
        .build()
        .unwrap();
    pipeline.add_many([&source, element]).unwrap();
    source.link(element).unwrap();
    if element.static_pad("src").is_some() {
        let end = gst::ElementFactory::make("fakesink")
            .property("async", false)
            .build()
            .unwrap();
        pipeline.add(&end).unwrap();
        element.link(&end).unwrap();
    }
    pipeline.set_state(gst::State::Playing).unwrap();
    pipeline
}

/// GStreamer cannot serialize a structure that is not there.
fn text_of(value: &glib::Value) -> String {
    match value.get::<Option<gst::Structure>>() {
        Ok(structure) => format!("{structure:?}"),
        Err(_) => format!("{value:?}"),
    }
}

/// Another value than the one that a property has.
fn another(spec: &glib::ParamSpec, now: &glib::Value) -> glib::Value {
    if spec.name() == "uri" {
        return "gs://another-bucket/{session}_{seq}".to_value();
    }
    match now.type_() {
        glib::Type::STRING => "another".to_value(),
        glib::Type::BOOL => (!now.get::<bool>().unwrap()).to_value(),
        glib::Type::U32 => (now.get::<u32>().unwrap() + 1).to_value(),
        _ if spec.is::<glib::ParamSpecUInt64>() => (now.get::<u64>().unwrap() + SECOND).to_value(),
        type_ if type_.is_a(glib::Type::ENUM) => {
            let class = glib::EnumClass::with_type(type_).unwrap();
            let (_, value) = glib::EnumValue::from_value(now).unwrap();
            class.to_value(i32::from(value.value() == 0)).unwrap()
        }
        type_ if type_ == gst::Structure::static_type() => gst::Structure::new_empty("metadata").to_value(),
        other => panic!("{}: {other}", spec.name()),
    }
}

#[test]
fn a_property_that_is_for_before_the_start_is_refused_with_a_warning_while_it_runs() {
    init();
    let log = glib_log();
    for factory in ["gcssink", "iotcorestatus"] {
        let element = gst::ElementFactory::make(factory)
            .name(format!("{factory}-locked"))
            .build()
            .unwrap();
        match factory {
            "gcssink" => element.set_properties(&[("bucket", &BUCKET), ("endpoint-uri", &"http://127.0.0.1:9")]),
            _ => {
                element.set_property_from_str("protocol", "mqtt");
                element.set_properties(&[("host", &"127.0.0.1"), ("port", &9u32)]);
            }
        }
        element.set_property("shutdown-timeout", 0u64);
        let pipeline = run(&element);
        let bus = pipeline.bus().unwrap();
        let mut locked = 0;
        let own = element.list_properties().to_vec();
        for spec in own.iter().filter(|spec| spec.owner_type() == element.type_()) {
            let writable = glib::ParamFlags::WRITABLE | gst::PARAM_FLAG_MUTABLE_READY;
            if !spec.flags().contains(writable) {
                continue;
            }
            locked += 1;
            let before = element.property_value(spec.name());
            let value = another(spec, &before);
            element.set_property_from_value(spec.name(), &value);
            let after = element.property_value(spec.name());
            assert_eq!(text_of(&before), text_of(&after), "{factory} {}", spec.name());
            let wanted = format!("{} is not changed: ", spec.name());
            loop {
                let warning = bus.timed_pop_filtered(gst::ClockTime::from_seconds(20), &[gst::MessageType::Warning]);
                let warning = warning.unwrap_or_else(|| panic!("{factory}: no WARNING about {}", spec.name()));
                let gst::MessageView::Warning(warning) = warning.view() else {
                    unreachable!()
                };
                if warning.error().message().starts_with(&wanted) {
                    break;
                }
            }
            let reported = log.lock().unwrap().iter().filter(|text| text.contains(&wanted)).count();
            assert_eq!(reported, 1, "{factory}: {:?}", log.lock().unwrap());
            log.lock().unwrap().clear();
        }
        assert!(locked > 8, "{factory}: {locked}");
        pipeline.set_state(gst::State::Null).unwrap();
        // Stopped, it takes what it is given.
        element.set_property("device-id", "afterwards");
        assert_eq!(element.property::<String>("device-id"), "afterwards");
        assert!(!log.lock().unwrap().iter().any(|text| text.contains("is not changed")));
    }
}

#[test]
fn the_uri_interface_refuses_another_bucket_while_it_runs_and_tells_a_wrong_one() {
    init();
    let log = glib_log();
    let element = gst::ElementFactory::make("gcssink").name("by-uri").build().unwrap();
    element.set_property("uri", "gs:/wrong");
    assert!(
        log.lock().unwrap()[0].contains("\"gs:/wrong\" is not of the form gs://BUCKET"),
        "{log:?}"
    );
    element.set_properties(&[("uri", &"gs://cam-bucket"), ("endpoint-uri", &"http://127.0.0.1:9")]);
    let pipeline = run(&element);
    let handler = element.clone().dynamic_cast::<gst::URIHandler>().unwrap();
    let refused = handler.set_uri("gs://another-bucket").unwrap_err();
    assert!(refused.matches(gst::URIError::BadState), "{refused}");
    assert_eq!(element.property::<String>("bucket"), "cam-bucket");
    pipeline.set_state(gst::State::Null).unwrap();
}
