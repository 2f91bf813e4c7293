//! Matches object names against a template, from left to right, the longest match of each piece first.
//!
//! PURE. A template is split once; matching a name takes no memory but one list. A month of one camera is 260,000 names.

use super::Part;
use crate::session::{LEN as SESSION_LEN, is_session_id};

/// A template, split into atoms that are matched one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern {
    atoms: Vec<Atom>,
    /// For each atom, the minimum number of bytes of a name that it and all following atoms match.
    least: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Atom {
    Literal(String),
    /// A conversion of strftime, as written in the template, and what it prints.
    Time(String, Printed),
    Device,
    Session,
    Sequence,
    Extension,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Printed {
    min: usize,
    max: usize,
    class: Class,
}

/// Which characters a piece may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Digits,
    Letters,
    /// Digits, and the separators of dates and times.
    Date,
    LettersOrDigits,
    LowerOrDigits,
}

impl Class {
    const fn has(self, byte: u8) -> bool {
        match self {
            Self::Digits => byte.is_ascii_digit(),
            Self::Letters => byte.is_ascii_alphabetic(),
            Self::Date => byte.is_ascii_digit() || matches!(byte, b'-' | b'/' | b':'),
            Self::LettersOrDigits => byte.is_ascii_alphanumeric(),
            Self::LowerOrDigits => byte.is_ascii_lowercase() || byte.is_ascii_digit(),
        }
    }
}

const fn printed_by(class: Class, min: usize, max: usize) -> Printed {
    Printed { min, max, class }
}

/// Returns what a conversion prints; `None` for those of `jiff::fmt::strtime` that a template cannot be parsed back with.
fn printed(conversion: &str) -> Option<Printed> {
    let digits = |min, max| printed_by(Class::Digits, min, max);
    let letters = |max| printed_by(Class::Letters, 2, max);
    let date = |len| printed_by(Class::Date, len, len);
    Some(match conversion {
        "%Y" | "%G" => digits(4, 4),
        "%C" | "%d" | "%g" | "%H" | "%I" | "%m" | "%M" | "%S" | "%U" | "%V" | "%W" | "%y" => digits(2, 2),
        "%j" | "%3f" => digits(3, 3),
        "%u" | "%w" => digits(1, 1),
        "%6f" => digits(6, 6),
        "%9f" => digits(9, 9),
        "%f" => digits(1, 9),
        "%s" => digits(1, 12),
        "%F" => date(10),
        "%D" | "%T" => date(8),
        "%R" => date(5),
        "%p" | "%P" => letters(2),
        "%a" | "%b" | "%h" => letters(3),
        "%A" | "%B" => letters(9),
        _ => return None,
    })
}

const SESSION: Printed = printed_by(Class::LettersOrDigits, SESSION_LEN, SESSION_LEN);
const SEQUENCE: Printed = printed_by(Class::Digits, 6, 20);
const EXTENSION: Printed = printed_by(Class::LowerOrDigits, 2, 8);

/// The matched parts of a name.
#[derive(Clone, Debug, Default)]
pub(super) struct Found<'a> {
    pub(super) values: Values<'a>,
    /// Conversions and their matched text.
    pub(super) times: Vec<(&'a str, &'a str)>,
}

/// The values of placeholders.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Values<'a> {
    pub(super) device: Option<&'a str>,
    pub(super) session: Option<&'a str>,
    pub(super) sequence: Option<u64>,
    pub(super) extension: Option<&'a str>,
}

impl Pattern {
    /// Splits a template. Returns `None` if it has a conversion that cannot be parsed back.
    pub(super) fn of(parts: &[Part]) -> Option<Self> {
        let mut atoms = Vec::new();
        for part in parts {
            match part {
                Part::Device => atoms.push(Atom::Device),
                Part::Session => atoms.push(Atom::Session),
                Part::Seq => atoms.push(Atom::Sequence),
                Part::Ext => atoms.push(Atom::Extension),
                Part::Text(text) => text_atoms(text, &mut atoms)?,
            }
        }
        let mut least = vec![0; atoms.len() + 1];
        let mut sum = 0;
        for (slot, atom) in least.iter_mut().zip(&atoms).rev() {
            sum += atom.least();
            *slot = sum;
        }
        Some(Self { atoms, least })
    }

    /// Matches a whole name. Returns `None` if the template cannot have produced it.
    pub(super) fn find<'a>(&'a self, name: &'a str) -> Option<Found<'a>> {
        let mut found = Found::default();
        self.matches(0, name, &mut found).then_some(found)
    }

    fn matches<'a>(&'a self, at: usize, name: &'a str, found: &mut Found<'a>) -> bool {
        let Some(atom) = self.atoms.get(at) else {
            return name.is_empty();
        };
        let rest_takes = self.least.get(at + 1).copied().unwrap_or(0);
        let printed = match atom {
            Atom::Literal(text) => {
                return name
                    .strip_prefix(text.as_str())
                    .is_some_and(|name| self.matches(at + 1, name, found));
            }
            Atom::Device => return self.matches_device(at, name, rest_takes, found),
            Atom::Time(_, printed) => *printed,
            Atom::Session => SESSION,
            Atom::Sequence => SEQUENCE,
            Atom::Extension => EXTENSION,
        };
        // Leaves `rest_takes` bytes for the following atoms: a longer match cannot succeed and would only cost backtracking.
        let most = printed.max.min(name.len().saturating_sub(rest_takes));
        let longest = name.bytes().take(most).take_while(|byte| printed.class.has(*byte)).count();
        // All classes are ASCII, so every `end` up to `longest` is a character boundary.
        (printed.min..=longest).rev().any(|end| self.goes_on(at, name, end, found))
    }

    fn matches_device<'a>(&'a self, at: usize, name: &'a str, rest_takes: usize, found: &mut Found<'a>) -> bool {
        let longest = name.len().saturating_sub(rest_takes);
        let is_followed = |after: &str| match self.atoms.get(at + 1) {
            Some(Atom::Literal(text)) => after.starts_with(text.as_str()),
            _ => true,
        };
        (1..=longest)
            .rev()
            .filter(|end| name.get(*end..).is_some_and(is_followed))
            .any(|end| self.goes_on(at, name, end, found))
    }

    /// Matches the first `end` bytes with this atom, and the rest with the following ones. Leaves `found` unchanged on failure.
    fn goes_on<'a>(&'a self, at: usize, name: &'a str, end: usize, found: &mut Found<'a>) -> bool {
        let (Some(atom), Some((value, after))) = (self.atoms.get(at), name.split_at_checked(end)) else {
            return false;
        };
        let (values, times) = (found.values, found.times.len());
        if found.note(atom, value) && self.matches(at + 1, after, found) {
            return true;
        }
        found.values = values;
        found.times.truncate(times);
        false
    }
}

impl Atom {
    fn least(&self) -> usize {
        match self {
            Self::Literal(text) => text.len(),
            Self::Time(_, printed) => printed.min,
            Self::Device => 1,
            Self::Session => SESSION.min,
            Self::Sequence => SEQUENCE.min,
            Self::Extension => EXTENSION.min,
        }
    }
}

fn text_atoms(mut text: &str, into: &mut Vec<Atom>) -> Option<()> {
    let literal = |into: &mut Vec<Atom>, c: char| match into.last_mut() {
        Some(Atom::Literal(text)) => text.push(c),
        _ => into.push(Atom::Literal(c.into())),
    };
    while let Some(c) = text.chars().next() {
        let len = if c == '%' {
            let letter = text
                .get(1..)?
                .find(|c: char| !c.is_ascii_digit() && !matches!(c, '-' | '_' | '.' | ':' | '^' | '#'))?;
            let len = 1 + letter + text.get(1 + letter..)?.chars().next()?.len_utf8();
            let conversion = text.get(..len)?;
            match conversion {
                "%%" => literal(into, '%'),
                _ => into.push(Atom::Time(conversion.to_owned(), printed(conversion)?)),
            }
            len
        } else {
            literal(into, c);
            c.len_utf8()
        };
        text = text.get(len..)?;
    }
    Some(())
}

impl<'a> Found<'a> {
    /// Records a matched value. Returns `false` if it is impossible or contradicts an earlier one.
    fn note(&mut self, atom: &'a Atom, value: &'a str) -> bool {
        fn set<T: PartialEq>(slot: &mut Option<T>, value: T) -> bool {
            match slot {
                Some(earlier) => *earlier == value,
                None => {
                    *slot = Some(value);
                    true
                }
            }
        }
        let values = &mut self.values;
        match atom {
            Atom::Literal(_) => true,
            Atom::Time(conversion, _) => {
                self.times.push((conversion, value));
                true
            }
            Atom::Device => set(&mut values.device, value),
            Atom::Session => is_session_id(value) && set(&mut values.session, value),
            // The number is padded to six digits, so a longer one has no leading zero.
            Atom::Sequence if value.len() > 6 && value.starts_with('0') => false,
            Atom::Sequence => value.parse().is_ok_and(|sequence| set(&mut values.sequence, sequence)),
            Atom::Extension => set(&mut values.extension, value),
        }
    }
}
