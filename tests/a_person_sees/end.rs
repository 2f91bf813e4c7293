//! The end of a line: what is left while an EOS drains, and what a stop has lost.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gst::prelude::*;

use super::common::gcs_server::{Fault, GcsServer};
use super::common::*;
use super::process::launch;
use super::{camera, flv, glib_log, interrupt, said, sink, wait_for_uploads};

#[test]
fn a_person_sees_how_much_is_left_while_an_eos_drains_and_then_the_end() {
    let server = GcsServer::spawn_thread();
    (0..50).for_each(|_| {
        server.push_fault(Fault::SlowDrain {
            bytes_per_second: 100_000,
        })
    });
    let line = format!("{} ! {}", flv(4), sink("drain", &server, "max-uploads=1"));
    let output = launch(&line, &[]).wait_with_output().unwrap();
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    assert_eq!(chunks(&server).len(), 4);
    let reported: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("Progress: (gcssink-drain) "))
        .collect();
    assert!(reported.len() >= 3, "{text}");
    assert!(
        reported[0].ends_with(" to be stored") && reported[0].contains(" chunks of ") && reported[0].contains("kB"),
        "{text}"
    );
    assert!(reported[1].ends_with(" left to be stored"), "{text}");
    assert_eq!(reported.last(), Some(&"all chunks are stored"), "{text}");
    let seconds = text.matches(" left to be stored").count();
    let took: f64 = text
        .split("Execution ended after 0:00:")
        .nth(1)
        .and_then(|rest| rest.lines().next()?.parse().ok())
        .unwrap();
    assert!(seconds as f64 <= took, "at most once a second: {text}");
    assert!(
        text.find("all chunks are stored") < text.find("Got EOS from element"),
        "{text}"
    );
}

#[test]
fn an_eos_that_drains_in_vain_is_reported_as_cancelled_before_the_error() {
    let server = GcsServer::spawn_thread();
    (0..50).for_each(|_| server.push_fault(Fault::StallBefore));
    let line = format!("{} ! {}", flv(3), sink("vain", &server, "drain-timeout=1500000000"));
    let output = launch(&line, &[]).wait_with_output().unwrap();
    let text = said(&output);
    assert!(!output.status.success(), "{text}");
    let reported: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("Progress: (gcssink-drain) "))
        .collect();
    assert!(
        reported[0].starts_with("3 chunks of ") && reported.last().unwrap().ends_with(" are not stored"),
        "{text}"
    );
    assert!(
        text.contains("not stored within the drain-timeout of 1.5 s and lost: 3 chunks of "),
        "{text}"
    );
    assert!(!text.contains("GStreamer-gcstreamer"), "once is enough: {text}");
}

#[test]
fn what_ctrl_c_without_e_loses_is_reported_on_the_terminal_and_the_status_stays_0() {
    let server = GcsServer::spawn_thread();
    (0..200).for_each(|_| server.push_fault(Fault::status(503)));
    let line = format!("{} ! {}", camera(), sink("ctrl-c", &server, "shutdown-timeout=300000000"));
    let child = launch(&line, &[]);
    wait_for_uploads(&server, 1);
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    let lost = "not stored within the shutdown-timeout of 300 ms and lost: ";
    assert_eq!(text.matches(lost).count(), 1, "{text}");
    let reported = text.lines().find(|line| line.contains(lost)).unwrap();
    assert!(
        reported.contains("GStreamer-gcstreamer-WARNING") && reported.contains("gcssink0"),
        "{reported}"
    );
    assert!(
        reported.contains(" chunk") && reported.contains("kB") && reported.contains("503") && reported.contains("-e"),
        "{reported}"
    );
}

#[test]
fn ctrl_c_that_loses_nothing_says_nothing_of_a_loss() {
    let server = GcsServer::spawn_thread();
    let child = launch(&format!("{} ! {}", camera(), sink("kept", &server, "")), &[]);
    wait_for_uploads(&server, 1);
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let text = said(&output);
    assert!(
        output.status.success() && !text.contains("GStreamer-gcstreamer") && !text.contains("lost"),
        "{text}"
    );
}

#[test]
fn ctrl_c_with_a_spool_says_where_the_rest_waits() {
    let server = GcsServer::spawn_thread();
    (0..200).for_each(|_| server.push_fault(Fault::status(503)));
    let folder = tempfile::tempdir().unwrap();
    let spool = format!(
        "shutdown-timeout=300000000 max-spool-bytes=1000000000 spool-dir={}",
        folder.path().display()
    );
    let child = launch(&format!("{} ! {}", camera(), sink("spooled", &server, &spool)), &[]);
    wait_for_uploads(&server, 1);
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    let reported = text
        .lines()
        .find(|line| line.contains("GStreamer-gcstreamer-WARNING"))
        .unwrap_or_default();
    assert!(
        reported.contains("which wait in spool-dir") && !reported.contains("lost"),
        "{text}"
    );
}

#[test]
fn ctrl_c_of_a_line_whose_mp4_cannot_be_cut_says_so_on_the_terminal() {
    let server = GcsServer::spawn_thread();
    let line = "videotestsrc is-live=true num-buffers=1000 ! video/x-raw,width=320,height=240,framerate=15/1 ! x264enc tune=zerolatency \
                ! h264parse ! mp4mux ! ";
    let log = tempfile::NamedTempFile::new().unwrap();
    let to_log = [("GST_DEBUG", "gcssink:6"), ("GST_DEBUG_FILE", log.path().to_str().unwrap())];
    let child = launch(&format!("{line}{}", sink("mp4", &server, "")), &to_log);
    let until = Instant::now() + Duration::from_secs(60);
    while !std::fs::read_to_string(log.path()).unwrap().contains("a buffer of ") {
        assert!(Instant::now() < until, "no byte has come");
        std::thread::sleep(Duration::from_millis(20));
    }
    interrupt(&child);
    let text = said(&child.wait_with_output().unwrap());
    let reported = text
        .lines()
        .find(|line| line.contains("GStreamer-gcstreamer-WARNING"))
        .unwrap_or_default();
    assert!(
        reported.contains("the MP4 is not fragmented") && reported.contains("fragment-duration=1000"),
        "{text}"
    );
}

#[test]
fn a_stop_before_any_key_unit_says_that_nothing_was_stored() {
    let server = GcsServer::spawn_thread();
    let log = glib_log();
    let front = "videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=15/1 ! x264enc tune=zerolatency key-int-max=15 \
                 ! h264parse ! identity name=late ! flvmux streamable=true";
    let line = Line::new(front, &server, "");
    let late = line.pipeline.by_name("late").unwrap().static_pad("src").unwrap();
    late.add_probe(gst::PadProbeType::BUFFER, |_, info| match &info.data {
        Some(gst::PadProbeData::Buffer(buffer)) if !buffer.flags().contains(gst::BufferFlags::DELTA_UNIT) => {
            gst::PadProbeReturn::Drop
        }
        _ => gst::PadProbeReturn::Ok,
    });
    line.play();
    let until = Instant::now() + Duration::from_secs(60);
    while line.stat("bytes-received") < 2000 {
        assert!(Instant::now() < until, "nothing comes");
        std::thread::sleep(Duration::from_millis(20));
    }
    line.stop();
    let reported = log.lock().unwrap().clone();
    assert!(
        matches!(&reported[..], [text] if text.contains("nothing was stored: ") && text.contains("key frame interval")),
        "{reported:?}"
    );
}

#[test]
fn each_status_is_notified_once_to_the_last() {
    let server = GcsServer::spawn_thread();
    let line = Line::new(&flv(3), &server, "max-size-time=1000000000");
    let reported = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&reported);
    line.sink.connect_notify(Some("status"), move |sink, _| {
        let status = sink.property_value("status").serialize().unwrap().to_string();
        into.lock().unwrap().push(status);
    });
    for _ in 0..2 {
        line.play();
        assert_eq!(line.wait().0, End::Eos);
        line.stop();
        let reported = std::mem::take(&mut *reported.lock().unwrap());
        let mut once = reported.clone();
        once.dedup();
        assert_eq!(reported, once);
        assert_eq!(reported.first().map(String::as_str), Some("starting"));
        assert_eq!(reported.last().map(String::as_str), Some("stopped"));
    }
}
