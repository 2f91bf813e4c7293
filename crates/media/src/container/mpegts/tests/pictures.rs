//! Pictures that are not one PES packet each.

use super::super::super::fields::tests::{field, interlaced_sps};
use super::super::super::{Key, MarkKind, Notice, Track};
use super::writer::{VIDEO, Writer, idr, pes};
use super::{at, keys, outline, scan, scan_in};

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
fn pictures_that_begin_within_a_pes_packet_are_told_of() {
    for rest in [0usize, 300] {
        let mut w = Writer::new();
        w.tables();
        w.picture(SECOND, true, 10);
        let begin = w.pes(VIDEO, 0xe0, Some(2 * SECOND), &[vec![0x77; rest], idr(0x28, 400)].concat());
        let marks = scan(&w.out);
        assert_eq!(keys(&marks)[1].0, begin);
        let told = at(&marks, &MarkKind::Notice(Notice::Unaligned)).len();
        assert_eq!(told, usize::from(rest > 0), "{rest}");
    }
}
