//! The default of `max-memory-bytes`: a quarter of the machine's memory or of the lowest limit of the process's cgroups,
//! whichever is less.
//!
//! A limit applies to all groups below it (cgroup v2, `memory.max`): `MemoryMax=` of a unit or of its slice, or the limit of a
//! container.

/// The default if neither can be read.
const FALLBACK: u64 = 256 << 20;

/// Returns the default of `max-memory-bytes`.
pub fn default_limit() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let own = read("/proc/self/cgroup").unwrap_or_default();
    let limits: Vec<String> = groups(&own)
        .filter_map(|group| read(&format!("/sys/fs/cgroup{group}/memory.max")))
        .collect();
    limit(read("/proc/meminfo").as_deref(), &limits)
}

/// Returns the process's cgroup and all above it, as paths relative to the mount point. `own`: the text of `/proc/self/cgroup`,
/// where the line of cgroup v2 begins with `0::`.
fn groups(own: &str) -> impl Iterator<Item = &str> {
    let path = own.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default();
    std::iter::successors(Some(path.trim_end_matches('/')), |group| Some(group.rsplit_once('/')?.0))
}

fn limit(meminfo: Option<&str>, cgroups: &[String]) -> u64 {
    let machine = meminfo.and_then(|text| {
        let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1024)
    });
    // "max" is no limit.
    let cgroups = cgroups.iter().filter_map(|text| text.trim().parse::<u64>().ok());
    let all = machine.into_iter().chain(cgroups).min();
    all.map_or(FALLBACK, |all| all / 4)
}

/// Returns the share of each of `cameras` cameras, but at least what a sink needs.
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
        let limit = |meminfo, cgroups: &[&str]| limit(meminfo, &cgroups.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
        assert_eq!(limit(Some(meminfo), &[]), 2_048_000_000);
        assert_eq!(limit(Some(meminfo), &["max\n"]), 2_048_000_000);
        assert_eq!(limit(Some(meminfo), &["1073741824\n"]), 268_435_456);
        assert_eq!(
            limit(Some(meminfo), &["max\n", "1073741824\n", "2147483648\n"]),
            268_435_456,
            "that of a slice"
        );
        assert_eq!(limit(None, &["1073741824\n"]), 268_435_456);
        assert_eq!(limit(Some("odd"), &[]), FALLBACK);
        assert_eq!(share(100 << 20, 4), 25 << 20);
        assert_eq!(share(100, 4), 1 << 20);
    }

    #[test]
    fn the_limits_of_all_groups_above_count() {
        let all = |own| groups(own).collect::<Vec<_>>();
        assert_eq!(
            all("0::/system.slice/gcstreamer-recorder.service\n"),
            ["/system.slice/gcstreamer-recorder.service", "/system.slice", ""]
        );
        assert_eq!(all("0::/\n"), [""], "a container's own namespace");
        assert_eq!(all("5:memory:/a\n0::/b\n"), ["/b", ""]);
        assert_eq!(all(""), [""]);
    }
}
