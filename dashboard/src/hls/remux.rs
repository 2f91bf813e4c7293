//! Remuxes a chunk as MP4, by stream copy: a header and one fragment for players, or one picture alone.
//!
//! PURE. Pictures have 90 kHz ticks. Sound has the ticks of its sampling rate, however the container rounded its times: each
//! frame begins where the one before ends, unless frames are missing. Sources: ISO/IEC 14496-12, 14496-14, 14496-15, the ISO
//! Media File Format Bindings of the VP codecs and of AV1.
//!
//! `boxes`: the header of an MP4. `audio`, `silence`: the places of sound, and what fills its pauses.

use bytes::Bytes;
use gcstreamer_media::container::samples::{Codec, Sample, SampleTrack, Samples, SamplesError};
use mp4_atom::{Encode, Mfhd, Moof, Tfdt, Tfhd, Traf, Trun, TrunEntry};

mod audio;
pub(crate) mod boxes;
mod silence;

use boxes::{Header, Kind};

/// Ticks per second of a track of pictures.
pub(crate) const VIDEO_TICKS: u32 = 90_000;
/// Track ids, the same in every chunk whatever tracks it has: one header must serve several chunks.
pub(crate) const VIDEO_ID: u32 = 1;
pub(crate) const AUDIO_ID: u32 = 2;
/// sample_flags of a key frame: it depends on no other picture. 14496-12 8.8.3.1.
const KEY: u32 = 0x0200_0000;
/// sample_flags of any other picture: it depends on others and is not a sync sample.
const NO_KEY: u32 = 0x0101_0000;

/// A chunk as MP4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remuxed {
    /// `ftyp` and `moov`.
    pub init: Bytes,
    /// One `moof` and its `mdat`.
    pub segment: Bytes,
}

/// Why a chunk cannot be written as MP4.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RemuxError {
    /// Its samples cannot be read.
    #[error(transparent)]
    Samples(#[from] SamplesError),
    /// A codec cannot be written into MP4.
    #[error("{0} cannot be written into MP4; export it as native, and play it elsewhere")]
    Codec(String),
    /// Something changes inside the range that must stay the same in one file.
    #[error("{0}")]
    Changes(&'static str),
    /// There is no key frame.
    #[error("the chunk holds no key frame")]
    NoKeyPicture,
    /// A configuration record is damaged, or the boxes cannot be written.
    #[error("the chunk's configuration cannot be written into MP4: {0}")]
    Boxes(String),
}

impl From<mp4_atom::Error> for RemuxError {
    fn from(error: mp4_atom::Error) -> Self {
        Self::Boxes(error.to_string())
    }
}

/// A sample placed on the time line of its track. Times in ticks.
#[derive(Clone, Debug)]
pub(crate) struct Placed {
    pub(crate) dts: u64,
    pub(crate) duration: u32,
    /// Presentation time minus decode time.
    pub(crate) composition: i64,
    pub(crate) key: bool,
    pub(crate) data: Bytes,
}

/// A track to write.
#[derive(Clone, Debug)]
pub(crate) struct TrackOut {
    pub(crate) header: Header,
    pub(crate) samples: Vec<Placed>,
}

/// Writes a chunk of `duration` ns as a header and one fragment. Leaves out tracks that MP4 or browsers do not take (G.711),
/// unless nothing would remain. Writes silence into pauses of the sound.
///
/// # Errors
/// [`RemuxError`].
pub fn remux(samples: &Samples, duration: u64) -> Result<Remuxed, RemuxError> {
    let mut tracks = tracks(samples, duration)?;
    silence::fill(&mut tracks);
    let init = boxes::init(tracks.iter().map(|track| &track.header))?;
    let segment = fragment(&tracks)?;
    Ok(Remuxed {
        init: init.into(),
        segment: segment.into(),
    })
}

/// A key frame as an MP4 of one sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Picture {
    /// The file.
    pub file: Bytes,
    /// Presentation time, ns of the container's time.
    pub pts: i64,
    /// Presentation time of the first picture of its chunk, ns of the container's time.
    pub first: i64,
}

/// Writes the first key frame as an MP4 of one sample.
///
/// # Errors
/// [`RemuxError`].
pub fn picture(samples: &Samples) -> Result<Picture, RemuxError> {
    let video = samples.video.as_ref().ok_or(RemuxError::NoKeyPicture)?;
    let key = video
        .samples
        .iter()
        .find(|sample| sample.key)
        .ok_or(RemuxError::NoKeyPicture)?;
    let header = video_header(video, VIDEO_ID)?;
    Ok(Picture {
        file: boxes::still(&header, &key.data)?.into(),
        pts: key.pts,
        first: video.samples.first().map_or(key.pts, |sample| sample.pts),
    })
}

/// Checks that the pictures can be written. A film may lack the sound of a chunk, but never its pictures.
///
/// # Errors
/// [`RemuxError::Codec`].
pub(crate) fn check_pictures(samples: &Samples) -> Result<(), RemuxError> {
    let video = samples.video.as_ref().filter(|video| !video.samples.is_empty());
    video.map_or(Ok(()), |video| video_header(video, VIDEO_ID).map(drop))
}

/// Places the samples of a chunk of `duration` ns on its time line, pictures first. Leaves out tracks that MP4 does not take,
/// unless nothing would remain.
///
/// A track whose format is known but that pauses in this chunk is returned without samples: the header of one chunk serves its
/// neighbours, and a player ignores a track that the header lacks.
pub(crate) fn tracks(samples: &Samples, duration: u64) -> Result<Vec<TrackOut>, RemuxError> {
    let mut tracks = Vec::new();
    let mut refused = None;
    for track in [&samples.video, &samples.audio].into_iter().flatten() {
        let written = if track.is_video {
            video_header(track, VIDEO_ID).map(|header| TrackOut {
                header,
                samples: pictures(&track.samples, duration),
            })
        } else {
            audio::header(track, AUDIO_ID).map(|(header, frame)| TrackOut {
                samples: audio::frames(&track.samples, header.timescale, frame),
                header,
            })
        };
        match written {
            Ok(track) => tracks.push(track),
            // Errors of a track without samples do not matter: nothing of it is left out.
            Err(error) if !track.samples.is_empty() => refused = refused.or(Some(error)),
            Err(_) => {}
        }
    }
    let is_empty = tracks.iter().all(|track| track.samples.is_empty());
    match refused {
        Some(error) if is_empty => Err(error),
        None if is_empty => Err(SamplesError::Empty.into()),
        _ => Ok(tracks),
    }
}

fn video_header(track: &SampleTrack, id: u32) -> Result<Header, RemuxError> {
    let without = |what: &str| RemuxError::Codec(what.into());
    let kind = match &track.codec {
        Codec::H264(record) => Kind::Avc(record.clone()),
        Codec::H265(record) => Kind::Hevc(record.clone()),
        Codec::Vp8(size) => Kind::Vp8(size.ok_or_else(|| without("VP8 without a key frame"))?),
        Codec::Vp9(vp9) => Kind::Vp9(vp9.size.ok_or_else(|| without("VP9 without a key frame"))?, vp9.config),
        Codec::Av1(av1) => match (av1.size, &av1.record) {
            (Some(size), Some(record)) => Kind::Av1(size, record.clone()),
            _ => return Err(without("AV1 without a sequence header")),
        },
        Codec::Aac(_) | Codec::Opus(_) => return Err(RemuxError::Codec("sound among the pictures".into())),
        Codec::Other(name) => return Err(RemuxError::Codec(name.clone())),
    };
    Ok(Header {
        id,
        timescale: VIDEO_TICKS,
        kind,
    })
}

/// Converts ns to ticks, rounded to the nearest.
pub(crate) fn ticks(ns: i64, timescale: u32) -> i64 {
    let scaled = i128::from(ns) * i128::from(timescale);
    i64::try_from((scaled + 500_000_000).div_euclid(1_000_000_000)).unwrap_or(i64::MAX)
}

/// Places pictures. Makes decode times strictly ascending, as `trun` holds unsigned durations. The last picture lasts to the end
/// of the chunk, or for the mean duration of the others if the end is not plausible (past, or more than four such durations
/// away).
fn pictures(samples: &[Sample], duration: u64) -> Vec<Placed> {
    let mut times: Vec<i64> = Vec::with_capacity(samples.len());
    for sample in samples {
        // Not below 0: `tfdt` is unsigned.
        let dts = ticks(sample.dts, VIDEO_TICKS).max(0);
        times.push(times.last().map_or(dts, |last| dts.max(last + 1)));
    }
    let (Some(&first), Some(&last)) = (times.first(), times.last()) else {
        return Vec::new();
    };
    let count = i64::try_from(times.len()).unwrap_or(i64::MAX);
    let usual = if count > 1 {
        (last - first) / (count - 1)
    } else {
        // A single picture shows no frame rate.
        i64::from(VIDEO_TICKS) / 25
    };
    let end = first + ticks(i64::try_from(duration).unwrap_or(i64::MAX), VIDEO_TICKS);
    let left = Some(end - last)
        .filter(|left| (1..=usual.saturating_mul(4).max(1)).contains(left))
        .unwrap_or(usual.max(1));
    let ends = times.iter().skip(1).copied().chain([last + left]);
    let placed = samples
        .iter()
        .zip(times.iter().zip(ends))
        .map(|(sample, (&dts, end))| Placed {
            dts: dts.unsigned_abs(),
            duration: u32::try_from(end - dts).unwrap_or(u32::MAX),
            composition: ticks(sample.pts, VIDEO_TICKS) - dts,
            key: sample.key,
            data: sample.data.clone(),
        });
    placed.collect()
}

/// Returns one `moof` with a run for each track, and the `mdat` with their samples, one track after the other.
fn fragment(tracks: &[TrackOut]) -> Result<Vec<u8>, RemuxError> {
    // `data_offset` takes 4 bytes whatever its value, so the `moof` can be measured with 0.
    let mut measured = Vec::new();
    moof(tracks, 0)?.encode(&mut measured)?;
    let mut out = Vec::new();
    moof(tracks, measured.len() + 8)?.encode(&mut out)?;
    let size: usize = tracks
        .iter()
        .flat_map(|track| &track.samples)
        .map(|sample| sample.data.len())
        .sum();
    let total = u32::try_from(size + 8).map_err(|_| RemuxError::Boxes("it is over 4 GiB".into()))?;
    out.reserve(size + 8);
    out.extend(total.to_be_bytes());
    out.extend(b"mdat");
    for sample in tracks.iter().flat_map(|track| &track.samples) {
        out.extend_from_slice(&sample.data);
    }
    Ok(out)
}

/// Returns the `moof`. `data` is the offset of the first sample from the beginning of the `moof`.
fn moof(tracks: &[TrackOut], data: usize) -> Result<Moof, RemuxError> {
    let mut at = data;
    let mut traf = Vec::new();
    for track in tracks.iter().filter(|track| !track.samples.is_empty()) {
        let is_video = track.header.is_video();
        let entries: Vec<TrunEntry> = track.samples.iter().map(|sample| entry(sample, is_video)).collect();
        let offset = i32::try_from(at).map_err(|_| RemuxError::Boxes("it is over 2 GiB".into()))?;
        traf.push(Traf {
            tfhd: Tfhd {
                track_id: track.header.id,
                default_base_is_moof: true,
                // Applies to sound, whose samples have no flags of their own: every frame is a sync sample.
                default_sample_flags: Some(KEY),
                ..Tfhd::default()
            },
            tfdt: Some(Tfdt {
                base_media_decode_time: track.samples.first().map_or(0, |sample| sample.dts),
            }),
            trun: vec![Trun {
                data_offset: Some(offset),
                samples: entries.into(),
            }],
            ..Traf::default()
        });
        at += track.samples.iter().map(|sample| sample.data.len()).sum::<usize>();
    }
    Ok(Moof {
        // Chunks are remuxed one by one and in any order, so no number can count them.
        mfhd: Mfhd { sequence_number: 1 },
        traf,
    })
}

fn entry(sample: &Placed, is_video: bool) -> TrunEntry {
    TrunEntry {
        duration: Some(sample.duration),
        size: Some(u32::try_from(sample.data.len()).unwrap_or(u32::MAX)),
        flags: is_video.then_some(if sample.key { KEY } else { NO_KEY }),
        cts: is_video.then_some(sample.composition),
    }
}
