//! Parses one transport packet: header and adaptation field, ISO/IEC 13818-1 2.4.3.2 to 2.4.3.5.
//!
//! PURE. Reads only the bytes of one packet.

/// The sync_byte of every packet.
pub(super) const SYNC: u8 = 0x47;

/// Length in bytes of a packet of the standard.
const PACKET: usize = 188;

/// How packets are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Number of bytes from one packet to the next.
    pub(super) stride: usize,
    /// Number of bytes before the sync byte that belong to the packet.
    pub(super) lead: usize,
}

impl Layout {
    /// As in the standard; with the arrival time of M2TS before each packet; with 16 bytes of Reed-Solomon parity after each.
    pub(super) const ALL: [Self; 3] = [
        Self { stride: PACKET, lead: 0 },
        Self { stride: 192, lead: 4 },
        Self { stride: 204, lead: 0 },
    ];

    /// Returns whether `raw`, a complete packet, has its sync byte.
    pub(super) fn in_sync(self, raw: &[u8]) -> bool {
        raw.get(self.lead) == Some(&SYNC)
    }
}

/// A parsed packet.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    /// Absolute offset of `raw`.
    pub(super) at: u64,
    /// The packet as stored, with the bytes that its layout adds.
    pub(super) raw: &'a [u8],
    /// Packet identifier.
    pub(super) pid: u16,
    /// payload_unit_start_indicator.
    pub(super) start: bool,
    /// transport_scrambling_control is not 0.
    pub(super) scrambled: bool,
    /// continuity_counter.
    pub(super) counter: u8,
    /// discontinuity_indicator.
    pub(super) discontinuity: bool,
    /// random_access_indicator.
    pub(super) random_access: bool,
    /// The payload; `None` if the packet has only an adaptation field.
    pub(super) payload: Option<&'a [u8]>,
}

impl<'a> Packet<'a> {
    /// Parses a complete packet. Returns `None` if transport_error_indicator is set or the header is invalid.
    pub(super) fn parse(raw: &'a [u8], layout: Layout, at: u64) -> Option<Self> {
        let packet = raw.get(layout.lead..layout.lead.checked_add(PACKET)?)?;
        let (&[_, b1, b2, b3], rest) = packet.split_first_chunk::<4>()?;
        if b1 & 0x80 != 0 {
            return None;
        }
        let (adaptation, payload) = match b3 >> 4 & 3 {
            1 => (None, Some(rest)),
            control @ (2 | 3) => {
                let (&len, rest) = rest.split_first()?;
                let (field, payload) = rest.split_at_checked(usize::from(len))?;
                (field.first().copied(), (control == 3).then_some(payload))
            }
            // adaptation_field_control 0 is reserved.
            _ => return None,
        };
        let flags = adaptation.unwrap_or(0);
        Some(Self {
            at,
            raw,
            pid: u16::from(b1 & 0x1f) << 8 | u16::from(b2),
            start: b1 & 0x40 != 0,
            scrambled: b3 & 0xc0 != 0,
            counter: b3 & 0xf,
            discontinuity: flags & 0x80 != 0,
            random_access: flags & 0x40 != 0,
            payload,
        })
    }
}

/// How a packet with payload continues its PID, by the continuity_counter (2.4.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Continuity {
    /// The packet follows the last one, or there is no evidence against it.
    Next,
    /// The packet is a duplicate of the last one.
    Duplicate,
    /// Packets are missing.
    Gap,
}

/// Checks the continuity_counter of one PID.
#[derive(Debug, Default)]
pub(super) struct Counter {
    /// The counter of the last packet and a piece of its payload.
    last: Option<(u8, [u8; 8])>,
    /// Offset of that packet, and of the one before it.
    at: u64,
    before: u64,
}

impl Counter {
    /// Compares the counter and the payload of a packet with those of the last one.
    pub(super) fn check(&mut self, packet: &Packet<'_>, payload: &[u8]) -> Continuity {
        // A counter of 4 bits alone cannot distinguish a packet sent twice from the loss of 15 packets; eight bytes of the
        // payload can. In the first packet of a PES packet they include the timestamp. They are near the header, so already in
        // the cache.
        let piece = payload
            .get(8..)
            .and_then(|p| p.first_chunk::<8>())
            .copied()
            .unwrap_or_default();
        self.before = std::mem::replace(&mut self.at, packet.at);
        match self.last.replace((packet.counter, piece)) {
            None => Continuity::Next,
            Some((counter, _)) if (counter + 1) & 0xf == packet.counter => Continuity::Next,
            Some((counter, before)) if counter == packet.counter && before == piece => Continuity::Duplicate,
            Some(_) if packet.discontinuity => Continuity::Next,
            Some(_) => Continuity::Gap,
        }
    }

    /// Returns the offset of the packet before the one that was checked last.
    pub(super) fn before(&self) -> u64 {
        self.before
    }

    /// Forgets the last packet: the next one counts as its continuation.
    pub(super) fn reset(&mut self) {
        self.last = None;
    }
}
