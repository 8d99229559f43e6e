//! The table of the admin listener's pages: the router and the OpenAPI document are both made from it, so that neither can say what the other does not.
//!
//! A page is one method of one path. What all pages of the API may answer besides (no token, a body that is too long, …) stands in one place, [`Route::refusals`].

use std::sync::Arc;

use axum::handler::Handler;
use axum::http::{Method, StatusCode};
use axum::middleware::{from_fn_with_state, map_response};
use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Extension, Router};
use serde_json::{Value, json};

use super::audit::{self, Writing};
use super::caller::{self, Callers};
use super::dialects::{self, Retell, reword};
use super::schemas::{list_of, named};
use super::{body, events, openapi, pages, reload, scaling, status, upgrade, usage};
use crate::config::ResourceKind;
use crate::control::Control;

/// What every page knows.
pub(super) type Shared = Arc<Control>;

/// Bytes of the largest body, if a page says nothing else.
const LARGEST: usize = 1 << 20;

/// One page: what serves it, and what is documented of it.
pub(super) struct Route {
    pub(super) method: Method,
    /// As axum and OpenAPI write it: `/v1/keys/{name}`.
    pub(super) path: String,
    /// A verb and what it is done to, unique: `rotateKey`.
    pub(super) id: String,
    /// One sentence.
    pub(super) summary: String,
    /// Parameters of the query.
    pub(super) query: Vec<Parameter>,
    /// Headers of the request that mean something, with what they mean.
    pub(super) headers: Vec<(&'static str, &'static str)>,
    /// The body: its content types, each with a schema.
    pub(super) body: Vec<(&'static str, Value)>,
    /// Whether a request without a body is refused.
    pub(super) needs_body: bool,
    /// Bytes of the largest body.
    pub(super) largest: usize,
    /// What it answers.
    pub(super) answers: Vec<Answer>,
    /// Whether it is for everybody, token or not.
    pub(super) open: bool,
    /// Whether it changes anything: such calls leave a line in the log.
    pub(super) writes: bool,
    /// How it tells of errors, if it is another system's page: those are in no document of ours.
    pub(super) retell: Option<Retell>,
    router: MethodRouter<Shared>,
}

/// A parameter of the query.
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) doc: String,
    pub(super) schema: Value,
}

/// What a page may answer.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) doc: String,
    /// Its content type and schema, if it has a body.
    pub(super) content: Option<(&'static str, Value)>,
    /// Headers it carries, with what they mean.
    pub(super) headers: Vec<(&'static str, &'static str)>,
}

impl Route {
    /// A page that is served by `handler`. `id`: see the field.
    pub(super) fn new<H, T>(
        method: Method,
        path: impl Into<String>,
        id: impl Into<String>,
        handler: H,
    ) -> Route
    where
        H: Handler<T, Shared>,
        T: 'static,
    {
        let filter = MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::GET);
        Route {
            writes: method != Method::GET,
            method,
            path: path.into(),
            id: id.into(),
            summary: String::new(),
            query: Vec::new(),
            headers: Vec::new(),
            body: Vec::new(),
            needs_body: false,
            largest: LARGEST,
            answers: Vec::new(),
            open: false,
            retell: None,
            router: on(filter, handler),
        }
    }

    /// It is for this kind of resource.
    pub(super) fn of(mut self, kind: ResourceKind) -> Route {
        self.router = self.router.layer(Extension(kind));
        self
    }

    /// What changes may answer besides.
    pub(super) fn changes(self) -> Route {
        self.refuses(
            StatusCode::PRECONDITION_FAILED,
            "It is not at the revision that was expected; nothing has changed.",
        )
        .refuses(
            StatusCode::UNPROCESSABLE_ENTITY,
            "It has mistakes: all of them. Nothing has changed.",
        )
        .refuses(
            StatusCode::SERVICE_UNAVAILABLE,
            "It could not be stored; nothing has changed.",
        )
    }

    /// What it does, as a sentence.
    pub(super) fn says(mut self, summary: impl Into<String>) -> Route {
        self.summary = summary.into();
        self
    }

    /// A parameter of the query.
    pub(super) fn query(
        mut self,
        name: &'static str,
        doc: impl Into<String>,
        schema: Value,
    ) -> Route {
        let doc = doc.into();
        self.query.push(Parameter { name, doc, schema });
        self
    }

    /// A header of the request.
    pub(super) fn header(mut self, name: &'static str, doc: &'static str) -> Route {
        self.headers.push((name, doc));
        self
    }

    /// A JSON body it needs.
    pub(super) fn takes(self, schema: Value) -> Route {
        self.takes_as("application/json", schema)
    }

    /// A body of another content type that it takes as well.
    pub(super) fn takes_as(mut self, content_type: &'static str, schema: Value) -> Route {
        self.body.push((content_type, schema));
        self.needs_body = true;
        self
    }

    /// A JSON body it may have.
    pub(super) fn may_take(mut self, schema: Value) -> Route {
        self.body.push(("application/json", schema));
        self
    }

    /// Bytes of the largest body, where it is not a mebibyte.
    pub(super) fn up_to(mut self, largest: usize) -> Route {
        self.largest = largest;
        self
    }

    /// An answer of JSON.
    pub(super) fn answers(self, status: StatusCode, doc: &str, schema: Value) -> Route {
        self.answers_as(status, doc, Some(("application/json", schema)))
    }

    /// An answer of another content type, or without a body.
    pub(super) fn answers_as(
        mut self,
        status: StatusCode,
        doc: &str,
        content: Option<(&'static str, Value)>,
    ) -> Route {
        self.answers.push(Answer {
            status,
            doc: doc.to_owned(),
            content,
            headers: Vec::new(),
        });
        self
    }

    /// A header of the answer named last.
    pub(super) fn with(mut self, name: &'static str, doc: &'static str) -> Route {
        if let Some(answer) = self.answers.last_mut() {
            answer.headers.push((name, doc));
        }
        self
    }

    /// An error.
    pub(super) fn refuses(self, status: StatusCode, doc: &str) -> Route {
        self.answers(status, doc, named("Error"))
    }

    /// Something its handler finds among the request's extensions.
    pub(super) fn knows<E: Clone + Send + Sync + 'static>(mut self, fact: E) -> Route {
        self.router = self.router.layer(Extension(fact));
        self
    }

    /// It is for everybody, token or not.
    pub(super) fn open(mut self) -> Route {
        self.open = true;
        self
    }

    /// It is a page of another system's API, whose errors have a form of their own.
    pub(super) fn foreign(mut self, retell: Retell) -> Route {
        self.retell = Some(retell);
        self
    }

    /// It changes nothing, whatever its method.
    pub(super) fn only_reads(mut self) -> Route {
        self.writes = false;
        self
    }
}

/// Every page.
pub(super) fn routes() -> Vec<Route> {
    let mut all = Vec::new();
    all.extend(pages::all());
    all.extend(process());
    all.extend(dialects::all());
    all
}

fn process() -> Vec<Route> {
    vec![
        Route::new(Method::GET, "/v1/usage", "getUsage", usage::usage)
            .says("What was used, in groups.")
            .query(
                "by",
                "The groups; by default `key`.",
                json!({"enum": ["key", "model", "service", "gateway", "day"]}),
            )
            .query(
                "since",
                "A duration back from now, or a time; by default `24h`.",
                json!({"type": "string"}),
            )
            .query(
                "until",
                "A duration back from now, or a time; by default now.",
                json!({"type": "string"}),
            )
            .query(
                "gateway",
                "Only what was used of this gateway.",
                json!({"type": "string"}),
            )
            .query(
                "key",
                "Only what was used with this key.",
                json!({"type": "string"}),
            )
            .answers(StatusCode::OK, "The groups.", list_of(named("Usage"))),
        Route::new(Method::GET, "/v1/status", "getStatus", status::status)
            .says("How everything stands.")
            .answers(StatusCode::OK, "It.", named("Status")),
        Route::new(
            Method::GET,
            "/v1/services/{name}/scaling",
            "getScaling",
            scaling::show,
        )
        .says("How many replicas a service should have and has, and why.")
        .answers(StatusCode::OK, "It.", named("Scaling"))
        .refuses(
            StatusCode::NOT_FOUND,
            "There is no service of this name, or it is not scaled.",
        ),
        Route::new(Method::GET, "/v1/events", "watchEvents", events::watch)
            .says("What happens from now on, as server-sent events; the ring holds the last 1,024.")
            .header("Last-Event-ID", "The number of the last event that was read: what came after it follows. If some of that is gone, `event: lost` says so.")
            .answers_as(StatusCode::OK, "Events. `event` is `change`, `reload`, `target`, `breaker`, `key`, `scaling`, `store` or `lost`; `data` is a JSON object with `at`, `message` and the names concerned.",
                Some(("text/event-stream", json!({"type": "string"}))))
            .with("Cache-Control", "`no-cache`."),
        Route::new(Method::GET, "/v1/openapi.json", "getDocument", openapi::document)
            .says("This document.")
            .answers(StatusCode::OK, "It.", json!({"type": "object"})),
        Route::new(Method::POST, "/v1/reload", "reload", reload::reload)
            .says("Reads the configuration file again.")
            .answers(StatusCode::OK, "It is in force.", named("Reloaded"))
            .refuses(
                StatusCode::CONFLICT,
                "The process has no configuration file.",
            )
            .refuses(
                StatusCode::UNPROCESSABLE_ENTITY,
                "The file has mistakes; nothing has changed.",
            ),
        Route::new(Method::POST, "/v1/upgrade", "upgrade", upgrade::upgrade)
            .says("Starts a process of the program on disk, which takes over. It answers when that one serves.")
            .may_take(json!({
                "type": "object",
                "properties": {"patience": {
                    "type": "string",
                    "description": "How long the new process may take to get ready, `10m` at most; by default `60s`.",
                }},
            }))
            .answers(StatusCode::OK, "It serves.", named("Upgraded"))
            .refuses(
                StatusCode::CONFLICT,
                "It is under way already, or this process was not started by `tollgate run`.",
            )
            .refuses(
                StatusCode::INTERNAL_SERVER_ERROR,
                "The new process did not get to serve; the old one goes on.",
            ),
        Route::new(Method::GET, "/healthz", "isAlive", super::alive)
            .says("Whether the process is alive.")
            .open()
            .answers_as(
                StatusCode::OK,
                "It is.",
                Some(("text/plain", json!({"type": "string"}))),
            ),
        Route::new(Method::GET, "/readyz", "isReady", super::ready)
            .says("Whether requests are taken.")
            .open()
            .answers_as(
                StatusCode::OK,
                "They are.",
                Some(("text/plain", json!({"type": "string"}))),
            )
            .answers_as(
                StatusCode::SERVICE_UNAVAILABLE,
                "It starts or drains.",
                Some(("text/plain", json!({"type": "string"}))),
            ),
        Route::new(Method::GET, "/metrics", "getMetrics", super::metrics)
            .says("Metrics in Prometheus' text format.")
            .open()
            .answers_as(
                StatusCode::OK,
                "The metrics.",
                Some(("text/plain", json!({"type": "string"}))),
            ),
    ]
}

/// The router of all pages. Those that are not for everybody are kept from strangers before their body is read, and what changes anything leaves its line.
pub(super) fn router(control: &Shared, callers: &Arc<Callers>) -> Router<Shared> {
    routes().into_iter().fold(Router::new(), |router, route| {
        let mut page = route.router;
        if !route.open {
            page = page
                .route_layer(from_fn_with_state(route.largest, body::read))
                .route_layer(from_fn_with_state(callers.clone(), caller::admit));
        }
        if let Some(retell) = route.retell {
            page = page.route_layer(map_response(move |answer| reword(retell, answer)));
        }
        if route.writes {
            let writing = Writing::new(control, callers, route.method.as_str(), &route.path);
            page = page.route_layer(from_fn_with_state(writing, audit::record));
        }
        router.route(&route.path, page)
    })
}
