//! An upstream that follows a script, byte by byte, and remembers every byte it was sent.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::client::find;
use super::{PATIENCE, runtime};

/// A listener; its script runs once for every connection, on a thread of its own.
pub(crate) struct Upstream {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    connections: Mutex<Vec<Arc<Mutex<Vec<u8>>>>>,
    requests: Mutex<Vec<Request>>,
    /// When connections were seen closed by the other side.
    closed: Mutex<Vec<Instant>>,
    stop: AtomicBool,
}

/// One connection, as its script sees it.
pub(crate) struct Connection {
    /// Counts from 0.
    pub(crate) index: usize,
    stream: TcpStream,
    ahead: Vec<u8>,
    log: Arc<Mutex<Vec<u8>>>,
    shared: Arc<Shared>,
}

/// A request, read as strictly as can be.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) line: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// All values of a header, joined.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self
            .headers
            .iter()
            .filter(|(known, _)| known.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
            .collect();
        (!values.is_empty()).then(|| values.join(" | "))
    }

    pub(crate) fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap_or_default()
    }

    pub(crate) fn method(&self) -> &str {
        self.line.split(' ').next().unwrap_or_default()
    }

    /// It says in exactly one way how long its body is.
    #[track_caller]
    pub(crate) fn assert_unambiguous(&self) {
        let count = |name: &str| {
            let named = |(known, _): &&(String, String)| known.eq_ignore_ascii_case(name);
            self.headers.iter().filter(named).count()
        };
        let (lengths, codings) = (count("content-length"), count("transfer-encoding"));
        assert!(lengths + codings <= 1, "ambiguous framing: {self:?}");
        assert_eq!(count("host"), 1, "not one host: {self:?}");
        if let Some(coding) = self.header("transfer-encoding") {
            assert_eq!(coding, "chunked", "{self:?}");
        }
        for (name, value) in &self.headers {
            let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
            assert!(
                !name.is_empty() && name.bytes().all(token),
                "header name {name:?}"
            );
            assert!(
                !value.bytes().any(|b| matches!(b, 0 | b'\r' | b'\n')),
                "value {value:?}"
            );
        }
    }
}

impl Upstream {
    pub(crate) fn start(script: impl Fn(&mut Connection) + Send + Sync + 'static) -> Upstream {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let (script, theirs) = (Arc::new(script), shared.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if theirs.stop.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                stream.set_nodelay(true).unwrap();
                stream.set_read_timeout(Some(2 * PATIENCE)).unwrap();
                let (script, theirs) = (script.clone(), theirs.clone());
                std::thread::spawn(move || {
                    // Who says nothing is a health check, and no connection that anybody counts.
                    if !matches!(stream.peek(&mut [0]), Ok(1)) {
                        return;
                    }
                    let log = Arc::new(Mutex::default());
                    let index = {
                        let mut connections = theirs.connections.lock().unwrap();
                        connections.push(Arc::clone(&log));
                        connections.len() - 1
                    };
                    script(&mut Connection {
                        index,
                        stream,
                        ahead: Vec::new(),
                        log,
                        shared: theirs,
                    });
                });
            }
        });
        Upstream { address, shared }
    }

    /// Answers every request with 200 and `ok`.
    pub(crate) fn obliging() -> Upstream {
        Self::replying("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    }

    /// Answers every request with these bytes.
    pub(crate) fn replying(reply: impl Into<Vec<u8>>) -> Upstream {
        let reply = reply.into();
        Self::start(move |connection| {
            while connection.request().is_some() {
                connection.send(&reply);
            }
        })
    }

    /// Reads a request, then says this and closes.
    pub(crate) fn closing(reply: impl Into<Vec<u8>>) -> Upstream {
        let reply = reply.into();
        Self::start(move |connection| {
            if connection.request().is_some() {
                connection.send(&reply);
            }
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Requests that were read whole.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }

    /// The last of them.
    #[track_caller]
    pub(crate) fn last(&self) -> Request {
        self.requests().pop().expect("no request arrived")
    }

    /// Every byte, by connection.
    pub(crate) fn received(&self) -> Vec<Vec<u8>> {
        let connections = self.shared.connections.lock().unwrap();
        connections
            .iter()
            .map(|log| log.lock().unwrap().clone())
            .collect()
    }

    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.lock().unwrap().len()
    }

    /// When connections were seen closed, see [`Connection::wait_closed`].
    pub(crate) fn closed(&self) -> Vec<Instant> {
        self.shared.closed.lock().unwrap().clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(self.address);
    }
}

impl Connection {
    /// Reads a request whole; `None` when the connection ends instead.
    pub(crate) fn request(&mut self) -> Option<Request> {
        let mut request = self.head()?;
        let chunked = request.header("transfer-encoding").is_some();
        if chunked {
            loop {
                let size = self.line().ok()?;
                let size = usize::from_str_radix(size.trim(), 16).ok()?;
                let chunk = self.take(size).ok()?;
                self.line().ok()?;
                if size == 0 {
                    break;
                }
                request.body.extend_from_slice(&chunk);
            }
        } else if let Some(length) = request.header("content-length") {
            request.body = self.take(length.parse().ok()?).ok()?;
        }
        self.shared.requests.lock().unwrap().push(request.clone());
        Some(request)
    }

    /// Reads a request's head only.
    pub(crate) fn head(&mut self) -> Option<Request> {
        let line = self.line().ok()?;
        let mut headers = Vec::new();
        loop {
            let field = self.line().ok()?;
            if field.is_empty() {
                break;
            }
            let (name, value) = field.split_once(':')?;
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        Some(Request {
            line,
            headers,
            body: Vec::new(),
        })
    }

    /// How many bytes have come that nobody has taken yet.
    pub(crate) fn ahead(&self) -> usize {
        self.ahead.len()
    }

    /// One chunk of a chunked body; empty at its end.
    pub(crate) fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let size = self.line()?;
        let size =
            usize::from_str_radix(size.trim(), 16).map_err(|_| io::ErrorKind::InvalidData)?;
        let chunk = self.take(size)?;
        self.line()?;
        Ok(chunk)
    }

    /// Sends; the other side may be gone.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.stream.write_all(bytes.as_ref());
    }

    pub(crate) fn send_chunk(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
        chunk.extend_from_slice(bytes);
        chunk.extend_from_slice(b"\r\n");
        self.send(chunk);
    }

    pub(crate) fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }

    /// Waits until the other side closes, and notes when.
    pub(crate) fn wait_closed(&mut self) {
        while self.fill().is_ok() {}
        self.shared.closed.lock().unwrap().push(Instant::now());
    }

    /// Ends the connection by RST.
    pub(crate) fn reset(&mut self) {
        let _inside = runtime().enter();
        let stream = self.stream.try_clone().unwrap();
        stream.set_nonblocking(true).unwrap();
        let stream = tokio::net::TcpStream::from_std(stream).unwrap();
        stream.set_zero_linger().unwrap();
        // The last of the two descriptors closes it; the script returns at once.
    }

    pub(crate) fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.ahead.len() < count {
            self.fill()?;
        }
        Ok(self.ahead.drain(..count).collect())
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = find(&self.ahead, b"\r\n") {
                let line: Vec<u8> = self.ahead.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut piece = [0_u8; 65536];
        match self.stream.read(&mut piece)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.log.lock().unwrap().extend_from_slice(&piece[..n]);
                self.ahead.extend_from_slice(&piece[..n]);
                Ok(())
            }
        }
    }
}
