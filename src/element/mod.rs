//! Code that both elements share, on top of GStreamer.
//!
//! - `poster`: posts, notifies and emits in order, from GStreamer's thread pool.
//! - `properties`: the table that defines the properties of an element.
//! - `scope`: the pipeline that an element is in.
//! - `shutdown`: the deadline that all stopping elements of the process share.
//! - `terminal`: warnings for programs that do not read the bus.

pub(crate) mod poster;
pub(crate) mod properties;
pub(crate) mod scope;
pub(crate) mod shutdown;
pub(crate) mod terminal;
