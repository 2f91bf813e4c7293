//! Finds the pipeline of an element, for state that the elements of a pipeline share.

use gst::prelude::*;

use super::shutdown::Scope;

/// Returns the outermost bin that an element is in, or the element itself.
pub(crate) fn top_of(element: &gst::Element) -> gst::Element {
    let mut top = element.clone();
    while let Some(parent) = parent_of(&top) {
        top = parent;
    }
    top
}

/// Returns the bin that an element is in.
pub(crate) fn parent_of(element: &gst::Element) -> Option<gst::Element> {
    element.parent()?.downcast().ok()
}

/// Returns the scope whose shutdown deadline an element shares.
pub(crate) fn scope_of(element: &gst::Element) -> Scope {
    Scope::of_pipeline(top_of(element).as_ptr() as usize)
}
