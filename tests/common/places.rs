//! A server that is not there yet, and a spool's folder.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use super::gcs_server::{GcsServer, Options};

/// A server whose listener is closed until it is wanted.
pub struct ServerToStart(pub u16);

impl ServerToStart {
    pub fn new() -> Self {
        Self(GcsServer::spawn_thread().address().port())
    }

    pub fn property(&self) -> String {
        format!("endpoint-uri=http://127.0.0.1:{}", self.0)
    }

    pub fn start(&self) -> GcsServer {
        let port = self.0;
        GcsServer::spawn_thread_with(Options {
            port,
            ..Options::default()
        })
    }
}

/// A folder for `spool-dir`, removed at the end.
pub struct Spool(tempfile::TempDir);

impl Spool {
    pub fn new() -> Self {
        Self(tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap())
    }

    pub fn dir(&self) -> PathBuf {
        self.0.path().join("spool")
    }

    pub fn property(&self) -> String {
        // A limit of its own: how full this machine's disk is is no part of the test.
        format!("spool-dir={} max-spool-bytes=1000000000", self.dir().display())
    }

    /// All files below it.
    pub fn files(&self) -> Vec<PathBuf> {
        fn walk(dir: &Path, into: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                let path = entry.path();
                if path.is_dir() {
                    walk(&path, into);
                } else {
                    into.push(path);
                }
            }
        }
        let mut files = Vec::new();
        walk(&self.dir(), &mut files);
        files.sort();
        files
    }

    pub fn chunk_files(&self) -> Vec<PathBuf> {
        let is_chunk = |p: &PathBuf| p.extension().is_some_and(|e| e == "chunk");
        self.files().into_iter().filter(is_chunk).collect()
    }
}
