//! What the documents say is true: their commands are run or say that they are not, their messages are those of the sources,
//! their figures add up, their links lead somewhere.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/mosquitto.rs"]
mod mosquitto;
#[path = "common/printed.rs"]
mod printed;
#[path = "common/process.rs"]
mod process;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use common::gcs_server::GcsServer;
use gst::prelude::*;
use mosquitto::Mosquitto;
use printed::{Block, NEEDS, NOT_RUN, blocks_of, is_run};

/// Documents whose `sh` blocks are all run, word for word, by a test of their own, but those that `NOT_RUN` lists.
const RUN_WHOLE: &[(&str, &str)] = &[
    ("docs/then-and-now.md", "tests/then_and_now.rs"),
    ("docs/migrating.md", "tests/then_and_now.rs"),
    ("docs/sources.md", "tests/sources.rs"),
    ("docs/watch.md", "tests/watch.rs"),
    ("examples/README.md", "tests/examples.rs"),
];

/// Single blocks that are run: (document, how the block begins, by what).
const RUN: &[(&str, &str, &str)] = &[
    (
        "README.md",
        "gst-launch-1.0 -e rtspsrc",
        "scripts/demo and tests/then_and_now.rs",
    ),
    ("docs/start.md", "gst-launch-1.0 -e rtspsrc", "tests/then_and_now.rs"),
    (
        "CONTRIBUTING.md",
        "scripts/reference",
        "tests/reference.rs and tests/docs.rs hold its results",
    ),
    ("docs/cloud-setup.md", "openssl", "tests/docs.rs"),
    ("docs/cloud-setup.md", "chmod 600", "tests/docs.rs"),
];

const LANGUAGES: [&str; 8] = ["sh", "text", "json", "toml", "rust", "c", "python", "ini"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(name: &str) -> String {
    std::fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Every document, by its name from the root.
fn documents() -> Vec<String> {
    let mut names = Vec::new();
    for folder in ["", "docs/", "docs/decisions/", "examples/", "fuzz/"] {
        let Ok(entries) = std::fs::read_dir(root().join(folder)) else {
            continue;
        };
        for entry in entries {
            let name = entry.unwrap().file_name().into_string().unwrap();
            if name.ends_with(".md") {
                names.push(format!("{folder}{name}"));
            }
        }
    }
    names.sort();
    assert!(names.len() > 8, "{names:?}");
    names
}

fn blocks(document: &str) -> Vec<Block> {
    blocks_of(document, &read(document))
}

#[test]
fn every_command_of_a_document_is_run_by_a_test_or_listed_as_not_run() {
    let mut wrong = Vec::new();
    for document in documents() {
        for Block { language, text } in blocks(&document) {
            let first = text.lines().next().unwrap_or_default();
            if !LANGUAGES.contains(&language.as_str()) {
                wrong.push(format!("{document}: a block needs a language, one of {LANGUAGES:?}: {first}"));
            } else if language == "sh" {
                let run = RUN.iter().any(|(d, begin, _)| *d == document && text.starts_with(begin));
                let whole = RUN_WHOLE.iter().find(|(d, _)| *d == document);
                if let Some((_, test)) = whole {
                    let name = Path::new(&document).file_name().unwrap().to_str().unwrap();
                    assert!(read(test).contains(name), "{test} does not read {document}");
                }
                if is_run(&document, &text) && !run && whole.is_none() {
                    wrong.push(format!(
                        "{document}: run it in a test and list it here, say `{NEEDS}…` in it, or list it in NOT_RUN: {first}"
                    ));
                }
            } else if language == "text" && text.lines().any(|l| l.starts_with("gcloud ") || l.starts_with("gst-launch")) {
                wrong.push(format!("{document}: commands are `sh`: {first}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let listed = |d: &str, begin: &str| {
        let begins = |b: &&Block| b.language == "sh" && b.text.starts_with(begin);
        blocks(d).iter().filter(begins).count()
    };
    let stale: Vec<_> = RUN.iter().filter(|(d, begin, _)| listed(d, begin) == 0).collect();
    assert!(stale.is_empty(), "no such block any more: {stale:?}");
    let stale: Vec<_> = NOT_RUN.iter().filter(|(d, begin, _)| listed(d, begin) != 1).collect();
    assert!(stale.is_empty(), "not exactly one block that begins so: {stale:?}");
}

/// The launch lines of an element's SECTION that say nothing of what they need, each on one line without `gst-launch-1.0`.
fn example_lines(element: &str) -> Vec<String> {
    let file = format!("src/{element}/mod.rs");
    let text = read(&file);
    let section = text.split_once(&format!("/// SECTION:element-{element}\n"));
    let (_, section) = section.unwrap_or_else(|| panic!("{file}: no SECTION:element-{element}"));
    let section: String = section
        .lines()
        .map_while(|l| l.trim_start().strip_prefix("///"))
        .map(|l| l.trim_start().to_owned() + "\n")
        .collect();
    assert!(
        section.contains("\n## Limits\n") && section.contains("\n## Manners\n"),
        "{file}"
    );
    let lines = blocks_of(&file, &section)
        .into_iter()
        .filter(|block| !block.text.starts_with(NEEDS))
        .map(|block| block.text.replace("\\\n", ""));
    let words = |line: String| line.strip_prefix("gst-launch-1.0 ").map(str::to_owned);
    lines
        .map(|line| words(line).unwrap_or_else(|| panic!("{file}: no launch line")))
        .collect()
}

#[test]
fn the_example_lines_of_the_elements_record_chunks_that_play() {
    let (broker, spool) = (Mosquitto::start(), tempfile::tempdir().unwrap());
    let watcher = broker.watch(&["gcstreamer/cam1/state"], None);
    let lines = [example_lines("gcssink"), example_lines("iotcorestatus")];
    assert_eq!(lines.each_ref().map(Vec::len), [2, 1]);
    for line in lines.iter().flatten() {
        let server = GcsServer::spawn_thread();
        let put_in = line
            .replace("MY-BUCKET", common::BUCKET)
            .replace("BROKER", &format!("127.0.0.1 port={}", broker.port()))
            .replace("/var/lib/gcstreamer", &spool.path().to_string_lossy());
        let output = process::launch(&put_in, &[("STORAGE_EMULATOR_HOST", &server.endpoint())])
            .wait_with_output()
            .unwrap();
        assert!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(common::assert_each_plays(&common::chunks(&server)), 150, "{line}");
    }
    watcher.wait_last("gcstreamer/cam1/state", "disconnected", Duration::from_secs(15));
    let mut states = watcher.payloads("gcstreamer/cam1/state");
    states.dedup();
    assert_eq!(states, ["connected", "disconnected"]);
}

#[test]
fn the_openssl_lines_make_keys_that_they_say() {
    let folder = tempfile::tempdir().unwrap();
    let mut run = 0;
    for block in blocks("docs/cloud-setup.md") {
        if block.language == "sh" && (block.text.starts_with("openssl") || block.text.starts_with("chmod")) {
            let output = Command::new("bash")
                .args(["-euc", &block.text])
                .current_dir(&folder)
                .output()
                .unwrap();
            assert!(
                output.status.success(),
                "{}\n{}",
                block.text,
                String::from_utf8_lossy(&output.stderr)
            );
            if block.text.contains("-enddate") {
                assert!(String::from_utf8_lossy(&output.stdout).starts_with("notAfter="));
            }
            run += 1;
        }
    }
    assert_eq!(run, 4);
    let made = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
    assert!(made("rsa_private.pem").contains("PRIVATE KEY"));
    assert!(made("rsa_public.pem").contains("BEGIN PUBLIC KEY"));
    assert!(made("ec_private.pem").contains("BEGIN EC PRIVATE KEY"));
    assert!(made("ec_cert.pem").contains("BEGIN CERTIFICATE"));
    use std::os::unix::fs::PermissionsExt;
    let mode = std::fs::metadata(folder.path().join("ec_private.pem"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_json_of_the_documents_is_json_and_the_lifecycle_spares_late_chunks() {
    let mut seen = Vec::new();
    for document in documents() {
        for block in blocks(&document).iter().filter(|b| b.language == "json") {
            seen.push(serde_json::from_str::<serde_json::Value>(&block.text).unwrap_or_else(|e| panic!("{document}: {e}")));
        }
    }
    let lifecycle = seen.iter().find(|v| v.get("rule").is_some()).expect("the lifecycle");
    let rules = lifecycle["rule"].as_array().unwrap();
    let age = |rule: &serde_json::Value| rule["condition"]["age"].as_u64();
    assert!(
        rules.iter().all(|rule| age(rule) >= Some(1)),
        "every rule spares what has just arrived"
    );
    let deletes = |rule: &&serde_json::Value| rule["action"]["type"] == "Delete";
    assert!(
        rules
            .iter()
            .filter(deletes)
            .any(|rule| rule["condition"]["daysSinceCustomTime"].is_null())
    );
}

/// The rows of the table whose head begins so: cells, trimmed.
fn table(document: &str, head: &str) -> Vec<Vec<String>> {
    let text = read(document);
    let rows = text
        .lines()
        .skip_while(|l| !l.starts_with(head))
        .skip(2)
        .take_while(|l| l.starts_with('|'));
    let rows: Vec<Vec<String>> = rows
        .map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect();
    assert!(!rows.is_empty(), "{document}: no table {head}");
    rows
}

fn number(cell: &str) -> f64 {
    cell.split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap_or_else(|e| panic!("{cell}: {e}"))
}

#[test]
fn the_cost_tables_follow_from_the_prices() {
    let prices = table("docs/cloud-setup.md", "| class | GB and month");
    let month = 30.0 * 86400.0;
    for row in table("docs/cloud-setup.md", "| chunk | objects a month") {
        let objects = month / number(&row[0]);
        assert!((number(&row[1]) - objects).abs() < 0.5, "{row:?}");
        for (cell, class) in row[2..].iter().zip(&prices) {
            assert!(
                (number(cell) - objects * number(&class[2]) / 1000.0).abs() < 0.0051,
                "{row:?} {class:?}"
            );
        }
    }
    let standard = number(&prices[0][1]);
    for row in table("docs/cloud-setup.md", "| stream | chunk | Nearline") {
        let gigabytes = number(&row[0]) * number(&row[1]) / 8000.0;
        for (cell, class) in row[2..].iter().zip(&prices[1..]) {
            let days = 30.0 * number(&class[2]) / 1000.0 / (gigabytes * (standard - number(&class[1])));
            assert!((number(cell) - days).abs() < 0.051, "{row:?}: {days}");
        }
    }
}

#[test]
fn the_figures_of_scaling_follow_from_what_was_measured_and_from_the_prices() {
    let prices = table("docs/cloud-setup.md", "| class | GB and month");
    let measured = table("docs/scaling.md", "| cameras | CPU of a core");
    for row in &measured {
        assert!((number(&row[1]) / number(&row[0]) - number(&row[2])).abs() < 0.006, "{row:?}");
    }
    let most = measured.last().unwrap();
    for row in table("docs/scaling.md", "| cameras | pods of 40") {
        let cameras = number(&row[0]);
        let gigabytes = cameras * 2.0 * 30.0 * 86400.0 / 8000.0;
        let objects = cameras * 30.0 * 86400.0 / 10.0;
        let near = |cell: &str, is: f64| (number(cell) - is).abs() <= is * 0.01 + 0.05;
        assert!((number(&row[1]) - (cameras / 40.0).ceil()).abs() < 0.1, "{row:?}");
        assert!(near(&row[2], cameras * 0.015), "{row:?}");
        assert!(near(&row[4], cameras * 2.0), "{row:?}");
        assert!(near(&row[5], cameras / 10.0), "{row:?}");
        assert!(near(&row[6], gigabytes / 1000.0), "{row:?}");
        assert!(near(&row[7], gigabytes * number(&prices[0][1])), "{row:?}");
        assert!(
            (number(&row[8]) - objects * number(&prices[0][2]) / 1000.0).abs() < 1.0,
            "{row:?}"
        );
    }
    assert_eq!(number(&most[0]), 40.0, "pods of as many cameras as were measured");
}

#[test]
fn the_picture_of_the_data_flow_is_that_of_its_text() {
    let output = Command::new(root().join("scripts/pictures")).arg("--check").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_hours_that_a_spool_lasts_follow_from_the_bit_rate() {
    for row in table("docs/operations.md", "| stream | hours for each GB") {
        let megabits = number(&row[0]);
        assert!((number(&row[1]) - 8000.0 / megabits / 3600.0).abs() < 0.0051, "{row:?}");
        assert!((number(&row[2]) - megabits * 3600.0 / 8000.0).abs() < 0.0051, "{row:?}");
        assert!((number(&row[3]) - megabits * 86400.0 / 8000.0).abs() < 0.051, "{row:?}");
    }
}

/// The texts of a source file without its tests: Rust string literals, continued lines joined.
fn literals(source: &str) -> Vec<String> {
    // With the brace: `mod tests;` stands in the middle of a file.
    let code = source.split("#[cfg(test)]\nmod tests {").next().unwrap();
    let code = code.split("#[cfg(test)]\npub(crate) mod tests {").next().unwrap();
    let code: String = code
        .lines()
        .filter(|l| !l.trim_start().starts_with("//"))
        .map(|l| format!("{l}\n"))
        .collect();
    let mut found = Vec::new();
    let mut chars = code.chars().peekable();
    while let Some(c) = chars.next() {
        if c == '\'' {
            // A character, or a lifetime: '"' must not begin a text.
            if chars.peek() == Some(&'"') {
                chars.next();
            }
            continue;
        }
        if c != '"' {
            continue;
        }
        let mut text = String::new();
        while let Some(c) = chars.next() {
            match c {
                '"' => break,
                '\\' => match chars.next() {
                    Some('\n') => while chars.next_if(|c| c.is_whitespace()).is_some() {},
                    Some(escaped) => text.push(escaped),
                    None => break,
                },
                c => text.push(c),
            }
        }
        found.push(text);
    }
    found
}

/// A text cut at its placeholders: `{…}` of Rust, `…` of the document.
fn pieces(text: &str) -> Vec<String> {
    let text = text.replace("{{", "\u{1}").replace("}}", "\u{2}");
    let mut pieces = vec![String::new()];
    let mut inside = false;
    for c in text.chars() {
        match c {
            '{' => {
                inside = true;
                pieces.push(String::new());
            }
            '}' => inside = false,
            '…' => pieces.push(String::new()),
            c if !inside => pieces.last_mut().unwrap().push(match c {
                '\u{1}' => '{',
                '\u{2}' => '}',
                c => c,
            }),
            _ => {}
        }
    }
    pieces.retain(|p| p.trim().len() > 2);
    pieces
}

/// Every source file of the plugin and of the crates, tests left out, by its path from the root of the checkout.
fn source_files() -> Vec<String> {
    fn collect(folder: &Path, into: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.contains("test") || name == "sim" {
                continue;
            }
            if path.is_dir() {
                collect(&path, into);
            } else if path.extension().is_some_and(|e| e == "rs") {
                into.push(path.strip_prefix(root()).unwrap().to_string_lossy().into_owned());
            }
        }
    }
    let mut files = Vec::new();
    collect(&root().join("src"), &mut files);
    for member in std::fs::read_dir(root().join("crates")).unwrap() {
        collect(&member.unwrap().path().join("src"), &mut files);
    }
    collect(&root().join("dashboard/src"), &mut files);
    collect(&root().join("recorder/src"), &mut files);
    files.sort();
    assert!(files.len() > 100, "{files:?}");
    files
}

/// Where the texts of the recorder are explained: it says much in words that the elements use for something else.
const RECORDER: &str = "\n## The recorder\n";

/// What the left column of docs/troubleshooting.md has between backticks.
fn documented() -> Vec<String> {
    let mut found = documented_in(&read("docs/troubleshooting.md"));
    // Some are explained in the row of another.
    found.push("exists with … bytes and is another recording".into());
    found.push("exists and may not be looked at (…)".into());
    found.push("exists with as many bytes and the server gave no checksum, so it may be another recording".into());
    assert!(found.len() > 50);
    found
}

/// The same of the part about the recorder alone.
fn documented_of_the_recorder() -> Vec<String> {
    let text = read("docs/troubleshooting.md");
    let part = text.split_once(RECORDER).expect("a part about the recorder").1;
    documented_in(part.split("\n## ").next().unwrap())
}

fn documented_in(text: &str) -> Vec<String> {
    let cells = text
        .lines()
        .filter(|l| l.starts_with("| `"))
        .map(|l| l.trim_start_matches("| "));
    let mut found = Vec::new();
    for cell in cells {
        let left = cell.split(" | ").next().unwrap();
        found.extend(left.split('`').skip(1).step_by(2).map(str::to_owned));
    }
    found
}

/// Folders and files whose texts are no messages of their own: descriptions of properties, the log, and parts that a message of
/// another file is made of.
const NO_MESSAGES: &[&str] = &[
    "src/gcssink/settings.rs",
    "src/iotcorestatus/settings.rs",
    "src/gcssink/imp.rs",
    "src/gcssink/stats.rs",
    "src/gcssink/compose.rs",
    "src/gcssink/debug.rs",
    "src/iotcorestatus/discovery.rs",
    "src/lib.rs",
    "src/spool/",
    "src/upload/spooler.rs",
    "src/upload/state.rs",
    "src/upload/spool_writer.rs",
    "src/upload/life.rs",
    "crates/schema/",
    "crates/media/",
    "crates/storage/",
    // Help texts of the program and of its metrics.
    "recorder/src/cli.rs",
    "recorder/src/metrics.rs",
    "recorder/src/status.rs",
];
/// Texts that are only parts of one, or no message at all.
const PARTS: &[&str] = &[
    "gs://{}/{} (generation {generation}) {what}",
    "what it does not take is held in memory",
    "{} wait, the oldest for {}",
    "{verb}: {reason}; {waiting}; {left}; it is tried again automatically",
    "{name} is {}: {instead}",
    // In the log.
    "a buffer of {size} bytes, pts",
    " (they came at most",
    "use mp4mux fragment-duration=1000 (ms)",
    "make fragments with default_base_moof",
    "select one program",
    "check that the stream matches its container format",
    "{} came, but no key unit",
    "nothing comes out of {muxer}",
    "nothing has come: check the source",
    "{e}; set the property bucket",
    "{e} (it has {} bytes, the limit is 1024)",
    "send it from a muxer that writes its head first",
    "start the source again, so that it sends its head",
    "send PAT and PMT at least every second",
    "it needs an encoder and a muxer in front",
    "it needs a depayloader",
    "it needs a muxer in front",
    "uploads still fail",
    "without a key unit",
    "gcssink-",
    "the closing entry",
    // Labels of PEM files, and what the element says of itself.
    "-----BEGIN ",
    "State of the pipeline over MQTT",
    "IoT Core and MQTT status",
    "Passes everything through",
    // In the log, of what cannot happen.
    "the class has the template",
    "upstream does not support pull mode",
    "a pad cannot be added",
    // The dashboard: what follows a message as its hint, and parts of one.
    "default-src 'none'",
    "{COOKIE}={}",
    "times are RFC 3339",
    "/api/cameras lists the ids",
    "ask for less time at once",
    "ask for a range inside",
    "there are {size} bytes",
    "write it as ",
    "open / ",
    "open it by one of these names",
    "Cloud Storage asks for fewer requests",
    "give the dashboard's account",
    "check --",
    "the bucket or the recording does not exist",
    "the bucket does not answer as it should",
    "the recording itself can be read",
    "it is the content of the file",
    "open the address that Identity-Aware Proxy",
    "check that the dashboard reaches",
    "sound among the pictures",
    "pictures among the sound",
    "its Opus header is damaged",
    "its header is over",
    "AAC of an unknown rate",
    "Opus with a damaged header",
    "choose another range or format",
    "try again when one of them has ended",
    "attachment; filename=",
    "{path}?camera=",
    "there is no such export",
    "a sample is over 4 GiB",
    "whole: {count} chunks",
    "export it with format=native",
    "gcstreamer-dashboard-{own",
    "{}: {error}",
    // A second warning about one setting.
    "tls=false: the device's token crosses",
    // The recorder: launch lines, requests, and words of GStreamer that it looks for.
    "rtp{codec}depay !",
    "{depay}{codec}parse ",
    "queue name=queue ",
    "{decoded} ! audioconvert",
    "urisourcebin name=uri !",
    "DESCRIBE {url} RTSP/1.0",
    "application/openmetrics-text",
    "/healthz /readyz /status",
    "name or service not known",
    "server closed the connection",
    "could not open resource",
    " ! {codec}timestamper",
    "GET /healthz HTTP/1.0",
    "bucket = \"probe\"",
    "rtsp, rtsps, http, https, rtmp or srt",
    // The beginning of a text that is replaced where there is no file.
    "this camera has no {key}",
];

#[test]
fn every_message_of_the_element_is_in_troubleshooting() {
    let as_pieces = |texts: Vec<String>| -> Vec<Vec<String>> { texts.iter().map(|text| pieces(text)).collect() };
    let (all, of_the_recorder) = (as_pieces(documented()), as_pieces(documented_of_the_recorder()));
    let mut missing = Vec::new();
    let mut seen = 0;
    for file in source_files()
        .iter()
        .filter(|file| !NO_MESSAGES.iter().any(|other| file.starts_with(other)))
    {
        let documented = if file.starts_with("recorder/") {
            &of_the_recorder
        } else {
            &all
        };
        for text in literals(&read(file)) {
            if text.len() < 22 || text.split(' ').count() < 4 || PARTS.iter().any(|part| text.starts_with(part)) {
                continue;
            }
            seen += 1;
            let of = pieces(&text);
            let reported = |d: &Vec<String>| d.iter().all(|piece| of.iter().any(|p| p.contains(piece.trim())));
            if !documented.iter().any(|d| !d.is_empty() && reported(d)) {
                missing.push(format!("{file}: {text}"));
            }
        }
    }
    assert!(seen > 200, "{seen}");
    assert!(
        missing.is_empty(),
        "say in docs/troubleshooting.md what to do about: {missing:#?}"
    );
}

#[test]
fn every_message_of_troubleshooting_is_one_of_the_sources() {
    let mut all: Vec<String> = Vec::new();
    source_files().iter().for_each(|file| all.extend(literals(&read(file))));
    let gone: Vec<String> = documented()
        .into_iter()
        .filter(|text| {
            !pieces(text).iter().all(|piece| {
                all.iter().any(|literal| {
                    let plain = literal.replace("{{", "{").replace("}}", "}");
                    literal.contains(piece.trim())
                        || plain.contains(piece.trim())
                        || pieces(literal).iter().any(|p| p.contains(piece.trim()))
                })
            })
        })
        .collect();
    assert!(gone.is_empty(), "no source says this any more: {gone:#?}");
}

#[test]
fn every_property_of_splitmuxsink_is_in_the_migration() {
    gst::init().unwrap();
    let element = gst::ElementFactory::make("splitmuxsink").build().unwrap();
    let document = read("docs/migrating.md");
    let own = element.list_properties().to_vec();
    let missing: Vec<&str> = own
        .iter()
        .filter(|s| s.owner_type() == element.type_())
        .map(|s| s.name())
        .filter(|name| !document.contains(&format!("`{name}")))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn links_between_documents_lead_somewhere() {
    let mut broken = Vec::new();
    for document in documents() {
        let text = read(&document);
        let folder = Path::new(&document).parent().unwrap();
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if link.contains("://") {
                continue;
            }
            let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() {
                PathBuf::from(&document)
            } else {
                folder.join(file)
            };
            if !root().join(&target).exists() {
                broken.push(format!("{document}: {link}"));
            } else if !anchor.is_empty() && !anchors(target.to_str().unwrap()).contains(&anchor.to_owned()) {
                broken.push(format!("{document}: {link}: no such heading"));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}

/// The anchors that a heading gets on the usual forges.
fn anchors(document: &str) -> Vec<String> {
    let slug = |heading: &str| -> String {
        let kept = heading.trim().to_lowercase();
        let kept = kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    let text = read(document);
    text.lines()
        .filter(|l| l.starts_with('#'))
        .map(|l| slug(l.trim_start_matches('#')))
        .collect()
}

/// GNU timeout signals the command and then its process group: gst-launch-1.0 dies of the second SIGINT.
#[test]
fn a_line_with_a_time_limit_is_interrupted_once() {
    let mut limits = 0;
    for document in documents() {
        for line in read(&document).lines().filter(|line| line.contains("timeout --")) {
            assert!(line.contains("timeout --foreground --signal=INT"), "{document}: {line}");
            limits += 1;
        }
    }
    assert!(limits >= 3);
}

#[test]
fn the_readme_is_short() {
    assert!(read("README.md").lines().count() < 200);
}

#[test]
fn the_licences_are_those_of_the_lock_file() {
    let output = Command::new(root().join("scripts/licences")).arg("--check").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
