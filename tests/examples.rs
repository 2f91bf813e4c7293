//! The programs in `examples/` do what their README says: they record, tell what happens, and end cleanly by Ctrl-C.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/process.rs"]
mod process;
#[path = "common/sources/mod.rs"]
mod sources;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use common::gcs_server::GcsServer;
use common::{BUCKET, assert_each_plays, chunks};
use process::plugin_dir;
use sources::peers::{self, wait_until};

/// An example, running.
struct Example {
    child: Child,
    log: PathBuf,
    server: GcsServer,
}

impl Example {
    fn start(mut command: Command, folder: &Path, source: Option<&str>) -> Self {
        let server = GcsServer::spawn_thread();
        let log = folder.join("example.log");
        let out = File::create(&log).unwrap();
        let child = command
            .arg(BUCKET)
            .args(source)
            .env("GST_REGISTRY", folder.join("registry.bin"))
            .env("G_DEBUG", "fatal-criticals")
            .env("STORAGE_EMULATOR_HOST", server.endpoint())
            .stdin(Stdio::null())
            .stdout(out.try_clone().unwrap())
            .stderr(out)
            .spawn()
            .unwrap();
        Self { child, log, server }
    }

    fn says(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
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
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Records its test picture until a chunk is stored, then Ctrl-C; then a file that begins in mid-GOP, to its end.
fn check(make: impl Fn() -> Command) {
    let folder = peers::folder();
    let mut live = Example::start(make(), folder.path(), None);
    wait_until("uploaded chunk", || {
        assert!(live.child.try_wait().unwrap().is_none(), "{}", live.says());
        live.says().contains("gcssink-chunk-uploaded")
    });
    let interrupt = Command::new("kill").args(["-INT", &live.child.id().to_string()]).status();
    assert!(interrupt.unwrap().success());
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
    for wanted in ["interrupted: sending EOS", "status is online", "gcssink-status online, "] {
        assert!(said.contains(wanted), "no {wanted:?}: {said}");
    }

    let whole = folder.path().join("whole.ts");
    peers::file(&whole);
    let torn = folder.path().join("torn.ts");
    std::fs::write(&torn, &std::fs::read(&whole).unwrap()[20 * 188..]).unwrap();
    let mut file = Example::start(make(), folder.path(), Some(&format!("filesrc location={}", torn.display())));
    assert!(file.end().success(), "{}", file.says());
    assert!(file.says().contains("gcssink-gap 2"), "{}", file.says());
    assert!(!chunks(&file.server).is_empty());

    // A source that is no stream is told and is no success.
    let mut wrong = Example::start(make(), folder.path(), Some("videotestsrc num-buffers=5"));
    assert!(!wrong.end().success(), "{}", wrong.says());
    assert!(wrong.says().lines().count() >= 1);
}

#[test]
fn the_rust_example_records_without_an_installed_plugin() {
    // …/target/PROFILE/deps/THIS
    let this = std::env::current_exe().unwrap();
    let profile = this.parent().and_then(Path::parent).unwrap();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo
        .args(["build", "--locked", "--example", "record", "--target-dir"])
        .arg(profile.parent().unwrap());
    if profile.ends_with("release") {
        cargo.arg("--release");
    }
    let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    check(|| {
        let mut command = Command::new(profile.join("examples/record"));
        command.env_remove("GST_PLUGIN_PATH");
        command
    });
}

#[test]
fn the_python_example_records() {
    check(|| {
        let mut command = Command::new(peers::interpreter());
        command
            .arg("-B")
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/record.py"));
        command.env("GST_PLUGIN_PATH", plugin_dir());
        command
    });
}

#[test]
fn the_c_example_builds_without_warnings_and_records() {
    let folder = peers::folder();
    let program = folder.path().join("record");
    let flags = Command::new("pkg-config")
        .args(["--cflags", "--libs", "gstreamer-1.0"])
        .output()
        .unwrap();
    let built = Command::new("cc")
        .args(["-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&program)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/record.c"))
        .args(String::from_utf8(flags.stdout).unwrap().split_whitespace())
        .output()
        .unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    check(|| {
        let mut command = Command::new(&program);
        command.env("GST_PLUGIN_PATH", plugin_dir());
        command
    });
}

#[test]
fn each_example_is_short_and_named_in_their_readme() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
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
