//! Small streams whose every field a test sets.
#![allow(dead_code, reason = "each test uses some of them")]

/// An FLV with pictures and sound announced.
pub struct Flv(pub Vec<u8>);

/// SPS and PPS of a stream of 16 × 16 pixels, for what need not be decoded.
const AVC: [u8; 22] = [
    0x17, 0, 0, 0, 0, 1, 0x64, 0, 0x28, 0xff, 0xe1, 0, 4, 0x67, 0x64, 0, 0x28, 1, 0, 2, 0x68, 1,
];

impl Flv {
    /// File header, AVC configuration, and AAC if there is sound.
    pub fn new(has_sound: bool) -> Self {
        let mut flv = Self(vec![
            b'F',
            b'L',
            b'V',
            1,
            if has_sound { 5 } else { 1 },
            0,
            0,
            0,
            9,
            0,
            0,
            0,
            0,
        ]);
        flv.tag(9, 0, &AVC);
        if has_sound {
            flv.tag(8, 0, &[0xaf, 0, 0x12, 0x10]);
        }
        flv
    }

    pub fn tag(&mut self, kind: u8, ms: u32, data: &[u8]) {
        let size = u32::try_from(data.len()).unwrap();
        let [_, s0, s1, s2] = size.to_be_bytes();
        let [ext, t0, t1, t2] = ms.to_be_bytes();
        self.0.extend([kind, s0, s1, s2, t0, t1, t2, ext, 0, 0, 0]);
        self.0.extend(data);
        self.0.extend((size + 11).to_be_bytes());
    }

    /// Another AVC configuration.
    pub fn configure(&mut self, ms: u32, level: u8) {
        let mut record = AVC;
        (record[8], record[16]) = (level, level);
        self.tag(9, ms, &record);
    }

    /// A picture of one slice behind these NAL units.
    pub fn picture(&mut self, ms: u32, is_key: bool, before: &[&[u8]]) {
        let slice: &[u8] = if is_key { &[0x65, 0x88, 1, 2] } else { &[0x41, 0x9a, 1, 2] };
        let mut data = vec![if is_key { 0x17 } else { 0x27 }, 1, 0, 0, 0];
        for nal in before.iter().copied().chain([slice]) {
            data.extend(u32::try_from(nal.len()).unwrap().to_be_bytes());
            data.extend(nal);
        }
        self.tag(9, ms, &data);
    }

    pub fn sound(&mut self, ms: u32) {
        self.tag(8, ms, &[0xaf, 1, 1, 2, 3, 4, 5, 6]);
    }
}

/// A transport stream of packets of 188 bytes.
#[derive(Default)]
pub struct Ts {
    pub bytes: Vec<u8>,
    counters: std::collections::BTreeMap<u16, u8>,
}

impl Ts {
    fn packet(&mut self, pid: u16, start: bool, payload: &[u8]) {
        let counter = self.counters.entry(pid).or_insert(0);
        let [high, low] = pid.to_be_bytes();
        let room = 184 - payload.len();
        let control = if room > 0 { 0x30 } else { 0x10 };
        self.bytes
            .extend([0x47, high | u8::from(start) << 6, low, control | *counter]);
        *counter = (*counter + 1) & 15;
        if room > 0 {
            self.bytes.push(u8::try_from(room - 1).unwrap());
            self.bytes
                .extend(std::iter::once(0).chain(std::iter::repeat(0xff)).take(room - 1));
        }
        self.bytes.extend(payload);
    }

    fn section(&mut self, pid: u16, table: u8, number: u16, body: &[u8]) {
        let len = u16::try_from(body.len() + 9).unwrap() | 0xb000;
        let mut section = vec![table];
        section.extend(len.to_be_bytes());
        section.extend(number.to_be_bytes());
        section.extend([0xc1, 0, 0]);
        section.extend(body);
        section.extend(crc32(&section).to_be_bytes());
        self.packet(pid, true, &[&[0], &section[..]].concat());
    }

    /// A PAT and a PMT for each program, each of one H.264 stream at 0x100 more than its PMT.
    pub fn tables(&mut self, maps: &[u16]) {
        let numbered = || (1u16..).zip(maps.iter().copied());
        let programs: Vec<u8> = numbered()
            .flat_map(|(number, pid)| [number.to_be_bytes(), (pid | 0xe000).to_be_bytes()].concat())
            .collect();
        self.section(0, 0, 1, &programs);
        for (number, pid) in numbered() {
            let [high, low] = ((pid + 0x100) | 0xe000).to_be_bytes();
            self.section(pid, 2, number, &[high, low, 0xf0, 0, 0x1b, high, low, 0xf0, 0]);
        }
    }

    /// A PES packet of video without a length, with a time at 90 kHz.
    pub fn pes(&mut self, pid: u16, pts: u64, data: &[u8]) {
        let bits = |shift: u32, mask: u64| u8::try_from(pts >> shift & mask).unwrap();
        let head = [0, 0, 1, 0xe0, 0, 0, 0x80, 0x80, 5, 0x21 | bits(30, 7) << 1, bits(22, 0xff)];
        let tail = [bits(15, 0x7f) << 1 | 1, bits(7, 0xff), bits(0, 0x7f) << 1 | 1];
        for (i, part) in [&head[..], &tail, data].concat().chunks(184).enumerate() {
            self.packet(pid, i == 0, part);
        }
    }
}

/// CRC of the sections of a transport stream.
fn crc32(data: &[u8]) -> u32 {
    data.iter().fold(u32::MAX, |crc, &byte| {
        (0..8).fold(crc ^ u32::from(byte) << 24, |crc, _| {
            crc << 1 ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 }
        })
    })
}

/// An EBML element whose size has eight octets.
pub fn element(id: &[u8], body: &[u8]) -> Vec<u8> {
    let size = u64::try_from(body.len()).unwrap() | 1 << 56;
    [id, &size.to_be_bytes(), body].concat()
}

/// The head of a Matroska without `Tracks`.
pub fn matroska_head() -> Vec<u8> {
    let ebml = element(&[0x1a, 0x45, 0xdf, 0xa3], &element(&[0x42, 0x82], b"matroska"));
    [
        ebml,
        vec![0x18, 0x53, 0x80, 0x67, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    ]
    .concat()
}
