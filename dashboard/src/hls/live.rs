//! The live playlist: which session it shows, which of its chunks, and the numbers that they get.
//!
//! PURE. Source: RFC 8216 sections 6.2.1 and 6.2.2: the media sequence number of a segment never changes and never decreases, or players
//! stop (ffmpeg reads nothing until the old number is reached again).
//!
//! - The numbers follow from the stored chunks alone: the start of the session and the sequence in it. Two dashboards behind one address,
//!   or one that was restarted, give the same numbers.
//! - That is not enough where the playlist returns to a session that began before the one shown: of two recorders of a camera the later one
//!   ends, or a clock that was ahead is set right. [`Numbers`] remembers what was given, and raises the numbers of what follows.

use std::collections::BTreeMap;

use gcstreamer_schema::session::session_start;

use super::playlist::{Playing, Style, Ways, head, playing};
use crate::index::Chunk;
use crate::index::freshness::RUNNING;

/// Maximum number of segments in a live playlist.
const LIVE_SEGMENTS: usize = 8;
/// Media sequence numbers per second between the starts of two sessions. Chunks are longer than 100 ms, so a session has used fewer
/// numbers than this when the next one begins.
const NUMBERS_PER_SECOND: u64 = 10;
/// A session gets a discontinuity number of its own if it begins this many media sequence numbers (2 s) after the one before: a camera
/// that is lost at once is back after a second at the earliest, and then connects.
const NUMBERS_PER_DISCONTINUITY: u64 = 2 * NUMBERS_PER_SECOND;
/// Discontinuity numbers wrap around here, after a day and a half: hls.js has an array as long as the number, which it walks through at
/// every playlist. With the seconds since 1970 a page froze for a minute.
const DISCONTINUITIES: u64 = 65_536;
/// Time that a live playlist waits for a chunk that others have overtaken, ns.
pub const LIVE_PATIENCE: u64 = 3_000_000_000;
/// The same by the clock, ns: the chunks may be from an older listing, which lacks what was stored within the patience.
pub const LIVE_WAIT: u64 = LIVE_PATIENCE + RUNNING;

/// What was added to the numbers of a session because those given before were higher, and how far they have come.
#[derive(Clone, Debug, Default)]
struct Given {
    session: String,
    media_offset: u64,
    discontinuity_offset: u64,
    /// One above the highest media sequence number that was given.
    media_end: u64,
    /// The highest discontinuity number that was given, before it wraps around.
    discontinuity: u64,
    /// When the newest chunk listed then was stored, ns since the Unix epoch.
    newest: u64,
}

/// The numbers that the live playlist of one camera has given: they never decrease while this is kept.
#[derive(Clone, Debug, Default)]
pub struct Numbers {
    shown: Option<Given>,
    /// The session shown before it, for requests that were answered from an older listing.
    before: Option<Given>,
}

/// The numbers of a playlist by the stored chunks alone.
#[derive(Clone, Copy, Debug)]
pub struct Own {
    media_sequence: u64,
    discontinuity: u64,
    segments: u64,
    /// `EXT-X-DISCONTINUITY` tags among the segments.
    breaks: u64,
}

impl Numbers {
    /// Returns media sequence number and discontinuity number of a playlist of `session`, from a listing whose newest chunk was stored at
    /// `newest`.
    pub fn give(&mut self, session: &str, own: Own, newest: u64) -> (u64, u64) {
        let is_older = self.shown.as_ref().is_some_and(|shown| newest < shown.newest);
        if is_older && let Some(before) = self.before.as_mut().filter(|before| before.session == session) {
            return before.extend(own, newest);
        }
        if let Some(shown) = self.shown.as_mut().filter(|shown| shown.session == session) {
            return shown.extend(own, newest);
        }
        let last = self.shown.take();
        let mut given = Given {
            session: session.to_owned(),
            ..Given::default()
        };
        if let Some(last) = &last {
            given.media_offset = last.media_end.saturating_sub(own.media_sequence);
            given.discontinuity_offset = (last.discontinuity + 1).saturating_sub(own.discontinuity);
        }
        let numbers = given.extend(own, newest);
        (self.before, self.shown) = (last, Some(given));
        numbers
    }
}

impl Given {
    fn extend(&mut self, own: Own, newest: u64) -> (u64, u64) {
        let media = own.media_sequence.saturating_add(self.media_offset);
        let discontinuity = own.discontinuity.saturating_add(self.discontinuity_offset);
        self.media_end = self.media_end.max(media.saturating_add(own.segments));
        self.discontinuity = self.discontinuity.max(discontinuity.saturating_add(own.breaks));
        self.newest = self.newest.max(newest);
        (media, discontinuity % DISCONTINUITIES)
    }
}

/// Returns the session that a live playlist shows: the one recorded last (a clock that was ahead does not count). Of several that are
/// recorded at the same time it is the one that began last, whichever stored a chunk last, so that the playlist does not alternate.
fn running(chunks: &[Chunk]) -> Option<&str> {
    /// When its first chunk was stored, and its newest.
    type Session<'a> = (u64, &'a Chunk);
    let mut sessions: BTreeMap<&str, Session<'_>> = BTreeMap::new();
    for chunk in chunks {
        let known = sessions.entry(&chunk.meta.session).or_insert((chunk.created, chunk));
        known.0 = known.0.min(chunk.created);
        known.1 = std::cmp::max_by_key(known.1, chunk, |chunk| (chunk.ended(), chunk.created));
    }
    let newest = sessions.values().map(|(_, chunk)| chunk.ended()).max()?;
    let runs = |chunk: &Chunk| newest - chunk.ended() <= chunk.meta.duration.saturating_mul(3).saturating_add(LIVE_PATIENCE);
    let began = |session: &str, first: u64| session_start(session).unwrap_or(u64::MAX).min(first);
    let running = sessions.into_iter().filter(|(_, (_, chunk))| runs(chunk));
    running
        .max_by_key(|(session, (first, _))| (began(session, *first), *session))
        .map(|(session, _)| session)
}

/// Takes out chunks that were stored more than [`LIVE_PATIENCE`] after one with a higher sequence number, of chunks of one session sorted
/// by sequence number: they come too late for the numbers that were given.
fn in_time<'a>(chunks: &[&'a Chunk]) -> Vec<&'a Chunk> {
    let mut earliest_after = u64::MAX;
    let mut in_time: Vec<&Chunk> = Vec::new();
    for chunk in chunks.iter().rev() {
        if chunk.created <= earliest_after.saturating_add(LIVE_PATIENCE) {
            in_time.push(chunk);
        }
        earliest_after = earliest_after.min(chunk.created);
    }
    in_time.reverse();
    in_time
}

/// Returns a playlist that follows a running recording at `now` (ns since the Unix epoch), with the numbers that `give` returns, as
/// [`Numbers::give`] does; it is called once. `None`: there is nothing to follow.
///
/// It shows the [session that runs](running), up to the newest chunk that either follows on or has waited [`LIVE_WAIT`] for those before
/// it. A chunk stored later than [`LIVE_PATIENCE`] after one with a higher number never enters, so no number is given twice.
pub fn live(chunks: &[Chunk], now: u64, style: Style<'_>, give: impl FnOnce(&str, Own, u64) -> (u64, u64)) -> Option<String> {
    let session = running(chunks)?;
    let mut ours: Vec<&Chunk> = chunks
        .iter()
        .filter(|c| c.meta.session == session && playing(c) != Playing::Not)
        .collect();
    ours.sort_by_key(|chunk| chunk.meta.sequence);
    ours.dedup_by_key(|chunk| chunk.meta.sequence);
    let in_time = in_time(&ours);
    // A hole at the end that may still fill: what is behind it waits.
    let waits =
        |pair: &[&Chunk]| pair[0].meta.sequence + 1 != pair[1].meta.sequence && now < pair[1].created.saturating_add(LIVE_WAIT);
    let end = in_time.windows(2).position(waits).map_or(in_time.len(), |at| at + 1);
    let shown = in_time.get(..end)?;
    // Only this session is listed: what earlier ones are must not change how it is played when they leave the last hour.
    let ways = Ways::of(chunks, shown);
    // Numbers stand for what is listed one behind the other: after a missing chunk the window starts again.
    let follows = |pair: &[&Chunk]| pair[0].meta.sequence + 1 == pair[1].meta.sequence;
    let run = shown.windows(2).rposition(|pair| !follows(pair)).map_or(0, |at| at + 1);
    let begin = run.max(shown.len().saturating_sub(LIVE_SEGMENTS));
    let window = shown.get(begin..)?;
    let first = window.first()?;
    let base = session_start(session).unwrap_or(0) / (1_000_000_000 / NUMBERS_PER_SECOND);
    // Discontinuities within the session, as far back as is listed, count, too (RFC 8216 section 6.2.2).
    let breaks = |range: &[&Chunk]| {
        let breaks = range.windows(2).filter(|pair| !ways.goes_on(pair[0], pair[1]));
        u64::try_from(breaks.count()).unwrap_or(0)
    };
    let own = Own {
        media_sequence: base.saturating_add(first.meta.sequence),
        discontinuity: base / NUMBERS_PER_DISCONTINUITY + breaks(shown.get(..=begin)?),
        segments: u64::try_from(window.len()).unwrap_or(0),
        breaks: breaks(window),
    };
    let newest = chunks.iter().map(|chunk| chunk.created).max()?;
    let (media_sequence, discontinuity) = give(session, own, newest);
    let mut out = head((window, &ours), &ways, media_sequence, Some(discontinuity));
    style.body(&mut out, window, &ways);
    Some(out)
}
