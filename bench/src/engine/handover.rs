//! What a request asks of an engine that shares requests with others, read as strictly as the protocols are written.
//!
//! A field that is missing, of another type, or should not be there is refused, where a real engine might crash, hang or quietly compute everything
//! twice.

use serde_json::{Map, Value};

use super::peer::Request;
use super::reply::Refusal;
use super::transfer::{EngineRole, TransferConfig, TransferProtocol};

/// An engine's part in one request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// All of it.
    Whole,
    /// To compute the prompt.
    Prefill(Prefill),
    /// To fetch what is computed elsewhere, and go on from there.
    Decode(Vec<Source>),
}

/// What is held for whoever decodes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Prefill {
    /// Under which ids; none: one of the engine's own.
    pub(super) ids: Vec<String>,
    /// The answer says where it is.
    pub(super) tells: bool,
    /// The answer waits until it was fetched.
    pub(super) waits: bool,
}

/// Where something is fetched.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) id: String,
    /// The engine that is meant.
    pub(super) engine: Option<String>,
    /// It may still be computed.
    pub(super) waits: bool,
    /// It is computed because of this.
    pub(super) computes: bool,
    /// The id is the client's of this exchange, and must be new to this engine, too.
    pub(super) is_room: bool,
}

const KV: &str = "kv_transfer_params";
const ROOM_FIELDS: [&str; 3] = ["bootstrap_host", "bootstrap_port", "bootstrap_room"];
/// What would end a prefill otherwise than after one token, in one piece.
const NOT_FOR_PREFILL: [&str; 6] = [
    "stream",
    "stream_options",
    "stop",
    "stop_token_ids",
    "min_tokens",
    "min_completion_tokens",
];

/// Reads what is asked.
pub(super) fn read(
    config: &TransferConfig,
    request: &Request,
    body: &[u8],
    own_port: u16,
) -> Result<Part, Refusal> {
    let Ok(fields) = serde_json::from_slice::<Map<String, Value>>(body) else {
        return Err(wrong("a JSON object is expected", None));
    };
    if config.protocol == TransferProtocol::Sglang {
        return of_sglang(config, &fields, own_port);
    }
    if let Some(field) = ROOM_FIELDS.iter().find(|name| fields.contains_key(**name)) {
        return Err(wrong("not a field of vLLM", Some(field)));
    }
    let params = match fields.get(KV) {
        None | Some(Value::Null) => None,
        Some(Value::Object(params)) => Some(params),
        Some(_) => return Err(wrong("an object is expected", Some(KV))),
    };
    match (params, config.role) {
        (None, EngineRole::Prefill) => Err(wrong("this engine only prefills", Some(KV))),
        (None, _) => Ok(Part::Whole),
        (Some(params), role) => {
            let prefill = params.get("do_remote_decode") == Some(&Value::Bool(true));
            match (prefill, role) {
                (true, EngineRole::Decode) => Err(wrong("this engine only decodes", Some(KV))),
                (false, EngineRole::Prefill) => Err(wrong("this engine only prefills", Some(KV))),
                (true, _) => of_prefill(config, request, &fields, params),
                (false, _) => of_decode(config, request, params),
            }
        }
    }
}

fn of_prefill(
    config: &TransferConfig,
    request: &Request,
    fields: &Map<String, Value>,
    params: &Map<String, Value>,
) -> Result<Part, Refusal> {
    if let Some(field) = NOT_FOR_PREFILL
        .iter()
        .find(|name| fields.contains_key(**name))
    {
        return Err(wrong("a prefill must not have it", Some(field)));
    }
    let one = |name: &str| fields.get(name).and_then(Value::as_u64) == Some(1);
    if !one("max_tokens") {
        return Err(wrong("a prefill produces one token", Some("max_tokens")));
    }
    for name in ["max_completion_tokens", "n"] {
        if fields.contains_key(name) && !one(name) {
            return Err(wrong(
                "a prefill produces one token",
                Some("max_completion_tokens"),
            ));
        }
    }
    let (yes, no) = (Value::Bool(true), Value::Bool(false));
    let (ids, tells) = match config.protocol {
        TransferProtocol::Nixl => {
            let null = Value::Null;
            let wanted = [
                ("do_remote_decode", &yes),
                ("do_remote_prefill", &no),
                ("remote_engine_id", &null),
                ("remote_block_ids", &null),
                ("remote_host", &null),
                ("remote_port", &null),
            ];
            exactly(params, &wanted)?;
            (Vec::new(), true)
        }
        TransferProtocol::Mooncake => {
            let transfer = params.get("transfer_id").cloned();
            let mut wanted = vec![("do_remote_decode", &yes), ("do_remote_prefill", &no)];
            wanted.extend(transfer.as_ref().map(|id| ("transfer_id", id)));
            exactly(params, &wanted)?;
            match transfer {
                None => (Vec::new(), true),
                Some(_) => {
                    let rank = request.header("x-data-parallel-rank");
                    let rank = rank.and_then(|rank| rank.parse::<u32>().ok());
                    if rank.is_none_or(|rank| rank >= config.ranks) {
                        return Err(wrong("x-data-parallel-rank names no rank", None));
                    }
                    (vec![text(params, "transfer_id")?], false)
                }
            }
        }
        TransferProtocol::Kvt | TransferProtocol::Sglang => {
            exactly(params, &[("do_remote_decode", &yes)])?;
            (vec![request_id(request)?], false)
        }
    };
    Ok(Part::Prefill(Prefill {
        ids,
        tells,
        waits: false,
    }))
}

fn of_decode(
    config: &TransferConfig,
    request: &Request,
    params: &Map<String, Value>,
) -> Result<Part, Refusal> {
    let flag = |name: &str| params.get(name).and_then(Value::as_bool);
    let source = match config.protocol {
        TransferProtocol::Nixl => {
            let blocks = params.get("remote_block_ids").and_then(Value::as_array);
            if flag("do_remote_prefill") != Some(true) || blocks.is_none_or(Vec::is_empty) {
                return Err(wrong("nothing to fetch", Some(KV)));
            }
            Source {
                host: text(params, "remote_host")?,
                port: port(params.get("remote_port"))?,
                id: text(params, "remote_request_id")?,
                engine: Some(text(params, "remote_engine_id")?),
                waits: false,
                computes: false,
                is_room: false,
            }
        }
        TransferProtocol::Mooncake => {
            if flag("do_remote_prefill") != Some(true) || flag("do_remote_decode") != Some(false) {
                return Err(wrong("both flags are expected", Some(KV)));
            }
            let address = text(params, "remote_bootstrap_addr")?;
            let place =
                { address.strip_prefix("http://") }.and_then(|place| place.rsplit_once(':'));
            let place = place.and_then(|(host, port)| Some((host.to_owned(), port.parse().ok()?)));
            let (host, port) = place.ok_or(wrong("no address", Some("remote_bootstrap_addr")))?;
            Source {
                host,
                port,
                id: text(params, "transfer_id")?,
                engine: Some(text(params, "remote_engine_id")?),
                waits: true,
                computes: false,
                is_room: true,
            }
        }
        TransferProtocol::Kvt | TransferProtocol::Sglang => Source {
            host: text(params, "remote_host")?,
            port: port(params.get("remote_port"))?,
            id: request_id(request)?,
            engine: None,
            waits: false,
            computes: flag("do_remote_prefill") != Some(true),
            is_room: true,
        },
    };
    Ok(Part::Decode(vec![source]))
}

/// Rooms: one, or one for each sequence.
fn of_sglang(
    config: &TransferConfig,
    fields: &Map<String, Value>,
    own_port: u16,
) -> Result<Part, Refusal> {
    if let Some(field) = fields.get(KV).map(|_| KV) {
        return Err(wrong("not a field of SGLang", Some(field)));
    }
    let given = ROOM_FIELDS
        .iter()
        .filter(|name| fields.contains_key(**name));
    match (given.count(), config.role) {
        (0, EngineRole::Both) => return Ok(Part::Whole),
        (3, EngineRole::Prefill | EngineRole::Decode) => {}
        (_, EngineRole::Both) => {
            return Err(wrong("this engine shares nothing", Some(ROOM_FIELDS[2])));
        }
        _ => {
            return Err(wrong(
                "host, port and room are expected",
                Some(ROOM_FIELDS[2]),
            ));
        }
    }
    let choices = fields.get("n").and_then(Value::as_u64).unwrap_or(1).max(1);
    let prompts = fields.get("prompt").and_then(Value::as_array);
    let prompts = prompts.filter(|list| !list.iter().all(Value::is_number));
    let batch = match (prompts, choices) {
        (None, 1) => None,
        (prompts, choices) => Some(prompts.map_or(1, Vec::len) * choices as usize),
    };
    let list = |name: &'static str| -> Result<Vec<Value>, Refusal> {
        match (fields.get(name), batch) {
            (Some(Value::Array(values)), Some(size)) if values.len() == size => Ok(values.clone()),
            (Some(value), None) if !value.is_array() => Ok(vec![value.clone()]),
            _ => Err(wrong("one for each sequence is expected", Some(name))),
        }
    };
    let [hosts, ports, rooms] = ROOM_FIELDS;
    let (hosts, ports, rooms) = (list(hosts)?, list(ports)?, list(rooms)?);
    let mut sources = Vec::new();
    for ((host, at), room) in hosts.iter().zip(&ports).zip(&rooms) {
        let host = host
            .as_str()
            .ok_or(wrong("text is expected", Some(ROOM_FIELDS[0])))?;
        let port = match at {
            // The one it was started with: here they all have the engine's own.
            Value::Null => own_port,
            at => port(Some(at))?,
        };
        let room = room.as_u64().filter(|room| *room < 1 << 63);
        let room = room.ok_or(wrong(
            "a whole number of 63 bits is expected",
            Some(ROOM_FIELDS[2]),
        ))?;
        sources.push(Source {
            host: host.to_owned(),
            port,
            id: room.to_string(),
            engine: None,
            waits: true,
            computes: false,
            is_room: true,
        });
    }
    Ok(match config.role {
        EngineRole::Prefill => Part::Prefill(Prefill {
            ids: sources.into_iter().map(|source| source.id).collect(),
            tells: false,
            waits: true,
        }),
        _ => Part::Decode(sources),
    })
}

/// These parameters and no others.
fn exactly(params: &Map<String, Value>, wanted: &[(&str, &Value)]) -> Result<(), Refusal> {
    let has = |(name, value): &(&str, &Value)| params.get(*name) == Some(*value);
    match params.len() == wanted.len() && wanted.iter().all(has) {
        true => Ok(()),
        false => Err(wrong("not the parameters of a prefill", Some(KV))),
    }
}

fn text(params: &Map<String, Value>, name: &'static str) -> Result<String, Refusal> {
    let text = params
        .get(name)
        .and_then(Value::as_str)
        .filter(|text| !text.is_empty());
    text.map(str::to_owned)
        .ok_or(wrong("text is expected", Some(name)))
}

fn port(value: Option<&Value>) -> Result<u16, Refusal> {
    let port = value
        .and_then(Value::as_u64)
        .and_then(|port| u16::try_from(port).ok());
    port.filter(|port| *port > 0)
        .ok_or(wrong("a port is expected", Some("remote_port")))
}

fn request_id(request: &Request) -> Result<String, Refusal> {
    let missing = wrong("x-request-id is expected", None);
    request.header("x-request-id").ok_or(missing)
}

fn wrong(message: &str, field: Option<&'static str>) -> Refusal {
    let message = match field {
        Some(field) => format!("`{field}`: {message}"),
        None => message.to_owned(),
    };
    Refusal {
        status: 400,
        message,
        param: field,
    }
}
