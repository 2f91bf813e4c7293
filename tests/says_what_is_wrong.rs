//! Every bad input has its own clear error, and nothing is stored where nothing could play.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::gcs_server::{Answer, Fault, GcsServer};
use common::*;
use gst::prelude::*;

/// The error of a sink whose settings are wrong.
fn refused(properties: &str) -> String {
    init();
    let line = format!("fakesrc num-buffers=1 ! gcssink {properties}");
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    let bus = pipeline.bus().unwrap();
    assert!(pipeline.set_state(gst::State::Playing).is_err(), "{properties} is accepted");
    let mut texts = Vec::new();
    while let Some(message) = bus.pop_filtered(&[gst::MessageType::Error]) {
        if let gst::MessageView::Error(e) = message.view() {
            texts.push(format!("{} | {}", e.error(), e.debug().unwrap_or_default()));
        }
    }
    pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(texts.len(), 1, "one error: {texts:?}");
    texts.remove(0)
}

#[test]
fn settings_that_cannot_work_are_refused_by_name() {
    let local = "endpoint-uri=http://127.0.0.1:9";
    for (properties, wanted) in [
        ("device-id=a".to_owned(), "bucket="),
        (format!("bucket=Not_A_Bucket! {local}"), "bucket"),
        (format!("bucket=cam-bucket device-id=a/../b {local}"), "\"..\""),
        (format!("bucket=cam-bucket device-id=/a {local}"), "begins with /"),
        (format!("bucket=cam-bucket location={{device}}/%Y.flv {local}"), "{seq}"),
        (
            format!("bucket=cam-bucket location={{camera}}_{{seq}}_{{session}} {local}"),
            "{camera}",
        ),
        (format!("bucket=cam-bucket device-id={} {local}", "x".repeat(1000)), "1024"),
        ("bucket=cam-bucket endpoint-uri=nonsense".to_owned(), "nonsense"),
        (
            format!("bucket=cam-bucket credentials-file=/nonexistent.json {local}"),
            "/nonexistent.json",
        ),
        (
            format!("bucket=cam-bucket metadata=\"metadata,note={}\" {local}", "x".repeat(8200)),
            "8192",
        ),
    ] {
        let text = refused(&properties);
        assert!(text.contains(wanted), "{properties:.120}: {text}");
    }
}

#[test]
fn a_credentials_file_that_is_none_is_named_but_never_shown() {
    let file = TempFile::new("secret.json", b"{\"private_key\": \"THE-SECRET\"}");
    let text = refused(&format!("bucket=cam-bucket credentials-file={}", file.0.display()));
    assert!(text.contains("secret.json") && !text.contains("THE-SECRET"), "{text}");
    let file = TempFile::new("malformed.json", b"-----BEGIN PRIVATE KEY----- THE-SECRET");
    let text = refused(&format!("bucket=cam-bucket credentials-file={}", file.0.display()));
    assert!(text.contains("not JSON") && !text.contains("THE-SECRET"), "{text}");
}

#[test]
fn a_credentials_file_that_does_not_answer_stops_no_pipeline_and_is_reported_as_an_outage() {
    let pipe = TempFile::new("never.json", b"");
    std::fs::remove_file(&pipe.0).unwrap();
    let made = std::process::Command::new("mkfifo").arg(&pipe.0).status().unwrap();
    assert!(made.success());
    init();
    let line = format!(
        "videotestsrc is-live=true ! x264enc key-int-max=10 ! h264parse ! flvmux streamable=true ! gcssink bucket=cam-bucket \
         endpoint-uri=https://127.0.0.1:9 max-size-time=1000000000 shutdown-timeout=0 credentials-file={}",
        pipe.0.display()
    );
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    let began = std::time::Instant::now();
    pipeline.set_state(gst::State::Playing).unwrap();
    assert!(began.elapsed() < std::time::Duration::from_secs(10), "{:?}", began.elapsed());
    let bus = pipeline.bus().unwrap();
    let reported = bus.timed_pop_filtered(
        gst::ClockTime::from_seconds(30),
        &[gst::MessageType::Warning, gst::MessageType::Error],
    );
    let reported = reported.expect("an outage is told");
    let gst::MessageView::Warning(warning) = reported.view() else {
        panic!("{reported:?}")
    };
    let text = warning.error().to_string();
    assert!(text.contains("the credentials file does not answer"), "{text}");
    pipeline.set_state(gst::State::Null).unwrap();
}

#[test]
fn streams_that_are_not_muxed_are_sent_back_to_a_muxer() {
    let raw = fail("videotestsrc num-buffers=5", "");
    assert!(raw.0.contains("video/x-raw") && raw.0.contains("mpegtsmux"), "{}", raw.0);
    let elementary = fail(&format!("{} ! x264enc ! h264parse", video(1)), "");
    assert!(
        elementary.0.contains("video/x-h264") && elementary.0.contains("flvmux"),
        "{}",
        elementary.0
    );
    assert_eq!(raw.1 + elementary.1, 0);
}

#[test]
fn an_mp4_without_fragments_is_refused_and_nothing_is_stored() {
    let (text, stored) = fail(&format!("{} ! mp4mux", h264(3)), "");
    assert!(text.contains("fragment-duration=1000"), "{text}");
    assert_eq!(stored, 0);
}

#[test]
fn a_bucket_that_does_not_exist_is_an_error_with_its_name() {
    let server = GcsServer::spawn_thread();
    server.push_fault(Fault::Answer(Answer::error(404, "The specified bucket does not exist.")));
    let line = Line::new(&format!("{} ! flvmux streamable=true", h264(3)), &server, "");
    line.play();
    let (end, words) = line.wait();
    assert!(
        matches!(&end, End::Error(text) if text.contains(BUCKET) && text.contains("404")),
        "{end:?} {words:?}"
    );
}

#[test]
fn a_missing_permission_is_an_error_that_names_the_role() {
    let server = GcsServer::spawn_thread();
    server.push_fault(Fault::Answer(Answer::error(
        403,
        "Permission 'storage.objects.create' denied",
    )));
    let line = Line::new(&format!("{} ! flvmux streamable=true", h264(3)), &server, "");
    line.play();
    let (end, _) = line.wait();
    assert!(
        matches!(&end, End::Error(text) if text.contains("storage.objects.create")),
        "{end:?}"
    );
}

#[test]
fn two_sinks_with_one_identity_are_an_error_and_the_name_is_free_afterwards() {
    let server = GcsServer::spawn_thread();
    let first = Line::new(
        "fakesrc is-live=true do-timestamp=true sizetype=fixed sizemax=10",
        &server,
        "device-id=twin",
    );
    first.play();
    let text = refused(&format!("bucket={BUCKET} device-id=twin endpoint-uri={}", server.endpoint()));
    assert!(text.contains("twin") && text.contains("device-id"), "{text}");
    first.stop();
    let again = Line::new("fakesrc num-buffers=1 sizetype=fixed sizemax=10", &server, "device-id=twin");
    again.play();
    again.wait();
}

#[test]
fn a_line_whose_sound_is_never_fed_is_reported_after_startup_timeout() {
    let server = GcsServer::spawn_thread();
    let front = format!(
        "{} ! identity sync=true ! mux. {} ! valve drop=true ! mux. flvmux streamable=true name=mux",
        h264(30),
        aac(30)
    );
    let line = Line::new(&front, &server, "startup-timeout=2000000000");
    line.play();
    let reported = |m: &gst::MessageRef| matches!(m.view(), gst::MessageView::Warning(w) if w.error().to_string().contains("nothing to store"));
    let (_, words) = line.wait_for(std::time::Duration::from_secs(20), reported);
    let text = &words.last().unwrap().1;
    assert!(text.contains("mux") && text.contains("audio"), "{text}");
}

#[test]
fn unknown_bytes_are_stored_as_they_come_and_reported_once() {
    let text = b"GET / HTTP/1.1 is no video\r\n".repeat(5000);
    let file = TempFile::new("text.bin", &text);
    let (chunks, _, words) = record(&format!("filesrc location={}", file.0.display()), "");
    assert!(joined(&chunks) == text);
    assert!(chunks[0].name.ends_with(".bin") && chunks[0].get("container") == "raw");
    assert_eq!(words.iter().filter(|(kind, _)| *kind == "warning").count(), 1, "{words:?}");
}

#[test]
fn damage_is_stored_reported_once_and_ends_with_the_next_chunk() {
    let (_, mut bytes, _) = record(&format!("{} ! flvmux streamable=true", h264(8)), "");
    let middle = bytes.len() / 2;
    bytes.drain(middle..middle + 777);
    let file = TempFile::new("damaged.flv", &bytes);
    let (chunks, _, words) = record(&format!("filesrc location={}", file.0.display()), "max-size-time=2000000000");
    assert!(joined(&chunks) == bytes);
    assert_eq!(
        words
            .iter()
            .filter(|(kind, text)| *kind == "warning" && text.contains("damaged"))
            .count(),
        1,
        "{words:?}"
    );
    let after = chunks.iter().find(|c| c.get("gap-reason") == "damage").unwrap();
    assert_each_plays(std::slice::from_ref(after));
    assert_eq!(after.get("continuous"), "false");
}

#[test]
fn a_muxer_that_goes_back_because_a_filesink_lets_it_is_reported() {
    let file = TempFile::new("beside.mkv", b"");
    let line = format!(
        "{} ! matroskamux ! tee name=t ! queue ! filesink location={} t. ! queue",
        h264(2),
        file.0.display()
    );
    let (_, _, words) = record(&line, "");
    let warnings: Vec<&String> = words
        .iter()
        .filter(|(kind, _)| *kind == "warning")
        .map(|(_, text)| text)
        .collect();
    assert_eq!(warnings.len(), 1, "{words:?}");
    assert!(warnings[0].contains("streamable=true"), "{words:?}");
}

#[test]
fn fragments_that_are_too_long_to_cut_in_time_are_reported_once() {
    let line = "videotestsrc num-buffers=350 ! video/x-raw,width=160,height=120,framerate=5/1 ! x264enc speed-preset=ultrafast key-int-max=100000 \
        ! h264parse ! mp4mux fragment-duration=40000";
    let (_, _, words) = record(line, "max-size-time=2000000000");
    let reported = words
        .iter()
        .filter(|(kind, text)| *kind == "warning" && text.contains("fragment-duration"))
        .count();
    assert_eq!(reported, 1, "{words:?}");
}

#[test]
fn a_large_chunk_is_cut_early_and_the_property_is_named() {
    let noise = "videotestsrc num-buffers=90 pattern=snow ! video/x-raw,width=640,height=480,framerate=15/1 ! x264enc speed-preset=ultrafast bitrate=20000 key-int-max=15 ! h264parse";
    let (chunks, input, words) = record(&format!("{noise} ! flvmux streamable=true"), "max-memory-bytes=16000000");
    assert!(joined(&chunks) == input);
    assert!(chunks.len() > 1, "{} bytes in {} chunks", input.len(), chunks.len());
    assert_eq!(assert_each_plays(&chunks), 90);
    let reported = words
        .iter()
        .filter(|(kind, text)| *kind == "warning" && text.contains("max-memory-bytes"))
        .count();
    assert_eq!(reported, 1, "{words:?}");
}
