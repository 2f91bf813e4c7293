//! The wire of the scripted server: connections, HTTP/1.1, and how the script's faults look from outside.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Answer, Fault, Object, QUANTUM, Request, Session, Shared, base64, resource};

pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let tls = shared.options.tls.clone().map(tokio_rustls::TlsAcceptor::from);
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted { Ok((stream, _)) => stream, Err(_) => continue },
            () = shared.stop.notified() => return,
        };
        let (shared, tls) = (shared.clone(), tls.clone());
        tokio::spawn(async move {
            let number = {
                let mut state = shared.state.lock().unwrap();
                state.connections += 1;
                state.open += 1;
                state.connections
            };
            let reset = Reset(set_linger(&stream));
            match tls {
                None => serve(stream, &shared, number, &reset).await,
                Some(tls) => match tls.accept(stream).await {
                    Ok(stream) => serve(stream, &shared, number, &reset).await,
                    Err(_) => Ok(()),
                },
            }
            .ok();
            shared.state.lock().unwrap().open -= 1;
        });
    }
}

/// A second handle on the socket, through which closing it becomes a reset.
struct Reset(Option<std::net::TcpStream>);

fn set_linger(stream: &TcpStream) -> Option<std::net::TcpStream> {
    use std::os::fd::AsFd;
    let _ = stream.set_nodelay(true);
    stream.as_fd().try_clone_to_owned().ok().map(Into::into)
}

impl Reset {
    /// Makes the close of the connection an RST.
    fn arm(&self) {
        if let Some(stream) = self.0.as_ref().and_then(|stream| stream.try_clone().ok()) {
            stream.set_nonblocking(true).unwrap();
            // The only stable way to SO_LINGER is tokio's; it sets the option of the shared socket.
            #[allow(deprecated)]
            let _ = TcpStream::from_std(stream).map(|stream| stream.set_linger(Some(Duration::ZERO)));
        }
    }
}

/// One connection with what is read of it and not used.
struct Connection<'a, S> {
    stream: S,
    read: Vec<u8>,
    shared: &'a Shared,
    record: usize,
}

enum Framing {
    None,
    Length(usize),
    Chunked,
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, shared: &Shared, number: usize, reset: &Reset) -> io::Result<()> {
    let mut connection = Connection {
        stream,
        read: Vec::new(),
        shared,
        record: 0,
    };
    while let Some((request, framing)) = connection.head(number).await? {
        if !connection.handle(request, framing, reset).await? {
            break;
        }
    }
    connection.stream.shutdown().await
}

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<'_, S> {
    async fn fill(&mut self) -> io::Result<bool> {
        let mut buffer = vec![0; 256 << 10];
        let count = self.stream.read(&mut buffer).await?;
        self.read.extend_from_slice(&buffer[..count]);
        Ok(count > 0)
    }

    async fn head(&mut self, connection: usize) -> io::Result<Option<(Request, Framing)>> {
        let end = loop {
            if let Some(end) = find(&self.read, b"\r\n\r\n") {
                break end;
            }
            if !self.fill().await? {
                return Ok(None);
            }
        };
        let head = String::from_utf8_lossy(&self.read[..end]).into_owned();
        self.read.drain(..end + 4);
        let mut lines = head.split("\r\n");
        let mut first = lines.next().unwrap_or_default().split(' ');
        let method = first.next().unwrap_or_default().to_owned();
        let target = first.next().unwrap_or_default().to_owned();
        let headers: Vec<(String, String)> = lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
            .collect();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let query = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (decode(key), decode(&value.replace('+', " "))))
            .collect();
        let path = path.to_owned();
        let request = Request {
            method,
            target,
            path,
            query,
            headers,
            at: Instant::now(),
            body_bytes: 0,
            abandoned: false,
            connection,
        };
        let framing = match (request.header("transfer-encoding"), request.header("content-length")) {
            (Some(_), _) => Framing::Chunked,
            (None, Some(length)) => Framing::Length(length.parse().unwrap_or(0)),
            (None, None) => Framing::None,
        };
        let mut state = self.shared.state.lock().unwrap();
        state.requests.push(request.clone());
        self.record = state.requests.len() - 1;
        drop(state);
        Ok(Some((request, framing)))
    }

    /// Reads the body, `limit` bytes of it at most, at `rate` bytes a second.
    async fn body(&mut self, framing: Framing, limit: usize, rate: Option<usize>) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let mut length = match framing {
                Framing::None => return Ok(body),
                Framing::Length(length) => length,
                Framing::Chunked => {
                    let line = self.line().await?;
                    usize::from_str_radix(line.trim(), 16).map_err(io::Error::other)?
                }
            };
            let last = length == 0;
            while length > 0 {
                if body.len() >= limit {
                    return Ok(body);
                }
                if self.read.is_empty() && !self.fill().await? {
                    self.shared.state.lock().unwrap().requests[self.record].abandoned = true;
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let count = self.read.len().min(length).min(limit - body.len());
                body.extend(self.read.drain(..count));
                length -= count;
                self.shared.state.lock().unwrap().requests[self.record].body_bytes = body.len();
                if let Some(rate) = rate {
                    tokio::time::sleep(Duration::from_secs_f64(count as f64 / rate as f64)).await;
                }
            }
            match framing {
                Framing::Chunked => {
                    self.line().await?;
                    if last {
                        return Ok(body);
                    }
                }
                _ => return Ok(body),
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.read, b"\r\n") {
                let line = String::from_utf8_lossy(&self.read[..end]).into_owned();
                self.read.drain(..end + 2);
                return Ok(line);
            }
            if !self.fill().await? {
                self.shared.state.lock().unwrap().requests[self.record].abandoned = true;
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Silence until the client goes away.
    async fn stall(&mut self) -> io::Result<bool> {
        let mut buffer = [0; 1];
        // Unread body stands before the end of the connection, so that it may not be seen: an hour is for ever.
        let gone = tokio::time::timeout(Duration::from_secs(3600), async {
            self.stream.read(&mut buffer).await.unwrap_or(0) == 0
        });
        if gone.await == Ok(true) {
            self.shared.state.lock().unwrap().requests[self.record].abandoned = true;
        }
        Ok(false)
    }

    /// Silence in which nothing is read, so that the client's buffers fill up.
    async fn stall_unread(&mut self) -> io::Result<bool> {
        tokio::time::sleep(Duration::from_secs(3600)).await;
        Ok(false)
    }

    async fn answer(&mut self, status: u16, headers: &[(String, String)], body: &str) -> io::Result<bool> {
        self.answer_part(status, headers, body, body.len()).await
    }

    async fn answer_part(&mut self, status: u16, headers: &[(String, String)], body: &str, part: usize) -> io::Result<bool> {
        let now = Timestamp::try_from(self.shared.state.lock().unwrap().now()).unwrap();
        let date = DateTimePrinter::new().timestamp_to_rfc9110_string(&now).unwrap();
        let mut text = format!("HTTP/1.1 {status} Scripted\r\nDate: {date}\r\n");
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if status != 204 {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        text.push_str(&body[..part]);
        self.stream.write_all(text.as_bytes()).await?;
        self.stream.flush().await?;
        Ok(true)
    }

    async fn compressed(&mut self, status: u16, body: &str) -> io::Result<bool> {
        let body = gzip(body.as_bytes());
        let text = format!(
            "HTTP/1.1 {status} Scripted\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.stream.write_all(text.as_bytes()).await?;
        self.stream.write_all(&body).await?;
        self.stream.flush().await?;
        Ok(true)
    }

    async fn json(&mut self, (status, body): (u16, String)) -> io::Result<bool> {
        self.answer(status, &[("Content-Type".into(), "application/json".into())], &body)
            .await
    }

    /// Serves a request; `false` ends the connection.
    async fn handle(&mut self, request: Request, framing: Framing, reset: &Reset) -> io::Result<bool> {
        let routed = {
            let mut state = self.shared.state.lock().unwrap();
            state.routes.get_mut(&request.path).map(|queue| {
                if queue.len() > 1 {
                    queue.pop_front().unwrap()
                } else {
                    queue[0].clone()
                }
            })
        };
        if let Some(answer) = routed {
            self.body(framing, usize::MAX, None).await?;
            if answer.status == 0 {
                return self.stall().await;
            }
            return self.answer(answer.status, &answer.headers, &answer.body).await;
        }
        if !request.is_upload() {
            self.body(framing, usize::MAX, None).await?;
            return self.object_request(&request).await;
        }
        let fault = self.shared.state.lock().unwrap().faults.pop_front().unwrap_or(Fault::Pass);
        let mut rate = None;
        match fault {
            Fault::EarlyAnswer(answer) => {
                self.answer(answer.status, &answer.headers, &answer.body).await?;
                // Closing with unread bytes would be an RST that takes the answer along.
                let _ = tokio::time::timeout(Duration::from_secs(2), self.body(framing, usize::MAX, None)).await;
                return Ok(false);
            }
            Fault::ResetBefore => {
                reset.arm();
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Fault::StallBefore => return self.stall_unread().await,
            Fault::StallIn(bytes) => {
                self.body(framing, bytes, None).await?;
                return self.stall_unread().await;
            }
            Fault::ResetIn(bytes) => {
                let body = self.body(framing, bytes, None).await?;
                self.keep_quanta(&request, &body);
                reset.arm();
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Fault::Informational(ref all) => {
                for status in all {
                    let text = format!("HTTP/1.1 {status} Scripted\r\nLink: </x>; rel=preload\r\n\r\n");
                    self.stream.write_all(text.as_bytes()).await?;
                    self.stream.flush().await?;
                }
            }
            Fault::SlowDrain { bytes_per_second } => rate = Some(bytes_per_second),
            _ => {}
        }
        let body = self.body(framing, usize::MAX, rate).await?;
        match fault {
            Fault::Answer(answer) => return self.answer(answer.status, &answer.headers, &answer.body).await,
            Fault::Compressed(answer) => return self.compressed(answer.status, &answer.body).await,
            Fault::ResetAfterBody { stored: false } => {
                reset.arm();
                return Err(io::ErrorKind::ConnectionReset.into());
            }
            Fault::StallAfterBody { stored: false } => return self.stall().await,
            _ => {}
        }
        let (status, headers, mut reply) = self.upload(&request, body, matches!(fault, Fault::ShortObject));
        match fault {
            Fault::ResetAfterBody { .. } => {
                reset.arm();
                Err(io::ErrorKind::ConnectionReset.into())
            }
            Fault::StallAfterBody { .. } => self.stall().await,
            Fault::TruncatedReply => self
                .answer_part(status, &headers, &reply, reply.len() / 2)
                .await
                .map(|_| false),
            Fault::CompressedReply => self.compressed(status, &reply).await,
            Fault::WrongCrcInReply => {
                let mut json: Value = serde_json::from_str(&reply).unwrap();
                json["crc32c"] = "SZYC0g==".into();
                reply = json.to_string();
                self.answer(status, &headers, &reply).await
            }
            _ => self.answer(status, &headers, &reply).await,
        }
    }

    /// What a session keeps of a body that broke off.
    fn keep_quanta(&self, request: &Request, body: &[u8]) {
        if request.method != "PUT" {
            return;
        }
        let mut state = self.shared.state.lock().unwrap();
        let session = request.query.get("upload_id").and_then(|id| state.sessions.get_mut(id));
        if let (Some(session), Some((start, _))) = (session, request.header("content-range").and_then(content_range)) {
            session.data.truncate(start);
            session.data.extend_from_slice(&body[..body.len() / QUANTUM * QUANTUM]);
        }
    }

    fn upload(&self, request: &Request, body: Vec<u8>, short: bool) -> (u16, Vec<(String, String)>, String) {
        let json = vec![("Content-Type".to_owned(), "application/json".to_owned())];
        let mut state = self.shared.state.lock().unwrap();
        if request.method == "PUT" {
            let (status, headers, body) = state.session_put(request, body);
            return (status, headers.unwrap_or(json), body);
        }
        let bucket = decode(
            request
                .path
                .strip_prefix("/upload/storage/v1/b/")
                .and_then(|rest| rest.strip_suffix("/o"))
                .unwrap_or_default(),
        );
        let name = request.query.get("name").cloned().unwrap_or_default();
        if request.query.get("uploadType").map(String::as_str) == Some("resumable") {
            let id = format!("session-{}", state.sessions.len());
            let base = match request.header("host").filter(|_| self.shared.options.location_from_host) {
                Some(host) => format!("http://{host}"),
                None => self.shared.base.clone(),
            };
            let location = format!("{base}/upload/storage/v1/b/{bucket}/o?uploadType=resumable&upload_id={id}");
            let meta = serde_json::from_slice(&body).unwrap_or_else(|_| json!({}));
            state.sessions.insert(
                id,
                Session {
                    bucket,
                    name,
                    query: request.query.clone(),
                    meta,
                    data: Vec::new(),
                    done: None,
                },
            );
            return (200, vec![("Location".to_owned(), location)], String::new());
        }
        let (meta, mut data) = match multipart(request.header("content-type").unwrap_or_default(), &body) {
            Ok(parts) => parts,
            Err(text) => return (400, json, Answer::error(400, &text).body),
        };
        let mut meta = meta;
        if short {
            data.pop();
            meta.as_object_mut().unwrap().remove("crc32c");
        }
        let (status, body) = state.finish(&bucket, &name, &request.query, data, meta);
        (status, json, body)
    }

    async fn object_request(&mut self, request: &Request) -> io::Result<bool> {
        let fault = {
            let mut state = self.shared.state.lock().unwrap();
            state.object_faults.pop_front().or_else(|| state.object_fault.clone())
        };
        if let Some(answer) = fault {
            if answer.status == 0 {
                return self.stall().await;
            }
            return self.answer(answer.status, &answer.headers, &answer.body).await;
        }
        let not_found = || (404, Answer::error(404, "No such object").body);
        let Some((bucket, rest)) = request
            .path
            .strip_prefix("/storage/v1/b/")
            .and_then(|rest| rest.split_once("/o"))
        else {
            return self.json(not_found()).await;
        };
        let (bucket, name) = (decode(bucket), decode(rest.trim_start_matches('/')));
        if name.is_empty() {
            let page = self.shared.state.lock().unwrap().page(&bucket, &request.query);
            return self.json((200, page.to_string())).await;
        }
        let key = (bucket.clone(), name.clone());
        let wanted = request.query.get("generation").and_then(|text| text.parse::<i64>().ok());
        let object = self.shared.state.lock().unwrap().objects.get(&key).cloned();
        let Some(object) = object.filter(|object| wanted.is_none_or(|wanted| wanted == object.generation)) else {
            return self.json(not_found()).await;
        };
        if request.method == "DELETE" {
            self.shared.state.lock().unwrap().objects.remove(&key);
            return self.answer(204, &[], "").await;
        }
        if request.query.get("alt").map(String::as_str) == Some("media") {
            return self.media(request, &object).await;
        }
        self.json((200, resource(&bucket, &name, &object).to_string())).await
    }

    async fn media(&mut self, request: &Request, object: &Object) -> io::Result<bool> {
        let size = object.data.len();
        let range = request
            .header("range")
            .and_then(|text| text.strip_prefix("bytes=")?.split_once('-'));
        let range = range.map(|(from, to)| {
            (
                from.parse().unwrap_or(0),
                to.parse().map_or(size, |to: usize| (to + 1).min(size)),
            )
        });
        let (from, to) = range.unwrap_or((0, size));
        if from > to {
            return self.json((416, String::new())).await;
        }
        let mut head = format!(
            "HTTP/1.1 {} Scripted\r\nContent-Length: {}\r\nx-goog-generation: {}\r\nx-goog-stored-content-length: {size}\r\nx-goog-hash: crc32c={}\r\n",
            if range.is_some() { 206 } else { 200 },
            to - from,
            object.generation,
            base64(&object.crc32c.to_be_bytes()),
        );
        if range.is_some() {
            head.push_str(&format!("Content-Range: bytes {from}-{}/{size}\r\n", to.saturating_sub(1)));
        }
        head.push_str("\r\n");
        self.stream.write_all(head.as_bytes()).await?;
        self.stream.write_all(&object.data[from..to]).await?;
        self.stream.flush().await?;
        Ok(true)
    }
}

/// RFC 1952 with one stored block of RFC 1951: what is said is the same, and no JSON.
fn gzip(text: &[u8]) -> Vec<u8> {
    let len = u16::try_from(text.len()).unwrap();
    let mut crc = !0u32;
    for byte in text {
        crc ^= u32::from(*byte);
        (0..8).for_each(|_| crc = (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()));
    }
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    out.extend(len.to_le_bytes().into_iter().chain((!len).to_le_bytes()));
    out.extend_from_slice(text);
    out.extend((!crc).to_le_bytes().into_iter().chain(u32::from(len).to_le_bytes()));
    out
}

/// `bytes 0-9/10`: the start and the total.
pub(super) fn content_range(text: &str) -> Option<(usize, Option<usize>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()))
}

/// The metadata and the media of a `multipart/related` body of exactly two parts.
fn multipart(content_type: &str, body: &[u8]) -> Result<(Value, Vec<u8>), String> {
    let boundary = content_type.split_once("boundary=").ok_or("no boundary")?.1.trim_matches('"');
    let delimiter = format!("\r\n--{boundary}");
    let mut parts = Vec::new();
    let mut rest = body.strip_prefix(&delimiter.as_bytes()[2..]).ok_or("no first boundary")?;
    while !rest.starts_with(b"--") {
        let head = find(rest, b"\r\n\r\n").ok_or("a part without a header")?;
        let end = find(&rest[head + 4..], delimiter.as_bytes()).ok_or("a part without an end")? + head + 4;
        parts.push(&rest[head + 4..end]);
        rest = &rest[end + delimiter.len()..];
    }
    let [meta, media] = parts[..] else {
        return Err(format!("{} parts where 2 are expected", parts.len()));
    };
    Ok((
        serde_json::from_slice(meta).map_err(|error| error.to_string())?,
        media.to_vec(),
    ))
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    // Skips from one candidate for the first byte to the next: bodies are megabytes.
    let first = *what.first()?;
    let mut from = 0;
    while let Some(at) = text.get(from..)?.iter().position(|byte| *byte == first) {
        if text[from + at..].starts_with(what) {
            return Some(from + at);
        }
        from += at + 1;
    }
    None
}

fn decode(text: &str) -> String {
    let (mut out, mut bytes) = (Vec::new(), text.bytes());
    while let Some(byte) = bytes.next() {
        let hex = (byte == b'%').then(|| [bytes.next(), bytes.next()].map(Option::unwrap_or_default));
        out.push(hex.map_or(byte, |hex| {
            u8::from_str_radix(&String::from_utf8_lossy(&hex), 16).unwrap_or(b'?')
        }));
    }
    String::from_utf8_lossy(&out).into_owned()
}
