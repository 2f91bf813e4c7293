//! The launch lines of `docs/sources.md`, as they are printed there.

use std::path::Path;

/// A fenced block and what its comment says: `<!-- run PEER: CONTAINER CODEC… -->`.
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

/// Every block of shell words in the document.
pub fn blocks() -> Vec<Block> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/sources.md");
    let text = std::fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (i, line) in lines.iter().enumerate().filter(|(_, l)| **l == "```sh") {
        let mark = lines[i - 1].strip_prefix("<!-- run ").and_then(|m| m.strip_suffix(" -->"));
        let mark = mark.unwrap_or_else(|| panic!("docs/sources.md:{}: a block that nobody runs: {line}", i + 1));
        let (peer, wanted) = mark.split_once(": ").unwrap();
        let mut wanted = wanted.split(' ').map(str::to_owned);
        let script: Vec<&str> = lines[i + 1..].iter().copied().take_while(|l| *l != "```").collect();
        found.push(Block {
            peer: peer.to_owned(),
            container: wanted.next().unwrap(),
            codecs: wanted.collect(),
            script: script.join("\n"),
            line: i + 1,
        });
    }
    found
}

/// The blocks for these peers; there is at least one.
pub fn blocks_for(wanted: impl Fn(&str) -> bool) -> Vec<Block> {
    let found: Vec<Block> = blocks().into_iter().filter(|b| wanted(&b.peer)).collect();
    assert!(!found.is_empty(), "docs/sources.md has no such line any more");
    found
}
