//! What EBML allows and few writers use: lacing, CRC-32, sizes of every length, unknown sizes.

use super::tests::*;
use super::*;

/// An element with a size of so many octets.
fn sized(id: &[u8], octets: u32, body: &[u8]) -> Vec<u8> {
    let size = (body.len() as u64 | 1 << (7 * octets)).to_be_bytes();
    cat(&[id, &size[8 - octets as usize..], body])
}

fn crc() -> Vec<u8> {
    sized(&[0xBF], 1, &[1, 2, 3, 4])
}

/// The marks, the same however the input is sliced.
fn scan_all(input: &[u8]) -> Vec<Mark> {
    let whole = scan(input);
    for step in [1, 5, 61] {
        let (mut scanner, mut marks) = (Matroska::new(), Vec::new());
        input.chunks(step).for_each(|slice| scanner.push(slice, &mut marks).unwrap());
        scanner.finish(&mut marks);
        assert!(marks == whole, "in slices of {step}");
    }
    whole
}

fn assert_cut_at(input: &[u8], begins: &[usize], what: &str) {
    let marks = scan_all(input);
    assert_eq!(keys(&marks), begins, "{what}");
    assert!(places(&marks, &MarkKind::Damage).is_empty(), "{what}");
}

/// A laced block: three frames, the first of which is `first`.
fn laced(number: u8, relative: i16, lacing: u8, first: &[u8]) -> Vec<u8> {
    let rest = [0x21u8; 8];
    let n = u8::try_from(first.len()).unwrap();
    let (sizes, frames) = match lacing {
        // Xiph, EBML: two sizes. Fixed: all as long as the first.
        1 => (vec![2, n, 8], cat(&[first, &rest, &rest])),
        3 => (vec![2, 0x80 | n, (0xbf - n) + 8], cat(&[first, &rest, &rest])),
        _ => (vec![2], first.repeat(3)),
    };
    cat(&[
        &[0xA3],
        &block_size(&sizes, &frames),
        &block(number, relative, 0x80 | lacing << 1, &cat(&[&sizes, &frames])),
    ])
}

fn block_size(sizes: &[u8], frames: &[u8]) -> Vec<u8> {
    vec![0x80 | u8::try_from(4 + sizes.len() + frames.len()).unwrap()]
}

#[test]
fn every_kind_of_lacing_is_looked_through() {
    let head = head();
    for lacing in 1..4u8 {
        let mut input = head.clone();
        let mut begins = Vec::new();
        for n in 0..3u16 {
            begins.push(input.len());
            let blocks = [
                laced(2, 0, lacing, &[0x21; 8]),
                laced(1, 0, lacing, IDR),
                laced(1, 120, lacing, SLICE),
            ];
            input.extend(closed_cluster(n * 240, &blocks));
        }
        assert_cut_at(&input, &begins, "lacing");
        let units = units(&scan(&input));
        let videos: Vec<_> = units.iter().filter(|(_, unit)| unit.track == Track::Video).collect();
        // Three frames of 40 ms each.
        let times: Vec<_> = videos.iter().map(|(_, unit)| (unit.pts, unit.end)).collect();
        let ms = |ms: u64| Some(ms * 1_000_000);
        assert_eq!(times[..2], [(ms(0), ms(120)), (ms(120), ms(240))], "{lacing}");
    }
}

#[test]
fn laced_sound_alone_tells_how_long_it_is() {
    let head = head_of(&[&track(2, 2, "A_AAC", &[0x11, 0x90], &[])]);
    for lacing in 1..4u8 {
        let input = cat(&[
            &head,
            &closed_cluster(0, &[laced(2, 0, lacing, &[0x21; 8]), laced(2, 64, lacing, &[0x21; 8])]),
        ]);
        let ends: Vec<_> = units(&scan_all(&input)).iter().map(|(_, unit)| unit.end).collect();
        // AAC at 48 kHz: three frames of 1024 samples.
        assert_eq!(ends, [Some(63_999_999), Some(127_999_999)], "{lacing}");
    }
}

#[test]
fn crc_32_elements_are_no_damage_wherever_they_may_stand() {
    let info = cat(&[&crc(), &el(0x2A_D7B1, &1_000_000u32.to_be_bytes())]);
    let h264 = track(1, 1, "V_MPEG4/ISO/AVC", AVCC, &crc());
    let head = cat(&[
        &el(0x1A45_DFA3, &cat(&[&crc(), &el(0x4282, b"matroska")])),
        &cat(&[&[0x18, 0x53, 0x80, 0x67], &[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]]),
        &el(0x1549_A966, &info),
        &el(TRACKS, &cat(&[&crc(), &h264])),
    ]);
    for known in [true, false] {
        let mut input = head.clone();
        let mut begins = Vec::new();
        for n in 0..3u16 {
            begins.push(input.len());
            let time = el(0xE7, &(n * 40).to_be_bytes());
            let group = el(0xA0, &cat(&[&crc(), &el(0xA1, &block(1, 0, 0, IDR))]));
            let body = cat(&[&crc(), &time, &group, &el(0xEC, &[0; 3])]);
            if known {
                input.extend(el(CLUSTER, &body));
            } else {
                input.extend(cat(&[&[0x1F, 0x43, 0xB6, 0x75, 0xff], &body]));
            }
        }
        assert_cut_at(&input, &begins, "CRC-32");
    }
}

#[test]
fn sizes_of_every_length_are_read() {
    // EBMLMaxSizeLength is at most 8; a writer may use any of them, also longer ones than it needs.
    for octets in 1..=8u32 {
        let tracks = sized(
            &[0x16, 0x54, 0xAE, 0x6B],
            octets.max(2),
            &track(1, 1, "V_MPEG4/ISO/AVC", AVCC, &[]),
        );
        let mut input = cat(&[
            &sized(
                &[0x1A, 0x45, 0xDF, 0xA3],
                octets,
                &cat(&[&el(0x42F3, &[8]), &el(0x4282, b"matroska")]),
            ),
            &[0x18, 0x53, 0x80, 0x67, 0xff],
            &tracks,
        ]);
        let mut begins = Vec::new();
        for n in 0..3u8 {
            begins.push(input.len());
            let blocks = cat(&[
                &sized(&[0xE7], octets, &[n * 40]),
                &sized(&[0xA3], octets, &block(1, 0, 0x80, IDR)),
            ]);
            input.extend(sized(&[0x1F, 0x43, 0xB6, 0x75], octets, &blocks));
        }
        assert_cut_at(&input, &begins, "sizes");
    }
}

#[test]
fn unknown_sizes_in_every_length_end_at_what_stands_above_them() {
    for octets in 1..=8u32 {
        let unknown = |id: &[u8]| {
            let size = ((1u64 << (7 * octets + 1)) - 1).to_be_bytes();
            cat(&[id, &size[8 - octets as usize..]])
        };
        let tracks = el(TRACKS, &track(1, 1, "V_MPEG4/ISO/AVC", AVCC, &[]));
        let mut input = cat(&[
            &el(0x1A45_DFA3, &el(0x4282, b"matroska")),
            &unknown(&[0x18, 0x53, 0x80, 0x67]),
            &tracks,
        ]);
        let mut begins = Vec::new();
        for n in 0..4u8 {
            begins.push(input.len());
            input.extend(cat(&[
                &unknown(&[0x1F, 0x43, 0xB6, 0x75]),
                &el(0xE7, &[n * 40]),
                &video(0, IDR),
            ]));
            // Cues and Tags end a Cluster as the next Cluster does.
            if n == 2 {
                input.extend(el(0x1C53_BB6B, &[0xEC, 0x80]));
                input.extend(el(0x1254_C367, &[0xEC, 0x80]));
            }
        }
        assert_cut_at(&input, &begins, "unknown sizes");
    }
}
#[test]
fn a_head_over_the_limit_in_mid_stream_is_damage_and_ends_no_recording() {
    let (first, _) = open_cluster(0, &[video(0, IDR)]);
    let (next, _) = open_cluster(40, &[video(0, IDR)]);
    let second = cat(&[
        &el(0x1A45_DFA3, &el(0x4282, b"matroska")),
        &[0x18, 0x53, 0x80, 0x67, 0xff],
        // Tags of 16 MiB.
        &[0x12, 0x54, 0xC3, 0x67, 0x11, 0, 0, 0],
    ]);
    let head = head();
    let input = cat(&[&head, &first, &second, &next]);
    let marks = scan_all(&input);
    assert_eq!(keys(&marks), [head.len(), input.len() - next.len()]);
    let tags = head.len() + first.len() + second.len() - 8;
    assert_eq!(places(&marks, &MarkKind::Damage), [tags]);
}
