//! What a page for readers looks like: a long one begins with its contents, none has remarks for tests, and the changes are of versions
//! that somebody had.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Characters on two screens of forty lines, each about three quarters full at a hundred columns.
const TWO_SCREENS: usize = 6000;
/// Lines that may stand in front of the list, the title among them: a paragraph, or one and a block.
const BEFORE_THE_LIST: usize = 10;
/// README.md ends in a table of where to go; CHANGELOG.md has the newest version first.
const WITHOUT: [&str; 2] = ["README.md", "CHANGELOG.md"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(file: &str) -> String {
    std::fs::read_to_string(root().join(file)).unwrap_or_else(|e| panic!("{file}: {e}"))
}

/// Every document, by its name from the root.
fn documents() -> Vec<String> {
    let mut files: Vec<PathBuf> = Vec::new();
    for folder in ["", "docs", "docs/decisions", "examples", "fuzz"] {
        let entries = std::fs::read_dir(root().join(folder)).unwrap();
        files.extend(entries.map(|entry| entry.unwrap().path()));
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "md"));
    files.sort();
    let name = |file: PathBuf| file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    let names: Vec<String> = files.into_iter().map(name).collect();
    assert!(names.len() > 25, "{names:?}");
    names
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

/// The name of the part that a line of the contents leads to.
fn entry(line: &str) -> Option<String> {
    let (number, rest) = line.split_once(". [")?;
    let is_entry = number.parse::<u32>().is_ok();
    is_entry.then_some(words(rest.split_once("](#")?.0))
}

#[test]
fn a_long_document_begins_with_its_contents() {
    let mut wrong = Vec::new();
    for name in documents().iter().filter(|name| !WITHOUT.contains(&name.as_str())) {
        let text = read(name);
        let lines = prose(&text);
        let is_part = |line: &&str| line.starts_with("## ");
        let parts: Vec<String> = lines.iter().copied().filter(is_part).map(|line| words(&line[3..])).collect();
        let before = lines.iter().copied().take_while(|line| !is_part(line));
        let contents: Vec<String> = before.filter_map(entry).collect();
        if text.chars().count() > TWO_SCREENS || !contents.is_empty() {
            // What numbers its steps names them without the number.
            let bare = |part: &String| {
                part.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.' || c == ' ')
                    .to_owned()
            };
            if contents.is_empty() || contents != parts.iter().map(bare).collect::<Vec<_>>() {
                wrong.push(format!("{name}: the contents are {contents:?} and should be {parts:?}"));
            }
            let above = text.lines().take_while(|line| entry(line).is_none());
            let above = above.filter(|line| !line.is_empty()).count();
            if above > BEFORE_THE_LIST {
                wrong.push(format!(
                    "{name}: {above} lines stand in front of the contents: put them below"
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Comments that say which part of a page a program writes.
const GENERATED: [&str; 2] = ["<!-- begin of what ", "<!-- end of what "];

/// Pages for who changes the project.
const FOR_DEVELOPERS: [&str; 4] = ["docs/benchmarks.md", "docs/design.md", "docs/licences.md", "docs/zoo.md"];

/// What only who changes the project asks: files that test, scripts that are run before a release, how a test does it.
const REMARKS: &[&str] = &[
    "tests/",
    "scripts/test-",
    "scripts/first-hours",
    "scripts/check-",
    "by a test",
    "by tests",
    "a test holds",
    "a test fails",
    "for the test",
    "the test gives",
    "the tests",
    "on a test machine",
    "are run against",
    "is run against",
    "run against ",
    "run with a live",
    "both are run",
    "are run here",
    "not run here",
    "was run",
    "were not run",
];

fn is_for_users(document: &str) -> bool {
    let is_page = document.starts_with("docs/") && !document.starts_with("docs/decisions/");
    document == "README.md" || (is_page && !FOR_DEVELOPERS.contains(&document))
}

#[test]
fn no_page_for_users_has_remarks_for_tests() {
    let mut wrong = Vec::new();
    for document in documents() {
        let text = read(&document);
        let shown = |line: &&str| !GENERATED.iter().any(|comment| line.starts_with(comment));
        for line in text.lines().filter(shown) {
            let lower = line.to_lowercase();
            let is_remark = is_for_users(&document) && REMARKS.iter().any(|remark| lower.contains(remark));
            if is_remark || line.contains("<!--") {
                wrong.push(format!("{document}: {line}"));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "readers have no use for it; it belongs into tests/common/printed.rs or CONTRIBUTING.md: {wrong:#?}"
    );
}

/// Each row of "Each command and file" of docs/then-and-now.md: how it begins, and what shows that its successor works.
const SUCCESSORS: &[(&str, &[&str])] = &[
    ("`export PIPE_NAME=…`", &["tests/then_and_now.rs"]),
    ("`export TIMEOUT=3600`", &["tests/then_and_now.rs"]),
    // With a real account by hand; that the file is read, and which texts come, is tested.
    (
        "`export GOOGLE_APPLICATION_CREDENTIALS=…`",
        &["tests/gcs_writer.rs", "crates/storage/src/credentials.rs"],
    ),
    ("`gcstreamer.py --video_path=$PIPE_NAME`", &["tests/chunks_play_alone.rs"]),
    ("object names `CAMERA/22Nov2026", &["tests/chunks_play_alone.rs"]),
    ("`rtspsrc ! rtpjitterbuffer ! …", &["tests/then_and_now.rs"]),
    ("the same with `mp4mux`", &["tests/then_and_now.rs"]),
    ("\"other protocols: contact us\"", &["tests/sources.rs"]),
    ("flow control as a wish", &["tests/flow.rs"]),
    ("`openssl genpkey`", &["tests/docs.rs"]),
    // Needs an account.
    ("`gcloud iot devices create", &[]),
    ("`iotcore_client.py`", &["tests/iot_contract.rs", "tests/iot_mosquitto.rs"]),
    // Nothing takes its place.
    ("private key as an argument of `docker run`", &[]),
    (
        "`launcher.sh PRIVATE_KEY",
        &["tests/then_and_now.rs", "scripts/test-container"],
    ),
    ("`docker build -f env/Dockerfile`", &["scripts/test-container"]),
    // Needs an account.
    ("`gcloud auth configure-docker`", &[]),
    // The manifests alone: applying them needs a cluster.
    (
        "`gcloud container clusters",
        &["scripts/check-manifests", "tests/delivery.rs"],
    ),
    // Cloud Run needs an account.
    ("`frontend/`", &["dashboard/tests", "scripts/test-container"]),
    // The JSON alone: the bucket needs an account.
    ("lifecycle rules", &["tests/docs.rs"]),
];

#[test]
fn each_command_of_the_original_has_a_successor_that_something_shows() {
    let text = read("docs/then-and-now.md");
    let rows = text.lines().skip_while(|line| !line.starts_with("| original | now |"));
    let rows: Vec<&str> = rows.skip(2).map_while(|line| line.strip_prefix("| ")).collect();
    assert_eq!(rows.len(), SUCCESSORS.len());
    for (row, (begin, shown_by)) in rows.iter().zip(SUCCESSORS) {
        assert!(row.starts_with(begin), "{row}");
        for file in *shown_by {
            assert!(root().join(file).exists(), "{file} of {begin}");
        }
    }
}

/// The versions since which each name of `tests/golden/since.txt` exists: the same one may be a property and a field.
fn versions() -> BTreeMap<String, BTreeSet<String>> {
    let mut versions: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let table = read("tests/golden/since.txt");
    for line in table.lines().filter(|line| !line.starts_with('#')) {
        let (head, names) = line.split_once(": ").unwrap();
        let version = head.split(' ').next().unwrap();
        for name in names.split_whitespace() {
            versions.entry(name.to_owned()).or_default().insert(version.to_owned());
        }
    }
    versions
}

/// The words between backticks in the bullets of a version that begin with "New": bullets go over several lines.
fn new_names(version: &str) -> BTreeSet<String> {
    let text = read("CHANGELOG.md");
    let heading = format!("\n## {version}\n");
    let part = text
        .split_once(&heading)
        .unwrap_or_else(|| panic!("no {version} in CHANGELOG.md"))
        .1;
    let part = part.split("\n## ").next().unwrap();
    let bullets = part.split("\n\n").flat_map(|block| block.split("\n- "));
    let bullets = bullets.map(|bullet| bullet.trim_start_matches("- "));
    let news = bullets.filter(|bullet| bullet.starts_with("New"));
    let names = news.flat_map(|bullet| bullet.split('`').skip(1).step_by(2));
    names.map(str::to_owned).collect()
}

#[test]
fn what_the_changes_call_new_is_new_in_that_version() {
    let (versions, news) = (versions(), new_names("0.2.0"));
    let is_older = |name: &&String| versions.get(*name).is_some_and(|since| !since.contains("0.2.0"));
    let older: Vec<&String> = news.iter().filter(is_older).collect();
    assert!(older.is_empty(), "not new in 0.2.0: {older:?}");
    let is_new = |since: &BTreeSet<String>| since.contains("0.2.0");
    let unreported = versions.iter().filter(|(name, since)| is_new(since) && !news.contains(*name));
    let unreported: Vec<&String> = unreported.map(|(name, _)| name).collect();
    assert!(
        unreported.is_empty(),
        "new in 0.2.0, and CHANGELOG.md says nothing of {unreported:?}"
    );
}
