//! Listening to what a target's engines tell of their caches: one connection for each rank, kept up in the background.
//!
//! What comes is taken in by the target's [`Kv`]. What was missed is asked for where it is repeated; if it is not, what was told before is of no use and
//! forgotten. Requests never wait for any of this.

mod batch;
mod zmtp;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use self::zmtp::{Peer, Role};
use super::engine::Named;
use super::watch::Watched;
use crate::balance::{Kv, KvSource, Sequence, Signals, Step};
use crate::model::KvEvents;

/// Between two tries to connect.
const AGAIN: Duration = Duration::from_secs(1);
/// For a connection to come about, and for one batch that is repeated.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long nothing may come before it is asked whether something should have.
const LOOK: Duration = Duration::from_secs(2);
/// So many times in a row something should have: the source is silent.
const LOOKS: u32 = 3;
/// The most batches that are taken in when they are repeated; publishers keep 10,000.
const REPEATED: usize = 200_000;

/// Listens to one rank for as long as it is polled.
pub(super) async fn keep_listening(watched: Arc<Watched>, settings: Arc<KvEvents>, rank: u16) {
    let mut listener = Listener {
        watched,
        settings,
        rank,
        sequence: Sequence::default(),
        wrong: false,
    };
    loop {
        let Err(why) = listener.listen().await;
        if why.kind() != io::ErrorKind::WouldBlock {
            listener.kv().set_source(rank.into(), KvSource::Lost);
        }
        listener.warn(&why.to_string());
        sleep(AGAIN.mul_f64(0.9 + rand::random::<f64>() * 0.2)).await;
    }
}

struct Listener {
    watched: Arc<Watched>,
    settings: Arc<KvEvents>,
    rank: u16,
    sequence: Sequence,
    /// Whether it was told that something is wrong, and nothing has been right since.
    wrong: bool,
}

/// There is no end but an error.
enum Never {}

impl Listener {
    fn signals(&self) -> &Signals {
        self.watched.state.signals()
    }

    fn kv(&self) -> &Kv {
        self.signals().kv()
    }

    async fn listen(&mut self) -> Result<Never, io::Error> {
        let (port, _) = self.settings.ports(self.rank);
        let mut peer = self.connect(port, Role::Subscriber).await?;
        peer.subscribe(self.settings.topic.as_bytes()).await?;
        self.sequence.reconnected();
        self.kv().connected(self.rank.into());
        let mut overdue = 0;
        loop {
            match timeout(LOOK, peer.message()).await {
                Ok(message) => {
                    overdue = 0;
                    self.take(&message?).await;
                }
                Err(_) if self.kv().is_overdue() => overdue += 1,
                Err(_) => overdue = 0,
            }
            if overdue >= LOOKS {
                self.kv().set_source(self.rank.into(), KvSource::Silent);
                // The connection may be dead without saying so.
                let told = "nothing is told of prompts that were computed";
                return Err(io::Error::new(io::ErrorKind::WouldBlock, told));
            }
        }
    }

    async fn connect(&self, port: u16, role: Role) -> io::Result<Peer> {
        let nowhere = || io::Error::new(io::ErrorKind::NotFound, "its name does not resolve");
        let host = (self.watched.address)().ok_or_else(nowhere)?.ip();
        let greeted = async {
            let stream = TcpStream::connect(SocketAddr::new(host, port)).await?;
            Peer::greet(stream, role).await
        };
        timeout(PATIENCE, greeted).await?
    }

    /// Takes in a message of the publisher: topic, number, batch.
    async fn take(&mut self, message: &[Bytes]) {
        let Some((number, payload)) = numbered(message) else {
            self.not_understood("a message without a number");
            return;
        };
        let heard = match self.sequence.next(number) {
            Step::Skip => true,
            Step::Apply => false,
            Step::First => self.begin(number).await,
            Step::Anew => {
                log::info!(
                    "the engine of {} began anew, as its events tell",
                    Named(&self.watched)
                );
                self.signals().reset();
                self.begin(number).await
            }
            Step::Missing(from) => {
                let (heard, all) = self.fill(from, number).await;
                if !all {
                    self.kv().missed();
                    log::warn!("{} lost events of its cache", Named(&self.watched));
                }
                heard
            }
        };
        if !heard {
            self.apply(payload);
        }
    }

    /// Begins to hear with the batch of this number. Returns whether that was heard already.
    async fn begin(&mut self, number: u64) -> bool {
        self.kv().forget(self.rank.into(), true);
        match number {
            0 => false,
            _ => self.fill(0, number).await.0,
        }
    }

    /// Asks for the batches from one number up to another to be repeated. Returns whether the last was among them, and whether all before it were.
    async fn fill(&mut self, from: u64, number: u64) -> (bool, bool) {
        let mut reached = Reached {
            next: from,
            all: true,
        };
        if let (_, Some(port)) = self.settings.ports(self.rank)
            && let Err(error) = self.repeat(port, &mut reached).await
        {
            let named = Named(&self.watched);
            log::warn!("{named} does not repeat events of its cache: {error}");
        }
        if reached.next < number {
            self.kv().forget(self.rank.into(), false);
            reached.all = false;
        }
        let heard = reached.next > number;
        if heard {
            self.sequence.repeated(reached.next - 1);
        }
        (heard, reached.all)
    }

    async fn repeat(&mut self, port: u16, reached: &mut Reached) -> io::Result<()> {
        let mut peer = self.connect(port, Role::Dealer).await?;
        peer.send(&[&[], &reached.next.to_be_bytes()]).await?;
        for _ in 0..REPEATED {
            let message = timeout(PATIENCE, peer.message()).await??;
            let Some((number, payload)) = numbered(&message) else {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "no batch"));
            };
            if number == u64::MAX || payload.is_empty() {
                break;
            }
            if number < reached.next {
                continue;
            }
            if number > reached.next {
                // It does not keep them for ever.
                self.kv().forget(self.rank.into(), false);
                reached.all = false;
            }
            self.apply(payload);
            reached.next = number + 1;
        }
        Ok(())
    }

    fn apply(&mut self, payload: &[u8]) {
        let events = match batch::read(payload) {
            Ok(events) => events,
            Err(error) => return self.not_understood(&error.to_string()),
        };
        if self.wrong {
            self.wrong = false;
            log::info!("{} tells events of its cache", Named(&self.watched));
        }
        let signals = self.signals();
        let room = signals.cache_tokens();
        if signals.kv().take(self.rank.into(), &events, room) {
            log::info!("the cache of {} was emptied", Named(&self.watched));
            signals.reset();
        }
    }

    fn not_understood(&mut self, why: &str) {
        self.kv().forget(self.rank.into(), false);
        self.kv().missed();
        self.kv().set_source(self.rank.into(), KvSource::Lost);
        self.warn(&format!("not understood: {why}"));
    }

    /// Once, until something is right again.
    fn warn(&mut self, why: &str) {
        if !std::mem::replace(&mut self.wrong, true) {
            log::warn!(
                "{} tells no events of its cache: {why}",
                Named(&self.watched)
            );
        }
    }
}

/// How far batches that are repeated have come.
struct Reached {
    next: u64,
    /// Whether none was left out.
    all: bool,
}

/// The number of a batch and the batch: the last two parts of a message.
fn numbered(message: &[Bytes]) -> Option<(u64, &[u8])> {
    let [.., number, payload] = message else {
        return None;
    };
    let number = <[u8; 8]>::try_from(&**number).ok()?;
    Some((u64::from_be_bytes(number), payload))
}
