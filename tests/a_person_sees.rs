//! What a person sees of the elements: at a terminal, from `gst-launch-1.0` without `-m`, and on the bus of an application.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "a_person_sees/end.rs"]
mod end;
#[path = "a_person_sees/life.rs"]
mod life;
#[path = "common/process.rs"]
mod process;
#[path = "a_person_sees/settings.rs"]
mod settings;
#[path = "a_person_sees/start.rs"]
mod start;

use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::gcs_server::GcsServer;
use common::*;
use gst::glib;

const SECOND: u64 = 1_000_000_000;

fn flv(seconds: u32) -> String {
    format!("{} ! flvmux streamable=true", h264(seconds))
}

/// What a line has printed, whichever stream it went to.
fn said(output: &std::process::Output) -> String {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    text(&output.stdout) + &text(&output.stderr)
}

/// A camera that never ends: a key frame every second.
fn camera() -> String {
    "videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=15/1 ! x264enc speed-preset=ultrafast key-int-max=15 \
     ! h264parse config-interval=-1 ! flvmux streamable=true"
        .to_owned()
}

/// A line into that server, in chunks of a second.
fn sink(device: &str, server: &GcsServer, properties: &str) -> String {
    format!(
        "gcssink bucket={BUCKET} device-id={device} max-size-time=1000000000 endpoint-uri={} {properties}",
        server.endpoint()
    )
}

fn interrupt(child: &Child) {
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Waits until the server has received this many upload requests.
fn wait_for_uploads(server: &GcsServer, count: usize) {
    let until = Instant::now() + Duration::from_secs(60);
    while server.uploads().len() < count {
        assert!(Instant::now() < until, "{} uploads", server.uploads().len());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The warnings that go to GLib's log in our domain from here on.
fn glib_log() -> Arc<Mutex<Vec<String>>> {
    let reported = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&reported);
    glib::log_set_handler(
        Some("GStreamer-gcstreamer"),
        glib::LogLevels::LEVEL_WARNING,
        false,
        false,
        move |_, _, text| into.lock().unwrap().push(text.to_owned()),
    );
    reported
}
