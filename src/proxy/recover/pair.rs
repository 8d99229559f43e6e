//! Two targets for one request: prefill first and decode then, or both at once.
//!
//! Decode goes the way of every request, and its answer is the client's. Prefill goes the same way where decode waits for it; where both run at the
//! same time it is a task of its own, which ends with the exchange: to close its connection is how an engine is told to give up, and frees what it
//! has computed. Nothing of decode's answer reaches the client before its first byte is there, so that until then a new pair can be tried.

use std::pin::pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::Method;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorSource, ErrorType, Result};
use pingora_http::RequestHeader;
use pingora_proxy::Session;
use prometheus::Histogram;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::pool::{Pool, Upstream};
use super::{Answer, Road, Service, failure_of, fitted, head_for, in_time, send, while_present};
use crate::health::Ticket;
use crate::proxy::alarm::Deadline;
use crate::proxy::disaggregate::{self, BAD_ANSWER, Part};
use crate::proxy::exchange::{Attempt, Exchange};
use crate::proxy::reply::Rejection;
use crate::proxy::{peer, verdict};
use crate::snapshot::Target;

/// A prefill's answer is one token and where its KV is; what is longer is something else.
const LONGEST_ANSWER: usize = 16 << 20;
/// What a bootstrap server says is shorter.
const LONGEST_WORD: usize = 1 << 20;

/// A decode fails of what its prefill fails of, and may say so first: the prefill has so long to say it, too, and is then the one to be judged.
const SO_SOON: Duration = Duration::from_millis(20);

/// What asking for a part came to.
pub(super) enum Asked {
    /// An answer, to be judged or passed on.
    Answer(Answer),
    /// There is nobody to ask.
    Came(Service),
}

/// A prefill that runs beside its decode; it ends when this is dropped.
pub(in crate::proxy) struct Prefilling {
    task: JoinHandle<()>,
    ended: oneshot::Receiver<End>,
    /// What it ended with, once that is known.
    end: Option<End>,
    is_open: bool,
}

/// How it ended.
enum End {
    /// Well.
    Done(usize, Ticket),
    /// With an answer that says otherwise.
    Answered(Attempt, Answer),
    /// With none.
    Broke(Attempt, Box<Error>),
}

impl Prefilling {
    /// Waits until it has ended; never returns where it ended well. Cancel safe.
    async fn failed(&mut self) {
        if self.is_open {
            let end = (&mut self.ended).await;
            self.is_open = false;
            self.end = end.ok();
        }
        if matches!(self.end, Some(End::Done(..)) | None) {
            std::future::pending::<()>().await;
        }
    }

    /// What it ended with, if it has.
    fn end(&mut self) -> Option<End> {
        if self.is_open {
            self.end = self.ended.try_recv().ok();
        }
        self.end.take()
    }
}

impl Drop for Prefilling {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A prefill to be run.
struct Leg {
    pool: Arc<Pool>,
    peer: Box<HttpPeer>,
    credentials: Option<Arc<crate::tls::Credentials>>,
    head: RequestHeader,
    body: Vec<Bytes>,
    attempt: Attempt,
    first_byte: Instant,
    idle: Duration,
    took: Arc<OnceLock<Duration>>,
    seconds: Option<Histogram>,
}

impl Road {
    /// Asks the target of the attempt under way for what it was picked for, and a second one if the request is split between them.
    pub(super) async fn ask_part(
        &self,
        session: &mut Session,
        x: &mut Exchange,
        peer: Box<HttpPeer>,
    ) -> Result<Asked> {
        match disaggregate::part(x) {
            Some(Part::Prefill) if disaggregate::is_staged(x) => {
                Box::pin(self.in_turn(session, x, peer)).await
            }
            Some(Part::Prefill) => Box::pin(self.at_once(session, x, peer)).await,
            _ => self.ask(session, x, peer).await.map(Asked::Answer),
        }
    }

    /// Prefill, and when it has answered, decode.
    async fn in_turn(
        &self,
        session: &mut Session,
        x: &mut Exchange,
        peer: Box<HttpPeer>,
    ) -> Result<Asked> {
        let began = Instant::now();
        let prefill = x.attempt.as_ref().map_or(0, |attempt| attempt.target);
        let took = disaggregate::begin_prefill(x);
        let leg = disaggregate::first(x, prefill)?;
        disaggregate::send(x, leg);
        let mut answer = self.ask(session, x, peer).await?;
        if !answer.head.status.is_success() {
            // What is wrong with the request is the client's to know; the rest is judged.
            return Ok(Asked::Answer(answer));
        }
        let body = read_whole(session, x, &mut answer.upstream, LONGEST_ANSWER).await?;
        if answer.upstream.response_done() {
            self.pool
                .keep(answer.upstream, &answer.peer, Instant::now())
                .await;
        }
        let decode = disaggregate::second(x, prefill, &body)?;
        verdict::praise(x, Instant::now());
        let _ = took.set(began.elapsed());
        observe(x, began.elapsed());
        match decode {
            Some(leg) => {
                disaggregate::want_decode(x, prefill);
                match self.next_of_attempt(session, x).await? {
                    Err(came) => Ok(Asked::Came(came)),
                    Ok(peer) => {
                        disaggregate::send(x, leg);
                        self.decode(session, x, peer, None).await
                    }
                }
            }
            None if x.serve_whole("nothing") => match self.next_of_attempt(session, x).await? {
                Err(came) => Ok(Asked::Came(came)),
                Ok(peer) => self.ask(session, x, peer).await.map(Asked::Answer),
            },
            None => Err(Error::explain(BAD_ANSWER, "prefill handed nothing over").into_up()),
        }
    }

    /// Prefill and decode at the same time.
    async fn at_once(
        &self,
        session: &mut Session,
        x: &mut Exchange,
        prefill_peer: Box<HttpPeer>,
    ) -> Result<Asked> {
        let prefill = x.attempt.as_ref().map_or(0, |attempt| attempt.target);
        let took = disaggregate::begin_prefill(x);
        let rank = self.rank(session, x).await?;
        let legs = disaggregate::both(x, prefill, rank)?;
        let head = match legs.prefill {
            None => None,
            Some(leg) => {
                disaggregate::send(x, leg);
                let tls = x.handshake.is_some();
                Some((head_for(x, session.req_header(), tls)?, x.outgoing()))
            }
        };
        let Some(attempt) = x.attempt.take() else {
            return Err(x.refuse(Rejection::NoHealthyUpstream));
        };
        disaggregate::want_decode(x, prefill);
        let peer = match self.next_of_attempt(session, x).await? {
            Err(came) => return Ok(Asked::Came(came)),
            Ok(peer) => peer,
        };
        disaggregate::send(x, legs.decode);
        let running = match head {
            None => {
                disaggregate::keep(x, attempt);
                None
            }
            Some((head, body)) => {
                let (first_byte, _) = x.deadline(Instant::now(), Deadline::FirstByte);
                let leg = Leg {
                    pool: self.pool.clone(),
                    peer: prefill_peer,
                    credentials: x.credentials().cloned(),
                    head,
                    body,
                    attempt,
                    first_byte,
                    idle: x.timeouts.idle,
                    took,
                    seconds: { x.offer.as_ref() }.map(|offer| offer.metrics.legs()[0].clone()),
                };
                Some(leg.start())
            }
        };
        let asked = self.decode(session, x, peer, running).await;
        if !matches!(&asked, Ok(Asked::Answer(answer)) if answer.head.status.is_success())
            && let Some(target) = target_at(x, prefill)
        {
            target.ranks.forget();
        }
        asked
    }

    /// Asks for the tokens, and waits for the first byte of them, for as long as the prefill beside it does not fail.
    async fn decode(
        &self,
        session: &mut Session,
        x: &mut Exchange,
        peer: Box<HttpPeer>,
        mut running: Option<Prefilling>,
    ) -> Result<Asked> {
        let began = Instant::now();
        let asking = async {
            let mut answer = self.ask(session, x, peer).await?;
            if answer.head.status.is_success() {
                answer.first = Some(first_chunk(session, x, &mut answer.upstream).await?);
                answer.at = Instant::now();
            }
            Ok::<_, Box<Error>>(answer)
        };
        let answer = {
            let mut asking = Box::pin(asking);
            tokio::select! {
                biased;
                () = failed(&mut running) => None,
                answer = &mut asking => Some(answer),
            }
        };
        let is_cause = match &answer {
            None => true,
            Some(Ok(answer)) if failure_of(&answer.head).is_none() => false,
            Some(Err(error)) if *error.esource() == ErrorSource::Downstream => false,
            Some(_) if running.is_none() => false,
            Some(_) => timeout(SO_SOON, failed(&mut running)).await.is_ok(),
        };
        let answer = match answer {
            Some(answer) if !is_cause => answer?,
            _ => {
                x.clear_deadline();
                return self.prefill_failed(x, running);
            }
        };
        if answer.first.is_some() {
            disaggregate::decoding(x, began.elapsed());
            if let Some(split) = &mut x.split {
                split.running = running;
            }
        }
        Ok(Asked::Answer(answer))
    }

    /// The prefill failed beside its decode: it is the one to be judged.
    fn prefill_failed(&self, x: &mut Exchange, running: Option<Prefilling>) -> Result<Asked> {
        let end = running.and_then(|mut running| running.end());
        match end {
            Some(End::Answered(attempt, answer)) => {
                disaggregate::is_prefill(x, attempt);
                Ok(Asked::Answer(answer))
            }
            Some(End::Broke(attempt, error)) => {
                disaggregate::is_prefill(x, attempt);
                Err(error)
            }
            Some(End::Done(..)) | None => {
                Err(Error::explain(ErrorType::ConnectionClosed, "prefill was given up").into_up())
            }
        }
    }

    /// The second target of an attempt, or what the service comes to without one.
    async fn next_of_attempt(
        &self,
        session: &mut Session,
        x: &mut Exchange,
    ) -> Result<Result<Box<HttpPeer>, Service>> {
        match disaggregate::again(session, x).await {
            Ok(peer) => Ok(Ok(peer)),
            Err(error) => super::without_target(x, error).map(Err),
        }
    }

    /// The engine behind the target that prefills, where the one that decodes must be told it.
    async fn rank(&self, session: &mut Session, x: &mut Exchange) -> Result<Option<(u32, String)>> {
        let Some((upstream, index)) = peer::target(x) else {
            return Ok(None);
        };
        let wanted = disaggregate::wants_rank(&upstream);
        let (true, Some(target)) = (wanted, upstream.targets.get(index)) else {
            return Ok(None);
        };
        if let Some(rank) = target.ranks.next(Instant::now().into_std()) {
            return Ok(Some(rank));
        }
        let peer = bootstrap(x, target).map_err(|rejection| x.refuse(rejection))?;
        let word = self.word_of(x, &peer, target);
        let word = while_present(session, pin!(word)).await??;
        let engines = disaggregate::ranks(&word);
        let unknown =
            || Error::explain(BAD_ANSWER, "the bootstrap server names no engines").into_up();
        target
            .ranks
            .learn(engines.ok_or_else(unknown)?, Instant::now().into_std());
        let rank = target.ranks.next(Instant::now().into_std());
        rank.map(Some).ok_or_else(unknown)
    }

    /// What a bootstrap server says.
    async fn word_of(&self, x: &Exchange, peer: &HttpPeer, target: &Target) -> Result<Bytes> {
        let (until, _) = x.deadline(Instant::now(), Deadline::FirstByte);
        let asked = async {
            let (mut upstream, _) = self.pool.take(peer, None, Instant::now()).await?;
            let mut head = RequestHeader::build(Method::GET, b"/query", None)?;
            head.insert_header(http::header::HOST, target.url.host.to_string())?;
            let answer = send(&mut upstream, Box::new(head), Vec::new()).await?;
            let mut word = BytesMut::new();
            while let Some(chunk) = upstream.read_response_body().await? {
                word.extend_from_slice(&chunk);
                if word.len() > LONGEST_WORD {
                    return Error::e_explain(BAD_ANSWER, "the bootstrap server says too much");
                }
            }
            if !answer.status.is_success() {
                return Error::e_explain(BAD_ANSWER, "the bootstrap server refuses to answer");
            }
            if upstream.response_done() {
                self.pool.keep(upstream, peer, Instant::now()).await;
            }
            Ok(word.freeze())
        };
        let late = |_| Error::explain(ErrorType::ReadTimedout, "first_byte");
        let asked = timeout_at(until, asked).await.map_err(late);
        asked.and_then(|word| word).map_err(|error| error.into_up())
    }
}

impl Leg {
    fn start(self) -> Prefilling {
        let (tell, ended) = oneshot::channel();
        let task = tokio::spawn(async move {
            // Whoever does not listen any more has dropped the task, too.
            let _ = tell.send(self.run().await);
        });
        Prefilling {
            task,
            ended,
            end: None,
            is_open: true,
        }
    }

    async fn run(self) -> End {
        let began = Instant::now();
        match self.carry().await {
            Ok(Some(answer)) => End::Answered(self.attempt, answer),
            Err(error) => End::Broke(self.attempt, error.into_up()),
            Ok(None) => {
                let _ = self.took.set(began.elapsed());
                if let Some(seconds) = &self.seconds {
                    seconds.observe(began.elapsed().as_secs_f64());
                }
                let Attempt { target, ticket, .. } = self.attempt;
                End::Done(target, ticket)
            }
        }
    }

    /// Asks, and reads the answer to its end if it is a good one.
    async fn carry(&self) -> Result<Option<Answer>> {
        let late = |_| Error::explain(ErrorType::ReadTimedout, "first_byte");
        let credentials = self.credentials.as_ref();
        let taken = self.pool.take(&self.peer, credentials, Instant::now());
        let (mut upstream, _) = taken.await?;
        upstream.set_write_timeout(self.peer.options.write_timeout);
        let head = fitted(self.head.clone(), &upstream, &self.peer)?;
        let sent = send(&mut upstream, head, self.body.clone());
        let head = timeout_at(self.first_byte, sent).await.map_err(late)??;
        if !head.status.is_success() {
            return Ok(Some(Answer {
                upstream,
                peer: self.peer.clone(),
                head,
                at: Instant::now(),
                first: None,
            }));
        }
        while timeout_at(Instant::now() + self.idle, upstream.read_response_body())
            .await
            .map_err(late)??
            .is_some()
        {}
        if upstream.response_done() {
            self.pool.keep(upstream, &self.peer, Instant::now()).await;
        }
        Ok(None)
    }
}

/// What became of a prefill that ran beside a decode that has ended.
pub(super) fn settle(x: &mut Exchange) {
    let running = x.split.as_mut().and_then(|split| split.running.take());
    if let Some(End::Done(target, mut ticket)) = running.and_then(|mut running| running.end()) {
        verdict::praise_for(x, target, &mut ticket, Instant::now());
    }
}

async fn failed(running: &mut Option<Prefilling>) {
    match running {
        Some(running) => running.failed().await,
        None => std::future::pending().await,
    }
}

/// The first part of an answer's body; empty at its end.
async fn first_chunk(
    session: &mut Session,
    x: &mut Exchange,
    upstream: &mut Upstream,
) -> Result<Option<Bytes>> {
    loop {
        let read = pin!(upstream.read_response_body());
        let read = in_time(session, x, Instant::now(), Deadline::FirstByte, read).await?;
        match read.map_err(|error| error.into_up())? {
            Some(chunk) if chunk.is_empty() => {}
            other => return Ok(other),
        }
    }
}

/// A whole body of at most `longest` bytes.
async fn read_whole(
    session: &mut Session,
    x: &mut Exchange,
    upstream: &mut Upstream,
    longest: usize,
) -> Result<Bytes> {
    let mut body = BytesMut::new();
    loop {
        let read = pin!(upstream.read_response_body());
        let read = in_time(session, x, Instant::now(), Deadline::Idle, read).await?;
        match read.map_err(|error| error.into_up())? {
            None => return Ok(body.freeze()),
            Some(chunk) if body.len() + chunk.len() <= longest => body.extend_from_slice(&chunk),
            Some(_) => {
                let error = Error::explain(BAD_ANSWER, "prefill's answer is too long");
                return Err(error.into_up());
            }
        }
    }
}

fn observe(x: &Exchange, took: Duration) {
    if let Some(offer) = &x.offer {
        let [prefill, _] = offer.metrics.legs();
        prefill.observe(took.as_secs_f64());
    }
}

fn target_at(x: &Exchange, index: usize) -> Option<&Target> {
    x.offer.as_ref()?.service.upstream.targets.get(index)
}

/// Where a target's bootstrap server is.
fn bootstrap(x: &Exchange, target: &Target) -> Result<HttpPeer, Rejection> {
    let address = target.state.address().zip(target.bootstrap_port);
    let (mut address, port) = address.ok_or(Rejection::NoHealthyUpstream)?;
    address.set_port(port);
    let mut peer = HttpPeer::new(address, false, String::new());
    peer.options = peer::of_attempt(x)?.options;
    peer.options.alpn = pingora_core::protocols::ALPN::H1;
    Ok(peer)
}
