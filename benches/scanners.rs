//! How fast the container scanners read: GB/s over streams of H.264 and AAC, in slices as sources and muxers make them.
//!
//! `cargo bench --bench scanners [-- flv|ts|mp4|mkv …]`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a bench talks to its user and may fail loudly"
)]

mod common;

use std::time::{Duration, Instant};

use gcstreamer_media::container::{Container, MarkKind, scanner_for};

/// Slice sizes: filesrc's default, a large frame, all at once as a buffer list would be.
const SLICES: [usize; 3] = [4 << 10, 64 << 10, 1 << 20];
/// How long each row is measured.
const TIME: Duration = Duration::from_millis(1500);
/// GB/s that the issue asks of TS and FLV.
const TARGET: f64 = 2.0;

fn main() {
    gst::init().unwrap();
    println!("Reading the streams (made by GStreamer at the first run) …");
    let streams = common::streams();
    println!("\n| container | MB | slices | units | median GB/s | best GB/s | target |");
    println!("|---|---:|---:|---:|---:|---:|---|");
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    for (ext, bytes) in streams
        .iter()
        .filter(|(ext, _)| wanted.is_empty() || wanted.iter().any(|w| w == ext))
    {
        let container = match *ext {
            "flv" => Container::Flv,
            "ts" => Container::MpegTs,
            "mp4" => Container::Fmp4,
            _ => Container::Matroska,
        };
        for slice in SLICES {
            row(container, bytes, slice);
        }
    }
    // What the machine can do at most with bytes that have to be looked at at all.
    let bytes = &streams.first().unwrap().1;
    let (median, best) = measure(bytes.len(), || {
        std::hint::black_box(crc32c::crc32c(std::hint::black_box(bytes)));
    });
    println!("\nFor comparison, CRC32C of the same bytes: median {median:.2} GB/s, best {best:.2} GB/s");
}

fn row(container: Container, bytes: &[u8], slice: usize) {
    let units = scan(container, bytes, slice);
    assert!(
        units >= common::FRAMES as usize / 2 || container != Container::Flv,
        "{units} units: the scanner did not see the stream"
    );
    let (median, best) = measure(bytes.len(), || {
        std::hint::black_box(scan(container, std::hint::black_box(bytes), slice));
    });
    let target = match container {
        Container::Flv | Container::MpegTs if median >= TARGET => "2, met",
        Container::Flv | Container::MpegTs => "2, MISSED",
        _ => "none",
    };
    println!(
        "| {} | {:.1} | {} KiB | {units} | {median:.2} | {best:.2} | {target} |",
        container.name(),
        bytes.len() as f64 / 1e6,
        slice >> 10
    );
}

/// One pass as the chunker makes it: marks are drained and `settled` is asked after every slice.
fn scan(container: Container, bytes: &[u8], slice: usize) -> usize {
    let mut scanner = scanner_for(container);
    let (mut marks, mut units) = (Vec::new(), 0);
    let mut count = |marks: &mut Vec<_>| {
        units += marks
            .drain(..)
            .filter(|m: &gcstreamer_media::container::Mark| matches!(m.kind, MarkKind::Unit(_)))
            .count()
    };
    for piece in bytes.chunks(slice) {
        scanner.push(piece, &mut marks).unwrap();
        std::hint::black_box(scanner.settled());
        count(&mut marks);
    }
    scanner.finish(&mut marks);
    count(&mut marks);
    units
}

/// Median and best GB/s of many passes.
fn measure(bytes: usize, mut pass: impl FnMut()) -> (f64, f64) {
    pass();
    let began = Instant::now();
    let mut times = Vec::new();
    while began.elapsed() < TIME || times.len() < 5 {
        let start = Instant::now();
        pass();
        times.push(start.elapsed());
    }
    let speed = |time: Duration| bytes as f64 / 1e9 / time.as_secs_f64();
    (speed(common::quantile(&mut times, 0.5)), speed(times[0]))
}
