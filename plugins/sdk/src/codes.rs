//! Every error that Tollgate answers with itself: its code, its usual status, when it comes and what an operator does about it.
//!
//! The engine's rejections and the plugins' refusals take their codes from here, and the page `docs/errors.md` is made from [`ALL`]. A code is the
//! label of `tollgate_rejections_total`, so the set is closed: nothing that a client sends can add to it.

/// One error.
#[derive(Debug, PartialEq, Eq)]
pub struct Code {
    /// What stands in the answer's `code`.
    pub name: &'static str,
    /// The HTTP status it usually comes with.
    pub status: u16,
    /// When it is answered.
    pub when: &'static str,
    /// What an operator does.
    pub remedy: &'static str,
}

macro_rules! codes {
    ($($(#[doc = $when:literal])* $name:ident = $status:literal $code:literal, $remedy:literal;)*) => {
        $(
            $(#[doc = $when])*
            pub const $name: Code = Code {
                name: $code,
                status: $status,
                when: concat!($($when),*),
                remedy: $remedy,
            };
        )*

        /// All of them, by status.
        pub const ALL: &[Code] = &[$($name),*];
    };
}

codes! {
    /// The request is malformed: no JSON, no model, a name twice, two lengths for one body; or a plugin does not take what it holds.
    INVALID_REQUEST = 400 "invalid_request",
        "`message` says what is wrong and `param` where. It is for the client to mend.";
    /// There is no key or token, or it is unknown, has ended or was revoked.
    INVALID_API_KEY = 401 "invalid_api_key",
        "`tollgate key list` shows which keys there are and when they end. Keys belong to one gateway: see that the client calls the right host.";
    /// The key may not use the model, service or rule, the client's address is not allowed, the gateway asks for client certificates and the request came without TLS, or a plugin refuses.
    PERMISSION_DENIED = 403 "permission_denied",
        "Look at `services`, `models` and `rules` of the key, at `allowed_ips` and `denied_ips` of the gateway, and at the plugins `ip_filter`, `cors`, `model_allowlist` and `external` in its chains. Behind another proxy, `server.trusted_proxies` must name it.";
    /// The plugin `prompt_guard` found something in the prompt that it denies, or nothing of what it demands.
    PROMPT_NOT_ALLOWED = 403 "prompt_not_allowed",
        "What was found is not told. Look at the plugin's patterns if it was none of what they are for.";
    /// No service of the gateway answers to the model.
    MODEL_NOT_FOUND = 404 "model_not_found",
        "`GET /v1/models` with the same key lists what it may use. Look at `models` of the services and of the key.";
    /// No rule and no `path_prefix` takes the path, and the request names no model.
    ROUTE_NOT_FOUND = 404 "route_not_found",
        "Look at `routing` of the gateway: where the model's name is looked for.";
    /// The path is known, but not for this method; `Allow` names those it takes.
    METHOD_NOT_ALLOWED = 405 "method_not_allowed",
        "Look at `methods` of the rule, or of the plugin `cors`.";
    /// The request's head or its body came too slowly.
    REQUEST_TIMEOUT = 408 "request_timeout",
        "Mostly a client that went away or a bad line. `server.header_timeout` and `server.body_timeout` are the limits.";
    /// The plugin `request_size_limiter` wants to know a body's length beforehand.
    LENGTH_REQUIRED = 411 "length_required",
        "The client must send `Content-Length`; or turn off `require_content_length`.";
    /// The body is larger than the gateway or the plugin `request_size_limiter` allows.
    REQUEST_TOO_LARGE = 413 "request_too_large",
        "Raise `server.max_body` or the plugin's limit if such requests are meant to pass.";
    /// No gateway has the request's host, and none is the default; or the connection began with the certificate of another gateway.
    UNKNOWN_HOST = 421 "unknown_host",
        "Add the host to `hosts` of a gateway, or make one the default with `default = true`. A client that is told so on a connection of another host has to open one of its own.";
    /// A limit of a key, a service or a plugin is reached; or the upstream answered 429 and neither the queue nor a fallback helped. `Retry-After` says when to come again.
    RATE_LIMIT_EXCEEDED = 429 "rate_limit_exceeded",
        "`x-ratelimit-*` of the answer tell the limit and what is left of it. For an upstream's 429, turn on the service's `queue` or name a `fallback`.";
    /// A budget in tokens or money is used up for its period.
    INSUFFICIENT_QUOTA = 429 "insufficient_quota",
        "`tollgate usage --by key` says who used what. Raise the budget, or wait for the next day or month (UTC).";
    /// A plugin broke down.
    INTERNAL_ERROR = 500 "internal_error",
        "The log names the plugin; `tollgate_plugin_errors_total` counts. `on_error = \"skip\"` of its entry lets requests pass without it.";
    /// The upstream could not be reached, spoke nonsense or broke off, and no other target or service helped; or a server that a plugin asks failed.
    UPSTREAM_ERROR = 502 "upstream_error",
        "`cause` in the access line says what happened and `target` where. Look at the engine.";
    /// Every target of the service and of its fallbacks is down, cooling or left alone by its breaker.
    NO_HEALTHY_UPSTREAM = 503 "no_healthy_upstream",
        "`tollgate_target_up` and `tollgate_target_breaker_state` say which. Look at these engines; a `fallback` would have served.";
    /// No target has room (`max_in_flight`), the line before it is full or too slow, or all request bodies together would take more memory than `server.body_memory`.
    OVERLOADED = 503 "overloaded",
        "Add targets, raise `max_in_flight` if the engines can take it, turn on the service's `queue`, or name a `fallback`.";
    /// The gateway is paused.
    GATEWAY_PAUSED = 503 "gateway_paused",
        "Set `status` of the gateway to `active`.";
    /// Nobody who would know the client's token answers: neither the issuer nor the identity service.
    IDENTITY_UNAVAILABLE = 503 "identity_unavailable",
        "Look at the server in `auth` of the gateway. `stale` lets tokens go on for a while that were known before.";
    /// The plugin `fault_injection` refused the request on purpose.
    FAULT_INJECTED = 503 "fault_injected",
        "Take the plugin out when the drill is over. Its status is the one of its settings.";
    /// The upstream did not answer in time.
    UPSTREAM_TIMEOUT = 504 "upstream_timeout",
        "`timeouts` of the service are the limits. A long prompt on a busy engine needs a longer `first_byte`.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_stands_once_and_in_order() {
        for pair in ALL.windows(2) {
            let [one, next] = pair else { continue };
            assert!(one.status <= next.status, "{}", next.name);
        }
        for (at, code) in ALL.iter().enumerate() {
            let others = ALL.iter().skip(at + 1);
            assert!(
                others.clone().all(|other| other.name != code.name),
                "{}",
                code.name
            );
            assert!(!code.when.trim().is_empty(), "{}", code.name);
        }
    }
}
