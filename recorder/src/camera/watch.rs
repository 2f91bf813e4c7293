//! What passes through a recording, counted by its streaming threads and read by the runner. No locks on the way of a buffer but one for
//! the figures of pictures.

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

/// Sound that does not come for this long while pictures do has stopped. Recorded sound is given up then, or the muxer would wait for it.
pub(super) const SOUND_LOST: Duration = Duration::from_secs(3);

/// Something that the runner of a camera has to know.
#[derive(Clone, Debug)]
pub enum News {
    /// The camera has answered one of several requests.
    Answered,
    /// The camera has answered, and its streams are set up.
    Opened,
    /// Pictures or sound come for the first time.
    Flows,
    /// The camera has closed the connection, and no stream of pictures has come yet.
    Closing,
    /// It cannot go on.
    Failed(Failure),
    /// The sound is not recorded; why.
    Soundless(String),
    /// The picture changed before the first key frame: its first size was that of an old description.
    StaleSets,
    /// The camera's files are read.
    Files(Files),
    /// A chunk is stored.
    Stored(Stored),
    /// A WARNING of an element of ours.
    Warning(String),
    /// An INFO of an element of ours.
    Info(String),
    /// The camera's clock less ours, s.
    Clock(f64),
    /// The connection to the camera is closed, and another sink may store for it.
    Gone,
    /// Everything is over.
    Finished,
}

/// A chunk that was stored, by whichever sink: those that lie in the spool are taken over by others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stored {
    /// Of which camera it is.
    pub device: String,
    /// Its end, since the Unix epoch.
    pub until: Duration,
    /// Bytes.
    pub size: u64,
}

impl Stored {
    /// Reads an element message of a sink.
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

/// Sends news of one attempt.
#[derive(Clone, Debug)]
pub struct Teller {
    /// Its number.
    pub attempt: Attempt,
    /// To the runner.
    pub to: UnboundedSender<(Attempt, News)>,
}

impl Teller {
    /// Sends; a runner that has ended wants no news.
    pub fn tell(&self, news: News) {
        let _ = self.to.send((self.attempt, news));
    }
}

/// What the pictures are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Their codec.
    pub codec: Video,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
}

/// Figures of the pictures that came last.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pace {
    last_key: Option<u64>,
    /// Time between the last two key frames, ns.
    pub key_interval: Option<u64>,
    first: Option<u64>,
    count: u32,
    /// Frames a second by their time stamps, of the last two seconds or so.
    pub fps: Option<f64>,
}

impl Pace {
    /// A picture with this time stamp, ns. Jumps do not count.
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
            // B-frames are a little early.
            None if self.first.is_some_and(|first| first - time < WINDOW) => {}
            Some(passed) if passed < WINDOW => self.count += 1,
            Some(passed) if passed < 4 * WINDOW => {
                let passed = Duration::from_nanos(passed).as_secs_f64();
                self.fps = Some(f64::from(self.count + 1) / passed);
                (self.first, self.count) = (Some(time), 0);
            }
            _ => (self.first, self.count) = (Some(time), 0),
        }
    }
}

/// For how long pictures have come and no sound. A pause of the whole stream counts as one second at most: sound that pauses with the
/// pictures comes back with them.
#[derive(Debug, Default)]
struct Silence {
    /// ns of any clock, plus one; 0 = none.
    last_picture: AtomicU64,
    /// ns.
    lasts: AtomicU64,
}

impl Silence {
    /// Longer without pictures is a pause of the camera, ns.
    const PAUSE: u64 = 1_000_000_000;

    /// A picture at this time, ns.
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
    /// Since it was asked about.
    arrives: AtomicBool,
    bytes: AtomicU64,
    /// ns since `began`, plus one; 0 = none.
    last_frame: AtomicU64,
    sound: AtomicU64,
    /// As `last_frame`.
    first_sound: AtomicU64,
    last_sound: AtomicU64,
    silence: Silence,
    /// Nothing more is let through or reported.
    pub closed: AtomicBool,
    /// Sound is not recorded, whether it comes or not.
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

    /// A picture has passed. Whether it was the first.
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

    /// A part of a picture has come. It need not become a picture: without parameter sets the parser holds it back.
    pub fn on_slice(&self) {
        self.slices.fetch_add(1, Ordering::Relaxed);
    }

    /// Bytes of the stream have come outside RTSP, whatever is in them.
    pub(super) fn on_arrival(&self) {
        self.has_arrived.store(true, Ordering::Relaxed);
        self.arrives.store(true, Ordering::Relaxed);
    }

    /// Whether bytes of the stream have come outside RTSP.
    pub(super) fn has_arrived(&self) -> bool {
        self.has_arrived.load(Ordering::Relaxed)
    }

    /// Whether some have since this was asked last.
    pub(super) fn take_arrival(&self) -> bool {
        self.arrives.swap(false, Ordering::Relaxed)
    }

    /// Returns the parts of pictures so far.
    pub fn slices(&self) -> u64 {
        self.slices.load(Ordering::Relaxed)
    }

    /// Sound has passed. Whether it was the first.
    pub fn on_sound(&self, bytes: u64) -> bool {
        self.on_sound_at(self.mark(), bytes)
    }

    fn on_sound_at(&self, now: u64, bytes: u64) -> bool {
        let before = self.last_sound.swap(now, Ordering::Relaxed);
        self.silence.sound();
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let is_first = self.sound.fetch_add(1, Ordering::Relaxed) == 0;
        // After a break it has to last anew.
        if is_first || Duration::from_nanos(now.saturating_sub(before)) >= SOUND_LOST {
            self.first_sound.store(now, Ordering::Relaxed);
        }
        is_first
    }

    /// The pictures are of this kind from now on. What they were before, if that was another.
    pub fn on_kind(&self, picture: Picture) -> Option<Picture> {
        lock(&self.picture).replace(picture).filter(|before| *before != picture)
    }

    /// Returns what the pictures are.
    pub fn picture(&self) -> Option<Picture> {
        *lock(&self.picture)
    }

    /// Returns the figures of the pictures.
    pub fn pace(&self) -> Pace {
        *lock(&self.pace)
    }

    /// Returns the pictures so far.
    pub fn frames(&self) -> u64 {
        self.frames.load(Ordering::Relaxed)
    }

    /// Returns the bytes so far.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Returns the wall clock at the last picture.
    pub fn last_frame(&self) -> Option<SystemTime> {
        SystemTime::now().checked_sub(self.age(&self.last_frame)?)
    }

    /// Returns for how long pictures have come and no sound.
    pub fn silence(&self) -> Duration {
        self.silence.lasts()
    }

    /// Returns how long ago sound came that has had no break since, and the last.
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
        // One picture in 5 s: given up all the same, or the muxer would hold them for ever.
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
    fn sound_that_comes_back_after_a_break_has_to_last_anew() {
        const S: u64 = 1_000_000_000;
        let watch = Watch::default();
        let lasts = || watch.last_sound.load(Ordering::Relaxed) - watch.first_sound.load(Ordering::Relaxed);
        assert!(watch.on_sound_at(S, 1));
        for half in 2..=12 {
            assert!(!watch.on_sound_at(half * S / 2, 1));
        }
        assert_eq!(lasts(), 5 * S);
        // One lone packet, after the sound was left out.
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
