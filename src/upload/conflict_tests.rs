//! The outcome of a 412, by its reason, by the existing object, and by what this chunk is known to have sent before.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;

use super::attempt::{Attempted, attempt};
use super::chunk::NameFallback;
use super::chunk::SentNames;
use super::marks::Marks;
use crate::base::lock::lock;
use crate::flow::bucket_endpoint::BucketEndpoint;
use crate::flow::group::Group;
use crate::flow::member::{Member, Route};
use crate::spool::name_mark;
use gcstreamer_storage::{Body, BoxFuture, Class, ObjectRequest, ObjectWriter, Pacer, Stored, WriteError};

pub(super) const NAME: &str = "cam/x_0a1b2c3d4e_000007.ts";
pub(super) const AGAIN: &str = "cam/x_0a1b2c3d4e_000007-r1.ts";
/// A name without session and sequence.
const ANYBODYS: &str = "cam/x.ts";
const CRC: u32 = 17;

pub(super) type Answer = Result<Stored, WriteError>;

/// A server that gives the answers of its script, and stores everything after that.
#[derive(Default)]
pub(super) struct Script {
    /// Whether the whole body is read, and the answer.
    pub(super) puts: Mutex<VecDeque<(bool, Answer)>>,
    lookups: Mutex<VecDeque<Answer>>,
    pub(super) deletes: Mutex<VecDeque<Result<(), WriteError>>>,
    /// Names under which the chunk was sent.
    names: Mutex<Vec<String>>,
}

impl ObjectWriter for Script {
    fn write<'a>(&'a self, request: &'a ObjectRequest, pacer: Arc<dyn Pacer>) -> BoxFuture<'a, Answer> {
        lock(&self.names).push(request.name.clone());
        let (is_whole, answer) = lock(&self.puts).pop_front().unwrap_or((true, Ok(object(10, Some(CRC)))));
        if is_whole {
            pacer.sent_whole();
        }
        Box::pin(std::future::ready(answer))
    }

    fn stat<'a>(&'a self, _bucket: &'a str, _name: &'a str) -> BoxFuture<'a, Answer> {
        let answer = lock(&self.lookups)
            .pop_front()
            .unwrap_or_else(|| refused(Class::Permanent, 403, None));
        Box::pin(std::future::ready(answer))
    }

    fn delete<'a>(&'a self, _bucket: &'a str, _name: &'a str, _generation: i64) -> BoxFuture<'a, Result<(), WriteError>> {
        let answer = lock(&self.deletes).pop_front().unwrap_or(Ok(()));
        Box::pin(std::future::ready(answer))
    }
}

fn object(size: u64, crc32c: Option<u32>) -> Stored {
    Stored {
        generation: 1,
        size,
        crc32c,
        created: None,
    }
}

pub(super) fn error(class: Class, http_status: Option<u16>, reason: Option<&str>) -> WriteError {
    WriteError {
        class,
        http_status,
        reason: reason.map(str::to_owned),
        retry_after: None,
        server_date: None,
        bad_generation: None,
        may_be_stored: false,
        message: format!("the server answered {http_status:?}"),
    }
}

pub(super) fn refused<T>(class: Class, status: u16, reason: Option<&str>) -> Result<T, WriteError> {
    Err(error(class, Some(status), reason))
}

pub(super) fn taken() -> Answer {
    refused(Class::Conflict, 412, Some("conditionNotMet"))
}

fn bare() -> Answer {
    refused(Class::Conflict, 412, None)
}

pub(super) fn lost() -> Answer {
    Err(error(Class::Transient, None, None))
}

/// A chunk and its server.
pub(super) struct Case {
    pub(super) script: Script,
    /// The bucket that a `Retry-After` holds.
    pub(super) endpoint: &'static str,
    own: bool,
    rebuilt: bool,
    sent: Arc<SentNames>,
    /// The name that an earlier attempt gave it.
    pub(super) name: Option<String>,
}

impl Case {
    pub(super) fn new(puts: impl IntoIterator<Item = (bool, Answer)>, lookups: impl IntoIterator<Item = Answer>) -> Self {
        let script = Script::default();
        lock(&script.puts).extend(puts);
        lock(&script.lookups).extend(lookups);
        Self {
            script,
            endpoint: "conflicts",
            own: true,
            rebuilt: false,
            sent: Arc::default(),
            name: None,
        }
    }

    fn sent_before(self) -> Self {
        Self {
            sent: Arc::new(SentNames::known(vec![name_mark(NAME)])),
            ..self
        }
    }

    /// Its name has no session and sequence, and it was sent whole under that name.
    fn of_anybody(self) -> Self {
        Self {
            own: false,
            sent: Arc::new(SentNames::known(vec![name_mark(ANYBODYS)])),
            ..self
        }
    }

    pub(super) fn attempt(&mut self) -> Attempted {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        let request = ObjectRequest {
            bucket: "b".into(),
            name: if self.own { NAME } else { ANYBODYS }.into(),
            content_type: String::new(),
            cache_control: None,
            storage_class: None,
            kms_key: None,
            metadata: BTreeMap::new(),
            custom_time: None,
            crc32c: CRC,
            size: 10,
            body: Body::from_pieces([Bytes::from_static(b"0123456789")]),
        };
        let naming = NameFallback {
            session: "0a1b2c3d4e".into(),
            sequence: 7,
            own: self.own,
            rebuilt: self.rebuilt,
        };
        let marks = Marks::new(Arc::clone(&self.sent), None);
        let attempted = runtime.block_on(async {
            let member = Arc::new(Member::new(Group::join(""), BucketEndpoint::of(self.endpoint, "b")));
            let flow = Route::own(&member, None);
            attempt(&self.script, &request, self.name.as_deref(), &naming, &marks, &flow).await
        });
        if let Attempted::Failed { name: Some(name), .. } = &attempted {
            self.name = Some(name.clone());
        }
        attempted
    }

    /// Returns the name under which it is stored, and whether there is a WARNING.
    pub(super) fn stored(&mut self) -> (String, bool) {
        match self.attempt() {
            Attempted::Stored { name, warning, .. } => (name, warning.is_some()),
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn failed(&mut self) -> WriteError {
        match self.attempt() {
            Attempted::Failed { error, .. } => error,
            other => panic!("{other:?}"),
        }
    }

    pub(super) fn sent_as(&self) -> Vec<String> {
        lock(&self.script.names).clone()
    }
}

fn under(name: &str) -> (String, bool) {
    (name.to_owned(), name != NAME)
}

#[test]
fn a_taken_name_alone_is_no_proof_that_the_chunk_is_stored() {
    // Reading is not permitted, and this chunk was never sent: it is stored under another name.
    for conflict in [taken, bare] {
        let mut case = Case::new([(true, conflict())], []);
        assert_eq!(case.stored(), under(AGAIN));
        assert_eq!(case.sent_as(), [NAME, AGAIN]);
    }
}

#[test]
fn a_chunk_whose_answer_was_lost_after_its_last_byte_is_stored_once() {
    for conflict in [taken, bare] {
        let mut case = Case::new([(true, lost()), (true, conflict())], []);
        assert_eq!(case.failed().class, Class::Transient);
        assert_eq!(case.stored(), under(NAME));
        assert_eq!(case.sent_as(), [NAME, NAME]);
        // The same if another process has sent it.
        assert_eq!(Case::new([(true, conflict())], []).sent_before().stored(), under(NAME));
    }
}

#[test]
fn a_chunk_that_broke_before_its_last_byte_is_stored_again_under_another_name() {
    let mut case = Case::new([(false, lost()), (true, taken())], []);
    case.failed();
    assert_eq!(case.stored(), under(AGAIN));
}

#[test]
fn a_gateways_timeout_may_hide_that_it_was_stored_and_a_refusal_may_not() {
    for (status, is_ours) in [
        (502, true),
        (503, true),
        (504, true),
        (408, true),
        (403, false),
        (429, false),
        (412, false),
    ] {
        let class = match status {
            403 | 412 => Class::Permanent,
            429 => Class::Throttled,
            _ => Class::Transient,
        };
        let mut case = Case::new([(true, refused(class, status, Some("x"))), (true, taken())], []);
        case.failed();
        assert_eq!(case.stored(), under(if is_ours { NAME } else { AGAIN }), "{status}");
    }
}

#[test]
fn what_was_sent_whole_once_stays_so_when_a_later_request_is_refused() {
    let mut case = Case::new(
        [(true, lost()), (true, refused(Class::Throttled, 429, None)), (true, taken())],
        [],
    );
    case.failed();
    case.failed();
    assert_eq!(case.stored(), under(NAME));
}

#[test]
fn the_request_that_meets_the_conflict_proves_nothing_though_it_was_sent_whole() {
    // The look fails for now. The next attempt must not take its own refused body for that of an earlier one.
    let mut case = Case::new([(true, taken()), (true, taken())], [refused(Class::Transient, 503, None)]);
    assert_eq!(case.failed().http_status, Some(503));
    assert_eq!(case.stored(), under(AGAIN));
}

#[test]
fn another_name_has_to_be_sent_whole_itself() {
    let mut case = Case::new([(true, taken()), (false, lost()), (true, taken())], []).of_anybody();
    case.failed();
    let name = case.name.clone().unwrap();
    assert_ne!(name, ANYBODYS, "a name without session and sequence is anybody's");
    assert_ne!(case.stored().0, name);
}

#[test]
fn another_name_that_was_sent_whole_is_ours_as_it_tells_session_and_sequence() {
    let mut case = Case::new([(true, taken()), (true, lost()), (true, taken())], []).of_anybody();
    case.failed();
    let name = case.name.clone().unwrap();
    assert_eq!(name, NAME);
    assert_eq!(case.stored().0, name, "it is not stored twice");
}

#[test]
fn a_412_with_any_other_reason_is_for_the_user_and_nobody_looks() {
    let policy = refused(Class::Permanent, 412, Some("orgPolicyConstraintFailed"));
    let mut case = Case::new([(true, policy)], [Ok(object(10, Some(CRC)))]).sent_before();
    assert_eq!((case.failed().class, case.name.as_deref()), (Class::Permanent, None));
    assert_eq!(lock(&case.script.lookups).len(), 1);
}

#[test]
fn only_size_and_checksum_that_are_both_known_to_be_equal_prove_it() {
    for (there, want) in [
        (object(10, Some(CRC)), NAME),
        (object(10, Some(CRC + 1)), AGAIN),
        (object(11, Some(CRC)), AGAIN),
        (object(10, None), AGAIN),
        (object(11, None), AGAIN),
    ] {
        for conflict in [taken, bare] {
            let mut case = Case::new([(true, conflict())], [Ok(there.clone())]);
            assert_eq!(case.stored(), under(want), "{there:?}");
        }
    }
    let mut unreported = Case::new([(true, taken())], [Ok(object(10, None))]).sent_before();
    assert_eq!(
        unreported.stored(),
        under(NAME),
        "the mark says it where the server gives no checksum"
    );
    let mut other = Case::new([(true, taken())], [Ok(object(9, None))]).sent_before();
    assert_eq!(other.stored(), under(AGAIN));
}

#[test]
fn a_rebuilt_chunk_takes_only_a_longer_object_of_a_request_of_its_own_for_itself() {
    let longer = || [Ok(object(11, Some(3)))];
    let mut case = Case::new([(true, taken())], longer());
    case.rebuilt = true;
    assert_eq!(case.stored(), under(NAME));
    let mut shorter = Case::new([(true, taken())], [Ok(object(9, Some(3)))]);
    shorter.rebuilt = true;
    assert_eq!(shorter.stored(), under(AGAIN), "what is shorter does not hold it");
    assert_eq!(
        Case::new([(true, taken())], longer()).stored(),
        under(AGAIN),
        "there was no request"
    );
}

#[test]
fn a_damaged_object_that_stays_is_never_taken_for_the_chunk() {
    let damaged = || WriteError {
        bad_generation: Some(5),
        may_be_stored: false,
        ..error(Class::Transient, Some(200), None)
    };
    for deleted in [
        Ok(()),
        refused(Class::Permanent, 403, None),
        refused(Class::Transient, 503, None),
    ] {
        // Whether the deletion worked or not, the next request under that name is refused, and reading is not permitted.
        let mut case = Case::new([(true, Err(damaged())), (true, taken())], []).sent_before();
        let may_stay = deleted.is_err();
        lock(&case.script.deletes).push_back(deleted);
        let (name, is_reported) = case.stored();
        assert!(name != NAME && is_reported, "{name}");
        assert_eq!(name == AGAIN, !may_stay, "{name}");
    }
}

#[test]
fn a_412_where_nothing_stands_is_for_the_user() {
    let missing = || refused(Class::Permanent, 404, None);
    let mut once = Case::new([(true, taken())], [missing()]);
    assert_eq!(once.stored(), under(NAME), "it was deleted just then");
    let mut case = Case::new([(true, bare()), (true, bare())], [missing(), missing()]);
    let error = case.failed();
    assert_eq!((error.class, case.name.as_deref()), (Class::Permanent, None));
    assert!(error.message.contains("there is no such object"), "{error}");
}

#[test]
fn a_server_that_refuses_every_name_without_a_reason_is_for_the_user_and_tries_no_names_for_ever() {
    for _ in 0..3 {
        let mut case = Case::new((0..9).map(|_| (true, bare())), []);
        let error = case.failed();
        assert_eq!((error.class, case.name.as_deref()), (Class::Permanent, None));
        assert!(error.message.contains("storage.objects.get"), "{error}");
        assert_eq!(case.sent_as().len(), 3);
    }
}

#[test]
fn a_token_that_has_expired_before_the_look_is_no_missing_permission() {
    let lookups = || [refused(Class::Auth, 401, None), Ok(object(10, Some(CRC)))];
    assert_eq!(Case::new([(true, taken())], lookups()).stored(), under(NAME));
    let no_token = || Err(error(Class::Auth, None, None));
    let mut case = Case::new([(true, taken())], [no_token(), no_token()]);
    assert_eq!(case.failed().class, Class::Auth);
    assert_eq!(case.name, None, "nobody knows yet what stands there");
}
