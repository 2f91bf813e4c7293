//! P5: whichever operation fails or is the last, nothing that was acknowledged is lost.

use super::super::sim::Fault;
use super::super::{ClosedEntry, SpoolError};
use super::*;

/// What the spool has reported about a chunk.
#[derive(Clone, Debug, Default, PartialEq)]
struct Reported {
    synced: usize,
    stored: bool,
    confirming: bool,
    confirmed: bool,
    names: Vec<String>,
}

#[derive(Debug, Default)]
struct Story {
    reported: Vec<Reported>,
}

const LEN: usize = 6000;

/// Writes three chunks: one confirmed, one amended and waiting, one open. Repeats each call once after an error.
fn play(disk: &SimDisk, story: &mut Story) -> Result<(), SpoolError> {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let spool = twice(|| Spool::open(shared.clone(), disk.root(), 1 << 30))?;
    let session = twice(|| spool.session("cam", "s1"))?;
    for n in 0..3u64 {
        let at = usize::try_from(n).unwrap();
        story.reported.push(Reported::default());
        let object = content("s1", n, LEN);
        let mut chunk = twice(|| session.create(&entry("s1", n)))?;
        for to in (1000..=LEN).step_by(1000) {
            let from = usize::try_from(chunk.len_on_file()).unwrap();
            let part = Bytes::copy_from_slice(&object[from..to]);
            twice(|| chunk.append(from as u64, std::slice::from_ref(&part)))?;
            assert_eq!(chunk.len_on_file(), to as u64);
            if to % 2000 == 0 {
                twice(|| chunk.sync())?;
                story.reported[at].synced = to;
            }
        }
        if n == 2 {
            continue;
        }
        let mut end = closed(entry("s1", n), &object);
        story.reported[at].names.push(end.entry.name.clone());
        let mut stored = twice(|| chunk.finish(&end))?;
        story.reported[at].stored = true;
        if n == 0 {
            story.reported[at].confirming = true;
            twice(|| stored.confirm())?;
            story.reported[at].confirmed = true;
        } else {
            end.entry.name = "settled".into();
            story.reported[at].names.push("settled".into());
            twice(|| stored.amend(&end))?;
            story.reported[at].names.remove(0);
        }
    }
    Ok(())
}

fn twice<T>(mut call: impl FnMut() -> Result<T, SpoolError>) -> Result<T, SpoolError> {
    call().or_else(|_| call())
}

fn check(next: &SimDisk, story: &Story, what: &str) {
    let spool = spool_on(next, 1 << 30);
    let adoption = adopt(&spool);
    assert!(adoption.notices.is_empty(), "{what}: {:?}", adoption.notices);
    let mut found: std::collections::BTreeMap<u64, (Option<ClosedEntry>, Vec<u8>)> = std::collections::BTreeMap::new();
    for chunk in all(adoption) {
        let (sequence, back) = match chunk {
            Found::Upload(stored) => {
                let entry = stored.load().unwrap();
                (
                    stored.summary().sequence,
                    (Some(entry), read_all(stored.reader().unwrap()).unwrap()),
                )
            }
            Found::Rebuild(partial) => (partial.entry().sequence, (None, read_all(partial.reader().unwrap()).unwrap())),
        };
        assert!(found.insert(sequence, back).is_none());
    }
    for (n, reported) in story.reported.iter().enumerate() {
        let n = n as u64;
        let object = content("s1", n, LEN);
        let back = found.remove(&n);
        let what = format!("{what}, chunk {n}: {reported:?}");
        if reported.confirmed {
            assert!(back.is_none(), "{what} came back");
            continue;
        }
        if reported.confirming && back.is_none() {
            continue;
        }
        match back {
            Some((Some(end), bytes)) => {
                assert!(reported.names.contains(&end.entry.name), "{what}");
                assert_eq!((end.size, end.crc32c), (LEN as u64, crc32c::crc32c(&object)));
                assert_eq!(bytes, object, "{what}");
            }
            Some((None, bytes)) => {
                assert!(
                    !reported.stored && bytes.len() >= reported.synced && object.starts_with(&bytes),
                    "{what}"
                );
            }
            None => assert!(!reported.stored && reported.synced == 0, "{what} is lost"),
        }
    }
    assert!(found.is_empty(), "{what}");
}

fn ops() -> u64 {
    let disk = SimDisk::new(0);
    play(&disk, &mut Story::default()).unwrap();
    disk.ops()
}

#[test]
fn p5_whichever_operation_fails_once_all_goes_on_and_nothing_is_lost() {
    for errno in [5, 28] {
        for n in 0..ops() + 10 {
            for crash in [true, false] {
                let disk = SimDisk::new(n);
                disk.set_fault(Some(Fault::Once(n, errno)));
                let mut story = Story::default();
                let played = play(&disk, &mut story);
                assert!(
                    played.is_ok(),
                    "operation {n}, errno {errno}: {played:?}\n{:#?}",
                    disk.take_log()
                );
                let log = disk.take_log();
                let op = usize::try_from(n).ok().and_then(|n| log.get(n)).cloned().unwrap_or_default();
                let next = if crash { disk.crash() } else { disk.kill() };
                check(&next, &story, &format!("operation {n} ({op}), errno {errno}, crash {crash}"));
            }
        }
    }
}

#[test]
fn p5_whichever_operation_is_the_last_nothing_acknowledged_is_lost() {
    for n in 0..ops() {
        for seed in 0..8 {
            let disk = SimDisk::new(seed * 1000 + n);
            disk.set_fault(Some(Fault::Dead(n)));
            let mut story = Story::default();
            let _ = play(&disk, &mut story);
            check(&disk.crash(), &story, &format!("dead at {n}, seed {seed}"));
        }
    }
}

#[test]
fn p5_a_start_that_fails_at_any_operation_can_be_made_again() {
    let fresh = || {
        let disk = SimDisk::new(9);
        let mut story = Story::default();
        play(&disk, &mut story).unwrap();
        (disk.kill(), story)
    };
    let (disk, _) = fresh();
    disk.set_fault(None);
    drop(adopt(&spool_on(&disk, 0)));
    for n in 0..disk.ops() {
        for fault in [Fault::Once(n, 5), Fault::Dead(n)] {
            let (disk, story) = fresh();
            disk.set_fault(Some(fault));
            let shared: Arc<dyn Disk> = Arc::new(disk.clone());
            if let Ok(spool) = Spool::open(shared, disk.root(), 0) {
                drop(adopt(&spool));
            }
            check(&disk.crash(), &story, &format!("start, {fault:?}"));
        }
    }
}

#[test]
fn p5_a_damaged_chunk_that_cannot_be_set_aside_is_left_and_reported() {
    let disk = SimDisk::new(1);
    let path = disk.root().join("cam/s1/00000000000000000009.chunk");
    disk.put(&path, b"not ours");
    let aside = disk.root().join("quarantine");
    disk.put(&aside.join("x"), b"");
    disk.make_unreadable(&aside);
    let adoption = adopt(&spool_on(&disk, 0));
    let texts: Vec<String> = adoption.notices.iter().map(ToString::to_string).collect();
    assert!(texts.len() == 1 && texts[0].contains("cannot set aside"), "{texts:?}");
    assert!(disk.files().contains(&path));
}

#[test]
fn p5_the_quarantine_takes_no_endless_number_of_files_of_one_name() {
    let disk = SimDisk::new(1);
    let path = disk.root().join("cam/s1/00000000000000000009.chunk");
    disk.put(&path, b"not ours");
    for again in 0..1000 {
        let name = super::super::paths::quarantined("cam", "s1", 9, again);
        disk.put(&disk.root().join("quarantine").join(name), b"");
    }
    let texts = adopt(&spool_on(&disk, 0)).notices;
    assert!(
        texts.len() == 1 && texts[0].to_string().contains("1000 files of this name"),
        "{texts:?}"
    );
}

#[test]
fn p5_a_chunk_whose_file_could_be_neither_begun_nor_removed_is_written_when_the_disk_works_again() {
    let disk = SimDisk::new(1);
    let spool = spool_on(&disk, 1 << 30);
    let session = spool.session("cam", "s1").unwrap();
    let object = content("s1", 1, 3000);
    drop(finished(&session, &entry("s1", 0), &object));
    // The file is created, and every later operation fails.
    disk.set_fault(Some(Fault::Dead(1)));
    assert!(session.create(&entry("s1", 1)).is_err());
    disk.set_fault(None);
    assert_eq!(disk.files().len(), 3, "the lock, the first, and what is left of the second");
    drop(finished(&session, &entry("s1", 1), &object));
    assert!(
        session.create(&entry("s1", 1)).is_err(),
        "a chunk that is wanted is never in the way"
    );
    // The file of an abandoned chunk that is not created again is removed with its session.
    let given_up = session.create(&entry("s1", 2)).unwrap();
    disk.set_fault(Some(Fault::Dead(0)));
    given_up.give_up();
    disk.set_fault(None);
    assert_eq!(disk.files().len(), 4);
    drop(session);
    assert_eq!(disk.files().len(), 3);
}
