//! The upstreams that routes lead to, each made once, and the names of both.

use serde_json::{Value, json};
use tollgate_sdk::document::FromText;

use super::super::fields::Notes;
use super::super::roles::{self, Placed};
use super::super::{Options, Resource};
use super::flags::Flags;
use super::route::Route;
use super::{push, unique};
use crate::model::{Host, Name, TargetUrl};

const LOCAL: &str = "local";

/// Upstreams and names that are there already.
#[derive(Default)]
pub(super) struct Pools {
    /// Of URL and credential, by name.
    upstreams: Vec<(Option<String>, Option<String>, String)>,
    services: Vec<String>,
}

impl Pools {
    /// The name of the upstream of a route, made if it is not there yet.
    pub(super) fn upstream(
        &mut self,
        route: &Route<'_>,
        flags: &Flags,
        options: &Options,
        resources: &mut Vec<Resource>,
        notes: &mut Notes,
    ) -> String {
        let api_key = route.api_key.map(str::to_owned);
        let known =
            { self.upstreams.iter() }.find(|(url, key, _)| (url, key) == (&route.url, &api_key));
        if let Some((_, _, name)) = known {
            return name.clone();
        }
        let taken: Vec<String> = { self.upstreams.iter() }
            .map(|(_, _, name)| name.clone())
            .collect();
        let name = unique(&wished(route), &taken);
        let targets = match &route.url {
            Some(url) => vec![json!(url)],
            None => local(flags, options, notes),
        };
        let mut body = json!({"name": name, "targets": targets});
        if let Some(body) = body.as_object_mut() {
            if let Some(key) = &api_key {
                body.insert("api_key".into(), json!(key));
            }
            if let (true, Some(policy)) = (route.is_local(), flags.local_policy) {
                body.insert("policy".into(), json!(policy));
            }
            if let (true, Some(split)) = (route.is_local(), &flags.split) {
                body.insert("disaggregation".into(), roles::value(split));
            }
        }
        push(resources, "upstream", body);
        self.upstreams
            .push((route.url.clone(), api_key, name.clone()));
        name
    }

    /// A name for the service of a route.
    pub(super) fn service_name(&mut self, route: &Route<'_>) -> String {
        let name = unique(&wished(route), &self.services);
        self.services.push(name.clone());
        name
    }
}

/// The URL's host, or "local".
fn wished(route: &Route<'_>) -> String {
    let Some(url) = &route.url else {
        return LOCAL.into();
    };
    let host = match TargetUrl::from_text(url).map(|url| (url.host, url.path)) {
        Ok((Host::Name(name), path)) if name.is_empty() => path,
        Ok((host, _)) => host.to_string(),
        Err(_) => String::new(),
    };
    match Name::from_any(&host, "") {
        Some(name) => name.as_str().to_owned(),
        None => "outside".into(),
    }
}

/// Where the engines of the internal pool are, and what each does if requests are split.
fn local(flags: &Flags, options: &Options, notes: &mut Notes) -> Vec<Value> {
    let mut placed = Vec::new();
    let mut is_broken = false;
    let given = { options.local.iter() }.map(|url| ("--local", url));
    let listed = { flags.endpoints.iter() }.map(|url| ("--llm-backend-endpoints", url));
    let from_options = !options.local.is_empty();
    for (path, url) in given.chain(listed.filter(|_| !from_options)) {
        match Placed::from_text(path, url) {
            Ok(one) => {
                let among = "among the targets of the upstream \"local\"";
                notes.taken(path, one.told(among));
                placed.push(one);
            }
            Err(message) => {
                is_broken = true;
                notes.refused(path, message);
            }
        }
    }
    if placed.is_empty() {
        let message = "the engines of the internal pool are not in the document, and not looked for: give each with --local URL";
        notes.refused("--local", message);
    } else if !is_broken {
        let wish = "give --flag pd-disagg-protocol=PROTOCOL";
        let example = "--local URL,role=prefill and --local URL,role=decode";
        roles::check(&placed, flags.split.as_ref(), wish, example, notes);
    }
    placed.iter().map(|one| one.value("")).collect()
}
