//! What the fuzz targets share: the promises of `gcstreamer_media`, which its own tests check as well.

use gcstreamer_media::container::Container;
use gcstreamer_media::promises;
pub use gcstreamer_media::promises::slices;

/// Splits the fuzzer's bytes into sizes of slices and a stream: sizes come first, after their number.
pub fn sizes_and_stream(data: &[u8]) -> (&[u8], &[u8]) {
    let Some((&count, rest)) = data.split_first() else {
        return (&[], &[]);
    };
    rest.split_at(usize::from(count % 32).min(rest.len()))
}

/// See [`promises::scanner_keeps_its_promises`].
pub fn scanner_keeps_its_promises(container: Container, data: &[u8]) {
    let (sizes, stream) = sizes_and_stream(data);
    promises::scanner_keeps_its_promises(container, sizes, stream);
}

/// See [`promises::chunker_loses_nothing`].
pub fn chunker_loses_nothing(data: &[u8]) {
    let (sizes, stream) = sizes_and_stream(data);
    promises::chunker_loses_nothing(sizes, stream);
}
