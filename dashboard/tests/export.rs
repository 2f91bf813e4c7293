//! Ranges as one file: to the frame, the same bytes each time, with a manifest that shows damage. Judged by ffmpeg.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::Path;
use std::process::Command;

use common::{
    BUCKET, Dashboard, FLV_PICTURES, GcsServer, SECOND, STREAMS, Stream, ask, cut, decoded, decoded_pictures, encode, get, iso,
    now, pause, settings, store, store_as,
};
use gcstreamer_dashboard::export::manifest::Manifest;
use gcstreamer_dashboard::index::HOUR;
use gcstreamer_schema::name::Template;

/// A recording of 20 s in the bucket, from a minute ago on.
struct Recorded {
    server: GcsServer,
    dashboard: Dashboard,
    start: u64,
    folder: tempfile::TempDir,
}

fn recorded(stream: Stream, left_out: &[u64]) -> Recorded {
    let folder = tempfile::tempdir().unwrap();
    let bytes = encode(stream, 20, folder.path());
    let server = GcsServer::spawn_thread();
    let start = (now() - 60 * SECOND) / SECOND * SECOND;
    store(&server, stream.camera, &cut(&bytes), start, left_out);
    let dashboard = Dashboard::start(settings(&server));
    Recorded {
        server,
        dashboard,
        start,
        folder,
    }
}

impl Recorded {
    fn address(&self, camera: &str, from_ms: u64, to_ms: u64, format: &str) -> String {
        let at = |ms: u64| iso(self.start + ms * 1_000_000);
        format!(
            "/export?camera={camera}&from={}&to={}&format={format}",
            at(from_ms),
            at(to_ms)
        )
    }
}

/// MD5 of each decoded picture.
fn pictures(input: &Path) -> Vec<String> {
    decoded_pictures(None, input)
}

fn duration(input: &Path, of: &str) -> f64 {
    let mut command = Command::new("ffprobe");
    command
        .args(["-v", "error", "-show_entries", of, "-of", "csv=p=0"])
        .arg(input);
    let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
    text.lines().next().unwrap().trim_end_matches(',').parse().unwrap()
}

#[test]
fn a_film_holds_exactly_the_pictures_of_the_range_from_every_container() {
    for stream in STREAMS {
        let recorded = recorded(stream, &[]);
        let source = pictures(&recorded.folder.path().join("stream"));
        assert_eq!(source.len(), 500);
        // Between key frames, over three borders of chunks; and from a key frame on.
        for (from, to) in [(3000, 13_000), (4000, 4480), (5160, 19_000)] {
            let reply = get(&recorded.dashboard.address, &recorded.address(stream.camera, from, to, "mp4"));
            assert_eq!(reply.status, 200, "{stream:?}: {}", String::from_utf8_lossy(&reply.body));
            assert_eq!(reply.headers["content-length"], reply.body.len().to_string());
            let film = recorded.folder.path().join("film.mp4");
            std::fs::write(&film, &reply.body).unwrap();
            let shown = pictures(&film);
            let index = |ms: u64| usize::try_from(ms / 40).unwrap();
            let wanted = &source[index(from)..index(to)];
            let begins = source.iter().position(|known| Some(known) == shown.first());
            assert_eq!(shown.len(), wanted.len(), "{stream:?} {from}: begins with picture {begins:?}");
            assert!(shown == wanted, "{stream:?} {from}: begins with picture {begins:?}");
            let seconds = f64::from(u32::try_from(to - from).unwrap()) / 1000.0;
            assert!(
                (duration(&film, "format=duration") - seconds).abs() < 0.05,
                "{stream:?} {}",
                duration(&film, "format=duration")
            );
            let (_, sound, said) = decoded(&film.display().to_string());
            let rate = if stream.camera == "flv" { 44_100.0 } else { 48_000.0 };
            let frames = seconds * rate / 1024.0;
            assert!(
                (f64::from(u32::try_from(sound).unwrap()) - frames).abs() <= 2.5,
                "{stream:?}: {sound} of {frames}"
            );
            assert_eq!(said.trim(), "", "{stream:?}");
        }
    }
}

#[test]
fn native_files_hold_the_chunks_of_the_range_behind_one_header() {
    for stream in STREAMS {
        let recorded = recorded(stream, &[]);
        let reply = get(
            &recorded.dashboard.address,
            &recorded.address(stream.camera, 5000, 9000, "native"),
        );
        assert_eq!(reply.status, 200, "{stream:?}: {}", String::from_utf8_lossy(&reply.body));
        let file = recorded.folder.path().join("native");
        std::fs::write(&file, &reply.body).unwrap();
        let source = pictures(&recorded.folder.path().join("stream"));
        let shown = pictures(&file);
        assert!(shown == source[100..300], "{stream:?}: {} pictures", shown.len());
        let name = reply.headers["content-disposition"].clone();
        let extension = recorded
            .server
            .objects()
            .into_keys()
            .next()
            .unwrap()
            .1
            .rsplit('.')
            .next()
            .unwrap()
            .to_owned();
        assert!(name.ends_with(&format!("Z.{extension}\"")), "{name}");
    }
}

#[test]
fn of_two_recorders_at_once_no_picture_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let cuts = cut(&encode(STREAMS[1], 20, folder.path()));
    let server = GcsServer::spawn_thread();
    let start = (now() - 60 * SECOND) / SECOND * SECOND;
    // One ends after 12 s. The other has recorded since second 9, with a key picture every two seconds.
    store(&server, "site/ts", &cuts, start, &[3, 4]);
    store(&server, "site/ts", &cuts, start + 9 * SECOND, &[]);
    let dashboard = Dashboard::start(settings(&server));
    let range = format!("camera=site%2Fts&from={}&to={}", iso(start), iso(start + 28 * SECOND));
    let reply = get(&dashboard.address, &format!("/export?{range}&format=mp4"));
    let film = folder.path().join("film.mp4");
    std::fs::write(&film, &reply.body).unwrap();
    let source = pictures(&folder.path().join("stream"));
    assert!(
        pictures(&film) == [&source[..300], &source[50..475]].concat(),
        "{} pictures",
        pictures(&film).len()
    );
    let manifest = get(&dashboard.address, &reply.headers["export-manifest"]).json();
    assert_eq!(manifest["gaps"], serde_json::json!([]));
    let playlist = get(&dashboard.address, &format!("/hls/index.m3u8?{range}")).text();
    assert_eq!(playlist.matches("#EXTINF").count(), 8, "{playlist}");
}

#[test]
fn sound_of_six_channels_is_in_the_film() {
    let stream = Stream {
        camera: "surround",
        arguments: "-c:v libx264 -c:a libopus -ac 6 -f matroska",
    };
    let recorded = recorded(stream, &[]);
    let reply = get(&recorded.dashboard.address, &recorded.address("surround", 0, 20_000, "mp4"));
    let film = recorded.folder.path().join("film.mp4");
    std::fs::write(&film, &reply.body).unwrap();
    assert_eq!(pictures(&film).len(), 500, "{}", reply.text());
    let (codec, channels) = ("stream=codec_name", "stream=channels");
    let of_sound = |entry: &str| {
        let output = Command::new("ffprobe")
            .args([
                "-v",
                "error",
                "-select_streams",
                "a",
                "-of",
                "csv=p=0",
                "-show_entries",
                entry,
            ])
            .arg(&film)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    };
    assert_eq!((of_sound(codec).as_str(), of_sound(channels).as_str()), ("opus", "6"));
}

#[test]
fn a_gap_takes_no_time_in_a_film_and_is_in_the_manifest() {
    let recorded = recorded(STREAMS[0], &[2]);
    let reply = get(&recorded.dashboard.address, &recorded.address("flv", 0, 20_000, "mp4"));
    let film = recorded.folder.path().join("film.mp4");
    std::fs::write(&film, &reply.body).unwrap();
    let source = pictures(&recorded.folder.path().join("stream"));
    let shown = pictures(&film);
    assert!(shown == [&source[..200], &source[300..]].concat(), "{} pictures", shown.len());
    assert!((duration(&film, "format=duration") - 16.0).abs() < 0.1);
    let manifest = get(&recorded.dashboard.address, &reply.headers["export-manifest"]).json();
    assert_eq!(manifest["gaps"][0]["reason"], "not-stored");
    assert_eq!(manifest["gaps"][0]["from"], iso(recorded.start + 8 * SECOND));
    assert_eq!(manifest["objects"].as_array().unwrap().len(), 4);
}

#[test]
fn the_bytes_are_the_same_each_time_whole_and_by_range() {
    for (stream, format) in [
        (STREAMS[0], "mp4"),
        (STREAMS[2], "mp4"),
        (STREAMS[0], "native"),
        (STREAMS[1], "native"),
    ] {
        let recorded = recorded(stream, &[]);
        let path = recorded.address(stream.camera, 3000, 17_000, format);
        let first = get(&recorded.dashboard.address, &path);
        let other = Dashboard::start(settings(&recorded.server));
        let second = get(&other.address, &path);
        assert!(first.status == 200 && first.body == second.body, "{stream:?} {format}");
        assert_eq!(first.headers["etag"], second.headers["etag"]);
        let size = first.body.len();
        for (from, to) in [
            (0, 99),
            (50, size / 3),
            (size / 3, size - 2),
            (size - 70_000, size - 1),
            (size / 2, size / 2),
        ] {
            let range = format!("Range: bytes={from}-{to}");
            let part = ask(&recorded.dashboard.address, "GET", &path, &[&range], "");
            assert_eq!(
                (part.status, part.headers["content-range"].clone()),
                (206, format!("bytes {from}-{to}/{size}"))
            );
            assert!(part.body == first.body[from..=to], "{stream:?} {format} {range}");
        }
        let if_range = ask(&other.address, "GET", &path, &["Range: bytes=1-5", "If-Range: \"other\""], "");
        assert_eq!((if_range.status, if_range.body.len()), (200, size), "a range of another file");
        let head = ask(&other.address, "HEAD", &path, &[], "");
        assert_eq!(
            (head.headers["content-length"].clone(), head.body.len()),
            (size.to_string(), 0)
        );
        assert_eq!(
            ask(&other.address, "GET", &path, &["Range: bytes=999999999-"], "").status,
            416
        );
    }
}

fn verify(manifest: &Manifest, file: &[u8]) -> Vec<String> {
    let template = Template::parse(gcstreamer_dashboard::settings::DEFAULT_LOCATION).unwrap();
    manifest.verify(std::io::Cursor::new(file), &template).unwrap()
}

#[test]
fn verify_names_a_flipped_byte_a_removed_chunk_and_a_shifted_clock() {
    for format in ["mp4", "native"] {
        let recorded = recorded(STREAMS[0], &[]);
        let reply = get(&recorded.dashboard.address, &recorded.address("flv", 1000, 19_000, format));
        let json = get(&recorded.dashboard.address, &reply.headers["export-manifest"]);
        let manifest: Manifest = serde_json::from_slice(&json.body).unwrap();
        assert_eq!(verify(&manifest, &reply.body), Vec::<String>::new(), "{format}");
        assert_eq!(manifest.objects.len(), 5);
        for object in &manifest.objects {
            let stored = recorded.server.object(BUCKET, &object.name).unwrap();
            let crc32c = gcstreamer_schema::crc32c::to_base64(stored.crc32c);
            assert_eq!(
                (object.generation, object.size, &object.crc32c),
                (stored.generation, stored.data.len() as u64, &crc32c)
            );
        }
        let begin = |index: usize| {
            let before: u64 = manifest.objects[..index].iter().map(|object| object.part.size).sum();
            usize::try_from(manifest.header.size + before).unwrap()
        };
        let name = &manifest.objects[2].name;
        let mut flipped = reply.body.clone();
        flipped[begin(2) + 1000] ^= 1;
        let faults = verify(&manifest, &flipped);
        assert!(
            faults.len() == 1 && faults[0].starts_with(&format!("bytes: {name} differs")),
            "{faults:?}"
        );
        let removed = [&reply.body[..begin(2)], &reply.body[begin(3)..]].concat();
        let faults = verify(&manifest, &removed);
        assert!(
            faults.len() == 1 && faults[0].starts_with(&format!("chunk: {name} is missing")),
            "{faults:?}"
        );
        let mut shifted = manifest.clone();
        shifted.objects[2].from += 3600 * SECOND;
        shifted.objects[2].to += 3600 * SECOND;
        for shifted in [shifted.clone(), shifted.sealed()] {
            let faults = verify(&shifted, &reply.body);
            assert!(faults[0].starts_with(&format!("clock: {name} begins at")), "{faults:?}");
        }
        let mut left_out = manifest.clone();
        left_out.objects.remove(2);
        let faults = verify(&left_out, &reply.body);
        assert!(faults.iter().any(|fault| fault.starts_with("chunk: between")), "{faults:?}");
        let mut other = manifest.clone();
        other.camera = "another".into();
        assert!(verify(&other, &reply.body)[0].starts_with("manifest: it was changed"));
        assert!(!verify(&manifest, &reply.body[..reply.body.len() - 1]).is_empty());
        assert!(!verify(&manifest, &[&reply.body[..], b"x"].concat()).is_empty());
    }
}

#[test]
fn verify_blames_what_is_damaged_and_no_more() {
    let recorded = recorded(STREAMS[0], &[]);
    let reply = get(&recorded.dashboard.address, &recorded.address("flv", 1000, 19_000, "native"));
    let json = get(&recorded.dashboard.address, &reply.headers["export-manifest"]);
    let manifest: Manifest = serde_json::from_slice(&json.body).unwrap();
    let at = |index: usize| {
        let before: u64 = manifest.objects[..index].iter().map(|object| object.part.size).sum();
        usize::try_from(manifest.header.size + before).unwrap()
    };
    let (file, names) = (&reply.body, manifest.objects.iter().map(|object| object.name.clone()));
    let names: Vec<String> = names.collect();
    let is = |file: &[&[u8]], wanted: &[String], what: &str| {
        assert_eq!(verify(&manifest, &file.concat()), wanted, "{what}");
    };
    is(
        &[&file[..at(1)], &file[at(3)..]],
        &[1, 2].map(|index: usize| format!("chunk: {} is missing at byte {}", names[index], at(1))),
        "two chunks are out",
    );
    is(
        &[&file[..at(1) + 500], &file[at(1) + 501..]],
        &[format!(
            "bytes: {} differs, and from byte {} on the file is shifted by 1 byte to the front",
            names[1],
            at(2) - 1
        )],
        "one byte is out",
    );
    is(
        &[&file[..at(1) + 500], b"xyz", &file[at(1) + 500..]],
        &[format!(
            "bytes: {} differs, and from byte {} on the file is shifted by 3 bytes to the back",
            names[1],
            at(2) + 3
        )],
        "three bytes too many",
    );
    let swapped = [&file[..at(1)], &file[at(2)..at(3)], &file[at(1)..at(2)], &file[at(3)..]];
    let faults = verify(&manifest, &swapped.concat());
    let moved = at(1) + at(3) - at(2);
    let wanted = [format!("chunk: {} is at byte {moved}, where another one should be", names[1])];
    assert_eq!(faults, wanted, "two are swapped");
    is(
        &[&file[..at(2) + 5]],
        &[format!(
            "bytes: the file ends at byte {}, inside {}; 2 of 5 chunks are there before it",
            at(2) + 5,
            names[2]
        )],
        "cut off",
    );
    is(
        &[&file[..at(3)]],
        &[format!(
            "bytes: the file ends at byte {}, before {}; 3 of 5 chunks are there before it",
            at(3),
            names[3]
        )],
        "cut off between two",
    );
    is(&[], &["bytes: the file is empty".to_owned()], "empty");
}

#[test]
fn a_manifest_is_made_without_a_download_too_and_only_for_what_it_names() {
    let recorded = recorded(STREAMS[0], &[]);
    let path = recorded.address("flv", 1000, 19_000, "mp4");
    let head = ask(&recorded.dashboard.address, "HEAD", &path, &[], "");
    let address = head.headers["export-manifest"].clone();
    let made = get(&recorded.dashboard.address, &address);
    let other = Dashboard::start(settings(&recorded.server));
    let manifest: Manifest = serde_json::from_slice(&made.body).unwrap();
    assert_eq!(verify(&manifest, &get(&other.address, &path).body), Vec::<String>::new());
    assert_eq!(get(&other.address, &address).body, made.body);
    let another = address.replace("&id=", "&id=0");
    assert_eq!(get(&other.address, &another).status, 404);
}

#[test]
fn a_time_of_nanoseconds_means_the_same_export_each_time() {
    let recorded = recorded(STREAMS[0], &[]);
    let address = &recorded.dashboard.address;
    let finer = |path: String| {
        path.replacen("Z&to=", "456789Z&to=", 1)
            .replacen("Z&format", "999Z&format", 1)
    };
    let path = finer(recorded.address("flv", 1123, 19_000, "mp4"));
    let prepare = path.replace("/export?", "/export/prepare?");
    let ready = std::iter::repeat_with(|| ask(address, "POST", &prepare, &[], "").json())
        .find(|state| state["file"].is_string())
        .unwrap();
    let reads = || {
        let requests = recorded.server.requests();
        requests.iter().filter(|request| request.target.contains("alt=media")).count()
    };
    assert_eq!(reads(), 5, "the first pass");
    let file = get(address, ready["file"].as_str().unwrap());
    assert_eq!((file.status, reads()), (200, 10), "what was prepared is sent");
    assert_eq!(get(address, &path).body, file.body);
    // Its manifest, from a dashboard that does not know the plan.
    let other = Dashboard::start(settings(&recorded.server));
    let manifest = get(&other.address, &file.headers["export-manifest"]);
    assert_eq!(manifest.status, 200, "{}", manifest.text());
    let manifest: Manifest = serde_json::from_slice(&manifest.body).unwrap();
    assert_eq!(verify(&manifest, &file.body), Vec::<String>::new());
}

#[test]
fn many_connections_for_one_file_are_one_export_and_one_first_pass() {
    let recorded = recorded(STREAMS[0], &[]);
    let path = recorded.address("flv", 1000, 19_000, "mp4");
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let ask = |part: u64| {
            let (path, range) = (&path, format!("Range: bytes={}-{}", part * 100, part * 100 + 99));
            let address = &recorded.dashboard.address;
            scope.spawn(move || ask(address, "GET", path, &[&range], "").status)
        };
        let parts: Vec<_> = (0..12).map(ask).collect();
        parts.into_iter().map(|part| part.join().unwrap()).collect()
    });
    assert_eq!(statuses, [206; 12]);
    let requests = recorded.server.requests();
    let reads = requests.iter().filter(|request| request.target.contains("alt=media")).count();
    // The header is in memory, and each part is short.
    assert!(reads <= 5 + 12, "{reads} chunks were read");
}

#[test]
fn limits_are_told() {
    let recorded = recorded(STREAMS[0], &[]);
    let address = &recorded.dashboard.address;
    for (path, status) in [
        (recorded.address("flv", 0, 24 * 3_600_000 + 1, "mp4"), 400),
        (recorded.address("flv", 2000, 1000, "mp4"), 400),
        (recorded.address("flv", 0, 1000, "avi"), 400),
        (recorded.address("nobody", 0, 1000, "mp4"), 404),
        (recorded.address("flv", 0, 24 * 3_600_000, "mp4"), 200),
    ] {
        assert_eq!(get(address, &path).status, status, "{path}");
    }
}

#[test]
fn a_film_over_a_change_of_codec_is_refused_with_the_instant_and_each_side_is_made() {
    let folder = tempfile::tempdir().unwrap();
    let server = GcsServer::spawn_thread();
    let start = (now() - 120 * SECOND) / SECOND * SECOND;
    let stream = |arguments| Stream {
        camera: "cam",
        arguments,
    };
    let ways: [(&'static str, &'static str, &str); 2] = [
        (
            "-an -c:v libx264 -f matroska",
            "-an -c:v libx265 -x265-params log-level=none:open-gop=0:keyint=50:scenecut=0 -f matroska",
            "the codec of the picture changes inside the range",
        ),
        (
            "-c:v libx264 -c:a aac -ar 48000 -f matroska",
            "-c:v libx264 -c:a libopus -ar 48000 -f matroska",
            "the codec of the sound changes inside the range",
        ),
    ];
    for (index, (before, after, text)) in (0u64..).zip(ways) {
        let camera = format!("cam{index}");
        let back = start + 20 * SECOND;
        store(&server, &camera, &cut(&encode(stream(before), 8, folder.path())), start, &[]);
        store(&server, &camera, &cut(&encode(stream(after), 8, folder.path())), back, &[]);
        let dashboard = Dashboard::start(settings(&server));
        let export = |from: u64, to: u64| {
            let path = format!("/export?camera={camera}&from={}&to={}&format=mp4", iso(from), iso(to));
            get(&dashboard.address, &path)
        };
        let refused = export(start, start + 30 * SECOND);
        assert_eq!(refused.status, 400, "{}", refused.text());
        let error = refused.json()["error"].as_str().unwrap().to_owned();
        assert!(error.contains(text) && error.contains(&iso(back)), "{error}");
        for (from, to) in [(start, back), (back, start + 30 * SECOND)] {
            assert_eq!(export(from, to).status, 200, "apart");
        }
    }
}

/// Pictures that are not written into MP4, beside sound that is.
const MPEG2: &str = "-c:v mpeg2video";
const MJPEG: &str = "-c:v mjpeg -pix_fmt yuvj420p";

#[test]
fn a_film_is_refused_rather_than_made_without_its_pictures() {
    let (server, folder) = (GcsServer::spawn_thread(), tempfile::tempdir().unwrap());
    let start = (now() - 120 * SECOND) / SECOND * SECOND;
    let (fragments, matroska) = (
        "-c:a aac -ar 48000 -f mp4 -movflags frag_keyframe+empty_moov+default_base_moof",
        "-c:a libopus -f matroska",
    );
    let in_mp4 = format!("{MPEG2} {fragments}");
    let in_matroska = format!("{MJPEG} {matroska}");
    let h264 = format!("-c:v libx264 {fragments}");
    for (camera, streams, status, says) in [
        (
            "mp4",
            vec![in_mp4.clone()],
            400,
            "mp4v cannot be written into MP4; export it as native",
        ),
        ("matroska", vec![in_matroska.clone()], 415, "it is stored as matroska"),
        ("mp4-then", vec![h264.clone(), in_mp4], 400, "mp4v cannot be written"),
        (
            "matroska-then",
            vec![h264.clone(), in_matroska],
            415,
            "export the time before and after apart",
        ),
    ] {
        let count = streams.len();
        for (index, arguments) in (0..).zip(streams) {
            let arguments = String::leak(arguments);
            let bytes = encode(Stream { camera, arguments }, 8, folder.path());
            store(&server, camera, &cut(&bytes), start + index * 20 * SECOND, &[]);
        }
        let dashboard = Dashboard::start(settings(&server));
        let export = |to: u64| {
            let range = format!("from={}&to={}", iso(start), iso(to));
            get(&dashboard.address, &format!("/export?camera={camera}&{range}&format=mp4"))
        };
        let refused = export(start + 30 * SECOND);
        assert_eq!(refused.status, status, "{camera}: {}", String::from_utf8_lossy(&refused.body));
        assert!(refused.text().contains(says), "{}", refused.text());
        if count > 1 {
            assert_eq!(export(start + 15 * SECOND).status, 200, "{camera}: what was before it");
        }
    }
}

#[test]
fn sound_that_is_left_out_refuses_no_film_where_a_piece_has_no_pictures() {
    let (server, folder) = (GcsServer::spawn_thread(), tempfile::tempdir().unwrap());
    let start = (now() - 120 * SECOND) / SECOND * SECOND;
    let telephone = "-c:v libx264 -c:a pcm_alaw -ar 8000 -ac 1 -f flv -flvflags no_duration_filesize";
    let camera = "telephone";
    let bytes = encode(
        Stream {
            camera,
            arguments: telephone,
        },
        12,
        folder.path(),
    );
    let mut cuts = cut(&bytes);
    // The recording began before the first picture.
    pause(&mut cuts[0], FLV_PICTURES);
    cuts[0].info.codecs = Some("alaw".into());
    store(&server, camera, &cuts, start, &[]);
    let dashboard = Dashboard::start(settings(&server));
    let range = format!("from={}&to={}", iso(start), iso(start + 12 * SECOND));
    let film = get(&dashboard.address, &format!("/export?camera={camera}&{range}&format=mp4"));
    assert_eq!(film.status, 200, "{}", String::from_utf8_lossy(&film.body));
    let path = folder.path().join("film.mp4");
    std::fs::write(&path, &film.body).unwrap();
    assert_eq!(pictures(&path).len(), 200, "all pictures that there are");
}

#[test]
fn gaps_of_a_manifest_agree_with_its_objects_where_the_clock_was_set_back() {
    let (server, folder) = (GcsServer::spawn_thread(), tempfile::tempdir().unwrap());
    let cuts = cut(&encode(STREAMS[0], 20, folder.path()));
    let begin = (now() / HOUR - 3) * HOUR;
    let (first, second) = (begin + HOUR / 2, begin + 100 * SECOND);
    // Twelve seconds, and eight more after the clock was set back by half an hour.
    store_as(&server, "cam", "0a1b2c3d4e", &cuts[..3], first, &[]);
    store_as(&server, "cam", "0a1b2c3d4e", &cuts[3..], second, &[]);
    let dashboard = Dashboard::start(settings(&server));
    let range = format!("camera=cam&from={}&to={}", iso(begin), iso(begin + HOUR));
    let reply = get(&dashboard.address, &format!("/export?{range}&format=mp4"));
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    let manifest = get(&dashboard.address, &reply.headers["export-manifest"]).json();
    assert_eq!(manifest["objects"].as_array().unwrap().len(), 5);
    let gap = |from: u64, to: u64| serde_json::json!({"from": iso(from), "to": iso(to), "reason": "not-stored"});
    let expected = serde_json::json!([gap(begin, second), gap(first + 12 * SECOND, begin + HOUR)]);
    assert_eq!(manifest["gaps"], expected);
    // The page says the same.
    let timeline = get(&dashboard.address, &format!("/api/timeline?{range}")).json();
    assert_eq!(
        (&timeline["gaps"], timeline["ranges"].as_array().unwrap().len()),
        (&serde_json::json!([]), 2)
    );
}

#[test]
fn the_manifest_never_replaces_the_recording_however_its_path_is_spelled() {
    let folder = tempfile::tempdir().unwrap();
    let inside = |name: &str| folder.path().join(name).display().to_string();
    std::fs::create_dir(inside("films")).unwrap();
    std::os::unix::fs::symlink(inside("films"), inside("linked")).unwrap();
    let export = |manifest: &str, out: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gcstreamer-dashboard"));
        command.args([
            "export",
            "--bucket",
            BUCKET,
            "--endpoint-uri",
            "http://127.0.0.1:1",
            "--camera",
            "cam",
        ]);
        command.args(["--from", "2026-11-22T14:00:00Z", "--to", "2026-11-22T15:00:00Z"]);
        command.args(["--manifest", manifest, out]).current_dir(folder.path());
        let output = command.env_remove("STORAGE_EMULATOR_HOST").output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for (manifest, out) in [
        ("cam1.mp4", "cam1.mp4"),
        ("./cam1.mp4", "cam1.mp4"),
        ("cam1.mp4", &inside("cam1.mp4")),
        ("films/../cam1.mp4", "cam1.mp4"),
        ("linked/cam1.mp4", "films/cam1.mp4"),
    ] {
        let (status, said) = export(manifest, out);
        assert!(
            status == Some(2) && said.contains("would replace the recording"),
            "{manifest} {out}: {said}"
        );
    }
    // Others are; here the bucket does not answer.
    for (manifest, out) in [("films/cam1.mp4", "cam1.mp4"), ("cam1.json", "cam1.mp4")] {
        assert_eq!(export(manifest, out).0, Some(1), "{manifest} {out}");
    }
}

#[test]
fn a_fifth_export_is_asked_to_come_again() {
    use std::io::{Read as _, Write as _};
    let recorded = recorded(STREAMS[1], &[]);
    let path = |export: u64| recorded.address("site/ts", export, 20_000, "native");
    // Who reads nothing of a large file keeps its export running.
    let big: Vec<u8> = recorded.server.objects().into_values().next().unwrap().data;
    let ((_, name), object) = recorded.server.objects().into_iter().next().unwrap();
    let metadata = object.meta["metadata"].as_object().unwrap();
    let metadata = metadata
        .iter()
        .map(|(k, v)| (k.clone(), v.as_str().unwrap().to_owned()))
        .collect();
    recorded
        .server
        .put_with(BUCKET, &name, &big.repeat((24 << 20) / big.len()), &metadata);
    let fresh = Dashboard::start(settings(&recorded.server));
    let host = fresh.address.strip_prefix("http://").unwrap();
    let mut held: Vec<std::net::TcpStream> = (0..4).map(|_| std::net::TcpStream::connect(host).unwrap()).collect();
    for (stream, export) in held.iter_mut().zip(0..) {
        write!(stream, "GET {} HTTP/1.1\r\nHost: {host}\r\n\r\n", path(export)).unwrap();
        stream.read_exact(&mut [0; 12]).unwrap();
    }
    let part = ask(&fresh.address, "GET", &path(3), &["Range: bytes=0-99"], "");
    assert_eq!(
        (part.status, part.body.len()),
        (206, 100),
        "another range of one that runs is no fifth"
    );
    let fifth = get(&fresh.address, &path(4));
    assert_eq!(
        (fifth.status, fifth.headers["retry-after"].as_str()),
        (429, "30"),
        "{}",
        fifth.text()
    );
}

#[test]
fn the_page_learns_how_far_an_export_is() {
    let recorded = recorded(STREAMS[0], &[]);
    let address = &recorded.dashboard.address;
    let prepare = recorded
        .address("flv", 1000, 19_000, "mp4")
        .replace("/export?", "/export/prepare?");
    let ready = std::iter::repeat_with(|| ask(address, "POST", &prepare, &[], "").json()).find(|state| {
        assert!(state["done"].as_u64() <= state["of"].as_u64() && state["of"] == 5, "{state}");
        state["file"].is_string()
    });
    let ready = ready.unwrap();
    let file = get(address, ready["file"].as_str().unwrap());
    assert_eq!(Some(file.body.len() as u64), ready["bytes"].as_u64());
    assert_eq!(get(address, ready["manifest"].as_str().unwrap()).status, 200);
}

#[test]
fn the_command_line_exports_and_verifies_without_a_server() {
    let recorded = recorded(STREAMS[3], &[]);
    let at = |ms: u64| iso(recorded.start + ms * 1_000_000);
    let path = |name: &str| recorded.folder.path().join(name);
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gcstreamer-dashboard"));
        let output = command.args(arguments).env_remove("STORAGE_EMULATOR_HOST").output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.code(), text)
    };
    let (film, manifest) = (path("film.mp4").display().to_string(), path("m.json").display().to_string());
    let (from, to) = (at(3000), at(13_000));
    let (status, said) = run(&[
        "export",
        "--bucket",
        BUCKET,
        "--endpoint-uri",
        &recorded.server.endpoint(),
        "--camera",
        "site/deep/mkv",
        "--from",
        &from,
        "--to",
        &to,
        "--manifest",
        &manifest,
        &film,
    ]);
    assert_eq!(status, Some(0), "{said}");
    let served = get(
        &recorded.dashboard.address,
        &recorded.address("site/deep/mkv", 3000, 13_000, "mp4"),
    );
    assert!(
        std::fs::read(&film).unwrap() == served.body,
        "the same bytes as from the server"
    );
    assert_eq!(pictures(Path::new(&film)).len(), 250);
    let (status, said) = run(&["verify", &manifest, &film]);
    assert_eq!(
        (status, said.starts_with("whole: 4 chunks of site/deep/mkv")),
        (Some(0), true),
        "{said}"
    );
    let mut bytes = std::fs::read(&film).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(&film, bytes).unwrap();
    let (status, said) = run(&["verify", &manifest, &film]);
    assert_eq!((status, said.starts_with("bytes: site/deep/mkv/")), (Some(1), true), "{said}");
    assert_eq!(run(&["verify", &film, &film]).0, Some(2));
    let wrong = [
        "export",
        "--bucket",
        BUCKET,
        "--camera",
        "c",
        "--from",
        "yesterday",
        "--to",
        &to,
        &film,
    ];
    assert_eq!(run(&wrong).0, Some(2));
    // What cannot be written is told before anything is read, and nothing is left behind.
    let (endpoint, other) = (recorded.server.endpoint(), path("other.mp4").display().to_string());
    for (manifest, out, fault) in [
        ("/nonexistent/m.json", other.as_str(), "/nonexistent/m.json"),
        (&manifest, "/nonexistent/x.mp4", "/nonexistent/x.mp4"),
        (&manifest, "/dev/null", "/dev/null"),
    ] {
        let camera = [
            "export",
            "--bucket",
            BUCKET,
            "--endpoint-uri",
            &endpoint,
            "--camera",
            "site/deep/mkv",
        ];
        let range = ["--from", &from, "--to", &to, "--manifest", manifest, out];
        let (status, said) = run(&[&camera[..], &range].concat());
        assert!(status == Some(1) && said.contains(fault), "{said}");
    }
    let names = std::fs::read_dir(recorded.folder.path()).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(
        names
            .filter(|name| name.ends_with(".unfinished") || name == "other.mp4")
            .count(),
        0
    );
    for (arguments, says) in [
        (&["completions", "bash"][..], "complete -F"),
        (&["man"], ".TH gcstreamer-dashboard"),
        (&["man"], "\n.SH COMMAND EXPORT\n"),
    ] {
        let (status, said) = run(arguments);
        assert!(status == Some(0) && said.contains(says), "{said}");
    }
}
