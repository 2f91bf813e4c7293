//! A real broker and a client that is not ours: what people and dashboards see of a pipeline, also of one that is killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "common/mod.rs"]
mod common;
#[path = "common/mosquitto.rs"]
mod mosquitto;
#[path = "common/process.rs"]
mod process;
#[path = "common/status_line.rs"]
mod status_line;

use std::process::{Child, Command};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use common::gcs_server::GcsServer;
use gst::prelude::*;
use mosquitto::{Mosquitto, Seen, Watcher};
use serde_json::Value;
use status_line::{CAMERA, NOWHERE, StatusLine};

const SOON: Duration = Duration::from_secs(15);
const STATE: &str = "gcstreamer/cam1/state";
const STATUS: &str = "gcstreamer/cam1/status";
const AVAILABILITY: &str = "gcstreamer/cam1/availability";

fn properties(broker: &Mosquitto) -> String {
    format!(
        "protocol=mqtt host=127.0.0.1 port={} device-id=cam1 stall-timeout=1500000000",
        broker.port()
    )
}

/// The payloads of a topic, repetitions counted once.
fn story(watcher: &Watcher, topic: &str) -> Vec<String> {
    let mut story = watcher.payloads(topic);
    story.dedup();
    story
}

fn last_json(watcher: &Watcher) -> Value {
    let last = watcher.payloads(STATUS).pop().expect("no status yet");
    serde_json::from_str(&last).unwrap()
}

fn wait_json(watcher: &Watcher, what: impl Fn(&Value) -> bool) -> Value {
    let fits = |seen: &[Seen]| {
        let last = seen.iter().rev().find(|s| s.topic == STATUS);
        last.is_some_and(|s| what(&serde_json::from_str(&s.payload).unwrap()))
    };
    assert!(watcher.wait_for(fits, SOON), "{:#?}", watcher.payloads(STATUS).last());
    last_json(watcher)
}

#[test]
fn another_client_sees_connected_stalled_connected_disconnected() {
    let broker = Mosquitto::start();
    let watcher = broker.watch(&["gcstreamer/#"], None);
    let line = StatusLine::new(&properties(&broker), NOWHERE);
    line.play();
    watcher.wait_last(STATE, "connected", SOON);
    line.freeze(true);
    watcher.wait_last(STATE, "disconnected", SOON);
    assert_eq!(wait_json(&watcher, |s| s["phase"] == "stalled")["reason"], "no-frame");
    line.freeze(false);
    watcher.wait_last(STATE, "connected", SOON);
    line.stop();
    watcher.wait_last(AVAILABILITY, "offline", SOON);
    assert_eq!(
        story(&watcher, STATE),
        ["connected", "disconnected", "connected", "disconnected"]
    );
    assert_eq!(story(&watcher, AVAILABILITY), ["online", "offline"]);
    assert_eq!(last_json(&watcher)["phase"], "stopped");
    let stalls = watcher.payloads("gcstreamer/cam1/event/stall");
    assert_eq!(stalls.len(), 2, "{stalls:?}");
    // Who comes later finds it all.
    let late = broker.watch(&["gcstreamer/#"], None);
    late.wait_last(STATE, "disconnected", SOON);
    late.wait_last(AVAILABILITY, "offline", SOON);
    assert!(late.seen().iter().all(|s| s.retained));
}

#[test]
fn the_last_word_is_with_the_broker_when_set_state_returns() {
    let broker = Mosquitto::start();
    let line = StatusLine::new(&properties(&broker), NOWHERE);
    line.play();
    let watcher = broker.watch(&["gcstreamer/#"], None);
    watcher.wait_last(STATE, "connected", SOON);
    let took = line.stop();
    assert!(took < Duration::from_secs(3), "{took:?}");
    let late = broker.watch(&[STATE, AVAILABILITY], None);
    late.wait_last(STATE, "disconnected", Duration::from_secs(1));
    late.wait_last(AVAILABILITY, "offline", Duration::from_secs(1));
}

/// A camera that announces itself to Home Assistant, and what comes there.
fn announced() -> (Mosquitto, Watcher, StatusLine) {
    let broker = Mosquitto::start();
    let watcher = broker.watch(&["homeassistant/#"], None);
    let line = StatusLine::new(
        &format!("{} home-assistant-prefix=homeassistant", properties(&broker)),
        NOWHERE,
    );
    line.play();
    (broker, watcher, line)
}

#[test]
fn home_assistant_is_reported_the_device_on_request() {
    let (_broker, watcher, _line) = announced();
    assert!(watcher.wait_for(|seen| !seen.is_empty(), SOON));
    let seen = watcher.seen().remove(0);
    assert_eq!(seen.topic, "homeassistant/device/gcstreamer_cam1/config");
    let message: Value = serde_json::from_str(&seen.payload).unwrap();
    assert_eq!(message["availability"][0]["topic"], AVAILABILITY);
    assert_eq!(message["state_topic"], STATUS);
}

#[test]
fn home_assistant_waits_longer_for_a_status_when_the_state_interval_is_raised_in_playing() {
    let (broker, watcher, line) = announced();
    let expires_after = |seconds: u64| {
        move |seen: &[Seen]| {
            let last = seen.last().map(|s| serde_json::from_str::<Value>(&s.payload).unwrap());
            last.is_some_and(|payload| payload["cmps"]["phase"]["expire_after"] == seconds)
        }
    };
    assert!(watcher.wait_for(expires_after(180), SOON));
    line.status.set_property("state-interval", 600_000_000_000u64);
    assert!(watcher.wait_for(expires_after(1800), SOON));
    // Who comes later finds it, too.
    let late = broker.watch(&["homeassistant/#"], None);
    assert!(late.wait_for(expires_after(1800), SOON));
    line.stop();
}

#[test]
fn a_gcssink_is_looked_after_its_chunks_are_reported_and_it_gets_the_commands() {
    let broker = Mosquitto::start();
    broker.publish("gcstreamer/cam1/set/split", br#"{"id":"old"}"#, true);
    let server = GcsServer::spawn_thread();
    let watcher = broker.watch(&["gcstreamer/#"], None);
    let camera = "videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=15/1 ! x264enc speed-preset=ultrafast \
                  key-int-max=15 ! h264parse";
    let sink = format!(
        "flvmux streamable=true ! gcssink name=sink bucket=cam-bucket device-id=cam1 max-size-time=2000000000 endpoint-uri={}",
        server.endpoint()
    );
    let line = StatusLine::with_camera(camera, &format!("{} accept-commands=true", properties(&broker)), &sink);
    let (send, commands) = mpsc::channel();
    let pad = line.pipeline.by_name("sink").unwrap().static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |_, info| {
        if let Some(s) = info
            .event()
            .and_then(|e| e.structure())
            .filter(|s| s.name() == "gcssink-command")
        {
            let _ = send.send((s.get::<String>("command").unwrap(), s.get::<String>("id").unwrap()));
        }
        gst::PadProbeReturn::Ok
    });
    line.play();
    watcher.wait_last(STATE, "connected", SOON);
    let status = wait_json(&watcher, |s| s["recording"] == true);
    let session = line.pipeline.by_name("sink").unwrap().property::<String>("session-id");
    assert_eq!(status["session"], session.as_str());
    let chunk = "gcstreamer/cam1/event/chunk";
    assert!(watcher.wait_for(|seen| seen.iter().any(|s| s.topic == chunk), SOON));
    let reported: Value = serde_json::from_str(&watcher.payloads(chunk)[0]).unwrap();
    assert!(reported["object"].as_str().unwrap().starts_with("cam1/"), "{reported}");
    for (topic, payload, wanted) in [
        ("split", "", ("split", "")),
        ("record", r#"{"id":"x7","value":"stop"}"#, ("record-stop", "x7")),
        ("record", "start", ("record-start", "")),
    ] {
        broker.publish(&format!("gcstreamer/cam1/set/{topic}"), payload.as_bytes(), false);
        let (command, id) = commands.recv_timeout(SOON).unwrap();
        assert_eq!((command.as_str(), id.as_str()), wanted);
        let is_recording = wanted.0 != "record-stop";
        wait_json(&watcher, |s| {
            s["command"]["ok"] == true && s["command"]["name"] == topic && s["recording"] == is_recording
        });
    }
    assert!(commands.try_recv().is_err(), "the retained one was asked for in another life");
    line.stop();
    watcher.wait_last(AVAILABILITY, "offline", SOON);
    assert_eq!(last_json(&watcher)["upload"]["status"], "stopped");
    assert!(last_json(&watcher)["upload"]["object"].is_string());
}

#[test]
fn a_recording_that_is_plugged_in_and_taken_out_while_the_camera_goes_on_is_no_trouble() {
    let broker = Mosquitto::start();
    let server = GcsServer::spawn_thread();
    let watcher = broker.watch(&["gcstreamer/#"], None);
    // A key unit every 3 s.
    let camera = "videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=10/1 ! x264enc speed-preset=ultrafast \
                  tune=zerolatency key-int-max=30 ! h264parse ! video/x-h264,stream-format=avc,alignment=au";
    let properties = properties(&broker).replace("=1500000000", "=10000000000");
    let line = StatusLine::with_camera(
        camera,
        &format!("{properties} startup-timeout=1000000000 accept-commands=true"),
        "tee name=tee ! queue ! fakesink async=false sync=false",
    );
    line.play();
    watcher.wait_last(STATE, "connected", SOON);
    std::thread::sleep(Duration::from_secs(2));
    let sink = format!(
        "queue ! flvmux streamable=true ! gcssink bucket=plug-bucket device-id=cam1 shutdown-timeout=0 endpoint-uri={}",
        server.endpoint()
    );
    let branch = gst::parse::bin_from_description(&sink, true).unwrap();
    line.pipeline.add(&branch).unwrap();
    let tee = line.pipeline.by_name("tee").unwrap().request_pad_simple("src_%u").unwrap();
    branch.sync_state_with_parent().unwrap();
    tee.link(&branch.static_pad("sink").unwrap()).unwrap();
    wait_json(&watcher, |s| s["recording"] == true && s["upload"]["status"].is_string());
    // Longer than `stall-timeout`, as below.
    std::thread::sleep(Duration::from_secs(12));
    tee.unlink(&branch.static_pad("sink").unwrap()).unwrap();
    line.pipeline.by_name("tee").unwrap().release_request_pad(&tee);
    line.pipeline.remove(&branch).unwrap();
    branch.set_state(gst::State::Null).unwrap();
    broker.publish("gcstreamer/cam1/set/split", br#"{"id":"late"}"#, false);
    let status = wait_json(&watcher, |s| s["command"]["id"] == "late");
    assert_eq!(status["command"]["ok"], false, "{status}");
    assert!(status["command"]["msg"].as_str().unwrap().contains("no gcssink"), "{status}");
    std::thread::sleep(Duration::from_secs(13));
    broker.publish("gcstreamer/cam1/set/report", br#"{"id":"now"}"#, false);
    let status = wait_json(&watcher, |s| s["command"]["id"] == "now");
    assert_eq!(
        (&status["recording"], &status["upload"]["status"]),
        (&Value::Null, &Value::Null)
    );
    assert_eq!(story(&watcher, STATE), ["connected"], "the camera was there all the time");
    line.stop();
}

#[test]
fn a_cameras_bin_that_is_stopped_while_the_pipeline_plays_is_stopped_at_once() {
    let broker = Mosquitto::start();
    let watcher = broker.watch(&["gcstreamer/#"], None);
    let camera = format!("videotestsrc is-live=true ! {NOWHERE} bin.( name=camera {CAMERA}");
    let line = StatusLine::with_camera(&camera, &properties(&broker), &format!("{NOWHERE} )"));
    line.play();
    wait_json(&watcher, |s| s["phase"] == "streaming");
    // Past the second between two states, which counts from the broker's answer.
    std::thread::sleep(Duration::from_secs(3));
    let began = std::time::Instant::now();
    line.pipeline.by_name("camera").unwrap().set_state(gst::State::Null).unwrap();
    let took = began.elapsed();
    assert!(took < Duration::from_millis(2500), "the broker answers, {took:?}");
    wait_json(&watcher, |s| s["phase"] == "stopped");
    let phase = |payload: &String| serde_json::from_str::<Value>(payload).unwrap()["phase"].to_string();
    let mut phases: Vec<String> = watcher.payloads(STATUS).iter().map(phase).collect();
    phases.dedup();
    assert_eq!(phases, ["\"streaming\"", "\"stopped\""]);
    line.stop();
}

#[test]
fn many_elements_together_wait_no_longer_than_one() {
    let broker = Mosquitto::start();
    let line = |n: usize| {
        let properties = properties(&broker).replace("cam1", &format!("cam{n}"));
        format!("iotcorestatus name=status{n} {properties} shutdown-timeout=500000000 ! {NOWHERE}")
    };
    let more: String = (2..=10).map(|n| format!(" {} ! {}", status_line::CAMERA, line(n))).collect();
    let first = format!("{} shutdown-timeout=500000000", properties(&broker));
    let line = StatusLine::new(&first, &format!("{NOWHERE}{more}"));
    let watcher = broker.watch(&["gcstreamer/+/state"], None);
    line.play();
    assert!(watcher.wait_for(|seen| seen.len() >= 10, SOON), "{:?}", watcher.seen());
    // It answers nobody any more, and each of them has a connection.
    broker.freeze();
    std::thread::sleep(Duration::from_millis(1100));
    let took = line.stop();
    broker.thaw();
    assert!(
        took >= Duration::from_millis(450) && took < Duration::from_millis(1400),
        "{took:?}"
    );
}

#[test]
fn each_change_of_the_connection_is_notified_once() {
    let broker = Mosquitto::start();
    let line = StatusLine::new(&properties(&broker), NOWHERE);
    let (report, reported) = mpsc::channel();
    line.status.connect_notify(Some("mqtt-connected"), move |status, _| {
        let _ = report.send(status.property::<bool>("mqtt-connected"));
    });
    for _ in 0..2 {
        let watcher = broker.watch(&[AVAILABILITY], None);
        line.play();
        watcher.wait_last(AVAILABILITY, "online", SOON);
        // Awaited: a handler reads the present value, so a connection that ends before it is called is no change to it.
        assert_eq!(reported.recv_timeout(SOON), Ok(true));
        line.stop();
        assert_eq!(reported.try_iter().collect::<Vec<_>>(), [false]);
    }
}

#[test]
fn what_was_reported_before_the_password_could_be_read_is_reported_once_it_can() {
    let broker = Mosquitto::start();
    let watcher = broker.watch(&["gcstreamer/#", "homeassistant/#"], None);
    let pipe = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("late-{}.pw", std::process::id()));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let more = format!(
        "username=u password-file={} home-assistant-prefix=homeassistant",
        pipe.display()
    );
    let line = StatusLine::new(&format!("{} {more}", properties(&broker)), NOWHERE);
    // Waits for the file, and then goes on without it.
    line.play();
    line.wait_state("connected", SOON);
    line.freeze(true);
    line.wait_state("disconnected", SOON);
    line.freeze(false);
    line.wait_state("connected", SOON);
    line.status.set_property("state-interval", 600_000_000_000u64);
    assert_eq!(watcher.seen().len(), 0, "nobody could tell it");
    let file = pipe.with_extension("new");
    std::fs::write(&file, "secret\n").unwrap();
    let mut answer = std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
    // Who reads it again finds a file.
    std::fs::rename(&file, &pipe).unwrap();
    std::io::Write::write_all(&mut answer, b"secret\n").unwrap();
    drop(answer);
    watcher.wait_last(STATE, "connected", SOON);
    watcher.wait_last(AVAILABILITY, "online", SOON);
    assert_eq!(last_json(&watcher)["phase"], "streaming");
    let stalls = |seen: &[Seen]| seen.iter().filter(|s| s.topic == "gcstreamer/cam1/event/stall").count() == 2;
    assert!(watcher.wait_for(stalls, SOON), "{:?}", watcher.seen());
    let announced = |seen: &[Seen]| {
        let last = seen.iter().rev().find(|s| s.topic.starts_with("homeassistant/"));
        let payload = last.map(|s| serde_json::from_str::<Value>(&s.payload).unwrap());
        payload.is_some_and(|payload| payload["cmps"]["phase"]["expire_after"] == 1800)
    };
    assert!(watcher.wait_for(announced, SOON), "{:?}", watcher.seen());
    line.stop();
    std::fs::remove_file(&pipe).unwrap();
}

#[test]
fn what_a_killed_process_left_there_is_not_said_to_be_true_again() {
    let broker = Mosquitto::start();
    broker.publish(STATE, b"connected", true);
    broker.publish(AVAILABILITY, b"offline", true);
    let line = StatusLine::new(&properties(&broker), NOWHERE);
    let watcher = broker.watch(&["gcstreamer/#"], None);
    line.freeze(true);
    line.play();
    // It is connected, and no frame has come.
    let until = Instant::now() + SOON;
    while !line.status.property::<bool>("mqtt-connected") && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(story(&watcher, AVAILABILITY), ["offline"]);
    line.freeze(false);
    watcher.wait_last(AVAILABILITY, "online", SOON);
    let topics: Vec<_> = watcher.seen().into_iter().skip(2).map(|s| (s.topic, s.payload)).collect();
    let position = |topic: &str, payload: &str| topics.iter().position(|(t, p)| t == topic && p == payload);
    assert!(
        position(STATE, "connected") < position(AVAILABILITY, "online") && position(STATE, "connected").is_some(),
        "{topics:?}"
    );
}

/// The fragments of a splitmuxsink, each a gcssink of its own.
fn fragments(server: &GcsServer) -> String {
    format!(
        "splitmuxsink name=split async-finalize=true muxer-factory=mpegtsmux sink-factory=gcssink max-size-time=1000000000 \
         sink-properties=\"properties,bucket=(string)cam-bucket,device-id=(string)cam1,endpoint-uri=(string)\\\"{}\\\"\" \
         location=cam1/%05d.ts",
        server.endpoint()
    )
}

const SMALL: &str = "videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=15/1 ! x264enc tune=zerolatency \
                     speed-preset=ultrafast key-int-max=15 ! h264parse config-interval=-1";

#[test]
fn a_recording_that_was_stopped_rests_over_the_fragments_of_a_splitmuxsink() {
    let broker = Mosquitto::start();
    let server = GcsServer::spawn_thread();
    let watcher = broker.watch(&["gcstreamer/#"], None);
    let line = StatusLine::with_camera(
        SMALL,
        &format!("{} accept-commands=true", properties(&broker)),
        &fragments(&server),
    );
    let wait_stored = |n: usize| {
        let until = Instant::now() + SOON;
        while server.objects().len() < n && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(server.objects().len() >= n, "{:?}", line.words());
    };
    line.play();
    wait_stored(2);
    broker.publish("gcstreamer/cam1/set/record", b"stop", false);
    wait_json(&watcher, |s| s["recording"] == false && s["reason"] == "record-stopped");
    // The fragment in which it was stopped.
    std::thread::sleep(Duration::from_millis(1500));
    let stored = server.objects().len();
    std::thread::sleep(Duration::from_millis(3500));
    assert_eq!(server.objects().len(), stored, "three fragments later");
    assert_eq!(line.status.property::<String>("state"), "connected");
    broker.publish("gcstreamer/cam1/set/record", b"start", false);
    wait_json(&watcher, |s| s["recording"] == true);
    wait_stored(stored + 2);
    // Not remembered over a restart of the session.
    broker.publish("gcstreamer/cam1/set/record", b"stop", false);
    wait_json(&watcher, |s| s["recording"] == false && s["reason"] == "record-stopped");
    line.stop();
    let stored = server.objects().len();
    line.play();
    wait_stored(stored + 2);
    let words = line.words();
    assert!(
        words.iter().all(|w| w.0 != "error" && !w.1.contains("nothing to store")),
        "{words:?}"
    );
}

#[test]
fn each_fragment_of_a_splitmuxsink_has_a_start_time_of_its_own_whatever_the_cameras_clock_says() {
    let broker = Mosquitto::start();
    let server = GcsServer::spawn_thread();
    let line = StatusLine::with_camera(SMALL, &properties(&broker), &fragments(&server));
    let pad = line.status.static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::BUFFER, |_, info| {
        if let Some(buffer) = info.buffer_mut()
            && let Some(pts) = buffer.pts()
        {
            let caps = gst::Caps::new_empty_simple("timestamp/x-unix");
            let time = gst::ClockTime::from_seconds(1_600_000_000) + pts;
            gst::ReferenceTimestampMeta::add(buffer.make_mut(), &caps, time, gst::ClockTime::NONE);
        }
        gst::PadProbeReturn::Ok
    });
    let began = jiff::Timestamp::now();
    line.play();
    let until = Instant::now() + SOON;
    while server.objects().len() < 4 && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
    }
    line.stop();
    let mut objects = common::chunks(&server);
    assert!(objects.len() >= 4, "{:?}", line.words());
    objects.sort_by(|a, b| a.name.cmp(&b.name));
    let starts: Vec<jiff::Timestamp> = objects.iter().map(|c| c.get("start-time").parse().unwrap()).collect();
    for (i, pair) in starts.windows(2).take(3).enumerate() {
        let apart = pair[1].as_millisecond() - pair[0].as_millisecond();
        assert!((500..=1700).contains(&apart), "fragment {i}: {starts:?}");
    }
    let first = starts[0].as_millisecond() - began.as_millisecond();
    assert!((0..=3000).contains(&first), "{starts:?} since {began}");
}

#[test]
fn a_muxer_that_waits_for_sound_that_never_comes_is_not_recording() {
    let broker = Mosquitto::start();
    let server = GcsServer::spawn_thread();
    let watcher = broker.watch(&["gcstreamer/#"], None);
    let camera = "videotestsrc is-live=true ! video/x-raw,width=160,height=120,framerate=15/1 ! x264enc speed-preset=ultrafast \
                  key-int-max=15 ! h264parse";
    let sink = format!(
        "flvmux name=mux streamable=true ! gcssink bucket=cam-bucket device-id=mute endpoint-uri={} \
         audiotestsrc is-live=true ! audio/x-raw,rate=44100 ! valve drop=true ! avenc_aac ! aacparse ! mux.",
        server.endpoint()
    );
    let line = StatusLine::with_camera(camera, &format!("{} startup-timeout=3000000000", properties(&broker)), &sink);
    let _ = line.pipeline.set_state(gst::State::Playing);
    let status = wait_json(&watcher, |s| s["phase"] == "not-recording");
    assert_eq!(
        (&status["state"], &status["reason"]),
        (&"disconnected".into(), &"no-key-unit".into())
    );
    assert_eq!(status["upload"]["status"], "starting");
    assert_eq!(story(&watcher, STATE), ["disconnected"], "it was never green");
}

#[test]
fn twenty_restarts_of_the_broker_end_with_the_state_there() {
    let mut broker = Mosquitto::start();
    let line = StatusLine::new(&properties(&broker), NOWHERE);
    line.play();
    line.wait_state("connected", SOON);
    for _ in 0..20 {
        broker.stop();
        std::thread::sleep(Duration::from_millis(100));
        broker.start_again();
    }
    let watcher = broker.watch(&["gcstreamer/#"], None);
    watcher.wait_last(STATE, "connected", Duration::from_secs(70));
    let words = line.words();
    assert!(words.iter().all(|w| w.0 != "error"), "{words:?}");
    let warnings = words.iter().filter(|w| w.0 == "warning").count();
    assert!(warnings <= 3, "{words:?}");
    assert!(line.stat("mqtt-connects") <= 22, "{}", line.stats());
}

// Real processes.

fn launch(broker: &Mosquitto, words: &str, environment: &[(&str, &str)]) -> Child {
    let line = format!(
        "{words} videotestsrc name=camera is-live=true ! video/x-raw,width=16,height=16,framerate=25/1 ! iotcorestatus {} ! \
         fakesink async=false",
        properties(broker)
    );
    process::launch(&line, environment)
}

fn signal(child: &Child, name: &str) {
    assert!(
        Command::new("kill")
            .args([name, &child.id().to_string()])
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn a_killed_process_is_offline_by_its_will() {
    let broker = Mosquitto::start();
    let watcher = broker.watch(&["gcstreamer/#"], None);
    let mut child = launch(&broker, "", &[]);
    watcher.wait_last(STATE, "connected", SOON);
    signal(&child, "-KILL");
    child.wait().unwrap();
    watcher.wait_last(AVAILABILITY, "offline", SOON);
    assert_eq!(
        story(&watcher, STATE),
        ["connected"],
        "the state is valid only while availability is online"
    );
}

#[test]
fn ctrl_c_with_and_without_e_is_reported_before_the_process_ends_and_nothing_leaks() {
    for (words, phase) in [("-e", "eos"), ("", "stopped")] {
        let broker = Mosquitto::start();
        let watcher = broker.watch(&["gcstreamer/#"], None);
        let leaks = [
            ("GST_TRACERS", "leaks"),
            ("GST_DEBUG", "GST_TRACER:7"),
            ("GST_DEBUG_NO_COLOR", "1"),
        ];
        let child = launch(&broker, words, &leaks);
        watcher.wait_last(STATE, "connected", SOON);
        let began = Instant::now();
        signal(&child, "-INT");
        let output = child.wait_with_output().unwrap();
        assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}");
        let late = broker.watch(&["gcstreamer/#"], None);
        late.wait_last(STATE, "disconnected", Duration::from_secs(1));
        late.wait_last(AVAILABILITY, "offline", Duration::from_secs(1));
        assert_eq!(wait_json(&late, |_| true)["phase"], phase);
        let alive: Vec<&str> = text
            .lines()
            .filter(|l| l.contains("object-alive, type-name=(string)Gst"))
            .collect();
        assert!(alive.is_empty(), "{alive:#?}");
    }
}

#[test]
fn a_pipeline_that_fails_says_why_before_the_process_ends() {
    let broker = Mosquitto::start();
    let watcher = broker.watch(&["gcstreamer/#"], None);
    let child = launch(
        &broker,
        "identity error-after=50 name=bad ! fakesink videotestsrc is-live=true ! bad.",
        &[],
    );
    watcher.wait_last(STATE, "connected", SOON);
    let output = child.wait_with_output().unwrap();
    assert!(!output.status.success(), "{output:?}");
    let late = broker.watch(&["gcstreamer/#"], None);
    late.wait_last(STATE, "disconnected", Duration::from_secs(1));
    let status = wait_json(&late, |_| true);
    assert_eq!(
        (&status["phase"], &status["error"]["src"]),
        (&"error".into(), &"bad".into()),
        "{status}"
    );
}
