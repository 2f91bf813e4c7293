//! The files that a connection to a camera needs, read in a thread of their own: a mount that is away answers a read after minutes, or
//! never, and the task of a camera shares its threads with all others and with `/healthz`.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use gstgcstreamer::base::lock::lock;

use super::state::Failure;
use crate::config::{Camera, Password};

/// Looks at files that nothing waits for are this far apart.
const APART: Duration = Duration::from_secs(1);

/// A reading that takes longer is waited for no longer: what it hangs in may be gone for good (a mount that was replaced), and the file of
/// that name another one.
const GIVE_UP: Duration = Duration::from_secs(600);

/// What was read.
#[derive(Clone, Debug)]
pub struct Files {
    /// Which reading it is of.
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

/// Reads the files of one camera, in at most one thread at a time: where they hang, a thread for each attempt would be left behind.
#[derive(Debug, Default)]
pub(super) struct Reader {
    last: u64,
    asked: Option<Instant>,
    /// The file that is being read now.
    reads: Option<Arc<Mutex<String>>>,
}

impl Reader {
    /// Begins to read, unless a reading is not over yet; `tell` is then called in its thread.
    ///
    /// # Errors
    /// There is no thread to be had.
    pub(super) fn ask(&mut self, camera: &Camera, tell: impl FnOnce(Files) + Send + 'static) -> std::io::Result<()> {
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
                // GLib reads it again, and says what is wrong with it.
                let _ = std::fs::read(file);
            }
            tell(Files { id, password });
        };
        std::thread::Builder::new().name("files".to_owned()).spawn(work)?;
        (self.last, self.asked, self.reads) = (id, Some(Instant::now()), Some(reads));
        Ok(())
    }

    /// Returns whether it is time to look at the files again: a second after the last look.
    pub(super) fn is_due(&self) -> bool {
        self.asked.is_none_or(|at| at.elapsed() >= APART)
    }

    /// Takes note of what was read. Returns whether it counts: the files of an older configuration do not.
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

    /// Waits for none of the files that are read: they may be others now.
    pub(super) fn forget(&mut self) {
        self.reads = None;
    }
}

/// Returns what is wrong with a password that could not be read.
pub(super) fn unusable_password(text: &str) -> Failure {
    Failure::Refused(format!("password-file: {text}"))
}
