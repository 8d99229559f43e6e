//! `ip_filter`: who may call, by address. Also read as `ip_whitelist`.
//!
//! The address is the one the gateway believes: of the peer, or, where a trusted proxy speaks, of whom it speaks for. What is denied
//! is denied whatever is allowed; if anything is allowed by name, nothing else is.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use tollgate_sdk::document;
use tollgate_sdk::document::{At, Node, Reading};
use tollgate_sdk::plugin::{Builds, Built, Exchange, Host, Plugin, Refusal, Stage, Step};

document! {
    /// Who may call, by address; others get 403. `ips` and `cidrs` are further names for `allow`.
    pub struct IpFilter (checked) {
        /// Whether anything is filtered.
        enabled: bool = true,
        /// Addresses and ranges that may call; none is all.
        #[example = ["10.0.0.0/8"]]
        allow: Vec<IpNet> = Vec::new(),
        /// Addresses and ranges that may not, also if they are in `allow`.
        #[example = ["192.0.2.7"]]
        deny: Vec<IpNet> = Vec::new(),
        /// Addresses that may call.
        #[example = ["192.0.2.7"]]
        ips: Vec<IpNet> = Vec::new(),
        /// Ranges that may call.
        #[example = ["10.0.0.0/8"]]
        cidrs: Vec<IpNet> = Vec::new(),
    }
}

impl IpFilter {
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        let lists = ["allow", "deny", "ips", "cidrs"];
        let given = |name: &&str| {
            let list = node.entry(name);
            list.is_some_and(|list| list.as_list().is_none_or(|items| !items.is_empty()))
        };
        // A list that was emptied must not come to mean everybody.
        if self.enabled && !lists.iter().any(given) {
            let help = "name addresses in `allow` or `deny`, or write that `enabled` is false";
            r.error(node.span, at, "no address is allowed or denied", help);
        }
        self
    }
}

impl Builds for IpFilter {
    const NAME: &'static str = "ip_filter";
    const STAGES: &'static [Stage] = &[Stage::PreRequest];

    fn build(&self, _: &Host) -> Built {
        let allow = [&self.allow, &self.ips, &self.cidrs].into_iter().flatten();
        Arc::new(Filter {
            enabled: self.enabled,
            allow: Ranges::of(allow),
            deny: Ranges::of(&self.deny),
        })
    }
}

struct Filter {
    enabled: bool,
    allow: Ranges,
    deny: Ranges,
}

impl Plugin for Filter {
    fn pre_request<'a>(&'a self, x: &'a mut Exchange<'_>) -> Step<'a> {
        // An IPv4 client of a socket for both is written as IPv6.
        let client = x.request.client.to_canonical();
        let allowed = self.allow.is_empty() || self.allow.contain(client);
        if !self.enabled || (allowed && !self.deny.contain(client)) {
            return Step::PASS;
        }
        Step::Done(Err(Refusal::forbidden("your address may not call here")))
    }
}

/// Addresses as sorted ranges that do not overlap, so that a long list costs a binary search.
struct Ranges(Vec<(IpAddr, IpAddr)>);

impl Ranges {
    fn of<'a>(nets: impl IntoIterator<Item = &'a IpNet>) -> Self {
        let mut ranges: Vec<_> = nets
            .into_iter()
            .map(|net| (net.network(), net.broadcast()))
            .collect();
        ranges.sort_unstable();
        ranges.dedup_by(|next, kept| {
            let meets = next.0 <= kept.1;
            if meets {
                kept.1 = kept.1.max(next.1);
            }
            meets
        });
        Self(ranges)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn contain(&self, address: IpAddr) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= address);
        let range = after.checked_sub(1).and_then(|at| self.0.get(at));
        range.is_some_and(|(_, last)| address <= *last)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::testing::{Call, plugin, problems};

    #[test]
    fn only_the_allowed_may_call() {
        let filter = plugin(
            "ip_whitelist",
            json!({"enabled": true, "ips": ["127.0.0.1", "2001:db8::1"], "cidrs": ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.128/25"]}),
        );
        for (client, status) in [
            ("127.0.0.1", None),
            ("127.0.0.2", Some(403)),
            ("::ffff:127.0.0.1", None),
            ("10.255.255.255", None),
            ("10.1.2.3", None),
            ("11.0.0.0", Some(403)),
            ("9.255.255.255", Some(403)),
            ("192.0.2.127", Some(403)),
            ("192.0.2.128", None),
            ("2001:db8::1", None),
            ("2001:db8::2", Some(403)),
            ("::7f00:1", Some(403)),
        ] {
            assert_eq!(
                Call::get().from(client).refused(&filter),
                status,
                "{client}"
            );
        }
    }

    #[test]
    fn what_is_denied_is_denied_whatever_is_allowed() {
        let filter = plugin(
            "ip_filter",
            json!({"allow": ["10.0.0.0/8"], "deny": ["10.9.9.9"]}),
        );
        assert_eq!(Call::get().from("10.9.9.9").refused(&filter), Some(403));
        assert_eq!(Call::get().from("10.9.9.8").refused(&filter), None);
        let filter = plugin("ip_filter", json!({"deny": ["10.9.9.9"]}));
        assert_eq!(Call::get().from("10.9.9.9").refused(&filter), Some(403));
        assert_eq!(Call::get().from("192.0.2.1").refused(&filter), None);
    }

    #[test]
    fn it_can_be_turned_off_but_not_emptied_by_accident() {
        let filter = plugin("ip_filter", json!({"enabled": false}));
        assert_eq!(Call::get().from("10.9.9.9").refused(&filter), None);
        let told = problems("ip_filter", json!({"allow": []}));
        assert!(
            told.concat()
                .contains("no address is allowed or denied (name addresses")
        );
    }

    #[test]
    fn every_mistake_is_told_at_once() {
        let told = problems(
            "ip_filter",
            json!({"ips": ["10.0.0", "x"], "deny": ["10.0.0.0/33"]}),
        );
        assert_eq!(told.len(), 3, "{told:?}");
        assert!(
            told.concat()
                .contains("ips[1]: \"x\": not an address or a range of addresses (write")
        );
    }
}
