//! The formats that GCStreamer writes to the bucket, the broker and the bus, and their parsers.
//!
//! PURE: text and numbers only. No GStreamer, tokio, files, sockets, clocks or locks (`tests/purity.rs` of the plugin checks the
//! sources). The lowest layer: it depends on no other crate of the project, and every other may use it.
//!
//! - [`name`]: object names from the template of the property `location`, parsing them, prefixes for listings.
//! - [`metadata`]: the custom metadata of a chunk's object, to and from a map.
//! - [`container`], [`reason`]: the values of single metadata keys.
//! - [`limits`]: what Cloud Storage accepts as names and metadata.
//! - [`status`]: the JSON status of a pipeline. [`topics`]: MQTT topics of a device.
//! - [`structures`]: names and fields of the messages, events and stats that the elements exchange.
//! - [`cameras`]: the list of cameras in a recorder's file.
//! - [`session`]: session ids. [`time`]: RFC 3339. [`crc32c`]: a checksum as Cloud Storage writes it.
//! - [`units`]: amounts and times formatted for people. [`redact`](mod@redact): removes secrets from texts.

pub mod cameras;
pub mod container;
pub mod crc32c;
pub mod limits;
pub mod metadata;
pub mod name;
pub mod reason;
pub mod redact;
pub mod session;
pub mod status;
pub mod structures;
pub mod time;
pub mod topics;
pub mod units;

pub use container::Container;
pub use reason::{ClockKind, GapReason, StartReason};
pub use redact::redact;
