//! Access units out of PES packets: which begin with a key picture, when they are shown, what their codecs are.
//!
//! PURE. Gathers no more of a PES packet than it takes to judge it, which is mostly nothing beyond its first transport packet.

use std::sync::Arc;

use bytes::Bytes;

use super::super::fields::Fields;
use super::super::nal::{MAX_PREFIX, Picture, VideoCodec};
use super::super::{Init, Key, Mark, MarkKind, Notice, StreamInfo, Track, Unit, codec};
use super::audio;
use super::packet::{Continuity, Counter, Packet};
use super::packing::Packing;
use super::pes::{Clock, Header, is_whole};
use super::picture::{Verdict, classify_video, is_beginning, later_key, mpeg2_name};
use super::psi::Elementary;
use super::reorder::{Kinds, Reorder, Slot};
use super::sound::{OpenSound, Target};
use super::stream::{Audio, Kind, Video};
use super::tables::StartPoint;

/// Below this many bytes each packet is judged anew; above, only after a growth by an eighth, or the time would go with the square.
const EAGER: usize = 4096;

/// A longer beginning of a PES packet is joined with the next ones only this often.
const MOST_JOINED: u8 = 4;

/// Flags of the first transport packet of a PES packet.
#[derive(Clone, Copy, Debug)]
struct Flags {
    random_access: bool,
    scrambled: bool,
}

/// A PES packet that is not judged yet.
#[derive(Debug)]
struct Pending {
    slot: Slot,
    head: Bytes,
    flags: Flags,
    /// Number of bytes at which it is classified next.
    next_try: usize,
    /// The sound that is open where the picture begins.
    sound: Option<OpenSound>,
    /// How often the next PES packet was taken for more of the same.
    joined: u8,
}

/// One elementary stream.
#[derive(Debug)]
pub(super) struct Stream {
    elementary: Elementary,
    name: Option<String>,
    /// Whether `name` comes from the stream itself.
    seen: bool,
    counter: Counter,
    pending: Option<Pending>,
    /// The first bytes of the pending PES packet.
    gathered: Vec<u8>,
    clock: Clock,
}

impl Stream {
    fn new(elementary: Elementary) -> Self {
        let name = elementary.kind.name();
        let seen = !matches!(elementary.kind, Kind::Audio(Audio::Adts | Audio::Mpeg));
        Self {
            elementary,
            name,
            seen,
            counter: Counter::default(),
            pending: None,
            gathered: Vec::new(),
            clock: Clock::default(),
        }
    }

    pub(super) fn pid(&self) -> u16 {
        self.elementary.pid
    }
}

/// What a PES packet turned out to be.
enum Found<'a> {
    /// Nothing that a unit begins with.
    Nothing,
    /// No PES packet.
    Broken,
    /// A unit.
    Unit {
        pts: Option<u64>,
        data: &'a [u8],
        picture: Option<Picture>,
        /// The rest of another picture stands in front of it.
        is_behind_rest: bool,
    },
}

/// The elementary streams of the program.
#[derive(Debug, Default)]
pub(super) struct Units {
    streams: Vec<Stream>,
    /// Index of the video stream that decides on cuts.
    video: Option<usize>,
    /// Whether a picture of it has begun.
    has_picture: bool,
    /// Whether a key picture has begun and not ended.
    key_open: bool,
    /// Configuration of the last key picture that had one.
    config: Option<u64>,
    /// Whether no picture has come since the last PMT that opened a chunk.
    fresh: bool,
    /// The clock of the stream whose times count.
    clock: Clock,
    /// Fields of the video stream that decides on cuts.
    fields: Fields,
    /// The PES packet of sound that is open, while nothing but tables came behind it.
    pub(super) sound: Option<OpenSound>,
    packing: Packing,
}

impl Units {
    pub(super) fn streams(&self) -> &[Stream] {
        &self.streams
    }

    pub(super) fn video_pid(&self) -> Option<u16> {
        self.streams.get(self.video?).map(Stream::pid)
    }

    /// Takes the streams of a new PMT; those that stay keep what is known of them.
    pub(super) fn configure(&mut self, elementary: Vec<Elementary>, out: &mut Reorder) {
        let old_video = self.video_pid();
        let mut old = std::mem::take(&mut self.streams);
        for es in elementary {
            let stream = match old.iter().position(|s| s.elementary == es) {
                Some(index) => old.swap_remove(index),
                None => Stream::new(es),
            };
            self.streams.push(stream);
        }
        self.video = self.streams.iter().position(|s| matches!(s.elementary.kind, Kind::Video(_)));
        if self.video_pid() != old_video {
            self.has_picture = false;
            self.fields = Fields::default();
            self.packing = Packing::default();
        }
        self.fresh = true;
        self.update_info(out);
    }

    /// Returns whether `elementary` holds all streams of the PMT in force and more, with video among those in force.
    pub(super) fn are_kept_in(&self, elementary: &[Elementary]) -> bool {
        self.video.is_some()
            && elementary.len() > self.streams.len()
            && self.streams.iter().all(|stream| elementary.contains(&stream.elementary))
    }

    /// The PMT comes after the beginning of a picture.
    pub(super) fn join(&mut self) {
        self.has_picture = true;
    }

    /// Whether a packet of that stream that begins no PES packet is the rest of a picture from before.
    pub(super) fn joins(&self, index: usize) -> bool {
        self.video == Some(index) && !self.has_picture
    }

    pub(super) fn continuity(&mut self, index: usize, packet: &Packet<'_>, payload: &[u8]) -> Continuity {
        self.streams
            .get_mut(index)
            .map_or(Continuity::Next, |stream| stream.counter.check(packet, payload))
    }

    pub(super) fn reset_counters(&mut self) {
        self.streams.iter_mut().for_each(|stream| stream.counter.reset());
    }

    pub(super) fn restart(&mut self) {
        for stream in &mut self.streams {
            stream.pending = None;
        }
        self.sound = None;
        self.has_picture = false;
        self.key_open = false;
        self.fields.restart();
    }

    /// The mark that ends the last key picture, if it has not ended.
    pub(super) fn picture_end(&mut self) -> Option<MarkKind> {
        std::mem::take(&mut self.key_open).then_some(MarkKind::PictureEnd)
    }

    /// A PES packet begins, or the rest of a picture whose beginning is not there.
    pub(super) fn begin(
        &mut self,
        index: usize,
        packet: &Packet<'_>,
        payload: &[u8],
        place: StartPoint,
        out: &mut Reorder,
        marks: &mut Vec<Mark>,
    ) {
        if self.belongs_to_prefix(index, packet, payload) {
            self.classify(index, false, out, marks);
            return;
        }
        self.close(index, out, marks);
        self.observe(index, payload, packet.start);
        let is_picture = self.video == Some(index) && packet.start;
        let sound = self.sound.take_if(|_| is_picture);
        self.flush_sound(out, marks);
        if self.joins(index) {
            self.has_picture = true;
            if !packet.start {
                let unit = out.unit(Track::Video, init(place.head, out));
                out.put(place.at, [Some(MarkKind::Unit(unit)), None, None], marks);
                return;
            }
        }
        let counts = self.counts_frames(index);
        let Some(stream) = self.streams.get_mut(index) else { return };
        let flags = Flags {
            random_access: packet.random_access,
            scrambled: packet.scrambled,
        };
        let stream_kind = stream.elementary.kind;
        let found = if counts && !flags.scrambled && !is_whole(payload) {
            None
        } else {
            examine(
                stream.elementary.kind,
                payload,
                flags,
                &Judging::of(&self.fields, &self.packing, false),
            )
        };
        match found {
            Some(found) => {
                let is_sound = self.video.is_some() && self.is_sound(stream_kind);
                let kinds = self.kinds(index, found, place.head.clone(), out);
                match sound {
                    Some(sound) => sound.put_picture(Target::At(place.at), kinds, out, marks),
                    None if is_sound => self.put_sound(index, payload, (place, kinds), out, marks),
                    None => out.put(place.at, kinds, marks),
                }
            }
            None => {
                stream.gathered.clear();
                stream.gathered.extend_from_slice(payload);
                stream.pending = Some(Pending {
                    slot: out.reserve(place.at),
                    head: place.head,
                    flags,
                    next_try: 0,
                    sound,
                    joined: 0,
                });
            }
        }
    }

    /// Parameter sets in a PES packet of their own, or a start code that is cut off, are the beginning of the picture in the next
    /// one: its bytes are taken as more of the same, so that no chunk begins between them.
    fn belongs_to_prefix(&mut self, index: usize, packet: &Packet<'_>, payload: &[u8]) -> bool {
        let Some(stream) = self.streams.get_mut(index).filter(|_| packet.start && !packet.scrambled) else {
            return false;
        };
        let (Kind::Video(video), Some(pending)) = (stream.elementary.kind, stream.pending.as_mut()) else {
            return false;
        };
        let Header::Whole {
            scrambled: false,
            data: before,
            pts,
        } = Header::parse(&stream.gathered)
        else {
            return false;
        };
        let is_long = stream.gathered.len() > EAGER && pending.joined >= MOST_JOINED;
        if pending.flags.scrambled || is_long || !is_beginning(video, before, pts.is_some()) {
            return false;
        }
        let Header::Whole {
            scrambled: false, data, ..
        } = Header::parse(payload)
        else {
            return false;
        };
        stream.gathered.extend_from_slice(data);
        pending.flags.random_access |= packet.random_access;
        pending.next_try = 0;
        pending.joined = pending.joined.saturating_add(1);
        true
    }

    /// Looks whether several pictures share the PES packets of video.
    fn observe(&mut self, index: usize, payload: &[u8], begins: bool) {
        let kind = self.streams.get(index).map(|stream| stream.elementary.kind);
        let Some(Kind::Video(Video::Nal(codec))) = kind.filter(|_| self.video == Some(index)) else {
            return;
        };
        if !begins {
            self.packing.observe(codec, payload);
            return;
        }
        self.packing.begin();
        if let Header::Whole { data, .. } = Header::parse(payload) {
            self.packing.observe(codec, data);
        }
    }

    /// A PES packet goes on.
    pub(super) fn extend(&mut self, index: usize, payload: &[u8], out: &mut Reorder, marks: &mut Vec<Mark>) {
        self.observe(index, payload, false);
        let counts = self.counts_frames(index);
        let Some(stream) = self.streams.get_mut(index) else { return };
        let Some(pending) = stream.pending.as_mut() else { return };
        stream.gathered.extend_from_slice(payload);
        let len = stream.gathered.len();
        if counts && !is_whole(&stream.gathered) && len < MAX_PREFIX {
            return;
        }
        if !counts && len < pending.next_try {
            return;
        }
        if len > EAGER {
            pending.next_try = len + len / 8;
        }
        self.classify(index, false, out, marks);
    }

    /// Returns whether the frames in the PES packets of that stream are counted, to know their duration. Without a
    /// picture the length of a chunk is that of its sound. They are gathered whole.
    fn counts_frames(&self, index: usize) -> bool {
        self.video.is_none()
            && self.streams.get(index).is_some_and(|stream| {
                matches!(
                    stream.elementary.kind,
                    Kind::Audio(Audio::Adts | Audio::Mpeg | Audio::Named("ac-3" | "ec-3"))
                )
            })
    }

    /// The PES packet of that stream has ended, so far as it is there.
    pub(super) fn close(&mut self, index: usize, out: &mut Reorder, marks: &mut Vec<Mark>) {
        self.classify(index, true, out, marks);
    }

    /// All PES packets have ended.
    pub(super) fn close_all(&mut self, out: &mut Reorder, marks: &mut Vec<Mark>) {
        self.flush_sound(out, marks);
        // In the order in which they began: time stamps are unwrapped in that order.
        let mut open: Vec<(Slot, usize)> = Vec::new();
        open.extend(
            self.streams
                .iter()
                .enumerate()
                .filter_map(|(i, s)| Some((s.pending.as_ref()?.slot, i))),
        );
        open.sort_unstable();
        for (_, index) in open {
            self.close(index, out, marks);
        }
    }

    /// Decides what holds that ticket with the bytes that are there.
    pub(super) fn force(&mut self, slot: Slot, out: &mut Reorder, marks: &mut Vec<Mark>) {
        if self.sound.as_ref().is_some_and(|sound| sound.slot() == slot) {
            return self.flush_sound(out, marks);
        }
        let holds = |p: &Pending| p.slot == slot || p.sound.as_ref().is_some_and(|sound| sound.slot() == slot);
        let holder = self.streams.iter().position(|s| s.pending.as_ref().is_some_and(holds));
        match holder {
            Some(index) => self.close(index, out, marks),
            None => out.decide(slot, [None, None, None], marks),
        }
    }

    fn classify(&mut self, index: usize, complete: bool, out: &mut Reorder, marks: &mut Vec<Mark>) {
        let Some(stream) = self.streams.get_mut(index) else { return };
        let Some(pending) = stream.pending.take() else { return };
        let gathered = std::mem::take(&mut stream.gathered);
        match examine(
            stream.elementary.kind,
            &gathered,
            pending.flags,
            &Judging::of(&self.fields, &self.packing, complete),
        ) {
            Some(found) => {
                let kinds = self.kinds(index, found, pending.head, out);
                decide(pending.sound, pending.slot, kinds, out, marks);
            }
            None if complete => decide(pending.sound, pending.slot, [None, None, None], out, marks),
            None => {
                stream.pending = Some(pending);
                stream.gathered = gathered;
                return;
            }
        }
        // Handed back for its allocation, unless it is one that 250 streams must not have.
        if let Some(stream) = self.streams.get_mut(index).filter(|_| gathered.capacity() <= 2 * EAGER) {
            stream.gathered = gathered;
        }
    }

    /// The marks of what was found.
    fn kinds(&mut self, index: usize, found: Found<'_>, head: Bytes, out: &mut Reorder) -> Kinds {
        let (pts, data, picture, is_behind_rest) = match found {
            Found::Nothing => return [None, None, None],
            Found::Broken => return [Some(MarkKind::Damage), None, None],
            Found::Unit {
                pts,
                data,
                picture,
                is_behind_rest,
            } => (pts, data, picture, is_behind_rest),
        };
        let Some(stream) = self.streams.get(index) else {
            return [None, None, None];
        };
        let kind = stream.elementary.kind;
        if let (Kind::Video(Video::Nal(codec)), Some(picture)) = (kind, &picture)
            && self.video == Some(index)
            && self.fields.take(codec, data, picture)
        {
            return [None, None, None];
        }
        let pts = pts.map(|pts| self.time(index, pts));
        let mut unit = Unit {
            track: Track::Other,
            key: Key::No,
            pts,
            end: None,
            new_codec_config: false,
            init: None,
        };
        let (mut end, mut notice) = (None, None);
        match (kind, picture) {
            (Kind::Video(video), Some(picture)) if self.video == Some(index) => {
                end = self.picture_end();
                unit.track = Track::Video;
                unit.key = picture.key;
                if picture.key.is_key() {
                    self.key_open = true;
                    unit.new_codec_config = self.take_config(index, video, &picture, data, out);
                    notice = match (picture.has_parameter_sets, is_behind_rest) {
                        (false, _) => Some(MarkKind::Notice(Notice::NoParameterSets)),
                        (true, true) => Some(MarkKind::Notice(Notice::Unaligned)),
                        (true, false) => None,
                    };
                }
                self.fresh = false;
            }
            _ if self.is_sound(kind) => {
                unit.track = Track::Audio;
                if self.video.is_none() {
                    unit.key = Key::Closed;
                    unit.end = pts
                        .zip(audio::duration(data))
                        .and_then(|(pts, length)| pts.checked_add(length));
                }
                self.name_audio(index, data, out);
            }
            (Kind::Video(video), Some(picture)) if picture.key.is_key() => self.name_video(index, video, &picture, data, out),
            _ => {}
        }
        unit.init = Some(init(head, out));
        [end, Some(MarkKind::Unit(unit)), notice]
    }

    /// Returns the time of a time stamp of that stream in ns. A stream begins beside the one whose times count.
    fn time(&mut self, index: usize, pts: u64) -> u64 {
        let Some(stream) = self.streams.get_mut(index) else { return 0 };
        if stream.clock.is_new() {
            stream.clock = Clock::beside(self.clock);
        }
        let time = stream.clock.nanoseconds(pts);
        let (clock, kind) = (stream.clock, stream.elementary.kind);
        if self.video == Some(index) || (self.video.is_none() && self.is_sound(kind)) {
            self.clock = clock;
        }
        time
    }

    /// Whether that is sound: without a known stream of video or sound, what is private (DTS as type 0x82, LATM without a
    /// descriptor, SMPTE 302M) is all that has times to cut by.
    fn is_sound(&self, kind: Kind) -> bool {
        match kind {
            Kind::Audio(_) => true,
            Kind::Other => self
                .streams
                .iter()
                .all(|stream| matches!(stream.elementary.kind, Kind::Other | Kind::Sections)),
            _ => false,
        }
    }

    /// Notes the configuration of a key picture; true where a chunk has to begin for it.
    fn take_config(&mut self, index: usize, video: Video, picture: &Picture, data: &[u8], out: &mut Reorder) -> bool {
        let Some(config) = picture.config else { return false };
        let before = self.config.replace(config);
        if before != Some(config) || self.fresh {
            self.name_video(index, video, picture, data, out);
        }
        // Directly after a new PMT the chunk has just begun.
        before.is_some_and(|before| before != config) && !self.fresh
    }

    fn name_video(&mut self, index: usize, video: Video, picture: &Picture, data: &[u8], out: &mut Reorder) {
        let Some((at, len)) = picture.sps else { return };
        let sps = at.checked_add(len).and_then(|end| data.get(at..end)).unwrap_or_default();
        let name = match video {
            Video::Nal(VideoCodec::H264) => codec::avc_from_sps(sps),
            Video::Nal(VideoCodec::H265) => codec::hevc_from_sps(sps),
            Video::Nal(_) => None,
            Video::Mpeg2 => Some(mpeg2_name(data)),
        };
        if let Some(stream) = self
            .streams
            .get_mut(index)
            .filter(|stream| name.is_some() && stream.name != name)
        {
            stream.name = name;
            self.update_info(out);
        }
    }

    fn name_audio(&mut self, index: usize, data: &[u8], out: &mut Reorder) {
        let Some(stream) = self.streams.get_mut(index).filter(|stream| !stream.seen) else {
            return;
        };
        if let Some(name) = stream.elementary.kind.name_from_frame(data) {
            stream.seen = true;
            stream.name = Some(name);
            self.update_info(out);
        }
    }

    /// Says anew what the streams are.
    fn update_info(&self, out: &mut Reorder) {
        let is_video = |s: &&Stream| matches!(s.elementary.kind, Kind::Video(_));
        let is_audio = |s: &&Stream| matches!(s.elementary.kind, Kind::Audio(_));
        let videos = self.streams.iter().filter(is_video);
        let audios = self.streams.iter().filter(is_audio);
        let info = StreamInfo {
            codecs: codec::join(videos.chain(audios).map(|s| s.name.as_deref())),
            has_video: self.video.is_some(),
            has_audio: self.streams.iter().any(|s| self.is_sound(s.elementary.kind)),
        };
        if *out.info != info {
            out.info = Arc::new(info);
        }
    }
}

/// Decides the marks of a picture, behind sound that is open where it begins.
fn decide(sound: Option<OpenSound>, slot: Slot, kinds: Kinds, out: &mut Reorder, marks: &mut Vec<Mark>) {
    match sound {
        Some(sound) => sound.put_picture(Target::Slot(slot), kinds, out, marks),
        None => out.decide(slot, kinds, marks),
    }
}

fn init(head: Bytes, out: &Reorder) -> Init {
    Init {
        head,
        tail: Bytes::new(),
        info: out.info.clone(),
    }
}

/// What a PES packet of video is judged by, beside its bytes.
struct Judging<'a> {
    fields: &'a Fields,
    is_shared: bool,
    is_complete: bool,
}

impl<'a> Judging<'a> {
    fn of(fields: &'a Fields, packing: &Packing, is_complete: bool) -> Self {
        Self {
            fields,
            // Two fields look like two pictures.
            is_shared: packing.is_shared() && !fields.is_interlaced(),
            is_complete,
        }
    }

    /// The key picture behind the first one, where that is none; `None` if the whole packet is needed to tell.
    fn later(&self, verdict: &Verdict, video: Video, data: &[u8], has_pts: bool) -> Option<Option<Picture>> {
        let Video::Nal(codec @ (VideoCodec::H264 | VideoCodec::H265)) = video else {
            return Some(None);
        };
        let may_follow = has_pts
            && match verdict {
                Verdict::Begins(picture) | Verdict::BeginsBehindRest(picture) => !picture.key.is_key() && self.is_shared,
                Verdict::Continues => false,
            };
        match (may_follow, self.is_complete) {
            (false, _) => Some(None),
            (true, false) => None,
            (true, true) => Some(later_key(codec, data)),
        }
    }
}

/// Looks into the first bytes of a PES packet; `None` where more are needed, never once it is `complete`.
fn examine<'a>(kind: Kind, pes: &'a [u8], flags: Flags, judging: &Judging<'_>) -> Option<Found<'a>> {
    let complete = judging.is_complete;
    let by_flag = |key| Picture {
        has_parameter_sets: true,
        ..Picture::plain(key)
    };
    if flags.scrambled {
        let key = if flags.random_access { Key::Closed } else { Key::No };
        return Some(Found::Unit {
            pts: None,
            data: &[],
            picture: Some(by_flag(key)),
            is_behind_rest: false,
        });
    }
    let (pts, scrambled, data) = match Header::parse(pes) {
        Header::More if !complete => return None,
        Header::More => (None, false, &[][..]),
        // What is no PES packet on a PID of unknown use can be a table.
        Header::Broken if kind == Kind::Other => return Some(Found::Nothing),
        Header::Broken => return Some(Found::Broken),
        Header::Whole { pts, scrambled, data } => (pts, scrambled, data),
    };
    let unit = |picture, is_behind_rest| Found::Unit {
        pts,
        data,
        picture,
        is_behind_rest,
    };
    let Kind::Video(video) = kind else {
        return Some(unit(None, false));
    };
    let (video, complete) = if scrambled {
        (Video::Nal(VideoCodec::Unknown), true)
    } else {
        (video, complete)
    };
    let verdict = classify_video(video, data, pts.is_some(), complete, flags.random_access)?;
    if let (Verdict::Begins(picture) | Verdict::BeginsBehindRest(picture), Video::Nal(codec)) = (&verdict, video)
        && !complete
        && judging.fields.needs_more(codec, data, picture)
    {
        return None;
    }
    let verdict = match judging.later(&verdict, video, data, pts.is_some())? {
        Some(key) => Verdict::BeginsBehindRest(key),
        None => verdict,
    };
    Some(match verdict {
        Verdict::Continues => Found::Nothing,
        // The container's word is no word on parameter sets.
        Verdict::Begins(picture) if video == Video::Nal(VideoCodec::Unknown) => unit(Some(by_flag(picture.key)), false),
        Verdict::Begins(picture) => unit(Some(picture), false),
        Verdict::BeginsBehindRest(picture) => unit(Some(picture), true),
    })
}
