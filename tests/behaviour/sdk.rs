//! The openai SDK for Python, as applications use it.

use std::path::Path;
use std::process::Command;

use crate::harness::{Gateway, engine_with, sdk_folder, service};

#[test]
fn the_openai_sdk_works() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = sdk_folder().join("python");
    let model = "Qwen/Qwen3-8B";
    let engine = engine_with(|config| config.models = vec![model.to_owned()]);
    let gateway = Gateway::start(&service("qwen", model, &engine.url()));
    let output = Command::new(&python)
        .arg(root.join("tests/sdk/openai_sdk.py"))
        .arg(format!("http://{}/v1", gateway.address()))
        .arg(model)
        .env_remove("HTTP_PROXY")
        .env_remove("http_proxy")
        .env("NO_PROXY", "127.0.0.1")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    gateway.assert_gauges_zero();
}
