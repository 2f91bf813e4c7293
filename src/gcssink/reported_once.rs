//! Remembers what has been reported. A `splitmuxsink` makes a session of every fragment: one-time reports are made once for all
//! of them.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use gst::glib;

use super::upstream;
use crate::base::lock::lock;

/// The memory of each splitmuxsink of this process.
static OF_SPLITMUXSINKS: Mutex<Vec<(glib::WeakRef<gst::Object>, Arc<ReportedOnce>)>> = Mutex::new(Vec::new());

/// The reports already made by a sink, or by the sinks of one `splitmuxsink`.
#[derive(Debug, Default)]
pub(super) struct ReportedOnce(Mutex<BTreeSet<String>>);

impl ReportedOnce {
    /// Returns the memory for an element whose session begins.
    pub(super) fn of(element: &gst::Element) -> Arc<Self> {
        upstream::splitmuxsink_of(element).map_or_else(Arc::default, |splitmuxsink| Self::shared(&splitmuxsink))
    }

    fn shared(owner: &gst::Object) -> Arc<Self> {
        let mut all = lock(&OF_SPLITMUXSINKS);
        all.retain(|(other, _)| other.upgrade().is_some());
        let known = all.iter().find(|(other, _)| other.upgrade().as_ref() == Some(owner));
        if let Some((_, reported_once)) = known {
            return Arc::clone(reported_once);
        }
        let reported_once = Arc::new(Self::default());
        all.push((glib::clone::Downgrade::downgrade(owner), Arc::clone(&reported_once)));
        reported_once
    }

    /// Returns whether `what` has not been reported yet, and marks it as reported.
    pub(super) fn is_new(&self, what: &str) -> bool {
        lock(&self.0).insert(what.to_owned())
    }
}
