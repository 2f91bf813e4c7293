//! A recording process is killed at any moment, and nothing is lost that it had taken more than a second before; the order of its
//! system calls that this rests on; a link that is gone for half a minute.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

mod common;
#[path = "common/process.rs"]
mod process;

use std::collections::{BTreeMap, HashMap};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use common::gcs_server::{Answer, Fault, GcsServer};
use common::places::{ServerToStart, Spool};
use common::*;
use gst::prelude::*;
use process::{launch, launch_under};

/// Moments at which the process is killed; `GCSTREAMER_KILLS=50` is what a release is tried with.
fn kills() -> u64 {
    std::env::var("GCSTREAMER_KILLS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(4)
}

/// xorshift64*, so that a failure can be seen again.
fn chance(seed: u64) -> u64 {
    let mut x = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    x ^= x >> 12;
    x ^= x << 25;
    x ^= x >> 27;
    x.wrapping_mul(0x2545_f491_4f6c_dd1d)
}

/// A camera whose muxed bytes go to a file as well, from the same buffers.
fn line(muxer: &str, copy: &str, sink: &str) -> String {
    format!(
        "videotestsrc is-live=true pattern=ball ! video/x-raw,width=320,height=240,framerate=25/1 \
         ! x264enc tune=zerolatency speed-preset=ultrafast bitrate=1500 key-int-max=25 ! h264parse config-interval=-1 ! {muxer} \
         ! tee name=t ! queue ! filesink location={copy} buffer-mode=unbuffered t. ! queue ! {sink}"
    )
}

fn one_kill(seed: u64, muxer: &str) {
    let server = GcsServer::spawn_thread();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let copy = folder.path().join("copy");
    let spool = folder.path().join("spool");
    let properties = format!(
        "bucket={BUCKET} device-id=crash endpoint-uri={} spool-dir={} max-spool-bytes=1000000000 max-size-time=1000000000 max-bytes-per-second=400000",
        server.endpoint(),
        spool.display()
    );
    let mut child = launch(
        &line(muxer, &copy.display().to_string(), &format!("gcssink {properties}")),
        &[],
    );
    // Some are killed while chunks wait behind the rate limit, some while the first is open.
    let lives = Duration::from_millis(1500 + chance(seed) % 3500);
    let mut sizes = Vec::new();
    let size = || std::fs::metadata(&copy).map_or(0, |m| m.len());
    let mut began = None;
    while began.is_none_or(|b: Instant| b.elapsed() < lives) {
        let n = size();
        if n > 0 {
            began.get_or_insert_with(Instant::now);
        }
        sizes.push((Instant::now(), n));
        std::thread::sleep(Duration::from_millis(10));
    }
    let killed = Instant::now();
    child.kill().unwrap();
    child.wait().unwrap();
    let safe = sizes
        .iter()
        .rev()
        .find(|(at, _)| killed.duration_since(*at) >= Duration::from_millis(1050))
        .map_or(0, |(_, n)| *n);

    let front = "videotestsrc num-buffers=10 ! x264enc ! h264parse ! flvmux streamable=true";
    let finder = Line::new(
        front,
        &server,
        &format!("spool-dir={} max-spool-bytes=1000000000 device-id=finder", spool.display()),
    );
    finder.play();
    let (end, words) = finder.wait();
    assert_eq!(end, End::Eos, "seed {seed}: {words:?}");
    finder.stop();

    let chunks: Vec<Chunk> = chunks(&server)
        .into_iter()
        .filter(|c| c.get("device-id") == "crash")
        .collect();
    let sequences: Vec<u64> = chunks.iter().map(|c| c.number("sequence")).collect();
    let expected: Vec<u64> = (0..chunks.len() as u64).collect();
    assert_eq!(sequences, expected, "seed {seed}: each once, none missing");
    let stored = if chunks.is_empty() { Vec::new() } else { joined(&chunks) };
    let input = std::fs::read(&copy).unwrap();
    assert!(input.starts_with(&stored), "seed {seed}: what is stored is what came in");
    // The frame that was half there at that moment is not whole, and so not stored.
    let frame = 40_000;
    assert!(
        stored.len() as u64 + frame >= safe,
        "seed {seed}: {} bytes of {safe} that were a second old are stored",
        stored.len()
    );
    assert_each_plays(&chunks);
    let left = std::fs::read_dir(&spool).unwrap().count();
    assert_eq!(left, 0, "seed {seed}");
}

#[test]
fn a_killed_process_loses_nothing_older_than_a_second() {
    for seed in 1..=kills() {
        let muxer = [
            "flvmux streamable=true",
            "mpegtsmux",
            "mp4mux fragment-duration=200 streamable=true",
            "matroskamux streamable=true",
        ];
        one_kill(seed, muxer[usize::try_from(seed % 4).unwrap()]);
    }
}

/// A system call: when it was entered, when it was done (lines of the trace), and what strace says of it.
struct Call {
    entered: usize,
    done: usize,
    name: String,
    text: String,
}

/// The calls of a trace of `strace -f`, where one that another thread interrupts comes in two parts.
fn calls(trace: &str) -> Vec<Call> {
    let (mut calls, mut open): (Vec<Call>, HashMap<&str, Call>) = (Vec::new(), HashMap::new());
    for (i, line) in trace.lines().enumerate() {
        let Some((pid, text)) = line.split_once(' ') else { continue };
        let text = text.trim_start();
        if let Some(end) = text.strip_prefix("<... ") {
            if let Some(mut call) = open.remove(pid) {
                call.done = i;
                call.text.push_str(end);
                calls.push(call);
            }
        } else if let Some((name, _)) = text.split_once('(') {
            let call = Call {
                entered: i,
                done: i,
                name: name.to_owned(),
                text: text.to_owned(),
            };
            if text.ends_with("<unfinished ...>") {
                open.insert(pid, call);
            } else {
                calls.push(call);
            }
        }
    }
    calls.sort_by_key(|c| c.entered);
    calls
}

/// Promise P1 of docs/spool.md, as the kernel sees it.
#[test]
fn data_are_synced_and_then_their_names_before_the_first_byte_of_the_request_leaves() {
    let may_trace = Command::new("strace")
        .args(["-f", "-o", "/dev/null", "true"])
        .stderr(Stdio::null())
        .status();
    if !may_trace.is_ok_and(|status| status.success()) {
        eprintln!("skipped: strace is not here or may not trace");
        return;
    }
    let (server, spool) = (GcsServer::spawn_thread(), Spool::new());
    let trace = TempFile::new("trace", b"");
    let which = "trace=openat,fsync,fdatasync,write,writev,pwrite64,pwritev,sendto,sendmsg,unlink,unlinkat";
    let trace_path = trace.0.display().to_string();
    let tracer = ["strace", "-f", "-y", "-s", "1000", "-e", which, "-o", &trace_path];
    let words = format!(
        "videotestsrc num-buffers=60 ! video/x-raw,width=320,height=240,framerate=15/1 ! x264enc speed-preset=ultrafast key-int-max=15 \
         ! h264parse config-interval=-1 ! mpegtsmux ! gcssink bucket={BUCKET} device-id=crash endpoint-uri={} {} max-size-time=1000000000",
        server.endpoint(),
        spool.property()
    );
    let output = launch_under(&tracer, &words, &[]).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(chunks(&server).len(), 4);
    let trace = std::fs::read_to_string(&trace.0).unwrap();
    let calls = calls(&trace);
    for sequence in 0..4 {
        let file = format!("/{sequence:020}.chunk");
        let of_file = |c: &&Call| c.text.contains(&file);
        let find = |what: &str, wanted: &dyn Fn(&Call) -> bool| {
            let found = calls.iter().filter(|c| wanted(c)).collect::<Vec<_>>();
            assert!(!found.is_empty(), "{what} of {sequence} in {trace}");
            found
        };
        let name = format!("_{sequence:06}.ts");
        let request = find("the request", &|c| c.text.contains("POST /upload") && c.text.contains(&name))[0].entered;
        let made = find("making the file", &|c| {
            c.name == "openat" && of_file(&c) && c.text.contains("O_CREAT")
        })[0]
            .entered;
        let session = calls
            .iter()
            .find(|c| c.entered == made)
            .unwrap()
            .text
            .split_once(&file)
            .unwrap()
            .0;
        let session = session.rsplit_once('"').unwrap().1;
        let data = find("syncing the data", &|c| {
            c.name == "fdatasync" && of_file(&c) && c.done < request && c.text.contains("= 0")
        });
        let data = data.last().unwrap();
        let folder = format!("{session}>");
        let names = find("syncing the folder", &|c| {
            c.name == "fsync" && c.text.contains(&folder) && c.entered > data.done && c.done < request && c.text.contains("= 0")
        });
        // What is written behind that is the Footer alone, which nothing depends on.
        let is_write = |c: &&Call| ["write", "writev", "pwrite64", "pwritev"].contains(&c.name.as_str());
        let writes: Vec<&Call> = calls.iter().filter(|c| is_write(c) && of_file(c)).collect();
        assert!(
            writes.iter().any(|w| w.done < data.entered),
            "{sequence}: the data were written before"
        );
        let later = writes
            .iter()
            .filter(|w| w.entered > data.entered && w.entered < request)
            .count();
        assert!(later <= 1, "{sequence}: {later} writes after the sync");
        assert!(names[0].entered > made);
        // And it is removed only after the mark that the server has it is on disk.
        let removed = find("removing", &|c| c.name.starts_with("unlink") && of_file(&c))[0].entered;
        let mark = calls.iter().filter(|c| c.name == "fdatasync" && of_file(c));
        assert!(
            mark.filter(|c| c.entered > request && c.done < removed).count() == 1,
            "{sequence}"
        );
    }
}

/// A process that has sent its only chunk to a server that never answers, killed when `is_reached` says so of the server and of
/// the chunk's file. The server, the spool and the name that the chunk was sent under.
fn killed_while_sending(fault: Fault, rate: u64, is_reached: impl Fn(&GcsServer, &[u8]) -> bool) -> (GcsServer, Spool, String) {
    let (server, spool) = (GcsServer::spawn_thread(), Spool::new());
    server.push_fault(fault);
    let words = format!(
        "videotestsrc num-buffers=30 pattern=snow ! video/x-raw,width=320,height=240,framerate=15/1 ! x264enc speed-preset=ultrafast \
         bitrate=4000 key-int-max=15 ! h264parse config-interval=-1 ! mpegtsmux ! gcssink bucket={BUCKET} device-id=crash \
         endpoint-uri={} {} max-bytes-per-second={rate}",
        server.endpoint(),
        spool.property()
    );
    let mut child = launch(&words, &[]);
    let until = Instant::now() + Duration::from_secs(60);
    let file = || {
        spool
            .chunk_files()
            .first()
            .and_then(|f| std::fs::read(f).ok())
            .unwrap_or_default()
    };
    while !is_reached(&server, &file()) {
        assert!(Instant::now() < until, "it never came so far: {:?}", server.requests());
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let name = server.uploads()[0].query["name"].clone();
    (server, spool, name)
}

/// The next start, by which nothing may be looked at.
fn next_start(server: &GcsServer, spool: &Spool) -> (Vec<Chunk>, Messages) {
    (0..9).for_each(|_| server.push_object_fault(Answer::status(403)));
    let front = "videotestsrc num-buffers=10 ! x264enc ! h264parse ! flvmux streamable=true";
    let finder = Line::new(front, server, &format!("{} device-id=finder", spool.property()));
    finder.play();
    let (end, words) = finder.wait();
    assert_eq!(end, End::Eos, "{words:?}");
    finder.stop();
    assert_eq!(spool.files(), Vec::<std::path::PathBuf>::new());
    // A stranger's object has no metadata.
    let all = server.objects();
    let is_chunk = |object: &common::gcs_server::Object| object.meta["metadata"]["device-id"] == "crash";
    let names: Vec<String> = all
        .iter()
        .filter(|(_, o)| is_chunk(o))
        .map(|((_, name), _)| name.clone())
        .collect();
    all.iter()
        .filter(|(_, o)| !is_chunk(o) && o.meta["metadata"].is_null())
        .for_each(|((_, name), _)| server.remove(BUCKET, name));
    let found: Vec<Chunk> = chunks(server).into_iter().filter(|c| names.contains(&c.name)).collect();
    (found, words)
}

fn uploads_of<'a>(words: &'a Messages, name: &'a str) -> impl Iterator<Item = &'a String> {
    let of_it = move |text: &&String| text.starts_with("gcssink-chunk-uploaded") && text.contains(name);
    words.iter().map(|(_, text)| text).filter(of_it)
}

#[test]
fn a_chunk_that_was_sent_whole_before_a_kill_is_stored_once_though_nobody_may_look() {
    let fault = Fault::StallAfterBody { stored: true };
    // The mark of it is a record of kind 7.
    let is_marked = |server: &GcsServer, file: &[u8]| {
        server.objects().len() == 1 && file.windows(4).any(|bytes| bytes == [0xD5, 0x9E, 0xC7, 7])
    };
    let (server, spool, name) = killed_while_sending(fault, 0, is_marked);
    let (found, words) = next_start(&server, &spool);
    assert_eq!(
        found.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
        [name.as_str()],
        "{words:?}"
    );
    assert_eq!(uploads_of(&words, &name).count(), 1, "{words:?}");
    assert!(words.iter().all(|(kind, _)| *kind != "warning"), "{words:?}");
    assert_each_plays(&found);
}

#[test]
fn a_chunk_that_was_only_begun_to_be_sent_before_a_kill_is_stored_beside_what_has_its_name() {
    // A second or so of a body of many.
    let (server, spool, name) = killed_while_sending(Fault::StallIn(20_000), 20_000, |server, _| !server.uploads().is_empty());
    server.put(BUCKET, &name, b"somebody's");
    let (found, words) = next_start(&server, &spool);
    let again = name.replace(".ts", "-r1.ts");
    assert_eq!(
        found.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(),
        [again.as_str()],
        "{words:?}"
    );
    let reported = |(kind, text): &(&str, String)| *kind == "warning" && text.contains(&again);
    assert_eq!(words.iter().filter(|w| reported(w)).count(), 1, "{words:?}");
    assert_each_plays(&found);
}

/// Three cameras, one for each way of waiting, lose their link for half a minute.
#[test]
fn half_a_minute_without_a_link_costs_no_byte_and_the_live_chunk_goes_first() {
    const BOUND: u64 = 8 << 20;
    let (later, unused, spool) = (ServerToStart::new(), GcsServer::spawn_thread(), Spool::new());
    let lines: Vec<Line> = ["", "spool-mode=overflow", "spool-mode=always"]
        .iter()
        .map(|way| {
            let folder = if way.is_empty() { String::new() } else { spool.property() };
            let properties = format!(
                "{way} {folder} {} max-size-time=2000000000 max-uploads=1 max-memory-bytes={BOUND} flow-group=\"\"",
                later.property()
            );
            let camera = "videotestsrc is-live=true num-buffers=705 pattern=snow ! video/x-raw,width=320,height=240,framerate=15/1 \
                 ! x264enc tune=zerolatency speed-preset=ultrafast bitrate=1200 key-int-max=30 ! h264parse config-interval=-1 ! mpegtsmux";
            Line::new(camera, &unused, &properties)
        })
        .collect();
    let before = later.start();
    lines.iter().for_each(Line::play);
    let watch = |time: Duration| {
        let until = Instant::now() + time;
        while Instant::now() < until {
            for line in &lines {
                let held = line.stat("bytes-in-memory");
                assert!(held <= BOUND, "{held}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    watch(Duration::from_secs(5));
    let stored = chunks(&before);
    drop(before);
    watch(Duration::from_secs(30));
    let after = later.start();
    watch(Duration::from_secs(5));
    for line in &lines {
        let (end, words) = line.wait();
        assert_eq!(end, End::Eos, "{words:?}");
        let count = |kind: &str, text: &str| words.iter().filter(|(k, t)| *k == kind && t.contains(text)).count();
        assert_eq!(count("warning", ""), 1, "{words:?}");
        assert_eq!(count("info", "uploads work again"), 1, "{words:?}");
        let device = line.sink.property::<String>("device-id");
        let is_ours = |c: &&Chunk| c.get("device-id") == device;
        let mut resumed: Vec<Chunk> = chunks(&after).iter().filter(is_ours).cloned().collect();
        resumed.sort_by_key(|c| c.object.generation);
        let order: Vec<u64> = resumed.iter().map(|c| c.number("sequence")).collect();
        let oldest = *order.iter().min().unwrap();
        assert!(order[0] > oldest + 5, "the live chunk first: {order:?}");
        let backlog: Vec<u64> = order.iter().copied().filter(|s| *s < order[0]).collect();
        assert!(backlog.is_sorted(), "then the backlog, oldest first: {order:?}");
        let all: BTreeMap<u64, Chunk> = stored
            .iter()
            .filter(is_ours)
            .chain(&resumed)
            .map(|c| (c.number("sequence"), c.clone()))
            .collect();
        assert!(all.keys().copied().eq(0..all.len() as u64), "{:?}", all.keys());
        let all: Vec<Chunk> = all.into_values().collect();
        assert!(joined(&all) == line.input(), "{device}: no byte is lost");
        line.stop();
    }
    assert_eq!(spool.files(), Vec::<std::path::PathBuf>::new());
}
