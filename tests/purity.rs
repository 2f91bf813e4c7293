//! The modules that decide are pure: they can be tested without GStreamer, tokio, disk, network or clock. Reads the sources.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

const PURE: &[&str] = &[
    "crates/schema/src",
    "crates/media/src",
    "src/upload/scheduler",
    "src/upload/ticket.rs",
    "src/upload/disk_state.rs",
    "src/upload/moves.rs",
    "src/upload/shelf.rs",
    "src/upload/shelving.rs",
    "src/upload/health.rs",
    "src/upload/rate.rs",
    "src/upload/redate.rs",
    "src/flow/bucket.rs",
    "src/flow/hold.rs",
    "src/flow/outage.rs",
    "src/flow/pending.rs",
    "src/flow/shortage.rs",
    "src/upload/destination.rs",
    "src/spool/format.rs",
    "src/spool/destination.rs",
    "src/spool/entry.rs",
    "src/spool/paths.rs",
    "src/spool/recovery.rs",
    "src/iotcorestatus/report",
    "src/iotcorestatus/discovery.rs",
    "src/iotcorestatus/commands.rs",
    "crates/mqtt/src/link",
    "crates/mqtt/src/topics.rs",
    "crates/mqtt/src/backoff.rs",
    "crates/mqtt/src/key.rs",
    "crates/mqtt/src/der.rs",
    "crates/mqtt/src/version1.rs",
    "crates/mqtt/src/error_text.rs",
    "dashboard/src/auth.rs",
    "dashboard/src/export/film.rs",
    "dashboard/src/export/native.rs",
    "dashboard/src/hls",
    "dashboard/src/iap/assertion.rs",
    "dashboard/src/http/range.rs",
    "dashboard/src/index/badge.rs",
    "dashboard/src/index/freshness.rs",
    "dashboard/src/index/names.rs",
    "dashboard/src/index/runs.rs",
    "dashboard/src/index/timeline.rs",
    "recorder/src/camera/supervisor.rs",
    "recorder/src/camera/pause.rs",
    "recorder/src/camera/state.rs",
    "recorder/src/camera/plan.rs",
    "recorder/src/camera/classify.rs",
    "recorder/src/config/address.rs",
    "recorder/src/config/environment.rs",
    "recorder/src/config/fault.rs",
    "recorder/src/config/fingerprint.rs",
    "recorder/src/config/section.rs",
    "recorder/src/probe/challenge.rs",
    "recorder/src/probe/findings.rs",
    "recorder/src/shard.rs",
    "recorder/src/spread.rs",
];
/// These may use tokio, files, sockets and clocks, and no GStreamer.
const WITHOUT_GSTREAMER: [&str; 11] = [
    "dashboard/src",
    "src/base",
    "src/element/shutdown.rs",
    "crates/storage/src",
    "crates/mqtt/src",
    "src/ingest",
    "src/upload",
    "src/spool",
    "src/flow",
    "recorder/src/config",
    "recorder/src/http.rs",
];
const FORBIDDEN: [&str; 24] = [
    "gst::",
    "gst_base",
    "glib::",
    "tokio",
    "std::fs",
    "std::net::Tcp",
    "std::net::Udp",
    "std::net::ToSocketAddrs",
    "std::thread",
    "Instant",
    "SystemTime",
    "Mutex",
    "RwLock",
    "Condvar",
    "Atomic",
    "std::env",
    "std::process",
    "TcpStream",
    "UdpSocket",
    "OnceLock",
    "LazyLock",
    "rustix",
    "::now()",
    "TimeZone::system",
];

fn sources(path: &Path, into: &mut Vec<PathBuf>) {
    if path.is_dir() {
        std::fs::read_dir(path)
            .unwrap()
            .for_each(|e| sources(&e.unwrap().path(), into));
    } else if path.extension().is_some_and(|e| e == "rs") {
        into.push(path.to_owned());
    }
}

/// Source files below these folders, without tests.
fn files_of(folders: &[&str]) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    folders.iter().for_each(|folder| sources(&root.join(folder), &mut files));
    files.retain(|file| !file.strip_prefix(root).unwrap().to_string_lossy().contains("test"));
    files
}

/// Files whose first comment says that they are pure, in a line or a sentence of its own, whether they are listed or not. A module's
/// list of its parts ("`a` PURE: …") says it of others.
fn declared() -> Vec<PathBuf> {
    let mut files = files_of(&["src", "crates", "recorder/src", "dashboard/src"]);
    files.retain(|file| {
        let text = std::fs::read_to_string(file).unwrap();
        text.lines()
            .take_while(|line| line.starts_with("//!"))
            .any(|line| line.starts_with("//! PURE") || line.contains(". PURE"))
    });
    files
}

/// Where one of `words` stands in the code of these files, outside of comments and test modules.
fn found(files: &[PathBuf], words: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (n, line) in code.lines().enumerate() {
            let line = line.split("//").next().unwrap();
            let words = words.iter().filter(|word| line.contains(**word));
            found.extend(words.map(|word| format!("{}:{}: {word}", file.display(), n + 1)));
        }
    }
    found
}

#[test]
fn what_decides_knows_no_clock_no_disk_no_network_no_lock() {
    let (mut files, declared) = (files_of(PURE), declared());
    assert!(files.len() > 20 && declared.len() > 20);
    files.extend(declared);
    files.sort();
    files.dedup();
    let found = found(&files, &FORBIDDEN);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn storage_broker_spool_uploads_and_the_engine_know_no_gstreamer() {
    let files = files_of(&WITHOUT_GSTREAMER);
    assert!(files.len() > 40);
    let found = found(&files, &["gst::", "gst_base", "glib", "use gst", "gcssink::"]);
    assert!(found.is_empty(), "{found:#?}");
}
