//! Pipelines into a scripted Cloud Storage, and ffprobe as the judge of what arrives there.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "gcs_server.rs"]
pub mod gcs_server;
#[path = "places.rs"]
pub mod places;
#[path = "streams.rs"]
pub mod streams;
#[path = "tls.rs"]
pub mod tls;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};

use gst::prelude::*;

use gcs_server::{GcsServer, Object};

pub const BUCKET: &str = "cam-bucket";

/// GStreamer with our elements.
pub fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        gst::init().unwrap();
        gstgcstreamer::plugin_register_static().unwrap();
        gstfmp4::plugin_register_static().unwrap();
    });
}

/// H.264 with a key frame every second, and B-frames.
pub fn h264(seconds: u32) -> String {
    format!(
        "{} ! x264enc speed-preset=ultrafast bframes=2 b-adapt=false key-int-max=15 ! h264parse config-interval=-1",
        video(seconds)
    )
}

/// Raw pictures, 15 a second.
pub fn video(seconds: u32) -> String {
    format!(
        "videotestsrc num-buffers={} ! video/x-raw,format=I420,width=320,height=240,framerate=15/1",
        seconds * 15
    )
}

/// AAC.
pub fn aac(seconds: u32) -> String {
    format!(
        "audiotestsrc num-buffers={} samplesperbuffer=441 ! audio/x-raw,rate=44100,channels=1 ! avenc_aac ! aacparse",
        seconds * 100
    )
}

/// A pipeline with a gcssink named `sink`, and what happened on its bus.
pub struct Line {
    pub pipeline: gst::Pipeline,
    pub sink: gst::Element,
    input: Arc<Mutex<Vec<u8>>>,
}

/// How a pipeline ended.
#[derive(Debug, PartialEq, Eq)]
pub enum End {
    Eos,
    Error(String),
}

/// The words of the bus: (kind, text).
pub type Messages = Vec<(&'static str, String)>;

impl Line {
    /// `front ! gcssink`, into that server.
    pub fn new(front: &str, server: &GcsServer, properties: &str) -> Self {
        init();
        // Tests may share a process: sinks of one process may not share a name, and those of one flow group share its outages.
        static NEXT: AtomicUsize = AtomicUsize::new(1);
        let device = NEXT.fetch_add(1, Ordering::Relaxed);
        let line = format!(
            "{front} ! gcssink name=sink bucket={BUCKET} device-id=cam{device} flow-group=line{device} endpoint-uri={} {properties}",
            server.endpoint()
        );
        let pipeline = gst::parse::launch(&line)
            .unwrap_or_else(|e| panic!("{line}: {e}"))
            .downcast::<gst::Pipeline>()
            .unwrap();
        let sink = pipeline.by_name("sink").unwrap();
        let input = Arc::new(Mutex::new(Vec::new()));
        let copy = Arc::clone(&input);
        sink.static_pad("sink")
            .unwrap()
            .add_probe(gst::PadProbeType::BUFFER | gst::PadProbeType::BUFFER_LIST, move |_, info| {
                let mut all = copy.lock().unwrap();
                match &info.data {
                    Some(gst::PadProbeData::Buffer(buffer)) => all.extend_from_slice(&buffer.map_readable().unwrap()),
                    Some(gst::PadProbeData::BufferList(list)) => {
                        list.iter()
                            .for_each(|buffer| all.extend_from_slice(&buffer.map_readable().unwrap()));
                    }
                    _ => {}
                }
                gst::PadProbeReturn::Ok
            });
        Self { pipeline, sink, input }
    }

    /// Every byte that reached the sink.
    pub fn input(&self) -> Vec<u8> {
        self.input.lock().unwrap().clone()
    }

    pub fn play(&self) {
        self.pipeline.set_state(gst::State::Playing).unwrap();
    }

    /// Waits for EOS or an error.
    pub fn wait(&self) -> (End, Messages) {
        self.wait_for(Duration::from_secs(100), |_| false)
    }

    /// Waits for EOS, an error, or a message that `enough` likes.
    pub fn wait_for(&self, limit: Duration, enough: impl Fn(&gst::MessageRef) -> bool) -> (End, Messages) {
        let bus = self.pipeline.bus().unwrap();
        let until = Instant::now() + limit;
        let mut words = Vec::new();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left = gst::ClockTime::from_nseconds(u64::try_from(left.as_nanos()).unwrap());
            let message = bus
                .timed_pop(left)
                .unwrap_or_else(|| panic!("nothing more on the bus within {limit:?}; so far: {words:?}"));
            match message.view() {
                gst::MessageView::Eos(_) => return (End::Eos, words),
                gst::MessageView::Error(e) => {
                    let text = format!("{} {}", e.error(), e.debug().unwrap_or_default());
                    words.push(("error", text.clone()));
                    return (End::Error(text), words);
                }
                gst::MessageView::Warning(w) => words.push(("warning", w.error().to_string())),
                gst::MessageView::Info(i) => words.push(("info", i.error().to_string())),
                gst::MessageView::Element(e) => {
                    if let Some(s) = e.structure() {
                        words.push(("element", s.to_string()));
                    }
                }
                _ => {}
            }
            if enough(&message) {
                return (End::Eos, words);
            }
        }
    }

    pub fn stop(&self) {
        self.pipeline.set_state(gst::State::Null).unwrap();
    }

    pub fn stat(&self, name: &str) -> u64 {
        self.sink.property::<gst::Structure>("stats").get(name).unwrap()
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

/// Runs a line to its end; it must be EOS.
pub fn record(front: &str, properties: &str) -> (Vec<Chunk>, Vec<u8>, Messages) {
    let server = GcsServer::spawn_thread();
    let line = Line::new(front, &server, properties);
    line.play();
    let (end, words) = line.wait();
    assert_eq!(end, End::Eos, "{words:?}");
    let input = line.input();
    line.stop();
    (chunks(&server), input, words)
}

/// Runs a line to its error, and says what was stored.
pub fn fail(front: &str, properties: &str) -> (String, usize) {
    let server = GcsServer::spawn_thread();
    let line = Line::new(front, &server, properties);
    let _ = line.pipeline.set_state(gst::State::Playing);
    let (end, words) = line.wait();
    let End::Error(text) = end else {
        panic!("no error but {words:?}")
    };
    line.stop();
    (text, server.objects().len())
}

/// An object of the bucket.
#[derive(Clone, Debug)]
pub struct Chunk {
    pub name: String,
    pub data: Vec<u8>,
    pub metadata: BTreeMap<String, String>,
    pub object: Object,
}

impl Chunk {
    pub fn get(&self, key: &str) -> &str {
        self.metadata.get(key).map_or("", String::as_str)
    }

    pub fn number(&self, key: &str) -> u64 {
        self.get(key)
            .parse()
            .unwrap_or_else(|_| panic!("{key} of {} is {:?}", self.name, self.metadata.get(key)))
    }

    pub fn payload(&self) -> &[u8] {
        &self.data[usize::try_from(self.number("init-bytes")).unwrap()..]
    }
}

/// All objects in the order of their sequence numbers.
pub fn chunks(server: &GcsServer) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = server
        .objects()
        .into_iter()
        .map(|((_, name), object)| {
            let metadata = object.meta["metadata"].as_object().unwrap();
            let metadata = metadata
                .iter()
                .map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned()))
                .collect();
            Chunk {
                name,
                data: object.data.clone(),
                metadata,
                object,
            }
        })
        .collect();
    chunks.sort_by_key(|c| (c.get("session-id").to_owned(), c.number("sequence")));
    chunks
}

/// Init of chunk 0 and all payloads.
pub fn joined(chunks: &[Chunk]) -> Vec<u8> {
    let mut all = chunks[0].data[..usize::try_from(chunks[0].number("init-bytes")).unwrap()].to_vec();
    chunks.iter().for_each(|c| all.extend_from_slice(c.payload()));
    all
}

/// What ffprobe and ffmpeg say of one object by itself.
#[derive(Debug)]
pub struct Verdict {
    pub frames: u64,
    pub first_is_key: bool,
    pub messages: String,
    pub audio_packets: u64,
}

/// A file that is removed again.
pub struct TempFile(pub PathBuf);

impl TempFile {
    pub fn new(name: &str, data: &[u8]) -> Self {
        let unique = format!(
            "{}-{:?}-{}",
            std::process::id(),
            std::thread::current().id(),
            name.replace('/', "_")
        );
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(unique);
        std::fs::write(&path, data).unwrap();
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn output(program: &str, args: &[&str], file: &TempFile) -> (String, String) {
    let mut command = Command::new(program);
    for arg in args {
        if *arg == "FILE" {
            command.arg(&file.0)
        } else {
            command.arg(arg)
        };
    }
    let out = command.output().unwrap();
    (
        String::from_utf8_lossy(&out.stdout).into_owned(),
        String::from_utf8_lossy(&out.stderr).into_owned(),
    )
}

/// Judges the bytes of an object.
pub fn judge(name: &str, data: &[u8]) -> Verdict {
    let file = TempFile::new(name, data);
    let count = |select: &str, what: &str, entry: &str| {
        let (text, _) = output(
            "ffprobe",
            &[
                "-v",
                "error",
                what,
                "-select_streams",
                select,
                "-show_entries",
                entry,
                "-of",
                "default=nw=1:nk=1",
                "FILE",
            ],
            &file,
        );
        text.lines().find_map(|l| l.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    let frames = count("v:0", "-count_frames", "stream=nb_read_frames");
    let audio_packets = count("a:0", "-count_packets", "stream=nb_read_packets");
    let (first, _) = output(
        "ffprobe",
        &[
            "-v",
            "error",
            "-select_streams",
            "v:0",
            "-read_intervals",
            "%+#1",
            "-show_entries",
            "frame=key_frame",
            "-of",
            "default=nw=1:nk=1",
            "FILE",
        ],
        &file,
    );
    // ffmpeg 7 complains of a filter without frames, where sound is announced and none fell into this chunk: nothing to decode.
    let silent: &[&str] = if audio_packets == 0 { &["-an"] } else { &[] };
    // `repeat`: each message is a line of its own, so that one can be left out.
    let decode = [
        &["-nostdin", "-v", "repeat+warning", "-i", "FILE"],
        silent,
        &["-f", "null", "-"],
    ]
    .concat();
    let (_, messages) = output("ffmpeg", &decode, &file);
    Verdict {
        frames,
        first_is_key: first.lines().next().is_some_and(|l| l.trim() == "1"),
        messages,
        audio_packets,
    }
}

/// Every chunk plays alone: its first frame is key, the decoder has nothing to say. Returns all frames.
pub fn assert_each_plays(chunks: &[Chunk]) -> u64 {
    let mut frames = 0;
    for chunk in chunks {
        let verdict = judge(&chunk.name, &chunk.data);
        assert!(verdict.first_is_key, "{}: {verdict:?}", chunk.name);
        assert_eq!(verdict.messages, "", "{}", chunk.name);
        assert_eq!(chunk.get("key-frame"), "true", "{}", chunk.name);
        frames += verdict.frames;
    }
    frames
}
