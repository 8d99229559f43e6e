//! The admin API from memory, as far as the command line asks for it: it plans, applies, lists and deletes, and remembers what it was asked.
//!
//! It knows no model: a resource is whatever has a kind and a name, and its fields are compared one by one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use serde_json::{Map, Value, json};

use super::{Api, Mood, Request, Web};

pub(crate) struct Admin {
    web: Web,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
pub(crate) struct State {
    revision: u64,
    resources: BTreeMap<(String, String), Map<String, Value>>,
    /// Beside `revision`, what `/v1/status` says.
    pub(crate) status: Value,
    /// What `/metrics` says next; the last one stays.
    pub(crate) metrics: Vec<String>,
    /// So many plans are made stale by somebody else as soon as they are made.
    pub(crate) rivals: usize,
}

type Said = (u16, Value);

impl Admin {
    pub(crate) fn start() -> Admin {
        let state = Arc::new(Mutex::new(State {
            revision: 1,
            status: json!({}),
            ..State::default()
        }));
        let theirs = state.clone();
        let web = Web::start(Mood::Well, move |request| answer(&theirs, request));
        Admin { web, state }
    }

    pub(crate) fn api(&self) -> Api {
        let address = self.web.url();
        Api::new(address.trim_start_matches("http://").parse().unwrap())
    }

    pub(crate) fn url(&self) -> String {
        self.web.url()
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.web.set(mood);
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap());
    }

    /// Puts a resource there, as if somebody else had.
    pub(crate) fn put(&self, kind: &str, resource: Value) {
        self.change(|state| state.put(kind, resource.as_object().unwrap().clone()));
    }

    /// A resource as it stands; null if there is none.
    pub(crate) fn resource(&self, kind: &str, name: &str) -> Value {
        let state = self.state.lock().unwrap();
        let found = state.resources.get(&(kind.to_owned(), name.to_owned()));
        found.cloned().map_or(Value::Null, Value::Object)
    }

    pub(crate) fn count(&self) -> usize {
        self.state.lock().unwrap().resources.len()
    }

    /// Method and path of each request so far.
    pub(crate) fn asked(&self) -> Vec<String> {
        let asked = self.web.asked();
        let line = |request: &Request| format!("{} {}", request.method(), request.path());
        asked.iter().map(line).collect()
    }

    /// How many requests there were of this method and path.
    pub(crate) fn times(&self, line: &str) -> usize {
        self.asked().iter().filter(|asked| *asked == line).count()
    }
}

fn answer(state: &Mutex<State>, request: &Request) -> (u16, String) {
    let mut state = state.lock().unwrap();
    if request.path() == "/metrics" {
        let next = match state.metrics.len() {
            0 | 1 => state.metrics.first().cloned(),
            _ => Some(state.metrics.remove(0)),
        };
        return (200, next.unwrap_or_default());
    }
    let parts: Vec<&str> = request
        .path()
        .trim_start_matches("/v1/")
        .split('/')
        .collect();
    let (status, body) = match (request.method(), parts.as_slice()) {
        ("POST", ["plan"]) => state.plan(request),
        ("POST", ["apply"]) => state.apply(request),
        ("GET", ["status"]) => state.status(),
        ("GET", [kinds]) => state.list(kinds),
        ("GET", [kinds, name]) => state.one(kinds, name),
        ("DELETE", [kinds, name]) => state.delete(kinds, name),
        ("DELETE", ["upstreams", _, "targets", _]) => (204, Value::Null),
        _ => error(404, "not_found", "There is no such page here."),
    };
    let body = match body {
        Value::Null => String::new(),
        body => body.to_string(),
    };
    (status, body)
}

fn error(status: u16, code: &str, message: &str) -> Said {
    (status, json!({"error": {"message": message, "code": code}}))
}

fn singular(kinds: &str) -> String {
    kinds.strip_suffix('s').unwrap().to_owned()
}

/// The resources of a document, without what is only told.
fn items(request: &Request) -> Vec<(String, String, Map<String, Value>)> {
    let body: Value = serde_json::from_slice(&request.body).unwrap();
    let item = |item: &Value| {
        let mut fields = item.as_object().unwrap().clone();
        let kind = fields.remove("kind").unwrap().as_str().unwrap().to_owned();
        fields.remove("managed_by");
        fields.remove("revision");
        let name = fields["name"].as_str().unwrap().to_owned();
        (kind, name, fields)
    };
    body["items"].as_array().unwrap().iter().map(item).collect()
}

impl State {
    fn put(&mut self, kind: &str, mut fields: Map<String, Value>) {
        self.revision += 1;
        let name = fields["name"].as_str().unwrap().to_owned();
        fields.insert("kind".into(), kind.into());
        fields.insert("managed_by".into(), "api".into());
        fields.insert("revision".into(), self.revision.into());
        self.resources.insert((kind.to_owned(), name), fields);
    }

    /// A weight that is no number is the one mistake that is found.
    fn mistakes(request: &Request) -> Option<Said> {
        let wrong = |(index, (_, _, fields)): (usize, &(String, String, Map<String, Value>))| {
            let weight = fields.get("weight").filter(|weight| !weight.is_u64())?;
            let message = format!("expected a whole number, found {weight}; for example: 100");
            Some(json!({"path": format!("documents[{index}].weight"), "message": message}))
        };
        let details: Vec<Value> = items(request)
            .iter()
            .enumerate()
            .filter_map(wrong)
            .collect();
        let message = format!("There are {} mistakes in the document.", details.len());
        let body = json!({"error": {"message": message, "code": "invalid", "details": details}});
        (!details.is_empty()).then_some((422, body))
    }

    fn plan(&mut self, request: &Request) -> Said {
        if let Some(wrong) = Self::mistakes(request) {
            return wrong;
        }
        let answer = json!({"revision": self.revision, "changes": self.changes(request, false), "notes": [], "warnings": []});
        if self.rivals > 0 {
            self.rivals -= 1;
            let number = self.revision;
            let fields = json!({"name": format!("rival-{number}"), "weight": number});
            self.put("service", fields.as_object().unwrap().clone());
        }
        (200, answer)
    }

    fn changes(&self, request: &Request, is_done: bool) -> Vec<Value> {
        let change = |(kind, name, fields): (String, String, Map<String, Value>)| {
            let known = self.resources.get(&(kind.clone(), name.clone()));
            let own = |field: &str| known.and_then(|known| known.get(field)).cloned();
            let changed = fields
                .iter()
                .filter(|(field, to)| own(field).as_ref() != Some(to));
            let changed: Vec<Value> = changed
                .map(|(field, to)| {
                    let to = if field == "api_key" {
                        &json!("***")
                    } else {
                        to
                    };
                    json!({"path": field, "from": own(field), "to": to})
                })
                .collect();
            let action = match (known, changed.is_empty()) {
                (None, _) => "create",
                (Some(_), false) => "update",
                (Some(_), true) => "unchanged",
            };
            let mut change = json!({"kind": kind, "name": name, "action": action, "fields": if known.is_some() { changed } else { Vec::new() }});
            if is_done && kind == "key" && known.is_none() && !fields.contains_key("hash") {
                change["secret"] = json!(format!("tg_{name}_secret"));
            }
            change
        };
        items(request).into_iter().map(change).collect()
    }

    fn apply(&mut self, request: &Request) -> Said {
        let wanted = request.header("if-match");
        if wanted.is_some_and(|wanted| wanted != format!("\"{}\"", self.revision)) {
            return error(412, "stale", "The configuration has changed.");
        }
        if let Some(wrong) = Self::mistakes(request) {
            return wrong;
        }
        let changes = self.changes(request, true);
        for (kind, _, fields) in items(request) {
            self.put(&kind, fields);
        }
        (
            200,
            json!({"revision": self.revision, "changes": changes, "notes": [], "warnings": []}),
        )
    }

    fn status(&self) -> Said {
        let mut status = self.status.clone();
        status["revision"] = self.revision.into();
        (200, status)
    }

    fn list(&self, kinds: &str) -> Said {
        let kind = singular(kinds);
        let own = self
            .resources
            .iter()
            .filter(|((known, _), _)| *known == kind);
        // In no order that anybody could rely on.
        let items: Vec<_> = own.map(|(_, fields)| fields).rev().collect();
        (200, json!({"items": items, "revision": self.revision}))
    }

    fn one(&self, kinds: &str, name: &str) -> Said {
        let name = name.replace("%2D", "-");
        match self.resources.get(&(singular(kinds), name.clone())) {
            Some(fields) => (200, json!(fields)),
            None => error(
                404,
                "not_found",
                &format!("There is no {} {name}.", singular(kinds)),
            ),
        }
    }

    fn delete(&mut self, kinds: &str, name: &str) -> Said {
        let name = name.replace("%2D", "-");
        let kind = singular(kinds);
        let user = self.resources.iter().find(|(_, fields)| {
            fields.get(&kind).is_some_and(|used| *used == json!(name))
                || fields.get(kinds).is_some_and(|used| {
                    used.as_array()
                        .is_some_and(|used| used.contains(&json!(name)))
                })
        });
        if let Some(((by, user), _)) = user {
            return error(409, "in_use", &format!("The {by} {user} refers to it."));
        }
        match self.resources.remove(&(kind.clone(), name.clone())) {
            Some(_) => {
                self.revision += 1;
                (204, Value::Null)
            }
            None => error(404, "not_found", &format!("There is no {kind} {name}.")),
        }
    }
}
