//! What the lines are run against: real servers and senders in processes of their own, ended by their own id.

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

/// Long enough for a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(40);

/// H.264 with a key frame each second and AAC, at the pace of a camera, for ffmpeg.
const LIVE: &str = "-nostdin -loglevel error -re -f lavfi -i testsrc=size=320x240:rate=15 -f lavfi -i sine=sample_rate=48000 \
     -c:v libx264 -preset ultrafast -tune zerolatency -g 15 -pix_fmt yuv420p -c:a aac";

/// A process that ends with its test.
pub struct Peer(Child);

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Peer {
    fn start(command: &mut Command) -> Self {
        let what = format!("{command:?}");
        Self(command.stdin(Stdio::null()).spawn().unwrap_or_else(|e| panic!("{what}: {e}")))
    }

    /// Starts it and waits for its line `READY PORT`.
    fn ready(command: &mut Command) -> (Self, u16) {
        let mut peer = Self::start(command.stdout(Stdio::piped()));
        let mut out = BufReader::new(peer.0.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let port = line.strip_prefix("READY ").and_then(|p| p.trim().parse().ok());
        drain(out);
        let port = port.unwrap_or_else(|| panic!("{command:?} said {line:?}"));
        (peer, port)
    }

    /// The demo's camera with every combination of codecs, each at `/VIDEO-AUDIO`.
    pub fn cameras() -> (Self, u16) {
        Self::ready(python("scripts/lib/camera.py").args([
            "--matrix",
            "--width",
            "320",
            "--height",
            "240",
            "--fps",
            "15",
            "--kbps",
            "300",
            "--key-interval",
            "15",
        ]))
    }

    /// RTP with H.264, payload type 96.
    pub fn rtp(port: u16) -> Self {
        let line = format!(
            "-q videotestsrc is-live=true ! video/x-raw,format=I420,width=320,height=240,framerate=15/1 \
             ! x264enc tune=zerolatency speed-preset=ultrafast key-int-max=15 ! rtph264pay pt=96 config-interval=-1 \
             ! udpsink host=127.0.0.1 port={port}"
        );
        Self::start(
            Command::new("gst-launch-1.0")
                .args(line.split_whitespace())
                .stdout(Stdio::null()),
        )
    }

    /// A transport stream in UDP.
    pub fn udp(port: u16) -> Self {
        ffmpeg(&["-f", "mpegts", &format!("udp://127.0.0.1:{port}?pkt_size=1316")])
    }

    /// A live playlist in `folder`, and a web server for it.
    pub fn hls(folder: &Path) -> ([Self; 2], u16) {
        let playlist = folder.join("live.m3u8");
        let segments = [
            "-f",
            "hls",
            "-hls_time",
            "1",
            "-hls_list_size",
            "6",
            "-hls_flags",
            "delete_segments",
        ];
        let segmenter = ffmpeg(&[&segments[..], &[playlist.to_str().unwrap()]].concat());
        wait_until("a playlist with three segments", || {
            std::fs::read_to_string(&playlist).is_ok_and(|text| text.matches("#EXTINF").count() >= 3)
        });
        let port = free_tcp_port();
        let mut web = Command::new(interpreter());
        web.args(["-m", "http.server", &port.to_string(), "--bind", "127.0.0.1", "--directory"])
            .arg(folder)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let web = Self::start(&mut web);
        wait_for_port(port);
        ([segmenter, web], port)
    }

    /// nginx with its rtmp module, and a sender at `/live/cam`. `root` is where `scripts/setup` unpacked it.
    pub fn rtmp(root: &Path, folder: &Path) -> ([Self; 2], u16) {
        let port = free_tcp_port();
        let module = root.join("usr/lib/nginx/modules/ngx_rtmp_module.so");
        let configuration = format!(
            "load_module {};\ndaemon off;\nmaster_process off;\npid nginx.pid;\nerror_log stderr warn;\n\
             events {{ worker_connections 64; }}\n\
             rtmp {{ access_log off; server {{ listen 127.0.0.1:{port}; application live {{ live on; wait_key on; }} }} }}\n",
            module.display()
        );
        let file = folder.join("nginx.conf");
        std::fs::write(&file, configuration).unwrap();
        let mut nginx = Command::new(root.join("usr/sbin/nginx"));
        nginx.arg("-p").arg(folder).arg("-c").arg(&file).args(["-e", "stderr"]);
        let nginx = Self::start(&mut nginx);
        wait_for_port(port);
        (
            [nginx, ffmpeg(&["-f", "flv", &format!("rtmp://127.0.0.1:{port}/live/cam")])],
            port,
        )
    }

    /// Sends H.264 and Opus to a WHIP endpoint that listens already.
    pub fn whip(port: u16) -> Self {
        wait_for_port(port);
        let url = format!("http://127.0.0.1:{port}/whip");
        Self::start(python("tests/peers/webrtc.py").args(["publish", &url]).stdout(Stdio::null()))
    }

    /// A WHEP server with H.264 and Opus.
    pub fn whep() -> (Self, u16) {
        Self::ready(python("tests/peers/webrtc.py").arg("serve").stderr(Stdio::null()))
    }
}

/// Six seconds of H.264 and AAC into a file, container by its ending.
pub fn file(path: &Path) {
    let quick = LIVE.replace("-re ", "");
    let status = Command::new("ffmpeg")
        .args(quick.split_whitespace())
        .args(["-t", "6", "-y"])
        .arg(path)
        .status();
    assert!(status.unwrap().success());
}

fn ffmpeg(to: &[&str]) -> Peer {
    Peer::start(Command::new("ffmpeg").args(LIVE.split_whitespace()).args(to))
}

/// The interpreter that has GStreamer's bindings: the system's.
pub fn interpreter() -> &'static str {
    if Path::new("/usr/bin/python3").exists() {
        "/usr/bin/python3"
    } else {
        "python3"
    }
}

fn python(script: &str) -> Command {
    let mut command = Command::new(interpreter());
    command.arg("-B").arg(Path::new(env!("CARGO_MANIFEST_DIR")).join(script));
    command
}

/// Reads on, so that the writer never meets a full or a closed pipe.
fn drain(mut out: BufReader<ChildStdout>) {
    std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()));
}

pub fn free_tcp_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

pub fn free_udp_port() -> u16 {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Until somebody receives there: who joins in the middle of a picture records half of it.
pub fn wait_for_udp_port(port: u16) {
    wait_until("a receiver", || UdpSocket::bind(("0.0.0.0", port)).is_err());
}

fn wait_for_port(port: u16) {
    wait_until("a listener", || TcpStream::connect(("127.0.0.1", port)).is_ok());
}

/// Looks every 50 ms.
pub fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "no {what} within {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A folder of this test's own, gone with it.
pub fn folder() -> tempfile::TempDir {
    tempfile::Builder::new()
        .prefix("sources-")
        .tempdir_in(PathBuf::from(env!("CARGO_TARGET_TMPDIR")))
        .unwrap()
}
