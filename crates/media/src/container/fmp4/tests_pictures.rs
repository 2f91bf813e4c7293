//! Pictures that come in more than one sample.

use super::super::fields::tests::{field, interlaced_sps, units as nals};
use super::test_stream::*;
use super::*;
use crate::container::{Key, Notice};

const SPS_2: &[u8] = &[0x67, 0x64, 0, 0x1f];
const PPS_2: &[u8] = &[0x68, 0x81, 7];

fn sample(duration: u32, parts: &[&[u8]]) -> Sample {
    let parts: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
    Sample {
        data: nals(&parts),
        duration,
        ..inter()
    }
}

/// The marks, the same however the input is sliced.
fn scan_all(input: &[u8]) -> Vec<Mark> {
    let whole = scan(input);
    for step in [1, 7, 64, 333] {
        assert!(try_scan(input, step).0 == whole, "in slices of {step}");
    }
    whole
}

fn ends(marks: &[Mark]) -> Vec<u64> {
    marks
        .iter()
        .filter(|m| m.kind == MarkKind::PictureEnd)
        .map(|m| m.at)
        .collect()
}

#[test]
fn parameter_sets_in_a_sample_of_their_own_do_not_hide_the_key_picture_behind_them() {
    // With the time of the picture, or with one of their own.
    for duration in [0, 1, 40] {
        let sets = sample(duration, &[SPS_2, PPS_2]);
        let key = sample(40, &[&[0x65, 0x88, 1, 2]]);
        let one = video(0, &[sets.clone(), key.clone(), inter()]);
        let head = head(&[Trak::video(avc(40))]);
        let marks = scan_all(&[&head[..], &one, &one].concat());
        let units = units(&marks);
        assert_eq!([units[0].1.key, units[1].1.key], [Key::Closed; 2], "{duration}");
        let codecs = units[0].1.init.as_ref().unwrap().info.codecs.clone();
        assert_eq!(codecs.as_deref(), Some("avc1.64001F"));
        let first_end = (head.len() + one.len() - inter().data.len()) as u64;
        assert_eq!(ends(&marks)[0], first_end, "{duration}");
        assert!(!marks.iter().any(|m| m.kind == MarkKind::Notice(Notice::NoParameterSets)));
    }
}

#[test]
fn a_sample_for_each_slice_is_one_picture_and_the_preview_ends_behind_the_last() {
    let slice = |duration, first| sample(duration, &[&[0x65, first, 1, 2]]);
    let samples = [slice(0, 0x88), slice(0, 0x41), slice(40, 0x21), inter()];
    let head = head(&[Trak::video(avc(40))]);
    let input = [&head[..], &video(0, &samples)].concat();
    let marks = scan_all(&input);
    assert_eq!(ends(&marks), [(input.len() - inter().data.len()) as u64]);
}

#[test]
fn a_sample_for_each_field_is_one_picture_and_the_preview_ends_behind_the_second() {
    let sps = interlaced_sps();
    let first = sample(20, &[&sps, &[0x68, 1], &field(0x65, false)]);
    let second = sample(20, &[&[6, 6, 1, 0xc0, 0x80], &field(0x41, true)]);
    let head = head(&[Trak::video(avc(40))]);
    let input = [&head[..], &video(0, &[first.clone(), second.clone(), inter()])].concat();
    assert_eq!(ends(&scan_all(&input)), [(input.len() - inter().data.len()) as u64]);
    // A fragment for each field: no chunk begins between them.
    let input = [&head[..], &video(0, &[first]), &video(20, &[second])].concat();
    let keys: Vec<Key> = units(&scan_all(&input)).iter().map(|u| u.1.key).collect();
    assert_eq!(keys, [Key::Closed, Key::No]);
}

#[test]
fn behind_more_than_512_kib_of_sei_the_flag_says_whether_a_picture_is_key() {
    let sei = [&[6, 5][..], &vec![0xff; 600_000]].concat();
    let data = nals(&[sei, vec![0x65, 0x88, 1, 2]]);
    for (flags, key) in [(SYNC, Key::Closed), (NON_SYNC, Key::No)] {
        let one = Sample {
            data: data.clone(),
            flags,
            ..idr()
        };
        let input = [head(&[Trak::video(avc(40))]), video(0, &[one])].concat();
        let (marks, _) = try_scan(&input, 70_000);
        assert!(marks == scan(&input));
        assert_eq!(units(&marks)[0].1.key, key);
    }
}

#[test]
fn parameter_sets_in_a_fragment_of_their_own_belong_to_the_key_picture_behind_them() {
    let avc3 = visual(b"avc3", &boxed(b"avcC", &[&[1, 0x64, 0, 40, 0xff, 0xe0, 0]]));
    let sets = sample(0, &[SPS_2, PPS_2]);
    let key = sample(40, &[&[0x65, 0x88, 1, 2]]);
    let inter = sample(40, &[&[0x41, 0x9a, 1, 2]]);
    let head = head(&[Trak::video(avc3), Trak::audio(aac())]);
    let mut input = head.clone();
    let mut begins = Vec::new();
    for n in 0..4 {
        begins.push(input.len() as u64);
        for (parts, ms) in [(&sets, 0), (&key, 0), (&inter, 40)] {
            input.extend(video(n * 80 + ms, std::slice::from_ref(parts)));
        }
    }
    let marks = scan_all(&input);
    let units = units(&marks);
    let found: Vec<u64> = units
        .iter()
        .filter(|(_, unit)| unit.key.is_key())
        .map(|(at, _)| *at)
        .collect();
    assert_eq!(found, begins, "a chunk begins with the parameter sets of its picture");
    assert!(!marks.iter().any(|m| matches!(m.kind, MarkKind::Notice(_))), "nothing lacks");
    assert_eq!(units.len(), 8, "sets and picture are one");
}
