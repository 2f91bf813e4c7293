use proptest::prelude::*;

use super::super::Notice;
use super::test_stream::*;
use super::*;

fn scan(bytes: &[u8]) -> Vec<Mark> {
    let mut flv = Flv::new();
    let mut marks = Vec::new();
    flv.push(bytes, &mut marks).unwrap();
    flv.finish(&mut marks);
    assert_eq!(flv.settled(), bytes.len() as u64);
    marks
}

pub(super) fn units(marks: &[Mark]) -> Vec<(u64, &Unit)> {
    marks
        .iter()
        .filter_map(|m| {
            if let MarkKind::Unit(u) = &m.kind {
                Some((m.at, u))
            } else {
                None
            }
        })
        .collect()
}

#[test]
fn the_head_is_the_init_of_the_first_unit_byte_for_byte() {
    let mut w = Writer::head(5);
    let head = w.bytes.clone();
    let first = w.audio(0);
    w.picture(0, 0x65, true, 0);
    let marks = scan(&w.bytes);
    let units = units(&marks);
    assert_eq!(units[0].0, first);
    let init = units[0].1.init.as_ref().unwrap();
    assert_eq!(init.head, head);
    assert_eq!(init.info.codecs.as_deref(), Some("avc1.640028,mp4a.40.2"));
}

#[test]
fn later_headers_do_not_claim_the_length_of_the_file() {
    let mut w = Writer::head(5);
    w.picture(0, 0x65, true, 0);
    w.picture(2000, 0x65, true, 0);
    let marks = scan(&w.bytes);
    let init = units(&marks)[1].1.init.clone().unwrap();
    let i = init.head.windows(8).position(|w| w == b"duration").unwrap();
    assert_eq!(init.head[i + 9..i + 17], [0; 8]);
    assert_eq!(init.len(), Writer::head(5).bytes.len());
}

#[test]
fn parameter_sets_in_band_other_than_those_in_force_begin_a_chunk_and_are_named() {
    let mut w = Writer::head(5);
    let mut key = |ms, level: Option<u8>| {
        let mut data = vec![0x17, 1, 0, 0, 0];
        for nal in level
            .map(|level| [0x67, 0x64, 0, level])
            .into_iter()
            .chain([[0x65, 0x88, 0, 0]])
        {
            data.extend(4u32.to_be_bytes());
            data.extend(nal);
        }
        w.tag(9, ms, &data)
    };
    let at = [None, Some(40), Some(31), Some(31), None].map(|level| key(0, level));
    let marks = scan(&w.bytes);
    let reported: Vec<(u64, bool)> = units(&marks).iter().map(|u| (u.0, u.1.new_codec_config)).collect();
    let expected: Vec<(u64, bool)> = at.into_iter().zip([false, false, true, false, false]).collect();
    assert_eq!(reported, expected);
    let codecs = |i: usize| units(&marks)[i].1.init.as_ref().unwrap().info.codecs.clone();
    assert_eq!(codecs(1).as_deref(), Some("avc1.640028,mp4a.40.2"));
    assert_eq!(codecs(2).as_deref(), Some("avc1.64001F,mp4a.40.2"));
}

#[test]
fn a_flagged_picture_without_an_idr_is_no_key() {
    let mut w = Writer::head(5);
    w.picture(0, 0x65, true, 0);
    w.picture(40, 0x61, true, 0);
    w.picture(80, 0x65, false, 0);
    w.tag(9, 120, &[0x17, 2, 0, 0, 0]);
    let keys: Vec<Key> = units(&scan(&w.bytes)).iter().map(|(_, u)| u.key).collect();
    assert_eq!(keys, [Key::Closed, Key::No, Key::Closed]);
}

#[test]
fn presentation_time_is_unwrapped_and_composed() {
    let mut w = Writer::head(1);
    w.picture(u32::MAX - 9, 0x65, true, 80);
    w.picture(30, 0x61, false, 0);
    let pts: Vec<u64> = units(&scan(&w.bytes))
        .iter()
        .map(|(_, u)| u.pts.unwrap() / NS_PER_MS)
        .collect();
    assert_eq!(pts, [u64::from(u32::MAX) - 9 + 80, u64::from(u32::MAX) + 1 + 30]);
}

#[test]
fn the_picture_ends_where_its_tag_does() {
    let mut w = Writer::head(1);
    w.picture(0, 0x65, true, 0);
    let end = w.bytes.len() as u64;
    w.picture(40, 0x61, false, 0);
    assert!(scan(&w.bytes).contains(&Mark {
        at: end,
        kind: MarkKind::PictureEnd
    }));
}

#[test]
fn another_configuration_begins_a_chunk_without_the_old_one() {
    let mut w = Writer::head(5);
    w.picture(0, 0x65, true, 0);
    w.tag(9, 0, AVC);
    let at = w.tag(9, 1000, AVC_2);
    w.picture(1000, 0x65, true, 0);
    let marks = scan(&w.bytes);
    let units = units(&marks);
    let (change_at, change) = units.iter().find(|(_, u)| u.new_codec_config).unwrap();
    assert_eq!(*change_at, at);
    let init = change.init.as_ref().unwrap();
    assert_eq!(init.len(), 13 + 15 + AAC.len());
    assert_eq!(init.info.codecs.as_deref(), Some("avc1.4D001F,mp4a.40.2"));
    let after = units.last().unwrap().1.init.as_ref().unwrap();
    assert!(after.head.windows(AVC_2.len()).any(|w| w == AVC_2) && !after.head.windows(AVC.len()).any(|w| w == AVC));
    assert_eq!(units.iter().filter(|(_, u)| u.new_codec_config).count(), 1);
}

#[test]
fn a_second_recording_in_the_same_stream_opens_with_its_own_header() {
    let mut w = Writer::head(5);
    w.picture(0, 0x65, true, 0);
    let at = w.bytes.len() as u64;
    let mut second = Writer::head(5);
    second.picture(0, 0x65, true, 0);
    w.bytes.extend(&second.bytes);
    let marks = scan(&w.bytes);
    let changes: Vec<_> = units(&marks).into_iter().filter(|(_, u)| u.new_codec_config).collect();
    assert_eq!(changes.len(), 1);
    assert_eq!(changes[0].0, at);
    assert!(changes[0].1.init.as_ref().unwrap().is_empty());
}

#[test]
fn without_video_every_audio_tag_is_a_key() {
    let mut w = Writer::new(4);
    w.tag(8, 0, AAC);
    w.audio(0);
    w.audio(23);
    let marks = scan(&w.bytes);
    assert!(units(&marks).iter().all(|(_, u)| u.key == Key::Closed));
    assert_eq!(
        units(&marks)[0].1.init.as_ref().unwrap().info.codecs.as_deref(),
        Some("mp4a.40.2")
    );
}

#[test]
fn a_law_needs_no_configuration() {
    let mut w = Writer::new(4);
    w.tag(8, 0, &[0x72, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
    assert_eq!(
        units(&scan(&w.bytes))[0].1.init.as_ref().unwrap().info.codecs.as_deref(),
        Some("alaw")
    );
}

#[test]
fn enhanced_rtmp_hevc_is_understood() {
    let mut w = Writer::new(1);
    let mut record = vec![0x90];
    record.extend(b"hvc1");
    record.extend([
        1, 1, 0x60, 0, 0, 0, 0xb0, 0, 0, 0, 0, 0, 93, 0xf0, 0, 0xfc, 0xfd, 0xf8, 0xf8, 0, 0, 3, 0,
    ]);
    w.tag(9, 0, &record);
    let mut key = vec![0x91];
    key.extend(b"hvc1");
    key.extend([0, 0, 40, 0, 0, 0, 3, 19 << 1, 1, 9]);
    w.tag(9, 0, &key);
    let mut trail = vec![0x93];
    trail.extend(b"hvc1");
    trail.extend([0, 0, 0, 3, 1 << 1, 1, 9]);
    w.tag(9, 40, &trail);
    let marks = scan(&w.bytes);
    let units = units(&marks);
    assert_eq!((units[0].1.key, units[0].1.pts), (Key::Closed, Some(40 * NS_PER_MS)));
    assert_eq!((units[1].1.key, units[1].1.pts), (Key::No, Some(40 * NS_PER_MS)));
    assert_eq!(
        units[0].1.init.as_ref().unwrap().info.codecs.as_deref(),
        Some("hvc1.1.6.L93.B0")
    );
}

#[test]
fn after_damage_the_next_tag_is_found() {
    let mut w = Writer::head(5);
    w.picture(0, 0x65, true, 0);
    let bad = w.bytes.len() as u64;
    w.bytes.extend([0u8; 333]);
    let good = w.picture(2000, 0x65, true, 0);
    let marks = scan(&w.bytes);
    assert!(marks.contains(&Mark {
        at: bad,
        kind: MarkKind::Damage
    }));
    assert_eq!(units(&marks).last().unwrap().0, good);
}

fn sample() -> Vec<u8> {
    let mut w = Writer::head(5);
    for i in 0..6 {
        w.picture(i * 400, if i % 3 == 0 { 0x65 } else { 0x61 }, i % 2 == 0, 0);
        w.audio(i * 400 + 7);
        if i == 3 {
            w.bytes.extend(b"damage of some length, in ASCII");
            w.tag(9, i * 400, AVC_2);
        }
    }
    w.bytes
}

/// The marks, the same however the input is sliced.
pub(super) fn scan_sliced(bytes: &[u8]) -> Vec<Mark> {
    let whole = sliced(bytes, &[]);
    for step in [1, 7, 64, 333] {
        let cuts: Vec<usize> = (0..bytes.len()).step_by(step).collect();
        assert!(sliced(bytes, &cuts) == whole, "in slices of {step}");
    }
    whole
}

pub(super) fn sliced(bytes: &[u8], cuts: &[usize]) -> Vec<Mark> {
    let mut flv = Flv::new();
    let (mut marks, mut from, mut seen) = (Vec::new(), 0, 0);
    for &cut in cuts.iter().chain([&bytes.len()]) {
        let cut = cut.clamp(from, bytes.len());
        let settled = flv.settled();
        if flv.push(&bytes[from..cut], &mut marks).is_err() {
            return marks;
        }
        assert!(marks[seen..].iter().all(|m| m.at >= settled), "a mark below what was settled");
        assert!(flv.settled() <= cut as u64);
        seen = marks.len();
        from = cut;
    }
    flv.finish(&mut marks);
    assert!(marks.windows(2).all(|w| w[0].at <= w[1].at));
    marks
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn slicing_never_changes_the_marks(mut cuts in prop::collection::vec(0usize..5000, 0..40)) {
        cuts.sort_unstable();
        let bytes = sample();
        prop_assert_eq!(sliced(&bytes, &cuts), scan(&bytes));
    }

    #[test]
    fn mutated_streams_never_panic(mut cuts in prop::collection::vec(0usize..5000, 0..8), flips in prop::collection::vec((0usize..5000, any::<u8>()), 1..30)) {
        cuts.sort_unstable();
        let mut bytes = sample();
        for (i, b) in flips {
            let n = bytes.len();
            bytes[i % n] = b;
        }
        let a = sliced(&bytes, &cuts);
        let b = sliced(&bytes, &[]);
        prop_assert_eq!(a, b);
    }
}

#[test]
fn wrong_times_in_a_row_carry_the_rest_over_no_wrap_of_32_bits() {
    let mut w = Writer::head(1);
    for (i, wrong) in [0, 0, 0x6000_0000, 0xC000_0000, 0, 0].into_iter().enumerate() {
        w.picture(
            wrong + u32::try_from(i).unwrap() * 40,
            if i == 0 { 0x65 } else { 0x61 },
            false,
            0,
        );
    }
    let mut marks = Vec::new();
    Flv::new().push(&w.bytes, &mut marks).unwrap();
    let times = marks.iter().filter_map(|mark| match &mark.kind {
        MarkKind::Unit(unit) => unit.pts,
        _ => None,
    });
    let times: Vec<u64> = times.map(|ns| ns / 1_000_000).collect();
    assert_eq!((times[1], times[4], times[5]), (40, 160, 200));
}

#[test]
fn a_stream_without_script_and_configuration_has_the_file_header_in_front_of_every_chunk() {
    // VP6, Sorenson and screen video, with MP3.
    for codec in [4u8, 2, 3] {
        let mut w = Writer::new(5);
        for n in 0..4 {
            w.tag(9, n * 40, &[(if n % 2 == 0 { 0x10 } else { 0x20 }) | codec, 1, 2, 3]);
            w.tag(8, n * 40, &[0x2f, 0xff, 0xfb, 0x90, 0]);
        }
        let marks = scan(&w.bytes);
        for (at, unit) in units(&marks) {
            let init = unit.init.as_ref().unwrap();
            assert!(init.head.starts_with(b"FLV\x01\x05"), "codec {codec}, unit at {at}");
        }
    }
}

#[test]
fn a_script_with_an_index_leaves_the_file_header_in_front_of_every_chunk() {
    let mut w = Writer::new(1);
    w.tag(
        18,
        0,
        b"\x02\x00\x0aonMetaData\x08\x00\x00\x00\x01\x00\x09keyframes\x03\x00\x00\x09\x00\x00\x09",
    );
    w.tag(9, 0, &[0x14, 1, 2]);
    w.tag(9, 40, &[0x14, 1, 2]);
    let marks = scan(&w.bytes);
    let head = &units(&marks)[1].1.init.as_ref().unwrap().head;
    assert_eq!(&head[..], [b'F', b'L', b'V', 1, 1, 0, 0, 0, 9, 0, 0, 0, 0]);
}

#[test]
fn tags_of_reserved_types_and_other_streams_are_no_damage() {
    let mut w = Writer::head(5);
    for n in 0..6u32 {
        w.picture(n * 40, 0x65, true, 0);
        w.tag(if n % 2 == 0 { 15 } else { 22 }, n * 40, &[7; 30]);
        let at = usize::try_from(w.audio(n * 40)).unwrap();
        w.bytes[at + 10] = 1;
    }
    let marks = scan(&w.bytes);
    assert!(!marks.iter().any(|m| m.kind == MarkKind::Damage));
    assert_eq!(units(&marks).len(), 12);
    // Bytes that only look like a tag are damage.
    let mut w = Writer::head(5);
    w.picture(0, 0x65, true, 0);
    let at = usize::try_from(w.tag(15, 40, &[7; 30])).unwrap();
    w.bytes[at + 3] ^= 4;
    w.picture(80, 0x65, true, 0);
    let marks = scan(&w.bytes);
    assert_eq!(marks.iter().filter(|m| m.kind == MarkKind::Damage).count(), 1);
    assert_eq!(units(&marks).len(), 2);
}

#[test]
fn what_only_looks_like_a_long_reserved_tag_does_not_swallow_the_sound_behind_it() {
    let mut w = Writer::new(4);
    w.tag(8, 0, AAC);
    w.audio(0);
    let at = w.bytes.len() as u64;
    // The rest of a tag whose beginning is lost, read as a header: type 23, 528,009 bytes, another stream.
    w.bytes
        .extend([0x17, 0x08, 0x0e, 0x89, 0x15, 0x62, 0xf3, 0x65, 0x41, 0x6a, 0x04, 0x17]);
    let next = w.audio(23);
    for n in 2..4000 {
        w.audio(n * 23);
    }
    let marks = scan(&w.bytes);
    assert!(marks.contains(&Mark {
        at,
        kind: MarkKind::Damage
    }));
    assert_eq!(units(&marks)[1].0, next);
    assert_eq!(units(&marks).len(), 4000);
    // A live stream does not wait for half a megabyte either.
    let mut flv = Flv::new();
    let mut marks = Vec::new();
    flv.push(&w.bytes[..40 << 10], &mut marks).unwrap();
    assert!(flv.settled() > 20 << 10, "{} bytes are settled", flv.settled());
    assert_eq!(sliced(&w.bytes, &[100, 20_000, 60_000]), scan(&w.bytes));
}

#[test]
fn a_flipped_bit_in_a_size_does_not_swallow_the_rest_of_the_stream() {
    let mut w = Writer::head(5);
    w.picture(0, 0x65, true, 0);
    let at = usize::try_from(w.picture(40, 0x61, false, 0)).unwrap();
    w.bytes[at + 1] ^= 0x80;
    let next = w.picture(80, 0x65, true, 0);
    let marks = scan(&w.bytes);
    assert!(marks.iter().any(|m| m.kind == MarkKind::Damage && m.at == at as u64));
    assert_eq!(units(&marks).last().unwrap().0, next);
}

#[test]
fn a_key_picture_behind_300_kb_of_sei_is_one() {
    let mut data = vec![0x27, 1, 0, 0, 0];
    data.extend(300_000u32.to_be_bytes());
    data.extend([6, 5]);
    data.extend(vec![0xff; 299_998]);
    data.extend([0, 0, 0, 4, 0x65, 0x88, 1, 2]);
    let mut w = Writer::head(5);
    w.tag(9, 0, &data);
    let marks = scan(&w.bytes);
    assert_eq!(units(&marks)[0].1.key, Key::Closed);
    assert!(sliced(&w.bytes, &[4096, 9000, 70_000, 200_000]) == marks);
}

#[test]
fn start_codes_where_lengths_belong_are_read_all_the_same() {
    for sei in [5usize, 290, 600] {
        for code in [&[0, 0, 0, 1][..], &[0, 0, 1]] {
            let sei = [&[6, 5][..], &vec![0x33; sei]].concat();
            let nals: [&[u8]; 4] = [&[0x67, 0x64, 0, 0x28], &[0x68, 1, 2], &sei, &[0x65, 0x88, 9, 9, 9, 9]];
            let mut data = vec![0x27, 1, 0, 0, 0];
            nals.iter().for_each(|nal| data.extend([code, nal].concat()));
            let mut w = Writer::head(5);
            w.tag(9, 0, &data);
            let marks = scan(&w.bytes);
            assert_eq!(units(&marks)[0].1.key, Key::Closed, "{code:?}");
        }
    }
}

#[test]
fn parameter_sets_that_come_in_band_once_are_reported_where_a_later_key_picture_lacks_them() {
    let key = |w: &mut Writer, ms, sets: &[&[u8]]| {
        let mut data = vec![0x17, 1, 0, 0, 0];
        for nal in sets.iter().copied().chain([&[0x65, 0x88, 1, 2][..]]) {
            data.extend(u32::try_from(nal.len()).unwrap().to_be_bytes());
            data.extend(nal);
        }
        w.tag(9, ms, &data);
    };
    let reported = |rounds: &[&[&[u8]]]| {
        let mut w = Writer::head(1);
        for (ms, sets) in (0..).step_by(40).zip(rounds) {
            key(&mut w, ms, sets);
        }
        let notice = MarkKind::Notice(Notice::NoParameterSets);
        scan(&w.bytes).iter().any(|m| m.kind == notice)
    };
    // SPS and PPS as in the head, or others.
    let (sps, pps): (&[u8], &[u8]) = (&[0x67, 0x64, 0, 0x28], &[0x68, 1]);
    let (sps_2, pps_2): (&[u8], &[u8]) = (&[0x67, 0x64, 0, 0x1f], &[0x68, 0x81, 7]);
    assert!(reported(&[&[sps_2, pps_2], &[]]), "both once");
    assert!(reported(&[&[pps_2], &[]]), "a PPS once");
    assert!(reported(&[&[sps_2, pps_2], &[sps_2]]), "the PPS is missing");
    assert!(!reported(&[&[sps, pps], &[], &[]]), "those of the head");
    assert!(
        !reported(&[&[sps_2, pps_2], &[sps_2, pps_2], &[sps, pps], &[]]),
        "back to those of the head"
    );
}

#[test]
fn a_tag_for_each_slice_is_one_picture_and_the_preview_ends_behind_the_last() {
    let mut w = Writer::head(1);
    let slice = |nal: u8, first: u8| [&[0x17, 1, 0, 0, 0, 0, 0, 0, 4][..], &[nal, first, 1, 2]].concat();
    let mut keys_at = Vec::new();
    let mut ends = Vec::new();
    for ms in [0, 40] {
        keys_at.push(w.tag(9, ms, &slice(0x65, 0x88)));
        w.tag(9, ms, &slice(0x65, 0x41));
        w.tag(9, ms, &slice(0x65, 0x21));
        ends.push(w.bytes.len() as u64);
    }
    let marks = scan(&w.bytes);
    assert_eq!(units(&marks).iter().map(|u| u.0).collect::<Vec<_>>(), keys_at);
    let found: Vec<u64> = marks
        .iter()
        .filter(|m| m.kind == MarkKind::PictureEnd)
        .map(|m| m.at)
        .collect();
    assert_eq!(found, ends);
    assert!(sliced(&w.bytes, &[120, 140, 150, 160, 170]) == marks);
}

#[test]
fn key_pictures_without_any_parameter_sets_are_reported_once() {
    let reported = |config: Option<&[u8]>| {
        let mut w = Writer::new(1);
        if let Some(config) = config {
            w.tag(9, 0, config);
        }
        for i in 0..100 {
            w.picture(i * 40, if i % 25 == 0 { 0x65 } else { 0x41 }, i % 25 == 0, 0);
        }
        let notice = MarkKind::Notice(Notice::NoParameterSets);
        scan(&w.bytes).iter().filter(|m| m.kind == notice).count()
    };
    assert_eq!((reported(None), reported(Some(AVC))), (1, 0));
}

#[test]
fn sound_that_is_announced_and_never_comes_hides_the_names_of_the_codecs_for_five_seconds_at_most() {
    let names = |sound_from: Option<u32>| {
        let mut w = Writer::new(5);
        w.tag(9, 0, AVC);
        for i in 0..200 {
            w.picture(i * 40, if i % 25 == 0 { 0x65 } else { 0x41 }, i % 25 == 0, 0);
            if sound_from == Some(i) {
                w.tag(8, i * 40, AAC);
            }
            if sound_from.is_some_and(|from| i >= from) {
                w.audio(i * 40);
            }
        }
        let name = |mark: &Mark| match &mark.kind {
            MarkKind::Unit(unit) if unit.key.is_key() => Some(unit.init.as_ref()?.info.codecs.clone()),
            _ => None,
        };
        scan(&w.bytes).iter().filter_map(name).collect::<Vec<_>>()
    };
    let (alone, both) = (Some("avc1.640028".to_owned()), Some("avc1.640028,mp4a.40.2".to_owned()));
    let never = names(None);
    assert_eq!(never, [vec![None; 6], vec![alone; 2]].concat());
    assert_eq!(names(Some(190)), never);
    assert_eq!(names(Some(0))[1..], vec![both.clone(); 7]);
    assert_eq!(names(Some(160)).last(), Some(&both), "it comes after all");
}
