//! Outages are shown whole, wherever the window of time begins and ends that somebody looks at.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{BUCKET, Dashboard, GcsServer, SECOND, get, iso, now, put_chunks, settings};
use gcstreamer_dashboard::settings::DEFAULT_LOCATION;
use gcstreamer_schema::name::{NameFields, Template};
use gcstreamer_schema::session::session_id;
use gcstreamer_schema::time::parse_rfc3339;
use serde_json::{Value, json};

const HOUR: u64 = 3600 * SECOND;
const MINUTE: u64 = 60 * SECOND;

/// A camera `cam` that recorded for ten minutes, was away for eight hours, and recorded again for ten minutes: until half an hour ago. When
/// the outage began and ended.
fn outage() -> (GcsServer, u64, u64) {
    let server = GcsServer::spawn_thread();
    let back = (now() - 40 * MINUTE) / SECOND * SECOND;
    let lost = back - 8 * HOUR;
    put_chunks(&server, "cam", "0a1b2c3d4e", 0, (lost - 10 * MINUTE, lost), "start");
    put_chunks(&server, "cam", "1a1b2c3d4e", 0, (back, back + 10 * MINUTE), "camera-frozen");
    (server, lost, back)
}

fn gaps(dashboard: &Dashboard, from: u64, to: u64) -> Value {
    let path = format!("/api/timeline?camera=cam&from={}&to={}", iso(from), iso(to));
    get(&dashboard.address, &path).json()["gaps"].clone()
}

fn frozen(from: u64, to: u64) -> Value {
    json!([{"from": iso(from), "to": iso(to), "reason": "camera-frozen"}])
}

#[test]
fn an_outage_that_reaches_over_the_edges_of_a_window_is_shown_in_it() {
    let (server, lost, back) = outage();
    let dashboard = Dashboard::start(settings(&server));
    let end = back + 10 * MINUTE;
    for (what, from, to) in [
        ("from before it to after it", lost - 5 * MINUTE, end),
        ("from the middle on", lost + 4 * HOUR, end),
        ("up to the middle", lost - 5 * MINUTE, lost + 4 * HOUR),
        ("inside", lost + 3 * HOUR, lost + 5 * HOUR),
        ("one minute inside", lost + 3 * HOUR, lost + 3 * HOUR + MINUTE),
    ] {
        assert_eq!(gaps(&dashboard, from, to), frozen(from.max(lost), to.min(back)), "{what}");
    }
    let days = gaps(&dashboard, lost - 72 * HOUR, lost + 4 * HOUR);
    assert_eq!(days, frozen(lost, lost + 4 * HOUR), "over days");
    // The night's longest outage began before the time that is looked at.
    let since = lost + 6 * HOUR;
    let all = get(
        &dashboard.address,
        &format!("/api/gaps?from={}&to={}", iso(since), iso(now())),
    )
    .json();
    assert_eq!(all[0]["from"], iso(since), "{all}");
    assert_eq!(all[0]["to"], iso(back), "{all}");
}

#[test]
fn before_the_first_chunk_of_a_camera_and_behind_its_last_nothing_is_missing() {
    let (server, lost, back) = outage();
    let dashboard = Dashboard::start(settings(&server));
    let (first, end) = (lost - 10 * MINUTE, back + 10 * MINUTE);
    for (what, from, to) in [
        ("a day that ends with its first minutes", lost - 24 * HOUR, lost),
        ("a day before it", lost - 48 * HOUR, lost - 24 * HOUR),
        ("a month before it", lost - 31 * 24 * HOUR, first - 24 * HOUR),
        ("from its end on", end, end + HOUR),
    ] {
        assert_eq!(gaps(&dashboard, from, to), json!([]), "{what}");
    }
    // A clock that was not set yet says nothing of when the recording stopped.
    put_chunks(&server, "cam", "00000c3d4e", 0, (MINUTE, 2 * MINUTE), "start");
    let dashboard = Dashboard::start(settings(&server));
    assert_eq!(gaps(&dashboard, lost - 24 * HOUR, lost), json!([]));
}

#[test]
fn looking_at_an_outage_again_and_again_costs_no_more_listings() {
    let (server, lost, _) = outage();
    let dashboard = Dashboard::start(settings(&server));
    let look = || {
        let before = server.requests().len();
        gaps(&dashboard, lost + 3 * HOUR, lost + 5 * HOUR);
        server.requests().len() - before
    };
    let (first, again) = (look(), look());
    assert!(first < 20, "{first} requests");
    assert_eq!(again, 0);
}

#[test]
fn a_calendar_counts_an_outage_that_began_in_the_month_before_and_one_that_no_number_shows() {
    let server = GcsServer::spawn_thread();
    let at = |text: &str| gcstreamer_schema::time::parse_rfc3339(text).unwrap();
    let (from, back) = (at("2026-05-30T12:00:00Z"), at("2026-06-02T12:00:00Z"));
    put_chunks(&server, "cam", "0a1b2c3d4e", 0, (from, from + 10 * MINUTE), "start");
    put_chunks(&server, "cam", "1a1b2c3d4e", 0, (back, back + 10 * MINUTE), "camera-frozen");
    // The camera stalls for an hour; the numbers go on.
    let stalled = back + HOUR + 10 * MINUTE;
    put_chunks(&server, "cam", "1a1b2c3d4e", 60, (stalled, stalled + 10 * MINUTE), "stalled");
    let dashboard = Dashboard::start(settings(&server));
    let days = get(&dashboard.address, "/api/days?camera=cam&month=2026-06&tz=UTC").json();
    assert_eq!(
        (days[0]["gap_s"].as_u64(), days[0]["recorded_s"].as_u64()),
        (Some(86_400), Some(0)),
        "{days}"
    );
    assert_eq!(days[1]["gap_s"], 43_200 + 3600, "{days}");
    assert_eq!(days[1]["recorded_s"], 1200, "{days}");
    assert_eq!(days[2]["gap_s"], 0, "{days}");
}

/// Puts a chunk there that begins at `start` and lasts `seconds`; before it something is missing for this reason.
fn put(server: &GcsServer, (camera, session, sequence): (&str, &str, u64), start: u64, seconds: u64, reason: Option<&str>) {
    let fields = NameFields {
        device: camera,
        session,
        seq: sequence,
        ext: "flv",
        start,
    };
    let name = Template::parse(DEFAULT_LOCATION).unwrap().format(&fields).unwrap();
    let (number, begins, ends) = (sequence.to_string(), iso(start), iso(start + seconds * SECOND));
    let length = (seconds * 1000).to_string();
    let mut metadata = BTreeMap::from([
        ("device-id", camera),
        ("session-id", session),
        ("sequence", &number),
        ("start-time", &begins),
        ("end-time", &ends),
        ("duration-ms", &length),
        ("container", "flv"),
        ("init-bytes", "0"),
        ("key-frame", "true"),
        ("clock", "system"),
        ("continuous", if reason.is_some() { "false" } else { "true" }),
    ]);
    metadata.extend(reason.map(|reason| ("gap-reason", reason)));
    let metadata = metadata.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned()));
    server.put_with(BUCKET, &name, b"x", &metadata.collect());
}

/// Puts an hour of short outages there. Of `flap` the connection ends after 52 s and comes again after 8 s, as a new session each time; of
/// `stall` the pictures stop for 25 s after each minute of one session; of `drop` for 3 s after each 57 s, the last chunk of which is short.
fn outages(server: &GcsServer, begins: u64) {
    for round in 0..60 {
        let (start, session) = (begins + round * MINUTE, session_id(begins + round * MINUTE, 7));
        for number in 0..6 {
            let (seconds, reason) = (
                if number == 5 { 2 } else { 10 },
                (number == 0).then_some("camera-unreachable"),
            );
            put(
                server,
                ("flap", &session, number),
                start + number * 10 * SECOND,
                seconds,
                reason,
            );
        }
        let session = session_id(begins, 7);
        for number in 0..6 {
            let reason = (number == 0).then_some(if round == 0 { "start" } else { "camera-frozen" });
            let (seconds, number) = (if number == 5 { 7 } else { 10 }, round * 6 + number);
            put(
                server,
                ("drop", &session, number),
                begins + number * 10 * SECOND,
                seconds,
                reason,
            );
        }
    }
    let (mut at, session) = (begins, session_id(begins, 8));
    for number in 0..240 {
        let reason = (number % 6 == 0).then_some(if number == 0 { "start" } else { "stalled" });
        at += if reason == Some("stalled") { 25 * SECOND } else { 0 };
        put(server, ("stall", &session, number), at, 10, reason);
        at += 10 * SECOND;
    }
}

/// Seconds recorded and missing, and why, as the bar of a camera shows them.
fn reported(dashboard: &Dashboard, camera: &str, from: u64, to: u64) -> (u64, u64, BTreeSet<String>) {
    let path = format!("/api/timeline?camera={camera}&from={}&to={}", iso(from), iso(to));
    let timeline = get(&dashboard.address, &path).json();
    let sum = |of: &str| {
        let parts = timeline[of].as_array().unwrap().iter();
        let time = |part: &Value, end: &str| parse_rfc3339(part[end].as_str().unwrap()).unwrap();
        parts.map(|part| time(part, "to") - time(part, "from")).sum::<u64>() / SECOND
    };
    let gaps = timeline["gaps"].as_array().unwrap();
    let reasons = gaps.iter().map(|gap| gap["reason"].as_str().unwrap().to_owned());
    (sum("ranges"), sum("gaps"), reasons.collect())
}

#[test]
fn short_gaps_are_reported_and_counted_alike_by_the_day_by_days_and_by_the_calendar() {
    let server = GcsServer::spawn_thread();
    let day = parse_rfc3339("2026-05-12T00:00:00Z").unwrap();
    outages(&server, day + 6 * HOUR);
    for (camera, recorded, missing, why) in [
        ("flap", 60 * 52, 59 * 8, "camera-unreachable"),
        ("drop", 60 * 57, 59 * 3, "camera-frozen"),
        ("stall", 2400, 39 * 25, "stalled"),
    ] {
        let wanted = (recorded, missing, BTreeSet::from([why.to_owned()]));
        // Each by a dashboard that has looked at nothing yet.
        let look = || Dashboard::start(settings(&server));
        assert_eq!(reported(&look(), camera, day, day + 24 * HOUR), wanted, "{camera}: a day");
        assert_eq!(
            reported(&look(), camera, day - 24 * HOUR, day + 48 * HOUR),
            wanted,
            "{camera}: three days"
        );
        let month = get(&look().address, &format!("/api/days?camera={camera}&month=2026-05&tz=UTC")).json();
        let counted = ["recorded_s", "gap_s"].map(|of| month[11][of].as_u64().unwrap());
        assert_eq!(counted, [recorded, missing], "{camera}: the calendar");
    }
}

#[test]
fn a_calendar_of_a_camera_that_never_stopped_reads_names_and_the_hours_at_the_edges() {
    let server = GcsServer::spawn_thread();
    let month = parse_rfc3339("2026-05-01T00:00:00Z").unwrap();
    put_chunks(
        &server,
        "cam",
        &session_id(month, 7),
        0,
        (month, month + 3 * 24 * HOUR),
        "start",
    );
    let dashboard = Dashboard::start(settings(&server));
    let path = "/api/days?camera=cam&month=2026-05&tz=UTC";
    let days = get(&dashboard.address, path).json();
    assert_eq!(
        (days[1]["recorded_s"].as_u64(), days[1]["gap_s"].as_u64()),
        (Some(86_400), Some(0)),
        "{days}"
    );
    let requests = server.requests();
    let with_metadata = requests.iter().filter(|request| request.query["fields"].contains("metadata"));
    let (all, full) = (requests.len(), with_metadata.count());
    // 9 pages for each day of 8,640 chunks and one for each empty one; two hours before the month, one behind it, those of both ends.
    assert!(
        all <= 3 * 9 + 28 + 12 && full <= 12,
        "{all} listings, {full} of them with metadata"
    );
    get(&dashboard.address, path);
    assert_eq!(server.requests().len(), all, "again it is known");
}
