//! Warnings about files that could not be adopted: thousands of them give one WARNING.
//!
//! PURE.

use crate::spool::Notice;

/// Counts files that could not be adopted, by kind, and stores the first text of each kind.
#[derive(Debug, Default)]
pub(super) struct Notices {
    aside: Tally,
    left: Tally,
    other: Tally,
    unshared: Option<String>,
    interrupted: Option<String>,
    was_interrupted: bool,
    /// The first warnings were given; further ones follow at the end.
    is_reported: bool,
}

/// The first text of a kind, and how many more there were.
#[derive(Debug, Default)]
struct Tally {
    first: Option<String>,
    more: u64,
}

impl Tally {
    fn add(&mut self, text: String) {
        match &self.first {
            None => self.first = Some(text),
            Some(_) => self.more += 1,
        }
    }

    fn take(&mut self, what: &str) -> Option<String> {
        let first = self.first.take()?;
        Some(match std::mem::take(&mut self.more) {
            0 => first,
            more => format!("{first}; the same of {more} more {what}"),
        })
    }
}

impl Notices {
    /// Adds a notice of the spool.
    pub(super) fn add(&mut self, notice: &Notice) {
        match notice {
            Notice::Quarantined { .. } => self.aside.add(notice.to_string()),
            Notice::Left { .. } => self.left.add(notice.to_string()),
            // One for each process.
            Notice::Unshared { .. } => self.unshared = Some(notice.to_string()),
        }
    }

    /// Adds several notices.
    pub(super) fn extend(&mut self, notices: Vec<Notice>) {
        notices.iter().for_each(|notice| self.add(notice));
    }

    /// Adds a half-written chunk that could not be closed.
    pub(super) fn other(&mut self, text: String) {
        self.other.add(text);
    }

    /// Notes that adopting was interrupted and is tried again.
    pub(super) fn interrupted(&mut self, why: &str) {
        if !std::mem::replace(&mut self.was_interrupted, true) {
            self.interrupted = Some(format!(
                "what earlier sessions left in the spool cannot be looked at now: {why}; it is tried again every 10 s, and nothing of it is lost"
            ));
        }
    }

    /// Takes the warnings to give now: before the first wait, and at the end (`is_last`).
    pub(super) fn take(&mut self, is_last: bool) -> Vec<String> {
        let mut texts: Vec<String> = self.interrupted.take().into_iter().collect();
        // Between those two nothing is given: otherwise each wait would cause a WARNING.
        if is_last || !self.is_reported {
            let tallies = [
                self.aside.take("chunks"),
                self.left.take("files and folders"),
                self.other.take("half-written chunks"),
            ];
            texts.extend(tallies.into_iter().flatten());
            self.is_reported |= !texts.is_empty();
        }
        // Does not count as the first warning: it is known before anything is adopted.
        texts.extend(self.unshared.take());
        texts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(n: u32) -> Notice {
        Notice::Left {
            path: format!("/s/cam/{n}").into(),
            error: "Permission denied".to_owned(),
        }
    }

    #[test]
    fn two_hundred_folders_that_cannot_be_read_are_one_warning() {
        let mut notices = Notices::default();
        notices.extend((0..200).map(left).collect());
        let texts = notices.take(false);
        assert_eq!(
            texts,
            [
                "/s/cam/0 in the spool is left as it is until the next start: Permission denied; the same of 199 more files and folders"
            ]
        );
        notices.extend((0..50).map(left).collect());
        assert!(notices.take(false).is_empty(), "not again and again");
        assert_eq!(notices.take(true).len(), 1, "but what came since is said at the end");
        assert!(notices.take(true).is_empty());
    }

    #[test]
    fn one_folder_is_reported_as_it_is_and_an_interruption_once() {
        let mut notices = Notices::default();
        notices.add(&left(7));
        notices.interrupted("Too many open files");
        notices.interrupted("Too many open files");
        let texts = notices.take(false);
        assert_eq!(texts.len(), 2);
        assert!(texts[0].contains("Too many open files"), "{texts:?}");
        assert!(texts[1].ends_with("Permission denied"), "{texts:?}");
    }
}
