//! The part of a document that a test writes: between two marks, and nothing else of it.

use std::path::Path;

/// Returns whether the part of the document between the lines `begin` and `end` is `text`. With `UPDATE_GOLDEN` it is made so.
pub(crate) fn is_written(document: &Path, begin: &str, text: &str, end: &str) -> bool {
    let whole = std::fs::read_to_string(document).unwrap();
    let (before, rest) = whole.split_once(begin).expect("the mark where it begins");
    let (between, after) = rest.split_once(end).expect("the mark where it ends");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(document, format!("{before}{begin}{text}{end}{after}")).unwrap();
        return true;
    }
    between == text
}
