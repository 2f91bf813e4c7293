//! Which listings may still change, and how long each is valid.
//!
//! PURE. An hour is finished when it is over and has no hole. Chunks of an outage arrive late, so an hour with holes is listed
//! again: soon at first, then less often, and in the end daily, as finished hours are. Times in ns.

use super::HOUR;
use super::chunk::Chunk;

const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
/// How far the end of an hour's last chunk may fall short of the end of the hour: metadata round times.
const ROUNDING: u64 = 5_000_000;
/// Validity of the listing of an hour that is running, or just over.
pub const RUNNING: u64 = 2 * SECOND;
/// Validity of the listing of a finished hour. No chunk is added any more, but a lifecycle rule or a user may delete some.
pub const FINISHED: u64 = 24 * HOUR;
/// Time after its end in which an hour still gets chunks that are being uploaded.
const SETTLED: u64 = 5 * MINUTE;

/// Returns how long the listing of the hour that begins at `begins`, made at `now`, is valid.
pub fn good_for(begins: u64, chunks: &[Chunk], now: u64) -> u64 {
    let age = now.saturating_sub(begins.saturating_add(HOUR));
    match age {
        _ if now < begins.saturating_add(HOUR + SETTLED) => RUNNING,
        _ if is_whole(begins, chunks) => FINISHED,
        _ if age < HOUR => MINUTE,
        _ if age < 6 * HOUR => 5 * MINUTE,
        _ if age < 24 * HOUR => 30 * MINUTE,
        _ => FINISHED,
    }
}

/// Returns how long the names of the UTC day that begins at `begins`, listed at `now`, are valid. Chunks of an outage may still
/// arrive.
pub fn day_good_for(begins: u64, now: u64) -> u64 {
    match now.saturating_sub(begins) / HOUR {
        0..25 => 30 * SECOND,
        25..48 => 10 * MINUTE,
        _ => 6 * HOUR,
    }
}

/// Returns whether the chunks cover the hour without a hole.
fn is_whole(begins: u64, chunks: &[Chunk]) -> bool {
    let (Some(first), Some(last)) = (chunks.first(), chunks.last()) else {
        return false;
    };
    // `<`, not `<=`: if chunks begin at whole multiples of their length, the second one begins exactly one length after the hour,
    // and the first may still be on its way.
    let shortest = chunks.iter().map(|chunk| chunk.meta.duration).min().unwrap_or(0);
    let is_first = first.meta.start.saturating_sub(begins) < shortest;
    // Until a chunk reaches the end of the hour, one that begins within the hour is missing.
    let reaches = is_first && last.meta.end.saturating_add(ROUNDING) >= begins + HOUR;
    reaches && chunks.windows(2).all(|pair| pair[0].is_followed_by(&pair[1]))
}

#[cfg(test)]
mod tests {
    use super::super::chunk::tests::{BASE, chunk};
    use super::*;

    fn hour(missing: Option<u64>) -> Vec<Chunk> {
        let begins = BASE - BASE % HOUR;
        let placed = |index: u64| {
            let mut chunk = chunk(0, index + 10, 0.0, 10.0);
            chunk.meta.start = begins + index * 10 * SECOND;
            chunk.meta.end = chunk.meta.start + 10 * SECOND;
            chunk
        };
        (0..360).filter(|index| Some(*index) != missing).map(placed).collect()
    }

    #[test]
    fn a_whole_hour_is_looked_at_daily_and_one_with_a_hole_sooner() {
        let begins = BASE - BASE % HOUR;
        let after = |minutes: u64| begins + HOUR + minutes * MINUTE;
        assert_eq!(good_for(begins, &hour(None), begins + MINUTE), RUNNING);
        assert_eq!(good_for(begins, &hour(None), after(1)), RUNNING, "uploads may be under way");
        assert_eq!(good_for(begins, &hour(None), after(6)), FINISHED);
        let holed = hour(Some(100));
        let listings = [6, 90, 600, 3000].map(|minutes| good_for(begins, &holed, after(minutes)) / MINUTE);
        assert_eq!(listings, [1, 5, 30, 1440]);
        assert_eq!(good_for(begins, &[], after(6)), MINUTE, "an empty hour may fill");
        assert_eq!(good_for(begins, &hour(Some(359)), after(6)), MINUTE, "its end is missing");
    }

    #[test]
    fn an_hour_that_lacks_a_chunk_of_its_last_second_is_looked_at_again() {
        let begins = BASE - BASE % HOUR;
        let mut shifted = hour(Some(359));
        for chunk in &mut shifted {
            chunk.meta.start += 9 * SECOND + SECOND / 2;
            chunk.meta.end += 9 * SECOND + SECOND / 2;
        }
        assert_eq!(good_for(begins, &shifted, begins + HOUR + 6 * MINUTE), MINUTE);
    }

    #[test]
    fn an_hour_whose_first_chunk_is_still_on_its_way_is_looked_at_again() {
        let begins = BASE - BASE % HOUR;
        let after = begins + HOUR + 6 * MINUTE;
        assert_eq!(good_for(begins, &hour(Some(0)), after), MINUTE);
        // Chunks that do not begin at multiples of their length: the one before the hour reaches into it.
        let mut shifted = hour(None);
        for chunk in &mut shifted {
            chunk.meta.start += 9 * SECOND;
            chunk.meta.end += 9 * SECOND;
        }
        assert_eq!(good_for(begins, &shifted, after), FINISHED);
    }
}
