//! The second pass: produces the bytes of a file, or a range of them, while they are sent.
//!
//! Reads the bucket. One chunk, or one block of an object, is in memory at a time.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use sha2::{Digest as _, Sha256};

use super::{ExportError, Format, Plan, Planned, cut_of, manifest, read, whole};
use crate::index::Index;

/// Bytes of an object that are read at once.
const BLOCK: u64 = 4 << 20;
/// Samples are joined to pieces of at least this size, bytes.
const PIECE: usize = 256 << 10;

/// The checksums of a file, computed while the whole file is produced.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    pub(super) file: Sha256,
    /// CRC32C and SHA-256 of each object, and SHA-256 of its part of the file.
    pub(super) objects: Vec<(String, String, String)>,
}

/// Produces the bytes of a file, in pieces.
#[derive(Debug)]
pub struct Reading {
    plan: Arc<Plan>,
    /// `Some` if the whole file is read: only then can the manifest be made.
    ledger: Option<Ledger>,
    at: u64,
    end: u64,
    part: usize,
    open: Option<Open>,
    queue: VecDeque<Bytes>,
    has_header: bool,
}

/// An object that is read block by block.
#[derive(Debug)]
struct Open {
    part: usize,
    at: u64,
    object: Sha256,
    of_part: Sha256,
    crc32c: u32,
}

impl Reading {
    pub(super) fn new(plan: Arc<Plan>, range: Range<u64>) -> Self {
        Self {
            ledger: (range == (0..plan.size)).then(Ledger::default),
            plan,
            at: range.start,
            end: range.end,
            part: 0,
            open: None,
            queue: VecDeque::new(),
            has_header: false,
        }
    }

    /// Returns the next bytes; `None` after the last ones.
    ///
    /// # Errors
    /// [`ExportError`]: the file is incomplete.
    pub async fn next(&mut self, index: &Index) -> Result<Option<Bytes>, ExportError> {
        loop {
            if self.at >= self.end {
                self.finish();
                return Ok(None);
            }
            if let Some(mut piece) = self.queue.pop_front() {
                piece.truncate(usize::try_from(self.end - self.at).unwrap_or(usize::MAX));
                if let Some(ledger) = &mut self.ledger {
                    ledger.file.update(&piece);
                }
                self.at += piece.len() as u64;
                return Ok(Some(piece));
            }
            if !std::mem::replace(&mut self.has_header, true) {
                let from = usize::try_from(self.at).unwrap_or(usize::MAX).min(self.plan.header.len());
                let rest = self.plan.header.slice(from..);
                self.queue.extend((!rest.is_empty()).then_some(rest));
                continue;
            }
            self.fill(index).await?;
        }
    }

    /// Queues the next samples of a chunk, or the next block of an object.
    async fn fill(&mut self, index: &Index) -> Result<(), ExportError> {
        if let Some(open) = self.open.take() {
            return self.native(index, open).await;
        }
        let plan = self.plan.clone();
        let is_next = |(_, part): &(usize, &Planned)| part.offset + part.size > self.at;
        let Some((at, part)) = plan.parts.iter().enumerate().skip(self.part).find(is_next) else {
            // Unreachable: the size of the file is the sum of its parts.
            return Err(ExportError::Changed("the range".into()));
        };
        self.part = at + 1;
        let skip = self.at.saturating_sub(part.offset);
        match plan.request.format {
            Format::Mp4 => self.film(index, part, skip).await,
            Format::Native => {
                let open = Open {
                    part: at,
                    // The manifest has checksums of whole objects, so the skipped beginning is read for them, too.
                    at: if self.ledger.is_some() { 0 } else { part.skip + skip },
                    object: Sha256::new(),
                    of_part: Sha256::new(),
                    crc32c: 0,
                };
                self.native(index, open).await
            }
        }
    }

    async fn film(&mut self, index: &Index, part: &Planned, skip: u64) -> Result<(), ExportError> {
        let bytes = whole(index, &part.source.chunk).await?;
        let sums = self.ledger.is_some().then(|| manifest::sums(&bytes));
        let (cut, _) = cut_of(&self.plan.request, &part.source, bytes).await?;
        let samples = [cut.video, cut.audio].into_iter().flatten().flat_map(|track| track.samples);
        let mut joined = BytesMut::new();
        let mut pieces = Vec::new();
        for sample in samples {
            joined.extend_from_slice(&sample.data);
            if joined.len() >= PIECE {
                pieces.push(joined.split().freeze());
            }
        }
        pieces.push(joined.freeze());
        // `Content-Length` has been sent: another number of bytes must not follow.
        if pieces.iter().map(|piece| piece.len() as u64).sum::<u64>() != part.size {
            return Err(ExportError::Changed(part.source.chunk.name.clone()));
        }
        if let (Some(ledger), Some((crc32c, sha256))) = (&mut self.ledger, sums) {
            let mut digest = Sha256::new();
            pieces.iter().for_each(|piece| digest.update(piece));
            ledger.objects.push((crc32c, sha256, manifest::hex(digest.finalize())));
        }
        self.enqueue(pieces, skip);
        Ok(())
    }

    async fn native(&mut self, index: &Index, mut open: Open) -> Result<(), ExportError> {
        let plan = self.plan.clone();
        let Some(part) = plan.parts.get(open.part) else {
            return Ok(());
        };
        // Not beyond the range that was asked for: players and download managers ask for one file by many ranges.
        let to = part
            .source
            .chunk
            .size
            .min(open.at + BLOCK)
            .min(open.at.max(part.skip) + (self.end - self.at));
        let bytes = read(index, &part.source.chunk, open.at..to).await?;
        let left_out = usize::try_from(part.skip.saturating_sub(open.at))
            .unwrap_or(usize::MAX)
            .min(bytes.len());
        let shown = bytes.slice(left_out..);
        open.at = to;
        if let Some(ledger) = &mut self.ledger {
            open.object.update(&bytes);
            open.of_part.update(&shown);
            open.crc32c = ::crc32c::crc32c_append(open.crc32c, &bytes);
            if to == part.source.chunk.size {
                let crc32c = gcstreamer_schema::crc32c::to_base64(open.crc32c);
                let sha256 = |digest: &Sha256| manifest::hex(digest.clone().finalize());
                ledger.objects.push((crc32c, sha256(&open.object), sha256(&open.of_part)));
            }
        }
        self.queue.extend((!shown.is_empty()).then_some(shown));
        self.open = (to < part.source.chunk.size).then_some(open);
        Ok(())
    }

    fn enqueue(&mut self, pieces: Vec<Bytes>, mut skip: u64) {
        for piece in pieces {
            let left_out = usize::try_from(skip).unwrap_or(usize::MAX).min(piece.len());
            skip -= left_out as u64;
            let rest = piece.slice(left_out..);
            self.queue.extend((!rest.is_empty()).then_some(rest));
        }
    }

    fn finish(&mut self) {
        if let Some(ledger) = self.ledger.take() {
            let manifest = self.plan.manifest_of(ledger);
            let _ = self.plan.manifest.set(Arc::new(manifest));
        }
    }
}
