//! The admin listener: health and metrics, apart from the traffic.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;

use crate::control::Control;

/// Prometheus' text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Serves until it is dropped.
pub async fn serve(address: SocketAddr, control: Arc<Control>) -> io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    axum::serve(listener, router(control)).await
}

fn router(control: Arc<Control>) -> Router {
    Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(control)
}

async fn ready(State(control): State<Arc<Control>>) -> impl IntoResponse {
    match control.is_ready() {
        true => (StatusCode::OK, "ready\n"),
        false => (
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: starting or draining\n",
        ),
    }
}

async fn metrics(State(control): State<Arc<Control>>) -> impl IntoResponse {
    control.observe();
    ([(header::CONTENT_TYPE, TEXT)], control.metrics().render())
}
