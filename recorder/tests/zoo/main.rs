//! The camera zoo: each camera misbehaves in its own way, all of them are recorded by one recorder at the same time, and the bucket
//! must hold every picture that was sent.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod camera;
#[path = "../common/mod.rs"]
mod common;
mod launch;
mod list;
mod media;
mod repack;

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use camera::{Camera, closed_port};
use common::gcs_server::GcsServer;
use common::{Recorder, assert_each_plays, chunks, sessions};
use list::{Expected, Sound, zoo};

/// Stops the cameras, but none just after a cut: ffprobe cannot analyse a chunk with one picture and no sound. Does not wait for
/// a camera that is not sending, and at most 5 s for all others.
fn stop_within_a_chunk(cameras: &[Camera]) {
    for camera in cameras {
        camera.seen.stop_after_key.store(true, Ordering::SeqCst);
    }
    let deadline = Instant::now() + Duration::from_secs(5);
    let is_sending =
        |camera: &Camera| camera.seen.sending.lock().unwrap().0.is_some() && !camera.seen.has_stopped.load(Ordering::SeqCst);
    while cameras.iter().any(is_sending) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    for camera in cameras {
        camera.seen.stop.store(true, Ordering::SeqCst);
    }
}

/// Records a part of the zoo with one recorder: every camera is recorded completely or reported with the expected reason, and
/// none disturbs another.
fn visit(part: usize, parts: usize) {
    let server = GcsServer::spawn_thread();
    let mut zoo = zoo();
    // ZOO=frozen runs one camera, for debugging.
    match std::env::var("ZOO") {
        Ok(only) => zoo.retain(|(id, ..)| only.split(',').any(|wanted| wanted == *id)),
        Err(_) => {
            let mut number = 0;
            zoo.retain(|_| {
                number += 1;
                number % parts == part
            });
        }
    }
    let cameras: Vec<Camera> = zoo.iter().map(|(_, _, script, _)| Camera::start(script.clone())).collect();
    let mut configuration = String::from("[defaults]\nstall-timeout = \"3s\"\nmax-size-time = \"3s\"\n");
    for ((id, more, ..), camera) in zoo.iter().zip(&cameras) {
        writeln!(
            configuration,
            "[[camera]]\nid = \"zoo/{id}\"\nurl = \"{}\"\n{more}",
            camera.url()
        )
        .unwrap();
    }
    let refused = format!(
        "[[camera]]\nid = \"zoo/refused-port\"\nurl = \"rtsp://127.0.0.1:{}/\"\n",
        closed_port()
    );
    configuration.push_str(&refused);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::write(folder.path().join("good.pw"), "hunter2-SECRET\n").unwrap();
    std::fs::write(folder.path().join("bad.pw"), "wrong-SECRET\n").unwrap();
    let recorder = Recorder::start_in(folder, &server, &configuration);

    recorder.wait("the first round", || {
        recorder.get("/readyz").is_some_and(|(code, _)| code == 200)
    });
    for ((id, _, script, expected), camera) in zoo.iter().zip(&cameras) {
        let id = format!("zoo/{id}");
        match expected {
            Expected::Recorded(..) => {
                let last = script.len();
                recorder.wait(&format!("{id}: its last act"), || {
                    camera.seen.connections.load(Ordering::SeqCst) >= last
                });
                recorder.wait_for(&id, "recording");
            }
            Expected::Fault(state, _) | Expected::OneAttempt(state, _) => drop(recorder.wait_for(&id, state)),
        }
    }
    for ((id, _, script, _), camera) in zoo.iter().zip(&cameras) {
        if let Some((each, _)) = script[0].pauses {
            let is_past = || camera.seen.pictures.load(Ordering::SeqCst) > 3 * each;
            recorder.wait(&format!("{id}: the end of its pauses"), is_past);
        }
    }
    recorder.wait_for("zoo/refused-port", "unreachable");
    // Long enough for several chunks, and for sound that has stopped.
    std::thread::sleep(Duration::from_secs(6));
    let statuses: Vec<_> = zoo.iter().map(|(id, ..)| recorder.camera(&format!("zoo/{id}"))).collect();
    let (_, metrics) = recorder.get("/metrics").unwrap();
    let (_, status) = recorder.get("/status").unwrap();
    stop_within_a_chunk(&cameras);
    // What is on its way passes the jitter buffer.
    std::thread::sleep(Duration::from_secs(1));
    let (ended, log) = recorder.stop();
    assert!(ended.success(), "{ended:?}\n{log}");

    let mut faults = Vec::new();
    for (((id, _, _, expected), camera), status) in zoo.iter().zip(&cameras).zip(&statuses) {
        if let Err(fault) = judge(&server, id, *expected, camera, status) {
            faults.push(format!("{id}: {fault}"));
        }
    }
    assert!(faults.is_empty(), "{}\n{log}", faults.join("\n"));
    for text in [&log, &metrics, &status] {
        assert!(!text.contains("SECRET"), "{text}");
    }
}

#[test]
fn the_zoo_has_forty_cameras_of_which_nearly_all_can_be_recorded() {
    let zoo = zoo();
    let is_recorded = |expected: &Expected| matches!(expected, Expected::Recorded(..));
    let recorded = zoo.iter().filter(|(.., expected)| is_recorded(expected)).count();
    let ids: std::collections::BTreeSet<&str> = zoo.iter().map(|(id, ..)| *id).collect();
    assert!(
        ids.len() == zoo.len() && zoo.len() >= 60 && recorded >= 45,
        "{} {recorded}",
        zoo.len()
    );
}

#[test]
fn the_first_third_of_the_zoo_is_recorded_whole_or_says_why_not() {
    visit(0, 3);
}

#[test]
fn the_second_third_of_the_zoo_is_recorded_whole_or_says_why_not() {
    visit(1, 3);
}

#[test]
fn the_last_third_of_the_zoo_is_recorded_whole_or_says_why_not() {
    visit(2, 3);
}

/// Compares what a camera sent with what is in the bucket.
fn judge(server: &GcsServer, id: &str, expected: Expected, camera: &Camera, status: &serde_json::Value) -> Result<(), String> {
    let chunks = chunks(server, &format!("zoo/{id}"));
    let seen = &camera.seen;
    let most = seen.most_open.load(Ordering::SeqCst);
    if most > 1 {
        return Err(format!("{most} connections at once"));
    }
    match expected {
        Expected::Recorded(reasons, sound) => {
            let sent = seen.pictures.load(Ordering::SeqCst);
            let (pictures, packets) = assert_each_plays(&chunks);
            let found: Vec<&str> = sessions(&chunks).iter().map(|chunk| chunk.get("gap-reason")).collect();
            if found != reasons {
                return Err(format!("sessions {found:?}, not {reasons:?}"));
            }
            if pictures != sent {
                return Err(format!("{sent} pictures were sent and {pictures} are stored"));
            }
            if (packets > 0) != (sound != Sound::None) {
                return Err(format!("{packets} packets of sound"));
            }
            if sound == Sound::ToTheEnd
                && chunks
                    .last()
                    .is_some_and(|last| assert_each_plays(std::slice::from_ref(last)).1 == 0)
            {
                return Err("the sound has stopped".to_owned());
            }
            // Chunks are three seconds long, and it was recorded for longer; one camera sends no second key frame.
            if chunks.len() < 2 && id != "endless-gop" {
                return Err("its chunks are not cut".to_owned());
            }
            let follows = |pair: &[&common::Chunk]| pair[1].get("previous-session") == pair[0].get("session-id");
            match sessions(&chunks).windows(2).all(follows) {
                true => Ok(()),
                false => Err("a session does not name the one before".to_owned()),
            }
        }
        Expected::Fault(state, words) | Expected::OneAttempt(state, words) => {
            let reason = status["reason"].as_str().unwrap_or("");
            if status["state"] != state || !reason.contains(words) {
                return Err(format!("{status}"));
            }
            let tries = seen.connections.load(Ordering::SeqCst);
            if matches!(expected, Expected::OneAttempt(..)) && tries != 1 {
                return Err(format!("{tries} attempts"));
            }
            let logins = seen.logins.load(Ordering::SeqCst);
            if state == "refused" && logins > 1 {
                return Err(format!("the password was sent {logins} times"));
            }
            match chunks.len() {
                0 => Ok(()),
                n => Err(format!("{n} chunks")),
            }
        }
    }
}
