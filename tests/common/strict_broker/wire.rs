//! A TCP connection, with TLS or without: one thread reads, any thread writes.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, ServerConnection};

/// A device that does not read for this duration is given up.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// A CA of its own and a server certificate for `localhost` and `127.0.0.1`.
pub struct Authority {
    pub ca_pem: String,
    pub server: Arc<ServerConfig>,
}

impl Authority {
    pub fn create() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        // A name of its own: to somebody who trusts another broker's CA this one is unknown, not a forgery.
        let name: String = key
            .public_key_raw()
            .iter()
            .skip(1)
            .take(8)
            .map(|b| format!("{b:02x}"))
            .collect();
        params
            .distinguished_name
            .push(DnType::CommonName, format!("strict broker {name}"));
        let ca = CertifiedIssuer::self_signed(params, key).unwrap();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &ca).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        Self {
            ca_pem: ca.pem(),
            server: Arc::new(server),
        }
    }
}

/// How a connection goes on once all that was queued is written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Open,
    /// Our direction is closed; the device may still be heard.
    Finish,
    Close,
}

/// Both directions of a connection. What is to be written is queued, in order, by who holds the broker's lock, and
/// written by [`Wire::flush`] without that lock, since a device may be slow to read.
pub struct Wire {
    socket: TcpStream,
    queue: Mutex<(Vec<u8>, After)>,
    /// Guards the order of writes too, hence for plain connections as well.
    tls: Mutex<Option<ServerConnection>>,
    silent: AtomicBool,
}

impl Wire {
    pub fn new(socket: TcpStream, tls: Option<&Arc<ServerConfig>>) -> Self {
        let _ = socket.set_nodelay(true);
        let _ = socket.set_write_timeout(Some(WRITE_TIMEOUT));
        let tls = tls.map(|config| {
            let mut tls = ServerConnection::new(config.clone()).unwrap();
            tls.set_buffer_limit(None);
            tls
        });
        Self {
            socket,
            queue: Mutex::new((Vec::new(), After::Open)),
            tls: Mutex::new(tls),
            silent: AtomicBool::new(false),
        }
    }

    /// From now on nothing is written, and what is read is to be thrown away.
    pub fn fall_silent(&self) {
        self.silent.store(true, Ordering::SeqCst);
    }

    pub fn is_silent(&self) -> bool {
        self.silent.load(Ordering::SeqCst)
    }

    pub fn queue(&self, packets: &[u8]) {
        self.queue.lock().unwrap().0.extend_from_slice(packets);
    }

    /// The next flush says goodbye; the device may still be heard.
    pub fn finish(&self) {
        self.queue.lock().unwrap().1 = After::Finish;
    }

    /// The next flush ends both directions and wakes the reading thread.
    pub fn close(&self) {
        self.queue.lock().unwrap().1 = After::Close;
    }

    /// Waits for bytes of the device and appends them; 0 = the device has closed its direction.
    ///
    /// # Errors
    /// Of the socket; `InvalidData` when TLS fails.
    pub fn read(&self, into: &mut Vec<u8>) -> io::Result<usize> {
        let mut chunk = [0; 16 << 10];
        loop {
            let count = (&self.socket).read(&mut chunk)?;
            let came = chunk.get(..count).unwrap_or_default();
            if count == 0 || self.is_silent() {
                return Ok(count);
            }
            let mut guard = self.tls.lock().unwrap();
            let Some(tls) = guard.as_mut() else {
                into.extend_from_slice(came);
                return Ok(count);
            };
            let before = into.len();
            let closed = self.decrypt(tls, came, into)?;
            if closed || into.len() > before {
                return Ok(into.len() - before);
            }
        }
    }

    /// Whether the device has said that it will send no more.
    fn decrypt(&self, tls: &mut ServerConnection, mut came: &[u8], into: &mut Vec<u8>) -> io::Result<bool> {
        let mut closed = false;
        while !came.is_empty() {
            tls.read_tls(&mut came)?;
            let outcome = tls.process_new_packets();
            while tls.wants_write() {
                tls.write_tls(&mut &self.socket)?;
            }
            let state = outcome.map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
            let mut plain = vec![0; state.plaintext_bytes_to_read()];
            tls.reader().read_exact(&mut plain)?;
            into.append(&mut plain);
            if state.peer_has_closed() {
                closed = true;
                break;
            }
        }
        Ok(closed)
    }

    /// Writes what is queued. A failure ends the connection, which the reading thread then sees.
    pub fn flush(&self) {
        let closing = self.queue.lock().unwrap().1 == After::Close;
        let mut guard = match self.tls.try_lock() {
            Ok(guard) => guard,
            // Somebody is in the middle of a write to a device that does not read.
            Err(_) if closing => return drop(self.socket.shutdown(Shutdown::Both)),
            Err(_) => self.tls.lock().unwrap(),
        };
        let (packets, after) = {
            let mut queue = self.queue.lock().unwrap();
            (std::mem::take(&mut queue.0), queue.1)
        };
        let written = self.is_silent() || Self::write(&mut guard, &self.socket, &packets, after).is_ok();
        match after {
            After::Open if written => {}
            After::Finish if written => drop(self.socket.shutdown(Shutdown::Write)),
            _ => drop(self.socket.shutdown(Shutdown::Both)),
        }
    }

    fn write(tls: &mut Option<ServerConnection>, mut socket: &TcpStream, packets: &[u8], after: After) -> io::Result<()> {
        let Some(tls) = tls.as_mut() else {
            return socket.write_all(packets);
        };
        tls.writer().write_all(packets)?;
        if after != After::Open {
            tls.send_close_notify();
        }
        while tls.wants_write() {
            tls.write_tls(&mut socket)?;
        }
        Ok(())
    }
}
