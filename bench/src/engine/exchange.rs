//! One request from its head to the end of its answer, whatever the protocol.
//!
//! Decides which faults apply, reads the body, waits where a real engine would wait (queue,
//! prefill, first token, between tokens) and answers. Every wait ends when the client leaves, and
//! then slot, cache blocks and gauges are given back by their guards.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, sleep_until};

use super::call::Call;
use super::clock;
use super::control;
use super::counters::{Endpoint, Ticket};
use super::faults::{Cut, Faults, Midway, RetryAfter};
use super::metrics;
use super::peer::{End, Peer, ReplyHead, Request};
use super::reply::{self, Facts};
use super::shared::{Lease, RecordedRequest};
use super::stream::{self, Events};
use super::text::{Rng, hex, percent_decode};
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

struct Exchange<'x> {
    worker: &'x Worker,
    request: &'x Request,
    endpoint: Endpoint,
    ticket: Option<Ticket>,
    faults: Faults,
}

/// A request body, or what is known of it.
#[derive(Default)]
struct Body {
    /// Empty when the path only wants the digest.
    text: Bytes,
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

    /// The API proper.
    async fn call(&mut self, peer: &mut Peer<'_>, body: &Body) -> Result<(), End> {
        let arrived = Instant::now();
        let (shared, counters) = (&self.worker.shared, &self.worker.counters);
        let call = match Call::read(&body.text) {
            Ok(call) => call,
            Err(error) => return self.refuse(peer, 400, &error.to_string(), None).await,
        };
        if let Err(refusal) = reply::admit(&shared.config, self.endpoint, &call) {
            return self
                .refuse(peer, refusal.status, &refusal.message, refusal.param)
                .await;
        }
        let mut facts = Facts::new(&shared.config, &shared.pool, &call, clock::unix_seconds());
        if let Some(tokens) = self.faults.tokens {
            let limit = call.max_tokens().unwrap_or(usize::MAX);
            (facts.tokens, facts.limited) = (tokens.min(limit), tokens > limit);
        }
        facts.words.chunk = self.faults.chunk;
        facts.words.stamp = self.faults.stamp;
        let embeds = self.endpoint == Endpoint::Embeddings;
        let streams = call.streams() && !embeds;
        let late = self.faults.late_head.unwrap_or(shared.config.late_head);
        let stream_head = self.head(
            ReplyHead {
                content_type: "text/event-stream; charset=utf-8",
                ..ReplyHead::json(200)
            },
            body,
        );
        if streams && !late {
            peer.begin(&stream_head)?;
        }

        let slot = self.take_slot(peer).await?;
        counters.queue.observe(arrived.elapsed());
        let prompt = if shared.cache.is_some() {
            call.prompt_text()
        } else {
            String::new()
        };
        let lease = Lease::take(shared, counters, &prompt);
        facts.cached = lease.cached;
        counters
            .prompt_tokens
            .fetch_add(facts.prompt as u64, Relaxed);
        let mut rng = Rng::new(facts.words.fingerprint);
        self.compute_prompt(peer, facts.prompt - facts.cached, &mut rng)
            .await?;

        let words = facts.words;
        let tokens = facts.tokens;
        if embeds {
            let size = shared.config.embedding_size;
            let answer = reply::embeddings(&facts, call.inputs(), size, call.wants_base64());
            self.send_whole(peer, &self.head(ReplyHead::json(200), body), answer)
                .await?;
        } else if streams {
            if late {
                peer.begin(&stream_head)?;
            }
            counters.first_token.observe(arrived.elapsed());
            let events = Events::new(self.endpoint, facts);
            self.send_events(peer, events, tokens, call.wants_usage(), &mut rng)
                .await?;
        } else {
            counters.first_token.observe(arrived.elapsed());
            let itl = self.faults.itl.unwrap_or(shared.config.itl);
            let rest = (1..tokens).map(|_| self.jittered(itl, &mut rng)).sum();
            self.pause(peer, rest).await?;
            counters.generated_tokens.fetch_add(tokens as u64, Relaxed);
            counters
                .between_tokens
                .observe_many(rest, tokens.saturating_sub(1));
            let mut answer = Vec::with_capacity(1024);
            reply::render(self.endpoint, &facts, &mut answer);
            self.send_whole(peer, &self.head(ReplyHead::json(200), body), answer)
                .await?;
        }
        facts.count(counters, arrived.elapsed());
        if shared.cache.is_some() && !embeds {
            let mut conversation = prompt.into_bytes();
            words.append_all(tokens, &mut conversation);
            conversation.push(b'\n');
            lease.remember(&String::from_utf8_lossy(&conversation));
        }
        drop(slot);
        Ok(())
    }

    /// Waits in line for one of the running slots.
    async fn take_slot(
        &mut self,
        peer: &mut Peer<'_>,
    ) -> Result<Option<OwnedSemaphorePermit>, End> {
        let slot = match &self.worker.shared.slots {
            None => None,
            Some(slots) => match Arc::clone(slots).try_acquire_owned() {
                Ok(slot) => Some(slot),
                Err(_) => {
                    if let Some(ticket) = &mut self.ticket {
                        ticket.wait();
                    }
                    peer.flush().await?;
                    let slot = peer.until(Arc::clone(slots).acquire_owned()).await?;
                    Some(slot.map_err(|_| End::Gone)?)
                }
            },
        };
        if let Some(ticket) = &mut self.ticket {
            ticket.run();
        }
        Ok(slot)
    }

    /// Prefill and the time to the first token.
    async fn compute_prompt(
        &self,
        peer: &mut Peer<'_>,
        uncached: usize,
        rng: &mut Rng,
    ) -> Result<(), End> {
        let shared = &self.worker.shared;
        let rate = shared.config.prefill_rate;
        if rate > 0 {
            let started = Instant::now();
            let time = Duration::from_secs_f64(uncached as f64 / rate as f64);
            peer.flush().await?;
            peer.until(async {
                let _turn = shared.prefill.lock().await;
                sleep(time).await;
            })
            .await?;
            self.worker.counters.prefill.observe(started.elapsed());
        }
        let ttft = self.faults.ttft.unwrap_or(shared.config.ttft);
        self.pause(peer, self.jittered(ttft, rng)).await
    }

    async fn send_events(
        &self,
        peer: &mut Peer<'_>,
        mut events: Events<'_>,
        tokens: usize,
        with_usage: bool,
        rng: &mut Rng,
    ) -> Result<(), End> {
        let counters = &self.worker.counters;
        let itl = self.faults.itl.unwrap_or(self.worker.shared.config.itl);
        let mut out = Vec::with_capacity(1024);
        let mut last = Instant::now();
        // Absolute times: a late token does not delay the ones after it.
        let mut due = last;
        let mut opened = false;
        for k in 0..=tokens {
            if let Some(after) = self.faults.after
                && after.chunks == k
            {
                peer.flush().await?;
                match after.action {
                    Midway::Stall => peer.until(std::future::pending::<()>()).await?,
                    Midway::Cut(cut) => return Err(End::Cut(cut)),
                    Midway::BreakFraming => return Err(End::Garbage),
                    Midway::BreakEvent => {
                        out.clear();
                        events.append_malformed(&mut out);
                        peer.chunks(stream::split(&out)).await?;
                    }
                }
            }
            out.clear();
            if !opened {
                opened = true;
                events.append_opening(&mut out);
                if !out.is_empty() {
                    peer.chunks(stream::split(&out)).await?;
                    out.clear();
                }
            }
            if k == tokens {
                break;
            }
            if k > 0 && !itl.is_zero() {
                due += self.jittered(itl, rng);
                peer.until(sleep_until(due)).await?;
            }
            events.append_token(k, &mut out);
            peer.chunks(std::iter::once(&out[..])).await?;
            counters.generated_tokens.fetch_add(1, Relaxed);
            if !itl.is_zero() {
                let now = Instant::now();
                if k > 0 {
                    counters.between_tokens.observe(now - last);
                }
                last = now;
            }
        }
        if itl.is_zero() {
            let between = tokens.saturating_sub(1);
            counters
                .between_tokens
                .observe_many(last.elapsed(), between);
        }
        out.clear();
        events.append_closing(with_usage, &mut out);
        peer.chunks(stream::split(&out)).await?;
        peer.end().await
    }

    /// An answer in one piece, unless a fault strikes in the middle of it.
    async fn send_whole(
        &self,
        peer: &mut Peer<'_>,
        head: &ReplyHead,
        mut answer: Vec<u8>,
    ) -> Result<(), End> {
        let Some(after) = self.faults.after else {
            return peer.full(head, answer).await;
        };
        let length = answer.len();
        let part = if after.chunks == 0 { 0 } else { length / 2 };
        if after.action == Midway::BreakEvent {
            answer.truncate(length / 2);
            return peer.full(head, answer).await;
        }
        answer.truncate(part);
        peer.partial(head, answer, length).await?;
        match after.action {
            Midway::Stall => peer.until(std::future::pending::<()>()).await?,
            Midway::Cut(cut) => return Err(End::Cut(cut)),
            Midway::BreakEvent | Midway::BreakFraming => return Err(End::Cut(Cut::Close)),
        }
        Ok(())
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
    fn head(&self, head: ReplyHead, body: &Body) -> ReplyHead {
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

    async fn refuse(
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

    async fn pause(&self, peer: &mut Peer<'_>, time: Duration) -> Result<(), End> {
        if !time.is_zero() {
            peer.flush().await?;
            peer.until(sleep(time)).await?;
        }
        Ok(())
    }

    fn jittered(&self, time: Duration, rng: &mut Rng) -> Duration {
        let jitter = self.worker.shared.config.jitter;
        if jitter <= 0.0 || time.is_zero() {
            return time;
        }
        time.mul_f64((1.0 + jitter * rng.centred()).max(0.0))
    }
}
