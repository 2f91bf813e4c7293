//! Turns packets into marks: sorts packets by PID, follows the tables, and passes PES packets to [`super::units`].
//!
//! PURE. Handles one packet at a time.

use super::super::{Fault, Init, Key, Mark, MarkKind, Notice, Track};
use super::packet::{Continuity, Layout, Packet};
use super::psi::Elementary;
use super::reorder::Reorder;
use super::stream::Kind;
use super::tables::{NewMap, StartPoint, Tables};
use super::units::{Stream, Units};

// A PID has 13 bits (2.4.3.2).
const PIDS: usize = 1 << 13;

/// How the packets of a PID are handled.
mod role {
    /// No table describes this PID.
    pub(super) const UNKNOWN: u8 = 0;
    /// A table that is not read (CAT, SDT, EIT …).
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
            // CAT, TSDT, IPMP and reserved PIDs (13818-1 table 2-3), and the tables of DVB (EN 300 468 table 1).
            1..0x20 => TABLE,
            0x1fff => NULL,
            _ => UNKNOWN,
        }
    }
}

// A role is a byte, and the values 0 to 4 have other meanings.
/// Maximum number of elementary streams of a PMT that are followed.
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
    /// The packets of those PIDs, until the first PMT describes them.
    held: Vec<EarlyPacket>,
    /// Whether some of these packets were not stored or were dropped, so that `held` must stay empty.
    is_too_early: bool,
    /// Number of bytes of packets before the first PMT.
    unmapped: u64,
    /// Offset of the last unit without a PMT; `None` until the stream is treated as one without a PMT.
    unmapped_unit: Option<u64>,
    /// Whether the absence of a PMT has been reported.
    is_reported: bool,
    mapped: bool,
    /// Offset of the packet that showed the last damage.
    damaged_at: u64,
}

/// A packet that came before the first PMT.
#[derive(Debug)]
struct EarlyPacket {
    at: u64,
    raw: Box<[u8]>,
}

/// Maximum distance in bytes from the first packet that is held for the first PMT to the last one.
const MAX_EARLY: u64 = 1 << 20;

/// Number of bytes without a PMT after which the stream is treated as one without a PMT, until one comes: 2 MiB. At 20 Mbit/s
/// this is less than the second between two tables.
const MAX_UNMAPPED: u64 = 2 << 20;

/// Number of bytes from one unit to the next in a stream without a PMT: a second at 64 kbit/s.
const UNMAPPED_UNIT: u64 = 8 << 10;

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
            held: Vec::new(),
            is_too_early: false,
            unmapped: 0,
            unmapped_unit: None,
            is_reported: false,
            mapped: false,
            damaged_at: 0,
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
                if let Some(new) = self.tables.push_map(packet)? {
                    self.configure(new, marks);
                }
            }
            role::TABLE => self.tables.extend_run(packet.at),
            role::NULL => self.tables.pad_run(),
            role::UNKNOWN => {
                if packet.payload.is_none() {
                    self.tables.pad_run();
                    // It may announce a jump of the continuity counter (2.4.3.5), which `replay` must not mistake for a loss.
                    if packet.discontinuity && !self.held.is_empty() {
                        self.hold(packet);
                    }
                } else {
                    self.tables.end_run();
                    self.hold(packet);
                }
            }
            stream => self.elementary(usize::from(stream - role::STREAM), packet, marks),
        }
        if !self.mapped {
            self.pass_unmapped(packet, marks);
        }
        let end = packet.at.saturating_add(packet.raw.len() as u64);
        // A unit that stays undecided would hold back every mark behind it.
        while let Some(slot) = self.out.overdue(end) {
            self.units.force(slot, &mut self.out, marks);
        }
        Ok(())
    }

    /// Counts a packet before the first PMT. After [`MAX_UNMAPPED`] bytes it emits units so that chunks are cut by arrival time,
    /// like a stream of an unknown container, until a PMT comes.
    fn pass_unmapped(&mut self, packet: &Packet<'_>, marks: &mut Vec<Mark>) {
        self.unmapped += packet.raw.len() as u64;
        // No unit inside a run of tables: a PMT may follow, and then a chunk begins with the whole run.
        if self.unmapped <= MAX_UNMAPPED || self.tables.run_start().is_some() {
            return;
        }
        if self.unmapped_unit.is_none() {
            self.give_up(packet.at, marks);
            self.report(packet.at, marks);
        }
        if self
            .unmapped_unit
            .is_none_or(|at| packet.at.saturating_sub(at) >= UNMAPPED_UNIT)
        {
            self.unmapped_unit = Some(packet.at);
            let mut unit = self.out.unit(Track::Other, Init::default());
            // A place to cut, as in a stream of an unknown container: it is unknown where decoding can begin.
            unit.key = Key::Closed;
            self.out.put(packet.at, [Some(MarkKind::Unit(unit)), None, None], marks);
        }
    }

    /// Reports the absence of a PMT, once.
    fn report(&mut self, at: u64, marks: &mut Vec<Mark>) {
        if !std::mem::replace(&mut self.is_reported, true) {
            marks.push(Mark {
                at,
                kind: MarkKind::Notice(Notice::NoProgram),
            });
        }
    }

    /// Decides the first undecided unit, for which the marks behind it wait.
    pub(super) fn release(&mut self, marks: &mut Vec<Mark>) {
        if let Some(slot) = self.out.front() {
            self.units.force(slot, &mut self.out, marks);
        }
    }

    /// Decides everything and stops holding packets for the first PMT. `end` is the offset up to which packets have been read.
    pub(super) fn give_up(&mut self, end: u64, marks: &mut Vec<Mark>) {
        self.release(marks);
        if self.lacks_program() {
            // In front of the first unit: the missing PMT is the reason why that is no key unit.
            let at = if self.out.has_begun() {
                self.settled(end)
            } else {
                self.out.origin()
            };
            self.report(at, marks);
        }
        self.is_too_early |= !self.held.is_empty();
        self.held = Vec::new();
        self.begin(end, marks);
    }

    /// Returns whether packets with payload have come without a PMT that describes them.
    pub(super) fn lacks_program(&self) -> bool {
        !self.mapped && !self.early.is_empty()
    }

    /// Holds a packet that came before the first PMT.
    fn hold(&mut self, packet: &Packet<'_>) {
        if self.mapped {
            return;
        }
        if packet.payload.is_some() && !self.early.contains(&packet.pid) {
            self.early.push(packet.pid);
        }
        let first = self.held.first().map_or(packet.at, |held| held.at);
        // Held packets keep `settled` at the first of them, and with it every chunk. So their number has a limit.
        if packet.at.saturating_sub(first) > MAX_EARLY {
            self.is_too_early = true;
            self.held = Vec::new();
        }
        if !self.is_too_early {
            self.held.push(EarlyPacket {
                at: packet.at,
                raw: packet.raw.into(),
            });
        }
    }

    /// Reads the packets that came before the first PMT, if a unit of the PMT's streams begins in them.
    fn replay(&mut self, marks: &mut Vec<Mark>) {
        let held = std::mem::take(&mut self.held);
        let packets: Vec<Packet<'_>> = held
            .iter()
            .filter_map(|held| {
                let layout = Layout::ALL.into_iter().find(|layout| layout.stride == held.raw.len())?;
                Packet::parse(&held.raw, layout, held.at)
            })
            .collect();
        let video = self.units.video_pid();
        let opens = |packet: &Packet<'_>| packet.start && video.is_none_or(|pid| pid == packet.pid);
        if !packets.iter().any(opens) {
            return;
        }
        // The head of the input stays empty nevertheless: the first chunk is a verbatim copy of the input.
        self.out.begin(u64::MAX, marks);
        // The video packets are read now, so none of them counts as unread.
        self.early.retain(|pid| Some(*pid) != video);
        for packet in packets {
            let role = self.roles.get(usize::from(packet.pid)).copied().unwrap_or(role::UNKNOWN);
            let Some(index) = role.checked_sub(role::STREAM).map(usize::from) else {
                continue;
            };
            let Some(payload) = packet.payload else {
                self.units.pass_clock(index, &packet);
                continue;
            };
            let continuity = self.units.continuity(index, &packet, payload);
            if continuity == Continuity::Gap {
                self.units.flush_sound(&mut self.out, marks);
                self.units.close(index, &mut self.out, marks);
                self.lose(index, packet.at, packet.at, marks);
            }
            if continuity != Continuity::Duplicate && (packet.start || self.units.joins(index)) {
                let place = StartPoint {
                    at: packet.at,
                    head: self.tables.copies(),
                };
                self.units.begin(index, &packet, payload, place, &mut self.out, marks);
            } else if continuity == Continuity::Next {
                self.units.extend(index, payload, &mut self.out, marks);
            }
        }
        self.units.flush_sound(&mut self.out, marks);
    }

    /// Reports that packets of a stream are missing before the one at `packet`: emits damage at `at`, once for each loss. The
    /// other streams show the same loss only with their next packets. If a key unit begins before those, a second mark would flag
    /// two chunks for one loss.
    fn lose(&mut self, index: usize, packet: u64, at: u64, marks: &mut Vec<Mark>) {
        if self.units.before(index) >= self.damaged_at {
            self.damaged_at = packet;
            self.out.put(at, [Some(MarkKind::Damage), None, None], marks);
        }
    }

    /// Emits damage at `at`: bytes that are no packet, or a broken packet. The continuity counters show later which PID lost
    /// data.
    pub(super) fn damage(&mut self, at: u64, marks: &mut Vec<Mark>) {
        self.tables.end_run();
        // The gap in the continuity counter shows later, maybe in the next chunk: it must not count as another loss.
        self.damaged_at = at;
        // Replaying the held packets later would emit marks below this one.
        self.is_too_early |= !self.held.is_empty();
        self.held = Vec::new();
        self.units.flush_sound(&mut self.out, marks);
        self.out.put(at, [Some(MarkKind::Damage), None, None], marks);
    }

    /// Handles a loss of packets of any PID.
    pub(super) fn lost_sync(&mut self, marks: &mut Vec<Mark>) {
        self.units.close_all(&mut self.out, marks);
        self.forget();
    }

    /// Forgets tables and continuity counters: the next packets do not continue the last ones.
    fn forget(&mut self) {
        self.tables.reset();
        self.units.reset_counters();
    }

    /// Drops partially read packets and tables. Moves the first unit to `origin` if no mark has been emitted.
    pub(super) fn restart(&mut self, origin: u64) {
        self.forget();
        self.units.restart();
        self.held = Vec::new();
        self.out.restart(origin);
    }

    /// Ends the input at `end`.
    pub(super) fn finish(&mut self, end: u64, marks: &mut Vec<Mark>) {
        self.units.close_all(&mut self.out, marks);
        self.tables.end_run();
        self.held = Vec::new();
        self.out.begin(end, marks);
        if self.lacks_program() {
            self.report(end, marks);
        }
        if let Some(kind) = self.units.picture_end() {
            self.out.put(end, [Some(kind), None, None], marks);
        }
    }

    /// Emits the first unit if bytes above its offset are settled. `end` is the offset up to which packets have been read.
    pub(super) fn begin(&mut self, end: u64, marks: &mut Vec<Mark>) {
        if !self.out.has_begun() {
            self.out.begin(self.settled(end), marks);
        }
    }

    /// Returns the offset below which everything is decided. `end` is the offset up to which packets have been read.
    pub(super) fn settled(&self, end: u64) -> u64 {
        let undecided = self.out.first_undecided().or(self.tables.run_start()).unwrap_or(end);
        self.held.first().map_or(undecided, |held| held.at.min(undecided))
    }

    fn elementary(&mut self, index: usize, packet: &Packet<'_>, marks: &mut Vec<Mark>) {
        let Some(payload) = packet.payload else {
            self.units.pass_clock(index, packet);
            self.tables.pad_run();
            return;
        };
        let continuity = self.units.continuity(index, packet, payload);
        // A packet may be sent twice (2.4.3.3): its payload counts once.
        if continuity == Continuity::Duplicate {
            self.tables.end_run();
            return;
        }
        let begins = packet.start || self.units.joins(index);
        if !begins {
            self.units.pass_sound(index, payload, &mut self.out, marks);
        }
        if continuity == Continuity::Gap {
            self.units.flush_sound(&mut self.out, marks);
            self.units.close(index, &mut self.out, marks);
            // The unit begins at the tables in front of this packet. Damage at the packet would be behind the unit, out of order.
            let at = if begins { self.tables.place(packet.at).at } else { packet.at };
            self.lose(index, packet.at, at, marks);
        }
        if begins {
            let place = self.tables.place(packet.at);
            self.units.begin(index, packet, payload, place, &mut self.out, marks);
        } else if continuity == Continuity::Next {
            self.units.extend(index, payload, &mut self.out, marks);
        }
        self.tables.end_run();
    }

    /// Takes the first PMT, or one whose content differs from the previous one.
    fn configure(&mut self, new: NewMap, marks: &mut Vec<Mark>) {
        let streams: Vec<Elementary> = new
            .streams
            .into_iter()
            // A damaged PMT may name the PID of the PAT, of a PMT or of null packets: these keep their roles.
            .filter(|es| es.kind != Kind::Sections && es.pid != 0 && es.pid < 0x1fff)
            .filter(|es| self.tables.map_pids().all(|pid| pid != es.pid))
            .take(MAX_STREAMS)
            .collect();
        // mpegtsmux 1.26 starts before all its pads have caps and announces late sound in a second PMT; others drop sound or
        // change a descriptor. All of them do so in the middle of a group of pictures: a chunk that began there could not be
        // decoded before the next key unit. Only pictures with another decoder need the chunk to begin at the tables.
        self.units.flush_sound(&mut self.out, marks);
        let keeps_video = !new.first && self.units.keeps_video(&streams);
        if keeps_video {
            self.units.close_missing(&streams, &mut self.out, marks);
        } else {
            self.units.close_all(&mut self.out, marks);
        }
        self.units.configure(streams, &mut self.out);
        self.assign();
        if keeps_video {
            self.out
                .put(new.place.at, [Some(MarkKind::StreamsChanged), None, None], marks);
            return;
        }
        if new.first {
            self.replay(marks);
        }
        let init = Init {
            head: new.place.head,
            tail: bytes::Bytes::new(),
            info: self.out.info.clone(),
        };
        if self.unmapped_unit.take().is_some() {
            // In the open chunk, cut by arrival, no picture was recognised: a cut is due at the next key unit.
            self.out
                .put(new.place.at, [Some(MarkKind::StreamsChanged), None, None], marks);
        }
        if new.first {
            // Video packets came before the PMT and were not read: the stream was joined in the middle of a picture.
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
        self.held = Vec::new();
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
        // After the streams, so that a damaged PMT cannot turn the PID of a PMT into that of a stream.
        let maps: Vec<u16> = self.tables.map_pids().collect();
        for pid in maps {
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
