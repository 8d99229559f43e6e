//! Services that are scaled with simulated engines as replicas, and what is seen of them.

use serde_json::Value;

use super::{Api, free_port, until};

const ENGINE: &str = env!("CARGO_BIN_EXE_tollgate-engine");

/// So many ports in a row that are free now, and that nobody else is given.
pub(crate) fn free_ports(count: u16) -> String {
    until("free ports in a row", || {
        let ports: Vec<u16> = (0..count).map(|_| free_port()).collect();
        let (first, last) = (ports[0], ports[ports.len() - 1]);
        let in_row = ports.windows(2).all(|pair| pair[1] == pair[0] + 1);
        in_row.then(|| format!("{first}-{last}"))
    })
}

/// The actuator whose replicas are engines that begin to start after `delay` seconds; `options` are the engine's.
pub(crate) fn engines(count: u16, delay: &str, options: &str) -> String {
    let ports = free_ports(count);
    let script = format!("sleep {delay}; exec {ENGINE} -a 127.0.0.1:{{port}} {options}");
    format!(
        "{{ type = \"exec\", start = [\"sh\", \"-c\", \"{script}\"], url = \"http://127.0.0.1:{{port}}\", ports = \"{ports}\", stop_timeout = \"2s\" }}"
    )
}

/// The service `qwen`, without targets of its own.
pub(crate) fn scaled(scaling: &str, actuator: &str, more: &str) -> String {
    format!(
        "[[service]]\nname = \"qwen\"\nmodels = [\"qwen\"]\ntargets = []\n{more}\n[service.scaling]\n{scaling}\nactuator = {actuator}\n"
    )
}

/// How the scaling of the service stands.
pub(crate) fn scaling(api: &Api) -> Value {
    api.get("/v1/services/qwen/scaling").json()
}

/// Waits until it stands as wanted.
#[track_caller]
pub(crate) fn stands(api: &Api, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    until(what, || {
        let told = scaling(api);
        wanted(&told).then_some(told)
    })
}

/// The processes behind its targets, by id.
pub(crate) fn processes(api: &Api) -> Vec<(String, u32)> {
    let told = api.get("/v1/upstreams/qwen/targets").json();
    let process = |target: &Value| {
        let process = target["labels"]["tollgate.process"].as_str()?;
        let pid = process.split('-').next()?.parse().ok()?;
        Some((target["id"].as_str()?.to_owned(), pid))
    };
    let targets = told["items"].as_array().unwrap();
    targets.iter().filter_map(process).collect()
}
