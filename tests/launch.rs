//! Real `gst-launch-1.0` processes: what a user at a terminal sees.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/preload.rs"]
mod preload;
#[path = "common/process.rs"]
mod process;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::gcs_server::GcsServer;
use common::*;
use process::launch;

fn interrupt(child: &Child) {
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

fn live_line(server: &GcsServer, device: &str) -> String {
    format!(
        "videotestsrc is-live=true ! video/x-raw,width=320,height=240,framerate=15/1 ! x264enc speed-preset=ultrafast key-int-max=15 \
         ! h264parse ! flvmux streamable=true ! gcssink bucket={BUCKET} device-id={device} endpoint-uri={}",
        server.endpoint()
    )
}

#[test]
fn ctrl_c_without_e_stores_the_open_chunk() {
    let server = GcsServer::spawn_thread();
    let child = launch(&live_line(&server, "ctrl-c"), &[]);
    std::thread::sleep(Duration::from_millis(3500));
    interrupt(&child);
    let began = Instant::now();
    let output = child.wait_with_output().unwrap();
    assert!(began.elapsed() < Duration::from_secs(6), "{output:?}");
    let chunks = chunks(&server);
    assert_eq!(chunks.len(), 1, "{output:?}");
    assert!(assert_each_plays(&chunks) >= 15);
}

#[test]
fn ctrl_c_with_e_ends_by_eos_and_leaks_nothing() {
    let server = GcsServer::spawn_thread();
    let line = format!("-e {}", live_line(&server, "eos"));
    let child = launch(
        &line,
        &[
            ("GST_TRACERS", "leaks"),
            ("GST_DEBUG", "GST_TRACER:7"),
            ("GST_DEBUG_NO_COLOR", "1"),
        ],
    );
    std::thread::sleep(Duration::from_millis(3500));
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    let leaks: Vec<&str> = text
        .lines()
        .filter(|l| l.contains("object-alive, type-name=(string)Gst"))
        .collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
    assert_each_plays(&chunks(&server));
}

/// gst-launch shows the debug string of an INFO and not its text.
#[test]
fn gst_launch_shows_what_an_info_says() {
    let server = GcsServer::spawn_thread();
    let line = format!(
        "videotestsrc num-buffers=30 ! x264enc tune=zerolatency ! flvmux streamable=true ! gcssink bucket={BUCKET} device-id=info \
         endpoint-uri={}",
        server.endpoint()
    );
    let output = launch(&line, &[]).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(
        text.contains("INFO") && text.contains("uploads work; max-memory-bytes"),
        "{text}"
    );
}

#[test]
fn a_spool_on_a_mount_where_modes_cannot_be_set_is_used_all_the_same() {
    let (server, spool) = (GcsServer::spawn_thread(), common::places::Spool::new());
    let library = spool.dir().with_file_name("modes.so");
    preload::build(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/modes.c"), &library);
    let line = live_line(&server, "modes").replace("videotestsrc", "videotestsrc num-buffers=30");
    let line = format!("{line} {}", spool.property());
    let output = launch(&line, &[("LD_PRELOAD", library.to_str().unwrap())])
        .wait_with_output()
        .unwrap();
    std::fs::remove_file(&library).unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(chunks(&server).len(), 1, "{output:?}");
    assert_eq!(spool.files(), Vec::<PathBuf>::new());
}

#[test]
fn the_first_error_of_a_wrong_line_is_ours() {
    let server = GcsServer::spawn_thread();
    let line = format!(
        "videotestsrc num-buffers=30 ! x264enc ! mp4mux ! gcssink bucket={BUCKET} device-id=wrong endpoint-uri={}",
        server.endpoint()
    );
    let output = launch(&line, &[]).wait_with_output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    let first = text.lines().find(|l| l.starts_with("ERROR")).unwrap_or_default();
    assert!(
        first.contains("gcssink") && first.contains("fragment-duration=1000"),
        "{text}"
    );
    assert!(!output.status.success());
}

/// The emulator that `scripts/setup` installs, where `scripts/test` says it is.
#[test]
fn fake_gcs_server_holds_the_bytes_that_were_sent() {
    let Some(binary) = std::env::var_os("FAKE_GCS_SERVER").filter(|path| !path.is_empty()) else {
        // Run alone, without scripts/test: the scripted server has to do.
        return;
    };
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let root = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("fake-gcs-{}", std::process::id()));
    std::fs::create_dir_all(root.join(BUCKET)).unwrap();
    let mut server = Command::new(binary)
        .args([
            "-scheme",
            "http",
            "-host",
            "127.0.0.1",
            "-backend",
            "filesystem",
            "-log-level",
            "error",
        ])
        .args([
            "-port",
            &port.to_string(),
            "-public-host",
            &format!("127.0.0.1:{port}"),
            "-filesystem-root",
        ])
        .arg(&root)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < until, "the emulator does not listen");
        std::thread::sleep(Duration::from_millis(50));
    }
    let line = format!(
        "-e videotestsrc num-buffers=90 ! video/x-raw,width=320,height=240,framerate=15/1 ! x264enc key-int-max=15 ! h264parse config-interval=-1 \
         ! mpegtsmux ! gcssink bucket={BUCKET} device-id=emulated max-size-time=2000000000"
    );
    let host = format!("127.0.0.1:{port}");
    let output = launch(&line, &[("STORAGE_EMULATOR_HOST", &host)]).wait_with_output().unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut files = Vec::new();
    find(&root.join(BUCKET).join("emulated"), &mut files);
    files.sort();
    let frames: u64 = files
        .iter()
        .map(|f| judge("emulated.ts", &std::fs::read(f).unwrap()))
        .map(|v| {
            assert_eq!(v.messages, "");
            v.frames
        })
        .sum();
    assert_eq!((files.len(), frames), (3, 90));
    std::fs::remove_dir_all(&root).unwrap();
}

fn find(folder: &std::path::Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            find(&path, into)
        } else if path.extension().is_some_and(|e| e == "ts") {
            into.push(path)
        }
    }
}
