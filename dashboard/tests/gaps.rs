//! Outages are shown whole, wherever the window of time begins and ends that somebody looks at.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Dashboard, GcsServer, SECOND, get, iso, now, put_chunks, settings};
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
    // Over days names alone are read, which do not say why.
    let days = gaps(&dashboard, lost - 72 * HOUR, lost + 4 * HOUR);
    assert_eq!(
        days,
        json!([{"from": iso(lost), "to": iso(lost + 4 * HOUR), "reason": "start"}])
    );
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
