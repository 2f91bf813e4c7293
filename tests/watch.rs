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
use common::{BUCKET, assert_each_plays, chunks, h264};
use printed::printed_blocks;

fn run(block: &str, folder: &Path) {
    let output = Command::new("bash")
        .args(["-euc", block])
        .current_dir(folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{block}\n{said}");
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

#[test]
fn the_chunks_of_each_container_play_as_one_file() {
    let [cat, copy, mp4] = &printed_blocks("docs/watch.md")[..] else {
        panic!("docs/watch.md has other blocks: {:?}", printed_blocks("docs/watch.md"));
    };
    for (mux, join) in [
        ("mpegtsmux", cat),
        ("flvmux streamable=true", copy),
        ("mp4mux fragment-duration=1000", copy),
        ("matroskamux streamable=true", copy),
    ] {
        let server = GcsServer::spawn_thread();
        let line = format!(
            "{} ! {mux} ! gcssink bucket={BUCKET} device-id=cam1 max-size-time=2000000000",
            h264(8)
        );
        let output = process::launch(&line, &[("STORAGE_EMULATOR_HOST", &server.endpoint())])
            .wait_with_output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let stored = chunks(&server);
        assert!(stored.len() >= 3, "{mux}");
        let pictures = assert_each_plays(&stored);
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("chunks")).unwrap();
        for chunk in &stored {
            let name = chunk.name.rsplit('/').next().unwrap();
            std::fs::write(folder.path().join("chunks").join(name), &chunk.data).unwrap();
        }
        run(join, folder.path());
        run(mp4, folder.path());
        for file in ["hour.ts", "hour.mp4"] {
            let times = times(&folder.path().join(file));
            assert_eq!(times.len() as u64, pictures, "{mux}, {file}");
            let steps = times.windows(2).map(|pair| pair[1] - pair[0]);
            assert!(
                steps.clone().all(|step| (0.0..0.5).contains(&step)),
                "{mux}, {file}: {times:?}"
            );
        }
    }
}
