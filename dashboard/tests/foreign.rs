//! Names and metadata of objects are foreign text: anybody who may write into the bucket chooses them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;

use common::{BUCKET, Cut, Dashboard, GcsServer, SECOND, STREAMS, cut, encode, get, iso, now, settings, store};
use gcstreamer_dashboard::hls::playlist::encoded;
use gcstreamer_schema::time::parse_rfc3339;

fn cuts() -> Vec<Cut> {
    cut(&encode(STREAMS[0], 8, tempfile::tempdir().unwrap().path()))
}

fn ids(dashboard: &Dashboard) -> Vec<String> {
    let board = get(&dashboard.address, "/api/cameras").json();
    let mut ids: Vec<String> = board
        .as_array()
        .unwrap()
        .iter()
        .map(|state| state["id"].as_str().unwrap().to_owned())
        .collect();
    ids.sort();
    ids
}

fn ranges(dashboard: &Dashboard, camera: &str, from: u64) -> Vec<(String, String)> {
    let query = format!(
        "camera={}&from={}&to={}",
        encoded(camera),
        iso(from - 60 * SECOND),
        iso(from + 60 * SECOND)
    );
    let timeline = get(&dashboard.address, &format!("/api/timeline?{query}")).json();
    let ranges = timeline["ranges"].as_array().unwrap().iter();
    ranges
        .map(|range| (range["from"].as_str().unwrap().into(), range["to"].as_str().unwrap().into()))
        .collect()
}

#[test]
fn markup_quotes_and_very_long_names_are_cameras_like_others() {
    let (server, cuts) = (GcsServer::spawn_thread(), cuts());
    let start = (now() - 60 * SECOND) / SECOND * SECOND;
    // An object name has at most 1024 bytes; the rest of it takes 65.
    let longest = "ü".repeat((1024 - 65) / 2);
    let cameras = [
        "<script>alert(1)</script>",
        "\"'&;%2F%00?#",
        "a b",
        "%2e%2e",
        "日本/カメラ",
        longest.as_str(),
    ];
    for camera in cameras {
        store(&server, camera, &cuts, start, &[]);
    }
    let dashboard = Dashboard::start(settings(&server));
    let mut expected: Vec<String> = cameras.iter().map(|&camera| camera.to_owned()).collect();
    expected.sort();
    assert_eq!(ids(&dashboard), expected);
    for camera in cameras {
        assert_eq!(ranges(&dashboard, camera, start).len(), 1, "{camera}");
        let query = format!(
            "camera={}&from={}&to={}",
            encoded(camera),
            iso(start),
            iso(start + 60 * SECOND)
        );
        let playlist = get(&dashboard.address, &format!("/hls/index.m3u8?{query}")).text();
        let media: Vec<&str> = playlist.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(media.len(), 2, "{camera}: {playlist}");
        assert_eq!(get(&dashboard.address, media[0]).status, 200, "{camera}");
        let export = get(&dashboard.address, &format!("/export?{query}&format=native"));
        let name = &export.headers["content-disposition"];
        assert_eq!(export.status, 200);
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_.;=\" ".contains(c);
        let file = name.split("filename=").nth(1).unwrap().split(';').next().unwrap();
        assert!(file.chars().all(plain) && !file.contains("..") && file.len() < 300, "{name}");
    }
}

#[test]
fn names_that_climb_folders_and_objects_of_others_are_not_served() {
    let (server, cuts) = (GcsServer::spawn_thread(), cuts());
    let start = (now() - 60 * SECOND) / SECOND * SECOND;
    store(&server, "cam", &cuts, start, &[]);
    let (key, object) = server.objects().into_iter().next().unwrap();
    let metadata: BTreeMap<String, String> = serde_json::from_value(object.meta["metadata"].clone()).unwrap();
    let of = |device: &str| {
        [metadata.clone(), [("device-id".into(), device.into())].into()]
            .into_iter()
            .flatten()
            .collect()
    };
    for device in ["../cam", "a/../../etc", "..", "/cam", ".", "a//b", "a/./b"] {
        let name = key.1.replacen("cam", device, 1);
        server.put_with(BUCKET, &name, &object.data, &of(device));
    }
    // The metadata of another camera, and none at all.
    let stolen = key.1.replacen("cam", "thief", 1);
    server.put_with(BUCKET, &stolen, &object.data, &metadata);
    let secret = server.put(BUCKET, "secrets/passwords.txt", b"secret");
    let dashboard = Dashboard::start(settings(&server));
    let shown = ids(&dashboard);
    assert!(
        !shown
            .iter()
            .any(|id| id.split('/').any(|part| part == "..") || id.starts_with('/')),
        "{shown:?}"
    );
    for path in [
        format!("/media/{secret}/secrets%2Fpasswords.txt.mp4"),
        format!("/media/{secret}/cam%2F..%2Fsecrets%2Fpasswords.txt.mp4"),
        format!("/media/{secret}/../../etc/passwd.mp4"),
        format!("/preview/{secret}/secrets%2Fpasswords.txt.mp4"),
        "/media/1/x".into(),
        "/assets/../Cargo.toml".into(),
    ] {
        let reply = get(&dashboard.address, &path);
        assert!(
            reply.status == 404 && !reply.text().contains("secret"),
            "{path}: {}",
            reply.text()
        );
    }
    for camera in ["..", "../cam", "/cam", "a\u{7}b"] {
        let query = format!("camera={}&from={}&to={}", encoded(camera), iso(start), iso(start + SECOND));
        assert_eq!(
            get(&dashboard.address, &format!("/api/timeline?{query}")).status,
            400,
            "{camera}"
        );
    }
    assert_eq!(ranges(&dashboard, "thief", start), []);
}

#[test]
fn two_devices_whose_names_differ_in_a_slash_are_two() {
    let (server, cuts) = (GcsServer::spawn_thread(), cuts());
    let start = (now() - 600 * SECOND) / SECOND * SECOND;
    let cameras = ["ab/c", "a/bc", "abc", "a/b/c", "a/b", "a"];
    for (index, camera) in (0..).zip(cameras) {
        store(&server, camera, &cuts, start + index * 20 * SECOND, &[]);
    }
    let dashboard = Dashboard::start(settings(&server));
    let mut expected: Vec<String> = cameras.iter().map(|&camera| camera.to_owned()).collect();
    expected.sort();
    assert_eq!(ids(&dashboard), expected);
    for (index, camera) in (0..).zip(cameras) {
        let begins = start + index * 20 * SECOND;
        assert_eq!(ranges(&dashboard, camera, begins)[0].0, iso(begins), "{camera}");
        assert_eq!(ranges(&dashboard, camera, begins).len(), 1, "{camera}");
    }
}

#[test]
fn clocks_of_1970_and_2100_are_reported_and_hide_nothing() {
    let (server, cuts) = (GcsServer::spawn_thread(), cuts());
    let start = (now() - 20 * SECOND) / SECOND * SECOND;
    let (long_ago, far) = (3600 * SECOND, parse_rfc3339("2100-01-01T00:00:00Z").unwrap());
    store(&server, "past", &cuts, long_ago, &[]);
    store(&server, "future", &cuts, far, &[]);
    // A clock that was wrong once.
    store(&server, "mended", &cuts, far, &[]);
    store(&server, "mended", &cuts, start, &[]);
    let dashboard = Dashboard::start(settings(&server));
    let board = get(&dashboard.address, "/api/cameras").json();
    let of = |id: &str| board.as_array().unwrap().iter().find(|state| state["id"] == id).unwrap();
    assert_eq!(
        (&of("past")["badge"], &of("past")["last_stored"]),
        (&"unknown".into(), &iso(long_ago + 8 * SECOND).into()),
        "{board}"
    );
    assert!(
        of("future")["badge"] == "unknown" && of("future")["reason"].as_str().unwrap().contains("check its clock"),
        "{board}"
    );
    assert_eq!(
        (&of("mended")["badge"], &of("mended")["last_stored"]),
        (&"recording".into(), &iso(start + 8 * SECOND).into())
    );
    assert_eq!(ranges(&dashboard, "past", long_ago).len(), 1);
    assert_eq!(
        get(
            &dashboard.address,
            &format!("/preview?camera=past&t={}", iso(long_ago + SECOND))
        )
        .status,
        302
    );
    for month in ["1970-01", "2100-01", "0001-01", "9999-12"] {
        let reply = get(
            &dashboard.address,
            &format!("/api/days?camera=past&month={month}&tz=Pacific/Kiritimati"),
        );
        assert_eq!(reply.status, 200, "{month}: {}", reply.text());
    }
}

#[test]
fn broken_metadata_is_no_recording_and_breaks_nothing() {
    let (server, cuts) = (GcsServer::spawn_thread(), cuts());
    let start = (now() - 60 * SECOND) / SECOND * SECOND;
    store(&server, "cam", &cuts, start, &[]);
    let objects = server.objects();
    let (key, object) = objects.iter().next_back().unwrap();
    let metadata: BTreeMap<String, String> = serde_json::from_value(object.meta["metadata"].clone()).unwrap();
    for (index, (name, value)) in [
        ("start-time", "yesterday"),
        ("start-time", "-9999999-01-01T00:00:00Z"),
        ("end-time", "2300-01-01T00:00:00Z"),
        ("sequence", "99999999999999999999999"),
        ("init-bytes", "18446744073709551615"),
        ("preview-bytes", "18446744073709551615"),
        ("duration-ms", "18446744073709551615"),
        ("duration-ms", "99999999999"),
        ("pts-start-ns", "18446744073709551615"),
        ("container", "<b>"),
        ("codecs", "avc1.\u{0}\n#EXT-X-ENDLIST"),
    ]
    .into_iter()
    .enumerate()
    {
        let name_of = key.1.replacen("000001", &format!("{:06}", 100 + index), 1);
        let broken = [
            metadata.clone(),
            [("sequence".into(), (100 + index).to_string())].into(),
            [(name.to_owned(), value.to_owned())].into(),
        ];
        server.put_with(BUCKET, &name_of, &object.data, &broken.into_iter().flatten().collect());
    }
    let dashboard = Dashboard::start(settings(&server));
    assert_eq!(ids(&dashboard), ["cam"]);
    let query = format!("camera=cam&from={}&to={}", iso(start), iso(start + 60 * SECOND));
    for path in ["/api/timeline", "/hls/index.m3u8"] {
        assert_eq!(get(&dashboard.address, &format!("{path}?{query}")).status, 200, "{path}");
    }
    let playlist = get(&dashboard.address, &format!("/hls/index.m3u8?{query}")).text();
    assert_eq!(playlist.matches("#EXT-X-ENDLIST").count(), 1, "{playlist}");
    assert!(playlist.contains("#EXT-X-TARGETDURATION:4\n"), "{playlist}");
    for address in playlist.lines().filter(|line| line.starts_with("/media/")) {
        assert!(matches!(get(&dashboard.address, address).status, 200 | 415), "{address}");
    }
    assert_eq!(
        get(&dashboard.address, &format!("/preview?camera=cam&t={}", iso(start + SECOND))).status,
        302
    );
}

#[test]
fn numbers_at_the_end_of_what_a_number_can_be_break_nothing() {
    let (server, cuts) = (GcsServer::spawn_thread(), cuts());
    let start = (now() - 20 * SECOND) / SECOND * SECOND;
    store(&server, "cam", &cuts, start, &[]);
    let objects = server.objects();
    for ((key, object), sequence) in objects.iter().zip([u64::MAX, u64::MAX - 1]) {
        let mut metadata: BTreeMap<String, String> = serde_json::from_value(object.meta["metadata"].clone()).unwrap();
        let (name, _) = key.1.rsplit_once('_').unwrap();
        metadata.insert("sequence".into(), sequence.to_string());
        let name = format!("{}_{sequence}.flv", name.replacen("cam", "huge", 1));
        metadata.insert("device-id".into(), "huge".into());
        server.put_with(BUCKET, &name, &object.data, &metadata);
    }
    let dashboard = Dashboard::start(settings(&server));
    let query = format!("camera=huge&from={}&to={}", iso(start), iso(start + 60 * SECOND));
    // It is no chunk of gcssink, so nothing is recorded.
    assert_eq!(get(&dashboard.address, "/hls/live.m3u8?camera=huge").status, 404);
    assert_eq!(get(&dashboard.address, &format!("/hls/index.m3u8?{query}")).status, 404);
    assert_eq!(ranges(&dashboard, "huge", start), []);
    assert_eq!(get(&dashboard.address, "/hls/live.m3u8?camera=cam").status, 200);
}

#[test]
fn months_have_days_of_23_and_25_hours() {
    let (server, cuts) = (GcsServer::spawn_thread(), cuts());
    // Berlin's clocks: summer time began at 2026-03-29T01:00Z and ended at 2026-10-25T01:00Z.
    let days = [
        ("2026-03-28T22:59:50Z", "2026-03-28"),
        ("2026-03-28T23:00:10Z", "2026-03-29"),
        ("2026-03-29T21:59:50Z", "2026-03-29"),
        ("2026-03-29T22:00:10Z", "2026-03-30"),
        ("2026-10-24T22:00:10Z", "2026-10-25"),
        ("2026-10-25T22:59:50Z", "2026-10-25"),
        ("2026-10-25T23:00:10Z", "2026-10-26"),
    ];
    let mut expected: BTreeMap<&str, u64> = BTreeMap::new();
    for (at, day) in days {
        store(&server, "cam", &cuts, parse_rfc3339(at).unwrap(), &[]);
        *expected.entry(day).or_default() += 8;
    }
    let dashboard = Dashboard::start(settings(&server));
    let mut found = BTreeMap::new();
    let (march, october) = (
        "/api/days?camera=cam&month=2026-03&tz=Europe/Berlin",
        "/api/days?camera=cam&month=2026-10&tz=Europe/Berlin",
    );
    let replies = [get(&dashboard.address, march).json(), get(&dashboard.address, october).json()];
    for day in replies.iter().flat_map(|reply| reply.as_array().unwrap()) {
        if let Some(recorded) = day["recorded_s"].as_u64().filter(|recorded| *recorded > 0) {
            found.insert(day["day"].as_str().unwrap(), recorded);
        }
    }
    assert_eq!(found, expected);
}
