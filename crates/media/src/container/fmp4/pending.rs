//! A video fragment until its first picture is classified.
//!
//! PURE. The picture is read from the `mdat` as its bytes come, and only as much of it as is needed.

use super::moof::When;
use crate::container::fields::Fields;
use crate::container::nal::{self, Framing, MAX_PREFIX, Part, Picture, VideoCodec};
use crate::container::{codec, work};

/// A video fragment whose first sample is being read.
#[derive(Debug)]
pub(super) struct PendingVideo {
    pub(super) at: u64,
    pub(super) when: When,
    pub(super) codec: VideoCodec,
    pub(super) framing: Framing,
    pub(super) has_parameter_sets: bool,
    /// Hash of the parameter sets in force before it.
    pub(super) in_force: Option<u64>,
    /// Whether pictures of the fragment are shown before its first.
    pub(super) leads: bool,
    /// Offset of the first sample in the input. `size` is its length in bytes.
    pub(super) from: u64,
    pub(super) size: u32,
    /// Bytes of the picture after it. Part of the same picture if the first one has no slice.
    pub(super) next: u32,
    /// Whether the container flags it as a sync sample.
    pub(super) sync: bool,
    /// State of the fields before it.
    pub(super) fields: Fields,
    /// The bytes of the picture read so far.
    pub(super) peek: Vec<u8>,
    /// The bytes that precede it in fragments of their own.
    pub(super) lead: Vec<u8>,
    /// Length of `peek` at which it is classified next: after every slice, the work would grow with the square of the length.
    pub(super) next_try: usize,
}

/// What a classified picture shows besides its kind.
#[derive(Debug, Default)]
pub(super) struct PictureDetails {
    /// State of the fields after it.
    pub(super) fields: Fields,
    /// It is the second field of the picture before.
    pub(super) is_second_field: bool,
    /// It is a first field, whose second field follows.
    pub(super) is_first_field: bool,
    /// The name of the codec, if its parameter sets are not those in force.
    pub(super) name: Option<String>,
    /// The parameter sets in band.
    pub(super) in_band: Vec<nal::ParameterSet>,
}

impl PendingVideo {
    /// Classifies the picture from `data`; `None` if more bytes are needed. `is_all` means that no more will come.
    pub(super) fn classify(&self, data: &[u8], is_all: bool) -> Option<(Picture, PictureDetails)> {
        let alone = self.classify_bytes(data, is_all)?;
        // Alone first: otherwise every fragment in front of a picture that never comes would be read with all before it.
        if self.lead.is_empty() || alone.0.part == Part::Prefix {
            return Some(alone);
        }
        work::count(self.lead.len());
        self.classify_bytes(&[&self.lead, data].concat(), is_all)
    }

    fn classify_bytes(&self, data: &[u8], is_all: bool) -> Option<(Picture, PictureDetails)> {
        // Always from the same bytes, so that the result does not depend on how the input was sliced.
        let cut = data.get(..MAX_PREFIX).unwrap_or(data);
        let complete = is_all && usize::try_from(self.size).is_ok_and(|size| size <= MAX_PREFIX);
        let picture = nal::classify(self.codec, self.framing, cut, complete, self.sync)?;
        if !complete && cut.len() < MAX_PREFIX && self.fields.needs_more(self.codec, cut, &picture) {
            return None;
        }
        let sps = picture.sps.filter(|_| picture.config != self.in_force);
        let sps = sps.and_then(|(at, len)| cut.get(at..at.checked_add(len)?));
        let mut fields = self.fields;
        let is_second_field = fields.take(self.codec, cut, &picture);
        let details = PictureDetails {
            is_second_field,
            is_first_field: fields.is_open(),
            fields,
            name: sps.and_then(|sps| codec::from_sps(self.codec, sps)),
            in_band: nal::parameter_sets(self.codec, self.framing, cut),
        };
        Some((picture, details))
    }

    /// Takes the bytes of the picture that are in `data`, which begins at `at`. Returns the picture once it is classified.
    pub(super) fn read(&mut self, at: u64, data: &[u8]) -> Option<(Picture, PictureDetails)> {
        let found = self.read_samples(at, data)?;
        if found.0.part != Part::Prefix || self.next == 0 {
            return Some(found);
        }
        // The first sample holds only parameter sets: read the next one as part of the picture.
        self.size = self.size.saturating_add(std::mem::take(&mut self.next));
        self.next_try = 0;
        self.read_samples(at, data)
    }

    fn read_samples(&mut self, at: u64, data: &[u8]) -> Option<(Picture, PictureDetails)> {
        let next = self.from.saturating_add(self.peek.len() as u64);
        let Some(skip) = next.checked_sub(at) else {
            // The next byte is before this content, so no more bytes can come.
            return self.classify(&self.peek, true);
        };
        let fresh = usize::try_from(skip)
            .ok()
            .and_then(|skip| data.get(skip..))
            .unwrap_or_default();
        let size = usize::try_from(self.size).unwrap_or(usize::MAX).min(MAX_PREFIX);
        let missing = size.saturating_sub(self.peek.len());
        let fresh = fresh.get(..missing).unwrap_or(fresh);
        if self.peek.is_empty() {
            // In most cases the first slice suffices: then nothing is copied.
            let found = self.classify(fresh, fresh.len() == missing);
            if found.as_ref().is_none_or(|found| found.0.part == Part::Prefix) {
                self.peek.extend_from_slice(fresh);
            }
            return found;
        }
        self.peek.extend_from_slice(fresh);
        let is_all = self.peek.len() == size;
        if !is_all && self.peek.len() < self.next_try {
            return None;
        }
        self.next_try = self.peek.len() + self.peek.len() / 8;
        self.classify(&self.peek, is_all)
    }
}
