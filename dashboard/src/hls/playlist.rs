//! HLS media playlists from chunks.
//!
//! PURE. Source: RFC 8216. Each chunk is one segment. `PROGRAM-DATE-TIME` stands before every segment, `DISCONTINUITY` only where
//! the container's time does not go on, or the kind of the streams changes. Everything that is written of an object's name is
//! percent-encoded.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::fmt::Write as _;

use gcstreamer_schema::time::rfc3339_ms;
use gcstreamer_schema::{Container, metadata::ObjectMetadata};

use crate::index::Chunk;

/// How a chunk is played.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Playing {
    /// Its bytes as they are, by range behind its own header.
    Fragmented,
    /// Its bytes as they are.
    Transport,
    /// Remuxed as a fragmented MP4, by stream copy.
    Remuxed,
    /// Not at all.
    Not,
}

/// Whether a stream of this codec is pictures, of those that chunks name.
fn is_picture(codec: &str) -> bool {
    const OTHERS: [&str; 3] = ["mp4v", "mjpeg", "theora"];
    begins_with(codec, &PICTURES) || begins_with(codec, &OTHERS)
}

/// Pictures that a browser may have a decoder for.
const PICTURES: [&str; 9] = ["avc1", "avc3", "hvc1", "hev1", "vp8", "vp08", "vp9", "vp09", "av01"];

/// Pictures and sound that a browser may have a decoder for. One stream of another kind (AC-3, ALAC, G.711, PCM) and none of the chunk's
/// would play: a player makes one buffer for all of them.
fn is_in_browsers(codec: &str) -> bool {
    const SOUND: [&str; 3] = ["mp4a.40", "opus", "flac"];
    codec.is_empty() || begins_with(codec, &PICTURES) || begins_with(codec, &SOUND)
}

/// Pictures of VP8, which no browser plays from an MP4, though other players do.
const VP8: [&str; 2] = ["vp8", "vp08"];

/// Whether a stream of this codec is part of what is remuxed. Of MPEG audio only AAC is, not layers 1 to 3 (object types 32 to 34 of
/// ISO/IEC 14496-3), and neither Opus, VP9 nor AV1 is from transport streams.
fn is_remuxed(container: Container, codec: &str) -> bool {
    let is_layer = ["mp4a.40.32", "mp4a.40.33", "mp4a.40.34"].contains(&codec);
    let is_known = begins_with(codec, &["avc1", "avc3", "hvc1", "hev1", "mp4a.40"]);
    let is_open = begins_with(codec, &["vp9", "vp09", "av01", "opus"]);
    is_known && !is_layer || is_open && container != Container::MpegTs
}

fn begins_with(codec: &str, prefixes: &[&str]) -> bool {
    prefixes.iter().any(|prefix| codec.starts_with(prefix))
}

/// The names in `codecs`; one empty name where there are none.
fn codecs(chunk: &Chunk) -> impl Iterator<Item = &str> {
    chunk.meta.codecs.as_deref().unwrap_or_default().split(',').map(str::trim)
}

/// By how much the container's time may be off where it goes on, ns.
pub const SLACK: u64 = 250_000_000;
/// Whether a transport stream can consist of packets of 188 bytes. Of those of 192 or 204 bytes one chunk in 47 has such a size, too.
fn has_plain_packets(chunk: &Chunk) -> bool {
    [chunk.size, chunk.meta.init_bytes]
        .into_iter()
        .all(|bytes| bytes.is_multiple_of(188))
}

/// How chunks are played: by what each says of itself, and by what the others of its session say.
#[derive(Debug)]
pub(super) struct Ways<'a> {
    /// Sessions whose transport stream has other packets than those of 188 bytes.
    odd: BTreeSet<&'a str>,
    /// Whether a header stands in the playlist. RFC 8216 section 4.3.2.5: a `MAP` applies until the next one or the end, and a
    /// transport stream has none that could replace it.
    has_header: bool,
}

impl<'a> Ways<'a> {
    /// How the chunks of one playlist are played: `listed` in it, of `chunks`, which show what their sessions are.
    pub(super) fn of(chunks: &'a [Chunk], listed: &[&Chunk]) -> Self {
        let odd = chunks
            .iter()
            .filter(|chunk| chunk.meta.container == Container::MpegTs && !has_plain_packets(chunk));
        let mut ways = Self {
            odd: odd.map(|chunk| chunk.meta.session.as_str()).collect(),
            has_header: false,
        };
        ways.has_header = listed.iter().any(|chunk| ways.playing(chunk) != Playing::Transport);
        ways
    }

    fn playing(&self, chunk: &Chunk) -> Playing {
        match playing(chunk) {
            Playing::Transport if self.has_header || self.odd.contains(chunk.meta.session.as_str()) => Playing::Remuxed,
            playing => playing,
        }
    }

    pub(super) fn goes_on(&self, a: &Chunk, b: &Chunk) -> bool {
        goes_on(a, b) && self.playing(a) == self.playing(b)
    }
}

/// Returns how a chunk is played, as far as it tells by itself.
pub fn playing(chunk: &Chunk) -> Playing {
    let meta = &chunk.meta;
    let known = |codec: &str| is_remuxed(meta.container, codec);
    // Sound without its pictures is not what was recorded.
    let remuxable = || codecs(chunk).any(known) && codecs(chunk).find(|codec| is_picture(codec)).is_none_or(known);
    match meta.container {
        // Where its header ends is not known without `init-bytes`: it is remuxed.
        Container::Fmp4
            if meta.init_bytes > 0 && meta.init_bytes < chunk.size && (codecs(chunk).all(is_in_browsers) || !remuxable()) =>
        {
            Playing::Fragmented
        }
        Container::MpegTs
            if has_plain_packets(chunk) && codecs(chunk).all(|codec| begins_with(codec, &["avc1", "mp4a.40.2", "mp4a.40.5"])) =>
        {
            Playing::Transport
        }
        Container::Raw => Playing::Not,
        _ if meta.codecs.is_none() || remuxable() => Playing::Remuxed,
        _ => Playing::Not,
    }
}

/// Whether a chunk can be written as MP4, as far as it tells by itself: what is played can, and VP8.
pub fn is_written(chunk: &Chunk) -> bool {
    let is_read = matches!(
        chunk.meta.container,
        Container::Flv | Container::Fmp4 | Container::Matroska | Container::WebM
    );
    let picture = codecs(chunk).find(|codec| is_picture(codec));
    playing(chunk) != Playing::Not || is_read && picture.is_some_and(|codec| begins_with(codec, &VP8))
}

/// Whether all that a chunk holds is sound, by what it says of itself. A name that is not known may be one of pictures: fragmented MP4 has
/// the four characters of any.
pub fn is_sound(chunk: &Chunk) -> bool {
    const SOUND: [&str; 17] = [
        "mp4a", "opus", "flac", "fLaC", "vorbis", "alaw", "ulaw", "ac-3", "ec-3", "ac-4", "alac", "dts", "ipcm", "fpcm", "lpcm",
        "sowt", "twos",
    ];
    chunk.meta.container != Container::Raw && codecs(chunk).all(|codec| begins_with(codec, &SOUND))
}

/// Why nothing of these chunks is played although something is stored: what the newest is stored as. `None`: something is, or there are none.
pub fn unplayable<'a>(chunks: impl IntoIterator<Item = &'a Chunk>) -> Option<String> {
    let mut newest = None;
    for chunk in chunks {
        if playing(chunk) != Playing::Not {
            return None;
        }
        newest = Some(chunk);
    }
    newest.map(why_not)
}

/// Why a chunk is not played.
pub fn why_not(chunk: &Chunk) -> String {
    let meta = &chunk.meta;
    let codecs = meta
        .codecs
        .as_deref()
        .map_or_else(String::new, |codecs| format!(" ({codecs})"));
    let container = meta.container.name();
    if is_written(chunk) {
        return format!("it is stored as {container}{codecs}, which no browser plays from an MP4");
    }
    format!("it is stored as {container}{codecs}, which is neither played here nor written as MP4")
}

/// Whether the container's time goes on from `a` to `b` and the decoder can go on with it.
pub fn goes_on(a: &Chunk, b: &Chunk) -> bool {
    let time_goes_on = match (a.meta.pts_start, b.meta.pts_start) {
        (Some(a_pts), Some(b_pts)) => a_pts.saturating_add(a.meta.duration).abs_diff(b_pts) <= SLACK,
        _ => a.is_followed_by(b),
    };
    let kind = |meta: &ObjectMetadata| (meta.session.clone(), meta.container, meta.codecs.clone());
    time_goes_on && kind(&a.meta) == kind(&b.meta)
}

/// Takes out what cannot be played, and what another session recorded at the same time.
fn playable(chunks: &[Chunk], to: u64) -> Vec<&Chunk> {
    let pieces = once(chunks.iter().filter(|chunk| playing(chunk) != Playing::Not), to);
    pieces.into_iter().map(|piece| piece.chunk).collect()
}

/// A chunk of what is shown once.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// The chunk.
    pub chunk: &'a Chunk,
    /// What it has of the time before was shown by another session, ns since the Unix epoch; `None`: it begins where that ends, or later.
    pub after: Option<u64>,
}

/// Chunks, each with the time from which it counts (ns since the Unix epoch), sorted by that: within a session none counts from later than
/// one with a higher number does, so what was recorded first is first, also where the clock then went back.
fn as_recorded<'a>(chunks: impl Iterator<Item = &'a Chunk>) -> Vec<(u64, &'a Chunk)> {
    let mut all: Vec<(u64, &Chunk)> = chunks.map(|chunk| (chunk.meta.start, chunk)).collect();
    all.sort_by_key(|(_, chunk)| Reverse(chunk.meta.sequence));
    let mut earliest: HashMap<&str, u64> = HashMap::new();
    for (from, chunk) in &mut all {
        let least = earliest.entry(&chunk.meta.session).or_insert(*from);
        *least = (*least).min(*from);
        *from = *least;
    }
    all.sort_by(|(a, x), (b, y)| (a, &x.meta.session, x.meta.sequence).cmp(&(b, &y.meta.session, y.meta.sequence)));
    all
}

/// Takes out what another session recorded at the same time, of chunks sorted by their beginning; nothing that one of them alone has is
/// left out. A session is followed as long as it goes on. The one that is then taken up may have begun before. `to`: what comes then is not
/// asked for, ns since the Unix epoch.
pub fn once<'a>(chunks: impl Iterator<Item = &'a Chunk>, to: u64) -> Vec<Piece<'a>> {
    let mut kept: Vec<Piece<'_>> = Vec::new();
    let (mut covered, mut open, mut rest) = (0, Vec::new(), as_recorded(chunks).into_iter().peekable());
    loop {
        let last = kept.last().map(|piece| piece.chunk);
        while let Some((_, chunk)) = rest.next_if(|(from, _)| last.is_some() && *from <= covered + SLACK) {
            open.push(chunk);
        }
        let goes_on = |chunk: &Chunk| last.is_some_and(|last| last.is_followed_by(chunk));
        let is_same = |chunk: &Chunk| {
            last.is_some_and(|last| last.meta.session == chunk.meta.session && last.meta.sequence < chunk.meta.sequence)
        };
        // A session records nothing twice, also where its clock goes back.
        open.retain(|chunk| is_same(chunk) || chunk.meta.end > covered + SLACK && covered < to);
        let best = open.iter().max_by_key(|chunk| {
            (
                goes_on(chunk),
                is_same(chunk).then_some(Reverse(chunk.meta.sequence)),
                chunk.meta.start,
            )
        });
        // No chunk of the chosen session is skipped, whatever its clock said.
        let of_it = |chunk: &Chunk| best.is_some_and(|best| best.meta.session == chunk.meta.session);
        let first = open.iter().enumerate().filter(|(_, chunk)| of_it(chunk));
        let first = first.min_by_key(|(_, chunk)| chunk.meta.sequence).map(|(at, _)| at);
        let next = first.map(|at| open.swap_remove(at));
        let Some(chunk) = next.or_else(|| rest.next().map(|(_, chunk)| chunk)) else {
            return kept;
        };
        let is_late = !is_same(chunk) && chunk.meta.start + SLACK < covered;
        kept.push(Piece {
            chunk,
            after: is_late.then_some(covered),
        });
        covered = covered.max(chunk.meta.end);
    }
}

/// Returns the address of a chunk's bytes under `/media`.
pub fn media_address(chunk: &Chunk, extension: &str) -> String {
    format!("/media/{}/{}.{extension}", chunk.generation, encoded(&chunk.name))
}

/// Percent-encodes all but the unreserved characters of RFC 3986 section 2.3, the slash included: `..` is no folder then.
pub fn encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// How a playlist is written.
#[derive(Clone, Copy)]
pub struct Style<'a> {
    /// Whether its addresses say that they are not to be redirected to the bucket.
    pub by_proxy: bool,
    /// What is known of the header that was made for a chunk that is remuxed: equal numbers, equal headers.
    pub made: &'a dyn Fn(&Chunk) -> Option<u64>,
}

impl std::fmt::Debug for Style<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Style")
            .field("by_proxy", &self.by_proxy)
            .finish_non_exhaustive()
    }
}

/// A playlist of all chunks, sorted by time, that have ended for good, up to `to` (ns since the Unix epoch): VOD, with `ENDLIST`.
pub fn vod(chunks: &[Chunk], to: u64, style: Style<'_>) -> String {
    let segments = playable(chunks, to);
    let ways = Ways::of(chunks, &segments);
    let mut out = head((&segments, &segments), &ways, 0, None);
    out.push_str("#EXT-X-PLAYLIST-TYPE:VOD\n");
    style.body(&mut out, &segments, &ways);
    out.push_str("#EXT-X-ENDLIST\n");
    out
}

/// Returns the tags in front of the segments. `segments` are listed. `all` gives the target duration and whether segments are independent:
/// neither may change from one load of a live playlist to the next (RFC 8216 sections 6.2.1 and 4.3.5.1).
pub(super) fn head(
    (segments, all): (&[&Chunk], &[&Chunk]),
    ways: &Ways<'_>,
    sequence: u64,
    discontinuity: Option<u64>,
) -> String {
    let longest = all.iter().map(|chunk| chunk.meta.duration).max().unwrap_or(0);
    // RFC 8216 section 4.3.3.1: no duration, rounded to the nearest second, may exceed it.
    let target = (longest.saturating_add(500_000_000) / 1_000_000_000).max(1);
    let mut out = format!("#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:{target}\n#EXT-X-MEDIA-SEQUENCE:{sequence}\n");
    if let Some(number) = discontinuity {
        let _ = writeln!(out, "#EXT-X-DISCONTINUITY-SEQUENCE:{number}");
    }
    if all.iter().all(|chunk| chunk.meta.key_frame) {
        out.push_str("#EXT-X-INDEPENDENT-SEGMENTS\n");
    }
    for codec in left_out(segments, ways) {
        // A comment to players; the page says it in words.
        let _ = writeln!(out, "# left out: {}", encoded(codec));
    }
    out
}

/// The codecs of streams that are not part of what is remuxed.
fn left_out<'a>(segments: &[&'a Chunk], ways: &Ways<'_>) -> BTreeSet<&'a str> {
    let remuxed = segments.iter().filter(|chunk| ways.playing(chunk) == Playing::Remuxed);
    remuxed
        .flat_map(|chunk| codecs(chunk).map(|codec| (chunk.meta.container, codec)))
        .filter(|(container, codec)| !codec.is_empty() && !is_remuxed(*container, codec))
        .map(|(_, codec)| codec)
        .collect()
}

/// Whether both are known, and equal.
fn is_same<T: PartialEq>(a: Option<T>, b: Option<T>) -> bool {
    a.is_some() && a == b
}

impl Style<'_> {
    pub(super) fn body(self, out: &mut String, segments: &[&Chunk], ways: &Ways<'_>) {
        let mut before: Option<&Chunk> = None;
        for chunk in segments {
            let (way, breaks) = (ways.playing(chunk), before.is_some_and(|last| !ways.goes_on(last, chunk)));
            if breaks {
                out.push_str("#EXT-X-DISCONTINUITY\n");
            }
            if before.is_none_or(|last| breaks || !self.has_same_header(last, chunk, way)) {
                self.map(out, chunk, way);
            }
            let seconds = chunk.meta.duration.max(1_000_000);
            let _ = writeln!(out, "#EXT-X-PROGRAM-DATE-TIME:{}", rfc3339_ms(chunk.meta.start));
            let _ = writeln!(out, "#EXTINF:{}.{:03},", seconds / 1_000_000_000, seconds / 1_000_000 % 1000);
            let extension = match way {
                Playing::Fragmented => {
                    let init = chunk.meta.init_bytes;
                    let _ = writeln!(out, "#EXT-X-BYTERANGE:{}@{init}", chunk.size - init);
                    "mp4"
                }
                Playing::Transport => "ts",
                Playing::Remuxed | Playing::Not => "m4s",
            };
            let _ = writeln!(out, "{}", self.address(chunk, extension));
            before = Some(chunk);
        }
    }

    fn address(self, chunk: &Chunk, extension: &str) -> String {
        let by = if self.by_proxy { "?delivery=proxy" } else { "" };
        media_address(chunk, extension) + by
    }

    /// Whether the header of `a` serves `b` too, which is played in this way. The parameter sets of a transport stream are not in its header, so it shows nothing
    /// of the one that is made for it.
    fn has_same_header(self, a: &Chunk, b: &Chunk, way: Playing) -> bool {
        let known = |chunk: &Chunk| chunk.meta.init_crc32c.filter(|_| chunk.meta.init_bytes > 0);
        match way {
            Playing::Transport => true,
            Playing::Remuxed => {
                let is_telling = b.meta.container != Container::MpegTs;
                is_telling && is_same(known(a), known(b)) || is_same((self.made)(a), (self.made)(b))
            }
            Playing::Fragmented | Playing::Not => is_same(known(a), known(b)),
        }
    }

    fn map(self, out: &mut String, chunk: &Chunk, way: Playing) {
        let address = self.address(chunk, "mp4");
        match way {
            Playing::Fragmented => {
                let _ = writeln!(out, "#EXT-X-MAP:URI=\"{address}\",BYTERANGE=\"{}@0\"", chunk.meta.init_bytes);
            }
            Playing::Remuxed => {
                let _ = writeln!(out, "#EXT-X-MAP:URI=\"{address}\"");
            }
            Playing::Transport | Playing::Not => {}
        }
    }
}
