//! What is said when a recording has begun, and numbers with units.

use std::io::{BufRead, BufReader, Read};
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::common::gcs_server::{Fault, GcsServer};
use super::common::*;
use super::process::launch;
use super::{camera, flv, interrupt, said, sink};

/// What follows "recording into bucket …, first object … waits" in a line's words, and that object.
fn started(text: &str) -> (String, String) {
    let head = "recording into bucket cam-bucket at http://127.0.0.1:";
    assert_eq!(text.matches("recording into bucket").count(), 1, "{text}");
    let rest = text.split(head).nth(1).unwrap_or_else(|| panic!("{text}"));
    let (_, rest) = rest.split_once(", first object ").unwrap();
    let (object, backlog) = rest.split_once("; what cannot be stored at once waits ").unwrap();
    (object.to_owned(), backlog.lines().next().unwrap().to_owned())
}

#[test]
fn a_line_says_where_it_records_and_where_its_backlog_goes() {
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().display();
    let drop = "overflow-policy=drop-oldest";
    for (name, properties, wanted) in [
        (
            "memory",
            drop.to_owned(),
            vec!["in memory: 67 MB, about ", "kB/s; then the oldest chunk is dropped"],
        ),
        ("waits", String::new(), vec!["in memory (67 MB), and the pipeline waits"]),
        (
            "always",
            format!("spool-dir={dir}"),
            vec!["in spool-dir ", ", which has room for ", " (about "],
        ),
        (
            "overflow",
            format!("spool-dir={dir} spool-mode=overflow max-spool-bytes=460000000"),
            vec!["in memory (67 MB), then in spool-dir ", "room for 460 MB (about ", "kB/s)"],
        ),
    ] {
        let server = GcsServer::spawn_thread();
        let line = format!("{} ! {}", flv(3), sink(name, &server, &properties));
        let output = launch(&line, &[]).wait_with_output().unwrap();
        let text = said(&output);
        assert!(output.status.success(), "{text}");
        let (object, backlog) = started(&text);
        assert_eq!(object, chunks(&server)[0].name, "{text}");
        assert!(wanted.iter().all(|part| backlog.contains(part)), "{name}: {backlog}");
    }
}

/// What a line prints, while it does.
fn heard(child: &mut Child) -> Arc<Mutex<String>> {
    let heard = Arc::new(Mutex::new(String::new()));
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let streams: [Box<dyn Read + Send>; 2] = [Box::new(stdout), Box::new(stderr)];
    for stream in streams {
        let heard = Arc::clone(&heard);
        std::thread::spawn(move || {
            for line in BufReader::new(stream).lines().map_while(Result::ok) {
                let mut heard = heard.lock().unwrap();
                heard.push_str(&line);
                heard.push('\n');
            }
        });
    }
    heard
}

#[test]
fn the_start_of_a_long_first_chunk_is_said_while_it_grows() {
    let server = GcsServer::spawn_thread();
    let line = format!("{} ! {}", camera(), sink("long", &server, "")).replace("max-size-time=1000000000", "max-size-time=0");
    let mut child = launch(&format!("-e {line}"), &[("GST_DEBUG", "gcssink:4")]);
    let heard = heard(&mut child);
    let wait_for = |words: &str| {
        let until = Instant::now() + Duration::from_secs(60);
        while !heard.lock().unwrap().contains(words) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    wait_for("recording into bucket");
    assert_eq!(server.uploads().len(), 0, "the chunk goes on");
    interrupt(&child);
    child.wait().unwrap();
    wait_for("Freeing pipeline");
    let text = heard.lock().unwrap().clone();
    let (object, backlog) = started(&text);
    assert_eq!(object, chunks(&server)[0].name, "{text}");
    assert!(backlog.starts_with("in memory: 67 MB, about "), "{backlog}");
    assert!(
        text.find("recording into bucket") < text.find("EOS on shutdown enabled"),
        "{text}"
    );
}

/// Digits that stand together, longer than anything a person reads at a glance. Names of objects hold some.
fn long_number(text: &str) -> Option<String> {
    let words = text.split(|c: char| c.is_whitespace() || "()=".contains(c));
    let words = words.map(|word| word.trim_end_matches([',', ';', ':', '.']));
    let mut plain = words.filter(|word| !word.contains('/') && !word.contains('_') && !word.contains('-'));
    plain
        .find(|word| word.len() > 4 && word.chars().all(|c| c.is_ascii_digit() || c == '.'))
        .map(str::to_owned)
}

#[test]
fn the_words_of_an_outage_and_of_a_full_memory_have_units_that_a_person_reads() {
    assert_eq!(long_number("4 chunks of 480557 bytes").as_deref(), Some("480557"));
    assert_eq!(
        long_number("cam1/2026/11/28/20261128T084434.691Z_d2459t8fu8_000003.flv: 46 GB, 3 days"),
        None
    );
    let server = GcsServer::spawn_thread();
    (0..500).for_each(|_| server.push_fault(Fault::StallBefore));
    let noise = "videotestsrc num-buffers=90 pattern=snow ! video/x-raw,width=320,height=240,framerate=15/1 ! x264enc speed-preset=ultrafast \
                 bitrate=8000 key-int-max=15 ! h264parse ! flvmux streamable=true";
    let line = Line::new(
        noise,
        &server,
        "max-memory-bytes=2097152 overflow-policy=drop-oldest drain-timeout=1500000000 request-timeout=100000000",
    );
    line.play();
    let (end, words) = line.wait();
    assert!(
        matches!(&end, End::Error(text) if text.contains("drain-timeout of 1.5 s")),
        "{end:?}"
    );
    let reported: Vec<&String> = words
        .iter()
        .filter(|(kind, _)| *kind != "element")
        .map(|(_, text)| text)
        .collect();
    assert!(
        reported
            .iter()
            .any(|text| text.starts_with("uploads fail: ") && text.contains("MB")),
        "{reported:#?}"
    );
    for text in reported {
        // What stands behind an ERROR's own text is the debug string.
        let text = text.split("src/").next().unwrap();
        assert_eq!(long_number(text), None, "{text}");
    }
}
