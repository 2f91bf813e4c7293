//! Wrong times in otherwise regular streams: one of every size at every place, and many of them.

use super::*;

const MS: i64 = 1_000_000;

/// A stream: its units in the order they are stored in.
struct Shape {
    name: &'static str,
    track: Track,
    /// Time of each unit, in units of `length`.
    order: Vec<i64>,
    length: i64,
    has_ends: bool,
    /// Every how many units a key unit comes.
    gop: usize,
}

fn shapes() -> Vec<Shape> {
    let regular: Vec<i64> = (0..200).collect();
    // I, then each P stored ahead of two B.
    let reordered: Vec<i64> = (0..20)
        .flat_map(|gop| [0, 3, 1, 2, 6, 4, 5, 9, 7, 8].map(|n| gop * 10 + n))
        .collect();
    let mut shapes = Vec::new();
    // A pyramid: pictures stored ahead of three others.
    let pyramid: Vec<i64> = (0..20)
        .flat_map(|gop| [0, 4, 2, 1, 3, 8, 6, 5, 7, 9].map(|n| gop * 10 + n))
        .collect();
    for (name, fps) in [("5 fps", 5), ("25 fps", 25), ("60 fps", 60)] {
        for has_ends in [false, true] {
            for order in [&regular, &reordered, &pyramid] {
                shapes.push(Shape {
                    name,
                    track: Track::Video,
                    order: order.clone(),
                    length: 1000 * MS / fps,
                    has_ends,
                    gop: 10,
                });
            }
        }
    }
    for (name, ms) in [
        ("fragments of 0.5 s", 500),
        ("fragments of 1 s", 1000),
        ("fragments of 2 s", 2000),
    ] {
        shapes.push(Shape {
            name,
            track: Track::Video,
            order: regular.clone(),
            length: ms * MS,
            has_ends: true,
            gop: 1,
        });
    }
    for has_ends in [false, true] {
        shapes.push(Shape {
            name: "sound",
            track: Track::Audio,
            order: regular.clone(),
            length: 23 * MS,
            has_ends,
            gop: 1,
        });
    }
    shapes
}

/// How far each unit is from its true time, with the given error at the units that `wrong` names. A live stream arrives as it
/// was taken, a file at once.
fn off(shape: &Shape, is_live: bool, error: i64, wrong: impl Fn(usize) -> bool) -> Vec<i64> {
    let mut line = TimeLine::default();
    let base = 100_000 * MS;
    let place = |(i, &n): (usize, &i64)| {
        let right = base + n * shape.length;
        let pts = right + if wrong(i) { error } else { 0 };
        let pts = u64::try_from(pts).unwrap();
        let unit = Timed {
            track: shape.track,
            key: if i % shape.gop == 0 { Key::Closed } else { Key::No },
            pts,
            end: shape.has_ends.then(|| pts + shape.length.unsigned_abs()),
            decode: None,
        };
        let arrival = if is_live { i as u64 * shape.length.unsigned_abs() } else { 0 };
        line.place(unit, arrival).pts.cast_signed() - right
    };
    shape.order.iter().enumerate().map(place).collect()
}

const ERRORS: [i64; 26] = [
    -30_000, -29_000, -20_000, -10_000, -5000, -3000, -2000, -1900, -1500, -900, -500, -300, -200, 200, 300, 500, 900, 1500,
    1900, 3000, 5000, 10_000, 20_000, 29_000, 60_000, 3_600_000,
];

/// Checks that no unit but the wrong ones, which `wrong` names, is placed more than its length beside its true time.
fn assert_unmoved(places: &[usize], wrong: impl Fn(usize, usize) -> bool) {
    let mut bad = Vec::new();
    for (shape, is_live) in shapes().iter().flat_map(|shape| [(shape, false), (shape, true)]) {
        for error in ERRORS {
            for &place in places {
                let off = off(shape, is_live, error * MS, |i| wrong(i, place));
                let is_moved = |&(i, off): &(usize, &i64)| !wrong(i, place) && off.abs() > shape.length;
                let moved = off.iter().enumerate().filter(is_moved).count();
                if moved > 0 {
                    let Shape {
                        name, has_ends, order, ..
                    } = shape;
                    bad.push(format!(
                        "{name}, live: {is_live}, ends: {has_ends}, begins {:?}: {error} ms at {place}: {moved} units moved",
                        order.get(..4)
                    ));
                }
            }
        }
    }
    assert!(bad.is_empty(), "{} cases:\n{}", bad.len(), bad.join("\n"));
}

#[test]
fn one_wrong_time_of_any_size_moves_no_other_unit() {
    assert_unmoved(&(40..62).collect::<Vec<_>>(), |i, at| i == at);
}

#[test]
fn many_wrong_times_do_not_add_up() {
    assert_unmoved(&[17, 20, 50], |i, every| i > 10 && i % every == 0);
}

/// Returns how far each unit and its end are from their true times if units state lengths that are `longer(n)` too long.
fn off_by_length(shape: &Shape, longer: impl Fn(usize) -> i64) -> Vec<(i64, i64)> {
    let mut line = TimeLine::default();
    let base = 100_000 * MS;
    let place = |(i, &n): (usize, &i64)| {
        let pts = base + n * shape.length;
        let end = pts + shape.length + longer(i);
        let (start, end) = (pts.cast_unsigned(), end.cast_unsigned());
        let unit = Timed {
            track: shape.track,
            key: if i % shape.gop == 0 { Key::Closed } else { Key::No },
            pts: start,
            end: Some(end),
            // Of fragments.
            decode: (shape.gop == 1 && shape.track == Track::Video).then_some((start, end)),
        };
        let placed = line.place(unit, 0);
        let end = placed.end.unwrap().cast_signed() - pts - shape.length;
        (placed.pts.cast_signed() - pts, end)
    };
    shape.order.iter().enumerate().map(place).collect()
}

#[test]
fn wrong_lengths_move_nothing() {
    let mut bad = Vec::new();
    for shape in shapes().iter().filter(|shape| shape.has_ends) {
        for longer in [
            300 * MS,
            shape.length / 3,
            shape.length * 3,
            shape.length * 19,
            3_600_000 * MS,
        ] {
            for every in [1000, 50, 20] {
                let off = off_by_length(shape, |i| if i >= 40 && i % every == 40 % every { longer } else { 0 });
                let moved = off.iter().map(|(off, _)| off.abs()).max().unwrap();
                let end = off.iter().map(|(_, end)| *end).max().unwrap();
                if moved > 0 || (longer > 30_000 * MS && end > 0) {
                    bad.push(format!(
                        "{} {:?}: {longer} longer, every {every}: {moved} {end}",
                        shape.name,
                        shape.order.get(..4)
                    ));
                }
            }
        }
    }
    assert!(bad.is_empty(), "{} cases:\n{}", bad.len(), bad.join("\n"));
}

#[test]
fn unsteady_times_of_slow_pictures_with_lengths_add_nothing() {
    for (fps, jitter) in [(1, 300), (2, 180), (5, 90), (5, 60), (10, 45), (25, 18)] {
        let length = 1000 * MS / fps;
        let mut line = TimeLine::default();
        let mut chance = 88_172_645_463_325_252_u64;
        for n in 0..2000_i64 {
            chance ^= chance << 13;
            chance ^= chance >> 7;
            chance ^= chance << 17;
            let off = i64::try_from(chance % (2 * jitter + 1)).unwrap() - jitter.cast_signed();
            let pts = (100_000 * MS + n * length + off * MS).cast_unsigned();
            let unit = Timed {
                track: Track::Video,
                key: if n % 10 == 0 { Key::Closed } else { Key::No },
                pts,
                end: Some(pts + length.cast_unsigned()),
                decode: None,
            };
            let placed = line.place(unit, 0);
            assert_eq!(
                (placed.pts, placed.jumped),
                (pts, false),
                "{fps} fps, {jitter} ms, picture {n}"
            );
        }
    }
}
