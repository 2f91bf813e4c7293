//! Writes small transport streams.

use super::super::psi::crc32;

pub(crate) const PMT: u16 = 0x20;
pub(crate) const VIDEO: u16 = 0x41;
pub(crate) const AUDIO: u16 = 0x42;

/// stream_type, PID and descriptors of an elementary stream.
pub(crate) type Es = (u8, u16, &'static [u8]);

/// H.264 and ADTS.
pub(crate) const AV: &[Es] = &[(0x1b, VIDEO, &[]), (0x0f, AUDIO, &[])];

pub(crate) struct Writer {
    stride: usize,
    counters: Vec<u8>,
    pub(crate) out: Vec<u8>,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self::with_stride(188)
    }

    pub(crate) fn with_stride(stride: usize) -> Self {
        Self {
            stride,
            counters: vec![0; 8192],
            out: Vec::new(),
        }
    }

    /// Offset of the next packet.
    pub(crate) fn at(&self) -> u64 {
        self.out.len() as u64
    }

    /// A packet as it lies in the file, around its 188 bytes.
    pub(crate) fn raw(&mut self, packet: &[u8]) {
        assert_eq!(packet.len(), 188);
        if self.stride == 192 {
            self.out.extend_from_slice(&[0x12, 0x47, 0, self.counters[0]]);
        }
        self.out.extend_from_slice(packet);
        if self.stride == 204 {
            self.out.extend_from_slice(&[0x47; 16]);
        }
    }

    /// A packet with payload, stuffed by an adaptation field with those flags where there is room.
    pub(crate) fn packet(&mut self, pid: u16, start: bool, flags: u8, payload: &[u8]) {
        let counter = self.counters[usize::from(pid)];
        self.counters[usize::from(pid)] = (counter + 1) & 0xf;
        let [high, low] = pid.to_be_bytes();
        let mut packet = vec![0x47, high | u8::from(start) << 6, low, 0x10 | counter];
        let room = 184 - payload.len();
        if room > 0 {
            packet[3] |= 0x20;
            packet.push(u8::try_from(room - 1).unwrap());
            if room > 1 {
                packet.push(flags);
                packet.resize(4 + room, 0xff);
            }
        }
        packet.extend_from_slice(payload);
        self.raw(&packet);
    }

    /// Loses so many packets of a PID.
    pub(crate) fn lose(&mut self, pid: u16, packets: u8) {
        let counter = &mut self.counters[usize::from(pid)];
        *counter = (*counter + packets) & 0xf;
    }

    pub(crate) fn null(&mut self) {
        self.raw(&[&[0x47, 0x1f, 0xff, 0x10][..], &[0xff; 184]].concat());
    }

    /// A packet of adaptation field alone.
    pub(crate) fn clock_only(&mut self, pid: u16) {
        self.clock_with(pid, 0x10);
    }

    /// A packet of adaptation field alone, with those flags.
    pub(crate) fn clock_with(&mut self, pid: u16, flags: u8) {
        let [high, low] = pid.to_be_bytes();
        let counter = (self.counters[usize::from(pid)] + 15) & 0xf;
        self.raw(&[&[0x47, high, low, 0x20 | counter, 183, flags][..], &[0; 182]].concat());
    }

    /// A section, in as many packets as it takes. Returns the packets.
    pub(crate) fn section(&mut self, pid: u16, section: &[u8]) -> Vec<u8> {
        let begin = self.out.len();
        let whole = [&[0][..], section].concat();
        for (i, part) in whole.chunks(184).enumerate() {
            let payload = [part, &vec![0xff; 184 - part.len()]].concat();
            self.packet(pid, i == 0, 0, &payload);
        }
        self.out[begin..].to_vec()
    }

    /// A PAT with those programs.
    pub(crate) fn pat_of(&mut self, programs: &[(u16, u16)]) -> Vec<u8> {
        let body: Vec<u8> = programs
            .iter()
            .flat_map(|(number, pid)| [number.to_be_bytes(), (pid | 0xe000).to_be_bytes()].concat())
            .collect();
        self.section(0, &section(0, 1, 0, &body))
    }

    pub(crate) fn pat(&mut self) -> Vec<u8> {
        self.pat_of(&[(1, PMT)])
    }

    pub(crate) fn pmt(&mut self, version: u8, streams: &[Es]) -> Vec<u8> {
        let section = pmt_section(version, streams);
        self.section(PMT, &section)
    }

    pub(crate) fn sdt(&mut self) {
        self.section(0x11, &section(0x42, 1, 0, &[0xff; 20]));
    }

    /// A PES packet. Returns where it begins.
    pub(crate) fn pes(&mut self, pid: u16, stream_id: u8, pts: Option<u64>, data: &[u8]) -> u64 {
        let begin = self.at();
        for (i, part) in pes(stream_id, pts, data).chunks(184).enumerate() {
            self.packet(pid, i == 0, 0, part);
        }
        begin
    }

    /// A picture, of so many bytes after its first slice's header.
    pub(crate) fn picture(&mut self, pts: u64, key: bool, size: usize) -> u64 {
        let data = if key { idr(0x28, size) } else { p_slice(size) };
        self.pes(VIDEO, 0xe0, Some(pts), &data)
    }

    /// A frame of AAC LC.
    pub(crate) fn sound(&mut self, pts: u64) -> u64 {
        self.pes(
            AUDIO,
            0xc0,
            Some(pts),
            &[&[0xff, 0xf1, 0x50, 0x80, 0, 0, 0][..], &[0x55; 60]].concat(),
        )
    }

    /// PAT and PMT; returns both.
    pub(crate) fn tables(&mut self) -> Vec<u8> {
        let pat = self.pat();
        [pat, self.pmt(0, AV)].concat()
    }
}

/// A section with the long header and its CRC.
pub(crate) fn section(table_id: u8, number: u16, version: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len() + 9).unwrap() | 0xb000;
    let mut section = vec![table_id];
    section.extend_from_slice(&len.to_be_bytes());
    section.extend_from_slice(&number.to_be_bytes());
    section.extend_from_slice(&[0xc1 | version << 1, 0, 0]);
    section.extend_from_slice(body);
    let crc = crc32(&section);
    section.extend_from_slice(&crc.to_be_bytes());
    section
}

pub(crate) fn pmt_section(version: u8, streams: &[Es]) -> Vec<u8> {
    let mut body = vec![0xe0, 0x41, 0xf0, 0];
    for (stream_type, pid, descriptors) in streams {
        body.push(*stream_type);
        body.extend_from_slice(&(pid | 0xe000).to_be_bytes());
        body.extend_from_slice(&(u16::try_from(descriptors.len()).unwrap() | 0xf000).to_be_bytes());
        body.extend_from_slice(descriptors);
    }
    section(2, 1, version, &body)
}

pub(crate) fn pes(stream_id: u8, pts: Option<u64>, data: &[u8]) -> Vec<u8> {
    let mut pes = vec![0, 0, 1, stream_id, 0, 0, 0x80];
    match pts {
        None => pes.extend_from_slice(&[0, 0]),
        Some(pts) => {
            let bits = |shift: u32, mask: u64| u8::try_from(pts >> shift & mask).unwrap();
            pes.extend_from_slice(&[0x80, 5, 0x21 | bits(30, 7) << 1, bits(22, 0xff), bits(15, 0x7f) << 1 | 1]);
            pes.extend_from_slice(&[bits(7, 0xff), bits(0, 0x7f) << 1 | 1]);
        }
    }
    pes.extend_from_slice(data);
    pes
}

/// Access unit delimiter, SPS of that level, PPS, SEI, IDR slice.
pub(crate) fn idr(level: u8, size: usize) -> Vec<u8> {
    let mut data = vec![
        0, 0, 0, 1, 9, 0xf0, 0, 0, 0, 1, 0x67, 0x64, 0, level, 0xac, 0, 0, 0, 1, 0x68, 0xee, 0x3c,
    ];
    data.extend_from_slice(&[0, 0, 1, 6, 5, 200]);
    data.extend_from_slice(&[0x33; 200]);
    data.extend_from_slice(&[0x80, 0, 0, 1, 0x65, 0x88]);
    data.resize(data.len() + size, 0x77);
    data
}

pub(crate) fn p_slice(size: usize) -> Vec<u8> {
    let mut data = vec![0, 0, 0, 1, 9, 0xf0, 0, 0, 1, 0x41, 0x9a];
    data.resize(data.len() + size, 0x66);
    data
}

/// A video object layer of MPEG-4 part 2 with that number in it.
pub(crate) fn mpeg4_layer(number: u8) -> Vec<u8> {
    vec![
        0, 0, 1, 0xb0, 1, 0, 0, 1, 0xb5, 0x89, 0x13, 0, 0, 1, 0, 0, 0, 1, 0x20, 0, 0xc4, 0x8d, number,
    ]
}

/// A VOP of MPEG-4 part 2 of that coding type: 0 is I, 1 is P, 2 is B.
pub(crate) fn mpeg4_vop(kind: u8, size: usize) -> Vec<u8> {
    let mut data = vec![0, 0, 1, 0xb6, kind << 6 | 0x10, 0x60];
    data.resize(data.len() + size, 0x5a);
    data
}

/// A field of MPEG-2 with that temporal_reference; a key one has its sequence header in front.
pub(crate) fn mpeg2_field(key: bool, reference: u8, is_bottom: bool, size: usize) -> Vec<u8> {
    let mut data = Vec::new();
    if key {
        data.extend([0, 0, 1, 0xb3, 0x2d, 0x02, 0x40, 0x33, 0xff, 0xff, 0xe0, 0x18]);
        data.extend([0, 0, 1, 0xb5, 0x14, 0x82, 0, 1, 0, 0]);
        data.extend([0, 0, 1, 0xb8, 0, 8, 0, 0x40]);
    }
    let kind = if key { 1 } else { 2 };
    data.extend([0, 0, 1, 0, reference >> 2, reference << 6 | kind << 3, 0xff, 0xf8]);
    data.extend([0, 0, 1, 0xb5, 0x8f, 0xff, if is_bottom { 0xf2 } else { 0xf1 }, 0x80, 0]);
    data.extend([0, 0, 1, 1, 0x22]);
    data.resize(data.len() + size, 0x5a);
    data
}
