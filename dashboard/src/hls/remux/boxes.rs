//! The boxes of an MP4's header, written by `mp4-atom`.
//!
//! PURE.

use bytes::Bytes;
use gcstreamer_media::container::samples::sps::{self, Size};
use gcstreamer_media::container::samples::vpx::VpConfig;
use mp4_atom::esds::{DecoderConfig, DecoderSpecific, EsDescriptor, SLConfig};
use mp4_atom::{
    Atom, Audio, Av01, Av1c, Avc1, Avcc, Codec, Dinf, Dops, Dref, DrefEntry, Encode, Esds, Ftyp, Hdlr, Hvc1, Hvcc, Mdhd, Mdia,
    Minf, Moov, Mp4a, Mvex, Mvhd, Opus, OpusChannelMapping, Smhd, Stbl, Stco, Stsc, StscEntry, Stsd, Stsz, StszSamples, Stts,
    SttsEntry, Tkhd, Trak, Trex, Url, Visual, Vmhd, Vp08, Vp09, VpcC,
};

use super::RemuxError;

/// The codec of a track, with its configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Avc(Bytes),
    Hevc(Bytes),
    Vp8(Size),
    Vp9(Size, VpConfig),
    Av1(Size, Bytes),
    Aac { config: Bytes, rate: u32, channels: u16 },
    Opus(Bytes),
}

/// Describes a track in the header of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) id: u32,
    pub(crate) timescale: u32,
    pub(crate) kind: Kind,
}

/// Ticks in a second of the movie.
const MOVIE_TICKS: u32 = 1000;

impl Header {
    pub(crate) fn is_video(&self) -> bool {
        !matches!(self.kind, Kind::Aac { .. } | Kind::Opus(_))
    }

    fn size(&self) -> Size {
        let size = match &self.kind {
            Kind::Avc(record) => sps::avc_record_size(record),
            Kind::Hevc(record) => sps::hevc_record_size(record),
            Kind::Vp8(size) | Kind::Vp9(size, _) | Kind::Av1(size, _) => Some(*size),
            Kind::Aac { .. } | Kind::Opus(_) => None,
        };
        size.unwrap_or(Size { width: 0, height: 0 })
    }

    pub(crate) fn trak(&self, stbl: Stbl, duration: u64) -> Trak {
        let (size, is_video) = (self.size(), self.is_video());
        let pixels = |n: u32| u16::try_from(n).unwrap_or(0);
        Trak {
            tkhd: Tkhd {
                track_id: self.id,
                enabled: true,
                in_movie: true,
                duration,
                volume: if is_video { 0.into() } else { 1.into() },
                width: pixels(size.width).into(),
                height: pixels(size.height).into(),
                ..Tkhd::default()
            },
            mdia: Mdia {
                mdhd: Mdhd {
                    timescale: self.timescale,
                    duration: duration * u64::from(self.timescale / MOVIE_TICKS.min(self.timescale)),
                    language: "und".into(),
                    ..Mdhd::default()
                },
                hdlr: Hdlr {
                    handler: if is_video { b"vide" } else { b"soun" }.into(),
                    name: String::new(),
                },
                minf: Minf {
                    vmhd: is_video.then(Vmhd::default),
                    smhd: (!is_video).then(Smhd::default),
                    dinf: Dinf {
                        dref: Dref {
                            entries: vec![DrefEntry::Url(Url::default())],
                        },
                    },
                    stbl,
                    ..Minf::default()
                },
            },
            ..Trak::default()
        }
    }

    fn visual(&self) -> Visual {
        let size = self.size();
        Visual {
            data_reference_index: 1,
            width: u16::try_from(size.width).unwrap_or(0),
            height: u16::try_from(size.height).unwrap_or(0),
            ..Visual::default()
        }
    }

    pub(crate) fn entry(&self) -> Result<Codec, RemuxError> {
        Ok(match &self.kind {
            Kind::Avc(record) => Avc1 {
                visual: self.visual(),
                avcc: Avcc::decode_body(&mut &record[..])?,
                ..Avc1::default()
            }
            .into(),
            Kind::Hevc(record) => Hvc1 {
                visual: self.visual(),
                hvcc: Hvcc::decode_body(&mut &record[..])?,
                ..Hvc1::default()
            }
            .into(),
            Kind::Vp8(_) => Vp08 {
                visual: self.visual(),
                ..Vp08::default()
            }
            .into(),
            Kind::Vp9(_, config) => Vp09 {
                visual: self.visual(),
                vpcc: vpcc(config),
                ..Vp09::default()
            }
            .into(),
            Kind::Av1(_, record) => Av01 {
                visual: self.visual(),
                av1c: Av1c::decode_body(&mut &record[..])?,
                ..Av01::default()
            }
            .into(),
            Kind::Aac { config, rate, channels } => Mp4a {
                audio: audio(*channels, *rate),
                esds: esds(self.id, config),
                btrt: None,
                taic: None,
            }
            .into(),
            Kind::Opus(head) => {
                let dops = dops(head).ok_or_else(|| RemuxError::Boxes("its Opus header is damaged".into()))?;
                Opus {
                    audio: audio(dops.output_channel_count.into(), 48_000),
                    dops,
                    btrt: None,
                }
                .into()
            }
        })
    }
}

fn audio(channel_count: u16, rate: u32) -> Audio {
    Audio {
        data_reference_index: 1,
        channel_count,
        sample_size: 16,
        // A 16.16 number: 88.2 and 96 kHz do not fit. Decoders take the rate from the AudioSpecificConfig.
        sample_rate: u16::try_from(rate).unwrap_or(0).into(),
    }
}

fn vpcc(config: &VpConfig) -> VpcC {
    let [color_primaries, transfer_characteristics, matrix_coefficients] = config.colours;
    VpcC {
        profile: config.profile,
        level: config.level,
        bit_depth: config.depth,
        chroma_subsampling: config.chroma,
        video_full_range_flag: config.full_range,
        color_primaries,
        transfer_characteristics,
        matrix_coefficients,
        codec_initialization_data: Vec::new(),
    }
}

fn esds(id: u32, config: &[u8]) -> Esds {
    Esds {
        es_desc: EsDescriptor {
            es_id: u16::try_from(id).unwrap_or(1),
            dec_config: DecoderConfig {
                // Audio of ISO/IEC 14496-3, in an audio stream (ISO/IEC 14496-1 7.2.6.6).
                object_type_indication: 0x40,
                stream_type: 5,
                dec_specific: Some(DecoderSpecific {
                    raw: config.to_vec(),
                    ..DecoderSpecific::default()
                }),
                ..DecoderConfig::default()
            },
            sl_config: SLConfig::default(),
            ..EsDescriptor::default()
        },
    }
}

/// Returns whether an Opus header can be written. If not, the sound must be left out: a header with it would fail, and the
/// pictures would not play either.
pub(super) fn is_opus(head: &[u8]) -> bool {
    dops(head).is_some_and(|dops| dops.encode(&mut Vec::new()).is_ok())
}

/// Converts the identification header of RFC 7845 5.1, which is little-endian. It has a channel mapping table unless the family
/// is 0.
fn dops(head: &[u8]) -> Option<Dops> {
    let fields = head.strip_prefix(b"OpusHead")?;
    let (&[_, channels, s0, s1, r0, r1, r2, r3, g0, g1, family], table) = fields.split_first_chunk::<11>()?;
    let channel_mapping = match family {
        0 => None,
        family => {
            let (&[stream_count, coupled_count], channel_mapping) = table.split_first_chunk::<2>()?;
            Some(OpusChannelMapping {
                family,
                stream_count,
                coupled_count,
                channel_mapping: channel_mapping.get(..channels.into())?.to_vec(),
            })
        }
    };
    Some(Dops {
        output_channel_count: channels,
        pre_skip: u16::from_le_bytes([s0, s1]),
        input_sample_rate: u32::from_le_bytes([r0, r1, r2, r3]),
        output_gain: i16::from_le_bytes([g0, g1]),
        channel_mapping,
    })
}

pub(crate) fn ftyp() -> Ftyp {
    Ftyp {
        major_brand: b"iso6".into(),
        minor_version: 0,
        compatible_brands: vec![b"iso6".into(), b"mp41".into()],
    }
}

fn mvhd(next_track_id: u32, duration: u64) -> Mvhd {
    Mvhd {
        timescale: MOVIE_TICKS,
        duration,
        rate: 1.into(),
        volume: 1.into(),
        next_track_id,
        ..Mvhd::default()
    }
}

pub(crate) fn moov(mvhd: Mvhd, mvex: Option<Mvex>, trak: Vec<Trak>) -> Moov {
    Moov {
        mvhd,
        mvex,
        trak,
        meta: None,
        udta: None,
        ainf: None,
    }
}

/// Returns `ftyp` and `moov` of a fragmented MP4.
pub(super) fn init<'a>(headers: impl Iterator<Item = &'a Header>) -> Result<Vec<u8>, RemuxError> {
    let (mut trak, mut trex) = (Vec::new(), Vec::new());
    for header in headers {
        let stbl = Stbl {
            stsd: Stsd {
                codecs: vec![header.entry()?],
            },
            stco: Some(Stco::default()),
            ..Stbl::default()
        };
        trak.push(header.trak(stbl, 0));
        trex.push(Trex {
            track_id: header.id,
            default_sample_description_index: 1,
            ..Trex::default()
        });
    }
    let next = trak.iter().map(|trak| trak.tkhd.track_id + 1).max().unwrap_or(1);
    let mut out = Vec::new();
    ftyp().encode(&mut out)?;
    moov(mvhd(next, 0), Some(Mvex { mehd: None, trex }), trak).encode(&mut out)?;
    Ok(out)
}

/// Returns an MP4 of one sample that lasts a second.
pub(super) fn still(header: &Header, data: &[u8]) -> Result<Vec<u8>, RemuxError> {
    let size = u32::try_from(data.len())
        .ok()
        .and_then(|size| size.checked_add(8))
        .ok_or_else(|| RemuxError::Boxes("it is over 4 GiB".into()))?;
    let write = |offset: u32| -> Result<Vec<u8>, RemuxError> {
        let stbl = Stbl {
            stsd: Stsd {
                codecs: vec![header.entry()?],
            },
            stts: Stts {
                entries: vec![SttsEntry {
                    sample_count: 1,
                    sample_delta: header.timescale,
                }],
            },
            stsc: Stsc {
                entries: vec![StscEntry {
                    first_chunk: 1,
                    samples_per_chunk: 1,
                    sample_description_index: 1,
                }],
            },
            stsz: Stsz {
                samples: StszSamples::Different { sizes: vec![size - 8] },
            },
            stco: Some(Stco { entries: vec![offset] }),
            ..Stbl::default()
        };
        let mut out = Vec::new();
        ftyp().encode(&mut out)?;
        let trak = vec![header.trak(stbl, MOVIE_TICKS.into())];
        moov(mvhd(header.id + 1, MOVIE_TICKS.into()), None, trak).encode(&mut out)?;
        Ok(out)
    };
    // The offset takes 4 bytes whatever its value, so the header can be measured with 0. 8 is the header of `mdat`.
    let offset = u32::try_from(write(0)?.len() + 8).map_err(|_| RemuxError::Boxes("its header is over 4 GiB".into()))?;
    let mut out = write(offset)?;
    out.extend(size.to_be_bytes());
    out.extend(b"mdat");
    out.extend_from_slice(data);
    Ok(out)
}
