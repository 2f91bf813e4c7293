//! The samples of a fragmented MP4 chunk. See [`crate::container::samples`].
//!
//! PURE. Sources: ISO/IEC 14496-12 8.8 (`moof`, `traf`, `tfhd`, `tfdt`, `trun`), 14496-14 5.6 (`esds`), 14496-15 (`avcC`,
//! `hvcC`), the Opus in ISO Media File Format binding 4.3.2 (`dOps`), those of the VP codecs (`vpcC`) and of AV1 (`av1C`).

use bytes::Bytes;

use super::boxes::{Fields, Header, Parsed, children, find, header};
use super::moov::{Movie, TrackConfig};
use super::sample_entry::{VISUAL, audio_entry, esds, first};
use crate::container::Track;
use crate::container::nal::VideoCodec;
use crate::container::samples::sps::Size;
use crate::container::samples::{Codec, MAX_SAMPLES, Sample, SampleTrack, Samples, SamplesError, stated};

/// Reads all fragments of a chunk. Ends at the first bytes that are no box.
pub(in crate::container) fn read(chunk: &Bytes) -> Result<Samples, SamplesError> {
    let mut movie = None;
    let mut tracks = Vec::new();
    let mut at = 0;
    while let Some(Parsed::Header(Header { kind, len, size })) = chunk.get(at..).map(header) {
        let size = size.map_or(Some(chunk.len() - at), |size| usize::try_from(size).ok());
        let Some(end) = size.and_then(|size| at.checked_add(size)) else {
            break;
        };
        let body = chunk.get(at + len..end.min(chunk.len())).unwrap_or_default();
        match &kind {
            // Another head would have begun another chunk.
            b"moov" if movie.is_none() => {
                let parsed = Movie::parse(body).map_err(|_| SamplesError::NoHeader)?;
                tracks = configure(body, &parsed);
                movie = Some(parsed);
            }
            b"moof" => {
                if let Some(movie) = &movie {
                    fragment(chunk, at, body, movie, &mut tracks)?;
                }
            }
            _ => {}
        }
        at = end;
    }
    if movie.is_none() {
        return Err(SamplesError::NoHeader);
    }
    let mut samples = Samples::default();
    tracks.into_iter().for_each(|reading| samples.offer(reading.track));
    Ok(samples)
}

/// A track while it is read.
struct Reading {
    /// Its index in the movie.
    index: usize,
    /// Decode time of the next fragment in ticks, if that fragment has no `tfdt`.
    time: i64,
    track: SampleTrack,
}

/// Returns the video and audio tracks of a `moov`.
fn configure(moov: &[u8], movie: &Movie) -> Vec<Reading> {
    let mut found = Vec::new();
    let traks = children(moov).map_while(Result::ok).filter(|(kind, _)| kind == b"trak");
    for (index, ((_, trak), config)) in traks.zip(&movie.tracks).enumerate() {
        if config.track == Track::Other {
            continue;
        }
        let stsd = find(trak, b"mdia")
            .and_then(|b| find(b, b"minf"))
            .and_then(|b| find(b, b"stbl"))
            .and_then(|b| find(b, b"stsd"));
        let is_video = config.track == Track::Video;
        let codec = stsd
            .and_then(|stsd| entry(stsd, is_video))
            .unwrap_or_else(|| Codec::Other("unknown".into()));
        let track = SampleTrack {
            is_video,
            codec,
            samples: Vec::new(),
        };
        found.push(Reading { index, time: 0, track });
    }
    found
}

/// Returns the codec of the first entry of an `stsd`.
fn entry(stsd: &[u8], is_video: bool) -> Option<Codec> {
    let (_, kind, body) = first(stsd)?;
    let boxes = if is_video { body.get(VISUAL..)? } else { audio_entry(stsd)?.1 };
    let inner = |kind: &[u8; 4]| find(boxes, kind).map(Bytes::copy_from_slice);
    let codec = match &kind {
        b"avc1" | b"avc3" => inner(b"avcC").map(Codec::H264),
        b"hvc1" | b"hev1" => inner(b"hvcC").map(Codec::H265),
        b"vp08" => stated(VideoCodec::Vp8, &[], size(body)),
        b"vp09" => stated(VideoCodec::Vp9, &inner(b"vpcC").unwrap_or_default(), size(body)),
        b"av01" => stated(VideoCodec::Av1, &inner(b"av1C").unwrap_or_default(), size(body)),
        b"mp4a" => esds(boxes).and_then(aac).map(Codec::Aac),
        b"Opus" => inner(b"dOps").and_then(|dops| opus(&dops)).map(Codec::Opus),
        _ => None,
    };
    Some(codec.unwrap_or_else(|| Codec::Other(String::from_utf8_lossy(&kind).into_owned())))
}

/// Returns the size in a VisualSampleEntry (14496-12 12.1.3).
fn size(entry: &[u8]) -> Option<Size> {
    let &[w0, w1, h0, h1] = entry.get(24..)?.first_chunk::<4>()?;
    let pixels = |high, low| u32::from(u16::from_be_bytes([high, low]));
    Some(Size {
        width: pixels(w0, w1),
        height: pixels(h0, h1),
    })
}

/// Returns the AudioSpecificConfig of an `esds` of AAC.
fn aac(esds: &[u8]) -> Option<Bytes> {
    let mut rest = esds.get(4..)?;
    loop {
        let (&tag, after) = rest.split_first()?;
        let (len, body) = descriptor_len(after)?;
        match tag {
            // ES_Descriptor: ES_ID and flags. Optional fields that the flags announce are rare and not read.
            3 => rest = body.get(3..)?,
            // DecoderConfigDescriptor: objectTypeIndication 0x40 is MPEG-4 audio.
            4 if body.first() == Some(&0x40) => rest = body.get(13..)?,
            5 => return body.get(..len).map(Bytes::copy_from_slice),
            _ => return None,
        }
    }
}

fn descriptor_len(mut data: &[u8]) -> Option<(usize, &[u8])> {
    let mut len = 0;
    for _ in 0..4 {
        let (&byte, rest) = data.split_first()?;
        (len, data) = (len << 7 | usize::from(byte & 0x7f), rest);
        if byte & 0x80 == 0 {
            break;
        }
    }
    Some((len, data))
}

/// Converts a `dOps` to the identification header of RFC 7845, whose numbers are little-endian.
fn opus(dops: &[u8]) -> Option<Bytes> {
    let &[_, channels, skip0, skip1, r0, r1, r2, r3, g0, g1, ref mapping @ ..] = dops else {
        return None;
    };
    let mut head = b"OpusHead\x01".to_vec();
    head.extend([channels, skip1, skip0, r3, r2, r1, r0, g1, g0]);
    head.extend_from_slice(mapping);
    Some(head.into())
}

/// Reads the tracks of a `moof` at `at`.
fn fragment(chunk: &Bytes, at: usize, moof: &[u8], movie: &Movie, tracks: &mut [Reading]) -> Result<(), SamplesError> {
    let mut base = at;
    for (_, traf) in children(moof).map_while(Result::ok).filter(|(kind, _)| kind == b"traf") {
        let mut run: Option<Run<'_>> = None;
        for (kind, body) in children(traf).map_while(Result::ok) {
            match (&kind, run.as_mut()) {
                (b"tfhd", None) => {
                    run = Run::begin(body, movie, at, base);
                    if let Some(run) = &mut run
                        && let Some(reading) = tracks.iter().find(|reading| reading.index == run.index)
                    {
                        // Without a `tfdt` a fragment continues where the one before ended.
                        run.time = reading.time;
                    }
                }
                (b"tfdt", Some(run)) => run.time = decode_time(body, run.time).unwrap_or(run.time),
                (b"trun", Some(run)) => {
                    let mut reading = tracks.iter_mut().find(|reading| reading.index == run.index);
                    // A truncated sample ends its run; the samples before it count.
                    let _ = run.add(body, chunk, reading.as_mut().map(|reading| &mut reading.track));
                    if let Some(reading) = reading {
                        reading.time = run.time;
                    }
                    // Without default-base-is-moof the data of the next track follow directly (8.8.7).
                    base = run.at;
                }
                _ => {}
            }
        }
        if tracks.iter().map(|reading| reading.track.samples.len()).sum::<usize>() > MAX_SAMPLES {
            return Err(SamplesError::TooMany);
        }
    }
    Ok(())
}

/// Returns the time of a `tfdt`. One of 32 bits is unwrapped to the time nearest to `last`, the end of the previous fragment.
fn decode_time(body: &[u8], last: i64) -> Option<i64> {
    const WRAP: i64 = 1 << 32;
    let mut fields = Fields(body);
    let (version, _) = fields.full_box()?;
    let time = fields.word(version)?.cast_signed();
    // Not before half a wrap: a time far ahead would become negative.
    if version == 0 && last > WRAP / 2 {
        let turns = (last - time).saturating_add(WRAP / 2).div_euclid(WRAP);
        return Some(time.saturating_add(turns.saturating_mul(WRAP)));
    }
    Some(time)
}

/// State of reading the runs of one `traf`.
struct Run<'a> {
    config: &'a TrackConfig,
    index: usize,
    time: i64,
    base: usize,
    at: usize,
    duration: u32,
    size: u32,
    flags: u32,
}

impl<'a> Run<'a> {
    fn begin(tfhd: &[u8], movie: &'a Movie, moof: usize, base: usize) -> Option<Self> {
        let mut fields = Fields(tfhd);
        let (_, flags) = fields.full_box()?;
        let index = movie.index_of(fields.u32()?)?;
        let config = movie.tracks.get(index)?;
        let mut base = if flags & 0x02_0000 != 0 { moof } else { base };
        if flags & 0x01 != 0 {
            base = usize::try_from(fields.u64()?).ok()?;
        }
        if flags & 0x02 != 0 {
            fields.u32()?;
        }
        let mut or = |bit, default| if flags & bit != 0 { fields.u32() } else { Some(default) };
        let defaults = config.defaults;
        let (duration, size, flags) = (
            or(0x08, defaults.duration)?,
            or(0x10, defaults.size)?,
            or(0x20, defaults.flags)?,
        );
        Some(Self {
            config,
            index,
            time: 0,
            base,
            at: base,
            duration,
            size,
            flags,
        })
    }

    /// Takes one `trun`. Ends at the first sample that is not complete.
    fn add(&mut self, body: &[u8], chunk: &Bytes, mut track: Option<&mut SampleTrack>) -> Option<()> {
        let mut fields = Fields(body);
        let (_, flags) = fields.full_box()?;
        let count = fields.u32()?;
        if flags & 0x01 != 0 {
            let offset = isize::try_from(fields.u32()?.cast_signed()).ok()?;
            self.at = self.base.checked_add_signed(offset)?;
        }
        let mut first_flags = if flags & 0x04 != 0 { Some(fields.u32()?) } else { None };
        // A `trun` of 20 bytes may claim 2^32 samples. Those that no player is given are passed over without a loop.
        if flags & 0xf00 == 0 && (self.size == 0 || track.is_none()) {
            return self.skip(count, chunk);
        }
        for _ in 0..count {
            let mut field = |bit, default| if flags & bit != 0 { fields.u32() } else { Some(default) };
            let duration = field(0x100, self.duration)?;
            let size = field(0x200, self.size)?;
            let own = field(0x400, self.flags)?;
            let offset = field(0x800, 0)?.cast_signed();
            let end = self.at.checked_add(usize::try_from(size).ok()?)?;
            if end > chunk.len() {
                return None;
            }
            let sample_flags = first_flags.take().unwrap_or(own);
            let timescale = self.config.timescale.max(1);
            let ns = |ticks: i64| i64::try_from(i128::from(ticks) * 1_000_000_000 / i128::from(timescale)).unwrap_or(i64::MAX);
            if let Some(track) = track.as_deref_mut() {
                // One more than the limit is stored, so that the caller sees that it is exceeded.
                if track.samples.len() > MAX_SAMPLES {
                    return None;
                }
                let key = !track.is_video || (sample_flags & 0x0001_0000 == 0 && sample_flags >> 24 & 3 != 1);
                track.samples.push(Sample {
                    dts: ns(self.time.saturating_add(self.config.shift)),
                    pts: ns(self.time.saturating_add(self.config.shift).saturating_add(offset.into())),
                    key,
                    data: chunk.slice(self.at..end),
                });
            }
            self.time = self.time.saturating_add(duration.into());
            self.at = end;
        }
        Some(())
    }

    /// Passes over samples that have the default in every field, as far as all of them are in the chunk.
    fn skip(&mut self, count: u32, chunk: &Bytes) -> Option<()> {
        let bytes = usize::try_from(u64::from(count) * u64::from(self.size)).ok()?;
        self.at = self.at.checked_add(bytes).filter(|end| *end <= chunk.len())?;
        let ticks = i64::from(count).saturating_mul(self.duration.into());
        self.time = self.time.saturating_add(ticks);
        Some(())
    }
}
