//! How the plugin gets into a process: from its file, as `gst-inspect-1.0` finds it, and linked into an application.
//!
//! Whole installs (meson, cargo-c, Debian package) take minutes: `scripts/check-install` does them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod common;
#[path = "common/process.rs"]
mod process;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use common::gcs_server::GcsServer;
use common::{BUCKET, assert_each_plays, chunks, h264};
use gst::prelude::*;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn check_symbols(arguments: &[&str]) -> Output {
    let plugin = process::plugin_dir().join("libgstgcstreamer.so");
    Command::new(root().join("scripts/check-symbols"))
        .arg(plugin)
        .args(arguments)
        .output()
        .unwrap()
}

/// An application that registers the elements itself needs no plugin file and no path.
#[test]
fn an_application_registers_the_elements_without_a_plugin_file() {
    // Nothing but what is linked in: neither an installed plugin nor one on a path.
    let registered = |name: &str| gst::ElementFactory::find(name).and_then(|f| f.plugin());
    gst::init().unwrap();
    gstgcstreamer::plugin_register_static().unwrap();
    gstgcstreamer::plugin_register_static().unwrap();
    let plugin = registered("gcssink").expect("the element");
    assert_eq!(plugin.plugin_name(), "gcstreamer");
    assert_eq!(plugin.filename(), None, "from no file");
    let server = GcsServer::spawn_thread();
    let line = format!(
        "{} ! flvmux streamable=true ! gcssink bucket={BUCKET} device-id=linked-in endpoint-uri={}",
        h264(3),
        server.endpoint()
    );
    let pipeline = gst::parse::launch(&line).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let kinds = [gst::MessageType::Eos, gst::MessageType::Error];
    let end = pipeline
        .bus()
        .unwrap()
        .timed_pop_filtered(gst::ClockTime::from_seconds(60), &kinds);
    pipeline.set_state(gst::State::Null).unwrap();
    assert_eq!(end.unwrap().type_(), gst::MessageType::Eos);
    assert_eq!(assert_each_plays(&chunks(&server)), 45);
}

#[test]
fn gst_inspect_finds_the_element_in_the_folder_of_the_plugin() {
    let folder = process::plugin_dir();
    let output = Command::new("gst-inspect-1.0")
        .arg("gcssink")
        .env("GST_PLUGIN_PATH", &folder)
        .env("GST_REGISTRY", folder.join("registry.bin"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(
        text.contains("Sink/Network") && text.contains(folder.to_str().unwrap()),
        "{text}"
    );
}

#[test]
fn the_plugin_asks_for_no_symbol_newer_than_the_oldest_system() {
    // The C library's age is that of the machine that links: scripts/check-install judges releases by it.
    let output = check_symbols(&["--glibc", "2.99"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("gstreamer: "), "{text}");
}

#[test]
fn a_symbol_that_is_too_new_is_refused_by_name() {
    let output = check_symbols(&["--gstreamer", "1.12", "--glibc", "2.99"]);
    assert!(!output.status.success());
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("needs gstreamer 1.20, the limit is 1.12"), "{text}");
    let output = check_symbols(&["--glibc", "2.2"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("needs glibc"));
}

#[test]
fn the_plugin_exports_what_gstreamer_asks_a_plugin_for() {
    let plugin = process::plugin_dir().join("libgstgcstreamer.so");
    let output = Command::new("objdump").arg("-T").arg(plugin).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let exported = |name: &str| text.lines().any(|l| l.ends_with(&format!(" {name}")) && !l.contains("*UND*"));
    assert!(exported("gst_plugin_gcstreamer_get_desc") && exported("gst_plugin_gcstreamer_register"));
}

/// A cargo that builds nothing, and writes down where it was started.
const CARGO: &str = r#"#!/bin/sh
pwd >"$0.folder"
while [ "$1" != --target-dir ]; do shift; done
mkdir -p "$2/release" && : >"$2/release/libgstgcstreamer.so"
"#;

/// Vendored crates are named in `.cargo/config.toml` of the source, which cargo looks for from its working directory upwards.
#[test]
fn meson_starts_cargo_in_the_source_wherever_the_build_folder_is() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let cargo = folder.path().join("cargo");
    std::fs::write(&cargo, CARGO).unwrap();
    std::fs::set_permissions(&cargo, std::fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new(root().join("scripts/lib/cargo_build.py"))
        .arg("--cargo")
        .arg(&cargo)
        .arg("--manifest")
        .arg(root().join("Cargo.toml"))
        .args([
            "--target-dir",
            "target",
            "--output",
            "libgstgcstreamer.so",
            "--depfile",
            "plugin.d",
        ])
        .current_dir(folder.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let started_in = std::fs::read_to_string(folder.path().join("cargo.folder")).unwrap();
    assert_eq!(PathBuf::from(started_in.trim()), root().canonicalize().unwrap());
    // And what it built is in the build folder, which the caller named from its own.
    assert!(folder.path().join("libgstgcstreamer.so").is_file());
}

/// `plain` is what the tools of distributions pass.
#[test]
fn meson_builds_in_release_mode_unless_it_is_reported_to_debug() {
    let folder = tempfile::tempdir().unwrap();
    for (build_type, profile) in [("plain", "release"), ("debugoptimized", "release"), ("debug", "dev")] {
        let build = folder.path().join(build_type);
        let output = Command::new("meson")
            .args(["setup", "--buildtype", build_type])
            .args([&build, &root()])
            .output();
        let Ok(output) = output else {
            eprintln!("left out: meson is not installed");
            return;
        };
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let ninja = std::fs::read_to_string(build.join("build.ninja")).unwrap();
        assert!(ninja.contains(&format!("--profile {profile} ")), "{build_type}");
    }
}

/// What `gst-inspect-1.0` and `gst-launch-1.0` say with this folder as the only place of the plugin.
fn asked(program: &str, words: &[&str], folder: &Path) -> String {
    let output = Command::new(program)
        .args(words)
        .env("GST_PLUGIN_PATH", folder)
        .env("GST_REGISTRY", folder.join("registry.bin"))
        .output()
        .unwrap();
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// `docs/troubleshooting.md`, "No element gcssink" and "The plugin is on the blacklist": what the programs say, and what helps.
#[test]
fn a_plugin_that_is_missing_or_does_not_load_is_reported_as_troubleshooting_says() {
    let folder = tempfile::tempdir().unwrap();
    let line = ["videotestsrc", "!", "gcssink"];
    let text = asked("gst-launch-1.0", &line, folder.path());
    assert!(text.contains("erroneous pipeline: no element \"gcssink\""), "{text}");
    let text = asked("gst-inspect-1.0", &["gcssink"], folder.path());
    assert!(text.contains("No such element or plugin 'gcssink'"), "{text}");
    let text = asked("gst-inspect-1.0", &["-b"], folder.path());
    assert!(!text.contains("libgstgcstreamer.so"), "{text}");

    // A file that was cut off, as one of another system, cannot be loaded.
    let plugin = folder.path().join("libgstgcstreamer.so");
    let whole = process::plugin_dir().join("libgstgcstreamer.so");
    let part = std::fs::File::open(&whole).unwrap();
    std::io::copy(
        &mut std::io::Read::take(part, 1 << 20),
        &mut std::fs::File::create(&plugin).unwrap(),
    )
    .unwrap();
    let text = asked("gst-inspect-1.0", &["gcssink"], folder.path());
    assert!(text.contains("No such element or plugin"), "{text}");
    let text = asked("gst-inspect-1.0", &["-b"], folder.path());
    assert!(text.contains("libgstgcstreamer.so"), "{text}");

    std::fs::remove_file(&plugin).unwrap();
    std::os::unix::fs::symlink(&whole, &plugin).unwrap();
    std::fs::remove_file(folder.path().join("registry.bin")).unwrap();
    let text = asked("gst-inspect-1.0", &["gcssink"], folder.path());
    assert!(text.contains("Sink/Network"), "{text}");
}
