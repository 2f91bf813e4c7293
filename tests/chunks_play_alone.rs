//! Every chunk plays alone, whatever the muxer: frames add up, the first is key, the decoder has nothing to say.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use common::*;

const CUT: &str = "max-size-time=2000000000";

/// 8 s of H.264 with B-frames through a muxer, judged in full.
fn check(mux: &str, container: &str, with_audio: bool) {
    let video = h264(8);
    let front = if with_audio {
        format!("{video} ! mux. {} ! mux. {mux}", aac(8))
    } else {
        format!("{video} ! {mux}")
    };
    let (chunks, input, words) = record(&front, CUT);
    let summary: Vec<_> = chunks
        .iter()
        .map(|c| {
            (
                c.get("duration-ms"),
                c.get("gap-reason"),
                c.get("pts-start-ns"),
                c.get("init-bytes"),
            )
        })
        .collect();
    assert_eq!(chunks.len(), 4, "{container}: {summary:?} {words:?}");
    assert_eq!(assert_each_plays(&chunks), 120, "{container}");
    assert!(chunks.iter().all(|c| c.get("container") == container));
    if !container.starts_with("matroska") {
        assert!(
            joined(&chunks) == input,
            "{container}: init of chunk 0 and all payloads are the input"
        );
    }
    if with_audio {
        let packets: u64 = chunks.iter().map(|c| judge(&c.name, &c.data).audio_packets).sum();
        assert!(packets >= 340, "{container}: {packets} audio packets of 345");
    }
    for (i, chunk) in chunks.iter().enumerate() {
        assert_eq!(chunk.number("sequence"), i as u64);
        assert_eq!(chunk.get("continuous"), if i == 0 { "false" } else { "true" });
        assert!(
            chunk.number("duration-ms").abs_diff(2000) <= 1,
            "{container}: {:?}",
            chunk.metadata
        );
        let init = &chunk.data[..usize::try_from(chunk.number("init-bytes")).unwrap()];
        let crc32c = gcs_server::base64(&crc32c::crc32c(init).to_be_bytes());
        assert_eq!(chunk.get("init-crc32c"), crc32c, "{container}: chunk {i}");
        assert!(chunk.number("preview-bytes") > chunk.number("init-bytes"));
        let preview = judge(
            "preview",
            &chunk.data[..usize::try_from(chunk.number("preview-bytes")).unwrap()],
        );
        assert!(preview.frames >= 1, "{container}: the preview of chunk {i} shows its picture");
        assert!(chunk.get("codecs").starts_with("avc1."), "{container}: {:?}", chunk.metadata);
        assert_eq!(
            chunk.get("codecs").contains("mp4a.40.2"),
            with_audio,
            "{container}: {:?}",
            chunk.metadata
        );
    }
    assert!(!words.iter().any(|(kind, _)| *kind == "warning"), "{words:?}");
}

#[test]
fn flv_with_sound_plays() {
    check("flvmux streamable=true name=mux", "flv", true);
}

#[test]
fn flv_without_sound_plays() {
    check("flvmux streamable=true name=mux", "flv", false);
}

#[test]
fn flv_of_a_muxer_that_would_like_to_seek_plays() {
    check("flvmux name=mux", "flv", true);
}

#[test]
fn transport_streams_with_sound_play() {
    check("mpegtsmux name=mux", "mpegts", true);
}

#[test]
fn transport_streams_without_sound_play() {
    check("mpegtsmux name=mux alignment=7", "mpegts", false);
}

#[test]
fn fragmented_mp4_with_sound_plays() {
    check("mp4mux fragment-duration=1000 name=mux", "fmp4", true);
}

#[test]
fn fragmented_mp4_without_sound_plays() {
    check("mp4mux fragment-duration=1000 streamable=true name=mux", "fmp4", false);
}

// These two ask for a key unit at each fragment, and the encoder's answer, a GstForceKeyUnit event, is a wish for a cut too.
#[test]
fn isofmp4mux_with_sound_plays() {
    check("isofmp4mux fragment-duration=2000000000 name=mux", "fmp4", true);
}

#[test]
fn cmafmux_plays() {
    check("cmafmux fragment-duration=2000000000 name=mux", "fmp4", false);
}

#[test]
fn matroska_with_sound_plays() {
    check("matroskamux streamable=true name=mux", "matroska", true);
}

#[test]
fn matroska_without_sound_plays() {
    check("matroskamux streamable=true name=mux", "matroska", false);
}

#[test]
fn webm_with_vp8_plays() {
    let front = format!(
        "{} ! vp8enc deadline=1 keyframe-max-dist=15 ! webmmux streamable=true",
        video(8)
    );
    let (chunks, input, _) = record(&front, CUT);
    assert_eq!(chunks.len(), 4);
    assert_eq!(assert_each_plays(&chunks), 120);
    assert!(joined(&chunks) == input);
    assert_eq!(chunks[0].object.meta["contentType"], "video/webm");
}

#[test]
fn h265_in_a_transport_stream_plays() {
    let encoder = "x265enc speed-preset=ultrafast key-int-max=15 option-string=open-gop=0:scenecut=0:log-level=none";
    let front = format!("{} ! {encoder} ! h265parse config-interval=-1 ! mpegtsmux", video(6));
    let (chunks, input, _) = record(&front, CUT);
    assert_eq!(chunks.len(), 3);
    assert_eq!(assert_each_plays(&chunks), 90);
    assert!(joined(&chunks) == input);
    assert!(chunks[2].get("codecs").starts_with("hvc1."), "{:?}", chunks[2].metadata);
}

#[test]
fn h265_and_a_law_in_matroska_play() {
    let encoder = "x265enc speed-preset=ultrafast key-int-max=15 option-string=open-gop=0:scenecut=0:log-level=none";
    let sound = "audiotestsrc num-buffers=600 samplesperbuffer=80 ! audio/x-raw,rate=8000,channels=1 ! alawenc";
    let front = format!(
        "{} ! {encoder} ! h265parse ! mux. {sound} ! mux. matroskamux streamable=true name=mux",
        video(6)
    );
    let (chunks, ..) = record(&front, CUT);
    assert_eq!(chunks.len(), 3);
    let mut frames = 0;
    for chunk in &chunks {
        let verdict = judge(&chunk.name, &chunk.data);
        assert!(verdict.first_is_key);
        // A-law has no channel layout of its own, which ffmpeg says of any file that holds it.
        let noise: Vec<&str> = verdict
            .messages
            .lines()
            .filter(|l| !l.contains("Guessed Channel Layout"))
            .collect();
        assert_eq!(noise, Vec::<&str>::new());
        frames += verdict.frames;
    }
    assert_eq!(frames, 90);
}

#[test]
fn sound_alone_is_cut_and_plays_in_every_container() {
    for (mux, content_type) in [
        ("flvmux streamable=true", "audio/x-flv"),
        ("mpegtsmux", "audio/mp2t"),
        ("mp4mux fragment-duration=1000", "audio/mp4"),
        ("matroskamux streamable=true", "audio/x-matroska"),
    ] {
        let (chunks, input, _) = record(&format!("{} ! {mux}", aac(8)), CUT);
        assert!((3..=5).contains(&chunks.len()), "{mux}: {}", chunks.len());
        assert!(mux.contains("matroska") || joined(&chunks) == input, "{mux}");
        for chunk in &chunks {
            let verdict = judge(&chunk.name, &chunk.data);
            assert!(verdict.audio_packets > 20, "{mux}: {verdict:?}");
            assert_eq!(verdict.messages, "", "{mux}");
            assert_eq!(chunk.object.meta["contentType"], content_type);
        }
    }
}

#[test]
fn an_i_frame_that_is_no_idr_never_opens_a_chunk() {
    // x264 puts I-frames that are no IDR at scene cuts; the muxers flag them as key.
    let scenes = "videotestsrc num-buffers=150 pattern=snow ! video/x-raw,width=320,height=240,framerate=15/1";
    let encoder = "x264enc speed-preset=veryfast option-string=scenecut=400:min-keyint=50:keyint=50";
    for mux in [
        "flvmux streamable=true",
        "mpegtsmux",
        "matroskamux streamable=true",
        "mp4mux fragment-duration=1000",
    ] {
        let front = format!("{scenes} ! {encoder} ! h264parse config-interval=-1 ! {mux}");
        let (chunks, ..) = record(&front, CUT);
        assert_eq!(assert_each_plays(&chunks), 150, "{mux}");
    }
}

#[test]
fn open_gops_are_reported_once() {
    let front = format!(
        "{} ! x264enc speed-preset=veryfast bframes=2 b-adapt=false key-int-max=15 option-string=open-gop=1 ! h264parse config-interval=-1 ! mpegtsmux",
        video(10)
    );
    let (chunks, _, words) = record(&front, CUT);
    assert!(chunks.len() >= 4, "{}", chunks.len());
    let reported = words
        .iter()
        .filter(|(kind, text)| *kind == "warning" && text.contains("open GOP"))
        .count();
    assert_eq!(reported, 1, "{words:?}");
    assert!(chunks.iter().all(|c| judge(&c.name, &c.data).first_is_key));
}

#[test]
fn intra_refresh_is_cut_without_key_units_and_reported_with_the_remedy() {
    let front = format!(
        "{} ! x264enc speed-preset=veryfast intra-refresh=true key-int-max=30 option-string=scenecut=0 ! h264parse config-interval=-1 ! flvmux streamable=true",
        video(65)
    );
    let (chunks, input, words) = record(&front, CUT);
    assert_eq!(
        chunks.iter().map(|c| c.get("key-frame").to_owned()).collect::<Vec<_>>(),
        ["true", "false", "false"]
    );
    assert!(joined(&chunks) == input);
    assert!(
        words
            .iter()
            .any(|(kind, text)| *kind == "warning" && text.contains("intra-refresh")),
        "{words:?}"
    );
}

#[test]
fn a_camera_that_changes_its_resolution_plays_on() {
    let scaled = |size: &str, parser: &str| {
        format!(
            "videotestsrc num-buffers=60 ! video/x-raw,{size},framerate=15/1 ! x264enc speed-preset=ultrafast key-int-max=15 ! {parser} ! c."
        )
    };
    for mux in ["flvmux streamable=true", "mpegtsmux"] {
        let parser = if mux.starts_with("flv") {
            "h264parse"
        } else {
            "h264parse config-interval=-1"
        };
        let front = format!(
            "concat name=c ! {mux} name=mux {} {} mux.",
            scaled("width=640,height=360", parser),
            scaled("width=1280,height=720", parser)
        );
        let (chunks, input, words) = record(&front, "max-size-time=3000000000");
        assert!(joined(&chunks) == input, "{mux}");
        assert_eq!(assert_each_plays(&chunks), 120, "{mux}: {words:?}");
        assert!(chunks.len() >= 3, "{mux}: {}", chunks.len());
    }
}

#[test]
fn a_file_read_in_slices_gives_the_chunks_of_its_muxer() {
    let (whole, input, _) = record(
        &format!("{} ! mux. {} ! mux. flvmux streamable=true name=mux", h264(6), aac(6)),
        CUT,
    );
    let file = TempFile::new("slices.flv", &input);
    for size in [113, 4096, 1_000_000] {
        let (sliced, ..) = record(&format!("filesrc location={} blocksize={size}", file.0.display()), CUT);
        assert_eq!(sliced.len(), whole.len(), "slices of {size}");
        for (a, b) in whole.iter().zip(&sliced) {
            assert!(a.data == b.data, "slices of {size}");
            assert_eq!(a.get("pts-start-ns"), b.get("pts-start-ns"));
        }
    }
}

#[test]
fn transport_streams_without_parameter_sets_in_band_are_reported_with_the_remedy() {
    // The sets are in the configuration of FLV alone, and the parser writes them once, before the first picture.
    let (_, input, _) = record(&format!("{} ! flvmux streamable=true", h264(6)), CUT);
    let (in_band, flv) = (TempFile::new("sets.flv", &input), TempFile::new("sets-once.flv", b""));
    let status = std::process::Command::new("ffmpeg")
        .args(["-nostdin", "-v", "error", "-y", "-i"])
        .arg(&in_band.0)
        .args(["-c", "copy", "-bsf:v", "filter_units=remove_types=7|8", "-f", "flv"])
        .arg(&flv.0)
        .status()
        .unwrap();
    assert!(status.success());
    let front = format!("filesrc location={} ! flvdemux ! h264parse ! mpegtsmux", flv.0.display());
    let (_, _, words) = record(&front, CUT);
    let reported = words
        .iter()
        .filter(|(kind, text)| *kind == "warning" && text.contains("config-interval=-1"))
        .count();
    assert_eq!(reported, 1, "{words:?}");
}

#[test]
fn sound_that_ends_in_mid_stream_does_not_stop_the_pictures() {
    let front = format!("{} ! mux. {} ! mux. flvmux streamable=true name=mux", h264(8), aac(3));
    let (chunks, input, _) = record(&front, CUT);
    assert!(joined(&chunks) == input);
    assert_eq!(assert_each_plays(&chunks), 120);
}

#[test]
fn a_transport_stream_whose_parser_hands_on_single_nal_units_plays() {
    // What rtph264depay ! h264parse ! mpegtsmux negotiates: SPS and PPS travel in packets of their own before the picture.
    let front = format!(
        "{} ! h264parse config-interval=-1 ! video/x-h264,stream-format=byte-stream,alignment=nal ! mpegtsmux",
        h264(4)
    );
    let (chunks, input, words) = record(&front, "max-size-time=1000000000");
    assert_eq!(chunks.len(), 4);
    assert!(joined(&chunks) == input);
    assert_eq!(assert_each_plays(&chunks), 60);
    assert!(!words.iter().any(|(_, text)| text.contains("SPS")), "{words:?}");
}
