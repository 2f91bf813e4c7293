//! Session ids: ten characters that sort by time.
//!
//! PURE. 42 bits of milliseconds since the Unix epoch (until 2109), 8 bits of chance, in the base32 alphabet of RFC 4648
//! section 7 in lower case, whose characters sort as their values do.

const ALPHABET: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";

/// The id of a session that begins at `wall` (ns since the epoch); `chance` tells apart what begins in one millisecond.
pub fn session_id(wall: u64, chance: u8) -> String {
    let value = (wall / 1_000_000) << 8 | u64::from(chance);
    (0..10)
        .rev()
        .map(|i| char::from(ALPHABET[usize::try_from(value >> (5 * i) & 31).unwrap_or(0)]))
        .collect()
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
}
