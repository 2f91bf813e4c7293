//! Somebody removes what lies below the spool's folder (P11).

use super::super::disk::Disk;
use super::super::sim::SimDisk;
use super::{Found, append, closed, content, entry, finished, only, read_all, spool_on};

#[test]
fn p11_chunks_of_a_removed_session_folder_are_lost_and_new_ones_go_to_a_new_folder_with_a_lock_of_its_own() {
    for is_whole_spool in [false, true] {
        let disk = SimDisk::new(1);
        let spool = spool_on(&disk, 0);
        let mut session = spool.session("cam", "s1").unwrap();
        let mut old = finished(&session, &entry("s1", 0), &content("s1", 0, 3000));
        assert!(!old.is_removed() && spool.removed_folders().is_empty() && !session.renew().unwrap());
        let dir = session.dir().to_owned();
        disk.remove_tree(if is_whole_spool { disk.root() } else { &dir });
        assert!(old.is_removed());
        assert_eq!(spool.removed_folders(), [dir.as_path()]);
        assert!(spool.removed_folders().is_empty(), "reported once");
        assert!(session.renew().unwrap() && !session.renew().unwrap());
        let mut fresh = finished(&session, &entry("s1", 1), &content("s1", 1, 3000));
        assert!(old.is_removed() && !fresh.is_removed());
        let used = spool.used();
        old.discard().unwrap();
        drop(old);
        assert!(spool.used() < used, "what was removed is counted no more");
        assert!(
            session.create(&entry("s1", 2)).is_ok(),
            "the new folder stays when the old one is freed"
        );
        fresh.confirm().unwrap();
    }
}

#[test]
fn p11_a_chunk_that_is_being_written_is_saved_from_its_open_file() {
    let disk = SimDisk::new(1);
    let spool = spool_on(&disk, 0);
    let mut session = spool.session("cam", "s1").unwrap();
    let object = content("s1", 0, 3000);
    let mut chunk = session.create(&entry("s1", 0)).unwrap();
    append(&mut chunk, &object, 2000);
    disk.remove_tree(session.dir());
    session.renew().unwrap();
    assert!(session.rescue(&mut chunk, &entry("s1", 0)).unwrap());
    assert!(!session.rescue(&mut chunk, &entry("s1", 0)).unwrap());
    append(&mut chunk, &object, 3000);
    let mut stored = chunk.finish(&closed(entry("s1", 0), &object)).unwrap();
    assert_eq!(read_all(stored.reader().unwrap()).unwrap(), object);
    stored.confirm().unwrap();
    drop((chunk, stored, session));
    assert_eq!(spool.used(), 0, "what was removed is counted no more");
}

#[test]
fn p11_a_lock_file_alone_that_is_removed_costs_no_chunk() {
    let disk = SimDisk::new(1);
    let spool = spool_on(&disk, 0);
    let mut session = spool.session("cam", "s1").unwrap();
    let object = content("s1", 0, 3000);
    let stored = finished(&session, &entry("s1", 0), &object);
    let mut open = session.create(&entry("s1", 1)).unwrap();
    append(&mut open, &object, 1000);
    disk.remove_file(&session.dir().join(super::super::paths::LOCK)).unwrap();
    assert!(session.renew().unwrap(), "there is a lock again");
    assert!(!session.rescue(&mut open, &entry("s1", 1)).unwrap());
    append(&mut open, &object, 3000);
    assert!(!stored.is_removed());
    assert_eq!(read_all(stored.reader().unwrap()).unwrap(), object);
}

#[test]
fn p11_a_half_written_chunk_that_somebody_removed_is_gone_like_one_that_we_remove() {
    let before = SimDisk::new(1);
    let session = spool_on(&before, 0).session("cam", "s1").unwrap();
    let mut chunk = session.create(&entry("s1", 0)).unwrap();
    append(&mut chunk, &content("s1", 0, 3000), 2000);
    chunk.sync().unwrap();
    let disk = before.kill();
    // The next process must not find the quota of the process that died.
    drop((chunk, session));
    let spool = spool_on(&disk, 0);
    let Found::Rebuild(mut partial) = only(&spool) else { panic!() };
    disk.remove_tree(&partial.path());
    partial.discard().unwrap();
    assert_eq!(spool.used(), 0, "what was removed is counted no more");
}
