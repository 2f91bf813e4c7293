//! What one attempt to store an object promises, against a server that does what its script says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use gcstreamer_storage::{
    Body, BoxFuture, Class, ClientPool, Credentials, Endpoint, GcsWriter, ObjectRequest, ObjectWriter, Pacer, Stored, Unpaced,
    WriteError,
};

#[path = "common/gcs_server.rs"]
mod gcs_server;
#[path = "common/proxy.rs"]
mod proxy;
#[path = "common/tls.rs"]
mod tls;

use gcs_server::{Answer, Fault, GcsServer, Options};

const BUCKET: &str = "cam-bucket";
/// For attempts that are meant to stand still.
const SHORT: Duration = Duration::from_millis(400);

fn writer(server: &GcsServer) -> GcsWriter {
    let endpoint = Endpoint::resolve(Some(&server.endpoint()), None).unwrap();
    GcsWriter::new(&ClientPool::new(), endpoint, Credentials::ApplicationDefault).with_request_timeout(Duration::from_secs(20))
}

fn payload(len: usize) -> Bytes {
    (0..len)
        .map(|i| u8::try_from((i ^ (i >> 8) ^ (i >> 16)) & 0xff).unwrap())
        .collect::<Vec<_>>()
        .into()
}

fn request(name: &str, data: &Bytes) -> ObjectRequest {
    ObjectRequest {
        bucket: BUCKET.into(),
        name: name.into(),
        content_type: "video/x-flv".into(),
        cache_control: None,
        storage_class: None,
        kms_key: None,
        metadata: BTreeMap::new(),
        custom_time: None,
        crc32c: crc32c::crc32c(data),
        size: data.len() as u64,
        body: Body::from_pieces(
            (0..data.len())
                .step_by(1000)
                .map(|at| data.slice(at..(at + 1000).min(data.len()))),
        ),
    }
}

async fn write(writer: &GcsWriter, request: &ObjectRequest) -> Result<Stored, WriteError> {
    writer.write(request, Arc::new(Unpaced)).await
}

/// The error of one upload under this fault.
async fn fails(fault: Fault) -> WriteError {
    let server = GcsServer::spawn_thread();
    server.push_fault(fault);
    let error = write(&writer(&server), &request("a.flv", &payload(300_000)))
        .await
        .unwrap_err();
    assert_eq!(server.uploads().len(), 1, "one call is one attempt: {error}");
    error
}

#[tokio::test]
async fn a_chunk_arrives_with_everything_that_was_said_of_it() {
    let server = GcsServer::spawn_thread();
    let data = payload(300_000);
    let mut request = request("store42/cam3/a.flv", &data);
    request.cache_control = Some("no-store".into());
    request.storage_class = Some("NEARLINE".into());
    request.kms_key = Some("projects/p/locations/l/keyRings/r/cryptoKeys/k".into());
    request.metadata = BTreeMap::from([("sequence".into(), "7".into()), ("device-id".into(), "cam é".into())]);
    request.custom_time = Some(SystemTime::UNIX_EPOCH + Duration::from_millis(784_111_777_250));
    let stored = write(&writer(&server), &request).await.unwrap();

    let object = server.object(BUCKET, "store42/cam3/a.flv").unwrap();
    assert_eq!(object.data, data, "not one byte more or less");
    assert_eq!(
        (stored.generation, stored.size, stored.crc32c),
        (object.generation, 300_000, Some(request.crc32c))
    );
    let age = SystemTime::now().duration_since(stored.created.unwrap()).unwrap_or_default();
    assert!(age < Duration::from_secs(60), "the server's clock is passed on: {age:?}");
    assert_eq!(object.meta["contentType"], "video/x-flv");
    assert_eq!(object.meta["cacheControl"], "no-store");
    assert_eq!(object.meta["storageClass"], "NEARLINE");
    assert_eq!(object.meta["metadata"]["sequence"], "7");
    assert_eq!(object.meta["metadata"]["device-id"], "cam é");
    assert_eq!(object.meta["customTime"], "1994-11-06T08:49:37.25Z");
    assert_eq!(object.meta["crc32c"], gcs_server::base64(&request.crc32c.to_be_bytes()));

    let uploads = server.uploads();
    assert_eq!(uploads.len(), 1);
    assert_eq!(uploads[0].path, format!("/upload/storage/v1/b/{BUCKET}/o"));
    assert_eq!(uploads[0].query["ifGenerationMatch"], "0");
    assert_eq!(uploads[0].query["uploadType"], "multipart");
    assert_eq!(
        uploads[0].query["kmsKeyName"],
        "projects/p/locations/l/keyRings/r/cryptoKeys/k"
    );
    assert!(uploads[0].header("user-agent").unwrap().starts_with("gst-plugin-gcstreamer/"));
    assert_eq!(uploads[0].header("authorization"), None, "http:// never gets credentials");
}

#[tokio::test]
async fn any_legal_name_is_stored_found_and_deleted_as_it_is() {
    let server = GcsServer::spawn_thread();
    let writer = writer(&server);
    for name in [
        "a b/c+d",
        "ü/日本/é.ts",
        "50%/#1?x=y&z",
        "a%2Fb",
        "//x//",
        "..a/../b",
        "q\"'<>[]*:|\\",
        "-",
        "a&uploadType=media",
    ] {
        let data = payload(1000);
        let stored = write(&writer, &request(name, &data))
            .await
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(server.object(BUCKET, name).unwrap_or_else(|| panic!("{name}")).data, data);
        let seen = writer.stat(BUCKET, name).await.unwrap();
        assert_eq!(
            (seen.generation, seen.size, seen.crc32c),
            (stored.generation, stored.size, stored.crc32c),
            "{name}"
        );
        writer.delete(BUCKET, name, stored.generation).await.unwrap();
        assert!(server.objects().is_empty(), "{name}");
    }
}

#[tokio::test]
async fn an_empty_object_is_an_object_too() {
    let server = GcsServer::spawn_thread();
    let writer = writer(&server);
    let stored = write(&writer, &request("empty", &Bytes::new())).await.unwrap();
    assert_eq!(stored.size, 0);
    assert_eq!(writer.stat(BUCKET, "empty").await.unwrap().generation, stored.generation);
}

#[tokio::test]
async fn every_answer_has_the_class_that_is_acted_on() {
    for (status, class) in [
        (400, Class::Permanent),
        (401, Class::Auth),
        (403, Class::Permanent),
        (404, Class::Permanent),
        (408, Class::Transient),
        (409, Class::Transient),
        (411, Class::Permanent),
        (412, Class::Conflict),
        (413, Class::Permanent),
        (429, Class::Throttled),
        (500, Class::Transient),
        (502, Class::Transient),
        (503, Class::Transient),
        (504, Class::Transient),
    ] {
        let error = fails(Fault::status(status)).await;
        assert_eq!((error.class, error.http_status), (class, Some(status)), "{error}");
        assert!(
            error.message.contains(&format!("scripted {status}")),
            "the server's own reason: {error}"
        );
        assert!(error.message.contains("gs://cam-bucket/a.flv"), "{error}");
    }
}

#[tokio::test]
async fn a_wish_to_wait_and_the_servers_clock_are_passed_on() {
    let error = fails(Fault::retry_after(429, "17")).await;
    assert_eq!(
        (error.class, error.retry_after),
        (Class::Throttled, Some(Duration::from_secs(17)))
    );
    let error = fails(Fault::retry_after(503, "5")).await;
    assert_eq!(
        (error.class, error.retry_after),
        (Class::Throttled, Some(Duration::from_secs(5)))
    );

    let server = GcsServer::spawn_thread();
    server.set_skew(3600);
    server.push_fault(Fault::status(401));
    let error = write(&writer(&server), &request("a", &payload(10))).await.unwrap_err();
    let ahead = error.server_date.unwrap().duration_since(SystemTime::now()).unwrap();
    assert!(ahead > Duration::from_secs(3500), "{ahead:?}");
    assert!(error.message.contains("clock of this machine is off"), "{error}");
}

#[tokio::test]
async fn errors_in_other_shapes_are_understood() {
    let html = fails(Fault::Answer(Answer::raw(403, "text/html", "<html>blocked"))).await;
    assert_eq!(html.class, Class::Permanent);
    assert!(html.message.contains("HTML page"), "{html}");
    let text = fails(Fault::Answer(Answer::raw(404, "text/plain", "Not Found"))).await;
    assert!(text.message.contains("(Not Found)"), "{text}");
    let quota = fails(Fault::Answer(Answer::error(403, "Rate Limit Exceeded"))).await;
    assert_eq!(quota.class, Class::Throttled);
}

#[tokio::test]
async fn answers_that_are_not_cloud_storages_are_no_success() {
    for answer in [
        Answer::raw(200, "text/html", "<html>Please log in</html>"),
        Answer::raw(200, "application/json", "{}"),
        Answer::raw(200, "application/json", ""),
        Answer::raw(204, "text/plain", ""),
        Answer::raw(302, "text/html", "").header("Location", "http://127.0.0.1:1/login"),
        Answer::raw(307, "text/html", "").header("Location", "http://127.0.0.1:1/login"),
    ] {
        let error = fails(Fault::Answer(answer.clone())).await;
        assert_eq!(error.class, Class::Transient, "{answer:?}: {error}");
        assert_eq!(error.bad_generation, None);
    }
}

#[tokio::test]
async fn a_412_is_sorted_by_the_servers_own_reason() {
    let policy = fails(Fault::Answer(Answer::policy())).await;
    assert_eq!(
        (policy.class, policy.http_status, policy.reason.as_deref()),
        (Class::Permanent, Some(412), Some("orgPolicyConstraintFailed"))
    );
    for part in ["constraints/gcp.restrictNonCmekServices", "nothing was stored", "kms-key"] {
        assert!(policy.message.contains(part), "{part}: {policy}");
    }
    let taken = fails(Fault::status(412)).await;
    assert_eq!(
        (taken.class, taken.reason.as_deref()),
        (Class::Conflict, Some("conditionNotMet"))
    );
    for bare in [
        Answer::bare_412(),
        Answer::raw(412, "application/json", ""),
        Answer::raw(412, "text/html", "<html>no</html>"),
        Answer::raw(412, "text/plain", "Precondition Failed"),
    ] {
        let error = fails(Fault::Answer(bare)).await;
        assert_eq!((error.class, error.reason.as_deref()), (Class::Conflict, None), "{error}");
    }
    let unknown = fails(Fault::Answer(Answer::reasoned(412, "No.", "somethingNew"))).await;
    assert_eq!(unknown.class, Class::Permanent, "{unknown}");
    assert!(unknown.message.contains("somethingNew"), "{unknown}");
    // The condition's code with a policy's text: seen in the field.
    let text = "Request violates constraint 'constraints/storage.retentionPolicySeconds'";
    let both = fails(Fault::Answer(Answer::reasoned(412, text, "conditionNotMet"))).await;
    assert_eq!(both.class, Class::Permanent, "{both}");
    let xml = "<?xml version='1.0'?><Error><Code>OrgPolicyConstraintFailed</Code><Message>Refused.</Message></Error>";
    let xml = fails(Fault::Answer(Answer::raw(412, "application/xml", xml))).await;
    assert_eq!(xml.class, Class::Permanent, "{xml}");
}

#[tokio::test]
async fn an_answer_about_another_object_is_no_success_and_nothing_is_deleted_for_it() {
    let size = "300000";
    for (name, bucket) in [("other.flv", BUCKET), ("a.flv", "other-bucket")] {
        for size in [size, "1"] {
            let body = serde_json::json!({"generation": "5", "size": size, "name": name, "bucket": bucket}).to_string();
            let error = fails(Fault::Answer(Answer::raw(200, "application/json", &body))).await;
            assert_eq!((error.class, error.bad_generation), (Class::Transient, None), "{error}");
        }
    }
    // No size: what is there may be all of it.
    let whole = serde_json::json!({"generation": "5", "name": "a.flv", "bucket": BUCKET}).to_string();
    let error = fails(Fault::Answer(Answer::raw(200, "application/json", &whole))).await;
    assert_eq!((error.class, error.bad_generation), (Class::Transient, None), "{error}");
    // Neither a checksum nor a name: whoever sent it has not said that it has these bytes.
    let body = serde_json::json!({"generation": "5", "size": size}).to_string();
    let error = fails(Fault::Answer(Answer::raw(200, "application/json", &body))).await;
    assert_eq!((error.class, error.bad_generation), (Class::Transient, None), "{error}");
    assert!(!error.means_nothing_was_stored());

    let server = GcsServer::spawn_thread();
    let body = serde_json::json!({"generation": "5", "size": "7", "crc32c": "AAAAAA==", "name": "other"}).to_string();
    server.push_object_fault(Answer::raw(200, "application/json", &body));
    let error = writer(&server).stat(BUCKET, "a.flv").await.unwrap_err();
    assert_eq!(error.class, Class::Transient, "{error}");
}

/// Remembers that the whole body has left.
#[derive(Default)]
struct Whole(AtomicUsize);

impl Pacer for Whole {
    fn admit(&self, _bytes: usize) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
    fn piece(&self) -> usize {
        64 << 10
    }
    fn sent_whole(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn a_body_counts_as_sent_whole_only_when_its_last_byte_has_left() {
    for (fault, is_whole) in [
        (Fault::Pass, true),
        (Fault::ResetAfterBody { stored: true }, true),
        (Fault::StallAfterBody { stored: true }, true),
        (Fault::Answer(Answer::status(503)), true),
        (Fault::ResetBefore, false),
        (Fault::ResetIn(100_000), false),
        (Fault::StallIn(100_000), false),
        (Fault::EarlyAnswer(Answer::status(503)), false),
    ] {
        let server = GcsServer::spawn_thread();
        server.push_fault(fault.clone());
        let whole = Arc::new(Whole::default());
        // More than the buffers between here and there hold.
        let data = payload(32 << 20);
        let writer = writer(&server).with_request_timeout(SHORT);
        let _ = writer.write(&request("a.flv", &data), Arc::<Whole>::clone(&whole)).await;
        assert_eq!(whole.0.load(Ordering::Relaxed), usize::from(is_whole), "{fault:?}");
    }
}

#[tokio::test]
async fn what_a_server_says_before_its_answer_is_no_answer() {
    for said in [vec![100], vec![102, 103], vec![103, 103, 103]] {
        let server = GcsServer::spawn_thread();
        server.push_fault(Fault::Informational(said.clone()));
        let data = payload(300_000);
        let stored = write(&writer(&server), &request("a.flv", &data)).await;
        assert!(stored.is_ok(), "{said:?}: {stored:?}");
        assert_eq!(server.object(BUCKET, "a.flv").unwrap().data, data);
    }
}

#[tokio::test]
async fn a_compressed_answer_is_no_success_and_its_bytes_are_in_no_text() {
    for (answer, class) in [
        (Answer::raw(200, "application/json", "{}"), Class::Transient),
        (Answer::status(403), Class::Permanent),
        (Answer::status(503), Class::Transient),
        // Whether it is a conflict or a policy is in what cannot be read.
        (Answer::status(412), Class::Transient),
        (Answer::policy(), Class::Transient),
    ] {
        let error = fails(Fault::Compressed(answer.clone())).await;
        assert_eq!(error.class, class, "{answer:?}: {error}");
        assert!(error.message.contains("compressed") && error.message.is_ascii(), "{error}");
        assert!(!error.message.contains(char::is_control), "{error:?}");
    }
    let server = GcsServer::spawn_thread();
    server.push_fault(Fault::CompressedReply);
    let error = write(&writer(&server), &request("a", &payload(10))).await.unwrap_err();
    assert!(!error.means_nothing_was_stored(), "{error}");
    assert!(server.object(BUCKET, "a").is_some());
}

#[tokio::test]
async fn an_answer_in_the_middle_of_the_upload_is_read() {
    let server = GcsServer::spawn_thread();
    server.push_fault(Fault::EarlyAnswer(Answer::status(403)));
    let data = payload(8 << 20);
    let error = write(&writer(&server), &request("a", &data)).await.unwrap_err();
    assert_eq!((error.class, error.http_status), (Class::Permanent, Some(403)), "{error}");
}

#[tokio::test]
async fn broken_connections_are_transient_and_nothing_is_tried_again_behind_our_back() {
    for fault in [
        Fault::ResetBefore,
        Fault::ResetIn(100_000),
        Fault::ResetAfterBody { stored: false },
    ] {
        let error = fails(fault.clone()).await;
        assert_eq!(
            (error.class, error.http_status),
            (Class::Transient, None),
            "{fault:?}: {error}"
        );
    }
}

#[tokio::test]
async fn after_a_lost_reply_the_conflict_can_be_proved_to_be_our_own_object() {
    let server = GcsServer::spawn_thread();
    let writer = writer(&server);
    let request = request("a.flv", &payload(300_000));
    server.push_fault(Fault::ResetAfterBody { stored: true });
    assert_eq!(write(&writer, &request).await.unwrap_err().class, Class::Transient);
    let conflict = write(&writer, &request).await.unwrap_err();
    assert_eq!(
        (conflict.class, conflict.http_status),
        (Class::Conflict, Some(412)),
        "{conflict}"
    );
    let found = writer.stat(BUCKET, "a.flv").await.unwrap();
    assert_eq!((found.size, found.crc32c), (request.size, Some(request.crc32c)));
}

#[tokio::test]
async fn a_torn_answer_is_transient_though_the_object_is_there() {
    let server = GcsServer::spawn_thread();
    server.push_fault(Fault::TruncatedReply);
    let error = write(&writer(&server), &request("a", &payload(1000))).await.unwrap_err();
    assert_eq!(error.class, Class::Transient, "{error}");
    assert_eq!(server.objects().len(), 1);
}

#[tokio::test]
async fn a_damaged_object_is_named_by_its_generation_can_be_deleted_and_sent_again() {
    for fault in [Fault::WrongCrcInReply, Fault::ShortObject] {
        let server = GcsServer::spawn_thread();
        let writer = writer(&server);
        let request = request("a.flv", &payload(5000));
        server.push_fault(fault.clone());
        let error = write(&writer, &request).await.unwrap_err();
        let bad = server.object(BUCKET, "a.flv").unwrap().generation;
        assert_eq!(
            (error.class, error.bad_generation),
            (Class::Transient, Some(bad)),
            "{fault:?}: {error}"
        );
        writer.delete(BUCKET, "a.flv", bad).await.unwrap();
        write(&writer, &request).await.unwrap();
    }
}

#[tokio::test]
async fn bytes_that_changed_in_this_machine_are_told_from_bytes_that_changed_on_the_way() {
    let server = GcsServer::spawn_thread();
    let mut changed = request("a", &payload(5000));
    changed.crc32c ^= 1;
    let error = write(&writer(&server), &changed).await.unwrap_err();
    assert_eq!(error.class, Class::Local, "{error}");
    assert!(server.objects().is_empty(), "the server has checked it");

    let error = fails(Fault::Answer(Answer::error(
        400,
        "Provided CRC32C \"x\" doesn't match calculated CRC32C \"y\".",
    )))
    .await;
    assert_eq!((error.class, error.bad_generation), (Class::Transient, None), "{error}");
}

#[tokio::test]
async fn a_server_that_falls_silent_is_given_up_wherever_it_does() {
    let data = payload(24 << 20);
    for (fault, says) in [
        (Fault::StallBefore, "no progress for"),
        (Fault::StallIn(1 << 20), "no progress for"),
        (Fault::StallAfterBody { stored: false }, "no answer came within"),
        (Fault::StallAfterBody { stored: true }, "request-timeout"),
    ] {
        let server = GcsServer::spawn_thread();
        server.push_fault(fault.clone());
        let start = Instant::now();
        let error = write(&writer(&server).with_request_timeout(SHORT), &request("a", &data))
            .await
            .unwrap_err();
        assert_eq!(error.class, Class::Transient);
        assert!(error.message.contains(says), "{fault:?}: {error}");
        assert!(
            start.elapsed() >= SHORT && start.elapsed() < Duration::from_secs(10),
            "{:?}",
            start.elapsed()
        );
        assert_eq!(server.uploads().len(), 1);
    }
}

#[tokio::test]
async fn an_attempt_that_is_given_up_takes_its_connection_along() {
    let server = GcsServer::spawn_thread();
    server.push_fault(Fault::StallAfterBody { stored: false });
    let writer = writer(&server).with_request_timeout(SHORT);
    write(&writer, &request("a", &payload(1000))).await.unwrap_err();
    let start = Instant::now();
    while !server.uploads()[0].abandoned {
        assert!(start.elapsed() < Duration::from_secs(5), "the connection is still open");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    write(&writer, &request("a", &payload(1000))).await.unwrap();
}

#[tokio::test]
async fn a_slow_uplink_is_not_a_silent_one() {
    let server = GcsServer::spawn_thread();
    server.push_fault(Fault::SlowDrain {
        bytes_per_second: 16 << 20,
    });
    let start = Instant::now();
    // What lies in the kernel's buffers is drained in well below a second, and that counts as silence.
    let limit = Duration::from_secs(2);
    write(
        &writer(&server).with_request_timeout(limit),
        &request("a", &payload(72 << 20)),
    )
    .await
    .unwrap();
    assert!(start.elapsed() > limit * 2, "{:?}", start.elapsed());
}

/// Waits before each piece and counts.
struct Slow {
    wait: Duration,
    piece: usize,
    bytes: AtomicUsize,
    largest: AtomicUsize,
}

impl Pacer for Slow {
    fn admit(&self, bytes: usize) -> BoxFuture<'_, ()> {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.largest.fetch_max(bytes, Ordering::Relaxed);
        Box::pin(tokio::time::sleep(self.wait))
    }

    fn piece(&self) -> usize {
        self.piece
    }
}

#[tokio::test]
async fn waiting_for_the_pacer_is_never_taken_for_a_dead_connection() {
    let server = GcsServer::spawn_thread();
    let pacer = Arc::new(Slow {
        wait: SHORT * 3 / 2,
        piece: 8 << 10,
        bytes: AtomicUsize::new(0),
        largest: AtomicUsize::new(0),
    });
    let request = request("a", &payload(30_000));
    let writer = writer(&server).with_request_timeout(SHORT);
    writer.write(&request, pacer.clone()).await.unwrap();
    assert_eq!(pacer.bytes.load(Ordering::Relaxed), 30_000, "every byte is asked for");
    assert!(pacer.largest.load(Ordering::Relaxed) <= 8 << 10);
}

#[tokio::test]
async fn where_nobody_listens_the_text_says_so() {
    for (endpoint, says) in [
        ("http://127.0.0.1:1", "refused"),
        ("http://nowhere.invalid:80", "nowhere.invalid"),
    ] {
        let endpoint = Endpoint::resolve(Some(endpoint), None).unwrap();
        let writer = GcsWriter::new(&ClientPool::new(), endpoint, Credentials::Anonymous);
        let error = write(&writer, &request("a", &payload(10))).await.unwrap_err();
        assert_eq!((error.class, error.http_status), (Class::Transient, None), "{error}");
        assert!(error.message.to_lowercase().contains(says), "{error}");
        assert_eq!(writer.stat(BUCKET, "a").await.unwrap_err().class, Class::Transient);
    }
}

#[tokio::test]
async fn what_cloud_storage_would_refuse_is_not_sent() {
    let server = GcsServer::spawn_thread();
    let writer = writer(&server);
    let good = request("a", &payload(10));
    let mut wrong = vec![good.clone(), good.clone(), good.clone(), good.clone()];
    wrong[0].bucket = "Cams".into();
    wrong[1].name = "a\nb".into();
    wrong[2].metadata.insert("k".into(), "v".repeat(8192));
    wrong[3].size += 1;
    for request in wrong {
        let error = write(&writer, &request).await.unwrap_err();
        assert_eq!(error.class, Class::Local, "{error}");
    }
    assert_eq!(writer.stat("b/../c", "a").await.unwrap_err().class, Class::Local);
    assert_eq!(writer.delete(BUCKET, "..", 1).await.unwrap_err().class, Class::Local);
    assert!(server.requests().is_empty());
}

#[tokio::test]
async fn looking_and_deleting_have_the_same_classes_and_the_same_patience() {
    let server = GcsServer::spawn_thread();
    let writer = writer(&server).with_request_timeout(SHORT);
    let missing = writer.stat(BUCKET, "a").await.unwrap_err();
    assert_eq!((missing.class, missing.http_status), (Class::Permanent, Some(404)));
    writer.delete(BUCKET, "a", 5).await.expect("gone is gone");
    server.put(BUCKET, "a", b"theirs");
    writer.delete(BUCKET, "a", 5).await.expect("generation 5 is gone");
    assert_eq!(server.objects().len(), 1, "another generation is not ours to delete");

    server.push_object_fault(Answer::status(403));
    let denied = writer.stat(BUCKET, "a").await.unwrap_err();
    assert!(
        denied.class == Class::Permanent && denied.message.contains("storage.objects.get"),
        "{denied}"
    );
    server.push_object_fault(Answer::status(403));
    let denied = writer.delete(BUCKET, "a", 5).await.unwrap_err();
    assert!(
        denied.http_status == Some(403) && denied.message.contains("storage.objects.delete"),
        "{denied}"
    );
    server.push_object_fault(Answer::status(429).header("Retry-After", "3"));
    assert_eq!(
        writer.stat(BUCKET, "a").await.unwrap_err().retry_after,
        Some(Duration::from_secs(3))
    );
    server.push_object_fault(Answer::raw(200, "text/html", "<html>login"));
    assert_eq!(writer.stat(BUCKET, "a").await.unwrap_err().class, Class::Transient);
    server.push_object_fault(Answer::raw(0, "", ""));
    assert_eq!(writer.stat(BUCKET, "a").await.unwrap_err().class, Class::Transient);
}

#[tokio::test]
async fn sinks_with_equal_settings_share_connections() {
    let server = GcsServer::spawn_thread();
    let pool = ClientPool::new();
    let endpoint = Endpoint::resolve(Some(&server.endpoint()), None).unwrap();
    for i in 0..10 {
        let writer = GcsWriter::new(&pool, endpoint.clone(), Credentials::File(PathBuf::from("/nonexistent")));
        let keep = GcsWriter::new(&pool, endpoint.clone(), Credentials::Anonymous);
        write(&writer, &request(&format!("{i}"), &payload(1000))).await.unwrap();
        assert_eq!(pool.len(), 1);
        Box::leak(Box::new(keep));
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn an_ipv6_endpoint_works() {
    let server = GcsServer::spawn_thread_with(Options {
        ipv6: true,
        ..Options::default()
    });
    let writer = writer(&server);
    let stored = write(&writer, &request("a", &payload(10))).await.unwrap();
    assert_eq!(writer.stat(BUCKET, "a").await.unwrap().generation, stored.generation);
}

#[tokio::test]
async fn no_secret_of_the_server_reaches_the_text() {
    let reason = "Invalid bearer token: Bearer ya29.SECRET, see https://u:SECRET@h/?access_token=SECRET";
    let error = fails(Fault::Answer(Answer::error(401, reason))).await;
    assert!(error.message.contains("Invalid bearer"), "{error}");
    assert!(!format!("{error:?}").contains("SECRET"), "{error:?}");
}

#[tokio::test]
async fn an_unusable_credentials_file_is_for_the_user_and_names_the_file() {
    let endpoint = Endpoint::resolve(Some("https://localhost:1"), None).unwrap();
    let writer = GcsWriter::new(
        &ClientPool::new(),
        endpoint,
        Credentials::File("/nonexistent/key.json".into()),
    );
    let error = write(&writer, &request("a", &payload(10))).await.unwrap_err();
    assert_eq!((error.class, error.http_status), (Class::Permanent, None));
    assert!(
        error.message.contains("/nonexistent/key.json") && error.message.contains("credentials-file"),
        "{error}"
    );
}

mod resumable {
    use super::*;

    fn resumable(server: &GcsServer) -> GcsWriter {
        writer(server).with_resumable_from(Some(0))
    }

    fn methods(server: &GcsServer) -> Vec<String> {
        let ranges = server.uploads().into_iter();
        ranges
            .map(|request| format!("{} {}", request.method, request.header("content-range").unwrap_or("-")))
            .collect()
    }

    #[tokio::test]
    async fn a_session_that_breaks_goes_on_where_the_servers_bytes_end() {
        let server = GcsServer::spawn_thread();
        let data = payload(1 << 20);
        server.push_fault(Fault::Pass);
        server.push_fault(Fault::ResetIn(600_000));
        let stored = write(&resumable(&server), &request("a", &data)).await.unwrap();
        assert_eq!(server.object(BUCKET, "a").unwrap().data, data);
        assert_eq!(stored.generation, server.object(BUCKET, "a").unwrap().generation);
        assert_eq!(
            methods(&server),
            [
                "POST -",
                "PUT bytes 0-1048575/1048576",
                "PUT bytes */*",
                "PUT bytes 524288-1048575/1048576"
            ]
        );
        assert_eq!(server.uploads()[0].query["ifGenerationMatch"], "0");
    }

    #[tokio::test]
    async fn a_lost_reply_of_a_session_is_found_to_be_success() {
        let server = GcsServer::spawn_thread();
        server.push_fault(Fault::Pass);
        server.push_fault(Fault::ResetAfterBody { stored: true });
        let stored = write(&resumable(&server), &request("a", &payload(1 << 20))).await.unwrap();
        assert_eq!(stored.size, 1 << 20);
    }

    #[tokio::test]
    async fn a_session_that_breaks_again_goes_on_as_long_as_the_server_has_more_each_time() {
        let server = GcsServer::spawn_thread();
        let breaks = [Fault::ResetIn(300_000), Fault::ResetIn(300_000), Fault::ResetIn(300_000)];
        for fault in breaks.into_iter().flat_map(|reset| [Fault::Pass, reset]) {
            server.push_fault(fault);
        }
        let data = payload(1 << 20);
        write(&resumable(&server), &request("a", &data)).await.unwrap();
        assert_eq!(server.object(BUCKET, "a").unwrap().data, data);
    }

    #[tokio::test]
    async fn an_answer_about_a_session_says_nothing_of_the_bytes_that_were_sent_before_it() {
        for status in [401, 403, 429] {
            let server = GcsServer::spawn_thread();
            // The object is sent whole and its answer lost; what is asked then is refused.
            for fault in [Fault::Pass, Fault::ResetIn(1 << 20), Fault::status(status)] {
                server.push_fault(fault);
            }
            let error = write(&resumable(&server), &request("a", &payload(1 << 20)))
                .await
                .unwrap_err();
            assert_eq!(error.http_status, Some(status), "{error}");
            assert!(!error.means_nothing_was_stored(), "{error}");
            // One that is refused at once stores nothing.
            server.push_fault(Fault::Pass);
            server.push_fault(Fault::status(status));
            let error = write(&resumable(&server), &request("b", &payload(1 << 20)))
                .await
                .unwrap_err();
            assert!(error.means_nothing_was_stored(), "{error}");
        }
    }

    #[tokio::test]
    async fn a_server_that_keeps_nothing_is_given_up() {
        let server = GcsServer::spawn_thread();
        server.push_fault(Fault::Pass);
        for _ in 0..20 {
            server.push_fault(Fault::Answer(Answer::raw(308, "text/plain", "")));
        }
        let error = write(&resumable(&server), &request("a", &payload(1 << 20)))
            .await
            .unwrap_err();
        assert_eq!(error.class, Class::Transient, "{error}");
        assert!(error.message.contains("keeps asking"), "{error}");
        assert!(server.uploads().len() <= 6, "{:?}", methods(&server));
    }

    /// A 308 that says that the server has so many bytes.
    fn has(bytes: usize) -> Fault {
        let answer = Answer::raw(308, "text/plain", "");
        Fault::Answer(match bytes.checked_sub(1) {
            Some(last) => answer.header("Range", &format!("bytes=0-{last}")),
            None => answer,
        })
    }

    #[tokio::test]
    async fn a_server_whose_bytes_go_back_and_forth_or_grow_by_one_is_given_up() {
        let back_and_forth = [0, 262_144].repeat(30);
        // Asked after each time that all of it was sent.
        let by_one = (1..30).flat_map(|bytes| [bytes, bytes]).collect();
        for (has_bytes, at_most) in [(back_and_forth, 8), (by_one, 20)] {
            let server = GcsServer::spawn_thread();
            server.push_fault(Fault::Pass);
            has_bytes.into_iter().for_each(|bytes| server.push_fault(has(bytes)));
            let error = write(&resumable(&server), &request("a", &payload(1 << 20)))
                .await
                .unwrap_err();
            assert_eq!(error.class, Class::Transient, "{error}");
            assert!(error.message.contains("keeps asking"), "{error}");
            assert!(server.uploads().len() <= at_most, "{:?}", methods(&server));
        }
    }

    #[tokio::test]
    async fn a_lost_session_is_started_over_the_next_time_and_a_missing_bucket_is_not() {
        for status in [400, 404, 409, 410, 416] {
            let server = GcsServer::spawn_thread();
            server.push_fault(Fault::Pass);
            server.push_fault(Fault::status(status));
            let (writer, data) = (resumable(&server), payload(1 << 20));
            let error = write(&writer, &request("a", &data)).await.unwrap_err();
            assert_eq!((error.class, error.http_status), (Class::Transient, Some(status)), "{error}");
            assert!(!error.means_nothing_was_stored(), "{error}");
            write(&writer, &request("a", &data)).await.unwrap();
            assert_eq!(server.object(BUCKET, "a").unwrap().data, data);
        }
        let server = GcsServer::spawn_thread();
        server.push_fault(Fault::status(404));
        let error = write(&resumable(&server), &request("a", &payload(1 << 20)))
            .await
            .unwrap_err();
        assert_eq!(error.class, Class::Permanent, "{error}");
        assert_eq!(server.uploads().len(), 1);
    }

    #[tokio::test]
    async fn a_wish_to_wait_ends_the_attempt_at_once() {
        let server = GcsServer::spawn_thread();
        server.push_fault(Fault::Pass);
        server.push_fault(Fault::retry_after(503, "9"));
        let error = write(&resumable(&server), &request("a", &payload(1 << 20)))
            .await
            .unwrap_err();
        assert_eq!(
            (error.class, error.retry_after),
            (Class::Throttled, Some(Duration::from_secs(9))),
            "{error}"
        );
        assert_eq!(server.uploads().len(), 2);
    }

    #[tokio::test]
    async fn damage_of_an_object_that_a_session_had_finished_is_seen() {
        let server = GcsServer::spawn_thread();
        server.push_fault(Fault::Pass);
        server.push_fault(Fault::ResetAfterBody { stored: true });
        server.push_fault(Fault::WrongCrcInReply);
        let error = write(&resumable(&server), &request("a", &payload(1 << 20)))
            .await
            .unwrap_err();
        assert_eq!(
            error.bad_generation,
            Some(server.object(BUCKET, "a").unwrap().generation),
            "{error}"
        );
    }

    #[tokio::test]
    async fn the_sessions_address_is_no_part_of_any_text() {
        let server = GcsServer::spawn_thread();
        server.push_fault(Fault::Pass);
        server.push_fault(Fault::ResetIn(300_000));
        server.push_fault(Fault::ResetBefore);
        let error = write(&resumable(&server), &request("a", &payload(1 << 20)))
            .await
            .unwrap_err();
        assert!(!error.message.contains("session-0"), "{error}");
    }

    #[tokio::test]
    async fn an_emulator_with_a_port_never_gets_a_session_however_large_the_object() {
        let server = GcsServer::spawn_thread_with(Options {
            location_from_host: true,
            ..Options::default()
        });
        let data = payload(17 << 20);
        write(&writer(&server), &request("large", &data)).await.unwrap();
        assert_eq!(server.uploads().len(), 1);
        assert_eq!(server.uploads()[0].query["uploadType"], "multipart");
        assert_eq!(server.object(BUCKET, "large").unwrap().data, data);
        // Where it is used all the same, the session's address is the server's own, port included.
        write(&resumable(&server), &request("small", &payload(1000))).await.unwrap();
        assert_eq!(server.object(BUCKET, "small").unwrap().data, payload(1000));
    }

    #[tokio::test]
    async fn a_session_at_another_server_gets_neither_the_object_nor_a_request() {
        for place in ["http://localhost:", "http://127.0.0.2:", "https://127.0.0.1:"] {
            let (server, other) = (GcsServer::spawn_thread(), GcsServer::spawn_thread());
            let location = format!("{place}{}/upload/storage/v1/b/{BUCKET}/o?upload_id=x", other.address().port());
            let mut answer = Answer::raw(200, "text/plain", "");
            answer.headers.push(("Location".into(), location));
            server.push_fault(Fault::Answer(answer));
            let error = write(&resumable(&server), &request("a", &payload(1000))).await.unwrap_err();
            assert_eq!(error.class, Class::Transient, "{error}");
            assert!(error.message.contains("another server"), "{error}");
            assert_eq!((server.uploads().len(), other.connections()), (1, 0), "{place}");
        }
    }

    #[tokio::test]
    async fn an_answer_without_a_session_is_no_success() {
        let server = GcsServer::spawn_thread();
        server.push_fault(Fault::Answer(Answer::raw(200, "text/html", "<html>log in</html>")));
        let error = write(&resumable(&server), &request("a", &payload(1000))).await.unwrap_err();
        assert_eq!((error.class, server.uploads().len()), (Class::Transient, 1), "{error}");
        assert!(error.message.contains("names no session"), "{error}");
    }

    #[tokio::test]
    async fn an_answer_in_a_session_that_never_ends_is_not_read_to_its_end() {
        let long = " ".repeat(32 << 20);
        for status in [200, 308, 400, 412, 503] {
            let server = GcsServer::spawn_thread();
            server.push_fault(Fault::Pass);
            for _ in 0..4 {
                server.push_fault(Fault::Answer(Answer::raw(status, "text/plain", &long)));
            }
            let error = write(&resumable(&server), &request("a", &payload(1000))).await.unwrap_err();
            assert!(error.message.len() < 1000, "{status}: {} bytes", error.message.len());
            assert!(
                error.message.contains("64 KiB") || error.message.contains("keeps asking"),
                "{status}: {error}"
            );
            assert_ne!(error.class, Class::Conflict, "the reason of a 412 was not read: {error}");
        }
    }
}

/// TLS, proxies and credentials depend on the environment, so each case runs in a process of its own.
mod environment {
    use super::*;
    use crate::proxy::Proxy;
    use crate::tls::{Authority, credentials_file, token};

    struct Place {
        server: GcsServer,
        dir: PathBuf,
    }

    /// A server with a certificate of a CA of its own, and the files for its clients.
    fn place(name: &str) -> Place {
        let dir = std::env::temp_dir().join(format!("gcs-writer-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let authority = Authority::new();
        std::fs::write(dir.join("ca.pem"), authority.pem()).unwrap();
        std::fs::write(dir.join("none.pem"), "").unwrap();
        let server = authority.server();
        credentials_file(&dir, &server);
        Place { server, dir }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }

    /// Runs one of the cases below in another process.
    fn child(place: &Place, case: &str, environment: &[(&str, &str)]) -> String {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", &format!("environment::{case}"), "--ignored", "--nocapture"]);
        for name in [
            "HTTPS_PROXY",
            "https_proxy",
            "NO_PROXY",
            "no_proxy",
            "ALL_PROXY",
            "all_proxy",
            "HTTP_PROXY",
            "http_proxy",
            "SSL_CERT_DIR",
        ] {
            command.env_remove(name);
        }
        command
            .env("GCS_TEST_ENDPOINT", place.server.endpoint())
            .env("GCS_TEST_DIR", &place.dir);
        command
            .env("SSL_CERT_FILE", place.dir.join("ca.pem"))
            .envs(environment.iter().copied());
        let output = command.output().unwrap();
        let text = format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        text
    }

    /// The writer of a case.
    fn secure_writer() -> GcsWriter {
        let endpoint = Endpoint::resolve(Some(&std::env::var("GCS_TEST_ENDPOINT").unwrap()), None).unwrap();
        let key = PathBuf::from(std::env::var("GCS_TEST_DIR").unwrap()).join("key.json");
        GcsWriter::new(&ClientPool::new(), endpoint, Credentials::File(key)).with_request_timeout(Duration::from_secs(20))
    }

    #[tokio::test]
    #[ignore = "a case of other tests"]
    async fn case_stores_looks_and_deletes() {
        let writer = secure_writer();
        let stored = write(&writer, &request("a", &payload(300_000))).await.unwrap();
        assert_eq!(writer.stat(BUCKET, "a").await.unwrap().generation, stored.generation);
        writer.delete(BUCKET, "a", stored.generation).await.unwrap();
    }

    #[test]
    fn uploads_reads_deletes_and_tokens_go_through_the_proxy_and_trust_the_given_ca() {
        let place = place("proxy");
        place.server.route("/token", token("token-1"));
        let proxy = Proxy::start();
        child(&place, "case_stores_looks_and_deletes", &[("HTTPS_PROXY", &proxy.url())]);
        let expected = format!("localhost:{}", place.server.address().port());
        assert!(
            proxy.targets().iter().all(|target| *target == expected),
            "{:?}",
            proxy.targets()
        );
        assert_eq!(
            proxy.targets().len(),
            place.server.connections(),
            "nothing went around it: {:?}",
            proxy.targets()
        );
        let requests = place.server.requests();
        assert_eq!(
            requests.iter().map(|request| request.method.as_str()).collect::<Vec<_>>(),
            ["POST", "POST", "GET", "DELETE"]
        );
        assert_eq!(requests[0].path, "/token");
        for request in &requests[1..] {
            assert_eq!(request.header("authorization"), Some("Bearer token-1"), "{}", request.path);
        }
    }

    #[test]
    fn no_proxy_is_heeded() {
        let place = place("no-proxy");
        place.server.route("/token", token("token-1"));
        let proxy = Proxy::start();
        child(
            &place,
            "case_stores_looks_and_deletes",
            &[("HTTPS_PROXY", &proxy.url()), ("NO_PROXY", "localhost")],
        );
        assert_eq!(proxy.targets(), Vec::<String>::new());
        assert_eq!(place.server.requests().len(), 4);
    }

    #[tokio::test]
    #[ignore = "a case of other tests"]
    async fn case_certificate_is_not_trusted() {
        let error = write(&secure_writer(), &request("a", &payload(10))).await.unwrap_err();
        assert_eq!(error.class, Class::Transient, "{error}");
        println!("{error}");
        assert!(
            error.message.contains("certificate") && error.message.contains("SSL_CERT_FILE"),
            "{error}"
        );
    }

    #[test]
    fn an_unknown_certificate_is_refused_and_explained() {
        let (here, elsewhere) = (place("untrusted"), place("elsewhere"));
        let other = elsewhere.dir.join("ca.pem");
        child(
            &here,
            "case_certificate_is_not_trusted",
            &[("SSL_CERT_FILE", other.to_str().unwrap())],
        );
        assert!(here.server.requests().is_empty());
    }

    #[tokio::test]
    #[ignore = "a case of other tests"]
    async fn case_no_certificates_at_all() {
        let error = write(&secure_writer(), &request("a", &payload(10))).await.unwrap_err();
        assert_eq!(error.class, Class::Permanent, "{error}");
        assert!(error.message.contains("ca-certificates"), "{error}");
    }

    #[test]
    fn a_machine_without_ca_certificates_gets_an_error_and_no_panic() {
        let place = place("no-ca");
        let none = place.dir.join("none.pem");
        child(
            &place,
            "case_no_certificates_at_all",
            &[("SSL_CERT_FILE", none.to_str().unwrap())],
        );
    }

    #[tokio::test]
    #[ignore = "a case of other tests"]
    async fn case_token_is_refused_first() {
        let writer = secure_writer();
        let request = request("a", &payload(1000));
        let refused = write(&writer, &request).await.unwrap_err();
        assert_eq!((refused.class, refused.http_status), (Class::Auth, None), "{refused}");
        assert!(
            refused.message.contains("token") && !format!("{refused:?}").contains("subject-token"),
            "{refused}"
        );
        // Somebody puts a broken file there, then the right one.
        let key = PathBuf::from(std::env::var("GCS_TEST_DIR").unwrap()).join("key.json");
        let good = std::fs::read_to_string(&key).unwrap();
        std::fs::write(&key, "{").unwrap();
        let broken = write(&writer, &request).await.unwrap_err();
        assert!(
            broken.class == Class::Permanent && broken.message.contains("not JSON"),
            "{broken}"
        );
        std::fs::write(&key, good).unwrap();
        write(&writer, &request).await.unwrap();
    }

    #[test]
    fn after_a_refused_token_the_credentials_file_is_read_again() {
        let place = place("rebuild");
        let refusal = r#"{"error":"invalid_grant","error_description":"The assertion=subject-token was refused"}"#;
        place.server.route("/token", Answer::raw(400, "application/json", refusal));
        place.server.route("/token", token("token-2"));
        child(&place, "case_token_is_refused_first", &[]);
        let uploads = place.server.uploads();
        assert_eq!(uploads.len(), 1, "without a token nothing is sent");
        assert_eq!(uploads[0].header("authorization"), Some("Bearer token-2"));
    }

    #[tokio::test]
    #[ignore = "a case of other tests"]
    async fn case_upload_is_answered_401_first() {
        let writer = secure_writer();
        let request = request("a", &payload(1000));
        assert_eq!(write(&writer, &request).await.unwrap_err().class, Class::Auth);
        write(&writer, &request).await.unwrap();
    }

    #[test]
    fn after_a_401_the_next_attempt_has_a_fresh_token() {
        let place = place("fresh");
        place.server.route("/token", token("token-1"));
        place.server.route("/token", token("token-2"));
        place.server.push_fault(Fault::status(401));
        child(&place, "case_upload_is_answered_401_first", &[]);
        let tokens: Vec<_> = place
            .server
            .uploads()
            .iter()
            .map(|request| request.header("authorization").unwrap().to_owned())
            .collect();
        assert_eq!(tokens, ["Bearer token-1", "Bearer token-2"]);
    }

    #[tokio::test]
    #[ignore = "a case of other tests"]
    async fn case_token_server_is_down() {
        let error = write(&secure_writer(), &request("a", &payload(1000))).await.unwrap_err();
        assert_eq!(error.class, Class::Transient, "{error}");
        assert!(error.message.contains("no access token"), "{error}");
    }

    #[test]
    fn a_token_server_that_is_down_is_an_outage_and_no_refusal() {
        let place = place("token-down");
        place.server.route("/token", Answer::raw(503, "text/plain", "down"));
        child(&place, "case_token_server_is_down", &[]);
        assert!(place.server.uploads().is_empty());
    }

    #[tokio::test]
    #[ignore = "a case of other tests"]
    async fn case_the_emulator_of_the_environment_is_anonymous() {
        let endpoint = Endpoint::from_environment(None).unwrap();
        assert!(!endpoint.takes_credentials());
        let writer = GcsWriter::new(&ClientPool::global(), endpoint, Credentials::ApplicationDefault);
        write(&writer, &request("a", &payload(1000))).await.unwrap();
    }

    #[test]
    fn storage_emulator_host_is_used_and_gets_no_credentials() {
        let emulator = GcsServer::spawn_thread();
        let place = place("emulator");
        let key = place.dir.join("key.json");
        let host = emulator.address().to_string();
        let environment = [
            ("STORAGE_EMULATOR_HOST", host.as_str()),
            ("GOOGLE_APPLICATION_CREDENTIALS", key.to_str().unwrap()),
        ];
        child(&place, "case_the_emulator_of_the_environment_is_anonymous", &environment);
        assert_eq!(emulator.uploads().len(), 1);
        assert_eq!(emulator.uploads()[0].header("authorization"), None);
        assert!(place.server.requests().is_empty(), "no token was asked for");
    }

    #[tokio::test]
    #[ignore = "a case of other tests"]
    async fn case_application_default_credentials_are_found() {
        let endpoint = Endpoint::resolve(Some(&std::env::var("GCS_TEST_ENDPOINT").unwrap()), None).unwrap();
        let writer = GcsWriter::new(&ClientPool::new(), endpoint, Credentials::ApplicationDefault);
        write(&writer, &request("a", &payload(1000))).await.unwrap();
    }

    #[test]
    fn the_metadata_server_is_not_asked_through_a_proxy() {
        let place = place("metadata");
        let (metadata, proxy) = (GcsServer::spawn_thread(), Proxy::start());
        metadata.route(
            "/computeMetadata/v1/instance/service-accounts/default/token",
            token("token-1"),
        );
        child(
            &place,
            "case_application_default_credentials_are_found",
            &[
                ("HOME", place.dir.to_str().unwrap()),
                ("GOOGLE_APPLICATION_CREDENTIALS", ""),
                ("GCE_METADATA_HOST", &metadata.address().to_string()),
                ("http_proxy", &proxy.url()),
            ],
        );
        assert_eq!(metadata.requests().len(), 1);
        assert_eq!(proxy.targets(), Vec::<String>::new());
        assert_eq!(place.server.uploads()[0].header("authorization"), Some("Bearer token-1"));
    }

    #[test]
    fn application_default_credentials_come_from_the_variable_or_from_gclouds_file() {
        let place = place("adc");
        place.server.route("/token", token("token-1"));
        let key = place.dir.join("key.json");
        let case = "case_application_default_credentials_are_found";
        child(&place, case, &[("GOOGLE_APPLICATION_CREDENTIALS", key.to_str().unwrap())]);
        let home = place.dir.join("home");
        std::fs::create_dir_all(home.join(".config/gcloud")).unwrap();
        std::fs::copy(&key, home.join(".config/gcloud/application_default_credentials.json")).unwrap();
        let generation = place.server.object(BUCKET, "a").unwrap().generation;
        place.server.remove(BUCKET, "a");
        child(
            &place,
            case,
            &[("HOME", home.to_str().unwrap()), ("GOOGLE_APPLICATION_CREDENTIALS", "")],
        );
        assert!(place.server.object(BUCKET, "a").unwrap().generation > generation);
    }
}
