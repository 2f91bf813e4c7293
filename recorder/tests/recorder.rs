//! The recorder as its users run it: the command line, reload, the spool, the broker.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "zoo/camera.rs"]
mod camera;
mod common;
#[path = "zoo/media.rs"]
mod media;
#[path = "zoo/repack.rs"]
mod repack;

use std::sync::atomic::Ordering;
use std::time::Duration;

use camera::{Act, Camera, Login, Rude, Then};
use common::gcs_server::GcsServer;
use common::{Ended, Recorder, assert_each_plays, chunks, free_port, program, sessions};

fn h264() -> Act {
    Act {
        sends: vec!["h264"],
        ..Act::default()
    }
}

fn entry(id: &str, camera: &Camera, more: &str) -> String {
    format!(
        "[[camera]]\nid = \"{id}\"\nurl = \"{}\"\nmax-size-time = \"2s\"\n{more}\n",
        camera.url()
    )
}

/// Runs the program to its end: exit status and standard error.
fn run(arguments: &[&str], environment: &[(&str, &str)]) -> (i32, String) {
    let out = program().args(arguments).envs(environment.iter().copied()).output().unwrap();
    (out.status.code().unwrap(), String::from_utf8(out.stderr).unwrap())
}

#[test]
fn check_lists_every_fault_at_its_place_and_a_bad_file_starts_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("r.toml");
    let path = file.to_str().unwrap();
    let bad = "bucket = \"my-bucket\"\nbuket = 1\n[[camera]]\nid = \"a\"\nurl = \"rtsp://u:SECRET@h/\"\nstal-timeout = \"5s\"\n";
    std::fs::write(&file, bad).unwrap();
    for command in ["check", "run"] {
        let (code, said) = run(&[command, path], &[]);
        assert_eq!(code, 2, "{said}");
        let lines: Vec<&str> = said.lines().collect();
        assert_eq!(lines.len(), 3, "{said}");
        assert!(lines[0].starts_with(&format!("{path}:2:1: unknown key buket")), "{said}");
        assert!(lines[1].starts_with(&format!("{path}:5:7: url holds")), "{said}");
        assert!(
            lines[2].contains(":6:1: ") && lines[2].ends_with("did you mean stall-timeout?"),
            "{said}"
        );
        assert!(!said.contains("SECRET"), "{said}");
    }
    std::fs::write(&file, "bucket = \"my-bucket\"\n[[camera]]\nid = \"a\"\nurl = \"rtsp://h/\"\n").unwrap();
    assert_eq!(run(&["check", path], &[]), (0, String::new()));
    let (code, said) = run(&["run"], &[("RTSP_URL", "rtsp://h/"), ("BUCKET", "my-bucket")]);
    assert_eq!((code, said.contains("DEVICE_ID is not set")), (2, true), "{said}");
    let port = free_port();
    std::fs::write(
        &file,
        format!("bucket = \"my-bucket\"\nlisten = \"127.0.0.1:{port}\"\n[[camera]]\nid = \"a\"\nurl = \"rtsp://h/\"\n"),
    )
    .unwrap();
    let (code, said) = run(&["healthcheck", path], &[]);
    assert_eq!((code, said.contains("no answer")), (1, true), "{said}");
    // An incomplete key file must not prevent an update: `run` starts without it and tries again.
    std::fs::write(folder.path().join("later.json"), "{").unwrap();
    let keyless = folder.path().join("keyless.toml");
    let text = std::fs::read_to_string(&file)
        .unwrap()
        .replacen("listen", "credentials-file = \"later.json\"\nlisten", 1);
    std::fs::write(&keyless, text).unwrap();
    let keyless = keyless.to_str().unwrap();
    assert_eq!(run(&["check", keyless], &[]).0, 2);
    assert_eq!(run(&["check", "--as-run", keyless], &[]), (0, String::new()));
    let taken = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    let (code, said) = run(&["run", path], &[]);
    assert_eq!((code, said.contains("listen")), (1, true), "{said}");
    drop(taken);
}

#[test]
fn a_camera_that_is_switched_off_raises_no_alert_any_more() {
    let server = GcsServer::spawn_thread();
    let configuration = |more: &str| format!("[[camera]]\nid = \"a\"\nurl = \"rtsp://127.0.0.1:1/\"\n{more}");
    let recorder = Recorder::start(&server, &configuration(""));
    let metrics = || recorder.get("/metrics").map_or(String::new(), |(_, body)| body);
    let tried_again = |line: &str| line.starts_with("gcstreamer_camera_reconnects_total{camera=\"a\"") && !line.ends_with(" 0");
    recorder.wait("a second attempt", || metrics().lines().any(tried_again));
    recorder.reload(&server, &configuration("enabled = false\n"));
    let status = recorder.wait_for("a", "stopped");
    assert_eq!(status["reason"], "enabled = false");
    assert!(metrics().contains("gcstreamer_camera_up{camera=\"a\"} 0"), "{}", metrics());
    // The metrics of the alerts CameraNotRecorded and CameraGaps.
    for name in ["gcstreamer_camera_reconnects_total{", "gcstreamer_camera_gap_seconds_total{"] {
        assert!(!metrics().contains(name), "{name}: {}", metrics());
    }
}

#[test]
fn the_health_of_a_recorder_is_not_that_of_the_file_that_somebody_edits() {
    let server = GcsServer::spawn_thread();
    let recorder = Recorder::start(&server, "[[camera]]\nid = \"a\"\nurl = \"rtsp://127.0.0.1:1/\"\n");
    let address = format!("127.0.0.1:{}", recorder.port);
    recorder.wait("its first answer", || {
        recorder.get("/healthz").is_some_and(|(status, _)| status == 200)
    });
    let ask = |file: Option<&str>, environment: &[(&str, &str)]| {
        let mut arguments = vec!["healthcheck"];
        arguments.extend(file);
        run(&arguments, environment)
    };
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recorder.toml");
    let listen = format!("listen = \"{address}\"\n");
    for fault in [
        "",
        "bucket = 7\n[[camera]]\nid = \"a\"\npassword-file = \"no-such-file\"\n",
        "[[[\n",
    ] {
        std::fs::write(&file, format!("{listen}{fault}")).unwrap();
        let (code, said) = ask(file.to_str(), &[]);
        assert_eq!(code, 0, "{fault}: {said}");
    }
    // `healthcheck` without the recorder's file, as in an image: `LISTEN` applies, as it does if the file has no `listen`.
    let missing = folder.path().join("missing.toml");
    let (code, said) = ask(missing.to_str(), &[("LISTEN", &address)]);
    assert_eq!(code, 0, "{said}");
    std::fs::write(&file, "bucket = \"my-bucket\"\n").unwrap();
    let (code, said) = ask(file.to_str(), &[("LISTEN", &address)]);
    assert_eq!(code, 0, "{said}");
    std::fs::write(&file, "listen = \"\"\n").unwrap();
    let (code, said) = ask(file.to_str(), &[("LISTEN", &address)]);
    assert_eq!((code, said.contains("no address to ask")), (1, true), "{said}");
    drop(recorder);
    let (code, said) = ask(missing.to_str(), &[("LISTEN", &address)]);
    assert_eq!((code, said.contains("no answer")), (1, true), "{said}");
}

#[test]
fn completions_and_manual_are_written_for_whoever_packages_it() {
    let out = |arguments: &[&str]| {
        let out = program().args(arguments).output().unwrap();
        assert!(out.status.success(), "{arguments:?}");
        String::from_utf8(out.stdout).unwrap()
    };
    for (shell, sign) in [
        ("bash", "complete -F"),
        ("zsh", "#compdef gcstreamer-recorder"),
        ("fish", "complete -c gcstreamer-recorder"),
    ] {
        let text = out(&["completions", shell]);
        assert!(text.contains(sign) && text.contains("healthcheck"), "{shell}: {text}");
    }
    let page = out(&["man"]);
    assert!(
        page.contains(".TH gcstreamer-recorder 1") && page.contains("RTSP_URL"),
        "{page}"
    );
    for command in ["run", "check", "healthcheck"] {
        assert!(
            page.contains(&format!(".SS gcstreamer\\-recorder {command}")),
            "{command}: {page}"
        );
    }
    assert!(
        page.contains("\\-\\-log") && page.contains("EXIT STATUS") && !page.contains("(1)\n"),
        "{page}"
    );
}

#[test]
fn probe_tells_what_a_camera_sends_and_what_to_change() {
    let camera = Camera::start(vec![Act {
        wants: Some(("rec", "right-SECRET")),
        login: Login::Digest,
        ntp: Some(2_208_988_800),
        ..Act {
            sends: vec!["h264", "aac"],
            ..Act::default()
        }
    }]);
    let folder = tempfile::tempdir().unwrap();
    let password = folder.path().join("pw");
    std::fs::write(&password, "right-SECRET\n").unwrap();
    let probe = |more: &[&str]| {
        let out = program().arg("probe").arg(camera.url()).args(more).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap() + &String::from_utf8(out.stderr).unwrap();
        assert!(!text.contains("SECRET"), "{text}");
        (out.status.code().unwrap(), text)
    };
    let login = [
        "--username",
        "rec",
        "--password-file",
        password.to_str().unwrap(),
        "--seconds",
        "4",
    ];
    let (code, text) = probe(&[&login[..], &["--json"]].concat());
    assert_eq!(code, 0, "{text}");
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    let number = |key: &str| found[key].as_f64().unwrap();
    assert_eq!(
        (&found["codec"], &found["audio"]),
        (&"H.264".into(), &"aac".into()),
        "{found}"
    );
    assert_eq!((&found["width"], &found["height"]), (&160.into(), &120.into()), "{found}");
    assert_eq!(found["authentication"], "digest-md5", "{found}");
    assert!(
        (number("fps") - 15.0).abs() < 3.0 && (number("key_interval_s") - 1.0).abs() < 0.1,
        "{found}"
    );
    // The camera believes that it is 1970.
    assert!(number("clock_error_s") < -1e9, "{found}");
    assert!(found["advice"].to_string().contains("NTP"), "{found}");
    let (code, text) = probe(&[]);
    assert!(
        code == 1 && text.contains("Digest (MD5)") && text.contains("- the camera refuses"),
        "{code} {text}"
    );
    let (code, text) = probe(&["--transport", "tpc"]);
    assert!(code == 2 && text.contains("did you mean \"tcp\""), "{code} {text}");
    assert_eq!(camera.seen.most_open.load(Ordering::SeqCst), 1);
}

#[test]
fn a_reload_starts_ends_and_changes_cameras_and_the_others_lose_no_picture() {
    let server = GcsServer::spawn_thread();
    let [kept, changed, removed, added] = [(); 4].map(|()| Camera::start(vec![h264()]));
    let before = [
        entry("kept", &kept, ""),
        entry("changed", &changed, ""),
        entry("removed", &removed, ""),
    ]
    .concat();
    let recorder = Recorder::start(&server, &before);
    for id in ["kept", "changed", "removed"] {
        recorder.wait_for(id, "recording");
    }
    recorder.reload(&server, "[[camera]]\nid = \"kept\"\n");
    recorder.wait("the fault", || recorder.log().contains("the new configuration is not used"));
    assert_eq!(recorder.state("removed"), "recording", "a file with a fault changes nothing");
    let after = [
        entry("kept", &kept, "name = \"Front\""),
        entry("changed", &changed, "audio = \"off\""),
        entry("added", &added, ""),
    ]
    .concat();
    recorder.reload(&server, &after);
    recorder.wait_for("added", "recording");
    recorder.wait("the change", || changed.seen.connections.load(Ordering::SeqCst) == 2);
    recorder.wait_for("changed", "recording");
    recorder.wait("the removal", || recorder.camera("removed").is_null());
    recorder.wait("the name", || recorder.camera("kept")["name"] == "Front");
    recorder.wait("the new session", || sessions(&chunks(&server, "changed")).len() == 2);
    kept.seen.stop.store(true, Ordering::SeqCst);
    std::thread::sleep(std::time::Duration::from_secs(1));
    let (ended, log) = recorder.stop();
    assert!(ended.success(), "{log}");
    let stored = chunks(&server, "kept");
    assert_eq!(sessions(&stored).len(), 1);
    assert_eq!(assert_each_plays(&stored).0, kept.seen.pictures.load(Ordering::SeqCst));
    assert_eq!(kept.seen.connections.load(Ordering::SeqCst), 1);
    let changed = chunks(&server, "changed");
    let reasons: Vec<&str> = sessions(&changed).iter().map(|chunk| chunk.get("gap-reason")).collect();
    assert_eq!(reasons, ["recorder-started", "reconfigured"]);
}

/// The default of `max-requests-per-second` follows from all cameras: 3 of 500 ms need 12 a second, fewer are given 10.
#[test]
fn a_camera_that_comes_and_goes_changes_the_request_limit_and_costs_the_others_no_picture() {
    let server = GcsServer::spawn_thread();
    let [kept, second, other] = [(); 3].map(|()| Camera::start(vec![h264()]));
    let short = |id: &str, camera: &Camera| entry(id, camera, "").replace("\"2s\"", "\"500ms\"");
    let two = [short("kept", &kept), short("second", &second)].concat();
    let three = [two.clone(), short("other", &other)].concat();
    let recorder = Recorder::start(&server, &two);
    recorder.wait_for("kept", "recording");
    recorder.reload(&server, &three);
    recorder.wait_for("other", "recording");
    // A limit that is set explicitly is applied to running sinks, too.
    recorder.reload(&server, &format!("max-requests-per-second = 0.25\n{three}"));
    // A chunk of a second has 12 kB.
    let waiting = || recorder.camera("kept")["backlog_bytes"].as_u64().unwrap_or(0);
    recorder.wait("a backlog by the lower limit", || waiting() > 80_000);
    recorder.reload(&server, &two);
    recorder.wait("the removal", || recorder.camera("other").is_null());
    recorder.wait("no backlog by the higher limit", || waiting() < 40_000);
    assert_eq!(recorder.state("kept"), "recording");
    kept.seen.stop.store(true, Ordering::SeqCst);
    std::thread::sleep(std::time::Duration::from_secs(1));
    let (ended, log) = recorder.stop();
    assert!(ended.success(), "{log}");
    let stored = chunks(&server, "kept");
    assert_eq!(sessions(&stored).len(), 1, "one connection, one session: {log}");
    assert_eq!(assert_each_plays(&stored).0, kept.seen.pictures.load(Ordering::SeqCst));
    assert_eq!(kept.seen.connections.load(Ordering::SeqCst), 1);
}

#[test]
fn a_camera_that_gets_another_id_has_one_connection_at_a_time() {
    let server = GcsServer::spawn_thread();
    let camera = Camera::start(vec![h264()]);
    let recorder = Recorder::start(&server, &entry("old", &camera, ""));
    recorder.wait_for("old", "recording");
    recorder.reload(&server, &entry("new", &camera, ""));
    recorder.wait_for("new", "recording");
    let (ended, log) = recorder.stop();
    assert!(ended.success(), "{log}");
    assert_eq!(camera.seen.most_open.load(Ordering::SeqCst), 1, "{log}");
}

#[test]
fn it_is_not_ready_before_its_camera_was_tried() {
    let server = GcsServer::spawn_thread();
    let camera = Camera::start(vec![Act {
        rude: Some(Rude::Silent),
        ..Act::default()
    }]);
    let recorder = Recorder::start(&server, &entry("cam", &camera, ""));
    let mut answers = 0;
    while camera.seen.connections.load(Ordering::SeqCst) == 0 || answers < 20 {
        if let Some((code, _)) = recorder.get("/readyz") {
            assert_eq!(code, 503, "{}", recorder.state("cam"));
            answers += 1;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_camera_that_closes_before_its_first_packet_is_tried_again_without_waiting_for_pictures() {
    let server = GcsServer::spawn_thread();
    let closes = Act {
        pictures: Some(0),
        then: Then::Close,
        ..h264()
    };
    let camera = Camera::start(vec![closes.clone(), closes, h264()]);
    let recorder = Recorder::start(&server, &entry("cam", &camera, ""));
    recorder.wait_for("cam", "recording");
    let (ended, log) = recorder.stop();
    assert!(ended.success() && !log.contains("frozen"), "{log}");
    assert!(log.contains("the camera has ended the stream"), "{log}");
}

#[test]
fn old_parameter_sets_in_the_description_keep_no_camera_from_being_recorded() {
    let server = GcsServer::spawn_thread();
    // It joins between two key frames, and its size has been changed since it wrote its description.
    let camera = Camera::start(vec![Act {
        skips: 5,
        sdp: Some(|sdp| with_sets_of(sdp, "h264-large")),
        ..h264()
    }]);
    let recorder = Recorder::start(&server, &entry("cam", &camera, ""));
    recorder.wait_for("cam", "recording");
    recorder.wait("a chunk", || !chunks(&server, "cam").is_empty());
    let (ended, log) = recorder.stop();
    assert!(ended.success(), "{log}");
    assert!(assert_each_plays(&chunks(&server, "cam")).0 > 10, "{log}");
}

/// Writes the parameter sets of a track into the description.
fn with_sets_of(sdp: &str, track: &str) -> String {
    let track = media::track(track);
    let unit = |kind: u8| {
        let units = track.packets.iter().map(|packet| &packet.data[12..]);
        let found = { units }.find(|unit| unit[0] & 0x1f == kind).unwrap();
        gst::glib::base64_encode(found)
    };
    let sets = format!("a=fmtp:96 sprop-parameter-sets={},{};", unit(7), unit(8));
    sdp.replace("a=fmtp:96 ", &sets)
}

#[test]
fn a_camera_with_parameter_sets_in_its_description_alone_is_recorded_in_place_of_one_with_old_ones() {
    let server = GcsServer::spawn_thread();
    let old_ones = Camera::start(vec![Act {
        skips: 5,
        sdp: Some(|sdp| with_sets_of(sdp, "h264-large")),
        ..h264()
    }]);
    let described = Camera::start(vec![Act {
        sdp: Some(|sdp| with_sets_of(sdp, "h264")),
        // Filler in place of the sets.
        spoil: Some(|packet, _| {
            if matches!(packet[12] & 0x1f, 7 | 8) {
                packet[12] = packet[12] & 0xe0 | 12;
            }
        }),
        ..h264()
    }]);
    let recorder = Recorder::start(&server, &entry("cam", &old_ones, ""));
    recorder.wait_for("cam", "recording");
    assert_eq!(old_ones.seen.connections.load(Ordering::SeqCst), 2, "{}", recorder.log());
    recorder.reload(&server, &entry("cam", &described, ""));
    recorder.wait("the other camera", || described.seen.pictures.load(Ordering::SeqCst) > 60);
    recorder.wait("its session", || sessions(&chunks(&server, "cam")).len() == 2);
    recorder.wait_for("cam", "recording");
}

#[test]
fn another_password_is_tried_at_once() {
    let server = GcsServer::spawn_thread();
    let camera = Camera::start(vec![Act {
        wants: Some(("rec", "right-SECRET")),
        ..h264()
    }]);
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let password = folder.path().join("pw");
    std::fs::write(&password, "wrong-SECRET\n").unwrap();
    let recorder = Recorder::start_in(
        folder,
        &server,
        &entry("cam", &camera, "username = \"rec\"\npassword-file = \"pw\""),
    );
    recorder.wait_for("cam", "refused");
    std::fs::write(&password, "right-SECRET\n").unwrap();
    recorder.wait_for("cam", "recording");
    assert_eq!(camera.seen.connections.load(Ordering::SeqCst), 2);
    let (_, log) = recorder.stop();
    assert!(!log.contains("SECRET"), "{log}");
}

/// A camera that wants `right-SECRET`, and its recorder with `given` in its password file.
fn with_password(server: &GcsServer, camera: &Camera, given: &str) -> (Recorder, std::path::PathBuf) {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let password = folder.path().join("pw");
    std::fs::write(&password, given).unwrap();
    let more = "username = \"rec\"\npassword-file = \"pw\"";
    (Recorder::start_in(folder, server, &entry("cam", camera, more)), password)
}

#[test]
fn a_reload_restarts_no_camera_whose_new_password_is_in_use_already_and_sends_none_twice() {
    let server = GcsServer::spawn_thread();
    let wants = Act {
        wants: Some(("rec", "right-SECRET")),
        ..h264()
    };
    let (camera, added) = (Camera::start(vec![wants]), Camera::start(vec![h264()]));
    let (recorder, password) = with_password(&server, &camera, "wrong-SECRET\n");
    let entry_of = |camera: &Camera| entry("cam", camera, "username = \"rec\"\npassword-file = \"pw\"");
    recorder.wait_for("cam", "refused");
    // Write the file, then reload, as users do. This password is wrong, too.
    std::fs::write(&password, "other-SECRET\n").unwrap();
    recorder.wait("the second attempt", || camera.seen.connections.load(Ordering::SeqCst) == 2);
    recorder.reload(&server, &entry_of(&camera));
    recorder.wait("the reload", || recorder.log().contains("was read again"));
    std::thread::sleep(Duration::from_secs(2));
    assert_eq!(camera.seen.logins.load(Ordering::SeqCst), 2, "{}", recorder.log());
    std::fs::write(&password, "right-SECRET\n").unwrap();
    recorder.wait_for("cam", "recording");
    assert_eq!(camera.seen.connections.load(Ordering::SeqCst), 3);
    recorder.reload(&server, &[entry_of(&camera), entry("added", &added, "")].concat());
    recorder.wait_for("added", "recording");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(camera.seen.connections.load(Ordering::SeqCst), 3, "{}", recorder.log());
    // A password other than that of the present session: the reload must try it.
    std::fs::write(&password, "rotated-SECRET\n").unwrap();
    recorder.reload(&server, &[entry_of(&camera), entry("added", &added, "")].concat());
    recorder.wait("the fourth", || camera.seen.connections.load(Ordering::SeqCst) == 4);
    let (_, log) = recorder.stop();
    assert!(!log.contains("SECRET"), "{log}");
}

#[test]
fn a_camera_that_wants_another_nonce_for_each_request_is_recorded_and_gets_a_wrong_password_once() {
    let server = GcsServer::spawn_thread();
    let camera = || {
        Camera::start(vec![Act {
            wants: Some(("rec", "right-SECRET")),
            login: Login::Nonces,
            ..h264()
        }])
    };
    let right = camera();
    let (recorder, _) = with_password(&server, &right, "right-SECRET\n");
    recorder.wait_for("cam", "recording");
    assert_eq!(right.seen.connections.load(Ordering::SeqCst), 1, "{}", recorder.log());
    drop(recorder);
    let wrong = camera();
    let (recorder, _) = with_password(&server, &wrong, "wrong-SECRET\n");
    recorder.wait_for("cam", "refused");
    let attempts = wrong.seen.connections.load(Ordering::SeqCst);
    assert!(wrong.seen.logins.load(Ordering::SeqCst) <= attempts, "{}", recorder.log());
}

#[test]
fn another_listen_counts_from_the_reload_on_and_one_that_is_taken_leaves_all_as_it_was() {
    let (server, cameras) = (
        GcsServer::spawn_thread(),
        "[[camera]]\nid = \"a\"\nurl = \"rtsp://127.0.0.1:1/\"\n",
    );
    let mut recorder = Recorder::start(&server, cameras);
    recorder.wait("the start", || recorder.get("/healthz").is_some());
    let file = recorder.folder.path().join("recorder.toml");
    let before = recorder.port;
    recorder.port = common::free_port();
    recorder.reload(&server, cameras);
    recorder.wait("the new address", || recorder.get("/healthz").is_some());
    assert!(common::get(before, "/healthz").is_none());
    let asked = common::program().arg("healthcheck").arg(&file).status().unwrap();
    assert!(asked.success());
    // All addresses with the same port: the recorder's own socket prevents binding.
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("listen = \"127.0.0.1", "listen = \"0.0.0.0")).unwrap();
    recorder.signal(rustix::process::Signal::HUP);
    let reloads = || recorder.log().matches("was read again").count();
    recorder.wait("another reload", || reloads() == 2);
    assert!(recorder.get("/healthz").is_some());
    // A port of another program.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = format!("listen = \"127.0.0.1:{}\"", taken.local_addr().unwrap().port());
    let text = text.replace(&format!("listen = \"127.0.0.1:{}\"", recorder.port), &port);
    std::fs::write(&file, text.replace("id = \"a\"", "id = \"b\"")).unwrap();
    recorder.signal(rustix::process::Signal::HUP);
    recorder.wait("told", || {
        recorder.log().contains("the new configuration is not used: listen = ")
    });
    assert!(!recorder.camera("a").is_null(), "{}", recorder.log());
    assert!(recorder.camera("b").is_null(), "{}", recorder.log());
}

#[test]
fn a_camera_that_takes_seconds_for_each_answer_is_recorded() {
    let server = GcsServer::spawn_thread();
    let camera = Camera::start(vec![Act {
        thinks: Duration::from_millis(2200),
        wants: Some(("rec", "right-SECRET")),
        login: Login::Digest,
        sends: vec!["h264", "aac"],
        ..Act::default()
    }]);
    let (recorder, _) = with_password(&server, &camera, "right-SECRET\n");
    recorder.wait_for("cam", "recording");
    assert_eq!(camera.seen.connections.load(Ordering::SeqCst), 1, "{}", recorder.log());
}

#[test]
fn an_empty_password_is_sent_as_such() {
    for login in [Login::Basic, Login::Digest] {
        let server = GcsServer::spawn_thread();
        let camera = Camera::start(vec![Act {
            wants: Some(("rec", "")),
            login,
            ..h264()
        }]);
        let (recorder, _) = with_password(&server, &camera, "\n");
        recorder.wait_for("cam", "recording");
        assert_eq!(camera.seen.connections.load(Ordering::SeqCst), 1, "{}", recorder.log());
    }
}

#[test]
fn a_camera_that_closes_right_after_its_first_pictures_has_them_stored() {
    let server = GcsServer::spawn_thread();
    let hasty = Act {
        pictures: Some(15),
        // All of them at once.
        burst: Duration::from_secs(100),
        then: Then::Close,
        ..h264()
    };
    let script: Vec<Act> = std::iter::repeat_n(hasty, 4).chain([h264()]).collect();
    let camera = Camera::start(script);
    let recorder = Recorder::start(&server, &entry("cam", &camera, ""));
    recorder.wait("the fifth", || camera.seen.connections.load(Ordering::SeqCst) == 5);
    recorder.wait_for("cam", "recording");
    recorder.wait("its pictures", || sessions(&chunks(&server, "cam")).len() == 5);
    let hasty = &chunks(&server, "cam")[..4];
    assert_eq!(assert_each_plays(hasty).0, 60, "{}", recorder.log());
}

#[test]
fn sound_that_is_announced_in_front_of_pictures_for_sending_alone_is_recorded() {
    let server = GcsServer::spawn_thread();
    let camera = Camera::start(vec![Act {
        sends: vec!["h264", "aac"],
        sdp: Some(|sdp| {
            let (head, media) = sdp.split_once("m=video").unwrap();
            let (video, audio) = media.split_once("m=audio").unwrap();
            let said = "a=sendonly\r\n";
            format!("{head}m=audio{audio}{said}m=video{video}{said}")
        }),
        ..Act::default()
    }]);
    let recorder = Recorder::start(&server, &entry("cam", &camera, ""));
    recorder.wait_for("cam", "recording");
    recorder.wait("a chunk", || !chunks(&server, "cam").is_empty());
    let (ended, log) = recorder.stop();
    assert!(ended.success(), "{log}");
    assert!(assert_each_plays(&chunks(&server, "cam")).1 > 10, "{log}");
}

/// Bytes of all files below a folder.
fn bytes_below(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.path() {
        path if path.is_dir() => bytes_below(&path),
        path => path.metadata().map_or(0, |metadata| metadata.len()),
    });
    sizes.sum()
}

#[test]
fn what_a_killed_recorder_left_in_the_spool_is_stored_though_the_camera_is_configured_no_more() {
    let server = GcsServer::spawn_thread();
    let camera = Camera::start(vec![h264()]);
    let spool = "spool-dir = \"spool\"\nmax-spool-bytes = 1000000000\n";
    let old = format!(
        "[[camera]]\nid = \"old\"\nurl = \"{}\"\nmax-size-time = \"5m\"\n",
        camera.url()
    );
    let recorder = Recorder::start(&server, &format!("{spool}{old}"));
    recorder.wait_for("old", "recording");
    let spooled = recorder.folder.path().join("spool/old");
    recorder.wait("an open chunk on disk", || bytes_below(&spooled) > 40_000);
    let folder = recorder.kill();
    assert_eq!(chunks(&server, "old").len(), 0);
    let new = format!(
        "[[camera]]\nid = \"new\"\nurl = \"rtsp://127.0.0.1:{}/\"\n",
        camera::closed_port()
    );
    let recorder = Recorder::start_in(folder, &server, &format!("{spool}{new}"));
    recorder.wait("the leftovers", || chunks(&server, "old").len() == 1);
    assert!(assert_each_plays(&chunks(&server, "old")).0 > 20);
    let (ended, log) = recorder.stop();
    assert!(ended.success(), "{log}");
}

#[test]
fn what_is_stored_of_a_camera_that_is_away_counts_for_it_and_for_no_other() {
    let server = GcsServer::spawn_thread();
    let camera = Camera::start(vec![h264()]);
    let spool = "spool-dir = \"spool\"\nmax-spool-bytes = 1000000000\n";
    let entry = |id: &str, url: &str| format!("[[camera]]\nid = \"{id}\"\nurl = \"{url}\"\nmax-size-time = \"5m\"\n");
    let recorder = Recorder::start(&server, &format!("{spool}{}", entry("away", &camera.url())));
    let spooled = recorder.folder.path().join("spool/away");
    recorder.wait("an open chunk on disk", || bytes_below(&spooled) > 40_000);
    let folder = recorder.kill();
    let gone = format!("rtsp://127.0.0.1:{}/", camera::closed_port());
    let both = format!("{spool}{}{}", entry("away", &gone), entry("other", &camera.url()));
    let recorder = Recorder::start_in(folder, &server, &both);
    recorder.wait("the leftovers", || chunks(&server, "away").len() == 1);
    recorder.wait("the camera's own figure", || {
        !recorder.camera("away")["last_stored"].is_null()
    });
    assert_eq!(recorder.state("away"), "unreachable");
    // Its chunk is open for minutes yet.
    assert!(
        recorder.camera("other")["last_stored"].is_null(),
        "{}",
        recorder.camera("other")
    );
    let (_, metrics) = recorder.get("/metrics").unwrap();
    let size = chunks(&server, "away")[0].data.len();
    let line = format!("gcstreamer_camera_stored_bytes_total{{camera=\"away\"}} {size}");
    assert!(metrics.contains(&line), "{line} in {metrics}");
}

#[test]
fn each_camera_that_is_recorded_is_connected_at_the_broker() {
    let server = GcsServer::spawn_thread();
    let camera = Camera::start(vec![h264()]);
    let (port, folder) = (free_port(), tempfile::tempdir().unwrap());
    let file = folder.path().join("mosquitto.conf");
    std::fs::write(&file, format!("listener {port} 127.0.0.1\nallow_anonymous true\n")).unwrap();
    let program = ["/usr/sbin/mosquitto", "mosquitto"]
        .into_iter()
        .find(|p| std::path::Path::new(p).exists() || !p.contains('/'));
    let mut broker = std::process::Command::new(program.unwrap());
    let broker = broker
        .arg("-c")
        .arg(&file)
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let _broker = Ended(broker.spawn().unwrap());
    let mqtt = format!("[mqtt]\nhost = \"127.0.0.1\"\nport = {port}\n");
    let recorder = Recorder::start(&server, &format!("{mqtt}{}", entry("store/cam", &camera, "")));
    recorder.wait_for("store/cam", "recording");
    recorder.wait("connected at the broker", || {
        let out = std::process::Command::new("mosquitto_sub")
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &port.to_string(),
                "-C",
                "1",
                "-W",
                "2",
                "-t",
                "gcstreamer/store/cam/state",
            ])
            .output()
            .unwrap();
        String::from_utf8_lossy(&out.stdout).trim() == "connected"
    });
    let (ended, log) = recorder.stop();
    assert!(ended.success(), "{log}");
    assert!(!chunks(&server, "store/cam").is_empty());
}

#[test]
fn a_camera_that_sends_mpeg_ts_over_srt_is_recorded() {
    let server = GcsServer::spawn_thread();
    let port = free_port();
    let line = format!(
        "-q videotestsrc is-live=true ! video/x-raw,format=I420,width=160,height=120,framerate=15/1 ! x264enc tune=zerolatency \
         speed-preset=ultrafast key-int-max=15 ! h264parse config-interval=-1 ! mpegtsmux alignment=7 ! \
         srtsink uri=srt://127.0.0.1:{port}?mode=listener wait-for-connection=false"
    );
    let mut sender = std::process::Command::new("gst-launch-1.0");
    let sender = sender
        .args(line.split_whitespace())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    let _sender = Ended(sender.spawn().unwrap());
    let camera = format!("[[camera]]\nid = \"srt\"\nurl = \"srt://127.0.0.1:{port}\"\nmax-size-time = \"2s\"\n");
    let recorder = Recorder::start(&server, &camera);
    recorder.wait_for("srt", "recording");
    recorder.wait("a chunk", || chunks(&server, "srt").len() >= 2);
    let (ended, log) = recorder.stop();
    assert!(ended.success(), "{log}");
    assert!(assert_each_plays(&chunks(&server, "srt")).0 >= 30);
}
