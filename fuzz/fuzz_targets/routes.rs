//! Hosts, rules and models lead where a reference says.
#![no_main]

#[path = "../checks/routes.rs"]
mod routes;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| routes::check_routes(bytes));
