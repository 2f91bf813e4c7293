//! The name of a chunk in one sink's upload queue.
//!
//! PURE. A sequence number cannot serve as this name, because chunks of earlier sessions have the same ones. Tickets are ordered
//! by the time of capture as far as the queue knows it: a chunk of an earlier session is older than all of this one.

/// Names a chunk from the moment it is queued until it is stored or dropped. An older chunk has a smaller ticket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// Tickets of this session's chunks begin here; those of earlier sessions are below.
const OWN: u64 = 1 << 63;

impl Ticket {
    /// Returns the ticket of a chunk of this session. `sequence`: its sequence number, below 2⁶³.
    pub const fn own(sequence: u64) -> Self {
        Self(OWN | sequence)
    }

    /// Returns the ticket of a chunk of an earlier session. `before`: how many such chunks this sink adopted before it, below 2⁶³.
    /// A chunk that is put back and adopted again gets another ticket.
    pub const fn recovered(before: u64) -> Self {
        Self(before)
    }

    /// Whether it names a chunk of an earlier session.
    pub const fn is_recovered(self) -> bool {
        self.0 < OWN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_chunk_of_an_earlier_session_is_older_than_the_first_one_of_this() {
        let recovered = [Ticket::recovered(0), Ticket::recovered(1), Ticket::recovered(OWN - 1)];
        let own = [Ticket::own(0), Ticket::own(1), Ticket::own(OWN - 1)];
        assert!(recovered.iter().chain(&own).is_sorted());
        assert!(recovered.iter().all(|t| t.is_recovered()) && !own.iter().any(|t| t.is_recovered()));
        assert_ne!(Ticket::own(7), Ticket::recovered(7));
    }
}
