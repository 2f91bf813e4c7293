//! The version since which each name that users rely on exists: `tests/golden/since.txt`.
//!
//! What it says of 0.1.0 is held against `tests/golden/inspect-0.1.0.txt`, the listing of that version.

use std::collections::{BTreeMap, BTreeSet};

const TABLE: &str = include_str!("../golden/since.txt");
const FIRST: &str = "0.1.0";
const FIRST_LISTING: &str = include_str!("../golden/inspect-0.1.0.txt");
const LISTING: &str = include_str!("../golden/inspect.txt");

/// Element, kind, name.
type Thing = (String, String, String);

fn table() -> BTreeMap<Thing, String> {
    let mut table = BTreeMap::new();
    for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
        let (head, names) = line.split_once(": ").expect("VERSION ELEMENT KIND: NAMES");
        let [version, element, kind] = head.split(' ').collect::<Vec<_>>()[..] else {
            panic!("VERSION ELEMENT KIND, and it is: {head}");
        };
        for name in names.split_whitespace() {
            let thing = (element.to_owned(), kind.to_owned(), name.to_owned());
            let before = table.insert(thing, version.to_owned());
            assert!(before.is_none(), "{element} {kind} {name} is there twice");
        }
    }
    table
}

/// Returns the version since which something exists. `kind`: property, signal, stats, metadata, or the name of a message or event.
pub(crate) fn of(element: &str, kind: &str, name: &str) -> String {
    let thing = (element.to_owned(), kind.to_owned(), name.to_owned());
    table().remove(&thing).unwrap_or_else(|| {
        panic!(
            "since which version has {element} the {kind} {name}? say it in tests/golden/since.txt, then run scripts/reference"
        )
    })
}

/// Properties and signals of a listing of `tests/inspect.rs`.
fn listed(listing: &str) -> BTreeSet<Thing> {
    let mut element = "";
    let mut things = BTreeSet::new();
    for line in listing.lines() {
        let Some(line) = line.strip_prefix("  ") else {
            element = line.split(':').next().unwrap();
            continue;
        };
        let mut words = line.split(' ');
        let (kind, name) = match words.next().unwrap() {
            "pad" => continue,
            "signal" => ("signal", words.next().unwrap()),
            name => ("property", name),
        };
        things.insert((element.to_owned(), kind.to_owned(), name.to_owned()));
    }
    things
}

fn of_the_listings_kinds(table: BTreeMap<Thing, String>) -> BTreeMap<Thing, String> {
    let mut table = table;
    table.retain(|(_, kind, _), _| kind == "property" || kind == "signal");
    table
}

#[test]
fn what_is_said_to_exist_since_0_1_0_is_what_0_1_0_listed() {
    let mut table = of_the_listings_kinds(table());
    table.retain(|_, version| version == FIRST);
    let said: BTreeSet<Thing> = table.into_keys().collect();
    assert_eq!(said, listed(FIRST_LISTING));
}

#[test]
fn what_is_listed_now_has_a_version_and_nothing_else_has() {
    let said: BTreeSet<Thing> = of_the_listings_kinds(table()).into_keys().collect();
    assert_eq!(
        said,
        listed(LISTING),
        "tests/golden/since.txt against tests/golden/inspect.txt"
    );
}

#[test]
fn what_0_1_0_listed_is_listed_unchanged() {
    let now: BTreeSet<&str> = LISTING.lines().collect();
    let gone: Vec<&str> = FIRST_LISTING.lines().filter(|line| !now.contains(line)).collect();
    assert!(gone.is_empty(), "users rely on it: {gone:#?}");
}

#[test]
fn no_version_is_later_than_this_one() {
    let parts = |version: &str| -> Vec<u32> { version.split('.').map(|part| part.parse().unwrap()).collect() };
    for (thing, version) in table() {
        assert!(
            parts(&version) <= parts(env!("CARGO_PKG_VERSION")),
            "{thing:?} since {version}"
        );
    }
}
