//! `gcstreamer-dashboard`: see the cameras that `gcssink` records into Cloud Storage, and watch what was recorded.
//!
//! Does not use GStreamer. Uses the project's crates: `schema` (names, metadata), `media` (samples), `storage` (the bucket),
//! `mqtt`.
//!
//! - [`settings`]: flags and environment. [`auth`]: which requests are allowed (PURE).
//! - [`iap`]: verifies requests that come through Google's Identity-Aware Proxy.
//! - [`index`]: cameras and chunks, from listings; timelines and badges (PURE).
//! - [`export`]: ranges as one file, and the manifest that shows damage. [`command`]: export and verify without a server.
//! - [`hls`]: playlists and remuxing (PURE).
//! - [`mqtt`]: what the cameras report.
//! - [`media`]: remuxed chunks and pictures, cached in bounded memory.
//! - [`http`]: the server. [`app`]: what its requests share. [`page`]: the page's files, built from `web/`.
//! - [`systemd`]: readiness and watchdog. [`clock`]: the wall clock, which tests replace. `lock`: locks that outlast a panic.

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
