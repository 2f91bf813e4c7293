//! The signals that a class has itself, from GObject's own list: one that nobody thought of is in it, too.

use gst::glib;
use gst::glib::subclass::signal::{SignalId, SignalQuery};
use gst::glib::translate::IntoGlib;

/// In the order in which they were made.
#[allow(unsafe_code, reason = "glib has no safe call for this list")]
pub(crate) fn of(type_: glib::Type) -> Vec<SignalQuery> {
    let mut count = 0;
    // SAFETY: the type is registered; what comes back is an array of `count` ids, which is ours to free.
    let ids = unsafe {
        let list = glib::gobject_ffi::g_signal_list_ids(type_.into_glib(), &raw mut count);
        let ids: Vec<u32> = (0..count as usize).map(|n| *list.add(n)).collect();
        glib::ffi::g_free(list.cast());
        ids
    };
    let mut queries = Vec::new();
    for id in ids {
        let id = std::num::NonZeroU32::new(id).expect("a signal");
        // SAFETY: GObject has just named it.
        queries.push(unsafe { SignalId::new(id) }.query());
    }
    queries
}
