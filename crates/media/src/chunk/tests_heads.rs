//! Heads that are replaced or rejected, and fragments too long to be cut: no byte is lost without a word.

use super::tests::{LIMITS, S, run};
use super::*;
use crate::container::flv::test_stream::{AVC_2, Writer};
use crate::container::fmp4::test_stream as mp4;
use crate::container::matroska::tests as mkv;

fn pictures(from: u64) -> Vec<u8> {
    (0..3).flat_map(|i| mp4::video(from + i * 40, &[mp4::idr()])).collect()
}

/// A head whose `moov` cannot be read.
fn broken_head() -> Vec<u8> {
    [mp4::ftyp(), mp4::boxed(b"moov", &[&mp4::boxed(b"trak", &[&[0xff; 4]])])].concat()
}

#[test]
fn bytes_of_a_head_that_is_replaced_or_rejected_are_a_gap_for_the_configuration() {
    let first = mp4::head(&[mp4::Trak::video(mp4::avc(31))]);
    let replaced = [&first[..], &mp4::av_head(), &pictures(0)].concat();
    let rejected = [&mp4::av_head()[..], &broken_head(), &pictures(0)].concat();
    for (input, lost) in [(replaced, first.len()), (rejected, mp4::ftyp().len())] {
        let bucket = run(LIMITS, &[&input]);
        assert_eq!(bucket.gaps, [(GapReason::Config, lost as u64)]);
        assert_eq!(bucket.info[&0].gap, Some(GapReason::Config));
        assert_eq!(bucket.joined().len() + lost, input.len());
    }
}

#[test]
fn bytes_of_a_head_that_is_replaced_before_a_stream_without_key_pictures_are_a_gap_too() {
    let first = mp4::head(&[mp4::Trak::video(mp4::avc(31))]);
    // Sound alone, to the end; and nothing but a second head.
    let sound = mp4::audio(0, 40);
    let bucket = run(LIMITS, &[&[&first[..], &mp4::av_head(), &sound].concat()]);
    assert_eq!(bucket.gaps, [(GapReason::Config, first.len() as u64)]);
    assert_eq!(bucket.info.len(), 1);
}

#[test]
fn a_head_replaced_while_pictures_without_a_key_picture_were_dropped_is_lost_with_them() {
    let first = mp4::head(&[mp4::Trak::video(mp4::avc(31))]);
    let dropped: Vec<u8> = (0..3).flat_map(|i| mp4::video(i * 40, &[mp4::inter()])).collect();
    let input = [&first[..], &dropped, &mp4::av_head(), &pictures(200)].concat();
    let bucket = run(LIMITS, &[&input]);
    assert_eq!(bucket.gaps, [(GapReason::Start, (first.len() + dropped.len()) as u64)]);
    assert_eq!(bucket.joined(), input[first.len() + dropped.len()..]);
}

#[test]
fn a_configuration_that_changes_leaves_the_recording_continuous() {
    let mut flv = Writer::head(5);
    flv.picture(0, 0x65, true, 0);
    flv.tag(9, 1000, AVC_2);
    flv.picture(1000, 0x65, true, 0);
    let second = mp4::head(&[mp4::Trak::video(mp4::avc(31))]);
    let fmp4 = [&mp4::av_head()[..], &pictures(0), &second, &broken_head(), &pictures(200)].concat();
    for (input, rejected) in [(flv.bytes, false), (fmp4, true)] {
        let bucket = run(LIMITS, &[&input]);
        assert_eq!(bucket.joined(), input, "all of it is payload");
        assert_eq!(bucket.gaps, []);
        assert_eq!(bucket.info[&1].gap, None, "of the changed configuration");
        let damaged = bucket.info.values().any(|i| i.gap == Some(GapReason::Damage));
        assert_eq!(damaged, rejected);
    }
}

#[test]
fn a_fragment_more_than_twice_as_long_as_a_chunk_should_be_is_reported() {
    let limits = Limits {
        max_time: 2 * S,
        ..LIMITS
    };
    for (pictures, reported) in [(100, false), (323, true)] {
        let samples: Vec<_> = std::iter::once(mp4::idr()).chain(vec![mp4::inter(); pictures - 1]).collect();
        let bucket = run(limits, &[&[mp4::av_head(), mp4::video(0, &samples)].concat()]);
        let length = pictures as u64 * 40_000_000;
        let expected: &[Warning] = &[Warning::LongFragment(length)];
        assert_eq!(bucket.warnings, if reported { expected } else { &[] });
    }
}

#[test]
fn blocks_in_front_of_the_first_cluster_are_a_gap_and_no_header() {
    let avc = mkv::track(1, 1, "V_MPEG4/ISO/AVC", mkv::AVCC, &[]);
    let head = mkv::head_of(&[&avc]);
    let torn: Vec<u8> = (0..100)
        .flat_map(|n| mkv::video(n, &[mkv::SLICE, &[7; 300]].concat()))
        .collect();
    let (cluster, _) = mkv::open_cluster(5000, &[mkv::video(0, mkv::IDR), mkv::video(40, mkv::SLICE)]);
    let bucket = run(LIMITS, &[&[&head[..], &torn, &cluster].concat()]);
    assert_eq!(bucket.gaps, [(GapReason::Start, torn.len() as u64)]);
    assert_eq!(bucket.warnings, []);
    assert_eq!(bucket.joined(), [head, cluster].concat());
}
