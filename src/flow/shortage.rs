//! Detects that one of a flow group's two limits is too low for what its sinks receive; to the user it looks like a slow link.
//!
//! PURE: time is an argument, ns on any monotonic scale. Each sink reports its figures once a second. A limit is too low if, over
//! a minute, something waited for it nearly all the time, more chunks began than were stored, and no upload failed. What a sink
//! received while it failed does not count: the cause was the link or the server, and its backlog is no growth when it recovers.

use std::collections::{BTreeMap, VecDeque};

/// Between two samples, ns.
const STEP: u64 = 10_000_000_000;
/// Samples that cover a minute.
const SAMPLES: usize = 7;
/// Samples at each end whose lowest backlog is compared: a single sample varies with each chunk.
const ENDS: usize = 3;
/// Share of the checks at which something waited for a limit, in percent.
const BUSY: u32 = 90;
/// After this time without a shortage the next one is reported again, ns.
const NEWS: u64 = 600_000_000_000;

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
    looks: u32,
    busy: [u32; 2],
}

/// One sink over the last minute.
#[derive(Debug, Default)]
struct Sink {
    now: Figures,
    /// Totals at the last samples of the group, the oldest first.
    history: VecDeque<Figures>,
    /// Its history begins at a recovery: what came before is no growth. Else it begins with the sink, at 0.
    has_failed: bool,
    has_left: bool,
}

impl Sink {
    fn take(&mut self, figures: Figures) {
        (self.now, self.has_left) = (figures, false);
        if figures.is_failing {
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

/// Detects shortages of one group, see the module.
#[derive(Debug, Default)]
pub struct Watch {
    /// Sinks that have left stay for a minute: their chunks count.
    sinks: BTreeMap<u64, Sink>,
    samples: VecDeque<Sample>,
    next: Sample,
    looked_at: Option<u64>,
    sampled_at: u64,
    short: Option<Limit>,
    /// When a shortage was last present, if one was reported.
    told_at: Option<u64>,
}

/// State of the group when a sink reports.
#[derive(Clone, Copy, Debug, Default)]
pub struct Look {
    /// Something waits for the limit of bytes, and of requests.
    pub waits: [bool; 2],
    /// Requests made so far.
    pub requests: u64,
}

impl Watch {
    /// Records the figures of a sink. Returns a shortage that the caller must report.
    pub fn note(&mut self, sink: u64, figures: Figures, look: Look, now: u64) -> Option<Shortage> {
        self.sinks.entry(sink).or_default().take(figures);
        // Every sink reports once a second: one check a second is enough.
        if self.looked_at.is_none_or(|at| now.saturating_sub(at) >= STEP / 10) {
            self.looked_at = Some(now);
            self.next.looks += 1;
            for (busy, waits) in self.next.busy.iter_mut().zip(look.waits) {
                *busy += u32::from(waits);
            }
        }
        if now.saturating_sub(self.sampled_at) < STEP {
            return None;
        }
        self.sampled_at = now;
        self.sample(look.requests);
        self.judge(now)
    }

    /// Notes that a sink reports no more; its totals still count.
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
            sink.has_failed = true;
        }
        self.short = None;
        self.told_at = None;
    }

    /// Returns the limit that is too low now.
    pub fn short(&self) -> Option<Limit> {
        self.short
    }

    fn sample(&mut self, requests: u64) {
        let mut sample = std::mem::take(&mut self.next);
        sample.requests = requests;
        self.samples.push_back(sample);
        if self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
        for sink in self.sinks.values_mut().filter(|sink| !sink.now.is_failing) {
            sink.history.push_back(sink.now);
            if sink.history.len() > SAMPLES {
                sink.history.pop_front();
            }
        }
        // Constant for the whole minute.
        let is_constant = |sink: &Sink| sink.now.is_failing || sink.ago(SAMPLES - 1) == sink.now;
        self.sinks.retain(|_, sink| !(sink.has_left && is_constant(sink)));
    }

    /// Totals of the sinks that do not fail, this many samples ago.
    fn ago(&self, samples: usize) -> Figures {
        let sinks = self.sinks.values().filter(|sink| !sink.now.is_failing);
        sinks.fold(Figures::default(), |mut all, sink| {
            let one = sink.ago(samples);
            all.created += one.created;
            all.stored += one.stored;
            all.received += one.received;
            all
        })
    }

    fn judge(&mut self, now: u64) -> Option<Shortage> {
        let found = self.find();
        self.short = found.map(|f| f.limit);
        if found.is_none() {
            if self.told_at.is_some_and(|at| now.saturating_sub(at) >= NEWS) {
                self.told_at = None;
            }
            return None;
        }
        let is_known = self.told_at.replace(now).is_some();
        found.filter(|_| !is_known)
    }

    fn find(&self) -> Option<Shortage> {
        if self.samples.len() < SAMPLES {
            return None;
        }
        let totals: Vec<Figures> = (0..SAMPLES).rev().map(|samples| self.ago(samples)).collect();
        let backlog = |f: &Figures| f.created.saturating_sub(f.stored);
        let before = totals.iter().take(ENDS).map(backlog).min()?;
        let after = totals.iter().rev().take(ENDS).map(backlog).min()?;
        if after <= before {
            return None;
        }
        let (first, last) = (totals.first()?, totals.last()?);
        let requests = self.samples.back()?.requests.saturating_sub(self.samples.front()?.requests);
        let within = self.samples.iter().skip(1);
        let looks: u32 = within.clone().map(|s| s.looks).sum();
        let is_busy = |which: usize| {
            let busy: u32 = within.clone().filter_map(|s| s.busy.get(which)).sum();
            looks > 0 && busy * 100 >= looks * BUSY
        };
        let seconds = (STEP / 1_000_000_000 * (SAMPLES as u64 - 1)) as f64;
        if is_busy(1) {
            let created = last.created.saturating_sub(first.created);
            let stored = last.stored.saturating_sub(first.stored);
            let each = requests as f64 / stored.max(1) as f64;
            return Some(Shortage {
                limit: Limit::Requests,
                needed: created as f64 / seconds * each.max(1.0),
            });
        }
        is_busy(0).then(|| Shortage {
            limit: Limit::Bytes,
            needed: last.received.saturating_sub(first.received) as f64 / seconds,
        })
    }
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
        told: Vec<(u64, Shortage)>,
        now: u64,
        stored: f64,
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
                told: Vec::new(),
                now: 0,
                stored: 0.0,
            }
        }

        fn run(&mut self, seconds: u64) {
            for _ in 0..seconds {
                self.now += S;
                let second = self.now / S;
                let created = second / self.every + 1;
                let closed = (created - 1) * self.sinks;
                self.stored = (self.stored + self.rate).min(closed as f64);
                for sink in 0..self.sinks {
                    let figures = Figures {
                        created,
                        stored: (self.stored / self.sinks as f64) as u64,
                        received: second * 1000 / self.every,
                        is_failing: self.failing,
                    };
                    let look = Look {
                        waits: self.waits,
                        requests: self.stored as u64,
                    };
                    self.told
                        .extend(self.watch.note(sink, figures, look, self.now).map(|t| (second, t)));
                }
            }
        }
    }

    #[test]
    fn three_hundred_cameras_behind_ten_requests_a_second_are_told_within_a_minute_and_a_bit_with_what_they_need() {
        let mut run = Run::new(300, 10, 10.0, [false, true]);
        run.run(3600);
        let [(at, told)] = run.told[..] else {
            panic!("{:?}", run.told)
        };
        assert!((60..=90).contains(&at), "{at}");
        assert_eq!(told.limit, Limit::Requests);
        assert!((27.0..=33.0).contains(&told.needed), "{told:?}");
        assert_eq!(run.watch.short(), Some(Limit::Requests));
    }

    #[test]
    fn too_few_bytes_a_second_are_told_with_what_comes_in() {
        let mut run = Run::new(4, 2, 1.0, [true, false]);
        run.run(120);
        let [(_, told)] = run.told[..] else { panic!("{:?}", run.told) };
        assert_eq!(told.limit, Limit::Bytes);
        assert!((1900.0..=2100.0).contains(&told.needed), "{told:?}");
    }

    #[test]
    fn a_slow_link_an_outage_and_a_limit_that_is_just_used_are_not_told() {
        let mut link = Run::new(10, 10, 0.5, [false, false]);
        let mut outage = Run::new(10, 10, 0.0, [false, true]);
        outage.failing = true;
        let mut enough = Run::new(10, 10, 1.0, [false, true]);
        for run in [&mut link, &mut outage, &mut enough] {
            run.run(1200);
            assert!(run.told.is_empty() && run.watch.short().is_none(), "{:?}", run.told);
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
                run.told.is_empty() && run.watch.short().is_none(),
                "{sinks} {every}: {:?}",
                run.told
            );
        }
    }

    #[test]
    fn a_limit_that_is_too_low_is_told_though_uploads_fail_now_and_then() {
        let mut run = Run::new(300, 10, 10.0, [false, true]);
        for _ in 0..60 {
            run.run(50);
            run.failing = true;
            run.run(2);
            run.failing = false;
        }
        assert_eq!(run.told.len(), 1, "{:?}", run.told);
    }

    #[test]
    fn it_is_over_when_the_backlog_shrinks_and_news_again_after_ten_minutes_or_with_other_limits() {
        let mut run = Run::new(30, 1, 10.0, [false, true]);
        run.run(200);
        run.rate = 100.0;
        run.run(300);
        assert_eq!((run.told.len(), run.watch.short()), (1, None));
        run.rate = 10.0;
        run.run(300);
        assert_eq!((run.told.len(), run.watch.short()), (1, Some(Limit::Requests)), "known");
        run.rate = 1000.0;
        run.run(900);
        run.rate = 10.0;
        run.run(200);
        assert_eq!(run.told.len(), 2);
        run.watch.forget();
        run.run(200);
        assert_eq!(run.told.len(), 3);
    }

    #[test]
    fn a_sink_that_leaves_takes_no_backlog_with_it() {
        let mut watch = Watch::default();
        let figures = |created, stored| Figures {
            created,
            stored,
            ..Figures::default()
        };
        let look = Look {
            waits: [false, true],
            requests: 0,
        };
        for second in 1..=300 {
            // Each fragment has its own sink, with one chunk that is stored when the next begins.
            watch.leaves(second - 1);
            let told = watch.note(second, figures(1, 1), look, second * S);
            assert!(told.is_none(), "{second}");
        }
    }
}
