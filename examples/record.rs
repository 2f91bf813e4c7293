//! Records into Cloud Storage from a Rust application that holds `gcssink` itself: no plugin has to be installed.
//!
//! `cargo run --example record -- BUCKET [SOURCE]`, where SOURCE is a launch line up to its muxer.
//!
//! Prints the element's messages and its `status`; Ctrl-C ends by EOS, so that the last chunk is complete.
#![allow(clippy::print_stdout, reason = "printing is what it is for")]

use std::error::Error;
use std::sync::{Arc, Mutex};

use gst::glib;
use gst::prelude::*;

/// A test picture where no source is given.
const TEST_SOURCE: &str = "videotestsrc is-live=true ! video/x-raw,framerate=15/1 ! x264enc tune=zerolatency key-int-max=15 \
     ! h264parse ! flvmux streamable=true";

fn pipeline(bucket: &str, source: &str) -> Result<(gst::Pipeline, gst::Element), Box<dyn Error>> {
    let source = gst::parse::bin_from_description(source, true)?;
    let sink = gst::ElementFactory::make("gcssink")
        .property("bucket", bucket)
        .property("device-id", "example-rust")
        .property("max-size-time", 2 * gst::ClockTime::SECOND.nseconds())
        .build()?;
    let pipeline = gst::Pipeline::new();
    pipeline.add(&source)?;
    pipeline.add(&sink)?;
    source.link(&sink)?;
    Ok((pipeline, sink))
}

/// What gcssink says of the recording.
fn print_message(message: &gst::StructureRef) {
    match message.name().as_str() {
        "gcssink-chunk-uploaded" => {
            // Only now is the chunk in the bucket for certain.
            let object = message.get::<&str>("object").unwrap_or_default();
            let size = message.get::<u64>("size").unwrap_or_default();
            println!("gcssink-chunk-uploaded {object} {size} bytes");
        }
        "gcssink-gap" => {
            let start = message.get::<&str>("start-time").unwrap_or_default();
            let reason = message.get::<&str>("reason").unwrap_or_default();
            let duration = message.get::<u64>("duration").unwrap_or_default();
            println!("gcssink-gap {start} {} ms: {reason}", duration / 1_000_000);
        }
        "gcssink-status" => {
            let status = message.get::<&str>("status").unwrap_or_default();
            let reason = message.get::<&str>("reason").unwrap_or_default();
            let pending = message.get::<u64>("pending-chunks").unwrap_or_default();
            println!("gcssink-status {status}, {pending} chunks wait {reason}");
        }
        _ => {}
    }
}

/// EOS runs through the muxer to the sink, which returns it once everything is stored, or after `drain-timeout`.
fn end_on_interrupt(pipeline: &gst::Pipeline) {
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
        return;
    };
    if runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
        println!("interrupted: sending EOS");
        pipeline.send_event(gst::event::Eos::new());
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut words = std::env::args().skip(1);
    let bucket = words.next().ok_or("usage: record BUCKET [SOURCE]")?;
    let source = words.next().unwrap_or_else(|| TEST_SOURCE.to_owned());

    gst::init()?;
    // The element is part of this program: nothing is looked for in plugin folders.
    gstgcstreamer::plugin_register_static()?;
    let (pipeline, sink) = pipeline(&bucket, &source)?;

    // Called from a thread of GStreamer's.
    sink.connect_notify(Some("status"), |sink, _| {
        if let Some((_, status)) = glib::EnumValue::from_value(&sink.property_value("status")) {
            println!("status is {}", status.nick());
        }
    });

    let main_loop = glib::MainLoop::new(None, false);
    let fault = Arc::new(Mutex::new(None));
    let bus = pipeline.bus().ok_or("a pipeline has a bus")?;
    let _watch = bus.add_watch({
        let (main_loop, fault) = (main_loop.clone(), Arc::clone(&fault));
        move |_, message| {
            match message.view() {
                gst::MessageView::Element(element) => element.structure().into_iter().for_each(print_message),
                gst::MessageView::Warning(warning) => println!("warning: {}", warning.error()),
                gst::MessageView::Error(error) => {
                    if let Ok(mut fault) = fault.lock() {
                        *fault = Some(error.error());
                    }
                    main_loop.quit();
                }
                gst::MessageView::Eos(_) => main_loop.quit(),
                _ => {}
            }
            glib::ControlFlow::Continue
        }
    })?;

    let interrupted = pipeline.clone();
    std::thread::spawn(move || end_on_interrupt(&interrupted));

    pipeline.set_state(gst::State::Playing)?;
    main_loop.run();
    pipeline.set_state(gst::State::Null)?;
    let fault = fault.lock().ok().and_then(|mut fault| fault.take());
    fault.map_or(Ok(()), |fault| Err(fault.into()))
}
