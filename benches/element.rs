//! What the element costs its pipeline, in process: the time of `render`, and a hundred sinks at once.
//!
//! `cargo bench --bench element [-- render|outage|sinks]`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a bench talks to its user and may fail loudly"
)]

mod common;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use common::server::Server;
use gst::prelude::*;

/// Buffers timed in each row: one in a thousand is 20 of them.
const PUSHES: usize = 20_000;
/// Between two pushes; with FLV tags of 7 KB on average that is about 50 Mbit/s.
const PACE: Duration = Duration::from_millis(1);
const MEDIAN_TARGET: Duration = Duration::from_micros(20);
const TAIL_TARGET: Duration = Duration::from_millis(1);
/// Sinks in one process.
const SINKS: usize = 100;
/// kB of each idle sink.
const SINK_TARGET: u64 = 1024;

fn main() {
    gst::init().unwrap();
    gstgcstreamer::plugin_register_static().unwrap();
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with('-')).collect();
    let wants = |name: &str| wanted.is_empty() || wanted.iter().any(|w| w == name);
    let flv = common::streams().into_iter().find(|(ext, _)| *ext == "flv").unwrap().1;
    let tags = tags(&flv);
    // First, while nothing else has grown the heap.
    if wants("sinks") {
        sinks(&tags);
    }
    if wants("render") {
        render(&tags);
    }
    if wants("outage") {
        outage(&tags);
    }
}

/// The stream as flvmux makes it: a buffer for each tag, the file header first.
fn tags(flv: &[u8]) -> Vec<gst::Buffer> {
    let mut ends = vec![13];
    let mut at = 13;
    while let Some(&[_, a, b, c]) = flv.get(at..at + 4) {
        at += 15 + usize::from(a) * 65536 + usize::from(b) * 256 + usize::from(c);
        ends.push(at);
    }
    let begins = std::iter::once(0).chain(ends.iter().copied());
    begins
        .zip(&ends)
        .filter_map(|(a, &b)| flv.get(a..b))
        .map(|tag| gst::Buffer::from_slice(tag.to_vec()))
        .collect()
}

/// A running gcssink and the pad that feeds it.
struct Feed {
    pipeline: gst::Pipeline,
    pad: gst::Pad,
}

impl Feed {
    fn start(endpoint: &str, device: &str, memory: u64) -> Self {
        Self::into_sink(&Self::sink(endpoint, device, memory), device)
    }

    fn sink(endpoint: &str, device: &str, memory: u64) -> gst::Element {
        gst::ElementFactory::make("gcssink")
            .property("bucket", "bench")
            .property("device-id", device)
            .property("endpoint-uri", endpoint)
            .property("max-memory-bytes", memory)
            // What the element costs, not what the limits say.
            .property("max-bytes-per-second", 0u64)
            .property("max-requests-per-second", 0.0)
            .property("drain-timeout", 2_000_000_000u64)
            .property("async", false)
            .build()
            .unwrap()
    }

    /// The sink that does nothing, to compare with.
    fn fakesink() -> Self {
        let sink = gst::ElementFactory::make("fakesink")
            .property("async", false)
            .build()
            .unwrap();
        Self::into_sink(&sink, "fakesink")
    }

    fn into_sink(sink: &gst::Element, id: &str) -> Self {
        let pipeline = gst::Pipeline::new();
        pipeline.add(sink).unwrap();
        let pad = gst::Pad::builder(gst::PadDirection::Src).build();
        pad.set_active(true).unwrap();
        pad.link(&sink.static_pad("sink").unwrap()).unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        pad.push_event(gst::event::StreamStart::new(id));
        pad.push_event(gst::event::Caps::new(&gst::Caps::builder("video/x-flv").build()));
        pad.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
        Self { pipeline, pad }
    }

    fn stop(self) {
        self.pad.push_event(gst::event::Eos::new());
        self.pipeline.set_state(gst::State::Null).unwrap();
    }
}

/// Times `gst_pad_push`, which is `render` and GstBaseSink around it.
fn render(tags: &[gst::Buffer]) {
    heading("Time of a push into the sink pad (render and GstBaseSink around it)", tags);
    println!("max-memory-bytes with room for all of them");
    columns();
    measure(tags, PACE, &mut |_| {}).row("none: the noise of bench and machine", false, None);
    let plain = Feed::fakesink();
    measure(tags, PACE, &mut |tag| {
        plain.pad.push(tag).unwrap();
    })
    .row("fakesink: GstBaseSink alone", false, None);
    plain.stop();
    for (name, refuse, pace) in [
        ("gcssink, the server takes all", false, PACE),
        ("gcssink, the server answers 503", true, PACE),
        ("gcssink, not paced, takes all", false, Duration::ZERO),
        ("gcssink, not paced, answers 503", true, Duration::ZERO),
    ] {
        let server = Server::start();
        server.counters.refuse.store(refuse, Ordering::Relaxed);
        let sink = Feed::sink(&server.endpoint, "render", 4 << 30);
        // Several chunks in each row: cuts and the hand-over of chunks are a part of render.
        sink.set_property("max-size-time", 2_000_000_000u64);
        let feed = Feed::into_sink(&sink, "render");
        let pushes = measure(tags, pace, &mut |tag| {
            feed.pad.push(tag).unwrap();
        });
        pushes.row(name, true, Some(&server));
        feed.stop();
    }
}

/// The same while no server listens at the endpoint: chunks pile up in memory, or on disk.
fn outage(tags: &[gst::Buffer]) {
    heading("Time of a push during an outage: nobody listens at the endpoint", tags);
    columns();
    for (name, memory, mode) in [
        ("in memory, room for all", 4 << 30, None),
        ("spool-mode=overflow, 64 MiB of memory", 64 << 20, Some("overflow")),
        ("spool-mode=always, 64 MiB of memory", 64 << 20, Some("always")),
    ] {
        // A port that was free a moment ago.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let spool = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let sink = Feed::sink(&format!("http://127.0.0.1:{port}"), "outage", memory);
        sink.set_property("max-size-time", 2_000_000_000u64);
        if let Some(mode) = mode {
            sink.set_property("spool-dir", spool.path().to_str().unwrap());
            sink.set_property_from_str("spool-mode", mode);
        }
        let feed = Feed::into_sink(&sink, "outage");
        let pushes = measure(tags, PACE, &mut |tag| {
            feed.pad.push(tag).unwrap();
        });
        pushes.row(name, true, None);
        let stats = sink.property::<gst::Structure>("stats");
        let number = |name: &str| stats.get::<u64>(name).unwrap() >> 20;
        let (memory, disk) = (number("bytes-in-memory"), number("bytes-in-spool"));
        assert_eq!(number("bytes-dropped"), 0, "something was dropped");
        println!("| of that: {memory} MiB in memory, {disk} MiB in the spool | | | | | | | | | | |");
        feed.stop();
    }
}

fn heading(title: &str, tags: &[gst::Buffer]) {
    let mean = tags.iter().map(|t| t.size()).sum::<usize>() / tags.len();
    println!("\n## {title}\n");
    println!("{PUSHES} FLV tags of {mean} bytes on average in each row, paced: one every {PACE:?}");
}

fn columns() {
    println!(
        "\n| sink | median | median below 1 KB | median from 8 KB | 99 % | 99.9 % | 99.9 % without waits for a core | max | targets 20 µs, 1 ms | uploads | answered 503 |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---:|---|---:|---:|");
}

/// How long each push took, and how large its buffer was.
struct Pushes {
    times: Vec<(Duration, usize)>,
    /// The same without the time that the thread was ready to run and got no core.
    awake: Vec<Duration>,
}

impl Pushes {
    fn quantile(&self, share: f64, sizes: std::ops::Range<usize>) -> Duration {
        let mut times: Vec<_> = self
            .times
            .iter()
            .filter(|(_, size)| sizes.contains(size))
            .map(|(time, _)| *time)
            .collect();
        common::quantile(&mut times, share)
    }

    fn row(&self, name: &str, judged: bool, server: Option<&Server>) {
        let all = 0..usize::MAX;
        let (median, tail) = (self.quantile(0.5, all.clone()), self.quantile(0.999, all.clone()));
        let verdict = |value, target| if value <= target { "met" } else { "MISSED" };
        let verdicts = format!("{}, {}", verdict(median, MEDIAN_TARGET), verdict(tail, TAIL_TARGET));
        let count =
            |pick: fn(&common::server::Counters) -> u64| server.map_or_else(String::new, |s| pick(&s.counters).to_string());
        println!(
            "| {name} | {median:.1?} | {:.1?} | {:.1?} | {:.1?} | {tail:.1?} | {:.1?} | {:.1?} | {} | {} | {} |",
            self.quantile(0.5, 0..1000),
            self.quantile(0.5, 8000..usize::MAX),
            self.quantile(0.99, all.clone()),
            common::quantile(&mut self.awake.clone(), 0.999),
            self.quantile(1.0, all),
            if judged { &verdicts } else { "" },
            count(|c| c.stored.load(Ordering::Relaxed)),
            count(|c| c.refused.load(Ordering::Relaxed)),
        );
    }
}

/// Pushes the stream again and again, as one recording after the other.
fn measure(tags: &[gst::Buffer], pace: Duration, push: &mut dyn FnMut(gst::Buffer)) -> Pushes {
    let (mut times, mut awake) = (Vec::with_capacity(PUSHES), Vec::with_capacity(PUSHES));
    let mut next = Instant::now();
    for tag in tags.iter().cycle().take(PUSHES) {
        next += pace;
        std::thread::sleep(next.saturating_duration_since(Instant::now()));
        let size = tag.size();
        // A buffer of its own each time, as a muxer makes it: copied before the clock runs.
        let tag = tag.copy_deep().unwrap();
        let waited = common::ran_and_waited().1;
        let start = Instant::now();
        push(tag);
        let time = start.elapsed();
        times.push((time, size));
        awake.push(time.saturating_sub(common::ran_and_waited().1.saturating_sub(waited)));
    }
    Pushes { times, awake }
}

/// A hundred sinks: threads, memory and connections.
fn sinks(tags: &[gst::Buffer]) {
    println!("\n## {SINKS} gcssinks in one process\n");
    println!("| | threads | resident, kB | kB for each sink | connections, most at a time |");
    println!("|---|---:|---:|---:|---:|");
    let server = Server::start();
    let counters = &server.counters;
    // What every process with the plugin has: runtime, client, TLS roots.
    let first = Feed::start(&server.endpoint, "first", 64 << 20);
    push_all(std::slice::from_ref(&first), tags);
    first.stop();
    wait_idle(&server);
    let (threads, base) = (own_threads(), common::status("VmRSS"));
    println!(
        "| one came and went | {threads} | {base} | | {} |",
        counters.most_open.load(Ordering::Relaxed)
    );

    let feeds: Vec<Feed> = (0..SINKS)
        .map(|i| Feed::start(&server.endpoint, &format!("cam{i}"), 64 << 20))
        .collect();
    std::thread::sleep(Duration::from_secs(2));
    let idle = common::status("VmRSS");
    line("PLAYING, nothing came yet", idle, base, &server, "");
    // One picture each: scanner, open chunk, first block.
    for feed in &feeds {
        for tag in tags.iter().take(6) {
            feed.pad.push(tag.copy_deep().unwrap()).unwrap();
        }
    }
    std::thread::sleep(Duration::from_secs(2));
    let begun = common::status("VmRSS");
    let verdict = if begun.saturating_sub(base) / SINKS as u64 <= SINK_TARGET {
        " (target 1024: met)"
    } else {
        " (target 1024: MISSED)"
    };
    line("a chunk open with its first tags", begun, base, &server, verdict);

    // All of them at once close their chunk: who waits, who connects?
    let ends: Vec<_> = feeds
        .into_iter()
        .map(|feed| std::thread::spawn(move || feed.stop()))
        .collect();
    for end in ends {
        end.join().unwrap();
    }
    wait_idle(&server);
    line("all stopped at once", common::status("VmRSS"), base, &server, "");
    println!(
        "\nUploads: {}, connections altogether: {}",
        counters.stored.load(Ordering::Relaxed),
        counters.connections.load(Ordering::Relaxed)
    );
}

fn line(name: &str, now: u64, base: u64, server: &Server, verdict: &str) {
    let each = now.saturating_sub(base) / SINKS as u64;
    let open = server.counters.most_open.load(Ordering::Relaxed);
    println!("| {name} | {} | {now} | {each}{verdict} | {open} |", own_threads());
}

/// Threads of the process without those of the bench's server.
fn own_threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|t| std::fs::read_to_string(t.path().join("comm")).ok());
    names.filter(|name| !name.starts_with("server")).count()
}

fn push_all(feeds: &[Feed], tags: &[gst::Buffer]) {
    for feed in feeds {
        for tag in tags {
            feed.pad.push(tag.copy_deep().unwrap()).unwrap();
        }
    }
}

/// Until no more uploads come.
fn wait_idle(server: &Server) {
    let mut before = u64::MAX;
    loop {
        std::thread::sleep(Duration::from_secs(1));
        let now = server.counters.stored.load(Ordering::Relaxed);
        if now == before {
            return;
        }
        before = now;
    }
}
