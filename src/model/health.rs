//! Health: how targets are asked whether they serve, and when one that fails is left alone.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use tollgate_sdk::document;
use tollgate_sdk::document::{
    At, Document, Field, FromNode, Json, Node, Origin, Reading, Value, json,
};

use super::pattern::check_path;
use super::switch::switched;

/// How targets are asked whether they serve.
#[derive(Clone, Debug, PartialEq)]
pub struct Health {
    /// What they are asked.
    pub probe: Probe,
    /// How often each is asked.
    pub interval: Duration,
    /// How long an answer may take; longer counts as a failure.
    pub timeout: Duration,
    /// After how many failures in a row a target is out.
    pub unhealthy_after: u32,
    /// After how many good answers in a row it is back.
    pub healthy_after: u32,
}

/// What a target is asked.
#[derive(Clone, Debug, PartialEq)]
pub enum Probe {
    /// Nothing.
    Off,
    /// For a connection.
    Tcp,
    /// For an answer to a request.
    Http(HttpProbe),
    /// For its state, by gRPC's health protocol.
    Grpc,
}

/// A request and what must be answered.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpProbe {
    /// The path, perhaps with a query.
    pub path: String,
    /// The method.
    pub method: Method,
    /// Headers.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// The body, if there is one.
    pub body: Option<String>,
    /// The statuses that mean that the target serves: at least one.
    pub expect: Vec<HttpStatus>,
}

impl Default for HttpProbe {
    fn default() -> Self {
        Self {
            path: "/health".into(),
            method: Method::GET,
            headers: Vec::new(),
            body: None,
            expect: vec![HttpStatus(200)],
        }
    }
}

impl Default for Health {
    fn default() -> Self {
        Self::of(HealthTable::default())
    }
}

document! {
    /// How targets are asked whether they serve.
    struct HealthTable (default custom) {
        /// What they are asked.
        #[written = "type"]
        kind: ProbeKind = ProbeKind::Tcp,
        /// The path asked for; of "http" alone, by default "/health".
        #[example = "/health"]
        path: Option<String>,
        /// The method; of "http" alone, by default GET.
        #[example = "GET"]
        method: Option<Method>,
        /// Headers of the request; of "http" alone.
        headers: Option<Vec<(HeaderName, HeaderValue)>>,
        /// The body of the request; of "http" alone.
        #[example = "{}"]
        body: Option<String>,
        /// The statuses that mean that the target serves; of "http" alone, by default 200.
        #[example = [200]]
        expect: Option<Vec<HttpStatus>>,
        /// How often each target is asked.
        interval: Duration = Duration::from_secs(5),
        /// How long an answer may take; longer counts as a failure.
        timeout: Duration = Duration::from_secs(2),
        /// After how many failures in a row a target is out.
        #[range(1..=1000)]
        unhealthy_after: u32 = 2,
        /// After how many good answers in a row it is back, or a new one is in.
        #[range(1..=1000)]
        healthy_after: u32 = 1,
    }
}

document! {
    /// What targets are asked.
    enum ProbeKind {
        /// For a connection.
        Tcp = "tcp",
        /// For an answer to a request.
        Http = "http",
        /// For their state, by gRPC's health protocol.
        Grpc = "grpc",
        /// Nothing: only what requests meet with counts.
        Off = "off",
    }
}

/// Fields that only a probe by HTTP has.
const OF_HTTP: [&str; 5] = ["path", "method", "headers", "body", "expect"];

impl Health {
    fn of(table: HealthTable) -> Self {
        let default = HttpProbe::default();
        let probe = match table.kind {
            ProbeKind::Off => Probe::Off,
            ProbeKind::Tcp => Probe::Tcp,
            ProbeKind::Grpc => Probe::Grpc,
            ProbeKind::Http => Probe::Http(HttpProbe {
                path: table.path.unwrap_or(default.path),
                method: table.method.unwrap_or(default.method),
                headers: table.headers.unwrap_or(default.headers),
                body: table.body,
                expect: table.expect.unwrap_or(default.expect),
            }),
        };
        Self {
            probe,
            interval: table.interval,
            timeout: table.timeout,
            unhealthy_after: table.unhealthy_after,
            healthy_after: table.healthy_after,
        }
    }

    fn table(&self) -> HealthTable {
        let (kind, http) = match self.probe.clone() {
            Probe::Off => (ProbeKind::Off, None),
            Probe::Tcp => (ProbeKind::Tcp, None),
            Probe::Grpc => (ProbeKind::Grpc, None),
            Probe::Http(http) => (ProbeKind::Http, Some(http)),
        };
        let mut table = HealthTable {
            kind,
            interval: self.interval,
            timeout: self.timeout,
            unhealthy_after: self.unhealthy_after,
            healthy_after: self.healthy_after,
            ..HealthTable::default()
        };
        if let Some(http) = http {
            table.path = Some(http.path);
            table.method = Some(http.method);
            table.headers = Some(http.headers);
            table.body = http.body;
            table.expect = Some(http.expect);
        }
        table
    }
}

/// Read from a table, or from its `type` alone.
impl FromNode for Health {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        if node.as_table().is_some() {
            let table = <HealthTable as Document>::read(node, at, r)?;
            check(&table, node, at, r);
            return Some(Self::of(table));
        }
        if switched(node) == Some(true) {
            return Some(Self::default());
        }
        let kind = match switched(node) {
            Some(false) => ProbeKind::Off,
            _ => ProbeKind::read(node, at, r)?,
        };
        Some(Self::of(HealthTable {
            kind,
            ..HealthTable::default()
        }))
    }

    fn schema() -> Json {
        let mut schema = ProbeKind::schema();
        if let Some(forms) = schema.pointer_mut("/anyOf").and_then(Json::as_array_mut) {
            forms.push(json!({"type": "boolean"}));
            forms.push(<HealthTable as Document>::schema());
        }
        schema
    }

    fn value(&self) -> Json {
        self.table().value_fields().into()
    }

    fn example() -> Json {
        json!({"type": "http"})
    }

    fn fields() -> Vec<Field> {
        <HealthTable as Document>::fields()
    }
}

/// What concerns several fields, or the text of one.
fn check(table: &HealthTable, node: &Node, at: &At<'_>, r: &mut Reading<'_>) {
    // What a mistyped type was meant to be is not known.
    let meant = node
        .entry("type")
        .is_none_or(|typed| typed.as_str() == Some(table.kind.word()));
    if table.kind != ProbeKind::Http && meant {
        for (name, given) in OF_HTTP
            .iter()
            .filter_map(|name| Some((name, node.entry(name)?)))
        {
            let message = format!("{name} is only for checks by HTTP");
            let http = r.format.field("type", &json!("http"));
            let help = match node.entry("type") {
                Some(_) => format!("take it out, or write: {http}"),
                None => format!("add: {http}"),
            };
            r.error(given.span, &at.field(name), message, help);
        }
    }
    if let (Some(path), Some(given)) = (&table.path, node.entry("path")) {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        if let Err(invalid) = check_path(path).and_then(|()| check_path(&format!("/{query}"))) {
            let message = format!("{}: {}", given.quoted(), invalid.message);
            r.error(given.span, &at.field("path"), message, invalid.help);
        }
    }
    if let (Some([]), Some(given)) = (table.expect.as_deref(), node.entry("expect"))
        && given.as_list().is_some_and(<[_]>::is_empty)
    {
        let help = format!("for example: {}", r.format.field("expect", &json!([200])));
        let message = "there must be at least one status";
        r.error(given.span, &at.field("expect"), message, help);
    }
    refuse_zero(
        [("interval", table.interval), ("timeout", table.timeout)],
        node,
        at,
        r,
    );
    let longer = table.timeout > table.interval && !table.interval.is_zero();
    if let (true, Some(given)) = (longer, node.entry("timeout").or(node.entry("interval"))) {
        let name = match node.entry("timeout") {
            Some(_) => "timeout",
            None => "interval",
        };
        let message = "an answer may take longer than the time between two questions";
        let help =
            "`timeout` should not be above `interval`: the next question waits for the answer";
        r.warn(given.span, &at.field(name), message, help);
    }
}

/// Reports durations that may not be zero and are.
pub(super) fn refuse_zero<'a>(
    durations: impl IntoIterator<Item = (&'a str, Duration)>,
    node: &Node,
    at: &At<'_>,
    r: &mut Reading<'_>,
) {
    for (name, duration) in durations {
        if let (true, Some(given)) = (duration.is_zero(), node.entry(name)) {
            let help = format!("for example: {}", r.format.field(name, &json!("1s")));
            r.error(given.span, &at.field(name), "may not be zero", help);
        }
    }
}

document! {
    /// When a target that fails requests is left alone.
    pub struct Breaker (default checked) {
        /// After how many failures within `window`; what the client did wrong and 429 do not count.
        #[range(1..=100000)]
        failures: u32 = 5,
        /// How long a failure counts.
        window: Duration = Duration::from_secs(30),
        /// How long the target is left alone, before one request tries whether it serves again.
        open: Duration = Duration::from_secs(10),
    }
}

impl Breaker {
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        refuse_zero([("window", self.window), ("open", self.open)], node, at, r);
        self
    }
}

/// A status of HTTP: 100 to 599.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HttpStatus(pub u16);

impl FromNode for HttpStatus {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        let number = match (&node.value, node.origin) {
            (Value::Int(number), _) => Some(*number),
            (Value::String(text), Origin::Wholly) => text.trim().parse().ok(),
            _ => None,
        };
        match number.map(u16::try_from) {
            Some(Ok(status @ 100..=599)) => return Some(Self(status)),
            Some(_) => {
                let message = format!("{} is not a status", node.found());
                r.error(node.span, at, message, "from 100 to 599");
            }
            None => r.expected(node, at, "a status", &Self::example()),
        }
        None
    }

    fn schema() -> Json {
        let mut schema = u16::schema();
        if let Some(number) = schema.pointer_mut("/anyOf/0").and_then(Json::as_object_mut) {
            number.insert("minimum".into(), 100.into());
            number.insert("maximum".into(), 599.into());
        }
        schema
    }

    fn value(&self) -> Json {
        self.0.into()
    }

    fn example() -> Json {
        json!(200)
    }
}
