//! Services: what is offered, a model or any HTTP API.

use std::collections::BTreeMap;
use std::time::Duration;

use tollgate_sdk::document;
use tollgate_sdk::document::{
    At, Declared, Document, Field, FromNode, FromText, JsonTable, Node, Reading, Table, json,
};

use super::disaggregation::check_targets;
use super::pattern::check_path;
use super::switch::switched;
use super::{Auth, AuthBy, Models, Name, Plugin, Queue, RateLimit, Retry, Scaling, Switch, Target};

document! {
    /// What is offered: a model, or any HTTP API.
    pub struct Service (checked) {
        /// Its name.
        #[example = "qwen"]
        name: Name,
        /// What it is for.
        #[example = "for everybody"]
        description: Option<String>,
        /// Labels of your own.
        labels: BTreeMap<String, String> = BTreeMap::new(),
        /// The gateways that offer it; if empty, all do.
        #[example = ["main"]]
        gateways: Vec<Name> = Vec::new(),
        /// What it speaks.
        #[written = "type"]
        kind: ServiceKind = ServiceKind::Openai,
        /// Model names it answers to; a trailing `*` matches any rest. Exact names win, then the longest prefix. "auto": those that its upstream's engines list, adapters too,
        /// as they change; they come after exact names and before prefixes.
        #[example = ["Qwen/Qwen3-8B"]]
        models: Models = Models::Listed(Vec::new()),
        /// The model's name sent upstream instead.
        #[example = "provider/model"]
        model: Option<String>,
        /// Its part of the traffic beside services of the same gateway that match the same model or share a rule. Alone, even 0 serves.
        #[range(0..=1000)]
        weight: u16 = 100,
        /// How long to wait.
        timeouts: Timeouts = Timeouts::default(),
        /// Further tries on other targets, before anything has reached the client; "off" makes none.
        retry: Retry = Retry::default(),
        /// Where requests wait that were answered 429, or that no target has room for; `true` turns it on with the defaults.
        queue: Switch<Queue> = Switch::Off,
        /// How many targets serve it, if that follows from what is asked of it; then it may begin with none: `targets = []`.
        scaling: Switch<Scaling> = Switch::Off,
        /// The services tried next, in order, when this one cannot serve.
        #[example = ["provider"]]
        fallback: Vec<Name> = Vec::new(),
        /// Who may use it, if not decided by the gateway: "none" publishes this service alone.
        auth: Option<Auth>,
        /// How many requests may come; others get 429.
        #[example = []]
        rate_limits: Vec<RateLimit> = Vec::new(),
        /// The plugins that its requests pass after the gateway's, by priority.
        #[example = []]
        plugins: Vec<Plugin> = Vec::new(),
        /// Paths below this one are for this service.
        #[example = "/tickets"]
        path_prefix: Option<String>,
        /// Whether `path_prefix` is taken off before sending.
        strip_prefix: bool = true,
        /// Its version, for people.
        #[example = "2"]
        version: Option<String>,
        /// Who looks after it, for people.
        #[example = "team-a"]
        owner: Option<String>,
    }
    with {
        /// Who serves it.
        pool: Pool,
    }
}

impl Service {
    /// The name of the upstream whose targets serve it: its own, if they stand in place.
    pub fn pool_name(&self) -> &Name {
        match &self.pool {
            Pool::Upstream(name) => name,
            Pool::Targets(_) => &self.name,
        }
    }

    /// What concerns several fields.
    fn check(mut self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        if let (Some(prefix), Some(given)) = (&mut self.path_prefix, node.entry("path_prefix")) {
            if let Err(invalid) = check_path(prefix) {
                let message = format!("{}: {}", given.quoted(), invalid.message);
                r.error(given.span, &at.field("path_prefix"), message, invalid.help);
            }
            prefix.truncate(prefix.trim_end_matches('/').len());
        }
        if let (Some(""), Some(given)) = (self.model.as_deref(), node.entry("model")) {
            let help = "write the model's name, or take the field out";
            r.error(given.span, &at.field("model"), "may not be empty", help);
        }
        self.check_auto(node, at, r);
        let tokens = |auth: &Auth| !matches!(auth.by, AuthBy::None | AuthBy::ApiKey);
        if let (Some(true), Some(given)) = (self.auth.as_ref().map(tokens), node.entry("auth")) {
            let message = "a service has no tokens of its own";
            let help = "give it to the gateway; here only \"none\" makes a difference";
            r.error(given.span, &at.field("auth"), message, help);
        }
        self
    }

    /// Models of engines need a named upstream, and are sent under their own names.
    fn check_auto(&self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) {
        let Some(given) = node.entry("models").filter(|_| self.models.is_auto()) else {
            return;
        };
        if let Pool::Targets(_) = self.pool {
            let message = "nobody asks the engines of targets that are given in place";
            let help = "name an `upstream` with these targets and its `engine`, or list the models";
            r.error(given.span, &at.field("models"), message, help);
        }
        if let Some(alias) = node.entry("model") {
            let message = "there is one name to send, but engines may serve several models";
            let help = "take it out: each is sent under its own name; or list the models";
            r.error(alias.span, &at.field("model"), message, help);
        }
    }
}

document! {
    /// What a service speaks.
    pub enum ServiceKind {
        /// The API of OpenAI.
        Openai = "openai",
        /// Any HTTP.
        Http = "http",
        /// gRPC.
        Grpc = "grpc",
        /// GraphQL over HTTP.
        Graphql = "graphql",
    }
    later ["tgi"]
}

document! {
    /// How long to wait for a service.
    pub struct Timeouts (default) {
        /// For a connection.
        connect: Duration = Duration::from_secs(2),
        /// For the head of the response.
        first_byte: Duration = Duration::from_secs(120),
        /// Between parts of a body.
        idle: Duration = Duration::from_secs(60),
        /// For the whole, if limited.
        #[example = "10m"]
        total: Option<Duration>,
    }
}

/// Who serves a service: exactly one of `upstream` and `targets`.
#[derive(Clone, Debug, PartialEq)]
pub enum Pool {
    /// A named upstream.
    Upstream(Name),
    /// Targets given in place: at least one, unless the service is scaled.
    Targets(Vec<Target>),
}

impl Pool {
    const UPSTREAM: Declared<Option<Name>> = Declared::optional("upstream");
    const TARGETS: Declared<Option<Vec<Target>>> = Declared::optional("targets");
}

impl Document for Pool {
    fn doc() -> String {
        "Who serves a service: exactly one of `upstream` and `targets`.".into()
    }

    fn fields() -> Vec<Field> {
        vec![
            Self::UPSTREAM.describe("The upstream that serves it; or `targets`."),
            Self::TARGETS.describe("The targets that serve it, given in place; or `upstream`."),
        ]
    }

    fn names() -> Vec<&'static str> {
        vec![Self::UPSTREAM.name, Self::TARGETS.name]
    }

    fn later() -> Vec<&'static str> {
        Vec::new()
    }

    fn constraints() -> JsonTable {
        let forms = json!([{"required": ["upstream"]}, {"required": ["targets"]}]);
        JsonTable::from_iter([("oneOf".to_owned(), forms)])
    }

    fn read_fields(table: Table<'_>, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        let upstream = table.field(Self::UPSTREAM, at, r).flatten();
        let targets = table.field(Self::TARGETS, at, r).flatten();
        match (table.entry("upstream"), table.entry("targets")) {
            (Some(_), Some(given)) => {
                let help =
                    "keep one: `upstream` names a shared pool, `targets` lists addresses in place";
                r.error(
                    given.span,
                    &at.field("targets"),
                    "given beside `upstream`",
                    help,
                );
                None
            }
            (None, None) => {
                let message = "missing field `targets` (or `upstream`)";
                table.report_missing("targets", &Vec::<Target>::example(), Some(message), at, r);
                None
            }
            (Some(_), None) => upstream.map(Self::Upstream),
            (None, Some(given)) => {
                // Where they are started and ended, there may be none.
                let scaling = table.entry("scaling");
                if scaling.is_none_or(|given| switched(given) == Some(false)) {
                    refuse_no_targets(given, at, r);
                }
                if let Some(targets) = &targets {
                    check_targets(targets, None, given, &at.field("targets"), r);
                }
                targets.map(Self::Targets)
            }
        }
    }

    fn value_fields(&self) -> JsonTable {
        let (name, value) = match self {
            Self::Upstream(name) => ("upstream", name.to_text().into()),
            Self::Targets(targets) => ("targets", targets.value()),
        };
        JsonTable::from_iter([(name.to_owned(), value)])
    }
}

/// Reports a list of targets that is empty as typed.
fn refuse_no_targets(given: &Node, at: &At<'_>, r: &mut Reading<'_>) {
    if given.as_list().is_some_and(<[_]>::is_empty) {
        let example = r.format.field("targets", &Vec::<Target>::example());
        let help = format!("for example: {example}");
        r.error(
            given.span,
            &at.field("targets"),
            "there must be at least one target",
            help,
        );
    }
}
