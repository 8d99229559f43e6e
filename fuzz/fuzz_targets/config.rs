//! Configurations: any text is read without harm.
#![no_main]

#[path = "../checks/document.rs"]
mod document;

libfuzzer_sys::fuzz_target!(|text: &str| document::check_document(text));
