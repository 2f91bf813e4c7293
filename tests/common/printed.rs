//! The commands that documents print.

/// The blocks of a document that a shell runs, without those that need what no test has (`# needs a …` as their first line) and those
/// that say in front of them that no test runs them (`<!-- not run by a test: … -->`).
pub(crate) fn printed_blocks(document: &str) -> Vec<String> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(document);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let parts: Vec<&str> = text.split("```sh\n").collect();
    let is_run = |before: &str| {
        let line = before.lines().next_back().unwrap_or_default();
        !line.trim_start().starts_with("<!-- not run by a test: ")
    };
    let blocks = parts.windows(2).filter(|pair| is_run(pair[0]));
    let blocks = blocks.filter_map(|pair| pair[1].split("```").next());
    let blocks = blocks.filter(|block| !block.trim_start().starts_with("# needs "));
    blocks.map(str::to_owned).collect()
}
