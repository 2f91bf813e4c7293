//! Tests with parts that do not answer for a while: the spool's disk (`tests/peers/hang.c`), and the recorder itself.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "zoo/camera.rs"]
mod camera;
mod common;
#[path = "zoo/media.rs"]
mod media;
#[path = "zoo/repack.rs"]
mod repack;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use camera::{Act, Camera};
use common::Recorder;
use common::gcs_server::{Fault, GcsServer};
use rustix::process::Signal;

fn library(folder: &Path) -> PathBuf {
    let out = folder.join("hang.so");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/peers/hang.c");
    common::preload::build(&source, &out);
    out
}

fn one_camera() -> Camera {
    Camera::start(vec![Act {
        sends: vec!["h264"],
        ..Act::default()
    }])
}

#[test]
fn a_spool_whose_disk_hangs_stops_nobody_who_asks_how_the_recorder_is_and_not_its_end() {
    let (server, camera) = (GcsServer::spawn_thread(), one_camera());
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::create_dir(folder.path().join("hung")).unwrap();
    let (below, flag) = (format!("{}/", folder.path().display()), folder.path().join("flag"));
    let library = library(folder.path());
    let variables = [
        ("LD_PRELOAD", library.to_str().unwrap()),
        ("HANG_BELOW", below.as_str()),
        ("HANG_WHILE", flag.to_str().unwrap()),
    ];
    let configuration = format!(
        "spool-dir = \"hung/spool\"\nmax-spool-bytes = 1000000000\n[[camera]]\nid = \"cam\"\nurl = \"{}\"\nmax-size-time = \"1s\"\n",
        camera.url()
    );
    let recorder = Recorder::start_with(folder, &server, &configuration, &variables);
    recorder.wait_for("cam", "recording");
    recorder.wait("room", || {
        recorder.get("/metrics").unwrap().1.contains("gcstreamer_spool_free_bytes")
    });
    std::fs::write(recorder.folder.path().join("flag"), "").unwrap();
    let until = Instant::now() + Duration::from_secs(15);
    while Instant::now() < until {
        for path in ["/metrics", "/healthz", "/status"] {
            let asked = Instant::now();
            assert_eq!(recorder.get(path).unwrap().0, 200, "{path}");
            assert!(asked.elapsed() < Duration::from_secs(5), "{path} took {:?}", asked.elapsed());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(recorder.state("cam"), "recording", "{}", recorder.log());
    // A configuration that is read again looks at the folder.
    recorder.reload(&server, &format!("{configuration}name = \"Door\"\n"));
    recorder.wait("told", || recorder.log().contains("do not answer within"));
    assert_eq!(recorder.get("/healthz").unwrap().0, 200);
    let asked = Instant::now();
    let (_, log) = recorder.stop();
    assert!(asked.elapsed() < Duration::from_secs(40), "{:?}\n{log}", asked.elapsed());
}

#[test]
fn a_recorder_that_was_stopped_for_longer_than_the_stall_timeout_calls_no_camera_frozen() {
    let (server, camera) = (GcsServer::spawn_thread(), one_camera());
    let configuration = format!(
        "[[camera]]\nid = \"cam\"\nurl = \"{}\"\nstall-timeout = \"3s\"\n",
        camera.url()
    );
    let recorder = Recorder::start(&server, &configuration);
    recorder.wait_for("cam", "recording");
    recorder.signal(Signal::STOP);
    std::thread::sleep(Duration::from_secs(6));
    recorder.signal(Signal::CONT);
    let until = Instant::now() + Duration::from_secs(3);
    while Instant::now() < until {
        assert_eq!(recorder.state("cam"), "recording", "{}", recorder.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let (_, log) = recorder.stop();
    assert!(!log.contains("frozen"), "{log}");
}

/// A camera that closes its first connection after so many pictures.
fn closes_once(pictures: u64) -> Camera {
    let first = Act {
        sends: vec!["h264"],
        pictures: Some(pictures),
        then: camera::Then::Close,
        ..Act::default()
    };
    let second = Act {
        pictures: None,
        then: camera::Then::Freeze,
        ..first.clone()
    };
    Camera::start(vec![first, second])
}

/// A camera ends the stream in the middle of an outage, and comes back.
fn outlives_its_connection(spool: &str) {
    let server = GcsServer::spawn_thread();
    let camera = closes_once(240);
    for _ in 0..10_000 {
        server.push_fault(Fault::status(503));
    }
    let configuration = format!(
        "{spool}\n[[camera]]\nid = \"cam\"\nurl = \"{}\"\nmax-size-time = \"1s\"\n",
        camera.url()
    );
    let recorder = Recorder::start(&server, &configuration);
    recorder.wait_for("cam", "recording");
    recorder.wait("another connection", || recorder.camera("cam")["reconnects"] == 1);
    recorder.wait_for("cam", "recording");
    // Longer than an ended recording goes on uploading chunks that are on disk.
    std::thread::sleep(Duration::from_secs(8));
    let waiting = recorder.camera("cam")["backlog_bytes"].as_u64().unwrap();
    assert!(waiting > 100_000, "{waiting}\n{}", recorder.log());
    server.clear_faults();
    let session = |at: usize| {
        let stored = common::chunks(&server, "cam");
        let first = common::sessions(&stored)
            .get(at)
            .map(|chunk| chunk.get("session-id").to_owned());
        stored
            .into_iter()
            .filter(move |chunk| Some(chunk.get("session-id").to_owned()) == first)
    };
    let is_whole = || {
        let numbers: Vec<u64> = session(0).map(|chunk| chunk.sequence()).collect();
        numbers.iter().copied().eq(0..numbers.len() as u64) && session(1).next().is_some() && numbers.len() > 5
    };
    recorder.wait("all that was recorded", is_whole);
    let (_, log) = recorder.stop();
    assert!(!log.contains("are lost, because"), "{log}");
    let stored: Vec<common::Chunk> = session(0).collect();
    let (pictures, _) = common::assert_each_plays(&stored);
    assert_eq!(pictures, 240, "{log}");
}

#[test]
fn what_a_full_spool_does_not_take_outlives_the_connection_that_it_came_by() {
    outlives_its_connection("spool-dir = \"spool\"\nmax-spool-bytes = 100000");
}

#[test]
fn without_a_spool_all_outlives_the_connection_that_it_came_by() {
    outlives_its_connection("");
}

#[test]
fn a_camera_that_connects_again_while_the_bucket_refuses_is_recorded_into_the_spool() {
    let server = GcsServer::spawn_thread();
    let camera = closes_once(75);
    for _ in 0..1000 {
        server.push_fault(Fault::status(403));
    }
    let folder = tempfile::tempdir().unwrap();
    let spool = folder.path().join("spool");
    let configuration = format!(
        "spool-dir = \"{}\"\nmax-spool-bytes = 1000000000\n[[camera]]\nid = \"cam\"\nurl = \"{}\"\nmax-size-time = \"1s\"\n",
        spool.display(),
        camera.url()
    );
    let recorder = Recorder::start(&server, &configuration);
    recorder.wait("another connection", || recorder.camera("cam")["reconnects"] == 1);
    recorder.wait_for("cam", "recording");
    let waiting = || recorder.camera("cam")["backlog_bytes"].as_u64().unwrap_or(0);
    let before = waiting();
    recorder.wait("more in the spool", || waiting() > before + 200_000);
    assert_eq!(recorder.state("cam"), "recording", "{}", recorder.log());
    let (ended, log) = recorder.stop();
    assert!(ended.success() && log.contains("uploads are refused"), "{log}");
    let folders = std::fs::read_dir(&spool).unwrap().map(|entry| entry.unwrap().path());
    let sessions: usize = folders
        .filter_map(|device| std::fs::read_dir(device).ok())
        .map(|sessions| sessions.filter(|entry| entry.as_ref().unwrap().path().is_dir()).count())
        .sum();
    assert_eq!(sessions, 2, "{log}");
}

#[test]
fn a_spool_that_takes_no_session_stops_no_camera_and_is_used_as_soon_as_it_does() {
    let (server, camera) = (GcsServer::spawn_thread(), one_camera());
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let device = folder.path().join("spool/cam");
    std::fs::create_dir(folder.path().join("spool")).unwrap();
    // A file has the name of the camera's folder.
    std::fs::write(&device, "").unwrap();
    let configuration = format!(
        "spool-dir = \"spool\"\nmax-spool-bytes = 1000000000\n[[camera]]\nid = \"cam\"\nurl = \"{}\"\nmax-size-time = \"1s\"\n",
        camera.url()
    );
    let recorder = Recorder::start_in(folder, &server, &configuration);
    recorder.wait_for("cam", "recording");
    recorder.wait("told", || recorder.log().contains("the spool cannot be written"));
    recorder.wait("chunks", || common::chunks(&server, "cam").len() > 3);
    std::fs::remove_file(&device).unwrap();
    let has_chunks = || {
        let sessions = std::fs::read_dir(&device).into_iter().flatten().flatten();
        let mut files = sessions.flat_map(|session| std::fs::read_dir(session.path()).into_iter().flatten().flatten());
        files.any(|file| file.path().extension().is_some_and(|ext| ext == "chunk"))
    };
    recorder.wait("the spool", has_chunks);
    assert_eq!(recorder.camera("cam")["reconnects"], 0, "{}", recorder.log());
    let (ended, log) = recorder.stop();
    assert!(ended.success(), "{log}");
    let stored = common::chunks(&server, "cam");
    assert_eq!(common::sessions(&stored).len(), 1, "{log}");
    common::assert_each_plays(&stored);
}

#[test]
fn a_camera_that_connects_again_while_the_credentials_file_is_unusable_is_recorded() {
    let (server, camera) = (GcsServer::spawn_thread(), closes_once(75));
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let key = folder.path().join("key.json");
    std::fs::write(
        &key,
        r#"{"type": "authorized_user", "client_id": "a", "client_secret": "b", "refresh_token": "c"}"#,
    )
    .unwrap();
    let configuration = format!(
        "spool-dir = \"spool\"\nmax-spool-bytes = 1000000000\ncredentials-file = \"key.json\"\n[[camera]]\nid = \"cam\"\nurl = \"{}\"\nmax-size-time = \"1s\"\n",
        camera.url()
    );
    let recorder = Recorder::start_in(folder, &server, &configuration);
    recorder.wait_for("cam", "recording");
    // A key is being replaced.
    std::fs::write(&key, "{").unwrap();
    recorder.wait("another connection", || recorder.camera("cam")["reconnects"] == 1);
    recorder.wait_for("cam", "recording");
    let (ended, log) = recorder.stop();
    assert!(ended.success() && log.contains("key.json is not JSON"), "{log}");
    assert_eq!(common::sessions(&common::chunks(&server, "cam")).len(), 2, "{log}");
}

#[test]
fn password_files_that_do_not_answer_stop_nobody_else_and_not_the_end() {
    let server = GcsServer::spawn_thread();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let locked = || {
        Camera::start(vec![Act {
            refuses: Some(("DESCRIBE", "401 Unauthorized")),
            ..Act::default()
        }])
    };
    // As many refused cameras as the recorder has worker threads. The others need their password for each connection.
    let cameras = [
        ("first", locked()),
        ("second", locked()),
        ("third", closes_once(75)),
        ("fourth", closes_once(75)),
    ];
    let well = one_camera();
    let file = |id: &str| folder.path().join(id);
    let mut configuration = format!("[[camera]]\nid = \"well\"\nurl = \"{}\"\n", well.url());
    for (id, camera) in &cameras {
        std::fs::write(file(id), "secret").unwrap();
        let (url, file) = (camera.url(), file(id));
        configuration += &format!(
            "[[camera]]\nid = \"{id}\"\nurl = \"{url}\"\nusername = \"rec\"\npassword-file = \"{}\"\n",
            file.display()
        );
    }
    let files = cameras.each_ref().map(|(id, _)| file(id));
    let recorder = Recorder::start_in(folder, &server, &configuration);
    for id in ["first", "second"] {
        recorder.wait_for(id, "refused");
    }
    for id in ["third", "fourth", "well"] {
        recorder.wait_for(id, "recording");
    }
    // Reading a FIFO without a writer blocks, like a mount that is unreachable.
    for file in &files {
        std::fs::remove_file(file).unwrap();
        assert!(std::process::Command::new("mkfifo").arg(file).status().unwrap().success());
    }
    let is_reported = |id: &str| {
        let asked = Instant::now();
        assert_eq!(recorder.get("/healthz").unwrap().0, 200);
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        let reason = recorder.camera(id)["reason"].to_string();
        reason.contains(&format!("/{id} does not answer"))
    };
    recorder.wait("told", || is_reported("third") && is_reported("fourth"));
    assert_eq!(recorder.state("well"), "recording", "{}", recorder.log());
    // The mount is back: the camera is tried at once, not when its next attempt is due.
    let hung = files[2].with_extension("fifo");
    std::fs::rename(&files[2], &hung).unwrap();
    std::fs::write(&files[2], "secret").unwrap();
    std::fs::write(&hung, "secret").unwrap();
    recorder.wait_for("third", "recording");
    // The files were replaced, and the old ones never answer: a reload makes the recorder read the new ones.
    for file in [&files[0], &files[1], &files[3]] {
        std::fs::remove_file(file).unwrap();
        std::fs::write(file, "secret").unwrap();
    }
    recorder.signal(Signal::HUP);
    recorder.wait_for("fourth", "recording");
    let (ended, log) = recorder.stop();
    assert!(ended.success(), "{log}");
}

#[test]
fn a_low_limit_of_open_files_is_raised_as_far_as_the_user_may() {
    let server = GcsServer::spawn_thread();
    let cameras: Vec<Camera> = (0..14).map(|_| one_camera()).collect();
    let entries: Vec<String> = cameras
        .iter()
        .enumerate()
        .map(|(n, camera)| format!("[[camera]]\nid = \"cam-{n}\"\nurl = \"{}\"\n", camera.url()))
        .collect();
    let mut shell = std::process::Command::new("sh");
    shell.args(["-c", "ulimit -Sn 64; exec \"$@\"", "sh"]);
    let configuration = format!("spool-dir = \"spool\"\nmax-spool-bytes = 1000000000\n{}", entries.concat());
    let recorder = Recorder::start_by(shell, &server, &configuration);
    for n in 0..cameras.len() {
        recorder.wait_for(&format!("cam-{n}"), "recording");
    }
    assert_eq!(recorder.get("/healthz").unwrap().0, 200);
    let (ended, log) = recorder.stop();
    assert!(ended.success() && !log.contains("this process may open"), "{log}");
}
