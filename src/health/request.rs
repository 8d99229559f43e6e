//! A check by an HTTP request: any method, headers and body; some statuses mean that the target serves.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, HOST, USER_AGENT};
use http::{Uri, Version};
use pingora_core::connectors::http::Connector;
use pingora_core::protocols::ALPN;
use pingora_core::protocols::http::client::HttpSession;
use pingora_core::{Error, ErrorType, OrErr, Result};
use pingora_http::RequestHeader;
use pingora_load_balancing::Backend;
use pingora_load_balancing::health_check::HealthCheck;

use super::check::Place;
use crate::model::{HttpProbe, Scheme};

/// The most of an answer's body that is read. What comes after that is not waited for.
const ENOUGH: usize = 64 * 1024;

pub(super) struct RequestCheck {
    probe: HttpProbe,
    place: Place,
    connector: Arc<Connector>,
}

impl RequestCheck {
    pub(super) fn new(probe: &HttpProbe, place: &Place, connector: Arc<Connector>) -> RequestCheck {
        RequestCheck {
            probe: probe.clone(),
            place: place.clone(),
            connector,
        }
    }

    fn head(&self, body: &Bytes) -> Result<RequestHeader> {
        let probe = &self.probe;
        let mut head = RequestHeader::build(probe.method.clone(), probe.path.as_bytes(), None)?;
        head.insert_header(HOST, self.place.authority.clone())?;
        head.insert_header(USER_AGENT, "tollgate")?;
        for (name, value) in &probe.headers {
            head.insert_header(name.clone(), value.clone())?;
        }
        if !body.is_empty() {
            head.insert_header(CONTENT_LENGTH, body.len())?;
        }
        Ok(head)
    }
}

#[async_trait]
impl HealthCheck for RequestCheck {
    async fn check(&self, target: &Backend) -> Result<()> {
        let peer = self.place.peer(target, alpn(&self.place))?;
        let mut session = self.place.connect(&self.connector, &peer).await?;
        let body = Bytes::from(self.probe.body.clone().unwrap_or_default());
        let mut head = self.head(&body)?;
        if session.as_http2().is_some() {
            to_h2(&mut head, &self.place)?;
        }
        session.write_request_header(Box::new(head)).await?;
        if !body.is_empty() {
            session.write_request_body(body, true).await?;
        }
        session.finish_request_body().await?;
        let status = status(&mut session).await?;
        if !self
            .probe
            .expect
            .iter()
            .any(|expected| expected.0 == status)
        {
            return Error::e_explain(
                ErrorType::HTTPStatus(status),
                "not a status it should answer",
            );
        }
        let mut read = 0;
        while let Some(chunk) = session.read_response_body().await? {
            read += chunk.len();
            if read > ENOUGH {
                break;
            }
        }
        Ok(())
    }

    // The watch counts by the settings.
    fn health_threshold(&self, _success: bool) -> usize {
        1
    }
}

/// The version of HTTP the place is spoken to in.
pub(super) fn alpn(place: &Place) -> ALPN {
    match (place.url.scheme, place.http2) {
        (Scheme::H2c, _) | (Scheme::Http, true) => ALPN::H2,
        (Scheme::Https, true) => ALPN::H2H1,
        _ => ALPN::H1,
    }
}

/// The status of the answer proper.
pub(super) async fn status(session: &mut HttpSession<()>) -> Result<u16> {
    loop {
        session.read_response_header().await?;
        match session.response_header() {
            Some(head) if head.status.is_informational() => continue,
            Some(head) => return Ok(head.status.as_u16()),
            None => return Error::e_explain(ErrorType::InvalidHTTPHeader, "no head"),
        }
    }
}

/// HTTP/2 has the host in its URI.
pub(super) fn to_h2(head: &mut RequestHeader, place: &Place) -> Result<()> {
    const CANNOT: &str = "HTTP/2 cannot carry this request";
    let host = head.remove_header(&HOST);
    let tls = place.url.scheme == Scheme::Https;
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let uri = Uri::builder()
        .scheme(if tls { "https" } else { "http" })
        .authority(host.as_ref().unwrap_or(&place.authority).as_bytes())
        .path_and_query(path)
        .build()
        .or_err(ErrorType::InvalidHTTPHeader, CANNOT)?;
    head.set_uri(uri);
    head.set_version(Version::HTTP_2);
    Ok(())
}
