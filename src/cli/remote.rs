//! The admin API of a running gateway, as the verbs that need it see it.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderValue, Method, Request, StatusCode};
use bytes::Bytes;
use serde_json::Value;
use tollgate_sdk::plugin::{CallError, Http};
use tollgate_sdk::secret::Secret;

use crate::calls::Calls;

const PATIENCE: Duration = Duration::from_secs(30);
const LARGEST: usize = 256 << 20;

/// Where the gateway is, and what opens its admin API.
#[derive(clap::Args)]
pub(super) struct Remote {
    /// The admin listener of the gateway.
    #[arg(
        long,
        env = "TOLLGATE_SERVER",
        default_value = "http://127.0.0.1:9091",
        value_name = "URL",
        global = true
    )]
    server: String,
    /// A file with the token of the admin API; without it, the token is that of $TOLLGATE_TOKEN, if any.
    #[arg(long, value_name = "FILE", global = true)]
    token_file: Option<PathBuf>,
}

impl Remote {
    /// Asks the gateway; the answer is JSON, or nothing.
    ///
    /// # Errors
    /// What went wrong and, if known, how to mend it, for a person.
    pub(super) fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, String> {
        self.ask_within(PATIENCE, method, path, body)
    }

    /// The same, with another patience.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub(super) fn ask_within(
        &self,
        patience: Duration,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, String> {
        let server = self.server.trim_end_matches('/');
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{server}{path}"));
        if let Some(token) = self.token()? {
            let value = HeaderValue::try_from(format!("Bearer {}", token.expose()));
            let mut value = value.map_err(|_| "the token holds characters that none can have")?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let request = request.body(body);
        let request = request.map_err(|_| format!("--server: {server} is no address"))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        let answer = runtime.block_on(Calls::new().call(request, patience, LARGEST));
        let answer = answer.map_err(|error| unreachable(server, error))?;
        let (status, body) = (answer.status(), answer.into_body());
        let body: Value = match body.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&body)
                .map_err(|_| format!("{server} is no admin listener of a gateway"))?,
        };
        match status.is_success() {
            true => Ok(body),
            false => Err(refusal(status, &body)),
        }
    }

    fn token(&self) -> Result<Option<Secret<String>>, String> {
        let token = match &self.token_file {
            Some(file) => std::fs::read_to_string(file)
                .map(Some)
                .map_err(|error| format!("{}: {error}", file.display()))?,
            None => std::env::var("TOLLGATE_TOKEN").ok(),
        };
        let token = token.map(|token| Secret::new(token.trim().to_owned()));
        Ok(token.filter(|token| !token.expose().is_empty()))
    }
}

fn unreachable(server: &str, error: CallError) -> String {
    format!("{server}: {error}; is the gateway running, and is this its admin listener (--server)?")
}

/// What the gateway said, every mistake on a line of its own.
fn refusal(status: StatusCode, body: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let error = body.get("error").unwrap_or(&Value::Null);
    let mut told = match error.get("message").map(text) {
        Some(message) => message,
        None => format!("the gateway answered {status}"),
    };
    if status == StatusCode::UNAUTHORIZED {
        told += " Give it by $TOLLGATE_TOKEN or --token-file.";
    }
    let details = error.get("details").and_then(Value::as_array);
    for detail in details.into_iter().flatten() {
        let of = |name: &str| detail.get(name).map(text).unwrap_or_default();
        told += &format!("\n  {}: {}", of("path"), of("message"));
    }
    told
}
