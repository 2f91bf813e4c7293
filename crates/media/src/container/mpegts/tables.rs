//! The PAT and PMT in force, verbatim copies of the packets they came in, and the run of table packets just passed.
//!
//! PURE. A run is directly before a unit: if it holds the PAT and the PMT, a chunk begins with it and needs no
//! header; else the copies are its header.

use bytes::{Bytes, BytesMut};

use super::super::Fault;
use super::packet::Packet;
use super::psi::{self, Elementary, Section, Sections};

/// Longest run of table and null packets that is held back for the unit after it, in packets.
const MAX_RUN: u32 = 1024;

/// Most programs of a PAT that are looked for.
const MAX_PROGRAMS: usize = 64;

/// A program that the PAT lists, and what has come of its PMT.
#[derive(Debug)]
struct Listed {
    number: u16,
    pid: u16,
    map: Sections,
}

/// Where a chunk may begin, and with which header.
#[derive(Clone, Debug)]
pub(super) struct StartPoint {
    /// Offset of the first packet.
    pub(super) at: u64,
    /// Packets in front of it.
    pub(super) head: Bytes,
}

/// Consecutive packets of tables.
#[derive(Debug)]
struct Run {
    start: u64,
    packets: u32,
    /// Where its PAT was whole.
    pat: Option<u64>,
    /// Whether a PMT began after that, and was whole.
    map: bool,
}

/// A program map that differs from the one in force.
#[derive(Debug)]
pub(super) struct NewMap {
    pub(super) streams: Vec<Elementary>,
    /// Where the chunk that has it begins.
    pub(super) place: StartPoint,
    /// Whether there was none before.
    pub(super) first: bool,
}

/// Follows PAT and PMT.
#[derive(Debug, Default)]
pub(super) struct Tables {
    pat: Sections,
    map: Sections,
    pat_copy: Bytes,
    map_copy: Bytes,
    /// `pat_copy` and `map_copy` in one, while they stay.
    head: Option<Bytes>,
    /// program_number and PID of the PMT that is followed.
    program: Option<(u16, u16)>,
    /// The programs of a PAT that lists several, each with its PMT, until one that is there is followed; then the others.
    listed: Vec<Listed>,
    /// PID and content of the PMT in force.
    config: Option<(u16, Vec<u8>)>,
    run: Option<Run>,
    done: Vec<Section>,
}

impl Tables {
    /// PID of the PMT.
    pub(super) fn map_pid(&self) -> Option<u16> {
        self.program.map(|(_, pid)| pid)
    }

    /// PIDs of the PMTs of all programs that the PAT lists.
    pub(super) fn map_pids(&self) -> impl Iterator<Item = u16> {
        self.map_pid().into_iter().chain(self.listed.iter().map(|listed| listed.pid))
    }

    /// The header of a chunk that begins away from the tables.
    pub(super) fn copies(&mut self) -> Bytes {
        self.head()
    }

    /// Offset of the run that may yet belong to the next unit.
    pub(super) fn run_start(&self) -> Option<u64> {
        self.run.as_ref().map(|run| run.start)
    }

    /// Ends the run: a packet without a table follows.
    pub(super) fn end_run(&mut self) {
        self.run = None;
    }

    /// A null packet, or one without payload, follows: it does not begin a run.
    pub(super) fn pad_run(&mut self) {
        if let Some(run) = &mut self.run {
            run.packets += 1;
            if run.packets > MAX_RUN {
                self.run = None;
            }
        }
    }

    /// A packet of any table follows.
    pub(super) fn extend_run(&mut self, at: u64) {
        self.pad_run();
        self.run.get_or_insert(Run {
            start: at,
            packets: 1,
            pat: None,
            map: false,
        });
    }

    /// Forgets tables that are half there.
    pub(super) fn reset(&mut self) {
        self.pat.reset();
        self.map.reset();
        self.listed.iter_mut().for_each(|listed| listed.map.reset());
        self.run = None;
    }

    /// A packet of the PAT. True where the PMT has another PID now.
    pub(super) fn push_pat(&mut self, packet: &Packet<'_>) -> Result<bool, Fault> {
        self.extend_run(packet.at);
        // Taken out and put back: nothing is allocated for each packet.
        let mut done = std::mem::take(&mut self.done);
        self.pat.push(packet, &mut done);
        let mut moved = false;
        for section in done.drain(..) {
            let Some(programs) = psi::programs(&section.data) else {
                continue;
            };
            let Some(&only) = programs.first() else { continue };
            let is_followed = self.program.is_some_and(|program| programs.contains(&program));
            // A program that the PAT lists no more is not waited for.
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
                // The PMT of another program must not get into a header.
                self.map_copy = Bytes::new();
            }
            self.adopt_pat(packet.at, section, moved);
        }
        self.done = done;
        Ok(moved)
    }

    /// Keeps the packets of a PAT; `moved` means that the PMT is another now.
    fn adopt_pat(&mut self, at: u64, section: Section, moved: bool) {
        self.pat_copy = section.packets;
        self.head = None;
        if let Some(run) = self.run.as_mut().filter(|run| section.since >= run.start) {
            // A PMT earlier in this run is of the program before.
            run.map &= !moved;
            run.pat = Some(at);
        }
    }

    /// Gathers the PMTs of several programs: the first that comes is the one that is carried.
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

    /// A packet of the PMT's PID.
    ///
    /// # Errors
    /// [`Fault::Programs`] where a second program is carried.
    pub(super) fn push_map(&mut self, packet: &Packet<'_>) -> Result<Option<NewMap>, Fault> {
        self.extend_run(packet.at);
        self.choose(packet)?;
        Ok(self.follow_map(packet))
    }

    /// Looks for the one program that is carried, of those the PAT lists.
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
                // Two PMTs have come: both programs are carried, and a chunk can have the tables of one.
                return Err(Fault::Programs(count));
            }
            self.program = Some((number, packet.pid));
            // The packet is read again, as one of the program that is followed.
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
            // In front of its PAT a PMT opens no chunk: who begins to read there does not know its PID.
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

    /// Returns where a chunk may begin whose first unit is at `at`, directly after the last packet.
    pub(super) fn place(&mut self, at: u64) -> StartPoint {
        match &self.run {
            Some(run) if run.map => StartPoint {
                at: run.start,
                head: Bytes::new(),
            },
            _ => StartPoint { at, head: self.head() },
        }
    }

    /// Returns where a chunk may begin that opens with the current run; `whole` means that the run holds the PMT.
    fn place_of_run(&mut self, at: u64, whole: bool) -> StartPoint {
        let Some(run) = &self.run else {
            return StartPoint { at, head: self.head() };
        };
        let start = run.start;
        let head = match (run.map, whole) {
            (true, _) => Bytes::new(),
            // The run opens with the new PMT: its PAT alone is missing.
            (false, true) if run.pat.is_none() => self.pat_copy.clone(),
            _ => self.head(),
        };
        StartPoint { at: start, head }
    }

    fn head(&mut self) -> Bytes {
        let (pat, map) = (&self.pat_copy, &self.map_copy);
        self.head
            // Joined once: every unit carries it, and the tables change seldom.
            .get_or_insert_with(|| {
                let mut head = BytesMut::with_capacity(pat.len() + map.len());
                head.extend_from_slice(pat);
                head.extend_from_slice(map);
                head.freeze()
            })
            .clone()
    }
}
