//! The admin listener: health, metrics and the admin API, apart from the traffic.
//!
//! What changes anything goes through [`Control`]; what is shown holds no secret but the one a caller has just been issued.

mod caller;
mod keys;
mod reload;
mod reply;
mod upgrade;
mod usage;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::routing::{get, post};
use tokio::net::TcpListener;
use tollgate_sdk::secret::Secret;

use self::caller::Callers;
use crate::control::Control;
use crate::store::Health;

/// Prometheus' text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves until it is dropped; connections that are open then go on, each until its next answer.
pub async fn serve(
    listener: TcpListener,
    token: Option<Secret<String>>,
    control: Arc<Control>,
) -> io::Result<()> {
    let callers = Arc::new(Callers::new(token));
    let service = router(control, callers).into_make_service_with_connect_info::<SocketAddr>();
    // Without this the connections would be closed as soon as it is dropped.
    let served = axum::serve(listener, service).with_graceful_shutdown(std::future::pending());
    served.await
}

/// Bytes of the largest document.
const LARGEST: usize = 1 << 20;

fn router(control: Arc<Control>, callers: Arc<Callers>) -> Router {
    let api = Router::new()
        .route("/v1/keys", get(keys::list).post(keys::create))
        .route("/v1/keys/{name}", get(keys::show).delete(keys::revoke))
        .route("/v1/keys/{name}/rotate", post(keys::rotate))
        .route("/v1/usage", get(usage::usage))
        .route("/v1/reload", post(reload::reload))
        .route("/v1/upgrade", post(upgrade::upgrade))
        .layer(DefaultBodyLimit::max(LARGEST))
        .layer(from_fn_with_state(callers, caller::admit));
    Router::new()
        .merge(api)
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(reply::no_page)
        .method_not_allowed_fallback(reply::no_method)
        .layer(from_fn_with_state(control.clone(), upgrade::last_answer))
        .with_state(control)
}

async fn ready(State(control): State<Arc<Control>>) -> impl IntoResponse {
    match control.is_ready() {
        false => (
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: starting or draining\n".to_owned(),
        ),
        // Traffic goes on without the store, so this is no reason to take the process out of service.
        true => match control.store().health() {
            Health { ok: true, .. } => (StatusCode::OK, "ready\n".to_owned()),
            Health {
                reason,
                buffered,
                dropped,
                ..
            } => {
                let reason = reason.unwrap_or_default();
                (
                    StatusCode::OK,
                    format!(
                        "ready\nstore: {reason} ({buffered} usage records wait, {dropped} are lost)\n"
                    ),
                )
            }
        },
    }
}

async fn metrics(State(control): State<Arc<Control>>) -> impl IntoResponse {
    control.observe();
    ([(header::CONTENT_TYPE, TEXT)], control.metrics().render())
}
