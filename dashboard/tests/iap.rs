//! Behind Identity-Aware Proxy: who is let in, over HTTP, with a key server of our own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::gcs_server::Answer;
use common::iap_signer::{AUDIENCE, Signer, claims, jwks};
use common::{BUCKET, Dashboard, GcsServer, Reply, SECOND, STREAMS, ask, cut, encode, iso, now, settings, store};
use gcstreamer_dashboard::iap::{IapSettings, Source};
use gcstreamer_dashboard::settings::{Auth, Settings};
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

const KEYS: &str = "/iap/verify/public_key-jwk";

fn dashboard(server: &GcsServer) -> Dashboard {
    Dashboard::start(Settings {
        auth: Auth::Iap(IapSettings {
            audience: AUDIENCE.into(),
            keys: Source::Url(server.endpoint() + KEYS),
        }),
        ..settings(server)
    })
}

fn with(dashboard: &Dashboard, path: &str, header: Option<&str>) -> Reply {
    let header = header.map(|header| format!("X-Goog-IAP-JWT-Assertion: {header}"));
    let headers: Vec<&str> = header.as_deref().into_iter().collect();
    ask(&dashboard.address, "GET", path, &headers, "")
}

#[test]
fn only_who_comes_through_iap_is_let_in() {
    let (server, signer) = (GcsServer::spawn_thread(), Signer::new("k1"));
    server.route(KEYS, Answer::raw(200, "application/json", &jwks(&[&signer])));
    let dashboard = dashboard(&server);
    let now = now() / SECOND;
    let good = signer.sign(&claims(now));
    for path in ["/", "/assets/app.js", "/api/cameras", "/api/about"] {
        assert_eq!(with(&dashboard, path, Some(&good)).status, 200, "{path}");
    }
    let changed = |name: &str, value| {
        let mut claims = claims(now);
        claims[name] = value;
        signer.sign(&claims)
    };
    let secret = EncodingKey::from_secret(signer.public());
    for (wrong, says) in [
        (None, "did not come through Identity-Aware Proxy"),
        (Some(changed("aud", json!("/projects/1/apps/other"))), "another audience"),
        (Some(changed("iss", json!("https://evil.example"))), "not issued by IAP"),
        (Some(changed("exp", json!(now - 3600))), "expired"),
        (Some(changed("iat", json!(now + 3600))), "not valid yet"),
        (Some(Signer::new("k1").sign(&claims(now))), "the signature"),
        (Some(Signer::new("k2").sign(&claims(now))), "unknown key"),
        (Some(signer.unsigned(&claims(now))), "malformed"),
        (
            Some(signer.sign_by(Algorithm::HS256, &secret, &claims(now))),
            "not signed by ES256",
        ),
    ] {
        for path in ["/", "/api/cameras", "/media/1/x.mp4", "/login"] {
            let reply = with(&dashboard, path, wrong.as_deref());
            let json = reply.json();
            assert_eq!(reply.status, 401, "{path} {says}: {json}");
            assert!(json["error"].as_str().unwrap().contains(says), "{path}: {json}");
            assert!(json["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{json}");
            // The page asks for a token only where one helps.
            assert!(!reply.headers.contains_key("www-authenticate"));
        }
    }
    assert_eq!(with(&dashboard, "/healthz", None).status, 200);
    let token = ask(&dashboard.address, "GET", "/api/cameras", &["Authorization: Bearer x"], "");
    assert_eq!(token.status, 401);
    let reads = server.requests().iter().filter(|request| request.path == KEYS).count();
    assert_eq!(
        reads, 1,
        "the keys are kept in memory, and unknown ones are not looked for each time"
    );
}

#[test]
fn keys_that_cannot_be_read_are_a_502_that_says_so() {
    let (server, signer) = (GcsServer::spawn_thread(), Signer::new("k1"));
    server.route(KEYS, Answer::status(503));
    let dashboard = dashboard(&server);
    let reply = with(&dashboard, "/api/cameras", Some(&signer.sign(&claims(now() / SECOND))));
    let json = reply.json();
    assert_eq!(reply.status, 502, "{json}");
    assert!(
        json["error"]
            .as_str()
            .unwrap()
            .contains("cannot be read: the server answered 503"),
        "{json}"
    );
    assert!(json["hint"].as_str().unwrap().contains("www.gstatic.com"), "{json}");
    assert_eq!(with(&dashboard, "/healthz", None).status, 200);
}

/// The program; it ends when this is dropped.
struct Program(std::process::Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_log_names_the_user_who_watches() {
    use std::io::BufRead as _;
    let (server, signer) = (GcsServer::spawn_thread(), Signer::new("k1"));
    let folder = tempfile::tempdir().unwrap();
    let start = now() - 60 * SECOND;
    store(&server, "cam", &cut(&encode(STREAMS[0], 8, folder.path())), start, &[]);
    let keys = folder.path().join("keys.json");
    std::fs::write(&keys, jwks(&[&signer])).unwrap();
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_gcstreamer-dashboard"))
        .args([
            "--bucket",
            BUCKET,
            "--endpoint-uri",
            &server.endpoint(),
            "--listen",
            "127.0.0.1:0",
        ])
        .args(["--log", "json", "--auth", &format!("iap:{AUDIENCE}")])
        .env("GCSTREAMER_DASHBOARD_IAP_KEYS", &keys)
        .stderr(std::process::Stdio::piped())
        .spawn()
        .map(Program)
        .unwrap();
    let lines = std::io::BufReader::new(program.0.stderr.take().unwrap()).lines();
    let mut lines = lines.map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
    let listening = lines.next().unwrap();
    let address = listening["message"].as_str().unwrap().strip_prefix("listening on ").unwrap();
    let header = format!("x-goog-iap-jwt-assertion: {}", signer.sign(&claims(now() / SECOND)));
    let path = format!(
        "/hls/index.m3u8?camera=cam&from={}&to={}",
        iso(start),
        iso(start + 60 * SECOND)
    );
    assert_eq!(ask(address, "GET", &path, &[&header], "").status, 200);
    let playing = lines.find(|line| line["message"] == "playing").unwrap();
    assert_eq!(
        (playing["who"].as_str(), playing["camera"].as_str()),
        (Some("ann@example.com"), Some("cam"))
    );
}
