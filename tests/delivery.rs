//! What is delivered besides the binaries: systemd units and Debian packages.
//!
//! Whole runs take minutes and root: `scripts/test-packages` boots a bare Debian with the packages and records there,
//! `scripts/test-container` builds and runs the images.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[path = "common/checkout.rs"]
mod checkout;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use checkout::{read, root, text};

use gst::prelude::*;

/// Our deadlines at the end, which systemd and Kubernetes must not cut short: `drain-timeout` and `shutdown-timeout`.
const DEADLINES: u64 = 30 + 5;

/// Whether a command is on this system: what needs it is reported and left out.
fn is_here(command: &str) -> bool {
    let found = Command::new("sh")
        .args(["-c", &format!("command -v {command}")])
        .output()
        .unwrap();
    if !found.status.success() {
        eprintln!("skipped: {command} is not installed");
    }
    found.status.success()
}

fn units() -> Vec<PathBuf> {
    let mut units: Vec<PathBuf> = std::fs::read_dir(root().join("deploy/systemd"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "service"))
        .collect();
    units.sort();
    assert_eq!(units.len(), 3);
    units
}

#[test]
fn systemd_understands_every_line_of_the_units() {
    if !is_here("systemd-analyze") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let mut copies = Vec::new();
    for unit in units() {
        // The programs are not installed on the machine that tests.
        let text = std::fs::read_to_string(&unit).unwrap();
        let lines = text.lines().map(|line| match line.strip_prefix("ExecStart=") {
            Some(command) => format!("ExecStart=/bin/true {}", command.split_once(' ').unwrap().1),
            None => line.to_owned(),
        });
        let copy = folder.path().join(unit.file_name().unwrap());
        std::fs::write(&copy, lines.collect::<Vec<_>>().join("\n")).unwrap();
        copies.push(copy);
    }
    // --man=no: it would run `man` for each page that a unit names.
    let output = Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .args(&copies)
        .output()
        .unwrap();
    let said = text(&output);
    let about_ours: Vec<&str> = said.lines().filter(|line| line.contains("gcstreamer")).collect();
    assert!(output.status.success() && about_ours.is_empty(), "{said}");
}

#[test]
fn the_units_expose_little() {
    if !is_here("systemd-analyze") {
        return;
    }
    for unit in units() {
        let output = Command::new("systemd-analyze")
            .args(["security", "--offline=true", "--threshold=25"])
            .arg(&unit)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}: over 2.5\n{}", unit.display(), text(&output));
    }
}

#[test]
fn the_units_leave_time_for_the_last_chunk_and_start_again_whatever_happened() {
    for unit in units() {
        let text = std::fs::read_to_string(&unit).unwrap();
        let value = |key: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(&format!("{key}=")))
                .map(str::to_owned)
        };
        let name = unit.file_name().unwrap().to_str().unwrap();
        assert_eq!(value("Restart").as_deref(), Some("always"), "{name}");
        assert_eq!(
            value("StartLimitIntervalSec").as_deref(),
            Some("0"),
            "{name}: it gives up after some starts"
        );
        if name != "gcstreamer-dashboard.service" {
            assert!(value("TimeoutStopSec").unwrap().parse::<u64>().unwrap() > DEADLINES, "{name}");
        }
        // gst-launch-1.0 knows nothing of systemd.
        let is_ours = name != "gcstreamer@.service";
        assert_eq!(value("Type").as_deref() == Some("notify"), is_ours, "{name}");
        assert_eq!(value("WatchdogSec").is_some(), is_ours, "{name}");
        // SIGTERM kills gst-launch-1.0 as it is.
        assert_eq!(
            value("KillSignal").as_deref() == Some("SIGINT"),
            name == "gcstreamer@.service",
            "{name}"
        );
    }
}

/// What `launch-line` makes of a file with this text: the words that `gst-launch-1.0` gets, each in `<>`.
fn words_of_line(text_of_file: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("gst-launch-1.0");
    std::fs::write(&program, "#!/bin/sh\nfor word; do printf '<%s>' \"$word\"; done\n").unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let line = folder.path().join("door.line");
    std::fs::write(&line, text_of_file).unwrap();
    let output = Command::new(root().join("deploy/systemd/launch-line"))
        .arg(&line)
        .current_dir(folder.path())
        .env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()))
        .output()
        .unwrap();
    text(&output)
}

#[test]
fn a_launch_line_of_a_file_reaches_gst_launch_word_by_word() {
    let words = words_of_line(
        "# The door\n  # and a remark\nvideotestsrc  pattern=* ! \\\n\tvideo/x-raw,format=(string)I420 !\n gcssink bucket=$HOME\n",
    );
    let expected = "<-e><videotestsrc><pattern=*><!><video/x-raw,format=(string)I420><!><gcssink><bucket=$HOME>";
    assert_eq!(words, expected);
}

/// `hlsdemux` does not pass on the EOS that `-e` waits for: with it such a line would be killed in the end.
#[test]
fn a_launch_line_that_asks_for_it_is_interrupted_without_waiting_for_an_eos() {
    let words = words_of_line("# The playlist\n--no-eos\nsouphttpsrc location=http://HOST/live.m3u8 ! hlsdemux ! gcssink\n");
    assert_eq!(
        words,
        "<souphttpsrc><location=http://HOST/live.m3u8><!><hlsdemux><!><gcssink>"
    );
    // Only as the first word.
    assert!(words_of_line("fakesrc ! fakesink --no-eos\n").starts_with("<-e><fakesrc>"));
    // Where the documents show such a line, they say so.
    for document in ["docs/systemd.md", "docs/container.md"] {
        assert!(read(document).contains("hlsdemux"), "{document}");
    }
}

/// Files of the delivery that a program is asked to check: what they set has to be understood.
#[test]
fn the_example_configuration_has_the_keys_of_the_documents() {
    let example = read("deploy/systemd/recorder.toml");
    let cameras = gcstreamer_schema::cameras::from_toml(&example).unwrap();
    assert_eq!(cameras.len(), 1);
    let document = read("docs/recorder.md");
    for line in example.lines() {
        let line = line.trim_start_matches('#');
        if let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.contains(' ')) {
            assert!(document.contains(key), "docs/recorder.md does not know {key}");
        }
    }
}

/// The packages of `apt-get install` that hold the elements of the launch lines in the documents.
#[test]
fn the_plugins_package_recommends_what_the_documented_lines_need() {
    if !is_here("dpkg-query") {
        return;
    }
    gst::init().unwrap();
    gstgcstreamer::plugin_register_static().unwrap();
    let mut files = BTreeSet::new();
    for document in ["README.md", "docs/sources.md", "docs/then-and-now.md"] {
        for word in read(document).split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            let plugin = gst::ElementFactory::find(word).and_then(|factory| factory.plugin());
            if let Some(file) = plugin.and_then(|plugin| plugin.filename()) {
                files.insert(file.canonicalize().unwrap());
            }
        }
    }
    assert!(files.len() > 10, "{files:?}");
    let control = read("deploy/debian/gstreamer1.0-gcstreamer/control");
    let recommended = control.lines().find(|line| line.starts_with("Recommends: ")).unwrap();
    for file in files {
        let owner = Command::new("dpkg-query").arg("-S").arg(&file).output().unwrap();
        let owner = String::from_utf8(owner.stdout).unwrap();
        let package = owner.split(':').next().unwrap();
        if package.starts_with("gstreamer1.0-") {
            assert!(recommended.contains(package), "{} is in {package}", file.display());
        }
    }
}

/// Elements that the image of the recorder does without: libav alone is larger than the image, and others do the same work.
const NOT_IN_THE_IMAGE: [&str; 3] = ["gstlibav", "gstfdkaac", "gstfaad"];

#[test]
fn the_image_of_the_recorder_holds_the_plugin_of_every_element_that_it_uses() {
    gst::init().unwrap();
    let collect = read("deploy/container/collect");
    let names = collect.lines().filter_map(|line| line.trim().strip_prefix("echo gst"));
    let collected: BTreeSet<String> = names
        .flat_map(|line| line.split('#').next().unwrap_or_default().split_whitespace())
        .map(|name| format!("gst{}", name.trim_start_matches("gst")))
        .collect();
    let (mut used, mut missing) = (BTreeSet::new(), BTreeSet::new());
    for file in [
        "latm",
        "outside",
        "plan",
        "recording",
        "recording/branches",
        "recording/build",
        "source",
        "timestamps",
    ] {
        let text = read(&format!("recorder/src/camera/{file}.rs"));
        let program = text.split("#[cfg(test)]").next().unwrap().lines();
        let program: String = program.filter(|line| !line.trim_start().starts_with("//")).collect();
        // Launch lines name the codec by what is put in.
        let written = ["h264", "h265"].map(|codec| program.replace("{codec}", codec)).concat();
        for word in written.split(|c: char| !c.is_ascii_alphanumeric() && c != '_') {
            let Some(plugin) = gst::ElementFactory::find(word).and_then(|factory| factory.plugin()) else {
                continue;
            };
            let Some(file) = plugin.filename() else { continue };
            let name = file
                .file_stem()
                .unwrap()
                .to_str()
                .unwrap()
                .trim_start_matches("lib")
                .to_owned();
            used.insert(word.to_owned());
            if !collected.contains(&name) && !NOT_IN_THE_IMAGE.contains(&name.as_str()) {
                missing.insert(format!("{word} of {name}"));
            }
        }
    }
    for element in [
        "rtspsrc",
        "rtph265depay",
        "h264timestamper",
        "mpegtsmux",
        "mpg123audiodec",
        "urisourcebin",
    ] {
        assert!(used.contains(element), "{element} is not found in the sources: {used:?}");
    }
    assert!(missing.is_empty(), "deploy/container/collect lacks {missing:?}");
}

#[test]
fn the_scripts_of_the_packages_are_shell() {
    for entry in std::fs::read_dir(root().join("deploy/debian")).unwrap() {
        let folder = entry.unwrap().path();
        for script in ["postinst", "prerm", "postrm"] {
            let output = Command::new("dash").arg("-n").arg(folder.join(script)).output();
            let output = output.unwrap_or_else(|_| Command::new("sh").arg("-n").arg(folder.join(script)).output().unwrap());
            assert!(output.status.success(), "{}: {}", folder.display(), text(&output));
        }
    }
}

/// A program that answers `man` and `completions` as ours do.
const PROGRAM: &str = r#"
#include <stdio.h>
#include <string.h>
int main(int count, char **words) {
    if (count > 1 && !strcmp(words[1], "man")) return puts(".TH program 1") < 0;
    if (count > 2 && !strcmp(words[1], "completions")) return puts(words[2]) < 0;
    return 2;
}
"#;

/// Files of a package as `MODE PATH`.
fn contents(package: &Path) -> BTreeSet<String> {
    let output = Command::new("dpkg-deb").arg("--contents").arg(package).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let said = String::from_utf8(output.stdout).unwrap();
    let line = |line: &str| {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[1], "root/root", "{line}");
        format!("{} {}", words[0], words[5].trim_start_matches('.'))
    };
    said.lines().map(line).collect()
}

#[test]
fn the_packages_hold_programs_units_users_manuals_and_licences() {
    if !["dpkg-shlibdeps", "strip", "npm"].iter().all(|tool| is_here(tool)) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let binaries = folder.path().join("binaries");
    std::fs::create_dir(&binaries).unwrap();
    std::fs::write(folder.path().join("program.c"), PROGRAM).unwrap();
    for name in ["gcstreamer-recorder", "gcstreamer-dashboard", "libgstgcstreamer.so"] {
        let built = Command::new("cc")
            .arg("-o")
            .arg(binaries.join(name))
            .arg(folder.path().join("program.c"))
            .status();
        assert!(built.unwrap().success());
    }
    let out = folder.path().join("out");
    let output = Command::new(root().join("scripts/package"))
        .arg("--binaries")
        .args([&binaries, &out])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", text(&output));
    let mut packages: Vec<PathBuf> = std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().path()).collect();
    packages.sort();
    let [dashboard, recorder, plugin] = &packages[..] else {
        panic!("{packages:?}");
    };
    let plugin_path = "/gstreamer-1.0/libgstgcstreamer.so";
    assert!(
        contents(plugin)
            .iter()
            .any(|line| line.starts_with("-rw-r--r-- /usr/lib/") && line.ends_with(plugin_path))
    );
    let everywhere = ["copyright", "changelog.gz", "third-party-licences.gz", "sbom.spdx.json.gz"];
    let of = |package: &str, more: &[&str]| -> Vec<String> {
        let documents = everywhere
            .iter()
            .map(|name| format!("-rw-r--r-- /usr/share/doc/{package}/{name}"));
        documents.chain(more.iter().map(|&line| line.to_owned())).collect()
    };
    for (package, wanted) in [
        (
            plugin,
            of(
                "gstreamer1.0-gcstreamer",
                &[
                    "-rw-r--r-- /usr/lib/systemd/system/gcstreamer@.service",
                    "-rwxr-xr-x /usr/lib/gcstreamer/launch-line",
                    "-rw-r--r-- /usr/lib/sysusers.d/gcstreamer-lines.conf",
                    "drwxr-x--- /etc/gcstreamer/",
                    "-rw-r--r-- /usr/share/doc/gstreamer1.0-gcstreamer/reference.md",
                ],
            ),
        ),
        (
            recorder,
            of(
                "gcstreamer-recorder",
                &[
                    "-rwxr-xr-x /usr/bin/gcstreamer-recorder",
                    "-rw-r--r-- /usr/lib/systemd/system/gcstreamer-recorder.service",
                    "-rw-r--r-- /usr/lib/sysusers.d/gcstreamer-recorder.conf",
                    "-rw-r--r-- /usr/share/doc/gcstreamer-recorder/examples/gcstreamer-recorder.toml",
                    "-rw-r--r-- /usr/share/doc/gcstreamer-recorder/examples/rules.yaml",
                    "-rw-r--r-- /usr/share/doc/gcstreamer-recorder/recorder.md",
                    "-rw-r--r-- /usr/share/doc/gcstreamer-recorder/alerts.md",
                    "-rw-r--r-- /usr/share/man/man1/gcstreamer-recorder.1.gz",
                    "-rw-r--r-- /usr/share/bash-completion/completions/gcstreamer-recorder",
                    "-rw-r--r-- /usr/share/zsh/vendor-completions/_gcstreamer-recorder",
                    "-rw-r--r-- /usr/share/fish/vendor_completions.d/gcstreamer-recorder.fish",
                    "drwxr-x--- /etc/gcstreamer-recorder/",
                ],
            ),
        ),
        (
            dashboard,
            of(
                "gcstreamer-dashboard",
                &[
                    "-rwxr-xr-x /usr/bin/gcstreamer-dashboard",
                    "-rw-r--r-- /usr/lib/systemd/system/gcstreamer-dashboard.service",
                    "-rw-r--r-- /etc/default/gcstreamer-dashboard",
                    "-rw-r--r-- /usr/share/man/man1/gcstreamer-dashboard.1.gz",
                ],
            ),
        ),
    ] {
        let found = contents(package);
        let missing: Vec<_> = wanted.iter().filter(|line| !found.contains(*line)).collect();
        assert!(missing.is_empty(), "{}: {missing:#?} of {found:#?}", package.display());
        let field = |name: &str| {
            let output = Command::new("dpkg-deb")
                .arg("--field")
                .arg(package)
                .arg(name)
                .output()
                .unwrap();
            String::from_utf8(output.stdout).unwrap().trim().to_owned()
        };
        assert_eq!(field("Version"), concat!(env!("CARGO_PKG_VERSION"), "-1"));
        // hls.js is in the page of the dashboard and in nothing else.
        let unpacked = tempfile::tempdir().unwrap();
        let extract = Command::new("dpkg-deb")
            .arg("--extract")
            .args([package.as_path(), unpacked.path()])
            .status();
        assert!(extract.unwrap().success());
        let documents = unpacked.path().join("usr/share/doc").join(field("Package"));
        let has = |file: &str, words: &str| {
            let output = Command::new("gzip").arg("-dc").arg(documents.join(file)).output().unwrap();
            String::from_utf8(output.stdout).unwrap().contains(words)
        };
        assert!(has("sbom.spdx.json.gz", "pkg:cargo/"));
        assert_eq!(has("sbom.spdx.json.gz", "pkg:npm/hls.js@"), package == dashboard);
        assert!(has("third-party-licences.gz", "hls.js") && has("third-party-licences.gz", "/assets/licences.txt"));
        let depends = field("Depends");
        assert!(
            depends.contains("libc6") && depends.contains("ca-certificates") && !depends.contains('@'),
            "{depends}"
        );
    }
}

#[test]
fn the_images_that_are_built_are_those_of_the_containerfile() {
    let containerfile = read("deploy/container/Containerfile");
    let targets: BTreeSet<&str> = ["recorder", "dashboard", "plugin"].into();
    for target in &targets {
        assert!(containerfile.contains(&format!("AS {target}\n")), "{target}");
    }
    let cloud_build = read("deploy/container/cloudbuild.yaml");
    for (pattern, end) in [("--target=", '\n'), ("- $_REPOSITORY/", '\n')] {
        let built = cloud_build.split(pattern).skip(1).filter_map(|rest| rest.split(end).next());
        assert_eq!(built.collect::<BTreeSet<_>>(), targets, "{pattern}");
    }
}

#[test]
fn the_stage_that_compiles_is_given_every_file_that_the_packages_hold() {
    let ignored = read(".containerignore");
    let given: BTreeSet<&str> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let script = read("scripts/package");
    let program = script.lines().filter(|line| !line.starts_with('#'));
    let words = program.flat_map(|line| line.split(|c: char| c.is_whitespace() || "\"'()=$;".contains(c)));
    let tops = words.map(|word| word.split('/').next().unwrap());
    let read: BTreeSet<&str> = tops
        .filter(|top| top.len() > 2 && *top != "target" && root().join(top).exists())
        .collect();
    assert!(read.contains("docs") && read.contains("CHANGELOG.md"), "{read:?}");
    let missing: Vec<_> = read.difference(&given).collect();
    assert!(missing.is_empty(), ".containerignore leaves out {missing:?}");
}

#[test]
fn the_manifests_are_valid_and_the_alerts_fire_when_they_should() {
    let output = Command::new(root().join("scripts/check-manifests")).output().unwrap();
    if output.status.code() == Some(77) {
        eprintln!("{}", text(&output));
        return;
    }
    assert!(output.status.success(), "{}", text(&output));
}

#[test]
fn all_crates_have_one_version_and_the_changes_name_it() {
    let version = env!("CARGO_PKG_VERSION");
    let manifests = ["Cargo.toml", "recorder/Cargo.toml", "dashboard/Cargo.toml"].map(str::to_owned);
    let crates = std::fs::read_dir(root().join("crates")).unwrap();
    let crates = crates.map(|entry| format!("crates/{}/Cargo.toml", entry.unwrap().file_name().to_str().unwrap()));
    for manifest in manifests.into_iter().chain(crates) {
        let text = read(&manifest);
        let own = match manifest.as_str() {
            "Cargo.toml" => format!("\nversion = \"{version}\"\ndescription"),
            _ => "\nversion.workspace = true\n".to_owned(),
        };
        assert!(text.contains(&own), "{manifest} has another version");
        for line in text
            .lines()
            .filter(|line| line.contains("path = \"") && line.contains("version = "))
        {
            assert!(line.contains(&format!("version = \"{version}\"")), "{manifest}: {line}");
        }
    }
    assert!(read("CHANGELOG.md").contains(&format!("\n## {version}\n")));
}
