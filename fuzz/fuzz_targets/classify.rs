//! The classification of the beginning of a picture stands, however much follows; a complete picture always gets one.
#![no_main]

use gcstreamer_media::container::nal::{Framing, VideoCodec, classify, find_start_code};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Some((&choice, picture)) = data.split_first() else {
        return;
    };
    let codec = match choice & 7 {
        0 | 6 => VideoCodec::H264,
        1 | 7 => VideoCodec::H265,
        2 => VideoCodec::Vp8,
        3 => VideoCodec::Vp9,
        4 => VideoCodec::Av1,
        _ => VideoCodec::Unknown,
    };
    let framing = match choice >> 3 & 3 {
        0 => Framing::AnnexB,
        1 => Framing::Length(1),
        2 => Framing::Length(2),
        _ => Framing::Length(4),
    };
    let flagged = choice & 0x80 != 0;
    let verdict = classify(codec, framing, picture, true, flagged).expect("a complete picture is classified");
    if let Some((at, len)) = verdict.sps {
        assert!(at + len <= picture.len(), "the SPS is outside of the picture");
    }
    for n in (0..picture.len()).step_by(picture.len() / 64 + 1) {
        if let Some(early) = classify(codec, framing, &picture[..n], false, flagged) {
            assert_eq!(early, verdict, "{n} bytes of {} gave another verdict", picture.len());
        }
    }
    if let Some(at) = find_start_code(picture, 0) {
        assert!(picture.get(at..).is_some());
    }
});
