//! The model's part of an exchange: what is asked, and the tokens of the answer.
//!
//! Turns an API call into an answer at the pace the configuration and the faults ask for. Every
//! wait ends when the client leaves; slot and cache blocks go back by their guards.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::call::Call;
use super::clock;
use super::counters::Endpoint;
use super::exchange::{Body, Exchange};
use super::faults::{Cut, Midway};
use super::pace;
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

        let mut place = self.take_place(peer).await?;
        counters.queue.observe(arrived.elapsed());
        let prompt = if shared.cache.is_some() {
            call.prompt_text()
        } else {
            String::new()
        };
        let mut lease = Lease::take(shared, counters, &prompt);
        if let Share::Fetched = shares {
            // Nothing is left to compute.
            lease.cached = facts.prompt.saturating_sub(1);
        }
        facts.cached = lease.cached;
        counters
            .prompt_tokens
            .fetch_add(facts.prompt as u64, Relaxed);
        let mut rng = Rng::new(facts.words.fingerprint);
        self.compute_prompt(peer, &mut place, &mut lease, facts.prompt, &mut rng)
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
            let itl = self.token_time();
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
        drop(place);
        Ok(())
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
        let mut out = Vec::with_capacity(1024);
        let mut last = Instant::now();
        // Absolute times: a late token does not delay the ones after it.
        let mut due = last;
        let mut opened = false;
        let (mut k, mut timed) = (0, false);
        loop {
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
            let next = self.event_end(k, tokens);
            let itl = self.token_time();
            timed |= !itl.is_zero();
            if k > 0 && !itl.is_zero() {
                due += self.jittered(itl, rng) * (next - k) as u32;
                peer.until(sleep_until(due)).await?;
            }
            events.append_tokens(k..next, &mut out);
            peer.chunks(std::iter::once(&out[..])).await?;
            counters
                .generated_tokens
                .fetch_add((next - k) as u64, Relaxed);
            if timed {
                let now = Instant::now();
                if k > 0 {
                    counters.between_tokens.observe_many(now - last, next - k);
                }
                last = now;
            }
            k = next;
        }
        if !timed {
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

    /// The token behind the last one of the event that begins with token `k`. A fault that is to strike after some
    /// token finds an event that ends there.
    fn event_end(&self, k: usize, tokens: usize) -> usize {
        let interval = match k {
            0 => 1,
            _ => self.worker.shared.config.stream_interval.max(1),
        };
        let fault = self.faults.after.map(|after| after.chunks);
        let end = fault.filter(|at| *at > k).unwrap_or(tokens).min(tokens);
        k.saturating_add(interval).min(end)
    }

    /// Between two tokens: a request may ask for a time, and the batch slows down the engine's own.
    fn token_time(&self) -> Duration {
        let shared = &self.worker.shared;
        self.faults
            .itl
            .unwrap_or_else(|| pace::token(&shared.config, shared.running()))
    }

    pub(super) async fn pause(&self, peer: &mut Peer<'_>, time: Duration) -> Result<(), End> {
        if !time.is_zero() {
            peer.flush().await?;
            peer.until(sleep(time)).await?;
        }
        Ok(())
    }

    pub(super) fn jittered(&self, time: Duration, rng: &mut Rng) -> Duration {
        let jitter = self.worker.shared.config.jitter;
        if jitter <= 0.0 || time.is_zero() {
            return time;
        }
        time.mul_f64((1.0 + jitter * rng.centred()).max(0.0))
    }
}
