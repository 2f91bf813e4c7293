//! Assembles access units of H.264 and H.265 from the PES packets of one chunk. The two need not be aligned: a picture may
//! continue in further packets, end in front of the next picture in one packet, or share its packet with others.
//!
//! PURE. Sources: ISO/IEC 13818-1 2.4.3.7 (a timestamp belongs to the first access unit that begins in the packet), ITU-T H.264
//! 7.4.1.2.3 and H.265 7.4.2.4.4 (first NAL unit of an access unit). NAL units are returned behind lengths of four bytes.

use crate::container::nal::{Framing, VideoCodec, find_start_code, opens_with_delimiter};
use crate::container::samples::{Sample, units};

/// Assumed duration in ns of a picture if neither it nor any later one has a timestamp: 25 pictures a second.
const STEP: i64 = 40_000_000;

/// Position of a NAL unit in its access unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// In front of a picture: delimiter, parameter sets, SEI.
    Before,
    /// The first slice of a picture.
    First,
    /// Belongs to the picture before it.
    More,
}

/// The picture that is being assembled.
#[derive(Debug)]
struct Open {
    data: Vec<u8>,
    times: Times,
    /// Position of the length of the last NAL unit.
    last: usize,
    has_slice: bool,
}

/// Decode and presentation time in ns.
type Times = Option<(i64, i64)>;

/// Assembles pictures.
#[derive(Debug, Default)]
pub(super) struct AccessUnits {
    open: Option<Open>,
    /// `Some` if the last packet ended with a start code: its times. They apply to the unit in the next packet if that has none.
    code_at_end: Option<Times>,
    done: Vec<(Times, Vec<u8>)>,
    /// Whether nothing is missing between the last of `done` and the open picture.
    is_next: bool,
}

impl AccessUnits {
    /// Takes the elementary stream bytes of the next PES packet. Calls `note` for each NAL unit that begins in it.
    pub(super) fn packet(&mut self, codec: VideoCodec, data: &[u8], times: Times, mut note: impl FnMut(&[u8])) {
        // A start code may be split over two packets: its zeros then look like the end of the previous unit.
        let zeros = self.take_split_code(data);
        let (carried, earlier): (&[u8], Times) = match self.code_at_end.take() {
            Some(earlier) => (&[0, 0, 1], earlier),
            None => (&[0; 3][..zeros.min(3)], None),
        };
        let joined;
        let data = if carried.is_empty() {
            data
        } else {
            joined = [carried, data].concat();
            &joined
        };
        let first = find_start_code(data, 0).unwrap_or(data.len());
        // The bytes in front of the first start code are the rest of the last unit of the previous packet.
        self.extend(data.get(..first).unwrap_or_default());
        let mut times = times.or(earlier);
        for unit in units(data) {
            note(unit);
            let role = role(codec, unit);
            let begins = match &self.open {
                Some(open) => open.has_slice && role != Role::More,
                // `More` here is the rest of a picture whose beginning is missing: it begins nothing.
                None => role != Role::More,
            };
            if begins {
                self.close();
                self.open = Some(Open {
                    data: Vec::with_capacity(data.len() + 16),
                    times: None,
                    last: 0,
                    has_slice: false,
                });
            }
            if role == Role::More {
                self.rejoin(codec);
            }
            let Some(open) = &mut self.open else { continue };
            if role != Role::More && !open.has_slice {
                // A prefix may have come in a packet of its own. Its time applies only if the picture's own packet has none.
                open.times = times.take().or(open.times);
            }
            open.has_slice |= role != Role::Before;
            open.trim();
            open.last = open.data.len();
            open.data.extend(u32::try_from(unit.len()).unwrap_or(u32::MAX).to_be_bytes());
            open.data.extend_from_slice(unit);
        }
        self.code_at_end = data.ends_with(&[0, 0, 1]).then_some(times);
        // Zeros at the end of a packet may belong to the last unit, which may continue in the next packet.
        let zeros = data.iter().rev().take_while(|byte| **byte == 0).count();
        if first < data.len() {
            self.extend(data.get(data.len() - zeros..).unwrap_or_default());
        }
    }

    /// Drops the open picture, because packets are missing: its end is unknown.
    pub(super) fn lose(&mut self) {
        (self.open, self.code_at_end) = (None, None);
        self.is_next = false;
    }

    /// Handles a slice that is not the first of its picture. If only parameter sets or SEI are in front of it, without a
    /// delimiter, they were repeated for this slice: reopens the previous picture, to which the slice belongs.
    fn rejoin(&mut self, codec: VideoCodec) {
        let is_repeated = |open: &mut Open| {
            let framing = Framing::Length(4);
            !open.has_slice && !opens_with_delimiter(codec, framing, &open.data)
        };
        if !self.is_next || self.done.is_empty() {
            return;
        }
        let Some(open) = self.open.take_if(is_repeated) else { return };
        if let Some((times, mut data)) = self.done.pop() {
            let last = data.len() + open.last;
            data.extend(open.data);
            self.open = Some(Open {
                data,
                times,
                last,
                has_slice: true,
            });
        }
    }

    /// Returns the pictures. Those without a timestamp are spaced evenly between their neighbours.
    pub(super) fn finish(mut self) -> Vec<Sample> {
        self.close();
        let times: Vec<_> = self.done.iter().map(|(times, _)| *times).collect();
        let mut last: Option<(usize, i64)> = None;
        let timed = self.done.into_iter().enumerate().filter_map(|(index, (own, data))| {
            let known = own.or_else(|| {
                let (before, time) = last?;
                let next = times.get(index..)?.iter().position(Option::is_some).map(|at| index + at);
                let step = next
                    .and_then(|next| Some((times.get(next).copied()??.0 - time) / i64::try_from(next - before).ok()?))
                    // Timestamps that go back leave no time between them: the assumed step is used.
                    .filter(|step| *step > 0)
                    .unwrap_or(STEP);
                let time = time + step * i64::try_from(index - before).ok()?;
                Some((time, time))
            });
            if own.is_some() {
                last = own.map(|(dts, _)| (index, dts));
            }
            known.map(|(dts, pts)| Sample {
                dts,
                pts,
                key: false,
                data: data.into(),
            })
        });
        timed.collect()
    }

    /// Removes zeros at the end of the open picture if they are the beginning of a start code that ends in `data`, the next
    /// packet. Returns their number.
    fn take_split_code(&mut self, data: &[u8]) -> usize {
        let Some(open) = &mut self.open else { return 0 };
        let zeros = open.data.iter().rev().take_while(|byte| **byte == 0).count().min(3);
        let here = data.iter().take_while(|byte| **byte == 0).count();
        if here >= 2 || zeros + here < 2 || data.get(here) != Some(&1) {
            return 0;
        }
        open.data.truncate(open.data.len() - zeros);
        open.measure();
        zeros
    }

    /// Appends `data` to the last NAL unit.
    fn extend(&mut self, data: &[u8]) {
        if let Some(open) = self.open.as_mut().filter(|open| !open.data.is_empty()) {
            open.data.extend_from_slice(data);
            open.measure();
        }
    }

    fn close(&mut self) {
        if let Some(mut open) = self.open.take() {
            open.trim();
            self.done.push((open.times, open.data));
            self.is_next = true;
        }
    }
}

impl Open {
    /// Removes zeros at the end of the last NAL unit: no unit ends with a zero byte, so they belong to the next start code.
    fn trim(&mut self) {
        let body = self.data.get(self.last + 4..).unwrap_or_default();
        let zeros = body.iter().rev().take_while(|byte| **byte == 0).count();
        self.data.truncate(self.data.len() - zeros);
        self.measure();
    }

    /// Writes the length of the last NAL unit.
    fn measure(&mut self) {
        let len = self.data.len().saturating_sub(self.last + 4);
        if let Some(field) = self.data.get_mut(self.last..self.last + 4) {
            field.copy_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
        }
    }
}

fn role(codec: VideoCodec, unit: &[u8]) -> Role {
    let &[code, ..] = unit else { return Role::More };
    let (before, slice, header) = match codec {
        // H.264 table 7-1: SEI, SPS, PPS, delimiter; 14 and 15 precede pictures of SVC and MVC.
        VideoCodec::H264 => (matches!(code & 0x1f, 6..=9 | 14 | 15), matches!(code & 0x1f, 1 | 2 | 5), 1),
        _ => (
            // H.265 table 7-1: VPS, SPS, PPS, delimiter, prefix SEI. A suffix SEI (40) belongs to the picture before it.
            matches!(code >> 1 & 0x3f, 32..=35 | 39),
            matches!(code >> 1 & 0x3f, 0..=31),
            2,
        ),
    };
    match (before, slice) {
        (true, _) => Role::Before,
        // first_mb_in_slice of 0, first_slice_segment_in_pic_flag.
        (_, true) if unit.get(header).is_some_and(|byte| byte & 0x80 != 0) => Role::First,
        _ => Role::More,
    }
}
