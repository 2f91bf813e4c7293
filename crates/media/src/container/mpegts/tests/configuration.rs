//! New tables, new parameter sets, codecs, and what cannot be cut.

use super::super::super::{Fault, Key, Mark, MarkKind, Notice, Scanner, Track};
use super::super::MpegTs;
use super::writer::{AUDIO, AV, Es, PMT, VIDEO, Writer, idr, p_slice, pes, section};
use super::{at, codecs, head, keys, outline, scan, scan_in, units};

const SECOND: u64 = 90_000;
const VIDEO_ONLY: &[Es] = &[(0x1b, VIDEO, &[])];
/// Pictures on another PID.
const MOVED: u16 = 0x51;
const MOVED_ONLY: &[Es] = &[(0x1b, MOVED, &[])];

/// The offsets of units at which a chunk has to begin, and their headers.
fn changes(stream: &[u8]) -> Vec<(u64, Track, Vec<u8>)> {
    let marks = scan(stream);
    let new = units(&marks).into_iter().filter(|(_, unit)| unit.new_codec_config);
    new.map(|(at, unit)| (at, unit.track, head(unit).to_vec())).collect()
}

#[test]
fn tables_that_are_only_repeated_are_no_change() {
    let mut w = Writer::new();
    w.tables();
    w.picture(SECOND, true, 10);
    w.pat();
    // A new version with the same content is no new configuration.
    w.pmt(1, AV);
    w.picture(2 * SECOND, true, 10);
    assert!(changes(&w.out).is_empty());
}

#[test]
fn another_pmt_opens_a_chunk_at_its_tables() {
    let mut w = Writer::new();
    w.tables();
    w.picture(SECOND, true, 300);
    let run = w.at();
    w.pat();
    w.pmt(1, MOVED_ONLY);
    w.pes(MOVED, 0xe0, Some(2 * SECOND), &idr(0x28, 10));
    assert_eq!(changes(&w.out), [(run, Track::Other, vec![])]);
    let marks = scan(&w.out);
    assert_eq!(keys(&marks)[1].0, run);
    assert_eq!(codecs(keys(&marks)[1].1), Some("avc1.640028"));
}

#[test]
fn sound_announced_in_the_middle_of_a_group_of_pictures_cuts_at_the_next_key_unit() {
    let mut w = Writer::new();
    w.pat();
    w.pmt(0, VIDEO_ONLY);
    w.picture(SECOND, true, 300);
    let run = w.at();
    w.pat();
    w.pmt(1, AV);
    w.sound(SECOND);
    w.picture(SECOND + 3_000, false, 300);
    w.pat();
    w.pmt(1, AV);
    w.picture(2 * SECOND, true, 10);
    assert!(changes(&w.out).is_empty(), "no chunk begins without a key unit");
    let marks = scan(&w.out);
    assert_eq!(at(&marks, &MarkKind::StreamsChanged), [run]);
    assert_eq!(codecs(keys(&marks)[1].1), Some("avc1.640028,mp4a.40.2"));
}

#[test]
fn a_pmt_in_the_middle_of_a_picture_that_adds_a_stream_does_not_tear_the_picture() {
    let mut w = Writer::new();
    w.pat();
    w.pmt(0, VIDEO_ONLY);
    let data = super::writer::pes(0xe0, Some(SECOND), &idr(40, 600));
    let (first, rest) = data.split_at(184);
    w.packet(VIDEO, true, 0, first);
    w.pmt(1, AV);
    for part in rest.chunks(184) {
        w.packet(VIDEO, false, 0, part);
    }
    w.picture(2 * SECOND, true, 10);
    let marks = scan(&w.out);
    assert_eq!(keys(&marks).len(), 2);
    assert!(at(&marks, &MarkKind::Damage).is_empty());
}

#[test]
fn another_pmt_without_its_pat_gets_the_pat_alone() {
    let mut w = Writer::new();
    let pat = w.pat();
    w.pmt(0, AV);
    w.picture(SECOND, true, 300);
    let run = w.at();
    let pmt = w.pmt(1, MOVED_ONLY);
    w.pes(MOVED, 0xe0, Some(2 * SECOND), &p_slice(10));
    let key = w.pes(MOVED, 0xe0, Some(3 * SECOND), &idr(0x28, 10));
    assert_eq!(changes(&w.out), [(run, Track::Other, pat.clone())]);
    let marks = scan(&w.out);
    assert_eq!(
        (keys(&marks)[1].0, head(keys(&marks)[1].1)),
        (key, &[pat, pmt].concat()[..]),
        "only the new PMT"
    );
}

#[test]
fn a_pmt_on_another_pid_is_a_change() {
    let mut w = Writer::new();
    w.tables();
    w.picture(SECOND, true, 10);
    let run = w.at();
    w.pat_of(&[(1, 0x30)]);
    w.section(0x30, &super::writer::pmt_section(0, AV));
    w.picture(2 * SECOND, true, 10);
    let marks = scan(&w.out);
    assert_eq!(at(&marks, &MarkKind::StreamsChanged), [run]);
    assert_eq!(keys(&marks)[1].0, run);
}

#[test]
fn a_pmt_that_is_not_yet_in_force_or_damaged_changes_nothing() {
    let mut w = Writer::new();
    w.tables();
    w.picture(SECOND, true, 10);
    let mut next = super::writer::pmt_section(1, VIDEO_ONLY);
    next.truncate(next.len() - 4);
    next[5] &= 0xfe;
    let crc = super::super::psi::crc32(&next);
    next.extend_from_slice(&crc.to_be_bytes());
    w.section(PMT, &next);
    let mut broken = super::writer::pmt_section(1, VIDEO_ONLY);
    broken[9] ^= 1;
    w.section(PMT, &broken);
    w.picture(2 * SECOND, true, 10);
    assert!(changes(&w.out).is_empty());
}

#[test]
fn another_sps_opens_a_chunk_at_its_key_picture() {
    let mut w = Writer::new();
    w.tables();
    w.picture(SECOND, true, 10);
    w.picture(2 * SECOND, true, 10);
    let other = w.pes(VIDEO, 0xe0, Some(3 * SECOND), &idr(0x1f, 10));
    w.pes(VIDEO, 0xe0, Some(4 * SECOND), &idr(0x1f, 10));
    let found = changes(&w.out);
    assert_eq!(found.iter().map(|c| (c.0, c.1)).collect::<Vec<_>>(), [(other, Track::Video)]);
    let marks = scan(&w.out);
    let names: Vec<_> = keys(&marks).into_iter().map(|(_, unit)| codecs(unit)).collect();
    assert_eq!(names[1..3], [Some("avc1.640028,mp4a.40.2"), Some("avc1.64001F,mp4a.40.2")]);
}

#[test]
fn an_sps_that_comes_with_its_pmt_opens_one_chunk() {
    let mut w = Writer::new();
    w.tables();
    w.picture(SECOND, true, 10);
    w.pat();
    w.pmt(1, &[(0x0f, AUDIO, &[]), (0x1b, VIDEO, &[])]);
    w.sound(SECOND);
    w.pes(VIDEO, 0xe0, Some(3 * SECOND), &idr(0x1f, 10));
    // The chunk is due at that key unit anyway.
    assert!(changes(&w.out).is_empty());
    assert_eq!(at(&scan(&w.out), &MarkKind::StreamsChanged).len(), 1);
}

#[test]
fn sound_that_a_new_pmt_drops_in_the_middle_of_its_packet_holds_nothing_back() {
    let mut w = Writer::new();
    w.tables();
    w.picture(SECOND, true, 300);
    // A PES header that is cut off.
    w.packet(AUDIO, true, 0, &pes(0xc0, Some(SECOND), &[])[..8]);
    w.pmt(1, VIDEO_ONLY);
    w.picture(SECOND + 3_000, false, 300);
    let mut scanner = MpegTs::new();
    scanner.push(&w.out, &mut Vec::new()).unwrap();
    assert_eq!(scanner.settled(), w.at());
}

#[test]
fn more_than_one_program_cannot_be_cut() {
    let mut w = Writer::new();
    w.pat_of(&[(0, 0x10), (1, PMT), (2, 0x30), (3, 0x31)]);
    w.pmt(0, AV);
    w.section(0x31, &section(2, 3, 0, &[0xe0, 0x41, 0xf0, 0]));
    (0..6).for_each(|_| w.null());
    assert_eq!(scan_in(&w.out, 500), Err(Fault::Programs(3)));
}

#[test]
fn the_network_table_is_no_program() {
    let mut w = Writer::new();
    w.pat_of(&[(0, 0x10), (1, PMT)]);
    w.pmt(0, AV);
    w.picture(SECOND, true, 10);
    assert_eq!(keys(&scan(&w.out)).len(), 1);
}

#[test]
fn codecs_are_named_as_far_as_the_stream_tells() {
    let name = |stream_type, descriptors: &'static [u8], frame: &[u8]| {
        let mut w = Writer::new();
        w.pat();
        w.pmt(0, &[(stream_type, AUDIO, descriptors)]);
        w.pes(AUDIO, 0xbd, Some(0), frame);
        let marks = scan(&w.out);
        assert_eq!(keys(&marks).len(), 1, "type {stream_type:x}");
        codecs(keys(&marks)[0].1).map(str::to_owned)
    };
    assert_eq!(name(0x0f, &[], &[0xff, 0xf1, 0x10, 0]).as_deref(), Some("mp4a.40.1"));
    assert_eq!(name(0x0f, &[], &[0xff, 0xf1, 0x50, 0]).as_deref(), Some("mp4a.40.2"));
    assert_eq!(name(0x11, &[], &[0]).as_deref(), Some("mp4a.40.2"));
    assert_eq!(name(0x03, &[], &[0xff, 0xfb, 0x90, 0]).as_deref(), Some("mp4a.40.34"));
    assert_eq!(name(0x04, &[], &[0xff, 0xfd, 0x90, 0]).as_deref(), Some("mp4a.40.33"));
    assert_eq!(name(0x81, &[], &[0]).as_deref(), Some("ac-3"));
    assert_eq!(name(0x87, &[], &[0]).as_deref(), Some("ec-3"));
    assert_eq!(name(0x06, &[0x6a, 1, 0], &[0]).as_deref(), Some("ac-3"));
    assert_eq!(
        name(0x06, &[0x0a, 1, 0, 5, 4, b'O', b'p', b'u', b's'], &[0]).as_deref(),
        Some("opus")
    );
    assert_eq!(name(0x06, &[5, 4, b'B', b'S', b'S', b'D'], &[0]), None);
}

#[test]
fn h265_and_mpeg2_video_are_cut_at_their_key_pictures() {
    let hevc = |nal: u8| {
        let vps_sps_pps = [
            0, 0, 1, 0x40, 1, 0xc, 0, 0, 1, 0x42, 1, 1, 1, 0x60, 0, 0, 3, 0, 0xb0, 0, 0, 3, 0, 0, 3, 0, 93, 0xa0,
        ];
        [&vps_sps_pps[..], &[0, 0, 1, 0x44, 1, 0xc1, 0, 0, 1, nal << 1, 1, 0xaf, 9]].concat()
    };
    let mpeg2 = |coding_type: u8, closed: u8| {
        let extension = [0, 0, 1, 0xb5, 0x14, 0x8a, 0, 1, 0, 0];
        let header = [&[0, 0, 1, 0xb3, 0x14, 0, 0xf0, 0x13, 0xff, 0xff, 0xe0, 0x18][..], &extension].concat();
        [
            &header[..],
            &[
                0,
                0,
                1,
                0xb8,
                0,
                8,
                0,
                closed,
                0,
                0,
                1,
                0,
                0,
                coding_type << 3,
                0xff,
                0xff,
                0,
                0,
                1,
                1,
                9,
            ],
        ]
        .concat()
    };
    let find = |stream_type, pictures: [Vec<u8>; 3]| {
        let mut w = Writer::new();
        w.pat();
        w.pmt(0, &[(stream_type, VIDEO, &[])]);
        for picture in &pictures {
            w.pes(VIDEO, 0xe0, Some(0), picture);
        }
        let marks = scan(&w.out);
        let found: Vec<Key> = outline(&marks).iter().map(|u| u.2).collect();
        (found, codecs(keys(&marks)[0].1).map(str::to_owned))
    };
    let expected = vec![Key::Closed, Key::Open, Key::No];
    assert_eq!(
        find(0x24, [hevc(19), hevc(21), hevc(1)]),
        (expected.clone(), Some("hvc1.1.6.L93.B0".to_owned()))
    );
    let pictures = [mpeg2(1, 0x40), mpeg2(1, 0), mpeg2(2, 0x40)];
    assert_eq!(find(0x02, pictures), (expected, Some("mp4v.61".to_owned())));
}

#[test]
fn a_section_of_another_program_or_kind_on_the_pid_of_the_pmt_is_passed_over() {
    let mut w = Writer::new();
    w.pat();
    w.section(PMT, &section(0xc0, 1, 0, &[1, 2, 3]));
    w.section(PMT, &section(2, 7, 0, &[0xe0, 0x41, 0xf0, 0]));
    w.pmt(0, AV);
    w.picture(SECOND, true, 10);
    assert_eq!(outline(&scan(&w.out)), [(0, Track::Video, Key::Closed)]);
}

#[test]
fn of_several_programs_in_the_pat_the_one_that_is_carried_is_recorded() {
    let mut w = Writer::new();
    for n in 0..4 {
        w.pat_of(&[(7, 0x30), (1, PMT), (2, 0x31)]);
        w.pmt(0, AV);
        w.picture(n * SECOND, true, 400);
        w.picture(n * SECOND + SECOND / 2, false, 400);
    }
    let marks = scan(&w.out);
    assert_eq!(keys(&marks).len(), 4);
    assert_eq!(keys(&marks)[0].0, 0);
    assert_eq!(scan_in(&w.out, 3).unwrap(), marks);
}

#[test]
fn a_key_picture_in_front_of_the_first_tables_is_recorded_with_copies_of_them() {
    let mut w = Writer::new();
    w.picture(SECOND, true, 3000);
    w.sound(SECOND);
    let at = usize::try_from(w.at()).unwrap();
    let tables = w.tables();
    w.picture(SECOND + SECOND / 25, false, 10);
    let marks = scan(&w.out);
    assert_eq!(keys(&marks)[0].0, 0);
    assert_eq!(head(keys(&marks)[0].1), tables);
    assert_eq!(w.out[at..at + tables.len()], tables);
    assert_eq!(units(&marks).len(), 4);
    assert!(head(units(&marks)[0].1).is_empty());
    assert_eq!(scan_in(&w.out, 3).unwrap(), marks);
    // The tables in the middle of the picture.
    let mut w = Writer::new();
    let data = pes(0xe0, Some(SECOND), &idr(0x28, 1000));
    let (first, rest) = data.split_at(184);
    w.packet(VIDEO, true, 0, first);
    w.tables();
    rest.chunks(184).for_each(|part| w.packet(VIDEO, false, 0, part));
    w.picture(2 * SECOND, false, 10);
    assert_eq!(keys(&scan(&w.out)).iter().map(|k| k.0).collect::<Vec<_>>(), [0]);
}

#[test]
fn a_stream_without_tables_is_one_notice_however_long_it_is() {
    let mut w = Writer::new();
    let reported = |m: &&Mark| m.kind == MarkKind::Notice(Notice::NoProgram);
    for pictures in [400, 1600] {
        (0..pictures).for_each(|n| {
            w.picture(n * SECOND, true, 1000);
        });
        assert_eq!(scan(&w.out).iter().filter(reported).count(), 1);
    }
    let units = units(&scan(&w.out)).len();
    assert!(units > 10, "{units} places to cut at");
}

#[test]
fn a_short_stream_without_tables_is_one_notice_at_its_end() {
    let mut w = Writer::new();
    w.picture(SECOND, true, 100);
    assert_eq!(at(&scan(&w.out), &MarkKind::Notice(Notice::NoProgram)).len(), 1);
    let mut w = Writer::new();
    w.null();
    w.null();
    assert!(
        at(&scan(&w.out), &MarkKind::Notice(Notice::NoProgram)).is_empty(),
        "no payload"
    );
}

#[test]
fn what_came_before_the_tables_is_let_go_when_they_stay_away_too_long() {
    for nulls in [0, 1] {
        let mut w = Writer::new();
        (0..nulls).for_each(|_| w.null());
        w.picture(SECOND, true, 1000);
        let (mut scanner, mut marks) = (MpegTs::new(), Vec::new());
        scanner.push(&w.out, &mut marks).unwrap();
        assert!(scanner.settled() < w.at());
        scanner.give_up(&mut marks);
        assert_eq!(scanner.settled(), w.at());
        assert_eq!(at(&marks, &MarkKind::Notice(Notice::NoProgram)), [nulls * 188]);
        let (sent, known) = (w.out.len(), marks.len());
        w.tables();
        let key = w.picture(2 * SECOND, true, 1000);
        w.picture(3 * SECOND, false, 10);
        scanner.push(&w.out[sent..], &mut marks).unwrap();
        scanner.finish(&mut marks);
        assert!(marks.is_sorted_by_key(|mark| mark.at));
        assert!(marks[known..].iter().all(|mark| mark.at >= sent as u64));
        assert!(
            keys(&marks).iter().any(|(at, _)| *at <= key && *at >= sent as u64),
            "the tables come late"
        );
    }
}

#[test]
fn sound_of_a_private_type_alone_has_times_to_cut_by() {
    for (stream_type, descriptors) in [(0x82, &[][..]), (0x06, &[]), (0x11, &[]), (0x90, &[])] {
        let mut w = Writer::new();
        w.pat();
        w.pmt(0, &[(stream_type, AUDIO, descriptors)]);
        (0..3).for_each(|n| {
            w.pes(AUDIO, 0xbd, Some(n * SECOND), &[0x7f; 100]);
        });
        let marks = scan(&w.out);
        assert_eq!(keys(&marks).len(), 3, "type {stream_type:x}");
        assert!(keys(&marks).iter().all(|(_, unit)| unit.pts.is_some()));
    }
}
