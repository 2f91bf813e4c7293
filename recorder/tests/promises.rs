//! Tests of promises that do not concern pictures: advice on a camera's settings in the log, notifications to systemd, and
//! uploads that hang without delaying anything else.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "zoo/camera.rs"]
mod camera;
mod common;
#[path = "zoo/media.rs"]
mod media;
#[path = "zoo/repack.rs"]
mod repack;

use std::os::unix::net::UnixDatagram;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use camera::{Act, Camera, Then};
use common::gcs_server::{Fault, GcsServer};
use common::{Recorder, assert_each_plays, chunks, sessions};

fn sends(track: &'static str) -> Act {
    Act {
        sends: vec![track],
        ..Act::default()
    }
}

fn entry(id: &str, camera: &Camera) -> String {
    format!(
        "[[camera]]\nid = \"{id}\"\nurl = \"{}\"\nmax-size-time = \"2s\"\n",
        camera.url()
    )
}

#[test]
fn what_is_wrong_with_a_cameras_settings_is_logged_once_while_it_is_recorded() {
    let server = GcsServer::spawn_thread();
    let of_1970 = |pictures| Act {
        ntp: Some(2_208_988_800),
        pictures,
        then: Then::Close,
        ..sends("h264")
    };
    // It comes back after ten seconds, and its clock is as it was.
    let clock = Camera::start(vec![of_1970(Some(150)), of_1970(None)]);
    let keys = Camera::start(vec![sends("h264-long-gop")]);
    let slow = Camera::start(vec![sends("h264-slow")]);
    let well = Camera::start(vec![sends("h264")]);
    let configuration: String = [("clock", &clock), ("keys", &keys), ("slow", &slow), ("well", &well)]
        .map(|(id, camera)| entry(id, camera))
        .concat();
    let recorder = Recorder::start(&server, &configuration);
    let expected = [
        ("clock", "the camera's clock is "),
        ("keys", ": set its key frame interval to 1 or 2 s"),
        ("slow", " pictures a second come, and the camera declares 15: "),
    ];
    for (id, text) in expected {
        recorder.wait(text, || recorder.log().contains(text));
        recorder.wait_for(id, "recording");
    }
    recorder.wait("the camera again", || clock.seen.connections.load(Ordering::SeqCst) == 2);
    recorder.wait_for("clock", "recording");
    std::thread::sleep(Duration::from_secs(7));
    let (ended, log) = recorder.stop();
    assert!(ended.success(), "{log}");
    for (id, text) in expected {
        let lines: Vec<&str> = log.lines().filter(|line| line.contains(text)).collect();
        assert!(
            lines.len() == 1 && lines[0].contains("WARN") && lines[0].contains(id),
            "{lines:?}\n{log}"
        );
    }
    assert!(
        !log.lines().any(|line| line.contains("well") && line.contains("WARN")),
        "{log}"
    );
    assert!(log.contains(" s behind: set its NTP server"), "{log}");
}

#[test]
fn a_camera_that_is_back_is_recorded_while_chunks_of_before_are_still_on_their_way() {
    let server = GcsServer::spawn_thread();
    // One upload gets no answer.
    server.push_fault(Fault::StallBefore);
    let camera = Camera::start(vec![
        Act {
            pictures: Some(40),
            then: Then::Close,
            ..sends("h264")
        },
        sends("h264"),
    ]);
    let recorder = Recorder::start(&server, &entry("cam", &camera));
    recorder.wait("a chunk of the second session", || {
        chunks(&server, "cam")
            .iter()
            .any(|chunk| chunk.get("gap-reason") == "camera-unreachable")
    });
    let stored = chunks(&server, "cam");
    let back = sessions(&stored)
        .into_iter()
        .find(|chunk| chunk.get("gap-reason") == "camera-unreachable");
    let second = back.map(|chunk| chunk.get("session-id").to_owned());
    let before: Vec<_> = stored
        .into_iter()
        .filter(|chunk| Some(chunk.get("session-id")) != second.as_deref())
        .collect();
    let (pictures, _) = assert_each_plays(&before);
    assert!(pictures < 40, "all {pictures} pictures of before are stored already");
    assert_eq!(recorder.camera("cam")["reconnects"], 1);
    assert_eq!(camera.seen.most_open.load(Ordering::SeqCst), 1);
}

#[test]
fn sound_that_is_announced_and_never_comes_delays_a_recording_by_three_seconds_at_most() {
    let server = GcsServer::spawn_thread();
    let camera = Camera::start(vec![Act {
        announces: vec!["m=audio 0 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\n".to_owned()],
        ..sends("h264")
    }]);
    let recorder = Recorder::start(&server, &entry("cam", &camera));
    recorder.wait("pictures", || camera.seen.pictures.load(Ordering::SeqCst) > 0);
    let began = Instant::now();
    recorder.wait_for("cam", "recording");
    // Plus two readings of the counters and the building of the pipeline.
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
}

#[test]
fn systemd_hears_of_the_start_the_state_a_reload_and_the_end() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // A path of a socket is no longer than 107 bytes.
    let sockets = tempfile::tempdir().unwrap();
    let path = sockets.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let into = Arc::clone(&heard);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length) = socket.recv(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            into.lock().unwrap().extend(text.lines().map(str::to_owned));
        }
    });
    let has = |line: &str| heard.lock().unwrap().iter().any(|heard| heard.starts_with(line));
    let server = GcsServer::spawn_thread();
    let camera = Camera::start(vec![sends("h264")]);
    let configuration = entry("cam", &camera);
    let recorder = Recorder::start_with(folder, &server, &configuration, &[("NOTIFY_SOCKET", path.to_str().unwrap())]);
    recorder.wait("READY", || has("READY=1"));
    recorder.wait("the watchdog and the state", || {
        has("WATCHDOG=1") && has("STATUS=1 recording")
    });
    heard.lock().unwrap().clear();
    recorder.reload(&server, &configuration);
    recorder.wait("the reload", || {
        has("RELOADING=1") && has("MONOTONIC_USEC=") && has("READY=1")
    });
    assert!(!has("STOPPING=1"));
    let (ended, log) = recorder.stop();
    assert!(ended.success(), "{log}");
    let end = Instant::now() + Duration::from_secs(5);
    while !(has("STOPPING=1") && has("EXTEND_TIMEOUT_USEC=40000000")) {
        assert!(Instant::now() < end, "{:?}", heard.lock().unwrap());
        std::thread::sleep(Duration::from_millis(20));
    }
}
