//! Several processes on one folder: `max-spool-bytes` is one limit for all of them.

use super::super::quota::{Charge, Quota, Refused};
use super::super::usage::{USAGE, Usage};
use super::*;

const BLOCK: u64 = 4096;

/// A process that uses the folder.
fn process(disk: &SimDisk, limit: u64) -> Quota {
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let (usage, others) = Usage::join(shared, disk.root(), || 0).unwrap();
    let quota = Quota::new(others, Some(usage));
    quota.set_limit(0, limit);
    quota.ask().unwrap();
    quota
}

/// Lets a file of a process grow by `step` until it is refused. Returns its length.
fn fill(quota: &Quota, name: &str, step: u64) -> (Charge, u64) {
    let (mut charge, mut len) = (Charge::default(), 0);
    loop {
        match quota.resize(name, &mut charge, len + step, 0) {
            Ok(()) => len += step,
            Err(Refused::Full(..)) => return (charge, len),
            Err(Refused::Io(e)) => panic!("{e}"),
        }
    }
}

fn root(disk: &SimDisk) {
    disk.create_dir(disk.root()).unwrap();
}

#[test]
fn two_processes_use_one_limit_together_the_smallest_that_a_user_has_set() {
    let disk = SimDisk::new(1);
    root(&disk);
    let (first, second, third) = (process(&disk, 100 * BLOCK), process(&disk, 0), process(&disk, 300 * BLOCK));
    // Each process learns about the others at its exchange.
    let (mut a, in_first) = fill(&first, "a", BLOCK);
    assert!((95 * BLOCK..=100 * BLOCK).contains(&in_first), "{in_first}");
    let ((mut b, by_default), (mut c, by_larger)) = (fill(&second, "b", BLOCK), fill(&third, "c", BLOCK));
    let all = in_first + by_default + by_larger;
    assert!(all <= 100 * BLOCK, "neither a default nor a larger limit overrides it: {all}");
    assert_eq!(second.max(), 100 * BLOCK);
    // Room that one process frees is available to the others.
    first.remove("a", &mut a);
    second.remove("b", &mut b);
    third.remove("c", &mut c);
    first.ask().unwrap();
    let (_, in_second) = fill(&second, "b", BLOCK);
    let (_, in_third) = fill(&third, "c", BLOCK);
    let all = in_second + in_third;
    assert!((90 * BLOCK..=100 * BLOCK).contains(&all), "{in_second} {in_third}");
    // A limit ends with its process.
    drop(first);
    let (_, more) = fill(&second, "d", 10 * BLOCK);
    assert!(more >= 150 * BLOCK, "{more}");
}

#[test]
fn what_a_process_that_died_has_left_still_counts_and_is_ours_when_it_is_taken_over() {
    let disk = SimDisk::new(1);
    root(&disk);
    let living = process(&disk, 100 * BLOCK);
    let dead = process(&disk, 0);
    let (_, in_dead) = fill(&dead, "x", 10 * BLOCK);
    // A dead process loses its locks; its files stay.
    std::mem::forget(dead);
    let next = disk.kill();
    let alone = process(&next, 100 * BLOCK);
    drop(living);
    assert!(in_dead >= 90 * BLOCK);
    // A process that finds itself alone counts again, which here finds nothing.
    assert_eq!(alone.used(), 0);
    let other = process(&next, 0);
    let (_, in_other) = fill(&other, "y", BLOCK);
    assert!(in_other >= 90 * BLOCK, "{in_other}");
    other.disown("y");
    drop(other);
    let (_, rest) = fill(&alone, "z", BLOCK);
    assert!(
        in_other + rest <= 100 * BLOCK,
        "{in_other} and {rest} are more than the limit"
    );
    alone.own("y", in_other);
    alone.ask().unwrap();
    assert_eq!(alone.used(), in_other + rest);
    let mut gone = Charge::counted(in_other);
    alone.remove("y", &mut gone);
    let (_, now) = fill(&alone, "w", BLOCK);
    assert!(now >= in_other - 2 * BLOCK, "{now} of {in_other}");
}

#[test]
fn the_last_process_leaves_no_file_behind_and_a_file_that_cannot_be_written_stops_nobody() {
    let disk = SimDisk::new(1);
    root(&disk);
    let (first, second) = (process(&disk, 100 * BLOCK), process(&disk, 0));
    disk.set_usage_fails(true);
    let (_, len) = fill(&first, "a", BLOCK);
    assert!((95 * BLOCK..=100 * BLOCK).contains(&len), "its own limit counts: {len}");
    disk.set_usage_fails(false);
    drop(first);
    drop(second);
    assert!(disk.list(&disk.root().join(USAGE)).is_err(), "the folder is gone");
}

#[test]
fn a_process_of_another_user_whose_file_cannot_be_locked_counts_by_its_name() {
    let disk = SimDisk::new(1);
    root(&disk);
    // It has set a limit of 100 blocks, and claimed 40.
    let theirs = disk.root().join(USAGE).join(format!("7-00.{}.{}", 100 * BLOCK, 40 * BLOCK));
    disk.put(&theirs, b"");
    disk.make_unreadable(&theirs);
    let (first, second) = (process(&disk, 0), process(&disk, 0));
    let ((_, in_first), (_, in_second)) = (fill(&first, "a", BLOCK), fill(&second, "b", BLOCK));
    let all = in_first + in_second;
    assert!((55 * BLOCK..=60 * BLOCK).contains(&all), "{in_first} and {in_second}");
    drop((first, second));
    assert!(disk.list(&disk.root().join(USAGE)).unwrap().len() > 1, "theirs stays");
}

#[test]
fn where_the_limit_cannot_be_shared_one_warning_says_so() {
    let disk = SimDisk::new(1);
    disk.set_usage_fails(true);
    let spools = [spool_on(&disk, 100 * BLOCK), spool_on(&disk, 0)];
    let texts = |spool| -> Vec<String> { adopt(spool).notices.iter().map(ToString::to_string).collect() };
    let output = texts(&spools[0]);
    assert!(
        output.len() == 1
            && output[0].contains("max-spool-bytes counts for this process alone")
            && output[0].contains("os error 5"),
        "{output:?}"
    );
    assert!(texts(&spools[1]).is_empty() && texts(&spools[0]).is_empty(), "said once");
}

#[test]
fn a_limit_is_still_shared_after_somebody_has_removed_all_that_lies_in_the_spool() {
    for is_empty in [true, false] {
        let disk = SimDisk::new(1);
        root(&disk);
        let (first, second) = (process(&disk, 100 * BLOCK), process(&disk, 0));
        let (_, mut in_second) = match is_empty {
            true => (Charge::default(), 0),
            false => {
                let mut charge = Charge::default();
                second.resize("b", &mut charge, 40 * BLOCK, 0).unwrap();
                disk.put(&disk.root().join("b/s1/00000000000000000000.chunk"), &vec![7; 40 * 4096]);
                (charge, 40 * BLOCK)
            }
        };
        disk.remove_tree(&disk.root().join(USAGE));
        // The other process has not noticed the removal yet, so its bytes count as claimed by nobody until its next exchange.
        first.ask().unwrap();
        let (_, in_first) = fill(&first, "a", BLOCK);
        disk.put(
            &disk.root().join("a/s1/00000000000000000000.chunk"),
            &vec![7; usize::try_from(in_first).unwrap()],
        );
        second.ask().unwrap();
        let (_, more) = fill(&second, "c", BLOCK);
        in_second += more;
        let all = in_first + in_second;
        assert!((95 * BLOCK..=100 * BLOCK).contains(&all), "{in_first} and {in_second}");
        // `lock`, `unowned`, and one file for each process.
        first.ask().unwrap();
        let names = disk.list(&disk.root().join(USAGE)).unwrap();
        assert_eq!(names.len(), 4, "{names:?}");
    }
}

#[test]
fn room_that_the_user_makes_by_emptying_the_quarantine_is_used_without_a_restart() {
    let disk = SimDisk::new(1);
    let spool = spool_on(&disk, 12 * BLOCK);
    let session = spool.session("cam", "s1").unwrap();
    for sequence in 0..6 {
        finished(&session, &entry("s1", sequence), &content("s1", sequence, 500))
            .quarantine()
            .unwrap();
    }
    let mut kept = Vec::new();
    while spool.room() >= 3 * BLOCK {
        kept.push(finished(
            &session,
            &entry("s1", 6 + kept.len() as u64),
            &content("s1", 6, 500),
        ));
    }
    disk.remove_tree(&disk.root().join("quarantine"));
    for _ in 0..3 {
        kept.push(finished(
            &session,
            &entry("s1", 6 + kept.len() as u64),
            &content("s1", 6, 500),
        ));
    }
    assert!(kept.len() > 3);
}
