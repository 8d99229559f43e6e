//! The PROXY header: what it says does not depend on how it comes.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tollgate::proxy::check::check_preamble(bytes));
