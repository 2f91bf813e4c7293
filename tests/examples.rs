//! The programs in `examples/` do what their README says: they record, report what happens, and end cleanly by Ctrl-C.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/printed.rs"]
mod printed;
#[path = "common/process.rs"]
mod process;
#[path = "common/sources/mod.rs"]
mod sources;

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use common::gcs_server::GcsServer;
use common::{BUCKET, assert_each_plays, chunks};
use printed::printed_blocks;
use process::plugin_dir;
use sources::peers::{self, wait_until};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The block of `examples/README.md` that holds this word, as it is printed there.
fn block(word: &str) -> String {
    let mut blocks = printed_blocks("examples/README.md")
        .into_iter()
        .filter(|block| block.contains(word));
    let block = blocks.next().unwrap_or_else(|| panic!("no block with {word}"));
    assert_eq!(blocks.next(), None, "one block with {word}");
    block
}

/// An example, running.
struct Example {
    child: Child,
    log: PathBuf,
    server: GcsServer,
}

impl Example {
    fn start(script: &str, at: &Path, folder: &Path, source: Option<&str>, settings: &[(&str, PathBuf)]) -> Self {
        let server = GcsServer::spawn_thread();
        let log = folder.join("example.log");
        let out = File::create(&log).unwrap();
        let bucket = source.map_or_else(|| BUCKET.to_owned(), |source| format!("{BUCKET} '{source}'"));
        assert!(script.contains("MY-BUCKET"), "{script}");
        let child = Command::new("bash")
            .args(["-ec", &script.replace("MY-BUCKET", &bucket)])
            .current_dir(at)
            .env_remove("GST_PLUGIN_PATH")
            .envs(settings.iter().map(|(name, value)| (name, value)))
            .env("GST_REGISTRY", folder.join("registry.bin"))
            .env("G_DEBUG", "fatal-criticals")
            .env("STORAGE_EMULATOR_HOST", server.endpoint())
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            // Of its own, so that Ctrl-C reaches all of it, as in a terminal.
            .process_group(0)
            .spawn()
            .unwrap();
        Self { child, log, server }
    }

    fn says(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn signal(&self, name: &str) -> bool {
        let group = format!("-{}", self.child.id());
        Command::new("kill").args([name, "--", &group]).status().unwrap().success()
    }

    fn end(&mut self) -> ExitStatus {
        let mut status = None;
        wait_until(&format!("end; so far: {}", self.says()), || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Example {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.signal("-KILL");
        }
        let _ = self.child.wait();
    }
}

/// Records its test picture until a chunk is stored, then Ctrl-C; then a file that begins in mid-GOP, to its end. `script` is
/// run in `at`.
fn check(script: &str, at: &Path, settings: &[(&str, PathBuf)]) {
    let folder = peers::folder();
    let start = |source: Option<&str>| Example::start(script, at, folder.path(), source, settings);
    let mut live = start(None);
    wait_until("uploaded chunk", || {
        assert!(live.child.try_wait().unwrap().is_none(), "{}", live.says());
        live.says().contains("gcssink-chunk-uploaded")
    });
    assert!(live.signal("-INT"));
    assert!(live.end().success(), "{}", live.says());
    let said = live.says();
    let stored = chunks(&live.server);
    assert!(stored.len() >= 2, "{said}");
    for chunk in &stored {
        let line = format!("gcssink-chunk-uploaded {} {} bytes", chunk.name, chunk.data.len());
        assert!(said.contains(&line), "{line}: {said}");
    }
    // Pictures add up only where EOS went through the muxer.
    assert!(assert_each_plays(&stored) >= 30, "{said}");
    let statuses: Vec<&str> = said.lines().filter(|line| line.starts_with("status is ")).collect();
    let mut once = statuses.clone();
    once.dedup();
    assert_eq!(statuses, once, "each change is printed once");
    for wanted in ["interrupted: sending EOS", "status is online", "gcssink-status online, "] {
        assert!(said.contains(wanted), "no {wanted:?}: {said}");
    }

    let whole = folder.path().join("whole.ts");
    peers::file(&whole);
    let torn = folder.path().join("torn.ts");
    std::fs::write(&torn, &std::fs::read(&whole).unwrap()[20 * 188..]).unwrap();
    let mut file = start(Some(&format!("filesrc location={}", torn.display())));
    assert!(file.end().success(), "{}", file.says());
    assert!(file.says().contains("gcssink-gap 2"), "{}", file.says());
    assert!(!chunks(&file.server).is_empty());

    // A source that is no stream is reported and is no success.
    let mut wrong = start(Some("videotestsrc num-buffers=5"));
    assert!(!wrong.end().success(), "{}", wrong.says());
    assert!(wrong.says().lines().count() >= 1);
}

#[test]
fn the_rust_example_records_without_an_installed_plugin() {
    // …/target/PROFILE/deps/THIS
    let this = std::env::current_exe().unwrap();
    let profile = this.parent().and_then(Path::parent).unwrap();
    let target = profile.parent().unwrap();
    let mut script = block("cargo run");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--locked", "--example", "record", "--target-dir"])
        .arg(target);
    if profile.ends_with("release") {
        cargo.arg("--release");
        script = script.replace("cargo run", "cargo run --release");
    }
    // First of all, as it may take longer than anybody waits for a chunk.
    let built = cargo.current_dir(root()).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    check(&script, root(), &[("CARGO_TARGET_DIR", target.to_owned())]);
}

/// A folder in which the commands of the README find `examples/`, and may write.
fn checkout() -> tempfile::TempDir {
    let folder = peers::folder();
    std::os::unix::fs::symlink(root().join("examples"), folder.path().join("examples")).unwrap();
    folder
}

#[test]
fn the_python_example_records() {
    check(&block("record.py"), checkout().path(), &[("GST_PLUGIN_PATH", plugin_dir())]);
}

#[test]
fn the_c_example_builds_without_warnings_and_records() {
    let folder = checkout();
    let flags = Command::new("pkg-config")
        .args(["--cflags", "--libs", "gstreamer-1.0"])
        .output()
        .unwrap();
    let built = Command::new("cc")
        .args(["-Wall", "-Wextra", "-Werror", "-o", "strict", "examples/record.c"])
        .args(String::from_utf8(flags.stdout).unwrap().split_whitespace())
        .current_dir(&folder)
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    check(&block("record.c"), folder.path(), &[("GST_PLUGIN_PATH", plugin_dir())]);
}

#[test]
fn each_example_is_short_and_named_in_their_readme() {
    let folder = root().join("examples");
    let readme = std::fs::read_to_string(folder.join("README.md")).unwrap();
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_file() && name != "README.md" {
            let lines = std::fs::read_to_string(&path).unwrap().lines().count();
            assert!(lines <= 150, "{name} has {lines} lines");
            assert!(readme.contains(&name), "examples/README.md does not name {name}");
        }
    }
}
