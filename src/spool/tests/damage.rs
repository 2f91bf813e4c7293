//! P8: damage is found, at the start or while reading, and is never uploaded.

use super::super::Notice;
use super::*;

/// Creates a closed chunk that was synced while it was written and amended once. Returns its file.
fn file(sealed: bool) -> (std::path::PathBuf, Vec<u8>, Vec<u8>) {
    let disk = SimDisk::new(1);
    let spool = spool_on(&disk, 0);
    let session = spool.session("cam", "s1").unwrap();
    let object = content("s1", 3, 3000);
    let mut chunk = session.create(&entry("s1", 3)).unwrap();
    for to in [400, 900, 1600, 2200, 3000] {
        append(&mut chunk, &object, to);
        chunk.sync().unwrap();
    }
    let mut stored = chunk.finish(&closed(entry("s1", 3), &object)).unwrap();
    stored.amend(&closed(entry("s1", 3), &object)).unwrap();
    let mut bytes = disk.bytes(&stored.path());
    if !sealed {
        bytes.truncate(bytes.len() - super::super::format::MARK_LEN);
    }
    let name = stored.path().strip_prefix(disk.root()).unwrap().to_owned();
    (name, bytes, object)
}

/// The result for a file: the object if it may be uploaded whole, a prefix if it is half-written, nothing if it was quarantined.
#[derive(Debug, PartialEq)]
enum Outcome {
    Whole,
    Prefix(usize),
    Aside,
    FoundWhileReading,
    Removed,
}

fn outcome(name: &std::path::Path, bytes: &[u8], object: &[u8]) -> Outcome {
    let disk = SimDisk::new(1);
    disk.put(&disk.root().join(name), bytes);
    let spool = spool_on(&disk, 0);
    let adoption = adopt(&spool);
    let aside = adoption.notices.iter().any(|n| matches!(n, Notice::Quarantined { .. }));
    assert!(aside || adoption.notices.is_empty(), "{:?}", adoption.notices);
    match all(adoption).pop() {
        None if aside => {
            assert!(
                disk.files()
                    .iter()
                    .any(|f| f.parent() == Some(&disk.root().join("quarantine")))
            );
            Outcome::Aside
        }
        None => Outcome::Removed,
        Some(Found::Upload(mut stored)) => {
            let entry = stored.load();
            match (entry, stored.reader().map(read_all).unwrap()) {
                (Ok(entry), Ok(back)) => {
                    assert_eq!(entry, closed(super::entry("s1", 3), object));
                    assert_eq!(back, object);
                    Outcome::Whole
                }
                _ => {
                    let to = stored.quarantine().unwrap();
                    assert_eq!(disk.bytes(&to), bytes);
                    Outcome::FoundWhileReading
                }
            }
        }
        Some(Found::Rebuild(partial)) => {
            let back = read_all(partial.reader().unwrap()).unwrap();
            assert!(object.starts_with(&back));
            assert_eq!(partial.entry(), &super::entry("s1", 3));
            Outcome::Prefix(back.len())
        }
    }
}

#[test]
fn a_flipped_byte_anywhere_never_changes_what_is_uploaded() {
    for sealed in [true, false] {
        let (name, bytes, object) = file(sealed);
        assert_eq!(outcome(&name, &bytes, &object), Outcome::Whole);
        let mut counts = [0; 2];
        for at in 0..bytes.len() {
            let mut broken = bytes.clone();
            broken[at] ^= 1 << (at % 8);
            match outcome(&name, &broken, &object) {
                Outcome::Whole => counts[0] += 1,
                Outcome::Aside | Outcome::FoundWhileReading => counts[1] += 1,
                other => panic!("byte {at} of {}: {other:?}", bytes.len()),
            }
        }
        // In the last records a flip can also be what a crash does.
        assert!(counts[1] > 3000 && counts[0] < 900, "{counts:?} {sealed}");
    }
}

#[test]
fn a_file_that_is_cut_off_anywhere_gives_its_beginning() {
    let (name, bytes, object) = file(true);
    let mut last = 0;
    let mut whole = 0;
    for len in 0..bytes.len() {
        match outcome(&name, &bytes[..len], &object) {
            Outcome::Removed => assert_eq!(last, 0, "{len}"),
            Outcome::Prefix(n) => {
                assert!(n >= last, "{len}");
                last = n;
            }
            Outcome::Whole => whole += 1,
            other => panic!("{len}: {other:?}"),
        }
    }
    assert!(last == 3000 && whole > 20);
}

#[test]
fn zeros_over_what_was_synced_are_damage_and_behind_it_they_are_a_crash() {
    let disk = SimDisk::new(1);
    let spool = spool_on(&disk, 0);
    let session = spool.session("cam", "s1").unwrap();
    let object = content("s1", 3, 9000);
    let mut chunk = session.create(&super::entry("s1", 3)).unwrap();
    append(&mut chunk, &object, 3000);
    chunk.sync().unwrap();
    let synced = disk.bytes(&chunk.path()).len();
    append(&mut chunk, &object, 6000);
    append(&mut chunk, &object, 9000);
    let name = chunk.path().strip_prefix(disk.root()).unwrap().to_owned();
    let bytes = disk.bytes(&chunk.path());
    let zeroed = |at: usize| {
        let mut broken = bytes.clone();
        broken[at..at + 100].fill(0);
        outcome(&name, &broken, &object)
    };
    assert_eq!(zeroed(0), Outcome::Aside, "the magic");
    assert_eq!(zeroed(60), Outcome::Aside, "the Head");
    assert_eq!(zeroed(synced - 200), Outcome::Aside);
    assert_eq!(zeroed(synced + 200), Outcome::Prefix(3000));
    assert_eq!(zeroed(synced + 3100), Outcome::Prefix(6000));
    // A file of which no page was ever written.
    assert_eq!(outcome(&name, &vec![0; 5000], &object), Outcome::Removed);
}

#[test]
fn what_is_not_a_chunk_is_set_aside_with_a_reason() {
    let (name, bytes, object) = file(true);
    assert_eq!(outcome(&name, b"#!/bin/sh\nrm -rf\n", &object), Outcome::Aside);
    let mut later = bytes.clone();
    later[7] = 2;
    assert_eq!(outcome(&name, &later, &object), Outcome::Aside);
    let disk = SimDisk::new(1);
    disk.put(&disk.root().join("cam/s1/00000000000000000009.chunk"), &bytes);
    disk.put(&disk.root().join("cam/s2/00000000000000000003.chunk"), &later);
    let adoption = adopt(&spool_on(&disk, 0));
    let texts: Vec<String> = adoption.notices.iter().map(ToString::to_string).collect();
    assert!(texts[0].contains("chunk 3 of session s1: its name was changed"), "{texts:?}");
    assert!(
        texts[1].contains("version 2") && texts[1].contains("quarantine/cam~s2~"),
        "{texts:?}"
    );
}

#[test]
fn a_second_file_of_one_name_does_not_replace_the_first_in_the_quarantine() {
    let disk = SimDisk::new(1);
    let path = disk.root().join("cam/s1/00000000000000000009.chunk");
    for text in ["first, not ours", "second, not ours"] {
        disk.put(&path, text.as_bytes());
        assert_eq!(adopt(&spool_on(&disk, 0)).notices.len(), 1);
    }
    let kept: Vec<Vec<u8>> = disk.files().iter().map(|f| disk.bytes(f)).collect();
    assert_eq!(kept, [b"first, not ours".to_vec(), b"second, not ours".to_vec()]);
    assert_eq!(spool_on(&disk, 0).used(), 8192, "the quarantine counts");
}

#[test]
fn a_payload_full_of_markers_keeps_nobody_waiting() {
    // Markers of records of 1 MiB, every twelve bytes.
    let marker = [0xD5, 0x9E, 0xC7, 2, 0, 0, 0x10, 0, 1, 2, 3, 4];
    let object: Vec<u8> = marker.iter().copied().cycle().take(6 << 20).collect();
    let disk = SimDisk::new(1);
    let spool = spool_on(&disk, 0);
    let session = spool.session("cam", "s1").unwrap();
    let mut chunk = session.create(&super::entry("s1", 3)).unwrap();
    append(&mut chunk, &object, object.len());
    let name = chunk.path().strip_prefix(disk.root()).unwrap().to_owned();
    let mut bytes = disk.bytes(&chunk.path());
    assert_eq!(outcome(&name, &bytes, &object), Outcome::Prefix(object.len()));
    let first = super::super::format::Header::parse(&bytes[8..]).unwrap().record_len() + 8;
    bytes[first + 100] ^= 1;
    let begun = std::time::Instant::now();
    assert_eq!(outcome(&name, &bytes, &object), Outcome::Aside);
    assert!(begun.elapsed().as_secs() < 20);
}
