//! What systemd sees of the dashboard: it has started once it serves, it is alive while it answers, a bad setting is no start, and its
//! environment is read as files of units have it.
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

/// What the program says of that environment, and its exit status.
fn said(variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_gcstreamer-dashboard"))
        .envs(
            variables
                .iter()
                .map(|(name, value)| (format!("GCSTREAMER_DASHBOARD_{name}"), value)),
        )
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn an_empty_variable_is_none_and_a_switch_takes_the_usual_words() {
    let all = "BUCKET ENDPOINT_URI CREDENTIALS_FILE LOCATION CAMERAS LISTEN AUTH MQTT_HOST MQTT_PORT MQTT_USERNAME MQTT_PASSWORD_FILE \
               MQTT_TLS DELIVERY CACHE_DIR LOG";
    let (status, text) = said(&all.split(' ').map(|name| (name, "")).collect::<Vec<_>>());
    assert!(
        status == Some(2) && text.contains("--bucket is missing"),
        "{status:?}: {text}"
    );
    for (word, says) in [
        ("1", "--mqtt-host is missing"),
        ("true", "--mqtt-host is missing"),
        ("0", "--delivery redirect"),
        ("off", "--delivery redirect"),
    ] {
        let others = [
            ("BUCKET", "my-bucket"),
            ("ENDPOINT_URI", "http://127.0.0.1:1"),
            ("DELIVERY", "redirect"),
        ];
        let delivery = if says.contains("delivery") {
            &others[..]
        } else {
            &others[..2]
        };
        let (status, text) = said(&[delivery, &[("MQTT_TLS", word)]].concat());
        assert!(
            status == Some(2) && text.contains(says),
            "MQTT_TLS={word}: {status:?}: {text}"
        );
    }
}
