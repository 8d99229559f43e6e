//! Tollgate's built-in plugins, one file each.
//!
//! [`BUILTINS`] is the only list of them. Every plugin owns its settings, which say everything that can be wrong when they are
//! read, and what it makes of them once, when it is built: no request compiles a pattern.

mod api_key;
mod budget;
mod concurrency_limiter;
mod cors;
mod data_masking;
mod external;
mod fault_injection;
mod headers;
mod ip_filter;
mod json;
mod mirror;
mod model_allowlist;
mod path;
mod pattern;
mod price;
mod prompt_guard;
mod rate_limiter;
mod request_size_limiter;
mod request_validator;
mod response_cache;
#[cfg(test)]
mod testing;
mod token_rate_limiter;
mod transform;

use tollgate_sdk::plugin::{Kind, kind};

pub use api_key::ApiKey;
pub use budget::Budget;
pub use concurrency_limiter::ConcurrencyLimiter;
pub use cors::Cors;
pub use data_masking::DataMasking;
pub use external::{External, ExternalApi};
pub use fault_injection::FaultInjection;
pub use headers::Headers;
pub use ip_filter::IpFilter;
pub use mirror::Mirror;
pub use model_allowlist::ModelAllowlist;
pub use prompt_guard::PromptGuard;
pub use rate_limiter::RateLimiter;
pub use request_size_limiter::RequestSizeLimiter;
pub use request_validator::RequestValidator;
pub use response_cache::ResponseCache;
pub use token_rate_limiter::TokenRateLimiter;
pub use transform::Transform;

/// Every built-in plugin, some under a second name by which they are known elsewhere.
pub const BUILTINS: &[Kind] = &[
    kind::<Cors>(),
    kind::<IpFilter>(),
    also::<IpFilter>("ip_whitelist"),
    kind::<Headers>(),
    kind::<RateLimiter>(),
    kind::<TokenRateLimiter>(),
    kind::<ConcurrencyLimiter>(),
    kind::<Budget>(),
    kind::<RequestSizeLimiter>(),
    kind::<ModelAllowlist>(),
    kind::<RequestValidator>(),
    kind::<Transform>(),
    kind::<PromptGuard>(),
    also::<PromptGuard>("prompt_moderation"),
    kind::<DataMasking>(),
    kind::<FaultInjection>(),
    kind::<ApiKey>(),
    kind::<External>(),
    kind::<ExternalApi>(),
    kind::<Mirror>(),
    kind::<ResponseCache>(),
];

/// A kind under another name.
const fn also<S: tollgate_sdk::plugin::Builds>(name: &'static str) -> Kind {
    Kind {
        name,
        ..kind::<S>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_own_name_and_says_what_it_is() {
        for (at, kind) in BUILTINS.iter().enumerate() {
            assert!(!(kind.doc)().is_empty(), "{}", kind.name);
            assert!(!kind.stages.is_empty(), "{}", kind.name);
            assert_eq!((kind.schema)()["type"], "object", "{}", kind.name);
            assert!(
                BUILTINS[..at].iter().all(|other| other.name != kind.name),
                "{}",
                kind.name
            );
        }
    }
}
