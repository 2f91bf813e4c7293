//! A template that is accepted gives legal names, different for every chunk.
#![no_main]

use gcstreamer_schema::limits::check_object_name;
use gcstreamer_schema::name::{NameFields, Template, check_device};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = check_device(text);
    let Ok(template) = Template::parse(text) else { return };
    let name = |seq, start| {
        template.format(&NameFields {
            device: "store/cam1",
            session: "0a1b2c3d4e",
            seq,
            ext: "flv",
            start,
        })
    };
    let first = name(0, 1_767_225_600_000_000_000).expect("an accepted template gives names");
    // The device makes a name longer than the one that was tried; nothing else may be wrong with it.
    assert!(
        first.len() > 1000 || check_object_name(&first).is_ok(),
        "{first:?} is no legal name"
    );
    let second = name(1, 1_767_225_610_000_000_000).unwrap();
    assert_eq!(first == second, template.is_fixed(), "{first:?} and {second:?}");
    // Whatever can be read back is the chunk that it was made for.
    if let Some(parts) = template.read(&second) {
        assert!(parts.sequence.is_none_or(|seq| seq == 1), "{second:?}: {parts:?}");
    }
});
