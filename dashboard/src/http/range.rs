//! The header `Range` of one range of bytes, RFC 9110 section 14.
//!
//! PURE.

use std::ops::Range;

use axum::http::HeaderMap;
use axum::http::header::{IF_RANGE, RANGE};

/// The bytes to send, with the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it, 200.
    Whole,
    /// A part of it, 206.
    Part(Range<u64>),
    /// The range begins at or after the end, 416.
    Unsatisfiable,
}

/// Returns the header `Range`. `None` if `If-Range` names another version of the resource: the client must get the whole new one
/// then (RFC 9110 section 13.1.5).
pub(super) fn range_of<'h>(headers: &'h HeaderMap, etag: &str) -> Option<&'h str> {
    let header = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    header(RANGE).filter(|_| header(IF_RANGE).is_none_or(|stated| stated == etag))
}

/// Parses the header for a resource of `size` bytes. Several ranges, other units and invalid headers are answered with the whole.
pub(super) fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let Some(spec) = header.and_then(|value| value.trim().strip_prefix("bytes=")) else {
        return Wanted::Whole;
    };
    let Some((from, to)) = spec
        .split_once('-')
        .filter(|(from, to)| !from.contains(',') && !to.contains(','))
    else {
        return Wanted::Whole;
    };
    let number = |text: &str| text.trim().parse::<u64>();
    match (from.trim(), to.trim()) {
        ("", last) => match number(last) {
            // RFC 9110 section 14.1.2: a suffix of length 0 cannot be satisfied.
            Ok(0) => Wanted::Unsatisfiable,
            Ok(last) if size > 0 => Wanted::Part(size.saturating_sub(last)..size),
            Ok(_) => Wanted::Unsatisfiable,
            Err(_) => Wanted::Whole,
        },
        (from, to) => match (number(from), if to.is_empty() { Ok(u64::MAX) } else { number(to) }) {
            // Invalid by RFC 9110 section 14.1.1, and ignored as section 14.2 allows.
            (Ok(from), Ok(to)) if from > to => Wanted::Whole,
            (Ok(from), Ok(_)) if from >= size => Wanted::Unsatisfiable,
            (Ok(from), Ok(to)) => Wanted::Part(from..to.saturating_add(1).min(size)),
            _ => Wanted::Whole,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_served_and_anything_else_is_the_whole() {
        for (header, expected) in [
            (Some("bytes=0-9"), Wanted::Part(0..10)),
            (Some("bytes=90-"), Wanted::Part(90..100)),
            (Some("bytes=90-500"), Wanted::Part(90..100)),
            (Some("bytes=-10"), Wanted::Part(90..100)),
            (Some("bytes=-500"), Wanted::Part(0..100)),
            (Some("bytes=100-"), Wanted::Unsatisfiable),
            (Some("bytes=-0"), Wanted::Unsatisfiable),
            (Some("bytes=9-1"), Wanted::Whole),
            (Some("bytes=0-1,5-6"), Wanted::Whole),
            (Some("items=0-1"), Wanted::Whole),
            (Some("bytes=x-y"), Wanted::Whole),
            (None, Wanted::Whole),
        ] {
            assert_eq!(wanted(header, 100), expected, "{header:?}");
        }
        assert_eq!(wanted(Some("bytes=0-"), 0), Wanted::Unsatisfiable);
    }

    #[test]
    fn a_part_of_another_version_is_asked_for_in_vain() {
        let mut headers = HeaderMap::new();
        headers.insert(RANGE, "bytes=0-1".parse().unwrap());
        assert_eq!(range_of(&headers, "\"7\""), Some("bytes=0-1"));
        headers.insert(IF_RANGE, "\"7\"".parse().unwrap());
        assert_eq!(range_of(&headers, "\"7\""), Some("bytes=0-1"));
        for other in ["\"6\"", "W/\"7\"", "Sun, 29 Nov 2026 00:00:00 GMT"] {
            headers.insert(IF_RANGE, other.parse().unwrap());
            assert_eq!(range_of(&headers, "\"7\""), None, "{other}");
        }
    }

    proptest::proptest! {
        #[test]
        fn a_part_lies_inside(header: String, from: u64, to: u64, size: u64) {
            for header in [header.clone(), format!("bytes={from}-{to}"), format!("bytes=-{to}")] {
                if let Wanted::Part(part) = wanted(Some(&header), size) {
                    proptest::prop_assert!(part.start < part.end && part.end <= size);
                }
            }
        }
    }
}
