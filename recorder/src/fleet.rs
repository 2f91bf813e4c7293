//! All cameras of the process: starts, changes and ends a task for each, as the configuration requires.

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

/// How long chunks are uploaded at the end: without a spool, and with one, where only uploads in flight should finish.
// With `END` less than the half minute that the manual page promises.
const UPLOAD: Duration = Duration::from_secs(20);
const UPLOAD_SPOOLED: Duration = Duration::from_secs(4);
/// How much longer the pipelines may take to end.
const END: Duration = Duration::from_secs(8);
/// How long a camera waits until an earlier task has closed its connection to the same address. Must be less than the time after
/// which a camera's task counts as hung (`health`).
const LEAVE: Duration = Duration::from_secs(5);
/// The reason of a disabled camera.
const DISABLED: &str = "enabled = false";

/// A camera that runs.
struct Running {
    camera: Camera,
    storage: Arc<Storage>,
    memory: u64,
    orders: UnboundedSender<Order>,
    /// Closed when the task has no connection to the camera any more.
    done: oneshot::Receiver<()>,
}

/// A camera whose task was ordered to stop.
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
    /// Repeated uploads of leftovers for earlier configurations of the storage.
    past_retries: u64,
    presence: Option<Presence>,
    broker: Option<Broker>,
}

/// Returns the cameras that this process records.
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

/// Whether a recording can continue although the settings have changed from `before` to `after`.
fn is_recorded_alike(before: &Camera, after: &Camera) -> bool {
    let same = Camera {
        name: before.name.clone(),
        time_zone: before.time_zone.clone(),
        ..after.clone()
    };
    *before == same
}

impl Fleet {
    /// Starts all cameras of the configuration that this process records.
    ///
    /// # Errors
    /// `[shard]` is set and the host name does not end in a valid number, or the settings of the broker are wrong.
    pub fn begin(config: &Config, host: &str) -> Result<Self, String> {
        let storage = Arc::new(Storage::of(config, host));
        // Fail before anything has started.
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

    /// Applies a configuration: starts, stops and changes cameras. Only cameras that have changed are restarted.
    ///
    /// # Errors
    /// As for [`Fleet::begin`]; nothing has changed then.
    pub fn apply(&mut self, config: &Config) -> Result<(), String> {
        let cameras = ours(config, &self.host)?;
        let storage = Storage::of(config, &self.host);
        // Before anything else changes, because this can fail.
        if config.broker != self.broker || storage.availability != self.storage.availability {
            Presence::replace(&mut self.presence, config, &self.host)?;
            self.broker.clone_from(&config.broker);
        }
        let is_moved = !storage.is_same_place(&self.storage);
        self.storage = Arc::new(storage);
        if is_moved {
            if let Some(leftovers) = self.leftovers.take() {
                // The total of `/metrics` must not decrease, and the next leftovers count from 0.
                self.past_retries += leftovers.retries();
                // `stop` may block on its sink for seconds.
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
        // Nothing is ever sent through `done`: it is `Empty` until the task drops its end.
        self.leaving
            .retain_mut(|leaving| leaving.done.try_recv() == Err(oneshot::error::TryRecvError::Empty));
        // Disabled cameras have a report but no task, so they are not in `running`.
        let known: Vec<String> = self.board.all().into_iter().map(|report| report.id).collect();
        for id in known.iter().filter(|id| !cameras.iter().any(|camera| camera.id == **id)) {
            self.board.remove(id);
        }
        for camera in cameras.iter().filter(|camera| !camera.enabled) {
            let name = camera.name.as_deref();
            let report = Report::new(&camera.id, name, camera.container.name(), State::Stopped, DISABLED);
            self.board.switch_off(report);
        }
        let added: Vec<&Camera> = wanted
            .iter()
            .copied()
            .filter(|camera| !self.running.contains_key(&camera.id))
            .collect();
        let count = added.len();
        for (i, camera) in added.into_iter().enumerate() {
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
        // Put the report on the board now: `/readyz` must not be 200 before this camera has been tried.
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
        // The same camera may still be connected, under another id or from before it was switched off and on. Wait for the end of
        // that connection: cameras allow few sessions.
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
        // Send `Adjust` even if nothing has changed: the password file may have, and only the task knows the password that it
        // used last.
        let order = match is_alike && running.storage.is_same_place(&storage) {
            true => Order::Adjust(camera.name.clone(), Arc::clone(&storage), memory),
            false => Order::Reconfigure(Box::new(camera.clone()), Arc::clone(&storage), memory),
        };
        running.camera = camera.clone();
        (running.storage, running.memory) = (storage, memory);
        let _ = running.orders.send(order);
    }

    /// Returns the number of repeated uploads of leftovers.
    pub fn leftover_retries(&self) -> u64 {
        self.past_retries + self.leftovers.as_ref().map_or(0, Leftovers::retries)
    }

    /// Ends all cameras. Returns whether all of them ended within the deadlines.
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
            // Last: while the recorder is `offline`, Home Assistant shows all its cameras as unavailable.
            let _ = tokio::task::spawn_blocking(move || presence.map(Presence::end)).await;
        };
        tokio::time::timeout(upload + END, all).await.is_ok()
    }
}

/// Returns a seed for the pauses of a camera, different at each start.
fn seed(id: &str) -> u64 {
    use std::hash::BuildHasher;
    std::hash::RandomState::new().hash_one(id)
}
