//! Scanner for MPEG-2 transport streams: access units, and the PAT and PMT that a chunk needs in front of them.
//!
//! PURE. Sources: ISO/IEC 13818-1 (2.4), ETSI EN 300 468, the Blu-ray M2TS layout (192 bytes), ETSI TS 101 154.
//!
//! All bytes of a transport stream are payload: the first unit is at offset 0 with an empty header. A chunk that begins
//! elsewhere opens with copies of the last complete PAT and PMT packets, unless these are directly before its first unit: then
//! it begins with them and needs no header. The copies are verbatim so that the continuity counter of the next table in band
//! continues theirs.
//!
//! Layers: [`sync`] finds packets, [`packet`] reads their headers, [`demux`] sorts them, [`psi`] and [`tables`] follow PAT and
//! PMT, [`units`] (with [`examine`], [`pes`], [`picture`], [`mpeg4`], [`packing`], [`audio_stream`], [`names`] and [`stream`])
//! classifies access units, [`reorder`] sorts the marks. Beside them, [`audio`] computes durations, and [`samples`] with
//! [`access_units`] reads the samples of a chunk.

mod access_units;
mod audio;
mod audio_stream;
mod demux;
mod examine;
mod mpeg4;
mod names;
mod packet;
mod packing;
mod pes;
mod picture;
mod psi;
mod reorder;
pub(super) mod samples;
mod stream;
mod sync;
mod tables;
#[cfg(test)]
pub(crate) mod tests;
mod units;

use self::demux::Demux;
use self::packet::{Layout, Packet};
use self::sync::Search;
use super::{Container, Fault, Mark, Scanner};

/// Number of bytes taken at once while searching for packets.
const SEARCH_STEP: usize = 4096;

/// Length of the longest packet. A stream that is joined in the middle of a packet begins with fewer bytes than this.
const MAX_REST: usize = 204;

/// Scanner for MPEG-TS with packets of 188, 192 or 204 bytes.
#[derive(Debug)]
pub struct MpegTs {
    /// Known after packets have been found for the first time.
    layout: Option<Layout>,
    /// Whether packets are where they are expected.
    in_sync: bool,
    /// Whether the damage being skipped has been reported.
    damage_reported: bool,
    /// Offset where the input begins, or continues after an interruption.
    start: u64,
    /// Absolute offset of `partial`, or of the next byte.
    at: u64,
    /// An incomplete packet; during a search, the bytes that are being searched.
    partial: Vec<u8>,
    demux: Demux,
}

impl Default for MpegTs {
    fn default() -> Self {
        Self::new()
    }
}

impl MpegTs {
    /// Creates a scanner at the start of a stream.
    pub fn new() -> Self {
        Self {
            layout: None,
            in_sync: false,
            damage_reported: false,
            start: 0,
            at: 0,
            partial: Vec::new(),
            demux: Demux::new(),
        }
    }

    /// Takes bytes while packets are where they are expected. Returns the bytes not taken.
    fn follow<'a>(&mut self, layout: Layout, data: &'a [u8], marks: &mut Vec<Mark>) -> Result<&'a [u8], Fault> {
        if !self.partial.is_empty() {
            let missing = layout.stride.saturating_sub(self.partial.len()).min(data.len());
            let (head, rest) = data.split_at(missing);
            self.partial.extend_from_slice(head);
            if self.partial.len() >= layout.stride {
                self.drain(layout, marks)?;
                // If sync was lost, the bytes in `partial` are searched now: the marks must not depend on how the input is
                // sliced.
                self.search(false, marks)?;
            }
            return Ok(rest);
        }
        let taken = self.packets(layout, data, marks)?;
        let rest = data.get(taken..).unwrap_or_default();
        if self.in_sync {
            self.partial.extend_from_slice(rest);
            return Ok(&[]);
        }
        Ok(rest)
    }

    /// Takes the complete packets of `partial`.
    fn drain(&mut self, layout: Layout, marks: &mut Vec<Mark>) -> Result<(), Fault> {
        let mut partial = std::mem::take(&mut self.partial);
        let taken = self.packets(layout, &partial, marks)?;
        partial.drain(..taken.min(partial.len()));
        self.partial = partial;
        Ok(())
    }

    /// Takes complete packets, up to one without its sync byte. Returns the number of bytes taken.
    fn packets(&mut self, layout: Layout, data: &[u8], marks: &mut Vec<Mark>) -> Result<usize, Fault> {
        let mut taken = 0;
        for raw in data.chunks_exact(layout.stride) {
            if !layout.in_sync(raw) {
                self.in_sync = false;
                self.damage_reported = true;
                // In this order, because the open units are in front of the damage.
                self.demux.lost_sync(marks);
                self.demux.damage(self.at, marks);
                break;
            }
            match Packet::parse(raw, layout, self.at) {
                Some(packet) => self.demux.packet(&packet, marks)?,
                // Only this packet is broken: the next ones are still in sync.
                None => self.demux.damage(self.at, marks),
            }
            taken += raw.len();
            self.at = self.at.saturating_add(raw.len() as u64);
            self.demux.begin(self.at, marks);
        }
        Ok(taken)
    }

    /// Takes bytes while searching for packets. Returns the bytes not taken.
    fn seek<'a>(&mut self, data: &'a [u8], marks: &mut Vec<Mark>) -> Result<&'a [u8], Fault> {
        let (step, rest) = data.split_at(data.len().min(SEARCH_STEP));
        self.partial.extend_from_slice(step);
        self.search(false, marks)?;
        Ok(rest)
    }

    /// Searches for packets in `partial` and takes those found, until more bytes are needed.
    fn search(&mut self, complete: bool, marks: &mut Vec<Mark>) -> Result<(), Fault> {
        while !self.in_sync {
            match sync::search(&self.partial, self.layout, complete) {
                // Not reported as damage yet: it may be the rest of a packet, since a live stream can be joined anywhere.
                Search::More(junk) if junk < MAX_REST && self.at == self.start && !complete => break,
                Search::More(junk) => {
                    self.pass_over(junk, marks);
                    break;
                }
                Search::Found(junk, layout) => {
                    // Less than a packet at the start: the stream was joined in the middle of one, and is not damaged.
                    self.damage_reported |= junk < layout.stride && self.at == self.start;
                    self.pass_over(junk, marks);
                    self.layout = Some(layout);
                    self.in_sync = true;
                    self.damage_reported = false;
                    self.drain(layout, marks)?;
                }
            }
        }
        Ok(())
    }

    /// Skips `junk` bytes that are no packets. Reports the first of them as damage.
    fn pass_over(&mut self, junk: usize, marks: &mut Vec<Mark>) {
        if junk == 0 {
            return;
        }
        if !self.damage_reported {
            self.damage_reported = true;
            self.demux.damage(self.at, marks);
        }
        self.partial.drain(..junk.min(self.partial.len()));
        self.at = self.at.saturating_add(junk as u64);
    }
}

impl Scanner for MpegTs {
    fn push(&mut self, mut data: &[u8], marks: &mut Vec<Mark>) -> Result<(), Fault> {
        while !data.is_empty() {
            data = match self.layout.filter(|_| self.in_sync) {
                Some(layout) => self.follow(layout, data, marks)?,
                None => self.seek(data, marks)?,
            };
        }
        Ok(())
    }

    fn finish(&mut self, marks: &mut Vec<Mark>) {
        // A fault in the last packets is ignored: the units before them are already decided.
        let _ = self.search(true, marks);
        self.at = self.at.saturating_add(self.partial.len() as u64);
        self.partial = Vec::new();
        self.demux.finish(self.at, marks);
    }

    fn settled(&self) -> u64 {
        self.demux.settled(self.at)
    }

    fn release(&mut self, marks: &mut Vec<Mark>) {
        self.demux.release(marks);
    }

    fn give_up(&mut self, marks: &mut Vec<Mark>) {
        self.demux.give_up(self.at, marks);
    }

    fn restart(&mut self) {
        // An incomplete packet stays payload, but the bytes after the flush do not complete it.
        self.at = self.at.saturating_add(self.partial.len() as u64);
        self.partial.clear();
        self.in_sync = false;
        self.damage_reported = false;
        self.start = self.at;
        self.demux.restart(self.at);
    }

    fn lacks_program(&self) -> bool {
        self.demux.lacks_program()
    }

    fn container(&self) -> Container {
        Container::MpegTs
    }

    /// One tick of the 90 kHz clock.
    fn resolution(&self) -> u64 {
        11_111
    }
}
