//! The engine over real sockets on loopback, through a client that sees every byte and every chunk.

mod api;
mod breakage;
mod control;
mod model;
mod protocol;
mod waiting;

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{Engine, EngineConfig, EngineState};

/// Starts an engine with these changes to the defaults.
fn engine(change: impl FnOnce(&mut EngineConfig)) -> Engine {
    let mut config = EngineConfig::default();
    change(&mut config);
    Engine::start(config).unwrap()
}

fn plain() -> Engine {
    engine(|_| ())
}

/// Asks for the engine's state until it is as wanted; fails after two seconds.
fn eventually(engine: &Engine, wanted: impl Fn(&EngineState) -> bool) -> EngineState {
    let start = Instant::now();
    loop {
        let state = engine.state();
        if wanted(&state) {
            return state;
        }
        assert!(start.elapsed() < Duration::from_secs(2), "{state:?}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

const CHAT: &str = "/v1/chat/completions";

fn chat(content: &str) -> String {
    serde_json::json!({"model": "m", "messages": [{"role": "user", "content": content}]})
        .to_string()
}

fn streamed(tokens: usize) -> String {
    serde_json::json!({
        "model": "m", "stream": true, "max_tokens": tokens,
        "stream_options": {"include_usage": true},
        "messages": [{"role": "user", "content": "go"}],
    })
    .to_string()
}

/// A client that hides nothing.
struct Client<S = TcpStream> {
    stream: S,
    ahead: Vec<u8>,
}

/// What it received.
#[derive(Debug)]
struct Reply {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    chunks: Vec<Vec<u8>>,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_str())
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// The data of every event, `[DONE]` as it stands.
    fn events(&self) -> Vec<String> {
        let text = String::from_utf8(self.body.clone()).unwrap();
        let data = |event: &str| {
            let line = event
                .lines()
                .find_map(|line| line.strip_prefix("data: "))
                .unwrap_or_default();
            line.to_owned()
        };
        text.split("\n\n")
            .filter(|event| !event.is_empty())
            .map(data)
            .collect()
    }
}

impl Client {
    fn new(engine: &Engine) -> Self {
        let stream = TcpStream::connect(engine.address()).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream)
    }
}

impl<S: Read + Write> Client<S> {
    fn over(stream: S) -> Self {
        Self {
            stream,
            ahead: Vec::new(),
        }
    }

    fn send(&mut self, text: &str) {
        self.stream.write_all(text.as_bytes()).unwrap();
    }

    fn send_post(&mut self, path: &str, fields: &str, body: &str) {
        let length = body.len();
        let fields = if fields.is_empty() {
            String::new()
        } else {
            format!("{fields}\r\n")
        };
        self.send(&format!(
            "POST {path} HTTP/1.1\r\nhost: sim\r\ncontent-length: {length}\r\n{fields}\r\n{body}"
        ));
    }

    fn post(&mut self, path: &str, fields: &str, body: &str) -> Reply {
        self.send_post(path, fields, body);
        self.reply().unwrap()
    }

    /// A chat request with these faults.
    fn sim(&mut self, faults: &str, body: &str) -> io::Result<Reply> {
        self.send_post(CHAT, &format!("x-sim: {faults}"), body);
        self.reply()
    }

    fn get(&mut self, path: &str) -> Reply {
        self.send(&format!("GET {path} HTTP/1.1\r\nhost: sim\r\n\r\n"));
        self.reply().unwrap()
    }

    fn fill(&mut self) -> io::Result<()> {
        let mut piece = [0u8; 16384];
        match self.stream.read(&mut piece)? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            n => {
                self.ahead.extend_from_slice(&piece[..n]);
                Ok(())
            }
        }
    }

    fn take(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.ahead.len() < count {
            self.fill()?;
        }
        Ok(self.ahead.drain(..count).collect())
    }

    fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.ahead.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.take(end + 2)?;
                return Ok(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            self.fill()?;
        }
    }

    /// Status and headers only.
    fn head(&mut self) -> io::Result<Reply> {
        let line = self.line()?;
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(Reply {
                    status,
                    headers,
                    body: Vec::new(),
                    chunks: Vec::new(),
                });
            }
            let (name, value) = line.split_once(": ").unwrap();
            headers.push((name.to_ascii_lowercase(), value.to_owned()));
        }
    }

    /// The next chunk; `None` is the proper end.
    fn chunk(&mut self) -> io::Result<Option<Vec<u8>>> {
        let size = self.line()?;
        let size = usize::from_str_radix(&size, 16).map_err(|_| io::ErrorKind::InvalidData)?;
        let chunk = self.take(size)?;
        self.line()?;
        Ok((size > 0).then_some(chunk))
    }

    fn reply(&mut self) -> io::Result<Reply> {
        let mut reply = self.head()?;
        if let Some(length) = reply.header("content-length") {
            let length = length.parse().unwrap();
            reply.body = self.take(length)?;
        } else if reply.header("transfer-encoding") == Some("chunked") {
            while let Some(chunk) = self.chunk()? {
                reply.body.extend_from_slice(&chunk);
                reply.chunks.push(chunk);
            }
        }
        Ok(reply)
    }
}
