//! The real disk: permissions, locks, limits.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use super::super::disk::{Disk, Listed, Lock, Space, StdDisk};
use super::*;

fn std_spool(dir: &std::path::Path, max: u64) -> Arc<Spool> {
    Spool::open(Arc::new(StdDisk), &dir.join("a/b"), max).unwrap()
}

fn tree(dir: &std::path::Path, all: &mut Vec<(std::path::PathBuf, u32)>) {
    for found in std::fs::read_dir(dir).unwrap() {
        let path = found.unwrap().path();
        let meta = path.metadata().unwrap();
        all.push((path.clone(), meta.permissions().mode() & 0o7777));
        if meta.is_dir() {
            tree(&path, all);
        }
    }
}

/// Returns the number of entries, without the usage files.
fn entries(dir: &std::path::Path) -> usize {
    let all = std::fs::read_dir(dir).unwrap().flatten();
    all.filter(|found| found.file_name() != "+usage").count()
}

#[test]
fn a_folder_is_one_by_whatever_path_it_is_named() {
    let tmp = tempfile::tempdir().unwrap();
    let spool = std_spool(tmp.path(), 1 << 20);
    std::os::unix::fs::symlink(tmp.path().join("a"), tmp.path().join("link")).unwrap();
    for path in ["a/b/", "a/../a/b", "link/b", "link/b/."] {
        let other = Spool::open(Arc::new(StdDisk), &tmp.path().join(path), 0).unwrap();
        assert_eq!(other.room(), 1 << 20, "{path}");
        other.set_max(1 << 19);
        assert_eq!(spool.room(), 1 << 19, "{path}");
        drop(other);
        assert_eq!(spool.room(), 1 << 20, "{path}");
    }
}

#[test]
fn p9_folders_are_0700_and_files_0600() {
    let tmp = tempfile::tempdir().unwrap();
    let spool = std_spool(tmp.path(), 1 << 30);
    let session = spool.session("store/cam", "s1").unwrap();
    let object = content("s1", 0, 2_200_000);
    let stored = finished(&session, &entry("s1", 0), &object);
    let mut other = finished(&session, &entry("s1", 1), &object);
    other.quarantine().unwrap();
    let mut found = Vec::new();
    tree(tmp.path(), &mut found);
    // Four of them share the usage of this process.
    assert_eq!(found.len(), 12, "{found:?}");
    for (path, mode) in found {
        let expected = if path.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{}", path.display());
    }
    assert_eq!(read_all(stored.reader().unwrap()).unwrap(), object);
}

#[test]
fn a_chunk_goes_through_its_whole_life_on_the_real_disk() {
    let tmp = tempfile::tempdir().unwrap();
    let spool = std_spool(tmp.path(), 1 << 30);
    let session = spool.session("store/cam", "s1").unwrap();
    let object = content("s1", 0, 300_000);
    let mut chunk = session.create(&entry("s1", 0)).unwrap();
    // More parts than one system call takes.
    let parts: Vec<Bytes> = object.chunks(100).map(Bytes::copy_from_slice).collect();
    chunk.append(0, &parts).unwrap();
    chunk.sync().unwrap();
    let mut stored = chunk.finish(&closed(entry("s1", 0), &object)).unwrap();
    let len = stored.path().metadata().unwrap().len();
    assert_eq!(spool.used(), len.div_ceil(4096) * 4096);
    drop(chunk);
    stored.amend(&closed(entry("s1", 0), &object)).unwrap();
    drop((stored, session));
    let mut stored = super::stored(only(&spool));
    assert_eq!(stored.load().unwrap(), closed(entry("s1", 0), &object));
    assert_eq!(read_all(stored.reader().unwrap()).unwrap(), object);
    stored.confirm().unwrap();
    drop(stored);
    assert_eq!((spool.used(), entries(spool.root())), (0, 0));
    assert!(spool.root().is_dir(), "the root stays");
}

#[test]
fn p7_a_session_of_another_process_is_left_alone_until_that_process_ends() {
    let tmp = tempfile::tempdir().unwrap();
    let spool = std_spool(tmp.path(), 1 << 30);
    drop(finished(
        &spool.session("cam", "s1").unwrap(),
        &entry("s1", 0),
        &content("s1", 0, 50),
    ));
    let lock = spool.root().join("cam/s1/lock");
    // Another process takes the lock and reports that.
    let mut other = Command::new("flock")
        .arg(&lock)
        .args(["sh", "-c", "echo taken; read _"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = [0; 6];
    std::io::Read::read_exact(other.stdout.as_mut().unwrap(), &mut output).unwrap();
    assert_eq!(&output, b"taken\n");
    assert!(all(adopt(&spool)).is_empty());
    drop(other.stdin.take());
    other.wait().unwrap();
    assert_eq!(all(adopt(&spool)).len(), 1);
}

#[test]
fn a_lock_file_that_was_replaced_is_not_taken_for_the_lock() {
    let tmp = tempfile::tempdir().unwrap();
    let path = tmp.path().join("lock");
    let held = StdDisk.lock(&path).unwrap();
    assert!(matches!(held, Lock::Held(_)));
    assert!(matches!(StdDisk.lock(&path).unwrap(), Lock::Busy));
    std::fs::remove_file(&path).unwrap();
    assert!(
        matches!(StdDisk.lock(&path).unwrap(), Lock::Held(_)),
        "another file, another lock"
    );
    drop(held);
    assert!(matches!(StdDisk.lock(&tmp.path().join("none/lock")).unwrap(), Lock::Gone));
}

#[test]
fn many_processes_take_every_session_once() {
    let tmp = tempfile::tempdir().unwrap();
    let spool = std_spool(tmp.path(), 1 << 30);
    for n in 0..30 {
        let id = format!("s{n}");
        drop(finished(
            &spool.session("cam", &id).unwrap(),
            &entry(&id, 0),
            &content(&id, 0, 50),
        ));
    }
    let rounds: Vec<_> = (0..4)
        .map(|_| {
            let spool = std_spool(tmp.path(), 0);
            std::thread::spawn(move || all(adopt(&spool)))
        })
        .collect();
    // All are kept until the last thread is done: no thread may take what another one has.
    let taken: Vec<Vec<Found>> = rounds.into_iter().map(|r| r.join().unwrap()).collect();
    assert_eq!(taken.iter().map(Vec::len).sum::<usize>(), 30);
}

#[test]
fn sessions_that_begin_and_end_while_others_look_never_fail() {
    let tmp = tempfile::tempdir().unwrap();
    let spool = std_spool(tmp.path(), 1 << 30);
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let looker = {
        let (spool, done) = (spool.clone(), done.clone());
        std::thread::spawn(move || {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let adoption = adopt(&spool);
                assert!(adoption.sessions.is_empty() && adoption.notices.is_empty(), "{adoption:?}");
            }
        })
    };
    for n in 0..200 {
        let id = format!("s{n}");
        let mut stored = finished(&spool.session("cam", &id).unwrap(), &entry(&id, 0), &content(&id, 0, 50));
        stored.confirm().unwrap();
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    looker.join().unwrap();
    assert_eq!(entries(spool.root()), 0);
}

#[test]
fn a_folder_that_others_remove_while_it_is_made_is_made_or_missing_and_never_in_the_way() {
    let tmp = tempfile::tempdir().unwrap();
    let folder = tmp.path().join("cam");
    let done = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let remover = {
        let (folder, done) = (folder.clone(), done.clone());
        std::thread::spawn(move || {
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let _ = std::fs::remove_dir(&folder);
            }
        })
    };
    for _ in 0..50_000 {
        // `NotFound`: it was removed before its mode was set. A session makes it again then.
        let made = StdDisk.create_dir(&folder);
        assert!(
            !matches!(&made, Err(e) if e.kind() != std::io::ErrorKind::NotFound),
            "{made:?}"
        );
    }
    done.store(true, std::sync::atomic::Ordering::Relaxed);
    remover.join().unwrap();
    std::fs::write(tmp.path().join("file"), b"").unwrap();
    std::os::unix::fs::symlink(tmp.path().join("nowhere"), tmp.path().join("link")).unwrap();
    for taken in ["file", "link"] {
        let error = StdDisk.create_dir(&tmp.path().join(taken)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::AlreadyExists, "{taken}");
    }
}

#[test]
fn a_link_in_the_place_of_a_chunk_is_not_followed() {
    let tmp = tempfile::tempdir().unwrap();
    let spool = std_spool(tmp.path(), 1 << 30);
    let outside = tmp.path().join("outside");
    std::fs::write(&outside, b"secret").unwrap();
    std::fs::create_dir_all(spool.root().join("cam/s1")).unwrap();
    std::os::unix::fs::symlink(&outside, spool.root().join("cam/s1/00000000000000000000.chunk")).unwrap();
    let adoption = adopt(&spool);
    assert!(adoption.sessions.is_empty(), "{adoption:?}");
    assert_eq!(std::fs::read(&outside).unwrap(), b"secret");
    assert!(StdDisk.open(&spool.root().join("cam/s1/00000000000000000000.chunk")).is_err());
}

#[test]
fn the_room_of_the_file_system_is_asked_for() {
    let tmp = tempfile::tempdir().unwrap();
    let Space { total, available } = StdDisk.space(tmp.path()).unwrap();
    assert!(total > 0 && available <= total);
    assert_eq!(tmp.path().metadata().unwrap().blksize() % 512, 0);
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let tmp = tempfile::tempdir().unwrap();
    std::fs::write(tmp.path().join("file"), b"").unwrap();
    let path = tmp.path().join("file/spool");
    let error = Spool::open(Arc::new(StdDisk), &path, 0).unwrap_err().to_string();
    assert!(error.contains("file/spool") && error.contains("spool-dir"), "{error}");
}

#[test]
fn both_disks_answer_alike() {
    let tmp = tempfile::tempdir().unwrap();
    let sim = SimDisk::new(1);
    let pairs: [(&dyn Disk, &std::path::Path); 2] = [(&StdDisk, tmp.path()), (&sim, sim.root())];
    let answers = pairs.map(|(disk, root)| {
        let mut output = Vec::new();
        let mut note = |what: String| output.push(what);
        let kind = |e: std::io::Error| e.kind();
        note(format!("{:?}", disk.create_dir(&root.join("d"))));
        note(format!("{:?}", disk.create_dir(&root.join("d"))));
        note(format!("{:?}", disk.create_dir(&root.join("x/y")).map_err(kind)));
        note(format!("{:?}", disk.create(&root.join("x/y")).map(drop).map_err(kind)));
        let file = disk.create(&root.join("d/f")).unwrap();
        note(format!("{:?}", disk.create(&root.join("d/f")).map(drop).map_err(kind)));
        note(format!("{:?}", disk.open(&root.join("d/g")).map(drop).map_err(kind)));
        file.write_all_at(&[b"ab", b"", b"cd"], 3).unwrap();
        file.set_len(6).unwrap();
        file.sync_data().unwrap();
        let mut buffer = [9; 8];
        note(format!(
            "{:?} {buffer:?} {:?}",
            file.read_at(&mut buffer, 1).unwrap(),
            file.len().unwrap()
        ));
        note(format!("{buffer:?} {:?}", file.read_at(&mut buffer, 60).unwrap()));
        note(format!("{:?}", disk.remove_dir(&root.join("d")).map_err(kind)));
        disk.rename(&root.join("d/f"), &root.join("g")).unwrap();
        let mut listed = disk.list(root).unwrap();
        listed.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(listed, [("d".to_owned(), Listed::Dir), ("g".to_owned(), Listed::File(6))]);
        disk.sync_dir(root).unwrap();
        note(format!("{:?}", disk.remove_file(&root.join("d/f")).map_err(kind)));
        note(format!("{:?}", disk.remove_dir(&root.join("d")).map_err(kind)));
        note(format!("{:?}", disk.list(&root.join("d")).map_err(kind)));
        output
    });
    assert_eq!(answers[0], answers[1]);
}

#[test]
fn a_folder_that_was_removed_or_moved_away_is_known_from_one_that_is_there() {
    let tmp = tempfile::tempdir().unwrap();
    let spool = Spool::open(Arc::new(StdDisk), &tmp.path().join("spool"), 1 << 30).unwrap();
    let mut session = spool.session("cam", "s1").unwrap();
    let dir = session.dir().to_owned();
    assert!(spool.removed_folders().is_empty());
    std::fs::rename(&dir, tmp.path().join("elsewhere")).unwrap();
    assert_eq!(spool.removed_folders(), [dir.as_path()]);
    assert!(session.renew().unwrap());
    std::fs::remove_dir_all(tmp.path().join("spool")).unwrap();
    assert_eq!(spool.removed_folders(), [dir.as_path()]);
    assert!(session.renew().unwrap() && dir.is_dir());
    // A file in the place of the folder: nothing can be written, and the user is warned.
    std::fs::remove_dir_all(&dir).unwrap();
    std::fs::write(&dir, b"").unwrap();
    assert_eq!(spool.removed_folders(), [dir.as_path()]);
    assert!(session.renew().is_err());
    std::fs::remove_file(&dir).unwrap();
    assert!(session.renew().unwrap());
}
