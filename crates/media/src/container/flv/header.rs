//! Builds the header in front of a chunk: file header, script tag and the last configuration of each stream.
//!
//! PURE.

use std::sync::Arc;

use bytes::Bytes;

use super::super::feed::{Step, len64};
use super::super::{Init, Mark, StreamInfo, Unit, codec};
use super::tag::TAG_HEADER;
use super::{Flv, Part};

impl Flv {
    /// Takes a configuration tag. If it replaces a different one, it begins a new chunk and is part of that chunk's payload.
    pub(super) fn config(
        &mut self,
        part: Part,
        bytes: &[u8],
        (name, sets): (Option<String>, Option<u64>),
        marks: &mut Vec<Mark>,
    ) -> Step {
        let done = Step::Pass(len64(bytes.len()));
        let in_force = self.parts.iter().find(|(p, _)| *p == part).map(|(_, b)| b.clone());
        // Compared without the tag headers: a configuration that is sent again has another timestamp.
        if in_force.as_deref().and_then(|b| b.get(TAG_HEADER..)) == bytes.get(TAG_HEADER..) {
            return done;
        }
        match part {
            Part::Video => {
                self.video_name = name;
                self.parameter_sets = sets;
            }
            Part::Audio => {
                self.audio_name = name;
                self.has_audio = true;
            }
            Part::Further(..) | Part::Script => {}
        }
        if in_force.is_some() && self.head.is_none() {
            // The prefix lies in front of this unit, and marks have to be in order.
            self.release_prefix(marks);
            // Without the part that is replaced, which the payload contains, and without the script tag: it describes the
            // previous configuration.
            let others = self.parts.iter().filter(|(p, _)| *p != part && *p != Part::Script);
            let head = std::iter::once(&self.file_header)
                .chain(others.map(|(_, b)| b))
                .flatten()
                .copied()
                .collect::<Vec<u8>>();
            self.set_part(part, Bytes::copy_from_slice(bytes));
            let init = Init {
                head: self.shared(head),
                tail: Bytes::new(),
                info: Arc::clone(&self.init.info),
            };
            self.unit(marks, Unit::of_header(init));
        } else {
            self.set_part(part, Bytes::copy_from_slice(bytes));
        }
        done
    }

    pub(super) fn set_part(&mut self, part: Part, bytes: Bytes) {
        match self.parts.iter_mut().find(|(p, _)| *p == part) {
            // A repetition: the header stays the same.
            Some((_, b)) if *b == bytes => return,
            Some((_, b)) => *b = bytes,
            None => self.parts.push((part, bytes)),
        }
        self.rebuild();
    }

    /// Returns `head` as `Bytes`; reuses one of the most recent headers if it is equal. Configurations that alternate would
    /// otherwise allocate a header at every change.
    pub(super) fn shared(&mut self, head: Vec<u8>) -> Bytes {
        const RECENT: usize = 4;
        let known = self.recent.iter().position(|known| *known == head);
        let head = known
            .and_then(|at| self.recent.remove(at))
            .unwrap_or_else(|| Bytes::copy_from_slice(&head));
        self.recent.truncate(RECENT - 1);
        self.recent.push_front(head.clone());
        head
    }

    pub(super) fn rebuild(&mut self) {
        let head = std::iter::once(&self.file_header).chain(self.parts.iter().map(|(_, b)| b));
        let video = self.has_video.then_some(self.video_name.as_deref());
        let audio = self.has_audio.then_some(self.audio_name.as_deref());
        let info = StreamInfo {
            codecs: codec::join(video.into_iter().chain(audio)),
            has_video: self.has_video,
            has_audio: self.has_audio,
        };
        let head = head.flatten().copied().collect::<Vec<u8>>();
        self.init = Init {
            head: self.shared(head),
            tail: Bytes::new(),
            info: Arc::new(info),
        };
    }

    /// Returns the header for a unit at the current offset. For the first unit it is the head itself, unchanged.
    pub(super) fn init_here(&mut self) -> Init {
        match self.head.take() {
            Some(head) => Init {
                head: head.into(),
                ..self.init.clone()
            },
            None => self.init.clone(),
        }
    }
}
