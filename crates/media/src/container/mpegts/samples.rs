//! Reads the samples of an MPEG-TS chunk. See [`crate::container::samples`].
//!
//! PURE. Sources: ISO/IEC 13818-1 2.4.3.6 (PES), ISO/IEC 14496-3 1.A.2 (ADTS), ISO/IEC 14496-15 (length-prefixed NAL units).

use std::collections::BTreeMap;

use bytes::Bytes;

use super::access_units::AccessUnits;
use super::packet::{Continuity, Counter, Packet};
use super::psi::{self, Sections};
use super::stream::{Audio, Kind, Video};
use super::sync::{self, Search};
use crate::container::nal::{self, Framing, VideoCodec};
use crate::container::samples::{Codec, Sample, SampleTrack, Samples, SamplesError, Wrapped, sps};

/// Period in ns after which timestamps wrap: 33 bits at 90 kHz.
pub(in crate::container) const WRAP: i64 = (1 << 33) * 100_000 / 9;

/// Reads all packets.
pub(in crate::container) fn read(chunk: &Bytes) -> Result<Samples, SamplesError> {
    let Search::Found(start, layout) = sync::search(chunk, None, true) else {
        return Err(SamplesError::NoHeader);
    };
    let mut demux = Demux::default();
    for raw in chunk.get(start..).unwrap_or_default().chunks_exact(layout.stride) {
        // Offset 0: the offsets of packets are not used here.
        if let Some(packet) = Packet::parse(raw, layout, 0).filter(|packet| !packet.scrambled) {
            demux.packet(&packet);
        }
    }
    demux.finish()
}

#[derive(Default)]
struct Demux {
    pat: Sections,
    /// The programs of the PAT: number, PID of the PMT and its gathered sections. The stream contains only one of them.
    programs: Vec<(u16, u16, Sections)>,
    /// PID of the PMT that was read first.
    map: Option<u16>,
    streams: BTreeMap<u16, Stream>,
    /// Their PIDs in the order of the PMT, followed by those that a later PMT announced.
    order: Vec<u16>,
}

/// One elementary stream that is read.
struct Stream {
    kind: Kind,
    counter: Counter,
    pes: Vec<u8>,
    /// Whether transport packets of the current PES packet are missing; it is then dropped.
    is_broken: bool,
    times: Wrapped,
    /// Bytes of an audio frame that continues in the next PES packet.
    rest: Vec<u8>,
    sets: ParameterSets,
    config: Option<Vec<u8>>,
    pictures: AccessUnits,
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
        let is_open = |pid: u16| self.map.is_none_or(|map| map == pid);
        if packet.pid == 0 {
            let mut done = Vec::new();
            self.pat.push(packet, &mut done);
            for (number, pid) in done.iter().filter_map(|section| psi::programs(&section.data)).flatten() {
                if !self.programs.iter().any(|(known, at, _)| (*known, *at) == (number, pid)) {
                    self.programs.push((number, pid, Sections::default()));
                }
            }
        } else if is_open(packet.pid) && self.programs.iter().any(|(_, pid, _)| *pid == packet.pid) {
            let mut maps = Vec::new();
            for (number, _, sections) in self.programs.iter_mut().filter(|(_, pid, _)| *pid == packet.pid) {
                let mut done = Vec::new();
                sections.push(packet, &mut done);
                maps.extend(done.iter().filter_map(|section| psi::map(&section.data, *number)));
            }
            for map in maps {
                self.map = Some(packet.pid);
                self.configure(&map);
            }
        } else if let (Some(stream), Some(payload)) = (self.streams.get_mut(&packet.pid), packet.payload) {
            stream.packet(packet, payload);
        }
    }

    /// Adds the streams of a PMT that are not known yet. Private streams are included: they may turn out to be audio.
    fn configure(&mut self, map: &psi::Map) {
        for stream in map.streams.iter().filter(|stream| stream.kind != Kind::Sections) {
            self.streams.entry(stream.pid).or_insert_with(|| {
                self.order.push(stream.pid);
                Stream::new(stream.kind)
            });
        }
    }

    fn finish(mut self) -> Result<Samples, SamplesError> {
        if self.map.is_none() {
            return Err(SamplesError::NoHeader);
        }
        let mut samples = Samples::default();
        for pid in &self.order {
            if let Some(track) = self.streams.remove(pid).and_then(Stream::finish) {
                samples.offer(track);
            }
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
            pictures: AccessUnits::default(),
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
            if std::mem::take(&mut self.is_broken) {
                self.pictures.lose();
            } else {
                self.flush();
            }
            self.pes.clear();
            self.recognise(payload);
        }
        if self.kind != Kind::Other {
            self.pes.extend_from_slice(payload);
        }
    }

    /// Recognises audio in a stream that the PMT calls private, by the same rule as the scanner.
    fn recognise(&mut self, payload: &[u8]) {
        if self.kind == Kind::Other
            && let Some(header) = PesHeader::parse(payload)
            && let Some(sound) = Kind::of_sound(
                payload.get(3).copied().unwrap_or_default(),
                payload.get(header.len..).unwrap_or_default(),
            )
        {
            self.kind = sound;
        }
    }

    /// Ends the current PES packet: turns it into samples.
    fn flush(&mut self) {
        let pes = std::mem::take(&mut self.pes);
        let Some(header) = PesHeader::parse(&pes).filter(|_| !self.is_broken) else {
            return;
        };
        let data = pes.get(header.len..).unwrap_or_default();
        let ns = |ticks: i64| ticks.saturating_mul(100_000) / 9;
        let times = header.pts.map(|pts| {
            let dts = self.times.unwrap(header.dts.unwrap_or(pts));
            // Modulo 33 bits, because the wrap may be between DTS and PTS.
            let ahead = (pts - dts).rem_euclid(1 << 33);
            let pts = dts + if ahead < 1 << 32 { ahead } else { ahead - (1 << 33) };
            (ns(dts), ns(pts))
        });
        match self.kind {
            Kind::Video(Video::Nal(codec @ (VideoCodec::H264 | VideoCodec::H265))) => {
                let sets = &mut self.sets;
                self.pictures.packet(codec, data, times, |unit| sets.note(codec, unit));
            }
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

    /// Ends the stream and returns its track; `None` if it is neither video nor audio.
    fn finish(mut self) -> Option<SampleTrack> {
        self.flush();
        if matches!(self.kind, Kind::Other | Kind::Sections) {
            return None;
        }
        if let Kind::Video(Video::Nal(codec @ (VideoCodec::H264 | VideoCodec::H265))) = self.kind {
            self.samples = std::mem::take(&mut self.pictures).finish();
            // Needed even if the parameter sets yield no configuration record.
            for sample in &mut self.samples {
                let picture = nal::classify(codec, Framing::Length(4), &sample.data, true, false);
                sample.key = picture.is_some_and(|picture| picture.key.is_key());
            }
        }
        Some(self.track())
    }

    fn adts(&mut self, data: &[u8], pts: Option<i64>) {
        let carried = self.rest.len();
        let mut bytes = std::mem::take(&mut self.rest);
        bytes.extend_from_slice(data);
        let mut at = 0;
        // The timestamp belongs to the first frame that begins in this packet (13818-1 2.4.3.7).
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
                // The timestamp of the packet is not used up by a frame carried over, which got its time from the frame before.
                time = if at < carried { None } else { Some(begins + frame.ns()) };
            }
            at += frame.len;
        }
        // aac_frame_length has 13 bits: a longer rest cannot be the beginning of one frame.
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
            Kind::Video(Video::Mpeg4) => "MPEG-4 part 2".into(),
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
        // The first set of each kind counts: a changed configuration begins another chunk.
        if set.is_empty() {
            *set = unit.to_vec();
        }
    }
}

/// Length of a PES packet's header, and its timestamps of 33 bits.
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
            // A DTS never comes without a PTS (2.4.3.7).
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
        // protection_absent of 0: a CRC of two bytes follows the header.
        let header = if b1 & 1 == 1 { 7 } else { 9 };
        let len = usize::from(b3 & 3) << 11 | usize::from(b4) << 3 | usize::from(b5 >> 5);
        let rate = b2 >> 2 & 0xf;
        (b1 & 0xf6 == 0xf0 && len > header && usize::from(rate) < RATES.len()).then_some(Self {
            header,
            len,
            // profile_ObjectType is one less than the audio object type.
            object_type: (b2 >> 6) + 1,
            rate,
            channels: (b2 & 1) << 2 | b3 >> 6,
        })
    }

    /// Returns the duration in ns of the 1024 samples.
    fn ns(self) -> i64 {
        let rate = RATES.get(usize::from(self.rate)).copied().unwrap_or(48_000);
        1024 * 1_000_000_000 / rate
    }

    /// Returns the AudioSpecificConfig.
    fn config(self) -> Vec<u8> {
        vec![
            self.object_type << 3 | self.rate >> 1,
            (self.rate & 1) << 7 | self.channels << 3,
        ]
    }
}
