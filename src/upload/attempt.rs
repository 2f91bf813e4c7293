//! One chunk, one attempt: what a refusal means, and under which name the chunk is stored at last.
//!
//! Talks to the server through [`ObjectWriter`] alone. A lost reply shows as 412 at the next attempt: the object that stands
//! there is compared by size and CRC32C; without permission to look it is ours if its name tells session and sequence. A
//! stranger's object, and a bad one that may not be deleted, are left alone and the chunk gets another name.

use std::sync::Arc;

use crate::flow::group::Member;
use gcstreamer_storage::{Class, ObjectRequest, ObjectWriter, Pacer, Stored, WriteError};

/// How the chunk may be called if its name is taken.
#[derive(Clone, Debug)]
pub struct Naming {
    /// Property `session-id`.
    pub session: String,
    /// Sequence number.
    pub sequence: u64,
    /// The name tells both: an object of that name can only be ours.
    pub own: bool,
    /// Its end was lost in a crash and made again: what stands there under a name of our own may be longer.
    pub rebuilt: bool,
}

/// What came of an attempt.
#[derive(Debug)]
pub enum Attempted {
    /// The server has the bytes, under `name`.
    Stored {
        /// What the server says of it; `None` where it may not be asked.
        stored: Option<Stored>,
        /// The object's name.
        name: String,
        /// CRC32C of what was sent.
        crc32c: u32,
        /// Its capture start, ns since the Unix epoch, where that was found to be another than was known.
        start: Option<u64>,
        /// Something the user should know.
        warning: Option<String>,
    },
    /// Not stored. `name` is the one to try next, where it is another.
    Failed {
        /// Why.
        error: WriteError,
        /// The name to go on with.
        name: Option<String>,
        /// Something the user should know.
        warning: Option<String>,
    },
    /// Its bytes on disk are damaged, and it was set aside.
    Damaged {
        /// What was found, and where it is now.
        why: String,
    },
}

/// Requests that one attempt makes at most: a token that had expired, a conflict, a bad object, and their answers.
const MAX_STEPS: u32 = 6;

/// Tries once to store a chunk; `name` is what it is called since an earlier attempt found its name taken.
pub async fn attempt(
    writer: &dyn ObjectWriter,
    request: &ObjectRequest,
    name: Option<&str>,
    naming: &Naming,
    flow: &Arc<Member>,
) -> Attempted {
    let mut request = request.clone();
    if let Some(name) = name {
        name.clone_into(&mut request.name);
    }
    let mut warning = None;
    let mut fresh_token = false;
    let mut steps = 0;
    loop {
        steps += 1;
        flow.request().await;
        let pacer: Arc<dyn Pacer> = Arc::<Member>::clone(flow);
        let error = match writer.write(&request, pacer).await {
            Ok(stored) => {
                return Attempted::Stored {
                    stored: Some(stored),
                    name: request.name,
                    crc32c: request.crc32c,
                    start: None,
                    warning,
                };
            }
            Err(error) => error,
        };
        if let Some(wait) = error.retry_after {
            flow.hold(wait);
        }
        let next = if steps >= MAX_STEPS {
            Next::Fail(error)
        } else if error.class == Class::Auth && !fresh_token {
            fresh_token = true;
            Next::Again
        } else if let Some(generation) = error.bad_generation {
            flow.request().await;
            after_bad_object(writer, &request, naming, generation).await
        } else if error.class == Class::Conflict {
            flow.request().await;
            after_conflict(writer, &request, naming, error).await
        } else {
            Next::Fail(error)
        };
        match next {
            Next::Again => {}
            Next::Ours(stored) => {
                return Attempted::Stored {
                    stored,
                    name: request.name,
                    crc32c: request.crc32c,
                    start: None,
                    warning,
                };
            }
            Next::Rename(why) => {
                let name = another_name(&request.name, naming);
                warning = Some(format!("{why}; the chunk is stored as gs://{}/{name}", request.bucket));
                request.name = name;
            }
            Next::Fail(error) => {
                return Attempted::Failed {
                    error,
                    name: Some(request.name),
                    warning,
                };
            }
        }
    }
}

enum Next {
    Again,
    Ours(Option<Stored>),
    Rename(String),
    Fail(WriteError),
}

async fn after_bad_object(writer: &dyn ObjectWriter, request: &ObjectRequest, naming: &Naming, generation: i64) -> Next {
    match writer.delete(&request.bucket, &request.name, generation).await {
        Ok(()) => Next::Again,
        // Whatever the reason: the next attempt would meet it under this name, and take it for the chunk where it may not look.
        Err(e) => {
            let what = if matches!(e.class, Class::Permanent | Class::Auth) {
                "arrived damaged and may not be deleted"
            } else {
                "arrived damaged and could not be deleted"
            };
            Next::Rename(format!(
                "gs://{}/{} (generation {generation}) {what} ({}); sequence {} is left there as it is",
                request.bucket, request.name, e.message, naming.sequence
            ))
        }
    }
}

async fn after_conflict(writer: &dyn ObjectWriter, request: &ObjectRequest, naming: &Naming, error: WriteError) -> Next {
    match writer.stat(&request.bucket, &request.name).await {
        Ok(stored) if stored.size == request.size && stored.crc32c.is_none_or(|crc| crc == request.crc32c) => {
            // Made by an attempt some time ago: it does not tell what time it is.
            Next::Ours(Some(Stored { created: None, ..stored }))
        }
        Ok(stored) if naming.rebuilt && naming.own => Next::Ours(Some(Stored { created: None, ..stored })),
        Ok(stored) => Next::Rename(format!(
            "gs://{}/{} exists with {} bytes and is another recording",
            request.bucket, request.name, stored.size
        )),
        Err(e) if e.http_status == Some(404) => Next::Again,
        Err(e) if matches!(e.class, Class::Permanent | Class::Auth) && naming.own => Next::Ours(None),
        Err(e) if matches!(e.class, Class::Permanent | Class::Auth) => Next::Rename(format!(
            "gs://{}/{} exists and may not be looked at ({})",
            request.bucket, request.name, e.message
        )),
        Err(e) if e.class == Class::Conflict => Next::Fail(error),
        Err(e) => Next::Fail(e),
    }
}

/// Another name for a chunk whose name is taken: `…_{session}_{seq}.{ext}`, and after that `…-r1.{ext}`, `…-r2.{ext}`.
fn another_name(name: &str, naming: &Naming) -> String {
    let folder = name.rfind('/').map_or(0, |i| i + 1);
    let (stem, ext) = match name.rfind('.').filter(|&i| i > folder) {
        Some(dot) => name.split_at(dot),
        None => (name, ""),
    };
    let tag = format!("_{}_{:06}", naming.session, naming.sequence);
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
        let naming = |own| Naming {
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
    }
}
