//! Request bodies: peeking agrees with serde_json, however the body is cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|body: &[u8]| tollgate_sdk::llm::check::check_peek(body));
