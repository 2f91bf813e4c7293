//! Every camera of the bucket is found, and judged by what it recorded last, whatever its id and its clock.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use common::{
    Dashboard, GcsServer, SECOND, STREAMS, ShiftedClock, cut, encode, get, iso, now, put_chunks, put_chunks_at, settings, store,
};
use serde_json::Value;

const MINUTE: u64 = 60 * SECOND;
const HOUR: u64 = 60 * MINUTE;

/// A dashboard of a bucket whose names are of this form.
fn dashboard_of(server: &GcsServer, location: &str) -> Dashboard {
    Dashboard::start(gcstreamer_dashboard::settings::Settings {
        template: gcstreamer_schema::name::Template::parse(location).unwrap(),
        ..settings(server)
    })
}

fn board(dashboard: &Dashboard) -> Vec<Value> {
    get(&dashboard.address, "/api/cameras").json().as_array().unwrap().clone()
}

#[test]
fn ids_with_parts_that_look_like_years_are_cameras_and_so_are_their_neighbours() {
    let server = GcsServer::spawn_thread();
    let last_year = now() - 400 * 24 * HOUR;
    let cameras = [
        "shop",
        "shop/1001/front",
        "shop/2031",
        "shop/2031/back",
        "shop/9001",
        "store/0042",
        "store/1999/2024",
        "unit/2026",
        // What a sink takes, a board shows.
        "yard/",
        "a/b/c/d/e/f/g/h",
    ];
    for camera in cameras {
        let from = (now() - 2 * MINUTE) / SECOND * SECOND;
        put_chunks(&server, camera, "1a1b2c3d4e", 0, (from, from + MINUTE), "start");
    }
    // Of a camera of several years each is one.
    put_chunks(&server, "shop", "0a1b2c3d4e", 0, (last_year, last_year + MINUTE), "start");
    let dashboard = Dashboard::start(settings(&server));
    let mut found: Vec<String> = board(&dashboard)
        .iter()
        .map(|state| state["id"].as_str().unwrap().to_owned())
        .collect();
    found.sort();
    let mut wanted = cameras;
    wanted.sort_unstable();
    assert_eq!(found, wanted);
}

#[test]
fn what_others_put_beside_the_recordings_of_an_idle_camera_does_not_hide_them() {
    let server = GcsServer::spawn_thread();
    let end = now() / HOUR * HOUR - 9 * 24 * HOUR;
    put_chunks(&server, "idle", "1a1b2c3d4e", 0, (end - MINUTE, end), "start");
    for days in [3, 5] {
        let hour = iso(now() - days * 24 * HOUR);
        let (day, hour) = (hour[..10].replace('-', "/"), hour[..13].replace('-', ""));
        server.put(common::BUCKET, &format!("idle/{day}/{hour}notes.txt"), b"not a chunk");
    }
    let dashboard = Dashboard::start(settings(&server));
    let [camera] = &board(&dashboard)[..] else {
        panic!("one camera")
    };
    assert_eq!(camera["last_stored"], iso(end), "{camera}");
    assert!(
        camera["reason"].as_str().unwrap().starts_with("nothing stored since"),
        "{camera}"
    );
    let playlist = get(
        &dashboard.address,
        &format!("/hls/index.m3u8?camera=idle&from={}&to={}", iso(end - HOUR), iso(end)),
    );
    assert_eq!(playlist.status, 200);
    // A gap that began then is seen in what follows, too.
    put_chunks(
        &server,
        "idle",
        "2a1b2c3d4e",
        0,
        (now() / SECOND * SECOND - 2 * MINUTE, now() / SECOND * SECOND),
        "camera-unreachable",
    );
    let dashboard = Dashboard::start(settings(&server));
    let from = now() - HOUR;
    let timeline = get(
        &dashboard.address,
        &format!("/api/timeline?camera=idle&from={}&to={}", iso(from), iso(now())),
    )
    .json();
    assert_eq!(timeline["gaps"][0]["reason"], "camera-unreachable", "{timeline}");
}

#[test]
fn names_without_a_time_are_listed_once_for_all_hours_of_a_question() {
    for location in ["{device}/{session}_{seq}.{ext}", "{device}/%Y/%m/%d/{session}_{seq}.{ext}"] {
        let server = GcsServer::spawn_thread();
        let day = now() / (24 * HOUR) * (24 * HOUR) - 48 * HOUR;
        put_chunks_at(
            &server,
            location,
            "cam",
            ("0a1b2c3d4e", 0),
            (day + HOUR, day + 2 * HOUR),
            "start",
        );
        let dashboard = dashboard_of(&server, location);
        let before = server.requests().len();
        let path = format!("/api/timeline?camera=cam&from={}&to={}", iso(day), iso(day + 12 * HOUR));
        let timeline = get(&dashboard.address, &path).json();
        assert_eq!(timeline["ranges"][0]["from"], iso(day + HOUR), "{timeline}");
        let lists = server.requests().len() - before;
        assert!(lists <= 4, "{location}: {lists} listings for twelve hours");
    }
}

#[test]
fn with_names_of_another_form_every_camera_is_found_behind_thousands_of_objects_of_the_first() {
    for location in [
        "rec/{device}_%Y%m%dT%H%M%SZ_{session}_{seq}.{ext}",
        "{device}/%Y-%m-%d/%H%M%S_{session}_{seq}.{ext}",
        "rec/%d.%m.%Y_{device}_%H%M%S_{session}_{seq}.{ext}",
        "%Y/%m/%d/{device}/%H%M%S_{session}_{seq}.{ext}",
    ] {
        let server = GcsServer::spawn_thread();
        // Of one day, whatever time it is now: each day of a camera costs a look.
        let end = now() / (24 * HOUR) * (24 * HOUR);
        // One id may be the beginning of another, as the text around it may hold an id.
        let cameras = ["a", "front", "front_door", "rec", "yard"];
        for camera in cameras {
            put_chunks_at(&server, location, camera, ("0a1b2c3d4e", 0), (end - 8 * HOUR, end), "start");
        }
        server.put(common::BUCKET, "notes.txt", b"not a chunk");
        let dashboard = dashboard_of(&server, location);
        let mut found: Vec<String> = board(&dashboard)
            .iter()
            .map(|state| state["id"].as_str().unwrap().to_owned())
            .collect();
        found.sort();
        assert_eq!(found, cameras, "{location}");
        let is_search = |request: &common::gcs_server::Request| request.query.get("maxResults").is_some_and(|most| most == "100");
        let lists = server.requests().iter().filter(|request| is_search(request)).count();
        assert!((3..30).contains(&lists), "{location}: {lists} requests for 14,000 objects");
    }
}

#[test]
fn a_calendar_and_a_week_are_right_where_names_tell_the_day_alone_or_no_time_at_all() {
    for location in [
        "{device}/%Y-%m-%d/{session}_{seq}.{ext}",
        "{device}/{session}_{seq}.{ext}",
        "{device}/%Y%m%dT%H%M%S_{session}_{seq}.{ext}",
    ] {
        let server = GcsServer::spawn_thread();
        let day = now() / (24 * HOUR) * (24 * HOUR) - 48 * HOUR;
        put_chunks_at(
            &server,
            location,
            "cam",
            ("0a1b2c3d4e", 0),
            (day + HOUR, day + 2 * HOUR),
            "start",
        );
        put_chunks_at(
            &server,
            location,
            "cam",
            ("1a1b2c3d4e", 0),
            (day + 3 * HOUR, day + 4 * HOUR),
            "camera-unreachable",
        );
        let dashboard = dashboard_of(&server, location);
        // More than a day is answered from names where they tell enough.
        let (from, to) = (day - 24 * HOUR, day + 48 * HOUR);
        let path = format!("/api/timeline?camera=cam&from={}&to={}", iso(from), iso(to));
        let timeline = get(&dashboard.address, &path).json();
        let ranges: Vec<(String, String)> = timeline["ranges"]
            .as_array()
            .unwrap()
            .iter()
            .map(|range| {
                (
                    range["from"].as_str().unwrap().to_owned(),
                    range["to"].as_str().unwrap().to_owned(),
                )
            })
            .collect();
        let wanted = [(day + HOUR, day + 2 * HOUR), (day + 3 * HOUR, day + 4 * HOUR)].map(|(from, to)| (iso(from), iso(to)));
        assert_eq!(ranges, wanted, "{location}: {timeline}");
    }
}

/// A camera whose clock was two hours ahead until an hour ago and has been right for `minutes`; the bucket has a chunk when it was recorded.
fn was_ahead(server: &GcsServer, minutes: u64) {
    let at = (now() - 30 * SECOND) / SECOND * SECOND;
    server.set_skew(-3600);
    put_chunks(server, "cam", "0a1b2c3d4e", 0, (at + HOUR - 10 * MINUTE, at + HOUR), "start");
    server.set_skew(0);
    put_chunks(server, "cam", "1a1b2c3d4e", 0, (at - minutes * MINUTE, at), "start");
}

#[test]
fn a_camera_whose_clock_was_ahead_and_is_right_again_is_recording() {
    let server = GcsServer::spawn_thread();
    was_ahead(&server, 20);
    let last = &board(&Dashboard::start(settings(&server)))[0];
    assert_eq!(
        (last["badge"].as_str(), last["reason"].as_str()),
        (Some("recording"), Some("")),
        "{last}"
    );
    assert!(last["age_s"].as_u64().unwrap() < 90, "{last}");
}

#[test]
fn a_clock_that_is_put_right_while_somebody_looks_does_not_turn_the_badge() {
    let server = GcsServer::spawn_thread();
    let at = (now() - 10 * SECOND) / SECOND * SECOND;
    // Recorded until now, dated two hours ahead.
    put_chunks(&server, "cam", "0a1b2c3d4e", 0, (at + HOUR, at + 2 * HOUR), "start");
    let clock = Arc::new(ShiftedClock::default());
    let dashboard = Dashboard::start_by(settings(&server), clock.clone());
    assert_eq!(board(&dashboard)[0]["badge"], "recording");
    // Half an hour later the clock has been right for five minutes.
    clock.0.store(1800, Ordering::SeqCst);
    server.set_skew(1800);
    let end = at + HOUR / 2;
    put_chunks(&server, "cam", "1a1b2c3d4e", 0, (end - 5 * MINUTE, end), "start");
    let state = &board(&dashboard)[0];
    assert_eq!(
        (state["badge"].as_str(), state["reason"].as_str()),
        (Some("recording"), Some("")),
        "{state}"
    );
    assert_eq!(state["last_stored"], iso(end), "{state}");
}

#[test]
fn a_camera_that_stopped_after_its_clock_was_ahead_is_reported_by_a_time_in_the_past() {
    let server = GcsServer::spawn_thread();
    let at = now() / SECOND * SECOND;
    server.set_skew(-1200);
    put_chunks(&server, "cam", "0a1b2c3d4e", 0, (at + HOUR, at + HOUR + MINUTE), "start");
    server.set_skew(0);
    let state = &board(&Dashboard::start(settings(&server)))[0];
    assert_eq!(state["badge"], "unknown", "{state}");
    let since = state["reason"]
        .as_str()
        .unwrap()
        .strip_prefix("nothing stored since ")
        .unwrap();
    assert!(since < iso(at).as_str(), "{state}");
    assert!(state["last_stored"].as_str().unwrap() < iso(at).as_str(), "{state}");
}

#[test]
fn the_live_picture_is_of_the_clock_that_is_right_now() {
    let folder = tempfile::tempdir().unwrap();
    let cuts = cut(&encode(STREAMS[0], 8, folder.path()));
    let server = GcsServer::spawn_thread();
    let start = (now() - 20 * SECOND) / SECOND * SECOND;
    server.set_skew(-1800);
    store(&server, "cam", &cuts, start + HOUR / 2, &[]);
    server.set_skew(0);
    store(&server, "cam", &cuts, start, &[]);
    let dashboard = Dashboard::start(settings(&server));
    let text = get(&dashboard.address, "/hls/live.m3u8?camera=cam").text();
    assert!(text.contains(&format!("#EXT-X-PROGRAM-DATE-TIME:{}", iso(start))), "{text}");
    assert!(
        !text.contains(&format!("#EXT-X-PROGRAM-DATE-TIME:{}", iso(start + HOUR / 2))),
        "{text}"
    );
}

#[test]
fn the_live_picture_follows_a_camera_whose_clock_is_hours_ahead() {
    let folder = tempfile::tempdir().unwrap();
    let cuts = cut(&encode(STREAMS[0], 8, folder.path()));
    let server = GcsServer::spawn_thread();
    let start = (now() - 20 * SECOND) / SECOND * SECOND + 3 * HOUR;
    store(&server, "cam", &cuts, start, &[]);
    let dashboard = Dashboard::start(settings(&server));
    let live = get(&dashboard.address, "/hls/live.m3u8?camera=cam");
    assert_eq!(live.status, 200, "{}", live.text());
    assert!(
        live.text().contains(&format!("#EXT-X-PROGRAM-DATE-TIME:{}", iso(start))),
        "{}",
        live.text()
    );
}

#[test]
fn the_newest_is_seen_whatever_names_begin_with_also_over_the_end_of_a_month() {
    for location in [
        gcstreamer_dashboard::settings::DEFAULT_LOCATION,
        "{device}/{session}_{seq}.{ext}",
        "{device}/{session}/%Y%m%dT%H%M%S_{seq}.{ext}",
        "{device}/{seq}_{session}.{ext}",
        "rec/%d.%m.%Y_{device}_%H%M%S_{session}_{seq}.{ext}",
    ] {
        let server = GcsServer::spawn_thread();
        // The first of a month, half an hour after midnight.
        let day = (0..40)
            .map(|day| now() / (24 * HOUR) * (24 * HOUR) + day * 24 * HOUR)
            .find(|day| iso(*day).contains("-01T"))
            .unwrap();
        let clock = Arc::new(ShiftedClock::default());
        let set = |at: u64| {
            let later = at.saturating_sub(now()) / SECOND;
            clock.0.store(later, Ordering::SeqCst);
            server.set_skew(later.try_into().unwrap());
        };
        let put = |session: &str, sequence: u64, end: u64| {
            set(end + 2 * SECOND);
            put_chunks_at(&server, location, "cam", (session, sequence), (end - MINUTE, end), "start");
            set(end + 5 * SECOND);
        };
        let midnight = day.max(now());
        put("0a1b2c3d4e", 0, midnight - 30 * MINUTE);
        let dashboard = Dashboard::start_by(
            gcstreamer_dashboard::settings::Settings {
                template: gcstreamer_schema::name::Template::parse(location).unwrap(),
                ..settings(&server)
            },
            clock.clone(),
        );
        let newest = || board(&dashboard)[0]["last_stored"].as_str().unwrap().to_owned();
        // What the board counts of the day behind its answer may be a listing that was under way when the chunk came: the next one, some
        // seconds later, has it.
        let shows = |end: u64, what: &str| {
            let shown = (1..5).map(|look| {
                let shown = newest();
                set(end + (5 + 3 * look) * SECOND);
                shown
            });
            let shown: Vec<String> = shown.take_while(|shown| *shown != iso(end)).collect();
            assert!(shown.len() < 4, "{location}: {what}: {shown:?}");
        };
        shows(midnight - 30 * MINUTE, "the first");
        put("0a1b2c3d4e", 6, midnight - 29 * MINUTE);
        shows(midnight - 29 * MINUTE, "the same session");
        put("1a1b2c3d4e", 0, midnight + 30 * MINUTE);
        shows(midnight + 30 * MINUTE, "the next month");
        put("2a1b2c3d4e", 0, midnight + 90 * MINUTE);
        shows(midnight + 90 * MINUTE, "another session");
        // It is found again after days, by a dashboard that starts then.
        set(midnight + 50 * HOUR);
        let later = Dashboard::start_by(
            gcstreamer_dashboard::settings::Settings {
                template: gcstreamer_schema::name::Template::parse(location).unwrap(),
                ..settings(&server)
            },
            clock.clone(),
        );
        let stored = board(&later)[0]["last_stored"].as_str().unwrap().to_owned();
        assert_eq!(stored, iso(midnight + 90 * MINUTE), "{location}: days later");
    }
}

#[test]
fn a_camera_whose_recordings_were_deleted_leaves_the_board() {
    for location in [
        gcstreamer_dashboard::settings::DEFAULT_LOCATION,
        "{device}/{session}_{seq}.{ext}",
    ] {
        let server = GcsServer::spawn_thread();
        let end = now() / SECOND * SECOND;
        for camera in ["cam", "store/cam1", "store/cam2"] {
            put_chunks_at(&server, location, camera, ("0a1b2c3d4e", 0), (end - MINUTE, end), "start");
        }
        let clock = Arc::new(ShiftedClock::default());
        let dashboard = Dashboard::start_by(
            gcstreamer_dashboard::settings::Settings {
                template: gcstreamer_schema::name::Template::parse(location).unwrap(),
                ..settings(&server)
            },
            clock.clone(),
        );
        let ids = || -> Vec<String> {
            let mut ids: Vec<String> = board(&dashboard)
                .iter()
                .map(|state| state["id"].as_str().unwrap().to_owned())
                .collect();
            ids.sort();
            ids
        };
        assert_eq!(ids(), ["cam", "store/cam1", "store/cam2"], "{location}");
        for (bucket, name) in server.objects().into_keys() {
            if !name.starts_with("store/cam2") {
                server.remove(&bucket, &name);
            }
        }
        clock.0.store(130, Ordering::SeqCst);
        assert_eq!(ids(), ["store/cam2"], "{location}");
    }
}
