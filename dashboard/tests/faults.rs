//! What a person sees while the bucket refuses, is busy, fails, hangs or loses an object, and that all is well again afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::io::{BufRead as _, Write as _};
use std::time::{Duration, Instant};

use common::gcs_server::Answer;
use common::{BUCKET, Dashboard, GcsServer, Reply, SECOND, STREAMS, ask, cut, encode, get, iso, now, settings, store};
use gcstreamer_dashboard::settings::Settings;

/// Silence, as the scripted server writes it.
const SILENCE: u16 = 0;
const PATIENCE: Duration = Duration::from_millis(700);

struct Scene {
    server: GcsServer,
    start: u64,
}

fn scene() -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let server = GcsServer::spawn_thread();
    // A finished hour, whose listing is good for ever.
    let start = (now() - 5 * 3600 * SECOND) / (3600 * SECOND) * (3600 * SECOND);
    for stream in [STREAMS[0], STREAMS[2]] {
        store(&server, stream.camera, &cut(&encode(stream, 12, folder.path())), start, &[]);
    }
    Scene { server, start }
}

impl Scene {
    fn dashboard(&self) -> Dashboard {
        Dashboard::start(Settings {
            request_timeout: PATIENCE,
            ..settings(&self.server)
        })
    }

    fn range(&self, camera: &str) -> String {
        format!(
            "camera={camera}&from={}&to={}",
            iso(self.start),
            iso(self.start + 60 * SECOND)
        )
    }

    /// What the page asks for on its screens.
    fn screens(&self) -> Vec<(&'static str, String)> {
        let day = iso(self.start)[..7].to_owned();
        vec![
            ("GET", "/api/cameras".into()),
            ("GET", format!("/api/timeline?{}", self.range("flv"))),
            ("GET", format!("/api/days?camera=flv&month={day}&tz=UTC")),
            (
                "GET",
                format!("/api/gaps?from={}&to={}", iso(self.start), iso(self.start + 60 * SECOND)),
            ),
            ("GET", format!("/hls/index.m3u8?{}", self.range("site/fmp4"))),
            ("GET", "/hls/live.m3u8?camera=flv".into()),
            ("GET", format!("/preview?camera=flv&t={}", iso(self.start + SECOND))),
            ("POST", format!("/export/prepare?{}", self.range("flv"))),
        ]
    }
}

/// What is answered to everything while the bucket fails in this way.
fn faults() -> [(Answer, u16, &'static str, &'static str); 4] {
    let busy = Answer::status(429).header("Retry-After", "7");
    [
        (Answer::status(403), 502, "scripted 403", "roles/storage.objectViewer"),
        (busy, 429, "scripted 429", "asks for fewer requests"),
        (Answer::status(503), 502, "scripted 503", "does not answer as it should"),
        (
            Answer::raw(SILENCE, "", ""),
            502,
            "no answer within 0.7 s",
            "does not answer as it should",
        ),
    ]
}

fn is_reported(reply: &Reply, status: u16, error: &str, hint: &str, what: &str) {
    let text = reply.text();
    assert_eq!(reply.status, status, "{what}: {text}");
    let reported = reply.json();
    assert!(reported["error"].as_str().unwrap().contains(error), "{what}: {text}");
    assert!(reported["hint"].as_str().unwrap().contains(hint), "{what}: {text}");
    assert_eq!(
        reply.headers.get("retry-after").map(String::as_str),
        (status == 429).then_some("7"),
        "{what}"
    );
}

/// Asks as the page does, again after a failure: on a busy machine an answer may take longer than [`PATIENCE`].
fn until_well(dashboard: &Dashboard, method: &str, path: &str) {
    let begun = Instant::now();
    loop {
        let reply = ask(&dashboard.address, method, path, &[], "");
        if matches!(reply.status, 200 | 302) || path.starts_with("/hls/live") && reply.status == 404 {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{path}: {}", reply.text());
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// The first event that whoever looks at the cameras gets: its name and its data.
fn first_event(dashboard: &Dashboard) -> (String, serde_json::Value) {
    let host = dashboard.address.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    write!(stream, "GET /api/events HTTP/1.1\r\nHost: {host}\r\n\r\n").unwrap();
    let mut event = String::new();
    for line in std::io::BufReader::new(&stream).lines().map(Result::unwrap) {
        if let Some(name) = line.strip_prefix("event: ") {
            name.clone_into(&mut event);
        }
        if let Some(data) = line.strip_prefix("data: ") {
            return (event, serde_json::from_str(data).unwrap());
        }
    }
    panic!("the stream of events ended without one");
}

#[test]
fn every_screen_says_what_is_wrong_with_the_bucket_and_is_well_afterwards() {
    let scene = scene();
    for (fault, status, error, hint) in faults() {
        let dashboard = scene.dashboard();
        scene.server.set_object_fault(Some(fault));
        for (method, path) in scene.screens() {
            let begun = Instant::now();
            let reply = ask(&dashboard.address, method, &path, &[], "");
            is_reported(&reply, status, error, hint, &path);
            assert!(begun.elapsed() < PATIENCE * 20, "{path}: {:?}", begun.elapsed());
        }
        let (event, reported) = first_event(&dashboard);
        assert_eq!(event, "trouble", "{reported}");
        assert!(reported["error"].as_str().unwrap().contains(error), "{reported}");
        assert!(reported["hint"].as_str().unwrap().contains(hint), "{reported}");
        scene.server.set_object_fault(None);
        for (method, path) in scene.screens() {
            until_well(&dashboard, method, &path);
        }
    }
}

/// Addresses of media in a playlist.
fn media(playlist: &str) -> Vec<String> {
    playlist
        .lines()
        .filter(|line| line.starts_with("/media/"))
        .map(str::to_owned)
        .collect()
}

#[test]
fn media_and_pictures_that_cannot_be_read_say_so_and_play_afterwards() {
    let scene = scene();
    for (fault, status, error, hint) in faults() {
        let dashboard = scene.dashboard();
        let mut addresses = Vec::new();
        for camera in ["flv", "site/fmp4"] {
            let playlist = get(&dashboard.address, &format!("/hls/index.m3u8?{}", scene.range(camera))).text();
            addresses.extend(media(&playlist).first().cloned());
            let preview = get(
                &dashboard.address,
                &format!("/preview?camera={camera}&t={}", iso(scene.start + SECOND)),
            );
            addresses.push(preview.headers["location"].clone());
        }
        assert_eq!(addresses.len(), 4);
        scene.server.set_object_fault(Some(fault));
        for address in &addresses {
            is_reported(&get(&dashboard.address, address), status, error, hint, address);
        }
        scene.server.set_object_fault(None);
        for address in &addresses {
            until_well(&dashboard, "GET", address);
        }
    }
}

#[test]
fn an_export_survives_a_bucket_that_fails_for_a_moment() {
    let scene = scene();
    let dashboard = scene.dashboard();
    let path = format!("/export?{}", scene.range("flv"));
    let whole = get(&dashboard.address, &path);
    assert_eq!(whole.status, 200);
    let dashboard = scene.dashboard();
    // The listings pass: the export is made of them and of reads, of which these fail.
    assert_eq!(
        get(&dashboard.address, &format!("/api/timeline?{}", scene.range("flv"))).status,
        200
    );
    for status in [503, 429] {
        scene.server.push_object_fault(Answer::status(status));
    }
    let again = get(&dashboard.address, &path);
    assert!(again.status == 200 && again.body == whole.body, "{}", again.status);
}

#[test]
fn a_recording_that_was_deleted_is_reported_and_then_a_gap_though_its_hour_was_finished() {
    let scene = scene();
    let folder = tempfile::tempdir().unwrap();
    let dashboard = Dashboard::start(Settings {
        cache_dir: Some(folder.path().to_owned()),
        ..settings(&scene.server)
    });
    for camera in ["flv", "site/fmp4"] {
        let path = format!("/hls/index.m3u8?{}", scene.range(camera));
        let playlist = get(&dashboard.address, &path).text();
        let lost = media(&playlist)[1].clone();
        let names: Vec<String> = scene.server.objects().into_keys().map(|(_, name)| name).collect();
        let name = names
            .iter()
            .find(|name| name.starts_with(camera) && name.contains("_000001."))
            .unwrap();
        scene.server.remove(BUCKET, name);
        let reply = get(&dashboard.address, &lost);
        assert_eq!(reply.status, 404);
        assert!(
            reply.text().contains("this recording does not exist any more"),
            "{}",
            reply.text()
        );
        let playlist = get(&dashboard.address, &path).text();
        assert_eq!(
            (media(&playlist).len(), playlist.matches("#EXT-X-DISCONTINUITY\n").count()),
            (2, 1),
            "{playlist}"
        );
        let timeline = get(&dashboard.address, &format!("/api/timeline?{}", scene.range(camera))).json();
        assert_eq!(timeline["gaps"][0]["reason"], "not-stored", "{timeline}");
        let export = get(&dashboard.address, &format!("/export?{}", scene.range(camera)));
        assert_eq!(export.status, 200);
    }
}

/// What comes before the connection ends.
fn raw(address: &str, path: &str) -> Vec<u8> {
    use std::io::{Read as _, Write as _};
    let host = address.strip_prefix("http://").unwrap();
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn bytes_that_break_off_are_never_passed_on_as_a_whole_recording() {
    let scene = scene();
    let dashboard = scene.dashboard();
    let playlist = get(&dashboard.address, &format!("/hls/index.m3u8?{}", scene.range("site/fmp4"))).text();
    let address = media(&playlist)[0].clone();
    let whole = get(&dashboard.address, &address);
    let part = "x".repeat(1000);
    scene.server.push_object_fault(Answer::raw(206, "video/mp4", &part));
    let answer = raw(&dashboard.address, &address);
    // No answer at all, or one that ends before its announced end.
    let body = answer
        .windows(4)
        .position(|window| window == b"\r\n\r\n")
        .map(|head| answer.len() - head - 4);
    let head = String::from_utf8_lossy(&answer).to_lowercase();
    assert!(
        body.is_none_or(|length| length <= part.len() && head.contains(&format!("content-length: {}", whole.body.len()))),
        "{body:?}"
    );
    assert_eq!(get(&dashboard.address, &address).body, whole.body);
    // What is remuxed is held whole first: it is an error.
    let playlist = get(&dashboard.address, &format!("/hls/index.m3u8?{}", scene.range("flv"))).text();
    scene.server.push_object_fault(Answer::raw(206, "video/x-flv", &part));
    let reply = get(&dashboard.address, &media(&playlist)[0]);
    assert!(
        reply.status == 502 && reply.text().contains("before the range that was asked for"),
        "{}",
        reply.text()
    );
    assert_eq!(get(&dashboard.address, &media(&playlist)[0]).status, 200);
}

#[test]
fn fifty_viewers_ask_the_bucket_as_often_as_one() {
    let scene = scene();
    let asked = |viewers: usize| {
        let dashboard = scene.dashboard();
        let before = scene.server.requests().len();
        let screens = &scene.screens()[..7];
        std::thread::scope(|scope| {
            for viewer in 0..viewers {
                let address = &dashboard.address;
                scope.spawn(move || {
                    for turn in 0..screens.len() {
                        let (method, path) = &screens[(turn + viewer) % screens.len()];
                        let status = ask(address, method, path, &[], "").status;
                        assert!(
                            matches!(status, 200 | 302) || path.starts_with("/hls/live"),
                            "{path}: {status}"
                        );
                    }
                });
            }
        });
        scene.server.requests().len() - before
    };
    let (one, fifty) = (asked(1), asked(50));
    // Listings of running hours are good for two seconds, so a slow machine makes some twice.
    assert!(fifty <= one * 4, "{fifty} requests for fifty viewers, {one} for one");
}
