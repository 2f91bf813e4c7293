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
        &NOISE.replace("key-int-max=15", "key-int-max=5"),
        &server,
        "max-size-time=300000000 max-requests-per-second=4 flow-group=requests",
    );
    line.play();
    assert_eq!(line.wait().0, End::Eos);
    let times: Vec<Instant> = server.uploads().iter().map(|r| r.at).collect();
    assert_eq!(times.len(), 15);
    // 14 spaces of 250 ms, of which the first is free. When a busy machine lets the first ones wait for their connection, they
    // come in together; all of them never do.
    for (i, from) in times.iter().enumerate() {
        let within = times[i..]
            .iter()
            .filter(|t| t.duration_since(*from) < Duration::from_millis(900));
        assert!(within.count() <= 8, "{times:?}");
    }
    assert!(times[14].duration_since(times[0]) >= Duration::from_millis(2500), "{times:?}");
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

#[test]
fn the_sinks_of_a_group_tell_of_an_outage_once_and_of_its_end_once() {
    init();
    let port = GcsServer::spawn_thread().address().port();
    let branch = |i: usize| {
        format!(
            "fakesrc is-live=true do-timestamp=true filltype=zero sizetype=fixed sizemax=20000 datarate=100000 ! \
             gcssink bucket={BUCKET} device-id=together{i} flow-group=together max-size-time=1000000000 max-uploads=1 \
             max-requests-per-second=0 endpoint-uri=http://127.0.0.1:{port}"
        )
    };
    let line: Vec<String> = (0..12).map(branch).collect();
    let pipeline = gst::parse::launch(&line.join(" ")).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let bus = pipeline.bus().unwrap();
    let told_within = |seconds: u64, what: &str| {
        let until = Instant::now() + Duration::from_secs(seconds);
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            let left = gst::ClockTime::from_mseconds(u64::try_from(left.as_millis()).unwrap());
            let text = match bus.timed_pop(left).as_deref().map(gst::MessageRef::view) {
                Some(gst::MessageView::Warning(w)) => w.error().to_string(),
                Some(gst::MessageView::Info(i)) => i.error().to_string(),
                _ => continue,
            };
            if text.contains(what) {
                return true;
            }
        }
        false
    };
    assert!(told_within(30, "uploads fail"));
    assert!(!told_within(5, "uploads fail"), "told twice");
    let server = GcsServer::spawn_thread_with(common::gcs_server::Options {
        port,
        ..Default::default()
    });
    // Each sink's next attempt is at most 30 s away.
    assert!(told_within(60, "uploads work again"));
    assert!(!told_within(5, "uploads work again"), "told twice");
    assert!(server.objects().len() >= 12);
    pipeline.set_state(gst::State::Null).unwrap();
}
