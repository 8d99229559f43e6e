//! How an error looks to the client: OpenAI's shape, or Anthropic's on its own paths.
//!
//! It owns the words and the shape, not the status nor when an error is given.

use super::quote;

/// The API a client speaks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// OpenAI's, which nearly every engine speaks.
    #[default]
    OpenAi,
    /// Anthropic's messages.
    Anthropic,
}

impl Dialect {
    /// By the request's path: `/v1/messages` and below, also behind a prefix, is Anthropic's.
    pub fn of_path(path: &str) -> Self {
        let path = path.split('?').next().unwrap_or_default();
        let mut after = path.split("/v1/messages").skip(1);
        match after.any(|rest| rest.is_empty() || rest.starts_with('/')) {
            true => Self::Anthropic,
            false => Self::OpenAi,
        }
    }

    /// The `type` of an error with this status; `code` sets an exhausted budget apart from a rate limit.
    pub fn error_type(self, status: u16, code: &str) -> &'static str {
        match (self, status) {
            (_, 401) => "authentication_error",
            (Self::OpenAi, 403) => "permission_error",
            (Self::OpenAi, 429) if code == "insufficient_quota" => "insufficient_quota",
            (_, 429) => "rate_limit_error",
            (Self::OpenAi, 500..) => "server_error",
            (Self::OpenAi, _) => "invalid_request_error",
            (Self::Anthropic, 403) => "permission_error",
            (Self::Anthropic, 404) => "not_found_error",
            (Self::Anthropic, 413) => "request_too_large",
            (Self::Anthropic, 503 | 529) => "overloaded_error",
            (Self::Anthropic, 500..) => "api_error",
            (Self::Anthropic, _) => "invalid_request_error",
        }
    }
}

/// An error as a JSON document in one line. Anthropic's shape has no place for `code` and `param`.
pub fn error_body(
    dialect: Dialect,
    kind: &str,
    code: &str,
    message: &str,
    param: Option<&str>,
) -> String {
    let (kind, message) = (quote(kind), quote(message));
    match dialect {
        Dialect::OpenAi => {
            let param = param.map_or_else(|| "null".to_owned(), quote);
            let code = quote(code);
            format!(
                r#"{{"error":{{"message":{message},"type":{kind},"param":{param},"code":{code}}}}}"#
            )
        }
        Dialect::Anthropic => {
            format!(r#"{{"type":"error","error":{{"type":{kind},"message":{message}}}}}"#)
        }
    }
}

/// The last event of a stream that broke. If the client was left inside an event
/// ([`StreamUsage::inside_event`](super::stream::StreamUsage::inside_event)), a blank line must precede it.
pub fn error_event(
    dialect: Dialect,
    kind: &str,
    code: &str,
    message: &str,
    param: Option<&str>,
) -> String {
    let body = error_body(dialect, kind, code, message, param);
    match dialect {
        Dialect::OpenAi => format!("data: {body}\n\n"),
        Dialect::Anthropic => format!("event: error\ndata: {body}\n\n"),
    }
}
