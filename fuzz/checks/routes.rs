//! Hosts, rules and models agree with a reference that looks at each in turn; shared by the fuzz target and the property tests.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::sync::Arc;

use http::{HeaderMap, Method};
use tollgate::config::{self, Format};
use tollgate::snapshot::{Decision, Head, ModelName, Registry, Snapshot, Who, compile};
use tollgate::telemetry::Metrics;
use tollgate_sdk::plugin::NoHttp;

/// Makes a configuration and requests of any bytes.
struct Bytes<'a>(std::slice::Iter<'a, u8>);

impl Bytes<'_> {
    fn below(&mut self, end: usize) -> usize {
        usize::from(*self.0.next().unwrap_or(&0)) % end
    }

    fn one<'t>(&mut self, of: &[&'t str]) -> &'t str {
        of[self.below(of.len())]
    }

    fn several(&mut self, most: usize, between: &str, of: &[&str]) -> String {
        let count = 1 + self.below(most);
        let all: Vec<_> = (0..count).map(|_| self.one(of)).collect();
        all.join(between)
    }

    /// Fewer than `most`, each once.
    fn some(&mut self, most: usize, make: fn(&mut Self) -> String) -> Vec<String> {
        let count = self.below(most);
        let mut seen = BTreeSet::new();
        let all = (0..count).map(|_| make(self));
        all.filter(|text| seen.insert(text.clone())).collect()
    }

    fn host(&mut self) -> String {
        let star = self.one(&["", "", "*."]);
        star.to_owned() + &self.several(4, ".", &["a", "b", "ab", "c-1"])
    }

    fn path(&mut self) -> String {
        let count = 1 + self.below(4);
        let mut path = String::new();
        for place in 0..count {
            match self.one(&["a", "b", "ab", "a", "{"]) {
                // A name of its own for each.
                "{" => path += &format!("/{{p{place}}}"),
                literal => path += &format!("/{literal}"),
            }
        }
        path + self.one(&["", "", "/*"])
    }

    fn model(&mut self) -> String {
        let end = self.one(&["", "*"]);
        self.several(4, "", &["a", "b", "/", "é"]) + end
    }
}

/// What is configured, in the order of the document.
#[derive(Default)]
struct Configured {
    hosts: Vec<String>,
    rules: Vec<String>,
    models: Vec<String>,
}

impl Configured {
    fn of(bytes: &mut Bytes) -> Self {
        Self {
            hosts: bytes.some(8, Bytes::host),
            // Above 16 they are found in another way.
            rules: bytes.some(40, Bytes::path),
            models: bytes.some(8, Bytes::model),
        }
    }

    fn document(&self) -> String {
        let mut text = "[server]\nstate = \"memory\"\n[[listener]]\naddress = \"127.0.0.1:1\"\n\
            [[gateway]]\nname = \"main\"\nhosts = [\"*\"]\nauth = \"none\"\n"
            .to_owned();
        for (n, host) in self.hosts.iter().enumerate() {
            let _ = write!(
                text,
                "[[gateway]]\nname = \"h{n}\"\nhosts = [\"{host}\"]\nauth = \"none\"\n"
            );
        }
        let service = |text: &mut String, name: &str, more: &str| {
            let _ = write!(
                text,
                "[[service]]\nname = \"{name}\"\ngateways = [\"main\"]\ntargets = [\"http://127.0.0.1:9\"]\n{more}\n"
            );
        };
        for (n, model) in self.models.iter().enumerate() {
            service(
                &mut text,
                &format!("m{n}"),
                &format!("models = [\"{model}\"]"),
            );
        }
        for (n, path) in self.rules.iter().enumerate() {
            service(&mut text, &format!("r{n}"), "");
            let _ = write!(
                text,
                "[[rule]]\ngateway = \"main\"\npath = \"{path}\"\nservices = [\"r{n}\"]\n"
            );
        }
        text
    }

    /// The name of the gateway of a host.
    fn gateway(&self, host: &str) -> String {
        let exact = self.hosts.iter().position(|known| known == host);
        let suffix = |known: &String| known.strip_prefix('*').map(str::len);
        let wild = self.hosts.iter().enumerate().filter(|(_, known)| {
            let suffix = known.strip_prefix('*');
            suffix.is_some_and(|suffix| host.ends_with(suffix) && host.len() > suffix.len())
        });
        let wild = wild.max_by_key(|(_, known)| suffix(known)).map(|(n, _)| n);
        exact
            .or(wild)
            .map_or_else(|| "main".to_owned(), |n| format!("h{n}"))
    }

    /// The name of the service of a request.
    fn service(&self, path: &str, model: &str) -> Option<String> {
        let rules = self.rules.iter().enumerate();
        let best = rules
            .filter(|(_, pattern)| takes(pattern, path))
            .min_by_key(|(n, pattern)| (rank(pattern), *n));
        if let Some((n, _)) = best {
            return Some(format!("r{n}"));
        }
        let exact = self.models.iter().position(|known| known == model);
        let prefixes = self.models.iter().enumerate().filter(|(_, known)| {
            let prefix = known.strip_suffix('*');
            prefix.is_some_and(|prefix| model.starts_with(prefix))
        });
        let longest = prefixes
            .max_by_key(|(_, known)| known.len())
            .map(|(n, _)| n);
        exact.or(longest).map(|n| format!("m{n}"))
    }
}

/// Exact paths, then those with parameters by what is written out, then prefixes by their length.
fn rank(pattern: &str) -> (u8, usize) {
    let open = pattern.strip_suffix("/*");
    let path = open.unwrap_or(pattern);
    if path.contains('{') {
        let lengths = path
            .split('/')
            .skip(1)
            .map(|part| match part.starts_with('{') {
                true => 1,
                false => part.len() + 1,
            });
        return (1, usize::MAX - lengths.sum::<usize>());
    }
    (if open.is_some() { 2 } else { 0 }, usize::MAX - path.len())
}

fn takes(pattern: &str, path: &str) -> bool {
    let open = pattern.strip_suffix("/*");
    let wanted: Vec<_> = open.unwrap_or(pattern).split('/').collect();
    let given: Vec<_> = path.split('/').collect();
    let long_enough = given.len() == wanted.len() || (open.is_some() && given.len() > wanted.len());
    let mut pairs = wanted.iter().zip(&given);
    long_enough
        && pairs.all(|(want, part)| match want.starts_with('{') {
            true => !part.is_empty(),
            false => want == part,
        })
}

/// Wherever a request goes by the compiled configuration, it goes by the reference, too.
pub(crate) fn check_routes(input: &[u8]) {
    let mut bytes = Bytes(input.iter());
    let configured = Configured::of(&mut bytes);
    let no_file = |_: &str| Err("there are no files here".to_owned());
    let text = configured.document();
    let loaded = config::parse("routes", &text, Format::Toml, &|_| None, &no_file)
        .unwrap_or_else(|mistakes| panic!("{mistakes}\n{text}"));
    let registry = Registry::new(Arc::new(NoHttp));
    let metrics = Arc::new(Metrics::new());
    let snapshot = compile(&loaded.config, 1, &registry, &metrics, None);
    while !bytes.0.as_slice().is_empty() {
        let host = bytes.several(5, ".", &["a", "b", "ab", "c-1"]);
        let path = format!("/{}", bytes.several(6, "/", &["a", "b", "ab", "c", ""]));
        let model = bytes.several(5, "", &["a", "b", "/", "é"]);
        for host in [
            host.clone(),
            host.to_uppercase() + ":8080",
            host.clone() + ".",
        ] {
            let found = snapshot
                .hosts
                .find(&host)
                .map(|e| snapshot.gateways[e.gateway].name.clone());
            let plain = host.to_lowercase().replace(":8080", "");
            let wanted = configured.gateway(plain.trim_end_matches('.'));
            assert_eq!(found.as_deref(), Some(wanted.as_str()), "{host} of\n{text}");
        }
        let wanted = configured.service(&path, &model);
        assert_eq!(
            service(&snapshot, &path, &model),
            wanted,
            "{path} with {model} of\n{text}"
        );
    }
}

fn service(snapshot: &Snapshot, path: &str, model: &str) -> Option<String> {
    let gateway = snapshot
        .gateways
        .iter()
        .find(|gateway| &*gateway.name == "main")?;
    let headers = HeaderMap::new();
    let head = Head {
        method: &Method::POST,
        path,
        headers: &headers,
        service: None,
        who: Who::Anybody,
    };
    match gateway.router.decide(head, ModelName::Is(model)) {
        Decision::Route(route) => Some(route.offer.service.name.to_string()),
        _ => None,
    }
}
