//! `GST_DEBUG=gcssink:5` shows the life of each chunk, and `gcssink:6` its buffers too.

use std::collections::BTreeMap;

use super::common::gcs_server::{Fault, GcsServer};
use super::common::*;
use super::process::launch;
use super::{flv, said, sink};

/// What the log of a line at that level says of each chunk, by session and sequence number, in order.
fn lives(front: &str, level: u8, server: &GcsServer, properties: &str) -> (Vec<Vec<String>>, String) {
    let debug = format!("gcssink:{level}");
    let line = format!("{front} ! {}", sink("life", server, properties));
    let output = launch(&line, &[("GST_DEBUG", &debug), ("GST_DEBUG_NO_COLOR", "1")])
        .wait_with_output()
        .unwrap();
    let text = said(&output);
    let mut lives: BTreeMap<(String, u64), Vec<String>> = BTreeMap::new();
    for line in text.lines() {
        let Some((_, rest)) = line.split_once("> chunk ") else {
            continue;
        };
        let (sequence, rest) = rest.split_once(" of session ").unwrap_or_else(|| panic!("{line}"));
        let (session, step) = rest.split_once(' ').unwrap();
        let key = (session.to_owned(), sequence.parse().unwrap());
        lives.entry(key).or_default().push(step.to_owned());
    }
    (lives.into_values().collect(), text)
}

/// Whether these are the steps, each by how it begins, in this order.
fn are(steps: &[String], wanted: &[&str]) -> bool {
    steps.len() == wanted.len() && steps.iter().zip(wanted).all(|(step, begin)| step.starts_with(begin))
}

const HEALTHY: [&str; 5] = [
    "is cut",
    "is closed with ",
    "is queued",
    "is sent, attempt 1",
    "is stored as life/",
];

#[test]
fn a_healthy_run_shows_every_step_of_every_chunk() {
    let server = GcsServer::spawn_thread();
    let (lives, text) = lives(&flv(3), 5, &server, "");
    assert_eq!(lives.len(), 3, "{text}");
    assert!(lives.iter().all(|steps| are(steps, &HEALTHY)), "{lives:#?}");
    assert!(lives[0][1].ends_with("kB"), "{lives:#?}");
    assert!(lives[0][4].ends_with(&chunks(&server)[0].name), "{lives:#?}");
    assert!(!text.contains("a buffer of "), "{text}");
}

#[test]
fn a_retry_tells_its_reason_and_level_4_shows_troubles_alone() {
    for level in [5, 4] {
        let server = GcsServer::spawn_thread();
        server.push_fault(Fault::status(503));
        let (lives, text) = lives(&flv(1), level, &server, "");
        let steps = &lives[0];
        let wanted: &[&str] = match level {
            5 => &[
                "is cut",
                "is closed with ",
                "is queued",
                "is sent, attempt 1",
                "is to be retried: storing gs://cam-bucket/life/",
                "is sent, attempt 2",
                "is stored as ",
            ],
            _ => &["is to be retried: "],
        };
        assert!(
            are(steps, wanted) && text.contains("the server answered 503"),
            "{level}: {lives:#?}\n{text}"
        );
    }
}

#[test]
fn with_a_spool_the_steps_to_disk_and_of_the_next_start_are_shown() {
    let server = GcsServer::spawn_thread();
    server.push_fault(Fault::StallBefore);
    let folder = tempfile::tempdir().unwrap();
    let spool = format!(
        "spool-dir={} max-spool-bytes=1000000000 drain-timeout=1000000000",
        folder.path().display()
    );
    let (first, text) = lives(&flv(1), 5, &server, &spool);
    let spooled = ["is cut", "is closed with ", "is spooled", "is queued", "is sent, attempt 1"];
    assert!(are(&first[0], &spooled), "{first:#?}\n{text}");
    let (both, text) = lives(&flv(1), 5, &server, &spool);
    let found = [
        "was found in the spool",
        "is queued",
        "is sent, attempt 1",
        "is stored as life/",
    ];
    assert!(are(&both[0], &found), "{both:#?}\n{text}");
    let own = both[1]
        .iter()
        .filter(|step| !step.starts_with("is sent") && !step.starts_with("is not sent"));
    let own: Vec<String> = own.cloned().collect();
    assert!(
        are(
            &own,
            &["is cut", "is closed with ", "is spooled", "is queued", "is stored as life/"]
        ),
        "{both:#?}"
    );
}

#[test]
fn a_chunk_that_is_given_up_ends_with_its_reason() {
    let server = GcsServer::spawn_thread();
    (0..50).for_each(|_| server.push_fault(Fault::status(503)));
    let (lives, text) = lives(&flv(2), 5, &server, "retry-timeout=300000000");
    assert!(
        lives.iter().all(|steps| steps.last().unwrap() == "is dropped: retry-timeout"),
        "{text}"
    );
}

#[test]
fn level_6_shows_the_buffers_too() {
    let server = GcsServer::spawn_thread();
    let (lives, text) = lives(&flv(1), 6, &server, "");
    assert!(are(&lives[0], &HEALTHY), "{lives:#?}");
    let buffers = text
        .lines()
        .filter(|line| line.contains("a buffer of ") && line.contains("pts "))
        .count();
    assert!(buffers >= 15, "{buffers} of 15 pictures and a header");
}
