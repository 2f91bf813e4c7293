//! Determines the codec names and configurations of the streams.
//!
//! PURE.

use std::sync::Arc;

use super::super::nal::{Framing, Picture, SetsInForce, VideoCodec, parameter_sets};
use super::super::{StreamInfo, codec};
use super::packet::Packet;
use super::pes::Header;
use super::reorder::Reorder;
use super::stream::{Audio, Kind, Video};
use super::units::{Stream, Units};

impl Units {
    /// Takes the configuration of a key frame. Returns whether it replaces another one, so that a chunk has to begin here.
    pub(super) fn take_config(&mut self, index: usize, video: Video, picture: &Picture, data: &[u8], out: &mut Reorder) -> bool {
        let Some(config) = picture.config else { return false };
        let before = self.config.replace(config);
        if before != Some(config) || self.fresh {
            self.name_video(index, video, picture, data, out);
        }
        // Directly after a new PMT no cut is needed: the chunk has just begun.
        before.is_some_and(|before| before != config) && !self.fresh
    }

    /// Takes the parameter sets of a key frame; `before` is the configuration in force in front of it. Returns whether a set is
    /// missing that came with an earlier key frame. Sets in front of other pictures do not count: they may be repeated before
    /// they are used.
    pub(super) fn lacks_a_set(&mut self, video: Video, data: &[u8], before: Option<u64>) -> bool {
        let Video::Nal(codec) = video else { return false };
        // A new configuration does not use the sets that were in force before it.
        if before != self.config {
            self.sets = SetsInForce::default();
        }
        self.sets.take(&parameter_sets(codec, Framing::AnnexB, data), true)
    }

    pub(super) fn name_video(&mut self, index: usize, video: Video, picture: &Picture, data: &[u8], out: &mut Reorder) {
        let Some((at, len)) = picture.sps else { return };
        let sps = at.checked_add(len).and_then(|end| data.get(at..end)).unwrap_or_default();
        let name = match video {
            Video::Nal(VideoCodec::H264) => codec::avc_from_sps(sps),
            Video::Nal(VideoCodec::H265) => codec::hevc_from_sps(sps),
            Video::Nal(_) | Video::Mpeg4 => None,
            Video::Mpeg2 => Some(codec::mpeg2_name(data)),
        };
        if let Some(stream) = self
            .streams
            .get_mut(index)
            .filter(|stream| name.is_some() && stream.name != name)
        {
            stream.name = name;
            self.update_info(out);
        }
    }

    pub(super) fn name_audio(&mut self, index: usize, data: &[u8], out: &mut Reorder) {
        let Some(stream) = self.streams.get_mut(index).filter(|stream| !stream.seen) else {
            return;
        };
        if let Some(name) = stream.kind.name_from_frame(data) {
            stream.seen = true;
            stream.name = Some(name);
            self.update_info(out);
        }
    }

    /// Recognises audio in a stream that the PMT calls private and gives no descriptor for: some muxers have no other type for
    /// AAC in packets of 192 bytes.
    pub(super) fn recognise(&mut self, index: usize, packet: &Packet<'_>, payload: &[u8], out: &mut Reorder) {
        let Some(stream) = self.streams.get_mut(index) else { return };
        if stream.kind == Kind::Other
            && packet.start
            && !packet.scrambled
            && let Header::Whole {
                scrambled: false, data, ..
            } = Header::parse(payload)
            && let Some(sound) = Kind::of_sound(payload.get(3).copied().unwrap_or_default(), data)
        {
            stream.kind = sound;
            stream.name = sound.name();
            stream.seen = matches!(sound, Kind::Audio(Audio::Named(_)));
            self.update_info(out);
        }
    }

    /// Updates the description of the streams in `out`.
    pub(super) fn update_info(&self, out: &mut Reorder) {
        let is_video = |s: &&Stream| matches!(s.kind, Kind::Video(_));
        let is_audio = |s: &&Stream| matches!(s.kind, Kind::Audio(_));
        let videos = self.streams.iter().filter(is_video);
        let audios = self.streams.iter().filter(is_audio);
        let info = StreamInfo {
            codecs: codec::join(videos.chain(audios).map(|s| s.name.as_deref())),
            has_video: self.video.is_some(),
            has_audio: self.streams.iter().any(|s| self.is_sound(s.kind)),
        };
        // A new `Arc` only if the content differs: chunks compare it by address.
        if *out.info != info {
            out.info = Arc::new(info);
        }
    }
}
