//! A service's rate limits, compiled.

use std::borrow::Cow;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;
use tollgate_sdk::quota::{Denied, Limit, Quota, Rule, Standing};

use crate::model::{RateKey, RateLimit};

/// The limits of a service, the longest prefix first.
pub struct Rates {
    limits: Vec<(RateLimit, Limit)>,
    quota: Arc<dyn Quota>,
}

impl Rates {
    /// `owner` names the service, so that what was counted is found again in the next revision.
    pub(super) fn of(limits: &[RateLimit], owner: &str, quota: &Arc<dyn Quota>) -> Rates {
        let mut limits: Vec<(RateLimit, Limit)> = limits
            .iter()
            .map(|limit| {
                let id = format!("{owner}/rate_limits{}", limit.prefix).into();
                // The burst comes on top of the one that the rate allows at any time.
                let rule = Rule::Bucket {
                    rate: limit.rps,
                    burst: limit.burst + 1,
                };
                (limit.clone(), Limit { id, rule })
            })
            .collect();
        limits.sort_by_key(|(limit, _)| std::cmp::Reverse(limit.prefix.len()));
        Rates {
            limits,
            quota: quota.clone(),
        }
    }

    /// Counts a request; `None` if no limit concerns it.
    ///
    /// # Errors
    /// [`Denied`] when its limit is spent.
    pub fn count(
        &self,
        path: &str,
        headers: &HeaderMap,
        key: Option<&str>,
        client: IpAddr,
    ) -> Result<Option<Standing>, Denied> {
        let found = self
            .limits
            .iter()
            .find(|(limit, _)| path.starts_with(&limit.prefix));
        let Some((limit, counted)) = found else {
            return Ok(None);
        };
        let who: Option<Cow<'_, str>> = match &limit.key {
            RateKey::Key if key.is_some() => key.map(Cow::Borrowed),
            RateKey::Ip | RateKey::Key => Some(Cow::Owned(client.to_string())),
            RateKey::Header(name) => headers
                .get(name)
                .map(|value| String::from_utf8_lossy(value.as_bytes())),
        };
        let Some(who) = who else { return Ok(None) };
        let charged = self.quota.charge(counted, &who, 1)?;
        Ok(Some(charged))
    }
}

impl fmt::Debug for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.limits.iter().map(|(limit, _)| limit))
            .finish()
    }
}
