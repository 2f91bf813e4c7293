//! From packets to marks: sorts packets by PID, follows the tables, and hands PES packets to [`super::units`].
//!
//! PURE. May touch one packet at a time.

use super::super::{Fault, Init, Mark, MarkKind, Track};
use super::packet::{Continuity, Packet};
use super::psi::Elementary;
use super::reorder::Reorder;
use super::stream::Kind;
use super::tables::{NewMap, Tables};
use super::units::{Stream, Units};

const PIDS: usize = 1 << 13;

/// What to do with a PID.
mod role {
    /// Not known: nothing.
    pub(super) const UNKNOWN: u8 = 0;
    /// A table that is passed over (CAT, SDT, EIT …).
    pub(super) const TABLE: u8 = 1;
    pub(super) const PAT: u8 = 2;
    pub(super) const MAP: u8 = 3;
    pub(super) const NULL: u8 = 4;
    /// The first elementary stream; the others follow.
    pub(super) const STREAM: u8 = 5;

    /// Before any table was read.
    pub(super) fn standard(pid: usize) -> u8 {
        match pid {
            0 => PAT,
            1..0x20 => TABLE,
            0x1fff => NULL,
            _ => UNKNOWN,
        }
    }
}

/// Most elementary streams of a PMT that are followed.
const MAX_STREAMS: usize = 250;

/// Reads the packets of one transport stream.
#[derive(Debug)]
pub(super) struct Demux {
    /// Role of each PID.
    roles: Vec<u8>,
    tables: Tables,
    units: Units,
    pub(super) out: Reorder,
    /// PIDs with payload seen before the first PMT; empty afterwards.
    early: Vec<u16>,
    mapped: bool,
}

impl Demux {
    pub(super) fn new() -> Self {
        let roles = (0..PIDS).map(role::standard).collect();
        let (tables, units, out) = (Tables::default(), Units::default(), Reorder::default());
        Self {
            roles,
            tables,
            units,
            out,
            early: Vec::new(),
            mapped: false,
        }
    }

    /// Takes a packet that is in sync.
    pub(super) fn packet(&mut self, packet: &Packet<'_>, marks: &mut Vec<Mark>) -> Result<(), Fault> {
        match self.roles.get(usize::from(packet.pid)).copied().unwrap_or(role::UNKNOWN) {
            role::PAT => {
                if self.tables.push_pat(packet)? {
                    self.assign();
                }
            }
            role::MAP => {
                if let Some(new) = self.tables.push_map(packet) {
                    self.configure(new, marks);
                }
            }
            role::TABLE => self.tables.extend_run(packet.at),
            role::NULL => self.tables.pad_run(),
            role::UNKNOWN => {
                if packet.payload.is_none() {
                    self.tables.pad_run();
                } else {
                    self.tables.end_run();
                    if !self.mapped && !self.early.contains(&packet.pid) {
                        self.early.push(packet.pid);
                    }
                }
            }
            stream => self.elementary(usize::from(stream - role::STREAM), packet, marks),
        }
        let end = packet.at.saturating_add(packet.raw.len() as u64);
        while let Some(slot) = self.out.overdue(end) {
            self.units.force(slot, &mut self.out, marks);
        }
        Ok(())
    }

    /// Decides what the marks behind it wait for.
    pub(super) fn release(&mut self, marks: &mut Vec<Mark>) {
        if let Some(slot) = self.out.front() {
            self.units.force(slot, &mut self.out, marks);
        }
    }

    /// Emits damage at `at`: bytes that are no packet, or a broken one. Which PID lost data shows in the continuity counters.
    pub(super) fn damage(&mut self, at: u64, marks: &mut Vec<Mark>) {
        self.tables.end_run();
        self.out.put(at, [Some(MarkKind::Damage), None, None], marks);
    }

    /// Packets were lost on any PID.
    pub(super) fn lost_sync(&mut self, marks: &mut Vec<Mark>) {
        self.units.close_all(&mut self.out, marks);
        self.forget();
    }

    /// What comes next follows on nothing.
    fn forget(&mut self) {
        self.tables.reset();
        self.units.reset_counters();
    }

    /// Drops what is half read. Before the first mark, moves the first unit to `origin`.
    pub(super) fn restart(&mut self, origin: u64) {
        self.forget();
        self.units.restart();
        self.out.restart(origin);
    }

    /// The input ends at `end`.
    pub(super) fn finish(&mut self, end: u64, marks: &mut Vec<Mark>) {
        self.units.close_all(&mut self.out, marks);
        self.tables.end_run();
        self.out.begin(end, marks);
        if let Some(kind) = self.units.picture_end() {
            self.out.put(end, [Some(kind), None, None], marks);
        }
    }

    /// Makes the first unit before the bytes below it are settled, with the packets up to `end` read.
    pub(super) fn begin(&mut self, end: u64, marks: &mut Vec<Mark>) {
        if !self.out.has_begun() {
            self.out.begin(self.settled(end), marks);
        }
    }

    /// Everything below is decided, with the packets up to `end` read.
    pub(super) fn settled(&self, end: u64) -> u64 {
        self.out.first_undecided().or(self.tables.run_start()).unwrap_or(end)
    }

    fn elementary(&mut self, index: usize, packet: &Packet<'_>, marks: &mut Vec<Mark>) {
        let Some(payload) = packet.payload else {
            self.tables.pad_run();
            return;
        };
        let continuity = self.units.continuity(index, packet, payload);
        if continuity == Continuity::Duplicate {
            self.tables.end_run();
            return;
        }
        let begins = packet.start || self.units.joins(index);
        if continuity == Continuity::Gap {
            self.units.close(index, &mut self.out, marks);
            let at = if begins { self.tables.place(packet.at).at } else { packet.at };
            self.out.put(at, [Some(MarkKind::Damage), None, None], marks);
        }
        if begins {
            let place = self.tables.place(packet.at);
            self.units.begin(index, packet, payload, place, &mut self.out, marks);
        } else if continuity == Continuity::Next {
            self.units.extend(index, payload, &mut self.out, marks);
        }
        self.tables.end_run();
    }

    /// A PMT with another content than before, or the first.
    fn configure(&mut self, new: NewMap, marks: &mut Vec<Mark>) {
        let streams: Vec<Elementary> = new
            .streams
            .into_iter()
            .filter(|es| es.kind != Kind::Sections && es.pid != 0 && es.pid < 0x1fff)
            .filter(|es| Some(es.pid) != self.tables.map_pid())
            .take(MAX_STREAMS)
            .collect();
        // mpegtsmux 1.26 starts before all its pads have caps and announces late sound in a second PMT, in the middle of a
        // group of pictures: a chunk that began there could not be decoded before the next key unit.
        let adds_only = !new.first && self.units.are_kept_in(&streams);
        if !adds_only {
            self.units.close_all(&mut self.out, marks);
        }
        self.units.configure(streams, &mut self.out);
        self.assign();
        if adds_only {
            self.out.put(new.place.at, [Some(MarkKind::StreamAdded), None, None], marks);
            return;
        }
        let init = Init {
            head: new.place.head,
            tail: bytes::Bytes::new(),
            info: self.out.info.clone(),
        };
        if new.first {
            // A picture whose beginning nobody could know of: the stream was joined in the middle.
            if self.units.video_pid().is_some_and(|pid| self.early.contains(&pid)) {
                self.units.join();
                let unit = self.out.unit(Track::Video, init);
                self.out.put(new.place.at, [Some(MarkKind::Unit(unit)), None, None], marks);
            }
        } else {
            let mut unit = self.out.unit(Track::Other, init);
            unit.new_codec_config = true;
            self.out.put(new.place.at, [Some(MarkKind::Unit(unit)), None, None], marks);
        }
        self.mapped = true;
        self.early = Vec::new();
    }

    /// Gives each PID its role.
    fn assign(&mut self) {
        self.roles.clear();
        self.roles.extend((0..PIDS).map(role::standard));
        let pids: Vec<u16> = self.units.streams().iter().map(Stream::pid).collect();
        for (role, pid) in (role::STREAM..=u8::MAX).zip(pids) {
            self.set(pid, role);
        }
        if let Some(pid) = self.tables.map_pid() {
            self.set(pid, role::MAP);
        }
    }

    fn set(&mut self, pid: u16, role: u8) {
        if let Some(old) = self
            .roles
            .get_mut(usize::from(pid))
            .filter(|old| ![role::PAT, role::NULL].contains(old))
        {
            *old = role;
        }
    }
}
