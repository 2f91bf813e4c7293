//! Days from names: a listing without metadata has a tenth of the bytes. It is enough for hours that were recorded without a
//! break.
//!
//! PURE. A name holds the start of a chunk, but neither its end nor why something is missing before it. If each chunk of an hour
//! begins one usual length after the one before it, nothing is missing. Of all other hours the metadata are needed
//! ([`Outline::open_hours`]).

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use gcstreamer_schema::name::{NameParts, Template};

use super::HOUR;
use super::chunk::MAX_SEQUENCE;
use super::runs::Run;

/// What the name of a chunk tells.
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
    /// Reads a name. `None`: it is not that of a chunk of this camera, or lacks the start or the sequence number.
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
            sequence: sequence.filter(|sequence| *sequence <= MAX_SEQUENCE)?,
        })
    }

    /// Returns the UTC hour in which the chunk begins, ns since the Unix epoch.
    pub fn hour(&self) -> u64 {
        self.start - self.start % HOUR
    }
}

/// The chunk that is next in time in the same session.
#[derive(Clone, Copy, Debug)]
struct Next {
    /// Its index.
    at: usize,
    start: u64,
    /// Whether it has the next sequence number.
    follows: bool,
}

/// Returns for each chunk the next one in time of its session, ignoring other sessions.
fn followers(named: &[Named]) -> Vec<Option<Next>> {
    let mut next = vec![None; named.len()];
    let mut last: HashMap<&str, usize> = HashMap::new();
    for (at, chunk) in named.iter().enumerate() {
        let Some(before) = last.insert(&chunk.session, at) else {
            continue;
        };
        let number = named.get(before).map(|before| before.sequence);
        if let Some(next) = next.get_mut(before) {
            *next = Some(Next {
                at,
                start: chunk.start,
                follows: number.and_then(|number| number.checked_add(1)) == Some(chunk.sequence),
            });
        }
    }
    next
}

/// Returns the range of usual chunk lengths in a session: the median, plus or minus twice the third quartile of the deviations
/// from it (at least 1/20 and at most 1/4 of the median).
///
/// Lengths vary, because a chunk ends at the first key unit after `max-size-time`: two chunks may differ by one distance of key
/// units.
fn usual(mut lengths: Vec<u64>) -> std::ops::RangeInclusive<u64> {
    lengths.sort_unstable();
    let middle = lengths.get(lengths.len() / 2).copied().unwrap_or(0);
    let mut off: Vec<u64> = lengths.iter().map(|length| length.abs_diff(middle)).collect();
    off.sort_unstable();
    let most = off.get(off.len() * 3 / 4).copied().unwrap_or(0);
    let off = most.saturating_mul(2).clamp(middle / 20, middle / 4);
    middle - off..=middle.saturating_add(off)
}

/// Returns when each chunk ends, by its name and that of the next chunk. `None`: the names do not tell.
fn ends(named: &[Named], next: &[Option<Next>]) -> Vec<Option<u64>> {
    let mut lengths: HashMap<&str, Vec<u64>> = HashMap::new();
    let length = |chunk: &Named, next: &Option<Next>| next.filter(|next| next.follows).map(|next| next.start - chunk.start);
    for (chunk, next) in named.iter().zip(next) {
        if let Some(length) = length(chunk, next) {
            lengths.entry(&chunk.session).or_default().push(length);
        }
    }
    let usual: HashMap<&str, _> = lengths
        .into_iter()
        .map(|(session, lengths)| (session, usual(lengths)))
        .collect();
    let ends = named.iter().zip(next).map(|(chunk, next)| {
        // Runs from names are merged with runs from metadata by their session. If names have no session they cannot be.
        let length = length(chunk, next).filter(|_| !chunk.session.is_empty())?;
        let is_usual = usual.get(&*chunk.session).is_some_and(|usual| usual.contains(&length));
        is_usual.then(|| chunk.start + length)
    });
    ends.collect()
}

/// The chunks of a camera by their names, sorted by time.
#[derive(Debug)]
pub struct Outline {
    named: Vec<Named>,
    next: Vec<Option<Next>>,
    ends: Vec<Option<u64>>,
}

impl Outline {
    /// Builds an outline of these names. Removes duplicates: a chunk may have several names.
    pub fn of(mut named: Vec<Named>) -> Self {
        named.sort();
        named.dedup();
        let next = followers(&named);
        let ends = ends(&named, &next);
        Self { named, next, ends }
    }

    /// Returns the UTC hours in which chunks begin, ns since the Unix epoch.
    pub fn hours(&self) -> BTreeSet<u64> {
        self.named.iter().map(Named::hour).collect()
    }

    /// Returns the hours whose names do not tell what was recorded: a session begins or ends in them, a number is missing, or a
    /// chunk is longer or shorter than is usual in its session.
    pub fn open_hours(&self) -> BTreeSet<u64> {
        let mut is_behind_another = vec![false; self.named.len()];
        let mut hours = BTreeSet::new();
        for ((chunk, next), end) in self.named.iter().zip(&self.next).zip(&self.ends) {
            if let Some(next) = next.filter(|_| end.is_some()) {
                if let Some(is_behind) = is_behind_another.get_mut(next.at) {
                    *is_behind = true;
                }
            } else {
                hours.insert(chunk.hour());
            }
        }
        let first = self.named.iter().zip(is_behind_another).filter(|(_, is_behind)| !is_behind);
        hours.extend(first.map(|(chunk, _)| chunk.hour()));
        hours
    }

    /// Returns the runs of chunks of the hours that are not in `known`. `known` must contain all [`Outline::open_hours`].
    pub(super) fn runs(&self, known: &BTreeSet<u64>) -> Vec<Run> {
        let mut runs: Vec<Run> = Vec::new();
        let mut open: HashMap<&str, usize> = HashMap::new();
        for (chunk, end) in self.named.iter().zip(&self.ends) {
            let Some(end) = end.filter(|_| !known.contains(&chunk.hour())) else {
                continue;
            };
            let at = open.get(&*chunk.session).copied();
            let run = at.and_then(|at| runs.get_mut(at));
            match run.filter(|run| run.end == chunk.start && run.last.checked_add(1) == Some(chunk.sequence)) {
                Some(run) => (run.last, run.end) = (chunk.sequence, end),
                None => {
                    open.insert(&chunk.session, runs.len());
                    runs.push(Run {
                        start: chunk.start,
                        first: chunk.sequence,
                        session: chunk.session.clone(),
                        last: chunk.sequence,
                        end,
                        gap: None,
                        steps: false,
                    });
                }
            }
        }
        runs
    }
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

    /// A session of chunks of ten seconds from the middle of the first hour to that of the sixth.
    fn whole() -> Vec<Named> {
        (0..5 * 360).map(|q| named("a", q, 1800 + q * 10)).collect()
    }

    fn hours(all: Vec<Named>) -> Vec<u64> {
        let open = Outline::of(all).open_hours();
        open.into_iter().map(|hour| hour / HOUR).collect()
    }

    #[test]
    fn hours_in_which_each_chunk_follows_on_the_one_before_need_no_metadata() {
        let all = whole();
        assert_eq!(hours(all.clone()), [0, 5], "a session begins and ends there");
        let edges = BTreeSet::from([0, 5 * HOUR]);
        let [run] = &Outline::of(all.clone()).runs(&edges)[..] else {
            panic!("one run")
        };
        assert_eq!((run.start, run.end, run.first, run.last), (HOUR, 5 * HOUR, 180, 1619));
        // Two more recorders at the same time: one with chunks of a minute, one whose chunks end at the next key frame.
        let minutes = (0..300).map(|q| named("b", q, 1824 + q * 60));
        let uneven = (0..1636).map(|q| named("c", q, 1800 + q * 11 + q % 2));
        let all: Vec<Named> = all.into_iter().chain(minutes).chain(uneven).collect();
        assert_eq!(hours(all.clone()), [0, 5]);
        assert_eq!(Outline::of(all).runs(&edges).len(), 3);
    }

    #[test]
    fn names_without_a_session_tell_no_lengths() {
        let all = whole().into_iter().map(|chunk| Named {
            session: "".into(),
            ..chunk
        });
        assert_eq!(hours(all.collect()), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn of_an_hour_in_which_something_happened_names_do_not_tell_enough() {
        // The first chunk of the hour from 2:00 on is that of number 540.
        let with = |change: &dyn Fn(&mut Vec<Named>)| {
            let mut all = whole();
            change(&mut all);
            hours(all)
        };
        let later =
            |by: u64| with(&|all: &mut Vec<Named>| all.iter_mut().skip(600).for_each(|chunk| chunk.start += by * SECOND / 10));
        assert_eq!(with(&|all| drop(all.remove(600))), [0, 2, 5], "a number is missing");
        assert_eq!(
            with(&|all| drop(all.drain(530..550))),
            [0, 1, 2, 5],
            "over the end of an hour"
        );
        assert_eq!(later(6), [0, 2, 5], "0.6 s later than the others");
        assert_eq!(later(250), [0, 2, 5], "25 s");
        let restarted = |all: &mut Vec<Named>| {
            for (number, chunk) in (0..).zip(all.iter_mut().skip(600)) {
                (chunk.session, chunk.sequence) = ("b".into(), number);
            }
        };
        assert_eq!(with(&restarted), [0, 2, 5], "another session");
        let set_back = |all: &mut Vec<Named>| all.iter_mut().skip(900).for_each(|chunk| chunk.start -= 1800 * SECOND);
        assert_eq!(
            with(&set_back),
            [0, 2, 4],
            "its clock was set back, over what it recorded before"
        );
        assert_eq!(with(&|all| all.truncate(1)), [0], "one chunk alone");
        assert!(with(&Vec::clear).is_empty(), "nothing");
    }

    #[test]
    fn a_name_of_another_camera_is_no_chunk() {
        let template = Template::parse(crate::settings::DEFAULT_LOCATION).unwrap();
        let name = "a/b/2026/11/22/20261122T064512.345Z_0a1b2c3d4e_000012.flv";
        assert_eq!(Named::of(&template, "a/b", name).unwrap().sequence, 12);
        assert_eq!(Named::of(&template, "a", name), None);
        assert_eq!(
            Named::of(&template, "a/b", &name.replace("000012", "18446744073709551615")),
            None
        );
    }
}
