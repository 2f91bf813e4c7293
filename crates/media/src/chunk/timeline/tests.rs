//! Tests of the module above.

use super::*;

fn timed(track: Track, pts: u64, end: Option<u64>) -> Timed {
    Timed {
        track,
        key: Key::No,
        pts,
        end,
        decode: None,
    }
}

const S: u64 = 1_000_000_000;

/// Times that a track's units get, and which of them broke the line.
fn video(times: &[u64]) -> (Vec<u64>, Vec<usize>) {
    let mut line = TimeLine::default();
    let placed: Vec<Placed> = times.iter().map(|&t| line.place(timed(Track::Video, t, None), 0)).collect();
    let jumps = placed.iter().enumerate().filter(|(_, p)| p.jumped).map(|(i, _)| i);
    (placed.iter().map(|p| p.pts).collect(), jumps.collect())
}

#[test]
fn pictures_stored_ahead_of_others_move_no_time_however_many_lie_between() {
    for (ahead, fps) in [(1u64, 25u64), (2, 25), (3, 25), (7, 25), (2, 12), (3, 60), (2, 5)] {
        let length = S / fps;
        let mut order = Vec::new();
        // GOPs of pictures one after the other, then of pictures that others are stored behind.
        for gop in 0..20u64 {
            let first = gop * 40;
            order.extend(first..first + 8);
            let mut at = first + 8;
            while at < first + 40 {
                let last = (at + ahead).min(first + 39);
                order.push(last);
                order.extend(at..last);
                at = last + 1;
            }
        }
        let mut line = TimeLine::default();
        for (i, n) in order.into_iter().enumerate() {
            // Matroska rounds to milliseconds.
            let pts = n * length / 1_000_000 * 1_000_000;
            let key = if n % 40 == 0 { Key::Closed } else { Key::No };
            let placed = line.place(
                Timed {
                    key,
                    ..timed(Track::Video, pts, Some(pts + length))
                },
                i as u64 * length,
            );
            assert_eq!(
                (placed.pts, placed.jumped),
                (pts, false),
                "{ahead} ahead at {fps} a second, picture {n}"
            );
        }
    }
}

#[test]
fn a_single_wrong_time_leaves_no_trace() {
    let (times, jumps) = video(&[0, S, 90_000 * S, 3 * S, 4 * S]);
    assert_eq!(times, [0, S, 2 * S, 3 * S, 4 * S]);
    assert_eq!(jumps, [2, 3]);
}

#[test]
fn after_a_jump_in_either_direction_time_goes_on() {
    let (times, jumps) = video(&[100 * S, 101 * S, 500 * S, 501 * S, 3 * S, 4 * S]);
    assert_eq!(times, [100, 101, 102, 103, 104, 105].map(|t| t * S));
    assert_eq!(jumps, [2, 4]);
}

#[test]
fn pictures_out_of_order_and_pictures_a_minute_apart_are_no_jumps() {
    let (times, jumps) = video(&[0, 4 * S, 2 * S, S, 3 * S]);
    assert_eq!((times, jumps), ([0, 4, 2, 1, 3].map(|t| t * S).to_vec(), vec![]));
    let (times, jumps) = video(&[0, 60 * S, 120 * S, 180 * S]);
    assert_eq!((times, jumps), ([0, 0, 60, 120].map(|t| t * S).to_vec(), vec![1]));
}

#[test]
fn time_that_was_waited_for_has_passed() {
    let mut line = TimeLine::default();
    line.place(timed(Track::Video, 0, None), 7);
    let placed = line.place(timed(Track::Video, 600 * S, None), 590 * S);
    assert_eq!((placed.pts, placed.jumped), (600 * S, false));
}

#[test]
fn a_long_fragment_and_sound_that_pauses_are_no_jumps() {
    let mut line = TimeLine::default();
    for at in [0, 60, 120] {
        for track in [Track::Audio, Track::Video] {
            let placed = line.place(timed(track, at * S, Some((at + 60) * S)), 0);
            assert_eq!((placed.pts, placed.end, placed.jumped), (at * S, Some((at + 60) * S), false));
        }
    }
    for at in 180..280 {
        line.place(timed(Track::Video, at * S, None), 0);
    }
    let placed = line.place(timed(Track::Audio, 279 * S, None), 0);
    assert_eq!((placed.pts, placed.jumped), (279 * S, false));
}

#[test]
fn the_other_track_follows_a_jump_and_subtitles_never_make_one() {
    let mut line = TimeLine::default();
    line.place(timed(Track::Video, 10 * S, None), 0);
    line.place(timed(Track::Audio, 10 * S, None), 0);
    assert_eq!(line.place(timed(Track::Other, 900 * S, None), 0).pts, 10 * S);
    assert!(line.place(timed(Track::Video, 900 * S, None), 0).jumped);
    let audio = line.place(timed(Track::Audio, 900 * S, None), 0);
    assert_eq!((audio.pts, audio.jumped), (10 * S, false));
}

#[test]
fn small_rewinds_do_not_add_up() {
    // 25 pictures a second, 1.5 s back every 2 s, at a key frame or in between.
    for rewind_at in [0, 20] {
        let mut line = TimeLine::default();
        let (mut first, mut last) = (None, 0);
        for i in 0..1000u64 {
            let back = (i + 50 - rewind_at) / 50 * 1500;
            let unit = Timed {
                key: if i % 50 == 0 { Key::Closed } else { Key::No },
                ..timed(Track::Video, (100_000 + i * 40 - back) * 1_000_000, None)
            };
            last = line.place(unit, 0).pts;
            first.get_or_insert(last);
        }
        let passed = (last - first.unwrap_or(0)) / 1_000_000;
        assert!((39_000..41_000).contains(&passed), "{rewind_at}: {passed} ms of 40 s");
    }
}

#[test]
fn fragments_that_overlap_those_before_do_not_add_up() {
    let mut line = TimeLine::default();
    let mut last = 0;
    for i in 0..20u64 {
        let start = (i * 2000 - i.saturating_sub(4) / 4 * 1500) * 1_000_000;
        let unit = timed(Track::Audio, start, Some(start + 2 * S));
        last = line.place(unit, 0).pts;
    }
    assert!((37 * S..=39 * S).contains(&last), "{last}");
}

/// Fragments of `count` pictures of a stream with `bf` B-frames between two others, `fps` a second: when each fragment is shown
/// and decoded.
fn fragments(fps: u64, bf: u64, gop: u64, count: u64, back: impl Fn(u64) -> u64) -> Vec<Timed> {
    let pictures = fps * 60;
    let frame = |n: u64| (10 * fps + n) * S / fps;
    // Decoded are I or P, then the B-frames in front of it; shown one mini group later than decoded.
    let mut shown = Vec::new();
    for group in (0..pictures).step_by(usize::try_from(gop).unwrap()) {
        shown.push(group);
        let mut at = group;
        while at < group + gop - 1 {
            let next = (at + bf + 1).min(group + gop - 1);
            shown.push(next);
            shown.extend(at + 1..next);
            at = next;
        }
    }
    let units = (0..pictures / count).map(|fragment| {
        let back = back(fragment) * 1_000_000;
        let numbers = fragment * count..(fragment + 1) * count;
        let of = &shown[usize::try_from(numbers.start).unwrap()..usize::try_from(numbers.end).unwrap()];
        let (first, last) = (of[0], *of.iter().max().unwrap());
        Timed {
            key: if first % gop == 0 { Key::Closed } else { Key::No },
            decode: Some((frame(numbers.start) - back, frame(numbers.end) - back)),
            ..timed(Track::Video, frame(first + bf) - back, Some(frame(last + bf + 1) - back))
        }
    });
    units.collect()
}

#[test]
fn fragments_that_end_between_reordered_pictures_keep_their_times() {
    for fps in [5, 8, 12, 15, 20, 25, 30, 50] {
        for (bf, seconds) in [(1, 2), (2, 2), (3, 2), (3, 4), (1, 10), (7, 4)] {
            for count in [fps / 2, fps, fps * 2] {
                let mut line = TimeLine::default();
                for unit in fragments(fps, bf, fps * seconds, count.max(1), |_| 0) {
                    let placed = line.place(unit, 0);
                    let what = format!("{fps} a second, {bf} B-frames, keys {seconds} s apart, fragments of {count}");
                    assert_eq!((placed.pts, placed.jumped), (unit.pts, false), "{what}");
                }
            }
        }
    }
    // Fragments that go back by a second each five seconds add up to nothing all the same.
    let mut line = TimeLine::default();
    let units = fragments(25, 2, 250, 25, |fragment| fragment / 5 * 1000);
    let placed: Vec<u64> = units.iter().map(|unit| line.place(*unit, 0).pts).collect();
    let passed = (placed[59] - placed[0]) / 1_000_000;
    assert!((57_000..61_000).contains(&passed), "{passed} ms of 59 s");
}

#[test]
fn two_sound_tracks_and_unsteady_pictures_are_no_rewinds() {
    let mut line = TimeLine::default();
    for i in 0..100 {
        for skew in [1500, 0] {
            let unit = timed(Track::Audio, (2000 + i * 20 - skew) * 1_000_000, None);
            let placed = line.place(unit, 0);
            assert_eq!((placed.pts, placed.jumped), (unit.pts, false));
        }
    }
    for i in 0..100 {
        let unit = Timed {
            key: if i % 10 == 0 { Key::Closed } else { Key::No },
            ..timed(
                Track::Video,
                (2000 + i * 40 - if i % 10 == 0 { 50 } else { 0 }) * 1_000_000,
                None,
            )
        };
        assert_eq!(line.place(unit, 0).pts, unit.pts);
    }
}

#[test]
fn times_that_freeze_advance_by_arrival_and_go_on_where_they_should() {
    let mut line = TimeLine::default();
    let mut place = |raw: u64, arrival: u64| line.place(timed(Track::Video, raw, None), arrival * S / 25).pts;
    for i in 0..25 {
        place(i * S / 25, i);
    }
    for i in 25..250 {
        place(S, i);
    }
    assert_eq!(place(S, 250), 10 * S);
    assert_eq!(place(251 * S / 25, 251), 251 * S / 25, "the container's time again");
}

#[test]
fn equal_times_of_slices_and_of_a_file_do_not_freeze() {
    let mut line = TimeLine::default();
    for i in 0..2000 {
        let placed = line.place(timed(Track::Video, i / 40 * S / 25, None), i * S / 1000);
        assert_eq!(placed.pts, i / 40 * S / 25);
    }
}

#[test]
fn a_jump_that_was_waited_for_takes_that_time() {
    let mut line = TimeLine::default();
    line.place(timed(Track::Video, 500 * S, None), S);
    let placed = line.place(timed(Track::Video, 0, None), 11 * S);
    assert_eq!((placed.pts, placed.jumped), (510 * S, true));
}

/// What a stream is like: units in the order they are stored in, as times in ms and whether each is a key frame.
struct Shape {
    name: &'static str,
    track: Track,
    units: Vec<(i64, bool)>,
    /// Of each unit, ms.
    length: i64,
    has_length: bool,
}

fn shapes() -> Vec<Shape> {
    let mut shapes = Vec::new();
    let mut add = |name, track, length: i64, count: i64, key_every: i64| {
        for has_length in [false, true] {
            let units = (0..count).map(|n| (n * length, n % key_every == 0)).collect();
            shapes.push(Shape {
                name,
                track,
                units,
                length,
                has_length,
            });
        }
    };
    add("5 a second", Track::Video, 200, 200, 10);
    add("25 a second", Track::Video, 40, 1000, 25);
    add("50 a second", Track::Video, 20, 2000, 100);
    add("sound", Track::Audio, 20, 2000, 1);
    // Each pair of pictures is stored behind the one that is shown after them.
    let reordered = (0..333).flat_map(|n| [(n * 120 + 80, n % 10 == 0), (n * 120, false), (n * 120 + 40, false)]);
    let reordered: Vec<(i64, bool)> = reordered.collect();
    for has_length in [false, true] {
        shapes.push(Shape {
            name: "reordered",
            track: Track::Video,
            units: reordered.clone(),
            length: 40,
            has_length,
        });
    }
    for length in [500, 1000, 2000] {
        let units = (0..40).map(|n| (n * length, true)).collect();
        shapes.push(Shape {
            name: "fragments",
            track: Track::Video,
            units,
            length,
            has_length: true,
        });
    }
    shapes
}

/// Places a shape whose unit `n` is wrong by `wrong(n)` ms. Returns how far each unit is from where it should be, ms; `None`
/// for a wrong one.
fn placed(shape: &Shape, is_live: bool, wrong: impl Fn(usize) -> i64) -> Vec<Option<i64>> {
    const START: i64 = 100_000;
    let mut line = TimeLine::default();
    let ns = |ms: i64| u64::try_from(ms * 1_000_000).unwrap();
    let units = shape.units.iter().enumerate();
    let place = |(n, (ms, is_key)): (usize, &(i64, bool))| {
        let pts = ns(START + ms + wrong(n));
        let unit = Timed {
            key: if *is_key { Key::Closed } else { Key::No },
            ..timed(shape.track, pts, shape.has_length.then(|| pts + ns(shape.length)))
        };
        let arrival = if is_live { ns(n as i64 * shape.length) } else { 0 };
        let at = line.place(unit, arrival).pts;
        (wrong(n) == 0).then(|| (at as i64 - ns(START + ms) as i64) / 1_000_000)
    };
    units.map(place).collect()
}

const WRONG: [i64; 24] = [
    -30_000, -10_000, -5_000, -3_000, -2_000, -1_500, -1_000, -700, -400, -200, 200, 300, 500, 900, 1_500, 1_900, 2_500, 3_000,
    5_000, 10_000, 20_000, 29_000, 60_000, 3_600_000,
];

#[test]
fn a_single_wrong_time_of_any_size_moves_nothing_else() {
    let mut faults = Vec::new();
    for shape in shapes() {
        for is_live in [false, true] {
            let middle = shape.units.len() / 2;
            let key = (middle..).find(|n| shape.units[*n].1).unwrap();
            for at in [key, key + 1, key + 3] {
                for wrong in WRONG {
                    let far = placed(&shape, is_live, |n| if n == at { wrong } else { 0 });
                    let most = far.iter().flatten().map(|ms| ms.abs()).max().unwrap();
                    if most > shape.length {
                        let has = shape.has_length;
                        faults.push(format!(
                            "{} {} ms {has} live {is_live}: {wrong} at {at}: {most}",
                            shape.name, shape.length
                        ));
                    }
                }
            }
        }
    }
    assert!(faults.is_empty(), "{} {faults:#?}", faults.len());
}

#[test]
fn many_single_wrong_times_do_not_add_up() {
    let mut faults = Vec::new();
    for shape in shapes() {
        for wrong in WRONG {
            let every = usize::try_from(4000 / shape.length).unwrap().max(6);
            let far = placed(&shape, false, |n| if n > 8 && n % every == 5 { wrong } else { 0 });
            let last = far.iter().rev().flatten().next().unwrap();
            if last.abs() > shape.length {
                faults.push(format!(
                    "{} {} ms {}: {wrong}: {last}",
                    shape.name, shape.length, shape.has_length
                ));
            }
        }
    }
    assert!(faults.is_empty(), "{} {faults:#?}", faults.len());
}

#[test]
fn a_track_that_begins_far_behind_the_other_begins_again_and_one_that_is_late_does_not() {
    // The first time of the pictures, ms behind sound of 6 s.
    for (behind, expected) in [(0, 6000), (2900, 3100), (-3000, 9000), (3100, 6000), (6000, 6000)] {
        let mut line = TimeLine::default();
        for i in 0..=300u64 {
            line.place(timed(Track::Audio, S + i * 20_000_000, None), 0);
        }
        let first = 7000 - behind;
        let picture = line.place(timed(Track::Video, u64::try_from(first).unwrap() * 1_000_000, None), 0);
        assert_eq!(picture.pts, S + expected * 1_000_000, "{behind}");
    }
    // Sound behind the fragment that the pictures came in.
    let mut line = TimeLine::default();
    line.place(timed(Track::Video, 0, Some(10 * S)), 0);
    line.place(timed(Track::Video, 10 * S, Some(20 * S)), 0);
    assert_eq!(line.place(timed(Track::Audio, 0, Some(10 * S)), 0).pts, 0);
}

#[test]
fn after_a_jump_among_reordered_pictures_the_next_is_shown_behind_all_of_them() {
    let frame = |n: u64| S + n * 100_000_000;
    let mut line = TimeLine::default();
    for n in [0, 3, 1, 2, 6, 4, 5] {
        line.place(timed(Track::Video, frame(n), None), 0);
    }
    let key = Timed {
        key: Key::Closed,
        ..timed(Track::Video, 900 * S, None)
    };
    let placed = line.place(key, 0);
    assert_eq!((placed.pts, placed.jumped), (frame(7), true));
}
