//! PES packet headers and their time stamps (ISO/IEC 13818-1 2.4.3.6, 2.4.3.7).
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
    /// Whole.
    Whole {
        /// Presentation time stamp, 33 bit at 90 kHz.
        pts: Option<u64>,
        /// PES_scrambling_control is not 0.
        scrambled: bool,
        /// The elementary stream's bytes that are there.
        data: &'a [u8],
    },
}

impl<'a> Header<'a> {
    /// Reads the header that `pes` begins with.
    pub(super) fn parse(pes: &'a [u8]) -> Self {
        let expected = [0u8, 0, 1];
        // As far as there are bytes: the prefix may be split over packets.
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

/// Returns whether all of the packet is there. False for PES_packet_length 0, which video mostly has (2.4.3.7).
pub(super) fn is_whole(pes: &[u8]) -> bool {
    match pes.get(4..6) {
        Some(&[high, low]) if high != 0 || low != 0 => pes.len() >= 6 + usize::from(u16::from_be_bytes([high, low])),
        _ => false,
    }
}

/// The 33 bits of a PTS or DTS field.
fn timestamp(field: &[u8; 5]) -> u64 {
    let [a, b, c, d, e] = field.map(u64::from);
    (a >> 1 & 7) << 30 | b << 22 | (c >> 1) << 15 | d << 7 | e >> 1
}

/// Time stamps of 33 bits wrap there.
const WRAP: i64 = 1 << 33;
/// Times less than a minute apart confirm each other.
const CLOSE: i64 = 60 * 90_000;

/// Unwraps the 33 bit time stamps of one stream. Each stream has its own: private streams may count from anywhere, and must
/// not move those of the pictures.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Clock(Unwrapper);

impl Clock {
    /// Returns the clock of a stream that begins while another is at that of `other`.
    pub(super) fn beside(other: Self) -> Self {
        Self(Unwrapper::near(other.0.confirmed()))
    }

    /// Returns whether no time stamp has come.
    pub(super) fn is_new(&self) -> bool {
        self.0.confirmed().is_none()
    }

    /// Returns the time of `pts` in ns.
    pub(super) fn nanoseconds(&mut self, pts: u64) -> u64 {
        let time = self.0.unwrap(i64::try_from(pts).unwrap_or_default(), WRAP, CLOSE);
        // Only pictures shown before the first time stamp, itself close to 0, can be below.
        let ticks = u64::try_from(time).unwrap_or_default();
        // Rounded: a ninth of 100 µs is no whole number of ns.
        ticks.saturating_mul(100_000).saturating_add(4) / 9
    }
}
