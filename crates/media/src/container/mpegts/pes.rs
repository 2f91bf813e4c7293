//! Parses PES packet headers and unwraps their timestamps (ISO/IEC 13818-1 2.4.3.6, 2.4.3.7).
//!
//! PURE.

use super::super::unwrap::Unwrapper;

/// Outcome of reading the header of a PES packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Header<'a> {
    /// More bytes are needed.
    More,
    /// No PES packet begins here.
    Broken,
    /// The header is complete.
    Whole {
        /// Presentation timestamp: 33 bits at 90 kHz.
        pts: Option<u64>,
        /// Whether PES_scrambling_control is not 0.
        scrambled: bool,
        /// The available bytes of the elementary stream.
        data: &'a [u8],
    },
}

impl<'a> Header<'a> {
    /// Reads the header at the start of `pes`.
    pub(super) fn parse(pes: &'a [u8]) -> Self {
        let expected = [0u8, 0, 1];
        // Compares only the available bytes: the prefix may be split over packets.
        if pes.iter().zip(expected).any(|(&b, e)| b != e) {
            return Self::Broken;
        }
        let Some(&stream_id) = pes.get(3) else { return Self::More };
        // program_stream_map, padding, private_stream_2, ECM, EMM, DSM-CC, H.222.1 type E, directory: no further header.
        if matches!(stream_id, 0xbc | 0xbe | 0xbf | 0xf0 | 0xf1 | 0xf2 | 0xf8 | 0xff) {
            return match pes.get(6..) {
                Some(data) => Self::Whole {
                    pts: None,
                    scrambled: false,
                    data,
                },
                None => Self::More,
            };
        }
        let Some(&[first, flags, len]) = pes.get(6..9) else {
            return Self::More;
        };
        // The two bits are always 10 (2.4.3.6).
        if first & 0xc0 != 0x80 {
            return Self::Broken;
        }
        let Some((header, data)) = pes.get(9..).and_then(|rest| rest.split_at_checked(usize::from(len))) else {
            return Self::More;
        };
        let pts = header.first_chunk::<5>().filter(|_| flags & 0x80 != 0).map(timestamp);
        Self::Whole {
            pts,
            scrambled: first & 0x30 != 0,
            data,
        }
    }
}

/// Returns whether the packet is complete. Always false for PES_packet_length 0, which most video has (2.4.3.7).
pub(super) fn is_whole(pes: &[u8]) -> bool {
    match pes.get(4..6) {
        Some(&[high, low]) if high != 0 || low != 0 => pes.len() >= 6 + usize::from(u16::from_be_bytes([high, low])),
        _ => false,
    }
}

/// Returns the 33 bits of a PTS or DTS field.
fn timestamp(field: &[u8; 5]) -> u64 {
    // Marker bits separate the three parts (2.4.3.7).
    let [a, b, c, d, e] = field.map(u64::from);
    (a >> 1 & 7) << 30 | b << 22 | (c >> 1) << 15 | d << 7 | e >> 1
}

/// Timestamps of 33 bits wrap here.
const WRAP: i64 = 1 << 33;
/// Timestamps less than a minute apart confirm each other.
const CLOSE: i64 = 60 * 90_000;

/// Unwraps the 33-bit timestamps of one stream. Each stream has a clock of its own: private streams may count from any value and
/// must not affect the times of the pictures.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock(Unwrapper);

impl Clock {
    /// Creates the clock of a stream that begins near the current time of `other`.
    pub(super) fn beside(other: Self) -> Self {
        Self(Unwrapper::near(other.0.confirmed()))
    }

    /// Returns whether no timestamp has come.
    pub(super) fn is_new(&self) -> bool {
        self.0.confirmed().is_none()
    }

    /// Returns the time of `pts` in ns.
    pub(super) fn nanoseconds(&mut self, pts: u64) -> u64 {
        let time = self.0.unwrap(i64::try_from(pts).unwrap_or_default(), WRAP, CLOSE);
        // Negative only for pictures that are shown before the first timestamp if that is close to 0.
        let ticks = u64::try_from(time).unwrap_or_default();
        // Rounded to the nearest ns: a tick is 100/9 µs.
        ticks.saturating_mul(100_000).saturating_add(4) / 9
    }
}
