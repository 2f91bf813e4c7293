//! What the playlists promise.

use gcstreamer_schema::{Container, GapReason, metadata::Gap};

use super::live::Numbers;
use super::live_tests::following;
use super::playlist::{Playing, Style, is_sound, media_address, once, playing, unplayable};
use crate::index::Chunk;
use crate::index::chunk::tests::{BASE, SECOND, chunk};

pub(super) fn run(s: u8, sequences: std::ops::Range<u64>) -> Vec<Chunk> {
    sequences.map(|q| chunk(s, q, q as f64 * 10.0, 10.0)).collect()
}

pub(super) const PLAIN: Style<'static> = Style {
    by_proxy: false,
    made: &|_| None,
};

fn vod(chunks: &[Chunk]) -> String {
    super::playlist::vod(chunks, u64::MAX, PLAIN)
}

pub(super) fn live(chunks: &[Chunk], now: u64) -> Option<String> {
    following(chunks, now, &mut Numbers::default())
}

fn count(text: &str, what: &str) -> usize {
    text.lines().filter(|line| line.starts_with(what)).count()
}

#[test]
fn a_recording_without_a_gap_has_no_discontinuity_and_one_header() {
    let text = vod(&run(0, 0..30));
    assert_eq!(
        (count(&text, "#EXTINF:10.000,"), count(&text, "#EXT-X-PROGRAM-DATE-TIME:")),
        (30, 30),
        "{text}"
    );
    assert_eq!((count(&text, "#EXT-X-DISCONTINUITY"), count(&text, "#EXT-X-MAP:")), (0, 1));
    assert!(text.starts_with("#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:10\n") && text.ends_with("#EXT-X-ENDLIST\n"));
}

#[test]
fn a_gap_and_a_session_are_a_discontinuity_and_a_cut_for_memory_is_none() {
    let mut chunks = run(0, 0..3);
    // Cut early: nothing is missing, the container's time goes on.
    chunks.push(Chunk {
        meta: gcstreamer_schema::metadata::ObjectMetadata {
            gap: Some(Gap::Known(GapReason::EarlyCut)),
            ..chunk(0, 3, 30.0, 10.0).meta
        },
        ..chunk(0, 3, 30.0, 10.0)
    });
    assert_eq!(count(&vod(&chunks), "#EXT-X-DISCONTINUITY"), 0);
    chunks.push(chunk(0, 6, 60.0, 10.0));
    assert_eq!(count(&vod(&chunks), "#EXT-X-DISCONTINUITY"), 1);
    chunks.push(chunk(1, 0, 90.0, 10.0));
    let text = vod(&chunks);
    assert_eq!(
        (count(&text, "#EXT-X-DISCONTINUITY"), count(&text, "#EXT-X-MAP:")),
        (2, 3),
        "each with its header"
    );
}

#[test]
fn a_header_is_named_where_it_changes_or_is_not_known() {
    let mut chunks = run(0, 0..4);
    chunks[2].meta.init_crc32c = Some(8);
    chunks[3].meta.init_crc32c = Some(8);
    assert_eq!(count(&vod(&chunks), "#EXT-X-MAP:"), 2);
    chunks.iter_mut().for_each(|chunk| chunk.meta.init_crc32c = None);
    assert_eq!(count(&vod(&chunks), "#EXT-X-MAP:"), 4);
}

#[test]
fn what_two_recorders_stored_at_the_same_time_is_played_once() {
    let mut chunks = run(0, 0..6);
    chunks.extend((0..6).map(|q| chunk(1, q, q as f64 * 10.0 + 3.0, 10.0)));
    let text = vod(&crate::index::chunk::sorted(chunks));
    // Six chunks, and one for the last three seconds, which only one recorder has.
    assert_eq!(count(&text, "#EXTINF"), 7, "{text}");
}

#[test]
fn what_one_of_two_recorders_alone_stored_is_played() {
    let pieces = |all: &[(u8, u64, f64, f64)]| {
        let chunks = all.iter().map(|&(s, sequence, from, to)| chunk(s, sequence, from, to - from));
        let chunks = crate::index::chunk::sorted(chunks.collect());
        let second = |ns: u64| (ns - BASE) / SECOND;
        let kept = once(chunks.iter(), u64::MAX).into_iter();
        kept.map(|piece| {
            (
                second(piece.chunk.meta.start),
                second(piece.chunk.meta.end),
                piece.after.map(second),
            )
        })
        .collect::<Vec<_>>()
    };
    // The old session ends in the middle of a chunk of the new one: second 13 is only in that chunk.
    assert_eq!(
        pieces(&[(0, 1, 0.0, 10.0), (0, 2, 10.0, 13.0), (1, 0, 4.0, 14.0), (1, 1, 14.0, 24.0)]),
        [(0, 10, None), (10, 13, None), (4, 14, Some(13)), (14, 24, None)]
    );
    // Both record for a long time, and each misses a chunk.
    let both = |missing: [u64; 2]| {
        let of =
            move |s: u8, after: f64| (0..10u64).map(move |q| (s, q, q as f64 * 10.0 + after, q as f64 * 10.0 + after + 10.0));
        let kept = of(0, 0.0)
            .filter(move |c| c.1 != missing[0])
            .chain(of(1, 4.0).filter(move |c| c.1 != missing[1]));
        pieces(&kept.collect::<Vec<_>>())
    };
    let expected = [
        (0, 10, None),
        (10, 20, None),
        (14, 24, Some(20)),
        (24, 34, None),
        (34, 44, None),
        (44, 54, None),
        (50, 60, Some(54)),
    ];
    assert_eq!(both([2, 5])[..7], expected);
    assert_eq!(both([2, 5]).last(), Some(&(94, 104, Some(100))));
    // No chunk of the other recorder after the end of the range.
    let two = [(0, 1, 0.0), (1, 1, 5.0), (0, 2, 10.0), (1, 2, 15.0)].map(|(s, q, at)| chunk(s, q, at, 10.0));
    assert_eq!(once(two.iter(), BASE + 18 * SECOND).len(), 2);
    assert_eq!(once(two.iter(), BASE + 24 * SECOND).len(), 3);
    // A clock that goes back within a session loses no chunk, even if one is missing there.
    let back = [(4, 10.0), (5, 20.0), (7, 15.0), (8, 25.0)].map(|(q, at)| chunk(0, q, at, 10.0));
    let back = crate::index::chunk::sorted(back.to_vec());
    let order: Vec<u64> = once(back.iter(), u64::MAX)
        .iter()
        .map(|piece| piece.chunk.meta.sequence)
        .collect();
    assert_eq!(order, [4, 5, 7, 8]);
    // A clock that was ahead at first is set back: the first chunks have times of later ones.
    let ahead = [(0, 600.0), (1, 610.0), (2, 620.0)].into_iter();
    let ahead = ahead
        .chain((3..70).map(|q| (q, 10.0 * q as f64)))
        .map(|(q, at)| chunk(0, q, at, 10.0));
    let ahead = crate::index::chunk::sorted(ahead.collect());
    let from = |second: u64| ahead.iter().filter(move |chunk| chunk.meta.start >= BASE + second * SECOND);
    for (second, expected) in [
        (0, (0..70).collect()),
        (595, [0, 1, 2].into_iter().chain(60..70).collect::<Vec<u64>>()),
    ] {
        let order: Vec<u64> = once(from(second), u64::MAX)
            .iter()
            .map(|piece| piece.chunk.meta.sequence)
            .collect();
        assert_eq!(order, expected, "from {second} s on");
    }
    let other = [chunk(1, 7, 590.0, 15.0)];
    let beside = crate::index::chunk::sorted(from(580).chain(&other).cloned().collect());
    let order: Vec<u64> = once(beside.iter(), u64::MAX)
        .iter()
        .filter(|piece| piece.chunk.meta.session.starts_with('0'))
        .map(|piece| piece.chunk.meta.sequence)
        .collect();
    assert!([0, 1, 2].iter().all(|q| order.contains(q)), "{order:?}");
    assert_eq!(pieces(&[(0, 0, 0.0, 10.0), (0, 1, 10.0, 20.0), (0, 2, 12.0, 18.0)]).len(), 3);
}

#[test]
fn a_name_cannot_break_out_of_its_line() {
    let name = "a/../<script>\"#?%\n,ü.flv";
    let text = vod(&[Chunk {
        name: name.into(),
        ..chunk(0, 1, 0.0, 10.0)
    }]);
    let address = "/media/1001/a%2F..%2F%3Cscript%3E%22%23%3F%25%0A%2C%C3%BC.flv.m4s";
    assert!(text.lines().any(|line| line == address), "{text}");
    assert_eq!(text.lines().filter(|line| !line.starts_with('#')).count(), 1);
}

#[test]
fn each_container_is_played_in_its_way() {
    let of = |container, codecs: &str, size, init| {
        let mut chunk = chunk(0, 1, 0.0, 10.0);
        (chunk.meta.container, chunk.meta.codecs, chunk.size, chunk.meta.init_bytes) =
            (container, Some(codecs.into()), size, init);
        playing(&chunk)
    };
    assert_eq!(of(Container::Fmp4, "avc1.64001E,mp4a.40.2", 1000, 700), Playing::Fragmented);
    assert_eq!(of(Container::MpegTs, "avc1.64001E,mp4a.40.2", 1880, 376), Playing::Transport);
    assert_eq!(of(Container::MpegTs, "hvc1.1.6.L93.B0", 1880, 376), Playing::Remuxed);
    assert_eq!(
        of(Container::MpegTs, "avc1.64001E", 1920, 376),
        Playing::Remuxed,
        "packets of 192 bytes"
    );
    assert_eq!(
        of(Container::MpegTs, "avc1.64001E", 1880, 384),
        Playing::Remuxed,
        "by its header"
    );
    assert_eq!(of(Container::Matroska, "avc1.64001E,alaw", 1000, 376), Playing::Remuxed);
    for sound in ["ac-3", "ec-3", "alac", "alaw", "ulaw", "sowt", "ipcm"] {
        let way = |picture: &str| of(Container::Fmp4, &format!("{picture},{sound}"), 1000, 700);
        assert_eq!(way("avc1.64001E"), Playing::Remuxed, "the picture plays without {sound}");
        assert_eq!(way("vp09.00.10.08"), Playing::Remuxed, "{sound}");
        assert_eq!(way("vp08.00.10.08"), Playing::Fragmented, "nothing is written anew of it");
    }
    for sound in ["mp4a.40.2", "mp4a.40.34", "opus", "flac"] {
        assert_eq!(
            of(Container::Fmp4, &format!("hvc1.1.6.L93.B0,{sound}"), 1000, 700),
            Playing::Fragmented
        );
    }
    assert_eq!(of(Container::WebM, "vp8,vorbis", 1000, 376), Playing::Not);
    for (container, codecs) in [
        (Container::WebM, "vp9,opus"),
        (Container::WebM, "vp9,vorbis"),
        (Container::Matroska, "av01.0.08M.08,mp4a.40.2"),
        (Container::Flv, "vp09.00.10.08,mp4a.40.2"),
    ] {
        assert_eq!(of(container, codecs, 1000, 376), Playing::Remuxed, "{codecs}");
    }
    // Sound that could be remuxed does not make the chunk playable: the picture would be black.
    for (container, codecs) in [
        (Container::WebM, "vp8,opus"),
        (Container::MpegTs, "mp4v.61,mp4a.40.2"),
        (Container::MpegTs, "av01.0.08M.08,mp4a.40.2"),
        (Container::Matroska, "mjpeg,mp4a.40.2"),
    ] {
        assert_eq!(of(container, codecs, 1000, 376), Playing::Not, "{codecs}");
    }
    assert_eq!(of(Container::Fmp4, "av01.0.08M.08,mp4a.40.2", 1000, 0), Playing::Remuxed);
    assert_eq!(of(Container::Fmp4, "av01.0.08M.08,mp4a.40.2", 1000, 700), Playing::Fragmented);
    assert_eq!(of(Container::Fmp4, "av01.0.08M.08,opus,alaw", 1000, 700), Playing::Remuxed);
    assert_eq!(of(Container::Matroska, "opus", 1000, 376), Playing::Remuxed, "sound alone");
    let mut webm = run(0, 0..3);
    for chunk in &mut webm {
        (chunk.meta.container, chunk.meta.codecs) = (Container::WebM, Some("vp8,vorbis".into()));
    }
    let why = unplayable(&webm).unwrap();
    assert!(why.contains("webm (vp8,vorbis), which no browser plays from an MP4"), "{why}");
    webm.extend(run(1, 3..4));
    assert_eq!((unplayable(&webm), unplayable(&[])), (None, None), "the rest is played");
    assert_eq!(of(Container::Raw, "", 1000, 0), Playing::Not);
}

#[test]
fn only_what_is_known_to_be_sound_may_be_left_out_of_a_film() {
    let of = |container, codecs: Option<&str>| {
        let mut chunk = chunk(0, 1, 0.0, 10.0);
        (chunk.meta.container, chunk.meta.codecs) = (container, codecs.map(str::to_owned));
        is_sound(&chunk)
    };
    assert!(of(Container::Flv, Some("alaw")));
    assert!(of(Container::Matroska, Some("ac-3, mp4a.40.34")));
    for codecs in [
        None,
        Some(""),
        Some("alaw,"),
        Some("vp09.00.10.08,alaw"),
        Some("vvc1.1.L51,alaw"),
        Some("mp4v.61"),
    ] {
        assert!(!of(Container::Fmp4, codecs), "{codecs:?}");
    }
    assert!(!of(Container::Raw, Some("alaw")));
}

#[test]
fn a_transport_stream_of_odd_packets_is_written_again_in_every_chunk_whatever_its_size_happens_to_be() {
    let mut chunks = run(0, 0..94);
    for chunk in &mut chunks {
        chunk.meta.container = Container::MpegTs;
        chunk.meta.init_bytes = 0;
        // 1000 packets, and one more in each further chunk: the sizes of some are multiples of 188, too.
        chunk.size = (1000 + chunk.meta.sequence) * 192;
    }
    assert!(chunks.iter().any(|chunk| playing(chunk) == Playing::Transport), "by chance");
    for text in [vod(&chunks), live(&chunks[..40], BASE + 1000 * SECOND).unwrap()] {
        let segments: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(segments.iter().all(|line| line.ends_with(".m4s")), "{text}");
        assert_eq!(count(&text, "#EXT-X-DISCONTINUITY\n"), 0, "{text}");
    }
    // The packets of one session say nothing about another one.
    let mut plain = chunk(1, 0, 940.0, 10.0);
    (plain.meta.container, plain.meta.init_bytes, plain.size) = (Container::MpegTs, 0, 1880);
    assert_eq!(vod(std::slice::from_ref(&plain)).matches(".ts\n").count(), 1);
    chunks.push(plain);
    assert_eq!(
        vod(&chunks).matches(".ts\n").count(),
        0,
        "the header before it would apply to it"
    );
}

#[test]
fn a_camera_that_changed_to_a_transport_stream_plays_on_behind_headers_of_its_own() {
    for (container, codecs) in [
        (Container::Flv, "avc1.42C01E,mp4a.40.2"),
        (Container::Fmp4, "avc1.42C01E,mp4a.40.2"),
    ] {
        let mut before = run(0, 0..2);
        for chunk in &mut before {
            (chunk.meta.container, chunk.meta.codecs) = (container, Some(codecs.into()));
        }
        let mut after = run(1, 3..6);
        for chunk in &mut after {
            (chunk.meta.container, chunk.meta.init_bytes, chunk.size) = (Container::MpegTs, 376, 1880);
        }
        let all = [before.clone(), after.clone()].concat();
        let text = vod(&all);
        let mut header = String::new();
        for line in text.lines() {
            if let Some(map) = line.strip_prefix("#EXT-X-MAP:URI=\"") {
                map.split('"').next().unwrap().clone_into(&mut header);
            }
            if !line.starts_with('#') {
                assert!(!line.ends_with(".ts"), "{text}");
                let is_after = after.iter().any(|chunk| line == media_address(chunk, "m4s"));
                let own = after.iter().any(|chunk| header == media_address(chunk, "mp4"));
                assert_eq!(own, is_after, "{line} behind {header}: {text}");
            }
        }
        // A live playlist shows one session: its way of playing does not change when the other leaves the last hour.
        let now = BASE + 1000 * SECOND;
        assert_eq!(live(&all, now), live(&after, now));
        assert!(live(&all, now).unwrap().contains(".ts\n"));
    }
}

#[test]
fn what_is_left_out_is_reported_in_a_comment() {
    let mut chunks = run(0, 0..3);
    assert!(!vod(&chunks).contains("left out"));
    chunks[1].meta.codecs = Some("avc1.64001E, alaw\n#EXT-X-ENDLIST".into());
    let text = vod(&chunks);
    assert!(text.contains("\n# left out: alaw%0A%23EXT-X-ENDLIST\n"), "{text}");
    assert_eq!(count(&text, "#EXT-X-ENDLIST"), 1);
    // Which sound is left out depends on the container.
    for (container, codec, is_reported) in [
        (Container::MpegTs, "mp4a.40.2", false),
        (Container::MpegTs, "mp4a.40.33", true),
        (Container::MpegTs, "opus", true),
        (Container::Matroska, "opus", false),
        (Container::Flv, "mp4a.40.34", true),
    ] {
        let mut chunks = run(0, 0..3);
        for chunk in &mut chunks {
            chunk.meta.codecs = Some(format!("avc1.64001E,{codec}"));
            chunk.meta.container = container;
        }
        let text = vod(&chunks);
        assert_eq!(
            text.contains(&format!("\n# left out: {codec}\n")),
            is_reported,
            "{container:?} {codec}: {text}"
        );
    }
}

#[test]
fn fragments_are_ranges_behind_their_header() {
    let mut chunk = chunk(0, 1, 0.0, 10.0);
    (chunk.meta.container, chunk.meta.init_bytes) = (Container::Fmp4, 700);
    let text = vod(std::slice::from_ref(&chunk));
    let address = media_address(&chunk, "mp4");
    assert!(
        text.contains(&format!("#EXT-X-MAP:URI=\"{address}\",BYTERANGE=\"700@0\"")),
        "{text}"
    );
    assert!(text.contains(&format!("#EXT-X-BYTERANGE:300@700\n{address}\n")), "{text}");
}

#[test]
fn by_the_proxy_every_address_of_a_playlist_says_so() {
    let mut chunks = run(0, 0..3);
    // A name that looks like the text of a playlist.
    chunks[1].name = "cam/x.mp4\"\n/media/1/a".into();
    (chunks[2].meta.container, chunks[2].meta.init_bytes) = (Container::Fmp4, 700);
    let style = Style { by_proxy: true, ..PLAIN };
    let text = super::playlist::vod(&chunks, u64::MAX, style);
    let addresses = text
        .lines()
        .filter(|line| !line.starts_with('#') || line.starts_with("#EXT-X-MAP"));
    let addresses: Vec<&str> = addresses.collect();
    assert_eq!(addresses.len(), 5, "{text}");
    assert!(
        addresses.iter().all(|line| line.matches("?delivery=proxy").count() == 1),
        "{text}"
    );
    assert_eq!(text.replace("?delivery=proxy", ""), vod(&chunks));
}

#[test]
fn a_header_that_was_made_before_and_is_the_same_is_named_once() {
    let mut chunks = run(0, 0..5);
    for chunk in &mut chunks {
        chunk.meta.container = Container::MpegTs;
        chunk.meta.codecs = Some("hvc1.1.6.L93.B0".into());
    }
    assert_eq!(
        count(&vod(&chunks), "#EXT-X-MAP:"),
        5,
        "nothing is known of what will be made"
    );
    // The headers of the first three chunks are known, and that of the third differs.
    let made = |chunk: &Chunk| [Some(1), Some(1), Some(2), None, None][usize::try_from(chunk.meta.sequence).unwrap()];
    let text = super::playlist::vod(&chunks, u64::MAX, Style { made: &made, ..PLAIN });
    let maps: Vec<&str> = text.lines().filter(|line| line.starts_with("#EXT-X-MAP")).collect();
    assert_eq!(maps.len(), 4, "{text}");
    assert!(!maps.iter().any(|map| map.contains("000001")), "{text}");
}
