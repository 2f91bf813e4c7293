//! What was recorded and what is missing: ranges and gaps on the time axis, and how much of each day.
//!
//! PURE. Inside a session a gap is a missing `sequence` or `continuous=false`, never time arithmetic: a camera's clock drifts.
//! Between sessions a gap is the time from the last end to the next start. Overlaps are merged.

use std::collections::{HashMap, HashSet};

use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

use super::chunk::Chunk;

/// A stretch of time, ns since the Unix epoch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Range {
    /// Its beginning.
    #[serde(with = "gcstreamer_schema::time::required")]
    pub from: u64,
    /// Its end.
    #[serde(with = "gcstreamer_schema::time::required")]
    pub to: u64,
}

/// A stretch of time in which nothing is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gap {
    /// Its beginning, ns since the Unix epoch.
    #[serde(with = "gcstreamer_schema::time::required")]
    pub from: u64,
    /// Its end, ns since the Unix epoch.
    #[serde(with = "gcstreamer_schema::time::required")]
    pub to: u64,
    /// Why: a `gap-reason` of the metadata, [`NOT_STORED`] or [`UNKNOWN`].
    pub reason: String,
}

/// The reason of a gap in which chunks of a session are missing from the bucket.
pub const NOT_STORED: &str = "not-stored";
/// The reason of a gap whose cause is unknown.
pub const UNKNOWN: &str = "unknown";

/// What a timeline needs to know of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Session id.
    pub session: &'a str,
    /// Sequence number; of a run of consecutive chunks the first one.
    pub sequence: u64,
    /// Sequence number of the last chunk of the run.
    pub last: u64,
    /// Its beginning, ns since the Unix epoch.
    pub start: u64,
    /// Its end, ns since the Unix epoch.
    pub end: u64,
    /// Why something may be missing before it.
    pub gap: Option<&'a str>,
    /// The camera's clock was set forward before this piece. The time that the clock skipped is neither recorded nor missing.
    pub steps: bool,
}

impl<'a> From<&'a Chunk> for Piece<'a> {
    fn from(chunk: &'a Chunk) -> Self {
        let meta = &chunk.meta;
        Self {
            session: &meta.session,
            sequence: meta.sequence,
            last: meta.sequence,
            start: meta.start,
            end: meta.end,
            gap: meta.gap.as_ref().map(gcstreamer_schema::metadata::Gap::name),
            steps: chunk.steps(),
        }
    }
}

/// What is recorded of a camera and what is missing, sorted by time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Timeline {
    /// Recorded.
    pub ranges: Vec<Range>,
    /// Missing between recorded ones.
    pub gaps: Vec<Gap>,
}

/// One day of a calendar.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Day {
    /// The day in the requested time zone.
    #[serde(serialize_with = "as_text")]
    pub day: Date,
    /// Seconds recorded.
    pub recorded_s: u64,
    /// Seconds missing between recorded ones.
    pub gap_s: u64,
}

impl Timeline {
    /// Builds a timeline from chunks that [`super::chunk::sorted`] has sorted.
    pub fn of(chunks: &[Chunk]) -> Self {
        Self::of_pieces(&chunks.iter().map(Piece::from).collect::<Vec<_>>())
    }

    /// Builds a timeline from pieces sorted by their start.
    pub fn of_pieces(pieces: &[Piece<'_>]) -> Self {
        let mut timeline = Self::default();
        let mut last_of: HashMap<&str, u64> = HashMap::new();
        let stored: HashSet<(&str, u64)> = pieces.iter().map(|piece| (piece.session, piece.last)).collect();
        for piece in pieces {
            let same = last_of.insert(piece.session, piece.last);
            let before = piece.sequence.checked_sub(1);
            let is_next = same.is_none_or(|last| Some(last) == before);
            let joins = same.is_some() && is_next && piece.gap.is_none();
            // The previous number is stored, but not before this piece in time: the clock was set back, and nothing is missing.
            // Number 0 has no predecessor.
            let is_apart = same.is_some()
                && !is_next
                && before.is_none_or(|before| piece.gap.is_none() && stored.contains(&(piece.session, before)));
            match timeline.ranges.last_mut() {
                Some(range) if joins && !piece.steps || piece.start <= range.to => range.to = range.to.max(piece.end),
                // The clock was set forward or back: a range of its own, without a gap in front of it.
                Some(_) if joins || is_apart => timeline.ranges.push(Range {
                    from: piece.start,
                    to: piece.end,
                }),
                Some(range) => {
                    // A number is missing: that chunk was recorded, but is not in the bucket. It waits for its upload or was
                    // dropped.
                    let reason = if is_next {
                        piece.gap.filter(|gap| !gap.is_empty()).unwrap_or(UNKNOWN)
                    } else {
                        NOT_STORED
                    };
                    timeline.gaps.push(Gap {
                        from: range.to,
                        to: piece.start,
                        reason: reason.to_owned(),
                    });
                    timeline.ranges.push(Range {
                        from: piece.start,
                        to: piece.end,
                    });
                }
                None => timeline.ranges.push(Range {
                    from: piece.start,
                    to: piece.end,
                }),
            }
        }
        timeline
    }

    /// Returns the part of the timeline between `from` and `to`. Ranges and gaps are cut at both ends.
    #[must_use]
    pub fn within(&self, from: u64, to: u64) -> Self {
        let cut = |a: u64, b: u64| (a.max(from), b.min(to));
        let ranges = self
            .ranges
            .iter()
            .map(|range| cut(range.from, range.to))
            .filter(|(a, b)| a < b);
        let gaps = self
            .gaps
            .iter()
            .map(|gap| (cut(gap.from, gap.to), gap))
            .filter(|((a, b), _)| a < b);
        Self {
            ranges: ranges.map(|(from, to)| Range { from, to }).collect(),
            gaps: gaps
                .map(|((from, to), gap)| Gap {
                    from,
                    to,
                    reason: gap.reason.clone(),
                })
                .collect(),
        }
    }

    /// Returns the parts of `from..to` that are neither recorded nor in a gap with a reason other than [`NOT_STORED`].
    pub fn unexplained(&self, from: u64, to: u64) -> Vec<Range> {
        let explained = self
            .gaps
            .iter()
            .filter(|gap| gap.reason != NOT_STORED)
            .map(|gap| (gap.from, gap.to));
        let mut known: Vec<(u64, u64)> = self
            .ranges
            .iter()
            .map(|range| (range.from, range.to))
            .chain(explained)
            .collect();
        known.sort_unstable();
        let (mut at, mut left) = (from, Vec::new());
        for (begin, end) in known.into_iter().chain([(to, to)]) {
            if at < begin.min(to) {
                left.push(Range {
                    from: at,
                    to: begin.min(to),
                });
            }
            at = at.max(end);
        }
        left
    }

    /// Returns the recorded time and the missing time, ns.
    pub fn sums(&self) -> (u64, u64) {
        let recorded = self.ranges.iter().map(|range| range.to - range.from).sum();
        let missing = self.gaps.iter().map(|gap| gap.to - gap.from).sum();
        (recorded, missing)
    }

    /// Returns each day of the month of `first` in that zone. Days on which the zone's offset changes have 23 or 25 hours.
    pub fn days(&self, first: Date, zone: &TimeZone) -> Vec<Day> {
        let days = first.first_of_month().series(jiff::Span::new().days(1));
        days.take_while(|day| day.month() == first.month() && day.year() == first.year())
            .filter_map(|day| {
                let (from, to) = day_bounds(day, zone)?;
                let (recorded, missing) = self.within(from, to).sums();
                let seconds = |ns: u64| (ns + 500_000_000) / 1_000_000_000;
                Some(Day {
                    day,
                    recorded_s: seconds(recorded),
                    gap_s: seconds(missing),
                })
            })
            .collect()
    }
}

fn as_text<S: serde::Serializer>(day: &Date, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(day)
}

/// Returns when a day begins and ends in that zone, ns since the Unix epoch. Times before 1970 become 0. `None`: the day is out
/// of the range of times.
pub fn day_bounds(day: Date, zone: &TimeZone) -> Option<(u64, u64)> {
    // Not simply 00:00: where a zone sets its clock forward at midnight, that day has no such time.
    let instant = |day: Date| {
        let start = day.to_zoned(zone.clone()).ok()?.start_of_day().ok()?;
        u64::try_from(start.timestamp().as_nanosecond().max(0)).ok()
    };
    Some((instant(day)?, instant(day.tomorrow().ok()?)?))
}

#[cfg(test)]
mod tests {
    use gcstreamer_schema::GapReason;
    use gcstreamer_schema::metadata::Gap as Why;
    use proptest::prelude::*;

    use super::super::chunk::sorted;
    use super::super::chunk::tests::{BASE, SECOND, chunk};
    use super::*;

    #[allow(clippy::type_complexity)]
    fn seconds(timeline: &Timeline) -> (Vec<(u64, u64)>, Vec<(u64, u64, String)>) {
        let at = |ns: u64| (ns - BASE) / SECOND;
        let ranges = timeline.ranges.iter().map(|r| (at(r.from), at(r.to))).collect();
        (
            ranges,
            timeline
                .gaps
                .iter()
                .map(|g| (at(g.from), at(g.to), g.reason.clone()))
                .collect(),
        )
    }

    #[test]
    fn chunks_of_a_session_join_whatever_their_times_say() {
        // The camera's clock drifts: 200 ms of nothing between the times, nothing missing between the bytes.
        let chunks = [chunk(0, 0, 0.0, 10.0), chunk(0, 1, 10.2, 10.0), chunk(0, 2, 20.4, 10.0)];
        assert_eq!(seconds(&Timeline::of(&chunks)), (vec![(0, 30)], vec![]));
    }

    #[test]
    fn a_clock_that_was_set_forward_leaves_no_recording_and_no_gap_between() {
        let mut chunks = [chunk(0, 0, 0.0, 10.0), chunk(0, 1, 10.0, 10.0), chunk(0, 2, 7220.0, 10.0)];
        chunks[2].meta.clock_step_ms = Some(7_200_000);
        let expected = (vec![(0, 20), (7220, 7230)], vec![]);
        assert_eq!(seconds(&Timeline::of(&chunks)), expected);
        // A drifting clock that is corrected all the time.
        chunks[2] = chunk(0, 2, 20.9, 10.0);
        chunks[2].meta.clock_step_ms = Some(900);
        assert_eq!(seconds(&Timeline::of(&chunks)), (vec![(0, 30)], vec![]));
    }

    #[test]
    fn a_clock_that_was_set_back_leaves_no_gap_between_what_was_recorded_before_and_behind_it() {
        let run = |sequences: std::ops::Range<u64>, start: f64| {
            let first = sequences.start;
            sequences.map(move |q| chunk(0, q, start + (q - first) as f64 * 10.0, 10.0))
        };
        let of = |chunks: Vec<Chunk>| seconds(&Timeline::of(&sorted(chunks)));
        // Set back by half an hour; then the camera is off.
        let mut back: Vec<Chunk> = run(0..10, 1800.0).chain(run(10..20, 100.0)).collect();
        assert_eq!(of(back.clone()), (vec![(100, 200), (1800, 1900)], vec![]));
        // Set back once more, and forward again.
        back.extend(run(20..30, 0.0).chain(run(30..40, 3600.0)));
        let ranges = vec![(0, 200), (1800, 1900), (3600, 3700)];
        assert_eq!(of(back.clone()), (ranges.clone(), vec![]));
        // A number that is not stored anywhere is still a gap.
        back.retain(|chunk| ![12, 13, 34].contains(&chunk.meta.sequence));
        let missing = |from, to| (from, to, NOT_STORED.to_owned());
        let (_, gaps) = of(back);
        assert_eq!(gaps, [missing(120, 140), missing(3640, 3650)]);
        // By that clock the same time was recorded twice: it is a gap only if both recordings are missing.
        let twice = run(0..100, 1000.0).chain(run(100..200, 1000.0));
        let lost = [20, 21, 22, 121, 122];
        let (ranges, gaps) = of(twice.filter(|chunk| !lost.contains(&chunk.meta.sequence)).collect());
        assert_eq!((ranges, gaps), (vec![(1000, 1210), (1230, 2000)], vec![missing(1210, 1230)]));
    }

    #[test]
    fn a_gap_has_the_reason_that_the_bucket_states() {
        let mut late = chunk(0, 4, 60.0, 10.0);
        late.meta.gap = Some(Why::Known(GapReason::Stalled));
        let mut restarted = chunk(1, 0, 90.0, 10.0);
        restarted.meta.gap = Some(Why::Other("camera-frozen".into()));
        let chunks = [chunk(0, 0, 0.0, 10.0), chunk(0, 3, 30.0, 10.0), late, restarted];
        let (ranges, gaps) = seconds(&Timeline::of(&chunks));
        assert_eq!(ranges, [(0, 10), (30, 40), (60, 70), (90, 100)]);
        assert_eq!(
            gaps,
            [
                (10, 30, "not-stored".into()),
                (40, 60, "stalled".into()),
                (70, 90, "camera-frozen".into())
            ]
        );
    }

    #[test]
    fn two_recorders_of_one_camera_overlap_and_leave_no_gap() {
        let chunks = sorted(vec![
            chunk(0, 0, 0.0, 10.0),
            chunk(1, 0, 5.0, 10.0),
            chunk(0, 1, 10.0, 10.0),
            chunk(1, 1, 15.0, 10.0),
        ]);
        assert_eq!(seconds(&Timeline::of(&chunks)), (vec![(0, 25)], vec![]));
    }

    #[test]
    fn a_window_cuts_ranges_and_gaps() {
        let timeline = Timeline::of(&[chunk(0, 0, 0.0, 10.0), chunk(0, 2, 20.0, 10.0)]);
        let window = timeline.within(BASE + 5 * SECOND, BASE + 15 * SECOND);
        assert_eq!(seconds(&window), (vec![(5, 10)], vec![(10, 15, "not-stored".into())]));
    }

    #[test]
    fn what_waits_for_its_upload_is_what_no_chunk_and_no_cause_explains() {
        let mut stalled = chunk(0, 6, 60.0, 10.0);
        stalled.meta.gap = Some(Why::Known(GapReason::Stalled));
        let chunks = [
            chunk(0, 0, 0.0, 10.0),
            chunk(0, 3, 30.0, 10.0),
            chunk(0, 5, 40.0, 10.0),
            stalled,
        ];
        let mut timeline = Timeline::of(&chunks);
        timeline.gaps.retain(|gap| gap.from != BASE + 40 * SECOND);
        let left = |from: u64, to: u64| {
            let left = timeline.unexplained(BASE + from * SECOND, BASE + to * SECOND);
            left.iter()
                .map(|r| ((r.from - BASE) / SECOND, (r.to - BASE) / SECOND))
                .collect::<Vec<_>>()
        };
        // 10 to 30 is not stored, 50 to 60 the camera stalled.
        assert_eq!(left(5, 95), [(10, 30), (70, 95)]);
        assert_eq!(left(20, 25), [(20, 25)]);
        assert_eq!((left(0, 10), left(90, 90)), (vec![], vec![]));
    }

    #[test]
    fn days_of_23_and_25_hours_are_as_long_as_they_are() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let all = Timeline {
            ranges: vec![Range { from: 0, to: u64::MAX }],
            gaps: vec![],
        };
        let hours = |year, month, day: usize| {
            let days = all.days(Date::new(year, month, 1).unwrap(), &zone);
            (days.len(), days[day - 1].recorded_s / 3600)
        };
        assert_eq!(
            (hours(2026, 3, 29), hours(2026, 10, 25), hours(2026, 11, 1)),
            ((31, 23), (31, 25), (30, 24))
        );
    }

    proptest! {
        #[test]
        fn ranges_and_gaps_fill_the_time_between_the_first_and_the_last(parts in proptest::collection::vec((0u8..3, 0u64..40, 0u32..4000, 1u32..300), 1..40)) {
            let chunks: Vec<Chunk> = parts.iter().map(|(s, q, start, len)| chunk(*s, *q, f64::from(*start) / 10.0, f64::from(*len) / 10.0)).collect();
            let chunks = sorted(chunks);
            let timeline = Timeline::of(&chunks);
            let mut edges: Vec<(u64, u64)> = timeline.ranges.iter().map(|r| (r.from, r.to)).chain(timeline.gaps.iter().map(|g| (g.from, g.to))).collect();
            edges.sort_unstable();
            prop_assert!(edges.iter().all(|(from, to)| from < to));
            // Holes are allowed only where a clock was set back: in front of a chunk that lacks no predecessor, in a session that
            // has chunks earlier in time.
            let is_back = |at: u64| chunks.iter().any(|chunk| {
                let of_it = || chunks.iter().filter(|other| other.meta.session == chunk.meta.session);
                let lacks_none = chunk.meta.sequence == 0 || of_it().any(|other| other.meta.sequence + 1 == chunk.meta.sequence);
                chunk.meta.start == at && lacks_none && of_it().any(|other| other.meta.start < at)
            });
            let holes: Vec<(u64, u64)> = edges.windows(2).filter(|pair| pair[0].1 != pair[1].0).map(|pair| (pair[0].1, pair[1].0)).collect();
            prop_assert!(holes.iter().all(|(from, to)| from < to && is_back(*to)));
            let holes: u64 = holes.iter().map(|(from, to)| to - from).sum();
            prop_assert_eq!(edges[0].0, chunks[0].meta.start);
            prop_assert_eq!(edges.last().unwrap().1, chunks.iter().map(|c| c.meta.end).max().unwrap());
            let (recorded, missing) = timeline.sums();
            prop_assert_eq!(recorded + missing + holes, edges.last().unwrap().1 - edges[0].0);
        }
    }
}
