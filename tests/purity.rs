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
    "src/structures.rs",
    "src/iotcorestatus/report",
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

fn sources(path: &Path, into: &mut Vec<PathBuf>) {
    if path.is_dir() {
        std::fs::read_dir(path)
            .unwrap()
            .for_each(|e| sources(&e.unwrap().path(), into));
    } else if path.extension().is_some_and(|e| e == "rs") {
        into.push(path.to_owned());
    }
}

#[test]
fn what_decides_knows_no_clock_no_disk_no_network_no_lock() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    PURE.iter().for_each(|p| sources(&root.join(p), &mut files));
    assert!(files.len() > 20);
    let mut found = Vec::new();
    for file in files.iter().filter(|f| !f.to_string_lossy().contains("test")) {
        let text = std::fs::read_to_string(file).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for (n, line) in code.lines().enumerate() {
            let line = line.split("//").next().unwrap();
            found.extend(
                FORBIDDEN
                    .iter()
                    .filter(|w| line.contains(**w))
                    .map(|w| format!("{}:{}: {w}", file.display(), n + 1)),
            );
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}
