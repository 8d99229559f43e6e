//! Phase 2: may it pass, and where to?
//!
//! Address rules, the body if anything needs it, then a rule or the model's name decides the service.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use pingora_core::Result;
use pingora_http::ResponseHeader;
use pingora_proxy::Session;
use tollgate_sdk::plugin::Refusal;
use tollgate_sdk::quota::Standing;

use super::authenticate::{authenticate, authorize};
use super::body::{self, BodyMemory, Length, Stop};
use super::exchange::{Body, Exchange};
use super::identify::{host, may_carry_model};
use super::plugins;
use super::reply::{self, Rejection};
use crate::model::By;
use crate::snapshot::{
    Chain, Decision, Gateway, Head, ListedModel, ModelName, Route, Who,
    list_models as list_of_models, model_in_path, without_port,
};

/// Decides; `Ok(true)` when the exchange was answered here.
pub(super) async fn admit(
    session: &mut Session,
    x: &mut Exchange,
    memory: &Arc<BodyMemory>,
) -> Result<bool> {
    match try_admit(session, x, memory).await {
        Ok(Admission::Forward) => Ok(false),
        Ok(Admission::Redirect(location)) => {
            Box::pin(redirect(session, x, location)).await?;
            Ok(true)
        }
        Ok(Admission::Answer(body)) => {
            let mut head = ResponseHeader::build(StatusCode::OK, Some(4))?;
            head.insert_header(http::header::CONTENT_TYPE, "application/json")?;
            Box::pin(reply::send(session, x, head, body)).await?;
            Ok(true)
        }
        Err(Stop::Reject(rejection)) => {
            Box::pin(refuse(session, x, &rejection)).await?;
            Ok(true)
        }
        Err(Stop::Gone(error)) => Err(error.into_down()),
    }
}

/// Answers with a rejection, and deals with what the client may still be sending.
async fn refuse(session: &mut Session, x: &mut Exchange, rejection: &Rejection) -> Result<()> {
    if is_short(session) {
        // What is left is read first, so that the connection can go on.
        drain(session, Duration::from_secs(1)).await;
    }
    let unread = !session.is_body_done();
    if unread {
        session.set_keepalive(None);
    }
    reply::reject(session, x, rejection).await?;
    if unread && may_linger(session, rejection) {
        drain(session, Duration::from_secs(5)).await;
    }
    Ok(())
}

enum Admission {
    Forward,
    Answer(Bytes),
    /// It is to come again, by TLS.
    Redirect(HeaderValue),
}

/// Sends the client elsewhere. What it still has to say is not read.
async fn redirect(session: &mut Session, x: &mut Exchange, location: HeaderValue) -> Result<()> {
    if is_short(session) {
        drain(session, Duration::from_secs(1)).await;
    }
    if !session.is_body_done() {
        session.set_keepalive(None);
    }
    let mut head = ResponseHeader::build(StatusCode::PERMANENT_REDIRECT, Some(4))?;
    head.insert_header(http::header::LOCATION, location)?;
    reply::send(session, x, head, Bytes::new()).await
}

async fn try_admit(
    session: &mut Session,
    x: &mut Exchange,
    memory: &Arc<BodyMemory>,
) -> Result<Admission, Stop> {
    if let Some(rejection) = x.refusal.take() {
        return Err(rejection.into());
    }
    let Some(gateway) = x.gateway.clone() else {
        return Err(Rejection::UnknownHost.into());
    };
    if !gateway.admits(x.client) {
        return Err(Rejection::Forbidden.into());
    }
    if x.handshake.is_none()
        && let Some(location) = insecure(session, x, &gateway)?
    {
        return Ok(Admission::Redirect(location));
    }
    if gateway.paused {
        return Err(Rejection::Paused.into());
    }
    let known = authenticate(&session.req_header().headers, x, &gateway).await;
    if known.is_err() && is_preflight(session) {
        // A browser's question before the request has no key; what answers it is a plugin.
        run_chain(session, x, &gateway.chain, memory).await?;
    }
    known?;
    if let Some(answer) = list_models(session, x, &gateway)? {
        return Ok(Admission::Answer(answer));
    }
    x.model = model_outside_body(session, &gateway)?;
    let limits = x.key.as_ref();
    let limits = limits.and_then(|key| gateway.key_chains.get(&*key.principal.id));
    if let Some(limits) = limits {
        run_chain(session, x, limits, memory).await?;
    }
    if !gateway.chain.links.is_empty() {
        run_chain(session, x, &gateway.chain, memory).await?;
    }
    let route = find_route(session, x, &gateway, memory).await?;
    take_route(session, x, route, memory).await?;
    authorize(x, &gateway)?;
    count_rate(session, x)?;
    for chain in std::mem::take(&mut x.chains).into_iter().flatten() {
        run_chain(session, x, &chain, memory).await?;
        // It may have changed the body.
        x.splice_body();
    }
    x.arrives();
    Ok(Admission::Forward)
}

/// What becomes of a request that came without TLS: where it is sent, if the gateway wants it to come by TLS.
fn insecure(
    session: &Session,
    x: &Exchange,
    gateway: &Gateway,
) -> Result<Option<HeaderValue>, Rejection> {
    let document = &gateway.document;
    let head = session.req_header();
    // To whoever ends TLS before us it did come that way.
    let ended_before = || {
        let proto = head.headers.get("x-forwarded-proto");
        x.trusted_peer && proto.is_some_and(|proto| proto == "https")
    };
    if document.redirect_https && !ended_before() {
        let host = without_port(host(session));
        let port = x.bounds.as_ref().and_then(|bounds| bounds.https_port);
        let port = port.filter(|port| *port != 443);
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
        let location = HeaderValue::try_from(format!("https://{host}{port}{path}"));
        // A host that no header can have led to no gateway.
        return location.map(Some).map_err(|_| Rejection::UnknownHost);
    }
    match gateway.asks_for_certificates() {
        true => Err(Rejection::Uncertified),
        false => Ok(None),
    }
}

/// Counts the request against its service's rate limits.
fn count_rate(session: &Session, x: &mut Exchange) -> Result<(), Rejection> {
    let Some(rates) = x
        .offer
        .as_ref()
        .and_then(|offer| offer.service.rates.as_ref())
    else {
        return Ok(());
    };
    let head = session.req_header();
    let key = x.key.as_ref().map(|key| &*key.principal.id);
    match rates.count(head.uri.path(), &head.headers, key, x.client) {
        Ok(standing) => {
            if let Some(standing) = standing {
                x.edits.standings.tell_requests(standing);
            }
            Ok(())
        }
        Err(denied) => {
            let refusal = Refusal::too_many("Too many requests. Try again later.", denied.wait())
                .telling(&denied.standing, Standing::REQUESTS);
            Err(Rejection::Plugin(refusal))
        }
    }
}

fn is_preflight(session: &Session) -> bool {
    let head = session.req_header();
    head.method == Method::OPTIONS
        && head.headers.contains_key(http::header::ORIGIN)
        && head
            .headers
            .contains_key(http::header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Runs a chain, with the body if it needs it.
async fn run_chain(
    session: &mut Session,
    x: &mut Exchange,
    chain: &Arc<Chain>,
    memory: &Arc<BodyMemory>,
) -> Result<(), Stop> {
    if chain.reads() && matches!(x.body, Body::Unread) && has_body(session) {
        body::read(session, x, memory, true).await?;
    }
    let head = session.req_header();
    match chain.waits {
        true => Box::pin(plugins::run_patiently(head, x, chain)).await?,
        false => plugins::run_at_once(head, x, chain)?,
    }
    Ok(())
}

/// Whether a body comes with it, and not whatever a tunnel carries.
#[inline(never)]
fn has_body(session: &mut Session) -> bool {
    !session.is_body_empty() && !session.is_upgrade_req()
}

/// `GET /v1/models` and `/v1/models/{id}`, answered here: what this client may use. A host that is one service's own has
/// that service's list, since a model's name decides nothing there.
fn list_models(
    session: &Session,
    x: &Exchange,
    gateway: &Gateway,
) -> Result<Option<Bytes>, Rejection> {
    let head = session.req_header();
    let elsewhere = gateway.routing.by == By::None || x.host_service.is_some();
    if elsewhere || !matches!(head.method, Method::GET | Method::HEAD) {
        return Ok(None);
    }
    let Some(rest) = head.uri.path().strip_prefix("/v1/models") else {
        return Ok(None);
    };
    let all = gateway.open || x.key.as_ref().is_some_and(|key| key.is_unscoped());
    let seen = |id: &str, listed: &ListedModel| {
        let mut services = listed.services.iter();
        match &x.key {
            _ if all => true,
            Some(key) => key.sees(id, services.map(|service| &*service.name)),
            None => services.any(|service| service.public),
        }
    };
    let listing = gateway.listing();
    if rest.is_empty() || rest == "/" {
        if all {
            return Ok(Some(listing.all.clone()));
        }
        let mine = listing
            .models
            .iter()
            .filter(|(id, listed)| seen(id, listed));
        return Ok(Some(list_of_models(mine.map(|(_, listed)| listed))));
    }
    let Some(id) = rest.strip_prefix('/') else {
        return Ok(None);
    };
    let id = percent_encoding::percent_decode_str(id).decode_utf8_lossy();
    match listing.models.get(&*id) {
        Some(listed) if seen(&id, listed) => Ok(Some(listed.entry.clone())),
        _ => Err(Rejection::ModelNotFound(id.into_owned())),
    }
}

async fn find_route(
    session: &mut Session,
    x: &mut Exchange,
    gateway: &Gateway,
    memory: &Arc<BodyMemory>,
) -> Result<Route, Stop> {
    // What was read is a body.
    let empty = matches!(x.body, Body::Unread) && !has_body(session);
    let head = session.req_header();
    let model = match (gateway.routing.by, &x.model) {
        (By::Header, Some(name)) => ModelName::Is(name),
        (By::Body, _) if !empty && may_carry_model(&head.method) => ModelName::Unread,
        _ => ModelName::Absent,
    };
    let asked = asked_of(head, x, gateway);
    let mut decision = gateway.router.decide(asked, model);
    if matches!(decision, Decision::NeedsModel) {
        if matches!(x.body, Body::Unread) {
            body::read(session, x, memory, true).await?;
        }
        let peek = x.peek.take();
        let name = peek.as_ref().and_then(|peek| peek.model.as_ref());
        let name = name.map(|model| &*model.value);
        let model = name.map_or(ModelName::Absent, ModelName::Is);
        let asked = asked_of(session.req_header(), x, gateway);
        decision = gateway.router.decide(asked, model);
        let route = settle(decision, name, || no_model_in_body(peek.is_some()));
        x.peek = peek;
        return route;
    }
    let method = session.req_header().method.clone();
    settle(decision, x.model.as_deref(), || match gateway.routing.by {
        By::Header if may_carry_model(&method) => no_model_in_header(gateway),
        By::Body if method == Method::POST => Rejection::invalid(
            "The request has no JSON body that names a `model`.",
            Some("model"),
        ),
        _ => Rejection::RouteNotFound,
    })
}

fn asked_of<'h>(
    head: &'h pingora_http::RequestHeader,
    x: &'h Exchange,
    gateway: &Gateway,
) -> Head<'h> {
    Head {
        who: match &x.key {
            _ if gateway.open => Who::Anybody,
            Some(key) => Who::Holder(key),
            None => Who::Stranger,
        },
        method: &head.method,
        path: head.uri.path(),
        headers: &head.headers,
        service: x.host_service,
    }
}

fn settle(
    decision: Decision,
    model: Option<&str>,
    nameless: impl FnOnce() -> Rejection,
) -> Result<Route, Stop> {
    Err(match decision {
        Decision::Route(route) => return Ok(route),
        Decision::MethodNotAllowed(allow) => Rejection::MethodNotAllowed(allow),
        Decision::ModelNotFound => Rejection::ModelNotFound(model.unwrap_or_default().to_owned()),
        Decision::NoRoute if model.is_some() => Rejection::RouteNotFound,
        Decision::NoRoute | Decision::NeedsModel => nameless(),
    }
    .into())
}

fn no_model_in_body(is_json: bool) -> Rejection {
    if !is_json {
        return Rejection::invalid(
            "The request's body is not JSON, so it names no `model`.",
            Some("model"),
        );
    }
    Rejection::invalid("The request names no `model`.", Some("model"))
}

fn no_model_in_header(gateway: &Gateway) -> Rejection {
    let name = gateway
        .routing
        .header
        .as_ref()
        .map_or("model", |name| name.as_str());
    Rejection::invalid(
        format!("The request has no header `{name}` that names a model."),
        None,
    )
}

/// The model asked for, where it does not stand in the body.
fn model_outside_body(session: &Session, gateway: &Gateway) -> Result<Option<Arc<str>>, Rejection> {
    let head = session.req_header();
    match gateway.routing.by {
        By::Header => model_in_header(gateway, &head.headers),
        By::Path => Ok(model_in_path(head.uri.path()).map(|(name, _)| name.into())),
        By::Body | By::None => Ok(None),
    }
}

fn model_in_header(gateway: &Gateway, headers: &HeaderMap) -> Result<Option<Arc<str>>, Rejection> {
    let (By::Header, Some(name)) = (gateway.routing.by, &gateway.routing.header) else {
        return Ok(None);
    };
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    match (value.to_str(), values.next()) {
        (Ok(model), None) if !model.trim().is_empty() => Ok(Some(model.trim().into())),
        (_, Some(_)) => Err(Rejection::invalid(
            format!("The header `{name}` is given more than once."),
            None,
        )),
        _ => Err(Rejection::invalid(
            format!("The header `{name}` names no model."),
            None,
        )),
    }
}

async fn take_route(
    session: &mut Session,
    x: &mut Exchange,
    route: Route,
    memory: &Arc<BodyMemory>,
) -> Result<(), Stop> {
    let service = route.offer.service.clone();
    x.take_route(route);
    let unread = matches!(x.body, Body::Unread);
    if unread && service.buffers() && has_body(session) {
        body::read(session, x, memory, service.meters()).await?;
    }
    if let Body::Unread = x.body {
        check_streamed(session, x)?;
    }
    x.replayable = x.body.is_whole() || (session.is_body_empty() && !session.is_upgrade_req());
    x.reports_usage = session.req_header().uri.path().ends_with("/completions");
    x.splice_body();
    Ok(())
}

/// A body that passes unread is still held to its limit, where it announces its length.
fn check_streamed(session: &mut Session, x: &mut Exchange) -> Result<(), Rejection> {
    let limit = x.bounds.as_ref().map_or(u64::MAX, |bounds| bounds.max_body);
    match body::length(&session.req_header().headers) {
        Length::Known(bytes) if bytes > limit => return Err(Rejection::TooLarge(limit)),
        _ => {}
    }
    if x.grpc || session.is_upgrade_req() {
        // Either side may be quiet for as long as it likes; `idle` bounds the silence of both.
        session.set_read_timeout(None);
        x.unbounded = true;
    } else if let Some(bounds) = &x.bounds {
        session.set_read_timeout(Some(bounds.body_timeout));
    }
    Ok(())
}

/// Whether what is left of the body is short enough to read for the sake of the connection.
fn is_short(session: &Session) -> bool {
    let headers = &session.req_header().headers;
    matches!(body::length(headers), Length::Known(bytes) if bytes <= 64 * 1024)
        && !headers.contains_key(http::header::EXPECT)
}

/// Whether a client that is still sending is let finish: closing at once would reset the connection and destroy the
/// answer before the client reads it.
fn may_linger(session: &Session, rejection: &Rejection) -> bool {
    *rejection != Rejection::RequestTimeout
        && !session
            .req_header()
            .headers
            .contains_key(http::header::EXPECT)
}

/// Reads what is left of the body, within bounds.
async fn drain(session: &mut Session, longest: Duration) {
    const MOST: usize = 256 << 20;
    let read = async {
        let mut seen = 0;
        while let Ok(Some(chunk)) = session.read_request_body().await {
            seen += chunk.len();
            if seen > MOST {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(longest, read).await;
}
