//! Reads the samples of one whole chunk: coded pictures and audio frames with their times, for code that writes them into
//! another container by stream copy.
//!
//! PURE. Works on a chunk's bytes from front to end: header, payload. Unlike a scanner it reads all of the payload, and it needs
//! the complete chunk. For every container, the NAL units of H.264 and H.265 are returned behind lengths, not start codes, and
//! AV1 without temporal delimiters.
//!
//! `whole` makes whole pictures of what the container calls samples. `coded`, `vpx`, `av1`, `sps`: decoder configurations,
//! from the container or from the pictures; `bits` reads their headers.

use bytes::Bytes;

use super::{Container, flv, fmp4, matroska, mpegts};

pub mod av1;
mod bits;
mod coded;
pub mod sps;
pub mod vpx;
mod whole;

pub(super) use coded::stated;
pub(super) use whole::units;

/// Maximum number of samples of one chunk: a day of AAC at 48 kHz has four million frames.
pub const MAX_SAMPLES: usize = 1 << 22;

/// The coding format of a track, with the configuration of its decoder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Codec {
    /// H.264: AVCDecoderConfigurationRecord.
    H264(Bytes),
    /// H.265: HEVCDecoderConfigurationRecord.
    H265(Bytes),
    /// VP8: the size of its pictures, if known.
    Vp8(Option<sps::Size>),
    /// VP9.
    Vp9(vpx::Vp9),
    /// AV1.
    Av1(av1::Av1),
    /// AAC: AudioSpecificConfig.
    Aac(Bytes),
    /// Opus: the identification header of RFC 7845 5.1.
    Opus(Bytes),
    /// A format that is not written into MP4 here, with its human-readable name.
    Other(String),
}

/// A coded picture or audio frame. Times are in ns on the container's own time line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Decode time.
    pub dts: i64,
    /// Presentation time.
    pub pts: i64,
    /// Whether decoding can begin here. Always true for audio.
    pub key: bool,
    /// The coded bytes.
    pub data: Bytes,
}

/// The samples of one track, in decode order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleTrack {
    /// Whether the track is video; otherwise it is audio.
    pub is_video: bool,
    /// The coding format.
    pub codec: Codec,
    /// The samples.
    pub samples: Vec<Sample>,
}

/// Content of a chunk: the first video track and the first audio track, if present.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Samples {
    /// The video track.
    pub video: Option<SampleTrack>,
    /// The audio track.
    pub audio: Option<SampleTrack>,
}

impl Samples {
    /// Takes a track. The first track of each kind that has samples is stored.
    pub(super) fn offer(&mut self, track: SampleTrack) {
        let slot = if track.is_video { &mut self.video } else { &mut self.audio };
        if slot
            .as_ref()
            .is_none_or(|before| before.samples.is_empty() && !track.samples.is_empty())
        {
            *slot = Some(track);
        }
    }
}

/// Why the samples of a chunk cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SamplesError {
    /// The samples of this container cannot be read.
    #[error("the samples of a chunk of container {} cannot be read", .0.name())]
    Container(Container),
    /// Its header is damaged or missing.
    #[error("the chunk has no header that can be read")]
    NoHeader,
    /// The chunk contains neither video nor audio.
    #[error("the chunk holds neither pictures nor sound")]
    Empty,
    /// More than [`MAX_SAMPLES`].
    #[error("the chunk holds more than {MAX_SAMPLES} samples")]
    TooMany,
}

/// Reads the samples of a chunk.
///
/// Timestamps that wrap (FLV, MPEG-TS) are placed so that the first picture and the first audio frame are nearest to `pts_start`
/// (ns), the metadata `pts-start-ns`. Without it they are placed near the first of the two. Damaged parts yield no samples.
///
/// # Errors
/// [`SamplesError`] if there is no readable header, no sample or too many of them.
pub fn read(container: Container, chunk: &Bytes, pts_start: Option<u64>) -> Result<Samples, SamplesError> {
    let (mut samples, wrap) = match container {
        Container::Flv => (flv::samples::read(chunk)?, Some(flv::samples::WRAP)),
        Container::MpegTs => (mpegts::samples::read(chunk)?, Some(mpegts::samples::WRAP)),
        Container::Fmp4 => (fmp4::samples::read(chunk)?, None),
        Container::Matroska | Container::WebM => (matroska::samples::read(chunk)?, None),
        Container::Raw => return Err(SamplesError::Container(container)),
    };
    if let Some(video) = &mut samples.video {
        // Before the decode times: the parts of one picture share one time, and only the joined picture gets a decode time.
        whole::whole_pictures(video);
        coded::complete(video);
        // Blocks have no decode time, but MP4 needs one.
        if matches!(container, Container::Matroska | Container::WebM) {
            decode_in_order(&mut video.samples);
        }
    }
    let tracks = || [&samples.video, &samples.audio].into_iter().flatten();
    let count: usize = tracks().map(|track| track.samples.len()).sum();
    let first = tracks().find_map(|track| track.samples.first()).map(|sample| sample.pts);
    let Some(first) = first else { return Err(SamplesError::Empty) };
    if count > MAX_SAMPLES {
        return Err(SamplesError::TooMany);
    }
    if let Some(wrap) = wrap {
        let near = pts_start.and_then(|start| i64::try_from(start).ok()).unwrap_or(first);
        for track in [&mut samples.video, &mut samples.audio].into_iter().flatten() {
            place(&mut track.samples, wrap, near);
        }
    }
    Ok(samples)
}

/// Shifts the times of a track by a multiple of `wrap` so that the first is nearest to `near`. Called for each track separately:
/// one may begin before a wrap and the other behind it.
fn place(samples: &mut [Sample], wrap: i64, near: i64) {
    let Some(first) = samples.first().map(|sample| sample.pts) else {
        return;
    };
    // Half a `wrap` is added so that the division rounds to the nearest.
    let turns = near.saturating_sub(first).saturating_add(wrap / 2).div_euclid(wrap);
    let shift = turns.saturating_mul(wrap);
    for sample in samples {
        sample.dts = sample.dts.saturating_add(shift);
        sample.pts = sample.pts.saturating_add(shift);
    }
}

/// Sets the decode times of samples that have only presentation times: these, in ascending order. A picture may then be decoded
/// after it is shown, which MP4 can express. The decode times of one chunk stay below those of the next.
fn decode_in_order(samples: &mut [Sample]) {
    let mut times: Vec<i64> = samples.iter().map(|sample| sample.pts).collect();
    times.sort_unstable();
    for (sample, time) in samples.iter_mut().zip(times) {
        sample.dts = time;
    }
}

/// Unwraps the timestamps of one chunk, relative to the first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wrapped {
    wrap: i64,
    last: Option<i64>,
}

impl Wrapped {
    /// Creates an unwrapper for timestamps in ticks that wrap at `wrap`.
    pub(super) fn at(wrap: i64) -> Self {
        Self { wrap, last: None }
    }

    /// Returns the time for `raw` that is nearest to the last time.
    pub(super) fn unwrap(&mut self, raw: i64) -> i64 {
        let time = match self.last {
            None => raw,
            Some(last) => {
                let step = (raw - last).rem_euclid(self.wrap);
                last + if step < self.wrap / 2 { step } else { step - self.wrap }
            }
        };
        self.last = Some(time);
        time
    }
}

#[cfg(test)]
mod tests_coded;
#[cfg(test)]
mod tests_pictures;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_container_but_raw_has_samples_and_nothing_panics_on_foreign_bytes() {
        for container in Container::ALL {
            for data in [&b""[..], b"FLV\x01\x05", b"\x1a\x45\xdf\xa3\xff", &[0x47; 400], &[0; 64]] {
                assert!(read(container, &Bytes::copy_from_slice(data), Some(5)).is_err());
            }
        }
        assert_eq!(
            read(Container::Raw, &Bytes::new(), None).unwrap_err().to_string(),
            "the samples of a chunk of container raw cannot be read"
        );
    }

    #[test]
    fn a_time_is_the_one_nearest_to_the_last() {
        let mut times = Wrapped::at(100);
        assert_eq!([95, 99, 3, 98, 10].map(|raw| times.unwrap(raw)), [95, 99, 103, 98, 110]);
    }

    #[test]
    fn sound_that_begins_behind_the_turn_of_33_bits_stays_beside_its_pictures() {
        let wrap = mpegts::samples::WRAP;
        let at = |pts| Sample {
            dts: pts - 40,
            pts,
            key: true,
            data: Bytes::new(),
        };
        for (picture, sound) in [(wrap - 200, 280), (100, wrap - 150), (0, 0)] {
            for turn in [0, 1, 7] {
                let near = turn * wrap + picture;
                let (mut pictures, mut sounds) = ([at(picture)], [at(sound)]);
                place(&mut pictures, wrap, near);
                place(&mut sounds, wrap, near);
                assert_eq!(pictures[0].pts, near);
                assert!((sounds[0].pts - near).abs() < 1000, "{picture} {sound}: {}", sounds[0].pts);
                assert_eq!(sounds[0].dts, sounds[0].pts - 40);
            }
        }
    }

    #[test]
    fn decode_times_ascend_and_keep_every_picture() {
        let picture = |pts| Sample {
            dts: 0,
            pts,
            key: false,
            data: Bytes::new(),
        };
        let mut pictures = [0, 120, 40, 80, 240, 160].map(picture);
        decode_in_order(&mut pictures);
        assert_eq!(pictures.map(|sample| sample.dts), [0, 40, 80, 120, 160, 240]);
    }

    proptest::proptest! {
        #[test]
        fn nothing_panics_on_any_bytes(data: Vec<u8>, container in 0usize..6) {
            let _ = read(Container::ALL[container], &data.into(), Some(u64::MAX));
        }
    }
}
