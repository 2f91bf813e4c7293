//! Joins chunks unchanged: one header, then the payloads.
//!
//! PURE. Chunks of a transport stream need no header and simply follow each other. For the other containers the header is written
//! once, followed by the payload of each chunk. As long as the header stays the same, this is the recorded stream, byte for byte.
//! FLV allows a new header in mid-stream, without the nine bytes of the file header and the four of the tag size after it; the
//! others do not.

use std::ops::Range;

use gcstreamer_schema::Container;
use gcstreamer_schema::time::rfc3339_ms;

use crate::hls::playlist::SLACK;
use crate::index::Chunk;

/// Length of the FLV file header and of PreviousTagSize0 after it.
const FLV_HEAD: u64 = 13;

/// Returns which bytes of each object the file consists of, in their order.
///
/// # Errors
/// A text that says why the chunks cannot be joined, and what to do.
pub fn parts(chunks: &[Chunk]) -> Result<Vec<Range<u64>>, String> {
    let mut parts = Vec::with_capacity(chunks.len());
    let mut before: Option<&Chunk> = None;
    for chunk in chunks {
        let skip = match before {
            None => 0,
            Some(last) => skipped(last, chunk)?,
        };
        parts.push(skip..chunk.size);
        before = Some(chunk);
    }
    Ok(parts)
}

/// Returns whether the times of a chunk begin before the end of the previous chunk, as after a new connection to the camera.
fn goes_back(last: &Chunk, chunk: &Chunk) -> bool {
    let ends = last.meta.pts_start.map(|start| start.saturating_add(last.meta.duration));
    let begins = chunk.meta.pts_start.map(|start| start.saturating_add(SLACK));
    ends.zip(begins).is_some_and(|(ends, begins)| begins < ends)
}

fn skipped(last: &Chunk, chunk: &Chunk) -> Result<u64, String> {
    let at = rfc3339_ms(chunk.meta.start);
    let apart = "so one file cannot hold what was before and what comes then; export both apart, or as mp4";
    if last.meta.container != chunk.meta.container {
        return Err(format!("the container changes at {at}, {apart}"));
    }
    let init = chunk.meta.init_bytes;
    let header = |chunk: &Chunk| chunk.meta.init_crc32c.map(|crc32c| (chunk.meta.init_bytes, crc32c));
    let is_same = header(chunk).is_some() && header(chunk) == header(last);
    match chunk.meta.container {
        Container::MpegTs | Container::Raw => Ok(0),
        // Players of these containers rely on ascending times.
        Container::Fmp4 | Container::Matroska | Container::WebM if is_same && goes_back(last, chunk) => {
            Err(format!("the times of the recording start again at {at}, {apart}"))
        }
        _ if is_same => Ok(init),
        Container::Flv if init >= FLV_HEAD => Ok(FLV_HEAD),
        _ => Err(format!("the header changes at {at}, {apart}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::chunk::tests::chunk;

    fn of(container: Container, count: u32) -> Vec<Chunk> {
        let mut chunks: Vec<Chunk> = (0..count).map(|q| chunk(0, q.into(), f64::from(q) * 10.0, 10.0)).collect();
        for chunk in &mut chunks {
            chunk.meta.container = container;
            chunk.meta.init_bytes = 40;
        }
        chunks
    }

    #[test]
    fn the_header_is_written_once_and_transport_streams_follow_each_other() {
        for container in [Container::Flv, Container::Fmp4, Container::Matroska] {
            assert_eq!(
                parts(&of(container, 3)),
                Ok(vec![0..1000, 40..1000, 40..1000]),
                "{container:?}"
            );
        }
        assert_eq!(parts(&of(Container::MpegTs, 3)), Ok(vec![0..1000, 0..1000, 0..1000]));
    }

    #[test]
    fn times_that_begin_again_are_refused_where_players_would_drop_them() {
        let restarted = |container| {
            let mut chunks = of(container, 3);
            for (chunk, start) in chunks.iter_mut().zip([0, 10, 0]) {
                chunk.meta.pts_start = Some(start * 1_000_000_000);
            }
            parts(&chunks)
        };
        for container in [Container::Fmp4, Container::Matroska, Container::WebM] {
            let error = restarted(container).unwrap_err();
            assert!(error.contains("start again at") && error.contains("or as mp4"), "{error}");
        }
        assert_eq!(restarted(Container::MpegTs).map(|parts| parts.len()), Ok(3));
        assert_eq!(restarted(Container::Flv).map(|parts| parts.len()), Ok(3));
    }

    #[test]
    fn a_new_header_is_kept_where_the_container_takes_one_and_refused_elsewhere() {
        let changed = |container| {
            let mut chunks = of(container, 3);
            chunks[1].meta.init_crc32c = Some(8);
            chunks[2].meta.init_crc32c = Some(8);
            parts(&chunks)
        };
        assert_eq!(changed(Container::Flv), Ok(vec![0..1000, 13..1000, 40..1000]));
        assert!(
            changed(Container::Fmp4)
                .unwrap_err()
                .contains("the header changes at 2026-11-22T06:40:10.000Z")
        );
        let mut mixed = of(Container::Flv, 2);
        mixed[1].meta.container = Container::MpegTs;
        assert!(parts(&mixed).unwrap_err().contains("the container changes at"));
    }
}
