//! What live playlists promise.

use super::live::{LIVE_WAIT, Numbers};
use super::tests::{PLAIN, live, run};
use crate::index::Chunk;
use crate::index::chunk::tests::{BASE, SECOND, chunk};

/// As one dashboard answers that has given `numbers` before.
pub(super) fn following(chunks: &[Chunk], now: u64, numbers: &mut Numbers) -> Option<String> {
    super::live::live(chunks, now, PLAIN, |session, own, newest| numbers.give(session, own, newest))
}

fn tag(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.parse().unwrap()
}

fn addresses(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.map(str::to_owned).collect()
}

/// Media sequence number and addresses of a live playlist.
fn window(chunks: &[Chunk], now: u64) -> (u64, Vec<String>) {
    let text = live(chunks, now).unwrap();
    (tag(&text, "#EXT-X-MEDIA-SEQUENCE:"), addresses(&text))
}

#[test]
fn live_numbers_follow_from_the_stored_chunks_alone() {
    let all = run(0, 0..40);
    let now = BASE + 1000 * SECOND;
    let mut numbers = std::collections::BTreeMap::new();
    for stored in 1..=all.len() {
        // Another instance, that knows the last hour only, or just these.
        for from in [0, stored.saturating_sub(9), stored - 1] {
            let (first, addresses) = window(&all[from..stored], now);
            for (number, address) in (first..).zip(addresses) {
                assert_eq!(*numbers.entry(number).or_insert_with(|| address.clone()), address);
            }
        }
    }
    assert_eq!(numbers.len(), all.len());
}

#[test]
fn numbers_of_sessions_stay_small_enough_for_players_that_count_up_to_them() {
    let now = BASE + 1000 * SECOND;
    let text = live(&run(0, 0..6), now).unwrap();
    let number = tag(&text, "#EXT-X-DISCONTINUITY-SEQUENCE:");
    assert!(number < 100_000, "{number}");
}

/// Chunks of a session that began `seconds` after the base by its own clock, and was stored `late` seconds after that.
fn session(seconds: u64, late: i64, length: f64, range: std::ops::Range<u64>) -> impl Iterator<Item = Chunk> {
    let session = gcstreamer_schema::session::session_id(BASE + seconds * SECOND, 7);
    range.map(move |q| {
        let chunk = chunk(0, q, seconds as f64 + q as f64 * length, length);
        Chunk {
            name: format!("cam/{session}_{q:06}.flv").into(),
            created: chunk.created.checked_add_signed(late * SECOND as i64).unwrap(),
            meta: gcstreamer_schema::metadata::ObjectMetadata {
                session: session.clone(),
                ..chunk.meta
            },
            ..chunk
        }
    })
}

/// Follows these chunks as they are stored, once a second. Returns the sessions in the order of being shown.
fn follow(all: &[Chunk], seconds: std::ops::Range<u64>) -> Vec<String> {
    let (mut numbers, mut last, mut shown) = (Numbers::default(), (0, 0), Vec::new());
    let mut given = std::collections::BTreeMap::new();
    for second in seconds {
        let now = BASE + second * SECOND;
        let stored: Vec<Chunk> = all.iter().filter(|chunk| chunk.created <= now).cloned().collect();
        let text = following(&crate::index::chunk::sorted(stored), now, &mut numbers).unwrap();
        let (number, addresses) = (tag(&text, "#EXT-X-MEDIA-SEQUENCE:"), addresses(&text));
        let end = number + addresses.len() as u64;
        assert!(
            number >= last.0 && end >= last.1,
            "at {second} s: {number} to {end} after {last:?}: {addresses:?}"
        );
        last = (number, end);
        for (number, address) in (number..).zip(addresses) {
            let session = all.iter().find(|chunk| address.contains(&chunk.meta.session));
            let session = session.unwrap().meta.session.clone();
            if shown.last() != Some(&session) {
                shown.push(session);
            }
            assert_eq!(
                *given.entry(number).or_insert_with(|| address.clone()),
                address,
                "at {second} s another segment has number {number}"
            );
        }
    }
    shown
}

#[test]
fn numbers_rise_also_where_the_later_of_two_recorders_ends_and_where_it_comes_back() {
    let all: Vec<Chunk> = session(0, 0, 10.0, 0..80)
        .chain(session(205, 0, 8.0, 0..40))
        .chain(session(700, 0, 8.0, 0..10))
        .collect();
    let shown = follow(&all, 20..780);
    assert_eq!(shown.len(), 4, "first, second, the first again, third: {shown:?}");
    assert_eq!(shown[0], shown[2]);
}

#[test]
fn numbers_rise_where_a_clock_that_was_ahead_is_set_right() {
    // The first recorder's clock is 1000 s ahead: what it stores from 0 s on is dated from 1000 s on.
    let all: Vec<Chunk> = session(1000, -1000, 10.0, 0..20)
        .chain(session(210, 0, 10.0, 0..20))
        .collect();
    assert_eq!(follow(&all, 20..400).len(), 2);
}

#[test]
fn an_answer_from_an_older_listing_moves_no_numbers() {
    let all: Vec<Chunk> = session(0, 0, 10.0, 0..60).chain(session(205, 0, 10.0, 0..40)).collect();
    let until = |seconds: u64| -> Vec<Chunk> {
        let now = BASE + seconds * SECOND;
        let stored = all.iter().filter(|chunk| chunk.created <= now).cloned();
        crate::index::chunk::sorted(stored.collect())
    };
    let mut numbers = Numbers::default();
    let mut at = |listed, now| {
        tag(
            &following(&until(listed), BASE + now * SECOND, &mut numbers).unwrap(),
            "#EXT-X-MEDIA-SEQUENCE:",
        )
    };
    let (first, second) = (at(200, 200), at(230, 230));
    assert!(second > first);
    assert_eq!((at(200, 231), at(230, 231)), (first, second));
}

#[test]
fn a_late_chunk_never_enters_the_live_window() {
    let mut stored = run(0, 0..6);
    stored.remove(3);
    let now = stored.last().unwrap().created + LIVE_WAIT;
    let before = window(&stored, now);
    assert_eq!(before.1.len(), 2, "what is behind the hole");
    // Chunk 3 arrives a minute later.
    let mut late = chunk(0, 3, 30.0, 10.0);
    late.created = now + 60 * SECOND;
    stored.insert(3, late);
    assert_eq!(window(&stored, now + 61 * SECOND), before);
}

#[test]
fn a_listing_of_a_while_ago_shows_nothing_that_a_newer_one_takes_back() {
    let mut stored = run(0, 0..8);
    let newest = stored.last().unwrap().created;
    let mut overtaken = stored.remove(6);
    overtaken.created = newest + 2 * SECOND + SECOND / 2;
    let stale = stored.clone();
    stored.insert(6, overtaken);
    let mut last = 0;
    for tick in 0..80 {
        let now = newest + tick * SECOND / 10;
        // The listing is up to two seconds old.
        for listed in [now, now.saturating_sub(2 * SECOND)] {
            let known = if listed >= stored[6].created { &stored } else { &stale };
            let (number, addresses) = window(known, now);
            let end = number + addresses.len() as u64;
            assert!(end >= last || listed < now, "at {tick}: {number} {addresses:?}");
            assert_ne!(addresses.len(), 1, "at {tick}: what is behind the hole stands alone");
            last = last.max(end);
        }
    }
}

#[test]
fn chunks_that_overtake_each_other_are_waited_for() {
    let mut stored = run(0, 0..6);
    let newest = stored.last().unwrap().created;
    stored.remove(4);
    let (first, addresses) = window(&stored, newest + SECOND);
    assert_eq!(addresses.len(), 4, "the last waits for the one before");
    let mut overtaken = chunk(0, 4, 40.0, 10.0);
    overtaken.created = newest + SECOND;
    stored.insert(4, overtaken);
    assert_eq!(
        (
            window(&stored, newest + 2 * SECOND).0,
            window(&stored, newest + 2 * SECOND).1.len()
        ),
        (first, 6)
    );
}

#[test]
fn times_that_begin_again_within_a_session_are_reported_to_who_follows_it() {
    let mut all = run(0, 0..30);
    for chunk in &mut all[12..] {
        chunk.meta.pts_start = Some(chunk.meta.sequence * 10 * SECOND - 120 * SECOND);
    }
    let now = BASE + 1000 * SECOND;
    let mut known = std::collections::BTreeMap::new();
    for stored in 1..=all.len() {
        let text = live(&all[..stored], now).unwrap();
        let first = tag(&text, "#EXT-X-MEDIA-SEQUENCE:");
        let mut part = tag(&text, "#EXT-X-DISCONTINUITY-SEQUENCE:");
        let mut at = first;
        for line in text.lines() {
            part += u64::from(line == "#EXT-X-DISCONTINUITY");
            if !line.starts_with('#') {
                assert_eq!(*known.entry(at).or_insert(part), part, "the part of {at} changes");
                at += 1;
            }
        }
    }
    let parts: std::collections::BTreeSet<u64> = known.values().copied().collect();
    assert_eq!(parts.len(), 2, "{known:?}");
    // A camera that was lost at once is another session, and another part.
    let mut soon = run(0, 0..1);
    soon[0].meta.session = gcstreamer_schema::session::session_id(BASE, 0);
    let mut back = soon.clone();
    back[0].meta.session = gcstreamer_schema::session::session_id(BASE + 3 * SECOND, 0);
    let [a, b] = [soon, back].map(|chunks| tag(&live(&chunks, now).unwrap(), "#EXT-X-DISCONTINUITY-SEQUENCE:"));
    assert_ne!(a, b);
}

#[test]
fn a_new_session_has_higher_numbers() {
    let mut stored = run(0, 0..5);
    let now = BASE + 1000 * SECOND;
    let (old, _) = window(&stored, now);
    // A session id holds its start.
    for q in 0..2 {
        let mut chunk = chunk(0, q, 100.0 + q as f64 * 10.0, 10.0);
        chunk.meta.session = "zzzzzzzzzz".replace('z', "v");
        stored.push(chunk);
    }
    let (new, addresses) = window(&stored, now);
    assert!(new > old + 5 && addresses.len() == 2);
    assert!(!live(&stored, now).unwrap().contains("ENDLIST"));
}
