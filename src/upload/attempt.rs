//! Makes one attempt to store one chunk: interprets a refusal and chooses the name under which the chunk is stored.
//!
//! Uses the server through [`ObjectWriter`] alone. After a lost reply the next attempt is answered 412. The existing object is
//! ours if its size and its CRC32C are both reported and equal. Without permission to read it, it is ours if its name contains
//! session and sequence **and** an earlier request that may have stored it sent this whole chunk under that name (see
//! [`super::marks`]). If the existing object is another recording, or is damaged and cannot be deleted, it is left alone and the
//! chunk gets another name: storing a recording twice is better than losing it. See `docs/decisions/0005`.

use super::chunk::NameFallback;
use super::marks::{Marks, Sending};
use crate::flow::bucket_endpoint::RetryAfter;
use crate::flow::member::Route;
use gcstreamer_schema::metadata::DEVICE_ID;
use gcstreamer_storage::{Class, ObjectRequest, ObjectWriter, Pacer, Stored, WriteError};
use std::sync::Arc;

/// The result of an attempt.
#[derive(Debug)]
pub enum Attempted {
    /// The server has the bytes.
    Stored {
        /// The object as the server describes it; `None` if reading is not permitted.
        stored: Option<Stored>,
        /// The object's name.
        name: String,
        /// Property `device-id` of the sink that recorded it.
        device: String,
        /// CRC32C of the bytes sent.
        crc32c: u32,
        /// Corrected capture start, ns since the Unix epoch; `None` if the known one is right.
        start: Option<u64>,
        /// Something the user should know.
        warning: Option<String>,
    },
    /// Not stored.
    Failed {
        /// Why.
        error: WriteError,
        /// The name for the next attempt; `None` for the chunk's own name, whose date may be corrected before the next attempt.
        name: Option<String>,
        /// Something the user should know.
        warning: Option<String>,
    },
    /// Not sent: the bucket has asked for a pause. Counts neither as a success nor as a failure.
    Held {
        /// The pause.
        held: RetryAfter,
        /// The name for the next attempt, as in `Failed`.
        name: Option<String>,
        /// Something the user should know.
        warning: Option<String>,
    },
    /// Not sent: its bytes are on a disk that does not answer. Counts neither as a success nor as a failure.
    Unread {
        /// The error of the disk.
        why: String,
    },
    /// Its bytes on disk are damaged; the file was moved to the quarantine.
    Damaged {
        /// The damage and the new path, for the user.
        why: String,
    },
}

/// Most uploads that one attempt makes: enough for an expired token, a conflict and a damaged object, each with its follow-up.
const MAX_STEPS: u32 = 6;
/// Most names tried while the server answers 412 without a reason and reading the object is not permitted: the 412 may have
/// nothing to do with names.
const MAX_BLIND: u32 = 2;
/// Number of damaged objects of one chunk after which the user has to act: each is a whole copy that stays in the bucket if it
/// cannot be deleted.
const MAX_DAMAGED: usize = 2;

/// The `device-id` in an object's metadata.
fn device_of(request: &ObjectRequest) -> String {
    request.metadata.get(DEVICE_ID).cloned().unwrap_or_default()
}

/// Tries once to store a chunk. `name` is the name that an earlier attempt chose because the chunk's own was taken.
pub async fn attempt(
    writer: &dyn ObjectWriter,
    request: &ObjectRequest,
    name: Option<&str>,
    naming: &NameFallback,
    marks: &Marks,
    flow: &Route,
) -> Attempted {
    let mut request = request.clone();
    // Ignore a name that was derived from another date: the date is corrected only while nothing was sent whole, so no object of
    // ours can exist under the old name.
    let name = name.filter(|name| is_name_of(&request.name, name, naming));
    if let Some(name) = name {
        name.clone_into(&mut request.name);
    }
    // Before the first request: a chunk that comes back shorter after a crash may take a longer object for its own only with
    // this mark.
    marks.attempted().await;
    let mut attempt = Attempt {
        writer,
        request,
        naming,
        marks,
        flow,
        warning: None,
        steps: 0,
        renamed: 0,
        is_renamed: name.is_some(),
        was_missing: false,
        had_fresh_token: false,
    };
    loop {
        let next = attempt.send().await;
        if let Some(attempted) = attempt.classify(next) {
            return attempted;
        }
    }
}

/// An attempt in progress: one request or several.
struct Attempt<'a> {
    writer: &'a dyn ObjectWriter,
    request: ObjectRequest,
    naming: &'a NameFallback,
    marks: &'a Marks,
    flow: &'a Route,
    /// Something the user should know.
    warning: Option<String>,
    /// Requests made.
    steps: u32,
    /// Number of replacement names tried.
    renamed: u32,
    /// The current name is not the chunk's own: this attempt or an earlier one replaced it.
    is_renamed: bool,
    /// The server answered 412 although no such object exists.
    was_missing: bool,
    /// A token was refused and a new one requested.
    had_fresh_token: bool,
}

impl Attempt<'_> {
    /// Makes one upload request and, if it is refused, finds out why.
    async fn send(&mut self) -> Next {
        self.steps += 1;
        if let Err(held) = self.flow.request().await {
            return Next::Held(held);
        }
        // Read before the request: the mark that this request sets proves nothing if this request is the one that is refused.
        let was_sent = self.marks.has(&self.request.name);
        let sending = Sending::new(self.flow.pacer(), self.marks, &self.request.name);
        let pacer: Arc<dyn Pacer> = Arc::<Sending>::clone(&sending);
        let answer = self.writer.write(&self.request, pacer).await;
        // Wait until the mark is on disk: one that is still being written could not be removed below.
        sending.settled().await;
        let error = match answer {
            Ok(stored) => return Next::Ours(Some(stored)),
            Err(error) => error,
        };
        if error.bad_generation.is_some() {
            self.marks.damaged(&self.request.name).await;
        } else if !was_sent && error.means_nothing_was_stored() {
            self.marks.not_stored(&self.request.name).await;
        }
        // Only after the marks were corrected: the next attempt decides by them.
        if self.steps >= MAX_STEPS {
            return Next::Fail(error);
        }
        // A token may expire while the request is on its way, so the first refusal fetches a new token. A second refusal is for
        // the user. This comes before the pause that the server asks for: the next attempt would not know that its token is a new
        // one.
        if error.class == Class::Auth && !self.had_fresh_token {
            self.had_fresh_token = true;
            return Next::Again;
        }
        // `Retry-After` comes first: the look and the deletion below are requests too.
        if error.retry_after.is_some() {
            return Next::Fail(error);
        }
        let is_bad = error.bad_generation.is_some();
        if !is_bad && error.class != Class::Conflict {
            return Next::Fail(error);
        }
        // A look and a deletion count against the same request limits as an upload.
        if let Err(held) = self.flow.request().await {
            return Next::Held(held);
        }
        match error.bad_generation {
            Some(generation) => {
                let left = after_bad_object(self.writer, &self.request, self.naming, generation).await;
                Next::Damaged(error, left)
            }
            None => after_conflict(self.writer, &self.request, self.naming, was_sent, error).await,
        }
    }

    /// Returns the result of the attempt, or `None` if another request is to be made, possibly under another name.
    fn classify(&mut self, next: Next) -> Option<Attempted> {
        match next {
            Next::Again => None,
            Next::Missing(error) if self.was_missing => {
                let what = "and there is no such object; nothing was stored, a policy, a proxy or an emulator refuses it";
                Some(unresolved(error, what))
            }
            Next::Damaged(error, left) => {
                if let Some(why) = left {
                    self.rename(&why);
                }
                // Counted over all attempts: after the second damaged object, each attempt makes at most one more.
                (self.marks.damaged_objects() >= MAX_DAMAGED).then(|| self.damaged(error))
            }
            Next::Missing(_) => {
                self.was_missing = true;
                None
            }
            // Only without a reason: `conditionNotMet` is about the name, so another name can help.
            Next::Blind(error, _) if error.reason.is_none() && self.renamed >= MAX_BLIND => {
                let what = "under several names, without a reason and without permission to look; nothing is known to be stored: give the account storage.objects.get on the bucket, or look for a policy or a proxy that refuses objects";
                Some(unresolved(error, what))
            }
            Next::Rename(why) | Next::Blind(_, why) => {
                self.renamed += 1;
                self.rename(&why);
                None
            }
            Next::Ours(stored) => Some(Attempted::Stored {
                stored,
                device: device_of(&self.request),
                name: self.request.name.clone(),
                crc32c: self.request.crc32c,
                start: None,
                warning: self.warning.take(),
            }),
            Next::Held(held) => Some(Attempted::Held {
                held,
                name: self.new_name(),
                warning: self.warning.take(),
            }),
            Next::Fail(error) => {
                if let Some(wait) = error.retry_after {
                    self.flow.hold(wait);
                }
                Some(Attempted::Failed {
                    error,
                    name: self.new_name(),
                    warning: self.warning.take(),
                })
            }
        }
    }

    fn rename(&mut self, why: &str) {
        let name = another_name(&self.request.name, self.naming);
        self.warning = Some(format!("{why}; the chunk is stored as gs://{}/{name}", self.request.bucket));
        self.request.name = name;
        self.is_renamed = true;
    }

    /// Returns the name for the next attempt, or `None` for the chunk's own name.
    fn new_name(&self) -> Option<String> {
        self.is_renamed.then(|| self.request.name.clone())
    }

    /// Returns the failure for a chunk of which every stored object is damaged, as reported by the server.
    fn damaged(&mut self, error: WriteError) -> Attempted {
        let error = match error.class {
            // The fault is in this machine's memory or disk, and the error text already says so.
            Class::Local => error,
            _ => WriteError {
                // The server accepted the request. An error without a status would be reported as one about credentials.
                http_status: error.http_status.or(Some(200)),
                ..for_the_user(
                    error,
                    "and so was another object of this chunk, whose bytes are right here: a proxy or an emulator changes what is sent, or answers with a wrong checksum or size",
                )
            },
        };
        Attempted::Failed {
            error,
            name: self.new_name(),
            warning: self.warning.take(),
        }
    }
}

/// The next step after an answer.
enum Next {
    Again,
    /// 412, but no such object exists. It may have been deleted in between.
    Missing(WriteError),
    Ours(Option<Stored>),
    Rename(String),
    Held(RetryAfter),
    /// 412, and the existing object cannot be read: the error and why the chunk gets another name.
    Blind(WriteError, String),
    Fail(WriteError),
    /// The stored object differs from what was sent. The text says why it could not be deleted; `None` if it was.
    Damaged(WriteError, Option<String>),
}

/// Returns the failure for a 412 that has nothing to do with an object of that name. The user has to act, and the chunk keeps its
/// name.
fn unresolved(error: WriteError, what: &str) -> Attempted {
    Attempted::Failed {
        error: for_the_user(error, what),
        name: None,
        warning: None,
    }
}

fn for_the_user(error: WriteError, what: &str) -> WriteError {
    WriteError {
        class: Class::Permanent,
        message: format!("{}, {what}", error.message),
        ..error
    }
}

/// Deletes a damaged object. Returns why it still exists, or `None` if it is deleted.
async fn after_bad_object(
    writer: &dyn ObjectWriter,
    request: &ObjectRequest,
    naming: &NameFallback,
    generation: i64,
) -> Option<String> {
    match writer.delete(&request.bucket, &request.name, generation).await {
        Ok(()) => None,
        // Rename for every error: the next attempt would meet the damaged object under this name and, without permission to read
        // it, take it for the chunk.
        Err(e) => {
            let what = if matches!(e.class, Class::Permanent | Class::Auth) {
                "arrived damaged and may not be deleted"
            } else {
                "arrived damaged and could not be deleted"
            };
            Some(format!(
                "gs://{}/{} (generation {generation}) {what} ({}); sequence {} is left there as it is",
                request.bucket, request.name, e.message, naming.sequence
            ))
        }
    }
}

async fn after_conflict(
    writer: &dyn ObjectWriter,
    request: &ObjectRequest,
    naming: &NameFallback,
    was_sent: bool,
    error: WriteError,
) -> Next {
    let mut found = writer.stat(&request.bucket, &request.name).await;
    if found.as_ref().is_err_and(|e| e.class == Class::Auth) {
        // The token has expired since the upload; the second look fetches a new one.
        found = writer.stat(&request.bucket, &request.name).await;
    }
    // A name alone proves nothing: 412 is also the answer of an organisation policy, and then nothing was stored.
    let is_ours = was_sent && (naming.own || stem_of(&request.name).0.contains(&tag_of(naming)));
    let there = format!("gs://{}/{}", request.bucket, request.name);
    match found {
        Ok(stored) => {
            let same_size = stored.size == request.size;
            let by_crc = stored.crc32c.map(|crc| same_size && crc == request.crc32c);
            // A crash shortened this chunk on disk. The longer object is the complete one, stored by an attempt before the crash.
            let is_longer = naming.rebuilt && naming.own && stored.size > request.size;
            match by_crc {
                // Clear the creation time: an earlier attempt created the object, so it must not be compared with our clock.
                Some(true) => Next::Ours(Some(Stored { created: None, ..stored })),
                _ if is_longer => Next::Ours(Some(Stored { created: None, ..stored })),
                // Cloud Storage omits the CRC32C for callers that may not use the bucket's key; then only the mark shows whose
                // object it is.
                None if same_size && is_ours => Next::Ours(Some(Stored { created: None, ..stored })),
                None if same_size => Next::Rename(format!(
                    "{there} exists with as many bytes and the server gave no checksum, so it may be another recording"
                )),
                _ => Next::Rename(format!("{there} exists with {} bytes and is another recording", stored.size)),
            }
        }
        Err(e) if e.http_status == Some(404) => Next::Missing(error),
        // Any other definite refusal of the look: repeating it would not help.
        Err(e) if matches!(e.class, Class::Permanent | Class::Auth) && e.http_status.is_some() => {
            if is_ours {
                return Next::Ours(None);
            }
            let why = format!("{there} exists and may not be looked at ({})", e.message);
            Next::Blind(error, why)
        }
        Err(e) if e.class == Class::Conflict => Next::Fail(error),
        Err(e) => Next::Fail(e),
    }
}

/// Returns the part of a name that identifies one chunk.
fn tag_of(naming: &NameFallback) -> String {
    format!("_{}_{:06}", naming.session, naming.sequence)
}

/// Splits a name into the part before its extension and the extension with its dot.
fn stem_of(name: &str) -> (&str, &str) {
    let folder = name.rfind('/').map_or(0, |i| i + 1);
    // A dot in a folder name, or at the beginning of the file name, does not start an extension.
    match name.rfind('.').filter(|&i| i > folder) {
        Some(dot) => name.split_at(dot),
        None => (name, ""),
    }
}

/// Splits a name like [`stem_of`], without what [`another_name`] adds.
fn plain_of<'a>(name: &'a str, naming: &NameFallback) -> (&'a str, &'a str) {
    let (stem, ext) = stem_of(name);
    let numbered = stem.rsplit_once("-r").filter(|(_, n)| n.parse::<u32>().is_ok());
    // A name of the user's may end in `-r` and a number too. [`another_name`] adds the number only behind session and sequence.
    let numbered = numbered.filter(|(base, _)| naming.own || base.contains(&tag_of(naming)));
    let stem = numbered.map_or(stem, |(base, _)| base);
    match stem.strip_suffix(&tag_of(naming)).filter(|_| !naming.own) {
        Some(base) => (base, ext),
        None => (stem, ext),
    }
}

/// Whether `other` may be a result of [`another_name`] for `name`.
fn is_name_of(name: &str, other: &str, naming: &NameFallback) -> bool {
    plain_of(name, naming) == plain_of(other, naming)
}

/// Returns another name for a chunk whose name is taken: `…_{session}_{seq}.{ext}`, and after that `…-r1.{ext}`, `…-r2.{ext}`.
fn another_name(name: &str, naming: &NameFallback) -> String {
    let (stem, ext) = stem_of(name);
    let tag = tag_of(naming);
    // Add session and sequence first: without them a later attempt cannot recognize the object as ours.
    if !naming.own && !stem.contains(&tag) {
        return format!("{stem}{tag}{ext}");
    }
    let (base, n) = match stem
        .rsplit_once("-r")
        .and_then(|(base, n)| Some((base, n.parse::<u32>().ok()?)))
    {
        Some((base, n)) => (base, n.saturating_add(1)),
        None => (stem, 1),
    };
    format!("{base}-r{n}{ext}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_name_becomes_one_that_tells_the_session() {
        let naming = |own| NameFallback {
            session: "0a1b2c3d4e".into(),
            sequence: 7,
            own,
            rebuilt: false,
        };
        assert_eq!(
            another_name("a.b/video00001.ts", &naming(false)),
            "a.b/video00001_0a1b2c3d4e_000007.ts"
        );
        assert_eq!(another_name("a.b/video", &naming(false)), "a.b/video_0a1b2c3d4e_000007");
        assert_eq!(
            another_name("v_0a1b2c3d4e_000007.ts", &naming(false)),
            "v_0a1b2c3d4e_000007-r1.ts"
        );
        assert_eq!(
            another_name("c_0a1b2c3d4e_000007.flv", &naming(true)),
            "c_0a1b2c3d4e_000007-r1.flv"
        );
        assert_eq!(
            another_name("c_0a1b2c3d4e_000007-r1.flv", &naming(true)),
            "c_0a1b2c3d4e_000007-r2.flv"
        );
        for own in ["clip-r00007.ts", "clip.ts"] {
            let mut name = own.to_owned();
            for _ in 0..3 {
                name = another_name(&name, &naming(false));
                assert!(is_name_of(own, &name, &naming(false)), "{name}");
            }
            assert!(!is_name_of(&format!("1970/{own}"), &name, &naming(false)), "{name}");
        }
    }
}
