//! Files for whoever runs Tollgate in containers: what they name is there, and who reads them would take them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use regex::Regex;
use serde_json::Value;
use tollgate::config::{self, Format};
use tollgate::telemetry::Metrics;

use super::repository;
use crate::harness::{assert_done, python};

fn text(path: &str) -> String {
    fs::read_to_string(repository(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn yaml(text: &str) -> Value {
    config::tree(text, Format::Yaml).unwrap().json()
}

fn judged(by: &str, file: &Path) {
    let folder = tempfile::tempdir().unwrap();
    let script = repository("tests/sdk/deployment.py");
    let arguments = [
        &script.display().to_string(),
        by,
        &file.display().to_string(),
    ];
    assert_done(&python(folder.path(), &arguments));
}

/// Every query of the dashboard and of the alerts, with where it stands.
fn queries() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&text("conf/grafana/tollgate.json")).unwrap();
    let mut all = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        let title = panel["title"].as_str().unwrap();
        for target in panel["targets"].as_array().into_iter().flatten() {
            all.push((
                title.to_owned(),
                target["expr"].as_str().unwrap().to_owned(),
            ));
        }
    }
    let alerts = yaml(&text("conf/alerts.yml"));
    for rule in alerts["groups"][0]["rules"].as_array().unwrap() {
        let name = rule["alert"].as_str().unwrap();
        all.push((name.to_owned(), rule["expr"].as_str().unwrap().to_owned()));
        let summary = rule["annotations"]["summary"].as_str().unwrap();
        assert!(!summary.is_empty(), "{name}");
    }
    for page in ["docs/observability.md", "README.md"] {
        for block in text(page).split("```text\n").skip(1) {
            let block = block.split("```").next().unwrap();
            let lines = block.lines().filter(|line| line.contains("tollgate_"));
            all.extend(lines.map(|line| (page.to_owned(), line.to_owned())));
        }
    }
    assert!(all.len() > 40, "{}", all.len());
    all
}

/// Prometheus' grammar takes them all.
#[test]
fn queries_are_written_as_prometheus_reads_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("queries.json");
    let all: Vec<String> = queries().into_iter().map(|(_, query)| query).collect();
    fs::write(&file, serde_json::to_string(&all).unwrap()).unwrap();
    judged("queries", &file);
}

/// What they ask for is counted, under labels that it has.
#[test]
fn queries_ask_for_what_is_counted() {
    let metrics = Metrics::new();
    let name = Regex::new(r"tollgate_[a-z_]+").unwrap();
    let label = Regex::new(r"([a-z_]+)\s*(?:=~|!~|!=|=)").unwrap();
    let selected = Regex::new(r"(tollgate_[a-z_]+)\{([^}]*)\}").unwrap();
    let grouped = Regex::new(r"by \(([^)]*)\)").unwrap();
    for (place, query) in queries() {
        let find = |name: &str| {
            let mut base = ["_bucket", "_sum", "_count"].iter();
            let base = base.find_map(|suffix| name.strip_suffix(suffix));
            let found = metrics.declared().iter().find(|metric| {
                metric.name == name
                    || base.is_some_and(|base| metric.name == base && metric.kind == "histogram")
            });
            found.unwrap_or_else(|| panic!("{place}: nothing counts {name}"))
        };
        let mut known: BTreeSet<&str> = ["le", "job", "instance"].into();
        for found in name.find_iter(&query) {
            known.extend(find(found.as_str()).labels.iter().map(String::as_str));
        }
        for found in selected.captures_iter(&query) {
            let labels = &find(&found[1]).labels;
            for used in label.captures_iter(&found[2]) {
                let used = &used[1];
                assert!(
                    labels.iter().any(|label| label == used) || ["job", "instance"].contains(&used),
                    "{place}: {} has no label {used}",
                    &found[1]
                );
            }
        }
        for found in grouped.captures_iter(&query) {
            for used in found[1].split(',').map(str::trim) {
                assert!(known.contains(used), "{place}: no label {used} in {query}");
            }
        }
    }
}

/// The Deployment's probes, ports and configuration agree.
#[test]
fn kubernetes_takes_the_manifests() {
    let file = "conf/kubernetes/tollgate.yaml";
    judged("kubernetes", &repository(file));
    let manifests = text(file);
    let documents: Vec<Value> = manifests.split("\n---\n").map(yaml).collect();
    let of = |kind: &str| documents.iter().find(|d| d["kind"] == kind).unwrap();
    let toml = of("ConfigMap")["data"]["tollgate.toml"].as_str().unwrap();
    let config = accepted(file, toml);
    let pod = &of("Deployment")["spec"]["template"]["spec"];
    let container = &pod["containers"][0];
    let port = |name: &str| {
        let ports = container["ports"].as_array().unwrap();
        let port = ports.iter().find(|port| port["name"] == name).unwrap();
        port["containerPort"].as_u64().unwrap()
    };
    assert_eq!(port("admin"), u64::from(config.admin.address.port()));
    assert_eq!(port("http"), u64::from(config.listeners[0].address.port()));
    let granted = pod["terminationGracePeriodSeconds"].as_u64().unwrap();
    let before = container["lifecycle"]["preStop"]["sleep"]["seconds"].as_u64();
    assert!(granted > config.server.grace.as_secs() + before.unwrap());
}

fn accepted(name: &str, toml: &str) -> tollgate::model::Config {
    let set = |variable: &str| match variable {
        "TOLLGATE_TOKEN" => Some("a-token-of-the-test".to_owned()),
        "TOLLGATE_DEMO_KEY" => Some("tg_demo_change-this-secret-before-use".to_owned()),
        _ => None,
    };
    match config::parse(name, toml, Format::Toml, &set, &super::no_file) {
        Ok(loaded) => {
            assert!(loaded.warnings.is_empty(), "{}", loaded.warnings);
            loaded.config
        }
        Err(diagnostics) => panic!("{diagnostics}"),
    }
}

/// What docker-compose.yml mounts and asks is there: files, hosts, ports.
#[test]
fn the_compose_file_fits_together() {
    let compose = yaml(&text("docker-compose.yml").replace("<<: *engine", "same: *engine"));
    let services = compose["services"].as_object().unwrap();
    for (name, service) in services {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let (from, _) = volume.as_str().unwrap().split_once(':').unwrap();
            let there = match from.strip_prefix("./") {
                Some(path) => repository(path).exists(),
                None => compose["volumes"].get(from).is_some(),
            };
            assert!(there, "{name}: {from}");
        }
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(port.as_str().unwrap().starts_with("127.0.0.1:"), "{name}");
        }
    }
    let config = accepted(
        "conf/compose/tollgate.toml",
        &text("conf/compose/tollgate.toml"),
    );
    let upstream = &config.upstreams[0];
    assert_eq!(upstream.targets.len(), 2);
    for target in &upstream.targets {
        let host = target.url.to_string();
        let host = host.trim_start_matches("http://").trim_end_matches(":8000");
        assert!(services.contains_key(host), "{host}");
    }
    let tollgate = services["tollgate"]["ports"].as_array().unwrap();
    let published = |port: u16| {
        let end = format!(":{port}");
        tollgate.iter().any(|p| p.as_str().unwrap().ends_with(&end))
    };
    assert!(published(config.admin.address.port()));
    assert!(published(config.listeners[0].address.port()));
    let scraped = yaml(&text("conf/prometheus.yml"));
    let scraped = scraped["scrape_configs"].as_array().unwrap().iter();
    for target in scraped.flat_map(|job| job["static_configs"][0]["targets"].as_array().unwrap()) {
        let host = target.as_str().unwrap().split(':').next().unwrap();
        assert!(services.contains_key(host), "{host}");
    }
}

/// The image is built from all that the build reads.
#[test]
fn the_build_in_a_container_sees_the_workspace() {
    let seen = text(".dockerignore");
    let seen: BTreeSet<&str> = seen.lines().filter_map(|l| l.strip_prefix('!')).collect();
    let manifest: toml::Table = text("Cargo.toml").parse().unwrap();
    for member in manifest["workspace"]["members"].as_array().unwrap() {
        let top = member.as_str().unwrap().split('/').next().unwrap();
        assert!(top == "." || seen.contains(top), "{top}");
    }
    for needed in ["Cargo.lock", "Cargo.toml", "src", "examples", ".cargo"] {
        assert!(
            seen.contains(needed) && repository(needed).exists(),
            "{needed}"
        );
    }
    let dockerfile = text("Dockerfile");
    for program in ["tollgate", "tollgate-engine"] {
        assert!(dockerfile.contains(&format!("target/release/{program} ")));
    }
    let script = dockerfile.split_whitespace().find(|w| w.ends_with(".py"));
    assert!(script.is_some_and(|script| repository(script).exists()));
}
