//! Shares the usage of a spool folder among processes, so that `max-spool-bytes` is one limit for all of them.
//!
//! The figures are in the names of empty files below `+usage`, so that they take no room themselves. Two kinds of names exist:
//!
//! - `<pid>-<random>.<limit>.<claimed>`, one for each process: the smallest limit that its sinks have set, and the bytes that it
//!   has claimed, never less than it uses. The process holds the lock of this file while it uses the spool.
//! - `unowned.<bytes>`: bytes that no process owns, which are leftovers and the quarantine.
//!
//! Both are read and changed only under the lock of the file `lock`, which is held briefly. When a process dies, its claim
//! becomes unowned. A process that finds no other one counts all files again. So nothing here needs a sync: after a power
//! failure, the first process counts. A process whose file was removed also counts again, and makes a new file.
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

/// Name of the folder. `+` is percent-encoded in the folder names of devices, so it cannot be one of them.
pub(super) const USAGE: &str = "+usage";
const LOCK: &str = "lock";
const UNOWNED: &str = "unowned";

/// While another process holds the lock: pause between two attempts, and the timeout.
const PAUSE: Duration = Duration::from_millis(2);
const AT_MOST: Duration = PATIENCE;
/// Interval between two checks for processes that died.
const LOOK_FOR_DEAD: Duration = Duration::from_secs(30);

/// The usage of the other processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Others {
    /// Bytes claimed by them.
    pub(super) claimed: u64,
    /// Bytes owned by no process.
    pub(super) unowned: u64,
    /// The smallest limit that one of their sinks has set; 0 = none.
    pub(super) limit: u64,
}

/// The membership of this process.
pub(super) struct Usage {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    dir: PathBuf,
    id: String,
    /// Current name of this process's file.
    name: String,
    /// The lock of this process's file: the others take it as a sign of life.
    lock: Option<Box<dyn HeldLock>>,
    searched_at: Instant,
}

impl std::fmt::Debug for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Usage").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Usage {
    /// Joins the processes that use the spool. `count` returns all bytes in its folder; called only if there is no other process.
    pub(super) fn join(disk: Arc<dyn Disk>, root: &Path, count: impl FnOnce() -> u64) -> io::Result<(Self, Others)> {
        let dir = root.join(USAGE);
        disk.create_dir(&dir)?;
        let turn = take_turn(&*disk, &dir)?;
        // Removes the files of dead processes first: they would hide that this process is alone.
        let mut known = read(&*disk, &dir, "", true)?;
        if known.is_alone {
            // No other process writes, so a count is exact. It also corrects figures that a power failure left.
            known.others.unowned = count();
        }
        write_unowned(&*disk, &dir, &known, known.others.unowned)?;
        let id = format!("{}-{:016x}", std::process::id(), random());
        let name = file_name(&id, 0, 0);
        let lock = match disk.lock(&dir.join(&name))? {
            Lock::Held(lock) => lock,
            Lock::Busy | Lock::Gone => return Err(ErrorKind::ResourceBusy.into()),
        };
        // Held until the file is locked: without its lock, another process takes this one for dead.
        drop(turn);
        let usage = Self {
            disk,
            root: root.to_owned(),
            dir,
            id,
            name,
            lock: Some(lock),
            searched_at: Instant::now(),
        };
        Ok((usage, known.others))
    }

    /// Runs one exchange and returns the usage of the others. `claim` computes from that usage how much this process claims from
    /// now on. `used`: bytes of this process's files, in blocks. `moved`: bytes that have become unowned; negative if they have
    /// become ours.
    pub(super) fn exchange(
        &mut self,
        limit: u64,
        used: u64,
        moved: i64,
        claim: impl FnOnce(Others) -> u64,
    ) -> io::Result<Others> {
        let turn = take_turn(&*self.disk, &self.dir)?;
        let finds_dead = self.searched_at.elapsed() >= LOOK_FOR_DEAD;
        let known = read(&*self.disk, &self.dir, &self.id, finds_dead)?;
        if finds_dead {
            self.searched_at = Instant::now();
        }
        let is_removed = self.is_removed();
        let unowned = match is_removed {
            // All bytes that no process claims. They include those of processes that have not noticed yet that their files were
            // removed.
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
            // flock(2) locks the open file, not the name, so the lock survives the rename.
            self.disk.rename(&self.dir.join(&self.name), &self.dir.join(&name))?;
            self.name = name;
        }
        drop(turn);
        Ok(others)
    }

    /// Returns whether somebody has removed this process's file, usually with everything in `spool-dir`. The others then do not
    /// see us.
    fn is_removed(&self) -> bool {
        let path = self.dir.join(&self.name);
        self.lock.as_ref().is_none_or(|lock| lock.is_removed(&path))
    }

    /// Sets the usage of unowned files to the result of `count`, which runs under the lock of all processes.
    pub(super) fn set_unowned(&self, count: impl FnOnce() -> u64) -> io::Result<u64> {
        let turn = take_turn(&*self.disk, &self.dir)?;
        let known = read(&*self.disk, &self.dir, &self.id, false)?;
        let unowned = count();
        write_unowned(&*self.disk, &self.dir, &known, unowned)?;
        drop(turn);
        Ok(unowned)
    }

    /// Leaves: `unowned` bytes of this process become unowned. The last process removes the folder.
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
            // Released in any case. If leaving failed, the others find an unlocked file, and count its claim as unowned.
            drop(lock);
        }));
    }
}

/// Takes the lock of all processes. Until it is dropped, no other process changes anything in the folder.
fn take_turn(disk: &dyn Disk, dir: &Path) -> io::Result<Box<dyn HeldLock>> {
    let began = Instant::now();
    loop {
        match disk.lock(&dir.join(LOCK))? {
            Lock::Held(lock) => return Ok(lock),
            // The last process that used the spool has just removed the folder.
            Lock::Gone => drop(disk.create_dir(dir)?),
            Lock::Busy => {}
        }
        if began.elapsed() >= AT_MOST {
            let what = format!("another process has held its lock file for {} s", AT_MOST.as_secs());
            // `TimedOut`: callers treat it as a disk that does not answer, and try again.
            return Err(io::Error::new(ErrorKind::TimedOut, what));
        }
        // Polled, because flock(2) has no timeout.
        thread::sleep(PAUSE);
    }
}

/// The figures read from the file names.
struct Known {
    others: Others,
    /// Name of the file with the usage of unowned files.
    unowned: Option<String>,
    /// No other process uses the folder.
    is_alone: bool,
}

/// Reads the names. The caller holds the lock. With `finds_dead`, removes the files of dead processes and counts their claims as
/// unowned.
fn read(disk: &dyn Disk, dir: &Path, own: &str, finds_dead: bool) -> io::Result<Known> {
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
            // The lock file, or a foreign file.
            continue;
        };
        if id == own {
            continue;
        }
        let path = dir.join(&name);
        if finds_dead && let Some(lock) = lock_of_dead(disk, &path)? {
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

/// Returns the lock of a process that has died, recognized because the lock can be taken. A file that cannot be locked belongs to
/// another user; it counts like that of a living process, because only its name can be read.
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

/// Returns a random number. It distinguishes processes in different containers, which may have the same process id.
fn random() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one(std::process::id())
}
