#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| gst_plugin_gcstreamer_fuzz::chunker_loses_nothing(data));
