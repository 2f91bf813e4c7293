//! What the documents say of the dashboard is what the program has: flags, their variables, and the defaults of the table.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap()
}

fn help(command: &str) -> String {
    let out = Command::new(env!("CARGO_BIN_EXE_gcstreamer-dashboard"))
        .args([command, "--help"])
        .output()
        .unwrap();
    assert!(out.status.success(), "there is no command {command}");
    String::from_utf8(out.stdout).unwrap()
}

/// The flags in a text.
fn flags(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| word.len() > 2 && word.starts_with("--")).collect()
}

#[test]
fn the_table_of_flags_is_that_of_the_program() {
    let (document, help) = (read("docs/dashboard.md"), help("serve"));
    let table: String = document.lines().filter(|line| line.starts_with("| `--")).collect();
    let mut real = flags(&help);
    real.remove("--help");
    let reported = flags(&table);
    let missing: Vec<_> = real.difference(&reported).collect();
    assert!(missing.is_empty(), "docs/dashboard.md says nothing of {missing:?}");
    // Those of `export` are in a table of their own.
    let of_export = self::help("export");
    let strange: Vec<_> = reported
        .iter()
        .filter(|flag| !help.contains(**flag) && !of_export.contains(**flag))
        .collect();
    assert!(strange.is_empty(), "there is no {strange:?}");
}

#[test]
fn every_command_line_of_the_documents_has_flags_of_the_program() {
    let helps: String = ["serve", "export", "verify", "completions", "man"].map(help).concat();
    let mut lines = 0;
    for name in [
        "README.md",
        "docs/start.md",
        "docs/watch.md",
        "docs/dashboard.md",
        "docs/systemd.md",
        "docs/container.md",
    ] {
        let text = read(name).replace("\\\n", " ");
        for call in text.lines().flat_map(|line| line.split("gcstreamer-dashboard ").skip(1)) {
            lines += 1;
            for flag in flags(call.split('#').next().unwrap()) {
                assert!(helps.contains(flag), "{name}: there is no {flag}: {call}");
            }
        }
    }
    assert!(lines > 5, "{lines}");
}

#[test]
fn every_variable_of_documents_and_deployments_is_one_of_a_flag() {
    // Said of all of them by their beginning, and of IAP in tests alone.
    let but = ["GCSTREAMER_DASHBOARD_", "GCSTREAMER_DASHBOARD_IAP_KEYS"];
    let help = help("serve");
    for name in [
        "docs/dashboard.md",
        "docs/container.md",
        "deploy/systemd/gcstreamer-dashboard.default",
        "deploy/container/Containerfile",
        "deploy/kubernetes/overlays/dashboard/dashboard.yaml",
    ] {
        let text = read(name);
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        for variable in words.filter(|word| word.starts_with("GCSTREAMER_DASHBOARD_") && !but.contains(word)) {
            assert!(help.contains(&format!("{variable}=")), "{name}: {variable}");
        }
    }
}
