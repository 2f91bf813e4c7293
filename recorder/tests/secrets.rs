//! Tests that no output of the recorder contains a password or the path of an address, after an accepted and after a refused
//! login.
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

use std::sync::atomic::Ordering;
use std::time::Duration;

use camera::{Act, Camera, Login};
use common::gcs_server::GcsServer;
use common::{Recorder, chunks, program};
use mosquitto::Mosquitto;

fn wants_digest() -> Camera {
    Camera::start(vec![Act {
        sends: vec!["h264"],
        wants: Some(("rec", "right-SECRET")),
        login: Login::Digest,
        ..Act::default()
    }])
}

#[test]
fn no_output_holds_a_secret_after_a_login_that_was_accepted_and_one_that_was_refused() {
    let (server, broker) = (GcsServer::spawn_thread(), Mosquitto::start());
    let watcher = broker.watch(&["#"], None);
    let (good, bad) = (wants_digest(), wants_digest());
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for (name, password) in [("good.pw", "right-SECRET"), ("bad.pw", "wrong-SECRET")] {
        std::fs::write(folder.path().join(name), password).unwrap();
    }
    let entry = |id: &str, camera: &Camera, file: &str| {
        format!(
            "[[camera]]\nid = \"{id}\"\nurl = \"{}/PATH-SECRET?key=QUERY-SECRET\"\nusername = \"rec\"\npassword-file = \"{file}\"\nmax-size-time = \"1s\"\n",
            camera.url()
        )
    };
    let configuration = format!(
        "[mqtt]\nhost = \"127.0.0.1\"\nport = {}\nhome-assistant-prefix = \"ha\"\n{}{}",
        broker.port(),
        entry("good", &good, "good.pw"),
        entry("bad", &bad, "bad.pw")
    );
    // GStreamer's own warnings are part of the log.
    let recorder = Recorder::start_with(folder, &server, &configuration, &[("GST_DEBUG", "2")]);
    recorder.wait_for("good", "recording");
    recorder.wait_for("bad", "refused");
    recorder.wait("a chunk", || !chunks(&server, "good").is_empty());
    watcher.wait_last("gcstreamer/bad/state", "disconnected", Duration::from_secs(30));
    assert!(good.seen.logins.load(Ordering::SeqCst) > 0 && bad.seen.logins.load(Ordering::SeqCst) > 0);

    let mut outputs = vec![("process list", recorder.command_line())];
    for path in ["/status", "/metrics", "/healthz", "/readyz"] {
        outputs.push((path, recorder.get(path).unwrap().1));
    }
    // A reload with faults in the configuration logs them.
    recorder.reload(
        &server,
        &configuration
            .replace("[[camera]]", "[[camera]]\npassword = \"INLINE-SECRET\"")
            .replace("rtsp://", "rtsp://u:URL-SECRET@"),
    );
    recorder.wait("the complaint", || {
        recorder.log().contains("the new configuration is not used")
    });
    let (ended, log) = recorder.stop();
    assert!(ended.success(), "{log}");
    outputs.push(("log", log));
    outputs.push(("broker", format!("{:?}", watcher.seen())));
    outputs.push((
        "objects",
        format!(
            "{:?}",
            chunks(&server, "good")
                .iter()
                .map(|chunk| (&chunk.name, &chunk.metadata))
                .collect::<Vec<_>>()
        ),
    ));
    for url in [good.url(), format!("{}/PATH-SECRET", bad.url())] {
        let out = program().args(["probe", &url, "--seconds", "2"]).output().unwrap();
        outputs.push((
            "probe",
            format!(
                "{}{}",
                String::from_utf8_lossy(&out.stdout),
                String::from_utf8_lossy(&out.stderr)
            ),
        ));
    }
    for (name, text) in outputs {
        assert!(!text.is_empty() && !text.contains("SECRET"), "{name}: {text}");
    }
}
