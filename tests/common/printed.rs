//! The commands that documents print.
#![allow(dead_code)]

/// How a block says what a reader needs for it, which no test has.
pub(crate) const NEEDS: &str = "# needs ";

const SYSTEMD: &str = "needs root and systemd; scripts/test-packages does it in a booted Debian";
const FIRST_HOURS: &str = "needs root and systemd; scripts/first-hours runs it, by hand before a release";
const PACKAGES: &str =
    "some minutes of a release build; scripts/test-packages installs the packages in a bare Debian and records there";
const RELEASE: &str = "minutes of a release build; run by hand before a release";
const IMAGE: &str = "needs Docker; scripts/test-container runs the image the same way";

/// The blocks of shell words that no test runs: document, how the block begins, why not and what is done instead.
///
/// It stands here and not in the documents, since a reader has no use for it.
pub(crate) const NOT_RUN: &[(&str, &str, &str)] = &[
    (
        "README.md",
        "./scripts/demo --keep",
        "both are themselves what tests; scripts/demo is run by hand before a release",
    ),
    ("README.md", "scripts/setup dashboard && scripts/package", PACKAGES),
    (
        "CONTRIBUTING.md",
        "./scripts/demo ",
        "continuous integration runs scripts/test, which runs scripts/setup; scripts/demo is run by hand before a release",
    ),
    ("docs/start.md", "scripts/setup dashboard && scripts/package", PACKAGES),
    ("docs/start.md", "apt-get update", FIRST_HOURS),
    ("docs/start.md", "editor /etc/gcstreamer-recorder.toml", FIRST_HOURS),
    ("docs/systemd.md", "apt-get install ./gcstreamer-recorder_*.deb", SYSTEMD),
    ("docs/systemd.md", "install -m 640 -g gcstreamer /dev/stdin", SYSTEMD),
    (
        "docs/systemd.md",
        "install -d -m 700 -o gcstreamer",
        "needs root, systemd and a second disk",
    ),
    ("docs/systemd.md", "apt-get install ./gcstreamer-dashboard_*.deb", SYSTEMD),
    ("docs/systemd.md", "apt-get install ./gstreamer1.0-gcstreamer_*.deb", SYSTEMD),
    (
        "docs/dashboard.md",
        "scripts/setup dashboard",
        "builds in release mode; scripts/demo --keep does the same and is run by hand before a release",
    ),
    (
        "docs/install.md",
        "cargo build --release --locked\nexport",
        "builds in release mode; scripts/demo does the same and is run by hand before a release",
    ),
    (
        "docs/install.md",
        "meson setup build",
        "some minutes of a release build; scripts/check-install runs it, by hand before a release",
    ),
    (
        "docs/install.md",
        "# needs cargo-c",
        "scripts/check-install does it into a folder, by hand before a release",
    ),
    ("docs/install.md", "scripts/setup dashboard", PACKAGES),
    ("docs/install.md", "mkdir -p .cargo", RELEASE),
    ("docs/install.md", "scripts/release", RELEASE),
    ("docs/recorder.md", "scripts/setup demo", "some minutes of a release build"),
    (
        "docs/scaling.md",
        "cargo build --release",
        "it takes a quarter of an hour on a machine that does nothing else",
    ),
    (
        "docs/container.md",
        "# needs Docker, and some minutes",
        "scripts/test-container builds the images by buildah and runs them",
    ),
    (
        "docs/container.md",
        "# needs Docker, a camera and a Google Cloud account\nsudo chown",
        IMAGE,
    ),
    (
        "docs/container.md",
        "# needs Docker and a Google Cloud account\nopenssl",
        IMAGE,
    ),
    (
        "docs/container.md",
        "# needs Docker, a camera and a Google Cloud account\ndocker run",
        IMAGE,
    ),
    (
        "docs/container.md",
        "# needs Docker, a playlist",
        "tests/sources.rs runs the line without a container",
    ),
    (
        "docs/zoo.md",
        "cargo build --workspace",
        "it takes five minutes, and what it finds is GStreamer's",
    ),
    ("examples/README.md", "cargo build --release", "builds in release mode"),
    ("fuzz/README.md", "cd fuzz", "run by hand"),
    ("fuzz/README.md", "GCSTREAMER_SEEDS=", "writes fuzz/corpus"),
];

/// Returns whether a test runs this block of shell words: neither does it need what no test has, nor is it listed above.
pub(crate) fn is_run(document: &str, block: &str) -> bool {
    let is_listed = |(of, begin, _): &(&str, &str, &str)| *of == document && block.starts_with(begin);
    !block.starts_with(NEEDS) && !NOT_RUN.iter().any(is_listed)
}

/// A fenced block: language and text, without the indentation of its fence.
pub(crate) struct Block {
    pub(crate) language: String,
    pub(crate) text: String,
}

/// Returns the fenced blocks of this text, which is called `name`.
pub(crate) fn blocks_of(name: &str, text: &str) -> Vec<Block> {
    let mut blocks: Vec<Block> = Vec::new();
    let mut indent = None;
    for line in text.lines() {
        let fence = line.trim_start().strip_prefix("```");
        match (fence, indent) {
            (Some(language), None) => {
                indent = Some(line.len() - line.trim_start().len());
                blocks.push(Block {
                    language: language.trim().to_owned(),
                    text: String::new(),
                });
            }
            (Some(_), Some(_)) => indent = None,
            (None, Some(by)) => {
                let block = blocks.last_mut().expect("a fence begins a block");
                block.text.push_str(line.get(by..).unwrap_or_default());
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    assert!(indent.is_none(), "{name}: a fence is not closed");
    blocks
}

/// Returns the blocks of shell words of a document that a test runs.
pub(crate) fn printed_blocks(document: &str) -> Vec<String> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let blocks = blocks_of(document, &text).into_iter();
    let words = blocks.filter(|block| block.language == "sh").map(|block| block.text);
    words.filter(|block| is_run(document, block)).collect()
}
