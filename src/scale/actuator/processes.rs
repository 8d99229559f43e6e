//! The processes of replicas, each the head of a group of its own: which there are, whether one lives, and their end.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process_group, test_kill_process, waitpid};

/// How long they may take to end with the process that started them.
const PATIENCE: Duration = Duration::from_secs(3);

/// The variable by which a replica's process is known: its service and id.
pub(super) const MARK: &str = "TOLLGATE_REPLICA";

/// One process. Numbers are used again, so the moment of its start belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pid: Pid,
    /// Ticks since the system's start; 0 where the system does not say.
    started: u64,
}

impl Process {
    /// The process of this number, which is there now.
    pub(super) fn of(pid: u32) -> Option<Process> {
        let pid = Pid::from_raw(i32::try_from(pid).ok()?)?;
        let started = started(pid);
        Some(Process { pid, started })
    }

    /// As [`Process::to_text`] wrote it.
    pub(super) fn from_text(text: &str) -> Option<Process> {
        let (pid, started) = text.split_once('-')?;
        Some(Process {
            pid: Pid::from_raw(pid.parse().ok()?)?,
            started: started.parse().ok()?,
        })
    }

    /// For whoever comes after this process.
    pub(super) fn to_text(self) -> String {
        format!("{}-{}", self.pid.as_raw_nonzero(), self.started)
    }

    /// Whether it lives.
    pub(super) fn lives(self) -> bool {
        test_kill_process(self.pid).is_ok() && started(self.pid) == self.started
    }

    /// Whether it was started with this mark: nobody else's process is ended because a target says that it is one of ours.
    pub(super) fn bears(self, mark: &str) -> bool {
        let path = format!("/proc/{}/environ", self.pid.as_raw_nonzero());
        let environment = std::fs::read(path).unwrap_or_default();
        let sought = format!("{MARK}={mark}");
        let mut variables = environment.split(|byte| *byte == 0);
        variables.any(|variable| variable == sought.as_bytes())
    }

    fn number(self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Asks it and its children to end, or ends them.
    pub(super) fn end(self, at_once: bool) {
        let signal = match at_once {
            true => Signal::KILL,
            false => Signal::TERM,
        };
        // It may have gone by itself.
        let _ = kill_process_group(self.pid, signal);
    }
}

/// When a process was started; 0 if it is gone, or waits only for its parent to look.
fn started(pid: Pid) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    let stat = stat.unwrap_or_default();
    // The name, in parentheses, may hold anything.
    let mut fields = stat.rsplit(") ").next().unwrap_or_default().split(' ');
    match fields.next() {
        Some("Z" | "X") | None => 0,
        Some(_) => fields
            .nth(18)
            .and_then(|field| field.parse().ok())
            .unwrap_or(0),
    }
}

/// Those that end with this process, each with whether it is a target: such a one lives on if another process takes over.
#[derive(Debug, Default)]
pub(in crate::scale) struct Processes {
    // Held for a look, never across an await.
    own: Mutex<Own>,
}

#[derive(Debug, Default)]
struct Own {
    all: BTreeMap<i32, bool>,
    /// This process ends: none may follow.
    over: bool,
}

impl Processes {
    pub(super) fn put(&self, process: Process, serves: bool) {
        let mut own = self.lock();
        own.all.insert(process.number(), serves);
        if own.over {
            process.end(true);
        }
    }

    pub(super) fn remove(&self, process: Process) {
        self.lock().all.remove(&process.number());
    }

    /// Whether they were ended.
    pub(in crate::scale) fn is_over(&self) -> bool {
        self.lock().over
    }

    /// Ends all of them, but for those that live on. Waits for that, but not for long.
    pub(in crate::scale) fn end(&self, handed_over: bool) {
        let all = {
            let mut own = self.lock();
            own.over = true;
            std::mem::take(&mut own.all)
        };
        let own = all.into_iter();
        let own = own.filter(|(_, serves)| !handed_over || !serves);
        let mut left: Vec<Pid> = own.filter_map(|(pid, _)| Pid::from_raw(pid)).collect();
        for pid in &left {
            let _ = kill_process_group(*pid, Signal::TERM);
        }
        let began = Instant::now();
        while !left.is_empty() && began.elapsed() < PATIENCE {
            left.retain(|pid| is_there(*pid));
            std::thread::sleep(Duration::from_millis(5));
        }
        for pid in left {
            let _ = kill_process_group(pid, Signal::KILL);
            let _ = waitpid(Some(pid), WaitOptions::empty());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Own> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a child has not ended. One that has is no longer waited for by anybody else, since the process ends.
fn is_there(pid: Pid) -> bool {
    let _ = waitpid(Some(pid), WaitOptions::NOHANG);
    test_kill_process(pid).is_ok()
}
