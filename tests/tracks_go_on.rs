//! Sound, further pictures and edit lists: every packet of every track is in exactly one chunk, at the time that players see.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use std::process::Command;

use common::*;

const CUT: &str = "max-size-time=2000000000";
const OPUS: &str = "audiotestsrc num-buffers=400 samplesperbuffer=960 ! audio/x-raw,rate=48000,channels=2 ! opusenc ! opusparse";

/// Times of the packets of the streams of one kind in an object, in seconds, each stream by itself.
fn times(chunk: &Chunk, kind: &str) -> Vec<Vec<f64>> {
    let file = TempFile::new(&chunk.name.replace('/', "_"), &chunk.data);
    let out = Command::new("ffprobe")
        .args([
            "-v",
            "error",
            "-show_entries",
            "packet=codec_type,stream_index,pts_time",
            "-of",
            "csv=p=0",
        ])
        .arg(&file.0)
        .output()
        .unwrap();
    let mut streams = std::collections::BTreeMap::<String, Vec<f64>>::new();
    for line in String::from_utf8(out.stdout).unwrap().lines() {
        let fields: Vec<&str> = line.split(',').collect();
        if let [what, stream, time, ..] = fields[..]
            && what == kind
        {
            streams.entry(stream.to_owned()).or_default().push(time.parse().unwrap());
        }
    }
    streams.into_values().collect()
}

#[test]
fn sound_goes_on_from_chunk_to_chunk_without_overlap_or_gap() {
    let (aac, pictures) = (aac(8), h264(8));
    for (sound, frame, total) in [(aac.as_str(), 1024.0 / 44_100.0, 345), (OPUS, 0.02, 400)] {
        for mux in [
            "flvmux streamable=true",
            "mpegtsmux",
            "mp4mux fragment-duration=1000",
            "matroskamux streamable=true",
        ] {
            if mux.starts_with("flv") && sound == OPUS {
                continue;
            }
            for pictures in [None, Some(&pictures)] {
                let pictures = pictures.map_or_else(String::new, |pictures| format!("{pictures} ! mux."));
                let (chunks, ..) = record(&format!("{pictures} {sound} ! mux. {mux} name=mux"), CUT);
                let what = format!("{mux}, {}", if pictures.is_empty() { "sound alone" } else { "with pictures" });
                assert!(chunks.len() >= 3, "{what}: {}", chunks.len());
                let all: Vec<f64> = chunks.iter().flat_map(|c| times(c, "audio").concat()).collect();
                assert!(all.len().abs_diff(total) <= 2, "{what}: {} packets", all.len());
                for step in all.windows(2).map(|w| w[1] - w[0]) {
                    // Times of Matroska and FLV are in ms.
                    assert!((frame - 0.008..frame + 0.008).contains(&step), "{what}: a step of {step} s");
                }
                for (chunk, next) in chunks.iter().zip(&chunks[1..]) {
                    let end = chunk.number("pts-start-ns") + chunk.number("duration-ms") * 1_000_000;
                    let apart = end.abs_diff(next.number("pts-start-ns"));
                    assert!(apart <= 1_000_000, "{what}: {apart} ns between the chunks");
                }
            }
        }
    }
}

#[test]
fn pictures_of_a_second_track_are_all_there_in_every_container() {
    for mux in ["mpegtsmux", "mp4mux fragment-duration=1000", "matroskamux streamable=true"] {
        let front = format!("{} ! mux. {} ! mux. {mux} name=mux", h264(6), h264(6));
        let (chunks, input, words) = record(&front, CUT);
        assert!(joined(&chunks) == input, "{mux}");
        assert_eq!(assert_each_plays(&chunks), 90, "{mux}");
        for chunk in &chunks {
            let counts: Vec<usize> = times(chunk, "video").iter().map(Vec::len).collect();
            assert_eq!(counts, [30, 30], "{mux}: {}", chunk.name);
        }
        assert!(!words.iter().any(|(kind, _)| *kind == "warning"), "{mux}: {words:?}");
    }
}

#[test]
fn edit_lists_of_fragmented_mp4_date_the_chunks_as_players_do() {
    let front = format!("{} ! mux. {} ! mux. matroskamux streamable=true name=mux", h264(6), aac(6));
    let (_, matroska, _) = record(&front, "");
    let input = TempFile::new("edits.mkv", &matroska);
    for options in [
        "-movflags frag_keyframe+empty_moov+default_base_moof",
        "-use_editlist 1 -movflags frag_keyframe+delay_moov+default_base_moof",
        "-use_editlist 1 -output_ts_offset 5 -movflags frag_keyframe+delay_moov+default_base_moof",
        // Its sound begins half a second before its pictures.
        "-use_editlist 1 -ss 0.5 -movflags frag_keyframe+delay_moov+default_base_moof",
    ] {
        let output = TempFile::new("edits.mp4", b"");
        let status = Command::new("ffmpeg")
            .args(["-nostdin", "-v", "error", "-y", "-i"])
            .arg(&input.0)
            .args(["-c", "copy"])
            .args(options.split(' '))
            .arg(&output.0)
            .status()
            .unwrap();
        assert!(status.success());
        let (chunks, ..) = record(&format!("filesrc location={}", output.0.display()), CUT);
        assert_eq!(chunks.len(), 3, "{options}");
        for chunk in &chunks {
            let seen = times(chunk, "video").concat().into_iter().fold(f64::MAX, f64::min);
            let reported = std::time::Duration::from_nanos(chunk.number("pts-start-ns")).as_secs_f64();
            assert!(
                (seen - reported).abs() < 0.001,
                "{options}: players see {seen}, told {reported}"
            );
        }
    }
}
