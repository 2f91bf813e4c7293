//! The same for every kind of call by itself: one camera, and for each call a sink on whose disk only that one does not return.

use super::common::gcs_server::Fault;
use super::*;

/// What the spool asks of a disk, as `peers/hang.c` names it.
const CALLS: [&str; 16] = [
    "open", "write", "read", "sync", "sync-dir", "stat", "list", "lock", "space", "mode", "close", "make-dir", "remove",
    "rename", "link", "truncate",
];
/// Calls without which nothing is recorded to disk.
const RECORDING: [&str; 6] = ["open", "write", "read", "sync", "sync-dir", "remove"];
/// The camera delivers all the time: a pause of this length is one of `render`.
const PAUSE: Duration = Duration::from_millis(3500);

/// One camera into a sink for each of these calls, and into one whose disk is well. Their queues hold a second: whoever waits longer
/// stops them all. What reaches the sinks is also written to `input`.
fn line(folder: &Path, input: &str, calls: &[&str], endpoint: &str, properties: &str) -> String {
    let input = folder.join(input).display().to_string();
    let mut words = format!(
        "{} camera. ! queue ! filesink location={input} buffer-mode=unbuffered",
        camera("camera")
    );
    for call in calls.iter().chain(&["fine"]) {
        let spool = folder.join(call).join("spool");
        std::fs::create_dir_all(spool.parent().unwrap()).unwrap();
        words += &format!(
            " camera. ! queue ! gcssink name={call} bucket={BUCKET} device-id={call} endpoint-uri={endpoint} spool-dir={} \
             max-spool-bytes=1000000000 max-size-time=1000000000 max-requests-per-second=0 {properties}",
            spool.display()
        );
    }
    words
}

fn record(calls: &[&str], properties: &str) -> Recording {
    let (server, folder) = (GcsServer::spawn_thread(), folder());
    let words = line(folder.path(), "input", calls, &server.endpoint(), properties);
    Recording::launch(&words, false, server, folder)
}

impl Recording {
    /// No more than this many threads wait for a disk.
    fn stuck_at_most(&self, most: usize) {
        let threads = self.threads("gcs-spool");
        assert!(threads <= most, "{threads}");
    }

    /// Waits until all of these have stored more of what they record. The camera must not be held up meanwhile.
    fn until_all_stored(&self, calls: &[&str], more: usize) {
        let input = self.folder.path().join("input");
        let before: Vec<usize> = calls.iter().map(|call| self.stored(call).len()).collect();
        let (mut len, mut grew) = (0, Instant::now());
        self.until("not all of them store", || {
            let now = std::fs::metadata(&input).map_or(0, |m| m.len());
            if now > len {
                (len, grew) = (now, Instant::now());
            }
            assert!(len == 0 || grew.elapsed() < PAUSE, "the camera was held up\n{}", self.said());
            let counts = calls.iter().map(|call| self.stored(call).len());
            counts.zip(&before).all(|(now, before)| now >= before + more)
        });
    }
}

/// Each of these has warned once at most, and all that it recorded is in the bucket, these inputs, and no more in its spool.
fn all_went_well(said: &str, server: &GcsServer, folder: &tempfile::TempDir, calls: &[&str], inputs: &[&[u8]]) {
    for call in calls {
        let reported = warned(said, call);
        assert!(reported.len() <= 1, "{call}: {reported:#?}");
        all_sessions(server, call, inputs);
        assert_eq!(left(folder, call), 0, "{call}: what was stored is removed");
    }
}

/// Whether a sink has posted a message that holds these words.
fn posted(said: &str, call: &str, words: &str) -> bool {
    let of = format!("from element \"{call}\"");
    said.lines().any(|line| line.contains(&of) && line.contains(words))
}

fn warned<'a>(said: &'a str, call: &str) -> Vec<&'a str> {
    let of = format!("GstGcsSink:{call}:");
    warnings(said).into_iter().filter(|line| line.contains(&of)).collect()
}

#[test]
fn whichever_call_does_not_return_in_mid_recording_the_camera_and_all_its_chunks_go_on() {
    let recording = record(&CALLS, "");
    let all = [&CALLS[..], &["fine"]].concat();
    recording.until_all_stored(&all, 2);
    std::fs::write(recording.flag(), "").unwrap();
    for call in RECORDING {
        recording.until(call, || !warned(&recording.said(), call).is_empty());
    }
    recording.until_all_stored(&all, 3);
    recording.stuck_at_most(all.len());
    std::fs::remove_file(recording.flag()).unwrap();
    let reported: Vec<&str> = CALLS
        .into_iter()
        .filter(|call| !warned(&recording.said(), call).is_empty())
        .collect();
    for call in &reported {
        assert!(posted(&recording.said(), call, "degraded"), "{call}: {}", recording.said());
    }
    // The words of an INFO are printed without its element.
    let works = || recording.said().matches("takes chunks again").count();
    recording.until("not all of them are used again", || works() == reported.len());
    recording.until_all_stored(&all, 2);
    let (said, server, folder) = recording.interrupt(Duration::from_secs(35));
    let input = std::fs::read(folder.path().join("input")).unwrap();
    all_went_well(&said, &server, &folder, &all, &[&input]);
}

/// All that a device has stored is these inputs, one for each session. What a power cut left of the first may end earlier.
fn all_sessions(server: &GcsServer, device: &str, inputs: &[&[u8]]) {
    let mut sessions: Vec<(String, Vec<Chunk>)> = Vec::new();
    for chunk in chunks(server).into_iter().filter(|c| c.get("device-id") == device) {
        match sessions.last_mut().filter(|(id, _)| id == chunk.get("session-id")) {
            Some((_, chunks)) => chunks.push(chunk),
            None => sessions.push((chunk.get("session-id").to_owned(), vec![chunk])),
        }
    }
    assert_eq!(sessions.len(), inputs.len(), "{device}");
    for (number, ((_, stored), input)) in sessions.iter().zip(inputs).enumerate() {
        let all = joined(stored);
        let is_last = number + 1 == inputs.len();
        assert!(
            all == *input || (!is_last && input.starts_with(&all)),
            "{device}: {} chunks",
            stored.len()
        );
    }
}

/// How much is left in the spool of a device.
fn left(folder: &tempfile::TempDir, device: &str) -> usize {
    std::fs::read_dir(folder.path().join(device).join("spool")).unwrap().count()
}

/// After a power cut, with chunks left that no server took.
fn begin_hung(calls: &[&str]) -> (Recording, Vec<u8>) {
    let (server, folder) = (GcsServer::spawn_thread(), folder());
    (0..1000).for_each(|_| server.push_fault(Fault::status(503)));
    let words = line(folder.path(), "before", calls, &server.endpoint(), "");
    let before = Recording::launch(&words, false, server, folder);
    before.until("nothing is in the spools", || {
        let files = |call: &str| {
            let below = |dir: PathBuf| {
                std::fs::read_dir(dir)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|entry| entry.path())
            };
            let sessions = below(before.folder.path().join(call).join("spool").join(call));
            sessions.flat_map(below).count()
        };
        // The lock, two chunks that are whole and the one that is being written.
        calls.iter().all(|call| files(call) >= 4)
    });
    let (server, folder) = before.kill();
    server.clear_faults();
    let input = std::fs::read(folder.path().join("before")).unwrap();
    let words = line(folder.path(), "input", calls, &server.endpoint(), "");
    (Recording::launch(&words, true, server, folder), input)
}

/// The start, with what a power cut has left to be taken over.
fn starts(calls: &[&str]) {
    let (recording, before) = begin_hung(calls);
    let all = [calls, &["fine"]].concat();
    recording.until("no data", || all.iter().all(|call| !recording.stored(call).is_empty()));
    recording.until_all_stored(&all, 12);
    recording.stuck_at_most(all.len());
    std::fs::remove_file(recording.flag()).unwrap();
    let has_both = |call: &str| {
        let stored = recording.stored(call);
        stored[0].get("session-id") != stored[stored.len() - 1].get("session-id")
    };
    recording.until("what was left is not stored", || all.iter().all(|call| has_both(call)));
    recording.until_all_stored(&all, 2);
    let (said, server, folder) = recording.interrupt(Duration::from_secs(35));
    let input = std::fs::read(folder.path().join("input")).unwrap();
    all_went_well(&said, &server, &folder, &all, &[&before, &input]);
}

#[test]
fn whichever_call_does_not_return_at_the_start_new_chunks_are_stored_and_the_left_ones_when_it_does() {
    std::thread::scope(|scope| {
        for calls in CALLS.chunks(4) {
            scope.spawn(move || starts(calls));
        }
    });
}

#[test]
fn whichever_call_does_not_return_at_the_end_it_keeps_its_deadline_and_loses_nothing_that_came_before() {
    let recording = record(&CALLS, "drain-timeout=3000000000 shutdown-timeout=1000000000");
    let all = [&CALLS[..], &["fine"]].concat();
    recording.until_all_stored(&all, 2);
    std::fs::write(recording.flag(), "").unwrap();
    let stored = |server: &GcsServer, call: &str| {
        let all: Vec<Chunk> = chunks(server).into_iter().filter(|c| c.get("device-id") == call).collect();
        joined(&all)
    };
    let before: Vec<usize> = all.iter().map(|call| stored(&recording.server, call).len()).collect();
    let began = Instant::now();
    let (said, server, folder) = recording.interrupt(Duration::from_secs(15));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}\n{said}", began.elapsed());
    let input = std::fs::read(folder.path().join("input")).unwrap();
    for (call, before) in all.into_iter().zip(before) {
        let stored = stored(&server, call);
        assert!(input.starts_with(&stored) && stored.len() >= before, "{call}");
        let is_whole = stored.len() == input.len();
        assert!(
            is_whole || (call != "fine" && !warned(&said, call).is_empty()),
            "{call} ends in silence\n{said}"
        );
    }
}
