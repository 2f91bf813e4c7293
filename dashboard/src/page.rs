//! The page's files, built from `web/` by `build.rs` and embedded with compressed copies.

/// A file of the page.
#[derive(Debug)]
pub struct File {
    /// Its path, e.g. `/assets/app.js`.
    pub path: &'static str,
    /// `Content-Type`.
    pub content_type: &'static str,
    /// `ETag`, with its quotes.
    pub etag: &'static str,
    /// The bytes.
    pub plain: &'static [u8],
    /// Compressed by gzip.
    pub gzip: &'static [u8],
    /// Compressed by Brotli.
    pub brotli: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/page.rs"));

/// Returns the file of that path.
pub fn find(path: &str) -> Option<&'static File> {
    FILES.iter().find(|file| file.path == path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_screen_is_small_and_holds_no_inline_code() {
        let index = find("/").unwrap();
        let text = std::str::from_utf8(index.plain).unwrap();
        assert!(
            !text.contains("<style") && !text.contains(" style=") && !text.contains("onclick"),
            "{text}"
        );
        assert!(
            text.matches("<script").count() == text.matches("<script type=\"module\" src=").count(),
            "{text}"
        );
        let app = find("/assets/app.js").unwrap();
        assert!(app.gzip.len() <= 40_000, "{} bytes of compressed script", app.gzip.len());
    }

    #[test]
    fn the_player_is_a_file_of_its_own() {
        assert!(find("/assets/hls.js").is_some() && find("/assets/hls.worker.js").is_some());
        assert!(find("/assets/licences.txt").is_some());
    }
}
