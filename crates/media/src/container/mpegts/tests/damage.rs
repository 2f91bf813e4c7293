//! Bytes that are no transport stream, and packets that are missing.

use super::super::super::{Key, MarkKind, Scanner, Track};
use super::super::MpegTs;
use super::writer::{AUDIO, VIDEO, Writer, idr, pes};
use super::{at, head, keys, outline, scan, units};

const SECOND: u64 = 90_000;

/// Tables, a key frame, ten others, a key frame; the offsets of the pictures.
fn stream() -> (Writer, Vec<u64>) {
    let mut w = Writer::new();
    w.tables();
    let mut video = vec![w.picture(SECOND, true, 1000)];
    video.extend((2..12).map(|i| w.picture(i * SECOND, false, 300)));
    video.push(w.picture(12 * SECOND, true, 1000));
    (w, video)
}

#[test]
fn a_sound_stream_has_no_damage() {
    let (w, _) = stream();
    assert!(at(&scan(&w.out), &MarkKind::Damage).is_empty());
}

#[test]
fn junk_within_the_stream_is_marked_at_its_first_byte_and_passed_over() {
    let (w, video) = stream();
    let place = usize::try_from(video[5]).unwrap();
    let broken = [&w.out[..place], &[0x99; 1234], &w.out[place..]].concat();
    let marks = scan(&broken);
    assert_eq!(at(&marks, &MarkKind::Damage), [video[5]]);
    let places: Vec<u64> = units(&marks).iter().map(|u| u.0).collect();
    let moved: Vec<u64> = video[5..].iter().map(|at| at + 1234).collect();
    assert_eq!(places, [&[0], &video[1..5], &moved].concat());
    assert_eq!(head(keys(&marks)[1].1), &w.out[..376]);
}

#[test]
fn bytes_cut_out_are_noticed_at_the_next_packet_and_no_picture_is_lost_but_the_hit_one() {
    let (w, video) = stream();
    let place = usize::try_from(video[5]).unwrap();
    // From within the second packet of a picture to within the next picture's first.
    let broken = [&w.out[..place + 200], &w.out[place + 400..]].concat();
    let marks = scan(&broken);
    assert_eq!(at(&marks, &MarkKind::Damage), [video[5] + 376]);
    assert_eq!(keys(&marks).len(), 2);
    assert_eq!(units(&marks).len(), video.len() - 1);
}

#[test]
fn a_wrong_sync_byte_costs_one_packet() {
    let (mut w, video) = stream();
    let place = usize::try_from(video[5]).unwrap();
    w.out[place] = 0x46;
    let marks = scan(&w.out);
    assert_eq!(at(&marks, &MarkKind::Damage), [video[5]]);
    assert_eq!(units(&marks).len(), video.len() - 1);
}

#[test]
fn junk_before_the_first_packet_is_damage_in_the_first_chunk() {
    let (w, _) = stream();
    let marks = scan(&[&[0x99; 777], &w.out[..]].concat());
    assert_eq!((marks[0].at, outline(&marks)[0]), (0, (0, Track::Other, Key::No)));
    assert!(head(units(&marks)[0].1).is_empty());
    assert_eq!(at(&marks, &MarkKind::Damage), [0]);
    assert_eq!(keys(&marks)[0].0, 777);
}

#[test]
fn junk_alone_settles_as_it_comes() {
    let mut scanner = MpegTs::new();
    let mut marks = Vec::new();
    scanner.push(&vec![0x99; 1 << 20], &mut marks).unwrap();
    assert!(scanner.settled() > (1 << 20) - 2000);
    scanner.finish(&mut marks);
    assert_eq!(outline(&marks), [(0, Track::Other, Key::No)]);
    assert_eq!(at(&marks, &MarkKind::Damage), [0]);
}

#[test]
fn lost_packets_are_damage_at_the_next_of_their_pid() {
    let mut w = Writer::new();
    w.tables();
    w.picture(SECOND, true, 1000);
    w.lose(VIDEO, 3);
    w.sound(SECOND);
    let next = w.picture(2 * SECOND, false, 10);
    let marks = scan(&w.out);
    assert_eq!(at(&marks, &MarkKind::Damage), [next]);
    assert_eq!(units(&marks).last().unwrap().0, next);
}

#[test]
fn fifteen_lost_packets_are_not_taken_for_a_duplicate() {
    let mut w = Writer::new();
    w.tables();
    w.sound(SECOND);
    w.lose(AUDIO, 15);
    let next = w.sound(2 * SECOND);
    assert_eq!(at(&scan(&w.out), &MarkKind::Damage), [next]);
}

#[test]
fn a_packet_sent_twice_and_an_announced_jump_are_legal() {
    let mut w = Writer::new();
    w.tables();
    let begin = w.picture(SECOND, true, 10);
    let first = usize::try_from(begin).unwrap();
    // The first packet of the picture once more, directly behind itself.
    let twice = w.out[first..first + 188].to_vec();
    w.out.splice(first..first, twice);
    w.lose(VIDEO, 5);
    let jump = w.at();
    // discontinuity_indicator
    w.packet(
        VIDEO,
        true,
        0x80,
        &pes(0xe0, Some(2 * SECOND), &[0, 0, 1, 9, 0x10, 0, 0, 1, 0x41, 0x88]),
    );
    let marks = scan(&w.out);
    assert!(at(&marks, &MarkKind::Damage).is_empty());
    assert_eq!(
        outline(&marks),
        [(0, Track::Video, Key::Closed), (jump, Track::Video, Key::No)]
    );
}

#[test]
fn a_jump_announced_in_a_packet_without_payload_is_legal() {
    for has_tables_first in [true, false] {
        let mut w = Writer::new();
        if has_tables_first {
            w.tables();
        }
        w.picture(SECOND, true, 10);
        w.lose(VIDEO, 5);
        // PCR_flag and discontinuity_indicator
        w.clock_with(VIDEO, 0x90);
        w.picture(2 * SECOND, false, 10);
        w.tables();
        w.picture(3 * SECOND, true, 10);
        let marks = scan(&w.out);
        assert!(at(&marks, &MarkKind::Damage).is_empty(), "tables first: {has_tables_first}");
        assert_eq!(outline(&marks).iter().filter(|u| u.1 == Track::Video).count(), 3);
    }
    // Without the announcement it is a loss.
    let mut w = Writer::new();
    w.tables();
    w.picture(SECOND, true, 10);
    w.lose(VIDEO, 5);
    w.clock_only(VIDEO);
    let gap = w.picture(2 * SECOND, false, 10);
    assert_eq!(at(&scan(&w.out), &MarkKind::Damage), [gap]);
}

#[test]
fn a_picture_that_lost_its_slice_header_is_no_key() {
    let mut w = Writer::new();
    w.tables();
    w.picture(SECOND, true, 10);
    let whole = pes(0xe0, Some(2 * SECOND), &idr(0x28, 500));
    let begin = w.at();
    w.packet(VIDEO, true, 0, &whole[..184]);
    w.lose(VIDEO, 1);
    let gap = w.at();
    w.packet(VIDEO, false, 0, &whole[368..552]);
    let marks = scan(&w.out);
    assert_eq!(outline(&marks)[1], (begin, Track::Video, Key::No));
    assert_eq!(at(&marks, &MarkKind::Damage), [gap]);
}

#[test]
fn a_packet_with_the_error_flag_is_damage() {
    let (mut w, video) = stream();
    w.out[usize::try_from(video[3]).unwrap() + 1] |= 0x80;
    let found = at(&scan(&w.out), &MarkKind::Damage);
    assert_eq!(found[0], video[3]);
}

#[test]
fn after_a_flush_the_tables_are_kept_and_the_half_packet_is_let_go() {
    let (w, video) = stream();
    let mut scanner = MpegTs::new();
    let mut marks = Vec::new();
    let cut = usize::try_from(video[3]).unwrap() + 100;
    scanner.push(&w.out[..cut], &mut marks).unwrap();
    scanner.restart();
    assert_eq!(scanner.settled(), cut as u64);
    marks.clear();
    let resumed = usize::try_from(video[8]).unwrap();
    scanner.push(&w.out[resumed..], &mut marks).unwrap();
    scanner.finish(&mut marks);
    assert!(at(&marks, &MarkKind::Damage).is_empty());
    assert_eq!(units(&marks).len(), 4);
    let (place, key) = keys(&marks)[0];
    assert_eq!(place, video[11] - video[8] + cut as u64);
    assert_eq!(head(key), &w.out[..376]);
}

#[test]
fn a_flush_before_the_first_packet_moves_the_first_unit() {
    let (w, _) = stream();
    let mut scanner = MpegTs::new();
    let mut marks = Vec::new();
    scanner.push(&w.out[..300], &mut marks).unwrap();
    scanner.restart();
    scanner.push(&w.out, &mut marks).unwrap();
    assert_eq!(outline(&marks)[0], (300, Track::Video, Key::Closed));
}

#[test]
fn a_stream_joined_in_the_middle_of_a_packet_is_not_damaged() {
    for stride in [188usize, 192, 204] {
        let mut w = Writer::with_stride(stride);
        for n in 0..10 {
            w.tables();
            w.picture(n * SECOND, true, 400);
        }
        for cut in [1, 4, 100, stride - 1] {
            let rest = stride - cut;
            let stream = &w.out[cut..];
            for slice in [1, 50, 188, 100_000] {
                let marks = super::scan_in(stream, slice).unwrap();
                assert!(at(&marks, &MarkKind::Damage).is_empty(), "{stride} {cut} {slice}");
                assert_eq!((marks[0].at, outline(&marks)[0].0), (0, 0));
                // The PAT was cut, and stands again in front of the second picture.
                assert!(keys(&marks).len() >= 9, "{stride} {cut} {slice}");
                assert!(
                    keys(&marks)[1..]
                        .iter()
                        .all(|(at, _)| (*at - rest as u64).is_multiple_of(stride as u64))
                );
            }
        }
        // More bytes than the rest of a packet are damage.
        let junk = [&vec![0x99; stride + 1][..], &w.out].concat();
        assert_eq!(at(&scan(&junk), &MarkKind::Damage), [0], "{stride}");
    }
}

#[test]
fn one_packet_with_the_error_flag_is_damage_once() {
    let mut w = Writer::new();
    w.tables();
    w.picture(SECOND, true, 1000);
    w.sound(SECOND);
    let hit = w.sound(2 * SECOND);
    // Audio continues behind a key frame, with a gap in its counter.
    w.picture(3 * SECOND, true, 1000);
    w.sound(3 * SECOND);
    w.picture(4 * SECOND, true, 1000);
    w.out[usize::try_from(hit).unwrap() + 1] |= 0x80;
    assert_eq!(at(&scan(&w.out), &MarkKind::Damage), [hit]);
}
