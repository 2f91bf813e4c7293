//! Decides what to do with the chunks in the folder of an earlier session.
//!
//! PURE. [`classify`] returns the state of one scanned file; [`plan`] decides what to do with all files of a session; [`Boots`]
//! corrects the timestamps of chunks that were recorded before the clock was set.

use std::collections::BTreeMap;

use super::destination::DestinationId;
use super::entry::{ClosedEntry, Entry};

/// The content of a file's first record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// The file is empty, or the magic or the record is torn.
    Missing,
    /// A chunk of another session or number, or not readable by this build. The text is the reason.
    Foreign(String),
    /// The entry.
    Entry(Box<Entry>),
}

/// The result of scanning a file's records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The first record.
    pub head: Head,
    /// Bytes of the object in intact, contiguous records.
    pub data: u64,
    /// End of the last intact record in sequence: the file is good up to here.
    pub tail: u64,
    /// The file ends at `tail`.
    pub whole: bool,
    /// The last End record.
    pub closed: Option<Box<ClosedEntry>>,
    /// A Footer proves that the End and everything before it are durable.
    pub sealed: bool,
    /// The server has the object.
    pub confirmed: bool,
    /// A request for it was sent, or was about to be sent, while it was open.
    pub attempted: bool,
    /// Marks of the names under which it was sent whole, since its last End.
    pub sent: Vec<u32>,
    /// Number of bytes of the file that were durable once: the largest number stated by any intact record, those behind damage
    /// included.
    pub watermark: u64,
}

impl Scan {
    /// Creates the scan of a file of which only the first record is known.
    pub fn empty(head: Head) -> Self {
        Self {
            head,
            data: 0,
            tail: 0,
            whole: false,
            closed: None,
            sealed: false,
            confirmed: false,
            attempted: false,
            sent: Vec::new(),
            watermark: 0,
        }
    }
}

/// The values of a closed chunk that stay in memory; the rest is read again for the upload. Times in ns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Sequence number in its session.
    pub sequence: u64,
    /// Bytes of the object.
    pub size: u64,
    /// CRC32C of the object.
    pub crc32c: u32,
    /// Capture start, ns since the Unix epoch.
    pub start: u64,
    /// Duration.
    pub duration: u64,
    /// `start` is from an implausible clock.
    pub suspect: bool,
    /// Destination of the upload.
    pub destination: DestinationId,
}

impl Summary {
    /// Returns the summary of a closed entry.
    pub fn of(closed: &ClosedEntry) -> Self {
        Self {
            sequence: closed.entry.sequence,
            size: closed.size,
            crc32c: closed.crc32c,
            start: closed.entry.start,
            duration: closed.entry.duration,
            suspect: closed.entry.suspect(),
            destination: closed.entry.destination_id(),
        }
    }
}

/// The state of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FileState {
    /// It never had anything worth storing.
    Empty,
    /// The server has it.
    Confirmed,
    /// It is complete.
    Closed(Summary),
    /// The chunk was open when the process ended.
    Half {
        /// The entry as written when the chunk began.
        entry: Box<Entry>,
        /// Intact bytes of the object.
        len: u64,
    },
    /// Bytes that were durable are damaged, or the file is not ours. The text is the reason.
    Damaged(String),
    /// It could not be read.
    Unreadable,
}

/// One file of a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Sequence number, from the file's name.
    pub sequence: u64,
    /// Offset of its payload in the session's input, if known.
    pub input_offset: Option<u64>,
    /// State of the file.
    pub state: FileState,
}

/// What to do with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Upload it as it is.
    Upload(Summary),
    /// Find its last whole unit, close the chunk there, upload it.
    Rebuild {
        /// The entry as written when the chunk began.
        entry: Box<Entry>,
        /// Bytes of the object, header included.
        len: u64,
        /// The payload is known to be whole: nothing must be cut off.
        complete: bool,
    },
    /// Delete it.
    Remove,
    /// Move it to the quarantine. The text is the reason.
    Quarantine(String),
    /// Leave it where it is.
    Leave,
}

/// Returns the state of a scanned file.
///
/// The watermark separates two cases. A bad record at or behind it was torn by a crash, which is harmless. A bad record before it
/// was durable, so the disk has damaged it.
pub fn classify(sequence: u64, scan: Scan) -> Finding {
    let input_offset = match (&scan.closed, &scan.head) {
        (Some(closed), _) => Some(closed.entry.input_offset),
        (None, Head::Entry(entry)) => Some(entry.input_offset),
        _ => None,
    };
    Finding {
        sequence,
        input_offset,
        state: state(scan),
    }
}

fn state(scan: Scan) -> FileState {
    if scan.confirmed {
        // Checked first: a chunk that the server has is removed, even if the file is damaged.
        return FileState::Confirmed;
    }
    if let Head::Foreign(why) = scan.head {
        return FileState::Damaged(why);
    }
    if !scan.whole && scan.tail < scan.watermark {
        return FileState::Damaged(format!(
            "the record at byte {} is damaged, and {} bytes were synced",
            scan.tail, scan.watermark
        ));
    }
    match (scan.closed, scan.head) {
        (Some(closed), _) if closed.size > scan.data => FileState::Damaged(format!(
            "its end record has {} bytes, and the file {}",
            closed.size, scan.data
        )),
        (Some(closed), _) => FileState::Closed(Summary::of(&closed)),
        // A header without payload is not playable.
        (None, Head::Entry(entry)) if scan.data > entry.init_bytes => FileState::Half { entry, len: scan.data },
        (None, _) => FileState::Empty,
    }
}

/// Decides what to do with the files of one session. Returns one decision for each finding. `findings` must be in the order of
/// their sequence numbers.
pub fn plan(findings: Vec<Finding>) -> Vec<Decision> {
    let next: Vec<Option<u64>> = findings
        .iter()
        .enumerate()
        .map(|(i, f)| successor(&findings, i, f.sequence))
        .collect();
    findings
        .into_iter()
        .zip(next)
        .map(|(finding, next)| decide(finding.state, next))
        .collect()
}

/// Returns the offset at which the payload of the next chunk begins, if that chunk is known.
fn successor(findings: &[Finding], i: usize, sequence: u64) -> Option<u64> {
    let next = findings.get(i + 1)?;
    // Only a chunk with the very next number begins where this one ends.
    (Some(next.sequence) == sequence.checked_add(1))
        .then_some(next.input_offset)
        .flatten()
}

fn decide(state: FileState, next: Option<u64>) -> Decision {
    match state {
        FileState::Empty | FileState::Confirmed => Decision::Remove,
        FileState::Closed(summary) => Decision::Upload(summary),
        FileState::Damaged(why) => Decision::Quarantine(why),
        FileState::Unreadable => Decision::Leave,
        FileState::Half { entry, len } => {
            // Bytes are written before it is known where the cut will be. Those from the next chunk's beginning on belong to that
            // chunk alone, and storing them here would duplicate them (P4).
            let end = next
                .and_then(|next| next.checked_sub(entry.input_offset))
                .and_then(|n| n.checked_add(entry.init_bytes));
            match end {
                // The whole payload belongs to the next chunk.
                Some(end) if end <= entry.init_bytes => Decision::Remove,
                Some(end) => Decision::Rebuild {
                    // All bytes up to the next chunk are intact, so the last unit is whole.
                    complete: end <= len,
                    len: len.min(end),
                    entry,
                },
                None => Decision::Rebuild {
                    entry,
                    len,
                    complete: false,
                },
            }
        }
    }
}

/// Wall-clock times of this machine's boots, as far as a correct clock has shown them: the wall clock at zero of each boot's
/// clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Boots {
    known: BTreeMap<String, i128>,
}

impl Boots {
    /// Learns that the wall clock was at `wall` (ns since the Unix epoch) when `boot_ns` had passed since the boot `boot_id`. The
    /// first value for a boot is kept, so learn the current boot first.
    pub fn learn(&mut self, boot_id: &str, wall: u64, boot_ns: u64) {
        // Entries without a boot id are of different boots. Under one empty id, one would correct another with the time of a
        // wrong boot.
        if !boot_id.is_empty() {
            self.known
                .entry(boot_id.to_owned())
                .or_insert(i128::from(wall) - i128::from(boot_ns));
        }
    }

    /// Learns from an entry whose clock was good.
    pub fn learn_entry(&mut self, entry: &Entry) {
        if !entry.suspect() && !entry.clock.is_empty() {
            self.learn(&entry.boot_id, entry.start, entry.boot_ns);
        }
    }

    /// Merges what another value has learned. Boots that are known here keep their value.
    pub fn merge(&mut self, other: &Self) {
        for (boot, wall) in &other.known {
            self.known.entry(boot.clone()).or_insert(*wall);
        }
    }

    /// Returns the corrected capture start of a chunk whose clock was suspect, in ns since the Unix epoch; `None` if the clock
    /// was good or the boot is unknown.
    pub fn correct(&self, entry: &Entry) -> Option<u64> {
        if !entry.suspect() {
            return None;
        }
        let zero = self.known.get(&entry.boot_id)?;
        u64::try_from(zero.checked_add(i128::from(entry.boot_ns))?).ok()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry() -> Box<Entry> {
        Box::new(Entry {
            init_bytes: 100,
            input_offset: 5000,
            ..Entry::default()
        })
    }

    fn scan() -> Scan {
        Scan {
            data: 1100,
            tail: 2000,
            whole: true,
            ..Scan::empty(Head::Entry(entry()))
        }
    }

    fn half(len: u64) -> FileState {
        FileState::Half { entry: entry(), len }
    }

    fn found(sequence: u64, input_offset: Option<u64>, state: FileState) -> Finding {
        Finding {
            sequence,
            input_offset,
            state,
        }
    }

    fn rebuild(decisions: &[Decision]) -> Option<(u64, bool)> {
        match decisions.first() {
            Some(Decision::Rebuild { len, complete, .. }) => Some((*len, *complete)),
            _ => None,
        }
    }

    #[test]
    fn what_lies_behind_the_last_sync_may_be_torn_and_what_lies_before_it_may_not() {
        let torn = |watermark| {
            let broken = Scan {
                whole: false,
                watermark,
                ..scan()
            };
            classify(0, broken).state
        };
        assert_eq!(torn(0), half(1100));
        assert_eq!(torn(2000), half(1100));
        assert!(matches!(torn(2001), FileState::Damaged(why) if why.contains("2000") && why.contains("2001")));
    }

    #[test]
    fn a_file_in_which_nothing_was_yet_is_removed() {
        let missing = Scan {
            head: Head::Missing,
            tail: 0,
            whole: false,
            data: 0,
            ..scan()
        };
        assert_eq!(classify(0, missing.clone()).state, FileState::Empty);
        assert_eq!(
            classify(0, Scan { data: 100, ..scan() }).state,
            FileState::Empty,
            "a header alone is no chunk"
        );
        let lost = Scan {
            watermark: 700,
            ..missing
        };
        assert!(matches!(classify(0, lost).state, FileState::Damaged(_)));
    }

    #[test]
    fn what_the_server_has_is_removed_even_if_it_is_damaged() {
        let scan = Scan {
            confirmed: true,
            whole: false,
            watermark: 9000,
            ..scan()
        };
        assert_eq!(plan(vec![classify(0, scan)]), [Decision::Remove]);
    }

    #[test]
    fn a_half_written_chunk_ends_where_the_next_one_begins() {
        let next = |offset| found(5, Some(offset), FileState::Confirmed);
        let half = |len| found(4, Some(5000), half(len));
        assert_eq!(rebuild(&plan(vec![half(1100), next(6000)])), Some((1100, true)));
        assert_eq!(
            rebuild(&plan(vec![half(1500), next(6000)])),
            Some((1100, true)),
            "bytes written ahead are the next one's"
        );
        assert_eq!(
            rebuild(&plan(vec![half(1099), next(6000)])),
            Some((1099, false)),
            "its last bytes were lost"
        );
        assert_eq!(rebuild(&plan(vec![half(1500)])), Some((1500, false)));
        let later = found(6, Some(6000), FileState::Empty);
        assert_eq!(
            rebuild(&plan(vec![half(1500), later])),
            Some((1500, false)),
            "only the very next one tells"
        );
        assert_eq!(
            plan(vec![half(1500), next(5000)])[0],
            Decision::Remove,
            "all its payload is the next one's"
        );
    }

    #[test]
    fn a_file_that_cannot_be_read_is_left_and_one_that_is_damaged_is_set_aside() {
        let decisions = plan(vec![
            found(0, None, FileState::Unreadable),
            found(1, None, FileState::Damaged("x".into())),
        ]);
        assert_eq!(decisions, [Decision::Leave, Decision::Quarantine("x".into())]);
    }

    #[test]
    fn an_end_that_promises_more_than_there_is_is_damage() {
        let closed = ClosedEntry {
            size: 1101,
            ..ClosedEntry::default()
        };
        let scan = Scan {
            closed: Some(Box::new(closed)),
            ..scan()
        };
        assert!(matches!(classify(0, scan).state, FileState::Damaged(why) if why.contains("1101")));
    }

    #[test]
    fn a_chunk_from_before_the_clock_was_set_is_dated_by_its_boot() {
        const S: u64 = 1_000_000_000;
        let old = Entry {
            clock: "suspect".into(),
            boot_id: "b".into(),
            boot_ns: 40 * S,
            start: 7 * S,
            ..Entry::default()
        };
        let mut boots = Boots::default();
        assert_eq!(boots.correct(&old), None, "nothing is known of that boot");
        boots.learn_entry(&old);
        assert_eq!(boots.correct(&old), None, "a suspect clock teaches nothing");
        let good = Entry {
            clock: "system".into(),
            boot_ns: 100 * S,
            start: 1_795_329_912 * S,
            ..old.clone()
        };
        boots.learn_entry(&good);
        assert_eq!(boots.correct(&old), Some((1_795_329_912 - 60) * S));
        assert_eq!(boots.correct(&good), None, "a good clock is not corrected");
        let other = Entry {
            boot_id: "c".into(),
            ..old.clone()
        };
        assert_eq!(boots.correct(&other), None);
        let mut now = Boots::default();
        now.learn("b", 1_795_330_000 * S, 150 * S);
        now.merge(&boots);
        assert_eq!(
            now.correct(&old),
            Some((1_795_330_000 - 110) * S),
            "the clock of now counts first"
        );
    }

    proptest! {
        #[test]
        fn no_number_makes_the_clock_or_the_plan_panic(wall: u64, boot: u64, other: u64, init: u64, offset: u64, next: u64, len: u64) {
            let mut boots = Boots::default();
            boots.learn("b", wall, boot);
            let entry = Entry {
                clock: "suspect".into(),
                boot_id: "b".into(),
                boot_ns: other,
                init_bytes: init,
                input_offset: offset,
                ..Entry::default()
            };
            let expected = i128::from(wall) - i128::from(boot) + i128::from(other);
            prop_assert_eq!(boots.correct(&entry).map(i128::from), u64::try_from(expected).ok().map(i128::from));
            let half = FileState::Half { entry: Box::new(entry), len };
            let decisions = plan(vec![found(u64::MAX - 1, Some(offset), half), found(u64::MAX, Some(next), FileState::Empty)]);
            if let Some((kept, _)) = rebuild(&decisions) {
                prop_assert!(kept <= len);
            }
        }
    }
}
