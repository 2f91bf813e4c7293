//! `Retry-After` of one bucket or endpoint and the sinks of a process: which ones it holds, and for how long.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::chunk::{Chunk, Loaded, Place, SpooledChunk, Unloaded};
use super::driver::{self, Writers};
use super::health::Status;
use super::queue::UploadQueue;
use super::scheduler::Elsewhere;
use super::tests::{chunk, limits};
use crate::base::lock::lock;
use crate::flow::bucket_endpoint::BucketEndpoint;
use crate::flow::group::Group;
use crate::flow::member::Member;
use crate::spool::DestinationId;
use gcstreamer_storage::{Body, BoxFuture, Class, ObjectRequest, ObjectWriter, Pacer, Stored, WriteError};

const HOUR: Duration = Duration::from_secs(3600);

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A server: some of its buckets answer 429 until a time, and ask to wait for an hour.
#[derive(Clone, Default)]
struct Server {
    busy: Arc<Mutex<BTreeMap<String, Instant>>>,
    /// Requests: when, the bucket, and whether it was stored.
    log: Arc<Mutex<Vec<(Instant, String, bool)>>>,
}

impl Server {
    fn busy(&self, bucket: &str, until: Instant) {
        lock(&self.busy).insert(bucket.to_owned(), until);
    }

    fn stored(&self, bucket: &str) -> usize {
        lock(&self.log).iter().filter(|(_, b, stored)| b == bucket && *stored).count()
    }

    fn requests(&self, bucket: &str) -> usize {
        lock(&self.log).iter().filter(|(_, b, _)| b == bucket).count()
    }
}

impl ObjectWriter for Server {
    fn write<'a>(&'a self, request: &'a ObjectRequest, _: Arc<dyn Pacer>) -> BoxFuture<'a, Result<Stored, WriteError>> {
        Box::pin(async move {
            let now = Instant::now();
            let is_busy = lock(&self.busy).get(&request.bucket).is_some_and(|&until| now < until);
            lock(&self.log).push((now, request.bucket.clone(), !is_busy));
            if is_busy {
                return Err(WriteError {
                    class: Class::Throttled,
                    http_status: Some(429),
                    retry_after: Some(HOUR),
                    server_date: None,
                    bad_generation: None,
                    may_be_stored: false,
                    reason: None,
                    message: "the server answered 429; it asks to wait 3600 s".to_owned(),
                });
            }
            Ok(Stored {
                generation: 1,
                size: request.size,
                crc32c: Some(request.crc32c),
                created: None,
            })
        })
    }

    fn stat<'a>(&'a self, _: &'a str, name: &'a str) -> BoxFuture<'a, Result<Stored, WriteError>> {
        panic!("nobody asks for {name}")
    }

    fn delete<'a>(&'a self, _: &'a str, name: &'a str, _: i64) -> BoxFuture<'a, Result<(), WriteError>> {
        panic!("nobody deletes {name}")
    }
}

impl Writers for Server {
    fn own(&self) -> Arc<dyn ObjectWriter> {
        Arc::new(self.clone())
    }

    fn to(&self, _: Option<&str>, _: bool) -> Result<Arc<dyn ObjectWriter>, String> {
        Ok(self.own())
    }
}

/// A chunk that an earlier session left for this bucket.
#[derive(Debug)]
struct Left(String, u64);

impl SpooledChunk for Left {
    fn load(self: Arc<Self>) -> Result<Loaded, Unloaded> {
        let Place::Memory(held) = chunk(self.1, 10).place else {
            return Err(Unloaded::Damaged(String::new()));
        };
        let mut request = held.request.clone();
        self.0.clone_into(&mut request.bucket);
        Ok(Loaded {
            request,
            naming: held.naming.clone(),
            endpoint: Some("https://here".to_owned()),
            anonymous: false,
            start: 0,
            sent: Arc::default(),
        })
    }
    fn mark_attempted(&self) {}
    fn mark_sent(&self, _name: &str) {}
    fn unmark_sent(&self, _name: &str) {}
    fn confirm(&self) -> bool {
        true
    }
    fn discard(&self) -> bool {
        true
    }
    fn damage(&self) -> Option<String> {
        None
    }
    fn set_aside(&self, why: &str) -> String {
        why.to_owned()
    }
}

/// A running sink that stores in a bucket at `https://here`.
struct Sink {
    uploads: Arc<UploadQueue>,
    bucket: String,
    next: u64,
}

impl Sink {
    fn new(group: &Arc<Group>, server: &Server, bucket: &str, max_uploads: usize) -> Self {
        let uploads = UploadQueue::new(limits(1 << 20, max_uploads), 1, Box::new(|| {}));
        let uploads = Arc::new(uploads.with_disk(false));
        let member = Arc::new(Member::new(Arc::clone(group), BucketEndpoint::of("https://here", bucket)));
        tokio::spawn(driver::run(Arc::clone(&uploads), Arc::new(server.clone()), member));
        Self {
            uploads,
            bucket: bucket.to_owned(),
            next: 0,
        }
    }

    /// Closes a chunk of its own.
    fn queue(&mut self) {
        let mut closed = chunk(self.next, 10);
        if let Place::Memory(held) = &mut closed.place {
            let held = Arc::get_mut(held).unwrap();
            self.bucket.clone_into(&mut held.request.bucket);
            held.request.body = Body::from_pieces([Bytes::from_static(b"0123456789")]);
        }
        self.next += 1;
        self.uploads.queue(closed);
    }

    /// Finds a chunk of an earlier session for the other bucket with this number.
    fn find(&mut self, bucket: &str, endpoint: u64) {
        let found = Chunk {
            place: Place::Disk(Arc::new(Left(bucket.to_owned(), endpoint))),
            recovered: true,
            link_key: Some(Elsewhere::Served(DestinationId::of(&endpoint))),
            ..chunk(endpoint, 10)
        };
        self.uploads.adopt(vec![found], false);
    }

    fn pending(&self) -> u64 {
        self.uploads.snapshot().pending.chunks
    }
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_asks_for_an_hour_holds_its_sinks_for_five_minutes_and_no_other_sink_of_the_group() {
    let (group, server) = (Group::join(""), Server::default());
    server.busy("a", Instant::now() + secs(100));
    let mut first = Sink::new(&group, &server, "a", 4);
    let mut same = Sink::new(&group, &server, "a", 4);
    let mut other = Sink::new(&group, &server, "b", 4);
    first.queue();
    tokio::time::sleep(secs(1)).await;
    for _ in 0..20 {
        same.queue();
        other.queue();
        tokio::time::sleep(secs(10)).await;
    }
    assert_eq!(server.stored("b"), 20);
    assert_eq!(server.requests("a"), 1, "the sink that was not answered so is held, too");
    assert_eq!(other.pending(), 0);
    tokio::time::sleep(secs(105)).await;
    assert_eq!(server.stored("a"), 21, "after five minutes at the latest");
}

#[tokio::test(start_paused = true)]
async fn a_hold_of_an_earlier_sessions_bucket_holds_neither_ours_nor_that_of_a_third() {
    for max_uploads in [1, 4] {
        let (group, server) = (Group::join(""), Server::default());
        // Holds are shared by the process, so each round has a bucket of its own.
        let old = &format!("old{max_uploads}");
        server.busy(old, Instant::now() + HOUR);
        let mut sink = Sink::new(&group, &server, "new", max_uploads);
        sink.find(old, 1);
        tokio::time::sleep(secs(1)).await;
        sink.find("third", 2);
        for _ in 0..5 {
            sink.queue();
            tokio::time::sleep(secs(10)).await;
        }
        assert_eq!((server.stored("new"), server.stored("third")), (5, 1));
        assert_eq!(server.requests(old), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_of_our_bucket_does_not_hold_what_an_earlier_session_left_for_another() {
    for max_uploads in [1, 4] {
        let (group, server) = (Group::join(""), Server::default());
        let new = &format!("new{max_uploads}");
        server.busy(new, Instant::now() + HOUR);
        let mut sink = Sink::new(&group, &server, new, max_uploads);
        sink.queue();
        tokio::time::sleep(secs(1)).await;
        sink.find("old", 1);
        sink.queue();
        tokio::time::sleep(secs(10)).await;
        assert_eq!((server.stored("old"), server.requests(new)), (1, 1), "{max_uploads}");
    }
}

#[tokio::test(start_paused = true)]
async fn at_the_end_a_hold_of_an_hour_leaves_time_to_store_once_the_server_is_well_again() {
    // EOS with 30 s, and Ctrl-C with 5 s; the server recovers after a third of that.
    for time in [secs(30), secs(5)] {
        let (group, server) = (Group::join(""), Server::default());
        let bucket = &format!("a{time:?}");
        let mut sink = Sink::new(&group, &server, bucket, 4);
        let mut neighbour = Sink::new(&group, &server, bucket, 4);
        server.busy(bucket, Instant::now() + secs(60) + time / 3);
        (0..3).for_each(|_| sink.queue());
        neighbour.queue();
        tokio::time::sleep(secs(60)).await;
        let before = server.requests(bucket);
        assert!((1..=4).contains(&before), "{before}");
        sink.uploads.ending(Status::Draining, Instant::now() + time);
        tokio::time::sleep(time).await;
        assert_eq!((server.stored(bucket), sink.pending()), (3, 0), "{time:?}");
        let tried = server.requests(bucket) - before;
        assert!(tried <= 12, "the server is not stormed: {tried}");
        assert_eq!(neighbour.pending(), 1, "it does not drain");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_stays_busy_is_asked_a_few_times_while_a_sink_drains_and_left_alone_after_it() {
    let (group, server) = (Group::join(""), Server::default());
    server.busy("a", Instant::now() + HOUR);
    let mut sink = Sink::new(&group, &server, "a", 4);
    sink.queue();
    tokio::time::sleep(secs(60)).await;
    sink.uploads.ending(Status::Draining, Instant::now() + secs(30));
    tokio::time::sleep(secs(30)).await;
    let in_the_drain = server.requests("a") - 1;
    assert!((2..=12).contains(&in_the_drain), "{in_the_drain}");
    tokio::time::sleep(secs(290)).await;
    assert!(server.requests("a") <= in_the_drain + 2, "{}", server.requests("a"));
}
