//! A server of RTMP that plays FLV to all who ask: as much of the protocol as that takes, by its specification. It shares no code with
//! GStreamer.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

/// Bytes of a chunk that we send.
const CHUNK: usize = 60_000;
const SET_CHUNK_SIZE: u8 = 1;
const USER_CONTROL: u8 = 4;
const WINDOW: u8 = 5;
const PEER_BANDWIDTH: u8 = 6;
const COMMAND: u8 = 20;

/// Serves; `flv` begins a stream of FLV for each player.
pub(crate) fn serve<R: Read>(flv: impl Fn() -> R + Clone + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let flv = flv.clone();
            std::thread::spawn(move || drop(Player::new(stream).run(flv)));
        }
    });
    port
}

#[derive(Clone, Default)]
struct Header {
    length: usize,
    kind: u8,
}

struct Player {
    stream: TcpStream,
    headers: BTreeMap<u8, Header>,
    partial: BTreeMap<u8, Vec<u8>>,
    chunk: usize,
}

impl Player {
    fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            headers: BTreeMap::new(),
            partial: BTreeMap::new(),
            chunk: 128,
        }
    }

    fn read<const N: usize>(&mut self) -> std::io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn run<R: Read>(&mut self, flv: impl Fn() -> R) -> std::io::Result<()> {
        let [_version] = self.read::<1>()?;
        let theirs = self.read::<1536>()?;
        self.stream.write_all(&[&[3u8][..], &[0; 1536], &theirs].concat())?;
        self.read::<1536>()?;
        loop {
            let (kind, payload) = self.message()?;
            match kind {
                SET_CHUNK_SIZE => self.chunk = usize::try_from(u32::from_be_bytes(payload[..4].try_into().unwrap())).unwrap(),
                COMMAND => {
                    let length = usize::from(u16::from_be_bytes([payload[1], payload[2]]));
                    let name = String::from_utf8_lossy(&payload[3..3 + length]).into_owned();
                    let transaction = f64::from_be_bytes(payload[4 + length..12 + length].try_into().unwrap());
                    if self.command(&name, transaction)? {
                        return self.play(flv());
                    }
                }
                _ => {}
            }
        }
    }

    /// Whether it is to play now.
    fn command(&mut self, name: &str, transaction: f64) -> std::io::Result<bool> {
        match name {
            "connect" => {
                self.send(2, WINDOW, 0, 0, &2_500_000u32.to_be_bytes())?;
                self.send(2, PEER_BANDWIDTH, 0, 0, &[&2_500_000u32.to_be_bytes()[..], &[2]].concat())?;
                self.send(2, SET_CHUNK_SIZE, 0, 0, &u32::try_from(CHUNK).unwrap().to_be_bytes())?;
                let server = object(&[("fmsVer", "FMS/3,0,1,123")]);
                let status = object(&[
                    ("level", "status"),
                    ("code", "NetConnection.Connect.Success"),
                    ("description", "connected"),
                ]);
                self.send(
                    3,
                    COMMAND,
                    0,
                    0,
                    &[text("_result"), number(transaction), server, status].concat(),
                )?;
            }
            "createStream" => self.send(
                3,
                COMMAND,
                0,
                0,
                &[text("_result"), number(transaction), vec![5], number(1.0)].concat(),
            )?,
            "play" => {
                self.send(2, USER_CONTROL, 0, 0, &[0, 0, 0, 0, 0, 1])?;
                let status = object(&[
                    ("level", "status"),
                    ("code", "NetStream.Play.Start"),
                    ("description", "playing"),
                ]);
                self.send(3, COMMAND, 1, 0, &[text("onStatus"), number(0.0), vec![5], status].concat())?;
                return Ok(true);
            }
            _ => {}
        }
        Ok(false)
    }

    /// Each tag of FLV is a message.
    fn play(&mut self, mut flv: impl Read) -> std::io::Result<()> {
        flv.read_exact(&mut [0; 13])?;
        loop {
            let mut head = [0; 11];
            flv.read_exact(&mut head)?;
            let length = usize::from(head[1]) << 16 | usize::from(head[2]) << 8 | usize::from(head[3]);
            let time = u32::from_be_bytes([head[7], head[4], head[5], head[6]]);
            let mut data = vec![0; length + 4];
            flv.read_exact(&mut data)?;
            self.send(6, head[0], 1, time, &data[..length])?;
        }
    }

    fn send(&mut self, channel: u8, kind: u8, stream: u32, time: u32, payload: &[u8]) -> std::io::Result<()> {
        assert!(time < 0x00ff_ffff);
        let length = u32::try_from(payload.len()).unwrap();
        let mut out = vec![channel];
        out.extend_from_slice(&time.to_be_bytes()[1..]);
        out.extend_from_slice(&length.to_be_bytes()[1..]);
        out.push(kind);
        out.extend_from_slice(&stream.to_le_bytes());
        for (i, chunk) in payload.chunks(CHUNK).enumerate() {
            if i > 0 {
                out.push(0xc0 | channel);
            }
            out.extend_from_slice(chunk);
        }
        self.stream.write_all(&out)
    }

    /// One whole message: its kind and payload.
    fn message(&mut self) -> std::io::Result<(u8, Vec<u8>)> {
        loop {
            let [first] = self.read::<1>()?;
            let channel = first & 0x3f;
            assert!(channel >= 2, "a channel of more than one byte");
            let mut header = self.headers.get(&channel).cloned().unwrap_or_default();
            let mut time = [0; 3];
            if first >> 6 < 3 {
                time = self.read::<3>()?;
            }
            if first >> 6 < 2 {
                let [a, b, c, kind] = self.read::<4>()?;
                header.length = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
                header.kind = kind;
            }
            if first >> 6 == 0 {
                self.read::<4>()?;
            }
            if time == [255; 3] {
                self.read::<4>()?;
            }
            let partial = self.partial.entry(channel).or_default();
            let missing = (header.length - partial.len()).min(self.chunk);
            let at = partial.len();
            partial.resize(at + missing, 0);
            self.stream.read_exact(&mut partial[at..])?;
            let is_whole = partial.len() == header.length;
            self.headers.insert(channel, header.clone());
            if is_whole {
                return Ok((header.kind, self.partial.remove(&channel).unwrap()));
            }
        }
    }
}

fn text(text: &str) -> Vec<u8> {
    [&[2][..], &u16::try_from(text.len()).unwrap().to_be_bytes(), text.as_bytes()].concat()
}

fn number(number: f64) -> Vec<u8> {
    [&[0][..], &number.to_be_bytes()].concat()
}

fn object(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = vec![3];
    for (name, value) in fields {
        out.extend_from_slice(&text(name)[1..]);
        out.extend_from_slice(&text(value));
    }
    out.extend_from_slice(&[0, 0, 9]);
    out
}
