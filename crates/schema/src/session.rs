//! Session ids: ten characters that sort by time.
//!
//! PURE. 42 bits of milliseconds since the Unix epoch (until 2109) and 8 random bits, in the base32 alphabet of RFC 4648
//! section 7 in lower case, whose characters sort as their values do.

const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
/// Characters of an id.
pub const LEN: usize = 10;

/// Returns the id of a session that begins at `wall` (ns since the epoch). `chance` tells apart sessions that begin in the same
/// millisecond.
pub fn session_id(wall: u64, chance: u8) -> String {
    let value = (wall / 1_000_000) << 8 | u64::from(chance);
    (0..LEN)
        .rev()
        .map(|i| char::from(ALPHABET[usize::try_from(value >> (5 * i) & 31).unwrap_or(0)]))
        .collect()
}

/// Returns when a session began by the clock of its machine, ns since the epoch, to the millisecond. `None`: `id` is no session
/// id.
pub fn session_start(id: &str) -> Option<u64> {
    if id.len() != LEN {
        return None;
    }
    let value = id.bytes().try_fold(0u64, |value, byte| {
        let digit = ALPHABET.iter().position(|c| *c == byte)?;
        Some(value << 5 | u64::try_from(digit).ok()?)
    })?;
    (value >> 8).checked_mul(1_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ten_characters_and_sort_by_time() {
        let times = [0u64, 1, 999, 1_795_329_912_345, 1_795_329_912_346, 4_000_000_000_000];
        let ids: Vec<String> = times.iter().map(|ms| session_id(ms * 1_000_000, 200)).collect();
        assert!(ids.iter().all(|id| id.len() == 10));
        assert!(ids.is_sorted());
        assert_ne!(session_id(5, 1), session_id(5, 2));
    }

    #[test]
    fn other_texts_are_no_ids() {
        for id in ["", "0a1b2c3d4", "0a1b2c3d4ee", "0a1b2c3d4z", "0A1B2C3D4E", "0a1b2c3d4é"] {
            assert_eq!(session_start(id), None, "{id}");
        }
    }

    proptest::proptest! {
        #[test]
        fn the_start_is_read_back(ms in 0u64..1 << 42, chance: u8) {
            proptest::prop_assert_eq!(session_start(&session_id(ms * 1_000_000, chance)), Some(ms * 1_000_000));
        }
    }
}
