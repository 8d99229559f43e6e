//! What a process is told: SIGTERM drains, SIGINT stops at once, SIGQUIT and the admin API hand over. (SIGHUP is `control/reload.rs`'s.)

use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::server::{ShutdownSignal, ShutdownSignalWatch, UnixShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Mutex, mpsc, oneshot};

use super::upgrade::{Old, PATIENCE, door};
use crate::control::{Asked, UpgradeError, Upgraded};
use crate::telemetry::supervisor;

type Outcome = Result<Upgraded, UpgradeError>;

/// Waits for signals, and hands over on the way.
pub(super) struct Signals {
    old: Arc<Old>,
    asked: Mutex<mpsc::Receiver<Asked>>,
    /// Where processes come in that somebody else started.
    door: Option<UnixListener>,
}

/// Who is to take over.
enum Begin {
    /// The program on disk, if it is ready in this time.
    Program(Duration, Option<oneshot::Sender<Outcome>>),
    /// A process that is there already.
    Other(UnixStream),
}

impl Signals {
    pub(super) fn new(old: Arc<Old>, door: Option<UnixListener>) -> Signals {
        let asked = Mutex::new(old.control().hear_upgrades());
        Signals { old, asked, door }
    }

    /// Lets somebody take over, on a thread that may wait.
    fn begin(
        &self,
        work: impl FnOnce(&Old) -> Outcome + Send + 'static,
    ) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        let old = self.old.clone();
        let work = move || {
            // Whoever stopped waiting is told by the log.
            let _ = sender.send(work(&old));
        };
        if let Err(error) = { std::thread::Builder::new().name("upgrade".to_owned()) }.spawn(work) {
            log::error!("the upgrade cannot begin: {error}");
        }
        receiver
    }

    /// Everything from here on ends in draining; SIGINT still ends it at once.
    fn drain(&self, mut interrupts: Signal) -> ShutdownSignal {
        let control = self.old.control().clone();
        tokio::spawn(async move {
            interrupts.recv().await;
            log::info!("told to stop at once");
            control.settle().await;
            std::process::exit(0);
        });
        ShutdownSignal::GracefulTerminate
    }

    /// Drains, and tells of nothing any more.
    fn terminate(&self, interrupts: Signal) -> ShutdownSignal {
        supervisor::stopping();
        self.old.control().set_ready(false);
        self.old.let_go();
        self.drain(interrupts)
    }

    async fn wait(&self, [mut quits, mut terms, mut ints]: [Signal; 3]) -> ShutdownSignal {
        let mut asked = self.asked.lock().await;
        let door = Door::new(self.door.as_ref());
        let mut under_way: Option<oneshot::Receiver<Outcome>> = None;
        let mut waiting: Option<oneshot::Sender<Outcome>> = None;
        loop {
            let done = async {
                match &mut under_way {
                    Some(outcome) => outcome.await.unwrap_or(Err(UpgradeError::Running)),
                    None => std::future::pending().await,
                }
            };
            let begin = tokio::select! {
                _ = ints.recv() => {
                    supervisor::stopping();
                    return ShutdownSignal::FastShutdown;
                }
                _ = terms.recv() => return self.terminate(ints),
                outcome = done => {
                    under_way = None;
                    let over = outcome.is_ok();
                    if let Err(error) = &outcome {
                        log::error!("{error}");
                    }
                    if let Some(waiting) = waiting.take() {
                        let _ = waiting.send(outcome);
                    }
                    if over {
                        return self.drain(ints);
                    }
                    continue;
                }
                _ = quits.recv() => Begin::Program(PATIENCE, None),
                Some(asked) = asked.recv() => Begin::Program(asked.patience, Some(asked.answer)),
                other = door.visitor() => Begin::Other(other),
            };
            match begin {
                Begin::Program(_, Some(answer)) if under_way.is_some() => {
                    let _ = answer.send(Err(UpgradeError::Running));
                }
                _ if under_way.is_some() => log::warn!("{}", UpgradeError::Running),
                Begin::Program(patience, answer) => {
                    under_way = Some(self.begin(move |old| old.replace(patience)));
                    waiting = answer;
                }
                Begin::Other(stream) => {
                    under_way = Some(self.begin(move |old| old.give_way(stream)));
                }
            }
        }
    }
}

/// Where others come in.
struct Door(Option<tokio::net::UnixListener>);

impl Door {
    fn new(listener: Option<&UnixListener>) -> Door {
        let listener = listener.map(|listener| {
            let copy = listener.try_clone()?;
            tokio::net::UnixListener::from_std(copy)
        });
        match listener.transpose() {
            Ok(listener) => Door(listener),
            Err(error) => {
                log::error!("server.upgrade_socket cannot be listened on: {error}");
                Door(None)
            }
        }
    }

    /// The next who may come in.
    async fn visitor(&self) -> UnixStream {
        loop {
            let Some(door) = &self.0 else {
                return std::future::pending().await;
            };
            let came = door.accept().await.and_then(|(came, _)| came.into_std());
            match came {
                Ok(came) if door::is_ours(&came) => return came,
                Ok(_) => log::warn!("somebody else's process wanted to take over"),
                Err(error) => {
                    log::error!("server.upgrade_socket cannot be listened on: {error}");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let kinds = [
            SignalKind::quit(),
            SignalKind::terminate(),
            SignalKind::interrupt(),
        ];
        let [quits, terms, ints] = kinds.map(signal);
        match (quits, terms, ints) {
            (Ok(quits), Ok(terms), Ok(ints)) => self.wait([quits, terms, ints]).await,
            // It panics with what went wrong.
            _ => UnixShutdownSignalWatch.recv().await,
        }
    }
}
