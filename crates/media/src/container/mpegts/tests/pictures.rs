//! Pictures that are not one PES packet each.

use super::super::super::fields::tests::{field, interlaced_sps};
use super::super::super::{Key, MarkKind, Notice, Track};
use super::writer::{VIDEO, Writer, idr, mpeg2_field, p_slice, pes};
use super::{at, codecs, keys, outline, scan, scan_in};

const SECOND: u64 = 90_000;

fn annexb(nals: &[&[u8]]) -> Vec<u8> {
    nals.iter().flat_map(|nal| [&[0, 0, 1][..], nal].concat()).collect()
}

#[test]
fn a_pes_packet_for_each_field_is_one_picture_and_the_preview_ends_behind_the_second() {
    let sps = interlaced_sps();
    let mut w = Writer::new();
    w.tables();
    let mut begins = Vec::new();
    for frame in 0..3 {
        let pts = SECOND + frame * 3600;
        let first: Vec<u8> = if frame == 1 {
            annexb(&[&[9, 0xf0], &field(0x41, false)])
        } else {
            annexb(&[&[9, 0xf0], &sps, &[0x68, 1], &field(0x65, false)])
        };
        begins.push(w.pes(VIDEO, 0xe0, Some(pts), &first));
        // A recovery point in front of the second field makes no key unit of it.
        let second = annexb(&[&[9, 0xf0], &[6, 6, 1, 0xc0, 0x80], &field(0x41, true)]);
        w.pes(VIDEO, 0xe0, Some(pts + 1800), &second);
    }
    begins[0] = 0;
    for slice in [1, 100, 188, 5000] {
        let marks = scan_in(&w.out, slice).unwrap();
        let kinds = [Key::Closed, Key::No, Key::Closed];
        let expected: Vec<_> = begins.iter().zip(kinds).map(|(&at, key)| (at, Track::Video, key)).collect();
        assert_eq!(outline(&marks), expected);
        assert_eq!(at(&marks, &MarkKind::PictureEnd), [begins[1], w.at()]);
    }
}

#[test]
fn behind_more_than_512_kib_of_sei_the_flag_says_whether_a_picture_is_key() {
    let sei = [&[6, 5][..], &vec![0xff; 600_000]].concat();
    let data = annexb(&[&[9, 0xf0], &[0x67, 0x64, 0, 0x28], &[0x68, 1], &sei, &[0x65, 0x88]]);
    for (flags, expected) in [(0x40, 2), (0, 1)] {
        let mut w = Writer::new();
        w.tables();
        w.picture(SECOND, true, 10);
        let whole = pes(0xe0, Some(2 * SECOND), &data);
        // random_access_indicator, in a packet with room for it.
        w.packet(VIDEO, true, flags, &whole[..100]);
        for part in whole[100..].chunks(184) {
            w.packet(VIDEO, false, 0, part);
        }
        w.picture(3 * SECOND, false, 10);
        assert_eq!(keys(&scan(&w.out)).len(), expected);
    }
}

#[test]
fn pictures_that_begin_within_a_pes_packet_are_reported() {
    for rest in [0usize, 300] {
        let mut w = Writer::new();
        w.tables();
        w.picture(SECOND, true, 10);
        let begin = w.pes(VIDEO, 0xe0, Some(2 * SECOND), &[vec![0x77; rest], idr(0x28, 400)].concat());
        let marks = scan(&w.out);
        assert_eq!(keys(&marks)[1].0, begin);
        let reported = at(&marks, &MarkKind::Notice(Notice::Unaligned)).len();
        assert_eq!(reported, usize::from(rest > 0), "{rest}");
    }
}

#[test]
fn a_key_picture_that_is_the_second_in_its_pes_packet_is_found() {
    let mut w = Writer::new();
    w.tables();
    w.picture(SECOND, true, 300);
    let mut begins = Vec::new();
    for round in 0..5u64 {
        // Two pictures in each: the key frame is the second of every other.
        let second = if round % 2 == 1 { idr(0x28, 300) } else { p_slice(300) };
        begins.push(w.pes(VIDEO, 0xe0, Some(SECOND * (2 + round)), &[p_slice(300), second].concat()));
    }
    for slice in [1, 188, 5000] {
        let marks = scan_in(&w.out, slice).unwrap();
        let found: Vec<u64> = keys(&marks).iter().map(|(at, _)| *at).collect();
        assert_eq!(found, [0, begins[1], begins[3]]);
        assert!(keys(&marks)[1..].iter().all(|(_, unit)| unit.key == Key::Open));
    }
}

#[test]
fn a_key_picture_whose_start_code_is_split_over_two_pes_packets_is_found() {
    let key = idr(0x28, 300);
    // Within 00 00 00 01 09, within the parameter sets, and within the SEI.
    for split in [2, 3, 4, 5, 6, 7, 12, 20, 100, 215] {
        let mut w = Writer::new();
        w.tables();
        w.picture(SECOND, true, 300);
        let begin = w.pes(VIDEO, 0xe0, Some(2 * SECOND), &[&[0x66; 400], &key[..split]].concat());
        w.pes(VIDEO, 0xe0, None, &key[split..]);
        w.picture(3 * SECOND, false, 300);
        let marks = scan(&w.out);
        let found: Vec<u64> = keys(&marks).iter().map(|(at, _)| *at).collect();
        assert_eq!(found, [0, begin], "{split}");
    }
}

#[test]
fn a_pes_packet_for_each_field_of_mpeg_2_is_one_picture_and_the_preview_ends_behind_the_second() {
    // The second field with a time of its own, and without.
    for has_time in [true, false] {
        let mut w = Writer::new();
        w.pat();
        w.pmt(0, &[(2, VIDEO, &[])]);
        let mut begins = Vec::new();
        for frame in 0..6u8 {
            let pts = SECOND + u64::from(frame) * 3600;
            begins.push(w.pes(VIDEO, 0xe0, Some(pts), &mpeg2_field(frame % 3 == 0, frame, false, 400)));
            let second = has_time.then_some(pts + 1800);
            w.pes(VIDEO, 0xe0, second, &mpeg2_field(false, frame, true, 300));
        }
        begins[0] = 0;
        for slice in [1, 100, 188, 5000] {
            let marks = scan_in(&w.out, slice).unwrap();
            let kind = |frame: usize| if frame.is_multiple_of(3) { Key::Closed } else { Key::No };
            let expected: Vec<_> = begins
                .iter()
                .enumerate()
                .map(|(n, &at)| (at, Track::Video, kind(n)))
                .collect();
            assert_eq!(outline(&marks), expected, "{has_time}");
            assert_eq!(at(&marks, &MarkKind::PictureEnd), [begins[1], begins[4]], "{has_time}");
        }
    }
}

/// A picture of MPEG-2 that is a whole frame.
fn mpeg2_frame(key: bool, reference: u8) -> Vec<u8> {
    let mut data = mpeg2_field(key, reference, false, 300);
    let structure = data.windows(4).position(|w| w == [0, 0, 1, 0xb5]).unwrap();
    let coding = data.windows(5).position(|w| w == [0, 0, 1, 0xb5, 0x8f]).unwrap_or(structure);
    data[coding + 6] = 0xf3;
    data
}

#[test]
fn a_key_picture_of_mpeg_2_is_found_wherever_it_stands_in_its_pes_packet() {
    // Slices of the picture before, with and without a start code.
    let rests = [vec![0x5a; 300], [&[0, 0, 1, 5, 0x22][..], &[0x5a; 300]].concat()];
    for fields in [false, true] {
        for rest in &rests {
            let frame = |key, n: u8| match fields {
                false => mpeg2_frame(key, n),
                true => [mpeg2_field(key, n, false, 200), mpeg2_field(false, n, true, 200)].concat(),
            };
            let mut w = Writer::new();
            w.pat();
            w.pmt(0, &[(2, VIDEO, &[])]);
            w.pes(VIDEO, 0xe0, Some(SECOND), &frame(true, 0));
            let mut begins = Vec::new();
            for round in 1..7u8 {
                // Two frames in each packet, behind the rest of one: the key frame is the second of every other.
                let two = [&rest[..], &frame(false, 2 * round), &frame(round % 2 == 0, 2 * round + 1)].concat();
                begins.push(w.pes(VIDEO, 0xe0, Some(SECOND * (1 + u64::from(round))), &two));
            }
            let behind_rest = w.pes(VIDEO, 0xe0, Some(SECOND * 9), &[&rest[..], &frame(true, 20)].concat());
            for slice in [1, 188, 5000] {
                let marks = scan_in(&w.out, slice).unwrap();
                let found: Vec<u64> = keys(&marks).iter().map(|(at, _)| *at).collect();
                assert_eq!(found, [0, begins[1], begins[3], begins[5], behind_rest], "{fields}");
                let reported = at(&marks, &MarkKind::Notice(Notice::Unaligned)).len();
                assert_eq!(reported, 4, "each of them has a torn picture in front");
            }
        }
    }
}

#[test]
fn a_sequence_header_in_a_pes_packet_of_its_own_belongs_to_the_picture_behind_it() {
    let mut w = Writer::new();
    w.pat();
    w.pmt(0, &[(2, VIDEO, &[])]);
    let mut begins = Vec::new();
    for n in 0..6u8 {
        let picture = mpeg2_frame(n % 3 == 0, n);
        let header = if n % 3 == 0 {
            picture.windows(4).position(|w| w == [0, 0, 1, 0]).unwrap()
        } else {
            0
        };
        let pts = SECOND * u64::from(n);
        let begin = (header > 0).then(|| w.pes(VIDEO, 0xe0, Some(pts), &picture[..header]));
        let at = w.pes(VIDEO, 0xe0, begin.is_none().then_some(pts), &picture[header..]);
        begins.push(begin.unwrap_or(at));
    }
    let found: Vec<u64> = keys(&scan(&w.out)).iter().map(|(at, _)| *at).collect();
    assert_eq!(found, [0, begins[3]]);
}

#[test]
fn two_first_fields_in_a_row_are_two_pictures_of_mpeg_2() {
    let mut w = Writer::new();
    w.pat();
    w.pmt(0, &[(2, VIDEO, &[])]);
    for (reference, is_bottom) in [(0, false), (1, false), (1, true), (2, true), (3, false)] {
        w.pes(
            VIDEO,
            0xe0,
            Some(SECOND),
            &mpeg2_field(reference == 0, reference, is_bottom, 50),
        );
    }
    assert_eq!(outline(&scan(&w.out)).len(), 4, "of five fields one pair has one frame");
}

#[test]
fn av1_in_a_transport_stream_is_cut_at_what_is_flagged_for_random_access() {
    let mut w = Writer::new();
    w.pat();
    w.pmt(0, &[(6, VIDEO, b"\x05\x04AV01\x80\x04\x81\x08\x0c\x00")]);
    let mut begins = Vec::new();
    for n in 0..6u64 {
        let whole = pes(0xbd, Some(SECOND * n), &[0, 0, 1, 0x12, 0, 0, 0, 1, 0x32, 0x10, 9]);
        begins.push(w.at());
        w.packet(VIDEO, true, if n % 3 == 0 { 0x40 } else { 0 }, &whole);
    }
    let marks = scan(&w.out);
    let found: Vec<u64> = keys(&marks).iter().map(|(at, _)| *at).collect();
    assert_eq!(found, [0, begins[3]]);
    assert_eq!(codecs(keys(&marks)[0].1), Some("av01.0.08M.08"));
}

#[test]
fn parameter_sets_repeated_in_front_of_a_later_slice_begin_no_picture() {
    let (sps, pps): (&[u8], &[u8]) = (&[0x67, 0x64, 0, 0x28, 0xac], &[0x68, 0xee, 0x3c]);
    let slice = |first: u8| [&[0x65, first][..], &[0x77; 300]].concat();
    // Each NAL unit in a PES packet of its own, or the parameter sets with their slice; with the rest of another slice in front.
    let forms: [&[&[&[u8]]]; 3] = [
        &[&[sps], &[pps], &[&slice(0x20)]],
        &[&[sps, pps, &slice(0x20)]],
        &[&[&slice(0x20), sps, pps, &slice(0x08)]],
    ];
    for form in forms {
        let mut w = Writer::new();
        w.tables();
        let mut begins = Vec::new();
        for n in 0..3u64 {
            let pts = SECOND + n * 2 * SECOND;
            begins.push(w.pes(VIDEO, 0xe0, Some(pts), &annexb(&[&[9, 0x10]])));
            w.pes(VIDEO, 0xe0, Some(pts), &annexb(&[sps, pps, &slice(0x88)]));
            // The parser gives the later slice another time.
            for nals in form {
                w.pes(VIDEO, 0xe0, Some(pts + 9000), &annexb(nals));
            }
            begins.push(w.pes(VIDEO, 0xe0, Some(pts + SECOND), &p_slice(300)));
        }
        begins[0] = 0;
        for slice in [1, 188, 5000] {
            let marks = scan_in(&w.out, slice).unwrap();
            let kinds = [Key::Closed, Key::No].into_iter().cycle();
            let expected: Vec<_> = begins.iter().zip(kinds).map(|(&at, key)| (at, Track::Video, key)).collect();
            assert_eq!(outline(&marks), expected, "{} in a key frame", form.len());
            let ends = [begins[1], begins[3], begins[5]];
            assert_eq!(at(&marks, &MarkKind::PictureEnd), ends);
        }
    }
}
