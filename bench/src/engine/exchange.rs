//! One request from its head to the end of its answer, whatever the protocol.
//!
//! Decides which faults apply, reads the body and answers, or lets `generate` answer. Holds the
//! `Ticket` that keeps the gauges true however the exchange ends.

use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::time::sleep;

use super::clock;
use super::control;
use super::counters::{Endpoint, Ticket};
use super::faults::{Faults, RetryAfter};
use super::metrics;
use super::peer::{End, Peer, ReplyHead, Request};
use super::reply;
use super::shared::RecordedRequest;
use super::text::{hex, percent_decode};
use super::worker::Worker;

/// Serves one request.
pub(super) async fn serve(
    worker: &Worker,
    request: &Request,
    peer: &mut Peer<'_>,
) -> Result<(), End> {
    let endpoint = Endpoint::of(&request.path);
    worker.counters.count_path(endpoint);
    if endpoint == Endpoint::Control {
        return control::serve(&worker.shared, request, peer).await;
    }
    let ticket = endpoint.is_work().then(|| Ticket::start(&worker.counters));
    let mut exchange = Exchange {
        worker,
        request,
        endpoint,
        ticket,
        faults: Faults::default(),
    };
    let result = exchange.run(peer).await;
    if let Some(ticket) = exchange.ticket.take() {
        match result {
            Ok(()) | Err(End::Malformed) => ticket.finish(),
            Err(End::Cut(_) | End::Garbage) => ticket.break_off(),
            Err(End::Gone) => drop(ticket),
        }
    }
    result
}

/// A request that is being served.
pub(super) struct Exchange<'x> {
    pub(super) worker: &'x Worker,
    pub(super) request: &'x Request,
    pub(super) endpoint: Endpoint,
    pub(super) ticket: Option<Ticket>,
    pub(super) faults: Faults,
}

/// A request body, or what is known of it.
#[derive(Default)]
pub(super) struct Body {
    /// Empty when the path only wants the digest.
    pub(super) text: Bytes,
    length: u64,
    sha256: String,
}

impl Exchange<'_> {
    async fn run(&mut self, peer: &mut Peer<'_>) -> Result<(), End> {
        let asked = match self
            .request
            .header("x-sim")
            .map(|text| text.parse::<Faults>())
        {
            None => Faults::default(),
            Some(Ok(faults)) => faults,
            Some(Err(message)) => return self.refuse(peer, 400, &message, Some("x-sim")).await,
        };
        self.faults = match self.worker.shared.plan.take(&self.request.path) {
            Some(planned) => asked.or(planned),
            None => asked,
        };
        if let Some(status) = self.faults.early {
            return self.fail(peer, status, ReplyHead::json(status)).await;
        }
        let Some(body) = self.read_body(peer).await? else {
            return self
                .refuse(peer, 413, "The request body is too large.", None)
                .await;
        };
        if let Some(delay) = self.faults.delay {
            peer.until(sleep(delay)).await?;
        }
        if let Some(cut) = self.faults.drop {
            return Err(End::Cut(cut));
        }
        if let Some(status) = self.faults.status.filter(|status| *status != 200) {
            let head = self.head(ReplyHead::json(status), &body);
            return self.fail(peer, status, head).await;
        }
        self.answer(peer, &body).await
    }

    async fn answer(&mut self, peer: &mut Peer<'_>, body: &Body) -> Result<(), End> {
        let shared = &self.worker.shared;
        let ok = |exchange: &Self| exchange.head(ReplyHead::json(200), body);
        if self.faults.echo {
            return peer.full(&ok(self), self.echo(body)).await;
        }
        let reads = matches!(self.request.method.as_str(), "GET" | "HEAD");
        match self.endpoint {
            Endpoint::Hash => peer.full(&ok(self), self.echo(body)).await,
            Endpoint::Health | Endpoint::Metrics | Endpoint::Models if !reads => {
                self.refuse_method(peer, "GET").await
            }
            Endpoint::Health => peer.full(&ok(self), Vec::new()).await,
            Endpoint::Metrics => {
                let content_type = "text/plain; version=0.0.4; charset=utf-8";
                let head = ReplyHead {
                    content_type,
                    ..ok(self)
                };
                peer.full(&head, metrics::render(shared).into_bytes()).await
            }
            Endpoint::Models => {
                let one = self
                    .request
                    .route()
                    .strip_prefix("/v1/models/")
                    .map(percent_decode);
                match reply::models(&shared.config, one.as_deref(), clock::unix_seconds()) {
                    Some(models) => peer.full(&ok(self), models).await,
                    None => {
                        let name = one.unwrap_or_default();
                        let message = format!("The model `{name}` does not exist.");
                        self.refuse(peer, 404, &message, Some("model")).await
                    }
                }
            }
            Endpoint::Chat | Endpoint::Completions | Endpoint::Responses | Endpoint::Embeddings => {
                if self.request.method != "POST" {
                    return self.refuse_method(peer, "POST").await;
                }
                self.call(peer, body).await
            }
            Endpoint::Control | Endpoint::Unknown => {
                peer.full(&ReplyHead::json(404), br#"{"detail":"Not Found"}"#.to_vec())
                    .await
            }
        }
    }

    async fn read_body(&self, peer: &mut Peer<'_>) -> Result<Option<Body>, End> {
        let shared = &self.worker.shared;
        let echoes = self.endpoint == Endpoint::Hash || self.faults.echo;
        let digests = echoes || self.faults.hash || shared.records();
        let mut body = Body::default();
        let mut hasher = Sha256::new();
        if echoes || self.faults.slow_read.is_some() {
            let mut text = Vec::new();
            // Twenty pieces a second when slow.
            let max = self
                .faults
                .slow_read
                .map_or(usize::MAX, |rate| (rate as usize / 20).max(1));
            while let Some(piece) = peer.piece(max).await? {
                body.length += piece.len() as u64;
                hasher.update(&piece);
                if !echoes {
                    text.extend_from_slice(&piece);
                    if text.len() > shared.config.max_body {
                        return Ok(None);
                    }
                }
                if let Some(rate) = self.faults.slow_read {
                    sleep(Duration::from_secs_f64(piece.len() as f64 / rate as f64)).await;
                }
            }
            body.text = text.into();
        } else {
            let Some(text) = peer.whole(shared.config.max_body).await? else {
                return Ok(None);
            };
            body.length = text.len() as u64;
            if digests {
                hasher.update(&text);
            }
            body.text = text;
        }
        if digests {
            body.sha256 = hex(&hasher.finalize());
        }
        if shared.records() {
            shared.push_record(RecordedRequest {
                time: clock::unix_nanos(),
                protocol: self.request.protocol,
                method: self.request.method.clone(),
                path: self.request.path.clone(),
                headers: self.request.headers.clone(),
                body_bytes: body.length,
                body_sha256: body.sha256.clone(),
            });
        }
        Ok(Some(body))
    }

    fn echo(&self, body: &Body) -> Vec<u8> {
        let mut headers = serde_json::Map::new();
        for (name, _) in &self.request.headers {
            let name = name.to_ascii_lowercase();
            let value = self.request.header(&name);
            headers.insert(name, value.into());
        }
        let answer = json!({
            "bytes": body.length,
            "sha256": body.sha256,
            "headers": headers,
            "path": self.request.path,
            "method": self.request.method,
            "protocol": self.request.protocol,
        });
        answer.to_string().into_bytes()
    }

    /// Adds what `x-sim: hash` asks for.
    pub(super) fn head(&self, head: ReplyHead, body: &Body) -> ReplyHead {
        if !self.faults.hash {
            return head;
        }
        head.with("x-sim-body-sha256", body.sha256.as_str())
            .with("x-sim-body-bytes", body.length.to_string())
    }

    /// The answer a fault asks for.
    async fn fail(&self, peer: &mut Peer<'_>, status: u16, head: ReplyHead) -> Result<(), End> {
        let head = match &self.faults.retry_after {
            None => head,
            Some(RetryAfter::Seconds(seconds)) => head.with("retry-after", seconds.to_string()),
            Some(RetryAfter::Text(text)) => head.with("retry-after", text.as_str()),
            Some(RetryAfter::Date(seconds)) => {
                let date = clock::http_date(clock::unix_seconds().saturating_add(*seconds));
                head.with("retry-after", date)
            }
        };
        let body = match &self.faults.body {
            Some(body) => body.clone().into_bytes(),
            None => reply::error(status, "Simulated failure.", None),
        };
        peer.full(&head, body).await
    }

    pub(super) async fn refuse(
        &self,
        peer: &mut Peer<'_>,
        status: u16,
        message: &str,
        param: Option<&str>,
    ) -> Result<(), End> {
        peer.full(
            &ReplyHead::json(status),
            reply::error(status, message, param),
        )
        .await
    }

    async fn refuse_method(&self, peer: &mut Peer<'_>, allowed: &str) -> Result<(), End> {
        let head = ReplyHead::json(405).with("allow", allowed);
        peer.full(&head, br#"{"detail":"Method Not Allowed"}"#.to_vec())
            .await
    }
}
