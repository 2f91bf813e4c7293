//! Reads one table of the file: typed values by key, and a fault for every unknown key.
//!
//! PURE.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::fault::{Faults, did_you_mean};

/// A value and its place in the text (byte offset).
#[derive(Clone, Debug)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) at: usize,
}

impl<T> Placed<T> {
    pub(super) fn map<U>(self, f: impl FnOnce(T) -> U) -> Placed<U> {
        Placed {
            value: f(self.value),
            at: self.at,
        }
    }
}

/// A table that is being read.
pub(super) struct Section<'a> {
    table: &'a DeTable<'a>,
    /// Its name in texts of faults, e.g. `[mqtt]`.
    name: &'static str,
    faults: &'a Faults<'a>,
    asked: RefCell<Vec<&'static str>>,
}

/// Returns the name of a kind of value in texts of faults.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

impl<'a> Section<'a> {
    pub(super) fn new(table: &'a DeTable<'a>, name: &'static str, faults: &'a Faults<'a>) -> Self {
        Self {
            table,
            name,
            faults,
            asked: RefCell::default(),
        }
    }

    /// Returns the value of a key. From now on [`Section::finish`] treats the key as known, even if it is absent.
    pub(super) fn find(&self, key: &'static str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.asked.borrow_mut().push(key);
        let same = |(name, _): &(&'a Spanned<Cow<'a, str>>, _)| name.get_ref().as_ref() == key;
        self.table.iter().find(same).map(|(_, value)| value)
    }

    /// Reads a value with `read`. Reports a fault if the value is not of the kind `wanted`.
    fn typed<T>(&self, key: &'static str, wanted: &str, read: impl Fn(&DeValue<'a>) -> Option<T>) -> Option<Placed<T>> {
        let found = self.find(key)?;
        let at = found.span().start;
        let value = read(found.get_ref());
        if value.is_none() {
            let text = match found.get_ref() {
                // An integer of the right kind that did not fit: negative, or above 64 bits.
                DeValue::Integer(number) if wanted.starts_with("a whole number") => {
                    format!("{key} must be {wanted} to {}, not {}", u64::MAX, number.as_str())
                }
                other => format!("{key} must be {wanted}, not {}", kind(other)),
            };
            self.faults.add(at, text);
        }
        value.map(|value| Placed { value, at })
    }

    pub(super) fn text(&self, key: &'static str) -> Option<Placed<String>> {
        let text = self.typed(key, "a text in quotes", |value| match value {
            DeValue::String(text) => Some(text.to_string()),
            _ => None,
        })?;
        // Neither properties of GStreamer nor paths can contain a NUL: the bindings panic at one.
        if text.value.contains('\0') {
            self.faults.add(text.at, format!("{key} holds a NUL character; remove it"));
            return None;
        }
        Some(text)
    }

    /// Reads a text that must not be empty.
    pub(super) fn word(&self, key: &'static str) -> Option<Placed<String>> {
        let text = self.text(key)?;
        if text.value.is_empty() {
            self.faults
                .add(text.at, format!("{key} is empty; remove it or give it a value"));
            return None;
        }
        Some(text)
    }

    pub(super) fn flag(&self, key: &'static str) -> Option<Placed<bool>> {
        self.typed(key, "true or false", |value| match value {
            DeValue::Boolean(flag) => Some(*flag),
            _ => None,
        })
    }

    pub(super) fn whole(&self, key: &'static str) -> Option<Placed<u64>> {
        self.typed(key, "a whole number from 0", |value| match value {
            DeValue::Integer(number) => u64::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        })
    }

    /// Reads a whole number from `least` to `most`, both included.
    pub(super) fn within(&self, key: &'static str, least: u64, most: u64) -> Option<Placed<u64>> {
        let number = self.whole(key)?;
        if number.value < least || number.value > most {
            self.faults
                .add(number.at, format!("{key} must be between {least} and {most}"));
            return None;
        }
        Some(number)
    }

    pub(super) fn number(&self, key: &'static str) -> Option<Placed<f64>> {
        self.typed(key, "a number from 0", |value| match value {
            DeValue::Integer(number) => number.to_string().parse::<f64>().ok(),
            DeValue::Float(number) => number.as_str().parse::<f64>().ok(),
            _ => None,
        })
        .filter(|number| {
            let is_fine = number.value.is_finite() && number.value >= 0.0;
            if !is_fine {
                self.faults.add(number.at, format!("{key} must be a number from 0"));
            }
            is_fine
        })
    }

    /// Reads a duration from `least` to `most`, written as `"500ms"`, `"10s"`, `"5m"` or `"1h"`.
    pub(super) fn duration(&self, key: &'static str, least: Duration, most: Duration) -> Option<Placed<Duration>> {
        let found = self.find(key)?;
        let at = found.span().start;
        let parsed = match found.get_ref() {
            DeValue::String(text) => parse_duration(text),
            _ => None,
        };
        let Some(value) = parsed else {
            self.faults.add(
                at,
                format!("{key} must be a duration in quotes with its unit: \"500ms\", \"10s\", \"5m\" or \"1h\""),
            );
            return None;
        };
        if value < least || value > most {
            self.faults.add(
                at,
                format!("{key} must be between {} and {}", show_duration(least), show_duration(most)),
            );
            return None;
        }
        Some(Placed { value, at })
    }

    /// Reads a text that must be one of `choices`.
    pub(super) fn choice<T: Copy>(&self, key: &'static str, choices: &[(&'static str, T)]) -> Option<Placed<T>> {
        let text = self.text(key)?;
        if let Some((_, value)) = choices.iter().find(|(word, _)| *word == text.value) {
            return Some(text.map(|_| *value));
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        let hint = did_you_mean(&text.value, words.iter().copied()).map(|word| format!("; did you mean \"{word}\"?"));
        self.faults.add(
            text.at,
            format!("{key} must be one of {}{}", words.join(", "), hint.unwrap_or_default()),
        );
        None
    }

    /// Reads a table of texts.
    pub(super) fn texts(&self, key: &'static str) -> Option<Placed<BTreeMap<String, String>>> {
        let found = self.find(key)?;
        let at = found.span().start;
        let DeValue::Table(table) = found.get_ref() else {
            self.faults.add(
                at,
                format!(
                    "{key} must be a table of texts, e.g. {{ site = \"north\" }}, not {}",
                    kind(found.get_ref())
                ),
            );
            return None;
        };
        let mut texts = BTreeMap::new();
        for (name, value) in table {
            match value.get_ref() {
                DeValue::String(text) => drop(texts.insert(name.get_ref().to_string(), text.to_string())),
                other => self.faults.add(
                    value.span().start,
                    format!("every value of {key} must be a text in quotes, not {}", kind(other)),
                ),
            }
        }
        Some(Placed { value: texts, at })
    }

    /// Returns the table under a key. `name`: its name in texts of faults.
    pub(super) fn table(&self, key: &'static str, name: &'static str) -> Option<Section<'a>> {
        let found = self.find(key)?;
        match found.get_ref() {
            DeValue::Table(table) => Some(Section::new(table, name, self.faults)),
            other => {
                self.faults.add(
                    found.span().start,
                    format!("{key} must be the table [{key}], not {}", kind(other)),
                );
                None
            }
        }
    }

    /// Returns the tables of a list `[[key]]`, each with its place (byte offset).
    pub(super) fn tables(&self, key: &'static str, name: &'static str) -> Vec<(usize, Section<'a>)> {
        let Some(found) = self.find(key) else { return Vec::new() };
        let wrong = |at: usize, value: &DeValue<'_>| {
            self.faults
                .add(at, format!("{key} must be written as [[{key}]], not as {}", kind(value)));
        };
        let DeValue::Array(array) = found.get_ref() else {
            wrong(found.span().start, found.get_ref());
            return Vec::new();
        };
        let mut sections = Vec::new();
        for item in array.iter() {
            match item.get_ref() {
                DeValue::Table(table) => sections.push((item.span().start, Section::new(table, name, self.faults))),
                other => wrong(item.span().start, other),
            }
        }
        sections
    }

    /// Reports a key that belongs in another table.
    pub(super) fn misplaced(&self, key: &'static str, why: &str) {
        if let Some(found) = self.find(key) {
            self.faults.add(found.span().start, format!("{key} {why}"));
        }
    }

    /// Reports all keys that were not asked for with [`Section::find`].
    pub(super) fn finish(self) {
        let asked = self.asked.into_inner();
        for (name, _) in self.table {
            let (word, at) = (name.get_ref().as_ref(), name.span().start);
            if asked.contains(&word) {
                continue;
            }
            // The most likely unknown key, and a similar name is no help: a password must not be in this file.
            if word == "password" {
                let text =
                    "a password does not stand in this file: put it into a file of its own and name that with password-file";
                self.faults.add(at, text);
                continue;
            }
            let hint = match did_you_mean(word, asked.iter().copied()) {
                Some(key) => format!("; did you mean {key}?"),
                None => String::new(),
            };
            // Show only names that look like keys: a misplaced value, such as a password, must not appear in the log.
            let shown = if word.len() <= 40 && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_') {
                format!("unknown key {word}")
            } else {
                "unknown key".to_owned()
            };
            self.faults.add(at, format!("{shown} in {}{hint}", self.name));
        }
    }
}

/// Reads `"500ms"`, `"10s"`, `"5m"` or `"1h"`.
pub(super) fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return None,
    };
    Some(Duration::from_millis(number.checked_mul(ms)?))
}

/// Writes a duration in the form of the file.
pub(super) fn show_duration(duration: Duration) -> String {
    let ms = duration.as_millis();
    match ms {
        0 => "0s".to_owned(),
        _ if ms.is_multiple_of(3_600_000) => format!("{}h", ms / 3_600_000),
        _ if ms.is_multiple_of(60_000) => format!("{}m", ms / 60_000),
        _ if ms.is_multiple_of(1000) => format!("{}s", ms / 1000),
        _ => format!("{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit_and_are_written_as_they_are_read() {
        for (text, ms) in [("500ms", 500), ("10s", 10_000), ("5m", 300_000), ("1h", 3_600_000), ("0s", 0)] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(ms)), "{text}");
            assert_eq!(show_duration(Duration::from_millis(ms)), text);
        }
        for text in ["", "10", "s", "10 s", "-1s", "1.5s", "10sec", "99999999999999999999s", "1d"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
