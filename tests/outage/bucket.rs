//! A bucket in memory that fails as its script says, on virtual time, and keeps a record of what reached it and when.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use gcstreamer_storage::{BoxFuture, Class, ObjectRequest, ObjectWriter, Pacer, Stored, WriteError};
use gstgcstreamer::upload::driver::Writers;
use tokio::time::{Instant, sleep};

use super::camera::CLOCK;

/// The property `request-timeout`.
const PATIENCE: Duration = Duration::from_secs(60);

/// What happens to an attempt.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    Pass,
    /// Nobody listens.
    Refused,
    /// The name does not resolve.
    NoName,
    /// This answer, after the body.
    Answer(Class, u16),
    /// This answer, with a wish to wait so many seconds.
    Busy(u16, u64),
    /// This answer before the body.
    Early(Class, u16),
    ResetBefore,
    ResetIn(usize),
    ResetAfter {
        stored: bool,
    },
    /// Never an answer.
    StallBefore,
    StallIn(usize),
    StallAfter {
        stored: bool,
    },
    /// Taken at so many bytes a second.
    Slow(u64),
    TruncatedReply,
    WrongCrcInReply,
    ShortObject,
    /// A stranger's object is in the way.
    Stranger,
}

/// An object.
#[derive(Clone, Debug)]
pub struct Object {
    pub request: ObjectRequest,
    pub data: Vec<u8>,
    pub generation: i64,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<String, Object>,
    faults: VecDeque<Fault>,
    generation: i64,
    /// Until then it is not there.
    down_until: Option<Instant>,
    may_not_look: bool,
    may_not_delete: bool,
    seconds_ahead: i64,
    /// Attempts: when, and of which sequence number.
    attempts: Vec<(Instant, u64)>,
    /// Bytes that left, and when.
    sent: Vec<(Instant, usize)>,
    stored: Vec<(Instant, u64)>,
    /// Bytes of memory that attempts hold now.
    held: u64,
    /// Attempts that were given up by the other side.
    broken_off: usize,
}

/// The bucket; clones are the same one.
#[derive(Clone, Default)]
pub struct Bucket(Arc<Mutex<State>>);

impl Bucket {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    pub fn script(&self, faults: &[Fault]) {
        self.state().faults.extend(faults);
    }

    pub fn is_script_over(&self) -> bool {
        self.state().faults.is_empty()
    }

    pub fn forbid(&self, look: bool, delete: bool) {
        (self.state().may_not_look, self.state().may_not_delete) = (look, delete);
    }

    pub fn set_ahead(&self, seconds: i64) {
        self.state().seconds_ahead = seconds;
    }

    pub fn goes_down(&self, time: Duration) {
        self.state().down_until = Some(Instant::now() + time);
    }

    pub fn objects(&self) -> BTreeMap<String, Object> {
        self.state().objects.clone()
    }

    pub fn attempts(&self) -> Vec<(Instant, u64)> {
        self.state().attempts.clone()
    }

    pub fn sent(&self) -> Vec<(Instant, usize)> {
        self.state().sent.clone()
    }

    pub fn stored(&self) -> Vec<(Instant, u64)> {
        self.state().stored.clone()
    }

    /// Bytes of memory that attempts in flight hold.
    pub fn held(&self) -> u64 {
        self.state().held
    }

    /// Attempts that were broken off.
    pub fn broken_off(&self) -> usize {
        self.state().broken_off
    }

    fn begin(&self, request: &ObjectRequest) -> Fault {
        let mut state = self.state();
        let now = Instant::now();
        let sequence = sequence(request);
        state.attempts.push((now, sequence));
        if state.down_until.is_some_and(|until| now < until) {
            // A dead link refuses, or says nothing at all.
            let n = state.attempts.len();
            return [Fault::Refused, Fault::StallBefore, Fault::NoName, Fault::StallIn(1)][n % 4];
        }
        state.faults.pop_front().unwrap_or(Fault::Pass)
    }

    fn error(&self, class: Class, http_status: Option<u16>, message: &str) -> WriteError {
        let ahead = Duration::from_secs(self.state().seconds_ahead.unsigned_abs());
        WriteError {
            class,
            http_status,
            reason: None,
            retry_after: None,
            server_date: http_status.map(|_| now() + ahead),
            bad_generation: None,
            may_be_stored: false,
            message: message.to_owned(),
        }
    }

    fn broken(&self, what: &str) -> Result<Stored, WriteError> {
        Err(self.error(Class::Transient, None, what))
    }

    fn answered(&self, class: Class, status: u16) -> Result<Stored, WriteError> {
        Err(self.error(class, Some(status), &format!("the server answered {status}")))
    }

    async fn silence(&self) -> Result<Stored, WriteError> {
        sleep(PATIENCE).await;
        self.broken("no progress for 60 s")
    }

    async fn attempt(&self, request: &ObjectRequest, pacer: &dyn Pacer) -> Result<Stored, WriteError> {
        let fault = self.begin(request);
        match fault {
            Fault::Refused => return self.broken("connection refused"),
            Fault::NoName => {
                sleep(Duration::from_secs(5)).await;
                return self.broken("the name does not resolve");
            }
            Fault::Early(class, status) => return self.answered(class, status),
            Fault::ResetBefore => return self.broken("connection reset"),
            Fault::StallBefore => return self.silence().await,
            _ => {}
        }
        let data = self.receive(request, pacer, fault).await?;
        match fault {
            Fault::Answer(class, status) => return self.answered(class, status),
            Fault::Busy(status, wait) => {
                let mut error = self.error(Class::Throttled, Some(status), "busy");
                error.retry_after = Some(Duration::from_secs(wait));
                return Err(error);
            }
            Fault::ResetIn(_) | Fault::ResetAfter { stored: false } => return self.broken("connection reset"),
            Fault::StallIn(_) | Fault::StallAfter { stored: false } => return self.silence().await,
            _ => {}
        }
        let stored = self.finish(request, data, fault);
        match fault {
            Fault::ResetAfter { .. } => return self.broken("connection reset"),
            Fault::StallAfter { .. } => return self.silence().await,
            Fault::TruncatedReply => return self.broken("the answer cannot be read"),
            _ => {}
        }
        let stored = stored?;
        match fault {
            Fault::WrongCrcInReply | Fault::ShortObject => {
                let mut error = self.error(Class::Transient, Some(200), "stored damaged");
                error.bad_generation = Some(stored.generation);
                Err(error)
            }
            _ => Ok(stored),
        }
    }

    async fn receive(&self, request: &ObjectRequest, pacer: &dyn Pacer, fault: Fault) -> Result<Vec<u8>, WriteError> {
        let limit = match fault {
            Fault::ResetIn(bytes) | Fault::StallIn(bytes) => bytes,
            _ => usize::MAX,
        };
        let (mut reader, mut data) = (request.body.reader(), Vec::new());
        while data.len() < limit {
            let piece = reader.next(pacer.piece()).await;
            let piece = piece.map_err(|e| self.error(Class::Local, None, &e.to_string()))?;
            let Some(piece) = piece else { break };
            pacer.admit(piece.len()).await;
            self.state().sent.push((Instant::now(), piece.len()));
            data.extend_from_slice(&piece);
            if let Fault::Slow(rate) = fault {
                sleep(Duration::from_secs_f64(piece.len() as f64 / rate as f64)).await;
            }
        }
        if limit == usize::MAX {
            pacer.sent_whole();
            let reported = (data.len() as u64, crc32c::crc32c(&data));
            assert_eq!(
                reported,
                (request.size, request.crc32c),
                "{}: the bytes are what was said of them",
                request.name
            );
        }
        Ok(data)
    }

    /// Stores under the precondition that nothing is there.
    fn finish(&self, request: &ObjectRequest, mut data: Vec<u8>, fault: Fault) -> Result<Stored, WriteError> {
        if let Fault::Stranger = fault {
            self.put(request, b"somebody else's".to_vec());
        }
        if self.state().objects.contains_key(&request.name) {
            return Err(self.error(Class::Conflict, Some(412), "exists"));
        }
        if let Fault::ShortObject = fault {
            data.pop();
        }
        Ok(self.put(request, data))
    }

    fn put(&self, request: &ObjectRequest, data: Vec<u8>) -> Stored {
        let mut state = self.state();
        state.generation += 1;
        let generation = state.generation;
        state.stored.push((Instant::now(), sequence(request)));
        let object = Object {
            request: request.clone(),
            data,
            generation,
        };
        let stored = reported(&object, state.seconds_ahead);
        state.objects.insert(request.name.clone(), object);
        stored
    }
}

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos((CLOCK.wall)())
}

fn sequence(request: &ObjectRequest) -> u64 {
    request.metadata["sequence"].parse().unwrap()
}

fn reported(object: &Object, seconds_ahead: i64) -> Stored {
    Stored {
        generation: object.generation,
        size: object.data.len() as u64,
        crc32c: Some(crc32c::crc32c(&object.data)),
        created: Some(now() + Duration::from_secs(seconds_ahead.unsigned_abs())),
    }
}

/// Counts what an attempt holds, however it ends.
struct Holds {
    bucket: Bucket,
    bytes: u64,
    ended: bool,
}

impl Drop for Holds {
    fn drop(&mut self) {
        let mut state = self.bucket.state();
        state.held -= self.bytes;
        state.broken_off += usize::from(!self.ended);
    }
}

impl ObjectWriter for Bucket {
    fn write<'a>(&'a self, request: &'a ObjectRequest, pacer: Arc<dyn Pacer>) -> BoxFuture<'a, Result<Stored, WriteError>> {
        Box::pin(async move {
            let pieces = request.body.pieces().unwrap_or_default();
            let init: u64 = request.metadata["init-bytes"].parse().unwrap();
            let bytes = pieces.iter().map(|p| p.len() as u64).sum::<u64>().saturating_sub(init);
            self.state().held += bytes;
            let mut holds = Holds {
                bucket: self.clone(),
                bytes,
                ended: false,
            };
            let outcome = self.attempt(request, &*pacer).await;
            holds.ended = true;
            outcome
        })
    }

    fn stat<'a>(&'a self, _bucket: &'a str, name: &'a str) -> BoxFuture<'a, Result<Stored, WriteError>> {
        Box::pin(async move {
            if self.state().may_not_look {
                return self.answered(Class::Permanent, 403);
            }
            let state = self.state();
            let found = state.objects.get(name).map(|object| reported(object, state.seconds_ahead));
            drop(state);
            found.map_or_else(|| self.answered(Class::Permanent, 404), Ok)
        })
    }

    fn delete<'a>(&'a self, _bucket: &'a str, name: &'a str, generation: i64) -> BoxFuture<'a, Result<(), WriteError>> {
        Box::pin(async move {
            if self.state().may_not_delete {
                return self.answered(Class::Permanent, 403).map(|_| ());
            }
            let mut state = self.state();
            if state.objects.get(name).is_some_and(|o| o.generation == generation) {
                state.objects.remove(name);
            }
            Ok(())
        })
    }
}

impl Writers for Bucket {
    fn own(&self) -> Arc<dyn ObjectWriter> {
        Arc::new(self.clone())
    }

    fn to(&self, _endpoint: Option<&str>, _anonymous: bool) -> Result<Arc<dyn ObjectWriter>, String> {
        Ok(self.own())
    }
}
