//! What thousands of earlier sessions left in the spool: one for each restart and for each fragment of a splitmuxsink.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/leftovers.rs"]
mod left;
#[path = "common/process.rs"]
mod process;

use std::io::Read;
use std::time::{Duration, Instant};

use common::gcs_server::GcsServer;
use common::places::Spool;
use common::*;
use left::{leave, session_id};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use process::launch_under;

/// Few descriptors, as a process with many cameras has left.
const FEW: [&str; 2] = ["prlimit", "--nofile=128:128"];

fn words(server: &GcsServer, spool: &Spool, camera: &str, properties: &str) -> String {
    format!(
        "-e -m {camera} ! video/x-raw,width=320,height=240,framerate=15/1 ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 \
         ! h264parse config-interval=-1 ! flvmux streamable=true ! gcssink bucket={BUCKET} device-id=cam endpoint-uri={} {} \
         max-size-time=1000000000 {properties}",
        server.endpoint(),
        spool.property()
    )
}

fn old(server: &GcsServer) -> usize {
    let objects = server.objects();
    objects.keys().filter(|(_, name)| name.starts_with("old/")).count()
}

#[test]
fn twelve_hundred_sessions_are_stored_with_few_descriptors_and_without_a_word_of_trouble() {
    let (server, spool) = (GcsServer::spawn_thread(), Spool::new());
    leave(&spool.dir(), &server.endpoint(), BUCKET, 0..1200, 2);
    let camera = "videotestsrc num-buffers=45";
    let properties = "max-requests-per-second=0 drain-timeout=120000000000";
    let child = launch_under(&FEW, &words(&server, &spool, camera, properties), &[]);
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&out.stdout).into_owned() + &String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{said}");
    assert!(!said.contains("WARNING: from"), "{said}");
    assert!(said.contains("2400 chunks of"), "all of it is told at once: {said}");
    assert_eq!(old(&server), 2400);
    assert_eq!(server.objects().len(), 2403, "its own as well");
    assert!(spool.files().is_empty());
    // The oldest first, but for the few that are on their way at the same time.
    let objects = server.objects();
    let position = |number| {
        let name = format!("old/{}_000000.ts", session_id(number));
        objects.get(&(BUCKET.to_owned(), name)).map(|object| object.generation)
    };
    assert!(position(100) < position(300) && position(300) < position(1100));
}

#[test]
fn an_end_with_a_long_backlog_keeps_its_deadline_stores_its_own_chunks_and_leaves_the_rest() {
    let (server, spool) = (GcsServer::spawn_thread(), Spool::new());
    leave(&spool.dir(), &server.endpoint(), BUCKET, 0..3000, 10);
    let camera = "videotestsrc is-live=true";
    let properties = "max-requests-per-second=20 drain-timeout=2000000000 shutdown-timeout=2000000000";
    let mut child = launch_under(&FEW, &words(&server, &spool, camera, properties), &[]);
    let own = || server.objects().keys().filter(|(_, name)| name.starts_with("cam/")).count();
    let limit = Instant::now() + Duration::from_secs(60);
    while own() < 3 || old(&server) < 20 {
        assert!(Instant::now() < limit, "{} of its own, {} old", own(), old(&server));
        std::thread::sleep(Duration::from_millis(20));
    }
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGINT).unwrap();
    let limit = Instant::now() + Duration::from_secs(30);
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < limit, "it does not end");
        std::thread::sleep(Duration::from_millis(20));
    }
    let (mut said, mut more) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut more).unwrap();
    said += &more;
    let warnings: Vec<&str> = said.lines().filter(|line| line.starts_with("WARNING: from")).collect();
    let [left] = warnings[..] else { panic!("{said}") };
    let waiting = spool.chunk_files().len();
    assert_eq!(old(&server) + waiting, 30_000, "each is stored or there");
    let (_, reported) = left.split_once("gcssink0: ").expect(left);
    let (reported, rest) = reported.split_once(" chunks").expect(left);
    assert!(rest.contains("spool-dir"), "{left}");
    let reported = reported.rsplit(' ').next().expect(left);
    // Those that were on their way when it was said may have arrived since.
    let reported: usize = reported.parse().unwrap();
    assert!((waiting..=waiting + 4).contains(&reported), "{waiting}: {left}");
}

#[test]
fn two_processes_on_one_spool_use_one_limit_together() {
    const LIMIT: u64 = 3_000_000;
    let (later, spool) = (common::places::ServerToStart::new(), Spool::new());
    let camera = "videotestsrc is-live=true pattern=snow ! video/x-raw,width=320,height=240,framerate=15/1 ! x264enc tune=zerolatency \
        speed-preset=ultrafast bitrate=8000 key-int-max=15 ! h264parse config-interval=-1 ! flvmux streamable=true";
    let line = |device: &str, limit: &str| {
        let words = format!(
            "-e {camera} ! gcssink bucket={BUCKET} device-id={device} {} spool-dir={} {limit} max-size-time=1000000000 \
             overflow-policy=drop-oldest max-memory-bytes=2000000 drain-timeout=1000000 shutdown-timeout=500000000",
            later.property(),
            spool.dir().display()
        );
        launch_under(&[], &words, &[])
    };
    // Only one of them has a limit.
    let mut children = [line("one", &format!("max-spool-bytes={LIMIT}")), line("two", "")];
    let used = || -> u64 {
        let blocks = |path: &std::path::PathBuf| std::fs::metadata(path).map_or(0, |m| m.len().div_ceil(4096) * 4096);
        spool.files().iter().map(blocks).sum()
    };
    let began = Instant::now();
    let mut most = 0;
    while began.elapsed() < Duration::from_secs(12) {
        most = most.max(used());
        std::thread::sleep(Duration::from_millis(5));
    }
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert!(most <= LIMIT, "{most} bytes are used of {LIMIT}");
    assert!(most > LIMIT / 2, "{most}: the limit was never reached");
    for device in ["one", "two"] {
        let has_some = spool
            .chunk_files()
            .iter()
            .any(|f| f.display().to_string().contains(&format!("/{device}/")));
        assert!(has_some, "{device} got nothing");
    }
}
