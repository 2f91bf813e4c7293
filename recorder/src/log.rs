//! The recorder's log: lines of text or JSON objects, on standard error. Logs only events of this crate, because those of
//! libraries contain addresses.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use gstgcstreamer::base::lock::lock;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::logged::Logged;

/// The flag `--log`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Starts logging. A second call has no effect on the format.
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
    // Elements whose bus is not read any more write to GLib's log, which has a format of its own. In an outage every ended
    // connection logs the same text, with another number in the element's name.
    let (logged, began) = (Mutex::new(Logged::default()), Instant::now());
    gst::glib::log_set_handler(
        Some("GStreamer-gcstreamer"),
        gst::glib::LogLevels::LEVEL_WARNING,
        false,
        false,
        move |_, _, text| {
            if let Some(text) = unreported(&mut lock(&logged), text, began.elapsed()) {
                tracing::warn!("{text}");
            }
        },
    );
}

/// Returns what to log of a text of GLib's log; `None` if the same text was logged within the last hour. Losses are always
/// logged: their texts name no camera, and each has its own figures.
fn unreported(logged: &mut Logged, text: &str, now: Duration) -> Option<String> {
    let text = gcstreamer_schema::redact(text);
    let is_loss = ["lost", "nothing was stored"].iter().any(|words| text.contains(words));
    (is_loss || logged.is_new(&text, now)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_connection_that_ends_in_an_outage_is_not_logged_again() {
        let (mut logged, now) = (Logged::default(), Duration::ZERO);
        let mut is_logged = |text: &str| unreported(&mut logged, text, now).is_some();
        assert!(is_logged(
            "gcssink1: not stored yet: 2 chunks of 21 kB, which wait in spool-dir /spool"
        ));
        assert!(!is_logged(
            "gcssink12: not stored yet: 9 chunks of 940 kB, which wait in spool-dir /spool"
        ));
        for loss in [
            "nothing was stored: 21 kB came before the stop, but no key unit among them",
            "not stored within the shutdown-timeout of 5 s and lost: 2 chunks of 21 kB",
        ] {
            assert!(is_logged(&format!("gcssink13: {loss}")) && is_logged(&format!("gcssink14: {loss}")));
        }
    }
}
