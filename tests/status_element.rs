//! `iotcorestatus` as a part of a pipeline: it changes nothing of what passes, and says at the start what is wrong.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[allow(dead_code, unreachable_pub)]
#[path = "common/sources/peers.rs"]
mod peers;
#[path = "common/status_line.rs"]
mod status_line;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use gcstreamer_schema::structures::UploadStatus;
use gst::prelude::*;
use gstgcstreamer::iotcorestatus::report::{Answer, Chunk, Counts, Event, Identity, Limits, Now, Problem, Reporter, SinkSample};
use serde_json::Value;
use status_line::{CAMERA, NOWHERE, SECOND, StatusLine, init};

/// A port where no server listens.
const DEAD: &str = "protocol=mqtt host=127.0.0.1 port=9 device-id=cam1";
const SOON: Duration = Duration::from_secs(10);

fn error_of(properties: &str) -> String {
    let line = StatusLine::new(properties, NOWHERE);
    assert!(line.pipeline.set_state(gst::State::Playing).is_err(), "it must not start");
    let errors: Vec<String> = line.words().into_iter().filter(|w| w.0 == "error").map(|w| w.1).collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    errors[0].clone()
}

#[test]
fn what_is_missing_or_wrong_is_one_error_at_the_start_with_the_next_step() {
    let identity = "project-id=P region=R registry-id=G device-id=cam1";
    for (properties, wanted) in [
        ("", vec!["2023-08-16", "REGION-mqtt.clearblade.com", "protocol=mqtt"]),
        (
            "host=localhost",
            vec![
                "project-id, region, registry-id, device-id, private-key-file",
                "protocol=mqtt",
            ],
        ),
        (
            "host=localhost project-id=P region=R device-id=D",
            vec!["needs registry-id, private-key-file:"],
        ),
        (
            &*format!("host=localhost {identity} private-key-file=/nowhere/key.pem"),
            vec!["private-key-file", "/nowhere/key.pem"],
        ),
        ("protocol=mqtt host=mqtt://localhost device-id=cam1", vec!["host"]),
        (
            "protocol=mqtt host=localhost device-id=cam1 topic-prefix=a/#",
            vec!["topic-prefix"],
        ),
        ("protocol=mqtt host=localhost device-id=../x", vec!["device-id"]),
        ("protocol=mqtt host=localhost device-id=cam+1", vec!["topic-prefix", "cam+1"]),
        (
            "host=localhost project-id=P region=R registry-id=G device-id=cam+1 private-key-file=k",
            vec!["device-id", "cam+1"],
        ),
        (
            "protocol=mqtt host=localhost device-id=cam1 tls=true root-certificates=/nowhere/ca.pem",
            vec!["root-certificates", "/nowhere/ca.pem"],
        ),
    ] {
        let error = error_of(properties);
        for text in wanted {
            assert!(error.contains(text), "{properties:?} gives {error:?}, without {text:?}");
        }
    }
}

/// The element between two pads of ours.
struct Bench {
    element: gst::Element,
    front: gst::Pad,
    back: gst::Pad,
}

impl Bench {
    fn new(back: gst::PadBuilder<gst::Pad>) -> Self {
        init();
        let element = gst::ElementFactory::make("iotcorestatus")
            .property_from_str("protocol", "mqtt")
            .property("host", "127.0.0.1")
            .property("port", 9u32)
            .property("device-id", "cam1")
            .property("shutdown-timeout", 0u64)
            .build()
            .unwrap();
        let front = gst::Pad::builder(gst::PadDirection::Src).build();
        let back = back.build();
        front.link(&element.static_pad("sink").unwrap()).unwrap();
        element.static_pad("src").unwrap().link(&back).unwrap();
        back.set_active(true).unwrap();
        element.set_state(gst::State::Playing).unwrap();
        front.set_active(true).unwrap();
        front.push_event(gst::event::StreamStart::new("bench"));
        front.push_event(gst::event::Caps::new(&gst::Caps::new_empty_simple("video/x-h264")));
        front.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
        Self { element, front, back }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = self.front.set_active(false);
        let _ = self.back.set_active(false);
        let _ = self.element.set_state(gst::State::Null);
    }
}

fn sink() -> gst::PadBuilder<gst::Pad> {
    init();
    gst::Pad::builder(gst::PadDirection::Sink)
}

#[test]
fn every_flow_return_of_downstream_is_handed_back_unchanged() {
    init();
    let flows = [
        Ok(gst::FlowSuccess::Ok),
        Ok(gst::FlowSuccess::CustomSuccess1),
        Err(gst::FlowError::NotLinked),
        Err(gst::FlowError::Flushing),
        Err(gst::FlowError::Eos),
        Err(gst::FlowError::NotNegotiated),
        Err(gst::FlowError::Error),
        Err(gst::FlowError::CustomError1),
    ];
    for flow in flows {
        let bench = Bench::new(
            sink()
                .chain_function(move |_, _, _| flow)
                .chain_list_function(move |_, _, _| flow),
        );
        assert_eq!(bench.front.push(gst::Buffer::new()), flow);
        let mut list = gst::BufferList::new();
        list.get_mut().unwrap().add(gst::Buffer::new());
        assert_eq!(bench.front.push_list(list), flow);
    }
}

#[test]
fn buffers_pass_uncopied_and_lists_stay_lists() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (one, many) = (Arc::clone(&seen), Arc::clone(&seen));
    let bench = Bench::new(
        sink()
            .chain_function(move |_, _, buffer| {
                one.lock().unwrap().push((1, buffer.as_ptr() as usize));
                Ok(gst::FlowSuccess::Ok)
            })
            .chain_list_function(move |_, _, list| {
                many.lock().unwrap().push((list.len(), list.as_ptr() as usize));
                Ok(gst::FlowSuccess::Ok)
            }),
    );
    let mut buffer = gst::Buffer::from_slice([0u8; 100]);
    buffer.get_mut().unwrap().set_flags(gst::BufferFlags::DELTA_UNIT);
    let buffer_at = buffer.as_ptr() as usize;
    bench.front.push(buffer).unwrap();
    let mut list = gst::BufferList::new();
    for _ in 0..50 {
        list.get_mut().unwrap().add(gst::Buffer::from_slice([0u8; 10]));
    }
    let list_at = list.as_ptr() as usize;
    bench.front.push_list(list).unwrap();
    assert_eq!(*seen.lock().unwrap(), [(1, buffer_at), (50, list_at)]);
    let stats = bench.element.property::<gst::Structure>("stats");
    let number = |name: &str| stats.get::<u64>(name).unwrap();
    assert_eq!((number("frames"), number("bytes"), number("key-frames")), (51, 600, 50));
}

#[test]
fn caps_allocation_and_scheduling_are_those_of_the_neighbours() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    init();
    let caps = gst::Caps::new_empty_simple("video/x-h264");
    let answer = caps.clone();
    let bench = Bench::new(sink().query_function(move |pad, parent, query| match query.view_mut() {
        gst::QueryViewMut::Allocation(allocation) => {
            allocation.add_allocation_meta::<gst::ReferenceTimestampMeta>(None);
            count.fetch_add(1, Ordering::SeqCst);
            true
        }
        gst::QueryViewMut::Caps(query) => {
            query.set_result(&answer);
            true
        }
        _ => gst::Pad::query_default(pad, parent, query),
    }));
    assert_eq!(bench.front.peer_query_caps(None), caps);
    let mut allocation = gst::query::Allocation::new(Some(&caps), true);
    assert!(bench.front.peer_query(&mut allocation));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert!(allocation.find_allocation_meta::<gst::ReferenceTimestampMeta>().is_some());
}

#[test]
fn a_demuxer_may_pull_through_it() {
    init();
    let file = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("status-{}.mp4", std::process::id()));
    let write = format!(
        "videotestsrc num-buffers=30 ! video/x-raw,width=64,height=64 ! x264enc ! mp4mux ! filesink location={}",
        file.display()
    );
    for line in [
        write,
        format!(
            "filesrc location={} ! iotcorestatus name=status {DEAD} shutdown-timeout=0 ! qtdemux ! fakesink",
            file.display()
        ),
    ] {
        let pipeline = gst::parse::launch(&line).unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let bus = pipeline.bus().unwrap();
        let end = bus.timed_pop_filtered(
            gst::ClockTime::from_seconds(20),
            &[gst::MessageType::Eos, gst::MessageType::Error],
        );
        let end = end.unwrap();
        assert_eq!(end.type_(), gst::MessageType::Eos, "{line}: {end:?}");
        if let Some(status) = pipeline.downcast_ref::<gst::Bin>().unwrap().by_name("status") {
            let pad = status.static_pad("src").unwrap();
            assert_eq!(pad.mode(), gst::PadMode::Pull);
            let stats = status.property::<gst::Structure>("stats");
            assert!(stats.get::<u64>("bytes").unwrap() > 1000);
            assert_eq!(stats.get::<String>("phase").unwrap(), "eos");
        }
        pipeline.set_state(gst::State::Null).unwrap();
    }
    let _ = std::fs::remove_file(file);
}

fn with_utc(seconds: u64, utc: u64) -> gst::Buffer {
    let mut buffer = gst::Buffer::new();
    let inner = buffer.get_mut().unwrap();
    inner.set_pts(gst::ClockTime::from_seconds(seconds));
    let caps = gst::Caps::new_empty_simple("timestamp/x-unix");
    gst::ReferenceTimestampMeta::add(inner, &caps, gst::ClockTime::from_nseconds(utc), gst::ClockTime::NONE);
    buffer
}

#[test]
fn the_cameras_clock_goes_ahead_of_the_first_buffer_and_of_the_first_after_a_flush() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let (buffers, events) = (Arc::clone(&seen), Arc::clone(&seen));
    let bench = Bench::new(
        sink()
            .chain_function(move |_, _, buffer| {
                buffers
                    .lock()
                    .unwrap()
                    .push(format!("buffer {}", buffer.pts().unwrap().seconds()));
                Ok(gst::FlowSuccess::Ok)
            })
            .event_function(move |pad, parent, event| {
                if let Some(s) = event.structure().filter(|s| s.name() == "gcssink-clock") {
                    let (running, utc) = (s.get::<u64>("running-time").unwrap(), s.get::<u64>("utc").unwrap());
                    events
                        .lock()
                        .unwrap()
                        .push(format!("clock {} {}", running / SECOND, utc / SECOND));
                }
                gst::Pad::event_default(pad, parent, event)
            }),
    );
    let epoch = 1_795_329_912;
    for second in 0..3 {
        bench.front.push(with_utc(second, (epoch + second) * SECOND)).unwrap();
    }
    bench.front.push_event(gst::event::FlushStart::new());
    bench.front.push_event(gst::event::FlushStop::new(true));
    bench
        .front
        .push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
    bench.front.push(with_utc(9, (epoch + 9) * SECOND)).unwrap();
    let wanted = [
        "clock 0 1795329912",
        "buffer 0",
        "buffer 1",
        "buffer 2",
        "clock 9 1795329921",
        "buffer 9",
    ];
    assert_eq!(*seen.lock().unwrap(), wanted);
}

#[test]
fn a_password_file_that_does_not_answer_stops_no_pipeline_and_is_reported() {
    init();
    let pipe = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("never-{}.pw", std::process::id()));
    let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let element = format!(
        "iotcorestatus name=status protocol=mqtt tls=false host=127.0.0.1 port=9 username=u shutdown-timeout=0 password-file={}",
        pipe.display()
    );
    let line = format!("{CAMERA} ! {element} ! fakesink");
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    let began = std::time::Instant::now();
    pipeline.set_state(gst::State::Playing).unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    let bus = pipeline.bus().unwrap();
    let text = || {
        let reported = bus.timed_pop_filtered(gst::ClockTime::from_seconds(10), &[gst::MessageType::Warning]);
        match reported.as_ref().map(|m| m.view()) {
            Some(gst::MessageView::Warning(warning)) => warning.error().to_string(),
            _ => String::new(),
        }
    };
    let first = text();
    assert!(first.contains("the files of the MQTT settings do not answer"), "{first}");
    wait_until_streaming(&pipeline, &["status"]);
    // An empty password: what is wrong with the file is told as soon as it can be read.
    drop(std::fs::OpenOptions::new().write(true).open(&pipe).unwrap());
    let second = text();
    assert!(second.contains("is empty"), "{second}");
    std::fs::remove_file(&pipe).unwrap();
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_dead_broker_is_one_warning_and_never_an_error_and_the_state_goes_on() {
    let line = StatusLine::new(
        &format!("{DEAD} stall-timeout=1000000000 shutdown-timeout=500000000"),
        NOWHERE,
    );
    line.play();
    line.wait_state("connected", SOON);
    line.freeze(true);
    line.wait_state("disconnected", SOON);
    assert_eq!(line.phase(), "stalled");
    line.freeze(false);
    line.wait_state("connected", Duration::from_millis(500));
    std::thread::sleep(Duration::from_secs(3));
    let words = line.words();
    let warnings: Vec<_> = words.iter().filter(|w| w.0 == "warning").collect();
    assert_eq!(warnings.len(), 1, "{words:?}");
    assert!(warnings[0].1.contains("127.0.0.1"), "{warnings:?}");
    assert!(words.iter().all(|w| w.0 != "error"), "{words:?}");
    assert!(!line.status.property::<bool>("mqtt-connected"));
    assert!(line.stat("mqtt-failures") > 1, "{}", line.stats());
    let took = line.stop();
    assert!(took < Duration::from_millis(1500), "{took:?}");
}

#[test]
fn eos_and_pause_and_a_second_life_are_reported() {
    let line = StatusLine::new(&format!("{DEAD} shutdown-timeout=0"), NOWHERE);
    for _ in 0..2 {
        line.play();
        line.wait_state("connected", SOON);
        line.pipeline.set_state(gst::State::Paused).unwrap();
        line.wait_state("disconnected", SOON);
        assert_eq!(line.phase(), "paused");
        line.play();
        line.wait_state("connected", SOON);
        assert!(line.pipeline.send_event(gst::event::Eos::new()));
        line.wait_state("disconnected", SOON);
        assert_eq!(line.phase(), "eos");
        line.wait_word("eos", SOON);
        line.stop();
        assert_eq!(
            (line.phase(), line.status.property::<String>("state")),
            ("stopped".into(), "disconnected".into())
        );
    }
}

#[test]
fn a_cameras_bin_that_is_paused_or_stopped_in_a_playing_pipeline_is_paused_and_stopped() {
    init();
    let line = format!(
        "{CAMERA} ! fakesink async=false bin.( name=camera {CAMERA} ! {} stall-timeout=1000000000 ! fakesink async=false )",
        status("one")
    );
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    let camera = pipeline.by_name("camera").unwrap();
    let element = pipeline.by_name("one").unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    for _ in 0..2 {
        wait_until_streaming(&pipeline, &["one"]);
        camera.set_state(gst::State::Paused).unwrap();
        std::thread::sleep(Duration::from_millis(3500));
        assert_eq!(phase(&pipeline, "one"), "paused");
        camera.set_state(gst::State::Playing).unwrap();
        wait_until_streaming(&pipeline, &["one"]);
        camera.set_state(gst::State::Null).unwrap();
        assert_eq!(phase(&pipeline, "one"), "stopped");
        camera.set_state(gst::State::Playing).unwrap();
    }
    wait_until_streaming(&pipeline, &["one"]);
    let stalls = element.property::<gst::Structure>("stats").get::<u64>("stalls").unwrap();
    assert_eq!(stalls, 0);
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn an_error_of_another_element_is_reported_beside_the_applications_own_handlers() {
    let line = StatusLine::new(
        &format!("{DEAD} shutdown-timeout=0"),
        "identity name=bad ! fakesink async=false",
    );
    let bus = line.pipeline.bus().unwrap();
    let heard = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&heard);
    bus.set_sync_handler(move |_, message| {
        count.fetch_add(usize::from(message.type_() == gst::MessageType::Error), Ordering::SeqCst);
        gst::BusSyncReply::Pass
    });
    line.play();
    line.wait_state("connected", SOON);
    let bad = line.pipeline.by_name("bad").unwrap();
    gst::element_error!(bad, gst::ResourceError::Read, ("broken on purpose"));
    line.wait_state("disconnected", Duration::from_millis(500));
    assert_eq!(line.phase(), "error");
    assert_eq!(heard.load(Ordering::SeqCst), 1);
    assert_eq!(line.wait_word("error", SOON), "broken on purpose");
    line.stop();
    // Nothing of ours is left on the bus.
    gst::element_error!(bad, gst::ResourceError::Read, ("again"));
}

#[test]
fn an_error_is_reported_a_bin_that_played_before_it_was_added_and_was_moved_to_another_pipeline() {
    init();
    let line = format!("{CAMERA} ! identity name=in ! {} ! fakesink async=false", status("one"));
    let camera = gst::parse::bin_from_description(&line, false).unwrap();
    camera.set_state(gst::State::Playing).unwrap();
    for _ in 0..2 {
        let pipeline = gst::Pipeline::new();
        pipeline.set_state(gst::State::Playing).unwrap();
        pipeline.add(&camera).unwrap();
        camera.sync_state_with_parent().unwrap();
        wait_until_streaming(&pipeline, &["one"]);
        let end = std::time::Instant::now() + SOON;
        while phase(&pipeline, "one") != "error" {
            assert!(std::time::Instant::now() < end, "{}", phase(&pipeline, "one"));
            fail(&pipeline, "in");
            std::thread::sleep(Duration::from_millis(20));
        }
        pipeline.remove(&camera).unwrap();
        pipeline.set_state(gst::State::Null).unwrap();
    }
    camera.set_state(gst::State::Null).unwrap();
}

#[test]
fn an_error_behind_it_is_an_error_though_the_source_ends_with_one_of_its_own() {
    let line = StatusLine::new(
        &format!("{DEAD} shutdown-timeout=0"),
        "identity error-after=20 ! fakesink async=false",
    );
    line.play();
    line.wait_state("connected", SOON);
    line.wait_state("disconnected", SOON);
    let until = std::time::Instant::now() + Duration::from_secs(1);
    let mut phases = Vec::new();
    while std::time::Instant::now() < until {
        phases.push(line.phase());
        std::thread::sleep(Duration::from_millis(10));
    }
    phases.dedup();
    assert_eq!(phases, ["error"]);
    let errors: Vec<_> = line.words().into_iter().filter(|w| w.0 == "error").collect();
    assert!(errors.len() >= 2, "the source posts one too: {errors:?}");
}

#[test]
fn a_push_that_downstream_does_not_take_is_blocked_and_not_stalled() {
    let line = StatusLine::new(&format!("{DEAD} stall-timeout=1000000000 shutdown-timeout=0"), NOWHERE);
    line.play();
    line.wait_state("connected", SOON);
    let pad = line.status.static_pad("src").unwrap();
    let probe = pad
        .add_probe(gst::PadProbeType::BLOCK_DOWNSTREAM, |_, _| gst::PadProbeReturn::Ok)
        .unwrap();
    line.wait_state("disconnected", SOON);
    assert_eq!(line.phase(), "blocked");
    pad.remove_probe(probe);
    line.wait_state("connected", SOON);
    assert_eq!(line.stat("stalls"), 0);
}

#[test]
fn nothing_is_left_of_an_element_that_is_gone() {
    let line = StatusLine::new(&format!("{DEAD} shutdown-timeout=0"), NOWHERE);
    line.play();
    line.wait_state("connected", SOON);
    line.stop();
    let weak = line.status.downgrade();
    drop(line);
    // The last posts run in a thread of GStreamer's pool.
    for _ in 0..100 {
        if weak.upgrade().is_none() {
            return;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("somebody holds the element");
}

#[test]
fn no_property_holds_a_password() {
    let line = StatusLine::with_camera(CAMERA, "username=u password-file=/run/secret", NOWHERE);
    let names: Vec<String> = line.status.list_properties().iter().map(|p| p.name().to_owned()).collect();
    assert!(
        names.iter().all(|n| !n.contains("password") || n == "password-file"),
        "{names:?}"
    );
}

// The schema.

/// Checks a value against the part of JSON Schema that the document uses; an unknown keyword is an error.
fn check(schema: &Value, value: &Value, path: &str) {
    for (key, rule) in schema.as_object().unwrap() {
        match key.as_str() {
            "$schema" | "$id" | "title" | "description" | "format" => {}
            "type" => {
                let is = |name: &Value| match name.as_str().unwrap() {
                    "null" => value.is_null(),
                    "object" => value.is_object(),
                    "string" => value.is_string(),
                    "boolean" => value.is_boolean(),
                    "integer" => value.is_i64() || value.is_u64(),
                    "number" => value.is_number(),
                    other => panic!("type {other}"),
                };
                let fits = rule.as_array().map_or_else(|| is(rule), |all| all.iter().any(is));
                assert!(fits, "{path}: {value} is not {rule}");
            }
            "const" => assert_eq!(value, rule, "{path}"),
            "enum" => assert!(
                rule.as_array().unwrap().contains(value),
                "{path}: {value} is not one of {rule}"
            ),
            "minimum" => assert!(value.as_f64().is_none_or(|v| v >= rule.as_f64().unwrap()), "{path}: {value}"),
            "additionalProperties" => {
                let known = schema["properties"].as_object().unwrap();
                let stray: Vec<_> = value
                    .as_object()
                    .unwrap()
                    .keys()
                    .filter(|k| !known.contains_key(*k))
                    .collect();
                assert!(rule == &Value::Bool(false) && stray.is_empty(), "{path}: {stray:?}");
            }
            "required" => {
                let mut names: Vec<_> = rule.as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
                names.sort_unstable();
                let all: Vec<_> = schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
                assert_eq!(names, all, "{path}: every key is always there");
                assert!(names.iter().all(|n| value.get(n).is_some()), "{path}: {value}");
            }
            "properties" => {
                for (name, schema) in rule.as_object().unwrap() {
                    check(schema, value.get(name).unwrap_or(&Value::Null), &format!("{path}/{name}"));
                }
            }
            other => panic!("{path}: the keyword {other} is not known to this test"),
        }
    }
}

#[test]
fn the_status_is_as_its_schema_says_with_everything_unknown_and_with_everything_known() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/status.schema.json")).unwrap();
    let schema: Value = serde_json::from_str(&text).unwrap();
    let limits = Limits {
        stall: 10 * SECOND,
        startup: 30 * SECOND,
        interval: 60 * SECOND,
    };
    let wall = 1_795_329_912 * SECOND;
    let mut reporter = Reporter::new(limits, Identity::default(), Now { mono: 1, wall });
    check(
        &schema,
        &reporter
            .final_status(&Counts::default(), Now { mono: 2, wall })
            .unwrap()
            .0
            .to_json(),
        "",
    );
    let now = Now {
        mono: 20 * SECOND,
        wall: wall + 20 * SECOND,
    };
    for event in [
        Event::Playing(true),
        Event::Sinks(vec![SinkSample {
            key_units: 1,
            status: UploadStatus::from_name("offline"),
            object: Some("o".to_owned()),
            ..SinkSample::default()
        }]),
        Event::Chunk(Chunk::default()),
        Event::Config("00".to_owned()),
        Event::Answer(Answer {
            id: Some("1".to_owned()),
            msg: Some("m".to_owned()),
            ..Answer::default()
        }),
        Event::Problem(Problem {
            is_error: true,
            code: -1,
            ..Problem::default()
        }),
    ] {
        reporter.handle(event, now);
    }
    let counts = Counts {
        frames: 5,
        last_frame: Some(now.mono),
        ..Counts::default()
    };
    let output = reporter.poll(&counts, now);
    let json = output.publish.unwrap().to_json();
    assert_eq!(json["phase"], "error");
    check(&schema, &json, "");
    assert_eq!(output.telemetry.len(), 2, "chunk and error");
}

#[test]
fn the_values_of_the_property_status_are_those_that_the_reporter_knows() {
    init();
    let sink = gst::ElementFactory::make("gcssink").build().unwrap();
    let spec = sink.find_property("status").unwrap();
    let class = gst::glib::EnumClass::with_type(spec.value_type()).unwrap();
    let nicks: Vec<&str> = class.values().iter().map(gst::glib::EnumValue::nick).collect();
    assert_eq!(nicks, UploadStatus::ALL.map(UploadStatus::name));
}

#[test]
fn an_error_of_one_camera_leaves_the_other_one_of_the_pipeline_connected() {
    init();
    let camera = |name: &str, device: &str| {
        format!(
            "{CAMERA} ! identity name=in-{name} ! iotcorestatus name={name} protocol=mqtt host=127.0.0.1 port=9 device-id={device} \
             shutdown-timeout=0 ! queue ! fakesink name=out-{name} async=false "
        )
    };
    // The third one's source is in a bin, and the fourth one has found none yet.
    let line = format!(
        "{}{}bin.( {CAMERA} ! identity name=in-three ) ! iotcorestatus name=three protocol=mqtt host=127.0.0.1 port=9 device-id=cam3 \
         shutdown-timeout=0 ! fakesink async=false fakesrc name=unlinked iotcorestatus name=four protocol=mqtt host=127.0.0.1 port=9 \
         device-id=cam4 shutdown-timeout=0 ! fakesink async=false",
        camera("one", "cam1"),
        camera("two", "cam2"),
    );
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    // Its pads are not linked, so it cannot run; it can still post.
    let unlinked = pipeline.by_name("unlinked").unwrap();
    unlinked.set_locked_state(true);
    let phase = |name: &str| phase(&pipeline, name);
    let fail = |name: &str| fail(&pipeline, name);
    pipeline.set_state(gst::State::Playing).unwrap();
    wait_until_streaming(&pipeline, &["one", "two", "three"]);
    fail("in-two");
    assert_eq!(
        (phase("one"), phase("two"), phase("three")),
        ("streaming".into(), "error".into(), "streaming".into())
    );
    fail("out-one");
    assert_eq!(
        (phase("one"), phase("three"), phase("four")),
        ("error".into(), "streaming".into(), "starting".into())
    );
    fail("unlinked");
    assert_eq!(
        (phase("three"), phase("four")),
        ("streaming".into(), "error".into()),
        "a source that could not connect"
    );
    fail("in-three");
    assert_eq!(phase("three"), "error");
    pipeline.set_state(gst::State::Null).unwrap();
}

/// The phase of an `iotcorestatus` of a pipeline.
fn phase(pipeline: &gst::Pipeline, name: &str) -> String {
    let stats = pipeline.by_name(name).unwrap().property::<gst::Structure>("stats");
    stats.get("phase").unwrap()
}

/// Posts an ERROR as that element. The elements listen where it is posted: their phases are there when this returns.
fn fail(pipeline: &gst::Pipeline, name: &str) {
    let element = pipeline.by_name(name).unwrap();
    gst::element_error!(element, gst::ResourceError::Read, ("gone"));
}

fn wait_until_streaming(pipeline: &gst::Pipeline, names: &[&str]) {
    let end = std::time::Instant::now() + SOON;
    while names.iter().any(|name| phase(pipeline, name) != "streaming") {
        let phases: Vec<String> = names.iter().map(|name| phase(pipeline, name)).collect();
        assert!(std::time::Instant::now() < end, "{phases:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Its broker is not there.
fn status(name: &str) -> String {
    format!("iotcorestatus name={name} protocol=mqtt host=127.0.0.1 port=9 device-id={name} shutdown-timeout=0")
}

#[test]
fn an_error_of_one_camera_leaves_the_other_one_connected_where_each_has_a_bin_of_its_own() {
    init();
    let camera = |name: &str| {
        let status = status(name);
        format!("bin.( name=bin-{name} {CAMERA} ! identity name=in-{name} ! {status} ! queue ! fakesink async=false ) ")
    };
    let line = [camera("one"), camera("two")].concat();
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    wait_until_streaming(&pipeline, &["one", "two"]);
    for culprit in ["in-two", "bin-two"] {
        wait_until_streaming(&pipeline, &["two"]);
        fail(&pipeline, culprit);
        assert_eq!(
            (&*phase(&pipeline, "one"), &*phase(&pipeline, "two")),
            ("streaming", "error"),
            "{culprit}"
        );
    }
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn an_error_of_a_source_that_may_be_either_cameras_is_no_error_of_one_that_still_connects() {
    init();
    let camera = |name: &str| format!("fakesrc name=in-{name} {} ! fakesink async=false ", status(name));
    let line = [camera("one"), camera("two")].concat();
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    for name in ["in-one", "in-two"] {
        pipeline.by_name(name).unwrap().set_locked_state(true);
    }
    pipeline.set_state(gst::State::Playing).unwrap();
    fail(&pipeline, "in-two");
    assert_eq!(
        (&*phase(&pipeline, "one"), &*phase(&pipeline, "two")),
        ("starting", "starting")
    );
    // Once the other one has its source it is clear whose it was.
    let source = pipeline.by_name("in-one").unwrap();
    source.link(&pipeline.by_name("one").unwrap()).unwrap();
    fail(&pipeline, "in-two");
    assert_eq!(phase(&pipeline, "two"), "error");
    assert_ne!(phase(&pipeline, "one"), "error");
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn a_camera_that_cannot_be_reached_leaves_one_that_is_received_over_tcp_connected() {
    init();
    let (_cameras, port) = peers::Peer::cameras();
    let camera = |name: &str, port: u16| {
        let status = status(name);
        format!(
            "rtspsrc name=in-{name} protocols=tcp location=rtsp://127.0.0.1:{port}/h264-none ! rtph264depay ! h264parse ! {status} \
             ! fakesink async=false "
        )
    };
    let line = [camera("one", port), camera("two", 9)].concat();
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    // It posts when the test wants it to.
    pipeline.by_name("in-two").unwrap().set_locked_state(true);
    pipeline.set_state(gst::State::Playing).unwrap();
    wait_until_streaming(&pipeline, &["one"]);
    fail(&pipeline, "in-two");
    assert_eq!((&*phase(&pipeline, "one"), &*phase(&pipeline, "two")), ("streaming", "error"));
    pipeline.set_state(gst::State::Null).unwrap();
}
