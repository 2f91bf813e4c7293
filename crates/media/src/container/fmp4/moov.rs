//! Reads the `moov`: the tracks, and the defaults that fragments rely on.
//!
//! PURE. Sources: ISO/IEC 14496-12 8.2 (`moov`), 8.3 (`trak`), 8.4 (`mdia`), 8.6.6 (`elst`), 8.8 (`mvex`, `trex`).

use std::sync::Arc;

use super::boxes::{Fields, children, find};
use super::moof::Traf;
use super::sample_entry::{self, SampleEntry};
use crate::container::{StreamInfo, Track, codec, work};

/// Added to every time, in ns, so that negative times stay in order: a day. A constant, since the lowest negative time is known
/// too late if each track has fragments of its own. See [`crate::container::Scanner::origin`].
pub(super) const ORIGIN: u64 = 86_400_000_000_000;

/// Defaults of samples, used unless `trun` or `tfhd` overrides them (14496-12 8.8.3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Defaults {
    pub(super) duration: u32,
    pub(super) size: u32,
    pub(super) flags: u32,
}

/// Most tracks of a movie. Bounds the time of finding the track of a fragment.
const MAX_TRACKS: usize = 256;

/// One `trak`.
#[derive(Clone, Debug)]
pub(super) struct TrackConfig {
    pub(super) id: u32,
    /// Kind of its units. Only the first of several video tracks is [`Track::Video`], and only the first audio track that has
    /// samples remains [`Track::Audio`]; the others are [`Track::Other`].
    pub(super) track: Track,
    /// Kind of its samples, whether the track counts or not.
    kind: Track,
    /// Ticks in a second; may be 0 in damaged input.
    pub(super) timescale: u32,
    /// Added to every time of the track by the edit list, in ticks.
    pub(super) shift: i64,
    pub(super) entry: SampleEntry,
    pub(super) defaults: Defaults,
}

impl TrackConfig {
    /// Returns the presentation time in ns, plus [`ORIGIN`]. A time that the edit list moves below 0 is hidden: it counts as 0.
    pub(super) fn ns(&self, ticks: i64) -> Option<u64> {
        let shown = i128::from(ticks) + i128::from(self.shift);
        // Times that are negative by themselves stay in order; those that only the edit list makes negative are hidden.
        let ticks = if ticks < 0 { shown } else { shown.max(0) };
        let ns = (ticks * 1_000_000_000).checked_div(i128::from(self.timescale))?;
        u64::try_from((ns + i128::from(ORIGIN)).max(0)).ok()
    }
}

/// The `moov` in force.
#[derive(Clone, Debug)]
pub(super) struct Movie {
    pub(super) tracks: Vec<TrackConfig>,
    pub(super) info: Arc<StreamInfo>,
}

/// Why a `moov` cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MoovError {
    /// Its bytes break the grammar.
    Malformed,
    /// It holds samples of its own, or announces no fragments.
    Unfragmented,
}

impl Movie {
    /// Reads the content of a `moov`.
    pub(super) fn parse(moov: &[u8]) -> Result<Self, MoovError> {
        work::count(moov.len());
        let mut movie_timescale = 0;
        let mut tracks = Vec::new();
        let (mut extends, mut announces) = (None, false);
        for child in children(moov) {
            let (kind, body) = child.map_err(|_| MoovError::Malformed)?;
            match &kind {
                // Empty edits count in ticks of the movie, not of the track.
                b"mvhd" => movie_timescale = timescale(body).ok_or(MoovError::Malformed)?,
                b"trak" => {
                    if has_samples(body)? {
                        return Err(MoovError::Unfragmented);
                    }
                    if tracks.len() >= MAX_TRACKS {
                        return Err(MoovError::Malformed);
                    }
                    let mut trak = trak(body, movie_timescale).ok_or(MoovError::Malformed)?;
                    // Chunks begin at key frames of the first video track, so those of the others must not count.
                    if trak.track == Track::Video && tracks.iter().any(|t: &TrackConfig| t.track == Track::Video) {
                        trak.track = Track::Other;
                    }
                    tracks.push(trak);
                }
                b"mvex" => extends = Some(body),
                _ => announces |= find(body, b"trex").is_some(),
            }
        }
        let extends = match extends {
            Some(extends) => extends,
            // A box with a `trex` announces fragments: the name of the `mvex` is damaged.
            None if announces => return Err(MoovError::Malformed),
            None => return Err(MoovError::Unfragmented),
        };
        if tracks.is_empty() {
            return Err(MoovError::Malformed);
        }
        for (kind, body) in children(extends).map_while(Result::ok) {
            if &kind == b"trex" {
                trex(body, &mut tracks);
            }
        }
        let info = Arc::new(info(&tracks));
        Ok(Self { tracks, info })
    }

    /// Returns the index of the track with that `track_ID`.
    pub(super) fn index_of(&self, id: u32) -> Option<usize> {
        self.tracks.iter().position(|t| t.id == id)
    }

    /// Makes the first audio track with samples the only one that counts: others may have clocks of their own.
    pub(super) fn choose_sound(&mut self, trafs: &[Traf]) {
        let is_sound = |movie: &Self, i: usize| movie.tracks.get(i).is_some_and(|t| t.track == Track::Audio);
        let mut brought = trafs.iter().filter(|traf| traf.first.is_some()).filter_map(|traf| traf.track);
        let Some(first) = brought.find(|&i| is_sound(self, i)) else {
            return;
        };
        for (i, track) in self.tracks.iter_mut().enumerate() {
            if i != first && track.track == Track::Audio {
                track.track = Track::Other;
            }
        }
    }

    /// Returns one tick in ns, rounded up, of the video track, or of the first track if there is no video.
    pub(super) fn resolution(&self) -> u64 {
        let video = self.tracks.iter().find(|t| t.track == Track::Video);
        let timescale = video.or(self.tracks.first()).map_or(0, |t| t.timescale);
        if timescale == 0 {
            1
        } else {
            1_000_000_000u64.div_ceil(timescale.into()).max(1)
        }
    }
}

fn info(tracks: &[TrackConfig]) -> StreamInfo {
    // Of all tracks, whether they count or not: a player needs every codec.
    let of = |kind: Track| tracks.iter().filter(move |t| t.kind == kind);
    StreamInfo {
        codecs: codec::join(of(Track::Video).chain(of(Track::Audio)).map(|t| t.entry.name.as_deref())),
        has_video: of(Track::Video).next().is_some(),
        has_audio: of(Track::Audio).next().is_some(),
    }
}

/// Returns the `timescale` of an `mvhd` or `mdhd`, which begin alike.
fn timescale(body: &[u8]) -> Option<u32> {
    let mut fields = Fields(body);
    let (version, _) = fields.full_box()?;
    fields.word(version)?;
    fields.word(version)?;
    fields.u32()
}

/// Returns whether the sample table of a `trak` counts any samples (`stts`, `stsz`, `stz2`).
///
/// # Errors
/// [`MoovError::Malformed`] if a box counts more entries than it holds.
fn has_samples(trak: &[u8]) -> Result<bool, MoovError> {
    let table = || find(find(find(trak, b"mdia")?, b"minf")?, b"stbl");
    let Some(table) = table() else { return Ok(false) };
    let field = |body: &[u8], at: usize| body.get(at..).and_then(|rest| Fields(rest).u32()).unwrap_or(0);
    let mut has_some = false;
    for (kind, at) in [(b"stts", 4), (b"stsz", 8), (b"stz2", 8)] {
        let Some(body) = find(table, kind) else { continue };
        // Bits of an entry. In `stsz` a `sample_size` other than 0 replaces all entries; in `stz2` it is `field_size`.
        let entry: u64 = match (kind, field(body, 4)) {
            (b"stts", _) => 64,
            (b"stsz", 0) => 32,
            (b"stsz", _) => 0,
            (_, size) => (size & 0xff).into(),
        };
        let count = u64::from(field(body, at));
        let entries = body.len().saturating_sub(at + 4) as u64;
        if count.saturating_mul(entry).div_ceil(8) > entries {
            return Err(MoovError::Malformed);
        }
        has_some |= count > 0;
    }
    Ok(has_some)
}

fn trak(body: &[u8], movie_timescale: u32) -> Option<TrackConfig> {
    let mut header = Fields(find(body, b"tkhd")?);
    let (version, _) = header.full_box()?;
    // creation_time and modification_time (8.3.2).
    header.word(version)?;
    header.word(version)?;
    let id = header.u32()?;
    let media = find(body, b"mdia")?;
    let timescale = timescale(find(media, b"mdhd")?)?;
    let mut handler = Fields(find(media, b"hdlr")?);
    // Version, flags and pre_defined.
    handler.skip(8)?;
    let track = match &handler.four_cc()? {
        b"vide" => Track::Video,
        b"soun" => Track::Audio,
        _ => Track::Other,
    };
    let stsd = find(media, b"minf").and_then(|minf| find(find(minf, b"stbl")?, b"stsd"));
    let entry = match track {
        Track::Video => stsd.and_then(sample_entry::video).unwrap_or(SampleEntry::UNKNOWN),
        Track::Audio => SampleEntry {
            name: stsd.and_then(sample_entry::audio),
            ..SampleEntry::UNKNOWN
        },
        Track::Other => SampleEntry::UNKNOWN,
    };
    let edits = find(body, b"edts").and_then(|edts| find(edts, b"elst"));
    let shift = edits
        .and_then(|elst| edit_shift(elst, timescale, movie_timescale))
        .unwrap_or(0);
    Some(TrackConfig {
        id,
        track,
        kind: track,
        timescale,
        shift,
        entry,
        defaults: Defaults::default(),
    })
}

/// Returns what an edit list adds to every time, in ticks of the track. Empty edits delay the track; the first other edit sets
/// the media time that is shown at its start. Later edits are ignored: they cannot apply to a stream without an end.
fn edit_shift(elst: &[u8], timescale: u32, movie_timescale: u32) -> Option<i64> {
    let mut fields = Fields(elst);
    let (version, _) = fields.full_box()?;
    let mut delay = 0i128;
    for _ in 0..fields.u32()? {
        let duration = fields.word(version)?;
        let media_time = if version == 1 {
            fields.u64()?.cast_signed()
        } else {
            fields.u32()?.cast_signed().into()
        };
        // media_rate.
        fields.u32()?;
        if media_time >= 0 {
            return i64::try_from(delay - i128::from(media_time)).ok();
        }
        delay += (i128::from(duration) * i128::from(timescale)).checked_div(movie_timescale.into())?;
    }
    None
}

fn trex(body: &[u8], tracks: &mut [TrackConfig]) -> Option<()> {
    let mut fields = Fields(body);
    fields.full_box()?;
    // track_ID and default_sample_description_index, then the defaults (8.8.3).
    let id = fields.u32()?;
    fields.u32()?;
    let defaults = Defaults {
        duration: fields.u32()?,
        size: fields.u32()?,
        flags: fields.u32()?,
    };
    for track in tracks.iter_mut().filter(|t| t.id == id) {
        track.defaults = defaults;
    }
    Some(())
}
