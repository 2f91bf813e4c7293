//! docs/reference.md says of every property, signal and message what the elements themselves say.
//!
//! The part between its two marks is written from introspection and from messages of a pipeline that really ran.
//! After a wanted change: `scripts/reference`, and read the difference.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;
#[path = "common/signals.rs"]
mod signals;
#[path = "common/since.rs"]
mod since;
#[path = "common/written_part.rs"]
mod written_part;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;
use std::sync::{Arc, Mutex};

use common::gcs_server::{Fault, GcsServer};
use common::{Line, init};
use gst::glib;
use gst::prelude::*;
use written_part::is_written;

/// Every element of the plugin, with its signals.
const ELEMENTS: &[(&str, &[(&str, &str)])] = &[
    ("gcssink", &[("split-now", "begin a new chunk at the next key unit")]),
    (
        "iotcorestatus",
        &[
            (
                "command",
                "a command has come that is not retained: tail of its topic, payload; whether or not `accept-commands` has it acted on",
            ),
            ("config", "a config has come: payload"),
        ],
    ),
];

const BEGIN: &str = "<!-- begin of what scripts/reference writes -->\n";
const END: &str = "<!-- end of what scripts/reference writes -->\n";

/// What the fields of messages mean: introspection does not know it.
const FIELDS: &[(&str, &str)] = &[
    ("bucket", "the bucket"),
    ("object", "name of the object"),
    (
        "device-id",
        "of the sink that recorded the chunk: another, too, may store what lies in a spool; empty = not known",
    ),
    ("session-id", "the session, as in the object's metadata"),
    (
        "generation",
        "of the object; 0 where it is known to be stored and the server may not be asked for it",
    ),
    ("size", "bytes of the object"),
    ("sequence", "number of the chunk in its session"),
    (
        "running-time",
        "of the chunk's first picture, ns; 18446744073709551615 = not known",
    ),
    ("latency", "from the closing of the chunk to the server's confirmation, ns"),
    ("crc32c", "CRC32C of the object"),
    ("start-time", "capture start, RFC 3339, UTC"),
    ("duration", "ns"),
    ("reason", "why, in one word or a sentence"),
    ("bytes", "that were not stored"),
    ("first-sequence", "of the first chunk that is missing"),
    (
        "chunks",
        "whole chunks that are missing; 0 = bytes that never belonged to a chunk",
    ),
    ("status", "as the property `status`"),
    ("pending-bytes", "of chunks that wait or are being sent"),
    ("pending-chunks", "that wait or are being sent"),
    ("oldest-pending-ns", "age of the oldest of them, ns"),
    ("chunks-created", "opened since the session began"),
    ("chunks-uploaded", "confirmed by the server"),
    ("chunks-dropped", "given up; each was reported as a gap"),
    ("chunks-recovered", "of earlier sessions, found in the spool"),
    ("key-units", "that have come, also while a command has stopped the recording"),
    ("bytes-received", "of the stream"),
    ("bytes-uploaded", "of confirmed chunks"),
    ("bytes-dropped", "of chunks given up"),
    ("bytes-in-memory", "held now"),
    (
        "bytes-in-spool",
        "held now for this sink, what it has taken over of earlier sessions included",
    ),
    ("chunks-pending", "closed and not confirmed, without those of `chunks-parked`"),
    (
        "chunks-parked",
        "in the spool for another endpoint, which gets no credentials from this sink",
    ),
    (
        "spool-seconds-left",
        "how long an outage the spool still covers, s, at the rate of all sinks of the process with this `spool-dir`",
    ),
    ("throttled-ns", "time that uploads have waited for the two limits"),
    ("retries", "attempts after the first of a chunk"),
    ("uploads-in-flight", "now"),
    ("upload-rate", "bytes/s over the last ten seconds"),
];

fn time(ns: u64) -> String {
    match ns {
        0 => "0".to_owned(),
        ns if ns.is_multiple_of(1_000_000_000) => format!("{} s", ns / 1_000_000_000),
        ns => format!("{} ms", ns / 1_000_000),
    }
}

fn default_of(spec: &glib::ParamSpec) -> String {
    let value = spec.default_value();
    let is_time = spec.blurb().is_some_and(|b| b.contains(", ns"));
    if let Ok(ns) = value.get::<u64>() {
        return if is_time { time(ns) } else { ns.to_string() };
    }
    if let Ok(text) = value.get::<Option<String>>() {
        return text.map_or_else(|| "NULL".to_owned(), |t| format!("`{t}`"));
    }
    if value.type_() == gst::Structure::static_type() {
        return "NULL".to_owned();
    }
    value.serialize().map_or_else(|_| "NULL".to_owned(), |v| v.to_string())
}

fn change_of(spec: &glib::ParamSpec) -> &'static str {
    let flags = spec.flags();
    if !flags.contains(glib::ParamFlags::WRITABLE) {
        "read only"
    } else if flags.contains(gst::PARAM_FLAG_MUTABLE_PLAYING) {
        "any time"
    } else {
        "before PAUSED"
    }
}

fn properties(name: &str, text: &mut String) {
    let element = gst::ElementFactory::make(name).build().unwrap();
    writeln!(text, "## Properties of `{name}`\n").unwrap();
    text.push_str("| property | type | default | may be set | since | meaning |\n|---|---|---|---|---|---|\n");
    let mut enums = String::new();
    for spec in element.list_properties().iter().filter(|s| s.owner_type() == element.type_()) {
        let kind = spec.value_type();
        let default = if spec.flags().contains(glib::ParamFlags::WRITABLE) {
            default_of(spec)
        } else {
            "–".to_owned()
        };
        let (set, blurb) = (change_of(spec), spec.blurb().unwrap());
        let since = since::of(name, "property", spec.name());
        writeln!(
            text,
            "| `{}` | {} | {default} | {set} | {since} | {blurb} |",
            spec.name(),
            kind.name()
        )
        .unwrap();
        if let Some(class) = glib::EnumClass::with_type(kind) {
            let values: Vec<String> = class
                .values()
                .iter()
                .map(|v| format!("`{}` ({})", v.nick(), v.name()))
                .collect();
            writeln!(enums, "- `{}`: {}", spec.name(), values.join(", ")).unwrap();
        }
    }
    writeln!(text, "\nValues of the enumerations:\n\n{enums}").unwrap();
}

fn signals_of(name: &str, meanings: &[(&str, &str)], text: &mut String) {
    let type_ = gst::ElementFactory::make(name).build().unwrap().type_();
    writeln!(text, "## Signals of `{name}`\n").unwrap();
    let found = signals::of(type_);
    assert_eq!(found.len(), meanings.len(), "{name}: {found:?}");
    for query in found {
        let signal = query.signal_name();
        let meaning = meanings.iter().find(|(name, _)| *name == signal).map(|(_, meaning)| *meaning);
        let meaning = meaning.unwrap_or_else(|| panic!("what is the signal {signal} for? say it in ELEMENTS"));
        let parameters: Vec<&str> = query.param_types().iter().map(|p| p.type_().name()).collect();
        let kind = if query.flags().contains(glib::SignalFlags::ACTION) {
            "action signal"
        } else {
            "signal"
        };
        let since = since::of(name, "signal", signal);
        writeln!(
            text,
            "- `{signal}`({}), {kind}, since {since}: {meaning}",
            parameters.join(", ")
        )
        .unwrap();
    }
    text.push('\n');
}

fn fields(structure: &gst::StructureRef, kind: &str, text: &mut String) {
    text.push_str("| field | type | since | meaning |\n|---|---|---|---|\n");
    for (field, value) in structure.iter() {
        let meaning = FIELDS.iter().find(|(name, _)| *name == field).map(|(_, meaning)| *meaning);
        let meaning =
            meaning.unwrap_or_else(|| panic!("{}: what does the field {field} mean? say it in FIELDS", structure.name()));
        let since = since::of("gcssink", kind, field);
        writeln!(text, "| `{field}` | {} | {since} | {meaning} |", value.type_().name()).unwrap();
    }
    text.push('\n');
}

/// The first of each kind that a short recording says, in which one chunk is given up and the others are stored.
fn said() -> (BTreeMap<String, gst::Structure>, gst::Structure, gst::Structure) {
    let server = GcsServer::spawn_thread();
    server.push_fault(Fault::status(503));
    // As a camera gives it: news of the sink's health go upstream once a second.
    let front = "videotestsrc is-live=true num-buffers=75 ! video/x-raw,format=I420,width=320,height=240,framerate=15/1 \
                 ! x264enc speed-preset=ultrafast tune=zerolatency key-int-max=15 ! h264parse ! flvmux streamable=true";
    let line = Line::new(front, &server, "max-size-time=1000000000 retry-timeout=1");
    let health = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&health);
    let pad = line.sink.static_pad("sink").unwrap();
    pad.add_probe(gst::PadProbeType::EVENT_UPSTREAM, move |_, info| {
        if let Some(gst::PadProbeData::Event(event)) = &info.data
            && let Some(structure) = event.structure()
            && structure.name() == "gcssink-health"
            && structure.has_field("object")
        {
            *seen.lock().unwrap() = Some(structure.to_owned());
        }
        gst::PadProbeReturn::Ok
    });
    line.play();
    let bus = line.pipeline.bus().unwrap();
    let mut said = BTreeMap::new();
    let mut ended = false;
    while !(ended && said.len() >= 3 && health.lock().unwrap().is_some()) {
        let message = bus
            .timed_pop(gst::ClockTime::from_seconds(60))
            .expect("three kinds of messages and EOS");
        match message.view() {
            gst::MessageView::Eos(_) => ended = true,
            gst::MessageView::Error(error) => panic!("{error:?}"),
            gst::MessageView::Element(element) => {
                let Some(structure) = element.structure().filter(|s| s.name().starts_with("gcssink-")) else {
                    continue;
                };
                if structure.name() == "gcssink-gap" {
                    // One chunk was given up; the others are to be stored.
                    line.sink.set_property("retry-timeout", 0u64);
                }
                said.entry(structure.name().to_string())
                    .or_insert_with(|| structure.to_owned());
            }
            _ => {}
        }
        assert!(
            !ended || health.lock().unwrap().is_some(),
            "no gcssink-health event went upstream; said: {said:?}"
        );
    }
    let stats = line.sink.property::<gst::Structure>("stats");
    line.stop();
    let health = health.lock().unwrap().take().unwrap();
    (said, stats, health)
}

fn messages(text: &mut String) {
    let (said, stats, health) = said();
    text.push_str("## Element messages of `gcssink`\n\n");
    for (name, structure) in &said {
        writeln!(text, "### `{name}`\n").unwrap();
        fields(structure, name, text);
    }
    text.push_str("## `stats`\n\n");
    fields(&stats, "stats", text);
    let more: Vec<String> = health
        .fields()
        .filter(|f| !stats.has_field(*f))
        .map(|f| format!("`{f}` (since {})", since::of("gcssink", health.name(), f)))
        .collect();
    writeln!(text, "## The upstream event `{}`\n", health.name()).unwrap();
    writeln!(
        text,
        "All fields of `stats`, and {}. On change, at most once a second.\n",
        more.join(", ")
    )
    .unwrap();
}

#[test]
fn the_reference_says_what_the_elements_say() {
    init();
    let mut text = String::from("\n");
    for (name, their_signals) in ELEMENTS {
        properties(name, &mut text);
        signals_of(name, their_signals, &mut text);
    }
    messages(&mut text);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference.md");
    assert!(
        is_written(&path, BEGIN, &text, END),
        "docs/reference.md is stale: run scripts/reference. It should be:\n{text}"
    );
}

/// The words between backticks.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The rows of the table of `iotcorestatus` that is written by hand, from `# Reference of` on.
fn rows_by_hand(document: &str) -> Vec<Vec<&str>> {
    let part = document.split_once("\n# Reference of `iotcorestatus`").expect("its part").1;
    let rows = part.lines().skip_while(|l| !l.starts_with("| property |")).skip(2);
    let rows = rows.take_while(|l| l.starts_with('|'));
    rows.map(|row| row.trim_matches('|').splitn(3, '|').map(str::trim).collect())
        .collect()
}

#[test]
fn the_table_of_iotcorestatus_names_its_properties_their_defaults_and_its_counters() {
    init();
    let document = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference.md")).unwrap();
    let element = gst::ElementFactory::make("iotcorestatus").build().unwrap();
    let rows = rows_by_hand(&document);
    let mut reported = Vec::new();
    for row in &rows {
        let (names, default, meaning) = (quoted(row[0]), row[1], row[2]);
        reported.extend(names.iter().copied());
        for name in names {
            let spec = element
                .find_property(name)
                .unwrap_or_else(|| panic!("there is no property {name}"));
            let is = default_of(&spec);
            let writable = spec.flags().contains(glib::ParamFlags::WRITABLE);
            assert_eq!(writable, !default.starts_with("read only"), "{name}");
            // Where the element has none, the table says what is taken instead.
            if writable && is != "NULL" {
                assert!(
                    default == is || default == format!("{is} for iotcore"),
                    "{name}: {default}, and it is {is}"
                );
            }
        }
        if row[0] == "`stats`" {
            let stats = element.property::<gst::Structure>("stats");
            let (strings, numbers) = meaning.split_once(" strings; ").expect("strings and numbers");
            let by_type = |type_| -> Vec<String> {
                let of_type = stats.iter().filter(|(_, value)| value.type_() == type_);
                of_type.map(|(field, _)| field.to_string()).collect()
            };
            assert_eq!(quoted(strings), by_type(glib::Type::STRING), "strings of stats");
            assert_eq!(quoted(numbers), by_type(glib::Type::U64), "numbers of stats");
            assert_eq!(stats.n_fields(), quoted(meaning).len());
            for field in stats.fields() {
                since::of("iotcorestatus", "stats", field);
            }
        }
    }
    reported.sort_unstable();
    let own = element.list_properties();
    let own = own.iter().filter(|s| s.owner_type() == element.type_());
    let mut own: Vec<&str> = own.map(|s| s.name()).collect();
    own.sort_unstable();
    assert_eq!(reported, own);
}

/// The keys of the custom metadata that a chunk can have.
fn metadata_keys() -> BTreeSet<String> {
    use gcstreamer_schema::metadata::{Gap, ObjectMetadata};
    let mut keys = BTreeSet::new();
    for sequence in [0, 1] {
        let metadata = ObjectMetadata {
            device: "cam1".to_owned(),
            session: "0123456789".to_owned(),
            sequence,
            start: 0,
            end: 0,
            duration: 0,
            pts_start: Some(0),
            container: gcstreamer_schema::Container::Flv,
            init_bytes: 0,
            init_crc32c: Some(0),
            preview_bytes: Some(0),
            key_frame: true,
            gap: Some(Gap::Other("damage".to_owned())),
            clock: gcstreamer_schema::reason::ClockKind::System,
            clock_step_ms: Some(1),
            codecs: Some("avc1.42c01e".to_owned()),
            previous_session: Some("0123456788".to_owned()),
        };
        keys.extend(metadata.to_map(&BTreeMap::new()).into_keys());
    }
    keys
}

#[test]
fn the_table_of_metadata_has_every_key_and_the_version_since_which_it_exists() {
    let document = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/reference.md")).unwrap();
    let part = document.split_once("\n## Custom metadata of an object").expect("its part").1;
    let rows = part.lines().skip_while(|l| !l.starts_with("| key |")).skip(2);
    let mut reported = BTreeSet::new();
    for row in rows.take_while(|l| l.starts_with('|')) {
        let cells: Vec<&str> = row.trim_matches('|').splitn(3, '|').map(str::trim).collect();
        for key in quoted(cells[0]) {
            assert_eq!(cells[1], since::of("gcssink", "metadata", key), "{key}");
            reported.insert(key.to_owned());
        }
    }
    assert_eq!(reported, metadata_keys());
}

#[test]
fn every_element_of_the_plugin_is_in_the_reference() {
    init();
    let registry = gst::Registry::get();
    let named: Vec<&str> = ELEMENTS.iter().map(|(name, _)| *name).collect();
    let found: Vec<String> = registry
        .features_by_plugin("gcstreamer")
        .iter()
        .map(|f| f.name().to_string())
        .collect();
    assert!(!found.is_empty());
    assert!(
        found.iter().all(|name| named.contains(&name.as_str())),
        "{found:?}, and the reference has {named:?}"
    );
}
