//! Errors of the spool.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use gcstreamer_schema::units::bytes;

/// The limit that is reached, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// Property `max-spool-bytes`.
    Max {
        /// Bytes in use, including the room reserved to close open chunks.
        used: u64,
        /// The limit.
        max: u64,
    },
    /// The free room that `max-spool-bytes=0` leaves to the file system.
    Free {
        /// Bytes free now.
        available: u64,
        /// Bytes that must stay free.
        keep: u64,
    },
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Max { used, max } => write!(
                f,
                "{} are in use or kept to close chunks, and max-spool-bytes is {max} ({}), the smallest of all sinks with this spool-dir: raise it, or raise max-bytes-per-second if that limit delays the backlog",
                bytes(*used),
                bytes(*max)
            ),
            Self::Free { available, keep } => write!(
                f,
                "{} are free and max-spool-bytes=0 leaves the file system {} of them: make room, or set max-spool-bytes",
                bytes(*available),
                bytes(*keep)
            ),
        }
    }
}

/// An error of the spool. Every text names the path.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// A limit of the spool is reached.
    #[error("spool-dir {root}: no room for {} more: {limit}", bytes(*needed), root = .root.display())]
    Full {
        /// The spool's folder.
        root: PathBuf,
        /// Bytes needed.
        needed: u64,
        /// The limit.
        limit: Limit,
    },
    /// The file system or the user's disk quota is full.
    #[error("cannot {op} {path} in spool-dir: {source}: make room on this file system, or set max-spool-bytes lower", path = .path.display())]
    NoSpace {
        /// The operation that failed.
        op: &'static str,
        /// Path of the file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// Any other error of the disk.
    #[error("cannot {op} {path} in spool-dir: {source}", path = .path.display())]
    Io {
        /// The operation that failed.
        op: &'static str,
        /// Path of the file or folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The bytes are not what was written.
    #[error("{path}: the record at byte {offset} is damaged", path = .path.display())]
    Damaged {
        /// The chunk's file.
        path: PathBuf,
        /// Offset of the record in the file.
        offset: u64,
    },
    /// Another process or sink holds the session.
    #[error("the session folder {path} is in use by another sink", path = .path.display())]
    Busy {
        /// The session's folder.
        path: PathBuf,
    },
    /// The call does not fit the state of the chunk: a bug in the caller.
    #[error("{path}: {what}", path = .path.display())]
    Misuse {
        /// The chunk's file, or its folder.
        path: PathBuf,
        /// What does not fit.
        what: String,
    },
}

impl SpoolError {
    /// Returns whether there is no room, by our limit or the disk's.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full { .. } | Self::NoSpace { .. })
    }

    /// Returns whether there would be room if `bytes` of files were removed from the spool. False for a disk that other programs
    /// have filled beyond that.
    pub fn is_fixed_by(&self, bytes: u64) -> bool {
        match self {
            Self::Full {
                needed,
                limit: Limit::Free { available, keep },
                ..
            } => available.saturating_add(bytes) >= keep.saturating_add(*needed),
            _ => self.is_full(),
        }
    }

    /// Returns whether nothing can be written now: no room, or a read-only file system.
    pub fn takes_nothing(&self) -> bool {
        let read_only = |e: &io::Error| e.kind() == ErrorKind::ReadOnlyFilesystem;
        self.is_full() || matches!(self, Self::Io { source, .. } if read_only(source))
    }

    /// Returns whether the disk did not answer.
    pub fn is_hung(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == ErrorKind::TimedOut)
    }

    /// Returns whether the error is temporary and independent of the file: the disk does not answer, or too many files are open.
    /// Try again.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_passing(source))
    }

    /// Creates the error of a failed read.
    pub fn reading(path: PathBuf, source: io::Error) -> Self {
        Self::Io {
            op: "read",
            path,
            source,
        }
    }

    /// Converts the system's error for an operation.
    pub(super) fn io(op: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Self::NoSpace { op, path, source },
            _ => Self::Io { op, path, source },
        }
    }

    /// Creates the error for a bug in the caller.
    pub(super) fn misuse(path: &Path, what: impl Into<String>) -> Self {
        Self::Misuse {
            path: path.to_owned(),
            what: what.into(),
        }
    }
}

/// See [`SpoolError::is_passing`].
pub(super) fn is_passing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let code = error.raw_os_error();
    let too_many = [Errno::MFILE, Errno::NFILE].map(|e| Some(e.raw_os_error())).contains(&code);
    too_many || error.kind() == ErrorKind::TimedOut
}
