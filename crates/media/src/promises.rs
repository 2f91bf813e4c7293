//! Checks of what scanners and chunkers promise for any input.
//!
//! PURE. Used by the fuzz targets, which feed random bytes, and by the tests, which replay a corpus of their own. Not part of a
//! normal build. Every check panics if a promise is broken.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::chunk::clock::Stamp;
use crate::chunk::{Chunker, Event, Limits};
use crate::container::{Container, Fault, Mark, MarkKind, scanner_for};

/// Cuts `stream` into slices of lengths derived from `sizes`, which are used cyclically; 255 means all that is left.
pub fn slices<'a>(sizes: &'a [u8], mut stream: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    let mut sizes = sizes.iter().cycle();
    std::iter::from_fn(move || {
        if stream.is_empty() {
            return None;
        }
        let size = match sizes.next() {
            None | Some(255) => stream.len(),
            // Mostly small, so that borders fall into headers and marks; sometimes some hundred bytes.
            Some(&n @ 0..=199) => usize::from(n % 40) + 1,
            Some(&n) => usize::from(n) * 4,
        };
        let (now, later) = stream.split_at(size.min(stream.len()));
        stream = later;
        Some(now)
    })
}

/// Returns the marks of a stream, and the fault that ended it. Checks after every slice what must hold there.
fn scan<'a>(container: Container, slices: impl Iterator<Item = &'a [u8]>) -> (Vec<Mark>, Option<Fault>) {
    let mut scanner = scanner_for(container);
    let (mut marks, mut given, mut settled, mut checked) = (Vec::new(), 0u64, 0u64, 0);
    for slice in slices {
        given += slice.len() as u64;
        let fault = scanner.push(slice, &mut marks).err();
        check(&marks, &mut checked, settled);
        if fault.is_some() {
            return (marks, fault);
        }
        assert!(
            scanner.settled() >= settled,
            "settled went back from {settled} to {}",
            scanner.settled()
        );
        settled = scanner.settled();
        assert!(settled <= given, "{settled} bytes settled of {given}");
    }
    scanner.finish(&mut marks);
    check(&marks, &mut checked, settled);
    assert_eq!(scanner.settled(), given, "settled after the end");
    // The end of a picture is computed from its announced size, which can lie beyond the end of a torn input.
    let torn = |mark: &Mark| mark.kind == MarkKind::PictureEnd;
    assert!(
        marks.iter().all(|mark| mark.at <= given || torn(mark)),
        "a mark behind the end"
    );
    (marks, None)
}

/// Checks that new marks are in order, and not below what was settled before.
fn check(marks: &[Mark], checked: &mut usize, settled: u64) {
    let mut last = checked.checked_sub(1).map_or(0, |i| marks[i].at);
    for mark in &marks[*checked..] {
        assert!(mark.at >= last, "mark at {} after one at {last}", mark.at);
        assert!(mark.at >= settled, "mark at {} where {settled} was settled", mark.at);
        last = mark.at;
    }
    *checked = marks.len();
}

/// Checks the promises of [`crate::container`]: the marks do not depend on the slices, marks are in order, and the first init
/// is the start of the input.
pub fn scanner_keeps_its_promises(container: Container, sizes: &[u8], stream: &[u8]) {
    let (whole, fault) = scan(container, std::iter::once(stream));
    let (sliced, sliced_fault) = scan(container, slices(sizes, stream));
    assert_eq!(fault, sliced_fault, "the fault depends on the slices");
    if fault.is_none() {
        assert!(
            whole == sliced,
            "the marks depend on the slices:\n{}",
            difference(&whole, &sliced)
        );
        // A Matroska head is neutralised (see `container::matroska`), so it differs from the input.
        if !matches!(container, Container::Matroska | Container::WebM) {
            head_is_the_first_init(&whole, stream);
        }
    }
    passes_over_a_restart(container, sizes, stream);
}

/// The first mark that differs, without its bytes.
fn difference(a: &[Mark], b: &[Mark]) -> String {
    let i = a.iter().zip(b).take_while(|(x, y)| x == y).count();
    format!(
        "mark {i} of {} and {}: whole {:?}, sliced {:?}",
        a.len(),
        b.len(),
        a.get(i),
        b.get(i)
    )
}

fn head_is_the_first_init(marks: &[Mark], stream: &[u8]) {
    let first = marks.iter().find_map(|mark| match &mark.kind {
        MarkKind::Unit(unit) => Some((mark.at, unit.new_codec_config, unit.init.clone().unwrap_or_default())),
        _ => None,
    });
    let damaged = |at| marks.iter().any(|mark| mark.kind == MarkKind::Damage && mark.at <= at);
    // A header that another replaces or repeats before any unit came is dropped, and reported as a gap.
    if let Some((at, _, init)) = first.filter(|(at, new_codec_config, _)| !new_codec_config && !damaged(*at)) {
        let head = usize::try_from(at).ok().and_then(|at| stream.get(..at)).unwrap_or_default();
        assert!(
            head.starts_with(&[init.head, init.tail].concat()),
            "the first init is not the input's head of {at} bytes"
        );
    }
}

/// Checks a flush in mid-stream: nothing panics, and offsets continue.
fn passes_over_a_restart(container: Container, sizes: &[u8], stream: &[u8]) {
    let mut scanner = scanner_for(container);
    let (mut marks, mut checked, mut settled) = (Vec::new(), 0, 0);
    for (i, slice) in slices(sizes, stream).enumerate() {
        if i % 3 == 2 {
            scanner.restart();
        }
        if scanner.push(slice, &mut marks).is_err() {
            return;
        }
        check(&marks, &mut checked, settled);
        settled = scanner.settled();
    }
    scanner.finish(&mut marks);
    check(&marks, &mut checked, settled);
}

/// Checks that every byte that goes into a chunker comes out once: in a chunk, or dropped. The accounting of memory relies on
/// it.
pub fn chunker_loses_nothing(sizes: &[u8], stream: &[u8]) {
    let limits = Limits {
        max_time: 1_000_000_000,
        max_bytes: 0,
        align: sizes.len() % 2 == 1,
        single: false,
        // Small, so that short inputs reach them.
        soft: 4096,
        hard: 8192,
    };
    let mut chunker = Chunker::new(limits, None);
    let (mut events, mut wall) = (Vec::new(), 1_800_000_000_000_000_000u64);
    let mut faulty = false;
    for slice in slices(sizes, stream) {
        wall += 50_000_000;
        let stamp = Stamp {
            wall,
            ..Stamp::default()
        };
        if chunker
            .push(slice, || Some(Bytes::copy_from_slice(slice)), stamp, &mut events)
            .is_err()
        {
            faulty = true;
            break;
        }
    }
    faulty |= !faulty && chunker.finish(&mut events).is_err();
    // After a fault not all of the stream went into the chunker, so the sum cannot be checked.
    accounts_for_all(&events, if faulty { None } else { Some(stream) });
}

fn accounts_for_all(events: &[Event], stream: Option<&[u8]>) {
    let (mut open, mut sizes, mut out) = (Vec::new(), BTreeMap::<u64, u64>::new(), 0u64);
    for event in events {
        match event {
            Event::Begin { sequence, init, .. } => {
                open.push(*sequence);
                sizes.insert(*sequence, init.len() as u64);
            }
            Event::Data { sequence, bytes } => {
                assert!(open.contains(sequence), "data of chunk {sequence}, which is not open");
                *sizes.entry(*sequence).or_default() += bytes.len() as u64;
                out += bytes.len() as u64;
            }
            Event::End(info) => {
                assert!(
                    open.contains(&info.sequence),
                    "the end of chunk {}, which is not open",
                    info.sequence
                );
                open.retain(|s| *s != info.sequence);
                assert_eq!(
                    sizes.get(&info.sequence),
                    Some(&info.size),
                    "the size that chunk {} tells",
                    info.sequence
                );
                assert!(
                    info.preview_bytes.is_none_or(|p| p <= info.size),
                    "the preview is longer than the chunk"
                );
            }
            Event::Discard(bytes) => out += bytes,
            _ => {}
        }
    }
    if let Some(stream) = stream {
        assert_eq!(
            out,
            stream.len() as u64,
            "bytes in chunks and bytes let go of are not what came in"
        );
        assert!(open.is_empty(), "chunks without an end: {open:?}");
    }
}
