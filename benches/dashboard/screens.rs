//! What the dashboard takes: its screens on large buckets, pictures while dragging, an export, fifty viewers. Each figure with its budget.
//!
//! `cargo bench -p gcstreamer-dashboard --bench dashboard`. The dashboard is the program itself, in a process of its own for each table row; the
//! bucket is a scripted server whose listings take 20 ms each, since emulators list in a time that grows with the bucket.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::indexing_slicing,
    reason = "a bench talks to its user and may fail loudly"
)]

#[path = "bucket.rs"]
mod bucket;
#[path = "../../dashboard/tests/common/mod.rs"]
mod common;

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bucket::{Bucket, CHUNK, Server};
use common::{Cut, SECOND, Stream, cut_after, encode, get, iso, now};

/// How long a listing takes.
const LATENCY: Duration = Duration::from_millis(20);
const DAY: u64 = 86_400 * SECOND;
/// H.264 at 4 Mbit/s with AAC.
const FOUR_MBIT: Stream = Stream {
    camera: "cam",
    arguments: "-c:v libx264 -b:v 4M -minrate 4M -maxrate 4M -bufsize 1M -x264-params nal-hrd=cbr -c:a aac -ar 48000 -f flv -flvflags no_duration_filesize",
};

/// The dashboard, until this is dropped.
struct Dashboard {
    child: Child,
    address: String,
}

impl Dashboard {
    fn start(bucket: &str, server: SocketAddr) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_gcstreamer-dashboard"))
            .args([
                "--bucket",
                bucket,
                "--listen",
                "127.0.0.1:0",
                "--endpoint-uri",
                &format!("http://{server}"),
            ])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let line = lines
            .find_map(|line| line.ok().filter(|line| line.contains("listening on")))
            .unwrap();
        std::thread::spawn(move || lines.for_each(drop));
        let address = line[line.find("http://").unwrap()..].trim().to_owned();
        Self { child, address }
    }

    /// The most memory that was resident, MiB.
    fn resident(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1024
    }

    /// CPU time that it has taken, s.
    fn cpu(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap();
        let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
        // User and system, in hundredths of a second.
        f64::from(fields[11].parse::<u32>().unwrap() + fields[12].parse::<u32>().unwrap()) / 100.0
    }

    /// Asks, and returns what was answered and how long it took.
    fn timed(&self, path: &str) -> (common::Reply, Duration) {
        let begun = Instant::now();
        let reply = get(&self.address, path);
        assert!(
            matches!(reply.status, 200 | 302),
            "{path}: {} {}",
            reply.status,
            String::from_utf8_lossy(&reply.body)
        );
        (reply, begun.elapsed())
    }
}

impl Drop for Dashboard {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Prints a row; whether the budget was kept.
fn row(what: &str, took: &str, budget: &str, is_met: bool, more: &str) -> bool {
    println!(
        "| {what} | {took} | {budget} | {} | {more} |",
        if is_met { "met" } else { "**missed**" }
    );
    is_met
}

fn seconds(took: Duration) -> String {
    format!("{:.2} s", took.as_secs_f64())
}

fn p95(mut all: Vec<Duration>) -> Duration {
    all.sort();
    all[all.len() * 95 / 100]
}

fn template() -> Cut {
    let folder = tempfile::tempdir().unwrap();
    let mut cuts = cut_after(&encode(FOUR_MBIT, 21, folder.path()), CHUNK);
    let cut = cuts.swap_remove(0);
    assert_eq!(cut.info.duration, CHUNK);
    cut
}

fn main() {
    let now = now() / CHUNK * CHUNK;
    let of = |cameras: u64, chunks: u64| Bucket {
        cameras,
        chunks,
        start: now - chunks * CHUNK,
    };
    let buckets = BTreeMap::from([
        ("fleet", of(300, 10_000)),
        ("single", of(1, 8_640)),
        ("long-camera", of(1, 100_000)),
        ("months", of(1, 62 * 8_640)),
    ]);
    let cut = template();
    let size = cut.bytes.len();
    let server = Server::start(buckets, cut, LATENCY);
    println!(
        "\nChunks of 10 s and {size} bytes; a listing takes {} ms\n",
        LATENCY.as_millis()
    );
    println!("| what | took | budget | | |\n|---|---:|---:|---|---|");
    let rows = [
        first_screen(&server),
        a_day(&server, now),
        a_long_camera(&server, now),
        a_month(&server, now),
        pictures(&server, now),
        export(&server, now),
        viewers(&server, now),
    ];
    if rows.contains(&false) {
        std::process::exit(1);
    }
}

fn first_screen(server: &Server) -> bool {
    let dashboard = Dashboard::start("fleet", server.address);
    let before = server.lists.load(Ordering::Relaxed);
    let (reply, took) = dashboard.timed("/api/cameras");
    let cameras = reply.json().as_array().unwrap().len();
    assert_eq!(cameras, 300);
    let (lists, cpu) = (server.lists.load(Ordering::Relaxed) - before, dashboard.cpu());
    std::thread::sleep(Duration::from_secs(3));
    let (_, again) = dashboard.timed("/api/cameras");
    let more = format!(
        "{lists} listings, {cpu:.2} s of CPU; again after 3 s {}; {} MiB",
        seconds(again),
        dashboard.resident()
    );
    row(
        "first screen, 300 cameras × 10,000 chunks",
        &seconds(took),
        "1 s",
        took < Duration::from_secs(1),
        &more,
    )
}

fn range(camera: &str, from: u64, to: u64) -> String {
    format!("camera={camera}&from={}&to={}", iso(from), iso(to))
}

fn a_day(server: &Server, now: u64) -> bool {
    let dashboard = Dashboard::start("single", server.address);
    let (_, bar) = dashboard.timed(&format!("/api/timeline?{}", range("cam000", now - DAY, now)));
    let (playlist, took) = dashboard.timed(&format!("/hls/index.m3u8?{}", range("cam000", now - DAY, now)));
    assert_eq!(playlist.text().matches("#EXTINF").count(), 8_640);
    let more = format!(
        "time bar {}, then the playlist {}; {:.2} s of CPU",
        seconds(bar),
        seconds(took),
        dashboard.cpu()
    );
    row(
        "a day of 8,640 chunks",
        &seconds(bar + took),
        "1 s",
        bar + took < Duration::from_secs(1),
        &more,
    )
}

fn a_long_camera(server: &Server, now: u64) -> bool {
    let dashboard = Dashboard::start("long-camera", server.address);
    let hour = 3600 * SECOND;
    let mut took = Duration::ZERO;
    for path in [
        "/api/cameras".to_owned(),
        format!("/api/timeline?{}", range("cam000", now - 2 * hour, now + hour)),
        format!("/hls/index.m3u8?{}", range("cam000", now - hour, now + 2 * hour)),
    ] {
        took += dashboard.timed(&path).1;
    }
    let at = now - 50_000 * CHUNK;
    let (_, middle) = dashboard.timed(&format!("/hls/index.m3u8?{}", range("cam000", at - hour, at + 2 * hour)));
    let more = format!("then its middle {}", seconds(middle));
    row(
        "a camera with 100,000 chunks opens",
        &seconds(took),
        "1 s",
        took.max(middle) < Duration::from_secs(1),
        &more,
    )
}

fn a_month(server: &Server, now: u64) -> bool {
    let dashboard = Dashboard::start("months", server.address);
    let month = iso(now - 31 * DAY)[..7].to_owned();
    let path = format!("/api/days?camera=cam000&month={month}&tz=Europe/Berlin");
    let (reply, cold) = dashboard.timed(&path);
    let recorded: u64 = reply
        .json()
        .as_array()
        .unwrap()
        .iter()
        .map(|day| day["recorded_s"].as_u64().unwrap())
        .sum();
    let cpu = dashboard.cpu();
    let (_, cached) = dashboard.timed(&path);
    let is_met = cold < Duration::from_secs(3) && cached < Duration::from_millis(300);
    let took = format!("{} cold, {} cached", seconds(cold), seconds(cached));
    row(
        "a month of 10 s chunks",
        &took,
        "3 s, 0.3 s",
        is_met,
        &format!(
            "{} h recorded; {cpu:.2} s of CPU cold; {} MiB",
            recorded / 3600,
            dashboard.resident()
        ),
    )
}

fn pictures(server: &Server, now: u64) -> bool {
    let dashboard = Dashboard::start("single", server.address);
    let drag = || {
        let times = (0..96).map(|step| {
            let t = now - DAY + 5 * SECOND + step * (DAY / 96);
            let begun = Instant::now();
            let (to, _) = dashboard.timed(&format!("/preview?camera=cam000&t={}", iso(t)));
            dashboard.timed(&to.headers["location"]);
            begun.elapsed()
        });
        p95(times.collect())
    };
    let (cold, warm) = (drag(), drag());
    let ms = |took: Duration| format!("{:.1} ms", took.as_secs_f64() * 1000.0);
    let is_met = cold <= Duration::from_millis(150) && warm <= Duration::from_millis(16);
    row(
        "pictures while dragging over 24 h, p95",
        &format!("{} cold, {} warm", ms(cold), ms(warm)),
        "150 ms, 16 ms",
        is_met,
        "96 of them; cold lists the hours besides",
    )
}

/// Reads an answer to its end without keeping it.
fn drained(address: &str, path: &str) -> u64 {
    let host = address.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let (mut count, mut buffer) = (0, vec![0; 256 << 10]);
    loop {
        match stream.read(&mut buffer).unwrap() {
            0 => return count,
            read => count += read as u64,
        }
    }
}

fn export(server: &Server, now: u64) -> bool {
    let dashboard = Dashboard::start("single", server.address);
    let begun = Instant::now();
    let (from, to) = (now - 7200 * SECOND, now - 3600 * SECOND);
    let bytes = drained(&dashboard.address, &format!("/export?{}", range("cam000", from, to)));
    let took = begun.elapsed();
    let resident = dashboard.resident();
    assert!(bytes > 1_500_000_000, "{bytes}");
    let rate = f64::from(u32::try_from(bytes / 1_000_000).unwrap()) / took.as_secs_f64();
    let is_met = resident <= 64 && took <= Duration::from_secs(30);
    row(
        "1 h at 4 Mbit/s as MP4",
        &format!("{}, {resident} MiB resident", seconds(took)),
        "30 s, 64 MiB",
        is_met,
        &format!("{rate:.0} MB/s, {bytes} bytes"),
    )
}

fn viewers(server: &Server, now: u64) -> bool {
    let dashboard = Dashboard::start("single", server.address);
    let before = server.lists.load(Ordering::Relaxed);
    let begun = Instant::now();
    let slowest = std::thread::scope(|scope| {
        let viewers: Vec<_> = (0..50)
            .map(|viewer| {
                let dashboard = &dashboard;
                scope.spawn(move || {
                    let at = now - 7200 * SECOND + viewer % 5 * 60 * SECOND;
                    let mut slowest = dashboard.timed("/api/cameras").1;
                    slowest = slowest.max(
                        dashboard
                            .timed(&format!("/api/timeline?{}", range("cam000", now - DAY, now)))
                            .1,
                    );
                    let (playlist, took) = dashboard.timed(&format!("/hls/index.m3u8?{}", range("cam000", at, at + 60 * SECOND)));
                    slowest = slowest.max(took);
                    for address in playlist.text().lines().filter(|line| line.starts_with("/media/")).take(3) {
                        slowest = slowest.max(dashboard.timed(address).1);
                    }
                    slowest
                })
            })
            .collect();
        viewers.into_iter().map(|viewer| viewer.join().unwrap()).max().unwrap()
    });
    let took = begun.elapsed();
    let lists = server.lists.load(Ordering::Relaxed) - before;
    let is_met = took < Duration::from_secs(30);
    let more = format!(
        "slowest answer {}; {lists} listings; {} MiB resident",
        seconds(slowest),
        dashboard.resident()
    );
    row(
        "50 viewers at once: board, bar, playlist, 30 s each of 5 places",
        &seconds(took),
        "30 s",
        is_met,
        &more,
    )
}
