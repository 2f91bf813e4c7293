//! The floor under every figure of CPU: what the client crate and the kernel need to store bytes from memory, with no pipeline,
//! no container and no limits.
//!
//! Uploads objects of 5 MiB in blocks of 256 KiB through `GcsWriter` over plain HTTP, one after the other. The memory is as
//! cold as that of a sink's chunks: the bench holds as many objects as a sink with full memory, uploads the oldest, and then
//! writes its blocks again, frame by frame. Only the upload is measured. `benches/line.py` runs it beside its launch lines.
//!
//! `cargo bench --bench client [-- ENDPOINT [MB]]`; without an endpoint the storage is a thread of the bench.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    reason = "a bench talks to its user and may fail loudly"
)]

mod common;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::server::Server;
use gcstreamer_storage::{Body, ClientPool, Credentials, Endpoint, GcsWriter, ObjectRequest, ObjectWriter, Unpaced};

const BLOCK: usize = 256 << 10;
/// Blocks of an object: 5 MiB, 10 s of a camera of 4 Mbit/s.
const BLOCKS: usize = 20;
/// Bytes of a frame of that camera.
const FRAME: usize = 20_000;
/// Objects held in memory: 65 MiB, about what a sink holds at most by default (`max-memory-bytes`).
///
/// Writing an object reads as many bytes of the stream, so 120 MiB pass through the caches between the writing of an object
/// and its upload. An object that is uploaded at once, or again and again, is still in the last-level cache.
const OBJECTS: usize = 13;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|a| !a.starts_with('-'));
    let endpoint = arguments.next().unwrap_or_else(|| Server::start().endpoint);
    let megabytes: usize = arguments.next().map_or(1000, |text| text.parse().unwrap());
    let objects = (megabytes * 1_000_000).div_ceil(BLOCK * BLOCKS);

    let endpoint = Endpoint::resolve(Some(&endpoint), None).unwrap();
    let writer = GcsWriter::new(&ClientPool::new(), endpoint, Credentials::Anonymous);
    // On one thread, so that its time is the client's and nobody else's.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut memory = Memory::new();
    let mut waiting: VecDeque<ObjectRequest> = (0..OBJECTS).map(|number| memory.write(number)).collect();
    let (mut used, mut took) = (Duration::ZERO, Duration::ZERO);
    for number in 0..=objects {
        let request = waiting.pop_front().unwrap();
        let (began, before) = (Instant::now(), thread_cpu());
        runtime
            .block_on(async { writer.write(&request, Arc::new(Unpaced)).await })
            .unwrap();
        // The first opens the connection.
        if number > 0 {
            used += thread_cpu() - before;
            took += began.elapsed();
        }
        drop(request);
        waiting.push_back(memory.write(number + OBJECTS));
    }
    let gigabytes = (objects * BLOCK * BLOCKS) as f64 / 1e9;
    let (used, speed) = (used.as_secs_f64() / gigabytes, gigabytes * 1000.0 / took.as_secs_f64());
    println!("{used:.3} CPU-seconds for each GB without start and stop; {objects} objects, {speed:.0} MB/s");
}

/// Returns the CPU time of the calling thread.
///
/// `common::ran_and_waited` does not do here: the kernel updates it only at a tick or when the thread sleeps, so a part of the
/// copying before an upload would count as the upload's.
fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.try_into().unwrap(), time.tv_nsec.try_into().unwrap())
}

/// The blocks of the objects that are held, and the stream that is copied into them.
struct Memory {
    stream: Vec<u8>,
    blocks: Vec<Bytes>,
}

impl Memory {
    fn new() -> Self {
        // A linear congruential generator, since the kernel may merge equal pages into one.
        let mut word = 1u64;
        let words = std::iter::repeat_with(|| {
            word = word
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            word.to_be_bytes()
        });
        Self {
            stream: words.take(OBJECTS * BLOCKS * BLOCK / 8).flatten().collect(),
            blocks: (0..OBJECTS * BLOCKS).map(|_| Bytes::from(vec![0; BLOCK])).collect(),
        }
    }

    /// Writes an object as a streaming thread does, into the blocks of the one that was written [`OBJECTS`] before it.
    fn write(&mut self, number: usize) -> ObjectRequest {
        let first = number % OBJECTS * BLOCKS;
        let (mut crc32c, mut pieces) = (0, Vec::with_capacity(BLOCKS));
        for (n, block) in self.blocks.iter_mut().enumerate().skip(first).take(BLOCKS) {
            let mut memory = std::mem::take(block)
                .try_into_mut()
                .expect("the upload of the object that was here has ended");
            memory.clear();
            for frame in self.stream[n * BLOCK..][..BLOCK].chunks(FRAME) {
                memory.extend_from_slice(frame);
                crc32c = crc32c::crc32c_append(crc32c, frame);
            }
            *block = memory.freeze();
            pieces.push(block.clone());
        }
        ObjectRequest {
            bucket: "bench".into(),
            name: format!("chunk{number:06}"),
            content_type: "video/x-flv".into(),
            cache_control: None,
            storage_class: None,
            kms_key: None,
            metadata: BTreeMap::from([("device-id".into(), "bench".into())]),
            custom_time: None,
            crc32c,
            size: (BLOCK * BLOCKS) as u64,
            body: Body::from_pieces(pieces),
        }
    }
}
