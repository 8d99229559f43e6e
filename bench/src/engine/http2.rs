//! HTTP/2, by prior knowledge on a plain connection or by ALPN under TLS.
//!
//! One task per stream; a reset stream or a lost connection ends it at its next wait. Flow control is
//! honoured both ways: a body that is read slowly holds the sender back.

use std::future::{Future, poll_fn};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use h2::server::{Builder, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{Response, StatusCode};
use tokio::sync::Notify;

use super::exchange;
use super::faults::Cut;
use super::io::Rewound;
use super::peer::{End, Peer, ReplyHead, Request};
use super::worker::Worker;

/// Serves one connection until either side ends it.
pub(super) async fn run(worker: Worker, io: Rewound) {
    let mut builder = Builder::new();
    builder
        .initial_window_size(1 << 20)
        .initial_connection_window_size(16 << 20)
        .max_concurrent_streams(10_000)
        .max_send_buffer_size(1 << 20);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(io).await else {
        return;
    };
    let ruin = Arc::new(Notify::new());
    loop {
        let accepted = tokio::select! {
            biased;
            // Dropping the connection closes it with everything on it.
            () = ruin.notified() => return,
            accepted = connection.accept() => accepted,
        };
        let Some(Ok((request, respond))) = accepted else {
            return;
        };
        let (parts, body) = request.into_parts();
        let request = Request {
            protocol: "HTTP/2",
            method: parts.method.as_str().to_owned(),
            path: parts
                .uri
                .path_and_query()
                .map_or("/", |path| path.as_str())
                .to_owned(),
            headers: read_headers(&parts),
        };
        let head_only = parts.method == http::Method::HEAD;
        let stream = Stream {
            respond,
            body,
            ahead: Bytes::new(),
            send: None,
            head_only,
            name: worker.shared.config.name.clone(),
        };
        tokio::spawn(serve(worker.clone(), request, stream, Arc::clone(&ruin)));
    }
}

fn read_headers(parts: &http::request::Parts) -> Vec<(String, String)> {
    let authority = parts
        .uri
        .authority()
        .map(|host| (":authority".to_owned(), host.to_string()));
    let fields = parts.headers.iter().map(|(name, value)| {
        (
            name.as_str().to_owned(),
            String::from_utf8_lossy(value.as_bytes()).into_owned(),
        )
    });
    authority.into_iter().chain(fields).collect()
}

async fn serve(worker: Worker, request: Request, mut stream: Stream, ruin: Arc<Notify>) {
    match exchange::serve(&worker, &request, &mut Peer::Two(&mut stream)).await {
        Ok(()) | Err(End::Gone) => {}
        Err(End::Malformed | End::Garbage) => stream.reset(Reason::PROTOCOL_ERROR),
        Err(End::Cut(Cut::Close)) => stream.reset(Reason::INTERNAL_ERROR),
        Err(End::Cut(Cut::Reset)) => ruin.notify_one(),
    }
}

/// One request's stream.
#[derive(Debug)]
pub(super) struct Stream {
    respond: SendResponse<Bytes>,
    body: RecvStream,
    /// What was received and not yet taken.
    ahead: Bytes,
    send: Option<SendStream<Bytes>>,
    head_only: bool,
    name: Option<String>,
}

impl Stream {
    pub(super) async fn whole(&mut self, limit: usize) -> Result<Option<Bytes>, End> {
        let Some(first) = self.piece(usize::MAX).await? else {
            return Ok(Some(Bytes::new()));
        };
        let mut all: Option<BytesMut> = None;
        while let Some(piece) = self.piece(usize::MAX).await? {
            let all = all.get_or_insert_with(|| BytesMut::from(&first[..]));
            all.extend_from_slice(&piece);
            if all.len() > limit {
                return Ok(None);
            }
        }
        let whole = all.map_or(first, BytesMut::freeze);
        Ok((whole.len() <= limit).then_some(whole))
    }

    pub(super) async fn piece(&mut self, max: usize) -> Result<Option<Bytes>, End> {
        while self.ahead.is_empty() {
            match self.body.data().await {
                None => return Ok(None),
                Some(Err(_)) => return Err(End::Gone),
                Some(Ok(data)) => self.ahead = data,
            }
        }
        let piece = self.ahead.split_to(self.ahead.len().min(max.max(1)));
        self.body
            .flow_control()
            .release_capacity(piece.len())
            .map_err(|_| End::Gone)?;
        Ok(Some(piece))
    }

    pub(super) async fn until<F: Future>(&mut self, future: F) -> Result<F::Output, End> {
        let respond = &mut self.respond;
        let send = &mut self.send;
        let left = poll_fn(|cx| match send {
            Some(send) => send.poll_reset(cx).map(drop),
            None => respond.poll_reset(cx).map(drop),
        });
        tokio::select! {
            biased;
            value = future => Ok(value),
            () = left => Err(End::Gone),
        }
    }

    pub(super) async fn full(
        &mut self,
        head: &ReplyHead,
        body: Vec<u8>,
        length: usize,
    ) -> Result<(), End> {
        let empty = self.head_only || head.is_bodyless();
        let mut response = self.head(head)?;
        if !head.is_bodyless() {
            response
                .headers_mut()
                .insert(http::header::CONTENT_LENGTH, length.into());
        }
        self.send = Some(
            self.respond
                .send_response(response, empty)
                .map_err(|_| End::Gone)?,
        );
        if empty {
            return Ok(());
        }
        let complete = body.len() >= length;
        self.data(body.into(), complete).await
    }

    pub(super) fn begin(&mut self, head: &ReplyHead) -> Result<(), End> {
        let response = self.head(head)?;
        self.send = Some(
            self.respond
                .send_response(response, false)
                .map_err(|_| End::Gone)?,
        );
        Ok(())
    }

    pub(super) async fn data(&mut self, mut bytes: Bytes, last: bool) -> Result<(), End> {
        let Some(send) = &mut self.send else {
            return Err(End::Gone);
        };
        while !bytes.is_empty() {
            send.reserve_capacity(bytes.len());
            let granted = poll_fn(|cx| {
                if send.poll_reset(cx).is_ready() {
                    return std::task::Poll::Ready(None);
                }
                send.poll_capacity(cx)
                    .map(|granted| granted.and_then(Result::ok))
            });
            let granted = granted.await.ok_or(End::Gone)?;
            let piece = bytes.split_to(granted.min(bytes.len()));
            let end = last && bytes.is_empty();
            if !piece.is_empty() {
                send.send_data(piece, end).map_err(|_| End::Gone)?;
                if end {
                    return Ok(());
                }
            }
        }
        if last {
            send.send_data(Bytes::new(), true).map_err(|_| End::Gone)?;
        }
        Ok(())
    }

    fn reset(&mut self, reason: Reason) {
        match &mut self.send {
            Some(send) => send.send_reset(reason),
            None => self.respond.send_reset(reason),
        }
    }

    fn head(&self, head: &ReplyHead) -> Result<Response<()>, End> {
        let mut response = Response::builder()
            .status(StatusCode::from_u16(head.status).map_err(|_| End::Malformed)?)
            .header("server", "uvicorn")
            .header(
                "date",
                super::clock::http_date(super::clock::unix_seconds()),
            );
        if !head.is_bodyless() {
            response = response.header("content-type", head.content_type);
        }
        if let Some(name) = &self.name {
            response = response.header("x-sim-engine", name);
        }
        for (name, value) in &head.headers {
            response = response.header(*name, value);
        }
        response.body(()).map_err(|_| End::Malformed)
    }
}
