//! Collects the faults of a configuration with their places in the text, so that one run reports all of them.
//!
//! PURE.

use std::cell::RefCell;
use std::fmt;

/// One fault of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Line, from 1. A missing key is reported at line 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    /// What is wrong and what to write instead. Contains no value of the file that could be a credential.
    pub text: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.text)
    }
}

/// The faults found so far in a text.
pub(super) struct Faults<'t> {
    text: &'t str,
    found: RefCell<Vec<(usize, String)>>,
}

impl<'t> Faults<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self {
            text,
            found: RefCell::default(),
        }
    }

    /// Adds a fault at a byte offset of the text.
    pub(super) fn add(&self, at: usize, text: impl Into<String>) {
        self.found.borrow_mut().push((at, text.into()));
    }

    /// Whether there is a fault at a byte offset.
    pub(super) fn is_reported_at(&self, at: usize) -> bool {
        self.found.borrow().iter().any(|(known, _)| *known == at)
    }

    /// Returns all faults in the order of the text, without duplicates.
    pub(super) fn finish(self) -> Vec<Fault> {
        let mut found = self.found.into_inner();
        found.sort();
        found.dedup();
        let place = |at: usize| {
            let before = self.text.get(..at).unwrap_or(self.text);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            (line, column)
        };
        found
            .into_iter()
            .map(|(at, text)| {
                let (line, column) = place(at);
                Fault { line, column, text }
            })
            .collect()
    }
}

/// Returns the known word that `word` is probably meant to be: at most two typing errors away, or beginning with it.
pub(super) fn did_you_mean<'k>(word: &str, known: impl IntoIterator<Item = &'k str>) -> Option<&'k str> {
    let written = word.to_lowercase().replace('_', "-");
    let close = |candidate: &&str| {
        let distance = strsim::damerau_levenshtein(&written, candidate);
        distance <= 2.min(candidate.len() / 2) || (written.len() > 3 && candidate.starts_with(&written))
    };
    known
        .into_iter()
        .filter(close)
        .min_by_key(|candidate| strsim::damerau_levenshtein(&written, candidate))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_word_is_guessed_and_a_foreign_one_is_not() {
        let known = ["stall-timeout", "url", "id", "transport", "max-size-time"];
        assert_eq!(did_you_mean("stall_timeout", known), Some("stall-timeout"));
        assert_eq!(did_you_mean("stal-timeout", known), Some("stall-timeout"));
        assert_eq!(did_you_mean("uri", known), Some("url"));
        assert_eq!(did_you_mean("transprot", known), Some("transport"));
        assert_eq!(did_you_mean("max-size", known), Some("max-size-time"));
        assert_eq!(did_you_mean("colour", known), None);
        assert_eq!(did_you_mean("x", known), None);
    }

    #[test]
    fn places_count_lines_and_characters_from_one() {
        let faults = Faults::new("é = 1\nab = 2\n");
        faults.add(10, "late");
        faults.add(3, "early");
        faults.add(3, "early");
        let found: Vec<String> = faults.finish().iter().map(ToString::to_string).collect();
        assert_eq!(found, ["1:3: early", "2:4: late"]);
    }
}
