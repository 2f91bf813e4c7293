//! The first object of a listing that is what somebody looks for, however many others stand in front of it.
//!
//! Other programs keep objects in the folders of cameras, and Cloud Storage may answer an empty page with a token for the next one: neither
//! says that nothing is there. A listing is over where it has no next page.

use gcstreamer_storage::{ListQuery, Listed};

use super::{Index, IndexError};

impl Index {
    /// Returns what `accept` makes of the first object of the listing that it takes. `None`: the listing ends, and has none. The first page
    /// is as short as the query says, all behind it are as long as pages are.
    ///
    /// # Errors
    /// [`IndexError`]; [`IndexError::TooMany`] where none of so many pages has one.
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
                // A token belongs to its query: a longer page is asked for from the last name on, which is read once more.
                (Some(_), Some(last)) if query.max_results.is_some() => {
                    (query.page, query.start_offset, query.max_results) = (None, Some(last), None);
                }
                (Some(next), _) => query.page = Some(next),
            }
        }
        Err(IndexError::TooMany(query.prefix))
    }
}
