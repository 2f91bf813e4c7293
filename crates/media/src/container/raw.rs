//! Scanner for bytes of an unknown format: every slice may begin a chunk.
//!
//! PURE. The only scanner whose marks depend on how the input is sliced: the slices are the only structure available.

use bytes::Bytes;

use super::{Container, Fault, Init, Key, Mark, MarkKind, Scanner, Track, Unit};

/// The scanner of [`Container::Raw`]. See [`Scanner`].
#[derive(Debug, Default)]
pub struct Raw {
    pos: u64,
}

impl Raw {
    /// Creates a scanner at the start of a stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a scanner whose next byte is at this offset.
    pub fn at(pos: u64) -> Self {
        Self { pos }
    }

    /// Emits one unit for the next `bytes` bytes. Always returns `Ok`.
    #[inline]
    pub fn pass(&mut self, bytes: usize, marks: &mut Vec<Mark>) -> Result<(), Fault> {
        if bytes > 0 {
            let init = Some(Init {
                head: Bytes::new(),
                ..Init::default()
            });
            let unit = Unit {
                track: Track::Other,
                // Every slice is a place to cut: the bytes show no better one.
                key: Key::Closed,
                pts: None,
                end: None,
                decode: None,
                sample_at: None,
                new_codec_config: false,
                init,
            };
            marks.push(Mark {
                at: self.pos,
                kind: MarkKind::Unit(unit),
            });
            self.pos += bytes as u64;
        }
        Ok(())
    }
}

impl Scanner for Raw {
    fn push(&mut self, data: &[u8], marks: &mut Vec<Mark>) -> Result<(), Fault> {
        self.pass(data.len(), marks)
    }

    fn finish(&mut self, _marks: &mut Vec<Mark>) {}

    fn settled(&self) -> u64 {
        self.pos
    }

    fn restart(&mut self) {}

    fn container(&self) -> Container {
        Container::Raw
    }

    fn resolution(&self) -> u64 {
        0
    }
}
