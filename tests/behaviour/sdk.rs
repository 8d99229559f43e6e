//! The openai SDK for Python, as applications use it.

use std::path::PathBuf;
use std::process::Command;

use crate::harness::{Gateway, engine_with, service};

#[test]
fn the_openai_sdk_works() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let python = target.join("venv/bin/python");
    let has_sdk = Command::new(&python).args(["-c", "import openai"]).output();
    assert!(
        has_sdk.is_ok_and(|output| output.status.success()),
        "the openai SDK is not installed: run tests/sdk/setup.sh"
    );
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
