//! Writes small fragmented MP4 streams for the tests.

use crate::container::fmp4::Fmp4;
use crate::container::fmp4::moov::ORIGIN;
use crate::container::{Fault, Key, Mark, MarkKind, Scanner, Track, Unit};

/// Sample flags of a sync sample, and of one that is none.
pub(crate) const SYNC: u32 = 0x0200_0000;
pub(crate) const NON_SYNC: u32 = 0x0101_0000;

pub(crate) fn boxed(kind: &[u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    let body = parts.concat();
    let mut out = u32::try_from(body.len() + 8).unwrap().to_be_bytes().to_vec();
    out.extend_from_slice(kind);
    out.extend_from_slice(&body);
    out
}

/// A `FullBox` of version 0 without flags.
pub(crate) fn full(kind: &[u8; 4], parts: &[&[u8]]) -> Vec<u8> {
    boxed(kind, &[&[0; 4], &parts.concat()])
}

pub(crate) fn words(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|w| w.to_be_bytes()).collect()
}

/// How a track of the head is written.
#[derive(Clone)]
pub(crate) struct Trak {
    pub(crate) id: u32,
    pub(crate) handler: &'static [u8; 4],
    pub(crate) timescale: u32,
    pub(crate) entry: Vec<u8>,
    pub(crate) edits: Vec<(u32, i32)>,
    /// Samples that `stts` counts.
    pub(crate) samples: u32,
}

impl Trak {
    pub(crate) fn video(entry: Vec<u8>) -> Self {
        Self {
            id: 1,
            handler: b"vide",
            timescale: 1000,
            entry,
            edits: vec![],
            samples: 0,
        }
    }

    pub(crate) fn audio(entry: Vec<u8>) -> Self {
        Self {
            id: 2,
            handler: b"soun",
            timescale: 48_000,
            ..Self::video(entry)
        }
    }

    fn write(&self) -> Vec<u8> {
        let tkhd = full(b"tkhd", &[&words(&[0, 0, self.id, 0]), &[0; 60]]);
        let mdhd = full(b"mdhd", &[&words(&[0, 0, self.timescale, 0, 0])]);
        let hdlr = full(b"hdlr", &[&[0; 4], self.handler, &[0; 13]]);
        let stsd = full(b"stsd", &[&words(&[1]), &self.entry]);
        let stts = if self.samples == 0 {
            words(&[0])
        } else {
            words(&[1, self.samples, 1])
        };
        let stbl = boxed(
            b"stbl",
            &[&stsd, &full(b"stts", &[&stts]), &full(b"stsz", &[&words(&[0, 0])])],
        );
        let mdia = boxed(b"mdia", &[&mdhd, &hdlr, &boxed(b"minf", &[&stbl])]);
        let mut entries = words(&[u32::try_from(self.edits.len()).unwrap()]);
        for (duration, media_time) in &self.edits {
            entries.extend(words(&[*duration, media_time.cast_unsigned(), 0x1_0000]));
        }
        let edts = boxed(b"edts", &[&full(b"elst", &[&entries])]);
        boxed(b"trak", &[&tkhd, if self.edits.is_empty() { &[] } else { &edts }, &mdia])
    }
}

pub(crate) fn ftyp() -> Vec<u8> {
    boxed(b"ftyp", &[b"iso5", &[0; 4], b"iso5"])
}

pub(crate) fn moov_parts(traks: &[Trak], extends: bool) -> Vec<u8> {
    let mvhd = full(b"mvhd", &[&words(&[0, 0, 100, 0]), &[0; 80]]);
    let trex: Vec<u8> = traks
        .iter()
        .flat_map(|t| full(b"trex", &[&words(&[t.id, 1, 40, 0, NON_SYNC])]))
        .collect();
    let mvex = boxed(b"mvex", &[&trex]);
    let traks: Vec<u8> = traks.iter().flat_map(Trak::write).collect();
    boxed(b"moov", &[&mvhd, &traks, if extends { &mvex } else { &[] }])
}

pub(crate) fn moov(traks: &[Trak]) -> Vec<u8> {
    moov_parts(traks, true)
}

pub(crate) fn head(traks: &[Trak]) -> Vec<u8> {
    [ftyp(), moov(traks)].concat()
}

pub(crate) fn visual(format: &[u8; 4], boxes: &[u8]) -> Vec<u8> {
    boxed(format, &[&[0; 78], boxes])
}

pub(crate) fn sound(format: &[u8; 4], boxes: &[u8]) -> Vec<u8> {
    boxed(format, &[&[0; 28], boxes])
}

pub(crate) fn avc(level: u8) -> Vec<u8> {
    let record = [1, 0x64, 0, level, 0xff, 0xe1, 0, 4, 0x67, 0x64, 0, level, 1, 0, 2, 0x68, 1];
    visual(b"avc1", &boxed(b"avcC", &[&record]))
}

/// `esds` with that object type and decoder specific info.
pub(crate) fn esds(object_type: u8, config: &[u8]) -> Vec<u8> {
    let tagged = |tag: u8, body: &[u8]| [&[tag, u8::try_from(body.len()).unwrap()], body].concat();
    let config = if config.is_empty() { vec![] } else { tagged(5, config) };
    let decoder = tagged(4, &[&[object_type][..], &[0; 12], &config].concat());
    full(b"esds", &[&tagged(3, &[&[0, 1, 0][..], &decoder].concat())])
}

pub(crate) fn aac() -> Vec<u8> {
    sound(b"mp4a", &esds(0x40, &[0x12, 0x10]))
}

pub(crate) fn av_head() -> Vec<u8> {
    head(&[Trak::video(avc(40)), Trak::audio(aac())])
}

/// One sample.
#[derive(Clone)]
pub(crate) struct Sample {
    pub(crate) data: Vec<u8>,
    pub(crate) duration: u32,
    pub(crate) offset: i32,
    pub(crate) flags: u32,
}

/// A NAL unit of that type, filled up to `len` bytes, behind its length of four bytes.
pub(crate) fn nal(kind: u8, len: usize) -> Vec<u8> {
    let mut out = u32::try_from(len).unwrap().to_be_bytes().to_vec();
    out.push(kind);
    out.resize(len + 4, 0xab);
    out
}

pub(crate) fn picture(kind: u8, flags: u32) -> Sample {
    Sample {
        data: nal(kind, 20),
        duration: 40,
        offset: 0,
        flags,
    }
}

pub(crate) fn idr() -> Sample {
    picture(0x65, SYNC)
}

pub(crate) fn inter() -> Sample {
    picture(0x41, NON_SYNC)
}

/// `n` audio samples of 1024/48000 s.
pub(crate) fn sounds(n: usize) -> Vec<Sample> {
    vec![
        Sample {
            data: vec![0x21; 10],
            duration: 1024,
            offset: 0,
            flags: SYNC
        };
        n
    ]
}

/// Samples of one track in a fragment.
pub(crate) struct Traf {
    pub(crate) id: u32,
    /// `tfdt`, with its version.
    pub(crate) time: Option<(u8, u64)>,
    pub(crate) tfhd_flags: u32,
    pub(crate) samples: Vec<Sample>,
}

impl Traf {
    pub(crate) fn new(id: u32, time: u64, samples: Vec<Sample>) -> Self {
        Self {
            id,
            time: Some((1, time)),
            tfhd_flags: 0x02_0000,
            samples,
        }
    }

    fn write(&self, data_offset: Option<i32>) -> Vec<u8> {
        let flagged =
            |kind, version: u8, flags: u32, body: &[u8]| boxed(kind, &[&(u32::from(version) << 24 | flags).to_be_bytes(), body]);
        let base = if self.tfhd_flags & 1 == 0 { vec![] } else { words(&[0, 0]) };
        let tfhd = flagged(b"tfhd", 0, self.tfhd_flags, &[words(&[self.id]), base].concat());
        let tfdt = match self.time {
            Some((1, time)) => flagged(b"tfdt", 1, 0, &time.to_be_bytes()),
            Some((_, time)) => flagged(b"tfdt", 0, 0, &words(&[u32::try_from(time & 0xffff_ffff).unwrap()])),
            None => vec![],
        };
        let mut trun = words(&[u32::try_from(self.samples.len()).unwrap()]);
        let mut flags = 0xf00;
        if let Some(offset) = data_offset {
            flags |= 1;
            trun.extend(offset.to_be_bytes());
        }
        for s in &self.samples {
            trun.extend(words(&[
                s.duration,
                u32::try_from(s.data.len()).unwrap(),
                s.flags,
                s.offset.cast_unsigned(),
            ]));
        }
        boxed(b"traf", &[&tfhd, &tfdt, &flagged(b"trun", 1, flags, &trun)])
    }
}

/// `moof` and `mdat`.
pub(crate) fn fragment(trafs: &[Traf]) -> Vec<u8> {
    let moof = |mut at: i32| {
        let mut parts = vec![];
        for (i, traf) in trafs.iter().enumerate() {
            // Without a flag the second track goes on where the first one's data ended.
            let has_offset = i == 0 || traf.tfhd_flags & 0x02_0000 != 0;
            parts.extend(traf.write(has_offset.then_some(at)));
            at += i32::try_from(traf.samples.iter().map(|s| s.data.len()).sum::<usize>()).unwrap();
        }
        boxed(b"moof", &[&full(b"mfhd", &[&words(&[1])]), &parts])
    };
    let len = i32::try_from(moof(0).len()).unwrap();
    let data: Vec<u8> = trafs.iter().flat_map(|t| &t.samples).flat_map(|s| s.data.clone()).collect();
    [moof(len + 8), boxed(b"mdat", &[&data])].concat()
}

/// A fragment of the video track, at that time in ms.
pub(crate) fn video(ms: u64, samples: &[Sample]) -> Vec<u8> {
    fragment(&[Traf::new(1, ms, samples.to_vec())])
}

/// A fragment of the audio track from one time in ms to another, rounded to whole samples.
pub(crate) fn audio(ms: u64, n: usize) -> Vec<u8> {
    fragment(&[Traf::new(2, ms * 48, sounds(n))])
}

/// All marks of a stream, whatever becomes of it.
pub(crate) fn try_scan(input: &[u8], step: usize) -> (Vec<Mark>, Result<(), Fault>) {
    let mut scanner = Fmp4::new();
    let mut marks = vec![];
    for slice in input.chunks(step.max(1)) {
        if let Err(fault) = scanner.push(slice, &mut marks) {
            return (marks, Err(fault));
        }
    }
    scanner.finish(&mut marks);
    assert_eq!(scanner.settled(), input.len() as u64);
    (marks, Ok(()))
}

pub(crate) fn scan(input: &[u8]) -> Vec<Mark> {
    let (marks, result) = try_scan(input, usize::MAX);
    result.unwrap();
    marks
}

/// The units, with their times as in the stream.
pub(crate) fn units(marks: &[Mark]) -> Vec<(u64, Unit)> {
    let unit = |mark: &Mark| match &mark.kind {
        MarkKind::Unit(unit) => {
            let time = |ns: Option<u64>| ns.map(|ns| ns.saturating_sub(ORIGIN));
            let (pts, end) = (time(unit.pts), time(unit.end));
            let unit = Unit {
                pts,
                end,
                ..unit.clone()
            };
            Some((mark.at, unit))
        }
        _ => None,
    };
    marks.iter().filter_map(unit).collect()
}

/// Where each unit is, whose it is, and whether it is key.
pub(crate) fn outline(input: &[u8]) -> Vec<(u64, Track, Key)> {
    units(&scan(input))
        .into_iter()
        .map(|(at, unit)| (at, unit.track, unit.key))
        .collect()
}
