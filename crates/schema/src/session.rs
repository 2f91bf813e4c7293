//! Session ids: ten characters that sort by time.
//!
//! PURE. 42 bits of milliseconds since the Unix epoch (until 2109) and 8 random bits, in the base32 alphabet of RFC 4648 section
//! 7 in lower case, whose characters sort as their values do. A board without a clock starts with the same time at every boot:
//! before 2020 the two top bits are 0 and the other 48 random, so that its ids do not repeat and sort before all others.

const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
/// Length of an id in characters.
pub const LEN: usize = 10;

/// 2020-01-01 in ms since the epoch: a clock that shows less was never set.
const EARLIEST_MS: u64 = 1_577_836_800_000;
/// Number of random bits in an id from before that date.
const RANDOM: u64 = (1 << 48) - 1;

/// Returns the id of a session that begins at `wall` (ns since the epoch). `chance` is random. 8 bits of it distinguish sessions
/// that begin in the same millisecond; 48 bits distinguish those of a machine whose clock was never set.
pub fn session_id(wall: u64, chance: u64) -> String {
    let value = match wall / 1_000_000 {
        0..EARLIEST_MS => chance & RANDOM,
        ms => ms << 8 | (chance & 0xff),
    };
    (0..LEN)
        .rev()
        .map(|i| char::from(ALPHABET[usize::try_from(value >> (5 * i) & 31).unwrap_or(0)]))
        .collect()
}

/// Returns whether the text is a session id.
pub fn is_session_id(id: &str) -> bool {
    value(id).is_some()
}

/// Returns when a session began by the clock of its machine, ns since the epoch, to the millisecond. Returns `None` if `id` is
/// not a session id, or is from a machine whose clock was never set.
pub fn session_start(id: &str) -> Option<u64> {
    let ms = value(id)? >> 8;
    (ms >= EARLIEST_MS).then(|| ms.saturating_mul(1_000_000))
}

fn value(id: &str) -> Option<u64> {
    if id.len() != LEN {
        return None;
    }
    id.bytes().try_fold(0u64, |value, byte| {
        let digit = ALPHABET.iter().position(|c| *c == byte)?;
        Some(value << 5 | u64::try_from(digit).ok()?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ten_characters_and_sort_by_time() {
        let times = [EARLIEST_MS, 1_795_329_912_345, 1_795_329_912_346, 4_000_000_000_000];
        let ids: Vec<String> = times.iter().map(|ms| session_id(ms * 1_000_000, 200)).collect();
        assert!(ids.iter().all(|id| id.len() == 10));
        assert!(ids.is_sorted());
        let now = 1_795_329_912_345_000_000;
        assert_ne!(session_id(now, 1), session_id(now, 2));
    }

    #[test]
    fn a_board_that_boots_with_the_same_time_again_and_again_does_not_repeat_its_ids() {
        let first_boot = 5_000_000_000;
        let ids: std::collections::BTreeSet<String> = (0..10_000u64)
            .map(|boot| session_id(first_boot, boot.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
            .collect();
        assert_eq!(ids.len(), 10_000);
        let earliest = session_id(EARLIEST_MS * 1_000_000, 0);
        assert!(
            ids.iter()
                .all(|id| *id < earliest && is_session_id(id) && session_start(id).is_none())
        );
        assert!(session_id(first_boot, u64::MAX) < earliest);
    }

    #[test]
    fn other_texts_are_no_ids() {
        for id in ["", "0a1b2c3d4", "0a1b2c3d4ee", "0a1b2c3d4z", "0A1B2C3D4E", "0a1b2c3d4é"] {
            assert!(session_start(id).is_none() && !is_session_id(id), "{id}");
        }
    }

    proptest::proptest! {
        #[test]
        fn the_start_is_read_back(ms in EARLIEST_MS..1 << 42, chance: u64) {
            proptest::prop_assert_eq!(session_start(&session_id(ms * 1_000_000, chance)), Some(ms * 1_000_000));
        }
    }
}
