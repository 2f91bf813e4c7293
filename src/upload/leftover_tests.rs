//! Many sessions that earlier processes left: only a few are held at once, and none of them blocks the others.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::adopter::{AdoptStep, Adopter};
use super::attempt::Attempted;
use super::completion::{Confirmed, Due};
use super::destination::Sorter;
use super::disk_tests::written;
use super::held::MAX_HELD;
use super::queue::UploadQueue;
use super::report::{DiskFault, Report};
use super::tests::limits;
use crate::spool::sim::{Fault, SimDisk};
use crate::spool::{Adoption, DestinationId, Entry, Leftovers, MOST_AT_ONCE, Session, Spool};
use gcstreamer_storage::{Class, Endpoint, WriteError};

const OWN: &str = "own";
const GONE: &str = "gone";

/// One chunk for each session, that goes to a bucket.
fn leave(spool: &Arc<Spool>, numbers: std::ops::Range<u32>, bucket: &str, clock: &str) {
    leave_for(spool, numbers, None, bucket, clock);
}

/// The same, for a bucket at an endpoint; `None`: Google's.
fn leave_for(spool: &Arc<Spool>, numbers: std::ops::Range<u32>, endpoint: Option<&str>, bucket: &str, clock: &str) {
    for number in numbers {
        let id = format!("s{number:04}");
        let session = spool.session("cam", &id).unwrap();
        let entry = Entry {
            session: id.clone(),
            device: "cam".to_owned(),
            bucket: bucket.to_owned(),
            endpoint: endpoint.map(str::to_owned),
            name: format!("{bucket}/{id}"),
            own_name: true,
            container: "mpegts".to_owned(),
            clock: clock.to_owned(),
            ..Entry::default()
        };
        drop(written(&session, entry));
    }
}

/// One session, `s0001`, with many chunks, for a bucket at an endpoint; `None`: Google's.
fn leave_many(spool: &Arc<Spool>, count: u64, endpoint: Option<&str>, bucket: &str) {
    let session = spool.session("cam", "s0001").unwrap();
    for sequence in 0..count {
        let entry = Entry {
            session: "s0001".to_owned(),
            device: "cam".to_owned(),
            bucket: bucket.to_owned(),
            endpoint: endpoint.map(str::to_owned),
            name: format!("{bucket}/{sequence:06}"),
            own_name: true,
            container: "mpegts".to_owned(),
            clock: "system".to_owned(),
            sequence,
            ..Entry::default()
        };
        drop(written(&session, entry));
    }
}

struct Sink {
    disk: SimDisk,
    uploads: Arc<UploadQueue>,
    adopter: Adopter,
    leftovers: Leftovers,
    /// In the order in which they were stored.
    stored: Vec<String>,
    tried: BTreeMap<String, u32>,
}

impl Sink {
    fn new(disk: &SimDisk) -> Self {
        let spool = Spool::open(Arc::new(disk.clone()), disk.root(), 0).unwrap();
        let uploads = Arc::new(UploadQueue::new(limits(1000, 4), 1, Box::new(|| {})).with_disk(false));
        let sorter = Sorter::new(Endpoint::google(), DestinationId::of_bucket(None, false, OWN));
        let adopter = Adopter::new(&uploads, sorter, uploads.times());
        let (leftovers, notices) = Leftovers::list(&spool).unwrap();
        assert!(notices.is_empty());
        uploads.set_rest(leftovers.rest());
        Self {
            disk: disk.clone(),
            uploads,
            adopter,
            leftovers,
            stored: Vec::new(),
            tried: BTreeMap::new(),
        }
    }

    /// The same for a sink whose own session is `s0001` again.
    fn again(disk: &SimDisk, spool: &Arc<Spool>) -> (Self, Session) {
        let session = spool.session("cam", "s0001").unwrap();
        let mut sink = Self::new(disk);
        sink.adopter = sink.adopter.with_earlier(Some(session.earlier().unwrap()));
        sink.adopter.set_rest(sink.leftovers.rest());
        (sink, session)
    }

    /// Stores `count` chunks of one session, of which few may be in memory at once.
    fn store_all(&mut self, count: usize) {
        for _ in 0..count {
            self.adopt();
            let (stored, now) = (self.stored.len() as u64, self.uploads.snapshot());
            assert!(
                now.stats.recovered - stored <= (MOST_AT_ONCE + MAX_HELD) as u64,
                "{:?}",
                now.stats
            );
            assert_eq!(now.pending.chunks, count as u64 - stored, "all are counted");
            self.send();
            if self.stored.len() == count {
                break;
            }
        }
        assert_eq!(self.stored.len(), count);
    }

    /// Adopts sessions while there is a place.
    fn adopt(&mut self) {
        while (!self.leftovers.is_empty() || !self.adopter.is_done())
            && self.adopter.step(&mut self.leftovers) == Some(AdoptStep::Went)
        {
            self.adopter.set_rest(self.leftovers.rest());
            // One more lock is the sign that this process uses the spool.
            assert!(self.disk.locks() <= MAX_HELD + 1, "{}", self.disk.locks());
        }
    }

    /// Sends what is due. The bucket `gone` does not exist.
    fn send(&mut self) {
        loop {
            let Due::Send { chunks, .. } = self.uploads.due() else {
                panic!("it was not stopped")
            };
            if chunks.is_empty() {
                return;
            }
            for (ticket, chunk) in chunks {
                let session = chunk.summary.session.to_string();
                *self.tried.entry(session.clone()).or_default() += 1;
                let super::chunk::Place::Disk(spooled) = &chunk.place else {
                    unreachable!()
                };
                let loaded = Arc::clone(spooled).load().unwrap();
                let attempted = match loaded.request.bucket.as_str() {
                    OWN => {
                        assert!(spooled.confirm());
                        self.stored.push(session);
                        Attempted::Stored {
                            stored: None,
                            name: loaded.request.name,
                            device: "cam".to_owned(),
                            crc32c: 0,
                            start: None,
                            warning: None,
                        }
                    }
                    _ => Attempted::Failed {
                        error: WriteError {
                            class: Class::Permanent,
                            http_status: Some(404),
                            retry_after: None,
                            server_date: None,
                            bad_generation: None,
                            may_be_stored: false,
                            reason: None,
                            message: "no such bucket".to_owned(),
                        },
                        name: None,
                        warning: None,
                    },
                };
                drop(chunk);
                self.uploads.finished(ticket, attempted, Confirmed::File);
            }
        }
    }
}

fn chunk_files(disk: &SimDisk) -> usize {
    let is_chunk = |f: &std::path::PathBuf| f.extension().is_some_and(|e| e == "chunk");
    disk.files().iter().filter(|f| is_chunk(f)).count()
}

#[tokio::test(start_paused = true)]
async fn a_thousand_sessions_are_held_few_at_a_time_counted_all_at_once_and_stored_oldest_first() {
    let disk = SimDisk::new(1);
    {
        let spool = Spool::open(Arc::new(disk.clone()), disk.root(), 0).unwrap();
        leave(&spool, 0..1000, OWN, "system");
    }
    let mut sink = Sink::new(&disk);
    assert_eq!(sink.uploads.snapshot().pending.chunks, 1000, "before any of them is held");
    while !sink.leftovers.is_empty() || sink.uploads.snapshot().pending.chunks > 0 {
        sink.adopt();
        let pending = sink.uploads.snapshot().pending.chunks;
        assert_eq!(usize::try_from(pending).unwrap(), 1000 - sink.stored.len());
        sink.send();
    }
    let expected: Vec<String> = (0..1000).map(|n| format!("s{n:04}")).collect();
    assert_eq!(sink.stored.len(), 1000);
    // The newest of the held chunks is sent first, then the oldest.
    let far = sink.stored.iter().zip(&expected).filter(|(a, b)| {
        let number = |id: &str| id[1..].parse::<i64>().unwrap();
        (number(a) - number(b)).abs() > i64::try_from(MAX_HELD).unwrap()
    });
    assert_eq!(far.count(), 0, "{:?}", sink.stored);
    assert_eq!(
        (sink.uploads.snapshot().stats.recovered, chunk_files(&disk), disk.locks()),
        (1000, 0, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn sessions_whose_bucket_is_gone_keep_no_place_from_those_that_can_be_stored() {
    let disk = SimDisk::new(1);
    {
        let spool = Spool::open(Arc::new(disk.clone()), disk.root(), 0).unwrap();
        leave(&spool, 0..80, GONE, "system");
        leave(&spool, 80..90, OWN, "system");
    }
    let mut sink = Sink::new(&disk);
    for _ in 0..120 {
        sink.adopt();
        sink.send();
        tokio::time::advance(Duration::from_secs(10)).await;
    }
    assert_eq!(sink.stored.len(), 10, "{:?}", sink.stored);
    assert_eq!(chunk_files(&disk), 80, "those stay");
    assert_eq!(sink.uploads.snapshot().pending.chunks, 80);
    assert_eq!(sink.tried.len(), 90, "each had its turn");
    let words: Vec<Report> = std::iter::from_fn(|| sink.uploads.take_report()).collect();
    let warnings = words.iter().filter(|w| matches!(w, Report::Warning(_))).count();
    let lost = words.iter().filter(|w| matches!(w, Report::Dropped { .. })).count();
    assert_eq!((warnings, lost), (1, 0), "{words:?}");
}

#[tokio::test(start_paused = true)]
async fn parked_sessions_of_any_number_count_neither_for_the_status_nor_for_the_drain() {
    let disk = SimDisk::new(1);
    {
        let spool = Spool::open(Arc::new(disk.clone()), disk.root(), 0).unwrap();
        leave_for(&spool, 0..200, Some("http://192.0.2.7:4443"), GONE, "system");
        leave(&spool, 200..205, OWN, "system");
    }
    let mut sink = Sink::new(&disk);
    for _ in 0..20 {
        sink.adopt();
        sink.send();
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert_eq!(sink.stored.len(), 5, "{:?}", sink.stored);
    assert!(sink.leftovers.is_empty(), "each had its turn");
    assert_eq!(sink.uploads.snapshot().pending.chunks, 0);
    assert_eq!(chunk_files(&disk), 200, "those stay");
    assert!(sink.tried.len() <= 6, "tried once an hour: {:?}", sink.tried);
}

#[tokio::test(start_paused = true)]
async fn a_session_from_before_the_clock_was_set_waits_for_those_that_know_the_time() {
    let disk = SimDisk::new(1);
    {
        let spool = Spool::open(Arc::new(disk.clone()), disk.root(), 0).unwrap();
        leave(&spool, 0..1, OWN, "suspect");
        leave(&spool, 1..40, OWN, "system");
    }
    let mut sink = Sink::new(&disk);
    while !sink.leftovers.is_empty() || sink.uploads.snapshot().pending.chunks > 0 {
        sink.adopt();
        sink.send();
    }
    assert_eq!(sink.stored.len(), 40);
    // All others have had their turn by then.
    let turn = sink.stored.iter().position(|id| id == "s0000").unwrap();
    assert!(turn >= 39 - MAX_HELD, "{turn}");
}

/// Returns what is reported as lost of a partial FLV that ends within its `bytes` (FLV's header is 13 bytes), and how many files
/// are left.
fn torn_after(bytes: usize) -> (Vec<(String, u64, u64)>, usize) {
    let disk = SimDisk::new(1);
    let spool = Spool::open(Arc::new(disk.clone()), disk.root(), 0).unwrap();
    let session = spool.session("cam", "s0").unwrap();
    let entry = Entry {
        session: "s0".to_owned(),
        sequence: 4,
        device: "cam".to_owned(),
        bucket: OWN.to_owned(),
        name: "cam/s0_000004.flv".to_owned(),
        container: "flv".to_owned(),
        init_bytes: 13,
        ..Entry::default()
    };
    let mut open = session.create(&entry).unwrap();
    // A tag of video that announces 1000 bytes.
    let object = [&b"FLV\x01\x01\0\0\0\x09\0\0\0\0\x09\0\x03\xe8\0\0\0\0\0\0\0"[..], &[0; 100]].concat();
    open.append(0, &[Bytes::copy_from_slice(&object[..bytes])]).unwrap();
    let next = disk.kill();
    let mut sink = Sink::new(&next);
    sink.adopt();
    let lost = std::iter::from_fn(|| sink.uploads.take_report()).filter_map(|report| match report {
        Report::Dropped { summary, .. } => Some((summary.session.to_string(), summary.sequence, summary.size)),
        _ => None,
    });
    (lost.collect(), chunk_files(&next))
}

#[tokio::test(start_paused = true)]
async fn a_part_without_one_whole_picture_is_reported_as_a_gap_and_an_empty_one_is_not() {
    assert_eq!(torn_after(113), (vec![("s0".to_owned(), 4, 100)], 0));
    assert_eq!(torn_after(13), (Vec::new(), 0));
}

/// Adopts a whole chunk and a half-written one on a disk whose call of this number does not answer. Returns what was found, what was
/// reported, and whether there were that many calls.
fn adopted_although(call: u64) -> (u64, Vec<Report>, bool) {
    let disk = SimDisk::new(1);
    let spool = Spool::open(Arc::new(disk.clone()), disk.root(), 1 << 30).unwrap();
    leave(&spool, 0..1, OWN, "system");
    let session = spool.session("cam", "s0001").unwrap();
    let entry = Entry {
        session: "s0001".to_owned(),
        device: "cam".to_owned(),
        bucket: OWN.to_owned(),
        name: "cam/s0001_000000.bin".to_owned(),
        container: "raw".to_owned(),
        ..Entry::default()
    };
    session
        .create(&entry)
        .unwrap()
        .append(0, &[Bytes::from_static(b"half")])
        .unwrap();
    let next = disk.kill();
    let spool = Spool::open(Arc::new(next.clone()), next.root(), 1 << 30).unwrap();
    let uploads = Arc::new(UploadQueue::new(limits(1000, 4), 1, Box::new(|| {})).with_disk(false));
    let sorter = Sorter::new(Endpoint::google(), DestinationId::of_bucket(None, false, OWN));
    let mut adopter = Adopter::new(&uploads, sorter, uploads.times());
    next.set_fault(Some(Fault::Once(call, 110)));
    let mut leftovers = std::iter::repeat_with(|| Leftovers::list(&spool))
        .find_map(Result::ok)
        .unwrap()
        .0;
    for _ in 0..8 {
        assert!(adopter.step(&mut leftovers).is_some());
    }
    let reports = std::iter::from_fn(|| uploads.take_report());
    let reports = reports.filter(|r| !matches!(r, Report::HealthEvent(..))).collect();
    (uploads.snapshot().stats.recovered, reports, next.ops() > call)
}

#[tokio::test(start_paused = true)]
async fn a_disk_that_does_not_answer_for_a_while_keeps_nothing_that_was_left_for_another_start() {
    for call in 0.. {
        let (found, reports, was_made) = adopted_although(call);
        assert_eq!(found, 2, "call {call}: {reports:?}");
        let is_expected = |report: &Report| {
            matches!(
                report,
                Report::Disk {
                    fault: DiskFault::Hung,
                    ..
                }
            )
        };
        assert!(
            reports.len() <= 1 && reports.iter().all(is_expected),
            "call {call}: {reports:?}"
        );
        if !was_made {
            assert!(call > 20, "{call}");
            break;
        }
    }
}

#[test]
fn what_another_sink_left_meanwhile_has_its_turn_before_what_had_one() {
    let disk = SimDisk::new(3);
    let spool = Spool::open(Arc::new(disk.clone()), disk.root(), 0).unwrap();
    leave(&spool, 1..5, GONE, "system");
    let (mut leftovers, _) = Leftovers::list(&spool).unwrap();
    let mut parked = Vec::new();
    for is_parked in [false, true] {
        let (left, adoption) = leftovers.take_next().unwrap();
        drop(adoption);
        match is_parked {
            true => parked.push(left),
            false => leftovers.put_back(left),
        }
    }
    leave(&spool, 5..6, OWN, "system");
    leftovers.renew(Leftovers::list(&spool).unwrap().0, &parked);
    assert_eq!(leftovers.rest().0, 4);
    let turns: Vec<String> = std::iter::from_fn(|| leftovers.take_next().map(|(left, _)| left.session)).collect();
    assert_eq!(turns, ["s0005", "s0003", "s0004", "s0001"]);
}

#[test]
fn a_session_whose_lock_somebody_has_for_a_moment_gets_another_turn() {
    let disk = SimDisk::new(3);
    let spool = Spool::open(Arc::new(disk.clone()), disk.root(), 0).unwrap();
    leave(&spool, 1..4, GONE, "system");
    let (mut leftovers, _) = Leftovers::list(&spool).unwrap();
    // Another process counts the files there, or records the session.
    let other = Spool::open(Arc::new(disk.clone()), disk.root(), 0).unwrap();
    let (mut theirs, _) = Leftovers::list(&other).unwrap();
    let held = theirs.take_next().unwrap();
    let mut turns = || -> Vec<String> { std::iter::from_fn(|| leftovers.take_next().map(|(left, _)| left.session)).collect() };
    assert_eq!(turns(), ["s0002", "s0003"]);
    drop(held);
    assert!(leftovers.retry_busy());
    assert_eq!(leftovers.rest().0, 1);
    assert_eq!(leftovers.take_next().unwrap().0.session, "s0001");
    assert!(!leftovers.retry_busy());
}

#[tokio::test]
async fn of_a_long_session_few_chunks_are_in_memory_at_once_and_all_are_stored() {
    let disk = SimDisk::new(3);
    let spool = Spool::open(Arc::new(disk.clone()), disk.root(), 0).unwrap();
    let count = 2 * MOST_AT_ONCE + 10;
    leave_many(&spool, count as u64, None, OWN);
    let mut sink = Sink::new(&disk);
    sink.store_all(count);
    assert_eq!(chunk_files(&disk), 0);
}

#[tokio::test]
async fn a_sink_that_begins_again_has_few_of_its_own_chunks_in_memory_at_once_and_stores_all() {
    let disk = SimDisk::new(3);
    let spool = Spool::open(Arc::new(disk.clone()), disk.root(), 0).unwrap();
    let count = 2 * MOST_AT_ONCE + 10;
    leave_many(&spool, count as u64, None, OWN);
    leave(&spool, 2..4, OWN, "system");
    let before = disk.ops();
    let (mut sink, session) = Sink::again(&disk, &spool);
    assert!(
        disk.ops() - before < 40,
        "{} operations before it may begin",
        disk.ops() - before
    );
    sink.store_all(count + 2);
    assert!(sink.adopter.is_done());
    drop((sink, session));
    assert_eq!((chunk_files(&disk), spool.used()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn own_chunks_that_are_parked_keep_the_rest_from_nothing() {
    let disk = SimDisk::new(3);
    let spool = Spool::open(Arc::new(disk.clone()), disk.root(), 0).unwrap();
    let count = MOST_AT_ONCE + 10;
    leave_many(&spool, count as u64, Some("http://192.0.2.7:4443"), GONE);
    leave(&spool, 2..4, OWN, "system");
    let (mut sink, _session) = Sink::again(&disk, &spool);
    for _ in 0..20 {
        sink.adopt();
        sink.send();
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    assert!(sink.adopter.is_done() && sink.leftovers.is_empty());
    assert_eq!((sink.stored.len(), sink.uploads.snapshot().pending.chunks), (2, 0));
    assert_eq!(chunk_files(&disk), count, "those stay");
}

#[test]
fn own_chunks_are_all_found_whenever_the_disk_does_not_answer() {
    for call in 0.. {
        let disk = SimDisk::new(3);
        let spool = Spool::open(Arc::new(disk.clone()), disk.root(), 0).unwrap();
        leave_many(&spool, 3, None, OWN);
        let session = spool.session("cam", "s0001").unwrap();
        let mut earlier = session.earlier().unwrap();
        disk.set_fault(Some(Fault::Once(call, 110)));
        let taken: Vec<Adoption> = std::iter::from_fn(|| (!earlier.is_empty()).then(|| earlier.take_next())).collect();
        let chunks = taken
            .iter()
            .flat_map(|adoption| &adoption.sessions)
            .flat_map(|adopted| &adopted.chunks);
        assert_eq!((chunks.count(), earlier.rest()), (3, (0, 0)), "{call}: {taken:?}");
        if taken.iter().all(|adoption| adoption.interrupted.is_none()) {
            assert!(call >= 3, "{call}");
            return;
        }
    }
}
