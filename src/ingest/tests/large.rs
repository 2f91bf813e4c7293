//! Buffers larger than the limit of the memory.

use super::*;

/// FLV of this many seconds: a key frame every second, each second `size` bytes in ten tags.
fn stream(seconds: u32, size: usize) -> Vec<u8> {
    let config = [
        0x17, 0, 0, 0, 0, 1, 100, 0, 30, 0xff, 0xe1, 0, 6, 0x67, 100, 0, 30, 1, 2, 1, 0, 2, 0x68, 0xee,
    ];
    let mut stream = [&b"FLV\x01\x01\0\0\0\x09\0\0\0\0"[..], &tag(9, 0, &config)].concat();
    for i in 0..seconds * 10 {
        let (flags, nal) = if i % 10 == 0 { (0x17, 0x65) } else { (0x27, 0x61) };
        let len = u32::try_from(size / 10 - 20).unwrap();
        let body = [
            &[flags, 1, 0, 0, 0][..],
            &len.to_be_bytes(),
            &[nal],
            &vec![0x88; size / 10 - 21],
        ]
        .concat();
        stream.extend(tag(9, i * 100, &body));
    }
    stream
}

/// Returns the number of chunks of a stream in buffers of `buffer` bytes, stored by a server that answers, and the warnings.
async fn chunks_of(stream: &[u8], buffer: usize, max_memory: u64) -> (u64, Vec<Warning>) {
    let config = wide(max_memory);
    let config = Config {
        limits: Limits {
            soft: max_memory / 4,
            hard: max_memory / 2,
            ..config.limits
        },
        overflow: Some(Overflow::Block),
        ..config
    };
    let queue = UploadQueue::new(config.uploads, 1, Box::new(|| {}));
    let (engine, posted) = begin(Server { answers: true }, config, queue, None);
    let pushing = {
        let (engine, runtime, stream) = (Arc::clone(&engine), Handle::current(), stream.to_vec());
        std::thread::spawn(move || {
            let _time = runtime.enter();
            for piece in stream.chunks(buffer) {
                engine.reserve(piece.len() as u64, &never_paused()).unwrap();
                let held = engine.queue.snapshot().memory;
                assert!(held <= max_memory, "{held} bytes of {max_memory}");
                engine
                    .push(piece, || Some(Bytes::copy_from_slice(piece)), stamp(), false, &never_paused())
                    .unwrap();
            }
            engine.with(|ingest| ingest.finish()).unwrap();
        })
    };
    while !pushing.is_finished() {
        sleep(Duration::from_millis(10)).await;
    }
    pushing.join().unwrap();
    sleep(Duration::from_secs(60)).await;
    let now = engine.queue.snapshot();
    assert_eq!((now.stats.dropped, now.stats.bytes_received), (0, stream.len() as u64));
    assert_eq!(now.memory, 0, "all is stored");
    let posted = lock(&posted.0).clone();
    let warnings = posted.iter().filter_map(|message| match message {
        Message::Warning { warning, .. } => Some(warning.clone()),
        _ => None,
    });
    (now.stats.created, warnings.collect())
}

#[tokio::test(start_paused = true)]
async fn buffers_larger_than_the_memory_become_the_chunks_that_small_ones_become() {
    let stream = stream(70, 100_000);
    for max_memory in [1 << 20, 4 << 20] {
        let small = chunks_of(&stream, 4096, max_memory).await;
        assert!(
            matches!(small.1[..], [] | [Warning::EarlyCut { at_key: true, .. }]),
            "{small:?}"
        );
        for buffer in [600_000, 4 << 20, 16 << 20] {
            let large = chunks_of(&stream, buffer, max_memory).await;
            assert_eq!(large.0, small.0, "buffers of {buffer}: {large:?}");
            assert!(
                matches!(large.1[..], [] | [Warning::EarlyCut { at_key: true, .. }]),
                "buffers of {buffer}: {large:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_flush_within_a_buffer_larger_than_the_memory_leaves_nothing_charged() {
    let config = Config {
        overflow: Some(Overflow::Block),
        ..wide(1 << 20)
    };
    let limits = Limits {
        soft: 1 << 18,
        hard: 1 << 19,
        ..config.limits
    };
    let config = Config { limits, ..config };
    let queue = UploadQueue::new(config.uploads, 1, Box::new(|| {}));
    let (engine, _) = begin(Server { answers: false }, config, queue, None);
    let stream = stream(70, 100_000);
    engine.reserve(stream.len() as u64, &never_paused()).unwrap();
    let pushing = {
        let (engine, runtime) = (Arc::clone(&engine), Handle::current());
        std::thread::spawn(move || {
            let _time = runtime.enter();
            engine.push(&stream, || None, stamp(), false, &Pauses(|| Err("flushing")))
        })
    };
    while engine.held.until() != u64::MAX {
        std::thread::yield_now();
    }
    engine.queue.interrupt(true);
    assert_eq!(pushing.join().unwrap(), Err(Refusal::Flow("flushing")));
    engine.with(|ingest| ingest.finish()).unwrap();
    engine.queue.abandon("drain-timeout", false);
    assert_eq!(engine.queue.snapshot().memory, 0);
    engine.reserve(1000, &never_paused()).unwrap();
    engine.give_back(1000);
    assert_eq!(engine.queue.snapshot().memory, 0);
}
