//! Resident memory keeps to `max-memory-bytes`, whatever the camera sends and whatever the server answers: growth of at most a quarter
//! more than the limit, and 32 MiB. Each case is a process of its own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::print_stderr
)]

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use gst::prelude::*;

mod common;

/// Resident memory of this process, bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// The most that it was since the process began, bytes.
fn peak() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// Runs one of the cases below in a process of its own.
fn child(case: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", case, "--ignored", "--nocapture"])
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

/// One FLV tag.
fn tag(kind: u8, ms: u32, body: &[u8]) -> Vec<u8> {
    let len = body.len() as u32;
    let [_, a, b, c] = len.to_be_bytes();
    let [d, e, f, g] = ms.to_be_bytes();
    [&[kind, a, b, c, e, f, g, d, 0, 0, 0][..], body, &(len + 11).to_be_bytes()].concat()
}

/// FLV of this many configurations, each with one key frame of `picture` bytes; `sound` bytes of configuration are in front of each
/// chunk, and `alike` of the configurations take turns.
fn flv(cuts: u32, alike: u32, sound: usize, picture: usize) -> Vec<u8> {
    let sound = [&[0xaf, 0, 0x12, 0x10][..], &vec![7; sound]].concat();
    let mut stream = [&b"FLV\x01\x05\0\0\0\x09\0\0\0\0"[..], &tag(8, 0, &sound)].concat();
    for cut in 0..cuts {
        let [.., high, low] = (cut % alike).to_be_bytes();
        let config = [
            0x17, 0, 0, 0, 0, 1, 100, 0, 30, 0xff, 0xe1, 0, 6, 0x67, 100, 0, 30, high, low, 1, 0, 2, 0x68, 0xee,
        ];
        stream.extend(tag(9, cut * 40, &config));
        let len = picture as u32;
        let key = [&[0x17, 1, 0, 0, 0][..], &len.to_be_bytes(), &[0x65], &vec![0x88; picture - 1]].concat();
        stream.extend(tag(9, cut * 40, &key));
    }
    stream
}

/// Pushes this in buffers of `block` bytes into a sink with `properties` and a server that does not run; returns by how much the
/// resident memory grew at most.
fn pushed(stream: &[u8], block: usize, endpoint: &str, properties: &str) -> u64 {
    common::init();
    let line = format!(
        "appsrc name=a caps=video/x-flv format=bytes is-live=true block=true max-bytes=1000000 ! gcssink name=s bucket=cam-bucket device-id=memory \
         endpoint-uri={endpoint} max-requests-per-second=0 {properties}"
    );
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    let source = pipeline.by_name("a").unwrap();
    let push = |bytes: &[u8]| {
        let buffer = gst::Buffer::from_slice(bytes.to_vec());
        let flow: gst::FlowReturn = source.emit_by_name("push-buffer", &[&buffer]);
        assert_eq!(flow, gst::FlowReturn::Ok);
    };
    // What an application leaves on its bus is its own memory.
    pipeline.bus().unwrap().set_sync_handler(|_, message| {
        assert_ne!(message.type_(), gst::MessageType::Error, "{message:?}");
        gst::BusSyncReply::Drop
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    push(&stream[..13]);
    std::thread::sleep(Duration::from_millis(300));
    let before = resident();
    let mut most = before;
    for piece in stream[13..].chunks(block) {
        push(piece);
        most = most.max(resident());
    }
    let (began, sink) = (Instant::now(), pipeline.by_name("s").unwrap());
    // A spool has until then to take what is in memory.
    let waits = || {
        sink.property::<gst::Structure>("stats")
            .get::<u64>("bytes-in-memory")
            .unwrap()
            > 100_000
    };
    let is_on_disk = properties.contains("spool-dir");
    while began.elapsed() < Duration::from_secs(2) || (is_on_disk && waits() && began.elapsed() < Duration::from_secs(60)) {
        most = most.max(resident());
        std::thread::sleep(Duration::from_millis(20));
    }
    most = most.max(peak());
    pipeline.set_state(gst::State::Null).unwrap();
    most - before
}

/// The most that the memory may grow by under this `max-memory-bytes`.
fn allowed(limit: u64) -> u64 {
    limit + limit / 4 + (32 << 20)
}

/// Where no server listens.
fn nowhere() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

fn assert_kept(grown: u64, limit: u64) {
    let allowed = allowed(limit);
    eprintln!("grew by {} KiB of {} KiB", grown >> 10, allowed >> 10);
    assert!(grown <= allowed, "grew by {} KiB of {} KiB", grown >> 10, allowed >> 10);
}

#[test]
#[ignore = "a case of other tests"]
fn case_alternating_configurations() {
    // 4 MB, as one buffer.
    let limit = 64 << 20;
    let stream = flv(40_000, 2, 48_000, 40);
    let properties = format!("max-memory-bytes={limit} overflow-policy=drop-oldest");
    assert_kept(pushed(&stream, 8 << 20, &nowhere(), &properties), limit);
}

#[test]
#[ignore = "a case of other tests"]
fn case_configurations_that_are_all_different() {
    let limit = 64 << 20;
    let stream = flv(40_000, 60_000, 48_000, 40);
    let properties = format!("max-memory-bytes={limit} overflow-policy=drop-oldest");
    assert_kept(pushed(&stream, 1 << 20, &nowhere(), &properties), limit);
}

#[test]
#[ignore = "a case of other tests"]
fn case_tiny_chunks() {
    let limit = 16 << 20;
    // All of one configuration: it is the time that cuts.
    let stream = flv(100_000, 1, 10, 40);
    let properties = format!("max-memory-bytes={limit} max-size-time=40000000 overflow-policy=drop-oldest");
    assert_kept(pushed(&stream, 200, &nowhere(), &properties), limit);
}

#[test]
#[ignore = "a case of other tests"]
fn case_tiny_chunks_on_disk() {
    let limit = 16 << 20;
    let stream = flv(100_000, 1, 10, 40);
    // What is counted is this process's memory: the disk may be one of memory, where syncs take no time.
    let shm = std::path::Path::new("/dev/shm");
    let below = if shm.is_dir() {
        shm
    } else {
        env!("CARGO_TARGET_TMPDIR").as_ref()
    };
    let folder = tempfile::tempdir_in(below).unwrap();
    let properties = format!(
        "max-memory-bytes={limit} max-size-time=40000000 overflow-policy=block spool-dir={} max-spool-bytes=2000000000",
        folder.path().display()
    );
    assert_kept(pushed(&stream, 200, &nowhere(), &properties), limit);
    let mut files = 0;
    let mut dirs = vec![folder.path().to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => dirs.push(entry.path()),
                false => files += 1,
            }
        }
    }
    assert!(files > 99_000, "{files} files");
}

#[test]
#[ignore = "a case of other tests"]
fn case_chunks_that_fill_half_a_block() {
    let limit = 32 << 20;
    let stream = flv(2_000, 2, 10, 140_000);
    let properties = format!("max-memory-bytes={limit} overflow-policy=drop-oldest");
    assert_kept(pushed(&stream, 20_000, &nowhere(), &properties), limit);
}

/// Pushes 100 MB into one object whose spool holds 20 MB. Returns the growth of the memory, and the ERROR.
fn one_object(policy: &str, mode: &str) -> (u64, Option<String>) {
    common::init();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let line = format!(
        "appsrc name=a caps=video/x-flv format=bytes is-live=true block=true max-bytes=1000000 ! gcssink name=s bucket=cam-bucket device-id=memory \
         location=one.flv endpoint-uri={} max-memory-bytes={ONE_OBJECT} max-spool-bytes=20000000 spool-dir={} spool-mode={mode} \
         overflow-policy={policy} shutdown-timeout=1000000000",
        nowhere(),
        folder.path().display()
    );
    let pipeline = gst::parse::launch(&line).unwrap().downcast::<gst::Pipeline>().unwrap();
    let source = pipeline.by_name("a").unwrap();
    let head = flv(1, 1, 10, 1000);
    let picture = [
        &[0x17, 1, 0, 0, 0][..],
        &99_996u32.to_be_bytes(),
        &[0x65],
        &vec![0x88; 99_995],
    ]
    .concat();
    let bus = pipeline.bus().unwrap();
    let (tell, reported) = std::sync::mpsc::channel();
    bus.set_sync_handler(move |_, message| {
        if let gst::MessageView::Error(e) = message.view() {
            let _ = tell.send(e.error().to_string());
        }
        gst::BusSyncReply::Drop
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let pushed = source.emit_by_name::<gst::FlowReturn>("push-buffer", &[&gst::Buffer::from_slice(head)]);
    assert_eq!(pushed, gst::FlowReturn::Ok);
    std::thread::sleep(Duration::from_millis(300));
    let before = resident();
    // The source blocks where the policy is to wait.
    let pushing = std::thread::spawn(move || {
        for n in 1..1000 {
            let buffer = gst::Buffer::from_slice(tag(9, n * 40, &picture));
            if source.emit_by_name::<gst::FlowReturn>("push-buffer", &[&buffer]) != gst::FlowReturn::Ok {
                return;
            }
        }
    });
    // With `block` none comes: by then the spool and the memory are full.
    let error = reported
        .recv_timeout(Duration::from_secs(if policy == "block" { 10 } else { 60 }))
        .ok();
    let grown = peak() - before;
    if policy == "block" {
        let stats = pipeline.by_name("s").unwrap().property::<gst::Structure>("stats");
        let received = stats.get::<u64>("bytes-received").unwrap();
        assert!(
            (20_000_000..40_000_000).contains(&received),
            "it waits for the spool: {received}"
        );
    }
    pipeline.set_state(gst::State::Null).unwrap();
    pushing.join().unwrap();
    (grown, error)
}

/// `max-memory-bytes` of [`one_object`].
const ONE_OBJECT: u64 = 8 << 20;

#[test]
#[ignore = "a case of other tests"]
fn case_one_object_and_a_full_spool() {
    for mode in ["always", "overflow"] {
        for policy in ["drop-oldest", "error"] {
            let (grown, error) = one_object(policy, mode);
            assert_kept(grown, ONE_OBJECT);
            let text = error.unwrap_or_default();
            assert!(
                text.contains("spool-dir takes no more of it") && text.contains("(8.4 MB)"),
                "{text}"
            );
        }
        let (grown, error) = one_object("block", mode);
        assert_kept(grown, ONE_OBJECT);
        assert_eq!(error, None);
    }
}

#[test]
fn one_object_keeps_to_max_memory_bytes_when_the_spool_is_full() {
    child("case_one_object_and_a_full_spool");
}

/// Answers every request with this head, and after that with the same piece for ever.
fn endless(head: &'static str, piece: &'static [u8], pause: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            std::thread::spawn(move || {
                let mut request = [0; 65_536];
                let _ = connection.read(&mut request);
                let _ = connection.write_all(head.as_bytes());
                while connection.write_all(piece).is_ok() {
                    std::thread::sleep(pause);
                }
            });
        }
    });
    endpoint
}

fn answered(head: &'static str, piece: &'static [u8], pause: Duration) {
    let limit = 8 << 20;
    let endpoint = endless(head, piece, pause);
    let stream = flv(40, 2, 10, 1000);
    let properties = format!("max-memory-bytes={limit} request-timeout=1000000000 overflow-policy=drop-oldest");
    assert_kept(pushed(&stream, 1000, &endpoint, &properties), limit);
}

static PIECE: [u8; 65_536] = [b' '; 65_536];

macro_rules! answers {
    ($($name:ident: $head:expr, $piece:expr, $pause:expr;)*) => {
        $(
            #[test]
            #[ignore = "a case of other tests"]
            fn $name() {
                answered($head, $piece, Duration::from_micros($pause));
            }
        )*
    };
}

answers! {
    case_endless_500: "HTTP/1.1 500 Oops\r\nContent-Length: 1000000000000\r\n\r\n", &PIECE, 0;
    case_endless_412: "HTTP/1.1 412 Oops\r\nContent-Length: 1000000000000\r\n\r\n", &PIECE, 0;
    case_endless_200: "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n", &PIECE, 0;
    case_endless_until_the_end: "HTTP/1.1 503 Busy\r\n\r\n", &PIECE, 0;
    case_endless_header: "HTTP/1.1 500 Oops\r\nX: ", &PIECE, 0;
    case_endless_headers: "HTTP/1.1 500 Oops\r\n", b"A: b\r\n", 0;
    case_endless_interim_answers: "", b"HTTP/1.1 102 Processing\r\n\r\n", 0;
    case_endless_trickle: "HTTP/1.1 200 OK\r\nContent-Length: 1000000000000\r\n\r\n", b" ", 10_000;
}

#[test]
fn configurations_that_take_turns_keep_to_max_memory_bytes() {
    child("case_alternating_configurations");
    child("case_configurations_that_are_all_different");
}

#[test]
fn a_hundred_thousand_tiny_chunks_keep_to_max_memory_bytes_while_the_network_is_away() {
    child("case_tiny_chunks");
}

#[test]
fn a_hundred_thousand_tiny_chunks_on_disk_keep_to_max_memory_bytes_too() {
    child("case_tiny_chunks_on_disk");
}

#[test]
fn chunks_that_fill_half_a_block_keep_to_max_memory_bytes() {
    child("case_chunks_that_fill_half_a_block");
}

#[test]
fn an_answer_that_never_ends_fills_no_memory() {
    child("case_endless_500");
    child("case_endless_412");
    child("case_endless_200");
    child("case_endless_until_the_end");
    child("case_endless_header");
    child("case_endless_headers");
    child("case_endless_interim_answers");
    child("case_endless_trickle");
}
