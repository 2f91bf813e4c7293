//! What a start costs with many sessions of earlier processes in the spool: until the line plays, until its own first chunk is
//! stored, and how long its end takes while they wait.
//!
//! `cargo bench --bench leftovers`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    reason = "a bench talks to its user and may fail loudly"
)]

mod common;
#[path = "../tests/common/leftovers.rs"]
mod leftovers;

use std::time::{Duration, Instant};

use common::server::Server;
use gst::prelude::*;

/// Chunks of each session.
const CHUNKS: u64 = 10;

/// What one start came to.
struct Start {
    playing: Duration,
    /// Its own first chunk is stored.
    stored: Duration,
    /// All that is there was counted: `chunks-pending` has reached its most.
    counted: Duration,
    end: Duration,
    resident_kb: u64,
}

fn main() {
    gst::init().unwrap();
    gstgcstreamer::plugin_register_static().unwrap();
    println!("\n## Start and end with leftovers of {CHUNKS} chunks a session, 20 requests a second\n");
    println!("| sessions | plays after | own chunk stored after | all counted after | end | resident memory grows by |");
    println!("|---:|---:|---:|---:|---:|---:|");
    for sessions in [0, 1000, 10_000] {
        let start = start(sessions);
        let s = |time: Duration| format!("{:.2} s", time.as_secs_f64());
        println!(
            "| {sessions} | {} | {} | {} | {} | {} kB |",
            s(start.playing),
            s(start.stored),
            s(start.counted),
            s(start.end),
            start.resident_kb
        );
    }
}

fn start(sessions: usize) -> Start {
    let server = Server::start();
    let folder = tempfile::tempdir().unwrap();
    leftovers::leave(folder.path(), &server.endpoint, "bucket", 0..sessions, CHUNKS);
    let line = format!(
        "videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=15/1 ! x264enc tune=zerolatency \
         speed-preset=ultrafast key-int-max=15 ! h264parse config-interval=-1 ! flvmux streamable=true ! gcssink name=sink bucket=bucket \
         device-id=own endpoint-uri={} spool-dir={} max-spool-bytes=4000000000 max-size-time=1000000000 max-requests-per-second=20",
        server.endpoint,
        folder.path().display()
    );
    let memory = common::status("VmRSS");
    let began = Instant::now();
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    let sink = pipeline.by_name("sink").unwrap();
    let bus = pipeline.bus().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    pipeline.state(gst::ClockTime::NONE).0.unwrap();
    let playing = began.elapsed();
    let (mut most, mut counted, mut stored) = (0, Duration::ZERO, None);
    // Two seconds longer than the first chunk takes: what counts the rest is at work meanwhile.
    let limit = Duration::from_secs(60);
    while stored.is_none_or(|at| began.elapsed() < at + Duration::from_secs(2)) {
        assert!(began.elapsed() < limit, "{sessions} sessions: nothing of its own is stored");
        let pending = sink.property::<gst::Structure>("stats").get::<u64>("chunks-pending").unwrap();
        if pending > most {
            (most, counted) = (pending, began.elapsed());
        }
        if let Some(message) = bus.timed_pop(gst::ClockTime::from_mseconds(2)) {
            let name = message.structure().and_then(|s| s.get::<String>("object").ok());
            if name.is_some_and(|name| name.starts_with("own/")) {
                stored.get_or_insert(began.elapsed());
            }
            if let gst::MessageView::Error(error) = message.view() {
                panic!("{error:?}");
            }
        }
    }
    let leaving = Instant::now();
    pipeline.set_state(gst::State::Null).unwrap();
    let end = leaving.elapsed();
    Start {
        playing,
        stored: stored.unwrap(),
        counted,
        end,
        resident_kb: common::status("VmRSS").saturating_sub(memory),
    }
}
