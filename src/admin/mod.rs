//! The admin listener: health, metrics and the admin API, apart from the traffic.
//!
//! What changes anything goes through [`Control`]; what is shown holds no secret but the one a caller has just been issued.

mod apply;
mod audit;
mod body;
mod caller;
mod dialects;
mod events;
mod explain;
mod http2;
mod keda;
mod keys;
mod openapi;
mod pages;
mod reload;
mod reply;
mod resources;
mod routes;
mod scaling;
mod schemas;
mod serve;
mod socket;
mod status;
mod targets;
mod upgrade;
mod usage;

use std::io;
use std::sync::Arc;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::{StatusCode, header};
use axum::middleware::from_fn_with_state;
use axum::response::IntoResponse;
use axum::{Extension, Router};
use tokio::net::TcpListener;

use self::caller::Callers;
use self::serve::{Limits, Sites};
use crate::control::Control;
use crate::store::Health;

pub use caller::Tokens;
pub use openapi::text as openapi;
pub use socket::Socket;

/// Prometheus' text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves at `listener` until `over`, and on `socket` if there is one. Connections that are open then go on, each until its next answer; it ends when it is dropped.
///
/// # Errors
/// When it cannot listen.
pub async fn serve(
    listener: TcpListener,
    socket: Option<&Socket>,
    tokens: Tokens,
    control: Arc<Control>,
    over: impl Future<Output = ()>,
) -> io::Result<()> {
    let callers = Arc::new(Callers::new(tokens));
    let sites = Sites {
        http1: router(control.clone(), &callers),
        http2: keda::router(control, callers),
    };
    let on_socket = async {
        match socket.map(Socket::listen).transpose()? {
            Some(socket) => {
                let end = std::future::pending();
                serve::serve(socket, sites.clone(), Limits::default(), end).await;
            }
            None => std::future::pending().await,
        }
        Ok(())
    };
    let on_address = async {
        serve::serve(listener, sites.clone(), Limits::default(), over).await;
        Ok(())
    };
    tokio::try_join!(on_address, on_socket).map(drop)
}

fn router(control: Arc<Control>, callers: &Arc<Callers>) -> Router {
    routes::router(&control, callers)
        .fallback(reply::no_page)
        .method_not_allowed_fallback(reply::no_method)
        .layer(Extension(events::Watchers::default()))
        .layer(Extension(dialects::Desk::default()))
        // Bodies have been measured by then.
        .layer(DefaultBodyLimit::disable())
        .layer(from_fn_with_state(control.clone(), upgrade::last_answer))
        .with_state(control)
}

async fn alive() -> &'static str {
    "ok\n"
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
    // Of very many targets it takes long enough to be in others' way.
    let page = tokio::task::spawn_blocking(move || control.metrics_page()).await;
    match page {
        Ok(page) => ([(header::CONTENT_TYPE, TEXT)], page).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
