//! Reads the samples of a Matroska or WebM chunk. See [`crate::container::samples`].
//!
//! PURE. Sources: RFC 9559 5.1.3 (Cluster), 5.1.4 (Tracks), 10 (blocks and lacing), the Matroska codec mappings, the WebM
//! container guidelines (CodecPrivate of VP9). Blocks have a presentation time but no decode time.

use bytes::Bytes;

use super::block::Block;
use super::ebml::{self, Header, Read};
use super::head::{CLUSTER, INFO, SEGMENT, TIMESTAMP_SCALE, TRACKS};
use super::tracks::{CODEC_ID, CODEC_PRIVATE, TRACK_ENTRY, TRACK_NUMBER, TrackEntry, Tracks, VIDEO};
use crate::container::Track;
use crate::container::nal::{self, Framing, VideoCodec};
use crate::container::samples::sps::Size;
use crate::container::samples::vpx::Vp9;
use crate::container::samples::{Codec, Sample, SampleTrack, Samples, SamplesError, stated};

const TIMESTAMP: u32 = 0xE7;
const SIMPLE_BLOCK: u32 = 0xA3;
const BLOCK_GROUP: u32 = 0xA0;
const BLOCK: u32 = 0xA1;
const PIXEL_WIDTH: u32 = 0xB0;
const PIXEL_HEIGHT: u32 = 0xBA;

/// Reads the elements up to the first one that is incomplete or invalid.
pub(in crate::container) fn read(chunk: &Bytes) -> Result<Samples, SamplesError> {
    let mut reader = Reader {
        chunk,
        scale: 1_000_000,
        cluster: 0,
        tracks: Tracks::default(),
        samples: Samples::default(),
    };
    let mut at = 0;
    while let Some(Read::Got(Header { id, size, len, .. })) = chunk.get(at..).map(ebml::header) {
        let body = at + len;
        // Segments and Clusters are entered regardless of their size, since it may be unknown: their children follow.
        if matches!(id, SEGMENT | CLUSTER) {
            at = body;
            continue;
        }
        let Some(end) = size.and_then(|size| body.checked_add(usize::try_from(size).ok()?)) else {
            break;
        };
        if end > chunk.len() {
            break;
        }
        reader.element(id, body, end);
        at = end;
    }
    let Reader { samples, tracks, .. } = reader;
    if tracks.entries.is_empty() {
        return Err(SamplesError::NoHeader);
    }
    Ok(samples)
}

struct Reader<'a> {
    chunk: &'a Bytes,
    /// Duration of a tick in ns.
    scale: u64,
    /// Timestamp of the Cluster in ticks.
    cluster: u64,
    tracks: Tracks,
    samples: Samples,
}

impl Reader<'_> {
    fn element(&mut self, id: u32, from: usize, to: usize) {
        let body = self.chunk.get(from..to).unwrap_or_default();
        match id {
            INFO => {
                let scale = ebml::children(body).flatten().find(|child| child.id == TIMESTAMP_SCALE);
                self.scale = scale
                    .and_then(|child| ebml::uint(child.body))
                    .filter(|scale| *scale > 0)
                    .unwrap_or(self.scale);
            }
            TRACKS => self.tracks(body),
            TIMESTAMP => self.cluster = ebml::uint(body).unwrap_or(self.cluster),
            SIMPLE_BLOCK => self.block(from, to),
            BLOCK_GROUP => {
                for child in ebml::children(body).flatten().filter(|child| child.id == BLOCK) {
                    let end = from + child.at + child.total;
                    self.block(end - child.body.len(), end);
                }
            }
            _ => {}
        }
    }

    fn tracks(&mut self, body: &[u8]) {
        let Ok(tracks) = Tracks::parse(body) else { return };
        for entry in ebml::children(body).flatten().filter(|child| child.id == TRACK_ENTRY) {
            let child = |id| {
                ebml::children(entry.body)
                    .flatten()
                    .find(move |child| child.id == id)
                    .map(|child| child.body)
            };
            let number = child(TRACK_NUMBER).and_then(ebml::uint);
            let Some(known) = number.and_then(|number| tracks.find(number)) else {
                continue;
            };
            let private = child(CODEC_PRIVATE).unwrap_or_default();
            let size = child(VIDEO).and_then(size);
            let codec = match known.codec {
                // CodecPrivate of VP9 is a list of features, not the record that MP4 and FLV contain.
                VideoCodec::Vp9 => Some(Codec::Vp9(Vp9::of_features(private, size))),
                other => stated(other, private, size),
            };
            let codec = codec.unwrap_or_else(|| named(ebml::string(child(CODEC_ID).unwrap_or_default()), private));
            let track = |is_video| SampleTrack {
                is_video,
                codec,
                samples: Vec::new(),
            };
            match known.track {
                Track::Video => self.samples.video.get_or_insert(track(true)),
                Track::Audio => self.samples.audio.get_or_insert(track(false)),
                Track::Other => continue,
            };
        }
        // The first Tracks count: different ones begin another chunk, so further ones here are repetitions.
        if self.tracks.entries.is_empty() {
            self.tracks = tracks;
        }
    }

    fn block(&mut self, from: usize, to: usize) {
        let body = self.chunk.slice(from..to);
        let Read::Got(block) = Block::parse(&body) else { return };
        let Some(entry) = self.tracks.find(block.number) else { return };
        let ticks = i64::try_from(self.cluster)
            .unwrap_or(i64::MAX)
            .saturating_add(block.relative.into());
        let time = ticks.saturating_mul(i64::try_from(self.scale).unwrap_or(1));
        let first_audio = self
            .tracks
            .entries
            .iter()
            .find(|entry| entry.track == Track::Audio)
            .map(|entry| entry.number);
        let track = match entry.track {
            Track::Video => self.samples.video.as_mut(),
            Track::Audio if first_audio == Some(entry.number) => self.samples.audio.as_mut(),
            _ => None,
        };
        let (Some(track), Some(frames)) = (track, block.frames_in(&body)) else {
            return;
        };
        // A laced block has only the time of its first frame: the others follow at intervals of DefaultDuration.
        let step = entry.default_duration.and_then(|ns| i64::try_from(ns).ok()).unwrap_or(0);
        for (index, range) in (0i64..).zip(frames) {
            let data = restored(entry, body.slice(range));
            let pts = time + index * step;
            let key = !track.is_video || is_key(entry, &data, block.flagged);
            track.samples.push(Sample {
                dts: pts,
                pts,
                key,
                data,
            });
        }
    }
}

/// Puts the bytes that header stripping removed back in front of a frame.
fn restored(entry: &TrackEntry, frame: Bytes) -> Bytes {
    if entry.stripped.is_empty() {
        frame
    } else {
        [&entry.stripped[..], &frame].concat().into()
    }
}

fn is_key(entry: &TrackEntry, frame: &[u8], flagged: bool) -> bool {
    let framing = entry.framing.unwrap_or(Framing::Length(4));
    nal::classify(
        entry.codec,
        framing,
        frame,
        true,
        flagged || entry.codec != VideoCodec::Unknown,
    )
    .is_some_and(|picture| picture.key.is_key())
}

/// Returns the picture size in a `Video` element.
fn size(video: &[u8]) -> Option<Size> {
    let pixels = |id| {
        let found = ebml::children(video).flatten().find(move |child| child.id == id)?;
        ebml::uint(found.body).and_then(|pixels| u32::try_from(pixels).ok())
    };
    Some(Size {
        width: pixels(PIXEL_WIDTH)?,
        height: pixels(PIXEL_HEIGHT)?,
    })
}

fn named(id: &[u8], private: &[u8]) -> Codec {
    let private = Bytes::copy_from_slice(private);
    match id {
        b"V_MPEG4/ISO/AVC" if !private.is_empty() => Codec::H264(private),
        b"V_MPEGH/ISO/HEVC" if !private.is_empty() => Codec::H265(private),
        b"A_AAC" if !private.is_empty() => Codec::Aac(private),
        b"A_OPUS" if !private.is_empty() => Codec::Opus(private),
        _ => Codec::Other(String::from_utf8_lossy(id).into_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(block: &[u8]) -> Option<Vec<Vec<u8>>> {
        let Read::Got(parsed) = Block::parse(block) else {
            panic!("{block:?}")
        };
        let ranges = parsed.frames_in(block)?;
        Some(ranges.into_iter().map(|range| block[range].to_vec()).collect())
    }

    #[test]
    fn frames_of_every_lacing_are_told_apart() {
        let (a, b, c) = (vec![1u8; 300], vec![2u8; 10], vec![3u8; 5]);
        let all = [a.clone(), b.clone(), c.clone()];
        let payload = all.concat();
        // RFC 9559 10.3: track 1, time 0, flags; the number of frames less one, then the sizes.
        let block = |flags: u8, sizes: &[u8]| [&[0x81, 0, 0, flags][..], sizes, &payload].concat();
        assert_eq!(frames(&block(0, &[])), Some(vec![payload.clone()]));
        assert_eq!(frames(&block(2, &[2, 255, 45, 10])).as_deref(), Some(&all[..]));
        // 300 in two octets, then the difference -290 in two.
        let difference = (0x4000u16 | (8191 - 290)).to_be_bytes();
        assert_eq!(
            frames(&block(6, &[2, 0x41, 0x2c, difference[0], difference[1]])).as_deref(),
            Some(&all[..])
        );
        let equal = [&[0x81, 0, 0, 4, 2][..], &[1, 1, 2, 2, 3, 3]].concat();
        assert_eq!(frames(&equal), Some(vec![vec![1, 1], vec![2, 2], vec![3, 3]]));
        assert_eq!(frames(&block(2, &[2, 255, 255, 255, 10])), None, "sizes beyond the end");
    }
}
