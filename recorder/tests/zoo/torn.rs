//! Where a camera stops in the middle of a picture.

use super::super::media::Packet;

/// What of the next picture is still sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Torn {
    /// What stands in front of its first slice.
    Sets,
    /// Half of a slice: the first fragment of a unit.
    Fragment,
    /// All but the last packet.
    Slices,
}

/// What a packet holds of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carries {
    Nothing,
    Slice,
    FirstFragment,
}

fn carries(packet: &Packet, is_h265: bool) -> Carries {
    let payload = &packet.data[12..];
    let (kind, fragments, header) = match is_h265 {
        true => (payload[0] >> 1 & 0x3f, 49, payload.get(2)),
        false => (payload[0] & 0x1f, 28, payload.get(1)),
    };
    if kind == fragments && header.is_some_and(|flags| flags & 0x80 != 0) {
        return Carries::FirstFragment;
    }
    match kind == fragments || if is_h265 { kind < 32 } else { matches!(kind, 1..=5) } {
        true => Carries::Slice,
        false => Carries::Nothing,
    }
}

impl Torn {
    /// Whether this packet of the picture is not sent any more.
    pub(crate) fn stops_before(self, packet: &Packet, is_h265: bool) -> bool {
        match self {
            Self::Sets => carries(packet, is_h265) != Carries::Nothing,
            Self::Fragment => false,
            Self::Slices => packet.ends_picture,
        }
    }

    /// Whether this packet is the last that is sent.
    pub(crate) fn stops_behind(self, packet: &Packet, is_h265: bool) -> bool {
        self == Self::Fragment && carries(packet, is_h265) == Carries::FirstFragment
    }
}
