//! How much memory the chunks of all cameras may take where `max-memory-bytes` is not set: a quarter of the machine's, or of the
//! cgroup's limit where that is lower.

use std::path::Path;

/// Where neither can be read.
const FALLBACK: u64 = 256 << 20;

/// Returns the default of `max-memory-bytes`.
pub fn default_limit() -> u64 {
    let read = |path: &str| std::fs::read_to_string(Path::new(path)).ok();
    limit(read("/proc/meminfo").as_deref(), read("/sys/fs/cgroup/memory.max").as_deref())
}

fn limit(meminfo: Option<&str>, cgroup: Option<&str>) -> u64 {
    let machine = meminfo.and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    });
    // "max" is no limit.
    let cgroup = cgroup.and_then(|text| text.trim().parse::<u64>().ok());
    let all = [machine, cgroup].into_iter().flatten().min();
    all.map_or(FALLBACK, |all| all / 4)
}

/// Returns the share of one of `cameras`, at least what a sink takes.
pub fn share(all: u64, cameras: usize) -> u64 {
    let cameras = u64::try_from(cameras.max(1)).unwrap_or(u64::MAX);
    (all / cameras).max(crate::config::LEAST_MEMORY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_of_the_machine_or_of_a_lower_limit_of_the_cgroup() {
        let meminfo = "MemTotal:        8000000 kB\nMemFree:  1 kB\n";
        assert_eq!(limit(Some(meminfo), None), 2_048_000_000);
        assert_eq!(limit(Some(meminfo), Some("max\n")), 2_048_000_000);
        assert_eq!(limit(Some(meminfo), Some("1073741824\n")), 268_435_456);
        assert_eq!(limit(None, Some("1073741824\n")), 268_435_456);
        assert_eq!(limit(Some("odd"), None), FALLBACK);
        assert_eq!(share(100 << 20, 4), 25 << 20);
        assert_eq!(share(100, 4), 1 << 20);
    }
}
