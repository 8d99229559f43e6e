//! Many who change the same thing at once: nothing is lost, nothing is done twice.

use std::sync::Barrier;

use serde_json::{Value, json};

use crate::harness::{Api, Process, bearer, service, until};

const WRITERS: usize = 8;
const EACH: usize = 50;

/// With its state in a file, so that changes take the time they take.
fn start() -> Process {
    let filed = service("filed", "filed", "http://127.0.0.1:9");
    let keyed = "[[gateway]]\nname = \"main\"\nhosts = [\"*\"]\n";
    Process::start(&format!(
        "[server]\nstate = \"./tollgate.db\"\n{keyed}{filed}"
    ))
}

fn revision(api: &Api) -> u64 {
    api.get("/v1/services").json()["revision"].as_u64().unwrap()
}

/// Reads the number, and sends the next one if nobody else did meanwhile. Whether that was so.
fn count_up(api: &Api, by_patch: bool) -> bool {
    let found = api.get("/v1/services/s");
    let mut body = found.json();
    let number: usize = body["labels"]["n"].as_str().unwrap().parse().unwrap();
    let next = json!({"n": (number + 1).to_string()});
    let (method, body) = match by_patch {
        true => ("PATCH", json!({"labels": next})),
        false => {
            body["labels"] = next;
            ("PUT", body)
        }
    };
    let fields = format!("if-match: {}\r\n", found.header("etag").unwrap());
    let reply = api.send(
        method,
        "/v1/services/s",
        &fields,
        body.to_string().as_bytes(),
    );
    if reply.status == 412 {
        assert_eq!(reply.json()["error"]["code"], "stale", "{}", reply.text());
        return false;
    }
    assert_eq!(reply.status, 200, "{}", reply.text());
    true
}

#[test]
fn a_number_that_all_count_up_misses_none() {
    let process = start();
    let api = process.api();
    let body = json!({"name": "s", "models": ["s"], "targets": ["http://127.0.0.1:9"], "labels": {"n": "0"}});
    assert_eq!(api.ask("POST", "/v1/services", &body).status, 201);
    let before = revision(&api);
    let stale: usize = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let api = api.clone();
                scope.spawn(move || {
                    let mut stale = 0;
                    for _ in 0..EACH {
                        until("a turn", || {
                            let counted = count_up(&api, writer.is_multiple_of(2));
                            stale += usize::from(!counted);
                            counted.then_some(())
                        });
                    }
                    stale
                })
            })
            .collect();
        writers.into_iter().map(|w| w.join().unwrap()).sum()
    });
    let all = WRITERS * EACH;
    let counted = api.get("/v1/services/s").json()["labels"]["n"].clone();
    assert_eq!(counted, json!(all.to_string()));
    assert_eq!(
        revision(&api),
        before + all as u64,
        "each change is one revision"
    );
    assert!(stale > 0, "nobody was in anybody's way");
}

/// All of them ask at the same moment; what each was told.
fn all_at_once(api: &Api, path: &str, body: impl Fn(usize) -> Value + Sync) -> Vec<(u16, Value)> {
    let begin = Barrier::new(WRITERS);
    std::thread::scope(|scope| {
        let asked: Vec<_> = (0..WRITERS)
            .map(|writer| {
                let (begin, body) = (&begin, &body);
                scope.spawn(move || {
                    begin.wait();
                    let reply = api.ask("POST", path, &body(writer));
                    (reply.status, reply.json())
                })
            })
            .collect();
        asked.into_iter().map(|w| w.join().unwrap()).collect()
    })
}

#[test]
fn of_all_who_take_a_name_one_has_it() {
    let process = start();
    let api = process.api();
    for round in 0..5 {
        let before = revision(&api);
        for kind in ["service", "key"] {
            let name = format!("{kind}-{round}");
            let body = |writer: usize| match kind {
                "key" => {
                    json!({"name": name, "gateway": "main", "description": format!("of {writer}")})
                }
                _ => {
                    json!({"name": name, "models": [format!("{name}-{writer}")], "targets": ["http://127.0.0.1:9"], "description": format!("of {writer}")})
                }
            };
            let told = all_at_once(&api, &format!("/v1/{kind}s"), body);
            let made: Vec<&Value> = { told.iter() }
                .filter(|(status, _)| *status == 201)
                .map(|(_, body)| body)
                .collect();
            let [made] = made[..] else {
                panic!("{} of them have {name}", made.len());
            };
            for (status, body) in told.iter().filter(|(status, _)| *status != 201) {
                assert_eq!(
                    (*status, &body["error"]["code"]),
                    (409, &json!("exists")),
                    "{body}"
                );
            }
            // It is the one's who was told so.
            let shown = api.get(&format!("/v1/{kind}s/{name}")).json();
            assert_eq!(shown["description"], made["description"]);
            if let Some(secret) = made["secret"].as_str() {
                let known = process.client().get("/v1/models", &bearer(secret));
                assert_eq!(known.status, 200, "{}", known.text());
            }
        }
        assert_eq!(revision(&api), before + 2);
    }
}
