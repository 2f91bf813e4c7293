//! Parses object names: their parts, and the listing prefixes of a day or an hour.
//!
//! PURE. A name is matched against the template from left to right. Conversions of `strftime` match what they can print, and the
//! result is accepted only if the template formats it to the same name. So a name of another recording, or of another template,
//! is never taken for one of ours.

use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::Offset;

use super::{NameFields, Part, Template};
use crate::session::{LEN as SESSION_LEN, is_session_id};

/// The parts of a name. `None`: the template does not contain it.
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
    /// The suffix number of a name that was given because the first was taken (`…-r1.flv`); 0 for the first.
    pub retry: u32,
}

const HOUR: u64 = 3600 * 1_000_000_000;
const DAY: u64 = 24 * HOUR;

impl Template {
    /// Parses a name that this template produced, the inverse of [`Template::format`]. `None`: it did not produce this name.
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
        let mut found = Found::default();
        if !matches(&atoms(&self.parts)?, name, &mut found) {
            return None;
        }
        let start = found.time()?;
        let parts = NameParts { start, ..found.parts };
        // Two conversions of one field may contradict each other.
        let again = self.format(&NameFields {
            device: parts.device.as_deref().unwrap_or_default(),
            session: parts.session.as_deref().unwrap_or_default(),
            seq: parts.sequence.unwrap_or_default(),
            ext: parts.extension.as_deref().unwrap_or_default(),
            start: start.unwrap_or_default(),
        });
        let is_ours = start.is_none() || again.as_deref() == Ok(name);
        is_ours.then_some(parts)
    }

    /// Returns the longest common prefix of the names of all chunks of `device` that start in the UTC day of `start` (ns since
    /// the Unix epoch). A listing with this prefix misses none of them.
    pub fn day_prefix(&self, device: &str, start: u64) -> String {
        let begin = start - start % DAY;
        self.prefix(device, (0..24).map(|hour| begin + hour * HOUR).chain([begin + DAY - 1]))
    }

    /// As [`Template::day_prefix`], for the UTC hour of `start`.
    pub fn hour_prefix(&self, device: &str, start: u64) -> String {
        let begin = start - start % HOUR;
        self.prefix(
            device,
            (0..60).map(|minute| begin + minute * HOUR / 60).chain([begin + HOUR - 1]),
        )
    }

    fn prefix(&self, device: &str, times: impl Iterator<Item = u64>) -> String {
        // Fields that differ between chunks get values that differ in their first character.
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

fn common_prefix<'a>(a: &'a str, b: &str) -> &'a str {
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

/// One piece of a template to match.
#[derive(Clone, Copy, Debug)]
enum Atom<'a> {
    Literal(char),
    /// A conversion of strftime, as written in the template, and what it prints.
    Time(&'a str, Printed),
    Device,
    Session,
    Sequence,
    Extension,
}

#[derive(Clone, Copy, Debug)]
struct Printed {
    min: usize,
    max: usize,
    is_part: fn(char) -> bool,
}

const fn digits(min: usize, max: usize) -> Printed {
    Printed {
        min,
        max,
        is_part: |c| c.is_ascii_digit(),
    }
}

/// Returns what a conversion prints; `None` for those of `jiff::fmt::strtime` that a template cannot be parsed back with.
fn printed(conversion: &str) -> Option<Printed> {
    let word = |max| Printed {
        min: 2,
        max,
        is_part: |c| c.is_ascii_alphabetic(),
    };
    let mixed = |min, max| Printed {
        min,
        max,
        is_part: |c| c.is_ascii_digit() || matches!(c, '-' | '/' | ':'),
    };
    Some(match conversion {
        "%Y" | "%G" => digits(4, 4),
        "%C" | "%d" | "%g" | "%H" | "%I" | "%m" | "%M" | "%S" | "%U" | "%V" | "%W" | "%y" => digits(2, 2),
        "%j" | "%3f" => digits(3, 3),
        "%u" | "%w" => digits(1, 1),
        "%6f" => digits(6, 6),
        "%9f" => digits(9, 9),
        "%f" => digits(1, 9),
        "%s" => digits(1, 12),
        "%F" => mixed(10, 10),
        "%D" | "%T" => mixed(8, 8),
        "%R" => mixed(5, 5),
        "%p" | "%P" => word(2),
        "%a" | "%b" | "%h" => word(3),
        "%A" | "%B" => word(9),
        _ => return None,
    })
}

/// Splits a template into pieces. `None`: it has a conversion that cannot be parsed back.
fn atoms(parts: &[Part]) -> Option<Vec<Atom<'_>>> {
    let mut into = Vec::new();
    for part in parts {
        match part {
            Part::Device => into.push(Atom::Device),
            Part::Session => into.push(Atom::Session),
            Part::Seq => into.push(Atom::Sequence),
            Part::Ext => into.push(Atom::Extension),
            Part::Text(text) => text_atoms(text, &mut into)?,
        }
    }
    Some(into)
}

fn text_atoms<'a>(mut text: &'a str, into: &mut Vec<Atom<'a>>) -> Option<()> {
    while let Some(c) = text.chars().next() {
        let len = if c == '%' {
            let letter = text
                .get(1..)?
                .find(|c: char| !c.is_ascii_digit() && !matches!(c, '-' | '_' | '.' | ':' | '^' | '#'))?;
            let len = 1 + letter + text.get(1 + letter..)?.chars().next()?.len_utf8();
            let conversion = text.get(..len)?;
            match conversion {
                "%%" => into.push(Atom::Literal('%')),
                _ => into.push(Atom::Time(conversion, printed(conversion)?)),
            }
            len
        } else {
            into.push(Atom::Literal(c));
            c.len_utf8()
        };
        text = text.get(len..)?;
    }
    Some(())
}

#[derive(Clone, Debug, Default)]
struct Found<'a> {
    parts: NameParts,
    /// Conversions and their matched text.
    times: Vec<(&'a str, &'a str)>,
}

impl Found<'_> {
    /// Returns the capture start. `Some(None)`: the conversions do not determine date and time. `None`: they contradict each
    /// other, or there is no such day.
    fn time(&self) -> Option<Option<u64>> {
        let (mut format, mut input) = (String::new(), String::new());
        for (conversion, printed) in &self.times {
            // The separator keeps neighbours such as %H%M apart; no conversion prints it.
            format.push_str(conversion);
            input.push_str(printed);
            format.push('|');
            input.push('|');
        }
        if self.times.is_empty() {
            return Some(None);
        }
        let mut time = BrokenDownTime::parse(&format, &input).ok()?;
        time.set_offset(Some(Offset::UTC));
        match time.to_timestamp() {
            Ok(timestamp) => {
                // Seconds since the epoch (%s) next to a fraction would drop the fraction.
                let hidden = if timestamp.subsec_nanosecond() == 0 {
                    time.subsec_nanosecond()
                } else {
                    None
                };
                let ns = timestamp.as_nanosecond() + i128::from(hidden.unwrap_or(0));
                Some(u64::try_from(ns).ok())
            }
            Err(_) => {
                let has_day = time.day_of_year().is_some() || (time.month().is_some() && time.day().is_some());
                (time.year().is_none() || !has_day).then_some(None)
            }
        }
    }
}

/// Matches all of `name`; tries the longest match of each piece first.
fn matches<'a>(atoms: &[Atom<'a>], name: &'a str, found: &mut Found<'a>) -> bool {
    let Some((atom, rest)) = atoms.split_first() else {
        return name.is_empty();
    };
    let (min, max, is_part): (usize, usize, fn(char) -> bool) = match atom {
        Atom::Literal(c) => {
            return name.strip_prefix(*c).is_some_and(|name| matches(rest, name, found));
        }
        Atom::Time(_, printed) => (printed.min, printed.max, printed.is_part),
        Atom::Device => (1, usize::MAX, |_| true),
        Atom::Session => (SESSION_LEN, SESSION_LEN, |c| c.is_ascii_alphanumeric()),
        Atom::Sequence => (6, 20, |c| c.is_ascii_digit()),
        Atom::Extension => (2, 8, |c| c.is_ascii_lowercase() || c.is_ascii_digit()),
    };
    let mut ends: Vec<usize> = Vec::new();
    for (at, c) in name.char_indices().take(max) {
        if !is_part(c) {
            break;
        }
        ends.push(at + c.len_utf8());
    }
    for end in ends.into_iter().skip(min.saturating_sub(1)).rev() {
        let (value, after) = name.split_at(end);
        let before = found.clone();
        if note(*atom, value, found) && matches(rest, after, found) {
            return true;
        }
        *found = before;
    }
    false
}

/// Records a matched value. Returns `false` if the value is impossible or contradicts an earlier one.
fn note<'a>(atom: Atom<'a>, value: &'a str, found: &mut Found<'a>) -> bool {
    fn set<T: PartialEq>(slot: &mut Option<T>, value: T) -> bool {
        match slot {
            Some(earlier) => *earlier == value,
            None => {
                *slot = Some(value);
                true
            }
        }
    }
    let parts = &mut found.parts;
    match atom {
        Atom::Literal(_) => true,
        Atom::Time(conversion, _) => {
            found.times.push((conversion, value));
            true
        }
        Atom::Device => set(&mut parts.device, value.to_owned()),
        Atom::Session => is_session_id(value) && set(&mut parts.session, value.to_owned()),
        Atom::Sequence => match value.parse() {
            // Padded to six digits, never to more.
            Ok(sequence) if format!("{sequence:06}") == value => set(&mut parts.sequence, sequence),
            _ => false,
        },
        Atom::Extension => set(&mut parts.extension, value.to_owned()),
    }
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
        fn any_name_is_survived(location in proptest::sample::select(&TEMPLATES[..]), name in ".{0,80}") {
            let _ = template(location).read(&name);
        }
    }
}
