//! What waits on disk: outages, restarts, full disks. The promises are those of `docs/spool.md`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::gcs_server::{Fault, GcsServer};
use common::places::{ServerToStart, Spool};
use common::*;
use gst::prelude::*;

fn flv(seconds: u32) -> String {
    format!("{} ! flvmux streamable=true", h264(seconds))
}

/// About 1.2 MB a second.
fn noise(seconds: u32) -> String {
    format!(
        "videotestsrc num-buffers={} pattern=snow ! video/x-raw,width=320,height=240,framerate=15/1 ! \
         x264enc speed-preset=ultrafast bitrate=10000 key-int-max=15 ! h264parse config-interval=-1 ! mpegtsmux",
        seconds * 15
    )
}

/// Records into an outage and stops there; what was recorded is in the spool.
fn record_in_an_outage(front: &str, later: &ServerToStart, properties: &str) -> (Vec<u8>, Messages) {
    let unused = GcsServer::spawn_thread();
    let properties = format!("drain-timeout=1500000000 {} {properties}", later.property());
    let line = Line::new(front, &unused, &properties);
    line.play();
    let (end, words) = line.wait();
    assert_eq!(end, End::Eos, "{words:?}");
    let input = line.input();
    line.stop();
    (input, words)
}

/// A sink that records nothing to speak of and finds what is there; of another name each time, as sinks of one process have to be.
fn finder(server: &GcsServer, spool: &Spool, properties: &str) -> Line {
    static NEXT: AtomicUsize = AtomicUsize::new(1);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let front = "videotestsrc num-buffers=15 ! x264enc ! h264parse ! flvmux streamable=true";
    let properties = format!("{} {properties} device-id=finder{number}", spool.property());
    Line::new(front, server, &properties)
}

/// It stores what it finds.
fn recover(server: &GcsServer, spool: &Spool, properties: &str) -> Messages {
    let line = finder(server, spool, properties);
    line.play();
    let (end, words) = line.wait();
    assert_eq!(end, End::Eos, "{words:?}");
    line.stop();
    words
}

/// The chunks that the finder did not record itself.
fn found(server: &GcsServer) -> Vec<Chunk> {
    chunks(server)
        .into_iter()
        .filter(|c| !c.get("device-id").starts_with("finder"))
        .collect()
}

#[test]
fn a_recording_through_the_disk_is_the_same_as_one_through_memory_and_leaves_nothing_behind() {
    for (front, mode) in [(flv(5), "always"), (noise(5), "always"), (noise(5), "overflow")] {
        let (server, spool) = (GcsServer::spawn_thread(), Spool::new());
        let properties = format!("{} spool-mode={mode} max-size-time=1000000000", spool.property());
        let line = Line::new(&front, &server, &properties);
        line.play();
        let (end, words) = line.wait();
        assert_eq!(end, End::Eos, "{words:?}");
        let chunks = chunks(&server);
        assert_eq!(chunks.len(), 5);
        assert!(joined(&chunks) == line.input(), "{front} {mode}");
        assert_eq!(assert_each_plays(&chunks), 75);
        assert_eq!((line.stat("bytes-in-memory"), line.stat("bytes-in-spool")), (0, 0), "{mode}");
        line.stop();
        assert_eq!(spool.files(), Vec::<PathBuf>::new(), "{mode}");
    }
}

#[test]
fn what_an_outage_left_on_disk_is_stored_by_the_next_start_under_its_own_name() {
    for mode in ["always", "overflow"] {
        let (spool, later) = (Spool::new(), ServerToStart::new());
        let properties = format!(
            "{} spool-mode={mode} max-size-time=1000000000 metadata=m,site=north",
            spool.property()
        );
        let (input, words) = record_in_an_outage(&flv(4), &later, &properties);
        let waits = words
            .iter()
            .filter(|(kind, text)| *kind == "warning" && text.contains("wait in spool-dir"));
        assert_eq!(waits.count(), 1, "{mode}: {words:?}");
        assert_eq!(spool.chunk_files().len(), 4);
        let server = later.start();
        let words = recover(&server, &spool, "");
        assert!(words.iter().any(|(_, text)| text.contains("4 chunks of")), "{words:?}");
        let found = found(&server);
        assert_eq!(found.len(), 4, "{mode}");
        assert!(joined(&found) == input, "{mode}");
        assert_eq!(assert_each_plays(&found), 60);
        let sessions: BTreeSet<&str> = found.iter().map(|c| c.get("session-id")).collect();
        assert_eq!(sessions.len(), 1);
        for chunk in &found {
            assert_eq!(chunk.get("site"), "north");
            assert!(chunk.name.starts_with(chunk.get("device-id")) && chunk.name.contains(chunk.get("session-id")));
            assert!(!chunk.object.meta["customTime"].is_null());
        }
        assert!(spool.files().is_empty(), "{:?}", spool.files());
    }
}

#[test]
fn memory_keeps_its_bound_in_an_outage_and_the_disk_takes_the_rest() {
    for mode in ["always", "overflow"] {
        let (spool, later) = (Spool::new(), ServerToStart::new());
        let unused = GcsServer::spawn_thread();
        // Chunks of about 2.4 MB; in one of the two modes they have to be moved while they are open.
        let properties = format!(
            "{} {} spool-mode={mode} max-size-time=2000000000 max-memory-bytes=4194304 drain-timeout=1000000000",
            spool.property(),
            later.property()
        );
        let line = Line::new(&noise(12), &unused, &properties);
        line.play();
        let (end, words) = line.wait_for(Duration::from_secs(60), |_| {
            assert!(
                line.stat("bytes-in-memory") <= 4 << 20,
                "{mode}: {}",
                line.stat("bytes-in-memory")
            );
            false
        });
        assert_eq!(end, End::Eos, "{words:?}");
        let input = line.input();
        assert!(input.len() > 12_000_000, "{}", input.len());
        assert_eq!(line.stat("chunks-dropped"), 0);
        line.stop();
        let server = later.start();
        recover(&server, &spool, "");
        let found = found(&server);
        assert!(joined(&found) == input, "{mode}");
        assert_eq!(assert_each_plays(&found), 180, "{mode}: not cut early on disk");
        assert_eq!(found.len(), 6);
    }
}

#[test]
fn a_full_spool_is_reported_with_its_number_and_then_the_policy_decides() {
    let (spool, later) = (Spool::new(), ServerToStart::new());
    let unused = GcsServer::spawn_thread();
    let properties = format!(
        "{} {} max-size-time=1000000000 max-memory-bytes=2097152 max-spool-bytes=6000000 overflow-policy=drop-oldest drain-timeout=1000000000",
        spool.property(),
        later.property()
    );
    let line = Line::new(&noise(16), &unused, &properties);
    line.play();
    let (end, words) = line.wait();
    let full: Vec<_> = words.iter().filter(|(_, text)| text.contains("max-spool-bytes")).collect();
    assert!(!full.is_empty(), "{words:?}");
    assert!(full[0].1.contains("6000000") && full[0].1.contains("spool-dir"), "{full:?}");
    let used: u64 = spool
        .files()
        .iter()
        .map(|f| f.metadata().unwrap().len().div_ceil(4096) * 4096)
        .sum();
    assert!(used <= 6_000_000, "{used}");
    let mut gaps: Vec<String> = words.into_iter().map(|(_, text)| text).collect();
    while let Some(m) = line.pipeline.bus().unwrap().timed_pop(gst::ClockTime::from_mseconds(300)) {
        gaps.extend(m.structure().map(ToString::to_string));
    }
    gaps.retain(|text| text.starts_with("gcssink-gap"));
    // Of a chunk that was being written when the time was up the beginning stays.
    let (cut, gaps): (Vec<String>, Vec<String>) = gaps.into_iter().partition(|g| g.contains("chunks=(guint64)0"));
    assert_eq!(gaps.len() as u64, line.stat("chunks-dropped"));
    line.stop();
    let server = later.start();
    recover(&server, &spool, "");
    let found = found(&server);
    assert!(!found.is_empty());
    assert_each_plays(&found);
    for chunk in &found {
        let first = format!("first-sequence=(guint64){},", chunk.number("sequence"));
        let is_cut = cut.iter().any(|g| g.contains(&first));
        assert!(!is_cut || !gaps.iter().any(|g| g.contains(&first)), "told twice: {first}");
    }
    // Whatever is missing was reported.
    for sequence in 0..16u64 {
        let names = |g: &&String| g.contains(&format!("first-sequence=(guint64){sequence},"));
        let (reported, is_cut) = (gaps.iter().any(|g| names(&g)), cut.iter().any(|g| names(&g)));
        let stored = found.iter().any(|c| c.number("sequence") == sequence);
        // Of a chunk that was cut there may be too little on disk for one picture.
        assert!(
            reported != stored || (is_cut && !reported),
            "{sequence}: told {reported}, cut {is_cut}, stored {stored}, {end:?} {gaps:#?}"
        );
    }
    assert!(found.len() >= 3 && !gaps.is_empty());
}

#[test]
fn a_stop_with_a_full_spool_is_a_normal_end_and_what_the_disk_took_of_the_chunk_is_stored_later() {
    let (spool, later) = (Spool::new(), ServerToStart::new());
    let properties = format!(
        "{} max-size-time=0 max-spool-bytes=2000000 overflow-policy=drop-oldest",
        spool.property()
    );
    // One chunk, of which the disk takes the first part.
    let (input, words) = record_in_an_outage(&noise(5), &later, &properties);
    assert!(input.len() > 3_000_000, "{}", input.len());
    let left: Vec<_> = words.iter().filter(|(_, text)| text.contains("wait in spool-dir")).collect();
    assert!(
        matches!(&left[..], [(_, text)] if text.contains("1 chunk of") && text.contains("are lost")),
        "{words:?}"
    );
    let server = later.start();
    recover(&server, &spool, "");
    let found = found(&server);
    assert_eq!(found.len(), 1);
    assert_each_plays(&found);
    assert!(found[0].data.len() > 1_000_000, "{}", found[0].data.len());
    assert!(input.starts_with(&found[0].data[usize::try_from(found[0].number("init-bytes")).unwrap()..]));
}

#[test]
fn the_limit_of_a_folder_holds_whatever_another_sink_with_that_folder_sets() {
    let (spool, later) = (Spool::new(), ServerToStart::new());
    let unused = GcsServer::spawn_thread();
    let other_path = spool.dir().with_file_name("link");
    std::os::unix::fs::symlink("spool", &other_path).unwrap();
    let line = |dir: &Path, properties: &str| {
        let properties = format!(
            "spool-dir={}/ {} {properties} max-size-time=1000000000 max-memory-bytes=2097152 overflow-policy=drop-oldest \
             drain-timeout=1000000000",
            dir.display(),
            later.property()
        );
        Line::new(&noise(12), &unused, &properties)
    };
    let limited = line(&spool.dir(), "max-spool-bytes=6000000");
    let other = line(&other_path, "");
    let blocks = |f: &PathBuf| f.metadata().map_or(0, |m| m.len().div_ceil(4096) * 4096);
    // A look takes time, in which one file goes and another one grows: the smallest of three counts.
    let look = |_| -> u64 { spool.files().iter().map(blocks).sum() };
    let used = || (0..3).map(look).min().unwrap();
    let mut most = 0;
    limited.play();
    other.play();
    for running in [&limited, &other] {
        let until = std::time::Instant::now() + Duration::from_secs(60);
        let pad = running.sink.static_pad("sink").unwrap();
        while !pad.pad_flags().contains(gst::PadFlags::EOS) {
            assert!(std::time::Instant::now() < until, "it records to its end");
            other.sink.set_property("retry-timeout", 0u64);
            other.sink.set_property("max-spool-bytes", 0u64);
            most = most.max(used());
            assert!(most <= 6_000_000, "{most}");
            let _ = running.pipeline.bus().unwrap().timed_pop(gst::ClockTime::from_mseconds(5));
        }
    }
    assert!(used() <= 6_000_000, "{}", used());
    assert!(most >= 3_000_000, "the limit was met: {most}");
}

#[test]
fn an_end_with_overflow_policy_error_says_that_there_is_no_space_left() {
    let (spool, later) = (Spool::new(), ServerToStart::new());
    let unused = GcsServer::spawn_thread();
    let properties = format!(
        "{} {} max-size-time=1000000000 max-memory-bytes=1048576 max-spool-bytes=2000000 overflow-policy=error",
        spool.property(),
        later.property()
    );
    let line = Line::new(&noise(16), &unused, &properties);
    line.play();
    let (end, words) = line.wait();
    assert!(matches!(&end, End::Error(text) if text.contains("spool-dir")), "{words:?}");
}

#[test]
fn a_damaged_chunk_is_set_aside_and_blocks_nothing() {
    let (spool, later) = (Spool::new(), ServerToStart::new());
    let properties = format!("{} max-size-time=1000000000", spool.property());
    let (input, _) = record_in_an_outage(&noise(4), &later, &properties);
    let files = spool.chunk_files();
    let mut bytes = std::fs::read(&files[1]).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&files[1], bytes).unwrap();
    let server = later.start();
    let words = recover(&server, &spool, "");
    assert!(
        words
            .iter()
            .any(|(kind, text)| *kind == "warning" && text.contains("quarantine")),
        "{words:?}"
    );
    let found = found(&server);
    let sequences: Vec<u64> = found.iter().map(|c| c.number("sequence")).collect();
    assert_eq!(sequences, [0, 2, 3]);
    for chunk in &found {
        let payload = chunk.payload();
        assert!(input.windows(payload.len()).any(|w| w == payload));
    }
    let left = spool.files();
    assert!(
        left.len() == 1 && left[0].to_string_lossy().contains("/quarantine/"),
        "{left:?}"
    );
}

#[test]
fn a_chunk_that_is_found_damaged_at_the_start_is_reported_as_a_gap() {
    let (spool, later) = (Spool::new(), ServerToStart::new());
    let properties = format!("{} max-size-time=1000000000", spool.property());
    record_in_an_outage(&flv(3), &later, &properties);
    let file = &spool.chunk_files()[1];
    let mut bytes = std::fs::read(file).unwrap();
    // The last record but one is the end of the chunk, and the last says that all before it was on disk.
    let damaged = bytes.len() - 60;
    bytes[damaged] ^= 1;
    std::fs::write(file, bytes).unwrap();
    let server = later.start();
    let line = finder(&server, &spool, "");
    line.play();
    let (end, words) = line.wait();
    assert_eq!(end, End::Eos, "{words:?}");
    let gaps: Vec<_> = words.iter().filter(|(_, text)| text.starts_with("gcssink-gap")).collect();
    assert_eq!(gaps.len(), 1, "{words:?}");
    for field in [
        "reason=(string)damaged",
        "first-sequence=(guint64)1",
        "chunks=(guint64)1",
        "start-time=(string)20",
    ] {
        assert!(gaps[0].1.contains(field), "{field} in {gaps:?}");
    }
    assert_eq!(line.stat("chunks-dropped"), 1);
    assert_eq!(found(&server).len(), 2);
}

#[test]
fn the_sinks_of_a_pipeline_that_is_stopped_in_an_outage_all_bring_their_chunks_onto_the_disk() {
    init();
    let (server, spool) = (GcsServer::spawn_thread(), Spool::new());
    (0..50).for_each(|_| server.push_fault(Fault::StallBefore));
    let front = h264(60).replace("videotestsrc", "videotestsrc is-live=true") + " ! mpegtsmux ! tee name=t";
    let sinks: String = (0..4)
        .map(|i| {
            format!(
                " t. ! queue ! gcssink async=false bucket={BUCKET} device-id=together{i} endpoint-uri={} {} spool-mode=overflow \
                 max-size-time=1000000000 shutdown-timeout=1000000000",
                server.endpoint(),
                spool.property()
            )
        })
        .collect();
    let pipeline = gst::parse::launch(&(front + &sinks))
        .unwrap()
        .downcast::<gst::Pipeline>()
        .unwrap();
    let gaps = std::sync::Arc::new(AtomicUsize::new(0));
    let seen = std::sync::Arc::clone(&gaps);
    pipeline.bus().unwrap().set_sync_handler(move |_, message| {
        let is_gap = message.structure().is_some_and(|s| s.name() == "gcssink-gap");
        seen.fetch_add(usize::from(is_gap), Ordering::SeqCst);
        gst::BusSyncReply::Drop
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    std::thread::sleep(Duration::from_millis(3500));
    let began = std::time::Instant::now();
    pipeline.set_state(gst::State::Null).unwrap();
    let took = began.elapsed();
    assert!(took < Duration::from_millis(2500), "{took:?}");
    assert_eq!(gaps.load(Ordering::SeqCst), 0);
    let of = |i: usize| {
        let dir = spool.dir().join(format!("together{i}"));
        spool.chunk_files().iter().filter(|f| f.starts_with(&dir)).count()
    };
    let files: Vec<usize> = (0..4).map(of).collect();
    assert!(files.iter().all(|n| *n >= 2), "{files:?}");
}

#[test]
fn a_sink_whose_pipeline_is_not_stopped_goes_on_when_another_is() {
    let (first, second) = (GcsServer::spawn_thread(), GcsServer::spawn_thread());
    let front = h264(60).replace("videotestsrc", "videotestsrc is-live=true") + " ! mpegtsmux";
    let stopped = Line::new(&front, &first, "max-size-time=1000000000");
    let goes_on = Line::new(&front, &second, "max-size-time=1000000000");
    stopped.play();
    goes_on.play();
    let enough = |n: u64| goes_on.wait_for(Duration::from_secs(30), |_| goes_on.stat("chunks-uploaded") >= n);
    enough(1);
    stopped.stop();
    let before = goes_on.stat("chunks-uploaded");
    enough(before + 2);
    goes_on.stop();
    let chunks = chunks(&second);
    assert_each_plays(&chunks);
    assert!(chunks.iter().skip(1).all(|c| c.get("continuous") == "true"), "{chunks:?}");
}

#[test]
fn nobody_else_may_read_the_spool() {
    let (spool, later) = (Spool::new(), ServerToStart::new());
    let properties = format!("{} max-size-time=1000000000", spool.property());
    record_in_an_outage(&flv(2), &later, &properties);
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    for file in spool.files() {
        assert_eq!(mode(&file) & 0o077, 0, "{}", file.display());
        let folders = file.ancestors().skip(1).take_while(|p| p.starts_with(spool.dir()));
        folders.for_each(|folder| assert_eq!(mode(folder), 0o700, "{}", folder.display()));
    }
    assert_eq!(mode(&spool.dir()), 0o700);
}

#[test]
fn a_chunk_whose_confirmation_was_lost_with_the_process_is_stored_once() {
    let (spool, later) = (Spool::new(), ServerToStart::new());
    let properties = format!("{} max-size-time=1000000000", spool.property());
    let (input, _) = record_in_an_outage(&flv(3), &later, &properties);
    // As after a crash between the server's answer and the mark: the files come back.
    let copy = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let copied = |from: &Path, to: &Path| {
        let ok = std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap();
        assert!(ok.success());
    };
    copied(&spool.dir(), copy.path());
    let server = later.start();
    recover(&server, &spool, "");
    assert!(spool.files().is_empty());
    std::fs::remove_dir_all(spool.dir()).unwrap();
    copied(&copy.path().join("spool"), &spool.dir());
    let words = recover(&server, &spool, "");
    assert!(spool.files().is_empty(), "{words:?}");
    let found = found(&server);
    assert_eq!(found.len(), 3, "{words:?}");
    assert!(joined(&found) == input);
}

#[test]
fn a_spool_that_cannot_be_used_is_an_error_at_the_start_that_names_it() {
    let server = GcsServer::spawn_thread();
    let file = TempFile::new("no-folder", b"x");
    let line = Line::new(&flv(2), &server, &format!("spool-dir={}/x", file.0.display()));
    let _ = line.pipeline.set_state(gst::State::Playing);
    let (end, _) = line.wait();
    assert!(
        matches!(&end, End::Error(text) if text.contains("no-folder") && text.contains("spool-dir")),
        "{end:?}"
    );
}

#[test]
fn one_object_of_any_size_goes_through_the_disk() {
    let (server, spool) = (GcsServer::spawn_thread(), Spool::new());
    let properties = format!("{} location=all.ts max-memory-bytes=1048576", spool.property());
    let line = Line::new(&noise(5), &server, &properties);
    line.play();
    let (end, words) = line.wait();
    assert_eq!(end, End::Eos, "{words:?}");
    let chunks = chunks(&server);
    assert_eq!(chunks.len(), 1);
    assert!(chunks[0].data == line.input());
    assert!(chunks[0].data.len() > 4 << 20);
}

#[test]
fn splitmuxsink_goes_on_when_the_fragment_is_on_disk() {
    init();
    let (spool, later) = (Spool::new(), ServerToStart::new());
    let line = format!(
        "{} ! splitmuxsink name=split muxer-factory=mpegtsmux async-finalize=true sink-factory=gcssink max-size-time=1000000000 location=x_%05d.ts \
         sink-properties=\"properties,bucket={BUCKET},device-id=split,drain-timeout=(guint64)3000000000,shutdown-timeout=(guint64)300000000,\
         endpoint-uri=(string)\\\"http://127.0.0.1:{}\\\",spool-dir=(string)\\\"{}\\\",max-spool-bytes=(guint64)1000000000\"",
        h264(4),
        later.0,
        spool.dir().display()
    );
    let pipeline = gst::parse::launch(&line).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let bus = pipeline.bus().unwrap();
    let end = bus.timed_pop_filtered(
        gst::ClockTime::from_seconds(60),
        &[gst::MessageType::Eos, gst::MessageType::Error],
    );
    assert!(
        matches!(end.as_ref().map(|m| m.type_()), Some(gst::MessageType::Eos)),
        "{end:?}"
    );
    pipeline.set_state(gst::State::Null).unwrap();
    let server = later.start();
    recover(&server, &spool, "");
    let found = found(&server);
    assert_eq!(found.len(), 4);
    assert_eq!(found.iter().map(|c| judge(&c.name, &c.data).frames).sum::<u64>(), 60);
}

#[test]
fn a_night_without_network_is_sent_newest_first() {
    let (spool, later) = (Spool::new(), ServerToStart::new());
    let properties = format!("{} max-size-time=1000000000 max-uploads=1", spool.property());
    record_in_an_outage(&flv(5), &later, &properties);
    let server = later.start();
    server.push_fault(Fault::Pass);
    let properties = format!("{} max-uploads=1", spool.property());
    recover(&server, &spool, &properties);
    let order: Vec<u64> = {
        let mut all = found(&server);
        all.sort_by_key(|c| c.object.generation);
        all.iter().map(|c| c.number("sequence")).collect()
    };
    assert_eq!(order, [4, 0, 1, 2, 3]);
}

#[test]
fn what_is_left_when_the_element_goes_to_ready_is_taken_up_when_it_comes_back() {
    let (spool, later) = (Spool::new(), ServerToStart::new());
    let unused = GcsServer::spawn_thread();
    let front = h264(60).replace("videotestsrc", "videotestsrc is-live=true") + " ! mpegtsmux";
    let properties = format!(
        "{} {} max-size-time=1000000000 shutdown-timeout=500000000",
        spool.property(),
        later.property()
    );
    let line = Line::new(&front, &unused, &properties);
    line.play();
    std::thread::sleep(Duration::from_millis(3500));
    line.pipeline.set_state(gst::State::Ready).unwrap();
    let before = spool.chunk_files().len();
    assert!(before >= 2, "{before}");
    let id: String = line.sink.property("session-id");
    let server = later.start();
    line.play();
    let (_, words) = line.wait_for(Duration::from_secs(30), |_| line.stat("chunks-uploaded") > before as u64);
    line.stop();
    let chunks = chunks(&server);
    assert!(chunks.iter().all(|c| c.get("session-id") == id), "one session: {words:?}");
    let sequences: Vec<u64> = chunks.iter().map(|c| c.number("sequence")).collect();
    assert_eq!(sequences, (0..sequences.len() as u64).collect::<Vec<_>>());
    assert_eq!(spool.files(), Vec::<PathBuf>::new());
}

#[test]
fn a_chunk_from_before_the_clock_was_set_is_dated_when_it_is_sent() {
    use gstgcstreamer::base::boot;
    use gstgcstreamer::spool::{ClosedEntry, Entry, Spool as Store, disk::StdDisk};
    let (server, spool) = (GcsServer::spawn_thread(), Spool::new());
    let data = bytes::Bytes::from_static(b"pictures");
    let ago = 90_000_000_000;
    {
        let store = Store::open(std::sync::Arc::new(StdDisk), &spool.dir(), 1 << 30).unwrap();
        let session = store.session("board", "0a1b2c3d4e").unwrap();
        let entry = Entry {
            session: "0a1b2c3d4e".into(),
            device: "board".into(),
            bucket: BUCKET.into(),
            endpoint: Some(server.endpoint()),
            anonymous: true,
            name: "board/1970/00.ts".into(),
            location: "{device}/%Y/%Y%m%dT%H%M%S_{session}_{seq}.{ext}".into(),
            own_name: true,
            container: "mpegts".into(),
            start: 40_000_000_000,
            duration: 10_000_000_000,
            clock: "suspect".into(),
            boot_id: boot::boot_id().unwrap(),
            boot_ns: boot::boot_ns() - ago,
            metadata: [
                ("clock", "suspect"),
                ("device-id", "board"),
                ("session-id", "0a1b2c3d4e"),
                ("sequence", "0"),
            ]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .into(),
            ..Entry::default()
        };
        let mut open = session.create(&entry).unwrap();
        open.append(0, std::slice::from_ref(&data)).unwrap();
        let closed = ClosedEntry {
            entry,
            size: 8,
            crc32c: crc32c::crc32c(&data),
        };
        open.finish(&closed).unwrap();
    }
    let words = recover(&server, &spool, "");
    let found = found(&server);
    assert_eq!(found.len(), 1, "{words:?}");
    let name = &found[0].name;
    assert!(
        name.starts_with("board/20") && name.ends_with("_0a1b2c3d4e_000000.ts"),
        "{name}"
    );
    assert_eq!(found[0].get("clock"), "corrected");
    let start: jiff::Timestamp = found[0].get("start-time").parse().unwrap();
    let off = jiff::Timestamp::now().duration_since(start).as_secs() - 90;
    assert!((0..60).contains(&off), "{start}");
    assert_eq!(
        found[0].object.meta["customTime"].as_str().unwrap()[..19],
        start.to_string()[..19]
    );
    assert_eq!(found[0].data, data);
}

#[test]
fn an_earlier_sessions_bucket_that_is_gone_does_not_end_this_recording() {
    let (spool, later) = (Spool::new(), ServerToStart::new());
    let properties = format!("{} max-size-time=1000000000", spool.property());
    record_in_an_outage(&flv(1), &later, &properties);
    let server = later.start();
    server.push_fault(Fault::status(404));
    let words = recover(&server, &spool, "");
    assert!(
        words
            .iter()
            .any(|(kind, text)| *kind == "warning" && text.contains("earlier session is refused")),
        "{words:?}"
    );
    assert_eq!(found(&server).len(), 1, "at the end it is tried once more: {words:?}");
}

#[test]
fn recording_stops_and_starts_on_command() {
    let server = GcsServer::spawn_thread();
    let front = h264(60).replace("videotestsrc", "videotestsrc is-live=true") + " ! mpegtsmux name=mux";
    let line = Line::new(&front, &server, "max-size-time=1000000000");
    line.play();
    let command = |what: &str| {
        let s = gst::Structure::builder("gcssink-command").field("command", what).build();
        let mux = line.pipeline.by_name("mux").unwrap();
        assert!(
            mux.static_pad("src")
                .unwrap()
                .push_event(gst::event::CustomDownstream::new(s))
        );
    };
    let enough = |n: u64| line.wait_for(Duration::from_secs(30), |_| line.stat("chunks-uploaded") >= n);
    enough(2);
    command("record-stop");
    std::thread::sleep(Duration::from_millis(1500));
    let stopped = line.stat("chunks-created");
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(line.stat("chunks-created"), stopped, "nothing is stored");
    command("record-start");
    let (_, words) = enough(stopped + 2);
    line.stop();
    let gaps: Vec<_> = words.iter().filter(|(_, text)| text.contains("record-stopped")).collect();
    assert_eq!(gaps.len(), 1, "{words:?}");
    let chunks = chunks(&server);
    assert_each_plays(&chunks);
    let stopped: Vec<_> = chunks.iter().filter(|c| c.get("gap-reason") == "record-stopped").collect();
    assert_eq!(stopped.len(), 1);
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let limit = std::time::Instant::now() + Duration::from_secs(60);
    while !is_so() {
        assert!(std::time::Instant::now() < limit, "within 60 s: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_session_folder_that_somebody_removes_is_a_gap_at_once_and_the_spool_goes_on() {
    for is_whole_spool in [false, true] {
        let (spool, later) = (Spool::new(), ServerToStart::new());
        let unused = GcsServer::spawn_thread();
        let front = h264(600).replace("videotestsrc", "videotestsrc is-live=true") + " ! mpegtsmux";
        let properties = format!("{} {} max-size-time=1000000000", spool.property(), later.property());
        let line = Line::new(&front, &unused, &properties);
        line.play();
        let limit = Duration::from_secs(30);
        until("two chunks are closed", || spool.chunk_files().len() >= 3);
        let session = spool.chunk_files()[0].parent().unwrap().to_owned();
        let whole = spool.dir();
        // Moved away first: while its files are removed one by one, another may be made in it. On the spool's file system, as /tmp may be another.
        let elsewhere = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let removed = elsewhere.path().join("removed");
        std::fs::rename(if is_whole_spool { &whole } else { &session }, &removed).unwrap();
        std::fs::remove_dir_all(&removed).unwrap();
        let is_reported = |m: &gst::MessageRef| match m.view() {
            gst::MessageView::Warning(w) => w.error().to_string().contains("recording goes on in a new folder"),
            _ => false,
        };
        let (_, words) = line.wait_for(limit, is_reported);
        let gaps = words
            .iter()
            .filter(|(_, text)| text.contains("gcssink-gap") && text.contains("damaged"));
        assert!(gaps.count() >= 1 || line.stat("chunks-dropped") >= 1, "{words:?}");
        let lost = line.stat("chunks-dropped");
        assert!(lost >= 1);
        until("two chunks are closed in the new folder", || spool.chunk_files().len() >= 3);
        let server = later.start();
        let created = line.stat("chunks-created");
        until("all are stored", || line.stat("chunks-uploaded") + lost >= created);
        line.stop();
        let chunks = chunks(&server);
        assert_each_plays(&chunks);
        let sequences: Vec<u64> = chunks.iter().map(|c| c.number("sequence")).collect();
        assert_eq!(
            sequences,
            (lost..lost + sequences.len() as u64).collect::<Vec<_>>(),
            "the open chunk was saved"
        );
    }
}
