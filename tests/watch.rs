//! `docs/watch.md`: chunks that were copied out of the bucket play as one file, by the commands that are printed there.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/printed.rs"]
mod printed;
#[path = "common/process.rs"]
mod process;

use std::path::Path;
use std::process::Command;

use common::gcs_server::GcsServer;
use common::{BUCKET, assert_each_plays, chunks, h264, video};
use printed::printed_blocks;

/// Runs a block as it is printed: whether it succeeds, and what it says.
fn run(block: &str, folder: &Path) -> (bool, String) {
    let output = Command::new("bash")
        .args(["-euc", block])
        .current_dir(folder)
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The times of all pictures that decode, in seconds.
fn times(file: &Path) -> Vec<f64> {
    let output = Command::new("ffprobe")
        .args("-v error -select_streams v:0 -show_entries frame=pts_time -of csv=p=0".split(' '))
        .arg(file)
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines()
        .filter_map(|line| line.trim_end_matches(',').parse().ok())
        .collect()
}

/// The chunks of a recording of eight seconds, and how many pictures they have.
fn recorded(line: &str) -> (tempfile::TempDir, usize) {
    let server = GcsServer::spawn_thread();
    let line = format!("{line} ! gcssink bucket={BUCKET} device-id=cam1 max-size-time=2000000000");
    let output = process::launch(&line, &[("STORAGE_EMULATOR_HOST", &server.endpoint())])
        .wait_with_output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let stored = chunks(&server);
    assert!(stored.len() >= 3, "{line}");
    let pictures = assert_each_plays(&stored);
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("chunks")).unwrap();
    for chunk in &stored {
        let name = chunk.name.rsplit('/').next().unwrap();
        std::fs::write(folder.path().join("chunks").join(name), &chunk.data).unwrap();
    }
    (folder, usize::try_from(pictures).unwrap())
}

fn coded(encoder: &str, mux: &str) -> String {
    format!("{} ! {encoder} ! {mux}", video(8))
}

const VP8: &str = "vp8enc deadline=1 cpu-used=8 keyframe-max-dist=15";
const VP9: &str = "vp9enc deadline=1 cpu-used=8 keyframe-max-dist=15 ! vp9parse";
const AV1: &str = "av1enc usage-profile=realtime cpu-used=8 keyframe-max-dist=15 ! av1parse";
const FRAGMENTS: &str = "mp4mux fragment-duration=1000";

/// The printed blocks, each by the film that it writes.
struct Blocks {
    cat: String,
    by_ts: String,
    ts_as_mp4: String,
    by_list: String,
    mkv_as_mp4: String,
    one_header: String,
}

fn blocks() -> Blocks {
    let printed = printed_blocks("docs/watch.md");
    let Ok([cat, by_ts, ts_as_mp4, by_list, mkv_as_mp4, one_header]) = <[String; 6]>::try_from(printed) else {
        panic!("docs/watch.md has other blocks: {:?}", printed_blocks("docs/watch.md"));
    };
    Blocks {
        cat,
        by_ts,
        ts_as_mp4,
        by_list,
        mkv_as_mp4,
        one_header,
    }
}

#[test]
fn the_chunks_of_each_container_play_as_one_file() {
    let printed = blocks();
    let h264 = |mux: &str| format!("{} ! {mux}", h264(8));
    let with_sound = |codec: &str| {
        let sound = "audiotestsrc num-buffers=400 samplesperbuffer=960 ! audio/x-raw,rate=48000,channels=1 ! opusenc ! mux.";
        format!("{sound} {}", coded(codec, "mux. webmmux streamable=true name=mux"))
    };
    let (by_ts, by_list) = ([&printed.by_ts, &printed.ts_as_mp4], [&printed.by_list, &printed.mkv_as_mp4]);
    let (ts, mkv) = (&["hour.ts", "hour.mp4"][..], &["hour.mkv", "hour.mp4"][..]);
    for (line, blocks, films) in [
        (h264("mpegtsmux"), &[&printed.cat, &printed.ts_as_mp4][..], ts),
        (h264("flvmux streamable=true"), &by_ts, ts),
        (h264(FRAGMENTS), &by_ts, ts),
        (h264("matroskamux streamable=true"), &by_ts, ts),
        (coded(AV1, "matroskamux streamable=true"), &by_list, mkv),
        (with_sound(VP9), &by_list, mkv),
        // MP4 as ffmpeg writes it has no VP8.
        (with_sound(VP8), &by_list[..1], &mkv[..1]),
        (coded(VP9, FRAGMENTS), &[&printed.one_header], &["hour.mp4"]),
        (coded(AV1, FRAGMENTS), &[&printed.one_header], &["hour.mp4"]),
    ] {
        let (folder, pictures) = recorded(&line);
        for block in blocks {
            let (is_whole, said) = run(block, folder.path());
            assert!(is_whole, "{line}\n{block}\n{said}");
        }
        for film in films {
            let times = times(&folder.path().join(film));
            assert_eq!(times.len(), pictures, "{line}, {film}");
            let steps = times.windows(2).map(|pair| pair[1] - pair[0]);
            assert!(
                steps.clone().all(|step| (0.0..0.5).contains(&step)),
                "{line}, {film}: {times:?}"
            );
        }
    }
}

#[test]
fn a_film_without_pictures_is_reported() {
    let printed = blocks();
    let (webm, _) = recorded(&coded(VP9, "webmmux streamable=true"));
    let (mp4, _) = recorded(&coded(VP9, FRAGMENTS));
    let says = |block: &str, folder: &Path, word: &str| {
        let (is_whole, said) = run(block, folder);
        assert!(!is_whole && said.contains(word), "{block}\n{said}");
    };
    says(
        &printed.by_ts,
        webm.path(),
        "hour.ts has no pictures: no FLV, MP4 or MKV is in chunks",
    );
    says(&printed.by_ts, mp4.path(), "MPEG-TS does not take what is in them (AV1, VP9)");
    says(&printed.by_list, mp4.path(), "no WebM or MKV is in chunks");
    says(
        &printed.one_header,
        webm.path(),
        "hour.mp4 has no pictures: no MP4 is in chunks",
    );
}
