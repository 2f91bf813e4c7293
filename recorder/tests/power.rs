//! Power loss: the recorder is killed with all cameras running, and of its spool only what was synced is left (`peers/power.c`).
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "zoo/camera.rs"]
mod camera;
mod common;
#[path = "zoo/media.rs"]
mod media;
#[path = "zoo/repack.rs"]
mod repack;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::UNIX_EPOCH;

use camera::{Act, Camera};
use common::gcs_server::{Fault, GcsServer};
use common::{Chunk, Recorder, assert_each_plays, chunks};

const CAMERAS: usize = 6;

fn library(folder: &Path) -> PathBuf {
    let out = folder.join("power.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/power.c");
    common::preload::build(&source, &out);
    out
}

/// As `power.c` names it.
fn identity(path: &Path) -> String {
    let metadata = std::fs::metadata(path).unwrap();
    let born = metadata.created().unwrap().duration_since(UNIX_EPOCH).unwrap();
    format!("{}-{}-{}", metadata.ino(), born.as_secs(), born.subsec_nanos())
}

/// Creates a folder as it is after the power cut, with only the names and bytes that were synced. Returns its number of files.
fn after_power_cut(disk: &Path, identity: &str, into: &Path) -> usize {
    std::fs::DirBuilder::new().mode(0o700).create(into).unwrap();
    let mut files = 0;
    for line in std::fs::read_to_string(disk.join(identity)).unwrap_or_default().lines() {
        let [name, identity, kind] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        if kind == "folder" {
            files += after_power_cut(disk, identity, &into.join(name));
        } else {
            let bytes = std::fs::read(disk.join(identity)).unwrap_or_default();
            std::fs::write(into.join(name), bytes).unwrap();
            files += 1;
        }
    }
    files
}

/// Runs a recorder until the power fails. Returns how many pictures each camera had sent by then, and a folder with the remaining
/// contents of the disk.
fn run_until_power_cut(server: &GcsServer, cameras: &[Camera], configuration: &str) -> (Vec<u64>, tempfile::TempDir) {
    let folder = || tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (own, disk, after) = (folder(), folder(), folder());
    let library = library(disk.path());
    let (below, to) = (own.path().join("spool"), disk.path().to_owned());
    let variables = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("POWER_BELOW", below.to_str().unwrap()),
        ("POWER_DISK", to.to_str().unwrap()),
    ];
    let recorder = Recorder::start_with(own, server, configuration, &variables);
    let sent = |camera: &Camera| camera.seen.pictures.load(Ordering::SeqCst);
    recorder.wait("pictures and an outage", || cameras.iter().all(|camera| sent(camera) > 90));
    // Then the disk has closed chunks that wait for upload, besides the open ones.
    for _ in 0..12 {
        server.push_fault(Fault::status(503));
    }
    recorder.wait("more pictures", || cameras.iter().all(|camera| sent(camera) > 200));
    let before = cameras.iter().map(sent).collect();
    let own = recorder.kill();
    let files = after_power_cut(&to, &identity(&own.path().join("spool")), &after.path().join("spool"));
    assert!(files > CAMERAS, "{files} files are left");
    (before, after)
}

#[test]
fn a_power_cut_with_all_cameras_running_costs_no_more_than_the_last_second_before_the_sync() {
    let server = GcsServer::spawn_thread();
    let sends = |i: usize| Act {
        sends: if i % 3 == 2 { vec!["h265"] } else { vec!["h264", "aac"] },
        ..Act::default()
    };
    let cameras: Vec<Camera> = (0..CAMERAS).map(|i| Camera::start(vec![sends(i)])).collect();
    let mut configuration = "spool-dir = \"spool\"\nmax-spool-bytes = 1000000000\n".to_owned();
    for (i, camera) in cameras.iter().enumerate() {
        let container = if i % 2 == 0 { "auto" } else { "matroska" };
        let url = camera.url();
        writeln!(
            configuration,
            "[[camera]]\nid = \"cam{i}\"\nurl = \"{url}\"\ncontainer = \"{container}\"\nmax-size-time = \"3s\""
        )
        .unwrap();
    }
    let (before, after) = run_until_power_cut(&server, &cameras, &configuration);
    let sessions: BTreeSet<String> = stored(&server)
        .iter()
        .map(|chunk| chunk.get("session-id").to_owned())
        .collect();

    let recorder = Recorder::start_in(after, &server, &configuration);
    // Lost are the pictures that kill -9 costs (chaos.rs), and those since the last sync (`spool-sync-interval`, 1 s).
    let on_its_way = 3 * u64::from(media::RATE);
    for (i, before) in before.iter().enumerate() {
        let first_session = || -> Vec<Chunk> {
            let stored = chunks(&server, &format!("cam{i}"));
            stored
                .into_iter()
                .filter(|chunk| sessions.contains(chunk.get("session-id")))
                .collect()
        };
        recorder.wait(&format!("cam{i}: what was synced, of {before} pictures"), || {
            assert_each_plays(&first_session()).0 + on_its_way >= *before
        });
        let sequences: Vec<u64> = first_session().iter().map(Chunk::sequence).collect();
        let expected: Vec<u64> = (0..sequences.len() as u64).collect();
        assert_eq!(sequences, expected, "cam{i}: a chunk is missing, or is there twice");
    }
    let (ended, log) = recorder.stop();
    assert!(ended.success(), "{log}");
    assert!(!log.contains("damaged"), "{log}");
}

fn stored(server: &GcsServer) -> Vec<Chunk> {
    (0..CAMERAS).flat_map(|i| chunks(server, &format!("cam{i}"))).collect()
}
