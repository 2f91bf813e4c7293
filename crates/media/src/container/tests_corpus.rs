//! Replays a corpus of our own: streams as writers make them, and damaged versions of them. Checks the guarantees that the fuzz
//! targets check too (`promises`).

mod mutations;
mod streams;

use super::{Container, detect};
use crate::promises::{chunker_loses_nothing, scanner_keeps_its_promises};
use streams::Stream;

/// Sizes of slices that take turns; 255 is all that is left.
const SIZES: [&[u8]; 4] = [&[], &[7, 38, 0], &[160, 220, 11], &[187]];

/// Runs a check over every stream and every mutation of it, named if it fails.
fn replay(streams: &[Stream], container: Container, check: impl Fn(&[u8], &[u8])) {
    let mut inputs = 0;
    for stream in streams.iter().filter(|stream| stream.container == container) {
        for (n, (what, input)) in mutations::of(stream).into_iter().enumerate() {
            let sizes = SIZES[n % SIZES.len()];
            let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(sizes, &input)));
            assert!(outcome.is_ok(), "{container:?}: {}, {what}", stream.name);
            inputs += 1;
        }
    }
    assert!(inputs > 500, "{inputs} inputs are no corpus");
}

fn scanner(container: Container) {
    replay(&streams::all(), container, |sizes, input| {
        scanner_keeps_its_promises(container, sizes, input);
    });
}

#[test]
fn the_scanner_of_flv_keeps_its_promises_over_the_corpus() {
    scanner(Container::Flv);
}

#[test]
fn the_scanner_of_transport_streams_keeps_its_promises_over_the_corpus() {
    scanner(Container::MpegTs);
}

#[test]
fn the_scanner_of_fragmented_mp4_keeps_its_promises_over_the_corpus() {
    scanner(Container::Fmp4);
}

#[test]
fn the_scanner_of_matroska_keeps_its_promises_over_the_corpus() {
    scanner(Container::Matroska);
}

#[test]
fn chunkers_lose_no_byte_of_the_corpus() {
    for container in [Container::Flv, Container::MpegTs, Container::Fmp4, Container::Matroska] {
        replay(&streams::all(), container, chunker_loses_nothing);
    }
}

#[test]
fn the_streams_of_the_corpus_are_what_they_are_called() {
    for stream in streams::all() {
        let found = detect::detect(&stream.bytes, true);
        assert_eq!(found, detect::Detection::Is(stream.container), "{}", stream.name);
    }
}

/// Writes the streams as seeds for the fuzz targets: one byte in front says that no sizes of slices follow.
#[test]
#[ignore = "writes files: GCSTREAMER_SEEDS names the folder"]
fn seeds_are_written() {
    let folder = std::path::PathBuf::from(std::env::var_os("GCSTREAMER_SEEDS").unwrap());
    for stream in streams::all() {
        let container = stream.container.name();
        for target in [container, "chunker"] {
            let folder = folder.join(target);
            std::fs::create_dir_all(&folder).unwrap();
            let name = format!("{container}-{}", stream.name.replace(' ', "-"));
            std::fs::write(folder.join(name), [&[0][..], &stream.bytes].concat()).unwrap();
        }
    }
}
