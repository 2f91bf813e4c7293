//! GStreamer elements that record a live stream into Google Cloud Storage.
//!
//! Module map (the crates below `crates/` hold what needs no GStreamer and no element: `gcstreamer_schema`,
//! `gcstreamer_media`, `gcstreamer_storage`, `gcstreamer_mqtt`):
//! - [`upload`]: queue, retry, concurrency; the driver on the process's tokio runtime.
//! - [`flow`]: the limits of bytes and requests a second, shared by a flow group.
//! - [`spool`]: chunks wait on disk.
//! - [`gcssink`]: the element, a thin shell.
//! - [`iotcorestatus`]: the element that tells how the pipeline is; its `report` and `status` are PURE.
//! - `deadline`: one deadline for all elements of the process that stop.
//! - `outbox`, `properties`: what both elements post, and have as properties. `sync`, `wall`: locks, and the clock as a number.

mod deadline;
pub mod flow;
pub mod gcssink;
pub mod iotcorestatus;
mod outbox;
mod properties;
pub mod spool;
mod sync;
pub mod upload;
mod wall;

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
