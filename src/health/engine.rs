//! Asking a target's engine how it is: its metrics page, again and again over one connection, and now and then its models.
//!
//! What comes is noted in the target's [`Signals`](crate::balance::Signals) with its time, so that what is old can be told from what is new. An engine
//! that does not answer is told of once, and costs nothing but knowledge.

mod names;

use std::sync::Arc;
use std::time::Duration;

use http::header::{HOST, USER_AGENT};
use http::{HeaderValue, Method};
use pingora_core::connectors::http::Connector;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::request::{alpn, status, to_h2};
use super::watch::Watched;
use crate::balance::Told;

/// From one reading to the next; engines bring their figures up to date about as often.
const EVERY: Duration = Duration::from_secs(1);
/// One that takes longer is given up.
const PATIENCE: Duration = Duration::from_secs(5);
/// The models are asked for with every so manyth reading, and with each while nobody answers.
const MODELS: u32 = 5;
/// The largest page that is read.
const LARGEST: usize = 8 << 20;
/// How long a connection is kept for the next reading.
const KEPT: Duration = Duration::from_secs(10);

/// Reads for as long as it is polled.
pub(super) async fn keep_reading(watched: Arc<Watched>, connector: Arc<Connector>) {
    sleep(EVERY.mul_f64(rand::random::<f64>() * 0.2)).await;
    let (mut silent, mut again) = (false, false);
    for round in (0..MODELS).cycle() {
        let next = Instant::now() + EVERY.mul_f64(0.9 + rand::random::<f64>() * 0.2);
        if round == 0 || again {
            again = !ask_models(&watched, &connector).await;
        }
        let page = timeout(PATIENCE, read(&watched, &connector, "/metrics")).await;
        let page =
            page.unwrap_or_else(|_| Error::e_explain(ErrorType::ReadTimedout, "no answer in time"));
        match page {
            Ok(page) => {
                if silent {
                    log::info!("{} tells its metrics again", Named(&watched));
                }
                silent = false;
                note(&watched, names::read(watched.engine, &page));
            }
            Err(error) if !silent => {
                silent = true;
                let why = error.to_string();
                log::warn!("{} tells no metrics: {why}", Named(&watched));
            }
            Err(_) => {}
        }
        sleep_until(next).await;
    }
}

/// Returns whether there is somebody who answers. One that has no such page will not have it in a moment either.
async fn ask_models(watched: &Watched, connector: &Connector) -> bool {
    let page = match timeout(PATIENCE, read(watched, connector, "/v1/models")).await {
        Ok(Ok(page)) => page,
        Ok(Err(error)) => return matches!(error.etype(), ErrorType::HTTPStatus(_)),
        Err(_) => return true,
    };
    if let Some(models) = names::models(&page)
        && watched.state.signals().listed().replace(&models)
    {
        watched.edition.turn();
        log::info!("{} serves {}", Named(watched), models.join(", "));
    }
    true
}

fn note(watched: &Watched, told: Told) {
    let signals = watched.state.signals();
    if signals.tell(told, std::time::Instant::now()) {
        log::info!("the engine of {} began anew", Named(watched));
    }
}

/// A target in the words of the log.
pub(super) struct Named<'w>(pub(super) &'w Watched);

impl std::fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Watched {
            upstream, target, ..
        } = self.0;
        write!(f, "target {target} of upstream {upstream}")
    }
}

/// One page, whole.
async fn read(watched: &Watched, connector: &Connector, path: &str) -> Result<String> {
    let place = &watched.place;
    let target = place.locate((watched.address)())?;
    let peer = place.peer(&target, alpn(place))?;
    let mut session = place.connect(connector, &peer).await?;
    let mut head = RequestHeader::build(Method::GET, path.as_bytes(), None)?;
    head.insert_header(HOST, place.authority.clone())?;
    head.insert_header(USER_AGENT, HeaderValue::from_static("tollgate"))?;
    for (name, value) in &*watched.headers {
        head.insert_header(name.clone(), value.clone())?;
    }
    if session.as_http2().is_some() {
        to_h2(&mut head, place)?;
    }
    session.write_request_header(Box::new(head)).await?;
    session.finish_request_body().await?;
    let status = status(&mut session).await?;
    let mut page = Vec::new();
    while let Some(chunk) = session.read_response_body().await? {
        if page.len() + chunk.len() > LARGEST {
            return Error::e_explain(ErrorType::InvalidHTTPHeader, "its page is too large");
        }
        page.extend_from_slice(&chunk);
    }
    connector
        .release_http_session(session, &peer, Some(KEPT))
        .await;
    if status != 200 {
        return Error::e_explain(ErrorType::HTTPStatus(status), "no page");
    }
    Ok(String::from_utf8_lossy(&page).into_owned())
}
