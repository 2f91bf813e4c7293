//! Classifies the access units in PES packets: key frames, presentation times, codec names.
//!
//! PURE. Gathers only as much of a PES packet as is needed to classify it; mostly its first transport packet is enough.

use bytes::Bytes;

use super::super::fields::Fields;
use super::super::nal::{MAX_PREFIX, SetsInForce, VideoCodec};
use super::super::{Init, Key, Mark, MarkKind, Notice, Track, Unit};
use super::audio;
use super::audio_stream::{OpenAudio, Target};
use super::examine::{Flags, Found, Judging, examine};
use super::packet::{Continuity, Counter, Packet};
use super::packing::Packing;
use super::pes::{Clock, Header, is_whole};
use super::picture::{Mpeg2Fields, Sequences, is_beginning};
use super::psi::Elementary;
use super::reorder::{Kinds, Reorder, Slot};
use super::stream::{Audio, Kind, Video};
use super::tables::StartPoint;

/// Up to this many bytes a PES packet is classified again with each transport packet. Above, only after it has grown by an
/// eighth: otherwise the time would be quadratic.
const EAGER: usize = 4096;

/// How often a beginning longer than [`EAGER`] may be joined with the next PES packet.
const MOST_JOINED: u8 = 4;

/// A PES packet that is not classified yet.
#[derive(Debug)]
struct Pending {
    slot: Slot,
    head: Bytes,
    flags: Flags,
    /// Number of bytes at which it is classified next.
    next_try: usize,
    /// The audio PES packet that is open where the picture begins.
    sound: Option<OpenAudio>,
    /// How many later PES packets have been joined with it.
    joined: u8,
}

/// One elementary stream.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) elementary: Elementary,
    /// The kind according to the PMT, or, if that does not show it, according to the frames.
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
        // For these kinds the PMT does not determine the name: the first frame does.
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
    /// Whether a picture of this stream has begun.
    has_picture: bool,
    /// Whether a key frame has begun and not ended.
    key_open: bool,
    /// Configuration of the last key frame that had one.
    pub(super) config: Option<u64>,
    /// Whether no picture has come since the last PMT that opened a chunk.
    pub(super) fresh: bool,
    /// The clock of the stream that decides on times.
    clock: Clock,
    /// Pair the fields of the video stream that decides on cuts: of H.264 and of MPEG-2.
    fields: Fields,
    mpeg2_fields: Mpeg2Fields,
    sequences: Sequences,
    /// Whether random_access_indicator was set for a picture that only this flag can classify (scrambled, unknown codec).
    has_flag: bool,
    /// The open PES packet of audio, while only tables have followed it.
    pub(super) sound: Option<OpenAudio>,
    packing: Packing,
    /// In-band parameter sets of the key frames since the last change of configuration.
    pub(super) sets: SetsInForce,
    /// PID of the audio stream that decides on times: the first that had a PES packet with a time.
    pub(super) sound_pid: Option<u16>,
    /// Number of PES packets of other audio streams since the last one of `sound_pid`.
    pub(super) other_sound: u32,
}

impl Units {
    pub(super) fn streams(&self) -> &[Stream] {
        &self.streams
    }

    pub(super) fn video_pid(&self) -> Option<u16> {
        self.streams.get(self.video?).map(Stream::pid)
    }

    /// Takes the streams of a new PMT. Streams that were in the previous PMT keep their state.
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
        // The state of the pictures of one PID is not valid for those of another.
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

    /// Ends the PES packets of the streams that are missing in a new PMT: no more of their packets will come.
    pub(super) fn close_missing(&mut self, elementary: &[Elementary], out: &mut Reorder, marks: &mut Vec<Mark>) {
        let is_missing = |(index, stream): (usize, &Stream)| (!elementary.contains(&stream.elementary)).then_some(index);
        let missing: Vec<usize> = self.streams.iter().enumerate().filter_map(is_missing).collect();
        for index in missing {
            self.close(index, out, marks);
        }
    }

    /// Notes that a picture began before the PMT came.
    pub(super) fn join(&mut self) {
        self.has_picture = true;
    }

    /// Returns whether a packet of this stream that begins no PES packet is the rest of a picture whose beginning was not
    /// received.
    pub(super) fn joins(&self, index: usize) -> bool {
        self.video == Some(index) && !self.has_picture
    }

    pub(super) fn continuity(&mut self, index: usize, packet: &Packet<'_>, payload: &[u8]) -> Continuity {
        self.streams
            .get_mut(index)
            .map_or(Continuity::Next, |stream| stream.counter.check(packet, payload))
    }

    /// Returns the offset of the packet of this stream before the one that was checked last.
    pub(super) fn before(&self, index: usize) -> u64 {
        self.streams.get(index).map_or(0, |stream| stream.counter.before())
    }

    /// Takes a packet with an adaptation field and no payload. It may announce that the continuity counter of the next payload
    /// jumps (2.4.3.5): ffmpeg sends the PCR in such packets.
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
        // The next packets may be the rest of a picture that began before the flush.
        self.has_picture = false;
        self.key_open = false;
        self.fields.restart();
        self.mpeg2_fields = Mpeg2Fields::default();
    }

    /// Returns the mark that ends the last key frame, if it has not ended.
    pub(super) fn picture_end(&mut self) -> Option<MarkKind> {
        std::mem::take(&mut self.key_open).then_some(MarkKind::PictureEnd)
    }

    /// Starts a PES packet, or the rest of a picture whose beginning was not received.
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
        // If something else begins, no key frame follows directly behind the open audio packet.
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
            // The duration needs all frames of the packet.
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

    /// Joins a PES packet with the pending one before it, if that contains only parameter sets and the like or ends in a split
    /// start code: it is the beginning of this picture, and no chunk may begin between the two. Returns whether they were joined.
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

    /// Observes whether several pictures share a PES packet of the video stream.
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

    /// Takes more payload of a PES packet.
    pub(super) fn extend(&mut self, index: usize, payload: &[u8], out: &mut Reorder, marks: &mut Vec<Mark>) {
        self.observe(index, payload, false);
        let counts = self.counts_frames(index);
        let Some(stream) = self.streams.get_mut(index) else { return };
        let Some(pending) = stream.pending.as_mut() else { return };
        stream.gathered.extend_from_slice(payload);
        let len = stream.gathered.len();
        // No more than `MAX_PREFIX` is gathered of a PES packet of unknown length.
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

    /// Returns whether the audio frames in the PES packets of this stream are counted to compute their duration. Only without
    /// video: then the duration of a chunk is that of its audio. Such PES packets are gathered completely.
    fn counts_frames(&self, index: usize) -> bool {
        self.video.is_none()
            && self.streams.get(index).is_some_and(|stream| {
                matches!(
                    stream.kind,
                    Kind::Audio(Audio::Adts | Audio::Mpeg | Audio::Named("ac-3" | "ec-3" | "opus" | "mp4a.40.2"))
                )
            })
    }

    /// Ends the PES packet of this stream: classifies it by the bytes received.
    pub(super) fn close(&mut self, index: usize, out: &mut Reorder, marks: &mut Vec<Mark>) {
        self.classify(index, true, out, marks);
    }

    /// Ends all PES packets.
    pub(super) fn close_all(&mut self, out: &mut Reorder, marks: &mut Vec<Mark>) {
        self.flush_sound(out, marks);
        // In the order in which they began, because timestamps have to be unwrapped in that order.
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

    /// Decides the owner of a slot with the bytes received so far.
    pub(super) fn force(&mut self, slot: Slot, out: &mut Reorder, marks: &mut Vec<Mark>) {
        if self.sound.as_ref().is_some_and(|sound| sound.slot() == slot) {
            return self.flush_sound(out, marks);
        }
        let holds = |p: &Pending| p.slot == slot || p.sound.as_ref().is_some_and(|sound| sound.slot() == slot);
        let holder = self.streams.iter().position(|s| s.pending.as_ref().is_some_and(holds));
        match holder {
            Some(index) => self.close(index, out, marks),
            // No stream owns the slot, so nothing else would decide it, and it must not block the slots behind it.
            None => out.decide(slot, [None, None, None], marks),
        }
    }

    /// Returns the key of a picture that was classified as `key`. Returns [`Key::Undecided`] if only flags show what is key and
    /// none has been set so far: `random_access_indicator` is optional (2.4.3.5), so its absence proves nothing.
    fn key_of(&mut self, index: usize, is_scrambled: bool, key: Key) -> Key {
        let kind = self.streams.get(index).map(|stream| stream.kind);
        if !is_scrambled && kind != Some(Kind::Video(Video::Nal(VideoCodec::Unknown))) {
            return key;
        }
        self.has_flag |= key.is_key();
        if self.has_flag { key } else { Key::Undecided }
    }

    /// Returns whether the stream may be cut at a group of pictures without the headers that a decoder needs.
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
        // The buffer is kept to reuse its allocation, unless it is large: there may be 250 streams.
        if let Some(stream) = self.streams.get_mut(index).filter(|_| gathered.capacity() <= 2 * EAGER) {
            stream.gathered = gathered;
        }
    }

    /// Returns the marks for an examined PES packet.
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
            // No unit: a chunk that began with a second field would lack half a frame.
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
                // The previous key frame ends where this picture begins.
                end = self.picture_end();
                unit.track = Track::Video;
                unit.key = self.key_of(index, data.is_empty(), picture.key);
                self.sequences.note(&picture, pts);
                if picture.key.is_key() {
                    self.key_open = true;
                    let before = self.config;
                    unit.new_codec_config = self.take_config(index, video, &picture, data, out);
                    // Without data the packet is scrambled: its parameter sets cannot be seen.
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
        // After the codec names are set, so that the header's `info` contains them.
        unit.init = Some(init(head, out));
        [end, Some(MarkKind::Unit(unit)), notice]
    }

    /// Returns the time in ns for a timestamp of this stream. The first timestamp of a stream is unwrapped near the time of the
    /// stream that decides on times.
    fn time(&mut self, index: usize, pts: u64, is_the_sound: bool) -> u64 {
        let Some(stream) = self.streams.get_mut(index) else { return 0 };
        if stream.clock.is_new() {
            stream.clock = Clock::beside(self.clock);
        }
        let time = stream.clock.nanoseconds(pts);
        // Private streams may count from any value: other streams must not be unwrapped near their times.
        if self.video == Some(index) || (self.video.is_none() && is_the_sound) {
            self.clock = stream.clock;
        }
        time
    }
}

/// Decides the marks of a picture, together with the audio packet that is open where it begins.
fn decide(sound: Option<OpenAudio>, slot: Slot, kinds: Kinds, out: &mut Reorder, marks: &mut Vec<Mark>) {
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
