//! Finds what is wrong with a file by the sums of its parts. Blames only the parts that changed or are missing.
//!
//! PURE except for the file, which is read in blocks. A sum tells whether a part is at a given place, but not where it is. So if
//! parts have moved, likely places are tried: that of the next part, the one that the length of the file suggests, and some bytes
//! around it.

use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::ops::Range;

use sha2::{Digest as _, Sha256};

use super::{Manifest, Part, hex};

/// Bytes read at once.
const BLOCK: usize = 64 << 10;
/// How far before and after its expected place the next part is tried, bytes.
const AROUND: i64 = 64;

/// The result of a comparison.
pub(super) struct Found {
    pub(super) faults: Vec<String>,
    /// SHA-256 of the file. `None` if any fault was found.
    pub(super) sha256: Option<String>,
}

/// A file, and what the manifest lists of it.
struct Comparison<'a, F> {
    file: F,
    /// Bytes of the file.
    length: u64,
    /// Bytes that the file should have.
    listed: u64,
    parts: Vec<(String, &'a Part)>,
    faults: Vec<String>,
    /// Parts that are not at their place, each with the fault that was reported for it.
    missing: Vec<(usize, String)>,
}

/// How to go on after a part that is not at its place.
enum Next {
    /// Continue with this part at this place.
    At(usize, u64),
    /// The rest of the file cannot be compared, or there is none.
    Stop,
}

/// Compares a file with a manifest.
pub(super) fn of(manifest: &Manifest, mut file: impl Read + Seek) -> std::io::Result<Found> {
    let length = file.seek(SeekFrom::End(0))?;
    let mut parts = vec![("the header".to_owned(), &manifest.header)];
    parts.extend(manifest.objects.iter().map(|object| (object.name.clone(), &object.part)));
    let mut comparison = Comparison {
        file,
        length,
        listed: manifest.size,
        parts,
        faults: Vec::new(),
        missing: Vec::new(),
    };
    let sha256 = comparison.run()?;
    Ok(Found {
        sha256: sha256.filter(|_| comparison.faults.is_empty()),
        faults: comparison.faults,
    })
}

impl<F: Read + Seek> Comparison<'_, F> {
    fn run(&mut self) -> std::io::Result<Option<String>> {
        if self.length == 0 && self.listed > 0 {
            self.faults.push("bytes: the file is empty".to_owned());
            return Ok(None);
        }
        let (mut index, mut at, mut whole) = (0, 0, Sha256::new());
        while let Some(size) = self.size(index) {
            if self.is_at(index, at, &mut whole)? {
                (index, at) = (index + 1, at.saturating_add(size));
                continue;
            }
            match self.next(index, at)? {
                Next::At(next, place) => (index, at) = (next, place),
                Next::Stop => return Ok(None),
            }
        }
        // A missing part may have been moved to the end.
        while let Some(found) = self.moved(at)? {
            at = at.saturating_add(found);
        }
        if at < self.length {
            self.faults
                .push(format!("bytes: the file goes on behind byte {at}, where it should end"));
        }
        Ok(Some(hex(whole.finalize())))
    }

    fn size(&self, index: usize) -> Option<u64> {
        self.parts.get(index).map(|(_, part)| part.size)
    }

    fn name(&self, index: usize) -> &str {
        self.parts.get(index).map_or("the end", |(name, _)| name)
    }

    /// Returns the total size of these parts, bytes.
    fn sum(&self, range: Range<usize>) -> u64 {
        let parts = self.parts.get(range).unwrap_or_default();
        parts.iter().map(|(_, part)| part.size).fold(0, u64::saturating_add)
    }

    /// Finds out why a part is not at this place, reports it, and returns how to go on.
    fn next(&mut self, index: usize, at: u64) -> std::io::Result<Next> {
        if let Some(size) = self.moved(at)? {
            return Ok(Next::At(index, at.saturating_add(size)));
        }
        // If a later part is here, the parts before it are missing.
        if let Some(later) = self.first_at(at, index + 1..self.parts.len())? {
            for gone in index..later {
                let fault = format!("chunk: {} is missing at byte {at}", self.name(gone));
                self.faults.push(fault.clone());
                self.missing.push((gone, fault));
            }
            return Ok(Next::At(later, at));
        }
        let end = at.saturating_add(self.size(index).unwrap_or(0));
        if end > self.length {
            self.ends_early(index, at);
            return Ok(Next::Stop);
        }
        // If a later part is at its place, nothing has moved, and the parts before it have changed.
        for later in index + 1..self.parts.len() {
            let place = at.saturating_add(self.sum(index..later));
            if self.holds(later, place)? {
                self.differ(index..later, at);
                return Ok(Next::At(later, place));
            }
        }
        if index + 1 == self.parts.len() {
            self.differ(index..index + 1, at);
            return Ok(Next::At(index + 1, end));
        }
        self.shift(index, at)
    }

    fn differ(&mut self, range: Range<usize>, mut at: u64) {
        for index in range {
            let end = at.saturating_add(self.size(index).unwrap_or(0));
            self.faults
                .push(format!("bytes: {} differs, between byte {at} and {end}", self.name(index)));
            at = end;
        }
    }

    fn ends_early(&mut self, index: usize, at: u64) {
        let place = if at < self.length { "inside" } else { "before" };
        let (length, name, of) = (self.length, self.name(index), self.parts.len() - 1);
        let before = index.saturating_sub(1).saturating_sub(self.missing.len());
        self.faults.push(format!(
            "bytes: the file ends at byte {length}, {place} {name}; {before} of {of} chunks are there before it"
        ));
    }

    /// Bytes were inserted into a part or removed from it: looks for the next part where the length of the file suggests it, and
    /// around its place.
    fn shift(&mut self, index: usize, at: u64) -> std::io::Result<Next> {
        let place = at.saturating_add(self.size(index).unwrap_or(0));
        let expected = self.sum(index..self.parts.len()).saturating_add(at);
        let all = i64::try_from(i128::from(self.length) - i128::from(expected)).unwrap_or(0);
        let around = (1..=AROUND).flat_map(|by| [-by, by]);
        for by in [all].into_iter().filter(|by| *by != 0).chain(around) {
            let Some(place) = place.checked_add_signed(by).filter(|place| *place >= at) else {
                continue;
            };
            if self.holds(index + 1, place)? {
                let to = if by < 0 { "front" } else { "back" };
                let (name, by) = (self.name(index), by.unsigned_abs());
                let unit = if by == 1 { "byte" } else { "bytes" };
                self.faults.push(format!(
                    "bytes: {name} differs, and from byte {place} on the file is shifted by {by} {unit} to the {to}"
                ));
                return Ok(Next::At(index + 1, place));
            }
        }
        let left = self.parts.len() - index;
        self.faults.push(format!(
            "bytes: from byte {at} on the file is shifted or another one: none of {left} parts from {} on is found",
            self.name(index)
        ));
        Ok(Next::Stop)
    }

    /// If a part that was reported missing is at this place, reports it as moved instead and returns its size.
    fn moved(&mut self, at: u64) -> std::io::Result<Option<u64>> {
        for (index, fault) in self.missing.clone() {
            if self.holds(index, at)? {
                self.missing.retain(|(known, _)| *known != index);
                self.faults.retain(|known| *known != fault);
                self.faults.push(format!(
                    "chunk: {} is at byte {at}, where another one should be",
                    self.name(index)
                ));
                return Ok(self.size(index));
            }
        }
        Ok(None)
    }

    /// Returns the first of these parts that is at this place. Ignores empty parts, which would match anywhere.
    fn first_at(&mut self, at: u64, range: Range<usize>) -> std::io::Result<Option<usize>> {
        let left = self.length.saturating_sub(at);
        let mut ends: Vec<(u64, usize)> = range.filter_map(|index| Some((self.size(index)?, index))).collect();
        ends.retain(|(size, _)| (1..=left).contains(size));
        ends.sort_unstable();
        // One pass for all parts: by ascending size, each continues the digest of the one before.
        let (mut sum, mut done, mut found) = (Sha256::new(), 0, None::<usize>);
        self.file.seek(SeekFrom::Start(at))?;
        for (size, index) in ends {
            self.hash(size - done, &mut [&mut sum])?;
            done = size;
            let is_it = self
                .parts
                .get(index)
                .is_some_and(|(_, part)| part.sha256 == hex(sum.clone().finalize()));
            found = found.into_iter().chain(is_it.then_some(index)).min();
        }
        Ok(found)
    }

    /// Returns whether a part is at this place and not empty.
    fn holds(&mut self, index: usize, at: u64) -> std::io::Result<bool> {
        Ok(self.size(index) != Some(0) && self.is_at(index, at, &mut Sha256::new())?)
    }

    /// Returns whether a part is at this place. Adds the bytes read to `whole`.
    fn is_at(&mut self, index: usize, at: u64, whole: &mut Sha256) -> std::io::Result<bool> {
        let Some((_, part)) = self
            .parts
            .get(index)
            .filter(|(_, part)| part.size <= self.length.saturating_sub(at))
        else {
            return Ok(false);
        };
        let (size, wanted, mut sum) = (part.size, part.sha256.clone(), Sha256::new());
        self.file.seek(SeekFrom::Start(at))?;
        self.hash(size, &mut [&mut sum, whole])?;
        Ok(hex(sum.finalize()) == wanted)
    }

    /// Reads `size` bytes into the sums; fewer if the file ends.
    fn hash(&mut self, size: u64, sums: &mut [&mut Sha256]) -> std::io::Result<()> {
        let mut rest = self.file.by_ref().take(size);
        let mut block = vec![0; BLOCK];
        loop {
            let count = match rest.read(&mut block) {
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                read => read?,
            };
            let Some(bytes) = block.get(..count).filter(|bytes| !bytes.is_empty()) else {
                return Ok(());
            };
            sums.iter_mut().for_each(|sum| sum.update(bytes));
        }
    }
}
