//! What is wrong with a stream is reported once, in words that name the figure and what to do.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::gcs_server::{Answer, Fault, GcsServer};
use common::streams::{Flv, Ts, element, matroska_head};
use common::*;
use gst::prelude::*;

const CUT: &str = "max-size-time=2000000000";

/// The warnings of a line that reads these bytes from a file.
fn warnings(name: &str, bytes: &[u8]) -> Vec<String> {
    let file = TempFile::new(name, bytes);
    let (chunks, _, words) = record(&format!("filesrc location={}", file.0.display()), CUT);
    assert!(joined(&chunks) == bytes, "{name}: every byte is stored");
    let warnings = words.into_iter().filter(|(kind, _)| *kind == "warning");
    warnings.map(|(_, text)| text).collect()
}

/// One warning, with all of these words.
fn assert_reported(warnings: &[String], words: &[&str]) {
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    for word in words {
        assert!(warnings[0].contains(word), "{word}: {}", warnings[0]);
    }
}

/// A picture every 40 ms, key where `is_key` says so.
fn pictures(flv: &mut Flv, frames: std::ops::Range<u32>, is_key: impl Fn(u32) -> bool) {
    for i in frames {
        flv.picture(i * 40, is_key(i), &[]);
    }
}

#[test]
fn damage_is_reported_with_the_byte_where_it_begins() {
    let mut flv = Flv::new(false);
    pictures(&mut flv, 0..50, |i| i % 25 == 0);
    let at = flv.0.len();
    flv.0.extend([0xee; 500]);
    pictures(&mut flv, 50..100, |i| i % 25 == 0);
    flv.0.extend([0xee; 500]);
    pictures(&mut flv, 100..150, |i| i % 25 == 0);
    let text = format!("damaged at byte {at}:");
    assert_reported(
        &warnings("damaged.flv", &flv.0),
        &[&text, "the next key unit", "check the network"],
    );
}

#[test]
fn key_units_that_come_late_are_reported_with_the_interval_and_the_setting_of_the_camera() {
    let mut flv = Flv::new(false);
    // Every 3 s, and then none for 40 s.
    pictures(&mut flv, 0..1200, |i| i % 75 == 0 && i <= 150);
    let reported = warnings("late.flv", &flv.0);
    let words = [
        "no key unit for 30 s",
        "at most 3 s apart before",
        "max-size-time is 2 s",
        "key-int-max",
        "to at most 2 s",
    ];
    assert_reported(&reported, &words);
}

#[test]
fn sound_whose_pictures_stop_is_reported() {
    let mut flv = Flv::new(true);
    flv.picture(0, true, &[]);
    (0..2000).for_each(|i| flv.sound(i * 20));
    let words = [
        "sound without pictures for 30 s",
        "max-size-time (2 s)",
        "check the camera's video",
    ];
    assert_reported(&warnings("sound.flv", &flv.0), &words);
}

#[test]
fn parameter_sets_that_come_once_are_reported_with_the_remedy() {
    let mut flv = Flv::new(false);
    flv.picture(0, true, &[&[0x67, 0x64, 0, 0x1f], &[0x68, 0x81]]);
    pictures(&mut flv, 1..100, |i| i % 25 == 0);
    assert_reported(&warnings("sets.flv", &flv.0), &["without SPS and PPS", "config-interval=-1"]);
}

#[test]
fn a_configuration_that_changes_all_the_time_is_reported_with_how_often() {
    init();
    let server = GcsServer::spawn_thread();
    let line = Line::new(
        "appsrc name=src format=time caps=video/x-flv",
        &server,
        "max-requests-per-second=0",
    );
    let source = line.pipeline.by_name("src").unwrap();
    line.play();
    for i in 0..60u32 {
        let mut flv = Flv::new(false);
        if i > 0 {
            flv.0.clear();
        }
        flv.configure(i * 200, if i % 2 == 0 { 0x28 } else { 0x1f });
        flv.picture(i * 200, true, &[]);
        let mut buffer = gst::Buffer::from_slice(flv.0);
        let time = gst::ClockTime::from_mseconds(u64::from(i) * 200);
        buffer.get_mut().unwrap().set_pts(time);
        let flow: gst::FlowReturn = source.emit_by_name("push-buffer", &[&buffer]);
        assert_eq!(flow, gst::FlowReturn::Ok);
    }
    let _: gst::FlowReturn = source.emit_by_name("end-of-stream", &[]);
    let (end, words) = line.wait();
    assert_eq!(end, End::Eos);
    let reported: Vec<String> = words.into_iter().filter(|w| w.0 == "warning").map(|w| w.1).collect();
    assert_reported(
        &reported,
        &["configuration has changed 4", "within 10 s", "two senders in one stream"],
    );
}

/// A transport stream of that many programs, a key frame every second.
fn transport_stream(maps: &[u16], rest: &[u8]) -> Vec<u8> {
    let mut ts = Ts::default();
    let idr = [
        &[
            0, 0, 1, 9, 0xf0, 0, 0, 1, 0x67, 0x64, 0, 0x28, 0, 0, 1, 0x68, 1, 0, 0, 1, 0x65, 0x88,
        ][..],
        &[0x77; 300],
    ]
    .concat();
    for second in 1..9u64 {
        if !maps.is_empty() {
            ts.tables(maps);
        }
        for pid in if maps.is_empty() { &[0x120][..] } else { maps } {
            ts.pes(pid + 0x100, second * 90_000, &[rest, &idr].concat());
        }
    }
    ts.bytes
}

#[test]
fn a_transport_stream_with_several_programs_is_reported_with_their_number() {
    let reported = warnings("programs.ts", &transport_stream(&[0x20, 0x30, 0x40], &[]));
    assert_reported(&reported, &["has 3 programs", "need not play alone", "tsdemux ! mpegtsmux"]);
}

#[test]
fn a_transport_stream_without_tables_is_reported() {
    let bytes = transport_stream(&[], &[0x77; 20_000]);
    assert_reported(&warnings("tables.ts", &bytes), &["no PAT and PMT", "pat-interval"]);
}

#[test]
fn pictures_torn_at_pes_packets_are_reported() {
    let reported = warnings("torn.ts", &transport_stream(&[0x20], &[0x66; 200]));
    assert_reported(&reported, &["not aligned with pictures", "h264parse ! mpegtsmux"]);
}

#[test]
fn streams_that_cannot_be_cut_are_an_error_that_says_what_to_send_instead() {
    let cluster = element(&[0x1f, 0x43, 0xb6, 0x75], &element(&[0xe7], &[0]));
    let large = element(&[0xec], &vec![0; 5 << 20]);
    let cases = [
        (
            "tracks-last.mkv",
            [matroska_head(), cluster].concat(),
            ["no Tracks in front of its first Cluster", "matroskamux streamable=true"],
        ),
        (
            "large.mkv",
            [matroska_head(), large].concat(),
            [
                "over the limit of 4.2 MB",
                "check that the stream matches its container format",
            ],
        ),
        (
            "head-damaged.mp4",
            mp4_with_a_damaged_head(),
            ["the head (moov) of the MP4 is missing or damaged", "start the source again"],
        ),
    ];
    for (name, bytes, words) in cases {
        let file = TempFile::new(name, &bytes);
        let (text, stored) = fail(&format!("filesrc location={}", file.0.display()), CUT);
        assert!(words.iter().all(|word| text.contains(word)), "{name}: {text}");
        assert_eq!(stored, 0, "{name}");
    }
}

#[test]
fn fragments_that_name_file_offsets_are_an_error_that_names_the_flag() {
    let (_, flv, _) = record(&format!("{} ! flvmux streamable=true", h264(2)), CUT);
    let (input, output) = (TempFile::new("offsets.flv", &flv), TempFile::new("offsets.mp4", b""));
    let status = std::process::Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-y", "-i"])
        .arg(&input.0)
        .args(["-c", "copy", "-movflags", "frag_keyframe+empty_moov"])
        .arg(&output.0)
        .status()
        .unwrap();
    assert!(status.success());
    let (text, stored) = fail(&format!("filesrc location={}", output.0.display()), CUT);
    assert!(
        text.contains("absolute file offsets") && text.contains("default_base_moof"),
        "{text}"
    );
    assert_eq!(stored, 0);
}

#[test]
fn one_object_for_all_that_grows_over_the_memory_is_an_error_with_its_size() {
    let mut flv = Flv::new(false);
    pictures(&mut flv, 0..100_000, |i| i % 25 == 0);
    let file = TempFile::new("one.flv", &flv.0);
    let (text, _) = fail(
        &format!("filesrc location={} blocksize=65536", file.0.display()),
        "location=all.flv max-memory-bytes=4000000",
    );
    for word in ["no placeholder", "half of max-memory-bytes", "{session} and {seq}"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}

/// `ftyp`, a `moov` in which the first size is a lie, a fragment.
fn mp4_with_a_damaged_head() -> Vec<u8> {
    let boxed = |kind: &[u8; 4], body: &[u8]| [&u32::try_from(body.len() + 8).unwrap().to_be_bytes()[..], kind, body].concat();
    let moov = boxed(b"moov", b"\x00\xff\x00\x6cmvhd-------------");
    let moof = boxed(b"moof", &boxed(b"mfhd", &[0; 8]));
    [boxed(b"ftyp", b"iso5\0\0\0\0iso5"), moov, moof, boxed(b"mdat", &[9; 40])].concat()
}

/// The first WARNING of a live line that gets these bytes and nothing more.
fn live_warning(bytes: Vec<u8>) -> String {
    live_warning_with("", bytes)
}

/// The first with these words.
fn live_warning_with(wanted: &str, bytes: Vec<u8>) -> String {
    init();
    let server = GcsServer::spawn_thread();
    let line = Line::new(
        "appsrc name=src is-live=true format=time",
        &server,
        "startup-timeout=1000000000",
    );
    let source = line.pipeline.by_name("src").unwrap();
    line.play();
    let _: gst::FlowReturn = source.emit_by_name("push-buffer", &[&gst::Buffer::from_slice(bytes)]);
    let is_warning =
        |m: &gst::MessageRef| matches!(m.view(), gst::MessageView::Warning(w) if w.error().to_string().contains(wanted));
    let (_, words) = line.wait_for(std::time::Duration::from_secs(60), is_warning);
    let found = words
        .into_iter()
        .find(|(kind, text)| *kind == "warning" && text.contains(wanted));
    found.unwrap().1
}

#[test]
fn a_live_stream_without_anything_to_store_is_reported_with_what_came_instead() {
    let mut flv = Flv::new(false);
    pictures(&mut flv, 0..7, |_| false);
    let text = live_warning(flv.0);
    for word in [
        " s of PLAYING: ",
        "7 pictures came, and none is a key frame by its bytes",
        "intra-refresh",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let flv = Flv::new(false);
    let text = live_warning(flv.0.clone());
    assert!(
        text.contains(&format!("{} bytes came, but no key unit", flv.0.len())),
        "{text}"
    );
    let mp4 = [&24u32.to_be_bytes()[..], b"ftypiso5\0\0\0\0iso5mp41"].concat();
    let text = live_warning(mp4);
    assert!(
        text.contains("the MP4 is not fragmented") && text.contains("fragment-duration=1000"),
        "{text}"
    );
    let text = live_warning_with("nothing to store", mp4_with_a_damaged_head());
    assert!(
        text.contains("the head (moov) of the MP4 is missing or damaged; start the source again"),
        "{text}"
    );
}

#[test]
fn uploads_that_are_refused_until_the_memory_is_full_end_the_recording_with_their_reason() {
    let server = GcsServer::spawn_thread();
    // The first chunk is stored: until then a refusal is an error at once.
    server.push_fault(Fault::Pass);
    let refusal = Answer::error(403, "Permission 'storage.objects.create' denied");
    (0..200).for_each(|_| server.push_fault(Fault::Answer(refusal.clone())));
    let mut flv = Flv::new(false);
    (0..6000).for_each(|i| flv.picture(i * 40, i % 25 == 0, &[&[&[6, 5][..], &[0x33; 1500]].concat()]));
    let file = TempFile::new("refused.flv", &flv.0);
    let front = format!("filesrc location={} blocksize=65536", file.0.display());
    let line = Line::new(&front, &server, &format!("max-memory-bytes=4000000 max-uploads=1 {CUT}"));
    line.play();
    let (end, words) = line.wait();
    let End::Error(text) = end else {
        panic!("no error but {words:?}")
    };
    for word in [
        "uploads are refused (",
        "storage.objects.create",
        "max-memory-bytes is exhausted: the recording ends",
        "restore the permission or fix the bucket",
    ] {
        assert!(text.contains(word), "{word}: {text}");
    }
    assert_eq!(server.objects().len(), 1);
}

#[test]
fn what_was_not_stored_in_time_and_a_full_memory_are_errors_with_their_figures() {
    let mut flv = Flv::new(false);
    pictures(&mut flv, 0..100, |i| i % 25 == 0);
    let file = TempFile::new("unsent.flv", &flv.0);
    let front = format!("filesrc location={}", file.0.display());
    // Nobody listens there.
    let nowhere = "endpoint-uri=http://127.0.0.1:9";
    let (text, _) = fail(&front, &format!("{nowhere} drain-timeout=300000000 {CUT}"));
    for word in ["2 chunks of ", "drain-timeout of 300 ms", "check the uplink"] {
        assert!(text.contains(word), "{word}: {text}");
    }
    let mut flv = Flv::new(false);
    (0..6000).for_each(|i| flv.picture(i * 40, i % 25 == 0, &[&[&[6, 5][..], &[0x33; 1500]].concat()]));
    let file = TempFile::new("full.flv", &flv.0);
    let front = format!("filesrc location={} blocksize=65536", file.0.display());
    let (text, _) = fail(
        &front,
        &format!("{nowhere} overflow-policy=error max-memory-bytes=4000000 {CUT}"),
    );
    for word in ["max-memory-bytes are in use", "spool-dir", "overflow-policy=drop-oldest"] {
        assert!(text.contains(word), "{word}: {text}");
    }
}
