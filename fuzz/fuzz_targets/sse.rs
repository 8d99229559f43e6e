//! Streamed answers: events, usage and what the client gets do not depend on how the stream is cut.
#![no_main]

libfuzzer_sys::fuzz_target!(|stream: &[u8]| tollgate_sdk::llm::check::check_sse(stream));
