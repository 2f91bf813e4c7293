//! All cameras: a task for each, begun, changed and ended as the configuration says.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::task::JoinSet;

use crate::camera::ending::Deadline;
use crate::camera::report::{Board, Report};
use crate::camera::runner::{self, Job, Leaves, Order};
use crate::camera::sink::Storage;
use crate::camera::state::State;
use crate::camera::supervisor;
use crate::config::{Address, Broker, Camera, Config};
use crate::leftovers::Leftovers;
use crate::presence::Presence;
use crate::{memory, shard, spread};

/// The end: without a spool chunks are uploaded for this long, else only what is on its way.
const UPLOAD: Duration = Duration::from_secs(20);
const UPLOAD_SPOOLED: Duration = Duration::from_secs(4);
/// Further time for the pipelines to end.
const END: Duration = Duration::from_secs(8);
/// A connection to the same camera is waited for this long, which is less than a camera's task may be silent.
const LEAVE: Duration = Duration::from_secs(5);
/// Reason of a camera that is not to be recorded.
const DISABLED: &str = "enabled = false";

/// A camera that runs.
struct Running {
    camera: Camera,
    storage: Arc<Storage>,
    memory: u64,
    orders: UnboundedSender<Order>,
    /// Closed when its connection is.
    done: oneshot::Receiver<()>,
}

/// A camera that was ordered to end.
struct Leaving {
    address: Address,
    done: oneshot::Receiver<()>,
}

/// The cameras of this process, and what they share.
pub struct Fleet {
    /// Reports of all cameras.
    pub board: Arc<Board>,
    deadline: Arc<Deadline>,
    storage: Arc<Storage>,
    host: String,
    running: BTreeMap<String, Running>,
    leaving: Vec<Leaving>,
    tasks: JoinSet<()>,
    leftovers: Option<Leftovers>,
    /// Repeated uploads of leftovers at places that are not used any more.
    past_retries: u64,
    presence: Option<Presence>,
    broker: Option<Broker>,
}

/// The cameras of this process.
fn ours<'c>(config: &'c Config, host: &str) -> Result<Vec<&'c Camera>, String> {
    let Some(shard) = config.shard else {
        return Ok(config.cameras.iter().collect());
    };
    let Some(ordinal) = shard::ordinal(host) else {
        return Err(format!(
            "[shard] needs a host name that ends in the number of this process, such as recorder-0; this host is {host}"
        ));
    };
    if ordinal >= shard.pods {
        return Err(format!(
            "[shard] has pods = {}, numbered from 0, and this host is {host}: raise pods, or start fewer processes",
            shard.pods
        ));
    }
    Ok(config.cameras.iter().filter(|camera| config.is_ours(camera, host)).collect())
}

/// Whether a recording need not start again.
fn is_recorded_alike(before: &Camera, after: &Camera) -> bool {
    let same = Camera {
        name: before.name.clone(),
        time_zone: before.time_zone.clone(),
        ..after.clone()
    };
    *before == same
}

impl Fleet {
    /// Starts every camera of the configuration that is this process's.
    ///
    /// # Errors
    /// The host name says nothing of this process's share.
    pub fn begin(config: &Config, host: &str) -> Result<Self, String> {
        let storage = Arc::new(Storage::of(config, host));
        ours(config, host)?;
        let mut presence = None;
        Presence::replace(&mut presence, config, host)?;
        let board = Arc::default();
        let mut fleet = Self {
            deadline: Arc::default(),
            leftovers: Leftovers::begin(&storage, &board),
            board,
            past_retries: 0,
            storage,
            host: host.to_owned(),
            running: BTreeMap::new(),
            leaving: Vec::new(),
            tasks: JoinSet::new(),
            presence,
            broker: config.broker.clone(),
        };
        fleet.apply(config)?;
        Ok(fleet)
    }

    /// Makes what runs what the configuration says: only what has changed starts again.
    ///
    /// # Errors
    /// The host name says nothing of this process's share; nothing was changed then.
    pub fn apply(&mut self, config: &Config) -> Result<(), String> {
        let cameras = ours(config, &self.host)?;
        let storage = Storage::of(config, &self.host);
        if config.broker != self.broker || storage.availability != self.storage.availability {
            Presence::replace(&mut self.presence, config, &self.host)?;
            self.broker.clone_from(&config.broker);
        }
        let is_moved = !storage.is_same_place(&self.storage);
        self.storage = Arc::new(storage);
        if is_moved {
            if let Some(leftovers) = self.leftovers.take() {
                self.past_retries += leftovers.retries();
                // It may wait for its sink.
                std::thread::spawn(move || leftovers.stop());
            }
            self.leftovers = Leftovers::begin(&self.storage, &self.board);
        } else if let Some(leftovers) = &self.leftovers {
            leftovers.adjust(&self.storage);
        }
        let wanted: Vec<&Camera> = cameras.iter().copied().filter(|camera| camera.enabled).collect();
        let memory = memory::share(config.max_memory_bytes.unwrap_or_else(memory::default_limit), wanted.len());
        let gone: Vec<String> = self
            .running
            .keys()
            .filter(|id| !wanted.iter().any(|c| c.id == **id))
            .cloned()
            .collect();
        for id in gone {
            if let Some(running) = self.running.remove(&id) {
                let is_disabled = cameras.iter().any(|camera| camera.id == id);
                let (why, leaves) = match is_disabled {
                    true => (DISABLED, Leaves::Disabled),
                    false => ("not in the configuration any more", Leaves::Nothing),
                };
                let _ = running.orders.send(Order::Stop {
                    why: why.to_owned(),
                    leaves,
                });
                self.leaving.push(Leaving {
                    address: running.camera.address,
                    done: running.done,
                });
            }
        }
        self.leaving
            .retain_mut(|leaving| leaving.done.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        let known: Vec<String> = self.board.all().into_iter().map(|report| report.id).collect();
        for id in known.iter().filter(|id| !cameras.iter().any(|camera| camera.id == **id)) {
            self.board.remove(id);
        }
        for camera in cameras.iter().filter(|camera| !camera.enabled) {
            let name = camera.name.as_deref();
            let report = Report::new(&camera.id, name, camera.container.name(), State::Stopped, DISABLED);
            self.board.switch_off(report);
        }
        let news: Vec<&Camera> = wanted
            .iter()
            .copied()
            .filter(|camera| !self.running.contains_key(&camera.id))
            .collect();
        let count = news.len();
        for (i, camera) in news.into_iter().enumerate() {
            self.start(camera, memory, spread::delay(i, count));
        }
        for camera in wanted {
            self.change(camera, memory);
        }
        Ok(())
    }

    fn start(&mut self, camera: &Camera, memory: u64, delay: Duration) {
        let (orders, inbox) = unbounded_channel();
        let run = self.board.begin(&camera.id);
        // Known from here on: the recorder is not ready before it has been tried.
        let (name, container) = (camera.name.as_deref(), camera.container.name());
        let report = Report::new(&camera.id, name, container, State::Connecting, supervisor::NO_RESULT);
        self.board.put_of(run, report);
        let (connection, done) = oneshot::channel();
        let job = Job {
            camera: camera.clone(),
            storage: Arc::clone(&self.storage),
            memory,
            delay,
            board: Arc::clone(&self.board),
            run,
            connection: Some(connection),
            deadline: Arc::clone(&self.deadline),
        };
        // Under another id, or switched off and on: cameras have few sessions.
        let before = self.leaving.iter().position(|leaving| leaving.address == camera.address);
        let before = before.map(|at| self.leaving.swap_remove(at).done);
        let run = runner::run(job, inbox, seed(&camera.id));
        self.tasks.spawn(async move {
            if let Some(before) = before {
                let _ = tokio::time::timeout(LEAVE, before).await;
            }
            run.await;
        });
        let running = Running {
            camera: camera.clone(),
            storage: Arc::clone(&self.storage),
            memory,
            orders,
            done,
        };
        self.running.insert(camera.id.clone(), running);
    }

    fn change(&mut self, camera: &Camera, memory: u64) {
        let Some(running) = self.running.get_mut(&camera.id) else {
            return;
        };
        let is_alike = is_recorded_alike(&running.camera, camera);
        let storage = Arc::clone(&self.storage);
        // Also where all is as it was: which password it was tried with last is known to its task alone.
        let order = match is_alike && running.storage.is_same_place(&storage) {
            true => Order::Adjust(camera.name.clone(), Arc::clone(&storage), memory),
            false => Order::Reconfigure(Box::new(camera.clone()), Arc::clone(&storage), memory),
        };
        running.camera = camera.clone();
        (running.storage, running.memory) = (storage, memory);
        let _ = running.orders.send(order);
    }

    /// Returns uploads of leftovers that were repeated.
    pub fn leftover_retries(&self) -> u64 {
        self.past_retries + self.leftovers.as_ref().map_or(0, Leftovers::retries)
    }

    /// Ends all cameras within the deadlines. Whether all of them did.
    pub async fn stop(mut self) -> bool {
        let upload = if self.storage.spool_dir.is_some() {
            UPLOAD_SPOOLED
        } else {
            UPLOAD
        };
        self.deadline.set(Instant::now() + upload);
        for running in self.running.values() {
            let _ = running.orders.send(Order::Stop {
                why: "the recorder ends".to_owned(),
                leaves: Leaves::Report,
            });
        }
        let (leftovers, presence) = (self.leftovers.take(), self.presence.take());
        let ending = tokio::task::spawn_blocking(move || {
            if let Some(leftovers) = leftovers {
                leftovers.stop();
            }
        });
        let all = async {
            while self.tasks.join_next().await.is_some() {}
            let _ = ending.await;
            // Last: until here the cameras' own states count.
            let _ = tokio::task::spawn_blocking(move || presence.map(Presence::end)).await;
        };
        tokio::time::timeout(upload + END, all).await.is_ok()
    }
}

/// Chance for the pauses of a camera: another at each start.
fn seed(id: &str) -> u64 {
    use std::hash::BuildHasher;
    std::hash::RandomState::new().hash_one(id)
}
