//! Tests of a fleet that shares its cameras: real processes, each with the host name of its pod.
//!
//! The order of a change of their number is that of `deploy/kubernetes/resize`.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[path = "zoo/camera.rs"]
mod camera;
mod common;
#[path = "zoo/media.rs"]
mod media;
#[path = "zoo/repack.rs"]
mod repack;

use std::collections::BTreeMap;
use std::process::Command;
use std::sync::atomic::Ordering;
use std::time::Duration;

use camera::{Act, Camera};
use common::gcs_server::GcsServer;
use common::{Recorder, assert_each_plays, chunks, sessions};

const CAMERAS: usize = 12;

fn configuration(cameras: &[Camera], pods: u32) -> String {
    let entry = |(n, camera): (usize, &Camera)| {
        format!(
            "[[camera]]\nid = \"cam{n}\"\nurl = \"{}\"\nmax-size-time = \"2s\"\n",
            camera.url()
        )
    };
    let entries: String = cameras.iter().enumerate().map(entry).collect();
    format!("[shard]\npods = {pods}\n{entries}")
}

/// Arguments of `unshare` that give a process a host name of its own: root needs no user namespace, which a chroot refuses. `None`: this
/// user may not have one.
fn own_host_name() -> Option<Vec<&'static str>> {
    let may = |arguments: &Vec<&str>| {
        let status = Command::new("unshare").args(arguments).arg("true").status();
        status.is_ok_and(|status| status.success())
    };
    [vec!["--uts"], vec!["--uts", "--map-root-user"]].into_iter().find(may)
}

/// A process in a UTS namespace of its own, in which it has this host name.
fn pod(server: &GcsServer, ordinal: u32, configuration: &str) -> Recorder {
    let mut command = Command::new("unshare");
    let script = format!("hostname gcstreamer-recorder-{ordinal} && exec \"$0\" \"$@\"");
    command.args(own_host_name().unwrap()).args(["sh", "-c", &script]);
    Recorder::start_by(command, server, configuration)
}

/// Which pod has which camera, as `/status` says.
fn shares(pods: &[Recorder]) -> BTreeMap<String, Vec<usize>> {
    let mut shares: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    for (n, pod) in pods.iter().enumerate() {
        let (_, body) = pod.get("/status").unwrap_or((0, "[]".to_owned()));
        let cameras: Vec<serde_json::Value> = serde_json::from_str(&body).unwrap();
        for camera in cameras {
            if camera["state"] == "recording" {
                shares.entry(camera["id"].as_str().unwrap().to_owned()).or_default().push(n);
            }
        }
    }
    shares
}

/// Asserts that every camera is recorded by exactly one of the processes.
fn is_shared_out(pods: &[Recorder]) -> bool {
    let shares = shares(pods);
    shares.len() == CAMERAS && shares.values().all(|of| of.len() == 1)
}

#[test]
fn five_pods_record_each_camera_once_and_a_sixth_comes_and_goes_without_a_camera_left_out() {
    if own_host_name().is_none() {
        eprintln!("skipped: no UTS namespaces for this user, so no host names");
        return;
    }
    let server = GcsServer::spawn_thread();
    let act = || Act {
        sends: vec!["h264"],
        ..Act::default()
    };
    let cameras: Vec<Camera> = (0..CAMERAS).map(|_| Camera::start(vec![act()])).collect();
    let connections = || -> Vec<usize> {
        let seen = cameras.iter().map(|camera| camera.seen.connections.load(Ordering::SeqCst));
        seen.collect()
    };
    let (five, six) = (configuration(&cameras, 5), configuration(&cameras, 6));
    let mut pods: Vec<Recorder> = (0..5).map(|n| pod(&server, n, &five)).collect();
    pods[0].wait("five pods with all cameras", || is_shared_out(&pods));
    assert_eq!(connections(), [1; CAMERAS], "none is connected to twice");
    let before = shares(&pods);

    // Growing: the new pod starts, then the others stop recording its cameras.
    pods.push(pod(&server, 5, &six));
    let moved: Vec<String> = (0..CAMERAS)
        .map(|n| format!("cam{n}"))
        .filter(|id| gcstreamer_recorder::shard::pod_of(id, 6) == 5)
        .collect();
    assert!(!moved.is_empty() && moved.len() < CAMERAS / 2, "{moved:?}");
    pods[5].wait("its share", || moved.iter().all(|id| pods[5].state(id) == "recording"));
    for pod in &pods[..5] {
        pod.reload(&server, &six);
    }
    pods[0].wait("six pods with all cameras", || is_shared_out(&pods));
    let after = shares(&pods);
    for (id, of) in &after {
        let is_moved = moved.contains(id);
        assert_eq!(*of, if is_moved { vec![5] } else { before[id].clone() }, "{id}");
    }
    let expected: Vec<usize> = (0..CAMERAS)
        .map(|n| if moved.contains(&format!("cam{n}")) { 2 } else { 1 })
        .collect();
    assert_eq!(connections(), expected, "who keeps its camera keeps its connection");

    // Shrinking: the others take over, then the last one ends.
    for pod in &pods[..5] {
        pod.reload(&server, &five);
    }
    let last = pods.pop().unwrap();
    last.wait("the others with all cameras", || is_shared_out(&pods));
    assert_eq!(shares(&pods), before);
    let (ended, log) = last.stop();
    assert!(ended.success(), "{log}");
    for pod in pods {
        let (ended, log) = pod.stop();
        assert!(ended.success(), "{log}");
    }
    let mut early = 0;
    for n in 0..CAMERAS {
        let id = format!("cam{n}");
        let stored = chunks(&server, &id);
        assert_eq!(sessions(&stored).len(), if moved.contains(&id) { 3 } else { 1 }, "{id}");
        assert_each_plays(&stored);
        // All started at the same time, but each camera makes its first cut at a moment of its own, so that the chunks are not
        // all uploaded in the same second.
        let first: u64 = sessions(&stored)[0].get("duration-ms").parse().unwrap();
        let due = gcstreamer_recorder::spread::first_cut(&id, Duration::from_secs(2));
        if due < Duration::from_millis(600) {
            early += 1;
            assert!(first < 1900, "{id}: {due:?}, {first} ms");
        }
    }
    assert!(early > 0, "no camera has an early cut");
}
