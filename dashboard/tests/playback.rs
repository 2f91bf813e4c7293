//! Recordings play to the last frame, whatever their container, judged by ffprobe over HTTP.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::collections::BTreeMap;

use common::{
    BUCKET, Cut, Dashboard, FLV_PICTURES, FLV_SOUND, GcsServer, SECOND, STREAMS, Stream, cut, decoded, encode, get, iso, now,
    pause, settings, store, store_as,
};

/// A recording in a bucket, and a dashboard on it.
struct Recorded {
    server: GcsServer,
    dashboard: Dashboard,
    start: u64,
    cuts: Vec<Cut>,
    /// Frames of pictures and of sound in the stream.
    frames: (usize, usize),
}

/// A recording of `seconds` in the bucket, from a minute ago on, without the numbers `left_out`.
fn recorded(stream: Stream, seconds: u32, left_out: &[u64]) -> Recorded {
    let folder = tempfile::tempdir().unwrap();
    let bytes = encode(stream, seconds, folder.path());
    let (pictures, sound, _) = decoded(&folder.path().join("stream").display().to_string());
    let server = GcsServer::spawn_thread();
    let start = (now() - 60 * SECOND) / SECOND * SECOND;
    let cuts = cut(&bytes);
    store(&server, stream.camera, &cuts, start, left_out);
    let dashboard = Dashboard::start(settings(&server));
    Recorded {
        server,
        dashboard,
        start,
        cuts,
        frames: (pictures, sound),
    }
}

fn playlist(stream: Stream, start: u64) -> String {
    format!(
        "/hls/index.m3u8?camera={}&from={}&to={}",
        stream.camera,
        iso(start),
        iso(start + 60 * SECOND)
    )
}

/// What ffprobe says of what is as it should be.
fn is_expected(stream: Stream, line: &str) -> bool {
    let repeats_header = stream.camera == "hevc" && line.contains("duplicated MOOV");
    line.trim().is_empty() || line.contains("Opening") || repeats_header
}

#[test]
fn every_container_plays_to_its_last_frame() {
    for stream in STREAMS {
        let Recorded {
            dashboard,
            start,
            cuts,
            frames: (pictures, sound),
            server: _server,
        } = recorded(stream, 20, &[]);
        let address = format!("{}{}", dashboard.address, playlist(stream, start));
        let text = get(&dashboard.address, &playlist(stream, start)).text();
        let (seen, heard, said) = decoded(&address);
        assert_eq!(seen, 500, "{stream:?}: {said}\n{text}");
        assert_eq!((seen, pictures), (pictures, seen), "{stream:?}: {said}\n{text}");
        assert!(
            heard.abs_diff(sound) <= 1,
            "{stream:?}: {heard} of {sound} frames of sound; {said}"
        );
        assert_eq!((text.matches("#EXTINF").count(), cuts.len()), (5, 5), "{text}");
        assert_eq!(text.matches("#EXT-X-DISCONTINUITY").count(), 0, "{text}");
        // The parameter sets of a transport stream may change without a change of its header, so each of its chunks names its own.
        let complaints: Vec<&str> = said.lines().filter(|line| !is_expected(stream, line)).collect();
        assert!(complaints.is_empty(), "{stream:?}: {complaints:?}\n{text}");
    }
}

#[test]
fn fragmented_mp4_with_sound_that_browsers_lack_plays_without_it_and_says_so() {
    let stream = Stream {
        camera: "site/dolby",
        arguments: "-c:v libx264 -bf 2 -c:a ac3 -ar 48000 -f mp4 -movflags frag_keyframe+delay_moov+default_base_moof",
    };
    let Recorded {
        dashboard,
        start,
        server: _server,
        ..
    } = recorded(stream, 20, &[]);
    let text = get(&dashboard.address, &playlist(stream, start)).text();
    assert!(text.contains("\n# left out: ac-3\n"), "{text}");
    let (seen, heard, said) = decoded(&format!("{}{}", dashboard.address, playlist(stream, start)));
    assert_eq!((seen, heard), (500, 0), "{said}\n{text}");
}

#[test]
fn a_header_that_each_chunk_names_for_itself_costs_the_bucket_nothing_and_is_named_once_when_it_is_known() {
    let hevc = STREAMS[4];
    let recorded = recorded(hevc, 20, &[]);
    let address = &recorded.dashboard.address;
    let text = get(address, &playlist(hevc, recorded.start)).text();
    let named = |text: &str| -> Vec<String> {
        let maps = text.lines().filter_map(|line| line.strip_prefix("#EXT-X-MAP:URI=\""));
        maps.map(|line| line.trim_end_matches('"').to_owned()).collect()
    };
    let count = |text: &str, tag: &str| text.matches(tag).count();
    assert_eq!(
        (
            named(&text).len(),
            count(&text, "#EXTINF"),
            count(&text, "#EXT-X-DISCONTINUITY")
        ),
        (5, 5, 0),
        "{text}"
    );
    // As a player does: header, segment, header, segment.
    let mut headers = std::collections::BTreeSet::new();
    let segments: Vec<&str> = text.lines().filter(|line| line.starts_with("/media")).collect();
    for (header, segment) in named(&text).iter().zip(&segments) {
        let header = get(address, header);
        assert!(header.headers["cache-control"].contains("immutable"), "{:?}", header.headers);
        headers.insert(header.body);
        assert_eq!(get(address, segment).status, 200);
    }
    assert_eq!(headers.len(), 1, "all of them are one header");
    let reads = recorded.server.requests();
    let reads = reads
        .iter()
        .filter(|request| request.query.get("alt").is_some_and(|alt| alt == "media"));
    assert_eq!(reads.count(), 5, "each chunk is read once");
    let text = get(address, &playlist(hevc, recorded.start)).text();
    assert_eq!((named(&text).len(), count(&text, "#EXTINF")), (1, 5), "{text}");
}

#[test]
fn fragmented_mp4_without_the_length_of_its_header_plays() {
    let stream = STREAMS.into_iter().find(|stream| stream.camera == "site/fmp4").unwrap();
    let Recorded {
        dashboard,
        start,
        server,
        frames: (pictures, _),
        ..
    } = recorded(stream, 20, &[]);
    for ((_, name), object) in server.objects() {
        let mut metadata: std::collections::BTreeMap<String, String> =
            serde_json::from_value(object.meta["metadata"].clone()).unwrap();
        metadata.insert("init-bytes".into(), "0".into());
        metadata.remove("init-crc32c");
        server.put_with(BUCKET, &name, &object.data, &metadata);
    }
    let text = get(&dashboard.address, &playlist(stream, start)).text();
    assert_eq!(text.matches(".m4s\n").count(), 5, "{text}");
    let (seen, heard, said) = decoded(&format!("{}{}", dashboard.address, playlist(stream, start)));
    assert_eq!((seen, heard > 800), (pictures, true), "{said}\n{text}");
    // Once the chunks were remuxed it is known that their headers are one.
    let text = get(&dashboard.address, &playlist(stream, start)).text();
    assert_eq!(text.matches("#EXT-X-MAP").count(), 1, "{text}");
    let (seen, _, said) = decoded(&format!("{}{}", dashboard.address, playlist(stream, start)));
    assert_eq!((seen, said.contains("duplicated")), (pictures, false), "{said}");
}

#[test]
fn decode_times_ascend_and_sound_lies_on_its_grid_across_chunks() {
    for stream in STREAMS {
        let Recorded {
            dashboard,
            start,
            server: _server,
            ..
        } = recorded(stream, 20, &[]);
        let address = format!("{}{}", dashboard.address, playlist(stream, start));
        for select in ["v:0", "a:0"] {
            let mut command = std::process::Command::new("ffprobe");
            command.args([
                "-v",
                "error",
                "-select_streams",
                select,
                "-show_entries",
                "packet=dts_time",
                "-of",
                "csv=p=0",
                &address,
            ]);
            let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
            let times: Vec<f64> = text
                .lines()
                .filter_map(|line| line.trim_end_matches(',').parse().ok())
                .collect();
            // What ffmpeg's own muxer writes first of an MP4 is passed on as it is: a frame of encoder delay.
            let times = &times[usize::from(stream.arguments.contains("-f mp4"))..];
            assert!(times.len() > 400, "{stream:?} {select}: {}", times.len());
            for pair in times.windows(2) {
                let step = pair[1] - pair[0];
                let usual = if select == "v:0" { 0.04 } else { 0.0225 };
                assert!(
                    step > 0.0 && (step - usual).abs() < 0.0025,
                    "{stream:?} {select}: {} follows {}",
                    pair[1],
                    pair[0]
                );
            }
        }
    }
}

#[test]
fn a_chunk_that_is_missing_is_a_discontinuity_and_the_rest_plays() {
    for stream in STREAMS {
        let Recorded {
            dashboard,
            start,
            cuts,
            frames: (pictures, _),
            server: _server,
        } = recorded(stream, 20, &[2]);
        let folder = tempfile::tempdir().unwrap();
        let lost = folder.path().join("lost");
        std::fs::write(&lost, &cuts[2].bytes).unwrap();
        let (lost, _, _) = decoded(&lost.display().to_string());
        let text = get(&dashboard.address, &playlist(stream, start)).text();
        assert_eq!(
            (
                text.matches("#EXTINF").count(),
                text.matches("#EXT-X-DISCONTINUITY\n").count()
            ),
            (4, 1),
            "{text}"
        );
        let (seen, _, said) = decoded(&format!("{}{}", dashboard.address, playlist(stream, start)));
        assert_eq!(seen, pictures - lost, "{stream:?}: {said}");
    }
}

#[test]
fn sound_that_comes_late_or_pauses_and_pictures_that_pause_play_behind_the_header_of_any_chunk() {
    let folder = tempfile::tempdir().unwrap();
    let bytes = encode(STREAMS[0], 20, folder.path());
    let (_, sound, _) = decoded(&folder.path().join("stream").display().to_string());
    for (sounds, pictures) in [(&[0u64, 2][..], &[][..]), (&[3], &[1]), (&[], &[0, 2])] {
        let mut cuts = cut(&bytes);
        let in_chunk = |at: &u64| {
            let chunk = folder.path().join("chunk");
            std::fs::write(&chunk, &cuts[usize::try_from(*at).unwrap()].bytes).unwrap();
            decoded(&chunk.display().to_string())
        };
        let seen: usize = 500 - pictures.iter().map(|at| in_chunk(at).0).sum::<usize>();
        for (all, kind) in [(sounds, FLV_SOUND), (pictures, FLV_PICTURES)] {
            all.iter()
                .for_each(|at| pause(&mut cuts[usize::try_from(*at).unwrap()], kind));
        }
        let server = GcsServer::spawn_thread();
        let start = (now() - 60 * SECOND) / SECOND * SECOND;
        store(&server, "flv", &cuts, start, &[]);
        let dashboard = Dashboard::start(settings(&server));
        let text = get(&dashboard.address, &playlist(STREAMS[0], start)).text();
        assert_eq!(text.matches("#EXT-X-MAP").count(), 1, "{text}");
        let (pictures_seen, sound_heard, said) = decoded(&format!("{}{}", dashboard.address, playlist(STREAMS[0], start)));
        assert_eq!(
            pictures_seen, seen,
            "without sound in {sounds:?}, without pictures in {pictures:?}: {said}"
        );
        assert!(
            sound_heard.abs_diff(sound) <= 8,
            "silence takes the place of the sound {sounds:?}, or browsers would jump over its pictures: {sound_heard} of {sound}: {said}"
        );
        let complaints: Vec<&str> = said.lines().filter(|line| !is_expected(STREAMS[0], line)).collect();
        assert!(complaints.is_empty(), "{complaints:?}");
    }
}

#[test]
fn a_running_recording_is_followed() {
    let stream = STREAMS[0];
    let Recorded {
        dashboard,
        server: _server,
        ..
    } = recorded(stream, 20, &[]);
    let text = get(&dashboard.address, &format!("/hls/live.m3u8?camera={}", stream.camera)).text();
    assert!(!text.contains("ENDLIST") && text.matches("#EXTINF").count() == 5, "{text}");
    assert!(text.contains("#EXT-X-MEDIA-SEQUENCE:"));
}

#[test]
fn the_picture_of_an_instant_is_one_frame_of_its_chunk() {
    for stream in STREAMS {
        let Recorded {
            dashboard,
            start,
            server: _server,
            ..
        } = recorded(stream, 12, &[]);
        let found = get(
            &dashboard.address,
            &format!("/preview?camera={}&t={}", stream.camera, iso(start + 5 * SECOND)),
        );
        assert_eq!((found.status, found.headers["cache-control"].as_str()), (302, "no-store"));
        assert_eq!(found.headers["picture-time"], iso(start + 4 * SECOND));
        let picture = get(&dashboard.address, &found.headers["location"]);
        assert_eq!((picture.status, picture.headers["content-type"].as_str()), (200, "video/mp4"));
        assert!(picture.headers["cache-control"].contains("immutable"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("picture.mp4");
        std::fs::write(&path, &picture.body).unwrap();
        let (pictures, sound, said) = decoded(&path.display().to_string());
        assert_eq!((pictures, sound, said.as_str()), (1, 0, ""), "{stream:?}");
        assert_eq!(
            get(
                &dashboard.address,
                &format!("/preview?camera={}&t={}", stream.camera, iso(start - 3600 * SECOND))
            )
            .status,
            404
        );
    }
}

#[test]
fn what_a_drifting_clock_leaves_between_two_chunks_is_shown_as_the_chunk_before_it() {
    let folder = tempfile::tempdir().unwrap();
    let cuts = cut(&encode(STREAMS[0], 12, folder.path()));
    let server = GcsServer::spawn_thread();
    let (start, session) = ((now() - 600 * SECOND) / SECOND * SECOND, "0a1b2c3d4e");
    let (late, pause) = (200_000_000, 30 * SECOND);
    // The second begins 200 ms after the end of the first, by its clock; the third half a minute later, and says so.
    store_as(&server, "cam", session, &cuts[..1], start, &[]);
    store_as(&server, "cam", session, &cuts[1..2], start + 4 * SECOND + late, &[]);
    let mut third = cuts[2].clone();
    third.info.gap = Some(gcstreamer_schema::GapReason::Stalled);
    store_as(&server, "cam", session, &[third], start + 8 * SECOND + pause, &[]);
    let dashboard = Dashboard::start(settings(&server));
    let preview = |t: u64| get(&dashboard.address, &format!("/preview?camera=cam&t={}", iso(t)));
    let between = start + 4 * SECOND + late / 2;
    let picture = preview(between);
    assert_eq!(
        (picture.status, picture.headers.get("picture-time")),
        (302, Some(&iso(start)))
    );
    let missing = start + 8 * SECOND + pause / 2;
    assert_eq!(preview(missing).status, 404, "nothing was recorded then");
    let playlist = |from: u64, to: u64| {
        let path = format!("/hls/index.m3u8?camera=cam&from={}&to={}", iso(from), iso(to));
        let reply = get(&dashboard.address, &path);
        (reply.status, reply.text().matches("#EXTINF").count())
    };
    assert_eq!(playlist(between - late / 4, between + late / 4), (200, 1));
    assert_eq!(playlist(missing, missing + SECOND).0, 404);
    assert_eq!(
        playlist(between, start + 5 * SECOND),
        (200, 1),
        "what is recorded there is enough"
    );
}

/// Object name, bytes and metadata of a chunk of a recording.
fn stored(recorded: &Recorded, sequence: usize) -> (String, Vec<u8>, BTreeMap<String, String>) {
    let ((_, name), object) = recorded.server.objects().into_iter().nth(sequence).unwrap();
    let metadata = serde_json::from_value(object.meta["metadata"].clone()).unwrap();
    (name, object.data, metadata)
}

#[test]
fn a_picture_that_comes_late_in_its_chunk_has_its_own_time() {
    for (what, between) in [("near", 0), ("behind 1 MiB", 1_500_000)] {
        let recorded = recorded(STREAMS[0], 8, &[]);
        let (name, data, mut metadata) = stored(&recorded, 1);
        // Without its key frame the chunk begins with pictures that depend on it; the next key frame is two seconds later.
        let (mut at, mut bytes) = (usize::try_from(recorded.cuts[1].info.init_bytes).unwrap(), Vec::new());
        let mut is_lost = false;
        bytes.extend_from_slice(&data[..at]);
        while let [kind, a, b, c, ..] = data[at..] {
            let end = at + 11 + usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap() + 4;
            // A key frame of AVC that holds NAL units.
            if !is_lost && kind == FLV_PICTURES && data[at + 11..].starts_with(&[0x17, 1]) {
                is_lost = true;
            } else {
                bytes.extend_from_slice(&data[at..end]);
            }
            // A script tag, which nobody reads.
            if is_lost && bytes.len() < between {
                let size = u32::try_from(between).unwrap().to_be_bytes();
                bytes.extend([18, size[1], size[2], size[3]]);
                bytes.extend_from_slice(&data[at + 4..at + 8]);
                bytes.extend([0; 3]);
                bytes.extend(vec![0; between]);
                bytes.extend((u32::try_from(between).unwrap() + 11).to_be_bytes());
            }
            at = end;
        }
        assert!(is_lost);
        metadata.insert("key-frame".into(), "false".into());
        metadata.remove("preview-bytes");
        recorded.server.put_with(BUCKET, &name, &bytes, &metadata);
        let dashboard = Dashboard::start(settings(&recorded.server));
        let found = get(
            &dashboard.address,
            &format!("/preview?camera=flv&t={}", iso(recorded.start + 5 * SECOND)),
        );
        assert_eq!((found.status, found.headers.get("picture-time")), (302, None), "{what}");
        let picture = get(&dashboard.address, &found.headers["location"]);
        assert_eq!(picture.status, 200, "{what}: {}", String::from_utf8_lossy(&picture.body));
        assert_eq!(picture.headers["picture-time"], iso(recorded.start + 6 * SECOND), "{what}");
    }
}

#[test]
fn a_chunk_that_was_damaged_in_the_bucket_is_refused_for_good_and_its_neighbours_play() {
    for stream in [STREAMS[0], STREAMS[3]] {
        let recorded = recorded(stream, 12, &[]);
        let (name, data, metadata) = stored(&recorded, 1);
        recorded.server.put_with(BUCKET, &name, &vec![0; data.len()], &metadata);
        let dashboard = Dashboard::start(settings(&recorded.server));
        let text = get(&dashboard.address, &playlist(stream, recorded.start)).text();
        let media: Vec<&str> = text.lines().filter(|line| line.ends_with(".m4s")).collect();
        // A player asks again for what fails with 5xx.
        let answers = [0, 1, 2].map(|index: usize| get(&dashboard.address, media[index]));
        assert_eq!(
            answers.each_ref().map(|answer| answer.status),
            [200, 415, 200],
            "{stream:?}: {text}"
        );
        assert!(
            answers[1].json()["error"].as_str().unwrap().contains("the chunk"),
            "{stream:?}"
        );
    }
}

#[test]
fn media_of_objects_that_are_no_chunks_is_not_served() {
    let stream = STREAMS[0];
    let Recorded { server, dashboard, .. } = recorded(stream, 8, &[]);
    let secret = server.put(BUCKET, "flv/secret.txt", b"secret");
    let mut names: Vec<String> = server.objects().into_keys().map(|(_, name)| name).collect();
    let chunk = names.remove(0);
    // A name that the template gives, without our metadata.
    let copy = chunk.replace("_000000", "_000099");
    let bare = server.put(BUCKET, &copy, b"secret");
    let encoded = |name: &str| name.replace('/', "%2F");
    for path in [
        format!("/media/{secret}/flv%2Fsecret.txt.mp4"),
        format!("/media/{bare}/{}.mp4", encoded(&copy)),
        format!("/media/1/{}.mp4", encoded(&chunk)),
        format!("/media/{secret}/flv%2F..%2Fflv%2Fsecret.txt.mp4"),
        format!("/media/x/{}.mp4", encoded(&chunk)),
        "/media/1/".into(),
    ] {
        let reply = get(&dashboard.address, &path);
        assert!(
            [400, 404].contains(&reply.status) && !reply.text().contains("secret\""),
            "{path}: {reply:?}"
        );
    }
}

#[test]
fn ranges_of_stored_and_remuxed_media_are_served() {
    for (index, extension) in [(0usize, "m4s"), (2, "mp4")] {
        let stream = STREAMS[index];
        let Recorded { server, dashboard, .. } = recorded(stream, 8, &[]);
        let ((_, name), object) = server.objects().into_iter().next().unwrap();
        let path = format!("/media/{}/{}.{extension}", object.generation, name.replace('/', "%2F"));
        let whole = get(&dashboard.address, &path);
        assert_eq!(whole.status, 200);
        let part = common::ask(&dashboard.address, "GET", &path, &["Range: bytes=100-199"], "");
        assert_eq!((part.status, &part.body[..]), (206, &whole.body[100..200]), "{extension}");
        assert_eq!(part.headers["content-range"], format!("bytes 100-199/{}", whole.body.len()));
        assert_eq!(
            common::ask(&dashboard.address, "GET", &path, &["Range: bytes=999999999-"], "").status,
            416
        );
    }
}
