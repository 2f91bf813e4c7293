//! A disk in memory that forgets what was not synced. For tests.
//!
//! Its rules: bytes are durable after `sync_data`, names after `sync_dir` of their folder; a rename is atomic. [`SimDisk::crash`]
//! keeps what is durable and, of the rest, what chance keeps: writes whole, torn, or as zeros; names in any choice.
//! [`SimDisk::kill`] keeps everything, durable or not, as the end of a process does. After a failed `sync_data` the bytes are
//! still there to be read, and no later sync makes them durable. `operations`: what a spool asks of
//! it.

mod operations;

use std::collections::{BTreeMap, HashSet};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::disk::Space;
use super::usage::USAGE;

static WORLDS: AtomicU64 = AtomicU64::new(0);
const PAGE: usize = 512;

#[derive(Clone, Debug)]
enum Pending {
    Write { offset: usize, bytes: Vec<u8>, given_up: bool },
    Len(usize),
}

impl Pending {
    fn apply(&self, image: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes, .. } => overwrite(image, *offset, bytes),
            Self::Len(len) => image.resize(*len, 0),
        }
    }
}

#[derive(Clone, Debug, Default)]
struct Inode {
    durable: Vec<u8>,
    now: Vec<u8>,
    pending: Vec<Pending>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    Dir,
    File(usize),
}

#[derive(Clone, Debug)]
enum NameOp {
    Add(PathBuf, Node),
    Remove(PathBuf),
    Move(PathBuf, PathBuf, Node),
}

impl NameOp {
    fn touches(&self, dir: &Path) -> bool {
        match self {
            Self::Add(path, _) | Self::Remove(path) => path.parent() == Some(dir),
            Self::Move(from, to, _) => from.parent() == Some(dir) || to.parent() == Some(dir),
        }
    }

    fn is_below(&self, tree: &Path) -> bool {
        match self {
            Self::Add(path, _) | Self::Remove(path) => path.starts_with(tree),
            Self::Move(from, to, _) => from.starts_with(tree) || to.starts_with(tree),
        }
    }

    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        match self {
            Self::Add(path, node) => {
                names.insert(path.clone(), *node);
            }
            Self::Remove(path) => {
                names.remove(path);
            }
            Self::Move(from, to, node) => {
                names.remove(from);
                names.insert(to.clone(), *node);
            }
        }
    }
}

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// The operation of this number fails with this errno, part of a write is done.
    Once(u64, i32),
    /// From this operation on all fail: the machine is dead.
    Dead(u64),
}

#[derive(Clone, Debug)]
struct World {
    inodes: Vec<Inode>,
    names: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    pending: Vec<NameOp>,
    locks: HashSet<usize>,
    dead: bool,
    /// What is below `+usage` cannot be written.
    usage_fails: bool,
    fault: Option<Fault>,
    ops: u64,
    log: Vec<String>,
    chance: u64,
    space: Space,
    unreadable: HashSet<PathBuf>,
}

/// A simulated disk; clones are the same disk.
#[derive(Clone, Debug)]
pub struct SimDisk {
    world: Arc<Mutex<World>>,
    root: PathBuf,
}

impl SimDisk {
    /// An empty disk with a folder of its own, [`SimDisk::root`].
    pub fn new(seed: u64) -> Self {
        let root = PathBuf::from(format!("/sim{}", WORLDS.fetch_add(1, Ordering::Relaxed)));
        let names = BTreeMap::from([(PathBuf::from("/"), Node::Dir), (root.clone(), Node::Dir)]);
        let world = World {
            inodes: Vec::new(),
            durable: names.clone(),
            names,
            pending: Vec::new(),
            locks: HashSet::new(),
            dead: false,
            usage_fails: false,
            fault: None,
            ops: 0,
            log: Vec::new(),
            chance: seed,
            space: Space {
                total: 1 << 40,
                available: 1 << 40,
            },
            unreadable: HashSet::new(),
        };
        let world = Arc::new(Mutex::new(world));
        Self { world, root }
    }

    /// The folder to spool in.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// From here on nothing below `+usage` can be written, or all of it again.
    pub fn set_usage_fails(&self, fails: bool) {
        self.lock().usage_fails = fails;
    }

    /// Locks that are held.
    pub fn locks(&self) -> usize {
        self.lock().locks.len()
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// Sets what goes wrong, in operations counted from now.
    pub fn set_fault(&self, fault: Option<Fault>) {
        let mut world = self.lock();
        world.ops = 0;
        world.fault = fault;
    }

    /// Operations since the last [`SimDisk::set_fault`].
    pub fn ops(&self) -> u64 {
        self.lock().ops
    }

    /// What was done, as `operation path`; and forgets it.
    pub fn take_log(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().log)
    }

    /// Room of the file system.
    pub fn set_space(&self, space: Space) {
        self.lock().space = space;
    }

    /// A file that cannot be opened, or a folder in which none can.
    pub fn make_unreadable(&self, path: &Path) {
        self.lock().unreadable.insert(path.to_owned());
    }

    /// Returns the paths of all files except the usage files of the processes.
    pub fn files(&self) -> Vec<PathBuf> {
        let world = self.lock();
        let usage = self.root.join(USAGE);
        let is_counted = |path: &PathBuf, node: &Node| matches!(node, Node::File(_)) && !path.starts_with(&usage);
        let files = world.names.iter().filter(|(path, node)| is_counted(path, node));
        files.map(|(path, _)| path.clone()).collect()
    }

    /// Paths of all folders below the root, but for that one.
    pub fn dirs(&self) -> Vec<PathBuf> {
        let world = self.lock();
        let below = |p: &&PathBuf| p.starts_with(&self.root) && **p != self.root && !p.ends_with(USAGE);
        let dirs = world
            .names
            .iter()
            .filter(|(_, node)| **node == Node::Dir)
            .map(|(path, _)| path);
        dirs.filter(below).cloned().collect()
    }

    /// A file's bytes.
    pub fn bytes(&self, path: &Path) -> Vec<u8> {
        let world = self.lock();
        match world.names[path] {
            Node::File(id) => world.inodes[id].now.clone(),
            Node::Dir => panic!("a folder"),
        }
    }

    /// Puts a file there, durably, with the folders above it.
    pub fn put(&self, path: &Path, bytes: &[u8]) {
        let mut world = self.lock();
        for above in path.ancestors().skip(1) {
            world.names.insert(above.to_owned(), Node::Dir);
            world.durable.insert(above.to_owned(), Node::Dir);
        }
        let node = Node::File(world.inodes.len());
        world.inodes.push(Inode {
            durable: bytes.to_vec(),
            now: bytes.to_vec(),
            pending: Vec::new(),
        });
        world.names.insert(path.to_owned(), node);
        world.durable.insert(path.to_owned(), node);
    }

    /// Somebody removes a folder with all that is in it, durably. Open files can still be read and written.
    pub fn remove_tree(&self, path: &Path) {
        let mut world = self.lock();
        world.names.retain(|name, _| !name.starts_with(path));
        world.durable.retain(|name, _| !name.starts_with(path));
        world.pending.retain(|op| !op.is_below(path));
    }

    /// The process dies and the machine lives: everything stays, locks are free. The disk for the next process.
    pub fn kill(&self) -> Self {
        let mut old = self.lock();
        let mut world = old.clone();
        old.dead = true;
        world.locks.clear();
        world.fault = None;
        world.log.clear();
        Self {
            world: Arc::new(Mutex::new(world)),
            root: self.root.clone(),
        }
    }

    /// The power fails. The disk for the next process.
    pub fn crash(&self) -> Self {
        let next = self.kill();
        {
            let mut guard = next.lock();
            let world = &mut *guard;
            let mood = world.roll(3);
            for id in 0..world.inodes.len() {
                let survivor = world.survivor(id, mood);
                world.inodes[id] = survivor;
            }
            let mut names = world.durable.clone();
            for op in std::mem::take(&mut world.pending) {
                if world.survives(mood) {
                    op.apply(&mut names);
                }
            }
            let orphan = |path: &Path, names: &BTreeMap<PathBuf, Node>| path.ancestors().any(|p| !names.contains_key(p));
            let all = names.clone();
            names.retain(|path, _| !orphan(path, &all));
            world.durable = names.clone();
            world.names = names;
        }
        next
    }
}

impl World {
    /// A number below `n` (splitmix64).
    fn roll(&mut self, n: u64) -> u64 {
        self.chance = self.chance.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut x = self.chance;
        x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (x ^ (x >> 31)) % n
    }

    /// Mode 0: nothing survives; 1: everything; 2: by chance.
    fn survives(&mut self, mood: u64) -> bool {
        mood == 1 || mood == 2 && self.roll(2) == 0
    }

    fn survivor(&mut self, id: usize, mood: u64) -> Inode {
        let mut image = self.inodes[id].durable.clone();
        for pending in self.inodes[id].pending.clone() {
            match &pending {
                Pending::Write { given_up: true, .. } => {}
                Pending::Write { offset, bytes, .. } if mood == 2 => self.tear(&mut image, *offset, bytes),
                _ if self.survives(mood) => pending.apply(&mut image),
                _ => {}
            }
        }
        Inode {
            durable: image.clone(),
            now: image,
            pending: Vec::new(),
        }
    }

    /// Applies a write partly, by chance: all of it, nothing, its beginning, or some pages. Other pages keep their bytes or
    /// become zeros.
    fn tear(&mut self, image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
        match self.roll(4) {
            0 => {}
            1 => overwrite(image, offset, bytes),
            2 => {
                let kept = usize::try_from(self.roll(bytes.len() as u64 + 1)).unwrap();
                overwrite(image, offset, &bytes[..kept]);
            }
            _ => {
                image.resize(image.len().max(offset + bytes.len()), 0);
                for (i, page) in bytes.chunks(PAGE).enumerate() {
                    if self.roll(2) == 0 {
                        overwrite(image, offset + i * PAGE, page);
                    }
                }
            }
        }
    }

    /// Counts an operation. Returns an error if it is set to fail.
    fn begin(&mut self, op: &str, path: &Path) -> io::Result<()> {
        if self.dead {
            return Err(io::Error::other("this process is dead"));
        }
        // The exchange between processes is no part of the promises, and has tests of its own.
        if path.iter().any(|part| part == USAGE) {
            return if self.usage_fails {
                Err(io::Error::from_raw_os_error(5))
            } else {
                Ok(())
            };
        }
        let n = self.ops;
        self.ops += 1;
        self.log.push(format!("{op} {}", path.display()));
        match self.fault {
            Some(Fault::Once(at, errno)) if at == n => Err(io::Error::from_raw_os_error(errno)),
            Some(Fault::Dead(at)) if at <= n => Err(io::Error::from_raw_os_error(5)),
            _ => Ok(()),
        }
    }

    fn readable(&self, path: &Path) -> io::Result<()> {
        match path.ancestors().any(|above| self.unreadable.contains(above)) {
            true => Err(ErrorKind::PermissionDenied.into()),
            false => Ok(()),
        }
    }

    fn parent(&self, path: &Path) -> io::Result<()> {
        match self.names.get(path.parent().unwrap()) {
            Some(Node::Dir) => Ok(()),
            _ => Err(ErrorKind::NotFound.into()),
        }
    }

    fn file(&self, path: &Path) -> io::Result<usize> {
        match self.names.get(path) {
            Some(Node::File(id)) => Ok(*id),
            Some(Node::Dir) => Err(ErrorKind::IsADirectory.into()),
            None => Err(ErrorKind::NotFound.into()),
        }
    }

    fn change(&mut self, op: NameOp) {
        op.apply(&mut self.names);
        self.pending.push(op);
    }

    fn make(&mut self, path: &Path) -> usize {
        let id = self.inodes.len();
        self.inodes.push(Inode::default());
        self.change(NameOp::Add(path.to_owned(), Node::File(id)));
        id
    }
}

fn overwrite(image: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    image.resize(image.len().max(offset + bytes.len()), 0);
    image[offset..offset + bytes.len()].copy_from_slice(bytes);
}
