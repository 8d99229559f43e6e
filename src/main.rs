//! The `tollgate` program.

use std::process::ExitCode;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(all(feature = "jemalloc", not(feature = "mimalloc")))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    give_memory_back();
    tollgate::cli::main()
}

/// Lets a thread of the allocator's return what a storm has left, also when no request comes any more.
fn give_memory_back() {
    #[cfg(all(feature = "jemalloc", not(feature = "mimalloc")))]
    let _ = tikv_jemalloc_ctl::background_thread::write(true);
}
