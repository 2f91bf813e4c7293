#![no_main]

use gcstreamer_schema::Container;
use gst_plugin_gcstreamer_fuzz::scanner_keeps_its_promises;

libfuzzer_sys::fuzz_target!(|data: &[u8]| scanner_keeps_its_promises(Container::MpegTs, data));
