//! What a user would notice: what each chunk holds, when it begins, what is refused.

use super::lookahead::{MAX_HELD_BYTES, MAX_HELD_UNITS};
use super::test_stream::*;
use super::*;
use crate::container::{Fault, Key, Mark, MarkKind, Notice, Scanner, StreamInfo, Track};
use proptest::prelude::*;

fn len(parts: &[&[u8]]) -> u64 {
    parts.iter().map(|p| p.len() as u64).sum()
}

fn damages(marks: &[Mark]) -> Vec<u64> {
    marks.iter().filter(|m| m.kind == MarkKind::Damage).map(|m| m.at).collect()
}

fn ends_of_pictures(marks: &[Mark]) -> Vec<u64> {
    marks
        .iter()
        .filter(|m| m.kind == MarkKind::PictureEnd)
        .map(|m| m.at)
        .collect()
}

fn fault(input: &[u8]) -> Fault {
    let (marks, result) = try_scan(input, 7);
    assert_eq!(units(&marks), [], "nothing may be stored of a stream that cannot be cut");
    result.unwrap_err()
}

#[test]
fn all_that_stands_before_the_first_fragment_is_the_init_of_every_chunk() {
    let head = [
        ftyp(),
        boxed(b"sidx", &[&[0; 24]]),
        moov(&[Trak::video(avc(40))]),
        boxed(b"uuid", &[&[7; 30]]),
        boxed(b"free", &[]),
    ]
    .concat();
    let before = [
        boxed(b"styp", &[b"msdh", &[0; 4]]),
        boxed(b"sidx", &[&[0; 24]]),
        boxed(b"prft", &[&[0; 16]]),
    ]
    .concat();
    let first = video(0, &[idr(), inter()]);
    let input = [&head[..], &before, &first, &boxed(b"emsg", &[&[0; 9]]), &video(80, &[idr()])].concat();
    let units = units(&scan(&input));
    assert_eq!(
        units.iter().map(|u| u.0).collect::<Vec<_>>(),
        [len(&[&head]), len(&[&head, &before, &first])]
    );
    for (_, unit) in &units {
        let init = unit.init.as_ref().unwrap();
        assert_eq!((&init.head[..], &init.tail[..]), (&head[..], &[][..]));
        assert_eq!(
            (unit.key, unit.track, unit.new_codec_config),
            (Key::Closed, Track::Video, false)
        );
    }
    let info = StreamInfo {
        codecs: Some("avc1.640028".into()),
        has_video: true,
        has_audio: false,
    };
    assert_eq!(*units[0].1.init.as_ref().unwrap().info, info);
}

#[test]
fn an_i_picture_that_the_muxer_flags_as_sync_is_no_key_unit() {
    let head = head(&[Trak::video(avc(40))]);
    let parts = [
        video(0, &[idr()]),
        video(40, &[picture(0x41, SYNC)]),
        video(80, &[picture(0x65, NON_SYNC)]),
    ];
    let keys: Vec<Key> = outline(&[&head[..], &parts.concat()].concat())
        .into_iter()
        .map(|u| u.2)
        .collect();
    assert_eq!(keys, [Key::Closed, Key::No, Key::Closed]);
}

#[test]
fn a_recovery_point_is_an_open_key_unit() {
    let mut sample = idr();
    sample.data = [&[0, 0, 0, 5, 6, 6, 1, 0xc0, 0x80][..], &nal(0x41, 9)].concat();
    assert_eq!(
        outline(&[head(&[Trak::video(avc(40))]), video(0, &[sample])].concat())[0].2,
        Key::Open
    );
}

#[test]
fn audio_before_a_key_fragment_goes_with_it_if_its_middle_is_not_before_the_picture() {
    let head = av_head();
    let start = |audio_ms: u64, n: usize| {
        let first = video(0, &[idr()]);
        let sound = audio(audio_ms, n);
        let input = [&head[..], &first, &sound, &video(1000, &[idr()])].concat();
        let outline = outline(&input);
        let at = len(&[&head, &first]);
        let alone = vec![(at, Track::Audio, Key::No), (at + len(&[&sound]), Track::Video, Key::Closed)];
        match &outline[1..] {
            [unit] if *unit == (at, Track::Video, Key::Closed) => "with the picture",
            units if units == alone => "alone",
            units => panic!("{units:?}"),
        }
    };
    // 46 samples are 981 ms: the middle of 510..1491 is after the picture's second, that of 509..1490 is before.
    assert_eq!(start(510, 46), "with the picture");
    assert_eq!(start(509, 46), "alone");
    assert_eq!(start(1000, 46), "with the picture");
    assert_eq!(start(0, 46), "alone");
}

#[test]
fn a_run_of_several_fragments_goes_as_one_and_keeps_its_start_open() {
    let head = av_head();
    let (first, a, b) = (video(0, &[idr()]), audio(950, 10), audio(1163, 10));
    let mut scanner = Fmp4::new();
    let mut marks = vec![];
    scanner.push(&[&head[..], &first, &a, &b].concat(), &mut marks).unwrap();
    let run = len(&[&head, &first]);
    assert_eq!(scanner.settled(), run, "the run may still belong to a key picture");
    let key = video(1000, &[idr()]);
    scanner.push(&key, &mut marks).unwrap();
    assert_eq!(scanner.settled(), len(&[&head, &first, &a, &b, &key]));
    let units = units(&marks);
    assert_eq!((units[1].0, units[1].1.pts), (run, Some(1_000_000_000)));
    assert_eq!(units.len(), 2);
}

#[test]
fn audio_before_a_fragment_that_is_not_key_stays_where_it_is() {
    let (head, sound) = (av_head(), audio(1000, 46));
    let outline = outline(&[&head[..], &sound, &video(1000, &[inter()])].concat());
    let at = len(&[&head]);
    assert_eq!(
        outline,
        [(at, Track::Audio, Key::No), (at + len(&[&sound]), Track::Video, Key::No)]
    );
}

#[test]
fn a_long_run_without_video_is_let_go() {
    let mut scanner = Fmp4::new();
    let mut marks = vec![];
    scanner.push(&[av_head(), video(0, &[idr()])].concat(), &mut marks).unwrap();
    let small = audio(0, 1);
    for i in 1..=2 * MAX_HELD_UNITS as u64 {
        scanner.push(&small, &mut marks).unwrap();
        let taken = len(&[&av_head(), &video(0, &[idr()])]) + i * len(&[&small]);
        assert!(taken - scanner.settled() <= (MAX_HELD_UNITS as u64 + 1) * len(&[&small]));
    }
    assert!(units(&marks).len() > MAX_HELD_UNITS);
    // One that is too long by itself.
    let mut big = sounds(1);
    big[0].data = vec![0; 9 << 20];
    let big = fragment(&[Traf::new(2, 0, big)]);
    let from = scanner.settled();
    scanner.push(&big[..big.len() - 1], &mut marks).unwrap();
    assert!(scanner.settled() > from + MAX_HELD_BYTES);
}

#[test]
fn a_first_picture_that_lies_too_deep_is_classified_by_its_flags_at_once() {
    let mut sound = sounds(1);
    sound[0].data = vec![0; 9 << 20];
    let input = [av_head(), fragment(&[Traf::new(2, 0, sound), Traf::new(1, 0, vec![idr()])])].concat();
    let mut scanner = Fmp4::new();
    let mut marks = vec![];
    scanner.push(&input[..input.len() - (9 << 20)], &mut marks).unwrap();
    assert_eq!(units(&marks)[0].1.key, Key::Closed);
    scanner.push(&input[input.len() - (9 << 20)..], &mut marks).unwrap();
    assert_eq!(ends_of_pictures(&marks), [input.len() as u64]);
}

#[test]
fn times_are_decode_time_plus_offset_and_the_end_is_the_latest() {
    let mut samples = [idr(), inter(), inter()];
    (samples[0].offset, samples[1].offset, samples[2].offset) = (80, 120, -40);
    let units = units(&scan(&[head(&[Trak::video(avc(40))]), video(1000, &samples)].concat()));
    assert_eq!((units[0].1.pts, units[0].1.end), (Some(1_080_000_000), Some(1_200_000_000)));
}

#[test]
fn edit_lists_move_the_time_line_as_players_do() {
    let pts = |edits: &[(u32, i32)]| {
        let trak = Trak {
            edits: edits.to_vec(),
            ..Trak::video(avc(40))
        };
        units(&scan(&[head(&[trak]), video(1000, &[idr()])].concat()))[0]
            .1
            .pts
            .unwrap()
            / 1_000_000
    };
    assert_eq!(pts(&[(0, 80)]), 920);
    // The movie's clock has 100 ticks a second.
    assert_eq!(pts(&[(50, -1), (0, 80)]), 1420);
    assert_eq!(pts(&[(0, 5000)]), 0);
}

#[test]
fn a_decode_time_of_32_bits_is_unwrapped_and_a_missing_one_goes_on() {
    let trak = Trak {
        timescale: 90_000,
        ..Trak::video(avc(40))
    };
    let wrapped = 1u64 << 32;
    let at = |time| {
        fragment(&[Traf {
            time,
            ..Traf::new(
                1,
                0,
                vec![Sample {
                    duration: 90_000,
                    ..idr()
                }],
            )
        }])
    };
    let input = [
        head(&[trak]),
        at(Some((0, 3 << 30))),
        at(Some((0, wrapped - 90_000))),
        at(Some((0, 0))),
        at(None),
        at(Some((0, 1 << 30))),
    ];
    let pts: Vec<u64> = units(&scan(&input.concat()))
        .into_iter()
        .map(|u| u.1.pts.unwrap() * 90 / 1_000_000)
        .collect();
    let near = |ticks: u64, want: u64| ticks.abs_diff(want) <= 1;
    let want = [3 << 30, wrapped - 90_000, wrapped, wrapped + 90_000, wrapped + (1 << 30)];
    assert!(pts.len() == 5 && pts.iter().zip(want).all(|(&p, w)| near(p, w)), "{pts:?}");
}

#[test]
fn another_moov_opens_a_chunk_of_its_own_and_an_equal_one_is_nothing() {
    let (old, new) = (head(&[Trak::video(avc(40))]), head(&[Trak::video(avc(31))]));
    let f = video(0, &[idr()]);
    let extra = boxed(b"uuid", &[&[1; 20]]);
    let input = [&old[..], &f, &old, &f, &new, &extra, &f, &new, &f].concat();
    let units = units(&scan(&input));
    let at = |parts: &[&[u8]]| len(parts);
    let change = at(&[&old, &f, &old, &f]);
    let expected = [
        (at(&[&old]), false, &old[..]),
        (at(&[&old, &f, &old]), false, &old),
        (change, true, &[]),
        (change + at(&[&new, &extra]), false, &[&new[..], &extra].concat()),
        (change + at(&[&new, &extra, &f, &new]), false, &[&new[..], &extra].concat()),
    ];
    assert_eq!(units.len(), expected.len());
    for ((at, unit), (want_at, new_codec_config, init)) in units.iter().zip(expected) {
        assert_eq!((*at, unit.new_codec_config), (want_at, new_codec_config));
        assert_eq!(unit.init.as_ref().unwrap().head, init);
        let codecs = unit.init.as_ref().unwrap().info.codecs.as_deref();
        assert_eq!(codecs, Some(if *at < change { "avc1.640028" } else { "avc1.64001F" }));
    }
    assert_eq!((units[2].1.track, units[2].1.key), (Track::Other, Key::No));
}

#[test]
fn a_head_that_comes_again_with_the_length_of_the_film_is_nothing() {
    let edited = |length: u32, empty: u32| Trak {
        edits: vec![(empty, -1), (length, 0)],
        ..Trak::video(avc(40))
    };
    let old = head(&[edited(0, 5)]);
    let mut again = head(&[edited(1234, 5)]);
    // Written later, and the movie's length.
    let mvhd = again.windows(4).position(|kind| kind == b"mvhd").unwrap() + 8;
    again[mvhd..mvhd + 8].copy_from_slice(&words(&[1, 2]));
    again[mvhd + 12..mvhd + 16].copy_from_slice(&words(&[500]));
    let f = video(0, &[idr()]);
    assert_eq!(units(&scan(&[&old[..], &f, &f, &again].concat())).len(), 2);
    // What moves the pictures is another head.
    let moved = head(&[edited(1234, 6)]);
    assert_eq!(units(&scan(&[&old[..], &f, &f, &moved].concat())).len(), 3);
}

#[test]
fn nothing_behind_an_ftyp_is_settled_until_its_moov_is_compared() {
    let old = head(&[Trak::video(avc(40))]);
    let new = head(&[Trak::video(avc(31))]);
    let f = video(0, &[idr()]);
    let mut scanner = Fmp4::new();
    let mut marks = vec![];
    scanner
        .push(&[&old[..], &f, &new[..new.len() - 1]].concat(), &mut marks)
        .unwrap();
    assert_eq!(scanner.settled(), len(&[&old, &f]));
    scanner.push(&new[new.len() - 1..], &mut marks).unwrap();
    assert_eq!(scanner.settled(), len(&[&old, &f, &new]));
}

#[test]
fn another_moov_without_ftyp_gets_the_one_in_force() {
    let (old, lone) = (head(&[Trak::video(avc(40))]), moov(&[Trak::video(avc(31))]));
    let f = video(0, &[idr()]);
    let units = units(&scan(&[&old[..], &f, &lone, &f].concat()));
    assert_eq!((units[1].0, units[1].1.new_codec_config), (len(&[&old, &f]), true));
    assert_eq!(units[1].1.init.as_ref().unwrap().head, ftyp());
    assert_eq!(units[2].1.init.as_ref().unwrap().head, [ftyp(), lone].concat());
}

#[test]
fn an_mp4_that_is_not_fragmented_is_refused_before_anything_is_stored() {
    let mdat = boxed(b"mdat", &[&[0; 50]]);
    let trak = Trak::video(avc(40));
    assert_eq!(
        fault(&[&ftyp()[..], &boxed(b"free", &[]), &mdat].concat()),
        Fault::Unfragmented
    );
    assert_eq!(fault(&mdat), Fault::Unfragmented);
    let large = [&words(&[1])[..], b"mdat", &words(&[2, 0]), &[0; 40]].concat();
    assert_eq!(fault(&[&ftyp()[..], &large].concat()), Fault::Unfragmented);
    assert_eq!(
        fault(&[&ftyp()[..], &words(&[0]), b"mdat", &[0; 40]].concat()),
        Fault::Unfragmented
    );
    let samples = moov(&[Trak {
        samples: 3,
        ..trak.clone()
    }]);
    assert_eq!(fault(&[&ftyp()[..], &samples, &mdat].concat()), Fault::Unfragmented);
    assert_eq!(
        fault(&[&ftyp()[..], &moov_parts(&[trak], false), &mdat].concat()),
        Fault::Unfragmented
    );
}

#[test]
fn the_fault_of_an_unfragmented_stream_comes_with_the_header_of_its_mdat() {
    let mut scanner = Fmp4::new();
    let mut marks = vec![];
    scanner.push(&ftyp(), &mut marks).unwrap();
    assert_eq!(
        scanner.push(&boxed(b"mdat", &[&[0; 99]])[..8], &mut marks),
        Err(Fault::Unfragmented)
    );
}

#[test]
fn fragments_with_file_offsets_are_refused() {
    let bad = fragment(&[Traf {
        tfhd_flags: 1,
        ..Traf::new(1, 0, vec![idr()])
    }]);
    assert_eq!(
        fault(&[&head(&[Trak::video(avc(40))])[..], &bad].concat()),
        Fault::BaseDataOffset
    );
}

#[test]
fn a_head_over_the_limit_is_refused() {
    let head = [&ftyp()[..], &words(&[5 << 20]), b"moov", &[0; 99]].concat();
    assert!(matches!(fault(&head), Fault::HeaderTooLarge(n) if n > 5 << 20));
}

#[test]
fn without_video_every_fragment_is_a_key_unit() {
    let head = head(&[Trak::audio(aac())]);
    let f = audio(0, 10);
    let marks = scan(&[&head[..], &f, &f].concat());
    let units: Vec<_> = units(&marks).into_iter().map(|(at, u)| (at, u.track, u.key)).collect();
    assert_eq!(
        units,
        [
            (len(&[&head]), Track::Audio, Key::Closed),
            (len(&[&head, &f]), Track::Audio, Key::Closed)
        ]
    );
    assert_eq!(marks.len(), 2);
}

#[test]
fn the_preview_ends_with_the_first_picture() {
    let mut first = idr();
    first.data = nal(0x65, 100);
    let (head, sound) = (av_head(), audio(0, 5));
    let key = video(0, &[first.clone(), inter()]);
    let input = [&head[..], &sound, &key].concat();
    let marks = scan(&input);
    assert_eq!(ends_of_pictures(&marks), [input.len() as u64 - inter().data.len() as u64]);
    // A picture that never came whole has no end.
    let cut = &input[..input.len() - inter().data.len() - 1];
    assert!(ends_of_pictures(&scan(cut)).is_empty());
    assert_eq!(outline(cut)[0], (len(&[&head]), Track::Video, Key::Closed));
}

#[test]
fn the_picture_is_found_behind_other_tracks_in_one_fragment() {
    for tfhd_flags in [0, 0x02_0000] {
        let traf = |id, samples| Traf {
            tfhd_flags,
            ..Traf::new(id, 0, samples)
        };
        let input = [av_head(), fragment(&[traf(2, sounds(4)), traf(1, vec![idr(), inter()])])].concat();
        let marks = scan(&input);
        assert_eq!(units(&marks).len(), 1);
        assert_eq!(units(&marks)[0].1.key, Key::Closed);
        assert_eq!(ends_of_pictures(&marks), [(input.len() - inter().data.len()) as u64]);
    }
}

#[test]
fn samples_with_defaults_in_everything_add_up_without_a_table() {
    let tfhd = boxed(b"tfhd", &[&words(&[0x02_0038, 1, 40, 24, NON_SYNC])]);
    let tfdt = boxed(b"tfdt", &[&words(&[0, 1000])]);
    let trun = |offset| boxed(b"trun", &[&words(&[0x0005, 25, offset, SYNC])]);
    let moof = |offset| {
        let traf = boxed(b"traf", &[&tfhd, &tfdt, &trun(offset)]);
        boxed(b"moof", &[&full(b"mfhd", &[&words(&[1])]), &traf])
    };
    let offset = u32::try_from(moof(0).len() + 8).unwrap();
    let head = head(&[Trak::video(avc(40))]);
    let input = [&head[..], &moof(offset), &boxed(b"mdat", &[&nal(0x65, 20).repeat(25)])].concat();
    let marks = scan(&input);
    let unit = &units(&marks)[0].1;
    assert_eq!(
        (unit.key, unit.pts, unit.end),
        (Key::Closed, Some(1_000_000_000), Some(2_000_000_000))
    );
    assert_eq!(ends_of_pictures(&marks), [(input.len() - 24 * 24) as u64]);
}

#[test]
fn encrypted_pictures_are_classified_by_their_flags() {
    let sinf = boxed(b"sinf", &[&boxed(b"frma", &[b"avc1"])]);
    let record = boxed(b"avcC", &[&[1, 0x64, 0, 40, 0xff, 0xe0]]);
    let head = head(&[Trak::video(visual(b"encv", &[sinf, record].concat()))]);
    let noise = |flags| Sample {
        data: vec![0x5a; 30],
        flags,
        ..idr()
    };
    let units = units(&scan(
        &[&head[..], &video(0, &[noise(SYNC)]), &video(40, &[noise(NON_SYNC)])].concat(),
    ));
    assert_eq!((units[0].1.key, units[1].1.key), (Key::Closed, Key::No));
    assert_eq!(units[0].1.init.as_ref().unwrap().info.codecs.as_deref(), Some("avc1.640028"));
}

#[test]
fn a_picture_that_would_lie_outside_the_content_has_no_end() {
    let head = head(&[Trak::video(visual(b"encv", &[]))]);
    let mut f = video(0, &[idr()]);
    let trun = f.windows(4).position(|w| w == b"trun").unwrap();
    f[trun + 12..trun + 16].fill(0);
    let (marks, _) = scan_checked(&[&head[..], &f].concat(), &[1]);
    assert_eq!(units(&marks)[0].1.key, Key::Closed);
    assert!(ends_of_pictures(&marks).is_empty());
}

#[test]
fn vp9_and_av1_key_frames_are_found_in_the_frames() {
    let sample = |data: &[u8]| Sample {
        data: data.to_vec(),
        ..idr()
    };
    let vp9 = visual(b"vp09", &full(b"vpcC", &[&[0, 20, 0x82, 1, 1, 1, 0, 0]]));
    let av1 = visual(b"av01", &boxed(b"av1C", &[&[0x81, 0x08, 0x4c, 0]]));
    for (entry, name, key, inter) in [
        (vp9, "vp09.00.20.08", &[0x82, 0][..], &[0x86, 0][..]),
        (av1, "av01.0.08M.10", &[0x12, 0, 0x32, 1, 0x10], &[0x12, 0, 0x32, 1, 0x30]),
    ] {
        let units = units(&scan(
            &[
                head(&[Trak::video(entry)]),
                video(0, &[sample(key)]),
                video(1, &[sample(inter)]),
            ]
            .concat(),
        ));
        assert_eq!((units[0].1.key, units[1].1.key), (Key::Closed, Key::No), "{name}");
        assert_eq!(units[0].1.init.as_ref().unwrap().info.codecs.as_deref(), Some(name));
    }
}

#[test]
fn audio_codecs_have_their_rfc_6381_names() {
    let name = |entry| {
        units(&scan(&[head(&[Trak::audio(entry)]), audio(0, 1)].concat()))[0]
            .1
            .init
            .clone()
            .unwrap()
            .info
            .codecs
            .clone()
    };
    assert_eq!(name(aac()).as_deref(), Some("mp4a.40.2"));
    assert_eq!(name(sound(b"mp4a", &esds(0x6b, &[]))).as_deref(), Some("mp4a.40.34"));
    assert_eq!(name(sound(b"Opus", &[])).as_deref(), Some("opus"));
    assert_eq!(name(sound(b"fLaC", &[])).as_deref(), Some("flac"));
    assert_eq!(name(sound(b"alac", &[])).as_deref(), Some("alac"));
    assert_eq!(name(sound(b"ac-3", &[])).as_deref(), Some("ac-3"));
    assert_eq!(name(sound(b"ec-3", &[])).as_deref(), Some("ec-3"));
    assert_eq!(name(sound(b"mp4a", &[])), None);
}

/// An `avc3` head without parameter sets, and a picture that brings its own.
fn in_band(level: Option<u8>) -> Sample {
    let sets = match level {
        Some(level) => [&[0, 0, 0, 4, 0x67, 0x64, 0, level][..], &[0, 0, 0, 2, 0x68, 1]].concat(),
        None => vec![],
    };
    Sample {
        data: [sets, nal(0x65, 9)].concat(),
        ..idr()
    }
}

fn avc3_head() -> Vec<u8> {
    head(&[Trak::video(visual(
        b"avc3",
        &boxed(b"avcC", &[&[1, 0x64, 0, 40, 0xff, 0xe0, 0]]),
    ))])
}

#[test]
fn parameter_sets_that_change_in_band_open_a_chunk() {
    let levels = [Some(40), Some(40), None, Some(40), Some(31), Some(31)];
    let parts: Vec<u8> = levels.iter().flat_map(|&level| video(0, &[in_band(level)])).collect();
    let units = units(&scan(&[avc3_head(), parts].concat()));
    let new: Vec<bool> = units.iter().map(|u| u.1.new_codec_config).collect();
    assert_eq!(new, [false, false, false, false, true, false]);
    let codecs = |i: usize| units[i].1.init.as_ref().unwrap().info.codecs.clone();
    assert_eq!(codecs(0).as_deref(), Some("avc3.640028"));
    assert_eq!(codecs(4).as_deref(), Some("avc3.64001F"));
}

#[test]
fn parameter_sets_in_band_other_than_those_of_the_head_open_a_chunk() {
    let levels = [None, Some(40), Some(31)];
    let parts: Vec<u8> = levels.iter().flat_map(|&level| video(0, &[in_band(level)])).collect();
    let units = units(&scan(&[av_head(), parts].concat()));
    let new: Vec<bool> = units.iter().map(|u| u.1.new_codec_config).collect();
    assert_eq!(new, [false, false, true]);
    let codecs = &units[2].1.init.as_ref().unwrap().info.codecs;
    assert_eq!(codecs.as_deref(), Some("avc1.64001F,mp4a.40.2"));
}

#[test]
fn a_key_picture_without_parameter_sets_anywhere_is_reported_once() {
    let notices = |input: &[u8]| {
        scan(input)
            .iter()
            .filter(|m| m.kind == MarkKind::Notice(Notice::NoParameterSets))
            .count()
    };
    let bare = video(0, &[in_band(None)]);
    assert_eq!(notices(&[&avc3_head()[..], &bare, &bare].concat()), 1);
    assert_eq!(notices(&[avc3_head(), video(0, &[in_band(Some(40))])].concat()), 0);
    assert_eq!(notices(&[head(&[Trak::video(avc(40))]), bare].concat()), 0);
}

#[test]
fn the_resolution_is_a_tick_of_the_video_track_rounded_up() {
    let mut scanner = Fmp4::new();
    assert_eq!(scanner.resolution(), 1);
    let trak = Trak {
        timescale: 90_000,
        ..Trak::video(avc(40))
    };
    scanner
        .push(&[head(&[Trak::audio(aac()), trak]), video(0, &[idr()])].concat(), &mut vec![])
        .unwrap();
    assert_eq!(scanner.resolution(), 11_112);
}

#[test]
fn reading_goes_on_at_the_next_fragment_after_damage() {
    let head = head(&[Trak::video(avc(40))]);
    let f = video(0, &[idr()]);
    for junk in [
        vec![0; 3],
        vec![0xff; 5000],
        b"\0\0\0\x04free".to_vec(),
        [&b"\x7f\0\0\0moof"[..], &[9; 30]].concat(),
    ] {
        for step in [1, 13, usize::MAX] {
            let input = [&head[..], &f, &junk, &f].concat();
            let (marks, result) = try_scan(&input, step);
            result.unwrap();
            assert_eq!(damages(&marks), [len(&[&head, &f])]);
            let at: Vec<u64> = units(&marks).iter().map(|u| u.0).collect();
            assert_eq!(at, [len(&[&head]), len(&[&head, &f, &junk])]);
        }
    }
}

#[test]
fn a_fragment_whose_size_swallows_others_does_not_lose_them() {
    let head = head(&[Trak::video(avc(40))]);
    let f = video(0, &[idr()]);
    let mut swallowing = f.clone();
    let all = u32::try_from(f.len() * 3).unwrap();
    swallowing[..4].copy_from_slice(&all.to_be_bytes());
    let marks = scan(&[&head[..], &f, &swallowing, &f, &f, &f].concat());
    let at: Vec<u64> = units(&marks).iter().map(|u| u.0).collect();
    let nth = |n: u64| len(&[&head]) + n * len(&[&f]);
    assert_eq!(at, [nth(0), nth(2), nth(3), nth(4)]);
    assert_eq!(damages(&marks), [nth(1)]);
}

#[test]
fn damage_before_the_first_fragment_is_payload_and_not_part_of_the_init() {
    let head = head(&[Trak::video(avc(40))]);
    let f = video(0, &[idr()]);
    let marks = scan(&[&head[..], &[0xff; 40], &f].concat());
    assert_eq!(damages(&marks), [len(&[&head])]);
    let at: Vec<u64> = units(&marks).iter().map(|u| u.0).collect();
    assert_eq!(at, [len(&[&head]), len(&[&head]) + 40]);
    assert!(units(&marks).iter().all(|u| u.1.init.as_ref().unwrap().head == head));
    let marks = scan(&[&[0xff; 40], &head[..], &f].concat());
    assert_eq!(damages(&marks), [0]);
    let reported: Vec<(u64, bool)> = units(&marks).iter().map(|u| (u.0, u.1.new_codec_config)).collect();
    assert_eq!(reported, [(0, false), (40, true), (40 + len(&[&head]), false)]);
    assert!(units(&marks)[1].1.init.as_ref().unwrap().is_empty());
    assert_eq!(units(&marks)[2].1.init.as_ref().unwrap().head, head);
}

#[test]
fn a_moov_that_cannot_be_read_is_payload_behind_what_came_before_it() {
    let (ftyp, mut moov) = (ftyp(), moov(&[Trak::video(avc(40))]));
    // The size of the first box inside.
    moov[8] = 0xff;
    let f = video(0, &[idr()]);
    let marks = scan(&[&ftyp[..], &moov, &f, &f, &head(&[Trak::video(avc(40))]), &f].concat());
    let reported: Vec<(u64, usize, bool)> = units(&marks)
        .iter()
        .map(|u| (u.0, u.1.init.as_ref().unwrap().len(), u.1.new_codec_config))
        .collect();
    let second = len(&[&ftyp, &moov, &f, &f]);
    let whole = len(&[&ftyp, &moov]);
    assert_eq!(
        reported,
        [
            (len(&[&ftyp]), ftyp.len(), false),
            (second, 0, true),
            (second + whole, usize::try_from(whole).unwrap(), false)
        ]
    );
    assert_eq!(damages(&marks), [len(&[&ftyp])]);
}

#[test]
fn what_is_not_whole_begins_with_its_fragment() {
    let head = head(&[Trak::video(avc(40))]);
    let f = video(0, &[idr()]);
    let input = [&head[..], &f, &f].concat();
    let mut fmp4 = Fmp4::new();
    let mut marks = Vec::new();
    fmp4.push(&input[..input.len() - 1], &mut marks).unwrap();
    assert_eq!(fmp4.whole(), len(&[&head, &f]));
    fmp4.push(&input[input.len() - 1..], &mut marks).unwrap();
    assert_eq!(fmp4.whole(), len(&[&input]));
}

#[test]
fn pictures_shown_before_an_open_key_unit_are_reported() {
    let recovery = |offset| Sample {
        data: [&[0, 0, 0, 4, 6, 6, 1, 0xc4][..], &nal(0x41, 9)].concat(),
        offset,
        ..idr()
    };
    let reported = |samples: &[Sample]| {
        let input = [head(&[Trak::video(avc(40))]), video(0, samples)].concat();
        scan(&input).iter().any(|m| m.kind == MarkKind::Notice(Notice::OpenGop))
    };
    assert!(reported(&[recovery(80), inter()]));
    assert!(!reported(&[recovery(0), inter()]));
}

#[test]
fn a_stream_joined_in_the_middle_begins_with_its_first_head() {
    let head = head(&[Trak::video(avc(40))]);
    let f = video(0, &[idr()]);
    let marks = scan(&[&f[..], &f, &head, &f].concat());
    assert_eq!(damages(&marks), [0]);
    let reported: Vec<(u64, bool)> = units(&marks).iter().map(|u| (u.0, u.1.new_codec_config)).collect();
    let at = len(&[&f, &f]);
    assert_eq!(reported, [(0, false), (at, true), (at + len(&[&head]), false)]);
    assert_eq!(units(&marks)[2].1.init.as_ref().unwrap().head, head);
}

#[test]
fn a_fragment_without_content_is_no_key_unit() {
    let head = head(&[Trak::video(avc(40))]);
    let f = video(0, &[idr()]);
    let moof = &f[..f.len() - idr().data.len() - 8];
    let outline = outline(&[&head[..], moof, &f, moof].concat());
    assert_eq!(
        outline.iter().map(|u| u.2).collect::<Vec<_>>(),
        [Key::No, Key::Closed, Key::No]
    );
}

#[test]
fn an_index_at_the_end_is_payload() {
    let (head, f) = (av_head(), video(0, &[idr()]));
    let marks = scan(&[&head[..], &f, &boxed(b"mfra", &[&[0; 40]])].concat());
    assert_eq!(units(&marks).len(), 1);
    assert!(damages(&marks).is_empty());
}

#[test]
fn a_moov_with_samples_at_the_end_does_not_stop_the_recording() {
    let (head, f) = (head(&[Trak::video(avc(40))]), video(0, &[idr()]));
    let index = moov(&[Trak {
        samples: 1,
        ..Trak::video(avc(40))
    }]);
    let marks = scan(&[&head[..], &f, &index, &f].concat());
    assert_eq!(units(&marks).len(), 2);
    assert_eq!(damages(&marks), [len(&[&head, &f])]);
}

#[test]
fn after_a_flush_the_head_still_holds() {
    let head = head(&[Trak::video(avc(40))]);
    let f = video(0, &[idr(), inter()]);
    let mut scanner = Fmp4::new();
    let mut marks = vec![];
    scanner
        .push(&[&head[..], &f, &f[..f.len() / 2]].concat(), &mut marks)
        .unwrap();
    scanner.restart();
    let at = len(&[&head, &f]) + f.len() as u64 / 2;
    assert_eq!(scanner.settled(), at);
    scanner.push(&f, &mut marks).unwrap();
    scanner.finish(&mut marks);
    let last = units(&marks).pop().unwrap();
    assert_eq!(
        (last.0, last.1.key, &last.1.init.unwrap().head[..]),
        (at, Key::Closed, &head[..])
    );
    assert!(damages(&marks).is_empty());
}

/// A stream with a bit of everything.
fn everything() -> Vec<u8> {
    let styp = boxed(b"styp", &[b"msdh", &[0; 4]]);
    let both = fragment(&[Traf::new(2, 48_000 * 3, sounds(3)), Traf::new(1, 3000, vec![idr(), inter()])]);
    let parts = [
        av_head(),
        audio(0, 46),
        video(0, &[idr(), inter()]),
        audio(1000, 46),
        styp.clone(),
        video(1000, &[idr(), inter()]),
        vec![0xee; 50],
        audio(2000, 9),
        audio(2200, 9),
        video(2000, &[inter()]),
        av_head(),
        styp,
        both,
        head(&[Trak::video(avc(31)), Trak::audio(aac())]),
        boxed(b"free", &[&[0; 12]]),
        video(0, &[in_band(Some(31))]),
        audio(0, 3),
    ];
    parts.concat()
}

/// Pushes in slices of those lengths, over and over, and checks the promises on the way.
fn scan_checked(input: &[u8], lengths: &[usize]) -> (Vec<Mark>, Option<Fault>) {
    let mut scanner = Fmp4::new();
    let mut marks: Vec<Mark> = vec![];
    let (mut pos, mut settled) = (0, 0);
    let mut check = |marks: &[Mark], now: u64, pos: usize| {
        assert!(marks.iter().all(|m| m.at >= settled), "a mark below what was settled");
        assert!(now >= settled && now <= pos as u64, "settled {settled}, then {now} of {pos}");
        settled = now;
    };
    for &n in lengths.iter().cycle() {
        if pos == input.len() {
            break;
        }
        let end = (pos + n.max(1)).min(input.len());
        let before = marks.len();
        if let Err(fault) = scanner.push(&input[pos..end], &mut marks) {
            return (marks, Some(fault));
        }
        pos = end;
        check(&marks[before..], scanner.settled(), pos);
    }
    let before = marks.len();
    scanner.finish(&mut marks);
    check(&marks[before..], scanner.settled(), pos);
    assert!(marks.is_sorted_by_key(|m| m.at), "{marks:?}");
    assert_eq!(scanner.settled(), input.len() as u64);
    (marks, None)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn the_marks_do_not_depend_on_how_the_input_is_sliced(lengths in prop::collection::vec(1usize..400, 1..8)) {
        let input = everything();
        prop_assert_eq!(scan_checked(&input, &lengths), scan_checked(&input, &[usize::MAX]));
    }

    #[test]
    fn a_mutated_stream_keeps_every_promise(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0usize..40), 1..12),
        lengths in prop::collection::vec(1usize..300, 1..5),
    ) {
        let mut input = everything();
        for (place, value, kind) in changes {
            let at = place.index(input.len());
            match kind {
                0 => input.truncate(at.max(1)),
                1 => { input.drain(at..(at + usize::from(value)).min(input.len())); }
                2 => { input.splice(at..at, vec![value; 30]); }
                _ => input[at] = value,
            }
            if input.is_empty() {
                input.push(value);
            }
        }
        prop_assert_eq!(scan_checked(&input, &lengths), scan_checked(&input, &[usize::MAX]));
    }

    #[test]
    fn random_bytes_keep_every_promise(
        parts in prop::collection::vec(
            prop_oneof![
                prop::collection::vec(any::<u8>(), 0..60),
                prop::sample::select(vec![&b"moof"[..], b"mdat", b"\0\0\0\x10mfhd", b"traf", b"moov", b"ftyp", b"\0\0\0\x18", b"\0\0\0\x01"])
                    .prop_map(<[u8]>::to_vec),
            ],
            1..40,
        ),
        with_head in any::<bool>(),
        lengths in prop::collection::vec(1usize..60, 1..5),
    ) {
        let head = if with_head { av_head() } else { vec![] };
        let input = [head, parts.concat()].concat();
        prop_assert_eq!(scan_checked(&input, &lengths), scan_checked(&input, &[usize::MAX]));
    }
}

#[test]
fn an_mdat_that_is_longer_than_its_fragment_says_does_not_swallow_the_next_fragments() {
    let (first, second, third) = (video(0, &[idr()]), video(40, &[idr()]), video(80, &[idr()]));
    let head = av_head();
    for bit in [12u32, 20, 31] {
        let mut first = first.clone();
        let at = first.windows(4).position(|w| w == b"mdat").unwrap() - 4;
        let size = u32::from_be_bytes(first[at..at + 4].try_into().unwrap()) ^ (1 << bit);
        first[at..at + 4].copy_from_slice(&size.to_be_bytes());
        let input = [&head[..], &first, &second, &third].concat();
        let (whole, _) = try_scan(&input, input.len());
        let (sliced, _) = try_scan(&input, 7);
        assert!(whole == sliced, "bit {bit}");
        let keys: Vec<u64> = units(&whole).iter().map(|(at, _)| *at).collect();
        let expected = [head.len(), head.len() + first.len(), head.len() + first.len() + second.len()];
        assert_eq!(keys, expected.map(|at| at as u64), "bit {bit}");
        assert!(whole.iter().any(|m| m.kind == MarkKind::Damage && m.at == expected[1] as u64));
    }
}

#[test]
fn an_mdat_with_more_than_its_samples_is_no_damage() {
    let mut first = video(0, &[idr()]);
    let at = first.windows(4).position(|w| w == b"mdat").unwrap() - 4;
    let size = u32::from_be_bytes(first[at..at + 4].try_into().unwrap()) + 40;
    first[at..at + 4].copy_from_slice(&size.to_be_bytes());
    first.extend([0x55; 40]);
    let input = [&av_head()[..], &first, &video(40, &[idr()])].concat();
    let marks = scan(&input);
    assert!(!marks.iter().any(|m| m.kind == MarkKind::Damage));
    assert_eq!(units(&marks).len(), 2);
}

#[test]
fn a_pps_that_comes_in_band_once_is_reported_where_a_later_key_picture_lacks_it() {
    let mut first = idr();
    first.data = [&[0, 0, 0, 3, 0x68, 1, 9][..], &first.data].concat();
    let input = [
        &av_head()[..],
        &video(0, &[first]),
        &video(40, &[idr()]),
        &video(80, &[idr()]),
    ]
    .concat();
    let notice = MarkKind::Notice(Notice::NoParameterSets);
    assert_eq!(scan(&input).iter().filter(|m| m.kind == notice).count(), 1);
}

#[test]
fn what_is_wrong_with_a_head_is_reported_by_its_name() {
    let one = video(0, &[idr()]);
    let missing = |input: &[u8]| {
        let mut scanner = Fmp4::new();
        scanner.push(input, &mut vec![]).unwrap();
        scanner.missing_head()
    };
    let mut damaged = av_head();
    let trak = damaged.windows(4).position(|w| w == b"mdia").unwrap();
    damaged[trak - 2] = 0xff;
    assert_eq!(
        missing(&[&damaged[..], &one].concat()),
        Some(Fault::NoHead),
        "a size inside the moov"
    );
    // The announcement of fragments, and the counts of samples, of which there are none.
    for (kind, at, byte) in [(b"mvex", 0, b'n'), (b"stts", 8, 1), (b"stts", 11, 7), (b"stsz", 15, 9)] {
        let mut damaged = av_head();
        let found = damaged.windows(4).position(|w| w == kind).unwrap();
        damaged[found + at] = byte;
        let input = [&damaged[..], &one, &one].concat();
        assert_eq!(missing(&input), Some(Fault::NoHead), "{kind:?} + {at}");
        assert_eq!(missing(&[&input[..], &av_head(), &one].concat()), None, "{kind:?} + {at}");
    }
    assert_eq!(missing(&one), Some(Fault::NoHead), "joined in the middle");
    assert_eq!(missing(&ftyp()), Some(Fault::Unfragmented));
    assert_eq!(missing(&av_head()), None);
    assert_eq!(missing(&[&damaged[..], &one, &av_head(), &one].concat()), None);
}

/// A `moof` of several runs, and its `mdat`: for each `traf` its track, the flags of `tfhd`, its time and its runs.
fn runs_of(trafs: &[(u32, u32, u64, &[&[Sample]])], with_offsets: bool) -> Vec<u8> {
    let flagged = |kind, version: u8, flags: u32, body: &[u8]| boxed(kind, &[&words(&[u32::from(version) << 24 | flags]), body]);
    let moof = |mut at: usize| {
        let mut parts = Vec::new();
        for (id, flags, time, runs) in trafs {
            let mut traf = vec![
                flagged(b"tfhd", 0, *flags, &words(&[*id])),
                flagged(b"tfdt", 1, 0, &time.to_be_bytes()),
            ];
            for run in *runs {
                let mut body = words(&[u32::try_from(run.len()).unwrap()]);
                if with_offsets {
                    body.extend(words(&[u32::try_from(at).unwrap()]));
                }
                for s in *run {
                    body.extend(words(&[s.duration, u32::try_from(s.data.len()).unwrap(), s.flags, 0]));
                    at += s.data.len();
                }
                traf.push(flagged(b"trun", 1, 0xf00 | u32::from(with_offsets), &body));
            }
            parts.extend(boxed(b"traf", &[&traf.concat()]));
        }
        boxed(b"moof", &[&full(b"mfhd", &[&words(&[1])]), &parts])
    };
    let samples = trafs
        .iter()
        .flat_map(|(_, _, _, runs)| runs.iter())
        .flat_map(|run| run.iter());
    let data: Vec<u8> = samples.flat_map(|s| s.data.clone()).collect();
    // Without offsets a muxer that follows the older rules puts the data directly behind its moof's header.
    let len = moof(0).len() + 8;
    [moof(len), boxed(b"mdat", &[&data])].concat()
}

#[test]
fn several_runs_and_tracks_in_a_fragment_are_one_unit_with_the_times_of_its_pictures() {
    let (key, other) = ([idr(), inter()], [inter(), inter()]);
    let sound = sounds(4);
    let head = av_head();
    for flags in [0x02_0000, 0] {
        let mut input = head.clone();
        let mut begins = Vec::new();
        for n in 0..3u64 {
            begins.push(input.len() as u64);
            let video: &[&[Sample]] = &[&key, &other, &other];
            let trafs: &[(u32, u32, u64, &[&[Sample]])] = &[(2, 0x02_0000, n * 240 * 48, &[&sound]), (1, flags, n * 240, video)];
            // The second traf without the flag counts from where the first one's data end.
            let relative = flags == 0x02_0000;
            input.extend(if relative {
                runs_of(trafs, true)
            } else {
                runs_of(&trafs[1..], true)
            });
        }
        let (marks, _) = scan_checked(&input, &[1, 5, 90]);
        let units = units(&marks);
        let at: Vec<u64> = units.iter().map(|u| u.0).collect();
        assert_eq!(at, begins);
        for (n, (_, unit)) in (0u64..).zip(&units) {
            assert_eq!((unit.track, unit.key), (Track::Video, Key::Closed));
            assert_eq!((unit.pts, unit.end), (Some(n * 240_000_000), Some((n + 1) * 240_000_000)));
        }
        assert!(damages(&marks).is_empty());
        let end = ends_of_pictures(&marks)[0];
        let picture = idr().data;
        let first = usize::try_from(end).unwrap();
        assert_eq!(
            &input[first - picture.len()..first],
            &picture[..],
            "the preview ends with the first picture"
        );
    }
}

#[test]
fn the_fragments_behind_an_mdat_that_claims_too_much_are_kept_whatever_box_they_begin_with() {
    let head = av_head();
    let fragments: Vec<Vec<u8>> = (0..3).map(|n| video(n * 40, &[idr()])).collect();
    let sidx = boxed(b"sidx", &[&[0; 24]]);
    let prft = boxed(b"prft", &[&[0; 20]]);
    let styp = boxed(b"styp", &[b"msdh", &[0; 4]]);
    for lead in [
        vec![],
        sidx.clone(),
        prft.clone(),
        boxed(b"emsg", &[&[7; 400]]),
        boxed(b"free", &[&[0; 5000]]),
        [styp, sidx, prft].concat(),
    ] {
        // One `mdat` has 32 bytes: with bit 5 it reaches to the end of the input.
        for bit in [3, 4, 5, 6, 12, 20, 24, 31] {
            let mut input = head.clone();
            let (mut begins, mut damaged) = (Vec::new(), 0);
            for (n, fragment) in fragments.iter().enumerate() {
                if n == 1 {
                    damaged = len(&[&input]);
                }
                // A `free` belongs to no fragment.
                let is_apart = n > 0 && lead.get(4..8) == Some(b"free");
                begins.push(len(&[&input, if is_apart { &lead } else { &[] }]));
                let mut fragment = fragment.clone();
                if n == 0 {
                    let at = fragment.windows(4).position(|w| w == b"mdat").unwrap() - 4;
                    let size = u32::from_be_bytes(fragment[at..at + 4].try_into().unwrap()) ^ (1 << bit);
                    fragment[at..at + 4].copy_from_slice(&size.to_be_bytes());
                } else {
                    input.extend_from_slice(&lead);
                }
                input.extend(fragment);
            }
            let marks = scan(&input);
            let at: Vec<u64> = units(&marks).iter().map(|u| u.0).collect();
            let name = String::from_utf8_lossy(lead.get(4..8).unwrap_or_default()).into_owned();
            assert_eq!(at, begins, "bit {bit} in front of {name:?}");
            assert!(units(&marks).iter().all(|u| u.1.key == Key::Closed));
            assert_eq!(damages(&marks), [damaged], "bit {bit} in front of {name:?}");
            for step in [1, 7, 190] {
                assert!(
                    try_scan(&input, step).0 == marks,
                    "bit {bit} in front of {name:?}, slices of {step}"
                );
            }
        }
    }
}

#[test]
fn the_fragments_in_an_mdat_that_claims_too_much_are_kept_behind_bytes_that_are_no_box() {
    let (mut first, next) = (video(0, &[idr()]), video(40, &[idr()]));
    let at = first.windows(4).position(|w| w == b"mdat").unwrap() - 4;
    first[at] = 1;
    for junk in [3, 40, 70_000] {
        let junk = vec![0x55; junk];
        let input = [&av_head()[..], &first, &junk, &next, &next].concat();
        let begin = len(&[&av_head(), &first, &junk]);
        let marks = scan(&input);
        assert_eq!(units(&marks)[1].0, begin);
        assert_eq!(damages(&marks), [begin]);
        assert_eq!(units(&marks).len(), 3);
    }
}

#[test]
fn boxes_inside_an_mdat_behind_its_samples_are_no_damage() {
    let inside = boxed(b"free", &[&[0; 12]]);
    let first = video(0, &[idr()]);
    let at = first.windows(4).position(|w| w == b"mdat").unwrap() - 4;
    for more in [4, inside.len()] {
        let mut first = first.clone();
        let size = u32::from_be_bytes(first[at..at + 4].try_into().unwrap()) + u32::try_from(more).unwrap();
        first[at..at + 4].copy_from_slice(&size.to_be_bytes());
        first.extend_from_slice(if more == 4 { &[0; 4] } else { &inside });
        let input = [&av_head()[..], &first, &video(40, &[idr()])].concat();
        let marks = scan(&input);
        assert!(damages(&marks).is_empty(), "{more} bytes more");
        assert_eq!(units(&marks).len(), 2, "{more} bytes more");
    }
}

#[test]
fn key_pictures_of_a_second_video_track_begin_no_chunk() {
    let second = |ms: u64, sample: Sample| fragment(&[Traf::new(3, ms, vec![sample])]);
    let traks = [
        Trak::video(avc(40)),
        Trak {
            id: 3,
            ..Trak::video(avc(31))
        },
        Trak::audio(aac()),
    ];
    let mut input = head(&traks);
    // The first has a key frame every third second, the second one every second with parameter sets of its own.
    for s in 0..6u64 {
        let sample = if s % 3 == 0 { in_band(Some(40)) } else { inter() };
        input.extend([video(s * 1000, &[sample]), second(s * 1000, in_band(Some(31)))].concat());
    }
    let units = units(&scan(&input));
    let keys: Vec<u64> = units
        .iter()
        .filter(|u| u.1.key.is_key())
        .map(|u| u.1.pts.unwrap() / 1_000_000_000)
        .collect();
    assert_eq!(keys, [0, 3]);
    assert!(units.iter().all(|u| !u.1.new_codec_config));
    let codecs = units[0].1.init.as_ref().unwrap().info.codecs.clone();
    assert_eq!(codecs.as_deref(), Some("avc1.640028,avc1.64001F,mp4a.40.2"));
}

#[test]
fn a_second_sound_track_with_a_clock_of_its_own_is_no_sound_to_cut_by() {
    let more = Trak {
        id: 3,
        ..Trak::audio(aac())
    };
    let input = [head(&[Trak::audio(aac()), more]), fragment(&[Traf::new(3, 0, sounds(4))])].concat();
    assert_eq!(outline(&input)[0].1, Track::Audio, "the first brings nothing");
    let input = [
        input,
        audio(5_000_000, 4),
        fragment(&[Traf::new(2, 0, sounds(1)), Traf::new(3, 4096, sounds(4))]),
    ]
    .concat();
    let units = units(&scan(&input));
    let tracks: Vec<Track> = units.iter().map(|u| u.1.track).collect();
    assert_eq!(tracks, [Track::Audio, Track::Other, Track::Audio]);
    assert_eq!(units[2].1.pts, Some(4096 * 1_000_000_000 / 48_000));
}

#[test]
fn key_pictures_within_fragments_are_noticed_as_long_as_none_opens_one() {
    let encloses = |fragments: &[&[Sample]]| {
        let mut scanner = Fmp4::new();
        let mut input = head(&[Trak::video(avc(40))]);
        for (i, samples) in fragments.iter().enumerate() {
            input.extend(video(i as u64 * 120, samples));
        }
        scanner.push(&input, &mut vec![]).unwrap();
        scanner.encloses_keys()
    };
    let (by_time, by_key, none) = (
        [inter(), idr(), inter()],
        [idr(), inter(), inter()],
        [inter(), inter(), inter()],
    );
    assert!(encloses(&[&by_time, &none]));
    assert!(!encloses(&[&by_key, &none]));
    assert!(!encloses(&[&by_time, &by_key]), "one that can be cut at has come since");
    // A writer that flags every picture as a sync sample shows nothing.
    let alike = [picture(0x41, SYNC), picture(0x41, SYNC)];
    assert!(!encloses(&[&alike, &alike]));
    // One picture of several slices, each a sample of no length.
    let slice = Sample { duration: 0, ..idr() };
    assert!(!encloses(&[&[slice.clone(), slice, inter()]]));
}
