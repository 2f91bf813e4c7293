//! When chunks were captured, by the buffers that each muxer sends: what a user of the bucket would notice.

use super::clock::{ClockKind, Stamp};
use super::tests::{LIMITS, NOW, S};
use super::tests_input::{CONTAINERS, Frame, Input};
use super::*;
use crate::container::Container;
use crate::container::fmp4::test_stream as fmp4;

const MS: u64 = 1_000_000;
const DAY_MS: i64 = 86_400_000;
/// What `mpegtsmux` adds to running times.
const HOUR_MS: u64 = 3_600_000;

/// A buffer. Times in ms since PLAYING.
struct Buffer {
    bytes: Vec<u8>,
    running: Option<u64>,
    arrival: u64,
}

/// A fragment of MP4: its boxes, its time, and the size and the length of its samples.
struct Fragment {
    bytes: Vec<u8>,
    ms: u64,
    size: usize,
    step: u64,
}

/// Ten pictures, the first of them key.
fn pictures(ms: u64) -> Fragment {
    let samples: Vec<_> = std::iter::once(fmp4::idr())
        .chain(std::iter::repeat_n(fmp4::inter(), 9))
        .map(|sample| fmp4::Sample { duration: 100, ..sample })
        .collect();
    Fragment {
        bytes: fmp4::video(ms, &samples),
        ms,
        size: samples[0].data.len(),
        step: 100,
    }
}

/// A second of sound.
fn sound(ms: u64) -> Fragment {
    Fragment {
        bytes: fmp4::audio(ms, 47),
        ms,
        size: 10,
        step: 21,
    }
}

/// What `mp4mux` sends: a fragment when it is over, each of its samples as a buffer with a time, its boxes as buffers without.
fn mp4mux(head: &[u8], fragments: impl IntoIterator<Item = Fragment>) -> Vec<Buffer> {
    let mut all = Vec::new();
    for Fragment { bytes, ms, size, step } in fragments {
        let mut push = |bytes: &[u8], running| {
            all.push(Buffer {
                bytes: bytes.to_vec(),
                running,
                arrival: ms + 1100,
            });
        };
        let moof = usize::try_from(u32::from_be_bytes(bytes[..4].try_into().unwrap())).unwrap();
        push(&bytes[..moof], None);
        push(&bytes[moof..moof + 8], None);
        for (i, sample) in bytes[moof + 8..].chunks(size).enumerate() {
            push(sample, Some(ms + i as u64 * step));
        }
    }
    let arrival = all[0].arrival;
    all.insert(
        0,
        Buffer {
            bytes: head.to_vec(),
            running: None,
            arrival,
        },
    );
    all
}

/// What the other muxers send: each picture as a buffer with its time. `mpegtsmux` lets these times begin at 0.
fn one_by_one(container: Container, from: u64, to: u64) -> Vec<Buffer> {
    let (base, origin) = if container == Container::MpegTs {
        (HOUR_MS, from)
    } else {
        (0, 0)
    };
    let mut input = Input::new(container);
    let picture = |ms: u64| {
        let is_key = (ms - from).is_multiple_of(1000);
        input.frame(if is_key {
            Frame::Key(base + ms)
        } else {
            Frame::Inter(base + ms)
        });
        Buffer {
            bytes: input.take(),
            running: Some(ms - origin),
            arrival: ms + 30,
        }
    };
    (from..to).step_by(100).map(picture).collect()
}

/// Ten pictures a second, a key frame each second.
fn muxed(container: Container, from: u64, to: u64) -> Vec<Buffer> {
    match container {
        Container::Fmp4 => mp4mux(&fmp4::av_head(), (from..to).step_by(1000).map(pictures)),
        _ => one_by_one(container, from, to),
    }
}

fn live() -> Chunker {
    let mut chunker = Chunker::new(LIMITS, None);
    chunker.clock.playing(true);
    chunker.clock.set_muxed(true);
    chunker
}

/// The wall clock by when it is, ms since PLAYING.
fn steady(ms: u64) -> u64 {
    NOW + ms * MS
}

fn record(mut chunker: Chunker, buffers: &[Buffer], wall: impl Fn(u64) -> u64) -> Vec<ChunkInfo> {
    let mut events = Vec::new();
    for buffer in buffers {
        let stamp = Stamp {
            running: buffer.running.map(|ms| i64::try_from(ms * MS).unwrap()),
            clock_running: Some(buffer.arrival * MS),
            wall: wall(buffer.arrival),
            reference: None,
            held: 0,
        };
        chunker.push(&buffer.bytes, || None, stamp, &mut events).unwrap();
    }
    chunker.finish(&mut events).unwrap();
    let ended = events.into_iter().filter_map(|event| match event {
        Event::End(info) => Some(*info),
        _ => None,
    });
    ended.collect()
}

/// Where chunks start, ms since PLAYING by a steady clock.
fn starts(chunks: &[ChunkInfo]) -> Vec<i64> {
    let ms = |ns: u64| i64::try_from(ns / MS).unwrap();
    chunks.iter().map(|chunk| ms(chunk.start) - ms(NOW)).collect()
}

#[test]
fn live_chunks_are_dated_by_when_their_first_picture_was_captured() {
    for container in CONTAINERS {
        // A camera that starts at once, and one that takes its time.
        for from in [0, 5000] {
            let chunks = record(live(), &muxed(container, from, from + 35_000), steady);
            let from = i64::try_from(from).unwrap();
            let expected = [0, 10_000, 20_000, 30_000].map(|ms| from + ms);
            assert_eq!(starts(&chunks), expected, "{container:?}");
            assert!(chunks.iter().all(|chunk| chunk.clock == ClockKind::System), "{container:?}");
        }
    }
}

#[test]
fn the_cameras_clock_counts_behind_every_muxer() {
    for container in CONTAINERS {
        for from in [0, 5000] {
            let mut chunker = live();
            // The camera's clock is a day behind.
            chunker.clock.map(from * MS, steady(from) - DAY_MS.unsigned_abs() * MS);
            let chunks = record(chunker, &muxed(container, from, from + 25_000), steady);
            let from = i64::try_from(from).unwrap();
            let expected = [0, 10_000, 20_000].map(|ms| from + ms - DAY_MS);
            assert_eq!(starts(&chunks), expected, "{container:?}");
            assert!(chunks.iter().all(|chunk| chunk.clock == ClockKind::Ntp), "{container:?}");
        }
    }
}

/// Chunks behind a step of the wall clock after 25 s are dated by the new time, those before by the old.
fn steps(what: &str, make: impl Fn() -> Chunker, buffers: &[Buffer]) {
    let before = starts(&record(make(), buffers, steady));
    assert_eq!(before.len(), 6, "{what}: {before:?}");
    for by in [DAY_MS, -DAY_MS, 1500, -1500] {
        let wall = |ms: u64| {
            let step = if ms < 25_000 { 0 } else { by * 1_000_000 };
            steady(ms).saturating_add_signed(step)
        };
        let chunks = record(make(), buffers, wall);
        let expected: Vec<i64> = before
            .iter()
            .enumerate()
            .map(|(i, &start)| start + if i < 3 { 0 } else { by })
            .collect();
        assert_eq!(starts(&chunks), expected, "{what}, by {by} ms");
        let noted: Vec<Option<i64>> = chunks.iter().map(|chunk| chunk.clock_step_ms).collect();
        assert_eq!(noted, [None, None, None, Some(by), None, None], "{what}, by {by} ms");
    }
}

#[test]
fn a_step_of_the_wall_clock_moves_the_dates_behind_every_muxer() {
    for container in CONTAINERS {
        let buffers = muxed(container, 0, 60_000);
        steps(&format!("{container:?}, live"), live, &buffers);
        let untimed: Vec<Buffer> = buffers.into_iter().map(|buffer| Buffer { running: None, ..buffer }).collect();
        steps(&format!("{container:?}, live without times"), live, &untimed);
        // From a pipe, or by HLS.
        let not_live = || {
            let mut chunker = Chunker::new(LIMITS, None);
            chunker.clock.playing(false);
            chunker
        };
        steps(&format!("{container:?}, not live"), not_live, &untimed);
    }
}

#[test]
fn a_step_of_the_wall_clock_moves_the_dates_of_what_has_no_times_of_its_own() {
    for (what, is_live, is_timed) in [
        ("live with times", true, true),
        ("live", true, false),
        ("not live", false, false),
    ] {
        let make = || {
            let mut chunker = Chunker::new(LIMITS, None);
            chunker.clock.playing(is_live);
            chunker
        };
        let buffer = |ms: u64| Buffer {
            bytes: vec![b'x'; 70_000],
            running: is_timed.then_some(ms),
            arrival: ms,
        };
        let buffers: Vec<Buffer> = (0..60_000).step_by(100).map(buffer).collect();
        steps(&format!("unparsed, {what}"), make, &buffers);
    }
}

#[test]
fn fragments_of_sound_alone_are_dated_by_when_they_were_captured() {
    let head = fmp4::head(&[fmp4::Trak::audio(fmp4::aac())]);
    for from in [0, 5000] {
        let buffers = mp4mux(&head, (from..from + 35_000).step_by(1000).map(sound));
        let from = i64::try_from(from).unwrap();
        let expected = [0, 10_000, 20_000, 30_000].map(|ms| from + ms);
        assert_eq!(starts(&record(live(), &buffers, steady)), expected);
    }
}

#[test]
fn sound_in_front_of_a_key_frame_does_not_date_it() {
    // The fragment of sound is the first of the unit; it begins 400 ms before the picture.
    let fragments = (1..35).flat_map(|second| [sound(second * 1000 - 400), pictures(second * 1000)]);
    let chunks = record(live(), &mp4mux(&fmp4::av_head(), fragments), steady);
    assert_eq!(starts(&chunks), [1000, 11_000, 21_000, 31_000]);
    assert!(chunks.iter().all(|chunk| chunk.key_frame));
}

#[test]
fn fragments_are_cut_at_the_clock_by_when_they_were_captured() {
    let mut chunker = live();
    chunker.set_limits(Limits { align: true, ..LIMITS });
    let chunks = record(chunker, &muxed(Container::Fmp4, 0, 35_000), steady);
    // 10 s of UTC end 8 s after the start.
    assert_eq!(starts(&chunks), [0, 8000, 18_000, 28_000]);
}

#[test]
fn a_transport_stream_that_was_muxed_elsewhere_is_dated_by_its_buffers() {
    let mut chunker = live();
    chunker.clock.set_muxed(false);
    let mut buffers = muxed(Container::MpegTs, 2500, 27_500);
    // Its own times lie, by chance, between those of the buffers and their arrival.
    for buffer in &mut buffers {
        buffer.running = buffer.running.map(|ms| ms + 2000);
        buffer.arrival += 500;
    }
    assert_eq!(starts(&record(chunker, &buffers, steady)), [2000, 12_000, 22_000]);
}

#[test]
fn a_transport_stream_whose_muxer_was_linked_after_days_is_dated_right() {
    // Its times have wrapped twice.
    let days = 60 * HOUR_MS;
    let mut buffers = muxed(Container::MpegTs, days - 2 * 95_443_718, days - 2 * 95_443_718 + 25_000);
    for buffer in &mut buffers {
        buffer.arrival += 2 * 95_443_718;
    }
    let chunks = record(live(), &buffers, steady);
    let days = i64::try_from(days).unwrap();
    for (start, expected) in starts(&chunks).into_iter().zip([days, days + 10_000, days + 20_000]) {
        assert!((start - expected).abs() <= 1, "{start} {expected}");
    }
}

#[test]
fn a_pause_is_no_media_time_of_a_live_stream() {
    let mut buffers = muxed(Container::Fmp4, 0, 40_000);
    buffers.iter_mut().for_each(|buffer| buffer.running = None);
    let (before, after) = buffers.split_at(buffers.len() / 2);
    let mut chunker = live();
    let mut events = Vec::new();
    for (buffers, pause) in [(before, 0), (after, 600)] {
        chunker.clock.playing(true);
        for buffer in buffers {
            let stamp = Stamp {
                // Running time does not go on in a pause.
                clock_running: Some(buffer.arrival * MS),
                wall: steady(buffer.arrival) + pause * S,
                ..Stamp::default()
            };
            chunker.push(&buffer.bytes, || None, stamp, &mut events).unwrap();
        }
    }
    chunker.finish(&mut events).unwrap();
    let last = events.into_iter().filter_map(|event| match event {
        Event::End(info) => Some(*info),
        _ => None,
    });
    let starts = starts(&last.collect::<Vec<_>>());
    // A fragment without times is dated by its arrival, a second late.
    assert_eq!(starts, [1100, 11_100, 621_100, 631_100]);
}
