//! Damages streams as a transmission does: the same mutations at every run.

use super::super::Container;
use super::streams::Stream;

/// How often a stream is cut off, joined late, and has a bit flipped.
const TIMES: usize = 40;
/// How many size fields are written over.
const FIELDS: usize = 60;

/// The stream as it is, and its mutations, each with what was done.
pub(super) fn of(stream: &Stream) -> Vec<(String, Vec<u8>)> {
    let bytes = &stream.bytes;
    let mut all = vec![("as it is".to_owned(), bytes.clone())];
    for n in 0..TIMES {
        // Not at equal distances, which would hit the same position of every packet.
        let at = (n * bytes.len() / TIMES + n * n) % bytes.len();
        all.push((format!("cut off at {at}"), bytes[..at].to_vec()));
        all.push((format!("joined at {at}"), bytes[at..].to_vec()));
        let mut flipped = bytes.clone();
        flipped[at] ^= 1 << (n % 8);
        all.push((format!("bit {} of byte {at}", n % 8), flipped));
        let to = (at + 1 + n * 7).min(bytes.len());
        all.push((format!("{at} to {to} left out"), [&bytes[..at], &bytes[to..]].concat()));
    }
    let fields = fields(stream);
    let step = fields.len().div_ceil(FIELDS).max(1);
    for field in fields.into_iter().step_by(step) {
        for value in [0, 0xff] {
            let mut changed = bytes.clone();
            changed[field.clone()].fill(value);
            all.push((format!("{value:#x} in {field:?}"), changed));
        }
    }
    all.push(("twice".to_owned(), bytes.repeat(2)));
    all
}

/// Where the container says how large something is.
fn fields(stream: &Stream) -> Vec<std::ops::Range<usize>> {
    let bytes = &stream.bytes;
    let mut found = Vec::new();
    let last = bytes.len().saturating_sub(24);
    match stream.container {
        Container::Flv => {
            let mut at = 13;
            while let Some(&[_, a, b, c]) = bytes.get(at..at + 4) {
                found.push(at + 1..at + 4);
                at += 15 + usize::from(a) * 65_536 + usize::from(b) * 256 + usize::from(c);
                found.push(at.saturating_sub(4).min(last)..at.min(last));
            }
        }
        Container::MpegTs => {
            // Sync byte, PID, adaptation field; the lengths of sections and PES packets.
            let stride = stream.stride;
            for (n, at) in (stride % 188 % 16..last).step_by(stride).enumerate() {
                let field = [0..1, 1..3, 4..5, 6..8, 8..10, 10..13, 14..18][n % 7].clone();
                found.push(at + field.start..at + field.end);
            }
        }
        Container::Fmp4 => {
            let is_name = |w: &[u8]| w.iter().all(|b| b.is_ascii_alphabetic());
            for at in (4..last).filter(|at| is_name(&bytes[*at..at + 4])) {
                found.push(at - 4..at);
                // A count, or the first field of what is inside.
                found.push(at + 8..at + 12);
            }
        }
        _ => {
            // An id of one, two or four bytes, and a size of eight, as the writer makes them.
            for at in
                (1..last).filter(|at| bytes[*at] == 1 && bytes[at + 1..at + 5] == [0; 4] || bytes[*at..at + 3] == [1, 0xff, 0xff])
            {
                found.push(at + 4..at + 8);
                found.push(at..at + 1);
            }
        }
    }
    found
}
