//! Which certificates are revoked, by the lists of those that issued them (RFC 5280, section 5).
//!
//! Of a target's certificate a connection tells the serial number and not who issued it, so it is looked for on every list of an upstream. A list is
//! taken whole or not at all: what a part of it leaves out would pass. It holds until another takes its place, also when one should have.

use std::collections::HashSet;
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use sha2::{Digest, Sha256};
use tollgate_sdk::secret::Secret;
use x509_parser::error::X509Error;
use x509_parser::oid_registry::OID_X509_EXT_DELTA_CRL_INDICATOR;
use x509_parser::prelude::{CertificateRevocationList, FromDer, X509Certificate};

use super::pem::{Part, Wrong, called, day, seconds};

const READABLE: &str = "name a PEM file that the gateway can read; one in DER becomes one by: openssl crl -inform DER -in FILE -out FILE";
const PEM: &str = "a PEM file with a list begins with -----BEGIN X509 CRL-----; one in DER becomes one by: openssl crl -inform DER -in FILE -out FILE";
const AGAIN: &str = "get it from its issuer again";

/// The lists of one file.
#[derive(Debug, Default)]
pub(super) struct Revoked {
    /// Bytes in hexadecimal with colons between, as Pingora tells those of certificates.
    serials: HashSet<Box<str>>,
    /// The list whose successor is due first: when, in seconds after 1970, and whose it is.
    due: Option<(i64, String)>,
    /// SHA-256 over all of them.
    digest: [u8; 32],
}

/// What is wrong with a list, and how to mend it.
type Mistake = (&'static str, &'static str);

impl Revoked {
    /// Reads a file. With `authorities` one of them must have signed each list.
    ///
    /// # Errors
    /// Every mistake in it.
    pub(super) fn read(
        text: Result<Secret<String>, String>,
        authorities: Option<&[CertificateDer<'_>]>,
    ) -> Result<Self, Vec<Wrong>> {
        let wrong = |message: String, help| Wrong::new(Part::Revoked, message, help);
        let text = text.map_err(|why| vec![wrong(why, READABLE)])?;
        let text = text.expose().as_bytes();
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(text).collect();
        let lists =
            lists.map_err(|_| vec![wrong("the file is not well-formed PEM".to_owned(), PEM)])?;
        if lists.is_empty() {
            let message = "there is no revocation list in the file".to_owned();
            return Err(vec![wrong(message, PEM)]);
        }
        let (mut revoked, mut mistakes) = (Self::default(), Vec::new());
        let mut digest = Sha256::new();
        for (index, list) in lists.iter().enumerate() {
            digest.update(list.len().to_be_bytes());
            digest.update(list);
            if let Err((what, help)) = revoked.take(list, authorities) {
                let message = format!("revocation list {} in the file {what}", index + 1);
                mistakes.push(wrong(message, help));
            }
        }
        revoked.digest = digest.finalize().into();
        match mistakes.is_empty() {
            true => Ok(revoked),
            false => Err(mistakes),
        }
    }

    fn take(
        &mut self,
        list: &[u8],
        authorities: Option<&[CertificateDer<'_>]>,
    ) -> Result<(), Mistake> {
        let (rest, list) =
            CertificateRevocationList::from_der(list).map_err(|_| ("is not one", AGAIN))?;
        if !rest.is_empty() {
            return Err(("is not one", AGAIN));
        }
        let delta = &OID_X509_EXT_DELTA_CRL_INDICATOR;
        if list.tbs_cert_list.find_extension(delta).is_some() {
            let what = "has only what is new since another (a delta)";
            return Err((what, "name the complete list"));
        }
        if let Some(authorities) = authorities {
            check_signature(&list, authorities)?;
        }
        if let Some(due) = list.next_update() {
            let due = (due.timestamp(), called(list.issuer()));
            if { self.due.as_ref() }.is_none_or(|known| due < *known) {
                self.due = Some(due);
            }
        }
        let entries = list.iter_revoked_certificates();
        (self.serials).extend(entries.map(|entry| entry.raw_serial_as_string().into()));
        Ok(())
    }

    /// Whether a certificate with this serial number is on a list.
    pub(super) fn names(&self, serial: &str) -> bool {
        self.serials.contains(serial)
    }

    /// What tells these lists from others.
    pub(super) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// What to say of a list that should have been replaced by `now`.
    pub(super) fn overdue(&self, now: SystemTime) -> Option<Wrong> {
        let (due, issuer) = self.due.as_ref()?;
        if seconds(now)? <= *due {
            return None;
        }
        let due = day(*due);
        let message = format!(
            "the revocation list of {issuer} should have been replaced by {due}; it holds all the same"
        );
        Some(Wrong::new(
            Part::Revoked,
            message,
            "put the current one in its place",
        ))
    }
}

/// Whether one of these signed the list, as it says.
fn check_signature(
    list: &CertificateRevocationList<'_>,
    authorities: &[CertificateDer<'_>],
) -> Result<(), Mistake> {
    let mut unsupported = false;
    for authority in authorities {
        let Ok((_, authority)) = X509Certificate::from_der(authority) else {
            continue;
        };
        if authority.subject().as_raw() != list.issuer().as_raw() {
            continue;
        }
        match list.verify_signature(authority.public_key()) {
            Ok(()) => return Ok(()),
            Err(X509Error::SignatureUnsupportedAlgorithm) => unsupported = true,
            Err(_) => {}
        }
    }
    Err(match unsupported {
        true => (
            "is signed in a way that is not supported",
            "have it signed with RSA (PKCS #1, SHA-2), ECDSA (P-256, P-384) or Ed25519",
        ),
        false => (
            "is not signed by an authority of `ca`",
            "get it from its issuer again, or add the issuer's certificate to the file of `ca`",
        ),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// DER by hand: a tag, the length (below 128) and what is in it.
    fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        let inside = parts.concat();
        let length = u8::try_from(inside.len()).unwrap();
        assert!(length < 128);
        [&[tag, length], &*inside].concat()
    }

    fn time(year: &str) -> Vec<u8> {
        der(0x17, &[format!("{year}0101000000Z").as_bytes()])
    }

    /// A list with these entries and extensions; nobody signed it.
    fn list(next: &str, entries: &[Vec<u8>], extensions: &[u8]) -> Vec<u8> {
        let algorithm = der(0x30, &[&[0x06, 0x03, 0x2b, 0x65, 0x70]]);
        let entries: Vec<&[u8]> = entries.iter().map(Vec::as_slice).collect();
        let inside = der(
            0x30,
            &[
                &[0x02, 0x01, 0x01],
                &algorithm,
                &der(0x30, &[]),
                &time("20"),
                &time(next),
                &der(0x30, &entries),
                extensions,
            ],
        );
        der(0x30, &[&inside, &algorithm, &[0x03, 0x02, 0x00, 0x00]])
    }

    fn entry(serial: &[u8]) -> Vec<u8> {
        der(0x30, &[&der(0x02, &[serial]), &time("20")])
    }

    #[test]
    fn serial_numbers_are_found_as_certificates_tell_them() {
        let mut revoked = Revoked::default();
        let taken = list("30", &[entry(&[0x00, 0xab]), entry(&[0x05])], &[]);
        revoked.take(&taken, None).unwrap();
        revoked
            .take(&list("29", &[entry(&[0x06])], &[]), None)
            .unwrap();
        for serial in ["00:ab", "05", "06"] {
            assert!(revoked.names(serial), "{serial}");
        }
        for serial in ["ab", "00:05", "04", ""] {
            assert!(!revoked.names(serial), "{serial}");
        }
        let due = SystemTime::UNIX_EPOCH + Duration::from_secs(1_861_920_000);
        assert_eq!(revoked.overdue(due), None);
        let late = revoked.overdue(due + Duration::from_secs(1)).unwrap();
        assert!(
            late.message.contains("by 2029-01-01T00:00:00Z"),
            "{}",
            late.message
        );
    }

    #[test]
    fn what_is_not_whole_is_refused() {
        let whole = list("30", &[entry(&[0x05])], &[]);
        let mut revoked = Revoked::default();
        for end in 0..whole.len() {
            assert!(revoked.take(&whole[..end], None).is_err(), "{end}");
        }
        // An entry without its time, one that is none, and bytes behind the list.
        let without = der(0x30, &[&der(0x02, &[&[0x05]])]);
        for broken in [
            list("30", &[entry(&[0x04]), without], &[]),
            list("30", &[entry(&[0x04]), vec![0x05, 0x00]], &[]),
            [&*whole, &[0x00]].concat(),
        ] {
            let (what, _) = revoked.take(&broken, None).unwrap_err();
            assert_eq!(what, "is not one");
        }
        assert!(!revoked.names("04") && !revoked.names("05"));
    }

    #[test]
    fn what_is_only_new_since_another_is_refused() {
        let number = der(0x04, &[&[0x02, 0x01, 0x01]]);
        let indicator = der(
            0x30,
            &[
                &[0x06, 0x03, 0x55, 0x1d, 0x1b],
                &[0x01, 0x01, 0xff],
                &number,
            ],
        );
        let extensions = der(0xa0, &[&der(0x30, &[&indicator])]);
        let mut revoked = Revoked::default();
        let (what, _) = revoked
            .take(&list("30", &[entry(&[0x05])], &extensions), None)
            .unwrap_err();
        assert!(what.contains("a delta"), "{what}");
    }
}
