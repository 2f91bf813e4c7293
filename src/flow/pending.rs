//! What waits to be stored. Here, below the queue, because a flow group adds up what waits in all its sinks. PURE.

/// What waits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pending {
    /// Bytes of closed chunks.
    pub bytes: u64,
    /// Closed chunks.
    pub chunks: u64,
    /// Age of the oldest, ns.
    pub oldest: u64,
}
