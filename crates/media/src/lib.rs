//! Media byte streams: what they are made of, and where to cut them.
//!
//! PURE: bytes, times and settings in, marks and events out. No GStreamer, tokio, files, sockets, clocks or locks
//! (`tests/purity.rs` of the plugin reads the sources). Depends on `gcstreamer-schema` alone.
//!
//! - [`container`]: one scanner for each format; codecs, NAL units, detection.
//! - [`chunk`]: where a chunk begins and ends, and the UTC time of its first unit.
//! - `promises`: what scanners and chunkers promise for any input; tests and fuzz targets call it.

pub mod chunk;
pub mod container;
#[cfg(any(test, feature = "promises"))]
pub mod promises;
