//! Pictures that do not have exactly one tag, block, sample or PES packet each.

use bytes::Bytes;

use super::super::fields::tests::{field, interlaced_sps, units as lengths};
use super::super::mpegts::tests::writer::{self as ts, VIDEO, Writer};
use super::super::{Container, flv, fmp4};
use super::{Codec, Sample, read};

const SECOND: u64 = 90_000;
const SPS: [u8; 8] = [0x67, 0x64, 0, 0x28, 0xac, 0x2b, 0x40, 0x3c];
const PPS: [u8; 4] = [0x68, 0xee, 0x3c, 0x80];

fn slice(nal: u8, first: bool, fill: u8, size: usize) -> Vec<u8> {
    let mut unit = vec![nal, if first { 0x88 } else { 0x40 }];
    unit.resize(size, fill);
    unit
}

fn annexb(nals: &[Vec<u8>]) -> Vec<u8> {
    nals.iter().flat_map(|nal| [&[0, 0, 0, 1][..], nal].concat()).collect()
}

/// Two slices of a key frame with its parameter sets, and two of another picture.
fn pictures() -> [Vec<Vec<u8>>; 2] {
    [
        vec![
            vec![9, 0xf0],
            SPS.to_vec(),
            PPS.to_vec(),
            slice(0x65, true, 1, 300),
            slice(0x65, false, 2, 300),
        ],
        vec![vec![9, 0xf0], slice(0x41, true, 3, 300), slice(0x41, false, 4, 300)],
    ]
}

/// Times in seconds, keys, bytes.
fn outline(samples: &[Sample]) -> Vec<(i64, bool, &[u8])> {
    let seconds = |ns: i64| (ns + 500_000_000).div_euclid(1_000_000_000);
    samples.iter().map(|s| (seconds(s.pts), s.key, &s.data[..])).collect()
}

/// Where PES packets begin, each with the second of what begins in it.
type Cuts = Vec<(usize, Option<u64>)>;

/// The stream of those pictures, a second apart, cut into PES packets at these offsets, with the times of what begins there.
fn transport(cuts: &[(usize, Option<u64>)], stream: &[u8]) -> Bytes {
    let mut w = Writer::new();
    w.tables();
    for (n, &(from, second)) in cuts.iter().enumerate() {
        let to = cuts.get(n + 1).map_or(stream.len(), |next| next.0);
        w.pes(VIDEO, 0xe0, second.map(|second| second * SECOND), &stream[from..to]);
    }
    w.out.into()
}

#[test]
fn pictures_of_a_transport_stream_are_whole_however_they_lie_in_pes_packets() {
    let [key, other] = pictures();
    let (first, second, third) = (annexb(&key), annexb(&other), annexb(&key));
    let stream = [&first[..], &second, &third].concat();
    let (a, b) = (first.len(), first.len() + second.len());
    let at = |begin: usize, nals: &[Vec<u8>], n: usize| begin + annexb(&nals[..n]).len();
    let expected: Vec<Vec<u8>> = [&key, &other, &key].into_iter().map(|nals| lengths(nals)).collect();
    let aligned = vec![(0, Some(1)), (a, Some(2)), (b, Some(3))];
    let shapes: Vec<(&str, Cuts)> = vec![
        ("aligned", aligned),
        (
            "goes on without a time",
            vec![(0, Some(1)), (at(0, &key, 3) + 100, None), (a, Some(2)), (b, Some(3))],
        ),
        (
            "the rest in front of the next",
            vec![(0, Some(1)), (at(a, &other, 0) - 50, Some(2)), (b - 7, Some(3))],
        ),
        (
            "a packet for each slice",
            vec![
                (0, Some(1)),
                (at(0, &key, 4), Some(1)),
                (a, Some(2)),
                (at(a, &other, 2), Some(2)),
                (b, Some(3)),
                (at(b, &key, 4), Some(3)),
            ],
        ),
        (
            "what stands in front in packets of its own",
            vec![
                (0, Some(1)),
                (at(0, &key, 3), None),
                (a, Some(2)),
                (b, None),
                (at(b, &key, 3), Some(3)),
            ],
        ),
        ("two in a packet", vec![(0, Some(1)), (b, Some(3))]),
    ];
    for (name, cuts) in &shapes {
        let read = read(Container::MpegTs, &transport(cuts, &stream), Some(1_000_000_000)).unwrap();
        let samples = read.video.unwrap().samples;
        let expected: Vec<_> = expected
            .iter()
            .enumerate()
            .map(|(n, data)| (i64::try_from(n).unwrap() + 1, n != 1, &data[..]))
            .collect();
        assert_eq!(outline(&samples), expected, "{name}");
    }
    // At every byte in turn, start codes included.
    for cut in a + 1..b {
        let cuts = [(0, Some(1)), (a, Some(2)), (cut, None), (b, Some(3))];
        let samples = read(Container::MpegTs, &transport(&cuts, &stream), None)
            .unwrap()
            .video
            .unwrap()
            .samples;
        let data: Vec<&[u8]> = samples.iter().map(|s| &s.data[..]).collect();
        assert_eq!(data, expected, "cut at {}", cut - a);
    }
}

#[test]
fn both_fields_of_a_frame_are_one_picture() {
    let sps = interlaced_sps();
    let mut w = Writer::new();
    w.tables();
    let mut expected = Vec::new();
    for frame in 0..3u64 {
        let first = match frame {
            1 => vec![vec![9, 0xf0], field(0x41, false)],
            _ => vec![vec![9, 0xf0], sps.clone(), vec![0x68, 1], field(0x65, false)],
        };
        let second = vec![vec![9, 0xf0], field(0x41, true)];
        w.pes(VIDEO, 0xe0, Some((frame + 1) * SECOND), &annexb(&first));
        w.pes(VIDEO, 0xe0, Some((frame + 1) * SECOND + 1800), &annexb(&second));
        expected.push([lengths(&first), lengths(&second)].concat());
    }
    let samples = read(Container::MpegTs, &w.out.into(), None).unwrap().video.unwrap().samples;
    let data: Vec<&[u8]> = samples.iter().map(|s| &s.data[..]).collect();
    assert_eq!(data, expected);
    assert_eq!(samples.iter().map(|s| s.key).collect::<Vec<_>>(), [true, false, true]);
}

#[test]
fn of_several_programs_the_one_that_is_carried_is_read_and_of_several_streams_the_first_with_something() {
    let [key, _] = pictures();
    let mut w = Writer::new();
    w.pat_of(&[(7, 0x30), (1, ts::PMT), (2, 0x31)]);
    w.pmt(
        0,
        &[
            (0x1b, 0x180, &[]),
            (0x1b, VIDEO, &[]),
            (0x0f, 0x181, &[]),
            (6, ts::AUDIO, &[]),
        ],
    );
    w.pes(VIDEO, 0xe0, Some(SECOND), &annexb(&key));
    // AAC that the table calls private.
    let adts = [&[0xff, 0xf1, 0x4c, 0x80, 2, 0x1f, 0xfc][..], &[7; 9]].concat();
    w.pes(ts::AUDIO, 0xc0, Some(SECOND), &adts);
    w.pes(VIDEO, 0xe0, Some(2 * SECOND), &annexb(&key));
    let samples = read(Container::MpegTs, &w.out.into(), None).unwrap();
    assert_eq!(samples.video.unwrap().samples.len(), 2);
    let audio = samples.audio.unwrap();
    assert!(matches!(audio.codec, Codec::Aac(_)), "{:?}", audio.codec);
    assert_eq!(audio.samples.len(), 1);
}

/// An FLV of tags with these NAL units, each flagged as a key frame or not.
fn tags(tags: &[(u32, bool, &[Vec<u8>])]) -> Bytes {
    let mut w = flv::test_stream::Writer::new(1);
    w.tag(9, 0, flv::test_stream::AVC);
    for &(ms, flagged, nals) in tags {
        let kind = if flagged { 0x17 } else { 0x27 };
        w.tag(9, ms, &[&[kind, 1, 0, 0, 0][..], &lengths(nals)].concat());
    }
    w.bytes.into()
}

#[test]
fn a_flagged_picture_that_is_no_key_frame_is_none_and_the_parts_of_one_are_joined() {
    let [key, other] = pictures();
    let stream = tags(&[
        (0, true, &key[1..3]),
        (0, true, &key[3..4]),
        (0, true, &key[4..]),
        (40, true, &other),
        (80, false, &key),
    ]);
    let samples = read(Container::Flv, &stream, None).unwrap().video.unwrap().samples;
    assert_eq!(samples.iter().map(|s| s.key).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(samples[0].data, lengths(&key[1..]));
}

#[test]
fn start_codes_in_a_sample_become_lengths_and_times_go_on_from_fragment_to_fragment() {
    let [key, _] = pictures();
    let sample = |data| fmp4::test_stream::Sample {
        data,
        ..fmp4::test_stream::idr()
    };
    let head = fmp4::test_stream::av_head();
    let chunk = [
        &head[..],
        &fmp4::test_stream::video(0, &[sample(annexb(&key))]),
        &fmp4::test_stream::video(90_000, &[sample(lengths(&key))]),
    ]
    .concat();
    let samples = read(Container::Fmp4, &chunk.into(), None).unwrap().video.unwrap().samples;
    assert_eq!(samples.len(), 2);
    assert!(samples.iter().all(|s| s.key && s.data == lengths(&key)));
}

#[test]
fn runs_that_claim_billions_of_samples_without_a_byte_are_passed_over() {
    use fmp4::test_stream::{av_head, boxed, full, idr, video, words};
    // tfhd: default-base-is-moof, a default size of 0.
    let tfhd = boxed(b"tfhd", &[&words(&[0x02_0010, 1, 0])]);
    let trun = boxed(b"trun", &[&words(&[0, u32::MAX])]);
    let runs: Vec<&[u8]> = std::iter::once(&tfhd[..])
        .chain(std::iter::repeat_n(&trun[..], 10_000))
        .collect();
    let claims = boxed(b"moof", &[&full(b"mfhd", &[&words(&[1])]), &boxed(b"traf", &runs)]);
    let chunk = [av_head(), claims, video(40, &[idr()])].concat();
    let samples = read(Container::Fmp4, &chunk.into(), None).unwrap().video.unwrap().samples;
    assert_eq!(samples.len(), 1, "the picture behind them");
}

#[test]
fn aac_is_read_from_each_kind_of_sound_description() {
    use fmp4::test_stream::{Trak, aac, audio, avc, boxed, esds, head, idr, sound, video};
    // Behind the 28 bytes of every description QuickTime's version 1 has 16 more, and its `esds` lies in a `wave`.
    let mut quicktime = sound(
        b"mp4a",
        &[vec![0; 16], boxed(b"wave", &[&esds(0x40, &[0x12, 0x10])])].concat(),
    );
    quicktime[8 + 9] = 1;
    let mut iso = aac();
    iso[8 + 9] = 1;
    for (stsd_version, entry) in [(0, aac()), (0, quicktime), (1, iso)] {
        let mut chunk = [
            head(&[Trak::video(avc(40)), Trak::audio(entry)]),
            video(0, &[idr()]),
            audio(0, 3),
        ]
        .concat();
        let sound = chunk.windows(4).rposition(|kind| kind == b"stsd").unwrap();
        chunk[sound + 4] = stsd_version;
        let track = read(Container::Fmp4, &chunk.into(), None).unwrap().audio.unwrap();
        assert!(
            matches!(track.codec, Codec::Aac(_)),
            "version {stsd_version}: {:?}",
            track.codec
        );
    }
}

#[test]
fn slices_with_another_time_and_parameter_sets_in_front_are_joined_to_their_picture() {
    let [key, other] = pictures();
    let again = [vec![SPS.to_vec(), PPS.to_vec()], vec![slice(0x65, false, 2, 300)]].concat();
    let key = key.into_iter().take(4).chain(again).collect::<Vec<_>>();
    let mut w = Writer::new();
    w.tables();
    let mut parts = Vec::new();
    for n in 0..2u64 {
        for (begin, nals) in [(n * 2, &key), (n * 2 + 1, &other)] {
            for (i, nal) in nals.iter().enumerate() {
                // The later slice, and what stands in front of it, has the time of the next picture.
                let second = begin + u64::from(i >= nals.len() - if nals.len() > 3 { 3 } else { 1 });
                w.pes(VIDEO, 0xe0, Some(second * SECOND), &annexb(std::slice::from_ref(nal)));
                parts.push((u32::try_from(second).unwrap() * 1000, false, vec![nal.clone()]));
            }
        }
    }
    let whole = [lengths(&key), lengths(&other), lengths(&key), lengths(&other)];
    let expected: Vec<(i64, bool, &[u8])> = (0..).zip(&whole).map(|(n, data)| (n, n % 2 == 0, &data[..])).collect();
    let parts: Vec<(u32, bool, &[Vec<u8>])> = parts.iter().map(|(ms, key, nals)| (*ms, *key, &nals[..])).collect();
    for (container, chunk) in [(Container::MpegTs, w.out.into()), (Container::Flv, tags(&parts))] {
        let video = read(container, &chunk, None).unwrap().video.unwrap();
        assert_eq!(outline(&video.samples), expected, "{container:?}");
    }
}
