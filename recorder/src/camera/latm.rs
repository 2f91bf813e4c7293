//! Corrects the first frame of LATM sound. `rtpmp4adepay` of GStreamer 1.22 outputs it with the length in front, which belongs to
//! the transport, and decoders report a damaged frame.

use std::sync::atomic::{AtomicBool, Ordering};

use gst::prelude::*;

/// Removes the length from the first frame of a depayloader, if there is one.
pub(super) fn strip_first_length(depayloader: &gst::Element) {
    let Some(pad) = depayloader.static_pad("src") else { return };
    let is_first = AtomicBool::new(true);
    pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| {
        if let Some(gst::PadProbeData::Buffer(buffer)) = &mut info.data
            && is_first.swap(false, Ordering::Relaxed)
        {
            let prefix = buffer.map_readable().ok().and_then(|data| length_in_front(&data));
            if let Some(prefix) = prefix
                && let Ok(mut frame) = buffer.copy_region(gst::BufferCopyFlags::all(), prefix..)
            {
                // `copy_region` copies the times only for a region that begins at 0.
                let owned = frame.make_mut();
                owned.set_pts(buffer.pts());
                owned.set_dts(buffer.dts());
                owned.set_duration(buffer.duration());
                *buffer = frame;
            }
        }
        gst::PadProbeReturn::Ok
    });
}

/// Returns the number of bytes in front that hold the length of the rest; `None` if they do not match it. ISO/IEC 14496-3,
/// `PayloadLengthInfo`: a byte 255 for each full 255 bytes, then a byte for the remainder.
fn length_in_front(data: &[u8]) -> Option<usize> {
    let full = data.iter().take_while(|byte| **byte == 255).count();
    let length = full * 255 + usize::from(*data.get(full)?);
    (full + 1 + length == data.len()).then_some(full + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_recognized_by_what_follows_it() {
        assert_eq!(length_in_front(&[3, 0xde, 2, 0]), Some(1));
        assert_eq!(length_in_front(&[&[255, 57][..], &[7; 312]].concat()), Some(2));
        assert_eq!(length_in_front(&[0xde, 2, 0]), None);
        assert_eq!((length_in_front(&[]), length_in_front(&[255])), (None, None));
    }
}
