//! One transport packet: header and adaptation field, ISO/IEC 13818-1 2.4.3.2 to 2.4.3.5.
//!
//! PURE. May touch only the bytes of the packet it is given.

/// The sync_byte of every packet.
pub(super) const SYNC: u8 = 0x47;

/// Bytes of a packet as the standard knows it.
const PACKET: usize = 188;

/// How packets lie in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// From one packet to the next.
    pub(super) stride: usize,
    /// Bytes before the sync byte that belong to the packet.
    pub(super) lead: usize,
}

impl Layout {
    /// As in the standard; with the arrival time of M2TS before it; with 16 bytes of Reed-Solomon parity after it.
    pub(super) const ALL: [Self; 3] = [
        Self { stride: PACKET, lead: 0 },
        Self { stride: 192, lead: 4 },
        Self { stride: 204, lead: 0 },
    ];

    /// Whether `raw`, a whole packet, has its sync byte.
    pub(super) fn in_sync(self, raw: &[u8]) -> bool {
        raw.get(self.lead) == Some(&SYNC)
    }
}

/// A packet that has been looked into.
#[derive(Debug)]
pub(super) struct Packet<'a> {
    /// Absolute offset of `raw`.
    pub(super) at: u64,
    /// The packet as it lies in the file, with what its layout adds.
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
    /// The payload; `None` in a packet of adaptation field alone.
    pub(super) payload: Option<&'a [u8]>,
}

impl<'a> Packet<'a> {
    /// Looks into a whole packet. `None` where the transport_error_indicator is set or the header breaks the grammar.
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
    /// Follows on, or nothing can be said.
    Next,
    /// The last packet once more.
    Duplicate,
    /// Packets are missing.
    Gap,
}

/// Follows the continuity_counter of one PID.
#[derive(Debug, Default)]
pub(super) struct Counter {
    /// The counter of the last packet and a piece of its payload.
    last: Option<(u8, [u8; 8])>,
    /// Offset of that packet, and of the one before it.
    at: u64,
    before: u64,
}

impl Counter {
    /// Judges a packet by its counter and its payload.
    pub(super) fn check(&mut self, packet: &Packet<'_>, payload: &[u8]) -> Continuity {
        // A counter of 4 bits alone cannot distinguish a packet sent twice from the loss of 15; a piece of the payload can. In the
        // first packet of a PES packet it holds the time stamp, and it lies near the header, which is in the cache.
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

    /// Offset of the packet before the one that was judged last.
    pub(super) fn before(&self) -> u64 {
        self.before
    }

    /// Forgets the last packet: whatever comes next follows on.
    pub(super) fn reset(&mut self) {
        self.last = None;
    }
}
