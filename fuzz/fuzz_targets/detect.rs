//! More bytes never take an answer back.
#![no_main]

use gcstreamer_media::container::detect::{Detection, detect};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let whole = detect(data, false);
    for n in 1..data.len().min(256) {
        let part = detect(&data[..n], false);
        assert!(
            matches!(part, Detection::More) || part == whole,
            "{part:?} of {n} bytes, {whole:?} of all"
        );
    }
    assert!(!matches!(detect(data, true), Detection::More) || data.is_empty());
});
