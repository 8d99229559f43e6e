//! The model's part of an exchange: queue, prefill, tokens.
//!
//! Turns an API call into an answer at the pace the configuration and the faults ask for. Every
//! wait ends when the client leaves; slot and cache blocks go back by their guards.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep, sleep_until};

use super::call::Call;
use super::clock;
use super::counters::Endpoint;
use super::exchange::{Body, Exchange};
use super::faults::{Cut, Midway};
use super::peer::{End, Peer, ReplyHead};
use super::reply::{self, Facts};
use super::share::Share;
use super::shared::Lease;
use super::stream::{self, Events};
use super::text::Rng;

impl Exchange<'_> {
    /// The API proper.
    pub(super) async fn call(&mut self, peer: &mut Peer<'_>, body: &Body) -> Result<(), End> {
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
        let shares = match self.share(peer, body).await? {
            Ok(shares) => shares,
            Err(refusal) => {
                return self
                    .refuse(peer, refusal.status, &refusal.message, refusal.param)
                    .await;
            }
        };
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
        facts.cached = match shares {
            // Nothing is left to compute.
            Share::Fetched => facts.prompt.saturating_sub(1),
            _ => lease.cached,
        };
        counters
            .prompt_tokens
            .fetch_add(facts.prompt as u64, Relaxed);
        let mut rng = Rng::new(facts.words.fingerprint);
        self.compute_prompt(peer, facts.prompt - facts.cached, &mut rng)
            .await?;
        if let Share::Holds(hold, prefill) = &shares {
            hold.ready();
            if prefill.waits && !peer.until(hold.fetched()).await? {
                return self
                    .refuse(peer, 500, "Nobody fetched what was computed.", None)
                    .await;
            }
        }

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
            if let Share::Holds(hold, prefill) = &shares {
                self.tell_place(hold, prefill, &mut answer);
            }
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
        if let Share::Holds(hold, _) = shares {
            hold.stay();
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
