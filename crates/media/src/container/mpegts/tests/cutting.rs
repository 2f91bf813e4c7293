//! Where chunks may begin, with which header and at what time.

use super::super::super::{Key, MarkKind, Notice, Scanner, Track};
use super::super::MpegTs;
use super::writer::{AUDIO, AV, PMT, VIDEO, Writer, idr, p_slice, pes, pmt_section};
use super::{at, codecs, head, keys, outline, scan, scan_in, units};

const SECOND: u64 = 90_000;

/// Tables, key frame, sound, two pictures; then tables, sound and a key frame.
fn stream(stride: usize) -> (Writer, Vec<u64>) {
    let mut w = Writer::with_stride(stride);
    w.tables();
    let mut video = vec![w.picture(SECOND, true, 600)];
    w.sound(SECOND);
    video.push(w.picture(2 * SECOND, false, 300));
    w.tables();
    w.sound(2 * SECOND);
    video.push(w.picture(3 * SECOND, true, 600));
    (w, video)
}

#[test]
fn packets_of_188_192_and_204_bytes_are_found() {
    for stride in [188, 192, 204] {
        let (w, video) = stream(stride);
        let marks = scan(&w.out);
        let found: Vec<u64> = keys(&marks).iter().map(|(at, _)| *at).collect();
        assert_eq!(found, [0, video[2]], "stride {stride}");
    }
}

#[test]
fn the_first_unit_is_the_key_picture_with_the_tables_before_it_and_needs_no_header() {
    let (w, _) = stream(188);
    let marks = scan(&w.out);
    let (at, first) = units(&marks)[0];
    assert_eq!((at, first.track, first.key), (0, Track::Video, Key::Closed));
    assert!(head(first).is_empty());
}

#[test]
fn a_key_picture_away_from_the_tables_gets_copies_of_their_last_packets() {
    for stride in [188, 192, 204] {
        let mut w = Writer::with_stride(stride);
        w.tables();
        w.picture(SECOND, true, 10);
        let copies = w.tables();
        w.sound(SECOND);
        let begin = w.picture(2 * SECOND, true, 10);
        let marks = scan(&w.out);
        let (at, key) = keys(&marks)[1];
        assert_eq!(at, begin);
        assert_eq!(head(key), copies, "stride {stride}");
    }
}

#[test]
fn a_chunk_begins_with_the_tables_directly_before_its_key_picture() {
    let mut w = Writer::new();
    w.tables();
    w.picture(SECOND, true, 10);
    w.null();
    let run = w.at();
    w.sdt();
    w.null();
    w.tables();
    w.clock_only(VIDEO);
    w.picture(2 * SECOND, true, 10);
    let marks = scan(&w.out);
    let (at, key) = keys(&marks)[1];
    assert_eq!(at, run);
    assert!(head(key).is_empty());
}

#[test]
fn a_run_without_pmt_or_with_it_before_the_pat_does_not_open_a_chunk() {
    for reversed in [false, true] {
        let mut w = Writer::new();
        w.tables();
        w.picture(SECOND, true, 10);
        if reversed {
            w.pmt(0, AV);
        }
        w.pat();
        let begin = w.picture(2 * SECOND, true, 10);
        let marks = scan(&w.out);
        let (at, key) = keys(&marks)[1];
        assert_eq!(at, begin);
        assert_eq!(head(key).len(), 2 * 188);
    }
}

#[test]
fn a_pmt_of_several_packets_is_copied_whole() {
    let descriptors: &'static [u8] = &[0xfe; 202];
    let long = [(0x1b, VIDEO, &[][..]), (0x06, 0x50, descriptors), (0x06, 0x51, descriptors)];
    let mut w = Writer::new();
    w.pat();
    assert_eq!(w.pmt(0, &long).len(), 3 * 188);
    w.picture(SECOND, true, 10);
    let pat = w.pat();
    let pmt = w.pmt(0, &long);
    w.pes(0x50, 0xbd, None, b"subtitle");
    w.picture(2 * SECOND, true, 10);
    let marks = scan(&w.out);
    assert_eq!(keys(&marks)[0].0, 0);
    assert_eq!(head(keys(&marks)[1].1), [pat, pmt].concat());
}

#[test]
fn a_section_that_begins_behind_the_end_of_another_is_read() {
    let mut w = Writer::new();
    w.pat();
    let sections = [pmt_section(0, AV), pmt_section(0, AV)].concat();
    let cut = 10;
    // The first packet holds the beginning alone, the second its end and another whole one.
    w.packet(PMT, true, 0, &[&[0], &sections[..cut]].concat());
    let pointer = u8::try_from(sections.len() / 2 - cut).unwrap();
    w.packet(PMT, true, 0, &[&[pointer], &sections[cut..]].concat());
    w.picture(SECOND, true, 10);
    assert_eq!(keys(&scan(&w.out))[0].0, 0);
}

#[test]
fn an_i_picture_that_is_no_idr_is_no_key_whatever_the_muxer_flags() {
    let mut w = Writer::new();
    w.tables();
    w.picture(SECOND, true, 10);
    // random_access_indicator
    w.packet(
        VIDEO,
        true,
        0x40,
        &pes(0xe0, Some(2 * SECOND), &[0, 0, 1, 9, 0x10, 0, 0, 1, 0x61, 0x88]),
    );
    assert_eq!(keys(&scan(&w.out)).len(), 1);
}

#[test]
fn a_key_picture_is_found_though_sound_lies_between_its_packets() {
    let mut w = Writer::new();
    w.tables();
    w.picture(SECOND, true, 10);
    let whole = pes(0xe0, Some(2 * SECOND), &idr(0x28, 500));
    let begin = w.at();
    w.packet(VIDEO, true, 0, &whole[..20]);
    let sound = w.sound(SECOND);
    w.tables();
    w.packet(VIDEO, false, 0, &whole[20..200]);
    let more = w.sound(2 * SECOND);
    for part in whole[200..].chunks(184) {
        w.packet(VIDEO, false, 0, part);
    }
    let found = outline(&scan(&w.out));
    let audio = |at| (at, Track::Audio, Key::No);
    assert_eq!(found[1..], [(begin, Track::Video, Key::Closed), audio(sound), audio(more)]);
}

#[test]
fn settled_waits_for_what_is_undecided() {
    let mut w = Writer::new();
    w.tables();
    w.picture(SECOND, true, 10);
    w.null();
    let run = w.at();
    w.tables();
    let after_run = w.out.len();
    w.picture(2 * SECOND, true, 10);
    let mut scanner = MpegTs::new();
    let mut marks = Vec::new();
    scanner.push(&w.out[..after_run], &mut marks).unwrap();
    assert_eq!(scanner.settled(), run, "the tables may open a chunk");
    scanner.push(&w.out[after_run..after_run + 188], &mut marks).unwrap();
    assert_eq!(scanner.settled(), run, "the first packet holds no slice");
    scanner.push(&w.out[after_run + 188..], &mut marks).unwrap();
    assert_eq!(scanner.settled(), w.at());
    assert_eq!(keys(&marks).last().unwrap().0, run);
}

#[test]
fn the_rest_of_a_picture_in_further_pes_packets_is_no_unit() {
    let mut w = Writer::new();
    w.tables();
    w.picture(SECOND, true, 10);
    w.pes(VIDEO, 0xe0, None, &[0x12; 400]);
    // A further slice of the IDR picture: first_mb_in_slice is not 0.
    w.pes(VIDEO, 0xe0, Some(SECOND), &[0, 0, 1, 0x65, 0x40, 1, 2, 3]);
    let next = w.picture(2 * SECOND, false, 10);
    let marks = scan(&w.out);
    assert_eq!(
        outline(&marks),
        [(0, Track::Video, Key::Closed), (next, Track::Video, Key::No)]
    );
    assert_eq!(at(&marks, &MarkKind::PictureEnd), [next]);
}

#[test]
fn a_key_picture_ends_where_the_next_picture_begins_or_the_input_ends() {
    let (w, video) = stream(188);
    assert_eq!(at(&scan(&w.out), &MarkKind::PictureEnd), [video[1], w.at()]);
}

#[test]
fn times_are_unwrapped_over_the_33_bits_and_back_for_b_pictures() {
    let wrap = 1u64 << 33;
    let mut w = Writer::new();
    w.tables();
    w.picture(wrap - SECOND, true, 10);
    w.sound(SECOND);
    w.picture(2 * SECOND, false, 10);
    w.picture(wrap - SECOND / 2, false, 10);
    w.sound(3 * SECOND);
    let marks = scan(&w.out);
    let times: Vec<u64> = units(&marks).iter().map(|(_, unit)| unit.pts.unwrap()).collect();
    let ns = |ticks: u64| (ticks * 100_000 + 4) / 9;
    let expected = [
        wrap - SECOND,
        wrap + SECOND,
        wrap + 2 * SECOND,
        wrap - SECOND / 2,
        wrap + 3 * SECOND,
    ];
    assert_eq!(times, expected.map(ns));
}

#[test]
fn a_picture_shown_before_time_0_is_at_0() {
    let mut w = Writer::new();
    w.tables();
    w.picture(10, true, 10);
    w.picture((1 << 33) - 10, false, 10);
    w.pes(VIDEO, 0xe0, None, &p_slice(10));
    let marks = scan(&w.out);
    let times: Vec<Option<u64>> = units(&marks).iter().map(|(_, unit)| unit.pts).collect();
    assert_eq!(times, [Some(111_111), Some(0), None]);
}

#[test]
fn without_video_every_sound_is_a_key_and_with_it_none() {
    let mut w = Writer::new();
    w.pat();
    w.pmt(0, &[(0x0f, AUDIO, &[])]);
    w.sound(SECOND);
    let second = w.sound(2 * SECOND);
    let marks = scan(&w.out);
    assert_eq!(
        outline(&marks),
        [(0, Track::Audio, Key::Closed), (second, Track::Audio, Key::Closed)]
    );
    assert_eq!(codecs(keys(&marks)[1].1), Some("mp4a.40.2"));
    let info = keys(&marks)[0].1.init.clone().unwrap().info;
    assert!(info.has_audio && !info.has_video);

    let (w, _) = stream(188);
    assert!(
        units(&scan(&w.out))
            .iter()
            .all(|(_, unit)| unit.track != Track::Audio || unit.key == Key::No)
    );
}

#[test]
fn without_video_a_pes_packet_tells_how_long_its_sound_is() {
    // ADTS at 48 kHz: frames of 200 bytes, 1024 samples each.
    let mut frame = vec![0xff, 0xf1, 0x4c, 0x80, 25, 0x1f, 0xfc];
    frame.resize(200, 0);
    let mut w = Writer::new();
    w.pat();
    w.pmt(0, &[(0x0f, AUDIO, &[])]);
    w.pes(AUDIO, 0xc0, Some(0), &frame.repeat(6));
    w.pes(AUDIO, 0xc0, Some(11_520), &frame.repeat(3));
    let ends: Vec<Option<u64>> = units(&scan(&w.out)).iter().map(|(_, unit)| unit.end).collect();
    assert_eq!(ends, [Some(128_000_000), Some(192_000_000)]);
}

#[test]
fn a_pes_header_split_over_packets_still_tells_the_time() {
    let mut w = Writer::new();
    w.pat();
    w.pmt(0, &[(0x0f, AUDIO, &[])]);
    let whole = pes(0xc0, Some(SECOND), &[0xff, 0xf1, 0x50, 0x80, 0, 0, 0, 1, 2]);
    w.packet(AUDIO, true, 0, &whole[..11]);
    w.packet(AUDIO, false, 0, &whole[11..]);
    assert_eq!(units(&scan(&w.out))[0].1.pts, Some(1_000_000_000));
}

#[test]
fn a_stream_joined_within_a_picture_says_so_before_its_first_key() {
    // Before the tables, or between them and the first picture that begins.
    for early in [true, false] {
        let mut w = Writer::new();
        if !early {
            w.tables();
        }
        let rest = w.at();
        w.packet(VIDEO, false, 0, &[0x22; 184]);
        let tables = w.at();
        w.tables();
        w.picture(SECOND, true, 10);
        let found = outline(&scan(&w.out));
        let place = if early { tables } else { 0 };
        let joined = found.iter().position(|u| *u == (place, Track::Video, Key::No)).unwrap();
        let key = found.iter().position(|(_, _, key)| key.is_key()).unwrap();
        assert!(joined < key, "{rest} {found:?}");
        assert_eq!(found[0].0, 0);
    }
}

#[test]
fn scrambled_video_is_classified_by_the_flag() {
    let mut w = Writer::new();
    w.tables();
    for flags in [0x40, 0] {
        let begin = w.out.len();
        w.packet(VIDEO, true, flags, &[0xa5; 150]);
        w.out[begin + 3] |= 0x80;
    }
    let found = outline(&scan(&w.out));
    assert_eq!(found.iter().map(|u| u.2).collect::<Vec<_>>(), [Key::Closed, Key::No]);
}

#[test]
fn a_pps_that_comes_in_band_once_is_reported_where_a_later_key_picture_lacks_it() {
    let second_pps: &[u8] = &[0, 0, 0, 1, 0x68, 0x4e, 0x3c];
    let with = |sets: &[u8]| [&idr(0x28, 10)[..22], sets, &idr(0x28, 10)[22..]].concat();
    let reported = |keys: &[Vec<u8>]| {
        let mut w = Writer::new();
        w.tables();
        let begins: Vec<u64> = (1u64..)
            .zip(keys)
            .map(|(n, key)| w.pes(VIDEO, 0xe0, Some(n * SECOND), key))
            .collect();
        let found = at(&scan(&w.out), &MarkKind::Notice(Notice::NoParameterSets));
        found.iter().map(|at| begins.binary_search(at).unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(reported(&[with(second_pps), with(&[]), with(second_pps)]), [1]);
    assert_eq!(reported(&[with(second_pps), with(second_pps)]), [0usize; 0], "repeated");
    assert_eq!(
        reported(&[with(&[]), with(second_pps), with(second_pps)]),
        [0usize; 0],
        "added"
    );
    // A new configuration does not use the sets in force before it.
    assert_eq!(
        reported(&[with(second_pps), idr(0x1f, 10), idr(0x1f, 10)]),
        [0usize; 0],
        "replaced"
    );
}

#[test]
fn a_key_without_parameter_sets_is_reported() {
    let mut w = Writer::new();
    w.tables();
    w.picture(SECOND, true, 10);
    let bare = w.pes(VIDEO, 0xe0, Some(2 * SECOND), &[0, 0, 1, 9, 0x10, 0, 0, 1, 0x65, 0x88, 1]);
    let marks = scan(&w.out);
    assert_eq!(at(&marks, &MarkKind::Notice(Notice::NoParameterSets)), [bare]);
    assert_eq!(keys(&marks)[1].0, bare);
}

#[test]
fn an_undecided_unit_does_not_hold_the_stream_back_for_ever() {
    let mut w = Writer::new();
    w.tables();
    let whole = pes(0xe0, Some(SECOND), &idr(0x28, 10));
    w.packet(VIDEO, true, 0, &whole[..20]);
    for i in 0..6000 {
        w.packet(0x55, false, 0, &[u8::try_from(i & 0xff).unwrap(); 184]);
    }
    let mut scanner = MpegTs::new();
    let mut marks = Vec::new();
    scanner.push(&w.out, &mut marks).unwrap();
    assert_eq!(scanner.settled(), w.at());
    assert_eq!(outline(&marks), [(0, Track::Video, Key::No)]);
}

#[test]
fn the_shortest_stream_is_read_at_its_end() {
    let mut w = Writer::new();
    w.tables();
    assert_eq!(outline(&scan(&w.out)), [(0, Track::Other, Key::No)]);
    w.sound(SECOND);
    assert_eq!(outline(&scan_in(&w.out, 1).unwrap()), [(0, Track::Audio, Key::No)]);
    assert!(scan(&[]).is_empty());
}

#[test]
fn parameter_sets_in_a_packet_of_their_own_are_the_beginning_of_their_picture() {
    let mut w = Writer::new();
    w.tables();
    w.picture(SECOND, true, 10);
    let data = idr(0x28, 500);
    let slice = data.windows(4).position(|w| w == [0, 0, 1, 0x65]).unwrap();
    // As behind a parser that outputs NAL units one by one: delimiter, parameter sets, SEI, each in a PES packet, then the slice.
    let begin = w.pes(VIDEO, 0xe0, Some(2 * SECOND), &[0, 0, 1, 9, 0x10]);
    w.pes(VIDEO, 0xe0, Some(2 * SECOND), &data[..slice]);
    w.pes(VIDEO, 0xe0, Some(2 * SECOND), &[0, 0, 1, 6, 5, 1, 0x80]);
    let sound = w.sound(2 * SECOND);
    w.pes(VIDEO, 0xe0, Some(2 * SECOND), &data[slice..]);
    let next = w.picture(3 * SECOND, false, 10);
    let marks = scan(&w.out);
    let found = outline(&marks);
    let expected = [
        (0, Track::Video, Key::Closed),
        (begin, Track::Video, Key::Closed),
        (sound, Track::Audio, Key::No),
        (next, Track::Video, Key::No),
    ];
    assert_eq!(found, expected);
    assert!(at(&marks, &MarkKind::Notice(Notice::NoParameterSets)).is_empty());
    for slice in [1, 7, 188, 1000] {
        assert_eq!(scan_in(&w.out, slice).unwrap(), marks);
    }
}

#[test]
fn a_key_picture_behind_the_rest_of_the_one_before_is_found_in_a_pes_packet_that_is_not_aligned() {
    // Plain bytes of a slice, or a further slice of the picture before; in front of the key frame in the same PES packet.
    for tail in [vec![0x66; 300], [&[0, 0, 1, 0x41, 0x1a][..], &[0x66; 300]].concat()] {
        let mut w = Writer::new();
        w.tables();
        w.picture(SECOND, true, 10);
        w.picture(2 * SECOND, false, 600);
        let data = [&tail[..], &idr(0x28, 300)].concat();
        let place = w.pes(VIDEO, 0xe0, Some(3 * SECOND), &data);
        w.pes(VIDEO, 0xe0, None, &[0x66; 200]);
        w.picture(4 * SECOND, false, 10);
        let marks = scan(&w.out);
        assert_eq!(keys(&marks).len(), 2);
        assert_eq!(keys(&marks)[1].0, place);
        assert_eq!(scan_in(&w.out, 3).unwrap(), marks);
    }
}

#[test]
fn scrambled_pictures_are_not_reported_to_lack_parameter_sets() {
    // Scrambled by transport packets, and by PES packets.
    for by_packet in [true, false] {
        let mut w = Writer::new();
        w.tables();
        w.picture(SECOND, true, 10);
        for n in 2..5u64 {
            let mut data = pes(0xe0, Some(n * SECOND), &[0xa5; 100]);
            if !by_packet {
                // PES_scrambling_control
                data[6] |= 0x20;
            }
            let begin = w.out.len();
            w.packet(VIDEO, true, 0x40, &data);
            if by_packet {
                w.out[begin + 3] |= 0x80;
                w.out[begin + 60..begin + 188].fill(0xa5);
            }
        }
        w.picture(6 * SECOND, true, 10);
        let marks = scan(&w.out);
        assert_eq!(keys(&marks).len(), 5, "{by_packet}");
        assert!(
            at(&marks, &MarkKind::Notice(Notice::NoParameterSets)).is_empty(),
            "{by_packet}"
        );
    }
}
