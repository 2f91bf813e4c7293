//! Playing chunks over HLS: playlists, and chunks remuxed where players do not take their container.
//!
//! PURE. Bytes and metadata in, texts and bytes out.

pub mod playlist;
pub mod remux;
#[cfg(test)]
mod tests;
