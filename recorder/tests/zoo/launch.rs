//! Records each camera of the zoo with plain `gst-launch-1.0`: the first column of docs/zoo.md.

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
/// How long a line may take to end after Ctrl-C with `-e`.
const PATIENCE: Duration = Duration::from_secs(20);
/// Lines at once.
const AT_ONCE: usize = 13;

/// Returns the line that a user would write after reading the SDP of a camera.
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

/// Sends Ctrl-C. Returns how the line had ended by itself before that, if it had.
fn interrupt(child: &mut Child) -> Option<String> {
    if let Some(status) = child.try_wait().unwrap() {
        let how = status.code().map(|code| format!("ends with status {code}"));
        return Some(how.unwrap_or_else(|| "ends by a signal".to_owned()));
    }
    rustix::process::kill_process(rustix::process::Pid::from_child(child), rustix::process::Signal::INT).unwrap();
    None
}

/// Returns how a line ended after Ctrl-C; it may take until then.
fn wait(child: &mut Child, until: Instant) -> String {
    loop {
        if child.try_wait().unwrap().is_some() {
            return String::new();
        }
        if Instant::now() >= until {
            child.kill().unwrap();
            child.wait().unwrap();
            return "does not end at Ctrl-C".to_owned();
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Describes what is in the bucket. Prints the errors of decoders.
#[expect(clippy::print_stdout, reason = "a tool that is run by hand")]
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
            println!("{}: {} {:?}", chunk.name, decoded.said.trim(), chunk.metadata);
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
        (refused, "that do not play alone"),
        (disordered, "with pictures in a wrong order"),
        (together, "with pictures of one time"),
    ] {
        if number > 0 {
            let _ = write!(words, "; chunks {what}: {number} of {}", chunks.len());
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
            let sound = if sound != Sound::None { ", with sound" } else { "" };
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
        let mut running: Vec<_> = group
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
        // Wait until packets in flight have passed the jitter buffer.
        std::thread::sleep(Duration::from_secs(1));
        let by_themselves: Vec<_> = running.iter_mut().map(|(.., child)| interrupt(child)).collect();
        let until = Instant::now() + PATIENCE;
        let ended: Vec<_> = running
            .into_iter()
            .zip(by_themselves)
            .map(|((id, script, expected, camera, mut child), how)| {
                let ending = how.unwrap_or_else(|| wait(&mut child, until));
                (id, script, expected, camera, ending)
            })
            .collect();
        for (id, script, expected, camera, ending) in ended {
            let wants_sound = matches!(expected, Expected::Recorded(_, Sound::Some | Sound::ToTheEnd));
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
