//! Reads the files that a connection to a camera needs, in a thread of their own. A mount that is unreachable answers a read
//! after minutes or never, and the task of a camera shares its threads with all other cameras and with `/healthz`.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gstgcstreamer::base::lock::lock;

use super::state::Failure;
use crate::config::{Camera, Password};

/// The least time between two readings that no attempt waits for.
const APART: Duration = Duration::from_secs(1);

/// How long to wait for a reading before another is started. The first may hang for ever in a mount that was replaced, while the
/// file of that name is readable again.
const GIVE_UP: Duration = Duration::from_secs(600);

/// The result of a reading.
#[derive(Clone, Debug)]
pub struct Files {
    /// The number of the reading.
    pub id: u64,
    /// The password, or why it cannot be used; `None`: the camera has none.
    pub password: Option<Result<Password, String>>,
}

impl Files {
    /// Returns a number that changes with the password; 0 if there is none.
    pub fn mark(&self) -> u64 {
        match &self.password {
            Some(Ok(password)) => password.mark(),
            _ => 0,
        }
    }
}

/// Reads the files of one camera, in at most one thread at a time: if the files hang, every attempt would leave a thread behind.
#[derive(Debug, Default)]
pub(super) struct Reader {
    last: u64,
    asked: Option<Instant>,
    /// The file that is being read now.
    reads: Option<Arc<Mutex<String>>>,
}

impl Reader {
    /// Starts a reading, unless one is in progress. Calls `done` with the result, in the thread that reads.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn ask(&mut self, camera: &Camera, done: impl FnOnce(Files) + Send + 'static) -> std::io::Result<()> {
        if self.reads.is_some() && self.asked.is_some_and(|at| at.elapsed() < GIVE_UP) {
            return Ok(());
        }
        let (id, reads) = (self.last.wrapping_add(1), Arc::new(Mutex::default()));
        let (password, ca_file, now) = (camera.password.clone(), camera.ca_file.clone(), Arc::clone(&reads));
        let work = move || {
            let name = |key: &str, path: &Path| {
                *lock(&now) = format!("{key}: {}", path.display());
            };
            let password = password.map(|secret| {
                name("password-file", secret.path());
                secret.read()
            });
            if let Some(file) = &ca_file {
                name("ca-file", file);
                // Only shows that the file answers: GLib reads it again and reports what is wrong with it.
                let _ = std::fs::read(file);
            }
            done(Files { id, password });
        };
        std::thread::Builder::new().name("files".to_owned()).spawn(work)?;
        (self.last, self.asked, self.reads) = (id, Some(Instant::now()), Some(reads));
        Ok(())
    }

    /// Whether the files may be read again: [`APART`] after the last reading began.
    pub(super) fn is_due(&self) -> bool {
        self.asked.is_none_or(|at| at.elapsed() >= APART)
    }

    /// Notes that a reading is over. Returns whether its result is valid: that of an abandoned or forgotten reading is not.
    pub(super) fn over(&mut self, files: &Files) -> bool {
        let counts = files.id == self.last && self.reads.is_some();
        if counts {
            self.reads = None;
        }
        counts
    }

    /// Returns the key and the file that is being read now.
    pub(super) fn reads(&self) -> Option<String> {
        let reads = self.reads.as_ref()?;
        Some(lock(reads).clone())
    }

    /// Discards the result of the reading in progress: the configuration may name other files now.
    pub(super) fn forget(&mut self) {
        self.reads = None;
    }
}

/// Returns the failure for a password that could not be read.
pub(super) fn unusable_password(text: &str) -> Failure {
    Failure::Refused(format!("password-file: {text}"))
}
