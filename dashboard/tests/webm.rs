//! VP9, AV1 and VP8 from WebM, Matroska, FLV and fragmented MP4: played, exported, shown as a picture. Judged by ffmpeg.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::path::Path;

use common::{Dashboard, GcsServer, SECOND, Stream, cut, decoded, decoded_pictures, encode, get, iso, now, settings, store};
use gcstreamer_dashboard::export::manifest::Manifest;
use gcstreamer_schema::name::Template;

const SECONDS: u32 = 12;

/// What is recorded.
struct Kind {
    stream: Stream,
    /// The stream goes into FLV, which this ffmpeg does not write with such pictures: by this FourCC.
    four_cc: Option<&'static [u8; 4]>,
    /// Sound that is left out.
    without: Option<&'static str>,
}

fn kind(camera: &'static str, arguments: &'static str) -> Kind {
    Kind {
        stream: Stream { camera, arguments },
        four_cc: None,
        without: None,
    }
}

/// With pictures that are not shown, so that blocks are superframes; of ten bits; beside sound that MP4 or browsers do not take.
fn played() -> Vec<Kind> {
    let vp9 = "-c:v libvpx-vp9 -deadline good -cpu-used 8 -auto-alt-ref 1 -lag-in-frames 12";
    let av1 = "-c:v libaom-av1 -usage realtime -cpu-used 8";
    let of = |codec: &str, rest: &str| &*String::leak(format!("{codec} {rest}"));
    vec![
        kind("vp9", of(vp9, "-c:a libopus -f webm")),
        kind(
            "vp9-10",
            of("-pix_fmt yuv420p10le", of(vp9, "-profile:v 2 -c:a libopus -f webm")),
        ),
        kind("av1", of(av1, "-c:a aac -ar 48000 -f matroska")),
        Kind {
            without: Some("vorbis"),
            ..kind("av1-vorbis", of(av1, "-c:a libvorbis -f webm"))
        },
        Kind {
            without: Some("ac-3"),
            ..kind(
                "vp9-ac3",
                of(vp9, "-c:a ac3 -f mp4 -movflags frag_keyframe+delay_moov+default_base_moof"),
            )
        },
        Kind {
            four_cc: Some(b"vp09"),
            ..kind("vp9-flv", of(vp9, "-an -f ivf"))
        },
        Kind {
            four_cc: Some(b"av01"),
            ..kind("av1-flv", of(av1, "-an -f ivf"))
        },
    ]
}

/// The frames of an IVF as enhanced FLV without a record: 32 bytes in front, then 12 of each frame with its size and number.
fn flv(ivf: &[u8], four_cc: &[u8; 4]) -> Vec<u8> {
    let mut out = b"FLV\x01\x01\0\0\0\x09\0\0\0\0".to_vec();
    let (mut at, mut n) = (32, 0u32);
    while let Some(size) = ivf.get(at..at + 4) {
        let end = at + 12 + usize::try_from(u32::from_le_bytes(size.try_into().unwrap())).unwrap();
        let is_key = n.is_multiple_of(50);
        let data = [&[if is_key { 0x91 } else { 0xa1 }][..], four_cc, &ivf[at + 12..end]].concat();
        let size = u32::try_from(data.len()).unwrap();
        let [_, s0, s1, s2] = size.to_be_bytes();
        let [t3, t0, t1, t2] = (n * 40).to_be_bytes();
        out.extend([9, s0, s1, s2, t0, t1, t2, t3, 0, 0, 0]);
        out.extend(data);
        out.extend((size + 11).to_be_bytes());
        (at, n) = (end, n + 1);
    }
    out
}

/// A recording in a bucket, and a dashboard on it.
struct Recorded {
    _server: GcsServer,
    dashboard: Dashboard,
    start: u64,
    folder: tempfile::TempDir,
    /// Each picture of the stream.
    source: Vec<String>,
    /// Frames of sound in it.
    sound: usize,
}

fn recorded(kind: &Kind) -> Recorded {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = encode(kind.stream, SECONDS, folder.path());
    let file = folder.path().join("stream");
    let (_, sound, _) = decoded(&file.display().to_string());
    let source = pictures(kind.stream.camera, &file);
    assert_eq!(source.len(), 300, "{}", kind.stream.camera);
    if let Some(four_cc) = kind.four_cc {
        bytes = flv(&bytes, four_cc);
    }
    let server = GcsServer::spawn_thread();
    let start = (now() - 60 * SECOND) / SECOND * SECOND;
    let cuts = cut(&bytes);
    assert_eq!(cuts.len(), 3, "{}", kind.stream.camera);
    store(&server, kind.stream.camera, &cuts, start, &[]);
    let dashboard = Dashboard::start(settings(&server));
    Recorded {
        _server: server,
        dashboard,
        start,
        folder,
        source,
        sound,
    }
}

/// MD5 of each decoded picture. For AV1 this decoder, since ffmpeg up to 6 shows what lies before an edit list by its other one.
fn pictures(codec: &str, input: &Path) -> Vec<String> {
    decoded_pictures(codec.starts_with("av1").then_some("libaom-av1"), input)
}

impl Recorded {
    fn range(&self, camera: &str, from_ms: u64, to_ms: u64) -> String {
        let at = |ms: u64| iso(self.start + ms * 1_000_000);
        format!("camera={camera}&from={}&to={}", at(from_ms), at(to_ms))
    }

    /// Exports six seconds from between two key frames on as MP4: exactly their pictures, and a manifest that agrees.
    fn assert_film(&self, camera: &str) -> usize {
        let reply = get(
            &self.dashboard.address,
            &format!("/export?{}&format=mp4", self.range(camera, 3000, 9000)),
        );
        assert_eq!(reply.status, 200, "{camera}: {}", String::from_utf8_lossy(&reply.body));
        let film = self.folder.path().join("film.mp4");
        std::fs::write(&film, &reply.body).unwrap();
        let shown = pictures(camera, &film);
        assert!(shown == self.source[75..225], "{camera}: {} pictures", shown.len());
        let manifest = get(&self.dashboard.address, &reply.headers["export-manifest"]);
        let manifest: Manifest = serde_json::from_slice(&manifest.body).unwrap();
        let template = Template::parse(gcstreamer_dashboard::settings::DEFAULT_LOCATION).unwrap();
        let faults = manifest.verify(std::io::Cursor::new(&reply.body), &template).unwrap();
        assert_eq!(faults, Vec::<String>::new());
        decoded(&film.display().to_string()).1
    }

    /// The picture of an instant is one key frame.
    fn assert_preview(&self, camera: &str) {
        let t = iso(self.start + 5 * SECOND);
        let found = get(&self.dashboard.address, &format!("/preview?camera={camera}&t={t}"));
        let picture = get(&self.dashboard.address, &found.headers["location"]);
        assert_eq!(picture.status, 200, "{camera}: {}", String::from_utf8_lossy(&picture.body));
        assert_eq!(picture.headers["picture-time"], iso(self.start + 4 * SECOND), "{camera}");
        let file = self.folder.path().join("picture.mp4");
        std::fs::write(&file, &picture.body).unwrap();
        assert!(pictures(camera, &file) == self.source[100..101], "{camera}");
    }
}

#[test]
fn vp9_and_av1_of_each_container_play_and_are_exported_to_the_frame() {
    for kind in played() {
        let camera = kind.stream.camera;
        let recorded = recorded(&kind);
        let path = format!("/hls/index.m3u8?{}", recorded.range(camera, 0, 60_000));
        let reply = get(&recorded.dashboard.address, &path);
        let text = reply.text();
        assert_eq!(reply.status, 200, "{camera}: {text}");
        let count = |tag: &str| text.matches(tag).count();
        assert_eq!(
            (count("#EXTINF"), count("#EXT-X-MAP"), count("#EXT-X-DISCONTINUITY")),
            (3, 1, 0),
            "{camera}: {text}"
        );
        let reported = kind.without.map(|codec| format!("# left out: {codec}\n"));
        assert_eq!(count("# left out: "), usize::from(reported.is_some()), "{text}");
        assert!(text.contains(reported.as_deref().unwrap_or_default()), "{text}");
        let (seen, heard, said) = decoded(&format!("{}{path}", recorded.dashboard.address));
        let sound = if kind.without.is_some() { 0 } else { recorded.sound };
        assert_eq!(seen, 300, "{camera}: {said}\n{text}");
        assert!(
            heard.abs_diff(sound) <= 1,
            "{camera}: {heard} of {sound} frames of sound; {said}"
        );
        let complaints: Vec<&str> = said.lines().filter(|line| !line.contains("Opening")).collect();
        assert!(
            complaints.iter().all(|line| line.trim().is_empty()),
            "{camera}: {complaints:?}"
        );
        let in_film = recorded.assert_film(camera);
        assert!(in_film.abs_diff(sound / 2) <= 3, "{camera}: {in_film} of {}", sound / 2);
        recorded.assert_preview(camera);
    }
}

#[test]
fn vp8_is_exported_to_the_frame_and_why_it_does_not_play_is_reported() {
    let vp8 = "-c:v libvpx -deadline realtime -cpu-used 8 -c:a libopus -f webm";
    let kind = kind("vp8", vp8);
    let recorded = recorded(&kind);
    let path = format!("/hls/index.m3u8?{}", recorded.range("vp8", 0, 60_000));
    let refused = get(&recorded.dashboard.address, &path);
    assert_eq!(refused.status, 415);
    let error = "it is stored as webm (vp8,opus), which no browser plays from an MP4";
    assert_eq!(refused.json()["error"], error);
    let sound = recorded.assert_film("vp8");
    assert!(sound.abs_diff(recorded.sound / 2) <= 3, "{sound} of {}", recorded.sound / 2);
    recorded.assert_preview("vp8");
}
