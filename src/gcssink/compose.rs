//! Decides what is posted and adds the figures, before [`messages`] writes the text. Runs in GStreamer's thread pool without a
//! lock held, so it may query the flow group, the queue and the disk.

use std::sync::atomic::Ordering;

use gst::prelude::*;

use super::debug::CAT;
use super::messages::{self, Post};
use super::session::Session;
use super::stats;
use super::stream_messages::fault_text;
use crate::base::lock::lock;
use crate::element::terminal;
use crate::flow::pending::Pending;
use crate::ingest::message::Message;
use crate::upload::chunk::Summary;
use crate::upload::health::HealthEvent;
use crate::upload::report::Report;
use gcstreamer_schema::units::bytes;

/// Delivers one post. `session`: the running one, if any. `notify_status`: notifies the property `status` if it has changed.
pub(super) fn publish(element: &gst::Element, session: Option<&Session>, post: Post, notify_status: &dyn Fn()) {
    match post {
        Post::Engine(Message::Report(report)) => {
            publish_report(element, session, report, notify_status);
            if let Some(session) = session {
                session.reported.health.store(true, Ordering::Relaxed);
            }
        }
        Post::Engine(Message::Started {
            object,
            bucket,
            endpoint,
        }) => {
            if let Some(session) = session.filter(|s| s.reported.reported_once.is_new("started")) {
                let backlog = stats::backlog(session);
                messages::started(element, &object, &bucket, endpoint.as_deref(), &backlog);
            }
        }
        Post::Engine(message) => {
            // After a stop without EOS, the application may no longer read the bus.
            if let Message::Fault(fault) = &message
                && session.is_none_or(|s| s.engine.is_stopping())
            {
                terminal::warn(element, &fault_text(fault));
            }
            messages::post(element, message);
        }
        Post::NeedsMuxer(text) => messages::needs_muxer(element, &text),
        Post::Info(text) => messages::info(element, &text),
        Post::Doubt(text) => messages::doubt(element, &text),
        Post::Health => {
            if let Some(session) = session {
                let structure = stats::health(session);
                element.sink_pads().iter().for_each(|pad| {
                    pad.push_event(gst::event::CustomUpstream::new(structure.clone()));
                });
            }
        }
    }
}

fn publish_report(element: &gst::Element, session: Option<&Session>, report: Report, notify_status: &dyn Fn()) {
    match report {
        Report::Uploaded {
            summary,
            object,
            device,
            generation,
            crc32c,
            latency,
        } => {
            if let Some(session) = session {
                uploaded(session, &object);
            }
            messages::uploaded(element, &summary, (&object, &device), generation, crc32c, latency);
            // This success may end an outage whose failing sinks have left.
            if let Some(after) = session.and_then(|s| s.engine.flow.ends_left_outage()) {
                messages::recovered(element, after, "what waits in the spool is being stored");
            }
        }
        Report::Dropped { summary, reason } => dropped(element, &summary, reason, 1),
        Report::GivenUp { summary, timeout, why } => {
            if session.is_none_or(|s| s.reported.reported_once.is_new("a chunk was given up")) {
                messages::given_up(element, &summary, timeout, &why);
            }
        }
        Report::Cut { summary, reason } => dropped(element, &summary, reason, 0),
        Report::HealthEvent(event, pending) => publish_health(element, session, (event, pending), notify_status),
        Report::Warning(text) => messages::warning(element, &text),
        Report::Disk { fault, text } => messages::disk(element, fault, &text),
        Report::DiskWorks => messages::disk_works(element),
        Report::Left { left, lost } => {
            let dir = session.and_then(|s| s.spool_dir.as_deref()).unwrap_or_default();
            messages::left(element, left, lost, dir);
        }
        Report::Recovered(pending) => messages::found(element, pending),
        Report::ClockOff(seconds) => messages::clock_off(element, seconds),
    }
}

fn uploaded(session: &Session, object: &str) {
    *lock(&session.reported.last_object) = Some(object.to_owned());
    if session.reported.reported_once.is_new("uploads work") {
        let text = format!("uploads work; {}", stats::memory_left(session));
        session.poster.post(Post::Info(text));
    }
}

/// Logs and reports a dropped chunk. `chunks` is 0 if the beginning of the chunk is kept.
fn dropped(element: &gst::Element, summary: &Summary, reason: &'static str, chunks: u64) {
    gst::warning!(
        CAT,
        obj = element,
        "{} of chunk {} are dropped: {reason}",
        bytes(summary.size),
        summary.sequence
    );
    messages::dropped(element, summary, reason, chunks);
}

fn publish_health(
    element: &gst::Element,
    session: Option<&Session>,
    (event, pending): (HealthEvent, Pending),
    notify_status: &dyn Fn(),
) {
    let flow = session.map(|s| &s.engine.flow);
    match event {
        HealthEvent::Status(status, reason) => {
            notify_status();
            messages::status(element, status, &reason, pending);
        }
        // Only one sink of a flow group reports an outage.
        HealthEvent::Outage { .. } if flow.is_some_and(|f| !f.begins_outage()) => {}
        // Each sink reports a refusal, and also its end.
        HealthEvent::Recovered { refused, .. } if flow.is_some_and(|f| !f.ends_outage()) && !refused => {}
        HealthEvent::Outage { first, reason } => {
            // The one report covers all sinks of the group.
            let pending = flow.map_or(pending, |f| f.waiting_in_group(pending));
            let left = session.map_or_else(String::new, stats::memory_left);
            messages::outage(element, first, &reason, pending, &left);
        }
        HealthEvent::Recovered { after, refused } => {
            let pending = flow.filter(|_| !refused).map_or(pending, |f| f.waiting_in_group(pending));
            messages::recovered(element, after, &messages::waiting(pending));
        }
        HealthEvent::Fatal { http_status, reason } => {
            // Posted before `refuse`: otherwise the upstream elements post an ERROR of their own first, without the reason.
            messages::fatal(element, http_status, &reason);
            if let Some(session) = session {
                session.engine.refuse();
            }
        }
        HealthEvent::Refused { http_status, reason } => messages::refused(element, http_status, &reason, pending),
    }
}
