//! The files that documents name for TLS: whether they hold what they should. Everything else is known by then.

use std::path::Path;
use std::time::SystemTime;

use tollgate_sdk::document::{At, Node, ReadFile, Reading};
use tollgate_sdk::secret::Secret;

use super::kinds::{Model, ResourceKind};
use super::resource::Mistake;
use super::sections::{Entry, Sections};
use crate::model::{Certificate, Config, Gateway, HostPattern, ListenerTls, Proof, StateStore};
use crate::tls::{ClientFiles, Leaf, Part, ReadPem, ServerFiles, Wrong};

/// What is to say of a file, at a field of the resource that names it.
struct Finding {
    field: [&'static str; 2],
    message: String,
    help: String,
    /// It is usable all the same.
    usable: bool,
}

/// Where a resource names its files.
struct Fields {
    certificate: [&'static str; 2],
    key: [&'static str; 2],
    authorities: [&'static str; 2],
}

const OF_GATEWAY: Fields = Fields {
    certificate: ["certificate", "certificate"],
    key: ["certificate", "key"],
    authorities: ["client_ca", ""],
};
const OF_OTHERS: Fields = Fields {
    certificate: ["tls", "certificate"],
    key: ["tls", "key"],
    authorities: ["tls", "ca"],
};

/// Only upstreams name revocation lists.
const OF_LISTS: [&str; 2] = ["tls", "crl"];

impl Fields {
    fn wrong(&self, wrong: Vec<Wrong>) -> Vec<Finding> {
        let finding = |wrong: Wrong| Finding {
            field: match wrong.part {
                Part::Certificate => self.certificate,
                Part::Key => self.key,
                Part::Authorities => self.authorities,
                Part::Revoked => OF_LISTS,
            },
            message: wrong.message,
            help: wrong.help.to_owned(),
            usable: false,
        };
        wrong.into_iter().map(finding).collect()
    }

    fn doubtful(&self, message: String, help: &str) -> Finding {
        Finding {
            field: self.certificate,
            message,
            help: help.to_owned(),
            usable: true,
        }
    }

    fn of_server(
        &self,
        files: Option<ServerFiles>,
        hosts: &[HostPattern],
        read: &ReadPem<'_>,
    ) -> Vec<Finding> {
        match files.map(|files| files.check(read)) {
            None | Some(Ok(None)) => Vec::new(),
            Some(Err(wrong)) => self.wrong(wrong),
            Some(Ok(Some(leaf))) => self.doubts(&leaf, hosts),
        }
    }

    /// What clients will not like.
    fn doubts(&self, leaf: &Leaf, hosts: &[HostPattern]) -> Vec<Finding> {
        let mut found = Vec::new();
        if let Some(why) = leaf.untimely(SystemTime::now()) {
            let message = format!("clients will refuse the certificate: {why}");
            found.push(self.doubtful(message, "put a current one in its place"));
        }
        let uncovered = hosts.iter().filter_map(|host| match host {
            HostPattern::Exact(host) if !leaf.is_for(host) => Some(&**host),
            _ => None,
        });
        let uncovered: Vec<&str> = uncovered.collect();
        if !uncovered.is_empty() {
            let (for_, not) = (leaf.names.join(", "), uncovered.join(", "));
            let message = format!("the certificate is for {for_}, and not for {not}");
            let help = "use one that names every host of the gateway";
            found.push(self.doubtful(message, help));
        }
        found
    }
}

fn of_gateway(gateway: &Gateway, config: &Config, read: &ReadPem<'_>) -> Vec<Finding> {
    let files = ServerFiles::of_gateway(gateway);
    let mut found = OF_GATEWAY.of_server(files, &gateway.hosts, read);
    let in_file = matches!(config.server.state, StateStore::File(_));
    let obstacles = config.acme.obstacles(gateway, in_file).into_iter();
    found.extend(obstacles.map(|(message, help)| Finding {
        field: ["certificate", ""],
        message,
        help: help.to_owned(),
        usable: false,
    }));
    found
}

fn of_upstream(tls: &crate::model::UpstreamTls, read: &ReadPem<'_>) -> Vec<Finding> {
    match ClientFiles::of(tls).map(|files| files.check(read)) {
        Some(Err(wrong)) => OF_OTHERS.wrong(wrong),
        Some(Ok(doubt)) => { doubt.into_iter() }
            .map(|doubt| Finding {
                field: OF_LISTS,
                message: doubt.message,
                help: doubt.help.to_owned(),
                usable: true,
            })
            .collect(),
        None => Vec::new(),
    }
}

/// Looks at the files that a configuration names; everything in it has been read.
pub(super) fn check(
    config: &Config,
    sections: &Sections<'_>,
    read: &ReadFile<'_>,
    r: &mut Reading<'_>,
) {
    let read = |path: &Path| match path.to_str() {
        Some(path) => read(path).map(Secret::new),
        None => Err("its path is not UTF-8".to_owned()),
    };
    let read: &ReadPem<'_> = &read;
    for (entry, listener) in sections.all("listener").zip(&config.listeners) {
        let files = ServerFiles::of_listener(listener);
        tell(entry, OF_OTHERS.of_server(files, &[], read), r);
    }
    for (entry, gateway) in sections.all("gateway").zip(&config.gateways) {
        tell(entry, of_gateway(gateway, config, read), r);
    }
    unused(config, sections, r);
    for (entry, upstream) in sections.all("upstream").zip(&config.upstreams) {
        tell(entry, of_upstream(&upstream.tls, read), r);
    }
}

/// Warns of certificates that nobody sees, and of listeners with nothing to show.
fn unused(config: &Config, sections: &Sections<'_>, r: &mut Reading<'_>) {
    let speaks = config.listeners.iter().any(|l| l.tls.is_some());
    let shows = (config.gateways.iter()).any(|g| g.certificate != Certificate::None);
    let of_listeners = sections.all("listener").zip(&config.listeners);
    let auto = of_listeners.filter(|(_, l)| l.tls == Some(ListenerTls::Auto) && !shows);
    let of_gateways = sections.all("gateway").zip(&config.gateways);
    let alone = of_gateways.filter(|(_, g)| g.certificate != Certificate::None && !speaks);
    let auto = auto.map(|(entry, _)| {
        let message = "no gateway of the file has a certificate: clients are refused";
        (entry, "tls", message, "give gateways a `certificate`")
    });
    let alone = alone.map(|(entry, _)| {
        let message = "nobody sees the certificate: no listener speaks TLS";
        (
            entry,
            "certificate",
            message,
            "add to a listener: tls = \"auto\"",
        )
    });
    // An authority begins at port 80 or 443; behind what forwards these any port does.
    let plain = config.listeners.iter().any(|l| l.tls.is_none());
    let unseen = config.acme.challenge == Proof::Http01 && !plain && speaks;
    let of_gateways = sections.all("gateway").zip(&config.gateways);
    let unproved = of_gateways.filter(|(_, g)| g.certificate == Certificate::Ordered && unseen);
    let unproved = unproved.map(|(entry, _)| {
        let message = "no listener answers the authority: by http-01 it asks in the clear";
        let help = "add a listener without tls, or another acme.challenge";
        (entry, "certificate", message, help)
    });
    for (entry, field, message, help) in auto.chain(alone).chain(unproved) {
        let given = entry.node.entry(field);
        let span = given.map_or(entry.node.span, |node| node.span);
        entry.at(|at| r.warn(span, &at.field(field), message, help));
    }
}

fn tell(entry: &Entry<'_>, found: Vec<Finding>, r: &mut Reading<'_>) {
    for finding in found {
        let [outer, inner] = finding.field;
        let given = entry.node.entry(outer);
        let place = given.and_then(|given| given.entry(inner)).or(given);
        let span = place.map_or(entry.node.span, |node: &Node| node.span);
        entry.at(|at: &At<'_>| {
            let outer = at.field(outer);
            let deeper = (!inner.is_empty()).then(|| outer.field(inner));
            let at = deeper.as_ref().unwrap_or(&outer);
            match finding.usable {
                true => r.warn(span, at, finding.message, finding.help),
                false => r.error(span, at, finding.message, finding.help),
            }
        });
    }
}

/// What is wrong with the files that a resource names, and what is doubtful in them.
pub(super) fn of(
    model: &Model,
    config: &Config,
    prefix: &str,
    read: &ReadPem<'_>,
) -> (Vec<Mistake>, Vec<Mistake>) {
    let found = match model {
        Model::Gateway(gateway) => of_gateway(gateway, config, read),
        Model::Upstream(upstream) => of_upstream(&upstream.tls, read),
        Model::Service(_) | Model::Rule(_) | Model::Key(_) | Model::Target(_) => Vec::new(),
    };
    let (usable, wrong): (Vec<_>, Vec<_>) = found.into_iter().partition(|found| found.usable);
    let told = |found: Vec<Finding>| {
        let mistake = |found: Finding| {
            let path = [prefix, found.field[0], found.field[1]];
            let path: Vec<_> = path.into_iter().filter(|step| !step.is_empty()).collect();
            Mistake::new(path.join("."), format!("{}; {}", found.message, found.help))
        };
        found.into_iter().map(mistake).collect()
    };
    (told(wrong), told(usable))
}

/// Whether a kind of resource names files at all.
pub(super) fn concerns(kind: ResourceKind) -> bool {
    matches!(kind, ResourceKind::Gateway | ResourceKind::Upstream)
}
