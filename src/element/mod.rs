//! What both elements share, on top of GStreamer.
//!
//! - `poster`: posts, notifies and emits in order, from GStreamer's thread pool.
//! - `properties`: the table that the properties of both elements are written in.
//! - `scope`: the pipeline that an element is in.
//! - `shutdown`: the one deadline of all elements of the process that stop.
//! - `terminal`: words for whoever does not read the bus.

pub(crate) mod poster;
pub(crate) mod properties;
pub(crate) mod scope;
pub(crate) mod shutdown;
pub(crate) mod terminal;
