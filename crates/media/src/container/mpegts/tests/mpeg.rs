//! MPEG-2 and MPEG-4 part 2, whose encoders and muxers leave out headers and flags.

use super::super::super::{Key, MarkKind, Notice, Track};
use super::writer::{VIDEO, Writer, mpeg2_field, mpeg4_layer, mpeg4_vop, pes};
use super::{at, keys, outline, scan, scan_in, units};

const SECOND: u64 = 90_000;
/// random_access_indicator.
const FLAG: u8 = 0x40;

fn of(stream_type: u8) -> Writer {
    let mut w = Writer::new();
    w.pat();
    match stream_type {
        2 => w.pmt(0, &[(2, VIDEO, &[])]),
        _ => w.pmt(0, &[(0x10, VIDEO, &[])]),
    };
    w
}

#[test]
fn key_pictures_of_mpeg_4_are_found_by_their_bytes_whatever_the_flags_say() {
    // The flag nowhere, at the key pictures, at each picture, at the others alone.
    for flagged in [[false, false], [true, false], [true, true], [false, true]] {
        let mut w = of(0x10);
        let mut begins = Vec::new();
        for n in 0..9u8 {
            let is_key = n % 3 == 0;
            let picture = match is_key {
                true => [mpeg4_layer(1), vec![0, 0, 1, 0xb3, 0, 0x10, 7], mpeg4_vop(0, 60)].concat(),
                false => mpeg4_vop(n % 3, 60),
            };
            begins.push(w.at());
            let flags = if flagged[usize::from(!is_key)] { FLAG } else { 0 };
            w.packet(VIDEO, true, flags, &pes(0xe0, Some(SECOND * u64::from(n)), &picture));
        }
        begins[0] = 0;
        let kind = |n: usize| if n.is_multiple_of(3) { Key::Open } else { Key::No };
        let expected: Vec<_> = begins
            .iter()
            .enumerate()
            .map(|(n, &at)| (at, Track::Video, kind(n)))
            .collect();
        for slice in [1, 100, 188, 5000] {
            let marks = scan_in(&w.out, slice).unwrap();
            assert_eq!(outline(&marks), expected, "{flagged:?}");
            assert!(at(&marks, &MarkKind::Notice(Notice::NoObjectLayer)).is_empty());
        }
    }
}

#[test]
fn a_key_picture_of_mpeg_4_is_found_wherever_it_stands_in_its_pes_packet() {
    let key = [mpeg4_layer(1), mpeg4_vop(0, 300)].concat();
    let mut w = of(0x10);
    w.pes(VIDEO, 0xe0, Some(SECOND), &key);
    // Its headers in a packet of their own; behind the rest of the picture before; behind a picture in the same packet.
    let own = w.pes(VIDEO, 0xe0, Some(2 * SECOND), &mpeg4_layer(1));
    w.pes(VIDEO, 0xe0, None, &mpeg4_vop(0, 300));
    w.pes(VIDEO, 0xe0, Some(3 * SECOND), &[mpeg4_vop(1, 300), mpeg4_vop(2, 90)].concat());
    let rest = w.pes(VIDEO, 0xe0, Some(4 * SECOND), &[&[0x5a; 300], &key[..]].concat());
    let second = w.pes(VIDEO, 0xe0, Some(5 * SECOND), &[&mpeg4_vop(1, 300), &key[..]].concat());
    w.pes(VIDEO, 0xe0, Some(6 * SECOND), &mpeg4_vop(1, 90));
    for slice in [1, 188, 5000] {
        let marks = scan_in(&w.out, slice).unwrap();
        let found: Vec<u64> = keys(&marks).iter().map(|(at, _)| *at).collect();
        assert_eq!(found, [0, own, rest, second]);
    }
}

#[test]
fn another_layer_of_mpeg_4_is_a_configuration_and_a_key_picture_without_one_is_reported_where_none_comes() {
    let vop = |layer: Option<u8>| [layer.map(mpeg4_layer).unwrap_or_default(), mpeg4_vop(0, 300)].concat();
    let mut w = of(0x10);
    // A layer that is missing once comes again with the next key frame, as behind a parser that repeats it once a second.
    for (n, layer) in (0u64..).zip([Some(1), None, Some(1), Some(2)]) {
        w.pes(VIDEO, 0xe0, Some(SECOND * n), &vop(layer));
    }
    let bare = w.pes(VIDEO, 0xe0, Some(SECOND * 28), &vop(None));
    let next = w.pes(VIDEO, 0xe0, Some(SECOND * 29), &vop(None));
    let marks = scan(&w.out);
    let changes: Vec<bool> = keys(&marks).iter().map(|(_, unit)| unit.new_codec_config).collect();
    assert_eq!(changes, [false, false, true, false]);
    assert_eq!(units(&marks).iter().find(|(at, _)| *at == bare).unwrap().1.key, Key::No);
    assert_eq!(at(&marks, &MarkKind::Notice(Notice::NoObjectLayer)), [next]);
}

/// A picture of MPEG-2: 0 with a sequence header, 1 with a group header, 2 with neither.
fn mpeg2(kind: u8, n: u8) -> Vec<u8> {
    let picture = mpeg2_field(kind < 2, n, false, 90);
    // Sequence header and extension are 22 bytes.
    picture[if kind == 1 { 22 } else { 0 }..].to_vec()
}

#[test]
fn groups_of_mpeg_2_without_a_sequence_header_are_key_pictures_once_it_stays_away() {
    for (sequence_every, are_missing) in [(1000, true), (40, false)] {
        let mut w = of(2);
        let mut sequences = Vec::new();
        // A group of two pictures every half second, for 76 s.
        for n in 0..152u32 {
            let pts = SECOND / 2 * u64::from(n);
            let kind = u8::from(n % sequence_every != 0);
            let begin = w.pes(VIDEO, 0xe0, Some(pts), &mpeg2(kind, 0));
            if kind == 0 {
                sequences.push(begin);
            }
            w.pes(VIDEO, 0xe0, Some(pts + SECOND / 4), &mpeg2(2, 1));
        }
        sequences[0] = 0;
        for slice in [188, 5000] {
            let marks = scan_in(&w.out, slice).unwrap();
            let found: Vec<u64> = keys(&marks).iter().map(|(at, _)| *at).collect();
            let reported = at(&marks, &MarkKind::Notice(Notice::NoSequenceHeader));
            if are_missing {
                assert_eq!(found.len(), 1 + 2 * (76 - 25) - 1, "{reported:?}");
                assert_eq!(reported, found[1..]);
            } else {
                assert_eq!(found, sequences, "only there can decoding begin");
                assert!(reported.is_empty());
            }
        }
    }
}
