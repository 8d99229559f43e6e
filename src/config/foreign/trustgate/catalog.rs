//! The native upstreams and services that come of TrustGate's: made when a rule asks for them, each once.
//!
//! A native upstream has one credential, one set of headers and one way with certificates, so targets that differ in these become several, between which
//! rules choose by weight. Whether the targets' paths stand in their URLs depends on the rule, and so does whether a key is asked for.

use serde_json::{Value, json};

use super::super::Resource;
use super::fields::{Body, Names, Report, resource};
use super::service::{Service, To};
use super::target::{Shares, Target};
use super::upstream::Pool;

/// How a rule wants a service.
#[derive(Clone, Copy, PartialEq)]
pub(super) struct Wanted {
    /// The targets' paths stand before the rest of the request's.
    pub(super) with_paths: bool,
    /// No key is asked for.
    pub(super) public: bool,
}

/// A native service and its part of the traffic.
pub(super) type Offered = (String, u64);

/// A native upstream that was made of a pool.
#[derive(Clone)]
struct Made {
    upstream: String,
    /// What tells it from its neighbours, for names.
    called: String,
    weight: u64,
    shares: Shares,
}

#[derive(Default)]
pub(super) struct Catalog {
    pub(super) pools: Vec<Pool>,
    pub(super) services: Vec<Service>,
    pub(super) names: Names,
    /// The gateway, if there is one alone.
    pub(super) gateway: Option<String>,
    upstreams: Vec<Resource>,
    offers: Vec<Resource>,
    made_pools: Vec<(usize, bool, Vec<Made>)>,
    made: Vec<(usize, Wanted, Vec<Offered>)>,
}

impl Catalog {
    /// The targets that a service leads to, as far as they are known.
    pub(super) fn targets(&self, service: usize) -> &[Target] {
        match self.services.get(service).map(|service| &service.to) {
            Some(To::Pool(pool)) => self.pools.get(*pool).map_or(&[], |pool| &pool.targets),
            _ => &[],
        }
    }

    /// The native services for one of TrustGate's.
    pub(super) fn offer(
        &mut self,
        index: usize,
        wanted: Wanted,
        report: &mut Report,
    ) -> Vec<Offered> {
        let same = { self.made.iter() }.find(|(of, how, _)| *of == index && *how == wanted);
        if let Some((.., offered)) = same {
            return offered.clone();
        }
        let first = !self.made.iter().any(|(of, ..)| *of == index);
        let Some(service) = self.services.get(index) else {
            return Vec::new();
        };
        let (name, to) = (
            service.name.clone(),
            match &service.to {
                To::Pool(pool) => Ok(*pool),
                To::Named(upstream) => Err(upstream.clone()),
            },
        );
        let made = match to {
            Ok(pool) => self.upstreams_of(pool, wanted.with_paths, report),
            Err(upstream) => vec![Made {
                upstream,
                called: String::new(),
                weight: 1,
                shares: Shares::default(),
            }],
        };
        let several = made.len() > 1;
        let mut offered = Vec::new();
        for of in &made {
            let mut called = name.clone();
            if several {
                called = format!("{called}-{}", of.called);
            }
            if !first && wanted.public {
                called += "-public";
            }
            let native = match first && !several {
                true => called,
                false => self.names.give("service", &called),
            };
            offered.push((native, of.weight));
        }
        scale(&mut offered);
        for ((native, _), of) in offered.clone().iter().zip(&made) {
            self.push_service(index, native, of, &offered, wanted);
        }
        self.made.push((index, wanted, offered.clone()));
        offered
    }

    fn push_service(
        &mut self,
        index: usize,
        native: &str,
        of: &Made,
        all: &[Offered],
        wanted: Wanted,
    ) {
        let Some(service) = self.services.get(index) else {
            return;
        };
        let mut body = service.body.clone();
        let openai = of.shares.provider.is_some() || service.speaks_openai;
        body.insert("type".into(), if openai { "openai" } else { "http" }.into());
        body.insert("upstream".into(), of.upstream.clone().into());
        if let Some(gateway) = &self.gateway {
            body.insert("gateways".into(), json!([gateway]));
        }
        if wanted.public {
            body.insert("auth".into(), "none".into());
        }
        match (&of.shares.default_model, of.shares.models.len()) {
            (Some(model), 0 | 1) => {
                body.insert("model".into(), model.clone().into());
            }
            (Some(_), _) => {
                let plugin =
                    json!([{"name": "model_allowlist", "settings": {"models": of.shares.models}}]);
                body.insert("plugins".into(), plugin);
            }
            (None, _) => {}
        }
        let others = all.iter().filter(|(name, _)| name != native);
        let others: Vec<Value> = others.map(|(name, _)| name.clone().into()).collect();
        if !others.is_empty() {
            body.insert("fallback".into(), others.into());
        }
        self.offers.push(resource("service", native, body));
    }

    fn upstreams_of(&mut self, index: usize, with_paths: bool, report: &mut Report) -> Vec<Made> {
        let same =
            { self.made_pools.iter() }.find(|(of, paths, _)| *of == index && *paths == with_paths);
        if let Some((.., made)) = same {
            return made.clone();
        }
        let first = !self.made_pools.iter().any(|(of, ..)| *of == index);
        let Some(pool) = self.pools.get(index) else {
            return Vec::new();
        };
        let mut groups: Vec<(&Shares, Vec<&Target>)> = Vec::new();
        for target in &pool.targets {
            match groups
                .iter_mut()
                .find(|(shares, _)| **shares == target.shares)
            {
                Some((_, targets)) => targets.push(target),
                None => groups.push((&target.shares, vec![target])),
            }
        }
        let several = groups.len() > 1;
        if several && first {
            let message = format!(
                "its targets differ in credentials, headers, models or certificates, so it becomes {} upstreams, each with a service; between these weights decide",
                groups.len()
            );
            report.adapted(&pool.path, message);
        }
        let mut made = Vec::new();
        for (number, (shares, targets)) in (1_usize..).zip(groups) {
            let called = shares.provider.map_or(number.to_string(), str::to_owned);
            let mut name = pool.name.clone();
            if several {
                name = format!("{name}-{called}");
            }
            let upstream = match first && !several {
                true => name,
                false => self.names.give("upstream", &name),
            };
            let body = upstream_body(pool, shares, &targets, with_paths);
            self.upstreams.push(resource("upstream", &upstream, body));
            made.push(Made {
                upstream,
                called,
                weight: targets.iter().map(|target| target.weight).sum(),
                shares: shares.clone(),
            });
        }
        self.made_pools.push((index, with_paths, made.clone()));
        made
    }

    /// Everything that was asked for, and what no rule here asked for.
    pub(super) fn finish(mut self, report: &mut Report) -> (Vec<Resource>, Vec<Resource>) {
        let plain = Wanted {
            with_paths: false,
            public: false,
        };
        for index in 0..self.services.len() {
            if !self.made.iter().any(|(of, ..)| *of == index) {
                self.tell_of_paths(index, report);
                self.offer(index, plain, report);
            }
        }
        for index in 0..self.pools.len() {
            if !self.made_pools.iter().any(|(of, ..)| *of == index) {
                if let Some(pool) = self.pools.get(index) {
                    paths_are_left_out(pool, report);
                }
                self.upstreams_of(index, false, report);
            }
        }
        (self.upstreams, self.offers)
    }

    fn tell_of_paths(&self, service: usize, report: &mut Report) {
        if let Some(To::Pool(pool)) = self.services.get(service).map(|service| &service.to)
            && let Some(pool) = self.pools.get(*pool)
        {
            paths_are_left_out(pool, report);
        }
    }
}

/// Without a rule there is nothing that could send a target's path.
fn paths_are_left_out(pool: &Pool, report: &mut Report) {
    if pool
        .targets
        .iter()
        .any(|target| target.sends.is_some() && !target.fixed)
    {
        let message = "no rule here leads to its targets, so the paths of requests are sent as they come, not the targets'; apply it together with its rules";
        report.assumed(&pool.path, message);
    }
}

fn upstream_body(pool: &Pool, shares: &Shares, targets: &[&Target], with_paths: bool) -> Body {
    let mut body = pool.body.clone();
    let targets: Vec<Value> = { targets.iter() }
        .map(|target| {
            let path = target
                .sends
                .as_deref()
                .filter(|_| with_paths)
                .unwrap_or_default();
            let mut native = Body::new();
            native.insert(
                "url".into(),
                format!("{}{}", target.url, literal(path)).into(),
            );
            if target.weight != 1 {
                native.insert("weight".into(), target.weight.into());
            }
            super::fields::with_labels(&mut native, target.labels.clone());
            native.into()
        })
        .collect();
    body.insert("targets".into(), targets.into());
    // The path of the health check is that of targets of the user's own; a provider knows it not.
    if shares.provider.is_some() {
        body.remove("health");
    }
    if let Some(key) = &shares.credentials.api_key {
        body.insert("api_key".into(), key.clone().into());
    }
    if !shares.credentials.headers.is_empty() {
        body.insert("headers".into(), shares.credentials.headers.clone().into());
    }
    if shares.insecure {
        body.insert("tls".into(), json!({"verify": false}));
    }
    body
}

/// Braces that stand for themselves.
pub(super) fn literal(path: &str) -> String {
    path.replace('{', "%7B").replace('}', "%7D")
}

/// Weights of services end at 1000.
fn scale(offered: &mut [Offered]) {
    let most = offered.iter().map(|(_, weight)| *weight).max().unwrap_or(0);
    if most > 1000 {
        for (_, weight) in offered {
            *weight = (weight.saturating_mul(1000) / most).max(1);
        }
    }
}
