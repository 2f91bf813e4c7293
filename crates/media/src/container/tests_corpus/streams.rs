//! The streams of the corpus: every container as writers of different habits fill it.

use super::super::Container;
use super::super::fields::tests::units as nals;
use super::super::flv::test_stream::{AVC_2, Writer as Flv};
use super::super::fmp4::test_stream as mp4;
use super::super::matroska::tests as mkv;
use super::super::mpegts::tests::writer as ts;

/// One input.
pub(super) struct Stream {
    pub(super) container: Container,
    /// What is special about it.
    pub(super) name: &'static str,
    /// Bytes of a packet of a transport stream.
    pub(super) stride: usize,
    pub(super) bytes: Vec<u8>,
}

impl Stream {
    fn new(container: Container, name: &'static str, bytes: Vec<u8>) -> Self {
        Self {
            container,
            name,
            stride: 188,
            bytes,
        }
    }
}

/// All streams.
pub(super) fn all() -> Vec<Stream> {
    [flv(), transport(), fmp4(), matroska()].into_iter().flatten().collect()
}

fn nal(header: u8, len: usize) -> Vec<u8> {
    [&[header, 0x88][..], &vec![0xab; len]].concat()
}

fn sps() -> Vec<u8> {
    vec![0x67, 0x64, 0, 40]
}

fn pps() -> Vec<u8> {
    vec![0x68, 1]
}

fn flv() -> Vec<Stream> {
    let new = |name, w: Flv| Stream::new(Container::Flv, name, w.bytes);
    let mut plain = Flv::head(5);
    for n in 0..24 {
        plain.picture(n * 500, if n % 4 == 0 { 0x65 } else { 0x41 }, n % 4 == 0, 20);
        plain.audio(n * 500 + 10);
    }
    let mut sound = Flv::new(5);
    sound.tag(8, 0, super::super::flv::test_stream::AAC);
    for n in 0..60 {
        sound.audio(n * 400);
    }
    // One NAL unit in each tag, parameter sets in band, and a second configuration and header.
    let mut torn = Flv::head(1);
    for n in 0..12u32 {
        for unit in [sps(), pps(), nal(0x65, 60), nal(0x65, 20)] {
            torn.tag(9, n * 900, &[&[0x17, 1, 0, 0, 0][..], &nals(&[unit])].concat());
        }
        torn.tag(9, n * 900 + 400, &[&[0x27, 1, 0, 0, 0][..], &nals(&[nal(0x41, 50)])].concat());
        if n == 5 {
            torn.tag(9, n * 900, AVC_2);
        }
        if n == 8 {
            torn.bytes.extend(Flv::head(5).bytes);
        }
    }
    // VP6: neither script nor configuration.
    let mut vp6 = Flv::new(1);
    for n in 0..40u8 {
        let first = if n % 5 == 0 { 0x14 } else { 0x24 };
        vp6.tag(9, u32::from(n) * 300, &[&[first][..], &[n; 90]].concat());
    }
    // FourCCs: a record, pictures, ModEx and a second track around pictures.
    let mut four_cc = Flv::new(1);
    four_cc.tag(9, 0, b"\x90av01\x81\x04\x0c\0\x0a\x0b\0\0\0\x24\xc6\xab\xdf\x3e\xfe\x24\x04");
    for n in 0..30u32 {
        let key = n % 6 == 0;
        let frame: &[u8] = if key {
            &[0x12, 0, 0x32, 2, 0x10, 9]
        } else {
            &[0x12, 0, 0x32, 2, 0x30, 9]
        };
        let kind = if key { 0x90 } else { 0xa0 };
        four_cc.tag(9, n * 400, &[&[kind | 1][..], b"av01", frame].concat());
        four_cc.tag(9, n * 400, &[&[kind | 7, 2, 0, 0, 9, 1][..], b"av01", frame].concat());
        four_cc.tag(9, n * 400, &[&[kind | 6, 1][..], b"av01", &[1], frame].concat());
    }
    vec![
        new("pictures and sound", plain),
        new("sound alone", sound),
        new("a tag for each NAL unit", torn),
        new("VP6", vp6),
        new("FourCCs", four_cc),
    ]
}

fn transport() -> Vec<Stream> {
    let mut all = Vec::new();
    for (stride, name) in [(188, "pictures and sound"), (192, "packets of 192"), (204, "packets of 204")] {
        let mut w = ts::Writer::with_stride(stride);
        for n in 0..24u64 {
            if n % 6 == 0 {
                w.tables();
                w.sdt();
            }
            w.picture(n * 45_000, n % 6 == 0, 300);
            w.sound(n * 45_000);
            w.null();
        }
        let bytes = w.out;
        all.push(Stream {
            stride,
            ..Stream::new(Container::MpegTs, name, bytes)
        });
    }
    let new = |name, w: ts::Writer| Stream::new(Container::MpegTs, name, w.out);
    // PES packets of one size, however long the pictures are.
    let mut unaligned = ts::Writer::new();
    unaligned.tables();
    let pictures: Vec<u8> = (0..30)
        .flat_map(|n| if n % 5 == 0 { ts::idr(0x28, 300) } else { ts::p_slice(250) })
        .collect();
    for (n, part) in (0u64..).zip(pictures.chunks(333)) {
        unaligned.pes(ts::VIDEO, 0xe0, Some(n * 30_000), part);
    }
    // Sound alone, a table that changes, and a PID with a clock of its own.
    let mut changing = ts::Writer::new();
    changing.tables();
    for n in 0..30u64 {
        if n % 10 == 5 {
            changing.pmt(u8::try_from(n / 10).unwrap(), &ts::AV[usize::from(n > 20)..]);
        }
        changing.sound(n * 40_000);
        changing.pes(0x99, 0xbd, Some(n * 9_000_000), &[7; 40]);
        changing.picture(n * 40_000, n % 3 == 0, 100);
        changing.lose(ts::AUDIO, u8::from(n == 17));
    }
    // A table that comes late, and pictures of MPEG-2 in fields.
    let mut fields = ts::Writer::new();
    let es: &[ts::Es] = &[(2, ts::VIDEO, &[])];
    for n in 0..30u64 {
        if n == 3 || n == 12 {
            fields.pat();
            fields.pmt(0, es);
        }
        fields.pes(ts::VIDEO, 0xe0, Some(n * 45_000), &ts::mpeg2_field(n % 5 == 0, 0, false, 150));
        fields.pes(
            ts::VIDEO,
            0xe0,
            Some(n * 45_000 + 1800),
            &ts::mpeg2_field(false, 0, true, 150),
        );
    }
    // Each NAL unit in a PES packet of its own, parameter sets in front of each slice, some pictures scrambled.
    let mut slices = ts::Writer::new();
    slices.tables();
    for n in 0..16u64 {
        let start = slices.out.len();
        let kind = if n % 4 == 0 { 0x65 } else { 0x41 };
        for (i, unit) in [
            vec![9, 0xf0],
            sps(),
            pps(),
            nal(kind, 90),
            sps(),
            pps(),
            vec![kind, 0x20, 3, 4],
        ]
        .iter()
        .enumerate()
        {
            let time = n * 45_000 + if i > 3 { 900 } else { 0 };
            slices.pes(ts::VIDEO, 0xe0, Some(time), &[&[0, 0, 1][..], unit].concat());
        }
        if n % 8 == 6 {
            slices.out[start..].chunks_mut(188).for_each(|packet| packet[3] |= 0x80);
        }
        slices.sound(n * 45_000);
    }
    all.extend([
        new("a PES packet for each NAL unit", slices),
        new("PES packets that are not aligned", unaligned),
        new("tables that change", changing),
        new("MPEG-2 in fields", fields),
    ]);
    all
}

fn fmp4() -> Vec<Stream> {
    let new = |name, parts: &[Vec<u8>]| Stream::new(Container::Fmp4, name, parts.concat());
    let gop = |at: u64| {
        let pictures = [mp4::idr(), mp4::inter(), mp4::inter(), mp4::inter()];
        let one = pictures.map(|sample| mp4::Sample { duration: 250, ..sample });
        (at * 1000, one)
    };
    let mut plain = vec![mp4::av_head()];
    let mut together = vec![mp4::av_head()];
    let mut foreign = vec![mp4::av_head()];
    for n in 0..12 {
        let (ms, pictures) = gop(n);
        plain.extend([mp4::audio(ms, 47), mp4::video(ms, &pictures)]);
        for flags in [0x02_0000, 0] {
            let traf = |id, time, samples| mp4::Traf {
                tfhd_flags: flags,
                ..mp4::Traf::new(id, time, samples)
            };
            let at = ms + if flags == 0 { 500 } else { 0 };
            let trafs = [traf(1, at, pictures[..2].to_vec()), traf(2, at * 48, mp4::sounds(23))];
            together.push(mp4::fragment(&trafs));
        }
        foreign.push(mp4::boxed(b"styp", &[b"msdh", &[0; 4]]));
        foreign.push(mp4::full(
            b"sidx",
            &[&mp4::words(&[1, 1000, 0, 0, 1, 500, 1000, 0x9000_0000])],
        ));
        foreign.push(mp4::boxed(b"emsg", &[&[0; 40]]));
        foreign.push(mp4::boxed(b"free", &[&[0x11; 33]]));
        let late = mp4::Traf {
            time: Some((u8::try_from(n % 2).unwrap(), (n * 1000).wrapping_sub(500))),
            ..mp4::Traf::new(1, 0, pictures.to_vec())
        };
        foreign.push(mp4::fragment(&[late]));
        if n == 6 {
            foreign.push(mp4::head(&[mp4::Trak::video(mp4::avc(31))]));
        }
    }
    // Parameter sets in band, in fragments of their own; start codes.
    let entry = mp4::visual(b"avc3", &mp4::boxed(b"avcC", &[&[1, 0x64, 0, 40, 0xff, 0xe0, 0]]));
    let mut in_band = vec![mp4::head(&[mp4::Trak::video(entry)])];
    for n in 0..16 {
        let of = |units: &[Vec<u8>]| mp4::Sample {
            data: nals(units),
            duration: 0,
            ..mp4::idr()
        };
        in_band.push(mp4::video(n * 800, &[of(&[sps(), pps()])]));
        let picture = [of(&[nal(0x65, 30)]), of(&[nal(0x65, 30)])];
        in_band.push(mp4::video(n * 800, &picture));
        let annexb = [&[0, 0, 0, 1][..], &nal(0x41, 40)].concat();
        let inter = mp4::Sample {
            data: annexb,
            ..mp4::inter()
        };
        in_band.push(mp4::video(n * 800 + 400, &[inter]));
    }
    vec![
        new("a track in each fragment", &plain),
        new("both tracks in each fragment", &together),
        new("boxes beside the fragments", &foreign),
        new("parameter sets in band", &in_band),
    ]
}

fn matroska() -> Vec<Stream> {
    let new = |name, bytes| Stream::new(Container::Matroska, name, bytes);
    let crc = || mkv::el(0xBF, &[1, 2, 3, 4]);
    let mut open = mkv::head();
    let mut closed = mkv::head();
    let mut laced = mkv::head();
    for n in 0..14u16 {
        let blocks = [
            mkv::audio(0),
            mkv::video(0, mkv::IDR),
            mkv::video(250, mkv::SLICE),
            mkv::audio(260),
            mkv::video(500, mkv::IDR),
            mkv::video(750, mkv::SLICE),
        ];
        open.extend(mkv::open_cluster(n * 1000, &blocks).0);
        closed.extend(mkv::closed_cluster(n * 1000, &blocks));
        if n == 7 {
            open.extend(mkv::head());
            closed.extend(mkv::el(0x1254_C367, &[0xEC, 0x83, 0, 0, 0]));
        }
        let sound = |flags: u8, sizes: &[u8]| mkv::el(0xA3, &mkv::block(2, 0, 0x80 | flags, &[sizes, &[0x21; 40]].concat()));
        let group = mkv::el(
            0xA0,
            &[mkv::el(0xA1, &mkv::block(1, 0, 0, mkv::IDR)), mkv::el(0x9B, &[40])].concat(),
        );
        let blocks = [
            sound(0x02, &[2, 9, 9]),
            group,
            sound(0x06, &[2, 0x88, 0xbf]),
            sound(0x04, &[3]),
            mkv::el(0xEC, &[0; 9]),
            mkv::video(40, mkv::SLICE),
        ];
        let body = [&crc()[..], &mkv::el(0xE7, &(n * 1000).to_be_bytes()), &blocks.concat()].concat();
        laced.extend(mkv::el(0x1F43_B675, &body));
    }
    // Joined within a Cluster.
    let torn = [mkv::audio(0), mkv::video(20, &[mkv::SLICE, &[7; 300]].concat())].concat();
    let joined = [mkv::head(), torn, open.get(mkv::head().len()..).unwrap().to_vec()].concat();
    vec![
        new("joined within a Cluster", joined),
        new("Clusters of unknown size", open),
        new("Clusters of known size", closed),
        new("lacing, groups and CRC-32", laced),
    ]
}
