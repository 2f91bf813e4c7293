//! Real `gst-launch-1.0` processes with the plugin as cargo has just built it.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

/// A folder with the plugin and nothing else: where cargo puts it for tests, GStreamer would find other libraries too.
pub fn plugin_dir() -> PathBuf {
    let built = std::env::current_exe().unwrap().with_file_name("libgstgcstreamer.so");
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("plugin-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let plugin = folder.join("libgstgcstreamer.so");
    if !plugin.exists() {
        // Tests of one process run side by side: whole or not at all.
        let part = folder.join(format!("{:?}.part", std::thread::current().id()));
        // A second name for the file where the file system can: it is large, and every test process wants one.
        std::fs::hard_link(&built, &part)
            .or_else(|_| std::fs::copy(&built, &part).map(drop))
            .unwrap_or_else(|e| panic!("{}: {e}", built.display()));
        std::fs::rename(&part, &plugin).unwrap();
    }
    folder
}

/// Starts `gst-launch-1.0` with these words.
pub fn launch(words: &str, environment: &[(&str, &str)]) -> Child {
    launch_under(&[], words, environment)
}

/// Starts it as the command of another program, a tracer.
pub fn launch_under(tracer: &[&str], words: &str, environment: &[(&str, &str)]) -> Child {
    let registry = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("registry-{}.bin", std::process::id()));
    let command: Vec<&str> = tracer.iter().copied().chain(["gst-launch-1.0"]).collect();
    Command::new(command[0])
        .args(&command[1..])
        .args(words.split_whitespace())
        .env("GST_PLUGIN_PATH", plugin_dir())
        .env("GST_REGISTRY", registry)
        .env("G_DEBUG", "fatal-criticals")
        .env_remove("STORAGE_EMULATOR_HOST")
        .envs(environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// The ERRORs that a line of `gst-launch-1.0` printed, but for the one of `docs/troubleshooting.md` that says nothing of the
/// recording: on the way to NULL the PAUSE and the CLOSE of `rtspsrc` race, whatever the sink is.
pub fn errors(said: &str) -> Vec<&str> {
    let reported = said.split("ERROR: ").skip(1);
    reported
        .filter(|e| !(e.contains("GstRTSPSrc") && e.contains("Could not send message.")))
        .collect()
}

/// Whether it ended as it should: with status 0, or with the 1 that comes of that race alone.
pub fn ended_well(status: ExitStatus, said: &str) -> bool {
    status.success() || (status.code() == Some(1) && said.contains("Could not send message.") && errors(said).is_empty())
}
