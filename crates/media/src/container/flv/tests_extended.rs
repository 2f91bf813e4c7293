//! Enhanced RTMP: FourCCs, modifiers, several tracks.

use super::test_stream::*;
use super::tests::{scan_sliced as scan, sliced, units};
use super::*;

const KEY: &[u8] = &[0x12, 0, 0x32, 2, 0x10, 9];
const INTER: &[u8] = &[0x12, 0, 0x32, 2, 0x30, 9];
const AV1C: &[u8] = &[0x81, 0x08, 0x0c, 0, 0x0a, 0x01, 0x22];

fn keys(marks: &[Mark]) -> Vec<u64> {
    units(marks)
        .iter()
        .filter(|(_, unit)| unit.key.is_key())
        .map(|(at, _)| *at)
        .collect()
}

/// The extended header of a packet of that type: plain, behind a modifier, or of a track.
fn headers(flags: u8, packet: u8, track: u8) -> [Vec<u8>; 4] {
    [
        [&[flags | packet][..], b"av01"].concat(),
        [&[flags | 7, 2, 0, 0, 9, packet][..], b"av01"].concat(),
        [&[flags | 6, packet][..], b"av01", &[track]].concat(),
        [&[flags | 7, 255, 0, 255][..], &[1; 256], &[6, packet], b"av01", &[track]].concat(),
    ]
}

#[test]
fn av1_is_cut_at_its_key_frames_and_named_whatever_stands_in_front_of_it() {
    for form in 0..4 {
        let mut w = Writer::new(1);
        w.tag(9, 0, &[&headers(0x90, 0, 0)[form][..], AV1C].concat());
        let head = w.bytes.clone();
        let mut begins = Vec::new();
        for n in 0..9u32 {
            // A frame that the muxer flags as key, but that is no key frame by its bytes.
            let flags = if n % 3 == 0 || n == 4 { 0x90 } else { 0xa0 };
            let frame = if n % 3 == 0 { KEY } else { INTER };
            begins.push(w.tag(9, n * 40, &[&headers(flags, 1, 0)[form][..], frame].concat()));
        }
        w.tag(9, 400, &headers(0x90, 2, 0)[form]);
        let marks = scan(&w.bytes);
        assert_eq!(keys(&marks), [begins[0], begins[3], begins[6]], "{form}");
        let units = units(&marks);
        let init = units[3].1.init.clone().unwrap();
        assert_eq!(
            (init.head, init.info.codecs.as_deref()),
            (head.into(), Some("av01.0.08M.08")),
            "{form}"
        );
        assert_eq!(units.len(), 9, "the end of the sequence is no picture");
        assert_eq!(units[8].1.pts, Some(320_000_000));
    }
}

#[test]
fn further_tracks_are_kept_with_their_configurations_and_nothing_is_cut_at_their_key_frames() {
    let mut w = Writer::new(5);
    w.tag(9, 0, AVC);
    let track = |packet: u8, track: u8| [&[0x90 | 6, packet][..], b"av01", &[track]].concat();
    w.tag(9, 0, &[&track(0, 1)[..], AV1C].concat());
    w.tag(8, 0, AAC);
    // Sound of a second track: Opus.
    w.tag(8, 0, &[&[0x95, 0][..], b"Opus", &[1], b"OpusHead"].concat());
    let head = w.bytes.clone();
    let mut begins = Vec::new();
    for n in 0..8u32 {
        begins.push(w.picture(n * 40, if n % 4 == 0 { 0x65 } else { 0x41 }, n % 4 == 0, 0));
        w.tag(9, n * 40, &[&track(1, 1)[..], KEY].concat());
        w.audio(n * 40);
        w.tag(8, n * 40, &[&[0x95, 1][..], b"Opus", &[1, 3, 3, 3]].concat());
    }
    let marks = scan(&w.bytes);
    assert_eq!(keys(&marks), [begins[0], begins[4]]);
    let units = units(&marks);
    let key = units.iter().find(|(at, _)| *at == begins[4]).unwrap();
    let init = key.1.init.clone().unwrap();
    assert_eq!(init.head, head, "both configurations of each kind");
    assert_eq!(init.info.codecs.as_deref(), Some("avc1.640028,mp4a.40.2"));
    let of = |track| units.iter().filter(|(_, unit)| unit.track == track).count();
    assert_eq!((of(Track::Video), of(Track::Audio), of(Track::Other)), (8, 8, 16));
    assert!(!marks.iter().any(|mark| mark.kind == MarkKind::Damage));
}

#[test]
fn of_several_tracks_in_one_tag_the_first_decides() {
    let size = |data: &[u8]| u32::try_from(data.len()).unwrap().to_be_bytes()[1..].to_vec();
    let both = |flags: u8, packet: u8, first: &[u8], second: &[u8]| {
        [
            &[flags | 6, 0x10 | packet][..],
            b"av01",
            &[0],
            &size(first),
            first,
            &[1],
            &size(second),
            second,
        ]
        .concat()
    };
    let mut w = Writer::new(1);
    w.tag(9, 0, &both(0x90, 0, AV1C, AV1C));
    let mut begins = Vec::new();
    for n in 0..6u32 {
        let (first, second) = if n % 3 == 0 { (KEY, INTER) } else { (INTER, KEY) };
        begins.push(w.tag(9, n * 40, &both(0x90, 1, first, second)));
    }
    assert_eq!(keys(&scan(&w.bytes)), [begins[0], begins[3]]);
}

#[test]
fn commands_and_the_layout_of_channels_are_neither_pictures_nor_sound() {
    let mut w = Writer::head(5);
    w.picture(0, 0x65, true, 0);
    w.tag(9, 40, &[0xd1, 1]);
    w.tag(8, 40, &[&[0x94][..], b"Opus", &[1, 2, 3]].concat());
    w.tag(8, 40, &[&[0x92][..], b"Opus"].concat());
    assert_eq!(units(&scan(&w.bytes)).len(), 1);
}

#[test]
fn a_configuration_that_claims_to_be_too_large_is_damage_and_ends_no_recording() {
    for data in [AVC, AAC, &[2, 0, 10][..]] {
        let mut w = Writer::head(5);
        // Pictures so large that a tag of 5 MiB is accepted.
        w.tag(
            9,
            0,
            &[&[0x17, 1, 0, 0, 0, 0, 0xf, 0, 0, 0x65][..], &vec![0x11; 0xf_0000]].concat(),
        );
        let kind = if data == AVC {
            9
        } else if data == AAC {
            8
        } else {
            18
        };
        let lie = usize::try_from(w.tag(kind, 40, data)).unwrap();
        w.bytes[lie + 1] = 0x50;
        let next = w.picture(80, 0x65, true, 0);
        w.picture(120, 0x41, false, 0);
        let marks = sliced(&w.bytes, &[]);
        assert_eq!(marks, sliced(&w.bytes, &[1000, lie + 5, lie + 40]));
        assert!(keys(&marks).contains(&next), "{kind}");
        assert!(marks.iter().any(|mark| mark.kind == MarkKind::Damage), "{kind}");
    }
}
