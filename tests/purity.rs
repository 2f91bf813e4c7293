//! The modules that decide are pure: they can be tested without GStreamer, tokio, disk, network or clock. Reads the sources.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::{Path, PathBuf};

const PURE: [&str; 19] = [
    "src/container",
    "src/chunk",
    "src/upload/scheduler",
    "src/upload/health.rs",
    "src/upload/redate.rs",
    "src/flow/bucket.rs",
    "src/flow/outage.rs",
    "src/spool/format.rs",
    "src/spool/entry.rs",
    "src/spool/paths.rs",
    "src/spool/plan.rs",
    "src/iotcorestatus/report",
    "src/iotcorestatus/status.rs",
    "src/iotcorestatus/discovery.rs",
    "src/iotcorestatus/commands.rs",
    "src/mqtt/link",
    "src/mqtt/topics.rs",
    "src/mqtt/backoff.rs",
    "src/mqtt/key.rs",
];
const FORBIDDEN: [&str; 14] = [
    "gst::",
    "gst_base",
    "glib::",
    "tokio",
    "std::fs",
    "std::net",
    "std::thread",
    "Instant",
    "SystemTime",
    "Mutex",
    "RwLock",
    "Condvar",
    "Atomic",
    "std::env",
];

/// No GStreamer: what stands between a buffer and a stored object works without it.
const NO_GSTREAMER: [&str; 4] = ["src/ingest", "src/upload", "src/spool", "src/flow"];
const GSTREAMER: [&str; 4] = ["gst::", "gst_base", "glib", "gcssink::"];

fn sources(path: &Path, into: &mut Vec<PathBuf>) {
    if path.is_dir() {
        std::fs::read_dir(path)
            .unwrap()
            .for_each(|e| sources(&e.unwrap().path(), into));
    } else if path.extension().is_some_and(|e| e == "rs") {
        into.push(path.to_owned());
    }
}

/// Lines of these files, tests left out, that name one of the words.
fn named(paths: &[&str], words: &[&str]) -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    paths.iter().for_each(|p| sources(&root.join(p), &mut files));
    assert!(files.len() > 20);
    let mut found = Vec::new();
    for file in files.iter().filter(|f| !f.to_string_lossy().contains("test")) {
        let text = std::fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (n, line) in code.lines().enumerate() {
            let line = line.split("//").next().unwrap();
            let words = words.iter().filter(|w| line.contains(**w));
            found.extend(words.map(|w| format!("{}:{}: {w}", file.display(), n + 1)));
        }
    }
    found
}

#[test]
fn what_decides_knows_no_clock_no_disk_no_network_no_lock() {
    let found = named(&PURE, &FORBIDDEN);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn what_stands_between_a_buffer_and_a_stored_object_knows_no_gstreamer() {
    let found = named(&NO_GSTREAMER, &GSTREAMER);
    assert!(found.is_empty(), "{found:#?}");
}
