//! What the documents say of the recorder is what the program has: commands, flags, files, metrics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_gcstreamer-recorder"))
}

/// Every document with its text.
fn documents() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for folder in ["", "docs", "examples"] {
        for entry in std::fs::read_dir(root().join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "md") && !path.ends_with("CHANGELOG.md") {
                let name = path.file_name().unwrap().to_str().unwrap().to_owned();
                found.push((name, std::fs::read_to_string(path).unwrap()));
            }
        }
    }
    assert!(found.len() > 15);
    found
}

fn help(command: &str) -> String {
    let out = program().args([command, "--help"]).output().unwrap();
    assert!(out.status.success(), "there is no command {command}");
    String::from_utf8(out.stdout).unwrap()
}

fn words(text: &str, of_a_word: impl Fn(char) -> bool) -> impl Iterator<Item = &str> {
    text.split(move |c| !of_a_word(c)).filter(|word| !word.is_empty())
}

#[test]
fn every_command_line_of_the_documents_has_a_command_and_flags_of_the_program() {
    let commands = ["run", "check", "probe", "healthcheck", "completions", "man"];
    let helps: Vec<(&str, String)> = commands.iter().map(|command| (*command, help(command))).collect();
    let mut lines = 0;
    for (name, text) in documents() {
        for call in text.lines().flat_map(|line| line.split("gcstreamer-recorder ").skip(1)) {
            let Some(command) = call.split([' ', '`']).next().filter(|word| commands.contains(word)) else {
                continue;
            };
            lines += 1;
            let call = call.split(['`', '#', '|']).next().unwrap();
            let help = &helps.iter().find(|(other, _)| *other == command).unwrap().1;
            for flag in words(call, |c| c.is_ascii_alphanumeric() || c == '-').filter(|word| word.starts_with("--")) {
                assert!(help.contains(flag), "{name}: `{command}` has no {flag}: {call}");
            }
        }
    }
    assert!(lines > 10, "{lines}");
    for flag in words(&help("probe"), |c| c.is_ascii_alphanumeric() || c == '-').filter(|word| word.starts_with("--")) {
        let document = std::fs::read_to_string(root().join("docs/recorder.md")).unwrap();
        assert!(
            flag == "--help" || document.contains(flag),
            "docs/recorder.md says nothing of {flag}"
        );
    }
}

#[test]
fn every_metric_of_the_documents_is_one_of_the_program_and_the_other_way_round() {
    let source = std::fs::read_to_string(root().join("recorder/src/metrics.rs")).unwrap();
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let names = |text: &str| -> BTreeSet<String> {
        let all = words(text, is_name).filter(|word| {
            ["gcstreamer_camera_", "gcstreamer_up", "gcstreamer_sp", "gcstreamer_st"]
                .iter()
                .any(|begin| word.starts_with(begin))
        });
        all.map(|word| word.trim_end_matches("_total").to_owned()).collect()
    };
    let real = names(&source);
    for (name, text) in documents() {
        let strange: Vec<String> = names(&text).difference(&real).cloned().collect();
        assert!(strange.is_empty(), "{name}: {strange:?}");
    }
    let document = std::fs::read_to_string(root().join("docs/recorder.md")).unwrap();
    assert_eq!(names(&document), real);
}

/// Of a fenced block of this language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let begin = format!("```{language}\n");
    text.split(begin.as_str())
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap().to_owned())
        .collect()
}

#[test]
fn every_configuration_of_documents_and_manifests_passes_check() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let there = folder.path().to_str().unwrap();
    let mut files: Vec<(String, String)> = Vec::new();
    for (name, text) in documents() {
        files.extend(blocks(&text, "toml").into_iter().map(|block| (name.clone(), block)));
    }
    for name in [
        "deploy/kubernetes/overlays/one-camera/recorder.toml",
        "deploy/kubernetes/overlays/fleet/recorder.toml",
        "deploy/systemd/recorder.toml",
    ] {
        files.push((name.to_owned(), std::fs::read_to_string(root().join(name)).unwrap()));
    }
    let mut checked = 0;
    for (name, text) in files {
        if !text.contains("[[camera]]") {
            continue;
        }
        // What it names is there.
        for word in text.split('"').filter(|word| word.ends_with(".pw")) {
            let file = folder.path().join(word);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, "hunter2\n").unwrap();
        }
        let file = folder.path().join("recorder.toml");
        std::fs::write(&file, text.replace("/var/lib/gcstreamer", there)).unwrap();
        let out = program().arg("check").arg(&file).output().unwrap();
        assert!(out.status.success(), "{name}: {}", String::from_utf8_lossy(&out.stderr));
        checked += 1;
    }
    assert!(checked >= 4, "{checked}");
}
