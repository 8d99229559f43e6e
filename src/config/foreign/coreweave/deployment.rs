//! CoreWeave's deployments: a model with its part of the traffic. Where its engines are CoreWeave alone knows.

use serde_json::{Value, json};

use super::super::trustgate::fields::{Body, Fields, Names, Report, resource, with_labels};
use super::super::{Options, Resource};
use super::Doc;

const KNOWN: [&str; 10] = [
    "id",
    "organizationId",
    "name",
    "gatewayIds",
    "disabled",
    "runtime",
    "resources",
    "model",
    "autoscaling",
    "traffic",
];

/// Finds the gateways that are meant by ids.
pub(super) type Resolve<'a> = dyn Fn(&[&str], &str, &mut Report) -> Vec<String> + 'a;

const MACHINES: &str = "machines and engines are not started here";

/// The upstream and the service of a deployment.
pub(super) fn read(
    doc: &Doc,
    gateways: &Resolve<'_>,
    options: &Options,
    names: &mut Names,
    report: &mut Report,
) -> Option<(Resource, Resource)> {
    let fields = Fields::open(&doc.value, &doc.path, &KNOWN, report)?;
    let (mut body, mut labels) = (Body::new(), Body::new());
    let record = [
        ("id", "coreweave-id"),
        ("organizationId", "coreweave-organization"),
    ];
    fields.label(&record, "only for the record", &mut labels, report);
    let Some(name) = fields.text("name", report).filter(|name| !name.is_empty()) else {
        report.refused(&fields.at("name"), "a deployment needs a name");
        return None;
    };
    if name.len() > 63 {
        report.refused(&fields.at("name"), "at most 63 characters");
    }
    let native = names.adapt("service", name, &fields.at("name"), report);
    let ids = fields.texts("gatewayIds", report);
    let offered = gateways(&ids, &fields.at("gatewayIds"), report);
    if ids.is_empty() {
        report.refused(
            &fields.at("gatewayIds"),
            "a deployment belongs to at least one gateway",
        );
    }
    body.insert("gateways".into(), offered.into());
    model(&fields, &mut body, &mut labels, report);
    weight(&fields, &mut body, report);
    runtime(&fields, &mut labels, report);
    resources(&fields, &mut labels, report);
    autoscaling(&fields, &mut labels, report);
    let disabled = fields.bool("disabled", report);
    match disabled {
        Some(true) => {
            report.adapted(
                &fields.at("disabled"),
                "it is left out: it gets no requests",
            );
            return None;
        }
        Some(false) => report.taken(&fields.at("disabled"), "it gets requests"),
        None => {}
    }
    let upstream = names.give("upstream", &native);
    body.insert("upstream".into(), upstream.clone().into());
    with_labels(&mut body, labels);
    Some((
        address(&fields, (name, &native), &upstream, options, report),
        resource("service", &native, body),
    ))
}

/// Where its engines are is not in the document: it is told beside it, or a place for it is kept.
fn address(
    fields: &Fields<'_>,
    (name, native): (&str, &str),
    upstream: &str,
    options: &Options,
    report: &mut Report,
) -> Resource {
    let mut targets = Vec::new();
    for (path, url) in options.targets_of(&[name.to_owned(), native.to_owned()]) {
        match url {
            Ok(url) => {
                report.taken(&path, "among the targets");
                targets.push(url);
            }
            Err(message) => report.refused(&path, message),
        }
    }
    if targets.is_empty() {
        targets.push(made_up(fields, native, upstream, report));
    }
    let mut body = Body::new();
    body.insert("targets".into(), targets.into());
    resource("upstream", upstream, body)
}

fn made_up(fields: &Fields<'_>, name: &str, upstream: &str, report: &mut Report) -> String {
    // A name may hold what a host may not.
    let host: String = upstream
        .chars()
        .map(|c| if matches!(c, '.' | '_') { '-' } else { c })
        .collect();
    let url = format!("http://{}:8000", host.trim_matches('-'));
    let message = format!(
        "where its engines are is not in the document: the upstream `{upstream}` leads to {url}; give them with --target {name}=URL"
    );
    report.assumed(&fields.path, message);
    url
}

fn model(fields: &Fields<'_>, body: &mut Body, labels: &mut Body, report: &mut Report) {
    let Some(value) = fields.get("model") else {
        return report.refused(&fields.at("model"), "a deployment needs a model");
    };
    let Some(model) = Fields::open(
        value,
        &fields.at("model"),
        &["name", "bucket", "path"],
        report,
    ) else {
        return;
    };
    let path = model.at("name");
    match model.text("name", report) {
        Some(name) if name.ends_with('*') => {
            report.refused(&path, "a name that ends in * would match others, too")
        }
        Some(name) if name.contains(char::is_control) => report.refused(
            &path,
            "control characters are not allowed in a model's name",
        ),
        Some(name) if (4..=63).contains(&name.chars().count()) => {
            report.taken(&path, "`models`");
            body.insert("models".into(), json!([name]));
        }
        Some(_) => report.refused(&path, "4 to 63 characters"),
        None if model.get("name").is_none() => {
            report.refused(&path, "missing: the name that requests ask for")
        }
        None => {}
    }
    let record = [("bucket", "model-bucket"), ("path", "model-path")];
    model.label(
        &record,
        "weights are loaded by whoever starts the engine",
        labels,
        report,
    );
}

fn weight(fields: &Fields<'_>, body: &mut Body, report: &mut Report) {
    let path = fields.at("traffic.weight");
    let traffic = fields
        .get("traffic")
        .and_then(|value| Fields::open(value, &fields.at("traffic"), &["weight"], report));
    let weight = match traffic
        .and_then(|traffic| Some((traffic.get("weight")?, traffic.number("weight", report))))
    {
        Some((_, Some(weight @ 0..=1000))) => {
            report.taken(&path, "`weight`");
            weight
        }
        Some((_, told)) => {
            if told.is_some() {
                report.refused(&path, "from 0 to 1000");
            }
            0
        }
        None => {
            report.assumed(
                &path,
                "0, CoreWeave's default: alone it serves, beside others it gets nothing",
            );
            0
        }
    };
    body.insert("weight".into(), weight.into());
}

/// Several that share a model and have no weight at all share it evenly.
pub(super) fn share(services: &mut [Resource], places: &[String], report: &mut Report) {
    let models: Vec<Option<Value>> = services
        .iter()
        .map(|service| service.body.get("models").cloned())
        .collect();
    let gateways: Vec<Option<Value>> = services
        .iter()
        .map(|service| service.body.get("gateways").cloned())
        .collect();
    let zero: Vec<bool> = services
        .iter()
        .map(|service| service.body.get("weight") == Some(&json!(0)))
        .collect();
    let together = |a: usize, b: usize| {
        let share = |list: &Option<Value>, other: &Option<Value>| {
            let (list, other) = (
                list.as_ref().and_then(Value::as_array),
                other.as_ref().and_then(Value::as_array),
            );
            list.zip(other)
                .is_some_and(|(list, other)| list.iter().any(|name| other.contains(name)))
        };
        match (gateways.get(a), gateways.get(b)) {
            (Some(one), Some(other)) => models.get(a) == models.get(b) && share(one, other),
            _ => false,
        }
    };
    for (index, (service, place)) in services.iter_mut().zip(places).enumerate() {
        let beside: Vec<usize> = (0..models.len())
            .filter(|other| *other != index && together(index, *other))
            .collect();
        let all_zero = beside.iter().all(|other| zero.get(*other) == Some(&true));
        if zero.get(index) == Some(&true) && !beside.is_empty() && all_zero {
            report.assumed(
                place,
                "100: all that share its model weigh 0, and share it evenly",
            );
            service.body.insert("weight".into(), 100.into());
        }
    }
}

fn runtime(fields: &Fields<'_>, labels: &mut Body, report: &mut Report) {
    let known = ["engine", "version", "engineConfig", "engineEnv"];
    let runtime = fields
        .get("runtime")
        .and_then(|value| Fields::open(value, &fields.at("runtime"), &known, report));
    let Some(runtime) = runtime else { return };
    match runtime.text("engine", report) {
        Some("vllm" | "dynamo-vllm") | None => {}
        Some(_) => report.refused(&runtime.at("engine"), "\"vllm\" or \"dynamo-vllm\""),
    }
    let version = runtime.text("version", report);
    if version.is_some_and(|version| !is_version(version)) {
        report.refused(
            &runtime.at("version"),
            "a version like 1.2.3, 1.0.0-rc.1 or 0.22.0+crwv.2",
        );
    }
    runtime.label(
        &[("engine", "engine"), ("version", "engine-version")],
        MACHINES,
        labels,
        report,
    );
    // Variables may be secrets: they become no labels.
    runtime.warn(
        &["engineConfig", "engineEnv"],
        "for whoever starts the engine; kept nowhere",
        report,
    );
}

/// `1.2.3`, perhaps with `-rc.1` and `+build` behind it.
fn is_version(text: &str) -> bool {
    let (text, build) = text
        .split_once('+')
        .map_or((text, None), |(text, build)| (text, Some(build)));
    let (core, pre) = text
        .split_once('-')
        .map_or((text, None), |(core, pre)| (core, Some(pre)));
    let word = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let number = |text: &str| {
        !text.is_empty()
            && text.bytes().all(|b| b.is_ascii_digit())
            && (text == "0" || !text.starts_with('0'))
    };
    let words = |text: &str| text.split('.').all(word);
    core.split('.').count() == 3
        && core.split('.').all(number)
        && pre.is_none_or(words)
        && build.is_none_or(words)
}

fn resources(fields: &Fields<'_>, labels: &mut Body, report: &mut Report) {
    let known = ["instanceType", "gpuCount"];
    let resources = fields
        .get("resources")
        .and_then(|value| Fields::open(value, &fields.at("resources"), &known, report));
    if let Some(resources) = resources {
        let record = [("instanceType", "instance-type"), ("gpuCount", "gpu-count")];
        resources.label(&record, MACHINES, labels, report);
    }
}

fn autoscaling(fields: &Fields<'_>, labels: &mut Body, report: &mut Report) {
    let known = ["min", "max", "priority", "concurrency", "capacityClasses"];
    let scaling = fields
        .get("autoscaling")
        .and_then(|value| Fields::open(value, &fields.at("autoscaling"), &known, report));
    let Some(scaling) = scaling else { return };
    let (min, max) = (scaling.number("min", report), scaling.number("max", report));
    if min.zip(max).is_some_and(|(min, max)| max < min) {
        report.refused(&scaling.at("max"), "it is below `min`");
    }
    let record = [
        ("min", "replicas-min"),
        ("max", "replicas-max"),
        ("priority", "replicas-priority"),
        ("concurrency", "replicas-concurrency"),
        ("capacityClasses", "capacity-classes"),
    ];
    scaling.label(
        &record,
        "replicas are not started or stopped here; give their addresses in the upstream",
        labels,
        report,
    );
}

#[cfg(test)]
mod tests {
    use super::is_version;

    #[test]
    fn versions_are_semantic() {
        for good in ["1.2.3", "1.0.0-rc.1", "0.22.0+crwv.2", "1.0.0-a-b+c"] {
            assert!(is_version(good), "{good}");
        }
        for bad in [
            "",
            "1.2",
            "v1.2.3",
            "01.2.3",
            "1.2.3-",
            "1.2.3+",
            "1.2.3-a..b",
            "1.2.x",
        ] {
            assert!(!is_version(bad), "{bad}");
        }
    }
}
