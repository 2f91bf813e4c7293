//! Chunks of the spool as the uploads see them: an object to store, whose bytes are read from its file.
//!
//! Blocks on the disk. Errors of marking and removing are logged by nobody and lose nothing: the chunk comes back at the next
//! start and meets its own object.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::attempt::Naming;
use super::chunk::{Kept, Loaded, Unloaded};
use super::redate::redate;
use super::uploads::Uploads;
use crate::spool::{Boots, ChunkReader, ClosedEntry, OpenChunk, SpoolError, Stored, boot};
use crate::sync::lock;
use crate::wall;
use gcstreamer_storage::{Backing, Body, ObjectRequest};

/// What time it is, as far as that can be believed, and was in other boots of the machine.
#[derive(Debug, Default)]
pub struct Times {
    boots: Mutex<Boots>,
    boot_id: String,
    /// Asked whether this machine's clock is known to be wrong.
    uploads: Weak<Uploads>,
}

impl Times {
    /// Nothing is known of other boots yet.
    pub fn new(uploads: &Arc<Uploads>) -> Self {
        Self {
            boots: Mutex::default(),
            boot_id: boot::boot_id().unwrap_or_default(),
            uploads: Arc::downgrade(uploads),
        }
    }

    /// What the entries of the spool tell.
    pub fn learn(&self, boots: &Boots) {
        lock(&self.boots).merge(boots);
    }

    fn now(&self) -> Boots {
        let mut boots = Boots::default();
        let wall = wall::now();
        let is_off = self.uploads.upgrade().is_some_and(|u| u.clock_off().is_some());
        if !is_off && wall >= gcstreamer_media::chunk::clock::EARLIEST_PLAUSIBLE {
            boots.learn(&self.boot_id, wall, boot::boot_ns());
        }
        boots.merge(&lock(&self.boots));
        boots
    }
}

/// A closed chunk on disk.
pub struct SpoolChunk {
    stored: Mutex<Stored>,
    times: Arc<Times>,
    damage: OnceLock<String>,
}

impl SpoolChunk {
    /// From the spool.
    pub fn new(stored: Stored, times: Arc<Times>) -> Arc<Self> {
        Arc::new(Self {
            stored: Mutex::new(stored),
            times,
            damage: OnceLock::new(),
        })
    }

    fn read_entry(&self) -> Result<ClosedEntry, SpoolError> {
        let mut stored = lock(&self.stored);
        let closed = stored.load()?;
        let Some(entry) = redate(&closed.entry, &self.times.now()) else {
            return Ok(closed);
        };
        // Durable before the first attempt: after a crash it is tried under the same name.
        let redated = ClosedEntry { entry, ..closed.clone() };
        match stored.settle(&redated) {
            Ok(()) => Ok(redated),
            // A chunk with its old date is better than one that waits for room: it makes some by being sent.
            Err(e) if e.takes_nothing() => Ok(closed),
            Err(e) => Err(e),
        }
    }
}

impl fmt::Debug for SpoolChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SpoolChunk({})", lock(&self.stored).path().display())
    }
}

impl Kept for SpoolChunk {
    fn load(self: Arc<Self>) -> Result<Loaded, Unloaded> {
        let closed = self.read_entry().map_err(|e| {
            let is_lost = matches!(e, SpoolError::Damaged { .. }) || lock(&self.stored).is_removed();
            let kind = if is_lost { Unloaded::Damaged } else { Unloaded::Unreadable };
            kind(e.to_string())
        })?;
        let body = Body::backed(
            Arc::new(FileBody {
                chunk: Arc::clone(&self),
                reader: Mutex::new(None),
            }),
            closed.size,
            [],
        );
        Ok(loaded(closed, body))
    }

    fn confirm(&self) {
        let _ = lock(&self.stored).confirm();
    }

    fn discard(&self) {
        let _ = lock(&self.stored).discard();
    }

    fn damage(&self) -> Option<String> {
        self.damage.get().cloned()
    }

    fn set_aside(&self, why: &str) -> String {
        match lock(&self.stored).quarantine() {
            Ok(path) => format!(
                "a chunk of the spool cannot be used and was set aside as {}: {why}",
                path.display()
            ),
            Err(e) => format!("a chunk of the spool cannot be used ({why}), nor set aside: {e}"),
        }
    }
}

/// An entry as an object.
fn loaded(closed: ClosedEntry, body: Body) -> Loaded {
    let ClosedEntry { entry, size, crc32c } = closed;
    let custom_time = entry
        .custom_time
        .and_then(|ns| SystemTime::UNIX_EPOCH.checked_add(Duration::from_nanos(ns)));
    Loaded {
        request: ObjectRequest {
            bucket: entry.bucket,
            name: entry.name,
            content_type: entry.content_type.unwrap_or_else(|| "application/octet-stream".to_owned()),
            cache_control: entry.cache_control,
            storage_class: entry.storage_class,
            kms_key: entry.kms_key,
            metadata: entry.metadata,
            custom_time,
            crc32c,
            size,
            body,
        },
        naming: Naming {
            session: entry.session,
            sequence: entry.sequence,
            own: entry.own_name,
            rebuilt: entry.rebuilt,
        },
        endpoint: entry.endpoint,
        anonymous: entry.anonymous,
        start: entry.start,
    }
}

/// The bytes of a closed chunk; its file is open as long as an attempt reads it.
struct FileBody {
    chunk: Arc<SpoolChunk>,
    reader: Mutex<Option<ChunkReader>>,
}

impl fmt::Debug for FileBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.chunk.fmt(f)
    }
}

impl Backing for FileBody {
    fn read_at(&self, offset: u64, most: usize) -> io::Result<Bytes> {
        let mut reader = lock(&self.reader);
        if reader.is_none() {
            *reader = Some(lock(&self.chunk.stored).reader().map_err(io::Error::other)?);
        }
        let Some(reader) = reader.as_mut() else {
            return Ok(Bytes::new());
        };
        reader.read_at(offset, most).inspect_err(|e| {
            if e.kind() == io::ErrorKind::InvalidData {
                let _ = self.chunk.damage.set(e.to_string());
            }
        })
    }
}

/// The part on disk of a chunk that the disk did not take whole: it has no end mark, and is sent together with the rest in
/// memory. After a crash the next start finds it and stores it as far as it goes.
#[derive(Debug)]
pub struct Part {
    open: Mutex<OpenChunk>,
    reader: Mutex<ChunkReader>,
}

impl Part {
    /// From the spool.
    pub fn new(open: OpenChunk) -> Arc<Self> {
        let reader = Mutex::new(open.reader());
        Arc::new(Self {
            open: Mutex::new(open),
            reader,
        })
    }

    /// Bytes of the object in it.
    pub fn len(&self) -> u64 {
        lock(&self.open).len_on_file()
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Backing for Part {
    fn read_at(&self, offset: u64, most: usize) -> io::Result<Bytes> {
        lock(&self.reader).read_at(offset, most)
    }
}

impl Kept for Part {
    fn load(self: Arc<Self>) -> Result<Loaded, Unloaded> {
        Err(Unloaded::Damaged("it has no end mark".to_owned()))
    }

    fn confirm(&self) {
        let _ = lock(&self.open).abandon();
    }

    fn discard(&self) {
        let _ = lock(&self.open).abandon();
    }

    fn damage(&self) -> Option<String> {
        None
    }

    fn set_aside(&self, why: &str) -> String {
        why.to_owned()
    }
}
