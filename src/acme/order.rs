//! One order, from the account to the certificate (RFC 8555, section 7).

use std::sync::Arc;
use std::time::Duration;

use instant_acme::{
    Account, AuthorizationHandle, AuthorizationStatus, ChallengeType, Error, Identifier, NewOrder,
    Order, OrderStatus, RetryPolicy,
};
use rcgen::{CertificateParams, DistinguishedName, KeyPair};
use tollgate_sdk::secret::Secret;

use super::challenges::{Answer, Challenges};
use super::hook::Record;
use crate::model::Proof;
use crate::tls::Issued;

/// How often the authority is asked how far it is: soon at first, for two minutes.
const POLL: RetryPolicy = RetryPolicy::new()
    .initial_delay(Duration::from_millis(250))
    .backoff(1.5)
    .timeout(Duration::from_secs(120));

/// Why there is no certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    /// A sentence.
    pub(super) why: String,
    pub(super) kind: FailureKind,
}

/// What sort of failure it is, as far as it matters for what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FailureKind {
    /// Any.
    Failed,
    /// There were too many orders.
    RateLimited,
    /// The authority does not know the account.
    NoAccount,
    /// It was only about a nonce: to be tried again at once (RFC 8555, section 6.5).
    Nonce,
}

impl Failure {
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self {
            why: why.into(),
            kind: FailureKind::Failed,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let problem = match &error {
            Error::Api(problem) => problem.r#type.as_deref(),
            _ => None,
        };
        let kind = match problem.and_then(|kind| kind.rsplit(':').next()) {
            Some("rateLimited") => FailureKind::RateLimited,
            Some("accountDoesNotExist") => FailureKind::NoAccount,
            Some("badNonce") => FailureKind::Nonce,
            _ => FailureKind::Failed,
        };
        let why = match &error {
            Error::Api(problem) => format!("the authority refused: {problem}"),
            Error::Json(_) => "the directory does not answer as ACME's do".to_owned(),
            Error::Timeout(_) => "the authority did not decide in time".to_owned(),
            other => other.to_string(),
        };
        // What others wrote goes to the log, to the status and to terminals.
        let clean = why.chars().map(|c| if c.is_control() { ' ' } else { c });
        Self {
            why: clean.take(500).collect(),
            kind,
        }
    }
}

/// What shows that a host is ours, for as long as it is looked at.
#[derive(Default)]
struct Shown<'h> {
    answers: Vec<Answer>,
    records: Vec<Record<'h>>,
}

impl Shown<'_> {
    async fn end(self) {
        drop(self.answers);
        for record in self.records {
            record.remove().await;
        }
    }
}

/// Orders a certificate for these names.
pub(super) async fn place(
    account: &Account,
    names: &[String],
    proof: &Proof,
    challenges: &Arc<Challenges>,
) -> Result<Issued, Failure> {
    let identifiers: Vec<_> = names.iter().cloned().map(Identifier::Dns).collect();
    let mut order = account.new_order(&NewOrder::new(&identifiers)).await?;
    let mut shown = Shown::default();
    let proved = prove(&mut order, proof, challenges, &mut shown).await;
    shown.end().await;
    proved?;
    let (key, request) = request(names).ok_or_else(|| {
        Failure::new(format!(
            "no request can be written for {}",
            names.join(", ")
        ))
    })?;
    order.finalize_csr(&request).await?;
    let certificate = order.poll_certificate(&POLL).await?;
    Issued::new(certificate, key).map_err(|wrong| {
        let wrong: Vec<_> = wrong.iter().map(ToString::to_string).collect();
        Failure::new(format!(
            "what was issued is of no use: {}",
            wrong.join("; ")
        ))
    })
}

/// Shows that all of an order's names are ours, and waits until the authority has seen it.
async fn prove<'h>(
    order: &mut Order,
    proof: &'h Proof,
    challenges: &Arc<Challenges>,
    shown: &mut Shown<'h>,
) -> Result<(), Failure> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let authorization = authorization?;
        match authorization.status {
            // Known from an order before.
            AuthorizationStatus::Valid => {}
            AuthorizationStatus::Pending => {
                show(authorization, proof, challenges, shown).await?;
            }
            other => {
                let host = authorization.identifier();
                return Err(Failure::new(format!(
                    "the authorization for {host} is {other:?} before it was tried"
                )));
            }
        }
    }
    match order.poll_ready(&POLL).await {
        Ok(OrderStatus::Ready) => Ok(()),
        Ok(_) => Err(refusal(order).await.unwrap_or_else(|| {
            Failure::new("the authority refused the order and did not say why")
        })),
        Err(error) => Err(refusal(order).await.unwrap_or_else(|| error.into())),
    }
}

async fn show<'h>(
    mut authorization: AuthorizationHandle<'_>,
    proof: &'h Proof,
    challenges: &Arc<Challenges>,
    shown: &mut Shown<'h>,
) -> Result<(), Failure> {
    let kind = match proof {
        Proof::Http01 => ChallengeType::Http01,
        Proof::TlsAlpn01 => ChallengeType::TlsAlpn01,
        Proof::Dns01 { .. } => ChallengeType::Dns01,
    };
    let Some(host) = host_of(&authorization.identifier().identifier.clone()) else {
        return Err(Failure::new(
            "the authority asks for something that is no host",
        ));
    };
    let Some(mut challenge) = authorization.challenge(kind) else {
        let why = format!("the authority does not offer acme.challenge for {host}");
        return Err(Failure::new(why));
    };
    let answer = challenge.key_authorization();
    match proof {
        Proof::Http01 => {
            let token = &challenge.token;
            shown
                .answers
                .push(challenges.answer_request(&host, token, answer.as_str()));
        }
        Proof::TlsAlpn01 => {
            let made = challenges.answer_handshake(&host, answer.digest().as_ref());
            let made = made.ok_or_else(|| Failure::new(format!("no certificate says {host}")))?;
            shown.answers.push(made);
        }
        Proof::Dns01 { exec } => {
            let written = Record::write(exec, &host, answer.dns_value()).await;
            shown.records.push(written.map_err(Failure::new)?);
        }
    }
    challenge.set_ready().await?;
    Ok(())
}

fn host_of(identifier: &Identifier) -> Option<String> {
    match identifier {
        Identifier::Dns(host) => Some(host.clone()),
        _ => None,
    }
}

/// What the authority says of each name that it refused.
async fn refusal(order: &mut Order) -> Option<Failure> {
    let mut told = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(Ok(mut authorization)) = authorizations.next().await {
        if authorization.refresh().await.is_err() {
            continue;
        }
        let host = authorization.identifier().to_string();
        let refused = authorization.challenges.iter();
        told.extend(refused.filter_map(|challenge| {
            let problem = challenge.error.clone()?;
            Some((host.clone(), problem))
        }));
    }
    let (host, first) = told.first().cloned()?;
    let failure = Failure::from(Error::Api(first));
    let others = match told.len() - 1 {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    Some(Failure {
        why: format!("{host}: {}{others}", failure.why),
        ..failure
    })
}

/// A new key, and the request for a certificate of these names.
fn request(names: &[String]) -> Option<(Secret<String>, Vec<u8>)> {
    let key = KeyPair::generate().ok()?;
    let mut params = CertificateParams::new(names).ok()?;
    params.distinguished_name = DistinguishedName::new();
    let request = params.serialize_request(&key).ok()?;
    Some((Secret::new(key.serialize_pem()), request.der().to_vec()))
}
