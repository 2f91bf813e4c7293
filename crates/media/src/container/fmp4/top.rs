//! Handles the start and end of each box at the top level.
//!
//! PURE.

use crate::container::{Fault, MAX_GATHER, Mark, MarkKind, Unit};

use super::boxes::{FourCc, Header, SURE};
use super::init_segment::{InitBuilder, MoovOutcome};
use super::lookahead::MAX_HELD_BYTES;
use super::moof::{self, Fragment, Times};
use super::{Expecting, Fmp4, moov};

impl Fmp4 {
    /// Begins a box. `gathered` is its header, and after a search the first bytes of its content too.
    pub(super) fn open_box(&mut self, header: Header, gathered: &[u8], marks: &mut Vec<Mark>) -> Result<(), Fault> {
        let at = self.box_at;
        let end = header.size.map(|size| at.saturating_add(size));
        let last = end.unwrap_or(u64::MAX);
        let kind = header.kind;
        let mut is_confirmed = false;
        self.expecting = Expecting::Body {
            kind,
            header_len: header.len,
            end,
        };
        match &kind {
            b"styp" | b"sidx" | b"prft" | b"emsg" => self.open_prefix(at, last, marks),
            b"moof" => {
                self.open_moof(at, last, header.len, marks);
                if let Expecting::Moof { .. } = self.expecting {
                    self.gathered.extend_from_slice(gathered);
                    // Takes no bytes, but closes a `moof` that consists of its header only.
                    return self.feed_moof(&[], header.len, last, marks).map(|_| ());
                }
            }
            b"mdat" => {
                // The `moof` before it states where the data end.
                is_confirmed = self.data_end.is_some();
                let last = self.believe(at.saturating_add(header.len as u64), end).unwrap_or(last);
                self.open_mdat(at, last, marks)?;
            }
            b"ftyp" => {
                self.lookahead.release(marks);
                self.prefix_at = None;
                if self.init_builder.as_ref().is_none_or(|g| g.is_found() || self.is_running()) {
                    self.finish_head(at);
                    self.init_builder = Some(InitBuilder::at(at));
                }
            }
            b"moov" => {
                if !self.open_moov(at, header.size.unwrap_or(u64::MAX), marks)? {
                    return Ok(());
                }
            }
            _ => {
                self.prefix_at = None;
                self.lookahead.passing(last, false, marks);
            }
        }
        self.extend_head(gathered, last.saturating_sub(at))?;
        if !is_confirmed && self.is_in_doubt(&kind, last.saturating_sub(at)) {
            // A search may have taken more than the header.
            let body = gathered.get(header.len..).unwrap_or_default();
            self.gathered.extend_from_slice(body);
            self.expecting = Expecting::Doubt { kind, end };
            return Ok(());
        }
        if end.is_some_and(|end| end <= self.pos) {
            self.close_box(kind, header.len, marks)?;
        }
        Ok(())
    }

    /// Returns whether the size of a box is large and unconfirmed. A `moov`, and all boxes of a head that is being gathered,
    /// count as confirmed, since the size of a head has its own limit.
    fn is_in_doubt(&self, kind: &FourCc, size: u64) -> bool {
        kind != b"moov" && size > SURE && self.init_builder.is_none()
    }

    /// Begins a box that belongs to the `moof` after it, if one follows.
    fn open_prefix(&mut self, at: u64, end: u64, marks: &mut Vec<Mark>) {
        self.lookahead.end_of_content(marks);
        if self.is_running() && self.init_builder.as_ref().is_some_and(|g| !g.is_found()) {
            // An `ftyp` that no `moov` follows is no head.
            self.init_builder = None;
        }
        let start = *self.prefix_at.get_or_insert(at);
        if end.saturating_sub(self.lookahead.start().unwrap_or(start)) > MAX_HELD_BYTES {
            self.lookahead.release(marks);
        }
        if end.saturating_sub(start) > MAX_HELD_BYTES {
            self.prefix_at = None;
        }
    }

    fn open_moof(&mut self, at: u64, end: u64, header_len: usize, marks: &mut Vec<Mark>) {
        self.lookahead.end_of_content(marks);
        let unit_at = self.prefix_at.unwrap_or(at);
        if self.init_segment.is_none() && !self.init_builder.as_ref().is_some_and(InitBuilder::is_found) {
            self.begin(unit_at, marks);
        }
        self.finish_head(unit_at);
        if self.init_segment.is_some() {
            self.prefix_at = Some(unit_at);
            self.expecting = Expecting::Moof { header_len, end };
            return;
        }
        // The recording started in mid-stream: the fragments cannot be read until a head comes.
        self.prefix_at = None;
        if !self.is_joined {
            self.is_joined = true;
            marks.push(Mark {
                at: unit_at,
                kind: MarkKind::Damage,
            });
        }
    }

    /// Compares the end that an `mdat` claims with the end of its data by its `moof`. If the `mdat` claims more, has it read up
    /// to the end of its data, and returns that end.
    fn believe(&mut self, body: u64, end: Option<u64>) -> Option<u64> {
        let data_end = self.data_end.take().filter(|&data_end| data_end > body)?;
        if end.is_some_and(|end| end <= data_end) {
            return None;
        }
        if let Expecting::Body { end: until, .. } = &mut self.expecting {
            *until = Some(data_end);
            self.claimed = Some(end);
        }
        Some(data_end)
    }

    fn open_mdat(&mut self, at: u64, end: u64, marks: &mut Vec<Mark>) -> Result<(), Fault> {
        self.prefix_at = None;
        let head_waits = self.init_builder.as_ref().is_some_and(InitBuilder::is_found);
        if self.init_segment.is_none() && !head_waits && !self.is_joined {
            // Fail before anything is stored: no part of such a file plays alone.
            return Err(Fault::Unfragmented);
        }
        if self.init_builder.is_some() {
            // An `mdat` without a `moof` before it.
            self.begin(at, marks);
            self.finish_head(at);
            marks.push(Mark {
                at,
                kind: MarkKind::Damage,
            });
        }
        self.lookahead.passing(end, true, marks);
        Ok(())
    }

    /// Begins a `moov`. Returns false if it is too large to be read and counts as damage.
    fn open_moov(&mut self, at: u64, size: u64, marks: &mut Vec<Mark>) -> Result<bool, Fault> {
        self.lookahead.release(marks);
        self.prefix_at = None;
        if self.init_builder.as_ref().is_some_and(InitBuilder::is_found) {
            self.finish_head(at);
        }
        let before = self.init_builder.as_ref().map_or(0, InitBuilder::len) as u64;
        let total = before.saturating_add(size);
        if total > MAX_GATHER as u64 {
            // After a head, a size over the limit is damage, not a fault: it must not stop the recording.
            if !self.is_running() {
                return Err(Fault::HeaderTooLarge(total));
            }
            self.damaged(at, marks);
            return Ok(false);
        }
        let config = self.init_segment.as_ref();
        self.init_builder
            .get_or_insert_with(|| InitBuilder::at_moov(at, config))
            .open_moov();
        Ok(true)
    }

    /// Adds bytes of the current box, of `size` bytes, to the head while one is being gathered.
    pub(super) fn extend_head(&mut self, data: &[u8], size: u64) -> Result<(), Fault> {
        let Some(builder) = &mut self.init_builder else {
            return Ok(());
        };
        let total = (builder.len() as u64).saturating_add(size);
        if total <= MAX_GATHER as u64 {
            builder.extend(data);
        } else if !self.is_running() {
            return Err(Fault::HeaderTooLarge(total));
        } else {
            self.finish_head(self.box_at);
        }
        Ok(())
    }

    /// Returns whether a head, or damage in its place, has passed: later heads are payload.
    pub(super) fn is_running(&self) -> bool {
        self.init_segment.is_some() || self.lookahead.has_begun
    }

    /// Begins the first unit at damage, unless a unit was emitted before.
    fn begin(&mut self, at: u64, marks: &mut Vec<Mark>) {
        if self.lookahead.has_begun {
            return;
        }
        if self.init_builder.as_ref().is_some_and(InitBuilder::is_found) {
            self.finish_head(at);
        }
        let head = match self.init_segment {
            None => Some(self.init_builder.take().map(|g| g.into_bytes(at)).unwrap_or_default()),
            Some(_) => None,
        };
        self.lookahead.begin(at, head, marks);
    }

    /// Ends the head that is being gathered before `at`. If it has its `moov`, it is in force from now on.
    pub(super) fn finish_head(&mut self, at: u64) {
        if let Some(config) = self.init_builder.take().and_then(|builder| builder.finish(at)) {
            self.lookahead.configure(config.init.clone());
            // Decode times do not continue from one head to the next.
            self.times = Times::default();
            self.init_segment = Some(config);
        }
    }

    pub(super) fn close_box(&mut self, kind: FourCc, header_len: usize, marks: &mut Vec<Mark>) -> Result<(), Fault> {
        self.expecting = Expecting::Header;
        if let Some(end) = self.claimed.take() {
            self.expecting = Expecting::Verify { end };
            return Ok(());
        }
        self.is_open &= &kind != b"mdat";
        if &kind != b"moov" {
            return Ok(());
        }
        let Some(builder) = &mut self.init_builder else {
            return Ok(());
        };
        match builder.close_moov(header_len, self.init_segment.as_ref()) {
            MoovOutcome::Same => self.init_builder = None,
            MoovOutcome::New(init) if self.init_segment.is_some() || self.lookahead.has_begun => {
                self.lookahead.has_begun = true;
                let unit = Unit::of_header(init);
                marks.push(Mark {
                    at: builder.at,
                    kind: MarkKind::Unit(unit),
                });
            }
            MoovOutcome::New(_) => {}
            // Only without any head: a `moov` with samples at the end of a recording must not stop it.
            MoovOutcome::Rejected(moov::MoovError::Unfragmented) if self.init_segment.is_none() => {
                return Err(Fault::Unfragmented);
            }
            MoovOutcome::Rejected(_) => {
                self.begin(self.box_at, marks);
                self.init_builder = None;
                self.is_joined = true;
                marks.push(Mark {
                    at: self.box_at,
                    kind: MarkKind::Damage,
                });
            }
        }
        Ok(())
    }

    pub(super) fn close_moof(&mut self, header_len: usize, marks: &mut Vec<Mark>) -> Result<(), Fault> {
        let unit_at = self.prefix_at.take().unwrap_or(self.box_at);
        let Some(config) = &mut self.init_segment else { return Ok(()) };
        let trafs = match moof::parse(
            self.gathered.get(header_len..).unwrap_or_default(),
            &config.movie,
            &self.times,
        ) {
            Ok(trafs) => trafs,
            // Only in the first fragment: later on it is more likely damage than a change of the muxer.
            Err(moof::MoofError::BaseDataOffset) if !self.has_fragments => return Err(Fault::BaseDataOffset),
            Err(_) => return self.close_damaged_moof(marks),
        };
        self.gathered.clear();
        self.has_fragments = true;
        self.is_open = true;
        self.times.advance(&config.movie, &trafs);
        // Before the tracks are summed up: an audio track that does not count must not give times.
        config.movie.choose_sound(&trafs);
        // `None` if a track is unknown: its default sizes are unknown too.
        self.data_end = trafs
            .iter()
            .map(|traf| traf.track.map(|_| traf.data_end))
            .collect::<Option<Vec<_>>>()
            .and_then(|ends| self.box_at.checked_add_signed(ends.into_iter().max()?));
        let fragment = Fragment::of(self.box_at, &trafs, &config.movie);
        let picture = fragment.and_then(|f| {
            let (track, sample) = f.picture?;
            Some((f, sample, &config.movie.tracks.get(track)?.entry))
        });
        // The last sync sample decides: one at the start of a fragment shows that the stream can be cut there.
        if let Some((f, sample, _)) = &picture
            && (sample.sync || f.encloses_key)
        {
            self.encloses_keys = !sample.sync;
        }
        match picture {
            Some((f, sample, entry)) => self.lookahead.video(unit_at, self.box_at, &f, sample, entry, marks),
            None => self.lookahead.other(unit_at, fragment, marks),
        }
        Ok(())
    }

    /// Searches the bytes of a damaged `moof` for other fragments, since its size may be what is damaged. Every byte is searched
    /// once, so that nested damage cannot make this quadratic.
    fn close_damaged_moof(&mut self, marks: &mut Vec<Mark>) -> Result<(), Fault> {
        let at = self.box_at;
        let moof = std::mem::take(&mut self.gathered);
        self.damaged(at, marks);
        if at < self.searched_to {
            self.expecting = Expecting::Header;
            return Ok(());
        }
        self.searched_to = self.pos;
        // From behind its header, or the same `moof` would be found again.
        self.pos = at.saturating_add(8);
        self.feed(moof.get(8..).unwrap_or_default(), marks)
    }

    /// Handles damage at `at`, where no box begins: searches for a landmark from there.
    pub(super) fn damaged(&mut self, at: u64, marks: &mut Vec<Mark>) {
        self.lookahead.release(marks);
        self.prefix_at = None;
        self.begin(at, marks);
        self.finish_head(at);
        self.is_joined = true;
        self.is_open = false;
        self.expecting = Expecting::Search;
        marks.push(Mark {
            at,
            kind: MarkKind::Damage,
        });
    }
}
