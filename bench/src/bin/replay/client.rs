//! One request on a kept connection: sent whole, its stream read to the end.

use std::io;
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tollgate_bench::answer::{Answer, Usage};

/// What a client saw of one answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// When the first byte of the body came: that of the first token.
    pub(crate) first: Instant,
    pub(crate) ended: Instant,
    pub(crate) usage: Usage,
}

/// Connections to one address that wait for their next request.
#[derive(Debug)]
pub(crate) struct Connections {
    address: SocketAddr,
    idle: Mutex<Vec<TcpStream>>,
    patience: Duration,
}

impl Connections {
    pub(crate) fn new(address: SocketAddr, patience: Duration) -> Self {
        Self {
            address,
            idle: Mutex::default(),
            patience,
        }
    }

    /// Sends a request and reads its answer. Anything but a whole stream with its usage is an error.
    pub(crate) async fn ask(&self, request: &[u8]) -> Result<Seen, String> {
        match tokio::time::timeout(self.patience, self.try_kept(request)).await {
            Ok(seen) => seen,
            Err(_) => Err("no whole answer in time".to_owned()),
        }
    }

    /// A connection may have been closed while it was idle: then nothing was answered, and another is taken.
    async fn try_kept(&self, request: &[u8]) -> Result<Seen, String> {
        loop {
            let kept = self.idle().pop();
            let fresh = kept.is_none();
            let mut connection = match kept {
                Some(connection) => connection,
                None => self.connect().await.map_err(|error| error.to_string())?,
            };
            match exchange(&mut connection, request).await {
                Ok((seen, keep)) => {
                    if keep {
                        self.idle().push(connection);
                    }
                    return Ok(seen);
                }
                Err(Trouble::Stale(_)) if !fresh => {}
                Err(Trouble::Stale(what) | Trouble::Answer(what)) => return Err(what),
            }
        }
    }

    async fn connect(&self) -> io::Result<TcpStream> {
        let connection = TcpStream::connect(self.address).await?;
        connection.set_nodelay(true)?;
        Ok(connection)
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Vec<TcpStream>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

enum Trouble {
    /// Before any byte of an answer.
    Stale(String),
    Answer(String),
}

/// One request with its answer, and whether the connection can be used again.
async fn exchange(connection: &mut TcpStream, request: &[u8]) -> Result<(Seen, bool), Trouble> {
    let stale = |error: io::Error| Trouble::Stale(error.to_string());
    connection.write_all(request).await.map_err(stale)?;
    let mut answer = Answer::default();
    let (mut first, mut begun) = (None, false);
    let mut buffer = [0; 16 * 1024];
    loop {
        let read = match connection.read(&mut buffer).await {
            Ok(0) if !begun => return Err(Trouble::Stale("closed without an answer".to_owned())),
            Ok(0) => {
                return Err(Trouble::Answer(
                    "the connection broke inside an answer".into(),
                ));
            }
            Ok(read) => read,
            Err(error) if !begun => return Err(stale(error)),
            Err(error) => return Err(Trouble::Answer(error.to_string())),
        };
        begun = true;
        let now = Instant::now();
        let piece = buffer.get(..read).unwrap_or_default();
        let progress = answer.push(piece).map_err(Trouble::Answer)?;
        if progress.payload > 0 {
            first.get_or_insert(now);
        }
        if !progress.ended {
            continue;
        }
        let seen = finished(&answer, first.unwrap_or(now), now).map_err(Trouble::Answer)?;
        return Ok((seen, !answer.closes));
    }
}

fn finished(answer: &Answer, first: Instant, ended: Instant) -> Result<Seen, String> {
    if answer.status != 200 {
        return Err(format!("status {}", answer.status));
    }
    if !answer.is_whole_stream() {
        return Err("a stream without its end".to_owned());
    }
    let usage = answer.usage().ok_or("a stream without its usage")?;
    Ok(Seen {
        first,
        ended,
        usage,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test that panics has failed")]
mod tests {
    use tollgate_bench::engine::{Engine, EngineConfig, FaultStep};

    use super::*;
    use crate::body;
    use crate::trace::Line;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn line() -> Line {
        Line {
            timestamp: 0.0,
            input_length: 1500,
            output_length: 3,
            hash_ids: vec![0, 1, 2],
        }
    }

    fn engine(config: EngineConfig) -> Engine {
        Engine::start(EngineConfig {
            cache_blocks: 100,
            block_size: 512,
            ..config
        })
        .unwrap()
    }

    /// What each of so many requests, one after the other, came to.
    fn ask(
        connections: &Connections,
        times: usize,
        mut between: impl FnMut(),
    ) -> Vec<Result<Seen, String>> {
        let request = body::request(&line(), connections.address, "m");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let mut seen = Vec::new();
            for _ in 0..times {
                seen.push(connections.ask(&request).await);
                between();
            }
            seen
        })
    }

    #[test]
    fn answers_tell_tokens_and_whole_blocks_that_were_cached() {
        let engine = engine(EngineConfig::default());
        let connections = Connections::new(engine.address(), PATIENCE);
        let seen = ask(&connections, 2, || ());
        let usage: Vec<_> = seen
            .into_iter()
            .map(|seen| seen.unwrap().usage)
            .map(|usage| (usage.prompt_tokens, usage.cached(), usage.completion_tokens))
            .collect();
        // The third block of 1,500 tokens is not full.
        assert_eq!(usage, [(1500, 0, 3), (1500, 1024, 3)]);
        assert_eq!(engine.state().connections, 1);
    }

    #[test]
    fn the_first_token_is_waited_for_and_not_the_head() {
        let ttft = Duration::from_millis(120);
        let engine = engine(EngineConfig {
            ttft,
            ..EngineConfig::default()
        });
        let connections = Connections::new(engine.address(), PATIENCE);
        let start = Instant::now();
        let seen = ask(&connections, 1, || ()).remove(0).unwrap();
        assert!(seen.first - start >= ttft && seen.ended >= seen.first);
    }

    #[test]
    fn anything_but_a_whole_stream_is_a_failure() {
        let engine = engine(EngineConfig::default());
        let cases = [
            ("status=503", "status 503"),
            ("close-after=1", "broke"),
            ("drop", "without an answer"),
            ("stall-after=1", "in time"),
        ];
        for (fault, word) in cases {
            engine.set_faults([FaultStep::always(fault.parse().unwrap())]);
            let patience = Duration::from_millis(300);
            let connections = Connections::new(engine.address(), patience);
            let failure = ask(&connections, 1, || ()).remove(0).unwrap_err();
            assert!(failure.contains(word), "{fault}: {failure}");
        }
    }

    #[test]
    fn a_connection_that_was_closed_while_idle_is_replaced() {
        let first = engine(EngineConfig::default());
        let address = first.address();
        let connections = Connections::new(address, PATIENCE);
        let (mut old, mut new) = (Some(first), None);
        let seen = ask(&connections, 2, || {
            if let Some(engine) = old.take() {
                engine.stop();
                new = Some(self::engine(EngineConfig {
                    address,
                    ..EngineConfig::default()
                }));
            }
        });
        assert!(seen.iter().all(Result::is_ok), "{seen:?}");
        assert_eq!(new.unwrap().state().started, 1);
    }
}
