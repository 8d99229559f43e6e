//! What is written in Python: SDKs, and judges that others have written.

use std::path::Path;
use std::process::{Command, Output};

use super::sdk_folder;

/// The Python that tests/sdk/setup.sh has made, in a folder it may fill.
pub(crate) fn python(folder: &Path, arguments: &[&str]) -> Output {
    let output = Command::new(sdk_folder().join("python"))
        .args(arguments)
        .current_dir(folder)
        .env_remove("HTTP_PROXY")
        .env_remove("http_proxy")
        .env("NO_PROXY", "127.0.0.1")
        .output();
    output.expect("run tests/sdk/setup.sh")
}

/// It must have ended well.
#[track_caller]
pub(crate) fn assert_done(output: &Output) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success(),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}
