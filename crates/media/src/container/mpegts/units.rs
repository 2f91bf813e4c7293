//! Access units out of PES packets: which begin with a key frame, when they are shown, what their codecs are.
//!
//! PURE. Gathers no more of a PES packet than it takes to judge it, which is mostly nothing beyond its first transport packet.

use bytes::Bytes;

use super::super::fields::Fields;
use super::super::nal::{MAX_PREFIX, SetsInForce, VideoCodec};
use super::super::{Init, Key, Mark, MarkKind, Notice, Track, Unit};
use super::audio;
use super::examine::{Flags, Found, Judging, examine};
use super::packet::{Continuity, Counter, Packet};
use super::packing::Packing;
use super::pes::{Clock, Header, is_whole};
use super::picture::{Mpeg2Fields, Sequences, is_beginning};
use super::psi::Elementary;
use super::reorder::{Kinds, Reorder, Slot};
use super::sound::{OpenSound, Target};
use super::stream::{Audio, Kind, Video};
use super::tables::StartPoint;

/// Below this many bytes each packet is judged again; above, only after a growth by an eighth, or the time would go with the square.
const EAGER: usize = 4096;

/// A longer beginning of a PES packet is joined with the next ones only this often.
const MOST_JOINED: u8 = 4;

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
    pub(super) elementary: Elementary,
    /// As the PMT says, or, where that does not, as its frames do.
    pub(super) kind: Kind,
    pub(super) name: Option<String>,
    /// Whether `name` comes from the stream itself.
    pub(super) seen: bool,
    counter: Counter,
    pending: Option<Pending>,
    /// The first bytes of the pending PES packet.
    gathered: Vec<u8>,
    clock: Clock,
}

impl Stream {
    fn new(elementary: Elementary) -> Self {
        let name = elementary.name.clone();
        // Of these kinds the PMT does not say everything: the first frame has the name.
        let seen = !matches!(elementary.kind, Kind::Audio(Audio::Adts | Audio::Mpeg));
        Self {
            kind: elementary.kind,
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

/// The elementary streams of the program.
#[derive(Debug, Default)]
pub(super) struct Units {
    pub(super) streams: Vec<Stream>,
    /// Index of the video stream that decides on cuts.
    pub(super) video: Option<usize>,
    /// Whether a picture of it has begun.
    has_picture: bool,
    /// Whether a key frame has begun and not ended.
    key_open: bool,
    /// Configuration of the last key frame that had one.
    pub(super) config: Option<u64>,
    /// Whether no picture has come since the last PMT that opened a chunk.
    pub(super) fresh: bool,
    /// The clock of the stream whose times count.
    clock: Clock,
    /// Fields of the video stream that decides on cuts, of H.264 and of MPEG-2.
    fields: Fields,
    mpeg2_fields: Mpeg2Fields,
    sequences: Sequences,
    /// Whether a picture of the video stream that decides on cuts was flagged that shows nothing but flags.
    has_flag: bool,
    /// The PES packet of sound that is open, while nothing but tables came behind it.
    pub(super) sound: Option<OpenSound>,
    packing: Packing,
    /// Parameter sets in band of the key frames since the last configuration.
    pub(super) sets: SetsInForce,
    /// The sound that counts: the first that brought a PES packet with a time.
    pub(super) sound_pid: Option<u16>,
    /// PES packets of other sound since its last one.
    pub(super) other_sound: u32,
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
        self.video = self.streams.iter().position(|s| matches!(s.kind, Kind::Video(_)));
        // What was learned of the pictures of one PID says nothing of those of another.
        if self.video_pid() != old_video {
            self.has_picture = false;
            self.fields = Fields::default();
            self.mpeg2_fields = Mpeg2Fields::default();
            self.sequences = Sequences::default();
            self.has_flag = false;
            self.packing = Packing::default();
            self.sets = SetsInForce::default();
        }
        self.fresh = true;
        self.update_info(out);
    }

    /// Returns whether `elementary`, the streams of a new PMT, leaves the video that decides on cuts as it is.
    pub(super) fn keeps_video(&self, elementary: &[Elementary]) -> bool {
        let video = self.video.and_then(|index| self.streams.get(index));
        let first = elementary.iter().find(|es| matches!(es.kind, Kind::Video(_)));
        video.is_some_and(|stream| Some(&stream.elementary) == first)
    }

    /// Ends the PES packets of the streams that a new PMT does not have: nothing more comes of them.
    pub(super) fn close_missing(&mut self, elementary: &[Elementary], out: &mut Reorder, marks: &mut Vec<Mark>) {
        let is_missing = |(index, stream): (usize, &Stream)| (!elementary.contains(&stream.elementary)).then_some(index);
        let missing: Vec<usize> = self.streams.iter().enumerate().filter_map(is_missing).collect();
        for index in missing {
            self.close(index, out, marks);
        }
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

    /// Offset of the packet before the one that was judged last.
    pub(super) fn before(&self, index: usize) -> u64 {
        self.streams.get(index).map_or(0, |stream| stream.counter.before())
    }

    /// A packet of adaptation field alone. It may announce the jump of the continuity counter that the next payload shows
    /// (2.4.3.5): ffmpeg sends the PCR so.
    pub(super) fn pass_clock(&mut self, index: usize, packet: &Packet<'_>) {
        if packet.discontinuity
            && let Some(stream) = self.streams.get_mut(index)
        {
            stream.counter.reset();
        }
    }

    pub(super) fn reset_counters(&mut self) {
        self.streams.iter_mut().for_each(|stream| stream.counter.reset());
    }

    pub(super) fn restart(&mut self) {
        for stream in &mut self.streams {
            stream.pending = None;
        }
        self.sound = None;
        // What comes first may be the rest of a picture that began before the flush.
        self.has_picture = false;
        self.key_open = false;
        self.fields.restart();
        self.mpeg2_fields = Mpeg2Fields::default();
    }

    /// The mark that ends the last key frame, if it has not ended.
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
        // A PES packet of unknown length ends where the next one of its stream begins (2.4.3.7).
        self.close(index, out, marks);
        self.recognise(index, packet, payload, out);
        self.observe(index, payload, packet.start);
        let is_picture = self.video == Some(index) && packet.start;
        let sound = self.sound.take_if(|_| is_picture);
        // Something else begins: no key frame follows directly on that sound.
        self.flush_sound(out, marks);
        if self.joins(index) {
            self.has_picture = true;
            if !packet.start {
                let mut unit = out.unit(Track::Video, init(place.head, out));
                unit.key = self.key_of(index, false, Key::No);
                out.put(place.at, [Some(MarkKind::Unit(unit)), None, None], marks);
                return;
            }
        }
        let counts = self.counts_frames(index);
        let lacks_headers = self.lacks_headers(index);
        let Some(stream) = self.streams.get_mut(index) else { return };
        let flags = Flags {
            random_access: packet.random_access,
            scrambled: packet.scrambled,
        };
        let stream_kind = stream.kind;
        let found = if counts && !flags.scrambled && !is_whole(payload) {
            None
        } else {
            examine(
                stream.kind,
                payload,
                flags,
                &Judging::of(&self.fields, &self.packing, lacks_headers, false),
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
        let (Kind::Video(video), Some(pending)) = (stream.kind, stream.pending.as_mut()) else {
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
        let kind = self.streams.get(index).map(|stream| stream.kind);
        let Some(Kind::Video(video)) = kind.filter(|_| self.video == Some(index)) else {
            return;
        };
        if !begins {
            self.packing.observe(video, payload);
            return;
        }
        self.packing.begin();
        if let Header::Whole { data, .. } = Header::parse(payload) {
            self.packing.observe(video, data);
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
        // Of a packet of unknown length no more than `MAX_PREFIX` is gathered.
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
                    stream.kind,
                    Kind::Audio(Audio::Adts | Audio::Mpeg | Audio::Named("ac-3" | "ec-3" | "opus" | "mp4a.40.2"))
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
            // Nothing else will decide it: it must not hold back those behind it.
            None => out.decide(slot, [None, None, None], marks),
        }
    }

    /// Returns whether a picture is key that was judged so. Where only flags say what is key, and none has come yet, nothing is known:
    /// `random_access_indicator` is optional (2.4.3.5).
    fn key_of(&mut self, index: usize, is_scrambled: bool, key: Key) -> Key {
        let kind = self.streams.get(index).map(|stream| stream.kind);
        if !is_scrambled && kind != Some(Kind::Video(Video::Nal(VideoCodec::Unknown))) {
            return key;
        }
        self.has_flag |= key.is_key();
        if self.has_flag { key } else { Key::Unjudged }
    }

    /// Whether a group of pictures of that stream is a place to cut without the headers that a decoder needs.
    fn lacks_headers(&self, index: usize) -> bool {
        let kind = self.streams.get(index).map(|stream| stream.kind);
        matches!(kind, Some(Kind::Video(video)) if self.video == Some(index) && self.sequences.are_missing(video))
    }

    fn classify(&mut self, index: usize, complete: bool, out: &mut Reorder, marks: &mut Vec<Mark>) {
        let lacks_headers = self.lacks_headers(index);
        let Some(stream) = self.streams.get_mut(index) else { return };
        let Some(pending) = stream.pending.take() else { return };
        let gathered = std::mem::take(&mut stream.gathered);
        match examine(
            stream.kind,
            &gathered,
            pending.flags,
            &Judging::of(&self.fields, &self.packing, lacks_headers, complete),
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
        let kind = stream.kind;
        let is_second_field = match (kind, &picture) {
            _ if self.video != Some(index) => false,
            (Kind::Video(Video::Nal(codec)), Some(picture)) => self.fields.take(codec, data, picture),
            (Kind::Video(Video::Mpeg2), Some(_)) => self.mpeg2_fields.take(data),
            _ => false,
        };
        if is_second_field {
            return [None, None, None];
        }
        let is_sound = self.is_sound(kind);
        let is_the_sound = is_sound && self.choose_sound(index, pts.is_some());
        let pts = pts.map(|pts| self.time(index, pts, is_the_sound));
        let mut unit = Unit {
            track: Track::Other,
            key: Key::No,
            pts,
            end: None,
            decode: None,
            sample_at: None,
            new_codec_config: false,
            init: None,
        };
        let (mut end, mut notice) = (None, None);
        match (kind, picture) {
            (Kind::Video(video), Some(picture)) if self.video == Some(index) => {
                // The key frame before ends where this picture begins.
                end = self.picture_end();
                unit.track = Track::Video;
                unit.key = self.key_of(index, data.is_empty(), picture.key);
                self.sequences.note(&picture, pts);
                if picture.key.is_key() {
                    self.key_open = true;
                    let before = self.config;
                    unit.new_codec_config = self.take_config(index, video, &picture, data, out);
                    // Without data it is scrambled, and shows nothing of its sets.
                    let lacks = !data.is_empty() && self.lacks_a_set(video, data, before);
                    notice = match (picture.has_parameter_sets && !lacks, is_behind_rest) {
                        (false, _) => Some(MarkKind::Notice(match video {
                            Video::Nal(_) => Notice::NoParameterSets,
                            Video::Mpeg2 => Notice::NoSequenceHeader,
                            Video::Mpeg4 => Notice::NoObjectLayer,
                        })),
                        (true, true) => Some(MarkKind::Notice(Notice::Unaligned)),
                        (true, false) => None,
                    };
                }
                self.fresh = false;
            }
            _ if is_sound => {
                unit.track = if is_the_sound { Track::Audio } else { Track::Other };
                if self.video.is_none() && is_the_sound {
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
        // Behind the names, so that the header has them.
        unit.init = Some(init(head, out));
        [end, Some(MarkKind::Unit(unit)), notice]
    }

    /// Returns the time of a time stamp of that stream in ns. A stream begins beside the one whose times count.
    fn time(&mut self, index: usize, pts: u64, is_the_sound: bool) -> u64 {
        let Some(stream) = self.streams.get_mut(index) else { return 0 };
        if stream.clock.is_new() {
            stream.clock = Clock::beside(self.clock);
        }
        let time = stream.clock.nanoseconds(pts);
        // Private streams may count from anywhere: no other stream may begin beside those.
        if self.video == Some(index) || (self.video.is_none() && is_the_sound) {
            self.clock = stream.clock;
        }
        time
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
