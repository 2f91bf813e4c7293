//! Times that are wrong, freeze or are absent: what a user of the bucket would notice, alike in every container.

use super::clock::Stamp;
use super::tests::{LIMITS, NOW, S};
use super::tests_input::{CONTAINERS, Frame, Input};
use super::*;
use crate::container::Container;
use crate::container::flv::test_stream as flv;
use crate::container::fmp4::test_stream as fmp4;
use crate::container::mpegts::tests::writer as ts;

const MS: u64 = 1_000_000;

/// How the buffers of a recording come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    /// From a file, all at once.
    File,
    /// Live, without times of the buffers.
    Live,
    /// Live, the buffers with the times of the frames.
    LiveTimed,
}

/// A frame, and when it arrives in ms.
type Coming = (Frame, u64);

struct Recorded {
    chunks: Vec<ChunkInfo>,
    /// How many chunks had ended when that many ms had passed.
    ended: Vec<(u64, usize)>,
    warnings: Vec<Warning>,
    /// By how much names were ahead of arrival, ns.
    ahead: u64,
}

impl Recorded {
    fn ms(&self) -> Vec<u64> {
        self.chunks.iter().map(|chunk| (chunk.duration + MS / 2) / MS).collect()
    }

    fn total_ms(&self) -> u64 {
        self.ms().iter().sum()
    }

    /// Starts in ms since the recording began.
    fn starts(&self) -> Vec<u64> {
        self.chunks.iter().map(|chunk| chunk.start.saturating_sub(NOW) / MS).collect()
    }

    /// Checks that each chunk starts where the one before ended, within `tolerance` ms.
    fn adds_up(&self, tolerance: u64, context: &str) {
        for pair in self.chunks.windows(2) {
            let end = pair[0].start + pair[0].duration;
            assert!(
                end.abs_diff(pair[1].start) <= tolerance * MS,
                "{context}: {:?} {:?}",
                self.starts(),
                self.ms()
            );
        }
    }
}

fn record(container: Container, line: Line, frames: impl IntoIterator<Item = Coming>) -> Recorded {
    let mut input = Input::new(container);
    let mut chunker = Chunker::new(LIMITS, None);
    chunker.clock.playing(line != Line::File);
    let mut out = Recorded {
        chunks: Vec::new(),
        ended: Vec::new(),
        warnings: Vec::new(),
        ahead: 0,
    };
    let mut events = Vec::new();
    let mut take = |events: &mut Vec<Event>, arrival: u64| {
        for event in events.drain(..) {
            match event {
                Event::End(info) => {
                    out.ahead = out.ahead.max(info.start.saturating_sub(NOW + arrival * MS));
                    out.chunks.push(*info);
                    out.ended.push((arrival, out.chunks.len()));
                }
                Event::Warn(warning) => out.warnings.push(warning),
                _ => {}
            }
        }
    };
    let mut last = 0;
    for (frame, arrival) in frames {
        input.frame(frame);
        let (Frame::Key(ms) | Frame::Inter(ms) | Frame::Sound(ms)) = frame;
        let arrival = if line == Line::File { 0 } else { arrival };
        let stamp = Stamp {
            running: (line == Line::LiveTimed).then(|| i64::try_from(ms * MS).unwrap()),
            clock_running: (line != Line::File).then_some(arrival * MS),
            wall: NOW + arrival * MS,
            reference: None,
            held: 0,
        };
        chunker.push(&input.take(), || None, stamp, &mut events).unwrap();
        take(&mut events, arrival);
        last = arrival;
    }
    chunker.finish(&mut events).unwrap();
    take(&mut events, last);
    out
}

/// Every container, from a file and live.
fn everywhere(lines: &[Line], frames: &[Coming], check: impl Fn(&Recorded, &str)) {
    for container in CONTAINERS {
        for &line in lines {
            let recorded = record(container, line, frames.iter().copied());
            check(&recorded, &format!("{container:?} {line:?}"));
        }
    }
}

const ALL: &[Line] = &[Line::File, Line::Live, Line::LiveTimed];
const LIVE: &[Line] = &[Line::Live, Line::LiveTimed];

/// Sound for so many ms.
fn sound(from: u64, to: u64) -> impl Iterator<Item = Coming> {
    (from / 20..to / 20).map(|i| (Frame::Sound(i * 20), i * 20))
}

/// 25 pictures a second, a key frame every second, with the times that `time` makes of arrival.
fn pictures(from: u64, to: u64, time: impl Fn(u64) -> u64) -> Vec<Coming> {
    let frame = |i: u64| {
        let ms = time(i * 40);
        (
            if i.is_multiple_of(25) {
                Frame::Key(ms)
            } else {
                Frame::Inter(ms)
            },
            i * 40,
        )
    };
    (from / 40..to / 40).map(frame).collect()
}

/// The stamp of a buffer that arrives so many seconds after the start, without a time of its own.
fn live(second: u64) -> Stamp {
    Stamp {
        clock_running: Some(second * S),
        wall: NOW + second * S,
        ..Stamp::default()
    }
}

#[test]
fn announced_pictures_that_never_come_leave_the_sound_cut_and_dated_right() {
    let frames: Vec<Coming> = sound(0, 60_000).collect();
    everywhere(ALL, &frames, |recorded, context| {
        assert!(recorded.chunks.len() >= 3, "{context}: {:?}", recorded.ms());
        assert!(recorded.ms().iter().all(|&ms| ms <= 30_100), "{context}: {:?}", recorded.ms());
        assert!(
            (59_900..=60_100).contains(&recorded.total_ms()),
            "{context}: {:?}",
            recorded.ms()
        );
        assert_eq!(recorded.starts()[0], 0, "{context}");
        recorded.adds_up(30, context);
        assert!(
            matches!(recorded.warnings[..], [Warning::AudioOnly { .. }]),
            "{context}: {:?}",
            recorded.warnings
        );
    });
}

#[test]
fn a_few_seconds_of_sound_alone_are_as_long_as_they_are() {
    let frames: Vec<Coming> = sound(0, 5000).collect();
    everywhere(ALL, &frames, |recorded, context| {
        assert_eq!(recorded.chunks.len(), 1, "{context}");
        assert!((4950..=5050).contains(&recorded.total_ms()), "{context}: {:?}", recorded.ms());
    });
}

#[test]
fn pictures_that_stop_and_come_back_leave_the_sound_cut_and_dated_right() {
    let mut frames = pictures(0, 20_000, |ms| ms);
    frames.extend(pictures(80_000, 100_000, |ms| ms));
    frames.extend(sound(0, 100_000));
    frames.sort_by_key(|(_, arrival)| *arrival);
    everywhere(ALL, &frames, |recorded, context| {
        let longest = recorded.ms().into_iter().max().unwrap();
        assert!(longest <= 41_000, "{context}: {:?}", recorded.ms());
        assert!(
            (99_900..=100_100).contains(&recorded.total_ms()),
            "{context}: {:?}",
            recorded.ms()
        );
        recorded.adds_up(30, context);
        assert!(
            recorded
                .chunks
                .iter()
                .any(|chunk| chunk.start == NOW + 80 * S && chunk.key_frame),
            "{context}: the pictures begin a chunk: {:?}",
            recorded.starts()
        );
    });
}

#[test]
fn sound_that_outlasts_the_pictures_is_part_of_the_last_chunk() {
    let mut frames = pictures(0, 5000, |ms| ms);
    frames.extend(sound(0, 9000));
    frames.sort_by_key(|(_, arrival)| *arrival);
    everywhere(ALL, &frames, |recorded, context| {
        assert!((8900..=9100).contains(&recorded.total_ms()), "{context}: {:?}", recorded.ms());
    });
}

#[test]
fn stamps_that_are_all_0_are_cut_and_dated_by_arrival() {
    everywhere(LIVE, &pictures(0, 60_000, |_| 0), |recorded, context| {
        assert!(recorded.chunks.len() >= 5, "{context}: {:?}", recorded.ms());
        assert!(
            recorded.ended[0].0 <= 31_000,
            "{context}: stored after {} ms",
            recorded.ended[0].0
        );
        assert!(
            (58_000..=60_100).contains(&recorded.total_ms()),
            "{context}: {:?}",
            recorded.ms()
        );
        recorded.adds_up(2000, context);
    });
}

#[test]
fn stamps_that_hardly_move_hold_nothing_back() {
    everywhere(LIVE, &pictures(0, 120_000, |ms| ms / 100), |recorded, context| {
        assert!(
            recorded.ended[0].0 <= 31_000,
            "{context}: stored after {} ms",
            recorded.ended[0].0
        );
    });
}

#[test]
fn sound_that_is_held_back_for_pictures_is_stored_in_time() {
    for container in CONTAINERS {
        // Fragments and Clusters two seconds apart.
        let frames = (0..40).map(|i| (Frame::Sound(i * 2000), i * 2000));
        let recorded = record(container, Line::Live, frames);
        assert!(recorded.ended[0].0 <= 42_000, "{container:?}: {:?}", recorded.ended);
    }
}

#[test]
fn chunks_of_a_file_without_times_of_their_own_follow_each_other_by_the_times_of_the_buffers() {
    let mut chunker = Chunker::new(LIMITS, None);
    chunker.clock.playing(false);
    let mut events = Vec::new();
    // 45 s, which arrive within half a second.
    for i in 0..450 {
        let stamp = Stamp {
            running: Some(i * 100 * 1_000_000),
            wall: NOW + i.unsigned_abs() * MS,
            ..Stamp::default()
        };
        chunker.push(&[b'x'; 70_000], || None, stamp, &mut events).unwrap();
    }
    chunker.finish(&mut events).unwrap();
    let chunks: Vec<(u64, u64)> = events
        .iter()
        .filter_map(|event| match event {
            Event::End(info) => Some((info.start, info.start + info.duration)),
            _ => None,
        })
        .collect();
    assert_eq!(chunks.len(), 5, "{chunks:?}");
    assert!(chunks.windows(2).all(|pair| pair[0].1 == pair[1].0), "{chunks:?}");
    let recorded = chunks[4].1 - NOW;
    assert!((44 * S..=46 * S).contains(&recorded), "{recorded}");
}

#[test]
fn an_unknown_stream_that_trickles_is_stored_in_time() {
    let mut chunker = Chunker::new(LIMITS, None);
    chunker.clock.playing(true);
    let mut events = Vec::new();
    for second in 0..60 {
        let stamp = live(second);
        chunker.push(b"temperature 21\n", || None, stamp, &mut events).unwrap();
    }
    assert!(
        events.iter().any(|event| matches!(event, Event::End(_))),
        "a chunk is complete"
    );
}

#[test]
fn a_first_time_of_hours_puts_no_live_name_into_the_future() {
    for first in [5_000_000, 20 * 3_600_000] {
        everywhere(LIVE, &pictures(0, 40_000, |ms| first + ms), |recorded, context| {
            assert_eq!(recorded.starts(), [0, 10_000, 20_000, 30_000], "{context}");
            assert_eq!(recorded.ms(), [10_000; 4], "{context}");
            assert_eq!(recorded.ahead, 0, "{context}");
            assert_eq!(recorded.chunks[0].pts_start, Some(first * MS), "{context}");
        });
    }
}

#[test]
fn steps_of_an_hour_and_back_leave_names_and_lengths_as_they_are() {
    let steps = |ms: u64| match ms {
        0..=11_999 => 10_000 + ms,
        12_000..=24_999 => 3_610_000 + ms,
        25_000..=33_999 => 10_000 + ms,
        34_000..=36_999 => 7_000_000 + ms,
        _ => ms - 37_000,
    };
    everywhere(ALL, &pictures(0, 60_000, steps), |recorded, context| {
        assert!(
            (59_500..=60_500).contains(&recorded.total_ms()),
            "{context}: {:?}",
            recorded.ms()
        );
        assert_eq!(recorded.starts()[0], 0, "{context}");
        recorded.adds_up(200, context);
        let longest = recorded.ms().into_iter().max().unwrap();
        assert!(longest <= 10_100, "{context}: {:?}", recorded.ms());
        if !context.ends_with("File") {
            assert_eq!(recorded.ahead, 0, "{context}");
        }
    });
}

#[test]
fn many_small_rewinds_leave_the_length_of_the_recording_as_it_is() {
    for at in [0, 600] {
        let rewinds = |ms: u64| 100_000 + ms - (ms + 2000 - at) / 2000 * 1500;
        everywhere(ALL, &pictures(0, 40_000, rewinds), |recorded, context| {
            let total = recorded.total_ms();
            assert!((38_500..=41_500).contains(&total), "{context}: {:?}", recorded.ms());
            recorded.adds_up(200, context);
        });
    }
}

#[test]
fn sound_alone_that_goes_back_every_few_frames_is_as_long_as_it_is() {
    use crate::container::matroska::tests as mkv;
    for every in [5, 10, 15] {
        let times = (0..2000u64).map(|i| 100_000 + i * 23 + i / 5 - i / every * 500 * u64::from(i < 1000));
        let times: Vec<u64> = times.collect();
        let mut w = flv::Writer::new(4);
        w.tag(8, 0, flv::AAC);
        let head = mkv::head_of(&[&mkv::track(2, 2, "A_AAC", &[0x12, 0x10], &[])]);
        let mut clusters = head;
        for &ms in &times {
            w.audio(u32::try_from(ms & 0xffff_ffff).unwrap());
            let time = mkv::el(0xE7, &ms.to_be_bytes());
            clusters.extend(mkv::el(0x1F43_B675, &[time, mkv::audio(0)].concat()));
        }
        for (what, input) in [("FLV", w.bytes), ("Matroska", clusters)] {
            let recorded = store_bytes(&input);
            // 2000 frames of 23.2 ms.
            assert!(
                recorded.total_ms().abs_diff(46_440) < 1500,
                "{what}, {every}: {:?}",
                recorded.ms()
            );
            recorded.adds_up(200, what);
        }
    }
}

#[test]
fn a_single_wrong_time_moves_nothing_else() {
    for wrong in [0, 15_000, 212_000, 234_000, 241_000, 400_000, 3_600_000, 80_000_000] {
        for at in [14_040, 38_040] {
            let time = |ms: u64| if ms == at { wrong } else { 200_000 + ms };
            everywhere(ALL, &pictures(0, 40_000, time), |recorded, context| {
                let total = recorded.total_ms();
                let all = recorded.ms();
                assert!((39_900..=40_100).contains(&total), "{context} {at} {wrong}: {all:?}");
                recorded.adds_up(100, context);
            });
        }
    }
}

#[test]
fn times_wrong_by_some_seconds_move_nothing_else_and_do_not_add_up() {
    for wrong in [-9_000i64, -1_500, -400, 400, 1_500, 1_900, 9_000] {
        // Key frames and others, once and every three seconds.
        for (from, every) in [
            (14_040, 100_000),
            (15_000, 100_000),
            (10_000, 100_000),
            (4_040, 3_000),
            (4_000, 3_000),
        ] {
            let is_wrong = |ms: u64| ms >= from && (ms - from).is_multiple_of(every);
            let time = |ms: u64| (200_000 + ms).saturating_add_signed(if is_wrong(ms) { wrong } else { 0 });
            everywhere(ALL, &pictures(0, 40_000, time), |recorded, context| {
                let context = format!("{context}, wrong by {wrong} from {from} every {every}");
                let all = recorded.ms();
                let starts = recorded.starts();
                let end = starts.last().unwrap() + all.last().unwrap();
                // A chunk that begins with a wrong time has a wrong start.
                let most = 100 + wrong.unsigned_abs();
                let last = if every > 40_000 { 100 } else { most };
                assert!(end.abs_diff(40_000) <= last, "{context}: {starts:?} {all:?}");
                assert!(recorded.total_ms().abs_diff(40_000) <= most, "{context}: {starts:?} {all:?}");
                recorded.adds_up(most, &context);
                assert_eq!(recorded.chunks.iter().filter(|c| !c.key_frame).count(), 0, "{context}");
            });
        }
    }
}

#[test]
fn a_fragment_with_a_wrong_time_moves_nothing_else() {
    for wrong in [-10_000i64, -3_000, -400, 400, 3_000, 10_000, 20_000, 29_000, 600_000] {
        for at in [15i64, 20, 24] {
            let time = |n: i64| (100 + n) * 1000 + if n == at { wrong } else { 0 };
            let recorded = store(&(0..40).map(|n| fragment(time(n), None)).collect::<Vec<_>>());
            let (starts, all) = (recorded.starts(), recorded.ms());
            let context = format!("{wrong} at {at}: {starts:?} {all:?}");
            let end = starts.last().unwrap() + all.last().unwrap();
            assert!(end.abs_diff(40_000) <= 1000, "{context}");
            let is_right = |start: &&u64| start.is_multiple_of(1000);
            assert!(starts.iter().filter(is_right).count() + 1 >= starts.len(), "{context}");
        }
    }
}

#[test]
fn a_key_picture_with_a_wrong_time_where_a_cut_is_due_moves_nothing_else() {
    for wrong in [3_000, 20_000, 29_000] {
        let frames = pictures(0, 35_000, |ms| if ms == 10_000 { ms + wrong } else { ms });
        everywhere(ALL, &frames, |recorded, context| {
            let context = format!("{context}, wrong by {wrong}");
            assert!(recorded.total_ms().abs_diff(35_000) <= 100, "{context}: {:?}", recorded.ms());
            recorded.adds_up(100, &context);
            assert!(recorded.ms().iter().all(|&ms| ms <= 12_100), "{context}: {:?}", recorded.ms());
            assert_eq!(recorded.chunks.iter().filter(|c| !c.key_frame).count(), 0, "{context}");
            assert!(recorded.ahead == 0 || context.contains("File"), "{context}");
        });
    }
}

#[test]
fn a_reconnect_with_times_from_0_takes_the_time_that_it_took() {
    let mut frames = pictures(0, 20_000, |ms| 900_000 + ms);
    frames.extend(pictures(30_000, 50_000, |ms| ms - 30_000));
    everywhere(LIVE, &frames, |recorded, context| {
        assert!(
            (49_500..=50_500).contains(&recorded.total_ms()),
            "{context}: {:?}",
            recorded.ms()
        );
        assert!(recorded.starts().contains(&30_000), "{context}: {:?}", recorded.starts());
        recorded.adds_up(100, context);
    });
}

/// A fragment of a second: 25 pictures, the first of them key, each 40 ms long but the one at `odd`.
fn fragment(ms: i64, odd: Option<(usize, u32)>) -> Vec<u8> {
    let mut samples = vec![fmp4::inter(); 25];
    samples[0] = fmp4::idr();
    if let Some((i, duration)) = odd {
        samples[i].duration = duration;
    }
    fmp4::fragment(&[fmp4::Traf::new(1, ms.cast_unsigned(), samples)])
}

/// Chunks of a file of such fragments.
fn store(fragments: &[Vec<u8>]) -> Recorded {
    let mut input = fmp4::head(&[fmp4::Trak::video(fmp4::avc(40))]);
    input.extend(fragments.concat());
    store_bytes(&input)
}

/// Chunks of a file.
fn store_bytes(input: &[u8]) -> Recorded {
    let mut chunker = Chunker::new(LIMITS, None);
    chunker.clock.playing(false);
    let stamp = Stamp {
        wall: NOW,
        ..Stamp::default()
    };
    let mut events = Vec::new();
    chunker.push(input, || None, stamp, &mut events).unwrap();
    chunker.finish(&mut events).unwrap();
    let mut out = Recorded {
        chunks: Vec::new(),
        ended: Vec::new(),
        warnings: Vec::new(),
        ahead: 0,
    };
    for event in events {
        match event {
            Event::End(info) => out.chunks.push(*info),
            Event::Warn(warning) => out.warnings.push(warning),
            _ => {}
        }
    }
    out
}

#[test]
fn a_sample_of_an_hour_or_of_a_negative_length_moves_nothing_else() {
    let hour = 3_600_000;
    let negative = (-40i32).cast_unsigned();
    for odd in [hour, negative, u32::MAX, 0] {
        for at in [0, 12, 24] {
            for in_fragment in [5, 29] {
                let mut time = 0;
                let fragments: Vec<Vec<u8>> = (0..30)
                    .map(|i| {
                        let own = (i == in_fragment).then_some((at, odd));
                        let fragment = fragment(time, own);
                        // The muxer adds its wrong duration to the times that follow.
                        time += 1000 + if own.is_some() { i64::from(odd.cast_signed()) - 40 } else { 0 };
                        fragment
                    })
                    .collect();
                let recorded = store(&fragments);
                let context = format!("{odd} {at} {in_fragment}");
                assert!(
                    (29_800..=30_100).contains(&recorded.total_ms()),
                    "{context}: {:?}",
                    recorded.ms()
                );
                assert_eq!(recorded.warnings, [], "{context}");
                recorded.adds_up(1, &context);
            }
        }
    }
}

#[test]
fn times_below_0_are_no_damage_and_take_the_time_that_they_take() {
    for first in [-1000, -3000, -100_000] {
        let fragments: Vec<Vec<u8>> = (0..25).map(|i| fragment(first + i * 1000, None)).collect();
        let recorded = store(&fragments);
        assert_eq!(recorded.ms(), [10_000, 10_000, 5000], "{first}");
        assert_eq!(recorded.warnings, [], "{first}");
        let second = u64::try_from((first + 10_000).max(0)).unwrap();
        assert_eq!(recorded.chunks[0].pts_start, Some(0), "{first}");
        assert_eq!(recorded.chunks[1].pts_start, Some(second * MS), "{first}");
    }
}

#[test]
fn pictures_below_0_take_their_time_although_a_fragment_without_them_comes_first() {
    let head = fmp4::head(&[fmp4::Trak::video(fmp4::avc(40)), fmp4::Trak::audio(fmp4::aac())]);
    for (what, in_front) in [("sound at 0", fmp4::audio(0, 47)), ("no samples", fmp4::fragment(&[]))] {
        let fragments: Vec<u8> = (0..25).flat_map(|i| fragment(-3000 + i * 1000, None)).collect();
        let recorded = store_bytes(&[&head[..], &in_front, &fragments].concat());
        assert_eq!(recorded.ms(), [10_000, 10_000, 5000], "{what}");
        assert_eq!(recorded.warnings, [], "{what}");
        let starts: Vec<u64> = recorded.chunks.iter().map(|chunk| chunk.pts_start.unwrap() / MS).collect();
        assert_eq!(starts, [0, 7000, 17_000], "{what}");
    }
}

#[test]
fn a_second_movie_from_0_goes_on_where_the_first_ended() {
    let mut fragments: Vec<Vec<u8>> = (0..15).map(|i| fragment(100_000 + i * 1000, None)).collect();
    fragments.push(fmp4::head(&[fmp4::Trak::video(fmp4::avc(31))]));
    fragments.extend((0..15).map(|i| fragment(i * 1000, None)));
    let recorded = store(&fragments);
    assert_eq!(recorded.total_ms(), 30_000, "{:?}", recorded.ms());
    recorded.adds_up(1, "two movies");
}

#[test]
fn a_chunk_without_a_time_starts_where_the_one_before_ended() {
    // A configuration that changes just before the end begins a chunk of its own.
    let mut fragments: Vec<Vec<u8>> = (0..25).map(|i| fragment(i * 1000, None)).collect();
    fragments.push(fmp4::head(&[fmp4::Trak::video(fmp4::avc(31))]));
    let recorded = store(&fragments);
    assert_eq!(recorded.starts(), [0, 10_000, 20_000, 25_000]);
    assert_eq!(recorded.ms(), [10_000, 10_000, 5000, 0]);
}

#[test]
fn a_chunk_of_sound_alone_is_dated_by_its_sound() {
    let mut w = flv::Writer::head(5);
    for i in 0..250 {
        w.picture(i * 40, if i == 0 { 0x65 } else { 0x61 }, i == 0, 0);
    }
    // The camera changes its picture and fails.
    w.tag(9, 10_000, flv::AVC_2);
    for i in 500..700 {
        w.audio(i * 20);
    }
    let mut chunker = Chunker::new(LIMITS, None);
    let stamp = Stamp {
        wall: NOW,
        ..Stamp::default()
    };
    let mut events = Vec::new();
    chunker.push(&w.bytes, || None, stamp, &mut events).unwrap();
    chunker.finish(&mut events).unwrap();
    let ends: Vec<(u64, u64)> = events
        .iter()
        .filter_map(|event| match event {
            Event::End(info) => Some(((info.start - NOW) / MS, info.duration / MS)),
            _ => None,
        })
        .collect();
    assert_eq!(ends, [(0, 10_000), (10_000, 4000)]);
}

#[test]
fn names_and_lengths_go_on_over_every_wrap() {
    for container in CONTAINERS {
        // 2^32 ms, and 2^33 ticks of 90 kHz.
        let wrap = if container == Container::MpegTs { 95_443_717 } else { 1 << 32 };
        for &line in LIVE {
            let recorded = record(container, line, pictures(0, 40_000, |ms| wrap - 15_000 + ms));
            let context = format!("{container:?} {line:?}");
            assert_eq!(recorded.starts(), [0, 10_000, 20_000, 30_000], "{context}");
            assert_eq!(recorded.ms(), [10_000; 4], "{context}");
            let start = recorded.chunks[2].pts_start.unwrap();
            assert!(start.abs_diff((wrap + 5000) * MS) < MS, "{context}: {start}");
        }
    }
}

#[test]
fn odd_composition_times_move_no_name() {
    for composition in [-8_388_608, -40, 80, 8_388_607] {
        for every in [1, 7] {
            let mut w = flv::Writer::head(1);
            for i in 0..1000u32 {
                let mut data = vec![if i % 25 == 0 { 0x17 } else { 0x27 }, 1];
                let odd: i32 = if i % every == 0 { composition } else { 0 };
                data.extend(&odd.to_be_bytes()[1..]);
                data.extend([0, 0, 0, 4, if i % 25 == 0 { 0x65 } else { 0x61 }, 0x88, 1, 2]);
                w.tag(9, 20_000_000 + i * 40, &data);
            }
            let recorded = store_bytes(&w.bytes);
            let context = format!("{composition} {every}: {:?}", recorded.ms());
            assert!((39_500..=40_500).contains(&recorded.total_ms()), "{context}");
            recorded.adds_up(500, &context);
        }
    }
}

#[test]
fn a_timescale_of_0_holds_nothing_back() {
    for timescale in [0, 1, u32::MAX] {
        let head = fmp4::head(&[fmp4::Trak {
            timescale,
            ..fmp4::Trak::video(fmp4::avc(40))
        }]);
        let mut chunker = Chunker::new(LIMITS, None);
        chunker.clock.playing(true);
        let mut events = Vec::new();
        for second in 0..60 {
            let stamp = live(second);
            let ticks = i64::try_from(second).unwrap() * i64::from(timescale);
            let part = [if second == 0 { head.clone() } else { vec![] }, fragment(ticks, None)].concat();
            chunker.push(&part, || None, stamp, &mut events).unwrap();
        }
        chunker.finish(&mut events).unwrap();
        let ms: Vec<u64> = events
            .iter()
            .filter_map(|event| match event {
                Event::End(info) => Some(info.duration / MS),
                _ => None,
            })
            .collect();
        assert!(ms.len() >= 5, "{timescale}: {ms:?}");
        assert!((58_000..=61_100).contains(&ms.iter().sum::<u64>()), "{timescale}: {ms:?}");
    }
}

#[test]
fn a_pause_or_a_stall_between_pictures_cuts_no_group_of_pictures() {
    // A key frame every 8 s; no buffer comes before 9.5 s, sound first when it goes on.
    let time = |ms: u64| if ms < 9500 { ms } else { ms + 19_000 };
    let frames: Vec<Coming> = (0..1000u64)
        .flat_map(|i| {
            let picture = if i.is_multiple_of(200) {
                Frame::Key(i * 40)
            } else {
                Frame::Inter(i * 40)
            };
            [
                (picture, time(i * 40)),
                (Frame::Sound(i * 40 + 10), time(i * 40 + 10)),
                (Frame::Sound(i * 40 + 30), time(i * 40 + 30)),
            ]
        })
        .collect();
    everywhere(LIVE, &frames, |recorded, context| {
        assert!(
            recorded.chunks.iter().all(|chunk| chunk.key_frame),
            "{context}: {:?}",
            recorded.ms()
        );
        assert_eq!(recorded.warnings, [], "{context}");
    });
}

#[test]
fn a_file_of_long_fragments_is_cut_at_each_that_is_due_and_is_as_long_as_it_is() {
    for (pictures, count, expected) in [
        (250, 2, vec![10_000; 2]),
        (250, 5, vec![10_000; 5]),
        (75, 8, vec![12_000, 12_000]),
        (50, 6, vec![10_000, 2_000]),
    ] {
        let fragments: Vec<Vec<u8>> = (0..count)
            .map(|i| {
                let mut samples = vec![fmp4::inter(); pictures];
                samples[0] = fmp4::idr();
                fmp4::fragment(&[fmp4::Traf::new(1, i * 40 * pictures as u64, samples)])
            })
            .collect();
        let recorded = store(&fragments);
        assert_eq!(
            (recorded.ms(), recorded.warnings.len()),
            (expected, 0),
            "{pictures} × {count}"
        );
    }
}

#[test]
fn transport_streams_that_were_joined_are_cut_once_at_each_seam() {
    // Each segment is 12 s of a muxer of its own, whose continuity counters begin anew; sound comes with the pictures.
    let segment = |from: u64| {
        let mut input = Input::new(Container::MpegTs);
        for i in 0..300 {
            let ms = from + i * 40;
            input.frame(if i % 50 == 0 { Frame::Key(ms) } else { Frame::Inter(ms) });
            input.frame(Frame::Sound(ms + 10));
        }
        input.take()
    };
    let joined = [segment(0), segment(12_000), segment(24_000)].concat();
    let recorded = store_bytes(&joined);
    assert_eq!(recorded.ms().len(), 6, "{:?}", recorded.ms());
    let gaps = recorded
        .chunks
        .iter()
        .filter(|chunk| chunk.gap == Some(GapReason::Damage))
        .count();
    assert_eq!(gaps, 2, "one for each seam");
}

#[test]
fn short_recordings_in_fragments_follow_one_another() {
    // The last fragment is a second long.
    let clip = |level: u8, count: i64, seconds: i64| {
        let mut input = fmp4::head(&[fmp4::Trak::video(fmp4::avc(level))]);
        for n in 0..=count {
            let pictures = if n < count { 25 * seconds } else { 25 };
            let mut samples = vec![fmp4::inter(); usize::try_from(pictures).unwrap()];
            samples[0] = fmp4::idr();
            let time = (n * seconds * 1000).cast_unsigned();
            input.extend(fmp4::fragment(&[fmp4::Traf::new(1, time, samples)]));
        }
        input
    };
    for (count, seconds) in [(0, 1), (1, 1), (1, 2), (1, 4), (2, 1), (2, 4), (3, 1), (3, 2), (4, 2), (2, 8)] {
        for levels in [[40, 31, 40, 31], [40; 4]] {
            let clips: Vec<u8> = levels.iter().flat_map(|&level| clip(level, count, seconds)).collect();
            let recorded = store_bytes(&clips);
            let context = format!("4 of {count} fragments of {seconds} s, {levels:?}");
            let expected = u64::try_from(4 * (count * seconds + 1) * 1000).unwrap();
            assert_eq!(recorded.total_ms(), expected, "{context}: {:?}", recorded.starts());
            recorded.adds_up(1, &context);
        }
    }
}

#[test]
fn two_tracks_of_one_kind_in_fragments_of_their_own_last_as_long_as_they_do() {
    let sound = |id: u32| fmp4::Trak {
        id,
        ..fmp4::Trak::audio(fmp4::aac())
    };
    let picture = |id: u32| fmp4::Trak {
        id,
        ..fmp4::Trak::video(fmp4::avc(40))
    };
    let pictures = |seconds: usize| {
        let mut samples = vec![fmp4::inter(); 25 * seconds];
        samples[0] = fmp4::idr();
        samples
    };
    // Seconds of a fragment of each track: in turns, and of other lengths.
    for (a, b) in [(1, 1), (2, 2), (1, 5), (4, 4)] {
        for kind in ["sounds", "pictures and two sounds", "pictures"] {
            let heads = match kind {
                "sounds" => vec![sound(1), sound(2)],
                "pictures" => vec![picture(1), picture(2)],
                _ => vec![picture(1), sound(2), sound(3)],
            };
            let mut input = fmp4::head(&heads);
            for second in 0..40u64 {
                let mut add = |id: u32, every: u64, is_picture: bool| {
                    // A fragment is written when it is over.
                    if (second + 1) % every == 0 {
                        let begin = second + 1 - every;
                        let traf = if is_picture {
                            fmp4::Traf::new(id, begin * 1000, pictures(usize::try_from(every).unwrap()))
                        } else {
                            let first = (begin * 48_000).div_ceil(1024);
                            let samples = ((second + 1) * 48_000).div_ceil(1024) - first;
                            fmp4::Traf::new(id, first * 1024, fmp4::sounds(usize::try_from(samples).unwrap()))
                        };
                        input.extend(fmp4::fragment(&[traf]));
                    }
                };
                if kind == "pictures and two sounds" {
                    add(1, 1, true);
                }
                let first = heads.len() - 1;
                add(u32::try_from(first).unwrap(), a, kind == "pictures");
                add(u32::try_from(first + 1).unwrap(), b, kind == "pictures");
            }
            let recorded = store_bytes(&input);
            let context = format!("{kind}, {a} and {b} s: {:?}", recorded.ms());
            assert!(recorded.total_ms().abs_diff(40_000) <= 150, "{context}");
            assert!(recorded.chunks.len() <= 5, "{context}");
        }
    }
}

/// A recording of sound, with pictures or without, as its muxer writes it from the first byte on.
fn clip_of_sound(container: Container, has_pictures: bool, ms: u64) -> Vec<u8> {
    let mut input = Input::new(container);
    if !has_pictures {
        input = match container {
            Container::Flv => {
                let mut w = flv::Writer::new(4);
                w.tag(8, 0, flv::AAC);
                Input::Flv(w)
            }
            _ => {
                let mut w = ts::Writer::new();
                w.pat();
                w.pmt(1, &[(0x0f, ts::AUDIO, &[])]);
                Input::MpegTs(Box::new(w))
            }
        };
    }
    for i in 0..ms / 20 {
        if has_pictures && i % 2 == 0 {
            input.frame(if i % 50 == 0 {
                Frame::Key(i * 20)
            } else {
                Frame::Inter(i * 20)
            });
        }
        input.frame(Frame::Sound(i * 20));
    }
    input.take()
}

#[test]
fn pictures_that_come_with_the_second_recording_are_dated_behind_the_first() {
    for container in [Container::Flv, Container::MpegTs] {
        for ms in [4000, 6000, 9000] {
            let clip = |has_pictures| clip_of_sound(container, has_pictures, ms);
            let recorded = store_bytes(&[clip(false), clip(true), clip(false), clip(true)].concat());
            let context = format!("{container:?}, {ms} ms");
            assert!(
                recorded.total_ms().abs_diff(4 * ms) <= 200,
                "{context}: {:?} {:?}",
                recorded.starts(),
                recorded.ms()
            );
            recorded.adds_up(100, &context);
            assert!(recorded.starts().is_sorted(), "{context}: {:?}", recorded.starts());
        }
    }
}

#[test]
fn a_time_of_24_bits_that_wraps_loses_nothing() {
    let wrap = 1u64 << 24;
    // Where the wrap lies in the group of pictures, whose pictures are stored in the order of decoding.
    for first in [1300, 4000, 4100, 4200, 4300, 4900] {
        let mut w = flv::Writer::head(5);
        for n in 0..200u64 {
            let shown_later = [1u32, 3, 0, 0, 3, 0, 0, 3, 0, 0][usize::try_from(n % 10).unwrap()];
            let ms = u32::try_from((wrap - first + n * 100) % wrap).unwrap();
            let tag = w.picture(ms, if n % 10 == 0 { 0x65 } else { 0x61 }, n % 10 == 0, 0);
            let composition = usize::try_from(tag).unwrap() + 11 + 2;
            w.bytes[composition..composition + 3].copy_from_slice(&(shown_later * 100).to_be_bytes()[1..]);
            w.audio(ms);
        }
        let recorded = store_bytes(&w.bytes);
        assert_eq!(recorded.starts(), [0, 10_000], "{first}");
        assert_eq!(recorded.ms()[0], 10_000, "{first}");
        let start = recorded.chunks[1].pts_start.unwrap() / MS;
        assert_eq!(start, wrap - first + 10_100, "{first}");
    }
}

#[test]
fn recordings_with_and_without_pictures_follow_one_another() {
    // Sound in fragments of 2 s, or pictures whose fragments hold their sound, too.
    let sound = || {
        let fragments = (0..3).flat_map(|n| fmp4::fragment(&[fmp4::Traf::new(1, n * 96_000, sounds_of(2))]));
        let trak = fmp4::Trak {
            id: 1,
            ..fmp4::Trak::audio(fmp4::aac())
        };
        [fmp4::head(&[trak]), fragments.collect()].concat()
    };
    let both = || {
        let fragments = (0..5).flat_map(|n| {
            let mut samples = vec![fmp4::inter(); 25];
            samples[0] = fmp4::idr();
            fmp4::fragment(&[
                fmp4::Traf::new(1, n * 1000, samples),
                fmp4::Traf::new(2, n * 48_000, sounds_of(1)),
            ])
        });
        [fmp4::av_head(), fragments.collect()].concat()
    };
    let recorded = store_bytes(&[sound(), both(), sound(), both()].concat());
    assert!(recorded.total_ms().abs_diff(22_000) <= 100, "{:?}", recorded.ms());
    recorded.adds_up(50, "sound, both, sound, both");
}

/// Sound of so many seconds.
fn sounds_of(seconds: u32) -> Vec<fmp4::Sample> {
    let samples = usize::try_from(seconds * 48_000 / 1024).unwrap();
    fmp4::sounds(samples)
}
