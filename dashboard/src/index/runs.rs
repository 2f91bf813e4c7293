//! Runs of consecutive chunks: all that sums and gaps need of an hour.
//!
//! PURE. A whole hour of 10 s chunks is one run instead of 360 chunks: a day of 300 cameras takes about 1 MB instead of 1 GB.

use std::collections::HashMap;
use std::sync::Arc;

use super::chunk::Chunk;
use super::timeline::Piece;

/// Consecutive chunks of a session with nothing missing between them. Times in ns since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Run {
    /// Beginning of the first chunk.
    pub(super) start: u64,
    /// Number of the first chunk.
    pub(super) first: u64,
    pub(super) session: Arc<str>,
    /// Number of the last chunk.
    pub(super) last: u64,
    /// Latest end of a chunk.
    pub(super) end: u64,
    /// Why something may be missing before the first chunk.
    pub(super) gap: Option<Arc<str>>,
    /// Whether the clock was set forward before the first chunk.
    pub(super) steps: bool,
}

impl From<&Chunk> for Run {
    fn from(chunk: &Chunk) -> Self {
        let meta = &chunk.meta;
        Self {
            start: meta.start,
            first: meta.sequence,
            session: meta.session.as_str().into(),
            last: meta.sequence,
            end: meta.end,
            gap: meta.gap.as_ref().map(|gap| gap.name().into()),
            steps: chunk.steps(),
        }
    }
}

impl Run {
    /// Returns the run as one piece of a timeline.
    pub(super) fn piece(&self) -> Piece<'_> {
        Piece {
            session: &self.session,
            sequence: self.first,
            last: self.last,
            start: self.start,
            end: self.end,
            gap: self.gap.as_deref(),
            steps: self.steps,
        }
    }
}

/// Returns the runs of chunks that [`super::chunk::sorted`] has sorted. Sessions that overlap have separate runs.
pub(super) fn of(chunks: &[Chunk]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut open: HashMap<&str, (usize, &Chunk)> = HashMap::new();
    for chunk in chunks {
        let known = open.get(chunk.meta.session.as_str());
        let at = known
            .filter(|(_, last)| last.is_followed_by(chunk) && !chunk.steps())
            .map(|(at, _)| *at);
        let at = at.unwrap_or(runs.len());
        if let Some(run) = runs.get_mut(at) {
            run.last = chunk.meta.sequence;
            run.end = run.end.max(chunk.meta.end);
        } else {
            runs.push(chunk.into());
        }
        open.insert(&chunk.meta.session, (at, chunk));
    }
    // They stay in memory for hours, and an hour usually has a single run.
    runs.shrink_to_fit();
    runs
}

#[cfg(test)]
mod tests {
    use gcstreamer_schema::GapReason;
    use gcstreamer_schema::metadata::Gap;

    use super::super::chunk::sorted;
    use super::super::chunk::tests::{SECOND, chunk};
    use super::super::timeline::Timeline;
    use super::*;

    fn timeline(runs: &[Run]) -> Timeline {
        Timeline::of_pieces(&runs.iter().map(Run::piece).collect::<Vec<_>>())
    }

    #[test]
    fn runs_show_the_gaps_that_the_chunks_show() {
        let mut chunks: Vec<Chunk> = (0..20).map(|q| chunk(0, q, q as f64 * 10.2, 10.0)).collect();
        assert_eq!(of(&chunks).len(), 1);
        chunks.remove(7);
        chunks[12].meta.gap = Some(Gap::Known(GapReason::Stalled));
        chunks[15].meta.clock_step_ms = Some(3_600_000);
        for later in &mut chunks[15..] {
            later.meta.start += 3600 * SECOND;
            later.meta.end += 3600 * SECOND;
        }
        chunks.extend((0..5).map(|q| chunk(1, q, 100.0 + q as f64 * 10.0, 10.0)));
        chunks.extend((0..5).map(|q| chunk(2, q, 300.0 + q as f64 * 10.0, 10.0)));
        let chunks = sorted(chunks);
        let runs = of(&chunks);
        assert_eq!(runs.len(), 6);
        assert_eq!(timeline(&runs), Timeline::of(&chunks));
        // In two parts, as hours are listed.
        let (a, b) = chunks.split_at(11);
        let mut apart = [of(a), of(b)].concat();
        apart.sort();
        assert_eq!(timeline(&apart), Timeline::of(&chunks));
    }
}
