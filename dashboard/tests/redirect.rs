//! `--delivery redirect`: what plays as it is comes from the bucket, by an address that a key of our own signs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;

use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};
use common::service_account::{EMAIL, ServiceAccount};
use common::{BUCKET, Dashboard, GcsServer, Reply, SECOND, STREAMS, Stream, ask, cut, encode, get, iso, now, settings, store};
use gcstreamer_storage::{Credentials, Endpoint};
use sha2::{Digest as _, Sha256};

use common::gcs_server;

#[path = "../../tests/common/proxy.rs"]
mod proxy;
#[path = "../../tests/common/tls.rs"]
mod tls;

const HOST: &str = "storage.example.test";

struct Scene {
    server: GcsServer,
    dashboard: Dashboard,
    account: ServiceAccount,
    start: u64,
    _folder: tempfile::TempDir,
}

fn scene(streams: &[Stream]) -> Scene {
    scene_at(HOST, streams)
}

fn scene_at(host: &str, streams: &[Stream]) -> Scene {
    let folder = tempfile::tempdir().unwrap();
    let server = GcsServer::spawn_thread();
    let start = (now() - 60 * SECOND) / SECOND * SECOND;
    for stream in streams {
        store(&server, stream.camera, &cut(&encode(*stream, 8, folder.path())), start, &[]);
    }
    let account = ServiceAccount::generate();
    let key = folder.path().join("key.json");
    std::fs::write(&key, account.json()).unwrap();
    let endpoint = Endpoint::resolve(Some(&format!("https://{host}")), None).unwrap();
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
    verified_at(HOST, location, account)
}

fn verified_at(host: &str, location: &str, account: &ServiceAccount) -> BTreeMap<String, String> {
    let rest = location.strip_prefix(&format!("https://{host}")).expect(location);
    let (path, query) = rest.split_once('?').unwrap();
    let (query, signature) = query.split_once("&X-Goog-Signature=").unwrap();
    let request = format!("GET\n{path}\n{query}\nhost:{host}\n\nhost\nUNSIGNED-PAYLOAD");
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
fn an_endpoint_on_a_port_is_signed_with_it_as_clients_send_it() {
    let host = "storage.example.test:8443";
    let scene = scene_at(host, &STREAMS[1..2]);
    // The name is foreign text.
    let camera = "a b/#?%<ü>";
    let (key, object) = scene.server.objects().into_iter().next().unwrap();
    let mut metadata: BTreeMap<String, String> = serde_json::from_value(object.meta["metadata"].clone()).unwrap();
    metadata.insert("device-id".into(), camera.into());
    let name = key.1.replacen("site/ts", camera, 1);
    scene.server.put_with(BUCKET, &name, &object.data, &metadata);
    for camera in ["site/ts", "a%20b/%23%3F%25%3C%C3%BC%3E"] {
        let playlist = scene.playlist(camera, "");
        let reply = scene.ask("GET", addresses(&playlist)[0]);
        assert_eq!(reply.status, 302, "{camera}: {}", reply.text());
        let location = &reply.headers["location"];
        verified_at(host, location, &scene.account);
        assert!(
            location.starts_with(&format!("https://{host}/{BUCKET}/{camera}/")),
            "{location}"
        );
    }
}

#[test]
fn what_is_written_again_and_what_asks_for_it_goes_through_the_dashboard() {
    let scene = scene(&STREAMS[..3]);
    for (camera, more) in [("flv", ""), ("site/ts", "&delivery=proxy"), ("site/fmp4", "&delivery=proxy")] {
        let playlist = scene.playlist(camera, more);
        for address in addresses(&playlist) {
            let reply = scene.ask("GET", address);
            assert_eq!(reply.status, 200, "{address}");
            assert!(!reply.body.is_empty());
        }
    }
    // The signature is good for GET alone, and a picture is remuxed.
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

/// The program, until this is dropped.
struct Program(std::process::Child, String);

impl Program {
    fn start(command: &mut std::process::Command) -> Self {
        use std::io::BufRead as _;
        let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
        let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
        let mut said = Vec::new();
        let found = lines.by_ref().map_while(Result::ok).find(|line| {
            said.push(line.clone());
            line.contains("listening on")
        });
        let line = found.unwrap_or_else(|| panic!("{said:?}"));
        std::thread::spawn(move || lines.for_each(drop));
        Self(child, line[line.find("http://").unwrap()..].trim().to_owned())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn without_a_key_the_iam_api_signs_and_where_it_refuses_the_dashboard_sends_the_bytes() {
    let folder = tempfile::tempdir().unwrap();
    // All of Google is one server, reached through a proxy, with certificates of an authority of our own.
    let authority = tls::Authority::new();
    let names = [
        "oauth2.googleapis.com",
        "iamcredentials.googleapis.com",
        "storage.googleapis.com",
    ];
    let google = authority.server_named(&names);
    let proxy = proxy::Proxy::start_at(0, Some(google.address()));
    let start = (now() - 60 * SECOND) / SECOND * SECOND;
    store(&google, "site/ts", &cut(&encode(STREAMS[1], 8, folder.path())), start, &[]);
    let account = format!("/v1/projects/-/serviceAccounts/{EMAIL}");
    google.route("/token", tls::token("token-of-the-user"));
    let token = serde_json::json!({"accessToken": "token-of-the-account", "expireTime": iso(now() + 3600 * SECOND)});
    let json = |value: serde_json::Value| common::gcs_server::Answer::raw(200, "application/json", &value.to_string());
    google.route(&format!("{account}:generateAccessToken"), json(token));
    let sign = format!("{account}:signBlob");
    let signed = gcs_server::base64(b"a signature");
    google.route(&sign, json(serde_json::json!({"keyId": "1", "signedBlob": signed})));
    let credentials = folder.path().join("impersonated.json");
    let text = serde_json::json!({
        "type": "impersonated_service_account",
        "service_account_impersonation_url": format!("https://iamcredentials.googleapis.com{account}:generateAccessToken"),
        "source_credentials": {"type": "authorized_user", "client_id": "c", "client_secret": "s", "refresh_token": "r"},
    });
    std::fs::write(&credentials, text.to_string()).unwrap();
    let pem = folder.path().join("authority.pem");
    std::fs::write(&pem, authority.pem()).unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_gcstreamer-dashboard"));
    command
        .args([
            "--bucket",
            BUCKET,
            "--listen",
            "127.0.0.1:0",
            "--delivery",
            "redirect",
            "--credentials-file",
        ])
        .arg(&credentials)
        .env_remove("STORAGE_EMULATOR_HOST")
        .env("HTTPS_PROXY", proxy.url())
        .env("SSL_CERT_FILE", &pem);
    let program = Program::start(&mut command);
    let query = format!("camera=site/ts&from={}&to={}", iso(start), iso(start + 60 * SECOND));
    let playlist = get(&program.1, &format!("/hls/index.m3u8?{query}"));
    assert_eq!(playlist.status, 200, "{}", playlist.text());
    let playlist = playlist.text();
    let address = addresses(&playlist)[0];
    let reply = get(&program.1, address);
    assert_eq!(reply.status, 302, "{}", reply.text());
    let location = &reply.headers["location"];
    let hex: String = b"a signature".iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(location.starts_with("https://storage.googleapis.com/"), "{location}");
    assert!(location.ends_with(&format!("&X-Goog-Signature={hex}")), "{location}");
    assert!(
        location.contains(&format!("X-Goog-Credential={}%2F", EMAIL.replace('@', "%40"))),
        "{location}"
    );
    let asked: Vec<_> = google.requests().into_iter().filter(|request| request.path == sign).collect();
    assert_eq!(asked.len(), 1, "one request an address");
    assert!(
        asked[0]
            .header("authorization")
            .is_some_and(|value| value.starts_with("Bearer token-of-")),
        "{asked:?}"
    );
    assert!(
        proxy
            .targets()
            .iter()
            .any(|target| target == "iamcredentials.googleapis.com:443"),
        "{:?}",
        proxy.targets()
    );
    // The right to sign is taken away: it plays all the same.
    let refused = common::gcs_server::Answer::status(403);
    google.route(&sign, refused.clone());
    google.route(&sign, refused);
    let _ = get(&program.1, address);
    let through = get(&program.1, address);
    assert_eq!((through.status, through.body.is_empty()), (200, false));
}
