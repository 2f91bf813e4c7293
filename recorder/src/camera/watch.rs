//! Counts what passes through a recording. The streaming threads write and the runner reads; the only lock that a buffer takes is
//! that of [`Pace`].

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use gcstreamer_schema::structures::chunk_uploaded;
use gcstreamer_schema::time;
use tokio::sync::mpsc::UnboundedSender;

use super::files::Files;
use super::plan::Video;
use super::state::Failure;
use super::supervisor::Attempt;
use gstgcstreamer::base::lock::lock;

/// Sound that is missing for this long while pictures arrive has stopped. A recording then continues without it, because the
/// muxer would wait for it.
pub(super) const SOUND_LOST: Duration = Duration::from_secs(3);

/// An event that the runner of a camera must handle.
#[derive(Clone, Debug)]
pub enum PipelineEvent {
    /// The camera has answered one of several requests.
    Answered,
    /// The camera has answered, and its streams are set up.
    Opened,
    /// The first picture or the first sound has arrived.
    Flows,
    /// The camera has closed the connection, and no stream of pictures has arrived yet.
    Closing,
    /// The attempt has failed.
    Failed(Failure),
    /// The sound is not recorded, for this reason.
    Soundless(String),
    /// The picture changed before the first key frame: its first size came from an outdated SDP.
    StaleSets,
    /// The camera's files have been read.
    Files(Files),
    /// A chunk is stored.
    Stored(Stored),
    /// A WARNING of an element of ours.
    Warning(String),
    /// An INFO of an element of ours.
    Info(String),
    /// The camera's clock minus ours, in seconds.
    Clock(f64),
    /// The connection to the camera is closed, and another sink may store for it.
    Gone,
    /// The recording is over and its pipeline is stopped.
    Finished,
}

/// A stored chunk. The sink that stored it need not be its camera's: any sink may adopt chunks from the spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// The camera that it is of.
    pub device: String,
    /// Its end, since the Unix epoch.
    pub until: Duration,
    /// Bytes.
    pub size: u64,
}

impl Stored {
    /// Parses an element message of a sink. Returns `None` if it reports no stored chunk.
    pub fn of(structure: &gst::StructureRef) -> Option<Self> {
        if structure.name() != chunk_uploaded::NAME {
            return None;
        }
        let start = time::parse_rfc3339(structure.get::<&str>(chunk_uploaded::START_TIME).ok()?)?;
        let duration: u64 = structure.get(chunk_uploaded::DURATION).ok()?;
        Some(Self {
            device: structure.get(chunk_uploaded::DEVICE_ID).ok()?,
            until: Duration::from_nanos(start.saturating_add(duration)),
            size: structure.get(chunk_uploaded::SIZE).ok()?,
        })
    }
}

/// Sends the news of one attempt.
#[derive(Clone, Debug)]
pub struct EventSender {
    /// Its number.
    pub attempt: Attempt,
    /// The runner's queue.
    pub to: UnboundedSender<(Attempt, PipelineEvent)>,
}

impl EventSender {
    /// Sends the news. Does nothing if the runner has ended.
    pub fn send(&self, news: PipelineEvent) {
        let _ = self.to.send((self.attempt, news));
    }
}

/// Codec and size of the pictures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Their codec.
    pub codec: Video,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

/// Frame rate and key frame interval of the latest pictures.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    last_key: Option<u64>,
    /// Time between the last two key frames, ns.
    pub key_interval: Option<u64>,
    first: Option<u64>,
    count: u32,
    /// Frames per second by their time stamps, over the last two seconds or so.
    pub fps: Option<f64>,
}

impl Pace {
    /// Counts a picture with this time stamp, in ns. Timestamp jumps do not count as elapsed time.
    pub fn picture(&mut self, time: u64, is_key: bool) {
        const LONGEST: u64 = 600_000_000_000;
        const WINDOW: u64 = 2_000_000_000;
        if is_key {
            let interval = self.last_key.and_then(|last| time.checked_sub(last));
            self.key_interval = interval
                .filter(|interval| (1..LONGEST).contains(interval))
                .or(self.key_interval);
            self.last_key = Some(time);
        }
        match self.first.and_then(|first| time.checked_sub(first)) {
            // B-frames arrive in decoding order, so their time can be a little before that of the first frame.
            None if self.first.is_some_and(|first| first - time < WINDOW) => {}
            Some(passed) if passed < WINDOW => self.count += 1,
            Some(passed) if passed < 4 * WINDOW => {
                let passed = Duration::from_nanos(passed).as_secs_f64();
                self.fps = Some(f64::from(self.count + 1) / passed);
                (self.first, self.count) = (Some(time), 0);
            }
            // After a longer pause or a jump the count starts again: neither is a low frame rate.
            _ => (self.first, self.count) = (Some(time), 0),
        }
    }
}

/// Measures for how long pictures have arrived without sound. A pause of the whole stream counts as at most one second: sound
/// that pauses together with the pictures returns with them.
#[derive(Debug, Default)]
struct Silence {
    /// In ns of any clock, plus one; 0: none yet.
    last_picture: AtomicU64,
    /// In ns.
    lasts: AtomicU64,
}

impl Silence {
    /// The most that a gap between two pictures counts, in ns: a longer one is a pause of the camera.
    const PAUSE: u64 = 1_000_000_000;

    /// Counts a picture at this time, in ns.
    fn picture(&self, now: u64) {
        let before = self.last_picture.swap(now, Ordering::Relaxed);
        if before > 0 {
            self.lasts
                .fetch_add(now.saturating_sub(before).min(Self::PAUSE), Ordering::Relaxed);
        }
    }

    fn sound(&self) {
        self.lasts.store(0, Ordering::Relaxed);
    }

    fn lasts(&self) -> Duration {
        Duration::from_nanos(self.lasts.load(Ordering::Relaxed))
    }
}

/// The counters of one recording.
#[derive(Debug)]
pub struct Watch {
    began: Instant,
    frames: AtomicU64,
    slices: AtomicU64,
    has_arrived: AtomicBool,
    /// Whether bytes have arrived since [`Watch::take_arrival`] was called last.
    arrives: AtomicBool,
    bytes: AtomicU64,
    /// In ns since `began`, plus one; 0: none yet.
    last_frame: AtomicU64,
    sound: AtomicU64,
    /// The start of the sound that has had no break since; as `last_frame`.
    first_sound: AtomicU64,
    last_sound: AtomicU64,
    silence: Silence,
    /// Set when the probes must drop all further data and report nothing more.
    pub closed: AtomicBool,
    /// Sound is not recorded, even if it arrives.
    pub(super) is_soundless: AtomicBool,
    has_key: AtomicBool,
    picture: Mutex<Option<Picture>>,
    pace: Mutex<Pace>,
}

impl Default for Watch {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            frames: AtomicU64::new(0),
            slices: AtomicU64::new(0),
            has_arrived: AtomicBool::new(false),
            arrives: AtomicBool::new(false),
            bytes: AtomicU64::new(0),
            last_frame: AtomicU64::new(0),
            sound: AtomicU64::new(0),
            first_sound: AtomicU64::new(0),
            last_sound: AtomicU64::new(0),
            silence: Silence::default(),
            closed: AtomicBool::new(false),
            is_soundless: AtomicBool::new(false),
            has_key: AtomicBool::new(false),
            picture: Mutex::default(),
            pace: Mutex::default(),
        }
    }
}

impl Watch {
    fn mark(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX - 1) + 1
    }

    fn age(&self, mark: &AtomicU64) -> Option<Duration> {
        let at = mark.load(Ordering::Relaxed);
        (at > 0).then(|| Duration::from_nanos(self.mark().saturating_sub(at)))
    }

    /// Counts a picture. Returns whether it was the first.
    pub fn on_picture(&self, bytes: u64, time: Option<u64>, is_key: bool) -> bool {
        let now = self.mark();
        self.last_frame.store(now, Ordering::Relaxed);
        self.silence.picture(now);
        self.has_key.fetch_or(is_key, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if let Some(time) = time {
            lock(&self.pace).picture(time, is_key);
        }
        self.frames.fetch_add(1, Ordering::Relaxed) == 0
    }

    /// Whether a key frame has passed.
    pub fn has_key(&self) -> bool {
        self.has_key.load(Ordering::Relaxed)
    }

    /// Counts a slice in front of the parser. It need not become a picture: the parser holds it back until it has parameter sets.
    pub fn on_slice(&self) {
        self.slices.fetch_add(1, Ordering::Relaxed);
    }

    /// Notes that bytes of the stream have arrived outside RTSP, whatever they contain.
    pub(super) fn on_arrival(&self) {
        self.has_arrived.store(true, Ordering::Relaxed);
        self.arrives.store(true, Ordering::Relaxed);
    }

    /// Whether bytes of the stream have arrived outside RTSP.
    pub(super) fn has_arrived(&self) -> bool {
        self.has_arrived.load(Ordering::Relaxed)
    }

    /// Whether bytes have arrived since the last call.
    pub(super) fn take_arrival(&self) -> bool {
        self.arrives.swap(false, Ordering::Relaxed)
    }

    /// Returns the number of slices so far.
    pub fn slices(&self) -> u64 {
        self.slices.load(Ordering::Relaxed)
    }

    /// Counts a buffer of sound. Returns whether it was the first.
    pub fn on_sound(&self, bytes: u64) -> bool {
        self.on_sound_at(self.mark(), bytes)
    }

    fn on_sound_at(&self, now: u64, bytes: u64) -> bool {
        let before = self.last_sound.swap(now, Ordering::Relaxed);
        self.silence.sound();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let is_first = self.sound.fetch_add(1, Ordering::Relaxed) == 0;
        // The duration of sound starts again after a break.
        if is_first || Duration::from_nanos(now.saturating_sub(before)) >= SOUND_LOST {
            self.first_sound.store(now, Ordering::Relaxed);
        }
        is_first
    }

    /// Sets codec and size of the pictures. Returns the previous ones if they were different.
    pub fn on_kind(&self, picture: Picture) -> Option<Picture> {
        lock(&self.picture).replace(picture).filter(|before| *before != picture)
    }

    /// Returns codec and size of the pictures.
    pub fn picture(&self) -> Option<Picture> {
        *lock(&self.picture)
    }

    /// Returns frame rate and key frame interval.
    pub fn pace(&self) -> Pace {
        *lock(&self.pace)
    }

    /// Returns the number of pictures so far.
    pub fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// Returns the number of bytes so far, pictures and sound together.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns the wall-clock time of the last picture.
    pub fn last_frame(&self) -> Option<SystemTime> {
        SystemTime::now().checked_sub(self.age(&self.last_frame)?)
    }

    /// Returns for how long pictures have arrived without sound.
    pub fn silence(&self) -> Duration {
        self.silence.lasts()
    }

    /// Returns how long ago the current, unbroken sound began, and how long ago the last buffer of sound arrived. `None`: no
    /// sound yet.
    pub fn sound_ages(&self) -> Option<(Duration, Duration)> {
        Some((self.age(&self.first_sound)?, self.age(&self.last_sound)?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn frame_rate_and_key_interval_follow_from_time_stamps_and_jumps_do_not_count() {
        let mut pace = Pace::default();
        let mut at = 3_600_000 * MS;
        for i in 0..100u64 {
            pace.picture(at, i % 50 == 0);
            at += 40 * MS;
        }
        assert_eq!(pace.key_interval, Some(2000 * MS));
        assert!((pace.fps.unwrap() - 25.0).abs() < 0.6, "{pace:?}");
        pace.picture(5 * MS, true);
        assert_eq!(pace.key_interval, Some(2000 * MS), "backwards");
        for i in 0..100u64 {
            pace.picture(5 * MS + i * 100 * MS, false);
        }
        assert!((pace.fps.unwrap() - 10.0).abs() < 0.6, "{pace:?}");
    }

    #[test]
    fn sound_is_not_lost_in_a_pause_of_the_whole_camera_but_while_pictures_go_on() {
        let silence = Silence::default();
        let lost = || silence.lasts() >= Duration::from_secs(3);
        let mut now = 1;
        for pause in [0, 9000 * MS, 5000 * MS] {
            now += pause;
            // After the pause some pictures come first.
            for _ in 0..12 {
                silence.picture(now);
                assert!(!lost(), "{silence:?}");
                now += 40 * MS;
            }
            silence.sound();
        }
        let stopped = now;
        while !lost() {
            now += 40 * MS;
            silence.picture(now);
        }
        assert!((2900 * MS..3600 * MS).contains(&(now - stopped)), "{}", now - stopped);
        // One picture in 5 s: the sound must still count as lost, because the muxer would wait for it for ever.
        silence.sound();
        for _ in 0..3 {
            now += 5000 * MS;
            silence.picture(now);
        }
        assert!(lost());
    }

    #[test]
    fn b_frames_do_not_begin_a_new_measurement() {
        let mut pace = Pace::default();
        for i in 0..100u64 {
            let early = if i % 3 == 1 { 40 * MS } else { 0 };
            pace.picture(1000 * MS + i * 40 * MS - early, i == 0);
        }
        assert!((pace.fps.unwrap() - 25.0).abs() < 1.0, "{pace:?}");
    }

    #[test]
    fn sound_that_comes_back_after_a_break_has_to_last_again() {
        const S: u64 = 1_000_000_000;
        let watch = Watch::default();
        let lasts = || watch.last_sound.load(Ordering::Relaxed) - watch.first_sound.load(Ordering::Relaxed);
        assert!(watch.on_sound_at(S, 1));
        for half in 2..=12 {
            assert!(!watch.on_sound_at(half * S / 2, 1));
        }
        assert_eq!(lasts(), 5 * S);
        // A single packet, after the recording has continued without sound.
        assert!(!watch.on_sound_at(20 * S, 1));
        assert_eq!(lasts(), 0);
        watch.on_sound_at(22 * S, 1);
        assert_eq!(lasts(), 2 * S);
    }

    #[test]
    fn another_picture_is_noticed_and_the_same_one_is_not() {
        let watch = Watch::default();
        let picture = |width| Picture {
            codec: Video::H264,
            width,
            height: 360,
        };
        assert_eq!(watch.on_kind(picture(640)), None);
        assert_eq!(watch.on_kind(picture(640)), None);
        assert_eq!(watch.on_kind(picture(1280)), Some(picture(640)));
        assert!(watch.on_picture(10, None, true) && !watch.on_picture(10, None, false));
        assert_eq!((watch.frames(), watch.bytes()), (2, 20));
        assert_eq!(watch.sound_ages(), None);
        assert!(watch.on_sound(5) && watch.sound_ages().is_some());
    }
}
