//! One page of a listing, over the JSON API: `objects.list` with prefix, delimiter, name bounds and chosen fields.
//!
//! The client crate lists over gRPC only, which emulators and many proxies do not support. This file builds the query and parses
//! the answer; `reader` makes the request. Malformed entries are left out and counted, so that one of them does not hide the
//! others.
//!
//! <https://cloud.google.com/storage/docs/json_api/v1/objects/list>

use std::collections::BTreeMap;
use std::time::SystemTime;

use gcstreamer_schema::crc32c;
use jiff::Timestamp;
use serde_json::Value;

use super::object_api::encoded;

/// Maximum number of objects that Cloud Storage returns per page.
const MAX_RESULTS: u32 = 1000;

/// What a listing returns of each object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fields {
    /// Name, size, generation, CRC32C, custom metadata, and when it was created.
    #[default]
    All,
    /// The name alone: about a tenth of the bytes.
    Names,
}

/// Which objects to list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListQuery {
    /// Names begin with this.
    pub prefix: String,
    /// Names that contain this after the prefix are folded into [`Page::prefixes`].
    pub delimiter: Option<String>,
    /// Names at or after this.
    pub start_offset: Option<String>,
    /// Names before this.
    pub end_offset: Option<String>,
    /// Maximum number of objects and prefixes of the page; `None`: as many as Cloud Storage returns, 1000.
    pub max_results: Option<u32>,
    /// What to return of each object.
    pub fields: Fields,
    /// [`Page::next`] of the previous page.
    pub page: Option<String>,
}

/// An object of a listing. With [`Fields::Names`] only the name is set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Object name.
    pub name: String,
    /// Generation number; identifies this version of the object.
    pub generation: i64,
    /// Size in bytes.
    pub size: u64,
    /// CRC32C, if the server reports it.
    pub crc32c: Option<u32>,
    /// Custom metadata.
    pub metadata: BTreeMap<String, String>,
    /// Creation time by the server's clock.
    pub created: Option<SystemTime>,
}

/// A page of a listing, ordered by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The objects.
    pub objects: Vec<Listed>,
    /// The beginnings of names up to the delimiter, without duplicates.
    pub prefixes: Vec<String>,
    /// Token for the next page; `None`: this is the last one.
    pub next: Option<String>,
    /// Number of objects left out because the answer gives no name, generation or size.
    pub odd: usize,
}

impl ListQuery {
    /// Returns the path and query of the request.
    pub(crate) fn path(&self, bucket: &str) -> String {
        let items = match self.fields {
            Fields::All => "items(name,size,generation,crc32c,metadata,timeCreated)",
            Fields::Names => "items(name)",
        };
        let fields = format!("{items},prefixes,nextPageToken");
        let max = self.max_results.map(|max| max.clamp(1, MAX_RESULTS).to_string());
        let parameters = [
            ("fields", Some(fields.as_str())),
            ("prefix", Some(self.prefix.as_str()).filter(|prefix| !prefix.is_empty())),
            ("delimiter", self.delimiter.as_deref()),
            ("startOffset", self.start_offset.as_deref()),
            ("endOffset", self.end_offset.as_deref()),
            ("maxResults", max.as_deref()),
            ("pageToken", self.page.as_deref()),
        ];
        let parameters: Vec<String> = parameters
            .into_iter()
            .filter_map(|(key, value)| Some(format!("{key}={}", encoded(value?))))
            .collect();
        format!("/storage/v1/b/{}/o?{}", encoded(bucket), parameters.join("&"))
    }

    /// Parses the answer. `None`: it is not a listing.
    pub(crate) fn page(&self, body: &[u8]) -> Option<Page> {
        let json: Value = serde_json::from_slice(body).ok()?;
        let fields = json.as_object()?;
        let list = |name: &str| {
            fields
                .get(name)
                .and_then(Value::as_array)
                .map(Vec::as_slice)
                .unwrap_or_default()
        };
        let mut page = Page {
            prefixes: list("prefixes")
                .iter()
                .filter_map(|text| text.as_str().map(str::to_owned))
                .collect(),
            next: fields
                .get("nextPageToken")
                .and_then(Value::as_str)
                .filter(|token| !token.is_empty())
                .map(str::to_owned),
            ..Page::default()
        };
        for item in list("items") {
            match self.listed(item) {
                Some(object) => page.objects.push(object),
                None => page.odd += 1,
            }
        }
        Some(page)
    }

    fn listed(&self, item: &Value) -> Option<Listed> {
        let text = |name: &str| item.get(name).and_then(Value::as_str);
        let name = text("name").filter(|name| !name.is_empty())?.to_owned();
        if self.fields == Fields::Names {
            return Some(Listed {
                name,
                ..Listed::default()
            });
        }
        // 64-bit numbers are strings in this API.
        let number = |name: &str| match item.get(name)? {
            Value::String(text) => text.parse::<i64>().ok(),
            number => number.as_i64(),
        };
        let metadata = item.get("metadata").and_then(Value::as_object);
        let metadata = metadata
            .into_iter()
            .flatten()
            .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())));
        Some(Listed {
            name,
            generation: number("generation").filter(|generation| *generation > 0)?,
            size: number("size").and_then(|size| u64::try_from(size).ok())?,
            crc32c: text("crc32c").and_then(crc32c::from_base64),
            metadata: metadata.collect(),
            created: text("timeCreated")
                .and_then(|text| text.parse::<Timestamp>().ok())
                .map(Into::into),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_what_it_wants_and_escapes_it() {
        let query = ListQuery {
            prefix: "store 42/cam&3/".into(),
            delimiter: Some("/".into()),
            start_offset: Some("a#b".into()),
            max_results: Some(5000),
            fields: Fields::Names,
            ..ListQuery::default()
        };
        assert_eq!(
            query.path("b"),
            "/storage/v1/b/b/o?fields=items%28name%29%2Cprefixes%2CnextPageToken&prefix=store%2042%2Fcam%263%2F&delimiter=%2F&startOffset=a%23b&maxResults=1000"
        );
    }

    #[test]
    fn an_odd_object_does_not_hide_the_others() {
        let body = br#"{"items":[{"name":"a","generation":"1","size":"2","crc32c":"SZYC0g==","metadata":{"k":"v","n":5},"timeCreated":"2026-11-22T06:45:12Z"},
            {"name":"","generation":"1","size":"2"},{"name":"b"},{"name":"c","generation":"-1","size":"2"}],"prefixes":["x/"],"nextPageToken":"t"}"#;
        let page = ListQuery::default().page(body).unwrap();
        assert_eq!((page.objects.len(), page.odd, page.prefixes.len()), (1, 3, 1));
        let object = &page.objects[0];
        assert_eq!((object.crc32c, object.metadata.len()), (Some(1_234_567_890), 1));
        assert!(object.created.is_some() && page.next.as_deref() == Some("t"));
        assert_eq!(ListQuery::default().page(b"{}"), Some(Page::default()), "an empty bucket");
        assert_eq!(ListQuery::default().page(b"<html>"), None);
        assert_eq!(ListQuery::default().page(b"[]"), None);
    }
}
