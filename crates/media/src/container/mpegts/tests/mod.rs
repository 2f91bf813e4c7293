//! Tests the public behaviour of the scanner on streams written by [`writer`].

mod configuration;
mod cutting;
mod damage;
mod mpeg;
mod pictures;
mod properties;
mod sound;
mod times;
pub(crate) mod writer;

use super::super::{Fault, Key, Mark, MarkKind, Scanner, Track, Unit};
use super::MpegTs;

/// Scans a stream in slices of this size, and checks the guarantees that apply to every stream.
fn scan_in(stream: &[u8], slice: usize) -> Result<Vec<Mark>, Fault> {
    let mut scanner = MpegTs::new();
    let mut marks = Vec::new();
    let mut settled = 0;
    for part in stream.chunks(slice) {
        let known = marks.len();
        scanner.push(part, &mut marks)?;
        assert!(
            marks[known..].iter().all(|mark| mark.at >= settled),
            "a mark below what was settled"
        );
        assert!(scanner.settled() >= settled, "settled went back");
        settled = scanner.settled();
    }
    let known = marks.len();
    scanner.finish(&mut marks);
    assert!(
        marks[known..].iter().all(|mark| mark.at >= settled),
        "a mark below what was settled"
    );
    assert_eq!(scanner.settled(), stream.len() as u64);
    assert!(marks.is_sorted_by_key(|mark| mark.at), "marks out of order");
    Ok(marks)
}

fn scan(stream: &[u8]) -> Vec<Mark> {
    scan_in(stream, 1000).unwrap()
}

/// All units and their offsets.
fn units(marks: &[Mark]) -> Vec<(u64, &Unit)> {
    let mut units = Vec::new();
    for mark in marks {
        if let MarkKind::Unit(unit) = &mark.kind {
            units.push((mark.at, unit));
        }
    }
    units
}

/// The key units of a stream.
fn keys(marks: &[Mark]) -> Vec<(u64, &Unit)> {
    units(marks).into_iter().filter(|(_, unit)| unit.key.is_key()).collect()
}

/// The offsets of the marks of one kind.
fn at(marks: &[Mark], kind: &MarkKind) -> Vec<u64> {
    marks.iter().filter(|mark| mark.kind == *kind).map(|mark| mark.at).collect()
}

/// Track and key of each unit.
fn outline(marks: &[Mark]) -> Vec<(u64, Track, Key)> {
    units(marks)
        .into_iter()
        .map(|(at, unit)| (at, unit.track, unit.key))
        .collect()
}

/// The header of a unit.
fn head(unit: &Unit) -> &[u8] {
    &unit.init.as_ref().unwrap().head
}

/// The codecs that a unit names.
fn codecs(unit: &Unit) -> Option<&str> {
    unit.init.as_ref().unwrap().info.codecs.as_deref()
}
