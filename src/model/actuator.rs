//! Actuators: who starts and ends the replicas of a service that is scaled.

use std::time::Duration;

use tollgate_sdk::document::{
    At, Document, Field, FromNode, FromText, Invalid, Json, Node, Reading, json,
};
use tollgate_sdk::secret::Secret;
use tollgate_sdk::{document, text_in_document};

use super::health::refuse_zero;
use super::pattern::check_path;
use super::{FilePath, TargetUrl, WebUrl};

/// Who starts and ends replicas.
#[derive(Clone, Debug, PartialEq)]
pub enum Actuator {
    /// Nobody: the number is told, and targets register and leave by the API.
    None,
    /// This process: each replica is one of its children.
    Exec(Box<Exec>),
    /// A web service that is told the number.
    Http(Box<Webhook>),
    /// Kubernetes.
    Kubernetes(Box<Kubernetes>),
}

/// Commands. `{port}`, `{n}` (from 0), `{id}` and `{service}` stand for a replica's own.
#[derive(Clone, Debug, PartialEq)]
pub struct Exec {
    /// The program and its arguments; not a shell's words.
    pub start: Vec<String>,
    /// What ends a replica; without it, SIGTERM does.
    pub stop: Option<Vec<String>>,
    /// Where a replica is, as a target's URL.
    pub url: String,
    /// The ports that replicas get, one each.
    pub ports: Ports,
    /// The path that answers 200 once a replica serves; without it, a connection is enough.
    pub ready: Option<String>,
    /// How long a replica may take until it serves.
    pub start_timeout: Duration,
    /// How long a replica may take to end, before it is killed.
    pub stop_timeout: Duration,
}

/// A web service.
#[derive(Clone, Debug, PartialEq)]
pub struct Webhook {
    /// Where the number is sent.
    pub url: WebUrl,
    /// Sent as `Authorization: Bearer`.
    pub token: Option<Secret<String>>,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// A deployment of Kubernetes.
#[derive(Clone, Debug, PartialEq)]
pub struct Kubernetes {
    /// Its namespace; without it, that of the service account.
    pub namespace: Option<String>,
    /// Its name.
    pub deployment: String,
    /// The Kubernetes service whose endpoints are the targets; without it, of the deployment's name.
    pub service: Option<String>,
    /// The port of its pods.
    pub port: u16,
    /// The API server.
    pub server: Option<WebUrl>,
    /// The folder with the service account's `token`, `ca.crt` and `namespace`.
    pub account: Option<FilePath>,
    /// How long an answer may take.
    pub timeout: Duration,
}

document! {
    /// Who starts and ends replicas.
    struct ActuatorTable (custom) {
        /// Who it is.
        #[written = "type"]
        kind: ActuatorKind = ActuatorKind::None,
        /// Of "exec": the program and its arguments. `{port}`, `{n}`, `{id}` and `{service}` stand for the replica's own.
        #[example = ["serve", "--port", "{port}"]]
        start: Option<Vec<String>>,
        /// Of "exec": what ends a replica, in place of SIGTERM.
        #[example = ["stop", "{id}"]]
        stop: Option<Vec<String>>,
        /// Of "exec": where a replica is. Of "http": where the number is sent.
        #[example = "http://127.0.0.1:{port}"]
        url: Option<String>,
        /// Of "exec": the ports that replicas get, one each.
        #[example = "9000-9007"]
        ports: Option<Ports>,
        /// Of "exec": the path that answers 200 once a replica serves; by default a connection is enough.
        #[example = "/health"]
        ready: Option<String>,
        /// Of "exec": how long a replica may take until it serves; by default "10m".
        #[example = "10m"]
        start_timeout: Option<Duration>,
        /// Of "exec": how long a replica may take to end before it is killed; by default "10s".
        #[example = "10s"]
        stop_timeout: Option<Duration>,
        /// Of "http": sent as `Authorization: Bearer`.
        #[example = "${SCALER_TOKEN}"]
        token: Option<Secret<String>>,
        /// Of "http" and "kubernetes": how long an answer may take; by default "5s".
        #[example = "5s"]
        timeout: Option<Duration>,
        /// Of "kubernetes": the namespace; by default that of the service account.
        #[example = "models"]
        namespace: Option<String>,
        /// Of "kubernetes": the deployment that is scaled.
        #[example = "qwen"]
        deployment: Option<String>,
        /// Of "kubernetes": the service whose endpoints are the targets; by default of the deployment's name.
        #[example = "qwen"]
        service: Option<String>,
        /// Of "kubernetes": the port of the pods.
        #[example = 8000]
        #[range(1..=65535)]
        port: Option<u16>,
        /// Of "kubernetes": the API server; by default "https://kubernetes.default.svc".
        #[example = "https://kubernetes.default.svc"]
        server: Option<WebUrl>,
        /// Of "kubernetes": the folder with the service account's `token`, `ca.crt` and `namespace`.
        #[example = "/var/run/secrets/kubernetes.io/serviceaccount"]
        account: Option<FilePath>,
    }
}

document! {
    /// Who starts and ends replicas.
    enum ActuatorKind {
        /// Nobody: how many there should be is told, and targets register and leave by the admin API.
        None = "none",
        /// This process, by a command.
        Exec = "exec",
        /// A web service that is told the number.
        Http = "http",
        /// Kubernetes, by a deployment's scale.
        Kubernetes = "kubernetes",
    }
}

/// The fields of each kind, and those that it needs.
const OF_EXEC: (&[&str], &[&str]) = (
    &[
        "start",
        "stop",
        "url",
        "ports",
        "ready",
        "start_timeout",
        "stop_timeout",
    ],
    &["start", "url", "ports"],
);
const OF_HTTP: (&[&str], &[&str]) = (&["url", "token", "timeout"], &["url"]);
const OF_KUBERNETES: (&[&str], &[&str]) = (
    &[
        "timeout",
        "namespace",
        "deployment",
        "service",
        "port",
        "server",
        "account",
    ],
    &["deployment", "port"],
);

impl ActuatorKind {
    fn fields(self) -> (&'static [&'static str], &'static [&'static str]) {
        match self {
            Self::None => (&[], &[]),
            Self::Exec => OF_EXEC,
            Self::Http => OF_HTTP,
            Self::Kubernetes => OF_KUBERNETES,
        }
    }
}

impl Actuator {
    /// What it says of the machine that only the configuration file may: who may use the admin API is not thereby given its commands and files.
    pub fn of_the_machine(&self) -> Option<&'static str> {
        match self {
            Self::Exec(_) => Some("start"),
            Self::Kubernetes(kubernetes) if kubernetes.account.is_some() => Some("account"),
            Self::Kubernetes(kubernetes) if kubernetes.server.is_some() => Some("server"),
            _ => None,
        }
    }

    fn of(table: ActuatorTable) -> Option<Self> {
        let timeout = table.timeout.unwrap_or(Duration::from_secs(5));
        Some(match table.kind {
            ActuatorKind::None => Self::None,
            ActuatorKind::Exec => Self::Exec(Box::new(Exec {
                start: table.start?,
                stop: table.stop,
                url: table.url?,
                ports: table.ports?,
                ready: table.ready,
                start_timeout: table.start_timeout.unwrap_or(Duration::from_secs(600)),
                stop_timeout: table.stop_timeout.unwrap_or(Duration::from_secs(10)),
            })),
            ActuatorKind::Http => Self::Http(Box::new(Webhook {
                url: WebUrl::from_text(&table.url?).ok()?,
                token: table.token,
                timeout,
            })),
            ActuatorKind::Kubernetes => Self::Kubernetes(Box::new(Kubernetes {
                namespace: table.namespace,
                deployment: table.deployment?,
                service: table.service,
                port: table.port?,
                server: table.server,
                account: table.account,
                timeout,
            })),
        })
    }

    fn table(&self) -> ActuatorTable {
        let mut table = ActuatorTable::of(ActuatorKind::None);
        match self.clone() {
            Self::None => {}
            Self::Exec(exec) => {
                table.kind = ActuatorKind::Exec;
                table.start = Some(exec.start);
                table.stop = exec.stop;
                table.url = Some(exec.url);
                table.ports = Some(exec.ports);
                table.ready = exec.ready;
                table.start_timeout = Some(exec.start_timeout);
                table.stop_timeout = Some(exec.stop_timeout);
            }
            Self::Http(http) => {
                table.kind = ActuatorKind::Http;
                table.url = Some(http.url.to_text());
                table.token = http.token;
                table.timeout = Some(http.timeout);
            }
            Self::Kubernetes(kubernetes) => {
                table.kind = ActuatorKind::Kubernetes;
                table.namespace = kubernetes.namespace;
                table.deployment = Some(kubernetes.deployment);
                table.service = kubernetes.service;
                table.port = Some(kubernetes.port);
                table.server = kubernetes.server;
                table.account = kubernetes.account;
                table.timeout = Some(kubernetes.timeout);
            }
        }
        table
    }
}

impl ActuatorTable {
    fn of(kind: ActuatorKind) -> Self {
        Self {
            kind,
            start: None,
            stop: None,
            url: None,
            ports: None,
            ready: None,
            start_timeout: None,
            stop_timeout: None,
            token: None,
            timeout: None,
            namespace: None,
            deployment: None,
            service: None,
            port: None,
            server: None,
            account: None,
        }
    }
}

/// Read from a table, or from "none" alone.
impl FromNode for Actuator {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        if node.as_table().is_none() {
            let kind = ActuatorKind::read(node, at, r)?;
            let table = ActuatorTable::of(kind);
            return check(&table, node, at, r)
                .then(|| Self::of(table))
                .flatten();
        }
        let table = <ActuatorTable as Document>::read(node, at, r)?;
        check(&table, node, at, r)
            .then(|| Self::of(table))
            .flatten()
    }

    fn schema() -> Json {
        let mut schema = ActuatorKind::schema();
        if let Some(forms) = schema.pointer_mut("/anyOf").and_then(Json::as_array_mut) {
            forms.push(<ActuatorTable as Document>::schema());
        }
        schema
    }

    fn value(&self) -> Json {
        self.table().value_fields().into()
    }

    fn example() -> Json {
        json!({"type": "none"})
    }

    fn fields() -> Vec<Field> {
        <ActuatorTable as Document>::fields()
    }
}

/// What concerns several fields, or the text of one. Whether it is sound.
fn check(table: &ActuatorTable, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> bool {
    let before = r.problems.len();
    let (own, needed) = table.kind.fields();
    for (key, given) in node.as_table().unwrap_or_default() {
        if key.text != "type" && !own.contains(&key.text.as_str()) {
            let message = format!(
                "`{}` is not for an actuator of type \"{}\"",
                key.text,
                table.kind.word()
            );
            r.error(given.span, &at.field(&key.text), message, "take it out");
        }
    }
    for name in needed.iter().filter(|name| node.entry(name).is_none()) {
        let message = format!("missing field `{name}`");
        let field = ActuatorTable::fields()
            .into_iter()
            .find(|f| f.name == *name);
        let help = field.map(|field| format!("add it: {}", field.doc));
        r.error(
            node.span,
            &at.field(name),
            message,
            help.unwrap_or_default(),
        );
    }
    let times = [
        ("start_timeout", table.start_timeout),
        ("stop_timeout", table.stop_timeout),
        ("timeout", table.timeout),
    ];
    let given = times.map(|(name, time)| (name, time.unwrap_or(Duration::MAX)));
    refuse_zero(given, node, at, r);
    check_texts(table, node, at, r);
    r.problems.len() == before
}

fn check_texts(table: &ActuatorTable, node: &Node, at: &At<'_>, r: &mut Reading<'_>) {
    let mut refuse = |name: &str, message: String, help: &str| {
        if let Some(given) = node.entry(name) {
            r.error(given.span, &at.field(name), message, help);
        }
    };
    for (name, command) in [("start", &table.start), ("stop", &table.stop)] {
        if command
            .as_ref()
            .is_some_and(|words| words.first().is_none_or(String::is_empty))
        {
            let help = "the program and its arguments: [\"serve\", \"--port\", \"{port}\"]";
            refuse(name, "there is no program in it".into(), help);
        }
    }
    if let Some(Err(invalid)) = table.ready.as_deref().map(check_path) {
        refuse("ready", invalid.message, "a path, for example \"/health\"");
    }
    let Some(url) = &table.url else { return };
    match (table.kind, &table.ports) {
        (ActuatorKind::Http, _) => {
            if let Err(invalid) = WebUrl::from_text(url) {
                let help = "for example \"https://scaler.example.com/scale\"";
                refuse("url", invalid.message, help);
            }
        }
        (ActuatorKind::Exec, Some(ports)) => {
            let help = "for example \"http://127.0.0.1:{port}\"";
            let one = fill(url, &[("port", &ports.first().to_string())]);
            match TargetUrl::from_text(&one) {
                Err(invalid) => refuse("url", invalid.message, help),
                Ok(_) if ports.count() > 1 && one == *url => {
                    let message = "every replica would have the same URL".into();
                    refuse("url", message, help);
                }
                Ok(_) => {}
            }
        }
        _ => {}
    }
}

/// A text with `{name}` replaced by its value, for each of these names.
pub fn fill(text: &str, values: &[(&str, &str)]) -> String {
    let fill =
        |text: String, (name, value): &(&str, &str)| text.replace(&format!("{{{name}}}"), value);
    values.iter().fold(text.to_owned(), fill)
}

/// A range of ports, both ends in it: `9000-9007`, or one port alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ports {
    first: u16,
    last: u16,
}

impl Ports {
    /// The first.
    pub fn first(self) -> u16 {
        self.first
    }

    /// How many there are.
    pub fn count(self) -> u32 {
        u32::from(self.last.saturating_sub(self.first)) + 1
    }

    /// All of them, in order.
    pub fn iter(self) -> impl Iterator<Item = u16> {
        self.first..=self.last
    }
}

impl FromText for Ports {
    const EXPECTED: &'static str = "ports";
    const EXAMPLE: &'static str = "9000-9007";
    const PATTERN: Option<&'static str> = Some("^[0-9]+(-[0-9]+)?$");

    fn from_text(text: &str) -> Result<Self, Invalid> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.trim().parse(), last.trim().parse()) {
            (Ok(first), Ok(last)) if 0 < first && first <= last => Ok(Self { first, last }),
            _ => Err(Invalid::new("not a range of ports")
                .help("the first and the last of them, for example \"9000-9007\"")),
        }
    }

    fn to_text(&self) -> String {
        match self.first == self.last {
            true => self.first.to_string(),
            false => format!("{}-{}", self.first, self.last),
        }
    }
}

text_in_document!(Ports);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_a_range_or_one() {
        for (typed, count) in [("9000-9007", 8), ("9000", 1), ("1-65535", 65_535)] {
            let ports = Ports::from_text(typed).unwrap();
            assert_eq!(
                (ports.count() as usize, ports.iter().count()),
                (count, count)
            );
            assert_eq!(ports.to_text(), typed);
        }
        for typed in ["", "0", "9-8", "a-b", "9000-", "65536", "1-2-3"] {
            assert!(Ports::from_text(typed).is_err(), "{typed}");
        }
    }
}
