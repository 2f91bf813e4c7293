//! The lines of docs/then-and-now.md, docs/migrating.md and docs/start.md, word for word, from a camera into a bucket.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/printed.rs"]
mod printed;
#[path = "common/process.rs"]
mod process;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use common::gcs_server::GcsServer;
use common::{BUCKET, Chunk, chunks, judge};
use printed::printed_blocks;

/// The RTSP camera of the demo; ends when it goes out of scope.
struct Camera {
    child: Child,
    /// Kept open: the camera goes on telling who plays.
    _reported: BufReader<ChildStdout>,
    port: u16,
}

impl Camera {
    fn start() -> Self {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/lib/camera.py");
        // GStreamer's Python bindings belong to the system's interpreter.
        let python = ["/usr/bin/python3", "python3"]
            .into_iter()
            .find(|p| Path::new(p).exists())
            .unwrap_or("python3");
        let mut child = Command::new(python)
            .arg(script)
            .args(["--key-interval", "25"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let mut reported = BufReader::new(child.stdout.take().unwrap());
        reported.read_line(&mut line).unwrap();
        let port = line.strip_prefix("READY ").and_then(|p| p.trim().parse().ok());
        Self {
            port: port.unwrap_or_else(|| panic!("no camera: {line}")),
            child,
            _reported: reported,
        }
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Seconds that each line records; the second time where a busy machine had not begun by then.
const RECORD: [&str; 2] = ["8", "40"];

/// Runs one block as a user would, and says what came into the bucket and what was said.
fn run(block: &str, seconds: &str, camera: u16, folder: &Path, plugins: &Path) -> (Vec<Chunk>, String) {
    let server = GcsServer::spawn_thread();
    // What a user would put in: his bucket, his paths, his time.
    let script = block
        .replace("MY-BUCKET", BUCKET)
        .replace(
            "/var/lib/gcstreamer",
            &folder.join(format!("spool{seconds}")).to_string_lossy(),
        )
        .replace("/tmp/camera", &folder.join(format!("camera{seconds}")).to_string_lossy())
        .replace("TIMEOUT=3600", &format!("TIMEOUT={seconds}"));
    // Without an end of its own: Ctrl-C for the whole line. With one: only a limit, for a pipe that nobody opens.
    let ends = script.contains("timeout --foreground --signal=INT");
    let limit = if ends {
        seconds.parse::<u32>().unwrap() + 40
    } else {
        seconds.parse().unwrap()
    };
    let mut command = Command::new("timeout");
    command.args(["--signal=INT", "--kill-after=20", &limit.to_string(), "bash"]);
    // A line in the background may outlive the shell: what it says goes into a file, and its process group is ended below.
    let errors = folder.join("errors");
    let mut child = command
        .args(["-uc", &script])
        .env("RTSP_SOURCE", format!("rtsp://127.0.0.1:{camera}/cam"))
        .env("STORAGE_EMULATOR_HOST", server.endpoint())
        .env("GST_PLUGIN_PATH", plugins)
        .env("GST_REGISTRY", folder.join("registry.bin"))
        .env("G_DEBUG", "fatal-criticals")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(&errors).unwrap())
        .spawn()
        .unwrap();
    // timeout leads a group of its own.
    let group = format!("-{}", child.id());
    child.wait().unwrap();
    let _ = Command::new("kill")
        .args(["-KILL", "--", &group])
        .stderr(Stdio::null())
        .status();
    let text = std::fs::read_to_string(&errors).unwrap();
    (chunks(&server), format!("{script}\n{text}"))
}

/// Pictures of the chunks, each of which has to play.
fn frames_of(stored: &[Chunk], said: &str) -> u64 {
    assert!(
        process::errors(said).is_empty() && !said.contains("without SPS and PPS"),
        "{said}"
    );
    let mut frames = 0;
    for chunk in stored {
        let verdict = judge(&chunk.name, &chunk.data);
        // A camera on a busy machine is not punctual; that is nothing of the decoder's.
        let messages = verdict
            .messages
            .lines()
            .filter(|l| !l.contains("non monotonically increasing dts to muxer"));
        assert_eq!(messages.collect::<Vec<_>>(), Vec::<&str>::new(), "{said}");
        assert!(
            verdict.first_is_key && chunk.name.starts_with("cam1/"),
            "{} {said}",
            chunk.name
        );
        frames += verdict.frames;
    }
    frames
}

fn assert_records(block: &str, camera: u16, folder: &Path, plugins: &Path) {
    let mut last = (0, String::new());
    for seconds in RECORD {
        let (stored, said) = run(block, seconds, camera, folder, plugins);
        last = (frames_of(&stored, &said), said);
        if last.0 > 25 {
            return;
        }
    }
    panic!("{} pictures in {} s: {}", last.0, RECORD[1], last.1);
}

#[test]
fn every_line_of_then_and_now_and_of_the_migration_records_chunks_that_play() {
    let camera = Camera::start();
    let plugins = process::plugin_dir();
    // Before they all scan at once.
    let folder = tempfile::tempdir().unwrap();
    let mut blocks = printed_blocks("docs/then-and-now.md");
    assert_eq!(blocks.len(), 4);
    blocks.extend(printed_blocks("docs/migrating.md"));
    assert_eq!(blocks.len(), 6);
    let start = printed_blocks("docs/start.md");
    assert_eq!(start.len(), 1);
    blocks.extend(
        start
            .iter()
            .map(|line| line.replace("rtsp://CAMERA/stream", "\"$RTSP_SOURCE\"")),
    );
    std::thread::scope(|scope| {
        for (n, block) in blocks.iter().enumerate() {
            let own: PathBuf = folder.path().join(n.to_string());
            std::fs::create_dir(&own).unwrap();
            let plugins = &plugins;
            scope.spawn(move || assert_records(block, camera.port, &own, plugins));
        }
    });
}
