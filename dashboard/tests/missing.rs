//! "Missing today" is right for whoever asks, costs few listings, and a silent bucket is reported within the time that is promised.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use common::gcs_server::Answer;
use common::{BUCKET, Dashboard, GcsServer, SECOND, ShiftedClock, get, iso, now, put_chunks, settings};
use gcstreamer_dashboard::app::App;
use gcstreamer_dashboard::clock::Clock;
use gcstreamer_dashboard::settings::{DEFAULT_LOCATION, Settings};
use gcstreamer_schema::name::{NameFields, Template};

const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// A clock that moves only when it is set.
#[derive(Debug)]
struct Stopped(AtomicU64);

impl Stopped {
    fn at(ns: u64) -> Arc<Self> {
        Arc::new(Self(AtomicU64::new(ns)))
    }

    fn advance(&self, ns: u64) {
        self.0.fetch_add(ns, Ordering::SeqCst);
    }
}

impl Clock for Stopped {
    fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}

/// Midnight (UTC) of yesterday.
fn midnight() -> u64 {
    (now() - DAY) / DAY * DAY
}

/// Chunks of ten minutes that take as much memory as thousands.
fn put_large(server: &GcsServer, camera: &str, (from, to): (u64, u64)) {
    let template = Template::parse(DEFAULT_LOCATION).unwrap();
    let codecs = "x".repeat(150_000);
    for (sequence, start) in (0u64..).zip((from..to).step_by(600_000_000_000)) {
        let naming = NameFields {
            device: camera,
            session: "0a1b2c3d4e",
            seq: sequence,
            ext: "flv",
            start,
        };
        let (number, begins, ends) = (sequence.to_string(), iso(start), iso(start + 10 * MINUTE));
        let metadata = BTreeMap::from([
            ("device-id", camera),
            ("session-id", "0a1b2c3d4e"),
            ("sequence", &number),
            ("start-time", &begins),
            ("end-time", &ends),
            ("duration-ms", "600000"),
            ("container", "flv"),
            ("init-bytes", "0"),
            ("key-frame", "true"),
            ("clock", "system"),
            ("continuous", "true"),
            ("codecs", &codecs),
        ]);
        let metadata = metadata.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
        server.put_with(BUCKET, &template.format(&naming).unwrap(), b"x", &metadata.collect());
    }
}

#[test]
fn a_page_that_stays_open_does_not_list_the_whole_day_again_each_minute() {
    let server = GcsServer::spawn_thread();
    let begin = midnight();
    let until = begin + 20 * HOUR + 30 * MINUTE;
    let cameras = ["a", "b", "c", "d"];
    for camera in cameras {
        put_large(&server, camera, (begin, until));
    }
    let clock = Stopped::at(until);
    let app = App::new(settings(&server), clock.clone());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(app.count_missing());
    let first = app.index.requests();
    assert!(first >= 4 * 20, "{first} listings: each hour is looked at once");
    for minute in 1..=3 {
        clock.advance(61 * SECOND);
        let before = app.index.requests();
        runtime.block_on(app.count_missing());
        let listings = app.index.requests() - before;
        assert!((4..=4 * 8).contains(&listings), "{listings} listings in minute {minute}");
    }
    clock.advance(3 * SECOND);
    let board = runtime.block_on(app.board()).unwrap();
    assert_eq!(
        board.iter().filter(|camera| camera.missing_s_today == Some(0)).count(),
        4,
        "{board:?}"
    );
}

#[test]
fn who_asks_for_the_cameras_alone_learns_what_is_missing_today_and_not_what_was_yesterday() {
    let server = GcsServer::spawn_thread();
    let noon = midnight() + 12 * HOUR;
    put_chunks(
        &server,
        "cam",
        "0a1b2c3d4e",
        0,
        (noon - 10 * MINUTE, noon - 5 * MINUTE),
        "start",
    );
    let back = noon - 5 * MINUTE + 20 * SECOND;
    put_chunks(&server, "cam", "0a1b2c3d4e", 32, (back, noon), "start");
    // In front of it nothing was stored: no gap.
    let clock = Stopped::at(noon);
    let dashboard = Dashboard::start_by(settings(&server), clock.clone());
    let ask = || get(&dashboard.address, "/api/cameras").json()[0]["missing_s_today"].clone();
    let mut polls = 0u32;
    let missing = loop {
        let missing = ask();
        if !missing.is_null() {
            break missing;
        }
        polls += 1;
        assert!(polls < 1000, "still unknown");
        if polls.is_multiple_of(50) {
            // A board is good for two seconds.
            clock.advance(2 * SECOND);
        }
    };
    assert_eq!(missing, 20);
    clock.advance(12 * HOUR);
    assert!(ask().is_null(), "the number is of the day before");
}

#[test]
fn a_silent_bucket_is_reported_within_the_promised_time_however_many_cameras_there_are() {
    const PATIENCE: Duration = Duration::from_secs(1);
    let server = GcsServer::spawn_thread();
    let recent = now() / SECOND * SECOND;
    for camera in 0..300 {
        put_chunks(
            &server,
            &format!("cam{camera}"),
            "0a1b2c3d4e",
            0,
            (recent - 20 * SECOND, recent),
            "start",
        );
    }
    let clock = Arc::new(ShiftedClock::default());
    let limited = Settings {
        request_timeout: PATIENCE,
        ..settings(&server)
    };
    let dashboard = Dashboard::start_by(limited, clock.clone());
    assert_eq!(get(&dashboard.address, "/api/cameras").json().as_array().unwrap().len(), 300);
    server.set_object_fault(Some(Answer::raw(0, "", "")));
    clock.0.store(10, Ordering::SeqCst);
    let (from, to) = (iso(recent - 20 * HOUR), iso(recent - 10 * HOUR));
    for path in ["/api/cameras".to_owned(), format!("/api/gaps?from={from}&to={to}")] {
        let begun = Instant::now();
        assert_eq!(get(&dashboard.address, &path).status, 502, "{path}");
        let took = begun.elapsed();
        assert!(took < PATIENCE * 5, "{path}: {took:?}");
    }
}
