//! A range as one plain MP4: sample tables in the header, then the samples, and an edit list that shows exactly the range.
//!
//! PURE. There are two passes over the chunks. The first reads every chunk for its sample tables ([`cut`], [`Film::push`]) and
//! stores no sample, so memory grows with the number of samples (about 8 bytes each) and not with their size. The second reads
//! the chunks again and writes the samples that the tables announce. A gap takes no time in the film: the next picture follows.
//! Source: ISO/IEC 14496-12.

use gcstreamer_media::container::samples::Samples;
use mp4_atom::{
    Co64, Ctts, CttsEntry, Edts, Elst, ElstEntry, Encode as _, Mvhd, Stbl, Stsc, StscEntry, Stsd, Stss, Stsz, StszSamples, Stts,
    SttsEntry, Trak,
};

use crate::hls::remux::boxes::{self, Header};
use crate::hls::remux::{RemuxError, TrackOut, VIDEO_TICKS, check_pictures, ticks, tracks};

/// Seconds from 1904 to 1970: MP4 counts times from 1904 (14496-12 8.2.2.3).
const SINCE_1904: u64 = 2_082_844_800;
/// ns of a second.
const SECOND: i64 = 1_000_000_000;

/// Where a range begins and ends in the container's time of a chunk, ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// First instant that is shown; `None`: the chunk begins inside the range.
    pub from: Option<i64>,
    /// First instant that is no longer shown; `None`: the chunk ends inside the range.
    pub to: Option<i64>,
}

/// The samples that a film takes of a chunk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cut {
    pub(crate) video: Option<TrackOut>,
    pub(crate) audio: Option<TrackOut>,
}

/// Takes the samples of a chunk of `duration` ns that are needed to show the window. Begins with the last key frame that is shown
/// at or before the window's beginning; ends with the last sample in decode order that is shown before its end.
///
/// Both passes call this, so it is deterministic: equal chunks and windows yield equal samples.
///
/// # Errors
/// [`RemuxError`].
pub(crate) fn cut(samples: &Samples, duration: u64, window: Window) -> Result<Cut, RemuxError> {
    let mut cut = Cut::default();
    // Before `tracks`, which leaves out a track that cannot be written if any other one remains.
    check_pictures(samples)?;
    for mut track in tracks(samples, duration)? {
        let scale = track.header.timescale;
        let (from, to) = (window.from.map(|at| ticks(at, scale)), window.to.map(|at| ticks(at, scale)));
        if track.header.is_video() {
            pictures(&mut track, from, to);
            cut.video = Some(track).filter(|track| !track.samples.is_empty());
        } else {
            sound(&mut track, from, to);
            cut.audio = Some(track).filter(|track| !track.samples.is_empty());
        }
    }
    Ok(cut)
}

fn shown(sample: &crate::hls::remux::Placed) -> i64 {
    i64::try_from(sample.dts)
        .unwrap_or(i64::MAX)
        .saturating_add(sample.composition)
}

fn pictures(track: &mut TrackOut, from: Option<i64>, to: Option<i64>) {
    let samples = &mut track.samples;
    if let Some(to) = to {
        // Only the tail in decode order is cut: a B-frame inside the range may need a picture that is shown after its end.
        let end = samples
            .iter()
            .rposition(|sample| shown(sample) < to)
            .map_or(0, |last| last + 1);
        samples.truncate(end);
    }
    // If the range begins before the first key frame of this chunk, the pictures before that key frame cannot be decoded.
    let keys = || samples.iter().enumerate().filter(|(_, sample)| sample.key);
    let first = keys().next().map(|(at, _)| at);
    let begin = from.and_then(|from| keys().filter(|(_, sample)| shown(sample) <= from).last().map(|(at, _)| at));
    let begin = begin.or(first.filter(|_| from.is_some())).unwrap_or(0);
    samples.drain(..begin);
}

fn sound(track: &mut TrackOut, from: Option<i64>, to: Option<i64>) {
    let samples = &mut track.samples;
    if let Some(to) = to {
        samples.retain(|sample| shown(sample) < to);
    }
    if let Some(from) = from {
        let heard = samples
            .iter()
            .position(|sample| shown(sample).saturating_add(sample.duration.into()) > from);
        // One frame more in front: AAC and Opus decode a frame correctly only after the frame before it.
        samples.drain(..heard.unwrap_or(samples.len()).saturating_sub(1));
    }
}

/// Returns an error text if samples of `next` cannot follow those of `first` in one track.
///
/// Players choose the decoder of a track by its first sample description and skip samples of another codec. They do play other
/// parameters of the same codec, such as another picture size.
fn changed(first: &Header, next: &Header) -> Option<&'static str> {
    if std::mem::discriminant(&first.kind) != std::mem::discriminant(&next.kind) {
        return Some(if next.is_video() {
            "the codec of the picture changes inside the range; export the time before and after apart, or native"
        } else {
            "the codec of the sound changes inside the range; export the time before and after apart, or native"
        });
    }
    (first.timescale != next.timescale)
        .then_some("the sampling rate of the sound changes inside the range; export the time before and after apart, or native")
}

/// The tables of one track.
#[derive(Debug, Default)]
struct Lane {
    headers: Vec<Header>,
    first_dts: Option<i64>,
    /// Earliest presentation time.
    first_shown: i64,
    last_dts: i64,
    /// End of the last sample.
    end: i64,
    sizes: Vec<u32>,
    durations: Vec<SttsEntry>,
    composition: Vec<CttsEntry>,
    keys: Vec<u32>,
    runs: Vec<StscEntry>,
    offsets: Vec<u64>,
}

impl Lane {
    fn scale(&self) -> u32 {
        self.headers.first().map_or(VIDEO_TICKS, |header| header.timescale)
    }

    fn push(&mut self, track: &TrackOut, shift: i64, offset: u64) -> Result<u64, RemuxError> {
        if let Some(change) = self.headers.first().and_then(|first| changed(first, &track.header)) {
            return Err(RemuxError::Changes(change));
        }
        let description = match self.headers.iter().position(|known| *known == track.header) {
            Some(at) => at,
            None => {
                self.headers.push(track.header.clone());
                self.headers.len() - 1
            }
        };
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let entry = StscEntry {
            first_chunk: count(self.offsets.len() + 1),
            samples_per_chunk: count(track.samples.len()),
            sample_description_index: count(description + 1),
        };
        let same = |last: &StscEntry| {
            (last.samples_per_chunk, last.sample_description_index) == (entry.samples_per_chunk, entry.sample_description_index)
        };
        if !self.runs.last().is_some_and(same) {
            self.runs.push(entry);
        }
        self.offsets.push(offset);
        let mut bytes = 0u64;
        for sample in &track.samples {
            let size = u32::try_from(sample.data.len()).map_err(|_| RemuxError::Boxes("a sample is over 4 GiB".into()))?;
            // Decode times must ascend: `stts` holds unsigned differences, and a chunk that goes on may begin a little before the
            // end of the one before it (`SLACK`). The presentation time stays as it is; the composition offset absorbs the
            // correction.
            let stated = i64::try_from(sample.dts).unwrap_or(i64::MAX).saturating_add(shift);
            let presented = stated.saturating_add(sample.composition);
            let dts = if self.first_dts.is_some() {
                stated.max(self.last_dts + 1)
            } else {
                stated
            };
            if self.first_dts.is_some() {
                self.duration(dts - self.last_dts);
            }
            self.first_shown = self.first_dts.map_or(presented, |_| self.first_shown.min(presented));
            self.first_dts = self.first_dts.or(Some(dts));
            self.last_dts = dts;
            self.end = dts + i64::from(sample.duration);
            self.sizes.push(size);
            match self.composition.last_mut() {
                Some(run) if run.sample_offset == presented - dts => run.sample_count += 1,
                _ => self.composition.push(CttsEntry {
                    sample_count: 1,
                    sample_offset: presented - dts,
                }),
            }
            if sample.key {
                self.keys.push(count(self.sizes.len()));
            }
            bytes += u64::from(size);
        }
        Ok(bytes)
    }

    fn duration(&mut self, delta: i64) {
        let delta = u32::try_from(delta).unwrap_or(u32::MAX);
        match self.durations.last_mut() {
            Some(run) if run.sample_delta == delta => run.sample_count += 1,
            _ => self.durations.push(SttsEntry {
                sample_count: 1,
                sample_delta: delta,
            }),
        }
    }

    /// Returns the track with an edit list that shows `from..to` (ns of the film). `data` is the offset of the first sample in
    /// the file. `None`: the track has no samples.
    fn trak(&self, from: i64, to: i64, data: u64) -> Result<Option<Trak>, RemuxError> {
        let (Some(header), Some(first_dts)) = (self.headers.first(), self.first_dts) else {
            return Ok(None);
        };
        let (scale, unsigned) = (self.scale(), |ticks: i64| u64::try_from(ticks).unwrap_or(0));
        let mut durations = self.durations.clone();
        // `push` learns the duration of a sample from the next one, so that of the last sample is still missing.
        let last = u32::try_from(self.end - self.last_dts).unwrap_or(1);
        match durations.last_mut() {
            Some(run) if run.sample_delta == last => run.sample_count += 1,
            _ => durations.push(SttsEntry {
                sample_count: 1,
                sample_delta: last,
            }),
        }
        let is_plain = self.composition.iter().all(|run| run.sample_offset == 0);
        let stbl = Stbl {
            stsd: Stsd {
                codecs: self.headers.iter().map(Header::entry).collect::<Result<_, _>>()?,
            },
            stts: Stts { entries: durations },
            ctts: (!is_plain).then(|| Ctts {
                entries: self.composition.clone(),
            }),
            // Without an `stss` every sample is a sync sample (14496-12 8.6.2.1).
            stss: (self.keys.len() < self.sizes.len()).then(|| Stss {
                entries: self.keys.clone(),
            }),
            stsc: Stsc {
                entries: self.runs.clone(),
            },
            stsz: Stsz {
                samples: StszSamples::Different {
                    sizes: self.sizes.clone(),
                },
            },
            co64: Some(Co64 {
                entries: self.offsets.iter().map(|offset| offset + data).collect(),
            }),
            ..Stbl::default()
        };
        let begins = ticks(from, scale).max(self.first_shown);
        // If the track begins after the range does, an empty edit fills that time: else its first sample would play early.
        let empty = ticks_of(begins - ticks(from, scale), scale);
        let length = ticks(to - from, VIDEO_TICKS).max(1);
        let edit = |ticks: i64, media_time: Option<u64>| ElstEntry {
            segment_duration: unsigned(ticks),
            media_time,
            media_rate: 1.into(),
        };
        let mut entries = Vec::new();
        if empty > 0 {
            entries.push(edit(empty.min(length), None));
        }
        entries.push(edit((length - empty).max(0), Some(unsigned(begins - first_dts))));
        let mut trak = header.trak(stbl, unsigned(length));
        trak.mdia.mdhd.duration = unsigned(self.end - first_dts);
        trak.edts = Some(Edts {
            elst: Some(Elst { entries }),
        });
        Ok(Some(trak))
    }
}

/// Converts ticks of a track to ticks of the movie.
fn ticks_of(ticks: i64, scale: u32) -> i64 {
    let movie = i128::from(ticks) * i128::from(VIDEO_TICKS) / i128::from(scale.max(1));
    i64::try_from(movie).unwrap_or(i64::MAX)
}

/// Converts ticks to ns.
fn ns(ticks: i64, scale: u32) -> i64 {
    i64::try_from(i128::from(ticks) * i128::from(SECOND) / i128::from(scale.max(1))).unwrap_or(i64::MAX)
}

/// The tables of a film's tracks, filled chunk by chunk.
#[derive(Debug, Default)]
pub(crate) struct Film {
    video: Lane,
    audio: Lane,
    /// Added to the container's time to get the time of the film, ns.
    shift: i64,
    /// Beginning of what is shown, ns of the film; `None` until a chunk was added.
    from: Option<i64>,
    /// End of what is shown, ns of the film.
    to: i64,
    bytes: u64,
}

impl Film {
    /// Adds the samples of the next chunk. `joins`: the container's time continues that of the chunk before it. Returns the
    /// number of bytes of the samples.
    ///
    /// # Errors
    /// [`RemuxError`].
    pub(crate) fn push(&mut self, cut: &Cut, window: Window, joins: bool) -> Result<u64, RemuxError> {
        let begins = |track: &Option<TrackOut>| {
            let track = track.as_ref()?;
            let first = track.samples.first()?;
            Some(ns(
                i64::try_from(first.dts).unwrap_or(i64::MAX).min(shown(first)),
                track.header.timescale,
            ))
        };
        let Some(first) = begins(&cut.video).into_iter().chain(begins(&cut.audio)).min() else {
            return Ok(0);
        };
        // A gap takes no time: a chunk that does not join begins where the film ends.
        if !joins || self.from.is_none() {
            let end = ns(self.video.end, self.video.scale()).max(ns(self.audio.end, self.audio.scale()));
            self.shift = end - first;
        }
        // The pictures decide what is shown; the sound does if there are none.
        let lead = cut.video.as_ref().or(cut.audio.as_ref());
        let shows = lead.and_then(|track| Some((track.samples.iter().map(shown).min()?, track)));
        if let Some((shows, track)) = shows {
            let shows = ns(shows, track.header.timescale);
            let from = window.from.map_or(shows, |from| from.max(shows));
            let last = track
                .samples
                .iter()
                .map(|sample| shown(sample) + i64::from(sample.duration))
                .max();
            let end = ns(last.unwrap_or(0), track.header.timescale);
            self.from = self.from.or(Some(from + self.shift));
            self.to = window.to.map_or(end, |to| to.min(end)) + self.shift;
        }
        let begin = self.bytes;
        for (lane, track) in [(&mut self.video, &cut.video), (&mut self.audio, &cut.audio)] {
            if let Some(track) = track {
                self.bytes += lane.push(track, ticks(self.shift, track.header.timescale), self.bytes)?;
            }
        }
        Ok(self.bytes - begin)
    }

    /// Returns everything in front of the samples. `start` is the beginning of the range, ns since the Unix epoch.
    ///
    /// # Errors
    /// [`RemuxError`]; [`RemuxError::NoKeyPicture`] if nothing was added.
    pub(crate) fn header(&self, start: u64) -> Result<Vec<u8>, RemuxError> {
        let Some(from) = self.from else {
            return Err(RemuxError::NoKeyPicture);
        };
        // Offsets always take 8 bytes (`co64`), so the final header has the length of the measured one.
        let measured = self.written(from, start, 0)?.len() as u64;
        self.written(from, start, measured)
    }

    fn written(&self, from: i64, start: u64, data: u64) -> Result<Vec<u8>, RemuxError> {
        let traks = [&self.video, &self.audio].map(|lane| lane.trak(from, self.to, data));
        let traks: Vec<Trak> = traks
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .flatten()
            .collect();
        let created = start / 1_000_000_000 + SINCE_1904;
        let mvhd = Mvhd {
            creation_time: created,
            modification_time: created,
            // Lengths in edit lists have these ticks (14496-12 8.6.6): with those of the pictures the cut is exact.
            timescale: VIDEO_TICKS,
            duration: u64::try_from(ticks(self.to - from, VIDEO_TICKS)).unwrap_or(0),
            rate: 1.into(),
            volume: 1.into(),
            next_track_id: 3,
            ..Mvhd::default()
        };
        let mut out = Vec::new();
        boxes::ftyp().encode(&mut out)?;
        boxes::moov(mvhd, None, traks).encode(&mut out)?;
        // Size 1 announces a 64-bit size behind the type (14496-12 4.2): a film may exceed 4 GiB.
        out.extend(1u32.to_be_bytes());
        out.extend(b"mdat");
        out.extend((self.bytes + 16).to_be_bytes());
        Ok(out)
    }
}
