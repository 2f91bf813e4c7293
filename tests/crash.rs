//! A recording process is killed at any moment, and nothing is lost that it had taken more than a second before.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/process.rs"]
mod process;

use std::time::{Duration, Instant};

use common::gcs_server::GcsServer;
use common::*;
use process::launch;

/// Moments at which the process is killed; `GCSTREAMER_KILLS=50` is what a release is tried with.
fn kills() -> u64 {
    std::env::var("GCSTREAMER_KILLS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(4)
}

/// xorshift64*, so that a failure can be seen again.
fn chance(seed: u64) -> u64 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    x.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// A camera whose muxed bytes go to a file as well, from the same buffers.
fn line(muxer: &str, copy: &str, sink: &str) -> String {
    format!(
        "videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=25/1 \
         ! x264enc tune=zerolatency speed-preset=ultrafast bitrate=1500 key-int-max=25 ! h264parse config-interval=-1 ! {muxer} \
         ! tee name=t ! queue ! filesink location={copy} buffer-mode=unbuffered t. ! queue ! {sink}"
    )
}

fn one_kill(seed: u64, muxer: &str) {
    let server = GcsServer::spawn_thread();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let copy = folder.path().join("copy");
    let spool = folder.path().join("spool");
    let properties = format!(
        "bucket={BUCKET} device-id=crash endpoint-uri={} spool-dir={} max-spool-bytes=1000000000 max-size-time=1000000000 max-bytes-per-second=400000",
        server.endpoint(),
        spool.display()
    );
    let mut child = launch(
        &line(muxer, &copy.display().to_string(), &format!("gcssink {properties}")),
        &[],
    );
    // Some are killed while chunks wait behind the rate limit, some while the first is open.
    let lives = Duration::from_millis(1500 + chance(seed) % 3500);
    let mut sizes = Vec::new();
    let size = || std::fs::metadata(&copy).map_or(0, |m| m.len());
    let mut began = None;
    while began.is_none_or(|b: Instant| b.elapsed() < lives) {
        let n = size();
        if n > 0 {
            began.get_or_insert_with(Instant::now);
        }
        sizes.push((Instant::now(), n));
        std::thread::sleep(Duration::from_millis(10));
    }
    let killed = Instant::now();
    child.kill().unwrap();
    child.wait().unwrap();
    let safe = sizes
        .iter()
        .rev()
        .find(|(at, _)| killed.duration_since(*at) >= Duration::from_millis(1050))
        .map_or(0, |(_, n)| *n);

    let front = "videotestsrc num-buffers=10 ! x264enc ! h264parse ! flvmux streamable=true";
    let finder = Line::new(front, &server, &format!("spool-dir={} device-id=finder", spool.display()));
    finder.play();
    let (end, words) = finder.wait();
    assert_eq!(end, End::Eos, "seed {seed}: {words:?}");
    finder.stop();

    let chunks: Vec<Chunk> = chunks(&server)
        .into_iter()
        .filter(|c| c.get("device-id") == "crash")
        .collect();
    let sequences: Vec<u64> = chunks.iter().map(|c| c.number("sequence")).collect();
    let expected: Vec<u64> = (0..chunks.len() as u64).collect();
    assert_eq!(sequences, expected, "seed {seed}: each once, none missing");
    let stored = if chunks.is_empty() { Vec::new() } else { joined(&chunks) };
    let input = std::fs::read(&copy).unwrap();
    assert!(input.starts_with(&stored), "seed {seed}: what is stored is what came in");
    // The frame that was half there at that moment is not whole, and so not stored.
    let frame = 40_000;
    assert!(
        stored.len() as u64 + frame >= safe,
        "seed {seed}: {} bytes of {safe} that were a second old are stored",
        stored.len()
    );
    assert_each_plays(&chunks);
    let left = std::fs::read_dir(&spool).unwrap().count();
    assert_eq!(left, 0, "seed {seed}");
}

#[test]
fn a_killed_process_loses_nothing_older_than_a_second() {
    for seed in 1..=kills() {
        let muxer = [
            "flvmux streamable=true",
            "mpegtsmux",
            "mp4mux fragment-duration=200 streamable=true",
            "matroskamux streamable=true",
        ];
        one_kill(seed, muxer[usize::try_from(seed % 4).unwrap()]);
    }
}
