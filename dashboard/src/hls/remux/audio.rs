//! Places sound by counting its samples.
//!
//! PURE. FLV and Matroska round times to a millisecond, MPEG-TS to 11 µs. The beginning of a run of frames is the mean of what
//! the times of all its frames imply. So the rounding of a single time has no weight, and chunks join to within a sample or two.

use gcstreamer_media::container::samples::{Codec, Sample, SampleTrack};

use super::boxes::{self, Header, Kind};
use super::{Placed, RemuxError};

/// Sampling rates by samplingFrequencyIndex, ISO/IEC 14496-3 1.6.3.3.
const RATES: [u32; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8000, 7350,
];
/// A frame whose time differs from the expected one by more than this begins a new run, ns: something is missing.
const HOLE: i64 = 60_000_000;

/// How the length of a track's frames is known, in samples.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// All frames have this length.
    Fixed(u32),
    /// The first byte of each frame tells its length.
    Opus,
}

impl Frame {
    fn samples(self, data: &[u8]) -> u32 {
        match self {
            Self::Fixed(samples) => samples,
            Self::Opus => opus_samples(data),
        }
    }
}

/// Returns the samples of an Opus packet at 48 kHz, RFC 6716 3.1.
fn opus_samples(packet: &[u8]) -> u32 {
    let Some(&toc) = packet.first() else { return 960 };
    let frame = match toc >> 3 {
        config @ 0..12 => [480, 960, 1920, 2880][usize::from(config & 3)],
        config @ 12..16 => [480, 960][usize::from(config & 1)],
        config => [120, 240, 480, 960][usize::from(config & 3)],
    };
    let count = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => packet.get(1).map_or(1, |count| u32::from(count & 0x3f)),
    };
    frame * count
}

/// Returns the header of a track of sound, and how the length of its frames is known.
pub(super) fn header(track: &SampleTrack, id: u32) -> Result<(Header, Frame), RemuxError> {
    match &track.codec {
        Codec::Aac(config) => {
            let (rate, channels, frame) = aac(config).ok_or_else(|| RemuxError::Codec("AAC of an unknown rate".into()))?;
            let kind = Kind::Aac {
                config: config.clone(),
                rate,
                channels,
            };
            Ok((
                Header {
                    id,
                    timescale: rate,
                    kind,
                },
                Frame::Fixed(frame),
            ))
        }
        Codec::Opus(head) if !boxes::is_opus(head) => Err(RemuxError::Codec("Opus with a damaged header".into())),
        Codec::Opus(head) => Ok((
            Header {
                id,
                timescale: 48_000,
                kind: Kind::Opus(head.clone()),
            },
            Frame::Opus,
        )),
        Codec::Other(name) => Err(RemuxError::Codec(name.clone())),
        Codec::H264(_) | Codec::H265(_) | Codec::Vp8(_) | Codec::Vp9(_) | Codec::Av1(_) => {
            Err(RemuxError::Codec("pictures among the sound".into()))
        }
    }
}

/// Returns sampling rate, channels and samples per frame of an AudioSpecificConfig (14496-3 1.6.2.1).
pub(super) fn aac(config: &[u8]) -> Option<(u32, u16, u32)> {
    let &[first, second, ..] = config else { return None };
    let index = usize::from((first & 7) << 1 | second >> 7);
    let rate = *RATES.get(index)?;
    // ISO/IEC 14496-3 table 1.19: 7 means eight channels. With 0 a program_config_element names them, and decoders
    // read them there.
    let channels = match second >> 3 & 0xf {
        7 => 8,
        0 => 2,
        channels => u16::from(channels),
    };
    // frameLengthFlag: frames of 960 samples. In configurations with explicit HE-AAC signalling (object type 5 or 29) it comes
    // after the extension's rate and the inner object type (ISO/IEC 14496-3 1.6.2.1).
    let flag = match first >> 3 {
        5 | 29 => extended_flag(config)?,
        _ => second >> 2 & 1 == 1,
    };
    let frame = if flag { 960 } else { 1024 };
    Some((rate, channels, frame))
}

/// Returns the frameLengthFlag of a configuration of object type 5 or 29, which names the rate of its extension first.
fn extended_flag(config: &[u8]) -> Option<bool> {
    let bit = |at: usize| Some(config.get(at / 8)? >> (7 - at % 8) & 1);
    let index = (13..17).try_fold(0, |index, at| Some(index << 1 | bit(at)?))?;
    // Index 15: the rate itself follows in 24 bits.
    let type_at = if index == 15 { 17 + 24 } else { 17 };
    // A configuration that ends before the flag has frames of the usual length.
    Some(bit(type_at + 5).unwrap_or(0) == 1)
}

/// Places frames: within a run each begins where the one before ends.
pub(super) fn frames(samples: &[Sample], rate: u32, frame: Frame) -> Vec<Placed> {
    let lengths: Vec<u32> = samples.iter().map(|sample| frame.samples(&sample.data)).collect();
    let mut placed: Vec<Placed> = Vec::with_capacity(samples.len());
    let mut at = 0;
    while at < samples.len() {
        let run = run_length(&samples[at..], &lengths[at..], rate);
        let start = begin(&samples[at..at + run], &lengths[at..at + run], rate)
            .max(0)
            .unsigned_abs();
        // A run must not overlap the one before. The last frame of that one is extended to the beginning of this run.
        let start = placed
            .last()
            .map_or(start, |last| start.max(last.dts + u64::from(last.duration)));
        if let Some(last) = placed.last_mut() {
            last.duration = u32::try_from(start - last.dts).unwrap_or(u32::MAX);
        }
        let mut dts = start;
        for (sample, length) in samples.iter().zip(&lengths).skip(at).take(run) {
            placed.push(Placed {
                dts,
                duration: *length,
                composition: 0,
                key: true,
                data: sample.data.clone(),
            });
            dts += u64::from(*length);
        }
        at += run;
    }
    placed
}

/// Returns the number of frames from the first on that follow each other without a hole.
fn run_length(samples: &[Sample], lengths: &[u32], rate: u32) -> usize {
    let Some(first) = samples.first() else { return 0 };
    let mut expected = i128::from(first.pts);
    for (index, (sample, length)) in samples.iter().zip(lengths).enumerate() {
        if (i128::from(sample.pts) - expected).abs() > i128::from(HOLE) {
            return index.max(1);
        }
        expected += i128::from(*length) * 1_000_000_000 / i128::from(rate);
    }
    samples.len()
}

/// Returns where a run begins, in samples: the mean of what the times of its frames imply.
fn begin(samples: &[Sample], lengths: &[u32], rate: u32) -> i64 {
    let (mut sum, mut before) = (0i128, 0i128);
    for (sample, length) in samples.iter().zip(lengths) {
        sum += i128::from(sample.pts) * i128::from(rate) - before * 1_000_000_000;
        before += i128::from(*length);
    }
    let count = i128::try_from(samples.len().max(1)).unwrap_or(1);
    i64::try_from((sum / count + 500_000_000).div_euclid(1_000_000_000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn sound(ms: impl Iterator<Item = i64>) -> Vec<Sample> {
        ms.map(|ms| Sample {
            dts: ms * 1_000_000,
            pts: ms * 1_000_000,
            key: true,
            data: Bytes::from_static(b"x"),
        })
        .collect()
    }

    #[test]
    fn frames_rounded_to_milliseconds_lie_on_the_grid_and_chunks_meet() {
        // 44.1 kHz: a frame lasts 23.22 ms, FLV says 23 or 24.
        let time = |index: i64| 1000 + index * 1024 * 1000 / 44_100;
        let first = frames(&sound((0..430).map(time)), 44_100, Frame::Fixed(1024));
        let second = frames(&sound((430..861).map(time)), 44_100, Frame::Fixed(1024));
        assert!(first.windows(2).all(|pair| pair[1].dts - pair[0].dts == 1024));
        let end = first.last().unwrap().dts + 1024;
        assert!(second[0].dts.abs_diff(end) <= 2, "{} {end}", second[0].dts);
    }

    #[test]
    fn missing_frames_leave_a_hole_and_not_a_shift() {
        let placed = frames(&sound([0, 20, 40, 500, 520].into_iter()), 48_000, Frame::Fixed(960));
        let times: Vec<_> = placed.iter().map(|frame| (frame.dts, frame.duration)).collect();
        assert_eq!(times, [(0, 960), (960, 960), (1920, 22_080), (24_000, 960), (24_960, 960)]);
    }

    #[test]
    fn the_length_of_a_frame_is_read_behind_the_rate_of_an_extension() {
        // SBR from 8 to 16 kHz, mono, frames of 1024; the same of 960; plain AAC-LC of 48 kHz with 960.
        assert_eq!(aac(&[0x2d, 0x8c, 0x08, 0x00]), Some((8000, 1, 1024)));
        assert_eq!(aac(&[0x2d, 0x8c, 0x0a, 0x00]), Some((8000, 1, 960)));
        assert_eq!(aac(&[0x11, 0x94]), Some((48_000, 2, 960)));
        assert_eq!(aac(&[0x11, 0x90]), Some((48_000, 2, 1024)));
    }

    #[test]
    fn the_length_of_an_opus_packet_is_in_its_first_bytes() {
        assert_eq!(
            [&[0x78u8][..], &[0x98], &[0x03, 0x03], &[0xfc], &[]].map(opus_samples),
            [960, 960, 1440, 960, 960]
        );
    }
}
