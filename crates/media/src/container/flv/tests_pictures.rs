//! Pictures that come in more than one tag.

use super::super::Notice;
use super::super::fields::tests::{field, interlaced_sps, units as nals};
use super::test_stream::*;
use super::tests::{scan_sliced as scan, sliced, units};
use super::*;

const SPS_2: &[u8] = &[0x67, 0x64, 0, 0x1f];
const PPS_2: &[u8] = &[0x68, 0x81, 7];
const IDR: &[u8] = &[0x65, 0x88, 1, 2];
const P: &[u8] = &[0x41, 0x9a, 1, 2];

fn coded(w: &mut Writer, ms: u32, flag: u8, parts: &[&[u8]]) -> u64 {
    let parts: Vec<Vec<u8>> = parts.iter().map(|part| part.to_vec()).collect();
    w.tag(9, ms, &[&[flag, 1, 0, 0, 0][..], &nals(&parts)].concat())
}

fn outline(marks: &[Mark]) -> Vec<(u64, Track, Key)> {
    units(marks).iter().map(|(at, unit)| (*at, unit.track, unit.key)).collect()
}

fn ends(marks: &[Mark]) -> Vec<u64> {
    marks
        .iter()
        .filter(|m| m.kind == MarkKind::PictureEnd)
        .map(|m| m.at)
        .collect()
}

#[test]
fn parameter_sets_in_a_tag_of_their_own_are_the_beginning_of_the_key_picture_behind_them() {
    let mut w = Writer::head(5);
    coded(&mut w, 0, 0x17, &[IDR]);
    let sound = w.audio(30);
    let sets = coded(&mut w, 40, 0x27, &[SPS_2]);
    coded(&mut w, 40, 0x27, &[PPS_2]);
    let between = w.audio(40);
    coded(&mut w, 40, 0x17, &[IDR]);
    let end = w.bytes.len() as u64;
    let last = coded(&mut w, 80, 0x27, &[P]);
    let marks = scan(&w.bytes);
    assert_eq!(
        outline(&marks)[1..],
        [
            (sound, Track::Audio, Key::No),
            (sets, Track::Video, Key::Closed),
            (between, Track::Audio, Key::No),
            (last, Track::Video, Key::No),
        ]
    );
    let key = units(&marks)[2].1.clone();
    assert!(key.new_codec_config);
    assert_eq!(key.init.unwrap().info.codecs.as_deref(), Some("avc1.64001F,mp4a.40.2"));
    assert_eq!(ends(&marks)[1], end, "the preview is the picture");
    assert!(!marks.iter().any(|m| matches!(m.kind, MarkKind::Notice(_))), "nothing lacks");
}

#[test]
fn a_delimiter_in_a_tag_of_its_own_makes_no_picture_of_its_own() {
    let mut w = Writer::head(1);
    let mut at = Vec::new();
    for (i, slice) in [IDR, P, P].into_iter().enumerate() {
        let ms = u32::try_from(i).unwrap() * 40;
        at.push(coded(&mut w, ms, 0x27, &[&[9, 0xf0]]));
        coded(&mut w, ms, 0x27, &[slice]);
    }
    let marks = scan(&w.bytes);
    let keys = [Key::Closed, Key::No, Key::No];
    let expected: Vec<_> = at.into_iter().zip(keys).map(|(at, key)| (at, Track::Video, key)).collect();
    assert_eq!(outline(&marks), expected);
    let head = Writer::head(1).bytes;
    assert_eq!(units(&marks)[0].1.init.as_ref().unwrap().head, head, "of the first unit");
}

#[test]
fn parameter_sets_without_a_picture_hold_nothing_back_for_long() {
    let mut w = Writer::head(5);
    coded(&mut w, 0, 0x17, &[IDR]);
    let sets = coded(&mut w, 40, 0x27, &[SPS_2, PPS_2]);
    let mut flv = Flv::new();
    let mut marks = Vec::new();
    for ms in 0..300 {
        w.audio(40 + ms);
    }
    flv.push(&w.bytes, &mut marks).unwrap();
    assert!(flv.settled() == w.bytes.len() as u64, "{} units held", units(&marks).len());
    assert_eq!(outline(&marks)[1], (sets, Track::Video, Key::No));
    // Or until the prefix has been held back for too long.
    let more = coded(&mut w, 400, 0x27, &[SPS_2]);
    flv.push(&w.bytes[usize::try_from(more).unwrap()..], &mut marks).unwrap();
    assert_eq!(flv.settled(), more);
    flv.release(&mut marks);
    assert_eq!(flv.settled(), w.bytes.len() as u64);
    // A later key frame has those sets neither in its header nor in band.
    coded(&mut w, 440, 0x17, &[IDR]);
    let all = scan(&w.bytes);
    assert!(all.iter().any(|m| m.kind == MarkKind::Notice(Notice::NoParameterSets)));
}

#[test]
fn a_tag_for_each_field_is_one_picture_and_the_preview_ends_behind_the_second() {
    let mut w = Writer::head(1);
    let sps = interlaced_sps();
    let mut at = Vec::new();
    let mut previews = Vec::new();
    for frame in 0..3u32 {
        let (top, bottom) = if frame == 1 { (0x41, 0x41) } else { (0x65, 0x41) };
        let sets: &[&[u8]] = if frame == 1 { &[] } else { &[&sps, &[0x68, 1]] };
        let first = field(top, false);
        at.push(coded(&mut w, frame * 40, 0x17, &[sets, &[&first]].concat()));
        // A recovery point in front of the second field makes no key unit of it.
        coded(
            &mut w,
            frame * 40 + 20,
            0x27,
            &[&[6, 6, 1, 0b1100_0000, 0x80], &field(bottom, true)],
        );
        if frame != 1 {
            previews.push(w.bytes.len() as u64);
        }
    }
    let marks = scan(&w.bytes);
    let keys = [Key::Closed, Key::No, Key::Closed];
    let expected: Vec<_> = at.into_iter().zip(keys).map(|(at, key)| (at, Track::Video, key)).collect();
    assert_eq!(outline(&marks), expected);
    assert_eq!(ends(&marks), previews);
}

#[test]
fn behind_more_than_512_kib_of_sei_the_flag_says_whether_a_picture_is_key() {
    let sei = [&[6, 5][..], &vec![0xff; 600_000]].concat();
    for (flag, key) in [(0x17, Key::Closed), (0x27, Key::No)] {
        let mut w = Writer::head(1);
        coded(&mut w, 0, flag, &[&sei, IDR]);
        let marks = sliced(&w.bytes, &[4096, 70_000, 530_000, 560_000]);
        assert!(marks == sliced(&w.bytes, &[]));
        assert_eq!(units(&marks)[0].1.key, key);
    }
}

#[test]
fn a_last_slice_that_is_torn_leaves_the_same_marks_however_it_came() {
    let mut w = Writer::head(1);
    coded(&mut w, 0, 0x17, &[IDR]);
    coded(&mut w, 0, 0x17, &[&[0x65, 0x22, 1, 2, 3, 4, 5, 6, 7, 8]]);
    for torn in 1..24 {
        scan(&w.bytes[..w.bytes.len() - torn]);
    }
}

#[test]
fn captions_do_not_replace_the_metadata_in_front_of_later_chunks() {
    for name in ["onTextData", "onCuePoint"] {
        let mut w = Writer::head(1);
        let head = w.bytes.clone();
        w.picture(0, 0x65, true, 0);
        let text = [b"\x02\x00\x0a", name.as_bytes(), b"\x08\x00\x00\x00\x00\x00\x00\x09"].concat();
        w.tag(18, 5000, &text);
        w.picture(12_000, 0x65, true, 0);
        let mut flv = Flv::new();
        let mut marks = Vec::new();
        flv.push(&w.bytes, &mut marks).unwrap();
        flv.finish(&mut marks);
        let last = marks.iter().rev().find_map(|mark| match &mark.kind {
            MarkKind::Unit(unit) if unit.key.is_key() => unit.init.clone(),
            _ => None,
        });
        let init = last.unwrap().head;
        assert_eq!(init.len(), head.len(), "{name}");
        assert!(init.windows(10).any(|w| w == b"onMetaData"), "{name}");
        assert!(!init.windows(10).any(|w| w == name.as_bytes()), "{name}");
    }
}

#[test]
fn later_slices_with_another_time_are_the_rest_of_their_picture() {
    // `h264parse config-interval=-1` outputs NAL units one by one. The later ones have the time of the next picture; those of a
    // key frame have the parameter sets repeated in front of them.
    let mut w = Writer::head(1);
    let mut begins = Vec::new();
    for n in 0..6u32 {
        let (flag, slice) = if n % 3 == 0 { (0x17, 0x65) } else { (0x27, 0x41) };
        let (first, second) = (n * 100, n * 100 + 100);
        begins.push(coded(&mut w, first, 0x27, &[&[9, 0xf0]]));
        coded(&mut w, first, flag, &[&[slice, 0x88, 1, 2]]);
        if n % 3 == 0 {
            coded(&mut w, second, flag, &[SPS_2]);
            coded(&mut w, second, flag, &[PPS_2]);
        }
        coded(&mut w, second, flag, &[&[slice, 0x20, 1, 2]]);
    }
    let marks = scan(&w.bytes);
    let kinds = [Key::Closed, Key::No, Key::No].into_iter().cycle();
    let expected: Vec<_> = begins.iter().zip(kinds).map(|(&at, key)| (at, Track::Video, key)).collect();
    assert_eq!(outline(&marks), expected);
    assert_eq!(ends(&marks), [begins[1], begins[4]]);
    // Slices in any order. Behind a delimiter the first slice received begins the picture. Without a delimiter a slice begins a
    // picture if the previous picture did not begin with its first slice.
    for delimiter in [&[&[9, 0xf0][..]][..], &[]] {
        let mut w = Writer::head(1);
        let later: &[u8] = &[0x65, 0x20, 1, 2];
        let begins = [0, 40, 80].map(|ms| coded(&mut w, ms, 0x17, &[delimiter, &[later]].concat()));
        assert_eq!(outline(&scan(&w.bytes)), begins.map(|at| (at, Track::Video, Key::Closed)));
    }
}
