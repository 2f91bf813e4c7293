//! When the keys are read. The clock is an argument.

use super::*;

use super::iap_signer::{AUDIENCE, Signer, claims, jwks};

const NOW: u64 = 1_800_000_000 * SECOND;

struct Scene {
    folder: tempfile::TempDir,
    gate: Gate,
}

impl Scene {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let keys = Source::File(folder.path().join("keys.json"));
        let audience = AUDIENCE.into();
        Self {
            gate: Gate::new(IapSettings { audience, keys }),
            folder,
        }
    }

    fn publish(&self, signers: &[&Signer]) {
        std::fs::write(self.folder.path().join("keys.json"), jwks(signers)).unwrap();
    }

    async fn ask(&self, signer: &Signer, now: u64) -> Result<String, GateError> {
        self.gate.user(Some(&signer.sign(&claims(now / SECOND))), now).await
    }
}

#[tokio::test]
async fn a_new_key_is_read_when_it_comes_and_at_most_once_a_minute() {
    let (scene, old, new) = (Scene::new(), Signer::new("old"), Signer::new("new"));
    scene.publish(&[&old]);
    assert_eq!(scene.ask(&old, NOW).await.unwrap(), "ann@example.com");
    scene.publish(&[&new]);
    let unknown = Err(GateError::Refused(Refusal::UnknownKey));
    assert_eq!(scene.ask(&new, NOW + 59 * SECOND).await, unknown, "within the minute");
    assert!(scene.ask(&old, NOW + 59 * SECOND).await.is_ok(), "kept in memory");
    assert!(scene.ask(&new, NOW + 60 * SECOND).await.is_ok());
    assert_eq!(
        scene.ask(&old, NOW + 61 * SECOND).await,
        unknown,
        "taken back by whoever publishes"
    );
}

#[tokio::test]
async fn keys_that_cannot_be_read_refuse_nobody_whose_key_is_known() {
    let (scene, signer) = (Scene::new(), Signer::new("k1"));
    let unread = |result: Result<String, GateError>| matches!(result, Err(GateError::NoKeys(_)));
    assert!(unread(scene.ask(&signer, NOW).await));
    scene.publish(&[&signer]);
    assert!(unread(scene.ask(&signer, NOW + 4 * SECOND).await), "not at once again");
    assert!(scene.ask(&signer, NOW + 5 * SECOND).await.is_ok());
    std::fs::write(scene.folder.path().join("keys.json"), "<html>").unwrap();
    let day = 24 * 3600 * SECOND;
    assert!(
        scene.ask(&signer, NOW + 2 * day).await.is_ok(),
        "old, and still the best there is"
    );
    assert!(unread(scene.ask(&Signer::new("k2"), NOW + 2 * day).await));
}

#[tokio::test]
async fn keys_are_read_again_each_day() {
    let (scene, signer) = (Scene::new(), Signer::new("k1"));
    scene.publish(&[&signer]);
    assert!(scene.ask(&signer, NOW).await.is_ok());
    scene.publish(&[&Signer::new("k2")]);
    assert!(scene.ask(&signer, NOW + STALE - 1).await.is_ok());
    assert_eq!(
        scene.ask(&signer, NOW + STALE).await,
        Err(GateError::Refused(Refusal::UnknownKey))
    );
}

#[tokio::test]
async fn a_clock_that_is_set_back_does_not_keep_the_keys_from_being_read() {
    let (scene, signer) = (Scene::new(), Signer::new("k1"));
    assert!(scene.ask(&signer, NOW).await.is_err());
    scene.publish(&[&signer]);
    assert!(scene.ask(&signer, NOW - 3600 * SECOND).await.is_ok());
}
