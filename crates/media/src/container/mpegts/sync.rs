//! Finds the first packet: the sync byte, several times in a row at the same distance (ISO/IEC 13818-1 2.4.3.3, annex D.0.3).
//!
//! PURE. The result depends on the bytes alone. As long as they are not enough, it is [`Search::More`].

use super::super::work;
use super::packet::{Layout, SYNC};

/// Number of consecutive sync bytes that identify a stream: the probability of five by chance is one in 10^12.
const IN_A_ROW: usize = 5;

/// Outcome of a search.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Search {
    /// A packet of this layout begins at this index.
    Found(usize, Layout),
    /// No packet begins below this index; to decide above it, more bytes are needed.
    More(usize),
}

enum Fit {
    Yes,
    No,
    More,
}

/// Searches for packets in `data`. `known` is the layout found before, if any; `complete` means that no more bytes follow.
pub(super) fn search(data: &[u8], known: Option<Layout>, complete: bool) -> Search {
    work::count(data.len());
    // 4 is the largest lead of any layout: a packet begins at most that far in front of its sync byte.
    let lead = known.map_or(4, |layout| layout.lead);
    let mut from = 0;
    while let Some(sync) = data
        .get(from..)
        .and_then(|d| d.iter().position(|&b| b == SYNC))
        .map(|i| from + i)
    {
        for layout in Layout::ALL.into_iter().filter(|&l| known.is_none_or(|k| k == l)) {
            match fits(data, sync, layout, complete) {
                Fit::Yes => return Search::Found(sync - layout.lead, layout),
                Fit::More => return Search::More(sync.saturating_sub(lead)),
                Fit::No => {}
            }
        }
        from = sync + 1;
    }
    Search::More(if complete {
        data.len()
    } else {
        data.len().saturating_sub(lead)
    })
}

/// Returns whether packets of `layout` begin with the sync byte at `sync`.
fn fits(data: &[u8], sync: usize, layout: Layout, complete: bool) -> Fit {
    let Some(begin) = sync.checked_sub(layout.lead) else {
        return Fit::No;
    };
    let mut seen = 0;
    for at in (sync..).step_by(layout.stride).take(IN_A_ROW) {
        match (data.get(at), data.get(at + 3)) {
            // Every packet has a payload or an adaptation field. This also rejects a 0x47 in an arrival time, three bytes before
            // the real sync byte: the flags are then that sync byte, in which both bits are 0.
            (Some(&SYNC), Some(flags)) if flags & 0x30 == 0 => return Fit::No,
            (Some(&SYNC), None) if !complete => return Fit::More,
            (Some(&SYNC), _) => seen += 1,
            (Some(_), _) => return Fit::No,
            (None, _) => break,
        }
    }
    let end = begin + layout.stride;
    match (seen == IN_A_ROW, complete) {
        (true, _) => Fit::Yes,
        (false, false) => Fit::More,
        // At the end of the input fewer are accepted: a packet and the sync byte of the next, or one last packet.
        (false, true) if end == data.len() || (seen > 1 && end < data.len()) => Fit::Yes,
        (false, true) => Fit::No,
    }
}
