//! Answers to challenges, for as long as they are under way: by a request in the clear (RFC 8555, section 8.3) or in a handshake (RFC 8737).
//!
//! Each is known by what the authority asks for and by nothing else. It is there until whoever put it there lets go.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};

use crate::tls::ALPN_OF_CHALLENGES;

/// The answers that are under way.
#[derive(Default)]
pub struct Challenges {
    open: AtomicUsize,
    // Held for a look-up.
    answers: Mutex<Answers>,
}

#[derive(Default)]
struct Answers {
    /// By token: the host, and what is answered.
    requests: HashMap<String, (String, String)>,
    /// By host.
    handshakes: HashMap<String, Arc<ServerConfig>>,
}

/// An answer that is under way for as long as this lives.
pub(super) struct Answer {
    challenges: Arc<Challenges>,
    request: bool,
    by: String,
}

impl Drop for Answer {
    fn drop(&mut self) {
        let mut answers = self.challenges.lock();
        match self.request {
            true => drop(answers.requests.remove(&self.by)),
            false => drop(answers.handshakes.remove(&self.by)),
        }
        self.challenges.open.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Challenges {
    /// What is answered to a request for a token at a host.
    pub fn request(&self, host: &str, token: &str) -> Option<String> {
        // Usually there is none.
        if self.open.load(Ordering::Acquire) == 0 {
            return None;
        }
        let answers = self.lock();
        let (whose, text) = answers.requests.get(token)?;
        whose.eq_ignore_ascii_case(host).then(|| text.clone())
    }

    /// How a handshake goes with an authority that names a host.
    pub fn handshake(&self, host: &str) -> Option<Arc<ServerConfig>> {
        self.lock()
            .handshakes
            .get(&host.to_ascii_lowercase())
            .cloned()
    }

    /// Answers requests for a token.
    pub(super) fn answer_request(self: &Arc<Self>, host: &str, token: &str, text: &str) -> Answer {
        let answer = (host.to_owned(), text.to_owned());
        self.lock().requests.insert(token.to_owned(), answer);
        self.answer(true, token)
    }

    /// Answers handshakes for a host with the digest of what is to be proved; `None` if no certificate can say it.
    pub(super) fn answer_handshake(self: &Arc<Self>, host: &str, digest: &[u8]) -> Option<Answer> {
        let host = host.to_ascii_lowercase();
        let config = proving(&host, digest)?;
        self.lock()
            .handshakes
            .insert(host.clone(), Arc::new(config));
        Some(self.answer(false, &host))
    }

    fn answer(self: &Arc<Self>, request: bool, by: &str) -> Answer {
        self.open.fetch_add(1, Ordering::AcqRel);
        Answer {
            challenges: self.clone(),
            request,
            by: by.to_owned(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A certificate that vouches for itself and says the digest in a critical extension, for that one protocol.
fn proving(host: &str, digest: &[u8]) -> Option<ServerConfig> {
    let key = KeyPair::generate().ok()?;
    let mut params = CertificateParams::new(vec![host.to_owned()]).ok()?;
    params.custom_extensions = vec![CustomExtension::new_acme_identifier(digest)];
    let certificate = params.self_signed(&key).ok()?;
    let key = PrivatePkcs8KeyDer::from(key.serialize_der());
    let key = ring::sign::any_ecdsa_type(&key.into()).ok()?;
    // Whether the two belong together is not looked at: that would stumble over the critical extension.
    let certified = CertifiedKey::new(vec![certificate.der().clone()], key);
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13, &TLS12])
        .ok()?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    config.alpn_protocols = vec![ALPN_OF_CHALLENGES.to_vec()];
    Some(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_there_for_its_host_and_its_time() {
        let challenges = Arc::new(Challenges::default());
        assert_eq!(challenges.request("a.example", "t"), None);
        let answer = challenges.answer_request("a.example", "t", "t.thumb");
        assert_eq!(
            challenges.request("A.example", "t").as_deref(),
            Some("t.thumb")
        );
        assert_eq!(challenges.request("b.example", "t"), None);
        assert_eq!(challenges.request("a.example", "u"), None);
        drop(answer);
        assert_eq!(challenges.request("a.example", "t"), None);
        let proof = challenges.answer_handshake("a.example", &[7; 32]).unwrap();
        assert!(challenges.handshake("A.Example").is_some());
        assert!(challenges.handshake("b.example").is_none());
        drop(proof);
        assert!(challenges.handshake("a.example").is_none());
    }
}
