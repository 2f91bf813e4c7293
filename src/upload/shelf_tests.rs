//! A backlog on disk that is longer than its queued part.

use std::sync::Arc;

use bytes::Bytes;

use super::attempt::Attempted;
use super::chunk::{Chunk, Place, Summary};
use super::completion::{Confirmed, Due};
use super::driver::{Writers, send_from_disk};
use super::ops::Progress;
use super::queue::UploadQueue;
use super::report::Report;
use super::shelving::MAX_QUEUED;
use super::spooled_chunk::ChunkFile;
use super::tests::limits;
use crate::flow::bucket_endpoint::BucketEndpoint;
use crate::flow::group::Group;
use crate::flow::member::{Member, Route};
use crate::spool::sim::SimDisk;
use crate::spool::{ClosedEntry, Entry, Session, Spool, adopt};
use gcstreamer_storage::{BoxFuture, Class, ObjectRequest, ObjectWriter, Pacer, Stored, WriteError};

const SESSION: &str = "0a1b2c3d4e";
const ALL: u64 = MAX_QUEUED as u64 + 1000;

/// A server that is unreachable.
struct Away;

impl ObjectWriter for Away {
    fn write<'a>(&'a self, _: &'a ObjectRequest, _: Arc<dyn Pacer>) -> BoxFuture<'a, Result<Stored, WriteError>> {
        Box::pin(std::future::ready(Err(super::tests::error(Class::Transient))))
    }

    fn stat<'a>(&'a self, _: &'a str, name: &'a str) -> BoxFuture<'a, Result<Stored, WriteError>> {
        panic!("nobody asks for {name}")
    }

    fn delete<'a>(&'a self, _: &'a str, name: &'a str, _: i64) -> BoxFuture<'a, Result<(), WriteError>> {
        panic!("nobody deletes {name}")
    }
}

impl Writers for Away {
    fn own(&self) -> Arc<dyn ObjectWriter> {
        Arc::new(Self)
    }

    fn to(&self, _: Option<&str>, _: bool) -> Result<Arc<dyn ObjectWriter>, String> {
        Ok(self.own())
    }
}

struct Sink {
    disk: SimDisk,
    spool: Arc<Spool>,
    session: Session,
    uploads: Arc<UploadQueue>,
    stored: Vec<u64>,
}

impl Sink {
    fn new() -> Self {
        let disk = SimDisk::new(1);
        let spool = Spool::open(Arc::new(disk.clone()), disk.root(), 1 << 40).unwrap();
        let session = spool.session("cam", SESSION).unwrap();
        let uploads = Arc::new(UploadQueue::new(limits(1000, 4), 1, Box::new(|| {})).with_disk(false));
        uploads.set_adopting(false);
        Self {
            disk,
            spool,
            session,
            uploads,
            stored: Vec::new(),
        }
    }

    /// Records a chunk to disk.
    fn record(&self, sequence: u64) {
        let data = Bytes::from_static(b"0123456789");
        let entry = Entry {
            session: SESSION.to_owned(),
            sequence,
            device: "cam".to_owned(),
            bucket: "own".to_owned(),
            name: format!("cam/{sequence:06}"),
            own_name: true,
            container: "mpegts".to_owned(),
            clock: "system".to_owned(),
            start: 1_800_000_000_000_000_000 + sequence,
            ..Entry::default()
        };
        let mut open = self.session.create(&entry).unwrap();
        open.append(0, std::slice::from_ref(&data)).unwrap();
        let start = entry.start;
        let closed = ClosedEntry {
            entry,
            size: 10,
            crc32c: crc32c::crc32c(&data),
        };
        let stored = open.finish(&closed).unwrap();
        self.uploads.queue(Chunk {
            summary: Summary {
                session: SESSION.into(),
                sequence,
                start,
                duration: 0,
                running: Some(sequence),
                size: 10,
            },
            place: Place::Disk(ChunkFile::new(stored, self.uploads.times())),
            recovered: false,
            link_key: None,
            renamed: None,
            closed_at: self.uploads.now(),
        });
    }

    /// Stores what is due, once.
    fn store(&mut self) {
        let Due::Send { chunks, .. } = self.uploads.due() else {
            panic!("it was not stopped")
        };
        for (ticket, chunk) in chunks {
            let (sequence, start) = (chunk.summary.sequence, chunk.summary.start);
            assert_eq!(
                (start, chunk.summary.running),
                (1_800_000_000_000_000_000 + sequence, Some(sequence))
            );
            let Place::Disk(spooled) = &chunk.place else { unreachable!() };
            assert_eq!(Arc::clone(spooled).load().unwrap().request.name, format!("cam/{sequence:06}"));
            assert!(spooled.confirm());
            self.stored.push(sequence);
            let stored = Attempted::Stored {
                stored: None,
                device: "cam".to_owned(),
                name: String::new(),
                crc32c: 0,
                start: None,
                warning: None,
            };
            drop(chunk);
            self.uploads.finished(ticket, stored, Confirmed::File);
        }
    }

    /// Fails to send what is due, if anything is.
    async fn fail(&mut self) {
        let Due::Send { chunks, .. } = self.uploads.due() else {
            return;
        };
        let flow = Route::own(
            &Arc::new(Member::new(Group::join(""), BucketEndpoint::of("shelf", "own"))),
            None,
        );
        for (ticket, chunk) in chunks {
            let Place::Disk(spooled) = &chunk.place else { unreachable!() };
            let (failed, confirmed) = send_from_disk(&Away, spooled, chunk.renamed.as_deref(), &flow).await;
            assert!(matches!(failed, Attempted::Failed { .. }), "{failed:?}");
            drop(chunk);
            self.uploads.finished(ticket, failed, confirmed);
        }
    }

    fn pending(&self) -> (u64, u64) {
        let pending = self.uploads.snapshot().pending;
        (pending.chunks, pending.bytes)
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_backlog_on_disk_is_counted_whole_and_stored_newest_first_and_then_from_its_beginning() {
    let mut sink = Sink::new();
    (0..ALL).for_each(|sequence| sink.record(sequence));
    assert_eq!(sink.pending(), (ALL, 10 * ALL));
    while sink.pending().0 > 0 {
        let before = sink.stored.len() as u64;
        sink.store();
        assert_eq!(sink.pending().0, ALL - sink.stored.len() as u64);
        assert!(sink.stored.len() as u64 > before);
    }
    let expected: Vec<u64> = std::iter::once(ALL - 1).chain(0..ALL - 1).collect();
    assert!(sink.stored == expected, "{:?}", &sink.stored[..20]);
    assert_eq!(sink.uploads.snapshot().stats.dropped, 0);
    // The lock of the session, and the lock that is the sign of this process.
    assert!(sink.disk.files().len() <= 2, "{:?}", sink.disk.files().len());
    assert_eq!(sink.spool.used(), 0);
}

#[tokio::test(start_paused = true)]
async fn what_is_recorded_while_a_long_backlog_is_stored_goes_first() {
    let mut sink = Sink::new();
    (0..ALL).for_each(|sequence| sink.record(sequence));
    for sequence in ALL..ALL + 50 {
        sink.record(sequence);
        sink.store();
        assert!(sink.stored.contains(&sequence), "{sequence}: {:?}", sink.stored);
    }
    while sink.pending().0 > 0 {
        sink.store();
    }
    sink.stored.sort_unstable();
    assert!(sink.stored.iter().copied().eq(0..ALL + 50));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_sink_leaves_all_of_a_long_backlog_for_the_next_start() {
    let sink = Sink::new();
    (0..ALL).for_each(|sequence| sink.record(sequence));
    sink.uploads.forget("shutdown-timeout");
    let (disk, spool) = (sink.disk.clone(), Arc::clone(&sink.spool));
    drop((sink.session, sink.uploads));
    let found: usize = adopt(&spool).sessions.iter().map(|session| session.chunks.len()).sum();
    assert_eq!(found as u64, ALL, "of {} files", disk.files().len());
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_somebody_removes_is_a_gap_at_once_for_all_of_a_long_backlog() {
    let sink = Sink::new();
    (0..ALL).for_each(|sequence| sink.record(sequence));
    for dir in sink.disk.dirs() {
        if dir.ends_with(SESSION) {
            sink.disk.remove_tree(&dir);
        }
    }
    let on_disk = sink.uploads.on_disk();
    let lost: Vec<_> = on_disk
        .iter()
        .filter(|(_, chunk)| chunk.is_removed())
        .map(|(ticket, _)| *ticket)
        .collect();
    drop(on_disk);
    sink.uploads.removed(&[], &lost);
    assert_eq!(sink.pending(), (0, 0));
    let reports = std::iter::from_fn(|| sink.uploads.take_report());
    let dropped = reports.filter(|report| matches!(report, Report::Dropped { .. })).count();
    assert_eq!(dropped as u64, ALL);
}

#[tokio::test(start_paused = true)]
async fn in_a_long_outage_what_is_dropped_is_the_oldest_however_often_the_newest_was_tried() {
    let mut sink = Sink::new();
    let all = 4 * MAX_QUEUED as u64;
    for sequence in 0..all {
        sink.record(sequence);
        tokio::time::advance(std::time::Duration::from_secs(10)).await;
        sink.fail().await;
    }
    assert_eq!(sink.pending().0, all);
    let queued = sink.uploads.lock().chunks.len();
    assert!(queued <= MAX_QUEUED + 8, "{queued} in the queue");
    for gone in 1..=all / 2 {
        let mut state = sink.uploads.lock();
        let oldest = state.scheduler.to_drop().unwrap();
        let dropped = state.drop_chunk(oldest, "overflow");
        drop((state, dropped));
        assert_eq!(sink.pending().0, all - gone);
    }
    // The rest is stored: every chunk of the newest half.
    tokio::time::advance(std::time::Duration::from_secs(120)).await;
    while sink.pending().0 > 0 {
        sink.store();
        tokio::time::advance(std::time::Duration::from_secs(60)).await;
    }
    sink.stored.sort_unstable();
    assert!(sink.stored.iter().copied().eq(all / 2..all), "{:?}", sink.stored.first());
}
