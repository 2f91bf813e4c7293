//! The first object of a listing that fulfils a condition, whatever other objects precede it.
//!
//! Other programs may store objects in the folders of cameras, and Cloud Storage may answer with an empty page and a token for
//! the next one. Neither means that nothing follows: a listing ends only with a page without a token.

use gcstreamer_storage::{ListQuery, Listed};

use super::{Index, IndexError};

impl Index {
    /// Returns the first `Some` of `accept` over the objects of the listing. `None`: no object of the whole listing is accepted.
    ///
    /// The first page has the length that the query names, all others the full length: usually the first object is accepted, and
    /// if not, many others may follow.
    ///
    /// # Errors
    /// [`IndexError`]; [`IndexError::TooMany`] if `pages` pages have no such object and there are more.
    pub(super) async fn first_of<T>(
        &self,
        mut query: ListQuery,
        pages: usize,
        accept: impl Fn(Listed) -> Option<T>,
    ) -> Result<Option<T>, IndexError> {
        for _ in 0..pages {
            let page = self.list(&query).await?;
            let last = page.objects.last().map(|object| object.name.clone());
            if let Some(found) = page.objects.into_iter().find_map(&accept) {
                return Ok(Some(found));
            }
            match (page.next, last) {
                (None, _) => return Ok(None),
                // A page token is valid for its own query only. For longer pages, start a new query at the last name, which is
                // then listed twice.
                (Some(_), Some(last)) if query.max_results.is_some() => {
                    (query.page, query.start_offset, query.max_results) = (None, Some(last), None);
                }
                (Some(next), _) => query.page = Some(next),
            }
        }
        Err(IndexError::TooMany(query.prefix))
    }
}
