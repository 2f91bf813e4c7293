//! The page in a real browser: Debian's Chromium, driven by playwright-core (`web/browser/`).
//!
//! `scripts/setup` installs both. Screenshots are left in `target/dashboard-screenshots`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

#[path = "../../tests/common/mosquitto.rs"]
mod mosquitto;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use common::gcs_server::Answer;
use common::iap_signer::{AUDIENCE, Signer, claims, jwks};
use common::{
    Cut, Dashboard, FLV_PICTURES, FLV_SOUND, GcsServer, SECOND, STREAMS, Stream, cut, encode, now, pause, settings, status,
    store, store_as, web,
};
use gcstreamer_dashboard::iap::{IapSettings, Source};
use gcstreamer_dashboard::mqtt::Broker;
use gcstreamer_dashboard::settings::{Auth, Settings};
use gcstreamer_schema::cameras::Camera;
use gcstreamer_schema::session::session_id;
use gcstreamer_storage::{Credentials, Endpoint};
use serde_json::json;

const EVIL: &str = "<img src=x onerror=alert(1)>\"'&";

/// Ten blocks of 32 pixels on top of the picture hold the number of the frame, so that the page's own words need not be believed.
const NUMBERED: &str = "-vf geq=lum='if(lt(Y,36),255*mod(floor(N/pow(2,floor(X/32))),2),lum(X,Y))':cb='if(lt(Y,36),128,cb(X,Y))':cr='if(lt(Y,36),128,cr(X,Y))'";

/// WebM, which is rewritten as MP4.
const WEBM: [(&str, &str); 2] = [
    (
        "webm/vp9",
        "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -c:a libopus -f webm",
    ),
    ("webm/av1", "-c:v libaom-av1 -usage realtime -cpu-used 8 -c:a libopus -f webm"),
];

fn numbered(stream: Stream) -> Stream {
    Stream {
        arguments: String::leak(format!("{NUMBERED} {}", stream.arguments)),
        ..stream
    }
}

/// Numbered pictures, so many a second.
fn paced(fps: u32) -> Stream {
    let numbered = NUMBERED.replace("-vf ", &format!("-vf fps={fps},"));
    Stream {
        camera: "paced",
        arguments: String::leak(format!(
            "{numbered} -c:v libx264 -bf 2 -c:a aac -ar 44100 -f flv -flvflags no_duration_filesize"
        )),
    }
}

/// Five hours, ns.
const OUTAGE: u64 = 5 * 3600 * SECOND;

/// Stores what is seldom: an outage of hours, an end that is a millisecond later than start and length say, a clock that began in 1970.
fn store_oddities(server: &GcsServer, cuts: &[Cut], start: u64) {
    for camera in ["apart", "apart/too"] {
        store(server, camera, &cuts[..2], start - OUTAGE, &[]);
        store(server, camera, cuts, start, &[]);
    }
    store(server, "early", &cuts[..2], 20 * SECOND, &[]);
    let mut rounded = cuts[..1].to_vec();
    rounded[0].info.duration = 4_000_400_000;
    store(server, "rounded", &rounded, start + 600_000, &[]);
}

/// Half an hour, ns.
const SET_BACK: u64 = 1800 * SECOND;

/// Stores what a camera recorded whose clock was set back by half an hour after twelve seconds.
fn store_set_back(server: &GcsServer, cuts: &[Cut], start: u64) {
    let session = session_id(start, 7);
    store_as(server, "set-back", &session, &cuts[..3], start, &[]);
    store_as(server, "set-back", &session, &cuts[3..], start - SET_BACK, &[]);
}

fn listed(id: &str, name_and_zone: Option<(&str, &str)>) -> Camera {
    Camera {
        id: id.into(),
        name: name_and_zone.map(|(name, _)| name.into()),
        enabled: true,
        time_zone: name_and_zone.map(|(_, zone)| zone.into()),
    }
}

/// Stores the recording of cameras as it would have come: once the file is there 24 s of it, then each chunk when it has ended.
fn record(server: &GcsServer, trigger: &Path, cameras: &[&str], cuts: &[Cut]) {
    while !trigger.exists() {
        std::thread::sleep(Duration::from_millis(50));
    }
    let start = now() - 24 * SECOND;
    for cut in cuts {
        let sequence = cut.info.sequence;
        let ended = start + (sequence + 1) * 4 * SECOND;
        std::thread::sleep(Duration::from_nanos(ended.saturating_sub(now())));
        let others: Vec<u64> = (0..).take(cuts.len()).filter(|other| *other != sequence).collect();
        for camera in cameras {
            store(server, camera, cuts, start, &others);
        }
    }
}

fn chromium() -> PathBuf {
    let found = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.exists());
    found.expect("Chromium is missing: scripts/setup test installs it")
}

#[test]
fn the_page_plays_what_was_recorded() {
    assert!(
        web().join("node_modules/playwright-core").exists(),
        "playwright-core is missing: scripts/setup test installs it"
    );
    let folder = tempfile::tempdir().unwrap();
    let server = GcsServer::spawn_thread();
    let mut cameras = Vec::new();
    // H.265 plays in some browsers alone.
    let streams = STREAMS.into_iter().filter(|stream| stream.camera != "hevc");
    let streams: Vec<_> = streams
        .map(|stream| (stream, cut(&encode(numbered(stream), 20, folder.path()))))
        .collect();
    let webm = WEBM.map(|(camera, arguments)| {
        let stream = numbered(Stream { camera, arguments });
        cut(&encode(stream, 20, folder.path()))
    });
    // The last chunk ends a moment ago: the cameras are recording.
    let start = (now() - 22 * SECOND) / SECOND * SECOND;
    for (stream, cuts) in streams {
        store(&server, stream.camera, &cuts, start, &[]);
        let mut damaged = cuts.clone();
        damaged[2].bytes.fill(0);
        store(&server, &format!("damaged/{}", cameras.len()), &damaged, start, &[]);
        cameras.push(json!({"id": stream.camera, "start": start / 1_000_000, "seconds": 20}));
        if stream.camera == "flv" {
            store(&server, "holed", &cuts, start, &[2]);
            store(&server, EVIL, &cuts, start, &[]);
            store_oddities(&server, &cuts, start);
            store_set_back(&server, &cuts, start);
            for (camera, sound, pictures) in [("late-sound", 0, None), ("pausing", 1, Some(3))] {
                let mut cuts = cuts.clone();
                pause(&mut cuts[sound], FLV_SOUND);
                pictures.into_iter().for_each(|at: usize| pause(&mut cuts[at], FLV_PICTURES));
                store(&server, camera, &cuts, start, &[]);
            }
        }
    }
    let telephone = Stream {
        camera: "telephone",
        arguments: "-c:v libx264 -c:a pcm_alaw -ar 8000 -ac 1 -f flv -flvflags no_duration_filesize",
    };
    store(&server, "telephone", &cut(&encode(telephone, 8, folder.path())), start, &[]);
    store(&server, "hevc", &cut(&encode(STREAMS[4], 8, folder.path())), start, &[]);
    for ((camera, _), cuts) in WEBM.into_iter().zip(&webm) {
        store(&server, camera, cuts, start, &[]);
    }
    for (camera, fps) in [("twelve", 12), ("fifty", 50)] {
        store(&server, camera, &cut(&encode(paced(fps), 8, folder.path())), start, &[]);
    }
    let gap = json!({"camera": "holed", "from": start / 1_000_000 + 8000, "to": start / 1_000_000 + 12_000});
    let plan = folder.path().join("plan.json");
    let dashboard = Dashboard::start(settings(&server));
    let token = "0123456789abcdef";
    let guarded = Dashboard::start(Settings {
        auth: Auth::Token(token.into()),
        ..settings(&server)
    });
    // A dashboard that receives what cameras report, and has a list of them.
    let broker = mosquitto::Mosquitto::start();
    broker.publish("gcstreamer/flv/availability", b"online", true);
    broker.publish(
        "gcstreamer/flv/status",
        status("flv", "streaming", "online", now(), 60.0).as_bytes(),
        true,
    );
    broker.publish(
        "gcstreamer/new/status",
        status("new", "not-recording", "starting", now(), 60.0).as_bytes(),
        true,
    );
    let reported = Dashboard::start(Settings {
        broker: Some(Broker {
            host: "127.0.0.1".into(),
            port: broker.port(),
            username: None,
            password_file: None,
            tls: false,
        }),
        cameras: vec![listed("flv", Some(("Back door", "Asia/Tokyo")))],
        ..settings(&server)
    });
    // Players are sent to a bucket that does not answer them.
    let key = folder.path().join("key.json");
    std::fs::write(&key, common::service_account::ServiceAccount::generate().json()).unwrap();
    let nowhere = Endpoint::resolve(Some("https://storage.invalid"), None).unwrap();
    let redirected = Dashboard::start_redirecting(settings(&server), Some((nowhere, Credentials::File(key))));
    let signer = Signer::new("k1");
    let keys = folder.path().join("keys.json");
    std::fs::write(&keys, jwks(&[&signer])).unwrap();
    let behind_iap = Dashboard::start(Settings {
        auth: Auth::Iap(IapSettings {
            audience: AUDIENCE.into(),
            keys: Source::File(keys),
        }),
        ..settings(&server)
    });
    let header = signer.sign(&claims(now() / SECOND));
    let iap = json!({"address": behind_iap.address, "header": header});
    // A bucket that refuses for some seconds.
    let refusing = GcsServer::spawn_thread();
    store(&refusing, "site/cam", &cut(&encode(STREAMS[0], 8, folder.path())), start, &[]);
    for _ in 0..4 {
        refusing.push_object_fault(Answer::error(
            403,
            "dashboard@project does not have storage.objects.list access",
        ));
    }
    let refused = Dashboard::start(settings(&refusing));
    // Cameras that record, from the moment that the page asks for.
    let recording = Arc::new(GcsServer::spawn_thread());
    let names = ["live/a", "live/b"];
    let recorded = cut(&encode(numbered(STREAMS[2]), 40, folder.path()));
    let trigger = folder.path().join("record");
    let running = Dashboard::start(Settings {
        cameras: names.map(|id| listed(id, None)).into(),
        ..settings(&recording)
    });
    let live = json!({"address": running.address, "cameras": names, "trigger": trigger});
    let bucket = Arc::clone(&recording);
    std::thread::spawn(move || record(&bucket, &trigger, &names, &recorded));
    let frozen = status("flv", "stalled", "online", now(), 60.0);
    let mqtt = json!({"address": reported.address, "port": broker.port(), "topic": "gcstreamer/flv/status", "frozen": frozen});
    let login = json!({"address": guarded.address, "token": token});
    std::fs::write(
        &plan,
        json!({"cameras": cameras, "gap": gap, "outage": OUTAGE / 1_000_000, "setBack": SET_BACK / 1_000_000, "evil": EVIL, "login": login, "mqtt": mqtt, "redirected": redirected.address, "iap": iap, "refused": refused.address, "live": live}).to_string(),
    )
    .unwrap();
    let screenshots = Path::new(env!("CARGO_TARGET_TMPDIR")).join("../dashboard-screenshots");
    std::fs::create_dir_all(&screenshots).unwrap();
    let mut command = Command::new("node");
    command
        .arg("browser/browser.mjs")
        .arg(&dashboard.address)
        .arg(&plan)
        .arg(&screenshots)
        .arg(chromium())
        .current_dir(web());
    let output = command.output().expect("Node.js is missing: scripts/setup test installs it");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.matches("ok - ").count(), 61, "{text}");
}
