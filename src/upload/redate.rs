//! Corrects the date of a chunk that was recorded before the machine's clock was set.
//!
//! PURE: takes the entry and the known boots of the machine, returns the corrected entry.

use crate::spool::{Boots, Entry};
use gcstreamer_media::chunk::clock::EARLIEST_PLAUSIBLE;
use gcstreamer_schema::ClockKind;
use gcstreamer_schema::Container;
use gcstreamer_schema::metadata::END_TIME;
use gcstreamer_schema::name::{NameFields, Template};
use gcstreamer_schema::time::rfc3339_ms;

/// Returns the entry with the time, name and metadata that a correct clock would have given it; `None` if nothing needs
/// correcting, or nothing is known of that boot.
pub fn redate(entry: &Entry, boots: &Boots) -> Option<Entry> {
    // A clock that is still not set gives no better date.
    let start = boots.correct(entry).filter(|&start| start >= EARLIEST_PLAUSIBLE)?;
    let container = Container::from_name(&entry.container).unwrap_or(Container::Raw);
    let naming = NameFields {
        device: &entry.device,
        session: &entry.session,
        seq: entry.sequence,
        ext: container.extension(),
        start,
    };
    // An entry of an earlier build may have no template; its chunk keeps its name.
    let template = Template::parse(&entry.location).ok();
    let name = template.and_then(|t| t.format(&naming).ok());
    let mut entry = Entry {
        start,
        clock: ClockKind::Corrected.name().to_owned(),
        custom_time: Some(start),
        name: name.unwrap_or_else(|| entry.name.clone()),
        ..entry.clone()
    };
    let mut put = |key: &str, value: String| entry.metadata.insert(key.to_owned(), value);
    put("start-time", rfc3339_ms(start));
    put(END_TIME, rfc3339_ms(start.saturating_add(entry.duration)));
    put("clock", entry.clock.clone());
    Some(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;
    const NOW: u64 = 1_795_329_912 * S;

    fn entry() -> Entry {
        Entry {
            session: "0a1b2c3d4e".into(),
            sequence: 3,
            device: "cam1".into(),
            bucket: "b".into(),
            name: "cam1/1970/x_000003.ts".into(),
            location: "{device}/%Y/%Y%m%dT%H%M%SZ_{session}_{seq}.{ext}".into(),
            container: "mpegts".into(),
            start: 40 * S,
            duration: 10 * S,
            clock: "suspect".into(),
            boot_id: "this".into(),
            boot_ns: 40 * S,
            metadata: [("site".to_owned(), "north".to_owned())].into(),
            ..Entry::default()
        }
    }

    #[test]
    fn a_chunk_from_before_the_clock_was_set_gets_the_name_and_time_it_should_have_had() {
        let mut boots = Boots::default();
        boots.learn("this", NOW, 100 * S);
        let dated = redate(&entry(), &boots).unwrap();
        assert_eq!(dated.start, NOW - 60 * S);
        assert_eq!(dated.name, "cam1/2026/20261122T064412Z_0a1b2c3d4e_000003.ts");
        assert_eq!(dated.custom_time, Some(dated.start));
        let get = |k: &str| dated.metadata.get(k).map(String::as_str);
        assert_eq!(get("start-time"), Some("2026-11-22T06:44:12.000Z"));
        assert_eq!(get("end-time"), Some("2026-11-22T06:44:22.000Z"));
        assert_eq!((get("clock"), get("site")), (Some("corrected"), Some("north")));
        assert_eq!(redate(&dated, &boots), None, "once is enough");
    }

    #[test]
    fn nothing_is_made_up() {
        let mut boots = Boots::default();
        assert_eq!(redate(&entry(), &boots), None, "nothing is known of that boot");
        boots.learn("another", NOW, 100 * S);
        assert_eq!(redate(&entry(), &boots), None);
        let mut wrong = Boots::default();
        wrong.learn("this", 90 * S, 100 * S);
        assert_eq!(redate(&entry(), &wrong), None, "the clock is still not set");
        boots.learn("this", NOW, 100 * S);
        let good = Entry {
            clock: "system".into(),
            ..entry()
        };
        assert_eq!(redate(&good, &boots), None, "its clock was right");
    }
}
