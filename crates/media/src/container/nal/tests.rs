//! Tests of the module above.

use super::*;

fn h264(data: &[u8]) -> Key {
    classify(VideoCodec::H264, Framing::AnnexB, data, true, false).unwrap().key
}

#[test]
fn an_idr_is_a_key_and_an_i_slice_is_none() {
    assert_eq!(h264(&[0, 0, 0, 1, 9, 0xf0, 0, 0, 1, 0x65, 0x88]), Key::Closed);
    assert_eq!(h264(&[0, 0, 0, 1, 9, 0xf0, 0, 0, 1, 0x61, 0x88]), Key::No);
}

#[test]
fn a_recovery_point_counts_only_with_frame_cnt_0() {
    // recovery_frame_cnt ue(v): '1' = 0; '00100' = 3.
    assert_eq!(h264(&[0, 0, 1, 6, 6, 1, 0b1100_0000, 0x80, 0, 0, 1, 0x41, 0x9a]), Key::Open);
    assert_eq!(h264(&[0, 0, 1, 6, 6, 1, 0b0010_0100, 0x80, 0, 0, 1, 0x41, 0x9a]), Key::No);
}

#[test]
fn length_framing_waits_for_the_slice_however_it_is_cut() {
    let mut au = Vec::new();
    for nal in [
        &[0x67, 0x64, 0, 40][..],
        &[0x68, 1],
        &[6, 5, 3, 1, 2, 3, 0x80],
        &[0x65, 1, 2, 3],
    ] {
        au.extend_from_slice(&u32::try_from(nal.len()).unwrap().to_be_bytes());
        au.extend_from_slice(nal);
    }
    let whole = classify(VideoCodec::H264, Framing::Length(4), &au, true, false).unwrap();
    assert_eq!(whole.key, Key::Closed);
    assert!(whole.has_parameter_sets);
    assert_eq!(whole.sps, Some((4, 4)));
    for cut in 0..au.len() {
        let part = classify(VideoCodec::H264, Framing::Length(4), &au[..cut], false, false);
        assert!(part.is_none() || part == Some(whole), "cut at {cut}: {part:?}");
    }
}

#[test]
fn h265_irap_pictures_are_keys_and_cra_is_open() {
    let key = |t: u8| {
        classify(VideoCodec::H265, Framing::AnnexB, &[0, 0, 1, t << 1, 1], true, false)
            .unwrap()
            .key
    };
    assert_eq!(key(19), Key::Closed);
    assert_eq!(key(20), Key::Closed);
    assert_eq!(key(21), Key::Open);
    assert_eq!(key(1), Key::No);
    assert_eq!(key(9), Key::No);
}

#[test]
fn vpx_and_av1_key_frames_are_told_apart() {
    let key = |codec, data: &[u8]| classify(codec, Framing::Length(4), data, true, false).unwrap().key;
    assert_eq!(key(VideoCodec::Vp8, &[0x10]), Key::Closed);
    assert_eq!(key(VideoCodec::Vp8, &[0x11]), Key::No);
    assert_eq!(key(VideoCodec::Vp9, &[0x82]), Key::Closed);
    assert_eq!(key(VideoCodec::Vp9, &[0x86]), Key::No);
    // temporal delimiter, sequence header (2 bytes), frame
    assert_eq!(key(VideoCodec::Av1, &[0x12, 0, 0x0a, 2, 0, 0, 0x32, 1, 0x10]), Key::Closed);
    assert_eq!(key(VideoCodec::Av1, &[0x12, 0, 0x32, 1, 0x30]), Key::No);
}

#[test]
fn an_empty_nal_unit_is_passed_over() {
    // The length of the one behind it looks like the header of a slice.
    let data = [&[0, 0, 0, 0][..], &[5, 0, 0, 1], &[0x67; 5000]].concat();
    let picture = classify(VideoCodec::H264, Framing::Length(4), &data[..4096], false, false);
    assert_eq!(picture, None, "no slice has come");
    let data = [0, 0, 0, 0, 0, 0, 0, 2, 0x65, 0x88];
    let picture = classify(VideoCodec::H264, Framing::Length(4), &data, true, false);
    assert_eq!(picture.unwrap().slice, Some(8));
    // Behind start codes it is what its first byte says, however much follows.
    let data = [0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0];
    let kind_of = |data, complete| classify(VideoCodec::H265, Framing::AnnexB, data, complete, false);
    assert_eq!(kind_of(&data[..8], false), kind_of(&data, true));
}

#[test]
fn a_changed_sps_changes_the_config_hash() {
    let au = |level: u8| [0, 0, 1, 0x67, 0x64, 0, level, 0, 0, 1, 0x68, 1, 0, 0, 1, 0x65, 1];
    let config = |level| {
        classify(VideoCodec::H264, Framing::AnnexB, &au(level), true, false)
            .unwrap()
            .config
    };
    assert_eq!(config(40), config(40));
    assert_ne!(config(40), config(31));
}
#[test]
fn parameter_sets_that_are_repeated_within_a_picture_are_no_new_configuration() {
    let sps = |level: u8| vec![0, 0, 1, 0x67, 0x64, 0, level];
    let config = |sets: &[Vec<u8>]| {
        let au = [&sets.concat()[..], &[0, 0, 1, 0x68, 1, 0, 0, 1, 0x65, 1]].concat();
        classify(VideoCodec::H264, Framing::AnnexB, &au, true, false).unwrap().config
    };
    assert_eq!(config(&[sps(40)]), config(&[sps(40), sps(40)]));
    assert_eq!(config(&[sps(40), sps(31)]), config(&[sps(31), sps(40), sps(31)]));
    assert_ne!(config(&[sps(40)]), config(&[sps(40), sps(31)]));
}
