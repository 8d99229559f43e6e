//! Paths: how a request's path becomes the target's.

/// Puts a target's own path before the request's. When the target's ends in a version (`/api/v3`) the request's
/// leading version (`/v1`) gives way: `/api/v3` + `/v1/chat/completions` is `/api/v3/chat/completions`.
pub fn join_target_path(base: &str, path: &str) -> String {
    let base = base.trim_end_matches('/');
    let last = base.rsplit('/').next().unwrap_or_default();
    let rest = if is_version(last) {
        let first = path.trim_start_matches('/');
        let end = first.find(['/', '?']).unwrap_or(first.len());
        match first.split_at_checked(end) {
            Some((version, rest)) if is_version(version) => rest,
            _ => path,
        }
    } else {
        path
    };
    format!("{base}{rest}")
}

/// `v1`, `v12`, also `v1beta`.
fn is_version(segment: &str) -> bool {
    let mut rest = segment.bytes();
    rest.next() == Some(b'v') && rest.next().is_some_and(|b| b.is_ascii_digit())
}

/// Whether a path walks up or stays (`.` and `..` segments, also percent-encoded). Such a path may mean another to
/// the upstream than to a rule, so it is refused.
pub(super) fn has_dot_segments(path: &str) -> bool {
    if !path.contains("/.") && !path.contains('%') {
        return false;
    }
    path.split('/').any(|segment| {
        let plain = segment.replace("%2e", ".").replace("%2E", ".");
        plain == "." || plain == ".."
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn joins() {
        for (base, path, joined) in [
            ("", "/v1/chat/completions", "/v1/chat/completions"),
            ("/", "/v1/models", "/v1/models"),
            ("/v1", "/v1/chat/completions", "/v1/chat/completions"),
            ("/api", "/v1/chat/completions", "/api/v1/chat/completions"),
            (
                "/api/v3",
                "/v1/chat/completions",
                "/api/v3/chat/completions",
            ),
            (
                "/api/v3/",
                "/v1/chat/completions?x=/v1",
                "/api/v3/chat/completions?x=/v1",
            ),
            ("/api/v3", "/health", "/api/v3/health"),
            ("/api/v3", "/v1", "/api/v3"),
            ("/v1beta", "/v1/models", "/v1beta/models"),
            ("/vendor", "/v1/models", "/vendor/v1/models"),
        ] {
            assert_eq!(join_target_path(base, path), joined, "{base} + {path}");
        }
    }

    #[test]
    fn dot_segments() {
        for path in ["/a/../b", "/..", "/a/.", "/a/%2e%2E/b", "/./a"] {
            assert!(has_dot_segments(path), "{path}");
        }
        for path in ["/a/b", "/a..b/c", "/.well-known/x", "/a%2Fb", "/..."] {
            assert!(!has_dot_segments(path), "{path}");
        }
    }
}
