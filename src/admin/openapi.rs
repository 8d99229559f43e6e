//! `/v1/openapi.json`: the admin API as an OpenAPI 3.1 document, made from the table of pages and the kinds' declarations.

use axum::Json;
use axum::http::{Method, StatusCode};
use serde_json::{Map, Value, json};

use super::routes::{Answer, Route, routes};
use super::schemas::{self, named};

pub(super) async fn document() -> Json<Value> {
    Json(made())
}

/// The document, as it stands in `conf/openapi.json`.
pub fn text() -> String {
    format!("{:#}\n", made())
}

fn made() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in { routes().into_iter() }.filter(|route| route.retell.is_none()) {
        let page = paths.entry(route.path.clone()).or_insert_with(|| json!({}));
        if let Some(page) = page.as_object_mut() {
            let method = route.method.as_str().to_ascii_lowercase();
            page.insert(method, operation(&route));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tollgate's admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A change is checked, stored, compiled and swapped in, or nothing happens.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:9091"}],
        "paths": paths,
        "components": {
            "schemas": schemas::all(),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "`admin.token`; if there is none, only this machine may ask."},
            },
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.summary,
        "parameters": parameters(route),
        "responses": responses(route),
        // Where there is no token, none is asked for.
        "security": if route.open { json!([]) } else { json!([{"token": []}, {}]) },
    });
    if !route.body.is_empty()
        && let Some(operation) = operation.as_object_mut()
    {
        let content = route
            .body
            .iter()
            .map(|(kind, schema)| content(kind, schema));
        let body = json!({
            "required": route.needs_body,
            "content": content.collect::<Map<_, _>>(),
        });
        operation.insert("requestBody".into(), body);
    }
    operation
}

fn parameters(route: &Route) -> Vec<Value> {
    let path = route.path.split('/').filter_map(|segment| {
        let name = segment.strip_prefix('{')?.strip_suffix('}')?;
        Some(json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "minLength": 1}}))
    });
    let query = route.query.iter().map(|parameter| {
        json!({
            "name": parameter.name,
            "in": "query",
            "description": parameter.doc,
            "schema": parameter.schema,
        })
    });
    let headers = route.headers.iter().map(|(name, doc)| {
        json!({"name": name, "in": "header", "description": doc, "schema": {"type": "string"}})
    });
    path.chain(query).chain(headers).collect()
}

fn responses(route: &Route) -> Value {
    let mut all = Map::new();
    for answer in refusals(route).iter().chain(&route.answers) {
        all.insert(answer.status.as_u16().to_string(), response(answer));
    }
    all.into()
}

/// What every page of the API may answer besides its own.
fn refusals(route: &Route) -> Vec<Answer> {
    if route.open {
        return Vec::new();
    }
    let refusal = |status, doc: &str| Answer {
        status,
        doc: doc.to_owned(),
        content: Some(("application/json", named("Error"))),
        headers: Vec::new(),
    };
    let mut all = vec![
        refusal(StatusCode::BAD_REQUEST, "The request is malformed."),
        refusal(StatusCode::UNAUTHORIZED, "The token is missing or wrong."),
        refusal(
            StatusCode::FORBIDDEN,
            "Who asks may not: from another machine without a token, or a page of another origin.",
        ),
        refusal(
            StatusCode::REQUEST_TIMEOUT,
            "The body did not come in time.",
        ),
        refusal(StatusCode::PAYLOAD_TOO_LARGE, "The body is too large."),
        refusal(StatusCode::INTERNAL_SERVER_ERROR, "Something broke down."),
        refusal(
            StatusCode::SERVICE_UNAVAILABLE,
            "The store cannot be used, or there is too much to do.",
        ),
    ];
    if route.path.contains('{') && route.method == Method::GET {
        all.push(refusal(
            StatusCode::NOT_FOUND,
            "There is none of this name.",
        ));
    }
    all
}

fn response(answer: &Answer) -> Value {
    let mut response = json!({"description": answer.doc});
    if let Some(response) = response.as_object_mut() {
        if let Some((kind, schema)) = &answer.content {
            let (kind, schema) = content(kind, schema);
            response.insert("content".into(), json!({kind: schema}));
        }
        if !answer.headers.is_empty() {
            let headers = answer.headers.iter().map(|(name, doc)| {
                let header = json!({"description": doc, "schema": {"type": "string"}});
                ((*name).to_owned(), header)
            });
            response.insert("headers".into(), headers.collect::<Map<_, _>>().into());
        }
    }
    response
}

fn content(kind: &str, schema: &Value) -> (String, Value) {
    (kind.to_owned(), json!({"schema": schema}))
}
