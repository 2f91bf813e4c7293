//! Days from names alone: a listing without metadata is a tenth of the bytes, enough for a calendar and for spans of weeks.
//!
//! PURE. A name holds the start of a chunk; its end is the start of the next one of its session, and of the last one it is as long
//! as the others are. Why something is missing inside a session is in the metadata, so the reason is that it is not stored.

use std::collections::HashMap;
use std::sync::Arc;

use gcstreamer_schema::name::{NameParts, Template};

use super::chunk::Chunk;
use super::timeline::{Piece, Timeline};

/// A chunk whose length is not known is taken to be as long as this, ns.
const USUAL: u64 = 10_000_000_000;

/// A chunk as its name describes it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    /// Its beginning, ns since the Unix epoch.
    pub start: u64,
    /// Session id.
    pub session: Arc<str>,
    /// Number in the session.
    pub sequence: u64,
}

impl Named {
    /// Reads the name of a chunk of this camera.
    pub fn of(template: &Template, camera: &str, name: &str) -> Option<Self> {
        let NameParts {
            device,
            session,
            sequence,
            start,
            ..
        } = template.read(name)?;
        (device.as_deref() == Some(camera)).then_some(())?;
        Some(Self {
            start: start?,
            session: session.unwrap_or_default().into(),
            sequence: sequence?,
        })
    }

    /// As the chunk tells by its metadata.
    pub fn of_chunk(chunk: &Chunk) -> Self {
        Self {
            start: chunk.meta.start,
            session: chunk.meta.session.as_str().into(),
            sequence: chunk.meta.sequence,
        }
    }
}

/// Builds the timeline of chunks of which the names are known.
pub fn timeline(mut named: Vec<Named>) -> Timeline {
    named.sort();
    named.dedup();
    let next = followers(&named);
    let mut lengths: Vec<u64> = named
        .iter()
        .zip(&next)
        .filter_map(|(chunk, next)| Some((*next)? - chunk.start))
        .collect();
    lengths.sort_unstable();
    let usual = lengths.get(lengths.len() / 2).copied().unwrap_or(USUAL);
    // A chunk that is much longer than the others has a hole behind it that its number does not show.
    let longest = usual.saturating_mul(4);
    let mut before: HashMap<&str, (u64, u64)> = HashMap::new();
    let pieces: Vec<Piece<'_>> = named
        .iter()
        .zip(next)
        .map(|(chunk, next)| {
            let end = next.filter(|next| next - chunk.start <= longest);
            let last = before.insert(&chunk.session, (chunk.sequence, chunk.start));
            // Behind a clock that was set back another number is next in time: how far away it is says nothing.
            let is_behind_hole =
                last.is_some_and(|(last, start)| last.checked_add(1) == Some(chunk.sequence) && chunk.start - start > longest);
            Piece {
                session: &chunk.session,
                sequence: chunk.sequence,
                last: chunk.sequence,
                start: chunk.start,
                end: end.unwrap_or(chunk.start + usual),
                gap: match chunk.sequence {
                    0 => Some("start"),
                    // Why is in the metadata.
                    _ if is_behind_hole => Some(""),
                    _ => None,
                },
                // Names do not tell.
                steps: false,
            }
        })
        .collect();
    Timeline::of_pieces(&pieces)
}

/// When the chunk begins that follows each in its session, whatever other sessions recorded between them.
fn followers(named: &[Named]) -> Vec<Option<u64>> {
    let mut next = vec![None; named.len()];
    let mut last: HashMap<&str, usize> = HashMap::new();
    for (at, chunk) in named.iter().enumerate() {
        let Some(before) = last.insert(&chunk.session, at) else {
            continue;
        };
        if named.get(before).and_then(|before| before.sequence.checked_add(1)) == Some(chunk.sequence)
            && let Some(next) = next.get_mut(before)
        {
            *next = Some(chunk.start);
        }
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn named(session: &str, sequence: u64, start: u64) -> Named {
        Named {
            start: start * SECOND,
            session: session.into(),
            sequence,
        }
    }

    #[test]
    fn names_alone_tell_ranges_and_gaps() {
        let mut all: Vec<Named> = (0..6).map(|q| named("a", q, 100 + q * 10)).collect();
        all.extend((9..12).map(|q| named("a", q, 190 + (q - 9) * 10)));
        all.push(named("b", 0, 300));
        let timeline = timeline(all);
        let ranges: Vec<_> = timeline.ranges.iter().map(|r| (r.from / SECOND, r.to / SECOND)).collect();
        assert_eq!(ranges, [(100, 160), (190, 220), (300, 310)]);
        let gaps: Vec<_> = timeline
            .gaps
            .iter()
            .map(|g| (g.from / SECOND, g.to / SECOND, g.reason.as_str()))
            .collect();
        assert_eq!(gaps, [(160, 190, "not-stored"), (220, 300, "start")]);
        // Two recorders at once, of chunks of a minute.
        let all = (0..100).flat_map(|q| [named("a", q, 1000 + q * 60), named("b", q, 1024 + q * 60)]);
        let both = super::timeline(all.collect());
        assert_eq!((both.ranges.len(), both.gaps.len()), (1, 0), "{both:?}");
    }

    #[test]
    fn a_camera_that_stalled_for_an_hour_is_not_recorded_in_that_hour_though_no_number_is_missing() {
        let mut all: Vec<Named> = (0..6).map(|q| named("a", q, 100 + q * 10)).collect();
        all.extend((6..12).map(|q| named("a", q, 3700 + q * 10)));
        let timeline = timeline(all);
        let ranges: Vec<_> = timeline.ranges.iter().map(|r| (r.from / SECOND, r.to / SECOND)).collect();
        assert_eq!(ranges, [(100, 160), (3760, 3820)]);
        let gaps: Vec<_> = timeline
            .gaps
            .iter()
            .map(|g| (g.from / SECOND, g.to / SECOND, g.reason.as_str()))
            .collect();
        assert_eq!(gaps, [(160, 3760, "unknown")]);
    }

    #[test]
    fn a_clock_that_was_set_back_twice_leaves_no_gap() {
        let run = |first: u64, start: u64| (0..10).map(move |q| named("a", first + q, start + q * 10));
        let timeline = timeline(run(0, 7200).chain(run(10, 3600)).chain(run(20, 100)).collect());
        assert_eq!((timeline.ranges.len(), timeline.gaps), (3, vec![]));
    }

    #[test]
    fn a_name_of_another_camera_is_no_chunk() {
        let template = Template::parse(crate::settings::DEFAULT_LOCATION).unwrap();
        let name = "a/b/2026/11/22/20261122T064512.345Z_0a1b2c3d4e_000012.flv";
        assert_eq!(Named::of(&template, "a/b", name).unwrap().sequence, 12);
        assert_eq!(Named::of(&template, "a", name), None);
    }
}
