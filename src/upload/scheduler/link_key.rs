//! Where chunks go, seen from one sink.
//!
//! PURE.

use crate::spool::DestinationId;

/// Where chunks go; `None` = where this sink's own go.
pub type LinkKey = Option<Elsewhere>;

/// Where chunks go that earlier sessions left for another endpoint or bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Elsewhere {
    /// This sink stores there as it does its own chunks.
    Served(DestinationId),
    /// An endpoint that gets no credentials from this sink: most likely it takes nothing.
    Parked(DestinationId),
}

/// Whether chunks for it are parked.
pub(super) fn is_parked(link_key: LinkKey) -> bool {
    matches!(link_key, Some(Elsewhere::Parked(_)))
}

pub(super) fn is_served(link_key: LinkKey) -> bool {
    matches!(link_key, Some(Elsewhere::Served(_)))
}
