//! What this process, gateway and engines included, takes of the machine.

use std::time::{Duration, Instant};

/// Longer than idle connections are kept.
const POOLED: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Footprint {
    /// Open files and sockets.
    pub(crate) files: usize,
    pub(crate) threads: usize,
    /// Resident, in bytes.
    pub(crate) memory: usize,
}

impl Footprint {
    fn now() -> Footprint {
        let entries = |path| std::fs::read_dir(path).unwrap().count();
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.strip_suffix(" kB"));
        Footprint {
            files: entries("/proc/self/fd"),
            threads: entries("/proc/self/task"),
            memory: resident.unwrap().trim().parse::<usize>().unwrap() * 1024,
        }
    }

    /// Once no file has been opened or closed for longer than pools keep idle connections.
    pub(crate) fn settled() -> Footprint {
        let start = Instant::now();
        let mut last = Footprint::now();
        let mut since = Instant::now();
        while since.elapsed() < POOLED && start.elapsed() < 4 * POOLED {
            std::thread::sleep(Duration::from_millis(50));
            let now = Footprint::now();
            if now.files != last.files {
                since = Instant::now();
            }
            last = now;
        }
        last
    }
}
