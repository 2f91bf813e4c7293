//! What the JSON API, the login and the page promise, over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::gcs_server::Answer;
use common::{BUCKET, Dashboard, GcsServer, SECOND, STREAMS, ask, cut, encode, get, iso, now, settings, store};
use gcstreamer_dashboard::settings::Auth;
use gcstreamer_schema::cameras::Camera;

const EVIL: &str = "<script>alert(1)</script>";

/// Five chunks of four seconds under several names of cameras, the last of them ending now.
fn bucket() -> (GcsServer, u64) {
    let folder = tempfile::tempdir().unwrap();
    let cuts = cut(&encode(STREAMS[0], 20, folder.path()));
    let server = GcsServer::spawn_thread();
    let start = (now() - 22 * SECOND) / SECOND * SECOND;
    for camera in ["cam", "cam/inner", "a/b/c", EVIL] {
        store(&server, camera, &cuts, start, &[]);
    }
    store(&server, "old", &cuts, start - 40 * 86_400 * SECOND, &[]);
    store(&server, "holed", &cuts, start, &[1, 2]);
    server.put(BUCKET, "other/2026/readme.txt", b"not of gcssink");
    server.put(BUCKET, "readme.txt", b"not of gcssink");
    (server, start)
}

#[test]
fn cameras_are_found_in_the_bucket_those_in_trouble_first() {
    let (server, _) = bucket();
    let listed = |id: &str, enabled| Camera {
        id: id.into(),
        name: None,
        enabled,
        time_zone: None,
    };
    let with_list = common::settings(&server);
    let with_list = gcstreamer_dashboard::settings::Settings {
        cameras: vec![listed("never", true), listed("cam", true), listed("off", false)],
        ..with_list
    };
    let dashboard = Dashboard::start(with_list);
    let reply = get(&dashboard.address, "/api/cameras");
    let board = reply.json();
    let states: Vec<(&str, &str)> = board
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (c["id"].as_str().unwrap(), c["badge"].as_str().unwrap()))
        .collect();
    assert_eq!(
        states,
        [
            ("never", "never-seen"),
            ("old", "unknown"),
            ("off", "stopped"),
            (EVIL, "recording"),
            ("a/b/c", "recording"),
            ("cam", "recording"),
            ("cam/inner", "recording"),
            ("holed", "recording"),
        ]
    );
    assert!(
        board[1]["reason"].as_str().unwrap().starts_with("nothing stored since "),
        "{board}"
    );
    assert_eq!(board[0]["last_stored"], serde_json::Value::Null);
    let keys: Vec<&String> = board[0].as_object().unwrap().keys().collect();
    assert_eq!(
        keys,
        [
            "age_s",
            "backlog_s",
            "badge",
            "id",
            "last_stored",
            "missing_s_today",
            "name",
            "reason"
        ]
    );
    assert!(reply.headers["content-type"].starts_with("application/json"));
}

#[test]
fn a_timeline_has_ranges_and_gaps_with_their_reason() {
    let (server, start) = bucket();
    let dashboard = Dashboard::start(settings(&server));
    let ask = |camera: &str, days: u64| {
        get(
            &dashboard.address,
            &format!(
                "/api/timeline?camera={camera}&from={}&to={}",
                iso(start - days * 86_400 * SECOND),
                iso(start + 3600 * SECOND)
            ),
        )
        .json()
    };
    for days in [0, 20] {
        let timeline = ask("holed", days);
        assert_eq!(timeline["ranges"].as_array().unwrap().len(), 2, "{timeline}");
        assert_eq!(timeline["gaps"][0]["from"], iso(start + 4 * SECOND), "{timeline}");
        assert_eq!(
            (timeline["gaps"][0]["to"].as_str(), timeline["gaps"][0]["reason"].as_str()),
            (Some(iso(start + 12 * SECOND).as_str()), Some("not-stored"))
        );
        assert_eq!(ask("cam", days)["gaps"], serde_json::json!([]));
    }
    let gaps = get(
        &dashboard.address,
        &format!("/api/gaps?from={}&to={}", iso(start), iso(start + 60 * SECOND)),
    )
    .json();
    assert_eq!(
        (gaps.as_array().unwrap().len(), gaps[0]["camera"].as_str()),
        (1, Some("holed")),
        "{gaps}"
    );
}

#[test]
fn a_month_has_the_recorded_share_of_each_day() {
    let (server, start) = bucket();
    let dashboard = Dashboard::start(settings(&server));
    let day = &iso(start)[..10];
    let days = get(
        &dashboard.address,
        &format!("/api/days?camera=cam&month={}&tz=UTC", &day[..7]),
    )
    .json();
    let recorded: u64 = days
        .as_array()
        .unwrap()
        .iter()
        .map(|day| day["recorded_s"].as_u64().unwrap())
        .sum();
    assert_eq!(recorded, 20, "{days}");
    assert!((28..=31).contains(&days.as_array().unwrap().len()));
    assert_eq!(get(&dashboard.address, "/api/days?camera=cam&month=2026-13").status, 400);
    assert_eq!(
        get(&dashboard.address, "/api/days?camera=cam&month=2026-11&tz=Mars/Base").status,
        400
    );
}

#[test]
fn questions_that_make_no_sense_are_answered_with_what_to_do() {
    let (server, start) = bucket();
    let dashboard = Dashboard::start(settings(&server));
    let (from, to) = (iso(start), iso(start + SECOND));
    let refused = |method: &str, path: &str, status: u16, says: &str| {
        let reply = ask(&dashboard.address, method, path, &[], "");
        assert_eq!(reply.status, status, "{method} {path}: {}", reply.text());
        let json = reply.json();
        let error = json["error"].as_str().unwrap_or_default();
        assert!(
            !error.is_empty() && error.contains(says) && json["hint"].is_string(),
            "{method} {path}: {json}"
        );
    };
    for (path, status) in [
        (format!("/api/timeline?camera=cam&from={to}&to={from}"), 400),
        (format!("/api/timeline?camera=cam&from=yesterday&to={to}"), 400),
        (format!("/api/timeline?camera=..%2Fx&from={from}&to={to}"), 400),
        ("/hls/live.m3u8?camera=..%2Fx".into(), 400),
        (format!("/api/timeline?camera=cam&from=2020-01-01T00:00:00Z&to={to}"), 400),
        (format!("/hls/index.m3u8?camera=cam&from=2020-01-01T00:00:00Z&to={to}"), 400),
        (format!("/hls/index.m3u8?camera=nobody&from={from}&to={to}"), 404),
        ("/hls/live.m3u8?camera=nobody".into(), 404),
        ("/nothing".into(), 404),
        ("/api/nothing".into(), 404),
        ("/media/abc/x.ts".into(), 404),
        ("/media/1/%ff.ts".into(), 404),
        ("/preview/-/x.mp4".into(), 404),
    ] {
        refused("GET", &path, status, "");
    }
    // Each names what is missing.
    for (path, name) in [
        ("/api/timeline?camera=cam", "from"),
        ("/api/timeline", "camera"),
        ("/api/days?camera=cam", "month"),
        ("/api/gaps?from=x", "to"),
        ("/hls/index.m3u8?camera=cam", "from"),
        ("/hls/live.m3u8", "camera"),
        ("/preview?camera=cam", "t"),
        ("/export?camera=cam", "from"),
        ("/export/manifest?camera=cam", "from"),
    ] {
        refused("GET", path, 400, &format!("{name} is missing"));
    }
    refused(
        "GET",
        &format!("/api/timeline?camera=a&camera=b&from={from}&to={to}"),
        400,
        "camera is there more than once",
    );
    refused("POST", "/export/prepare?camera=cam", 400, "from is missing");
    for (method, path) in [
        ("POST", "/api/cameras"),
        ("DELETE", "/media/1/x.ts"),
        ("GET", "/login"),
        ("POST", "/nothing"),
    ] {
        refused(method, path, 405, "");
    }
}

#[test]
fn a_question_beyond_a_limit_is_answered_with_the_limit() {
    let (server, start) = bucket();
    for camera in 0..140 {
        let name = format!("fleet/cam{camera}/2026/11/22/20261122T064512.345Z_0a1b2c3d4e_000000.mp4");
        server.put(BUCKET, &name, b"x");
    }
    let dashboard = Dashboard::start(settings(&server));
    let between = |hours: u64| format!("from={}&to={}", iso(start - hours * 3600 * SECOND), iso(start + SECOND));
    // A month of summer time that ends in winter time has an hour more.
    for (path, hours, limit) in [
        ("/api/timeline?camera=cam", 31 * 24, "more than 31 days at once"),
        ("/hls/index.m3u8?camera=cam", 23, "more than 24 h at once"),
        ("/export?camera=cam", 23, "more than 24 h at once"),
        ("/api/gaps?", 24, "more than 31 days at once"),
    ] {
        let ask = |hours: u64| get(&dashboard.address, &format!("{path}&{}", between(hours)).replace("?&", "?"));
        assert_eq!(ask(hours).status, 200, "{path}");
        let beyond = ask(31 * 24 + 2);
        let json = beyond.json();
        assert_eq!(beyond.status, 400, "{path}: {json}");
        assert!(json["error"].as_str().unwrap().contains(limit), "{path}: {json}");
        assert!(json["hint"].as_str().unwrap().contains("less time at once"), "{path}: {json}");
    }
    let beyond = get(&dashboard.address, &format!("/api/gaps?{}", between(30 * 24)));
    assert!(
        beyond.status == 400 && beyond.text().contains("cameras for 721 h each"),
        "{}",
        beyond.text()
    );
}

#[test]
fn a_listing_without_an_end_is_given_up_and_takes_no_camera_off_the_board() {
    let server = GcsServer::spawn_thread();
    // Objects of others, and always more of them.
    let page = r#"{"items": [{"name": "cam/other", "size": "1", "generation": "1"}], "nextPageToken": "more"}"#;
    server.route(
        &format!("/storage/v1/b/{BUCKET}/o"),
        Answer::raw(200, "application/json", page),
    );
    let dashboard = Dashboard::start(gcstreamer_dashboard::settings::Settings {
        cameras: vec![Camera {
            id: "cam".into(),
            name: None,
            enabled: true,
            time_zone: None,
        }],
        ..settings(&server)
    });
    let board = get(&dashboard.address, "/api/cameras").json();
    assert_eq!(board[0]["badge"], "unknown", "{board}");
    let reason = board[0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("more than 100,000 objects begin with \"cam/"), "{board}");
    let asked = server.requests().len();
    assert!(asked <= 20 + 100, "{asked} requests");
    let (day, hour) = (86_400 * SECOND, 3600 * SECOND);
    // Its hours or days, and one for each edge of the window.
    for (length, listings) in [(hour / 2, 4 + 2), (3 * day, 5 + 2)] {
        let (from, to) = (iso(now() - 10 * day), iso(now() - 10 * day + length));
        let before = server.requests().len();
        let reply = get(&dashboard.address, &format!("/api/timeline?camera=cam&from={from}&to={to}"));
        assert!(
            reply.status == 400 && reply.text().contains("more than 100,000 objects"),
            "{}",
            reply.text()
        );
        let asked = server.requests().len() - before;
        assert!(asked <= 100 * listings, "{asked} requests");
    }
}

#[test]
fn a_bucket_that_cannot_be_read_is_reported_with_the_missing_permission() {
    for (status, reported, says) in [
        (403, 502, "storage.objects.list"),
        (404, 502, "check the bucket"),
        (429, 429, "fewer requests"),
        (503, 502, "try again"),
    ] {
        let server = GcsServer::spawn_thread();
        let dashboard = Dashboard::start(settings(&server));
        server.push_object_fault(Answer::status(status));
        let reply = get(&dashboard.address, "/api/cameras");
        assert_eq!(reply.status, reported, "{}", reply.text());
        assert!(reply.text().contains(says), "{}", reply.text());
        assert_eq!(reply.headers.contains_key("retry-after"), status == 429);
        // The next question is asked again.
        assert_eq!(get(&dashboard.address, "/api/cameras").status, 200);
    }
}

#[test]
fn every_answer_has_the_headers_that_keep_foreign_pages_out() {
    let (server, _) = bucket();
    let dashboard = Dashboard::start(settings(&server));
    for path in ["/", "/assets/app.js", "/api/cameras", "/nothing", "/healthz"] {
        let headers = get(&dashboard.address, path).headers;
        let policy = &headers["content-security-policy"];
        assert!(
            policy.contains("default-src 'none'") && !policy.contains("unsafe") && !policy.contains("http:"),
            "{policy}"
        );
        assert_eq!(
            (
                headers["x-content-type-options"].as_str(),
                headers["referrer-policy"].as_str()
            ),
            ("nosniff", "no-referrer")
        );
        assert_eq!(headers["cross-origin-resource-policy"], "same-origin");
    }
    let foreign = ask(&dashboard.address, "GET", "/api/cameras", &["Host: evil.example"], "");
    assert_eq!(foreign.status, 403, "{}", foreign.text());
}

#[test]
fn a_token_opens_the_api_and_the_page_asks_for_it() {
    let (server, _) = bucket();
    let token = "0123456789abcdef";
    let settings = gcstreamer_dashboard::settings::Settings {
        auth: Auth::Token(token.into()),
        ..settings(&server)
    };
    let dashboard = Dashboard::start(settings);
    let to = |path: &str, headers: &[&str]| ask(&dashboard.address, "GET", path, headers, "");
    for path in ["/", "/assets/app.js", "/healthz"] {
        assert_eq!(to(path, &[]).status, 200, "{path}");
    }
    for path in [
        "/api/cameras",
        "/api/events",
        "/hls/live.m3u8?camera=cam",
        "/preview?camera=cam&t=x",
        "/media/1/x.mp4",
    ] {
        assert_eq!(to(path, &[]).status, 401, "{path}");
    }
    assert_eq!(
        to(&format!("/api/cameras?token={token}"), &[]).status,
        401,
        "never in an address"
    );
    assert_eq!(to("/api/cameras", &[&format!("Authorization: Bearer {token}")]).status, 200);
    let log_in = |body: &str| ask(&dashboard.address, "POST", "/login", &[], body);
    assert_eq!(log_in(r#"{"token":"wrong"}"#).status, 401);
    assert_eq!(log_in("nonsense").status, 400);
    for body in [format!(r#"{{"token":"{token}"}}"#), format!("token={token}")] {
        let reply = log_in(&body);
        assert_eq!(reply.status, 204);
        let cookie = reply.headers["set-cookie"].clone();
        assert!(
            cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict") && !cookie.contains(token),
            "{cookie}"
        );
        assert_eq!(
            to("/api/cameras", &[&format!("Cookie: {}", cookie.split(';').next().unwrap())]).status,
            200
        );
    }
}

#[test]
fn the_pages_files_come_compressed_and_are_asked_for_once() {
    let (server, _) = bucket();
    let dashboard = Dashboard::start(settings(&server));
    let plain = get(&dashboard.address, "/assets/app.js");
    for encoding in ["gzip", "br"] {
        let reply = ask(
            &dashboard.address,
            "GET",
            "/assets/app.js",
            &[&format!("Accept-Encoding: {encoding}")],
            "",
        );
        assert_eq!((reply.status, reply.headers["content-encoding"].as_str()), (200, encoding));
        assert!(reply.body.len() * 2 < plain.body.len());
    }
    let again = ask(
        &dashboard.address,
        "GET",
        "/assets/app.js",
        &[&format!("If-None-Match: {}", plain.headers["etag"])],
        "",
    );
    assert_eq!((again.status, again.body.len()), (304, 0));
}

#[test]
fn events_bring_the_board_at_once() {
    use std::io::{BufRead as _, Write as _};
    let (server, _) = bucket();
    let dashboard = Dashboard::start(settings(&server));
    let host = dashboard.address.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    write!(stream, "GET /api/events HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
    let lines: Vec<String> = std::io::BufReader::new(&stream)
        .lines()
        .map(Result::unwrap)
        .take_while(|line| !line.starts_with("data: "))
        .collect();
    assert!(
        lines.iter().any(|line| line == "content-type: text/event-stream"),
        "{lines:?}"
    );
    assert!(lines.iter().any(|line| line == "event: cameras"), "{lines:?}");
    drop(stream);
}

#[test]
fn a_page_of_another_site_reaches_nothing() {
    let (server, start) = bucket();
    let dashboard = Dashboard::start(settings(&server));
    let range = format!("camera=cam&from={}&to={}", iso(start), iso(start + 8 * SECOND));
    let prepare = format!("/export/prepare?{range}");
    let host = dashboard.address.strip_prefix("http://").unwrap();
    let own = format!("Origin: http://{host}");
    for (method, path, headers, status) in [
        (
            "POST",
            prepare.as_str(),
            &["Sec-Fetch-Site: cross-site", "Origin: http://evil.example"][..],
            403,
        ),
        ("POST", &prepare, &["Origin: http://evil.example"], 403),
        ("POST", &prepare, &["Origin: null"], 403),
        ("POST", &prepare, &["Origin: http://localhost:1"], 403),
        ("GET", "/api/cameras", &["Sec-Fetch-Site: cross-site"], 403),
        ("POST", &prepare, &[own.as_str(), "Sec-Fetch-Site: same-origin"], 200),
        // curl, ffplay, and whoever types the address or follows a link to the page.
        ("POST", &prepare, &[], 200),
        ("GET", "/api/cameras", &["Sec-Fetch-Site: none"], 200),
        ("GET", "/", &["Sec-Fetch-Site: cross-site"], 200),
    ] {
        let reply = ask(&dashboard.address, method, path, headers, "");
        assert_eq!(
            reply.status,
            status,
            "{method} {path} {headers:?}: {}",
            String::from_utf8_lossy(&reply.body)
        );
        if status == 403 {
            assert!(reply.text().contains("another site"), "{}", reply.text());
        }
    }
}

#[test]
fn a_search_for_cameras_that_ended_early_is_reported() {
    use std::io::{BufRead as _, Write as _};
    let server = GcsServer::spawn_thread();
    // Objects of others, and always more of them.
    let page = r#"{"items": [{"name": "photo.jpg"}], "nextPageToken": "more"}"#;
    server.route(
        &format!("/storage/v1/b/{BUCKET}/o"),
        Answer::raw(200, "application/json", page),
    );
    let dashboard = Dashboard::start(settings(&server));
    let host = dashboard.address.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    write!(stream, "GET /api/events HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
    let lines = std::io::BufReader::new(&stream).lines().map(Result::unwrap);
    let data: Vec<String> = lines.filter(|line| line.starts_with("data: ")).take(2).collect();
    assert_eq!(data[0], "data: []");
    assert!(
        data[1].contains("not all folders were looked at") && data[1].contains("--cameras"),
        "{data:?}"
    );
}

#[test]
fn what_was_listed_is_not_listed_again_by_a_second_viewer() {
    let (server, start) = bucket();
    let dashboard = Dashboard::start(settings(&server));
    let path = format!(
        "/api/timeline?camera=old&from={}&to={}",
        iso(start - 40 * 86_400 * SECOND),
        iso(start - 39 * 86_400 * SECOND)
    );
    get(&dashboard.address, &path);
    let first = server.requests().len();
    assert!(first <= 30, "{first} requests for a day");
    get(&dashboard.address, &path);
    assert_eq!(server.requests().len(), first);
}

#[test]
fn finished_hours_are_not_listed_again_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let cuts = cut(&encode(STREAMS[0], 20, folder.path()));
    let server = GcsServer::spawn_thread();
    let hour = 3600 * SECOND;
    let begins = now() / hour * hour - 48 * hour;
    store_hour(&server, &cuts, begins);
    let cached = || gcstreamer_dashboard::settings::Settings {
        cache_dir: Some(folder.path().to_owned()),
        ..settings(&server)
    };
    let path = format!("/api/timeline?camera=cam&from={}&to={}", iso(begins), iso(begins + hour));
    let first = get(&Dashboard::start(cached()).address, &path).json();
    let second = get(&Dashboard::start(cached()).address, &path).json();
    assert_eq!(first, second);
    assert_eq!(first["gaps"], serde_json::json!([]), "{first}");
    let hours = |server: &GcsServer| {
        let prefix = iso(begins).replace(['-', ':'], "")[..11].to_owned();
        server
            .requests()
            .iter()
            .filter(|request| request.query.get("prefix").is_some_and(|text| text.ends_with(&prefix)))
            .count()
    };
    assert_eq!(hours(&server), 1);
}

/// One session that covers an hour by chunks of ten seconds. Their bytes do not matter.
fn store_hour(server: &GcsServer, cuts: &[common::Cut], begins: u64) {
    let (session, template) = (
        "0a1b2c3d4e",
        gcstreamer_schema::name::Template::parse(gcstreamer_dashboard::settings::DEFAULT_LOCATION).unwrap(),
    );
    for sequence in 0..360 {
        let start = begins + sequence * 10 * SECOND;
        let info = gcstreamer_media::chunk::ChunkInfo {
            sequence,
            start,
            duration: 10 * SECOND,
            gap: None,
            init_bytes: 0,
            ..cuts[0].info.clone()
        };
        let naming = gcstreamer_schema::name::NameFields {
            device: "cam",
            session,
            seq: sequence,
            ext: "flv",
            start,
        };
        server.put_with(
            BUCKET,
            &template.format(&naming).unwrap(),
            b"x",
            &info.metadata("cam", session, &Default::default()),
        );
    }
}

#[test]
fn a_recording_that_is_lost_while_it_is_watched_is_a_404_and_a_bucket_in_trouble_a_502() {
    let (server, start) = bucket();
    let dashboard = Dashboard::start(settings(&server));
    let playlist = get(
        &dashboard.address,
        &format!(
            "/hls/index.m3u8?camera=cam&from={}&to={}",
            iso(start),
            iso(start + 60 * SECOND)
        ),
    )
    .text();
    let addresses: Vec<&str> = playlist.lines().filter(|line| line.ends_with(".m4s")).collect();
    assert_eq!(addresses.len(), 5);
    let lost = server
        .objects()
        .into_keys()
        .map(|(_, name)| name)
        .find(|name| name.starts_with("cam/2") && name.contains("_000001"))
        .unwrap();
    server.remove(BUCKET, &lost);
    assert_eq!(get(&dashboard.address, addresses[1]).status, 404);
    server.push_object_fault(Answer::status(503));
    let trouble = get(&dashboard.address, addresses[2]);
    assert_eq!(trouble.status, 502, "{}", trouble.text());
    assert_eq!(get(&dashboard.address, addresses[2]).status, 200, "it is read anew");
    assert_eq!(get(&dashboard.address, addresses[3]).status, 200);
}

/// A file of the time zone database, of UTC. RFC 9636.
fn tzif() -> Vec<u8> {
    let block = [
        &b"TZif2"[..],
        &[0; 15],
        // Counts: of times no indicators and no leap seconds, no transitions, one type, four letters.
        &[0; 16],
        &[0, 0, 0, 1, 0, 0, 0, 4],
        // No offset, no summer time, named by the first letters.
        &[0; 6],
        b"UTC\0",
    ];
    [block.concat(), block.concat(), b"\nUTC0\n".to_vec()].concat()
}

#[test]
fn zones_by_the_names_of_browsers_are_known_where_the_system_has_newer_names_alone() {
    use std::io::BufRead as _;
    let folder = tempfile::tempdir().unwrap();
    // As Debian 13 without tzdata-legacy: a database, and these names are not in it.
    std::fs::create_dir_all(folder.path().join("zones/Asia")).unwrap();
    std::fs::write(folder.path().join("zones/Asia/Kathmandu"), tzif()).unwrap();
    let list = folder.path().join("r.toml");
    std::fs::write(
        &list,
        "[[camera]]\nid = \"cam\"\nurl = \"rtsp://x\"\ntime-zone = \"Asia/Calcutta\"\n",
    )
    .unwrap();
    let server = GcsServer::spawn_thread();
    let mut child = std::process::Command::new(env!("CARGO_BIN_EXE_gcstreamer-dashboard"))
        .args([
            "--endpoint-uri",
            &server.endpoint(),
            "--listen",
            "127.0.0.1:0",
            "--bucket",
            common::BUCKET,
        ])
        .arg("--cameras")
        .arg(&list)
        .env("TZDIR", folder.path().join("zones"))
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let address = lines.find_map(|line| Some(line.split_once("listening on ")?.1.to_owned()));
    let answers = address.map(|address| {
        ["&tz=Asia/Katmandu", "&tz=Europe/Kiev", "", "&tz=Asia/Nowhere"]
            .map(|zone| get(&address, &format!("/api/days?camera=cam&month=2026-11{zone}")).status)
    });
    child.kill().unwrap();
    child.wait().unwrap();
    assert_eq!(answers, Some([200, 200, 200, 400]));
}
