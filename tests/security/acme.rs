//! Orders that strangers would like to cause, and answers that they would like to have.

use serde_json::json;

use crate::behaviour::acme::{handshake, refusal, wanting};
use crate::behaviour::tls::at;
use crate::harness::{Client, Gateway, Pebble, Setup, get};

#[test]
fn no_stranger_makes_an_order() {
    let pebble = Pebble::start(Setup::exact());
    let gateway = Gateway::start(&format!(
        "{}{}{}[[gateway]]\nname = \"others\"\nhosts = [\"*\"]\nauth = \"none\"\n",
        pebble.listeners(),
        pebble.table(""),
        wanting("n", &["n.example"]),
    ));
    handshake(&pebble, "n.example");
    let (manner, asking) = (pebble.trusted(), pebble.trusted().offering(&["acme-tls/1"]));
    for index in 0..10 {
        let name = format!("x{index}.example");
        refusal(&pebble, &name, &manner);
        refusal(&pebble, &name, &asking);
        let mut client = Client::connect(pebble.plain());
        client.send(at(&name, get("/v1/models", "")));
        client.reply();
    }
    // An order more is made when a gateway is, and comes after all that was asked before.
    let body = json!({"name": "m", "hosts": ["m.example"], "auth": "none", "certificate": "acme"});
    let reply = gateway.api().ask("PUT", "/v1/gateways/m", &body);
    assert_eq!(reply.status, 201, "{}", reply.text());
    handshake(&pebble, "m.example");
    assert_eq!(pebble.orders(), 2);
}

#[test]
fn a_token_that_is_not_under_way_is_a_path_like_any_other() {
    let pebble = Pebble::start(Setup::new());
    let _gateway = Gateway::start(&format!(
        "{}{}{}redirect_https = true\n",
        pebble.listeners(),
        pebble.table(""),
        wanting("n", &["n.example"])
    ));
    handshake(&pebble, "n.example");
    for token in ["", "x", "../x", "%2e%2e", "a/b"] {
        let path = format!("/.well-known/acme-challenge/{token}");
        let mut client = Client::connect(pebble.plain());
        client.send(at("n.example", get(&path, "")));
        assert_eq!(client.reply().status, 308, "{path}");
        client.send(at("stranger.example", get(&path, "")));
        assert_eq!(client.reply().status, 421, "{path}");
    }
}
