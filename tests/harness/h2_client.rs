//! An HTTP/2 client by prior knowledge that sends a body frame by frame and sees resets.

use std::future::poll_fn;
use std::net::SocketAddr;

use bytes::Bytes;
use h2::client::{ResponseFuture, SendRequest};
use h2::{Error, Reason, RecvStream, SendStream};
use rustls::pki_types::ServerName;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use super::{Manner, PATIENCE, Piece, Reply, runtime};

/// A connection; its methods block.
#[derive(Clone)]
pub(crate) struct H2Client {
    send: SendRequest<Bytes>,
}

/// One exchange on it.
pub(crate) struct H2Stream {
    answer: Answer,
    upload: Upload,
}

struct Upload(SendStream<Bytes>);

struct Answer {
    response: Option<ResponseFuture>,
    body: Option<RecvStream>,
}

impl H2Client {
    pub(crate) async fn connect(address: SocketAddr) -> H2Client {
        let stream = tokio::net::TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream).await
    }

    /// By TLS, if that agrees on HTTP/2.
    pub(crate) fn secure(address: SocketAddr, name: &str, manner: &Manner) -> H2Client {
        let connector = TlsConnector::from(manner.clone().offering(&["h2"]).config());
        let name = ServerName::try_from(name.to_owned()).unwrap();
        runtime().block_on(async {
            let stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let stream = connector.connect(name, stream).await.unwrap();
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            Self::over(stream).await
        })
    }

    async fn over(
        stream: impl tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    ) -> H2Client {
        let (send, connection) = h2::client::Builder::new()
            .initial_window_size(4 << 20)
            .initial_connection_window_size(16 << 20)
            .handshake(stream)
            .await
            .unwrap();
        tokio::spawn(connection);
        H2Client { send }
    }

    /// Opens a stream; `end`: the head is all.
    pub(crate) fn open(
        &self,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        end: bool,
    ) -> H2Stream {
        self.open_at("test", method, path, fields, end)
    }

    /// The same, for this host.
    pub(crate) fn open_at(
        &self,
        host: &str,
        method: &str,
        path: &str,
        fields: &[(&str, &str)],
        end: bool,
    ) -> H2Stream {
        let mut request = http::Request::builder()
            .method(method)
            .uri(format!("http://{host}{path}"));
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let request = request.body(()).unwrap();
        runtime().block_on(async {
            let mut send = self.send.clone().ready().await.unwrap();
            let (response, upload) = send.send_request(request, end).unwrap();
            H2Stream {
                answer: Answer {
                    response: Some(response),
                    body: None,
                },
                upload: Upload(upload),
            }
        })
    }

    pub(crate) fn get(&self, path: &str, fields: &[(&str, &str)]) -> Result<Reply, Error> {
        self.open("GET", path, fields, true).reply()
    }

    /// Posts JSON, with or without a Content-Length, while reading the answer.
    pub(crate) fn post(
        &self,
        path: &str,
        fields: &[(&str, &str)],
        body: impl Into<Bytes>,
        with_length: bool,
    ) -> Result<Reply, Error> {
        let body = body.into();
        let length = body.len().to_string();
        let mut fields = fields.to_vec();
        if !fields.iter().any(|(name, _)| *name == "content-type") {
            fields.push(("content-type", "application/json"));
        }
        if with_length {
            fields.push(("content-length", &length));
        }
        let H2Stream {
            mut answer,
            mut upload,
        } = self.open("POST", path, &fields, false);
        runtime().block_on(async {
            let sending = async {
                // An answer that comes early ends the upload.
                let _ = upload.send(body, true).await;
                std::future::pending::<()>().await;
            };
            let reply = async {
                let mut reply = answer.head().await?;
                answer.body(&mut reply).await?;
                Ok(reply)
            };
            tokio::select! {
                reply = timeout(2 * PATIENCE, reply) => reply.expect("no answer in time"),
                () = sending => unreachable!(),
            }
        })
    }
}

impl H2Stream {
    /// Sends a part of the body.
    pub(crate) fn send(&mut self, bytes: impl Into<Bytes>, end: bool) -> Result<(), Error> {
        runtime().block_on(self.upload.send(bytes.into(), end))
    }

    /// Head and body. An error is a reset or a lost connection before the end of the head.
    pub(crate) fn reply(mut self) -> Result<Reply, Error> {
        let mut reply = self.head()?;
        self.body(&mut reply)?;
        Ok(reply)
    }

    pub(crate) fn head(&mut self) -> Result<Reply, Error> {
        runtime()
            .block_on(async { timeout(2 * PATIENCE, self.answer.head()).await })
            .expect("no answer in time")
    }

    /// The rest of the body. A reset is an error; what came before is in `reply`.
    pub(crate) fn body(&mut self, reply: &mut Reply) -> Result<(), Error> {
        runtime()
            .block_on(async { timeout(2 * PATIENCE, self.answer.body(reply)).await })
            .expect("no end in time")
    }

    /// The next part of the body; `None` at its proper end.
    pub(crate) fn piece(&mut self) -> Result<Option<Piece>, Error> {
        runtime()
            .block_on(async { timeout(PATIENCE, self.answer.piece()).await })
            .expect("no piece in time")
    }

    /// Leaves, as a client does that cancels.
    pub(crate) fn cancel(mut self) {
        self.upload.0.send_reset(Reason::CANCEL);
    }
}

impl Upload {
    async fn send(&mut self, mut bytes: Bytes, end: bool) -> Result<(), Error> {
        if bytes.is_empty() {
            return self.0.send_data(bytes, end);
        }
        while !bytes.is_empty() {
            self.0.reserve_capacity(bytes.len().min(256 << 10));
            let granted = match poll_fn(|cx| self.0.poll_capacity(cx)).await {
                Some(granted) => granted?,
                None => return Err(Error::from(Reason::STREAM_CLOSED)),
            };
            let piece = bytes.split_to(granted.min(bytes.len()));
            self.0.send_data(piece, end && bytes.is_empty())?;
        }
        Ok(())
    }
}

impl Answer {
    async fn head(&mut self) -> Result<Reply, Error> {
        let response = self.response.take().expect("the head was read").await?;
        let (parts, body) = response.into_parts();
        self.body = Some(body);
        Ok(Reply {
            status: parts.status.as_u16(),
            headers: fields(&parts.headers),
            ..Reply::default()
        })
    }

    async fn piece(&mut self) -> Result<Option<Piece>, Error> {
        let body = self.body.as_mut().expect("the head comes first");
        let Some(data) = body.data().await.transpose()? else {
            return Ok(None);
        };
        let piece = Piece::now(data.to_vec());
        let _ = body.flow_control().release_capacity(data.len());
        Ok(Some(piece))
    }

    async fn body(&mut self, reply: &mut Reply) -> Result<(), Error> {
        while let Some(piece) = self.piece().await? {
            reply.body.extend_from_slice(&piece.bytes);
            reply.pieces.push(piece);
        }
        if let Some(trailers) = self.body.as_mut().unwrap().trailers().await? {
            reply.trailers = fields(&trailers);
        }
        reply.complete = true;
        Ok(())
    }
}

fn fields(headers: &http::HeaderMap) -> Vec<(String, String)> {
    let field = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        (name.as_str().to_owned(), value)
    };
    headers.iter().map(field).collect()
}
