//! The debug category `gcssink`. Level 5 logs the life of each chunk, level 4 its failures, level 6 the buffers as well.

use std::sync::LazyLock;

use gst::glib;

use crate::upload::life::{LifeEvent, Observer, Step};

/// Debug category `gcssink`.
pub(super) static CAT: LazyLock<gst::DebugCategory> =
    LazyLock::new(|| gst::DebugCategory::new("gcssink", gst::DebugColorFlags::empty(), Some("Cloud Storage chunk sink")));

/// Logs every step of every chunk of an element.
pub(super) struct LogChunks(pub(super) glib::WeakRef<gst::Element>);

impl Observer for LogChunks {
    fn observe(&self, event: &LifeEvent) {
        let is_trouble = matches!(event.step, Step::Retry(_) | Step::Dropped(_));
        let level = if is_trouble {
            gst::DebugLevel::Info
        } else {
            gst::DebugLevel::Debug
        };
        // Saves the upgrade of the element if the level is disabled.
        if CAT.threshold() < level {
            return;
        }
        match self.0.upgrade() {
            Some(element) if is_trouble => gst::info!(CAT, obj = element, "{event}"),
            Some(element) => gst::debug!(CAT, obj = element, "{event}"),
            None => {}
        }
    }
}
