//! Pictures that come in more than one block.

use super::super::Notice;
use super::super::fields::tests::{field, interlaced_sps, units as nals};
use super::tests::*;
use super::*;

const SPS_2: &[u8] = &[0x67, 0x64, 0, 0x1f];
const PPS_2: &[u8] = &[0x68, 0x81, 7];

fn coded(ms: i16, parts: &[&[u8]]) -> Vec<u8> {
    let parts: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
    video(ms, &nals(&parts))
}

/// The marks, the same however the input is sliced.
fn scan_all(data: &[u8]) -> Vec<Mark> {
    let whole = scan(data);
    for step in [1, 7, 64, 333] {
        assert!(scan_sliced(data, &[step]).unwrap() == whole, "in slices of {step}");
    }
    whole
}

fn outline(marks: &[Mark]) -> Vec<(usize, Track, Key)> {
    units(marks).iter().map(|(at, unit)| (*at, unit.track, unit.key)).collect()
}

#[test]
fn parameter_sets_in_a_block_of_their_own_are_the_beginning_of_the_key_picture_behind_them() {
    let blocks = [
        video(0, IDR),
        audio(30),
        coded(40, &[SPS_2]),
        coded(40, &[PPS_2]),
        audio(40),
        video(40, IDR),
        video(80, SLICE),
    ];
    let (cluster, at) = open_cluster(0, &blocks);
    let head = head();
    let at = |i: usize| head.len() + at[i];
    let marks = scan_all(&cat(&[&head, &cluster]));
    assert_eq!(
        outline(&marks),
        [
            (head.len(), Track::Video, Key::Closed),
            (at(1), Track::Audio, Key::No),
            (at(2), Track::Video, Key::Closed),
            (at(4), Track::Audio, Key::No),
            (at(6), Track::Video, Key::No),
        ]
    );
    assert!(units(&marks)[2].1.new_codec_config);
    assert_eq!(places(&marks, &MarkKind::PictureEnd), [at(1), at(6)]);
    assert!(places(&marks, &MarkKind::Notice(Notice::NoParameterSets)).is_empty());
}

#[test]
fn parameter_sets_at_the_start_of_a_cluster_do_not_hide_its_key_picture() {
    let head = head();
    for first in [vec![], vec![audio(0)]] {
        let blocks = [
            &first[..],
            &[coded(0, &[&[9, 0xf0]]), coded(0, &[SPS_2, PPS_2]), video(0, IDR)],
        ]
        .concat();
        let closed = closed_cluster(0, &blocks);
        let marks = scan_all(&cat(&[&head, &closed, &closed]));
        assert_eq!(keys(&marks), [head.len(), head.len() + closed.len()]);
        assert_eq!(units(&marks).len(), 2 + 2 * first.len());
    }
}

#[test]
fn parameter_sets_without_a_picture_are_a_block_like_any_other() {
    let (first, at) = open_cluster(0, &[video(0, IDR), coded(40, &[SPS_2, PPS_2]), audio(40)]);
    let (second, _) = open_cluster(80, &[video(0, IDR)]);
    let head = head();
    let data = cat(&[&head, &first, &second]);
    let marks = scan_all(&data);
    assert_eq!(outline(&marks)[1], (head.len() + at[1], Track::Video, Key::No));
    assert_eq!(
        places(&marks, &MarkKind::Notice(Notice::NoParameterSets)).len(),
        1,
        "which lack now"
    );
    let (mut scanner, mut marks) = (Matroska::new(), Vec::new());
    scanner.push(&data[..head.len() + first.len()], &mut marks).unwrap();
    assert_eq!(scanner.settled(), (head.len() + at[1]) as u64);
    scanner.release(&mut marks);
    assert_eq!(scanner.settled(), (head.len() + first.len()) as u64);
}

#[test]
fn a_block_for_each_slice_is_one_picture_and_the_preview_ends_behind_the_last() {
    let slice = |ms, first: u8| coded(ms, &[&[0x65, first, 1, 2]]);
    let group = |ms, first: u8| {
        let frame = nals(&[vec![0x65, first, 1, 2]]);
        el(0xA0, &el(0xA1, &block(1, ms, 0, &frame)))
    };
    let head = head();
    for slice in [&slice as &dyn Fn(i16, u8) -> Vec<u8>, &group] {
        let blocks = [
            slice(0, 0x88),
            slice(0, 0x41),
            slice(0, 0x21),
            slice(40, 0x88),
            slice(40, 0x41),
            audio(40),
        ];
        let (cluster, at) = open_cluster(0, &blocks);
        let marks = scan_all(&cat(&[&head, &cluster]));
        assert_eq!(keys(&marks), [head.len(), head.len() + at[3]]);
        assert_eq!(units(&marks).len(), 3);
        assert_eq!(
            places(&marks, &MarkKind::PictureEnd),
            [at[3], at[5]].map(|at| head.len() + at)
        );
    }
}

#[test]
fn a_block_for_each_field_is_one_picture_and_the_preview_ends_behind_the_second() {
    let sps = interlaced_sps();
    let key = |ms| {
        [
            coded(ms, &[&sps, &[0x68, 1], &field(0x65, false)]),
            coded(ms + 20, &[&[6, 6, 1, 0xc0, 0x80], &field(0x41, true)]),
        ]
    };
    let blocks = [key(0).to_vec(), key(40).to_vec(), vec![audio(80)]].concat();
    let (cluster, at) = open_cluster(0, &blocks);
    let head = head_of(&[
        &track(1, 1, "V_MPEG4/ISO/AVC", AVCC, &[]),
        &track(2, 2, "A_AAC", &[0x12, 0x10], &[]),
    ]);
    let marks = scan_all(&cat(&[&head, &cluster]));
    assert_eq!(keys(&marks), [head.len(), head.len() + at[2]]);
    assert_eq!(units(&marks).len(), 3);
    assert_eq!(
        places(&marks, &MarkKind::PictureEnd),
        [at[2], at[4]].map(|at| head.len() + at)
    );
}

#[test]
fn behind_more_than_512_kib_of_sei_the_flag_says_whether_a_picture_is_key() {
    let sei = [&[6, 5][..], &vec![0xff; 600_000]].concat();
    let frame = nals(&[sei, vec![0x65, 0x88, 1, 2]]);
    for (flag, key) in [(0x80, Key::Closed), (0, Key::No)] {
        let (cluster, _) = open_cluster(0, &[el(0xA3, &block(1, 0, flag, &frame))]);
        let data = cat(&[&head(), &cluster]);
        let marks = scan_sliced(&data, &[4096, 70_000, 530_000]).unwrap();
        assert!(marks == scan(&data));
        assert_eq!(units(&marks)[0].1.key, key);
    }
}

#[test]
fn key_pictures_at_the_border_of_a_buffer_are_found_after_eos_and_a_flush_too() {
    let mut big = IDR.to_vec();
    big.extend([7; 400]);
    let size = u32::try_from(big.len() - 4).unwrap();
    big[..4].copy_from_slice(&size.to_be_bytes());
    // A large SEI first, so that the first bytes alone are not enough to classify the picture.
    let sei = [&300u32.to_be_bytes()[..], &[6], &[5; 299]].concat();
    let picture = [&sei[..], &big].concat();
    let (cluster, _) = open_cluster(0, &[video(0, &picture), video(40, SLICE), video(80, &picture)]);
    let input = cat(&[&head(), &cluster]);
    let keys = |marks: &[Mark]| units(marks).iter().filter(|(_, unit)| unit.key.is_key()).count();
    let mut scanner = Matroska::new();
    let mut marks = Vec::new();
    scanner.push(&input, &mut marks).unwrap();
    scanner.finish(&mut marks);
    assert_eq!(keys(&marks), 2);
    scanner.restart();
    marks.clear();
    for slice in cluster.chunks(40) {
        scanner.push(slice, &mut marks).unwrap();
    }
    scanner.finish(&mut marks);
    assert_eq!(keys(&marks), 2);
}

#[test]
fn of_several_sound_tracks_the_first_alone_counts() {
    let sound = |number| track(number, 2, "A_AAC", &[0x12, 0x10], &[]);
    let block_of = |number| el(0xA3, &block(number, 0, 0x80, &[0x21; 20]));
    let head = head_of(&[&sound(2), &sound(3)]);
    let (first, _) = open_cluster(0, &[block_of(2)]);
    let (second, _) = open_cluster(60_000, &[block_of(3)]);
    let marks = scan_all(&cat(&[&head, &first, &second]));
    let found = units(&marks);
    let of: Vec<(Track, Key)> = found.iter().map(|(_, unit)| (unit.track, unit.key)).collect();
    assert_eq!(of, [(Track::Audio, Key::Closed), (Track::Other, Key::No)]);
    let codecs = found[0].1.init.as_ref().unwrap().info.codecs.clone();
    assert_eq!(codecs.as_deref(), Some("mp4a.40.2"));
}
