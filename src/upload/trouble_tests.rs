//! The fate of the chunks of one sink while its disk hangs, fails, is slow or damaged, and when it works again.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use rustix::io::Errno;

use super::attempt::Attempted;
use super::chunk::{Chunk, Place, SpooledChunk, Unloaded};
use super::completion::Confirmed;
use super::disk_state::Hang;
use super::disk_tests::{
    SESSION, Unanswering, chunk_files, dropped, entry, movable, parked, with_disk, written, written_as_it_comes,
};
use super::hooked_disk::{Call, Hook, HookedDisk, is_chunk};
use super::ops::Touch;
use super::queue::{Charged, NoRoom, Overflow, UploadQueue};
use super::report::Report;
use super::spool_writer::SpoolWriter;
use super::spooled_chunk::ChunkFile;
use super::tests::{due, limits};
use super::ticket::Ticket;
use crate::spool::lane::Lane;
use crate::spool::sim::{Fault, SimDisk};
use crate::spool::watched::WatchedDisk;
use crate::spool::{Found, Limit, Session, Spool, SpoolError, adopt};

#[derive(Debug)]
struct Waits {
    on: Call,
    /// The next call signals that it has begun.
    begun: Mutex<Option<Sender<()>>>,
    /// The call then waits this long, or until the other side is dropped; `None`: later calls do not wait.
    until: Mutex<Option<(Receiver<()>, Duration)>>,
    /// All calls wait, not only the first.
    all: bool,
}

impl Hook for Waits {
    fn before(&self, call: Call, path: &Path) -> io::Result<()> {
        if call == self.on && (call == Call::List || is_chunk(path)) {
            self.wait();
        }
        Ok(())
    }
}

impl Waits {
    fn wait(&self) {
        if let Some(begun) = self.begun.lock().unwrap().take() {
            let _ = begun.send(());
        }
        let mut until = self.until.lock().unwrap();
        let Some((end, at_most)) = until.take() else { return };
        if self.all {
            let _ = end.recv_timeout(at_most);
            *until = Some((end, at_most));
        } else {
            drop(until);
            let _ = end.recv_timeout(at_most);
        }
    }
}

/// A disk on which calls wait: those of chunks, and listing a folder.
type Slow = HookedDisk<Waits>;

impl Slow {
    /// The first such call returns only when the sender is dropped. It signals when it has begun.
    fn stuck(on: Call) -> (Self, Sender<()>, Receiver<()>) {
        Self::waiting(on, Duration::from_secs(60), false)
    }

    fn waiting(on: Call, at_most: Duration, all: bool) -> (Self, Sender<()>, Receiver<()>) {
        let ((release, end), (begun, has_begun)) = (channel(), channel());
        let waits = Waits {
            on,
            begun: Mutex::new(Some(begun)),
            until: Mutex::new(Some((end, at_most))),
            all,
        };
        (Self::new(waits), release, has_begun)
    }
}

/// A sink that spools through a lane to a disk on which one call hangs.
struct Sink {
    disk: SimDisk,
    lane: Lane,
    spool: Arc<Spool>,
    uploads: Arc<UploadQueue>,
    writer: SpoolWriter,
    /// The call continues when this is dropped.
    release: Option<Sender<()>>,
}

fn watched(slow: &Slow, lane: &Lane, max: u64) -> Arc<Spool> {
    let disk = WatchedDisk::new(Arc::new(slow.clone()), lane.clone());
    Spool::open(Arc::new(disk), slow.disk.root(), max).unwrap()
}

impl Sink {
    fn new(call: Call, overflow: bool) -> Self {
        let (slow, release, _) = Slow::stuck(call);
        let lane = Lane::new(Duration::from_secs(1));
        let spool = watched(&slow, &lane, 1 << 30);
        let uploads = Arc::new(UploadQueue::new(limits(1000, 1), 1, Box::new(|| {})).with_disk(overflow));
        uploads.adopt(Vec::new(), true);
        let writer = SpoolWriter::new(spool.session("cam", SESSION).unwrap(), uploads.times());
        Self {
            disk: slow.disk,
            lane,
            spool,
            uploads,
            writer,
            release: Some(release),
        }
    }

    /// Carries out the work that is due now. Returns whether the disk did not answer; panics on any other trouble.
    fn work(&mut self) -> bool {
        let work = self.uploads.take_disk_work().0.expect("there is something to do");
        let touch = work.touch;
        let trouble = self.writer.work(work, false, &*self.uploads);
        let is_hung = trouble.as_ref().is_some_and(SpoolError::is_hung);
        assert!(trouble.is_none() || is_hung, "{trouble:?}");
        self.uploads.disk_done(touch, trouble);
        is_hung
    }

    /// Makes the disk answer, and a retry due.
    fn answers(&mut self) {
        self.release = None;
        while self.lane.is_stuck() {
            std::thread::yield_now();
        }
        self.uploads.lock().disk.as_mut().unwrap().hang = Some(Hang { retry_at: 0 });
    }

    /// Returns the WARNINGs about the disk.
    fn warnings(&self) -> usize {
        let reports = std::iter::from_fn(|| self.uploads.take_report());
        reports.filter(|report| matches!(report, Report::Disk { .. })).count()
    }

    /// Checks that all chunks are on disk, and that the disk is empty once they are confirmed.
    fn all_on_disk(&self, files: usize) {
        assert_eq!(chunk_files(&self.disk).len(), files);
        let chunks: Vec<_> = self.uploads.lock().chunks.values().cloned().collect();
        assert_eq!(chunks.len(), files);
        for chunk in chunks {
            let Place::Disk(spooled) = &chunk.place else {
                panic!("it stays in memory")
            };
            assert!(spooled.confirm());
        }
        assert!(chunk_files(&self.disk).is_empty());
    }
}

#[test]
fn a_disk_that_hangs_while_a_chunk_is_begun_takes_that_chunk_when_it_answers_and_warns_once() {
    let mut sink = Sink::new(Call::Write, false);
    assert!(sink.uploads.charge(20, Overflow::Block).is_taken());
    let mut ops = written_as_it_comes(10);
    let rest = ops.split_off(2);
    sink.uploads.spool(ops);
    assert!(sink.work(), "it hangs in the middle of making the file");
    sink.answers();
    sink.uploads.spool(rest);
    assert!(!sink.work());
    assert_eq!(sink.warnings(), 1);
    sink.all_on_disk(1);
}

#[test]
fn a_disk_that_hangs_while_a_chunk_moves_from_memory_takes_it_when_it_answers_and_warns_once() {
    for call in [Call::Write, Call::Sync] {
        let mut sink = Sink::new(call, true);
        assert!(sink.uploads.charge(10, Overflow::Block).is_taken());
        sink.uploads.queue(movable(1));
        sink.uploads.move_all();
        assert!(sink.work(), "{call:?}");
        sink.answers();
        assert!(!sink.work(), "it is asked whether it answers");
        assert!(!sink.work(), "{call:?}");
        assert_eq!(sink.warnings(), 1, "{call:?}");
        sink.all_on_disk(1);
    }
}

#[test]
fn a_chunk_that_was_sent_from_memory_while_the_disk_hung_leaves_no_file_that_the_next_start_would_send_again() {
    let mut sink = Sink::new(Call::Sync, true);
    assert!(sink.uploads.charge(10, Overflow::Block).is_taken());
    sink.uploads.queue(movable(1));
    sink.uploads.move_all();
    assert!(sink.work());
    let chunks = due(&sink.uploads);
    let stored = Attempted::Stored {
        stored: None,
        device: "cam".to_owned(),
        name: "x1".to_owned(),
        crc32c: 0,
        start: None,
        warning: None,
    };
    sink.uploads.finished(chunks[0].0, stored, Confirmed::No);
    sink.answers();
    sink.spool.probe().unwrap();
    assert!(chunk_files(&sink.disk).is_empty(), "{:?}", chunk_files(&sink.disk));
}

/// A hundred chunks on disk, and three in memory that fill it.
fn backlog() -> Arc<UploadQueue> {
    let uploads = with_disk(35);
    uploads.adopt(Vec::new(), true);
    for sequence in 0..100 {
        uploads.queue(Chunk {
            place: Place::Disk(Arc::new(Unanswering)),
            ..movable(sequence)
        });
    }
    for sequence in 100..103 {
        assert!(uploads.charge(10, Overflow::DropOldest).is_taken());
        uploads.queue(movable(sequence));
    }
    uploads
}

fn eio() -> SpoolError {
    SpoolError::reading(PathBuf::new(), io::Error::from_raw_os_error(5))
}

#[test]
fn what_lies_on_a_disk_that_hangs_or_fails_is_not_dropped_for_room_in_memory() {
    for is_hung in [true, false] {
        let uploads = backlog();
        if is_hung {
            uploads.disk_hangs(&SpoolError::reading(PathBuf::new(), io::ErrorKind::TimedOut.into()));
        } else {
            uploads.disk_done(Touch::Free, Some(eio()));
        }
        for _ in 0..3 {
            assert_eq!(uploads.charge(10, Overflow::DropOldest), Charged::Yes);
        }
        let gone: Vec<_> = (100..103).map(|sequence| (sequence, "overflow")).collect();
        assert_eq!(dropped(&uploads), gone, "hung: {is_hung}");
        // The open chunk occupies all memory: it is cut and dropped.
        assert_eq!(uploads.charge(10, Overflow::DropOldest), Charged::No(NoRoom::Nothing));
        assert_eq!(uploads.snapshot().pending.chunks, 100);
        assert!(uploads.lock().disk.as_ref().unwrap().discards.is_empty());
    }
}

#[test]
fn the_oldest_on_disk_gives_way_only_where_that_makes_room() {
    let full = |limit| SpoolError::Full {
        root: PathBuf::new(),
        needed: 10,
        limit,
    };
    let max = full(Limit::Max { used: 100, max: 100 });
    let by_us = full(Limit::Free {
        available: 1000,
        keep: 1500,
    });
    let by_others = full(Limit::Free {
        available: 1000,
        keep: 9_000_000,
    });
    for (trouble, first) in [(max, 0), (by_us, 0), (by_others, 100), (eio(), 100)] {
        let uploads = backlog();
        let text = trouble.to_string();
        uploads.disk_done(Touch::Free, Some(trouble));
        assert_eq!(uploads.lock().to_drop(), Some(Ticket::own(first)), "{text}");
        // Until another answer of the disk: then it works, or hangs.
        uploads.disk_hangs(&SpoolError::reading(PathBuf::new(), io::ErrorKind::TimedOut.into()));
        assert_eq!(uploads.lock().to_drop(), Some(Ticket::own(100)), "{text}");
    }
}

#[test]
fn what_is_parked_on_a_disk_that_hangs_is_not_taken_for_what_fills_it() {
    let uploads = with_disk(25);
    uploads.adopt(vec![parked(104)], true);
    (0..2).for_each(|_| assert!(uploads.charge(10, Overflow::Block).is_taken()));
    uploads.disk_hangs(&SpoolError::reading(PathBuf::new(), io::ErrorKind::TimedOut.into()));
    assert_eq!(uploads.charge(10, Overflow::DropOldest), Charged::No(NoRoom::Nothing));
    assert_eq!((uploads.snapshot().parked, dropped(&uploads)), (1, Vec::new()));
}

/// A chunk of ten bytes in its session.
fn stored(session: &Session, sequence: u64) -> crate::spool::Stored {
    let entry = crate::spool::Entry {
        session: session.dir().file_name().unwrap().to_string_lossy().into_owned(),
        ..entry(sequence)
    };
    written(session, entry)
}

#[test]
fn a_damaged_chunk_that_cannot_be_set_aside_is_a_gap_and_its_file_stays() {
    let disk = SimDisk::new(1);
    let spool = Spool::open(Arc::new(disk.clone()), disk.root(), 0).unwrap();
    let uploads = with_disk(100);
    uploads.adopt(Vec::new(), true);
    let chunk: Arc<dyn SpooledChunk> = ChunkFile::new(stored(&spool.session("cam", SESSION).unwrap(), 1), uploads.times());
    uploads.queue(Chunk {
        place: Place::Disk(Arc::clone(&chunk)),
        ..movable(1)
    });
    let mut writer = SpoolWriter::new(spool.session("other", "0a1b2c3d4f").unwrap(), uploads.times());
    disk.put(&disk.root().join("quarantine"), b"in the way");
    let chunks = due(&uploads);
    let why = chunk.set_aside("a byte is another");
    assert!(why.contains("nor set aside"), "{why}");
    uploads.finished(chunks[0].0, Attempted::Damaged { why }, Confirmed::No);
    assert_eq!(dropped(&uploads), [(1, "damaged")]);
    while let Some(work) = uploads.take_disk_work().0 {
        assert!(writer.work(work, false, &*uploads).is_none());
        uploads.disk_done(Touch::Free, None);
    }
    assert_eq!(chunk_files(&disk), ["1"], "only the user removes it");
}

#[test]
fn a_sync_that_takes_its_time_is_no_hung_disk_for_another_sink_on_the_same_folder() {
    let (slow, _release, has_begun) = Slow::waiting(Call::Sync, Duration::from_millis(400), false);
    let lane = Lane::new(Duration::from_secs(5));
    let (first, second) = (watched(&slow, &lane, 0), watched(&slow, &lane, 0));
    let (one, other) = (
        first.session("cam", SESSION).unwrap(),
        second.session("cam2", "0a1b2c3d4f").unwrap(),
    );
    let mut open = one.create(&entry(1)).unwrap();
    open.append(0, &[Bytes::from_static(b"0123456789")]).unwrap();
    let sync = std::thread::spawn(move || open.sync());
    has_begun.recv().unwrap();
    let begun = other.create(&crate::spool::Entry {
        session: "0a1b2c3d4f".to_owned(),
        ..entry(1)
    });
    assert!(begun.is_ok(), "{begun:?}");
    sync.join().unwrap().unwrap();
}

#[test]
fn an_end_with_many_earlier_sessions_on_a_slow_disk_keeps_its_deadline() {
    let (slow, release, _) = Slow::waiting(Call::List, Duration::ZERO, true);
    let lane = Lane::new(Duration::from_secs(5));
    for number in 0..32 {
        let spool = watched(&slow, &lane, 1 << 30);
        drop(stored(&spool.session("cam", &format!("0a1b2c3d{number:02}")).unwrap(), 1));
    }
    let spool = watched(&slow, &lane, 1 << 30);
    let uploads = with_disk(1000);
    let found = adopt(&spool).sessions.into_iter().flat_map(|session| session.chunks);
    let chunks = found.map(|found| {
        let Found::Upload(stored) = found else { panic!("half") };
        Chunk {
            place: Place::Disk(ChunkFile::new(stored, uploads.times())),
            recovered: true,
            ..movable(1)
        }
    });
    let chunks: Vec<_> = chunks.collect();
    assert_eq!(chunks.len(), 32);
    uploads.adopt(chunks, true);
    // From now on looking through a folder takes this long.
    slow.hook.until.lock().unwrap().as_mut().unwrap().1 = Duration::from_millis(150);
    let began = Instant::now();
    uploads.forget("shutdown-timeout");
    let took = began.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    // The rest is released at once.
    drop(release);
}

#[test]
fn a_disk_that_does_not_answer_to_whatever_call_of_an_attempt_is_reported_as_one_that_hangs() {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for call in 0.. {
        let disk = SimDisk::new(1);
        let spool = Spool::open(Arc::new(disk.clone()), disk.root(), 0).unwrap();
        let uploads = with_disk(1000);
        let stored = written(&spool.session("cam", SESSION).unwrap(), entry(0));
        let spooled = ChunkFile::new(stored, uploads.times());
        disk.set_fault(Some(Fault::Once(call, Errno::TIMEDOUT.raw_os_error())));
        let read = match Arc::clone(&spooled).load() {
            Ok(loaded) => runtime
                .block_on(loaded.request.body.reader().next(100))
                .map(|_| ())
                .map_err(|e| e.to_string()),
            Err(Unloaded::Hung(_)) => continue,
            Err(why) => panic!("call {call}: {why:?}"),
        };
        assert_eq!(spooled.take_hung(), read.is_err(), "call {call}: {read:?}");
        if disk.ops() <= call {
            assert!(call > 2 && read.is_ok(), "{call}");
            break;
        }
    }
}
