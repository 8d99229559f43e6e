//! The admin API does what its OpenAPI document says, and the document is one.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::harness::{Process, assert_done, engine, program, python, service};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_document_is_openapi() {
    let file = root().join("conf/openapi.json");
    let script = "import json, sys\nfrom openapi_spec_validator import OpenAPIV31SpecValidator\nOpenAPIV31SpecValidator(json.load(open(sys.argv[1]))).validate()";
    let folder = tempfile::tempdir().unwrap();
    let arguments = ["-c", script, &file.display().to_string()];
    assert_done(&python(folder.path(), &arguments));
}

#[test]
fn the_document_is_served_and_complete() {
    let process = Process::run(&service("m", "m", &engine().url()));
    let document = process.api().get("/v1/openapi.json").json();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    let mut ids = Vec::new();
    for (path, page) in paths {
        for (method, operation) in page.as_object().unwrap() {
            ids.push(operation["operationId"].as_str().unwrap().to_owned());
            let said = |status: &str| &operation["responses"][status];
            for (status, answer) in operation["responses"].as_object().unwrap() {
                assert!(!answer["description"].as_str().unwrap().is_empty());
                let has_body = answer.get("content").is_some();
                assert_eq!(has_body, status != "204", "{method} {path} {status}");
            }
            if operation["security"] == json!([]) {
                assert_eq!(said("401"), &Value::Null, "{method} {path}");
            } else {
                assert_eq!(
                    said("401")["content"]["application/json"]["schema"]["$ref"],
                    "#/components/schemas/Error",
                    "{method} {path}"
                );
            }
        }
    }
    let printed = program(&["schema", "--openapi"], &[], None).done();
    assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), document);
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count, "two operations of one name");
}

/// Requests made up from the document, good ones and bad ones: never a failure of ours, never an answer that is not documented.
#[test]
fn it_answers_as_documented() {
    let more = "[[key]]\nname = \"filed\"\ngateway = \"main\"\nsecret = \"tg_0_0123456789abcdef\"\n[server]\nstate = \"./tollgate.db\"\n";
    let process = Process::run(&(service("m", "m", &engine().url()) + more));
    let url = format!("http://{}", process.admin);
    let document = process.path("openapi.json");
    std::fs::write(&document, tollgate::admin::openapi()).unwrap();
    let arguments = [
        "-m",
        "schemathesis.cli",
        "run",
        &document.display().to_string(),
        "--url",
        &url,
        "--checks",
        "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,response_headers_conformance,unsupported_method",
        // A stream has no end.
        "--exclude-path",
        "/v1/events",
        // The process would be replaced by one that the test does not know: tests/resilience/upgrade.rs asks for it.
        "--exclude-path",
        "/v1/upgrade",
        "--phases",
        "examples,coverage,fuzzing",
        // The same requests every time.
        "--generation-deterministic",
        "--max-time",
        "60",
        "--max-examples",
        "40",
        "--workers",
        "1",
        "--request-timeout",
        "20",
        "--continue-on-failure",
        "--no-color",
    ];
    assert_done(&python(&process.path(""), &arguments));
    assert!(process.is_ready());
    let log = process.read("stderr");
    assert!(!log.contains("panicked"), "{log}");
}
