//! Spreads the starts of cameras and of their second chunks, so that a network switch, a disk and a bucket do not get the load of
//! all cameras in the same moment.
//!
//! PURE. `tests/fleet_start.rs` simulates whole fleets with it.

use std::time::Duration;

use crate::shard;

/// The time between the starts of two cameras of a process.
const STEP: Duration = Duration::from_millis(100);
/// The most time between the starts of the first and the last camera of a process.
const LONGEST: Duration = Duration::from_secs(30);

/// Returns the delay after which camera `index` of `count` starts.
pub fn delay(index: usize, count: usize) -> Duration {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let step = STEP.min(LONGEST / number(count).max(1));
    step * number(index)
}

/// Returns how long after its first picture a camera of a fleet begins its second chunk: from 0 to the length `chunk`.
///
/// Pods that start at the same time start their cameras only a few seconds apart. Chunks that begin together would always end
/// together and be uploaded in the same second. A shorter first chunk loses nothing, while a delayed start would lose pictures.
pub fn first_cut(id: &str, chunk: Duration) -> Duration {
    // A pod records the cameras with a large weight for its number, so that weight is not evenly spread among them: use a number
    // that no pod has.
    let share = shard::weight(id, u32::MAX) >> 48;
    chunk * u32::try_from(share).unwrap_or(0) / (1 << 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_cuts_of_a_fleet_and_of_a_pod_are_spread_over_a_whole_chunk() {
        let chunk = Duration::from_secs(10);
        let ids: Vec<String> = (0..10_000).map(|i| format!("store{}/cam{}", i / 8, i % 8)).collect();
        let in_seconds = |ids: &mut dyn Iterator<Item = &String>| {
            let mut seconds = [0usize; 10];
            ids.for_each(|id| seconds[usize::try_from(first_cut(id, chunk).as_secs()).unwrap()] += 1);
            seconds
        };
        let all = in_seconds(&mut ids.iter());
        assert!(all.iter().all(|count| (900..1100).contains(count)), "{all:?}");
        let pod = in_seconds(&mut ids.iter().filter(|id| shard::pod_of(id, 10) == 3));
        assert!(pod.iter().all(|count| (70..130).contains(count)), "{pod:?}");
    }

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
