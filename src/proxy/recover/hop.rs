//! What Pingora's own road does to heads on each hop, for ours.

use http::header::{CONNECTION, CONTENT_LENGTH, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, Version};
use pingora_core::{Error, ErrorType, OrErr, Result};
use pingora_http::{RequestHeader, ResponseHeader};
use pingora_proxy::Session;

use crate::proxy::response::frame_for;

/// Takes out what concerns the client's connection only, and what it names as such.
pub(super) fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
        .collect();
    for name in named {
        headers.remove(name);
    }
    // A look at each name costs less than looking for each of these.
    while let Some(name) = headers.keys().find(|name| is_hop_by_hop(name)).cloned() {
        headers.remove(name);
    }
}

fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authorization"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// HTTP/2 has the host in its URI.
pub(super) fn to_h2(head: &mut RequestHeader, tls: bool) -> Result<()> {
    let host = head.remove_header(&HOST);
    let host = host
        .as_ref()
        .and_then(|host| host.to_str().ok())
        .unwrap_or("localhost");
    let path = std::str::from_utf8(head.raw_path())
        .or_err(
            ErrorType::InvalidHTTPHeader,
            "a path that HTTP/2 cannot carry",
        )?
        .to_owned();
    let uri = http::Uri::builder()
        .scheme(if tls { "https" } else { "http" })
        .authority(host)
        .path_and_query(path)
        .build()
        .map_err(|_| {
            Error::explain(
                ErrorType::InvalidHTTPHeader,
                "a target that HTTP/2 cannot carry",
            )
        })?;
    head.set_uri(uri);
    head.set_version(Version::HTTP_2);
    Ok(())
}

/// Frames an answer for the client: an HTTP/1.1 answer of unknown length is chunked, an HTTP/2 one never is, and an
/// older client reads until the end of the connection.
pub(super) fn frame(
    session: &mut Session,
    head: &mut ResponseHeader,
    bodiless: bool,
) -> Result<()> {
    if session.req_header().version == Version::HTTP_2 {
        head.remove_header(&TRANSFER_ENCODING);
        return Ok(());
    }
    head.set_version(Version::HTTP_11);
    if !bodiless && !head.headers.contains_key(CONTENT_LENGTH) {
        head.insert_header(TRANSFER_ENCODING, "chunked")?;
    }
    frame_for(session, head);
    Ok(())
}
