//! Writes silence where sound pauses while pictures go on.
//!
//! PURE. A browser plays only the time that all tracks of its buffer cover, so it would skip pictures without sound. Silent
//! frames exist for AAC and Opus of one or two channels. They are constants: nothing is encoded here. Chunks without pictures are
//! left as they are.

use bytes::Bytes;

use super::boxes::{Header, Kind};
use super::{Placed, TrackOut, VIDEO_TICKS, audio};

/// A single_channel_element without spectral data, and ID_END. ISO/IEC 14496-3 4.4.2.1.
const AAC_MONO: &[u8] = &[0, 0, 0, 7];
/// A channel_pair_element of a common window without spectral data, and ID_END.
const AAC_STEREO: &[u8] = &[0x21, 0, 0, 0, 0, 0x1c];
/// 20 ms of CELT whose first symbol is the silence flag. RFC 6716 3.1 and 4.3.
const OPUS_MONO: &[u8] = &[0xf8, 0xff, 0xfe];
const OPUS_STEREO: &[u8] = &[0xfc, 0xff, 0xfe];
/// Samples in 20 ms at 48 kHz.
const OPUS_SAMPLES: u32 = 960;
/// Pauses up to this long at the edges of a chunk are not filled, seconds: muxers write sound up to this long before or after the
/// pictures of its time, so it is in the neighbouring chunk.
const SKEW: i64 = 1;
/// Most silent frames in a row, some 20 minutes.
const MAX_FRAMES: i64 = 1 << 16;

/// Fills the pauses of sound tracks within the time of the pictures. Does nothing if there are no pictures.
pub(super) fn fill(tracks: &mut [TrackOut]) {
    let pictures = tracks.iter().find(|track| track.header.is_video());
    let Some((first, last)) = pictures.and_then(|track| track.samples.first().zip(track.samples.last())) else {
        return;
    };
    // Decode times, since sound is shown at its decode time; pictures may be shown later than theirs.
    let (begin, end) = (first.dts, last.dts.saturating_add(last.duration.into()));
    for track in tracks.iter_mut().filter(|track| !track.header.is_video()) {
        let rate = u64::from(track.header.timescale);
        let scaled =
            |ticks: u64| i64::try_from(u128::from(ticks) * u128::from(rate) / u128::from(VIDEO_TICKS)).unwrap_or(i64::MAX);
        if let Some(silence) = Silence::of(&track.header) {
            silence.fill(
                &mut track.samples,
                scaled(begin),
                scaled(end),
                SKEW * i64::from(track.header.timescale),
            );
        }
    }
}

/// A silent frame, and its length in samples.
#[derive(Clone, Debug)]
struct Silence {
    data: Bytes,
    length: u32,
}

impl Silence {
    fn of(header: &Header) -> Option<Self> {
        let (data, length) = match &header.kind {
            Kind::Aac { config, .. } => {
                let (&[first, second, ..], (_, _, length)) = (&config[..], audio::aac(config)?) else {
                    return None;
                };
                // Object types 2, 5 and 29: AAC LC, alone or as the core of HE-AAC. The channels are those of the core.
                let data = match (first >> 3, second >> 3 & 0xf) {
                    (2 | 5 | 29, 1) => AAC_MONO,
                    (2 | 5 | 29, 2) => AAC_STEREO,
                    _ => return None,
                };
                (data, length)
            }
            Kind::Opus(head) => match head.get(9)? {
                1 => (OPUS_MONO, OPUS_SAMPLES),
                2 => (OPUS_STEREO, OPUS_SAMPLES),
                _ => return None,
            },
            Kind::Avc(_) | Kind::Hevc(_) | Kind::Vp8(_) | Kind::Vp9(..) | Kind::Av1(..) => return None,
        };
        let data = Bytes::from_static(data);
        Some(Self { data, length })
    }

    /// Fills `begin..end`, in samples. A hole inside shows as a frame that lasts until the next one.
    ///
    /// At a border the neighbour's sound may end or begin up to a frame earlier or later. A player treats a frame as a
    /// discontinuity if it does not follow the last one, or follows it by more than twice its length; it then drops pictures
    /// until the next key frame (Media Source Extensions, coded frame processing). So silence begins half a frame late, and its
    /// last frame is long.
    fn fill(&self, samples: &mut Vec<Placed>, begin: i64, end: i64, skew: i64) {
        let length = i64::from(self.length);
        let at = |dts: u64| i64::try_from(dts).unwrap_or(i64::MAX);
        let mut filled = Vec::with_capacity(samples.len());
        match samples.first().map(|first| at(first.dts)) {
            None => self.run(&mut filled, begin + length / 2, end, 2),
            // Aligned to the frames that follow.
            Some(first) if first.saturating_sub(begin) > skew => {
                self.run(&mut filled, begin + (first - begin) % length, first, 0);
            }
            Some(_) => {}
        }
        for sample in samples.drain(..) {
            let (dts, duration) = (at(sample.dts), i64::from(sample.duration));
            // `audio::frames` extends the last frame before a hole up to its end.
            if duration < 3 * length {
                filled.push(sample);
                continue;
            }
            let duration = self.length;
            filled.push(Placed { duration, ..sample });
            self.run(&mut filled, dts + length, dts + i64::from(sample.duration), 0);
        }
        let last = filled.last().map_or(end, |last| at(last.dts) + i64::from(last.duration));
        if end.saturating_sub(last) > skew {
            self.run(&mut filled, last, end, 2);
        }
        *samples = filled;
    }

    /// Appends silent frames from `begin` to `end`. The last one ends at `end` and replaces `longer` further frames.
    fn run(&self, filled: &mut Vec<Placed>, begin: i64, end: i64, longer: i64) {
        let length = i64::from(self.length);
        let count = ((end - begin) / length - longer).clamp(1, MAX_FRAMES);
        for index in 0..count {
            let dts = begin + index * length;
            let duration = if index + 1 == count { (end - dts).max(1) } else { length };
            filled.push(Placed {
                dts: dts.unsigned_abs(),
                duration: u32::try_from(duration).unwrap_or(u32::MAX),
                composition: 0,
                key: true,
                data: self.data.clone(),
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: u32 = 8000;
    /// 8 kHz, one channel: AAC LC, samplingFrequencyIndex 11.
    const CONFIG: &[u8] = &[0x15, 0x88];

    fn placed(scale: u32, duration: u32, times: impl Iterator<Item = u64>) -> Vec<Placed> {
        let sample = |time: u64| Placed {
            dts: time * u64::from(scale) / 1000,
            duration,
            composition: 0,
            key: true,
            data: Bytes::from_static(b"coded"),
        };
        times.map(sample).collect()
    }

    /// Fills ten seconds of pictures from 20 s on, with frames of sound of 128 ms at these times (ms). Returns where silence
    /// begins and ends (ms).
    fn filled(kind: Kind, times: impl Iterator<Item = u64>) -> Vec<(u64, u64)> {
        let header = |id, timescale, kind| Header { id, timescale, kind };
        let mut tracks = [
            TrackOut {
                header: header(1, VIDEO_TICKS, Kind::Avc(Bytes::new())),
                samples: placed(VIDEO_TICKS, 3600, (0..250).map(|n| 20_000 + n * 40)),
            },
            TrackOut {
                header: header(2, RATE, kind),
                samples: placed(RATE, 1024, times),
            },
        ];
        // As `audio::frames` writes a hole: the frame before it lasts until its end.
        let sound = &mut tracks[1].samples;
        for at in 1..sound.len() {
            sound[at - 1].duration = u32::try_from(sound[at].dts - sound[at - 1].dts).unwrap();
        }
        fill(&mut tracks);
        let sound = &tracks[1].samples;
        assert!(
            sound
                .windows(2)
                .all(|pair| pair[0].dts + u64::from(pair[0].duration) == pair[1].dts),
            "it covers all"
        );
        let mut silent: Vec<(u64, u64)> = Vec::new();
        for frame in sound.iter().filter(|frame| frame.data != "coded") {
            let (begin, end) = (frame.dts / 8, (frame.dts + u64::from(frame.duration)) / 8);
            match silent.last_mut() {
                Some(last) if last.1 == begin => last.1 = end,
                _ => silent.push((begin, end)),
            }
        }
        silent
    }

    fn aac(config: &'static [u8]) -> Kind {
        Kind::Aac {
            config: Bytes::from_static(config),
            rate: RATE,
            channels: 1,
        }
    }

    #[test]
    fn pictures_have_silence_beside_them_where_the_sound_pauses() {
        let of = |times: &[(u64, u64)]| filled(aac(CONFIG), times.iter().flat_map(|&(from, to)| (from..to).step_by(128)));
        assert_eq!(of(&[]), [(20_064, 30_000)], "it begins half a frame late");
        assert_eq!(of(&[(20_000, 30_000)]), []);
        // Up to 1 s at each edge may be in the neighbouring chunk.
        assert_eq!(of(&[(20_900, 29_100)]), []);
        let late = of(&[(25_000, 30_000)]);
        assert!(late.len() == 1 && late[0].0 < 20_128 && late[0].1 == 25_000, "{late:?}");
        let early = of(&[(20_000, 25_000)]);
        assert!(
            early.len() == 1 && early[0].0 >= 25_000 && early[0].0 < 25_128 && early[0].1 == 30_000,
            "{early:?}"
        );
        let hole = of(&[(20_000, 22_000), (27_000, 30_000)]);
        assert!(hole.len() == 1 && hole[0].0 < 22_128 && hole[0].1 == 27_000, "{hole:?}");
    }

    #[test]
    fn sound_that_no_silent_frame_is_known_of_stays_as_it_is() {
        // Six channels, a program_config_element, no configuration at all.
        for config in [&[0x15, 0xb0][..], &[0x15, 0x80], &[]] {
            assert_eq!(filled(aac(config), std::iter::empty()), []);
        }
        let opus = |head: &'static [u8]| filled(Kind::Opus(Bytes::from_static(head)), std::iter::empty());
        assert_eq!(opus(b"OpusHead"), []);
        assert_eq!(opus(b"OpusHead\x01\x02").len(), 1);
    }

    #[test]
    fn a_day_without_sound_does_not_fill_the_memory() {
        let silence = Silence {
            data: Bytes::from_static(AAC_MONO),
            length: 1024,
        };
        let mut samples = Vec::new();
        silence.fill(&mut samples, 0, 86_400 * 48_000, 48_000);
        assert!(samples.len() <= 1 << 16);
        let last = samples.last().unwrap();
        assert_eq!(last.dts + u64::from(last.duration), 86_400 * 48_000);
    }
}
