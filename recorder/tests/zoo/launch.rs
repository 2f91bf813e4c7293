//! What plain `gst-launch-1.0` makes of each camera of the zoo: the first column of docs/zoo.md.

use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::camera::{Act, Camera};
use super::common::gcs_server::GcsServer;
use super::common::{BUCKET, chunks, decode};
use super::list::{Expected, Sound, zoo};

/// Time that each camera has: the first fault comes after three seconds, and a camera is back soon after.
const WATCHED: Duration = Duration::from_secs(20);
/// Ctrl-C with `-e` has this long to end the line.
const PATIENCE: Duration = Duration::from_secs(20);
/// Lines at once.
const AT_ONCE: usize = 13;

/// What somebody writes for a camera after a look at its SDP.
fn line(id: &str, more: &str, act: &Act, camera: &Camera, server: &GcsServer) -> String {
    let codec = match act.sends.first() {
        Some(name) if name.starts_with("h265") => "h265",
        _ => "h264",
    };
    let sound = act.sends.get(1).copied().filter(|_| !more.contains("audio = \"off\""));
    // As docs/sources.md has them: FLV for H.264, unless it cannot hold the sound.
    let muxer = match (more, sound) {
        (more, _) if more.contains("mpegts") => "mpegtsmux",
        (more, _) if more.contains("matroska") => "matroskamux streamable=true",
        (_, Some("opus" | "l16")) => "matroskamux streamable=true",
        _ if codec == "h265" => "mp4mux fragment-duration=1000",
        _ => "flvmux streamable=true",
    };
    let parser = match muxer {
        "mpegtsmux" => format!("video/x-{codec},alignment=au ! {codec}parse config-interval=-1"),
        _ => format!("{codec}parse"),
    };
    let sound = match sound {
        Some("aac") => "rtpmp4gdepay ! aacparse",
        Some("latm") => "rtpmp4adepay ! aacparse",
        Some("opus") => "rtpopusdepay ! opusparse",
        Some("pcma") => "rtppcmadepay",
        Some("pcmu") => "rtppcmudepay",
        Some("l16") => "rtpL16depay ! audioconvert",
        _ => "",
    };
    let login = match more {
        more if more.contains("good.pw") => " user-id=rec user-pw=hunter2-SECRET",
        more if more.contains("bad.pw") => " user-id=rec user-pw=wrong-SECRET",
        _ => "",
    };
    let mut line = format!(
        "-e rtspsrc name=camera protocols=tcp latency=200 location={}{login} ! rtp{codec}depay ! {parser} ! {muxer} name=mux ! \
         gcssink bucket={BUCKET} device-id=zoo/{id} endpoint-uri={} max-size-time=3000000000",
        camera.url(),
        server.endpoint()
    );
    if !sound.is_empty() {
        let _ = write!(line, " camera. ! {sound} ! mux.");
    }
    line
}

fn launch(line: &str) -> Child {
    let programs = std::path::Path::new(env!("CARGO_BIN_EXE_gcstreamer-recorder"))
        .parent()
        .unwrap();
    Command::new("gst-launch-1.0")
        .args(line.split(' '))
        .env("GST_PLUGIN_PATH", programs)
        .env_remove("G_DEBUG")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// How a line ended: by itself before Ctrl-C, behind it, or not at all.
fn end(mut child: Child) -> String {
    let status = |status: std::process::ExitStatus| {
        status
            .code()
            .map_or_else(|| "by a signal".to_owned(), |code| format!("with status {code}"))
    };
    if let Some(ended) = child.try_wait().unwrap() {
        return format!("ends {}", status(ended));
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(&child), rustix::process::Signal::INT).unwrap();
    let until = Instant::now() + PATIENCE;
    while Instant::now() < until {
        if child.try_wait().unwrap().is_some() {
            return String::new();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    "does not end at Ctrl-C".to_owned()
}

/// What is in the bucket, in words.
fn verdict(server: &GcsServer, id: &str, acts: usize, wants_sound: bool, camera: &Camera, ending: &str) -> String {
    let chunks = chunks(server, &format!("zoo/{id}"));
    let sent = camera.seen.pictures.load(Ordering::SeqCst);
    let (mut pictures, mut packets) = (0, 0);
    let (mut refused, mut disordered, mut together) = (0, 0, 0);
    for chunk in &chunks {
        let decoded = decode(chunk);
        pictures += decoded.shown.len() as u64;
        packets += decoded.sound;
        refused += usize::from(!decoded.said.is_empty() || chunk.get("key-frame") != "true");
        if !decoded.said.is_empty() {
            println!(
                "{id}, sequence {} of {}: {}",
                chunk.sequence(),
                chunks.len(),
                decoded.said.trim()
            );
        }
        disordered += usize::from(!decoded.shown.is_sorted());
        together += usize::from(decoded.shown.is_sorted() && !decoded.shown.is_sorted_by(|a, b| a < b));
    }
    let has_come_back = camera.seen.connections.load(Ordering::SeqCst) >= acts;
    let mut words = match pictures {
        0 => "nothing".to_owned(),
        _ if acts > 1 && !has_come_back => "up to the fault, then nothing".to_owned(),
        _ if pictures == sent => "all pictures".to_owned(),
        _ => format!("{pictures} of {sent} pictures"),
    };
    for (number, what) in [
        (refused, "do not play alone"),
        (disordered, "have pictures in a wrong order"),
        (together, "have pictures of one time"),
    ] {
        if number > 0 {
            let _ = write!(words, "; {number} of {} chunks {what}", chunks.len());
        }
    }
    if wants_sound && packets == 0 && pictures > 0 {
        words.push_str("; no sound");
    }
    if !ending.is_empty() {
        let _ = write!(words, "; {ending}");
    }
    words
}

/// What the recorder makes of it, as the tests of the zoo demand.
fn of_recorder(expected: Expected) -> String {
    match expected {
        Expected::Recorded(reasons, sound) => {
            let sound = if sound == Sound::Some { ", with sound" } else { "" };
            match reasons.split_first() {
                Some((_, again)) if !again.is_empty() => format!("all pictures{sound}; begins again as `{}`", again.join("`, `")),
                _ => format!("all pictures{sound}"),
            }
        }
        Expected::Fault(state, words) | Expected::OneAttempt(state, words) => {
            let words = if words.is_empty() {
                String::new()
            } else {
                format!(" (\"{words}\")")
            };
            let once = if matches!(expected, Expected::OneAttempt(..)) {
                "; one attempt"
            } else {
                ""
            };
            format!("says `{state}`{words}{once}")
        }
    }
}

/// Measures all cameras and prints the table; `ZOO_TABLE=FILE` writes it there. Run by hand: it takes three minutes, and what it finds is
/// GStreamer's.
#[test]
#[ignore = "writes the table of docs/zoo.md: ZOO_TABLE=FILE cargo test -p gcstreamer-recorder --test zoo -- --ignored plain_gst_launch"]
fn plain_gst_launch_on_each_camera_of_the_zoo() {
    let server = GcsServer::spawn_thread();
    let mut zoo = zoo();
    if let Ok(only) = std::env::var("ZOO") {
        zoo.retain(|(id, ..)| only.split(',').any(|wanted| wanted == *id));
    }
    let mut rows = Vec::new();
    for group in zoo.chunks(AT_ONCE) {
        let running: Vec<_> = group
            .iter()
            .map(|(id, more, script, expected)| {
                let camera = Camera::start(script.clone());
                let child = launch(&line(id, more, &script[0], &camera, &server));
                (id, script, *expected, camera, child)
            })
            .collect();
        std::thread::sleep(WATCHED);
        running
            .iter()
            .for_each(|(.., camera, _)| camera.seen.stop.store(true, Ordering::SeqCst));
        // What is on its way passes the jitter buffer.
        std::thread::sleep(Duration::from_secs(1));
        let ended: Vec<_> = running
            .into_iter()
            .map(|(id, script, expected, camera, child)| (id, script, expected, camera, end(child)))
            .collect();
        for (id, script, expected, camera, ending) in ended {
            let wants_sound = matches!(expected, Expected::Recorded(_, Sound::Some));
            let found = verdict(&server, id, script.len(), wants_sound, &camera, &ending);
            let row = format!("| {id} | {found} | {} |", of_recorder(expected));
            println!("{row}");
            rows.push((id.to_string(), row));
        }
    }
    rows.sort();
    let rows: Vec<String> = rows.into_iter().map(|(_, row)| row).collect();
    let table = format!(
        "| camera | plain `gst-launch-1.0` | recorder |\n|---|---|---|\n{}\n",
        rows.join("\n")
    );
    println!("{table}");
    if let Ok(file) = std::env::var("ZOO_TABLE") {
        std::fs::write(file, table).unwrap();
    }
}
