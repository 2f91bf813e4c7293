//! Destinations of chunks, as one sink sees them.
//!
//! PURE.

use crate::spool::DestinationId;

/// A destination; `None` = that of this sink's own chunks.
pub type LinkKey = Option<Elsewhere>;

/// The destination of chunks that earlier sessions left for another endpoint or bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Elsewhere {
    /// This sink stores there as it stores its own chunks.
    Served(DestinationId),
    /// An endpoint that gets no credentials from this sink, and so most likely accepts nothing.
    Parked(DestinationId),
}

/// Whether chunks for this destination are parked.
pub(super) fn is_parked(link_key: LinkKey) -> bool {
    matches!(link_key, Some(Elsewhere::Parked(_)))
}

pub(super) fn is_served(link_key: LinkKey) -> bool {
    matches!(link_key, Some(Elsewhere::Served(_)))
}
