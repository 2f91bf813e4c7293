//! Detects that one of a flow group's two limits is too low for what its sinks receive; to the user it looks like a slow link.
//!
//! PURE: time is an argument, ns on any monotonic scale. Each sink reports its figures once a second. A limit is too low if, over
//! a minute, something waited for it nearly all the time, more chunks began than were stored, the sinks need more than the limit
//! allows, and no upload failed. What a sink received while it failed does not count: the cause was the link or the server, and
//! its backlog is no growth when it recovers.
//!
//! Chunks begin in steps, often those of all sinks at once. So each sink is measured over at least two lengths of its chunks:
//! then each half of that time contains every phase of a chunk. Sinks with chunks of up to 30 s are measured over a minute; sinks
//! with longer ones, together with the others, over two minutes, four, and so on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Between two samples, ns.
const STEP: u64 = 10_000_000_000;
/// The shortest window, in steps: a minute.
const SHORTEST: usize = 6;
/// The longest window, in steps: 64 minutes, for all chunks of more than 16.
const LONGEST: usize = SHORTEST << 6;
/// Share of the checks at which something waited for a limit, in percent.
const BUSY: u32 = 90;
/// After this time without a shortage the next one is reported again, ns.
const REPORT_AGAIN: u64 = 600_000_000_000;

/// One of the two limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// `max-bytes-per-second`.
    Bytes,
    /// `max-requests-per-second`.
    Requests,
}

/// Totals of one sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Chunks that began.
    pub created: u64,
    /// Chunks that were stored, those of earlier sessions included.
    pub stored: u64,
    /// Bytes received.
    pub received: u64,
    /// Its last attempt failed.
    pub is_failing: bool,
}

/// A limit that is too low.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shortage {
    /// The limit.
    pub limit: Limit,
    /// What the sinks need, units per second.
    pub needed: f64,
}

/// The group at one moment.
#[derive(Clone, Copy, Debug, Default)]
struct Sample {
    requests: u64,
    /// Checks since the previous sample, and how many of them found something waiting for bytes and for requests.
    observations: u32,
    busy: [u32; 2],
}

/// How long the chunks of a sink are, as far as that can be seen, ns.
#[derive(Clone, Copy, Debug, Default)]
struct ChunkLength {
    /// When the open chunk began, or the sink was seen first.
    began_at: Option<u64>,
    /// Of the last chunk; of the open one if that is longer already.
    length: u64,
}

impl ChunkLength {
    fn note(&mut self, before: Figures, after: Figures, now: u64) {
        let began_at = *self.began_at.get_or_insert(now);
        let open_for = now.saturating_sub(began_at);
        let begun = after.created.saturating_sub(before.created);
        if let Some(length) = open_for.checked_div(begun) {
            self.length = length;
            self.began_at = Some(now);
        } else if after.received > before.received {
            // A pause of the input does not make the chunks longer.
            self.length = self.length.max(open_for);
        }
    }

    /// The shortest window that covers two chunks, in steps.
    fn window(&self) -> usize {
        let mut window = SHORTEST;
        while window < LONGEST && (window as u64) * STEP < self.length.saturating_mul(2) {
            window *= 2;
        }
        window
    }
}

/// One sink over the last minutes.
#[derive(Debug, Default)]
struct Sink {
    now: Figures,
    chunks: ChunkLength,
    /// Totals at the last samples of the group, the oldest first.
    history: VecDeque<Figures>,
    /// Whether its history begins at a recovery, so that earlier totals do not count as growth. Otherwise it begins with the
    /// sink, at 0.
    has_failed: bool,
    has_left: bool,
}

impl Sink {
    fn take(&mut self, figures: Figures, now: u64) {
        self.chunks.note(self.now, figures, now);
        (self.now, self.has_left) = (figures, false);
        if figures.is_failing {
            // The link or the server was the cause: the backlog of that time must not count as growth later.
            self.history.clear();
            self.has_failed = true;
        }
    }

    /// Its totals this many samples ago.
    fn ago(&self, samples: usize) -> Figures {
        let known = self
            .history
            .len()
            .checked_sub(samples + 1)
            .and_then(|at| self.history.get(at));
        let oldest = self.history.front().filter(|_| self.has_failed);
        known.or(oldest).copied().unwrap_or_default()
    }
}

/// Detects shortages of one group by the rules of the module.
#[derive(Debug, Default)]
pub struct Watch {
    /// Sinks that have left stay for the longest window, because their chunks still count.
    sinks: BTreeMap<u64, Sink>,
    samples: VecDeque<Sample>,
    next: Sample,
    looked_at: Option<u64>,
    sampled_at: u64,
    short: Option<Limit>,
    /// When a shortage was last present, if one was reported.
    reported_at: Option<u64>,
}

/// State of the group when a sink reports.
#[derive(Clone, Copy, Debug, Default)]
pub struct Observation {
    /// Something waits for the limit of bytes, and of requests.
    pub waits: [bool; 2],
    /// Requests made so far.
    pub requests: u64,
    /// The limits of bytes and of requests, units per second.
    pub limits: [f64; 2],
}

impl Watch {
    /// Records the figures of a sink. Returns a shortage that the caller must report.
    pub fn note(&mut self, sink: u64, figures: Figures, observation: Observation, now: u64) -> Option<Shortage> {
        self.sinks.entry(sink).or_default().take(figures, now);
        // Every sink reports once a second: one check a second is enough.
        if self.looked_at.is_none_or(|at| now.saturating_sub(at) >= STEP / 10) {
            self.looked_at = Some(now);
            self.next.observations += 1;
            for (busy, waits) in self.next.busy.iter_mut().zip(observation.waits) {
                *busy += u32::from(waits);
            }
        }
        if now.saturating_sub(self.sampled_at) < STEP {
            return None;
        }
        self.sampled_at = now;
        self.sample(observation.requests);
        self.classify(observation.limits, now)
    }

    /// Notes that a sink has left; its totals still count.
    pub fn leaves(&mut self, sink: u64) {
        if let Some(sink) = self.sinks.get_mut(&sink) {
            sink.has_left = true;
        }
    }

    /// Discards all samples after the limits have changed: they were taken under other limits.
    pub fn forget(&mut self) {
        self.samples.clear();
        self.next = Sample::default();
        for sink in self.sinks.values_mut() {
            sink.history.clear();
            // As after a failure: growth before the change does not count.
            sink.has_failed = true;
        }
        self.short = None;
        self.reported_at = None;
    }

    /// Returns the limit that is too low now.
    pub fn short(&self) -> Option<Limit> {
        self.short
    }

    fn sample(&mut self, requests: u64) {
        let mut sample = std::mem::take(&mut self.next);
        sample.requests = requests;
        self.samples.push_back(sample);
        let kept = self.windows().last().map_or(SHORTEST, |&window| window) + 1;
        let surplus = self.samples.len().saturating_sub(kept);
        self.samples.drain(..surplus);
        // A failing sink has no history: its history begins with the recovery.
        for sink in self.sinks.values_mut().filter(|sink| !sink.now.is_failing) {
            sink.history.push_back(sink.now);
            let surplus = sink.history.len().saturating_sub(kept);
            sink.history.drain(..surplus);
        }
        // A sink that has left is forgotten once its totals are constant over the whole window.
        let is_constant = |sink: &Sink| sink.now.is_failing || sink.ago(kept - 1) == sink.now;
        self.sinks.retain(|_, sink| !(sink.has_left && is_constant(sink)));
    }

    /// The windows that are enough for one sink at least, in steps, the shortest first.
    fn windows(&self) -> BTreeSet<usize> {
        self.sinks.values().map(|sink| sink.chunks.window()).collect()
    }

    /// Totals of the sinks that do not fail and for which this window is enough, at each of its samples, the oldest first.
    fn totals(&self, window: usize) -> Vec<Figures> {
        let mut totals = vec![Figures::default(); window + 1];
        let is_counted = |sink: &&Sink| !sink.now.is_failing && sink.chunks.window() <= window;
        for sink in self.sinks.values().filter(is_counted) {
            for (all, samples) in totals.iter_mut().zip((0..=window).rev()) {
                let one = sink.ago(samples);
                all.created += one.created;
                all.stored += one.stored;
                all.received += one.received;
            }
        }
        totals
    }

    fn classify(&mut self, limits: [f64; 2], now: u64) -> Option<Shortage> {
        let found = self.find(limits);
        self.short = found.map(|f| f.limit);
        if found.is_none() {
            // A limit that is just too low causes shortages now and then: report them as one.
            if self.reported_at.is_some_and(|at| now.saturating_sub(at) >= REPORT_AGAIN) {
                self.reported_at = None;
            }
            return None;
        }
        let is_known = self.reported_at.replace(now).is_some();
        found.filter(|_| !is_known)
    }

    fn find(&self, limits: [f64; 2]) -> Option<Shortage> {
        // The shortest first: one sink with long chunks must not delay the report about the others.
        self.windows().into_iter().find_map(|window| self.find_over(window, limits))
    }

    /// Looks for a shortage over the last `window` steps.
    fn find_over(&self, window: usize, [bytes, requests]: [f64; 2]) -> Option<Shortage> {
        let within = self
            .samples
            .len()
            .checked_sub(window)
            .map(|from| self.samples.range(from..))?;
        // The sample before the window: the requests made within the window are a difference.
        let before = self
            .samples
            .len()
            .checked_sub(window + 1)
            .and_then(|at| self.samples.get(at))?;
        let observations: u32 = within.clone().map(|s| s.observations).sum();
        let is_busy = |which: usize| {
            let busy: u32 = within.clone().filter_map(|s| s.busy.get(which)).sum();
            observations > 0 && busy * 100 >= observations * BUSY
        };
        if !is_busy(0) && !is_busy(1) {
            return None;
        }
        let totals = self.totals(window);
        let backlog = |f: &Figures| f.created.saturating_sub(f.stored);
        // Compare the minima of both halves: single samples vary with each chunk.
        let low = totals.iter().take(window / 2).map(backlog).min()?;
        let high = totals.iter().rev().take(window / 2).map(backlog).min()?;
        if high <= low {
            return None;
        }
        let (first, last) = (totals.first()?, totals.last()?);
        let made = self.samples.back()?.requests.saturating_sub(before.requests);
        if is_busy(1) {
            let stored = last.stored.saturating_sub(first.stored);
            // Retries and looks are requests too, so a chunk may cost more than one.
            let each = (made as f64 / stored.max(1) as f64).max(1.0);
            let needed = per_second(&totals, |f| f.created) * each;
            return (needed > requests).then_some(Shortage {
                limit: Limit::Requests,
                needed,
            });
        }
        let needed = per_second(&totals, |f| f.received);
        (needed > bytes).then_some(Shortage {
            limit: Limit::Bytes,
            needed,
        })
    }
}

/// Returns by how much a total grows in a second, from its values one [`STEP`] apart. Returns the lower of two figures: the
/// growth from the first to the last value, and the growth between the means of both halves. Either alone may count a step too
/// many when a total grows in steps.
fn per_second(totals: &[Figures], total: impl Fn(&Figures) -> u64) -> f64 {
    let seconds = |steps: usize| (STEP / 1_000_000_000) as f64 * steps.max(1) as f64;
    let half = totals.len() / 2;
    let sum = |f: f64, figures: &Figures| f + total(figures) as f64;
    let early = totals.iter().take(half).fold(0.0, sum);
    let late = totals.iter().rev().take(half).fold(0.0, sum);
    let between_means = (late - early) / half.max(1) as f64 / seconds(totals.len() - half);
    let ends = totals.first().zip(totals.last());
    let from_end_to_end = ends.map_or(0, |(first, last)| total(last).saturating_sub(total(first))) as f64;
    between_means.min(from_end_to_end / seconds(totals.len().saturating_sub(1)))
}

#[cfg(test)]
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small numbers")]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    /// Sinks that each begin a chunk of 1000 bytes every `every` s, of which `rate` a second are stored. Records what was
    /// reported, and when.
    struct Run {
        watch: Watch,
        sinks: u64,
        every: u64,
        rate: f64,
        failing: bool,
        waits: [bool; 2],
        reported: Vec<(u64, Shortage)>,
        now: u64,
        stored: f64,
        limits: [f64; 2],
        /// The first chunk is this old at the start, s.
        phase: u64,
    }

    impl Run {
        fn new(sinks: u64, every: u64, rate: f64, waits: [bool; 2]) -> Self {
            Self {
                watch: Watch::default(),
                sinks,
                every,
                rate,
                failing: false,
                waits,
                reported: Vec::new(),
                now: 0,
                stored: 0.0,
                limits: [rate * 1000.0, rate],
                phase: 0,
            }
        }

        fn run(&mut self, seconds: u64) {
            for _ in 0..seconds {
                self.now += S;
                let second = self.now / S;
                let created = (second + self.phase) / self.every + 1;
                let closed = (created - 1) * self.sinks;
                self.stored = (self.stored + self.rate).min(closed as f64);
                for sink in 0..self.sinks {
                    let figures = Figures {
                        created,
                        // Spread over the sinks, each of which counts whole chunks.
                        stored: (self.stored as u64 + sink) / self.sinks,
                        received: second * 1000 / self.every,
                        is_failing: self.failing,
                    };
                    let observation = Observation {
                        waits: self.waits,
                        requests: self.stored as u64,
                        limits: self.limits,
                    };
                    self.reported
                        .extend(self.watch.note(sink, figures, observation, self.now).map(|t| (second, t)));
                }
            }
        }
    }

    #[test]
    fn three_hundred_cameras_behind_ten_requests_a_second_are_reported_within_a_minute_and_a_bit_with_what_they_need() {
        let mut run = Run::new(300, 10, 10.0, [false, true]);
        run.run(3600);
        let [(at, reported)] = run.reported[..] else {
            panic!("{:?}", run.reported)
        };
        assert!((60..=90).contains(&at), "{at}");
        assert_eq!(reported.limit, Limit::Requests);
        assert!((27.0..=33.0).contains(&reported.needed), "{reported:?}");
        assert_eq!(run.watch.short(), Some(Limit::Requests));
    }

    #[test]
    fn too_few_bytes_a_second_are_reported_with_what_comes_in() {
        let mut run = Run::new(4, 2, 1.0, [true, false]);
        run.run(120);
        let [(_, reported)] = run.reported[..] else {
            panic!("{:?}", run.reported)
        };
        assert_eq!(reported.limit, Limit::Bytes);
        assert!((1900.0..=2100.0).contains(&reported.needed), "{reported:?}");
    }

    #[test]
    fn a_slow_link_an_outage_and_a_limit_that_is_just_used_are_not_reported() {
        let mut link = Run::new(10, 10, 0.5, [false, false]);
        let mut outage = Run::new(10, 10, 0.0, [false, true]);
        outage.failing = true;
        let mut enough = Run::new(10, 10, 1.0, [false, true]);
        for run in [&mut link, &mut outage, &mut enough] {
            run.run(1200);
            assert!(run.reported.is_empty() && run.watch.short().is_none(), "{:?}", run.reported);
        }
    }

    #[test]
    fn the_backlog_of_an_outage_that_is_being_stored_is_no_limit_that_is_too_low() {
        // 20 cameras with chunks of 10 s; 10 with chunks of 2 s; each with room to spare at 10 requests a second.
        for (sinks, every, outage) in [(20, 10, 300), (20, 10, 3600), (10, 2, 120), (1, 1, 600)] {
            let mut run = Run::new(sinks, every, 10.0, [false, false]);
            run.run(100);
            (run.rate, run.failing, run.waits) = (0.0, true, [false, true]);
            run.run(outage);
            (run.rate, run.failing) = (10.0, false);
            run.run(900);
            assert!(
                run.reported.is_empty() && run.watch.short().is_none(),
                "{sinks} {every}: {:?}",
                run.reported
            );
        }
    }

    #[test]
    fn a_limit_that_is_too_low_is_reported_though_uploads_fail_now_and_then() {
        let mut run = Run::new(300, 10, 10.0, [false, true]);
        for _ in 0..60 {
            run.run(50);
            run.failing = true;
            run.run(2);
            run.failing = false;
        }
        assert_eq!(run.reported.len(), 1, "{:?}", run.reported);
    }

    #[test]
    fn it_is_over_when_the_backlog_shrinks_and_news_again_after_ten_minutes_or_with_other_limits() {
        let mut run = Run::new(30, 1, 10.0, [false, true]);
        run.run(200);
        run.rate = 100.0;
        run.run(300);
        assert_eq!((run.reported.len(), run.watch.short()), (1, None));
        run.rate = 10.0;
        run.run(300);
        assert_eq!((run.reported.len(), run.watch.short()), (1, Some(Limit::Requests)), "known");
        run.rate = 1000.0;
        run.run(900);
        run.rate = 10.0;
        run.run(200);
        assert_eq!(run.reported.len(), 2);
        run.watch.forget();
        run.run(200);
        assert_eq!(run.reported.len(), 3);
    }

    /// One camera whose chunks of `length` s take `upload` s at the limit of bytes.
    fn long_chunks(length: u64, upload: u64, phase: u64) -> Watch {
        let mut watch = Watch::default();
        for second in 1..=10 * length {
            let at = second + phase;
            let (closed, since) = (at / length, at % length);
            let is_sending = closed > 0 && since < upload;
            let figures = Figures {
                created: closed + 1,
                stored: closed - u64::from(is_sending),
                received: at * 500_000,
                is_failing: false,
            };
            let observation = Observation {
                waits: [is_sending, false],
                requests: closed,
                limits: [500_000.0 * length as f64 / upload as f64, 10.0],
            };
            let reported = watch.note(0, figures, observation, second * S);
            assert!(reported.is_none() && watch.short().is_none(), "{length} {upload}: {phase}");
        }
        watch
    }

    #[test]
    fn long_chunks_that_a_limit_lets_through_in_time_are_no_shortage_at_any_phase() {
        for (length, upload) in [
            (120, 60),
            (120, 80),
            (120, 115),
            (300, 70),
            (300, 150),
            (600, 240),
            (61, 60),
            (3600, 1800),
        ] {
            for phase in (0..length).step_by(if length > 600 { 97 } else { 1 }) {
                long_chunks(length, upload, phase);
            }
        }
    }

    #[test]
    fn six_hundred_cameras_that_cut_together_every_five_minutes_need_two_requests_a_second_and_are_not_reported() {
        for phase in (0..300).step_by(7) {
            let mut run = Run::new(600, 300, 10.0, [false, false]);
            run.phase = phase;
            for _ in 0..1500 {
                let closed = ((run.now / S + 1 + phase) / 300 - phase / 300) * 600;
                run.waits = [false, run.stored < closed as f64];
                run.run(1);
                assert!(
                    run.reported.is_empty() && run.watch.short().is_none(),
                    "{phase}: {:?}",
                    run.reported
                );
            }
        }
    }

    #[test]
    fn a_limit_that_is_too_low_for_long_chunks_is_reported_after_two_to_four_of_them() {
        // 600 cameras with chunks of 40 s take 15 requests a second; one with chunks of 5 minutes takes 2000 bytes a second.
        for (sinks, every, rate, waits, needed) in [(600, 40, 10.0, [false, true], 15.0), (600, 300, 1.0, [true, false], 2000.0)]
        {
            let mut run = Run::new(sinks, every, rate, waits);
            run.run(5 * every);
            let [(at, reported)] = run.reported[..] else {
                panic!("{:?}", run.reported)
            };
            assert!((2 * every..=4 * every + 20).contains(&at), "{at}");
            assert!((needed * 0.8..=needed * 1.2).contains(&reported.needed), "{reported:?}");
        }
    }

    #[test]
    fn one_camera_with_long_chunks_does_not_delay_the_word_about_the_others() {
        let mut watch = Watch::default();
        let reported = (1..=100u64).find(|second| {
            let reported: Vec<_> = (0..=300u64)
                .filter_map(|sink| {
                    let figures = Figures {
                        created: if sink == 0 { 1 } else { second / 10 + 1 },
                        stored: if sink == 0 { 0 } else { second / 30 },
                        received: second * 100,
                        is_failing: false,
                    };
                    let observation = Observation {
                        waits: [false, true],
                        requests: second * 10,
                        limits: [20e6, 10.0],
                    };
                    watch.note(sink, figures, observation, second * S)
                })
                .collect();
            !reported.is_empty()
        });
        assert!(reported.is_some_and(|at| at <= 90), "{reported:?}");
    }

    #[test]
    fn a_sink_that_leaves_takes_no_backlog_with_it() {
        let mut watch = Watch::default();
        let figures = |created, stored| Figures {
            created,
            stored,
            ..Figures::default()
        };
        let observation = Observation {
            waits: [false, true],
            requests: 0,
            limits: [20e6, 10.0],
        };
        for second in 1..=300 {
            // Each fragment has its own sink, with one chunk that is stored when the next begins.
            watch.leaves(second - 1);
            let reported = watch.note(second, figures(1, 1), observation, second * S);
            assert!(reported.is_none(), "{second}");
        }
    }
}
