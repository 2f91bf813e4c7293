//! The contract's second table: what is reported of pipeline and uploads together.

use super::*;

#[test]
fn a_camera_whose_uplink_is_down_is_no_dead_camera() {
    let mut pipeline = SimulatedPipeline::streaming().with_sink(true);
    pipeline.run(5.0);
    let sample = &mut pipeline.sink.as_mut().unwrap().0;
    sample.status = UploadStatus::from_name("offline");
    (sample.chunks_pending, sample.bytes_held, sample.oldest_pending) = (3, 5000, 30 * S);
    pipeline.run(0.2);
    pipeline.is(Phase::Streaming);
    let status = pipeline.last();
    assert_eq!(
        (&status["state"], &status["reason"]),
        (&"connected".into(), &"upload-offline".into())
    );
    assert_eq!(status["upload"]["status"], "offline");
    assert_eq!(status["upload"]["backlog_bytes"], 5000);
    assert_eq!(status["upload"]["oldest_pending_s"], 30.0);
    assert_eq!(status["recording"], true);
}

#[test]
fn a_frozen_camera_with_an_idle_sink_is_stalled() {
    let mut pipeline = SimulatedPipeline::streaming().with_sink(true);
    pipeline.run(5.0);
    pipeline.frames = false;
    pipeline.run(15.0);
    pipeline.is(Phase::Stalled);
    assert_eq!(pipeline.last()["upload"]["status"], "online");
    pipeline.frames = true;
    pipeline.run(0.2);
    pipeline.is(Phase::Streaming);
}

#[test]
fn a_recording_that_rests_by_command_is_connected_and_says_so() {
    let mut pipeline = SimulatedPipeline::streaming().with_sink(true);
    pipeline.run(1.0);
    pipeline.handle(Event::Record(false));
    pipeline.run(60.0);
    pipeline.is(Phase::Streaming);
    assert_eq!(pipeline.last()["recording"], false);
    assert_eq!(pipeline.last()["reason"], "record-stopped");
    pipeline.sink.as_mut().unwrap().1 = false;
    pipeline.run(11.0);
    pipeline.is(Phase::NotRecording);
    pipeline.handle(Event::Record(true));
    pipeline.sink.as_mut().unwrap().1 = true;
    pipeline.run(1.0);
    assert_eq!(pipeline.last()["recording"], true);
}
