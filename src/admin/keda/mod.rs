//! KEDA's external scaler (`externalscaler.ExternalScaler`), which tells by gRPC how many replicas a service should have, and at once when it wakes.
//!
//! The number is the one that was decided, told as a metric of which one replica is to have one. Calls read and change nothing. A stream looks when
//! something was decided, which a request that finds no replica brings about, and now and then, because a service may go.

mod grpc;
mod messages;

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::AUTHORIZATION;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use hyper::body::Frame;
use prometheus::IntGauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tollgate_sdk::secret::Secret;

use self::grpc::{Code, Refusal};
use self::messages::{
    GetMetricSpecResponse, GetMetricsRequest, GetMetricsResponse, IsActiveResponse, MetricSpec,
    MetricValue, ScaledObjectRef,
};
use super::caller::Callers;
use super::http2::Conduct;
use super::routes::Shared;
use super::serve::Peer;
use crate::control::Control;
use crate::snapshot::Service;

const PREFIX: &str = "/externalscaler.ExternalScaler/";
/// The one metric there is.
const METRIC: &str = "desired_replicas";
/// Streams that may be open. There must be room for questions beside them on one connection: KEDA has no other.
const STREAMS: usize = 256;
/// Messages that are read at once: strangers send some, too.
const READING: usize = 64;
/// How often a stream looks whether its service is still there.
const LOOK: Duration = Duration::from_secs(1);
/// Characters of a service's name, at most.
const LONGEST_NAME: usize = 63;

/// What answers.
struct Scaler {
    control: Shared,
    callers: Arc<Callers>,
    reading: Semaphore,
    streams: Arc<Semaphore>,
}

/// What can be called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Procedure {
    IsActive,
    StreamIsActive,
    GetMetricSpec,
    GetMetrics,
}

/// All that is served by HTTP/2.
pub(super) fn router(control: Shared, callers: Arc<Callers>) -> Router {
    let scaler = Scaler {
        control,
        callers,
        reading: Semaphore::new(READING),
        streams: Arc::new(Semaphore::new(STREAMS)),
    };
    Router::new().fallback(answer).with_state(Arc::new(scaler))
}

async fn answer(
    State(scaler): State<Arc<Scaler>>,
    Extension(peer): Extension<Peer>,
    Extension(conduct): Extension<Conduct>,
    request: Request,
) -> Response {
    if !grpc::is_call(request.method(), request.headers()) {
        // The pages are served by HTTP/1. Nothing but a head, as of every refusal: a client that does not read holds nothing.
        return StatusCode::HTTP_VERSION_NOT_SUPPORTED.into_response();
    }
    let answer = scaler.call(&peer, &conduct, request).await;
    answer.unwrap_or_else(Refusal::into_response)
}

impl Procedure {
    fn of(path: &str) -> Option<Procedure> {
        match path.strip_prefix(PREFIX)? {
            "IsActive" => Some(Procedure::IsActive),
            "StreamIsActive" => Some(Procedure::StreamIsActive),
            "GetMetricSpec" => Some(Procedure::GetMetricSpec),
            "GetMetrics" => Some(Procedure::GetMetrics),
            _ => None,
        }
    }
}

impl Scaler {
    async fn call(
        &self,
        peer: &Peer,
        conduct: &Conduct,
        request: Request,
    ) -> Result<Response, Refusal> {
        let (head, body) = request.into_parts();
        let procedure = Procedure::of(head.uri.path()).ok_or_else(|| {
            let why = "There are IsActive, StreamIsActive, GetMetricSpec and GetMetrics of externalscaler.ExternalScaler.";
            Refusal::new(Code::Unimplemented, why)
        })?;
        let doubt = self.callers.refuse_scaler(peer, &head.headers);
        // KEDA can send no header of its own: what it bears a token in is the message.
        let may_bear = !head.headers.contains_key(AUTHORIZATION);
        drop(head);
        let doubt = match doubt {
            Some((StatusCode::UNAUTHORIZED, why)) if may_bear => Some(why),
            Some((status, why)) => return Err(refused(status, why)),
            None => None,
        };
        let message = grpc::read(body, &self.reading).await?;
        let (mut object, metric) = understand(procedure, message)?;
        let token = ["tokenFromEnv", "token"].map(|name| object.scaler_metadata.remove(name));
        let mut tokens = token.into_iter().flatten().map(Secret::new);
        if let Some(why) = doubt
            && !tokens.any(|token| self.callers.opens_scaler(&token))
        {
            return Err(refused(StatusCode::UNAUTHORIZED, why));
        }
        conduct.trust();
        let name = named(object)?;
        let service = scaled(&self.control, &name)?;
        match procedure {
            Procedure::IsActive => {
                let result = is_active(&service).ok_or_else(|| undecided(&name))?;
                Ok(grpc::answer(&IsActiveResponse { result }))
            }
            Procedure::StreamIsActive => self.watch(name),
            Procedure::GetMetricSpec => Ok(grpc::answer(&specification())),
            Procedure::GetMetrics => {
                known(&metric)?;
                let desired = desired(&service).ok_or_else(|| undecided(&name))?;
                Ok(grpc::answer(&value(desired)))
            }
        }
    }

    fn watch(&self, name: String) -> Result<Response, Refusal> {
        let place = self.streams.clone().try_acquire_owned().map_err(|_| {
            let why = format!("{STREAMS} streams are open, as many as may be: use `type: external` for some of the triggers, which are asked now and then.");
            Refusal::new(Code::ResourceExhausted, why)
        })?;
        let watching = Watching {
            control: self.control.clone(),
            name,
            told: None,
            over: false,
            _open: Open::count(&self.control.metrics().scaler_streams, place),
        };
        Ok(grpc::streamed(stream::unfold(watching, Watching::next)))
    }
}

fn refused(status: StatusCode, why: &str) -> Refusal {
    let code = match status {
        StatusCode::UNAUTHORIZED => Code::Unauthenticated,
        _ => Code::PermissionDenied,
    };
    Refusal::new(code, why)
}

/// Whose replicas are asked for and, of `GetMetrics`, by which metric.
fn understand(procedure: Procedure, message: Bytes) -> Result<(ScaledObjectRef, String), Refusal> {
    if procedure != Procedure::GetMetrics {
        let object = grpc::understood(message, "ScaledObjectRef")?;
        return Ok((object, String::new()));
    }
    let asked: GetMetricsRequest = grpc::understood(message, "GetMetricsRequest")?;
    let object = asked.scaled_object_ref.unwrap_or_default();
    Ok((object, asked.metric_name))
}

/// The service that a trigger names.
fn named(mut object: ScaledObjectRef) -> Result<String, Refusal> {
    let name = object.scaler_metadata.remove("service").unwrap_or_default();
    match name.chars().count() {
        1..=LONGEST_NAME => Ok(name),
        _ => {
            let why = "The trigger's metadata needs `service`: the name of a service, of 1 to 63 characters.";
            Err(Refusal::new(Code::InvalidArgument, why))
        }
    }
}

fn known(metric: &str) -> Result<(), Refusal> {
    match metric {
        METRIC => Ok(()),
        _ => {
            let why = format!("There is one metric: metricName is to be {METRIC}.");
            Err(Refusal::new(Code::NotFound, why))
        }
    }
}

/// The service of this name, if it is scaled.
fn scaled(control: &Control, name: &str) -> Result<Arc<Service>, Refusal> {
    let snapshot = control.snapshot();
    let mut services = snapshot.services.iter();
    let Some(service) = services.find(|service| *service.name == *name) else {
        let why = format!(
            "There is no service \"{name}\": the trigger's metadata is to name one in `service`."
        );
        return Err(Refusal::new(Code::NotFound, why));
    };
    if service.scaling().is_none() {
        let why = format!(
            "The service \"{name}\" is not scaled: give it `scaling`, with the actuator \"none\"."
        );
        return Err(Refusal::new(Code::FailedPrecondition, why));
    }
    Ok(service.clone())
}

/// How many replicas it is to have; it is decided for the first time a moment after the start.
fn desired(service: &Service) -> Option<u32> {
    let scaled = service.state.scaled.load();
    scaled.as_ref().map(|scaled| scaled.desired)
}

/// Whether it is to have any.
fn is_active(service: &Service) -> Option<bool> {
    match service.state.waiting() {
        0 => desired(service).map(|desired| desired > 0),
        _ => Some(true),
    }
}

fn undecided(name: &str) -> Refusal {
    let why = format!(
        "It is not decided yet how many replicas \"{name}\" is to have: ask again in a second."
    );
    Refusal::new(Code::Unavailable, why)
}

fn specification() -> GetMetricSpecResponse {
    GetMetricSpecResponse {
        metric_specs: vec![MetricSpec {
            metric_name: METRIC.to_owned(),
            target_size: 1,
            target_size_float: 1.0,
        }],
    }
}

fn value(desired: u32) -> GetMetricsResponse {
    GetMetricsResponse {
        metric_values: vec![MetricValue {
            metric_name: METRIC.to_owned(),
            metric_value: desired.into(),
            metric_value_float: desired.into(),
        }],
    }
}

/// A stream that tells whether a service is active, whenever that changes.
struct Watching {
    control: Shared,
    name: String,
    told: Option<bool>,
    over: bool,
    _open: Open,
}

impl Watching {
    async fn next(mut self) -> Option<(Frame<Bytes>, Watching)> {
        if self.over {
            return None;
        }
        let frame = match self.change().await {
            Ok(Some(result)) => grpc::piece(&IsActiveResponse { result }),
            ended => {
                self.over = true;
                grpc::ending(ended.map(drop))
            }
        };
        Some((frame, self))
    }

    /// What was not told yet; `None` once another process has taken over, so that KEDA turns to that one.
    async fn change(&mut self) -> Result<Option<bool>, Refusal> {
        loop {
            if self.control.is_handed_over() {
                return Ok(None);
            }
            let service = scaled(&self.control, &self.name)?;
            // From here on nothing is missed.
            let mut decided = pin!(service.state.decided.notified());
            decided.as_mut().enable();
            let active = is_active(&service);
            if active.is_some() && active != self.told {
                self.told = active;
                return Ok(active);
            }
            tokio::select! {
                () = decided => {}
                () = self.control.handed_over() => {}
                () = sleep(LOOK) => {}
            }
        }
    }
}

/// A stream's place, and its part in the metric.
struct Open {
    gauge: IntGauge,
    _place: OwnedSemaphorePermit,
}

impl Open {
    fn count(gauge: &IntGauge, place: OwnedSemaphorePermit) -> Open {
        gauge.inc();
        Open {
            gauge: gauge.clone(),
            _place: place,
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.gauge.dec();
    }
}
