//! `/v1/events`: what happens, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::reply;
use super::serve::Leisure;
use crate::control::Control;
use crate::control::events::{Reader, Seen};

/// How often a comment says that the stream is alive.
const ALIVE: Duration = Duration::from_secs(15);
/// How many may watch at the same time. There must be connections left for others.
const WATCHERS: usize = 128;

/// Who may still watch.
#[derive(Clone)]
pub(super) struct Watchers(Arc<Semaphore>);

impl Default for Watchers {
    fn default() -> Self {
        Watchers(Arc::new(Semaphore::new(WATCHERS)))
    }
}

/// From now on, or after the event that `Last-Event-ID` names.
pub(super) async fn watch(
    State(control): State<Arc<Control>>,
    Extension(watchers): Extension<Watchers>,
    Extension(leisure): Extension<Leisure>,
    headers: HeaderMap,
) -> Response {
    let after = match headers.get("last-event-id") {
        None => None,
        Some(id) => match id.to_str().ok().and_then(|id| id.parse::<u64>().ok()) {
            Some(number) => Some(number),
            None => return reply::malformed("Last-Event-ID: the number of an event is expected"),
        },
    };
    let Ok(place) = watchers.0.try_acquire_owned() else {
        let why = "There are as many watchers as may be: close one, or come again later.";
        return reply::error(StatusCode::SERVICE_UNAVAILABLE, "overloaded", why);
    };
    leisure.grant();
    let way = Way {
        reader: control.events().read(after),
        greeted: false,
        _place: place,
    };
    let events = stream::unfold(way, |mut way| async move {
        let event = way.next().await;
        Some((Ok::<_, Infallible>(event), way))
    });
    let alive = KeepAlive::new().interval(ALIVE).text("still here");
    Sse::new(events).keep_alive(alive).into_response()
}

struct Way {
    reader: Reader,
    greeted: bool,
    _place: OwnedSemaphorePermit,
}

impl Way {
    async fn next(&mut self) -> Event {
        if !std::mem::replace(&mut self.greeted, true) {
            // Whoever has this misses nothing from here on.
            return Event::default().comment("watching");
        }
        match self.reader.next().await {
            Seen::Event(event) => {
                let data = serde_json::Value::Object(event.fields.clone());
                Event::default()
                    .id(event.number.to_string())
                    .event(event.kind.as_str())
                    .data(data.to_string())
            }
            Seen::Lost { count, after } => {
                let message = "events are gone that you have not read: look at what you watch anew";
                let data = json!({"message": message, "count": count});
                Event::default()
                    .id(after.to_string())
                    .event("lost")
                    .data(data.to_string())
            }
        }
    }
}
