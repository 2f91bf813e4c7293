//! MPEG-2 transport streams: where access units begin, and the PAT and PMT that a chunk needs in front of them.
//!
//! PURE. Sources: ISO/IEC 13818-1 (2.4), ETSI EN 300 468, the Blu-ray M2TS layout (192 bytes), ETSI TS 101 154.
//!
//! All bytes of a transport stream are payload: the first unit is at offset 0 with an empty header. A chunk that begins
//! elsewhere opens with verbatim copies of the last complete PAT and PMT packets, unless these are directly before its
//! first unit: then it begins with them and needs no header. Copies, because the next table in band then follows on in its
//! continuity counter.
//!
//! Layers: [`sync`] finds packets, [`packet`] reads their headers, [`demux`] sorts them, [`psi`] and [`tables`] follow PAT and
//! PMT, [`units`] (with [`examine`], [`pes`], [`picture`], [`mpeg4`], [`packing`], [`sound`], [`names`] and [`stream`]) judges
//! access units,
//! [`reorder`] brings the marks into order.

mod access_units;
mod audio;
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
mod sound;
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

/// Bytes taken at once while packets are looked for.
const SEARCH_STEP: usize = 4096;

/// Most bytes from the middle of a packet to its end, and one more.
const MAX_REST: usize = 204;

/// Scanner for MPEG-TS with packets of 188, 192 or 204 bytes.
#[derive(Debug)]
pub struct MpegTs {
    /// Known since packets were found for the first time.
    layout: Option<Layout>,
    /// Whether packets are where they are expected.
    in_sync: bool,
    /// Whether the damage being skipped has been reported.
    damage_reported: bool,
    /// Where the input begins, or goes on after an interruption.
    start: u64,
    /// Absolute offset of `partial`, or of the next byte.
    at: u64,
    /// A packet that is half there; while packets are looked for, what may be one.
    partial: Vec<u8>,
    demux: Demux,
}

impl Default for MpegTs {
    fn default() -> Self {
        Self::new()
    }
}

impl MpegTs {
    /// A scanner at the start of a stream.
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

    /// Takes bytes while packets are where they are expected; returns those not taken.
    fn follow<'a>(&mut self, layout: Layout, data: &'a [u8], marks: &mut Vec<Mark>) -> Result<&'a [u8], Fault> {
        if !self.partial.is_empty() {
            let missing = layout.stride.saturating_sub(self.partial.len()).min(data.len());
            let (head, rest) = data.split_at(missing);
            self.partial.extend_from_slice(head);
            if self.partial.len() >= layout.stride {
                self.drain(layout, marks)?;
                // Out of step: what is here is looked through now, as it would be had it come in one piece.
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

    /// Takes the whole packets of `partial`.
    fn drain(&mut self, layout: Layout, marks: &mut Vec<Mark>) -> Result<(), Fault> {
        let mut partial = std::mem::take(&mut self.partial);
        let taken = self.packets(layout, &partial, marks)?;
        partial.drain(..taken.min(partial.len()));
        self.partial = partial;
        Ok(())
    }

    /// Takes whole packets, up to one without its sync byte; returns how many bytes that were.
    fn packets(&mut self, layout: Layout, data: &[u8], marks: &mut Vec<Mark>) -> Result<usize, Fault> {
        let mut taken = 0;
        for raw in data.chunks_exact(layout.stride) {
            if !layout.in_sync(raw) {
                self.in_sync = false;
                self.damage_reported = true;
                // In this order: the units that are open lie in front of the damage.
                self.demux.lost_sync(marks);
                self.demux.damage(self.at, marks);
                break;
            }
            match Packet::parse(raw, layout, self.at) {
                Some(packet) => self.demux.packet(&packet, marks)?,
                // One packet is broken: those behind it are still in step.
                None => self.demux.damage(self.at, marks),
            }
            taken += raw.len();
            self.at = self.at.saturating_add(raw.len() as u64);
            self.demux.begin(self.at, marks);
        }
        Ok(taken)
    }

    /// Takes bytes while packets have to be found; returns those not taken.
    fn seek<'a>(&mut self, data: &'a [u8], marks: &mut Vec<Mark>) -> Result<&'a [u8], Fault> {
        let (step, rest) = data.split_at(data.len().min(SEARCH_STEP));
        self.partial.extend_from_slice(step);
        self.search(false, marks)?;
        Ok(rest)
    }

    /// Looks for packets in `partial` and takes those found, until more bytes are needed.
    fn search(&mut self, complete: bool, marks: &mut Vec<Mark>) -> Result<(), Fault> {
        while !self.in_sync {
            match sync::search(&self.partial, self.layout, complete) {
                // The rest of a packet, perhaps: who joins a live stream does so anywhere.
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

    /// Lets go of bytes that are no packets.
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
        // A fault in the last packets of the input changes nothing that was decided before them.
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
        // Half a packet stays payload, but nothing that comes after the flush completes it.
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
