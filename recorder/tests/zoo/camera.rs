//! Cameras with bad manners: scripted RTSP servers on loopback, RTP in the connection.
//!
//! Each connection takes the next line of the script; the last one repeats. A server shares no code with the product.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::media::{Track, track};
pub(crate) use torn::Torn;

#[path = "torn.rs"]
mod torn;

/// What a camera does on one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Act {
    /// Tracks that it sends, by their names.
    pub(crate) sends: Vec<&'static str>,
    /// Further `m=` sections that it announces and never sends.
    pub(crate) announces: Vec<String>,
    /// This method is refused with this status.
    pub(crate) refuses: Option<(&'static str, &'static str)>,
    /// Each of its answers takes this long.
    pub(crate) thinks: Duration,
    /// User name and password that it wants.
    pub(crate) wants: Option<(&'static str, &'static str)>,
    /// The kind of authentication that it requires.
    pub(crate) login: Login,
    /// It accepts connections but does not speak RTSP on them.
    pub(crate) rude: Option<Rude>,
    /// After this many pictures, `then` happens.
    pub(crate) pictures: Option<u64>,
    /// The part of the next picture that is sent before `then`.
    pub(crate) torn: Option<Torn>,
    /// What happens after `pictures`.
    pub(crate) then: Then,
    /// What it changes about each packet of pictures.
    pub(crate) spoil: Option<fn(&mut [u8], bool)>,
    /// What it writes instead of a correct SDP.
    pub(crate) sdp: Option<fn(&str) -> String>,
    /// After this many pictures, and again after the same number, it sends nothing for this long.
    pub(crate) pauses: Option<(u64, Duration)>,
    /// It starts after this many pictures of its track. Those before the next key frame cannot be decoded.
    pub(crate) skips: u64,
    /// After this many pictures they come from another source (SSRC).
    pub(crate) changes_source: Option<u64>,
    /// It accepts UDP as well, but none of its packets arrives.
    pub(crate) loses_udp: bool,
    /// The time range in which sound is sent.
    pub(crate) sound: Option<(Duration, Duration)>,
    /// `Content-Base` of its DESCRIBE.
    pub(crate) base: Option<&'static str>,
    /// It sends DESCRIBE to this path of its own first.
    pub(crate) redirects: Option<&'static str>,
    /// It ends a session without a request for this many seconds. The only keep-alive that it supports is OPTIONS.
    pub(crate) session_timeout: Option<u64>,
    /// The time in its RTCP, in NTP seconds.
    pub(crate) ntp: Option<u32>,
    /// It collects packets for this long and sends them in a burst.
    pub(crate) burst: Duration,
    /// It writes this many bytes at a time.
    pub(crate) dribbles: Option<usize>,
    /// It sends each packet twice.
    pub(crate) is_double: bool,
    /// Sequence numbers and time stamps start shortly before they wrap to 0.
    pub(crate) wraps: bool,
    /// The sequence numbers in the `RTP-Info` of its PLAY are ahead of those that it sends by this.
    pub(crate) info: Option<u16>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) enum Login {
    #[default]
    Basic,
    Digest,
    /// Only Digest with SHA-256.
    Sha256,
    /// Digest, each nonce for one request; OPTIONS and DESCRIBE need none.
    Nonces,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Rude {
    Silent,
    Closes,
    Garbage,
}

#[derive(Clone, Debug, Default)]
pub(crate) enum Then {
    /// It goes on answering OPTIONS.
    #[default]
    Freeze,
    Close,
    /// It sends nothing more and answers nothing, as if the cable was cut.
    Vanish,
    /// Bytes that are no RTSP.
    Garbage,
    /// Another track, to the end.
    Change(&'static str),
    /// Another track for the same number of pictures, then the first again, and so on.
    Flap(&'static str),
}

/// What tests can observe.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) connections: AtomicUsize,
    /// Most connections that the recorder had open at once, seen at each new one.
    pub(crate) most_open: AtomicUsize,
    /// Requests that carried credentials.
    pub(crate) logins: AtomicUsize,
    /// Whole pictures sent, without those after a change.
    pub(crate) pictures: AtomicU64,
    /// When the present connection began to send, and when the last picture was sent.
    pub(crate) sending: Mutex<(Option<Instant>, Option<Instant>)>,
    /// Whether sending is over.
    pub(crate) stop: AtomicBool,
    /// Whether sending ends as soon as the last key frame is [`AFTER_KEY`] old, and whether it has.
    pub(crate) stop_after_key: AtomicBool,
    pub(crate) has_stopped: AtomicBool,
}

#[derive(Debug)]
pub(crate) struct Camera {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
}

impl Camera {
    pub(crate) fn start(script: Vec<Act>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        for act in &script {
            act.sends.iter().for_each(|name| drop(track(name)));
            if let Then::Change(name) | Then::Flap(name) = act.then {
                track(name);
            }
        }
        let shared = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let n = shared.connections.fetch_add(1, Ordering::SeqCst);
                let act = script[n.min(script.len() - 1)].clone();
                shared.most_open.fetch_max(open_connections(address), Ordering::SeqCst);
                let seen = Arc::clone(&shared);
                std::thread::spawn(move || {
                    let _ = Connection::new(stream, act, seen).run();
                });
            }
        });
        Self { address, seen }
    }

    pub(crate) fn url(&self) -> String {
        format!("rtsp://{}/stream", self.address)
    }
}

/// The number of connections to `address` whose peer has not closed. The kernel knows: a thread of ours that still reads from a closed
/// connection must not count on a busy machine.
fn open_connections(address: SocketAddr) -> usize {
    const ESTABLISHED: &str = "01";
    let port = format!(":{:04X}", address.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let is_open = |line: &&str| {
        let mut fields = line.split_whitespace().skip(1);
        let (local, _, state) = (fields.next(), fields.next(), fields.next());
        local.is_some_and(|local| local.ends_with(&port)) && state == Some(ESTABLISHED)
    };
    table.lines().filter(is_open).count()
}

/// A free port that no server listens on.
pub(crate) fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

struct Connection {
    stream: TcpStream,
    out: Arc<Mutex<TcpStream>>,
    act: Act,
    seen: Arc<Seen>,
    address: SocketAddr,
    /// Interleaved channel of each track.
    channels: BTreeMap<usize, u8>,
    /// How many nonces were used up.
    nonces: usize,
    has_vanished: Arc<AtomicBool>,
}

impl Connection {
    fn new(stream: TcpStream, act: Act, seen: Arc<Seen>) -> Self {
        stream.set_nodelay(true).unwrap();
        Self {
            out: Arc::new(Mutex::new(stream.try_clone().unwrap())),
            address: stream.local_addr().unwrap(),
            stream,
            act,
            seen,
            channels: BTreeMap::new(),
            nonces: 0,
            has_vanished: Arc::default(),
        }
    }

    fn run(&mut self) -> std::io::Result<()> {
        if let Some(seconds) = self.act.session_timeout {
            self.stream.set_read_timeout(Some(Duration::from_secs(seconds)))?;
        }
        let mut reader = BufReader::new(self.stream.try_clone()?);
        if let Some(Rude::Closes) = self.act.rude {
            return Ok(());
        }
        loop {
            let Some((request, headers)) = read_request(&mut reader)? else {
                return Ok(());
            };
            if self.has_vanished.load(Ordering::SeqCst) {
                continue;
            }
            match self.act.rude {
                Some(Rude::Silent) => continue,
                Some(Rude::Garbage) => {
                    let noise: Vec<u8> = (0..2000u32).map(|i| u8::try_from(i * 7919 % 251).unwrap()).collect();
                    self.out.lock().unwrap().write_all(&noise)?;
                    return Ok(());
                }
                _ => {}
            }
            std::thread::sleep(self.act.thinks);
            if !self.answer(&request, &headers)? {
                return Ok(());
            }
        }
    }

    /// Returns whether the connection continues.
    fn answer(&mut self, request: &str, headers: &BTreeMap<String, String>) -> std::io::Result<bool> {
        let mut words = request.split(' ');
        let (method, url) = (words.next().unwrap_or(""), words.next().unwrap_or("").to_owned());
        let cseq = headers.get("cseq").cloned().unwrap_or_default();
        let reply = |status: &str, more: &str, body: &str| {
            let length = if body.is_empty() {
                String::new()
            } else {
                format!("Content-Length: {}\r\n", body.len())
            };
            format!("RTSP/1.0 {status}\r\nCSeq: {cseq}\r\n{more}{length}\r\n{body}")
        };
        let out = Arc::clone(&self.out);
        let send = |text: String| out.lock().unwrap().write_all(text.as_bytes());
        if headers.contains_key("authorization") {
            self.seen.logins.fetch_add(1, Ordering::SeqCst);
        }
        let is_free = method == "OPTIONS" || (self.act.login == Login::Nonces && method == "DESCRIBE");
        let is_let_in = is_free || self.is_let_in(method, headers.get("authorization"));
        if self.act.login == Login::Nonces && !is_free {
            self.nonces += 1;
        }
        if !is_let_in {
            let challenge = match self.act.login {
                Login::Basic => "Basic realm=\"cam\"".to_owned(),
                Login::Digest | Login::Nonces => format!("Digest realm=\"cam\", nonce=\"{}\"", self.nonce()),
                Login::Sha256 => format!("Digest realm=\"cam\", nonce=\"{NONCE}\", algorithm=SHA-256, qop=\"auth\""),
            };
            send(reply("401 Unauthorized", &format!("WWW-Authenticate: {challenge}\r\n"), ""))?;
            return Ok(true);
        }
        if let Some(path) = self.act.redirects.filter(|path| method == "DESCRIBE" && !url.contains(*path)) {
            let location = format!("Location: rtsp://{}/{path}\r\n", self.address);
            send(reply("302 Moved Temporarily", &location, ""))?;
            return Ok(true);
        }
        if let Some((refused, status)) = self.act.refuses
            && refused == method
        {
            send(reply(status, "", ""))?;
            return Ok(true);
        }
        match method {
            "OPTIONS" | "GET_PARAMETER" => {
                let is_short = self.act.session_timeout.is_some();
                if is_short && method == "GET_PARAMETER" {
                    return Ok(false);
                }
                let more = if is_short { "" } else { ", GET_PARAMETER" };
                let public = format!("Public: OPTIONS, DESCRIBE, SETUP, PLAY, PAUSE, TEARDOWN{more}\r\n");
                send(reply("200 OK", &public, ""))?;
            }
            "DESCRIBE" => {
                let own = format!("rtsp://{}/stream/", self.address);
                let base = self
                    .act
                    .base
                    .map_or(own, |base| base.replace("ADDRESS", &self.address.to_string()));
                let more = format!("Content-Type: application/sdp\r\nContent-Base: {base}\r\n");
                send(reply("200 OK", &more, &self.sdp()))?;
            }
            "SETUP" => {
                let n: usize = url.rsplit("track").next().and_then(|n| n.parse().ok()).unwrap_or(0);
                let transport = headers.get("transport").map_or("", String::as_str);
                if self.act.loses_udp && !transport.contains("TCP") {
                    let ports = transport.split("client_port=").nth(1).unwrap_or("0-1");
                    let ports = ports.split([';', ',']).next().unwrap_or("0-1");
                    let more = format!(
                        "Session: 12345678\r\nTransport: RTP/AVP;unicast;client_port={ports};server_port=50000-50001\r\n"
                    );
                    send(reply("200 OK", &more, ""))?;
                    return Ok(true);
                }
                let channel = u8::try_from(n * 2).unwrap();
                self.channels.insert(n, channel);
                let more = format!(
                    "Session: 12345678;timeout={}\r\nTransport: RTP/AVP/TCP;unicast;interleaved={channel}-{}\r\n",
                    self.act.session_timeout.unwrap_or(60),
                    channel + 1
                );
                send(reply("200 OK", &more, ""))?;
            }
            "PLAY" => {
                let info = self.act.info.map_or_else(String::new, |ahead| self.info(ahead));
                send(reply("200 OK", &format!("Session: 12345678\r\nRange: npt=0-\r\n{info}"), ""))?;
                self.play();
            }
            "TEARDOWN" => {
                send(reply("200 OK", "", ""))?;
                return Ok(false);
            }
            _ => send(reply("200 OK", "Session: 12345678\r\n", ""))?,
        }
        Ok(true)
    }

    fn info(&self, ahead: u16) -> String {
        let tracks = self.act.sends.iter().enumerate().map(|(i, name)| {
            let number = sequence(&track(name).packets[0].data).wrapping_add(ahead);
            format!("url=rtsp://{}/stream/track{i};seq={number};rtptime=0", self.address)
        });
        format!("RTP-Info: {}\r\n", tracks.collect::<Vec<_>>().join(","))
    }

    fn nonce(&self) -> String {
        match self.nonces {
            0 => NONCE.to_owned(),
            used => format!("{NONCE}{used}"),
        }
    }

    /// Whether these credentials are accepted.
    fn is_let_in(&self, method: &str, authorization: Option<&String>) -> bool {
        let Some((user, password)) = self.act.wants else { return true };
        let Some(authorization) = authorization else { return false };
        if self.act.login == Login::Basic {
            return *authorization == format!("Basic {}", base64(format!("{user}:{password}").as_bytes()));
        }
        let field = |name: &str| {
            let after = authorization.split_once(&format!("{name}=\""))?.1;
            after.split('"').next().map(str::to_owned)
        };
        let md5 = |text: String| {
            let sum = gst::glib::compute_checksum_for_string(gst::glib::ChecksumType::Md5, text);
            sum.unwrap().to_string()
        };
        let uri = field("uri").unwrap_or_default();
        let secret = md5(format!("{user}:cam:{password}"));
        let expected = md5(format!("{secret}:{}:{}", self.nonce(), md5(format!("{method}:{uri}"))));
        self.act.login != Login::Sha256 && field("response") == Some(expected) && field("username").as_deref() == Some(user)
    }

    fn sdp(&self) -> String {
        let mut sdp = format!(
            "v=0\r\no=- 1 1 IN IP4 {}\r\ns=cam\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n",
            self.address.ip()
        );
        let announced = self.act.sends.iter().map(|name| track(name).sdp.clone());
        for (i, section) in announced.chain(self.act.announces.iter().cloned()).enumerate() {
            sdp.push_str(&format!("{section}a=control:track{i}\r\n"));
        }
        if let Some(write) = self.act.sdp {
            sdp = write(&sdp);
        }
        sdp
    }

    /// Starts a thread that sends, while this one continues to answer requests.
    fn play(&self) {
        let (act, seen, out) = (self.act.clone(), Arc::clone(&self.seen), Arc::clone(&self.out));
        let channels = self.channels.clone();
        let stream = self.stream.try_clone().unwrap();
        let has_vanished = Arc::clone(&self.has_vanished);
        std::thread::spawn(move || {
            let _ = play(&act, &seen, &out, &channels);
            seen.sending.lock().unwrap().0 = None;
            match act.then {
                Then::Close => drop(stream.shutdown(std::net::Shutdown::Both)),
                Then::Vanish => has_vanished.store(true, Ordering::SeqCst),
                _ => {}
            }
        });
    }
}

/// Of every Digest.
const NONCE: &str = "4c8a61b5";

fn play(act: &Act, seen: &Seen, out: &Mutex<TcpStream>, channels: &BTreeMap<usize, u8>) -> std::io::Result<()> {
    let began = Instant::now();
    let flap = match act.then {
        Then::Flap(name) => Some(track(name)),
        _ => None,
    };
    let tracks: Vec<(u8, bool, Arc<Track>)> = act
        .sends
        .iter()
        .enumerate()
        .filter_map(|(i, name)| Some((*channels.get(&i)?, i == 0, track(name))))
        .collect();
    let mut all: Vec<(Duration, u8, bool, &super::media::Packet)> = Vec::new();
    for (channel, is_video, track) in &tracks {
        match (&flap, act.pictures) {
            (Some(other), Some(each)) if *is_video => {
                let flapping = flapping(track, other, each);
                all.extend(flapping.into_iter().map(|p| (p.at, *channel, true, p)));
            }
            _ => all.extend(track.packets.iter().map(|p| (p.at, *channel, *is_video, p))),
        }
    }
    all.sort_by_key(|(at, ..)| *at);
    let is_h265 = act.sends.first().is_some_and(|name| name.starts_with("h265"));
    let (mut pictures, mut number) = (0, 0u16);
    let mut paused = Duration::ZERO;
    let (mut next_report, mut key_at) = (Duration::ZERO, Duration::ZERO);
    let (mut skips, mut skipped, mut has_key) = (act.skips, Duration::ZERO, act.skips == 0);
    for (at, channel, is_video, packet) in all {
        if act.pictures == Some(0) {
            break;
        }
        if is_video && skips > 0 {
            skips -= u64::from(packet.ends_picture);
            skipped = at;
            continue;
        }
        if !is_video && act.sound.is_some_and(|(from, to)| at < from || at >= to) {
            continue;
        }
        let torn = act.torn.filter(|_| is_video && act.pictures == Some(pictures));
        if torn.is_some_and(|torn| torn.stops_before(packet, is_h265)) {
            break;
        }
        // The pace of a camera.
        std::thread::sleep((began + paused + at.saturating_sub(act.burst + skipped)).saturating_duration_since(Instant::now()));
        if is_video && begins_key(packet, is_h265) {
            key_at = at;
            has_key = true;
        }
        let is_after_key = seen.stop_after_key.load(Ordering::SeqCst) && at.saturating_sub(key_at) >= AFTER_KEY;
        if is_after_key || seen.stop.load(Ordering::SeqCst) {
            seen.has_stopped.store(true, Ordering::SeqCst);
            std::thread::sleep(Duration::from_secs(3600));
        }
        let mut data = packet.data.clone();
        if flap.is_some() && is_video {
            data[2..4].copy_from_slice(&number.to_be_bytes());
            data[8..12].copy_from_slice(&tracks[0].2.packets[0].data[8..12]);
            number = number.wrapping_add(1);
        }
        if is_video && act.changes_source.is_some_and(|from| pictures >= from) {
            data[8] ^= 0x55;
        }
        if act.wraps {
            let (number, time) = (sequence(&data).wrapping_sub(100), stamp(&data).wrapping_sub(200_000));
            data[2..4].copy_from_slice(&number.to_be_bytes());
            data[4..8].copy_from_slice(&time.to_be_bytes());
        }
        if let (true, Some(spoil)) = (is_video, act.spoil) {
            spoil(&mut data, packet.ends_picture);
        }
        if let Some(ntp) = act.ntp.filter(|_| is_video && at >= next_report) {
            next_report = at + Duration::from_secs(1);
            let seconds = ntp.wrapping_add(u32::try_from(at.as_secs()).unwrap());
            send(out, channel + 1, &sender_report(&data, seconds), act)?;
        }
        for _ in 0..1 + usize::from(act.is_double) {
            send(out, channel, &data, act)?;
        }
        if is_video && packet.ends_picture {
            seen.pictures.fetch_add(u64::from(has_key), Ordering::SeqCst);
            *seen.sending.lock().unwrap() = (Some(began), Some(Instant::now()));
            pictures += 1;
            if let Some((each, pause)) = act.pauses
                && (pictures == each || pictures == 2 * each)
            {
                paused += pause;
            }
            if act.pictures == Some(pictures) && flap.is_none() && act.torn.is_none() {
                break;
            }
        }
        if torn.is_some_and(|torn| torn.stops_behind(packet, is_h265)) {
            break;
        }
    }
    match act.then {
        Then::Change(name) => change(act, out, channels, &track(name), pictures, began),
        Then::Garbage => out.lock().unwrap().write_all(&[b'x'; 100_000]),
        _ => Ok(()),
    }
}

/// The age of a key frame after which the chunk that begins with it has enough pictures and sound: ffprobe cannot analyse a
/// shorter one.
const AFTER_KEY: Duration = Duration::from_millis(600);

/// Whether a key frame or its parameter sets begin in a packet (RFC 6184, RFC 7798).
fn begins_key(packet: &super::media::Packet, is_h265: bool) -> bool {
    let byte = |at: usize| packet.data.get(at).copied().unwrap_or_default();
    if is_h265 {
        let kind = match byte(12) >> 1 & 0x3f {
            49 => byte(14) & 0x3f,
            48 => byte(16) >> 1 & 0x3f,
            kind => kind,
        };
        return matches!(kind, 16..=21 | 32..=34);
    }
    let kind = match byte(12) & 0x1f {
        28 => byte(13) & 0x1f,
        24 => byte(15) & 0x1f,
        kind => kind,
    };
    matches!(kind, 5 | 7 | 8)
}

/// Returns packets of two tracks in turns, the same number of pictures from each, at their own times.
fn flapping<'t>(one: &'t Track, other: &'t Track, pictures: u64) -> Vec<&'t super::media::Packet> {
    let mut all = Vec::new();
    for (parity, track) in [(0, one), (1, other)] {
        let mut ended = 0;
        for packet in &track.packets {
            if ended / pictures % 2 == parity {
                all.push(packet);
            }
            ended += u64::from(packet.ends_picture);
        }
    }
    all.sort_by_key(|packet| packet.at);
    all
}

/// Returns a sender report that pairs this packet's time stamp with that time.
fn sender_report(packet: &[u8], ntp_seconds: u32) -> Vec<u8> {
    let mut report = vec![0x80, 200, 0, 6];
    report.extend_from_slice(&packet[8..12]);
    report.extend_from_slice(&ntp_seconds.to_be_bytes());
    report.extend_from_slice(&[0; 4]);
    report.extend_from_slice(&packet[4..8]);
    report.extend_from_slice(&[0; 8]);
    report
}

/// Continues the same session with other pictures.
fn change(
    act: &Act,
    out: &Mutex<TcpStream>,
    channels: &BTreeMap<usize, u8>,
    other: &Track,
    pictures: u64,
    began: Instant,
) -> std::io::Result<()> {
    let first = track(act.sends[0]);
    let sent = {
        let mut ended = 0;
        first.packets.iter().position(|p| {
            ended += u64::from(p.ends_picture);
            ended == pictures
        })
    };
    let (sequence, stamp, at) = first
        .packets
        .get(sent.unwrap())
        .map(|p| (sequence(&p.data), stamp(&p.data), p.at))
        .unwrap();
    let from = stamp.wrapping_add(6000).wrapping_sub(self::stamp(&other.packets[0].data));
    for (i, packet) in other.packets.iter().enumerate() {
        std::thread::sleep((began + at + packet.at).saturating_duration_since(Instant::now()));
        let mut data = packet.data.clone();
        let number = sequence.wrapping_add(u16::try_from(i + 1).unwrap());
        data[2..4].copy_from_slice(&number.to_be_bytes());
        let time = self::stamp(&data).wrapping_add(from);
        data[4..8].copy_from_slice(&time.to_be_bytes());
        data[8..12].copy_from_slice(&first.packets[0].data[8..12]);
        send(out, channels[&0], &data, act)?;
    }
    Ok(())
}

fn sequence(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[2], packet[3]])
}

fn stamp(packet: &[u8]) -> u32 {
    u32::from_be_bytes([packet[4], packet[5], packet[6], packet[7]])
}

fn send(out: &Mutex<TcpStream>, channel: u8, data: &[u8], act: &Act) -> std::io::Result<()> {
    let length = u16::try_from(data.len()).unwrap().to_be_bytes();
    let mut framed = vec![b'$', channel, length[0], length[1]];
    framed.extend_from_slice(data);
    let mut out = out.lock().unwrap();
    for piece in framed.chunks(act.dribbles.unwrap_or(usize::MAX)) {
        out.write_all(piece)?;
        if act.dribbles.is_some() {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    Ok(())
}

/// The request line and the headers; interleaved RTCP is skipped.
fn read_request(reader: &mut BufReader<TcpStream>) -> std::io::Result<Option<(String, BTreeMap<String, String>)>> {
    loop {
        let buffer = reader.fill_buf()?;
        match buffer.first() {
            None => return Ok(None),
            Some(b'$') => {
                let mut head = [0; 4];
                reader.read_exact(&mut head)?;
                let mut data = vec![0; usize::from(u16::from_be_bytes([head[2], head[3]]))];
                reader.read_exact(&mut data)?;
            }
            Some(_) => break,
        }
    }
    let mut request = String::new();
    reader.read_line(&mut request)?;
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            headers.insert(name.trim().to_lowercase(), value.trim().to_owned());
        }
    }
    let length: usize = headers.get("content-length").and_then(|n| n.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(Some((request.trim().to_owned(), headers)))
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let value = group.iter().fold(0u32, |v, b| v << 8 | u32::from(*b)) << (8 * (3 - group.len()));
        for i in 0..4 {
            let digit = usize::try_from(value >> (18 - 6 * i) & 63).unwrap();
            text.push(if i <= group.len() { char::from(ALPHABET[digit]) } else { '=' });
        }
    }
    text
}
