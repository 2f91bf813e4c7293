//! The launch lines of `docs/sources.md`, as they are printed there.

use std::path::Path;

/// What runs the blocks below each heading, in their order: `PEER: CONTAINER CODEC…`.
///
/// It stands here and not in the document, since a reader has no use for it.
const RUN: &[(&str, &[&str])] = &[
    (
        "H.264 without sound",
        &[
            "camera/h264-none: flv h264",
            "camera/h264-none: mpegts h264",
            "camera/h264-none: fmp4 h264",
            "camera/h264-none: matroska h264",
        ],
    ),
    (
        "H.264 with AAC",
        &[
            "camera/h264-aac: flv h264 aac",
            "camera/h264-aac: mpegts h264 aac",
            "camera/h264-aac: fmp4 h264 aac",
            "camera/h264-aac: matroska h264 aac",
        ],
    ),
    (
        "H.264 with G711",
        &[
            "camera/h264-pcma: flv h264 pcm_alaw",
            "camera/h264-pcma: mpegts h264 aac",
            "camera/h264-pcma: fmp4 h264 aac",
            "camera/h264-pcma: matroska h264 pcm_alaw",
        ],
    ),
    (
        "H.265 without sound",
        &[
            "camera/h265-none: mpegts hevc",
            "camera/h265-none: fmp4 hevc",
            "camera/h265-none: matroska hevc",
        ],
    ),
    (
        "H.265 with AAC",
        &[
            "camera/h265-aac: mpegts hevc aac",
            "camera/h265-aac: fmp4 hevc aac",
            "camera/h265-aac: matroska hevc aac",
        ],
    ),
    (
        "H.265 with G711",
        &[
            "camera/h265-pcma: mpegts hevc aac",
            "camera/h265-pcma: fmp4 hevc aac",
            "camera/h265-pcma: matroska hevc pcm_alaw",
        ],
    ),
    ("With the state of the camera over MQTT", &["mqtt: flv h264"]),
    ("RTP without RTSP (udpsrc)", &["rtp: mpegts h264", "udp: mpegts h264 aac"]),
    ("HLS", &["hls: mpegts h264 aac"]),
    ("RTMP", &["rtmp: flv h264 aac"]),
    ("WebRTC", &["whip: mpegts h264", "whep: matroska h264 opus"]),
    ("A webcam", &["webcam: mpegts h264", "webcam-jpeg: flv h264"]),
    ("A file", &["file: mpegts h264 aac", "file: mpegts h264 aac"]),
    (
        "A named pipe, or standard input",
        &["pipe: mpegts h264 aac", "pipe: mpegts h264 aac"],
    ),
];

/// A fenced block and what runs it.
#[derive(Clone, Debug)]
pub struct Block {
    /// Who must be there: `camera/h264-aac`, `rtp`, `file`…
    pub peer: String,
    /// What the metadata of every chunk must say.
    pub container: String,
    /// As ffprobe calls them.
    pub codecs: Vec<String>,
    pub script: String,
    /// Where it stands.
    pub line: usize,
}

/// A block of shell words below a heading.
struct Printed {
    heading: String,
    script: String,
    line: usize,
}

fn printed() -> Vec<Printed> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/sources.md");
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut heading = "";
    let mut found = Vec::new();
    for (i, line) in lines.iter().enumerate() {
        if line.starts_with("## ") || line.starts_with("### ") {
            heading = line.trim_start_matches('#').trim();
        } else if *line == "```sh" {
            let script: Vec<&str> = lines[i + 1..].iter().copied().take_while(|l| *l != "```").collect();
            found.push(Printed {
                heading: heading.to_owned(),
                script: script.join("\n"),
                line: i + 1,
            });
        }
    }
    found
}

/// Every block of shell words in the document.
pub fn blocks() -> Vec<Block> {
    let printed = printed();
    let is_known = |block: &&Printed| RUN.iter().any(|(heading, _)| *heading == block.heading);
    if let Some(Printed { heading, line, .. }) = printed.iter().find(|block| !is_known(block)) {
        panic!("docs/sources.md:{line}: a block that nobody runs, below {heading}: add it to RUN");
    }
    let mut found = Vec::new();
    for (heading, runs) in RUN {
        let below: Vec<&Printed> = printed.iter().filter(|block| block.heading == *heading).collect();
        assert_eq!(
            below.len(),
            runs.len(),
            "docs/sources.md: blocks below {heading}, and those in RUN"
        );
        for (block, run) in below.iter().zip(*runs) {
            let (peer, wanted) = run.split_once(": ").unwrap();
            let mut wanted = wanted.split(' ').map(str::to_owned);
            found.push(Block {
                peer: peer.to_owned(),
                container: wanted.next().unwrap(),
                codecs: wanted.collect(),
                script: block.script.clone(),
                line: block.line,
            });
        }
    }
    found
}

/// The blocks for these peers; there is at least one.
pub fn blocks_for(wanted: impl Fn(&str) -> bool) -> Vec<Block> {
    let found: Vec<Block> = blocks().into_iter().filter(|b| wanted(&b.peer)).collect();
    assert!(!found.is_empty(), "docs/sources.md has no such line any more");
    found
}
