//! A fleet on virtual time: the recorder's own decisions, and a model of what is around them.
//!
//! Real: shares ([`shard`]), the spread of starts and first cuts ([`spread`]), [`Supervisor`] with its pauses, the upload [`Scheduler`] of each sink,
//! the request limit of a process ([`Bucket`]). Modelled: cameras and their key frames, latencies, and the bucket's ramp-up.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::time::Duration;

use gcstreamer_recorder::camera::state::Failure;
use gcstreamer_recorder::camera::supervisor::{Action, Attempt, Event, Limits, Supervisor};
use gcstreamer_recorder::{shard, spread};
use gcstreamer_storage::Class;
use gstgcstreamer::flow::bucket::Bucket;
use gstgcstreamer::upload::scheduler::{Outcome, Scheduler};
use gstgcstreamer::upload::ticket::Ticket;

const MS: u64 = 1_000_000;
const SECOND: u64 = 1000 * MS;
pub(crate) const CAMERAS_PER_POD: usize = 40;
/// Default of `max-uploads`.
const UPLOADS: usize = 4;
/// A camera answers within this time.
const LONGEST_ANSWER: u64 = 800 * MS;
/// Key frame interval.
const KEY_INTERVAL: u64 = 2 * SECOND;
/// How long the kernel tries to connect to an address that does not answer.
const NO_ANSWER: u64 = 3 * SECOND;
const STORED: u64 = 200 * MS;
const REFUSED: u64 = 50 * MS;
const NO_UPLINK: u64 = 5 * SECOND;

/// What happens to a fleet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    pub(crate) cameras: usize,
    /// `max-size-time`.
    pub(crate) chunk: Duration,
    /// The last camera has booted after this long, the first after a third of it.
    pub(crate) boot: Duration,
    /// There is no uplink before.
    pub(crate) uplink_at: Duration,
    /// `max-requests-per-second`; `None`: its default.
    pub(crate) limit: Option<f64>,
    pub(crate) length: Duration,
}

/// The results. A peak is the maximum in one second.
#[derive(Clone, Debug)]
pub(crate) struct Figures {
    pub(crate) pods: usize,
    pub(crate) peak_connections: u64,
    pub(crate) peak_connections_of_a_pod: u64,
    /// When each camera had its first picture.
    pub(crate) all_recording: Duration,
    pub(crate) peak_requests: u64,
    pub(crate) refused: u64,
    /// The same in the time of the last three chunks.
    pub(crate) settled_peak_requests: u64,
    pub(crate) settled_requests: u64,
    pub(crate) settled_refused: u64,
    /// Chunks stored, on average of that time, a second.
    pub(crate) settled_stored: f64,
    /// When no camera had more than two chunks waiting any more.
    pub(crate) backlog_gone: Duration,
}

impl Figures {
    /// Of the requests of the last three chunks' time, in per cent.
    pub(crate) fn settled_share_refused(&self) -> f64 {
        100.0 * self.settled_refused as f64 / self.settled_requests.max(1) as f64
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    Stored,
    TooMany,
    NoUplink,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Wake,
    Opened(Attempt),
    KeyFrame(Attempt),
    NoAnswer(Attempt),
    Cut,
    Pump,
    Leaves(Ticket),
    Answered(Ticket, Answer),
}

struct Camera {
    pod: usize,
    boots_at: u64,
    /// From its first picture to its second chunk.
    first_cut: u64,
    supervisor: Supervisor,
    /// Its stream plays, with the number of the attempt.
    plays: Option<Attempt>,
    first_picture: Option<u64>,
    scheduler: Scheduler,
    sequence: u64,
    /// Uploads that wait for this sink's turn at the request limit; the first one has it.
    turn: VecDeque<Ticket>,
    is_late: bool,
}

struct Pod {
    requests: Bucket,
    connections: PerSecond,
}

/// Counts by second.
#[derive(Default)]
struct PerSecond(Vec<u64>);

impl PerSecond {
    fn count(&mut self, now: u64) -> u64 {
        let second = usize::try_from(now / SECOND).unwrap();
        self.0.resize(self.0.len().max(second + 1), 0);
        self.0[second] += 1;
        self.0[second]
    }

    fn since(&self, from: Duration) -> &[u64] {
        let from = usize::try_from(from.as_secs()).unwrap();
        self.0.get(from..).unwrap_or_default()
    }

    fn peak(&self) -> u64 {
        self.0.iter().copied().max().unwrap_or(0)
    }
}

/// The ramp-up rule: 1,000 object writes a second, doubled every 20 minutes.
fn capacity(now: u64) -> u64 {
    1000 << (now / (1200 * SECOND)).min(20)
}

fn ns(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap()
}

/// SplitMix64.
fn chance(seed: &mut u64, below: u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (z ^ (z >> 31)) % below.max(1)
}

pub(crate) struct World {
    scenario: Scenario,
    now: u64,
    order: u64,
    events: BinaryHeap<Reverse<(u64, u64, usize, What)>>,
    cameras: Vec<Camera>,
    pods: Vec<Pod>,
    connections: PerSecond,
    requests: PerSecond,
    accepted: PerSecond,
    refused: PerSecond,
    late: usize,
    backlog_gone: u64,
    seed: u64,
}

impl World {
    pub(crate) fn new(scenario: Scenario) -> Self {
        let pods = scenario.cameras.div_ceil(CAMERAS_PER_POD);
        let mut world = Self {
            scenario,
            now: 0,
            order: 0,
            events: BinaryHeap::new(),
            cameras: Vec::with_capacity(scenario.cameras),
            pods: Vec::with_capacity(pods),
            connections: PerSecond::default(),
            requests: PerSecond::default(),
            accepted: PerSecond::default(),
            refused: PerSecond::default(),
            late: 0,
            backlog_gone: 0,
            seed: 1,
        };
        world.begin(pods);
        world
    }

    fn begin(&mut self, pods: usize) {
        let pod_of = |id: &str| usize::try_from(shard::pod_of(id, u32::try_from(pods).unwrap())).unwrap();
        let ids = (0..self.scenario.cameras).map(|i| format!("store{}/cam{}", i / 8, i % 8));
        let mut shares = vec![Vec::new(); pods];
        ids.for_each(|id| shares[pod_of(&id)].push(id));
        for (pod, ids) in shares.iter().enumerate() {
            let default = (2.0 * ids.len() as f64 / self.scenario.chunk.as_secs_f64()).max(10.0);
            self.pods.push(Pod {
                requests: Bucket::new(self.scenario.limit.unwrap_or(default)),
                connections: PerSecond::default(),
            });
            for (index, id) in ids.iter().enumerate() {
                self.add(pod, id, spread::delay(index, ids.len()));
            }
        }
    }

    fn add(&mut self, pod: usize, id: &str, start: Duration) {
        let limits = Limits {
            stall_timeout: Duration::from_secs(10),
            first_picture: Duration::from_secs(2),
            max_size_time: self.scenario.chunk,
        };
        let boot = ns(self.scenario.boot);
        let boots_at = boot / 3 + chance(&mut self.seed, boot - boot / 3);
        let seeds = [chance(&mut self.seed, u64::MAX), chance(&mut self.seed, u64::MAX)];
        // At the next key frame.
        let first_cut = ns(spread::first_cut(id, self.scenario.chunk)).next_multiple_of(KEY_INTERVAL);
        self.cameras.push(Camera {
            pod,
            boots_at: if boot == 0 { 0 } else { boots_at },
            first_cut: first_cut.max(KEY_INTERVAL),
            supervisor: Supervisor::new(limits, Duration::ZERO, start, seeds[0]),
            plays: None,
            first_picture: None,
            scheduler: Scheduler::new(UPLOADS, seeds[1]),
            sequence: 0,
            turn: VecDeque::new(),
            is_late: false,
        });
        self.at(ns(start), self.cameras.len() - 1, What::Wake);
    }

    fn at(&mut self, time: u64, camera: usize, what: What) {
        self.order += 1;
        self.events.push(Reverse((time, self.order, camera, what)));
    }

    pub(crate) fn run(mut self) -> Figures {
        while let Some(Reverse((time, _, camera, what))) = self.events.pop() {
            if time >= ns(self.scenario.length) {
                break;
            }
            self.now = time;
            self.happen(camera, what);
        }
        self.figures()
    }

    fn happen(&mut self, camera: usize, what: What) {
        match what {
            What::Wake => self.wake(camera),
            What::Opened(attempt) => {
                self.cameras[camera].plays = Some(attempt);
                self.tell(camera, Event::Opened(attempt));
                let first = self.now + chance(&mut self.seed, KEY_INTERVAL);
                self.at(first, camera, What::KeyFrame(attempt));
            }
            What::KeyFrame(attempt) => {
                self.tell(camera, Event::Pictures { attempt, key: true });
                if self.cameras[camera].first_picture.replace(self.now).is_none() {
                    self.at(self.now + self.cameras[camera].first_cut, camera, What::Cut);
                }
            }
            What::NoAnswer(attempt) => {
                self.tell(
                    camera,
                    Event::Failed(attempt, Failure::Unreachable("no route to host".to_owned())),
                );
            }
            What::Cut => self.cut(camera),
            What::Pump => self.pump(camera),
            What::Leaves(ticket) => self.leaves(camera, ticket),
            What::Answered(ticket, answer) => self.answered(camera, ticket, answer),
        }
    }

    // The camera.

    fn wake(&mut self, camera: usize) {
        if let Some(attempt) = self.cameras[camera].plays {
            // Pictures come all the time.
            return self.tell(camera, Event::Pictures { attempt, key: true });
        }
        let actions = self.cameras[camera].supervisor.poll(Duration::from_nanos(self.now));
        self.act(camera, actions);
    }

    fn tell(&mut self, camera: usize, event: Event) {
        let actions = self.cameras[camera]
            .supervisor
            .on_event(Duration::from_nanos(self.now), event);
        self.act(camera, actions);
    }

    fn act(&mut self, camera: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Begin { attempt, .. } => self.connect(camera, attempt),
                Action::End(attempt) => self.tell(camera, Event::Gone(attempt)),
            }
        }
        // While a stream plays, only the watchdog would wake the supervisor, and pictures arrive.
        if self.cameras[camera].plays.is_none()
            && let Some(wake) = self.cameras[camera].supervisor.wake_at()
        {
            self.at(ns(wake).max(self.now + 1), camera, What::Wake);
        }
    }

    fn connect(&mut self, camera: usize, attempt: Attempt) {
        self.connections.count(self.now);
        let Camera { pod, boots_at, .. } = self.cameras[camera];
        self.pods[pod].connections.count(self.now);
        if boots_at > self.now {
            self.at(self.now + NO_ANSWER, camera, What::NoAnswer(attempt));
        } else {
            let answer = self.now + LONGEST_ANSWER / 4 + chance(&mut self.seed, LONGEST_ANSWER * 3 / 4);
            self.at(answer, camera, What::Opened(attempt));
        }
    }

    // Its chunks.

    fn cut(&mut self, camera: usize) {
        let now = self.now;
        let at = &mut self.cameras[camera];
        at.scheduler.queue(Ticket::own(at.sequence), None, now);
        at.sequence += 1;
        self.look_at_backlog(camera);
        self.at(now + ns(self.scenario.chunk), camera, What::Cut);
        self.pump(camera);
    }

    fn look_at_backlog(&mut self, camera: usize) {
        let is_late = self.cameras[camera].scheduler.pending() > 2;
        let was_late = std::mem::replace(&mut self.cameras[camera].is_late, is_late);
        self.late = self.late + usize::from(is_late) - usize::from(was_late);
        if self.late > 0 {
            self.backlog_gone = self.now;
        }
    }

    fn pump(&mut self, camera: usize) {
        let now = self.now;
        while let Some(ticket) = self.cameras[camera].scheduler.next(now) {
            self.cameras[camera].turn.push_back(ticket);
            if self.cameras[camera].turn.len() == 1 {
                self.take_turn(camera);
            }
        }
        if let Some(wake) = self.cameras[camera].scheduler.wake_at(now).filter(|wake| *wake > now) {
            self.at(wake, camera, What::Pump);
        }
    }

    /// The first upload of the turn asks for the request limit of its pod.
    fn take_turn(&mut self, camera: usize) {
        if let Some(ticket) = self.cameras[camera].turn.front().copied() {
            let pod = &mut self.pods[self.cameras[camera].pod];
            let leaves = pod.requests.take(1.0, self.now);
            self.at(leaves, camera, What::Leaves(ticket));
        }
    }

    fn leaves(&mut self, camera: usize, ticket: Ticket) {
        let now = self.now;
        self.cameras[camera].turn.pop_front();
        self.take_turn(camera);
        if now < ns(self.scenario.uplink_at) {
            return self.at(now + NO_UPLINK, camera, What::Answered(ticket, Answer::NoUplink));
        }
        self.requests.count(now);
        let since_uplink = now - ns(self.scenario.uplink_at);
        let second = usize::try_from(now / SECOND).unwrap();
        if self.accepted.0.get(second).copied().unwrap_or(0) < capacity(since_uplink) {
            self.accepted.count(now);
            self.at(now + STORED, camera, What::Answered(ticket, Answer::Stored));
        } else {
            self.refused.count(now);
            self.at(now + REFUSED, camera, What::Answered(ticket, Answer::TooMany));
        }
    }

    fn answered(&mut self, camera: usize, ticket: Ticket, answer: Answer) {
        let failed = |class| Outcome::Failed {
            class,
            retry_after: None,
        };
        let outcome = match answer {
            Answer::Stored => Outcome::Stored,
            Answer::TooMany => failed(Class::Throttled),
            Answer::NoUplink => failed(Class::Transient),
        };
        self.cameras[camera].scheduler.done(ticket, outcome, self.now);
        self.look_at_backlog(camera);
        self.pump(camera);
    }

    fn figures(&self) -> Figures {
        let settled = self.scenario.length - 3 * self.scenario.chunk;
        let first = |camera: &Camera| camera.first_picture;
        let all_recording = self
            .cameras
            .iter()
            .map(|camera| first(camera).expect("every camera records"))
            .max();
        let stored: u64 = self.accepted.since(settled).iter().sum();
        Figures {
            pods: self.pods.len(),
            peak_connections: self.connections.peak(),
            peak_connections_of_a_pod: self.pods.iter().map(|pod| pod.connections.peak()).max().unwrap_or(0),
            all_recording: Duration::from_nanos(all_recording.unwrap_or(0)),
            peak_requests: self.requests.peak(),
            refused: self.refused.0.iter().sum(),
            settled_peak_requests: self.requests.since(settled).iter().copied().max().unwrap_or(0),
            settled_requests: self.requests.since(settled).iter().sum(),
            settled_refused: self.refused.since(settled).iter().sum(),
            settled_stored: stored as f64 / (3.0 * self.scenario.chunk.as_secs_f64()),
            backlog_gone: Duration::from_nanos(self.backlog_gone).saturating_sub(self.scenario.uplink_at),
        }
    }
}
