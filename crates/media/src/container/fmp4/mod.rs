//! Fragmented MP4 (ISO/IEC 14496-12): where a recording may be cut into files that each play.
//!
//! PURE. The init segment (the *head*: `ftyp`, `moov` and everything up to the first fragment) goes before every chunk. A
//! unit is a fragment: `[styp sidx prft emsg]* moof mdat`. Whether a video fragment is a key unit is read from its first
//! sample, see `lookahead`, which also assigns the fragments of other tracks. The rest of an `mdat` is skipped.
//!
//! - **Which tracks count**: only the first video track and, of several audio tracks, the first that has samples give cuts and
//!   times. The fragments of the others stay where they are in the stream.
//! - **Times** are the decode times of `tfdt` plus composition offset, moved by the track's edit list (its empty edits
//!   and the first real one). A `tfdt` of 32 bits is unwrapped. Without a `tfdt`, a fragment starts where the last one ended.
//! - **A new `moov`** that differs from the one in force begins a chunk at its `ftyp`. Such a chunk needs no init: its payload
//!   begins with its own. A `moov` equal to the one in force, apart from its times and lengths, is ignored.
//! - **Cannot be cut**: a `moov` that holds samples (for example `ffmpeg -movflags frag_keyframe` without `empty_moov`),
//!   one without `mvex`, an `mdat` before any `moov` ([`Fault::Unfragmented`], before anything is stored), and
//!   fragments that name file offsets ([`Fault::BaseDataOffset`]).
//! - **Damage** before the first fragment, including an unreadable `moov`, is payload of the first chunk. After an impossible
//!   box header, reading continues at the next plausible `moof`, `moov`, `ftyp` or `styp`.
//!
//! Files: `top` and `boxes` walk the boxes, `init_segment` and `moov` read the head, `sample_entry` the codec, `moof` a
//! fragment; `lookahead` and `pending` hold fragments back until they are classified; `samples` reads the samples of a chunk.

mod boxes;
mod init_segment;
mod lookahead;
mod moof;
mod moov;
mod pending;
mod sample_entry;
pub(super) mod samples;
#[cfg(test)]
pub(crate) mod test_stream;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_pictures;
mod top;

use crate::container::{Container, Fault, Mark, MarkKind, Scanner, work};

use boxes::{FourCc, HEADER, LANDMARK, Lead, Parsed};
use init_segment::{InitBuilder, InitSegment};
use lookahead::Lookahead;
use moof::Times;

/// What the next bytes are.
#[derive(Clone, Copy, Debug)]
enum Expecting {
    /// A box header, or the rest of one.
    Header,
    /// The rest of a `moof`, which ends at `end`.
    Moof { header_len: usize, end: u64 },
    /// The rest of a box that ends at `end` (`None`: with the input).
    Body {
        kind: FourCc,
        header_len: usize,
        end: Option<u64>,
    },
    /// Damaged bytes, until a landmark ([`boxes::is_landmark`]).
    Search,
    /// The rest of a box that ends at `end` (`None`: with the input). Nothing confirms its size, so a fragment that begins in it
    /// ends it.
    Doubt { kind: FourCc, end: Option<u64> },
    /// The rest of an `mdat` that is longer than its `moof` states. Checks whether the next fragment begins here instead, with
    /// its `moof` or with boxes in front of it. `end` is the end that the `mdat` claims.
    Verify { end: Option<u64> },
}

/// Most bytes searched at once. Limits what is copied to join them with the tail of the previous search.
const BLOCK: usize = 4096;

/// Scanner of fragmented MP4.
#[derive(Debug)]
pub struct Fmp4 {
    /// Bytes taken so far.
    pos: u64,
    expecting: Expecting,
    /// Where the box being read begins.
    box_at: u64,
    /// Bytes gathered of a header, a `moof`, or a place that may be a landmark.
    gathered: Vec<u8>,
    /// Where the boxes in front of the next `moof` begin that belong to it.
    prefix_at: Option<u64>,
    init_builder: Option<InitBuilder>,
    init_segment: Option<InitSegment>,
    times: Times,
    lookahead: Lookahead,
    /// Whether the last fragment's content has not ended.
    is_open: bool,
    /// Whether a fragment could be read.
    has_fragments: bool,
    /// Whether the input begins in mid-stream, or was damaged: content without a head is then no proof of an unfragmented MP4.
    is_joined: bool,
    /// Where the data of the last `moof` end.
    data_end: Option<u64>,
    /// The end that the current `mdat` claims, while it is read up to `data_end` only. Inner `None`: the end of the input.
    claimed: Option<Option<u64>>,
    /// End of the bytes of damaged fragments that have been searched for other fragments: every byte is searched once.
    searched_to: u64,
    /// End of the bytes in which boxes have been followed behind the data of a fragment whose `mdat` claims more.
    verified_to: u64,
    /// The last sync sample of video was not the first of its fragment.
    encloses_keys: bool,
}

impl Default for Fmp4 {
    fn default() -> Self {
        Self::new()
    }
}

impl Fmp4 {
    /// Returns a scanner at the start of the input.
    pub fn new() -> Self {
        Self {
            pos: 0,
            expecting: Expecting::Header,
            box_at: 0,
            gathered: Vec::new(),
            prefix_at: None,
            init_builder: Some(InitBuilder::at(0)),
            init_segment: None,
            times: Times::default(),
            lookahead: Lookahead::default(),
            is_open: false,
            has_fragments: false,
            is_joined: false,
            data_end: None,
            claimed: None,
            searched_to: 0,
            verified_to: 0,
            encloses_keys: false,
        }
    }

    /// Takes all of `data`.
    fn feed(&mut self, mut data: &[u8], marks: &mut Vec<Mark>) -> Result<(), Fault> {
        while !data.is_empty() {
            data = match self.expecting {
                Expecting::Header => self.feed_header(data, marks)?,
                Expecting::Moof { header_len, end } => self.feed_moof(data, header_len, end, marks)?,
                Expecting::Body { kind, header_len, end } => self.feed_box(data, kind, header_len, end, marks)?,
                Expecting::Search => self.feed_search(data),
                Expecting::Doubt { kind, end } => self.feed_doubt(data, kind, end, marks),
                Expecting::Verify { end } => self.feed_verify(data, end, marks)?,
            };
        }
        Ok(())
    }

    /// Fills `gathered` up to `want` bytes. Returns the rest of `data`, and whether `gathered` has `want` bytes.
    fn gather<'a>(&mut self, data: &'a [u8], want: usize) -> (&'a [u8], bool) {
        let missing = want.saturating_sub(self.gathered.len());
        let (taken, rest) = data.split_at_checked(missing).unwrap_or((data, &[]));
        self.gathered.extend_from_slice(taken);
        self.pos += taken.len() as u64;
        (rest, self.gathered.len() >= want)
    }

    fn feed_header<'a>(&mut self, data: &'a [u8], marks: &mut Vec<Mark>) -> Result<&'a [u8], Fault> {
        if self.gathered.is_empty() {
            self.box_at = self.pos;
        }
        let mut rest = data;
        let mut want = 8;
        loop {
            let complete;
            (rest, complete) = self.gather(rest, want);
            if !complete {
                return Ok(rest);
            }
            match boxes::header(&self.gathered) {
                Parsed::More(more) => want = more,
                Parsed::Bad => {
                    self.damaged(self.box_at, marks);
                    return Ok(rest);
                }
                Parsed::Header(header) => {
                    // Copied out, since `open_box` may gather again.
                    let mut first = [0; LANDMARK];
                    let len = self.gathered.len().min(LANDMARK);
                    for (to, from) in first.iter_mut().zip(self.gathered.drain(..)) {
                        *to = from;
                    }
                    self.open_box(header, first.get(..len).unwrap_or_default(), marks)?;
                    return Ok(rest);
                }
            }
        }
    }

    fn feed_box<'a>(
        &mut self,
        data: &'a [u8],
        kind: FourCc,
        header_len: usize,
        end: Option<u64>,
        marks: &mut Vec<Mark>,
    ) -> Result<&'a [u8], Fault> {
        let left = end.map_or(usize::MAX, |end| {
            usize::try_from(end - self.pos.min(end)).unwrap_or(usize::MAX)
        });
        let (taken, rest) = data.split_at_checked(left).unwrap_or((data, &[]));
        if &kind == b"mdat" {
            self.lookahead.content(self.pos, taken, marks);
        } else if let Some(builder) = &mut self.init_builder {
            builder.extend(taken);
        }
        self.pos += taken.len() as u64;
        if taken.len() == left {
            self.close_box(kind, header_len, marks)?;
        }
        Ok(rest)
    }

    fn feed_moof<'a>(&mut self, data: &'a [u8], header_len: usize, end: u64, marks: &mut Vec<Mark>) -> Result<&'a [u8], Fault> {
        let want = usize::try_from(end.saturating_sub(self.box_at)).unwrap_or(usize::MAX);
        let (rest, complete) = self.gather(data, want);
        if complete {
            self.expecting = Expecting::Header;
            self.close_moof(header_len, marks)?;
        }
        Ok(rest)
    }

    /// Runs when all data of a fragment are read but its `mdat` claims more. Boxes here that lead to the next fragment show that
    /// the claim is wrong.
    fn feed_verify<'a>(&mut self, data: &'a [u8], end: Option<u64>, marks: &mut Vec<Mark>) -> Result<&'a [u8], Fault> {
        let (mut rest, mut want) = (data, HEADER);
        let is_contradicted = loop {
            let complete;
            (rest, complete) = self.gather(rest, want);
            if !complete {
                return Ok(rest);
            }
            let at = self.pos - self.gathered.len() as u64;
            let claimed = end.and_then(|end| usize::try_from(end.saturating_sub(at)).ok());
            work::count(LANDMARK);
            match boxes::lead(&self.gathered, claimed) {
                // Bytes gathered for an earlier check are not gathered again, so that every byte is read twice at most.
                Lead::More(more) if more <= LANDMARK || at >= self.verified_to => want = more,
                Lead::More(_) | Lead::Elsewhere => break false,
                Lead::Fragment => break true,
            }
        };
        let gathered = std::mem::take(&mut self.gathered);
        self.verified_to = self.verified_to.max(self.pos);
        // Read the bytes again below, now that it is known what they are.
        self.pos -= gathered.len() as u64;
        if is_contradicted {
            self.lookahead.release(marks);
            self.is_open = false;
            self.expecting = Expecting::Header;
            marks.push(Mark {
                at: self.pos,
                kind: MarkKind::Damage,
            });
        } else {
            self.expecting = Expecting::Doubt { kind: *b"mdat", end };
        }
        self.feed(&gathered, marks)?;
        Ok(rest)
    }

    /// Skips a box whose size nothing confirms. A fragment that begins in it contradicts the size and ends the box.
    fn feed_doubt<'a>(&mut self, data: &'a [u8], kind: FourCc, end: Option<u64>, marks: &mut Vec<Mark>) -> &'a [u8] {
        let left = end.map_or(u64::MAX, |end| end.saturating_sub(self.pos));
        let left = usize::try_from(left).unwrap_or(usize::MAX);
        let (rest, _) = self.gather(data, BLOCK.min(self.gathered.len().saturating_add(left)));
        let is_over = end.is_some_and(|end| self.pos >= end);
        work::count(self.gathered.len());
        let found = self.gathered.windows(LANDMARK).position(boxes::is_fragment);
        // A landmark may lie across two slices.
        let keep = if is_over { 0 } else { LANDMARK - 1 };
        let passed = found.unwrap_or(self.gathered.len().saturating_sub(keep));
        let at = self.pos - self.gathered.len() as u64;
        if &kind == b"mdat" {
            self.lookahead
                .content(at, self.gathered.get(..passed).unwrap_or_default(), marks);
        }
        if found.is_none() {
            self.gathered.drain(..passed);
            if is_over {
                self.is_open &= &kind != b"mdat";
                self.expecting = Expecting::Header;
            }
            return rest;
        }
        self.lookahead.release(marks);
        self.prefix_at = None;
        self.is_open = false;
        self.expecting = Expecting::Header;
        marks.push(Mark {
            at: at + passed as u64,
            kind: MarkKind::Damage,
        });
        self.give_back(data, rest, passed)
    }

    /// Begins a box at `at` in `gathered`. Returns the bytes of `data` after the landmark of the box. All bytes taken beyond the
    /// landmark are in `data`, since the landmark ends in it.
    fn give_back<'a>(&mut self, data: &'a [u8], rest: &'a [u8], at: usize) -> &'a [u8] {
        let keep = at + LANDMARK;
        let back = self.gathered.len().saturating_sub(keep);
        self.gathered.truncate(keep);
        self.gathered.drain(..at);
        self.pos -= back as u64;
        self.box_at = self.pos - LANDMARK as u64;
        data.get((data.len() - rest.len()).saturating_sub(back)..).unwrap_or(rest)
    }

    /// Looks for the next landmark.
    fn feed_search<'a>(&mut self, data: &'a [u8]) -> &'a [u8] {
        let (rest, _) = self.gather(data, BLOCK);
        work::count(self.gathered.len());
        match self.gathered.windows(LANDMARK).position(boxes::is_landmark) {
            Some(i) => {
                self.expecting = Expecting::Header;
                self.give_back(data, rest, i)
            }
            None => {
                // A landmark may lie across two slices.
                let tail = self.gathered.len().saturating_sub(LANDMARK - 1);
                self.gathered.drain(..tail);
                rest
            }
        }
    }
}

impl Scanner for Fmp4 {
    fn push(&mut self, data: &[u8], marks: &mut Vec<Mark>) -> Result<(), Fault> {
        self.feed(data, marks)
    }

    fn finish(&mut self, marks: &mut Vec<Mark>) {
        self.lookahead.release(marks);
        self.restart();
    }

    fn settled(&self) -> u64 {
        let open = match self.expecting {
            Expecting::Header | Expecting::Search | Expecting::Doubt { .. } | Expecting::Verify { .. } => {
                self.pos - self.gathered.len() as u64
            }
            Expecting::Moof { .. } => self.box_at,
            // A `moov` may begin a chunk until it has been compared as a whole.
            Expecting::Body { kind, .. } if &kind == b"moov" => self.box_at,
            Expecting::Body { .. } => self.pos,
        };
        // A head in mid-stream may begin a chunk too, at its `ftyp`.
        let head = self
            .init_builder
            .as_ref()
            .filter(|g| self.is_running() && !g.is_found())
            .map(|g| g.at);
        [Some(open), self.lookahead.start(), self.prefix_at, head]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(open)
    }

    fn release(&mut self, marks: &mut Vec<Mark>) {
        self.lookahead.flush_run(marks);
    }

    fn give_up(&mut self, marks: &mut Vec<Mark>) {
        self.lookahead.release(marks);
    }

    fn whole(&self) -> u64 {
        let unit = if self.is_open { self.lookahead.last_at } else { None };
        self.settled().min(unit.unwrap_or(u64::MAX))
    }

    fn encloses_keys(&self) -> bool {
        self.encloses_keys
    }

    fn restart(&mut self) {
        self.is_open = false;
        self.data_end = None;
        self.claimed = None;
        self.lookahead.forget();
        self.prefix_at = None;
        // A partly read box is no part of the head.
        let end = if matches!(self.expecting, Expecting::Header) && self.gathered.is_empty() {
            self.pos
        } else {
            self.box_at
        };
        self.finish_head(end);
        self.gathered.clear();
        self.expecting = Expecting::Header;
        if self.init_segment.is_none() {
            self.init_builder = (!self.lookahead.has_begun).then(|| InitBuilder::at(self.pos));
            self.is_joined = true;
        }
    }

    fn missing_head(&self) -> Option<Fault> {
        if self.init_segment.is_some() || self.init_builder.as_ref().is_some_and(InitBuilder::is_found) {
            return None;
        }
        Some(if self.is_joined { Fault::NoHead } else { Fault::Unfragmented })
    }

    fn container(&self) -> Container {
        Container::Fmp4
    }

    fn origin(&self) -> u64 {
        moov::ORIGIN
    }

    fn resolution(&self) -> u64 {
        self.init_segment.as_ref().map_or(1, |config| config.movie.resolution())
    }
}
