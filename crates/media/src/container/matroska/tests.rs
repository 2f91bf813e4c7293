use proptest::prelude::*;

use super::super::Notice;
use super::*;

const HOLD: usize = held::MAX_HELD_BLOCKS;
pub(crate) const IDR: &[u8] = &[0, 0, 0, 4, 0x65, 0x88, 1, 2];
pub(crate) const SLICE: &[u8] = &[0, 0, 0, 4, 0x41, 0x9a, 1, 2];
pub(crate) const AVCC: &[u8] = &[1, 0x64, 0, 40, 0xff, 0xe1, 0, 4, 0x67, 0x64, 0, 40, 1, 0, 2, 0x68, 1];

// ---- a tiny writer ----

fn id(id: u32) -> Vec<u8> {
    let bytes = id.to_be_bytes();
    bytes[bytes.iter().position(|&b| b != 0).unwrap()..].to_vec()
}

/// An element with a size of eight octets.
pub(crate) fn el(number: u32, body: &[u8]) -> Vec<u8> {
    let mut out = id(number);
    out.push(1);
    out.extend_from_slice(&(body.len() as u64).to_be_bytes()[1..]);
    out.extend_from_slice(body);
    out
}

fn unknown(number: u32) -> Vec<u8> {
    let mut out = id(number);
    out.extend_from_slice(&[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
    out
}

pub(crate) fn cat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn ebml_header(doc_type: &str) -> Vec<u8> {
    el(0x1A45_DFA3, &el(0x4282, doc_type.as_bytes()))
}

pub(crate) fn track(number: u8, kind: u8, codec: &str, private: &[u8], more: &[u8]) -> Vec<u8> {
    let private = if private.is_empty() { Vec::new() } else { el(0x63A2, private) };
    let parts = [
        el(0xD7, &[number]),
        el(0x83, &[kind]),
        el(0x86, codec.as_bytes()),
        private,
        more.to_vec(),
    ];
    el(0xAE, &parts.concat())
}

fn h264() -> Vec<u8> {
    track(1, 1, "V_MPEG4/ISO/AVC", AVCC, &el(0x0023_E383, &40_000_000u32.to_be_bytes()))
}

fn aac() -> Vec<u8> {
    track(2, 2, "A_AAC", &[0x12, 0x10], &[])
}

/// The head of a streamable document.
pub(crate) fn head_of(tracks: &[&[u8]]) -> Vec<u8> {
    let info = el(0x1549_A966, &el(0x2A_D7B1, &1_000_000u32.to_be_bytes()));
    cat(&[
        &ebml_header("matroska"),
        &unknown(SEGMENT),
        &info,
        &el(TRACKS, &tracks.concat()),
    ])
}

pub(crate) fn head() -> Vec<u8> {
    head_of(&[&h264(), &aac()])
}

pub(crate) fn block(number: u8, relative: i16, flags: u8, frame: &[u8]) -> Vec<u8> {
    cat(&[&[0x80 | number], &relative.to_be_bytes(), &[flags], frame])
}

pub(crate) fn video(relative: i16, frame: &[u8]) -> Vec<u8> {
    el(0xA3, &block(1, relative, 0x80, frame))
}

pub(crate) fn audio(relative: i16) -> Vec<u8> {
    el(0xA3, &block(2, relative, 0x80, &[0x21; 20]))
}

fn timestamp(ms: u16) -> Vec<u8> {
    el(0xE7, &ms.to_be_bytes())
}

/// A Cluster of unknown size, and where each of its blocks stands in it.
pub(crate) fn open_cluster(ms: u16, blocks: &[Vec<u8>]) -> (Vec<u8>, Vec<usize>) {
    let mut out = cat(&[&unknown(CLUSTER), &timestamp(ms)]);
    let at = blocks
        .iter()
        .map(|b| {
            out.extend_from_slice(b);
            out.len() - b.len()
        })
        .collect();
    (out, at)
}

pub(crate) fn closed_cluster(ms: u16, blocks: &[Vec<u8>]) -> Vec<u8> {
    el(CLUSTER, &cat(&[&timestamp(ms), &blocks.concat()]))
}

// ---- a tiny reader ----

pub(crate) fn scan(data: &[u8]) -> Vec<Mark> {
    let (mut scanner, mut marks) = (Matroska::new(), Vec::new());
    scanner.push(data, &mut marks).unwrap();
    scanner.finish(&mut marks);
    assert_eq!(scanner.settled(), data.len() as u64);
    marks
}

pub(crate) fn units(marks: &[Mark]) -> Vec<(usize, Unit)> {
    let unit = |m: &Mark| match &m.kind {
        MarkKind::Unit(u) => Some((usize::try_from(m.at).unwrap(), u.clone())),
        _ => None,
    };
    marks.iter().filter_map(unit).collect()
}

pub(crate) fn keys(marks: &[Mark]) -> Vec<usize> {
    units(marks)
        .into_iter()
        .filter(|(_, u)| u.key.is_key())
        .map(|(at, _)| at)
        .collect()
}

pub(crate) fn places(marks: &[Mark], kind: &MarkKind) -> Vec<usize> {
    marks
        .iter()
        .filter(|m| m.kind == *kind)
        .map(|m| usize::try_from(m.at).unwrap())
        .collect()
}

/// Element IDs on the way down to the first Cluster.
fn ids(head: &[u8]) -> Vec<u32> {
    let (mut at, mut found) = (0, Vec::new());
    while at < head.len() {
        let Read::Got(h) = ebml::header(&head[at..]) else {
            panic!("no element at {at}")
        };
        found.push(h.id);
        at += h.len
            + if h.id == SEGMENT {
                0
            } else {
                usize::try_from(h.size.unwrap()).unwrap()
            };
    }
    found
}

#[test]
fn the_head_of_a_streamable_document_is_the_init_to_the_byte() {
    let (cluster, _) = open_cluster(0, &[video(0, IDR), audio(3)]);
    let head = head();
    let marks = scan(&cat(&[&head, &cluster]));
    let (at, first) = units(&marks).remove(0);
    let init = first.init.unwrap();
    assert_eq!(at, head.len());
    assert_eq!(init.head, head);
    assert!(init.tail.is_empty());
    assert_eq!(init.info.codecs.as_deref(), Some("avc1.640028,mp4a.40.2"));
    assert!(init.info.has_video && init.info.has_audio);
    assert_eq!(
        (first.track, first.key, first.pts, first.end),
        (Track::Video, Key::Closed, Some(0), Some(40_000_000))
    );
}

#[test]
fn the_head_of_a_file_keeps_its_length_and_loses_sizes_indexes_and_duration() {
    let crc = el(ebml::CRC_32, &[1, 2, 3, 4]);
    let duration = el(0x4489, &1234f64.to_be_bytes());
    let info = el(
        head::INFO,
        &cat(&[
            &crc,
            &el(0x2A_D7B1, &1_000_000u32.to_be_bytes()),
            &duration,
            &el(0x4D80, b"app"),
        ]),
    );
    let tracks = el(TRACKS, &cat(&[&crc, &h264()]));
    let inside = cat(&[
        &el(head::SEEK_HEAD, &[0xEC, 0x80]),
        &info,
        &tracks,
        &el(head::TAGS, &[0xEC, 0x80]),
        &el(head::CUES, &[0xEC, 0x82, 1, 2]),
        &closed_cluster(0, &[video(0, IDR)]),
    ]);
    let data = cat(&[&ebml_header("matroska"), &el(SEGMENT, &inside)]);
    let (at, first) = units(&scan(&data)).remove(0);
    let init = first.init.unwrap().head;
    assert_eq!(init.len(), at);
    assert_eq!(
        ids(&init),
        [ebml::EBML, SEGMENT, ebml::VOID, head::INFO, TRACKS, head::TAGS, ebml::VOID]
    );
    let segment = ebml_header("matroska").len();
    assert!(matches!(
        ebml::header(&init[segment..]),
        Read::Got(Header {
            id: SEGMENT,
            size: None,
            len: 12,
            ..
        })
    ));
    let info_at = segment + 12 + el(head::SEEK_HEAD, &[0xEC, 0x80]).len();
    let children: Vec<u32> = ebml::children(&init[info_at + 12..info_at + info.len()])
        .map(|c| c.unwrap().id)
        .collect();
    assert_eq!(children, [ebml::VOID, 0x2A_D7B1, ebml::VOID, 0x4D80]);
    assert!(
        init.windows(tracks.len()).any(|w| w == tracks),
        "Tracks and its CRC-32 are left alone"
    );
}

#[test]
fn an_info_without_duration_keeps_its_crc() {
    let info = el(head::INFO, &cat(&[&el(ebml::CRC_32, &[1, 2, 3, 4]), &el(0x4D80, b"app")]));
    let head = cat(&[&ebml_header("webm"), &unknown(SEGMENT), &info, &el(TRACKS, &h264())]);
    let (_, first) = units(&scan(&cat(&[&head, &open_cluster(0, &[video(0, IDR)]).0]))).remove(0);
    assert_eq!(first.init.unwrap().head, head);
}

#[test]
fn a_cluster_that_opens_with_sound_is_a_key_unit_if_its_first_picture_is_key() {
    for closed in [false, true] {
        let blocks = [audio(0), audio(20), video(5, IDR), audio(40)];
        let (open, at) = open_cluster(1000, &blocks);
        let cluster = if closed { closed_cluster(1000, &blocks) } else { open };
        let head = head();
        let data = cat(&[&head, &cluster]);
        let mut scanner = Matroska::new();
        let mut marks = Vec::new();
        // Everything except the frame of the picture: nothing can be decided yet.
        let before = head.len() + at[2] + 9;
        scanner.push(&data[..before], &mut marks).unwrap();
        assert_eq!((marks.len(), scanner.settled()), (0, head.len() as u64));
        scanner.push(&data[before..], &mut marks).unwrap();
        scanner.finish(&mut marks);
        let found: Vec<_> = units(&marks)
            .into_iter()
            .map(|(at, u)| (at - head.len(), u.track, u.key, u.pts))
            .collect();
        let ns = |ms: u64| Some(ms * 1_000_000);
        assert_eq!(
            found,
            [
                (0, Track::Video, Key::Closed, ns(1005)),
                (at[0], Track::Audio, Key::No, ns(1000)),
                (at[1], Track::Audio, Key::No, ns(1020)),
                (at[3], Track::Audio, Key::No, ns(1040)),
            ]
        );
        assert_eq!(places(&marks, &MarkKind::PictureEnd), [head.len() + at[3]]);
    }
}

#[test]
fn a_chunk_may_begin_inside_a_cluster_of_unknown_size_and_needs_its_header_then() {
    let blocks = [video(0, SLICE), audio(1), video(40, IDR), audio(50), video(80, IDR)];
    let (cluster, at) = open_cluster(500, &blocks);
    let head = head();
    let marks = scan(&cat(&[&head, &cluster]));
    assert_eq!(keys(&marks), [head.len() + at[2], head.len() + at[4]]);
    for (at, unit) in units(&marks).into_iter().skip(1) {
        let init = unit.init.unwrap();
        assert_eq!(init.tail, cat(&[&unknown(CLUSTER), &timestamp(500)]), "unit at {at}");
        assert_eq!(init.head, head);
    }
    assert!(units(&marks)[0].1.init.as_ref().unwrap().tail.is_empty());
    assert_eq!(
        places(&marks, &MarkKind::PictureEnd),
        [head.len() + at[3], head.len() + cluster.len()]
    );
}

#[test]
fn key_pictures_within_clusters_of_known_size_are_noticed_as_long_as_none_opens_one() {
    let encloses = |clusters: &[Vec<u8>]| {
        let mut scanner = Matroska::new();
        let input = cat(&[&head(), &clusters.concat()]);
        scanner.push(&input, &mut Vec::new()).unwrap();
        scanner.encloses_keys()
    };
    let by_time = [video(0, SLICE), video(40, IDR), video(80, SLICE)];
    let by_key = [video(0, IDR), video(40, SLICE)];
    assert!(encloses(&[
        closed_cluster(0, &by_time),
        closed_cluster(120, &[video(0, SLICE)])
    ]));
    assert!(!encloses(&[
        closed_cluster(0, &by_time),
        closed_cluster(120, &by_key),
        closed_cluster(240, &[])
    ]));
    assert!(!encloses(&[open_cluster(0, &by_time).0]), "a chunk can begin there");
    // Several in one Cluster, the first at its start; then none for a while.
    let many = [audio(0), video(0, IDR), video(40, SLICE), video(80, IDR)];
    let none = closed_cluster(120, &[video(0, SLICE), video(40, SLICE)]);
    assert!(!encloses(&[closed_cluster(0, &many), none.clone(), none]));
}

#[test]
fn no_chunk_begins_inside_a_cluster_of_known_size() {
    let first = closed_cluster(0, &[video(0, IDR), audio(1), video(40, IDR)]);
    let second = closed_cluster(80, &[video(0, SLICE), video(40, IDR)]);
    let head = head();
    let data = cat(&[&head, &first, &second]);
    let cuts: Vec<_> = units(&scan(&data))
        .into_iter()
        .filter(|(_, u)| u.init.is_some())
        .map(|(at, u)| (at, u.key))
        .collect();
    assert_eq!(cuts, [(head.len(), Key::Closed), (head.len() + first.len(), Key::No)]);
    assert_eq!(keys(&scan(&data)).len(), 3);
}

#[test]
fn units_are_held_back_only_so_long() {
    let mut blocks: Vec<_> = (0..300).map(audio).collect();
    blocks.push(video(300, IDR));
    let (cluster, at) = open_cluster(0, &blocks);
    let head = head();
    let mut scanner = Matroska::new();
    let mut marks = Vec::new();
    let data = cat(&[&head, &cluster]);
    scanner.push(&data[..head.len() + at[HOLD - 1]], &mut marks).unwrap();
    assert!(marks.is_empty());
    scanner
        .push(&data[head.len() + at[HOLD - 1]..head.len() + at[HOLD]], &mut marks)
        .unwrap();
    assert_eq!(marks.len(), HOLD);
    scanner.push(&data[head.len() + at[HOLD]..], &mut marks).unwrap();
    assert_eq!(keys(&marks), [head.len() + at[300]]);

    // One huge block of sound before the picture is enough.
    let huge = el(0xA3, &block(2, 0, 0x80, &vec![0; 9 << 20]));
    let (cluster, at) = open_cluster(0, &[huge, video(0, IDR)]);
    assert_eq!(keys(&scan(&cat(&[&head, &cluster]))), [head.len() + at[1]]);
}

#[test]
fn a_huge_block_group_is_reported_at_its_block() {
    let block = el(0xA1, &block(1, 0, 0, &cat(&[IDR, &vec![0; 9 << 20]])));
    let group = el(0xA0, &cat(&[&block, &el(0x9B, &[40])]));
    let (cluster, at) = open_cluster(0, &[group, video(40, SLICE)]);
    let data = cat(&[&head(), &cluster]);
    let (mut scanner, mut marks) = (Matroska::new(), Vec::new());
    let part = head().len() + 100;
    scanner.push(&data[..part], &mut marks).unwrap();
    assert_eq!((keys(&marks), scanner.settled()), (vec![head().len()], part as u64));
    scanner.push(&data[part..], &mut marks).unwrap();
    assert_eq!(places(&marks, &MarkKind::PictureEnd), [head().len() + at[1]]);
    assert_eq!(units(&marks).len(), 2);
}

#[test]
fn a_picture_is_key_by_its_bytes_and_not_by_its_flag() {
    let (cluster, _) = open_cluster(0, &[video(0, SLICE)]);
    assert!(keys(&scan(&cat(&[&head(), &cluster]))).is_empty());
    let unflagged = el(0xA3, &block(1, 0, 0, IDR));
    let (cluster, _) = open_cluster(0, &[unflagged]);
    assert_eq!(keys(&scan(&cat(&[&head(), &cluster]))), [head().len()]);
}

#[test]
fn vpx_and_av1_are_classified_too() {
    for (codec, key, other, name) in [
        ("V_VP8", &[0x10u8, 0, 0][..], &[0x11u8, 0, 0][..], "vp8"),
        ("V_VP9", &[0x82, 0x49], &[0x86, 0], "vp9"),
        ("V_AV1", &[0x12, 0, 0x32, 1, 0x10], &[0x12, 0, 0x32, 1, 0x30], "av01"),
    ] {
        let head = head_of(&[&track(1, 1, codec, &[], &[])]);
        let (cluster, at) = open_cluster(0, &[video(0, key), video(40, other), video(80, key)]);
        let marks = scan(&cat(&[&head, &cluster]));
        assert_eq!(keys(&marks), [head.len(), head.len() + at[2]], "{codec}");
        assert_eq!(units(&marks)[0].1.init.as_ref().unwrap().info.codecs.as_deref(), Some(name));
    }
}

#[test]
fn stripped_headers_are_put_back_before_judging() {
    let compression = cat(&[&el(0x4254, &[3]), &el(0x4255, &[0, 0, 0])]);
    let encodings = el(0x6D80, &el(0x6240, &el(0x5034, &compression)));
    let head = head_of(&[&track(1, 1, "V_MPEG4/ISO/AVC", AVCC, &encodings)]);
    // The flags are wrong on purpose: only the bytes show which frames are key.
    let blocks = [
        el(0xA3, &block(1, 0, 0, &IDR[3..])),
        el(0xA3, &block(1, 40, 0x80, &SLICE[3..])),
    ];
    let (cluster, _) = open_cluster(0, &blocks);
    assert_eq!(keys(&scan(&cat(&[&head, &cluster]))), [head.len()]);
}

#[test]
fn frames_that_cannot_be_looked_into_are_key_where_the_container_says_so() {
    let zlib = el(0x6D80, &el(0x6240, &el(0x5034, &el(0x4254, &[0]))));
    for entry in [track(1, 1, "V_MPEG4/ISO/AVC", AVCC, &zlib), track(1, 1, "V_MPEG2", &[], &[])] {
        let head = head_of(&[&entry]);
        let plain = el(0xA0, &el(0xA1, &block(1, 40, 0, SLICE)));
        let referring = el(0xA0, &cat(&[&el(0xA1, &block(1, 80, 0, IDR)), &el(0xFB, &[0xff])]));
        let blocks = [video(0, SLICE), plain, referring, el(0xA3, &block(1, 120, 0, IDR))];
        let (cluster, at) = open_cluster(0, &blocks);
        let marks = scan(&cat(&[&head, &cluster]));
        assert_eq!(keys(&marks), [head.len(), head.len() + at[1]]);
    }
}

#[test]
fn laced_frames_are_classified_by_the_first() {
    for (flags, lace) in [(0x82u8, &[1u8, 8][..]), (0x86, &[1, 0x88]), (0x84, &[1])] {
        let laced = |frame: &[u8]| el(0xA3, &block(1, 0, flags, &cat(&[lace, frame, frame])));
        let (cluster, at) = open_cluster(0, &[laced(SLICE), laced(IDR)]);
        let marks = scan(&cat(&[&head(), &cluster]));
        assert_eq!(keys(&marks), [head().len() + at[1]], "flags {flags:x}");
        assert_eq!(units(&marks)[1].1.end, Some(80_000_000));
    }
}

#[test]
fn without_video_every_block_is_a_key_unit() {
    let head = head_of(&[&aac()]);
    let (cluster, at) = open_cluster(0, &[audio(0), audio(20)]);
    let known = closed_cluster(40, &[audio(0), audio(20)]);
    let data = cat(&[&head, &cluster, &known]);
    let marks = scan(&data);
    let all: Vec<_> = units(&marks)
        .into_iter()
        .map(|(at, u)| (at, u.key, u.init.is_some()))
        .collect();
    let second = head.len() + cluster.len();
    let last = data.len() - audio(20).len();
    let key = Key::Closed;
    assert_eq!(
        all,
        [
            (head.len(), key, true),
            (head.len() + at[1], key, true),
            (second, key, true),
            (last, key, false)
        ]
    );
    assert!(places(&marks, &MarkKind::PictureEnd).is_empty());
}

#[test]
fn times_follow_the_scale_and_durations_the_block_group() {
    let info = el(head::INFO, &el(0x2A_D7B1, &100_000u32.to_be_bytes()));
    let head = cat(&[
        &ebml_header("webm"),
        &unknown(SEGMENT),
        &info,
        &el(TRACKS, &track(1, 1, "V_VP8", &[], &[])),
    ]);
    let group = el(0xA0, &cat(&[&el(0xA1, &block(1, -3, 0, &[0x10])), &el(0x9B, &[7])]));
    let (cluster, _) = open_cluster(10, &[group, video(-11, &[0x11])]);
    let data = cat(&[&head, &cluster]);
    let (mut scanner, mut marks) = (Matroska::new(), Vec::new());
    scanner.push(&data, &mut marks).unwrap();
    assert_eq!((scanner.container(), scanner.resolution()), (Container::WebM, 100_000));
    let all = units(&marks);
    assert_eq!((all[0].1.pts, all[0].1.end), (Some(700_000), Some(1_400_000)));
    assert_eq!(all[1].1.pts, Some(0), "a time before 0 is 0");
}

#[test]
fn tags_cues_and_voids_between_clusters_are_payload() {
    let between = cat(&[
        &el(head::TAGS, &[9; 40]),
        &el(ebml::VOID, &[0; 9]),
        &el(head::CUES, &[9; 30]),
        &el(head::SEEK_HEAD, &[9; 30]),
    ]);
    let head = head();
    let (first, _) = open_cluster(0, &[video(0, IDR)]);
    let (second, _) = open_cluster(1000, &[video(0, IDR)]);
    let marks = scan(&cat(&[&head, &first, &between, &second, &between]));
    assert_eq!(keys(&marks), [head.len(), head.len() + first.len() + between.len()]);
    assert_eq!(units(&marks).len(), 2);
    assert!(places(&marks, &MarkKind::Damage).is_empty());
}

#[test]
fn subtitles_and_further_video_tracks_are_other_units() {
    let head = head_of(&[
        &h264(),
        &track(2, 17, "S_TEXT/UTF8", &[], &[]),
        &track(3, 1, "V_VP8", &[], &[]),
    ]);
    let third = el(0xA3, &block(3, 2, 0x80, &[0x10]));
    let (cluster, _) = open_cluster(0, &[third, audio(1), video(3, IDR)]);
    let tracks: Vec<_> = units(&scan(&cat(&[&head, &cluster])))
        .into_iter()
        .map(|(_, u)| (u.track, u.key))
        .collect();
    assert_eq!(
        tracks,
        [(Track::Video, Key::Closed), (Track::Other, Key::No), (Track::Other, Key::No)]
    );
}

#[test]
fn a_head_in_mid_stream_is_payload_and_counts_only_if_it_differs() {
    let (cluster, _) = open_cluster(0, &[video(0, IDR)]);
    let named = head_of(&[&h264(), &aac(), &[]]);
    let other = head_of(&[&track(1, 1, "V_VP8", &[], &[])]);
    let data = cat(&[&head(), &cluster, &named, &cluster, &other]);
    let (vp8, _) = open_cluster(0, &[video(0, &[0x10])]);
    let at = [head().len() + cluster.len(), data.len() - other.len()];
    let mut scanner = Matroska::new();
    let mut marks = Vec::new();
    scanner.push(&data, &mut marks).unwrap();
    assert_eq!(scanner.settled(), at[1] as u64, "undecided until the head has been read");
    scanner.push(&vp8, &mut marks).unwrap();
    scanner.finish(&mut marks);
    let heads: Vec<_> = units(&marks).into_iter().filter(|(_, u)| u.track == Track::Other).collect();
    assert_eq!(
        heads.iter().map(|(at, u)| (*at, u.new_codec_config)).collect::<Vec<_>>(),
        [(at[0], true), (at[1], true)]
    );
    assert!(
        heads.iter().all(|(_, u)| u.init.as_ref().unwrap().is_empty()),
        "the payload brings its own"
    );
    assert_eq!(heads[1].1.init.as_ref().unwrap().info.codecs.as_deref(), Some("vp8"));
    let (_, last) = units(&marks).pop().unwrap();
    assert_eq!(last.init.unwrap().head, other);
}

#[test]
fn tracks_in_mid_stream_count_only_if_they_differ() {
    let (cluster, _) = open_cluster(0, &[video(0, IDR)]);
    let (vp8, _) = open_cluster(40, &[video(0, &[0x10])]);
    let same = el(TRACKS, &cat(&[&h264(), &aac()]));
    let other = el(TRACKS, &track(1, 1, "V_VP8", &[], &[]));
    let head = head();
    let data = cat(&[&head, &cluster, &same, &cluster, &other, &vp8]);
    let all = units(&scan(&data));
    let changes: Vec<_> = all.iter().filter(|(_, u)| u.new_codec_config).collect();
    assert_eq!(changes.len(), 1);
    let (at, unit) = changes[0];
    assert_eq!(*at, data.len() - vp8.len() - other.len());
    // The header in front of the new Tracks is the head without the old ones.
    let init = unit.init.as_ref().unwrap();
    assert_eq!(init.head, head[..head.len() - same.len()]);
    let last = all.last().unwrap().1.init.as_ref().unwrap();
    assert_eq!(last.head, cat(&[&head[..head.len() - same.len()], &other]));
    assert_eq!(last.info.codecs.as_deref(), Some("vp8"));
}

/// A key frame with an SPS of that level and a PPS in band.
fn with_sets(level: u8) -> Vec<u8> {
    cat(&[&[0, 0, 0, 4, 0x67, 0x64, 0, level, 0, 0, 0, 2, 0x68, 1], IDR])
}

#[test]
fn other_parameter_sets_in_band_are_a_new_configuration() {
    let blocks: Vec<_> = [40, 40, 31, 31]
        .iter()
        .zip(0..)
        .map(|(&l, i)| video(i * 40, &with_sets(l)))
        .collect();
    let (cluster, _) = open_cluster(0, &blocks);
    let all = units(&scan(&cat(&[&head(), &cluster])));
    assert_eq!(
        all.iter().map(|(_, u)| u.new_codec_config).collect::<Vec<_>>(),
        [false, false, true, false]
    );
    assert_eq!(
        all[1].1.init.as_ref().unwrap().info.codecs.as_deref(),
        Some("avc1.640028,mp4a.40.2")
    );
    assert_eq!(
        all[2].1.init.as_ref().unwrap().info.codecs.as_deref(),
        Some("avc1.64001F,mp4a.40.2")
    );
    // No cut is requested where no chunk can begin.
    let known = closed_cluster(0, &blocks);
    assert!(
        units(&scan(&cat(&[&head(), &known])))
            .iter()
            .all(|(_, u)| !u.new_codec_config)
    );
}

#[test]
fn missing_parameter_sets_are_reported_once() {
    let bare = [1, 0x64, 0, 40, 0xff, 0xe0, 0];
    let head = head_of(&[&track(1, 1, "V_MPEG4/ISO/AVC", &bare, &[])]);
    let notice = MarkKind::Notice(Notice::NoParameterSets);
    let (cluster, _) = open_cluster(0, &[video(0, &with_sets(40)), video(40, IDR), video(80, IDR)]);
    assert_eq!(places(&scan(&cat(&[&head, &cluster])), &notice).len(), 1);
    let (cluster, _) = open_cluster(0, &[video(0, IDR)]);
    assert!(places(&scan(&cat(&[&self::head(), &cluster])), &notice).is_empty());
}

#[test]
fn damage_is_passed_over_up_to_the_next_cluster() {
    let head = head();
    let (first, at) = open_cluster(0, &[video(0, IDR), audio(10), video(40, SLICE)]);
    let (second, _) = open_cluster(1000, &[video(0, IDR)]);
    // Bytes are missing: what comes after the second block is no element.
    let cut = head.len() + at[2] + 3;
    let data = cat(&[&head, &first[..at[2]], &first[at[2] + 3..], &second]);
    let marks = scan(&data);
    assert_eq!(places(&marks, &MarkKind::Damage), [cut - 3]);
    assert_eq!(keys(&marks), [head.len(), data.len() - second.len()]);

    // A block that runs over the end of its Cluster.
    let mut broken = closed_cluster(0, &[video(0, IDR), audio(10)]);
    let size = broken.len() - audio(10).len() + 8;
    broken[size] = 0xff;
    let data = cat(&[&head, &broken, &second]);
    let marks = scan(&data);
    assert_eq!(
        places(&marks, &MarkKind::Damage),
        [head.len() + broken.len() - audio(10).len()]
    );
    assert_eq!(keys(&marks), [head.len(), data.len() - second.len()]);

    // A Cluster that is shorter than it says: the next one begins inside.
    let short = closed_cluster(0, &[video(0, IDR), audio(10)]);
    let short = &short[..short.len() - audio(10).len()];
    let marks = scan(&cat(&[&head, short, &second]));
    assert_eq!(places(&marks, &MarkKind::Damage), [head.len() + short.len()]);
    assert_eq!(keys(&marks), [head.len(), head.len() + short.len()]);
}

#[test]
fn a_key_block_group_ends_before_the_damage_behind_it() {
    let group = el(0xA0, &el(0xA1, &block(1, 0, 0, IDR)));
    let (cluster, _) = open_cluster(0, &[group]);
    let data = cat(&[&head(), &cluster, &[0; 20]]);
    let end = data.len() - 20;
    for lengths in [vec![data.len()], vec![end, 20], vec![1]] {
        let marks = scan_sliced(&data, &lengths).unwrap();
        let kinds: Vec<_> = marks.iter().skip(1).map(|m| (m.at, m.kind.clone())).collect();
        assert_eq!(kinds, [(end as u64, MarkKind::PictureEnd), (end as u64, MarkKind::Damage)]);
    }
}

#[test]
fn damage_ends_at_a_new_head_too() {
    let (cluster, _) = open_cluster(0, &[video(0, IDR)]);
    let data = cat(&[&head(), &cluster, &[0; 100], &head(), &cluster]);
    let marks = scan(&data);
    assert_eq!(places(&marks, &MarkKind::Damage), [head().len() + cluster.len()]);
    assert_eq!(keys(&marks), [head().len(), data.len() - cluster.len()]);
}

#[test]
fn a_damaged_head_keeps_every_byte() {
    let (cluster, _) = open_cluster(0, &[video(0, IDR)]);
    let head = head();
    let data = cat(&[&head, &[0; 7], &cluster]);
    let marks = scan(&data);
    let all = units(&marks);
    assert_eq!(all[0].0, head.len());
    assert_eq!(all[0].1.init.as_ref().unwrap().head, head);
    assert_eq!(places(&marks, &MarkKind::Damage), [head.len()]);
    assert_eq!(keys(&marks), [head.len() + 7]);
    let no_head = scan(&cat(&[b"not Matroska", &cluster]));
    assert_eq!((units(&no_head)[0].0, keys(&no_head)), (0, vec![]));
}

#[test]
fn a_head_over_the_limit_ends_the_stream() {
    let mut attachments = id(head::ATTACHMENTS);
    attachments.extend_from_slice(&[0x10, 0x50, 0, 0]);
    let data = cat(&[&head(), &attachments]);
    let fault = Matroska::new().push(&data, &mut Vec::new());
    assert_eq!(fault, Err(Fault::HeaderTooLarge((5 << 20) + data.len() as u64)));
    // The same between Clusters is passed over.
    let (cluster, _) = open_cluster(0, &[video(0, IDR)]);
    let data = cat(&[&head(), &cluster, &attachments, &vec![0; 5 << 20], &cluster]);
    assert_eq!(keys(&scan(&data)).len(), 2);
}

#[test]
fn a_last_block_that_is_cut_off_is_a_unit_but_its_picture_has_no_end() {
    let (cluster, at) = open_cluster(0, &[video(0, IDR), audio(1), video(40, IDR)]);
    let head = head();
    for missing in 1..3 {
        let data = cat(&[&head, &cluster[..cluster.len() - missing]]);
        let marks = scan(&data);
        assert_eq!(units(&marks).len(), 3);
        assert_eq!(places(&marks, &MarkKind::PictureEnd), [head.len() + at[1]]);
        assert!(places(&marks, &MarkKind::Damage).is_empty());
    }
    // Too few bytes to classify the frame: no chunk may begin there.
    let data = cat(&[&head, &cluster[..at[2] + 14]]);
    assert_eq!(keys(&scan(&data)), [head.len()]);
}

#[test]
fn after_an_interruption_a_cluster_or_a_block_goes_on_with_the_same_head() {
    let head = head();
    let (cluster, at) = open_cluster(0, &[video(0, IDR), audio(1), video(40, IDR)]);
    for next in [cluster.clone(), cluster[at[2]..].to_vec(), cat(&[&head, &cluster])] {
        let mut scanner = Matroska::new();
        let mut marks = Vec::new();
        let before = cat(&[&head, &cluster[..at[1] + 12]]);
        scanner.push(&before, &mut marks).unwrap();
        scanner.restart();
        assert_eq!(scanner.settled(), before.len() as u64);
        marks.clear();
        scanner.push(&next, &mut marks).unwrap();
        scanner.finish(&mut marks);
        let (_, key) = units(&marks).into_iter().find(|(_, u)| u.key.is_key()).unwrap();
        assert_eq!(key.init.unwrap().head, head);
        assert!(places(&marks, &MarkKind::Damage).is_empty());
    }
}

#[test]
fn an_empty_cluster_is_a_unit_as_well() {
    let (empty, _) = open_cluster(0, &[]);
    let (cluster, _) = open_cluster(40, &[video(0, IDR)]);
    let all = units(&scan(&cat(&[&head(), &empty, &cluster])));
    assert_eq!(
        (all[0].0, all[0].1.track, all[0].1.key),
        (head().len(), Track::Other, Key::No)
    );
    assert_eq!(all[1].1.key, Key::Closed);
}

/// A stream with one of each kind of element.
fn sample() -> Vec<u8> {
    let group = el(
        0xA0,
        &cat(&[&el(0xA1, &block(1, 60, 0, IDR)), &el(0x9B, &[40]), &el(0xFB, &[0xff])]),
    );
    let blocks = [
        audio(0),
        video(0, &with_sets(40)),
        audio(20),
        video(40, SLICE),
        group,
        el(ebml::VOID, &[0; 30]),
    ];
    let (open, _) = open_cluster(0, &blocks);
    let closed = closed_cluster(200, &[video(0, SLICE), audio(3), video(40, &with_sets(31))]);
    let tracks = el(TRACKS, &cat(&[&h264(), &aac(), &track(3, 17, "S_TEXT/UTF8", &[], &[])]));
    let parts: [&[u8]; 9] = [
        &head(),
        &open,
        &el(head::TAGS, &[1; 9]),
        &closed,
        &tracks,
        &open,
        &[0x1A, 0x45, 0, 0x1F],
        &head(),
        &closed,
    ];
    cat(&parts)
}

/// Feeds the input in slices of these lengths, repeated cyclically, and checks the guarantees of a scanner after each.
pub(crate) fn scan_sliced(data: &[u8], lengths: &[usize]) -> Option<Vec<Mark>> {
    let (mut scanner, mut marks) = (Matroska::new(), Vec::new());
    let (mut rest, mut settled, mut last, mut reported) = (data, 0, 0, 0);
    let mut lengths = lengths.iter().cycle();
    loop {
        let n = rest.len().min((*lengths.next().unwrap()).max(1));
        let result = scanner.push(&rest[..n], &mut marks);
        rest = &rest[n..];
        if result.is_ok() && rest.is_empty() {
            scanner.finish(&mut marks);
            assert_eq!(scanner.settled(), data.len() as u64);
        }
        for mark in &marks[reported..] {
            assert!(
                mark.at >= last && mark.at >= settled,
                "{mark:?} after {last}, settled {settled}"
            );
            last = mark.at;
        }
        reported = marks.len();
        result.ok()?;
        assert!(scanner.settled() >= settled && scanner.settled() <= (data.len() - rest.len()) as u64);
        assert!(last <= (data.len() - rest.len()) as u64);
        settled = scanner.settled();
        if rest.is_empty() {
            return Some(marks);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn marks_do_not_depend_on_slicing(lengths in prop::collection::vec(1usize..200, 1..20)) {
        let data = sample();
        prop_assert!(scan_sliced(&data, &lengths) == scan_sliced(&data, &[data.len()]));
    }

    #[test]
    fn mutated_streams_keep_the_promises(
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), 0u8..4), 1..12),
        lengths in prop::collection::vec(1usize..300, 1..8),
    ) {
        let mut data = sample();
        for (at, byte, what) in changes {
            let at = at.index(data.len());
            match what {
                0 => data[at] = byte,
                1 => data[at] ^= 1 << (byte & 7),
                2 => drop(data.drain(at..data.len().min(at + usize::from(byte & 31)))),
                _ => data.insert(at, byte),
            }
        }
        prop_assert!(scan_sliced(&data, &lengths) == scan_sliced(&data, &[data.len()]));
    }

    #[test]
    fn random_elements_keep_the_promises(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                vec![0x1A, 0x45, 0xDF, 0xA3], vec![0x1F, 0x43, 0xB6, 0x75], vec![0x18, 0x53, 0x80, 0x67],
                vec![0x16, 0x54, 0xAE, 0x6B], vec![0xA3], vec![0xA0], vec![0xA1], vec![0xE7, 0x81], vec![0x81], vec![0xFF],
                vec![0x84, 0x81, 0, 0, 0x80], vec![0, 0, 0, 4, 0x65], video(0, &[0, 0, 0, 2, 9, 0xf0]),
                video(0, &[0, 0, 0, 4, 0x65, 0x41, 1, 2]), el(0xA0, &el(0xA1, &block(1, 0, 0, IDR))), head(), video(0, IDR), audio(1), unknown(CLUSTER),
            ]), 0..40),
        lengths in prop::collection::vec(1usize..50, 1..8),
    ) {
        let data = parts.concat();
        prop_assert!(scan_sliced(&data, &lengths) == scan_sliced(&data, &[data.len().max(1)]));
    }
}

#[test]
fn a_file_whose_tracks_come_last_is_refused_before_anything_is_stored() {
    let whole = head_of(&[]);
    let without = &whole[..whole.len() - el(0x1654_AE6B, &[]).len()];
    let (cluster, _) = open_cluster(0, &[video(0, IDR)]);
    let (mut scanner, mut marks) = (Matroska::new(), Vec::new());
    let outcome = scanner.push(&cat(&[without, &cluster, &el(0x1654_AE6B, &[])]), &mut marks);
    assert_eq!(outcome, Err(Fault::TracksLast));
    assert_eq!(marks, []);
}

#[test]
fn a_head_of_very_many_tracks_is_given_up() {
    let one = track(1, 2, "A_AAC", &[], &[]);
    let many = one.repeat(20_000);
    let tracks = el(0x1654_AE6B, &many);
    assert!(Tracks::parse(&tracks[8..]).is_err());
}

#[test]
fn a_flipped_bit_in_the_size_of_a_block_does_not_swallow_the_rest_of_the_stream() {
    // 0xA3, a size of eight octets whose upper bits are wrong.
    let broken = cat(&[&[0xA3, 0x01, 0, 0, 0, 0x08, 0, 0, 40], &[0x81; 40]]);
    let (first, at) = open_cluster(0, &[video(0, IDR), broken]);
    let (second, _) = open_cluster(40, &[video(0, IDR)]);
    let head = head();
    let marks = scan(&cat(&[&head, &first, &second]));
    assert_eq!(places(&marks, &MarkKind::Damage), [head.len() + at[1]]);
    assert_eq!(keys(&marks), [head.len(), head.len() + first.len()]);
}

#[test]
fn a_pps_that_comes_in_band_once_is_reported_where_a_later_key_picture_lacks_it() {
    let key: &[u8] = &[0, 0, 0, 3, 0x65, 0x88, 1];
    let first = cat(&[&[0, 0, 0, 3, 0x68, 1, 9], key]);
    let (cluster, _) = open_cluster(0, &[video(0, &first), video(40, key), video(80, key)]);
    let marks = scan(&cat(&[&head(), &cluster]));
    assert_eq!(
        places(&marks, &MarkKind::Notice(super::super::Notice::NoParameterSets)).len(),
        1
    );
}

#[test]
fn blocks_of_a_running_cluster_behind_the_head_are_no_part_of_it() {
    // A sink that joins a running muxer gets the head from the caps, then the rest of a Cluster.
    let (cluster, _) = open_cluster(5000, &[video(0, IDR), video(40, SLICE)]);
    let group = el(0xA0, &el(0xA1, &block(1, 80, 0, SLICE)));
    let huge = el(0xA3, &block(1, 0, 0x80, &vec![0x41; 5 << 20]));
    for rest in [video(40, SLICE), group, audio(60), timestamp(7), huge] {
        let head = head();
        let data = cat(&[&head, &rest, &video(80, SLICE), &cluster]);
        let marks = scan(&data);
        let all = units(&marks);
        assert_eq!((all[0].0, all[0].1.track, all[0].1.key), (head.len(), Track::Video, Key::No));
        assert!(
            places(&marks, &MarkKind::Damage).is_empty(),
            "the stream is joined, not damaged"
        );
        assert_eq!(keys(&marks), [data.len() - cluster.len()]);
        for (_, unit) in &all {
            assert_eq!(unit.init.as_ref().unwrap().head, head);
        }
    }
    // In an audio-only stream, and behind a head in mid-stream, the rest of a Cluster is damage.
    let sound = head_of(&[&aac()]);
    let (clear, _) = open_cluster(0, &[audio(0)]);
    for before in [Vec::new(), cat(&[&head(), &cluster])] {
        let data = cat(&[&before, &sound, &audio(40), &clear]);
        let marks = scan(&data);
        assert_eq!(places(&marks, &MarkKind::Damage), [before.len() + sound.len()]);
        let head = units(&marks).pop().unwrap().1.init.unwrap().head;
        assert_eq!(head, sound);
    }
}
