//! Formats and parses RFC 3339 times in UTC with milliseconds. PURE, except that [`zone`] reads the system's time zones.

use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::{TimeZone, TimeZoneDatabase};

/// Returns the instant `ns` nanoseconds after the Unix epoch, or the latest one that jiff supports.
pub fn timestamp(ns: u64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(Timestamp::MAX)
}

/// Formats an instant (ns since the Unix epoch) as `2026-11-22T06:45:12.345Z`. Fractions below a millisecond are cut off.
pub fn rfc3339_ms(ns: u64) -> String {
    strftime("%Y-%m-%dT%H:%M:%S.%3fZ", ns).unwrap_or_default()
}

/// Parses an RFC 3339 time, with any offset and any number of fractional digits, as ns since the Unix epoch. Returns `None` for
/// any other text and for times before 1970.
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let time: Timestamp = text.parse().ok()?;
    u64::try_from(time.as_nanosecond()).ok()
}

/// Returns the time zone with this IANA name: from the system's database, else from the one that is compiled in. Debian 13 and
/// Ubuntu 24.04 have moved older names to the package `tzdata-legacy`, but browsers still report them (`Asia/Calcutta`).
pub fn zone(name: &str) -> Option<TimeZone> {
    let bundled = || TimeZoneDatabase::bundled().get(name);
    TimeZone::get(name).or_else(|_| bundled()).ok()
}

/// Formats an instant in UTC with the conversions of `jiff::fmt::strtime`.
pub(crate) fn strftime(format: &str, ns: u64) -> Result<String, String> {
    let time = timestamp(ns).to_zoned(TimeZone::UTC);
    strtime::format(format, &time).map_err(|e| e.to_string())
}

/// serde of an instant (ns since the Unix epoch) as RFC 3339.
pub mod required {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    /// Writes the instant.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(ns: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::rfc3339_ms(*ns))
    }

    /// Reads the instant.
    ///
    /// # Errors
    /// Those of the deserializer, or the text is not a time since 1970.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let text = String::deserialize(deserializer)?;
        super::parse_rfc3339(&text).ok_or_else(|| D::Error::custom("not an RFC 3339 time since 1970"))
    }
}

/// As [`required`], for an instant that may be unknown (`null`).
pub mod option {
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    /// Writes the instant or `null`.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(ns: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
        ns.map(super::rfc3339_ms).serialize(serializer)
    }

    /// Reads an instant or `null`.
    ///
    /// # Errors
    /// Those of the deserializer, or the text is not a time since 1970.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
        #[derive(Deserialize)]
        struct Time(#[serde(with = "super::required")] u64);
        Ok(Option::<Time>::deserialize(deserializer)?.map(|time| time.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_milliseconds_and_z() {
        assert_eq!(rfc3339_ms(1_795_329_912_345_000_000), "2026-11-22T06:45:12.345Z");
    }

    #[test]
    fn what_is_no_time_is_none() {
        for text in ["", "yesterday", "2026-11-22", "1969-12-31T23:59:59Z", "2026-13-01T00:00:00Z"] {
            assert_eq!(parse_rfc3339(text), None, "{text}");
        }
        assert_eq!(
            parse_rfc3339("2026-11-22T07:45:12.345+01:00"),
            Some(1_795_329_912_345_000_000)
        );
    }

    proptest::proptest! {
        #[test]
        fn a_time_is_read_back_to_the_millisecond(ms in 0u64..u64::MAX / 1_000_000) {
            proptest::prop_assert_eq!(parse_rfc3339(&rfc3339_ms(ms * 1_000_000)), Some(ms * 1_000_000));
        }
    }
}
