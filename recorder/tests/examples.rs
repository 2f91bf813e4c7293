//! The files of `examples/recorder`: each passes `check`, and those of one camera record.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "zoo/camera.rs"]
mod camera;
mod common;
#[path = "zoo/media.rs"]
mod media;
#[path = "zoo/repack.rs"]
mod repack;

use std::path::PathBuf;
use std::process::Command;

use camera::{Act, Camera};
use common::gcs_server::GcsServer;
use common::{Recorder, chunks, program};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples/recorder")
}

fn h264() -> Camera {
    Camera::start(vec![Act {
        sends: vec!["h264"],
        ..Act::default()
    }])
}

/// The example with the folders and addresses of this test.
fn adapted(name: &str, camera: &Camera, spool: &str) -> String {
    let text = std::fs::read_to_string(folder().join(name)).unwrap();
    let mut adapted = text.clone();
    for (from, to) in [
        ("rtsp://10.0.3.3/stream", camera.url().as_str()),
        ("/var/lib/gcstreamer", spool),
    ] {
        assert!(adapted.contains(from), "{name} has no {from}");
        adapted = adapted.replace(from, to);
    }
    adapted
}

#[test]
fn every_example_passes_check() {
    let there = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let mut files = 0;
    for entry in std::fs::read_dir(folder()).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        files += 1;
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        // What the file names is beside it.
        for word in text
            .split('"')
            .filter(|word| [".pw", ".pem"].iter().any(|end| word.ends_with(end)))
        {
            let beside = there.path().join(word);
            if word.ends_with(".pem") {
                let key = ["ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out"];
                let made = Command::new("openssl").args(key).arg(&beside).status();
                assert!(made.unwrap().success());
            } else {
                std::fs::write(beside, "hunter2\n").unwrap();
            }
        }
        let file = there.path().join(name);
        std::fs::write(&file, text.replace("/var/lib/gcstreamer", there.path().to_str().unwrap())).unwrap();
        let out = program().arg("check").arg(&file).output().unwrap();
        assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
    }
    assert!(files >= 4);
}

#[test]
fn the_example_of_one_camera_records() {
    let (server, camera) = (GcsServer::spawn_thread(), h264());
    let there = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let spool = there.path().join("spool");
    let text = adapted("one-camera.toml", &camera, spool.to_str().unwrap());
    let text = text.replace("bucket = \"my-bucket\"\n", "max-spool-bytes = 1000000000\n");
    let recorder = Recorder::start_in(there, &server, &text);
    recorder.wait_for("store42/cam3", "recording");
    let (ended, log) = recorder.stop();
    assert!(ended.success(), "{log}");
    assert!(!chunks(&server, "store42/cam3").is_empty());
}

#[test]
fn the_example_of_the_environment_records() {
    let (server, camera) = (GcsServer::spawn_thread(), h264());
    let there = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let spool = there.path().join("spool");
    let text = adapted("environment.env", &camera, spool.to_str().unwrap());
    let mut variables: Vec<(String, String)> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    variables.push(("ENDPOINT_URI".to_owned(), server.endpoint()));
    variables
        .iter_mut()
        .filter(|(name, _)| name == "BUCKET")
        .for_each(|(_, value)| *value = common::BUCKET.to_owned());
    let recorder = Recorder::start_by_environment(there, &variables);
    recorder.wait_for("store42/cam3", "recording");
    let (ended, log) = recorder.stop();
    assert!(ended.success(), "{log}");
    assert!(!chunks(&server, "store42/cam3").is_empty());
}
