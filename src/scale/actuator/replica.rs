//! One replica that is a process: started, asked until it serves, watched until it ends.

use std::io;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::net::{TcpStream, UnixStream};
use tokio::process::Child;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tollgate_sdk::document::FromText;
use tollgate_sdk::plugin::Http;

use super::processes::{MARK, Process};
use crate::balance::TargetState;
use crate::calls::Calls;
use crate::model::{Exec, Scheme, TargetUrl, fill};

/// How often a replica that starts is asked whether it serves.
const ASK: Duration = Duration::from_millis(100);
/// How long its answer may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of its answer.
const MOST: usize = 64 << 10;

/// What a replica is doing.
#[derive(Debug)]
pub(super) enum State {
    /// It does not serve yet.
    Starting,
    /// It is a target.
    Ready {
        /// Since then.
        since: Instant,
    },
    /// It is a target no longer, and finishes what it has.
    Draining {
        since: Instant,
        /// Since when it has nothing.
        quiet: Option<Instant>,
        /// Its load.
        load: Option<Arc<TargetState>>,
    },
    /// It was told to end.
    Ending { since: Instant, killed: bool },
}

/// What is known of its process.
#[derive(Clone, Debug, Default)]
pub(super) struct Life {
    /// It serves.
    pub(super) ready: bool,
    /// It has ended, thus.
    pub(super) ended: Option<String>,
}

/// One process with the place it has.
#[derive(Debug)]
pub(super) struct Replica {
    /// Its place among the ports, from 0.
    pub(super) number: usize,
    pub(super) id: String,
    pub(super) url: String,
    pub(super) process: Process,
    pub(super) born: Instant,
    pub(super) state: State,
    /// None of one that another process started.
    life: Option<watch::Receiver<Life>>,
}

/// What a replica's own words are: port, number, id and service.
pub(super) struct Words {
    port: String,
    number: String,
    pub(super) id: String,
    service: String,
}

impl Words {
    pub(super) fn new(service: &str, number: usize, port: u16) -> Words {
        Words {
            port: port.to_string(),
            number: number.to_string(),
            id: format!("{service}-{port}"),
            service: service.to_owned(),
        }
    }

    pub(super) fn fill(&self, text: &str) -> String {
        let values = [
            ("port", &*self.port),
            ("n", &*self.number),
            ("id", &*self.id),
            ("service", &*self.service),
        ];
        fill(text, &values)
    }

    /// The program and its arguments, in a group of processes of their own. What it prints goes where our log does.
    pub(super) fn command(&self, words: &[String]) -> Option<Command> {
        use std::os::unix::process::CommandExt;
        let mut words = words.iter().map(|word| self.fill(word));
        let mut command = Command::new(words.next()?);
        command
            .args(words)
            .env(MARK, self.mark())
            .stdin(Stdio::null())
            .stdout(io::stderr())
            .process_group(0);
        Some(command)
    }

    pub(super) fn mark(&self) -> String {
        format!("{}/{}", self.service, self.id)
    }
}

impl Replica {
    /// Starts one. `moved` is told when it serves, and when it has ended.
    ///
    /// # Errors
    /// Why its program cannot be started.
    pub(super) fn start(
        settings: &Exec,
        words: &Words,
        number: usize,
        moved: &Arc<Notify>,
    ) -> io::Result<Replica> {
        let command = words.command(&settings.start);
        let command = command.ok_or(io::Error::from(io::ErrorKind::InvalidInput))?;
        let child = tokio::process::Command::from(command).spawn()?;
        let process = child.id().and_then(Process::of);
        let process = process.ok_or(io::Error::from(io::ErrorKind::NotFound))?;
        let url = words.fill(&settings.url);
        let (tell, life) = watch::channel(Life::default());
        let question = Question::of(&url, settings.ready.as_deref());
        tokio::spawn(watch_over(child, question, tell, moved.clone()));
        Ok(Replica {
            number,
            id: words.id.clone(),
            url,
            process,
            born: Instant::now(),
            state: State::Starting,
            life: Some(life),
        })
    }

    /// One that another process started and left to us.
    pub(super) fn adopt(words: &Words, url: String, number: usize, process: Process) -> Replica {
        let now = Instant::now();
        Replica {
            number,
            id: words.id.clone(),
            url,
            process,
            born: now,
            state: State::Ready { since: now },
            life: None,
        }
    }

    /// What is known of its process now.
    pub(super) fn life(&self) -> Life {
        match &self.life {
            Some(life) => life.borrow().clone(),
            None => Life {
                ready: true,
                ended: (!self.process.lives()).then(|| "ended".to_owned()),
            },
        }
    }

    /// Tells it to end.
    pub(super) fn end(&mut self, settings: &Exec, words: &Words, now: Instant) {
        let killed = false;
        self.state = State::Ending { since: now, killed };
        let Some(mut command) = settings
            .stop
            .as_deref()
            .and_then(|stop| words.command(stop))
        else {
            return self.process.end(false);
        };
        command.env_remove(MARK);
        let (process, id) = (self.process, self.id.clone());
        tokio::spawn(async move {
            let done = tokio::process::Command::from(command).status().await;
            match done {
                Ok(status) if status.success() => {}
                Ok(status) => log::warn!("replica {id}: the command to stop it failed: {status}"),
                Err(error) => log::warn!("replica {id}: it cannot be stopped: {error}"),
            }
            process.end(false);
        });
    }

    /// Ends it.
    pub(super) fn kill(&mut self, now: Instant) {
        let killed = true;
        self.state = State::Ending { since: now, killed };
        self.process.end(true);
    }
}

async fn watch_over(
    mut child: Child,
    question: Option<Question>,
    tell: watch::Sender<Life>,
    moved: Arc<Notify>,
) {
    let serves = async {
        match question {
            Some(question) => question.until_answered().await,
            None => std::future::pending().await,
        }
    };
    let status = tokio::select! {
        status = child.wait() => status,
        () = serves => {
            tell.send_modify(|life| life.ready = true);
            moved.notify_one();
            child.wait().await
        }
    };
    let told = match status {
        Ok(status) => status.to_string(),
        Err(error) => error.to_string(),
    };
    tell.send_modify(|life| life.ended = Some(told));
    moved.notify_one();
}

/// What a replica is asked until it serves.
struct Question {
    url: TargetUrl,
    path: Option<String>,
    calls: Calls,
}

impl Question {
    fn of(url: &str, path: Option<&str>) -> Option<Question> {
        Some(Question {
            url: TargetUrl::from_text(url).ok()?,
            path: path.map(str::to_owned),
            calls: Calls::new(),
        })
    }

    async fn until_answered(&self) {
        while !self.is_answered().await {
            sleep(ASK).await;
        }
    }

    async fn is_answered(&self) -> bool {
        let url = &self.url;
        if url.scheme == Scheme::Unix {
            return UnixStream::connect(&url.path).await.is_ok();
        }
        let Some(path) = &self.path else {
            let connect = TcpStream::connect(format!("{}:{}", url.host, url.port));
            return timeout(PATIENCE, connect)
                .await
                .is_ok_and(|done| done.is_ok());
        };
        let scheme = match url.scheme {
            Scheme::Https => "https",
            _ => "http",
        };
        let uri = format!("{scheme}://{}:{}{path}", url.host, url.port);
        let Ok(request) = http::Request::get(uri).body(Bytes::new()) else {
            return false;
        };
        let answer = self.calls.call(request, PATIENCE, MOST).await;
        answer.is_ok_and(|answer| answer.status() == http::StatusCode::OK)
    }
}
