//! An upstream that speaks TLS with whomever it likes, and remembers how.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};

use rustls::crypto::ring::default_provider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};

use super::client::find;
use super::{Authority, Issued};

/// How a connection began.
#[derive(Clone, Debug)]
pub(crate) struct Begun {
    pub(crate) name: Option<String>,
    /// The client showed a certificate.
    pub(crate) shown: bool,
    pub(crate) resumed: bool,
    /// It had served a request before.
    pub(crate) kept: bool,
}

/// It answers every request with the usage of nothing, and closes where the answer says so.
pub(crate) struct TlsUpstream {
    address: SocketAddr,
    begun: Arc<Mutex<Vec<Begun>>>,
}

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}";

impl TlsUpstream {
    /// `clients`: who vouches for them; without, they are not asked.
    pub(crate) fn start(shown: &Issued, clients: Option<&Authority>) -> TlsUpstream {
        Self::answering(shown, clients, ANSWER)
    }

    /// With an answer of its own, as it goes over the wire.
    pub(crate) fn answering(
        shown: &Issued,
        clients: Option<&Authority>,
        answer: &'static [u8],
    ) -> TlsUpstream {
        let provider = Arc::new(default_provider());
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                let pem = authority.pem.as_bytes();
                roots
                    .add(CertificateDer::from_pem_slice(pem).unwrap())
                    .unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
                builder.with_client_cert_verifier(verifier.build().unwrap())
            }
        };
        let config = builder.with_single_cert(vec![shown.der()], shown.private());
        let config = Arc::new(config.unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let begun = Arc::new(Mutex::new(Vec::new()));
        let upstream = TlsUpstream {
            address: listener.local_addr().unwrap(),
            begun: begun.clone(),
        };
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, begun) = (config.clone(), begun.clone());
                std::thread::spawn(move || serve(stream, config, &begun, answer));
            }
        });
        upstream
    }

    /// Its URL, at `host`, which leads to this machine.
    pub(crate) fn url(&self, host: &str) -> String {
        format!("https://{host}:{}", self.address.port())
    }

    /// For each request, how its connection began.
    pub(crate) fn begun(&self) -> Vec<Begun> {
        self.begun.lock().unwrap().clone()
    }
}

/// Serves one connection; whoever breaks off is forgotten.
fn serve(
    stream: std::net::TcpStream,
    config: Arc<ServerConfig>,
    begun: &Mutex<Vec<Begun>>,
    answer: &[u8],
) -> Option<()> {
    let session = ServerConnection::new(config).unwrap();
    let mut stream = rustls::StreamOwned::new(session, stream);
    let closes = find(answer, b"connection: close").is_some();
    let mut asked = Vec::new();
    let mut piece = [0; 4096];
    for served in 0.. {
        let head = loop {
            if let Some(end) = find(&asked, b"\r\n\r\n") {
                break end + 4;
            }
            match stream.read(&mut piece).ok()? {
                0 => return None,
                read => asked.extend_from_slice(&piece[..read]),
            }
        };
        begun.lock().unwrap().push(Begun {
            name: stream.conn.server_name().map(str::to_owned),
            shown: stream.conn.peer_certificates().is_some(),
            resumed: stream.conn.handshake_kind() == Some(rustls::HandshakeKind::Resumed),
            kept: served > 0,
        });
        if closes {
            stream.write_all(answer).ok()?;
            break;
        }
        let whole = head + length(&asked[..head]);
        while asked.len() < whole {
            let read = stream.read(&mut piece).ok().filter(|&read| read > 0)?;
            asked.extend_from_slice(&piece[..read]);
        }
        asked.drain(..whole);
        stream.write_all(answer).ok()?;
        stream.flush().ok()?;
    }
    stream.conn.send_close_notify();
    stream.flush().ok()?;
    // What is left of the body is read, so that the answer is not lost with it.
    while stream.read(&mut piece).is_ok_and(|read| read > 0) {}
    Some(())
}

/// What a head says of its body's length.
fn length(head: &[u8]) -> usize {
    let head = std::str::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.split_once("content-length:").map(|(_, rest)| rest);
    let length = length.and_then(|rest| rest.lines().next());
    length.map_or(0, |length| length.trim().parse().unwrap())
}
