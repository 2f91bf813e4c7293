//! Tests that a file is read completely, and that every kind of fault is reported with its place.

use super::*;

const GOOD: &str = r#"
bucket = "my-bucket"
spool-dir = "/var/lib/gcstreamer"
max-memory-bytes = 1_000_000_000
listen = "127.0.0.1:9641"

[mqtt]
host = "mqtt.example"
tls = true

[defaults]
stall-timeout = "5s"
audio = "off"
username = "rec"
password-file = "all.pw"

[[camera]]
id = "store42/cam3"
name = "Back door"
url = "rtsp://10.0.3.3/stream"
password-file = "cam3.pw"
metadata = { site = "north" }

[[camera]]
id = "cam4"
url = "rtsps://10.0.3.4/stream"
transport = "auto"
container = "matroska"
audio = "require"
max-size-time = "1m"
time-zone = "Europe/Berlin"
enabled = false
"#;

fn read(text: &str) -> Result<Config, Vec<String>> {
    let surroundings = Surroundings {
        folder: PathBuf::from("/etc"),
        ..Surroundings::default()
    };
    parse(text, &surroundings).map_err(|faults| faults.iter().map(ToString::to_string).collect())
}

#[test]
fn a_whole_file_is_read_and_defaults_apply_to_what_a_camera_leaves_out() {
    let config = read(GOOD).unwrap();
    assert_eq!(config.bucket, "my-bucket");
    assert_eq!(config.max_memory_bytes, Some(1_000_000_000));
    assert_eq!(config.listen, Some("127.0.0.1:9641".parse().unwrap()));
    let Some(Broker::Mqtt(mqtt)) = &config.broker else {
        panic!("{config:?}")
    };
    assert_eq!((mqtt.host.as_str(), mqtt.tls, mqtt.port), ("mqtt.example", true, 0));
    let [back, other] = &config.cameras[..] else { panic!() };
    assert_eq!((back.id.as_str(), back.name.as_deref()), ("store42/cam3", Some("Back door")));
    assert_eq!((back.stall_timeout.as_secs(), back.audio), (5, Audio::Off));
    assert_eq!(back.password.as_ref().unwrap().path(), Path::new("/etc/cam3.pw"));
    assert_eq!(back.metadata["site"], "north");
    assert_eq!((back.transport, back.container), (Transport::Tcp, Container::Fmp4));
    assert_eq!(other.password.as_ref().unwrap().path(), Path::new("/etc/all.pw"));
    assert_eq!((other.transport, other.container), (Transport::Auto, Container::Matroska));
    assert_eq!((other.audio, other.enabled), (Audio::Require, false));
    assert_eq!(
        (other.max_size_time.as_secs(), other.time_zone.as_str()),
        (60, "Europe/Berlin")
    );
}

#[test]
fn what_is_left_out_has_the_documented_default() {
    let config = read("bucket = \"my-bucket\"\n[[camera]]\nid = \"a\"\nurl = \"rtsp://h/\"\n").unwrap();
    assert_eq!(config.listen, Some("127.0.0.1:9640".parse().unwrap()));
    assert_eq!((config.max_bytes_per_second, config.max_spool_bytes), (0, 0));
    assert_eq!((config.spool_dir, config.broker, config.shard), (None, None, None));
    let camera = &config.cameras[0];
    assert_eq!((camera.stall_timeout.as_secs(), camera.max_size_time.as_secs()), (10, 10));
    assert_eq!((camera.time_zone.as_str(), camera.enabled), ("UTC", true));
    assert_eq!(
        read("bucket = \"my-bucket\"\nlisten = \"\"\n[[camera]]\nid = \"a\"\nurl = \"rtsp://h/\"")
            .unwrap()
            .listen,
        None
    );
}

#[test]
fn the_request_limit_follows_from_the_cameras_unless_it_is_set() {
    let cameras = |n: usize| {
        (0..n)
            .map(|i| format!("[[camera]]\nid = \"c{i}\"\nurl = \"rtsp://h/\"\n"))
            .collect::<String>()
    };
    let few = read(&format!("bucket = \"my-bucket\"\n{}", cameras(3))).unwrap();
    assert!((few.requests_per_second("nvr") - 10.0).abs() < 1e-9);
    let many = read(&format!("bucket = \"my-bucket\"\n{}", cameras(300))).unwrap();
    assert!((many.requests_per_second("nvr") - 60.0).abs() < 1e-6);
    let set = read(&format!(
        "bucket = \"my-bucket\"\nmax-requests-per-second = 2.5\n{}",
        cameras(300)
    ))
    .unwrap();
    assert!((set.requests_per_second("nvr") - 2.5).abs() < 1e-9);
    // Six processes that share the cameras of a file have the same request limit together as one process.
    let shared = read(&format!("bucket = \"my-bucket\"\n[shard]\npods = 6\n{}", cameras(1200))).unwrap();
    let limits: Vec<f64> = (0..6).map(|pod| shared.requests_per_second(&format!("nvr-{pod}"))).collect();
    assert!((limits.iter().sum::<f64>() - 240.0).abs() < 1e-6, "{limits:?}");
    assert!(limits.iter().all(|limit| (30.0..50.0).contains(limit)), "{limits:?}");
}

#[test]
fn a_memory_limit_that_fits_the_cameras_of_one_process_is_accepted_whatever_else_is_in_the_file() {
    let cameras = |n: usize, more: &str| -> String {
        (0..n)
            .map(|i| format!("[[camera]]\nid = \"shop/{i}\"\nurl = \"rtsp://h/{i}\"\n{more}"))
            .collect()
    };
    let head = |memory: &str| format!("bucket = \"my-bucket\"\nmax-memory-bytes = {memory}\n");
    let shared = |memory: &str| read(&format!("{}[shard]\npods = 6\n{}", head(memory), cameras(1200, "")));
    assert!(shared("1_000_000_000").is_ok());
    assert!(
        shared("209_715_200").is_ok() && shared("209_715_199").is_err(),
        "1 MiB for each of 200"
    );
    let others = cameras(1000, "enabled = false\n");
    let enabled = "[[camera]]\nid = \"till\"\nurl = \"rtsp://h/till\"\n";
    assert!(read(&format!("{}{others}{enabled}", head("64_000_000"))).is_ok());
    assert!(read(&format!("{}{}", head("64_000_000"), cameras(1000, ""))).is_err());
}

/// Parses a file made of top-level lines, further lines of a camera and further tables. Returns its faults: place and text.
const BAD: &[(&str, &str, &str, &str)] = &[
    // (top lines, lines of the camera, further tables, expected)
    ("", "url = \"rtsp://h/\"", "", "1:1: bucket is missing"),
    (
        "bucket = \"my-bucket\"\nbuket = 1",
        "url = \"rtsp://h/\"",
        "",
        "2:1: unknown key buket in this file; did you mean bucket?",
    ),
    ("bucket = \"UPPER\"", "url = \"rtsp://h/\"", "", "1:10: "),
    (
        "bucket = 7",
        "url = \"rtsp://h/\"",
        "",
        "1:10: bucket must be a text in quotes, not a whole number",
    ),
    ("bucket = \"\"", "url = \"rtsp://h/\"", "", "1:10: bucket is empty"),
    ("bucket = my-bucket", "url = \"rtsp://h/\"", "", "1:10: "),
    (
        "bucket = \"my-bucket\"\nbucket = \"b\"",
        "url = \"rtsp://h/\"",
        "",
        "2:1: duplicate key",
    ),
    ("bucket = \"my-bucket\"", "", "", "2:1: this camera has no url"),
    ("bucket = \"my-bucket\"", "url = \"10.0.0.1\"", "", "4:7: url "),
    (
        "bucket = \"my-bucket\"",
        "url = \"ftp://h/\"",
        "",
        "4:7: url must begin with rtsp",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://u:SECRET@h/\"",
        "",
        "4:7: url holds a user name or password",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://admin:12345#@h/\"",
        "",
        "4:7: url holds a user name or password",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"\npassword = \"SECRET\"",
        "",
        "5:1: a password does not stand in this file",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"\npassword-file = \"x\"",
        "",
        "5:17: password-file needs a username",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"\nusername = \"admin\"",
        "",
        "5:12: username needs a password-file beside it; a newline alone in that file is the empty password",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"\ntransport = \"tpc\"",
        "",
        "5:13: transport must be one of tcp, udp, auto; did you mean \"tcp\"?",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"\ncontainer = \"avi\"",
        "",
        "5:13: container must be one of auto, fmp4",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"\naudio = true",
        "",
        "5:9: audio must be a text in quotes, not true or false",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"\nstall-timeout = 10",
        "",
        "5:17: stall-timeout must be a duration in quotes",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"\nstall-timeout = \"1ms\"",
        "",
        "5:17: stall-timeout must be between 500ms and 1h",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"\nmax_size_time = \"10s\"",
        "",
        "5:1: unknown key max_size_time in [[camera]]; did you mean max-size-time?",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"\ntime-zone = \"Mars/North\"",
        "",
        "5:13: time-zone must be an IANA name",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"\nenabled = \"yes\"",
        "",
        "5:11: enabled must be true or false, not a text",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"\nlocation = \"%Q{seq}\"",
        "",
        "5:12: ",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"\nlocation = \"all.ts\"",
        "",
        "5:12: location has no placeholder",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"\nmetadata = { a = 1 }",
        "",
        "5:18: every value of metadata must be a text",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"",
        "[[camera]]\nid = \"a\"\nurl = \"rtsp://i/\"",
        "6:6: id \"a\" is taken by another camera",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"",
        "[[camera]]\nid = \"a/#\"\nurl = \"rtsp://i/\"",
        "6:6: id \"a/#\" holds #",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"",
        "[[camera]]\nid = \"x/state\"\nurl = \"rtsp://i/\"",
        "6:6: id \"x/state\" has the part",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"",
        "[[camera]]\nurl = \"rtsp://i/\"",
        "5:1: this camera has no id",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"",
        "[defaults]\nurl = \"rtsp://i/\"",
        "6:7: url differs from camera to camera",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"",
        "[mqtt]\nport = 1883",
        "1:1: host is missing; name the broker in [mqtt]",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"",
        "[mqtt]\nhost = \"h\"\nport = 70000",
        "7:8: port must be between 0 and 65535",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"",
        "[mqtt]\nhost = \"h\"\ntopic-prefix = \"all\"",
        "7:16: topic-prefix must hold {device}",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"",
        "[shard]\npods = 0",
        "6:8: pods must be between 1 and",
    ),
    (
        "bucket = \"my-bucket\"\nlisten = \"9640\"",
        "url = \"rtsp://h/\"",
        "",
        "2:10: listen must be ADDRESS:PORT",
    ),
    (
        "bucket = \"my-bucket\"\nmax-memory-bytes = 1000",
        "url = \"rtsp://h/\"",
        "",
        "2:20: max-memory-bytes is for all cameras of a process together",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"\nlocation = \"a\\u0000/{session}_{seq}\"",
        "",
        "5:12: location holds a NUL character",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"\nmetadata = { \"\" = \"x\" }",
        "",
        "5:12: the property metadata has an empty key",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"\nname = \"a\\u0000b\"",
        "",
        "5:8: name holds a NUL character",
    ),
    (
        "bucket = \"my-bucket\"\nmax-spool-bytes = -1",
        "url = \"rtsp://h/\"",
        "",
        "2:19: max-spool-bytes must be a whole number",
    ),
    (
        "bucket = \"my-bucket\"\nendpoint-uri = \"https://u:SECRET@h\"",
        "url = \"rtsp://h/\"",
        "",
        "2:16: ",
    ),
    ("bucket = \"my-bucket\"\ncamera = 1", "", "", "2:"),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsps://h/\"\ntls-fingerprint = \"SECRET\"",
        "",
        "5:19: tls-fingerprint must be the SHA-256",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"\nca-file = \"ca.pem\"",
        "",
        "5:11: ca-file is for rtsps and https",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"https://h/\"\ntls-fingerprint = \"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"",
        "",
        "5:19: tls-fingerprint is for rtsps",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"",
        "[mqtt]\nhost = \"mqtt://h\"",
        "6:8: host: it holds a scheme",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"",
        "[mqtt]\nhost = \"h\"\nhome-assistant-prefix = \"ha/#\"",
        "7:25: home-assistant-prefix: ",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"\nprivate-key-file = \"k\"",
        "[iotcore]\nhost = \"h\"\nproject-id = \"p q\"\nregion = \"r\"\nregistry-id = \"g\"",
        "3:6: project-id: ",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"",
        "[mqtt]\nhost = \"h\"\nname = \"a/b\"",
        "7:8: name is one level",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"",
        "[iotcore]\nhost = \"h\"\nproject-id = \"p\"\nregion = \"r\"\nregistry-id = \"g\"",
        "2:1: this camera needs a private-key-file",
    ),
    (
        "bucket = \"my-bucket\"",
        "url = \"rtsp://h/\"",
        "[mqtt]\nhost = \"h\"\n[iotcore]\nhost = \"h\"\nproject-id = \"p\"\nregion = \"r\"\nregistry-id = \"g\"",
        "[mqtt] and [iotcore] exclude each other",
    ),
];

#[test]
fn forty_kinds_of_faults_are_found_at_their_place_with_what_to_do_and_without_secrets() {
    assert!(BAD.len() >= 40);
    for (top, camera, more, expected) in BAD {
        let camera = match *camera {
            "" => "[[camera]]\nid = \"a\"\n".to_owned(),
            lines => format!("[[camera]]\nid = \"a\"\n{lines}\n"),
        };
        let text = format!("{top}\n{camera}{more}\n");
        let text = text.trim_start_matches('\n');
        let faults = read(text).expect_err(text).join("\n");
        assert!(faults.contains(expected), "{text}\nexpected {expected}, got\n{faults}");
        assert!(!faults.contains("SECRET"), "{faults}");
    }
}

#[test]
fn all_faults_of_a_file_are_reported_at_once_in_its_order() {
    let text = "bucket = \"my-bucket\"\nlisten = 1\nfoo = 2\n[[camera]]\nid = \"a\"\nurl = \"rtsp://h/\"\ntransport = \"x\"\n[[camera]]\nid = \"a\"\n";
    let faults = read(text).unwrap_err();
    let lines: Vec<&str> = faults.iter().map(|f| f.split(':').next().unwrap()).collect();
    assert_eq!(lines, ["2", "3", "7", "8", "9"], "{faults:#?}");
}

#[test]
fn a_missing_key_hides_no_other_fault_and_makes_no_key_unknown() {
    let camera = "[[camera]]\nid = \"a\"\nurl = \"rtsp://h/\"\n";
    let tops = [
        "listen = \"127.0.0.1:9640\"\nspool-dir = \"s\"\nmax-spool-bytes = 1\nmax-bytes-per-second = 1\nendpoint-uri = \"http://h:1\"\n",
        "bucket = \"my-bucket\"\n[mqtt]\nport = 1\ntls = false\ntopic-prefix = \"x\"\nusername = \"u\"\npassword-file = \"p\"\n",
        "bucket = \"my-bucket\"\n[iotcore]\nport = 1\nproject-id = \"p\"\nregion = \"r\"\nregistry-id = \"g\"\n",
    ];
    for top in tops {
        let faults = read(&format!("{top}{camera}")).unwrap_err();
        assert!(
            !faults.is_empty() && faults.iter().all(|f| !f.contains("unknown key")),
            "{faults:#?}"
        );
    }
    let faults = read(&format!("listen = 1\n{camera}")).unwrap_err();
    assert_eq!(faults.len(), 2, "{faults:#?}");
}

#[test]
fn files_that_are_named_are_looked_at_and_relative_names_start_at_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recorder.toml");
    let text = "bucket = \"my-bucket\"\nspool-dir = \"spool\"\n[[camera]]\nid = \"a\"\nurl = \"rtsp://h/\"\nusername = \"rec\"\npassword-file = \"a.pw\"\n";
    std::fs::write(&file, text).unwrap();
    let faulty = load(&file, false).unwrap_err().to_string();
    assert!(
        faulty.starts_with(&format!("{}:7:17: password-file: ", file.display())) && faulty.contains("cannot be read"),
        "{faulty}"
    );
    std::fs::write(folder.path().join("a.pw"), "hunter2\n").unwrap();
    let config = load(&file, false).unwrap();
    assert_eq!(config.spool_dir, Some(folder.path().join("spool")));
    assert_eq!(
        config.cameras[0].password.as_ref().unwrap().read().unwrap().clear(),
        "hunter2"
    );
    let missing = load(&folder.path().join("none.toml"), false).unwrap_err().to_string();
    assert!(missing.contains("none.toml:1:1: the file cannot be read"), "{missing}");
}

#[test]
fn a_file_that_does_not_hold_what_it_should_is_found_before_the_recorder_runs_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recorder.toml");
    std::fs::write(folder.path().join("der"), [0x30, 0x82, 1, 2]).unwrap();
    let faults = |camera: &str, more: &str| {
        let text = format!("bucket = \"my-bucket\"\n[[camera]]\nid = \"a\"\nurl = \"rtsps://h/\"\n{camera}\n{more}\n");
        std::fs::write(&file, text).unwrap();
        load(&file, false)
            .unwrap_err()
            .faults
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    for (camera, more, place) in [
        ("ca-file = \"der\"", "", "5:11: ca-file: "),
        (
            "",
            "[mqtt]\nhost = \"h\"\ntls = true\nroot-certificates = \"der\"",
            "9:21: root-certificates ",
        ),
    ] {
        let faults = faults(camera, more);
        assert!(faults.len() == 1 && faults[0].starts_with(place), "{place}: {faults:#?}");
    }
}

#[test]
fn several_processes_with_one_name_are_told_apart_at_the_broker() {
    let text = |shard: &str, name: &str| {
        let text = format!(
            "bucket = \"my-bucket\"\n{shard}\n[mqtt]\nhost = \"h\"\n{name}\n[[camera]]\nid = \"a\"\nurl = \"rtsp://h/\"\n"
        );
        parse(&text, &Surroundings::default())
            .unwrap()
            .presence_prefix("recorder-2")
            .unwrap()
    };
    let (pods, name) = ("[shard]\npods = 3", "name = \"shop\"");
    assert_eq!(text(pods, name), "gcstreamer/recorder/shop-2");
    assert_eq!(text(pods, ""), "gcstreamer/recorder/recorder-2");
    assert_eq!(text("", name), "gcstreamer/recorder/shop");
    assert_eq!(text("[shard]\npods = 1", name), "gcstreamer/recorder/shop");
}

#[test]
fn one_camera_comes_from_the_environment() {
    let read = |variables: &[(&str, &str)]| {
        let get = |name: &str| {
            variables
                .iter()
                .find(|(n, _)| *n == name)
                .map(|(_, value)| (*value).to_owned())
        };
        from_environment(get, &Surroundings::default())
    };
    let config = read(&[
        ("RTSP_URL", "rtsp://h:8554/a\"b\\c"),
        ("DEVICE_ID", "store42/cam3"),
        ("BUCKET", "my-bucket"),
        ("MQTT_HOST", "broker"),
        ("MQTT_PORT", "1884"),
        ("CONTAINER", "mpegts"),
        ("SPOOL_DIR", ""),
        ("LISTEN", ""),
    ])
    .unwrap();
    assert_eq!(config.cameras[0].address.secret(), "rtsp://h:8554/a\"b\\c");
    assert_eq!(config.cameras[0].container, Container::MpegTs);
    assert_eq!((config.listen, config.spool_dir), (None, None));
    let Some(Broker::Mqtt(mqtt)) = config.broker else { panic!() };
    assert_eq!((mqtt.host.as_str(), mqtt.port), ("broker", 1884));

    let faulty = read(&[("RTSP_URL", "rtsp://u:SECRET@h/"), ("MQTT_HOST", "h"), ("MQTT_PORT", "many")]).unwrap_err();
    let text = faulty.to_string();
    for expected in [
        "environment:1:1: BUCKET is not set",
        "DEVICE_ID is not set",
        "RTSP_URL: url holds",
        "MQTT_PORT: port must be",
    ] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!text.contains("SECRET"), "{text}");
}

#[test]
fn a_service_that_is_called_mqtt_sets_no_port_of_the_broker() {
    let read = |port: &'static str| {
        let get = |name: &str| {
            let value = match name {
                "RTSP_URL" => "rtsp://h/",
                "DEVICE_ID" => "cam",
                "BUCKET" => "my-bucket",
                "MQTT_HOST" => "mqtt",
                "MQTT_PORT" => port,
                _ => return None,
            };
            Some(value.to_owned())
        };
        match from_environment(get, &Surroundings::default()).map(|config| config.broker) {
            Ok(Some(Broker::Mqtt(mqtt))) => mqtt.port,
            other => panic!("{other:?}"),
        }
    };
    // As Kubernetes and docker --link set them.
    assert_eq!((read("tcp://10.96.1.2:1883"), read("udp://[fd00::2]:1883")), (0, 0));
    assert_eq!(read("1884"), 1884);
}

#[test]
fn a_name_of_the_defaults_is_no_fault_of_a_camera_that_takes_none_and_is_reported_once() {
    let file = |url: &str| {
        format!(
            "bucket = \"my-bucket\"\n[defaults]\nusername = \"u\"\n[[camera]]\nid = \"a\"\nurl = \"{url}\"\n[[camera]]\nid = \"b\"\nurl = \"{url}\"\n"
        )
    };
    assert!(read(&file("srt://h:7000")).is_ok());
    assert_eq!(read(&file("rtsp://h/")).unwrap_err().len(), 1);
}

#[test]
fn a_list_of_cameras_that_is_empty_is_a_fault() {
    for (text, place) in [("camera = []", "2:10: "), ("", "1:1: ")] {
        let faults = read(&format!("bucket = \"my-bucket\"\n{text}\n")).unwrap_err();
        assert!(
            faults.len() == 1 && faults[0].starts_with(&format!("{place}no camera")),
            "{faults:#?}"
        );
    }
}

#[test]
fn check_reads_credentials_and_keys_and_a_recorder_starts_without_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("recorder.toml");
    let faults = |head: &str, more: &str| {
        let camera = format!("[[camera]]\nid = \"a\"\nurl = \"rtsp://h/\"\n{more}");
        std::fs::write(&file, format!("bucket = \"my-bucket\"\n{head}\n{camera}\n")).unwrap();
        load(&file, false).unwrap();
        load(&file, true).unwrap_err().to_string()
    };
    std::fs::write(folder.path().join("key"), "SECRET nonsense").unwrap();
    let text = faults("credentials-file = \"key\"", "");
    assert!(
        text.contains("recorder.toml:2:20: credentials-file: ") && text.contains("is not JSON"),
        "{text}"
    );
    assert!(!text.contains("SECRET") && text.lines().count() == 1, "{text}");
    let bridge = "[iotcore]\nhost = \"h\"\nproject-id = \"p-12345\"\nregion = \"us-central1\"\nregistry-id = \"r123\"";
    let text = faults(bridge, "private-key-file = \"key\"");
    assert!(text.contains(":10:20: ") && text.contains("key"), "{text}");
    assert!(!text.contains("SECRET") && text.lines().count() == 1, "{text}");
}
