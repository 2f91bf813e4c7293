//! A disk that stops answering under a recording, for real: the calls of a process do not return (`peers/hang.c`).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "hung_disk/each_call.rs"]
mod each_call;
#[path = "common/leftovers.rs"]
mod left;
#[path = "common/preload.rs"]
mod preload;
#[path = "common/process.rs"]
mod process;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use common::gcs_server::GcsServer;
use common::*;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use process::launch;

/// A process whose spool folder `hung` can be made not to answer.
struct Recording {
    child: Child,
    folder: tempfile::TempDir,
    server: GcsServer,
    said: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

fn library() -> PathBuf {
    let out = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("hang-{}.so", std::process::id()));
    if !out.exists() {
        let part = out.with_extension(format!("{:?}", std::thread::current().id()));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/hang.c");
        preload::build(&source, &part);
        std::fs::rename(&part, &out).unwrap();
    }
    out
}

fn camera(name: &str) -> String {
    format!(
        "videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=15/1 ! x264enc tune=zerolatency \
         speed-preset=ultrafast key-int-max=15 ! h264parse config-interval=-1 ! flvmux streamable=true ! tee name={name}"
    )
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

impl Recording {
    /// One camera into the spool that will hang, and one into another.
    fn begin(properties: &str, is_hung: bool) -> Self {
        let (server, folder) = (GcsServer::spawn_thread(), folder());
        let words = {
            let folder = folder.path();
            let dir = |name: &str| folder.join(name).display().to_string();
            let sink = |name: &str| {
                format!(
                    "{name}. ! queue ! filesink location={} buffer-mode=unbuffered {name}. ! queue ! gcssink bucket={BUCKET} \
                     device-id={name} endpoint-uri={} spool-dir={}/spool max-spool-bytes=1000000000 max-size-time=1000000000 {properties}",
                    dir(&format!("{name}.flv")),
                    server.endpoint(),
                    dir(name)
                )
            };
            for name in ["hung", "fine"] {
                std::fs::create_dir(dir(name)).unwrap();
            }
            format!("{} {} {} {}", camera("hung"), sink("hung"), camera("fine"), sink("fine"))
        };
        Self::launch(&words, is_hung, server, folder)
    }

    /// A line with a folder below which calls will hang, or do so from the start.
    fn launch(words: &str, is_hung: bool, server: GcsServer, folder: tempfile::TempDir) -> Self {
        // Its plugins are looked for before, since that is done by other processes, in which no call may hang.
        let known = launch("fakesrc num-buffers=1 ! fakesink", &[]).wait_with_output().unwrap();
        assert!(known.status.success());
        let flag = folder.path().join("flag");
        if is_hung {
            std::fs::write(&flag, "").unwrap();
        }
        let (below, flag) = (format!("{}/", folder.path().display()), flag.display().to_string());
        let library = library().display().to_string();
        let environment = [
            ("LD_PRELOAD", library.as_str()),
            ("HANG_BELOW", below.as_str()),
            ("HANG_WHILE", flag.as_str()),
        ];
        let mut child = launch(&format!("-e -m {words}"), &environment);
        let said = Arc::<Mutex<String>>::default();
        let mut readers = Vec::new();
        let mut read = |from: Box<dyn std::io::Read + Send>| {
            let said = Arc::clone(&said);
            readers.push(std::thread::spawn(move || {
                for line in BufReader::new(from).lines().map_while(Result::ok) {
                    let mut said = said.lock().unwrap();
                    said.push_str(&line);
                    said.push('\n');
                }
            }));
        };
        read(Box::new(child.stdout.take().unwrap()));
        read(Box::new(child.stderr.take().unwrap()));
        Self {
            child,
            folder,
            server,
            said,
            readers,
        }
    }

    fn flag(&self) -> PathBuf {
        self.folder.path().join("flag")
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn until(&self, what: &str, mut is_so: impl FnMut() -> bool) {
        let limit = Instant::now() + Duration::from_secs(40);
        while !is_so() {
            assert!(Instant::now() < limit, "{what}\n{}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn stored(&self, device: &str) -> Vec<Chunk> {
        let all = chunks(&self.server).into_iter();
        all.filter(|c| c.get("device-id") == device).collect()
    }

    /// Waits until so many chunks more of both cameras are stored.
    fn until_stored(&self, more: usize) {
        for device in ["fine", "hung"] {
            let before = self.stored(device).len();
            self.until(&format!("{device} is stored no more"), || {
                self.stored(device).len() >= before + more
            });
        }
    }

    /// Its threads of that name.
    fn threads(&self, name: &str) -> usize {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap();
        tasks
            .flatten()
            .filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name))
            .count()
    }

    /// Ends it as a power cut does.
    fn kill(mut self) -> (GcsServer, tempfile::TempDir) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        (self.server, self.folder)
    }

    /// Ends it as Ctrl-C does. What it said.
    fn interrupt(mut self, within: Duration) -> (String, GcsServer, tempfile::TempDir) {
        let pid = Pid::from_raw(i32::try_from(self.child.id()).unwrap());
        kill(pid, Signal::SIGINT).unwrap();
        let limit = Instant::now() + within;
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < limit, "it does not end\n{}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        };
        self.readers.drain(..).for_each(|reader| reader.join().unwrap());
        let said = self.said();
        assert!(status.success(), "{said}");
        (said, self.server, self.folder)
    }
}

/// The WARNINGs that `gst-launch-1.0` printed.
fn warnings(said: &str) -> Vec<&str> {
    said.lines().filter(|line| line.starts_with("WARNING: from")).collect()
}

fn all_of(server: &GcsServer, device: &str, folder: &Path) {
    let stored: Vec<Chunk> = chunks(server).into_iter().filter(|c| c.get("device-id") == device).collect();
    assert_each_plays(&stored);
    let input = std::fs::read(folder.join(format!("{device}.flv"))).unwrap();
    assert!(joined(&stored) == input, "{device}: {} chunks", stored.len());
}

/// What was reported, once at most, and all is in the bucket.
fn stops_answering_for_a_while(mode: &str) {
    let recording = Recording::begin(&format!("spool-mode={mode}"), false);
    recording.until_stored(2);
    std::fs::write(recording.flag(), "").unwrap();
    if mode == "always" {
        recording.until("nobody tells of it", || recording.said().contains("does not answer"));
        recording.until("the status says nothing of it", || recording.said().contains("degraded"));
    }
    recording.until_stored(3);
    // One is stuck, and one is that of the other folder.
    assert!(recording.threads("gcs-spool") <= 2, "{}", recording.threads("gcs-spool"));
    recording.until_stored(2);
    assert!(recording.threads("gcs-spool") <= 2, "{}", recording.threads("gcs-spool"));
    std::fs::remove_file(recording.flag()).unwrap();
    if mode == "always" {
        recording.until("it is not used again", || recording.said().contains("takes chunks again"));
    }
    recording.until_stored(2);
    let (said, server, folder) = recording.interrupt(Duration::from_secs(35));
    let expected = usize::from(mode == "always");
    assert_eq!(warnings(&said).len(), expected, "{mode}: {said}");
    all_of(&server, "hung", folder.path());
    all_of(&server, "fine", folder.path());
    let left = std::fs::read_dir(folder.path().join("hung/spool")).unwrap().count();
    assert_eq!(left, 0, "{mode}: what was stored is removed");
}

#[test]
fn a_disk_that_stops_answering_is_reported_once_costs_one_thread_and_no_chunk_and_is_used_again() {
    stops_answering_for_a_while("always");
}

#[test]
fn a_disk_that_stops_answering_costs_nothing_where_memory_is_enough() {
    stops_answering_for_a_while("overflow max-memory-bytes=1048576");
}

#[test]
fn a_disk_that_does_not_answer_at_the_start_holds_nothing_up_and_is_opened_when_it_does() {
    let recording = Recording::begin("", true);
    recording.until_stored(3);
    assert!(recording.said().contains("does not answer"));
    std::fs::remove_file(recording.flag()).unwrap();
    recording.until("it is not opened", || recording.said().contains("takes chunks again"));
    recording.until_stored(2);
    let (said, server, folder) = recording.interrupt(Duration::from_secs(35));
    assert_eq!(warnings(&said).len(), 1, "{said}");
    all_of(&server, "hung", folder.path());
    all_of(&server, "fine", folder.path());
}

#[test]
fn an_end_does_not_wait_for_a_disk_that_does_not_answer() {
    let recording = Recording::begin("drain-timeout=3000000000 shutdown-timeout=1000000000", false);
    recording.until_stored(2);
    std::fs::write(recording.flag(), "").unwrap();
    recording.until_stored(1);
    let began = Instant::now();
    let (_, server, folder) = recording.interrupt(Duration::from_secs(15));
    assert!(began.elapsed() < Duration::from_secs(12));
    all_of(&server, "fine", folder.path());
}
