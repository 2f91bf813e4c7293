//! Other programs may keep their objects in the folders of cameras, and a listing may begin with an empty page: neither hides a recording.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::empty_pages::EmptyPages;
use common::{BUCKET, Dashboard, GcsServer, SECOND, STREAMS, cut, encode, get, iso, now, put_chunks, settings, store};
use gcstreamer_dashboard::settings::Settings;
use gcstreamer_storage::Endpoint;
use serde_json::{Value, json};

const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

fn board(dashboard: &Dashboard) -> Vec<Value> {
    let board = get(&dashboard.address, "/api/cameras").json();
    board.as_array().unwrap_or_else(|| panic!("{board}")).clone()
}

fn timeline(dashboard: &Dashboard, from: u64, to: u64) -> Value {
    let path = format!("/api/timeline?camera=cam&from={}&to={}", iso(from), iso(to));
    get(&dashboard.address, &path).json()
}

/// Puts a thumbnail there whose name begins as that of a chunk of this time does.
fn thumbnail(server: &GcsServer, at: u64, number: usize) {
    let time = iso(at);
    let (day, second) = (time[..10].replace('-', "/"), time[..19].replace(['-', ':'], ""));
    server.put(BUCKET, &format!("cam/{day}/{second}-{number:05}.jpg"), b"a thumbnail");
}

#[test]
fn a_camera_is_found_behind_what_others_put_into_its_year() {
    // A page of a listing holds a thousand.
    for others in [11, 1500] {
        let server = GcsServer::spawn_thread();
        let end = now() / SECOND * SECOND;
        put_chunks(&server, "cam", "1a1b2c3d4e", 0, (end - MINUTE, end), "start");
        for number in 0..others {
            server.put(BUCKET, &format!("cam/{}/00/{number:05}.jpg", &iso(end)[..4]), b"a thumbnail");
        }
        let dashboard = Dashboard::start(settings(&server));
        let [camera] = &board(&dashboard)[..] else {
            panic!("one camera, behind {others}")
        };
        assert_eq!(
            (&camera["id"], &camera["badge"]),
            (&"cam".into(), &"recording".into()),
            "{camera}"
        );
    }
}

#[test]
fn an_outage_ends_with_the_first_chunk_behind_it_whatever_others_put_between() {
    let server = GcsServer::spawn_thread();
    let back = (now() - 40 * MINUTE) / SECOND * SECOND;
    let lost = back - 8 * HOUR;
    put_chunks(&server, "cam", "0a1b2c3d4e", 0, (lost - 10 * MINUTE, lost), "start");
    put_chunks(&server, "cam", "1a1b2c3d4e", 0, (back, back + 10 * MINUTE), "camera-frozen");
    for number in 0..12 {
        thumbnail(&server, back - 2 * HOUR, number);
    }
    let dashboard = Dashboard::start(settings(&server));
    let to = lost + 2 * HOUR;
    let gap = json!([{"from": iso(lost), "to": iso(to), "reason": "camera-frozen"}]);
    assert_eq!(timeline(&dashboard, lost - 5 * MINUTE, to)["gaps"], gap);
}

#[test]
fn an_idle_camera_is_found_before_any_number_of_hours_that_hold_nothing_of_it() {
    let server = GcsServer::spawn_thread();
    let end = now() / SECOND * SECOND - 40 * HOUR;
    put_chunks(&server, "cam", "0a1b2c3d4e", 0, (end - MINUTE, end), "start");
    for hours in 1..=10 {
        thumbnail(&server, now() - hours * 2 * HOUR, 0);
    }
    let dashboard = Dashboard::start(settings(&server));
    let camera = &board(&dashboard)[0];
    assert_eq!(camera["last_stored"], iso(end), "{camera}");
    // And where it recorded before an outage.
    let back = now() / SECOND * SECOND - 5 * MINUTE;
    put_chunks(&server, "cam", "1a1b2c3d4e", 0, (back, back + MINUTE), "camera-frozen");
    let dashboard = Dashboard::start(settings(&server));
    let gap = json!([{"from": iso(back - HOUR), "to": iso(back), "reason": "camera-frozen"}]);
    assert_eq!(timeline(&dashboard, back - HOUR, back + MINUTE)["gaps"], gap);
}

#[test]
fn an_empty_page_in_front_of_each_answer_hides_nothing() {
    let server = GcsServer::spawn_thread();
    let cuts = cut(&encode(STREAMS[0], 8, tempfile::tempdir().unwrap().path()));
    let back = (now() - 30 * SECOND) / SECOND * SECOND;
    let lost = back - 30 * HOUR;
    put_chunks(&server, "cam", "0a1b2c3d4e", 0, (lost - 10 * MINUTE, lost), "start");
    store(&server, "cam", &cuts, back, &[]);
    let between = EmptyPages::in_front_of(server.address());
    let look = || {
        Dashboard::start(Settings {
            endpoint: Endpoint::resolve(Some(&between.endpoint()), None).unwrap(),
            ..settings(&server)
        })
    };
    let dashboard = look();
    assert_eq!(board(&dashboard)[0]["badge"], "recording");
    let gaps = |from: u64, to: u64| {
        let gaps = timeline(&dashboard, from, to)["gaps"].clone();
        (gaps[0]["from"].clone(), gaps[0]["to"].clone())
    };
    let (from, to) = (lost - MINUTE, lost + HOUR);
    assert_eq!(gaps(from, to), (iso(lost).into(), iso(to).into()), "up to what is behind it");
    assert_eq!(
        gaps(back - HOUR, back + 4 * SECOND),
        (iso(back - HOUR).into(), iso(back).into()),
        "from what is before it"
    );
    // A dashboard that has not listed the hour looks at the object alone.
    let playlist = get(&dashboard.address, "/hls/live.m3u8?camera=cam").text();
    let media = playlist.lines().find(|line| line.starts_with("/media/")).unwrap();
    assert_eq!(get(&look().address, media).status, 200, "{media}");
}
