//! Any value in any field, and what golden files do not show.

use serde_json::{Value, json};

use super::super::{Converted, Fate, Options};
use super::{convert, recognises};

fn read(document: &Value) -> Converted {
    convert(document, &Options::default())
}

fn refused(document: &Value) -> Vec<String> {
    let notes = read(document)
        .notes
        .into_iter()
        .filter(|note| note.fate == Fate::Refused);
    notes.map(|note| note.path).collect()
}

fn gateway(fields: Value) -> Value {
    let mut whole = json!({"name": "front", "zones": ["US-EAST-04A"], "coreWeaveAuth": {}, "pathBasedRouting": {}});
    for (name, value) in fields.as_object().unwrap() {
        whole[name] = value.clone();
    }
    whole
}

#[test]
fn objects_are_known_by_their_fields() {
    for document in [
        json!({"coreWeaveAuth": {}}),
        json!({"gateway": {"spec": {"name": "g", "pathBasedRouting": {}}, "status": {}}}),
        json!({"items": [{"spec": {"coreWeaveAuth": {}}}]}),
        json!({"capacityClaims": [{"capacityType": "CUSTOMER"}]}),
        json!({"name": "d", "gatewayIds": ["g"]}),
        json!([{"gateway_ids": ["g"]}]),
    ] {
        assert!(recognises(&document), "{document}");
    }
    for document in [
        json!(null),
        json!([]),
        json!({}),
        json!({"kind": "gateway", "name": "g", "routing": "path"}),
        json!({"gateway": [{"name": "main", "hosts": ["*"]}]}),
        json!({"name": "s", "model": "m", "weight": 1}),
        json!({"type": "service", "model": {"name": "m"}, "traffic": 1}),
        json!({"items": [1]}),
    ] {
        assert!(!recognises(&document), "{document}");
    }
}

#[test]
fn auth_and_routing_are_exactly_one_each() {
    for (fields, paths) in [
        (json!({}), vec![]),
        (json!({"coreWeaveAuth": null}), vec![""]),
        (
            json!({"weightsAndBiasesAuth": {}}),
            vec!["weightsAndBiasesAuth"],
        ),
        (
            json!({"bodyBasedRouting": {"apiType": "API_TYPE_OPENAI"}}),
            vec!["pathBasedRouting"],
        ),
        (json!({"pathBasedRouting": null}), vec![]),
        (
            json!({"coreWeaveAuth": null, "weightsAndBiasesAuth": {"apiKey": "k"}}),
            vec!["weightsAndBiasesAuth.apiKey"],
        ),
        (
            json!({"coreWeaveAuth": null, "weightsAndBiasesAuth": {"serverUrl": "u"}}),
            vec![],
        ),
        (
            json!({"pathBasedRouting": null, "headerBasedRouting": {"headerName": "x".repeat(101)}}),
            vec!["headerBasedRouting.headerName"],
        ),
        (
            json!({"pathBasedRouting": null, "headerBasedRouting": {}}),
            vec!["headerBasedRouting.headerName"],
        ),
    ] {
        assert_eq!(refused(&gateway(fields.clone())), paths, "{fields}");
    }
}

#[test]
fn gateways_are_found_by_id_and_name() {
    let deployment = |id: &str| json!({"name": "d", "gatewayIds": [id], "model": {"name": "acme/chat"}, "traffic": {"weight": 0}});
    let of = |document: &Value, options: &Options| -> Value {
        let converted = convert(document, options);
        let service = converted
            .resources
            .iter()
            .find(|resource| resource.kind == "service");
        service.unwrap().body["gateways"].clone()
    };
    let own = Options::default();
    let list = json!([gateway(json!({"id": "0d3f"})), deployment("0d3f")]);
    assert_eq!(of(&list, &own), json!(["front"]));
    assert_eq!(
        of(&json!([gateway(json!({})), deployment("front")]), &own),
        json!(["front"])
    );
    assert_eq!(
        of(&json!([gateway(json!({})), deployment("0d3f")]), &own),
        json!(["front"])
    );
    assert_eq!(of(&deployment("0D3F"), &own), json!(["0d3f"]));
    let asked = Options {
        gateway: Some("main".into()),
        ..Options::default()
    };
    assert_eq!(of(&deployment("0d3f"), &asked), json!(["main"]));
}

/// Told, never a panic, never a secret, and never a resource without a name.
#[test]
fn any_value_can_stand_anywhere() {
    let whole = json!([
        {"id": "g", "organizationId": "o", "name": "front", "zones": ["z"], "coreWeaveAuth": {}, "headerBasedRouting": {"headerName": "X-Model"},
            "endpointConfiguration": {"additionalDns": ["a.example"], "allowedSourceIpRanges": ["10.0.0.0/8"]}},
        {"spec": {"name": "other", "weightsAndBiasesAuth": {"apiKey": "hidden-secret", "serverUrl": "u", "enableUsageReports": true, "enableRateLimiting": false},
            "bodyBasedRouting": {"apiType": "API_TYPE_OPENAI"}, "endpointConfiguration": {"additionalDns": ["b.example"]}}, "status": {}},
        {"id": "d", "name": "d", "gatewayIds": ["g"], "disabled": false, "runtime": {"engine": "vllm", "version": "1.2.3", "engineConfig": {}, "engineEnv": {"T": "hidden-secret"}},
            "resources": {"instanceType": "t", "gpuCount": 1}, "model": {"name": "acme/chat", "bucket": "b", "path": "p"},
            "autoscaling": {"min": 1, "max": 2, "priority": 1, "concurrency": 1, "capacityClasses": ["CAPACITY_CLASS_RESERVED"]}, "traffic": {"weight": 1}},
        {"instanceId": "i", "instanceCount": 1, "capacityType": "CUSTOMER", "zones": ["z"]},
    ]);
    let values = [
        json!(null),
        json!(true),
        json!(-1),
        json!(1e300),
        json!(u64::MAX),
        json!(""),
        json!("\u{0}${{ x"),
        json!("*"),
        json!("é"),
        json!([]),
        json!([[]]),
        json!([{}]),
        json!({}),
        json!({"type": 1}),
        json!([null, 1, "x", {"name": {}}]),
        json!({"a_b": {"b": []}}),
    ];
    let mut places = Vec::new();
    all_places(&whole, String::new(), &mut places);
    assert!(places.len() > 40, "{}", places.len());
    for place in &places {
        for value in &values {
            let mut document = whole.clone();
            *document.pointer_mut(place).unwrap() = value.clone();
            let converted = read(&document);
            assert!(converted.notes.iter().all(
                |note| !note.message.is_empty() && !format!("{note}").contains("hidden-secret")
            ));
            for resource in converted.resources {
                assert!(resource.body["name"].is_string(), "{document}");
            }
        }
    }
}

/// JSON pointers to everything below a value.
fn all_places(value: &Value, at: String, places: &mut Vec<String>) {
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                all_places(item, format!("{at}/{index}"), places);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                all_places(field, format!("{at}/{name}"), places);
            }
        }
        _ => {}
    }
    places.push(at);
}
