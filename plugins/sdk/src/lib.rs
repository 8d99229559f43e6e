//! The words that Tollgate's engine and its plugins share: no I/O, no proxy.
//!
//! `codes` are the errors that are answered; `document` reads typed settings from a configuration and finds every mistake at once; `llm` understands as much of
//! requests and answers to language models as a gateway needs; `plugin` is what a plugin is; `quota` what a limit is; `secret` keeps
//! credentials out of what is printed.

pub mod codes;
pub mod document;
pub mod llm;
pub mod plugin;
pub mod quota;
pub mod secret;
