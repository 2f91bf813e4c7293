//! A range as one plain MP4: sample tables in the header, then the samples, and an edit list that shows exactly the range.
//!
//! PURE. Two passes over the chunks: the first reads every chunk for its sample tables ([`cut`], [`Film::push`]) and keeps no sample,
//! so memory grows with the number of samples (about 8 bytes each) and not with their size; the second reads the chunks again and
//! writes what the tables announce. A gap takes no time in the film: the next picture follows. Source: ISO/IEC 14496-12.

use gcstreamer_media::container::samples::Samples;
use mp4_atom::{
    Co64, Ctts, CttsEntry, Edts, Elst, ElstEntry, Encode as _, Mvhd, Stbl, Stsc, StscEntry, Stsd, Stss, Stsz, StszSamples, Stts,
    SttsEntry, Trak,
};

use crate::hls::remux::boxes::{self, Header};
use crate::hls::remux::{RemuxError, TrackOut, VIDEO_TICKS, check_pictures, ticks, tracks};

/// Seconds between 1904, where MP4 counts from, and 1970.
const SINCE_1904: u64 = 2_082_844_800;
/// ns of a second.
const SECOND: i64 = 1_000_000_000;

/// Where a range begins and ends on the container's time line of a chunk, ns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Nothing before this is shown; `None`: the chunk begins inside the range.
    pub from: Option<i64>,
    /// Nothing from here on is shown; `None`: the chunk ends inside the range.
    pub to: Option<i64>,
}

/// What a film takes of a chunk: pictures, then sound.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cut {
    pub(crate) video: Option<TrackOut>,
    pub(crate) audio: Option<TrackOut>,
}

/// Takes the samples of a chunk of `duration` ns that are needed to show the window: from the key frame before its beginning to
/// the last picture that is decoded before its end. The same chunk and window give the same samples.
///
/// # Errors
/// [`RemuxError`].
pub(crate) fn cut(samples: &Samples, duration: u64, window: Window) -> Result<Cut, RemuxError> {
    let mut cut = Cut::default();
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
        let end = samples
            .iter()
            .rposition(|sample| shown(sample) < to)
            .map_or(0, |last| last + 1);
        samples.truncate(end);
    }
    // A chunk that begins with pictures that nothing precedes cannot show them.
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
        // A decoder needs the frame before the first to have that one right.
        samples.drain(..heard.unwrap_or(samples.len()).saturating_sub(1));
    }
}

/// Says what of `next` cannot be in one track with what began as `first`. Players choose the decoder of a track by its first description and
/// skip samples of another codec; other parameters of the same codec (a picture size) play.
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
            let said = i64::try_from(sample.dts).unwrap_or(i64::MAX).saturating_add(shift);
            let presented = said.saturating_add(sample.composition);
            let dts = if self.first_dts.is_some() {
                said.max(self.last_dts + 1)
            } else {
                said
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

    /// The track, which shows `from..to` (ns of the film); samples lie `data` bytes behind the beginning of the file.
    fn trak(&self, from: i64, to: i64, data: u64) -> Result<Option<Trak>, RemuxError> {
        let (Some(header), Some(first_dts)) = (self.headers.first(), self.first_dts) else {
            return Ok(None);
        };
        let (scale, unsigned) = (self.scale(), |ticks: i64| u64::try_from(ticks).unwrap_or(0));
        let mut durations = self.durations.clone();
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
        // What the track lacks at the beginning is an empty edit.
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

/// Ticks of a track as ticks of the movie.
fn ticks_of(ticks: i64, scale: u32) -> i64 {
    let movie = i128::from(ticks) * i128::from(VIDEO_TICKS) / i128::from(scale.max(1));
    i64::try_from(movie).unwrap_or(i64::MAX)
}

/// ns of a number of ticks.
fn ns(ticks: i64, scale: u32) -> i64 {
    i64::try_from(i128::from(ticks) * i128::from(SECOND) / i128::from(scale.max(1))).unwrap_or(i64::MAX)
}

/// A film in the making: the tables of its tracks.
#[derive(Debug, Default)]
pub(crate) struct Film {
    video: Lane,
    audio: Lane,
    /// From the container's time line to that of the film, ns.
    shift: i64,
    /// What is shown, ns of the film.
    from: Option<i64>,
    to: i64,
    bytes: u64,
}

impl Film {
    /// Adds what was cut of the next chunk; `joins`: the container's time goes on from the one before. Returns its bytes.
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
        if !joins || self.from.is_none() {
            let end = ns(self.video.end, self.video.scale()).max(ns(self.audio.end, self.audio.scale()));
            self.shift = end - first;
        }
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

    /// Writes everything before the samples; `start` is when the range begins, ns since the Unix epoch.
    ///
    /// # Errors
    /// [`RemuxError`]; also where nothing was added.
    pub(crate) fn header(&self, start: u64) -> Result<Vec<u8>, RemuxError> {
        let Some(from) = self.from else {
            return Err(RemuxError::NoKeyPicture);
        };
        // Offsets have 8 bytes whatever they say, so that the header is as long as measured.
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
        // A box of 64-bit size.
        out.extend(1u32.to_be_bytes());
        out.extend(b"mdat");
        out.extend((self.bytes + 16).to_be_bytes());
        Ok(out)
    }
}
