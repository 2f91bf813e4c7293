//! Object names from the template of the property `location`.
//!
//! PURE. `strftime` conversions are those of `jiff::fmt::strtime`, applied to the capture start in UTC; placeholders are
//! `{device} {session} {seq} {ext}`. Limits of names: Cloud Storage "About objects", object name requirements.
//!
//! `read`: from a name to its parts, and the prefixes of listings, with `pattern` (matches a name against a template) and
//! `moment` (the time in it).

use crate::limits::check_object_name;
use crate::time::strftime;

mod moment;
mod pattern;
mod read;

pub use read::{NameParts, common_prefix};

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Device,
    Session,
    Seq,
    Ext,
}

/// A checked template: it gives each chunk its own name, or is a fixed name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
    fixed: bool,
    /// What names are matched against; `None` if they cannot be parsed back.
    pattern: Option<pattern::Pattern>,
}

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// An unknown `{…}`.
    #[error("location \"{0}\": {{{1}}} is no placeholder; there are {{device}}, {{session}}, {{seq}} and {{ext}}")]
    Placeholder(String, String),
    /// A `{` without its `}`.
    #[error("location \"{0}\": a {{ without its }}")]
    Brace(String),
    /// A conversion that strftime does not support.
    #[error("location \"{0}\": {1}")]
    Time(String, String),
    /// Two chunks could get the same name.
    #[error("location \"{0}\" cannot be unique: {1}")]
    NotUnique(String, &'static str),
    /// Too long, empty, or with characters that Cloud Storage refuses.
    #[error("location \"{0}\" gives object names that Cloud Storage refuses: {1}")]
    Refused(String, String),
}

/// The values for the placeholders of one name.
#[derive(Clone, Copy, Debug)]
pub struct NameFields<'a> {
    /// Property `device-id`.
    pub device: &'a str,
    /// Property `session-id`.
    pub session: &'a str,
    /// Sequence number in the session.
    pub seq: u64,
    /// Extension of the container.
    pub ext: &'a str,
    /// Capture start, ns since the Unix epoch.
    pub start: u64,
}

impl Template {
    /// Parses the property `location`.
    ///
    /// # Errors
    /// [`TemplateError`] if the template cannot produce unique, legal names.
    pub fn parse(location: &str) -> Result<Self, TemplateError> {
        let mut parts = Vec::new();
        let mut rest = location;
        while let Some(open) = rest.find('{') {
            let (text, after) = rest.split_at(open);
            let Some(close) = after.find('}') else {
                return Err(TemplateError::Brace(location.into()));
            };
            let word = after.get(1..close).unwrap_or_default();
            let placeholder = match word {
                "device" => Part::Device,
                "session" => Part::Session,
                "seq" => Part::Seq,
                "ext" => Part::Ext,
                _ => return Err(TemplateError::Placeholder(location.into(), word.into())),
            };
            if !text.is_empty() {
                parts.push(Part::Text(text.into()));
            }
            parts.push(placeholder);
            rest = after.get(close + 1..).unwrap_or_default();
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.into()));
        }
        let fixed = parts.iter().all(|p| matches!(p, Part::Text(t) if !has_conversion(t)));
        let pattern = pattern::Pattern::of(&parts);
        let template = Self { parts, fixed, pattern };
        template.check(location)?;
        Ok(template)
    }

    fn check(&self, location: &str) -> Result<(), TemplateError> {
        let time_error = |e: String| TemplateError::Time(location.into(), e);
        let sample = |start| {
            self.format(&NameFields {
                device: "d",
                session: "0000000000",
                seq: 0,
                ext: "flv",
                start,
            })
        };
        let name = sample(YEAR_2026).map_err(time_error)?;
        check_object_name(&name).map_err(|e| TemplateError::Refused(location.into(), e.to_string()))?;
        if self.fixed {
            return Ok(());
        }
        if !self.parts.contains(&Part::Seq) {
            return Err(TemplateError::NotUnique(
                location.into(),
                "it must hold {seq}, or no placeholder at all for one single object",
            ));
        }
        if !self.parts.contains(&Part::Session) {
            const SECOND: u64 = 1_000_000_000;
            const DAY: u64 = 86_400;
            // Periods after which a name repeats if the template lacks a field: the second, the minute … the half of the day
            // (%I), the day, the month, the year; or, with weekdays and weeks instead, 364 days and 28 years. Two-digit years
            // (%y) repeat after a century, which is accepted.
            const STEPS: [u64; 11] = [
                1,
                60,
                3600,
                DAY / 2,
                DAY,
                7 * DAY,
                31 * DAY,
                364 * DAY,
                365 * DAY,
                366 * DAY,
                (28 * 365 + 7) * DAY,
            ];
            for from in [YEAR_2026, YEAR_2026 + 181 * DAY * SECOND] {
                let name = sample(from).map_err(time_error)?;
                for step in STEPS {
                    if sample(from + step * SECOND).map_err(time_error)? == name {
                        let why = "it must hold {session}, or the date and time to the second (%Y%m%dT%H%M%S), or a restart would meet its own names";
                        return Err(TemplateError::NotUnique(location.into(), why));
                    }
                }
            }
        }
        Ok(())
    }

    /// Returns whether there is no placeholder, so that everything is stored in one object.
    pub fn is_fixed(&self) -> bool {
        self.fixed
    }

    /// Returns whether names contain session and sequence number, so that an object with such a name can only be our own.
    pub fn names_its_chunk(&self) -> bool {
        self.parts.contains(&Part::Session) && self.parts.contains(&Part::Seq)
    }

    /// Returns the name of a chunk.
    ///
    /// # Errors
    /// The error of strftime.
    pub fn format(&self, naming: &NameFields<'_>) -> Result<String, String> {
        let mut name = String::new();
        for part in &self.parts {
            match part {
                Part::Text(text) if text.contains('%') => name.push_str(&strftime(text, naming.start)?),
                Part::Text(text) => name.push_str(text),
                Part::Device => name.push_str(naming.device),
                Part::Session => name.push_str(naming.session),
                Part::Seq => name.push_str(&format!("{:06}", naming.seq)),
                Part::Ext => name.push_str(naming.ext),
            }
        }
        Ok(name)
    }
}

/// 2026-01-01T00:00:00Z in ns since the epoch: the time used to try templates.
const YEAR_2026: u64 = 1_767_225_600_000_000_000;

fn has_conversion(text: &str) -> bool {
    text.replace("%%", "").contains('%')
}

/// Checks the property `device-id`: the first part of object names and of the spool's folders.
///
/// # Errors
/// Describes what is wrong and what to do.
pub fn check_device(device: &str) -> Result<(), String> {
    let fault = if device.is_empty() {
        "is empty".to_owned()
    } else if device.starts_with('/') {
        "begins with /".to_owned()
    } else if device.split('/').any(|part| part == "..") {
        "holds \"..\" as a folder".to_owned()
    } else if let Some(c) = device.chars().find(|c| c.is_control()) {
        format!("holds the control character U+{:04X}", u32::from(c))
    } else {
        return Ok(());
    };
    Err(format!(
        "device-id \"{}\" {fault}; use letters, digits, - _ . and / between folders, e.g. store42/cam3",
        device.escape_debug()
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: &str = "{device}/%Y/%m/%d/%Y%m%dT%H%M%S.%3fZ_{session}_{seq}.{ext}";
    const START: u64 = 1_795_329_912_345_000_000;

    fn name(location: &str) -> String {
        let naming = NameFields {
            device: "100%Y/cam1",
            session: "0a1b2c3d4e",
            seq: 12,
            ext: "flv",
            start: START,
        };
        Template::parse(location).unwrap().format(&naming).unwrap()
    }

    #[test]
    fn the_default_names_device_day_time_session_and_sequence() {
        assert_eq!(
            name(DEFAULT),
            "100%Y/cam1/2026/11/22/20261122T064512.345Z_0a1b2c3d4e_000012.flv"
        );
        assert!(Template::parse(DEFAULT).unwrap().names_its_chunk());
    }

    #[test]
    fn a_name_without_placeholders_is_one_object() {
        let template = Template::parse("video00001.ts").unwrap();
        assert!(template.is_fixed());
        assert_eq!(name("50%%.ts"), "50%.ts");
    }

    #[test]
    fn templates_that_cannot_be_unique_are_refused() {
        for bad in [
            "{device}/%Y.flv",
            "{session}.flv",
            "%H%M%S_{seq}.flv",
            "{seq}.flv",
            "%Y%m%d_%H%M_{seq}",
            "%Y%m%d_%I%M%S_{seq}",
            "%U%u_%T_{seq}",
            "%W_%a_%T_{seq}",
            "%V-%u_%T_{seq}",
            "%C%m%d_%T_{seq}",
            "%Y%m_%a_%T_{seq}",
            "%a_%d_%b_%T_{seq}",
        ] {
            assert!(matches!(Template::parse(bad), Err(TemplateError::NotUnique(..))), "{bad}");
        }
        for good in [
            "{session}_{seq}.ts",
            "%s_{seq}",
            "%Y%j%T{seq}",
            "%G-%V-%u_%T_{seq}",
            "%y%m%d_%I%M%S%p_{seq}",
            "{device}/%F/%T-{seq}.{ext}",
        ] {
            assert!(Template::parse(good).is_ok(), "{good}");
        }
    }

    #[test]
    fn broken_templates_say_what_is_wrong() {
        assert!(
            Template::parse("{camera}_{seq}")
                .unwrap_err()
                .to_string()
                .contains("{camera} is no placeholder")
        );
        assert!(matches!(Template::parse("{seq"), Err(TemplateError::Brace(_))));
        assert!(matches!(Template::parse("%!{seq}{session}"), Err(TemplateError::Time(..))));
        assert!(matches!(Template::parse(&"x".repeat(1025)), Err(TemplateError::Refused(..))));
        assert!(matches!(Template::parse("a\nb"), Err(TemplateError::Refused(..))));
        assert!(matches!(Template::parse(""), Err(TemplateError::Refused(..))));
    }

    #[test]
    fn device_ids_stay_inside_their_folder() {
        assert!(check_device("store42/cam3").is_ok());
        assert!(check_device("cam..3").is_ok());
        for bad in ["", "/cam", "a/../b", "..", "a\u{7}b"] {
            assert!(check_device(bad).is_err(), "{bad:?}");
        }
    }
}
