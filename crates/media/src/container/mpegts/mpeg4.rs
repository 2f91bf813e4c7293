//! Classifies pictures of MPEG-4 part 2.
//!
//! PURE. Source: ISO/IEC 14496-2 6.2.2 to 6.2.5, table 6-3 (start codes). A decoder needs the video object layer (VOL), which is
//! sent in band. Muxers that got it from a header of their own omit it.

use std::hash::{DefaultHasher, Hasher};

use super::super::Key;
use super::super::nal::{MAX_PREFIX, Picture, find_start_code};
use super::super::work;
use super::picture::Hints;

/// vop_start_code.
pub(super) const VOP: u8 = 0xb6;

/// Returns whether a start code belongs to an element in front of a picture: video_object, video_object_layer,
/// visual_object_sequence, user_data, group_of_vop, visual_object.
pub(super) fn stands_before(code: u8) -> bool {
    matches!(code, 0..=0x2f | 0xb0 | 0xb2 | 0xb3 | 0xb5)
}

/// Classifies the picture at the start of `data`. Returns `None` if more bytes are needed. A key frame is a VOP of type I with a
/// VOL before it, or without one if VOLs no longer come. The flag of the container decides if there is no VOP within
/// [`MAX_PREFIX`] bytes.
pub(super) fn classify(data: &[u8], complete: bool, hints: Hints) -> Option<Picture> {
    let is_cut = data.len() >= MAX_PREFIX;
    let data = data.get(..MAX_PREFIX).unwrap_or(data);
    work::count(data.len());
    let mut layers = DefaultHasher::new();
    let (mut layer, mut has_layer) = (None, false);
    // Without a group_of_vop nothing excludes that later pictures are shown before this one and depend on earlier ones.
    let mut closed = false;
    let mut from = 0;
    while let Some(start) = find_start_code(data, from) {
        if let Some(at) = layer.take() {
            layers.write(data.get(at..start).unwrap_or_default());
            has_layer = true;
        }
        let body = data.get(start + 4..).unwrap_or_default();
        match data.get(start + 3) {
            Some(0x20..=0x2f) => layer = Some(start + 3),
            // time_code takes 18 bits, then closed_gov.
            Some(0xb3) => closed = body.get(2).is_some_and(|b| b & 0x20 != 0),
            Some(&VOP) if !body.is_empty() => {
                let is_intra = body.first().is_some_and(|b| b >> 6 == 0);
                let key = match (is_intra && (has_layer || hints.lacks_headers), closed) {
                    (true, true) => Key::Closed,
                    (true, false) => Key::Open,
                    (false, _) => Key::No,
                };
                return Some(Picture {
                    has_parameter_sets: has_layer,
                    config: has_layer.then(|| layers.finish()),
                    slice: Some(start + 3),
                    ..Picture::plain(key)
                });
            }
            _ => {}
        }
        from = start + 3;
    }
    let key = if is_cut && hints.is_flagged { Key::Open } else { Key::No };
    (complete || is_cut).then_some(Picture {
        has_parameter_sets: true,
        ..Picture::plain(key)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYER: &[u8] = &[0, 0, 1, 0, 0, 0, 1, 0x20, 0, 0xc4, 0x8d, 0x88];

    /// Flagged, and without a layer so far, or with neither.
    fn hints(both: bool) -> Hints {
        Hints {
            is_flagged: both,
            lacks_headers: both,
        }
    }

    #[test]
    fn the_coding_type_decides_and_the_layer_is_what_a_decoder_needs() {
        let group = |closed: u8| [0, 0, 1, 0xb3, 0, 0x10, closed];
        let vop = |kind: u8| [0, 0, 1, 0xb6, kind << 6 | 0x10, 0x60, 0x5a];
        for (kind, key) in [(0, Key::Open), (1, Key::No), (2, Key::No), (3, Key::No)] {
            let bare = classify(&vop(kind), false, hints(true)).unwrap();
            assert_eq!((bare.key, bare.has_parameter_sets, bare.config), (key, false, None));
            // Its layer comes with another one.
            assert_eq!(classify(&vop(kind), false, hints(false)).unwrap().key, Key::No);
            let whole = classify(&[LAYER, &vop(kind)].concat(), false, hints(false)).unwrap();
            assert_eq!((whole.key, whole.has_parameter_sets), (key, true));
        }
        let closed = classify(&[LAYER, &group(0x20), &vop(0)].concat(), false, hints(false)).unwrap();
        assert_eq!(closed.key, Key::Closed);
        let open = classify(&[LAYER, &group(0), &vop(0)].concat(), false, hints(false)).unwrap();
        assert_eq!((open.key, open.config), (Key::Open, closed.config));
        let other = [&LAYER[..11], &[0x99], &vop(0)].concat();
        assert_ne!(classify(&other, false, hints(false)).unwrap().config, open.config);
    }

    #[test]
    fn a_verdict_stands_however_much_follows() {
        let whole = [LAYER, &[0, 0, 1, 0xb6, 0x10, 0x60, 0x5a]].concat();
        let verdict = classify(&whole, true, hints(false));
        for len in 0..whole.len() {
            let early = classify(&whole[..len], false, hints(true));
            assert!(early.is_none() || early == verdict, "{len}: {early:?}");
        }
    }
}
