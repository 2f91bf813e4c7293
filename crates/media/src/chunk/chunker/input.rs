//! From bytes to marks: detects the container, runs its scanner, and dispatches what the scanner finds.
//!
//! PURE.

use super::{ChunkState, Chunker};
use crate::chunk::{Event, GapReason, Warning};
use crate::container::detect::{Detection, detect};
use crate::container::raw::Raw;
use crate::container::{Container, Fault, Mark, MarkKind, Notice, Scanner, scanner_for};

/// The scanner, or what is needed to choose one.
#[derive(Default)]
pub(super) struct Input {
    /// The container that the caps name. Used if the first bytes match no known container.
    pub(super) hint: Option<Container>,
    pub(super) scanner: Option<Box<dyn Scanner>>,
    /// The first bytes, until the container is known.
    pub(super) probe: Vec<u8>,
    /// Reused for every buffer: scanning allocates nothing per buffer.
    pub(super) marks: Vec<Mark>,
}

impl Input {
    /// Returns the offset below which everything is decided; `None` before the container is known.
    #[inline]
    pub(super) fn settled(&self) -> Option<u64> {
        self.scanner.as_ref().map(|s| s.settled())
    }

    /// Returns the container, or [`Container::Raw`] while it is unknown.
    pub(super) fn container(&self) -> Container {
        self.scanner.as_ref().map_or(Container::Raw, |s| s.container())
    }

    /// Returns what the scanner adds to every time, in ns.
    pub(super) fn origin(&self) -> u64 {
        self.scanner.as_ref().map_or(0, |s| s.origin())
    }

    /// Returns the resolution of the timestamps, in ns.
    pub(super) fn resolution(&self) -> u64 {
        self.scanner.as_ref().map_or(0, |s| s.resolution())
    }
}

impl Chunker {
    #[inline]
    pub(super) fn scan(&mut self, data: &[u8], events: &mut Vec<Event>) -> Result<(), Fault> {
        if self.input.scanner.is_some() {
            return self.feed(data, events);
        }
        self.input.probe.extend_from_slice(data);
        // A slow stream is not held back until the probe is long enough: what has come decides.
        let arrival = self.undecided.first_stamp().zip(self.undecided.last_stamp());
        let is_slow = arrival.is_some_and(|(first, last)| first.arrived_before(&last) >= self.limits.patience());
        self.detect(is_slow, events)
    }

    /// Chooses a scanner once the first bytes suffice. `complete` means that no more will come.
    pub(super) fn detect(&mut self, complete: bool, events: &mut Vec<Event>) -> Result<(), Fault> {
        let container = match detect(&self.input.probe, complete) {
            Detection::More => return Ok(()),
            Detection::Is(container) => container,
            // The bytes decide: caps count only if the bytes match no known container.
            Detection::Unknown => self.input.hint.unwrap_or(Container::Raw),
        };
        if container == Container::Raw {
            self.warn(Warning::UnknownContainer, events);
        }
        self.input.scanner = Some(scanner_for(container));
        let probe = std::mem::take(&mut self.input.probe);
        self.feed(&probe, events)
    }

    fn feed(&mut self, data: &[u8], events: &mut Vec<Event>) -> Result<(), Fault> {
        let Some(scanner) = &mut self.input.scanner else {
            return Ok(());
        };
        // Taken out and put back, since `mark` borrows all of `self`: the allocation is kept.
        let mut marks = std::mem::take(&mut self.input.marks);
        let outcome = scanner
            .push(data, &mut marks)
            .or_else(|fault| self.replace_scanner(fault, &mut marks, events));
        self.apply(marks, events);
        outcome
    }

    /// Handles the marks of a scanner, and keeps their buffer for the next call.
    pub(super) fn apply(&mut self, mut marks: Vec<Mark>, events: &mut Vec<Event>) {
        for mark in marks.drain(..) {
            self.mark(mark, events);
        }
        self.input.marks = marks;
    }

    /// Replaces a scanner that returned a fault, since it must not be used again.
    ///
    /// # Errors
    /// Returns `fault` unless the stream can be stored unparsed.
    fn replace_scanner(&mut self, fault: Fault, marks: &mut Vec<Mark>, events: &mut Vec<Event>) -> Result<(), Fault> {
        let Fault::Programs(programs) = fault else {
            // The recording stops with an error; the bytes received so far still become a chunk.
            self.input.scanner = Some(Box::new(Raw::at(self.undecided.bytes.end())));
            return Err(fault);
        };
        self.warn(Warning::Programs(programs), events);
        let base = self.undecided.bytes.base();
        // Not below the last mark of the old scanner: marks must be in order.
        let from = marks.last().map_or(base, |m| m.at).max(base);
        let rest = usize::try_from(self.undecided.bytes.end() - from).unwrap_or(0);
        let mut raw = Raw::at(from);
        // The bytes themselves are queued already; one unit covers all of them.
        let outcome = raw.pass(rest, marks);
        self.input.scanner = Some(Box::new(raw));
        outcome
    }

    pub(super) fn mark(&mut self, mark: Mark, events: &mut Vec<Event>) {
        match mark.kind {
            MarkKind::Unit(unit) => self.unit(mark.at, unit, events),
            MarkKind::PictureEnd => self.picture_end(mark.at),
            MarkKind::Damage => {
                self.next.gap.get_or_insert(GapReason::Damage);
                // Confine the damage to this chunk: the next key unit begins another.
                self.next.cut_from.get_or_insert(mark.at);
                self.warn(Warning::Damage(mark.at), events);
            }
            MarkKind::StreamsChanged => {
                self.next.cut_from.get_or_insert(mark.at);
            }
            MarkKind::Notice(Notice::NoParameterSets) => self.warn(Warning::NoParameterSets, events),
            MarkKind::Notice(Notice::NoSequenceHeader) => self.warn(Warning::NoSequenceHeader, events),
            MarkKind::Notice(Notice::NoObjectLayer) => self.warn(Warning::NoObjectLayer, events),
            MarkKind::Notice(Notice::NoProgram) => self.warn(Warning::NoProgram, events),
            MarkKind::Notice(Notice::Unaligned) => self.warn(Warning::Unaligned, events),
            MarkKind::Notice(Notice::OpenGop) => self.warn(Warning::OpenGop, events),
        }
    }

    /// Notes that the picture of the last key unit ends at `at`. In a chunk that begins with a key unit, the first such end is
    /// the end of its preview.
    fn picture_end(&mut self, at: u64) {
        if let Some(last) = &mut self.last {
            last.picture_end = Some(at);
        }
        if let ChunkState::Open(open) = &mut self.state
            && open.first.is_some_and(|first| first.key.is_key())
        {
            open.preview_end.get_or_insert(at);
        }
    }
}
