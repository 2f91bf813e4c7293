//! Access units of H.264 and H.265 out of the PES packets of one chunk, which need not be aligned with each other: a picture may go on in
//! further packets, end in front of the next one's beginning, or share its packet with others.
//!
//! PURE. Sources: ISO/IEC 13818-1 2.4.3.7 (a time stamp is that of the first access unit that begins in the packet), ITU-T H.264
//! 7.4.1.2.3 and H.265 7.4.2.4.4 (first NAL unit of an access unit). NAL units are given out behind lengths of four bytes.

use crate::container::nal::{Framing, VideoCodec, find_start_code, opens_with_delimiter};
use crate::container::samples::{Sample, units};

/// Step to a picture without a time and without one behind it: 25 pictures a second, ns.
const STEP: i64 = 40_000_000;

/// What a NAL unit means for where access units begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// Stands in front of a picture: delimiter, parameter sets, SEI.
    Before,
    /// The first slice of a picture.
    First,
    /// Belongs to what stands before it.
    More,
}

/// The picture at hand.
#[derive(Debug)]
struct Open {
    data: Vec<u8>,
    times: Times,
    /// Where the length of the last NAL unit stands.
    last: usize,
    has_slice: bool,
}

/// Decode and presentation time, ns.
type Times = Option<(i64, i64)>;

/// Gathers pictures.
#[derive(Debug, Default)]
pub(super) struct AccessUnits {
    open: Option<Open>,
    /// The last packet ended with a start code: what begins is in the next one, with the time of this one if that has none.
    code_at_end: Option<Times>,
    done: Vec<(Times, Vec<u8>)>,
    /// Nothing is missing between the last of them and the picture at hand.
    is_next: bool,
}

impl AccessUnits {
    /// Takes the elementary stream bytes of the next PES packet. `note` is told each NAL unit that begins in it.
    pub(super) fn packet(&mut self, codec: VideoCodec, data: &[u8], times: Times, mut note: impl FnMut(&[u8])) {
        // A start code may lie in two packets: its zeros look like the end of the unit before.
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
        // In front of the first start code stands the rest of the last unit of the packet before.
        self.extend(data.get(..first).unwrap_or_default());
        let mut times = times.or(earlier);
        for unit in units(data) {
            note(unit);
            let role = role(codec, unit);
            let begins = match &self.open {
                Some(open) => open.has_slice && role != Role::More,
                // The rest of a picture whose beginning is not there.
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
                // What stood in front of it in a packet of its own has its time only where it has none itself.
                open.times = times.take().or(open.times);
            }
            open.has_slice |= role != Role::Before;
            open.trim();
            open.last = open.data.len();
            open.data.extend(u32::try_from(unit.len()).unwrap_or(u32::MAX).to_be_bytes());
            open.data.extend_from_slice(unit);
        }
        self.code_at_end = data.ends_with(&[0, 0, 1]).then_some(times);
        // Zeros at the end of a packet may belong to the last unit: it may go on.
        let zeros = data.iter().rev().take_while(|byte| **byte == 0).count();
        if first < data.len() {
            self.extend(data.get(data.len() - zeros..).unwrap_or_default());
        }
    }

    /// Packets are missing: what is open has no end.
    pub(super) fn lose(&mut self) {
        (self.open, self.code_at_end) = (None, None);
        self.is_next = false;
    }

    /// A slice comes that is not the first of its picture. Parameter sets or SEI alone in front of it, without a delimiter, were repeated
    /// for it: it goes on with the picture before.
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

    /// Returns the pictures. One without a time stands evenly between its neighbours.
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
                    // Times that go back leave no room between them.
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

    /// Takes zeros back that are the beginning of a start code which ends in the next packet. Returns how many.
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

    /// The last NAL unit goes on.
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
    /// Takes zeros behind the last NAL unit away: they belong to the next start code, since no unit ends in one.
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
        // H.264 table 7-1: SEI, SPS, PPS, delimiter; 14 and 15 stand in front of pictures of SVC and MVC.
        VideoCodec::H264 => (matches!(code & 0x1f, 6..=9 | 14 | 15), matches!(code & 0x1f, 1 | 2 | 5), 1),
        _ => (
            // H.265 table 7-1: VPS, SPS, PPS, delimiter, prefix SEI. Suffix SEI (40) belongs to the picture before.
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
