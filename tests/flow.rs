//! The limits of the original, as a server sees them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::{Duration, Instant};

use common::gcs_server::{Fault, GcsServer};
use common::*;
use gst::prelude::*;

/// About 3 MB of FLV in chunks of a second.
const NOISE: &str = "videotestsrc num-buffers=75 pattern=snow ! video/x-raw,width=320,height=240,framerate=15/1 ! \
    x264enc speed-preset=ultrafast bitrate=5000 key-int-max=15 ! h264parse ! flvmux streamable=true";

#[test]
fn bytes_leave_at_the_rate_and_all_arrive() {
    let server = GcsServer::spawn_thread();
    let line = Line::new(
        NOISE,
        &server,
        "max-size-time=1000000000 max-bytes-per-second=1000000 flow-group=rate",
    );
    line.play();
    let began = Instant::now();
    assert_eq!(line.wait().0, End::Eos);
    let (took, bytes) = (began.elapsed().as_secs_f64(), line.stat("bytes-uploaded") as f64);
    assert!(joined(&chunks(&server)) == line.input());
    // Never faster than the limit and two pieces of a tenth of a second; how much slower is the machine's business.
    assert!(bytes / 1e6 <= took + 0.2, "{bytes} bytes in {took} s");
    assert!(line.stat("throttled-ns") > 100_000_000);
}

#[test]
fn requests_are_spaced_by_the_rate() {
    let server = GcsServer::spawn_thread();
    let line = Line::new(
        NOISE,
        &server,
        "max-size-time=1000000000 max-requests-per-second=4 flow-group=requests",
    );
    line.play();
    assert_eq!(line.wait().0, End::Eos);
    let times: Vec<Instant> = server.uploads().iter().map(|r| r.at).collect();
    assert_eq!(times.len(), 5);
    for (i, from) in times.iter().enumerate() {
        let within = times[i..]
            .iter()
            .filter(|t| t.duration_since(*from) < Duration::from_millis(900))
            .count();
        assert!(within <= 5, "{within} requests within a second");
    }
    assert!(times[4].duration_since(times[0]) >= Duration::from_millis(700), "{times:?}");
}

#[test]
fn the_last_value_that_a_user_set_counts_for_the_whole_group() {
    let server = GcsServer::spawn_thread();
    let idle = "fakesrc is-live=true do-timestamp=true sizetype=fixed sizemax=10";
    let first = Line::new(idle, &server, "max-bytes-per-second=5000000 flow-group=shared");
    let second = Line::new(idle, &server, "flow-group=shared");
    let other = Line::new(idle, &server, "flow-group=\"\"");
    [&first, &second, &other].into_iter().for_each(Line::play);
    let rate = |line: &Line| line.sink.property::<u64>("max-bytes-per-second");
    assert_eq!(
        (rate(&first), rate(&second), rate(&other)),
        (5_000_000, 5_000_000, 20_000_000)
    );
    second.sink.set_property("max-bytes-per-second", 7_000_000u64);
    assert_eq!((rate(&first), rate(&other)), (7_000_000, 20_000_000));
    let told = |m: &gst::MessageRef| matches!(m.view(), gst::MessageView::Info(i) if i.error().to_string().contains("7000000"));
    first.wait_for(Duration::from_secs(5), told);
}

#[test]
fn retry_after_is_obeyed_by_the_group() {
    let server = GcsServer::spawn_thread();
    server.push_fault(Fault::retry_after(429, "2"));
    let line = Line::new(NOISE, &server, "flow-group=retry-after");
    line.play();
    assert_eq!(line.wait().0, End::Eos);
    let times: Vec<Instant> = server.uploads().iter().map(|r| r.at).collect();
    assert_eq!(times.len(), 2);
    assert!(times[1].duration_since(times[0]) >= Duration::from_millis(1900), "{times:?}");
    assert_eq!(line.stat("retries"), 1);
}
