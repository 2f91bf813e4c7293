//! The effects of a slow, a full and a failing disk on the queue of one sink.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::attempt::Attempted;
use super::chunk::SentNames;
use super::chunk::{Chunk, Loaded, MemoryChunk, NameFallback, Place, SpooledChunk, StoredAs, Unloaded};
use super::completion::{Confirmed, Due};
use super::disk_state::DiskHealth;
use super::driver::{Writers, send_from_disk};
use super::health::{HealthEvent, Status};
use super::hooked_disk::{Call, Hook, HookedDisk, is_chunk};
use super::ops::{Closing, Op, Touch};
use super::queue::{Charged, Drained, NoRoom, Overflow, UploadQueue};
use super::report::Report;
use super::scheduler::Elsewhere;
use super::spool_writer::SpoolWriter;
use super::spooled_chunk::ChunkFile;
use super::spooler::{self, Jobs};
use super::tests::{chunk, due, limits};
use super::ticket::Ticket;
use crate::base::boot;
use crate::flow::bucket_endpoint::BucketEndpoint;
use crate::flow::group::Group;
use crate::flow::member::{Member, Route};
use crate::spool::disk::Disk;
use crate::spool::lane::Lane;
use crate::spool::sim::{Fault, SimDisk};
use crate::spool::{ClosedEntry, DestinationId, Entry, Found, Session, Spool, SpoolError, Stored, adopt, name_mark};
use gcstreamer_storage::{Body, Class, ObjectWriter, WriteError};

pub(super) const SESSION: &str = "0a1b2c3d4e";

/// Every sync waits for permission.
#[derive(Debug)]
struct Syncs {
    asked: Sender<()>,
    answers: Mutex<Receiver<io::Result<()>>>,
}

impl Hook for Syncs {
    fn before(&self, call: Call, _path: &Path) -> io::Result<()> {
        if call != Call::Sync {
            return Ok(());
        }
        // Not every test listens.
        let _ = self.asked.send(());
        self.answers.lock().unwrap().recv().unwrap()
    }
}

/// Creating the file of a chunk panics.
#[derive(Debug)]
struct Defect;

impl Hook for Defect {
    fn before(&self, call: Call, path: &Path) -> io::Result<()> {
        assert!(call != Call::Create || !is_chunk(path), "a defect of the spool");
        Ok(())
    }
}

pub(super) fn entry(sequence: u64) -> Entry {
    Entry {
        session: SESSION.to_owned(),
        sequence,
        device: "cam".to_owned(),
        bucket: "b".to_owned(),
        name: format!("x{sequence}"),
        own_name: true,
        container: "mpegts".to_owned(),
        clock: "system".to_owned(),
        ..Entry::default()
    }
}

/// Writes a whole chunk of ten bytes to a session.
pub(super) fn written(session: &Session, entry: Entry) -> Stored {
    let data = Bytes::from_static(b"0123456789");
    let mut open = session.create(&entry).unwrap();
    open.append(0, std::slice::from_ref(&data)).unwrap();
    let closed = ClosedEntry {
        entry,
        size: 10,
        crc32c: crc32c::crc32c(&data),
    };
    open.finish(&closed).unwrap()
}

/// Ten bytes in memory that may go to disk.
pub(super) fn movable(sequence: u64) -> Chunk {
    let chunk = chunk(sequence, 10);
    let Place::Memory(held) = chunk.place else { unreachable!() };
    let held = Arc::try_unwrap(held).unwrap();
    let data = Bytes::from_static(b"0123456789");
    let mut request = held.request;
    request.crc32c = crc32c::crc32c(&data);
    request.body = Body::from_pieces([data]);
    Chunk {
        place: Place::Memory(Arc::new(MemoryChunk {
            request,
            naming: held.naming,
            sent: held.sent,
            charged: 10,
            head: bytes::Bytes::new(),
            entry: Some(Box::new(entry(sequence))),
            part: None,
        })),
        summary: chunk.summary,
        renamed: None,
        recovered: false,
        link_key: None,
        closed_at: 0,
    }
}

pub(super) fn with_disk(memory: u64) -> Arc<UploadQueue> {
    Arc::new(UploadQueue::new(limits(memory, 1), 1, Box::new(|| {})).with_disk(true))
}

fn spool_writer<H: Hook + 'static>(hooked: &HookedDisk<H>, uploads: &Arc<UploadQueue>) -> SpoolWriter {
    let spool = Spool::open(Arc::new(hooked.clone()), hooked.disk.root(), 0).unwrap();
    SpoolWriter::new(spool.session("cam", SESSION).unwrap(), uploads.times())
}

pub(super) fn dropped(uploads: &UploadQueue) -> Vec<(u64, &'static str)> {
    std::iter::from_fn(|| uploads.take_report())
        .filter_map(|report| match report {
            Report::Dropped { summary, reason } => Some((summary.sequence, reason)),
            _ => None,
        })
        .collect()
}

pub(super) fn chunk_files(disk: &SimDisk) -> Vec<String> {
    let files = disk.files().into_iter().filter(|f| is_chunk(f));
    files
        .map(|f| f.file_stem().unwrap().to_string_lossy().trim_start_matches('0').to_owned())
        .collect()
}

/// Moves three chunks to a disk on which each sync takes as long as the test wants; the deadline passes while the second one is
/// synced. Returns what was reported as lost, and the sequence numbers on disk at the end.
fn time_is_up_in_the_second_sync(last: io::Result<()>, forget: bool) -> (Vec<(u64, &'static str)>, Vec<String>) {
    let (asked, is_asked) = channel();
    let (answer, answers) = channel();
    let hooked = HookedDisk::new(Syncs {
        asked,
        answers: Mutex::new(answers),
    });
    let uploads = with_disk(1000);
    uploads.adopt(Vec::new(), true);
    for sequence in 1..=3 {
        assert!(uploads.charge(10, Overflow::Block).is_taken());
        uploads.queue(movable(sequence));
    }
    uploads.move_all();
    let mut writer = spool_writer(&hooked, &uploads);
    let work = uploads.take_disk_work().0.unwrap();
    let thread = std::thread::spawn({
        let uploads = Arc::clone(&uploads);
        move || writer.work(work, false, &*uploads)
    });
    // The newest would be sent first, so it is moved last: 2, 1, 3.
    is_asked.recv().unwrap();
    answer.send(Ok(())).unwrap();
    is_asked.recv().unwrap();
    assert_eq!(uploads.snapshot().memory, 20, "the first is on disk, and its memory is free");
    let (lost, left) = uploads.abandon("drain-timeout", true);
    assert_eq!((lost.chunks, left.chunks), (1, 2));
    if forget {
        uploads.forget("shutdown-timeout");
    }
    let is_ok = last.is_ok();
    answer.send(last).unwrap();
    assert_eq!(thread.join().unwrap().is_none(), is_ok);
    (dropped(&uploads), chunk_files(&hooked.disk))
}

#[test]
fn what_is_complete_on_disk_when_the_time_is_up_is_not_reported_as_lost_and_what_is_reported_as_lost_does_not_come_back() {
    let lost = vec![(3, "drain-timeout")];
    for forget in [false, true] {
        let (reported, on_disk) = time_is_up_in_the_second_sync(Ok(()), forget);
        assert_eq!(
            (reported, on_disk),
            (lost.clone(), vec!["1".to_owned(), "2".to_owned()]),
            "{forget}"
        );
    }
}

#[test]
fn a_chunk_that_the_disk_refuses_at_the_very_end_is_reported_as_lost_then() {
    let failed = Err(io::Error::from_raw_os_error(5));
    let (reported, on_disk) = time_is_up_in_the_second_sync(failed, false);
    assert_eq!(reported, [(3, "drain-timeout"), (1, "drain-timeout")]);
    assert_eq!(on_disk, ["2"]);
}

#[test]
fn what_a_disk_that_hangs_has_not_taken_of_a_closed_chunk_is_reported_when_the_time_is_up() {
    // The chunk of 30 bytes waits for a writer that does not return. The writer has all of it, or only its beginning.
    for in_hand in [0, 4, 2] {
        let uploads = with_disk(1000);
        uploads.adopt(Vec::new(), true);
        assert!(uploads.charge(30, Overflow::Block).is_taken());
        let mut ops = written_as_it_comes(20);
        let later = ops.split_off(in_hand);
        uploads.spool(ops);
        let work = uploads.take_disk_work().0;
        assert_eq!(work.is_some(), in_hand > 0);
        uploads.spool(later);
        let (lost, _) = uploads.abandon("shutdown-timeout", true);
        assert_eq!(lost.chunks, 0);
        let lost = uploads.forget("shutdown-timeout");
        assert_eq!((lost.chunks, lost.bytes), (1, 30), "{in_hand}");
        assert_eq!(dropped(&uploads), [(0, "shutdown-timeout")], "{in_hand}");
        assert_eq!(uploads.snapshot().stats.bytes_dropped, 30);
    }
    // Its first ten bytes are on disk.
    let uploads = with_disk(1000);
    uploads.adopt(Vec::new(), true);
    assert!(uploads.charge(30, Overflow::Block).is_taken());
    let mut ops = written_as_it_comes(20);
    let later = ops.split_off(2);
    uploads.spool(ops);
    let disk = SimDisk::new(1);
    let spool = Spool::open(Arc::new(disk.clone()), disk.root(), 0).unwrap();
    let mut writer = SpoolWriter::new(spool.session("cam", SESSION).unwrap(), uploads.times());
    let _ = step(&mut writer, &uploads);
    uploads.spool(later);
    uploads.abandon("shutdown-timeout", true);
    let lost = uploads.forget("shutdown-timeout");
    assert_eq!((lost.chunks, lost.bytes), (1, 20));
    let reports = std::iter::from_fn(|| uploads.take_report());
    let cut = reports.filter_map(|report| match report {
        Report::Cut { summary, reason } => Some((summary.sequence, summary.size, reason)),
        _ => None,
    });
    assert_eq!(cut.collect::<Vec<_>>(), [(0, 20, "shutdown-timeout")]);
}

#[test]
fn memory_that_is_full_does_not_wait_for_the_chunks_of_earlier_sessions_to_be_found() {
    let uploads = with_disk(25);
    for sequence in 0..2 {
        assert!(uploads.charge(10, Overflow::DropOldest).is_taken());
        // The disk did not accept them, and cannot.
        uploads.queue(chunk(sequence, 10));
    }
    let charged = std::thread::spawn({
        let uploads = Arc::clone(&uploads);
        move || uploads.charge(10, Overflow::DropOldest)
    });
    let until = std::time::Instant::now() + Duration::from_secs(5);
    while !charged.is_finished() {
        assert!(std::time::Instant::now() < until, "it waits for the disk");
        std::thread::yield_now();
    }
    assert!(dropped(&uploads).iter().all(|lost| *lost == (0, "overflow")));
}

#[test]
fn a_defect_of_the_spool_is_reported_and_holds_no_memory() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        let hooked = HookedDisk::new(Defect);
        let uploads = with_disk(1000);
        uploads.adopt(Vec::new(), true);
        let writer = spool_writer(&hooked, &uploads);
        assert!(uploads.charge(20, Overflow::Block).is_taken());
        uploads.spool(written_as_it_comes(10));
        assert!(uploads.charge(10, Overflow::Block).is_taken());
        uploads.queue(movable(1));
        uploads.move_all();
        let task = tokio::spawn(spooler::run(
            Arc::clone(&uploads),
            writer,
            Jobs::of(hooked.disk.root(), Lane::new(Duration::from_secs(5))),
            Duration::from_secs(1),
            Box::new(|| {}),
        ));
        let until = Instant::now() + Duration::from_secs(5);
        let is_fatal = |report| matches!(report, Report::HealthEvent(HealthEvent::Fatal { .. }, _));
        while !uploads.take_report().is_some_and(is_fatal) {
            assert!(Instant::now() < until, "nobody tells of it");
            tokio::task::yield_now().await;
        }
        tokio::task::yield_now().await;
        assert_eq!(uploads.snapshot().memory, 10, "what waits to be sent");
        assert_eq!(dropped(&uploads), [(0, "defect")], "the chunk that ended in it is a gap");
        assert_eq!(
            uploads.wait_moved(until, false, &|| false),
            Drained::Yes,
            "nobody waits for it"
        );
        uploads.stop();
        task.await.unwrap();
    });
}

/// A chunk whose clock was wrong, as the next start finds it; its new entry does not fit into the block of its old one.
fn found(disk: &SimDisk, spool: &Arc<Spool>) -> Stored {
    {
        let session = spool.session("cam", SESSION).unwrap();
        let entry = Entry {
            location: "{device}/%Y_{session}_{seq}.{ext}".into(),
            start: 40_000_000_000,
            clock: "suspect".into(),
            boot_id: boot::boot_id().unwrap(),
            boot_ns: boot::boot_ns(),
            metadata: [("note".to_owned(), "n".repeat(5000))].into(),
            ..entry(7)
        };
        drop(written(&session, entry));
    }
    assert_eq!(chunk_files(disk), ["7"]);
    match adopt(spool).sessions.pop().unwrap().chunks.pop().unwrap() {
        Found::Upload(stored) => stored,
        Found::Rebuild(partial) => panic!("{partial:?}"),
    }
}

fn spool_on(disk: &SimDisk) -> Arc<Spool> {
    Spool::open(Arc::new(disk.clone()), disk.root(), 0).unwrap()
}

#[test]
fn a_chunk_for_whose_new_date_there_is_no_room_is_sent_as_it_is() {
    let disk = SimDisk::new(1);
    let spool = spool_on(&disk);
    let uploads = with_disk(100);
    let chunk = ChunkFile::new(found(&disk, &spool), uploads.times());
    spool.set_max(1);
    let loaded = Arc::clone(&chunk).load().unwrap();
    assert_eq!((loaded.request.name.as_str(), loaded.start), ("x7", 40_000_000_000));
    spool.set_max(1 << 30);
    let loaded = chunk.load().unwrap();
    assert!(loaded.request.name.starts_with("cam/20"), "{}", loaded.request.name);
}

#[test]
fn only_damage_and_removal_are_for_good() {
    let disk = SimDisk::new(1);
    let spool = spool_on(&disk);
    let uploads = with_disk(100);
    let stored = found(&disk, &spool);
    let path = stored.path();
    let chunk = ChunkFile::new(stored, uploads.times());
    // EMFILE, EIO.
    for errno in [24, 5] {
        disk.set_fault(Some(Fault::Once(1, errno)));
        let refused = Arc::clone(&chunk).load();
        assert!(matches!(refused, Err(Unloaded::Unreadable(_))), "{refused:?}");
        assert!(Arc::clone(&chunk).load().is_ok(), "it is still there");
    }
    let bytes = disk.bytes(&path);
    disk.put(&path, &bytes.iter().map(|b| !b).collect::<Vec<u8>>());
    let damaged = Arc::clone(&chunk).load();
    assert!(matches!(damaged, Err(Unloaded::Damaged(_))), "{damaged:?}");
    disk.remove_file(&path).unwrap();
    let gone = chunk.load();
    assert!(matches!(gone, Err(Unloaded::Damaged(_))), "{gone:?}");
}

#[test]
fn what_was_sent_from_memory_is_known_on_disk_and_after_a_kill() {
    let disk = SimDisk::new(1);
    let uploads = with_disk(100);
    let times = uploads.times();
    let spool = spool_on(&disk);
    let session = spool.session("cam", SESSION).unwrap();
    let mut open = session.create(&entry(3)).unwrap();
    let data = Bytes::from_static(b"0123456789");
    open.append(0, std::slice::from_ref(&data)).unwrap();
    let closed = ClosedEntry {
        entry: entry(3),
        size: 10,
        crc32c: crc32c::crc32c(&data),
    };
    let stored = open.finish(&closed).unwrap();
    let sent = Arc::new(SentNames::known(vec![name_mark("x3")]));
    let chunk = ChunkFile::moved(stored, Arc::clone(&sent), Arc::clone(&times));
    assert!(Arc::clone(&chunk).load().unwrap().sent.has("x3"));
    let next = disk.kill();
    drop((chunk, open, session, spool));
    let Found::Upload(stored) = adopt(&spool_on(&next)).sessions.pop().unwrap().chunks.pop().unwrap() else {
        panic!("half")
    };
    let chunk = ChunkFile::new(stored, times);
    assert!(Arc::clone(&chunk).load().unwrap().sent.has("x3"));
    chunk.unmark_sent("x3");
    let last = next.kill();
    drop(chunk);
    let Found::Upload(stored) = adopt(&spool_on(&last)).sessions.pop().unwrap().chunks.pop().unwrap() else {
        panic!("half")
    };
    assert!(stored.sent().is_empty());
}

#[test]
fn a_chunk_that_may_stand_in_the_bucket_under_its_name_is_not_dated_again() {
    let disk = SimDisk::new(1);
    let spool = spool_on(&disk);
    let uploads = with_disk(100);
    let mut stored = found(&disk, &spool);
    stored.mark_sent(name_mark("x7")).unwrap();
    let chunk = ChunkFile::new(stored, uploads.times());
    assert_eq!(Arc::clone(&chunk).load().unwrap().request.name, "x7");
}

/// A rebuilt chunk as the next start loads it.
fn rebuilt(attempted: bool, sent: bool) -> Loaded {
    let disk = SimDisk::new(1);
    let spool = spool_on(&disk);
    let uploads = with_disk(100);
    let entry = Entry {
        rebuilt: true,
        attempted,
        sent,
        ..entry(4)
    };
    let mut open = spool.session("cam", SESSION).unwrap().create(&entry).unwrap();
    let data = Bytes::from_static(b"0123456789");
    open.append(0, std::slice::from_ref(&data)).unwrap();
    let closed = ClosedEntry {
        entry,
        size: 10,
        crc32c: crc32c::crc32c(&data),
    };
    let stored = open.finish(&closed).unwrap();
    ChunkFile::new(stored, uploads.times()).load().unwrap()
}

#[test]
fn a_rebuilt_chunk_may_be_longer_in_the_bucket_only_if_there_was_a_request_for_it() {
    let (none, some) = (rebuilt(false, false), rebuilt(true, true));
    assert!(!none.naming.rebuilt && !none.sent.has("x4"), "as an earlier build left it");
    assert!(some.naming.rebuilt && some.sent.has("x4"));
}

#[test]
fn a_chunk_whose_attempt_is_broken_off_after_it_was_stored_is_neither_sent_again_nor_taken_for_removed() {
    let disk = SimDisk::new(1);
    let spool = spool_on(&disk);
    let uploads = with_disk(1000);
    let spooled: Arc<dyn SpooledChunk> = ChunkFile::new(found(&disk, &spool), uploads.times());
    let name = Arc::clone(&spooled).load().unwrap().request.name;
    let stored = StoredAs {
        name: name.clone(),
        device: "cam".to_owned(),
        generation: Some(7),
        size: 10,
        crc32c: 1,
        start: 2,
    };
    spooled.set_stored(stored);
    // The confirmation continues although no caller waits for it.
    assert!(spooled.confirm());
    let flow = Route::own(&Arc::new(Member::new(Group::join(""), BucketEndpoint::of("", "b"))), None);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let (attempted, confirmed) = runtime.block_on(send_from_disk(&Unanswering, &spooled, None, &flow));
    let Attempted::Stored {
        stored, name: reported, ..
    } = attempted
    else {
        panic!("{attempted:?}")
    };
    assert_eq!(
        (stored.map(|s| s.generation), reported, confirmed),
        (Some(7), name, Confirmed::File)
    );
}

/// A chunk on a disk that does not answer.
#[derive(Debug)]
pub(super) struct Unanswering;

impl SpooledChunk for Unanswering {
    fn load(self: Arc<Self>) -> Result<Loaded, Unloaded> {
        Err(Unloaded::Unreadable("too many open files".to_owned()))
    }
    fn mark_attempted(&self) {
        panic!("nothing can be sent")
    }
    fn mark_sent(&self, _name: &str) {
        panic!("nothing can be sent")
    }
    fn unmark_sent(&self, _name: &str) {
        panic!("nothing can be sent")
    }
    fn confirm(&self) -> bool {
        panic!("it was not stored")
    }
    fn discard(&self) -> bool {
        panic!("nobody lets go of it")
    }
    fn damage(&self) -> Option<String> {
        None
    }
    fn set_aside(&self, why: &str) -> String {
        panic!("it is not damaged: {why}")
    }
}

impl Writers for Unanswering {
    fn own(&self) -> Arc<dyn ObjectWriter> {
        panic!("nothing can be sent")
    }
    fn to(&self, _endpoint: Option<&str>, _anonymous: bool) -> Result<Arc<dyn ObjectWriter>, String> {
        panic!("nothing can be sent")
    }
}

#[test]
fn a_chunk_that_cannot_be_read_now_is_tried_again_and_not_set_aside() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let member = Arc::new(Member::new(Group::join(""), BucketEndpoint::of("unanswering", "b")));
    let flow = Route::own(&member, None);
    let spooled: Arc<dyn SpooledChunk> = Arc::new(Unanswering);
    let attempted = runtime.block_on(send_from_disk(&Unanswering, &spooled, None, &flow));
    let (Attempted::Failed { error, .. }, Confirmed::No) = attempted else {
        panic!("it is given up")
    };
    assert_eq!(error.class, Class::Local);
    assert!(
        error.message.contains("too many open files") && error.message.contains("stays"),
        "{}",
        error.message
    );
}

/// A chunk of an earlier session whose endpoint gets no credentials. Only this test uses the number.
pub(super) fn parked(destination: u64) -> Chunk {
    Chunk {
        place: Place::Disk(Arc::new(Unanswering)),
        recovered: true,
        link_key: Some(Elsewhere::Parked(DestinationId::of(&destination))),
        ..movable(0)
    }
}

fn refused() -> Attempted {
    Attempted::Failed {
        error: WriteError {
            class: Class::Permanent,
            http_status: Some(403),
            retry_after: None,
            server_date: None,
            bad_generation: None,
            may_be_stored: false,
            reason: None,
            message: "no".to_owned(),
        },
        name: None,
        warning: Some("of nobody's concern".to_owned()),
    }
}

#[test]
fn a_parked_chunk_is_not_waited_for_and_neither_its_refusal_nor_its_age_is_reported() {
    let uploads = with_disk(100);
    uploads.adopt(vec![parked(101)], true);
    let soon = Instant::now() + Duration::from_secs(5);
    assert_eq!(uploads.wait_drained(soon, false, &|| false), Drained::Yes);
    let chunks = due(&uploads);
    let (ticket, _) = chunks.into_iter().next().expect("it is tried");
    assert_eq!(uploads.wait_drained(soon, false, &|| false), Drained::Yes);
    uploads.finished(ticket, refused(), Confirmed::No);
    let snapshot = uploads.snapshot();
    assert_eq!(
        (snapshot.pending.chunks, snapshot.pending.bytes, snapshot.pending.oldest),
        (0, 0, 0)
    );
    assert_eq!((snapshot.parked, snapshot.stats.recovered), (1, 1));
    assert_eq!((uploads.status(), uploads.is_failing()), (Status::Starting, false));
    let (lost, left) = uploads.abandon("drain-timeout", true);
    assert_eq!((lost.chunks, left.chunks), (0, 0));
    assert!(uploads.take_report().is_none(), "there is nothing to say");
    // Another sink of this process finds it.
    let next = with_disk(100);
    next.adopt(vec![parked(101), parked(102)], true);
    let chunks = due(&next);
    let link_keys: Vec<_> = chunks.iter().map(|(_, c)| c.link_key).collect();
    assert_eq!(
        link_keys,
        [Some(Elsewhere::Parked(DestinationId::of(&102u64)))],
        "once an hour, whoever does it"
    );
    next.finished(chunks[0].0, refused(), Confirmed::No);
    let Due::Send { wake, .. } = next.due() else {
        panic!("it has stopped")
    };
    assert!(wake.expect("in an hour") > Instant::now() + Duration::from_secs(3500));
}

#[test]
fn a_parked_chunk_gives_way_only_where_the_disk_is_full_and_the_oldest_is_to_go() {
    let uploads = with_disk(25);
    uploads.adopt(vec![parked(103)], true);
    (0..2).for_each(|_| assert!(uploads.charge(10, Overflow::Block).is_taken()));
    for policy in [Overflow::Block, Overflow::Error, Overflow::DropOldest] {
        // The open chunk occupies all memory: waiting for parked chunks would never end.
        assert!(
            matches!(uploads.charge(10, policy), Charged::No(NoRoom::Nothing | NoRoom::MoveOpen)),
            "{policy:?}"
        );
    }
    assert_eq!(uploads.snapshot().parked, 1);
    {
        let mut state = uploads.lock();
        let disk = state.disk.as_mut().unwrap();
        (disk.health, disk.is_full) = (DiskHealth::Blocked { since: None }, true);
    }
    assert_eq!(uploads.charge(10, Overflow::Block), Charged::No(NoRoom::Nothing));
    let charged = std::thread::spawn({
        let uploads = Arc::clone(&uploads);
        move || uploads.charge(10, Overflow::DropOldest)
    });
    let until = std::time::Instant::now() + Duration::from_secs(5);
    while uploads.snapshot().parked > 0 {
        assert!(std::time::Instant::now() < until, "it keeps the disk full");
        std::thread::yield_now();
    }
    assert_eq!(dropped(&uploads), [(0, "overflow")]);
    // Nobody removes the file in this test.
    uploads.interrupt(true);
    assert_eq!(charged.join().unwrap(), Charged::No(NoRoom::Interrupted));
}

/// A chunk that is written as it is recorded: two pieces and its end.
pub(super) fn written_as_it_comes(second: usize) -> Vec<Op> {
    let pieces = [Bytes::from_static(b"0123456789"), Bytes::from(vec![7; second])];
    let size = 10 + second as u64;
    let ended = chunk(0, size);
    let Place::Memory(held) = ended.place else { unreachable!() };
    let mut request = Arc::try_unwrap(held).unwrap().request;
    request.size = size;
    request.crc32c = crc32c::crc32c(&pieces.concat());
    let naming = NameFallback {
        session: SESSION.to_owned(),
        sequence: 0,
        own: true,
        rebuilt: false,
    };
    let closing = Closing {
        entry: Box::new(entry(0)),
        request,
        naming,
        summary: ended.summary,
        closed_at: 0,
    };
    let data = |at, bytes: Bytes| Op::Data {
        sequence: 0,
        at,
        charged: bytes.len() as u64,
        bytes,
    };
    let begin = Op::Begin {
        sequence: 0,
        entry: Box::new(entry(0)),
    };
    let [first, second] = pieces;
    vec![begin, data(0, first), data(10, second), Op::End(Box::new(closing))]
}

/// Carries out the work that is due now. Returns the disk's error.
fn step(writer: &mut SpoolWriter, uploads: &UploadQueue) -> Option<SpoolError> {
    let work = uploads.take_disk_work().0.expect("there is something to do");
    let touch = work.touch;
    let trouble = writer.work(work, false, uploads);
    uploads.disk_done(
        touch,
        trouble
            .as_ref()
            .map(|_| SpoolError::reading(PathBuf::new(), io::Error::other("refused"))),
    );
    trouble
}

fn left_and_lost(uploads: &UploadQueue) -> Vec<(u64, u64)> {
    std::iter::from_fn(|| uploads.take_report())
        .filter_map(|report| match report {
            Report::Left { left, lost } => Some((left.bytes, lost.bytes)),
            Report::Cut { summary, .. } => Some((0, summary.size)),
            Report::Dropped { .. } => panic!("{report:?}"),
            _ => None,
        })
        .collect()
}

/// A sink whose disk refuses the first sync, which is the one of a chunk's end.
fn end_mark_refused() -> (SimDisk, Arc<UploadQueue>, SpoolWriter) {
    let (asked, _) = channel();
    let (answer, answers) = channel();
    answer.send(Err(io::Error::from_raw_os_error(5))).unwrap();
    (0..100).for_each(|_| answer.send(Ok(())).unwrap());
    let hooked = HookedDisk::new(Syncs {
        asked,
        answers: Mutex::new(answers),
    });
    let uploads = Arc::new(UploadQueue::new(limits(100_000, 1), 1, Box::new(|| {})).with_disk(false));
    uploads.adopt(Vec::new(), true);
    let mut writer = spool_writer(&hooked, &uploads);
    assert!(uploads.charge(20, Overflow::Block).is_taken());
    uploads.spool(written_as_it_comes(10));
    assert!(step(&mut writer, &uploads).is_some());
    (hooked.disk, uploads, writer)
}

fn found_at_the_next_start(disk: &SimDisk) -> Vec<Found> {
    let spool = spool_on(&disk.kill());
    let sessions = adopt(&spool).sessions;
    sessions.into_iter().flat_map(|session| session.chunks).collect()
}

#[test]
fn an_end_that_the_disk_refused_once_is_written_again_and_the_chunk_is_whole_on_disk() {
    let (disk, uploads, mut writer) = end_mark_refused();
    uploads.lock().disk.as_mut().unwrap().health.retry();
    assert!(step(&mut writer, &uploads).is_none());
    assert!(uploads.lock().chunks.values().all(|c| c.is_on_disk()));
    let (lost, left) = uploads.abandon("drain-timeout", true);
    assert_eq!((lost.bytes, left.chunks, left.bytes), (0, 1, 20));
    assert_eq!(left_and_lost(&uploads), [(20, 0)]);
    let found = found_at_the_next_start(&disk);
    let [Found::Upload(stored)] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!(stored.size(), 20);
}

#[test]
fn a_part_whose_folder_is_removed_before_its_end_is_written_is_saved_into_the_new_one() {
    let (disk, uploads, mut writer) = end_mark_refused();
    disk.remove_tree(&disk.root().join("cam").join(SESSION));
    uploads.lock().disk.as_mut().unwrap().health.retry();
    assert!(step(&mut writer, &uploads).is_none());
    assert_eq!(chunk_files(&disk).len(), 1);
    let found = found_at_the_next_start(&disk);
    let [Found::Upload(stored)] = &found[..] else {
        panic!("{found:?}")
    };
    assert_eq!(stored.size(), 20);
}

/// The same sink: the chunk is sent, and the disk is to be tried again with its end.
fn sent_before_its_end() -> (SimDisk, Arc<UploadQueue>, SpoolWriter, (Ticket, Arc<Chunk>)) {
    let (disk, uploads, writer) = end_mark_refused();
    let chunks = due(&uploads);
    let sent = chunks.into_iter().next().expect("it is sent");
    uploads.move_all();
    uploads.lock().disk.as_mut().unwrap().health.retry();
    (disk, uploads, writer, sent)
}

#[test]
fn a_chunk_that_is_sent_from_its_part_while_its_end_is_written_leaves_no_file_behind() {
    let (disk, uploads, mut writer, (ticket, sending)) = sent_before_its_end();
    assert!(step(&mut writer, &uploads).is_none());
    assert_eq!(chunk_files(&disk).len(), 1);
    sending.part().expect("sent from there").spooled.confirm();
    assert_eq!(chunk_files(&disk).len(), 1, "it is the chunk now");
    let stored = stored_as("x0");
    uploads.finished(ticket, stored, Confirmed::Part);
    assert!(step(&mut writer, &uploads).is_none());
    assert!(chunk_files(&disk).is_empty());
}

#[test]
fn a_chunk_that_is_stored_before_its_end_is_written_is_no_trouble_of_the_disk() {
    let (disk, uploads, mut writer, (_, sending)) = sent_before_its_end();
    sending.part().expect("sent from there").spooled.confirm();
    assert!(step(&mut writer, &uploads).is_none());
    let words: Vec<Report> = std::iter::from_fn(|| uploads.take_report()).collect();
    assert!(
        !words.iter().any(|word| format!("{word:?}").contains("closed already")),
        "{words:?}"
    );
    assert!(chunk_files(&disk).is_empty());
}

#[test]
fn a_chunk_whose_end_the_disk_never_took_stays_for_the_next_start_and_nothing_is_reported_as_lost() {
    let (disk, uploads, mut writer) = end_mark_refused();
    let (lost, left) = uploads.abandon("shutdown-timeout", true);
    assert_eq!((lost.chunks, lost.bytes, left.chunks, left.bytes), (0, 0, 1, 20));
    assert_eq!(left_and_lost(&uploads), [(20, 0)]);
    uploads.stop();
    while let (Some(work), _) = uploads.take_disk_work() {
        assert!(writer.work(work, false, &*uploads).is_none());
    }
    let found = found_at_the_next_start(&disk);
    assert!(
        matches!(&found[..], [Found::Rebuild(partial)] if partial.len() == 20) || matches!(&found[..], [Found::Upload(_)]),
        "{found:?}"
    );
}

/// The server has the chunk, under this name.
fn stored_as(name: &str) -> Attempted {
    Attempted::Stored {
        stored: None,
        device: "cam".to_owned(),
        name: name.to_owned(),
        crc32c: 0,
        start: None,
        warning: None,
    }
}

/// A sink in mode `always` whose disk has refused a chunk, which is being sent from memory; the disk works again.
fn sent_from_memory() -> (SimDisk, Arc<UploadQueue>, SpoolWriter, Ticket) {
    let disk = SimDisk::new(1);
    let uploads = Arc::new(UploadQueue::new(limits(25, 1), 1, Box::new(|| {})).with_disk(false));
    uploads.adopt(Vec::new(), true);
    let writer = SpoolWriter::new(spool_on(&disk).session("cam", SESSION).unwrap(), uploads.times());
    uploads.lock().disk.as_mut().unwrap().health.block();
    assert!(uploads.charge(10, Overflow::Block).is_taken());
    uploads.queue(movable(0));
    let chunks = due(&uploads);
    let (ticket, _) = chunks.into_iter().next().expect("it is sent");
    uploads.lock().disk.as_mut().unwrap().health.retry();
    (disk, uploads, writer, ticket)
}

#[test]
fn a_kill_takes_nothing_of_a_chunk_that_is_sent_from_memory_once_the_disk_works_again() {
    let (disk, uploads, mut writer, ticket) = sent_from_memory();
    assert!(step(&mut writer, &uploads).is_none());
    assert!(uploads.lock().scheduler.is_in_flight(ticket));
    let found = found_at_the_next_start(&disk);
    assert!(
        matches!(&found[..], [Found::Upload(stored)] if stored.size() == 10),
        "{found:?}"
    );
}

#[test]
fn a_chunk_that_is_sent_on_from_memory_is_charged_until_that_ends_and_leaves_no_file_behind() {
    let (disk, uploads, mut writer, ticket) = sent_from_memory();
    assert!(step(&mut writer, &uploads).is_none());
    assert_eq!((uploads.snapshot().memory, chunk_files(&disk).len()), (10, 1));
    uploads.finished(ticket, stored_as("x0"), Confirmed::No);
    assert_eq!(uploads.snapshot().memory, 0);
    assert!(step(&mut writer, &uploads).is_none());
    assert!(chunk_files(&disk).is_empty());
}

#[test]
fn the_rest_of_a_chunk_whose_beginning_is_on_disk_is_charged_until_its_attempt_ends() {
    for waits in [false, true] {
        let disk = SimDisk::new(1);
        let uploads = Arc::new(UploadQueue::new(limits(25, 1), 1, Box::new(|| {})).with_disk(false));
        uploads.adopt(Vec::new(), true);
        let mut writer = SpoolWriter::new(spool_on(&disk).session("cam", SESSION).unwrap(), uploads.times());
        assert!(uploads.charge(20, Overflow::Block).is_taken());
        let mut ops = written_as_it_comes(10);
        let rest = ops.split_off(2);
        uploads.spool(ops);
        assert!(step(&mut writer, &uploads).is_none());
        // The disk is full for a moment.
        disk.set_fault(Some(Fault::Once(0, 28)));
        uploads.spool(rest);
        assert!(step(&mut writer, &uploads).is_some());
        let chunks = due(&uploads);
        let (ticket, sending) = chunks.into_iter().next().expect("it is sent");
        assert!(sending.part().is_some(), "its beginning is on disk");
        assert_eq!(uploads.snapshot().memory, 10);
        uploads.lock().disk.as_mut().unwrap().health.retry();
        uploads.lock().memory.need = if waits { 20 } else { 0 };
        assert!(step(&mut writer, &uploads).is_none());
        assert!(uploads.lock().chunks[&ticket].is_on_disk());
        if waits {
            let Due::Send { aborts, .. } = uploads.due() else {
                panic!("it has stopped")
            };
            assert_eq!(aborts, [ticket], "a buffer waits for its room");
        } else {
            assert_eq!(uploads.snapshot().memory, 10, "the attempt holds it");
            uploads.finished(ticket, stored_as("x0"), Confirmed::No);
        }
        assert_eq!(uploads.snapshot().memory, 0);
    }
}

#[test]
fn a_chunk_that_is_on_disk_is_sent_from_memory_only_while_no_buffer_waits_for_its_room() {
    let (disk, uploads, mut writer, ticket) = sent_from_memory();
    assert!(step(&mut writer, &uploads).is_none());
    assert!(uploads.charge(10, Overflow::DropOldest).is_taken());
    assert!(uploads.lock().scheduler.is_in_flight(ticket), "there is room for both");
    assert!(uploads.charge(10, Overflow::DropOldest).is_taken());
    assert_eq!(uploads.snapshot().memory, 20);
    let Due::Send { aborts, chunks, .. } = uploads.due() else {
        panic!("it has stopped")
    };
    assert_eq!(aborts, [ticket]);
    assert!(matches!(&chunks[..], [(again, chunk)] if *again == ticket && chunk.is_on_disk()));
    assert_eq!((uploads.snapshot().memory, dropped(&uploads)), (20, vec![]));
    assert_eq!(chunk_files(&disk).len(), 1);
}

#[test]
fn a_spool_that_is_full_in_mid_chunk_keeps_what_it_has_and_only_the_rest_is_reported_as_lost() {
    let disk = SimDisk::new(1);
    let spool = Spool::open(Arc::new(disk.clone()), disk.root(), 20_000).unwrap();
    let uploads = Arc::new(UploadQueue::new(limits(1 << 20, 1), 1, Box::new(|| {})).with_disk(false));
    uploads.adopt(Vec::new(), true);
    let mut writer = SpoolWriter::new(spool.session("cam", SESSION).unwrap(), uploads.times());
    assert!(uploads.charge(100_010, Overflow::Block).is_taken());
    let mut ops = written_as_it_comes(100_000);
    let rest = ops.split_off(2);
    uploads.spool(ops);
    assert!(step(&mut writer, &uploads).is_none());
    uploads.spool(rest);
    assert!(step(&mut writer, &uploads).is_some_and(|e| e.is_full()));
    uploads.move_all();
    let (lost, left) = uploads.abandon("drain-timeout", true);
    assert_eq!((lost.bytes, left.chunks, left.bytes), (100_000, 1, 10));
    assert_eq!(left_and_lost(&uploads), [(0, 100_000), (10, 100_000)]);
    assert_eq!(uploads.snapshot().memory, 0);
    while let (Some(work), _) = uploads.take_disk_work() {
        let _ = writer.work(work, false, &*uploads);
        uploads.disk_done(Touch::Free, None);
    }
    let found = found_at_the_next_start(&disk);
    assert!(
        matches!(&found[..], [Found::Rebuild(partial)] if partial.len() == 10),
        "{found:?}"
    );
}

#[test]
fn a_chunk_whose_file_could_not_be_made_goes_to_disk_when_that_works_again() {
    let disk = SimDisk::new(1);
    let uploads = Arc::new(UploadQueue::new(limits(1000, 1), 1, Box::new(|| {})).with_disk(false));
    uploads.adopt(Vec::new(), true);
    let mut writer = SpoolWriter::new(spool_on(&disk).session("cam", SESSION).unwrap(), uploads.times());
    assert!(uploads.charge(20, Overflow::Block).is_taken());
    uploads.spool(written_as_it_comes(10));
    disk.set_fault(Some(Fault::Once(1, 5)));
    assert!(step(&mut writer, &uploads).is_some());
    uploads.lock().disk.as_mut().unwrap().health.retry();
    assert!(step(&mut writer, &uploads).is_none());
    assert_eq!(uploads.snapshot().memory, 0);
    assert_eq!(chunk_files(&disk).len(), 1);
}
