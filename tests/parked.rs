//! Who may write into `spool-dir` decides neither where credentials go nor whether this recording is well: chunks that name another
//! endpoint wait there for the sink that the user gives that endpoint.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/proxy.rs"]
mod proxy;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use common::gcs_server::{Answer, Fault, GcsServer, Request};
use common::places::{ServerToStart, Spool};
use common::tls::{Authority, credentials_file, token};
use common::*;
use gst::prelude::*;
use gstgcstreamer::spool::{ClosedEntry, Entry, Spool as Store, disk::StdDisk};
use proxy::Proxy;

const DATA: &[u8] = b"pictures";

/// Writes a chunk as a sink of `endpoint` would have left it; `session` is ten characters.
fn plant(spool: &Spool, session: &str, endpoint: Option<&str>) -> String {
    let data = bytes::Bytes::from_static(DATA);
    let store = Store::open(std::sync::Arc::new(StdDisk), &spool.dir(), 1 << 30).unwrap();
    let folder = store.session("planted", session).unwrap();
    let name = format!("planted/{session}_000000.ts");
    let entry = Entry {
        session: session.into(),
        device: "planted".into(),
        bucket: BUCKET.into(),
        endpoint: endpoint.map(str::to_owned),
        anonymous: endpoint.is_some_and(|e| e.starts_with("http://")),
        name: name.clone(),
        own_name: true,
        container: "mpegts".into(),
        start: 1_767_225_600_000_000_000,
        duration: 10_000_000_000,
        clock: "system".into(),
        metadata: [("device-id".to_owned(), "planted".to_owned())].into(),
        ..Entry::default()
    };
    let mut open = folder.create(&entry).unwrap();
    open.append(0, std::slice::from_ref(&data)).unwrap();
    let (size, crc32c) = (8, crc32c::crc32c(&data));
    open.finish(&ClosedEntry { entry, size, crc32c }).unwrap();
    name
}

fn live() -> String {
    h264(60).replace("videotestsrc", "videotestsrc is-live=true") + " ! mpegtsmux"
}

fn warnings(words: &Messages) -> Vec<&str> {
    let warnings = words.iter().filter(|(kind, _)| *kind == "warning");
    warnings.map(|(_, text)| text.as_str()).collect()
}

/// What the messages said of the status, in order.
fn statuses(words: &Messages) -> Vec<String> {
    let messages = words.iter().filter(|(_, text)| text.starts_with("gcssink-status"));
    let status = |text: &str| {
        text.split("status=(string)")
            .nth(1)?
            .split([',', ';'])
            .next()
            .map(str::to_owned)
    };
    messages.filter_map(|(_, text)| status(text)).collect()
}

fn authorizations(requests: &[Request]) -> Vec<Option<&str>> {
    requests.iter().map(|r| r.header("authorization")).collect()
}

/// Goes on until `is_enough`, then sends an EOS; how long that took, and all words.
fn run(line: &Line, is_enough: impl Fn() -> bool) -> (Duration, Messages) {
    line.play();
    let until = Instant::now() + Duration::from_secs(40);
    let mut words = Messages::new();
    while !is_enough() {
        assert!(Instant::now() < until, "{words:?}");
        // There is a message at least each second: a chunk is stored.
        words.extend(line.wait_for(Duration::from_secs(20), |_| true).1);
    }
    assert_eq!(statuses(&words), ["online"], "{words:?}");
    let began = Instant::now();
    line.pipeline.send_event(gst::event::Eos::new());
    let (end, rest) = line.wait();
    words.extend(rest);
    assert_eq!(end, End::Eos, "{words:?}");
    (began.elapsed(), words)
}

/// TLS, proxies and credentials depend on the environment, so each case runs in a process of its own, with a folder of its own.
fn in_a_process_of_its_own(case: &str) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let port = ServerToStart::new().0;
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", case, "--ignored", "--nocapture"]);
    for name in [
        "https_proxy",
        "ALL_PROXY",
        "all_proxy",
        "HTTP_PROXY",
        "http_proxy",
        "SSL_CERT_DIR",
    ] {
        command.env_remove(name);
    }
    command
        .env("PARKED_TEST_DIR", dir.path())
        .env("SSL_CERT_FILE", dir.path().join("ca.pem"))
        // What would be taken if the sink did not use its own file.
        .env("GOOGLE_APPLICATION_CREDENTIALS", dir.path().join("nobody.json"))
        // Somebody listens there only in the case that wants a proxy.
        .env("HTTPS_PROXY", format!("http://127.0.0.1:{port}"))
        .env("PARKED_TEST_PROXY", port.to_string())
        .env("NO_PROXY", "127.0.0.1,localhost");
    let output = command.output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// The folder of a case, with the file that `SSL_CERT_FILE` names in it.
fn case_dir(authority: &Authority) -> PathBuf {
    let dir = PathBuf::from(std::env::var("PARKED_TEST_DIR").unwrap());
    std::fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
    dir
}

fn properties(spool: &Spool, key: &Path) -> String {
    format!(
        "{} credentials-file={} max-size-time=1000000000 async=false",
        spool.property(),
        key.display()
    )
}

#[test]
fn a_chunk_for_another_endpoint_sees_no_credentials_holds_up_nothing_and_is_stored_by_the_sink_of_that_endpoint() {
    in_a_process_of_its_own("case_two_foreign_endpoints");
}

#[test]
#[ignore = "a case of another test"]
fn case_two_foreign_endpoints() {
    let authority = Authority::new();
    let dir = case_dir(&authority);
    let (own, secure, plain, spool) = (
        authority.server(),
        authority.server(),
        GcsServer::spawn_thread(),
        Spool::new(),
    );
    own.route("/token", token("token-1"));
    let key = credentials_file(&dir, &own);
    let secure_name = plant(&spool, "0a1b2c3d4e", Some(&secure.endpoint()));
    let plain_name = plant(&spool, "0a1b2c3d4f", Some(&plain.endpoint()));
    // A refusal is looked at twice, since a token may have expired. The wish to wait is nothing to this sink's own chunks, and
    // nor is the server's clock.
    let refusal = |status| Fault::Answer(Answer::status(status).header("Retry-After", "3600"));
    (0..2).for_each(|_| secure.push_fault(refusal(401)));
    plain.push_fault(refusal(403));
    secure.set_skew(7200);
    plain.set_skew(7200);

    let line = Line::new(&live(), &own, &properties(&spool, &key));
    let (took, words) = run(&line, || {
        secure.faults_left() + plain.faults_left() == 0 && line.stat("chunks-uploaded") >= 3
    });
    assert!(took < Duration::from_secs(5), "the end waits for them: {took:?}");
    assert_eq!((line.stat("chunks-parked"), line.stat("chunks-pending")), (2, 0));
    assert_eq!((line.stat("chunks-recovered"), line.stat("chunks-dropped")), (2, 0));
    line.stop();
    assert_eq!(statuses(&words)[..2], ["online", "draining"], "{words:?}");
    let said = warnings(&words);
    assert_eq!(said.len(), 2, "one each, and nothing else: {said:?}");
    for server in [&secure, &plain] {
        let names = format!("endpoint-uri={} ", server.endpoint());
        assert!(said.iter().any(|text| text.contains(&names)), "{said:?}");
    }
    assert_eq!(authorizations(&secure.requests()), [None, None]);
    assert_eq!(authorizations(&plain.requests()), [None]);
    assert!(own.uploads().len() >= 3);
    assert!(authorizations(&own.uploads()).iter().all(|a| *a == Some("Bearer token-1")));
    assert_eq!(spool.chunk_files().len(), 2, "they stay in the spool");

    // The user says that he trusts it.
    let front = "videotestsrc num-buffers=15 ! x264enc ! h264parse ! flvmux streamable=true";
    for (server, name) in [(&secure, secure_name), (&plain, plain_name)] {
        let line = Line::new(front, server, &properties(&spool, &key));
        line.play();
        let (end, words) = line.wait();
        assert_eq!(end, End::Eos, "{words:?}");
        line.stop();
        assert_eq!(server.object(BUCKET, &name).expect("it is stored").data, DATA);
    }
    assert_eq!(authorizations(&secure.uploads()).last(), Some(&Some("Bearer token-1")));
    assert!(
        authorizations(&plain.requests()).iter().all(Option::is_none),
        "http:// never gets any"
    );
    assert_eq!(spool.files(), Vec::<PathBuf>::new());
}

#[test]
fn a_chunk_of_googles_is_stored_there_with_the_credentials_file_of_a_sink_on_an_emulator() {
    in_a_process_of_its_own("case_google_behind_a_proxy");
}

#[test]
#[ignore = "a case of another test"]
fn case_google_behind_a_proxy() {
    let authority = Authority::new();
    let dir = case_dir(&authority);
    let google = authority.server_named(&["localhost", "storage.googleapis.com", "googleapis.com.evil"]);
    google.route("/token", token("token-1"));
    let port = std::env::var("PARKED_TEST_PROXY").unwrap().parse().unwrap();
    let proxy = Proxy::start_at(port, Some(google.address()));
    let (emulator, spool) = (GcsServer::spawn_thread(), Spool::new());
    let key = credentials_file(&dir, &google);
    let by_default = plant(&spool, "0a1b2c3d4e", None);
    let by_name = plant(&spool, "0a1b2c3d4f", Some("HTTPS://Storage.GoogleAPIs.com:443/"));
    let not_google = plant(&spool, "0a1b2c3d4g", Some("https://googleapis.com.evil"));
    (0..2).for_each(|_| google.push_fault(Fault::Pass));
    let line = Line::new(&live(), &emulator, &properties(&spool, &key));
    let (_, words) = run(&line, || line.stat("chunks-uploaded") >= 5);
    line.stop();
    for name in [by_default, by_name, not_google] {
        assert!(google.object(BUCKET, &name).is_some(), "{name}: {words:?}");
    }
    let mut seen: Vec<(Option<String>, Option<String>)> = google
        .uploads()
        .iter()
        .map(|r| {
            (
                r.header("host").map(str::to_owned),
                r.header("authorization").map(str::to_owned),
            )
        })
        .collect();
    seen.sort();
    let with = || Some("Bearer token-1".to_owned());
    let host = |name: &str| Some(name.to_owned());
    assert_eq!(
        seen,
        [
            (host("googleapis.com.evil"), None),
            (host("storage.googleapis.com"), with()),
            (host("storage.googleapis.com"), with()),
        ]
    );
    assert!(authorizations(&emulator.requests()).iter().all(Option::is_none));
    assert!(
        proxy
            .targets()
            .iter()
            .all(|t| t.ends_with(".googleapis.com:443") || t == "googleapis.com.evil:443")
    );
}

#[test]
fn an_end_does_not_wait_for_a_foreign_endpoint_that_hangs_nor_for_an_endpoint_that_is_none() {
    let (own, hangs, spool) = (GcsServer::spawn_thread(), GcsServer::spawn_thread(), Spool::new());
    hangs.push_fault(Fault::StallBefore);
    plant(&spool, "0a1b2c3d4e", Some(&hangs.endpoint()));
    plant(&spool, "0a1b2c3d4f", Some("https://user:SECRET@storage.googleapis.com"));
    // With a single place, which the one that hangs has.
    let properties = format!("{} max-size-time=1000000000 async=false max-uploads=1", spool.property());
    let line = Line::new(&live(), &own, &properties);
    let (took, words) = run(&line, || hangs.faults_left() == 0 && line.stat("chunks-uploaded") >= 3);
    assert!(took < Duration::from_secs(5), "{took:?}");
    let began = Instant::now();
    line.stop();
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    let said = warnings(&words);
    assert_eq!(said.len(), 2, "{said:?}");
    assert!(
        said.iter().any(|text| text.contains("holds a user name or password")),
        "{said:?}"
    );
    assert!(!format!("{words:?}").contains("SECRET"), "{words:?}");
    assert_eq!(hangs.requests().len(), 1, "once an hour, though it was broken off");
    assert_eq!(spool.chunk_files().len(), 2);
}
