//! Pictures of VP8, VP9 and AV1 in each container that has them.

use bytes::Bytes;

use super::super::Container;
use super::super::flv::test_stream as tags;
use super::super::fmp4::test_stream as mp4;
use super::super::matroska::tests as mkv;
use super::av1::Av1;
use super::sps::Size;
use super::vpx::{Vp9, VpConfig};
use super::{Codec, SampleTrack, read};

/// Key frames of 320x180: of VP9 with BT.601, of VP8, and of AV1 with its sequence header.
const VP9: &[u8] = &[0x82, 0x49, 0x83, 0x42, 0x20, 0x13, 0xf0, 0x0b, 0x34, 0, 1, 2];
const VP9_INTER: &[u8] = &[0x86, 0, 0x40, 0x92, 0x9c];
const VP8: &[u8] = &[0x50, 0x22, 0, 0x9d, 0x01, 0x2a, 0x40, 0x01, 0xb4, 0x00, 7];
const VP8_INTER: &[u8] = &[0x31, 2, 0, 1];
const SEQUENCE: &[u8] = &[0x0a, 0x0b, 0, 0, 0, 4, 0x3c, 0xfe, 0xcc, 0xda, 0xf9, 0, 0x40];
const AV1: &[u8] = &[0x32, 2, 0x10, 9];
const AV1_INTER: &[u8] = &[0x32, 2, 0x30, 9];
const DELIMITER: &[u8] = &[0x12, 0];

const SIZE: Size = Size { width: 320, height: 180 };
/// What the container says where there is no key frame.
const STATED: Size = Size { width: 640, height: 360 };

fn vp9(size: Option<Size>, config: VpConfig) -> Codec {
    Codec::Vp9(Vp9 { size, config })
}

fn video(container: Container, chunk: Vec<u8>) -> SampleTrack {
    read(container, &Bytes::from(chunk), None).unwrap().video.unwrap()
}

fn webm(id: &str, private: &[u8], frames: &[&[u8]]) -> SampleTrack {
    let size = [mkv::el(0xB0, &[2, 128]), mkv::el(0xBA, &[1, 104])].concat();
    let head = mkv::head_of(&[&mkv::track(1, 1, id, private, &mkv::el(0xE0, &size))]);
    let blocks: Vec<Vec<u8>> = (0..).zip(frames).map(|(n, frame)| mkv::video(n * 40, frame)).collect();
    video(Container::WebM, [head, mkv::open_cluster(0, &blocks).0].concat())
}

fn flv(four_cc: &[u8; 4], record: Option<&[u8]>, frames: &[&[u8]]) -> SampleTrack {
    let mut w = tags::Writer::new(1);
    if let Some(record) = record {
        w.tag(9, 0, &[&[0x90][..], four_cc, record].concat());
    }
    for (n, frame) in (0..).zip(frames) {
        // Flagged as a key frame, whether it is one or not.
        w.tag(9, n * 40, &[&[0x91][..], four_cc, frame].concat());
    }
    video(Container::Flv, w.bytes)
}

fn fmp4(format: &[u8; 4], boxes: &[u8], frames: &[&[u8]]) -> SampleTrack {
    let mut entry = mp4::visual(format, boxes);
    entry[32..36].copy_from_slice(&[2, 128, 1, 104]);
    let sample = |frame: &&[u8]| mp4::Sample {
        data: frame.to_vec(),
        ..mp4::idr()
    };
    let samples: Vec<_> = frames.iter().map(sample).collect();
    video(
        Container::Fmp4,
        [mp4::head(&[mp4::Trak::video(entry)]), mp4::video(0, &samples)].concat(),
    )
}

#[test]
fn vp9_is_set_up_by_its_key_frame_and_what_the_container_adds() {
    let coded = VpConfig {
        level: 20,
        colours: [5, 6, 5],
        ..VpConfig::default()
    };
    let frames = [VP9, VP9_INTER];
    // Features: level 3.1, and where the samples of colour lie. A record says the same, and BT.709.
    let (features, stated) = ([2, 1, 31, 4, 1, 0], [1, 0, 0, 0, 0, 31, 0x80, 1, 1, 1, 0, 0]);
    let with_features = VpConfig {
        level: 31,
        chroma: 0,
        ..coded
    };
    let with_record = VpConfig {
        colours: [1, 1, 1],
        ..with_features
    };
    let vpcc = mp4::boxed(b"vpcC", &[&stated]);
    for (what, track, config) in [
        ("WebM", webm("V_VP9", &[], &frames), coded),
        ("WebM with features", webm("V_VP9", &features, &frames), with_features),
        ("FLV", flv(b"vp09", None, &frames), coded),
        ("FLV with a record", flv(b"vp09", Some(&stated), &frames), with_record),
        ("MP4 without a record", fmp4(b"vp09", &[], &frames), coded),
        ("MP4", fmp4(b"vp09", &vpcc, &frames), with_record),
    ] {
        assert_eq!(track.codec, vp9(Some(SIZE), config), "{what}");
        let samples: Vec<_> = track.samples.iter().map(|s| (s.key, &s.data[..])).collect();
        assert_eq!(samples, [(true, VP9), (false, VP9_INTER)], "{what}");
    }
}

#[test]
fn without_a_key_frame_the_container_alone_counts() {
    let guessed = VpConfig {
        level: 30,
        ..VpConfig::default()
    };
    assert_eq!(webm("V_VP9", &[], &[VP9_INTER]).codec, vp9(Some(STATED), guessed));
    assert_eq!(fmp4(b"vp08", &[], &[VP8_INTER]).codec, Codec::Vp8(Some(STATED)));
    assert_eq!(flv(b"vp08", None, &[VP8_INTER]).codec, Codec::Vp8(None));
    assert_eq!(flv(b"av01", None, &[AV1_INTER]).codec, Codec::Av1(Av1::default()));
}

#[test]
fn vp8_has_the_size_of_its_key_frame_in_each_container() {
    for track in [
        webm("V_VP8", &[], &[VP8, VP8_INTER]),
        flv(b"vp08", None, &[VP8, VP8_INTER]),
        fmp4(b"vp08", &[], &[VP8, VP8_INTER]),
    ] {
        assert_eq!(track.codec, Codec::Vp8(Some(SIZE)));
        assert_eq!(track.samples.iter().map(|s| s.key).collect::<Vec<_>>(), [true, false]);
    }
}

#[test]
fn av1_is_set_up_by_its_record_or_its_sequence_header_and_has_no_delimiters() {
    let key = [DELIMITER, SEQUENCE, AV1].concat();
    let inter = [DELIMITER, AV1_INTER].concat();
    let frames = [&key[..], &inter, DELIMITER];
    let made = [&[0x81, 0, 0x0c, 0][..], SEQUENCE].concat();
    let stated = [0x81, 0x08, 0x0e, 0];
    let av1c = mp4::boxed(b"av1C", &[&stated]);
    for (what, track, record) in [
        ("Matroska", webm("V_AV1", &[], &frames), &made[..]),
        ("Matroska with a record", webm("V_AV1", &stated, &frames), &stated),
        ("FLV", flv(b"av01", None, &frames), &made),
        ("FLV with a record", flv(b"av01", Some(&stated), &frames), &stated),
        ("MP4 without a record", fmp4(b"av01", &[], &frames), &made),
        ("MP4", fmp4(b"av01", &av1c, &frames), &stated),
    ] {
        let av1 = Av1 {
            size: Some(SIZE),
            record: Some(Bytes::copy_from_slice(record)),
        };
        assert_eq!(track.codec, Codec::Av1(av1), "{what}");
        let samples: Vec<_> = track.samples.iter().map(|s| (s.key, s.data.to_vec())).collect();
        assert_eq!(
            samples,
            [(true, [SEQUENCE, AV1].concat()), (false, AV1_INTER.to_vec())],
            "{what}"
        );
    }
}
