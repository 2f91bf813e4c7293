//! What listing and reading promise, against a server that does what its script says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::time::Duration;

use gcstreamer_storage::{Class, ClientPool, Credentials, Endpoint, Fields, GcsReader, ListQuery, WriteError};

#[path = "../../../tests/common/gcs_server.rs"]
mod gcs_server;

use gcs_server::{Answer, GcsServer};

const BUCKET: &str = "cam-bucket";

fn reader(server: &GcsServer) -> GcsReader {
    let endpoint = Endpoint::resolve(Some(&server.endpoint()), None).unwrap();
    GcsReader::new(&ClientPool::new(), endpoint, Credentials::ApplicationDefault)
}

async fn names(reader: &GcsReader, mut query: ListQuery) -> (Vec<String>, Vec<String>, usize) {
    let (mut names, mut prefixes, mut pages) = (Vec::new(), Vec::new(), 0);
    loop {
        let page = reader.list(BUCKET, &query).await.unwrap();
        names.extend(page.objects.into_iter().map(|object| object.name));
        prefixes.extend(page.prefixes);
        pages += 1;
        match page.next {
            Some(next) => query.page = Some(next),
            None => return (names, prefixes, pages),
        }
    }
}

#[tokio::test]
async fn a_listing_is_read_page_by_page_within_its_bounds() {
    let server = GcsServer::spawn_thread();
    for name in ["a/1", "a/2", "a/b/3", "b/4", "c/5", "é/6"] {
        server.put(BUCKET, name, b"x");
    }
    let reader = reader(&server);
    let pages_of_two = ListQuery {
        max_results: Some(2),
        ..ListQuery::default()
    };
    let (all, _, pages) = names(&reader, pages_of_two).await;
    assert_eq!(
        (all, pages),
        (["a/1", "a/2", "a/b/3", "b/4", "c/5", "é/6"].map(String::from).to_vec(), 3)
    );
    let folders = ListQuery {
        delimiter: Some("/".into()),
        max_results: Some(2),
        ..ListQuery::default()
    };
    let (objects, prefixes, _) = names(&reader, folders).await;
    assert_eq!(
        (objects, prefixes),
        (Vec::new(), ["a/", "b/", "c/", "é/"].map(String::from).to_vec())
    );
    let bounds = ListQuery {
        start_offset: Some("a/2".into()),
        end_offset: Some("c/".into()),
        fields: Fields::Names,
        ..ListQuery::default()
    };
    assert_eq!(
        names(&reader, bounds).await.0,
        ["a/2", "a/b/3", "b/4"].map(String::from).to_vec()
    );
    let prefix = ListQuery {
        prefix: "é/".into(),
        ..ListQuery::default()
    };
    assert_eq!(names(&reader, prefix).await.0, ["é/6"].map(String::from).to_vec());
}

#[tokio::test]
async fn a_listing_has_metadata_and_generation_of_each_object() {
    let server = GcsServer::spawn_thread();
    let metadata = BTreeMap::from([("device-id".to_owned(), "<script>".to_owned())]);
    let generation = server.put_with(BUCKET, "a.flv", b"abc", &metadata);
    let page = reader(&server).list(BUCKET, &ListQuery::default()).await.unwrap();
    let object = &page.objects[0];
    assert_eq!((object.generation, object.size, &object.metadata), (generation, 3, &metadata));
    assert!(object.created.is_some() && object.crc32c.is_some());
}

#[tokio::test]
async fn a_range_is_read_of_the_generation_that_was_asked_for() {
    let server = GcsServer::spawn_thread();
    let data: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let generation = server.put(BUCKET, "a b/ü.flv", &data);
    let reader = reader(&server);
    let read = |from, to| reader.read(BUCKET, "a b/ü.flv", generation, from..to);
    assert_eq!(read(0, 300_000).await.unwrap(), data);
    assert_eq!(read(1000, 1256).await.unwrap(), data[1000..1256]);
    let short = read(299_990, 300_010).await.unwrap_err();
    assert!(
        short.class == Class::Transient && short.message.contains("ended 10 bytes before"),
        "{short}"
    );
    // It is overwritten while somebody watches.
    server.put(BUCKET, "a b/ü.flv", b"other");
    assert_eq!(read(0, 5).await.unwrap_err().http_status, Some(404));
}

async fn both(reader: &GcsReader, server: &GcsServer, answer: Answer) -> [WriteError; 2] {
    server.push_object_fault(answer.clone());
    let listed = reader.list(BUCKET, &ListQuery::default()).await.unwrap_err();
    server.push_object_fault(answer);
    [listed, reader.read(BUCKET, "a", 1, 0..1).await.unwrap_err()]
}

#[tokio::test]
async fn refusals_name_the_missing_permission_and_have_their_class() {
    let server = GcsServer::spawn_thread();
    let reader = reader(&server);
    let [listed, read] = both(&reader, &server, Answer::status(403)).await;
    assert!(
        listed.message.contains("storage.objects.list") && read.message.contains("storage.objects.get"),
        "{listed} {read}"
    );
    for (status, class) in [
        (401, Class::Auth),
        (403, Class::Permanent),
        (404, Class::Permanent),
        (429, Class::Throttled),
        (503, Class::Transient),
    ] {
        for error in both(&reader, &server, Answer::status(status)).await {
            assert_eq!((error.class, error.http_status), (class, Some(status)), "{error}");
        }
    }
    let [listed, read] = both(&reader, &server, Answer::raw(200, "text/html", "<html>log in")).await;
    assert!(
        listed.message.contains("is no listing") && read.message.contains("login page"),
        "{listed} {read}"
    );
}

#[tokio::test]
async fn a_server_that_never_answers_ends_the_attempt() {
    let server = GcsServer::spawn_thread();
    let reader = reader(&server).with_request_timeout(Duration::from_millis(300));
    for error in both(&reader, &server, Answer::raw(0, "", "")).await {
        assert!(
            error.class == Class::Transient && error.message.contains("no answer within 0.3 s"),
            "{error}"
        );
    }
}
