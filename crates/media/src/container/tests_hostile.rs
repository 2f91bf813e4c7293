//! Tests wrong sizes in the input, and input made to cost much work.

use super::fields::tests::units as nals;
use super::flv::test_stream::Writer as Flv;
use super::fmp4::test_stream as mp4;
use super::matroska::tests as mkv;
use super::mpegts::tests::writer as ts;
use super::{Container, Mark, MarkKind, scanner_for, work};

/// Returns the marks of an input, and how many bytes were examined for each byte of it.
fn scan(container: Container, input: &[u8], slice: usize) -> (Vec<Mark>, u64) {
    let (mut scanner, mut marks) = (scanner_for(container), Vec::new());
    work::take();
    for slice in input.chunks(slice) {
        if scanner.push(slice, &mut marks).is_err() {
            break;
        }
    }
    scanner.finish(&mut marks);
    (marks, work::take() / input.len() as u64)
}

/// Marks that are the same however the input is sliced.
fn marks(container: Container, input: &[u8]) -> Vec<Mark> {
    let (whole, _) = scan(container, input, input.len());
    for slice in [5, 188, 4000] {
        assert!(scan(container, input, slice).0 == whole, "in slices of {slice}");
    }
    whole
}

fn keys(marks: &[Mark]) -> Vec<u64> {
    let is_key = |mark: &&Mark| matches!(&mark.kind, MarkKind::Unit(unit) if unit.key.is_key());
    marks.iter().filter(is_key).map(|mark| mark.at).collect()
}

fn at(marks: &[Mark], kind: &MarkKind) -> Vec<u64> {
    marks.iter().filter(|mark| mark.kind == *kind).map(|mark| mark.at).collect()
}

#[test]
fn an_flv_tag_that_claims_to_be_larger_than_it_is_ends_where_it_ends() {
    for bit in 15..22u32 {
        let mut w = Flv::head(1);
        w.picture(0, 0x65, true, 0);
        let lie = w.picture(40, 0x65, true, 0);
        let next = w.picture(80, 0x65, true, 0);
        for ms in 3..6000 {
            w.picture(ms * 40, 0x61, false, 0);
        }
        let size = usize::try_from(lie).unwrap() + 1;
        w.bytes[size + 2 - usize::try_from(bit / 8).unwrap()] ^= 1 << (bit % 8);
        let marks = marks(Container::Flv, &w.bytes);
        assert_eq!(keys(&marks)[1..], [lie, next], "bit {bit}");
        assert_eq!(at(&marks, &MarkKind::Damage), [next], "bit {bit}");
        assert_eq!(at(&marks, &MarkKind::PictureEnd)[1], next, "the preview is the picture");
        let pictures = marks.iter().filter(|m| matches!(&m.kind, MarkKind::Unit(_))).count();
        assert_eq!(pictures, 6000, "all of them");
    }
}

#[test]
fn a_large_picture_that_is_as_large_as_it_claims_is_no_damage() {
    let frame = nals(&[[&[0x65, 0x88][..], &vec![0x1f; 900_000]].concat()]);
    let mut flv = Flv::head(1);
    for ms in 0..3 {
        flv.tag(9, ms * 40, &[&[0x17, 1, 0, 0, 0][..], &frame].concat());
    }
    let (cluster, _) = mkv::open_cluster(0, &[mkv::video(0, &frame), mkv::video(40, &frame), mkv::video(80, &frame)]);
    let matroska = mkv::cat(&[&mkv::head(), &cluster]);
    let free = mp4::boxed(b"free", &[&vec![0x1f; 900_000]]);
    let one = |ms| mp4::video(ms, &[mp4::idr()]);
    let fmp4 = [&mp4::av_head()[..], &one(0), &free, &one(40), &free, &one(80)].concat();
    for (container, input) in [
        (Container::Flv, flv.bytes),
        (Container::Matroska, matroska),
        (Container::Fmp4, fmp4),
    ] {
        let marks = marks(container, &input);
        assert_eq!(keys(&marks).len(), 3, "{container:?}");
        assert!(at(&marks, &MarkKind::Damage).is_empty(), "{container:?}");
    }
}

#[test]
fn a_matroska_element_that_claims_to_be_larger_than_it_is_ends_at_the_next_cluster() {
    let (first, _) = mkv::open_cluster(0, &[mkv::video(0, mkv::IDR)]);
    let (second, _) = mkv::open_cluster(40, &[mkv::video(0, mkv::IDR)]);
    let head = mkv::head();
    // A block, a group, a Void; Tags between Clusters. 3 MiB and 20 MiB.
    for id in [&[0xA3][..], &[0xA0], &[0xEC], &[0x12, 0x54, 0xC3, 0x67]] {
        for size in [3u64 << 20, 20 << 20] {
            let size = (size | 1 << 56).to_be_bytes();
            let body = mkv::block(1, 40, 0x80, mkv::SLICE);
            let body = if id == [0xA0] { mkv::el(0xA1, &body) } else { body };
            let lie = mkv::cat(&[id, &size, &body]);
            let many = second.repeat(30_000);
            let input = mkv::cat(&[&head, &first, &lie, &many]);
            let begin = (head.len() + first.len() + lie.len()) as u64;
            let (marks, _) = scan(Container::Matroska, &input, 4000);
            assert!(marks == scan(Container::Matroska, &input, 1 << 20).0);
            assert_eq!(at(&marks, &MarkKind::Damage), [begin], "{id:x?}");
            assert_eq!(keys(&marks)[1], begin, "{id:x?}");
        }
    }
}

#[test]
fn an_fmp4_box_that_claims_to_be_larger_than_it_is_ends_at_the_next_fragment() {
    let head = mp4::av_head();
    let (first, next) = (mp4::video(0, &[mp4::idr()]), mp4::video(40, &[mp4::idr()]));
    let many = next.repeat(5000);
    for kind in [b"free", b"skip", b"mfra", b"styp", b"emsg", b"uuid", b"mdat"] {
        let size: u32 = if matches!(kind, b"styp" | b"emsg" | b"uuid") {
            3 << 20
        } else {
            1 << 30
        };
        let lie = [&size.to_be_bytes()[..], kind, &[0x55; 30]].concat();
        let input = [&head[..], &first, &lie, &many].concat();
        let marks = marks(Container::Fmp4, &input);
        let begin = (head.len() + first.len() + lie.len()) as u64;
        let name = String::from_utf8_lossy(kind);
        assert_eq!(at(&marks, &MarkKind::Damage), [begin], "{name}");
        assert_eq!(keys(&marks)[1], begin, "{name}");
        assert_eq!(keys(&marks).len(), 5001, "{name}");
    }
}

/// Maximum number of bytes that may be examined for each byte of the input.
const MOST: u64 = 40;

fn assert_bounded(what: &str, container: Container, input: &[u8]) {
    for slice in [16, 188, 1400, input.len()] {
        let (_, work) = scan(container, input, slice);
        assert!(
            work <= MOST,
            "{what}: {work} bytes of work for each byte, in slices of {slice}"
        );
    }
}

/// A picture whose slice never comes, in so many NAL units of SEI.
fn endless_sei(units: usize, each: usize) -> Vec<Vec<u8>> {
    vec![[&[6, 5][..], &vec![0xff; each]].concat(); units]
}

#[test]
fn hostile_flv_costs_a_bounded_number_of_looks_at_each_byte() {
    for (units, each) in [(1, 400_000), (40_000, 8), (1, 900_000)] {
        let mut w = Flv::head(1);
        w.tag(9, 0, &[&[0x17, 1, 0, 0, 0][..], &nals(&endless_sei(units, each))].concat());
        w.picture(40, 0x65, true, 0);
        assert_bounded("SEI", Container::Flv, &w.bytes);
    }
    // Tags of a reserved type that claim to hold 1 MiB each, and the start of others in them.
    let mut w = Flv::head(1);
    w.picture(0, 0x65, true, 0);
    let audio = [8, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0xaf, 0, 0, 0, 0];
    let reserved = [0x0f, 0x0f, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0];
    w.bytes.extend([&audio[..], &reserved].concat().repeat(80_000));
    assert_bounded("reserved tags", Container::Flv, &w.bytes);
    // A script tag in the head that is damage, full of tags of sound.
    let mut w = Flv::head(1);
    w.tag(18, 0, &audio.repeat(20_000));
    let last = w.bytes.len() - 1;
    w.bytes[last] ^= 1;
    w.picture(0, 0x65, true, 0);
    assert_bounded("a damaged script", Container::Flv, &w.bytes);
    // Parameter sets in tags of their own, without a picture.
    let mut w = Flv::head(1);
    for ms in 0..4000 {
        w.tag(9, ms, &[&[0x27, 1, 0, 0, 0][..], &nals(&[vec![9; 3]])].concat());
    }
    assert_bounded("delimiters", Container::Flv, &w.bytes);
    // What looks like a tag at every byte, and sizes that are lies.
    assert_bounded("9 9 9", Container::Flv, &[&Flv::head(1).bytes[..], &[9; 300_000]].concat());
    let mut w = Flv::head(1);
    for ms in 0..2000 {
        let at = usize::try_from(w.picture(ms, 0x61, false, 0)).unwrap();
        w.bytes[at + 1] = 0x3f;
    }
    assert_bounded("sizes", Container::Flv, &w.bytes);
}

#[test]
fn hostile_transport_streams_cost_a_bounded_number_of_looks_at_each_byte() {
    let annexb = |nals: &[Vec<u8>]| {
        nals.iter()
            .flat_map(|nal| [&[0, 0, 1][..], nal].concat())
            .collect::<Vec<u8>>()
    };
    for (units, each) in [(1, 400_000), (40_000, 8)] {
        let mut w = ts::Writer::new();
        w.tables();
        w.pes(ts::VIDEO, 0xe0, Some(0), &annexb(&endless_sei(units, each)));
        w.picture(3600, true, 10);
        assert_bounded("SEI", Container::MpegTs, &w.out);
    }
    let mut w = ts::Writer::new();
    w.tables();
    for n in 0..3000 {
        w.pes(ts::VIDEO, 0xe0, Some(n), &[0, 0, 1, 9, 0xf0]);
    }
    assert_bounded("delimiters", Container::MpegTs, &w.out);
    // No start code behind the rest of a picture, for long.
    let mut w = ts::Writer::new();
    w.tables();
    w.pes(ts::VIDEO, 0xe0, Some(0), &vec![0x77; 700_000]);
    assert_bounded("no start code", Container::MpegTs, &w.out);
    // Packets with several pictures are read to their end: here the first picture is followed by beginnings without a picture.
    for (name, kind, picture, begin) in [
        ("delimiters in a packet", 0x1b, ts::p_slice(9), &[0, 0, 1, 9][..]),
        (
            "sequences in a packet",
            2,
            ts::mpeg2_field(false, 1, false, 9),
            &[0, 0, 1, 0xb3][..],
        ),
    ] {
        let mut w = ts::Writer::new();
        w.pat();
        w.pmt(0, &[(kind, ts::VIDEO, &[])]);
        let other = if kind == 2 {
            ts::mpeg2_field(false, 2, false, 9)
        } else {
            picture.clone()
        };
        for n in 0..3 {
            w.pes(ts::VIDEO, 0xe0, Some(n), &[&picture[..], &other].concat());
        }
        w.pes(ts::VIDEO, 0xe0, Some(4), &[&picture[..], &begin.repeat(40_000)].concat());
        assert_bounded(name, Container::MpegTs, &w.out);
    }
    assert_bounded("sync bytes", Container::MpegTs, &[0x47; 300_000]);
    let mut w = ts::Writer::new();
    for _ in 0..4000 {
        w.pat_of(&[(1, 0x20), (2, 0x21), (3, 0x22)]);
    }
    assert_bounded("tables", Container::MpegTs, &w.out);
}

#[test]
fn hostile_matroska_costs_a_bounded_number_of_looks_at_each_byte() {
    for (units, each) in [(1, 400_000), (40_000, 8), (1, 900_000)] {
        let (cluster, _) = mkv::open_cluster(0, &[mkv::video(0, &nals(&endless_sei(units, each)))]);
        assert_bounded("SEI", Container::Matroska, &mkv::cat(&[&mkv::head(), &cluster]));
    }
    let delimiters: Vec<_> = (0..4000).map(|ms| mkv::video(ms, &nals(&[vec![9; 3]]))).collect();
    let (cluster, _) = mkv::open_cluster(0, &delimiters);
    assert_bounded("delimiters", Container::Matroska, &mkv::cat(&[&mkv::head(), &cluster]));
    // Tracks that are damage as a whole, and in which a head could begin at every byte.
    let damaged = mkv::el(0x1654_AE6B, &[0x1f; 400_000]);
    let whole = mkv::head();
    let before = whole.windows(4).position(|w| w == [0x16, 0x54, 0xAE, 0x6B]).unwrap();
    let (cluster, _) = mkv::open_cluster(0, &[mkv::video(0, mkv::IDR)]);
    let input = mkv::cat(&[&whole[..before], &damaged, &cluster]);
    assert_bounded("damaged Tracks", Container::Matroska, &input);
    assert_bounded(
        "damaged Tracks later",
        Container::Matroska,
        &mkv::cat(&[&whole, &cluster, &damaged, &cluster]),
    );
    let begins = [0x1F, 0x43, 0xB6, 0x75].repeat(60_000);
    assert_bounded("Clusters", Container::Matroska, &mkv::cat(&[&mkv::head(), &begins]));
    let tracks = mkv::el(0x1654_AE6B, &mkv::track(1, 2, "A_AAC", &[], &[]).repeat(200));
    let (cluster, _) = mkv::open_cluster(0, &[mkv::video(0, mkv::IDR)]);
    let again = mkv::cat(&[&mkv::head(), &cluster, &tracks.repeat(40)]);
    assert_bounded("Tracks", Container::Matroska, &again);
}

#[test]
fn hostile_fmp4_costs_a_bounded_number_of_looks_at_each_byte() {
    for (units, each) in [(1, 400_000), (40_000, 8), (1, 900_000)] {
        let sample = mp4::Sample {
            data: nals(&endless_sei(units, each)),
            ..mp4::idr()
        };
        assert_bounded("SEI", Container::Fmp4, &[mp4::av_head(), mp4::video(0, &[sample])].concat());
    }
    // Fragments in fragments, each of which claims to hold all that follow.
    let one = mp4::video(0, &[mp4::idr()]);
    let mut nested = one.repeat(2000);
    let len = nested.len();
    for at in (0..len).step_by(one.len()) {
        nested[at..at + 4].copy_from_slice(&u32::try_from(len - at).unwrap().to_be_bytes());
    }
    assert_bounded("fragments", Container::Fmp4, &[&mp4::av_head()[..], &nested].concat());
    let lies = [&(1u32 << 30).to_be_bytes()[..], b"free", &[0; 40]].concat().repeat(4000);
    assert_bounded("boxes", Container::Fmp4, &[&mp4::av_head()[..], &lies].concat());
    let moov = mp4::head(&[mp4::Trak::video(mp4::avc(40))]).repeat(300);
    assert_bounded("heads", Container::Fmp4, &[&mp4::av_head()[..], &moov].concat());
}
