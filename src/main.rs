//! The `tollgate` program.

use std::process::ExitCode;

/// It gives back what a storm has left. Its settings stand in `.cargo/config.toml`.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    give_memory_back();
    tollgate::cli::main()
}

/// Lets a thread of the allocator's return memory also when no request comes any more.
fn give_memory_back() {
    #[cfg(feature = "jemalloc")]
    let _ = tikv_jemalloc_ctl::background_thread::write(true);
}
