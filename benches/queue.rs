//! What the lock that `render` takes for each buffer costs with a long backlog: a charge, the driver's look, `stats`.
//!
//! `cargo bench --bench queue`

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench talks to its user and may fail loudly"
)]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use gcstreamer_storage::{Body, Class, ObjectRequest};
use gstgcstreamer::upload::chunk::{Chunk, MemoryChunk, NameFallback, Place, Summary};
use gstgcstreamer::upload::queue::{Overflow, UploadLimits, UploadQueue};
use gstgcstreamer::upload::scheduler::{Outcome, Scheduler};
use gstgcstreamer::upload::ticket::Ticket;

const SECOND: u64 = 1_000_000_000;
/// Of each question; the best of the rounds counts.
const CALLS: u32 = 20_000;
const ROUNDS: usize = 5;

fn main() {
    println!("\n## With a backlog, ns a call (best of {ROUNDS} rounds of {CALLS})\n");
    println!("| call | 1,000 chunks | 100,000 chunks | ratio |\n|---|---:|---:|---:|");
    row("charge and release, as `render`", |pending| {
        let queue = queue(pending);
        time(|| {
            assert!(queue.charge(1, Overflow::Block).is_taken());
            queue.release(1);
        })
    });
    row("`stats`", |pending| {
        let queue = queue(pending);
        time(|| assert_eq!(queue.snapshot().pending.chunks, pending))
    });
    row("what is due, in a pause", |pending| {
        let mut scheduler = scheduler(pending);
        let failed = Outcome::Failed {
            class: Class::Transient,
            retry_after: Some(100 * SECOND),
        };
        let ticket = scheduler.next(0).unwrap();
        scheduler.done(ticket, failed, 0);
        time(|| assert!(scheduler.next(SECOND).is_none() && scheduler.wake_at(SECOND) > Some(SECOND)))
    });
    row("one chunk sent and stored", |pending| {
        let mut scheduler = scheduler(pending);
        let mut new = pending;
        time(|| {
            let ticket = scheduler.next(0).unwrap();
            scheduler.done(ticket, Outcome::Stored, 0);
            scheduler.queue(Ticket::own(new), None, 0);
            new += 1;
        })
    });
}

fn row(what: &str, ns: impl Fn(u64) -> f64) {
    let (few, many) = (ns(1_000), ns(100_000));
    println!("| {what} | {few:.0} | {many:.0} | {:.1} |", many / few);
}

fn time(mut call: impl FnMut()) -> f64 {
    let round = |_| {
        let began = Instant::now();
        (0..CALLS).for_each(|_| call());
        began.elapsed().as_nanos() as f64 / f64::from(CALLS)
    };
    (0..ROUNDS).map(round).fold(f64::INFINITY, f64::min)
}

fn scheduler(pending: u64) -> Scheduler {
    let mut scheduler = Scheduler::new(4, 7);
    (0..pending).for_each(|sequence| scheduler.queue(Ticket::own(sequence), None, 0));
    scheduler
}

fn queue(pending: u64) -> UploadQueue {
    let limits = UploadLimits {
        max_uploads: 4,
        max_memory: 1 << 40,
        max_time: 10 * SECOND,
        retry_timeout: None,
    };
    let queue = UploadQueue::new(limits, 7, Box::new(|| {}));
    for sequence in 0..pending {
        queue.queue(chunk(sequence));
    }
    queue
}

fn chunk(sequence: u64) -> Chunk {
    let session: Arc<str> = "0a1b2c3d4e".into();
    Chunk {
        summary: Summary {
            session: Arc::clone(&session),
            sequence,
            start: sequence * SECOND,
            duration: SECOND,
            running: None,
            size: 0,
        },
        place: Place::Memory(Arc::new(MemoryChunk {
            request: ObjectRequest {
                bucket: "bucket".to_owned(),
                name: String::new(),
                content_type: String::new(),
                cache_control: None,
                storage_class: None,
                kms_key: None,
                metadata: BTreeMap::new(),
                custom_time: None,
                crc32c: 0,
                size: 0,
                body: Body::from_pieces([]),
            },
            naming: NameFallback {
                session: session.to_string(),
                sequence,
                own: true,
                rebuilt: false,
            },
            sent: Arc::default(),
            charged: 0,
            head: Bytes::new(),
            entry: None,
            part: None,
        })),
        recovered: false,
        link_key: None,
        renamed: None,
        closed_at: 0,
    }
}
