//! Sixteen cameras that freeze, die, come back with other pictures, forget their sound and talk nonsense, all at once: every picture that
//! was sent is in the bucket, each absence is reported in time, and a camera that sends is never called absent.
//!
//! `CHAOS_SECONDS=600` for ten minutes of it.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "zoo/camera.rs"]
mod camera;
mod common;
#[path = "zoo/media.rs"]
mod media;
#[path = "zoo/repack.rs"]
mod repack;

use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use camera::{Act, Camera, Rude, Then};
use common::gcs_server::GcsServer;
use common::{Recorder, assert_each_plays, chunks, sessions};

const CAMERAS: usize = 16;
/// The camera whose password differs from the recorder's.
const LOCKED: usize = 7;
const STALL: Duration = Duration::from_secs(10);
/// The longest time from the last picture to the report: `stall-timeout`, and a margin for a busy machine.
const REPORTED_WITHIN: Duration = Duration::from_secs(12);
/// A camera that has sent for this long must be recorded: the longest pause, the answer, the jitter buffer and a GOP.
const RECORDED_WITHIN: Duration = Duration::from_secs(10);

/// A number from a seed (SplitMix64).
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

/// What a camera does on its connections, one after the other.
fn script(seed: u64) -> Vec<Act> {
    let mut chance = Chance(seed);
    let mut acts = Vec::new();
    for _ in 0..100 {
        let sends = match chance.below(5) {
            0 => vec!["h264-large"],
            1 => vec!["h264", "aac"],
            2 => vec!["h264", "pcmu"],
            _ => vec!["h264"],
        };
        // One in three announces sound that does not come.
        let announces = match chance.below(3) {
            0 if sends.len() == 1 => vec!["m=audio 0 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\n".to_owned()],
            _ => Vec::new(),
        };
        let then = match chance.below(4) {
            0 => Then::Freeze,
            1 => Then::Vanish,
            2 => Then::Garbage,
            _ => Then::Close,
        };
        acts.push(Act {
            sends,
            announces,
            pictures: Some(75 + chance.below(225)),
            then,
            ..Act::default()
        });
        for _ in 0..chance.below(3) {
            acts.push(match chance.below(4) {
                0 => Act {
                    rude: Some(Rude::Closes),
                    ..Act::default()
                },
                1 => Act {
                    rude: Some(Rude::Garbage),
                    ..Act::default()
                },
                2 => Act {
                    refuses: Some(("DESCRIBE", "404 Not Found")),
                    ..Act::default()
                },
                _ => Act {
                    refuses: Some(("PLAY", "500 Internal Server Error")),
                    sends: vec!["h264"],
                    ..Act::default()
                },
            });
        }
    }
    if seed == LOCKED as u64 {
        acts.iter_mut().for_each(|act| act.wants = Some(("rec", "right-SECRET")));
    }
    acts
}

/// Returns what is wrong with a camera's state at this moment.
fn complaint(state: &str, camera: &Camera) -> Option<String> {
    let (since, last) = *camera.seen.sending.lock().unwrap();
    let since = since.map(|at| at.elapsed());
    let last = last?.elapsed();
    match state {
        "recording" if last > REPORTED_WITHIN => Some(format!("recording, and the last picture was {last:?} ago")),
        "recording" | "connecting" => None,
        _ if last < Duration::from_secs(1) && since.is_some_and(|since| since > RECORDED_WITHIN) => {
            Some(format!("{state}, and it has sent for {since:?}"))
        }
        _ => None,
    }
}

#[test]
fn chaos_loses_no_picture_hides_no_absence_and_invents_none() {
    let seconds = std::env::var("CHAOS_SECONDS").map_or(40, |seconds| seconds.parse().unwrap());
    let server = GcsServer::spawn_thread();
    let cameras: Vec<Camera> = (0..CAMERAS).map(|i| Camera::start(script(i as u64))).collect();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    std::fs::write(folder.path().join("pw"), "wrong-SECRET\n").unwrap();
    let mut configuration = format!(
        "[defaults]\nstall-timeout = \"{}s\"\nmax-size-time = \"5s\"\n",
        STALL.as_secs()
    );
    for (i, camera) in cameras.iter().enumerate() {
        let login = if i == LOCKED {
            "username = \"rec\"\npassword-file = \"pw\"\n"
        } else {
            ""
        };
        writeln!(
            configuration,
            "[[camera]]\nid = \"cam{i}\"\nurl = \"{}\"\n{login}",
            camera.url()
        )
        .unwrap();
    }
    let recorder = Recorder::start_in(folder, &server, &configuration);
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut complaints = Vec::new();
    while Instant::now() < until {
        let (_, status) = recorder.get("/status").unwrap_or((0, "[]".to_owned()));
        let status: Vec<serde_json::Value> = serde_json::from_str(&status).unwrap();
        for camera in &status {
            let i: usize = camera["id"].as_str().unwrap()[3..].parse().unwrap();
            let text = complaint(camera["state"].as_str().unwrap(), &cameras[i]);
            complaints.extend(text.map(|text| format!("cam{i}: {text}: {camera}")));
        }
        std::thread::sleep(Duration::from_millis(250));
    }
    assert_eq!(recorder.state(&format!("cam{LOCKED}")), "refused");
    cameras
        .iter()
        .for_each(|camera| camera.seen.stop.store(true, Ordering::SeqCst));
    // Wait until packets in flight have passed the jitter buffer.
    std::thread::sleep(Duration::from_secs(1));
    let (ended, log) = recorder.stop();
    assert!(ended.success(), "{log}");
    assert!(
        complaints.is_empty(),
        "{}\n{log}",
        complaints[..complaints.len().min(20)].join("\n")
    );
    assert!(!log.contains("SECRET"), "{log}");
    for (i, camera) in cameras.iter().enumerate() {
        let stored = chunks(&server, &format!("cam{i}"));
        let (pictures, _) = assert_each_plays(&stored);
        let sent = camera.seen.pictures.load(Ordering::SeqCst);
        assert_eq!(pictures, sent, "cam{i}: {} sessions\n{log}", sessions(&stored).len());
        assert_eq!(camera.seen.most_open.load(Ordering::SeqCst), 1, "cam{i}: connections at once");
    }
}

#[test]
fn a_recorder_that_is_killed_with_all_cameras_running_loses_no_more_than_was_on_its_way_to_the_disk() {
    let server = GcsServer::spawn_thread();
    let normal = || Act {
        sends: vec!["h264", "aac"],
        ..Act::default()
    };
    let cameras: Vec<Camera> = (0..8).map(|_| Camera::start(vec![normal()])).collect();
    let mut configuration = "spool-dir = \"spool\"\nmax-spool-bytes = 1000000000\n".to_owned();
    for (i, camera) in cameras.iter().enumerate() {
        writeln!(
            configuration,
            "[[camera]]\nid = \"cam{i}\"\nurl = \"{}\"\nmax-size-time = \"3s\"",
            camera.url()
        )
        .unwrap();
    }
    let sent = |camera: &Camera| camera.seen.pictures.load(Ordering::SeqCst);
    let recorder = Recorder::start(&server, &configuration);
    recorder.wait("ten seconds of pictures", || cameras.iter().all(|camera| sent(camera) > 150));
    let before: Vec<u64> = cameras.iter().map(sent).collect();
    let folder = recorder.kill();
    let recorder = Recorder::start_in(folder, &server, &configuration);
    for i in 0..cameras.len() {
        recorder.wait_for(&format!("cam{i}"), "recording");
    }
    // The first session of each is stored whole when its last chunk is; the second one goes on.
    let first_session = |i: usize| {
        let stored = chunks(&server, &format!("cam{i}"));
        let session = stored.first().map(|chunk| chunk.get("session-id").to_owned());
        let first: Vec<_> = stored
            .into_iter()
            .filter(|chunk| Some(chunk.get("session-id").to_owned()) == session)
            .collect();
        assert_each_plays(&first).0
    };
    // In flight: 0.5 s in the jitter buffer, 0.5 s in a fragment, and a margin for a busy machine.
    let on_its_way = 2 * u64::from(media::RATE);
    for (i, before) in before.iter().enumerate() {
        recorder.wait(&format!("cam{i}: what the spool held"), || {
            first_session(i) + on_its_way >= *before
        });
        let stored = chunks(&server, &format!("cam{i}"));
        assert!(
            sessions(&stored)
                .iter()
                .all(|chunk| chunk.get("gap-reason") == "recorder-started"),
            "cam{i}"
        );
    }
    let (ended, log) = recorder.stop();
    assert!(ended.success(), "{log}");
}
