//! Every fault of the network and of the server, for real, through the element: whatever happens, the bucket is the input, each
//! chunk once, and the user reads one word of it.
//!
//! Each fault meets another container and another way of waiting (memory, `overflow`, `always`) than its neighbours in the
//! table; with `GCSTREAMER_FAULTS=all` each meets all of them. The same faults on virtual time are in `outage.rs`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use common::gcs_server::{Answer, Fault, GcsServer};
use common::places::{ServerToStart, Spool};
use common::*;
use serde_json::json;

/// About 0.6 MB a second.
const CAMERA: &str = "videotestsrc num-buffers=45 pattern=snow ! video/x-raw,width=320,height=240,framerate=15/1 ! \
    x264enc speed-preset=ultrafast bitrate=5000 key-int-max=15 ! h264parse config-interval=-1";

const MUXERS: [&str; 4] = [
    "flvmux streamable=true",
    "mpegtsmux",
    "mp4mux fragment-duration=200 streamable=true",
    "matroskamux streamable=true",
];

/// Where chunks wait. In the second, less memory than two chunks want, so that some go to the disk.
const SPOOL_USES: [&str; 3] = ["", "spool-mode=overflow max-memory-bytes=1048576", "spool-mode=always"];

/// What an outage says while it lasts.
const OUTAGE: &str = "uploads fail";

/// A fault and what becomes of it.
struct Row {
    name: &'static str,
    faults: Vec<Fault>,
    /// Answers to the next reads and deletes.
    answers: Vec<Answer>,
    properties: &'static str,
    /// In real time, so that a chunk is stored before the next one is closed.
    live: bool,
    /// What each WARNING has in it; there is no other.
    warnings: &'static [&'static str],
    /// Failed attempts.
    retries: u64,
    /// Objects that stay beside the chunks.
    left: usize,
    /// What else is to be seen.
    also: fn(&Ran),
}

/// What a run has left.
struct Ran {
    server: GcsServer,
    chunks: Vec<Chunk>,
    words: Messages,
}

fn row(name: &'static str, faults: impl IntoIterator<Item = Fault>) -> Row {
    Row {
        name,
        faults: faults.into_iter().collect(),
        answers: Vec::new(),
        properties: "",
        live: false,
        warnings: &[],
        retries: 0,
        left: 0,
        also: |_| (),
    }
}

impl Row {
    /// Each of the faults fails one attempt; together they are one outage.
    fn fails(self) -> Self {
        Self {
            retries: self.faults.len() as u64,
            warnings: &[OUTAGE],
            ..self
        }
    }

    /// The server is given up after this duration.
    fn impatient(self) -> Self {
        Self {
            properties: "request-timeout=1000000000",
            ..self
        }
    }

    fn also(self, also: fn(&Ran)) -> Self {
        Self { also, ..self }
    }
}

/// Whether the server ends the connection with it.
fn ends_connection(fault: &Fault) -> bool {
    !matches!(
        fault,
        Fault::Pass
            | Fault::Answer(_)
            | Fault::Informational(_)
            | Fault::Compressed(_)
            | Fault::CompressedReply
            | Fault::SlowDrain { .. }
            | Fault::WrongCrcInReply
            | Fault::ShortObject
    )
}

/// Runs a row in this way and with this muxer.
fn run(row: &Row, way: &str, muxer: &str) {
    let what = format!("{}, {muxer}, {way:?}", row.name);
    let (server, spool) = (GcsServer::spawn_thread(), Spool::new());
    row.faults.iter().for_each(|f| server.push_fault(f.clone()));
    row.answers.iter().for_each(|a| server.push_object_fault(a.clone()));
    let pace = if row.live { "identity sync=true !" } else { "" };
    let folder = if way.is_empty() { String::new() } else { spool.property() };
    let properties = format!("max-size-time=1000000000 {way} {folder} {}", row.properties);
    let line = Line::new(&format!("{CAMERA} ! {pace} {muxer}"), &server, &properties);
    line.play();
    let (end, words) = line.wait();
    assert_eq!(end, End::Eos, "{what}: {words:?}");
    assert_eq!(server.faults_left(), 0, "{what}: the faults were met");

    let warnings: Vec<&String> = words.iter().filter(|(kind, _)| *kind == "warning").map(|(_, t)| t).collect();
    assert_eq!(warnings.len(), row.warnings.len(), "{what}: {warnings:#?}");
    for expected in row.warnings {
        assert!(
            warnings.iter().any(|w| w.contains(expected)),
            "{what}: {expected} in {warnings:#?}"
        );
    }
    let ends = words.iter().filter(|(_, t)| t.contains("uploads work again")).count();
    let outages = usize::from(row.warnings.iter().any(|w| w.starts_with("uploads ")));
    assert_eq!(ends, outages, "{what}: the end of the outage is told: {words:?}");

    let input = line.input();
    let (left, chunks) = stored(&server);
    assert_eq!(left, row.left, "{what}: {:?}", server.objects().keys());
    assert!(chunks.len() >= 3, "{what}");
    assert!(joined(&chunks) == input, "{what}: the bucket is not the input");
    let sizes: u64 = chunks.iter().map(|c| c.data.len() as u64).sum();
    let reported = words.iter().filter(|(_, t)| t.starts_with("gcssink-chunk-uploaded")).count();
    assert_eq!(reported, chunks.len(), "{what}: each is told once");
    for (stat, expected) in [
        ("chunks-created", chunks.len() as u64),
        ("chunks-uploaded", chunks.len() as u64),
        ("chunks-dropped", 0),
        ("chunks-pending", 0),
        ("bytes-received", input.len() as u64),
        ("bytes-uploaded", sizes),
        ("bytes-dropped", 0),
        ("bytes-in-memory", 0),
        ("bytes-in-spool", 0),
    ] {
        assert_eq!(line.stat(stat), expected, "{what}: {stat}");
    }
    // A connection that the server ends may have been taken for the next request already, which fails then without a fault of
    // its own (RFC 9112 9.6).
    let ended = row.faults.iter().filter(|f| ends_connection(f)).count() as u64;
    let retries = line.stat("retries");
    assert!(
        (row.retries..=row.retries + ended).contains(&retries),
        "{what}: {retries} retries, not {} and at most {ended} more",
        row.retries
    );
    line.stop();
    assert_eq!(spool.files(), Vec::<PathBuf>::new(), "{what}");
    (row.also)(&Ran { server, chunks, words });
}

/// The chunks, each sequence number once and none missing, under the name they were stored by at last; and how many other
/// objects there are.
fn stored(server: &GcsServer) -> (usize, Vec<Chunk>) {
    let all = chunks(server);
    let mut by_sequence: BTreeMap<u64, Chunk> = BTreeMap::new();
    let mut left = 0;
    for chunk in all {
        let sequence = chunk.number("sequence");
        match by_sequence.get(&sequence) {
            Some(other) if other.object.generation > chunk.object.generation => left += 1,
            other => {
                left += usize::from(other.is_some());
                by_sequence.insert(sequence, chunk);
            }
        }
    }
    assert!(
        by_sequence.keys().copied().eq(0..by_sequence.len() as u64),
        "{:?}",
        by_sequence.keys()
    );
    (left, by_sequence.into_values().collect())
}

/// Every row in its turn, or in all ways.
fn run_all(rows: Vec<Row>) {
    let all = std::env::var("GCSTREAMER_FAULTS").is_ok_and(|v| v == "all");
    for (i, row) in rows.iter().enumerate() {
        for (k, way) in SPOOL_USES.iter().enumerate().filter(|(k, _)| all || i % 3 == *k) {
            run(row, way, MUXERS[(i + i / 4 + k) % 4]);
        }
    }
}

fn times(n: usize, fault: Fault) -> Vec<Fault> {
    vec![fault; n]
}

fn after_a_success(fault: Fault) -> Vec<Fault> {
    vec![Fault::Pass, fault]
}

fn refused_later(name: &'static str, fault: Fault) -> Row {
    Row {
        live: true,
        retries: 1,
        warnings: &["uploads are refused: "],
        ..row(name, after_a_success(fault))
    }
}

#[test]
fn an_overloaded_server_is_left_alone_for_a_while() {
    run_all(vec![
        row("429 with Retry-After", [Fault::retry_after(429, "1")])
            .fails()
            .also(|ran| {
                let at: Vec<_> = ran.server.uploads().iter().map(|r| r.at).collect();
                // The three chunks were on their way already; what follows heeds the wish.
                let longest = at.windows(2).map(|w| w[1].duration_since(w[0])).max().unwrap();
                assert!(longest >= Duration::from_millis(800), "{longest:?}");
            }),
        row("500 storm", times(5, Fault::status(500))).fails(),
        row("502 storm", times(5, Fault::status(502))).fails(),
        row("503 storm", times(5, Fault::status(503))).fails(),
        row("504 storm", times(5, Fault::status(504))).fails(),
        row("503 with Retry-After", [Fault::retry_after(503, "1")]).fails(),
        row("409, another request is under way", times(2, Fault::status(409))).fails(),
        row("103 before the answer", times(3, Fault::Informational(vec![100, 103]))),
        row(
            "answers in the middle of the body",
            times(2, Fault::EarlyAnswer(Answer::status(503))),
        )
        .fails(),
        row(
            "everything in turn",
            [
                Fault::status(503),
                Fault::ResetIn(100_000),
                Fault::status(408),
                Fault::TruncatedReply,
                Fault::ResetBefore,
                Fault::retry_after(429, "0"),
            ],
        )
        .fails(),
    ]);
}

#[test]
fn a_connection_that_breaks_is_made_again() {
    run_all(vec![
        row("reset before the body", times(2, Fault::ResetBefore)).fails(),
        row("reset in the body", times(2, Fault::ResetIn(100_000))).fails(),
        row("reset after the body, not stored", [Fault::ResetAfterBody { stored: false }]).fails(),
        row("412 after a lost reply", [Fault::ResetAfterBody { stored: true }]).fails(),
        row("truncated reply", times(2, Fault::TruncatedReply)).fails(),
        row("compressed reply", times(2, Fault::CompressedReply)).fails(),
        row("compressed policy", [Fault::Compressed(Answer::policy())]).fails(),
        row(
            "compressed policy after a lost reply",
            [Fault::ResetAfterBody { stored: false }, Fault::Compressed(Answer::policy())],
        )
        .fails(),
        Row {
            // Reading it is not permitted, but its name shows that it is ours.
            answers: vec![Answer::status(403)],
            ..row(
                "412 after a lost reply, without permission to look",
                [Fault::ResetAfterBody { stored: true }],
            )
            .fails()
        },
    ]);
}

#[test]
fn a_server_that_falls_silent_is_given_up_and_asked_again() {
    run_all(vec![
        row("stall before the body", [Fault::StallBefore]).fails().impatient(),
        row("stall in the body", [Fault::StallIn(100_000)]).fails().impatient(),
        row("stall after the body, not stored", [Fault::StallAfterBody { stored: false }])
            .fails()
            .impatient(),
        row("stall after the body, stored", [Fault::StallAfterBody { stored: true }])
            .fails()
            .impatient(),
        Row {
            properties: "request-timeout=5000000000",
            ..row(
                "slow drain",
                [Fault::SlowDrain {
                    bytes_per_second: 400_000,
                }],
            )
        },
    ]);
}

#[test]
fn a_policy_of_the_organisation_stores_nothing_and_every_chunk_stays() {
    for (i, way) in SPOOL_USES.iter().enumerate() {
        let (server, spool) = (GcsServer::spawn_thread(), Spool::new());
        // With the role objectCreator neither reading nor deleting is permitted.
        times(300, Fault::Answer(Answer::policy()))
            .into_iter()
            .for_each(|f| server.push_fault(f));
        (0..300).for_each(|_| server.push_object_fault(Answer::status(403)));
        let folder = if way.is_empty() { String::new() } else { spool.property() };
        let line = Line::new(
            &format!("{CAMERA} ! {}", MUXERS[i]),
            &server,
            &format!("max-size-time=1000000000 {way} {folder}"),
        );
        line.play();
        let (end, words) = line.wait();
        let End::Error(text) = &end else { panic!("{words:?}") };
        for part in [
            "412",
            "constraints/gcp.restrictNonCmekServices",
            "orgPolicyConstraintFailed",
            "nothing was stored",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(
            words.iter().all(|(_, t)| !t.starts_with("gcssink-chunk-uploaded")),
            "{words:?}"
        );
        assert_eq!((line.stat("chunks-uploaded"), server.objects().len()), (0, 0));
        let created = usize::try_from(line.stat("chunks-created")).unwrap();
        line.stop();
        if *way == SPOOL_USES[2] {
            assert!(
                created > 0 && spool.chunk_files().len() >= created,
                "{created}: {:?}",
                spool.files()
            );
        }
        let looks = server.requests().iter().filter(|r| r.method == "GET").count();
        assert_eq!(looks, 0, "a policy is no question of what stands there");
    }
}

#[test]
fn what_the_server_refuses_later_is_tried_again_once_it_is_allowed() {
    run_all(vec![
        refused_later("412 of a policy after a success", Fault::Answer(Answer::policy())).also(|ran| {
            let reported =
                |(kind, text): &(&str, String)| *kind == "warning" && text.contains("constraints/gcp.restrictNonCmekServices");
            assert!(ran.words.iter().any(reported), "{:?}", ran.words);
            assert!(ran.chunks.iter().all(|c| !c.name.contains("-r")), "under their own names");
        }),
        // A token that has expired costs nothing but the request.
        row("401 once", [Fault::status(401)]),
        refused_later("403 after a success", Fault::status(403)),
        refused_later("404 after a success", Fault::status(404)),
        refused_later("400 after a success", Fault::status(400)),
        refused_later("411 after a success", Fault::status(411)),
        Row {
            faults: vec![Fault::Pass, Fault::status(401), Fault::status(401)],
            ..refused_later("401 twice after a success", Fault::Pass)
        },
    ]);
}

#[test]
fn a_damaged_object_is_replaced_or_left_and_reported() {
    run_all(vec![
        row("wrong CRC in the reply, delete allowed", [Fault::WrongCrcInReply]),
        row("the last byte is missing, delete allowed", [Fault::ShortObject]),
        Row {
            answers: vec![Answer::status(403)],
            warnings: &["may not be deleted"],
            left: 1,
            ..row("wrong CRC in the reply, delete refused", [Fault::WrongCrcInReply])
        }
        .also(again_under_another_name),
        // The next attempt would meet it under its own name, and who may not look would take it for the chunk.
        Row {
            answers: vec![Answer::status(503)],
            warnings: &["could not be deleted"],
            left: 1,
            ..row("wrong CRC in the reply, delete fails", [Fault::WrongCrcInReply])
        }
        .also(again_under_another_name),
        Row {
            answers: vec![Answer::status(403)],
            warnings: &["may not be deleted"],
            left: 1,
            ..row("the last byte is missing, delete refused", [Fault::ShortObject])
        }
        .also(again_under_another_name),
        Row {
            answers: vec![Answer::raw(
                200,
                "application/json",
                &json!({"generation": "5", "size": "1", "crc32c": "AAAAAA=="}).to_string(),
            )],
            warnings: &["is another recording"],
            ..row("412 of a stranger's object", [Fault::status(412)])
        }
        .also(again_under_another_name),
    ]);
}

fn again_under_another_name(ran: &Ran) {
    let renamed: Vec<&Chunk> = ran.chunks.iter().filter(|c| c.name.contains("-r1.")).collect();
    assert_eq!(renamed.len(), 1, "{:?}", ran.words);
    let reported = ran
        .words
        .iter()
        .any(|(kind, t)| *kind == "warning" && t.contains(&renamed[0].name));
    assert!(reported, "the WARNING names the object: {:?}", ran.words);
}

#[test]
fn a_clock_that_is_wrong_is_reported_once_and_dates_nothing() {
    for (i, way) in SPOOL_USES.iter().enumerate() {
        let (server, spool) = (GcsServer::spawn_thread(), Spool::new());
        server.set_skew(-3600);
        let folder = if way.is_empty() { String::new() } else { spool.property() };
        let properties = format!("max-size-time=1000000000 {way} {folder}");
        let line = Line::new(
            &format!("{CAMERA} ! identity sync=true ! {}", MUXERS[i]),
            &server,
            &properties,
        );
        line.play();
        let (end, words) = line.wait();
        assert_eq!(end, End::Eos, "{words:?}");
        let warnings: Vec<_> = words.iter().filter(|(kind, _)| *kind == "warning").collect();
        assert_eq!(warnings.len(), 1, "{words:?}");
        assert!(warnings[0].1.contains("clock is 60 minutes ahead"), "{warnings:?}");
        let (_, chunks) = stored(&server);
        assert!(joined(&chunks) == line.input());
        let last = chunks.last().unwrap();
        assert!(last.object.meta["customTime"].is_null(), "{way}: {:?}", last.object.meta);
        assert_eq!(last.get("clock"), "suspect", "{way}");
    }
}

#[test]
fn a_redirect_is_not_followed() {
    for (i, status) in [307, 308, 302].into_iter().enumerate() {
        let elsewhere = GcsServer::spawn_thread();
        let location = format!("{}/upload/storage/v1/b/{BUCKET}/o?name=x", elsewhere.endpoint());
        let redirect = Fault::Answer(Answer::status(status).header("Location", &location));
        run(&row("redirect", [redirect]).fails(), SPOOL_USES[i], MUXERS[i]);
        assert!(elsewhere.requests().is_empty(), "{status}: {:?}", elsewhere.requests());
    }
}

#[test]
fn a_strangers_object_keeps_its_name() {
    for (i, way) in SPOOL_USES.iter().enumerate() {
        let (server, spool) = (GcsServer::spawn_thread(), Spool::new());
        let generation = server.put(BUCKET, "all.bin", b"somebody's");
        let folder = if way.is_empty() { String::new() } else { spool.property() };
        let line = Line::new(
            &format!("{CAMERA} ! {}", MUXERS[i]),
            &server,
            &format!("location=all.bin {} {folder}", way.replace("1048576", "8388608")),
        );
        line.play();
        let (end, words) = line.wait();
        assert_eq!(end, End::Eos, "{words:?}");
        let theirs = server.object(BUCKET, "all.bin").unwrap();
        assert_eq!((theirs.generation, &theirs.data[..]), (generation, &b"somebody's"[..]));
        server.remove(BUCKET, "all.bin");
        let (left, chunks) = stored(&server);
        assert_eq!((left, chunks.len()), (0, 1));
        assert!(joined(&chunks) == line.input());
        let tag = format!("all_{}_000000.bin", chunks[0].get("session-id"));
        assert_eq!(chunks[0].name, tag);
        let warnings: Vec<_> = words.iter().filter(|(kind, _)| *kind == "warning").collect();
        assert!(warnings.len() == 1 && warnings[0].1.contains(&tag), "{words:?}");
        line.stop();
        assert_eq!(spool.files(), Vec::<PathBuf>::new());
    }
}

#[test]
fn nobody_listens_for_a_while_and_then_everything_arrives() {
    for (i, way) in SPOOL_USES.iter().enumerate() {
        let (later, unused, spool) = (ServerToStart::new(), GcsServer::spawn_thread(), Spool::new());
        let folder = if way.is_empty() { String::new() } else { spool.property() };
        let properties = format!("max-size-time=1000000000 {way} {folder} {}", later.property());
        let line = Line::new(&format!("{CAMERA} ! {}", MUXERS[i]), &unused, &properties);
        line.play();
        let is_outage = |m: &gst::MessageRef| matches!(m.view(), gst::MessageView::Warning(_));
        let (_, mut words) = line.wait_for(Duration::from_secs(20), is_outage);
        let server = later.start();
        let (end, more) = line.wait();
        words.extend(more);
        assert_eq!(end, End::Eos, "{words:?}");
        let warnings: Vec<_> = words.iter().filter(|(kind, _)| *kind == "warning").collect();
        assert!(warnings.len() == 1 && warnings[0].1.contains(OUTAGE), "{words:?}");
        let (left, chunks) = stored(&server);
        assert_eq!(left, 0);
        assert!(joined(&chunks) == line.input(), "{way}");
        line.stop();
        assert_eq!(spool.files(), Vec::<PathBuf>::new());
    }
}

#[test]
fn a_name_that_does_not_resolve_is_an_outage_and_no_error() {
    let (unused, spool) = (GcsServer::spawn_thread(), Spool::new());
    let properties = format!(
        "max-size-time=1000000000 {} endpoint-uri=http://storage.invalid drain-timeout=1500000000",
        spool.property()
    );
    let line = Line::new(&format!("{CAMERA} ! mpegtsmux"), &unused, &properties);
    line.play();
    let (end, words) = line.wait();
    assert_eq!(end, End::Eos, "{words:?}");
    let warnings: Vec<_> = words.iter().filter(|(kind, _)| *kind == "warning").map(|(_, t)| t).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(
        warnings[0].contains(OUTAGE) && warnings[0].contains("storage.invalid"),
        "{warnings:?}"
    );
    assert!(warnings[1].contains("wait in spool-dir"), "{warnings:?}");
    line.stop();
    assert_eq!(spool.chunk_files().len(), 3);
}

/// The ERROR of a line, and the server it was sent to.
fn error_of(faults: Vec<Fault>, properties: &str) -> (String, GcsServer) {
    let server = GcsServer::spawn_thread();
    faults.into_iter().for_each(|f| server.push_fault(f));
    let line = Line::new(&format!("{CAMERA} ! mpegtsmux"), &server, properties);
    line.play();
    let (end, words) = line.wait();
    let End::Error(text) = end else {
        panic!("no error: {words:?}")
    };
    assert!(words.iter().all(|(kind, _)| *kind != "warning"), "{words:?}");
    line.stop();
    (text, server)
}

#[test]
fn what_is_refused_before_anything_was_stored_is_an_error_that_says_what_to_do() {
    for (status, next) in [
        (400, "400"),
        (401, "credentials-file"),
        (403, "storage.objects.create"),
        (404, "property bucket"),
        (411, "411"),
    ] {
        let (text, server) = error_of(times(20, Fault::status(status)), "location=all.ts");
        assert!(text.contains(next), "{status}: {text}");
        assert!(server.objects().is_empty());
    }
}

#[test]
fn a_refusal_ends_a_recording_only_when_nothing_more_can_be_kept() {
    let server = GcsServer::spawn_thread();
    server.push_fault(Fault::Pass);
    times(200, Fault::status(403)).into_iter().for_each(|f| server.push_fault(f));
    let camera = CAMERA.replace("num-buffers=45", "num-buffers=450");
    // A second of memory is filled at four times the speed of a camera.
    let line = Line::new(
        &format!("{camera} ! identity sync=true ! mpegtsmux"),
        &server,
        "max-size-time=1000000000 max-memory-bytes=3000000 overflow-policy=drop-oldest",
    );
    line.play();
    let (end, words) = line.wait();
    assert!(
        matches!(&end, End::Error(text) if text.contains("uploads are refused")),
        "{words:?}"
    );
    let warnings = words.iter().filter(|(kind, _)| *kind == "warning").count();
    assert_eq!(warnings, 1, "{words:?}");
    assert!(line.stat("bytes-in-memory") <= 3_000_000);
    assert_eq!(line.stat("chunks-uploaded"), 1);
}

/// The upload scenarios of Google's retry conformance tests: `storage/v1/retry_tests.json` of
/// <https://github.com/googleapis/conformance-tests> (Apache-2.0), the cases that name `storage.objects.insert`. An upload here
/// always has its precondition.
#[test]
fn googles_retry_conformance_cases_for_uploads_hold() {
    let instruction = |name: &str| match name {
        "return-503" => Fault::status(503),
        "return-reset-connection" => Fault::ResetBefore,
        "return-400" => Fault::status(400),
        "return-401" => Fault::status(401),
        other => panic!("{other}"),
    };
    // Scenario 2, conditionally_idempotent_retries_when_precondition_is_present.
    let retried = [
        ["return-503", "return-503"],
        ["return-reset-connection", "return-reset-connection"],
        ["return-reset-connection", "return-503"],
    ];
    for (i, instructions) in retried.into_iter().enumerate() {
        run(
            &row("conformance", instructions.map(instruction)).fails(),
            SPOOL_USES[i],
            MUXERS[i],
        );
    }
    // Scenario 6, non-retryable errors. Of 401 one more is reported by the contract: with fresh credentials.
    for (instructions, requests) in [(["return-400", "return-400"], 1), (["return-401", "return-401"], 2)] {
        let (_, server) = error_of(instructions.map(instruction).into(), "location=all.ts");
        assert_eq!(server.uploads().len(), requests, "{instructions:?}");
    }
}
