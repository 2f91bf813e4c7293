//! The packets of a track, packed otherwise: as cameras do that read RFC 6184 in their own way.

use super::media::{Packet, Track};

/// How a track is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Packing {
    /// All NAL units of a picture in one, with start codes between them.
    AnnexB,
    /// Fragments, with an empty one after the first of each unit.
    EmptyFragments,
    /// All small units of a picture in one packet (STAP-A).
    Aggregated,
}

/// Longest payload of a packet, bytes.
const MTU: usize = 1000;

/// Packs a track of H.264 again.
pub(crate) fn repack(track: &Track, how: Packing) -> Track {
    let mut out = Vec::new();
    let mut number = 0u16;
    for picture in pictures(&track.packets) {
        let units = units(&picture);
        let payloads = match how {
            Packing::AnnexB => fragments(&units.join(&[0u8, 0, 0, 1][..]), false),
            Packing::EmptyFragments => units.iter().flat_map(|unit| fragments(unit, true)).collect(),
            Packing::Aggregated => aggregated(&units),
        };
        let first = &picture[0];
        for (i, payload) in payloads.iter().enumerate() {
            let ends_picture = i + 1 == payloads.len();
            let mut data = first.data[..12].to_vec();
            data[1] = data[1] & 0x7f | if ends_picture { 0x80 } else { 0 };
            data[2..4].copy_from_slice(&number.to_be_bytes());
            number = number.wrapping_add(1);
            data.extend_from_slice(payload);
            out.push(Packet {
                at: first.at,
                data,
                ends_picture,
            });
        }
    }
    Track {
        packets: out,
        sdp: track.sdp.clone(),
    }
}

fn pictures(packets: &[Packet]) -> Vec<Vec<&Packet>> {
    let mut all = vec![Vec::new()];
    for packet in packets {
        all.last_mut().unwrap().push(packet);
        if packet.ends_picture {
            all.push(Vec::new());
        }
    }
    all.retain(|picture| !picture.is_empty());
    all
}

fn units(packets: &[&Packet]) -> Vec<Vec<u8>> {
    let mut units: Vec<Vec<u8>> = Vec::new();
    for packet in packets {
        let payload = &packet.data[12..];
        match payload[0] & 0x1f {
            28 if payload[1] & 0x80 != 0 => {
                units.push(vec![payload[0] & 0xe0 | payload[1] & 0x1f]);
                units.last_mut().unwrap().extend_from_slice(&payload[2..]);
            }
            28 => units.last_mut().unwrap().extend_from_slice(&payload[2..]),
            kind @ 1..=23 => {
                assert!(kind < 24);
                units.push(payload.to_vec());
            }
            kind => panic!("the payloader made a packet of kind {kind}"),
        }
    }
    units
}

fn fragments(unit: &[u8], with_empty: bool) -> Vec<Vec<u8>> {
    if unit.len() <= MTU && !with_empty {
        return vec![unit.to_vec()];
    }
    // At least two fragments: one alone may not be both the first and the last.
    let size = MTU.min(unit.len() / 2).max(1);
    let pieces: Vec<&[u8]> = unit[1..].chunks(size).collect();
    if pieces.len() < 2 {
        return vec![unit.to_vec()];
    }
    let (indicator, kind) = (unit[0] & 0xe0 | 28, unit[0] & 0x1f);
    let mut out = Vec::new();
    for (i, piece) in pieces.iter().enumerate() {
        let flags = match i {
            0 => 0x80,
            _ if i + 1 == pieces.len() => 0x40,
            _ => 0,
        };
        out.push([&[indicator, flags | kind], *piece].concat());
        if i == 0 && with_empty {
            out.push(vec![indicator, kind]);
        }
    }
    out
}

fn aggregated(units: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let (small, large): (Vec<_>, Vec<_>) = units.iter().partition(|unit| unit.len() < 200);
    let mut out = Vec::new();
    if !small.is_empty() {
        let mut packet = vec![small.iter().map(|unit| unit[0] & 0x60).max().unwrap() | 24];
        for unit in small {
            packet.extend_from_slice(&u16::try_from(unit.len()).unwrap().to_be_bytes());
            packet.extend_from_slice(unit);
        }
        out.push(packet);
    }
    out.extend(large.iter().flat_map(|unit| fragments(unit, false)));
    out
}
