//! When each camera of a start begins: neither a switch, a disk nor a bucket has to take all of them in one moment.
//!
//! PURE. `tests/fleet_start.rs` simulates whole fleets with it.

use std::time::Duration;

/// From one camera of a process to the next.
const STEP: Duration = Duration::from_millis(100);
/// From the first camera of a process to its last, at most.
const LONGEST: Duration = Duration::from_secs(30);

/// Returns how long after the start camera `index` of `count` begins.
pub fn delay(index: usize, count: usize) -> Duration {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let step = STEP.min(LONGEST / number(count).max(1));
    step * number(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cameras_of_a_process_begin_100_ms_apart_and_all_of_them_within_30_s() {
        assert_eq!(delay(0, 40), Duration::ZERO);
        assert_eq!(delay(39, 40), Duration::from_millis(3900));
        for count in [1, 2, 300, 301, 5000] {
            let all: Vec<Duration> = (0..count).map(|index| delay(index, count)).collect();
            assert!(all.is_sorted() && all[count - 1] < LONGEST, "{count}");
        }
        assert!(delay(4999, 5000) > Duration::from_secs(29));
    }
}
