//! A Cloud Storage server for tests that does what its script says: it stores, refuses, stalls, tears and lies.
//!
//! Speaks the JSON API over HTTP/1.1, plain or TLS: multipart and resumable uploads, `ifGenerationMatch`, CRC32C, media
//! and metadata reads, delete by generation, list. It shares no code with the product. It runs on a thread of its own
//! with a real clock, so that synchronous tests and tests with paused time can use it alike.
//!
//! Faults are a queue: each upload request (`POST …/upload/…` and the `PUT`s of a session) takes the next one.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    unreachable_pub
)]

use std::collections::{BTreeMap, VecDeque};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;
use std::time::{Instant, SystemTime};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::sync::Notify;

#[path = "gcs_wire.rs"]
mod wire;

/// Persisted bytes of a broken session are whole quanta.
const QUANTUM: usize = 256 << 10;

/// What happens to an upload request.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Nothing: it is served.
    Pass,
    /// The body is read and thrown away, then this is answered.
    Answer(Answer),
    /// This is answered before the body is read, and the connection is closed.
    EarlyAnswer(Answer),
    /// RST once the header is read.
    ResetBefore,
    /// RST after so many bytes of body; a session keeps whole quanta of them.
    ResetIn(usize),
    /// RST after the whole body, which is stored or not.
    ResetAfterBody { stored: bool },
    /// Silence once the header is read.
    StallBefore,
    /// Silence after so many bytes of body.
    StallIn(usize),
    /// Silence after the whole body, which is stored or not.
    StallAfterBody { stored: bool },
    /// The body is read at this rate, then served.
    SlowDrain { bytes_per_second: usize },
    /// Stored; half of the answer, then the end.
    TruncatedReply,
    /// Stored; the answer has another CRC32C.
    WrongCrcInReply,
    /// Served, behind these answers of the 1xx kind.
    Informational(Vec<u16>),
    /// The body is read and thrown away, then this is answered, compressed though nobody asked for it.
    Compressed(Answer),
    /// Stored, and answered so.
    CompressedReply,
    /// Stored with the last byte missing, and the answer shows it.
    ShortObject,
}

/// An answer of the script.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Answer {
    /// An error as Cloud Storage words it.
    pub fn status(status: u16) -> Self {
        Self::error(status, &format!("scripted {status}"))
    }

    pub fn error(status: u16, message: &str) -> Self {
        let reason = if status == 412 { "conditionNotMet" } else { "scripted" };
        Self::reasoned(status, message, reason)
    }

    /// An error with this machine-readable reason.
    pub fn reasoned(status: u16, message: &str, reason: &str) -> Self {
        let body = json!({"error": {"code": status, "message": message, "errors": [{"message": message, "reason": reason}]}});
        Self::raw(status, "application/json", &body.to_string())
    }

    /// A policy of the organisation refuses the object: nothing is stored.
    pub fn policy() -> Self {
        let message = "'cam-bucket' violates constraint 'constraints/gcp.restrictNonCmekServices'";
        Self::reasoned(412, message, "orgPolicyConstraintFailed")
    }

    /// A 412 as fake-gcs-server words it, without a reason.
    pub fn bare_412() -> Self {
        let body = json!({"error": {"code": 412, "message": "Precondition failed", "errors": null}});
        Self::raw(412, "application/json", &body.to_string())
    }

    pub fn raw(status: u16, content_type: &str, body: &str) -> Self {
        Self {
            status,
            headers: vec![("Content-Type".into(), content_type.into())],
            body: body.into(),
        }
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

impl Fault {
    pub fn status(status: u16) -> Self {
        Self::Answer(Answer::status(status))
    }

    pub fn retry_after(status: u16, wait: &str) -> Self {
        Self::Answer(Answer::status(status).header("Retry-After", wait))
    }
}

/// A stored object.
#[derive(Clone, Debug)]
pub struct Object {
    pub generation: i64,
    pub data: Vec<u8>,
    /// The JSON that it was uploaded with.
    pub meta: Value,
    pub crc32c: u32,
    pub created: SystemTime,
}

/// A request as it arrived.
#[derive(Clone, Debug)]
pub struct Request {
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    pub path: String,
    pub query: BTreeMap<String, String>,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    pub at: Instant,
    /// Bytes of body that were read.
    pub body_bytes: usize,
    /// The client went away before the answer.
    pub abandoned: bool,
    /// Which connection it came on.
    pub connection: usize,
}

impl Request {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    pub fn is_upload(&self) -> bool {
        self.path.starts_with("/upload/")
    }
}

/// How to start one.
#[derive(Clone, Default)]
pub struct Options {
    /// Listen on `[::1]`.
    pub ipv6: bool,
    /// Listen on this port instead of a free one.
    pub port: u16,
    /// Speak TLS.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Build the address of sessions from the `Host` header, as emulators do.
    pub location_from_host: bool,
}

#[derive(Default)]
struct State {
    objects: BTreeMap<(String, String), Object>,
    sessions: BTreeMap<String, Session>,
    faults: VecDeque<Fault>,
    /// Answers for reads and deletes.
    object_faults: VecDeque<Answer>,
    /// The answer for all of them.
    object_fault: Option<Answer>,
    /// Answers by path, for token servers.
    routes: BTreeMap<String, VecDeque<Answer>>,
    requests: Vec<Request>,
    connections: usize,
    open: usize,
    generation: i64,
    skew: i64,
    session_requests: usize,
}

#[derive(Clone)]
struct Session {
    bucket: String,
    name: String,
    query: BTreeMap<String, String>,
    meta: Value,
    data: Vec<u8>,
    done: Option<(u16, String)>,
}

struct Shared {
    state: Mutex<State>,
    options: Options,
    base: String,
    stop: Notify,
}

/// A running server; it ends when this is dropped.
pub struct GcsServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl GcsServer {
    /// Starts one on 127.0.0.1, on a thread of its own.
    pub fn spawn_thread() -> Self {
        Self::spawn_thread_with(Options::default())
    }

    pub fn spawn_thread_with(options: Options) -> Self {
        let host = if options.ipv6 { "::1" } else { "127.0.0.1" };
        let listener = TcpListener::bind((host, options.port)).expect("a free port");
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let base = match &options.tls {
            Some(_) => format!("https://localhost:{}", address.port()),
            None => format!("http://{address}"),
        };
        let state = Mutex::new(State {
            generation: 1_700_000_000_000_000,
            ..State::default()
        });
        let shared = Arc::new(Shared {
            state,
            options,
            base,
            stop: Notify::new(),
        });
        let theirs = shared.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(wire::accept(listener, theirs));
        });
        Self {
            shared,
            address,
            thread: Some(thread),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    /// `http://127.0.0.1:PORT`, or `https://localhost:PORT`.
    pub fn endpoint(&self) -> String {
        self.shared.base.clone()
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Appends to the script.
    pub fn push_fault(&self, fault: Fault) {
        self.state().faults.push_back(fault);
    }

    /// Forgets the rest of the script.
    pub fn clear_faults(&self) {
        self.state().faults.clear();
    }

    /// Appends an answer for the next read or delete.
    pub fn push_object_fault(&self, answer: Answer) {
        self.state().object_faults.push_back(answer);
    }

    /// Every read and delete fails in this way until it is `None` again.
    pub fn set_object_fault(&self, answer: Option<Answer>) {
        self.state().object_fault = answer;
    }

    /// Appends an answer for a path, with the status 0 silence; the last one stays.
    pub fn route(&self, path: &str, answer: Answer) {
        self.state().routes.entry(path.to_owned()).or_default().push_back(answer);
    }

    /// How many seconds the server's clock is ahead.
    pub fn set_skew(&self, seconds: i64) {
        self.state().skew = seconds;
    }

    /// Puts an object there.
    pub fn put(&self, bucket: &str, name: &str, data: &[u8]) -> i64 {
        let mut state = self.state();
        state.insert(bucket, name, data.to_vec(), json!({})).generation
    }

    /// Puts an object with custom metadata there.
    pub fn put_with(&self, bucket: &str, name: &str, data: &[u8], metadata: &BTreeMap<String, String>) -> i64 {
        let mut state = self.state();
        state
            .insert(bucket, name, data.to_vec(), json!({"metadata": metadata}))
            .generation
    }

    pub fn remove(&self, bucket: &str, name: &str) {
        self.state().objects.remove(&(bucket.to_owned(), name.to_owned()));
    }

    pub fn object(&self, bucket: &str, name: &str) -> Option<Object> {
        self.state().objects.get(&(bucket.to_owned(), name.to_owned())).cloned()
    }

    /// All objects by bucket and name.
    pub fn objects(&self) -> BTreeMap<(String, String), Object> {
        self.state().objects.clone()
    }

    pub fn requests(&self) -> Vec<Request> {
        self.state().requests.clone()
    }

    pub fn uploads(&self) -> Vec<Request> {
        self.requests().into_iter().filter(Request::is_upload).collect()
    }

    /// Connections ever accepted.
    pub fn connections(&self) -> usize {
        self.state().connections
    }

    /// Connections open now.
    pub fn open_connections(&self) -> usize {
        self.state().open
    }

    /// Faults that nothing has taken yet.
    pub fn faults_left(&self) -> usize {
        self.state().faults.len()
    }
}

impl Drop for GcsServer {
    fn drop(&mut self) {
        self.shared.stop.notify_one();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl State {
    fn insert(&mut self, bucket: &str, name: &str, data: Vec<u8>, meta: Value) -> &Object {
        self.generation += 1;
        let object = Object {
            generation: self.generation,
            crc32c: crc32c::crc32c(&data),
            data,
            meta,
            created: self.now(),
        };
        let key = (bucket.to_owned(), name.to_owned());
        self.objects.insert(key.clone(), object);
        &self.objects[&key]
    }

    fn list(&self, bucket: &str, prefix: &str) -> Vec<Value> {
        let found = self
            .objects
            .iter()
            .filter(|((known, name), _)| known == bucket && name.starts_with(prefix));
        found.map(|((bucket, name), object)| resource(bucket, name, object)).collect()
    }

    /// A page of a listing. <https://cloud.google.com/storage/docs/json_api/v1/objects/list>
    fn page(&self, bucket: &str, query: &BTreeMap<String, String>) -> Value {
        let get = |key: &str| query.get(key).map(String::as_str).filter(|text| !text.is_empty());
        let prefix = get("prefix").unwrap_or_default();
        let max = get("maxResults").and_then(|text| text.parse().ok()).unwrap_or(1000);
        let (mut items, mut prefixes, mut last, mut next) = (Vec::new(), Vec::<String>::new(), String::new(), None);
        for item in self.list(bucket, prefix) {
            let name = item["name"].as_str().unwrap().to_owned();
            let folded = get("delimiter").and_then(|by| {
                let at = name[prefix.len()..].find(by)?;
                Some(name[..prefix.len() + at + by.len()].to_owned())
            });
            let is_out = get("startOffset").is_some_and(|start| name.as_str() < start)
                || get("endOffset").is_some_and(|end| name.as_str() >= end)
                || get("pageToken").is_some_and(|token| folded.as_deref().unwrap_or(&name) <= token);
            if is_out || folded.as_ref().is_some_and(|folded| prefixes.contains(folded)) {
                continue;
            }
            if items.len() + prefixes.len() >= max {
                next = Some(last);
                break;
            }
            last = folded.clone().unwrap_or(name);
            match folded {
                Some(folded) => prefixes.push(folded),
                None => items.push(item),
            }
        }
        json!({"kind": "storage#objects", "items": items, "prefixes": prefixes, "nextPageToken": next})
    }

    fn now(&self) -> SystemTime {
        (Timestamp::now() + SignedDuration::from_secs(self.skew)).into()
    }

    /// Stores if the precondition and the checksum allow it.
    fn finish(
        &mut self,
        bucket: &str,
        name: &str,
        query: &BTreeMap<String, String>,
        data: Vec<u8>,
        meta: Value,
    ) -> (u16, String) {
        let existing = self
            .objects
            .get(&(bucket.to_owned(), name.to_owned()))
            .map_or(0, |object| object.generation);
        if let Some(wanted) = query.get("ifGenerationMatch")
            && wanted.parse() != Ok(existing)
        {
            let body = Answer::error(412, "At least one of the pre-conditions you specified did not hold.").body;
            return (412, body);
        }
        let crc = base64(&crc32c::crc32c(&data).to_be_bytes());
        if let Some(said) = meta.get("crc32c").and_then(Value::as_str)
            && said != crc
        {
            let text = format!("Provided CRC32C \"{said}\" doesn't match calculated CRC32C \"{crc}\".");
            return (400, Answer::error(400, &text).body);
        }
        let object = self.insert(bucket, name, data, meta).clone();
        (200, resource(bucket, name, &object).to_string())
    }
}

fn resource(bucket: &str, name: &str, object: &Object) -> Value {
    let mut json = object.meta.clone();
    let map = json.as_object_mut().unwrap();
    map.insert("kind".into(), "storage#object".into());
    map.insert("name".into(), name.into());
    map.insert("bucket".into(), bucket.into());
    map.insert("generation".into(), object.generation.to_string().into());
    map.insert("metageneration".into(), "1".into());
    map.insert("size".into(), object.data.len().to_string().into());
    map.insert("crc32c".into(), base64(&object.crc32c.to_be_bytes()).into());
    map.insert(
        "timeCreated".into(),
        Timestamp::try_from(object.created).unwrap().to_string().into(),
    );
    json
}

impl State {
    /// Bytes of a session, or the question what it has. <https://cloud.google.com/storage/docs/performing-resumable-uploads>
    fn session_put(&mut self, request: &Request, body: Vec<u8>) -> (u16, Option<Vec<(String, String)>>, String) {
        self.session_requests += 1;
        let id = request.query.get("upload_id").cloned().unwrap_or_default();
        let Some(mut session) = self.sessions.get(&id).cloned() else {
            return (404, None, Answer::error(404, "No such session").body);
        };
        if let Some((status, body)) = session.done {
            return (status, None, body);
        }
        let range = request.header("content-range").unwrap_or_default();
        if let Some((start, total)) = wire::content_range(range) {
            if start != session.data.len() {
                return (
                    400,
                    None,
                    Answer::error(400, &format!("have {} bytes, sent from {start}", session.data.len())).body,
                );
            }
            session.data.extend_from_slice(&body);
            if Some(session.data.len()) == total {
                let reply = self.finish(
                    &session.bucket,
                    &session.name,
                    &session.query,
                    session.data.clone(),
                    session.meta.clone(),
                );
                session.done = Some(reply.clone());
                self.sessions.insert(id, session);
                return (reply.0, None, reply.1);
            }
        }
        let headers = match session.data.len() {
            0 => Vec::new(),
            size => vec![("Range".to_owned(), format!("bytes=0-{}", size - 1))],
        };
        self.sessions.insert(id, session);
        (308, Some(headers), String::new())
    }
}

/// RFC 4648 section 4.
pub fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for group in bytes.chunks(3) {
        let bits = (0..3).fold(0u32, |bits, i| (bits << 8) | u32::from(group.get(i).copied().unwrap_or(0)));
        for i in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * i)) as usize & 63];
            out.push(if i > group.len() { '=' } else { char::from(digit) });
        }
    }
    out
}
