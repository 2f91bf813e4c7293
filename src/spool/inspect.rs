//! Inspects one chunk file: with two reads if it ends in a Footer or a Confirmed record, otherwise record by record.

use std::io;
use std::sync::Arc;

use super::disk::DiskFile;
use super::entry::{ClosedEntry, Entry};
use super::format::{
    DATA_FIELDS, DataFields, Header, Kind, MAGIC, MARK_LEN, RECORD_HEADER, Salt, check_magic, parse_mark, parse_sent,
};
use super::records::{Record, Records, read_some, to_u64};
use super::recovery::{Head, Scan};

/// Bytes read at the end of a file: they include most End records.
const TAIL: usize = 16 << 10;

/// The result of inspecting a file.
#[derive(Clone, Debug)]
pub(super) struct Inspection {
    pub(super) scan: Scan,
    /// Offset of the last End record.
    pub(super) end_at: u64,
    pub(super) file_len: u64,
}

/// Inspects the file of a chunk.
pub(super) fn inspect(file: &Arc<dyn DiskFile>, session: &str, sequence: u64) -> io::Result<Inspection> {
    let place = FileId {
        session,
        sequence,
        salt: Salt::of(session, sequence),
    };
    let file_len = file.len()?;
    let magic = read_some(&**file, 0, MAGIC.len())?;
    let quick = match check_magic(&magic) {
        Err(why) => return Ok(foreign(why, file_len)),
        Ok(false) => None,
        Ok(true) => place.quick(&**file, file_len)?,
    };
    match quick {
        Some(found) => Ok(found),
        None => place.walk(file, file_len, magic == MAGIC.as_slice()),
    }
}

fn foreign(why: String, file_len: u64) -> Inspection {
    Inspection {
        scan: Scan::empty(Head::Foreign(why)),
        end_at: 0,
        file_len,
    }
}

struct FileId<'a> {
    session: &'a str,
    sequence: u64,
    salt: Salt,
}

impl FileId<'_> {
    /// Inspects the end of the file only. Returns `None` if it does not end in a Footer or a Confirmed record.
    fn quick(&self, file: &dyn DiskFile, file_len: u64) -> io::Result<Option<Inspection>> {
        let from = file_len.saturating_sub(to_u64(TAIL));
        let tail = read_some(file, from, TAIL)?;
        let mut scan = Scan::empty(Head::Missing);
        scan.tail = file_len;
        scan.whole = true;
        let mut behind = tail.len();
        let (kind, end_at) = loop {
            let Some(at) = behind.checked_sub(MARK_LEN) else {
                // The file ends in more marks than one read holds. The walk reads them all.
                return Ok(None);
            };
            let Some((header, payload)) = tail.get(at..behind).and_then(|mark| self.mark(mark)) else {
                return Ok(None);
            };
            // Sent records may follow the Footer.
            if header.kind == Kind::Sent {
                scan.sent.extend(parse_sent(payload));
                behind = at;
                continue;
            }
            let Some(end_at) = parse_mark(payload) else {
                return Ok(None);
            };
            break (header.kind, end_at);
        };
        // In the order of the file: a mark is removed by cutting the file in front of it.
        scan.sent.reverse();
        match kind {
            Kind::Confirmed => {
                scan.confirmed = true;
                // Needed for the chunk before this one: if that one was open, it ends where this one begins (P4).
                if let Some(entry) = self.head(file)? {
                    scan.head = Head::Entry(Box::new(entry));
                }
            }
            Kind::Footer => {
                let Some(closed) = self.end(file, &tail, from, end_at)? else {
                    // The End is damaged. The walk determines how far the file is intact.
                    return Ok(None);
                };
                scan.sealed = true;
                // Not verified here: a start would have to read the whole spool. Records are checked during the upload.
                scan.data = closed.size;
                scan.closed = Some(Box::new(closed));
            }
            Kind::Head | Kind::Data | Kind::End | Kind::Attempted | Kind::Sent => return Ok(None),
        }
        Ok(Some(Inspection { scan, end_at, file_len }))
    }

    /// Parses an intact mark and returns its header and payload.
    fn mark<'b>(&self, bytes: &'b [u8]) -> Option<(Header, &'b [u8])> {
        let (header, payload) = Header::parse(bytes).zip(bytes.get(RECORD_HEADER..))?;
        header.verifies(self.salt, payload).then_some((header, payload))
    }

    fn head(&self, file: &dyn DiskFile) -> io::Result<Option<Entry>> {
        let bytes = read_some(file, to_u64(MAGIC.len()), TAIL)?;
        let Some(header) = Header::parse(&bytes) else {
            return Ok(None);
        };
        let payload = bytes.get(RECORD_HEADER..header.record_len()).unwrap_or_default();
        let sound = header.kind == Kind::Head && header.verifies(self.salt, payload);
        Ok(sound.then(|| Entry::from_json(payload).ok()).flatten())
    }

    fn end(&self, file: &dyn DiskFile, tail: &[u8], from: u64, end_at: u64) -> io::Result<Option<ClosedEntry>> {
        let more;
        let inside = end_at.checked_sub(from).and_then(|at| usize::try_from(at).ok());
        let bytes = match inside.and_then(|at| tail.get(at..)) {
            Some(bytes) => bytes,
            None => {
                let len = usize::try_from(from.saturating_sub(end_at)).unwrap_or(usize::MAX);
                let most = RECORD_HEADER + super::format::MAX_PAYLOAD;
                more = read_some(file, end_at, len.saturating_add(TAIL).min(most))?;
                &more
            }
        };
        let Some(header) = Header::parse(bytes).filter(|h| h.kind == Kind::End) else {
            return Ok(None);
        };
        let payload = bytes.get(RECORD_HEADER..header.record_len()).unwrap_or_default();
        if !header.verifies(self.salt, payload) {
            return Ok(None);
        }
        Ok(ClosedEntry::from_json(payload).ok().filter(|c| self.is_of(&c.entry)))
    }

    fn is_of(&self, entry: &Entry) -> bool {
        entry.session == self.session && entry.sequence == self.sequence
    }

    fn walk(&self, file: &Arc<dyn DiskFile>, file_len: u64, magic: bool) -> io::Result<Inspection> {
        let mut walk = Walk {
            scan: Scan::empty(Head::Missing),
            end_at: 0,
        };
        let mut records = Records::new(file.clone(), self.salt);
        let mut offset = to_u64(MAGIC.len());
        if magic {
            walk.scan.tail = offset;
            while let Some(record) = records.read(offset)? {
                let next = record.next;
                if !self.step(&mut walk, &record, offset) {
                    break;
                }
                walk.learn(&record, offset);
                offset = next;
                walk.scan.tail = offset;
            }
            // The CRC of another chunk's Head fails with this chunk's salt. Without this check, a renamed file would count as
            // empty and be removed.
            if walk.scan.head == Head::Missing
                && let Some(why) = self.stranger(&**file)?
            {
                walk.scan.head = Head::Foreign(why);
            }
        }
        walk.scan.whole = walk.scan.tail >= file_len;
        if !walk.scan.whole {
            let from = walk.scan.tail.max(to_u64(MAGIC.len()));
            walk.resynchronise(&mut records, from, file_len)?;
        }
        Ok(Inspection {
            scan: walk.scan,
            end_at: walk.end_at,
            file_len,
        })
    }

    /// Adds a record. Returns `false` if it cannot follow the ones before.
    fn step(&self, walk: &mut Walk, record: &Record, offset: u64) -> bool {
        let scan = &mut walk.scan;
        if record.kind != Kind::Sent {
            // A mark counts only while nothing but marks follows: only then can it be removed by truncating the file.
            scan.sent.clear();
        }
        let begun = matches!(scan.head, Head::Entry(_));
        match record.kind {
            Kind::Head if scan.head == Head::Missing => {
                scan.head = match Entry::from_json(&record.payload) {
                    Ok(entry) if self.is_of(&entry) => Head::Entry(Box::new(entry)),
                    Ok(entry) => Head::Foreign(belongs(&entry)),
                    Err(why) => Head::Foreign(why),
                };
                matches!(scan.head, Head::Entry(_))
            }
            // Data after an End is not valid.
            Kind::Data if begun && scan.closed.is_none() => match DataFields::parse(&record.payload) {
                Some(fields) if fields.at == scan.data => {
                    scan.data = scan
                        .data
                        .saturating_add(to_u64(record.payload.len().saturating_sub(DATA_FIELDS)));
                    true
                }
                _ => false,
            },
            Kind::End if begun => match ClosedEntry::from_json(&record.payload) {
                Ok(closed) if self.is_of(&closed.entry) => {
                    scan.closed = Some(Box::new(closed));
                    scan.sealed = false;
                    walk.end_at = offset;
                    true
                }
                _ => false,
            },
            Kind::Footer if scan.closed.is_some() => {
                scan.sealed = true;
                true
            }
            Kind::Confirmed if begun => {
                scan.confirmed = true;
                true
            }
            Kind::Attempted if begun => {
                scan.attempted = true;
                true
            }
            Kind::Sent if begun => {
                scan.sent.extend(parse_sent(&record.payload));
                true
            }
            _ => false,
        }
    }

    /// Returns the reason if the file has an intact Head of another chunk, which means that the file was renamed.
    fn stranger(&self, file: &dyn DiskFile) -> io::Result<Option<String>> {
        let bytes = read_some(file, to_u64(MAGIC.len()), RECORD_HEADER + super::format::MAX_PAYLOAD)?;
        let Some(header) = Header::parse(&bytes).filter(|h| h.kind == Kind::Head) else {
            return Ok(None);
        };
        let payload = bytes.get(RECORD_HEADER..header.record_len()).unwrap_or_default();
        let Ok(entry) = Entry::from_json(payload) else {
            return Ok(None);
        };
        let sound = header.verifies(Salt::of(&entry.session, entry.sequence), payload);
        Ok(sound.then(|| belongs(&entry)))
    }
}

fn belongs(entry: &Entry) -> String {
    format!(
        "it is chunk {} of session {}: its name was changed",
        entry.sequence, entry.session
    )
}

struct Walk {
    scan: Scan,
    end_at: u64,
}

impl Walk {
    /// Raises the watermark to the number of durable bytes that an intact record states.
    fn learn(&mut self, record: &Record, at: u64) {
        let synced = match record.kind {
            Kind::Data => DataFields::parse(&record.payload).map_or(0, |f| f.synced),
            // These are written only after everything in front of them was synced.
            Kind::Footer | Kind::Confirmed => at,
            Kind::Head | Kind::End | Kind::Attempted | Kind::Sent => 0,
        };
        self.scan.watermark = self.scan.watermark.max(synced);
    }

    /// Learns from the intact records behind the first damaged one.
    fn resynchronise(&mut self, records: &mut Records, mut offset: u64, file_len: u64) -> io::Result<()> {
        // Bounded, so that a file full of markers cannot delay a start: each marker can cost a checksum over 1 MiB.
        let mut budget = file_len.saturating_mul(4).saturating_add(64 << 20);
        while let Some((at, record)) = records.find(offset, &mut budget)? {
            // What the server has is removed, even if the file is damaged.
            self.scan.confirmed |= record.kind == Kind::Confirmed;
            self.learn(&record, at);
            offset = record.next;
        }
        if budget == 0 {
            // The watermark is unknown. The maximum sends the file to the quarantine, so that no byte of it is deleted.
            self.scan.watermark = u64::MAX;
        }
        Ok(())
    }
}
