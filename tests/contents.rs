//! A document that is longer than two screens begins with its contents: each of its parts, in their order.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

/// Lines on two screens.
const TWO_SCREENS: usize = 80;
/// README.md ends in a table of where to go; CHANGELOG.md is one list; scripts/licences writes a list by name.
const WITHOUT: [&str; 3] = ["README.md", "CHANGELOG.md", "docs/licences.md"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn documents() -> Vec<PathBuf> {
    let mut files = Vec::new();
    for folder in ["", "docs", "docs/decisions", "examples"] {
        let entries = std::fs::read_dir(root().join(folder)).unwrap();
        files.extend(entries.map(|entry| entry.unwrap().path()));
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    files.retain(|file| !WITHOUT.iter().any(|name| file.ends_with(name)));
    files.sort();
    files
}

/// The lines of a text that are not in a fenced block.
fn prose(text: &str) -> Vec<&str> {
    let mut is_code = false;
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
        } else if !is_code {
            lines.push(line);
        }
    }
    lines
}

/// The text of a heading without its marks.
fn words(heading: &str) -> String {
    heading.replace('`', "")
}

#[test]
fn a_long_document_begins_with_its_contents() {
    let mut wrong = Vec::new();
    for file in documents() {
        let text = std::fs::read_to_string(&file).unwrap();
        let lines = prose(&text);
        let name = file.strip_prefix(root()).unwrap().display();
        let is_part = |line: &&str| line.starts_with("## ");
        let parts: Vec<String> = lines.iter().copied().filter(is_part).map(|line| words(&line[3..])).collect();
        let before = lines.iter().copied().take_while(|line| !is_part(line));
        let entry = |line: &str| Some(words(line.split_once(". [")?.1.split_once("](#")?.0));
        let contents: Vec<String> = before.filter_map(entry).collect();
        if text.lines().count() > TWO_SCREENS || !contents.is_empty() {
            // What numbers its steps names them without the number.
            let bare = |part: &String| {
                part.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')
                    .to_owned()
            };
            if contents != parts.iter().map(bare).collect::<Vec<_>>() {
                wrong.push(format!("{name}: the contents are {contents:?} and should be {parts:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
