//! What systemd sees of the dashboard: it has started once it serves, it is alive while it answers, and a bad setting is no start.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// The program as systemd starts it, with a watchdog of 2 s, and the socket that it reports to.
fn start(folder: &std::path::Path, bucket: &str) -> (Child, UnixDatagram) {
    let path = folder.join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let child = Command::new(env!("CARGO_BIN_EXE_gcstreamer-dashboard"))
        .args([
            "--endpoint-uri",
            "http://127.0.0.1:1",
            "--listen",
            "127.0.0.1:0",
            "--bucket",
            bucket,
        ])
        .env("NOTIFY_SOCKET", &path)
        .env("WATCHDOG_USEC", "2000000")
        .env_remove("WATCHDOG_PID")
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    (child, socket)
}

/// Waits until this is reported; what else was, before it.
fn wait_for(socket: &UnixDatagram, wanted: &str) -> Vec<String> {
    let mut before = Vec::new();
    loop {
        let mut buffer = [0; 1024];
        let length = socket
            .recv(&mut buffer)
            .unwrap_or_else(|error| panic!("{wanted}: {error}; {before:?}"));
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if text.lines().any(|line| line == wanted) {
            return before;
        }
        before.push(text);
    }
}

fn pid(child: &Child) -> rustix::process::Pid {
    rustix::process::Pid::from_child(child)
}

#[test]
fn systemd_sees_it_serve_live_and_end() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, socket) = start(folder.path(), "my-bucket");
    assert_eq!(wait_for(&socket, "READY=1"), [""; 0]);
    wait_for(&socket, "WATCHDOG=1");
    wait_for(&socket, "WATCHDOG=1");
    rustix::process::kill_process(pid(&child), rustix::process::Signal::TERM).unwrap();
    wait_for(&socket, "STOPPING=1");
    assert!(child.wait().unwrap().success());
}

#[test]
fn with_a_bad_setting_it_has_not_started() {
    let folder = tempfile::tempdir().unwrap();
    let (mut child, socket) = start(folder.path(), "");
    assert_eq!(child.wait().unwrap().code(), Some(2));
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 64]).is_err(), "it has reported something");
}
