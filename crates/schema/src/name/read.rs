//! Parses object names: their parts, and the listing prefixes of a day or an hour.
//!
//! PURE. A name is matched against the template from left to right (`pattern`). Conversions of `strftime` match what they can
//! print (`moment`), and the result is accepted only if the template formats it to the same name. A name of another recording or
//! of another template is therefore never accepted as one of ours.

use super::moment::{self, Moment};
use super::{NameFields, Template};

/// The parts of a name; `None` for a part that the template does not contain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameParts {
    /// Property `device-id`.
    pub device: Option<String>,
    /// Property `session-id`.
    pub session: Option<String>,
    /// Sequence number in the session.
    pub sequence: Option<u64>,
    /// Extension of the container.
    pub extension: Option<String>,
    /// Capture start, ns since the Unix epoch, as precise as the template.
    pub start: Option<u64>,
    /// Number in the suffix that gcssink appends if a name is taken (`…-r1.flv`); 0 without a suffix.
    pub retry: u32,
}

const HOUR: u64 = 3600 * 1_000_000_000;
const DAY: u64 = 24 * HOUR;

impl Template {
    /// Parses a name that this template produced, the inverse of [`Template::format`]. Returns `None` for any other name.
    ///
    /// Also accepts the names that `gcssink` uses if a name is taken: they end in `-r1`, `-r2` … before the extension.
    pub fn read(&self, name: &str) -> Option<NameParts> {
        self.read_plain(name).or_else(|| {
            let (plain, retry) = without_retry(name)?;
            Some(NameParts {
                retry,
                ..self.read_plain(&plain)?
            })
        })
    }

    fn read_plain(&self, name: &str) -> Option<NameParts> {
        let found = self.pattern.as_ref()?.find(name)?;
        let values = found.values;
        let start = match moment::plain(&found.times) {
            Moment::At(start) => Some(start),
            Moment::Never => return None,
            Moment::Unusual => {
                let start = moment::general(&found.times)?;
                // Two conversions of one field may contradict each other.
                let again = self.format(&NameFields {
                    device: values.device.unwrap_or_default(),
                    session: values.session.unwrap_or_default(),
                    seq: values.sequence.unwrap_or_default(),
                    ext: values.extension.unwrap_or_default(),
                    start: start.unwrap_or_default(),
                });
                if start.is_some() && again.as_deref() != Ok(name) {
                    return None;
                }
                start
            }
        };
        Some(NameParts {
            device: values.device.map(str::to_owned),
            session: values.session.map(str::to_owned),
            sequence: values.sequence,
            extension: values.extension.map(str::to_owned),
            start,
            retry: 0,
        })
    }

    /// Returns the longest common prefix of the names of all chunks of `device` that start in the UTC day of `start` (ns since
    /// the Unix epoch). A listing with this prefix misses none of them.
    pub fn day_prefix(&self, device: &str, start: u64) -> String {
        let begin = start - start % DAY;
        self.prefix(
            device,
            (0..24)
                .map(|hour| begin.saturating_add(hour * HOUR))
                .chain([begin.saturating_add(DAY - 1)]),
        )
    }

    /// Returns the time resolution of names, ns: chunks that start this far apart get different names. `u64::MAX` if names do not
    /// contain the time.
    pub fn resolution(&self) -> u64 {
        const AT: u64 = 1_767_225_600_000_000_000; // 2026-01-01T00:00:00Z
        let name = |start| {
            let naming = NameFields {
                device: "0",
                session: "0",
                seq: 0,
                ext: "a",
                start,
            };
            self.format(&naming).unwrap_or_default()
        };
        let steps = [1_000_000, 1_000_000_000, 60_000_000_000, HOUR, DAY];
        steps.into_iter().find(|step| name(AT) != name(AT + step)).unwrap_or(u64::MAX)
    }

    /// As [`Template::day_prefix`], for the UTC hour of `start`.
    pub fn hour_prefix(&self, device: &str, start: u64) -> String {
        let begin = start - start % HOUR;
        self.prefix(
            device,
            (0..60)
                .map(|minute| begin.saturating_add(minute * HOUR / 60))
                .chain([begin.saturating_add(HOUR - 1)]),
        )
    }

    fn prefix(&self, device: &str, times: impl Iterator<Item = u64>) -> String {
        // Fields that differ between chunks get values that differ in their first character, so that the prefix ends before them.
        let name = |(session, seq, ext), start| {
            let naming = NameFields {
                device,
                session,
                seq,
                ext,
                start,
            };
            self.format(&naming).unwrap_or_default()
        };
        let names = times.flat_map(|time| [("0", 0, "a"), ("1", 999_999, "b")].map(|other| name(other, time)));
        names
            .reduce(|common, name| common_prefix(&common, &name).to_owned())
            .unwrap_or_default()
    }
}

/// Returns the longest common prefix of both texts, in whole characters.
pub fn common_prefix<'a>(a: &'a str, b: &str) -> &'a str {
    let end = a.char_indices().zip(b.chars()).find(|((_, x), y)| x != y);
    let end = end.map_or(a.len().min(b.len()), |((at, _), _)| at);
    a.get(..end).unwrap_or_default()
}

/// Splits `a-r2.flv` into `a.flv` and 2.
fn without_retry(name: &str) -> Option<(String, u32)> {
    let folder = name.rfind('/').map_or(0, |i| i + 1);
    let dot = name.rfind('.').filter(|&i| i > folder).unwrap_or(name.len());
    let (stem, ext) = name.split_at_checked(dot)?;
    let (stem, number) = stem.rsplit_once("-r")?;
    let retry: u32 = number.parse().ok().filter(|&n: &u32| n > 0 && n.to_string() == number)?;
    Some((format!("{stem}{ext}"), retry))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DEFAULT: &str = "{device}/%Y/%m/%d/%Y%m%dT%H%M%S.%3fZ_{session}_{seq}.{ext}";
    const START: u64 = 1_795_329_912_345_000_000;

    fn template(location: &str) -> Template {
        Template::parse(location).unwrap()
    }

    #[test]
    fn the_default_name_is_read_back() {
        let name = "store42/cam3/2026/11/22/20261122T064512.345Z_0a1b2c3d4e_000012.flv";
        let parts = NameParts {
            device: Some("store42/cam3".into()),
            session: Some("0a1b2c3d4e".into()),
            sequence: Some(12),
            extension: Some("flv".into()),
            start: Some(START),
            retry: 0,
        };
        assert_eq!(template(DEFAULT).read(name), Some(parts.clone()));
        assert_eq!(
            template(DEFAULT).read(&name.replace(".flv", "-r2.flv")),
            Some(NameParts { retry: 2, ..parts })
        );
    }

    #[test]
    fn names_of_others_are_none() {
        for name in [
            "",
            "store42/cam3",
            "/2026/11/22/20261122T064512.345Z_0a1b2c3d4e_000012.flv",
            "cam/2026/11/22/20261123T064512.345Z_0a1b2c3d4e_000012.flv",
            "cam/2026/02/31/20260231T064512.345Z_0a1b2c3d4e_000012.flv",
            "cam/2026/11/22/20261122T064512.345Z_0a1b2c3d4z_000012.flv",
            "cam/2026/11/22/20261122T064512.345Z_0a1b2c3d4e_12.flv",
            "cam/2026/11/22/20261122T064512.345Z_0a1b2c3d4e_0000012.flv",
            "cam/2026/11/22/20261122T064512.345Z_0a1b2c3d4e_000012.flv/",
            "cam/2026/11/22/20261122T064512.345Z_0a1b2c3d4e_000012-r0.flv",
            "cam/2026/11/22/20261122T064512.345Z_0a1b2c3d4e_000012-r01.flv",
        ] {
            assert_eq!(template(DEFAULT).read(name), None, "{name}");
        }
    }

    #[test]
    fn a_prefix_is_as_long_as_all_names_of_the_time_allow() {
        let default = template(DEFAULT);
        assert_eq!(default.day_prefix("a/b", START), "a/b/2026/11/22/20261122T");
        assert_eq!(default.hour_prefix("a/b", START), "a/b/2026/11/22/20261122T06");
        let twelve = template("%F/%I%p_{device}_%T_{session}_{seq}");
        assert_eq!(twelve.day_prefix("a", START), "2026-11-22/");
        assert_eq!(twelve.hour_prefix("a", START), "2026-11-22/06AM_a_06:");
        assert_eq!(template("{session}_{seq}").day_prefix("a", START), "");
        assert_eq!(template("{device}/{session}/{seq}").day_prefix("a", START), "a/");
    }

    const TEMPLATES: [&str; 7] = [
        DEFAULT,
        "{session}_{seq}.ts",
        "%Y%j%T{seq}-{session}",
        "{device}/%F/%T-{seq}.{ext}",
        "v/%s_%3f/{device}_{seq}_{session}.{ext}",
        "%A/%d %B %Y/%H.%M.%S/{device}/{seq}",
        "100%%/%y%m%d_%I%M%S%p_{seq}_{device}",
    ];

    #[test]
    fn names_tell_as_much_of_the_time_as_their_fields() {
        let resolution = |location: &str| Template::parse(location).unwrap().resolution();
        assert_eq!(resolution("{device}/%Y%m%dT%H%M%S.%3fZ_{session}_{seq}.{ext}"), 1_000_000);
        assert_eq!(resolution("{device}/%Y%m%dT%H%M%S_{session}_{seq}.{ext}"), 1_000_000_000);
        assert_eq!(resolution("{device}/%Y-%m-%d/%H-%M_{session}_{seq}.{ext}"), 60_000_000_000);
        assert_eq!(resolution("{device}/%Y-%m-%d/{session}_{seq}.{ext}"), DAY);
        assert_eq!(resolution("{device}/{session}_{seq}.{ext}"), u64::MAX);
    }

    proptest! {
        #[test]
        fn a_name_is_read_back_and_stands_below_its_prefixes(
            location in proptest::sample::select(&TEMPLATES[..]),
            device in "[a-z0-9é][a-z0-9é_./-]{0,12}",
            // Until 2068: two-digit years (%y) are read as 1969 to 2068.
            ms in 0u64..3_124_000_000_000,
            seq in 0u64..2_000_000,
            chance: u64,
        ) {
            let template = template(location);
            let start = ms * 1_000_000;
            let session = crate::session::session_id(start, chance);
            let naming = NameFields { device: &device, session: &session, seq, ext: "mp4", start };
            let name = template.format(&naming).unwrap();
            let parts = template.read(&name).unwrap();
            prop_assert_eq!(parts.sequence, Some(seq));
            prop_assert!(parts.session.is_none_or(|s| s == session));
            prop_assert!(parts.device.is_none_or(|d| d == device));
            prop_assert!(parts.start.is_none_or(|s| s / 1_000_000_000 == ms / 1000), "{:?}", parts.start);
            prop_assert!(name.starts_with(&template.day_prefix(&device, start)));
            prop_assert!(name.starts_with(&template.hour_prefix(&device, start)));
        }

        #[test]
        fn what_is_read_of_a_name_with_a_changed_character_gives_that_name(
            location in proptest::sample::select(&TEMPLATES[..]),
            ms in 0u64..3_124_000_000_000,
            seq in 0u64..2_000_000,
            at: proptest::sample::Index,
            other in "[0-9a-zé/._%-]",
        ) {
            let template = template(location);
            let start = ms * 1_000_000;
            let session = crate::session::session_id(start, 1);
            let naming = NameFields { device: "store42/cam3", session: &session, seq, ext: "mp4", start };
            let mut name: Vec<char> = template.format(&naming).unwrap().chars().collect();
            let at = at.index(name.len());
            name[at] = other.chars().next().unwrap();
            let name: String = name.into_iter().collect();
            if let Some(parts) = template.read(&name).filter(|parts| parts.retry == 0)
                && let Some(start) = parts.start
            {
                let session = parts.session.unwrap_or_default();
                let (device, ext) = (parts.device.unwrap_or_default(), parts.extension.unwrap_or_default());
                let naming = NameFields { device: &device, session: &session, seq: parts.sequence.unwrap(), ext: &ext, start };
                prop_assert_eq!(template.format(&naming).unwrap(), name);
            }
        }

        #[test]
        fn any_name_is_survived(location in proptest::sample::select(&TEMPLATES[..]), name in ".{0,80}") {
            let _ = template(location).read(&name);
        }
    }
}
