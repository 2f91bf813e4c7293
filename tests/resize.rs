//! `deploy/kubernetes/resize` changes the number of recorders in an order in which no camera is without one, and calls a spool empty only
//! where it has seen that it is.
//!
//! The cluster is a script that notes what it was asked; what is computed without a cluster is asked of the real `kubectl`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[path = "common/checkout.rs"]
mod checkout;

use std::path::PathBuf;
use std::process::Command;

use checkout::{read, root, text};

/// kubectl of a cluster in which everything happens at once; it notes what it was asked. In a spool there is one chunk less at each look.
const KUBECTL: &str = r#"#!/bin/sh
echo "$*" >>"$LOG"
case "$*" in
  *spec.replicas*) cat "$LOG.replicas" ;;
  *readyReplicas*) sed -n 's/^  replicas: \([0-9]*\).*/\1/p' "$OVERLAY/replicas.yaml" ;;
  *'type=="Ready"'*) cat "$LOG.ready" ;;
  *"grep -q"*) exec "$6" "$7" "$8" "$OVERLAY/recorder.toml" ;;
  *spec.template.spec*) cat "$LOG.template" ;;
  *"get pvc -l !"*) grep -vxFf "$LOG.drained" "$LOG.claims" || true ;;
  *"get pvc -l"*) cat "$LOG.drained" ;;
  *"label pvc"*drained-) grep -vxF "persistentvolumeclaim/$5" "$LOG.drained" >"$LOG.rest"; mv "$LOG.rest" "$LOG.drained" ;;
  *"label pvc"*) echo "persistentvolumeclaim/$5" >>"$LOG.drained" ;;
  *" patch "*) exec "$REAL_KUBECTL" "$@" ;;
  *"create configmap"*) cat ;;
  *"apply --server-side --force-conflicts -f -"*) cat >>"$LOG.applied" ;;
  *"kill -HUP"*) if [ -e "$LOG.restarting" ]; then rm "$LOG.restarting"; exit 1; fi ;;
  *"quarantine/*' -type f"*) cat "$LOG.quarantined" ;;
  *find*)
    left=$(cat "$LOG.chunks" 2>/dev/null) || exit 1
    echo "$left"
    if [ "$left" -gt 0 ]; then echo $((left - 1)) >"$LOG.chunks"; fi ;;
  *dev/tcp*)
    if [ -e "$LOG.starting" ]; then rm "$LOG.starting"; echo '[]'; exit; fi
    state=connecting
    if [ -e "$LOG.connected" ]; then state=recording; fi
    touch "$LOG.connected"
    sed -n 's/^ *id = \("[^"]*"\)/{"id":\1,"state":"'$state'"}/p' "$OVERLAY/recorder.toml" ;;
esac
"#;

/// `sed` of macOS and the BSDs takes the word after `-i` for the suffix of a copy, and the file for the script.
const SED: &str = r#"#!/bin/sh
case " $* " in *" -i "*) echo 'sed: 1: "recorder.toml": invalid command code' >&2; exit 1 ;; esac
PATH=/usr/bin:/bin exec sed "$@"
"#;

/// The pod of the manifests, with a secret that an overlay has added.
const TEMPLATE: &str = r#"{"containers": [{"name": "recorder", "image": "recorder:1", "readinessProbe": {"httpGet": {"path": "/readyz", "port": 9640}},
    "volumeMounts": [{"name": "spool", "mountPath": "/var/lib/gcstreamer"}, {"name": "configuration", "mountPath": "/etc/gcstreamer"},
                     {"name": "bucket-key", "mountPath": "/run/secrets"}]}],
  "volumes": [{"name": "configuration", "configMap": {"name": "gcstreamer-recorder"}}, {"name": "bucket-key", "secret": {"secretName": "key"}}]}"#;

/// A cluster for `deploy/kubernetes/resize`.
struct Cluster {
    folder: tempfile::TempDir,
    kubectl: PathBuf,
}

/// What `resize` did: its status and whether it succeeded, what it said, what it asked of the cluster, and the pods that it made.
struct Resized {
    status: Option<i32>,
    is_done: bool,
    said: String,
    log: Vec<String>,
    applied: String,
}

impl Cluster {
    /// With this number of pods, each with a volume, and this number of chunks in a spool. `None`: there is no kubectl here.
    fn new(replicas: u32, volumes: u32, chunks: u32) -> Option<Self> {
        use std::os::unix::fs::PermissionsExt;
        let Some(kubectl) = kubectl() else {
            eprintln!("left out: kubectl is not here; scripts/setup unpacks it into .venv");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let cluster = Self { folder, kubectl };
        for (name, script) in [("kubectl", KUBECTL), ("sed", SED)] {
            cluster.write(name, script);
            std::fs::set_permissions(cluster.at(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        for name in ["kustomization.yaml", "replicas.yaml", "recorder.toml"] {
            let text = read(&format!("deploy/kubernetes/overlays/fleet/{name}"));
            std::fs::write(cluster.at(name), text).unwrap();
        }
        let claim = |pod| format!("persistentvolumeclaim/spool-gcstreamer-recorder-{pod}\n");
        cluster.write("log.replicas", &replicas.to_string());
        cluster.write("log.template", TEMPLATE);
        cluster.write("log.drained", "");
        cluster.write("log.claims", &(0..volumes).map(claim).collect::<String>());
        cluster.write("log.chunks", &chunks.to_string());
        cluster.write("log.quarantined", "0");
        cluster.write("log.ready", "True");
        Some(cluster)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.at(name), text).unwrap();
    }

    /// Writes a file of the overlay anew, with these words in place of others.
    fn replace(&self, name: &str, words: &str, by: &str) {
        let text = std::fs::read_to_string(self.at(name)).unwrap();
        assert!(text.contains(words), "{name} has no {words:?}");
        self.write(name, &text.replace(words, by));
    }

    /// Whether a file of the overlay has this line.
    fn has_line(&self, name: &str, wanted: &str) -> bool {
        let text = std::fs::read_to_string(self.at(name)).unwrap();
        text.lines().any(|line| line == wanted)
    }

    fn resize(&self, to: u32) -> Resized {
        let resized = self.run(to);
        assert!(self.has_line("recorder.toml", &format!("pods = {to}")));
        resized
    }

    fn run(&self, to: u32) -> Resized {
        let _ = std::fs::remove_file(self.at("log"));
        let output = Command::new(root().join("deploy/kubernetes/resize"))
            .arg(to.to_string())
            .arg(self.folder.path())
            .env("PATH", format!("{}:/usr/bin:/bin", self.folder.path().display()))
            .env("LOG", self.at("log"))
            .env("OVERLAY", self.folder.path())
            .env("REAL_KUBECTL", &self.kubectl)
            .env("RESIZE_PAUSE", "0")
            .output()
            .unwrap();
        let log = std::fs::read_to_string(self.at("log")).unwrap_or_default();
        let log = log.replace(self.folder.path().to_str().unwrap(), "OVERLAY");
        assert!(!log.contains("delete pvc"), "{log}");
        Resized {
            status: output.status.code(),
            is_done: output.status.success(),
            said: text(&output),
            log: log.lines().map(str::to_owned).collect(),
            applied: std::fs::read_to_string(self.at("log.applied")).unwrap_or_default(),
        }
    }
}

/// The system's, or the one that `scripts/setup` has unpacked.
fn kubectl() -> Option<PathBuf> {
    let output = Command::new("sh").args(["-c", "command -v kubectl"]).output().unwrap();
    let found = PathBuf::from(String::from_utf8(output.stdout).unwrap().trim());
    let unpacked = root().join(".venv/kubectl/usr/bin/kubectl");
    [found, unpacked].into_iter().find(|path| path.is_file())
}

/// Where in the log these were asked, in this order.
fn assert_in_order(log: &[String], wanted: &[&str]) {
    let mut rest = log.iter();
    for want in wanted {
        assert!(rest.any(|line| line.contains(want)), "no {want:?} at its place in {log:#?}");
    }
}

fn reload(pod: u32) -> String {
    format!("exec gcstreamer-recorder-{pod} -- sh -c kill -HUP 1")
}

fn find(pod: u32) -> String {
    format!("exec gcstreamer-recorder-drain-{pod} -- sh -c find /var/lib/gcstreamer")
}

#[test]
fn a_fleet_grows_before_anybody_gives_a_camera_up() {
    let Some(cluster) = Cluster::new(5, 6, 0) else {
        return;
    };
    // Its volume is of an earlier time, when there were six.
    cluster.write("log.drained", "persistentvolumeclaim/spool-gcstreamer-recorder-5\n");
    let resized = cluster.resize(6);
    assert!(resized.is_done, "{}", resized.said);
    assert!(cluster.has_line("replicas.yaml", "  replicas: 6"));
    assert_in_order(
        &resized.log,
        &[
            "label pvc spool-gcstreamer-recorder-5 gcstreamer-drained-",
            "apply --server-side --force-conflicts -k OVERLAY",
            "readyReplicas",
            &reload(0),
            &reload(4),
        ],
    );
    assert!(
        !resized.log.iter().any(|line| line.contains(&reload(5))),
        "{:#?}",
        resized.log
    );
    assert_eq!(resized.applied, "");
}

#[test]
fn a_fleet_shrinks_after_the_others_record_all_and_drains_what_is_left() {
    let Some(cluster) = Cluster::new(6, 6, 3) else {
        return;
    };
    let resized = cluster.resize(4);
    assert!(resized.is_done, "{}", resized.said);
    assert!(cluster.has_line("replicas.yaml", "  replicas: 4"));
    let status = "exec gcstreamer-recorder-3 -- bash -c";
    assert_in_order(
        &resized.log,
        &[
            "apply --server-side --force-conflicts -k OVERLAY",
            &reload(0),
            &reload(3),
            // Once while cameras are connecting, and again.
            status,
            status,
            "apply --server-side --force-conflicts -k OVERLAY",
            "get pod gcstreamer-recorder-4 ",
            &find(4),
            "delete pod gcstreamer-recorder-drain-4",
            "get pod gcstreamer-recorder-5 ",
            &find(5),
            "delete pod gcstreamer-recorder-drain-5",
        ],
    );
    assert!(
        !resized.log.iter().any(|line| line.contains(&reload(4))),
        "{:#?}",
        resized.log
    );
    let applied = &resized.applied;
    assert!(
        applied.contains("\"claimName\": \"spool-gcstreamer-recorder-5\""),
        "{applied}"
    );
    // With whatever its configuration names, and not ready before it runs.
    assert!(applied.contains("/run/secrets") && applied.contains("/readyz"), "{applied}");
    // The recorder that drains records nothing and takes no share.
    assert!(
        applied.contains("bucket = \"my-bucket\"") && applied.contains("enabled = false"),
        "{applied}"
    );
    assert!(!applied.contains("[shard]") && !applied.contains("10.0.1.11"), "{applied}");
    // Nothing is left to do for another run.
    assert!(!cluster.resize(4).log.iter().any(|line| line.contains("drain-")));
}

#[test]
fn a_spool_that_empties_slowly_is_waited_for_and_one_that_cannot_be_seen_is_not_called_empty() {
    let Some(cluster) = Cluster::new(6, 6, 400) else {
        return;
    };
    let resized = cluster.resize(5);
    assert!(
        resized.is_done && resized.said.contains("gcstreamer-recorder-5 is drained"),
        "{}",
        resized.said
    );

    // The pod restarts, the login has expired, and so on.
    std::fs::remove_file(cluster.at("log.chunks")).unwrap();
    cluster.write("log.replicas", "5");
    let resized = cluster.resize(4);
    assert!(!resized.is_done && !resized.said.contains("drained;"), "{}", resized.said);
    assert!(resized.said.contains("run this again"), "{}", resized.said);

    // Run again, when it can be seen: the cluster has four pods already.
    cluster.write("log.chunks", "2");
    cluster.write("log.replicas", "4");
    let resized = cluster.resize(4);
    assert!(
        resized.is_done && resized.said.contains("gcstreamer-recorder-4 is drained"),
        "{}",
        resized.said
    );
    assert!(!resized.log.iter().any(|line| line.contains("drain-5")), "{:#?}", resized.log);
}

#[test]
fn a_volume_with_damaged_chunks_is_not_called_one_to_delete() {
    let Some(cluster) = Cluster::new(6, 6, 2) else {
        return;
    };
    cluster.write("log.quarantined", "3");
    let resized = cluster.resize(5);
    assert!(resized.is_done, "{}", resized.said);
    let named = "3 damaged chunks in quarantine/ of its volume spool-gcstreamer-recorder-5";
    assert!(
        resized.said.contains(named) && !resized.said.contains("may be deleted"),
        "{}",
        resized.said
    );
}

#[test]
fn a_password_that_all_cameras_share_does_not_keep_a_spool_from_being_drained() {
    let Some(cluster) = Cluster::new(6, 6, 1) else {
        return;
    };
    let shared =
        "[defaults]\npassword-file = \"/etc/gcstreamer-passwords/all\"\n[defaults.metadata]\nsite = \"1\"\n\n[[camera]]\n";
    let text = std::fs::read_to_string(cluster.at("recorder.toml")).unwrap();
    let keys = "listen = \"0.0.0.0:9640\"\nmqtt.host = \"broker\"\n";
    let text = text
        .replace("listen = \"0.0.0.0:9640\"\n", keys)
        .replacen("[[camera]]\n", shared, 1);
    cluster.write("recorder.toml", &text);
    let resized = cluster.resize(5);
    assert!(resized.is_done, "{}", resized.said);
    let applied = &resized.applied;
    // What the uploads need is there, and nothing that is half of what a camera needs.
    assert!(
        applied.contains("bucket = \"my-bucket\"") && applied.contains("0.0.0.0:9640"),
        "{applied}"
    );
    for word in ["defaults", "password-file", "site =", "broker"] {
        assert!(!applied.contains(word), "{word} in {applied}");
    }
}

#[test]
fn remarks_and_indentation_of_the_files_are_kept() {
    let Some(cluster) = Cluster::new(6, 6, 0) else {
        return;
    };
    cluster.replace("recorder.toml", "pods = 6", "  pods=6   # equal to replicas");
    cluster.replace("replicas.yaml", "replicas: 6", "replicas: 6 # equal to pods");
    let resized = cluster.run(18);
    assert!(resized.is_done, "{}", resized.said);
    assert!(cluster.has_line("recorder.toml", "  pods=18   # equal to replicas"));
    assert!(cluster.has_line("replicas.yaml", "  replicas: 18 # equal to pods"));
}

#[test]
fn a_file_without_a_line_that_has_to_change_is_named_before_anything_is_changed() {
    for (name, words, by, named) in [
        ("recorder.toml", "pods = 6", "pods = 0x6", "pods = NUMBER"),
        ("recorder.toml", "[[camera]]", "[[kamera]]", "[[camera]]"),
        ("replicas.yaml", "replicas: 6", "replicas: six", "replicas: NUMBER"),
        ("kustomization.yaml", "namespace: ", "#namespace: ", "namespace: NAME"),
    ] {
        let Some(cluster) = Cluster::new(6, 6, 0) else {
            return;
        };
        cluster.replace(name, words, by);
        let resized = cluster.run(8);
        assert_eq!(resized.status, Some(2), "{}", resized.said);
        assert!(
            resized.said.contains(name) && resized.said.contains(named),
            "{}",
            resized.said
        );
        assert!(resized.log.is_empty(), "{:#?}", resized.log);
        let kept = |name: &str| !std::fs::read_to_string(cluster.at(name)).unwrap().contains('8');
        assert!(kept("recorder.toml") && kept("replicas.yaml"));
    }
}

#[test]
fn cameras_that_are_indented_are_counted_before_the_others_end() {
    let Some(cluster) = Cluster::new(2, 2, 0) else {
        return;
    };
    cluster.replace("recorder.toml", "[[camera]]\n", "  [[ camera ]]\n  ");
    // The pod that stays lists no camera at the first look.
    cluster.write("log.starting", "");
    cluster.write("log.connected", "");
    let resized = cluster.resize(1);
    assert!(resized.is_done, "{}", resized.said);
    let (apply, status) = (
        "apply --server-side --force-conflicts -k OVERLAY",
        "exec gcstreamer-recorder-0 -- bash -c",
    );
    assert_in_order(&resized.log, &[apply, status, status, apply]);
}

#[test]
fn a_pod_that_drains_and_does_not_become_ready_is_named_with_what_to_do() {
    let Some(cluster) = Cluster::new(6, 6, 1) else {
        return;
    };
    // Its volume is still attached to a node that has died.
    cluster.write("log.ready", "False");
    let resized = cluster.resize(5);
    assert!(!resized.is_done, "{}", resized.said);
    for words in ["a ready gcstreamer-recorder-drain-5", "describe pod", "run this again"] {
        assert!(resized.said.contains(words), "{}", resized.said);
    }
    cluster.write("log.ready", "True");
    cluster.write("log.replicas", "5");
    let resized = cluster.resize(5);
    assert!(
        resized.is_done && resized.said.contains("gcstreamer-recorder-5 is drained"),
        "{}",
        resized.said
    );
}

#[test]
fn a_pod_that_cannot_be_asked_for_a_moment_is_asked_again() {
    let Some(cluster) = Cluster::new(5, 5, 0) else {
        return;
    };
    cluster.write("log.restarting", "");
    let resized = cluster.resize(6);
    assert!(resized.is_done, "{}", resized.said);
    assert_in_order(&resized.log, &[&reload(0), &reload(0), &reload(1), &reload(4)]);
}
