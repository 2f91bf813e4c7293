//! A server between the dashboard and the bucket whose listings begin with an empty page, as those of Cloud Storage may: only the token for the
//! next page says that there is more.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// The token of the page behind the empty one.
const TOKEN: &str = "pageToken=behind-the-empty-page";

/// It serves until the tests end.
pub struct EmptyPages {
    address: SocketAddr,
}

impl EmptyPages {
    pub fn in_front_of(bucket: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || serve(stream, bucket));
            }
        });
        Self { address }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Serves one request of a connection.
fn serve(mut stream: TcpStream, bucket: SocketAddr) {
    let mut head = String::new();
    for line in BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok) {
        if line.is_empty() {
            break;
        }
        if !line.to_ascii_lowercase().starts_with("connection:") {
            head.push_str(&format!("{line}\r\n"));
        }
    }
    let first = head.lines().next().unwrap_or_default();
    let mut answer = Vec::new();
    if first.contains("/o?") && !first.contains("pageToken=") {
        let body = format!("{{\"nextPageToken\":\"{}\"}}", TOKEN.split('=').nth(1).unwrap());
        let length = body.len();
        answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        )
        .into_bytes();
    } else {
        let mut to = TcpStream::connect(bucket).unwrap();
        let head = head.replace(&format!("&{TOKEN}"), "");
        write!(to, "{head}\r\n").unwrap();
        // It keeps the connection, so the length tells where the answer ends.
        let mut reader = BufReader::new(to);
        let mut length = 0;
        while !answer.ends_with(b"\r\n\r\n") {
            let mut line = String::new();
            assert!(reader.read_line(&mut line).unwrap() > 0, "an answer without an end");
            if let Some(bytes) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                length = bytes.trim().parse().unwrap();
            }
            let is_first = answer.is_empty();
            answer.extend_from_slice(line.as_bytes());
            if is_first {
                answer.extend_from_slice(b"Connection: close\r\n");
            }
        }
        reader.take(length).read_to_end(&mut answer).unwrap();
    }
    let _ = stream.write_all(&answer);
}
