//! The admin API of a running gateway, as the verbs that need it see it: over HTTP, or over the admin socket.

mod socket;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, IF_MATCH};
use axum::http::{HeaderValue, Method, Request, Response, StatusCode};
use bytes::Bytes;
use serde_json::Value;
use tokio::runtime::Runtime;
use tollgate_sdk::plugin::{CallError, Http};
use tollgate_sdk::secret::Secret;

use super::ending::Ended;
use super::terminal::plain;
use crate::calls::Calls;

const PATIENCE: Duration = Duration::from_secs(30);
const LARGEST: usize = 256 << 20;

/// Where the gateway is, and what opens its admin API.
#[derive(clap::Args)]
pub(super) struct Remote {
    /// The admin listener of the gateway: http://HOST:PORT, https://… or unix:/PATH for its socket.
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

/// The admin API, ready to be asked; may be asked often.
pub(super) struct Api {
    server: String,
    token: Option<Secret<String>>,
    calls: Calls,
    runtime: Runtime,
    patience: Duration,
}

/// What the gateway answered, whatever it is.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    body: Bytes,
}

/// Why there is no answer to work with.
#[derive(Debug)]
pub(super) struct Refused {
    /// The gateway's own status; `None` if it was not reached.
    pub(super) status: Option<StatusCode>,
    /// The gateway's word for why.
    pub(super) code: String,
    /// For a person.
    message: String,
    /// What is wrong with a document: where, and what.
    pub(super) details: Vec<(String, String)>,
}

impl Remote {
    /// Makes ready; nothing is sent yet.
    ///
    /// # Errors
    /// The token cannot be read.
    pub(super) fn open(&self) -> Result<Api, Refused> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        Ok(Api {
            server: self.server.trim_end_matches('/').to_owned(),
            token: self.token()?,
            calls: Calls::new(),
            runtime: runtime.map_err(|error| Refused::unsent(error.to_string()))?,
            patience: PATIENCE,
        })
    }

    /// Asks the gateway once; the answer is JSON, or nothing.
    ///
    /// # Errors
    /// What went wrong and, if known, how to mend it, for a person.
    pub(super) fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Refused> {
        self.open()?.ask(method, path, body)
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
    ) -> Result<Value, Refused> {
        let api = Api {
            patience,
            ..self.open()?
        };
        api.ask(method, path, body)
    }

    fn token(&self) -> Result<Option<Secret<String>>, Refused> {
        let token = match &self.token_file {
            Some(file) => std::fs::read_to_string(file)
                .map(Some)
                .map_err(|error| Refused::unsent(format!("{}: {error}", file.display())))?,
            None => std::env::var("TOLLGATE_TOKEN").ok(),
        };
        let token = token.map(|token| Secret::new(token.trim().to_owned()));
        Ok(token.filter(|token| !token.expose().is_empty()))
    }
}

impl Api {
    /// Where it is, as it was typed.
    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// Asks; the answer is JSON, or nothing.
    pub(super) fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, Refused> {
        self.ask_if(method, path, body, None)
    }

    /// Asks for something to be done if the configuration's revision is still this one.
    pub(super) fn ask_if(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        revision: Option<u64>,
    ) -> Result<Value, Refused> {
        let answer = self.send(method, path, body, revision)?;
        let json: Value = match answer.body.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&answer.body).map_err(|_| self.is_another())?,
        };
        match answer.status.is_success() {
            true => Ok(json),
            false => Err(Refused::by(answer.status, &json)),
        }
    }

    /// A page that is text.
    pub(super) fn text(&self, path: &str) -> Result<String, Refused> {
        let answer = self.send(Method::GET, path, None, None)?;
        match answer.status.is_success() {
            true => Ok(String::from_utf8_lossy(&answer.body).into_owned()),
            false => Err(self.is_another()),
        }
    }

    fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
        revision: Option<u64>,
    ) -> Result<Answer, Refused> {
        let socket = socket::path(&self.server);
        let base = match socket {
            Some(_) => "",
            None => self.server.as_str(),
        };
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{base}{path}"));
        if let Some(token) = &self.token {
            let value = HeaderValue::try_from(format!("Bearer {}", token.expose()));
            let none = "the token holds characters that none can have";
            let mut value = value.map_err(|_| Refused::unsent(none.to_owned()))?;
            value.set_sensitive(true);
            request = request.header(AUTHORIZATION, value);
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        if let Some(revision) = revision {
            request = request.header(IF_MATCH, format!("\"{revision}\""));
        }
        let body = body.map_or_else(Bytes::new, |body| body.to_string().into());
        let request = request.body(body);
        let request = request
            .map_err(|_| Refused::unsent(format!("--server: {} is no address", self.server)))?;
        let answer: Result<Response<Bytes>, CallError> = self.runtime.block_on(async {
            match socket {
                Some(path) => socket::call(path, request, self.patience, LARGEST).await,
                None => self.calls.call(request, self.patience, LARGEST).await,
            }
        });
        let answer = answer.map_err(|error| {
            let server = &self.server;
            Refused::unsent(format!(
                "{server}: {error}; is the gateway running, and is this its admin listener (--server)?"
            ))
        })?;
        Ok(Answer {
            status: answer.status(),
            body: answer.into_body(),
        })
    }

    fn is_another(&self) -> Refused {
        let server = &self.server;
        Refused::unsent(format!("{server} is no admin listener of a gateway"))
    }
}

impl Refused {
    fn unsent(message: String) -> Refused {
        Refused {
            status: None,
            code: String::new(),
            message,
            details: Vec::new(),
        }
    }

    /// What the gateway said.
    fn by(status: StatusCode, body: &Value) -> Refused {
        let text = |value: &Value, name: &str| {
            let text = value.get(name).and_then(Value::as_str);
            text.map(|text| plain(text).into_owned())
        };
        let error = body.get("error").unwrap_or(&Value::Null);
        let message = text(error, "message");
        let mut message = message.unwrap_or_else(|| format!("the gateway answered {status}"));
        if status == StatusCode::UNAUTHORIZED {
            message += " Give it by $TOLLGATE_TOKEN or --token-file.";
        }
        let details = error.get("details").and_then(Value::as_array);
        let of = |detail: &Value, name: &str| text(detail, name).unwrap_or_default();
        let details = { details.into_iter().flatten() }
            .map(|detail| (of(detail, "path"), of(detail, "message")));
        Refused {
            status: Some(status),
            code: text(error, "code").unwrap_or_default(),
            message,
            details: details.collect(),
        }
    }

    /// Without the details.
    pub(super) fn message(&self) -> &str {
        &self.message
    }
}

/// Every mistake on a line of its own.
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut details = self.details.iter();
        details.try_for_each(|(path, message)| match path.as_str() {
            "" => write!(f, "\n  {message}"),
            path => write!(f, "\n  {path}: {message}"),
        })
    }
}

impl From<Refused> for Ended {
    fn from(refused: Refused) -> Self {
        Ended::Failed(refused.to_string())
    }
}
