//! Gives the plugin its version, commit and release date (`gst-inspect-1.0 gcstreamer`).
fn main() {
    gst_plugin_version_helper::info()
}
