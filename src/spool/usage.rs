//! How much of a spool folder each process uses: what makes `max-spool-bytes` one limit for all of them.
//!
//! All of it is in the names of empty files below `+usage`, so that it takes no room itself: `<pid>-<random>.<limit>.<claimed>` is a process, which
//! holds the lock of that file as long as it uses the spool: the smallest limit that its sinks have set, and how many bytes it has claimed,
//! which is never less than what it uses. `unowned.<bytes>` is what no process holds: leftovers and the quarantine. They are read and changed
//! only under the lock of `lock`, which is held for a moment. What a process that died had claimed is unowned from then on. Whoever finds
//! himself alone counts again, so a power cut costs nothing; nothing here is synced. If somebody removes the folder, each process that finds its file
//! gone counts again too, and makes a new one.
//!
//! Blocks on the disk.

use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::count;
use super::disk::{Disk, HeldLock, Listed, Lock};
use super::lane::PATIENCE;

/// The folder. No device's folder has a name with this sign.
pub(super) const USAGE: &str = "+usage";
const LOCK: &str = "lock";
const UNOWNED: &str = "unowned";

/// Another process is at it: the pause between two looks, and how long to look.
const PAUSE: Duration = Duration::from_millis(2);
const AT_MOST: Duration = PATIENCE;
/// How often processes that died are looked for.
const LOOK_FOR_DEAD: Duration = Duration::from_secs(30);

/// What the other processes use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Others {
    /// Claimed by them.
    pub(super) claimed: u64,
    /// Held by no process.
    pub(super) unowned: u64,
    /// The smallest limit that one of their users has set; 0 = none.
    pub(super) limit: u64,
}

/// The share of this process.
pub(super) struct Usage {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    dir: PathBuf,
    id: String,
    /// The name of our file now.
    name: String,
    /// While it is held we are alive.
    lock: Option<Box<dyn HeldLock>>,
    looked_at: Instant,
}

impl std::fmt::Debug for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Usage").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Usage {
    /// Joins the processes that use the spool. `count`: all bytes under its folder, asked for only if there is no other process.
    pub(super) fn join(disk: Arc<dyn Disk>, root: &Path, count: impl FnOnce() -> u64) -> io::Result<(Self, Others)> {
        let dir = root.join(USAGE);
        disk.create_dir(&dir)?;
        let turn = take_turn(&*disk, &dir)?;
        let mut known = read(&*disk, &dir, "", true)?;
        if known.is_alone {
            // Nobody else writes: a count puts right what a power cut left.
            known.others.unowned = count();
        }
        write_unowned(&*disk, &dir, &known, known.others.unowned)?;
        let id = format!("{}-{:016x}", std::process::id(), random());
        let name = file_name(&id, 0, 0);
        let lock = match disk.lock(&dir.join(&name))? {
            Lock::Held(lock) => lock,
            Lock::Busy | Lock::Gone => return Err(ErrorKind::ResourceBusy.into()),
        };
        drop(turn);
        let usage = Self {
            disk,
            root: root.to_owned(),
            dir,
            id,
            name,
            lock: Some(lock),
            looked_at: Instant::now(),
        };
        Ok((usage, known.others))
    }

    /// Takes part in one exchange: `claim` computes from what the others use how much this process claims from now on. Returns what they use.
    /// `used`: blocks of this process's files. `moved`: bytes that have become unowned (more than 0) or ours.
    pub(super) fn exchange(
        &mut self,
        limit: u64,
        used: u64,
        moved: i64,
        claim: impl FnOnce(Others) -> u64,
    ) -> io::Result<Others> {
        let turn = take_turn(&*self.disk, &self.dir)?;
        let looks = self.looked_at.elapsed() >= LOOK_FOR_DEAD;
        let known = read(&*self.disk, &self.dir, &self.id, looks)?;
        if looks {
            self.looked_at = Instant::now();
        }
        let is_removed = self.is_removed();
        let unowned = match is_removed {
            // What is there and nobody has claimed: those who have not noticed yet that their files are gone count as well.
            true => count(&*self.disk, &self.root).saturating_sub(used.saturating_add(known.others.claimed)),
            false => known.others.unowned.saturating_add_signed(moved),
        };
        let others = Others { unowned, ..known.others };
        write_unowned(&*self.disk, &self.dir, &known, others.unowned)?;
        let name = file_name(&self.id, limit, claim(others));
        if is_removed {
            self.lock = match self.disk.lock(&self.dir.join(&name))? {
                Lock::Held(lock) => Some(lock),
                Lock::Busy | Lock::Gone => return Err(ErrorKind::ResourceBusy.into()),
            };
            self.name = name;
        } else if name != self.name {
            // The lock is that of the file, so it survives the rename.
            self.disk.rename(&self.dir.join(&self.name), &self.dir.join(&name))?;
            self.name = name;
        }
        drop(turn);
        Ok(others)
    }

    /// Whether somebody has removed our file, with all that is below `spool-dir` as a rule. Then the others do not see us.
    fn is_removed(&self) -> bool {
        let path = self.dir.join(&self.name);
        self.lock.as_ref().is_none_or(|lock| lock.is_removed(&path))
    }

    /// Sets the usage of unowned files.
    pub(super) fn set_unowned(&self, count: impl FnOnce() -> u64) -> io::Result<u64> {
        let turn = take_turn(&*self.disk, &self.dir)?;
        let known = read(&*self.disk, &self.dir, &self.id, false)?;
        let unowned = count();
        write_unowned(&*self.disk, &self.dir, &known, unowned)?;
        drop(turn);
        Ok(unowned)
    }

    /// Leaves: so many bytes that were ours become unowned. The last one removes the folder.
    pub(super) fn leave(&mut self, unowned: i64) {
        let (lock, dir) = (self.lock.take(), self.dir.clone());
        let (id, name) = (self.id.clone(), self.name.clone());
        self.disk.last(Box::new(move |disk| {
            let left = || -> io::Result<()> {
                let turn = take_turn(disk, &dir)?;
                let known = read(disk, &dir, &id, true)?;
                write_unowned(disk, &dir, &known, known.others.unowned.saturating_add_signed(unowned))?;
                disk.remove_file(&dir.join(&name))?;
                if known.is_alone {
                    for (name, _) in disk.list(&dir)? {
                        disk.remove_file(&dir.join(name))?;
                    }
                    disk.remove_dir(&dir)?;
                }
                drop(turn);
                Ok(())
            };
            let _ = left();
            // If that failed, the others take it for dead: what it had claimed is unowned then.
            drop(lock);
        }));
    }
}

/// Until it is dropped, no other process changes anything here.
fn take_turn(disk: &dyn Disk, dir: &Path) -> io::Result<Box<dyn HeldLock>> {
    let began = Instant::now();
    loop {
        match disk.lock(&dir.join(LOCK))? {
            Lock::Held(lock) => return Ok(lock),
            // The last one that used the spool has just removed the folder.
            Lock::Gone => drop(disk.create_dir(dir)?),
            Lock::Busy => {}
        }
        if began.elapsed() >= AT_MOST {
            let what = format!("another process has held its lock file for {} s", AT_MOST.as_secs());
            // `TimedOut`: the callers take it for a disk that does not answer, and try again.
            return Err(io::Error::new(ErrorKind::TimedOut, what));
        }
        // Polled: a wait in flock(2) cannot be given up after a time.
        thread::sleep(PAUSE);
    }
}

/// What the file names hold.
struct Known {
    others: Others,
    /// The file with the usage of unowned files.
    unowned: Option<String>,
    /// No other process is alive.
    is_alone: bool,
}

/// Reads the names; under the lock. `looks`: the files of dead processes are removed.
fn read(disk: &dyn Disk, dir: &Path, own: &str, looks: bool) -> io::Result<Known> {
    let mut known = Known {
        others: Others::default(),
        unowned: None,
        is_alone: true,
    };
    for (name, listed) in disk.list(dir)? {
        if !matches!(listed, Listed::File(_)) {
            continue;
        }
        let mut parts = name.split('.');
        let id = parts.next().unwrap_or_default();
        let mut numbers = parts.map(|n| n.parse::<u64>().unwrap_or(0));
        if id == UNOWNED {
            known.others.unowned = numbers.next().unwrap_or(0);
            known.unowned = Some(name);
            continue;
        }
        let (Some(limit), Some(claimed)) = (numbers.next(), numbers.next()) else {
            // The lock file, or a file of somebody else.
            continue;
        };
        if id == own {
            continue;
        }
        let path = dir.join(&name);
        if looks && let Some(lock) = lock_of_dead(disk, &path)? {
            known.others.unowned = known.others.unowned.saturating_add(claimed);
            disk.remove_file(&path)?;
            drop(lock);
            continue;
        }
        known.is_alone = false;
        known.others.claimed = known.others.claimed.saturating_add(claimed);
        if limit > 0 && (known.others.limit == 0 || limit < known.others.limit) {
            known.others.limit = limit;
        }
    }
    Ok(known)
}

/// Returns the lock of a process that has died: it can be taken. A file that cannot be locked is that of another user, and counts like that
/// of a living process: all that can be known of it is its name.
fn lock_of_dead(disk: &dyn Disk, path: &Path) -> io::Result<Option<Box<dyn HeldLock>>> {
    match disk.lock(path) {
        Ok(Lock::Held(lock)) => Ok(Some(lock)),
        Ok(Lock::Busy | Lock::Gone) => Ok(None),
        // The disk does not answer.
        Err(e) if e.kind() == ErrorKind::TimedOut => Err(e),
        Err(_) => Ok(None),
    }
}

fn file_name(id: &str, limit: u64, claimed: u64) -> String {
    format!("{id}.{limit}.{claimed}")
}

fn write_unowned(disk: &dyn Disk, dir: &Path, known: &Known, bytes: u64) -> io::Result<()> {
    let name = format!("{UNOWNED}.{bytes}");
    match &known.unowned {
        Some(before) if *before == name => Ok(()),
        Some(before) => disk.rename(&dir.join(before), &dir.join(name)),
        None => disk.create(&dir.join(name)).map(drop),
    }
}

/// Sets processes apart that have the same number in different containers.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
