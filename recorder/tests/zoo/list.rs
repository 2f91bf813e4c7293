//! The cameras of the zoo, and the expected result of each.

use std::time::Duration;

use super::camera::{Act, Login, Rude, Then, Torn};

/// What must be in the bucket and on `/status`.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Expected {
    /// All pictures, in as many sessions as there are start reasons; sound packets too, or none.
    Recorded(&'static [&'static str], Sound),
    /// Nothing; the state and words of its reason.
    Fault(&'static str, &'static str),
    /// As `Fault`, and one attempt only.
    OneAttempt(&'static str, &'static str),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Sound {
    Some,
    None,
    /// In the last chunk too.
    ToTheEnd,
}

const STARTED: &str = "recorder-started";

fn sends(names: &[&'static str]) -> Act {
    Act {
        sends: names.to_vec(),
        ..Act::default()
    }
}

fn after(pictures: u64, then: Then) -> Act {
    Act {
        pictures: Some(pictures),
        then,
        ..sends(&["h264"])
    }
}

fn refuses(method: &'static str, status: &'static str) -> Act {
    Act {
        refuses: Some((method, status)),
        ..sends(&["h264"])
    }
}

fn rude(how: Rude) -> Act {
    Act {
        rude: Some(how),
        ..Act::default()
    }
}

/// It freezes in the middle of the fourth key frame.
fn torn(track: &'static str, how: Torn) -> Act {
    Act {
        pictures: Some(45),
        torn: Some(how),
        ..sends(&[track])
    }
}

/// The marker bit is set on every packet but the last of a picture, where it belongs.
fn wrong_marker(packet: &mut [u8], ends_picture: bool) {
    packet[1] = packet[1] & 0x7f | if ends_picture { 0 } else { 0x80 };
}

/// Its time stamps freeze.
fn one_time(packet: &mut [u8], _: bool) {
    packet[4..8].copy_from_slice(&[0x3b, 0x9a, 0xca, 0]);
}

fn writes(sdp: fn(&str) -> String) -> Act {
    Act {
        sdp: Some(sdp),
        ..sends(&["h264"])
    }
}

fn lines(sdp: &str, keep: impl Fn(&str) -> bool) -> String {
    sdp.split_inclusive("\r\n").filter(|line| keep(line)).collect()
}

/// Name, further lines of the configuration, script, expected result.
pub(crate) fn zoo() -> Vec<(&'static str, &'static str, Vec<Act>, Expected)> {
    use Expected::{Fault, OneAttempt, Recorded};
    let announced = |section: &str| Act {
        announces: vec![section.to_owned()],
        ..sends(&["h264"])
    };
    vec![
        (
            "sdp-without-origin",
            "",
            vec![writes(|sdp| lines(sdp, |line| !line.starts_with("o=")))],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "sdp-two-names",
            "",
            vec![writes(|sdp| sdp.replace("s=cam", "s=cam\r\ns=again"))],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "sdp-trailing-blanks",
            "",
            vec![writes(|sdp| sdp.replace("\r\n", "  \r\n"))],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "sdp-bare-newlines",
            "",
            vec![writes(|sdp| sdp.replace("\r\n", "\n"))],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "403",
            "",
            vec![refuses("DESCRIBE", "403 Forbidden")],
            OneAttempt("refused", "403"),
        ),
        (
            "500",
            "",
            vec![refuses("PLAY", "500 Internal Server Error")],
            Fault("unreachable", "500"),
        ),
        ("normal", "", vec![sends(&["h264"])], Recorded(&[STARTED], Sound::None)),
        ("h265", "", vec![sends(&["h265"])], Recorded(&[STARTED], Sound::None)),
        ("b-frames", "", vec![sends(&["b-frames"])], Recorded(&[STARTED], Sound::None)),
        (
            "mpegts",
            "container = \"mpegts\"",
            vec![sends(&["h264", "aac"])],
            Recorded(&[STARTED], Sound::Some),
        ),
        (
            "matroska",
            "container = \"matroska\"",
            vec![sends(&["h264", "aac"])],
            Recorded(&[STARTED], Sound::Some),
        ),
        (
            "flv",
            "container = \"flv\"",
            vec![sends(&["h264", "aac"])],
            Recorded(&[STARTED], Sound::Some),
        ),
        (
            "sound-aac",
            "",
            vec![sends(&["h264", "aac"])],
            Recorded(&[STARTED], Sound::Some),
        ),
        (
            "sound-g711",
            "",
            vec![sends(&["h264", "pcmu"])],
            Recorded(&[STARTED], Sound::Some),
        ),
        (
            "sound-off",
            "audio = \"off\"",
            vec![sends(&["h264", "aac"])],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "sound-never-sent",
            "",
            vec![announced("m=audio 0 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000\r\n")],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "sound-stops",
            "",
            vec![Act {
                sound: Some((Duration::ZERO, Duration::from_secs(4))),
                ..sends(&["h264", "aac"])
            }],
            Recorded(&[STARTED], Sound::Some),
        ),
        (
            "sound-unknown",
            "",
            vec![announced("m=audio 0 RTP/AVP 99\r\na=rtpmap:99 SPEEX/16000\r\n")],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "metadata-track",
            "",
            vec![announced(
                "m=application 0 RTP/AVP 107\r\na=rtpmap:107 vnd.onvif.metadata/90000\r\n",
            )],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "wrong-marker",
            "",
            vec![Act {
                spoil: Some(wrong_marker),
                ..sends(&["h264"])
            }],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "frozen",
            "",
            vec![after(40, Then::Freeze), sends(&["h264"])],
            Recorded(&[STARTED, "camera-frozen"], Sound::None),
        ),
        (
            "reboot",
            "",
            vec![after(40, Then::Close), rude(Rude::Closes), sends(&["h264"])],
            Recorded(&[STARTED, "camera-unreachable"], Sound::None),
        ),
        (
            "other-resolution",
            "",
            vec![after(40, Then::Change("h264-large")), sends(&["h264-large"])],
            Recorded(&[STARTED, "reconfigured"], Sound::None),
        ),
        (
            "password",
            "username = \"rec\"\npassword-file = \"good.pw\"",
            vec![Act {
                wants: Some(("rec", "hunter2-SECRET")),
                ..sends(&["h264"])
            }],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "401-for-ever",
            "username = \"rec\"\npassword-file = \"bad.pw\"",
            vec![Act {
                wants: Some(("rec", "hunter2-SECRET")),
                ..sends(&["h264"])
            }],
            OneAttempt("refused", "password-file"),
        ),
        (
            "404",
            "",
            vec![refuses("DESCRIBE", "404 Not Found")],
            Fault("unreachable", "404"),
        ),
        (
            "453",
            "",
            vec![refuses("SETUP", "453 Not Enough Bandwidth")],
            OneAttempt("unreachable", "453"),
        ),
        (
            "503",
            "",
            vec![refuses("DESCRIBE", "503 Service Unavailable")],
            OneAttempt("unreachable", "503"),
        ),
        (
            "stale-session",
            "",
            vec![refuses("PLAY", "454 Session Not Found")],
            OneAttempt("unreachable", "454"),
        ),
        (
            "jpeg-only",
            "",
            vec![Act {
                announces: vec!["m=video 0 RTP/AVP 26\r\na=rtpmap:26 JPEG/90000\r\n".to_owned()],
                ..Act::default()
            }],
            Fault("unsupported", "JPEG"),
        ),
        (
            "digest",
            "username = \"rec\"\npassword-file = \"good.pw\"",
            vec![Act {
                wants: Some(("rec", "hunter2-SECRET")),
                login: Login::Digest,
                ..sends(&["h264"])
            }],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "digest-wrong",
            "username = \"rec\"\npassword-file = \"bad.pw\"",
            vec![Act {
                wants: Some(("rec", "hunter2-SECRET")),
                login: Login::Digest,
                ..sends(&["h264"])
            }],
            OneAttempt("refused", "password-file"),
        ),
        (
            "digest-sha256",
            "username = \"rec\"\npassword-file = \"good.pw\"",
            vec![Act {
                wants: Some(("rec", "hunter2-SECRET")),
                login: Login::Sha256,
                ..sends(&["h264"])
            }],
            OneAttempt("refused", "SHA-256"),
        ),
        (
            "sound-late",
            "",
            vec![
                Act {
                    sound: Some((Duration::from_secs(5), Duration::from_secs(100))),
                    ..sends(&["h264", "aac"])
                },
                sends(&["h264", "aac"]),
            ],
            Recorded(&[STARTED, "reconfigured"], Sound::Some),
        ),
        (
            "sound-alaw",
            "",
            vec![sends(&["h264", "pcma"])],
            Recorded(&[STARTED], Sound::Some),
        ),
        (
            "sound-opus",
            "",
            vec![sends(&["h264", "opus"])],
            Recorded(&[STARTED], Sound::Some),
        ),
        (
            "sound-l16",
            "",
            vec![sends(&["h264", "l16"])],
            Recorded(&[STARTED], Sound::Some),
        ),
        (
            "sound-latm",
            "",
            vec![sends(&["h264", "latm"])],
            Recorded(&[STARTED], Sound::Some),
        ),
        (
            "backchannel",
            "",
            vec![announced("m=audio 0 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=sendonly\r\n")],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "backchannel-first",
            "",
            vec![Act {
                sdp: Some(|sdp| {
                    let backchannel = "m=audio 0 RTP/AVP 0\r\na=rtpmap:0 PCMU/8000\r\na=sendonly\r\na=control:track7\r\nm=audio";
                    sdp.replacen("m=audio", backchannel, 1)
                }),
                ..sends(&["h264", "aac"])
            }],
            Recorded(&[STARTED], Sound::ToTheEnd),
        ),
        (
            "pauses",
            "stall-timeout = \"10s\"",
            vec![Act {
                pauses: Some((30, Duration::from_secs(5))),
                ..sends(&["h264", "aac"])
            }],
            Recorded(&[STARTED], Sound::ToTheEnd),
        ),
        (
            "another-source",
            "",
            vec![Act {
                changes_source: Some(40),
                ..sends(&["h264", "aac"])
            }],
            Recorded(&[STARTED], Sound::ToTheEnd),
        ),
        (
            "numbers-announced-far-ahead",
            "",
            vec![Act {
                info: Some(30_000),
                ..sends(&["h264", "aac"])
            }],
            Recorded(&[STARTED], Sound::Some),
        ),
        (
            "numbers-announced-a-little-ahead",
            "",
            vec![Act {
                info: Some(20),
                ..sends(&["h264"])
            }],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "aac-without-configuration",
            "",
            vec![Act {
                sdp: Some(|sdp| sdp.replace("config=", "x=")),
                ..sends(&["h264", "aac"])
            }],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            // The next key frame is 5 s away, and the SDP has no parameter sets.
            "joined-late",
            "",
            vec![Act {
                sdp: Some(|sdp| lines(sdp, |line| !line.starts_with("a=fmtp"))),
                skips: 15,
                ..sends(&["h264-long-gop"])
            }],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "udp-blocked",
            "transport = \"auto\"\nstall-timeout = \"15s\"",
            vec![
                Act {
                    loses_udp: true,
                    ..sends(&["h264"])
                },
                sends(&["h264"]),
            ],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "461",
            "",
            vec![refuses("SETUP", "461 Unsupported Transport")],
            Fault("unreachable", "461"),
        ),
        (
            "two-videos",
            "",
            vec![announced("m=video 0 RTP/AVP 97\r\na=rtpmap:97 H264/90000\r\n")],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "unknown-media",
            "",
            vec![announced("m=data 0 UDP 5000\r\n")],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "mp2t",
            "",
            vec![Act {
                announces: vec!["m=video 0 RTP/AVP 33\r\na=rtpmap:33 MP2T/90000\r\n".to_owned()],
                ..Act::default()
            }],
            Fault("unsupported", "MP2T"),
        ),
        (
            "sdp-without-fmtp",
            "",
            vec![writes(|sdp| lines(sdp, |line| !line.starts_with("a=fmtp")))],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "sdp-lower-case",
            "",
            vec![writes(|sdp| sdp.replace("H264", "h264"))],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "sdp-odd-connection",
            "",
            vec![writes(|sdp| sdp.replace("c=IN IP4 0.0.0.0", "c=IN IP4"))],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "base-of-another-host",
            "",
            vec![Act {
                base: Some("rtsp://0.0.0.0/stream/"),
                ..sends(&["h264"])
            }],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "base-twice-rtsp",
            "",
            vec![Act {
                base: Some("rtsp://rtsp://ADDRESS/stream/"),
                ..sends(&["h264"])
            }],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "base-without-scheme",
            "",
            vec![Act {
                base: Some("ADDRESS/stream/"),
                ..sends(&["h264"])
            }],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "redirect",
            "",
            vec![Act {
                redirects: Some("elsewhere"),
                ..sends(&["h264"])
            }],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "flapping-sps",
            "",
            vec![after(15, Then::Flap("h264-colours"))],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "endless-gop",
            "",
            vec![sends(&["endless-gop"])],
            Recorded(&[STARTED], Sound::None),
        ),
        ("annex-b", "", vec![sends(&["annex-b"])], Recorded(&[STARTED], Sound::None)),
        (
            "empty-fragments",
            "",
            vec![sends(&["empty-fragments"])],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "aggregated",
            "",
            vec![sends(&["aggregated"])],
            Recorded(&[STARTED], Sound::None),
        ),
        // The NTP seconds of 1970, and of a time after NTP has begun again in 2036.
        (
            "clock-of-1970",
            "",
            vec![Act {
                ntp: Some(2_208_988_800),
                ..sends(&["h264"])
            }],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "clock-after-2036",
            "",
            vec![Act {
                ntp: Some(5),
                ..sends(&["h264"])
            }],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "burst-at-connect",
            "",
            vec![Act {
                burst: Duration::from_secs(3),
                ..sends(&["h264"])
            }],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "slow-tcp",
            "",
            vec![Act {
                dribbles: Some(300),
                ..sends(&["h264"])
            }],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "every-packet-twice",
            "",
            vec![Act {
                is_double: true,
                ..sends(&["h264"])
            }],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "numbers-wrap",
            "",
            vec![Act {
                wraps: true,
                ..sends(&["h264"])
            }],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "time-stands-still",
            "",
            vec![Act {
                spoil: Some(one_time),
                ..sends(&["h264"])
            }],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "short-session",
            "",
            vec![Act {
                session_timeout: Some(10),
                ..sends(&["h264"])
            }],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "cable-cut",
            "",
            vec![after(40, Then::Vanish), sends(&["h264"])],
            Recorded(&[STARTED, "camera-frozen"], Sound::None),
        ),
        (
            "garbage-in-between",
            "",
            vec![after(40, Then::Garbage), sends(&["h264"])],
            Recorded(&[STARTED, "camera-frozen"], Sound::None),
        ),
        (
            "torn-sets",
            "",
            vec![torn("h264", Torn::Sets), sends(&["h264"])],
            Recorded(&[STARTED, "camera-frozen"], Sound::None),
        ),
        (
            "torn-sets-h265",
            "",
            vec![torn("h265", Torn::Sets), sends(&["h265"])],
            Recorded(&[STARTED, "camera-frozen"], Sound::None),
        ),
        (
            "torn-sets-mpegts",
            "container = \"mpegts\"",
            vec![torn("h264", Torn::Sets), sends(&["h264"])],
            Recorded(&[STARTED, "camera-frozen"], Sound::None),
        ),
        (
            "torn-sets-h265-mpegts",
            "container = \"mpegts\"",
            vec![torn("h265", Torn::Sets), sends(&["h265"])],
            Recorded(&[STARTED, "camera-frozen"], Sound::None),
        ),
        (
            "torn-sets-flv",
            "container = \"flv\"",
            vec![torn("h264", Torn::Sets), sends(&["h264"])],
            Recorded(&[STARTED, "camera-frozen"], Sound::None),
        ),
        (
            "torn-sets-matroska",
            "container = \"matroska\"",
            vec![torn("h265", Torn::Sets), sends(&["h265"])],
            Recorded(&[STARTED, "camera-frozen"], Sound::None),
        ),
        (
            "torn-fragment",
            "",
            vec![torn("h264", Torn::Fragment), sends(&["h264"])],
            Recorded(&[STARTED, "camera-frozen"], Sound::None),
        ),
        (
            "torn-fragment-h265",
            "",
            vec![torn("h265", Torn::Fragment), sends(&["h265"])],
            Recorded(&[STARTED, "camera-frozen"], Sound::None),
        ),
        (
            "torn-slices",
            "",
            vec![torn("h264-slices", Torn::Slices), sends(&["h264-slices"])],
            Recorded(&[STARTED, "camera-frozen"], Sound::None),
        ),
        (
            "sets-between-slices",
            "",
            vec![sends(&["h264-sets-between"])],
            Recorded(&[STARTED], Sound::None),
        ),
        (
            "torn-sets-between-slices",
            "container = \"mpegts\"",
            vec![torn("h264-sets-between", Torn::Slices), sends(&["h264-sets-between"])],
            Recorded(&[STARTED, "camera-frozen"], Sound::None),
        ),
        (
            "torn-slices-wrong-marker",
            "",
            vec![
                Act {
                    spoil: Some(wrong_marker),
                    ..torn("h264-slices", Torn::Slices)
                },
                sends(&["h264-slices"]),
            ],
            Recorded(&[STARTED, "camera-frozen"], Sound::None),
        ),
        (
            "torn-slices-dies",
            "container = \"mpegts\"",
            vec![
                Act {
                    then: Then::Close,
                    ..torn("h264-slices", Torn::Slices)
                },
                sends(&["h264-slices"]),
            ],
            Recorded(&[STARTED, "camera-unreachable"], Sound::None),
        ),
        ("closes-at-once", "", vec![rude(Rude::Closes)], Fault("unreachable", "")),
        ("silent", "", vec![rude(Rude::Silent)], Fault("unreachable", "answer")),
        ("garbage", "", vec![rude(Rude::Garbage)], Fault("unreachable", "")),
    ]
}
