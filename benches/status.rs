//! What `iotcorestatus` costs its pipeline: the time of a push through it, and the throughput of a line with a dead broker.
//!
//! `cargo bench --bench status`

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    reason = "a bench talks to its user and may fail loudly"
)]

use std::time::{Duration, Instant};

use gst::prelude::*;

/// Buffers in each round; the best of the rounds counts, the others had company.
const PUSHES: u32 = 1_000_000;
const ROUNDS: usize = 9;
/// ns a buffer over `identity`.
const TARGET: f64 = 200.0;
/// Frames of the whole line.
const FRAMES: u32 = 20_000;

fn main() {
    gst::init().unwrap();
    gstgcstreamer::plugin_register_static().unwrap();
    println!("\n## Time of a push through an element, ns a buffer (best of {ROUNDS} rounds of {PUSHES})\n");
    println!("| element | buffers | lists of 50, each buffer | with a reference timestamp |\n|---|---:|---:|---:|");
    let none = row("none: two pads", None);
    let identity = row("identity silent=true", Some(make("identity")));
    let status = row("iotcorestatus, dead broker", Some(status()));
    let over = status.0 - identity.0;
    let verdict = if over < TARGET { "met" } else { "MISSED" };
    println!(
        "\nover identity: {over:.0} ns, over nothing: {:.0} ns (target {TARGET:.0} over identity: {verdict})",
        status.0 - none.0
    );
    println!("\n## A line of {FRAMES} raw frames, frames a second\n\n| line | frames/s |\n|---|---:|");
    let with = "iotcorestatus protocol=mqtt host=127.0.0.1 port=9 device-id=bench shutdown-timeout=0 !";
    for (name, element) in [
        ("without", ""),
        ("with a dead broker", with),
        ("without", ""),
        ("with a dead broker", with),
    ] {
        println!("| {name} | {:.0} |", line(element));
    }
}

fn make(name: &str) -> gst::Element {
    gst::ElementFactory::make(name).build().unwrap()
}

fn status() -> gst::Element {
    gst::ElementFactory::make("iotcorestatus")
        .property_from_str("protocol", "mqtt")
        .property("host", "127.0.0.1")
        .property("port", 9u32)
        .property("device-id", "bench")
        .property("shutdown-timeout", 0u64)
        .build()
        .unwrap()
}

fn row(name: &str, element: Option<gst::Element>) -> (f64, f64) {
    let front = gst::Pad::builder(gst::PadDirection::Src).build();
    let back = gst::Pad::builder(gst::PadDirection::Sink)
        .chain_function(|_, _, _| Ok(gst::FlowSuccess::Ok))
        .chain_list_function(|_, _, _| Ok(gst::FlowSuccess::Ok))
        .build();
    back.set_active(true).unwrap();
    match &element {
        Some(element) => {
            front.link(&element.static_pad("sink").unwrap()).unwrap();
            element.static_pad("src").unwrap().link(&back).unwrap();
            element.set_state(gst::State::Playing).unwrap();
        }
        None => {
            front.link(&back).unwrap();
        }
    }
    front.set_active(true).unwrap();
    front.push_event(gst::event::StreamStart::new("bench"));
    front.push_event(gst::event::Segment::new(&gst::FormattedSegment::<gst::ClockTime>::new()));
    let plain = gst::Buffer::from_slice([0u8; 1400]);
    let buffers = best(PUSHES, || {
        front.push(plain.clone()).unwrap();
    });
    let mut list = gst::BufferList::new();
    (0..50).for_each(|_| list.get_mut().unwrap().add(plain.clone()));
    let lists = best(PUSHES / 50, || {
        front.push_list(list.clone()).unwrap();
    }) / 50.0;
    let mut dated = gst::Buffer::from_slice([0u8; 1400]);
    {
        let dated = dated.get_mut().unwrap();
        dated.set_pts(gst::ClockTime::from_seconds(1));
        let caps = gst::Caps::new_empty_simple("timestamp/x-unix");
        gst::ReferenceTimestampMeta::add(
            dated,
            &caps,
            gst::ClockTime::from_seconds(1_795_329_912),
            gst::ClockTime::NONE,
        );
    }
    let dates = best(PUSHES, || {
        front.push(dated.clone()).unwrap();
    });
    println!("| {name} | {buffers:.0} | {lists:.0} | {dates:.0} |");
    let _ = front.set_active(false);
    if let Some(element) = element {
        element.set_state(gst::State::Null).unwrap();
    }
    (buffers, lists)
}

/// ns of one call, in the best round.
fn best(calls: u32, mut call: impl FnMut()) -> f64 {
    let round = |call: &mut dyn FnMut()| {
        let start = Instant::now();
        (0..calls).for_each(|_| call());
        start.elapsed()
    };
    let times = (0..ROUNDS).map(|_| round(&mut call));
    times.min().unwrap_or(Duration::MAX).as_nanos() as f64 / f64::from(calls)
}

fn line(element: &str) -> f64 {
    let text = format!(
        "videotestsrc pattern=black num-buffers={FRAMES} ! video/x-raw,format=GRAY8,width=320,height=240 ! {element} fakesink"
    );
    let pipeline = gst::parse::launch(&text).unwrap();
    let start = Instant::now();
    pipeline.set_state(gst::State::Playing).unwrap();
    let bus = pipeline.bus().unwrap();
    let end = bus.timed_pop_filtered(
        gst::ClockTime::from_seconds(300),
        &[gst::MessageType::Eos, gst::MessageType::Error],
    );
    assert_eq!(end.unwrap().type_(), gst::MessageType::Eos);
    let rate = f64::from(FRAMES) / start.elapsed().as_secs_f64();
    pipeline.set_state(gst::State::Null).unwrap();
    rate
}
