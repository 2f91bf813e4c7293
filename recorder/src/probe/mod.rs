//! `gcstreamer-recorder probe URL`: measures what a camera sends, and advises what to change about it before it is recorded.
//!
//! - [`run`]: asks the camera, one connection after the other.
//! - [`challenge`] PURE: what a 401 asks for.
//! - [`findings`] PURE: texts and advice.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::camera::measure::{self, Measured};
use crate::camera::sink::Storage;
use crate::config::{Config, Faulty, Scheme, Surroundings, parse};

pub mod challenge;
pub mod findings;

use challenge::Authentication;
use findings::Findings;

/// How long to wait for one answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Most bytes of an answer that are read.
const LONGEST: u64 = 16 << 10;

/// The arguments of a probe.
#[derive(Clone, Debug, Default)]
pub struct Question {
    /// Keys of `[[camera]]` and their values.
    pub keys: Vec<(&'static str, String)>,
    /// How long to measure pictures.
    pub time: Duration,
}

impl Question {
    /// Checks the keys like those of a file.
    ///
    /// # Errors
    /// Every fault.
    pub fn config(&self) -> Result<Config, Faulty> {
        let mut text = "bucket = \"probe\"\nlisten = \"\"\n[[camera]]\nid = \"probe\"\n".to_owned();
        for (key, value) in &self.keys {
            text.push_str(&format!("{key} = {}\n", toml_text(value)));
        }
        let surroundings = Surroundings {
            folder: std::env::current_dir().unwrap_or_default(),
            state_directory: None,
            looks_at_files: true,
            reads_keys: false,
        };
        parse(&text, &surroundings).map_err(|mut faults| {
            // The text was generated: its lines mean nothing to the user.
            faults.iter_mut().for_each(|fault| (fault.line, fault.column) = (1, 1));
            Faulty {
                file: "probe".to_owned(),
                faults,
            }
        })
    }
}

fn toml_text(text: &str) -> String {
    let escaped: String = text
        .chars()
        .map(|c| match c {
            '"' | '\\' => format!("\\{c}"),
            c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
            c => c.to_string(),
        })
        .collect();
    format!("\"{escaped}\"")
}

/// Probes a camera. Blocks for `time` and, usually, some seconds more.
///
/// # Errors
/// GStreamer cannot be started.
pub fn run(config: &Config, time: Duration) -> Result<Findings, gst::glib::Error> {
    gst::init()?;
    let Some(camera) = config.cameras.first() else {
        return Ok(Findings::default());
    };
    let authentication = match camera.address.scheme() {
        // Without credentials, so that it cannot lock an account.
        Scheme::Rtsp => describe(camera.address.secret()).map(|answer| Authentication::of_answer(&answer)),
        _ => None,
    };
    let storage = Arc::new(Storage::of(config, "probe"));
    // After `describe` has closed its connection: cameras allow few sessions.
    let measured: Measured = measure::measure(camera, &storage, time);
    Ok(Findings {
        camera: camera.address.to_string(),
        authentication,
        measured,
    })
}

/// Sends a DESCRIBE without credentials and returns the answer, up to its blank line; `None` if the camera cannot be reached.
fn describe(url: &str) -> Option<String> {
    let parsed = url::Url::parse(url).ok()?;
    // `Url` has IPv6 addresses in brackets, which name resolution does not accept.
    let host = parsed.host_str()?.trim_matches(['[', ']']);
    let address = (host, parsed.port().unwrap_or(554)).to_socket_addrs().ok()?.next()?;
    let mut stream = TcpStream::connect_timeout(&address, ANSWER).ok()?;
    stream.set_read_timeout(Some(ANSWER)).ok()?;
    let agent = concat!("gcstreamer/", env!("CARGO_PKG_VERSION"));
    let request = format!("DESCRIBE {url} RTSP/1.0\r\nCSeq: 1\r\nUser-Agent: {agent}\r\nAccept: application/sdp\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    let until = Instant::now() + ANSWER;
    let mut block = [0; 1024];
    // Bounded in size and time: an answer may come byte by byte and never end.
    while !answer.windows(4).any(|end| end == b"\r\n\r\n") && (answer.len() as u64) < LONGEST && Instant::now() < until {
        match stream.read(&mut block) {
            Ok(0) | Err(_) => break,
            Ok(read) => answer.extend_from_slice(block.get(..read)?),
        }
    }
    Some(String::from_utf8_lossy(&answer).into_owned())
}
