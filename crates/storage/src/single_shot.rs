//! An object in one multipart request.
//!
//! The client crate can do this too, but it reads an answer to its end, and an endless one would fill the memory.
//!
//! <https://cloud.google.com/storage/docs/uploading-objects#rest-upload-objects>

use futures_util::stream::unfold;
use gcstreamer_schema::crc32c;
use jiff::Timestamp;
use reqwest::header::CONTENT_TYPE;
use reqwest::multipart::{Form, Part};
use serde_json::{Map, Value, json};

use super::ObjectRequest;
use super::body_source::Source;
use super::client_pool::Client;
use super::error::{Target, WriteError};
use super::object_api::{Description, encoded};

impl Client {
    /// Stores an object that must not exist yet. Returns the server's description of it.
    pub(crate) async fn store(
        &self,
        request: &ObjectRequest,
        source: Source,
        target: Target<'_>,
    ) -> Result<Description, WriteError> {
        let situation = self.situation(false);
        let url = self.upload_url("multipart", request);
        let broken = |error: reqwest::Error| target.http_error(&error);
        let text = Part::text(resource(request).to_string()).mime_str("application/json; charset=UTF-8");
        let media = Part::stream_with_length(streamed(source), request.size);
        let form = Form::new().part("metadata", text.map_err(broken)?).part("media", media);
        // Not `RequestBuilder::multipart`, which sends `multipart/form-data`: the JSON API requires `multipart/related`.
        let boundary = format!("multipart/related; boundary={}", form.boundary());
        let call = self.http.post(url).header(CONTENT_TYPE, boundary);
        let call = self.authorized(call, target, situation).await?;
        let body = reqwest::Body::wrap_stream(form.into_stream());
        let response = call.body(body).send().await.map_err(broken)?;
        let answer = self.answer(response, target, situation).await?;
        Description::parse(&answer).map_err(|why| target.unreadable(&why))
    }

    /// Returns the address that an upload of this type for an object that must not exist yet goes to.
    pub(crate) fn upload_url(&self, upload_type: &str, request: &ObjectRequest) -> String {
        let mut url = format!(
            "{}/upload/storage/v1/b/{}/o?uploadType={upload_type}&name={}&ifGenerationMatch=0",
            self.origin,
            encoded(&request.bucket),
            encoded(&request.name)
        );
        if let Some(key) = &request.kms_key {
            url.push_str(&format!("&kmsKeyName={}", encoded(key)));
        }
        url
    }
}

pub(crate) fn streamed(source: Source) -> reqwest::Body {
    let pieces = unfold(source, |mut source| async move {
        let piece = source.next().await?;
        Some((piece, source))
    });
    reqwest::Body::wrap_stream(Box::pin(pieces))
}

/// Returns the object's resource in the form of the JSON API.
pub(crate) fn resource(request: &ObjectRequest) -> Value {
    let mut fields = Map::new();
    let mut put = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    put("contentType", json!(request.content_type));
    put("crc32c", json!(crc32c::to_base64(request.crc32c)));
    for (name, value) in [
        ("cacheControl", &request.cache_control),
        ("storageClass", &request.storage_class),
    ] {
        value.as_ref().map(|value| put(name, json!(value)));
    }
    if let Some(time) = request.custom_time.and_then(|time| Timestamp::try_from(time).ok()) {
        put("customTime", json!(time.to_string()));
    }
    if !request.metadata.is_empty() {
        put("metadata", json!(request.metadata));
    }
    Value::Object(fields)
}
