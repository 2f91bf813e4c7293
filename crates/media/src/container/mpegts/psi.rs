//! Reads program specific information: sections, the PAT and the PMT (ISO/IEC 13818-1 2.4.4, annex A for the CRC).
//!
//! PURE. Stores verbatim copies of the packets of a section, since they become the header of a chunk.

use bytes::Bytes;

use super::packet::Packet;
use super::stream::{Kind, av1_name};

/// Maximum number of bytes of packets stored for one section. The longest section takes 23 packets if they are full.
const MAX_PACKETS: usize = 64 << 10;

/// A section with a correct CRC, and its packets.
#[derive(Debug)]
pub(super) struct Section {
    /// From table_id to CRC_32.
    pub(super) data: Vec<u8>,
    /// Verbatim copies of its packets.
    pub(super) packets: Bytes,
    /// Offset of the first of them.
    pub(super) since: u64,
}

/// Gathers the sections of one PID.
#[derive(Clone, Debug, Default)]
pub(super) struct Sections {
    counter: Option<u8>,
    gathering: bool,
    data: Vec<u8>,
    packets: Vec<u8>,
    since: u64,
}

impl Sections {
    /// Takes a packet and appends complete sections to `done`.
    pub(super) fn push(&mut self, packet: &Packet<'_>, done: &mut Vec<Section>) {
        let Some(payload) = packet.payload.filter(|p| !p.is_empty()) else {
            return;
        };
        let last = self.counter.replace(packet.counter);
        if packet.scrambled {
            self.gathering = false;
            return;
        }
        if !packet.start {
            // A duplicate of the last packet (2.4.3.3).
            if last == Some(packet.counter) {
                return;
            }
            if last.is_some_and(|last| (last + 1) & 0xf != packet.counter) {
                self.gathering = false;
            }
            // Stored first: if the section ends in this packet, its copies have to include it.
            if self.keep(packet) {
                self.feed(payload, done);
            }
            return;
        }
        let Some((&pointer, rest)) = payload.split_first() else {
            return;
        };
        let Some((ending, mut rest)) = rest.split_at_checked(usize::from(pointer)) else {
            self.gathering = false;
            return;
        };
        // The bytes before the pointer's target are the end of the previous section, unless a packet is missing.
        if last.is_some_and(|last| (last + 1) & 0xf == packet.counter) && self.keep(packet) {
            self.feed(ending, done);
        }
        // table_id 0xff means stuffing up to the end of the packet.
        while rest.first().is_some_and(|&id| id != 0xff) {
            self.gathering = true;
            self.data.clear();
            self.packets.clear();
            self.packets.extend_from_slice(packet.raw);
            self.since = packet.at;
            rest = self.feed(rest, done);
        }
    }

    /// Drops an incomplete section.
    pub(super) fn reset(&mut self) {
        self.gathering = false;
        self.counter = None;
    }

    /// Stores another packet of the section being gathered. Returns false if none is being gathered.
    fn keep(&mut self, packet: &Packet<'_>) -> bool {
        // A section whose end never comes must not gather packets without limit.
        self.gathering &= self.packets.len() <= MAX_PACKETS;
        if self.gathering {
            self.packets.extend_from_slice(packet.raw);
        }
        self.gathering
    }

    /// Adds bytes to the section being gathered. Returns the bytes behind its end.
    fn feed<'a>(&mut self, bytes: &'a [u8], done: &mut Vec<Section>) -> &'a [u8] {
        // section_length is in the first three bytes (2.4.4.1).
        let head = 3usize.saturating_sub(self.data.len()).min(bytes.len());
        let (first, bytes) = bytes.split_at(head);
        self.data.extend_from_slice(first);
        let &[_, b1, b2, ..] = self.data.as_slice() else { return &[] };
        let len = 3 + (usize::from(b1 & 0xf) << 8 | usize::from(b2));
        let want = len.saturating_sub(self.data.len()).min(bytes.len());
        let (body, rest) = bytes.split_at(want);
        self.data.extend_from_slice(body);
        if self.data.len() < len {
            return &[];
        }
        self.gathering = false;
        if crc32(&self.data) == 0 {
            let packets = Bytes::copy_from_slice(&self.packets);
            done.push(Section {
                data: self.data.clone(),
                packets,
                since: self.since,
            });
        }
        rest
    }
}

/// Returns the body of a section with the long header: the bytes between last_section_number and the CRC. Returns `None` if the
/// table is of another kind or not in force.
fn body(section: &[u8], table_id: u8) -> Option<&[u8]> {
    let &[id, syntax, _, _, _, version, _, _, ref rest @ ..] = section else {
        return None;
    };
    // current_next_indicator of 0 announces a table that is not in force yet.
    let current = version & 1 != 0;
    if id != table_id || syntax & 0x80 == 0 || !current {
        return None;
    }
    rest.get(..rest.len().checked_sub(4)?)
}

/// Returns program_number and PID of the PMT of each program in a PAT. Returns `None` if the section is no PAT in force.
pub(super) fn programs(section: &[u8]) -> Option<Vec<(u16, u16)>> {
    let entries = body(section, 0)?.chunks_exact(4).filter_map(|entry| {
        let &[n0, n1, p0, p1] = entry else { return None };
        let number = u16::from_be_bytes([n0, n1]);
        // Number 0 is the network information table, not a program.
        (number != 0).then_some((number, u16::from_be_bytes([p0 & 0x1f, p1])))
    });
    Some(entries.collect())
}

/// One elementary stream of a PMT.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Elementary {
    pub(super) pid: u16,
    pub(super) stream_type: u8,
    pub(super) kind: Kind,
    /// The RFC 6381 name, if the PMT determines it.
    pub(super) name: Option<String>,
}

/// A program map.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Map {
    /// The bytes that make up the configuration: all except the version, the section numbers and the CRC. The same map under a
    /// new version is no new configuration.
    pub(super) config: Vec<u8>,
    pub(super) streams: Vec<Elementary>,
}

/// Reads a PMT. Returns `None` if the section is no PMT in force of program `number`, or if its lengths are inconsistent.
pub(super) fn map(section: &[u8], number: u16) -> Option<Map> {
    let body = body(section, 2)?;
    // Several programs may have their PMTs on the same PID.
    if section.get(3..5)? != number.to_be_bytes() {
        return None;
    }
    let mut config = number.to_be_bytes().to_vec();
    config.extend_from_slice(body);
    let (&[_, _, l0, l1], rest) = body.split_first_chunk::<4>()?;
    let (program, mut rest) = rest.split_at_checked(length12(l0, l1))?;
    let mut streams = Vec::new();
    while let Some((&[stream_type, p0, p1, l0, l1], after)) = rest.split_first_chunk::<5>() {
        let (descriptors, after) = after.split_at_checked(length12(l0, l1))?;
        let pid = u16::from_be_bytes([p0 & 0x1f, p1]);
        let kind = Kind::of(stream_type, descriptors, program);
        streams.push(Elementary {
            pid,
            stream_type,
            kind,
            name: kind.name().or_else(|| av1_name(descriptors)),
        });
        rest = after;
    }
    Some(Map { config, streams })
}

fn length12(high: u8, low: u8) -> usize {
    usize::from(high & 0xf) << 8 | usize::from(low)
}

const CRC_TABLE: [u32; 256] = {
    let mut table = [0u32; 256];
    // `while`, since `for` is not allowed in a constant.
    let mut i = 0;
    let mut top = 0u32;
    while i < 256 {
        let mut crc = top;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000_0000 != 0 {
                crc << 1 ^ 0x04c1_1db7
            } else {
                crc << 1
            };
            bit += 1;
        }
        table[i] = crc;
        top = top.wrapping_add(1 << 24);
        i += 1;
    }
    table
};

/// Returns the CRC-32/MPEG-2 of `data`. It is 0 for a section that includes its correct CRC.
pub(super) fn crc32(data: &[u8]) -> u32 {
    data.iter().fold(u32::MAX, |crc, &b| {
        let [top, ..] = crc.to_be_bytes();
        crc << 8 ^ CRC_TABLE.get(usize::from(top ^ b)).copied().unwrap_or_default()
    })
}
