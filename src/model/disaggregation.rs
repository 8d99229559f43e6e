//! Disaggregation: how a request is split between a target that computes its prompt and one that produces its tokens.

use tollgate_sdk::document;
use tollgate_sdk::document::{At, Field, FromNode, Json, Node, Reading, json};

use super::switch::{Switch, switched};
use super::{Host, Role, Target};

document! {
    /// How requests are split between prefill and decode.
    pub struct Disaggregation (checked) {
        /// What the engines speak with each other.
        protocol: KvProtocol,
        /// Whether decode is asked only after prefill has answered; by default what is usual for the protocol: not for "sglang", which always has both at once, and
        /// for all others.
        #[example = true]
        staged: Option<bool>,
        /// Prompts that are taken to be shorter than this, in tokens, are computed by the target that decodes; 0 splits all.
        #[range(0..=10000000)]
        min_prefill_tokens: u64 = 0,
    }
}

document! {
    /// What engines speak with each other to hand over what prefill has computed.
    pub enum KvProtocol {
        /// SGLang, whatever moves its KV.
        Sglang = "sglang",
        /// vLLM with the NIXL connector.
        VllmNixl = "vllm-nixl",
        /// vLLM with the Mooncake connector.
        VllmMooncake = "vllm-mooncake",
        /// vLLM with the KVT connector.
        VllmKvt = "vllm-kvt",
    }
    missing "missing field `protocol`: what the engines speak with each other"
}

/// Read from a table, or from "off". Nothing is usual enough to be turned on without a word on it.
impl FromNode for Switch<Disaggregation> {
    fn read(node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Option<Self> {
        if node.as_table().is_some() {
            return Disaggregation::read(node, at, r).map(Self::On);
        }
        if switched(node) == Some(false) {
            return Some(Self::Off);
        }
        let message = format!("expected a table or \"off\", found {}", node.found());
        let example = r.format.field("disaggregation", &Self::example());
        r.error(node.span, at, message, format!("for example: {example}"));
        None
    }

    fn schema() -> Json {
        json!({"anyOf": [
            {"enum": [false, "off"]},
            {"type": "string", "pattern": r"\$\{"},
            Disaggregation::schema(),
        ]})
    }

    fn value(&self) -> Json {
        self.on().map_or_else(|| json!("off"), FromNode::value)
    }

    fn example() -> Json {
        json!({"protocol": "vllm-nixl"})
    }

    fn fields() -> Vec<Field> {
        <Disaggregation as FromNode>::fields()
    }
}

impl KvProtocol {
    /// Whether a target that decodes can serve a request whole, too.
    pub fn decodes_whole(self) -> bool {
        self != Self::Sglang
    }

    /// Whether a target for both shares requests with others. An SGLang that neither only prefills nor only decodes serves them whole.
    pub fn shares_by_both(self) -> bool {
        self != Self::Sglang
    }

    /// Whether something of its own listens where prefill is done.
    fn has_port(self) -> bool {
        self != Self::VllmNixl
    }
}

impl Disaggregation {
    /// Whether decode is asked only after prefill has answered.
    pub fn is_staged(&self) -> bool {
        self.staged.unwrap_or(self.protocol != KvProtocol::Sglang)
    }

    /// Whether two of these targets can share a request: one prefills, another decodes.
    pub fn can_split(&self, targets: &[Target]) -> bool {
        let of = |role: Role| targets.iter().filter(|target| target.role == role).count();
        let shared = match self.protocol.shares_by_both() {
            true => of(Role::Both),
            false => 0,
        };
        let (prefill, decode) = (of(Role::Prefill), of(Role::Decode));
        prefill + shared > 0 && decode + shared > 0 && prefill + decode + shared > 1
    }

    /// Whether whoever decodes must be told a port of the target that prefills.
    fn needs_port(&self) -> bool {
        match self.protocol {
            KvProtocol::VllmMooncake => !self.is_staged(),
            KvProtocol::VllmKvt => true,
            // SGLang has a default of its own, NIXL tells it in its answer.
            KvProtocol::Sglang | KvProtocol::VllmNixl => false,
        }
    }

    /// Whether whoever decodes is told the host of the target that prefills.
    fn needs_host(&self) -> bool {
        self.needs_port() || self.protocol == KvProtocol::Sglang
    }

    /// What concerns several fields.
    fn check(self, node: &Node, at: &At<'_>, r: &mut Reading<'_>) -> Self {
        let wrong = match (self.protocol, self.staged) {
            (KvProtocol::Sglang, Some(true)) => {
                Some("\"sglang\" has prefill and decode at the same time")
            }
            (KvProtocol::VllmNixl, Some(false)) => {
                Some("\"vllm-nixl\" decodes with what prefill has answered")
            }
            _ => None,
        };
        if let (Some(message), Some(given)) = (wrong, node.entry("staged")) {
            r.error(given.span, &at.field("staged"), message, "take it out");
        }
        self
    }
}

/// Reports roles and ports of targets, given as the list `given` at `at`, that do not go with how their upstream splits requests.
pub(super) fn check_targets(
    targets: &[Target],
    disaggregation: Option<&Disaggregation>,
    given: &Node,
    at: &At<'_>,
    r: &mut Reading<'_>,
) {
    let list = given.as_list().unwrap_or_default();
    for (index, (target, given)) in targets.iter().zip(list).enumerate() {
        check_target(target, disaggregation, given, &at.index(index), r);
    }
}

/// Reports an upstream that splits requests, as `given` at `at` says, between targets that cannot share one.
pub(super) fn check_pair(
    targets: &[Target],
    settings: &Disaggregation,
    given: &Node,
    at: &At<'_>,
    r: &mut Reading<'_>,
) {
    if !settings.can_split(targets) {
        let message = "no two targets can share a request: one must prefill and another decode";
        let help = "give targets `role = \"prefill\"` and `role = \"decode\"`";
        r.error(given.span, at, message, help);
    }
    let both = targets.iter().any(|target| target.role == Role::Both);
    let alone = both || settings.protocol.decodes_whole();
    if let (false, Some(short)) = (alone, given.entry("min_prefill_tokens"))
        && settings.min_prefill_tokens > 0
    {
        let message =
            "with \"sglang\" only a target whose role is \"both\" computes short prompts by itself";
        let help = "take it out, or add a target with `role = \"both\"`";
        r.error(short.span, &at.field("min_prefill_tokens"), message, help);
    }
}

fn check_target(
    target: &Target,
    disaggregation: Option<&Disaggregation>,
    given: &Node,
    at: &At<'_>,
    r: &mut Reading<'_>,
) {
    for Unfit {
        field,
        message,
        help,
    } in unfit(target, disaggregation)
    {
        let place = given.entry(field).unwrap_or(given);
        r.error(place.span, &at.field(field), message, help);
    }
}

/// What of a target does not go with how its upstream splits requests.
pub struct Unfit {
    /// The field that is wrong, or missing.
    pub field: &'static str,
    /// Why.
    pub message: &'static str,
    /// What to do.
    pub help: &'static str,
}

/// Everything of a target that does not go with how its upstream splits requests, if it does.
pub fn unfit(target: &Target, disaggregation: Option<&Disaggregation>) -> Vec<Unfit> {
    let mut wrong = Vec::new();
    let mut add = |field, message, help| {
        wrong.push(Unfit {
            field,
            message,
            help,
        });
    };
    let has_port = target.bootstrap_port.is_some();
    let Some(settings) = disaggregation else {
        let help = "take it out, or give the upstream `disaggregation = { protocol = … }`";
        if target.role != Role::Both {
            add("role", "a role is of no use without `disaggregation`", help);
        }
        if has_port {
            add("bootstrap_port", "of no use without `disaggregation`", help);
        }
        return wrong;
    };
    let prefills = match target.role {
        Role::Prefill => true,
        Role::Decode => false,
        Role::Both => settings.protocol.shares_by_both(),
    };
    if has_port && !settings.protocol.has_port() {
        let message = "the engines of \"vllm-nixl\" tell it themselves";
        add("bootstrap_port", message, "take it out");
    } else if has_port && !prefills {
        add(
            "bootstrap_port",
            "only targets that prefill have one",
            "take it out",
        );
    }
    if prefills && settings.needs_port() && !has_port {
        let message = "missing field `bootstrap_port`: where its KV is asked for";
        add(
            "bootstrap_port",
            message,
            "for example: bootstrap_port = 8998",
        );
    }
    let nameless = matches!(&target.url.host, Host::Name(name) if name.is_empty());
    if prefills && nameless && settings.needs_host() {
        let message = "whoever decodes cannot reach a unix socket";
        add(
            "url",
            message,
            "a target that prefills needs a host and a port",
        );
    }
    wrong
}
