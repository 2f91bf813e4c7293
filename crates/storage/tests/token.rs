//! What becomes of attempts whose token server does not answer. The wait is virtual time, once the request has arrived.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant};

use gcstreamer_storage::{
    Class, ClientPool, Credentials, Endpoint, GcsReader, GcsWriter, ListQuery, ObjectWriter, UrlSigner, WriteError,
};
use serde_json::{Value, json};

#[path = "../../../tests/common/gcs_server.rs"]
mod gcs_server;

use gcs_server::{Answer, GcsServer};

const BUCKET: &str = "cam-bucket";
const TOKEN: &str = "/token";

/// A token server and a credentials file that names it.
struct Place {
    tokens: GcsServer,
    file: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

impl Place {
    /// `file`: the credentials, of those of a user.
    fn new(name: &str, file: impl FnOnce(Value) -> Value) -> Self {
        let tokens = GcsServer::spawn_thread();
        let user = json!({
            "type": "authorized_user", "client_id": "i", "client_secret": "s", "refresh_token": "r",
            "token_uri": format!("{}{TOKEN}", tokens.endpoint()),
        });
        let path = std::env::temp_dir().join(format!("gcs-token-{}-{name}.json", std::process::id()));
        std::fs::write(&path, file(user).to_string()).unwrap();
        Self { tokens, file: path }
    }

    fn user(name: &str) -> Self {
        Self::new(name, |user| user)
    }

    fn never_answers(&self) {
        self.tokens.route(TOKEN, Answer::raw(0, "", ""));
    }

    fn answers(&self, life: u64) {
        let token = json!({"access_token": "t", "token_type": "Bearer", "expires_in": life});
        self.tokens
            .route(TOKEN, Answer::raw(200, "application/json", &token.to_string()));
    }

    fn credentials(&self) -> Credentials {
        Credentials::File(self.file.clone())
    }

    fn writer(&self) -> GcsWriter {
        GcsWriter::new(&ClientPool::new(), nobody(), self.credentials())
    }

    fn asked(&self) -> usize {
        self.tokens.requests().len()
    }

    async fn is_asked(&self, times: usize) {
        while self.asked() < times {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Runs attempts whose token request, the one of that number, is never answered.
    async fn unanswered<T>(&self, number: usize, attempts: impl Future<Output = T>) -> T {
        let mut attempts = pin!(attempts);
        tokio::select! {
            biased;
            _ = &mut attempts => panic!("ended before the token was asked for"),
            () = self.is_asked(number) => {}
        }
        tokio::time::pause();
        let result = attempts.await;
        tokio::time::resume();
        result
    }
}

/// An endpoint that takes credentials and where nobody listens: with a token that is what fails.
fn nobody() -> Endpoint {
    Endpoint::resolve(Some("https://127.0.0.1:1"), None).unwrap()
}

fn assert_has_token(error: &WriteError) {
    assert!(
        error.message.contains("refused") && !error.message.contains("token"),
        "{error}"
    );
}

fn assert_no_token(error: &WriteError) {
    assert_eq!(error.class, Class::Transient, "{error}");
    assert!(
        error.message.contains("the token server does not answer within 30 s"),
        "{error}"
    );
}

#[tokio::test]
async fn one_request_that_is_never_answered_costs_one_attempt_and_its_connection_is_closed() {
    let place = Place::user("writer");
    place.never_answers();
    place.answers(3600);
    let writer = place.writer();
    assert_no_token(&place.unanswered(1, writer.stat(BUCKET, "a")).await.unwrap_err());
    assert_has_token(&writer.stat(BUCKET, "a").await.unwrap_err());
    assert_eq!(place.asked(), 2);
    let began = Instant::now();
    while !place.tokens.requests()[0].abandoned {
        assert!(began.elapsed() < Duration::from_secs(10), "the connection is still open");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_has_token(&writer.stat(BUCKET, "b").await.unwrap_err());
    assert_eq!(place.asked(), 2, "the token is kept");
}

#[tokio::test]
async fn attempts_that_are_shorter_than_the_wait_are_not_stuck_for_ever() {
    let place = Place::user("short");
    place.never_answers();
    place.answers(3600);
    let writer = place.writer().with_request_timeout(Duration::from_secs(7));
    let five = async {
        for _ in 0..5 {
            let error = writer.stat(BUCKET, "a").await.unwrap_err();
            assert!(error.message.contains("no connection or token within 7 s"), "{error}");
        }
    };
    place.unanswered(1, five).await;
    assert_eq!(place.asked(), 1, "a slow answer would have been used");
    assert_has_token(&writer.stat(BUCKET, "a").await.unwrap_err());
}

#[tokio::test]
async fn a_token_that_expires_while_no_other_comes_costs_one_attempt() {
    let place = Place::user("expired");
    place.answers(0);
    place.answers(3600);
    let writer = place.writer();
    assert_has_token(&writer.stat(BUCKET, "a").await.unwrap_err());
    assert_no_token(&place.unanswered(1, writer.stat(BUCKET, "a")).await.unwrap_err());
    assert_has_token(&writer.stat(BUCKET, "a").await.unwrap_err());
    assert_eq!(place.asked(), 2);
}

#[tokio::test]
async fn a_reader_asks_again_like_a_writer() {
    let place = Place::user("reader");
    place.never_answers();
    place.answers(3600);
    let reader = GcsReader::new(&ClientPool::new(), nobody(), place.credentials());
    let query = ListQuery::default();
    assert_no_token(&place.unanswered(1, reader.list(BUCKET, &query)).await.unwrap_err());
    assert_has_token(&reader.list(BUCKET, &query).await.unwrap_err());
}

#[tokio::test]
async fn a_signer_asks_again_too() {
    let place = Place::new("signer", |user| {
        json!({
            "type": "impersonated_service_account",
            "service_account_impersonation_url":
                "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/a@p.iam.gserviceaccount.com:generateAccessToken",
            "source_credentials": user,
        })
    });
    place.never_answers();
    let signer = UrlSigner::load(&Endpoint::google(), place.credentials()).await.unwrap();
    let url = || signer.url(BUCKET, "a", 1, Duration::from_secs(60));
    let error = place.unanswered(1, url()).await.unwrap_err().to_string();
    assert!(error.contains("neither a token nor a signature came within 30 s"), "{error}");
    place.unanswered(2, url()).await.unwrap_err();
}
