//! Somebody else's server that the gateway itself asks: it can fall silent, go away and come back.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::{Connection, Request, Upstream};

/// How the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mood {
    /// It answers.
    Well,
    /// It reads and says nothing, until its mood changes.
    Silent,
    /// It closes every connection on which it is asked.
    Gone,
}

type Answer = Arc<dyn Fn(&Request) -> (u16, String) + Send + Sync>;

/// The server; its answers are JSON.
pub(crate) struct Web {
    upstream: Upstream,
    state: Arc<Mutex<(Mood, Answer)>>,
}

impl Web {
    pub(crate) fn start(
        mood: Mood,
        answer: impl Fn(&Request) -> (u16, String) + Send + Sync + 'static,
    ) -> Web {
        let state = Arc::new(Mutex::new((mood, Arc::new(answer) as Answer)));
        let theirs = state.clone();
        let upstream = Upstream::start(move |connection| serve(connection, &theirs));
        Web { upstream, state }
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.state.lock().unwrap().0 = mood;
    }

    /// Answers like this from now on.
    pub(crate) fn play(&self, answer: impl Fn(&Request) -> (u16, String) + Send + Sync + 'static) {
        self.state.lock().unwrap().1 = Arc::new(answer);
    }

    pub(crate) fn url(&self) -> String {
        self.upstream.url()
    }

    /// What it was asked, answered or not.
    pub(crate) fn asked(&self) -> Vec<Request> {
        self.upstream.requests()
    }

    /// How often it was asked.
    pub(crate) fn calls(&self) -> usize {
        self.asked().len()
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        // Threads that keep silent end.
        self.set(Mood::Gone);
    }
}

fn serve(connection: &mut Connection, state: &Mutex<(Mood, Answer)>) {
    while let Some(request) = connection.request() {
        let answer = loop {
            let (mood, answer) = state.lock().unwrap().clone();
            match mood {
                Mood::Well => break answer,
                Mood::Gone => return,
                Mood::Silent => connection.pause(Duration::from_millis(2)),
            }
        };
        let (status, body) = answer(&request);
        let length = body.len();
        connection.send(format!(
            "HTTP/1.1 {status} Said\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        ));
    }
}
