//! A storage that takes every upload and keeps nothing, or answers 503. Standard library alone, a thread per connection.
//!
//! It knows what `google-cloud-storage` sends: `POST /upload/storage/v1/b/BUCKET/o`, multipart, mostly in HTTP chunks.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What is counted, and how it answers.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Every upload is answered 503, after it was read.
    pub(crate) refuse: AtomicBool,
    /// Connections since the start.
    pub(crate) connections: AtomicU64,
    /// Most connections at a time.
    pub(crate) most_open: AtomicU64,
    open: AtomicU64,
    /// Uploads taken.
    pub(crate) stored: AtomicU64,
    /// Uploads answered 503.
    pub(crate) refused: AtomicU64,
    /// Bytes of the objects taken.
    pub(crate) bytes: AtomicU64,
}

/// A running server; it ends with the process.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) endpoint: String,
    pub(crate) counters: Arc<Counters>,
}

impl Server {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let counters = Arc::new(Counters::default());
        let shared = Arc::clone(&counters);
        std::thread::Builder::new()
            .name("server".into())
            .spawn(move || {
                for stream in listener.incoming().flatten() {
                    let shared = Arc::clone(&shared);
                    let handler = move || {
                        shared.connections.fetch_add(1, Ordering::Relaxed);
                        let open = shared.open.fetch_add(1, Ordering::Relaxed) + 1;
                        shared.most_open.fetch_max(open, Ordering::Relaxed);
                        let _ = serve(stream, &shared);
                        shared.open.fetch_sub(1, Ordering::Relaxed);
                    };
                    let _ = std::thread::Builder::new().name("server".into()).spawn(handler);
                }
            })
            .unwrap();
        Self { endpoint, counters }
    }
}

fn serve(stream: TcpStream, counters: &Counters) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::with_capacity(256 << 10, stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let header = |name: &str| {
            let line = head
                .lines()
                .find(|l| l.len() > name.len() && l.is_char_boundary(name.len()) && l[..name.len()].eq_ignore_ascii_case(name));
            line.map(|l| l[name.len()..].trim_start_matches(':').trim())
        };
        let body = match header("content-length").and_then(|n| n.parse().ok()) {
            Some(length) => {
                let mut body = Body::default();
                body.take(&mut reader, length)?;
                body
            }
            None if header("transfer-encoding").is_some() => Body::chunked(&mut reader)?,
            None => Body::default(),
        };
        let (status, json) = if counters.refuse.load(Ordering::Relaxed) {
            counters.refused.fetch_add(1, Ordering::Relaxed);
            (
                "503 Service Unavailable",
                r#"{"error":{"code":503,"message":"the bench says no"}}"#.to_owned(),
            )
        } else {
            let boundary = header("content-type")
                .and_then(|t| t.split_once("boundary="))
                .map_or(0, |(_, b)| b.trim_matches('"').len());
            let size = body.media(boundary);
            counters.stored.fetch_add(1, Ordering::Relaxed);
            counters.bytes.fetch_add(size, Ordering::Relaxed);
            let (bucket, name) = asked(&head).unwrap_or_default();
            (
                "200 OK",
                format!(r#"{{"kind":"storage#object","bucket":"{bucket}","name":"{name}","generation":"1","size":"{size}"}}"#),
            )
        };
        write!(
            writer,
            "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{json}",
            json.len()
        )?;
    }
}

/// Bucket and name of the object that a request is about; an answer about another one counts as no answer.
fn asked(head: &str) -> Option<(String, String)> {
    let (path, query) = head.split(' ').nth(1)?.split_once('?')?;
    let bucket = path.rsplit('/').nth(1)?;
    let name = query.split('&').find_map(|field| field.strip_prefix("name="))?;
    Some((decoded(bucket), decoded(name)))
}

/// Takes the percent signs away; the benches' names are ASCII.
fn decoded(text: &str) -> String {
    let mut parts = text.split('%');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        out.push(code.map_or('%', char::from));
        out.push_str(part.get(2..).unwrap_or_default());
    }
    out
}

/// What is kept of a body: its length, and its first bytes.
#[derive(Default)]
struct Body {
    first: Vec<u8>,
    length: u64,
}

impl Body {
    fn chunked(reader: &mut impl BufRead) -> std::io::Result<Self> {
        let mut body = Self::default();
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = u64::from_str_radix(line.trim(), 16).map_err(std::io::Error::other)?;
            body.take(reader, size)?;
            reader.read_exact(&mut [0; 2])?;
            if size == 0 {
                return Ok(body);
            }
        }
    }

    fn take(&mut self, reader: &mut impl BufRead, mut left: u64) -> std::io::Result<()> {
        self.length += left;
        while left > 0 {
            let seen = reader.fill_buf()?;
            if seen.is_empty() {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let n = seen.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            let missing = 16384usize.saturating_sub(self.first.len()).min(n);
            self.first.extend_from_slice(&seen[..missing]);
            reader.consume(n);
            left -= n as u64;
        }
        Ok(())
    }

    /// Bytes of the second part of a multipart body: all but two heads and the closing boundary.
    fn media(&self, boundary: usize) -> u64 {
        let find = |from: usize| {
            self.first[from..]
                .windows(4)
                .position(|w| w == b"\r\n\r\n")
                .map(|i| from + i + 4)
        };
        let head = find(0).and_then(find).unwrap_or(0) as u64;
        self.length
            .saturating_sub(head + "\r\n----\r\n".len() as u64 + boundary as u64)
    }
}
