//! What the benches share: camera-like streams made by GStreamer, a storage that keeps nothing, and small statistics.

#![allow(dead_code, reason = "each bench uses a part of it")]

pub(crate) mod server;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use gst::prelude::*;

/// Frames of the streams: 24 s at 25 frames a second.
pub(crate) const FRAMES: u32 = 600;
/// A camera's usual bit rate, in kbit/s.
const KBPS: u32 = 4000;
/// Whichever the system has, best first.
const AAC_ENCODERS: [&str; 3] = ["fdkaacenc", "voaacenc", "avenc_aac"];

/// The containers of the streams, with the muxer's launch syntax and what its video needs in front.
const MUXERS: [(&str, &str, &str); 4] = [
    ("flv", "flvmux streamable=true", "h264parse"),
    ("ts", "mpegtsmux", "h264parse config-interval=-1"),
    ("mp4", "mp4mux fragment-duration=1000", "h264parse"),
    ("mkv", "matroskamux streamable=true", "h264parse"),
];

/// Where the streams are kept between runs.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("bench-streams")
}

/// H.264 and AAC in every container, encoded once; `(extension, bytes)`.
pub(crate) fn streams() -> Vec<(&'static str, Vec<u8>)> {
    let folder = folder();
    let path = |ext: &str| folder.join(format!("camera-{FRAMES}-{KBPS}.{ext}"));
    if MUXERS.iter().any(|(ext, ..)| !path(ext).exists()) {
        std::fs::create_dir_all(&folder).unwrap();
        let unfinished = |ext: &str| folder.join(format!("unfinished.{ext}"));
        record(&unfinished);
        for (ext, ..) in MUXERS {
            std::fs::rename(unfinished(ext), path(ext)).unwrap();
        }
    }
    MUXERS
        .iter()
        .map(|(ext, ..)| (*ext, std::fs::read(path(ext)).unwrap()))
        .collect()
}

/// Encodes once and muxes into every container.
fn record(path: &dyn Fn(&str) -> PathBuf) {
    let aac = AAC_ENCODERS
        .into_iter()
        .find(|name| gst::ElementFactory::find(name).is_some())
        .expect("an AAC encoder: fdkaacenc, voaacenc or avenc_aac");
    // As many audio frames of 1024 samples as fit beside the pictures.
    let audio_frames = u64::from(FRAMES) * 48_000 / 25 / 1024;
    let mut line = format!(
        "videotestsrc pattern=snow num-buffers={FRAMES} ! video/x-raw,format=I420,width=640,height=360,framerate=25/1
         ! x264enc tune=zerolatency speed-preset=ultrafast bitrate={KBPS} key-int-max=50 ! tee name=v
         audiotestsrc wave=ticks num-buffers={audio_frames} ! audio/x-raw,rate=48000,channels=1 ! audioconvert
         ! {aac} bitrate=64000 ! aacparse ! tee name=a"
    );
    for (ext, muxer, parser) in MUXERS {
        let to = path(ext);
        line += &format!(
            " {muxer} name={ext} ! filesink location=\"{}\"
             v. ! queue max-size-time=0 max-size-buffers=0 max-size-bytes=0 ! {parser} ! {ext}.
             a. ! queue max-size-time=0 max-size-buffers=0 max-size-bytes=0 ! {ext}.",
            to.display()
        );
    }
    let pipeline = gst::parse::launch(&line).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let bus = pipeline.bus().unwrap();
    let end = bus.timed_pop_filtered(
        gst::ClockTime::from_seconds(300),
        &[gst::MessageType::Eos, gst::MessageType::Error],
    );
    pipeline.set_state(gst::State::Null).unwrap();
    match end.as_ref().map(|m| m.view()) {
        Some(gst::MessageView::Eos(_)) => {}
        other => panic!("the streams could not be made: {other:?}"),
    }
}

/// The value that `share` of all values are at most; sorts.
pub(crate) fn quantile(values: &mut [Duration], share: f64) -> Duration {
    values.sort_unstable();
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * share).ceil() as usize).copied().unwrap_or_default()
}

/// How long the calling thread has run, and how long it was ready to run and got no core.
pub(crate) fn ran_and_waited() -> (Duration, Duration) {
    thread_local!(static SCHEDSTAT: Option<std::fs::File> = std::fs::File::open("/proc/thread-self/schedstat").ok());
    let mut text = [0; 64];
    let read = SCHEDSTAT.with(|file| file.as_ref()?.read_at(&mut text, 0).ok()).unwrap_or(0);
    let text = std::str::from_utf8(&text[..read]).unwrap_or_default();
    let mut times = text
        .split_whitespace()
        .map(|ns| Duration::from_nanos(ns.parse().unwrap_or(0)));
    (times.next().unwrap_or_default(), times.next().unwrap_or_default())
}

/// A number of `/proc/self/status`: kB of `VmRSS`, count of `Threads`.
pub(crate) fn status(key: &str) -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}
