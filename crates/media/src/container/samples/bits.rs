//! Reads the bits of a header, most significant bit first.
//!
//! PURE. Sources: ITU-T H.264 7.2 and 9.1, AV1 4.10.3 (`uvlc`), VP9 4.10.

/// Reads bits one after the other; `None` at the end of the data.
pub(super) struct Bits {
    bytes: Vec<u8>,
    at: usize,
}

impl Bits {
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn bit(&mut self) -> Option<u32> {
        let byte = self.bytes.get(self.at / 8)?;
        let bit = byte >> (7 - self.at % 8) & 1;
        self.at += 1;
        Some(bit.into())
    }

    pub(super) fn flag(&mut self) -> Option<bool> {
        self.bit().map(|bit| bit == 1)
    }

    pub(super) fn bits(&mut self, count: u32) -> Option<u32> {
        (0..count).try_fold(0u32, |value, _| Some(value << 1 | self.bit()?))
    }

    /// Reads a number of at most eight bits.
    pub(super) fn byte(&mut self, count: u32) -> Option<u8> {
        self.bits(count).and_then(|value| u8::try_from(value).ok())
    }

    /// Reads ue(v) of H.264 9.1, or `uvlc` of AV1.
    pub(super) fn ue(&mut self) -> Option<u32> {
        let mut zeros = 0;
        while self.bit()? == 0 {
            zeros += 1;
            if zeros > 31 {
                return None;
            }
        }
        Some((1u32 << zeros) - 1 + self.bits(zeros)?)
    }

    /// Skips se(v): no caller needs its value.
    pub(super) fn se(&mut self) -> Option<()> {
        self.ue().map(drop)
    }
}

/// Packs (number, count of bits) pairs; fills the last byte with zeros.
#[cfg(test)]
pub(super) fn packed(fields: &[(u32, u32)]) -> Vec<u8> {
    let bits: Vec<u8> = fields
        .iter()
        .flat_map(|&(value, count)| (0..count).rev().map(move |at| u8::from(value >> at & 1 == 1)))
        .collect();
    let byte = |bits: &[u8]| bits.iter().enumerate().fold(0, |byte, (at, bit)| byte | bit << (7 - at));
    bits.chunks(8).map(byte).collect()
}
