//! Badges from what cameras report, with mosquitto as the broker.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::{Dashboard, GcsServer, SECOND, STREAMS, cut, encode, get, iso, now, settings, status, store};
use gcstreamer_dashboard::mqtt::Broker;
use gcstreamer_dashboard::settings::Settings;
use gcstreamer_schema::cameras::Camera;
use serde_json::Value;

#[path = "../../tests/common/mosquitto.rs"]
mod mosquitto;

use mosquitto::Mosquitto;

fn broker(port: u16) -> Option<Broker> {
    Some(Broker {
        host: "127.0.0.1".into(),
        port,
        username: None,
        password_file: None,
        tls: false,
    })
}

/// Asks until the camera's badge is this one.
fn until(dashboard: &Dashboard, camera: &str, badge: &str) -> Value {
    let begun = std::time::Instant::now();
    loop {
        let board = get(&dashboard.address, "/api/cameras").json();
        let found = board.as_array().unwrap().iter().find(|state| state["id"] == camera).cloned();
        if let Some(found) = found.clone().filter(|state| state["badge"] == badge) {
            return found;
        }
        assert!(begun.elapsed().as_secs() < 30, "{badge}: {found:?}");
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
}

#[test]
fn badges_follow_what_a_camera_reports_and_the_bucket_alone_where_the_broker_is_gone() {
    let mut mosquitto = Mosquitto::start();
    let server = GcsServer::spawn_thread();
    let folder = tempfile::tempdir().unwrap();
    let cuts = cut(&encode(STREAMS[0], 8, folder.path()));
    store(&server, "site/cam", &cuts, now() - 9 * SECOND, &[]);
    let publish = |mosquitto: &Mosquitto, topic: &str, payload: &str| {
        mosquitto.publish(&format!("gcstreamer/site/cam/{topic}"), payload.as_bytes(), true);
    };
    publish(&mosquitto, "availability", "online");
    publish(&mosquitto, "status", &status("site/cam", "stalled", "online", now(), 60.0));
    let dashboard = Dashboard::start(Settings {
        broker: broker(mosquitto.port()),
        ..settings(&server)
    });
    let lost = until(&dashboard, "site/cam", "camera-lost");
    assert!(lost["reason"].as_str().unwrap().starts_with("no pictures since "), "{lost}");
    publish(&mosquitto, "status", &status("site/cam", "streaming", "offline", now(), 60.0));
    assert_eq!(until(&dashboard, "site/cam", "late")["backlog_s"], 95);
    // What waits for its upload: 95.5 s of which the bucket has the last eight.
    let recorded = |hours: u64| {
        let (from, to) = (iso(now() - hours * 3600 * SECOND), iso(now() + 60 * SECOND));
        get(
            &dashboard.address,
            &format!("/api/timeline?camera=site/cam&from={from}&to={to}"),
        )
        .json()
    };
    for hours in [1, 100] {
        let timeline = recorded(hours);
        let pending = timeline["pending"].as_array().unwrap();
        assert_eq!(pending.len(), 2, "{timeline}");
        assert_eq!(
            (&pending[0]["to"], &pending[1]["from"]),
            (&timeline["ranges"][0]["from"], &timeline["ranges"][0]["to"])
        );
        assert!(pending[1]["to"].as_str().unwrap() <= iso(now()).as_str(), "{timeline}");
    }
    publish(&mosquitto, "status", &status("site/cam", "streaming", "online", now(), 60.0));
    until(&dashboard, "site/cam", "recording");
    publish(&mosquitto, "availability", "offline");
    until(&dashboard, "site/cam", "offline");
    publish(&mosquitto, "status", &status("site/cam", "stopped", "stopped", now(), 60.0));
    until(&dashboard, "site/cam", "stopped");
    // Who is known by its reports alone is on the board too.
    mosquitto.publish(
        "gcstreamer/new/status",
        status("new", "not-recording", "starting", now(), 60.0).as_bytes(),
        true,
    );
    let new = until(&dashboard, "new", "not-recording");
    assert_eq!(new["last_stored"], Value::Null);
    // Its own page opens, too.
    let (from, to) = (iso(now() - 3600 * SECOND), iso(now()));
    for path in [
        "/?cam=new".to_owned(),
        format!("/api/timeline?camera=new&from={from}&to={to}"),
        format!("/api/days?camera=new&month={}", &from[..7]),
    ] {
        assert_eq!(get(&dashboard.address, &path).status, 200, "{path}");
    }
    for path in [
        "/hls/live.m3u8?camera=new".to_owned(),
        format!("/hls/index.m3u8?camera=new&from={from}&to={to}"),
        format!("/preview?camera=new&t={from}"),
    ] {
        let reply = get(&dashboard.address, &path);
        assert_eq!(
            (reply.status, &reply.json()["error"]),
            (404, &"nothing is stored of this camera yet".into()),
            "{path}"
        );
    }
    mosquitto.stop();
    until(&dashboard, "site/cam", "recording");
    assert_eq!(
        recorded(1)["pending"],
        serde_json::json!([]),
        "from the bucket alone it is not known"
    );
    mosquitto.start_again();
    publish(&mosquitto, "availability", "online");
    publish(
        &mosquitto,
        "status",
        &status("site/cam", "streaming", "online", now() - 200 * SECOND, 60.0),
    );
    let dashboard = Dashboard::start(Settings {
        broker: broker(mosquitto.port()),
        ..settings(&server)
    });
    // What the broker kept was written more than three intervals ago.
    until(&dashboard, "site/cam", "unknown");
}

#[test]
fn what_somebody_left_at_the_broker_takes_no_badge_from_the_cameras() {
    let mosquitto = Mosquitto::start();
    let server = GcsServer::spawn_thread();
    let large = vec![b'x'; 300_000];
    for topic in [
        "gcstreamer/site/cam/set/x",
        "gcstreamer/site/cam/event/x",
        "gcstreamer/other/status",
    ] {
        mosquitto.publish(topic, &large, true);
    }
    // Ids of one part and of eight.
    let ids = ["cam", "a/b/c/d/e/f/g/h"];
    for id in ids {
        let prefix = format!("gcstreamer/{id}");
        mosquitto.publish(&format!("{prefix}/availability"), b"online", true);
        let status = status(id, "stalled", "online", now(), 60.0);
        mosquitto.publish(&format!("{prefix}/status"), status.as_bytes(), true);
    }
    let dashboard = Dashboard::start(Settings {
        broker: broker(mosquitto.port()),
        ..settings(&server)
    });
    for id in ids {
        until(&dashboard, id, "camera-lost");
    }
}

#[test]
fn the_list_names_cameras_and_the_zone_of_their_days() {
    let server = GcsServer::spawn_thread();
    let folder = tempfile::tempdir().unwrap();
    let cuts = cut(&encode(STREAMS[0], 8, folder.path()));
    // 23:30 UTC of the last day of October is November in Berlin.
    let start = gcstreamer_schema::time::parse_rfc3339("2026-10-31T23:30:00Z").unwrap();
    store(&server, "cam", &cuts, start, &[]);
    let dashboard = Dashboard::start(Settings {
        cameras: vec![Camera {
            id: "cam".into(),
            name: Some("Back door".into()),
            enabled: true,
            time_zone: Some("Europe/Berlin".into()),
        }],
        ..settings(&server)
    });
    let board = get(&dashboard.address, "/api/cameras").json();
    let about = get(&dashboard.address, "/api/about").json();
    assert_eq!(
        (&board[0]["name"], &about["zones"]["cam"]),
        (&"Back door".into(), &"Europe/Berlin".into())
    );
    let recorded = |query: &str| {
        let days = get(&dashboard.address, &format!("/api/days?camera=cam{query}")).json();
        let days = days
            .as_array()
            .unwrap()
            .iter()
            .filter(|day| day["recorded_s"].as_u64() > Some(0))
            .cloned();
        days.map(|day| day["day"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(recorded("&month=2026-11"), ["2026-11-01"]);
    assert_eq!(recorded("&month=2026-10&tz=UTC"), ["2026-10-31"]);
    assert!(iso(start).starts_with("2026-10-31"));
}
