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
    let news = "another sink of this flow-group has set its limits: now 7 MB/s and 10 requests/s (0 = none)";
    let reported = |m: &gst::MessageRef| matches!(m.view(), gst::MessageView::Info(i) if i.error().to_string().contains(news));
    let (_, words) = first.wait_for(Duration::from_secs(5), reported);
    assert!(words.iter().any(|(_, text)| text.contains(news)), "{words:?}");
    // The first one starts again with its old value, and a third one with a value that was set before: the last one set counts.
    let third = Line::new(idle, &server, "max-bytes-per-second=6000000 flow-group=shared");
    second.sink.set_property("max-bytes-per-second", 8_000_000u64);
    first.stop();
    [&first, &third].into_iter().for_each(Line::play);
    assert_eq!(rate(&second), 8_000_000);
}

#[test]
fn retry_after_is_obeyed() {
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

/// A server whose first answer asks to wait for an hour, and a line that has got it.
fn held_for_an_hour(properties: &str) -> (GcsServer, Line) {
    let server = GcsServer::spawn_thread();
    server.push_fault(Fault::retry_after(429, "3600"));
    let camera = h264(60).replace("videotestsrc", "videotestsrc is-live=true") + " ! flvmux streamable=true";
    let line = Line::new(
        &camera,
        &server,
        &format!("max-size-time=1000000000 max-uploads=1 {properties}"),
    );
    line.play();
    let reported = |m: &gst::MessageRef| matches!(m.view(), gst::MessageView::Warning(w) if w.error().to_string().contains("it asks to wait 60 minutes"));
    line.wait_for(Duration::from_secs(30), reported);
    (server, line)
}

#[test]
fn an_hours_retry_after_holds_its_bucket_and_endpoint_and_no_other_sink_of_the_group() {
    let (server, held) = held_for_an_hour("bucket=busy flow-group=one-is-held");
    let elsewhere = GcsServer::spawn_thread();
    for (server, bucket) in [(&server, "free"), (&elsewhere, "busy")] {
        let properties = format!("bucket={bucket} flow-group=one-is-held max-size-time=1000000000 drain-timeout=10000000000");
        let line = Line::new(NOISE, server, &properties);
        line.play();
        let (end, words) = line.wait();
        assert_eq!(end, End::Eos, "{bucket}: {words:?}");
        assert!(!words.iter().any(|(kind, _)| *kind == "warning"), "{bucket}: {words:?}");
        assert_eq!(line.stat("chunks-uploaded"), 5, "{bucket}");
    }
    let to_the_held = |r: &&common::gcs_server::Request| r.path.contains("/b/busy/");
    assert_eq!(
        server.uploads().iter().filter(to_the_held).count(),
        1,
        "{:?}",
        server.uploads()
    );
    assert_eq!(elsewhere.uploads().iter().filter(to_the_held).count(), 5);
    assert_eq!((held.stat("chunks-uploaded"), held.stat("retries")), (0, 1));
}

#[test]
fn an_hours_retry_after_does_not_outlast_an_eos_or_a_stop() {
    let (server, line) = held_for_an_hour("drain-timeout=6000000000");
    line.pipeline.send_event(gst::event::Eos::new());
    let began = Instant::now();
    let (end, words) = line.wait();
    assert_eq!(end, End::Eos, "{words:?}");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    assert!(joined(&chunks(&server)) == line.input());

    let (_server, line) = held_for_an_hour("");
    line.stop();
    assert_eq!(line.stat("chunks-dropped"), 0);
    assert_eq!(line.stat("chunks-uploaded"), line.stat("chunks-created"));
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
    let reported_within = |seconds: u64, what: &str| {
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
    assert!(reported_within(30, "uploads fail"));
    assert!(!reported_within(5, "uploads fail"), "told twice");
    let server = GcsServer::spawn_thread_with(common::gcs_server::Options {
        port,
        ..Default::default()
    });
    // Each sink's next attempt is at most 30 s away.
    assert!(reported_within(60, "uploads work again"));
    assert!(!reported_within(5, "uploads work again"), "told twice");
    assert!(server.objects().len() >= 12);
    pipeline.set_state(gst::State::Null).unwrap();
}
