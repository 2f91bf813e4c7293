//! Sound whose PES packet is open where a picture begins.

use super::super::super::{Key, MarkKind, Track};
use super::writer::{AUDIO, AV, VIDEO, Writer, idr, p_slice, pes};
use super::{at, codecs, head, keys, outline, scan, scan_in, units};

const SECOND: u64 = 90_000;

/// A PES packet of sound with its length, in packets.
fn sound(pts: u64) -> Vec<Vec<u8>> {
    let mut whole = pes(
        0xc0,
        Some(pts),
        &[&[0xff, 0xf1, 0x50, 0x80, 0, 0, 0][..], &[0x55; 500]].concat(),
    );
    let length = u16::try_from(whole.len() - 6).unwrap().to_be_bytes();
    whole[4..6].copy_from_slice(&length);
    whole.chunks(184).map(<[u8]>::to_vec).collect()
}

/// Writes a picture with a packet of sound in front of it, another behind its first packet, and the last behind all of it.
/// Returns where sound and picture begin.
fn torn(w: &mut Writer, pts: u64, picture: &[u8], tables: bool) -> (u64, u64) {
    let parts = sound(pts);
    let begin = w.at();
    w.packet(AUDIO, true, 0, &parts[0]);
    if tables {
        w.null();
        w.tables();
    }
    let picture_at = w.at();
    for (i, part) in pes(0xe0, Some(pts), picture).chunks(184).enumerate() {
        w.packet(VIDEO, i == 0, 0, part);
        if i == 0 {
            w.packet(AUDIO, false, 0, &parts[1]);
        }
    }
    parts[2..].iter().for_each(|part| w.packet(AUDIO, false, 0, part));
    (begin, picture_at)
}

fn outlines(w: &Writer) -> Vec<(u64, Track, Key)> {
    let whole = scan_in(&w.out, w.out.len()).unwrap();
    for slice in [1, 100, 188, 1000] {
        assert!(scan_in(&w.out, slice).unwrap() == whole, "in slices of {slice}");
    }
    outline(&whole)
}

#[test]
fn a_chunk_begins_with_the_packet_of_sound_that_its_key_picture_would_tear() {
    for tables in [false, true] {
        // Judged by its first packet, or by a later one.
        for sei in [0, 400] {
            let mut w = Writer::new();
            w.pat();
            w.pmt(0, AV);
            w.picture(SECOND, true, 600);
            let long = [
                &[0, 0, 1, 9, 0xf0, 0, 0, 1, 6, 5][..],
                &vec![0x33; sei],
                &[0x80],
                &idr(0x28, 300),
            ]
            .concat();
            let (begin, _) = torn(&mut w, 2 * SECOND, &long, tables);
            let last = w.picture(3 * SECOND, false, 600);
            let found = outlines(&w);
            let expected = [
                (begin, Track::Video, Key::Closed),
                (begin, Track::Audio, Key::No),
                (last, Track::Video, Key::No),
            ];
            assert_eq!(found[1..], expected, "tables {tables}, SEI {sei}");
            let marks = scan_in(&w.out, 500).unwrap();
            assert_eq!(head(units(&marks)[1].1).len(), 2 * 188, "no tables in front");
            assert_eq!(at(&marks, &MarkKind::PictureEnd), [begin, last]);
        }
    }
}

#[test]
fn tables_in_front_of_that_sound_are_the_header() {
    let mut w = Writer::new();
    w.tables();
    w.picture(SECOND, true, 600);
    let tables = w.at();
    w.tables();
    torn(&mut w, 2 * SECOND, &idr(0x28, 600), false);
    let marks = scan_in(&w.out, 500).unwrap();
    assert_eq!(outlines(&w)[1], (tables, Track::Video, Key::Closed));
    assert!(head(units(&marks)[1].1).is_empty());
}

#[test]
fn sound_stays_where_it_is_before_other_pictures_and_with_more_of_the_last_one_in_between() {
    let mut w = Writer::new();
    w.tables();
    w.picture(SECOND, true, 600);
    let (begin, picture) = torn(&mut w, 2 * SECOND, &p_slice(600), false);
    assert_eq!(
        outlines(&w)[1..],
        [(begin, Track::Audio, Key::No), (picture, Track::Video, Key::No)]
    );

    let mut w = Writer::new();
    w.tables();
    let whole = pes(0xe0, Some(SECOND), &idr(0x28, 600));
    let parts = sound(SECOND);
    w.packet(VIDEO, true, 0, &whole[..184]);
    let begin = w.at();
    w.packet(AUDIO, true, 0, &parts[0]);
    for part in whole[184..].chunks(184) {
        w.packet(VIDEO, false, 0, part);
    }
    let key = w.picture(2 * SECOND, true, 600);
    assert_eq!(
        outlines(&w)[1..],
        [(begin, Track::Audio, Key::No), (key, Track::Video, Key::Closed)]
    );
}

#[test]
fn a_packet_of_sound_that_has_ended_belongs_to_the_chunk_before() {
    let mut w = Writer::new();
    w.tables();
    w.picture(SECOND, true, 600);
    let begin = w.at();
    for (i, part) in sound(SECOND).iter().enumerate() {
        w.packet(AUDIO, i == 0, 0, part);
    }
    let key = w.picture(2 * SECOND, true, 600);
    assert_eq!(
        outlines(&w)[1..],
        [(begin, Track::Audio, Key::No), (key, Track::Video, Key::Closed)]
    );
}

#[test]
fn aac_that_the_table_calls_private_is_sound_and_has_its_name() {
    for stride in [188, 192] {
        let mut w = Writer::with_stride(stride);
        w.pat();
        w.pmt(0, &[(0x1b, VIDEO, &[]), (6, AUDIO, &[])]);
        for n in 0..8u64 {
            w.picture(n * 45_000, n % 4 == 0, 300);
            w.sound(n * 45_000);
        }
        let marks = scan(&w.out);
        let last = keys(&marks).last().unwrap().1;
        assert_eq!(codecs(last), Some("avc1.640028,mp4a.40.2"), "{stride}");
        let sounds = outline(&marks).iter().filter(|(_, track, _)| *track == Track::Audio).count();
        assert_eq!(sounds, 8, "{stride}");
    }
}

#[test]
fn private_data_that_merely_look_like_sound_are_none() {
    let mut w = Writer::new();
    w.pat();
    w.pmt(0, &[(0x1b, VIDEO, &[]), (6, AUDIO, &[])]);
    w.picture(0, true, 300);
    // private_stream_1, and a frame header with a sampling rate that is reserved.
    w.pes(AUDIO, 0xbd, Some(0), &[0xff, 0xf1, 0x50, 0x80, 0, 0, 0, 1]);
    w.pes(AUDIO, 0xc0, Some(0), &[0xff, 0xf1, 0x7c, 0x80, 0, 0, 0, 1]);
    w.picture(45_000, true, 300);
    let marks = scan(&w.out);
    assert_eq!(codecs(keys(&marks)[1].1), Some("avc1.640028"));
    assert!(outline(&marks).iter().all(|(_, track, _)| *track != Track::Audio));
}

/// Writes a PES packet of AAC of that PID.
fn aac_of(w: &mut Writer, pid: u16, pts: u64) {
    w.pes(
        pid,
        0xc0,
        Some(pts),
        &[&[0xff, 0xf1, 0x50, 0x80, 0, 0, 0][..], &[0x55; 60]].concat(),
    );
}

#[test]
fn sound_with_a_clock_of_its_own_beside_other_sound_is_not_sound_to_cut_by() {
    const MORE: u16 = 0x43;
    // With pictures and without; sound that is known, and private.
    for (video, kind) in [(true, 0x0f), (false, 0x0f), (false, 0x82)] {
        let sound: &[(u8, u16, &'static [u8])] = &[(kind, AUDIO, &[]), (kind, MORE, &[])];
        let streams = [if video { &AV[..1] } else { &[] }, sound].concat();
        let mut w = Writer::new();
        w.pat();
        w.pmt(0, &streams);
        let send = |w: &mut Writer, pid: u16, pts: u64| match kind {
            0x0f => aac_of(w, pid, pts),
            _ => {
                w.pes(pid, 0xbd, Some(pts), &[0x7f; 60]);
            }
        };
        for n in 0..10u64 {
            if video {
                w.picture((10 + n) * SECOND, true, 100);
            }
            send(&mut w, AUDIO, (10 + n) * SECOND);
            send(&mut w, MORE, (90_000 + n) * SECOND);
        }
        let marks = scan(&w.out);
        let sound: Vec<u64> = units(&marks)
            .into_iter()
            .filter(|(_, unit)| unit.track == Track::Audio)
            .map(|(_, unit)| unit.pts.unwrap() / 1_000_000_000)
            .collect();
        assert_eq!(sound, (10..20).collect::<Vec<_>>(), "video {video}, type {kind:x}");
        assert_eq!(keys(&marks).len(), 10, "video {video}, type {kind:x}");
        // The first stops: the other decides on cuts.
        for n in 10..400u64 {
            send(&mut w, MORE, (90_000 + n) * SECOND);
        }
        let more = units(&scan(&w.out))
            .into_iter()
            .filter(|(_, unit)| unit.track == Track::Audio)
            .count();
        assert!(more > 100, "video {video}, type {kind:x}: {more}");
    }
}
