//! Small scenarios, one for each promise.

use bytes::Bytes;

use super::super::disk::Space;
use super::super::sim::Fault;
use super::super::{Limit, Notice, Partial, SpoolError, name_mark};
use super::*;

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

fn half(found: Found) -> Partial {
    match found {
        Found::Rebuild(partial) => partial,
        Found::Upload(stored) => panic!("closed: {stored:?}"),
    }
}

#[test]
fn p1_a_chunk_may_be_uploaded_only_after_its_bytes_and_all_its_names_are_durable() {
    let disk = SimDisk::new(1);
    let spool = spool_on(&disk, 0);
    let session = spool.session("cam", "s1").unwrap();
    let object = content("s1", 0, 5000);
    let stored = finished(&session, &entry("s1", 0), &object);
    let log = disk.take_log();
    let at = |op: &str| {
        log.iter()
            .position(|line| *line == op)
            .unwrap_or_else(|| panic!("{op} in {log:#?}"))
    };
    let (root, dir, file) = (disk.root().display(), session.dir().display(), stored.path());
    let file = file.display();
    let writes: Vec<usize> = (0..log.len()).filter(|i| log[*i] == format!("write {file}")).collect();
    // Head, data, End; the Footer comes last.
    assert_eq!(writes.len(), 4, "{log:#?}");
    assert!(writes[2] < at(&format!("sync {file}")) && at(&format!("sync {file}")) < at(&format!("sync-dir {dir}")));
    assert!(at(&format!("sync-dir {dir}")) < writes[3]);
    assert!(at(&format!("mkdir {dir}")) < at(&format!("sync-dir {root}/cam")));
    assert!(at(&format!("mkdir {root}/cam")) < at(&format!("sync-dir {root}")));
    drop((stored, session, spool));
    // Whatever survives a crash, a chunk that was closed comes back whole.
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let spool = spool_on(&disk, 0);
        let stored = finished(&spool.session("cam", "s1").unwrap(), &entry("s1", 0), &object);
        let next = disk.crash();
        drop((stored, spool));
        let found = super::stored(only(&spool_on(&next, 0)));
        assert_eq!(read_all(found.reader().unwrap()).unwrap(), object);
        assert_eq!(found.load().unwrap(), closed(entry("s1", 0), &object));
    }
}

#[test]
fn p2_a_confirmed_chunk_never_comes_back() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let spool = spool_on(&disk, 0);
        let session = spool.session("cam", "s1").unwrap();
        let mut stored = finished(&session, &entry("s1", 0), &content("s1", 0, 999));
        disk.take_log();
        stored.confirm().unwrap();
        let log: Vec<String> = disk
            .take_log()
            .iter()
            .map(|l| l.split(' ').next().unwrap().to_owned())
            .collect();
        assert_eq!(log, ["open", "write", "sync", "unlink"]);
        assert_eq!(spool.used(), 0);
        let next = disk.crash();
        drop((stored, session, spool));
        assert!(all(adopt(&spool_on(&next, 0))).is_empty());
        assert_eq!(next.files().len(), 0, "{:?}", next.files());
    }
}

#[test]
fn p2_without_room_for_the_mark_the_name_is_removed_durably() {
    let disk = SimDisk::new(3);
    let spool = spool_on(&disk, 0);
    let session = spool.session("cam", "s1").unwrap();
    let mut stored = finished(&session, &entry("s1", 0), &content("s1", 0, 999));
    disk.set_fault(Some(Fault::Once(1, ENOSPC)));
    stored.confirm().unwrap();
    let next = disk.crash();
    drop((stored, session, spool));
    assert!(all(adopt(&spool_on(&next, 0))).is_empty());
}

#[test]
fn p3_synced_bytes_of_an_open_chunk_come_back_under_their_own_entry() {
    for seed in 0..50 {
        let disk = SimDisk::new(seed);
        let spool = spool_on(&disk, 0);
        let session = spool.session("cam", "s1").unwrap();
        let object = content("s1", 7, 30_000);
        let mut chunk = session.create(&entry("s1", 7)).unwrap();
        append(&mut chunk, &object, 12_345);
        chunk.sync().unwrap();
        assert_eq!(chunk.synced_len(), 12_345);
        for to in [15_000, 20_000, 30_000] {
            append(&mut chunk, &object, to);
        }
        let next = disk.crash();
        drop((chunk, session, spool));
        let spool = spool_on(&next, 0);
        let mut partial = half(only(&spool));
        assert_eq!(partial.entry(), &entry("s1", 7));
        let back = read_all(partial.reader().unwrap()).unwrap();
        assert!(back.len() >= 12_345 && object.starts_with(&back), "{}", back.len());
        // Its last whole unit ends somewhere before.
        let kept = &back[..12_000];
        let stored = partial.refinish(&closed(entry("s1", 7), kept)).unwrap();
        let last = next.crash();
        drop((partial, stored, spool));
        let stored = super::stored(only(&spool_on(&last, 0)));
        assert_eq!(read_all(stored.reader().unwrap()).unwrap(), kept);
    }
}

#[test]
fn p3_a_kill_loses_nothing_that_was_written() {
    let disk = SimDisk::new(1);
    let spool = spool_on(&disk, 0);
    let session = spool.session("cam", "s1").unwrap();
    let object = content("s1", 0, 3_000_000);
    let mut chunk = session.create(&entry("s1", 0)).unwrap();
    append(&mut chunk, &object, object.len());
    let next = disk.kill();
    drop((chunk, session, spool));
    let partial = half(only(&spool_on(&next, 0)));
    assert!(!partial.complete());
    assert_eq!(read_all(partial.reader().unwrap()).unwrap(), object);
}

#[test]
fn p4_bytes_written_ahead_of_the_cut_belong_to_the_next_chunk_only() {
    let disk = SimDisk::new(1);
    let spool = spool_on(&disk, 0);
    let session = spool.session("cam", "s1").unwrap();
    let object = content("s1", 0, 700);
    let mut first = session.create(&entry("s1", 0)).unwrap();
    append(&mut first, &object, 700);
    let next_entry = Entry {
        input_offset: 600,
        ..entry("s1", 1)
    };
    let mut second = session.create(&next_entry).unwrap();
    append(&mut second, &content("s1", 1, 50), 50);
    let next = disk.kill();
    drop((first, second, session, spool));
    let mut found = all(adopt(&spool_on(&next, 0)));
    assert_eq!(found.len(), 2);
    let second = half(found.remove(1));
    let first = half(found.remove(0));
    assert!(first.complete() && !second.complete());
    assert_eq!(
        read_all(first.reader().unwrap()).unwrap(),
        object[..610],
        "header and 600 bytes"
    );
}

#[test]
fn an_end_that_leaves_bytes_out_is_obeyed() {
    let disk = SimDisk::new(1);
    let spool = spool_on(&disk, 0);
    let session = spool.session("cam", "s1").unwrap();
    let object = content("s1", 0, 700);
    let mut chunk = session.create(&entry("s1", 0)).unwrap();
    append(&mut chunk, &object, 700);
    assert!(matches!(
        chunk.finish(&closed(entry("s1", 0), &content("s1", 0, 701))),
        Err(SpoolError::Misuse { .. })
    ));
    let stored = chunk.finish(&closed(entry("s1", 0), &object[..600])).unwrap();
    assert_eq!(read_all(stored.reader().unwrap()).unwrap(), object[..600]);
    assert!(chunk.append(700, &[Bytes::from_static(b"x")]).is_err() && chunk.finish(&closed(entry("s1", 0), b"")).is_err());
}

#[test]
fn bytes_may_be_handed_in_twice_and_read_while_the_chunk_is_open() {
    let disk = SimDisk::new(1);
    let spool = spool_on(&disk, 0);
    let session = spool.session("cam", "s1").unwrap();
    let object = content("s1", 0, 2_500_000);
    let mut chunk = session.create(&entry("s1", 0)).unwrap();
    let mut reader = chunk.reader();
    assert!(reader.read_at(0, 100).unwrap().is_empty());
    chunk.append(0, &[Bytes::copy_from_slice(&object[..1000])]).unwrap();
    assert_eq!(reader.read_at(990, 100).unwrap(), object[990..1000]);
    let parts = [
        Bytes::copy_from_slice(&object[500..900]),
        Bytes::copy_from_slice(&object[900..]),
    ];
    chunk.append(500, &parts).unwrap();
    chunk.append(0, &parts[..1]).unwrap();
    assert_eq!(chunk.len_on_file(), 2_500_000);
    assert!(matches!(chunk.append(2_500_001, &parts), Err(SpoolError::Misuse { .. })));
    assert_eq!(read_all(chunk.reader()).unwrap(), object);
    assert_eq!(reader.read_at(1000, 300_000).unwrap(), object[1000..301_000]);
    for at in [2_400_000usize, 3, 1_100_000, 0, 999, 2_499_999] {
        let bytes = reader.read_at(at as u64, 50).unwrap();
        assert!(!bytes.is_empty() && object[at..].starts_with(&bytes), "{at}");
    }
}

#[test]
fn a_renamed_chunk_comes_back_under_its_new_name() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let spool = spool_on(&disk, 0);
        let object = content("s1", 0, 999);
        let mut stored = finished(&spool.session("cam", "s1").unwrap(), &entry("s1", 0), &object);
        let mut renamed = closed(entry("s1", 0), &object);
        renamed.entry.name = "other".into();
        stored.amend(&renamed).unwrap();
        assert_eq!(stored.load().unwrap().entry.name, "other");
        let next = disk.crash();
        drop((stored, spool));
        let stored = super::stored(only(&spool_on(&next, 0)));
        assert_eq!(stored.load().unwrap(), renamed);
        assert_eq!(read_all(stored.reader().unwrap()).unwrap(), object);
    }
}

#[test]
fn p5_a_sync_that_failed_is_made_good_by_writing_again() {
    let disk = SimDisk::new(1);
    let spool = spool_on(&disk, 0);
    let session = spool.session("cam", "s1").unwrap();
    let object = content("s1", 0, 40_000);
    let mut chunk = session.create(&entry("s1", 0)).unwrap();
    append(&mut chunk, &object, 20_000);
    disk.set_fault(Some(Fault::Once(0, EIO)));
    assert!(matches!(chunk.sync(), Err(SpoolError::Io { op: "sync", .. })));
    assert_eq!(chunk.synced_len(), 0);
    append(&mut chunk, &object, 40_000);
    chunk.sync().unwrap();
    assert_eq!(chunk.synced_len(), 40_000);
    let next = disk.crash();
    drop((chunk, session, spool));
    assert_eq!(read_all(half(only(&spool_on(&next, 0))).reader().unwrap()).unwrap(), object);
}

#[test]
fn what_waits_of_a_sink_is_neither_that_of_another_nor_of_nobody() {
    let disk = SimDisk::new(1);
    disk.put(&disk.root().join("quarantine/x.chunk"), &[0; 5000]);
    let (a, b) = (spool_on(&disk, 0), spool_on(&disk, 0));
    assert_eq!((a.used(), a.held()), (8192, 0), "what was set aside is nobody's");
    let (session_a, session_b) = (a.session("a", "s1").unwrap(), b.session("b", "s2").unwrap());
    let mut of_a = finished(&session_a, &entry("s1", 0), &content("s1", 0, 30_000));
    let of_b = finished(&session_b, &entry("s2", 0), &content("s2", 0, 3_000));
    assert_eq!(a.held() + b.held() + 8192, a.used());
    assert!(a.held() > 30_000 && b.held() < 10_000, "{} {}", a.held(), b.held());
    of_a.confirm().unwrap();
    assert_eq!(a.held(), 0);
    // The next sink takes over what this one leaves.
    drop((of_b, session_b, b));
    let c = spool_on(&disk, 0);
    let found = only(&c);
    assert!((4000..10_000).contains(&c.held()), "{}", c.held());
    drop(found);
    assert_eq!(c.held(), 0, "given back");
}

#[test]
fn a_full_disk_leaves_the_chunk_as_it_was_and_says_what_to_do() {
    let disk = SimDisk::new(1);
    let spool = spool_on(&disk, 0);
    let session = spool.session("cam", "s1").unwrap();
    let object = content("s1", 0, 3_000_000);
    let mut chunk = session.create(&entry("s1", 0)).unwrap();
    append(&mut chunk, &object, 1000);
    let (used, before) = (spool.used(), disk.bytes(&chunk.path()));
    // statvfs, then three records: the second one fails.
    disk.set_fault(Some(Fault::Once(2, ENOSPC)));
    let error = chunk.append(1000, &[Bytes::copy_from_slice(&object[1000..])]).unwrap_err();
    assert!(matches!(error, SpoolError::NoSpace { .. }) && error.is_full(), "{error}");
    assert!(error.to_string().contains("max-spool-bytes"), "{error}");
    assert_eq!((chunk.len_on_file(), spool.used()), (1000, used));
    assert_eq!(disk.bytes(&chunk.path()), before, "cut back");
    assert_eq!(read_all(chunk.reader()).unwrap(), object[..1000]);
    append(&mut chunk, &object, object.len());
    let stored = chunk.finish(&closed(entry("s1", 0), &object)).unwrap();
    assert_eq!(read_all(stored.reader().unwrap()).unwrap(), object);
}

#[test]
fn p6_the_files_never_take_more_than_the_limit_and_a_full_spool_still_closes_its_chunks() {
    // Small ones leave no room for an End in the last block.
    for step in [100, 500, 4072] {
        fill(step);
    }
}

fn fill(step: usize) {
    const MAX: u64 = 100 * 4096;
    let disk = SimDisk::new(1);
    let spool = spool_on(&disk, MAX);
    let session = spool.session("cam", "s1").unwrap();
    let on_disk = || -> u64 {
        let lengths = disk.files().into_iter().map(|f| disk.bytes(&f).len() as u64);
        lengths.map(|len| len.div_ceil(4096) * 4096).sum()
    };
    let mut waiting = Vec::new();
    let mut sequence = 0;
    let error = loop {
        let object = content("s1", sequence, 40_000);
        let mut chunk = match session.create(&entry("s1", sequence)) {
            Ok(chunk) => chunk,
            Err(e) => break e,
        };
        let mut done = 0;
        for to in (step..=object.len()).step_by(step) {
            match chunk.append(done as u64, &[Bytes::copy_from_slice(&object[done..to])]) {
                Ok(()) => done = to,
                Err(e) => {
                    assert!(e.is_full());
                    break;
                }
            }
            assert!(on_disk() <= MAX);
        }
        waiting.push(chunk.finish(&closed(entry("s1", sequence), &object[..done])).unwrap());
        assert!(on_disk() <= MAX);
        assert_eq!(spool.used(), on_disk());
        sequence += 1;
    };
    assert!(
        matches!(
            error,
            SpoolError::Full {
                limit: Limit::Max { max: MAX, .. },
                ..
            }
        ),
        "{error}"
    );
    assert!(error.to_string().contains("max-spool-bytes is 409600"), "{error}");
    assert!(sequence > 5 && spool.room() < 4 * 4096, "{sequence} {}", spool.room());
    for mut stored in waiting.drain(..) {
        stored.confirm().unwrap();
    }
    drop(session);
    assert_eq!((spool.used(), on_disk(), spool.room()), (0, 0, MAX));
}

#[test]
fn p6_the_room_is_never_more_than_the_file_system_has() {
    let disk = SimDisk::new(1);
    let spool = spool_on(&disk, 1 << 30);
    let space = |available| {
        disk.set_space(Space {
            total: 100 << 30,
            available,
        });
    };
    space(70_000);
    assert_eq!(spool.room(), 70_000);
    space(50 << 30);
    assert_eq!(spool.room(), 1 << 30);
}

#[test]
fn p6_without_a_limit_a_tenth_of_the_file_system_stays_free() {
    const GIB: u64 = 1 << 30;
    let disk = SimDisk::new(1);
    let spool = spool_on(&disk, 0);
    let session = spool.session("cam", "s1").unwrap();
    let mut chunk = session.create(&entry("s1", 0)).unwrap();
    let object = content("s1", 0, 100_000);
    let space = |total, available| disk.set_space(Space { total, available });
    space(100 * GIB, 10 * GIB + 50_000);
    assert_eq!(spool.room(), 50_000);
    let error = chunk.append(0, &[Bytes::copy_from_slice(&object)]).unwrap_err();
    assert!(
        matches!(error, SpoolError::Full { limit: Limit::Free { keep, .. }, .. } if keep == 10 * GIB),
        "{error}"
    );
    append(&mut chunk, &object, 40_000);
    space(4 * GIB, GIB - 1);
    assert_eq!(spool.room(), 0, "at least 1 GiB");
    assert!(session.create(&entry("s1", 1)).is_err());
    chunk.finish(&closed(entry("s1", 0), &object[..40_000])).unwrap();
    spool.set_max(1 << 40);
    assert!(session.create(&entry("s1", 1)).is_ok(), "a limit that was set counts alone");
}

#[test]
fn two_spools_of_one_folder_share_one_quota() {
    let disk = SimDisk::new(1);
    let a = spool_on(&disk, 1 << 20);
    let stored = finished(&a.session("cam", "s1").unwrap(), &entry("s1", 0), &content("s1", 0, 50_000));
    let b = spool_on(&disk, 0);
    assert_eq!((b.used(), b.room()), (a.used(), a.room()));
    assert!(b.used() >= 50_000 && b.room() < 1 << 20);
    drop((a, b, stored));
    let c = spool_on(&disk, 1 << 20);
    assert!(c.used() >= 50_000, "counted again: {}", c.used());
}

#[test]
fn p6_the_smallest_limit_that_a_sink_has_set_holds_for_all_until_that_sink_raises_it_or_leaves() {
    let disk = SimDisk::new(1);
    let (small, large, none) = (spool_on(&disk, 1 << 20), spool_on(&disk, 1 << 30), spool_on(&disk, 0));
    let room = || [small.room(), large.room(), none.room()];
    assert_eq!(room(), [1 << 20; 3]);
    // As a sink does when any of its properties is set.
    none.set_max(0);
    large.set_max(1 << 30);
    assert_eq!(room(), [1 << 20; 3]);
    let session = none.session("cam", "s1").unwrap();
    let mut chunk = session.create(&entry("s1", 0)).unwrap();
    let object = content("s1", 0, 1_100_000);
    let error = chunk.append(0, &[Bytes::copy_from_slice(&object)]).unwrap_err();
    assert!(
        matches!(error, SpoolError::Full { limit: Limit::Max { max, .. }, .. } if max == 1 << 20),
        "{error}"
    );
    small.set_max(2 << 20);
    append(&mut chunk, &object, object.len());
    drop(small);
    assert!(none.room() > 900 << 20, "{}", none.room());
}

#[test]
fn p7_a_session_is_taken_by_one_only_and_not_while_it_lives() {
    let disk = SimDisk::new(1);
    let (a, b) = (spool_on(&disk, 0), spool_on(&disk, 0));
    let session = a.session("cam", "s1").unwrap();
    let open = session.create(&entry("s1", 0)).unwrap();
    let stored = finished(&session, &entry("s1", 1), &content("s1", 1, 500));
    assert!(all(adopt(&a)).is_empty() && all(adopt(&b)).is_empty());
    assert!(matches!(b.session("cam", "s1"), Err(SpoolError::Busy { .. })));
    drop((open, session));
    assert!(all(adopt(&b)).is_empty(), "a chunk that waits holds the lock");
    drop(stored);
    let first = adopt(&b);
    assert!(all(adopt(&a)).is_empty(), "the other one has it");
    assert_eq!(all(first).len(), 1, "and the empty chunk is gone");
}

#[test]
fn an_empty_session_leaves_no_folder_behind_and_what_is_not_ours_stays() {
    let disk = SimDisk::new(1);
    let spool = spool_on(&disk, 0);
    let session = spool.session("store/cam", "s1").unwrap();
    let mut chunk = session.create(&entry("s1", 0)).unwrap();
    chunk.abandon().unwrap();
    assert_eq!(disk.dirs().len(), 2);
    drop((chunk, session));
    assert_eq!(disk.dirs(), Vec::<std::path::PathBuf>::new());
    let foreign = [
        "notes.txt",
        "cam/readme",
        "cam/s1/x.chunk",
        "cam/s1/00000000000000000000.chunk.bak",
        "lost+found/a/b",
    ];
    for path in foreign {
        disk.put(&disk.root().join(path), b"not ours");
    }
    let adoption = adopt(&spool);
    assert!(adoption.notices.is_empty() && adoption.sessions.is_empty(), "{adoption:?}");
    for path in foreign {
        assert_eq!(disk.bytes(&disk.root().join(path)), b"not ours");
    }
}

#[test]
fn a_file_that_cannot_be_read_is_left_with_a_warning_and_the_others_come() {
    let disk = SimDisk::new(1);
    let spool = spool_on(&disk, 0);
    let session = spool.session("cam", "s1").unwrap();
    let paths: Vec<_> = (0..3)
        .map(|n| finished(&session, &entry("s1", n), &content("s1", n, 50)).path())
        .collect();
    drop(session);
    disk.make_unreadable(&paths[1]);
    let adoption = adopt(&spool);
    assert!(
        matches!(&adoption.notices[..], [Notice::Left { path, .. }] if *path == paths[1]),
        "{:?}",
        adoption.notices
    );
    assert_eq!(all(adoption).len(), 2);
    assert!(disk.files().contains(&paths[1]));
}

#[test]
fn entries_with_a_good_clock_teach_when_the_boot_was() {
    let disk = SimDisk::new(1);
    let spool = spool_on(&disk, 0);
    let session = spool.session("cam", "s1").unwrap();
    let old = Entry {
        clock: "suspect".into(),
        start: 3,
        boot_ns: 40,
        ..entry("s1", 0)
    };
    let good = Entry {
        boot_ns: 90,
        ..entry("s1", 1)
    };
    drop((
        finished(&session, &old, b"01234567890"),
        finished(&session, &good, b"01234567890"),
        session,
    ));
    let adoption = adopt(&spool);
    assert_eq!(adoption.boots.correct(&old), Some(good.start - 50));
    let found = all(adoption);
    assert!(matches!(&found[0], Found::Upload(s) if s.summary().suspect));
    assert!(matches!(&found[1], Found::Upload(s) if !s.summary().suspect));
}

#[test]
fn a_session_that_begins_again_finds_what_it_left() {
    let disk = SimDisk::new(1);
    let spool = spool_on(&disk, 0);
    let session = spool.session("cam", "s1").unwrap();
    drop(finished(&session, &entry("s1", 0), &content("s1", 0, 50)));
    drop(session);
    let session = spool.session("cam", "s1").unwrap();
    let mut own = all(session.earlier().unwrap().take_next());
    assert_eq!(own.len(), 1);
    assert!(all(adopt(&spool)).is_empty(), "the lock is its own");
    let mut next = session.create(&entry("s1", 1)).unwrap();
    append(&mut next, &content("s1", 1, 50), 50);
    stored(own.remove(0)).confirm().unwrap();
    next.abandon().unwrap();
    drop((next, session));
    assert_eq!((spool.used(), disk.dirs().len()), (0, 0));
}

#[test]
fn p10_a_chunk_says_that_it_was_sent_whole_only_under_that_name_and_as_long_as_that_is_true() {
    let (a, b) = (name_mark("a"), name_mark("b"));
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let spool = spool_on(&disk, 0);
        let object = content("s1", 0, 999);
        let mut stored = finished(&spool.session("cam", "s1").unwrap(), &entry("s1", 0), &object);
        assert!(stored.sent().is_empty(), "closing it is no request");
        let again = |disk: SimDisk| {
            let spool = spool_on(&disk, 0);
            let stored = super::stored(only(&spool));
            assert_eq!(read_all(stored.reader().unwrap()).unwrap(), object);
            (disk, spool, stored)
        };
        stored.mark_sent(a).unwrap();
        stored.mark_sent(b).unwrap();
        stored.mark_sent(a).unwrap();
        let next = disk.kill();
        drop((stored, spool));
        let (disk, spool, mut stored) = again(next);
        assert_eq!(stored.sent(), [a, b], "a kill loses no mark");
        // Removed durably, whatever survives. The later mark is lost with it, which is harmless.
        stored.unmark_sent(a).unwrap();
        let next = disk.crash();
        drop((stored, spool));
        let (disk, spool, mut stored) = again(next);
        assert!(stored.sent().is_empty());
        stored.mark_sent(a).unwrap();
        let next = disk.crash();
        drop((stored, spool));
        // The power failure may have torn the mark. Either result is harmless.
        let (disk, spool, mut stored) = again(next);
        assert!(stored.sent().is_empty() || stored.sent() == [a]);
        let mut renamed = closed(entry("s1", 0), &object);
        renamed.entry.name = "other".into();
        stored.amend(&renamed).unwrap();
        assert!(stored.sent().is_empty(), "another name");
        stored.mark_sent(b).unwrap();
        stored.confirm().unwrap();
        let next = disk.crash();
        drop((stored, spool));
        assert!(all(adopt(&spool_on(&next, 0))).is_empty());
    }
}

#[test]
fn p10_a_request_for_a_chunk_that_the_disk_did_not_take_whole_is_announced_durably_and_needs_no_room() {
    for seed in 0..20 {
        let disk = SimDisk::new(seed);
        let spool = spool_on(&disk, 0);
        let session = spool.session("cam", "s1").unwrap();
        let object = content("s1", 0, 3000);
        let mut chunk = session.create(&entry("s1", 0)).unwrap();
        append(&mut chunk, &object, 2000);
        spool.set_max(1);
        assert!(
            chunk.append(2000, &[Bytes::copy_from_slice(&vec![7; 50_000])]).is_err(),
            "it is full"
        );
        disk.take_log();
        chunk.mark_attempted().unwrap();
        chunk.mark_attempted().unwrap();
        let syncs = disk.take_log().iter().filter(|line| line.starts_with("sync ")).count();
        assert_eq!(syncs, 1, "once");
        chunk.mark_sent(name_mark("n")).unwrap();
        assert_eq!(
            read_all(chunk.reader()).unwrap(),
            object[..2000],
            "marks are no bytes of the object"
        );
        let is_killed = seed % 2 == 0;
        let next = if is_killed { disk.kill() } else { disk.crash() };
        drop((chunk, session, spool));
        let partial = half(only(&spool_on(&next, 0)));
        assert!(partial.attempted() && !partial.was_sent("m"));
        assert!(partial.was_sent("n") || !is_killed);
        assert_eq!(read_all(partial.reader().unwrap()).unwrap(), object[..2000]);
    }
}

#[test]
fn p10_a_mark_before_more_bytes_does_not_count() {
    let disk = SimDisk::new(1);
    let spool = spool_on(&disk, 0);
    let session = spool.session("cam", "s1").unwrap();
    let object = content("s1", 0, 3000);
    let mut chunk = session.create(&entry("s1", 0)).unwrap();
    append(&mut chunk, &object, 2000);
    chunk.mark_attempted().unwrap();
    chunk.mark_sent(name_mark("n")).unwrap();
    append(&mut chunk, &object, 3000);
    assert_eq!(read_all(chunk.reader()).unwrap(), object);
    let killed = disk.kill();
    drop((chunk, session, spool));
    let partial = half(only(&spool_on(&killed, 0)));
    assert!(partial.attempted() && !partial.was_sent("n"));
    assert_eq!(read_all(partial.reader().unwrap()).unwrap(), object);
}
