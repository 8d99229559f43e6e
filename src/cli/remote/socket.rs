//! The admin socket: HTTP over a socket of this machine, for which no port and no certificate is needed.

use std::path::Path;
use std::time::Duration;

use axum::http::header::HOST;
use axum::http::{HeaderValue, Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::UnixStream;
use tollgate_sdk::plugin::CallError;

/// The socket's path, if this names one.
pub(super) fn path(server: &str) -> Option<&Path> {
    let path = server.strip_prefix("unix:")?;
    // As curl and others write it, too: unix:///run/x.
    let path = path.strip_prefix("//").unwrap_or(path);
    Some(Path::new(path))
}

/// One exchange over a connection of its own, within `patience`; the answer is at most `most` bytes.
pub(super) async fn call(
    path: &Path,
    mut request: Request<Bytes>,
    patience: Duration,
    most: usize,
) -> Result<Response<Bytes>, CallError> {
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_static("localhost"));
    let exchange = async {
        let stream = UnixStream::connect(path).await;
        let stream = stream.map_err(|_| CallError::Connect)?;
        let opened = http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = opened.map_err(|_| CallError::Broken)?;
        let connection = tokio::spawn(connection);
        let answer = sender.send_request(request.map(Full::new)).await;
        let (head, body) = answer.map_err(|_| CallError::Broken)?.into_parts();
        let body = Limited::new(body, most).collect().await;
        let body = body.map_err(|error| match error.is::<hyper::Error>() {
            true => CallError::Broken,
            false => CallError::TooLarge,
        })?;
        connection.abort();
        Ok(Response::from_parts(head, body.to_bytes()))
    };
    let done = tokio::time::timeout(patience, exchange).await;
    done.unwrap_or(Err(CallError::Timeout))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_named_by_its_path() {
        assert_eq!(path("unix:/run/a"), Some(Path::new("/run/a")));
        assert_eq!(path("unix:///run/a"), Some(Path::new("/run/a")));
        assert_eq!(path("unix:a.sock"), Some(Path::new("a.sock")));
        assert_eq!(path("http://unix:1"), None);
    }
}
