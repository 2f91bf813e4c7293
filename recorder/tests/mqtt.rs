//! Tests of the reports to brokers, of cameras and of the recorder: with a real mosquitto, and with a bridge as strict as IoT
//! Core.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "zoo/camera.rs"]
mod camera;
mod common;
#[path = "zoo/media.rs"]
mod media;
#[path = "../../tests/common/mosquitto.rs"]
mod mosquitto;
#[path = "zoo/repack.rs"]
mod repack;
#[path = "../../tests/common/strict_broker/mod.rs"]
mod strict_broker;

use std::time::Duration;

use camera::{Act, Camera, Then, closed_port};
use common::gcs_server::{Fault, GcsServer};
use common::{Recorder, chunks};
use mosquitto::{Mosquitto, Watcher};
use serde_json::Value;
use strict_broker::{Rules, StrictBroker};

const SOON: Duration = Duration::from_secs(30);

fn h264() -> Act {
    Act {
        sends: vec!["h264"],
        ..Act::default()
    }
}

fn entry(id: &str, url: &str) -> String {
    format!("[[camera]]\nid = \"{id}\"\nurl = \"{url}\"\nmax-size-time = \"2s\"\nstall-timeout = \"2s\"\n")
}

fn mqtt(broker: &Mosquitto) -> String {
    format!(
        "[mqtt]\nhost = \"127.0.0.1\"\nport = {}\nname = \"shop-7\"\nhome-assistant-prefix = \"homeassistant\"\n",
        broker.port()
    )
}

/// Waits for a status of a camera for which this holds.
fn status(watcher: &Watcher, id: &str, is: impl Fn(&Value) -> bool) -> Value {
    let topic = format!("gcstreamer/{id}/status");
    let last = |seen: &[mosquitto::Seen]| {
        let seen = seen.iter().rev().find(|seen| seen.topic == topic)?;
        serde_json::from_str::<Value>(&seen.payload).ok().filter(&is)
    };
    assert!(watcher.wait_for(|seen| last(seen).is_some(), SOON), "{:#?}", watcher.seen());
    last(&watcher.seen()).unwrap()
}

#[test]
fn a_camera_that_never_sent_a_picture_is_reported_with_its_reason_and_the_recorder_has_a_will() {
    let server = GcsServer::spawn_thread();
    let broker = Mosquitto::start();
    let watcher = broker.watch(&["#"], None);
    let well = Camera::start(vec![h264()]);
    let gone = format!("rtsp://127.0.0.1:{}/", closed_port());
    let configuration = format!("{}{}{}", mqtt(&broker), entry("well", &well.url()), entry("gone", &gone));
    let recorder = Recorder::start(&server, &configuration);
    watcher.wait_last("gcstreamer/recorder/shop-7/availability", "online", SOON);
    watcher.wait_last("gcstreamer/well/state", "connected", SOON);
    watcher.wait_last("gcstreamer/gone/availability", "online", SOON);
    watcher.wait_last("gcstreamer/gone/state", "disconnected", SOON);
    let seen = status(&watcher, "gone", |status| status["phase"] == "source-lost");
    let reason = seen["error"]["msg"].as_str().unwrap();
    assert!(reason.contains("connection") && !reason.contains("127.0.0.1"), "{seen}");
    for id in ["well", "gone"] {
        let discovery = watcher.payloads(&format!("homeassistant/device/gcstreamer_{id}/config"));
        let discovery: Value = serde_json::from_str(&discovery[0]).unwrap();
        assert_eq!(discovery["availability_mode"], "all");
        assert_eq!(discovery["availability"][0]["topic"], format!("gcstreamer/{id}/availability"));
        assert_eq!(
            discovery["availability"][1]["topic"],
            "gcstreamer/recorder/shop-7/availability"
        );
    }
    drop(recorder.kill());
    for topic in ["recorder/shop-7", "well", "gone"] {
        watcher.wait_last(&format!("gcstreamer/{topic}/availability"), "offline", SOON);
    }
}

#[test]
fn a_camera_that_freezes_is_reported_while_it_is_away_and_when_it_is_back() {
    let server = GcsServer::spawn_thread();
    let broker = Mosquitto::start();
    let watcher = broker.watch(&["gcstreamer/#"], None);
    let dead = Act {
        refuses: Some(("DESCRIBE", "404 Not Found")),
        ..h264()
    };
    let frozen = Act {
        pictures: Some(60),
        then: Then::Freeze,
        ..h264()
    };
    let camera = Camera::start(vec![frozen, dead.clone(), dead.clone(), dead, h264()]);
    let recorder = Recorder::start(&server, &format!("{}{}", mqtt(&broker), entry("cam", &camera.url())));
    watcher.wait_last("gcstreamer/cam/state", "connected", SOON);
    status(&watcher, "cam", |status| {
        let text = status["error"]["msg"].as_str().unwrap_or_default();
        status["phase"] == "source-lost" && (text.contains("no picture") || text.contains("404"))
    });
    watcher.wait_last("gcstreamer/cam/availability", "online", SOON);
    watcher.wait_last("gcstreamer/cam/state", "disconnected", SOON);
    watcher.wait_last("gcstreamer/cam/state", "connected", SOON);
    let (ended, log) = recorder.stop();
    assert!(ended.success(), "{log}");
    for topic in ["cam", "recorder/shop-7"] {
        watcher.wait_last(&format!("gcstreamer/{topic}/availability"), "offline", SOON);
    }
    assert!(!log.contains("each connection will end the other"), "{log}");
}

#[test]
fn the_recorder_goes_from_the_broker_before_it_comes_back_with_other_settings() {
    let server = GcsServer::spawn_thread();
    let broker = Mosquitto::start();
    let availability = "gcstreamer/recorder/shop-7/availability";
    let watcher = broker.watch(&[availability], None);
    let camera = Camera::start(vec![h264()]);
    let entry = entry("cam", &camera.url());
    let recorder = Recorder::start(&server, &format!("{}{entry}", mqtt(&broker)));
    watcher.wait_last(availability, "online", SOON);
    let changed = mqtt(&broker).replace("homeassistant", "ha");
    recorder.reload(&server, &format!("{changed}{entry}"));
    let changes = |seen: &[mosquitto::Seen]| seen.iter().filter(|seen| seen.topic == availability).count();
    assert!(watcher.wait_for(|seen| changes(seen) >= 3, SOON), "{:?}", watcher.seen());
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(watcher.payloads(availability), ["online", "offline", "online"]);
    recorder.wait_for("cam", "recording");
    let (ended, log) = recorder.stop();
    assert!(ended.success(), "{log}");
    assert!(!log.contains("each connection will end the other"), "{log}");
    watcher.wait_last(availability, "offline", SOON);
}

#[test]
fn a_bucket_that_refuses_is_no_fault_of_the_camera() {
    let server = GcsServer::spawn_thread();
    let broker = Mosquitto::start();
    let watcher = broker.watch(&["gcstreamer/#"], None);
    for _ in 0..500 {
        server.push_fault(Fault::status(403));
    }
    let camera = Camera::start(vec![h264()]);
    let recorder = Recorder::start(&server, &format!("{}{}", mqtt(&broker), entry("cam", &camera.url())));
    let seen = recorder.wait_for("cam", "stopped");
    let reason = seen["reason"].as_str().unwrap();
    assert!(reason.contains(common::BUCKET) && !reason.contains("camera"), "{reason}");
    let seen = status(&watcher, "cam", |status| status["phase"] == "error");
    assert!(seen["error"]["msg"].as_str().unwrap().contains(common::BUCKET), "{seen}");
    watcher.wait_last("gcstreamer/cam/state", "disconnected", SOON);
    let (ended, log) = recorder.stop();
    assert!(ended.success(), "{log}");
    assert!(!log.contains("unreachable"), "{log}");
}

#[test]
fn a_bridge_of_iot_core_learns_of_a_camera_that_is_away_and_of_one_that_is_recorded() {
    use std::os::unix::fs::PermissionsExt;
    for (is_there, expected) in [(true, "connected"), (false, "disconnected")] {
        let server = GcsServer::spawn_thread();
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let key = rcgen::KeyPair::generate().unwrap();
        let file = folder.path().join("key.pem");
        std::fs::write(&file, key.serialize_pem()).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        let broker = StrictBroker::start(Rules::new(key.public_key_pem()));
        let authority = folder.path().join("ca.pem");
        std::fs::write(&authority, broker.ca_pem().unwrap()).unwrap();
        let camera = Camera::start(vec![h264()]);
        let url = if is_there {
            camera.url()
        } else {
            format!("rtsp://127.0.0.1:{}/", closed_port())
        };
        let configuration = format!(
            "[iotcore]\nhost = \"127.0.0.1\"\nport = {}\nproject-id = \"test-project\"\nregion = \"us-central1\"\nregistry-id = \"cameras\"\n\
             {}private-key-file = \"key.pem\"\n",
            broker.port(),
            entry("cam1", &url)
        );
        let variables = [("SSL_CERT_FILE", authority.to_str().unwrap())];
        let recorder = Recorder::start_with(folder, &server, &configuration, &variables);
        let there = broker.wait_for(|seen| seen.last_state().as_deref() == Some(expected), SOON);
        assert!(there, "{:#?}\n{}", broker.seen(), recorder.log());
        let (ended, log) = recorder.stop();
        assert!(ended.success(), "{log}");
        assert_eq!(chunks(&server, "cam1").is_empty(), !is_there);
        broker.assert_no_violations();
    }
}

#[test]
fn a_file_of_the_broker_that_cannot_be_read_stops_no_camera() {
    let server = GcsServer::spawn_thread();
    let broker = Mosquitto::start();
    let watcher = broker.watch(&["#"], None);
    let act = Act {
        pictures: Some(60),
        then: Then::Close,
        ..h264()
    };
    let last = Act {
        pictures: None,
        ..act.clone()
    };
    let camera = Camera::start(vec![act.clone(), act, last]);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let password = folder.path().join("mq.pw");
    std::fs::write(&password, "SECRET\n").unwrap();
    let configuration = format!(
        "{}username = \"shop\"\npassword-file = \"mq.pw\"\n{}",
        mqtt(&broker),
        entry("cam", &camera.url())
    );
    let recorder = Recorder::start_in(folder, &server, &configuration);
    watcher.wait_last("gcstreamer/cam/state", "connected", SOON);
    std::fs::remove_file(&password).unwrap();
    recorder.wait("a second connection", || recorder.camera("cam")["reconnects"] == 1);
    recorder.wait_for("cam", "recording");
    recorder.wait("told", || {
        recorder
            .log()
            .contains("the broker gets no status of this camera: password-file: ")
    });
    watcher.wait_last("gcstreamer/cam/availability", "offline", SOON);
    // The next connection tries it again.
    std::fs::write(&password, "SECRET\n").unwrap();
    recorder.wait("a third connection", || recorder.camera("cam")["reconnects"] == 2);
    recorder.wait_for("cam", "recording");
    watcher.wait_last("gcstreamer/cam/state", "connected", SOON);
    let (_, log) = recorder.stop();
    let stored = chunks(&server, "cam");
    assert_eq!(common::sessions(&stored).len(), 3, "{log}");
    common::assert_each_plays(&stored);
    assert!(!log.contains("SECRET"), "{log}");
}
