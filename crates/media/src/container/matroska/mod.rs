//! Scanner for Matroska and WebM (RFC 9559, EBML: RFC 8794).
//!
//! PURE. A chunk can begin at a Cluster; its header is the head of the document. It can also begin between the blocks of a
//! Cluster of unknown size; its header is then the head and a copy of the Cluster's header. It can never begin inside a Cluster
//! of known size. `head` gathers and neutralises everything before the first Cluster, `cluster` walks the blocks, `stream`
//! stores the configuration in force; this file moves between them.
//!
//! Special cases:
//! - A Cluster is a key unit if its first picture is a key frame, even if audio precedes that picture. Its unit is at
//!   the Cluster's start; [`Scanner::settled`] stays there until the picture has been classified.
//! - A head in mid-stream (concatenated streams) is payload: the unit there has an empty `init`.
//! - A change of in-band parameter sets inside a Cluster of known size causes no cut: no chunk can begin there, and the payload
//!   contains the sets anyway.
//!
//! Files beside these: `ebml` reads elements, `tracks` the streams, `block` a block; `held` holds blocks back until they are
//! classified; `unsure` handles sizes that may be wrong; `samples` reads the samples of a chunk.

mod block;
mod cluster;
mod ebml;
mod head;
mod held;
pub(super) mod samples;
mod stream;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod tests_forms;
#[cfg(test)]
mod tests_pictures;
mod tracks;
mod unsure;

use super::feed::{Feed, Step, len64};
use super::{Container, Fault, Init, Key, MAX_GATHER, Mark, MarkKind, Scanner, Track, Unit, work};
use cluster::{Cluster, MAX_ELEMENT};
use ebml::{Header, Read};
use head::{CLUSTER, Head, MAX_EBML_HEADER, SEGMENT, TRACKS};
use stream::Stream;
use tracks::Tracks;

/// Scanner for Matroska and WebM.
#[derive(Debug)]
pub struct Matroska {
    feed: Feed,
    parser: Parser,
}

impl Default for Matroska {
    fn default() -> Self {
        Self::new()
    }
}

impl Matroska {
    /// Creates a scanner at the EBML header of a document.
    pub fn new() -> Self {
        let position = Position::Head(Box::new(Head::new(0)));
        Self {
            feed: Feed::default(),
            parser: Parser {
                position,
                stream: Stream::new(),
                has_head: false,
                element_at: 0,
                unsure: None,
            },
        }
    }
}

impl Scanner for Matroska {
    fn push(&mut self, data: &[u8], marks: &mut Vec<Mark>) -> Result<(), Fault> {
        let parser = &mut self.parser;
        self.feed.push(data, |pos, view| parser.step(pos, view, marks))
    }

    fn finish(&mut self, marks: &mut Vec<Mark>) {
        let start = self.feed.pos();
        let rest = self.feed.take_rest();
        self.parser.finish(start, &rest, marks);
        self.parser.stream.passed(self.feed.pos(), marks);
    }

    fn settled(&self) -> u64 {
        self.parser.settled(self.feed.pos())
    }

    fn release(&mut self, marks: &mut Vec<Mark>) {
        if let Position::Cluster(cluster) = &mut self.parser.position {
            cluster.release(&mut self.parser.stream, marks);
        }
    }

    fn give_up(&mut self, marks: &mut Vec<Mark>) {
        let parser = &mut self.parser;
        // As at the end of the input: the block is classified by the bytes received so far.
        parser.stream.ended = true;
        self.feed.read_again(|pos, view| parser.step(pos, view, marks));
        parser.stream.ended = false;
        if let Position::Cluster(cluster) = &mut parser.position {
            cluster.give_up(&mut parser.stream, marks);
        }
    }

    fn whole(&self) -> u64 {
        let pos = self.feed.pos();
        let is_passing = self.feed.is_passing() || self.parser.unsure.is_some();
        let element = is_passing.then_some(self.parser.element_at);
        let group = match &self.parser.position {
            Position::Cluster(cluster) => cluster.group_at(pos),
            _ => None,
        };
        let open = group.or(element).unwrap_or(pos);
        open.min(self.settled())
    }

    fn restart(&mut self) {
        self.feed.take_rest();
        self.parser.restart(self.feed.pos());
    }

    fn encloses_keys(&self) -> bool {
        self.parser.stream.encloses_keys
    }

    fn container(&self) -> Container {
        self.parser.stream.container
    }

    fn resolution(&self) -> u64 {
        self.parser.stream.scale
    }
}

/// Where in the document the next element is expected.
#[derive(Debug)]
enum Position {
    /// Before the first Cluster of a document.
    Head(Box<Head>),
    /// Between Clusters.
    Segment,
    /// In a Cluster.
    Cluster(Box<Cluster>),
    /// After damage: searching for a Cluster or a head.
    Lost,
    /// The input was interrupted: the next bytes should be a Cluster or a head.
    Interrupted,
}

#[derive(Debug)]
struct Parser {
    position: Position,
    stream: Stream,
    /// Whether a head is in force: later ones are payload.
    has_head: bool,
    /// Offset of the current element.
    element_at: u64,
    /// Announced end of the element that is being skipped, if its size may be wrong.
    unsure: Option<u64>,
}

impl Parser {
    fn step(&mut self, pos: u64, view: &[u8], marks: &mut Vec<Mark>) -> Result<Step, Fault> {
        if let Some(end) = self.unsure {
            return Ok(self.pass_unsure(end, pos, view, marks));
        }
        self.element_at = pos;
        // The next block may contain another slice of the picture; any other element ends it.
        if !self.may_go_on(view) {
            self.stream.passed(pos, marks);
        }
        Ok(match &mut self.position {
            Position::Head(head) => match head.read(pos, view) {
                head::Progress::Need(n) => Step::Need(n),
                head::Progress::Took(n) => Step::Pass(n),
                head::Progress::Ended => {
                    if head.tracks.is_none() && !self.has_head {
                        return Err(Fault::TracksLast);
                    }
                    self.end_head(marks);
                    Step::Pass(0)
                }
                head::Progress::Joined => self.joined(pos, marks),
                head::Progress::Damaged => self.damaged_head(pos, marks),
                // What looks like another head in mid-stream is more likely damage than a stream that cannot be cut.
                head::Progress::TooLarge(_) if self.has_head => self.damaged_head(pos, marks),
                head::Progress::TooLarge(n) => return Err(Fault::HeaderTooLarge(n)),
            },
            Position::Cluster(cluster) => match cluster.read(&mut self.stream, pos, view, marks) {
                cluster::Progress::Need(n) => Step::Need(n),
                cluster::Progress::Took(n) => self.pass(n),
                cluster::Progress::Ended => {
                    cluster.close(&mut self.stream, marks);
                    self.position = Position::Segment;
                    Step::Pass(0)
                }
                cluster::Progress::Damaged => self.damaged(pos, marks),
            },
            Position::Segment => self.step_segment(pos, view, marks),
            Position::Lost => self.step_lost(pos, view),
            Position::Interrupted => self.step_interrupted(pos, view, marks),
        })
    }

    /// Returns whether the element that begins with `view` may contain more of the last picture.
    fn may_go_on(&self, view: &[u8]) -> bool {
        let Position::Cluster(cluster) = &self.position else {
            return false;
        };
        let is_block = |id: u32| view.first().is_some_and(|&first| u32::from(first) == id);
        cluster.has_group() || is_block(cluster::SIMPLE_BLOCK) || is_block(cluster::BLOCK_GROUP)
    }

    /// Reads an element between the Clusters, or behind the Segment.
    fn step_segment(&mut self, pos: u64, view: &[u8], marks: &mut Vec<Mark>) -> Step {
        let header = match ebml::header(view) {
            Read::Need(n) => return Step::Need(n),
            Read::Bad => return self.damaged(pos, marks),
            Read::Got(header) => header,
        };
        if header.id == ebml::EBML {
            self.position = Position::Head(Box::new(Head::new(pos)));
            return Step::Pass(0);
        }
        let body = pos.saturating_add(len64(header.len));
        let end = header.size.map(|size| body.saturating_add(size));
        if header.id == SEGMENT {
            self.stream.segment_end = end;
            return Step::Pass(len64(header.len));
        }
        let bound = self.stream.segment_end;
        if bound.is_some_and(|bound| end.unwrap_or(body) > bound) && header.id != ebml::VOID {
            return self.damaged(pos, marks);
        }
        match (header.id, end) {
            (CLUSTER, _) => {
                let octets = view.get(..header.len).unwrap_or_default();
                self.position = Position::Cluster(Box::new(Cluster::open(pos, octets, end)));
                Step::Pass(len64(header.len))
            }
            (TRACKS, Some(_)) => self.tracks_in_band(pos, view, &header, marks),
            (id, Some(end)) if is_passed_over(id) && end - pos <= MAX_ELEMENT => self.pass(end - pos),
            _ => self.damaged(pos, marks),
        }
    }

    /// Reads Tracks in mid-stream: a repetition, or a new configuration.
    fn tracks_in_band(&mut self, pos: u64, view: &[u8], header: &Header, marks: &mut Vec<Mark>) -> Step {
        let total = header
            .size
            .and_then(|size| usize::try_from(size).ok())
            .and_then(|size| size.checked_add(header.len));
        let room = MAX_GATHER.saturating_sub(self.stream.head_len());
        let Some(total) = total.filter(|n| *n <= room) else {
            return self.damaged(pos, marks);
        };
        let Some(element) = view.get(..total) else {
            return Step::Need(total);
        };
        let Ok(tracks) = Tracks::parse(element.get(header.len..).unwrap_or_default()) else {
            return self.damaged(pos, marks);
        };
        if tracks.config != self.stream.tracks.config {
            let init = self.stream.replace_tracks(element, tracks);
            marks.push(other_unit(pos, true, init));
        }
        Step::Pass(len64(total))
    }

    /// Puts the complete head in force. Emits a unit for it unless it is the input's first.
    fn end_head(&mut self, marks: &mut Vec<Mark>) {
        let Position::Head(head) = std::mem::replace(&mut self.position, Position::Segment) else {
            return;
        };
        let start = head.start;
        self.stream.adopt(*head);
        if self.has_head {
            // A new chunk even if the head is equal: players and demuxers do not handle a second Segment in one file.
            marks.push(other_unit(start, true, self.stream.no_init()));
        }
        self.has_head = true;
    }

    /// Ends a damaged head. The bytes of the input's first head are used as far as they came; a later head is used only if its
    /// Tracks have come.
    fn damaged_head(&mut self, pos: u64, marks: &mut Vec<Mark>) -> Step {
        let Position::Head(head) = &self.position else {
            return self.damaged(pos, marks);
        };
        let is_first = !self.has_head;
        // Skips one byte if nothing of the head was read. Otherwise the search would find the same head again, without end.
        let is_at_start = head.start == pos;
        if is_first || head.tracks.is_some() {
            self.end_head(marks);
        }
        if is_first {
            marks.push(other_unit(pos, false, self.stream.init()));
        }
        self.damaged(pos, marks);
        Step::Pass(u64::from(is_at_start))
    }

    /// Handles a stream that was joined inside a Cluster: the rest of that Cluster follows the head. Its pictures cannot be
    /// decoded, but they are no damage. They are skipped up to the next Cluster.
    fn joined(&mut self, pos: u64, marks: &mut Vec<Mark>) -> Step {
        let has_video = match &self.position {
            Position::Head(head) => head.tracks.as_ref().is_some_and(|tracks| tracks.has(Track::Video)),
            _ => false,
        };
        if self.has_head || !has_video {
            return self.damaged_head(pos, marks);
        }
        self.end_head(marks);
        let unit = Unit {
            track: Track::Video,
            new_codec_config: false,
            ..Unit::of_header(self.stream.init())
        };
        marks.push(Mark {
            at: pos,
            kind: MarkKind::Unit(unit),
        });
        // Searches for the next Cluster without a damage mark.
        self.position = Position::Lost;
        Step::Pass(0)
    }

    /// Emits damage at `pos` and starts the search for the next Cluster or head.
    fn damaged(&mut self, pos: u64, marks: &mut Vec<Mark>) -> Step {
        if let Position::Cluster(cluster) = &mut self.position {
            cluster.close(&mut self.stream, marks);
        }
        self.stream.passed(pos, marks);
        marks.push(Mark {
            at: pos,
            kind: MarkKind::Damage,
        });
        self.stream.forget_ends();
        self.position = Position::Lost;
        Step::Pass(0)
    }

    fn step_lost(&mut self, pos: u64, view: &[u8]) -> Step {
        // The first octets of an EBML header and of a Cluster.
        let found = view.iter().position(|b| matches!(b, 0x1A | 0x1F));
        work::count(found.unwrap_or(view.len()));
        match found {
            None => return Step::Pass(len64(view.len())),
            Some(0) => {}
            Some(n) => return Step::Pass(len64(n)),
        }
        match plausible(view) {
            Read::Need(n) => Step::Need(n),
            Read::Bad => Step::Pass(1),
            Read::Got(id) => {
                self.position = if id == CLUSTER {
                    Position::Segment
                } else {
                    Position::Head(Box::new(Head::new(pos)))
                };
                Step::Pass(0)
            }
        }
    }

    /// After an interruption anything but the start of a Cluster or a head is damage.
    fn step_interrupted(&mut self, pos: u64, view: &[u8], marks: &mut Vec<Mark>) -> Step {
        match plausible(view) {
            Read::Need(n) => Step::Need(n),
            Read::Bad => self.damaged(pos, marks),
            Read::Got(_) => {
                self.position = Position::Segment;
                Step::Pass(0)
            }
        }
    }

    fn settled(&self, pos: u64) -> u64 {
        let settled = match &self.position {
            // A later head begins a chunk once it is complete: its unit is at the head's start.
            Position::Head(head) if self.has_head => head.start,
            Position::Cluster(cluster) => cluster.settled(pos),
            _ => pos,
        };
        // The mark of a picture's end is emitted only with the next element: until then its offset must not be settled.
        self.stream.picture_end().map_or(settled, |end| end.min(settled))
    }

    /// Reads as much as possible of the last bytes and emits everything that was held back.
    fn finish(&mut self, start: u64, rest: &[u8], marks: &mut Vec<Mark>) {
        self.stream.ended = true;
        let mut at = 0usize;
        while let Some(view) = rest.get(at..).filter(|view| !view.is_empty()) {
            let Ok(Step::Pass(n)) = self.step(start + len64(at), view, marks) else {
                break;
            };
            at = at.saturating_add(usize::try_from(n).unwrap_or(usize::MAX));
        }
        match &mut self.position {
            Position::Cluster(cluster) => cluster.close(&mut self.stream, marks),
            Position::Head(head) if self.has_head && head.tracks.is_some() => self.end_head(marks),
            _ => {}
        }
        self.position = Position::Segment;
        // The scanner may continue after a flush: then an incomplete block again means that more bytes follow.
        self.stream.ended = false;
    }

    fn restart(&mut self, pos: u64) {
        self.unsure = None;
        self.stream.forget_ends();
        match &mut self.position {
            Position::Head(_) if !self.has_head => self.position = Position::Head(Box::new(Head::new(pos))),
            // Muxers that write Clusters of unknown size may continue with the next block.
            Position::Cluster(cluster) if cluster.is_open_ended() => cluster.restart(),
            // The announced end of a Cluster of known size no longer applies: the next bytes must be a Cluster or a head.
            position => *position = Position::Interrupted,
        }
    }
}

/// Returns the mark of a unit that is no block.
fn other_unit(at: u64, new_codec_config: bool, init: Init) -> Mark {
    let unit = Unit {
        track: Track::Other,
        key: Key::No,
        pts: None,
        end: None,
        decode: None,
        sample_at: None,
        new_codec_config,
        init: Some(init),
    };
    Mark {
        at,
        kind: MarkKind::Unit(unit),
    }
}

/// Returns whether an element between Clusters has no effect on cuts.
fn is_passed_over(id: u32) -> bool {
    head::is_segment_level(id) || matches!(id, ebml::VOID | ebml::CRC_32)
}

/// Returns whether `view` begins with a Cluster or an EBML header, and which of them. Checks the first child element too:
/// four bytes alone match by chance too often.
fn plausible(view: &[u8]) -> Read<u32> {
    let marker = view.get(..4.min(view.len())).unwrap_or_default();
    let is_prefix = |id: u32| id.to_be_bytes().starts_with(marker);
    if !is_prefix(CLUSTER) && !is_prefix(ebml::EBML) {
        return Read::Bad;
    }
    let header = match ebml::header(view) {
        Read::Got(header) => header,
        Read::Need(n) => return Read::Need(n),
        Read::Bad => return Read::Bad,
    };
    let Some(&[first, second]) = view.get(header.len..header.len + 2) else {
        return Read::Need(header.len + 2);
    };
    // A size of 1 to 8 in one octet, or the first octet of a longer coding of a small size.
    let is_small = matches!(second, 0x81..=0x88) || (second < 0x80 && second.is_power_of_two());
    let is_plausible = match first {
        // CRC-32.
        0xBF => is_small,
        // Void.
        0xEC => true,
        // Timestamp, Position, PrevSize.
        0xE7 | 0xA7 | 0xAB => header.id == CLUSTER && is_small,
        // The IDs of EBMLVersion … DocType all begin with this octet.
        0x42 => header.id == ebml::EBML && header.size.is_some_and(|s| s <= MAX_EBML_HEADER),
        _ => false,
    };
    if is_plausible { Read::Got(header.id) } else { Read::Bad }
}
