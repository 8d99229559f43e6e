//! What each leg of a split request says, by protocol.
//!
//! Pure: the request as it would be sent whole, who prefills, and fresh ids become bodies and headers; what prefill answered becomes the body of decode.
//! What may stay in the body of a prefill is decided by one rule: what the prompt's KV or the first token depends on stays, what would end the
//! request other than by its length goes.

use std::fmt;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use tollgate_sdk::llm::members::{self, Members};

use crate::model::{Disaggregation, KvProtocol};

const KV: &str = "kv_transfer_params";
const HOST: &str = "bootstrap_host";
const PORT: &str = "bootstrap_port";
const ROOM: &str = "bootstrap_room";
const RANK: HeaderName = HeaderName::from_static("x-data-parallel-rank");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Fields that are ours to set: who sets them may ask for what others computed.
pub(super) const OURS: [&str; 4] = [KV, HOST, PORT, ROOM];

/// What a vLLM that prefills must not see: it shall end by length, after one token, in one piece.
const NOT_FOR_PREFILL: [&str; 6] = [
    "stream",
    "stream_options",
    "stop",
    "stop_token_ids",
    "min_tokens",
    "min_completion_tokens",
];

/// A request as one target would get it.
pub(super) struct Request<'r> {
    pub(super) pieces: &'r [Bytes],
    pub(super) members: &'r Members,
    /// How many sequences it asks for, where it asks for several.
    pub(super) batch: Option<usize>,
}

/// What an attempt is told apart by, and who prefills.
pub(super) struct Names<'n> {
    /// The request's own id.
    pub(super) request_id: &'n str,
    /// Which attempt it is, from 1.
    pub(super) attempt: u32,
    /// Drawn anew for each attempt.
    pub(super) random: [u64; 2],
    /// The host of the target that prefills, as in a URL.
    pub(super) host: &'n str,
    /// Its port for KV.
    pub(super) port: Option<u16>,
    /// Its data-parallel rank and the id of the engine there, where the protocol needs them.
    pub(super) rank: Option<(u32, String)>,
}

/// One leg as it is sent.
#[derive(Debug)]
pub(in crate::proxy) struct Leg {
    pub(in crate::proxy) pieces: Vec<Bytes>,
    pub(in crate::proxy) headers: Vec<(HeaderName, HeaderValue)>,
    /// It bears ids that no engine may see twice.
    pub(in crate::proxy) once: bool,
}

/// Prefill answered with something that no decode can use.
#[derive(Debug, PartialEq)]
pub(super) struct Unusable(&'static str);

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "prefill answered {}", self.0)
    }
}

/// How many sequences a request asks for, if more than one or as a list: prompts by choices.
pub(super) fn batch(pieces: &[Bytes], members: &Members) -> Option<usize> {
    #[derive(Deserialize)]
    struct Choices {
        n: Option<u64>,
    }
    let choices = { members.alone(pieces, "n") }
        .and_then(|member| serde_json::from_slice::<Choices>(&member).ok())
        .and_then(|choices| usize::try_from(choices.n?).ok())
        .unwrap_or(1);
    let prompts = { members.alone(pieces, "prompt") }.and_then(|member| prompts(&member));
    match (prompts, choices) {
        (None, 0 | 1) => None,
        (prompts, choices) => Some(prompts.unwrap_or(1).saturating_mul(choices.max(1))),
    }
}

/// How many prompts a list of them holds; a list of tokens is one prompt.
fn prompts(member: &[u8]) -> Option<usize> {
    let colon = member.iter().position(|byte| *byte == b':')?;
    let value = member.get(colon + 1..member.len() - 1)?.trim_ascii();
    let inside = value.strip_prefix(b"[")?.trim_ascii_start();
    match inside.first() {
        Some(b'"' | b'[') => {
            let prompts = serde_json::from_slice::<Vec<IgnoredAny>>(value).ok()?;
            Some(prompts.len())
        }
        _ => None,
    }
}

/// Whether this version of a protocol can split a request that asks for several sequences: vLLM hands over one set of KV an answer.
pub(super) fn splits_batches(protocol: KvProtocol) -> bool {
    protocol == KvProtocol::Sglang
}

/// The prefill of a request whose decode follows.
pub(super) fn first(settings: &Disaggregation, request: &Request<'_>, names: &Names<'_>) -> Leg {
    let params = match settings.protocol {
        KvProtocol::VllmNixl => json!({
            "do_remote_decode": true,
            "do_remote_prefill": false,
            "remote_engine_id": null,
            "remote_block_ids": null,
            "remote_host": null,
            "remote_port": null,
        }),
        KvProtocol::VllmKvt => json!({"do_remote_decode": true}),
        _ => json!({"do_remote_decode": true, "do_remote_prefill": false}),
    };
    Leg {
        pieces: of_prefill(request, &params),
        headers: own_id(settings, names),
        once: settings.protocol == KvProtocol::VllmKvt,
    }
}

/// The decode of a request whose prefill answered. `None`: it handed nothing over.
///
/// # Errors
/// What it handed over is not to be used.
pub(super) fn second(
    settings: &Disaggregation,
    request: &Request<'_>,
    names: &Names<'_>,
    answer: &Bytes,
) -> Result<Option<Leg>, Unusable> {
    let params = match settings.protocol {
        KvProtocol::VllmKvt => {
            let place = json!({"remote_host": names.host, "remote_port": names.port, "do_remote_prefill": true});
            place.to_string()
        }
        protocol => match handed_over(protocol, answer)? {
            Some(params) => params,
            None => return Ok(None),
        },
    };
    Ok(Some(Leg {
        pieces: { request.members }.edit(request.pieces, &[], &[(KV, params)]),
        headers: own_id(settings, names),
        once: settings.protocol == KvProtocol::VllmKvt,
    }))
}

/// Both legs of a request whose prefill and decode run at the same time; some engines fetch what they decode without a prefill of ours.
pub(super) fn both(
    settings: &Disaggregation,
    request: &Request<'_>,
    names: &Names<'_>,
) -> (Option<Leg>, Leg) {
    match settings.protocol {
        KvProtocol::Sglang => {
            let pieces = with_room(request, names);
            let leg = || Leg {
                pieces: pieces.clone(),
                headers: Vec::new(),
                once: true,
            };
            (Some(leg()), leg())
        }
        KvProtocol::VllmKvt => {
            let params = json!({"remote_host": names.host, "remote_port": names.port});
            let decode = Leg {
                pieces: { request.members }.edit(request.pieces, &[], &[(KV, params.to_string())]),
                headers: own_id(settings, names),
                once: true,
            };
            (None, decode)
        }
        KvProtocol::VllmMooncake | KvProtocol::VllmNixl => transfer(request, names),
    }
}

/// Mooncake, both at once: one id leads decode to its KV.
fn transfer(request: &Request<'_>, names: &Names<'_>) -> (Option<Leg>, Leg) {
    let [high, _] = names.random;
    // The client's id may come twice, and so would the attempt.
    let transfer = format!("xfer-{}-{}-{high:016x}", names.request_id, names.attempt);
    let (rank, engine) = names.rank.clone().unwrap_or_default();
    let port = names.port.unwrap_or(8998);
    let prefill = json!({
        "do_remote_decode": true,
        "do_remote_prefill": false,
        "transfer_id": transfer,
    });
    let decode = json!({
        "do_remote_prefill": true,
        "do_remote_decode": false,
        "transfer_id": transfer,
        "remote_bootstrap_addr": format!("http://{}:{port}", names.host),
        "remote_engine_id": engine,
    });
    let prefill = Leg {
        pieces: of_prefill(request, &prefill),
        headers: vec![(RANK, HeaderValue::from(rank))],
        once: true,
    };
    let decode = Leg {
        pieces: { request.members }.edit(request.pieces, &[], &[(KV, decode.to_string())]),
        headers: Vec::new(),
        once: true,
    };
    (Some(prefill), decode)
}

/// SGLang: the same body for both, in a room where they meet.
fn with_room(request: &Request<'_>, names: &Names<'_>) -> Vec<Bytes> {
    /// Rooms are 63 bits wide.
    const ROOMS: u64 = u64::MAX >> 1;
    let [first, _] = names.random;
    let room = |index: usize| first.wrapping_add(index as u64) & ROOMS;
    let (host, port, rooms) = match request.batch {
        None => (json!(names.host), json!(names.port), json!(room(0))),
        Some(size) => {
            let rooms: Vec<u64> = (0..size).map(room).collect();
            (
                json!(vec![names.host; size]),
                json!(vec![names.port; size]),
                json!(rooms),
            )
        }
    };
    let set = [(HOST, host), (PORT, port), (ROOM, rooms)];
    let set = set.map(|(name, value)| (name, value.to_string()));
    request.members.edit(request.pieces, &[], &set)
}

/// A body for vLLM that makes it compute the prompt, one token, and say where its KV is.
fn of_prefill(request: &Request<'_>, params: &Value) -> Vec<Bytes> {
    let mut set = vec![(KV, params.to_string()), ("max_tokens", "1".to_owned())];
    if request.members.has("max_completion_tokens") {
        set.push(("max_completion_tokens", "1".to_owned()));
    }
    { request.members }.edit(request.pieces, &NOT_FOR_PREFILL, &set)
}

/// KVT finds KV by the request's id, so each attempt has one of its own.
fn own_id(settings: &Disaggregation, names: &Names<'_>) -> Vec<(HeaderName, HeaderValue)> {
    if settings.protocol != KvProtocol::VllmKvt {
        return Vec::new();
    }
    let [high, _] = names.random;
    let id = format!("{}-{}-{high:016x}", names.request_id, names.attempt);
    let id = HeaderValue::try_from(id).ok();
    id.map(|id| (REQUEST_ID, id)).into_iter().collect()
}

/// The parameters that a prefill answered with, as it wrote them.
fn handed_over(protocol: KvProtocol, answer: &Bytes) -> Result<Option<String>, Unusable> {
    let params = members::value(answer, KV)
        .map_err(|_| Unusable("with something that is no JSON object"))?;
    let Some(text) = params
        .as_deref()
        .and_then(|raw| std::str::from_utf8(raw).ok())
    else {
        return Ok(None);
    };
    let wrong = Err(Unusable("with `kv_transfer_params` that cannot be used"));
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Null) => Ok(None),
        Ok(Value::Object(params)) if params.is_empty() => Ok(None),
        Ok(Value::Object(params)) if protocol == KvProtocol::VllmNixl => {
            let field = |name: &str| params.get(name).unwrap_or(&Value::Null);
            let names_kv = field("remote_engine_id").is_string()
                && field("remote_block_ids").is_array()
                && field("remote_host").is_string()
                && (field("remote_port").is_u64() || field("remote_port").is_string())
                && *field("do_remote_prefill") != Value::Bool(false);
            if names_kv {
                Ok(Some(text.to_owned()))
            } else {
                wrong
            }
        }
        Ok(Value::Object(_)) => Ok(Some(text.to_owned())),
        _ => wrong,
    }
}
