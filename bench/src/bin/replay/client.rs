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
