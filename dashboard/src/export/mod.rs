//! Exports a range of a camera's recording as one file.
//!
//! A [`Plan`] names the chunks by generation, so the same plan yields the same bytes each time, whole or by range. For `mp4` a
//! first pass reads all chunks to make the plan. A second pass produces the bytes while they are sent. One chunk is in memory at
//! a time.
//!
//! - [`film`] PURE: one plain MP4. [`native`] PURE: chunks joined unchanged. [`manifest`]: what was exported, and how to verify
//!   it.
//! - `reading`: the second pass, which produces the bytes. `running`: the exports of a server.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use gcstreamer_media::container::samples;
use gcstreamer_schema::ClockKind;
use gcstreamer_schema::time::rfc3339_ms;
use gcstreamer_storage::{Class, WriteError};
use sha2::{Digest as _, Sha256};

pub mod film;
pub mod manifest;
pub mod native;
mod reading;
mod running;

pub use reading::Reading;
pub use running::{Begun, Exports};

use crate::hls::playlist::{Piece, SLACK, goes_on, is_sound, is_written, once, unplayable, why_not};
use crate::hls::remux::RemuxError;
use crate::index::chunk::sorted;
use crate::index::timeline::{Gap, NOT_STORED, Timeline};
use crate::index::{Chunk, HOUR, Index, IndexError};
use film::{Cut, Film, Window, cut};
use manifest::{Manifest, Object};

/// Longest range, ns: 24 h.
pub const LONGEST: u64 = 24 * HOUR;
/// Most exports at once.
// Each of them has a chunk of up to `MAX_CHUNK` in memory.
pub const PARALLEL: usize = 4;
/// Largest chunk that is written as MP4, bytes: the whole chunk is in memory.
const MAX_CHUNK: u64 = 128 << 20;
/// Most attempts to read a piece. The waits between them are 0.5 s, 1 s and 2 s.
const ATTEMPTS: u32 = 4;

/// The form of a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// One MP4 of exactly the range.
    #[default]
    Mp4,
    /// The chunks that the range touches, joined as they are.
    Native,
}

impl Format {
    /// Returns its name in addresses and manifests.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Mp4 => "mp4",
            Self::Native => "native",
        }
    }
}

/// Why a range cannot be exported.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ExportError {
    /// The bucket cannot be listed.
    #[error(transparent)]
    Index(#[from] IndexError),
    /// A chunk cannot be read.
    #[error(transparent)]
    Bucket(#[from] WriteError),
    /// A chunk cannot be written as MP4.
    #[error("{0}: {1}")]
    Remux(Arc<str>, RemuxError),
    /// The chunks cannot be joined.
    #[error("{0}")]
    Join(String),
    /// A chunk is too large for a film.
    #[error("{0} has {1} bytes, and chunks up to 128 MiB are written as mp4; export it as native")]
    TooLarge(Arc<str>, u64),
    /// Something that is stored cannot be written as MP4.
    #[error("{0}")]
    Unplayable(String),
    /// Nothing is stored in the range.
    #[error("nothing is stored of this camera in that time")]
    Nothing,
    /// Too many exports run.
    #[error("{PARALLEL} exports are running, which is the most at once")]
    Busy,
    /// A chunk differs from what the first pass read.
    #[error("{0} is not what it was when the export began")]
    Changed(Arc<str>),
}

/// Most characters of a device id in a file name.
const MAX_WORD: usize = 120;

/// A range of a camera, and the form of the file to make of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Device id.
    pub camera: String,
    /// Beginning of the range, ns since the Unix epoch.
    pub from: u64,
    /// End of the range, ns since the Unix epoch.
    pub to: u64,
    /// The form of the file.
    pub format: Format,
}

impl Request {
    /// Returns the name of the file: camera, from, to.
    pub fn file_name(&self, extension: &str) -> String {
        // Most file systems take names of up to 255 bytes. A device id may have a thousand.
        let word: String = self
            .camera
            .chars()
            .take(MAX_WORD)
            .map(|c| {
                if c.is_ascii_alphanumeric() || "._-".contains(c) {
                    c
                } else {
                    '_'
                }
            })
            .collect();
        let time = |ns: u64| rfc3339_ms(ns).replace(['-', ':'], "").replace(".000Z", "Z");
        // Without a dot in front, which would hide the file.
        format!(
            "{}_{}_{}.{extension}",
            word.trim_start_matches('.'),
            time(self.from),
            time(self.to)
        )
    }

    /// Returns which part of a chunk the range shows, in the container's time. That time begins at `pts_start` of the metadata,
    /// or at `first` if the metadata have none.
    fn window(&self, Part { chunk, after }: &Part, first: i64) -> Window {
        let from = self.from.max(after.unwrap_or(0));
        let anchor = chunk.meta.pts_start.and_then(|pts| i64::try_from(pts).ok()).unwrap_or(first);
        let place = |utc: u64| {
            let since = i128::from(utc) - i128::from(chunk.meta.start) + i128::from(anchor);
            i64::try_from(since).unwrap_or(i64::MAX)
        };
        Window {
            from: (chunk.meta.start < from).then(|| place(from)),
            to: (chunk.meta.end > self.to).then(|| place(self.to)),
        }
    }
}

/// The parts of a file, each with its place in it.
#[derive(Debug)]
pub struct Plan {
    /// The request.
    pub request: Request,
    /// Digest of the range and of the generations of its chunks. Plans with equal ids yield equal bytes.
    pub id: String,
    /// Bytes of the file.
    pub size: u64,
    /// Extension of the file's name, without the dot.
    pub extension: &'static str,
    /// `Content-Type`.
    pub content_type: &'static str,
    header: Bytes,
    parts: Vec<Planned>,
    gaps: Vec<Gap>,
    manifest: OnceLock<Arc<Manifest>>,
}

/// A chunk of a range.
#[derive(Clone, Debug)]
struct Part {
    chunk: Chunk,
    /// The chunk is shown from this time on, ns since the Unix epoch: another session covers the time before it.
    after: Option<u64>,
}

/// A chunk of a plan.
#[derive(Clone, Debug)]
struct Planned {
    source: Part,
    /// Where its bytes begin in the file.
    offset: u64,
    /// Number of its bytes in the file.
    size: u64,
    /// Number of bytes that are left out at the beginning of the object; 0 except for `native`.
    skip: u64,
}

/// The chunks of a range, listed but not read yet.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The request.
    pub request: Request,
    /// See [`Plan::id`].
    pub id: String,
    parts: Vec<Part>,
}

impl Selection {
    /// Lists the chunks of a range.
    ///
    /// # Errors
    /// [`ExportError`].
    pub async fn of(index: &Index, request: Request) -> Result<Self, ExportError> {
        let found = index.span(&request.camera, request.from, request.to).await?;
        let takes = |chunk: &&Chunk| request.format == Format::Native || is_written(chunk);
        let part = |piece: Piece<'_>| Part {
            chunk: piece.chunk.clone(),
            after: piece.after,
        };
        let parts: Vec<Part> = once(found.iter().filter(takes), request.to).into_iter().map(part).collect();
        if parts.is_empty() {
            return Err(unplayable(&found).map_or(ExportError::Nothing, ExportError::Unplayable));
        }
        if request.format == Format::Mp4
            && let Some(chunk) = left_out(&request, &found, &parts)
        {
            let (at, why) = (rfc3339_ms(chunk.meta.start), why_not(chunk));
            return Err(ExportError::Unplayable(format!(
                "at {at} {why}; export the time before and after apart, or native"
            )));
        }
        let mut digest = Sha256::new();
        digest.update(format!(
            "{}\0{}\0{}\0{}",
            request.camera,
            request.from,
            request.to,
            request.format.name()
        ));
        for Part { chunk, .. } in &parts {
            digest.update(format!("\0{}\0{}", chunk.name, chunk.generation));
        }
        let id = manifest::hex(digest.finalize()).chars().take(32).collect();
        Ok(Self { request, id, parts })
    }

    /// Returns the number of chunks.
    pub fn count(&self) -> usize {
        self.parts.len()
    }

    fn chunks(&self) -> Vec<Chunk> {
        self.parts.iter().map(|part| part.chunk.clone()).collect()
    }

    /// Returns the gaps inside the range and at its two ends.
    fn gaps(&self) -> Vec<Gap> {
        let (from, to) = (self.request.from, self.request.to);
        let timeline = Timeline::of(&sorted(self.chunks()));
        let edge = |from, to| Gap {
            from,
            to,
            reason: NOT_STORED.into(),
        };
        let first = timeline
            .ranges
            .first()
            .filter(|range| range.from > from)
            .map(|range| edge(from, range.from));
        let last = timeline
            .ranges
            .last()
            .filter(|range| range.to < to)
            .map(|range| edge(range.to, to));
        let inside = timeline.within(from, to).gaps;
        first.into_iter().chain(inside).chain(last).collect()
    }

    /// Makes the plan. `progress` counts the chunks that have been read.
    ///
    /// # Errors
    /// [`ExportError`].
    pub async fn plan(self, index: &Index, progress: &AtomicUsize) -> Result<Plan, ExportError> {
        let gaps = self.gaps();
        let container = self
            .parts
            .first()
            .map(|part| part.chunk.meta.container)
            .unwrap_or(gcstreamer_schema::Container::Raw);
        let (header, parts, extension, content_type) = match self.request.format {
            Format::Native => {
                let ranges = native::parts(&self.chunks()).map_err(ExportError::Join)?;
                let parts = self.parts.iter().cloned().zip(ranges);
                let parts: Vec<_> = parts
                    .map(|(part, range)| (part, range.end - range.start, range.start))
                    .collect();
                (Vec::new(), parts, container.extension(), container.content_type(false))
            }
            Format::Mp4 => {
                let (header, sizes) = self.film(index, progress).await?;
                let parts = self.parts.iter().cloned().zip(sizes).map(|(part, size)| (part, size, 0));
                (header, parts.collect(), "mp4", "video/mp4")
            }
        };
        let mut offset = header.len() as u64;
        let place = |(source, size, skip)| {
            let planned = Planned {
                source,
                offset,
                size,
                skip,
            };
            offset += size;
            planned
        };
        // A chunk that contributes no bytes is not listed as a part.
        let parts: Vec<Planned> = parts.into_iter().filter(|(_, size, _)| *size > 0).map(place).collect();
        progress.store(parts.len(), Ordering::Relaxed);
        Ok(Plan {
            id: self.id,
            request: self.request,
            size: offset,
            extension,
            content_type,
            header: header.into(),
            parts,
            gaps,
            manifest: OnceLock::new(),
        })
    }

    /// Runs the first pass. Returns the header, and for each chunk the number of its bytes in the film.
    async fn film(&self, index: &Index, progress: &AtomicUsize) -> Result<(Vec<u8>, Vec<u64>), ExportError> {
        let (mut film, mut sizes) = (Film::default(), Vec::with_capacity(self.parts.len()));
        let mut before: Option<&Chunk> = None;
        for part in &self.parts {
            let chunk = &part.chunk;
            let bytes = whole(index, chunk).await?;
            let (cut, window) = cut_of(&self.request, part, bytes).await?;
            let joins = before.is_some_and(|last| goes_on(last, chunk));
            let size = film.push(&cut, window, joins);
            // Names the time, too: with some templates the object name does not show it.
            let place = || format!("{} of {}", chunk.name, gcstreamer_schema::time::rfc3339_ms(chunk.meta.start)).into();
            sizes.push(size.map_err(|error| ExportError::Remux(place(), error))?);
            before = Some(chunk);
            progress.fetch_add(1, Ordering::Relaxed);
        }
        let first = self.parts.first().map(|part| &part.chunk);
        let header = film.header(first.map_or(0, |chunk| chunk.meta.start).max(self.request.from));
        let name = || first.map_or_else(|| "".into(), |chunk| chunk.name.clone());
        Ok((header.map_err(|error| ExportError::Remux(name(), error))?, sizes))
    }
}

/// Returns the first chunk of the range that cannot be written as MP4 and whose time no chunk of `parts` covers.
///
/// Ignores chunks of sound alone: such sound is left out beside pictures, too.
fn left_out<'a>(request: &Request, found: &'a [Chunk], parts: &[Part]) -> Option<&'a Chunk> {
    let shown = Timeline::of(&sorted(parts.iter().map(|part| part.chunk.clone()).collect()));
    let is_shown = |chunk: &Chunk| {
        let (from, to) = (chunk.meta.start.max(request.from), chunk.meta.end.min(request.to));
        let mut ranges = shown.ranges.iter();
        to.saturating_sub(from) <= SLACK || ranges.any(|range| range.from <= from + SLACK && to <= range.to + SLACK)
    };
    let mut refused = found.iter().filter(|chunk| !is_written(chunk) && !is_sound(chunk));
    refused.find(|chunk| !is_shown(chunk))
}

/// Parses a chunk and takes the samples that the film needs of it.
async fn cut_of(request: &Request, part: &Part, bytes: Bytes) -> Result<(Cut, Window), ExportError> {
    let (request, part, name) = (request.clone(), part.clone(), part.chunk.name.clone());
    let work = move || -> Result<(Cut, Window), RemuxError> {
        let meta = &part.chunk.meta;
        let read = samples::read(meta.container, &bytes, meta.pts_start)?;
        let first = [&read.video, &read.audio]
            .into_iter()
            .flatten()
            .find_map(|track| track.samples.first());
        let window = request.window(&part, first.map_or(0, |sample| sample.pts));
        Ok((cut(&read, meta.duration, window)?, window))
    };
    // On the blocking pool: parsing up to 128 MiB would hold up the other tasks of this thread.
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.map_err(|_| ExportError::Changed(name.clone()))?;
    done.map_err(|error| ExportError::Remux(name, error))
}

async fn whole(index: &Index, chunk: &Chunk) -> Result<Bytes, ExportError> {
    if chunk.size > MAX_CHUNK {
        return Err(ExportError::TooLarge(chunk.name.clone(), chunk.size));
    }
    read(index, chunk, 0..chunk.size).await
}

/// Reads bytes of a chunk. Retries transient failures and throttling, up to [`ATTEMPTS`] attempts: one of them must not end an
/// export of hours.
async fn read(index: &Index, chunk: &Chunk, range: Range<u64>) -> Result<Bytes, ExportError> {
    let mut attempt = 0;
    loop {
        let result = index.read(chunk, range.clone()).await;
        attempt += 1;
        match result {
            Err(error) if attempt < ATTEMPTS && matches!(error.class, Class::Transient | Class::Throttled) => {
                let wait = Duration::from_millis(250) * 2u32.pow(attempt);
                tokio::time::sleep(error.retry_after.unwrap_or(wait).min(Duration::from_secs(10))).await;
            }
            result => return Ok(result?),
        }
    }
}

impl Plan {
    /// Returns the name of the file.
    pub fn file_name(&self) -> String {
        self.request.file_name(self.extension)
    }

    /// Returns the manifest. `None` until the whole file has been made once: the manifest holds its SHA-256.
    pub fn manifest(&self) -> Option<Arc<Manifest>> {
        self.manifest.get().cloned()
    }

    /// Returns a reader of the bytes `range` of the file.
    pub fn bytes(self: &Arc<Self>, range: Range<u64>) -> Reading {
        Reading::new(self.clone(), range)
    }

    fn manifest_of(&self, ledger: reading::Ledger) -> Manifest {
        let certainty = |kind: &ClockKind| match kind {
            ClockKind::Ntp => 0,
            ClockKind::System => 1,
            ClockKind::Corrected => 2,
            ClockKind::Suspect => 3,
        };
        let clock = self
            .parts
            .iter()
            .map(|part| part.source.chunk.meta.clock)
            .max_by_key(certainty);
        let objects = self
            .parts
            .iter()
            .zip(ledger.objects)
            .map(|(part, (crc32c, sha256, of_part))| Object {
                name: part.source.chunk.name.to_string(),
                generation: part.source.chunk.generation,
                size: part.source.chunk.size,
                crc32c,
                sha256,
                from: part.source.chunk.meta.start,
                to: part.source.chunk.meta.end,
                part: manifest::Part {
                    size: part.size,
                    sha256: of_part,
                },
            });
        Manifest {
            camera: self.request.camera.clone(),
            from: self.request.from,
            to: self.request.to,
            format: self.request.format.name().into(),
            objects: objects.collect(),
            gaps: self.gaps.clone(),
            clock: clock.unwrap_or(ClockKind::Suspect).name().into(),
            size: self.size,
            header: manifest::Part {
                size: self.header.len() as u64,
                sha256: manifest::hex(Sha256::digest(&self.header)),
            },
            sha256: manifest::hex(ledger.file.finalize()),
            seal: String::new(),
        }
        .sealed()
    }
}
