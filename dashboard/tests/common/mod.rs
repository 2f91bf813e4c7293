//! Recordings for tests: ffmpeg makes a stream, the project's chunker cuts it, a scripted Cloud Storage has it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use gcstreamer_dashboard::app::App;
use gcstreamer_dashboard::clock::{Clock, SystemClock};
use gcstreamer_dashboard::settings::{Auth, DEFAULT_LOCATION, Delivery, REQUEST_TIMEOUT, Settings};
use gcstreamer_media::chunk::clock::Stamp;
use gcstreamer_media::chunk::{ChunkInfo, Chunker, Event, Limits};
use gcstreamer_schema::cameras::Camera;
use gcstreamer_schema::name::{NameFields, Template};
use gcstreamer_schema::session::session_id;
use gcstreamer_storage::{Credentials, Endpoint, UrlSigner};

pub mod empty_pages;
#[path = "../../../tests/common/gcs_server.rs"]
pub mod gcs_server;
pub mod iap_signer;
pub mod service_account;

pub use gcs_server::GcsServer;

pub const BUCKET: &str = "cam-bucket";
pub const SECOND: u64 = 1_000_000_000;
/// Frames of a recording of [`record`], and its seconds.
pub const FPS: usize = 25;

/// A stream as ffmpeg makes it.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    /// Camera id.
    pub camera: &'static str,
    /// Arguments that choose codecs and container.
    pub arguments: &'static str,
}

/// H.264 with B-frames and AAC in each container that is played, and what has to be remuxed besides.
pub const STREAMS: [Stream; 5] = [
    Stream {
        camera: "flv",
        arguments: "-c:v libx264 -bf 2 -c:a aac -ar 44100 -f flv -flvflags no_duration_filesize",
    },
    Stream {
        camera: "site/ts",
        arguments: "-c:v libx264 -bf 2 -c:a aac -ar 48000 -f mpegts -pat_period 0.5",
    },
    Stream {
        camera: "site/fmp4",
        arguments: "-c:v libx264 -bf 2 -c:a aac -ar 48000 -f mp4 -movflags frag_keyframe+empty_moov+default_base_moof",
    },
    Stream {
        camera: "site/deep/mkv",
        arguments: "-c:v libx264 -bf 2 -c:a aac -ar 48000 -f matroska",
    },
    Stream {
        camera: "hevc",
        arguments: "-c:v libx265 -x265-params log-level=none:open-gop=0:keyint=50:scenecut=0 -c:a aac -ar 48000 -f mpegts -pat_period 0.5",
    },
];

/// Makes `seconds` of a moving picture with sound; a key frame every two seconds.
pub fn encode(stream: Stream, seconds: u32, folder: &Path) -> Vec<u8> {
    let path = folder.join("stream");
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin", "-y"]);
    command.args(["-f", "lavfi", "-i", &format!("testsrc2=size=320x180:rate={FPS}")]);
    command.args(["-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000"]);
    command.args([
        "-t",
        &seconds.to_string(),
        "-pix_fmt",
        "yuv420p",
        "-preset",
        "ultrafast",
        "-g",
        "50",
        "-sc_threshold",
        "0",
        "-threads",
        "1",
    ]);
    command.args(stream.arguments.split_whitespace()).arg(&path);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(path).unwrap()
}

/// A chunk as the sink would store it.
#[derive(Clone)]
pub struct Cut {
    pub info: ChunkInfo,
    pub bytes: Vec<u8>,
}

/// Cuts a stream into chunks of four seconds.
pub fn cut(stream: &[u8]) -> Vec<Cut> {
    cut_after(stream, 4 * SECOND)
}

/// Cuts a stream at the first key frame after this time (ns).
pub fn cut_after(stream: &[u8], max_time: u64) -> Vec<Cut> {
    let limits = Limits {
        max_time,
        max_bytes: 0,
        align: false,
        single: false,
        soft: 0,
        hard: 0,
    };
    let mut chunker = Chunker::new(limits, None);
    let mut events = Vec::new();
    for piece in stream.chunks(8192) {
        let stamp = Stamp {
            wall: now(),
            ..Stamp::default()
        };
        chunker
            .push(piece, || Some(Bytes::copy_from_slice(piece)), stamp, &mut events)
            .unwrap();
    }
    chunker.finish(&mut events).unwrap();
    let mut chunks: BTreeMap<u64, (Option<ChunkInfo>, Vec<u8>)> = BTreeMap::new();
    for event in events {
        match event {
            Event::Begin { sequence, init, .. } => chunks.entry(sequence).or_default().1.extend([init.head, init.tail].concat()),
            Event::Data { sequence, bytes } => chunks.entry(sequence).or_default().1.extend_from_slice(&bytes),
            Event::End(info) => {
                let sequence = info.sequence;
                chunks.entry(sequence).or_default().0 = Some(*info);
            }
            _ => {}
        }
    }
    chunks
        .into_values()
        .map(|(info, bytes)| Cut {
            info: info.unwrap(),
            bytes,
        })
        .collect()
}

/// Kinds of FLV tags.
pub const FLV_SOUND: u8 = 8;
pub const FLV_PICTURES: u8 = 9;

/// Takes the tags of a kind out of what an FLV chunk holds behind its header, which still declares them: the camera's sound or pictures
/// pause for the length of the chunk. Adobe Flash Video File Format 10.1, E.4.1.
pub fn pause(cut: &mut Cut, kind: u8) {
    let mut at = usize::try_from(cut.info.init_bytes).unwrap();
    let mut left = cut.bytes[..at].to_vec();
    while let [this, a, b, c, ..] = cut.bytes[at..] {
        let end = at + 11 + usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap() + 4;
        if this != kind {
            left.extend_from_slice(&cut.bytes[at..end]);
        }
        at = end;
    }
    cut.bytes = left;
}

/// Stores chunks as a session of `camera` that begins at `start` (ns since the Unix epoch); `left_out` numbers are lost.
pub fn store(server: &GcsServer, camera: &str, cuts: &[Cut], start: u64, left_out: &[u64]) {
    store_as(server, camera, &session_id(start, 7), cuts, start, left_out);
}

/// The same, as chunks of a session that may have others.
pub fn store_as(server: &GcsServer, camera: &str, session: &str, cuts: &[Cut], start: u64, left_out: &[u64]) {
    let template = Template::parse(DEFAULT_LOCATION).unwrap();
    // Bytes from a file arrive all at once: the container's time shows when each chunk begins.
    let pts = |info: &ChunkInfo| info.pts_start.unwrap();
    let origin = pts(&cuts[0].info);
    for cut in cuts.iter().filter(|cut| !left_out.contains(&cut.info.sequence)) {
        let info = ChunkInfo {
            start: start + (pts(&cut.info) - origin),
            ..cut.info.clone()
        };
        let naming = NameFields {
            device: camera,
            session,
            seq: info.sequence,
            ext: info.container.extension(),
            start: info.start,
        };
        let name = template.format(&naming).unwrap();
        server.put_with(BUCKET, &name, &cut.bytes, &info.metadata(camera, session, &BTreeMap::new()));
    }
}

/// Puts chunks of ten seconds from `from` to `to` (ns since the Unix epoch) there, as the numbers from `sequence` on of a session. Their
/// bytes do not matter. Before the first one something is missing for this reason.
pub fn put_chunks(server: &GcsServer, camera: &str, session: &str, sequence: u64, range: (u64, u64), reason: &str) {
    put_chunks_at(server, DEFAULT_LOCATION, camera, (session, sequence), range, reason);
}

/// The same under names of another template.
pub fn put_chunks_at(
    server: &GcsServer,
    location: &str,
    camera: &str,
    (session, mut sequence): (&str, u64),
    (from, to): (u64, u64),
    reason: &str,
) {
    let template = Template::parse(location).unwrap();
    let mut gap = Some(reason);
    for start in (from..to).step_by(10_000_000_000) {
        let naming = NameFields {
            device: camera,
            session,
            seq: sequence,
            ext: "flv",
            start,
        };
        let (number, begins, ends) = (sequence.to_string(), iso(start), iso(start + 10 * SECOND));
        let mut metadata = BTreeMap::from([
            ("device-id", camera),
            ("session-id", session),
            ("sequence", &number),
            ("start-time", &begins),
            ("end-time", &ends),
            ("duration-ms", "10000"),
            ("container", "flv"),
            ("init-bytes", "0"),
            ("key-frame", "true"),
            ("clock", "system"),
            ("continuous", "true"),
        ]);
        if let Some(reason) = gap.take() {
            metadata.extend([("continuous", "false"), ("gap-reason", reason)]);
        }
        let metadata = metadata.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        server.put_with(BUCKET, &template.format(&naming).unwrap(), b"x", &metadata.collect());
        sequence += 1;
    }
}

/// Settings for a dashboard on this server.
pub fn settings(server: &GcsServer) -> Settings {
    Settings {
        bucket: BUCKET.into(),
        endpoint: Endpoint::resolve(Some(&server.endpoint()), None).unwrap(),
        credentials: Credentials::Anonymous,
        template: Template::parse(DEFAULT_LOCATION).unwrap(),
        cameras: Vec::<Camera>::new(),
        listen: "127.0.0.1:0".parse().unwrap(),
        auth: Auth::None,
        delivery: Delivery::Proxy,
        cache_dir: None,
        broker: None,
        request_timeout: REQUEST_TIMEOUT,
    }
}

/// The wall clock, so many seconds later.
#[derive(Debug, Default)]
pub struct ShiftedClock(pub AtomicU64);

impl Clock for ShiftedClock {
    fn now(&self) -> u64 {
        now() + self.0.load(Ordering::SeqCst) * SECOND
    }
}

/// A dashboard that listens; it ends when this is dropped.
pub struct Dashboard {
    pub address: String,
    end: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Dashboard {
    pub fn start(settings: Settings) -> Self {
        Self::start_redirecting(settings, None)
    }

    /// Its clock is this one.
    pub fn start_by(settings: Settings, clock: Arc<dyn Clock>) -> Self {
        Self::begin(settings, clock, None)
    }

    /// Players are sent to this endpoint, by addresses that these credentials sign.
    pub fn start_redirecting(settings: Settings, to: Option<(Endpoint, Credentials)>) -> Self {
        Self::begin(settings, Arc::new(SystemClock), to)
    }

    fn begin(settings: Settings, clock: Arc<dyn Clock>, to: Option<(Endpoint, Credentials)>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (end, ended) = tokio::sync::oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let mut app = App::new(settings, clock);
                if let Some((endpoint, credentials)) = to {
                    app = app.redirecting(UrlSigner::load(&endpoint, credentials).await.unwrap());
                }
                let app = Arc::new(app);
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                let ended = async { ended.await.unwrap_or(()) };
                gcstreamer_dashboard::http::serve(listener, app, ended).await.unwrap();
            });
        });
        Self {
            address,
            end: Some(end),
            thread: Some(thread),
        }
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Reply {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Reply {
    pub fn text(&self) -> String {
        String::from_utf8(self.body.clone()).unwrap()
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }
}

/// Asks for a path with these headers (`Name: value`), over a connection of its own.
pub fn ask(address: &str, method: &str, path: &str, headers: &[&str], body: &str) -> Reply {
    use std::io::{Read as _, Write as _};
    let host = address.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    if !headers.iter().any(|header| header.starts_with("Host:")) {
        request.push_str(&format!("Host: {host}\r\n"));
    }
    for header in headers {
        request.push_str(&format!("{header}\r\n"));
    }
    write!(stream, "{request}\r\n{body}").unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    let head = String::from_utf8(answer[..end].to_vec()).unwrap();
    let mut body = answer[end + 4..].to_vec();
    let mut lines = head.split("\r\n");
    let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(k, v)| (k.to_lowercase(), v.to_owned()))
        .collect();
    if headers.get("transfer-encoding").is_some_and(|coding| coding == "chunked") {
        body = unchunked(&body);
    }
    Reply { status, headers, body }
}

pub fn get(address: &str, path: &str) -> Reply {
    ask(address, "GET", path, &[], "")
}

fn unchunked(mut body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(end) = body.windows(2).position(|window| window == b"\r\n") {
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        if size == 0 {
            break;
        }
        out.extend_from_slice(&body[end + 2..end + 2 + size]);
        body = &body[end + 4 + size..];
    }
    out
}

/// Frames of pictures and of sound that ffprobe decodes of an address or file, and what it has to say.
pub fn decoded(input: &str) -> (usize, usize, String) {
    let run = |select: &str| {
        let mut command = Command::new("ffprobe");
        command.args([
            "-v",
            "warning",
            "-count_frames",
            "-select_streams",
            select,
            "-show_entries",
            "stream=nb_read_frames",
            "-of",
            "csv=p=0",
            input,
        ]);
        let output = command.output().unwrap();
        let count = String::from_utf8_lossy(&output.stdout)
            .trim()
            .trim_end_matches(',')
            .lines()
            .next()
            .and_then(|line| line.trim_end_matches(',').parse().ok())
            .unwrap_or(0);
        (count, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let ((pictures, said), (sound, _)) = (run("v:0"), run("a:0"));
    (pictures, sound, said)
}

pub fn now() -> u64 {
    u64::try_from(
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_nanos(),
    )
    .unwrap()
}

pub fn iso(ns: u64) -> String {
    gcstreamer_schema::time::rfc3339_ms(ns)
}

/// A status as a camera publishes it, written at `at` (ns since the Unix epoch).
pub fn status(camera: &str, phase: &str, upload: &str, at: u64, interval_s: f64) -> String {
    serde_json::json!({
        "v": 1, "state": "connected", "phase": phase, "reason": null, "since": iso(at), "ts": iso(at), "seq": 1, "session": "0a1b2c3d4e",
        "device": camera, "interval_s": interval_s, "recording": true,
        "upload": {"status": upload, "oldest_pending_s": 95.5, "backlog_bytes": 5_000_000},
    })
    .to_string()
}

pub fn web() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("web")
}

/// MD5 of each decoded picture, by this decoder or by the one that ffmpeg chooses.
pub fn decoded_pictures(decoder: Option<&str>, input: &Path) -> Vec<String> {
    let mut command = Command::new("ffmpeg");
    command.args(["-v", "error", "-nostdin"]);
    if let Some(decoder) = decoder {
        command.args(["-c:v", decoder]);
    }
    command.arg("-i").arg(input);
    command.args(["-map", "0:v", "-fps_mode", "passthrough", "-f", "framemd5", "-"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.is_empty(), "{said}");
    let text = String::from_utf8(output.stdout).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(|line| line.rsplit(", ").next().unwrap().to_owned()).collect()
}
