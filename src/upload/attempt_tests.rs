//! What one attempt leaves for the next one: the chunk's name, and when the user has to act.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::attempt::Attempted;
use super::chunk::SpooledChunk;
use super::conflict_tests::{AGAIN, Answer, Case, NAME, error, lost, refused, taken};
use super::disk_tests::{SESSION, entry, written};
use super::driver::{Writers, send_from_disk};
use super::spooled_chunk::{ChunkFile, Times};
use crate::base::boot;
use crate::base::clock::Clock;
use crate::base::lock::lock;
use crate::flow::bucket_endpoint::BucketEndpoint;
use crate::flow::group::Group;
use crate::flow::member::{Member, Route};
use crate::spool::sim::SimDisk;
use crate::spool::{Entry, Spool};
use gcstreamer_storage::{BoxFuture, Class, ObjectRequest, ObjectWriter, Pacer, Stored, WriteError};

fn damaged() -> Answer {
    Err(WriteError {
        bad_generation: Some(5),
        ..error(Class::Transient, None, None)
    })
}

#[test]
fn an_attempt_that_failed_leaves_the_chunk_its_own_name() {
    let busy = WriteError {
        retry_after: Some(Duration::from_secs(60)),
        ..error(Class::Throttled, Some(429), None)
    };
    let mut case = Case::new([(false, lost()), (false, Err(busy))], []);
    case.endpoint = "own-name";
    for _ in 0..2 {
        case.failed();
        assert_eq!(case.name, None);
    }
    let held = case.attempt();
    assert!(matches!(held, Attempted::Held { name: None, .. }), "{held:?}");
}

#[test]
fn a_chunk_under_another_name_keeps_that_over_attempts() {
    let mut case = Case::new([(true, taken()), (true, lost()), (true, lost()), (true, taken())], []);
    for _ in 0..2 {
        case.failed();
        assert_eq!(case.name.as_deref(), Some(AGAIN));
    }
    assert_eq!(case.stored().0, AGAIN, "it is not stored twice");
}

#[test]
fn another_name_of_an_old_date_is_not_that_of_a_redated_chunk() {
    let mut case = Case::new([], []);
    case.name = Some(AGAIN.replace("cam/", "cam/1970/"));
    assert_eq!(case.stored().0, NAME);
    let mut case = Case::new([(true, lost())], []);
    case.name = Some("cam/1970/x_0a1b2c3d4e_000007-r1.ts".to_owned());
    case.failed();
    assert_eq!(case.sent_as(), [NAME]);
}

#[test]
fn a_server_whose_checksum_is_always_wrong_is_for_the_user_and_gets_no_copies_for_ever() {
    for may_delete in [true, false] {
        let mut case = Case::new((0..9).map(|_| (true, damaged())), []);
        if !may_delete {
            lock(&case.script.deletes).extend((0..9).map(|_| refused(Class::Permanent, 403, None)));
        }
        for sent in [2, 3, 4] {
            let error = case.failed();
            // The error has a status, so it is not one about credentials.
            assert_eq!((error.class, error.http_status), (Class::Permanent, Some(200)));
            assert!(error.message.contains("proxy"), "{error}");
            assert_eq!(case.sent_as().len(), sent);
        }
        let mut names = case.sent_as();
        names.dedup();
        assert_eq!(names.len(), if may_delete { 1 } else { 4 }, "{names:?}");
        // Once the proxy is fixed the chunk is stored, and no damaged object is taken for it.
        lock(&case.script.puts).clear();
        assert!(!names[1..].contains(&case.stored().0));
    }
}

#[test]
fn damage_of_this_machine_stays_that() {
    let local = || {
        Err(WriteError {
            bad_generation: Some(5),
            ..error(Class::Local, None, None)
        })
    };
    let mut case = Case::new((0..9).map(|_| (true, local())), []);
    assert_eq!(case.failed().class, Class::Local);
    assert_eq!(case.sent_as().len(), 2);
}

#[test]
fn an_expired_token_is_renewed_before_the_user_is_asked_also_where_the_answer_asks_for_a_pause() {
    let expired = || {
        Err(WriteError {
            retry_after: Some(Duration::from_secs(1)),
            ..error(Class::Auth, Some(401), None)
        })
    };
    let mut case = Case::new([(true, expired())], []);
    case.endpoint = "expired";
    assert_eq!(case.stored(), (NAME.to_owned(), false));
    let mut case = Case::new([(true, expired()), (true, expired())], []);
    case.endpoint = "expired-twice";
    assert_eq!(case.failed().class, Class::Auth);
    assert_eq!(case.sent_as().len(), 2);
    let held = case.attempt();
    assert!(matches!(held, Attempted::Held { .. }), "the pause is kept: {held:?}");
}

/// A server that is unreachable at first, and later stores under any name.
#[derive(Clone, Default)]
struct Server(Arc<AtomicBool>);

impl ObjectWriter for Server {
    fn write<'a>(&'a self, request: &'a ObjectRequest, _: Arc<dyn Pacer>) -> BoxFuture<'a, Answer> {
        let stored = Stored {
            generation: 1,
            size: request.size,
            crc32c: Some(request.crc32c),
            created: None,
        };
        let answer = if self.0.load(Ordering::Relaxed) { Ok(stored) } else { lost() };
        Box::pin(std::future::ready(answer))
    }

    fn stat<'a>(&'a self, _: &'a str, name: &'a str) -> BoxFuture<'a, Answer> {
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

#[tokio::test]
async fn a_chunk_that_failed_before_the_clock_was_set_is_stored_under_the_name_of_its_corrected_date() {
    let disk = SimDisk::new(1);
    let spool = Spool::open(Arc::new(disk.clone()), disk.root(), 0).unwrap();
    let session = spool.session("cam", SESSION).unwrap();
    let before = Entry {
        name: format!("cam/1970_{SESSION}_000007"),
        location: "{device}/%Y_{session}_{seq}".into(),
        start: 40_000_000_000,
        clock: "suspect".into(),
        boot_id: boot::boot_id().unwrap(),
        boot_ns: boot::boot_ns(),
        ..entry(7)
    };
    let is_set = Arc::new(AtomicBool::new(false));
    let is_off = Arc::clone(&is_set);
    let times = Times::new(Clock::SYSTEM, Box::new(move || !is_off.load(Ordering::Relaxed)));
    let chunk: Arc<dyn SpooledChunk> = ChunkFile::new(written(&session, before), Arc::new(times));
    let flow = Route::own(
        &Arc::new(Member::new(Group::join(""), BucketEndpoint::of("redated", "b"))),
        None,
    );
    let server = Server::default();
    let mut renamed = None;
    for _ in 0..2 {
        let (attempted, _) = send_from_disk(&server, &chunk, renamed.as_deref(), &flow).await;
        let Attempted::Failed { name, .. } = attempted else {
            panic!("{attempted:?}")
        };
        renamed = name.or(renamed);
    }
    is_set.store(true, Ordering::Relaxed);
    server.0.store(true, Ordering::Relaxed);
    let (attempted, _) = send_from_disk(&server, &chunk, renamed.as_deref(), &flow).await;
    let Attempted::Stored { name, .. } = attempted else {
        panic!("{attempted:?}")
    };
    assert!(name.starts_with("cam/20"), "{name}");
}
