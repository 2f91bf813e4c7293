//! The recorder's log: lines of text, or JSON objects, on standard error. Only this crate's own events: libraries' hold addresses.

use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The flag `--log`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Begins to log. A second call changes nothing.
pub fn begin(format: Format) {
    let ours = Targets::new().with_target("gcstreamer_recorder", LevelFilter::INFO);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false);
    let layer = match format {
        Format::Text => lines.with_ansi(false).with_filter(ours).boxed(),
        Format::Json => lines.json().flatten_event(true).with_filter(ours).boxed(),
    };
    let _ = tracing_subscriber::registry().with(layer).try_init();
    // Elements whose bus nobody reads any more use GLib's log, which would write lines of its own form.
    gst::glib::log_set_handler(
        Some("GStreamer-gcstreamer"),
        gst::glib::LogLevels::LEVEL_WARNING,
        false,
        false,
        |_, _, text| {
            tracing::warn!("{}", gcstreamer_schema::redact(text));
        },
    );
}
