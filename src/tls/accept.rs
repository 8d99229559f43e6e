//! The handshake with a client: what it names decides what it is shown.
//!
//! Whoever names a host that nobody has a certificate for is refused with `unrecognized_name` (RFC 6066, section 3), and sees none. Nothing here
//! limits the time: whoever calls does.

use std::io;
use std::sync::Arc;

use bytes::BytesMut;
use pingora_core::protocols::Stream;
use rustls::ServerConfig;
use rustls::server::Acceptor;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::LazyConfigAcceptor;

use super::Identity;
use super::stream::{Encrypted, Wire};

/// A fatal alert `unrecognized_name`, as a record of its own.
const UNRECOGNIZED_NAME: [u8; 7] = [21, 3, 3, 0, 2, 2, 112];
/// The type of a record of a handshake, with which every TLS connection begins.
const HANDSHAKE: u8 = 22;
/// Bytes that are read at first; what clients say first is shorter.
const BEGINNING: usize = 2048;

/// What somebody is told who speaks HTTP in the clear.
const PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\n\
content-length: 131\r\nconnection: close\r\n\r\n\
{\"error\":{\"message\":\"TLS is spoken at this port: use https.\",\"type\":\"invalid_request_error\",\"param\":null,\"code\":\"invalid_request\"}}";

/// The protocol by which an authority looks for the answer to a challenge (RFC 8737, section 4).
pub const ALPN_OF_CHALLENGES: &[u8] = b"acme-tls/1";

/// How a handshake goes on, once the client has said what it wants.
pub enum Way {
    /// The client is shown this, and served.
    Serve(Choice),
    /// An authority looks for the answer to a challenge: it is shown that, and nothing follows.
    Prove(Arc<ServerConfig>),
}

/// What a client is shown.
pub struct Choice {
    /// The certificate.
    pub identity: Arc<Identity>,
    /// Whose it is; `None`: the listener's.
    pub gateway: Option<Arc<str>>,
}

/// A client by its certificate, which somebody vouched for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// The certificate's SHA-256.
    pub fingerprint: [u8; 32],
}

/// What a handshake came to.
#[derive(Debug)]
pub struct Handshake {
    /// Whose certificate was shown; `None`: the listener's.
    pub gateway: Option<Arc<str>>,
    /// Who the client is, if it showed a certificate.
    pub client: Option<Known>,
}

/// Why there was none.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Nobody has a certificate for this name, or for clients that name none.
    #[error("no certificate for {}", .0.as_deref().unwrap_or("clients that name no host"))]
    Unknown(Option<String>),
    /// It was no TLS.
    #[error("it does not speak TLS")]
    Plain,
    /// An authority has seen the answer to its challenge.
    #[error("it only looked for the answer to a challenge")]
    Proved,
    /// It broke off, or nothing could be agreed on.
    #[error("{0}")]
    Failed(io::Error),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Shakes hands with a client. `choose` is told the name that it gives, and whether it speaks [`ALPN_OF_CHALLENGES`] alone; what `begin` makes once the
/// client has said something lives until the end.
///
/// # Errors
/// [`Refused`]; the client was told, as far as it listens.
pub async fn accept<G>(
    mut stream: Stream,
    http2: bool,
    begin: impl FnOnce() -> G,
    choose: impl FnOnce(Option<&str>, bool) -> Option<Way>,
) -> Result<(Encrypted, Handshake), Refused> {
    let mut begun = BytesMut::with_capacity(BEGINNING);
    if stream.read_buf(&mut begun).await? == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    let _under_way = begin();
    if begun.first() != Some(&HANDSHAKE) {
        // Whoever speaks neither is not told in a language that it may not know.
        if begun.first().is_some_and(u8::is_ascii_uppercase) {
            stream.write_all(PLAIN).await?;
            stream.shutdown().await?;
        }
        return Err(Refused::Plain);
    }
    let wire = Wire {
        stream,
        begun: begun.freeze(),
    };
    let start = LazyConfigAcceptor::new(Acceptor::default(), wire).await?;
    let hello = start.client_hello();
    let name = hello.server_name().map(str::to_owned);
    let proves = hello
        .alpn()
        .is_some_and(|offered| offered.eq([ALPN_OF_CHALLENGES]));
    let choice = match choose(name.as_deref(), proves) {
        Some(Way::Serve(choice)) => Some(choice),
        Some(Way::Prove(config)) => {
            let mut tls = start.into_stream(config).await?;
            tls.shutdown().await?;
            return Err(Refused::Proved);
        }
        None => None,
    };
    let config = choice
        .as_ref()
        .and_then(|choice| choice.identity.config(http2));
    let (Some(choice), Some(config)) = (choice, config) else {
        let mut wire = start.io;
        wire.write_all(&UNRECOGNIZED_NAME).await?;
        wire.shutdown().await?;
        return Err(Refused::Unknown(name));
    };
    let tls = start.into_stream(config).await?;
    let shown = tls.get_ref().1.peer_certificates();
    let client = shown.and_then(<[_]>::first).map(|shown| Known {
        fingerprint: Sha256::digest(shown).into(),
    });
    let handshake = Handshake {
        gateway: choice.gateway,
        client,
    };
    Ok((Encrypted::new(tls), handshake))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_plain_http_is_well_formed() {
        let text = std::str::from_utf8(PLAIN).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let length = format!("content-length: {}", body.len());
        assert!(head.contains(&length), "{length}");
        let value: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(value["error"]["code"], "invalid_request");
    }
}
