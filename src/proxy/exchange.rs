//! One request with its response: everything a phase leaves for a later one.
//!
//! Pingora moves its context about inside large futures, so the context is a thin `Box` of this. All accounting hangs on guards that release on
//! drop; [`super::account`] runs from `logging`, and from here when `logging` never came (a panic, a connection cut by its alarm).

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use prometheus::IntGauge;
use tokio::time::Instant;
use tollgate_sdk::llm::peek::Peek;
use tollgate_sdk::llm::prompt::Prompt;
use tollgate_sdk::llm::splice::{Edits, splice};
use tollgate_sdk::plugin;

use super::account::Account;
use super::alarm::{Alarm, Deadline};
use super::body::BodyPermit;
use super::disaggregate::Split;
use super::plugins::Running;
use super::recover::LastAnswer;
use super::recover::aside::Aside;
use super::reply::Rejection;
use super::request_id::RequestId;
use super::stream::Meter;
use crate::auth::Key;
use crate::balance;
use crate::health;
use crate::model;
use crate::snapshot::{Bounds, Chain, Gateway, Offer};
use crate::tls::{Credentials, Handshake};

const CLIENT_CLOSED: u16 = 499;

/// The state of one exchange.
pub struct Exchange {
    pub(super) account: Arc<Account>,
    pub(super) accounted: bool,

    // What it is (identify.rs).
    pub(super) started: Instant,
    /// The same by the time of day.
    pub(super) at: SystemTime,
    /// What it is held to. The snapshot itself is not kept: a stream may last for many revisions.
    pub(super) bounds: Option<Arc<Bounds>>,
    pub(super) gateway: Option<Arc<Gateway>>,
    /// The one service of the host asked.
    pub(super) host_service: Option<usize>,
    pub(super) request_id: RequestId,
    /// For the access line; empty when nobody reads it.
    pub(super) method: String,
    pub(super) path: String,
    /// The connection's other end.
    pub(super) peer: IpAddr,
    /// Who asks: the peer, or whom a trusted proxy speaks for.
    pub(super) client: IpAddr,
    /// The peer's own address is among the trusted proxies.
    pub(super) trusted_peer: bool,
    pub(super) grpc: bool,
    /// The key it presented, where the gateway asks for one.
    pub(super) key: Option<Arc<Key>>,
    /// What it presented is one of the gateway's keys or may be one, if perhaps one that opens nothing any more.
    pub(super) consumed: bool,
    /// Nobody could tell whether what it presented opens anything.
    pub(super) unsure: bool,
    pub(super) alarm: Option<Arc<Alarm>>,
    /// How TLS began on its connection, if it is spoken.
    pub(super) handshake: Option<Arc<Handshake>>,
    /// The alarm only minds limits below this; others are somebody else's timers.
    pub(super) alarm_below: Duration,

    // What it wants (admit.rs, body.rs).
    pub(super) body: Body,
    pub(super) peek: Option<Peek>,
    pub(super) body_permit: Option<BodyPermit>,
    /// Bytes of a body that passes unread, so far.
    pub(super) streamed: u64,
    /// A stream without an end of its own (gRPC, WebSocket): its length is not limited.
    pub(super) unbounded: bool,
    /// What plugins changed of heads.
    pub(super) edits: plugin::Edits,
    /// What its body says to policies that read prompts, once one did.
    pub(super) prompt: Option<(usize, Prompt)>,
    /// The chains of the service and the rule, until they have run.
    pub(super) chains: [Option<Arc<Chain>>; 2],
    /// What it holds of limits.
    pub(super) leases: plugin::Leases,
    /// The plugins it has passed, if any.
    pub(super) plugins: Option<Box<Running>>,
    /// The model asked for, where it does not stand in the body.
    pub(super) model: Option<Arc<str>>,
    /// The rule it goes by.
    pub(super) rule: Option<Arc<str>>,
    pub(super) target_path: Option<String>,
    pub(super) timeouts: model::Timeouts,
    pub(super) preserve_host: bool,
    /// The service that serves, or tries to.
    pub(super) offer: Option<Arc<Offer>>,
    /// The service that was asked for.
    pub(super) first: Option<Arc<Offer>>,
    pub(super) rule_fallback: Vec<usize>,
    /// How much of the chain of fallbacks is spent.
    pub(super) passed: usize,
    /// How it is tried again, once it is known where it goes.
    pub(super) retry: Option<Arc<model::Retry>>,
    /// The request can be sent again: its body is here, or it has none.
    pub(super) replayable: bool,
    /// The path is one whose streams report usage when asked to.
    pub(super) reports_usage: bool,
    /// What the meter is at the beginning of each attempt.
    pub(super) plan: Meter,
    pub(super) in_flight: Option<InFlight>,
    /// How long the client took to send its body.
    pub(super) body_wait: Duration,

    // How it goes (peer.rs, forward.rs, response.rs, stream.rs).
    pub(super) attempts: u32,
    /// Retries at the present service, and the targets that failed there.
    pub(super) retries: u32,
    pub(super) tried: Vec<usize>,
    pub(super) attempt: Option<Attempt>,
    /// How it is split between targets, where the upstream does that.
    pub(super) split: Option<Box<Split>>,
    pub(super) failure: Option<health::Failure>,
    pub(super) rescue: Option<Rescue>,
    /// How long the last 429 said to wait.
    pub(super) retry_after: Option<Duration>,
    /// Leave of the 429 queue to send.
    pub(super) turn: Option<balance::Turn>,
    /// Where it waits.
    pub(super) aside: Aside,
    pub(super) last: Option<LastAnswer>,
    pub(super) asked: Option<Instant>,
    pub(super) first_byte: Option<Instant>,
    pub(super) last_chunk: Option<Instant>,
    pub(super) meter: Meter,
    pub(super) event_stream: bool,

    // How it ended (reply.rs, account.rs).
    pub(super) status: u16,
    pub(super) refusal: Option<Rejection>,
    pub(super) rung: Option<Deadline>,
    pub(super) client_left: bool,
    pub(super) error_code: Option<&'static str>,
    /// What broke, in words for the operator.
    pub(super) cause: Option<String>,
    pub(super) served_by: Option<Arc<str>>,
    /// What it cost, in millionths, if anybody has prices.
    pub(super) cost: Option<u64>,
}

/// How `fail_to_proxy` may still serve what the main road gave up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rescue {
    /// Wait in the service's 429 queue first.
    Wait,
    /// Go on to the next service.
    FallBack,
}

/// One try at one target.
pub(super) struct Attempt {
    /// Index among the upstream's targets.
    pub(super) target: usize,
    /// Counts the request at the target until it is dropped.
    pub(super) guard: balance::Guard,
    /// Hears how it goes.
    pub(super) ticket: health::Ticket,
    pub(super) asked: Instant,
}

/// A request's body, as far as it was read.
#[derive(Debug, Default)]
pub(super) enum Body {
    /// The request has none, or it passes unread.
    #[default]
    Unread,
    /// Read whole at once: Pingora's own road can carry it.
    Short {
        /// As it came.
        original: Bytes,
        /// As it goes to the service: with the alias and `include_usage` spliced in.
        outgoing: Bytes,
    },
    /// Read whole, for the exchange over our own connector.
    Long {
        /// As it came.
        pieces: Vec<Bytes>,
        /// Their length.
        bytes: usize,
        /// What is spliced in on the way out.
        edits: Edits,
    },
}

impl Body {
    /// Whether it was read, so that it can be sent again.
    pub(super) fn is_whole(&self) -> bool {
        !matches!(self, Body::Unread)
    }

    /// Bytes read.
    pub(super) fn len(&self) -> usize {
        match self {
            Body::Unread => 0,
            Body::Short { original, .. } => original.len(),
            Body::Long { bytes, .. } => *bytes,
        }
    }

    /// Bytes to be sent, if it was read.
    pub(super) fn outgoing_len(&self) -> Option<usize> {
        match self {
            Body::Unread => None,
            Body::Short { outgoing, .. } => Some(outgoing.len()),
            Body::Long { bytes, edits, .. } => Some(edits.edited_len(*bytes)),
        }
    }

    /// Puts edits into the body as it is sent.
    pub(super) fn splice(&mut self, wanted: Edits) {
        match self {
            Body::Unread => {}
            Body::Short { original, outgoing } => *outgoing = splice(original, &wanted),
            Body::Long { edits, .. } => *edits = wanted,
        }
    }

    /// The pieces to send, none of them copied.
    pub(super) fn outgoing(&self) -> Vec<Bytes> {
        match self {
            Body::Unread => Vec::new(),
            Body::Short { outgoing, .. } => vec![outgoing.clone()],
            Body::Long { pieces, edits, .. } if edits.is_empty() => pieces.clone(),
            Body::Long { pieces, edits, .. } => {
                let mut offset = 0;
                let mut out = Vec::with_capacity(pieces.len() + 4);
                for piece in pieces {
                    out.extend(edits.pieces(piece, offset).filter(|part| !part.is_empty()));
                    offset += piece.len();
                }
                out
            }
        }
    }
}

/// Counts a request as being served by its service.
pub(super) struct InFlight(IntGauge);

impl InFlight {
    pub(super) fn hold(gauge: &IntGauge) -> InFlight {
        gauge.inc();
        InFlight(gauge.clone())
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// The model asked for: in the body, or elsewhere.
pub(super) fn asked_model<'m>(
    peek: Option<&'m Peek>,
    elsewhere: Option<&'m Arc<str>>,
) -> Option<&'m Arc<str>> {
    let in_body = peek.and_then(|peek| peek.model.as_ref());
    in_body.map(|model| &model.value).or(elsewhere)
}

impl Exchange {
    /// What connections to targets of its service take along, and who is believed on them.
    pub(super) fn credentials(&self) -> Option<&Arc<Credentials>> {
        self.offer.as_ref()?.service.upstream.credentials.as_ref()
    }

    pub(super) fn new(account: Arc<Account>) -> Exchange {
        account.open.fetch_add(1, Ordering::AcqRel);
        Exchange {
            account,
            accounted: false,
            started: Instant::now(),
            at: SystemTime::now(),
            bounds: None,
            gateway: None,
            host_service: None,
            request_id: RequestId::default(),
            method: String::new(),
            path: String::new(),
            peer: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            client: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            trusted_peer: false,
            grpc: false,
            key: None,
            consumed: false,
            unsure: false,
            alarm: None,
            handshake: None,
            alarm_below: Duration::MAX,
            body: Body::Unread,
            peek: None,
            body_permit: None,
            streamed: 0,
            unbounded: false,
            edits: plugin::Edits::default(),
            prompt: None,
            chains: [None, None],
            leases: plugin::Leases::default(),
            plugins: None,
            model: None,
            rule: None,
            target_path: None,
            timeouts: model::Timeouts::default(),
            preserve_host: false,
            offer: None,
            first: None,
            rule_fallback: Vec::new(),
            passed: 0,
            retry: None,
            replayable: false,
            reports_usage: false,
            plan: Meter::None,
            in_flight: None,
            body_wait: Duration::ZERO,
            attempts: 0,
            retries: 0,
            tried: Vec::new(),
            attempt: None,
            split: None,
            failure: None,
            rescue: None,
            retry_after: None,
            turn: None,
            aside: Aside::default(),
            last: None,
            asked: None,
            first_byte: None,
            last_chunk: None,
            meter: Meter::None,
            event_stream: false,
            status: 0,
            refusal: None,
            rung: None,
            client_left: false,
            error_code: None,
            cause: None,
            served_by: None,
            cost: None,
        }
    }

    /// When waiting for this must end, and which limit that is; the limit for the whole always holds.
    pub(super) fn deadline(&self, now: Instant, cause: Deadline) -> (Instant, Deadline) {
        const FAR: Duration = Duration::from_secs(86_400 * 365);
        let at = now + self.limit(cause).min(FAR);
        match self.timeouts.total.map(|total| self.started + total) {
            Some(end) if end < at => (end, Deadline::Total),
            _ => (at, cause),
        }
    }

    /// This, or the end of the whole if that is sooner.
    pub(super) fn latest(&self, at: Instant) -> Instant {
        match self.timeouts.total.map(|total| self.started + total) {
            Some(end) => end.min(at),
            None => at,
        }
    }

    fn limit(&self, cause: Deadline) -> Duration {
        match cause {
            Deadline::FirstByte => self.timeouts.first_byte,
            Deadline::Idle | Deadline::Total => self.timeouts.idle,
        }
    }

    /// Moves the connection's deadline.
    pub(super) fn set_deadline(&self, now: Instant, cause: Deadline) {
        let Some(alarm) = &self.alarm else { return };
        if self.alarm_below.is_zero() {
            return;
        }
        match self.deadline(now, cause) {
            (_, cause) if cause != Deadline::Total && self.limit(cause) >= self.alarm_below => {
                alarm.clear()
            }
            (at, cause) => alarm.set(at, cause),
        }
    }

    /// Nothing more belongs to the request: what the client sends now is its next.
    pub(super) fn request_is_read(&self) {
        if let Some(alarm) = &self.alarm {
            alarm.set_request_read(true);
        }
    }

    /// From here on deadlines are timers of the code that waits.
    pub(super) fn silence_alarm(&mut self) {
        self.clear_deadline();
        self.alarm_below = Duration::ZERO;
    }

    pub(super) fn clear_deadline(&self) {
        if let Some(alarm) = &self.alarm {
            alarm.clear();
        }
    }

    /// Remembers why the exchange was refused, for the log and the metrics.
    pub(super) fn refused(&mut self, rejection: &Rejection) {
        self.status = rejection.status().as_u16();
        // What a plugin answered well (a preflight, something from a cache) is no refusal.
        self.error_code = (self.status >= 400).then(|| rejection.code());
    }

    /// Counts bytes of a body that passes unread, which is held to the same limit.
    pub(super) fn streamed(&mut self, bytes: usize) -> pingora_core::Result<()> {
        self.streamed += bytes as u64;
        let limit = self
            .bounds
            .as_ref()
            .map_or(u64::MAX, |bounds| bounds.max_body);
        if self.streamed <= limit || self.unbounded {
            return Ok(());
        }
        self.refusal = Some(Rejection::TooLarge(limit));
        Err(pingora_core::Error::explain(
            pingora_core::ErrorType::InvalidHTTPHeader,
            "body too large",
        )
        .into_down())
    }

    /// The model asked for, wherever that stood.
    pub(super) fn asked_model(&self) -> Option<&Arc<str>> {
        asked_model(self.peek.as_ref(), self.model.as_ref())
    }

    /// The alias to send instead of the client's model name.
    pub(super) fn alias(&self) -> Option<&str> {
        self.offer.as_ref()?.service.alias.as_deref()
    }

    /// The target of the last attempt, for the log.
    pub(super) fn attempt_label(&self) -> &str {
        self.served_by.as_deref().unwrap_or_default()
    }

    /// The status for the books: what the client closed before it was answered is told as 499, after nginx.
    pub(super) fn final_status(&self) -> u16 {
        match self.client_left || self.status == 0 {
            true => CLIENT_CLOSED,
            false => self.status,
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if !self.accounted {
            let account = self.account.clone();
            account.settle(self);
        }
    }
}
