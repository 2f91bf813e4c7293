//! One sink after the other for the same device: the next one runs while the chunks of the last are on their way, and the bucket
//! says why it began and after which session.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::time::{Duration, Instant};

use common::gcs_server::{Fault, GcsServer};
use common::*;
use gst::prelude::*;

fn flv(seconds: u32) -> String {
    format!("{} ! flvmux streamable=true", h264(seconds))
}

/// Waits until the element says so, within a test's patience.
fn wait_until(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < until, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn status(line: &Line) -> String {
    let value = line.sink.property_value("status");
    let (_, value) = gst::glib::EnumValue::from_value(&value).unwrap();
    value.nick().to_owned()
}

#[test]
fn after_its_eos_a_sink_uploads_on_while_the_next_one_records_the_same_device() {
    let server = GcsServer::spawn_thread();
    server.push_fault(Fault::StallBefore);
    let first = Line::new(
        &flv(3),
        &server,
        "device-id=successor request-timeout=2000000000 drain-timeout=60000000000",
    );
    first.play();
    wait_until("the drain of the first", || status(&first) == "draining");
    assert!(first.stat("chunks-pending") > 0);
    let id: String = first.sink.property("session-id");
    let second = Line::new(
        &flv(3),
        &server,
        &format!("device-id=successor start-reason=camera-frozen previous-session={id}"),
    );
    second.play();
    let (end, words) = second.wait();
    assert_eq!(end, End::Eos, "{words:?}");
    let (end, words) = first.wait();
    assert_eq!(end, End::Eos, "{words:?}");
    second.stop();
    first.stop();
    let chunks = chunks(&server);
    assert_eq!(assert_each_plays(&chunks), 90);
    let of = |session: &str| chunks.iter().filter(|c| c.get("session-id") == session).count();
    assert_eq!((of(&id), chunks.len()), (1, 2), "{chunks:?}");
}

#[test]
fn a_device_is_free_again_while_its_sink_leaves_paused() {
    let server = GcsServer::spawn_thread();
    (0..20).for_each(|_| server.push_fault(Fault::StallBefore));
    let first = Line::new(
        &flv(3),
        &server,
        "device-id=leaving shutdown-timeout=3000000000 drain-timeout=60000000000",
    );
    first.play();
    wait_until("the drain of the first", || status(&first) == "draining");
    let pipeline = first.pipeline.clone();
    let stop = std::thread::spawn(move || pipeline.set_state(gst::State::Null));
    let second = Line::new(&flv(1), &server, "device-id=leaving");
    assert!(second.pipeline.set_state(gst::State::Paused).is_ok());
    assert!(second.pipeline.state(gst::ClockTime::from_seconds(20)).0.is_ok());
    second.stop();
    stop.join().unwrap().unwrap();
}

#[test]
fn after_a_flush_a_sink_takes_data_again_unless_another_has_its_device_now() {
    let server = GcsServer::spawn_thread();
    let first = Line::new(&flv(1), &server, "device-id=flushed");
    first.play();
    assert_eq!(first.wait().0, End::Eos);
    let second = Line::new(&flv(60), &server, "device-id=flushed");
    second.pipeline.set_state(gst::State::Paused).unwrap();
    assert!(second.pipeline.state(gst::ClockTime::from_seconds(20)).0.is_ok());
    let pad = first.sink.static_pad("sink").unwrap();
    assert!(pad.send_event(gst::event::FlushStart::new()));
    assert!(!pad.send_event(gst::event::FlushStop::new(true)));
    let (end, _) = first.wait();
    assert!(
        matches!(&end, End::Error(text) if text.contains("another gcssink")),
        "{end:?}"
    );
}

#[test]
fn a_flush_while_an_eos_drains_says_nothing_of_an_end() {
    let server = GcsServer::spawn_thread();
    (0..20).for_each(|_| server.push_fault(Fault::StallBefore));
    let line = Line::new(&flv(1), &server, "device-id=flushed-while-draining drain-timeout=60000000000");
    line.play();
    wait_until("the drain", || status(&line) == "draining");
    let pad = line.sink.static_pad("sink").unwrap();
    assert!(pad.send_event(gst::event::FlushStart::new()));
    pad.send_event(gst::event::FlushStop::new(true));
    let bus = line.pipeline.bus().unwrap();
    let end = bus.timed_pop_filtered(gst::ClockTime::from_seconds(1), &[gst::MessageType::Eos]);
    assert!(
        end.is_none() && line.stat("chunks-pending") > 0,
        "an application would stop here, and the chunk be lost"
    );
    line.stop();
}

#[test]
fn the_first_chunk_says_why_the_recording_began_and_after_which_session_and_no_other_does() {
    let settings = "max-size-time=1000000000 start-reason=camera-unreachable previous-session=0a1b2c3d4e";
    let (stored, ..) = record(&flv(4), settings);
    assert!(stored.len() >= 3);
    assert_eq!(stored[0].get("gap-reason"), "camera-unreachable");
    assert_eq!(stored[0].get("continuous"), "false");
    assert_eq!(stored[0].get("previous-session"), "0a1b2c3d4e");
    for chunk in &stored[1..] {
        assert_eq!(
            (chunk.get("gap-reason"), chunk.get("previous-session")),
            ("", ""),
            "{}",
            chunk.name
        );
    }
    let (plain, ..) = record(&flv(1), "");
    assert_eq!((plain[0].get("gap-reason"), plain[0].get("previous-session")), ("start", ""));
}

#[test]
fn a_start_reason_or_a_session_that_cannot_be_metadata_is_refused() {
    for (setting, expected) in [
        ("start-reason=\"Camera frozen\"", "start-reason must be"),
        ("previous-session=yesterday", "previous-session must be"),
    ] {
        let (error, stored) = fail(&flv(1), setting);
        assert!(error.contains(expected) && stored == 0, "{error}");
    }
}
