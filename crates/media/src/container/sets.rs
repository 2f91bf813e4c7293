//! Tracks parameter sets: those in band in front of a picture, and those that a decoder has received.
//!
//! PURE. Sources: ITU-T H.264 7.3.2.1, 7.3.2.2; H.265 7.3.2.1 to 7.3.2.3.

use std::collections::BTreeMap;

use super::nal::{Framing, MAX_PREFIX, NalKind, Nals, VideoCodec, exp_golomb, h264_kind, h265_kind, hash, real_framing};

/// A parameter set: NAL unit type, ID, hash of its bytes.
pub type ParameterSet = (u8, u32, u64);

/// Returns the parameter sets in front of the first slice of an access unit.
pub fn parameter_sets(codec: VideoCodec, framing: Framing, data: &[u8]) -> Vec<ParameterSet> {
    let mut sets = Vec::new();
    if !matches!(codec, VideoCodec::H264 | VideoCodec::H265) {
        return sets;
    }
    let data = data.get(..MAX_PREFIX).unwrap_or(data);
    let framing = match framing {
        Framing::Length(size) => real_framing(codec, size, data, true).unwrap_or(framing),
        Framing::AnnexB => framing,
    };
    let mut nals = Nals { framing, data, pos: 0 };
    while let Some(nal) = nals.next_nal() {
        let body = data.get(nal.start..nal.end).unwrap_or_default();
        if nal.is_empty(framing) {
            continue;
        }
        let Some(&first) = data.get(nal.start) else { break };
        let number = |at: usize| body.get(at..).and_then(exp_golomb).unwrap_or(0);
        let (kind, id) = match codec {
            VideoCodec::H264 => match h264_kind(first) {
                NalKind::Slice(_) => break,
                // profile_idc, constraints, level_idc, seq_parameter_set_id.
                NalKind::Sps => (first & 0x1f, number(4)),
                NalKind::Pps => (first & 0x1f, number(1)),
                _ => continue,
            },
            _ => match h265_kind(first) {
                NalKind::Slice(_) => break,
                NalKind::Vps | NalKind::Sps => (first >> 1 & 0x3f, 0),
                NalKind::Pps => (first >> 1 & 0x3f, number(2)),
                _ => continue,
            },
        };
        // An incomplete set is left out: its hash would differ from that of the complete one.
        if nal.ended || framing == Framing::AnnexB {
            sets.push((kind, id, hash(body)));
        }
    }
    sets
}

/// The parameter sets in the header of every chunk, and the ones in force: those of the header, replaced by later ones in band.
#[derive(Clone, Debug, Default)]
pub struct SetsInForce {
    header: BTreeMap<(u8, u32), u64>,
    current: BTreeMap<(u8, u32), u64>,
}

impl SetsInForce {
    /// Starts with the parameter sets of the header.
    pub fn new(header: &[ParameterSet]) -> Self {
        let header: BTreeMap<_, _> = header.iter().map(|&(kind, id, hash)| ((kind, id), hash)).collect();
        Self {
            current: header.clone(),
            header,
        }
    }

    /// Takes the in-band parameter sets of an access unit. Returns whether a decoder that begins with this unit lacks a set:
    /// `is_key` is true, and a set in force is neither in the header nor in band here.
    pub fn take(&mut self, in_band: &[ParameterSet], is_key: bool) -> bool {
        // IDs have at most 8 bits. A larger one is damage: no key frame repeats it, so all later ones would seem to lack it.
        for &(kind, id, hash) in in_band.iter().filter(|(_, id, _)| *id < 256) {
            self.current.insert((kind, id), hash);
        }
        let is_here = |set: (u8, u32)| in_band.iter().any(|&(kind, id, _)| (kind, id) == set);
        is_key
            && self
                .current
                .iter()
                .any(|(&set, hash)| self.header.get(&set) != Some(hash) && !is_here(set))
    }
}
