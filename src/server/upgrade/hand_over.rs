//! The old side: everything is offered, and given up only when the new process serves.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::link::Link;
use super::{Offer, Program, Ready, SWITCH, Serving, VERSION};
use crate::control::{Control, UpgradeError, Upgraded};

/// A process that can be taken over from.
pub(in crate::server) struct Old {
    control: Arc<Control>,
    /// The sockets that are accepted on, the admin listener's among them.
    sockets: Mutex<Vec<(SocketAddr, TcpListener)>>,
    /// Exchanges that have not ended.
    open: Arc<AtomicUsize>,
    grace: Duration,
    /// What takes over; `None` if this process cannot be started anew.
    program: Option<Program>,
}

impl Old {
    pub(in crate::server) fn new(
        control: Arc<Control>,
        sockets: Vec<(SocketAddr, TcpListener)>,
        open: Arc<AtomicUsize>,
        grace: Duration,
        program: Option<Program>,
    ) -> Old {
        Old {
            control,
            sockets: Mutex::new(sockets),
            open,
            grace,
            program,
        }
    }

    pub(in crate::server) fn control(&self) -> &Arc<Control> {
        &self.control
    }

    /// Gives up its copies of the sockets: whoever still holds one alone decides how long it listens.
    pub(in crate::server) fn let_go(&self) {
        self.sockets().clear();
    }

    /// Starts the program on disk and lets it take over. Waits for all of that.
    ///
    /// # Errors
    /// Then the new process is gone and this one goes on as before.
    pub(in crate::server) fn replace(&self, patience: Duration) -> Result<Upgraded, UpgradeError> {
        if std::process::id() == 1 {
            let why = "it is the first process of its container, which ends with it; start another container instead";
            return Err(UpgradeError::Unable(why.to_owned()));
        }
        let Some(program) = &self.program else {
            let why = "it was not started by `tollgate run`".to_owned();
            return Err(UpgradeError::Unable(why));
        };
        self.keeping_still(|| {
            let path = program.path();
            log::info!("a new process of {path} is to take over");
            let (new, link) = { program.start() }
                .map_err(|error| format!("{path} cannot be started: {error}"))?;
            self.converse(&link, Some(new.pid()), patience)
                .map_err(|why| format!("the new process {why}; {}", new.end()))
        })
    }

    /// Lets a process that somebody else started take over.
    ///
    /// # Errors
    /// Then this one goes on as before.
    pub(in crate::server) fn give_way(&self, stream: UnixStream) -> Result<Upgraded, UpgradeError> {
        self.keeping_still(|| {
            let blocking = stream.set_nonblocking(false);
            let link = blocking.and_then(|()| Link::new(stream));
            let link = link.map_err(|error| heard(&error, "anything was said"));
            link.and_then(|link| self.converse(&link, None, super::PATIENCE))
                .map_err(|why| format!("the new process {why}"))
        })
    }

    fn keeping_still(
        &self,
        work: impl FnOnce() -> Result<Upgraded, String>,
    ) -> Result<Upgraded, UpgradeError> {
        if !self.control.is_ready() {
            let why = "it is starting or draining".to_owned();
            return Err(UpgradeError::Unable(why));
        }
        if !self.control.keep_still() {
            return Err(UpgradeError::Running);
        }
        let done = work();
        match &done {
            Ok(Upgraded { new, open, .. }) => {
                log::info!("process {new} serves now; {open} open exchanges end in this one");
            }
            Err(_) => self.control.go_on(),
        }
        done.map_err(UpgradeError::Failed)
    }

    /// All of the change. An error says what the new process did, as the rest of a sentence.
    fn converse(
        &self,
        link: &Link,
        pid: Option<u32>,
        patience: Duration,
    ) -> Result<Upgraded, String> {
        self.offer(link, pid.is_some())
            .map_err(|error| heard(&error, "it was offered the sockets"))?;
        let ready = link.receive::<Ready>(patience);
        let (ready, _) = ready.map_err(|error| match is_silence(&error) {
            true => format!("was not ready within {patience:?}"),
            false => heard(&error, "it was ready"),
        })?;
        if pid.is_some_and(|pid| pid != ready.pid) {
            return Err(format!("says that it is process {}", ready.pid));
        }
        if !self.control.is_ready() {
            return Err("came too late: this one has been told to end".to_owned());
        }
        let counted = self.control.counted(self.grace);
        let counted = counted
            .map_err(|error| format!("cannot be told what budgets have counted: {error}"))?;
        let switched = link.send(&counted, &[]);
        let switched = switched.and_then(|()| link.receive::<Serving>(SWITCH));
        switched.map_err(|error| heard(&error, "it served"))?;
        self.control.set_handed_over();
        self.let_go();
        Ok(Upgraded {
            old: std::process::id(),
            new: ready.pid,
            version: ready.version,
            open: self.open.load(Ordering::Acquire),
        })
    }

    fn offer(&self, link: &Link, stderr: bool) -> io::Result<()> {
        let (revision, resources) = self.control.unshared();
        let held = self.sockets();
        let mut along: Vec<BorrowedFd<'_>> = held.iter().map(|(_, held)| held.as_fd()).collect();
        let error = io::stderr();
        if stderr {
            along.push(error.as_fd());
        }
        let offer = Offer {
            version: VERSION,
            sockets: held.iter().map(|(address, _)| *address).collect(),
            stderr,
            revision,
            resources,
        };
        link.send(&offer, &along)
    }

    fn sockets(&self) -> MutexGuard<'_, Vec<(SocketAddr, TcpListener)>> {
        self.sockets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_silence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
    )
}

fn heard(error: &io::Error, what: &str) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof
        | io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset => {
            format!("was gone before {what}")
        }
        _ if is_silence(error) => format!("said nothing more before {what}"),
        _ => format!("could not be spoken to before {what}: {error}"),
    }
}
