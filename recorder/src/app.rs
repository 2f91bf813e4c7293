//! `gcstreamer-recorder run`: the process from start to end.

use std::io::{ErrorKind, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use sd_notify::NotifyState;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::camera::report::{Board, Report};
use crate::cli;
use crate::config::Config;
use crate::fleet::Fleet;
use crate::health::Health;
use crate::http::{self, Sources};
use crate::metrics::Whole;
use crate::status;
use gstgcstreamer::base::lock::lock;

/// How often the free space for the spool is measured, and how long a measurement is valid.
const MEASURE: Duration = Duration::from_secs(5);
const MEASURED_FOR: Duration = Duration::from_secs(30);
/// How long a reload may take to read its files.
const READ: Duration = Duration::from_secs(10);
/// How often health is checked and systemd's watchdog is notified.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// On a terminal the table is written at every change, and after this many ticks of [`CHECK_EVERY`].
const TABLE: u64 = 30;
/// The remedy if `spool-dir` cannot be used.
const WRITABLE: &str =
    "give the recorder's user the folder; under systemd it must also be in ReadWritePaths= (systemctl edit gcstreamer-recorder)";
/// The highest limit of open files that the process sets, even if the hard limit is higher or unlimited.
const MOST_FILES: u64 = 1 << 20;
/// Open files of a recorder without cameras, and of each camera, with a margin for the sockets of uploads. Measured: 408 files
/// with 64 cameras.
const FILES: u64 = 100;
const FILES_OF_A_CAMERA: u64 = 10;
/// How much time systemd is asked to allow for the end.
// More than `fleet` takes at most: 20 s of uploads, and 8 s until the pipelines have ended.
const END_MICROSECONDS: u32 = 40_000_000;

/// Why the process ended without a request.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration does not fit this machine.
    #[error("{0}")]
    Setup(String),
    /// A call into GStreamer or the system failed.
    #[error("{what}: {source}")]
    System {
        /// What failed.
        what: String,
        /// The cause.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn system<E: std::error::Error + Send + Sync + 'static>(what: impl Into<String>) -> impl FnOnce(E) -> RunError {
    let what = what.into();
    move |source| RunError::System {
        what,
        source: Box::new(source),
    }
}

/// Records until SIGINT or SIGTERM.
///
/// # Errors
/// Something could not be started; the error says what.
pub fn run(config: Config, file: Option<&Path>) -> Result<(), RunError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(system("no threads"))?;
    // Before all else: a signal that arrives while GStreamer scans its plugins must also end the process in order.
    let signals = {
        let _in = runtime.enter();
        Signals::listen().map_err(system("signals cannot be caught"))?
    };
    raise_open_files(config.cameras.len());
    gst::init().map_err(system("GStreamer cannot be started"))?;
    gstgcstreamer::plugin_register_static().map_err(system("the elements cannot be registered"))?;
    // One shutdown deadline for each camera: by default all elements of the process share one.
    gstgcstreamer::separate_pipelines();
    // Every connection is a session. A refusal at its start must not be an ERROR if its chunks can wait in the spool.
    gstgcstreamer::outlast_refusals();
    make_spool(&config)?;
    let ended = runtime.block_on(App::run(config, file, signals));
    // Does not wait for blocking tasks: a thread that hangs in a pipeline must not delay the end.
    runtime.shutdown_background();
    ended
}

/// Raises the soft limit of open files to the hard limit, at most [`MOST_FILES`]. The usual soft limit of 1024 is enough for
/// about 150 cameras, and GLib aborts the whole process when it cannot open more.
fn raise_open_files(cameras: usize) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let before = getrlimit(Resource::Nofile);
    let wanted = before.maximum.unwrap_or(MOST_FILES).min(MOST_FILES);
    let raised = Rlimit {
        current: Some(wanted),
        ..before
    };
    let is_lower = before.current.is_some_and(|current| current < wanted);
    let now = match is_lower && setrlimit(Resource::Nofile, raised).is_ok() {
        true => Some(wanted),
        false => before.current,
    };
    let needed = FILES.saturating_add(FILES_OF_A_CAMERA.saturating_mul(u64::try_from(cameras).unwrap_or(u64::MAX)));
    if let Some(now) = now.filter(|now| *now < needed) {
        tracing::warn!(
            "this process may open {now} files, and {cameras} cameras may need {needed}: raise the limit (LimitNOFILE, ulimit -n)"
        );
    }
}

/// Creates `spool-dir`, accessible only to this user, and checks that it is writable. Checked once here, because otherwise the
/// sink of every camera would fail with it.
///
/// Does not create its parent: if the disk for the spool is not mounted, chunks would go to the file system below the mount
/// point.
fn make_spool(config: &Config) -> Result<(), RunError> {
    use std::os::unix::fs::DirBuilderExt;
    let Some(folder) = &config.spool_dir else {
        tracing::warn!("no spool-dir is set: chunks wait in memory only, and are lost when the recorder ends during an outage");
        return Ok(());
    };
    match std::fs::DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
        made => made.map_err(system(format!("spool-dir {} cannot be made ({WRITABLE})", folder.display())))?,
    }
    // Not checked as part of the configuration: the cause may be the disk, for example one that is read-only until fsck has run,
    // and then the next start works.
    let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    rustix::fs::access(folder, access).map_err(system(format!(
        "spool-dir {} cannot be written ({WRITABLE})",
        folder.display()
    )))
}

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}

struct App {
    fleet: Fleet,
    health: Arc<Health>,
    config: Config,
    leftover_retries: Arc<Mutex<u64>>,
    /// The free space for the spool.
    room: Arc<Room>,
    server: Server,
    seconds: u64,
    shown: Vec<(String, crate::camera::state::State)>,
}

impl App {
    async fn run(config: Config, file: Option<&Path>, mut signals: Signals) -> Result<(), RunError> {
        // First: if the address is taken, the recorder ends before any camera is connected.
        let listener = match config.listen {
            Some(address) => Some(bind(address).await.map_err(|(what, source)| system(what)(source))?),
            None => None,
        };
        let host = gst::glib::host_name().to_string();
        let fleet = Fleet::begin(&config, &host).map_err(RunError::Setup)?;
        let mut app = Self {
            fleet,
            health: Arc::default(),
            room: Room::watch(config.spool_dir.clone()).map_err(system("no threads"))?,
            config,
            leftover_retries: Arc::default(),
            server: Server::default(),
            seconds: 0,
            shown: Vec::new(),
        };
        app.server.serve(listener, &app.sources());
        let count = app.config.cameras.len();
        tracing::info!(cameras = count, version = env!("CARGO_PKG_VERSION"), "the recorder runs");
        // Not only after the first pictures, as `/readyz`: a camera that is away must not make the start of the unit fail.
        notify(&[NotifyState::Ready]);
        let mut health_ticks = tokio::time::interval(CHECK_EVERY);
        // A check may take seconds (`health`). Ticks that it misses are not made up for.
        health_ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let why = loop {
            tokio::select! {
                _ = signals.interrupt.recv() => break "SIGINT",
                _ = signals.terminate.recv() => break "SIGTERM",
                _ = signals.hangup.recv() => app.reload(file).await,
                _ = health_ticks.tick() => app.check_health().await,
            }
        };
        tracing::info!(signal = why, "the recorder ends");
        app.end().await;
        Ok(())
    }

    fn sources(&self) -> Arc<Sources> {
        let room = Arc::clone(&self.room);
        let (retries, board) = (Arc::clone(&self.leftover_retries), Arc::clone(&self.fleet.board));
        Arc::new(Sources {
            board: Arc::clone(&self.fleet.board),
            health: Arc::clone(&self.health),
            whole: Box::new(move || Whole {
                spool_free: room.free(),
                retries: board.retries().saturating_add(*lock(&retries)),
                stuck: board.stuck(),
            }),
            gstreamer: gst::version_string().to_string(),
        })
    }

    async fn check_health(&mut self) {
        let (health, board) = (Arc::clone(&self.health), Arc::clone(&self.fleet.board));
        let looking = tokio::task::spawn_blocking(move || health.check(&board));
        let _ = looking.await;
        *lock(&self.leftover_retries) = self.fleet.leftover_retries();
        let reports = self.fleet.board.all();
        let line = status::line(&reports);
        let mut states = vec![NotifyState::Status(&line)];
        if self.health.is_healthy() {
            // Without this notification, systemd restarts the hung process.
            states.push(NotifyState::Watchdog);
        }
        notify(&states);
        self.show(&reports);
    }

    /// Writes the table of cameras, if standard output is a terminal.
    fn show(&mut self, reports: &[Report]) {
        self.seconds += 1;
        let now: Vec<_> = reports.iter().map(|report| (report.id.clone(), report.state)).collect();
        let mut out = std::io::stdout();
        if out.is_terminal() && (now != self.shown || self.seconds.is_multiple_of(TABLE)) {
            // Not `print!`, which panics if the terminal is gone.
            let _ = write!(out, "\n{}", status::table(reports, SystemTime::now()));
            let _ = out.flush();
        }
        self.shown = now;
    }

    /// Handles SIGHUP: reads the file again and applies it. If it has any fault, nothing changes.
    async fn reload(&mut self, file: Option<&Path>) {
        // systemd waits for READY=1 after this, so every way out of this function sends it (sd_notify(3)).
        if let Ok(monotonic) = NotifyState::monotonic_usec_now() {
            notify(&[NotifyState::Reloading, monotonic]);
        }
        // In a thread of its own: a disk that does not answer must not delay signals and the watchdog.
        let (file, spool_dir) = (file.map(Path::to_path_buf), self.config.spool_dir.clone());
        let reading = tokio::task::spawn_blocking(move || {
            let config = cli::configuration(file.as_deref());
            let is_moved = |config: &Config| config.spool_dir != spool_dir;
            let made = config.as_ref().ok().filter(|config| is_moved(config)).map(make_spool);
            (config, made.unwrap_or(Ok(())))
        });
        let Ok(Ok((config, made))) = tokio::time::timeout(READ, reading).await else {
            let seconds = READ.as_secs();
            tracing::error!(
                "the new configuration is not used: its files, or spool-dir, do not answer within {seconds} s; look at their disk"
            );
            notify(&[NotifyState::Ready]);
            return;
        };
        match config {
            Ok(config) => match self.take_over(&config, made).await {
                Ok(()) => {
                    tracing::info!(cameras = config.cameras.len(), "the configuration was read again");
                    self.room.move_to(config.spool_dir.clone());
                    self.config = config;
                }
                Err(text) => tracing::error!("the new configuration is not used: {text}"),
            },
            Err(faulty) => {
                for fault in &faulty.faults {
                    tracing::error!("the new configuration is not used: {}:{fault}", faulty.file);
                }
            }
        }
        notify(&[NotifyState::Ready]);
    }

    /// Applies a configuration. `made`: the result of creating its `spool-dir`. On an error nothing has changed.
    async fn take_over(&mut self, config: &Config, made: Result<(), RunError>) -> Result<(), String> {
        made.map_err(|error| error.to_string())?;
        let sources = self.sources();
        if config.listen != self.config.listen {
            self.server.move_to(config.listen, self.config.listen, &sources).await?;
        }
        // After the move, which can fail: cameras are never restarted for a configuration that is not used.
        let applied = self.fleet.apply(config);
        if applied.is_err() && config.listen != self.config.listen {
            self.server.move_to(self.config.listen, config.listen, &sources).await?;
        }
        applied
    }

    async fn end(self) {
        notify(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(END_MICROSECONDS)]);
        let board: Arc<Board> = Arc::clone(&self.fleet.board);
        if !self.fleet.stop().await {
            let open = board
                .all()
                .iter()
                .filter(|report| report.state != crate::camera::state::State::Stopped)
                .count();
            tracing::warn!("{open} cameras did not end in time");
        }
    }
}

/// Binds a listening socket.
///
/// # Errors
/// A text that names the address, and the system's error.
async fn bind(address: SocketAddr) -> Result<TcpListener, (String, std::io::Error)> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|error| (format!("listen = \"{address}\" cannot be used"), error))
}

/// The HTTP server of the recorder's state. Open connections continue when the server moves to another address.
#[derive(Default)]
struct Server(Option<JoinHandle<()>>);

impl Server {
    fn serve(&mut self, listener: Option<TcpListener>, sources: &Arc<Sources>) {
        self.0 = listener.map(|listener| tokio::spawn(http::serve(listener, Arc::clone(sources))));
    }

    async fn stop(&mut self) {
        if let Some(task) = self.0.take() {
            task.abort();
            // The task owns the listening socket: only when it has ended is the port free.
            let _ = task.await;
        }
    }

    /// Moves the server from `from` to `to`. On an error the server stays at `from`.
    async fn move_to(&mut self, to: Option<SocketAddr>, from: Option<SocketAddr>, sources: &Arc<Sources>) -> Result<(), String> {
        let failed = |(what, error): (String, std::io::Error)| format!("{what}: {error}");
        let Some(address) = to else {
            self.stop().await;
            return Ok(());
        };
        let mut bound = bind(address).await;
        let is_ours = from.is_some_and(|from| from.port() == address.port());
        if is_ours && matches!(&bound, Err((_, error)) if error.kind() == ErrorKind::AddrInUse) {
            // Our own socket may be the obstacle: a socket of one address prevents a socket of all addresses with the same port.
            // Close it first.
            self.stop().await;
            bound = bind(address).await;
            if bound.is_err()
                && let Some(from) = from
            {
                self.serve(Some(bind(from).await.map_err(failed)?), sources);
            }
        }
        let listener = bound.map_err(failed)?;
        self.stop().await;
        self.serve(Some(listener), sources);
        Ok(())
    }
}

/// The free space of the spool's file system, measured in a thread of its own, so that a disk that does not answer blocks only
/// that thread. The thread ends when this is dropped.
#[derive(Default)]
struct Room {
    folder: Mutex<Option<PathBuf>>,
    measured: Mutex<Option<(Instant, u64)>>,
}

impl Room {
    fn watch(folder: Option<PathBuf>) -> std::io::Result<Arc<Self>> {
        let room = Arc::new(Self {
            folder: Mutex::new(folder),
            measured: Mutex::default(),
        });
        // Weak, so that the thread ends with the last user of the room.
        let watched = Arc::downgrade(&room);
        let measure = move || {
            while let Some(room) = watched.upgrade() {
                let folder = lock(&room.folder).clone();
                let free = folder.as_deref().and_then(free_bytes);
                *lock(&room.measured) = free.map(|free| (Instant::now(), free));
                drop(room);
                std::thread::sleep(MEASURE);
            }
        };
        std::thread::Builder::new().name("room".to_owned()).spawn(measure)?;
        Ok(room)
    }

    fn move_to(&self, folder: Option<PathBuf>) {
        *lock(&self.folder) = folder;
        *lock(&self.measured) = None;
    }

    /// Returns the free space in bytes; `None`: no spool, or its disk does not answer.
    fn free(&self) -> Option<u64> {
        lock(&self.measured)
            .filter(|(at, _)| at.elapsed() < MEASURED_FOR)
            .map(|(_, free)| free)
    }
}

/// Returns the free space of a folder's file system for an unprivileged user, in bytes.
fn free_bytes(folder: &Path) -> Option<u64> {
    let stat = rustix::fs::statvfs(folder).ok()?;
    Some(stat.f_bavail.saturating_mul(stat.f_frsize))
}

/// Notifies systemd. Does nothing if the process was not started by it.
fn notify(states: &[NotifyState<'_>]) {
    let _ = sd_notify::notify(states);
}
