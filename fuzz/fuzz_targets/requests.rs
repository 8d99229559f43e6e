//! Requests on a connection, chunked or not: the same however they come, and none is waited for that is there.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tollgate::proxy::check::check_requests(bytes));
