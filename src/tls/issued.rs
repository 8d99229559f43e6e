//! A certificate that came without files: issued by an authority, or vouching for itself until one is.

use rustls::crypto::ring;
use tollgate_sdk::secret::Secret;

use super::pem::{self, Leaf, Wrong};

/// A certificate with its chain, and its key, which belong together.
#[derive(Clone)]
pub struct Issued {
    certificate: String,
    key: Secret<String>,
    leaf: Leaf,
    is_own: bool,
}

impl Issued {
    /// What an authority issued, as PEM.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn new(certificate: String, key: Secret<String>) -> Result<Self, Vec<Wrong>> {
        let provider = ring::default_provider();
        let text = Secret::new(certificate.clone());
        let pair = pem::pair(Ok(text), Ok(key.clone()), &provider)?;
        Ok(Self {
            certificate,
            key,
            leaf: pair.leaf,
            is_own: false,
        })
    }

    /// One that vouches for itself, for these names, new with every call; `None` if there can be none.
    pub fn own(names: &[String]) -> Option<Self> {
        let made = rcgen::generate_simple_self_signed(names).ok()?;
        let key = Secret::new(made.signing_key.serialize_pem());
        let issued = Self::new(made.cert.pem(), key).ok()?;
        Some(Self {
            is_own: true,
            ..issued
        })
    }

    /// The certificate and those that vouch for it, as PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Its key, as PEM.
    pub fn key(&self) -> &Secret<String> {
        &self.key
    }

    /// What the certificate says.
    pub fn leaf(&self) -> &Leaf {
        &self.leaf
    }

    /// Whether it only vouches for itself.
    pub fn is_own(&self) -> bool {
        self.is_own
    }

    /// Whether it is for all of these names, wildcards taken as they stand.
    pub fn covers(&self, names: &[String]) -> bool {
        let has = |name: &String| {
            let mut own = self.leaf.names.iter();
            own.any(|own| own.eq_ignore_ascii_case(name)) || self.leaf.is_for(name)
        };
        names.iter().all(has)
    }
}
