//! What the memory of one sink's uploads is charged with, and its limit. Plain data of [`super::state::QueueState`].

use std::collections::HashMap;

use bytes::Bytes;

/// The charges against the limit `max-memory-bytes`.
#[derive(Debug, Default)]
pub(super) struct Charges {
    /// Bytes charged.
    pub(super) used: u64,
    /// The limit, bytes.
    pub(super) limit: u64,
    /// Bytes reserved for the bookkeeping of a chunk that the next buffer may begin.
    pub(super) headroom: u64,
    /// Bytes that the streaming thread waits to charge; 0 if it does not wait.
    pub(super) need: u64,
    /// Headers of the chunks in memory, with the number of chunks that share each one. A shared header is stored and charged
    /// once.
    heads: HashMap<Bytes, u64>,
}

impl Charges {
    /// Nothing charged, with that limit.
    pub(super) fn with_limit(limit: u64) -> Self {
        Self {
            limit,
            ..Self::default()
        }
    }

    /// Whether `bytes` more fit. A buffer larger than the whole memory is accepted if nothing else is charged: it would never fit
    /// otherwise.
    pub(super) fn fits(&self, bytes: u64) -> bool {
        self.used == 0 || self.used.saturating_add(bytes) <= self.limit.saturating_sub(self.headroom)
    }

    /// Charges `bytes`, beyond the limit too.
    pub(super) fn charge(&mut self, bytes: u64) {
        self.used += bytes;
    }

    /// Refunds `bytes`.
    pub(super) fn refund(&mut self, bytes: u64) {
        self.used = self.used.saturating_sub(bytes);
    }

    /// Counts one more chunk in memory with this header, and charges the header if it is new. Returns the shared copy.
    pub(super) fn hold_head(&mut self, head: Bytes) -> Bytes {
        if head.is_empty() {
            return head;
        }
        let known = self.heads.get_key_value(&head).map(|(known, _)| known.clone());
        let head = known.unwrap_or_else(|| {
            self.charge(head.len() as u64);
            head
        });
        *self.heads.entry(head.clone()).or_default() += 1;
        head
    }

    /// Counts one chunk less with this header, and refunds the header with its last chunk.
    pub(super) fn drop_head(&mut self, head: &Bytes) {
        let Some(chunks) = self.heads.get_mut(head) else { return };
        *chunks -= 1;
        if *chunks == 0 {
            self.heads.remove(head);
            self.refund(head.len() as u64);
        }
    }
}
