//! From a host name to its gateway.

use std::collections::HashMap;

/// Where a host leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostEntry {
    /// Index of the gateway.
    pub gateway: usize,
    /// The one service that lives at this host (`<service>.<domain>`), as an index of the gateway's offers.
    pub service: Option<usize>,
}

/// Exact names first, then the longest wildcard, then `*`, then the default gateway.
#[derive(Debug, Default)]
pub struct Hosts {
    exact: HashMap<Box<str>, HostEntry>,
    wildcard: HashMap<Box<str>, HostEntry>,
    any: Option<HostEntry>,
    default: Option<HostEntry>,
}

impl Hosts {
    /// The first to claim a name keeps it.
    pub fn claim(&mut self, host: &str, entry: HostEntry) {
        let host = host.to_ascii_lowercase();
        match host.strip_prefix("*.") {
            _ if host == "*" => {
                self.any.get_or_insert(entry);
            }
            Some(suffix) => {
                self.wildcard.entry(suffix.into()).or_insert(entry);
            }
            None => {
                self.exact.entry(host.into()).or_insert(entry);
            }
        }
    }

    /// Makes an entry the one for hosts nobody claims.
    pub fn set_default(&mut self, entry: HostEntry) {
        self.default.get_or_insert(entry);
    }

    /// Every name that leads to a gateway as a whole, with the gateway's index; in no order.
    pub fn names(&self) -> impl Iterator<Item = (String, usize)> {
        let exact = self.exact.iter().map(|(name, e)| (name.to_string(), e));
        let wildcard = self
            .wildcard
            .iter()
            .map(|(name, e)| (format!("*.{name}"), e));
        let any = self.any.iter().map(|e| ("*".to_owned(), e));
        let all = exact.chain(wildcard).chain(any);
        all.filter(|(_, entry)| entry.service.is_none())
            .map(|(name, entry)| (name, entry.gateway))
    }

    /// Every name that leads to a gateway or to one of its services, in no order.
    pub fn of(&self, gateway: usize) -> impl Iterator<Item = String> {
        let is_its = move |entry: &HostEntry| entry.gateway == gateway;
        let exact = self.exact.iter().filter(move |(_, e)| is_its(e));
        let wildcard = self.wildcard.iter().filter(move |(_, e)| is_its(e));
        exact
            .map(|(name, _)| name.to_string())
            .chain(wildcard.map(|(name, _)| format!("*.{name}")))
    }

    /// `host` as it stands in a request: any case, with or without port.
    pub fn find(&self, host: &str) -> Option<HostEntry> {
        if self.exact.is_empty() && self.wildcard.is_empty() {
            return self.any.or(self.default);
        }
        let name = without_port(host).trim_end_matches('.');
        let lower;
        let name = if name.bytes().any(|b| b.is_ascii_uppercase()) {
            lower = name.to_ascii_lowercase();
            &lower
        } else {
            name
        };
        if let Some(entry) = self.exact.get(name) {
            return Some(*entry);
        }
        let mut rest = name;
        while let Some((_, suffix)) = rest.split_once('.') {
            if let Some(entry) = self.wildcard.get(suffix) {
                return Some(*entry);
            }
            rest = suffix;
        }
        self.any.or(self.default)
    }
}

/// A host as it stands in a request, without the port.
pub fn without_port(host: &str) -> &str {
    match host.rfind(':') {
        // Inside brackets a colon belongs to an IPv6 address.
        Some(colon) if !host.get(colon..).is_some_and(|rest| rest.contains(']')) => {
            host.get(..colon).unwrap_or(host)
        }
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(gateway: usize) -> HostEntry {
        HostEntry {
            gateway,
            service: None,
        }
    }

    #[test]
    fn exact_then_longest_wildcard_then_any() {
        let mut hosts = Hosts::default();
        hosts.claim("api.example.com", entry(0));
        hosts.claim("*.example.com", entry(1));
        hosts.claim("*.eu.example.com", entry(2));
        assert_eq!(hosts.find("API.example.com:8443"), Some(entry(0)));
        assert_eq!(hosts.find("x.example.com"), Some(entry(1)));
        assert_eq!(hosts.find("a.b.eu.example.com."), Some(entry(2)));
        assert_eq!(hosts.find("example.com"), None);
        assert_eq!(hosts.find("[::1]:80"), None);
        hosts.set_default(entry(4));
        assert_eq!(hosts.find("example.com"), Some(entry(4)));
        hosts.claim("*", entry(3));
        assert_eq!(hosts.find("example.com"), Some(entry(3)));
        assert_eq!(hosts.find(""), Some(entry(3)));
    }
}
