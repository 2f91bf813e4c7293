//! Runs the blocks of `docs/sources.md` and judges what they store.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod document;
pub mod peers;

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::common::gcs_server::GcsServer;
use super::common::{self, BUCKET, Chunk, TempFile};
use super::process::{ended_well, plugin_dir};
use document::Block;
use peers::{PATIENCE, wait_until};

/// What is put in for every line: a bucket of the test, and chunks of one second.
const SINK: (&str, &str) = ("gcssink bucket=MY-BUCKET", "gcssink max-size-time=1000000000 bucket=");

/// A printed line, running.
pub struct Run {
    block: Block,
    server: GcsServer,
    shell: Option<Child>,
    log: PathBuf,
}

impl Run {
    /// Starts a block in `folder`, with these words put in for others.
    pub fn start(block: &Block, folder: &Path, words: &[(&str, String)]) -> Self {
        let server = GcsServer::spawn_thread();
        let mut script = block.script.replace(SINK.0, &format!("{}{BUCKET}", SINK.1));
        assert!(
            script != block.script,
            "docs/sources.md:{}: no gcssink bucket=MY-BUCKET",
            block.line
        );
        for (printed, real) in words {
            assert!(script.contains(printed), "docs/sources.md:{}: no {printed}", block.line);
            script = script.replace(printed, real);
        }
        let log = folder.join(format!("line-{}.log", block.line));
        let out = File::create(&log).unwrap();
        let shell = Command::new("bash")
            .args(["-c", &script])
            .current_dir(folder)
            .env("GST_PLUGIN_PATH", plugin_dir())
            .env("GST_REGISTRY", folder.join("registry.bin"))
            .env("G_DEBUG", "fatal-criticals")
            .env("STORAGE_EMULATOR_HOST", server.endpoint())
            .env("no_proxy", "127.0.0.1")
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            // Of its own, so that Ctrl-C reaches all of it, as in a terminal.
            .process_group(0)
            .spawn()
            .unwrap();
        Self {
            block: block.clone(),
            server,
            shell: Some(shell),
            log,
        }
    }

    fn says(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        format!(
            "docs/sources.md:{} ({}):\n{}\n{text}",
            self.block.line, self.block.peer, self.block.script
        )
    }

    fn signal(&self, name: &str) {
        if let Some(shell) = &self.shell {
            let group = format!("-{}", shell.id());
            let _ = Command::new("kill").args([name, "--", &group]).status();
        }
    }

    /// Waits for this many chunks.
    pub fn wait_for_chunks(&mut self, count: usize) {
        let until = Instant::now() + PATIENCE;
        while self.server.objects().len() < count {
            let ended = self.shell.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "ended by itself, {ended:?}: {}", self.says());
            assert!(
                Instant::now() < until,
                "{} chunks: {}",
                self.server.objects().len(),
                self.says()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Ctrl-C.
    pub fn interrupt(&self) {
        self.signal("-INT");
    }

    /// Waits for its end, which is a good one, and judges every chunk.
    pub fn judge(mut self) {
        let mut status = None;
        let mut shell = self.shell.take().unwrap();
        wait_until(&format!("end of {}", self.says()), || {
            status = shell.try_wait().unwrap();
            status.is_some()
        });
        let (status, said) = (status.unwrap(), std::fs::read_to_string(&self.log).unwrap());
        assert!(ended_well(status, &said), "{status}: {}", self.says());
        let chunks = common::chunks(&self.server);
        assert!(chunks.len() >= 3, "{} chunks: {}", chunks.len(), self.says());
        let (last, whole) = chunks.split_last().unwrap();
        whole.iter().for_each(|chunk| self.judge_chunk(chunk));
        if self.block.peer == "file" {
            self.judge_chunk(last);
        } else if last.number("duration-ms") >= 200 {
            // Ctrl-C cut the bytes of those sources that are muxed already where they happened to be.
            let verdict = Verdict::of(last);
            assert!(verdict.first_is_key, "{}: {verdict:?} {}", last.name, self.says());
        }
    }

    fn judge_chunk(&self, chunk: &Chunk) {
        let name = &chunk.name;
        assert_eq!(chunk.get("container"), self.block.container, "{name}: {}", self.says());
        assert_eq!(chunk.get("key-frame"), "true", "{name}: {}", self.says());
        let verdict = Verdict::of(chunk);
        assert_eq!(verdict.complaints, Vec::<String>::new(), "{name}: {}", self.says());
        assert_eq!(verdict.codecs, self.block.codecs, "{name}: {}", self.says());
        assert!(
            verdict.first_is_key && verdict.pictures >= 10,
            "{name}: {verdict:?} {}",
            self.says()
        );
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.signal("-KILL");
        if let Some(mut shell) = self.shell.take() {
            let _ = shell.wait();
        }
    }
}

/// One chunk by itself, as ffprobe and the decoders see it.
#[derive(Debug)]
struct Verdict {
    codecs: Vec<String>,
    pictures: usize,
    first_is_key: bool,
    complaints: Vec<String>,
}

impl Verdict {
    fn of(chunk: &Chunk) -> Self {
        let file = TempFile::new(&chunk.name, &chunk.data);
        let probe = Command::new("ffprobe")
            .args([
                "-v",
                "error",
                "-show_entries",
                "stream=codec_name,codec_type:frame=media_type,key_frame",
                "-of",
                "csv",
            ])
            .arg(&file.0)
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&probe.stdout).into_owned();
        let pictures: Vec<&str> = text.lines().filter(|l| l.starts_with("frame,video,")).collect();
        // FLV's script tags are a stream for ffprobe; a transport stream's are listed twice, once for the program.
        let tracks = text.lines().filter_map(|l| l.strip_prefix("stream,")?.split_once(','));
        let mut codecs: Vec<String> = tracks
            .filter(|(_, kind)| matches!(*kind, "video" | "audio"))
            .map(|(name, _)| name.to_owned())
            .collect();
        codecs.sort();
        codecs.dedup();
        // Pictures first, whatever order the container has them in.
        codecs.sort_by_key(|c| c != "h264" && c != "hevc");
        let played = Command::new("ffmpeg")
            .args(["-nostdin", "-v", "warning", "-i"])
            .arg(&file.0)
            .args(["-f", "null", "-"])
            .output()
            .unwrap();
        Self {
            codecs,
            pictures: pictures.len(),
            first_is_key: pictures.first().is_some_and(|l| l.starts_with("frame,video,1")),
            complaints: complaints(&String::from_utf8_lossy(&played.stderr)),
        }
    }
}

/// What is wrong with the chunk. Not wrong: that G.711 has no channel layout of its own, that a live Matroska stream does not know its
/// length, that pictures of a live source come at uneven times, which ffmpeg's null muxer, not the decoder, remarks on, and that no
/// sound fell into the chunk before Ctrl-C, whose fragment is the last one's (ffmpeg 7 remarks on a filter without frames).
fn complaints(text: &str) -> Vec<String> {
    let known = [
        "Guessed Channel Layout",
        "Estimating duration from bitrate",
        "[null @",
        "No filtered frames for output stream",
        "    Last message repeated",
    ];
    let is_known = |line: &&str| !known.iter().any(|k| line.contains(k));
    text.lines().filter(is_known).map(str::to_owned).collect()
}
