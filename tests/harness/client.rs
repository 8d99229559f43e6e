//! An HTTP/1.1 client that sends exactly the bytes it is given and hides nothing of what comes back.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use super::{Manner, PATIENCE, Piece, Reply, chat};

/// A connection.
pub(crate) struct Client {
    stream: TcpStream,
    /// What is spoken over it, if not plain text.
    tls: Option<Box<ClientConnection>>,
    ahead: Vec<u8>,
}

/// A GET request. `fields`: more header lines, each ended by CRLF.
pub(crate) fn get(path: &str, fields: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nhost: test\r\n{fields}\r\n").into_bytes()
}

/// A POST request with Content-Length and a JSON body.
pub(crate) fn post(path: &str, fields: &str, body: impl AsRef<[u8]>) -> Vec<u8> {
    let body = body.as_ref();
    let length = body.len();
    let kind = content_type(fields);
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\n{kind}{fields}content-length: {length}\r\n\r\n"
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// The same, chunked: pieces of this many bytes.
pub(crate) fn chunked(path: &str, fields: &str, body: &[u8], size: usize) -> Vec<u8> {
    let kind = content_type(fields);
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\n{kind}{fields}transfer-encoding: chunked\r\n\r\n"
    )
    .into_bytes();
    for chunk in body.chunks(size) {
        request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    request
}

/// JSON, unless the fields say otherwise.
fn content_type(fields: &str) -> &'static str {
    match fields.contains("content-type:") {
        true => "",
        false => "content-type: application/json\r\n",
    }
}

impl Client {
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Client {
        Self::try_connect(address).unwrap()
    }

    pub(crate) fn try_connect(address: SocketAddr) -> io::Result<Client> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Client {
            stream,
            tls: None,
            ahead: Vec::new(),
        })
    }

    /// Speaks TLS with whoever has a certificate for `name`.
    pub(crate) fn try_secure(
        address: SocketAddr,
        name: &str,
        config: Arc<ClientConfig>,
    ) -> io::Result<Client> {
        let mut client = Self::try_connect(address)?;
        client.shake_hands(name, config)?;
        Ok(client)
    }

    /// Speaks TLS from now on.
    pub(crate) fn shake_hands(&mut self, name: &str, config: Arc<ClientConfig>) -> io::Result<()> {
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut tls = ClientConnection::new(config, name).unwrap();
        while tls.is_handshaking() {
            tls.complete_io(&mut self.stream)?;
        }
        self.tls = Some(Box::new(tls));
        Ok(())
    }

    #[track_caller]
    pub(crate) fn secure(address: SocketAddr, name: &str, manner: &Manner) -> Client {
        Self::try_secure(address, name, manner.config()).unwrap()
    }

    /// How TLS is spoken on it.
    pub(crate) fn tls(&self) -> &ClientConnection {
        self.tls.as_ref().unwrap()
    }

    /// Reads that take longer fail.
    pub(crate) fn patience(&mut self, patience: Duration) {
        self.stream.set_read_timeout(Some(patience)).unwrap();
    }

    #[track_caller]
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes.as_ref()).unwrap();
    }

    /// Sends what it can, on another thread: the other side may stop reading.
    pub(crate) fn send_aside(&self, bytes: Vec<u8>) -> std::thread::JoinHandle<io::Result<()>> {
        let mut stream = self.stream.try_clone().unwrap();
        std::thread::spawn(move || stream.write_all(&bytes))
    }

    pub(crate) fn try_send(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            None => self.stream.write_all(bytes),
            Some(tls) => {
                let mut stream = rustls::Stream::new(&mut **tls, &mut self.stream);
                stream.write_all(bytes)?;
                stream.flush()
            }
        }
    }

    /// Says that nothing more will be sent.
    pub(crate) fn half_close(&self) {
        self.stream.shutdown(Shutdown::Write).unwrap();
    }

    #[track_caller]
    pub(crate) fn post(&mut self, path: &str, body: impl AsRef<[u8]>) -> Reply {
        self.send(post(path, "", body));
        self.reply()
    }

    /// A chat request for a model, with more header lines.
    #[track_caller]
    pub(crate) fn chat(&mut self, model: &str, fields: &str) -> Reply {
        self.send(post(super::CHAT, fields, chat(model)));
        self.reply()
    }

    /// A GET with more header lines.
    #[track_caller]
    pub(crate) fn get(&mut self, path: &str, fields: &str) -> Reply {
        self.send(get(path, fields));
        self.reply()
    }

    #[track_caller]
    pub(crate) fn reply(&mut self) -> Reply {
        match self.try_reply() {
            Ok(reply) => reply,
            Err(error) => panic!("no answer: {error}"),
        }
    }

    /// Head and body; a body that is cut short is told by `complete`, a head that is, by an error. Informational
    /// heads are skipped.
    pub(crate) fn try_reply(&mut self) -> io::Result<Reply> {
        let mut reply = self.head()?;
        while reply.status < 200 && reply.status != 101 {
            reply = self.head()?;
        }
        self.body(&mut reply)?;
        Ok(reply)
    }

    /// Status and headers only.
    pub(crate) fn head(&mut self) -> io::Result<Reply> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).and_then(|text| text.parse().ok());
        let mut reply = Reply {
            status: status.ok_or(io::ErrorKind::InvalidData)?,
            ..Reply::default()
        };
        reply.headers = self.fields()?;
        Ok(reply)
    }

    fn fields(&mut self) -> io::Result<Vec<(String, String)>> {
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(fields);
            }
            let (name, value) = line.split_once(':').ok_or(io::ErrorKind::InvalidData)?;
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// The body that belongs to a head.
    pub(crate) fn body(&mut self, reply: &mut Reply) -> io::Result<()> {
        if matches!(reply.status, 101 | 204 | 304) {
            reply.complete = true;
            return Ok(());
        }
        if reply.header("transfer-encoding") == Some("chunked") {
            loop {
                match self.chunk() {
                    Ok(Some(bytes)) => {
                        reply.body.extend_from_slice(&bytes);
                        reply.pieces.push(Piece::now(bytes));
                    }
                    Ok(None) => {
                        reply.complete = true;
                        return Ok(());
                    }
                    Err(error) if is_end(&error) => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
        }
        let length = reply
            .header("content-length")
            .map(|length| length.parse::<usize>().unwrap());
        loop {
            let missing = length.map_or(usize::MAX, |length| length - reply.body.len());
            if missing == 0 {
                reply.complete = true;
                return Ok(());
            }
            if self.ahead.is_empty() {
                match self.fill() {
                    Err(error) if is_end(&error) => {
                        reply.complete = length.is_none();
                        return Ok(());
                    }
                    other => other?,
                }
            }
            let take = self.ahead.len().min(missing);
            let bytes: Vec<u8> = self.ahead.drain(..take).collect();
            reply.body.extend_from_slice(&bytes);
            reply.pieces.push(Piece::now(bytes));
        }
    }

    /// The next chunk; `None` is the proper end.
    pub(crate) fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let size = self.line()?;
        let size = size.split(';').next().unwrap_or_default();
        let size = usize::from_str_radix(size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
        if size == 0 {
            self.fields()?;
            return Ok(None);
        }
        let chunk = self.take(size)?;
        self.take(2)?;
        Ok(Some(chunk))
    }

    /// Everything until the other side closes or resets.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.fill().is_ok() {}
        std::mem::take(&mut self.ahead)
    }

    /// The rest of a body in chunks, to its end or to where it breaks off.
    pub(crate) fn rest_of_stream(&mut self) -> Vec<u8> {
        let mut rest = Vec::new();
        while let Ok(Some(chunk)) = self.chunk() {
            rest.extend_from_slice(&chunk);
        }
        rest
    }

    /// The other side has closed and said nothing more.
    #[track_caller]
    pub(crate) fn assert_closed(&mut self) {
        match self.fill() {
            Err(error) if is_end(&error) => {}
            Err(error) => panic!("still open: {error}"),
            Ok(()) => panic!("more came: {}", String::from_utf8_lossy(&self.ahead)),
        }
    }

    pub(crate) fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.ahead.len() < count {
            self.fill()?;
        }
        Ok(self.ahead.drain(..count).collect())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut seen = 0;
        loop {
            if let Some(end) = find(&self.ahead[seen..], b"\r\n") {
                let end = seen + end;
                let line: Vec<u8> = self.ahead.drain(..end + 2).collect();
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            seen = self.ahead.len().saturating_sub(1);
            self.fill()?;
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut piece = [0_u8; 65536];
        let read = match &mut self.tls {
            None => self.stream.read(&mut piece),
            Some(tls) => rustls::Stream::new(&mut **tls, &mut self.stream).read(&mut piece),
        };
        let read = match read {
            // A signal (a child has ended) ends a read that has a time limit; whoever reads asks again.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            read => read?,
        };
        match read {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.ahead.extend_from_slice(&piece[..n]);
                Ok(())
            }
        }
    }
}

pub(super) fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|window| window == what)
}

/// The connection ended, properly or not; other than a read that took too long.
fn is_end(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}
