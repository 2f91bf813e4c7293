//! `gcstreamer-dashboard`: see the cameras that `gcssink` records into Cloud Storage, and watch what was recorded.
//!
//! No GStreamer. Builds on the project's crates: `schema` (names, metadata), `media` (samples), `storage` (the bucket).
//!
//! - [`settings`]: flags and environment. [`auth`]: who may see what (PURE).
//! - [`iap`]: who comes through Google's Identity-Aware Proxy.
//! - [`index`]: cameras and chunks, from listings; timelines and badges (PURE).
//! - [`export`]: ranges as one file, and the manifest that shows damage. [`command`]: the same without a server.
//! - [`hls`]: playlists and remuxing (PURE).
//! - [`mqtt`]: what the cameras report.
//! - [`media`]: bytes of chunks, remuxed ones in bounded memory.
//! - [`http`]: the server. [`page`]: the page's files, built from `web/`. [`systemd`]: readiness and watchdog.

pub mod app;
pub mod auth;
pub mod clock;
pub mod command;
pub mod export;
pub mod hls;
pub mod http;
pub mod iap;
pub mod index;
mod lock;
pub mod media;
pub mod mqtt;
pub mod page;
pub mod settings;
pub mod systemd;
