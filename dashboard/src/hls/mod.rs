//! HLS: playlists, and remuxing of chunks whose container players do not take.
//!
//! PURE. Takes bytes and metadata, returns text and bytes.
//!
//! [`playlist`]: playlists of recordings. [`live`]: the live playlist and its numbers. [`remux`]: a chunk as MP4.

pub mod live;
#[cfg(test)]
mod live_tests;
pub mod playlist;
pub mod remux;
#[cfg(test)]
mod tests;
