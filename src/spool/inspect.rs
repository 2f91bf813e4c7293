//! Inspects one chunk file: with two reads if it was closed in order, else record by record.

use std::io;
use std::sync::Arc;

use super::disk::DiskFile;
use super::entry::{ClosedEntry, Entry};
use super::format::{
    DATA_FIELDS, DataFields, Header, Kind, MAGIC, MARK_LEN, RECORD_HEADER, Salt, check_magic, parse_mark, parse_sent,
};
use super::records::{Record, Records, read_some, to_u64};
use super::recovery::{Head, Scan};

/// Read at the end of a file: most End records are in it.
const TAIL: usize = 16 << 10;

/// Where things are in a file that was looked at.
#[derive(Clone, Debug)]
pub(super) struct Inspection {
    pub(super) scan: Scan,
    /// Where the last End record begins.
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
    /// A file that ends in a Footer or in a Confirmed record is understood from its end.
    fn quick(&self, file: &dyn DiskFile, file_len: u64) -> io::Result<Option<Inspection>> {
        let from = file_len.saturating_sub(to_u64(TAIL));
        let tail = read_some(file, from, TAIL)?;
        let mut scan = Scan::empty(Head::Missing);
        scan.tail = file_len;
        scan.whole = true;
        let mut behind = tail.len();
        let (kind, end_at) = loop {
            let Some(at) = behind.checked_sub(MARK_LEN) else {
                // More marks than one read holds: the walk reads them all.
                return Ok(None);
            };
            let Some((header, payload)) = tail.get(at..behind).and_then(|mark| self.mark(mark)) else {
                return Ok(None);
            };
            // Some of them may stand behind the Footer.
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
        // As they stand in the file.
        scan.sent.reverse();
        match kind {
            Kind::Confirmed => {
                scan.confirmed = true;
                // The next older chunk may end where this one begins.
                if let Some(entry) = self.head(file)? {
                    scan.head = Head::Entry(Box::new(entry));
                }
            }
            Kind::Footer => {
                let Some(closed) = self.end(file, &tail, from, end_at)? else {
                    // The End is damaged: the walk finds out how far the file is good.
                    return Ok(None);
                };
                scan.sealed = true;
                // Taken from the End: records are checked when they are uploaded, or a start would read the whole spool.
                scan.data = closed.size;
                scan.closed = Some(Box::new(closed));
            }
            Kind::Head | Kind::Data | Kind::End | Kind::Attempted | Kind::Sent => return Ok(None),
        }
        Ok(Some(Inspection { scan, end_at, file_len }))
    }

    /// A sound mark of these bytes, and its payload.
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
            // Here the CRC of another chunk's Head fails: a renamed file would count as empty, and be removed.
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
            // It counts while only others of its kind follow: whoever takes one back may cut it off then.
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
            // No bytes of the object follow an End.
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

    /// An intact Head of another chunk: the file was renamed.
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
    /// Learns from an intact record how much was durable when it was written.
    fn learn(&mut self, record: &Record, at: u64) {
        let synced = match record.kind {
            Kind::Data => DataFields::parse(&record.payload).map_or(0, |f| f.synced),
            // A Footer is written only after all in front of it was synced.
            Kind::Footer | Kind::Confirmed => at,
            Kind::Head | Kind::End | Kind::Attempted | Kind::Sent => 0,
        };
        self.scan.watermark = self.scan.watermark.max(synced);
    }

    /// Learns the same from the intact records behind the first damaged one.
    fn resynchronise(&mut self, records: &mut Records, mut offset: u64, file_len: u64) -> io::Result<()> {
        // Bounded, so that a file full of markers cannot delay a start.
        let mut budget = file_len.saturating_mul(4).saturating_add(64 << 20);
        while let Some((at, record)) = records.find(offset, &mut budget)? {
            // What the server has is removed, even if the file is damaged.
            self.scan.confirmed |= record.kind == Kind::Confirmed;
            self.learn(&record, at);
            offset = record.next;
        }
        if budget == 0 {
            // How much was durable is not known: the file is set aside, and nothing of it is thrown away.
            self.scan.watermark = u64::MAX;
        }
        Ok(())
    }
}
