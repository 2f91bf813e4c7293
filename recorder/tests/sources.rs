//! The recorder on sources that are no scripted camera: RTSP over TLS and over UDP, RTMP, HLS, FLV and MPEG-TS over HTTP.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "zoo/camera.rs"]
mod camera;
mod common;
#[path = "zoo/media.rs"]
mod media;
#[path = "zoo/repack.rs"]
mod repack;
mod rtmp;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use camera::{Act, Camera};
use common::gcs_server::GcsServer;
use common::{Ended, Recorder, assert_each_plays, chunks};
use rustls::pki_types::PrivateKeyDer;

/// Pictures of a camera, a key frame each second, as `ffmpeg` makes them in real time.
const PICTURES: &str = "-nostdin -v error -re -f lavfi -i testsrc=size=160x120:rate=15";
const ENCODED: &str = "-c:v libx264 -preset ultrafast -tune zerolatency -pix_fmt yuv420p -g 15";

fn ffmpeg(out: &str, stdout: Stdio) -> Child {
    ffmpeg_of("", out, stdout)
}

/// `more`: a further input.
fn ffmpeg_of(more: &str, out: &str, stdout: Stdio) -> Child {
    let words = [PICTURES, more, ENCODED, out].into_iter().flat_map(str::split_whitespace);
    let mut command = Command::new("ffmpeg");
    command.args(words).stdin(Stdio::null()).stdout(stdout).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Records one camera until there are two chunks, which play. Returns the packets of sound in them.
fn assert_recorded(id: &str, more: &str) -> u64 {
    let server = GcsServer::spawn_thread();
    let recorder = Recorder::start(
        &server,
        &format!("[[camera]]\nid = \"{id}\"\nmax-size-time = \"2s\"\n{more}\n"),
    );
    recorder.wait_for(id, "recording");
    recorder.wait("two chunks", || chunks(&server, id).len() >= 2);
    let status = recorder.camera(id);
    assert_eq!(
        (&status["codec"], &status["width"]),
        (&"H.264".into(), &160.into()),
        "{status}"
    );
    let (ended, log) = recorder.stop();
    assert!(ended.success(), "{log}");
    let stored = chunks(&server, id);
    let (pictures, sound) = assert_each_plays(&stored);
    assert!(pictures >= 30, "{log}");
    assert_eq!(common::sessions(&stored).len(), 1, "{log}");
    sound
}

/// A server of HTTP: files of a folder, `/live.flv` and `/live.ts`.
fn http(folder: PathBuf) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let folder = folder.clone();
            std::thread::spawn(move || drop(answer(stream, &folder)));
        }
    });
    address
}

fn answer(mut stream: TcpStream, folder: &Path) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut line = String::new();
    let mut login = None;
    while reader.read_line(&mut line)? > 2 {
        let value = line
            .split_once(": ")
            .filter(|(name, _)| name.eq_ignore_ascii_case("authorization"));
        login = login.or(value.map(|(_, value)| value.trim().to_owned()));
        line.clear();
    }
    if folder.join("login").exists() && std::fs::read_to_string(folder.join("login")).ok() != login {
        return stream
            .write_all(b"HTTP/1.0 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"camera\"\r\nContent-Length: 0\r\n\r\n");
    }
    let path = request.split(' ').nth(1).unwrap_or("/").to_owned();
    if path == "/another-sound.ts" {
        return send_another_sound(stream, folder);
    }
    let kind = path.rsplit('.').next().unwrap_or_default();
    let live = match path.as_str() {
        "/live.flv" => Some("flv"),
        "/live.ts" => Some("mpegts"),
        "/mp2.ts" => Some("mpegts -c:a mp2"),
        "/mpeg4.ts" => Some("mpegts -c:v mpeg4"),
        "/behind-key.ts" => Some("mpegts -g 120 -keyint_min 120"),
        _ => None,
    };
    if let Some(format) = live {
        let sound = if format.contains("mp2") { "-f lavfi -i sine" } else { "" };
        write!(stream, "HTTP/1.0 200 OK\r\nContent-Type: video/x-{kind}\r\n\r\n")?;
        let mut child = Ended(ffmpeg_of(sound, &format!("-f {format} pipe:1"), Stdio::piped()));
        let mut pipe = child.0.stdout.take().unwrap();
        if path == "/behind-key.ts" {
            discard(&mut pipe, Duration::from_millis(1500))?;
        }
        std::io::copy(&mut pipe, &mut stream)?;
        return Ok(());
    }
    match std::fs::read(folder.join(path.trim_start_matches('/'))) {
        Ok(data) => {
            let kind = if kind == "m3u8" {
                "application/vnd.apple.mpegurl"
            } else {
                "video/mp2t"
            };
            let head = format!(
                "HTTP/1.0 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
                data.len()
            );
            stream.write_all(head.as_bytes())?;
            stream.write_all(&data)
        }
        Err(_) => stream.write_all(b"HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n"),
    }
}

/// Reads and discards data for this long.
fn discard(pipe: &mut impl Read, time: Duration) -> std::io::Result<()> {
    let until = Instant::now() + time;
    let mut packet = [0; 188];
    while Instant::now() < until {
        pipe.read_exact(&mut packet)?;
    }
    Ok(())
}

/// MPEG-TS whose sound becomes stereo after five seconds, once in this folder.
fn send_another_sound(mut stream: TcpStream, folder: &Path) -> std::io::Result<()> {
    write!(stream, "HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\n\r\n")?;
    let changed = folder.join("changed");
    let mono = "-t 5 -c:a aac -ar 44100 -ac 1 -f mpegts pipe:1";
    let stereo = "-output_ts_offset 5 -c:a aac -ar 48000 -ac 2 -f mpegts pipe:1";
    let parts: &[&str] = if changed.exists() { &[stereo] } else { &[mono, stereo] };
    std::fs::write(&changed, "")?;
    for out in parts {
        let mut child = Ended(ffmpeg_of("-f lavfi -i sine=sample_rate=44100", out, Stdio::piped()));
        std::io::copy(&mut child.0.stdout.take().unwrap(), &mut stream)?;
    }
    Ok(())
}

#[test]
fn sound_that_changes_its_form_begins_a_new_session_and_is_no_fault() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let address = http(folder.path().to_path_buf());
    let server = GcsServer::spawn_thread();
    let recorder = Recorder::start(
        &server,
        &format!("[[camera]]\nid = \"cam\"\nmax-size-time = \"2s\"\nurl = \"http://{address}/another-sound.ts\"\n"),
    );
    let reasons = || -> Vec<String> {
        let stored = chunks(&server, "cam");
        common::sessions(&stored)
            .iter()
            .map(|chunk| chunk.get("gap-reason").to_owned())
            .collect()
    };
    recorder.wait("a second session", || reasons().len() >= 2);
    let (ended, log) = recorder.stop();
    assert!(ended.success(), "{log}");
    assert_eq!(reasons(), ["recorder-started", "reconfigured"], "{log}");
    assert!(
        !log.contains("unreachable") && log.contains("the camera's sound has changed"),
        "{log}"
    );
    let stored = chunks(&server, "cam");
    assert!(assert_each_plays(&stored).1 > 0, "{log}");
}

#[test]
fn a_camera_that_is_joined_behind_its_key_frame_is_recorded_from_the_next_one_on() {
    let address = http(PathBuf::new());
    let server = GcsServer::spawn_thread();
    let recorder = Recorder::start(
        &server,
        &format!("[[camera]]\nid = \"cam\"\nstall-timeout = \"2s\"\nurl = \"http://{address}/behind-key.ts\"\n"),
    );
    recorder.wait_for("cam", "recording");
    assert_eq!(recorder.camera("cam")["reconnects"], 0);
    let (ended, log) = recorder.stop();
    assert!(ended.success(), "{log}");
    assert!(assert_each_plays(&chunks(&server, "cam")).0 > 0, "{log}");
}

#[test]
fn flv_and_mpeg_ts_over_http_are_recorded() {
    let address = http(PathBuf::new());
    assert_recorded("flv", &format!("url = \"http://{address}/live.flv\""));
    assert_recorded("ts", &format!("url = \"http://{address}/live.ts\""));
}

#[test]
fn mpeg_ts_with_mp2_sound_is_recorded_with_sound_in_each_container() {
    let address = http(PathBuf::new());
    for container in ["fmp4", "mpegts"] {
        let more = format!("url = \"http://{address}/mp2.ts\"\ncontainer = \"{container}\"");
        assert!(assert_recorded("mp2", &more) > 0, "{container}");
    }
}

#[test]
fn what_cannot_be_recorded_outside_rtsp_is_named_too() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let page = "<html><body>log in</body></html>".repeat(30);
    let json = "{\"error\": \"unauthorized\"}\n".repeat(30);
    let noise: String = (0..3000u32)
        .map(|i| char::from(u8::try_from(i * 7919 % 127).unwrap()))
        .collect();
    for (name, text) in [("page", page), ("json", json), ("empty", String::new()), ("noise", noise)] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let address = http(folder.path().to_path_buf());
    for (path, more, words) in [
        ("page", "", ["sends text/html", "url"]),
        ("json", "", ["sends text/plain", "url"]),
        ("empty", "", ["sends no stream", "url"]),
        ("noise", "", ["sends no stream", "url"]),
        ("mpeg4.ts", "", ["sends video/mpeg", "H.264"]),
        ("live.ts", "audio = \"require\"", ["no sound", "audio = \"require\""]),
    ] {
        let server = GcsServer::spawn_thread();
        let recorder = Recorder::start(
            &server,
            &format!("[[camera]]\nid = \"cam\"\nurl = \"http://{address}/{path}\"\n{more}\n"),
        );
        let status = recorder.wait_for("cam", "unsupported");
        let reason = status["reason"].as_str().unwrap();
        assert!(words.iter().all(|word| reason.contains(word)), "{path}: {reason}");
    }
}

#[test]
fn a_camera_that_cannot_be_reached_outside_rtsp_says_why_and_leaves_nothing_behind() {
    let (tls, ..) = tls_in_front_of(&Camera::start(vec![h264()]));
    let plain = http(PathBuf::new());
    let closed = camera::closed_port();
    let cameras = [
        ("refused", format!("http://127.0.0.1:{closed}/live.ts"), "refuses connections"),
        ("hls", format!("http://127.0.0.1:{closed}/live.m3u8"), "refuses connections"),
        ("name", "http://no-such-host.invalid/live.ts".to_owned(), "cannot be resolved"),
        ("certificate", format!("https://localhost:{tls}/live.ts"), "with ca-file"),
        ("no-tls", format!("https://{plain}/live.ts"), "speaks TLS"),
        ("rtmp", format!("rtmp://127.0.0.1:{closed}/live/cam"), "refuses connections"),
        ("srt", "srt://no-such-host.invalid:9000".to_owned(), "cannot be resolved"),
    ];
    let configuration: String = cameras
        .iter()
        .map(|(id, url, _)| format!("[[camera]]\nid = \"{id}\"\nurl = \"{url}\"\n"))
        .collect();
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    // Those of GStreamer itself are no fault of ours: urisourcebin may remove a pad of its own twice, in a thread of its own and in that of
    // its state change.
    let variables = [("G_DEBUG", "")];
    let recorder = Recorder::start_with(folder, &GcsServer::spawn_thread(), &configuration, &variables);
    for (id, _, words) in &cameras {
        let status = recorder.wait_for(id, "unreachable");
        let reason = status["reason"].as_str().unwrap();
        assert!(reason.contains(words) && !reason.contains("RTSP"), "{id}: {reason}");
        // Elements that are left in READY are reported when they are freed.
        recorder.wait("further attempts", || recorder.camera(id)["reconnects"].as_u64() > Some(3));
        assert_eq!(recorder.camera(id)["reason"], reason, "{id}");
    }
    let (ended, log) = recorder.stop();
    let is_ours = |line: &str| line.contains("CRITICAL") && !line.contains("does not belong to element uri when removing");
    assert!(ended.success() && !log.lines().any(is_ours), "{log}");
}

#[test]
fn hls_is_recorded() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let playlist = folder.path().join("live.m3u8");
    let out = format!(
        "-f hls -hls_time 1 -hls_list_size 6 -hls_flags delete_segments {}",
        playlist.display()
    );
    let _sender = Ended(ffmpeg(&out, Stdio::null()));
    while std::fs::read_to_string(&playlist).map_or(0, |text| text.matches("#EXTINF").count()) < 4 {
        std::thread::sleep(Duration::from_millis(100));
    }
    let address = http(folder.path().to_path_buf());
    let url = format!("url = \"http://{address}/live.m3u8\"");
    assert_recorded("hls", &url);
    // With a password that every segment requires; user `a`, password `b:p@s#` (RFC 7617).
    std::fs::write(folder.path().join("password"), "b:p@s#\n").unwrap();
    std::fs::write(folder.path().join("login"), "Basic YTpiOnBAcyM=").unwrap();
    let password = folder.path().join("password");
    assert_recorded(
        "hls-password",
        &format!("{url}\nusername = \"a\"\npassword-file = \"{}\"", password.display()),
    );
}

/// The output of a program, which ends with it.
struct Output(Ended);

impl std::io::Read for Output {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.0.0.stdout.as_mut().unwrap().read(into)
    }
}

#[test]
fn rtmp_is_recorded_with_its_sound_and_without() {
    for (id, sound) in [
        ("with-sound", "-f lavfi -i sine=sample_rate=16000 -c:a aac -shortest"),
        ("silent", ""),
    ] {
        // The sound is a second input: its arguments must come before those of the output.
        let (input, of_output) = sound
            .split_once(" -c:a")
            .map_or((sound, String::new()), |(input, more)| (input, format!("-c:a{more}")));
        let (input, of_output) = (input.to_owned(), of_output);
        let port = rtmp::serve(move || {
            Output(Ended(ffmpeg_of(
                &input,
                &format!("{of_output} -f flv pipe:1"),
                Stdio::piped(),
            )))
        });
        assert_recorded(id, &format!("url = \"rtmp://127.0.0.1:{port}/live/cam\""));
    }
}

/// A camera of gst-rtsp-server, which needs the system's Python.
fn rtsp_server() -> (Ended, u16) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/lib/camera.py");
    let mut command = Command::new("/usr/bin/python3");
    command.arg(script).args([
        "--port",
        "0",
        "--path",
        "/cam",
        "--width",
        "160",
        "--height",
        "120",
        "--fps",
        "15",
        "--key-interval",
        "15",
    ]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let port = line.trim().strip_prefix("READY ").unwrap().parse().unwrap();
    (Ended(child), port)
}

#[test]
fn rtp_over_udp_is_recorded_where_it_is_asked_for() {
    let (_camera, port) = rtsp_server();
    for transport in ["udp", "auto"] {
        assert_recorded(
            transport,
            &format!("transport = \"{transport}\"\nurl = \"rtsp://127.0.0.1:{port}/cam\""),
        );
    }
}

/// Speaks TLS in front of a camera. Its certificate in PEM, and the SHA-256 of it.
fn tls_in_front_of(camera: &Camera) -> (u16, String, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (certificate, pem) = (made.cert.der().clone(), made.cert.pem());
    let sum = gst::glib::compute_checksum_for_data(gst::glib::ChecksumType::Sha256, &certificate).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![certificate],
            PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into()),
        )
        .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, camera) = (listener.local_addr().unwrap().port(), camera.address);
    listener.set_nonblocking(true).unwrap();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut inside = acceptor.accept(stream).await?;
                    let mut plain = tokio::net::TcpStream::connect(camera).await?;
                    tokio::io::copy_bidirectional(&mut inside, &mut plain).await
                });
            }
        });
    });
    (port, pem, sum.to_string())
}

fn h264() -> Act {
    Act {
        sends: vec!["h264"],
        ..Act::default()
    }
}

#[test]
fn a_camera_with_tls_is_recorded_if_its_certificate_is_the_one_that_is_named_or_signed_by_the_authority() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let camera = Camera::start(vec![h264()]);
    let (port, pem, sum) = tls_in_front_of(&camera);
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, &pem).unwrap();
    assert_recorded(
        "by-authority",
        &format!("url = \"rtsps://localhost:{port}/stream\"\nca-file = \"{}\"", file.display()),
    );
    // Cameras make certificates for no name or a wrong one.
    assert_recorded(
        "by-fingerprint",
        &format!("url = \"rtsps://127.0.0.1:{port}/stream\"\ntls-fingerprint = \"{sum}\""),
    );
}

#[test]
fn the_example_of_eight_cameras_records_each_in_its_way() {
    let there = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for file in ["cameras.pw", "safe.pw"] {
        std::fs::write(there.path().join(file), "hunter2\n").unwrap();
    }
    let guarded = || {
        Camera::start(vec![Act {
            wants: Some(("rec", "hunter2")),
            ..h264()
        }])
    };
    let cameras = [(); 5].map(|()| guarded());
    let (udp, http) = (rtsp_server(), http(PathBuf::new()));
    let (tls, _, sum) = tls_in_front_of(&cameras[4]);
    let text = include_str!("../../examples/recorder/eight-cameras.toml");
    let fingerprint = text.split('"').find(|word| word.matches(':').count() == 31).unwrap();
    let spool = there.path().join("spool");
    let mut adapted = text.to_owned();
    for (from, to) in [
        ("bucket = \"my-bucket\"\n", String::new()),
        ("/var/lib/gcstreamer", spool.display().to_string()),
        ("max-spool-bytes = 200000000000", "max-spool-bytes = 1000000000".to_owned()),
        ("rtsp://10.0.3.11/Streaming/Channels/101", cameras[0].url()),
        ("rtsp://10.0.3.12/Streaming/Channels/101", cameras[1].url()),
        ("rtsp://10.0.3.13/Streaming/Channels/101", cameras[2].url()),
        ("rtsp://10.0.3.14/stream1", format!("rtsp://127.0.0.1:{}/cam", udp.1)),
        ("rtsp://10.0.3.15/stream1", cameras[3].url()),
        ("rtsps://10.0.3.16:322/stream1", format!("rtsps://127.0.0.1:{tls}/stream1")),
        (fingerprint, sum),
        (
            "http://10.0.3.17/flv?port=1935&app=bcs&stream=channel0_main.bcs",
            format!("http://{http}/live.flv"),
        ),
    ] {
        assert_eq!(adapted.matches(from).count(), 1, "{from}");
        adapted = adapted.replace(from, &to);
    }
    let server = GcsServer::spawn_thread();
    let recorder = Recorder::start_in(there, &server, &adapted);
    let recorded = ["entrance", "till-1", "till-2", "yard", "office", "safe", "lift"].map(|name| format!("store42/{name}"));
    for id in &recorded {
        recorder.wait_for(id, "recording");
    }
    let roof = recorder.camera("store42/roof");
    assert_eq!(
        (&roof["state"], &roof["reason"]),
        (&"stopped".into(), &"enabled = false".into())
    );
    let (ended, log) = recorder.stop();
    assert!(ended.success(), "{log}");
    for id in &recorded {
        assert!(assert_each_plays(&chunks(&server, id)).0 > 0, "{id}\n{log}");
    }
    assert!(!log.contains("hunter2"), "{log}");
}

#[test]
fn a_camera_with_another_certificate_gets_no_password_and_the_reason_names_the_keys() {
    let camera = Camera::start(vec![h264()]);
    let (port, _, sum) = tls_in_front_of(&camera);
    let server = GcsServer::spawn_thread();
    let wrong = if sum.starts_with('0') {
        sum.replacen('0', "1", 1)
    } else {
        format!("0{}", &sum[1..])
    };
    let configuration = format!(
        "[[camera]]\nid = \"wrong\"\nurl = \"rtsps://localhost:{port}/stream\"\ntls-fingerprint = \"{wrong}\"\n\
         [[camera]]\nid = \"unknown\"\nurl = \"rtsps://localhost:{port}/stream\"\n"
    );
    let recorder = Recorder::start(&server, &configuration);
    for id in ["wrong", "unknown"] {
        let status = recorder.wait_for(id, "unreachable");
        let reason = status["reason"].as_str().unwrap();
        assert!(reason.contains("tls-fingerprint") && reason.contains("ca-file"), "{reason}");
    }
    assert_eq!(camera.seen.connections.load(std::sync::atomic::Ordering::SeqCst), 0);
    let (ended, log) = recorder.stop();
    assert!(ended.success(), "{log}");
}

/// The method of each request, and whether it contained credentials.
type Asked = std::sync::Mutex<Vec<(String, bool)>>;

/// Starts a camera that answers each DESCRIBE with these lines, on its own loopback host. Returns its port and the requests that
/// it receives.
fn answering(host: &'static str, answer: impl Fn(u16) -> String + Send + 'static) -> (u16, Arc<Asked>) {
    let listener = TcpListener::bind((host, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(Asked::default());
    let noted = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            while let Some(request) = lines.next() {
                let headers: Vec<String> = lines.by_ref().take_while(|line| !line.is_empty()).collect();
                let value = |name: &str| headers.iter().find_map(|line| line.strip_prefix(name));
                let method = request.split(' ').next().unwrap_or_default().to_owned();
                let status = if method == "DESCRIBE" {
                    answer(port)
                } else {
                    "200 OK\r\nPublic: DESCRIBE, SETUP, PLAY".to_owned()
                };
                noted.lock().unwrap().push((method, value("Authorization: ").is_some()));
                let sequence = value("CSeq: ").unwrap_or_default();
                if write!(stream, "RTSP/1.0 {status}\r\nCSeq: {sequence}\r\n\r\n").is_err() {
                    break;
                }
            }
        }
    });
    (port, asked)
}

/// A camera that sends each request for HTTP to this address. Its port, and what it is asked.
fn redirecting(host: &'static str, answer: impl Fn() -> String + Send + 'static) -> (u16, Arc<Asked>) {
    let listener = TcpListener::bind((host, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(Asked::default());
    let noted = Arc::clone(&asked);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
            let lines: Vec<String> = lines.take_while(|line| !line.is_empty()).collect();
            let has_login = lines
                .iter()
                .any(|line| line.to_ascii_lowercase().starts_with("authorization:"));
            noted
                .lock()
                .unwrap()
                .push((lines.first().cloned().unwrap_or_default(), has_login));
            let _ = write!(stream, "HTTP/1.0 {}\r\nContent-Length: 0\r\n\r\n", answer());
        }
    });
    (port, asked)
}

#[test]
fn a_login_goes_to_no_host_that_an_http_camera_redirects_to() {
    let (foreign, at_foreign) = redirecting("127.0.0.2", || {
        "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"cam\"".to_owned()
    });
    let (astray, at_astray) = redirecting("127.0.0.1", move || {
        format!("302 Found\r\nLocation: http://127.0.0.2:{foreign}/x")
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cam.pw");
    std::fs::write(&file, "hunter2-SECRET\n").unwrap();
    let paths = [("stream", "live.ts"), ("playlist", "live.m3u8")];
    let cameras: String = paths
        .iter()
        .map(|(id, path)| {
            let (url, file) = (format!("http://127.0.0.1:{astray}/{path}"), file.display());
            format!("[[camera]]\nid = \"{id}\"\nurl = \"{url}\"\nusername = \"rec\"\npassword-file = \"{file}\"\n")
        })
        .collect();
    let recorder = Recorder::start_in(folder, &GcsServer::spawn_thread(), &cameras);
    for (id, _) in paths {
        let status = recorder.wait_for(id, "unreachable");
        assert!(
            status["reason"]
                .as_str()
                .unwrap()
                .contains("redirects to another address (302)"),
            "{status}"
        );
    }
    recorder.stop();
    let logins = |asked: &Asked| asked.lock().unwrap().iter().filter(|(_, login)| *login).count();
    assert!(!at_astray.lock().unwrap().is_empty());
    assert_eq!(logins(&at_foreign), 0, "{at_foreign:?}");
}

#[test]
fn a_login_goes_to_a_camera_once_to_no_other_host_and_in_no_circle() {
    const REFUSES: &str = "401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"cam\"";
    let (wrong, at_wrong) = answering("127.0.0.1", |_| REFUSES.to_owned());
    let (foreign, at_foreign) = answering("127.0.0.2", |_| REFUSES.to_owned());
    let (astray, at_astray) = answering("127.0.0.1", move |_| {
        format!("302 Found\r\nLocation: rtsp://127.0.0.2:{foreign}/x")
    });
    let (circle, at_circle) = answering("127.0.0.1", |port| {
        format!("302 Found\r\nLocation: rtsp://127.0.0.1:{port}/x")
    });
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("cam.pw");
    std::fs::write(&file, "hunter2-SECRET\n").unwrap();
    let login = format!("username = \"rec\"\npassword-file = \"{}\"\n", file.display());
    let cameras: String = [("wrong", wrong), ("astray", astray), ("circle", circle)]
        .iter()
        .map(|(id, port)| format!("[[camera]]\nid = \"{id}\"\nurl = \"rtsp://127.0.0.1:{port}/x\"\n{login}"))
        .collect();
    let recorder = Recorder::start_in(folder, &GcsServer::spawn_thread(), &cameras);
    recorder.wait_for("wrong", "refused");
    for (id, words) in [("astray", "another host"), ("circle", "again and again")] {
        let status = recorder.wait_for(id, "unreachable");
        assert!(status["reason"].as_str().unwrap().contains(words), "{status}");
    }
    recorder.stop();
    let logins = |asked: &Asked| asked.lock().unwrap().iter().filter(|(_, login)| *login).count();
    assert_eq!(logins(&at_wrong), 1, "{at_wrong:?}");
    assert_eq!((logins(&at_astray), logins(&at_foreign)), (0, 0), "{at_foreign:?}");
    // A few attempts at most.
    assert!(at_circle.lock().unwrap().len() < 100, "{}", at_circle.lock().unwrap().len());
}
