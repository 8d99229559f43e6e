//! Schemas that are none, and bodies that do not fit one.

use serde_json::{Value as Json, json};
use tollgate_sdk::document::{At, Format, FromNode, Reading};

use super::schema::JsonSchema;
use crate::testing::{Call, node, plugin, problems};

/// What a body is refused with: the field and the message.
fn refused(schema: &Json, body: &str) -> Option<(String, String)> {
    let validator = plugin("request_validator", json!({"schema": schema}));
    let refusal = Call::post(body.to_owned()).pre_request(&validator).err()?;
    assert_eq!((refusal.status, refusal.code), (400, "invalid_request"));
    let told = refusal.told();
    Some((told.param.unwrap_or_default(), told.message))
}

#[test]
fn bodies_fit_or_are_refused_at_the_field() {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "required": ["messages"],
        "properties": {
            "messages": {"type": "array", "minItems": 1, "items": {"$ref": "#/$defs/message"}},
            "n": {"type": ["integer", "null"], "minimum": 1, "maximum": 4},
            "mode": {"enum": ["a", "b"]},
            "user": {"type": "string", "pattern": "^u-[0-9]+$", "maxLength": 6},
            "a.b": {"const": 1},
            "$ref": {"type": "boolean"},
            "either": {"anyOf": [{"type": "string"}, {"$ref": "#/$defs/message"}]},
        },
        "$defs": {
            "message": {
                "required": ["role"],
                "properties": {"role": {"type": "string"}, "content": true},
                "additionalProperties": false,
            },
        },
    });
    let message = r#""messages":[{"role":"user"}]"#;
    for fits in [
        "",
        r#","n":2,"user":"u-12""#,
        r#","n":null,"either":{"role":"x"},"$ref":true"#,
    ] {
        assert_eq!(
            refused(&schema, &format!("{{{message}{fits}}}")),
            None,
            "{fits}"
        );
    }
    for (body, field, told) in [
        ("{}".to_owned(), "messages", "`messages` is missing"),
        (
            r#"{"messages":[]}"#.into(),
            "messages",
            "`messages` has fewer than 1 elements",
        ),
        (
            r#"{"messages":[{"role":"a"},{"role":1}]}"#.into(),
            "messages.1.role",
            "`messages.1.role` must be of type string",
        ),
        (
            r#"{"messages":[{"role":"a","x":1}]}"#.into(),
            "messages.0.x",
            "`messages.0.x` is not allowed",
        ),
        (format!(r#"{{{message},"n":5}}"#), "n", "`n` is above 4"),
        (
            format!(r#"{{{message},"n":1.5}}"#),
            "n",
            "`n` must be of type ",
        ),
        (
            format!(r#"{{{message},"mode":"c"}}"#),
            "mode",
            r#"`mode` must be one of "a", "b""#,
        ),
        (
            format!(r#"{{{message},"user":"v"}}"#),
            "user",
            r#"`user` does not match "^u-[0-9]+$""#,
        ),
        (
            format!(r#"{{{message},"user":"u-12345"}}"#),
            "user",
            "`user` has more than 6 characters",
        ),
        (
            format!(r#"{{{message},"a.b":2}}"#),
            r"a\.b",
            r"`a\.b` must be 1",
        ),
        (
            format!(r#"{{{message},"either":{{}}}}"#),
            "either",
            "`either` fits none of the schemas of `anyOf`",
        ),
    ] {
        let (param, message) = refused(&schema, &body).unwrap();
        assert_eq!(param, field, "{body}");
        assert!(message.starts_with(told), "{message}");
    }
}

#[test]
fn faults_are_counted_and_what_is_asked_besides_is_told_too() {
    let schema = json!({"properties": {"list": {"items": {"type": "string"}}}});
    let settings = json!({"required": ["model"], "schema": schema});
    let validator = plugin("request_validator", settings);
    let many = json!({"list": vec![1; 1000]}).to_string();
    let refusal = Call::post(many).pre_request(&validator).unwrap_err();
    assert!(
        refusal
            .message
            .starts_with("`model` is missing; `list.0` must be of type string; ")
    );
    assert_eq!(refusal.message.matches("; ").count(), 9);
}

#[test]
fn no_object_has_a_name_twice_or_letters_that_are_none() {
    let schema = json!({"properties": {"n": {"maximum": 1}}});
    for (body, field, message) in [
        (r#"{"n":9,"n":1}"#, "n", "`n` is given twice"),
        (
            r#"{"a":[{"b":{"x":1}},{"c":1,"\u0063":{}}]}"#,
            "a.1.c",
            "`a.1.c` is given twice",
        ),
        (
            "{\"a\":1,\n\"b\":\"\u{1}\"}",
            "",
            "the body is not JSON, at byte 13",
        ),
        (r#"{"n":1e999}"#, "", "the body is not JSON, at byte 9"),
    ] {
        let told = refused(&schema, body);
        assert_eq!(told, Some((field.into(), message.into())), "{body}");
    }
    let body = r#"{"a":{"n":1},"b":[{"n":1},{"n":1}],"n":1}"#;
    assert_eq!(refused(&schema, body), None);
}

#[test]
fn a_schema_that_is_none_is_refused_at_the_place() {
    for (schema, part) in [
        (json!([]), "schema: expected a JSON Schema, found a list"),
        (
            json!({"properties": {"a": {"type": "text"}}}),
            "schema.properties.a.type: ",
        ),
        (
            json!({"properties": {"a": {"pattern": "(x"}}}),
            "schema.properties.a.pattern: ",
        ),
        (
            json!({"items": {"allOf": [{}, {"minimum": "x"}]}}),
            "schema.items.allOf[1].minimum: must be of type number",
        ),
        (
            json!({"$ref": "#/$defs/a"}),
            "is referred to, and is no part of the schema",
        ),
        (
            json!({"$ref": "other.json"}),
            "schema.$ref: nothing outside the schema is read",
        ),
        (
            json!({"items": {"$ref": "https://example.com/s"}}),
            "schema.items.$ref: nothing outside the schema is read",
        ),
        (
            json!({"items": {"$ref": "file:///etc/hostname"}}),
            "schema.items.$ref: nothing outside",
        ),
        (
            json!({"$ref": "https://json-schema.org/draft/2020-12/schema"}),
            "schema.$ref: nothing outside",
        ),
        (
            json!({"$ref": "#name", "$anchor": "name"}),
            "schema.$ref: references are JSON pointers",
        ),
        (
            json!({"$dynamicRef": "#m"}),
            "schema.$dynamicRef: `$dynamicRef` is not supported",
        ),
        (json!({"items": {"$id": "x"}}), "schema.items.$id: "),
        (
            json!({"$schema": "http://json-schema.org/draft-07/schema#"}),
            "schema.$schema: only draft 2020-12",
        ),
        (
            json!({"file": "s.json"}),
            "schema.file: there are no files here",
        ),
    ] {
        let told = problems("request_validator", json!({"schema": schema})).join("\n");
        assert!(told.contains(part), "{schema}: {told}");
    }
    let mut deep = json!({});
    for _ in 0..100 {
        deep = json!({"items": deep});
    }
    let told = problems("request_validator", json!({"schema": deep})).join("\n");
    assert!(told.contains("nested deeper than 64"), "{told}");
}

#[test]
fn a_schema_does_not_lead_round_in_a_circle() {
    let circles = [
        json!({"properties": {"a": {"$ref": "#"}}}),
        json!({"items": {"$ref": "#/$defs/a"}, "$defs": {"a": {"oneOf": [{"items": {"$ref": "#/$defs/b"}}]}, "b": {"not": {"$ref": "#/$defs/a"}}}}),
        json!({"$ref": "#/$defs/a%20b", "$defs": {"a b": {"items": {"$ref": "#/$defs/a%20b"}}}}),
    ];
    for schema in circles {
        let told = problems("request_validator", json!({"schema": schema})).join("\n");
        assert!(
            told.contains("$ref: the schema refers to itself here"),
            "{told}"
        );
    }
    let fine = json!({
        "properties": {"a": {"$ref": "#/$defs/a"}, "b": {"$ref": "#/$defs/a"}, "c": {"const": {"$ref": "#"}}},
        "$defs": {"a": {"items": {"$ref": "#/$defs/b"}}, "b": {"maximum": 1}},
    });
    assert_eq!(refused(&fine, r##"{"a":[1],"c":{"$ref":"#"}}"##), None);
    assert_eq!(refused(&fine, r#"{"a":[0,2]}"#).unwrap().0, "a.1");
}

#[test]
fn a_schema_may_be_in_a_file() {
    let read = |content: &str| {
        let file = |path: &str| match path {
            "s.json" => Ok(content.to_owned()),
            _ => Err("no such file".to_owned()),
        };
        let mut r = Reading::new(Format::Toml, &file);
        let schema = JsonSchema::read(&node(&json!({"file": "s.json"})), &At::ROOT, &mut r);
        let told = r.problems.into_iter().map(|problem| problem.message);
        (schema, told.collect::<Vec<_>>())
    };
    let (schema, told) = read(r#"{"maxProperties": 1}"#);
    assert_eq!(told, [""; 0]);
    let schema = schema.unwrap();
    assert_eq!(schema.value(), json!({"file": "s.json"}));
    assert_eq!(schema.faults(&json!({"a": 1, "b": 1})).len(), 1);
    assert_ne!(Some(schema), read("{}").0, "the file has changed");
    for (content, message) in [
        ("{", "the file is not JSON, at line 1, column 1"),
        ("7", "the file holds no JSON Schema"),
        (
            r#"{"items":{"type":"x"}}"#,
            "the schema, at \"/items/type\": ",
        ),
    ] {
        let (schema, told) = read(content);
        assert!(
            schema.is_none() && told.concat().starts_with(message),
            "{told:?}"
        );
    }
}
