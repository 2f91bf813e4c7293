//! Units held until it is known whether a chunk can begin with them: sound before the first picture, and pictures whose bytes do
//! not show whether they are key.
//!
//! PURE.

use super::open::LastUnit;
use super::start::Dropping;
use super::{ChunkState, Chunker};
use crate::chunk::Event;
use crate::chunk::clock::Stamp;
use crate::chunk::frames::Frames;
use crate::container::{Key, Unit};

/// Units of a track that came before a chunk began: the first of them, and the times of all.
#[derive(Debug)]
pub(super) struct HeldUnits {
    first: LastUnit,
    frames: Frames,
}

impl HeldUnits {
    fn new(first: LastUnit) -> Self {
        Self {
            first,
            frames: Frames::default(),
        }
    }

    fn add(&mut self, unit: &Unit) {
        if let Some(pts) = unit.pts {
            self.frames.add(pts, unit.end);
        }
    }
}

/// Pictures whose bytes do not show whether they are key. They are stored if no key unit comes; otherwise they become the gap
/// before the first key unit.
#[derive(Debug)]
pub(super) struct UndecidedPictures {
    held: HeldUnits,
    pub(super) gap: Dropping,
}

fn last_unit(at: u64, unit: &Unit, container_pts: Option<u64>, stamp: Stamp) -> LastUnit {
    LastUnit {
        at,
        unit: unit.clone(),
        container_pts,
        stamp,
        picture_end: None,
    }
}

impl Chunker {
    /// Notes a unit of sound that came before any picture.
    pub(super) fn keep_sound(&mut self, at: u64, unit: &Unit, container_pts: Option<u64>, stamp: Stamp) {
        let ChunkState::Waiting(waiting) = &mut self.state else {
            return;
        };
        let sound = waiting
            .sound
            .get_or_insert_with(|| Box::new(HeldUnits::new(last_unit(at, unit, container_pts, stamp))));
        sound.add(unit);
    }

    /// Notes a picture whose bytes do not show whether it is key.
    pub(super) fn keep_picture(&mut self, at: u64, unit: &Unit, container_pts: Option<u64>, stamp: Stamp) {
        let gap = self.gap_from(unit, &stamp);
        let ChunkState::Waiting(waiting) = &mut self.state else {
            return;
        };
        let pictures = waiting.undecided.get_or_insert_with(|| {
            Box::new(UndecidedPictures {
                held: HeldUnits::new(last_unit(at, unit, container_pts, stamp)),
                gap,
            })
        });
        pictures.held.add(unit);
        pictures.gap.note(unit);
    }

    /// Dates the chunk that has just begun by the units held before it: by the pictures, or by the sound if there are none.
    pub(super) fn begin_with(
        &mut self,
        pictures: Option<Box<UndecidedPictures>>,
        sound: Option<Box<HeldUnits>>,
        key: Key,
        events: &mut Vec<Event>,
    ) {
        let Some(HeldUnits { first, frames }) = pictures.map(|pictures| pictures.held) else {
            return self.begin_with_sound(sound, key, events);
        };
        self.account(first.at, &first.unit, first.container_pts, first.stamp, events);
        if let ChunkState::Open(open) = &mut self.state {
            open.video = frames;
            open.audio = sound.map_or(open.audio, |sound| sound.frames);
        }
    }

    /// Dates the chunk that has just begun by its first sound, because no picture will.
    fn begin_with_sound(&mut self, sound: Option<Box<HeldUnits>>, key: Key, events: &mut Vec<Event>) {
        let ChunkState::Open(open) = &mut self.state else { return };
        open.any_track = true;
        let Some(HeldUnits { first, frames }) = sound.map(|sound| *sound) else {
            return;
        };
        let unit = Unit { key, ..first.unit };
        self.account(first.at, &unit, first.container_pts, first.stamp, events);
        if let ChunkState::Open(open) = &mut self.state {
            // `account` has added the first unit alone; these are the times of all.
            open.audio = frames;
        }
    }
}
