//! Passes complete items to a scanner, independent of how the input is sliced.
//!
//! PURE. A scanner reads one item (a tag, a box header) at a time and returns how many bytes it needs to see or how many to
//! skip. Bytes are read in place; only an item that begins in one slice and continues in the next is copied.

use super::{Fault, MAX_GATHER, work};

/// Work in bytes that reading the head of one item counts for, see [`work`].
const ITEM: usize = 16;

/// Outcome of an attempt to read the current item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// At least this many bytes from the item's start are needed.
    Need(usize),
    /// The item is finished: the next one begins this many bytes after its start. With 0 the same bytes are read again.
    Pass(u64),
}

impl Step {
    /// Requests all `total` bytes of an item that has to be stored.
    ///
    /// # Errors
    /// [`Fault::HeaderTooLarge`] over [`MAX_GATHER`].
    pub(super) fn need_whole(total: usize) -> Result<Self, Fault> {
        if total > MAX_GATHER {
            return Err(Fault::HeaderTooLarge(len64(total)));
        }
        Ok(Self::Need(total))
    }
}

/// The position of a scanner in its input.
#[derive(Debug, Default)]
pub(super) struct Feed {
    pos: u64,
    skip: u64,
    want: usize,
    gathered: Vec<u8>,
    /// Number of bytes of `gathered` that have been read.
    read: usize,
}

impl Feed {
    /// Returns the absolute offset of the current item, or, while an item is skipped, of its next byte.
    #[inline]
    pub(super) fn pos(&self) -> u64 {
        self.pos
    }

    /// Returns whether the current item has been read and its rest is being skipped.
    #[inline]
    pub(super) fn is_passing(&self) -> bool {
        self.skip > 0
    }

    /// Takes a slice of the input. Calls `read` with the absolute offset of the current item and its available bytes, at least
    /// one; after [`Step::Need`] again with more bytes, after [`Step::Pass`] with the next item.
    ///
    /// # Errors
    /// The first error of `read`.
    #[inline]
    pub(super) fn push(&mut self, mut data: &[u8], mut read: impl FnMut(u64, &[u8]) -> Result<Step, Fault>) -> Result<(), Fault> {
        loop {
            let n = usize::try_from(self.skip).unwrap_or(usize::MAX).min(data.len());
            self.advance(n);
            self.skip -= len64(n);
            data = data.get(n..).unwrap_or_default();
            if data.is_empty() {
                return Ok(());
            }
            // The usual case: the item is read where it lies, without a copy.
            let borrowed = self.rest().is_empty() && data.len() >= self.want;
            if !borrowed {
                // Copies no more than was requested, so that the rest of the slice can be read in place again.
                let n = self.want.max(1).saturating_sub(self.rest().len()).min(data.len());
                self.gathered.extend_from_slice(data.get(..n).unwrap_or_default());
                data = data.get(n..).unwrap_or_default();
                if self.rest().len() < self.want {
                    return Ok(());
                }
            }
            let view = if borrowed { data } else { self.rest() };
            let seen = view.len();
            work::count(ITEM);
            let step = read(self.pos, view)?;
            self.apply(step, seen, borrowed);
            // The bytes gathered behind a short item may contain further items.
            while self.skip == 0 && self.want <= self.rest().len() && !self.rest().is_empty() {
                work::count(ITEM);
                let step = read(self.pos, self.rest())?;
                self.apply(step, self.rest().len(), false);
            }
        }
    }

    /// Returns the gathered bytes that have not been read.
    #[inline]
    fn rest(&self) -> &[u8] {
        self.gathered.get(self.read..).unwrap_or_default()
    }

    fn apply(&mut self, step: Step, seen: usize, borrowed: bool) {
        match step {
            // Always more than was seen: the same bytes would lead to the same request again, without end.
            Step::Need(n) => self.want = n.max(seen + 1),
            Step::Pass(n) => {
                self.want = 0;
                let here = if borrowed {
                    0
                } else {
                    usize::try_from(n).unwrap_or(usize::MAX).min(self.rest().len())
                };
                self.skip = n - len64(here);
                self.advance(here);
                self.read += here;
                // Only when half has been read: each removal moves all bytes that are left, so one per item would be quadratic.
                if self.read * 2 >= self.gathered.len() {
                    work::count(self.gathered.len() - self.read);
                    self.gathered.drain(..self.read);
                    self.read = 0;
                }
            }
        }
    }

    /// Ends the input: calls `read` once more with the available bytes of the last item, and counts them as passed.
    pub(super) fn finish(&mut self, mut read: impl FnMut(u64, &[u8]) -> Result<Step, Fault>) {
        // `Pass(0)` reads the same bytes again; a scanner that returns it repeatedly must not loop forever here.
        let mut again = 2;
        while !self.rest().is_empty() && again > 0 {
            match read(self.pos, self.rest()) {
                Ok(step @ Step::Pass(n)) => {
                    again = if n == 0 { again - 1 } else { 2 };
                    self.apply(step, self.rest().len(), false);
                }
                Ok(Step::Need(_)) | Err(_) => break,
            }
        }
        self.take_rest();
    }

    /// Reads the available bytes of the current item once more. Ignores [`Step::Need`] and errors.
    pub(super) fn read_again(&mut self, read: impl FnOnce(u64, &[u8]) -> Result<Step, Fault>) {
        if self.skip == 0
            && !self.rest().is_empty()
            && let Ok(step @ Step::Pass(_)) = read(self.pos, self.rest())
        {
            self.apply(step, self.rest().len(), false);
        }
    }

    /// Removes and returns the bytes of an incomplete item, and counts them as passed.
    pub(super) fn take_rest(&mut self) -> Vec<u8> {
        let mut rest = std::mem::take(&mut self.gathered);
        rest.drain(..std::mem::take(&mut self.read));
        self.advance(rest.len());
        self.skip = 0;
        self.want = 0;
        rest
    }

    fn advance(&mut self, n: usize) {
        self.pos += len64(n);
    }
}

/// Converts a length to an offset. Lossless: `usize` is at most 64 bits wide on every platform of GStreamer.
#[inline]
pub(super) fn len64(n: usize) -> u64 {
    n as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Items of one length byte and that many bytes.
    fn items(slices: &[&[u8]]) -> Vec<(u64, u8)> {
        let mut feed = Feed::default();
        let mut seen = Vec::new();
        for slice in slices {
            feed.push(slice, |at, view| {
                let n = view[0];
                if view.len() < 2 && n > 0 {
                    return Ok(Step::Need(2));
                }
                seen.push((at, n));
                Ok(Step::Pass(u64::from(n) + 1))
            })
            .unwrap();
        }
        seen
    }

    #[test]
    fn items_are_the_same_however_the_input_is_sliced() {
        let input = [0u8, 3, 9, 9, 9, 1, 9, 0, 0, 2, 9, 9, 5, 1];
        let whole = items(&[&input]);
        assert_eq!(whole, [(0, 0), (1, 3), (5, 1), (7, 0), (8, 0), (9, 2), (12, 5)]);
        for a in 0..input.len() {
            for b in a..input.len() {
                assert_eq!(items(&[&input[..a], &input[a..b], &input[b..]]), whole, "cut at {a} and {b}");
            }
        }
    }
}
