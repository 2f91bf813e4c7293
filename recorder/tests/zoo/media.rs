//! Pictures and sound as RTP packets, made once by GStreamer's encoders.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use gst::prelude::*;

use super::repack::{Packing, repack};

/// One packet and when it is due.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    pub(crate) at: Duration,
    pub(crate) data: Vec<u8>,
    /// It ends a picture.
    pub(crate) ends_picture: bool,
}

/// One track.
#[derive(Debug)]
pub(crate) struct Track {
    pub(crate) packets: Vec<Packet>,
    /// Its lines of the SDP, without `a=control`.
    pub(crate) sdp: String,
}

fn make(line: &str, media: &str) -> Track {
    let pipeline = gst::parse::launch(&format!("{line} ! fakesink name=out signal-handoffs=true sync=false"))
        .unwrap_or_else(|e| panic!("{line}: {e}"))
        .downcast::<gst::Pipeline>()
        .unwrap();
    let packets: Arc<Mutex<Vec<Packet>>> = Arc::default();
    let into = Arc::clone(&packets);
    let out = pipeline.by_name("out").unwrap();
    out.connect("handoff", false, move |values| {
        let buffer = values[1].get::<gst::Buffer>().unwrap();
        let data = buffer.map_readable().unwrap().to_vec();
        let at = Duration::from_nanos(buffer.dts_or_pts().unwrap().nseconds());
        into.lock().unwrap().push(Packet {
            ends_picture: data[1] & 0x80 != 0,
            at,
            data,
        });
        None
    });
    pipeline.set_state(gst::State::Playing).unwrap();
    let bus = pipeline.bus().unwrap();
    let message = bus
        .timed_pop_filtered(
            gst::ClockTime::from_seconds(60),
            &[gst::MessageType::Eos, gst::MessageType::Error],
        )
        .unwrap();
    assert_eq!(message.type_(), gst::MessageType::Eos, "{message:?}");
    let caps = out.static_pad("sink").unwrap().current_caps().unwrap();
    let structure = caps.structure(0).unwrap();
    let text = |field: &str| structure.get::<String>(field).ok();
    let (payload, rate): (i32, i32) = (structure.get("payload").unwrap(), structure.get("clock-rate").unwrap());
    let name = text("encoding-name").unwrap();
    let channels = text("encoding-params").map(|n| format!("/{n}")).unwrap_or_default();
    let known = [
        "packetization-mode",
        "streamtype",
        "mode",
        "config",
        "sizelength",
        "indexlength",
        "indexdeltalength",
        "profile-level-id",
        "cpresent",
        "sprop-stereo",
    ];
    let fmtp: Vec<String> = known.iter().filter_map(|key| Some(format!("{key}={}", text(key)?))).collect();
    pipeline.set_state(gst::State::Null).unwrap();
    let mut packets = packets.lock().unwrap().clone();
    let first = packets.iter().map(|p| p.at).min().unwrap();
    packets.iter_mut().for_each(|p| p.at -= first);
    let fmtp = if fmtp.is_empty() {
        String::new()
    } else {
        format!("a=fmtp:{payload} {}\r\n", fmtp.join(";"))
    };
    Track {
        packets,
        sdp: format!("m={media} 0 RTP/AVP {payload}\r\na=rtpmap:{payload} {name}/{rate}{channels}\r\n{fmtp}"),
    }
}

/// Pictures a second.
pub(crate) const RATE: u32 = 15;
/// Seconds that there are of everything.
const SECONDS: u32 = 100;

fn pictures(width: u32, encoder: &str, pay: &str) -> Track {
    make(
        &format!(
            "videotestsrc num-buffers={} pattern=ball ! video/x-raw,format=I420,width={width},height={},framerate={RATE}/1 ! {encoder} ! {pay}",
            SECONDS * RATE,
            width * 3 / 4
        ),
        "video",
    )
}

fn sound(rate: u32, channels: u32, encoder: &str) -> Track {
    make(
        &format!(
            "audiotestsrc num-buffers={} samplesperbuffer={} ! audio/x-raw,rate={rate},channels={channels} ! {encoder} seqnum-offset=0 timestamp-offset=0",
            SECONDS * 50,
            rate / 50
        ),
        "audio",
    )
}

/// The track at half its speed: fewer pictures come than its SPS declares.
fn slow(track: &Track) -> Track {
    let packets = track.packets.iter().map(|packet| {
        let mut data = packet.data.clone();
        let timestamp = u32::from_be_bytes(data[4..8].try_into().unwrap());
        data[4..8].copy_from_slice(&timestamp.wrapping_mul(2).to_be_bytes());
        Packet {
            at: packet.at * 2,
            data,
            ends_picture: packet.ends_picture,
        }
    });
    Track {
        packets: packets.collect(),
        sdp: track.sdp.clone(),
    }
}

/// A track by its name; each is made once.
pub(crate) fn track(name: &str) -> Arc<Track> {
    static TRACKS: LazyLock<Mutex<BTreeMap<String, Arc<Track>>>> = LazyLock::new(Mutex::default);
    gst::init().unwrap();
    if name == "h264-slow" {
        let plain = track("h264");
        let mut tracks = TRACKS.lock().unwrap();
        return Arc::clone(tracks.entry(name.to_owned()).or_insert_with(|| Arc::new(slow(&plain))));
    }
    let packed = match name {
        "annex-b" => Some(Packing::AnnexB),
        "empty-fragments" => Some(Packing::EmptyFragments),
        "aggregated" => Some(Packing::Aggregated),
        _ => None,
    };
    if let Some(how) = packed {
        let plain = track("h264");
        let mut tracks = TRACKS.lock().unwrap();
        return Arc::clone(tracks.entry(name.to_owned()).or_insert_with(|| Arc::new(repack(&plain, how))));
    }
    let mut tracks = TRACKS.lock().unwrap();
    let x264 = |more: &str| {
        format!(
            "x264enc speed-preset=ultrafast threads=1 bitrate=200 key-int-max=15 {more} ! video/x-h264,profile={}",
            if more.contains("bframes") { "main" } else { "baseline" }
        )
    };
    let h264 = "rtph264pay pt=96 mtu=1200 config-interval=-1 seqnum-offset=0 timestamp-offset=0";
    let make = || match name {
        "h264" => pictures(160, &x264("tune=zerolatency"), h264),
        "h264-large" => pictures(320, &x264("tune=zerolatency"), h264),
        // Otherwise the payloader puts parameter sets between the slices.
        "h264-slices" => pictures(
            160,
            &x264("tune=zerolatency option-string=slices=4").replace("profile=", "stream-format=byte-stream,profile="),
            "rtph264pay pt=96 mtu=1200 config-interval=0 seqnum-offset=0 timestamp-offset=0",
        ),
        // The payloader puts parameter sets between the slices of key frames.
        "h264-sets-between" => pictures(
            160,
            &x264("tune=zerolatency option-string=slices=4").replace("profile=", "stream-format=byte-stream,profile="),
            h264,
        ),
        // The same pictures with other words about their colours: the SPS differs.
        "h264-colours" => pictures(
            160,
            &x264("tune=zerolatency option-string=colorprim=bt709:transfer=bt709"),
            h264,
        ),
        // A key frame every six seconds.
        "h264-long-gop" => pictures(
            160,
            &x264("tune=zerolatency").replace("key-int-max=15", "key-int-max=90"),
            h264,
        ),
        // One key frame, then none.
        "endless-gop" => pictures(
            160,
            "x264enc speed-preset=ultrafast threads=1 bitrate=200 key-int-max=100000 tune=zerolatency ! video/x-h264,profile=baseline",
            h264,
        ),
        "b-frames" => pictures(160, &x264("bframes=2 b-adapt=false rc-lookahead=0"), h264),
        "h265" => pictures(
            160,
            "x265enc tune=zerolatency speed-preset=ultrafast bitrate=200 key-int-max=15 option-string=open-gop=0:scenecut=0:pools=none:frame-threads=1:log-level=none ! h265parse",
            "rtph265pay pt=96 mtu=1200 config-interval=-1 seqnum-offset=0 timestamp-offset=0",
        ),
        "aac" => make(
            &format!(
                "audiotestsrc num-buffers={} samplesperbuffer=1024 ! audio/x-raw,rate=16000,channels=1 ! avenc_aac bitrate=32000 ! aacparse ! rtpmp4gpay pt=97 seqnum-offset=0 timestamp-offset=0",
                SECONDS * 16
            ),
            "audio",
        ),
        "pcmu" => make(
            &format!(
                "audiotestsrc num-buffers={} samplesperbuffer=160 ! audio/x-raw,rate=8000,channels=1 ! mulawenc ! rtppcmupay pt=0 seqnum-offset=0 timestamp-offset=0",
                SECONDS * 50
            ),
            "audio",
        ),
        "pcma" => sound(8000, 1, "alawenc ! rtppcmapay pt=8"),
        "opus" => sound(48_000, 2, "opusenc ! rtpopuspay pt=98"),
        "l16" => sound(16_000, 1, "audioconvert ! audio/x-raw,format=S16BE ! rtpL16pay pt=99"),
        "latm" => sound(16_000, 1, "avenc_aac bitrate=32000 ! aacparse ! rtpmp4apay pt=100"),
        other => panic!("no track {other}"),
    };
    Arc::clone(tracks.entry(name.to_owned()).or_insert_with(|| Arc::new(make())))
}
