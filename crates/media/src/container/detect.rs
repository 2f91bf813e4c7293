//! Detects the container from the first bytes. Caps count only if the bytes match no known container.
//!
//! PURE.

use super::Container;

/// Number of bytes without a known container after which the container named by the caps is used, or [`Container::Raw`]: 64 KiB.
pub const MAX_PROBE: usize = 64 << 10;

/// Number of consecutive packets that identify a transport stream.
const SYNCS: usize = 4;

/// Outcome of [`detect`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detection {
    /// More bytes are needed.
    More,
    /// The stream is of this container.
    Is(Container),
    /// The stream is of no known container.
    Unknown,
}

/// Classifies the first bytes of a stream; `complete` means that no more will come. Once the result is not [`Detection::More`],
/// a longer prefix never gives a different one.
pub fn detect(data: &[u8], complete: bool) -> Detection {
    if data.len() < 12 && !complete {
        return Detection::More;
    }
    if data.starts_with(b"FLV") {
        return Detection::Is(Container::Flv);
    }
    if data.starts_with(&[0x1a, 0x45, 0xdf, 0xa3]) {
        return Detection::Is(Container::Matroska);
    }
    if let Some(b"ftyp" | b"styp" | b"moov" | b"moof" | b"mdat" | b"sidx" | b"free" | b"skip" | b"wide" | b"emsg") =
        data.get(4..8)
    {
        return Detection::Is(Container::Fmp4);
    }
    // Checked last, since sync bytes are the weakest evidence.
    if is_transport_stream(data, complete) {
        return Detection::Is(Container::MpegTs);
    }
    if complete || data.len() >= MAX_PROBE {
        Detection::Unknown
    } else {
        Detection::More
    }
}

/// Returns whether sync bytes are one packet apart, starting at any offset. The last packet may be incomplete.
fn is_transport_stream(data: &[u8], complete: bool) -> bool {
    let is_sync = |i: usize| match data.get(i..) {
        // No transport error, and payload or an adaptation field; an adaptation field alone has 183 bytes (13818-1 2.4.3.5).
        Some(&[0x47, b1, _, b3, length, ..]) => b1 & 0x80 == 0 && b3 & 0x30 != 0 && (b3 & 0x30 != 0x20 || length == 183),
        _ => false,
    };
    // The layouts of `mpegts`: plain, behind an arrival time of M2TS, in front of parity bytes.
    [188, 192, 204].into_iter().any(|stride| {
        let needed = if complete && data.len() < SYNCS * stride {
            (data.len() / stride).max(1)
        } else {
            SYNCS
        };
        let last_start = data.len().saturating_sub((needed - 1) * stride);
        // With so few packets a sync byte may match by chance. So they must begin at the start, or behind the four bytes of an
        // arrival time (M2TS).
        let limit = if complete && needed < SYNCS {
            last_start.min(5)
        } else {
            last_start
        };
        (0..limit).any(|start| (0..needed).all(|k| is_sync(start + k * stride)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: [u8; 5] = [0x47, 0x41, 0, 0x10, 0];

    #[test]
    fn each_container_is_known_by_its_first_bytes() {
        assert_eq!(detect(b"FLV\x01\x05\0\0\0\x09\0\0\0\0", false), Detection::Is(Container::Flv));
        assert_eq!(detect(b"\0\0\0\x18ftypiso5\0\0\0\0", false), Detection::Is(Container::Fmp4));
        assert_eq!(
            detect(&[0x1a, 0x45, 0xdf, 0xa3, 0x9f, 1, 2, 3, 4, 5, 6, 7], false),
            Detection::Is(Container::Matroska)
        );
        for stride in [188, 192, 204] {
            for offset in [0, 4, 77] {
                let mut ts = vec![0xffu8; offset + stride * 3 + 5];
                (0..4).for_each(|k| ts[offset + k * stride..][..5].copy_from_slice(&PACKET));
                assert_eq!(
                    detect(&ts, false),
                    Detection::Is(Container::MpegTs),
                    "stride {stride} offset {offset}"
                );
            }
        }
    }

    #[test]
    fn a_longer_prefix_never_changes_the_answer() {
        let mut ts = vec![0u8; 3000];
        (0..14).for_each(|k| ts[30 + k * 188..][..5].copy_from_slice(&PACKET));
        let mut decided = None;
        for n in 0..ts.len() {
            let d = detect(&ts[..n], false);
            match decided {
                None if d != Detection::More => decided = Some(d),
                Some(first) => assert_eq!(d, first),
                None => {}
            }
        }
        assert_eq!(decided, Some(Detection::Is(Container::MpegTs)));
    }

    #[test]
    fn text_is_no_container() {
        let text = b"GET / HTTP/1.1\r\n".repeat(5000);
        assert_eq!(detect(&text[..1000], false), Detection::More);
        assert_eq!(detect(&text, false), Detection::Unknown);
        assert_eq!(detect(b"x", true), Detection::Unknown);
    }
}
