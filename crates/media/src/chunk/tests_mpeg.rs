//! Transport streams of MPEG-2 and MPEG-4 part 2, as encoders and muxers write them by default, and of formats that are not
//! parsed.

use super::tests::{Bucket, LIMITS, S, run};
use super::*;
use crate::container::mpegts::tests::writer::{VIDEO, Writer, mpeg2_field, mpeg4_layer, mpeg4_vop, pes};

/// A picture every 100 ms for so many seconds, of a stream type.
fn stream(stream_type: u8, seconds: u64, picture: impl Fn(u64) -> Vec<u8>) -> Vec<u8> {
    let mut w = Writer::new();
    w.pat();
    match stream_type {
        2 => w.pmt(0, &[(2, VIDEO, &[])]),
        _ => w.pmt(0, &[(0x10, VIDEO, &[])]),
    };
    for n in 0..seconds * 10 {
        w.pes(VIDEO, 0xe0, Some(n * 9000), &picture(n));
    }
    w.out
}

fn seconds(bucket: &Bucket) -> Vec<u64> {
    bucket.info.values().map(|info| (info.duration + S / 2) / S).collect()
}

#[test]
fn mpeg_4_without_a_flag_for_random_access_is_cut_at_its_key_pictures() {
    let input = stream(0x10, 35, |n| match n % 10 {
        0 => [mpeg4_layer(1), mpeg4_vop(0, 300)].concat(),
        _ => mpeg4_vop(1, 100),
    });
    let bucket = run(LIMITS, &[&input]);
    assert_eq!(bucket.joined(), input);
    assert_eq!(seconds(&bucket), [10, 10, 10, 5]);
    assert!(bucket.info.values().all(|info| info.key_frame));
    assert_eq!((bucket.warnings, bucket.gaps), (vec![], vec![]));
}

#[test]
fn mpeg_4_without_its_layer_is_reported_once_by_its_name() {
    let input = stream(0x10, 35, |n| mpeg4_vop(u8::from(n % 10 > 0), 300));
    let bucket = run(LIMITS, &[&input]);
    assert_eq!(bucket.joined(), input);
    assert_eq!(bucket.warnings, [Warning::NoObjectLayer]);
}

#[test]
fn mpeg_2_with_one_sequence_header_is_cut_at_its_groups_and_reported_once_by_its_name() {
    let input = stream(2, 75, |n| {
        let picture = mpeg2_field(n % 5 == 0, u8::try_from(n % 5).unwrap(), false, 100);
        picture[if n > 0 && n % 5 == 0 { 22 } else { 0 }..].to_vec()
    });
    let bucket = run(LIMITS, &[&input]);
    assert_eq!(bucket.joined(), input);
    assert_eq!(seconds(&bucket), [26, 10, 10, 10, 10, 10]);
    assert_eq!((bucket.warnings, bucket.gaps), (vec![Warning::NoSequenceHeader], vec![]));
}

/// Writes VVC, a picture every 100 ms, numbers `from..to`. With `flagged` the first of every second has
/// random_access_indicator.
fn vvc(from: u64, to: u64, flagged: bool) -> Vec<u8> {
    let mut w = Writer::new();
    w.pat();
    w.pmt(0, &[(0x33, VIDEO, &[])]);
    for n in from..to {
        let flags = if flagged && n % 10 == 0 { 0x40 } else { 0 };
        w.packet(VIDEO, true, flags, &pes(0xe0, Some(n * 9000), &[0x5a; 100]));
    }
    w.out
}

#[test]
fn a_format_that_is_not_parsed_is_stored_although_nothing_is_flagged() {
    for (seconds_in_all, lengths) in [(12, vec![12]), (75, vec![30, 30, 15])] {
        let input = vvc(0, seconds_in_all * 10, false);
        for slice in [188, 100_000] {
            let slices: Vec<&[u8]> = input.chunks(slice).collect();
            let bucket = run(LIMITS, &slices);
            assert_eq!(bucket.joined(), input);
            assert_eq!(bucket.gaps, [], "nothing is lost");
            assert_eq!(seconds(&bucket), lengths);
            assert_eq!(bucket.info[&0].pts_start, Some(0));
            assert!(bucket.info.values().all(|info| !info.key_frame));
        }
    }
}

#[test]
fn a_format_that_is_not_parsed_begins_with_the_first_picture_that_is_flagged() {
    for slice in [188, 100_000] {
        let input = vvc(3, 120, true);
        let slices: Vec<&[u8]> = input.chunks(slice).collect();
        let bucket = run(LIMITS, &slices);
        // The tables stand in front of what was joined in the middle.
        assert!(
            matches!(bucket.gaps[..], [(GapReason::Start, bytes)] if bytes == 9 * 188),
            "{:?}",
            bucket.gaps
        );
        assert!(bucket.info.values().all(|info| info.key_frame));
        assert_eq!(bucket.info[&0].pts_start, Some(S));
        assert_eq!(bucket.warnings, []);
    }
}
