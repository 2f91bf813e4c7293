//! Starts a link in a thread of its own, outside the runtime of the uploads: its files may be on a disk that hangs, and a read
//! that hangs blocks its thread.
//!
//! Links that read the same files take turns. At most one thread waits for these files, even if an application retries often;
//! the other starts wait as tasks.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use tokio::runtime::Handle;
use tokio::sync::OwnedMutexGuard;
use tokio::task::AbortHandle;

use crate::base::lock::lock;
use gcstreamer_mqtt::{Config, ConfigError, Link, Listener, Protocol};

/// Name of the thread that reads the files.
const THREAD: &str = "gcs-mqtt-files";

/// A link that is to be started.
pub(super) struct LinkStart<W, D> {
    pub config: Config,
    pub listener: Arc<dyn Listener>,
    /// Returns whether the link is still wanted. If not, it is not started.
    pub is_wanted: W,
    /// Receives the link, in the thread that started it.
    pub done: D,
}

impl<W, D> LinkStart<W, D>
where
    W: FnOnce() -> bool + Send + 'static,
    D: FnOnce(Result<Link, ConfigError>) + Send + 'static,
{
    /// Starts the link as soon as no other link reads the same files. Returns the task that waits for that, or `None` if it
    /// starts at once. Aborting the task cancels the start.
    ///
    /// # Errors
    /// The system refuses to create a thread.
    pub(super) fn begin(self, runtime: &Handle) -> io::Result<Option<AbortHandle>> {
        let turn = turn_of(files_of(&self.config));
        if let Ok(turn) = Arc::clone(&turn).try_lock_owned() {
            return self.run(turn, runtime.clone()).map(|()| None);
        }
        let handle = runtime.clone();
        let waiting = runtime.spawn(async move {
            let listener = Arc::clone(&self.listener);
            if let Err(e) = self.run(turn.lock_owned().await, handle) {
                listener.notice(format!("the network threads cannot be started: {e}"));
            }
        });
        Ok(Some(waiting.abort_handle()))
    }

    fn run(self, turn: OwnedMutexGuard<()>, runtime: Handle) -> io::Result<()> {
        let thread = std::thread::Builder::new().name(THREAD.to_owned());
        thread.spawn(move || {
            if (self.is_wanted)() {
                (self.done)(Link::start(self.config, &runtime, self.listener));
            }
            // Released last: an unwanted link must have ended before the next one registers, which would otherwise report a
            // second element with the same client id.
            drop(turn);
        })?;
        Ok(())
    }
}

/// Returns the files that a link reads.
fn files_of(config: &Config) -> Vec<PathBuf> {
    let own = match &config.protocol {
        Protocol::IotCore(settings) => Some(&settings.private_key_file),
        Protocol::Mqtt(settings) => settings.password_file.as_ref(),
    };
    let files = [&config.root_certificates, &config.client_certificate, &config.client_key];
    files.into_iter().flatten().chain(own).cloned().collect()
}

/// Returns the lock for links that read exactly these files. There is one lock per set of files, not one per file: a camera whose
/// key file hangs must not block cameras that only share its certificates.
fn turn_of(files: Vec<PathBuf>) -> Arc<tokio::sync::Mutex<()>> {
    static TURNS: Mutex<BTreeMap<Vec<PathBuf>, Arc<tokio::sync::Mutex<()>>>> = Mutex::new(BTreeMap::new());
    let mut turns = lock(&TURNS);
    turns.retain(|_, turn| Arc::strong_count(turn) > 1);
    Arc::clone(turns.entry(files).or_default())
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::path::Path;
    use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use bytes::Bytes;
    use gcstreamer_mqtt::Plain;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);

    struct Silent;

    impl Listener for Silent {
        fn connected(&self, _up: bool) {}
        fn wants_commands(&self) -> bool {
            false
        }
        fn trouble(&self, _text: String) {}
        fn recovered(&self, _after: Duration) {}
        fn config(&self, _payload: Bytes) {}
        fn command(&self, _tail: String, _payload: Bytes, _retained: bool) {}
        fn notice(&self, _text: String) {}
    }

    /// Begins a link with this password file. Returns whether it is wanted, and what comes of it.
    fn begin(name: &str, password: &Path, runtime: &Handle) -> (Arc<AtomicBool>, Receiver<bool>) {
        let config = Config {
            host: "127.0.0.1".to_owned(),
            port: 9,
            tls: false,
            root_certificates: None,
            client_certificate: None,
            client_key: None,
            protocol: Protocol::Mqtt(Plain {
                client_id: name.to_owned(),
                username: Some("u".to_owned()),
                password_file: Some(password.to_owned()),
                prefix: format!("gcstreamer/{name}"),
                discovery: None,
            }),
            state_gap: Duration::from_secs(1),
            keep_alive: Duration::from_secs(60),
        };
        let (wanted, (sender, receiver)) = (Arc::new(AtomicBool::new(true)), channel());
        let asked = Arc::clone(&wanted);
        let start = LinkStart {
            config,
            listener: Arc::new(Silent),
            is_wanted: move || asked.load(SeqCst),
            done: move |link: Result<Link, ConfigError>| sender.send(link.is_ok()).unwrap(),
        };
        start.begin(runtime).unwrap();
        (wanted, receiver)
    }

    fn threads() -> usize {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let name = |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default();
        tasks.flatten().map(name).filter(|n| n.trim_end() == THREAD).count()
    }

    #[test]
    fn links_whose_files_do_not_answer_keep_one_thread_however_many_were_tried() {
        let pipe = std::env::temp_dir().join(format!("gcstreamer-link-start-{}.pw", std::process::id()));
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let starts: Vec<_> = (0..20).map(|n| begin(&format!("cam{n}"), &pipe, runtime.handle())).collect();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(threads(), 1);
        // All but the first and the last have been given up meanwhile.
        starts[1..19].iter().for_each(|(wanted, _)| wanted.store(false, SeqCst));
        // Who comes later reads a file.
        let file = pipe.with_extension("new");
        std::fs::write(&file, "secret\n").unwrap();
        let mut answer = std::fs::OpenOptions::new().write(true).open(&pipe).unwrap();
        std::fs::rename(&file, &pipe).unwrap();
        answer.write_all(b"secret\n").unwrap();
        drop(answer);
        for n in [0, 19] {
            assert_eq!(starts[n].1.recv_timeout(SOON), Ok(true), "{n}");
        }
        assert!(starts[1..19].iter().all(|(_, receiver)| receiver.try_recv().is_err()));
        std::fs::remove_file(&pipe).unwrap();
    }
}
