//! Tracks the PAT and PMT in force, verbatim copies of their packets, and the current run of consecutive table packets.
//!
//! PURE. If the run directly before a unit contains the PAT and the PMT, a chunk begins with the run and needs no header.
//! Otherwise the copies are its header.

use bytes::{Bytes, BytesMut};

use super::super::Fault;
use super::packet::Packet;
use super::psi::{self, Elementary, Section, Sections};

/// Maximum number of table and null packets in a run: a run is held back for the unit after it.
const MAX_RUN: u32 = 1024;

/// Maximum number of programs of a PAT whose PMTs are gathered.
const MAX_PROGRAMS: usize = 64;

/// A program that the PAT lists, and the gathered sections of its PMT.
#[derive(Debug)]
struct Listed {
    number: u16,
    pid: u16,
    map: Sections,
}

/// Where a chunk may begin, and with which header.
#[derive(Clone, Debug)]
pub(super) struct StartPoint {
    /// Offset of the chunk's first packet.
    pub(super) at: u64,
    /// Header: table packets in front of it.
    pub(super) head: Bytes,
}

/// Consecutive packets of tables.
#[derive(Debug)]
struct Run {
    start: u64,
    packets: u32,
    /// Offset of the packet that completed its PAT.
    pat: Option<u64>,
    /// Whether it contains a complete PMT that began behind the PAT.
    map: bool,
}

/// A program map that differs from the one in force.
#[derive(Debug)]
pub(super) struct NewMap {
    pub(super) streams: Vec<Elementary>,
    /// Where the chunk that opens with it begins.
    pub(super) place: StartPoint,
    /// Whether it is the first program map of the stream.
    pub(super) first: bool,
}

/// Tracks PAT and PMT.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pat: Sections,
    map: Sections,
    pat_copy: Bytes,
    map_copy: Bytes,
    /// `pat_copy` and `map_copy` joined; `None` after one of them has changed.
    head: Option<Bytes>,
    /// program_number and PID of the PMT that is followed.
    program: Option<(u16, u16)>,
    /// The programs of a PAT that lists several, except the one that is followed.
    listed: Vec<Listed>,
    /// PID and content of the PMT in force.
    config: Option<(u16, Vec<u8>)>,
    run: Option<Run>,
    done: Vec<Section>,
}

impl Tables {
    /// Returns the PID of the PMT that is followed.
    pub(super) fn map_pid(&self) -> Option<u16> {
        self.program.map(|(_, pid)| pid)
    }

    /// Returns the PIDs of the PMTs of all programs that the PAT lists.
    pub(super) fn map_pids(&self) -> impl Iterator<Item = u16> {
        self.map_pid().into_iter().chain(self.listed.iter().map(|listed| listed.pid))
    }

    /// Returns the header of a chunk that does not begin with the tables.
    pub(super) fn copies(&mut self) -> Bytes {
        self.head()
    }

    /// Returns the offset of the current run, with which a chunk may begin.
    pub(super) fn run_start(&self) -> Option<u64> {
        self.run.as_ref().map(|run| run.start)
    }

    /// Ends the run before a packet that is no table.
    pub(super) fn end_run(&mut self) {
        self.run = None;
    }

    /// Adds a null packet, or one without payload, to the run. Such a packet does not begin a run.
    pub(super) fn pad_run(&mut self) {
        if let Some(run) = &mut self.run {
            run.packets += 1;
            if run.packets > MAX_RUN {
                self.run = None;
            }
        }
    }

    /// Adds a packet of any table to the run, or begins one.
    pub(super) fn extend_run(&mut self, at: u64) {
        self.pad_run();
        self.run.get_or_insert(Run {
            start: at,
            packets: 1,
            pat: None,
            map: false,
        });
    }

    /// Drops incomplete tables and the run.
    pub(super) fn reset(&mut self) {
        self.pat.reset();
        self.map.reset();
        self.listed.iter_mut().for_each(|listed| listed.map.reset());
        self.run = None;
    }

    /// Takes a packet of the PAT. Returns whether the PID of the PMT has changed.
    pub(super) fn push_pat(&mut self, packet: &Packet<'_>) -> Result<bool, Fault> {
        self.extend_run(packet.at);
        // Taken out and put back to avoid an allocation for each packet.
        let mut done = std::mem::take(&mut self.done);
        self.pat.push(packet, &mut done);
        let mut moved = false;
        for section in done.drain(..) {
            let Some(programs) = psi::programs(&section.data) else {
                continue;
            };
            let Some(&only) = programs.first() else { continue };
            let is_followed = self.program.is_some_and(|program| programs.contains(&program));
            // Programs that the PAT no longer lists are forgotten.
            self.listed.retain(|listed| programs.contains(&(listed.number, listed.pid)));
            if programs.len() > 1 && !is_followed {
                moved |= self.program.take().is_some() || self.listed.is_empty();
                self.list(&programs);
                self.adopt_pat(packet.at, section, moved);
                continue;
            }
            let (number, pid) = self.program.filter(|_| is_followed).unwrap_or(only);
            if self.program != Some((number, pid)) {
                moved = true;
                self.program = Some((number, pid));
                self.map.reset();
                // A header must not contain the PMT of another program.
                self.map_copy = Bytes::new();
            }
            self.adopt_pat(packet.at, section, moved);
        }
        self.done = done;
        Ok(moved)
    }

    /// Stores the packets of a PAT; `moved` means that another PMT is followed now.
    fn adopt_pat(&mut self, at: u64, section: Section, moved: bool) {
        self.pat_copy = section.packets;
        self.head = None;
        if let Some(run) = self.run.as_mut().filter(|run| section.since >= run.start) {
            // A PMT earlier in this run belongs to the previous program.
            run.map &= !moved;
            run.pat = Some(at);
        }
    }

    /// Starts to gather the PMTs of several programs. The first PMT that comes shows which program the stream contains.
    fn list(&mut self, programs: &[(u16, u16)]) {
        for &(number, pid) in programs.iter().take(MAX_PROGRAMS) {
            if self.listed.iter().all(|listed| listed.number != number) {
                self.listed.push(Listed {
                    number,
                    pid,
                    map: Sections::default(),
                });
            }
        }
    }

    /// Takes a packet of the PID of a PMT. Returns the program map if it is new.
    ///
    /// # Errors
    /// [`Fault::Programs`] if the stream contains a second program.
    pub(super) fn push_map(&mut self, packet: &Packet<'_>) -> Result<Option<NewMap>, Fault> {
        self.extend_run(packet.at);
        self.choose(packet)?;
        Ok(self.follow_map(packet))
    }

    /// Finds out which of the programs in the PAT the stream contains: a PAT may list programs that the stream does not contain.
    ///
    /// # Errors
    /// [`Fault::Programs`] if the stream contains a second one.
    fn choose(&mut self, packet: &Packet<'_>) -> Result<(), Fault> {
        let count = self.listed.len() + usize::from(self.program.is_some());
        let mut done = Vec::new();
        for listed in self.listed.iter_mut().filter(|listed| listed.pid == packet.pid) {
            let begun = listed.map.clone();
            listed.map.push(packet, &mut done);
            let number = listed.number;
            if !done
                .drain(..)
                .any(|section: Section| psi::map(&section.data, number).is_some())
            {
                continue;
            }
            if self.program.is_some() {
                // Two PMTs have come, so the stream contains both programs. But the header of a chunk has the tables of only one.
                return Err(Fault::Programs(count));
            }
            self.program = Some((number, packet.pid));
            // `follow_map` reads the same packet again, so it gets the state before this packet.
            self.map = begun;
        }
        let program = self.program;
        self.listed.retain(|listed| Some((listed.number, listed.pid)) != program);
        Ok(())
    }

    fn follow_map(&mut self, packet: &Packet<'_>) -> Option<NewMap> {
        let (number, pid) = self.program.filter(|(_, pid)| *pid == packet.pid)?;
        let mut done = std::mem::take(&mut self.done);
        self.map.push(packet, &mut done);
        let mut new = None;
        for section in done.drain(..) {
            let Some(map) = psi::map(&section.data, number) else {
                continue;
            };
            self.map_copy = section.packets;
            self.head = None;
            let run = self.run.as_mut().filter(|run| section.since >= run.start);
            let whole = run.is_some();
            // A chunk must not begin with a PMT in front of its PAT: a reader would not know the PID of the PMT yet.
            if let Some(run) = run.filter(|run| run.pat.is_some_and(|pat| section.since > pat)) {
                run.map = true;
            }
            if self
                .config
                .as_ref()
                .is_none_or(|(p, config)| *p != pid || *config != map.config)
            {
                let first = self.config.replace((pid, map.config)).is_none();
                new = Some(NewMap {
                    streams: map.streams,
                    place: self.place_of_run(packet.at, whole),
                    first,
                });
            }
        }
        self.done = done;
        new
    }

    /// Returns where a chunk begins if its first unit is at `at`, directly behind the last packet.
    pub(super) fn place(&mut self, at: u64) -> StartPoint {
        match &self.run {
            Some(run) if run.map => StartPoint {
                at: run.start,
                head: Bytes::new(),
            },
            _ => StartPoint { at, head: self.head() },
        }
    }

    /// Returns where a chunk begins that opens with the current run; `whole` means that the run contains the complete PMT.
    fn place_of_run(&mut self, at: u64, whole: bool) -> StartPoint {
        let Some(run) = &self.run else {
            return StartPoint { at, head: self.head() };
        };
        let start = run.start;
        let head = match (run.map, whole) {
            (true, _) => Bytes::new(),
            // The run contains the new PMT but no PAT: the header is the PAT only.
            (false, true) if run.pat.is_none() => self.pat_copy.clone(),
            _ => self.head(),
        };
        StartPoint { at: start, head }
    }

    fn head(&mut self) -> Bytes {
        let (pat, map) = (&self.pat_copy, &self.map_copy);
        self.head
            // Joined once and shared: every unit has it, and the tables rarely change.
            .get_or_insert_with(|| {
                let mut head = BytesMut::with_capacity(pat.len() + map.len());
                head.extend_from_slice(pat);
                head.extend_from_slice(map);
                head.freeze()
            })
            .clone()
    }
}
