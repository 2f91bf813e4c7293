#![no_main]

use gst_plugin_gcstreamer_fuzz::{container::Container, scanner_keeps_its_promises};

libfuzzer_sys::fuzz_target!(|data: &[u8]| scanner_keeps_its_promises(Container::Fmp4, data));
