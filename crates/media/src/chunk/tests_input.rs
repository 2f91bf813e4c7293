//! Streams of every container whose times a test sets one by one.

use crate::container::Container;
use crate::container::flv::test_stream as flv;
use crate::container::fmp4::test_stream as fmp4;
use crate::container::mpegts::tests::writer as ts;

pub(super) const CONTAINERS: [Container; 4] = [Container::Flv, Container::MpegTs, Container::Fmp4, Container::Matroska];

/// One picture, or a frame of sound.
#[derive(Clone, Copy, Debug)]
pub(super) enum Frame {
    /// A key frame at that time in ms.
    Key(u64),
    /// Another picture, at that time in ms.
    Inter(u64),
    /// Sound.
    Sound(u64),
}

/// Writes one container. Pictures and sound are always announced.
pub(super) enum Input {
    Flv(flv::Writer),
    MpegTs(Box<ts::Writer>),
    Bytes(Container, Vec<u8>),
}

impl Input {
    /// Returns a stream whose head has been written.
    pub(super) fn new(container: Container) -> Self {
        match container {
            Container::Flv => Self::Flv(flv::Writer::head(5)),
            Container::MpegTs => {
                let mut w = ts::Writer::new();
                w.tables();
                Self::MpegTs(Box::new(w))
            }
            Container::Fmp4 => Self::Bytes(container, fmp4::av_head()),
            _ => Self::Bytes(container, matroska_head()),
        }
    }

    /// Writes a frame.
    pub(super) fn frame(&mut self, frame: Frame) {
        let (ms, is_sound) = match frame {
            Frame::Key(ms) | Frame::Inter(ms) => (ms, false),
            Frame::Sound(ms) => (ms, true),
        };
        let is_key = matches!(frame, Frame::Key(_));
        match self {
            Self::Flv(w) if is_sound => {
                w.audio(u32::try_from(ms & 0xffff_ffff).unwrap());
            }
            Self::Flv(w) => {
                w.picture(
                    u32::try_from(ms & 0xffff_ffff).unwrap(),
                    if is_key { 0x65 } else { 0x61 },
                    is_key,
                    0,
                );
            }
            Self::MpegTs(w) if is_sound => {
                w.sound(ms * 90);
            }
            Self::MpegTs(w) => {
                w.picture(ms * 90, is_key, 300);
            }
            Self::Bytes(Container::Fmp4, out) => out.extend(match frame {
                Frame::Key(ms) => fmp4::video(ms, &[fmp4::idr()]),
                Frame::Inter(ms) => fmp4::video(ms, &[fmp4::inter()]),
                Frame::Sound(ms) => fmp4::audio(ms, 1),
            }),
            Self::Bytes(_, out) => out.extend(matroska_cluster(ms, is_sound, is_key)),
        }
    }

    /// Takes what has been written since the last call.
    pub(super) fn take(&mut self) -> Vec<u8> {
        match self {
            Self::Flv(w) => std::mem::take(&mut w.bytes),
            Self::MpegTs(w) => std::mem::take(&mut w.out),
            Self::Bytes(_, out) => std::mem::take(out),
        }
    }
}

fn element(id: &[u8], body: &[u8]) -> Vec<u8> {
    let size = u64::try_from(body.len()).unwrap() | 1 << 56;
    [id, &size.to_be_bytes(), body].concat()
}

fn matroska_head() -> Vec<u8> {
    const AVCC: &[u8] = &[1, 0x64, 0, 40, 0xff, 0xe1, 0, 4, 0x67, 0x64, 0, 40, 1, 0, 2, 0x68, 1];
    let track = |number: u8, codec: &[u8], private: &[u8]| {
        let parts = [
            element(&[0xd7], &[number]),
            element(&[0x83], &[number]),
            element(&[0x86], codec),
            element(&[0x63, 0xa2], private),
        ];
        element(&[0xae], &parts.concat())
    };
    let tracks = [track(1, b"V_MPEG4/ISO/AVC", AVCC), track(2, b"A_AAC", &[0x12, 0x10])].concat();
    [
        element(&[0x1a, 0x45, 0xdf, 0xa3], &element(&[0x42, 0x82], b"matroska")),
        vec![0x18, 0x53, 0x80, 0x67, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        element(
            &[0x15, 0x49, 0xa9, 0x66],
            &element(&[0x2a, 0xd7, 0xb1], &1_000_000u32.to_be_bytes()),
        ),
        element(&[0x16, 0x54, 0xae, 0x6b], &tracks),
    ]
    .concat()
}

/// A Cluster of one block.
fn matroska_cluster(ms: u64, is_sound: bool, is_key: bool) -> Vec<u8> {
    let number = if is_sound { 0x82 } else { 0x81 };
    let frame: &[u8] = match (is_sound, is_key) {
        (true, _) => &[0x21; 20],
        (_, true) => &[0, 0, 0, 4, 0x65, 0x88, 1, 2],
        _ => &[0, 0, 0, 4, 0x41, 0x9a, 1, 2],
    };
    let block = element(&[0xa3], &[&[number, 0, 0, 0x80][..], frame].concat());
    element(
        &[0x1f, 0x43, 0xb6, 0x75],
        &[element(&[0xe7], &ms.to_be_bytes()), block].concat(),
    )
}
