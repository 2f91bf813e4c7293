//! FLV streams for tests.

/// Writes tags as an FLV muxer does.
#[derive(Default)]
pub(crate) struct Writer {
    pub(crate) bytes: Vec<u8>,
}

pub(crate) const AVC: &[u8] = &[
    0x17, 0, 0, 0, 0, 1, 0x64, 0, 0x28, 0xff, 0xe1, 0, 4, 0x67, 0x64, 0, 0x28, 1, 0, 2, 0x68, 1,
];
pub(crate) const AVC_2: &[u8] = &[
    0x17, 0, 0, 0, 0, 1, 0x4d, 0, 0x1f, 0xff, 0xe1, 0, 4, 0x67, 0x4d, 0, 0x1f, 1, 0, 2, 0x68, 1,
];
pub(crate) const AAC: &[u8] = &[0xaf, 0, 0x12, 0x10];

impl Writer {
    pub(crate) fn new(flags: u8) -> Self {
        Self {
            bytes: vec![b'F', b'L', b'V', 1, flags, 0, 0, 0, 9, 0, 0, 0, 0],
        }
    }

    pub(crate) fn tag(&mut self, kind: u8, ms: u32, data: &[u8]) -> u64 {
        let at = self.bytes.len() as u64;
        let size = u32::try_from(data.len()).unwrap().to_be_bytes();
        let [ext, t0, t1, t2] = ms.to_be_bytes();
        self.bytes.extend([kind, size[1], size[2], size[3], t0, t1, t2, ext, 0, 0, 0]);
        self.bytes.extend(data);
        self.bytes.extend((u32::try_from(data.len()).unwrap() + 11).to_be_bytes());
        at
    }

    pub(crate) fn picture(&mut self, ms: u32, nal: u8, flagged: bool, composition: u8) -> u64 {
        let mut data = vec![if flagged { 0x17 } else { 0x27 }, 1, 0, 0, composition];
        // A large SEI first, so that the first bytes alone are not enough to classify the picture.
        data.extend(700u32.to_be_bytes());
        data.push(6);
        data.extend([5; 699]);
        data.extend(40u32.to_be_bytes());
        data.push(nal);
        data.extend([0xab; 39]);
        self.tag(9, ms, &data)
    }

    pub(crate) fn audio(&mut self, ms: u32) -> u64 {
        self.tag(8, ms, &[0xaf, 1, 1, 2, 3, 4, 5, 6, 7, 8])
    }

    pub(crate) fn head(flags: u8) -> Self {
        let mut w = Self::new(flags);
        w.tag(
            18,
            0,
            b"\x02\x00\x0aonMetaData\x08\x00\x00\x00\x01\x00\x08duration\x00\x40\x59\x00\x00\x00\x00\x00\x00\x00\x00\x09",
        );
        w.tag(9, 0, AVC);
        w.tag(8, 0, AAC);
        w
    }
}
