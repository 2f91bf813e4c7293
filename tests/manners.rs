//! The element behaves in pipelines as a sink should: states, pauses, ends, messages, other people's slowness.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::gcs_server::{Fault, GcsServer};
use common::*;
use gst::prelude::*;

const SECOND: u64 = 1_000_000_000;

fn flv(seconds: u32) -> String {
    format!("{} ! flvmux streamable=true", h264(seconds))
}

/// In real time, as a camera sends.
fn live(seconds: u32) -> String {
    format!(
        "{} ! identity sync=true ! flvmux streamable=true",
        h264(seconds).replace("videotestsrc", "videotestsrc is-live=true")
    )
}

fn uploaded(words: &Messages) -> usize {
    words
        .iter()
        .filter(|(kind, text)| *kind == "element" && text.starts_with("gcssink-chunk-uploaded"))
        .count()
}

#[test]
fn going_to_null_without_eos_stores_the_open_chunk() {
    let server = GcsServer::spawn_thread();
    let line = Line::new(&live(60), &server, "");
    assert_eq!(line.stat("chunks-created"), 0, "before anything ran");
    line.play();
    std::thread::sleep(Duration::from_millis(2500));
    assert_eq!(server.objects().len(), 0);
    line.stop();
    assert_eq!(
        (line.stat("chunks-uploaded"), line.stat("chunks-pending")),
        (1, 0),
        "the figures stay"
    );
    let chunks = chunks(&server);
    assert_eq!(chunks.len(), 1);
    assert!(joined(&chunks) == line.input());
    assert!(assert_each_plays(&chunks) >= 15);
}

#[test]
fn a_sink_that_is_linked_while_the_muxer_runs_stores_chunks_with_its_head() {
    // mp4mux puts none into its caps.
    for muxer in ["flvmux streamable=true", "matroskamux streamable=true", "mpegtsmux"] {
        let server = GcsServer::spawn_thread();
        let front = live(60).replace("flvmux streamable=true", muxer);
        init();
        let pipeline = gst::parse::launch(&format!("{front} ! tee name=tee allow-not-linked=true")).unwrap();
        let pipeline = pipeline.downcast::<gst::Pipeline>().unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        std::thread::sleep(Duration::from_millis(1500));
        let sink = gst::parse::bin_from_description(
            &format!(
                "queue ! gcssink name=sink bucket={BUCKET} device-id=cam endpoint-uri={} max-size-time=1000000000 async=false",
                server.endpoint()
            ),
            true,
        )
        .unwrap();
        pipeline.add(&sink).unwrap();
        sink.sync_state_with_parent().unwrap();
        pipeline.by_name("tee").unwrap().link(&sink).unwrap();
        let limit = Instant::now() + Duration::from_secs(20);
        while chunks(&server).len() < 2 {
            assert!(Instant::now() < limit, "{muxer}: nothing is stored");
            std::thread::sleep(Duration::from_millis(20));
        }
        pipeline.set_state(gst::State::Null).unwrap();
        let stored = chunks(&server);
        assert!(assert_each_plays(&stored) >= 15, "{muxer}");
    }
}

#[test]
fn a_stream_whose_first_buffer_has_a_byte_or_two_has_its_head_once() {
    // At the end rndbuffersize drops what is shorter than `min`, and ffmpeg 7 reports a Matroska file that lacks a byte.
    for (muxer, min, max) in [
        ("flvmux streamable=true", 1, 1),
        ("flvmux streamable=true", 2, 2),
        ("matroskamux streamable=true", 1, 3),
    ] {
        let server = GcsServer::spawn_thread();
        let front = flv(1).replace("flvmux streamable=true", muxer);
        let line = Line::new(&format!("{front} ! rndbuffersize min={min} max={max}"), &server, "");
        line.play();
        line.wait();
        line.stop();
        let chunks = chunks(&server);
        assert!(muxer.starts_with("matroska") || joined(&chunks) == line.input(), "{muxer}");
        assert_eq!(joined(&chunks).len(), line.input().len(), "{muxer}");
        assert_each_plays(&chunks);
    }
}

#[test]
fn key_units_are_counted_and_sound_beside_pictures_is_none() {
    let with_sound = format!("{} ! mux. {} ! mux. flvmux name=mux streamable=true", h264(2), aac(6));
    let sound = format!("{} ! flvmux streamable=true", aac(6));
    for (front, wanted) in [(with_sound, 2..=3), (sound, 100..=300)] {
        let server = GcsServer::spawn_thread();
        let line = Line::new(&front, &server, "");
        line.play();
        line.wait();
        line.stop();
        let count = line.stat("key-units");
        assert!(wanted.contains(&count), "{front}: {count}");
    }
}

#[test]
fn a_dead_server_holds_up_the_end_for_shutdown_timeout_and_no_longer() {
    let server = GcsServer::spawn_thread();
    (0..20).for_each(|_| server.push_fault(Fault::StallBefore));
    let line = Line::new(&flv(3), &server, "shutdown-timeout=1000000000 drain-timeout=60000000000");
    line.play();
    std::thread::sleep(Duration::from_millis(1500));
    let began = Instant::now();
    line.stop();
    let took = began.elapsed();
    assert!(took < Duration::from_millis(2500), "{took:?}");
}

#[test]
fn a_sink_whose_server_is_dead_takes_no_time_from_the_others_of_its_pipeline() {
    init();
    let (dead, alive) = (GcsServer::spawn_thread(), GcsServer::spawn_thread());
    (0..20).for_each(|_| dead.push_fault(Fault::StallBefore));
    let sink = |name: &str, server: &GcsServer| {
        format!(
            " t. ! queue ! gcssink name={name} async=false bucket={BUCKET} device-id={name} endpoint-uri={} shutdown-timeout=1000000000",
            server.endpoint()
        )
    };
    // In whatever order they are stopped, a dead one is before the one that works.
    let sinks = sink("beside1", &dead) + &sink("beside2", &alive) + &sink("beside3", &dead);
    let pipeline = gst::parse::launch(&format!("{} ! tee name=t{sinks}", live(60)))
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    std::thread::sleep(Duration::from_millis(2500));
    let began = Instant::now();
    pipeline.set_state(gst::State::Null).unwrap();
    let took = began.elapsed();
    assert!(took < Duration::from_millis(2500), "{took:?}");
    let stats: gst::Structure = pipeline.by_name("beside2").unwrap().property("stats");
    let stat = |name: &str| stats.get::<u64>(name).unwrap();
    assert_eq!(
        (stat("chunks-created"), stat("chunks-uploaded"), stat("chunks-dropped")),
        (1, 1, 0)
    );
    assert_eq!(chunks(&alive).len(), 1);
}

#[test]
fn eos_waits_for_the_drain_and_then_says_what_was_lost() {
    let server = GcsServer::spawn_thread();
    (0..20).for_each(|_| server.push_fault(Fault::StallBefore));
    let line = Line::new(&flv(3), &server, "drain-timeout=1500000000");
    line.play();
    let (end, words) = line.wait();
    assert!(matches!(&end, End::Error(text) if text.contains("drain-timeout")), "{end:?}");
    // The gap is reported beside the error, in either order of the two threads.
    let mut gaps = words.iter().filter(|(_, text)| text.starts_with("gcssink-gap")).count();
    while let Some(m) = line.pipeline.bus().unwrap().timed_pop(gst::ClockTime::from_mseconds(300)) {
        gaps += usize::from(m.structure().is_some_and(|s| s.name() == "gcssink-gap"));
    }
    assert_eq!(gaps, 1, "{words:?}");
    assert_eq!(line.stat("chunks-dropped"), 1);
}

#[test]
fn null_to_playing_twice_gives_two_sessions() {
    let server = GcsServer::spawn_thread();
    let line = Line::new(&flv(3), &server, "");
    for _ in 0..2 {
        line.play();
        assert_eq!(line.wait().0, End::Eos);
        line.stop();
    }
    let chunks = chunks(&server);
    assert_eq!(chunks.iter().map(|c| c.number("sequence")).collect::<Vec<_>>(), [0, 0]);
    assert!(chunks[0].get("session-id") < chunks[1].get("session-id"));
    assert_each_plays(&chunks);
}

#[test]
fn ready_and_back_goes_on_in_the_session() {
    let server = GcsServer::spawn_thread();
    let line = Line::new(&live(60), &server, "");
    for _ in 0..2 {
        line.play();
        std::thread::sleep(Duration::from_millis(1500));
        line.pipeline.set_state(gst::State::Ready).unwrap();
    }
    line.stop();
    let chunks = chunks(&server);
    assert_eq!(chunks.iter().map(|c| c.number("sequence")).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(chunks[0].get("session-id"), chunks[1].get("session-id"));
}

#[test]
fn every_confirmed_chunk_is_reported_with_the_fields_of_the_contract() {
    let server = GcsServer::spawn_thread();
    let line = Line::new(&flv(6), &server, "max-size-time=2000000000");
    line.play();
    let (_, words) = line.wait();
    assert_eq!(uploaded(&words), 3, "{words:?}");
    let text = &words
        .iter()
        .find(|(_, text)| text.starts_with("gcssink-chunk-uploaded"))
        .unwrap()
        .1;
    for field in [
        "object=(string)",
        "device-id=(string)cam",
        "session-id=(string)",
        "generation=(gint64)",
        "size=(guint64)",
        "sequence=(guint64)",
        "running-time=(guint64)",
        "duration=(guint64)",
        "latency=(guint64)",
        "crc32c=(guint)",
        "start-time=(string)",
    ] {
        let found = text.contains(field) || (field.starts_with("crc32c") && text.contains("crc32c=(uint)"));
        assert!(found, "{field} in {text}");
    }
    assert!(
        words
            .iter()
            .any(|(_, text)| text.starts_with("gcssink-status, status=(string)")),
        "{words:?}"
    );
    assert_eq!(line.stat("chunks-uploaded"), 3);
    assert_eq!(line.stat("chunks-pending"), 0);
    assert_eq!(line.stat("bytes-in-memory"), 0);
    assert_eq!(line.stat("bytes-received"), line.input().len() as u64);
    line.stop();
    assert_eq!(line.sink.property_value("status").serialize().unwrap(), "stopped");
}

#[test]
fn a_pause_with_the_memory_full_goes_on_with_the_same_buffer() {
    let server = GcsServer::spawn_thread();
    server.push_fault(Fault::SlowDrain {
        bytes_per_second: 500_000,
    });
    let noise = "videotestsrc num-buffers=75 pattern=snow ! video/x-raw,width=320,height=240,framerate=15/1 ! x264enc speed-preset=ultrafast bitrate=8000 key-int-max=15 ! h264parse";
    let line = Line::new(
        &format!("{noise} ! flvmux streamable=true"),
        &server,
        "max-memory-bytes=1048576 overflow-policy=block",
    );
    line.play();
    std::thread::sleep(Duration::from_millis(700));
    line.pipeline.set_state(gst::State::Paused).unwrap();
    std::thread::sleep(Duration::from_millis(300));
    line.play();
    assert_eq!(line.wait().0, End::Eos);
    assert!(joined(&chunks(&server)) == line.input());
    assert_eq!(line.stat("chunks-dropped"), 0);
}

#[test]
fn a_pause_during_the_drain_loses_nothing() {
    let server = GcsServer::spawn_thread();
    server.push_fault(Fault::SlowDrain {
        bytes_per_second: 200_000,
    });
    let line = Line::new(&flv(4), &server, "");
    line.play();
    std::thread::sleep(Duration::from_millis(600));
    line.pipeline.set_state(gst::State::Paused).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    line.play();
    assert_eq!(line.wait().0, End::Eos);
    assert!(joined(&chunks(&server)) == line.input());
}

#[test]
fn the_memory_is_never_more_than_its_bound_and_old_chunks_go_first() {
    let server = GcsServer::spawn_thread();
    (0..50).for_each(|_| server.push_fault(Fault::StallBefore));
    let noise = "videotestsrc num-buffers=150 pattern=snow ! video/x-raw,width=320,height=240,framerate=15/1 ! x264enc speed-preset=ultrafast bitrate=8000 key-int-max=15 ! h264parse";
    let line = Line::new(
        &format!("{noise} ! flvmux streamable=true"),
        &server,
        "max-memory-bytes=2097152 overflow-policy=drop-oldest drain-timeout=500000000",
    );
    line.play();
    let most = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let (sink, seen) = (line.sink.clone(), Arc::clone(&most));
    line.sink
        .static_pad("sink")
        .unwrap()
        .add_probe(gst::PadProbeType::BUFFER, move |_, _| {
            seen.fetch_max(
                sink.property::<gst::Structure>("stats").get("bytes-in-memory").unwrap(),
                Ordering::Relaxed,
            );
            gst::PadProbeReturn::Ok
        });
    let (_, words) = line.wait();
    assert!(most.load(Ordering::Relaxed) <= 2_097_152);
    assert!(line.stat("chunks-dropped") > 3);
    assert!(
        words
            .iter()
            .any(|(_, text)| text.starts_with("gcssink-gap") && text.contains("overflow")),
        "{words:?}"
    );
}

#[test]
fn a_handler_of_the_application_that_sleeps_stops_no_upload() {
    let server = GcsServer::spawn_thread();
    let line = Line::new(&flv(9), &server, "max-size-time=1000000000");
    let asleep = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&asleep);
    line.pipeline.bus().unwrap().set_sync_handler(move |_, message| {
        if message.structure().is_some_and(|s| s.name() == "gcssink-chunk-uploaded") && !flag.swap(true, Ordering::SeqCst) {
            std::thread::sleep(Duration::from_secs(4));
        }
        gst::BusSyncReply::Pass
    });
    line.play();
    let began = Instant::now();
    while server.objects().len() < 9 {
        assert!(began.elapsed() < Duration::from_secs(3), "{} objects", server.objects().len());
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(asleep.load(Ordering::SeqCst));
}

#[test]
fn split_now_and_force_key_unit_begin_a_chunk_at_the_next_key_unit() {
    let server = GcsServer::spawn_thread();
    let line = Line::new(&live(8), &server, "max-size-time=0");
    line.play();
    std::thread::sleep(Duration::from_millis(2300));
    line.sink.emit_by_name::<()>("split-now", &[]);
    std::thread::sleep(Duration::from_millis(2300));
    let force = gst::Structure::builder("GstForceKeyUnit")
        .field("all-headers", true)
        .field("count", 0u32)
        .build();
    // The muxer in front would make something else of it.
    assert!(
        line.sink
            .static_pad("sink")
            .unwrap()
            .send_event(gst::event::CustomDownstream::new(force))
    );
    assert_eq!(line.wait().0, End::Eos);
    let chunks = chunks(&server);
    assert_eq!(chunks.len(), 3);
    assert_eq!(assert_each_plays(&chunks), 120);
    assert!(joined(&chunks) == line.input());
}

#[test]
fn seeking_is_answered_no_at_once() {
    let server = GcsServer::spawn_thread();
    let line = Line::new("fakesrc num-buffers=3 sizetype=fixed sizemax=100", &server, "");
    line.play();
    line.wait();
    let mut query = gst::query::Seeking::new(gst::Format::Bytes);
    assert!(line.sink.static_pad("sink").unwrap().query(&mut query));
    assert!(!query.result().0);
}

#[test]
fn a_uri_sets_bucket_and_location_verbatim() {
    init();
    let sink = gst::Element::make_from_uri(gst::URIType::Sink, "gs://my-bucket/%Y/{session}_{seq}.{ext}", None).unwrap();
    assert_eq!(sink.property::<String>("bucket"), "my-bucket");
    assert_eq!(sink.property::<String>("location"), "%Y/{session}_{seq}.{ext}");
    assert_eq!(sink.property::<String>("uri"), "gs://my-bucket/%Y/{session}_{seq}.{ext}");
}

#[test]
fn with_splitmuxsink_each_fragment_is_an_object_of_that_name() {
    init();
    let server = GcsServer::spawn_thread();
    let line = format!(
        "{} ! splitmuxsink async-finalize=true sink-factory=gcssink muxer-factory=mpegtsmux max-size-time=2000000000 location=frag%05d.ts \
         sink-properties=\"properties,bucket={BUCKET},device-id=split,endpoint-uri=(string)\\\"{}\\\"\"",
        h264(6),
        server.endpoint()
    );
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let bus = pipeline.bus().unwrap();
    let end = bus
        .timed_pop_filtered(
            gst::ClockTime::from_seconds(60),
            &[gst::MessageType::Eos, gst::MessageType::Error],
        )
        .unwrap();
    assert_eq!(end.type_(), gst::MessageType::Eos, "{end:?}");
    pipeline.set_state(gst::State::Null).unwrap();
    let chunks = chunks(&server);
    let mut names: Vec<&str> = chunks.iter().map(|c| c.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["frag00000.ts", "frag00001.ts", "frag00002.ts"]);
    assert_eq!(assert_each_plays(&chunks), 90);
}

#[test]
fn a_fixed_name_that_exists_is_not_overwritten() {
    let server = GcsServer::spawn_thread();
    server.put(BUCKET, "one.flv", b"somebody else's");
    let line = Line::new(&flv(2), &server, "location=one.flv");
    line.play();
    let (end, words) = line.wait();
    assert_eq!(end, End::Eos);
    assert_eq!(server.object(BUCKET, "one.flv").unwrap().data, b"somebody else's");
    let stored: Vec<String> = server
        .objects()
        .into_keys()
        .map(|(_, name)| name)
        .filter(|n| n != "one.flv")
        .collect();
    assert_eq!(stored.len(), 1);
    assert!(
        stored[0].starts_with("one_") && stored[0].ends_with("_000000.flv"),
        "{stored:?}"
    );
    assert!(
        words
            .iter()
            .any(|(kind, text)| *kind == "warning" && text.contains("one.flv")),
        "{words:?}"
    );
}

#[test]
fn an_outage_is_reported_once_and_nothing_is_lost() {
    let server = GcsServer::spawn_thread();
    for _ in 0..4 {
        server.push_fault(Fault::status(503));
        server.push_fault(Fault::ResetBefore);
        server.push_fault(Fault::ResetAfterBody { stored: true });
    }
    let line = Line::new(&live(10), &server, "max-size-time=1000000000 drain-timeout=60000000000");
    line.play();
    let (end, words) = line.wait();
    assert_eq!(end, End::Eos);
    assert!(joined(&chunks(&server)) == line.input());
    let warnings: Vec<_> = words.iter().filter(|(kind, _)| *kind == "warning").collect();
    let ends: Vec<_> = words
        .iter()
        .filter(|(kind, text)| *kind == "info" && text.contains("work again"))
        .collect();
    assert_eq!(warnings.len(), ends.len(), "{words:?}");
    assert!((1..=4).contains(&warnings.len()), "{words:?}");
    assert_eq!(uploaded(&words), 10);
}

#[test]
fn live_chunks_are_dated_by_when_they_were_captured() {
    let server = GcsServer::spawn_thread();
    let line = Line::new(&live(5), &server, "max-size-time=2000000000");
    let before = std::time::SystemTime::now();
    line.play();
    line.wait();
    let chunks = chunks(&server);
    let parse = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_nanosecond();
    let began = i128::try_from(before.duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos()).unwrap();
    let start = parse(chunks[0].get("start-time"));
    assert!(
        (start - began).abs() < i128::from(2 * SECOND),
        "{} ns after the start",
        start - began
    );
    let gap = parse(chunks[1].get("start-time")) - start;
    // flvmux times its buffers by decoding, a few frames before they are shown.
    assert!((gap - i128::from(2 * SECOND)).abs() < i128::from(SECOND / 3), "{gap}");
    assert_eq!(chunks[1].get("clock"), "system");
    assert!(chunks[1].object.meta["customTime"].is_string());
    assert!(
        chunks[1].name.contains(&chunks[1].get("start-time").replace(['-', ':'], "")),
        "{}",
        chunks[1].name
    );
}

/// Muxers as a live line has them, fragments of a second.
const MUXERS: [&str; 5] = [
    "flvmux streamable=true",
    "mpegtsmux",
    "mp4mux fragment-duration=1000",
    "matroskamux streamable=true",
    "isofmp4mux fragment-duration=1000000000",
];

/// Records a camera whose first picture comes 1.5 s after PLAYING, in chunks of 2 s. Its own clock, if it passes one on, shows `utc` at
/// that picture. Returns the chunks and when that picture was captured, UTC in ns.
fn record_late_camera(muxer: &str, utc: Option<u64>) -> (Vec<Chunk>, u64) {
    let server = GcsServer::spawn_thread();
    let video = video(6).replace("videotestsrc", "videotestsrc is-live=true");
    let front = format!("{video} ! identity name=camera ! x264enc tune=zerolatency key-int-max=15 ! h264parse ! {muxer}");
    let line = Line::new(&front, &server, "max-size-time=2000000000");
    let captured = Arc::new(AtomicU64::new(0));
    let first = Arc::clone(&captured);
    let clock = line.pipeline.clone();
    let camera = line.pipeline.by_name("camera").unwrap().static_pad("src").unwrap();
    camera.add_probe(gst::PadProbeType::BUFFER, move |pad, info| {
        let Some(gst::PadProbeData::Buffer(buffer)) = &info.data else {
            return gst::PadProbeReturn::Ok;
        };
        let running = buffer.pts().unwrap().nseconds();
        if running < SECOND * 3 / 2 {
            return gst::PadProbeReturn::Drop;
        }
        if first.load(Ordering::SeqCst) == 0 {
            let wall = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos();
            let lag = clock.current_running_time().unwrap().nseconds() - running;
            first.store(u64::try_from(wall).unwrap() - lag, Ordering::SeqCst);
            if let Some(utc) = utc {
                // What iotcorestatus sends: at this running time the camera's clock showed that UTC.
                let event = gst::Structure::builder("gcssink-clock")
                    .field("running-time", running)
                    .field("utc", utc)
                    .build();
                pad.push_event(gst::event::CustomDownstream::new(event));
            }
        }
        gst::PadProbeReturn::Ok
    });
    line.play();
    assert_eq!(line.wait().0, End::Eos, "{muxer}");
    line.stop();
    (chunks(&server), captured.load(Ordering::SeqCst))
}

/// Checks that the chunks of each muxer start when their first picture was captured, by the clock of that name.
fn are_dated_by_their_pictures(utc: Option<u64>, clock: &str) {
    init();
    std::thread::scope(|scope| {
        for muxer in MUXERS {
            scope.spawn(move || {
                let (chunks, captured) = record_late_camera(muxer, utc);
                assert!(chunks.len() >= 2, "{muxer}: {} chunks", chunks.len());
                let first = i128::from(utc.unwrap_or(captured));
                for (i, chunk) in chunks.iter().enumerate() {
                    let start: jiff::Timestamp = chunk.get("start-time").parse().unwrap();
                    let media = i128::from(chunk.number("pts-start-ns") - chunks[0].number("pts-start-ns"));
                    let late = start.as_nanosecond() - first - media;
                    assert!(
                        late.abs() < i128::from(SECOND / 10),
                        "{muxer}: chunk {i} is dated {late} ns late"
                    );
                    assert_eq!(chunk.get("clock"), clock, "{muxer}");
                }
            });
        }
    });
}

#[test]
fn live_chunks_of_every_muxer_are_dated_by_when_they_were_captured() {
    are_dated_by_their_pictures(None, "system");
}

#[test]
fn the_cameras_clock_passed_on_before_the_muxer_dates_the_chunks() {
    are_dated_by_their_pictures(Some(1_600_000_000 * SECOND), "ntp");
}
