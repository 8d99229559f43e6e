//! What must hold for any text that is read as a configuration; shared by the fuzz target and the property tests.

use tollgate::config::{self, Format};

/// Reading ends without a panic, a refusal names a mistake, and what is said can be shown; in every format.
pub(crate) fn check_document(text: &str) {
    let no_file = |_: &str| Err("there are no files here".to_owned());
    for format in [Format::Toml, Format::Yaml, Format::Json] {
        match config::parse("document", text, format, &|_| None, &no_file) {
            Ok(loaded) => drop(loaded.warnings.to_string()),
            Err(diagnostics) => {
                assert!(diagnostics.errors() > 0);
                assert!(!diagnostics.to_string().is_empty());
            }
        }
    }
}
