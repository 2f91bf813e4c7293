//! The one scanner whose marks are its slices: every slice is a unit, at the slice's first byte.
#![no_main]

use gcstreamer_media::container::{MarkKind, scanner_for};
use gcstreamer_schema::Container;
use gst_plugin_gcstreamer_fuzz::{sizes_and_stream, slices};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let (sizes, stream) = sizes_and_stream(data);
    let (mut scanner, mut marks, mut expected, mut at) = (scanner_for(Container::Raw), Vec::new(), Vec::new(), 0);
    for slice in slices(sizes, stream) {
        scanner.push(slice, &mut marks).unwrap();
        expected.push(at);
        at += slice.len() as u64;
        assert_eq!(scanner.settled(), at);
    }
    scanner.finish(&mut marks);
    assert!(marks.iter().all(|m| matches!(m.kind, MarkKind::Unit(_))));
    assert_eq!(marks.iter().map(|m| m.at).collect::<Vec<_>>(), expected);
});
