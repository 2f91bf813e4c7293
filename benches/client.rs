//! The floor under every figure of CPU: what the client crate and the kernel need to store bytes that lie ready in memory,
//! with no pipeline, no container and no limits.
//!
//! Objects of 5 MiB in blocks of 256 KiB, their CRC32C known beforehand, go through `GcsWriter` over plain HTTP, one after the
//! other. `benches/line.py` runs it beside its launch lines.
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

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use common::server::Server;
use gcstreamer_storage::{Body, ClientPool, Credentials, Endpoint, GcsWriter, ObjectRequest, ObjectWriter, Unpaced};

const BLOCK: usize = 256 << 10;
/// Blocks of an object: 5 MiB, 10 s of a camera of 4 Mbit/s.
const BLOCKS: usize = 20;
/// Objects that are there to be stored again and again.
const OBJECTS: usize = 4;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|a| !a.starts_with('-'));
    let endpoint = arguments.next().unwrap_or_else(|| Server::start().endpoint);
    let megabytes: usize = arguments.next().map_or(1000, |text| text.parse().unwrap());
    let objects = (megabytes * 1_000_000).div_ceil(BLOCK * BLOCKS);

    let endpoint = Endpoint::resolve(Some(&endpoint), None).unwrap();
    let writer = GcsWriter::new(&ClientPool::new(), endpoint, Credentials::Anonymous);
    // More than one, so that the bytes are no more in the processor's cache than those of a stream.
    let contents: Vec<ObjectRequest> = (0..OBJECTS).map(object).collect();
    // On one thread, so that its time is the client's and nobody else's.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let store = |i: usize| {
        let mut request = contents[i % OBJECTS].clone();
        request.name = format!("chunk{i:06}");
        runtime
            .block_on(async { writer.write(&request, Arc::new(Unpaced)).await })
            .unwrap()
    };
    // Opens the connection.
    store(0);
    let (began, before) = (Instant::now(), common::ran_and_waited().0);
    for i in 0..objects {
        store(i);
    }
    let gigabytes = (objects * BLOCK * BLOCKS) as f64 / 1e9;
    let used = (common::ran_and_waited().0 - before).as_secs_f64() / gigabytes;
    let speed = gigabytes * 1000.0 / began.elapsed().as_secs_f64();
    println!("{used:.3} CPU-seconds for each GB without start and stop; {objects} objects, {speed:.0} MB/s");
}

fn object(number: usize) -> ObjectRequest {
    let block = |n: usize| Bytes::from(vec![u8::try_from(number * BLOCKS + n).unwrap(); BLOCK]);
    let blocks: Vec<Bytes> = (0..BLOCKS).map(block).collect();
    ObjectRequest {
        bucket: "bench".into(),
        name: String::new(),
        content_type: "video/x-flv".into(),
        cache_control: None,
        storage_class: None,
        kms_key: None,
        metadata: BTreeMap::from([("device-id".into(), "bench".into())]),
        custom_time: None,
        crc32c: blocks.iter().fold(0, |crc, block| crc32c::crc32c_append(crc, block)),
        size: (BLOCK * BLOCKS) as u64,
        body: Body::from_pieces(blocks),
    }
}
