//! A real broker for tests: mosquitto on 127.0.0.1, plain or TLS, with passwords and access rules, that can be stopped and
//! started again on its port; and `mosquitto_sub` as a client that is not ours.
//!
//! Both are found on the path (Debian: `apt install mosquitto mosquitto-clients`). Each broker has a directory of its own
//! and is ended by its own process id.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, unreachable_pub)]

use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};

/// The certificate of a broker with TLS.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Of our authority, for localhost.
    #[default]
    Signed,
    /// Of our authority, for another name.
    OtherName,
    /// As by the recipe of mosquitto's manual: of our authority, for localhost, with a common name only.
    SignedByCommonName,
    /// The same for another name, of an authority that is called localhost.
    SignedByAnotherCommonName,
    Expired,
    NotYetValid,
    /// As `openssl req -x509` makes it: its own authority; `ca` returns it.
    SelfSigned,
    /// The same for another name.
    SelfSignedForAnother,
    /// The same, with a common name only.
    SelfSignedByCommonName,
    SelfSignedExpired,
    /// Self-signed, no authority.
    SelfSignedNoCa,
    /// As `openssl x509 -req -signkey` makes it: self-signed, of X.509 version 1; its key for RSA.
    SelfSignedVersion1,
    /// The same with a key for ECDSA.
    SelfSignedVersion1Ecdsa,
}

impl Kind {
    fn is_self_signed(self) -> bool {
        matches!(
            self,
            Self::SelfSigned
                | Self::SelfSignedForAnother
                | Self::SelfSignedByCommonName
                | Self::SelfSignedExpired
                | Self::SelfSignedNoCa
                | Self::SelfSignedVersion1
                | Self::SelfSignedVersion1Ecdsa
        )
    }

    fn params(self) -> CertificateParams {
        let names = match self {
            Self::OtherName | Self::SelfSignedForAnother => vec!["camera.example".to_owned()],
            Self::SelfSignedByCommonName | Self::SignedByCommonName | Self::SignedByAnotherCommonName => Vec::new(),
            _ => vec!["localhost".to_owned(), "127.0.0.1".to_owned()],
        };
        let mut params = CertificateParams::new(names).unwrap();
        match self {
            Self::Expired | Self::SelfSignedExpired => {
                params.not_before = rcgen::date_time_ymd(2020, 1, 1);
                params.not_after = rcgen::date_time_ymd(2021, 1, 1);
            }
            Self::NotYetValid => {
                params.not_before = rcgen::date_time_ymd(3000, 1, 1);
                params.not_after = rcgen::date_time_ymd(3001, 1, 1);
            }
            _ => {}
        }
        if self.is_self_signed() {
            params.distinguished_name.push(DnType::CommonName, "localhost");
            if self != Self::SelfSignedNoCa {
                params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            }
        }
        params
    }
}

/// How the broker is to be.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// TLS with a certificate for `localhost` and 127.0.0.1.
    pub tls: bool,
    /// Only clients with a certificate of our authority; implies TLS.
    pub client_certificates: bool,
    /// What its certificate is like.
    pub certificate: Kind,
    /// Users and passwords; empty = anybody.
    pub users: Vec<(&'static str, &'static str)>,
    /// Lines of an access file; empty = everything is allowed.
    pub access: Vec<&'static str>,
    /// The largest packet that it takes, bytes; a larger one ends the connection.
    pub largest_packet: Option<u32>,
    /// A further line of its configuration.
    pub line: Option<&'static str>,
}

/// A running broker. Dropping it ends the process and removes its directory.
pub struct Mosquitto {
    directory: PathBuf,
    port: u16,
    rules: Rules,
    process: Option<Child>,
}

impl Mosquitto {
    /// A broker for anybody, without TLS.
    pub fn start() -> Self {
        Self::with(Rules::default())
    }

    /// A broker with these rules, listening.
    pub fn with(rules: Rules) -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("gcstreamer-mosquitto-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        // Nobody takes the port in between: the kernel hands ephemeral ports out in turn.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut broker = Self {
            directory,
            port,
            rules,
            process: None,
        };
        broker.write_files();
        broker.start_again();
        broker
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The authority of all certificates, PEM.
    pub fn ca(&self) -> PathBuf {
        self.directory.join("ca.pem")
    }

    /// A client's certificate and key, PEM.
    pub fn client_pair(&self) -> (PathBuf, PathBuf) {
        (self.directory.join("client.pem"), self.directory.join("client.key"))
    }

    /// A file in the broker's directory that only we can read.
    pub fn secret(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.join(name);
        write_private(&path, text);
        path
    }

    /// Kills the broker: all connections break, nothing is remembered.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }

    /// Starts it on the same port, without a memory.
    pub fn start_again(&mut self) {
        assert!(self.process.is_none(), "it runs");
        let process = Command::new(program("mosquitto"))
            .arg("-c")
            .arg(self.directory.join("mosquitto.conf"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto (apt install mosquitto)");
        self.process = Some(process);
        let end = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < end, "mosquitto does not listen on port {}", self.port);
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops the process with SIGSTOP: TCP goes on, the broker does not.
    pub fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Goes on after [`Self::freeze`].
    pub fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let id = self.process.as_ref().unwrap().id().to_string();
        assert!(Command::new("kill").args([signal, &id]).status().unwrap().success());
    }

    /// What `mosquitto_sub` sees on these topics from now on, retained messages first. `user` where the broker wants one.
    pub fn watch(&self, topics: &[&str], user: Option<(&str, &str)>) -> Watcher {
        let mut command = self.client("mosquitto_sub", user);
        topics.iter().for_each(|topic| {
            command.args(["-t", topic]);
        });
        Watcher::start(command)
    }

    /// Publishes with `mosquitto_pub`.
    pub fn publish(&self, topic: &str, payload: &[u8], retain: bool) {
        let file = self.directory.join("payload");
        std::fs::write(&file, payload).unwrap();
        let mut command = self.client("mosquitto_pub", None);
        command.args(["-t", topic, "-q", "1", "-f"]).arg(file);
        if retain {
            command.arg("-r");
        }
        assert!(command.status().unwrap().success(), "mosquitto_pub");
    }

    /// Connects a foreign client with this id, for a moment.
    pub fn visit_as(&self, id: &str) {
        let mut command = self.client("mosquitto_pub", None);
        command.args(["-i", id, "-t", "visit", "-m", "x"]);
        assert!(command.status().unwrap().success(), "mosquitto_pub");
    }

    fn client(&self, name: &str, user: Option<(&str, &str)>) -> Command {
        let mut command = Command::new(program(name));
        command.args(["-h", "127.0.0.1", "-p", &self.port.to_string(), "-V", "mqttv311"]);
        if let Some((user, password)) = user {
            command.args(["-u", user, "-P", password]);
        }
        if self.rules.tls || self.rules.client_certificates {
            command.arg("--cafile").arg(self.ca());
        }
        if self.rules.client_certificates {
            let (certificate, key) = self.client_pair();
            command.arg("--cert").arg(certificate).arg("--key").arg(key);
        }
        command
    }

    fn write_files(&self) {
        let at = |name: &str| self.directory.join(name).display().to_string();
        let mut lines = vec![
            format!("listener {} 127.0.0.1", self.port),
            "persistence false".to_owned(),
            format!("log_dest file {}", at("log")),
            "log_type all".to_owned(),
            // It would change to a user that cannot read the directory.
            "user root".to_owned(),
        ];
        if self.rules.tls || self.rules.client_certificates {
            self.write_certificates();
            lines.push(format!("cafile {}", at("ca.pem")));
            lines.push(format!("certfile {}", at("server.pem")));
            lines.push(format!("keyfile {}", at("server.key")));
            lines.push(format!("require_certificate {}", self.rules.client_certificates));
        }
        lines.extend(self.rules.largest_packet.map(|size| format!("max_packet_size {size}")));
        lines.extend(self.rules.line.map(str::to_owned));
        lines.push(format!("allow_anonymous {}", self.rules.users.is_empty()));
        if !self.rules.users.is_empty() {
            write_private(&self.directory.join("users"), "");
            for (user, password) in &self.rules.users {
                let made = Command::new(program("mosquitto_passwd"))
                    .args(["-b", &at("users"), user, password])
                    .output()
                    .unwrap();
                assert!(made.status.success(), "mosquitto_passwd");
            }
            lines.push(format!("password_file {}", at("users")));
        }
        if !self.rules.access.is_empty() {
            write_private(&self.directory.join("access"), &format!("{}\n", self.rules.access.join("\n")));
            lines.push(format!("acl_file {}", at("access")));
        }
        std::fs::write(self.directory.join("mosquitto.conf"), lines.join("\n")).unwrap();
    }

    fn write_certificates(&self) {
        let kind = self.rules.certificate;
        if matches!(kind, Kind::SelfSignedVersion1 | Kind::SelfSignedVersion1Ecdsa) {
            return self.write_version_1(kind);
        }
        if kind.is_self_signed() {
            let key = KeyPair::generate().unwrap();
            let certificate = kind.params().self_signed(&key).unwrap();
            for name in ["ca.pem", "server.pem"] {
                write_private(&self.directory.join(name), &certificate.pem());
            }
            write_private(&self.directory.join("server.key"), &key.serialize_pem());
            return;
        }
        let mut ca = CertificateParams::default();
        let authority = match kind {
            Kind::SignedByAnotherCommonName => "localhost".to_owned(),
            _ => format!("test authority {}", self.port),
        };
        ca.distinguished_name.push(DnType::CommonName, authority);
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(ca, KeyPair::generate().unwrap()).unwrap();
        write_private(&self.ca(), &ca.pem());
        for (name, purpose) in [
            ("server", ExtendedKeyUsagePurpose::ServerAuth),
            ("client", ExtendedKeyUsagePurpose::ClientAuth),
        ] {
            let key = KeyPair::generate().unwrap();
            let mut params = if name == "server" {
                kind.params()
            } else {
                Kind::Signed.params()
            };
            let common_name = match (name, kind) {
                ("server", Kind::SignedByCommonName) => "localhost",
                ("server", Kind::SignedByAnotherCommonName) => "camera.example",
                (name, _) => name,
            };
            params.distinguished_name.push(DnType::CommonName, common_name);
            params.extended_key_usages.push(purpose);
            let certificate = params.signed_by(&key, &ca).unwrap();
            write_private(&self.directory.join(format!("{name}.pem")), &certificate.pem());
            write_private(&self.directory.join(format!("{name}.key")), &key.serialize_pem());
        }
    }

    fn write_version_1(&self, kind: Kind) {
        let openssl = |arguments: &str| {
            let mut command = Command::new("openssl");
            command.current_dir(&self.directory).args(arguments.split_whitespace());
            let made = command.output().expect("openssl (apt install openssl)");
            assert!(
                made.status.success(),
                "{arguments}: {}",
                String::from_utf8_lossy(&made.stderr)
            );
        };
        openssl(match kind {
            Kind::SelfSignedVersion1 => "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out server.key",
            _ => "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out server.key",
        });
        openssl("req -new -key server.key -subj /CN=localhost -out server.csr");
        // OpenSSL 3.2 and later make version 3 without being asked to.
        std::fs::write(self.directory.join("none.ext"), "").unwrap();
        openssl("x509 -req -in server.csr -signkey server.key -days 30 -extfile none.ext -out server.pem");
        std::fs::copy(self.directory.join("server.pem"), self.ca()).unwrap();
    }

    /// How often the broker's log has this text.
    pub fn log_count(&self, text: &str) -> usize {
        let log = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
        log.lines().filter(|line| line.contains(text)).count()
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// A message as another client saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub topic: String,
    pub payload: String,
    /// It was kept by the broker, and is older than the subscription.
    pub retained: bool,
    pub at: Instant,
}

/// A running `mosquitto_sub`.
pub struct Watcher {
    process: Child,
    seen: Arc<(Mutex<Vec<Seen>>, Condvar)>,
}

impl Watcher {
    fn start(mut command: Command) -> Self {
        let mut process = command
            .args(["-q", "1", "-F", "%r %t %p"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto_sub (apt install mosquitto-clients)");
        let seen = Arc::new((Mutex::new(Vec::new()), Condvar::new()));
        let (lines, into) = (BufReader::new(process.stdout.take().unwrap()), Arc::clone(&seen));
        std::thread::spawn(move || {
            for line in lines.lines().map_while(Result::ok) {
                let mut parts = line.splitn(3, ' ');
                let mut part = || parts.next().unwrap_or_default().to_owned();
                let (retained, topic, payload) = (part() == "1", part(), part());
                let at = Instant::now();
                into.0.lock().unwrap().push(Seen {
                    topic,
                    payload,
                    retained,
                    at,
                });
                into.1.notify_all();
            }
        });
        Self { process, seen }
    }

    /// All so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.0.lock().unwrap().clone()
    }

    /// The payloads on one topic so far.
    pub fn payloads(&self, topic: &str) -> Vec<String> {
        let seen = self.seen();
        seen.into_iter().filter(|s| s.topic == topic).map(|s| s.payload).collect()
    }

    /// Waits until this holds of what was seen.
    pub fn wait_for(&self, what: impl Fn(&[Seen]) -> bool, time: Duration) -> bool {
        let seen = self.seen.0.lock().unwrap();
        let (_seen, timeout) = self.seen.1.wait_timeout_while(seen, time, |seen| !what(seen)).unwrap();
        !timeout.timed_out()
    }

    /// Waits until the last payload on the topic is this one.
    pub fn wait_last(&self, topic: &str, payload: &str, time: Duration) {
        let last = |seen: &[Seen]| {
            seen.iter()
                .rev()
                .find(|s| s.topic == topic)
                .is_some_and(|s| s.payload == payload)
        };
        assert!(self.wait_for(last, time), "{topic} is not {payload}: {:#?}", self.seen());
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Debian keeps the broker where users have no path to.
fn program(name: &str) -> PathBuf {
    let system = Path::new("/usr/sbin").join(name);
    if system.exists() { system } else { PathBuf::from(name) }
}

/// Private keys and password files are for their owner.
fn write_private(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
}
