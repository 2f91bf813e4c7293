//! `--delivery redirect`: what plays as it is comes from the bucket, by an address that a key of our own signs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use common::service_account::{EMAIL, ServiceAccount};
use common::{BUCKET, Dashboard, GcsServer, Reply, SECOND, STREAMS, Stream, ask, cut, encode, get, iso, now, settings, store};
use gcstreamer_storage::{Credentials, Endpoint};
use sha2::{Digest as _, Sha256};

const HOST: &str = "storage.example.test";

struct Scene {
    server: GcsServer,
    dashboard: Dashboard,
    account: ServiceAccount,
    start: u64,
    _folder: tempfile::TempDir,
}

fn scene(streams: &[Stream]) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let server = GcsServer::spawn_thread();
    let start = (now() - 60 * SECOND) / SECOND * SECOND;
    for stream in streams {
        store(&server, stream.camera, &cut(&encode(*stream, 8, folder.path())), start, &[]);
    }
    let account = ServiceAccount::generate();
    let key = folder.path().join("key.json");
    std::fs::write(&key, account.json()).unwrap();
    let endpoint = Endpoint::resolve(Some(&format!("https://{HOST}")), None).unwrap();
    let dashboard = Dashboard::start_redirecting(settings(&server), Some((endpoint, Credentials::File(key))));
    Scene {
        server,
        dashboard,
        account,
        start,
        _folder: folder,
    }
}

impl Scene {
    fn playlist(&self, camera: &str, more: &str) -> String {
        let (from, to) = (iso(self.start), iso(self.start + 60 * SECOND));
        let path = format!("/hls/index.m3u8?camera={camera}&from={from}&to={to}{more}");
        get(&self.dashboard.address, &path).text()
    }

    fn ask(&self, method: &str, path: &str) -> Reply {
        ask(&self.dashboard.address, method, path, &[], "")
    }
}

fn addresses(playlist: &str) -> Vec<&str> {
    let maps = playlist.lines().filter_map(|line| line.strip_prefix("#EXT-X-MAP:URI=\""));
    let maps = maps.map(|line| line.split('"').next().unwrap());
    maps.chain(playlist.lines().filter(|line| line.starts_with("/media/")))
        .collect()
}

/// Checks a V4 signature as Cloud Storage does, and returns the parameters of the address.
fn verified(location: &str, account: &ServiceAccount) -> BTreeMap<String, String> {
    let rest = location.strip_prefix(&format!("https://{HOST}")).expect(location);
    let (path, query) = rest.split_once('?').unwrap();
    let (query, signature) = query.split_once("&X-Goog-Signature=").unwrap();
    let request = format!("GET\n{path}\n{query}\nhost:{HOST}\n\nhost\nUNSIGNED-PAYLOAD");
    let parameters: BTreeMap<String, String> = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap())
        .map(|(name, value)| (name.to_owned(), value.replace("%2F", "/").replace("%40", "@")))
        .collect();
    let date = &parameters["X-Goog-Date"];
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let digest = hex(&Sha256::digest(request));
    let text = format!(
        "GOOG4-RSA-SHA256\n{date}\n{}/auto/storage/goog4_request\n{digest}",
        &date[..8]
    );
    let signature: Vec<u8> = (0..signature.len() / 2)
        .map(|at| u8::from_str_radix(&signature[2 * at..2 * at + 2], 16).unwrap())
        .collect();
    UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, account.public())
        .verify(text.as_bytes(), &signature)
        .expect("the signature is that of the key");
    parameters
}

#[test]
fn what_plays_as_it_is_comes_from_the_bucket_by_an_address_signed_for_ten_minutes() {
    let scene = scene(&STREAMS[1..3]);
    for (camera, extension) in [("site/ts", "ts"), ("site/fmp4", "mp4")] {
        let playlist = scene.playlist(camera, "");
        let found = addresses(&playlist);
        assert!(found.len() >= 2 && found[0].ends_with(extension), "{playlist}");
        for address in found {
            let reply = scene.ask("GET", address);
            assert_eq!(reply.status, 302, "{address}: {}", reply.text());
            let location = &reply.headers["location"];
            let parameters = verified(location, &scene.account);
            assert_eq!(parameters["X-Goog-Expires"], "600");
            assert!(parameters["X-Goog-Credential"].starts_with(EMAIL), "{parameters:?}");
            assert_eq!(parameters["generation"], address.split('/').nth(2).unwrap());
            let name = location
                .split(&format!("/{BUCKET}/"))
                .nth(1)
                .unwrap()
                .split('?')
                .next()
                .unwrap();
            assert!(scene.server.object(BUCKET, name).is_some(), "{name}");
        }
    }
}

#[test]
fn what_is_written_anew_and_what_asks_for_it_goes_through_the_dashboard() {
    let scene = scene(&STREAMS[..3]);
    for (camera, more) in [("flv", ""), ("site/ts", "&delivery=proxy"), ("site/fmp4", "&delivery=proxy")] {
        let playlist = scene.playlist(camera, more);
        for address in addresses(&playlist) {
            let reply = scene.ask("GET", address);
            assert_eq!(reply.status, 200, "{address}");
            assert!(!reply.body.is_empty());
        }
    }
    // The signature is good for GET alone, and a picture is written anew.
    let playlist = scene.playlist("site/ts", "");
    assert_eq!(scene.ask("HEAD", addresses(&playlist)[0]).status, 200);
    let preview = scene.ask("GET", &format!("/preview?camera=site/fmp4&t={}", iso(scene.start + SECOND)));
    assert_eq!(scene.ask("GET", &preview.headers["location"]).status, 200);
}

#[test]
fn only_then_may_the_page_load_from_the_storage_host() {
    let scene = scene(&[]);
    let policy = |dashboard: &Dashboard| get(&dashboard.address, "/").headers["content-security-policy"].clone();
    let part = |policy: &str, name: &str| policy.split("; ").find(|part| part.starts_with(name)).unwrap().to_owned();
    let redirecting = policy(&scene.dashboard);
    for name in ["media-src", "connect-src"] {
        assert!(
            part(&redirecting, name).ends_with(&format!(" https://{HOST}")),
            "{redirecting}"
        );
    }
    assert_eq!(redirecting.matches(HOST).count(), 2, "{redirecting}");
    let proxied = policy(&Dashboard::start(settings(&scene.server)));
    assert!(!proxied.contains("https:"), "{proxied}");
}

#[test]
fn the_program_does_not_start_where_nothing_can_sign() {
    let folder = tempfile::tempdir().unwrap();
    let user = folder.path().join("user.json");
    let text = r#"{"type":"authorized_user","client_id":"c","client_secret":"s","refresh_token":"r"}"#;
    std::fs::write(&user, text).unwrap();
    let run = |arguments: &[&str]| {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_gcstreamer-dashboard"))
            .args(["--bucket", BUCKET, "--listen", "127.0.0.1:0", "--delivery", "redirect"])
            .args(arguments)
            .env_remove("STORAGE_EMULATOR_HOST")
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (status, text) = run(&["--endpoint-uri", "http://127.0.0.1:4443"]);
    assert!(
        status == Some(2) && text.contains("use --delivery proxy"),
        "{status:?} {text}"
    );
    let (status, text) = run(&["--credentials-file", user.to_str().unwrap()]);
    assert!(
        status == Some(1) && text.contains("it cannot sign addresses") && text.contains("use --delivery proxy"),
        "{status:?} {text}"
    );
}
