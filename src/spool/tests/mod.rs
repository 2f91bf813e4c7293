//! The promises of `docs/spool.md`, on a disk that crashes and fails, and on the real one.

use std::sync::Arc;

use bytes::Bytes;

use super::disk::Disk;
use super::sim::SimDisk;
use super::{Adoption, ChunkReader, ClosedEntry, Entry, Found, OpenChunk, Session, Spool, Stored, adopt};

mod damage;
mod faults;
mod model;
mod promises;
mod real;
mod removed;
mod shared;

/// Header bytes of every test chunk.
const INIT: u64 = 10;

fn spool_on(disk: &SimDisk, max: u64) -> Arc<Spool> {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    Spool::open(shared, disk.root(), max).unwrap()
}

fn entry(session: &str, sequence: u64) -> Entry {
    Entry {
        session: session.into(),
        sequence,
        device: "store/cam".into(),
        bucket: format!("bucket-of-{session}"),
        endpoint: Some("http://127.0.0.1:4443".into()),
        name: format!("store/cam/{session}_{sequence:06}.ts"),
        own_name: true,
        init_bytes: INIT,
        input_offset: sequence * 100_000,
        start: 1_795_329_912_000_000_000,
        clock: "system".into(),
        boot_id: "boot".into(),
        ..Entry::default()
    }
}

fn closed(entry: Entry, object: &[u8]) -> ClosedEntry {
    ClosedEntry {
        entry,
        size: object.len() as u64,
        crc32c: crc32c::crc32c(object),
    }
}

/// Bytes that belong to one chunk only.
fn content(session: &str, sequence: u64, len: usize) -> Vec<u8> {
    let seed = crc32c::crc32c(format!("{session}:{sequence}").as_bytes());
    (0..len)
        .map(|i| {
            seed.wrapping_add(u32::try_from(i).unwrap())
                .wrapping_mul(2_654_435_761)
                .to_le_bytes()[3]
        })
        .collect()
}

fn append(chunk: &mut OpenChunk, all: &[u8], to: usize) {
    let from = usize::try_from(chunk.len_on_file()).unwrap();
    chunk.append(from as u64, &[Bytes::copy_from_slice(&all[from..to])]).unwrap();
}

fn finished(session: &Session, entry: &Entry, object: &[u8]) -> Stored {
    let mut chunk = session.create(entry).unwrap();
    append(&mut chunk, object, object.len());
    chunk.finish(&closed(entry.clone(), object)).unwrap()
}

fn read_all(mut reader: ChunkReader) -> std::io::Result<Vec<u8>> {
    let mut all = Vec::new();
    loop {
        let bytes = reader.read_at(all.len() as u64, 1 << 20)?;
        if bytes.is_empty() {
            return Ok(all);
        }
        all.extend_from_slice(&bytes);
    }
}

/// All that an adoption found.
fn all(adoption: Adoption) -> Vec<Found> {
    adoption.sessions.into_iter().flat_map(|s| s.chunks).collect()
}

/// The only chunk found; all has to go well.
fn only(spool: &Arc<Spool>) -> Found {
    let adoption = adopt(spool);
    assert!(adoption.notices.is_empty(), "{:?}", adoption.notices);
    let mut found = all(adoption);
    assert_eq!(found.len(), 1, "{found:?}");
    found.remove(0)
}

fn stored(found: Found) -> Stored {
    match found {
        Found::Upload(stored) => stored,
        Found::Rebuild(partial) => panic!("half: {partial:?}"),
    }
}
