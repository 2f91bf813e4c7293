//! The samples of an MPEG-TS chunk. See [`crate::container::samples`].
//!
//! PURE. Sources: ISO/IEC 13818-1 2.4.3.6 (PES), ISO/IEC 14496-3 1.A.2 (ADTS), ISO/IEC 14496-15 (length-prefixed NAL units).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::packet::{Continuity, Counter, Packet};
use super::psi::{self, Sections};
use super::stream::{Audio, Kind, Video};
use super::sync::{self, Search};
use crate::container::nal::{self, Framing, VideoCodec};
use crate::container::samples::{Codec, Sample, SampleTrack, Samples, SamplesError, Wrapped, sps};

/// 33 bits at 90 kHz, in ns.
pub(in crate::container) const WRAP: i64 = (1 << 33) * 100_000 / 9;

/// Reads all packets.
pub(in crate::container) fn read(chunk: &Bytes) -> Result<Samples, SamplesError> {
    let Search::Found(start, layout) = sync::search(chunk, None, true) else {
        return Err(SamplesError::NoHeader);
    };
    let mut demux = Demux::default();
    for raw in chunk.get(start..).unwrap_or_default().chunks_exact(layout.stride) {
        if let Some(packet) = Packet::parse(raw, layout, 0).filter(|packet| !packet.scrambled) {
            demux.packet(&packet);
        }
    }
    demux.finish()
}

#[derive(Default)]
struct Demux {
    pat: Sections,
    /// PID of the PMT and number of the program.
    map: Option<(u16, u16)>,
    pmt: Sections,
    streams: BTreeMap<u16, Stream>,
    is_mapped: bool,
}

/// One elementary stream that is read.
struct Stream {
    kind: Kind,
    counter: Counter,
    pes: Vec<u8>,
    /// Packets of this PES packet are missing: it is dropped.
    is_broken: bool,
    times: Wrapped,
    /// Bytes of a sound frame that goes on in the next PES packet.
    rest: Vec<u8>,
    sets: ParameterSets,
    config: Option<Vec<u8>>,
    samples: Vec<Sample>,
}

#[derive(Default)]
struct ParameterSets {
    vps: Vec<u8>,
    sps: Vec<u8>,
    pps: Vec<u8>,
}

impl Demux {
    fn packet(&mut self, packet: &Packet<'_>) {
        if packet.pid == 0 {
            let mut done = Vec::new();
            self.pat.push(packet, &mut done);
            if let Some((number, pid)) = done.iter().find_map(|section| psi::programs(&section.data)?.first().copied()) {
                self.map.get_or_insert((pid, number));
            }
        } else if let Some((_, number)) = self.map.filter(|(pid, _)| *pid == packet.pid) {
            let mut done = Vec::new();
            self.pmt.push(packet, &mut done);
            for map in done.iter().filter_map(|section| psi::map(&section.data, number)) {
                self.configure(&map);
            }
        } else if let (Some(stream), Some(payload)) = (self.streams.get_mut(&packet.pid), packet.payload) {
            stream.packet(packet, payload);
        }
    }

    /// The first stream of pictures and the first of sound are read; sound that is announced later joins.
    fn configure(&mut self, map: &psi::Map) {
        self.is_mapped = true;
        for is_video in [true, false] {
            let wanted = |kind: Kind| {
                if is_video {
                    matches!(kind, Kind::Video(_))
                } else {
                    matches!(kind, Kind::Audio(_))
                }
            };
            if self.streams.values().any(|stream| wanted(stream.kind)) {
                continue;
            }
            if let Some(found) = map.streams.iter().find(|stream| wanted(stream.kind)) {
                self.streams.insert(found.pid, Stream::new(found.kind));
            }
        }
    }

    fn finish(self) -> Result<Samples, SamplesError> {
        if !self.is_mapped {
            return Err(SamplesError::NoHeader);
        }
        let mut samples = Samples::default();
        for mut stream in self.streams.into_values() {
            stream.flush();
            let track = stream.track();
            let slot = if track.is_video {
                &mut samples.video
            } else {
                &mut samples.audio
            };
            *slot = Some(track);
        }
        Ok(samples)
    }
}

impl Stream {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            counter: Counter::default(),
            pes: Vec::new(),
            is_broken: false,
            times: Wrapped::at(1 << 33),
            rest: Vec::new(),
            sets: ParameterSets::default(),
            config: None,
            samples: Vec::new(),
        }
    }

    fn packet(&mut self, packet: &Packet<'_>, payload: &[u8]) {
        match self.counter.check(packet, payload) {
            Continuity::Duplicate => return,
            Continuity::Gap => self.is_broken = true,
            Continuity::Next => {}
        }
        if packet.start {
            let was_broken = std::mem::take(&mut self.is_broken);
            if !was_broken {
                self.flush();
            }
            self.pes.clear();
        }
        self.pes.extend_from_slice(payload);
    }

    /// The PES packet has ended.
    fn flush(&mut self) {
        let pes = std::mem::take(&mut self.pes);
        let Some(header) = PesHeader::parse(&pes).filter(|_| !self.is_broken) else {
            return;
        };
        let data = pes.get(header.len..).unwrap_or_default();
        let ns = |ticks: i64| ticks.saturating_mul(100_000) / 9;
        let times = header.pts.map(|pts| {
            let dts = self.times.unwrap(header.dts.unwrap_or(pts));
            let ahead = (pts - dts).rem_euclid(1 << 33);
            let pts = dts + if ahead < 1 << 32 { ahead } else { ahead - (1 << 33) };
            (ns(dts), ns(pts))
        });
        match self.kind {
            Kind::Video(Video::Nal(codec @ (VideoCodec::H264 | VideoCodec::H265))) => self.picture(codec, data, times),
            Kind::Audio(Audio::Adts) => self.adts(data, times.map(|(_, pts)| pts)),
            _ => {
                if let Some((dts, pts)) = times {
                    self.samples.push(Sample {
                        dts,
                        pts,
                        key: true,
                        data: Bytes::copy_from_slice(data),
                    });
                }
            }
        }
    }

    fn picture(&mut self, codec: VideoCodec, data: &[u8], times: Option<(i64, i64)>) {
        let mut lengths = Vec::with_capacity(data.len() + 16);
        for unit in units(data) {
            self.sets.note(codec, unit);
            lengths.extend(u32::try_from(unit.len()).unwrap_or(u32::MAX).to_be_bytes());
            lengths.extend_from_slice(unit);
        }
        let Some((dts, pts)) = times else {
            // The rest of a picture whose beginning was in the packet before.
            if let Some(last) = self.samples.last_mut() {
                last.data = [&last.data[..], &lengths].concat().into();
            }
            return;
        };
        let key = nal::classify(codec, Framing::AnnexB, data, true, false).is_some_and(|picture| picture.key.is_key());
        self.samples.push(Sample {
            dts,
            pts,
            key,
            data: lengths.into(),
        });
    }

    fn adts(&mut self, data: &[u8], pts: Option<i64>) {
        let carried = self.rest.len();
        let mut bytes = std::mem::take(&mut self.rest);
        bytes.extend_from_slice(data);
        let mut at = 0;
        // The time stamp is of the first frame that begins in this packet.
        let mut time = if carried == 0 { pts } else { None };
        while let Some(frame) = bytes.get(at..).and_then(AdtsFrame::parse) {
            let Some(body) = bytes.get(at + frame.header..at + frame.len) else {
                break;
            };
            if at >= carried && time.is_none() {
                time = pts;
            }
            let begins = time.or_else(|| self.samples.last().map(|last| last.pts + frame.ns()));
            self.config.get_or_insert_with(|| frame.config());
            if let Some(begins) = begins {
                self.samples.push(Sample {
                    dts: begins,
                    pts: begins,
                    key: true,
                    data: Bytes::copy_from_slice(body),
                });
                time = if at < carried { None } else { Some(begins + frame.ns()) };
            }
            at += frame.len;
        }
        self.rest = bytes.get(at..).filter(|rest| rest.len() < 8192).unwrap_or_default().to_vec();
    }

    fn track(self) -> SampleTrack {
        let is_video = matches!(self.kind, Kind::Video(_));
        let sets = &self.sets;
        let codec = match self.kind {
            Kind::Video(Video::Nal(VideoCodec::H264)) => {
                sps::avc_record(&sets.sps, &sets.pps).map(|record| Codec::H264(record.into()))
            }
            Kind::Video(Video::Nal(VideoCodec::H265)) => {
                sps::hevc_record(&sets.vps, &sets.sps, &sets.pps).map(|record| Codec::H265(record.into()))
            }
            Kind::Audio(Audio::Adts) => self.config.map(|config| Codec::Aac(config.into())),
            _ => None,
        };
        let name = || match self.kind {
            Kind::Video(Video::Nal(codec)) => format!("{codec:?}"),
            Kind::Video(Video::Mpeg2) => "MPEG-2".into(),
            kind => kind.name().unwrap_or_else(|| "unknown".into()),
        };
        let codec = codec.unwrap_or_else(|| Codec::Other(name()));
        SampleTrack {
            is_video,
            codec,
            samples: self.samples,
        }
    }
}

impl ParameterSets {
    fn note(&mut self, codec: VideoCodec, unit: &[u8]) {
        let Some(&first) = unit.first() else { return };
        let set = match (codec, first & 0x1f, first >> 1 & 0x3f) {
            (VideoCodec::H264, 7, _) | (VideoCodec::H265, _, 33) => &mut self.sps,
            (VideoCodec::H264, 8, _) | (VideoCodec::H265, _, 34) => &mut self.pps,
            (VideoCodec::H265, _, 32) => &mut self.vps,
            _ => return,
        };
        if set.is_empty() {
            *set = unit.to_vec();
        }
    }
}

/// The NAL units between start codes, without the zeros behind them.
fn units(data: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut next = nal::find_start_code(data, 0).map(|at| at + 3);
    std::iter::from_fn(move || {
        let from = next?;
        let code = nal::find_start_code(data, from);
        next = code.map(|at| at + 3);
        let unit = data.get(from..code.unwrap_or(data.len()))?;
        let end = unit.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        unit.get(..end)
    })
    .filter(|unit| !unit.is_empty())
}

/// Where the data of a PES packet begins, and its times of 33 bits.
struct PesHeader {
    len: usize,
    pts: Option<i64>,
    dts: Option<i64>,
}

impl PesHeader {
    fn parse(pes: &[u8]) -> Option<Self> {
        let &[0, 0, 1, _, _, _, first, flags, len, ..] = pes else {
            return None;
        };
        if first & 0xc0 != 0x80 {
            return None;
        }
        let len = 9 + usize::from(len);
        let field = |at: usize| pes.get(at..len)?.first_chunk::<5>().map(timestamp);
        Some(Self {
            len,
            pts: if flags & 0x80 != 0 { field(9) } else { None },
            dts: if flags & 0xc0 == 0xc0 { field(14) } else { None },
        })
    }
}

fn timestamp(field: &[u8; 5]) -> i64 {
    let [a, b, c, d, e] = field.map(i64::from);
    (a >> 1 & 7) << 30 | b << 22 | (c >> 1) << 15 | d << 7 | e >> 1
}

/// The header of an ADTS frame with one raw data block.
#[derive(Clone, Copy)]
struct AdtsFrame {
    header: usize,
    len: usize,
    object_type: u8,
    rate: u8,
    channels: u8,
}

const RATES: [i64; 13] = [
    96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8000, 7350,
];

impl AdtsFrame {
    fn parse(data: &[u8]) -> Option<Self> {
        let &[0xff, b1, b2, b3, b4, b5, ..] = data else { return None };
        let header = if b1 & 1 == 1 { 7 } else { 9 };
        let len = usize::from(b3 & 3) << 11 | usize::from(b4) << 3 | usize::from(b5 >> 5);
        let rate = b2 >> 2 & 0xf;
        (b1 & 0xf6 == 0xf0 && len > header && usize::from(rate) < RATES.len()).then_some(Self {
            header,
            len,
            object_type: (b2 >> 6) + 1,
            rate,
            channels: (b2 & 1) << 2 | b3 >> 6,
        })
    }

    /// Length in ns: 1024 samples.
    fn ns(self) -> i64 {
        let rate = RATES.get(usize::from(self.rate)).copied().unwrap_or(48_000);
        1024 * 1_000_000_000 / rate
    }

    /// AudioSpecificConfig.
    fn config(self) -> Vec<u8> {
        vec![
            self.object_type << 3 | self.rate >> 1,
            (self.rate & 1) << 7 | self.channels << 3,
        ]
    }
}
