//! The engine without a shell: pauses, policies, ticks, and observers.

use std::path::Path;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use gcstreamer_media::chunk::clock::Stamp;
use gcstreamer_media::chunk::{Chunker, Limits, Warning};
use gcstreamer_schema::name::Template;
use gcstreamer_storage::{BoxFuture, Endpoint, ObjectRequest, ObjectWriter, Pacer, Stored, WriteError};
use proptest::prelude::*;
use tokio::runtime::Handle;
use tokio::time::{advance, sleep};

use super::message::{Message, Poster, Refusal, Wait};
use super::object::{ObjectBuilder, ObjectSettings, PER_CHUNK};
use super::{Config, Engine, Parts};
use crate::base::lock::lock;
use crate::flow::bucket_endpoint::BucketEndpoint;
use crate::flow::group::Group;
use crate::flow::member::Member;
use crate::upload::chunk::Keep;
use crate::upload::driver::Writers;
use crate::upload::life::{LifeEvent, Observer, Step};
use crate::upload::queue::{Overflow, UploadLimits, UploadQueue};
use crate::upload::recovery::{self, SpoolSettings};

mod large;

const SECOND: u64 = 1_000_000_000;

/// A server that stores everything, or never answers.
#[derive(Clone, Copy)]
struct Server {
    answers: bool,
}

impl ObjectWriter for Server {
    fn write<'a>(&'a self, request: &'a ObjectRequest, _pacer: Arc<dyn Pacer>) -> BoxFuture<'a, Result<Stored, WriteError>> {
        Box::pin(async move {
            if !self.answers {
                std::future::pending::<()>().await;
            }
            Ok(Stored {
                generation: 1,
                size: request.size,
                crc32c: Some(request.crc32c),
                created: None,
            })
        })
    }

    fn stat<'a>(&'a self, _bucket: &'a str, _name: &'a str) -> BoxFuture<'a, Result<Stored, WriteError>> {
        Box::pin(std::future::pending())
    }

    fn delete<'a>(&'a self, _bucket: &'a str, _name: &'a str, _generation: i64) -> BoxFuture<'a, Result<(), WriteError>> {
        Box::pin(std::future::pending())
    }
}

impl Writers for Server {
    fn own(&self) -> Arc<dyn ObjectWriter> {
        Arc::new(*self)
    }

    fn to(&self, _endpoint: Option<&str>, _anonymous: bool) -> Result<Arc<dyn ObjectWriter>, String> {
        Ok(self.own())
    }
}

/// Collects the posted messages.
#[derive(Default)]
struct Posted(Mutex<Vec<Message>>);

impl Poster for Posted {
    fn post(&self, message: Message) {
        lock(&self.0).push(message);
    }

    fn wait_posted(&self, _at_most: Duration) {}
}

/// Answers the waits of a paused element one after the other.
struct Pauses<F>(F);

impl<F: Fn() -> Result<(), &'static str>> Wait for Pauses<F> {
    type Flow = &'static str;

    fn wait_preroll(&self) -> Result<(), &'static str> {
        (self.0)()
    }
}

fn never_paused() -> Pauses<impl Fn() -> Result<(), &'static str>> {
    Pauses(|| unreachable!("nobody has paused it"))
}

fn limits() -> Limits {
    Limits {
        max_time: 10 * SECOND,
        max_bytes: 100,
        align: false,
        single: false,
        soft: 0,
        hard: 0,
    }
}

fn config(overflow: Overflow) -> Config {
    Config {
        limits: limits(),
        uploads: UploadLimits {
            max_uploads: 1,
            // Room for one small chunk, with its overhead, but not for another buffer of 600 bytes.
            max_memory: 6000,
            max_time: 10 * SECOND,
            retry_timeout: None,
        },
        overflow: Some(overflow),
        startup_timeout: 30 * SECOND,
        shutdown_timeout: Duration::from_secs(5),
    }
}

fn engine(server: Server, overflow: Overflow, observer: Arc<dyn Observer>) -> (Arc<Engine>, Arc<Posted>) {
    engine_with(server, overflow, |queue| queue.with_observer(observer))
}

fn engine_with(server: Server, overflow: Overflow, queue: impl FnOnce(UploadQueue) -> UploadQueue) -> (Arc<Engine>, Arc<Posted>) {
    let config = config(overflow);
    let queue = queue(UploadQueue::new(config.uploads, 1, Box::new(|| {})));
    begin(server, config, queue, None)
}

fn builder(device: &str) -> ObjectBuilder {
    let location = "{device}/x_{session}_{seq}.{ext}";
    ObjectBuilder {
        bucket: "b".to_owned(),
        device: device.to_owned(),
        location: location.to_owned(),
        template: Template::parse(location).unwrap(),
        endpoint: Endpoint::google(),
        session: "0a1b2c3d4e".into(),
        boot_id: "".into(),
        settings: ObjectSettings::default(),
    }
}

/// Begins an engine, with `spool` for a camera of that name.
fn begin(server: Server, config: Config, queue: UploadQueue, spool: Option<(&Path, &str)>) -> (Arc<Engine>, Arc<Posted>) {
    let posted = Arc::new(Posted::default());
    let builder = builder(spool.map_or("cam", |(_, device)| device));
    let spool = spool.map(|(dir, device)| {
        let settings = SpoolSettings {
            dir: &dir.display().to_string(),
            max_bytes: 1 << 30,
            keep: Keep::Always,
            interval: Duration::from_secs(1),
            outlasts_refusals: false,
        };
        recovery::open(
            settings,
            device,
            "0a1b2c3d4e",
            builder.endpoint.clone(),
            builder.destination(),
        )
        .unwrap()
    });
    let parts = Parts {
        chunker: Chunker::new(config.limits, None),
        builder,
        queue: Arc::new(queue),
        flow: Arc::new(Member::new(Group::join(""), BucketEndpoint::of("ingest", "tests"))),
        writers: Arc::new(server),
        poster: Arc::<Posted>::clone(&posted),
        config,
    };
    (Engine::begin(parts, spool, &Handle::current()), posted)
}

fn stamp() -> Stamp {
    Stamp {
        running: None,
        clock_running: None,
        wall: 1_795_329_912 * SECOND,
        reference: None,
        held: 0,
    }
}

#[tokio::test(start_paused = true)]
async fn a_pause_while_the_memory_is_full_loses_no_buffer_and_a_flush_ends_the_wait() {
    let (engine, _) = engine(Server { answers: false }, Overflow::Block, Arc::new(()));
    engine.reserve(600, &never_paused()).unwrap();
    // A closed chunk is in flight, so that there is something to wait for.
    engine.push(&[7; 600], || None, stamp(), false, &never_paused()).unwrap();
    engine.with(|ingest| ingest.finish()).unwrap();
    let held = engine.queue.snapshot().memory;
    assert!((600 + PER_CHUNK..6000).contains(&held), "{held}");
    engine.queue.interrupt(true);
    let flushed = engine.reserve(600, &Pauses(|| Err("flushing")));
    assert_eq!(flushed, Err(Refusal::Flow("flushing")));
    assert_eq!(engine.queue.snapshot().memory, held, "the buffer is not charged");
    let paused = engine.reserve(
        600,
        &Pauses(|| {
            // Back in PLAYING, with room by now.
            engine.queue.interrupt(false);
            engine.queue.abandon("drain-timeout", false);
            Ok(())
        }),
    );
    assert_eq!(paused, Ok(()));
    assert_eq!(engine.queue.snapshot().memory, 600, "it goes on with the same buffer");
}

#[tokio::test(start_paused = true)]
async fn a_file_that_waits_for_the_uploads_is_not_cut_as_if_nothing_came() {
    const BUFFER: u64 = 100_000;
    let config = Config {
        limits: Limits {
            max_bytes: 1 << 30,
            ..limits()
        },
        overflow: Some(Overflow::Block),
        ..wide(1_000_000)
    };
    let queue = UploadQueue::new(config.uploads, 1, Box::new(|| {}));
    let (engine, _) = begin(Server { answers: false }, config, queue, None);
    let push = |wall: u64| {
        let stamp = Stamp {
            wall: stamp().wall + wall * SECOND,
            held: engine.held(),
            ..stamp()
        };
        engine.push(&[7; 100_000], || None, stamp, false, &never_paused()).unwrap();
    };
    engine.reserve(BUFFER, &never_paused()).unwrap();
    push(0);
    engine.with(|ingest| ingest.finish()).unwrap();
    // One is in flight; the next takes most of what room is left.
    for _ in 0..6 {
        engine.reserve(BUFFER, &never_paused()).unwrap();
        push(1);
    }
    let waiting = {
        let (engine, runtime) = (Arc::clone(&engine), Handle::current());
        std::thread::spawn(move || {
            let _time = runtime.enter();
            engine.reserve(4 * BUFFER, &never_paused())
        })
    };
    while engine.held.until() != u64::MAX {
        std::thread::yield_now();
    }
    for _ in 0..60 {
        advance(Duration::from_secs(1)).await;
        engine.tick(true);
    }
    engine.queue.release(4 * BUFFER);
    waiting.join().unwrap().unwrap();
    engine.tick(true);
    push(61);
    let now = engine.queue.snapshot();
    assert_eq!(
        (now.pending.chunks, now.stats.created),
        (1, 2),
        "all that came since is one chunk, which is open"
    );
}

#[tokio::test(start_paused = true)]
async fn the_policy_error_ends_the_recording_with_one_message() {
    let (engine, posted) = engine(Server { answers: false }, Overflow::Error, Arc::new(()));
    engine.reserve(600, &never_paused()).unwrap();
    engine.push(&[7; 600], || None, stamp(), false, &never_paused()).unwrap();
    engine.with(|ingest| ingest.finish()).unwrap();
    for _ in 0..3 {
        assert_eq!(engine.reserve(600, &never_paused()), Err(Refusal::Failed));
    }
    let full = lock(&posted.0).iter().filter(|m| matches!(m, Message::Full)).count();
    assert_eq!(full, 1);
}

/// An engine for one object, whose spool refuses and whose memory is full of it.
fn single(overflow: Overflow, is_overflow_mode: bool) -> (Arc<Engine>, Arc<Posted>) {
    let (engine, posted) = engine_with(Server { answers: false }, overflow, |queue| queue.with_disk(is_overflow_mode));
    let limits = Limits {
        single: true,
        ..limits()
    };
    engine.set_config(Config {
        limits,
        ..config(overflow)
    });
    engine.queue.set_disk_refusing(true);
    engine.reserve(1000, &never_paused()).unwrap();
    engine.push(&[7; 1000], || None, stamp(), false, &never_paused()).unwrap();
    (engine, posted)
}

#[tokio::test(start_paused = true)]
async fn one_object_that_neither_spool_nor_memory_has_room_for_is_an_error_and_takes_no_more_memory() {
    for (policy, is_overflow_mode) in [
        (Overflow::Error, false),
        (Overflow::Error, true),
        (Overflow::DropOldest, false),
        (Overflow::DropOldest, true),
    ] {
        let (engine, posted) = single(policy, is_overflow_mode);
        let failed = (0..20).any(|_| {
            let refused = engine.reserve(1000, &never_paused());
            refused == Err(Refusal::Failed)
        });
        assert!(failed, "{policy:?}");
        assert!(engine.queue.snapshot().memory <= 6000);
        let too_large = |m: &&Message| matches!(m, Message::TooLarge { full_memory: Some(6000), size } if *size <= 6000);
        assert_eq!(lock(&posted.0).iter().filter(too_large).count(), 1, "{policy:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_object_waits_for_a_spool_that_is_full_where_the_policy_is_block() {
    for is_overflow_mode in [false, true] {
        let (engine, posted) = single(Overflow::Block, is_overflow_mode);
        // A sixteenth is left for the next chunk.
        while engine.queue.snapshot().memory + 1000 <= 6000 - 6000 / 16 {
            engine.reserve(1000, &never_paused()).unwrap();
        }
        let held = engine.queue.snapshot().memory;
        let waiting = || {
            let engine = Arc::clone(&engine);
            std::thread::spawn(move || engine.reserve(1000, &Pauses(|| Err("flushing"))))
        };
        let flushed = waiting();
        engine.queue.interrupt(true);
        assert_eq!(flushed.join().unwrap(), Err(Refusal::Flow("flushing")), "{is_overflow_mode}");
        assert_eq!(engine.queue.snapshot().memory, held);
        engine.queue.interrupt(false);
        let goes_on = waiting();
        engine.queue.set_disk_refusing(false);
        // What the spool writes is released.
        engine.queue.release(2000);
        assert_eq!(goes_on.join().unwrap(), Ok(()), "{is_overflow_mode}");
        assert!(!lock(&posted.0).iter().any(|m| matches!(m, Message::TooLarge { .. })));
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_that_a_spool_lasts_counts_what_all_sinks_receive_that_share_its_folder() {
    let folder = tempfile::tempdir().unwrap();
    let engines: Vec<_> = ["a", "b", "c", "d"]
        .into_iter()
        .map(|device| {
            let config = wide(64 << 20);
            let queue = UploadQueue::new(config.uploads, 1, Box::new(|| {})).with_disk(false);
            begin(Server { answers: false }, config, queue, Some((folder.path(), device))).0
        })
        .collect();
    for _ in 0..60 {
        for engine in &engines {
            engine.reserve(10_000, &never_paused()).unwrap();
            engine.push(&[7; 10_000], || None, stamp(), false, &never_paused()).unwrap();
            engine.tick(true);
        }
        advance(Duration::from_secs(1)).await;
    }
    let rate_of_all = |asked: &Engine| {
        let own = asked.queue.snapshot().input;
        assert!((9_000..=11_000).contains(&own), "{own}");
        asked.spool.as_ref().unwrap().input(own)
    };
    for engine in &engines {
        let all = rate_of_all(engine);
        assert!((32_000..=48_000).contains(&all), "{all}");
    }
    // One sink ends and needs no room any more.
    engines[3].fail();
    engines[3].tick(true);
    let all = rate_of_all(&engines[0]);
    assert!((27_000..=33_000).contains(&all), "{all}");
}

#[tokio::test(start_paused = true)]
async fn that_nothing_comes_is_reported_once_and_counts_the_time_in_playing() {
    let (engine, posted) = engine(Server { answers: true }, Overflow::Block, Arc::new(()));
    let count = || lock(&posted.0).len();
    for _ in 0..100 {
        advance(Duration::from_secs(1)).await;
        engine.tick(false);
    }
    assert_eq!(count(), 0, "it was paused");
    for second in 0..60 {
        engine.tick(true);
        assert_eq!(count(), usize::from(second >= 30), "{second}");
        advance(Duration::from_secs(1)).await;
    }
    let first = lock(&posted.0).first().cloned();
    assert!(
        matches!(first, Some(Message::NothingToStore { received: 0, waited }) if waited == 30 * SECOND),
        "{first:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_transport_stream_without_tables_is_called_that_at_the_startup_timeout() {
    let (engine, posted) = engine(Server { answers: true }, Overflow::Block, Arc::new(()));
    // Packets of one PID, each with payload.
    let packets: Vec<u8> = (0..8u8)
        .flat_map(|n| [&[0x47, 0x01, 0x20, 0x10 | n][..], &[0x77; 184]].concat())
        .collect();
    engine.push(&packets, || None, stamp(), false, &never_paused()).unwrap();
    for _ in 0..60 {
        engine.tick(true);
        advance(Duration::from_secs(1)).await;
    }
    let posted = lock(&posted.0).clone();
    let is_no_program = |message: &Message| {
        matches!(
            message,
            Message::Warning {
                warning: Warning::NoProgram,
                ..
            }
        )
    };
    assert!(posted.len() == 1 && is_no_program(&posted[0]), "{posted:?}");
}

/// Calls the engine at every step: no lock may be held then.
#[derive(Default)]
struct Curious {
    engine: Mutex<Weak<Engine>>,
    steps: Mutex<Vec<Step>>,
}

impl Observer for Curious {
    fn observe(&self, event: &LifeEvent) {
        let engine = lock(&self.engine).upgrade();
        if let Some(engine) = engine {
            engine.queue.snapshot();
            engine.with(|ingest| ingest.chunker.has_begun());
        }
        lock(&self.steps).push(event.step.clone());
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_watches_a_chunk_sees_its_life_in_order_and_may_ask_the_engine() {
    let curious = Arc::new(Curious::default());
    let (engine, _) = engine(Server { answers: true }, Overflow::Block, Arc::<Curious>::clone(&curious));
    *lock(&curious.engine) = Arc::downgrade(&engine);
    engine.reserve(600, &never_paused()).unwrap();
    engine.push(&[7; 600], || None, stamp(), false, &never_paused()).unwrap();
    engine.with(|ingest| ingest.finish()).unwrap();
    sleep(Duration::from_secs(1)).await;
    let steps = lock(&curious.steps).clone();
    let stored = Step::Stored("cam/x_0a1b2c3d4e_000000.bin".to_owned());
    let expected = [Step::Cut, Step::Closed(600), Step::Queued, Step::Attempt(1), stored];
    assert_eq!(steps, expected);
}

/// A tag of FLV, with its size behind it.
fn tag(kind: u8, ms: u32, body: &[u8]) -> Vec<u8> {
    let len = u32::try_from(body.len()).unwrap();
    let [_, a, b, c] = len.to_be_bytes();
    let [d, e, f, g] = ms.to_be_bytes();
    let head = [kind, a, b, c, e, f, g, d, 0, 0, 0];
    [&head[..], body, &(len + 11).to_be_bytes()].concat()
}

/// Returns FLV with `cuts` configurations, each with one key frame; `alike`: two of them alternate.
fn configurations(cuts: u32, alike: bool) -> Vec<u8> {
    // A large audio configuration is in front of every chunk.
    let sound = [&[0xaf, 0, 0x12, 0x10][..], &[7; 20_000]].concat();
    let mut stream = [&b"FLV\x01\x05\0\0\0\x09\0\0\0\0"[..], &tag(8, 0, &sound)].concat();
    for cut in 0..cuts {
        let [.., high, low] = (if alike { cut % 2 } else { cut }).to_be_bytes();
        let config = [
            0x17, 0, 0, 0, 0, 1, 100, 0, 30, 0xff, 0xe1, 0, 6, 0x67, 100, 0, 30, high, low, 1, 0, 2, 0x68, 0xee,
        ];
        stream.extend(tag(9, cut * 40, &config));
        stream.extend(tag(9, cut * 40, &[0x17, 1, 0, 0, 0, 0, 0, 0, 2, 0x65, 0x88]));
    }
    stream
}

fn wide(max_memory: u64) -> Config {
    let config = config(Overflow::DropOldest);
    let uploads = UploadLimits {
        max_memory,
        ..config.uploads
    };
    let limits = Limits {
        max_bytes: 0,
        ..limits()
    };
    Config {
        uploads,
        limits,
        ..config
    }
}

#[tokio::test(start_paused = true)]
async fn headers_and_small_chunks_count_against_max_memory_bytes_and_equal_headers_once() {
    for (alike, headers) in [(true, 2), (false, 2)] {
        let (engine, _) = engine(Server { answers: false }, Overflow::DropOldest, Arc::new(()));
        engine.set_config(wide(64 << 20));
        let stream = configurations(1000, alike);
        engine.reserve(stream.len() as u64, &never_paused()).unwrap();
        engine.push(&stream, || None, stamp(), false, &never_paused()).unwrap();
        engine.with(|ingest| ingest.finish()).unwrap();
        let snapshot = engine.queue.snapshot();
        assert_eq!(snapshot.stats.created, 1000, "each is cut");
        let (least, most) = (
            1000 * PER_CHUNK,
            1000 * (PER_CHUNK + 1500) + headers * 20_500 + stream.len() as u64,
        );
        assert!(
            (least..most).contains(&snapshot.memory),
            "{} of {least} to {most}",
            snapshot.memory
        );
        engine.queue.abandon("drain-timeout", false);
        assert_eq!(engine.queue.snapshot().memory, 0, "nothing is left of it");
    }
}

#[tokio::test(start_paused = true)]
async fn one_buffer_that_begins_thousands_of_chunks_keeps_to_max_memory_bytes() {
    let (engine, _) = engine(Server { answers: false }, Overflow::DropOldest, Arc::new(()));
    engine.set_config(wide(8 << 20));
    let stream = configurations(20_000, false);
    engine.reserve(stream.len() as u64, &never_paused()).unwrap();
    engine.push(&stream, || None, stamp(), false, &never_paused()).unwrap();
    engine.with(|ingest| ingest.finish()).unwrap();
    let snapshot = engine.queue.snapshot();
    assert_eq!(snapshot.stats.created, 20_000);
    assert!(snapshot.memory <= 9 << 20, "{}", snapshot.memory);
    assert!(snapshot.stats.dropped > 15_000, "{}", snapshot.stats.dropped);
    engine.queue.abandon("drain-timeout", false);
    assert_eq!(engine.queue.snapshot().memory, 0);
}

#[derive(Clone, Debug)]
enum Doing {
    Push(usize),
    Record(bool),
    MakeRoom,
    Discont,
    Drop,
}

fn doing() -> impl Strategy<Value = Doing> {
    prop_oneof![
        6 => (1usize..200_000).prop_map(Doing::Push),
        1 => any::<bool>().prop_map(Doing::Record),
        1 => Just(Doing::MakeRoom),
        1 => Just(Doing::Discont),
        1 => Just(Doing::Drop),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_charged_for_a_stream_is_given_back_whatever_becomes_of_it(
        steps in prop::collection::vec(doing(), 1..30),
        alike: bool,
        from in 0usize..100_000,
        max_memory in 1u64..64,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (engine, _) = engine(Server { answers: false }, Overflow::DropOldest, Arc::new(()));
            engine.set_config(wide(max_memory << 16));
            let stream = configurations(20_000, alike);
            let mut at = from;
            for step in steps {
                match step {
                    Doing::Push(len) => {
                        let piece = &stream[at.min(stream.len())..(at + len).min(stream.len())];
                        engine.reserve(piece.len() as u64, &never_paused()).unwrap();
                        engine.push(piece, || Some(Bytes::copy_from_slice(piece)), stamp(), false, &never_paused()).unwrap();
                        at += len;
                    }
                    Doing::Record(on) => engine.with(|ingest| ingest.record(on)),
                    Doing::MakeRoom => engine.with(|ingest| ingest.make_room()),
                    Doing::Discont => engine.with(|ingest| ingest.chunker.discont()),
                    Doing::Drop => engine.queue.drop_sent(),
                }
            }
            engine.with(|ingest| ingest.finish()).unwrap();
            engine.queue.abandon("drain-timeout", false);
            assert_eq!(engine.queue.snapshot().memory, 0);
        });
    }
}
