//! Reads a `moof`: the tracks and times of its samples, and where the first picture is.
//!
//! PURE. Source: ISO/IEC 14496-12 8.8.4–8.8.8 (`moof`, `traf`, `tfhd`, `trun`), 8.8.12 (`tfdt`).

use super::boxes::{Fields, Malformed, children};
use super::moov::{Defaults, Movie, TrackConfig};
use crate::container::Track;
use crate::container::unwrap::Unwrapper;
use crate::container::work;

/// A longer sample duration counts as wrong, unless the sample before it in its run lasts at least half as long: 30 s.
const MAX_DURATION: i128 = 30_000_000_000;

/// Most samples that are read as parts of the first picture and of the one after it.
const MAX_PARTS: u32 = 64;

/// The first picture of a run: all samples with the first decode time, since some writers make a sample of each slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// Bytes from the start of the `moof`.
    pub(super) offset: i64,
    pub(super) size: u32,
    /// Bytes of the picture after it.
    pub(super) next: u32,
    /// Whether its flags mark it as a sync sample.
    pub(super) sync: bool,
    /// Whether later samples of the run are shown before it.
    pub(super) leads: bool,
}

/// The samples of one track.
#[derive(Clone, Copy, Debug)]
pub(super) struct Traf {
    /// Index of the track in the movie; `None` if the movie has no such track.
    pub(super) track: Option<usize>,
    /// First sample; `None` if there are none.
    pub(super) first: Option<Sample>,
    /// Presentation time of the first sample, in ticks without the edit list.
    pub(super) start: i64,
    /// Latest end of a sample, in ticks without the edit list.
    pub(super) end: i64,
    /// Decode time of the first sample.
    decoded_from: i64,
    /// Decode time after the last sample, computed without the durations that count as wrong.
    decoded_to: i64,
    /// Decode time after the last sample.
    next: i64,
    /// State of the unwrapper after this `tfdt`, if it has 32 bits, which wrap.
    unwrapped: Option<Unwrapper>,
    /// End of its data, in bytes from the start of the `moof`.
    pub(super) data_end: i64,
    /// A sample after the first picture is a sync sample, and not all samples are.
    encloses_key: bool,
}

/// Why a `moof` cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MoofError {
    /// Its bytes break the grammar.
    Malformed,
    /// A `tfhd` holds a file offset.
    BaseDataOffset,
}

impl From<Malformed> for MoofError {
    fn from(_: Malformed) -> Self {
        Self::Malformed
    }
}

/// Where the last fragment of each track ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Times {
    /// For each track of the movie: decode time after its last fragment, and the unwrapper of its 32-bit times.
    tracks: Vec<(i64, Unwrapper)>,
}

impl Times {
    fn get(&self, track: Option<usize>) -> (i64, Unwrapper) {
        track.and_then(|i| self.tracks.get(i)).copied().unwrap_or_default()
    }

    /// Notes where a fragment ended.
    pub(super) fn advance(&mut self, movie: &Movie, trafs: &[Traf]) {
        self.tracks.resize(movie.tracks.len(), (0, Unwrapper::default()));
        for traf in trafs {
            if let Some((next, unwrapped)) = traf.track.and_then(|i| self.tracks.get_mut(i)) {
                *next = traf.next;
                *unwrapped = traf.unwrapped.unwrap_or(*unwrapped);
            }
        }
    }
}

/// Reads the content of a `moof`.
pub(super) fn parse(moof: &[u8], movie: &Movie, times: &Times) -> Result<Vec<Traf>, MoofError> {
    work::count(moof.len());
    let mut trafs = Vec::with_capacity(1);
    let mut has_header = false;
    // Default base of the next track's data (14496-12 8.8.7): the start of the moof, then the end of the last track's data.
    let mut base = 0;
    for child in children(moof) {
        let (kind, body) = child?;
        match &kind {
            // Mandatory (8.8.5): without it these bytes are no `moof`.
            b"mfhd" => has_header = true,
            // A `moof` cannot contain these: its size is wrong and covers what follows.
            b"moof" | b"mdat" | b"moov" | b"ftyp" | b"styp" => return Err(MoofError::Malformed),
            b"traf" => {
                let (traf, data_end) = traf(body, movie, times, base)?;
                base = data_end;
                trafs.push(traf);
            }
            _ => {}
        }
    }
    if has_header { Ok(trafs) } else { Err(MoofError::Malformed) }
}

fn traf(body: &[u8], movie: &Movie, times: &Times, base: i64) -> Result<(Traf, i64), MoofError> {
    let mut run = None;
    let mut track = None;
    let (mut unwrapped, mut timescale) = (None, 0);
    for child in children(body) {
        let (kind, body) = child?;
        match &kind {
            b"tfhd" => {
                let header = tfhd(body, movie).ok_or(Malformed)?;
                if header.has_base_data_offset {
                    return Err(MoofError::BaseDataOffset);
                }
                track = header.track;
                let time = times.get(track).0;
                let base = if header.default_base_is_moof { 0 } else { base };
                timescale = track.and_then(|i| movie.tracks.get(i)).map_or(0, |t| t.timescale);
                run = Some(Run {
                    time,
                    at: base,
                    base,
                    defaults: header.defaults,
                    timescale,
                    first_offset: None,
                    length: 0,
                    excess: 0,
                    start: 0,
                    // Below any time, since times below 0 are legal.
                    end: i64::MIN,
                    first: None,
                    parts: Parts::default(),
                    first_time: 0,
                    later_sync: false,
                    not_sync: false,
                });
            }
            b"tfdt" => {
                let time = tfdt(body, times.get(track).1, timescale, &mut unwrapped).ok_or(Malformed)?;
                run.as_mut().ok_or(Malformed)?.time = time;
            }
            b"trun" => run.as_mut().ok_or(Malformed)?.add(body).ok_or(Malformed)?,
            _ => {}
        }
    }
    let run = run.ok_or(Malformed)?;
    let end = run.end.max(run.start);
    Ok((
        Traf {
            track,
            first: run.first,
            start: run.start,
            end,
            decoded_from: run.first_time,
            decoded_to: run.time.saturating_sub(run.excess),
            next: run.time,
            unwrapped,
            data_end: run.at,
            encloses_key: run.later_sync && run.not_sync,
        },
        run.at,
    ))
}

struct TrackHeader {
    track: Option<usize>,
    has_base_data_offset: bool,
    default_base_is_moof: bool,
    defaults: Defaults,
}

fn tfhd(body: &[u8], movie: &Movie) -> Option<TrackHeader> {
    let mut fields = Fields(body);
    let (_, flags) = fields.full_box()?;
    let track = movie.index_of(fields.u32()?);
    let mut defaults = track
        .and_then(|i| movie.tracks.get(i))
        .map_or_else(Defaults::default, |t| t.defaults);
    // base_data_offset, sample_description_index and the defaults are present by their flags (8.8.7).
    if flags & 0x01 != 0 {
        fields.u64()?;
    }
    if flags & 0x02 != 0 {
        fields.u32()?;
    }
    if flags & 0x08 != 0 {
        defaults.duration = fields.u32()?;
    }
    if flags & 0x10 != 0 {
        defaults.size = fields.u32()?;
    }
    if flags & 0x20 != 0 {
        defaults.flags = fields.u32()?;
    }
    Some(TrackHeader {
        track,
        has_base_data_offset: flags & 0x01 != 0,
        default_base_is_moof: flags & 0x02_0000 != 0,
        defaults,
    })
}

/// Returns the `baseMediaDecodeTime`. One of 32 bits wraps, at 90 kHz after 13 hours. One of 64 bits is signed in practice:
/// muxers start below 0 if decoding starts before time 0.
fn tfdt(body: &[u8], times: Unwrapper, timescale: u32, unwrapped: &mut Option<Unwrapper>) -> Option<i64> {
    let mut fields = Fields(body);
    let (version, _) = fields.full_box()?;
    let time = fields.word(version)?.cast_signed();
    if version == 1 {
        return Some(time);
    }
    let mut times = times;
    // Times less than a minute apart confirm each other, as in the other containers.
    let full = times.unwrap(time, 1 << 32, i64::from(timescale).saturating_mul(60));
    *unwrapped = Some(times);
    Some(full)
}

/// The samples of a `traf`, summed up.
struct Run {
    /// Decode time of the next sample.
    time: i64,
    /// Offset of the next sample from the start of the `moof`.
    at: i64,
    base: i64,
    defaults: Defaults,
    /// Ticks in a second.
    timescale: u32,
    /// Composition offset of the first sample.
    first_offset: Option<i64>,
    /// Last duration that counted as right.
    length: i64,
    /// By how much the decode time is ahead of the sum of the durations that counted as right.
    excess: i64,
    start: i64,
    end: i64,
    first: Option<Sample>,
    parts: Parts,
    /// Decode time of the first sample.
    first_time: i64,
    /// A sample of a later decode time is a sync sample.
    later_sync: bool,
    /// A sample is no sync sample.
    not_sync: bool,
}

/// Returns whether sample flags mark a sync sample: `sample_is_non_sync_sample` is 0, and `sample_depends_on` is not 1 (not an
/// I picture).
fn is_sync(flags: u32) -> bool {
    flags & 0x0001_0000 == 0 && flags >> 24 & 3 != 1
}

/// Which samples belong to the first picture of a run, and to the second.
#[derive(Clone, Copy, Debug, Default)]
struct Parts {
    /// Decode time of the current picture.
    time: i64,
    /// Where its data would continue.
    at: i64,
    count: u32,
    /// The current picture is the second.
    is_second: bool,
    /// No later sample belongs to either.
    is_over: bool,
}

impl Parts {
    fn add(&mut self, first: &mut Sample, (at, size): (i64, u32), time: i64) {
        self.count += 1;
        // A picture is read in one piece: data that is not contiguous is ignored.
        self.is_over |= at != self.at || self.count > MAX_PARTS || (time != self.time && self.is_second);
        if self.is_over {
            return;
        }
        self.is_second |= time != self.time;
        self.time = time;
        self.at = at.saturating_add(size.into());
        let part = if self.is_second { &mut first.next } else { &mut first.size };
        *part = part.saturating_add(size);
    }
}

impl Run {
    /// Takes one `trun`.
    fn add(&mut self, body: &[u8]) -> Option<()> {
        let mut fields = Fields(body);
        let (_, flags) = fields.full_box()?;
        let count = fields.u32()?;
        // data_offset and first_sample_flags are present by their flags (8.8.8).
        if flags & 0x01 != 0 {
            self.at = self.base.saturating_add(fields.u32()?.cast_signed().into());
        }
        let mut first_flags = if flags & 0x04 != 0 { Some(fields.u32()?) } else { None };
        // No sample has fields of its own: a `trun` of a few bytes could demand a loop of millions.
        if flags & 0xf00 == 0 {
            self.add_alike(count, first_flags);
            return Some(());
        }
        for _ in 0..count {
            let mut field = |bit, default| if flags & bit != 0 { fields.u32() } else { Some(default) };
            let duration = field(0x100, self.defaults.duration)?;
            let size = field(0x200, self.defaults.size)?;
            let own_flags = field(0x400, self.defaults.flags)?;
            // Signed in both versions: writers put negative offsets into version 0 too.
            let offset = field(0x800, 0)?.cast_signed();
            self.sample(duration, size, first_flags.take().unwrap_or(own_flags), offset);
        }
        Some(())
    }

    /// Takes `count` samples that have the default in every field, without a loop over them.
    fn add_alike(&mut self, count: u32, first_flags: Option<u32>) {
        let Some(more) = count.checked_sub(1) else { return };
        let Defaults { duration, size, flags } = self.defaults;
        self.sample(duration, size, first_flags.unwrap_or(flags), 0);
        // Equal durations of many samples are right, however long they are.
        let duration = self.signed(duration);
        if more > 0 {
            self.part(size);
            self.note_flags(flags);
        }
        self.time = self.time.saturating_add(i64::from(more).saturating_mul(duration));
        self.at = self.at.saturating_add(i64::from(more).saturating_mul(size.into()));
        self.end = self.end.max(self.time.saturating_sub(self.excess));
    }

    fn is_believed(&self, duration: i64) -> bool {
        let ns = i128::from(duration) * 1_000_000_000;
        ns <= MAX_DURATION * i128::from(self.timescale) || duration <= self.length.saturating_mul(2)
    }

    /// Returns the duration that the muxer meant. Some muxers write a negative duration where times go back. With a fine
    /// timescale a large value can be a real duration.
    fn signed(&self, duration: u32) -> i64 {
        let unsigned = i64::from(duration);
        if self.is_believed(unsigned) {
            unsigned
        } else {
            duration.cast_signed().into()
        }
    }

    /// Adds a sample to the picture that it is part of.
    fn part(&mut self, size: u32) {
        if let Some(first) = self.first.as_mut().filter(|_| !self.parts.is_over) {
            self.parts.add(first, (self.at, size), self.time);
        }
    }

    fn note_flags(&mut self, flags: u32) {
        let is_sync = is_sync(flags);
        self.later_sync |= is_sync && self.time != self.first_time;
        self.not_sync |= !is_sync;
    }

    fn sample(&mut self, duration: u32, size: u32, flags: u32, offset: i32) {
        let pts = self.time.saturating_add(offset.into()).saturating_sub(self.excess);
        let duration = self.signed(duration);
        // A wrong duration is replaced by that of the sample before: one of an hour would end the chunk.
        let believed = if duration >= 0 && self.is_believed(duration) {
            duration
        } else {
            self.length
        };
        if self.first.is_none() {
            self.start = pts;
            self.first_time = self.time;
            self.first = Some(Sample {
                offset: self.at,
                size: 0,
                next: 0,
                sync: is_sync(flags),
                leads: false,
            });
            (self.parts.time, self.parts.at) = (self.time, self.at);
        } else if let Some(first) = self.first.as_mut().filter(|_| pts < self.start) {
            first.leads = true;
        }
        self.note_flags(flags);
        self.part(size);
        self.length = believed;
        self.excess = self.excess.saturating_add(duration.saturating_sub(believed));
        // An offset far above the first one is wrong. Use the first one: the sample counts all the same.
        let offset = i64::from(offset);
        let first_offset = *self.first_offset.get_or_insert(offset);
        let is_stray = i128::from(offset - first_offset) * 1_000_000_000 > MAX_DURATION * i128::from(self.timescale);
        let shown = if is_stray {
            pts.saturating_sub(offset).saturating_add(first_offset)
        } else {
            pts
        };
        self.end = self.end.max(shown.saturating_add(believed));
        self.time = self.time.saturating_add(duration);
        self.at = self.at.saturating_add(size.into());
    }
}

/// When a fragment is shown and decoded, ns, and where its first sample is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct When {
    /// Presentation time of the first sample.
    pub(super) start: Option<u64>,
    /// Latest end of a sample.
    pub(super) end: Option<u64>,
    /// See [`Unit::decode`](crate::container::Unit::decode).
    pub(super) decode: Option<(u64, u64)>,
    /// Offset of the first sample in the input.
    pub(super) sample_at: Option<u64>,
}

/// The tracks of a whole `moof`, summed up as the unit that it begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fragment {
    /// Video, if the fragment holds any.
    pub(super) track: Track,
    /// Times of the video, if the fragment holds any.
    pub(super) when: When,
    /// Index of the video track and its first sample.
    pub(super) picture: Option<(usize, Sample)>,
    /// A video sample after the first picture is a sync sample.
    pub(super) encloses_key: bool,
}

impl Fragment {
    /// Sums up the tracks of the `moof` at `at`; `None` if it holds no samples.
    pub(super) fn of(at: u64, trafs: &[Traf], movie: &Movie) -> Option<Self> {
        let mut sum: Option<Self> = None;
        for traf in trafs {
            let Some(first) = traf.first else { continue };
            let config: Option<&TrackConfig> = traf.track.and_then(|i| movie.tracks.get(i));
            let track = config.map_or(Track::Other, |c| c.track);
            let picture = traf.track.filter(|_| track == Track::Video).map(|i| (i, first));
            let ns = |ticks| config.and_then(|c| c.ns(ticks));
            let when = When {
                start: ns(traf.start),
                end: ns(traf.end),
                decode: ns(traf.decoded_from).zip(ns(traf.decoded_to)),
                sample_at: at.checked_add_signed(first.offset),
            };
            let this = Self {
                track,
                when,
                picture,
                encloses_key: picture.is_some() && traf.encloses_key,
            };
            sum = Some(match sum {
                None => this,
                Some(sum) => sum.with(this),
            });
        }
        sum
    }

    fn with(self, other: Self) -> Self {
        match (self.track, other.track) {
            // Pictures determine cuts and times; of several tracks with pictures, the first does.
            (Track::Video, _) => self,
            (_, Track::Video) | (Track::Other, Track::Audio) => other,
            _ => {
                let start = self.when.start.into_iter().chain(other.when.start).min();
                let first = if start == self.when.start { self } else { other };
                Self {
                    when: When {
                        start,
                        end: self.when.end.max(other.when.end),
                        decode: None,
                        sample_at: first.when.sample_at,
                    },
                    ..self
                }
            }
        }
    }
}
