//! The chunker over FLV streams: what a reader of the bucket would find.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::clock::Stamp;
use super::*;
use crate::container::flv::test_stream::{AAC, AVC_2, Writer};

pub(super) const S: u64 = 1_000_000_000;
pub(super) const NOW: u64 = 1_795_329_912 * S;

pub(super) const LIMITS: Limits = Limits {
    max_time: 10 * S,
    max_bytes: 0,
    align: false,
    single: false,
    soft: 0,
    hard: 0,
};

/// What came out, put together as objects.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    pub(super) init: BTreeMap<u64, Vec<u8>>,
    pub(super) payload: BTreeMap<u64, Vec<u8>>,
    pub(super) info: BTreeMap<u64, ChunkInfo>,
    pub(super) warnings: Vec<Warning>,
    pub(super) gaps: Vec<(GapReason, u64)>,
    pub(super) wants: usize,
    pub(super) accounted: u64,
}

impl Bucket {
    pub(super) fn take(&mut self, events: Vec<Event>) {
        for event in events {
            match event {
                Event::Begin { sequence, init, .. } => {
                    self.init.insert(sequence, [init.head, init.tail].concat());
                    self.payload.insert(sequence, Vec::new());
                }
                Event::Data { sequence, bytes } => {
                    self.accounted += bytes.len() as u64;
                    self.payload.get_mut(&sequence).unwrap().extend_from_slice(&bytes);
                }
                Event::End(info) => {
                    let size = self.init[&info.sequence].len() + self.payload[&info.sequence].len();
                    assert_eq!(info.size, size as u64, "the size of chunk {}", info.sequence);
                    assert_eq!(info.init_bytes, self.init[&info.sequence].len() as u64);
                    assert_eq!(info.init_crc32c, crc32c::crc32c(&self.init[&info.sequence]));
                    assert!(self.info.insert(info.sequence, *info).is_none());
                }
                Event::Gap { reason, bytes, .. } => self.gaps.push((reason, bytes)),
                Event::Discard(bytes) => self.accounted += bytes,
                Event::Warn(warning) => self.warnings.push(warning),
                Event::WantKeyUnit => self.wants += 1,
                Event::TooLarge(_) => {}
            }
        }
    }

    pub(super) fn joined(&self) -> Vec<u8> {
        let mut all = self.init.get(&0).cloned().unwrap_or_default();
        all.extend(self.payload.values().flatten());
        all
    }
}

pub(super) fn stamp(ms: u64) -> Stamp {
    Stamp {
        running: Some(i64::try_from(ms * 1_000_000).unwrap()),
        clock_running: Some(ms * 1_000_000),
        wall: NOW + ms * 1_000_000,
        reference: None,
        held: 0,
    }
}

pub(super) fn run(limits: Limits, slices: &[&[u8]]) -> Bucket {
    let mut bucket = Bucket::default();
    let mut chunker = Chunker::new(limits, None);
    chunker.clock.playing(false);
    let mut total = 0;
    for slice in slices {
        let mut events = Vec::new();
        total += slice.len() as u64;
        chunker.push(slice, || None, stamp(0), &mut events).unwrap();
        bucket.take(events);
    }
    let mut events = Vec::new();
    chunker.finish(&mut events).unwrap();
    bucket.take(events);
    assert_eq!(
        bucket.accounted, total,
        "every byte is stored, in the init, or told to be let go"
    );
    assert_eq!(bucket.info.len(), bucket.init.len(), "every chunk that began has ended");
    bucket
}

/// 25 frames a second, a key frame every second, sound.
fn recording(seconds: u32) -> Writer {
    let mut w = Writer::head(5);
    w.audio(0);
    for i in 0..seconds * 25 {
        w.picture(i * 40, if i % 25 == 0 { 0x65 } else { 0x61 }, i % 25 == 0, 0);
        w.audio(i * 40 + 20);
    }
    w
}

#[test]
fn chunks_last_ten_seconds_and_join_to_the_input() {
    let input = recording(35).bytes;
    let bucket = run(LIMITS, &[&input]);
    assert_eq!(bucket.joined(), input);
    let durations: Vec<u64> = bucket.info.values().map(|i| i.duration / 1_000_000).collect();
    assert_eq!(durations, [10_000, 10_000, 10_000, 5_000]);
    let starts: Vec<u64> = bucket.info.values().map(|i| i.pts_start.unwrap() / S).collect();
    assert_eq!(starts, [0, 10, 20, 30]);
    assert!(
        bucket
            .info
            .values()
            .all(|i| i.key_frame && i.preview_bytes.unwrap() > i.init_bytes)
    );
    assert_eq!(bucket.info[&0].gap, Some(GapReason::Start));
    assert!(bucket.info.values().skip(1).all(|i| i.gap.is_none()));
    assert_eq!(bucket.info[&2].start, NOW + 20 * S);
    assert!(bucket.warnings.is_empty(), "{:?}", bucket.warnings);
}

#[test]
fn a_stream_joined_in_mid_gop_begins_with_its_first_key_picture() {
    let mut w = Writer::head(5);
    let head = w.bytes.len() as u64;
    w.audio(0);
    w.picture(0, 0x61, true, 0);
    let key = w.picture(40, 0x65, true, 0);
    w.picture(80, 0x61, false, 0);
    let bucket = run(LIMITS, &[&w.bytes]);
    assert_eq!(
        bucket.gaps,
        [(GapReason::Start, key - head)],
        "the head is in front of the chunk"
    );
    assert!(head < key);
    assert_eq!(bucket.payload[&0], w.bytes[usize::try_from(key).unwrap()..]);
    assert!(bucket.info[&0].key_frame);
}

#[test]
fn sound_before_the_first_picture_belongs_to_chunk_0() {
    let mut w = Writer::head(5);
    w.audio(0);
    w.audio(20);
    w.picture(40, 0x65, true, 0);
    let bucket = run(LIMITS, &[&w.bytes]);
    assert!(bucket.gaps.is_empty());
    assert_eq!(bucket.joined(), w.bytes);
    assert_eq!(bucket.info[&0].pts_start, Some(40_000_000));
}

#[test]
fn another_configuration_begins_a_chunk_at_once() {
    let mut w = recording(3);
    w.tag(9, 3000, AVC_2);
    w.tag(8, 3000, AAC);
    for i in 75..150 {
        w.picture(i * 40, if i % 25 == 0 { 0x65 } else { 0x61 }, false, 0);
    }
    let bucket = run(LIMITS, &[&w.bytes]);
    assert_eq!(bucket.joined(), w.bytes);
    assert_eq!(bucket.info.len(), 2);
    assert_eq!(bucket.info[&0].duration, 3 * S);
    assert_eq!(bucket.info[&1].codecs.as_deref(), Some("avc1.4D001F,mp4a.40.2"));
    assert!(bucket.info[&1].gap.is_none() && bucket.info[&1].key_frame);
}

#[test]
fn size_cuts_at_the_key_unit_after_it() {
    let input = recording(10).bytes;
    let bucket = run(
        Limits {
            max_time: 0,
            max_bytes: 50_000,
            ..LIMITS
        },
        &[&input],
    );
    assert_eq!(bucket.joined(), input);
    assert!(bucket.info.len() > 3);
    assert!(
        bucket
            .info
            .values()
            .rev()
            .skip(1)
            .all(|i| i.size >= 50_000 && i.size < 50_000 + 25 * 800)
    );
    assert!(bucket.info.values().all(|i| i.key_frame));
}

#[test]
fn a_fixed_name_is_never_cut() {
    let input = recording(30).bytes;
    let bucket = run(Limits { single: true, ..LIMITS }, &[&input]);
    assert_eq!(bucket.info.len(), 1);
    assert_eq!(bucket.joined(), input);
}

#[test]
fn without_key_units_it_cuts_after_thirty_seconds_and_says_so() {
    let mut w = Writer::head(1);
    for i in 0..25 * 70 {
        w.picture(i * 40, if i == 0 { 0x65 } else { 0x61 }, false, 0);
    }
    let bucket = run(LIMITS, &[&w.bytes]);
    assert_eq!(bucket.joined(), w.bytes);
    assert_eq!(
        bucket.info.values().map(|i| i.key_frame).collect::<Vec<_>>(),
        [true, false, false]
    );
    assert_eq!(
        bucket.warnings,
        [Warning::NoKeyUnit {
            waited: 30 * S,
            interval: None,
            enclosed: false
        }]
    );
    assert!(bucket.wants >= 1, "a key unit is asked for");
}

#[test]
fn a_chunk_is_cut_early_at_a_key_and_at_last_anywhere() {
    let input = recording(20).bytes;
    let at_key = run(
        Limits {
            soft: 60_000,
            hard: 120_000,
            ..LIMITS
        },
        &[&input],
    );
    assert_eq!(at_key.joined(), input);
    assert!(at_key.info.values().all(|i| i.key_frame && i.size < 120_000));
    assert!(matches!(at_key.warnings[..], [Warning::EarlyCut { at_key: true, .. }]));
    let anywhere = run(
        Limits {
            soft: 5_000,
            hard: 10_000,
            ..LIMITS
        },
        &[&input],
    );
    assert_eq!(anywhere.joined(), input);
    assert!(anywhere.info.values().all(|i| i.size < 12_600));
    assert!(
        anywhere
            .info
            .values()
            .any(|i| !i.key_frame && i.gap == Some(GapReason::EarlyCut))
    );
}

#[test]
fn damage_is_stored_and_the_next_chunk_says_so() {
    let mut w = recording(4);
    w.bytes.extend([0u8; 99]);
    for i in 100..200 {
        w.picture(i * 40, if i % 25 == 5 { 0x65 } else { 0x61 }, false, 0);
    }
    let bucket = run(LIMITS, &[&w.bytes]);
    assert_eq!(bucket.joined(), w.bytes);
    assert_eq!(bucket.info.len(), 2);
    assert_eq!(bucket.info[&1].gap, Some(GapReason::Damage));
    assert!(bucket.info[&1].key_frame);
    assert_eq!(bucket.info[&1].pts_start, Some(105 * 40_000_000));
}

#[test]
fn with_align_to_clock_chunks_begin_at_whole_multiples() {
    // NOW ends in …:12 s: the first cut is due at …:20.
    let input = recording(35).bytes;
    let bucket = run(Limits { align: true, ..LIMITS }, &[&input]);
    let starts: Vec<u64> = bucket.info.values().map(|i| i.start / S % 10).collect();
    assert_eq!(starts, [2, 0, 0, 0]);
}

#[test]
fn a_stream_without_pictures_is_cut_at_any_unit() {
    let mut w = Writer::new(4);
    w.tag(8, 0, AAC);
    for i in 0..1100 {
        w.audio(i * 20);
    }
    let bucket = run(LIMITS, &[&w.bytes]);
    assert_eq!(bucket.joined(), w.bytes);
    assert_eq!(
        bucket.info.values().map(|i| i.duration / 1_000_000).collect::<Vec<_>>(),
        // The last frame has the 1024 samples that its configuration says, 23 ms.
        [10_000, 10_000, 2_003]
    );
    assert!(bucket.info.values().all(|i| i.key_frame && i.audio_only));
}

#[test]
fn unknown_bytes_are_kept_as_they_come() {
    let text = b"GET / HTTP/1.1\r\n".repeat(5000);
    let bucket = run(LIMITS, &[&text]);
    assert_eq!(bucket.joined(), text);
    assert_eq!(bucket.info[&0].container, crate::container::Container::Raw);
    assert_eq!(bucket.warnings, [Warning::UnknownContainer]);
}

#[test]
fn after_a_standstill_a_new_chunk_begins_with_what_comes_next() {
    let w = recording(12);
    let cut = w.bytes.len();
    let mut w = w;
    for i in 300..400 {
        w.picture(i * 40, if i % 25 == 5 { 0x65 } else { 0x61 }, false, 0);
    }
    let mut bucket = Bucket::default();
    let mut chunker = Chunker::new(LIMITS, None);
    let mut events = Vec::new();
    chunker.push(&w.bytes[..cut], || None, stamp(0), &mut events).unwrap();
    chunker.close_idle(&mut events);
    assert_eq!(
        events.iter().filter(|e| matches!(e, Event::End(_))).count(),
        2,
        "the open chunk is closed at once"
    );
    chunker.push(&w.bytes[cut..], || None, stamp(20_000), &mut events).unwrap();
    chunker.finish(&mut events).unwrap();
    bucket.take(events);
    assert_eq!(bucket.joined(), w.bytes);
    let summary: Vec<_> = bucket.info.values().map(|i| (i.key_frame, i.gap)).collect();
    assert_eq!(
        summary,
        [
            (true, Some(GapReason::Start)),
            (true, None),
            (false, Some(GapReason::Stalled)),
            (true, None)
        ]
    );
}

#[test]
fn a_unit_torn_by_a_standstill_spoils_no_later_chunk() {
    let mut w = recording(3);
    w.picture(2990, 0x61, false, 0);
    let whole = w.bytes.len();
    let key = w.picture(3000, 0x65, true, 0);
    w.picture(3040, 0x61, false, 0);
    let mut chunker = Chunker::new(LIMITS, None);
    let mut events = Vec::new();
    chunker.push(&w.bytes[..whole - 9], || None, stamp(0), &mut events).unwrap();
    chunker.close_idle(&mut events);
    chunker
        .push(&w.bytes[whole - 9..], || None, stamp(20_000), &mut events)
        .unwrap();
    chunker.finish(&mut events).unwrap();
    let mut bucket = Bucket::default();
    bucket.take(events);
    assert_eq!(bucket.joined(), w.bytes);
    let last = bucket.info.values().last().unwrap();
    assert!(last.key_frame);
    assert_eq!(bucket.payload[&last.sequence], w.bytes[usize::try_from(key).unwrap()..]);
}

#[test]
fn a_standstill_within_a_unit_tears_nothing_and_leaves_the_unit_to_the_next_chunk() {
    let mut w = recording(3);
    let torn = w.picture(3000, 0x61, false, 0);
    let torn_end = w.bytes.len();
    w.picture(3040, 0x65, true, 0);
    let torn_at = usize::try_from(torn).unwrap();
    for cut in [torn_at + 3, torn_at + 400, torn_at + 760, torn_end - 1] {
        let mut chunker = Chunker::new(LIMITS, None);
        let mut events = Vec::new();
        chunker.push(&w.bytes[..cut], || None, stamp(0), &mut events).unwrap();
        chunker.close_idle(&mut events);
        chunker.push(&w.bytes[cut..], || None, stamp(20_000), &mut events).unwrap();
        chunker.finish(&mut events).unwrap();
        let mut bucket = Bucket::default();
        bucket.take(events);
        assert_eq!(bucket.joined(), w.bytes, "cut at {cut}");
        assert_eq!(bucket.payload[&1][..], w.bytes[torn_at..torn_end], "cut at {cut}");
        assert_eq!(bucket.info[&0].duration, 3 * S, "cut at {cut}");
        assert_eq!(bucket.info[&1].pts_start, Some(3 * S), "cut at {cut}");
        assert!(bucket.info[&2].key_frame);
    }
}

#[test]
fn a_gap_before_the_first_key_unit_is_as_long_as_its_media_time() {
    let mut bucket = Bucket::default();
    let mut w = Writer::head(5);
    for i in 0..50u32 {
        w.picture(i * 40, if i < 25 { 0x61 } else { 0x65 }, false, 0);
    }
    bucket.take({
        let mut events = Vec::new();
        let mut chunker = Chunker::new(LIMITS, None);
        chunker.push(&w.bytes, || None, stamp(0), &mut events).unwrap();
        chunker.finish(&mut events).unwrap();
        let durations: Vec<u64> = events
            .iter()
            .filter_map(|e| {
                if let Event::Gap { duration, .. } = e {
                    Some(*duration)
                } else {
                    None
                }
            })
            .collect();
        assert_eq!(durations, [S]);
        events
    });
    assert_eq!(bucket.info[&0].pts_start, Some(S));
}

#[test]
fn a_muxer_that_goes_back_is_reported_once_and_what_it_writes_is_no_other_warning() {
    let mut w = recording(2);
    let mut chunker = Chunker::new(LIMITS, None);
    let mut events = Vec::new();
    chunker.goes_back(0, &mut events);
    chunker.push(&w.bytes, || None, stamp(0), &mut events).unwrap();
    chunker.goes_back(0, &mut events);
    assert!(
        !events.iter().any(|e| matches!(e, Event::Warn(_))),
        "files one after the other"
    );
    chunker.goes_back(13, &mut events);
    chunker.goes_back(40, &mut events);
    let written = [7u8; 90];
    chunker.push(&written, || None, stamp(0), &mut events).unwrap();
    chunker.finish(&mut events).unwrap();
    let mut bucket = Bucket::default();
    bucket.take(events);
    w.bytes.extend(written);
    assert_eq!(bucket.joined(), w.bytes);
    assert_eq!(bucket.warnings, [Warning::Rewritten(13)]);
}

#[test]
fn recording_that_stops_within_a_unit_ends_with_the_last_whole_one() {
    let mut w = recording(2);
    let torn = w.picture(2000, 0x61, false, 0);
    let mut chunker = Chunker::new(LIMITS, None);
    let mut events = Vec::new();
    let cut = w.bytes.len() - 9;
    chunker.push(&w.bytes[..cut], || None, stamp(0), &mut events).unwrap();
    chunker.record(false, &mut events);
    let mut bucket = Bucket::default();
    bucket.take(events);
    assert_eq!(bucket.joined(), w.bytes[..usize::try_from(torn).unwrap()]);
}

/// Returns the gaps of a stream of 50 pictures 40 ms apart, pushed in slices of `slice` pictures. Recording is stopped after
/// the first `stop_after`, and the stream ends without a start.
fn gaps_at_the_end(nal: u8, stop_after: usize, slice: usize) -> Vec<(GapReason, u64)> {
    let mut w = Writer::head(5);
    let mut borders = Vec::new();
    for i in 0..50u32 {
        w.picture(i * 40, if i == 0 { nal } else { 0x61 }, false, 0);
        borders.push(w.bytes.len());
    }
    let (mut chunker, mut events, mut from) = (Chunker::new(LIMITS, None), Vec::new(), 0);
    chunker.clock.playing(true);
    for (i, &to) in borders.iter().enumerate() {
        if i == stop_after {
            chunker.record(false, &mut events);
        }
        if (i + 1) % slice == 0 || i + 1 == stop_after {
            chunker
                .push(&w.bytes[from..to], || None, stamp(i as u64 * 40), &mut events)
                .unwrap();
            from = to;
        }
    }
    chunker.finish(&mut events).unwrap();
    let gap = |event: &Event| match event {
        Event::Gap { reason, duration, .. } => Some((*reason, *duration)),
        _ => None,
    };
    events.iter().filter_map(gap).collect()
}

#[test]
fn recording_that_is_stopped_before_the_first_byte_is_a_gap_from_that_byte_to_the_next_start() {
    for slice in [1, 5, 25] {
        let never = gaps_at_the_end(0x65, 0, slice);
        assert_eq!(never.len(), 1, "{never:?}");
        assert_eq!(never[0].0, GapReason::RecordStopped);
        assert!(never[0].1.abs_diff(2 * S) <= S / 10, "slices of {slice}: {never:?}");
    }
    let w = recording(4);
    let half = w.bytes.len() / 2;
    let (mut chunker, mut events) = (Chunker::new(LIMITS, None), Vec::new());
    chunker.clock.playing(true);
    chunker.record(false, &mut events);
    chunker.push(&w.bytes[..half], || None, stamp(0), &mut events).unwrap();
    chunker.record(true, &mut events);
    chunker.push(&w.bytes[half..], || None, stamp(2000), &mut events).unwrap();
    chunker.finish(&mut events).unwrap();
    let gaps: Vec<(u64, u64)> = events
        .iter()
        .filter_map(|event| match event {
            Event::Gap { start, duration, .. } => Some((*start, *duration)),
            _ => None,
        })
        .collect();
    let mut bucket = Bucket::default();
    bucket.take(events);
    let first = &bucket.info[&0];
    let [(start, duration)] = gaps[..] else { panic!("{gaps:?}") };
    assert!(start > 1_000_000_000 * S, "it has a time: {start}");
    assert_eq!(start + duration, first.start, "and ends where the recording begins");
    assert!(first.key_frame, "{first:?}");
}

#[test]
fn a_gap_that_lasts_until_the_end_is_as_long_as_what_is_missing() {
    for slice in [1, 5, 25] {
        let stopped = gaps_at_the_end(0x65, 25, slice);
        assert_eq!(stopped.len(), 1, "{stopped:?}");
        assert_eq!(stopped[0].0, GapReason::RecordStopped);
        assert!(stopped[0].1.abs_diff(S) <= S / 20, "slices of {slice}: {stopped:?}");
        let no_key_unit = gaps_at_the_end(0x61, usize::MAX, slice);
        assert_eq!(no_key_unit.len(), 1, "{no_key_unit:?}");
        assert!(
            no_key_unit[0].1.abs_diff(2 * S) <= S / 20,
            "slices of {slice}: {no_key_unit:?}"
        );
    }
}

#[test]
fn a_wrong_time_cuts_nowhere_but_at_the_next_key_unit_and_says_nothing_of_lengths() {
    for wrong in [86_400_000u32, 0] {
        let mut w = Writer::head(5);
        for i in 0..10 * 25u32 {
            let ms = if i == 130 { wrong } else { 100_000 + i * 40 };
            w.picture(ms, if i % 25 == 0 { 0x65 } else { 0x61 }, i % 25 == 0, 0);
        }
        let bucket = run(LIMITS, &[&w.bytes]);
        assert_eq!(bucket.joined(), w.bytes);
        let reported: Vec<_> = bucket.info.values().map(|i| (i.key_frame, i.duration, i.start)).collect();
        assert_eq!(reported, [(true, 6 * S, NOW), (true, 4 * S, NOW + 6 * S)], "{wrong}");
        assert!(bucket.warnings.is_empty(), "{:?}", bucket.warnings);
    }
}

#[test]
fn a_time_line_that_begins_again_opens_a_chunk_and_time_goes_on() {
    for next in [2_000_000u32, 0] {
        let mut w = Writer::head(5);
        for i in 0..8 * 25u32 {
            let ms = if i < 60 { 500_000 + i * 40 } else { next + i * 40 };
            w.picture(ms, if i % 25 == 0 { 0x65 } else { 0x61 }, i % 25 == 0, 0);
        }
        let bucket = run(LIMITS, &[&w.bytes]);
        assert_eq!(bucket.joined(), w.bytes);
        let reported: Vec<_> = bucket.info.values().map(|i| (i.key_frame, i.duration, i.start)).collect();
        assert_eq!(reported, [(true, 3 * S, NOW), (true, 5 * S, NOW + 3 * S)], "{next}");
        assert_eq!(bucket.info[&1].pts_start, Some((u64::from(next) + 3000) * 1_000_000));
    }
}

#[test]
fn what_never_came_to_a_unit_is_reported_as_a_gap() {
    let bucket = run(LIMITS, &[&Writer::head(5).bytes]);
    assert!(bucket.info.is_empty());
    assert_eq!(bucket.gaps, [(GapReason::Start, Writer::head(5).bytes.len() as u64)]);
}

#[test]
fn sound_that_goes_on_without_pictures_is_still_cut() {
    let mut w = recording(5);
    for i in 0..5000 {
        w.audio(5000 + i * 20);
    }
    let bucket = run(LIMITS, &[&w.bytes]);
    assert_eq!(bucket.joined(), w.bytes);
    assert!(bucket.info.len() >= 3, "{}", bucket.info.len());
    assert!(bucket.info.values().all(|i| i.duration <= 41 * S));
}

#[test]
fn bytes_without_any_unit_never_pile_up() {
    let limits = Limits {
        soft: 50_000,
        hard: 100_000,
        ..LIMITS
    };
    // Null packets of a transport stream, and a header that is followed by nothing that is known.
    let mut ts = [0xffu8; 188];
    ts[..4].copy_from_slice(&[0x47, 0x1f, 0xff, 0x10]);
    for input in [ts.repeat(3000), [Writer::head(5).bytes, vec![0; 600_000]].concat()] {
        let slices: Vec<&[u8]> = input.chunks(1316).collect();
        let bucket = run(limits, &slices);
        assert!(
            bucket.info.values().all(|i| i.size <= 130_000),
            "{:?}",
            bucket.info.values().map(|i| i.size).collect::<Vec<_>>()
        );
        assert_eq!(bucket.joined().len(), input.len());
    }
}

#[test]
fn a_first_buffer_without_a_time_is_dated_by_the_next() {
    let mut w = Writer::head(1);
    w.picture(0, 0x65, true, 0);
    let first = w.bytes.len();
    w.picture(80, 0x61, false, 0);
    let mut chunker = Chunker::new(LIMITS, None);
    chunker.clock.playing(true);
    let mut events = Vec::new();
    let late = Stamp {
        running: None,
        ..stamp(5000)
    };
    chunker.push(&w.bytes[..first], || None, late, &mut events).unwrap();
    chunker
        .push(
            &w.bytes[first..],
            || None,
            Stamp {
                running: Some(3_080_000_000),
                ..stamp(5001)
            },
            &mut events,
        )
        .unwrap();
    chunker.finish(&mut events).unwrap();
    let mut bucket = Bucket::default();
    bucket.take(events);
    assert_eq!(bucket.info[&0].start, NOW + 3 * S);
}

#[test]
fn a_last_chunk_of_one_frame_is_one_frame_long() {
    let mut w = recording(10);
    w.picture(10_000, 0x65, true, 0);
    let bucket = run(LIMITS, &[&w.bytes]);
    assert_eq!(bucket.info[&1].duration, 40_000_000);
}

#[test]
fn extreme_settings_and_times_do_not_overflow() {
    let limits = Limits {
        max_time: u64::MAX,
        align: true,
        ..LIMITS
    };
    let mut w = Writer::head(1);
    w.picture(u32::MAX, 0x65, true, 0x7f);
    w.picture(0, 0x65, true, 0);
    let bucket = run(limits, &[&w.bytes]);
    assert_eq!(bucket.joined(), w.bytes);
}

#[test]
fn an_armed_cut_is_taken_at_the_next_key_unit() {
    let w = recording(5);
    let key_at_2s = w.bytes.len() / 5 * 2;
    let mut chunker = Chunker::new(LIMITS, None);
    let mut events = Vec::new();
    chunker
        .push(&w.bytes[..key_at_2s - 500], || None, stamp(0), &mut events)
        .unwrap();
    chunker.arm();
    chunker
        .push(&w.bytes[key_at_2s - 500..], || None, stamp(0), &mut events)
        .unwrap();
    chunker.finish(&mut events).unwrap();
    let mut bucket = Bucket::default();
    bucket.take(events);
    assert_eq!(bucket.joined(), w.bytes);
    assert_eq!(bucket.info.len(), 2);
    assert!(bucket.info[&1].key_frame);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn slicing_never_changes_the_chunks(mut cuts in prop::collection::vec(0usize..300_000, 0..60)) {
        let input = recording(12).bytes;
        cuts.retain(|&c| c < input.len());
        cuts.sort_unstable();
        let mut slices = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([input.len()]) {
            slices.push(&input[from..cut]);
            from = cut;
        }
        let (a, b) = (run(LIMITS, &[&input]), run(LIMITS, &slices));
        prop_assert_eq!(a.init, b.init);
        prop_assert_eq!(a.payload, b.payload);
        prop_assert_eq!(a.info, b.info);
    }
}

#[test]
fn an_mp4_that_ends_before_its_index_is_an_error_and_no_silent_success() {
    let ftyp = b"\0\0\0\x18ftypisom\0\0\0\0isommp41\0\0\0\x10free\0\0\0\0\0\0\0\0";
    let mut chunker = Chunker::new(LIMITS, None);
    let mut events = Vec::new();
    chunker.push(ftyp, || None, stamp(0), &mut events).unwrap();
    assert_eq!(chunker.missing_head(), Some(crate::container::Fault::Unfragmented));
    assert_eq!(chunker.finish(&mut events), Err(crate::container::Fault::Unfragmented));
    assert!(events.iter().any(|event| matches!(event, Event::Gap { bytes: 40, .. })));
}

#[test]
fn an_mp4_whose_head_is_damaged_is_an_error_and_a_gap_and_nothing_that_cannot_play_is_stored() {
    let moov = b"\0\0\0\x18moov\0\xff\0\x6cmvhd--------";
    let moof = b"\0\0\0\x18moof\0\0\0\x10mfhd\0\0\0\0\0\0\0\x01\0\0\0\x10mdat--------";
    let mut chunker = Chunker::new(LIMITS, None);
    let mut events = Vec::new();
    let input = [&b"\0\0\0\x14ftypiso5\0\0\0\0iso5"[..], moov, moof].concat();
    let bytes = || Some(bytes::Bytes::copy_from_slice(&input));
    chunker.push(&input, bytes, stamp(0), &mut events).unwrap();
    assert_eq!(chunker.finish(&mut events), Err(crate::container::Fault::NoHead));
    assert!(!events.iter().any(|event| matches!(event, Event::Begin { .. })));
    let lost = |event: &Event| match event {
        Event::Gap { bytes, .. } | Event::Discard(bytes) => *bytes,
        _ => 0,
    };
    assert_eq!(events.iter().map(lost).max(), Some(input.len() as u64));
}
