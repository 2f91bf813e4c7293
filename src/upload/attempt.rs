//! One chunk, one attempt: what a refusal means, and under which name the chunk is stored at last.
//!
//! Talks to the server through [`ObjectWriter`] alone. A lost reply shows as 412 at the next attempt: the object that stands
//! there is ours if its size and its CRC32C are known to be equal. Without permission to look it is ours if its name holds
//! session and sequence **and** this chunk was sent whole under that name by an earlier request that may have stored it (see
//! [`super::marks`]). A stranger's object, and a bad one that may not be deleted, are left alone and the chunk gets another name:
//! a recording that is stored twice is better than one that is not stored. See `docs/decisions/0005`.

use super::chunk::NameFallback;
use super::marks::{Marks, Sending};
use crate::flow::member::Route;
use crate::flow::site::Held;
use gcstreamer_schema::metadata::DEVICE_ID;
use gcstreamer_storage::{Class, ObjectRequest, ObjectWriter, Pacer, Stored, WriteError};
use std::sync::Arc;

/// What came of an attempt.
#[derive(Debug)]
pub enum Attempted {
    /// The server has the bytes, under `name`.
    Stored {
        /// The object as the server describes it; `None` if reading is not permitted.
        stored: Option<Stored>,
        /// The object's name.
        name: String,
        /// Property `device-id` of the sink that recorded it.
        device: String,
        /// CRC32C of what was sent.
        crc32c: u32,
        /// Its capture start, ns since the Unix epoch, where that was found to be another than was known.
        start: Option<u64>,
        /// Something the user should know.
        warning: Option<String>,
    },
    /// Not stored.
    Failed {
        /// Why.
        error: WriteError,
        /// The name to go on with; `None` where it is the chunk's own, which may be redated before the next attempt.
        name: Option<String>,
        /// Something the user should know.
        warning: Option<String>,
    },
    /// Not sent: its bucket has asked for a pause. Neither a success nor a failure.
    Held {
        /// The pause.
        held: Held,
        /// The name to go on with, as in `Failed`.
        name: Option<String>,
        /// Something the user should know.
        warning: Option<String>,
    },
    /// Not sent: its bytes are on a disk that does not answer. Neither a success nor a failure.
    Unread {
        /// What the disk said.
        why: String,
    },
    /// Its bytes on disk are damaged, and it was set aside.
    Damaged {
        /// What was found, and where it is now.
        why: String,
    },
}

/// Requests that one attempt makes at most: a token that had expired, a conflict, a bad object, and their answers.
const MAX_STEPS: u32 = 6;
/// Names that are tried if a server answers 412 without a reason and permits no look: it may not be about names at all.
const MAX_BLIND: u32 = 2;
/// Damaged objects of one chunk after which the user has to act: each is a whole copy, which stays where it may not be deleted.
const MAX_DAMAGED: usize = 2;

/// The `device-id` in an object's metadata.
fn device_of(request: &ObjectRequest) -> String {
    request.metadata.get(DEVICE_ID).cloned().unwrap_or_default()
}

/// Tries once to store a chunk; `name` is what it is called since an earlier attempt found its name taken.
pub async fn attempt(
    writer: &dyn ObjectWriter,
    request: &ObjectRequest,
    name: Option<&str>,
    naming: &NameFallback,
    marks: &Marks,
    flow: &Route,
) -> Attempted {
    let mut request = request.clone();
    // A name that was made of another date than the chunk has now: nothing was sent whole under it, or the date would be the old one.
    let name = name.filter(|name| is_name_of(&request.name, name, naming));
    if let Some(name) = name {
        name.clone_into(&mut request.name);
    }
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
        if let Some(attempted) = attempt.judge(next) {
            return attempted;
        }
    }
}

/// An attempt on its way, of one request or a few.
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
    /// Names tried in place of the first.
    renamed: u32,
    /// Its name is not the chunk's own, by this attempt or an earlier one.
    is_renamed: bool,
    /// A 412 was answered though there is no such object.
    was_missing: bool,
    /// A token was refused, and fetched again.
    had_fresh_token: bool,
}

impl Attempt<'_> {
    /// Makes one request, and asks what its refusal means.
    async fn send(&mut self) -> Next {
        self.steps += 1;
        if let Err(held) = self.flow.request().await {
            return Next::Held(held);
        }
        // Asked before the request: what it sends itself proves nothing when it is refused.
        let was_sent = self.marks.has(&self.request.name);
        let sending = Sending::new(self.flow.pacer(), self.marks, &self.request.name);
        let pacer: Arc<dyn Pacer> = Arc::<Sending>::clone(&sending);
        let answer = self.writer.write(&self.request, pacer).await;
        // A mark that is still on its way to disk could not be taken off below.
        sending.settled().await;
        let error = match answer {
            Ok(stored) => return Next::Ours(Some(stored)),
            Err(error) => error,
        };
        if error.bad_generation.is_some() {
            self.marks.damaged(&self.request.name).await;
        } else if !was_sent && error.says_nothing_was_stored() {
            self.marks.not_stored(&self.request.name).await;
        }
        if self.steps >= MAX_STEPS {
            return Next::Fail(error);
        }
        // A token may expire on its way; one that was just fetched and is refused is for the user. Even where a pause is asked for: the
        // next attempt would not know that its token is a fresh one.
        if error.class == Class::Auth && !self.had_fresh_token {
            self.had_fresh_token = true;
            return Next::Again;
        }
        // A server that asks for a pause gets it before any other question.
        if error.retry_after.is_some() {
            return Next::Fail(error);
        }
        let is_bad = error.bad_generation.is_some();
        if !is_bad && error.class != Class::Conflict {
            return Next::Fail(error);
        }
        // A look and a deletion are requests of the same limits.
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

    /// What came of the attempt; `None`: another request is made, under another name maybe.
    fn judge(&mut self, next: Next) -> Option<Attempted> {
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
                (self.marks.damaged_objects() >= MAX_DAMAGED).then(|| self.damaged(error))
            }
            Next::Missing(_) => {
                self.was_missing = true;
                None
            }
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

    /// The name to go on with, where it is not the chunk's own.
    fn new_name(&self) -> Option<String> {
        self.is_renamed.then(|| self.request.name.clone())
    }

    /// Every object of this chunk is damaged, as far as the server says.
    fn damaged(&mut self, error: WriteError) -> Attempted {
        let error = match error.class {
            // This machine's own memory or disk, and the text says so.
            Class::Local => error,
            _ => WriteError {
                // The server took it. Without a status it would be about credentials.
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

/// What follows from an answer.
enum Next {
    Again,
    /// 412, and there is no such object. Maybe it was deleted just now.
    Missing(WriteError),
    Ours(Option<Stored>),
    Rename(String),
    Held(Held),
    /// The same, and what stands there could not be looked at: why.
    Blind(WriteError, String),
    Fail(WriteError),
    /// What was stored is not what was sent. Why it is still there, where it could not be deleted.
    Damaged(WriteError, Option<String>),
}

/// A 412 that is not about an object of that name. It is for the user, and the chunk keeps the name that it has.
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

/// Deletes a damaged object. Returns why it is still there.
async fn after_bad_object(
    writer: &dyn ObjectWriter,
    request: &ObjectRequest,
    naming: &NameFallback,
    generation: i64,
) -> Option<String> {
    match writer.delete(&request.bucket, &request.name, generation).await {
        Ok(()) => None,
        // Whatever the reason: the next attempt would meet it under this name, and take it for the chunk where it may not look.
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
    let mut looked = writer.stat(&request.bucket, &request.name).await;
    if looked.as_ref().is_err_and(|e| e.class == Class::Auth) {
        // The token has expired since: the next look has a fresh one.
        looked = writer.stat(&request.bucket, &request.name).await;
    }
    let is_ours = was_sent && (naming.own || stem_of(&request.name).0.contains(&tag_of(naming)));
    let there = format!("gs://{}/{}", request.bucket, request.name);
    match looked {
        Ok(stored) => {
            let same_size = stored.size == request.size;
            let by_crc = stored.crc32c.map(|crc| same_size && crc == request.crc32c);
            // A crash cut this chunk short: the object of an attempt before it is the whole one.
            let is_longer = naming.rebuilt && naming.own && stored.size > request.size;
            match by_crc {
                // Made by an attempt some time ago: its creation time is not the present time.
                Some(true) => Next::Ours(Some(Stored { created: None, ..stored })),
                _ if is_longer => Next::Ours(Some(Stored { created: None, ..stored })),
                // Cloud Storage hides it from callers without the bucket's key: only the mark proves whose it is.
                None if same_size && is_ours => Next::Ours(Some(Stored { created: None, ..stored })),
                None if same_size => Next::Rename(format!(
                    "{there} exists with as many bytes and the server gave no checksum, so it may be another recording"
                )),
                _ => Next::Rename(format!("{there} exists with {} bytes and is another recording", stored.size)),
            }
        }
        Err(e) if e.http_status == Some(404) => Next::Missing(error),
        // Whatever else is answered to a look, and will be the next time too.
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

/// What makes a name that of one chunk alone.
fn tag_of(naming: &NameFallback) -> String {
    format!("_{}_{:06}", naming.session, naming.sequence)
}

/// A name without its extension, and the extension with its dot.
fn stem_of(name: &str) -> (&str, &str) {
    let folder = name.rfind('/').map_or(0, |i| i + 1);
    // A dot in a folder, or at the beginning of the name, begins no extension.
    match name.rfind('.').filter(|&i| i > folder) {
        Some(dot) => name.split_at(dot),
        None => (name, ""),
    }
}

/// A name without what [`another_name`] adds.
fn plain_of<'a>(name: &'a str, naming: &NameFallback) -> (&'a str, &'a str) {
    let (stem, ext) = stem_of(name);
    let numbered = stem.rsplit_once("-r").filter(|(_, n)| n.parse::<u32>().is_ok());
    // A number of the user's own is no addition: one is only added behind session and sequence.
    let numbered = numbered.filter(|(base, _)| naming.own || base.contains(&tag_of(naming)));
    let stem = numbered.map_or(stem, |(base, _)| base);
    match stem.strip_suffix(&tag_of(naming)).filter(|_| !naming.own) {
        Some(base) => (base, ext),
        None => (stem, ext),
    }
}

/// Whether [`another_name`] may have made `other` of `name`.
fn is_name_of(name: &str, other: &str, naming: &NameFallback) -> bool {
    plain_of(name, naming) == plain_of(other, naming)
}

/// Another name for a chunk whose name is taken: `…_{session}_{seq}.{ext}`, and after that `…-r1.{ext}`, `…-r2.{ext}`.
fn another_name(name: &str, naming: &NameFallback) -> String {
    let (stem, ext) = stem_of(name);
    let tag = tag_of(naming);
    // First session and sequence: only with them can the object be known as ours later.
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
