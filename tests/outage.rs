//! Outages on virtual time, without GStreamer's clock and without a network: every fault of the server in every container and in
//! every way of waiting, and a link that is gone for ten minutes. Whatever happens, the bucket is the input.
//!
//! The same faults, once each for real, are in `faults.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    unreachable_pub
)]

#[path = "outage/bucket.rs"]
mod bucket;
#[path = "outage/camera.rs"]
mod camera;
mod common;

use std::collections::BTreeMap;
use std::future::Future;
use std::time::Duration;

use bucket::{Bucket, Fault, Object};
use camera::{Camera, SPOOL_USES, Setup, SpoolUse};
use common::TempFile;
use gcstreamer_schema::Container;
use gcstreamer_storage::Class;
use gst::prelude::*;
use gstgcstreamer::ingest::message::Message;
use gstgcstreamer::upload::health::{HealthEvent, Status};
use gstgcstreamer::upload::report::Report;
use tokio::time::Instant;

fn on_virtual_time<T>(test: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    runtime.block_on(test)
}

/// Ten minutes are some, and an attempt that hangs is one more.
const LONG: Duration = Duration::from_secs(3600);

/// A stream of so many seconds, as GStreamer's muxers make it.
fn clip(front: &str, muxer: &str) -> Vec<u8> {
    common::init();
    let file = TempFile::new("clip", b"");
    let line = format!("{front} ! {muxer} ! filesink location={}", file.0.display());
    let pipeline = gst::parse::launch(&line).unwrap();
    pipeline.set_state(gst::State::Playing).unwrap();
    let ends = [gst::MessageType::Eos, gst::MessageType::Error];
    let end = pipeline
        .bus()
        .unwrap()
        .timed_pop_filtered(gst::ClockTime::from_seconds(100), &ends);
    assert_eq!(end.map(|m| m.type_()), Some(gst::MessageType::Eos), "{line}");
    pipeline.set_state(gst::State::Null).unwrap();
    std::fs::read(&file.0).unwrap()
}

/// Eight seconds in every container there is, about 200 kB a second.
fn clips() -> Vec<(&'static str, Vec<u8>)> {
    let noise = common::video(8).replace("videotestsrc", "videotestsrc pattern=snow");
    let h264 = format!("{noise} ! x264enc speed-preset=ultrafast bitrate=1600 key-int-max=15 ! h264parse config-interval=-1");
    let vp8 = format!("{noise} ! vp8enc deadline=1 cpu-used=16 target-bitrate=1600000 keyframe-max-dist=15");
    vec![
        ("flv", clip(&h264, "flvmux streamable=true")),
        ("mpegts", clip(&h264, "mpegtsmux")),
        ("fmp4", clip(&h264, "mp4mux fragment-duration=200 streamable=true")),
        ("matroska", clip(&h264, "matroskamux streamable=true")),
        ("webm", clip(&vp8, "webmmux streamable=true")),
        (
            "raw",
            (0..1_600_000u32)
                .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
                .collect(),
        ),
    ]
}

/// A fault and what stays of it.
struct Row {
    name: &'static str,
    faults: Vec<Fault>,
    /// Looking at objects, and deleting them, is forbidden.
    forbidden: (bool, bool),
    /// The server's clock is ahead, s.
    ahead: i64,
    /// Objects beside the chunks.
    left: usize,
    /// It begins an outage.
    outage: bool,
    /// The user has to act: before anything was stored, and later.
    fatal: bool,
    refused: bool,
}

fn row(name: &'static str, faults: &[Fault]) -> Row {
    Row {
        name,
        faults: faults.to_vec(),
        forbidden: (false, false),
        ahead: 0,
        left: 0,
        outage: true,
        fatal: false,
        refused: false,
    }
}

fn silent(name: &'static str, faults: &[Fault]) -> Row {
    Row {
        outage: false,
        ..row(name, faults)
    }
}

fn fatal(name: &'static str, faults: &[Fault]) -> Row {
    Row {
        fatal: true,
        ..silent(name, faults)
    }
}

fn refused(name: &'static str, faults: &[Fault]) -> Row {
    Row {
        refused: true,
        ..silent(name, faults)
    }
}

fn rows() -> Vec<Row> {
    use Class::{Auth, Permanent, Transient};
    use Fault::*;
    let storm = |status| [Answer(Transient, status); 6];
    vec![
        silent("none", &[]),
        row("429 with Retry-After", &[Busy(429, 17)]),
        row("503 with Retry-After", &[Busy(503, 90)]),
        row("500 storm", &storm(500)),
        row("502 storm", &storm(502)),
        row("503 storm", &storm(503)),
        row("504 storm", &storm(504)),
        silent("401 once", &[Answer(Auth, 401)]),
        fatal(
            "401 for good, before anything was stored",
            &[Early(Auth, 401), Early(Auth, 401)],
        ),
        refused("401 for good, later", &[Pass, Early(Auth, 401), Early(Auth, 401)]),
        fatal("403 before", &[Answer(Permanent, 403)]),
        refused("403 after", &[Pass, Answer(Permanent, 403)]),
        fatal("404 before", &[Answer(Permanent, 404)]),
        refused("404 after", &[Pass, Answer(Permanent, 404), Answer(Permanent, 404)]),
        refused("411", &[Pass, Early(Permanent, 411)]),
        row("redirect", &[Answer(Transient, 307), Answer(Transient, 308)]),
        row("412 after a lost reply", &[ResetAfter { stored: true }]),
        Row {
            forbidden: (true, true),
            ..row(
                "412 after a lost reply, without permission to look",
                &[ResetAfter { stored: true }],
            )
        },
        Row {
            left: 1,
            ..silent("412 of a stranger's object", &[Stranger])
        },
        row("reset before", &[ResetBefore; 3]),
        row("reset in the body", &[ResetIn(5000); 3]),
        row("reset after the body", &[ResetAfter { stored: false }; 2]),
        row("stall before", &[StallBefore; 2]),
        row("stall in the body", &[StallIn(5000); 2]),
        row("stall after the body", &[StallAfter { stored: false }]),
        row("stall after the body, stored", &[StallAfter { stored: true }]),
        silent("slow drain", &[Slow(200_000)]),
        row("truncated reply", &[TruncatedReply; 2]),
        silent("wrong CRC in the reply, delete allowed", &[WrongCrcInReply]),
        Row {
            left: 1,
            forbidden: (false, true),
            ..silent("wrong CRC in the reply, delete refused", &[WrongCrcInReply])
        },
        silent("short object, delete allowed", &[ShortObject]),
        Row {
            left: 1,
            forbidden: (true, true),
            ..silent("short object, delete refused", &[ShortObject])
        },
        row("nobody listens", &[Refused; 8]),
        row("DNS gone", &[NoName; 4]),
        Row {
            ahead: 3600,
            ..silent("wrong Date", &[])
        },
        row(
            "one after the other",
            &[
                Refused,
                StallIn(1),
                Busy(429, 3),
                ResetAfter { stored: true },
                ResetIn(5000),
                TruncatedReply,
                NoName,
                Answer(Transient, 503),
            ],
        ),
    ]
}

/// The chunks by sequence number; how many objects there are besides.
fn chunks(bucket: &Bucket) -> (BTreeMap<u64, Object>, usize) {
    let mut chunks: BTreeMap<u64, Object> = BTreeMap::new();
    let mut left = 0;
    for object in bucket.objects().into_values() {
        let sequence = object.request.metadata["sequence"].parse().unwrap();
        match chunks.get(&sequence) {
            Some(other) if other.generation > object.generation => left += 1,
            other => {
                left += usize::from(other.is_some());
                chunks.insert(sequence, object);
            }
        }
    }
    (chunks, left)
}

fn init(object: &Object) -> usize {
    object.request.metadata["init-bytes"].parse().unwrap()
}

/// Init of the first and the payload of all.
fn joined(chunks: &BTreeMap<u64, Object>) -> Vec<u8> {
    let first = &chunks[&0];
    let mut all = first.data[..init(first)].to_vec();
    chunks.values().for_each(|c| all.extend_from_slice(&c.data[init(c)..]));
    all
}

fn count(reports: &[Report], wanted: impl Fn(&Report) -> bool) -> usize {
    reports.iter().filter(|r| wanted(r)).count()
}

async fn one(row: &Row, (container, input): (&str, &[u8]), spool_use: SpoolUse, seed: u64) {
    let what = format!("{}, {container}, {spool_use:?}", row.name);
    let len = input.len() as u64;
    let setup = Setup {
        spool_use,
        max_memory: match spool_use {
            SpoolUse::Memory => 2 * len,
            // Chunks of a quarter: two do not fit beside each other.
            SpoolUse::Overflow => len / 3,
            // A block that is being filled, and one that is being written.
            SpoolUse::Always => 512 << 10,
        },
        max_uploads: 2,
        chunk: 2,
        rate: 0,
        seed,
    };
    let bucket = Bucket::default();
    bucket.script(&row.faults);
    bucket.forbid(row.forbidden.0, row.forbidden.1);
    bucket.set_ahead(row.ahead);
    let mut camera = Camera::new(setup, &bucket, Container::from_name(container));
    camera.record(input, 8).await;
    camera.drain(LONG).await;
    assert!(bucket.is_script_over(), "{what}");
    assert_eq!(camera.most_on_disk > 0, spool_use != SpoolUse::Memory, "{what}");
    let (chunks, left) = chunks(&bucket);
    assert!(
        chunks.len() >= 3 && chunks.keys().copied().eq(0..chunks.len() as u64),
        "{what}"
    );
    assert!(joined(&chunks) == input, "{what}: the bucket is not the input");
    assert_eq!(left, row.left, "{what}");
    let reports = &camera.reports;
    let word = |wanted: fn(&HealthEvent) -> bool| count(reports, |r| matches!(r, Report::HealthEvent(w, _) if wanted(w)));
    assert_eq!(
        count(reports, |r| matches!(r, Report::Uploaded { .. })),
        chunks.len(),
        "{what}"
    );
    assert_eq!(count(reports, |r| matches!(r, Report::Dropped { .. })), 0, "{what}");
    assert_eq!(
        word(|w| matches!(w, HealthEvent::Outage { .. })),
        usize::from(row.outage),
        "{what}: {reports:?}"
    );
    assert_eq!(
        word(|w| matches!(w, HealthEvent::Fatal { .. })),
        usize::from(row.fatal),
        "{what}"
    );
    assert_eq!(
        word(|w| matches!(w, HealthEvent::Refused { .. })),
        usize::from(row.refused),
        "{what}"
    );
    let ends = usize::from(row.outage || row.refused);
    assert_eq!(
        word(|w| matches!(w, HealthEvent::Recovered { .. })),
        ends,
        "{what}: {reports:?}"
    );
    assert_eq!(
        count(reports, |r| matches!(r, Report::ClockOff(_))),
        usize::from(row.ahead != 0),
        "{what}"
    );
    assert_eq!(
        count(reports, |r| matches!(r, Report::Warning(_))),
        row.left,
        "{what}: {reports:?}"
    );
}

fn every_fault_in_every_container(spool_use: SpoolUse) {
    let clips = clips();
    for (i, row) in rows().iter().enumerate() {
        for (container, input) in &clips {
            on_virtual_time(one(row, (container, input), spool_use, i as u64));
        }
    }
}

#[test]
fn every_fault_in_every_container_leaves_the_input_in_the_bucket_with_chunks_in_memory() {
    every_fault_in_every_container(SpoolUse::Memory);
}

#[test]
fn every_fault_in_every_container_leaves_the_input_in_the_bucket_with_chunks_on_disk_when_memory_is_full() {
    every_fault_in_every_container(SpoolUse::Overflow);
}

#[test]
fn every_fault_in_every_container_leaves_the_input_in_the_bucket_with_chunks_on_disk() {
    every_fault_in_every_container(SpoolUse::Always);
}

#[test]
fn an_attempt_that_holds_the_memory_others_wait_for_is_broken_off_and_made_again_from_disk() {
    let clips = clips();
    let setup = Setup {
        spool_use: SpoolUse::Overflow,
        // A chunk (27 to 28 % of the clip: the encoder is not deterministic) fits below three quarters of the memory, from where it would
        // go to disk while it is recorded; a whole block (256 KiB) beside it does not fit into all of it.
        max_memory: clips[1].1.len() as u64 * 40 / 100,
        max_uploads: 2,
        chunk: 2,
        rate: 0,
        seed: 1,
    };
    on_virtual_time(async {
        let bucket = Bucket::default();
        bucket.script(&[Fault::StallBefore]);
        let mut camera = Camera::new(setup, &bucket, Some(Container::MpegTs));
        camera.record(&clips[1].1, 8).await;
        assert_eq!(bucket.broken_off(), 1, "it was silent, and would have been for a minute");
        camera.drain(LONG).await;
        assert!(joined(&chunks(&bucket).0) == clips[1].1);
        assert_eq!(camera.uploads.snapshot().stats.retries, 0, "that is no failure");
    });
}

/// Minutes that the link is gone for, and how long the camera runs.
const OUTAGE: u64 = 600;
const BEFORE: u64 = 60;
const AFTER: u64 = 300;

/// About 40 kB a second.
fn long_clip() -> Vec<u8> {
    let seconds = BEFORE + OUTAGE + AFTER;
    let front = format!(
        "videotestsrc num-buffers={} pattern=snow ! video/x-raw,format=I420,width=160,height=120,framerate=5/1 ! \
         x264enc speed-preset=ultrafast bitrate=300 key-int-max=10 ! h264parse",
        seconds * 5
    );
    clip(&front, "flvmux streamable=true")
}

struct Night {
    bucket: Bucket,
    reports: Vec<Report>,
    setup: Setup,
    /// The link is back.
    back: Instant,
    /// Everything is stored.
    done: Instant,
    /// Bytes that waited when the link was back.
    backlog: u64,
    /// What came in a second.
    inflow: f64,
}

/// A link that is gone for ten minutes.
async fn night(setup: Setup, input: &[u8]) -> Night {
    let bucket = Bucket::default();
    let mut camera = Camera::new(setup, &bucket, Some(Container::Flv));
    let part = |seconds: u64| input.len() * seconds as usize / (BEFORE + OUTAGE + AFTER) as usize;
    let (before, rest) = input.split_at(part(BEFORE));
    let (outage, after) = rest.split_at(part(OUTAGE));
    camera.record(before, BEFORE).await;
    bucket.goes_down(Duration::from_secs(OUTAGE));
    camera.record(outage, OUTAGE).await;
    let (back, backlog) = (Instant::now(), camera.uploads.snapshot().pending.bytes);
    camera.record(after, AFTER).await;
    camera.drain(LONG).await;
    let done = bucket.stored().last().unwrap().0;
    Night {
        bucket,
        reports: camera.reports,
        setup,
        back,
        done,
        backlog,
        inflow: input.len() as f64 / (BEFORE + OUTAGE + AFTER) as f64,
    }
}

impl Night {
    /// No second above the rate and one piece, from any moment on.
    fn keeps_the_rate(&self) {
        let sent = self.bucket.sent();
        let (mut from, mut within) = (0, 0);
        for (at, bytes) in &sent {
            within += *bytes as u64;
            while at.duration_since(sent[from].0) >= Duration::from_secs(1) {
                within -= sent[from].1 as u64;
                from += 1;
            }
            assert!(
                within <= self.setup.rate + self.setup.rate / 10 + 1,
                "{within} bytes in a second"
            );
        }
    }

    /// From the end of the outage on: the newest chunk whenever there is a newer one, and else the oldest.
    fn newest_first_then_oldest_first(&self) {
        let attempts: Vec<_> = self
            .bucket
            .attempts()
            .into_iter()
            .filter(|(at, _)| *at >= self.back)
            .collect();
        let stored_by = |at: Instant| {
            let stored = self.bucket.stored();
            stored
                .into_iter()
                .filter(|(t, _)| *t <= at)
                .map(|(_, s)| s)
                .collect::<Vec<u64>>()
        };
        let mut newest = 0;
        for (i, (at, sequence)) in attempts.iter().enumerate() {
            let stored = stored_by(*at);
            let oldest = (0..).find(|s| !stored.contains(s)).unwrap();
            assert!(i > 0 || *sequence > oldest, "the newest is first");
            assert!(
                *sequence > newest || *sequence == oldest,
                "{sequence} though {oldest} is older, newest {newest}"
            );
            newest = newest.max(*sequence);
        }
    }

    fn says_it_once(&self) {
        let word =
            |wanted: fn(&HealthEvent) -> bool| count(&self.reports, |r| matches!(r, Report::HealthEvent(w, _) if wanted(w)));
        assert_eq!(word(|w| matches!(w, HealthEvent::Outage { .. })), 1);
        assert_eq!(word(|w| matches!(w, HealthEvent::Recovered { .. })), 1);
    }
}

#[test]
fn ten_minutes_without_a_link_cost_no_byte_and_are_made_up_at_the_configured_rate() {
    let input = long_clip();
    for spool_use in SPOOL_USES {
        let setup = Setup {
            spool_use,
            max_memory: if spool_use == SpoolUse::Memory { 64 << 20 } else { 2 << 20 },
            max_uploads: 1,
            chunk: 10,
            rate: 200_000,
            seed: 7,
        };
        let night = on_virtual_time(night(setup, &input));
        let (chunks, left) = chunks(&night.bucket);
        assert!(joined(&chunks) == input && left == 0, "{spool_use:?}");
        assert_eq!(
            count(&night.reports, |r| matches!(r, Report::Dropped { .. })),
            0,
            "{spool_use:?}"
        );
        night.keeps_the_rate();
        night.newest_first_then_oldest_first();
        night.says_it_once();
        // It is found within one attempt that hangs and one pause that the link is back; from then on every byte of the rate is
        // used until the backlog is gone.
        let first = night.bucket.stored().iter().find(|(at, _)| *at >= night.back).unwrap().0;
        let found = first.duration_since(night.back);
        assert!(found <= Duration::from_secs(60 + 30 + 5), "{spool_use:?}: {found:?}");
        let caught_up = night.caught_up().duration_since(first).as_secs_f64();
        let waited = night.backlog as f64 + night.inflow * found.as_secs_f64();
        let expected = waited / (setup.rate as f64 - night.inflow);
        assert!(
            caught_up <= expected * 1.03 + 12.0 && caught_up >= expected * 0.8 - 12.0,
            "{spool_use:?}: {caught_up} s for a backlog of {waited} bytes, {expected} s expected"
        );
    }
}

impl Night {
    /// When the backlog was gone: the last chunk that was recorded in the outage was stored.
    fn caught_up(&self) -> Instant {
        let last = (BEFORE + OUTAGE) / self.setup.chunk - 1;
        let stored = self.bucket.stored();
        let at = stored
            .iter()
            .filter(|(at, s)| *s < last && *at >= self.back)
            .map(|(at, _)| *at)
            .max();
        at.unwrap().min(self.done)
    }
}

#[test]
fn what_does_not_fit_is_dropped_oldest_first_and_each_is_reported_with_its_time() {
    let input = long_clip();
    let setup = Setup {
        spool_use: SpoolUse::Memory,
        max_memory: 4 << 20,
        max_uploads: 2,
        chunk: 10,
        rate: 0,
        seed: 3,
    };
    let night = on_virtual_time(night(setup, &input));
    let (chunks, _) = chunks(&night.bucket);
    let mut dropped = BTreeMap::new();
    for report in &night.reports {
        if let Report::Dropped { summary, reason } = report {
            assert_eq!(*reason, "overflow");
            assert!(
                dropped.insert(summary.sequence, summary.clone()).is_none(),
                "each is told once"
            );
        }
    }
    assert!(dropped.len() > 20, "{}", dropped.len());
    // Every number is in the bucket or was reported.
    let last = chunks.keys().max().unwrap();
    for sequence in 0..=*last {
        assert!(
            chunks.contains_key(&sequence) != dropped.contains_key(&sequence),
            "{sequence}"
        );
    }
    // The time spans lie one behind the other, and between the chunks that are there.
    let starts: Vec<(u64, u64)> = dropped.values().map(|s| (s.start, s.start + s.duration)).collect();
    for pair in starts.windows(2) {
        assert!(pair[0].1 <= pair[1].0 + 1_000_000, "{pair:?}");
    }
    assert!(
        dropped
            .values()
            .all(|s| (9_000_000_000..=13_000_000_000).contains(&s.duration))
    );
    // The oldest went, but for those that were being sent.
    let (first, until) = (dropped.keys().next().unwrap(), dropped.keys().max().unwrap());
    let between = chunks.keys().filter(|s| *s > first && *s < until).count();
    assert!(between <= setup.max_uploads, "{:?} of {:?}", chunks.keys(), dropped.keys());
    let lost: u64 = dropped.values().map(|s| s.size).sum();
    let kept: u64 = chunks.values().map(|c| c.data.len() as u64).sum();
    assert!(lost + kept >= input.len() as u64);
    night.says_it_once();
}

/// Records for ten minutes behind these limits, then without any. What was said of the limits, and whether the status was `degraded`
/// at the end of each part.
async fn behind(bytes: u64, requests: f64, input: &[u8]) -> (Vec<Message>, [Status; 2]) {
    let setup = Setup {
        spool_use: SpoolUse::Memory,
        max_memory: 64 << 20,
        max_uploads: 4,
        chunk: 2,
        rate: 0,
        seed: 5,
    };
    let mut camera = Camera::new(setup, &Bucket::default(), None);
    camera.limit(bytes, requests);
    let half = input.len() / 2;
    camera.record(&input[..half], 300).await;
    let limited = camera.uploads.status();
    camera.limit(0, 0.0);
    camera.record(&input[half..], 300).await;
    let statuses = [limited, camera.uploads.status()];
    camera.drain(Duration::from_secs(600)).await;
    (camera.limits, statuses)
}

#[test]
fn a_limit_of_ours_that_lets_the_backlog_grow_is_reported_once_with_what_is_needed_and_one_that_suffices_is_not() {
    let input = long_clip();
    // All of it comes in ten minutes, and each GOP of two seconds is a chunk.
    let rate = input.len() as f64 / 600.0;
    let chunks = (BEFORE + OUTAGE + AFTER) as f64 / 2.0 / 600.0;
    let needs = |needed: f64, expected: f64| needed > expected * 0.8 && needed < expected * 1.3;
    let run = |bytes, requests| on_virtual_time(behind(bytes, requests, &input));
    let (reported, statuses) = run(20_000, 0.0);
    assert_eq!(statuses, [Status::Degraded, Status::Online]);
    assert!(
        matches!(reported[..], [Message::TooFewBytes { limit: 20_000, needed }] if needs(needed, rate)),
        "{reported:?}, {rate}"
    );
    let (reported, statuses) = run(0, 0.25);
    assert_eq!(statuses, [Status::Degraded, Status::Online]);
    assert!(
        matches!(reported[..], [Message::TooFewRequests { limit: 0.25, needed }] if needs(needed, chunks)),
        "{reported:?}"
    );
    let (reported, statuses) = run(100_000, 1.0);
    assert_eq!((reported.len(), statuses), (0, [Status::Online; 2]), "{reported:?}");
}
