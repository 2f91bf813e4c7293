//! GStreamer elements that record a live stream into Google Cloud Storage.
//!
//! Module map (the crates below `crates/` hold what needs no GStreamer and no element: `gcstreamer_schema`,
//! `gcstreamer_media`, `gcstreamer_storage`, `gcstreamer_mqtt`):
//! - [`upload`]: queue, retry, concurrency; the driver on the process's tokio runtime.
//! - [`flow`]: the limits of bytes and requests a second, shared by a flow group.
//! - [`spool`]: chunks wait on disk.
//! - [`ingest`]: the engine between a buffer and a queued chunk.
//! - [`gcssink`]: the element, the GStreamer shell around [`ingest`] and [`upload`].
//! - [`iotcorestatus`]: the element that reports whether the pipeline works; its `report` is PURE.
//! - `element`: what both elements share: posting in order, the shutdown deadline of the process, the table of properties.
//! - [`base`]: the lowest floor: clocks, locks, the tokio runtime of the process.

pub mod base;
mod element;
pub mod flow;
pub mod gcssink;
pub mod ingest;
pub mod iotcorestatus;
pub mod spool;
pub mod upload;

pub use base::runtime::uploads_respond;
pub use element::shutdown::separate_pipelines;
pub use gcssink::outlast_refusals;
pub use plugin::plugin_register_static;

#[allow(missing_docs, reason = "the macro makes public items without any")]
mod plugin {
    use gst::glib;

    fn plugin_init(plugin: &gst::Plugin) -> Result<(), glib::BoolError> {
        crate::gcssink::register(plugin)?;
        crate::iotcorestatus::register(plugin)
    }

    gst::plugin_define!(
        gcstreamer,
        env!("CARGO_PKG_DESCRIPTION"),
        plugin_init,
        concat!(env!("CARGO_PKG_VERSION"), "-", env!("COMMIT_ID")),
        "MPL-2.0",
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_NAME"),
        env!("CARGO_PKG_REPOSITORY"),
        env!("BUILD_REL_DATE")
    );
}
