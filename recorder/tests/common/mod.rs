//! Runs the recorder as a process that uploads to a scripted Cloud Storage, and checks the stored chunks with ffprobe.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../../tests/common/gcs_server.rs"]
pub mod gcs_server;
#[path = "../../../tests/common/preload.rs"]
pub mod preload;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use gcs_server::GcsServer;
use serde_json::Value;

pub const BUCKET: &str = "cam-bucket";

/// A recorder that runs.
pub struct Recorder {
    child: Child,
    pub port: u16,
    pub folder: tempfile::TempDir,
}

/// A program that ends with the test.
pub struct Ended(pub Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn program() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gcstreamer-recorder"));
    command.env_remove("STORAGE_EMULATOR_HOST").stdin(Stdio::null());
    command
}

impl Recorder {
    /// Runs with this configuration besides bucket, endpoint and listen.
    pub fn start(server: &GcsServer, configuration: &str) -> Self {
        Self::start_in(
            tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
            server,
            configuration,
        )
    }

    pub fn start_in(folder: tempfile::TempDir, server: &GcsServer, configuration: &str) -> Self {
        Self::spawn(program(), folder, server, configuration, &[])
    }

    pub fn start_with(folder: tempfile::TempDir, server: &GcsServer, configuration: &str, variables: &[(&str, &str)]) -> Self {
        Self::spawn(program(), folder, server, configuration, variables)
    }

    /// Runs it through another command, which gets the program and its arguments after its own.
    pub fn start_by(mut command: Command, server: &GcsServer, configuration: &str) -> Self {
        command.env_remove("STORAGE_EMULATOR_HOST").stdin(Stdio::null());
        command.arg(env!("CARGO_BIN_EXE_gcstreamer-recorder"));
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        Self::spawn(command, folder, server, configuration, &[])
    }

    fn spawn(
        mut command: Command,
        folder: tempfile::TempDir,
        server: &GcsServer,
        configuration: &str,
        variables: &[(&str, &str)],
    ) -> Self {
        let port = free_port();
        let file = folder.path().join("recorder.toml");
        write_configuration(&file, server, port, configuration);
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = command
            .args(["run", file.to_str().unwrap()])
            .envs(variables.iter().copied())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, port, folder }
    }

    /// Runs without a file.
    pub fn start_by_environment(folder: tempfile::TempDir, variables: &[(String, String)]) -> Self {
        let port = free_port();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let child = program()
            .arg("run")
            .envs(variables.iter().cloned())
            .env("LISTEN", format!("127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child, port, folder }
    }

    /// Writes another configuration and sends SIGHUP.
    pub fn reload(&self, server: &GcsServer, configuration: &str) {
        write_configuration(&self.folder.path().join("recorder.toml"), server, self.port, configuration);
        self.signal(rustix::process::Signal::HUP);
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// Returns the command line that `ps` shows to all users.
    pub fn command_line(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/cmdline", self.child.id())).unwrap()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    pub fn get(&self, path: &str) -> Option<(u16, String)> {
        get(self.port, path)
    }

    /// `/status` of one camera.
    pub fn camera(&self, id: &str) -> Value {
        let (_, body) = self.get("/status").unwrap_or((0, "[]".to_owned()));
        let all: Vec<Value> = serde_json::from_str(&body).unwrap();
        all.into_iter().find(|camera| camera["id"] == id).unwrap_or(Value::Null)
    }

    pub fn state(&self, id: &str) -> String {
        self.camera(id)["state"].as_str().unwrap_or("").to_owned()
    }

    pub fn wait_for(&self, id: &str, state: &str) -> Value {
        self.wait(&format!("{id} {state}"), || self.state(id) == state);
        self.camera(id)
    }

    pub fn wait(&self, what: &str, is_so: impl Fn() -> bool) {
        let until = Instant::now() + Duration::from_secs(60);
        while !is_so() {
            let status = self.get("/status").map(|(_, body)| body).unwrap_or_default();
            assert!(Instant::now() < until, "{what}\n{status}\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ends the recorder as a user does. Returns its log.
    pub fn stop(mut self) -> (ExitStatus, String) {
        self.signal(rustix::process::Signal::INT);
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let log = self.log();
                return (status, log);
            }
            assert!(Instant::now() < until, "it does not end\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Kills the recorder, like a power cut of this process alone.
    pub fn kill(mut self) -> tempfile::TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::mem::replace(&mut self.folder, tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn write_configuration(file: &Path, server: &GcsServer, port: u16, configuration: &str) {
    let text = format!(
        "bucket = \"{BUCKET}\"\nendpoint-uri = \"{}\"\nlisten = \"127.0.0.1:{port}\"\nmax-memory-bytes = 512000000\n{configuration}",
        server.endpoint()
    );
    std::fs::write(file, text).unwrap();
}

pub fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// An object of the bucket.
#[derive(Clone, Debug)]
pub struct Chunk {
    pub name: String,
    pub data: Vec<u8>,
    pub metadata: BTreeMap<String, String>,
}

impl Chunk {
    pub fn get(&self, key: &str) -> &str {
        self.metadata.get(key).map_or("", String::as_str)
    }

    pub fn sequence(&self) -> u64 {
        self.get("sequence").parse().unwrap()
    }
}

/// The chunks of a camera in the order in which they were recorded.
pub fn chunks(server: &GcsServer, id: &str) -> Vec<Chunk> {
    let mut chunks: Vec<Chunk> = server
        .objects()
        .into_iter()
        .map(|((_, name), object)| Chunk {
            name,
            data: object.data.clone(),
            metadata: object.meta["metadata"]
                .as_object()
                .unwrap()
                .iter()
                .map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned()))
                .collect(),
        })
        .filter(|chunk| chunk.get("device-id") == id)
        .collect();
    chunks.sort_by_key(|c| (c.get("session-id").to_owned(), c.sequence()));
    chunks
}

/// The first chunks of the sessions of a camera.
pub fn sessions(chunks: &[Chunk]) -> Vec<&Chunk> {
    chunks.iter().filter(|chunk| chunk.sequence() == 0).collect()
}

fn temporary(name: &str, data: &[u8]) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new()
        .suffix(&format!("-{}", name.replace('/', "_")))
        .tempfile_in(env!("CARGO_TARGET_TMPDIR"))
        .unwrap();
    file.write_all(data).unwrap();
    file
}

/// The result of decoding a chunk.
pub struct Decoded {
    /// Times of the pictures in output order.
    pub shown: Vec<i64>,
    /// Errors of the decoders.
    pub said: String,
    /// Packets of sound.
    pub sound: u64,
}

pub fn decode(chunk: &Chunk) -> Decoded {
    let file = temporary(&chunk.name, &chunk.data);
    let arguments = "-v warning -show_entries frame=media_type,pts -of csv=p=0";
    let out = Command::new("ffprobe")
        .args(arguments.split(' '))
        .arg(file.path())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    let times = |kind: &str| -> Vec<i64> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(kind));
        lines.filter_map(|line| line.trim_matches([',', ' ']).parse().ok()).collect()
    };
    Decoded {
        shown: times("video,"),
        said: String::from_utf8_lossy(&out.stderr).into_owned(),
        sound: times("audio,").len() as u64,
    }
}

/// Decodes a chunk. Returns the number of pictures with increasing times, the errors of the decoders and the number of sound
/// packets.
pub fn judge(chunk: &Chunk) -> (u64, String, u64) {
    let Decoded { shown, said, sound } = decode(chunk);
    assert!(shown.is_sorted_by(|a, b| a < b), "{}: {shown:?}", chunk.name);
    (shown.len() as u64, said, sound)
}

/// Writes a faulty chunk to a file for inspection. Returns its name and the path of that file.
fn kept(chunk: &Chunk) -> String {
    let (_, path) = temporary(&chunk.name, &chunk.data).keep().unwrap();
    format!("{} ({})", chunk.name, path.display())
}

/// Asserts that every chunk plays alone. Returns the number of all pictures and of all sound packets.
pub fn assert_each_plays(chunks: &[Chunk]) -> (u64, u64) {
    let (mut pictures, mut sound) = (0, 0);
    for chunk in chunks {
        let (frames, said, packets) = judge(chunk);
        assert_eq!(said, "", "{}: {frames} pictures, {:?}", kept(chunk), chunk.metadata);
        assert_eq!(chunk.get("key-frame"), "true", "{}", chunk.name);
        pictures += frames;
        sound += packets;
    }
    (pictures, sound)
}
