//! Formats amounts and times for people: `46 GB`, `3 days`. Messages use these; fields of structures stay plain numbers.
//!
//! At most three digits, rounded to nearest; decimal units, as disks and networks are sold. Small limits (a few kB) stay exact.
//! Do not use for offsets, or for two sizes that differ only in their last digits.

use std::time::Duration;

/// Amounts below this are written in full.
const EXACT: u64 = 10_000;
const UNITS: [&str; 6] = ["kB", "MB", "GB", "TB", "PB", "EB"];

const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;
const SECOND: u64 = 1_000_000_000;
const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Formats a number of bytes: `812 bytes`, `46 kB`, `1.5 MB`, `46 GB`.
#[must_use]
pub fn bytes(amount: u64) -> String {
    if amount < EXACT {
        return format!("{amount} {}", if amount == 1 { "byte" } else { "bytes" });
    }
    let mut unit = 1_000;
    for name in UNITS {
        // 999.6 kB would be rounded to 1000 kB.
        let is_last = name == UNITS[UNITS.len() - 1];
        if is_last || rounded(amount, unit) < 1_000 {
            return format!("{} {name}", with_a_decimal(amount, unit));
        }
        unit = unit.saturating_mul(1_000);
    }
    unreachable!("the last unit takes all")
}

/// Formats a number of bytes a second: `500 kB/s`.
#[must_use]
pub fn rate(per_second: u64) -> String {
    format!("{}/s", bytes(per_second))
}

/// Formats a length of time in ns: `350 ms`, `2.5 s`, `95 s`, `45 minutes`, `30 hours`, `3 days`.
#[must_use]
pub fn duration(ns: u64) -> String {
    match ns {
        0 => "0 s".to_owned(),
        _ if ns < 10 * MICROSECOND => format!("{ns} ns"),
        _ if ns < MILLISECOND => format!("{} µs", rounded(ns, MICROSECOND)),
        _ if ns < SECOND => format!("{} ms", rounded(ns, MILLISECOND)),
        _ if ns < 3 * MINUTE => format!("{} s", with_a_decimal(ns, SECOND)),
        _ if ns < 3 * HOUR => format!("{} minutes", rounded(ns, MINUTE)),
        _ if ns < 3 * DAY => format!("{} hours", rounded(ns, HOUR)),
        _ => format!("{} days", rounded(ns, DAY)),
    }
}

/// Formats a length of time as [`duration`] does.
#[must_use]
pub fn span(time: Duration) -> String {
    duration(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX))
}

/// Formats a number of chunks: `1 chunk`, `4 chunks`.
#[must_use]
pub fn chunks(number: u64) -> String {
    format!("{number} {}", if number == 1 { "chunk" } else { "chunks" })
}

fn rounded(amount: u64, unit: u64) -> u64 {
    amount / unit + u64::from(amount % unit >= unit.div_ceil(2))
}

/// Formats with one decimal below 10, unless that decimal is 0.
fn with_a_decimal(amount: u64, unit: u64) -> String {
    let tenths = rounded(amount, unit / 10);
    match (tenths / 10, tenths % 10) {
        (whole @ 0..10, tenth @ 1..) => format!("{whole}.{tenth}"),
        _ => rounded(amount, unit).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_read_at_a_glance_and_small_limits_stay_exact() {
        for (amount, text) in [
            (0, "0 bytes"),
            (1, "1 byte"),
            (8192, "8192 bytes"),
            (9_999, "9999 bytes"),
            (10_000, "10 kB"),
            (999_499, "999 kB"),
            (999_500, "1 MB"),
            (1_500_000, "1.5 MB"),
            (1_960_000, "2 MB"),
            (9_960_000, "10 MB"),
            (20_000_000, "20 MB"),
            (64 << 20, "67 MB"),
            (46_000_000_000, "46 GB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(bytes(amount), text);
        }
        assert_eq!(rate(500_000), "500 kB/s");
    }

    #[test]
    fn times_have_the_unit_that_a_person_would_choose() {
        for (ns, text) in [
            (0, "0 s"),
            (3600, "3600 ns"),
            (60_000, "60 µs"),
            (350 * MILLISECOND, "350 ms"),
            (SECOND, "1 s"),
            (2_540 * MILLISECOND, "2.5 s"),
            (10 * SECOND, "10 s"),
            (95 * SECOND, "95 s"),
            (3600 * SECOND, "60 minutes"),
            (30 * HOUR, "30 hours"),
            (3 * DAY, "3 days"),
            (u64::MAX, "213504 days"),
        ] {
            assert_eq!(duration(ns), text);
        }
    }

    #[test]
    fn one_chunk_is_no_chunks() {
        assert_eq!([0, 1, 2].map(chunks), ["0 chunks", "1 chunk", "2 chunks"]);
    }
}
