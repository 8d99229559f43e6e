//! The program on disk, as a process that is to take over: started, listened to, and ended if it does not get that far.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::VARIABLE;
use super::link::Link;

/// How much of what it says at last is told.
const TOLD: usize = 8 * 1024;
/// How long one that has stopped talking may take to end by itself.
const ENDING: Duration = Duration::from_secs(2);

/// What this process was started as.
#[derive(Clone, Debug)]
pub(in crate::server) struct Program {
    path: PathBuf,
    arguments: Vec<OsString>,
}

impl Program {
    /// To be asked at the start: later the file may have been replaced, and the system would name the old one.
    pub(in crate::server) fn this() -> io::Result<Program> {
        let mut arguments = std::env::args_os();
        let named = arguments.next().map(PathBuf::from);
        // As it was called, so that a link leads to what it leads to then.
        let called = named.filter(|path| path.components().count() > 1);
        let called = called.and_then(|path| std::path::absolute(path).ok());
        let path = match called.filter(|path| path.is_file()) {
            Some(path) => path,
            None => std::env::current_exe()?,
        };
        Ok(Program {
            path,
            arguments: arguments.collect(),
        })
    }

    /// Starts it. What it says goes to our own standard error, and some of it is kept.
    pub(super) fn start(&self) -> io::Result<(New, Link)> {
        let (ours, theirs) = UnixStream::pair()?;
        let mut child = Command::new(&self.path)
            .args(&self.arguments)
            .env(VARIABLE, std::process::id().to_string())
            // It names the process that is watched; the new one will be.
            .env_remove("WATCHDOG_PID")
            .stdin(OwnedFd::from(theirs))
            .stderr(Stdio::piped())
            // Whatever it starts can be ended with it.
            .process_group(0)
            .spawn()?;
        let said = child.stderr.take().map(relay);
        Ok((New { child, said }, Link::new(ours)?))
    }

    /// For a message.
    pub(super) fn path(&self) -> std::path::Display<'_> {
        self.path.display()
    }
}

/// A process that is to take over.
pub(super) struct New {
    child: Child,
    said: Option<Receiver<Vec<u8>>>,
}

impl New {
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it, and tells how it ended and what it said.
    pub(super) fn end(mut self) -> String {
        let by_itself = self.wait(ENDING);
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(group) = group {
            // Nobody may be left in it.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let how = match (by_itself, self.child.wait()) {
            (Some(status), _) => format!("it ended by itself ({status})"),
            (None, _) => "it was ended".to_owned(),
        };
        let said = self.said.take();
        let said = said.and_then(|said| said.recv_timeout(ENDING).ok());
        let said = String::from_utf8_lossy(&said.unwrap_or_default()).into_owned();
        match said.trim_end() {
            "" => format!("{how} and said nothing"),
            said => format!("{how} and said:\n{said}"),
        }
    }

    /// Its end, if that comes within this time.
    fn wait(&mut self, patience: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + patience;
        loop {
            match self.child.try_wait() {
                Ok(Some(status)) => return Some(status),
                Ok(None) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                _ => return None,
            }
        }
    }
}

/// Passes on what it says, until it speaks for itself or is gone; then the last of it can be had.
fn relay(mut from: ChildStderr) -> Receiver<Vec<u8>> {
    let (sender, receiver) = sync_channel(1);
    let passing = move || {
        let (mut kept, mut bytes) = (Vec::new(), [0; 4096]);
        while let Ok(read @ 1..) = from.read(&mut bytes) {
            let said = bytes.get(..read).unwrap_or_default();
            // Whoever does not listen to us need not listen to it.
            let _ = std::io::stderr().write_all(said);
            kept.extend_from_slice(said);
            let spare = kept.len().saturating_sub(TOLD);
            kept.drain(..spare);
        }
        let _ = sender.send(kept);
    };
    if let Err(error) = { std::thread::Builder::new().name("successor".to_owned()) }.spawn(passing)
    {
        log::warn!("what a new process says cannot be passed on: {error}");
    }
    receiver
}
