//! The debug category of the element, in a file of its own so that other files can log without importing the element.

use std::sync::LazyLock;

/// Debug category `iotcorestatus`.
pub(super) static CAT: LazyLock<gst::DebugCategory> = LazyLock::new(|| {
    gst::DebugCategory::new(
        "iotcorestatus",
        gst::DebugColorFlags::empty(),
        Some("State of the pipeline over MQTT"),
    )
});
