//! The queue of one sink against a naive model of it, step by step.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use proptest::prelude::*;

use super::attempt::Attempted;
use super::chunk::NameFallback;
use super::chunk::{Chunk, MemoryChunk, Place, Summary};
use super::completion::{Confirmed, Due};
use super::queue::{Charged, NoRoom, Overflow, UploadLimits, UploadQueue};
use super::report::Report;
use super::ticket::Ticket;
use gcstreamer_storage::{Body, Class, ObjectRequest, WriteError};

/// An event in the life of the queue.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A buffer arrives.
    Charge(u64, Overflow),
    /// Bytes of the open chunk turn out to belong to no chunk.
    Release(u64),
    /// The open chunk is closed.
    Queue,
    /// The driver asks what is due.
    Send,
    /// One of the attempts ends.
    Finish(usize, Option<Class>),
    /// Other settings: memory and concurrency.
    Settings(u64, usize),
    Interrupt(bool),
    /// Time passes, ms.
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let overflow = prop_oneof![Just(Overflow::Block), Just(Overflow::DropOldest), Just(Overflow::Error)];
    let failure = prop_oneof![
        4 => Just(None),
        2 => Just(Some(Class::Transient)),
        1 => Just(Some(Class::Throttled)),
        1 => Just(Some(Class::Permanent)),
    ];
    let step = prop_oneof![
        8 => (1..60u64, overflow).prop_map(|(bytes, overflow)| Step::Charge(bytes, overflow)),
        1 => (1..30u64).prop_map(Step::Release),
        4 => Just(Step::Queue),
        4 => Just(Step::Send),
        4 => (0..8usize, failure).prop_map(|(which, failure)| Step::Finish(which, failure)),
        1 => (20..200u64, 1..5usize).prop_map(|(memory, uploads)| Step::Settings(memory, uploads)),
        1 => any::<bool>().prop_map(Step::Interrupt),
        2 => (1..90_000u64).prop_map(Step::Pass),
    ];
    prop::collection::vec(step, 1..120)
}

/// The expected state.
#[derive(Debug, Default)]
struct Model {
    max_memory: u64,
    /// Bytes of the open chunk.
    open: u64,
    /// Closed chunks that are pending, and their bytes.
    chunks: BTreeMap<u64, u64>,
    /// Attempts in the order in which they began.
    in_flight: Vec<u64>,
    next: u64,
    received: u64,
    uploaded: BTreeSet<u64>,
    dropped: BTreeSet<u64>,
    interrupted: bool,
    refused: bool,
}

impl Model {
    fn memory(&self) -> u64 {
        self.open + self.chunks.values().sum::<u64>()
    }

    /// Returns the expected result of a charge; `None` if it would wait.
    fn charge(&mut self, bytes: u64, overflow: Overflow) -> Option<Charged> {
        loop {
            if self.memory() == 0 || self.memory() + bytes <= self.max_memory {
                self.open += bytes;
                self.received += bytes;
                return Some(Charged::Yes);
            }
            if self.interrupted {
                return Some(Charged::No(NoRoom::Interrupted));
            }
            if self.refused && !self.uploaded.is_empty() {
                return Some(Charged::No(NoRoom::Refused));
            }
            if self.chunks.is_empty() {
                return Some(Charged::No(NoRoom::Nothing));
            }
            match overflow {
                Overflow::Error => return Some(Charged::No(NoRoom::Full)),
                Overflow::Block => return None,
                Overflow::DropOldest if self.chunks.len() == 1 && self.in_flight.len() == 1 => {
                    return Some(Charged::No(NoRoom::CutOpen));
                }
                Overflow::DropOldest => {
                    let waiting = self.chunks.keys().find(|s| !self.in_flight.contains(s));
                    let other = self.chunks.keys().find(|s| self.in_flight.first() != Some(s));
                    let oldest = *waiting.or(other).or(self.chunks.keys().next())?;
                    self.chunks.remove(&oldest);
                    self.in_flight.retain(|&s| s != oldest);
                    self.dropped.insert(oldest);
                }
            }
        }
    }
}

/// The queue and its model side by side.
struct Pair {
    uploads: UploadQueue,
    model: Model,
    /// Attempts that were not aborted: ticket and sequence number.
    attempts: Vec<(Ticket, u64)>,
    reported_uploaded: Vec<u64>,
    reported_dropped: Vec<u64>,
}

pub(super) fn limits(max_memory: u64, max_uploads: usize) -> UploadLimits {
    UploadLimits {
        max_uploads,
        max_memory,
        max_time: 1_000_000_000,
        retry_timeout: None,
    }
}

impl Pair {
    fn new() -> Self {
        Self {
            uploads: UploadQueue::new(limits(100, 3), 1, Box::new(|| {})),
            model: Model {
                max_memory: 100,
                ..Model::default()
            },
            attempts: Vec::new(),
            reported_uploaded: Vec::new(),
            reported_dropped: Vec::new(),
        }
    }

    async fn step(&mut self, step: Step) {
        match step {
            Step::Charge(bytes, overflow) => self.charge(bytes, overflow),
            Step::Release(bytes) => {
                let bytes = bytes.min(self.model.open);
                self.model.open -= bytes;
                self.uploads.release(bytes);
            }
            Step::Queue => self.queue(),
            Step::Send => self.send(),
            Step::Finish(which, failure) if !self.attempts.is_empty() => {
                let (ticket, sequence) = self.attempts.remove(which % self.attempts.len());
                self.finish(ticket, sequence, failure);
            }
            Step::Finish(..) => {}
            Step::Settings(memory, uploads) => {
                self.model.max_memory = memory;
                self.uploads.set_limits(limits(memory, uploads));
            }
            Step::Interrupt(interrupted) => {
                self.model.interrupted = interrupted;
                self.uploads.interrupt(interrupted);
            }
            Step::Pass(ms) => tokio::time::advance(Duration::from_millis(ms)).await,
        }
        self.compare();
    }

    fn charge(&mut self, bytes: u64, overflow: Overflow) {
        let before = (self.model.memory(), self.model.dropped.len());
        let Some(expected) = self.model.charge(bytes, overflow) else {
            return;
        };
        assert_eq!(self.uploads.charge(bytes, overflow), expected);
        let memory = self.model.memory();
        // The only exception is a single buffer that is larger than the whole memory.
        let alone = memory == bytes;
        assert!(
            !expected.is_taken() || memory <= self.model.max_memory || alone,
            "{before:?} and {bytes}: {memory}"
        );
        let model = &self.model;
        self.attempts.retain(|(_, sequence)| model.chunks.contains_key(sequence));
    }

    fn queue(&mut self) {
        let (bytes, sequence) = (std::mem::take(&mut self.model.open), self.model.next);
        self.model.next += 1;
        self.model.chunks.insert(sequence, bytes);
        self.uploads.created(&"0a1b2c3d4e".into(), sequence);
        self.uploads.queue(chunk(sequence, bytes));
    }

    fn send(&mut self) {
        let Due::Send { chunks, .. } = self.uploads.due() else {
            panic!("it was not stopped")
        };
        for (ticket, chunk) in chunks {
            let sequence = chunk.summary.sequence;
            assert!(self.model.chunks.contains_key(&sequence), "{sequence} is there");
            assert!(!self.model.in_flight.contains(&sequence), "{sequence} is sent once at a time");
            self.model.in_flight.push(sequence);
            self.attempts.push((ticket, sequence));
        }
    }

    fn finish(&mut self, ticket: Ticket, sequence: u64, failure: Option<Class>) {
        self.model.in_flight.retain(|&s| s != sequence);
        let attempted = match failure {
            None => {
                self.model.chunks.remove(&sequence);
                self.model.uploaded.insert(sequence);
                self.model.refused = false;
                Attempted::Stored {
                    stored: None,
                    name: format!("x{sequence}"),
                    device: "cam".to_owned(),
                    crc32c: 0,
                    start: None,
                    warning: None,
                }
            }
            Some(class) => {
                self.model.refused |= class == Class::Permanent;
                failed(class)
            }
        };
        self.uploads.finished(ticket, attempted, Confirmed::No);
    }

    fn compare(&mut self) {
        let (snapshot, model) = (self.uploads.snapshot(), &self.model);
        assert_eq!(snapshot.memory, model.memory(), "memory is what is held");
        assert_eq!(snapshot.in_flight, model.in_flight.len() as u64);
        assert_eq!(
            (snapshot.pending.chunks, snapshot.pending.bytes),
            (model.chunks.len() as u64, model.chunks.values().sum())
        );
        let stats = snapshot.stats;
        assert_eq!(
            (stats.created, stats.uploaded, stats.dropped, stats.bytes_received),
            (
                model.next,
                model.uploaded.len() as u64,
                model.dropped.len() as u64,
                model.received
            )
        );
        while let Some(report) = self.uploads.take_report() {
            match report {
                Report::Uploaded { summary, .. } => self.reported_uploaded.push(summary.sequence),
                Report::Dropped { summary, .. } => self.reported_dropped.push(summary.sequence),
                _ => {}
            }
        }
    }

    /// Checks that every chunk has ended in exactly one way, and that this was reported once.
    fn end(mut self) {
        let (lost, left) = self.uploads.abandon("drain-timeout", true);
        assert_eq!((lost.chunks, left.chunks), (self.model.chunks.len() as u64, 0));
        let rest = std::mem::take(&mut self.model.chunks);
        self.model.dropped.extend(rest.into_keys());
        self.model.in_flight.clear();
        // An attempt that ends now has no effect any more.
        for (ticket, _) in std::mem::take(&mut self.attempts) {
            let stored = Attempted::Stored {
                stored: None,
                name: "late".to_owned(),
                device: "cam".to_owned(),
                crc32c: 0,
                start: None,
                warning: None,
            };
            self.uploads.finished(ticket, stored, Confirmed::No);
        }
        self.compare();
        let mut reported: Vec<u64> = self.reported_uploaded.iter().chain(&self.reported_dropped).copied().collect();
        reported.sort_unstable();
        assert!(
            reported.iter().copied().eq(0..self.model.next),
            "{reported:?} of {}",
            self.model.next
        );
        assert_eq!(self.reported_dropped.into_iter().collect::<BTreeSet<_>>(), self.model.dropped);
    }
}

pub(super) fn chunk(sequence: u64, bytes: u64) -> Chunk {
    let request = ObjectRequest {
        bucket: "b".into(),
        name: format!("x{sequence}"),
        content_type: String::new(),
        cache_control: None,
        storage_class: None,
        kms_key: None,
        metadata: BTreeMap::new(),
        custom_time: None,
        crc32c: 0,
        size: bytes,
        body: Body::from_pieces([Bytes::new()]),
    };
    let naming = NameFallback {
        session: "0a1b2c3d4e".into(),
        sequence,
        own: true,
        rebuilt: false,
    };
    Chunk {
        summary: Summary {
            session: "0a1b2c3d4e".into(),
            sequence,
            start: 0,
            duration: 1,
            running: None,
            size: bytes,
        },
        place: Place::Memory(Arc::new(MemoryChunk {
            request,
            naming,
            sent: Arc::default(),
            charged: bytes,
            head: bytes::Bytes::new(),
            entry: None,
            part: None,
        })),
        recovered: false,
        link_key: None,
        renamed: None,
        closed_at: 0,
    }
}

pub(super) fn error(class: Class) -> WriteError {
    WriteError {
        class,
        http_status: None,
        reason: None,
        retry_after: None,
        server_date: None,
        bad_generation: None,
        may_be_stored: false,
        message: "no".to_owned(),
    }
}

/// Returns the end of an attempt that failed in this way.
pub(super) fn failed(class: Class) -> Attempted {
    Attempted::Failed {
        error: error(class),
        name: None,
        warning: None,
    }
}

/// Returns the chunks that are to be sent now.
pub(super) fn due(uploads: &UploadQueue) -> Vec<(Ticket, Arc<Chunk>)> {
    let Due::Send { chunks, .. } = uploads.due() else {
        panic!("it has stopped")
    };
    chunks
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_queue_holds_what_its_model_holds_and_loses_nothing_unsaid(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let mut pair = Pair::new();
            for step in steps {
                pair.step(step).await;
            }
            pair.end();
        });
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_chunk_that_is_given_up_is_reported_beside_its_gap_and_later_ones_are_gaps() {
    let uploads = UploadQueue::new(
        UploadLimits {
            retry_timeout: Some(5_000_000_000),
            ..limits(1000, 1)
        },
        1,
        Box::new(|| {}),
    );
    (0..3).for_each(|sequence| uploads.queue(chunk(sequence, 10)));
    let chunks = due(&uploads);
    uploads.finished(chunks[0].0, failed(Class::Transient), Confirmed::No);
    tokio::time::advance(Duration::from_secs(6)).await;
    uploads.due();
    let mut given_up = Vec::new();
    let mut dropped = Vec::new();
    while let Some(report) = uploads.take_report() {
        match report {
            Report::GivenUp { summary, timeout, why } => given_up.push((summary.sequence, timeout, why)),
            Report::Dropped { summary, reason } => dropped.push((summary.sequence, reason)),
            _ => {}
        }
    }
    assert_eq!(given_up, [(0, 5_000_000_000, error(Class::Transient).message)]);
    assert_eq!(dropped, [0, 1, 2].map(|sequence| (sequence, "retry-timeout")));
}
