//! Every line of `docs/sources.md` records: taken from the document, run against a real peer, judged by ffprobe.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/mosquitto.rs"]
mod mosquitto;
#[path = "common/process.rs"]
mod process;
#[path = "common/sources/mod.rs"]
mod sources;

use std::path::{Path, PathBuf};

use mosquitto::Mosquitto;
use sources::Run;
use sources::document::{blocks, blocks_for};
use sources::peers::{self, Peer};

/// Recorded until there are chunks from first to last, ended by Ctrl-C.
fn record_and_interrupt(mut run: Run) {
    run.wait_for_chunks(3);
    run.interrupt();
    run.judge();
}

fn camera_words(path: &str, port: u16) -> [(&'static str, String); 1] {
    [("rtsp://CAMERA/stream", format!("rtsp://127.0.0.1:{port}/{path}"))]
}

/// All lines for these cameras; those for one camera at the same time, as a camera serves several clients.
fn cameras(kinds: &[&str]) {
    let (_camera, port) = Peer::cameras();
    let folder = peers::folder();
    for kind in kinds {
        let mut runs: Vec<Run> = Vec::new();
        for block in blocks_for(|peer| peer.strip_prefix("camera/") == Some(kind)) {
            runs.push(Run::start(&block, folder.path(), &camera_words(kind, port)));
        }
        runs.iter_mut().for_each(|run| run.wait_for_chunks(3));
        runs.iter().for_each(Run::interrupt);
        runs.into_iter().for_each(Run::judge);
    }
}

#[test]
fn every_camera_of_the_table_has_its_lines() {
    for video in ["h264", "h265"] {
        for audio in ["none", "aac", "pcma"] {
            let kind = format!("camera/{video}-{audio}");
            let mut containers: Vec<String> = blocks_for(|p| p == kind).into_iter().map(|b| b.container).collect();
            containers.sort();
            containers.dedup();
            let wanted: &[&str] = if video == "h264" {
                &["flv", "fmp4", "matroska", "mpegts"]
            } else {
                &["fmp4", "matroska", "mpegts"]
            };
            assert_eq!(containers, wanted, "{kind}");
        }
    }
}

#[test]
fn no_peer_of_the_document_is_unknown_here() {
    const PEERS: [&str; 11] = [
        "mqtt",
        "pipe",
        "rtp",
        "udp",
        "hls",
        "rtmp",
        "whip",
        "whep",
        "webcam",
        "webcam-jpeg",
        "file",
    ];
    for block in blocks() {
        let known = block.peer.starts_with("camera/") || PEERS.contains(&block.peer.as_str());
        assert!(known, "docs/sources.md:{}: {} is run by nobody", block.line, block.peer);
    }
}

#[test]
fn an_h264_camera_is_recorded_with_and_without_sound() {
    cameras(&["h264-none", "h264-aac", "h264-pcma"]);
}

#[test]
fn an_h265_camera_is_recorded_with_and_without_sound() {
    cameras(&["h265-none", "h265-aac", "h265-pcma"]);
}

#[test]
fn a_line_without_sound_suits_a_camera_that_has_some_and_udp_needs_one_word_less() {
    let (_camera, port) = Peer::cameras();
    let folder = peers::folder();
    let lines = blocks_for(|p| p == "camera/h264-none");
    let block = lines.iter().find(|b| b.container == "mpegts").unwrap();
    record_and_interrupt(Run::start(block, folder.path(), &camera_words("h264-aac", port)));
    let [camera] = camera_words("h264-none", port);
    let words = [camera, (" protocols=tcp", String::new())];
    record_and_interrupt(Run::start(block, folder.path(), &words));
}

/// The lines for A-law, with what the document says to write for µ-law.
fn mu_law(video: &str) {
    let (_camera, port) = Peer::cameras();
    let folder = peers::folder();
    let mut runs = Vec::new();
    for mut block in blocks_for(|p| p == format!("camera/{video}-pcma")) {
        block.codecs.iter_mut().for_each(|c| *c = c.replace("pcm_alaw", "pcm_mulaw"));
        block.script = block.script.replace("alawdec", "mulawdec");
        let [camera] = camera_words(&format!("{video}-pcmu"), port);
        let words = [camera, ("rtppcmadepay", "rtppcmudepay".to_owned())];
        runs.push(Run::start(&block, folder.path(), &words));
    }
    runs.iter_mut().for_each(|run| run.wait_for_chunks(3));
    runs.iter().for_each(Run::interrupt);
    runs.into_iter().for_each(Run::judge);
}

#[test]
fn mu_law_beside_h264_is_recorded_by_the_two_words_that_the_document_names() {
    mu_law("h264");
}

#[test]
fn mu_law_beside_h265_is_recorded_by_the_two_words_that_the_document_names() {
    mu_law("h265");
}

#[test]
fn the_state_of_the_camera_is_reported_to_a_broker_beside_the_recording() {
    let (_camera, port) = Peer::cameras();
    let folder = peers::folder();
    let broker = Mosquitto::start();
    let watcher = broker.watch(&["gcstreamer/#"], None);
    let wait_for = |state: &str| watcher.wait_last("gcstreamer/cam1/state", state, peers::PATIENCE);
    for block in blocks_for(|p| p == "mqtt") {
        let [camera] = camera_words("h264-none", port);
        let words = [camera, ("host=BROKER", format!("host=127.0.0.1 port={}", broker.port()))];
        let mut run = Run::start(&block, folder.path(), &words);
        run.wait_for_chunks(3);
        wait_for("connected");
        run.interrupt();
        run.judge();
        wait_for("disconnected");
    }
}

#[test]
fn rtp_and_transport_streams_in_udp_are_recorded() {
    let folder = peers::folder();
    for block in blocks_for(|p| p == "rtp" || p == "udp") {
        let port = peers::free_udp_port();
        let run = Run::start(&block, folder.path(), &[("port=5004", format!("port={port}"))]);
        peers::wait_for_udp_port(port);
        let _sender = if block.peer == "rtp" {
            Peer::rtp(port)
        } else {
            Peer::udp(port)
        };
        record_and_interrupt(run);
    }
}

#[test]
fn a_live_hls_playlist_is_recorded() {
    let (folder, site) = (peers::folder(), peers::folder());
    let (_server, port) = Peer::hls(site.path());
    for block in blocks_for(|p| p == "hls") {
        record_and_interrupt(Run::start(
            &block,
            folder.path(),
            &[("//HOST/", format!("//127.0.0.1:{port}/"))],
        ));
    }
}

/// The server that `scripts/setup` unpacks, where `scripts/test` says it is.
#[test]
fn rtmp_is_recorded() {
    let Some(root) = std::env::var_os("NGINX_RTMP")
        .filter(|path| !path.is_empty())
        .map(PathBuf::from)
    else {
        let why = "NGINX_RTMP does not name the folder where scripts/setup has unpacked nginx with its rtmp module";
        assert!(std::env::var_os("CI").is_none(), "the line for RTMP is run by nobody: {why}");
        eprintln!("skipped: {why}; scripts/test does it");
        return;
    };
    let (folder, place) = (peers::folder(), peers::folder());
    let (_server, port) = Peer::rtmp(&root, place.path());
    for block in blocks_for(|p| p == "rtmp") {
        record_and_interrupt(Run::start(
            &block,
            folder.path(),
            &[("//HOST/", format!("//127.0.0.1:{port}/"))],
        ));
    }
}

fn webrtc_script() -> (&'static str, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/webrtc.py");
    ("examples/webrtc.py", script.display().to_string())
}

#[test]
fn a_whip_sender_is_recorded() {
    let folder = peers::folder();
    for block in blocks_for(|p| p == "whip") {
        let port = peers::free_tcp_port();
        let run = Run::start(
            &block,
            folder.path(),
            &[webrtc_script(), ("whip 8080", format!("whip {port}"))],
        );
        let _sender = Peer::whip(port);
        record_and_interrupt(run);
    }
}

#[test]
fn a_whep_server_is_recorded() {
    let folder = peers::folder();
    for block in blocks_for(|p| p == "whep") {
        let (_server, port) = Peer::whep();
        let words = [webrtc_script(), ("//HOST/", format!("//127.0.0.1:{port}/"))];
        record_and_interrupt(Run::start(&block, folder.path(), &words));
    }
}

#[test]
fn a_webcam_is_recorded() {
    let folder = peers::folder();
    for block in blocks_for(|p| p.starts_with("webcam")) {
        let size = "video/x-raw,width=320,height=240,framerate=15/1";
        let camera = match block.peer.as_str() {
            "webcam" => format!("videotestsrc is-live=true ! {size}"),
            _ => format!("videotestsrc is-live=true ! {size} ! jpegenc"),
        };
        // The camera of the test has 15 pictures a second; the printed 60 are two seconds at 30.
        let words = [
            ("v4l2src device=/dev/video0", camera),
            ("key-int-max=60", "key-int-max=15".to_owned()),
        ];
        record_and_interrupt(Run::start(&block, folder.path(), &words));
    }
}

#[test]
fn what_another_program_writes_is_recorded_from_a_named_pipe_and_from_standard_input() {
    let (_camera, port) = Peer::cameras();
    let folder = peers::folder();
    for block in blocks_for(|p| p == "pipe") {
        record_and_interrupt(Run::start(&block, folder.path(), &camera_words("h264-aac", port)));
    }
}

#[test]
fn files_are_stored_to_their_end() {
    let folder = peers::folder();
    peers::file(&folder.path().join("recording.ts"));
    peers::file(&folder.path().join("film.mp4"));
    for block in blocks_for(|p| p == "file") {
        Run::start(&block, folder.path(), &[]).judge();
    }
}
